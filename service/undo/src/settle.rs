//! Settling: what became of changes whose outcome was lost, because the gateway or a connection ended between the COMMIT and its record.
//!
//! The journal has every row change of every committed transaction, with the server's process that made it, and the ledger knows
//! which process served which session. A session runs one change at a time, so a transaction of that process that no outcome speaks
//! of is the change whose outcome was lost. Found more than one, nothing is guessed: the change stays unknown. Where definitions changed,
//! the ledger has the transaction and what it was measured to reach, and the server knows whether it became final.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use reprieve_gate::{Audit, AuditError, Clock};
use reprieve_operation::{Event, IntentId, LostOutcome, OpenIntent, Outcome, Reach, SessionId, SystemName, TableReach, Timestamp, UndoId};
use tokio::sync::broadcast::error::RecvError;
use tokio_postgres::Client;

use crate::{
    History, Login, UndoError, changes,
    journal::{BACKENDS, is_set_up},
};

/// How soon a server that is away is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Events read at a time.
const PAGE: usize = 500;

/// Settles one system's changes.
pub struct Settler {
    system: SystemName,
    login: Login,
    audit: Arc<dyn Audit>,
    history: Arc<dyn History>,
    clock: Arc<dyn Clock>,
    /// How long a change can be undone.
    window: Duration,
}

impl Settler {
    /// A settler that has not looked yet.
    #[must_use]
    pub fn new(
        system: SystemName,
        login: Login,
        audit: Arc<dyn Audit>,
        history: Arc<dyn History>,
        clock: Arc<dyn Clock>,
        window: Duration,
    ) -> Self {
        Self { system, login, audit, history, clock, window }
    }

    /// Settles what is unknown at the start, and whatever becomes so later, for ever.
    pub async fn run(self: Arc<Self>) {
        let mut events = self.audit.follow();
        loop {
            while let Err(error) = self.settle().await {
                tracing::debug!(system = %self.system, %error, "what a lost outcome was can't be found out yet");
                tokio::time::sleep(RETRY).await;
            }
            loop {
                match events.recv().await {
                    Ok(recorded) if matches!(&recorded.event, Event::Concluded { outcome: Outcome::Unknown, .. }) => break,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return,
                }
            }
        }
    }

    /// Looks once. An error: it has to be tried again. Which outcomes were lost is in the ledger's state: where none was, as after most
    /// starts, no event is read.
    async fn settle(&self) -> Result<(), UndoError> {
        let now = self.clock.now();
        let is_ours = |lost: &LostOutcome| lost.intent.system == self.system && now.since(lost.at) < self.window;
        let lost: Vec<(IntentId, LostOutcome)> = {
            let state = self.audit.state();
            state.unsettled.iter().filter(|(_, lost)| is_ours(lost)).map(|(intent, lost)| (*intent, lost.clone())).collect()
        };
        if lost.is_empty() {
            return Ok(());
        }
        let client = self.login.connect().await?;
        let has_journal = is_set_up(&client).await?;
        let mut measured = self.read(Reading::measured).await?;
        let by_journal =
            |(intent, lost): &(IntentId, LostOutcome)| lost.intent.session.filter(|_| has_journal && !measured.contains_key(intent));
        let sessions: HashSet<SessionId> = lost.iter().filter_map(by_journal).collect();
        let served = self.read(move |reading| if sessions.is_empty() { Ok(Served::default()) } else { reading.served(sessions) }).await?;
        for (intent, LostOutcome { intent: OpenIntent { agent, session, .. }, .. }) in lost {
            let found = match (measured.remove(&intent), session.and_then(|session| served.alone(session))) {
                (Some((xid, reach)), _) => status(&client, xid, reach).await?,
                (None, Some((opened, process))) => self.find(&client, opened, process, &served.finals).await?,
                (None, None) => None,
            };
            let (xid, reach) = found.map_or((None, Reach::default()), |(xid, reach)| (Some(xid), reach));
            tracing::info!(system = %self.system, change = %UndoId::from(intent), ?xid, "an outcome that was lost is settled");
            match self.audit.append(Event::Settled { intent, agent, xid, reach }).await {
                // Another start was here before.
                Ok(_) | Err(AuditError::KeyTaken { .. }) => {}
                Err(error) => return Err(UndoError::Ledger(error.to_string())),
            }
        }
        Ok(())
    }

    /// Reads the ledger, which may take long, where that holds up nobody.
    async fn read<T: Send + 'static>(&self, read: impl FnOnce(&Reading) -> Result<T, UndoError> + Send + 'static) -> Result<T, UndoError> {
        let reading = Reading { history: self.history.clone(), system: self.system.clone(), now: self.clock.now(), window: self.window };
        tokio::task::spawn_blocking(move || read(&reading)).await.map_err(|error| UndoError::Ledger(error.to_string()))?
    }

    /// The transaction of a change and what it reached, if exactly one can be meant.
    async fn find(&self, client: &Client, opened: u64, backend: u32, finals: &[Final]) -> Result<Option<(u64, Reach)>, UndoError> {
        // Another session may be served by a process of that number: the old one runs until it has noticed that its client is gone.
        let running = "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.pid = $1 AND a.state <> 'idle' \
                       AND a.datname = pg_catalog.current_database())";
        let process = i32::try_from(backend).unwrap_or(0);
        if client.query_one(running, &[&process]).await?.get(0) {
            return Err(UndoError::NotUndoable("the process that served it still runs".to_owned()));
        }
        let known: HashSet<u64> = finals.iter().map(|other| other.xid).collect();
        // Numbers of transactions only grow: what was over before the session began is another process's of the same number.
        let before = finals.iter().filter(|other| other.index < opened).map(|other| other.xid).max().unwrap_or(0);
        // Relations that were written down whole were dropped or rewritten: rows alone would not bring them back. Positions of sequences that
        // are still there come with rows that a TRUNCATE took.
        let question = format!(
            "SELECT j.xid::pg_catalog.text, \
              COALESCE(pg_catalog.concat(n.nspname, '.', c.relname), j.relation::pg_catalog.text), \
              pg_catalog.count(*) FILTER (WHERE j.old IS NULL), pg_catalog.count(*) FILTER (WHERE j.old IS NOT NULL AND j.new IS NOT NULL), \
              pg_catalog.count(*) FILTER (WHERE j.new IS NULL) \
             FROM reprieve.journal j LEFT JOIN pg_catalog.pg_class c ON c.oid = j.relation LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE j.xid > '{before}'::pg_catalog.xid8 AND j.statement > 0 AND j.statement % {BACKENDS} = {backend} \
              AND NOT EXISTS (SELECT FROM reprieve.journal w LEFT JOIN pg_catalog.pg_class k ON k.oid = w.relation \
               WHERE w.xid = j.xid AND w.statement < 0 AND k.relkind IS DISTINCT FROM 'S') GROUP BY 1, 2"
        );
        let mut found: BTreeMap<u64, Reach> = BTreeMap::new();
        for row in client.query(&question, &[]).await? {
            let xid: u64 = row.get::<_, String>(0).parse().map_err(|_| UndoError::Images("a transaction without a number".to_owned()))?;
            if known.contains(&xid) {
                continue;
            }
            let count = |index: usize| u64::try_from(row.get::<_, i64>(index)).unwrap_or(0);
            let rows = TableReach { inserted: count(2), updated: count(3), deleted: count(4) };
            found.entry(xid).or_default().tables.insert(row.get(1), rows);
        }
        Ok(if found.len() == 1 { found.pop_first() } else { None })
    }
}

/// What the ledger is asked, page by page.
struct Reading {
    history: Arc<dyn History>,
    system: SystemName,
    now: Timestamp,
    window: Duration,
}

/// A transaction that an outcome speaks of, and where the ledger has it.
struct Final {
    index: u64,
    xid: u64,
}

/// Who served sessions whose last outcome was lost, and what became final besides.
#[derive(Default)]
struct Served {
    /// Where a session was opened, and the server's process.
    by: HashMap<SessionId, (u64, u32)>,
    finals: Vec<Final>,
}

impl Served {
    /// The process of a session, where no other lost outcome can be one of that process.
    fn alone(&self, session: SessionId) -> Option<(u64, u32)> {
        let (opened, process) = self.by.get(&session)?;
        (self.by.values().filter(|(_, other)| other == process).count() == 1).then_some((*opened, *process))
    }
}

impl Reading {
    /// What changes were measured to reach before they were final, where that was recorded.
    fn measured(&self) -> Result<HashMap<IntentId, (u64, Reach)>, UndoError> {
        let mut found = HashMap::new();
        let mut before = u64::MAX;
        loop {
            let page = self.history.of_kind("measured", before, PAGE).map_err(UndoError::Ledger)?;
            let Some(last) = page.last() else { return Ok(found) };
            before = if self.now.since(last.at) > self.window.saturating_mul(2) { 0 } else { last.index };
            for recorded in page {
                if let Event::Measured { intent, xid, reach, agent: _ } = recorded.event {
                    found.entry(intent).or_insert((xid, reach));
                }
            }
        }
    }

    fn served(&self, mut sessions: HashSet<SessionId>) -> Result<Served, UndoError> {
        let mut found = Served::default();
        let mut before = u64::MAX;
        while !sessions.is_empty() {
            let page = self.history.of_kind("session_opened", before, PAGE).map_err(UndoError::Ledger)?;
            let Some(last) = page.last() else { break };
            before = last.index;
            for recorded in &page {
                if let Event::SessionOpened { session, backend, .. } = &recorded.event
                    && sessions.remove(session)
                {
                    found.by.extend(backend.map(|backend| (*session, (recorded.index, backend))));
                }
            }
        }
        let finals = &mut found.finals;
        // Every change within the window, of which only the numbers are kept.
        changes(self.history.as_ref(), self.now, self.window, 1, |change| {
            if let Some(xid) = change.xid.filter(|_| change.system == self.system) {
                finals.push(Final { index: change.index, xid });
            }
            false
        })?;
        Ok(found)
    }
}

/// What became of a transaction that was measured: all of it, or nothing. `None`: the server doesn't know it any more.
async fn status(client: &Client, xid: u64, reach: Reach) -> Result<Option<(u64, Reach)>, UndoError> {
    let asked = client.query_one(&format!("SELECT pg_catalog.pg_xact_status('{xid}'::pg_catalog.xid8)"), &[]).await;
    match asked {
        Ok(row) => match row.get::<_, Option<&str>>(0) {
            Some("committed") => Ok(Some((xid, reach))),
            Some("aborted") => Ok(Some((xid, Reach::default()))),
            Some(_) => Err(UndoError::NotUndoable("its transaction is still open".to_owned())),
            None => Ok(None),
        },
        // A number that this server has not given out yet: it is not the one that it was.
        Err(error) if error.as_db_error().is_some() => Ok(None),
        Err(error) => Err(error.into()),
    }
}
