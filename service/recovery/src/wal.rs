//! The write-ahead log between copies: received by `pg_receivewal`, and brought into the vault as it comes.
//!
//! A segment that is full is stored once; the one that is being filled again and again, at least every second while something is
//! committed. Each is one object: a signed note that says what it is, and the sealed bytes. An index beside the received files
//! says which object is which; it can be lost, and is then read from the vault.

mod broken;
mod coverage;
mod index;
mod receiver;
mod standing;

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use reprieve_gate::{Audit, Clock};
use reprieve_ledger::{Signer, Verifier};
use reprieve_operation::{Digest, Event, SystemName, Timestamp};
use reprieve_vault::{ObjectRef, Vault};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::{
    DrillKey, Recipients, RecoveryError, Source, Tools,
    look::look_through,
    note::{sign, statement},
    seal::{open_bytes, seal_bytes},
    slot::slot_name,
    tools::{free_bytes, run},
};

pub(crate) use self::standing::read_history;
use self::{
    coverage::write_coverage,
    index::Stored,
    receiver::{Receiver, end_stale},
    standing::{Progress, Stalled, Standing, told_gone},
};
pub use self::{
    coverage::{Coverage, read_coverage},
    index::read_index,
};

const MAGIC: &str = "reprieve wal 1\n";
/// The digits of the note's length.
const LENGTH: usize = 8;
/// The largest object with a segment: PostgreSQL's largest segment, and room.
const OBJECT_BYTES: u64 = (1 << 30) + (1 << 20);
/// How often what was received is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often the segment that is being filled is stored, at most.
const PARTIAL_EVERY: Duration = Duration::from_millis(800);
/// How long what a newer object holds too stays: whoever restores may have just read its name.
const KEEP_REPLACED: Duration = Duration::from_secs(60);
/// How long nothing may be received before people are told.
const ALARM_AFTER: Duration = Duration::from_secs(60);
/// Room that is left alone where the log is received.
const ROOM: u64 = 1 << 30;
/// Lines of the index about what was replaced, after which it is written anew.
const INDEX_LINES: usize = 2_000;
/// A program's longest.
const ASK: Duration = Duration::from_secs(30);

/// A segment in the vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredWal {
    /// The system.
    pub system: SystemName,
    /// Which cluster.
    pub cluster: String,
    /// The file's name, without `.partial`.
    pub file: String,
    /// Whether it was still being filled.
    pub partial: bool,
    /// When it was stored.
    pub at: Timestamp,
    /// Of the sealed bytes.
    pub digest: Digest,
    /// Where; missing in the note itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectRef>,
}

impl StoredWal {
    /// Which of two of the same file is the one to replay.
    fn holds_more_than(&self, other: &Self) -> bool {
        (other.partial, std::cmp::Reverse(other.at)) > (self.partial, std::cmp::Reverse(self.at))
    }
}

/// How the log is kept.
#[derive(Debug, Clone)]
pub struct WalOptions {
    /// The system.
    pub system: SystemName,
    /// Where it is received: a folder of ours.
    pub folder: PathBuf,
    /// Whether the server may wait for us at each commit: then we write and confirm at once.
    pub synchronous: bool,
}

/// Keeps one system's write-ahead log.
pub struct WalKeeper {
    options: WalOptions,
    source: Source,
    recipients: Recipients,
    signer: Signer,
    clock: Arc<dyn Clock>,
    audit: Arc<dyn Audit>,
    stop: AtomicBool,
    coverage: Mutex<Coverage>,
}

impl WalKeeper {
    /// A keeper that has not begun.
    #[must_use]
    pub fn new(
        options: WalOptions,
        source: Source,
        recipients: Recipients,
        signer: Signer,
        clock: Arc<dyn Clock>,
        audit: Arc<dyn Audit>,
    ) -> Self {
        Self { options, source, recipients, signer, clock, audit, stop: AtomicBool::new(false), coverage: Mutex::default() }
    }

    /// Ends it within a moment.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Keeps until it is stopped. Blocks: a thread of its own.
    pub fn run(&self, vault: &Vault, handle: &Handle) {
        let mut outage = Outage::default();
        while !self.stop.load(Ordering::Relaxed) {
            let Err(error) = self.receive(vault, handle, &mut outage) else { return };
            self.troubled(&mut outage, &error);
            thread::sleep(Duration::from_secs(1));
        }
    }

    fn troubled(&self, outage: &mut Outage, error: &RecoveryError) {
        let what = error.in_words();
        let since = *outage.since.get_or_insert_with(Instant::now);
        outage.well_since = None;
        let is_new = self.note(|coverage| {
            coverage.since.get_or_insert_with(|| self.clock.now());
            coverage.trouble = Some(what.clone());
        });
        if is_new {
            tracing::warn!(system = %self.options.system, error = %what, "the write-ahead log does not reach the vault");
        }
        if !outage.told && since.elapsed() > ALARM_AFTER {
            let what = format!("what is committed in `{}` does not reach the vault: {what}", self.options.system);
            drop(self.audit.append(Event::Alarm { what, agent: None }));
            outage.told = true;
        }
    }

    fn well(&self, outage: &mut Outage) {
        self.note(|coverage| (coverage.since, coverage.trouble) = (None, None));
        // What fails again and again, with a good moment in between, is one outage.
        if outage.well_since.get_or_insert_with(Instant::now).elapsed() > ALARM_AFTER {
            (outage.since, outage.told) = (None, false);
        }
    }

    /// Notes how it stands; whether that is something new.
    fn note(&self, change: impl FnOnce(&mut Coverage)) -> bool {
        let mut coverage = self.coverage.lock().unwrap_or_else(PoisonError::into_inner);
        let before = coverage.clone();
        change(&mut coverage);
        if *coverage == before {
            return false;
        }
        if let Err(error) = write_coverage(&self.options.folder, &coverage) {
            tracing::debug!(%error, "how far the log is stored can't be noted");
        }
        true
    }

    /// All that was committed until then is in the vault, since the log began.
    #[must_use]
    pub fn covered_until(&self) -> Option<Timestamp> {
        self.coverage.lock().unwrap_or_else(PoisonError::into_inner).until
    }

    fn slot(&self) -> String {
        slot_name(&self.options.system)
    }

    fn receive(&self, vault: &Vault, handle: &Handle, outage: &mut Outage) -> Result<(), RecoveryError> {
        let tools = Tools::find(None)?;
        let folder = &self.options.folder;
        fs::create_dir_all(folder).map_err(RecoveryError::file(format!("make `{}`", folder.display())))?;
        let slot = self.slot();
        end_stale(folder);
        let asked = Standing::ask(&self.source, &tools, &slot)?;
        if let Some(reason) = self.why_not(&asked, &tools)? {
            self.begin_anew(vault, handle, &tools, &reason)?;
        }
        let cluster = asked.cluster.clone();
        self.mark(&cluster)?;
        self.make_slot(&tools)?;
        let mut receiver = Receiver::start(&self.source, &tools, folder, &slot, self.options.synchronous)?;
        let mut stored = Stored::open(folder)?;
        let mut progress = Progress::new();
        while !self.stop.load(Ordering::Relaxed) {
            if let Err(error) = receiver.check() {
                drop(receiver);
                match told_gone(&error).filter(|_| !asked.standby) {
                    Some(reason) if asked.reached(folder)?.is_some() => self.begin_anew(vault, handle, &tools, &reason)?,
                    // Nothing is lost that was not told of: the slot is another cluster's, or one of an older time.
                    Some(_) => self.drop_slot(&tools)?,
                    None => {}
                }
                return Err(error);
            }
            match progress.look(folder, self.clock.now(), || Standing::ask(&self.source, &tools, &slot)) {
                Ok(()) => {}
                // It is ended, and begun again.
                Err(Stalled::For(what)) => return Err(RecoveryError::Refused(what)),
                Err(Stalled::Unknown(error)) => self.troubled(outage, &error),
            }
            // A vault that is away is no reason to receive nothing: what is here can be restored here.
            match self.store(vault, handle, &cluster, &mut stored) {
                Ok(()) if progress.well && !stored.is_behind => {
                    self.well(outage);
                    if let Some((until, lsn)) = progress.reached.take() {
                        let cluster = Some(cluster.clone());
                        self.note(|coverage| (coverage.until, coverage.lsn, coverage.cluster) = (Some(until), Some(lsn), cluster));
                    }
                }
                Ok(()) => {}
                Err(error) if free_bytes(folder)? > ROOM => self.troubled(outage, &error),
                Err(error) => {
                    let what = format!("{}; and there is no room to receive more: the server keeps its log meanwhile", error.in_words());
                    return Err(RecoveryError::Refused(what));
                }
            }
            thread::sleep(LOOK_EVERY);
        }
        // The slot is free for the next gateway whatever the vault does.
        drop(receiver);
        self.store(vault, handle, &cluster, &mut stored)
    }

    fn make_slot(&self, tools: &Tools) -> Result<(), RecoveryError> {
        let mut make = tools.client("pg_receivewal");
        self.source.tell(&mut make).env_remove("PGDATABASE");
        make.args(["--create-slot", "--if-not-exists", "--no-password", "--slot", &self.slot()]);
        run(make, ASK).map(drop)
    }

    /// Brings what is new into the vault.
    fn store(&self, vault: &Vault, handle: &Handle, cluster: &str, stored: &mut Stored) -> Result<(), RecoveryError> {
        let folder = &self.options.folder;
        let files = received(folder)?;
        stored.is_behind = false;
        let newest_whole = files.iter().filter(|(file, partial)| !partial && is_segment(file)).map(|(file, _)| file.clone()).max();
        for (file, partial) in files {
            let path = folder.join(if partial { format!("{file}.partial") } else { file.clone() });
            let mut changed = None;
            if partial {
                changed = fs::metadata(&path).and_then(|found| found.modified()).ok();
                let due = stored.partial_at.is_none_or(|at| at.elapsed() >= PARTIAL_EVERY);
                if stored.partial.get(&file).is_some_and(|known| *known == changed) {
                    continue;
                }
                if !due || changed.is_none() {
                    stored.is_behind = true;
                    continue;
                }
                stored.partial_at = Some(Instant::now());
            } else if stored.index.get(&file).is_some_and(|known| !known.partial) {
                // The receiver looks at the newest to know where to go on.
                if newest_whole.as_ref() != Some(&file) && is_segment(&file) {
                    let _next_time = fs::remove_file(&path);
                }
                continue;
            }
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                // It was just closed, and has its whole name now.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    stored.is_behind = true;
                    continue;
                }
                Err(error) => return Err(RecoveryError::file(format!("read `{}`", path.display()))(error)),
            };
            let put = self.put(vault, handle, cluster, &file, partial, &bytes)?;
            stored.add(folder, put)?;
            // Not before: one that could not be stored is tried again though nothing was added to it.
            if partial {
                stored.partial.insert(file, changed);
            } else {
                stored.partial.remove(&file);
            }
        }
        while let Some((_, part)) = stored.replaced.pop_front_if(|(since, _)| since.elapsed() > KEEP_REPLACED) {
            let Some(object) = part.object else { continue };
            // Where objects are locked it stays until the lock ends.
            if let Err(error) = handle.block_on(vault.delete(object.digest)) {
                tracing::debug!(%error, "an older part of the log stays in the vault");
            }
        }
        if stored.lines > INDEX_LINES + stored.index.len() {
            stored.write_anew(folder)?;
        }
        Ok(())
    }

    fn put(
        &self,
        vault: &Vault,
        handle: &Handle,
        cluster: &str,
        file: &str,
        partial: bool,
        bytes: &[u8],
    ) -> Result<StoredWal, RecoveryError> {
        let sealed = seal_bytes(&self.recipients, bytes)?;
        let mut wal = StoredWal {
            system: self.options.system.clone(),
            cluster: cluster.to_owned(),
            file: file.to_owned(),
            partial,
            at: self.clock.now(),
            digest: Digest::of(&[&sealed]),
            object: None,
        };
        let note = sign(&wal, &self.signer)?;
        let mut object = format!("{MAGIC}{:0LENGTH$}\n{note}", note.len()).into_bytes();
        object.extend_from_slice(&sealed);
        wal.object = Some(handle.block_on(vault.put_bytes(Bytes::from(object)))?);
        Ok(wal)
    }
}

/// A time in which nothing came to the vault.
#[derive(Default)]
struct Outage {
    since: Option<Instant>,
    well_since: Option<Instant>,
    told: bool,
}

/// The files with parts of the log, oldest first, and whether they are still being filled.
pub(crate) fn received(folder: &Path) -> Result<Vec<(String, bool)>, RecoveryError> {
    let doing = || RecoveryError::file(format!("look into `{}`", folder.display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(doing())? {
        let name = entry.map_err(doing())?.file_name().to_string_lossy().into_owned();
        let whole = name.strip_suffix(".partial").unwrap_or(&name);
        if is_segment(whole) || is_history(whole) {
            found.push((whole.to_owned(), whole != name));
        }
    }
    found.sort();
    Ok(found)
}

/// Of which cluster the files in a folder are.
pub(crate) fn received_cluster(folder: &Path) -> Result<Option<String>, RecoveryError> {
    match fs::read_to_string(folder.join("cluster")) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(RecoveryError::file(format!("look into `{}`", folder.display()))(error)),
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte))
}

pub(crate) fn is_segment(name: &str) -> bool {
    name.len() == 24 && is_hex(name)
}

pub(crate) fn is_history(name: &str) -> bool {
    name.strip_suffix(".history").is_some_and(|timeline| timeline.len() == 8 && is_hex(timeline))
}

/// The number of a segment in its timeline, and the timeline.
pub(crate) fn numbered(name: &str, segment_bytes: u64) -> Option<(u64, u32)> {
    if !is_segment(name) || !segment_bytes.is_power_of_two() || segment_bytes > 1 << 32 {
        return None;
    }
    let part = |range: std::ops::Range<usize>| u32::from_str_radix(name.get(range)?, 16).ok();
    let (timeline, log, segment) = (part(0..8)?, part(8..16)?, part(16..24)?);
    Some((u64::from(log) * ((1 << 32) / segment_bytes) + u64::from(segment), timeline))
}

/// The same from the vault itself: every object with a part of this cluster's log.
pub(crate) fn find_wal(
    vault: &Vault,
    handle: &Handle,
    key: &Verifier,
    system: &SystemName,
    cluster: &str,
) -> Result<BTreeMap<String, StoredWal>, RecoveryError> {
    let mut found: BTreeMap<String, StoredWal> = BTreeMap::new();
    handle.block_on(look_through(
        vault,
        |_| true,
        0,
        |object, head| {
            let Some((note, _)) = split(head) else { return };
            let Ok(wal) = statement::<StoredWal>(note, key) else { return };
            let newer = found.get(&wal.file).is_none_or(|known| wal.holds_more_than(known));
            if wal.system == *system && wal.cluster == cluster && newer {
                found.insert(wal.file.clone(), StoredWal { object: Some(object), ..wal });
            }
        },
    ))?;
    Ok(found)
}

/// The note and the sealed bytes of an object; the bytes may be cut off where only its beginning was read.
fn split(object: &[u8]) -> Option<(&str, &[u8])> {
    let rest = object.strip_prefix(MAGIC.as_bytes())?;
    let (length, rest) = rest.split_at_checked(LENGTH)?;
    let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
    let (note, sealed) = rest.strip_prefix(b"\n")?.split_at_checked(length)?;
    Some((std::str::from_utf8(note).ok()?, sealed))
}

/// Fetches one part of the log and checks who signed it.
pub(crate) fn fetch(
    vault: &Vault,
    handle: &Handle,
    wal: &StoredWal,
    key: &Verifier,
    identity: &DrillKey,
) -> Result<Vec<u8>, RecoveryError> {
    let damaged = |what: &str| RecoveryError::Damaged(format!("`{}` of the write-ahead log {what}", wal.file));
    let object = wal.object.as_ref().ok_or_else(|| damaged("is nowhere"))?;
    let bytes = handle.block_on(vault.get_bytes(object, OBJECT_BYTES))?;
    let (note, sealed) = split(&bytes).ok_or_else(|| damaged("is something else"))?;
    let signed: StoredWal = statement(note, key)?;
    if (&signed.system, &signed.cluster, &signed.file, signed.digest) != (&wal.system, &wal.cluster, &wal.file, Digest::of(&[sealed])) {
        return Err(damaged("is not what was signed"));
    }
    let mut plain = Vec::new();
    open_bytes(identity, sealed)?
        .take(OBJECT_BYTES)
        .read_to_end(&mut plain)
        .map_err(RecoveryError::file("open a part of the write-ahead log"))?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_told_apart_and_numbered() {
        for (name, number) in [
            ("000000010000000000000001", Some((1, 1))),
            ("0000000200000001000000FF", Some((511, 2))),
            ("00000001000000000000000", None),
            ("00000001000000000000000g", None),
            ("00000002.history", None),
        ] {
            assert_eq!(numbered(name, 16 << 20), number, "{name}");
        }
        assert!(is_history("00000002.history") && !is_history("2.history"));
        assert_eq!(numbered("000000010000000000000001", 0), None);
    }

    #[test]
    fn an_object_is_split_or_it_is_something_else() {
        assert_eq!(split(b"reprieve wal 1\n00000002\nabXY"), Some(("ab", b"XY".as_slice())));
        for wrong in [b"".as_slice(), b"reprieve wal 1\n", b"reprieve wal 1\n00000009\nab", b"reprieve wal 1\n0000000x\nab", b"rows"] {
            assert_eq!(split(wrong), None, "{wrong:?}");
        }
    }
}
