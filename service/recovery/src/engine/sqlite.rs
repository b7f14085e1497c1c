//! SQLite, by its own online backup: writers go on meanwhile, and the copy is of one moment.
//!
//! A database that writes ahead (WAL) is counted and copied in one transaction. In another mode a reader holds writers up, so it is copied in
//! steps with pauses, and begun anew when somebody wrote; after some of that it is copied in one go, for which writers have to wait.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{
    Connection,
    backup::{Backup, StepResult},
};

use super::{Copying, Ended, Engine, EngineKind, Origin};
use crate::{
    RecoveryError,
    scratch::Scratch,
    sqlite::{self, MAIN, limit, open, wrong},
    survey::{Survey, total},
    tools::free_bytes,
};

/// Pages that are copied in one step, and the pause after it.
const PAGES: i32 = 2_000;
const PAUSE: Duration = Duration::from_millis(5);
/// How often it is begun anew before writers have to wait.
const ANEW: u32 = 5;
/// Copying's longest.
const WITHIN: Duration = Duration::from_secs(6 * 3_600);
/// Room that is left alone.
const ROOM: u64 = 64 << 20;

/// A database and a connection to it.
pub(super) struct Sqlite {
    file: PathBuf,
    scratch: PathBuf,
    connection: Connection,
    /// Whether one transaction sees all of it, and holds nobody up.
    writes_ahead: bool,
    /// What was seen in that transaction.
    seen: Option<Survey>,
}

impl Sqlite {
    pub(super) fn open(file: &Path, scratch: &Path) -> Result<Self, RecoveryError> {
        let connection = open(file)?;
        let failed = |error| wrong("open the database", error);
        let mode: String = connection.query_row("PRAGMA main.journal_mode", [], |row| row.get(0)).map_err(failed)?;
        let writes_ahead = mode == "wal";
        if writes_ahead {
            connection.execute_batch("BEGIN").map_err(failed)?;
        }
        Ok(Self { file: file.to_owned(), scratch: scratch.to_owned(), connection, writes_ahead, seen: None })
    }

    fn copy_into(&mut self, copy: &mut Connection) -> Result<(), RecoveryError> {
        let failed = |error| wrong("copy the database", error);
        copy.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF").map_err(failed)?;
        let backup = Backup::new(&self.connection, copy).map_err(failed)?;
        let deadline = Instant::now() + WITHIN;
        let (mut left, mut anew) = (None, 0);
        loop {
            let at_once = self.writes_ahead || anew < ANEW;
            match backup.step(if at_once { PAGES } else { -1 }).map_err(failed)? {
                StepResult::Done => return Ok(()),
                StepResult::More if self.writes_ahead => {}
                _ => thread::sleep(PAUSE),
            }
            let now = backup.progress().remaining;
            anew += u32::from(left.is_some_and(|left| now > left));
            left = Some(now);
            if Instant::now() > deadline {
                return Err(RecoveryError::TooLong { doing: "copying the database".to_owned(), seconds: WITHIN.as_secs() });
            }
        }
    }
}

impl Engine for Sqlite {
    fn origin(&self) -> Origin {
        Origin {
            kind: EngineKind::Sqlite,
            version: sqlite::version(),
            major: 0,
            cluster: String::new(),
            address: self.file.display().to_string(),
            superuser: String::new(),
            database: MAIN.to_owned(),
            segment_bytes: 0,
        }
    }

    fn survey(&mut self) -> Result<Survey, RecoveryError> {
        if let Some(seen) = &self.seen {
            return Ok(seen.clone());
        }
        limit(&mut self.connection)?;
        let found = Survey::from([(MAIN.to_owned(), sqlite::survey(&self.connection)?)]);
        if self.writes_ahead {
            self.seen = Some(found.clone());
        }
        Ok(found)
    }

    fn emptiness(&self, survey: &Survey) -> Option<String> {
        (total(survey) == 0).then(|| format!("no table of `{}` has a single row", self.file.display()))
    }

    fn start(&mut self) -> Result<Box<dyn Copying>, RecoveryError> {
        let failed = |error| wrong("copy the database", error);
        let page = |pragma: &str| {
            let asked: Result<i64, _> = self.connection.query_row(&format!("PRAGMA main.{pragma}"), [], |row| row.get(0));
            asked.map(i64::unsigned_abs).map_err(failed)
        };
        let needed = page("page_count")?.saturating_mul(page("page_size")?).saturating_add(ROOM);
        let free = free_bytes(&self.scratch)?;
        if free < needed {
            return Err(RecoveryError::Refused(format!(
                "no room in `{}`: {needed} bytes are needed, {free} are free",
                self.scratch.display()
            )));
        }
        let folder = Scratch::own(&self.scratch)?;
        let path = folder.path().join("copy");
        let mut copy = Connection::open(&path).map_err(failed)?;
        self.copy_into(&mut copy)?;
        copy.close().map_err(|(_, error)| failed(error))?;
        if self.writes_ahead {
            // What is written from now on need not be kept for us.
            self.connection.execute_batch("COMMIT").map_err(failed)?;
        }
        let file = fs::File::open(&path).map_err(RecoveryError::file("read the database's copy"))?;
        // It is there for as long as it is open here, and for nobody else.
        folder.destroy()?;
        Ok(Box::new(Made(Some(file))))
    }
}

/// A copy that is complete.
struct Made(Option<fs::File>);

impl Copying for Made {
    fn stream(&mut self) -> Result<Box<dyn Read>, RecoveryError> {
        match self.0.take() {
            Some(file) => Ok(Box::new(file)),
            None => Err(RecoveryError::Damaged("the database's copy is gone".to_owned())),
        }
    }

    fn end(self: Box<Self>) -> Result<Ended, RecoveryError> {
        Ok(Ended::default())
    }
}
