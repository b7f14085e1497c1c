//! `reprieve undo`: what agents changed, and the way back.

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use reprieve_audit::{SystemClock, decode};
use reprieve_gate::{Clock as _, Command, TakeBack, UndoChoice, UndoRequest};
use reprieve_operation::{Event, Recorded, UndoId};
use reprieve_store::{Query, Reader, SqliteStore};
use reprieve_undo::{
    Change, Conflict, Ground, History, Images, Login, Report, RowChange, Standing, UndoError, Wish, changes, preview, row_changes,
};
use serde_json::{Value, json};

use crate::{
    args::{Cli, Undo, Which},
    keys::Keys,
    operator::send,
    people::time,
    settings::{Settings, SystemKind, parse_duration},
    wire,
};

/// Changes that one request takes back at most.
const MOST: usize = 1_000;

/// Rows of a change above which `list` doesn't look for conflicts; `show` always does.
const LOOKED_AT: u64 = 1_000;

/// How long to wait for outcomes that are being recorded, and how many events they can be among.
const OUTCOMES_WITHIN: Duration = Duration::from_secs(1);
const LATEST: usize = 200;

/// Nothing is overwritten, and nothing named.
const STOP: Wish<'_> = Wish { choice: UndoChoice::Stop, keep: &[] };

/// Rows that `show --diff` prints.
const SHOWN_ROWS: u32 = 200;

/// The ledger file, read backwards.
pub(crate) struct LedgerHistory(Mutex<Box<dyn Reader>>);

impl LedgerHistory {
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let reader = SqliteStore::open_to_read(path).with_context(|| format!("cannot read the ledger in {}", path.display()))?;
        Ok(Self(Mutex::new(reader)))
    }
}

impl History for LedgerHistory {
    fn before(&self, before: u64, limit: usize) -> Result<Vec<Recorded>, String> {
        let reader = self.0.lock().map_err(|_| "its reader has failed".to_owned())?;
        let said = |error: reprieve_store::StoreError| error.to_string();
        let end = before.min(reader.head().map_err(said)?.map_or(0, |head| head.size));
        let from = end.saturating_sub(limit as u64);
        let rows = reader.rows(from, usize::try_from(end - from).unwrap_or(limit)).map_err(said)?;
        rows.iter().rev().map(|row| decode(&row.body).map_err(|error| error.to_string())).collect()
    }

    fn of_kind(&self, kind: &str, before: u64, limit: usize) -> Result<Vec<Recorded>, String> {
        let reader = self.0.lock().map_err(|_| "its reader has failed".to_owned())?;
        // The store counts in 63 bits.
        let before = Some(before).filter(|before| i64::try_from(*before).is_ok());
        let query = Query { kind: Some(kind.to_owned()), before, limit, ..Query::default() };
        let rows = reader.search(&query).map_err(|error| error.to_string())?;
        rows.iter().map(|row| decode(&row.body).map_err(|error| error.to_string())).collect()
    }
}

pub(crate) fn undo(cli: &Cli, settings: &Settings, command: &Undo) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match command {
        Undo::List { which, limit } => runtime.block_on(list(cli, settings, which, *limit)),
        Undo::Show { id, diff } => runtime.block_on(show(cli, settings, *id, *diff)),
        Undo::Apply { ids, which, dry_run, theirs, ours, keep, reason, by } => {
            let found = if ids.is_empty() { select(settings, which)? } else { find(settings, ids)? };
            let choice = match (theirs, ours) {
                (true, _) => UndoChoice::Theirs,
                (_, true) => UndoChoice::Ours,
                _ => UndoChoice::Stop,
            };
            if *dry_run {
                let way = Way::of(settings, &found[0])?;
                let report = runtime.block_on(preview(way.ground(), &found, Wish { choice, keep }));
                return say_preview(cli, &found, report);
            }
            let request = UndoRequest { changes: found.iter().map(|change| change.undo).collect(), choice, keep: keep.clone() };
            let answer = send(settings, by, &Command::Undo { request, reason: reason.clone() })?;
            if cli.json {
                tell!("{answer}");
            } else {
                let report: Report = serde_json::from_value(answer["report"].clone()).context("the answer was not understood")?;
                tell!("Undone: {}", in_words(&report));
                tell!(
                    "This is {} and can be undone itself.",
                    answer["undo"].as_u64().map(UndoId).map_or_else(String::new, |id| id.to_string())
                );
            }
            Ok(0)
        }
    }
}

pub(crate) fn history(settings: &Settings) -> anyhow::Result<LedgerHistory> {
    LedgerHistory::open(&settings.ledger_file()?)
}

fn search(settings: &Settings, limit: usize, wanted: impl FnMut(&Change) -> bool) -> anyhow::Result<Vec<Change>> {
    let history = history(settings)?;
    wait_for_outcomes(&history)?;
    Ok(changes(&history, SystemClock.now(), settings.undo.window, limit, wanted)?)
}

/// Whoever asks right after a change means that one too: a client may have its answer a moment before the ledger has the outcome.
fn wait_for_outcomes(history: &LedgerHistory) -> anyhow::Result<()> {
    let until = Instant::now() + OUTCOMES_WITHIN;
    loop {
        let newest = history.before(u64::MAX, LATEST).map_err(anyhow::Error::msg)?;
        let now = SystemClock.now();
        let mut settled = HashSet::new();
        let is_open = newest.iter().any(|recorded| match &recorded.event {
            Event::Concluded { intent, .. } | Event::HoldOpened { intent, .. } => {
                settled.insert(*intent);
                false
            }
            Event::Intent { intent, .. } | Event::UndoStarted { intent, .. } => {
                !settled.contains(intent) && now.since(recorded.at) < OUTCOMES_WITHIN
            }
            _ => false,
        });
        // What takes longer runs still.
        if !is_open || Instant::now() > until {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn matching(which: &Which) -> anyhow::Result<impl Fn(&Change) -> bool + use<>> {
    let which = which.clone();
    let since = which.since.as_deref().map(parse_duration).transpose().map_err(anyhow::Error::msg)?;
    let now = SystemClock.now();
    Ok(move |change: &Change| {
        which.agent.as_ref().is_none_or(|agent| change.agent == *agent)
            && which.session.is_none_or(|session| change.session == Some(session))
            && which.system.as_ref().is_none_or(|system| change.system == *system)
            && since.is_none_or(|since: Duration| now.since(change.at) <= since)
    })
}

/// Everything undoable of a session, or of an agent since a time, as one plan.
fn select(settings: &Settings, which: &Which) -> anyhow::Result<Vec<Change>> {
    if which.session.is_none() && which.since.is_none() {
        bail!("say what to undo: changes such as U-17, --session S-4, or --since 2h, the last two with --agent or --system if you like");
    }
    let matches = matching(which)?;
    let found = search(settings, MOST + 1, |change| change.operator.is_none() && change.standing == Standing::Undoable && matches(change))?;
    match found.len() {
        0 => bail!("nothing that can be undone matches; see `reprieve undo list`"),
        1..=MOST => Ok(found),
        _ => bail!("more than {MOST} changes match; narrow it with --since or --session"),
    }
}

pub(crate) fn find(settings: &Settings, ids: &[UndoId]) -> anyhow::Result<Vec<Change>> {
    let found = search(settings, ids.len(), |change| ids.contains(&change.undo))?;
    match ids.iter().find(|id| !found.iter().any(|change| change.undo == **id)) {
        Some(missing) => bail!("{missing} is not a change that can be undone; see `reprieve undo list`"),
        None if ids.is_empty() => bail!("say which change, such as U-17"),
        None => Ok(found),
    }
}

/// The way into a changed system.
enum Way {
    Database(Login, Images),
    Service(Arc<dyn TakeBack>, Images),
}

impl Way {
    fn of(settings: &Settings, change: &Change) -> anyhow::Result<Self> {
        let (system, keys) = (settings.system(change.system.as_str())?, Keys::of(settings));
        Ok(match system.kind {
            SystemKind::Postgres => Self::Database(wire::login(system, &keys)?, images(settings)?),
            SystemKind::Files | SystemKind::Sqlite => bail!("`{}` is only copied: nothing in it is undone", system.name),
            SystemKind::Http => {
                let services = crate::services::services(settings, &keys)?.context("no system is a service")?;
                // Only the gateway itself takes calls back; here they are looked at.
                Self::Service(services.returns(None), images(settings)?)
            }
        })
    }

    fn ground(&self) -> Ground<'_> {
        match self {
            Self::Database(login, images) => Ground::Database { login, images },
            Self::Service(calls, images) => Ground::Service { calls: calls.as_ref(), images },
        }
    }
}

pub(crate) fn images(settings: &Settings) -> anyhow::Result<Images> {
    Ok(Images::new(Arc::new(wire::vault(settings, &Keys::of(settings))?), Arc::new(history(settings)?)))
}

async fn list(cli: &Cli, settings: &Settings, which: &Which, limit: usize) -> anyhow::Result<u8> {
    let found = search(settings, limit, matching(which)?)?;
    let mut listed = Vec::new();
    for change in &found {
        let conflicts = if change.standing == Standing::Undoable && change.reach.rows() <= LOOKED_AT {
            let way = Way::of(settings, change)?;
            Some(match preview(way.ground(), std::slice::from_ref(change), STOP).await {
                Ok(_) => "none".to_owned(),
                Err(UndoError::Conflicts(report)) => format!("{} rows were changed since", report.conflicts_found),
                Err(error) => error.to_string(),
            })
        } else {
            None
        };
        listed.push((change, conflicts));
    }
    if cli.json {
        let values: Vec<Value> = listed
            .iter()
            .map(|(change, conflicts)| {
                let mut value = json!(change);
                value["id"] = json!(change.undo.to_string());
                value["conflicts"] = json!(conflicts);
                value
            })
            .collect();
        tell!("{}", json!({ "changes": values }));
        return Ok(0);
    }
    let now = SystemClock.now();
    for (change, conflicts) in listed {
        let who = change.operator.as_ref().map_or_else(|| change.agent.to_string(), |operator| format!("{operator} (operator)"));
        tell!("{:<8} {}  {}  {}  {}", change.undo.to_string(), time(change.at), who, change.system, standing(change, now));
        tell!("         {}", change.text.lines().next().unwrap_or_default());
        tell!("         {}", change.reach);
        match conflicts.as_deref() {
            Some("none") | None => {}
            Some(conflicts) => tell!("         in the way: {conflicts}"),
        }
    }
    Ok(0)
}

fn standing(change: &Change, now: reprieve_operation::Timestamp) -> String {
    match &change.standing {
        Standing::Undoable => format!("undoable for {} h", change.expires.since(now).as_secs().div_ceil(3600)),
        Standing::Undone { by } => format!("undone by {by}"),
        Standing::Expired => "its window is over".to_owned(),
        Standing::Lasting { because } => format!("can't be undone: {}", because.join("; ")),
        Standing::Unknown => "whether it took place is not known".to_owned(),
    }
}

async fn show(cli: &Cli, settings: &Settings, id: UndoId, diff: bool) -> anyhow::Result<u8> {
    let found = find(settings, &[id])?;
    let way = Way::of(settings, &found[0])?;
    let ground = way.ground();
    let rows = if diff { row_changes(ground, &found[0], SHOWN_ROWS).await? } else { Vec::new() };
    let report = match found[0].standing {
        Standing::Undoable => Some(preview(ground, &found, STOP).await),
        _ => None,
    };
    if cli.json {
        let mut value = json!(found[0]);
        value["id"] = json!(id.to_string());
        let in_the_way =
            |row: &RowChange| conflicts(&report).iter().find(|conflict| is_about(conflict, row)).map(|conflict| json!(conflict));
        let marked = |row: &RowChange| {
            let mut value = json!(row);
            if let Some(conflict) = in_the_way(row) {
                value["conflict"] = conflict;
            }
            value
        };
        value["rows"] = rows.iter().map(marked).collect();
        value["plan"] = report.map_or(Value::Null, |report| plan(&report));
        tell!("{value}");
        return Ok(0);
    }
    let change = &found[0];
    tell!("{id}  {}  {}  {} ({})", time(change.at), change.agent, change.system, change.environment);
    tell!("{}", change.text);
    tell!("It {}.", change.reach);
    tell!("It is {}.", standing(change, SystemClock.now()));
    for row in rows {
        tell!("  {}", row.table);
        row.before.iter().for_each(|image| tell!("    - {image}"));
        row.after.iter().for_each(|image| tell!("    + {image}"));
        if let Some(conflict) = conflicts(&report).iter().find(|conflict| is_about(conflict, &row)) {
            tell!("    ! changed since; now {}{}", conflict.now.as_deref().unwrap_or("(no row)"), how_to_keep(conflict));
        }
    }
    match report {
        None => Ok(0),
        Some(report) => say_preview(cli, &found, report),
    }
}

/// The rows in the way.
fn conflicts(report: &Option<Result<Report, UndoError>>) -> &[Conflict] {
    match report {
        Some(Err(UndoError::Conflicts(report))) => &report.conflicts,
        _ => &[],
    }
}

/// Whether a row that the change touched is the one in the way.
fn is_about(conflict: &Conflict, row: &RowChange) -> bool {
    conflict.table == row.table && conflict.wanted == row.before && conflict.left == row.after
}

/// How this row alone can be left as it is.
fn how_to_keep(conflict: &Conflict) -> String {
    conflict.key.as_ref().map_or_else(String::new, |key| format!("  (--keep '{}:{key}')", conflict.table))
}

fn plan(report: &Result<Report, UndoError>) -> Value {
    match report {
        Ok(report) => json!({ "possible": true, "report": report }),
        Err(UndoError::Conflicts(report)) => json!({ "possible": false, "because": "rows were changed since", "report": report }),
        Err(error) => json!({ "possible": false, "because": error.to_string() }),
    }
}

fn say_preview(cli: &Cli, found: &[Change], report: Result<Report, UndoError>) -> anyhow::Result<u8> {
    if cli.json {
        tell!("{}", plan(&report));
        return Ok(u8::from(report.is_err()));
    }
    match report {
        Ok(report) => {
            tell!(
                "Undoing {} would: {}",
                if found.len() == 1 { "it".to_owned() } else { format!("{} changes", found.len()) },
                in_words(&report)
            );
            Ok(0)
        }
        Err(UndoError::Conflicts(report)) => {
            tell!("In the way: {} rows were changed since by somebody else.", report.conflicts_found);
            for conflict in report.conflicts.iter().take(20) {
                tell!("  {} {:?}", conflict.table, conflict.kind);
                tell!("    now     {}", conflict.now.as_deref().unwrap_or("(no row)"));
                tell!("    wanted  {}{}", conflict.wanted.as_deref().unwrap_or("(no row)"), how_to_keep(conflict));
            }
            tell!("`--theirs` leaves them as they are and undoes the rest; `--ours` overwrites them, but for those that `--keep` names.");
            Ok(1)
        }
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn in_words(report: &Report) -> String {
    let tables: Vec<String> = report
        .tables
        .iter()
        .map(|(name, table)| {
            let counts = [
                ("restored", table.restored),
                ("changed back", table.reverted),
                ("taken out", table.removed),
                ("already as before", table.already),
                ("kept as they are now", table.kept),
            ];
            let counts: Vec<String> = counts.iter().filter(|(_, rows)| *rows > 0).map(|(what, rows)| format!("{rows} {what}")).collect();
            format!("{name}: {}", if counts.is_empty() { "nothing to do".to_owned() } else { counts.join(", ") })
        })
        .collect();
    if tables.is_empty() { "nothing".to_owned() } else { tables.join("; ") }
}
