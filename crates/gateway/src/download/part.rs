//! A package on its way: `{sha256}.part`, its disk space reserved, and beside it `{sha256}.durable`, how many of
//! its bytes a power cut cannot take away any more.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::time::Instant;

use super::DownloadError;

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
        let opened = tokio::task::spawn_blocking(move || open(&owned, size)).await;
        let (file, length, hash) =
            opened.map_err(io::Error::other).and_then(|opened| opened).map_err(failed)?;
        let mut file = tokio::fs::File::from_std(file);
        file.seek(io::SeekFrom::Start(length)).await.map_err(failed)?;
        let synced_at = Instant::now();
        Ok(Self { path: path.to_owned(), file, size, length, durable: length, synced_at, hash })
    }

    pub(super) async fn append(&mut self, bytes: &[u8]) -> Result<(), DownloadError> {
        self.file.write_all(bytes).await.map_err(|source| self.failed(source))?;
        self.hash.update(bytes);
        self.length = self.length.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        let is_much = self.length.saturating_sub(self.durable) >= SYNC_BYTES;
        if is_much || self.synced_at.elapsed() >= SYNC_EVERY { self.sync().await } else { Ok(()) }
    }

    /// Makes everything durable, then notes it.
    pub(super) async fn sync(&mut self) -> Result<(), DownloadError> {
        self.file.flush().await.map_err(|source| self.failed(source))?;
        self.file.sync_data().await.map_err(|source| self.failed(source))?;
        let (path, length) = (durable_path(&self.path), self.length);
        let noted = tokio::task::spawn_blocking(move || replace(&path, length.to_string().as_bytes())).await;
        noted.map_err(io::Error::other).and_then(|noted| noted).map_err(|source| self.failed(source))?;
        (self.durable, self.synced_at) = (length, Instant::now());
        Ok(())
    }

    pub(super) async fn start_again(&mut self) -> Result<(), DownloadError> {
        let began = async {
            forget(&durable_path(&self.path))?;
            self.file.set_len(0).await?;
            reserve(&self.file, self.size)?;
            self.file.seek(io::SeekFrom::Start(0)).await
        };
        began.await.map_err(|source| file_error(&self.path, self.size, source))?;
        (self.length, self.durable, self.hash) = (0, 0, Context::new(&SHA256));
        Ok(())
    }

    /// Deletes it.
    pub(super) async fn discard(self) -> Result<(), DownloadError> {
        let removed = tokio::fs::remove_file(&self.path).await;
        removed.and_then(|()| forget(&durable_path(&self.path))).map_err(|source| self.failed(source))
    }

    /// Gives a whole, durable package its name.
    pub(super) async fn finish(self, image: &Path) -> Result<(), DownloadError> {
        let from = self.path.clone();
        let to = image.to_owned();
        let renamed = tokio::task::spawn_blocking(move || {
            move_durably(&from, &to)?;
            forget(&durable_path(&from))
        });
        renamed
            .await
            .map_err(io::Error::other)
            .and_then(|renamed| renamed)
            .map_err(|source| file_error(image, self.size, source))
    }

    fn failed(&self, source: io::Error) -> DownloadError {
        file_error(&self.path, self.size, source)
    }
}

/// Says so where it is the disk that is full.
pub(super) fn file_error(path: &Path, size: u64, source: io::Error) -> DownloadError {
    if source.kind() == io::ErrorKind::StorageFull {
        return DownloadError::Space { path: path.to_owned(), size };
    }
    DownloadError::File { path: path.to_owned(), source }
}

/// Takes the disk space of a file before the first byte is fetched, without changing its length.
pub(super) fn reserve(file: &impl AsFd, size: u64) -> io::Result<()> {
    if size == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, size) {
        // A file system without reservation can at least be asked.
        Err(Errno::OPNOTSUPP) => {
            let disk = rustix::fs::fstatvfs(file)?;
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            if free >= size { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
        }
        reserved => Ok(reserved?),
    }
}

/// Reserves the space of a file that may not be there yet.
pub(super) fn reserve_at(path: &Path, size: u64) -> io::Result<()> {
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    reserve(&file, size)
}

/// Renames a file whose content is durable; the new name is durable too when this returns.
pub(crate) fn move_durably(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    sync_folder(to)
}

/// Writes a small file anew: after a power cut the old or the new content is there.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    io::Write::write_all(&mut file, content)?;
    file.sync_all()?;
    move_durably(&new, path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    std::fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn durable_path(part: &Path) -> PathBuf {
    part.with_extension("durable")
}

fn forget(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// The file, how many of its bytes count, and their hash so far.
fn open(path: &Path, size: u64) -> io::Result<(std::fs::File, u64, Context)> {
    let mut file =
        std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let noted = std::fs::read_to_string(durable_path(path)).ok().and_then(|noted| noted.parse().ok());
    let length = file.metadata()?.len().min(noted.unwrap_or(0));
    let length = if length > size { 0 } else { length };
    file.set_len(length)?;
    reserve(&file, size)?;
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
