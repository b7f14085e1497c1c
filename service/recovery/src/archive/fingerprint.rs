//! Fingerprints: what a file's contents are, whatever way its zeros are kept.
//!
//! A hole and zeros are the same contents, and filesystems tell them apart as they like. So only blocks that are not all zero count, each
//! with its number, and the size.

use sha2::{Digest as _, Sha256};

/// A block's size.
pub(crate) const BLOCK: usize = 4_096;

/// Cuts contents into blocks and hands on those that are not all zero.
pub(crate) struct Blocks {
    hash: Sha256,
    block: Box<[u8; BLOCK]>,
    filled: usize,
    number: u64,
    bytes: u64,
}

impl Blocks {
    pub(crate) fn new() -> Self {
        Self { hash: Sha256::new(), block: Box::new([0; BLOCK]), filled: 0, number: 0, bytes: 0 }
    }

    /// More contents.
    pub(crate) fn data<E>(&mut self, mut bytes: &[u8], mut each: impl FnMut(u64, &[u8]) -> Result<(), E>) -> Result<(), E> {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(BLOCK - self.filled));
            self.block[self.filled..self.filled + now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = rest;
            if self.filled == BLOCK {
                self.end_of_block(&mut each)?;
            }
        }
        Ok(())
    }

    /// Zeros, however many.
    pub(crate) fn hole<E>(&mut self, mut bytes: u64, mut each: impl FnMut(u64, &[u8]) -> Result<(), E>) -> Result<(), E> {
        let zeros = [0; BLOCK];
        if self.filled > 0 {
            let now = bytes.min((BLOCK - self.filled) as u64);
            self.data(&zeros[..usize::try_from(now).unwrap_or(BLOCK)], &mut each)?;
            bytes -= now;
        }
        self.number = self.number.saturating_add(bytes / BLOCK as u64);
        self.bytes = self.bytes.saturating_add(bytes - bytes % BLOCK as u64);
        self.data(&zeros[..usize::try_from(bytes % BLOCK as u64).unwrap_or(0)], each)
    }

    fn end_of_block<E>(&mut self, each: &mut impl FnMut(u64, &[u8]) -> Result<(), E>) -> Result<(), E> {
        let block = &self.block[..self.filled];
        if block.iter().any(|byte| *byte != 0) {
            each(self.number, block)?;
            self.hash.update(self.number.to_le_bytes());
            // The rest of the last one counts as zeros; the size says where it ends.
            self.block[self.filled..].fill(0);
            self.hash.update(self.block.as_slice());
        }
        self.number = self.number.saturating_add(1);
        self.filled = 0;
        Ok(())
    }

    /// How many bytes there were.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// That was all.
    pub(crate) fn end<E>(mut self, mut each: impl FnMut(u64, &[u8]) -> Result<(), E>) -> Result<[u8; 32], E> {
        if self.filled > 0 {
            self.end_of_block(&mut each)?;
        }
        self.hash.update(u64::MAX.to_le_bytes());
        self.hash.update(self.bytes.to_le_bytes());
        Ok(self.hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn of(parts: &[(bool, &[u8])]) -> ([u8; 32], Vec<u64>) {
        let (mut blocks, mut seen) = (Blocks::new(), Vec::new());
        let mut each = |number: u64, _: &[u8]| -> Result<(), Infallible> {
            seen.push(number);
            Ok(())
        };
        for (hole, bytes) in parts {
            let _ended = if *hole { blocks.hole(bytes.len() as u64, &mut each) } else { blocks.data(bytes, &mut each) };
        }
        let print = blocks.end(&mut each).unwrap_or_else(|never| match never {});
        (print, seen)
    }

    #[test]
    fn a_hole_and_zeros_are_the_same_and_nothing_else_is() {
        let zeros = vec![0; 3 * BLOCK + 5];
        let text = b"text".as_slice();
        assert_eq!(of(&[(true, &zeros), (false, text)]), of(&[(false, &zeros), (false, text)]));
        assert_eq!(of(&[(false, text), (true, &zeros)]), of(&[(false, text), (false, &zeros)]));
        assert_eq!(of(&[(true, &zeros), (false, text)]).1, [3], "only one block has anything in it");
        for (left, right) in [
            (of(&[]), of(&[(false, b"\0")])),
            (of(&[(false, b"a")]), of(&[(false, b"a\0")])),
            (of(&[(false, text)]), of(&[(true, &zeros[..1]), (false, text)])),
            (of(&[(true, &zeros[..BLOCK])]), of(&[(true, &zeros[..2 * BLOCK])])),
        ] {
            assert_ne!(left.0, right.0);
        }
    }
}
