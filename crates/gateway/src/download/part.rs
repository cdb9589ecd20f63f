//! A package on its way: `{sha256}.part`, its disk space reserved, and beside it `{sha256}.durable`, how many of
//! its bytes a power cut cannot take away any more.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::time::Instant;

use super::DownloadError;
use crate::disk;

/// After how many bytes they are made durable, so that a power cut costs no more than these.
const SYNC_BYTES: u64 = 8 * 1024 * 1024;
/// After how long that happens on a slow network.
const SYNC_EVERY: Duration = Duration::from_secs(5);

/// A package on its way.
pub(super) struct Part {
    pub(super) path: PathBuf,
    file: tokio::fs::File,
    size: u64,
    /// Bytes on disk.
    pub(super) length: u64,
    /// Bytes of these that are surely durable.
    durable: u64,
    synced_at: Instant,
    /// Of the bytes on disk.
    pub(super) hash: Context,
}

impl Part {
    /// Goes on with what is durable, or begins.
    pub(super) async fn open(path: &Path, size: u64) -> Result<Self, DownloadError> {
        let failed = |source| file_error(path, size, source);
        let owned = path.to_owned();
        let (file, length, hash) = blocking(move || open(&owned, size)).await.map_err(failed)?;
        let mut file = tokio::fs::File::from_std(file);
        file.seek(io::SeekFrom::Start(length)).await.map_err(failed)?;
        let synced_at = Instant::now();
        Ok(Self { path: path.to_owned(), file, size, length, durable: length, synced_at, hash })
    }

    pub(super) async fn append(&mut self, bytes: &[u8]) -> Result<(), DownloadError> {
        let appended = disk::append_soon(&mut self.file, &self.path, bytes).await;
        appended.map_err(|source| self.failed(source))?;
        self.hash.update(bytes);
        self.length = self.length.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        let is_much = self.length.saturating_sub(self.durable) >= SYNC_BYTES;
        if is_much || self.synced_at.elapsed() >= SYNC_EVERY { self.sync().await } else { Ok(()) }
    }

    /// Makes everything durable, then notes it.
    pub(super) async fn sync(&mut self) -> Result<(), DownloadError> {
        let noted = async {
            self.file.flush().await?;
            let file = self.file.try_clone().await?.into_std().await;
            let (path, length) = (self.path.clone(), self.length);
            blocking(move || {
                disk::sync(&file, &path)?;
                disk::replace(&durable_path(&path), length.to_string().as_bytes())
            })
            .await
        }
        .await;
        noted.map_err(|source| self.failed(source))?;
        (self.durable, self.synced_at) = (self.length, Instant::now());
        Ok(())
    }

    pub(super) async fn start_again(&mut self) -> Result<(), DownloadError> {
        let (path, size) = (self.path.clone(), self.size);
        let begun = blocking(move || {
            disk::remove(&durable_path(&path))?;
            let file = disk::open(&path)?;
            disk::cut(&file, &path, 0)?;
            disk::reserve(&file, &path, size)?;
            Ok(file)
        });
        self.file = tokio::fs::File::from_std(begun.await.map_err(|source| self.failed(source))?);
        (self.length, self.durable, self.hash) = (0, 0, Context::new(&SHA256));
        Ok(())
    }

    /// Deletes it.
    pub(super) async fn discard(self) -> Result<(), DownloadError> {
        let path = self.path.clone();
        // What counts goes first: it must not be taken for the length of what comes next.
        let removed = blocking(move || disk::remove(&durable_path(&path)).and_then(|()| disk::remove(&path)));
        removed.await.map_err(|source| self.failed(source))
    }

    /// Gives a whole, durable package its name.
    pub(super) async fn finish(self, image: &Path) -> Result<(), DownloadError> {
        let (from, to) = (self.path.clone(), image.to_owned());
        let named = blocking(move || {
            disk::move_durably(&from, &to)?;
            disk::remove(&durable_path(&from))
        });
        named.await.map_err(|source| file_error(image, self.size, source))
    }

    fn failed(&self, source: io::Error) -> DownloadError {
        file_error(&self.path, self.size, source)
    }
}

/// Works on the disk away from the threads that serve sockets.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other).and_then(|done| done)
}

/// Says so where it is the disk that is full.
pub(super) fn file_error(path: &Path, size: u64, source: io::Error) -> DownloadError {
    if source.kind() == io::ErrorKind::StorageFull {
        return DownloadError::Space { path: path.to_owned(), size };
    }
    DownloadError::File { path: path.to_owned(), source }
}

/// Reserves the space of a file that may not be there yet.
pub(super) fn reserve_at(path: &Path, size: u64) -> io::Result<()> {
    disk::reserve(&disk::open(path)?, path, size)
}

fn durable_path(part: &Path) -> PathBuf {
    part.with_extension("durable")
}

/// The file, how many of its bytes count, and their hash so far.
fn open(path: &Path, size: u64) -> io::Result<(std::fs::File, u64, Context)> {
    let mut file = disk::open(path)?;
    let noted = std::fs::read_to_string(durable_path(path)).ok().and_then(|noted| noted.parse().ok());
    let length = file.metadata()?.len().min(noted.unwrap_or(0));
    let length = if length > size { 0 } else { length };
    disk::cut(&file, path, length)?;
    disk::reserve(&file, path, size)?;
    let mut hash = Context::new(&SHA256);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = file.read(&mut buffer)?;
        match buffer.get(..count) {
            Some([]) | None => return Ok((file, length, hash)),
            Some(bytes) => hash.update(bytes),
        }
    }
}
