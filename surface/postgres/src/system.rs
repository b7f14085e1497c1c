//! A protected database as the surface knows it: where it is, what environment it is in, and what its catalogue said last.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use reprieve_effects_sql::{CATALOG_QUERY, Catalog};
use reprieve_gate::{Coverage, Sampling, Strict};
use reprieve_operation::{Environment, Refusal, SystemName};
use reprieve_pgwire::Limits;
use tokio::sync::Notify;

use crate::{
    bounds::Bounds,
    connect::{ConnectError, connect},
    duplex::{Duplex, Stream},
    guard::{CATALOGS, Guard, LOUD, RELATIONS, Snapshot, TRIGGERS},
    guard_function::{GUARD_FUNCTION, GuardFunction},
    target::Target,
    wire::{Captured, Gone, Wire},
};

/// How often the catalogue is looked at for changes made by others.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// How long a statement waits for the catalogue to be read: a busy server with thousands of tables takes seconds.
const FRESH_WITHIN: Duration = Duration::from_secs(20);

/// A view that was not confirmed for longer can't be leaned on.
const LOOKED_LATELY: Duration = Duration::from_secs(10);

/// What the catalogue said, at one time.
pub(crate) struct View {
    pub(crate) version: u64,
    pub(crate) catalog: Catalog,
    pub(crate) snapshot: Snapshot,
}

/// A protected database.
pub struct System {
    /// Its name.
    pub name: SystemName,
    /// Its environment.
    pub environment: Environment,
    /// Where it is, and the login for it.
    pub target: Target,
    /// Rows up to which something wholesale is run to be measured exactly; above it the estimate is what people see.
    pub measure_limit: u64,
    /// From which tables there is a way back; none without it.
    coverage: Option<Arc<dyn Coverage>>,
    view: ArcSwapOption<View>,
    /// Counts up with every definition change: a view that was read before it can't be leaned on.
    wanted: AtomicU64,
    /// When the catalogue was last found unchanged, in milliseconds after `started`.
    looked: AtomicU64,
    started: Instant,
    read_again: Notify,
    read_done: Notify,
    /// A function call by oid ended the connection.
    calls_end: AtomicBool,
    /// How far its role was bounded when that was looked at last.
    bounds: ArcSwapOption<Bounds>,
    runs_unbounded: bool,
    /// Whether people who decide see a few rows, masked.
    pub(crate) shows_samples: bool,
}

/// Changes whenever something in these catalogs changes; cheap enough to be asked every second.
const SIGNATURE: &str = "SELECT pg_catalog.concat_ws(',', \
 (SELECT pg_catalog.max(oid) FROM pg_catalog.pg_class), (SELECT pg_catalog.max(oid) FROM pg_catalog.pg_proc), \
 (SELECT pg_catalog.max(oid) FROM pg_catalog.pg_trigger), (SELECT pg_catalog.max(oid) FROM pg_catalog.pg_operator), \
 (SELECT pg_catalog.sum(pg_catalog.pg_stat_get_tuples_inserted(c.oid) OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_tuples_deleted(c.oid) OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_tuples_updated(c.oid)) \
 FROM pg_catalog.pg_class c WHERE c.relname OPERATOR(pg_catalog.=) ANY ('{pg_class,pg_proc,pg_trigger,pg_policy,pg_rewrite,pg_operator,pg_cast,pg_attribute,pg_constraint}') \
 AND c.oid OPERATOR(pg_catalog.<) 16384::pg_catalog.oid))";

impl System {
    /// A database that has not been looked at yet.
    #[must_use]
    pub fn new(name: SystemName, environment: Environment, target: Target, measure_limit: u64) -> Self {
        Self {
            name,
            environment,
            target,
            measure_limit,
            coverage: None,
            view: ArcSwapOption::empty(),
            wanted: AtomicU64::new(1),
            looked: AtomicU64::new(0),
            started: Instant::now(),
            read_again: Notify::new(),
            read_done: Notify::new(),
            calls_end: AtomicBool::new(false),
            bounds: ArcSwapOption::empty(),
            runs_unbounded: false,
            shows_samples: true,
        }
    }

    /// The same, with a way back from the tables that `coverage` covers.
    #[must_use]
    pub fn with_coverage(mut self, coverage: Arc<dyn Coverage>) -> Self {
        self.coverage = Some(coverage);
        self
    }

    /// The same without sample rows for people who decide.
    #[must_use]
    pub fn without_samples(mut self) -> Self {
        self.shows_samples = false;
        self
    }

    /// The same, used even if what its role does can't be bounded.
    #[must_use]
    pub fn running_with_unbounded_role(mut self) -> Self {
        self.runs_unbounded = true;
        self
    }

    /// Whether what its role does is bounded; waits for the first look.
    pub(crate) async fn bounded(&self) -> Result<(), Refusal> {
        if self.runs_unbounded {
            return Ok(());
        }
        let deadline = Instant::now() + FRESH_WITHIN;
        loop {
            let done = self.read_done.notified();
            if let Some(bounds) = self.bounds.load_full() {
                return bounds.check();
            }
            if Instant::now() >= deadline {
                return Err(no_catalogue());
            }
            let _timed_out = tokio::time::timeout(Duration::from_millis(100), done).await;
        }
    }

    /// What a measurement leans on: a catalogue that was read, and a role that is bounded.
    pub(crate) async fn measured_by(&self) -> Result<Arc<View>, Refusal> {
        self.bounded().await?;
        self.fresh_view().await.ok_or_else(no_catalogue)
    }

    /// What the catalogue says, if that can be leaned on.
    pub(crate) fn view(&self) -> Option<Arc<View>> {
        self.view_since(self.wanted.load(Ordering::Acquire))
    }

    /// What the catalogue says, if it was read after this version was asked for, and found unchanged lately.
    fn view_since(&self, version: u64) -> Option<Arc<View>> {
        let looked = Duration::from_millis(self.looked.load(Ordering::Acquire));
        let recent = self.started.elapsed().saturating_sub(looked) < LOOKED_LATELY;
        self.view.load_full().filter(|view| recent && view.version >= version)
    }

    /// What the catalogue says; waits a moment for it to be read.
    pub(crate) async fn fresh_view(&self) -> Option<Arc<View>> {
        // Changes that others make from here on may come after our look in any case. Waited for, they would starve us.
        let wanted = self.wanted.load(Ordering::Acquire);
        let deadline = Instant::now() + FRESH_WITHIN;
        while Instant::now() < deadline {
            let done = self.read_done.notified();
            if let Some(view) = self.view_since(wanted) {
                return Some(view);
            }
            self.read_again.notify_one();
            let _timed_out = tokio::time::timeout(Duration::from_millis(100), done).await;
        }
        None
    }

    /// Whether what the definitions are at this moment is kept; waits for it to be.
    pub(crate) async fn definitions_ready(&self) -> bool {
        let Some(coverage) = &self.coverage else { return false };
        match coverage.definitions_ready().await {
            Ok(had_changed) => {
                // By somebody else, whom the server's counters don't show yet: what follows must not be measured against the old ones.
                if had_changed {
                    self.invalidate();
                }
                true
            }
            Err(reason) => {
                tracing::debug!(system = %self.name, reason, "changes of definitions can't be taken back");
                false
            }
        }
    }

    /// A statement that writes all of a relation down.
    pub(crate) fn keep_whole(&self, relation: u32) -> Option<String> {
        self.coverage.as_ref().map(|coverage| coverage.keep_whole(relation))
    }

    /// A statement that sets relations aside. None for a strict system: what is set aside lies in the database alone.
    pub(crate) fn set_aside(&self, relations: &[u32]) -> Option<String> {
        self.coverage.as_ref().filter(|coverage| coverage.strict().is_none()).map(|coverage| coverage.set_aside(relations))
    }

    /// How sample rows of a relation are asked for.
    pub(crate) fn sampling(&self, relation: u32, share: f64, most: u32) -> Option<Sampling> {
        self.coverage.as_ref().filter(|_| self.shows_samples).and_then(|coverage| coverage.sampling(relation, share, most))
    }

    /// What brings changes out of the database's reach before they are final, if they have to be.
    pub(crate) fn strict(&self) -> Option<&dyn Strict> {
        self.coverage.as_ref()?.strict()
    }

    /// A definition changed: read the catalogue again before leaning on it.
    pub(crate) fn invalidate(&self) {
        self.wanted.fetch_add(1, Ordering::AcqRel);
        self.read_again.notify_one();
    }

    /// Connects as the agents do, with nobody on the other side.
    pub(crate) async fn open(&self, application: &str) -> Result<Wire, ConnectError> {
        let parameters = [("application_name", application), ("client_encoding", "UTF8")];
        let parameters: Vec<(String, String)> = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let connected = connect(&self.target, &parameters, crate::nonce()).await?;
        Ok(Wire::new(Duplex::new(Stream::Nobody), connected.stream, Limits::default()))
    }

    /// Reads the catalogue at once and whenever it changes, for ever. One connection, one small query a second.
    pub async fn watch(self: Arc<Self>) {
        loop {
            if let Err(reason) = self.watch_connected().await {
                tracing::warn!(system = %self.name, %reason, "the catalogue can't be read; nothing is taken for a harmless read meanwhile");
            }
            self.wanted.fetch_add(1, Ordering::AcqRel);
            tokio::time::sleep(WATCH_EVERY).await;
        }
    }

    async fn watch_connected(&self) -> Result<(), String> {
        let mut wire = self.open("reprieve: catalogue").await.map_err(|error| error.to_string())?;
        // Nobody's operators come between us and the catalogue.
        let _ours = wire.ask("SET search_path = pg_catalog").await.map_err(|gone| gone.to_string())?;
        let mut last = String::new();
        let mut last_ready = Ok(());
        let mut kept_up = Ok(());
        loop {
            self.look_at_bounds(&mut wire).await?;
            let mut signature = self.signature(&mut wire).await?;
            // The servers' counters in the signature come late: what agents changed is known to have changed.
            let is_behind = signature != last || kept_up.is_err() || self.view().is_none();
            if let Some(coverage) = self.coverage.as_ref().filter(|_| is_behind) {
                let now = coverage.keep_up().await;
                if let (Err(reason), true) = (&now, now != kept_up) {
                    tracing::warn!(system = %self.name, %reason, "new tables can't be covered; changes of them are held");
                }
                kept_up = now;
                signature = self.signature(&mut wire).await?;
            }
            self.looked.store(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Release);
            let ready = self.coverage.as_ref().map_or(Ok(()), |coverage| coverage.ready());
            if signature != last || ready != last_ready || self.view().is_none() {
                if signature != last || ready != last_ready {
                    self.wanted.fetch_add(1, Ordering::AcqRel);
                }
                // Taken before reading: what changes while we read asks for another one.
                let version = self.wanted.load(Ordering::Acquire);
                let view = self.read(&mut wire, version, &ready).await.map_err(|gone| gone.to_string())?;
                self.view.store(Some(Arc::new(view.ok_or("the catalogue's answer was not understood")?)));
                last = signature;
                last_ready = ready;
                self.read_done.notify_waiters();
            }
            let _timed_out_or_asked = tokio::time::timeout(WATCH_EVERY, self.read_again.notified()).await;
        }
    }

    /// Rights may be given at any time, and they are no part of the database's own catalogue.
    async fn look_at_bounds(&self, wire: &mut Wire) -> Result<(), String> {
        let bounds = Bounds::ask(wire).await.map_err(|gone| gone.to_string())?;
        if self.bounds.load().as_deref() == Some(&bounds) {
            return Ok(());
        }
        if let Err(refusal) = bounds.check() {
            let used = if self.runs_unbounded { "it is used all the same" } else { "agents are not let in" };
            tracing::error!(system = %self.name, reason = %refusal.reason, used, "this role must not be an agent's");
        }
        self.bounds.store(Some(Arc::new(bounds)));
        Ok(())
    }

    async fn signature(&self, wire: &mut Wire) -> Result<String, String> {
        let signature = wire.ask(SIGNATURE).await.map_err(|gone| gone.to_string())?;
        Ok(signature.rows.first().and_then(|row| row.first().cloned().flatten()).ok_or("no signature")?)
    }

    /// Whether a function can be called by its oid from here: not every pooler in between passes that on, and some hang up.
    async fn can_call(&self, wire: &mut Wire, function: &GuardFunction) -> Result<bool, Gone> {
        if self.calls_end.load(Ordering::Acquire) {
            return Ok(false);
        }
        wire.send_guard(&Guard::Call(function.call(0, None)), "");
        match wire.settle().await {
            Ok(()) => {
                let captured = std::mem::take(&mut wire.captured);
                Ok(captured.error.is_none() && captured.rows.len() == 1)
            }
            Err(gone) => {
                self.calls_end.store(true, Ordering::Release);
                Err(gone)
            }
        }
    }

    async fn read(&self, wire: &mut Wire, version: u64, ready: &Result<(), String>) -> Result<Option<View>, Gone> {
        // One look at all of it: what is known of a table in one list must be in the others.
        let begun = wire.ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let relations = wire.ask(RELATIONS).await?;
        let catalogs = wire.ask(CATALOGS).await?;
        let triggers = wire.ask(TRIGGERS).await?;
        let loud = wire.ask(LOUD).await?;
        let rows = wire.ask(CATALOG_QUERY).await?;
        let covered = match &self.coverage {
            Some(coverage) => wire.ask(coverage.query()).await?,
            None => Captured::default(),
        };
        let function = wire.ask(GUARD_FUNCTION).await?;
        let ended = wire.ask("COMMIT").await?;
        if [&begun, &rows, &covered, &ended].iter().any(|captured| captured.error.is_some()) {
            return Ok(None);
        }
        let rows = rows.rows.into_iter().filter_map(|row| <[Option<String>; 4]>::try_from(row).ok());
        let catalog = Catalog::from_rows(rows);
        let Some(mut snapshot) = Snapshot::read([&relations, &catalogs, &triggers, &loud, &function]) else { return Ok(None) };
        if let Some(function) = &snapshot.function
            && !self.can_call(wire, function).await?
        {
            snapshot.function = None;
        }
        let covered = covered.rows.iter().filter_map(|row| row.first()?.as_deref()?.parse().ok()).collect();
        Ok(Some(View { version, catalog, snapshot: snapshot.with_covered(covered, ready.clone().err()) }))
    }
}

fn no_catalogue() -> Refusal {
    Refusal::unavailable("catalogue", "the database's catalogue can't be read at the moment")
}
