//! The bsdiff method (C. Percival, "Naive differences of executable code", 2003): approximate
//! matches between two images, found through a suffix array of the old one.
#![allow(clippy::indexing_slicing, reason = "every index is bounded by the loop or match that makes it")]

use crate::format::Instruction;

/// An image with its suffixes sorted.
pub(crate) struct SortedImage<'a> {
    text: &'a [u8],
    suffixes: Vec<i32>,
}

/// The patch that makes one image from another, uncompressed.
#[derive(Default)]
pub(crate) struct Patch {
    pub(crate) instructions: Vec<Instruction>,
    /// Octets of the new image that resemble the old one's at the same step.
    pub(crate) resembling: Vec<u8>,
    pub(crate) literals: Vec<u8>,
}

/// Octets of `old` at `at` that `new` shares exactly.
#[derive(Clone, Copy, Default)]
struct Match {
    at: usize,
    bytes: usize,
}

impl<'a> SortedImage<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        let mut suffixes = vec![0; text.len()];
        divsufsort::sort_in_place(text, &mut suffixes);
        Self { text, suffixes }
    }

    /// The longest exact match of the beginning of `new`.
    fn longest_match(&self, new: &[u8]) -> Match {
        let (mut low, mut high) = (0, self.suffixes.len());
        let mut best = Match::default();
        while low < high {
            let middle = low + (high - low) / 2;
            let at = self.suffixes[middle].cast_unsigned() as usize;
            let suffix = &self.text[at..];
            let bytes = common_prefix(suffix, new);
            if bytes > best.bytes {
                best = Match { at, bytes };
            }
            if bytes == new.len() {
                break;
            }
            if suffix.get(bytes).is_none_or(|octet| *octet < new[bytes]) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        best
    }

    /// The octet of the old image that stands `offset` before or behind this place of the new one.
    fn octet_at(&self, place: usize, offset: isize) -> Option<u8> {
        place.checked_add_signed(offset).and_then(|at| self.text.get(at)).copied()
    }

    /// The patch from this image to `new`.
    pub(crate) fn patch_to(&self, new: &[u8]) -> Patch {
        let mut patch = Patch::default();
        let (mut scan, mut found) = (0, Match::default());
        // What the patch already covers: up to `covered` of the new image, from `base` of the old.
        let (mut covered, mut base) = (0, 0);
        while scan < new.len() {
            let offset = base as isize - covered as isize;
            let old_score = self.next_match(new, &mut scan, &mut found, offset);
            if found.bytes == old_score && scan < new.len() {
                continue;
            }
            let mut forward = self.extend_forward(new, covered, base, scan);
            let mut backward =
                if scan < new.len() { self.extend_backward(new, covered, scan, found.at) } else { 0 };
            let overlap = (covered + forward).saturating_sub(scan - backward);
            if overlap > 0 {
                let kept = self.split_overlap(
                    &new[covered + forward - overlap..],
                    base + forward - overlap,
                    found.at - backward,
                    overlap,
                );
                forward = forward - overlap + kept;
                backward -= kept;
            }
            let (resume, resume_base) = (scan - backward, found.at - backward);
            patch.push(&new[covered..resume], forward, resume_base as i64 - (base + forward) as i64);
            (covered, base) = (resume, resume_base);
        }
        patch
    }

    /// Moves `scan` to the next place whose match is clearly better than going on at `offset`;
    /// gives how many octets of that match going on at `offset` would also get right.
    fn next_match(&self, new: &[u8], scan: &mut usize, found: &mut Match, offset: isize) -> usize {
        // So much better must a match be to pay for its instruction.
        const MARGIN: usize = 8;
        let agrees = |place: usize| self.octet_at(place, offset) == Some(new[place]);
        *scan += found.bytes;
        *found = Match::default();
        let (mut old_score, mut scored) = (0, *scan);
        while *scan < new.len() {
            *found = self.longest_match(&new[*scan..]);
            while scored < *scan + found.bytes {
                old_score += usize::from(agrees(scored));
                scored += 1;
            }
            if (found.bytes == old_score && found.bytes != 0) || found.bytes > old_score + MARGIN {
                break;
            }
            // A place that was never scored is not taken back.
            if *scan < scored {
                old_score -= usize::from(agrees(*scan));
            } else {
                scored = *scan + 1;
            }
            *scan += 1;
        }
        old_score
    }

    /// How far the octets from `covered` on still resemble those from `base` on.
    fn extend_forward(&self, new: &[u8], covered: usize, base: usize, scan: usize) -> usize {
        let pairs = new[covered..scan].iter().zip(&self.text[base..]);
        longest_resemblance(pairs.map(|(new, old)| new == old))
    }

    /// How far the octets before `scan` already resemble those before `at`.
    fn extend_backward(&self, new: &[u8], covered: usize, scan: usize, at: usize) -> usize {
        let pairs = new[covered..scan].iter().rev().zip(self.text[..at].iter().rev());
        longest_resemblance(pairs.map(|(new, old)| new == old))
    }

    /// Of an overlap, how many octets are better taken from `first` than from `second`.
    fn split_overlap(&self, new: &[u8], first: usize, second: usize, overlap: usize) -> usize {
        let (mut score, mut best, mut kept) = (0isize, 0isize, 0);
        let olds = self.text[first..].iter().zip(&self.text[second..]);
        for (step, (wanted, (first, second))) in new.iter().zip(olds).take(overlap).enumerate() {
            score += isize::from(first == wanted) - isize::from(second == wanted);
            if score > best {
                (best, kept) = (score, step + 1);
            }
        }
        kept
    }
}

impl Patch {
    /// The patch that takes nothing from the old image.
    pub(crate) fn literal(new: &[u8]) -> Self {
        let mut patch = Self::default();
        patch.push(new, 0, 0);
        patch
    }

    /// Adds one step: the beginning of `new` resembles the old image, the rest is literal.
    fn push(&mut self, new: &[u8], resembling: usize, seek: i64) {
        let (resembling, literal) = new.split_at(resembling);
        self.resembling.extend_from_slice(resembling);
        self.literals.extend_from_slice(literal);
        // Chunk and window are a few MiB, so that every number fits.
        self.instructions.push(Instruction {
            add: resembling.len() as u32,
            insert: literal.len() as u32,
            seek: seek as i32,
        });
    }
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The length at which twice the agreements minus the length is largest.
fn longest_resemblance(agreements: impl Iterator<Item = bool>) -> usize {
    let (mut score, mut best, mut length) = (0isize, 0isize, 0);
    for (step, agrees) in agreements.enumerate() {
        score += if agrees { 1 } else { -1 };
        if score > best {
            (best, length) = (score, step + 1);
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a reader of the patch would rebuild.
    fn rebuilt(old: &[u8], patch: &Patch) -> Vec<u8> {
        let (mut new, mut at) = (Vec::new(), 0i64);
        let (mut resembling, mut literals) = (patch.resembling.iter(), patch.literals.iter());
        for step in &patch.instructions {
            assert!(at as usize + step.add as usize <= old.len());
            new.extend(resembling.by_ref().take(step.add as usize));
            new.extend(literals.by_ref().take(step.insert as usize));
            at += i64::from(step.add) + i64::from(step.seek);
        }
        assert!(resembling.next().is_none() && literals.next().is_none());
        new
    }

    proptest! {
        #[test]
        fn a_patch_rebuilds_the_new_image(
            old in proptest::collection::vec(0u8..4, 0..400),
            new in proptest::collection::vec(0u8..4, 0..400),
        ) {
            prop_assert_eq!(rebuilt(&old, &SortedImage::new(&old).patch_to(&new)), new);
        }

        #[test]
        fn the_longest_match_is_as_long_as_any(
            old in proptest::collection::vec(0u8..3, 1..100),
            new in proptest::collection::vec(0u8..3, 1..30),
        ) {
            let longest = (0..old.len()).map(|at| common_prefix(&old[at..], &new)).max().unwrap();
            let found = SortedImage::new(&old).longest_match(&new);
            prop_assert_eq!(found.bytes, longest);
            prop_assert!(old[found.at..].starts_with(&new[..longest]));
        }
    }

    #[test]
    fn an_inserted_line_costs_its_own_length_and_not_much_more() {
        let old: Vec<u8> = (0..40_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
        let mut new = old.clone();
        new.splice(50_000..50_000, *b"a new line");
        let patch = SortedImage::new(&old).patch_to(&new);
        assert_eq!(rebuilt(&old, &patch), new);
        assert!(patch.literals.len() < 40, "{} literals", patch.literals.len());
    }
}
