//! Blocks: the roots of every 256 leaves in a row, so that a proof need not read the whole ledger.
//!
//! They are derived from the leaves and may be lost. Whoever proves something with them checks the proof against a signed head, so a
//! root that somebody changed proves nothing wrong: it only costs the long way.

use reprieve_ledger::{Frontier, Hash};

/// Leaves of a block.
pub const BLOCK_LEAVES: u64 = 256;

/// The root of a complete block, from its leaves in order; `None` if there are not that many.
pub(crate) fn block_root(leaves: impl IntoIterator<Item = Hash>) -> Option<Hash> {
    let mut block = Frontier::new();
    leaves.into_iter().for_each(|leaf| block.append(leaf));
    (block.size() == BLOCK_LEAVES).then(|| block.root())
}
