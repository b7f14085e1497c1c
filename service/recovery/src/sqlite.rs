//! SQLite databases: opened with suspicion, counted, checked, and brought back.
//!
//! Whoever writes to a database decides what is in it, also in its schema. It is only ever opened to read, nothing in it may call what
//! is not harmless, and no question takes longer than its time.

use std::{
    fs,
    io::{self, Read},
    os::unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rusqlite::{
    Connection, OpenFlags,
    config::DbConfig,
    types::{Value, ValueRef},
};
use sha2::{Digest as _, Sha256};

use crate::{Contents, RecoveryError, restore::Ground, restore::open_copy, survey::DatabaseSurvey, tools::free_bytes};

/// What SQLite calls the database itself.
pub(crate) const MAIN: &str = "main";
/// A question's longest.
const WITHIN: Duration = Duration::from_secs(3_600);
/// How long another connection is waited for.
const BUSY: Duration = Duration::from_secs(10);
/// Steps of SQLite's machine between two looks at the clock.
const LOOK_EVERY: i32 = 10_000;
/// Tables that are looked at.
const TABLES: usize = 5_000;
/// Faults that are told.
const FAULTS: usize = 10;
/// Room that is left alone.
const ROOM: u64 = 64 << 20;
/// What belongs to a database of this name, and would be taken for a part of it.
const BESIDE: [&str; 3] = ["-wal", "-journal", "-shm"];

/// Opens a database that others use, to read.
pub(crate) fn open(file: &Path) -> Result<Connection, RecoveryError> {
    open_as(file, "")
}

/// Opens one that nobody else uses, without leaving anything beside it.
pub(crate) fn open_still(file: &Path) -> Result<Connection, RecoveryError> {
    open_as(file, "?immutable=1")
}

fn open_as(file: &Path, how: &str) -> Result<Connection, RecoveryError> {
    let failed = |error| wrong("open the database", error);
    let finding = || RecoveryError::file(format!("find `{}`", file.display()));
    // The way there may lead over links; the file itself is none: whoever writes there would choose what is copied.
    let path = std::path::absolute(file).map_err(finding())?;
    let path = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => parent.canonicalize().map_err(finding())?.join(name),
        _ => path,
    };
    if path.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
        return Err(RecoveryError::Refused(format!("`{}` is a link: name the file that it leads to", file.display())));
    }
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-_.".contains(byte);
    let escaped: String = path
        .as_os_str()
        .as_bytes()
        .iter()
        .map(|byte| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02x}") })
        .collect();
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut connection = Connection::open_with_flags(format!("file:{escaped}{how}"), flags).map_err(failed)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).map_err(failed)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    limit(&mut connection)?;
    Ok(connection)
}

/// Lets what is asked from now on take its time, and not more.
pub(crate) fn limit(connection: &mut Connection) -> Result<(), RecoveryError> {
    let deadline = Instant::now() + WITHIN;
    connection.progress_handler(LOOK_EVERY, Some(move || Instant::now() > deadline)).map_err(|error| wrong("limit a question", error))
}

pub(crate) fn wrong(doing: &str, error: rusqlite::Error) -> RecoveryError {
    let hint = match error.sqlite_error().map(|error| error.extended_code) {
        Some(rusqlite::ffi::SQLITE_READONLY_ROLLBACK | rusqlite::ffi::SQLITE_READONLY_RECOVERY) => {
            ": its last writer broke off; have its application open it once, which takes that back"
        }
        Some(rusqlite::ffi::SQLITE_INTERRUPT) => ": that took too long",
        _ => "",
    };
    RecoveryError::Check(format!("cannot {doing}: {error}{hint}"))
}

/// The version of the program that reads it here.
pub(crate) fn version() -> String {
    format!("SQLite {}", rusqlite::version())
}

/// What a database looks like.
pub(crate) fn survey(connection: &Connection) -> Result<DatabaseSurvey, RecoveryError> {
    let failed = |error| wrong("look at the database", error);
    // Tables that are stored here: what others make up has no pages of its own.
    let sql = "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND rootpage > 0 AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name";
    let names: Vec<String> =
        connection.prepare(sql).and_then(|mut asked| asked.query_map([], |row| row.get(0))?.take(TABLES + 1).collect()).map_err(failed)?;
    if names.len() > TABLES {
        return Err(RecoveryError::Refused(format!("the database has more than {TABLES} tables, which can't be compared")));
    }
    let mut found = DatabaseSurvey { schema: schema(connection)?, ..DatabaseSurvey::default() };
    for name in names {
        let quoted = name.replace('"', "\"\"");
        let rows: i64 = connection.query_row(&format!("SELECT count(*) FROM main.\"{quoted}\""), [], |row| row.get(0)).map_err(failed)?;
        found.rows.insert(name, rows.unsigned_abs());
    }
    found.dangling = dangling(connection)?;
    Ok(found)
}

/// A digest of everything that is defined in it, and of the version that its application gives it.
fn schema(connection: &Connection) -> Result<String, RecoveryError> {
    let failed = |error| wrong("read the schema", error);
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    let sql =
        "SELECT type, name, tbl_name, sql FROM main.sqlite_schema WHERE name NOT LIKE 'sqlite\\_stat%' ESCAPE '\\' ORDER BY type, name";
    let mut asked = connection.prepare(sql).map_err(failed)?;
    let mut rows = asked.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        for column in 0..4 {
            match row.get_ref(column).map_err(failed)? {
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => add(bytes),
                ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => add(b""),
            }
        }
    }
    for pragma in ["user_version", "application_id"] {
        let number: i64 = connection.query_row(&format!("PRAGMA main.{pragma}"), [], |row| row.get(0)).map_err(failed)?;
        add(&number.to_be_bytes());
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Rows that refer to rows that are not there. SQLite does not look at foreign keys unless it is told to, so there may be some.
pub(crate) fn dangling(connection: &Connection) -> Result<u64, RecoveryError> {
    let sql = "SELECT count(*) FROM pragma_foreign_key_check";
    let count: i64 = connection.query_row(sql, [], |row| row.get(0)).map_err(|error| wrong("check the foreign keys", error))?;
    Ok(count.unsigned_abs())
}

/// Every page, every index, every row against its table's conditions.
pub(crate) fn integrity(connection: &Connection) -> Result<(), RecoveryError> {
    let failed = |error| wrong("check the database", error);
    let faults: Vec<String> = connection
        .prepare(&format!("PRAGMA main.integrity_check({FAULTS})"))
        .and_then(|mut asked| asked.query_map([], |row| row.get(0))?.collect())
        .map_err(failed)?;
    if faults == ["ok"] { Ok(()) } else { Err(RecoveryError::Check(format!("integrity_check: {}", faults.join("; ")))) }
}

/// Asks the owners' own question: one row of one column, the number 1.
pub(crate) fn assert(connection: &Connection, assertion: &str) -> Result<(), RecoveryError> {
    let failed = |error| wrong(&format!("ask `{assertion}`"), error);
    let mut asked = connection.prepare(assertion).map_err(failed)?;
    let columns = asked.column_count();
    let mut rows = asked.query([]).map_err(failed)?;
    let mut answers: Vec<Value> = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        answers.push(row.get(0).map_err(failed)?);
        if answers.len() > 1 {
            break;
        }
    }
    match (columns, answers.as_slice()) {
        (1, [Value::Integer(1)]) => Ok(()),
        _ => Err(RecoveryError::Check(format!("`{assertion}` answered {answers:?}, not 1"))),
    }
}

/// Writes a copy into a file that is not there yet. What belongs to a file of this name must not be there either: SQLite would take it
/// for a part of what came back.
pub(crate) fn write(ground: Ground<'_>, contents: &Contents, plain_bytes: u64, to: &Path) -> Result<(), RecoveryError> {
    for beside in BESIDE {
        let mut path = to.as_os_str().to_owned();
        path.push(beside);
        let path = PathBuf::from(path);
        if path.symlink_metadata().is_ok() {
            return Err(RecoveryError::Refused(format!("`{}` is there already: a copy is restored into a new place only", path.display())));
        }
    }
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (free, needed) = (free_bytes(parent)?, plain_bytes.saturating_add(ROOM));
    if free < needed {
        return Err(RecoveryError::Refused(format!("no room in `{}`: {needed} bytes are needed, {free} are free", parent.display())));
    }
    // Not over anything, and not through a link either.
    let mut file = match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(RecoveryError::Refused(format!("`{}` is there already: a copy is restored into a new place only", to.display())));
        }
        opened => opened.map_err(RecoveryError::file(format!("make `{}`", to.display())))?,
    };
    let written = open_copy(ground, contents, plain_bytes, |stream| {
        let writing = || RecoveryError::file(format!("write `{}`", to.display()));
        let bytes = io::copy(&mut stream.take(plain_bytes.saturating_add(1)), &mut file).map_err(writing())?;
        file.sync_all().map_err(writing())?;
        if bytes == plain_bytes { Ok(()) } else { Err(RecoveryError::Damaged("the copy has another size than was signed for".to_owned())) }
    });
    if written.is_err() {
        // Half of it is nothing that anybody should find.
        let _gone = fs::remove_file(to);
    }
    written
}
