//! The index beside the received files: which object of the vault has which part of the log. It is a convenience; it can be lost.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Instant, SystemTime},
};

use super::StoredWal;
use crate::RecoveryError;

/// What is known to be in the vault.
#[derive(Default)]
pub(super) struct Stored {
    pub(super) index: BTreeMap<String, StoredWal>,
    /// What newer objects hold too, and since when.
    pub(super) replaced: VecDeque<(Instant, StoredWal)>,
    /// Of the index.
    pub(super) lines: usize,
    /// When what is being filled was changed last, as it is stored.
    pub(super) partial: BTreeMap<String, Option<SystemTime>>,
    pub(super) partial_at: Option<Instant>,
    /// Whether something changed since and its time has not come yet.
    pub(super) is_behind: bool,
}

impl Stored {
    /// What the index says, also what was replaced and may not have been taken away before we stopped.
    pub(super) fn open(folder: &Path) -> Result<Self, RecoveryError> {
        let mut stored = Self::default();
        for wal in read_lines(folder)? {
            stored.lines += 1;
            if let Some(before) = stored.index.insert(wal.file.clone(), wal) {
                stored.replaced.push_back((Instant::now(), before));
            }
        }
        // Also without a line that was cut off by a crash: what is appended to it could not be read.
        if index_file(folder).exists() {
            stored.write_anew(folder)?;
        }
        Ok(stored)
    }

    /// Adds what was stored.
    pub(super) fn add(&mut self, folder: &Path, wal: StoredWal) -> Result<(), RecoveryError> {
        append(folder, &wal)?;
        self.lines += 1;
        if let Some(before) = self.index.insert(wal.file.clone(), wal) {
            self.replaced.push_back((Instant::now(), before));
        }
        Ok(())
    }

    /// The index, without what is gone. Who reads it sees the old one or the new one.
    pub(super) fn write_anew(&mut self, folder: &Path) -> Result<(), RecoveryError> {
        let path = index_file(folder);
        let parts = self.replaced.iter().map(|(_, part)| part).chain(self.index.values());
        let lines: Result<Vec<String>, serde_json::Error> = parts.map(serde_json::to_string).collect();
        let lines = lines.map_err(|error| RecoveryError::Damaged(error.to_string()))?;
        let write = || {
            let mut new = tempfile::NamedTempFile::new_in(folder)?;
            lines.iter().try_for_each(|line| new.write_all(format!("{line}\n").as_bytes()))?;
            new.as_file().sync_all()?;
            new.persist(&path).map(drop).map_err(|error| error.error)
        };
        write().map_err(RecoveryError::file(format!("write `{}`", path.display())))?;
        self.lines = lines.len();
        Ok(())
    }
}

fn index_file(folder: &Path) -> PathBuf {
    folder.join("index")
}

fn append(folder: &Path, wal: &StoredWal) -> Result<(), RecoveryError> {
    let line = serde_json::to_string(wal).map_err(|error| RecoveryError::Damaged(error.to_string()))?;
    let path = index_file(folder);
    let write =
        || fs::OpenOptions::new().create(true).append(true).open(&path).and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    write().map_err(RecoveryError::file(format!("write `{}`", path.display())))
}

fn read_lines(folder: &Path) -> Result<Vec<StoredWal>, RecoveryError> {
    let path = index_file(folder);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RecoveryError::file(format!("read `{}`", path.display()))(error)),
    };
    // A line that was cut off by a crash was not relied on by anybody.
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// What the index beside the received files says, and those beside what was set aside: of each file of each cluster what is in the
/// vault. Nothing where there is no index.
pub fn read_index(folder: &Path) -> Result<Vec<StoredWal>, RecoveryError> {
    let mut found = BTreeMap::new();
    for folder in set_aside(folder)?.iter().map(PathBuf::as_path).chain([folder]) {
        let lines = read_lines(folder)?;
        let of_folder: BTreeMap<_, _> = lines.into_iter().map(|wal| ((wal.cluster.clone(), wal.file.clone()), wal)).collect();
        for (of, wal) in of_folder {
            if found.get(&of).is_none_or(|known: &StoredWal| wal.holds_more_than(known)) {
                found.insert(of, wal);
            }
        }
    }
    Ok(found.into_values().collect())
}

/// The folders with what was received before, and could not go on.
fn set_aside(folder: &Path) -> Result<Vec<PathBuf>, RecoveryError> {
    let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else { return Ok(Vec::new()) };
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RecoveryError::file(format!("look into `{}`", parent.display()))(error)),
    };
    let aside = format!("{}.", name.to_string_lossy());
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&aside)))
        .collect();
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use reprieve_operation::{Digest, Timestamp};

    use super::*;

    #[test]
    fn an_index_forgets_what_is_gone_and_nothing_else() {
        let folder = tempfile::Builder::new().prefix("wal").tempdir().expect("a folder");
        let part = |file: &str, partial: bool, byte: u8| StoredWal {
            system: "shop".parse().expect("a name"),
            cluster: "1".to_owned(),
            file: file.to_owned(),
            partial,
            at: Timestamp(0),
            digest: Digest([byte; 32]),
            object: None,
        };
        let (first, second) = ("000000010000000000000001", "000000010000000000000002");
        for wal in [part(first, true, 1), part(first, true, 2), part(first, false, 3), part(second, true, 4)] {
            append(folder.path(), &wal).expect("appended");
        }
        fs::OpenOptions::new().append(true).open(index_file(folder.path())).expect("open").write_all(b"{\"cut off").expect("written");
        let mut stored = Stored::open(folder.path()).expect("read");
        assert_eq!((stored.lines, stored.replaced.len(), stored.index.len()), (4, 2, 2));
        stored.add(folder.path(), part(second, false, 5)).expect("appended");
        let before = read_index(folder.path()).expect("read");
        stored.replaced.pop_front();
        stored.write_anew(folder.path()).expect("written");
        assert_eq!(read_index(folder.path()).expect("read"), before);
        // What was set aside counts, too, but not over what holds more.
        let aside = folder.path().with_extension("aside-1");
        fs::create_dir(&aside).expect("made");
        for wal in [part(second, true, 9), part("000000010000000000000000", false, 9)] {
            append(&aside, &wal).expect("appended");
        }
        let with_aside = read_index(folder.path()).expect("read");
        assert!(with_aside.len() == 3 && before.iter().all(|wal| with_aside.contains(wal)), "{with_aside:?}");
        fs::remove_dir_all(&aside).expect("removed");
        let again = Stored::open(folder.path()).expect("read");
        assert_eq!(again.replaced.len(), 2, "what is not yet taken away is not forgotten");
        assert!(read_index(&folder.path().join("none")).expect("nothing").is_empty());
    }
}
