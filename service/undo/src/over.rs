//! Objects whose time is over: removed from the vault in the order they were put there.

use std::time::Duration;

use reprieve_gate::{Audit, Clock};
use reprieve_operation::{Digest, Event, Recorded};

use crate::{History, UndoError, VaultAccess};

/// Events read at a time, and objects that are removed before that is recorded.
const PAGE: usize = 500;
const OBJECTS_AT_ONCE: usize = 10_000;

/// Objects of one sort, as events tell of them.
pub(crate) struct Sort {
    /// The kind of event that says that one was put there.
    pub(crate) kept: &'static str,
    /// The kind that says that they were removed, up to and with an event of the first kind.
    pub(crate) purged: &'static str,
    /// The object and its size, of an event of the first kind.
    pub(crate) object: fn(&Event) -> Option<(Digest, u64)>,
    /// Up to where, of an event of the second kind.
    pub(crate) through: fn(&Event) -> Option<u64>,
    /// An event of the second kind: objects, their bytes, and up to where.
    pub(crate) event: fn(u64, u64, u64) -> Event,
}

impl Sort {
    /// Removes what is older than `window`. Objects go first, then that is recorded: a crash in between removes them again.
    pub(crate) async fn purge(
        &self,
        history: &dyn History,
        audit: &dyn Audit,
        vault: &VaultAccess,
        clock: &dyn Clock,
        window: Duration,
    ) -> Result<(), UndoError> {
        let now = clock.now();
        let mut over = Vec::new();
        self.each(history, |recorded| {
            if let Some((digest, stored)) = (self.object)(&recorded.event).filter(|_| recorded.at.plus(window) <= now) {
                over.push((recorded.index, digest, stored));
            }
        })?;
        over.reverse();
        over.truncate(OBJECTS_AT_ONCE);
        let Some(through) = over.last().map(|(index, ..)| *index) else { return Ok(()) };
        let vault = vault.vault().await?;
        let mut bytes = 0_u64;
        for (_, digest, stored) in &over {
            vault.delete(*digest).await?;
            bytes = bytes.saturating_add(*stored);
        }
        let event = (self.event)(over.len() as u64, bytes, through);
        audit.append(event).await.map(drop).map_err(|error| UndoError::Ledger(error.to_string()))
    }

    /// What was put there and not removed, newest first.
    pub(crate) fn each(&self, history: &dyn History, mut take: impl FnMut(&Recorded)) -> Result<(), UndoError> {
        let newest = history.of_kind(self.purged, u64::MAX, 1).map_err(UndoError::Ledger)?;
        let purged = newest.first().and_then(|recorded| (self.through)(&recorded.event));
        let mut before = u64::MAX;
        loop {
            let page = history.of_kind(self.kept, before, PAGE).map_err(UndoError::Ledger)?;
            let Some(last) = page.last().map(|recorded| recorded.index) else { return Ok(()) };
            before = last;
            page.iter().filter(|recorded| purged.is_none_or(|purged| recorded.index > purged)).for_each(&mut take);
            if purged.is_some_and(|purged| last <= purged) {
                return Ok(());
            }
        }
    }
}
