//! A package's file, opened once for the ranges that a connection asks for in turn, and read in large blocks.
//! What the page cache holds is read at once; only what must come from the disk goes to another thread.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustix::io::{Errno, ReadWriteFlags};

use super::blocks::Blocks;

/// An open file of the length that was expected.
#[derive(Debug, Clone)]
pub(super) struct Source(Arc<File>);

impl Source {
    async fn open(path: PathBuf, size_bytes: u64) -> io::Result<Self> {
        blocking(move || {
            let file = File::open(path)?;
            let found = file.metadata()?.len();
            if found != size_bytes {
                return Err(io::Error::other(format!("expected {size_bytes} bytes, found {found}")));
            }
            Ok(Self(Arc::new(file)))
        })
        .await
    }

    /// Up to `most` bytes from `offset` on, as many as a block takes; an error where the file ends before.
    pub(super) async fn read(&self, offset: u64, most: u64, blocks: &Arc<Blocks>) -> io::Result<Bytes> {
        let mut block = blocks.take(most);
        let cached = rustix::io::preadv2(
            &*self.0,
            &mut [IoSliceMut::new(block.as_mut())],
            offset,
            ReadWriteFlags::NOWAIT,
        );
        let read = match cached {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            // Not in the page cache, or a file system that cannot say.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => {
                let file = Arc::clone(&self.0);
                let filled = blocking(move || {
                    file.read_exact_at(block.as_mut(), offset)?;
                    Ok(block)
                });
                return Ok(filled.await?.into_bytes());
            }
            Err(error) => return Err(error.into()),
        };
        block.truncate(read);
        Ok(block.into_bytes())
    }
}

async fn blocking<T: Send + 'static>(job: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(job).await.map_err(io::Error::other)?
}

/// The file that a connection asked for last: a vehicle fetches one package after the other, each in many ranges.
/// A file under its digest's name never changes, so that it need not be looked at again.
#[derive(Debug, Default)]
pub(super) struct LastSource(Mutex<Option<(PathBuf, Source)>>);

impl LastSource {
    pub(super) async fn open(&self, path: &Path, size_bytes: u64) -> io::Result<Source> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((opened, source)) = last
            && opened == path
        {
            return Ok(source);
        }
        let source = Source::open(path.to_owned(), size_bytes).await?;
        let last = Some((path.to_owned(), source.clone()));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = last;
        Ok(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_block_by_block_to_its_end_and_no_further() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("content");
        let content: Vec<u8> = (0..1_300_000_u32).map(|at| (at % 241) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let (last, blocks) = (LastSource::default(), Arc::new(Blocks::default()));
        let source = last.open(&path, 1_300_000).await.unwrap();
        let (mut at, mut found) = (0, Vec::new());
        while at < 1_300_000 {
            let block = source.read(at, 1_300_000 - at, &blocks).await.unwrap();
            at += block.len() as u64;
            found.extend_from_slice(&block);
        }
        assert!(found == content);
        let error = source.read(1_300_000, 1, &blocks).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_file_of_another_length_is_not_served() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("content");
        std::fs::write(&path, b"abc").unwrap();
        let error = LastSource::default().open(&path, 4).await.unwrap_err();
        assert!(error.to_string().contains("expected 4 bytes, found 3"), "{error}");
    }
}
