//! Where a transfer stands: which block is next, and what a wrong block counter means for it.

/// The blocks of one image.
#[derive(Debug, Default)]
pub(super) struct Transfer {
    size: u64,
    payload: usize,
    acknowledged: u64,
    counter: u8,
    doubt: Doubt,
}

/// Why it is not certain whether the ECU has the outstanding block.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    #[default]
    None,
    Silence,
    WrongCounter,
}

/// One block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) counter: u8,
    pub(super) offset: u64,
    pub(super) length: usize,
}

/// What to do about "wrong block sequence counter".
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resynchronisation {
    RepeatBlock,
    /// The ECU has the block: its acknowledgement was lost.
    NextBlock,
    RestartDownload,
}

impl Transfer {
    pub(super) fn new(size: u64, payload: usize) -> Self {
        Self { size, payload, acknowledged: 0, counter: 1, doubt: Doubt::None }
    }

    pub(super) fn acknowledged_bytes(&self) -> u64 {
        self.acknowledged
    }

    /// The first block that is not acknowledged; nothing after the last.
    pub(super) fn next_block(&self) -> Option<Block> {
        let length = self.outstanding();
        (length > 0).then_some(Block { counter: self.counter, offset: self.acknowledged, length })
    }

    fn outstanding(&self) -> usize {
        let rest = self.size.saturating_sub(self.acknowledged);
        usize::try_from(rest).unwrap_or(usize::MAX).min(self.payload)
    }

    /// The ECU has the block.
    pub(super) fn acknowledge(&mut self) {
        self.acknowledged += self.outstanding() as u64;
        // ISO 14229-1, service 36: after FF the counter goes on with 00.
        self.counter = self.counter.wrapping_add(1);
        self.doubt = Doubt::None;
    }

    /// The block was sent again because no answer came.
    pub(super) fn repeated_after_silence(&mut self) {
        self.doubt = Doubt::Silence;
    }

    /// The ECU expects another counter. A repeat after silence that is refused like this means that the
    /// first one arrived; without such a repeat one is tried; after it, only the download can be
    /// started again. Should the guess be wrong, checkMemory finds it.
    pub(super) fn wrong_counter(&mut self) -> Resynchronisation {
        match self.doubt {
            Doubt::Silence => Resynchronisation::NextBlock,
            Doubt::None => {
                self.doubt = Doubt::WrongCounter;
                Resynchronisation::RepeatBlock
            }
            Doubt::WrongCounter => Resynchronisation::RestartDownload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_begins_with_1_and_goes_from_ff_to_00() {
        let mut transfer = Transfer::new(300, 1);
        let mut counters = Vec::new();
        while let Some(block) = transfer.next_block() {
            counters.push(block.counter);
            transfer.acknowledge();
        }
        assert_eq!((counters[0], counters[254], counters[255], counters[256]), (0x01, 0xFF, 0x00, 0x01));
        assert_eq!(counters.len(), 300);
    }

    #[test]
    fn the_last_block_is_as_long_as_what_is_left() {
        let mut transfer = Transfer::new(25, 10);
        transfer.acknowledge();
        transfer.acknowledge();
        assert_eq!(transfer.next_block(), Some(Block { counter: 3, offset: 20, length: 5 }));
        transfer.acknowledge();
        assert_eq!(transfer.next_block(), None);
        assert_eq!(transfer.acknowledged_bytes(), 25);
    }
}
