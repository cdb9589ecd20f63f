//! The images' bytes: one file per image, named by its digest, whole or not there at all.

mod parts;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, Digest, SHA256};
use bytes::Bytes;
use farrier_protocol::Sha256;
use futures_util::{Stream, StreamExt};
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;

pub(crate) use parts::Parts;

const INCOMING: &str = ".incoming-";

/// The folder of images; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Artifacts(Arc<Folder>);

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// What files begin with that this server has not finished: other servers may share the folder.
    incoming: String,
}

/// Why an image was not stored. Then nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreImageError {
    /// Not as many octets as announced.
    #[error("expected {expected} octets, found {found}; send the whole file")]
    Size {
        /// What was announced.
        expected: u64,
        /// What came; one more than announced stands for all beyond.
        found: u64,
    },
    /// Other octets than the digest says.
    #[error(
        "expected an image with SHA-256 {expected}, found one with {found}; send the file that the digest is of"
    )]
    Digest {
        /// From the address.
        expected: Sha256,
        /// Of the octets that came.
        found: Sha256,
    },
    /// The sender stopped.
    #[error("the image did not come whole; send it again")]
    Interrupted,
    /// The disk refused.
    #[error("the image could not be written")]
    Write(#[from] io::Error),
}

/// An image that is written, checked and durable, but not yet under its name.
pub(crate) struct WrittenImage {
    incoming: Incoming,
    /// SHA-256 of its octets, for the signature.
    pub(crate) digest: Digest,
}

impl WrittenImage {
    pub(crate) fn sha256(&self) -> Sha256 {
        sha256_of(&self.digest)
    }
}

/// A file that is removed unless it gets its name.
struct Incoming {
    path: PathBuf,
    is_kept: bool,
    /// Held until it has its name or is gone, where several may write to it.
    lock: Option<File>,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.is_kept {
            // What cannot be removed now is removed at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Artifacts {
    /// Opens the folder, makes it if need be, and removes what this server had not finished when it last ended.
    pub(crate) fn open(dir: &Path, node: &str) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let incoming = format!("{INCOMING}{node}-");
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&incoming) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Self(Arc::new(Folder { path: dir.to_owned(), incoming })))
    }

    /// Where the image with this digest is.
    pub(crate) fn path(&self, sha256: &Sha256) -> PathBuf {
        self.0.path.join(sha256.to_string())
    }

    /// Writes an image as it comes, and checks its length and digest.
    pub(crate) async fn write<E>(
        &self,
        expected: Sha256,
        size_bytes: u64,
        octets: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<WrittenImage, StoreImageError> {
        let path = self.0.path.join(format!("{}{}", self.0.incoming, crate::store::new_id()));
        let incoming = Incoming { path, is_kept: false, lock: None };
        let mut file = File::create_new(&incoming.path).await?;
        let (mut hash, mut found) = (Context::new(&SHA256), 0_u64);
        let mut octets = std::pin::pin!(octets);
        while let Some(chunk) = octets.next().await {
            let chunk = chunk.map_err(|_| StoreImageError::Interrupted)?;
            found = found.saturating_add(chunk.len() as u64);
            if found > size_bytes {
                return Err(StoreImageError::Size { expected: size_bytes, found });
            }
            hash.update(&chunk);
            file.write_all(&chunk).await?;
        }
        if found != size_bytes {
            return Err(StoreImageError::Size { expected: size_bytes, found });
        }
        file.sync_all().await?;
        let digest = hash.finish();
        if digest.as_ref() != expected.as_bytes() {
            return Err(StoreImageError::Digest { expected, found: sha256_of(&digest) });
        }
        Ok(WrittenImage { incoming, digest })
    }

    /// Puts a written image under its name, durably.
    pub(crate) async fn keep(&self, image: WrittenImage) -> io::Result<()> {
        let mut incoming = image.incoming;
        fs::rename(&incoming.path, self.path(&sha256_of(&image.digest))).await?;
        incoming.is_kept = true;
        incoming.lock = None;
        File::open(&self.0.path).await?.sync_all().await
    }
}

fn sha256_of(digest: &Digest) -> Sha256 {
    let mut octets = [0; 32];
    for (to, from) in octets.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    octets.into()
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    async fn write(artifacts: &Artifacts, expected: Sha256, size: u64) -> Result<(), StoreImageError> {
        let chunks = [Ok::<_, io::Error>(Bytes::from_static(b"ab")), Ok(Bytes::from_static(b"c"))];
        let written = artifacts.write(expected, size, stream::iter(chunks)).await?;
        Ok(artifacts.keep(written).await?)
    }

    #[tokio::test]
    async fn an_image_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(dir.path(), "n").unwrap();
        let files = || std::fs::read_dir(dir.path()).unwrap().count();
        let digest = Sha256::of(b"abc");

        assert!(matches!(write(&artifacts, digest, 4).await, Err(StoreImageError::Size { found: 3, .. })));
        assert!(matches!(write(&artifacts, digest, 2).await, Err(StoreImageError::Size { .. })));
        let wrong = Sha256::of(b"other");
        assert!(matches!(write(&artifacts, wrong, 3).await, Err(StoreImageError::Digest { .. })));
        let broken = stream::iter([Ok(Bytes::from_static(b"ab")), Err(io::Error::other("cut"))]);
        assert!(matches!(artifacts.write(digest, 3, broken).await, Err(StoreImageError::Interrupted)));
        assert_eq!(files(), 0);

        write(&artifacts, digest, 3).await.unwrap();
        write(&artifacts, digest, 3).await.unwrap();
        assert_eq!(std::fs::read(artifacts.path(&digest)).unwrap(), b"abc");
        assert_eq!(files(), 1);
    }

    #[tokio::test]
    async fn what_a_server_has_not_finished_is_removed_at_its_next_start_and_that_of_others_is_left() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".incoming-a-1"), "half").unwrap();
        std::fs::write(dir.path().join(".incoming-b-1"), "half").unwrap();
        Artifacts::open(dir.path(), "a").unwrap();
        let left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [".incoming-b-1"]);
    }
}
