//! The frontier: the few hashes that are enough to append to a tree and to know its root.
//!
//! A tree of `size` leaves is a row of complete subtrees, one for each bit of `size`, largest first. Their roots are the
//! frontier: 32 bytes a bit, whatever the ledger's age.

use thiserror::Error;

use crate::tree::{Hash, empty_root, node_hash};

/// A tree's size and the roots of its complete subtrees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// One for each bit of `size`, largest subtree first.
    peaks: Vec<Hash>,
}

/// Why bytes are not a frontier.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("not a frontier: {bytes} bytes where a size and one hash for each of its bits are expected")]
pub struct FrontierError {
    bytes: usize,
}

impl Frontier {
    /// The frontier of the empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one leaf.
    pub fn append(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            let left = self.peaks.pop().expect("there is a peak for each bit of the size");
            hash = node_hash(&left, &hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// How many leaves there are.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            None => empty_root(),
            Some(smallest) => peaks.fold(*smallest, |right, left| node_hash(left, &right)),
        }
    }

    /// The frontier as bytes: the size in eight, big end first, then the hashes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + self.peaks.len() * 32);
        bytes.extend_from_slice(&self.size.to_be_bytes());
        bytes.extend(self.peaks.iter().flatten());
        bytes
    }

    /// Reads what [`Frontier::to_bytes`] wrote. Whether it belongs to a tree, only its root can tell.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FrontierError> {
        let wrong = FrontierError { bytes: bytes.len() };
        let Some((size, hashes)) = bytes.split_first_chunk::<8>() else { return Err(wrong) };
        let size = u64::from_be_bytes(*size);
        let (peaks, rest) = hashes.as_chunks::<32>();
        if rest.is_empty() && peaks.len() == size.count_ones() as usize { Ok(Self { size, peaks: peaks.to_vec() }) } else { Err(wrong) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tree::{leaf_hash, root_of};

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|index| leaf_hash(&index.to_be_bytes())).collect()
    }

    #[test]
    fn the_root_is_that_of_the_recursion_at_every_size() {
        let leaves = leaves(300);
        let mut frontier = Frontier::new();
        for size in 0..leaves.len() {
            assert_eq!((frontier.size(), frontier.root()), (size as u64, root_of(&leaves[..size])), "{size} leaves");
            assert_eq!(Frontier::from_bytes(&frontier.to_bytes()), Ok(frontier.clone()), "{size} leaves");
            frontier.append(leaves[size]);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(frontier) = Frontier::from_bytes(&bytes) {
                prop_assert_eq!(frontier.to_bytes(), bytes);
            }
        }

        #[test]
        fn any_change_of_the_leaves_changes_the_root(count in 2usize..70, at in any::<prop::sample::Index>(), how in 0..3) {
            let original = leaves(count);
            let at = at.index(count - 1);
            let mut changed = original.clone();
            match how {
                0 => changed[at][at % 32] ^= 1,
                1 => changed.swap(at, at + 1),
                _ => { changed.remove(at); }
            }
            let root = |leaves: &[Hash]| {
                let mut frontier = Frontier::new();
                leaves.iter().for_each(|leaf| frontier.append(*leaf));
                frontier.root()
            };
            prop_assert_ne!(root(&original), root(&changed));
        }
    }
}
