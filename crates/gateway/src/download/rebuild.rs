//! Rebuilds an image from a delta and the image that is installed, chunk by chunk: each is durable before the
//! next, so that a restart goes on at the first that is missing. Memory is bounded by one chunk (`farrier_delta`).

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256, digest};
use farrier_delta::{ApplyError, DeltaReader, FormatError};
use farrier_protocol::Sha256;

use crate::disk;

/// An image cannot be rebuilt.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RebuildError {
    /// The delta is damaged.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The delta does not fit the base, or is damaged.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// It is a delta for something else.
    #[error("expected a delta from image {base} to image {image}, found one from {from} to {to}")]
    Other { base: Sha256, image: Sha256, from: String, to: String },
    /// The base, the delta or the new image cannot be read or written.
    #[error("cannot read or write {path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It is whole, but not what was announced.
    #[error("expected SHA-256 {image} of the rebuilt image, found another")]
    Hash { image: Sha256 },
}

/// What is rebuilt from what.
#[derive(Debug, Clone)]
pub(super) struct Rebuilding {
    pub(super) delta: PathBuf,
    pub(super) base: PathBuf,
    pub(super) base_sha256: Sha256,
    /// Where the image grows, and its name once it is verified.
    pub(super) growing: PathBuf,
    pub(super) image: PathBuf,
    pub(super) image_sha256: Sha256,
    pub(super) image_size_bytes: u64,
}

/// Under way. Every function blocks on the disk.
pub(super) struct Rebuild {
    what: Rebuilding,
    reader: DeltaReader<File>,
    base: File,
    growing: File,
    /// The chunk that comes next.
    chunk: u64,
    /// Of the chunks before.
    whole: Context,
}

impl Rebuild {
    /// Begins, or goes on after the chunks that are right already.
    pub(super) fn open(what: Rebuilding) -> Result<Self, RebuildError> {
        let reader = DeltaReader::open(open(&what.delta)?)?;
        let base = open(&what.base)?;
        what.check_header(&reader)?;
        let growing = disk::open(&what.growing).map_err(|source| file_error(&what.growing, source))?;
        let mut rebuild = Self { what, reader, base, growing, chunk: 0, whole: Context::new(&SHA256) };
        while rebuild.next_is_right()? {}
        let kept: u64 = (0..rebuild.chunk).map(|chunk| rebuild.chunk_bytes(chunk)).sum();
        let path = &rebuild.what.growing;
        let cut = disk::cut(&rebuild.growing, path, kept).and_then(|()| {
            disk::reserve(&rebuild.growing, path, rebuild.what.image_size_bytes)?;
            rebuild.growing.seek(io::SeekFrom::Start(kept)).map(|_| ())
        });
        cut.map_err(|source| file_error(&rebuild.what.growing, source))?;
        Ok(rebuild)
    }

    /// How many chunks are there.
    pub(super) fn chunks_done(&self) -> u64 {
        self.chunk
    }

    /// Whether every chunk is there.
    pub(super) fn is_whole(&self) -> bool {
        self.chunk >= self.reader.header().chunk_count()
    }

    /// Rebuilds one chunk and makes it durable.
    pub(super) fn next_chunk(mut self) -> Result<Self, RebuildError> {
        let rebuilt = self.reader.rebuild_chunk(self.chunk, &mut self.base)?;
        self.whole.update(&rebuilt);
        let path = &self.what.growing;
        let written =
            disk::append(&mut self.growing, path, &rebuilt).and_then(|()| disk::sync(&self.growing, path));
        written.map_err(|source| file_error(&self.what.growing, source))?;
        self.chunk += 1;
        Ok(self)
    }

    /// Gives the image its name, if it is what was announced.
    pub(super) fn finish(self) -> Result<(), RebuildError> {
        let what = self.what;
        if self.whole.finish().as_ref() != what.image_sha256.as_bytes() {
            disk::remove(&what.growing).map_err(|source| file_error(&what.growing, source))?;
            return Err(RebuildError::Hash { image: what.image_sha256 });
        }
        let named = disk::sync(&self.growing, &what.growing)
            .and_then(|()| disk::move_durably(&what.growing, &what.image));
        named.map_err(|source| file_error(&what.image, source))
    }

    fn chunk_bytes(&self, chunk: u64) -> u64 {
        u64::try_from(self.reader.header().chunk_bytes(chunk)).unwrap_or(u64::MAX)
    }

    /// Whether the next chunk is in the file already; a power cut can leave anything behind what was durable.
    fn next_is_right(&mut self) -> Result<bool, RebuildError> {
        if self.is_whole() {
            return Ok(false);
        }
        let mut found = vec![0; self.reader.header().chunk_bytes(self.chunk)];
        match self.growing.read_exact(&mut found) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            read => read.map_err(|source| file_error(&self.what.growing, source))?,
        }
        let is_right = digest(&SHA256, &found).as_ref() == self.reader.record(self.chunk)?.chunk_sha256;
        if is_right {
            self.whole.update(&found);
            self.chunk += 1;
        }
        Ok(is_right)
    }
}

impl Rebuilding {
    fn check_header(&self, reader: &DeltaReader<File>) -> Result<(), RebuildError> {
        let header = reader.header();
        let fits = &header.old_sha256 == self.base_sha256.as_bytes()
            && &header.new_sha256 == self.image_sha256.as_bytes()
            && header.new_bytes == self.image_size_bytes;
        if fits {
            return Ok(());
        }
        let hex = |octets: [u8; 32]| octets.iter().map(|octet| format!("{octet:02x}")).collect();
        Err(RebuildError::Other {
            base: self.base_sha256,
            image: self.image_sha256,
            from: hex(header.old_sha256),
            to: hex(header.new_sha256),
        })
    }
}

fn open(path: &Path) -> Result<File, RebuildError> {
    File::open(path).map_err(|source| file_error(path, source))
}

fn file_error(path: &Path, source: io::Error) -> RebuildError {
    RebuildError::File { path: path.to_owned(), source }
}
