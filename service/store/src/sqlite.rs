//! The ledger in one SQLite file.
//!
//! Write-ahead log with `synchronous=FULL`: a commit returns once the rows are on the disk. One process writes at a time,
//! which a lock on a file beside the database sees to; readers have connections of their own and never wait for the writer.

use std::{
    fs::{File, OpenOptions, Permissions, TryLockError},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use reprieve_ledger::Hash;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior, params};

use crate::{
    blocks::{BLOCK_LEAVES, block_root},
    row::{Head, Placed, Query, Row, Snapshot},
    store::{Reader, Seal, Store, StoreError, placed, taken_keys},
};

/// `RPRV`: marks the file as ours, for `file` and for the next start.
const APPLICATION_ID: i64 = 0x5250_5256;
const SCHEMA_VERSION: i64 = 1;
const BUSY: Duration = Duration::from_secs(5);
/// Pages (16 MB) of the write-ahead log before it is moved into the database: a batch is some six pages, and moving them costs
/// two more fsyncs, for which that batch waits.
const AUTOCHECKPOINT_PAGES: i64 = 4_000;

const SCHEMA: &str = "
    CREATE TABLE events (
        idx INTEGER PRIMARY KEY,
        at_ms INTEGER NOT NULL,
        kind TEXT NOT NULL,
        agent TEXT,
        hold INTEGER,
        unique_key TEXT,
        leaf_hash BLOB NOT NULL,
        body BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX events_by_key ON events (unique_key) WHERE unique_key IS NOT NULL;
    CREATE INDEX events_by_agent ON events (agent, idx) WHERE agent IS NOT NULL;
    CREATE INDEX events_by_hold ON events (hold, idx) WHERE hold IS NOT NULL;
    CREATE INDEX events_by_kind ON events (kind, idx);
    CREATE TABLE checkpoints (size INTEGER PRIMARY KEY, note TEXT NOT NULL) STRICT;
    CREATE TABLE frontier (one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, hashes BLOB NOT NULL) STRICT;
    CREATE TABLE snapshot (one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, note TEXT NOT NULL, body BLOB NOT NULL) STRICT;
";

/// Derived from `events`, and filled where it is missing: a ledger of before is opened, too.
const BLOCKS: &str = "CREATE TABLE IF NOT EXISTS blocks (number INTEGER PRIMARY KEY, root BLOB NOT NULL) STRICT";

/// A ledger in a SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    connection: Connection,
    /// Held by the writer as long as the store lives; a reader has none.
    lock: Option<File>,
}

impl SqliteStore {
    /// Opens the ledger for its writer, and makes it where there is none.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let lock = lock(path)?;
        make_private(path)?;
        let mut connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(BUSY)?;
        prepare(&mut connection, path)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "wal_autocheckpoint", AUTOCHECKPOINT_PAGES)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        Ok(Self { path: path.to_owned(), connection, lock: Some(lock) })
    }

    /// Opens an existing ledger to read, also while its gateway runs.
    pub fn open_to_read(path: &Path) -> Result<Box<dyn Reader>, StoreError> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(BUSY)?;
        check_schema(&connection, path)?;
        Ok(Box::new(Self { path: path.to_owned(), connection, lock: None }))
    }

    /// Opens an existing ledger to read it as it is now, whatever its gateway appends meanwhile.
    pub fn open_as_of_now(path: &Path) -> Result<Box<dyn Reader>, StoreError> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(BUSY)?;
        // One transaction as long as the connection lives. It begins with its first read, which is made here.
        connection.execute_batch("BEGIN DEFERRED")?;
        check_schema(&connection, path)?;
        connection.query_row("SELECT count(*) FROM frontier", [], |_| Ok(()))?;
        Ok(Box::new(Self { path: path.to_owned(), connection, lock: None }))
    }

    /// Writes a copy of a ledger, as it is now, into a new file, also while its gateway runs.
    pub fn copy(path: &Path, to: &Path) -> Result<(), StoreError> {
        make_private(to)?;
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(BUSY)?;
        check_schema(&connection, path)?;
        connection.execute("VACUUM INTO ?", params![to.display().to_string()])?;
        Ok(())
    }

    /// SQLite's journal mode and `synchronous` level as in force: `wal` and 2 (full).
    pub fn durability(&self) -> Result<(String, i64), StoreError> {
        let mode = self.connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        Ok((mode, pragma(&self.connection, "synchronous")?))
    }
}

impl Drop for SqliteStore {
    /// Moves the write-ahead log into the database, so that a stopped gateway's ledger is one file that can be copied. A reader
    /// that is still there would keep SQLite from doing so by itself.
    fn drop(&mut self) {
        if self.lock.is_some() {
            // Best effort: the rows are durable in the log, too.
            let _ = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
    }
}

impl Reader for SqliteStore {
    fn head(&self) -> Result<Option<Head>, StoreError> {
        head(&self.connection)
    }

    fn checkpoints(&self, from: u64, limit: usize) -> Result<Vec<(u64, String)>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT size, note FROM checkpoints WHERE size >= ? ORDER BY size LIMIT ?")?;
        let found = statement.query_map(params![bound(from), count(limit)], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)))?;
        found.map(|found| found.map_err(StoreError::from).and_then(|(size, note)| Ok((number(size)?, note)))).collect()
    }

    fn rows(&self, from: u64, limit: usize) -> Result<Vec<Row>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM events WHERE idx >= ? ORDER BY idx LIMIT ?");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut found = statement.query(params![bound(from), count(limit)])?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            rows.push(read_row(row)?);
        }
        Ok(rows)
    }

    fn search(&self, query: &Query) -> Result<Vec<Row>, StoreError> {
        let mut sql = format!("SELECT {COLUMNS} FROM events WHERE 1");
        let mut values: Vec<Box<dyn rusqlite::ToSql>> = Vec::new();
        let mut also = |condition: &str, value: Option<Box<dyn rusqlite::ToSql>>| {
            if let Some(value) = value {
                sql.push_str(" AND ");
                sql.push_str(condition);
                values.push(value);
            }
        };
        let boxed = |text: &Option<String>| text.clone().map(|text| Box::new(text) as Box<dyn rusqlite::ToSql>);
        let number = |number: Option<u64>| number.map(|number| Box::new(bound(number)) as Box<dyn rusqlite::ToSql>);
        also("kind = ?", boxed(&query.kind));
        also("agent = ?", boxed(&query.agent));
        also("hold = ?", number(query.hold));
        also("at_ms >= ?", number(query.from_ms));
        also("at_ms < ?", number(query.until_ms));
        also("idx >= ?", number(query.since));
        also("idx < ?", number(query.before));
        // Compared as bytes: what is not UTF-8 is found too, and no wildcard means anything.
        also("instr(body, ?) > 0", query.text.clone().map(|text| Box::new(text.into_bytes()) as Box<dyn rusqlite::ToSql>));
        sql.push_str(" ORDER BY idx DESC LIMIT ?");
        values.push(Box::new(count(query.limit.min(Query::LIMIT_MAX))));
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut found = statement.query(rusqlite::params_from_iter(values))?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            rows.push(read_row(row)?);
        }
        Ok(rows)
    }

    fn block_roots(&self, from: u64, limit: usize) -> Result<Vec<Hash>, StoreError> {
        // A ledger that was only ever read by this version has none.
        if !self.connection.table_exists(None, "blocks")? {
            return Ok(Vec::new());
        }
        let mut statement = self.connection.prepare_cached("SELECT number, root FROM blocks WHERE number >= ? ORDER BY number LIMIT ?")?;
        let mut found = statement.query(params![bound(from), count(limit)])?;
        let (mut roots, mut next) = (Vec::new(), from);
        while let Some(row) = found.next()? {
            if number(row.get(0)?)? != next {
                break;
            }
            roots.push(hash(row.get_ref(1)?)?);
            next = next.saturating_add(1);
        }
        Ok(roots)
    }

    fn snapshot(&self) -> Result<Option<Snapshot>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT size, note, body FROM snapshot")?;
        let found = statement.query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?))).optional()?;
        found.map(|(size, note, body)| Ok(Snapshot { size: self::number(size)?, note, body })).transpose()
    }

    fn as_of_now(&self) -> Result<Box<dyn Reader>, StoreError> {
        Self::open_as_of_now(&self.path)
    }
}

impl Store for SqliteStore {
    fn append(&mut self, keys: &[Option<String>], seal: Seal<'_>) -> Result<Vec<Placed>, StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let head = head(&transaction)?;
        let placed = {
            let mut is_stored = transaction.prepare_cached("SELECT 1 FROM events WHERE unique_key = ?")?;
            let taken = taken_keys(keys, |key| Ok(is_stored.exists([key])?))?;
            let batch = seal(head.as_ref(), &taken)?;
            let placed = placed(keys, &taken, head.map_or(0, |head| head.size), &batch)?;
            let mut insert = transaction.prepare_cached(&format!("INSERT INTO events ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"))?;
            for row in &batch.rows {
                insert.execute(params![
                    exact(row.index)?,
                    exact(row.at_ms)?,
                    row.kind,
                    row.agent,
                    row.hold.map(exact).transpose()?,
                    row.unique_key,
                    row.leaf_hash,
                    row.body
                ])?;
            }
            let first = batch.rows.first().map_or(batch.head.size, |row| row.index);
            (first / BLOCK_LEAVES..batch.head.size / BLOCK_LEAVES).try_for_each(|number| save_block(&transaction, number))?;
            let size = exact(batch.head.size)?;
            transaction
                .prepare_cached("INSERT INTO checkpoints (size, note) VALUES (?, ?) ON CONFLICT (size) DO UPDATE SET note = excluded.note")?
                .execute(params![size, batch.head.checkpoint])?;
            transaction
                .prepare_cached("INSERT OR REPLACE INTO frontier (one, size, hashes) VALUES (1, ?, ?)")?
                .execute(params![size, batch.head.frontier])?;
            placed
        };
        transaction.commit()?;
        Ok(placed)
    }

    fn save_snapshot(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        self.connection.prepare_cached("INSERT OR REPLACE INTO snapshot (one, size, note, body) VALUES (1, ?, ?, ?)")?.execute(params![
            exact(snapshot.size)?,
            snapshot.note,
            snapshot.body
        ])?;
        Ok(())
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Self::open_to_read(&self.path)
    }
}

const COLUMNS: &str = "idx, at_ms, kind, agent, hold, unique_key, leaf_hash, body";

/// Keeps the root of a block whose rows are all there.
fn save_block(transaction: &Connection, number: u64) -> Result<(), StoreError> {
    let first = number.saturating_mul(BLOCK_LEAVES);
    let mut leaves = transaction.prepare_cached("SELECT leaf_hash FROM events WHERE idx >= ? AND idx < ? ORDER BY idx")?;
    let mut found = leaves.query(params![exact(first)?, exact(first.saturating_add(BLOCK_LEAVES))?])?;
    let mut hashes = Vec::new();
    while let Some(row) = found.next()? {
        hashes.push(hash(row.get_ref(0)?)?);
    }
    // Rows that are missing show elsewhere, and with more to say.
    if let Some(root) = block_root(hashes) {
        let mut save = transaction.prepare_cached("INSERT OR REPLACE INTO blocks (number, root) VALUES (?, ?)")?;
        save.execute(params![exact(number)?, root])?;
    }
    Ok(())
}

/// Makes the table of blocks, and what is missing at its end.
fn prepare_blocks(connection: &mut Connection) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(BLOCKS)?;
    let known: i64 = transaction.query_row("SELECT coalesce(max(number) + 1, 0) FROM blocks", [], |row| row.get(0))?;
    let size: i64 = transaction.query_row("SELECT coalesce(max(idx) + 1, 0) FROM events", [], |row| row.get(0))?;
    (number(known)?..number(size)? / BLOCK_LEAVES).try_for_each(|number| save_block(&transaction, number))?;
    transaction.commit()?;
    Ok(())
}

fn hash(value: rusqlite::types::ValueRef<'_>) -> Result<Hash, StoreError> {
    let bytes = value.as_blob().map_err(|_| StoreError::Damaged("a hash is not a blob"))?;
    Hash::try_from(bytes).map_err(|_| StoreError::Damaged("a hash has not 32 bytes"))
}

fn read_row(row: &rusqlite::Row<'_>) -> Result<Row, StoreError> {
    Ok(Row {
        index: number(row.get(0)?)?,
        at_ms: number(row.get(1)?)?,
        kind: row.get(2)?,
        agent: row.get(3)?,
        hold: row.get::<_, Option<i64>>(4)?.map(number).transpose()?,
        unique_key: row.get(5)?,
        leaf_hash: hash(row.get_ref(6)?)?,
        body: row.get(7)?,
    })
}

fn head(connection: &Connection) -> Result<Option<Head>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT frontier.size, checkpoints.note, frontier.hashes FROM frontier LEFT JOIN checkpoints USING (size)")?;
    let found = statement.query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?, row.get(2)?))).optional()?;
    let Some((size, checkpoint, frontier)) = found else { return Ok(None) };
    let checkpoint = checkpoint.ok_or(StoreError::Damaged("the newest checkpoint is missing"))?;
    Ok(Some(Head { size: number(size)?, checkpoint, frontier }))
}

/// Makes the schema in an empty file; refuses any other that is not ours.
fn prepare(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|error| foreign(error, path))?;
    let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 && pragma(&transaction, "application_id")? == 0 {
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    transaction.commit()?;
    check_schema(connection, path)?;
    prepare_blocks(connection)
}

fn check_schema(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    if pragma(connection, "application_id").map_err(|error| foreign(error, path))? != APPLICATION_ID {
        return Err(StoreError::Foreign { path: path.to_owned() });
    }
    match pragma(connection, "user_version")? {
        SCHEMA_VERSION => Ok(()),
        found => Err(StoreError::Version { found, known: SCHEMA_VERSION }),
    }
}

fn foreign(error: rusqlite::Error, path: &Path) -> StoreError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase) => StoreError::Foreign { path: path.to_owned() },
        _ => error.into(),
    }
}

fn pragma(connection: &Connection, name: &str) -> Result<i64, rusqlite::Error> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

/// Keeps a second gateway away. The lock is on a file beside the database: SQLite's own locks on the database would be
/// lost with the first file of ours that is closed.
fn lock(path: &Path) -> Result<File, StoreError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push("-lock");
    let beside = PathBuf::from(beside);
    let lock =
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&beside).map_err(|error| open(&beside, error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(open(&beside, error)),
    }
}

/// The file is its owner's alone from its first byte; SQLite gives its companions the same mode.
fn make_private(path: &Path) -> Result<(), StoreError> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).map_err(|error| open(path, error))?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(|error| open(path, error))
}

fn open(path: &Path, source: std::io::Error) -> StoreError {
    StoreError::Open { path: path.to_owned(), source: Arc::new(source) }
}

/// A number that is stored: SQLite's are signed.
fn exact(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::Batch("a number is larger than can be stored"))
}

/// A number that is compared with: no stored one is larger than the largest.
fn bound(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn number(stored: i64) -> Result<u64, StoreError> {
    u64::try_from(stored).map_err(|_| StoreError::Damaged("a number is negative"))
}
