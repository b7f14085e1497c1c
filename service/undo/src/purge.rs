//! What is over is taken away: objects of the vault when their window has ended, rows of the journal when they are in the vault and
//! have been there for a while, or when the journal grows too large.
//!
//! Rows leave the journal by whole transactions, in one statement: whoever reads them finds all of one or nothing.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use reprieve_operation::{Digest, Event, Timestamp};
use tokio_postgres::{Client, Transaction, error::SqlState};

use crate::{Keeper, UndoError, aside, position::Position};

/// Objects that are removed before that is recorded.
const OBJECTS_AT_ONCE: usize = 1_000;
/// How often old rows are looked for, and how often an overgrown journal is tried to be emptied.
const PURGE_EVERY: Duration = Duration::from_secs(10);

/// An object of the vault with row images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Object {
    /// Its event.
    pub(crate) index: u64,
    pub(crate) at: Timestamp,
    pub(crate) digest: Digest,
    pub(crate) stored_bytes: u64,
}

/// The objects that are kept, oldest first, and up to where the journal was in the vault when.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    objects: VecDeque<Object>,
    /// Transactions below were all in the vault at that time.
    reached: VecDeque<(Timestamp, u64)>,
    purged: Option<Instant>,
    purged_aside: Option<Instant>,
    tried_to_empty: Option<Instant>,
}

impl Kept {
    pub(crate) fn add_older(&mut self, object: Object, reached: Option<&Position>) {
        self.objects.push_front(object);
        if let Some(position) = reached {
            self.reached.push_front((object.at, position.lowest_open));
        }
    }

    pub(crate) fn add_newer(&mut self, object: Object, reached: Option<&Position>) {
        self.objects.push_back(object);
        if let Some(position) = reached {
            self.reached.push_back((object.at, position.lowest_open));
        }
    }

    /// The oldest objects that were recorded more than `window` before `now`, at most `limit`.
    fn over(&self, now: Timestamp, window: Duration, limit: usize) -> Vec<Object> {
        self.objects.iter().take_while(|object| object.at.plus(window) <= now).take(limit).copied().collect()
    }

    fn forget(&mut self, objects: usize) {
        self.objects.drain(..objects);
    }

    /// Transactions below were in the vault `window` before `now`. Forgets what is older.
    fn in_the_vault_for(&mut self, now: Timestamp, window: Duration) -> Option<u64> {
        let mut below = None;
        while let Some((at, lowest_open)) = self.reached.front().copied() {
            if at.plus(window) > now {
                break;
            }
            below = below.max(Some(lowest_open));
            self.reached.pop_front();
        }
        below
    }

    fn is_time(&mut self) -> bool {
        is_time(&mut self.purged)
    }

    pub(crate) fn may_try_to_empty(&mut self) -> bool {
        is_time(&mut self.tried_to_empty)
    }
}

fn is_time(last: &mut Option<Instant>) -> bool {
    let is_time = last.is_none_or(|last| last.elapsed() > PURGE_EVERY);
    if is_time {
        *last = Some(Instant::now());
    }
    is_time
}

impl Keeper {
    /// Removes objects whose window is over from the vault, and records that.
    pub(crate) async fn purge_vault(&self, kept: &mut Kept) -> Result<(), UndoError> {
        let over = kept.over(self.clock.now(), self.options.window, OBJECTS_AT_ONCE);
        let Some(last) = over.last() else { return Ok(()) };
        let vault = self.vault.vault().await?;
        for object in &over {
            // Removed first: a crash in between removes them again, and none is left that nobody remembers.
            vault.delete(object.digest).await?;
        }
        let event = Event::ImagesPurged {
            system: self.system.clone(),
            objects: over.len() as u64,
            stored_bytes: over.iter().fold(0, |sum, object| sum.saturating_add(object.stored_bytes)),
            through: last.index,
        };
        self.audit.append(event).await.map_err(|error| UndoError::Ledger(error.to_string()))?;
        kept.forget(over.len());
        Ok(())
    }

    /// Drops what was set aside for longer than the window, and records that.
    pub(crate) async fn purge_aside(&self, client: &Client, kept: &mut Kept) -> Result<(), UndoError> {
        if !is_time(&mut kept.purged_aside) {
            return Ok(());
        }
        let tables = aside::purge(client, self.options.window).await?;
        if !tables.is_empty() {
            let event = Event::AsidePurged { system: self.system.clone(), tables };
            self.audit.append(event).await.map_err(|error| UndoError::Ledger(error.to_string()))?;
        }
        Ok(())
    }

    /// Takes rows out of the journal that have been in the vault for long enough.
    pub(crate) async fn purge_journal(&self, client: &Client, kept: &mut Kept) -> Result<(), UndoError> {
        if !kept.is_time() {
            return Ok(());
        }
        let window = self.options.journal_window.min(self.options.window);
        match kept.in_the_vault_for(self.clock.now(), window) {
            Some(below) => self.delete_from_journal(client, below).await,
            None => Ok(()),
        }
    }

    /// Takes all rows of transactions below one out of the journal, in one statement.
    pub(crate) async fn delete_from_journal(&self, client: &Client, below: u64) -> Result<(), UndoError> {
        let rows = client.execute(&format!("DELETE FROM reprieve.journal j WHERE j.xid < '{below}'::pg_catalog.xid8"), &[]).await?;
        if rows > 0 {
            tracing::debug!(system = %self.system, rows, "rows left the journal; they are in the vault");
        }
        Ok(())
    }

    /// The size of the journal, with its index and large values.
    pub(crate) async fn journal_bytes(&self, client: &Client) -> Result<u64, UndoError> {
        let row = client.query_one("SELECT pg_catalog.pg_total_relation_size('reprieve.journal')", &[]).await?;
        Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
    }

    /// A transaction in which nobody else writes to the journal; none if that would take waiting.
    pub(crate) async fn lock_journal<'a>(&self, client: &'a mut Client) -> Result<Option<Transaction<'a>>, UndoError> {
        let work = client.transaction().await?;
        work.batch_execute("SET LOCAL lock_timeout = '200ms'").await?;
        match work.batch_execute("LOCK TABLE reprieve.journal IN ACCESS EXCLUSIVE MODE").await {
            Ok(()) => Ok(Some(work)),
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_goes_oldest_first() {
        let mut kept = Kept::default();
        let object = |index: u64| Object { index, at: Timestamp(index * 1_000), digest: Digest([0; 32]), stored_bytes: 1 };
        let reached = |lowest_open| Position { lowest_open, end: lowest_open, open: Vec::new() };
        kept.add_older(object(20), Some(&reached(200)));
        kept.add_older(object(10), Some(&reached(100)));
        kept.add_newer(object(30), None);
        let (now, window) = (Timestamp(50_000), Duration::from_secs(30));
        assert_eq!(kept.over(now, window, 10), [object(10), object(20)]);
        assert_eq!(kept.over(now, window, 1), [object(10)]);
        kept.forget(1);
        assert_eq!(kept.over(now, window, 10), [object(20)]);
        assert_eq!(kept.in_the_vault_for(Timestamp(39_999), window), None);
        assert_eq!(kept.in_the_vault_for(now, window), Some(200));
        assert_eq!(kept.in_the_vault_for(now, window), None);
    }
}
