//! Scratch folders: what is needed for a while, and must not outlive us. What lies in them is decrypted.
//!
//! A small shell waits on a pipe that only we hold open: however we end, it takes the folder away. What even it could not take away
//! (the machine went down) is swept by whoever makes the next one at the same place: a folder is locked while somebody owns it.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{RecoveryError, Tools};

/// What our folders' names begin with.
const PREFIX: &str = "reprieve-scratch-";
/// An end of input means "take it away"; a line, "leave it". Programs of ours may write into it for a moment longer than we live, and
/// somebody else may make one of the same name meanwhile: it gets another name first. Its output is the lock.
const WATCHDOG: &str = r#"
read -r _ && exit 0
gone="$1.gone.$$"
mv "$1" "$gone" 2>/dev/null || exit 0
tries=0
until rm -rf "$gone" 2>/dev/null && sleep 0.5 && [ ! -e "$gone" ]; do
  tries=$((tries + 1)); [ "$tries" -lt 60 ] || exit 1
done
"#;

/// Has a folder taken away with everything in it, however we end.
#[derive(Debug)]
pub(crate) struct Watch {
    folder: PathBuf,
    shell: Option<Child>,
    // Whoever sweeps leftovers sees that it has an owner.
    _lock: File,
}

impl Watch {
    /// Over a folder that is there.
    pub(crate) fn over(folder: &Path) -> Result<Self, RecoveryError> {
        let lock = File::open(folder).map_err(RecoveryError::file(format!("open `{}`", folder.display())))?;
        // Some network file systems have no locks; then nobody sweeps there either.
        let _locked = lock.lock();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WATCHDOG, "reprieve-scratch"]).arg(folder).current_dir("/");
        let opened = lock.try_clone().map_err(RecoveryError::file(format!("open `{}`", folder.display())))?;
        // Its own group: a Ctrl-C must not take it before its work.
        let shell = command.process_group(0).stdin(Stdio::piped()).stdout(opened).stderr(Stdio::null()).spawn();
        let shell = shell.map_err(|source| RecoveryError::Spawn { program: "sh".to_owned(), source })?;
        Ok(Self { folder: folder.to_owned(), shell: Some(shell), _lock: lock })
    }

    /// The folder stays, or is gone already.
    pub(crate) fn let_go(mut self) {
        self.release();
    }

    fn release(&mut self) {
        if let Some(mut shell) = self.shell.take() {
            let _told = shell.stdin.as_mut().map(|input| input.write_all(b"leave\n"));
            // Waiting closes the pipe, too.
            let _ended = shell.wait();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.shell.is_some() && gone(&self.folder).is_ok() {
            self.release();
        } else if let Some(mut shell) = self.shell.take() {
            // It tries again for a while.
            let _ended = shell.wait();
        }
    }
}

/// A folder that goes when it is dropped, with everything in it. Servers may look into it.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    watch: Option<Watch>,
}

impl Scratch {
    pub(crate) fn make(tools: &Tools, under: &Path) -> Result<Self, RecoveryError> {
        let made = Self::own(under)?;
        tools.own_folder(made.path())?;
        Ok(made)
    }

    /// One that nobody but us may look into.
    pub(crate) fn own(under: &Path) -> Result<Self, RecoveryError> {
        sweep(under);
        let doing = || RecoveryError::file(format!("make a folder in `{}`", under.display()));
        loop {
            // Made with no rights for others.
            let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(under).map_err(doing())?;
            match Watch::over(folder.path()) {
                // Whoever sweeps leftovers may have been faster than our lock.
                Ok(watch) if folder.path().exists() => return Ok(Self { path: folder.keep(), watch: Some(watch) }),
                Err(error) if folder.path().exists() => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes everything away, and says so if that fails.
    pub(crate) fn destroy(mut self) -> Result<(), RecoveryError> {
        gone(&self.path).map_err(RecoveryError::file("take away what was brought back only to be looked at"))?;
        if let Some(watch) = self.watch.take() {
            watch.let_go();
        }
        Ok(())
    }
}

/// Whether nobody owns a folder of this sort any more.
pub(crate) fn is_left(folder: &Path) -> bool {
    File::open(folder).is_ok_and(|open| open.try_lock().is_ok())
}

/// Takes away what others have left who are no more.
fn sweep(under: &Path) {
    let Ok(entries) = fs::read_dir(under) else { return };
    let ours = entries.flatten().filter(|entry| {
        entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) && entry.file_type().is_ok_and(|kind| kind.is_dir())
    });
    for entry in ours {
        let path = entry.path();
        let Ok(open) = File::open(&path) else { continue };
        // The lock is held until it is gone: see `own`.
        if open.try_lock().is_ok()
            && let Err(error) = gone(&path)
        {
            tracing::warn!(%error, folder = %path.display(), "what a restore that broke off has left could not be taken away");
        }
    }
}

/// Takes a folder away, if it is there.
pub(crate) fn gone(folder: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_left_is_swept_and_what_the_living_own_is_not() {
        let under = tempfile::tempdir().expect("a folder");
        let left = under.path().join(format!("{PREFIX}dead"));
        let other = under.path().join("reprieve-other");
        fs::create_dir_all(left.join("data")).expect("made");
        fs::write(left.join("data/PG_VERSION"), "15").expect("written");
        fs::create_dir(&other).expect("made");
        let first = Scratch::own(under.path()).expect("made");
        assert!(!left.exists() && other.exists());
        let second = Scratch::own(under.path()).expect("made");
        assert!(first.path().exists() && second.path().exists(), "each has an owner");
        fs::write(second.path().join("file"), "x").expect("written");
        second.destroy().expect("gone");
        drop(first);
        assert_eq!(fs::read_dir(under.path()).expect("read").count(), 1, "only what is not ours");
    }
}
