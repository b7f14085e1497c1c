//! What is brought back from the vault: a copy's files, and the log that was received after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use reprieve_vault::VaultError;

use super::{Ground, Phases, STEP, Supply, each, feed, open_copy};
use crate::{
    Contents, Lsn, Manifest, RecoveryError, Tools, read_index,
    tools::{PIPE, run},
    wal::{self, StoredWal},
};

/// A copy in the vault.
pub(super) struct FromVault<'a> {
    ground: Ground<'a>,
    tools: &'a Tools,
    manifest: &'a Manifest,
    contents: &'a Contents,
    /// Whether the log has to be there to its end; a moment may lie before what is missing, and the server tells whether it came to it.
    to_the_end: bool,
    wal: Vec<StoredWal>,
    here: Vec<(String, PathBuf)>,
}

impl<'a> FromVault<'a> {
    pub(super) fn new(ground: Ground<'a>, tools: &'a Tools, manifest: &'a Manifest, contents: &'a Contents, to_the_end: bool) -> Self {
        Self { ground, tools, manifest, contents, to_the_end, wal: Vec::new(), here: Vec::new() }
    }
}

impl Supply for FromVault<'_> {
    fn find_log(&mut self, after: bool, to_keep: bool) -> Result<u64, RecoveryError> {
        if after {
            self.wal = log_after(self.ground, self.manifest, self.to_the_end)?;
            self.here = if to_keep { still_here(self.ground, self.manifest, &self.wal)? } else { Vec::new() };
        }
        Ok((self.wal.len() + self.here.len()) as u64)
    }

    fn bring_files(&self, data: &Path, phases: &mut Phases) -> Result<(), RecoveryError> {
        phases.time("fetch", || {
            open_copy(self.ground, self.contents, self.manifest.plain_bytes, |stream| unpack(self.tools, data, stream))
        })?;
        phases.time("pg_verifybackup", || {
            let mut command = self.tools.served("pg_verifybackup");
            command.arg("--quiet").arg(data);
            run(command, STEP).map(drop)
        })
    }

    fn bring_log(&self, _: &Path, into: &Path) -> Result<BTreeSet<String>, RecoveryError> {
        fetch_log(self.ground, self.manifest, &self.wal, &self.here, into)
    }
}

fn unpack(tools: &Tools, data: &Path, stream: &mut dyn io::Read) -> Result<(), RecoveryError> {
    let mut command = tools.system("tar");
    // In records of half a KiB.
    let factor = format!("--blocking-factor={}", PIPE / 512);
    command.args(["--extract", "--no-same-owner", "--read-full-records", &factor, "--file=-", "--directory"]).arg(data);
    feed(command, stream)
}

/// The parts of the log that come after a copy, without a gap.
fn log_after(ground: Ground<'_>, manifest: &Manifest, to_the_end: bool) -> Result<Vec<StoredWal>, RecoveryError> {
    let mut known = ground.received.map_or_else(|| Ok(Vec::new()), read_index)?;
    known.retain(|wal| wal.system == manifest.system && wal.cluster == manifest.cluster);
    if known.is_empty() {
        known = wal::find_wal(ground.vault, ground.handle, ground.key, &manifest.system, &manifest.cluster)?.into_values().collect();
    }
    let newest = known.iter().filter_map(|part| Some(wal::numbered(&part.file, manifest.segment_bytes)?.1)).max();
    let Some(newest) = newest.filter(|newest| manifest.wal.is_some_and(|(timeline, ..)| *newest > timeline)) else {
        return choose(known, manifest, &[], to_the_end);
    };
    let name = format!("{newest:08X}.history");
    let part = known.iter().find(|part| part.file == name);
    let part = part.ok_or_else(|| RecoveryError::Damaged(format!("`{name}` is missing: nothing tells where that timeline comes from")))?;
    let text = wal::fetch(ground.vault, ground.handle, part, ground.key, ground.identity)?;
    let mut history = wal::read_history(&String::from_utf8_lossy(&text));
    let left = |(timeline, _, end): (u32, Lsn, Lsn)| history.iter().find(|(of, _)| *of == timeline).is_none_or(|(_, until)| *until < end);
    if manifest.wal.is_some_and(left) {
        if to_the_end {
            return Err(RecoveryError::Damaged(format!(
                "this copy is of a timeline that the server has left since, for `{name}`: name a moment, or an earlier copy"
            )));
        }
        let own = manifest.wal.map(|(timeline, ..)| format!("{timeline:08X}")).unwrap_or_default();
        known.retain(|part| part.file.starts_with(&own));
        return choose(known, manifest, &[], to_the_end);
    }
    // Itself, which has not ended.
    history.push((newest, Lsn(u64::MAX)));
    choose(known, manifest, &history, to_the_end)
}

/// `history` are the timelines that the newest comes from, and itself, with where each ended; empty where there is but one. Without
/// `to_the_end`: up to what is missing.
pub(super) fn choose(
    known: Vec<StoredWal>,
    manifest: &Manifest,
    history: &[(u32, Lsn)],
    to_the_end: bool,
) -> Result<Vec<StoredWal>, RecoveryError> {
    let Some((timeline, _, end)) = manifest.wal else { return Ok(Vec::new()) };
    if !manifest.segment_bytes.is_power_of_two() {
        return Err(RecoveryError::Damaged("the manifest tells no size of the log's segments".to_owned()));
    }
    // The copy has the whole segment in which it ends.
    let first = end.0.saturating_sub(1) / manifest.segment_bytes + 1;
    let mut by_number: BTreeMap<u64, Vec<StoredWal>> = BTreeMap::new();
    let mut chosen: Vec<StoredWal> = Vec::new();
    // On which timeline a segment's newest contents are.
    let own = |number: u64| history.iter().find(|(_, until)| number < until.0 / manifest.segment_bytes).map(|(on, _)| *on);
    let is_of = |number: u64, on: u32| {
        history.is_empty() || history.iter().any(|(of, until)| *of == on && number <= until.0 / manifest.segment_bytes)
    };
    for wal in known {
        match wal::numbered(&wal.file, manifest.segment_bytes) {
            // What a timeline has after another one left it was given up.
            Some((number, on)) if number >= first && on >= timeline && is_of(number, on) => by_number.entry(number).or_default().push(wal),
            Some(_) => {}
            // The history of a timeline.
            None => chosen.push(wal),
        }
    }
    let newest = by_number.last_key_value().map(|(number, _)| *number);
    for (expected, (number, segments)) in (first..).zip(by_number) {
        let (own, file) = (own(number), segments[0].file.clone());
        let mut newest_contents = segments
            .iter()
            .filter(|segment| own.is_none_or(|own| wal::numbered(&segment.file, manifest.segment_bytes).is_some_and(|(_, on)| on == own)));
        let missing = match newest_contents.next().map(|segment| newest_contents.all(|other| other.partial) && segment.partial) {
            _ if number != expected => Some(format!("{} segments of the write-ahead log are missing before `{file}`", number - expected)),
            None => Some(format!("what came after `{file}` of the write-ahead log on its timeline is missing")),
            // Only the newest may still have been filled when it was stored.
            Some(true) if newest != Some(number) => Some(format!("the end of `{file}` of the write-ahead log is missing")),
            Some(_) => None,
        };
        match missing {
            Some(missing) if to_the_end => {
                return Err(RecoveryError::Damaged(format!("{missing}: what came later can't be brought back")));
            }
            Some(_) => {
                chosen.extend(segments.into_iter().filter(|_| number == expected));
                break;
            }
            None => chosen.extend(segments),
        }
    }
    Ok(chosen)
}

/// What was received on this machine and is newer than what is in the vault, without a gap: the vault is slower than the server.
/// The names of the files, and where they lie.
fn still_here(ground: Ground<'_>, manifest: &Manifest, wal: &[StoredWal]) -> Result<Vec<(String, PathBuf)>, RecoveryError> {
    let (Some(folder), Some((timeline, _, end))) = (ground.received, manifest.wal) else { return Ok(Vec::new()) };
    if wal::received_cluster(folder)?.as_deref() != Some(manifest.cluster.as_str()) {
        return Ok(Vec::new());
    }
    let stored = wal.iter().filter_map(|part| wal::numbered(&part.file, manifest.segment_bytes)).max();
    // The copy has the whole segment in which it ends.
    let (mut reached, on) = stored.unwrap_or((end.0.saturating_sub(1) / manifest.segment_bytes, timeline));
    let mut found = Vec::new();
    for (file, partial) in wal::received(folder)? {
        let Some((number, timeline)) = wal::numbered(&file, manifest.segment_bytes) else { continue };
        // The newest in the vault may have been stored while it was filled.
        if timeline == on && (number == reached + 1 || (stored.is_some() && number == reached)) {
            reached = number;
            found.push((file.clone(), folder.join(if partial { format!("{file}.partial") } else { file })));
        }
    }
    Ok(found)
}

/// Brings the log to where the server looks for it, and answers the files' names.
fn fetch_log(
    ground: Ground<'_>,
    manifest: &Manifest,
    wal: &[StoredWal],
    here: &[(String, PathBuf)],
    into: &Path,
) -> Result<BTreeSet<String>, RecoveryError> {
    let writing = |file: &str| RecoveryError::file(format!("write `{file}` of the write-ahead log"));
    each(wal, ground.tell, |part| {
        let bytes = fetch_newest(ground, manifest, part)?;
        fs::write(into.join(&part.file), bytes).map_err(writing(&part.file))
    })?;
    let mut written: BTreeSet<String> = wal.iter().map(|part| part.file.clone()).collect();
    for (file, path) in here {
        // Not a copy of its permissions: another account replays it.
        let read = match fs::read(path) {
            // It was closed since we looked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::read(path.with_extension("")),
            read => read,
        };
        let bytes = match read {
            Ok(bytes) => bytes,
            // Or it has come to the vault, and is not needed here any more.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let stored = log_after(ground, manifest, false)?.into_iter().find(|stored| stored.file == *file);
                fetch_newest(ground, manifest, &stored.ok_or_else(|| writing(file)(error))?)?
            }
            Err(error) => return Err(writing(file)(error)),
        };
        fs::write(into.join(file), bytes).map_err(writing(file))?;
        written.insert(file.clone());
    }
    Ok(written)
}

/// A part of the log. One that was being filled may have been stored anew, and taken away, since it was looked for.
fn fetch_newest(ground: Ground<'_>, manifest: &Manifest, part: &StoredWal) -> Result<Vec<u8>, RecoveryError> {
    let mut part = part.clone();
    loop {
        match wal::fetch(ground.vault, ground.handle, &part, ground.key, ground.identity) {
            Err(RecoveryError::Vault(VaultError::Missing(missing))) => {
                let newer = log_after(ground, manifest, false)?.into_iter().find(|newer| newer.file == part.file);
                match newer.filter(|newer| newer.object.is_some_and(|object| object.digest != missing) && newer.at > part.at) {
                    Some(newer) => part = newer,
                    None => return Err(VaultError::Missing(missing).into()),
                }
            }
            fetched => return fetched,
        }
    }
}
