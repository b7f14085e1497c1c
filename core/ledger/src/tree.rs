//! Hashes of the Merkle tree, RFC 6962 section 2.1.

use sha2::{Digest as _, Sha256};

/// A SHA-256 hash: of a leaf, an inner node or the whole tree.
pub type Hash = [u8; 32];

/// Looks up the root of the complete subtree `index` of `2^level` leaves; `None` where it isn't known.
pub type Nodes<'a> = &'a dyn Fn(u32, u64) -> Option<Hash>;

/// The hash of one leaf: SHA-256 over `0x00` and its bytes, so that no leaf can pass for an inner node.
#[must_use]
pub fn leaf_hash(body: &[u8]) -> Hash {
    let mut hash = Sha256::new();
    hash.update([0]);
    hash.update(body);
    hash.finalize().into()
}

/// The hash of an inner node: SHA-256 over `0x01` and its children.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut hash = Sha256::new();
    hash.update([1]);
    hash.update(left);
    hash.update(right);
    hash.finalize().into()
}

/// The root of the tree without leaves: SHA-256 of nothing.
pub(crate) fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// The root over `leaves`, by the recursion of the RFC. For large trees append to a [`Frontier`](crate::Frontier) instead.
#[must_use]
pub fn root_of(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        more => {
            let (left, right) = more.split_at(split(more.len() as u64) as usize);
            node_hash(&root_of(left), &root_of(right))
        }
    }
}

/// The root of the complete subtree `index` of `2^level` leaves, from a slice of all leaf hashes: a [`Nodes`] for small trees.
#[must_use]
pub fn subtree_root(leaves: &[Hash], level: u32, index: u64) -> Option<Hash> {
    let width = 1u64.checked_shl(level)?;
    let start = usize::try_from(index.checked_mul(width)?).ok()?;
    let end = start.checked_add(usize::try_from(width).ok()?)?;
    leaves.get(start..end).map(root_of)
}

/// The largest power of two below `size`, which is at least 2: where the RFC splits a tree.
pub(crate) fn split(size: u64) -> u64 {
    debug_assert!(size >= 2, "a tree of fewer than two leaves has no split");
    1 << (63 - (size - 1).leading_zeros())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The leaves and roots that the certificate-transparency project tests every implementation with.
    pub(crate) const LEAVES: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    pub(crate) const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    pub(crate) fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal of the test")).collect()
    }

    pub(crate) fn known_leaves() -> Vec<Hash> {
        LEAVES.iter().map(|leaf| leaf_hash(&bytes(leaf))).collect()
    }

    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let leaves = known_leaves();
        for (size, root) in ROOTS.iter().enumerate() {
            assert_eq!(root_of(&leaves[..size]).to_vec(), bytes(root), "{size} leaves");
        }
    }

    #[test]
    fn a_tree_splits_at_the_largest_power_of_two_below_its_size() {
        for (size, expected) in [(2, 1), (3, 2), (4, 2), (5, 4), (8, 4), (9, 8), (u64::MAX, 1 << 63)] {
            assert_eq!(split(size), expected, "{size}");
        }
    }

    #[test]
    fn subtrees_outside_the_leaves_are_not_known() {
        let leaves = known_leaves();
        assert_eq!(subtree_root(&leaves, 3, 0), Some(root_of(&leaves)));
        for (level, index) in [(3, 1), (0, 8), (64, 0), (63, 2), (1, u64::MAX)] {
            assert_eq!(subtree_root(&leaves, level, index), None, "{level} {index}");
        }
    }
}
