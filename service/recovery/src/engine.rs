//! Engines: how a copy is made. Each kind of system has its own, behind one trait: what it looks like, and its contents as one stream.
//!
//! Whatever the engine, the stream is sealed and stored while it comes. A copy counts from the moment its manifest is in the vault.

mod files;
mod pgbackrest;
mod postgres;
mod sqlite;

use std::{collections::HashSet, io::Read, path::PathBuf, time::Duration};

use reprieve_gate::Clock;
use reprieve_ledger::Signer;
use reprieve_operation::{SystemName, Timestamp};
use reprieve_vault::{Lock, ObjectRef, Vault, VaultError};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::{
    Contents, Manifest, Recipients, RecoveryError, Source, Stanza,
    chunks::seal_chunks,
    manifest::{Lsn, close},
    pgbackrest::Elsewhere,
    survey::Survey,
};

pub(crate) use files::FILES;

/// Two machines' clocks may differ by this much.
pub(crate) const SKEW: Duration = Duration::from_secs(60);

/// By which engine a copy is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// `pg_basebackup`: the whole cluster, file by file; can be brought forward to any moment by the write-ahead log.
    Physical,
    /// `pg_dump`: one database's contents; for servers that let nobody replicate.
    Logical,
    /// pgBackRest: the whole cluster in its own repository, and the write-ahead log with it.
    Pgbackrest,
    /// A folder with everything in it.
    Files,
    /// A SQLite database, as it is at one moment.
    Sqlite,
}

impl EngineKind {
    /// What PostgreSQL is copied by.
    pub const OF_POSTGRES: &'static [Self] = &[Self::Physical, Self::Logical, Self::Pgbackrest];
    /// What a folder is copied by.
    pub const OF_FILES: &'static [Self] = &[Self::Files];
    /// What a SQLite database is copied by.
    pub const OF_SQLITE: &'static [Self] = &[Self::Sqlite];

    /// In one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Physical => "physical",
            Self::Logical => "logical",
            Self::Pgbackrest => "pgbackrest",
            Self::Files => "files",
            Self::Sqlite => "sqlite",
        }
    }
}

/// Which engine to take for PostgreSQL.
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
    /// By pgBackRest, into a stanza that is there.
    Pgbackrest,
}

impl EngineChoice {
    /// What it comes to with a role that may replicate or not; none: no copy can be made.
    #[must_use]
    pub fn kind(self, replicates: bool) -> Option<EngineKind> {
        match (self, replicates) {
            (Self::Auto | Self::Physical, true) => Some(EngineKind::Physical),
            (Self::Physical, false) => None,
            (Self::Auto, false) | (Self::Logical, _) => Some(EngineKind::Logical),
            (Self::Pgbackrest, _) => Some(EngineKind::Pgbackrest),
        }
    }
}

/// What is copied.
#[derive(Debug, Clone)]
pub enum Subject {
    /// A PostgreSQL server.
    Postgres {
        /// The login.
        source: Source,
        /// By which engine.
        engine: EngineChoice,
    },
    /// A PostgreSQL server with a stanza of pgBackRest's.
    Stanza {
        /// The login.
        source: Source,
        /// Which.
        stanza: Stanza,
    },
    /// A folder.
    Files {
        /// Which.
        folder: PathBuf,
        /// What in it is not copied: paths from there.
        leave_out: Vec<PathBuf>,
    },
    /// A SQLite database.
    Sqlite {
        /// Its file.
        file: PathBuf,
        /// Where it lies while it is copied.
        scratch: PathBuf,
    },
}

impl Subject {
    fn open(&self, anew: bool, now: Timestamp) -> Result<Box<dyn Engine>, RecoveryError> {
        Ok(match self {
            Self::Postgres { engine: EngineChoice::Pgbackrest, .. } => {
                return Err(RecoveryError::Refused("no stanza of pgBackRest's is named".to_owned()));
            }
            Self::Stanza { source, stanza } => Box::new(pgbackrest::PgBackRest::open(source, stanza, anew, now)?),
            Self::Postgres { source, engine } => Box::new(postgres::Postgres::open(source, *engine)?),
            Self::Files { folder, leave_out } => Box::new(files::Files::open(folder, leave_out)?),
            Self::Sqlite { file, scratch } => Box::new(sqlite::Sqlite::open(file, scratch)?),
        })
    }
}

/// How a copy is to be made.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// Whether something empty is worth a copy. Mostly it is the wrong one.
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

/// The write-ahead log that makes a copy consistent: timeline, from, to.
type Wal = (u32, Lsn, Lsn);

/// How copying ended.
#[derive(Default)]
struct Ended {
    /// The log that belongs to the copy.
    wal: Option<Wal>,
    /// Where it lies, if the stream is only its list; and its sizes there.
    elsewhere: Option<(Elsewhere, (u64, u64, u64))>,
}

/// Where a copy is of, for its manifest.
struct Origin {
    kind: EngineKind,
    version: String,
    major: u32,
    cluster: String,
    address: String,
    superuser: String,
    database: String,
    segment_bytes: u64,
}

/// Something that can be copied.
trait Engine {
    /// Where it is.
    fn origin(&self) -> Origin;

    /// What it looks like, in numbers that a restored copy has to stand. Asked before and after copying.
    fn survey(&mut self) -> Result<Survey, RecoveryError>;

    /// Says that there is nothing in it, if that is so.
    fn emptiness(&self, survey: &Survey) -> Option<String>;

    /// Begins to copy.
    fn start(&mut self) -> Result<Box<dyn Copying>, RecoveryError>;
}

/// A copy that is being made.
trait Copying {
    /// Its contents. Their end is no sign that all went well: see [`Copying::end`].
    fn stream(&mut self) -> Result<Box<dyn Read>, RecoveryError>;

    /// Whether all of it was copied, once nobody reads any more.
    fn end(self: Box<Self>) -> Result<Ended, RecoveryError>;
}

/// Makes a copy and puts it into the vault. Blocks.
#[allow(clippy::too_many_arguments, reason = "from where, to where, for whom, by whom")]
pub fn backup(
    system: &SystemName,
    subject: &Subject,
    vault: &Vault,
    handle: &Handle,
    recipients: &Recipients,
    signer: &Signer,
    clock: &dyn Clock,
    options: &BackupOptions,
) -> Result<(Manifest, ObjectRef), RecoveryError> {
    let began = clock.now();
    handle.block_on(vault.health())?;
    let mut engine = subject.open(options.anew, began)?;
    let before = engine.survey()?;
    if let Some(empty) = engine.emptiness(&before).filter(|_| !options.allow_empty) {
        return Err(RecoveryError::Refused(format!("{empty}: this is hardly what is to be kept (allow_empty = true if it is)")));
    }
    let mut running = engine.start()?;
    let output = running.stream()?;
    let locked_until = options.locked_for.map(|time| began.plus(time));
    let needed = Needed { anew: options.anew, locked_until };
    let sealed = seal_chunks(vault, handle, recipients, system, needed, output);
    let ended = running.end();
    let (sealed, Ended { wal, elsewhere }) = match (sealed, ended) {
        (Ok(sealed), Ok(ended)) => (sealed, ended),
        (Ok(sealed), Err(error)) => {
            forget(vault, handle, &sealed.own);
            return Err(error);
        }
        // Whoever could not write says so because nobody read on.
        (Err((error, own)), _) => {
            forget(vault, handle, &own);
            return Err(error);
        }
    };
    // What is relied on has to be there to the end, whoever purges meanwhile.
    let stands = still_there(vault, handle, &sealed.objects).and_then(|()| match locked_until {
        Some(until) => locked(vault, handle, sealed.all(), until).map(drop),
        None => Ok(()),
    });
    if let Err(error) = stands {
        forget(vault, handle, &sealed.own);
        return Err(error);
    }
    let (after, origin) = (engine.survey()?, engine.origin());
    let sealed_bytes = (sealed.plain_bytes, size_of(sealed.all()), size_of(&sealed.fresh));
    let (elsewhere, sizes) = elsewhere.unzip();
    let (plain_bytes, stored_bytes, added_bytes) = sizes.unwrap_or(sealed_bytes);
    let contents = Contents { objects: sealed.objects, keys: Some(sealed.keys), before, after };
    let manifest = |contents| Manifest {
        point: format!("R-{:08x}", rand::random::<u32>()),
        system: system.clone(),
        engine: origin.kind,
        began,
        ended: clock.now(),
        version: origin.version,
        major: origin.major,
        cluster: origin.cluster,
        address: origin.address,
        superuser: origin.superuser,
        database: origin.database,
        wal,
        segment_bytes: origin.segment_bytes,
        elsewhere,
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
        match handle.block_on(vault.lock(object.digest, until))? {
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
