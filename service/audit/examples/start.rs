//! Measures how long a start takes with a long ledger: fills one with events of every common sort, stops, and opens it again,
//! with the snapshot a stop leaves, with one as old as a kill can leave it, and with none. Prints one JSON object.
//!
//! `cargo run --release -p reprieve-audit --example start [FOLDER [EVENTS]]`

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use reprieve_audit::{AuditLog, AuditOptions, SystemClock};
use reprieve_gate::{Audit as _, Pending};
use reprieve_ledger::Signer;
use reprieve_operation::{AgentName, Digest, Event, IntentId, Kind, Outcome, Reach, SessionId, TableReach, TokenId};
use reprieve_store::SqliteStore;

/// Events that are handed over before one is waited for: less than the queue takes.
const AT_ONCE: u64 = 4_000;
const AGENTS: u64 = 50;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let events: u64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let folder = tempfile::tempdir_in(folder).expect("a folder to write in");
    let path = folder.path().join("ledger.db");
    let begun = Instant::now();
    fill(&path, events);
    let filled_s = begun.elapsed().as_secs_f64();
    let after_stop_s = timed_start(&path);
    let killed_at = add_without_snapshot(&path, 9_999);
    let after_kill_s = timed_start(&killed_at);
    without_snapshot(&path);
    let without_snapshot_s = timed_start(&path);
    let bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
    println!(
        "{}",
        serde_json::json!({
            "what": "start with a long ledger", "events": events, "bytes": bytes, "filled_s": filled_s,
            "after_stop_s": after_stop_s, "after_kill_s": after_kill_s, "without_snapshot_s": without_snapshot_s,
        })
    );
}

fn open(path: &Path) -> Arc<AuditLog> {
    let signer = Signer::from_seed("bench", [1; 32]).expect("a key name");
    let options = AuditOptions { adopt_missing_head: true, ..AuditOptions::new(signer).with_head_file(path.with_extension("head")) };
    let store = Box::new(SqliteStore::open(path).expect("a store"));
    AuditLog::open(store, options, Arc::new(SystemClock)).expect("a good ledger")
}

fn timed_start(path: &Path) -> f64 {
    let begun = Instant::now();
    let log = open(path);
    let took = begun.elapsed().as_secs_f64();
    log.close();
    took
}

fn fill(path: &Path, events: u64) {
    let log = open(path);
    append(&log, 0, events);
    log.close();
}

/// Copies the ledger as it is on the disk while its gateway runs, which is what a kill leaves behind.
fn add_without_snapshot(path: &Path, events: u64) -> PathBuf {
    let log = open(path);
    let first = log.state().next.intent;
    append(&log, first, events);
    let copy = path.with_file_name("killed.db");
    for (from, to) in [("", ""), ("-wal", "-wal")] {
        let named = |path: &Path, end: &str| PathBuf::from(format!("{}{end}", path.display()));
        std::fs::copy(named(path, from), named(&copy, to)).expect("room for a copy");
    }
    log.close();
    copy
}

fn without_snapshot(path: &Path) {
    let database = rusqlite::Connection::open(path).expect("the database");
    database.execute("DELETE FROM snapshot", []).expect("a table of the ledger");
}

fn append(log: &AuditLog, first: u64, events: u64) {
    let mut last: Option<Pending> = None;
    for number in 0..events {
        let pending = log.append(event(first + number / 2, number % 2 == 0));
        if number % AT_ONCE == AT_ONCE - 1 || number == events - 1 {
            last = Some(pending);
        }
        if let Some(mut pending) = last.take() {
            while pending.try_now().map(|answer| answer.expect("durable")).is_none() {
                std::thread::yield_now();
            }
        }
    }
}

fn event(number: u64, is_intent: bool) -> Event {
    let agent: AgentName = format!("agent-{}", number % AGENTS).parse().expect("a name");
    let intent = IntentId(number);
    if is_intent {
        return Event::Intent {
            intent,
            session: SessionId(number / 100),
            agent,
            token: TokenId(number % AGENTS),
            system: "pocket-prod".parse().expect("a name"),
            environment: "production".parse().expect("a name"),
            digest: Digest([1; 32]),
            text: "UPDATE pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2".to_owned(),
            kinds: vec![Kind::Write],
        };
    }
    let rows = TableReach { updated: 1, inserted: number % 3, ..TableReach::default() };
    let tables = [("public.pgbench_accounts".to_owned(), rows)].into();
    let outcome = match number % 10 {
        0 => Outcome::Abandoned,
        _ => Outcome::Done { tag: "UPDATE 1".to_owned(), reach: Reach { tables, ..Reach::default() }, xid: Some(number) },
    };
    Event::Concluded { intent, agent, outcome, statements: Vec::new() }
}
