//! Proofs: that a leaf is in a tree, and that a tree only grew (RFC 6962 section 2.1.1 and 2.1.2, checked as RFC 9162
//! sections 2.1.3.2 and 2.1.4.2 say), and the C2SP tlog-proof text that carries the first kind.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use thiserror::Error;

use crate::{
    checkpoint::{Checkpoint, CheckpointError},
    note::Verifier,
    tree::{Hash, Nodes, empty_root, leaf_hash, node_hash, split},
};

/// No tree has more levels than its size has bits.
const HASHES_MAX: usize = 64;

/// Why a proof can't be made or does not hold.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ProofError {
    /// The leaf or the smaller tree is not within the tree.
    #[error("{what} {number} is not within a tree of {size} leaves")]
    Outside {
        /// `leaf` or `tree of`.
        what: &'static str,
        /// Which.
        number: u64,
        /// The tree's size.
        size: u64,
    },
    /// A hash that the proof needs isn't known.
    #[error("the hash of subtree {index} at level {level} is missing")]
    Missing {
        /// The level, leaves being 0.
        level: u32,
        /// The subtree.
        index: u64,
    },
    /// The hashes don't lead to the root.
    #[error("the proof does not hold")]
    Wrong,
    /// The text is not a proof.
    #[error("not a proof: {0}")]
    Malformed(&'static str),
    /// The proof's checkpoint is not a good one.
    #[error("the proof's checkpoint is not acceptable")]
    Checkpoint(#[from] CheckpointError),
}

/// The hashes that lead from leaf `index` to the root of the tree of `size` leaves, lowest first.
pub fn inclusion_proof(index: u64, size: u64, nodes: Nodes<'_>) -> Result<Vec<Hash>, ProofError> {
    if index >= size {
        return Err(ProofError::Outside { what: "leaf", number: index, size });
    }
    let (mut start, mut end) = (0, size);
    let mut path = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            path.push(range_root(middle, end, nodes)?);
            end = middle;
        } else {
            path.push(range_root(start, middle, nodes)?);
            start = middle;
        }
    }
    path.reverse();
    Ok(path)
}

/// The hashes that show the tree of `old` leaves to be the beginning of the tree of `new` leaves.
pub fn consistency_proof(old: u64, new: u64, nodes: Nodes<'_>) -> Result<Vec<Hash>, ProofError> {
    if old > new {
        return Err(ProofError::Outside { what: "tree of", number: old, size: new });
    }
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    let (mut start, mut end) = (0, new);
    let mut path = Vec::new();
    // Down to the subtree that the old tree ends with; its root is left out where the verifier has it already.
    while end != old {
        let middle = start + split(end - start);
        if old <= middle {
            path.push(range_root(middle, end, nodes)?);
            end = middle;
        } else {
            path.push(range_root(start, middle, nodes)?);
            start = middle;
        }
    }
    if start != 0 {
        path.push(range_root(start, end, nodes)?);
    }
    path.reverse();
    Ok(path)
}

/// The root over the leaves from `start` to `end`, a range as the RFC's recursion splits them.
fn range_root(start: u64, end: u64, nodes: Nodes<'_>) -> Result<Hash, ProofError> {
    let width = end - start;
    if width.is_power_of_two() {
        let level = width.trailing_zeros();
        let index = start >> level;
        return nodes(level, index).ok_or(ProofError::Missing { level, index });
    }
    let middle = start + split(width);
    Ok(node_hash(&range_root(start, middle, nodes)?, &range_root(middle, end, nodes)?))
}

/// Checks that `leaf` is leaf `index` of the tree with `size` leaves and this `root`.
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, root: &Hash, proof: &[Hash]) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Outside { what: "leaf", number: index, size });
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::Wrong);
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last == 0 && hash == *root { Ok(()) } else { Err(ProofError::Wrong) }
}

/// Checks that the tree of `old` leaves with `old_root` is the beginning of the tree of `new` leaves with `new_root`.
pub fn verify_consistency(old: u64, new: u64, old_root: &Hash, new_root: &Hash, proof: &[Hash]) -> Result<(), ProofError> {
    if old > new {
        return Err(ProofError::Outside { what: "tree of", number: old, size: new });
    }
    if old == new || old == 0 {
        let same = if old == new { old_root == new_root } else { *old_root == empty_root() };
        return if same && proof.is_empty() { Ok(()) } else { Err(ProofError::Wrong) };
    }
    // A complete old tree is itself the first hash of the path.
    let mut hashes = proof.iter();
    let first = if old.is_power_of_two() { Some(old_root) } else { hashes.next() };
    let Some(first) = first else { return Err(ProofError::Wrong) };
    let skip = (old - 1).trailing_ones();
    let (mut node, mut last) = ((old - 1) >> skip, (new - 1) >> skip);
    let (mut from_old, mut from_new) = (*first, *first);
    for sibling in hashes {
        if last == 0 {
            return Err(ProofError::Wrong);
        }
        if node & 1 == 1 || node == last {
            from_old = node_hash(sibling, &from_old);
            from_new = node_hash(sibling, &from_new);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            from_new = node_hash(&from_new, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last == 0 && from_old == *old_root && from_new == *new_root { Ok(()) } else { Err(ProofError::Wrong) }
}

/// An offline proof that one event is in the ledger: its index, the path, and a signed checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventProof {
    /// The event's index.
    pub index: u64,
    /// The path to the root.
    pub hashes: Vec<Hash>,
    /// The signed note.
    pub checkpoint: String,
}

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

impl EventProof {
    /// The proof as C2SP tlog-proof text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("{FIRST_LINE}\nindex {}\n", self.index);
        for hash in &self.hashes {
            let _ = writeln!(text, "{}", BASE64.encode(hash));
        }
        text.push('\n');
        text.push_str(&self.checkpoint);
        text
    }

    /// Reads a proof's text.
    pub fn parse(text: &str) -> Result<Self, ProofError> {
        let (head, checkpoint) = text.split_once("\n\n").ok_or(ProofError::Malformed("no checkpoint"))?;
        let mut lines = head.split('\n');
        if lines.next() != Some(FIRST_LINE) {
            return Err(ProofError::Malformed("it does not begin with `c2sp.org/tlog-proof@v1`"));
        }
        let mut line = lines.next();
        if line.is_some_and(|line| line.starts_with("extra ")) {
            line = lines.next();
        }
        let index = line.and_then(|line| line.strip_prefix("index ")).and_then(crate::checkpoint::decimal);
        let index = index.ok_or(ProofError::Malformed("no index"))?;
        let mut hashes = Vec::new();
        for line in lines {
            if hashes.len() == HASHES_MAX {
                return Err(ProofError::Malformed("too many hashes"));
            }
            let hash = BASE64.decode(line).ok().and_then(|bytes| Hash::try_from(bytes).ok());
            hashes.push(hash.ok_or(ProofError::Malformed("a line is not a hash"))?);
        }
        Ok(Self { index, hashes, checkpoint: checkpoint.to_owned() })
    }

    /// Checks that `body` is the event at [`EventProof::index`] of a tree that `key` signed.
    pub fn verify(&self, body: &[u8], key: &Verifier) -> Result<Checkpoint, ProofError> {
        let checkpoint = Checkpoint::open(&self.checkpoint, key)?;
        verify_inclusion(&leaf_hash(body), self.index, checkpoint.size, &checkpoint.root, &self.hashes)?;
        Ok(checkpoint)
    }
}

#[cfg(test)]
mod tests;
