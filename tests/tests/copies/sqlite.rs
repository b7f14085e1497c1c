//! SQLite databases.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rusqlite::Connection;

use super::*;

const TABLES: &str = "CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER NOT NULL REFERENCES customers, note TEXT);
    CREATE INDEX notes ON orders (note);
    CREATE TABLE pairs (n INTEGER PRIMARY KEY, left INTEGER NOT NULL, right INTEGER NOT NULL);
    WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 500) INSERT INTO customers SELECT n, 'customer ' || n FROM n;
    WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 20000)
      INSERT INTO orders SELECT n, n % 500 + 1, hex(randomblob(64)) FROM n;
    INSERT INTO pairs VALUES (1, 7, 7);";

/// A database with rows, in one of SQLite's modes.
pub(crate) fn stage(mode: &str, backup: &str) -> Result<Stage> {
    let recovery = "[recovery]\nscratch = \"scratch\"";
    let stage = Stage::open("sqlite", "shop.db", backup, recovery, |path| {
        let database = Connection::open(path)?;
        database.pragma_update(None, "journal_mode", mode)?;
        database.execute_batch(TABLES)?;
        Ok(())
    })?;
    fs::create_dir(stage.gateway.folder().join("scratch"))?;
    Ok(stage)
}

impl Stage {
    pub(crate) fn database(&self) -> Result<Connection> {
        let database = Connection::open(self.folder.path().join("shop.db"))?;
        database.busy_timeout(Duration::from_secs(60))?;
        database.pragma_update(None, "foreign_keys", false)?;
        Ok(database)
    }
}

fn number(database: &Connection, sql: &str) -> Result<i64> {
    Ok(database.query_row(sql, [], |row| row.get(0))?)
}

#[test]
fn a_sqlite_database_is_copied_tried_and_comes_back() -> Result<()> {
    let stage = stage("wal", "assertions = [\"SELECT count(*) = 20000 FROM orders\"]\nkeep = \"1s\"\n")?;
    stage.drill_fails("no copy")?;
    let first = stage.copy()?;
    assert_eq!(first["engine"], "sqlite");
    let report = stage.drill_passes(5)?;
    assert!(report["report"]["rto_ms"].is_u64() && report["report"]["rpo_ms"].is_u64(), "{report}");
    stage.leaves_nothing()?;
    let list = stage.gateway.json(&["backup", "list", "--json"])?;
    assert!(list["points"][0]["verified"]["level"] == 5 && list["points"][0]["same_blast_radius"] == true, "{list}");
    assert!(stage.gateway.json(&["recovery", "status", "--json"])?["systems"][0]["unproven"].is_null());
    for object in stage.objects()? {
        let bytes = fs::read(&object)?;
        assert!(!bytes.windows(12).any(|window| window == b"customer 499"), "{} is in clear", object.display());
    }
    // Beside the old one, which is gone: never over anything, and not where the rest of another database lies.
    let own = stage.folder.path().join("shop.db");
    stage.restore_fails(&own, "what is protected")?;
    let to = stage.folder.path().join("back.db");
    fs::write(stage.folder.path().join("back.db-wal"), "a rest")?;
    stage.restore_fails(&to, "there already")?;
    fs::remove_file(stage.folder.path().join("back.db-wal"))?;
    stage.restore(&to)?;
    let back = Connection::open(&to)?;
    assert_eq!(number(&back, "SELECT count(*) FROM orders")?, 20_000);
    stage.restore_fails(&to, "there already")?;
    std::os::unix::fs::symlink("elsewhere", stage.folder.path().join("link.db"))?;
    stage.restore_fails(&stage.folder.path().join("link.db"), "there already")?;
    assert!(!stage.folder.path().join("elsewhere").exists());
    // What is over is purged; what did not change is shared, and stays.
    std::thread::sleep(Duration::from_millis(1_100));
    let second = stage.copy()?;
    assert!(second["added_bytes"].as_u64() < first["stored_bytes"].as_u64(), "{second}");
    stage.drill_passes(5)?;
    std::thread::sleep(Duration::from_millis(1_100));
    let third = stage.copy()?;
    assert_eq!(third["purged"], serde_json::json!([first["point"]]), "{third}");
    stage.drill_passes(5)?;
    assert_eq!(stage.gateway.json(&["vault", "verify", "--json"])?["ok"], true);
    stage.gateway.verify()?;
    Ok(())
}

/// Every copy is of one moment, whoever writes meanwhile, and nobody who writes is turned away.
fn copied_under_a_writer(mode: &str) -> Result<()> {
    let stage =
        stage(mode, "assertions = [\"SELECT count(*) = 0 FROM pairs WHERE left <> right\", \"SELECT max(n) = count(*) FROM pairs\"]\n")?;
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, database) = (stop.clone(), stage.database()?);
    let writer = std::thread::spawn(move || -> Result<i64> {
        let mut n = 1;
        while !stopped.load(Ordering::Relaxed) {
            n += 1;
            // Two changes that are one: a copy of a moment in between has half of it.
            database.execute_batch(&format!(
                "BEGIN IMMEDIATE; INSERT INTO pairs VALUES ({n}, {n}, 0);
                 UPDATE orders SET note = hex(randomblob(64)) WHERE id % 997 = {n} % 997; UPDATE pairs SET right = {n} WHERE n = {n}; COMMIT"
            ))?;
        }
        Ok(n)
    });
    let copied = (0..2).try_for_each(|_| {
        stage.copy()?;
        stage.drill_passes(5).map(drop)
    });
    stop.store(true, Ordering::Relaxed);
    let written = writer.join().map_err(|_| anyhow::anyhow!("the writer died"))??;
    copied?;
    assert!(written > 10, "{written} transactions");
    Ok(())
}

#[test]
fn a_database_that_writes_ahead_is_copied_under_a_writer() -> Result<()> {
    copied_under_a_writer("wal")
}

#[test]
fn a_database_that_rolls_back_is_copied_under_a_writer() -> Result<()> {
    copied_under_a_writer("delete")
}

#[test]
fn a_damaged_copy_is_never_green() -> Result<()> {
    let stage = stage("delete", "")?;
    stage.copy()?;
    stage.drill_passes(4)?;
    stage.is_red_when_damaged(4)
}

#[test]
fn what_is_no_database_or_has_nothing_in_it_is_not_copied() -> Result<()> {
    let stage = stage("delete", "")?;
    stage.database()?.execute_batch("DELETE FROM orders; DELETE FROM customers; DELETE FROM pairs")?;
    stage.copy_fails("single row")?;
    let path = stage.folder.path().join("shop.db");
    // The database is damaged already: it can't be counted, or is found out when it is tried.
    stage.database()?.execute_batch(&TABLES[TABLES.find("WITH").unwrap_or(0)..])?;
    let whole = fs::read(&path)?;
    fs::write(&path, &whole[..whole.len() / 2])?;
    stage.copy_fails("malformed")?;
    fs::write(&path, "no database at all, but long enough to be one: ".repeat(100))?;
    stage.copy_fails("not a database")?;
    fs::remove_file(&path)?;
    stage.copy_fails("open")?;
    assert!(!path.exists(), "nothing was made");
    stage.leaves_nothing()
}

#[test]
fn a_database_that_is_damaged_where_nobody_counts_is_found_out() -> Result<()> {
    let stage = stage("delete", "")?;
    // An index is forgotten, and its pages belong to nothing.
    stage.database()?.execute_batch("PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 'notes'")?;
    stage.copy()?;
    stage.drill_fails("integrity_check").map(drop)
}
