//! Row images on their way to the vault: the journal's rows, transaction by transaction, in packs of a bounded size.
//!
//! Rows come as `COPY … TO STDOUT` writes them in its text format and go back by `COPY … FROM STDIN`, byte for byte: nothing of a
//! row is read here but the transaction it begins with. Entry 0 of a pack says what is in it; the others are pieces of one
//! transaction's rows each, in order. How packs follow one another is in the ledger (`Event::ImagesStored`).

use reprieve_operation::SystemName;
use reprieve_vault::{Pack, PackReader};
use serde::{Deserialize, Serialize};

use crate::UndoError;

/// The largest entry: what is held in memory of one transaction.
const PIECE: usize = 1024 * 1024;
/// When a pack is large enough to be put, and how many entries it has at most.
const PACK_BYTES: u64 = 32 * 1024 * 1024;
const PACK_ENTRIES: usize = 100_000;
/// The entry that says what is in a pack. No piece has this number.
const CONTENTS: u64 = 0;

/// What is in a pack.
#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    system: SystemName,
    /// The database's own identity, by which a copy of it is told from it.
    origin: String,
    /// Makes every pack a vault's object of its own: one that is purged is nobody else's.
    nonce: u64,
    /// The transaction of each piece, beginning with entry 1.
    pieces: Vec<u64>,
}

/// What a pack came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packed {
    /// The lowest and the highest transaction.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Rows that begin in it.
    pub(crate) rows: u64,
}

/// A pack in the making.
#[derive(Debug)]
pub(crate) struct Packer {
    contents: Contents,
    pack: Pack,
    piece: Vec<u8>,
    /// The transaction of the piece in the making.
    of: u64,
    packed: Packed,
}

impl Packer {
    pub(crate) fn new(system: SystemName, origin: String, nonce: u64) -> Self {
        let contents = Contents { system, origin, nonce, pieces: Vec::new() };
        let packed = Packed { first: u64::MAX, last: 0, rows: 0 };
        Self { contents, pack: Pack::new(), piece: Vec::new(), of: 0, packed }
    }

    /// Adds a row as COPY writes it: the transaction first, a line feed at its end.
    pub(crate) fn push(&mut self, line: &[u8]) -> Result<(), UndoError> {
        let xid = transaction_of(line).ok_or_else(|| UndoError::Images("the journal's rows are not as expected".to_owned()))?;
        if xid != self.of {
            self.close_piece()?;
            self.of = xid;
        }
        self.packed.first = self.packed.first.min(xid);
        self.packed.last = self.packed.last.max(xid);
        self.packed.rows += 1;
        let mut rest = line;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(PIECE - self.piece.len()));
            self.piece.extend_from_slice(now);
            rest = later;
            if self.piece.len() == PIECE {
                self.close_piece()?;
            }
        }
        Ok(())
    }

    fn close_piece(&mut self) -> Result<(), UndoError> {
        if !self.piece.is_empty() {
            self.contents.pieces.push(self.of);
            self.pack.add(self.contents.pieces.len() as u64, &self.piece)?;
            self.piece.clear();
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pack.is_empty() && self.piece.is_empty()
    }

    /// Whether it is time to put it.
    pub(crate) fn is_full(&self) -> bool {
        self.pack.plain_bytes() + self.piece.len() as u64 >= PACK_BYTES || self.contents.pieces.len() >= PACK_ENTRIES
    }

    pub(crate) fn finish(mut self) -> Result<(Pack, Packed), UndoError> {
        self.close_piece()?;
        let contents = serde_json::to_vec(&self.contents).map_err(|error| UndoError::Images(error.to_string()))?;
        self.pack.add(CONTENTS, &contents)?;
        Ok((self.pack, self.packed))
    }
}

/// The transaction that a line of the journal begins with.
fn transaction_of(line: &[u8]) -> Option<u64> {
    let end = line.iter().position(|byte| *byte == b'\t')?;
    if line.last() != Some(&b'\n') {
        return None;
    }
    std::str::from_utf8(&line[..end]).ok()?.parse().ok()
}

/// The entries of a pack that hold rows of `xid`, in order.
pub(crate) async fn pieces_of(reader: &mut PackReader, system: &SystemName, xid: u64) -> Result<Vec<u64>, UndoError> {
    let contents: Contents = serde_json::from_slice(&reader.read(CONTENTS).await?)
        .map_err(|error| UndoError::Images(format!("an object of the vault holds no row images: {error}")))?;
    if contents.system != *system {
        return Err(UndoError::Images(format!("an object of the vault belongs to `{}`", contents.system)));
    }
    let numbered = contents.pieces.iter().zip(1..);
    Ok(numbered.filter(|(of, _)| **of == xid).map(|(_, entry)| entry).collect())
}

#[cfg(test)]
mod tests {
    use reprieve_vault::{Vault, VaultKey, VaultOptions};

    use super::*;

    fn packer() -> Packer {
        Packer::new("shop".parse().expect("a name"), "db".to_owned(), 7)
    }

    async fn read_back(vault: &Vault, packer: Packer, xid: u64) -> Vec<u8> {
        let (pack, _) = packer.finish().expect("packed");
        let object = vault.put_pack(pack).await.expect("stored");
        let mut reader = vault.open_pack(&object).await.expect("opened");
        let mut bytes = Vec::new();
        for entry in pieces_of(&mut reader, &"shop".parse().expect("a name"), xid).await.expect("contents") {
            bytes.extend_from_slice(&reader.read(entry).await.expect("an entry"));
        }
        bytes
    }

    #[tokio::test]
    async fn rows_come_back_byte_for_byte_by_their_transaction() {
        let vault = Vault::open(&VaultOptions::new("memory:", VaultKey::from_bytes(&[3; 32])).expect("options")).expect("a vault");
        let mut packer = packer();
        let large = format!("900\t3\t16400\t{}\t\\N\n", "x".repeat(3 * PIECE / 2));
        let lines = ["800\t1\t16400\t\\N\t(1,a)\n", "800\t2\t16400\t(1,a)\t\\N\n", large.as_str(), "900\t4\t16400\t(2,\"\\\\t\")\t\\N\n"];
        for line in lines {
            packer.push(line.as_bytes()).expect("a row");
        }
        assert_eq!(packer.packed, Packed { first: 800, last: 900, rows: 4 });
        assert_eq!(read_back(&vault, packer, 900).await, lines[2..].concat().as_bytes());
    }

    #[test]
    fn what_is_no_row_is_refused() {
        for line in ["", "\n", "800\n", "800\t1", "x\t1\n", "-1\t1\n"] {
            assert!(packer().push(line.as_bytes()).is_err(), "{line:?}");
        }
    }

    #[test]
    fn a_pack_is_put_before_it_grows_too_large() {
        let mut packer = packer();
        let line = format!("800\t1\t1\t{}\t\\N\n", "x".repeat(PIECE));
        let mut pushed = 0;
        while !packer.is_full() {
            packer.push(line.as_bytes()).expect("a row");
            pushed += 1;
        }
        assert_eq!(pushed, 32);
    }
}
