//! Restoring: a recovery point, and the log after it, into a new place. Never over anything that is there.
//!
//! What comes back is brought to the moment asked for by a server of our own (`server.rs`), which is stopped again before the
//! files are handed over. A drill does the same and keeps the server running, to look at what came back. Where files come from is in
//! `vault.rs` and `repository.rs`.

mod control;
mod partial;
mod repository;
mod roles;
mod tablespaces;
mod vault;

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use reprieve_ledger::Verifier;
use reprieve_operation::{Digest, Timestamp};
use reprieve_vault::Vault;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::{
    Contents, DrillKey, EngineKind, Manifest, RecoveryError, Source, Stanza, Tools, archive,
    chunks::unseal_chunks,
    heartbeat,
    progress::{Counted, Pace, Progress, Tell},
    read_point,
    scratch::Scratch,
    seal::unseal,
    server::Server,
    sqlite,
    tools::{PIPE, collect, free_bytes, name, tail, widen},
    wal,
};

use self::{partial::Partial, repository::FromRepository, vault::FromVault};
pub(crate) use self::{
    repository::stanza_of,
    roles::{create, missing},
};

/// Bringing back may take this long in all; a step that hangs ends.
const STEP: Duration = Duration::from_secs(6 * 3_600);
/// Parts of the log that are fetched and opened at once; each takes three times its size in memory.
const FETCHERS: usize = 2;
/// How often what is unpacked is sent to the disk.
const FLUSH_EVERY: Duration = Duration::from_millis(200);
/// Room that is left alone.
const ROOM: u64 = 64 << 20;
/// Where fetched parts of the log lie until they were replayed.
const FETCHED: &str = "reprieve_wal";
/// What the copy's own settings are called while we bring it back.
const ASIDE: &str = "postgresql.auto.conf.restored";
/// The last word on archiving, whatever the settings before it say.
const QUIET: &str = "archive_mode = 'off'\n";

/// What is needed to read copies.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    /// Where they are.
    pub vault: &'a Vault,
    /// The vault's runtime.
    pub handle: &'a Handle,
    /// Who has to have signed them.
    pub key: &'a Verifier,
    /// What opens them.
    pub identity: &'a DrillKey,
    /// Where the log is received, if that is here; its index saves a look through the whole vault.
    pub received: Option<&'a Path>,
    /// The stanza that the settings name, for copies that lie in pgBackRest's repository.
    pub stanza: Option<&'a Stanza>,
    /// Whom it is told which step has begun.
    pub tell: Tell,
}

/// Up to where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// As far as the log reaches.
    Newest,
    /// The moment of the copy itself, without any log after it.
    Copy,
    /// A time, as PostgreSQL reads it.
    Time(String),
    /// Just before a time.
    BeforeTime(String),
    /// Just before a transaction.
    BeforeTransaction(u64),
}

impl Until {
    /// In words.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Self::Newest => "the newest there is".to_owned(),
            Self::Copy => "the copy itself".to_owned(),
            Self::Time(time) => time.clone(),
            Self::BeforeTime(time) => format!("just before {time}"),
            Self::BeforeTransaction(xid) => format!("just before transaction {xid}"),
        }
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let exclusive = ("recovery_target_inclusive", "off".to_owned());
        match self {
            Self::Newest => Vec::new(),
            Self::Copy => vec![("recovery_target", "immediate".to_owned())],
            Self::Time(time) => vec![("recovery_target_time", time.clone())],
            Self::BeforeTime(time) => vec![("recovery_target_time", time.clone()), exclusive],
            // PostgreSQL knows the lower half of the number there.
            Self::BeforeTransaction(xid) => vec![("recovery_target_xid", (xid & 0xFFFF_FFFF).to_string()), exclusive],
        }
    }
}

/// Where to.
#[derive(Debug, Clone)]
pub enum Target {
    /// A folder that is not there yet, or empty; for a SQLite copy, a file that is not there yet.
    Path(PathBuf),
    /// A database that is empty; for logical copies.
    Database(Source),
}

/// How to restore.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Up to where.
    pub until: Until,
    /// Where to.
    pub to: Target,
    /// Whether roles that a logical copy names are made where they are missing, without login.
    pub create_roles: bool,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restored {
    /// The recovery point.
    pub point: String,
    /// By which engine it was made.
    pub engine: EngineKind,
    /// When copying it began.
    pub began: Timestamp,
    /// Steps and their milliseconds.
    pub phases: Vec<(String, u64)>,
    /// Files of the log that were replayed.
    pub wal_files: usize,
    /// When the last transaction that came back was committed.
    pub last_commit: Option<Timestamp>,
    /// The newest heartbeat that came back.
    pub heartbeat: Option<Timestamp>,
}

/// Steps and how long they took.
#[derive(Debug, Default)]
pub(crate) struct Phases(pub(crate) Vec<(String, u64)>, Option<Tell>);

impl Phases {
    pub(crate) fn telling(tell: Tell) -> Self {
        Self(Vec::new(), Some(tell))
    }

    pub(crate) fn time<T>(&mut self, step: &str, work: impl FnOnce() -> Result<T, RecoveryError>) -> Result<T, RecoveryError> {
        let began = Instant::now();
        if let Some(tell) = self.1 {
            tell(Progress::Step(step));
        }
        let done = work();
        self.0.push((step.to_owned(), u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)));
        done
    }
}

/// Where a copy of a whole server and its log are brought from.
trait Supply {
    /// Looks for the log, `after` the copy too; `to_keep`: also where it has not been stored yet. Answers how many segments there are.
    fn find_log(&mut self, after: bool, to_keep: bool) -> Result<u64, RecoveryError>;

    /// Brings the copy's files into an empty folder; each is what it was when it was copied.
    fn bring_files(&self, data: &Path, phases: &mut Phases) -> Result<(), RecoveryError>;

    /// Brings the log to where the server looks for it, and answers the files' names.
    fn bring_log(&self, data: &Path, into: &Path) -> Result<BTreeSet<String>, RecoveryError>;
}

/// Does something for each, a few at once.
fn each<T: Sync>(of: &[T], tell: Tell, work: impl Fn(&T) -> Result<(), RecoveryError> + Sync) -> Result<(), RecoveryError> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut pace = Pace::default();
        loop {
            let done = next.fetch_add(1, Ordering::Relaxed);
            let Some(one) = of.get(done) else { break };
            work(one)?;
            if pace.is_due() {
                tell(Progress::Files { done, all: of.len() });
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..FETCHERS).map(|_| scope.spawn(work)).collect();
        let bug = |_| Err(RecoveryError::Damaged("fetching ended by a bug".to_owned()));
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(bug))
    })
}

/// A server that runs over what came back.
pub(crate) struct Back {
    // First: it stops before its folder goes.
    pub(crate) server: Server,
    pub(crate) scratch: Scratch,
    pub(crate) wal_files: usize,
    pub(crate) last_commit: Option<Timestamp>,
    pub(crate) heartbeat: Option<Timestamp>,
}

/// Restores a recovery point. Blocks.
pub fn restore(ground: Ground<'_>, manifest: Digest, options: &RestoreOptions) -> Result<Restored, RecoveryError> {
    let mut phases = Phases::telling(ground.tell);
    let (manifest, contents) = ground.handle.block_on(read_point(ground.vault, manifest, ground.key))?;
    manifest.may_be_opened_by(ground.identity)?;
    let restored = |phases: Phases| Restored {
        point: manifest.point.clone(),
        engine: manifest.engine,
        began: manifest.began,
        phases: phases.0,
        wal_files: 0,
        last_commit: None,
        heartbeat: None,
    };
    let moment = |kind: &str| match options.until {
        Until::Newest | Until::Copy | Until::Time(_) => Ok(()),
        Until::BeforeTime(_) | Until::BeforeTransaction(_) => Err(RecoveryError::Refused(format!("{kind} has one moment only: its own"))),
    };
    match (&options.to, manifest.engine) {
        (Target::Path(data), EngineKind::Physical | EngineKind::Pgbackrest) => {
            let tools = Tools::find(Some(manifest.major))?;
            let partial = Partial::begin(Some(&tools), data, &mut phases)?;
            let (place, until) = (partial.place(), &options.until);
            let back = bring_back(ground, &tools, &manifest, &contents, place, &std::env::temp_dir(), until, true, &mut phases)?;
            let Back { server, scratch, wal_files, last_commit, heartbeat } = back;
            phases.time("stop", || server.stop())?;
            hand_over(&tools, place, manifest.elsewhere.is_some())?;
            partial.finish()?;
            scratch.destroy()?;
            Ok(Restored { wal_files, last_commit, heartbeat, ..restored(phases) })
        }
        (Target::Path(file), EngineKind::Sqlite) => {
            moment("a copy of a SQLite database")?;
            phases.time("fetch", || sqlite::write(ground, &contents, manifest.plain_bytes, file))?;
            // What is not sound is told, and stays: it may be all there is.
            phases.time("integrity_check", || sqlite::integrity(&sqlite::open_still(file)?))?;
            Ok(restored(phases))
        }
        (Target::Path(folder), EngineKind::Files) => {
            moment("a copy of a folder")?;
            // What is there already keeps its place: what comes back has attributes of its own.
            let partial = if folder.symlink_metadata().is_ok() { None } else { Some(Partial::begin(None, folder, &mut phases)?) };
            let place = partial.as_ref().map_or(folder.as_path(), Partial::place);
            phases.time("fetch", || archive::unpack(ground, &manifest, &contents, place, true).map(drop))?;
            partial.map_or(Ok(()), Partial::finish)?;
            Ok(restored(phases))
        }
        (Target::Database(target), EngineKind::Logical) => {
            if options.until != Until::Newest && options.until != Until::Copy {
                return Err(RecoveryError::Refused("a logical copy has one moment only: its own".to_owned()));
            }
            let tools = Tools::find(Some(manifest.major))?;
            let relations = "SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";
            if target.sql(&tools, relations, Duration::from_secs(30))? != "0" {
                return Err(RecoveryError::Refused(format!("{} is not empty: a copy is restored into a new place only", target.address())));
            }
            let roles = missing(&tools, target, &contents)?;
            if !roles.is_empty() && !options.create_roles {
                return Err(RecoveryError::Refused(format!(
                    "what is in the copy names roles that {} does not have: {}; make them there first, or have them made without login by --create-roles",
                    target.address(),
                    roles.join(", ")
                )));
            }
            create(&tools, target, &roles)?;
            phases.time("restore", || fill(ground, &tools, &contents, manifest.plain_bytes, target))?;
            let heartbeat = heartbeat::last(target, &tools)?.map(Timestamp);
            Ok(Restored { heartbeat, ..restored(phases) })
        }
        (Target::Path(_), EngineKind::Logical) => Err(RecoveryError::Refused(
            "this recovery point is a logical copy: restore it into an empty database, --to postgres://…".to_owned(),
        )),
        (Target::Database(_), kind @ (EngineKind::Physical | EngineKind::Pgbackrest | EngineKind::Files | EngineKind::Sqlite)) => {
            let place = if kind == EngineKind::Sqlite { "file, --to FILE" } else { "folder, --to DIR" };
            Err(RecoveryError::Refused(format!("this recovery point is a {} copy: restore it into a new {place}", kind.as_str())))
        }
    }
}

/// Unpacks a physical copy into `data`, fetches the log, and starts a server over it with its own folder under `under`.
/// `to_keep`: these files are handed over, so they have to be safe on the disk, and what was received here counts too.
#[allow(clippy::too_many_arguments, reason = "one step of two stories, each with all of it at hand")]
pub(crate) fn bring_back(
    ground: Ground<'_>,
    tools: &Tools,
    manifest: &Manifest,
    contents: &Contents,
    data: &Path,
    under: &Path,
    until: &Until,
    to_keep: bool,
    phases: &mut Phases,
) -> Result<Back, RecoveryError> {
    let parent = data.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut supply: Box<dyn Supply + '_> = match &manifest.elsewhere {
        None => Box::new(FromVault::new(ground, tools, manifest, contents, *until == Until::Newest)),
        Some(elsewhere) => Box::new(FromRepository::new(ground, tools, manifest, contents, elsewhere)?),
    };
    let segments = phases.time("find the log", || supply.find_log(*until != Until::Copy, to_keep))?;
    // Besides the log that is brought, the segment that the new timeline begins with, and the one after.
    let log = segments.saturating_add(2).saturating_mul(manifest.segment_bytes);
    let (free, needed) = (free_bytes(parent)?, manifest.plain_bytes.saturating_add(log).saturating_add(ROOM));
    if free < needed {
        return Err(RecoveryError::Refused(format!("no room in `{}`: {needed} bytes are needed, {free} are free", parent.display())));
    }
    tools.own_folder(data)?;
    let flushing = if to_keep { Some(Flushing::start(data)?) } else { None };
    supply.bring_files(data, phases)?;
    drop(flushing);
    let fetched = data.join(FETCHED);
    let files = phases.time("fetch the log", || {
        tools.own_folder(&fetched)?;
        supply.bring_log(data, &fetched)
    })?;
    phases
        .time("look through the log", || tablespaces::has_none(tools, &[&data.join("pg_wal"), &fetched], manifest.segment_bytes, under))?;
    let auto = data.join("postgresql.auto.conf");
    if auto.exists() {
        fs::rename(&auto, data.join(ASIDE)).map_err(RecoveryError::file("put the copy's settings aside"))?;
    }
    tools.write(&auto, "")?;
    tools.write(&data.join("recovery.signal"), "")?;
    let scratch = Scratch::make(tools, under)?;
    let mut settings = until.settings();
    settings.extend(control::demands(tools, data, manifest.segment_bytes)?);
    if manifest.major >= 17 {
        // From then on there are some that fire when somebody connects.
        settings.push(("event_triggers", "off".to_owned()));
    }
    settings.push(("restore_command", format!("cp \"{}/%f\" \"%p\"", fetched.display())));
    settings.push(("recovery_target_action", "promote".to_owned()));
    settings.push(("fsync", if to_keep { "on" } else { "off" }.to_owned()));
    // One call instead of one for each file; most of it is on the disk by then.
    settings.push(("recovery_init_sync_method", "syncfs".to_owned()));
    let server = phases.time("start and replay", || Server::start(tools, scratch.path(), data, &manifest.superuser, &settings, STEP))?;
    // PostgreSQL takes a file of the log that it can't have for the log's end.
    let newest = files.iter().filter_map(|file| Some((wal::numbered(file, manifest.segment_bytes)?, file))).max();
    if let (Until::Newest, Some((_, file))) = (until, newest)
        && !server.log().contains(&format!("restored log file \"{file}\""))
    {
        return Err(RecoveryError::Check(format!("`{file}` of the write-ahead log was fetched and not replayed")));
    }
    let source = server.source(&manifest.database);
    let last = source.sql(
        tools,
        "SELECT (extract(epoch FROM pg_catalog.pg_last_xact_replay_timestamp()) * 1000)::bigint",
        Duration::from_secs(60),
    )?;
    let heartbeat = heartbeat::last(&source, tools)?.map(Timestamp);
    Ok(Back { server, scratch, wal_files: files.len(), last_commit: last.parse().ok().map(Timestamp), heartbeat })
}

/// The files as their owner gets them: with the copy's own settings, without what we needed. `quiet`: its settings may name a
/// repository that is another server's, which gets nothing of this one.
fn hand_over(tools: &Tools, data: &Path, quiet: bool) -> Result<(), RecoveryError> {
    let doing = || RecoveryError::file("hand the restored files over");
    // How our server was started: `pg_ctl restart` would start theirs in the same way.
    let _gone = fs::remove_file(data.join("postmaster.opts"));
    let (aside, auto) = (data.join(ASIDE), data.join("postgresql.auto.conf"));
    if quiet {
        let settings = if aside.exists() { fs::read_to_string(&aside).map_err(doing())? } else { String::new() };
        tools.write(&aside, &format!("{}\n{QUIET}", settings.trim_end()))?;
        announce(tools, &data.join("pg_wal"))?;
    }
    if aside.exists() {
        fs::rename(aside, auto).map_err(doing())?;
    }
    fs::remove_dir_all(data.join(FETCHED)).map_err(doing())?;
    // Debian keeps these elsewhere; a server does not start without them.
    let files = [
        ("postgresql.conf", "# restored by Reprieve: the settings were not part of the data directory\n"),
        ("pg_hba.conf", "local all all peer\n"),
        ("pg_ident.conf", ""),
    ];
    files.into_iter().filter(|(name, _)| !data.join(name).exists()).try_for_each(|(name, text)| tools.write(&data.join(name), text))
}

/// Has the history of the timeline that began here archived first, once somebody has it archive: without it nobody finds the way from
/// the copies before to the log after.
fn announce(tools: &Tools, log: &Path) -> Result<(), RecoveryError> {
    let files = fs::read_dir(log).map_err(RecoveryError::file("look into the restored log"))?;
    let names = files.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    match names.filter(|name| wal::is_history(name)).max() {
        Some(name) => tools.write(&log.join("archive_status").join(format!("{name}.ready")), ""),
        None => Ok(()),
    }
}

/// Has what is unpacked go to the disk while the rest is still coming: the server that starts over it waits for all of it.
struct Flushing {
    stopped: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Flushing {
    fn start(data: &Path) -> Result<Self, RecoveryError> {
        let folder = fs::File::open(data).map_err(RecoveryError::file(format!("open `{}`", data.display())))?;
        let stopped = Arc::new(AtomicBool::new(false));
        let until = stopped.clone();
        let thread = thread::Builder::new().name("flush".to_owned()).spawn(move || {
            while !until.load(Ordering::Relaxed) {
                thread::sleep(FLUSH_EVERY);
                // The server does it again and says what is wrong; this only makes it early.
                let _again = rustix::fs::syncfs(&folder);
            }
        });
        Ok(Self { stopped, thread: Some(thread.map_err(RecoveryError::file("start a thread"))?) })
    }
}

impl Drop for Flushing {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// Opens a copy as the stream that it was made of. `plain_bytes`: how much it will be, for those who wait; 0: that is not known.
pub(crate) fn open_copy<T>(
    ground: Ground<'_>,
    contents: &Contents,
    plain_bytes: u64,
    use_it: impl FnOnce(&mut dyn Read) -> Result<T, RecoveryError>,
) -> Result<T, RecoveryError> {
    let use_it = |stream: &mut dyn Read| use_it(&mut Counted::new(stream, plain_bytes, ground.tell));
    match &contents.keys {
        Some(keys) => unseal_chunks(ground.vault, ground.handle, ground.identity, &contents.objects, keys, use_it),
        None => unseal(ground.vault, ground.handle, ground.identity, &contents.objects, use_it),
    }
}

/// What the journal's triggers on protected tables call is in no copy: without anything in its place no such table comes back.
const STAND_INS: &str = "BEGIN; CREATE SCHEMA reprieve;
    CREATE FUNCTION reprieve.keep_inserted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE FUNCTION reprieve.keep_updated() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE FUNCTION reprieve.keep_deleted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE FUNCTION reprieve.keep_truncated() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; COMMIT";
/// They go again, and these triggers with them.
const NO_STAND_INS: &str = "SET client_min_messages = error; DROP SCHEMA reprieve CASCADE";

/// Restores a logical copy's contents into an empty database.
pub(crate) fn fill(ground: Ground<'_>, tools: &Tools, contents: &Contents, plain_bytes: u64, target: &Source) -> Result<(), RecoveryError> {
    target.sql(tools, STAND_INS, Duration::from_secs(30))?;
    let filled = fill_as_it_was(ground, tools, contents, plain_bytes, target);
    let gone = target.sql(tools, NO_STAND_INS, Duration::from_secs(300));
    filled.and(gone.map(drop))
}

fn fill_as_it_was(ground: Ground<'_>, tools: &Tools, contents: &Contents, plain_bytes: u64, target: &Source) -> Result<(), RecoveryError> {
    open_copy(ground, contents, plain_bytes, |stream| {
        let mut command = tools.client("pg_restore");
        target.tell(&mut command).args([
            "--no-owner",
            "--no-privileges",
            "--exit-on-error",
            "--single-transaction",
            "--no-password",
            "--dbname",
        ]);
        command.arg(&target.database);
        feed(command, stream)
    })
}

/// Runs a program that reads the stream to its end.
pub(crate) fn feed(mut command: Command, stream: &mut dyn Read) -> Result<(), RecoveryError> {
    let program = name(&command);
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|source| RecoveryError::Spawn { program: program.clone(), source })?;
    let said = collect(child.stderr.take());
    let input = child.stdin.take();
    let copied = input.map_or(Ok(0), |mut input| {
        widen(&input);
        io::copy(&mut io::BufReader::with_capacity(PIPE, stream), &mut input)
    });
    let status = child.wait().map_err(|source| RecoveryError::Spawn { program: program.clone(), source })?;
    let said = said.join().unwrap_or_default();
    // A program that failed closes its input: what it says comes first.
    if !status.success() {
        return match copied {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(RecoveryError::Damaged(format!("the copy could not be read to its end: {error}")))
            }
            _ => Err(RecoveryError::Tool { program, said: tail(&said) }),
        };
    }
    match copied {
        Ok(_) => Ok(()),
        Err(error) => Err(RecoveryError::Damaged(format!("the copy could not be read to its end: {error}"))),
    }
}

#[cfg(test)]
mod tests;
