//! The workshop: one folder per user under the temporary folder, where templates and running servers live.
//!
//! A running server's folder holds a file `alive` that its owner keeps locked. The kernel drops the lock when
//! the owner dies, however it dies, so a folder whose lock can be taken is a leftover and is swept.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::account::{Account, own_user};

const ALIVE: &str = "alive";
const SERVER_PREFIX: &str = "server-";

/// The folder all servers of this user share.
#[derive(Clone, Debug)]
pub(crate) struct Workshop {
    folder: PathBuf,
}

/// A folder of our own, swept by others only after we are gone.
#[derive(Debug)]
pub(crate) struct Bench {
    folder: PathBuf,
    // Held for as long as the folder is in use; see the top of the file.
    _alive: File,
}

impl Workshop {
    /// Opens the user's folder, and sweeps what died servers left.
    pub(crate) fn open() -> Result<Workshop> {
        let user = own_user()?;
        // A short path: a Unix socket's name may have 107 bytes.
        let workshop = Workshop { folder: std::env::temp_dir().join(format!("reprieve-testkit-{user}")) };
        make_folder(&workshop.folder, 0o755)?;
        let owner = fs::symlink_metadata(&workshop.folder).context("cannot look at the workshop")?;
        ensure!(owner.is_dir() && owner.uid() == user, "`{}` belongs to somebody else", workshop.folder.display());
        workshop.sweep()?;
        Ok(workshop)
    }

    /// The path of something kept between runs.
    pub(crate) fn kept(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes a new, empty folder for one server that runs as `account`.
    pub(crate) fn bench(&self, account: Account) -> Result<Bench> {
        // Locked before it gets the name that sweepers look for: an unlocked `alive` always means a dead owner.
        let mark = tempfile::NamedTempFile::new_in(&self.folder).context("cannot make a lock file")?;
        mark.as_file().lock().context("cannot lock a new file")?;
        let folder = tempfile::Builder::new().prefix(SERVER_PREFIX).tempdir_in(&self.folder).context("cannot make a folder")?;
        let alive = mark.persist(folder.path().join(ALIVE)).context("cannot move the lock file")?;
        account.give(folder.path())?;
        Ok(Bench { folder: folder.keep(), _alive: alive })
    }

    fn sweep(&self) -> Result<()> {
        for entry in fs::read_dir(&self.folder).context("cannot list the workshop")? {
            let path = entry.context("cannot list the workshop")?.path();
            let is_server = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(SERVER_PREFIX));
            if is_server && is_leftover(&path) {
                // Another process may sweep the same folder: the one that comes second finds nothing.
                let _ = fs::remove_dir_all(&path);
            }
        }
        Ok(())
    }
}

impl Bench {
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // What cannot be removed now is swept at the next start.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Makes one folder; an existing one is fine.
pub(crate) fn make_folder(path: &Path, mode: u32) -> Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error).with_context(|| format!("cannot make `{}`", path.display())),
        _ => Ok(()),
    }
}

fn is_leftover(folder: &Path) -> bool {
    match File::open(folder.join(ALIVE)) {
        Ok(alive) => !matches!(alive.try_lock(), Err(TryLockError::WouldBlock | TryLockError::Error(_))),
        // Being made right now, or emptied by the watchdog of a died owner: old ones are the latter.
        Err(_) => fs::metadata(folder)
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age.as_secs() > 60)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Workshop, is_leftover};
    use crate::account::Account;

    #[test]
    fn a_folder_in_use_is_kept_and_a_left_one_is_swept() {
        let workshop = Workshop::open().expect("a workshop");
        let bench = workshop.bench(Account::Own).expect("a bench");
        let folder = bench.folder().to_owned();
        assert!(!is_leftover(&folder));
        workshop.sweep().expect("a sweep");
        assert!(folder.exists());

        let left = workshop.kept(&format!("{}left-{}", super::SERVER_PREFIX, std::process::id()));
        std::fs::create_dir(&left).expect("a folder");
        std::fs::write(left.join(super::ALIVE), "").expect("a file that nobody locks");
        workshop.sweep().expect("a sweep");
        assert!(!left.exists());

        drop(bench);
        assert!(!folder.exists());
    }
}
