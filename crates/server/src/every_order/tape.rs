//! The decisions of one world: octets that are drawn one after another. 0 always means that nothing goes wrong, and
//! a tape that is used up gives 0 for ever, so a shorter tape and one with more zeros is a simpler world.

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tape {
    octets: Vec<u8>,
    position: usize,
}

impl Tape {
    pub(super) fn new(octets: Vec<u8>) -> Self {
        Self { octets, position: 0 }
    }

    /// The tape of a seed: some seeds make quiet worlds with a few faults, others wild ones.
    pub(super) fn of_seed(seed: u64) -> Self {
        let mut state = seed;
        // SplitMix64.
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        };
        let length = 20 + next() % 400;
        let quiet = [30, 70, 120, 200][usize::try_from(next() % 4).unwrap()];
        let octets = (0..length).map(|_| {
            let drawn = next();
            if drawn % 256 < quiet { 0 } else { u8::try_from(drawn >> 32 & 0xff).unwrap() }
        });
        Self::new(octets.collect())
    }

    pub(super) fn draw(&mut self) -> u8 {
        let drawn = self.octets.get(self.position).copied().unwrap_or(0);
        self.position += 1;
        drawn
    }

    /// Happens so many times in 256.
    pub(super) fn chance(&mut self, of_256: u8) -> bool {
        self.draw() > 255 - of_256
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        usize::from(self.draw()) % limit
    }

    /// Nothing goes wrong from here on.
    pub(super) fn end(&mut self) {
        self.position = self.octets.len();
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.position >= self.octets.len()
    }

    /// Tapes that are simpler than this one, the simplest first.
    pub(super) fn simpler(&self) -> Vec<Self> {
        let octets = &self.octets;
        let mut simpler = Vec::new();
        for part in [2, 4, 8, 16, 32] {
            let length = octets.len() / part;
            if length > 0 {
                simpler.push(octets[..octets.len() - length].to_vec());
                for start in (0..octets.len()).step_by(length) {
                    let end = (start + length).min(octets.len());
                    if octets[start..end].iter().any(|octet| *octet != 0) {
                        let mut quieter = octets.clone();
                        quieter[start..end].fill(0);
                        simpler.push(quieter);
                    }
                }
            }
        }
        for position in (0..octets.len()).filter(|position| octets[*position] != 0) {
            let mut quieter = octets.clone();
            quieter[position] = 0;
            simpler.push(quieter);
        }
        simpler.into_iter().map(Self::new).collect()
    }

    /// The decisions that are not 0.
    pub(super) fn faults(&self) -> usize {
        self.octets.iter().filter(|octet| **octet != 0).count()
    }

    pub(super) fn rewound(&self) -> Self {
        Self::new(self.octets.clone())
    }
}
