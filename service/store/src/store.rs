//! The traits: one writer appends, any number of readers read.

use std::{path::PathBuf, sync::Arc};

use reprieve_ledger::Hash;
use thiserror::Error;

use crate::row::{Batch, Head, Placed, Query, Row, Snapshot};

/// Makes the batch once the store knows where it goes: gets the head as stored, and for each row whether its key is taken.
/// The batch holds the others, in order, with indexes from the head's size on. An error leaves everything as it was.
pub type Seal<'a> = &'a mut dyn FnMut(Option<&Head>, &[bool]) -> Result<Batch, StoreError>;

/// Reads a ledger.
pub trait Reader: Send {
    /// Where the ledger ends; `None` before the first append.
    fn head(&self) -> Result<Option<Head>, StoreError>;

    /// The signed checkpoints of sizes from `from` on, smallest first, at most `limit`.
    fn checkpoints(&self, from: u64, limit: usize) -> Result<Vec<(u64, String)>, StoreError>;

    /// Rows with an index of at least `from`, in order, at most `limit`.
    fn rows(&self, from: u64, limit: usize) -> Result<Vec<Row>, StoreError>;

    /// Rows that match, newest first.
    fn search(&self, query: &Query) -> Result<Vec<Row>, StoreError>;

    /// The roots of complete blocks of [`crate::BLOCK_LEAVES`] leaves, from the block `from` on without gaps, at most `limit`. Fewer where
    /// they are not known: they are derived.
    fn block_roots(&self, from: u64, limit: usize) -> Result<Vec<Hash>, StoreError>;

    /// The newest snapshot.
    fn snapshot(&self) -> Result<Option<Snapshot>, StoreError>;

    /// A reader of the ledger as it is now: rows, checkpoints and head that belong together, whatever is appended meanwhile.
    fn as_of_now(&self) -> Result<Box<dyn Reader>, StoreError>;
}

/// Keeps a ledger for its single writer.
pub trait Store: Reader {
    /// Appends in one durable transaction, one row for each of `keys` but those whose key is taken, and stores the head.
    ///
    /// After an error nobody knows whether the batch is durable: don't append again before the store was opened anew.
    fn append(&mut self, keys: &[Option<String>], seal: Seal<'_>) -> Result<Vec<Placed>, StoreError>;

    /// Replaces the snapshot.
    fn save_snapshot(&mut self, snapshot: &Snapshot) -> Result<(), StoreError>;

    /// A handle of its own to read what is durable.
    fn reader(&self) -> Result<Box<dyn Reader>, StoreError>;
}

/// Why a store can't do what it was asked.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// The file can't be opened or made.
    #[error("cannot open the ledger `{}`", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: Arc<std::io::Error>,
    },
    /// Another process appends to it.
    #[error("the ledger `{}` is in use by another process", path.display())]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("`{}` is not a ledger of Reprieve", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
    },
    /// The file was written by another version.
    #[error("the ledger has schema version {found}; this program knows {known}")]
    Version {
        /// The file's.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// SQLite says no.
    #[error("the ledger's database failed")]
    Sqlite(#[from] Arc<rusqlite::Error>),
    /// What is stored makes no sense.
    #[error("the ledger's database is damaged: {0}")]
    Damaged(&'static str),
    /// The batch does not continue the ledger.
    #[error("the batch does not continue the ledger: {0}")]
    Batch(&'static str),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

/// Says for each row whether its key is taken, by a row stored before or by one earlier in the same batch.
pub(crate) fn taken_keys(
    keys: &[Option<String>],
    mut is_stored: impl FnMut(&str) -> Result<bool, StoreError>,
) -> Result<Vec<bool>, StoreError> {
    let mut earlier = std::collections::HashSet::new();
    let mut taken = Vec::with_capacity(keys.len());
    for key in keys {
        taken.push(match key {
            None => false,
            Some(key) => !earlier.insert(key.as_str()) || is_stored(key)?,
        });
    }
    Ok(taken)
}

/// Checks that the batch is what the keys call for, and says where each row went.
pub(crate) fn placed(keys: &[Option<String>], taken: &[bool], size: u64, batch: &Batch) -> Result<Vec<Placed>, StoreError> {
    let mut rows = batch.rows.iter();
    let mut next = size;
    let mut placed = Vec::with_capacity(keys.len());
    for (key, taken) in keys.iter().zip(taken) {
        if *taken {
            placed.push(Placed::KeyTaken);
            continue;
        }
        match rows.next() {
            Some(row) if row.index == next && row.unique_key == *key => placed.push(Placed::At(next)),
            _ => return Err(StoreError::Batch("its rows are not those that were announced")),
        }
        next = next.checked_add(1).ok_or(StoreError::Batch("it has no room left"))?;
    }
    if rows.next().is_some() || batch.head.size != next {
        return Err(StoreError::Batch("its head does not follow from its rows"));
    }
    Ok(placed)
}
