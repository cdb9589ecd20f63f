//! The octets of a delta: header, chunk records, instructions. `docs/delta.md` is the same for people.
//! All integers are little-endian; every length is bounded before anything is allocated.

use std::io::{self, Read};

/// Octets of the new image that one chunk rebuilds (4 MiB); the last chunk may be shorter.
pub const CHUNK_BYTES: usize = 4 << 20;

/// Largest window of the old image that one chunk may refer to (16 MiB).
///
/// Applying reads and hashes the whole window for every chunk, so this bounds the reading at four
/// times the image.
pub const MAX_WINDOW_BYTES: usize = 16 << 20;

/// Most octets of the three streams of a chunk together: zstd never grows a chunk of literals by more.
pub(crate) const MAX_PATCH_BYTES: usize = CHUNK_BYTES + (CHUNK_BYTES >> 8) + 128;

/// Largest number of instructions of a chunk; each but the last yields at least one octet.
const MAX_INSTRUCTIONS: usize = CHUNK_BYTES + 1;

/// log2 of the zstd window of a control stream (1 MiB), so that its decompressor stays small.
pub(crate) const CONTROL_WINDOW_LOG: u32 = 20;

/// log2 of the zstd window of the literals (4 MiB): all literals of a chunk.
pub(crate) const LITERALS_WINDOW_LOG: u32 = 22;

const MAGIC: [u8; 8] = *b"FARRDLT\n";
const VERSION: u32 = 1;

/// A delta that does not follow the format.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The source could not be read.
    #[error("the delta cannot be read")]
    Read(#[source] io::Error),
    /// It ends before it is complete.
    #[error("the delta ends in the middle of {0}")]
    Truncated(&'static str),
    /// Another kind of file.
    #[error("expected a Farrier delta (magic FARRDLT), found another kind of file")]
    Magic,
    /// A later format.
    #[error("expected delta format version {VERSION}, found {0}: use a newer farrier")]
    Version(u32),
    /// A number that cannot be right.
    #[error("expected {expected}, found {found} as {field}")]
    Field {
        /// The number.
        field: &'static str,
        /// Its bound, in words.
        expected: String,
        /// What it is.
        found: u64,
    },
}

/// What the delta is for: 96 octets at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Octets of the old image.
    pub old_bytes: u64,
    /// SHA-256 of the old image.
    pub old_sha256: [u8; 32],
    /// Octets of the new image.
    pub new_bytes: u64,
    /// SHA-256 of the new image.
    pub new_sha256: [u8; 32],
}

impl Header {
    /// Length of a header.
    pub const BYTES: u64 = 96;

    /// How many chunks follow.
    pub fn chunk_count(&self) -> u64 {
        self.new_bytes.div_ceil(CHUNK_BYTES as u64)
    }

    /// How many octets of the new image this chunk rebuilds; 0 beyond the last.
    pub fn chunk_bytes(&self, index: u64) -> usize {
        let start = index.saturating_mul(CHUNK_BYTES as u64);
        let left = self.new_bytes.saturating_sub(start).min(CHUNK_BYTES as u64);
        usize::try_from(left).unwrap_or(CHUNK_BYTES)
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(CHUNK_BYTES as u32).to_le_bytes());
        out.extend_from_slice(&self.old_bytes.to_le_bytes());
        out.extend_from_slice(&self.old_sha256);
        out.extend_from_slice(&self.new_bytes.to_le_bytes());
        out.extend_from_slice(&self.new_sha256);
    }

    pub(crate) fn read(from: &mut impl Read) -> Result<Self, FormatError> {
        let mut fields = Fields { from, part: "its header" };
        if fields.octets::<8>()? != MAGIC {
            return Err(FormatError::Magic);
        }
        match fields.u32()? {
            VERSION => {}
            other => return Err(FormatError::Version(other)),
        }
        bounded("chunk length", u64::from(fields.u32()?), CHUNK_BYTES as u64..=CHUNK_BYTES as u64)?;
        Ok(Self {
            old_bytes: fields.u64()?,
            old_sha256: fields.octets()?,
            new_bytes: fields.u64()?,
            new_sha256: fields.octets()?,
        })
    }
}

/// How one chunk is rebuilt; its three compressed streams follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkRecord {
    /// Where its window begins in the old image.
    pub window_start: u64,
    /// Octets of the window.
    pub window_bytes: usize,
    /// SHA-256 of the window.
    pub window_sha256: [u8; 32],
    /// SHA-256 of the rebuilt chunk.
    pub chunk_sha256: [u8; 32],
    /// Number of instructions.
    pub instructions: usize,
    /// Compressed octets of the instructions.
    pub control_bytes: usize,
    /// Compressed octets of the differences.
    pub difference_bytes: usize,
    /// Compressed octets of the literals.
    pub literal_bytes: usize,
}

impl ChunkRecord {
    /// Length of a record.
    pub const BYTES: u64 = 92;

    /// Octets of the record and the streams behind it.
    pub fn total_bytes(&self) -> u64 {
        Self::BYTES + (self.control_bytes + self.difference_bytes + self.literal_bytes) as u64
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.window_start.to_le_bytes());
        out.extend_from_slice(&(self.window_bytes as u32).to_le_bytes());
        out.extend_from_slice(&self.window_sha256);
        out.extend_from_slice(&self.chunk_sha256);
        for length in [self.instructions, self.control_bytes, self.difference_bytes, self.literal_bytes] {
            out.extend_from_slice(&(length as u32).to_le_bytes());
        }
    }

    pub(crate) fn read(from: &mut impl Read, header: &Header) -> Result<Self, FormatError> {
        let mut fields = Fields { from, part: "a chunk record" };
        let window_start = bounded("window start", fields.u64()?, 0..=header.old_bytes)?;
        let longest = (header.old_bytes - window_start).min(MAX_WINDOW_BYTES as u64);
        let window_bytes = fields.length("window length", longest as usize)?;
        let record = Self {
            window_start,
            window_bytes,
            window_sha256: fields.octets()?,
            chunk_sha256: fields.octets()?,
            instructions: fields.length("number of instructions", MAX_INSTRUCTIONS)?,
            control_bytes: fields.length("length of the control stream", MAX_PATCH_BYTES)?,
            difference_bytes: fields.length("length of the difference stream", MAX_PATCH_BYTES)?,
            literal_bytes: fields.length("length of the literal stream", MAX_PATCH_BYTES)?,
        };
        let patch_bytes = record.total_bytes() - Self::BYTES;
        bounded("length of a patch", patch_bytes, 0..=MAX_PATCH_BYTES as u64)?;
        Ok(record)
    }
}

/// Copy so many octets from the window with differences added, then so many literals, then move
/// within the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub(crate) add: u32,
    pub(crate) insert: u32,
    pub(crate) seek: i32,
}

impl Instruction {
    /// LEB128; the seek is zigzag-coded.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        write_varint(out, self.add);
        write_varint(out, self.insert);
        write_varint(out, ((self.seek << 1) ^ (self.seek >> 31)).cast_unsigned());
    }

    pub(crate) fn read(from: &mut impl Read) -> Result<Self, FormatError> {
        let mut next = || read_varint(from);
        let (add, insert, zigzag) = (next()?, next()?, next()?);
        Ok(Self { add, insert, seek: (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed() })
    }
}

fn write_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_varint(from: &mut impl Read) -> Result<u32, FormatError> {
    let mut fields = Fields { from, part: "its instructions" };
    let mut value = 0u64;
    for shift in [0, 7, 14, 21, 28] {
        let [octet] = fields.octets()?;
        value |= u64::from(octet & 0x7F) << shift;
        if octet & 0x80 == 0 {
            break;
        }
    }
    u32::try_from(value).map_err(|_| FormatError::Field {
        field: "number in an instruction",
        expected: "at most 32 bits".to_owned(),
        found: value,
    })
}

fn bounded(
    field: &'static str,
    found: u64,
    range: std::ops::RangeInclusive<u64>,
) -> Result<u64, FormatError> {
    if range.contains(&found) {
        return Ok(found);
    }
    Err(FormatError::Field { field, expected: format!("{} to {}", range.start(), range.end()), found })
}

/// Reads the fields of one part of the delta.
struct Fields<'a, R> {
    from: &'a mut R,
    part: &'static str,
}

impl<R: Read> Fields<'_, R> {
    fn octets<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut octets = [0; N];
        self.from.read_exact(&mut octets).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                FormatError::Truncated(self.part)
            } else {
                FormatError::Read(error)
            }
        })?;
        Ok(octets)
    }

    fn u32(&mut self) -> Result<u32, FormatError> {
        self.octets().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, FormatError> {
        self.octets().map(u64::from_le_bytes)
    }

    fn length(&mut self, field: &'static str, longest: usize) -> Result<usize, FormatError> {
        let found = self.u32()?;
        bounded(field, u64::from(found), 0..=longest as u64)?;
        Ok(found as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_instruction_reads_back_as_it_was_written(add: u32, insert: u32, seek: i32) {
            let instruction = Instruction { add, insert, seek };
            let mut octets = Vec::new();
            instruction.write(&mut octets);
            prop_assert_eq!(Instruction::read(&mut octets.as_slice()).unwrap(), instruction);
        }

        #[test]
        fn arbitrary_octets_are_refused_or_read_but_never_panic(octets: Vec<u8>) {
            let header = Header { old_bytes: 9, old_sha256: [0; 32], new_bytes: 9, new_sha256: [0; 32] };
            let _ = Header::read(&mut octets.as_slice());
            let _ = ChunkRecord::read(&mut octets.as_slice(), &header);
            let _ = Instruction::read(&mut octets.as_slice());
        }
    }

    #[test]
    fn header_and_record_have_the_documented_lengths() {
        let header = Header { old_bytes: 1, old_sha256: [1; 32], new_bytes: 2, new_sha256: [2; 32] };
        let mut octets = Vec::new();
        header.write(&mut octets);
        assert_eq!(octets.len() as u64, Header::BYTES);
        assert_eq!(Header::read(&mut octets.as_slice()).unwrap(), header);
    }
}
