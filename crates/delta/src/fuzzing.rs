//! What the fuzz target `delta` runs: deltas from outside, and deltas of any two images.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a property that does not hold is a panic")]

use std::io::Cursor;

use aws_lc_rs::digest::{SHA256, digest};

use crate::make::sha256;
use crate::{ApplyError, CHUNK_BYTES, ChunkRecord, DeltaReader, FormatError, Header, make};

/// The old image of deltas from outside.
const OLD: &[u8] = &noise();

const fn noise() -> [u8; 4096] {
    let (mut octets, mut state, mut at) = ([0; 4096], 1_u32, 0);
    while at < octets.len() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        octets[at] = (state >> 24) as u8;
        at += 1;
    }
    octets
}

/// The first octet chooses what the rest is: a delta, the streams of a chunk, or two images.
///
/// - a delta rebuilds the image that its header names, or is refused;
/// - the instructions of a chunk are followed exactly where they stay within window, chunk and literals;
/// - the delta of two images rebuilds the second from the first.
pub fn delta(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 4 {
        0 => any_delta(rest),
        1 | 2 => any_streams(rest),
        _ => any_images(rest),
    }
}

fn any_delta(delta: &[u8]) {
    let Ok(mut reader) = DeltaReader::open(Cursor::new(delta)) else { return };
    let mut rebuilt = Vec::new();
    let applied = reader.apply(&mut Cursor::new(OLD), &mut rebuilt);
    let header = reader.header();
    assert!(rebuilt.len() as u64 <= header.new_bytes);
    if applied.is_ok() {
        assert_eq!(rebuilt.len() as u64, header.new_bytes);
        assert_eq!(digest(&SHA256, &rebuilt).as_ref(), header.new_sha256);
    }
    let chunks = header.chunk_count();
    for chunk in [chunks, chunks.wrapping_sub(1), 0] {
        if let Ok(record) = reader.record(chunk) {
            assert!(
                chunk < chunks
                    && record.window_start + record.window_bytes as u64 <= reader.header().old_bytes
            );
        }
    }
}

/// Two octets of new length, one of instructions, one of control's length; then control, differences, literals.
fn any_streams(data: &[u8]) {
    let [high, low, instructions, control_bytes, rest @ ..] = data else { return };
    let new_bytes = usize::from(*high) << 8 | usize::from(*low);
    let (control, rest) = rest.split_at(rest.len().min((*control_bytes).into()));
    let (differences, literals) = rest.split_at(rest.len() / 3);
    let instructions = usize::from(*instructions);

    let mut delta = Vec::new();
    let (old_bytes, old_sha256) = (OLD.len() as u64, sha256(OLD));
    Header { old_bytes, old_sha256, new_bytes: new_bytes as u64, new_sha256: [0; 32] }.write(&mut delta);
    let [control_stream, literal_stream] =
        [control, literals].map(|stream| zstd::bulk::compress(stream, 1).unwrap());
    let record = ChunkRecord {
        window_start: 0,
        window_bytes: OLD.len(),
        window_sha256: old_sha256,
        chunk_sha256: [0; 32],
        instructions,
        control_bytes: control_stream.len(),
        difference_bytes: differences.len(),
        literal_bytes: literal_stream.len(),
    };
    record.write(&mut delta);
    for stream in [&control_stream, differences, &literal_stream] {
        delta.extend_from_slice(stream);
    }
    if new_bytes == 0 {
        return;
    }
    let mut reader = DeltaReader::open(Cursor::new(delta)).unwrap();
    let refused = reader.rebuild_chunk(0, &mut Cursor::new(OLD)).unwrap_err();
    let is_followed = matches!(refused, ApplyError::Damaged { what: "another hash", .. });
    assert_eq!(is_followed, can_be_followed(control, instructions, literals.len(), new_bytes), "{refused:?}");
    assert!(matches!(
        refused,
        ApplyError::Damaged { .. }
            | ApplyError::Format(FormatError::Truncated(_) | FormatError::Field { .. })
    ));
}

/// The same by the document: each number 7 bits at a time, the lowest first; a seek is zigzag-coded.
fn can_be_followed(control: &[u8], instructions: usize, literals: usize, new_bytes: usize) -> bool {
    let mut control = control.iter();
    let mut number = || {
        let mut value = 0_u128;
        for group in 0..5 {
            let octet = u128::from(*control.next()?);
            value += (octet & 127) << (7 * group);
            if octet < 128 {
                break;
            }
        }
        (value < 1 << 32).then_some(value as i128)
    };
    let (mut at, mut built, mut used) = (0_i128, 0_i128, 0_i128);
    for _ in 0..instructions {
        let (Some(add), Some(insert), Some(zigzag)) = (number(), number(), number()) else { return false };
        let seek = if zigzag % 2 == 0 { zigzag / 2 } else { -(zigzag + 1) / 2 };
        built += add + insert;
        used += insert;
        if at < 0 || at + add > OLD.len() as i128 || built > new_bytes as i128 || used > literals as i128 {
            return false;
        }
        at += add + seek;
    }
    built == new_bytes as i128
}

fn any_images(data: &[u8]) {
    let Some((share, octets)) = data.split_first() else { return };
    let octets = &octets[..octets.len().min(4096)];
    let (old, new) = octets.split_at(octets.len() * usize::from(*share) / 256);
    let delta = make(old, new).unwrap();
    assert!(delta.len() < CHUNK_BYTES);
    let mut reader = DeltaReader::open(Cursor::new(delta)).unwrap();
    let mut rebuilt = Vec::new();
    reader.apply(&mut Cursor::new(old), &mut rebuilt).unwrap();
    assert_eq!(rebuilt, new);
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inputs_of_delta_hold() {
        replay::replay("delta", delta);
    }
}
