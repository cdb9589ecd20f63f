//! Reads an image block by block, so that it is never in memory as a whole.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};

use bytes::{BufMut, BytesMut};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::EcuError;

/// An image that is being written to an ECU.
#[derive(Debug)]
pub(super) struct ImageReader {
    path: PathBuf,
    size: u64,
    file: File,
    position: u64,
}

impl ImageReader {
    pub(super) async fn open(path: &Path, size: u64) -> Result<Self, EcuError> {
        match File::open(path).await {
            Ok(file) => Ok(Self { path: path.to_owned(), size, file, position: 0 }),
            Err(source) => Err(EcuError::Image { path: path.to_owned(), size, source }),
        }
    }

    /// Appends a part of the image to `out`.
    pub(super) async fn append(
        &mut self,
        offset: u64,
        length: usize,
        out: &mut BytesMut,
    ) -> Result<(), EcuError> {
        self.read(offset, length, out).await.map_err(|source| EcuError::Image {
            path: self.path.clone(),
            size: self.size,
            source,
        })
    }

    async fn read(&mut self, offset: u64, length: usize, out: &mut BytesMut) -> std::io::Result<()> {
        // Blocks follow each other, except where a download starts again.
        if offset != self.position {
            self.position = self.file.seek(SeekFrom::Start(offset)).await?;
        }
        let start = out.len();
        out.put_bytes(0, length);
        if let Some(block) = out.get_mut(start..) {
            self.file.read_exact(block).await?;
        }
        self.position += length as u64;
        Ok(())
    }
}
