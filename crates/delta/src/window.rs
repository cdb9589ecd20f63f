//! Chooses the part of the old image that one chunk of the new image resembles most.
#![allow(clippy::indexing_slicing, reason = "every index is taken modulo or bounded by the table's length")]

use crate::format::MAX_WINDOW_BYTES;

/// Octets of one sample; samples of the old image stand on multiples of it.
const SAMPLE_BYTES: usize = 32;
/// The old image is counted in stretches of this length (1 MiB).
const STRETCH_BYTES: usize = 1 << 20;
/// Multiplier of the rolling hash; odd, so that it never loses the low bits.
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// Where the samples of the old image stand.
///
/// Memory: about the old image's length / 4, independent of how alike the images are.
pub(crate) struct Samples<'a> {
    old: &'a [u8],
    /// Number of a sample plus one, by the hash of its octets; 0 is empty, the first of equals stays.
    numbers: Vec<u32>,
}

impl<'a> Samples<'a> {
    pub(crate) fn of(old: &'a [u8]) -> Self {
        let samples = old.chunks_exact(SAMPLE_BYTES);
        let mut numbers = vec![0; (samples.len() * 2).next_power_of_two().max(2)];
        for (number, sample) in samples.enumerate() {
            // Runs of one octet stand everywhere and say nothing about the place.
            if sample.iter().all(|octet| *octet == sample[0]) {
                continue;
            }
            let slot = slot_of(hash_of(sample), numbers.len());
            if numbers[slot] == 0 {
                numbers[slot] = u32::try_from(number + 1).unwrap_or(0);
            }
        }
        Self { old, numbers }
    }

    /// The window of the old image for this chunk, which begins at `start` of the new image.
    pub(crate) fn window_for(&self, chunk: &[u8], start: usize) -> std::ops::Range<usize> {
        if self.old.len() <= MAX_WINDOW_BYTES {
            return 0..self.old.len();
        }
        let mut places = self.places_in(chunk);
        // What the chunk repeats counts once: else a table of equal entries outvotes all the rest.
        places.sort_unstable();
        places.dedup_by_key(|(place, _)| *place);
        let mut hits = vec![0u32; self.old.len().div_ceil(STRETCH_BYTES)];
        for (place, _) in &places {
            hits[place / STRETCH_BYTES] += 1;
        }
        let stretches = MAX_WINDOW_BYTES / STRETCH_BYTES;
        let alike = |first: usize| hits[first..first + stretches].iter().sum::<u32>();
        let last = hits.len() - stretches;
        let most = (0..=last).map(alike).max().unwrap_or(0);
        // Where the chunk stood, if it moved as a whole. Parts of it may be changed throughout, such as
        // tables of addresses, and so have no sample: only their place tells where they are alike.
        let middle = (start + chunk.len() / 2).saturating_add_signed(median_shift(&places, start));
        let distance = |first: &usize| (first * STRETCH_BYTES + MAX_WINDOW_BYTES / 2).abs_diff(middle);
        let nearly_best = |first: &usize| u64::from(alike(*first)) * 16 >= u64::from(most) * 15;
        let best = (0..=last).filter(nearly_best).min_by_key(distance).unwrap_or(0);
        let end = ((best + stretches) * STRETCH_BYTES).min(self.old.len());
        end - MAX_WINDOW_BYTES.min(end)..end
    }

    /// The places of the old image whose sample occurs in the chunk, each with where in the chunk.
    fn places_in(&self, chunk: &[u8]) -> Vec<(usize, usize)> {
        let mut places = Vec::new();
        let Some(first) = chunk.get(..SAMPLE_BYTES) else { return places };
        let leaving = (1..SAMPLE_BYTES).fold(1u64, |power, _| power.wrapping_mul(MULTIPLIER));
        let mut hash = hash_of(first);
        for end in SAMPLE_BYTES..=chunk.len() {
            if let Some(number) = self.numbers[slot_of(hash, self.numbers.len())].checked_sub(1) {
                let place = number as usize * SAMPLE_BYTES;
                // Other samples share the slot.
                if self.old[place..].starts_with(&chunk[end - SAMPLE_BYTES..end]) {
                    places.push((place, end - SAMPLE_BYTES));
                }
            }
            if let Some(entering) = chunk.get(end) {
                let left = u64::from(chunk[end - SAMPLE_BYTES]) + 1;
                hash = hash
                    .wrapping_sub(left.wrapping_mul(leaving))
                    .wrapping_mul(MULTIPLIER)
                    .wrapping_add(u64::from(*entering) + 1);
            }
        }
        places
    }
}

/// By how much most samples moved, from a chunk that begins at `start`; 0 without samples.
fn median_shift(places: &[(usize, usize)], start: usize) -> isize {
    let mut shifts: Vec<isize> =
        places.iter().map(|(place, within)| *place as isize - (start + within) as isize).collect();
    let middle = shifts.len() / 2;
    if middle >= shifts.len() { 0 } else { *shifts.select_nth_unstable(middle).1 }
}

fn hash_of(sample: &[u8]) -> u64 {
    sample.iter().fold(0u64, |hash, octet| hash.wrapping_mul(MULTIPLIER).wrapping_add(u64::from(*octet) + 1))
}

/// The high bits of a product of all bits choose the slot.
fn slot_of(hash: u64, slots: usize) -> usize {
    (hash.wrapping_mul(MULTIPLIER) >> 32) as usize & (slots - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, bytes: usize) -> Vec<u8> {
        let mut state = seed;
        (0..bytes)
            .map(|_| {
                state = state.wrapping_mul(MULTIPLIER).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect()
    }

    #[test]
    fn a_chunk_that_moved_far_is_found_where_it_stood() {
        let old = noise(7, 40 << 20);
        let from = 29 << 20;
        let window = Samples::of(&old).window_for(&old[from + 5..from + 5 + (4 << 20)], 0);
        assert!(window.start <= from && from + (4 << 20) + 5 <= window.end, "{window:?}");
        assert!(window.len() <= MAX_WINDOW_BYTES);
    }

    #[test]
    fn without_any_likeness_the_window_stands_at_the_same_place() {
        let old = noise(1, 40 << 20);
        let window = Samples::of(&old).window_for(&noise(2, 4 << 20), 20 << 20);
        assert!(window.contains(&(20 << 20)), "{window:?}");
    }

    #[test]
    fn a_small_image_is_its_own_window() {
        assert_eq!(Samples::of(&noise(1, 1000)).window_for(&[1, 2, 3], 0), 0..1000);
    }
}
