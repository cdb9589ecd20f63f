//! A delta rebuilds its image or is refused; nothing else comes out.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test states what it expects")]

use std::io::Cursor;

use farrier_delta::{ApplyError, CHUNK_BYTES, ChunkRecord, DeltaReader, Header, make};
use proptest::prelude::*;

fn apply(delta: &[u8], old: &[u8]) -> Result<Vec<u8>, ApplyError> {
    let mut rebuilt = Vec::new();
    DeltaReader::open(Cursor::new(delta))?.apply(&mut Cursor::new(old), &mut rebuilt)?;
    Ok(rebuilt)
}

/// Octets that look like nothing else: a 64-bit linear congruential generator.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    (0..bytes)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

/// Two images of a little more than two chunks: moved, changed and new parts.
fn pair() -> (Vec<u8>, Vec<u8>) {
    let old = noise(1, 2 * CHUNK_BYTES + 12_345);
    let mut new = old[100_000..].to_vec();
    new.splice(5_000..5_000, noise(2, 3_000));
    new.iter_mut().step_by(997).for_each(|octet| *octet = octet.wrapping_add(4));
    new.extend_from_slice(&old[..100_000]);
    (old, new)
}

#[test]
fn images_of_several_chunks_are_rebuilt_from_a_small_delta() {
    let (old, new) = pair();
    let delta = make(&old, &new).unwrap();
    assert!(delta.len() * 20 < new.len(), "{} octets of {}", delta.len(), new.len());
    assert_eq!(apply(&delta, &old).unwrap(), new);
}

#[test]
fn work_cut_off_goes_on_at_any_chunk() {
    let (old, new) = pair();
    let mut reader = DeltaReader::open(Cursor::new(make(&old, &new).unwrap())).unwrap();
    for chunk in [2, 0, 1, 1] {
        let rebuilt = reader.rebuild_chunk(chunk, &mut Cursor::new(&old)).unwrap();
        assert_eq!(rebuilt, new.chunks(CHUNK_BYTES).nth(chunk as usize).unwrap());
    }
    assert!(reader.rebuild_chunk(3, &mut Cursor::new(&old)).is_err());
}

#[test]
fn another_base_is_refused_before_anything_is_rebuilt() {
    let (old, new) = pair();
    let delta = make(&old, &new).unwrap();
    let mut other = old.clone();
    other[9] ^= 1;
    assert!(matches!(apply(&delta, &other), Err(ApplyError::OtherBase { .. })));
    assert!(matches!(apply(&delta, &old[..old.len() - 1]), Err(ApplyError::OtherBase { .. })));
}

#[test]
fn lengths_that_ask_for_too_much_memory_are_refused() {
    let (old, new) = pair();
    let delta = make(&old, &new).unwrap();
    // The lengths of control, differences and literals stand at the end of the first record.
    let lengths = Header::BYTES as usize + ChunkRecord::BYTES as usize - 12;
    let refused = |claimed: [u32; 3]| {
        let mut delta = delta.clone();
        for (number, length) in claimed.iter().enumerate() {
            delta[lengths + 4 * number..][..4].copy_from_slice(&length.to_le_bytes());
        }
        apply(&delta, &old).unwrap_err().to_string()
    };
    assert!(refused([5 << 20, 0, 0]).contains("length of the control stream"));
    assert!(refused([2 << 20, 2 << 20, 2 << 20]).contains("length of a patch"));
}

#[test]
fn empty_images_are_images_too() {
    for (old, new) in [(&b""[..], &b""[..]), (b"", b"new"), (b"old", b"")] {
        assert_eq!(apply(&make(old, new).unwrap(), old).unwrap(), new);
    }
}

#[test]
fn another_kind_of_file_and_a_later_format_are_named() {
    let refused = |delta: &[u8]| DeltaReader::open(Cursor::new(delta.to_vec())).err().unwrap().to_string();
    assert!(refused(&[b'x'; 200]).contains("another kind of file"));
    let mut later = make(b"a", b"b").unwrap();
    later[8] = 2;
    assert!(refused(&later).contains("found 2"));
    assert!(refused(&later[..Header::BYTES as usize - 1]).contains("found 2"));
    assert!(refused(b"FARRDLT\n").contains("ends in the middle of its header"));
}

proptest! {
    #[test]
    fn any_pair_is_rebuilt(
        old in proptest::collection::vec(0u8..6, 0..2000),
        new in proptest::collection::vec(0u8..6, 0..2000),
    ) {
        prop_assert_eq!(apply(&make(&old, &new).unwrap(), &old).unwrap(), new);
    }

    #[test]
    fn a_damaged_delta_is_refused_or_still_right(
        place in 0usize..4000, flip in 1u8..=255, cut in proptest::option::of(0usize..4000),
    ) {
        let (old, new) = (noise(3, 3000), [noise(4, 500), noise(3, 2500)].concat());
        let mut delta = make(&old, &new).unwrap();
        let place = place % delta.len();
        delta[place] ^= flip;
        if let Some(cut) = cut {
            delta.truncate(cut % delta.len());
        }
        if let Ok(rebuilt) = apply(&delta, &old) {
            prop_assert_eq!(rebuilt, new);
        }
    }
}
