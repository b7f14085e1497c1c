//! What `serve` does for recovery: heartbeats, the write-ahead log, and, by the clock, processes that copy and that try copies.

use std::{
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;
use reprieve_audit::{AuditLog, SystemClock};
use reprieve_gate::{Audit as _, Clock as _, Covered};
use reprieve_operation::{Event, NewestCopy, RecoveryState, SystemName, Timestamp};
use reprieve_recovery::{Source, WalKeeper, WalOptions, beat};
use reprieve_undo::VaultAccess;

use super::{received, source};
use crate::{
    keys::Keys,
    settings::{Settings, SystemKind, Wal},
    wire,
};

/// How often the clock is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long no heartbeat may be written before people are told.
const ALARM_AFTER: Duration = Duration::from_secs(120);
/// How often one looks whether the newest copy is where it was put.
const LOOK_FOR_COPY_EVERY: Duration = Duration::from_secs(60);
/// After a failure the next try comes sooner than by the clock, but not at once.
const AGAIN_AFTER: Duration = Duration::from_secs(300);

/// What is done for one system.
pub(crate) struct Runs {
    system: SystemName,
    /// Where heartbeats are written; none: nothing is written there.
    source: Option<Source>,
    wal: Option<Arc<WalKeeper>>,
    covered: Arc<Covered>,
    keeping: Mutex<Option<JoinHandle<()>>>,
    stopped: AtomicBool,
}

/// What is to be done, for every system that has copies.
pub(crate) fn open(settings: &Settings, keys: &Keys, audit: &Arc<AuditLog>, covered: &Arc<Covered>) -> anyhow::Result<Vec<Arc<Runs>>> {
    let mut runs = Vec::new();
    for system in settings.copyable() {
        let Some(backup) = &system.backup else { continue };
        if system.kind != SystemKind::Postgres {
            runs.push(Arc::new(Runs::new(&system.name, None, None, covered)));
            continue;
        }
        let copied = source(system, keys)?;
        let wal = match backup.wal {
            Wal::Off => None,
            Wal::Stream | Wal::Synchronous => {
                let options = WalOptions {
                    system: system.name.clone(),
                    folder: received(settings, &system.name),
                    synchronous: backup.wal == Wal::Synchronous,
                };
                let (recipients, signer) = (keys.recipients(settings)?, keys.copyist()?);
                Some(Arc::new(WalKeeper::new(options, copied.clone(), recipients, signer, Arc::new(SystemClock), audit.clone())))
            }
        };
        let admin = super::admin_source(system, keys)?;
        runs.push(Arc::new(Runs::new(&system.name, Some(admin), wal, covered)));
    }
    Ok(runs)
}

impl Runs {
    fn new(system: &SystemName, source: Option<Source>, wal: Option<Arc<WalKeeper>>, covered: &Arc<Covered>) -> Self {
        Self { system: system.clone(), source, wal, covered: covered.clone(), keeping: Mutex::default(), stopped: AtomicBool::new(false) }
    }

    /// Begins. What is begun ends with [`Runs::stop`].
    pub(crate) fn start(self: &Arc<Self>, settings: &Arc<Settings>, keys: &Keys, audit: &Arc<AuditLog>) -> anyhow::Result<()> {
        let system = settings.system(self.system.as_str())?;
        let Some(backup) = &system.backup else { return Ok(()) };
        if let Some(keeper) = self.wal.clone() {
            let access = wire::vault(settings, keys)?;
            let handle = tokio::runtime::Handle::current();
            let thread = std::thread::Builder::new().name(format!("wal-{}", self.system));
            let keeping = thread.spawn(move || match handle.block_on(access.vault()) {
                Ok(vault) => keeper.run(vault, &handle),
                Err(error) => tracing::error!(%error, "the write-ahead log is not kept: the vault can't be opened"),
            })?;
            *self.keeping.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeping);
            tokio::spawn(self.clone().follow());
        }
        if let Some(source) = self.source.clone() {
            tokio::spawn(self.clone().heartbeats(source, backup.heartbeat, audit.clone()));
        }
        tokio::spawn(self.clone().watch(wire::vault(settings, keys)?, audit.clone()));
        let config = settings.file.clone();
        for (every, what) in [(backup.every, What::Copy), (backup.drill, What::Drill)] {
            if let Some(every) = every {
                tokio::spawn(self.clone().by_the_clock(config.clone(), audit.clone(), every, what));
            }
        }
        Ok(())
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(keeper) = &self.wal {
            keeper.stop();
        }
    }

    /// Waits until the log is kept no more: its receiver has to end before we do.
    pub(crate) async fn ended(&self) {
        let ended = || self.keeping.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_none_or(JoinHandle::is_finished);
        while !ended() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn goes_on(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }

    /// Tells whoever decides how far the log is kept.
    async fn follow(self: Arc<Self>) {
        while self.goes_on() {
            let until = self.wal.as_ref().and_then(|keeper| keeper.covered_until());
            until.into_iter().for_each(|until| self.covered.note(&self.system, until));
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn heartbeats(self: Arc<Self>, source: Source, every: Duration, audit: Arc<AuditLog>) {
        let (mut since, mut told): (Option<Timestamp>, bool) = (None, false);
        while self.goes_on() {
            let source = source.clone();
            match tokio::task::spawn_blocking(move || beat(&source)).await {
                Ok(Ok(())) => (since, told) = (None, false),
                Ok(Err(error)) => {
                    let (now, why) = (SystemClock.now(), error.in_words());
                    if since.is_none() {
                        tracing::warn!(system = %self.system, error = %why, "no heartbeat could be written");
                    }
                    let since = *since.get_or_insert(now);
                    // Somebody else's table in its place is no outage.
                    let tampered = why.contains("somebody else");
                    if !told && (tampered || now.since(since) > ALARM_AFTER) {
                        told = true;
                        let what = format!("no heartbeat can be written in `{}`, so nothing dates its copies: {why}", self.system);
                        drop(audit.append(Event::Alarm { what, agent: None }));
                    }
                }
                Err(_) => {}
            }
            tokio::time::sleep(every.max(Duration::from_millis(500))).await;
        }
    }

    /// Looks whether the newest copy is where it was put. Another vault in the settings, or somebody's hand: what was proved, is no more.
    /// That the rest of it is whole, only a drill can tell.
    async fn watch(self: Arc<Self>, access: VaultAccess, audit: Arc<AuditLog>) {
        let mut warned = false;
        while self.goes_on() {
            let newest = audit.state().recovery.get(&self.system).and_then(|known| known.newest.clone());
            if let Some(NewestCopy { point, manifest }) = newest {
                let found = async { access.vault().await?.exists(manifest).await };
                match found.await {
                    Ok(true) => warned = false,
                    Ok(false) => {
                        let what = format!(
                            "the newest copy of `{}`, {point}, is not in the vault: what was proved by it, is no more. A new one: reprieve backup now {}",
                            self.system, self.system
                        );
                        tracing::error!(system = %self.system, point, "the newest copy is not in the vault");
                        drop(audit.append(Event::BackupMissing { system: self.system.clone(), point }));
                        drop(audit.append(Event::Alarm { what, agent: None }));
                    }
                    Err(error) if !warned => {
                        warned = true;
                        tracing::warn!(system = %self.system, %error, "it can't be told whether the newest copy is in the vault");
                    }
                    Err(_) => {}
                }
            }
            tokio::time::sleep(LOOK_FOR_COPY_EVERY).await;
        }
    }

    /// Runs one process after the other, when it is due by what the ledger knows: a restart forgets nothing.
    async fn by_the_clock(self: Arc<Self>, config: PathBuf, audit: Arc<AuditLog>, every: Duration, what: What) {
        let mut tried: Option<Timestamp> = None;
        while self.goes_on() {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = SystemClock.now();
            let state = audit.state().recovery.get(&self.system).cloned().unwrap_or_default();
            // What is committed now is in no copy, and follows none: it does not wait for the clock.
            let broken = state.log_broken.filter(|_| what == What::Copy);
            let due = broken.is_some() || what.last(&state).is_none_or(|last| now.since(last) >= every);
            // A drill needs something to try.
            let possible = what == What::Copy || state.backup.is_some();
            let just_tried = tried.filter(|tried| broken.is_none_or(|broken| *tried >= broken));
            if !due || !possible || just_tried.is_some_and(|tried| now.since(tried) < AGAIN_AFTER.min(every)) {
                continue;
            }
            tried = Some(now);
            if let Err(error) = self.run(&config, what).await {
                tracing::error!(system = %self.system, error = %format!("{error:#}"), what = what.as_str(), "failed");
                let after = audit.state().recovery.get(&self.system).cloned().unwrap_or_default();
                // It told the ledger itself, unless it could not.
                if after == state {
                    let what = format!("{} of `{}` could not be run or recorded: {error:#}", what.as_str(), self.system);
                    drop(audit.append(Event::Alarm { what, agent: None }));
                }
            }
        }
    }

    async fn run(&self, config: &std::path::Path, what: What) -> anyhow::Result<()> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = tokio::process::Command::new(program);
        command.arg("--config").arg(config).args(what.arguments()).arg(self.system.as_str()).arg("--json").kill_on_drop(true);
        let output =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).output().await.context("cannot run this program")?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stdout);
        anyhow::bail!("{}: {}", output.status, said.trim().chars().take(1_000).collect::<String>())
    }
}

/// What is run by the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Copy,
    Drill,
}

impl What {
    fn as_str(self) -> &'static str {
        match self {
            Self::Copy => "a copy",
            Self::Drill => "a drill",
        }
    }

    fn arguments(self) -> [&'static str; 2] {
        match self {
            Self::Copy => ["backup", "now"],
            Self::Drill => ["drill", "run"],
        }
    }

    fn last(self, state: &RecoveryState) -> Option<Timestamp> {
        match self {
            Self::Copy => state.backup,
            // One that failed is tried again sooner: it leaves nothing proved.
            Self::Drill => state.drill.map(|drill| drill.at),
        }
    }
}
