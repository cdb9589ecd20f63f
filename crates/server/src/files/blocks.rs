//! The memory that packages are read into: large blocks, used again and again, as long as there are few of them;
//! small ones for whoever comes when all large ones are lent, so that slow vehicles cannot eat up the machine.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// A large block, in octets: reads and writes of this size cost next to nothing for each octet.
const LARGE: usize = 512 * 1024;
/// What is read at a time when all large blocks are lent.
const SMALL: usize = 32 * 1024;
/// Large blocks that are lent at a time: 128 MiB.
const MOST_LENT: usize = 256;
/// Large blocks that are kept for the next one who asks: 16 MiB.
const MOST_KEPT: usize = 32;

/// The blocks of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Blocks(Mutex<Shelf>);

#[derive(Debug, Default)]
struct Shelf {
    lent: usize,
    kept: Vec<Vec<u8>>,
}

impl Blocks {
    /// A block for at most so many octets; it may be shorter.
    pub(super) fn take(self: &Arc<Self>, most: u64) -> Block {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if most <= SMALL {
            return Block { octets: vec![0; most], length: most, large_of: None };
        }
        let mut shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if shelf.lent == MOST_LENT {
            return Block { octets: vec![0; SMALL], length: SMALL, large_of: None };
        }
        shelf.lent += 1;
        let kept = shelf.kept.pop();
        drop(shelf);
        let octets = kept.unwrap_or_else(|| vec![0; LARGE]);
        Block { octets, length: most.min(LARGE), large_of: Some(Arc::clone(self)) }
    }
}

/// Octets that are filled, sent, and given back.
#[derive(Debug)]
pub(super) struct Block {
    octets: Vec<u8>,
    length: usize,
    large_of: Option<Arc<Blocks>>,
}

impl Block {
    /// Keeps only the first octets.
    pub(super) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// The block, to be sent; it comes back when the last octet is on its way.
    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or(&self.octets)
    }
}

impl AsMut<[u8]> for Block {
    fn as_mut(&mut self) -> &mut [u8] {
        self.octets.get_mut(..self.length).unwrap_or_default()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let Some(blocks) = &self.large_of else { return };
        let mut shelf = blocks.0.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.lent -= 1;
        if shelf.kept.len() < MOST_KEPT {
            shelf.kept.push(std::mem::take(&mut self.octets));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_blocks_are_used_again_and_their_number_has_an_end() {
        let blocks = Arc::new(Blocks::default());
        assert_eq!(blocks.take(100).as_ref().len(), 100);
        assert_eq!(blocks.take(u64::MAX).as_ref().len(), LARGE);
        assert_eq!(blocks.take(SMALL as u64 + 1).as_ref().len(), SMALL + 1);
        assert_eq!(blocks.0.lock().unwrap().kept.len(), 1);

        let mut lent: Vec<_> = (0..MOST_LENT).map(|_| blocks.take(u64::MAX).into_bytes()).collect();
        assert_eq!(blocks.take(u64::MAX).as_ref().len(), SMALL);
        lent.pop();
        assert_eq!(blocks.take(u64::MAX).as_ref().len(), LARGE);
        drop(lent);
        let shelf = blocks.0.lock().unwrap();
        assert_eq!((shelf.lent, shelf.kept.len()), (0, MOST_KEPT));
    }
}
