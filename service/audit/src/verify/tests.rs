//! Tests of the auditor: every way to tamper with a ledger, each found and named.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use proptest::prelude::*;
use reprieve_gate::Audit as _;
use reprieve_operation::Outcome;
use reprieve_store::SqliteStore;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::log::{
    AuditLog, AuditOptions,
    tests::{append, clock, concluded, intent, signer},
};

const EVENTS: u64 = 12;

/// A ledger of twelve events in twelve batches, closed.
fn ledger() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("ledger.db");
    let store = Box::new(SqliteStore::open(&path).expect("a new store"));
    let log =
        AuditLog::open(store, AuditOptions::new(signer()).with_head_file(path.with_extension("head")), clock()).expect("a new ledger");
    for number in 0..EVENTS / 2 {
        append(&log, intent(number)).expect("durable");
        append(&log, concluded(number, Outcome::Abandoned)).expect("durable");
    }
    log.close();
    (folder, path)
}

fn audit(path: &Path) -> VerifyReport {
    let head = std::fs::read_to_string(path.with_extension("head")).expect("a head file");
    let reader = SqliteStore::open_to_read(path).expect("a ledger");
    verify(reader.as_ref(), &signer().verifier(), Some(&head)).expect("readable")
}

#[test]
fn a_ledger_that_grows_meanwhile_shows_no_fault() {
    const ROUNDS: usize = 20;
    let (_folder, path) = ledger();
    let head_path = path.with_extension("head");
    let options = AuditOptions::new(signer()).with_head_file(&head_path);
    let log = AuditLog::open(Box::new(SqliteStore::open(&path).expect("the ledger")), options, clock()).expect("a good ledger");
    let ended = AtomicBool::new(false);
    let sizes: Vec<u64> = std::thread::scope(|scope| {
        // Bounded, so that a failure below ends too.
        let appender = scope.spawn(|| {
            let mut numbers = EVENTS..100_000;
            while let Some(number) = numbers.next().filter(|_| !ended.load(Ordering::Relaxed)) {
                append(&log, intent(number)).expect("durable");
            }
        });
        let mut sizes = Vec::new();
        for _ in 0..ROUNDS {
            // As `ledger verify` does: a head that is read first can't be ahead of what is read then.
            let head = std::fs::read_to_string(&head_path).expect("a head file");
            let reader = SqliteStore::open_as_of_now(&path).expect("a ledger");
            let opened_at = log.state().size;
            while log.state().size < opened_at + 5 {
                assert!(!appender.is_finished(), "the ledger grows while it is read");
                std::thread::yield_now();
            }
            let report = verify(reader.as_ref(), &signer().verifier(), Some(&head)).expect("readable");
            assert_eq!(report.fault.or(log.verify().expect("readable").fault), None);
            sizes.push(report.size);
        }
        ended.store(true, Ordering::Relaxed);
        sizes
    });
    assert!(sizes.is_sorted() && sizes[0] < sizes[ROUNDS - 1], "it grew: {sizes:?}");
    log.close();
}

/// Changes a ledger by SQL and checks what the auditor says.
fn check(sql: &str, expected: Option<(u64, FaultKind)>) {
    let (_folder, path) = ledger();
    Connection::open(&path).expect("the database").execute_batch(sql).expect("SQL of the test");
    let found = audit(&path).fault.map(|fault| (fault.index, fault.kind));
    assert_eq!(found, expected, "{sql}");
}

/// Writes `body` over that of an event, with the hash that belongs to it.
fn rewrite(path: &Path, index: i64, body: &[u8]) {
    let database = Connection::open(path).expect("the database");
    let values = rusqlite::params![body, reprieve_ledger::leaf_hash(body), index];
    assert_eq!(database.execute("UPDATE events SET body = ?, leaf_hash = ? WHERE idx = ?", values).expect("writable"), 1);
}

fn body(path: &Path, index: i64) -> Vec<u8> {
    let database = Connection::open(path).expect("the database");
    database.query_row("SELECT body FROM events WHERE idx = ?", [index], |row| row.get(0)).expect("an event")
}

#[test]
fn an_untouched_ledger_is_good() {
    check("", None);
    let (_folder, path) = ledger();
    let report = audit(&path);
    assert_eq!((report.size, report.checkpoints), (EVENTS, EVENTS));
}

#[test]
fn tampering_is_found_and_named() {
    let swap = |a: u64, b: u64| {
        format!(
            "UPDATE events SET idx = -1 WHERE idx = {a}; UPDATE events SET idx = {a} WHERE idx = {b}; UPDATE events SET idx = {b} WHERE idx = -1;"
        )
    };
    check(
        "UPDATE events SET body = CAST(replace(CAST(body AS TEXT), 'orders', 'ordars') AS BLOB) WHERE idx = 4",
        Some((4, FaultKind::Changed)),
    );
    check("UPDATE events SET leaf_hash = zeroblob(32) WHERE idx = 4", Some((4, FaultKind::Changed)));
    check("DELETE FROM events WHERE idx = 5", Some((5, FaultKind::Removed)));
    check("DELETE FROM events WHERE idx = 0", Some((0, FaultKind::Removed)));
    check(&swap(3, 7), Some((3, FaultKind::Reordered { says: 7 })));
    check("DELETE FROM events WHERE idx = 5; UPDATE events SET idx = idx - 1 WHERE idx > 5", Some((5, FaultKind::Reordered { says: 6 })));
    check("DELETE FROM events WHERE idx >= 9", Some((9, FaultKind::Truncated { signed: 12 })));
    check(
        "DELETE FROM events WHERE idx >= 9; DELETE FROM checkpoints WHERE size > 9; UPDATE frontier SET size = 9",
        Some((9, FaultKind::RolledBack { head: 12 })),
    );
    check("DELETE FROM events; DELETE FROM checkpoints; DELETE FROM frontier", Some((0, FaultKind::RolledBack { head: 12 })));
    check("UPDATE checkpoints SET note = replace(note, 'ledger.test', 'ledger.tost') WHERE size = 6", Some((6, FaultKind::BadCheckpoint)));
    check("DELETE FROM checkpoints WHERE size = 6; UPDATE checkpoints SET size = 6 WHERE size = 7", Some((6, FaultKind::BadCheckpoint)));
    check("DELETE FROM checkpoints WHERE size = 6", None);
    check("DELETE FROM checkpoints WHERE size = 12", Some((11, FaultKind::Unsigned)));
    check("UPDATE frontier SET hashes = zeroblob(length(hashes))", Some((12, FaultKind::BadHead)));
    check("DELETE FROM frontier", Some((12, FaultKind::BadHead)));
    check("UPDATE frontier SET size = 11", Some((12, FaultKind::BadHead)));
    for column in ["kind = 'alarm'", "agent = NULL", "hold = 3", "unique_key = NULL", "at_ms = at_ms + 1"] {
        check(&format!("UPDATE events SET {column} WHERE idx = 7"), Some((7, FaultKind::Columns)));
    }
}

#[test]
fn an_event_rewritten_with_its_hash_is_not_the_one_that_was_signed() {
    let (_folder, path) = ledger();
    let changed = String::from_utf8(body(&path, 4)).expect("JSON").replace("\"destroy\"", "\"read\"");
    rewrite(&path, 4, changed.as_bytes());
    assert_eq!(audit(&path).fault, Some(Fault { index: 4, kind: FaultKind::NotAsSigned { checkpoint: 5 } }));
    rewrite(&path, 4, b"{}");
    assert_eq!(audit(&path).fault, Some(Fault { index: 4, kind: FaultKind::Unreadable }));
}

#[test]
fn an_older_copy_of_the_database_is_a_rollback() {
    let (folder, path) = ledger();
    let older = folder.path().join("older.db");
    std::fs::copy(&path, &older).expect("a copy");
    let store = Box::new(SqliteStore::open(&path).expect("a store"));
    let log = AuditLog::open(store, AuditOptions::new(signer()).with_head_file(path.with_extension("head")), clock()).expect("the ledger");
    append(&log, intent(99)).expect("durable");
    log.close();
    drop(log);
    assert!(audit(&path).is_good());
    for suffix in ["-wal", "-shm"] {
        let mut file = path.clone().into_os_string();
        file.push(suffix);
        let _ = std::fs::remove_file(file);
    }
    std::fs::copy(&older, &path).expect("the rollback");
    assert_eq!(audit(&path).fault, Some(Fault { index: EVENTS, kind: FaultKind::RolledBack { head: EVENTS + 1 } }));
    let reader = SqliteStore::open_to_read(&path).expect("a ledger");
    assert!(verify(reader.as_ref(), &signer().verifier(), None).expect("readable").is_good(), "without a head from outside it can't show");
}

#[test]
fn a_signed_snapshot_that_is_wrong_is_found() {
    let (_folder, path) = ledger();
    let mut store = SqliteStore::open(&path).expect("a store");
    let mut folded = Folded::load(&store, &signer().verifier()).expect("a good ledger");
    folded.state.all_frozen = true;
    reprieve_store::Store::save_snapshot(&mut store, &folded.snapshot(&signer()).expect("a snapshot")).expect("writable");
    assert_eq!(audit(&path).fault, Some(Fault { index: EVENTS, kind: FaultKind::BadSnapshot }));
}

#[test]
fn another_key_or_a_foreign_head_is_not_accepted() {
    let (_folder, path) = ledger();
    let reader = SqliteStore::open_to_read(&path).expect("a ledger");
    let other = reprieve_ledger::Signer::from_seed("ledger.test", [6; 32]).expect("a key name");
    let fault = |report: VerifyReport| report.fault.map(|fault| fault.kind);
    assert_eq!(fault(verify(reader.as_ref(), &other.verifier(), None).expect("readable")), Some(FaultKind::BadCheckpoint));
    let checked = verify(reader.as_ref(), &signer().verifier(), Some("nonsense")).expect("readable");
    assert_eq!(fault(checked), Some(FaultKind::BadHeadNote));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_flipped_bit_of_any_event_is_found_at_its_index(index in 0..EVENTS, at in any::<prop::sample::Index>(), bit in 0..8u8, with_hash in any::<bool>()) {
        let (_folder, path) = ledger();
        let row = i64::try_from(index).expect("small");
        let mut bytes = body(&path, row);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if with_hash {
            rewrite(&path, row, &bytes);
        } else {
            Connection::open(&path).expect("the database").execute("UPDATE events SET body = ? WHERE idx = ?", rusqlite::params![bytes, row]).expect("writable");
        }
        prop_assert_eq!(audit(&path).fault.map(|fault| fault.index), Some(index));
    }
}
