//! Engines: how a copy is made. PostgreSQL's own programs, either of the whole cluster or of one database's contents.
//!
//! Whatever the engine, the copy is one stream; it is sealed and stored while it comes, and nothing of it touches a disk of ours
//! in clear. A copy counts from the moment its manifest is in the vault.

use std::{
    collections::HashSet,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStderr, ChildStdout, Command, Stdio},
    thread::JoinHandle,
    time::Duration,
};

use reprieve_gate::Clock;
use reprieve_ledger::Signer;
use reprieve_operation::{SystemName, Timestamp};
use reprieve_vault::{Lock, ObjectRef, Vault, VaultError};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::{
    Contents, Manifest, Recipients, RecoveryError, Source, Tools,
    chunks::seal_chunks,
    manifest::{Lsn, close},
    survey::{survey, total},
    tools::{collect, name, tail},
};

/// A question's longest.
const ASK: Duration = Duration::from_secs(30);
/// Two machines' clocks may differ by this much.
pub(crate) const SKEW: Duration = Duration::from_secs(60);

/// By which program a copy is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// `pg_basebackup`: the whole cluster, file by file; can be brought forward to any moment by the write-ahead log.
    Physical,
    /// `pg_dump`: one database's contents; for servers that let nobody replicate.
    Logical,
}

impl EngineKind {
    /// In one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Physical => "physical",
            Self::Logical => "logical",
        }
    }
}

/// Which engine to take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineChoice {
    /// Physical where the role may replicate.
    #[default]
    Auto,
    /// Physical, or none.
    Physical,
    /// Logical.
    Logical,
}

/// How a copy is to be made.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// By which engine.
    pub engine: EngineChoice,
    /// Whether a server without a single row is worth a copy. Mostly it is the wrong server.
    pub allow_empty: bool,
    /// Whether everything is put again, also what is in the vault already: what is there may be damaged.
    pub anew: bool,
    /// For how long the vault promises that nobody can remove what is put; looked at for every object of the copy.
    pub locked_for: Option<Duration>,
}

/// What a copy may rely on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needed {
    /// On nothing that is in the vault.
    pub(crate) anew: bool,
    /// On nothing that somebody may remove before.
    pub(crate) locked_until: Option<Timestamp>,
}

/// Makes copies as one stream.
trait Engine {
    fn kind(&self) -> EngineKind;

    /// The program, ready to run; it writes the copy to its output.
    fn program(&self, tools: &Tools, source: &Source) -> Command;

    /// What the program said: the write-ahead log that belongs to the copy.
    fn wal(&self, said: &str) -> Result<Option<(u32, Lsn, Lsn)>, RecoveryError>;
}

struct Physical;

impl Engine for Physical {
    fn kind(&self) -> EngineKind {
        EngineKind::Physical
    }

    fn program(&self, tools: &Tools, source: &Source) -> Command {
        let mut command = tools.client("pg_basebackup");
        source.tell(&mut command).args([
            "-D",
            "-",
            "--format=tar",
            "--wal-method=fetch",
            "--checkpoint=fast",
            "--no-password",
            "--verbose",
        ]);
        // It takes the database's name for one it may not have.
        command.env_remove("PGDATABASE");
        command
    }

    fn wal(&self, said: &str) -> Result<Option<(u32, Lsn, Lsn)>, RecoveryError> {
        let after = |mark: &str| said.lines().find_map(|line| Some(line.split_once(mark)?.1.trim().to_owned()));
        let start = after("write-ahead log start point: ").and_then(|text| {
            let (lsn, timeline) = text.split_once(" on timeline ")?;
            Some((lsn.parse::<Lsn>().ok()?, timeline.parse::<u32>().ok()?))
        });
        let end = after("write-ahead log end point: ").and_then(|text| text.parse::<Lsn>().ok());
        match (start, end) {
            (Some((start, timeline)), Some(end)) if start < end => Ok(Some((timeline, start, end))),
            _ => Err(RecoveryError::Damaged("`pg_basebackup` did not say which write-ahead log belongs to the copy".to_owned())),
        }
    }
}

struct Logical;

impl Engine for Logical {
    fn kind(&self) -> EngineKind {
        EngineKind::Logical
    }

    fn program(&self, tools: &Tools, source: &Source) -> Command {
        let mut command = tools.client("pg_dump");
        source.tell(&mut command).args(["--format=custom", "--compress=0", "--no-password", "--exclude-schema=reprieve"]);
        command
    }

    fn wal(&self, _said: &str) -> Result<Option<(u32, Lsn, Lsn)>, RecoveryError> {
        Ok(None)
    }
}

#[derive(Deserialize)]
struct Server {
    version: String,
    number: u32,
    cluster: String,
    superuser: String,
    replicates: bool,
    segment_bytes: u64,
}

impl Server {
    fn ask(source: &Source, tools: &Tools) -> Result<Self, RecoveryError> {
        let sql = "SELECT pg_catalog.json_build_object('version', pg_catalog.version(),
             'number', pg_catalog.current_setting('server_version_num')::int / 10000,
             'cluster', (SELECT system_identifier FROM pg_catalog.pg_control_system())::text,
             'segment_bytes', pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')),
             'superuser', (SELECT rolname FROM pg_catalog.pg_roles WHERE oid = 10),
             'replicates', (SELECT rolsuper OR rolreplication FROM pg_catalog.pg_roles WHERE rolname = current_user))";
        source.json(tools, sql, ASK)
    }
}

/// Makes a copy and puts it into the vault. Blocks.
#[allow(clippy::too_many_arguments, reason = "from where, to where, for whom, by whom")]
pub fn backup(
    system: &SystemName,
    source: &Source,
    vault: &Vault,
    handle: &Handle,
    recipients: &Recipients,
    signer: &Signer,
    clock: &dyn Clock,
    options: &BackupOptions,
) -> Result<(Manifest, ObjectRef), RecoveryError> {
    let began = clock.now();
    handle.block_on(vault.health())?;
    let server = Server::ask(source, &Tools::find(None)?)?;
    // A newer `pg_dump` reads older servers; `pg_basebackup` and what restores have to fit.
    let tools = Tools::find(Some(server.number))?;
    let engine: Box<dyn Engine> = match (options.engine, server.replicates) {
        (EngineChoice::Auto | EngineChoice::Physical, true) => Box::new(Physical),
        (EngineChoice::Physical, false) => {
            return Err(RecoveryError::Refused(format!(
                "the role `{}` may not replicate: ALTER ROLE … REPLICATION, or engine = \"logical\"",
                source.user
            )));
        }
        (EngineChoice::Auto, false) | (EngineChoice::Logical, _) => Box::new(Logical),
    };
    let all = engine.kind() == EngineKind::Physical;
    let before = survey(source, &tools, all, false)?;
    if total(&before) == 0 && !options.allow_empty {
        let address = source.address();
        return Err(RecoveryError::Refused(format!(
            "no table at {address} has a single row that may be counted: this is hardly what is to be kept (allow_empty = true if it is)"
        )));
    }
    let _kept = if all { KeptWal::by(source, &tools) } else { None };
    let mut running = Running::start(engine.program(&tools, source))?;
    let output = running.output.take().ok_or_else(|| RecoveryError::Damaged("a program has no output".to_owned()))?;
    let locked_until = options.locked_for.map(|time| began.plus(time));
    let needed = Needed { anew: options.anew, locked_until };
    let sealed = seal_chunks(vault, handle, recipients, system, needed, output);
    let said = running.end();
    let (sealed, said) = match (sealed, said) {
        (Ok(sealed), Ok(said)) => (sealed, said),
        (Ok(sealed), Err(error)) => {
            forget(vault, handle, &sealed.fresh);
            return Err(error);
        }
        // A program that could not write says so because nobody read on.
        (Err((error, fresh)), _) => {
            forget(vault, handle, &fresh);
            return Err(error);
        }
    };
    // What is relied on has to be there to the end, whoever purges meanwhile.
    let stands = still_there(vault, handle, &sealed.objects).and_then(|()| match locked_until {
        Some(until) => locked(vault, handle, sealed.all(), until).map(drop),
        None => Ok(()),
    });
    if let Err(error) = stands {
        forget(vault, handle, &sealed.fresh);
        return Err(error);
    }
    let wal = engine.wal(&said)?;
    let after = survey(source, &tools, all, false)?;
    let (plain_bytes, stored_bytes, added_bytes) = (sealed.plain_bytes, size_of(sealed.all()), size_of(&sealed.fresh));
    let contents = Contents { objects: sealed.objects, keys: Some(sealed.keys), before, after };
    let manifest = |contents| Manifest {
        point: format!("R-{:08x}", rand::random::<u32>()),
        system: system.clone(),
        engine: engine.kind(),
        began,
        ended: clock.now(),
        version: server.version,
        major: server.number,
        cluster: server.cluster,
        address: source.address(),
        superuser: server.superuser,
        database: source.database.clone(),
        wal,
        segment_bytes: server.segment_bytes,
        contents,
        plain_bytes,
        stored_bytes,
        added_bytes,
        recipients: recipients.as_text(),
    };
    handle.block_on(close(vault, &contents, manifest, signer))
}

/// Whether all of it is in the vault at the end.
fn still_there(vault: &Vault, handle: &Handle, objects: &[ObjectRef]) -> Result<(), RecoveryError> {
    let mut looked = HashSet::new();
    objects.iter().filter(|object| looked.insert(object.digest)).try_for_each(|object| {
        if handle.block_on(vault.exists(object.digest))? { Ok(()) } else { Err(VaultError::Missing(object.digest).into()) }
    })
}

fn size_of<'o>(objects: impl IntoIterator<Item = &'o ObjectRef>) -> u64 {
    let mut counted = HashSet::new();
    objects.into_iter().filter(|object| counted.insert(object.digest)).map(|object| object.stored_bytes).sum()
}

/// Whether nobody can remove any of these before a time; answers until when. What can't be read is not locked.
pub(crate) fn locked<'o>(
    vault: &Vault,
    handle: &Handle,
    objects: impl IntoIterator<Item = &'o ObjectRef>,
    until: Timestamp,
) -> Result<Timestamp, RecoveryError> {
    let mut earliest = Timestamp(u64::MAX);
    let mut looked = HashSet::new();
    for object in objects.into_iter().filter(|object| looked.insert(object.digest)) {
        match handle.block_on(vault.lock(object.digest))? {
            Lock::Until(locked) if locked.plus(SKEW) >= until => earliest = earliest.min(locked),
            Lock::Until(_) => {
                return Err(RecoveryError::Check(format!("`{}` is locked for a shorter time than is promised", object.digest)));
            }
            Lock::Weak => return Err(RecoveryError::Check(format!("`{}` is locked, and a right goes around its lock", object.digest))),
            Lock::None => return Err(RecoveryError::Check(format!("`{}` is not locked: whoever may delete can", object.digest))),
        }
    }
    Ok(earliest)
}

/// Takes half a copy away again. What can't be taken away has no manifest, and counts for nothing.
fn forget(vault: &Vault, handle: &Handle, objects: &[ObjectRef]) {
    for object in objects {
        if let Err(error) = handle.block_on(vault.delete(object.digest)) {
            tracing::debug!(%error, "part of a copy that failed stays in the vault");
        }
    }
}

/// A program that writes a copy to its output.
struct Running {
    name: String,
    child: Child,
    output: Option<ChildStdout>,
    said: JoinHandle<Vec<u8>>,
}

impl Running {
    fn start(mut command: Command) -> Result<Self, RecoveryError> {
        let name = name(&command);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| RecoveryError::Spawn { program: name.clone(), source })?;
        let said: Option<ChildStderr> = child.stderr.take();
        Ok(Self { name, output: child.stdout.take(), said: collect(said), child })
    }

    /// What it said, if it ended well. It has ended, or nobody reads its output any more.
    fn end(mut self) -> Result<String, RecoveryError> {
        let status = self.child.wait().map_err(|source| RecoveryError::Spawn { program: self.name.clone(), source })?;
        let said = self.said.join().unwrap_or_default();
        if status.success() {
            Ok(String::from_utf8_lossy(&said).into_owned())
        } else {
            Err(RecoveryError::Tool { program: self.name, said: tail(&said) })
        }
    }
}

/// A slot that keeps the write-ahead log of a copy on the server until it is made. It goes with its connection.
struct KeptWal(Child);

impl KeptWal {
    /// None where the server gives no slot; a copy whose log is gone then fails by itself.
    fn by(source: &Source, tools: &Tools) -> Option<Self> {
        let mut command = tools.client("psql");
        source.tell(&mut command).args(["-X", "-q", "-A", "-t", "-f", "-"]);
        let mut kept = Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?);
        let sql = format!(
            "SELECT slot_name FROM pg_catalog.pg_create_physical_replication_slot('reprieve_copy_{:08x}', true, true);\nSELECT 'asked';\n",
            rand::random::<u32>()
        );
        let input = kept.0.stdin.as_mut()?;
        input.write_all(sql.as_bytes()).and_then(|()| input.flush()).ok()?;
        kept.wait_for_answer()
    }

    fn wait_for_answer(mut self) -> Option<Self> {
        let mut lines = BufReader::new(self.0.stdout.take()?).lines();
        let first = lines.next()?.ok()?;
        if first.starts_with("reprieve_copy_") { Some(self) } else { None }
    }
}

impl Drop for KeptWal {
    fn drop(&mut self) {
        // The end of its input ends it; the slot goes with the connection.
        drop(self.0.stdin.take());
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_that_belongs_to_a_copy_is_read() {
        let said = "pg_basebackup: initiating base backup\npg_basebackup: write-ahead log start point: 0/2000028 on timeline 1\n\
                    pg_basebackup: write-ahead log end point: 0/2000100\npg_basebackup: base backup completed\n";
        assert_eq!(Physical.wal(said).expect("said"), Some((1, Lsn(0x200_0028), Lsn(0x200_0100))));
        for wrong in ["", "write-ahead log end point: 0/2000100", &said.replace("end point: 0/2000100", "end point: 0/1")] {
            assert!(Physical.wal(wrong).is_err(), "{wrong}");
        }
    }
}
