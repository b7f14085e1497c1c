//! The head file: the newest checkpoint kept outside the database, so that an older copy of the database is noticed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use thiserror::Error;

/// Between two writes; an older head notices less of a rollback, but is never wrong.
const PAUSE: Duration = Duration::from_secs(1);
const NOTE_BYTES_MAX: u64 = 64 * 1024;

/// The file, and what is still to be written to it.
#[derive(Debug)]
pub(crate) struct HeadFile {
    path: PathBuf,
    waiting: Option<String>,
    /// Only paces the writes: no recorded time comes from here.
    written: Option<Instant>,
}

/// The head file can't be read or written.
#[derive(Debug, Error)]
#[error("cannot {verb} the head file `{}`", path.display())]
pub struct HeadFileError {
    verb: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl HeadFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, waiting: None, written: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The note in the file; `None` where there is no file.
    pub(crate) fn read(&self) -> Result<Option<String>, HeadFileError> {
        let mut note = String::new();
        match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.error("read", error)),
            Ok(file) => file.take(NOTE_BYTES_MAX).read_to_string(&mut note).map_err(|error| self.error("read", error))?,
        };
        Ok(Some(note))
    }

    /// Notes the newest head; it is written when it is due.
    pub(crate) fn set(&mut self, note: String) {
        self.waiting = Some(note);
    }

    /// How long until there is something to write, if there is.
    pub(crate) fn due_in(&self) -> Option<Duration> {
        self.waiting.as_ref()?;
        Some(self.written.map_or(Duration::ZERO, |written| PAUSE.saturating_sub(written.elapsed())))
    }

    /// Writes what waits: to a new file that then takes the old one's place, so that one of both is always whole.
    pub(crate) fn write(&mut self) -> Result<(), HeadFileError> {
        let Some(note) = &self.waiting else { return Ok(()) };
        self.written = Some(Instant::now());
        replace(&self.path, note).map_err(|error| self.error("write", error))?;
        self.waiting = None;
        Ok(())
    }

    fn error(&self, verb: &'static str, source: io::Error) -> HeadFileError {
        HeadFileError { verb, path: self.path.clone(), source }
    }
}

fn replace(path: &Path, note: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o644).open(&beside)?;
    file.write_all(note.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_last_is_read() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let mut head = HeadFile::new(folder.path().join("head"));
        assert_eq!(head.read().expect("no file is no error"), None);
        assert_eq!(head.due_in(), None);
        head.set("one".to_owned());
        assert_eq!(head.due_in(), Some(Duration::ZERO));
        head.write().expect("writable");
        assert_eq!(head.due_in(), None);
        head.set("two".to_owned());
        assert!(head.due_in() > Some(Duration::ZERO), "at most once a second");
        head.write().expect("writable");
        assert_eq!(head.read().expect("readable"), Some("two".to_owned()));
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1);
    }

    #[test]
    fn a_head_that_can_t_be_written_still_waits() {
        let mut head = HeadFile::new(PathBuf::from("/nonexistent/folder/head"));
        head.set("one".to_owned());
        assert!(head.write().is_err());
        assert!(head.due_in().is_some());
    }
}
