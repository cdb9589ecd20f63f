//! Makes a delta from two whole images.

use aws_lc_rs::digest::{SHA256, digest};

use crate::differences::{Encoder, Model};
use crate::format::{
    CHUNK_BYTES, CONTROL_WINDOW_LOG, ChunkRecord, Header, Instruction, LITERALS_WINDOW_LOG, MAX_PATCH_BYTES,
};
use crate::matching::{Patch, SortedImage};
use crate::window::Samples;

/// zstd's level for patches: the server has the time, the vehicles pay for the octets.
const LEVEL: i32 = 19;

/// A delta that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The compressor failed.
    #[error("zstd cannot compress a patch")]
    Compress(#[source] std::io::Error),
    /// Too large for the format.
    #[error("expected an old image of at most {limit} octets, found {found}: send the full image instead")]
    TooLarge {
        /// Largest old image, in octets.
        limit: u64,
        /// The old image, in octets.
        found: u64,
    },
}

/// Largest old image: its samples are numbered with 32 bits.
const MAX_OLD_BYTES: u64 = 64 << 30;

/// The delta that rebuilds `new` from `old`.
///
/// Memory beside the two images: about five times the window (16 MiB) and a quarter of `old`.
/// Whether it is worth sending is the caller's question: two images without likeness give a delta
/// about as large as the compressed new image.
pub fn make(old: &[u8], new: &[u8]) -> Result<Vec<u8>, MakeError> {
    if old.len() as u64 > MAX_OLD_BYTES {
        return Err(MakeError::TooLarge { limit: MAX_OLD_BYTES, found: old.len() as u64 });
    }
    let header = Header {
        old_bytes: old.len() as u64,
        old_sha256: sha256(old),
        new_bytes: new.len() as u64,
        new_sha256: sha256(new),
    };
    let mut delta = Vec::new();
    header.write(&mut delta);
    let samples = Samples::of(old);
    let mut sorted: Option<(std::ops::Range<usize>, SortedImage<'_>)> = None;
    for (index, chunk) in new.chunks(CHUNK_BYTES).enumerate() {
        let range = samples.window_for(chunk, index * CHUNK_BYTES);
        let window = old.get(range.clone()).unwrap_or_default();
        // Neighbouring chunks often share their window; sorting it is most of the work.
        sorted = sorted.filter(|(sorted, _)| *sorted == range);
        let (_, image) = sorted.get_or_insert_with(|| (range.clone(), SortedImage::new(window)));
        write_chunk(&mut delta, image, window, range.start, chunk)?;
    }
    Ok(delta)
}

fn write_chunk(
    delta: &mut Vec<u8>,
    image: &SortedImage<'_>,
    window: &[u8],
    window_start: usize,
    chunk: &[u8],
) -> Result<(), MakeError> {
    let mut patch = image.patch_to(chunk);
    let mut streams = coded(&patch, window)?;
    if streams.iter().map(Vec::len).sum::<usize>() > MAX_PATCH_BYTES {
        // What seemed alike was not: then the chunk costs least as it is.
        patch = Patch::literal(chunk);
        streams = coded(&patch, window)?;
    }
    let [control, differences, literals] = streams;
    let record = ChunkRecord {
        window_start: window_start as u64,
        window_bytes: window.len(),
        window_sha256: sha256(window),
        chunk_sha256: sha256(chunk),
        instructions: patch.instructions.len(),
        control_bytes: control.len(),
        difference_bytes: differences.len(),
        literal_bytes: literals.len(),
    };
    record.write(delta);
    [control, differences, literals].iter().for_each(|stream| delta.extend_from_slice(stream));
    Ok(())
}

/// The three streams of a patch: control, differences, literals.
fn coded(patch: &Patch, window: &[u8]) -> Result<[Vec<u8>; 3], MakeError> {
    let mut control = Vec::with_capacity(patch.instructions.len() * 4);
    patch.instructions.iter().for_each(|instruction: &Instruction| instruction.write(&mut control));
    Ok([
        compress(&control, CONTROL_WINDOW_LOG)?,
        coded_differences(patch, window),
        compress(&patch.literals, LITERALS_WINDOW_LOG)?,
    ])
}

fn compress(stream: &[u8], window_log: u32) -> Result<Vec<u8>, MakeError> {
    let compressed = zstd::bulk::Compressor::new(LEVEL).and_then(|mut compressor| {
        compressor.set_parameter(zstd::zstd_safe::CParameter::WindowLog(window_log))?;
        compressor.compress(stream)
    });
    compressed.map_err(MakeError::Compress)
}

/// The differences of all instructions, coded beside the octets of the window that they change.
fn coded_differences(patch: &Patch, window: &[u8]) -> Vec<u8> {
    let (mut model, mut encoder) = (Model::new(), Encoder::new());
    let (mut at, mut added) = (0i64, patch.resembling.as_slice());
    for step in &patch.instructions {
        let (new, later) = added.split_at(step.add as usize);
        let from = usize::try_from(at).unwrap_or(usize::MAX);
        let old = window.get(from..).and_then(|rest| rest.get(..new.len())).unwrap_or_default();
        model.code(&mut encoder, &mut old.to_vec(), Some(new));
        added = later;
        at += i64::from(step.add) + i64::from(step.seek);
    }
    encoder.finish()
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    octets_of(&digest(&SHA256, bytes))
}

pub(crate) fn octets_of(digest: &aws_lc_rs::digest::Digest) -> [u8; 32] {
    let mut octets = [0; 32];
    octets.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    octets
}
