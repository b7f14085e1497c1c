//! Tablespaces in the log. A server that replays how one was made makes it at the same place: over the one that the server that was copied
//! has there. So a log that makes one is not replayed.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::STEP;
use crate::{
    RecoveryError, Tools,
    scratch::Scratch,
    tools::{answered, tail},
    wal::numbered,
};

/// What `pg_waldump` says where the log ends; a server that replays it ends there, too.
const ENDS: [&str; 2] = ["error in WAL record at", "could not find a valid record after"];

/// Looks through the log that would be replayed: what the copy has itself, and what was brought.
pub(super) fn has_none(tools: &Tools, folders: &[&Path], segment_bytes: u64, under: &Path) -> Result<(), RecoveryError> {
    let doing = || RecoveryError::file("look through the write-ahead log");
    let mut segments: BTreeMap<(u32, u64), (String, PathBuf)> = BTreeMap::new();
    for folder in folders {
        for entry in fs::read_dir(folder).map_err(doing())? {
            let path = entry.map_err(doing())?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Some((number, timeline)) = numbered(&file, segment_bytes) {
                segments.insert((timeline, number), (file, path));
            }
        }
    }
    // A record may begin in one segment and end in the next, wherever both lie.
    let together = Scratch::make(tools, under)?;
    for (file, path) in segments.values() {
        symlink(path, together.path().join(file)).map_err(doing())?;
    }
    let segments: Vec<((u32, u64), String)> = segments.into_iter().map(|(at, (file, _))| (at, file)).collect();
    for run in segments.chunk_by(|((on, at), _), ((timeline, number), _)| on == timeline && at + 1 == *number) {
        let (Some((_, first)), Some((_, last))) = (run.first(), run.last()) else { continue };
        let mut command = tools.served("pg_waldump");
        command.arg("--path").arg(together.path()).args(["--rmgr=Tablespace", first, last]);
        let output = answered(command, STEP)?;
        let (found, said) = (String::from_utf8_lossy(&output.stdout), tail(&output.stderr));
        if let Some(place) = found.lines().find_map(|line| line.split_once("desc: CREATE ").map(|(_, place)| place)) {
            return Err(RecoveryError::Refused(format!(
                "the log makes a tablespace ({place}): replayed here, it would be made over the one that the server has"
            )));
        }
        if !output.status.success() && !ENDS.iter().any(|end| said.contains(end)) {
            return Err(RecoveryError::Tool { program: "pg_waldump".to_owned(), said });
        }
    }
    together.destroy()
}
