//! Tiles: the static files in which C2SP tlog-tiles publishes a tree, so that public tools can read an exported ledger.
//!
//! Only names and contents are known here; writing them is the exporter's work.

use thiserror::Error;

use crate::tree::{Hash, Nodes};

/// Hashes in a full tile: eight levels of the tree.
pub const TILE_WIDTH: u16 = 256;
const TILE_HEIGHT: u32 = 8;

/// The longest entry that an entry bundle can hold.
pub const ENTRY_BYTES_MAX: usize = u16::MAX as usize;

/// One tile of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// The tile level: 0 holds leaf hashes, 1 the roots of 256 leaves each, and so on.
    pub level: u32,
    /// Its number within the level.
    pub index: u64,
    /// How many hashes it has, 1 to 256.
    pub width: u16,
}

/// An entry is longer than an entry bundle can hold.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("an entry of {bytes} bytes does not fit into an entry bundle: {ENTRY_BYTES_MAX} are possible")]
pub struct EntryTooLong {
    bytes: usize,
}

impl Tile {
    /// Every tile of a tree of `size` leaves, partial ones last on their level.
    pub fn all(size: u64) -> impl Iterator<Item = Self> {
        (0u32..8).map_while(move |level| Some((level, size >> (level * TILE_HEIGHT))).filter(|(_, hashes)| *hashes > 0)).flat_map(
            |(level, hashes)| {
                let full = (0..hashes / u64::from(TILE_WIDTH)).map(move |index| Self { level, index, width: TILE_WIDTH });
                let rest = u16::try_from(hashes % u64::from(TILE_WIDTH)).expect("a remainder of 256");
                let partial = (rest > 0).then_some(Self { level, index: hashes / u64::from(TILE_WIDTH), width: rest });
                full.chain(partial)
            },
        )
    }

    /// The tile's path, e.g. `tile/0/x001/234.p/5`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("tile/{}/{}", self.level, numbered(self.index, self.width))
    }

    /// The tile's contents: its hashes, one after the other.
    #[must_use]
    pub fn bytes(&self, nodes: Nodes<'_>) -> Option<Vec<u8>> {
        let first = self.index.checked_mul(u64::from(TILE_WIDTH))?;
        let hashes = (0..u64::from(self.width)).map(|at| nodes(self.level.checked_mul(TILE_HEIGHT)?, first.checked_add(at)?));
        hashes.collect::<Option<Vec<Hash>>>().map(|hashes| hashes.concat())
    }
}

/// The path of the bundle with entries from `index * 256` on.
#[must_use]
pub fn entry_bundle_path(index: u64, width: u16) -> String {
    format!("tile/entries/{}", numbered(index, width))
}

/// A bundle's contents: each entry after its length in two bytes.
pub fn entry_bundle(entries: &[&[u8]]) -> Result<Vec<u8>, EntryTooLong> {
    let mut bundle = Vec::new();
    for entry in entries {
        let length = u16::try_from(entry.len()).map_err(|_| EntryTooLong { bytes: entry.len() })?;
        bundle.extend_from_slice(&length.to_be_bytes());
        bundle.extend_from_slice(entry);
    }
    Ok(bundle)
}

/// A number in groups of three digits, all but the last marked with `x`; partial tiles end with their width.
fn numbered(mut index: u64, width: u16) -> String {
    let mut path = format!("{:03}", index % 1000);
    while index >= 1000 {
        index /= 1000;
        path = format!("x{:03}/{path}", index % 1000);
    }
    if width < TILE_WIDTH { format!("{path}.p/{width}") } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{leaf_hash, root_of, subtree_root};

    #[test]
    fn paths() {
        for (level, index, width, expected) in [
            (0, 0, 256, "tile/0/000"),
            (0, 1_234_067, 256, "tile/0/x001/x234/067"),
            (1, 1000, 5, "tile/1/x001/000.p/5"),
            (2, 999, 256, "tile/2/999"),
        ] {
            assert_eq!(Tile { level, index, width }.path(), expected);
        }
        assert_eq!(entry_bundle_path(1_234_067, 8), "tile/entries/x001/x234/067.p/8");
    }

    #[test]
    fn a_tree_of_70000_leaves_needs_these_tiles() {
        let tiles: Vec<Tile> = Tile::all(70_000).collect();
        assert_eq!(tiles.iter().filter(|tile| tile.level == 0).count(), 274);
        assert_eq!(tiles.iter().filter(|tile| tile.level == 1).map(|tile| tile.width).collect::<Vec<_>>(), [256, 17]);
        assert_eq!(tiles.iter().filter(|tile| tile.level == 2).map(|tile| tile.width).collect::<Vec<_>>(), [1]);
        assert_eq!(Tile::all(0).count(), 0);
        assert_eq!(Tile::all(256).count(), 2);
    }

    #[test]
    fn tiles_hold_the_hashes_of_their_level() {
        let leaves: Vec<Hash> = (0..600u32).map(|number| leaf_hash(&number.to_be_bytes())).collect();
        let bytes = |level, index, width| Tile { level, index, width }.bytes(&|level, index| subtree_root(&leaves, level, index));
        assert_eq!(bytes(0, 2, 88), Some(leaves[512..].concat()));
        assert_eq!(bytes(1, 0, 2), Some([root_of(&leaves[..256]), root_of(&leaves[256..512])].concat()));
        assert_eq!(bytes(0, 2, 89), None);
        assert_eq!(bytes(u32::MAX, u64::MAX, 1), None);
    }

    #[test]
    fn bundles() {
        assert_eq!(entry_bundle(&[b"ab", b""]), Ok(vec![0, 2, b'a', b'b', 0, 0]));
        assert!(entry_bundle(&[&[0; ENTRY_BYTES_MAX]]).is_ok());
        assert!(entry_bundle(&[&[0; ENTRY_BYTES_MAX + 1]]).is_err());
    }
}
