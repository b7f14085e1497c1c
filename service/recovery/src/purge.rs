//! Purges: recovery points whose time is over are taken out of the vault, and the log that only they needed.
//!
//! What stays whatever its age: the newest, and the newest that a drill proved. Without a proof nothing goes: nobody knows yet which
//! copy is good. The gateway records a purge before anything is removed, and refuses one that its own ledger does not agree with.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use reprieve_ledger::Verifier;
use reprieve_operation::{Digest, Event, RECOVERABLE, Recorded, SystemName, Timestamp};
use reprieve_vault::{ObjectRef, Vault, VaultError};
use tokio::runtime::Handle;

use crate::{RecoveryError, StoredWal, manifest::first_segment, read_index, read_point, wal};

/// Points that one purge takes away: the rest is for the next.
const AT_ONCE: usize = 200;

/// A recovery point as the ledger knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPoint {
    /// Its name.
    pub point: String,
    /// Its manifest.
    pub manifest: Digest,
    /// When copying began.
    pub began: Timestamp,
    /// Whether a drill brought it back.
    pub proved: bool,
    /// Whether a purge of it is recorded.
    pub purged: bool,
}

/// The points of a system by what the ledger says, oldest first. `events` are those of [`crate::KINDS`], in any order.
#[must_use]
pub fn known_points(events: &[Recorded], system: &SystemName) -> Vec<KnownPoint> {
    let mut points: BTreeMap<&str, KnownPoint> = BTreeMap::new();
    for recorded in events {
        if let Event::BackupMade { system: of, point, manifest, began, .. } = &recorded.event
            && of == system
        {
            let known = KnownPoint { point: point.clone(), manifest: *manifest, began: *began, proved: false, purged: false };
            points.insert(point, known);
        }
    }
    for recorded in events {
        match &recorded.event {
            Event::DrillPassed { system: of, point, level, .. } if of == system && *level >= RECOVERABLE => {
                points.entry(point).and_modify(|known| known.proved = true);
            }
            Event::CopiesPurged { system: of, points: gone, .. } if of == system => {
                for point in gone {
                    points.entry(point).and_modify(|known| known.purged = true);
                }
            }
            _ => {}
        }
    }
    let mut points: Vec<KnownPoint> = points.into_values().collect();
    points.sort_by_key(|known| known.began);
    points
}

/// Those whose time is over.
#[must_use]
pub fn over(points: &[KnownPoint], keep: Duration, now: Timestamp) -> Vec<&KnownPoint> {
    let there = || points.iter().filter(|known| !known.purged);
    let (newest, proved) = (there().next_back(), there().rfind(|known| known.proved));
    let (Some(newest), Some(proved)) = (newest, proved) else { return Vec::new() };
    there().filter(|known| known.point != newest.point && known.point != proved.point && now.since(known.began) > keep).collect()
}

/// What is to be removed.
#[derive(Debug, Default)]
pub struct Purge {
    /// The points.
    pub points: Vec<String>,
    /// The size of what goes, in the vault.
    pub stored_bytes: u64,
    /// Parts of the log that go.
    pub log_files: u64,
    /// In this order: without its manifest a point is found by nobody, so that goes last.
    objects: Vec<Digest>,
}

impl Purge {
    /// How many objects go.
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.objects.len() as u64
    }
}

/// Looks at what would go. Every point that stays has to be readable: otherwise nothing goes. Blocks.
pub fn plan_purge(
    vault: &Vault,
    handle: &Handle,
    key: &Verifier,
    received: &Path,
    points: &[KnownPoint],
    keep: Duration,
    now: Timestamp,
) -> Result<Purge, RecoveryError> {
    let mut over = over(points, keep, now);
    over.truncate(AT_ONCE);
    let mut purge = Purge { points: over.iter().map(|known| known.point.clone()).collect(), ..Purge::default() };
    // A purge that was broken off left some of what it had recorded.
    let left = points.iter().rev().filter(|known| known.purged).take(AT_ONCE);
    let (mut needed, mut clusters): (BTreeSet<Digest>, BTreeMap<String, (u64, u64)>) = Default::default();
    for known in points.iter().filter(|known| !known.purged && !over.iter().any(|over| over.point == known.point)) {
        let (manifest, contents) = handle.block_on(read_point(vault, known.manifest, key))?;
        needed.extend(contents.all().map(|object| object.digest));
        needed.extend([known.manifest, manifest.contents.digest]);
        if let Some(first) = first_segment(&manifest) {
            let (first, bytes) = (first, manifest.segment_bytes);
            clusters.entry(manifest.cluster).and_modify(|(lowest, _)| *lowest = first.min(*lowest)).or_insert((first, bytes));
        }
    }
    for known in over.into_iter().chain(left) {
        match handle.block_on(read_point(vault, known.manifest, key)) {
            Ok((manifest, contents)) => {
                let list = [manifest.contents, handle.block_on(vault.describe(known.manifest))?];
                purge.add(vault, handle, contents.all().chain(&list), &needed)?;
            }
            // Gone already, or nothing that anybody could still restore.
            Err(RecoveryError::Vault(VaultError::Missing(_) | VaultError::Corrupt { .. }) | RecoveryError::Damaged(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let index = read_index(received)?;
    let old = |wal: &&StoredWal| {
        let first = clusters.get(&wal.cluster);
        first.is_some_and(|(lowest, bytes)| wal::numbered(&wal.file, *bytes).is_some_and(|(own, _)| own < *lowest))
    };
    for part in index.iter().filter(old) {
        if let Some(object) = part.object.filter(|object| !needed.contains(&object.digest)) {
            purge.log_files += u64::from(purge.add(vault, handle, std::iter::once(&object), &needed)? > 0);
        }
    }
    Ok(purge)
}

impl Purge {
    fn add<'o>(
        &mut self,
        vault: &Vault,
        handle: &Handle,
        objects: impl Iterator<Item = &'o ObjectRef>,
        needed: &BTreeSet<Digest>,
    ) -> Result<u64, RecoveryError> {
        let mut added = 0;
        for object in objects.filter(|object| !needed.contains(&object.digest)) {
            if handle.block_on(vault.exists(object.digest))? {
                self.objects.push(object.digest);
                self.stored_bytes = self.stored_bytes.saturating_add(object.stored_bytes);
                added += 1;
            }
        }
        Ok(added)
    }
}

/// Removes what was planned, once that is recorded. Blocks.
pub fn carry_out(vault: &Vault, handle: &Handle, purge: &Purge) -> Result<(), RecoveryError> {
    purge.objects.iter().try_for_each(|object| Ok(handle.block_on(vault.delete(*object))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_and_the_newest_proved_stay_whatever_the_clock_says() {
        let hour = 3_600_000;
        let point = |began: u64, proved: bool, purged: bool| KnownPoint {
            point: format!("R-{began}"),
            manifest: Digest([0; 32]),
            began: Timestamp(began * hour),
            proved,
            purged,
        };
        let check = |points: &[KnownPoint], now: u64, expected: &[&str]| {
            let keep = Duration::from_secs(10 * 3_600);
            let gone: Vec<&str> = over(points, keep, Timestamp(now * hour)).iter().map(|known| known.point.as_str()).collect();
            assert_eq!(gone, expected, "{points:?} at {now}");
        };
        let year = 366 * 24;
        check(&[], year, &[]);
        check(&[point(1, false, false), point(2, false, false)], year, &[]);
        check(&[point(1, true, false), point(2, false, false), point(3, false, false)], year, &["R-2"]);
        check(&[point(1, true, false), point(2, true, false), point(3, true, false)], year, &["R-1", "R-2"]);
        check(&[point(1, true, false), point(2, true, false), point(3, false, false)], 12, &["R-1"]);
        check(&[point(1, true, false), point(2, true, false), point(3, false, false)], 11, &[]);
        check(&[point(1, true, false), point(2, true, false), point(3, false, false)], 0, &[]);
        check(&[point(1, false, true), point(2, true, true), point(3, false, false)], year, &[]);
    }
}
