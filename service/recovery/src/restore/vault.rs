//! What is brought back from the vault: a copy's files, and the log that was received after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use reprieve_vault::VaultError;

use super::{Ground, Phases, STEP, Supply, each, feed, open_copy};
use crate::{
    Contents, Manifest, RecoveryError, Tools, read_index,
    tools::{PIPE, run},
    wal::{self, StoredWal},
};

/// A copy in the vault.
pub(super) struct FromVault<'a> {
    ground: Ground<'a>,
    tools: &'a Tools,
    manifest: &'a Manifest,
    contents: &'a Contents,
    wal: Vec<StoredWal>,
    here: Vec<(String, PathBuf)>,
}

impl<'a> FromVault<'a> {
    pub(super) fn new(ground: Ground<'a>, tools: &'a Tools, manifest: &'a Manifest, contents: &'a Contents) -> Self {
        Self { ground, tools, manifest, contents, wal: Vec::new(), here: Vec::new() }
    }
}

impl Supply for FromVault<'_> {
    fn find_log(&mut self, after: bool, to_keep: bool) -> Result<u64, RecoveryError> {
        if after {
            self.wal = log_after(self.ground, self.manifest)?;
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
fn log_after(ground: Ground<'_>, manifest: &Manifest) -> Result<Vec<StoredWal>, RecoveryError> {
    let mut known = ground.received.map_or_else(|| Ok(BTreeMap::new()), read_index)?;
    known.retain(|_, wal| wal.system == manifest.system && wal.cluster == manifest.cluster);
    if known.is_empty() {
        known = wal::find_wal(ground.vault, ground.handle, ground.key, &manifest.system, &manifest.cluster)?;
    }
    choose(known.into_values().collect(), manifest)
}

pub(super) fn choose(known: Vec<StoredWal>, manifest: &Manifest) -> Result<Vec<StoredWal>, RecoveryError> {
    let Some((timeline, _, end)) = manifest.wal else { return Ok(Vec::new()) };
    if !manifest.segment_bytes.is_power_of_two() {
        return Err(RecoveryError::Damaged("the manifest tells no size of the log's segments".to_owned()));
    }
    // The copy has the whole segment in which it ends.
    let first = end.0.saturating_sub(1) / manifest.segment_bytes + 1;
    let mut by_number: BTreeMap<u64, Vec<StoredWal>> = BTreeMap::new();
    let mut chosen: Vec<StoredWal> = Vec::new();
    for wal in known {
        match wal::numbered(&wal.file, manifest.segment_bytes) {
            Some((number, on)) if number >= first && on >= timeline => by_number.entry(number).or_default().push(wal),
            Some(_) => {}
            // The history of a timeline.
            None => chosen.push(wal),
        }
    }
    let newest = by_number.last_key_value().map(|(number, _)| *number);
    for (expected, (number, segments)) in (first..).zip(by_number) {
        // Only the newest may still have been filled when it was stored.
        if newest != Some(number) && segments.iter().all(|segment| segment.partial) {
            let what =
                format!("the end of `{}` of the write-ahead log is missing: what came later can't be brought back", segments[0].file);
            return Err(RecoveryError::Damaged(what));
        }
        if number != expected {
            let what = format!(
                "{} segments of the write-ahead log are missing before `{}`: what came later can't be brought back",
                number - expected,
                segments[0].file
            );
            return Err(RecoveryError::Damaged(what));
        }
        chosen.extend(segments);
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
                let stored = log_after(ground, manifest)?.into_iter().find(|stored| stored.file == *file);
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
                let newer = log_after(ground, manifest)?.into_iter().find(|newer| newer.file == part.file);
                match newer.filter(|newer| newer.object.is_some_and(|object| object.digest != missing) && newer.at > part.at) {
                    Some(newer) => part = newer,
                    None => return Err(VaultError::Missing(missing).into()),
                }
            }
            fetched => return fetched,
        }
    }
}
