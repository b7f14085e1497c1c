//! Carrying out an operator's request: recorded, measured, undoable itself.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use reprieve_gate::{CallFailure, DeskAnswer, DeskError, Gate, Revert, TakeBack, UndoRequest};
use reprieve_operation::{Event, IntentId, OperatorName, Outcome, Reach, Refusal, SystemName, TableReach, Timestamp, UndoId};
use serde_json::{Value, json};
use tokio_postgres::IsolationLevel;

use crate::{
    Images, UndoError, calls,
    change::{Change, History, Standing, changes},
    connect::Login,
    definitions::{self, DefinitionsLog, Way},
    rows::{Report, SETTINGS, Taken, Wish, put_positions_back, put_rows_back},
};

/// Changes in one request.
const MOST_CHANGES: usize = 1_000;

/// What undo has to be told.
pub struct UndoOptions {
    /// The administrator's login of each system.
    pub logins: BTreeMap<SystemName, Login>,
    /// The rows and definitions that are kept.
    pub images: Images,
    /// What keeps the definitions of each system.
    pub definitions: BTreeMap<SystemName, Arc<DefinitionsLog>>,
    /// What takes calls to services back, where there are services.
    pub calls: Option<Arc<dyn TakeBack>>,
    /// How long a change can be undone.
    pub window: Duration,
}

/// Takes changes back.
pub struct Undo {
    gate: Arc<Gate>,
    history: Arc<dyn History>,
    options: UndoOptions,
    /// Calls are taken back one after another, so that none is taken back twice.
    one_at_a_time: tokio::sync::Mutex<()>,
}

/// Where changes are taken back.
#[derive(Clone, Copy)]
pub enum Ground<'a> {
    /// In a database.
    Database {
        /// The administrator's login of the system.
        login: &'a Login,
        /// The rows and definitions that are kept.
        images: &'a Images,
    },
    /// In a service.
    Service {
        /// What takes calls back.
        calls: &'a dyn TakeBack,
        /// What is kept of calls.
        images: &'a Images,
    },
}

/// What taking `changes` back, newest first, would do. Nothing stays of it.
pub async fn preview(ground: Ground<'_>, changes: &[Change], wish: Wish<'_>) -> Result<Report, UndoError> {
    let (login, images) = match ground {
        Ground::Service { calls: takes, images } => {
            names_no_rows(wish)?;
            return calls::preview(takes, images, changes, wish.choice).await;
        }
        Ground::Database { login, images } => (login, images),
    };
    let way = definitions::plan(login, images, None, changes).await?;
    let mut client = login.connect().await?;
    let work = begin(&mut client).await?;
    let report = take_back(&work, images, way.as_ref(), changes, wish).await;
    work.rollback().await?;
    report
}

/// One row's change, as PostgreSQL spells rows.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RowChange {
    /// `schema.table`.
    pub table: String,
    /// `None`: it was added.
    pub before: Option<String>,
    /// `None`: it was removed.
    pub after: Option<String>,
}

/// The first `limit` row changes of a change, as they were made.
pub async fn row_changes(ground: Ground<'_>, change: &Change, limit: u32) -> Result<Vec<RowChange>, UndoError> {
    let (login, images) = match ground {
        Ground::Service { .. } if change.kept.is_none() => return Ok(Vec::new()),
        Ground::Service { calls: takes, images } => {
            let kept = calls::fetch(images, std::slice::from_ref(change)).await?;
            let (before, after) = takes.states(&kept).map_err(calls::refused)?;
            let table = change.reach.tables.keys().chain(&change.reach.dropped).next().cloned().unwrap_or_default();
            return Ok(vec![RowChange { table, before, after }]);
        }
        Ground::Database { login, images } => (login, images),
    };
    let Some(xid) = change.xid else { return Ok(Vec::new()) };
    let mut client = login.connect().await?;
    let work = client.transaction().await?;
    let source = images.gather(&work, &change.system, &[xid]).await?;
    let text = format!(
        "SELECT pg_catalog.concat(n.nspname, '.', c.relname), j.old, j.new FROM {source} j \
        LEFT JOIN pg_catalog.pg_class c ON c.oid = j.relation LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
        WHERE j.xid = ($1::pg_catalog.text)::pg_catalog.xid8 ORDER BY j.statement LIMIT $2"
    );
    let rows = work.query(&text, &[&xid.to_string(), &i64::from(limit)]).await?;
    Ok(rows.iter().map(|row| RowChange { table: row.get(0), before: row.get(1), after: row.get(2) }).collect())
}

/// A transaction whose checks see what others did meanwhile, whatever the database's default is.
async fn begin(client: &mut tokio_postgres::Client) -> Result<tokio_postgres::Transaction<'_>, tokio_postgres::Error> {
    client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).read_only(false).start().await
}

async fn take_back(
    work: &tokio_postgres::Transaction<'_>,
    images: &Images,
    way: Option<&Way>,
    changes: &[Change],
    wish: Wish<'_>,
) -> Result<Report, UndoError> {
    let taken = changes.iter().map(|change| {
        let xid = change.xid.ok_or_else(|| UndoError::NotUndoable(format!("{} has no transaction", change.undo)))?;
        Ok(Taken { xid, rows: Some(change.reach.rows()), emptied: !change.reach.rewritten.is_empty() || !change.reach.dropped.is_empty() })
    });
    let taken = taken.collect::<Result<Vec<_>, UndoError>>()?;
    let xids: Vec<u64> = taken.iter().map(|taken| taken.xid).collect();
    let Some(newest) = changes.first() else { return Ok(Report::default()) };
    let source = images.gather(work, &newest.system, &xids).await?;
    let report = match way {
        None => put_rows_back(work, &source, &taken, wish, None).await?,
        Some(way) => {
            work.batch_execute(SETTINGS).await?;
            let listed: Vec<String> = xids.iter().map(u64::to_string).collect();
            let made = way.go(work, &source, &listed).await?;
            // Rows of tables that came with the definitions go with them.
            let rest: Vec<Taken> = taken.iter().map(|taken| Taken { rows: None, ..*taken }).collect();
            let mut report = put_rows_back(work, &source, &rest, wish, Some(&made)).await?;
            report.definitions = way.script.statements.iter().map(|step| step.sql.clone()).collect();
            report
        }
    };
    put_positions_back(work, &source, &xids).await?;
    images.still_there(work, &source, &xids).await?;
    Ok(report)
}

/// What an undo reached: the way back seen from the other side.
fn reach(report: &Report) -> Reach {
    let tables = report
        .tables
        .iter()
        .map(|(name, table)| (name.clone(), TableReach { inserted: table.restored, updated: table.reverted, deleted: table.removed }));
    let definitions = report.definitions.len() as u64;
    let catalogs = (definitions > 0).then(|| ("definitions".to_owned(), definitions)).into_iter().collect();
    Reach { tables: tables.filter(|(_, rows)| rows.rows() > 0).collect(), catalogs, ..Reach::default() }
}

impl Undo {
    /// Undo over a gate's ledger.
    #[must_use]
    pub fn new(gate: Arc<Gate>, history: Arc<dyn History>, options: UndoOptions) -> Self {
        Self { gate, history, options, one_at_a_time: tokio::sync::Mutex::new(()) }
    }

    fn find(&self, ids: &[UndoId], now: Timestamp) -> Result<Vec<Change>, UndoError> {
        if ids.is_empty() || ids.len() > MOST_CHANGES {
            return Err(UndoError::NotUndoable(format!("1 to {MOST_CHANGES} changes can be undone at a time")));
        }
        let found = changes(self.history.as_ref(), now, self.options.window, ids.len(), |change| ids.contains(&change.undo))?;
        if let Some(missing) = ids.iter().find(|id| !found.iter().any(|change| change.undo == **id)) {
            return Err(UndoError::NotUndoable(format!(
                "{missing} is not a change of the last {} hours",
                self.options.window.as_secs() / 3600
            )));
        }
        for change in &found {
            let reason = match &change.standing {
                Standing::Undoable => continue,
                Standing::Undone { by } => format!("{} was undone already, by {by}", change.undo),
                Standing::Expired => format!("the window of {} is over", change.undo),
                Standing::Lasting { because } => format!("{} can't be undone: {}", change.undo, because.join("; ")),
                Standing::Unknown => format!("whether {} took place is not known", change.undo),
            };
            return Err(UndoError::NotUndoable(reason));
        }
        match found.iter().find(|change| change.system != found[0].system) {
            Some(other) => Err(UndoError::NotUndoable(format!("{} is of another system than {}", other.undo, found[0].undo))),
            None => Ok(found),
        }
    }

    async fn carry_out(&self, request: UndoRequest, by: OperatorName, reason: String) -> Result<Value, DeskError> {
        let find = || self.find(&request.changes, self.gate.now()).map_err(|error| DeskError::Invalid(error.to_string()));
        let mut found = find()?;
        let images = &self.options.images;
        let of_services = self.options.calls.as_deref().filter(|calls| calls.serves(&found[0].system));
        let _one_at_a_time = match of_services {
            Some(_) => Some(self.one_at_a_time.lock().await),
            None => None,
        };
        if of_services.is_some() {
            found = find()?; // somebody may have taken it back meanwhile
        }
        let newest = &found[0];
        let ground = match (self.options.logins.get(&newest.system), of_services) {
            (Some(login), _) => Ground::Database { login, images },
            (None, Some(calls)) => Ground::Service { calls, images },
            (None, None) => return Err(DeskError::Invalid(format!("no way into `{}` is known for undo", newest.system))),
        };
        let intent = self.gate.number_intent();
        let agent = newest.agent.clone();
        let started = Event::UndoStarted {
            intent,
            reverts: found.iter().map(|change| change.undo).collect(),
            agent: agent.clone(),
            system: newest.system.clone(),
            environment: newest.environment.clone(),
            operator: by,
            choice: in_words(&request),
            reason,
        };
        let unavailable = |error: reprieve_gate::AuditError| DeskError::Unavailable(error.to_string());
        self.gate.audit().append(started).await.map_err(unavailable)?;
        let wish = Wish { choice: request.choice, keep: &request.keep };
        let log = self.options.definitions.get(&newest.system).map(AsRef::as_ref);
        let ran = match ground {
            Ground::Database { login, images } => run(login, images, log, &found, wish).await.map(|report| (reach(&report), report)),
            Ground::Service { calls, images } => call_back(calls, images, &found, wish, intent).await,
        };
        let (outcome, answer) = match ran {
            Ok((reach, report)) => {
                let outcome = Outcome::Done { tag: "UNDO".to_owned(), reach, xid: report.xid };
                (outcome, Ok(json!({ "undo": UndoId::from(intent), "report": report })))
            }
            Err(Failed::Before(error)) => {
                let refusal = Refusal::refused("undo", error.to_string(), "look at `reprieve undo show`");
                let conflicts = if let UndoError::Conflicts(report) = &error { report.conflicts.len() } else { 0 };
                tracing::info!(%intent, conflicts, "an undo was not carried out");
                (Outcome::Refused { refusal }, Err(DeskError::Invalid(error.to_string())))
            }
            Err(Failed::AtCommit(error)) => {
                let reason = format!("whether it was undone is not known: {error}; look at `reprieve undo show`");
                (Outcome::Unknown, Err(DeskError::Unavailable(reason)))
            }
        };
        let concluded = Event::Concluded { intent, agent, outcome, statements: Vec::new() };
        self.gate.audit().append(concluded).await.map_err(unavailable)?;
        if let Some(definitions) = log.filter(|_| found.iter().any(definitions::defines)) {
            // So that it can be undone at once.
            drop(definitions.ready().await);
        }
        answer
    }
}

/// A call has no rows that could be chosen.
fn names_no_rows(wish: Wish<'_>) -> Result<(), UndoError> {
    match wish.keep.first() {
        None => Ok(()),
        Some(name) => Err(UndoError::NotUndoable(format!("`{name}` can't be kept: a call to a service is taken back as a whole"))),
    }
}

/// Takes a call back, under an intent that is on record.
async fn call_back(
    takes: &dyn TakeBack,
    images: &Images,
    found: &[Change],
    wish: Wish<'_>,
    intent: IntentId,
) -> Result<(Reach, Report), Failed> {
    names_no_rows(wish).map_err(Failed::Before)?;
    let kept = calls::fetch(images, found).await.map_err(Failed::Before)?;
    match takes.take_back(&kept, wish.choice, intent, found[0].agent.clone()).await {
        Ok(done) => {
            let report = calls::in_rows(&done);
            Ok((Reach { lasting: done.lasting, ..reach(&report) }, report))
        }
        Err(CallFailure::Unknown(why)) => Err(Failed::AtCommit(UndoError::NotUndoable(why))),
        Err(failure) => Err(Failed::Before(calls::refused(failure))),
    }
}

async fn run(login: &Login, images: &Images, log: Option<&DefinitionsLog>, found: &[Change], wish: Wish<'_>) -> Result<Report, Failed> {
    let way = definitions::plan(login, images, log, found).await.map_err(Failed::Before)?;
    let mut client = login.connect().await.map_err(Failed::Before)?;
    let before = |error: tokio_postgres::Error| Failed::Before(error.into());
    let work = begin(&mut client).await.map_err(before)?;
    let report = take_back(&work, images, way.as_ref(), found, wish).await.map_err(Failed::Before)?;
    work.commit().await.map_err(|error| {
        // Deferred constraints fail at COMMIT, and nothing is changed then.
        if error.as_db_error().is_some() { Failed::Before(error.into()) } else { Failed::AtCommit(error.into()) }
    })?;
    Ok(report)
}

/// What was chosen, for the record.
fn in_words(request: &UndoRequest) -> String {
    let kept: Vec<String> = request.keep.iter().map(|row| format!("keep {row}")).collect();
    std::iter::once(request.choice.as_str().to_owned()).chain(kept).collect::<Vec<_>>().join(", ")
}

enum Failed {
    Before(UndoError),
    AtCommit(UndoError),
}

impl Revert for Undo {
    fn revert(&self, request: UndoRequest, by: OperatorName, reason: String) -> DeskAnswer<'_> {
        Box::pin(self.carry_out(request, by, reason))
    }
}
