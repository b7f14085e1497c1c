//! The ledger in memory: for tests and for a throw-away gateway.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use reprieve_ledger::Hash;

use crate::{
    blocks::{BLOCK_LEAVES, block_root},
    row::{Head, Placed, Query, Row, Snapshot},
    store::{Reader, Seal, Store, StoreError, placed, taken_keys},
};

/// A ledger in memory. Clones see the same rows.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Kept>>);

#[derive(Debug, Clone, Default)]
struct Kept {
    rows: Vec<Row>,
    keys: HashSet<String>,
    head: Option<Head>,
    checkpoints: BTreeMap<u64, String>,
    snapshot: Option<Snapshot>,
}

impl MemoryStore {
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every change below is made as a whole after the last thing that can fail, so a poisoned lock guards nothing broken.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader for MemoryStore {
    fn head(&self) -> Result<Option<Head>, StoreError> {
        Ok(self.kept().head.clone())
    }

    fn checkpoints(&self, from: u64, limit: usize) -> Result<Vec<(u64, String)>, StoreError> {
        Ok(self.kept().checkpoints.range(from..).take(limit).map(|(size, note)| (*size, note.clone())).collect())
    }

    fn rows(&self, from: u64, limit: usize) -> Result<Vec<Row>, StoreError> {
        let kept = self.kept();
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(kept.rows.len());
        Ok(kept.rows.iter().skip(from).take(limit).cloned().collect())
    }

    fn search(&self, query: &Query) -> Result<Vec<Row>, StoreError> {
        let limit = query.limit.min(Query::LIMIT_MAX);
        Ok(self.kept().rows.iter().rev().filter(|row| matches(query, row)).take(limit).cloned().collect())
    }

    fn block_roots(&self, from: u64, limit: usize) -> Result<Vec<Hash>, StoreError> {
        let kept = self.kept();
        let blocks = kept.rows.chunks_exact(usize::try_from(BLOCK_LEAVES).unwrap_or(usize::MAX));
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        Ok(blocks.skip(from).take(limit).map_while(|rows| block_root(rows.iter().map(|row| row.leaf_hash))).collect())
    }

    fn snapshot(&self) -> Result<Option<Snapshot>, StoreError> {
        Ok(self.kept().snapshot.clone())
    }

    fn as_of_now(&self) -> Result<Box<dyn Reader>, StoreError> {
        let kept = self.kept().clone();
        Ok(Box::new(Self(Arc::new(Mutex::new(kept)))))
    }
}

impl Store for MemoryStore {
    fn append(&mut self, keys: &[Option<String>], seal: Seal<'_>) -> Result<Vec<Placed>, StoreError> {
        let mut kept = self.kept();
        let taken = taken_keys(keys, |key| Ok(kept.keys.contains(key)))?;
        let batch = seal(kept.head.as_ref(), &taken)?;
        let placed = placed(keys, &taken, kept.rows.len() as u64, &batch)?;
        kept.keys.extend(batch.rows.iter().filter_map(|row| row.unique_key.clone()));
        kept.rows.extend(batch.rows);
        kept.checkpoints.insert(batch.head.size, batch.head.checkpoint.clone());
        kept.head = Some(batch.head);
        Ok(placed)
    }

    fn save_snapshot(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        self.kept().snapshot = Some(snapshot.clone());
        Ok(())
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(self.clone()))
    }
}

fn matches(query: &Query, row: &Row) -> bool {
    fn is<T: PartialEq>(wanted: Option<&T>, found: Option<&T>) -> bool {
        wanted.is_none_or(|wanted| found == Some(wanted))
    }
    is(query.kind.as_ref(), Some(&row.kind))
        && is(query.agent.as_ref(), row.agent.as_ref())
        && is(query.hold.as_ref(), row.hold.as_ref())
        && query.since.is_none_or(|since| row.index >= since)
        && query.from_ms.is_none_or(|from| row.at_ms >= from)
        && query.until_ms.is_none_or(|until| row.at_ms < until)
        && query.before.is_none_or(|before| row.index < before)
        && query.text.as_ref().is_none_or(|text| contains(&row.body, text.as_bytes()))
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}
