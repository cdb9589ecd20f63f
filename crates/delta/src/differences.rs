//! Codes the differences between two images that are alike, beside the old image, which both sides have.
//!
//! In two builds of one program the differences are changed addresses. Where they stand and what they are
//! depends on the code around them, so each bit is predicted from the octets of the old image around its
//! place and from the differences before it. Predictions of several contexts are mixed by weights that
//! follow what has come true (the method of M. Mahoney's lpaq), and an arithmetic coder spends on each bit
//! what it was not foreseen. All in integers, so that every machine decodes the same.
#![allow(clippy::indexing_slicing, reason = "every index is masked or bounded by the length of its table")]

/// Octets without any difference are passed over in blocks of this length.
const BLOCK_BYTES: usize = 1024;
/// Contexts that predict each bit.
const CONTEXTS: usize = 8;
/// log2 of the predictions that one context remembers.
const SLOT_BITS: u32 = 16;
/// How many octets back differences are remembered; a power of two.
const TRAIL_BYTES: usize = 32;
/// A prediction that has been tried so often no longer learns faster than 1 in so many.
const MOST_TRIES: u32 = 255;
/// Sets of weights: for blocks, for "is there a difference" by what came before, for each bit of one.
const WEIGHT_SETS: usize = 1 + 16 + 8;
/// How fast weights follow, and what they begin with (65,536 is one).
const LEARNING: i32 = 10;
const FIRST_WEIGHT: i32 = 22_000;

/// The probability (of 4,096) at each 128th step of the logistic function's argument, from −2,048 on.
const LOGISTIC: [i32; 33] = [
    1, 2, 3, 6, 10, 16, 27, 45, 73, 120, 194, 310, 488, 747, 1101, 1546, 2047, 2549, 2994, 3348, 3607, 3785,
    3901, 3975, 4022, 4050, 4068, 4079, 4085, 4089, 4092, 4093, 4094,
];

/// One side of the arithmetic coder.
pub(crate) trait BitCoder {
    /// Codes a bit that is one with a probability of `one` / 4,096; a decoder gives the bit that was coded.
    fn code(&mut self, bit: bool, one: u32) -> bool;
}

/// The interval that stands for all bits so far.
struct Interval {
    low: u32,
    high: u32,
}

impl Interval {
    const WHOLE: Self = Self { low: 0, high: u32::MAX };

    /// Up to here the next bit is one.
    fn split(&self, one: u32) -> u32 {
        let width = u64::from(self.high - self.low);
        self.low + ((width * u64::from(one)) >> 12) as u32
    }

    fn narrow(&mut self, bit: bool, split: u32) {
        if bit {
            self.high = split;
        } else {
            self.low = split + 1;
        }
    }

    /// The leading octet, once it is settled.
    fn settled(&mut self) -> Option<u8> {
        if (self.low ^ self.high) >> 24 != 0 {
            return None;
        }
        let octet = (self.high >> 24) as u8;
        self.low <<= 8;
        self.high = self.high << 8 | 0xFF;
        Some(octet)
    }
}

/// Writes the coded differences.
pub(crate) struct Encoder {
    interval: Interval,
    coded: Vec<u8>,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        Self { interval: Interval::WHOLE, coded: Vec::new() }
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.coded.extend_from_slice(&self.interval.high.to_be_bytes());
        // The decoder reads zeros behind the end; any value in the interval stands for all bits.
        let shortest = (0..4).find(|kept| {
            let mask = u32::MAX.checked_shr(8 * kept).unwrap_or(0);
            self.interval.high & !mask >= self.interval.low
        });
        self.coded.truncate(self.coded.len() - 4 + shortest.unwrap_or(4) as usize);
        self.coded
    }
}

impl BitCoder for Encoder {
    fn code(&mut self, bit: bool, one: u32) -> bool {
        let split = self.interval.split(one);
        self.interval.narrow(bit, split);
        while let Some(octet) = self.interval.settled() {
            self.coded.push(octet);
        }
        bit
    }
}

/// Reads coded differences; behind their end it reads zeros.
pub(crate) struct Decoder<'a> {
    interval: Interval,
    at: u32,
    coded: std::slice::Iter<'a, u8>,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(coded: &'a [u8]) -> Self {
        let mut decoder = Self { interval: Interval::WHOLE, at: 0, coded: coded.iter() };
        (0..4).for_each(|_| decoder.take_octet());
        decoder
    }

    fn take_octet(&mut self) {
        self.at = self.at << 8 | u32::from(self.coded.next().copied().unwrap_or(0));
    }
}

impl BitCoder for Decoder<'_> {
    fn code(&mut self, _: bool, one: u32) -> bool {
        let split = self.interval.split(one);
        let bit = self.at <= split;
        self.interval.narrow(bit, split);
        while self.interval.settled().is_some() {
            self.take_octet();
        }
        bit
    }
}

/// What has been learnt in a chunk so far.
pub(crate) struct Model {
    /// Per context and slot: 22 bits of probability, 10 bits of how often it was tried.
    slots: Vec<u32>,
    weights: [[i32; CONTEXTS]; WEIGHT_SETS],
    /// The inverse of the logistic function.
    stretched: Vec<i32>,
    /// 65,536 / (tries + 1.5)
    rates: Vec<i64>,
    /// The last differences, by place modulo [`TRAIL_BYTES`].
    trail: [u8; TRAIL_BYTES],
    place: usize,
    /// Which of the last octets differed; the last one is the lowest bit.
    differed: u32,
    /// The last difference that is not zero.
    last: u8,
    /// Which of the last blocks had a difference.
    blocks: u32,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            slots: vec![1 << 31; CONTEXTS << SLOT_BITS],
            weights: [[FIRST_WEIGHT; CONTEXTS]; WEIGHT_SETS],
            stretched: (0..4096).map(stretch).collect(),
            rates: (0..=i64::from(MOST_TRIES)).map(|tries| 131_072 / (2 * tries + 3)).collect(),
            trail: [0; TRAIL_BYTES],
            place: 0,
            differed: 0,
            last: 0,
            blocks: 0,
        }
    }

    /// Codes the octets of one instruction: `octets` holds those of the old image, and afterwards those of
    /// the new one, which an encoder is given.
    pub(crate) fn code(&mut self, coder: &mut impl BitCoder, octets: &mut [u8], new: Option<&[u8]>) {
        let mut before = 0;
        let mut start = 0;
        while start < octets.len() {
            let end = (start + BLOCK_BYTES).min(octets.len());
            let changed = new.is_some_and(|new| new[start..end] != octets[start..end]);
            let contexts = [self.blocks & 0xFF; CONTEXTS];
            if self.bit(coder, &contexts, 256, 0, changed) {
                self.blocks = self.blocks << 1 | 1;
                for place in start..end {
                    before = self.octet(coder, octets, place, before, new);
                }
            } else {
                self.blocks <<= 1;
                (self.differed, self.last, self.trail) = (0, 0, [0; TRAIL_BYTES]);
                before = octets[start..end].iter().fold(before, |before, old| before << 8 | u32::from(*old));
            }
            start = end;
        }
    }

    /// Codes one octet; `before` are the four of the old image before it, and so is what is given.
    fn octet(
        &mut self,
        coder: &mut impl BitCoder,
        octets: &mut [u8],
        place: usize,
        before: u32,
        new: Option<&[u8]>,
    ) -> u32 {
        let old = octets[place];
        let wanted = new.map_or(0, |new| new[place].wrapping_sub(old));
        let contexts = self.contexts(&octets[place..], before);
        let difference = self.difference(coder, &contexts, wanted);
        octets[place] = old.wrapping_add(difference);
        self.trail[self.place % TRAIL_BYTES] = difference;
        self.place += 1;
        self.differed = self.differed << 1 | u32::from(difference != 0);
        if difference != 0 {
            self.last = difference;
        }
        before << 8 | u32::from(old)
    }

    /// What the next difference may depend on: the code before it, the address it is part of, the same
    /// field of the entries before in a table, and how the last differences were.
    fn contexts(&self, octets: &[u8], before: u32) -> [u32; CONTEXTS] {
        let ahead = |step: usize| octets.get(step).copied().map_or(0, u32::from);
        let ago = |steps: usize| u32::from(self.trail[self.place.wrapping_sub(steps) % TRAIL_BYTES]);
        let address = ahead(0) | ahead(1) << 8 | ahead(2) << 16 | ahead(3) << 24;
        let differed = self.differed;
        [
            mixed(address, differed & 7),
            mixed(before & 0xFF_FFFF, differed & 7),
            mixed(before & 0xFFFF | (address & 0xFFFF) << 16, differed & 3),
            mixed(before & 0xFF | (address & 0xFF_FFFF) << 8, ago(1)),
            mixed(differed & 0xFFFF, ago(1) << 8 | ago(2)),
            mixed(ago(8) | ago(24) << 8 | ago(4) << 16, ago(1)),
            mixed(address & 0xFF | u32::from(self.last) << 8, ago(1) << 8 | ago(2) | (differed & 0xF) << 16),
            mixed(address & 0xFF | ago(1) << 8, ago(2) << 8 | ago(3)),
        ]
    }

    fn difference(&mut self, coder: &mut impl BitCoder, contexts: &[u32; CONTEXTS], wanted: u8) -> u8 {
        let set = 1 + (self.differed & 15) as usize;
        if !self.bit(coder, contexts, 0, set, wanted != 0) {
            return 0;
        }
        let mut node = 1;
        for depth in 0..8 {
            let bit = self.bit(coder, contexts, node, 17 + depth, wanted >> (7 - depth) & 1 == 1);
            node = node << 1 | u32::from(bit);
        }
        (node & 0xFF) as u8
    }

    /// Codes one bit; `node` tells which of an octet.
    fn bit(
        &mut self,
        coder: &mut impl BitCoder,
        contexts: &[u32; CONTEXTS],
        node: u32,
        set: usize,
        bit: bool,
    ) -> bool {
        let mut slots = [0; CONTEXTS];
        let mut inputs = [0; CONTEXTS];
        let mut sum = 0i64;
        for (number, context) in contexts.iter().enumerate() {
            let hash = context.wrapping_add(node.wrapping_mul(0x9E37_79B1)).wrapping_mul(0x85EB_CA6B);
            slots[number] = number << SLOT_BITS | (hash >> (32 - SLOT_BITS)) as usize;
            inputs[number] = self.stretched[(self.slots[slots[number]] >> 20) as usize];
            sum += i64::from(self.weights[set][number]) * i64::from(inputs[number]);
        }
        let one = logistic((sum >> 16).clamp(-2047, 2047) as i32);
        let bit = coder.code(bit, one.cast_unsigned());
        let error = ((i32::from(bit) << 12) - one) * LEARNING;
        for (weight, input) in self.weights[set].iter_mut().zip(inputs) {
            *weight = (*weight + ((input * error + 0x8000) >> 16)).clamp(-(1 << 20), 1 << 20);
        }
        for slot in slots {
            self.learn(slot, bit);
        }
        bit
    }

    fn learn(&mut self, slot: usize, bit: bool) {
        let (probability, tries) = (self.slots[slot] >> 10, self.slots[slot] & 0x3FF);
        let target = if bit { (1 << 22) - 1 } else { 0 };
        let step = (target - i64::from(probability)) * self.rates[tries.min(MOST_TRIES) as usize] / 65_536;
        let probability = (i64::from(probability) + step) as u32;
        self.slots[slot] = probability << 10 | (tries + 1).min(MOST_TRIES);
    }
}

fn mixed(one: u32, other: u32) -> u32 {
    let hash = one.wrapping_mul(0xCC9E_2D51) ^ other.wrapping_add(0x7F4A_7C15).wrapping_mul(0x1B87_3593);
    hash ^ hash >> 15
}

/// 4,096 / (1 + e^(−x / 256))
fn logistic(x: i32) -> i32 {
    let (step, rest) = (((x + 2048) >> 7) as usize, (x + 2048) & 127);
    (LOGISTIC[step] * (128 - rest) + LOGISTIC[(step + 1).min(32)] * rest + 64) >> 7
}

/// The x at which [`logistic`] first reaches this probability.
fn stretch(probability: i32) -> i32 {
    let (mut low, mut high) = (-2047_i32, 2047_i32);
    while low < high {
        let middle = (low + high).div_euclid(2);
        if logistic(middle) >= probability {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn coded(pieces: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let (mut model, mut encoder) = (Model::new(), Encoder::new());
        for (old, new) in pieces {
            model.code(&mut encoder, &mut old.clone(), Some(new));
        }
        encoder.finish()
    }

    fn decoded(coded: &[u8], olds: impl Iterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
        let (mut model, mut decoder) = (Model::new(), Decoder::new(coded));
        olds.map(|mut octets| {
            model.code(&mut decoder, &mut octets, None);
            octets
        })
        .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_octets_come_back(pieces in proptest::collection::vec(
            proptest::collection::vec((any::<u8>(), prop_oneof![9 => Just(0u8), 1 => any::<u8>()]), 0..3000), 0..4,
        )) {
            let pieces: Vec<(Vec<u8>, Vec<u8>)> = pieces
                .into_iter()
                .map(|piece| piece.into_iter().map(|(old, by)| (old, old.wrapping_add(by))).unzip())
                .collect();
            let back = decoded(&coded(&pieces), pieces.iter().map(|(old, _)| old.clone()));
            prop_assert_eq!(back, pieces.into_iter().map(|(_, new)| new).collect::<Vec<_>>());
        }

        #[test]
        fn octets_that_nobody_coded_are_read_as_something(octets: Vec<u8>) {
            prop_assert_eq!(decoded(&octets, [vec![7; 5000]].into_iter())[0].len(), 5000);
        }
    }

    #[test]
    fn equal_octets_cost_next_to_nothing() {
        let same = vec![7; 1 << 20];
        assert!(coded(&[(same.clone(), same)]).len() < 30);
    }

    #[test]
    fn one_shift_of_many_addresses_is_learnt() {
        let address = |n: u32, by: u32| (0x4000 + n * 64 + by).to_le_bytes();
        let image = |by: u32| (0..20_000u32).flat_map(|n| address(n % 900, by)).collect::<Vec<u8>>();
        let length = coded(&[(image(0), image(0x30))]).len();
        assert!(length < 2_000, "{length} octets for 20,000 addresses");
    }
}
