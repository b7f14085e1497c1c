//! Snapshots of definitions: which the ledger says are in the vault, and which of them no undo can need any more.
//!
//! A snapshot shows what was until the next one was recorded, so it can go when the window of the last change before that is over.
//! The newest one never goes.

use std::{collections::HashSet, time::Duration};

use reprieve_gate::Audit;
use reprieve_operation::{Digest, Event, SystemName, Timestamp};

use crate::{Change, History, UndoError, VaultAccess, position::Position};

/// Events read at a time.
const PAGE: usize = 500;
/// Objects that are removed before that is recorded.
const OBJECTS_AT_ONCE: usize = 1_000;

/// A system's definitions at one time, as the ledger knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The index of the event that says so.
    pub index: u64,
    /// When it was recorded.
    pub at: Timestamp,
    /// Of which system.
    pub system: SystemName,
    /// The object. Definitions that came back to what they were have the same one again.
    pub object: Digest,
    /// Its size.
    pub bytes: u64,
    /// The ledger's size when taking it began.
    pub from: u64,
    /// Which transactions it shows, as PostgreSQL spells it; none where that was not recorded.
    pub seen: Option<String>,
}

impl Snapshot {
    /// Whether it shows what a change did. `None`: that can't be told, as the change became final while it was taken.
    pub(crate) fn shows(&self, change: &Change) -> Option<bool> {
        let seen = self.seen.as_ref().and_then(|seen| seen.parse::<Position>().ok());
        match (seen, change.xid) {
            (Some(seen), Some(xid)) => Some(seen.holds(xid)),
            _ if self.from > change.index => Some(true),
            _ if self.index < change.index => Some(false),
            _ => None,
        }
    }
}

/// The snapshots around `changes`, newest first: from the oldest one that shows all of them to the newest that shows none.
/// `None`: one of these two isn't kept.
pub(crate) fn around(history: &dyn History, system: &SystemName, changes: &[&Change]) -> Result<Option<Vec<Snapshot>>, UndoError> {
    let mut all = snapshots(history, system)?;
    let Some(before) = all.iter().position(|one| changes.iter().all(|change| one.shows(change) == Some(false))) else { return Ok(None) };
    all.truncate(before + 1);
    let Some(after) = all.iter().rposition(|one| changes.iter().all(|change| one.shows(change) == Some(true))) else { return Ok(None) };
    Ok(Some(all.split_off(after)))
}

/// The snapshots of a system that were not purged, newest first.
pub fn snapshots(history: &dyn History, system: &SystemName) -> Result<Vec<Snapshot>, UndoError> {
    let purged = purged_through(history, system)?;
    let mut found = Vec::new();
    each_of_kind(history, "definitions_taken", |index, at, event| {
        match event {
            _ if purged.is_some_and(|purged| index <= purged) => return false,
            Event::DefinitionsTaken { system: of, object, bytes, from, seen } if of == *system => {
                found.push(Snapshot { index, at, system: of, object, bytes, from, seen });
            }
            _ => {}
        }
        true
    })?;
    Ok(found)
}

fn purged_through(history: &dyn History, system: &SystemName) -> Result<Option<u64>, UndoError> {
    let mut found = None;
    each_of_kind(history, "definitions_purged", |_, _, event| {
        if let Event::DefinitionsPurged { system: of, through, .. } = event
            && of == *system
        {
            found = Some(through);
        }
        found.is_none()
    })?;
    Ok(found)
}

/// Walks newest first until `each` answers false.
fn each_of_kind(history: &dyn History, kind: &str, mut each: impl FnMut(u64, Timestamp, Event) -> bool) -> Result<(), UndoError> {
    let mut before = u64::MAX;
    loop {
        let page = history.of_kind(kind, before, PAGE).map_err(UndoError::Ledger)?;
        let Some(last) = page.last() else { return Ok(()) };
        before = last.index;
        for recorded in page {
            if !each(recorded.index, recorded.at, recorded.event) {
                return Ok(());
            }
        }
    }
}

/// Removes the snapshots that were replaced more than `window` before `now`, and records that.
pub(crate) async fn purge(
    history: &dyn History,
    audit: &dyn Audit,
    vault: &VaultAccess,
    system: &SystemName,
    now: Timestamp,
    window: Duration,
) -> Result<(), UndoError> {
    let mut kept = snapshots(history, system)?;
    let over = over(&mut kept, now, window);
    let Some(last) = over.last() else { return Ok(()) };
    let vault = vault.vault().await?;
    let still: HashSet<Digest> = kept.iter().map(|snapshot| snapshot.object).collect();
    for snapshot in over.iter().filter(|snapshot| !still.contains(&snapshot.object)) {
        // Removed first: a crash in between removes them again, and none is left that nobody remembers.
        vault.delete(snapshot.object).await?;
    }
    let event = Event::DefinitionsPurged {
        system: system.clone(),
        objects: over.len() as u64,
        bytes: over.iter().fold(0, |sum, snapshot| sum.saturating_add(snapshot.bytes)),
        through: last.index,
    };
    audit.append(event).await.map(drop).map_err(|error| UndoError::Ledger(error.to_string()))
}

/// Takes those out of `snapshots`, newest first, that were replaced more than `window` before `now`: oldest first, a limited number.
fn over(snapshots: &mut Vec<Snapshot>, now: Timestamp, window: Duration) -> Vec<Snapshot> {
    let is_over = |pair: &[Snapshot]| pair[0].at.plus(window) <= now;
    let needed = snapshots.windows(2).position(is_over).map_or(snapshots.len(), |place| place + 1);
    let mut over = Vec::new();
    while snapshots.len() > needed && over.len() < OBJECTS_AT_ONCE {
        over.extend(snapshots.pop());
    }
    over
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_goes_when_its_successor_is_older_than_the_window() {
        let snapshot = |index: u64| Snapshot {
            index,
            at: Timestamp(index * 1_000),
            system: "shop".parse().expect("a name"),
            object: Digest([0; 32]),
            bytes: 1,
            from: index,
            seen: None,
        };
        let check = |indexes: &[u64], now: u64, gone: &[u64]| {
            let mut kept: Vec<Snapshot> = indexes.iter().map(|index| snapshot(*index)).collect();
            let over: Vec<u64> = over(&mut kept, Timestamp(now * 1_000), Duration::from_secs(10)).iter().map(|one| one.index).collect();
            assert_eq!(over, gone, "{indexes:?} at {now}");
            assert_eq!(kept.len() + over.len(), indexes.len());
        };
        check(&[], 100, &[]);
        check(&[1], 100, &[]);
        check(&[5, 1], 14, &[]);
        check(&[5, 1], 15, &[1]);
        check(&[30, 20, 5, 1], 29, &[1]);
        check(&[30, 20, 5, 1], 30, &[1, 5]);
        check(&[30, 20, 5, 1], 1_000, &[1, 5, 20]);
    }
}
