//! Applies a delta chunk by chunk with bounded memory.
//!
//! Memory, at most: one rebuilt chunk (4 MiB), the compressed octets of its streams (together 4 MiB), the
//! decompressors of control (1 MiB) and literals (4 MiB), the model of the differences (2 MiB), small buffers.

use std::io::{self, Read, Seek, SeekFrom, Write};

use aws_lc_rs::digest::{Context, SHA256};

use crate::differences::{Decoder, Model};
use crate::format::{CONTROL_WINDOW_LOG, ChunkRecord, FormatError, Header, Instruction, LITERALS_WINDOW_LOG};
use crate::make::{octets_of, sha256};

/// The old image is read in pieces of this length.
const READ_BYTES: usize = 64 << 10;

/// A delta that could not be applied; nothing was written beyond the chunks before.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The delta is damaged.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The old image, the delta or the new image could not be read or written.
    #[error("cannot {0}")]
    Io(&'static str, #[source] io::Error),
    /// The base is another image than the one the delta was made from.
    #[error(
        "expected the window at {start} of the old image that the delta was made from, found other octets"
    )]
    OtherBase {
        /// Where the window begins.
        start: u64,
    },
    /// A patch that does not rebuild what it promised.
    #[error(
        "expected chunk {chunk} with the promised hash, found {what}: the delta is damaged, fetch it again"
    )]
    Damaged {
        /// The chunk, counted from 0.
        chunk: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// A delta that is being read; `source` is read through, not kept.
pub struct DeltaReader<R> {
    source: R,
    header: Header,
    /// The chunk whose record stands at `position`.
    next_chunk: u64,
    position: u64,
}

impl<R: Read + Seek> DeltaReader<R> {
    /// Reads the header.
    pub fn open(mut source: R) -> Result<Self, FormatError> {
        source.rewind().map_err(FormatError::Read)?;
        let header = Header::read(&mut source)?;
        Ok(Self { source, header, next_chunk: 0, position: Header::BYTES })
    }

    /// What the delta is for.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The record of a chunk; finds it by stepping over those before.
    pub fn record(&mut self, chunk: u64) -> Result<ChunkRecord, FormatError> {
        if chunk >= self.header.chunk_count() {
            return Err(FormatError::Field {
                field: "chunk number",
                expected: format!("less than {}", self.header.chunk_count()),
                found: chunk,
            });
        }
        if chunk < self.next_chunk {
            (self.next_chunk, self.position) = (0, Header::BYTES);
        }
        loop {
            self.source.seek(SeekFrom::Start(self.position)).map_err(FormatError::Read)?;
            let record = ChunkRecord::read(&mut self.source, &self.header)?;
            if self.next_chunk == chunk {
                return Ok(record);
            }
            self.next_chunk += 1;
            self.position += record.total_bytes();
        }
    }

    /// Rebuilds one chunk, verified by its hash, after its window in the old image was.
    ///
    /// Chunks depend on the old image only, so that work cut off goes on at any of them.
    pub fn rebuild_chunk(&mut self, chunk: u64, old: &mut (impl Read + Seek)) -> Result<Vec<u8>, ApplyError> {
        let record = self.record(chunk)?;
        verify_window(&record, old)?;
        let bytes = self.header.chunk_bytes(chunk);
        let start = self.position + ChunkRecord::BYTES;
        let damaged = |what| ApplyError::Damaged { chunk, what };
        let lengths = [record.control_bytes, record.difference_bytes, record.literal_bytes];
        let [control, differences, literals] = self.streams(start, lengths)?;
        let mut parts = ChunkStreams {
            control: decompressor(&control, CONTROL_WINDOW_LOG)?,
            differences: Decoder::new(&differences),
            model: Model::new(),
            literals: decompressor(&literals, LITERALS_WINDOW_LOG)?,
        };
        let rebuilt = parts.rebuild(&record, bytes, old, damaged)?;
        if sha256(&rebuilt) != record.chunk_sha256 {
            return Err(damaged("another hash"));
        }
        Ok(rebuilt)
    }

    /// Rebuilds the whole new image; verifies its hash at the end.
    pub fn apply(&mut self, old: &mut (impl Read + Seek), out: &mut impl Write) -> Result<(), ApplyError> {
        let mut whole = Context::new(&SHA256);
        for chunk in 0..self.header.chunk_count() {
            let rebuilt = self.rebuild_chunk(chunk, old)?;
            whole.update(&rebuilt);
            out.write_all(&rebuilt).map_err(|error| ApplyError::Io("write the new image", error))?;
        }
        if octets_of(&whole.finish()) != self.header.new_sha256 {
            let chunk = self.header.chunk_count();
            return Err(ApplyError::Damaged { chunk, what: "another hash of the whole image" });
        }
        Ok(())
    }

    /// The three compressed streams of a chunk; their lengths are bounded by its record.
    fn streams(&mut self, start: u64, lengths: [usize; 3]) -> Result<[Vec<u8>; 3], ApplyError> {
        self.source.seek(SeekFrom::Start(start)).map_err(|error| ApplyError::Io("read the delta", error))?;
        let mut streams = lengths.map(|length| vec![0; length]);
        for stream in &mut streams {
            self.source.read_exact(stream).map_err(|error| {
                if error.kind() == io::ErrorKind::UnexpectedEof {
                    FormatError::Truncated("a patch").into()
                } else {
                    ApplyError::Io("read the delta", error)
                }
            })?;
        }
        Ok(streams)
    }
}

fn verify_window(record: &ChunkRecord, old: &mut (impl Read + Seek)) -> Result<(), ApplyError> {
    let unreadable = |error| ApplyError::Io("read the old image", error);
    old.seek(SeekFrom::Start(record.window_start)).map_err(unreadable)?;
    let mut window = Context::new(&SHA256);
    let mut buffer = vec![0; READ_BYTES];
    let mut left = record.window_bytes;
    while left > 0 {
        let wanted = left.min(READ_BYTES);
        let Some(piece) = buffer.get_mut(..wanted) else { break };
        match old.read_exact(piece) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            read => read.map_err(unreadable)?,
        }
        window.update(piece);
        left -= wanted;
    }
    if left == 0 && octets_of(&window.finish()) == record.window_sha256 {
        return Ok(());
    }
    Err(ApplyError::OtherBase { start: record.window_start })
}

type Decompressor<'a> = io::BufReader<zstd::stream::read::Decoder<'static, &'a [u8]>>;

fn decompressor(stream: &[u8], window_log: u32) -> Result<Decompressor<'_>, ApplyError> {
    let failed = |error| ApplyError::Io("start zstd", error);
    let mut decoder = zstd::stream::read::Decoder::with_buffer(stream).map_err(failed)?.single_frame();
    decoder.window_log_max(window_log).map_err(failed)?;
    Ok(io::BufReader::with_capacity(READ_BYTES, decoder))
}

/// The decompressed streams of one chunk.
struct ChunkStreams<'a> {
    control: Decompressor<'a>,
    differences: Decoder<'a>,
    model: Model,
    literals: Decompressor<'a>,
}

impl ChunkStreams<'_> {
    fn rebuild(
        &mut self,
        record: &ChunkRecord,
        bytes: usize,
        old: &mut (impl Read + Seek),
        damaged: impl Fn(&'static str) -> ApplyError,
    ) -> Result<Vec<u8>, ApplyError> {
        let mut rebuilt = vec![0; bytes];
        let mut rest = rebuilt.as_mut_slice();
        let mut at = 0i64;
        for _ in 0..record.instructions {
            let step = Instruction::read(&mut self.control)?;
            let (add, insert) = (step.add as usize, step.insert as usize);
            let within = at >= 0 && at + i64::from(step.add) <= record.window_bytes as i64;
            if !within || add.saturating_add(insert) > rest.len() {
                return Err(damaged("an instruction that leaves its window or chunk"));
            }
            let (copied, later) = rest.split_at_mut(add);
            let (inserted, later) = later.split_at_mut(insert);
            let from = record.window_start.saturating_add_signed(at);
            self.copy_with_differences(copied, old, from)?;
            self.literals.read_exact(inserted).map_err(|_| damaged("too few literals"))?;
            rest = later;
            at += i64::from(step.add) + i64::from(step.seek);
        }
        if rest.is_empty() { Ok(rebuilt) } else { Err(damaged("too few instructions")) }
    }

    fn copy_with_differences(
        &mut self,
        copied: &mut [u8],
        old: &mut (impl Read + Seek),
        from: u64,
    ) -> Result<(), ApplyError> {
        if copied.is_empty() {
            return Ok(());
        }
        old.seek(SeekFrom::Start(from)).map_err(|error| ApplyError::Io("read the old image", error))?;
        old.read_exact(copied).map_err(|error| ApplyError::Io("read the old image", error))?;
        self.model.code(&mut self.differences, copied, None);
        Ok(())
    }
}
