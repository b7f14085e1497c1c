//! Definitions: keeping what they are whenever they change, and taking an operation's changes of them back.
//!
//! A snapshot is taken before a change wherever the last one isn't of what there is (`catalog_state.rs`), and after every change. It lies
//! in the vault; the ledger says which transactions it shows. What an operation did to definitions is the difference between the newest
//! snapshot that doesn't show it and the oldest one that does, if no other operation is in there too. The script that leads back is made
//! by `reprieve-definitions`; this file runs it and fills in rows that were written down whole (`journal.rs`).

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use reprieve_definitions::{Data, Definitions, Entry, Loss, Options, Scope, Section, Tools, UndoScript, plan_undo, take};
use reprieve_gate::{Audit, Clock};
use reprieve_operation::{Digest, Event, SystemName, UndoId};
use reprieve_vault::Vault;
use tokio::sync::Notify;
use tokio_postgres::Transaction;

use crate::{
    Change, History, Images, Login, Standing, UndoError, VaultAccess,
    aside::is_aside,
    catalog_state::{Look, state},
    change,
    journal::{cover_within, is_set_up, keep_whole},
    snapshots::{around, purge},
    table::Table,
};

/// The longest that a snapshot may take; whoever waits for one waits no longer either.
const SNAPSHOT: Duration = Duration::from_secs(30);

/// How soon a snapshot that failed is tried again, and how often definitions are looked at that nobody is known to have changed.
const RETRY: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// The longest text of definitions.
const LONGEST: u64 = 256 << 20;

/// Events read at a time.
const PAGE: usize = 500;

/// Keeps a system's definitions.
pub struct DefinitionsLog {
    system: SystemName,
    login: Login,
    vault: Arc<VaultAccess>,
    audit: Arc<dyn Audit>,
    history: Arc<dyn History>,
    clock: Arc<dyn Clock>,
    /// How long a change can be undone.
    window: Duration,
    /// Counts up with every change of the catalogue, and what of that is kept.
    wanted: AtomicU64,
    kept: AtomicU64,
    asked: Notify,
    tried: Notify,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    /// The catalogue's state that the newest snapshot shows.
    state: Option<String>,
    /// Why the last try failed.
    failed: Option<String>,
}

impl DefinitionsLog {
    /// A log that has kept nothing yet.
    #[must_use]
    pub fn new(
        system: SystemName,
        login: Login,
        vault: Arc<VaultAccess>,
        audit: Arc<dyn Audit>,
        history: Arc<dyn History>,
        clock: Arc<dyn Clock>,
        window: Duration,
    ) -> Self {
        Self {
            system,
            login,
            vault,
            audit,
            history,
            clock,
            window,
            wanted: AtomicU64::new(1),
            kept: AtomicU64::new(0),
            asked: Notify::new(),
            tried: Notify::new(),
            last: Mutex::default(),
        }
    }

    /// Wants a new snapshot if the newest one isn't of what there is now. Answers whether that is so.
    pub(crate) async fn look(&self) -> Result<bool, UndoError> {
        let now = state(&self.login.connect().await?).await?;
        let is_new = self.last().state.as_ref() != Some(&now);
        if is_new {
            self.wanted.fetch_add(1, Ordering::AcqRel);
            self.asked.notify_one();
        }
        Ok(is_new)
    }

    /// Another number each time that definitions were found to have changed, whoever looked.
    pub(crate) fn version(&self) -> u64 {
        self.wanted.load(Ordering::Acquire)
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes snapshots whenever they are wanted, for ever.
    pub async fn keep(self: Arc<Self>) {
        loop {
            let wanted = self.wanted.load(Ordering::Acquire);
            let failed = self.take().await.err().map(|error| error.to_string());
            if let Some(reason) = &failed {
                tracing::info!(system = %self.system, reason, "definitions can't be kept; changes of them are held");
            } else {
                self.kept.fetch_max(wanted, Ordering::AcqRel);
            }
            if let Err(error) = self.purge().await {
                tracing::warn!(system = %self.system, %error, "definitions whose window is over could not be removed");
            }
            let has_failed = failed.is_some();
            self.last().failed = failed;
            self.tried.notify_waiters();
            if self.wanted.load(Ordering::Acquire) == wanted {
                let again = if has_failed { RETRY } else { (self.window / 4).clamp(RETRY, LOOK_EVERY) };
                let _asked_or_time_to_look = tokio::time::timeout(again, self.asked.notified()).await;
            }
        }
    }

    async fn purge(&self) -> Result<(), UndoError> {
        purge(self.history.as_ref(), self.audit.as_ref(), &self.vault, &self.system, self.clock.now(), self.window).await
    }

    async fn take(&self) -> Result<(), UndoError> {
        let mut client = self.login.connect().await?;
        if !is_set_up(&client).await? {
            return Err(UndoError::NotUndoable("`protect --apply` was not run there".to_owned()));
        }
        let from = self.audit.state().size;
        let look = Look::begin(&mut client).await?;
        let definitions = snapshot(&self.login, Some(look.exported.clone())).await?;
        let (seen, state) = look.end().await?;
        let object = self.vault.vault().await?.put_bytes(Bytes::from(definitions.text().to_owned())).await?;
        // Also where the text is the same again: the last one doesn't show what led there and back.
        if self.last().state.as_ref() != Some(&state) {
            let (system, digest, bytes) = (self.system.clone(), object.digest, object.plain_bytes);
            let event = Event::DefinitionsTaken { system, object: digest, bytes, from, seen: Some(seen) };
            self.audit.append(event).await.map_err(|error| UndoError::Ledger(error.to_string()))?;
        }
        self.last().state = Some(state);
        Ok(())
    }

    /// Resolves when what definitions are at this moment is kept, or can't be. Answers whether they had changed since they were last kept.
    pub(crate) async fn ready(&self) -> Result<bool, String> {
        let had_changed = self.look().await.map_err(|error| error.to_string())?;
        let wanted = self.wanted.load(Ordering::Acquire);
        let kept = async {
            loop {
                let tried = self.tried.notified();
                if self.kept.load(Ordering::Acquire) >= wanted {
                    return Ok(had_changed);
                }
                tried.await;
                if let (false, Some(reason)) = (self.kept.load(Ordering::Acquire) >= wanted, &self.last().failed) {
                    return Err(reason.clone());
                }
            }
        };
        tokio::time::timeout(SNAPSHOT, kept).await.unwrap_or_else(|_| Err("a snapshot of the definitions takes too long".to_owned()))
    }
}

/// The definitions as they are now. Where they are kept and have not changed since, that is what was kept: asking the server for all of
/// them takes longer than putting back a table that was set aside.
async fn current(login: &Login, images: &Images, log: Option<&DefinitionsLog>) -> Result<Definitions, UndoError> {
    let Some(log) = log else { return snapshot(login, None).await };
    if log.ready().await.is_err() {
        return snapshot(login, None).await;
    }
    let page = images.history().of_kind("definitions_taken", u64::MAX, PAGE).map_err(UndoError::Ledger)?;
    let newest = page.into_iter().find_map(|recorded| match recorded.event {
        Event::DefinitionsTaken { system, object, .. } if system == log.system => Some(object),
        _ => None,
    });
    match newest {
        Some(object) => read(images.vault().await?, object).await,
        None => snapshot(login, None).await,
    }
}

/// All definitions as they are now, or were for whoever exported a snapshot.
async fn snapshot(login: &Login, exported: Option<String>) -> Result<Definitions, UndoError> {
    let client = login.connect().await?;
    let version: i32 =
        client.query_one("SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4 / 10000", &[]).await?.get(0);
    let failed = |error: reprieve_definitions::TakeError| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        UndoError::Definitions(format!("{error}{cause}"))
    };
    let tools = Tools::find(u32::try_from(version).unwrap_or(0)).map_err(failed)?;
    let all = take(&tools, &login.url(), &Scope { snapshot: exported, timeout: SNAPSHOT, ..Scope::default() }).await.map_err(failed)?;
    Definitions::parse(&without_times(&without_ours(all.text()))).map_err(|error| UndoError::Definitions(error.to_string()))
}

/// A dump without the journal's triggers: they come and go with coverage, and are no change of anybody's.
///
/// Whoever spells such a heading inside a function's body only makes the dump unreadable, and a change that can't be read is held.
fn without_ours(dump: &str) -> String {
    without(dump, |name| name.contains(" reprieve_keeps_") && name.contains("; Type: TRIGGER; "))
}

/// A dump without the entries that begin with such a line.
fn without(dump: &str, is_out: impl Fn(&str) -> bool) -> String {
    const HEADING: &str = "\n-- TOC entry ";
    let is_ours = |entry: &str| entry.lines().find(|line| line.starts_with("-- Name: ")).is_some_and(&is_out);
    let mut parts = dump.split(HEADING);
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        if !is_ours(part) {
            kept.push_str(HEADING);
            kept.push_str(part);
        } else if let Some(end) = part.find("\n-- Completed on ").or_else(|| part.find("\n--\n-- PostgreSQL database dump complete")) {
            kept.push_str(part.get(end..).unwrap_or_default());
        }
    }
    kept
}

/// Definitions without what other changes set aside, which comes, stays and goes in its own time.
fn without_others_aside(all: [Definitions; 3]) -> Result<[Definitions; 3], UndoError> {
    // What this change, or the undo of it, moved is in its place in one of them and aside in another.
    let is_relation = |entry: &&Entry| matches!(entry.kind(), "TABLE" | "VIEW" | "MATERIALIZED VIEW") && entry.identity().is_some();
    let relations = || all.iter().flat_map(Definitions::entries).filter(is_relation);
    let in_place: HashSet<_> = relations().filter(|entry| !entry.schema().is_some_and(is_aside)).map(Entry::identity).collect();
    let own: HashSet<&str> = relations().filter(|entry| in_place.contains(&entry.identity())).filter_map(Entry::schema).collect();
    let is_others = |schema: &str| is_aside(schema) && !own.contains(schema);
    if !all.iter().flat_map(Definitions::entries).any(|entry| entry.kind() == "SCHEMA" && is_others(entry.name())) {
        return Ok(all);
    }
    let is_out = |line: &str| {
        let after = |word: &str| line.split_once(word).map(|(_, rest)| rest.split([';', ' ']).next().unwrap_or_default());
        let (schema, name) = (after("; Schema: ").unwrap_or_default(), after("-- Name: ").unwrap_or_default());
        is_others(schema) || (schema == "-" && (is_others(name) || after("-- Name: SCHEMA ").is_some_and(is_others)))
    };
    let read = |definitions: &Definitions| {
        Definitions::parse(&without(definitions.text(), is_out)).map_err(|error| UndoError::Definitions(error.to_string()))
    };
    let [before, after, now] = &all;
    Ok([read(before)?, read(after)?, read(now)?])
}

/// A dump without what tells it from the next one of the same definitions: when it was made, and the token that newer servers' tools
/// guard `psql` with. Only before the first entry and at the very end; elsewhere it is part of a definition.
fn without_times(dump: &str) -> String {
    const ENTRY: &str = "\n-- TOC entry ";
    let differs =
        |line: &&str| ["-- Started on ", "-- Completed on ", "\\restrict ", "\\unrestrict "].iter().any(|start| line.starts_with(start));
    let head = dump.find(ENTRY).map_or(dump.len(), |at| at + 1);
    let tail = dump[head..].rfind("\n-- Completed on ").map_or(dump.len(), |at| head + at + 1);
    let mut same: String = dump[..head].split_inclusive('\n').filter(|line| !differs(line)).collect();
    same.push_str(&dump[head..tail]);
    same.extend(dump[tail..].split_inclusive('\n').filter(|line| !differs(line)));
    same
}

/// The way back of definitions, and what was there before.
pub(crate) struct Way {
    pub(crate) script: UndoScript,
    before: Definitions,
}

/// Plans how to take back what `changes`, newest first, did to definitions. `None`: nothing.
pub(crate) async fn plan(
    login: &Login,
    images: &Images,
    log: Option<&DefinitionsLog>,
    changes: &[Change],
) -> Result<Option<Way>, UndoError> {
    let defining: Vec<&Change> = changes.iter().filter(|change| defines(change)).collect();
    let Some(newest) = defining.first() else { return Ok(None) };
    let history = images.history();
    let Some(taken) = around(history, &newest.system, &defining)? else {
        let reason = "the definitions before or after it are not kept (yet); try again in a moment";
        return Err(UndoError::NotUndoable(reason.to_owned()));
    };
    let (after, before) = (&taken[0], &taken[taken.len() - 1]);
    let settled = settled(history, before.index)?;
    let is_other = |other: &Change| {
        // What is settled as nothing defined nothing: what defines is recorded before it is final.
        (defines(other) || matches!(other.standing, Standing::Unknown) && !settled.contains(&other.undo))
            && other.system == newest.system
            && defining.iter().all(|change| change.undo != other.undo)
            && after.shows(other) != Some(false)
            && before.shows(other) != Some(true)
    };
    if let Some(other) = change::changes(history, newest.at, newest.at.since(before.at), 1, is_other)?.first() {
        let reason = format!("{} changed definitions at the same time; undo them together", other.undo);
        return Err(UndoError::NotUndoable(reason));
    }
    let mut objects_between: Vec<Digest> = taken.iter().map(|taken| taken.object).collect();
    objects_between.dedup();
    if objects_between.len() - 1 > defining.len() {
        let reason = "others changed definitions in between; undo these changes one at a time";
        return Err(UndoError::NotUndoable(reason.to_owned()));
    }
    let (before, after) = (before.object, after.object);
    let objects = images.vault().await?;
    let (before, after) = (read(objects, before).await?, read(objects, after).await?);
    let [before, after, now] = without_others_aside([before, after, current(login, images, log).await?])?;
    let script = plan_undo(&before, &after, &now, Options::default());
    if let Some(refusal) = script.refusals.first() {
        return Err(UndoError::NotUndoable(refusal.to_string()));
    }
    if let Some(conflict) = script.conflicts.first() {
        return Err(UndoError::NotUndoable(format!("`{}` was changed since by somebody else: {}", conflict.object, conflict.because)));
    }
    Ok(Some(Way { script, before }))
}

/// Changes whose lost outcome was settled since.
fn settled(history: &dyn History, since: u64) -> Result<HashSet<UndoId>, UndoError> {
    let mut found = HashSet::new();
    let mut before = u64::MAX;
    while before > since {
        let page = history.of_kind("settled", before, PAGE).map_err(UndoError::Ledger)?;
        before = page.last().map_or(0, |last| last.index);
        found.extend(page.iter().filter_map(|recorded| match &recorded.event {
            Event::Settled { intent, .. } => Some(UndoId::from(*intent)),
            _ => None,
        }));
    }
    Ok(found)
}

/// Whether a change may have changed definitions. What only empties or rewrites tables moves `pg_class` alone.
pub(crate) fn defines(change: &Change) -> bool {
    let only_storage = |catalog: &str| catalog == "pg_statistic" || (catalog == "pg_class" && !change.reach.rewritten.is_empty());
    !change.reach.dropped.is_empty() || change.reach.catalogs.iter().any(|(catalog, rows)| *rows > 0 && !only_storage(catalog))
}

pub(crate) async fn read(objects: &Vault, digest: Digest) -> Result<Definitions, UndoError> {
    let object = objects.describe(digest).await?;
    let bytes = objects.get_bytes(&object, LONGEST).await?;
    let text = std::str::from_utf8(&bytes).map_err(|error| UndoError::Definitions(error.to_string()))?;
    Definitions::parse(text).map_err(|error| UndoError::Definitions(error.to_string()))
}

impl Way {
    /// Runs the script in the open transaction, and fills in rows and positions that the transactions `xids` wrote down whole.
    /// Answers which tables were made anew: the number that each had, and its number now.
    pub(crate) async fn go(&self, work: &Transaction<'_>, source: &str, xids: &[String]) -> Result<HashMap<u32, u32>, UndoError> {
        // What goes is written down first, so that this can be undone too.
        for loss in &self.script.loses {
            let (Loss::Table(table) | Loss::Column(table, _)) = loss;
            let oid: Option<u32> = work.query_one("SELECT pg_catalog.to_regclass($1)::pg_catalog.oid", &[table]).await?.get(0);
            if let Some(oid) = oid {
                work.batch_execute(&keep_whole(oid)).await?;
            }
        }
        self.run(work, Section::Before).await?;
        let mut made = HashMap::new();
        for (place, data) in self.script.needs_data.iter().enumerate() {
            let later = self.script.needs_data.get(place + 1..).unwrap_or_default();
            self.fill(work, source, xids, data, later, &mut made).await?;
        }
        self.run(work, Section::After).await?;
        if !made.is_empty() {
            // What is done to their rows from here on has to be written down as well.
            cover_within(work).await?;
        }
        Ok(made)
    }

    async fn run(&self, work: &Transaction<'_>, section: Section) -> Result<(), UndoError> {
        for step in self.script.statements.iter().filter(|step| step.section == section) {
            let Some(or_else) = &step.or_else else {
                work.batch_execute(&step.sql).await?;
                continue;
            };
            work.batch_execute("SAVEPOINT definition").await?;
            if work.batch_execute(&step.sql).await.is_err() {
                work.batch_execute("ROLLBACK TO SAVEPOINT definition").await?;
                work.batch_execute(or_else).await?;
            }
        }
        Ok(())
    }

    /// The number that a table or sequence had before.
    fn oid(&self, spelled: &str) -> Option<u32> {
        // Scripts quote every name, whether it has to be or not.
        let always = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let is_it = |schema: Option<&str>, name: &str| {
            schema.is_some_and(|schema| {
                spelled == format!("{}.{}", quoted(schema), quoted(name)) || spelled == format!("{}.{}", always(schema), always(name))
            })
        };
        let entries = self.before.entries().iter().filter(|entry| matches!(entry.kind(), "TABLE" | "SEQUENCE"));
        entries.filter(|entry| is_it(entry.schema(), entry.name())).find_map(|entry| entry.identity().map(|(_, oid)| oid))
    }

    async fn fill(
        &self,
        work: &Transaction<'_>,
        source: &str,
        xids: &[String],
        data: &Data,
        later: &[Data],
        made_anew: &mut HashMap<u32, u32>,
    ) -> Result<(), UndoError> {
        let spelled = match data {
            Data::Rows { table } | Data::Column { table, .. } => table,
            Data::Sequence { sequence } => sequence,
        };
        let not_kept = || UndoError::NotUndoable(format!("`{spelled}` was not written down whole before it went"));
        let oid = self.oid(spelled).ok_or_else(not_kept)?;
        let listed = xids.iter().map(|xid| format!("'{xid}'")).collect::<Vec<_>>().join(",");
        let whole = format!("FROM {source} s WHERE s.xid IN ({listed}) AND s.relation = {oid} AND s.statement < 0");
        let noted = work.query_opt(&format!("SELECT s.new {whole} AND s.old IS NULL ORDER BY s.statement LIMIT 1"), &[]).await?;
        let noted: String = noted.ok_or_else(not_kept)?.get(0);
        match data {
            Data::Sequence { sequence } => {
                let (value, is_called) = noted.split_once(',').ok_or_else(not_kept)?;
                let text = "SELECT pg_catalog.setval($1::pg_catalog.text::pg_catalog.regclass, $2::pg_catalog.text::pg_catalog.int8, $3)";
                work.execute(text, &[sequence, &value, &(is_called == "t" || is_called == "true")]).await?;
            }
            Data::Rows { table } => {
                let now: Option<u32> = work.query_one("SELECT pg_catalog.to_regclass($1)::pg_catalog.oid", &[table]).await?.get(0);
                let made = Table::look(work, now.ok_or_else(not_kept)?).await?.ok_or_else(not_kept)?;
                made_anew.insert(oid, made.oid);
                let columns: Vec<&str> = made.written().map(|column| column.name.as_str()).collect();
                let values: Vec<String> = columns.iter().map(|column| format!("(r.b).{column}")).collect();
                work.batch_execute(&format!(
                    "INSERT INTO {table} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM (SELECT s.old::{table} AS b {whole} AND s.old IS NOT NULL OFFSET 0) r",
                    columns.join(", "),
                    values.join(", ")
                ))
                .await?;
            }
            Data::Column { table, column, kind: _, key } => {
                // Rows are in the parts of a partitioned table, and were written down there.
                let leaves = "SELECT t.relid::pg_catalog.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) \
                    FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass($1)) t JOIN pg_catalog.pg_class c ON c.oid = t.relid \
                    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE t.isleaf AND c.relkind = 'r'";
                let mut parts: Vec<(u32, String)> =
                    work.query(leaves, &[table]).await?.iter().map(|row| (row.get(0), row.get(1))).collect();
                if parts.is_empty() {
                    parts.push((oid, table.clone())); // an ordinary table has no tree
                }
                let waits = later.iter().filter_map(|data| match data {
                    Data::Column { table: other, column, .. } if other == table => Some(column.as_str()),
                    _ => None,
                });
                let open: Vec<&str> = std::iter::once(column.as_str()).chain(waits).collect();
                for (part, name) in &parts {
                    let whole = format!("FROM {source} s WHERE s.xid IN ({listed}) AND s.relation = {part} AND s.statement < 0");
                    let noted =
                        work.query_opt(&format!("SELECT s.new {whole} AND s.old IS NULL ORDER BY s.statement LIMIT 1"), &[]).await?;
                    let not_kept = || UndoError::NotUndoable(format!("`{name}` was not written down whole before it changed"));
                    let noted: String = noted.ok_or_else(not_kept)?.get(0);
                    work.batch_execute(&format!(
                        "DROP TABLE IF EXISTS pg_temp.undo_shape; CREATE TEMPORARY TABLE undo_shape ({noted}) ON COMMIT DROP"
                    ))
                    .await?;
                    let whole = format!("(SELECT s.old::pg_temp.undo_shape AS b {whole} AND s.old IS NOT NULL OFFSET 0)");
                    if key.is_empty() {
                        fill_by_the_rest(work, name, column, &open, &whole).await?;
                        continue;
                    }
                    let same: Vec<String> = key.iter().map(|name| format!("t.{name} = (r.b).{name}")).collect();
                    let fill = format!("UPDATE {name} t SET {column} = (r.b).{column} FROM {whole} r WHERE {}", same.join(" AND "));
                    work.batch_execute(&fill).await?;
                }
            }
        }
        Ok(())
    }
}

/// Fills a column of a table whose rows nothing tells apart but what is in them: by all columns besides those that are still `open`.
/// Among rows that are the same in all of these it doesn't matter which gets which value. Every row that was kept has to be there still.
async fn fill_by_the_rest(work: &Transaction<'_>, table: &str, column: &str, open: &[&str], whole: &str) -> Result<(), UndoError> {
    let gone = || UndoError::NotUndoable(format!("`{table}` is not there any more"));
    let oid: Option<u32> = work.query_one("SELECT pg_catalog.to_regclass($1)::pg_catalog.oid", &[&table]).await?.get(0);
    let now = Table::look(work, oid.ok_or_else(gone)?).await?.ok_or_else(gone)?;
    let kept = "SELECT pg_catalog.quote_ident(a.attname) FROM pg_catalog.pg_attribute a WHERE a.attrelid = 'pg_temp.undo_shape'::pg_catalog.regclass AND a.attnum > 0";
    let kept: HashSet<String> = work.query(kept, &[]).await?.iter().map(|row| row.get(0)).collect();
    // Scripts quote every name, whether it has to be or not.
    let is_open = |name: &str| open.iter().any(|open| *open == name || *open == format!("\"{}\"", name.trim_matches('"')));
    let rest: Vec<&str> = now.written().map(|column| column.name.as_str()).filter(|name| kept.contains(*name) && !is_open(name)).collect();
    let same = |row: &str| {
        let columns: Vec<String> = rest.iter().map(|name| format!("{row}.{name}")).collect();
        format!("pg_catalog.textin(pg_catalog.record_out(ROW({})))", columns.join(", "))
    };
    let (is, was) = (same("t"), same("(r.b)"));
    // Until the end of this transaction no row comes or goes.
    work.batch_execute(&format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")).await?;
    let filled = work
        .execute(
            &format!(
                "UPDATE {table} t SET {column} = w.value \
                 FROM (SELECT t.tableoid AS part, t.ctid AS at, {is} AS rest, pg_catalog.row_number() OVER (PARTITION BY {is} ORDER BY t.tableoid, t.ctid) AS place FROM {table} t) i \
                 JOIN (SELECT (r.b).{column} AS value, {was} AS rest, pg_catalog.row_number() OVER (PARTITION BY {was}) AS place FROM {whole} r) w \
                 ON w.rest = i.rest AND w.place = i.place WHERE t.tableoid = i.part AND t.ctid = i.at"
            ),
            &[],
        )
        .await?;
    let rows: i64 = work.query_one(&format!("SELECT pg_catalog.count(*) FROM {whole} r"), &[]).await?.get(0);
    if i64::try_from(filled).ok() == Some(rows) {
        return Ok(());
    }
    let reason = format!(
        "rows of `{table}` were changed since, and without a primary key nothing tells which of them they were: {filled} of {rows} are still as they were"
    );
    Err(UndoError::NotUndoable(reason))
}

/// A name as `pg_dump` spells it where it has to.
fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '$');
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_dumps_of_the_same_definitions_are_equal() {
        let dump = |time: &str, token: &str| {
            format!(
                "--\n\\restrict {token}\n-- Started on {time}\n\nSET x;\n--\n-- TOC entry 1\n-- Name: f\n\n\
                 $$\n-- Started on Monday\n-- Completed on Monday\n$$;\n\n-- Completed on {time}\n\n--\n-- complete\n--\n\\unrestrict {token}\n"
            )
        };
        let same = without_times(&dump("Monday", "a"));
        assert_eq!(same, without_times(&dump("Tuesday", "b")));
        assert!(same.contains("$$\n-- Started on Monday\n-- Completed on Monday\n$$"), "{same}");
        assert!(same.ends_with("-- complete\n--\n"), "{same}");
        assert_eq!(without_times(""), "");
    }
}
