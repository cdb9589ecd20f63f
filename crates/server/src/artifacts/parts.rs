//! Images that come in parts: the file of the octets that are there, one for each digest, which one writer has at a time among all
//! servers that share the folder. How many of its octets count is the store's to say.

use std::fs::TryLockError;
use std::io;
use std::path::PathBuf;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use farrier_protocol::Sha256;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt, SeekFrom};

use super::{Artifacts, Incoming, StoreImageError, WrittenImage, sha256_of};

const PARTS: &str = ".parts-";
/// Octets that are read at a time to make the digest of the whole.
const CHUNK: usize = 1 << 20;

/// The file of an upload, which nobody else writes to while this is there.
pub(crate) struct Parts {
    path: PathBuf,
    file: File,
}

impl Artifacts {
    /// The file of an upload, made if need be; none where somebody else is writing to it.
    pub(crate) async fn parts(&self, sha256: &Sha256) -> io::Result<Option<Parts>> {
        let path = self.0.path.join(format!("{PARTS}{sha256}"));
        let open = path.clone();
        let locked = tokio::task::spawn_blocking(move || {
            let file =
                std::fs::File::options().read(true).write(true).create(true).truncate(false).open(open)?;
            match file.try_lock() {
                Ok(()) => Ok(Some(file)),
                Err(TryLockError::WouldBlock) => Ok(None),
                Err(TryLockError::Error(error)) => Err(error),
            }
        });
        let locked = locked.await.map_err(io::Error::other)??;
        Ok(locked.map(|file| Parts { path, file: File::from_std(file) }))
    }

    /// How many octets there is room for beside what is there.
    pub(crate) fn free_bytes(&self) -> io::Result<u64> {
        let room = rustix::fs::statvfs(&self.0.path)?;
        Ok(room.f_bavail.saturating_mul(room.f_frsize))
    }
}

impl Parts {
    /// Goes to where the next octets belong, and throws away what lies behind; gives how many octets there are, which is
    /// fewer where the file is not what the store takes it for.
    pub(crate) async fn go_to(&mut self, offset_bytes: u64) -> io::Result<u64> {
        let there = self.file.metadata().await?.len().min(offset_bytes);
        self.file.set_len(there).await?;
        self.file.seek(SeekFrom::Start(there)).await?;
        Ok(there)
    }

    pub(crate) async fn append(&mut self, octets: &Bytes) -> io::Result<()> {
        self.file.write_all(octets).await
    }

    /// From here on what was appended outlives a crash.
    pub(crate) async fn sync(&mut self) -> io::Result<()> {
        self.file.flush().await?;
        self.file.sync_all().await
    }

    /// The whole image, if it is the one that the digest is of; otherwise nothing is left of it.
    pub(crate) async fn whole(mut self, expected: Sha256) -> Result<WrittenImage, StoreImageError> {
        self.file.seek(SeekFrom::Start(0)).await?;
        let mut hash = Context::new(&SHA256);
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = self.file.read(&mut buffer).await?;
            let Some(octets) = buffer.get(..read).filter(|octets| !octets.is_empty()) else { break };
            hash.update(octets);
        }
        let digest = hash.finish();
        if digest.as_ref() != expected.as_bytes() {
            self.remove().await?;
            return Err(StoreImageError::Digest { expected, found: sha256_of(&digest) });
        }
        let incoming = Incoming { path: self.path, is_kept: false, lock: Some(self.file) };
        Ok(WrittenImage { incoming, digest })
    }

    pub(crate) async fn remove(self) -> io::Result<()> {
        match tokio::fs::remove_file(&self.path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}
