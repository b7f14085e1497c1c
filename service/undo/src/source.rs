//! Where a change's row images are: in the journal, or fetched from the vault into a temporary table of the same form.

use std::sync::Arc;

use futures_util::SinkExt as _;
use reprieve_operation::{Digest, Event, Recorded, SystemName};
use reprieve_vault::{Kind, ObjectRef, Vault};
use tokio_postgres::{GenericClient, Transaction};

use crate::{History, UndoError, VaultAccess, images::pieces_of, rows::JOURNAL};

/// Events read at a time.
const PAGE: usize = 500;

/// The table that images are fetched into.
const FETCHED: &str = "pg_temp.undo_images";

/// Row images, wherever they are.
#[derive(Clone)]
pub struct Images {
    vault: Arc<VaultAccess>,
    history: Arc<dyn History>,
}

/// An object of the vault with row images, as the ledger knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImages {
    /// The index of the event that says so, and its time.
    pub index: u64,
    /// When it was recorded.
    pub at: reprieve_operation::Timestamp,
    /// Of which system.
    pub system: SystemName,
    /// In which vault.
    pub vault: Digest,
    /// From which database.
    pub origin: String,
    /// The object.
    pub object: ObjectRef,
    /// Its place among the objects of one look at the journal.
    pub part: u32,
    /// The lowest and the highest transaction in it.
    pub transactions: (u64, u64),
    /// Rows that begin in it.
    pub rows: u64,
    /// Up to where the journal is in the vault with it; none if more parts follow.
    pub position: Option<String>,
}

impl StoredImages {
    fn of(recorded: Recorded) -> Option<Self> {
        let Recorded { index, at, event } = recorded;
        let Event::ImagesStored { system, vault, origin, object, plain_bytes, stored_bytes, part, first, last, rows, position } = event
        else {
            return None;
        };
        let object = ObjectRef { digest: object, kind: Kind::Pack, plain_bytes, stored_bytes };
        Some(Self { index, at, system, vault, origin, object, part, transactions: (first, last), rows, position })
    }
}

/// The objects with row images of a system that were not purged, newest first, each with whether it counts: parts that a crash left
/// without their last one don't, their rows were stored again.
pub fn stored(history: &dyn History, system: &SystemName) -> Result<Vec<(StoredImages, bool)>, UndoError> {
    let mut found: Vec<(StoredImages, bool)> = Vec::new();
    walk(history, system, |stored, counts| {
        found.push((stored, counts));
        true
    })?;
    Ok(found)
}

/// Walks newest first until `each` answers false.
fn walk(history: &dyn History, system: &SystemName, mut each: impl FnMut(StoredImages, bool) -> bool) -> Result<(), UndoError> {
    let purged = purged_through(history, system)?;
    // The part that has to come next for the parts seen so far to be whole.
    let mut awaited: Option<u32> = None;
    let mut before = u64::MAX;
    loop {
        let page = history.of_kind("images_stored", before, PAGE).map_err(UndoError::Ledger)?;
        let Some(last) = page.last() else { return Ok(()) };
        before = last.index;
        for recorded in page {
            if purged.is_some_and(|purged| recorded.index <= purged) {
                return Ok(());
            }
            let Some(stored) = StoredImages::of(recorded).filter(|stored| stored.system == *system) else { continue };
            let counts = stored.position.is_some() || awaited == Some(stored.part);
            if counts {
                awaited = stored.part.checked_sub(1);
            }
            if !each(stored, counts) {
                return Ok(());
            }
        }
    }
}

fn purged_through(history: &dyn History, system: &SystemName) -> Result<Option<u64>, UndoError> {
    let mut before = u64::MAX;
    loop {
        let page = history.of_kind("images_purged", before, PAGE).map_err(UndoError::Ledger)?;
        let Some(last) = page.last() else { return Ok(None) };
        before = last.index;
        for recorded in page {
            match recorded.event {
                Event::ImagesPurged { system: of, through, .. } if of == *system => return Ok(Some(through)),
                _ => {}
            }
        }
    }
}

impl Images {
    /// The images that this ledger and this vault know of.
    #[must_use]
    pub fn new(vault: Arc<VaultAccess>, history: Arc<dyn History>) -> Self {
        Self { vault, history }
    }

    /// The ledger.
    pub(crate) fn history(&self) -> &dyn History {
        self.history.as_ref()
    }

    /// The vault.
    pub(crate) async fn vault(&self) -> Result<&Vault, UndoError> {
        Ok(self.vault.vault().await?)
    }

    /// The table to read the rows of these transactions from. Fetches from the vault what the journal doesn't hold any more.
    pub(crate) async fn gather(&self, work: &Transaction<'_>, system: &SystemName, xids: &[u64]) -> Result<String, UndoError> {
        work.batch_execute("SET LOCAL search_path = pg_catalog; SET LOCAL statement_timeout = 0").await?;
        let has_journal = has_journal(work).await?;
        if has_journal && missing(work, JOURNAL, xids).await?.is_empty() {
            return Ok(JOURNAL.to_owned());
        }
        work.batch_execute(&format!(
            "CREATE TEMPORARY TABLE {} (xid pg_catalog.xid8 NOT NULL, statement pg_catalog.int8 NOT NULL, relation pg_catalog.oid NOT NULL, \
             old pg_catalog.text, new pg_catalog.text) ON COMMIT DROP",
            FETCHED.trim_start_matches("pg_temp.")
        ))
        .await?;
        if has_journal {
            // In one statement: the keeper takes whole transactions out of the journal meanwhile.
            let texts: Vec<String> = xids.iter().map(u64::to_string).collect();
            let copy = format!(
                "INSERT INTO {FETCHED} SELECT j.xid, j.statement, j.relation, j.old, j.new FROM {JOURNAL} j \
                 WHERE j.xid = ANY ($1::pg_catalog.text[]::pg_catalog.xid8[])"
            );
            work.execute(&copy, &[&texts]).await?;
        }
        let mut missing = missing(work, FETCHED, xids).await?;
        let mut whole: Vec<StoredImages> = Vec::new();
        let mut found: Vec<Vec<StoredImages>> = Vec::new();
        let (lowest, highest) = (missing.iter().min().copied().unwrap_or(0), missing.iter().max().copied().unwrap_or(0));
        walk(self.history.as_ref(), system, |stored, counts| {
            if !counts {
                return true;
            }
            if stored.position.is_some() && !whole.is_empty() {
                // The rest of it was purged.
                whole.clear();
            }
            let ends = stored.part == 0;
            whole.push(stored);
            if ends {
                whole.reverse();
                let parts = std::mem::take(&mut whole);
                if parts.iter().any(|part| part.transactions.0 <= highest && part.transactions.1 >= lowest) {
                    found.push(parts);
                }
            }
            true
        })?;
        for parts in found {
            if missing.is_empty() {
                break;
            }
            let mut fetched = Vec::new();
            for xid in &missing {
                let possible: Vec<&StoredImages> =
                    parts.iter().filter(|part| part.transactions.0 <= *xid && part.transactions.1 >= *xid).collect();
                if self.fetch(work, system, *xid, &possible).await? {
                    fetched.push(*xid);
                }
            }
            missing.retain(|xid| !fetched.contains(xid));
        }
        work.batch_execute(&format!("ANALYZE {FETCHED}")).await?;
        Ok(FETCHED.to_owned())
    }

    /// Fetches one transaction's rows, if they are in these objects.
    async fn fetch(&self, work: &Transaction<'_>, system: &SystemName, xid: u64, parts: &[&StoredImages]) -> Result<bool, UndoError> {
        if parts.is_empty() {
            return Ok(false);
        }
        let vault = self.vault().await?;
        let mut any = false;
        let sink = work.copy_in(&format!("COPY {FETCHED} (xid, statement, relation, old, new) FROM STDIN")).await?;
        futures_util::pin_mut!(sink);
        for part in parts {
            let mut reader = vault.open_pack(&part.object).await?;
            for entry in pieces_of(&mut reader, system, xid).await? {
                sink.send(reader.read(entry).await?).await?;
                any = true;
            }
        }
        sink.finish().await?;
        Ok(any)
    }

    /// Says so if rows were taken out of the journal while they were read: they went in one piece, so that whoever still finds some
    /// of a transaction has found all of it before.
    pub(crate) async fn still_there(&self, work: &Transaction<'_>, source: &str, xids: &[u64]) -> Result<(), UndoError> {
        if source == JOURNAL && !missing(work, JOURNAL, xids).await?.is_empty() {
            return Err(UndoError::Images("the rows left the journal for the vault just now; try again".to_owned()));
        }
        Ok(())
    }
}

/// Whether there is a journal to read. One that isn't ours is an error: whoever made it would have code of theirs run by us, with an
/// administrator's rights, through a view, a rule or a policy.
pub(crate) async fn has_journal(client: &impl GenericClient) -> Result<bool, UndoError> {
    let found = client
        .query_opt(
            "SELECT c.relkind = 'r' AND NOT c.relhasrules AND NOT c.relrowsecurity AND c.relowner = o.oid AND n.nspowner = o.oid \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace, pg_catalog.pg_roles o \
             WHERE n.nspname = 'reprieve' AND c.relname = 'journal' AND o.rolname = CURRENT_USER",
            &[],
        )
        .await?;
    match found.map(|row| row.get(0)) {
        None => Ok(false),
        Some(true) => Ok(true),
        Some(false) => Err(UndoError::Images("`reprieve.journal` is not the one that this login's `protect --apply` made".to_owned())),
    }
}

/// Transactions of which the table has no row.
async fn missing(work: &Transaction<'_>, table: &str, xids: &[u64]) -> Result<Vec<u64>, UndoError> {
    let texts: Vec<String> = xids.iter().map(u64::to_string).collect();
    let query = format!(
        "SELECT x FROM pg_catalog.unnest($1::pg_catalog.text[]) x WHERE NOT EXISTS (SELECT FROM {table} j WHERE j.xid = x::pg_catalog.xid8)"
    );
    let rows = work.query(&query, &[&texts]).await?;
    Ok(rows.iter().filter_map(|row| row.get::<_, String>(0).parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use reprieve_operation::Timestamp;

    use super::*;

    struct Events(Mutex<Vec<Event>>);

    impl History for Events {
        fn before(&self, _: u64, _: usize) -> Result<Vec<Recorded>, String> {
            Ok(Vec::new())
        }

        fn of_kind(&self, kind: &str, before: u64, limit: usize) -> Result<Vec<Recorded>, String> {
            let events = self.0.lock().expect("a lock");
            let numbered = events.iter().enumerate().map(|(index, event)| (index as u64, event));
            let wanted = numbered.rev().filter(|(index, event)| *index < before && event.kind() == kind).take(limit);
            Ok(wanted.map(|(index, event)| Recorded { index, at: Timestamp(index), event: event.clone() }).collect())
        }
    }

    fn name(text: &str) -> SystemName {
        text.parse().expect("a name")
    }

    fn part(system: &str, part: u32, is_last: bool) -> Event {
        Event::ImagesStored {
            system: name(system),
            vault: Digest([0; 32]),
            origin: String::new(),
            object: Digest([0; 32]),
            plain_bytes: 0,
            stored_bytes: 0,
            part,
            first: 1,
            last: 1,
            rows: 1,
            position: is_last.then(|| "1:2:".to_owned()),
        }
    }

    #[test]
    fn only_whole_looks_count_and_purged_ones_are_gone() {
        let purged = Event::ImagesPurged { system: name("shop"), objects: 1, stored_bytes: 1, through: 1 };
        let events = [
            part("shop", 0, true),  // purged
            part("shop", 0, true),  // purged
            part("shop", 0, false), // 2: a crash came before the next part
            part("shop", 0, false), // 3
            part("other", 0, true),
            purged,
            part("shop", 1, false), // 6
            part("shop", 2, true),  // 7
            part("shop", 0, false), // 8: not finished yet
        ];
        let history = Events(Mutex::new(events.into()));
        let found = stored(&history, &name("shop")).expect("events");
        let found: Vec<(u64, bool)> = found.into_iter().map(|(stored, counts)| (stored.index, counts)).collect();
        assert_eq!(found, [(8, false), (7, true), (6, true), (3, true), (2, false)]);
    }
}
