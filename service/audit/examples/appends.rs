//! Measures durable appends with 1, 16, 64 and 256 concurrent appenders, and prints one JSON object.
//!
//! First each appender waits for every event, then as a gateway does: for the intent, not for the outcome.
//!
//! `cargo run --release -p reprieve-audit --example appends [FOLDER [SECONDS]]`: FOLDER decides which disk is measured.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use reprieve_audit::{AuditLog, AuditOptions, SystemClock};
use reprieve_gate::Audit as _;
use reprieve_ledger::Signer;
use reprieve_operation::{Digest, Event, IntentId, Kind, SessionId, TokenId};
use reprieve_store::SqliteStore;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(3.0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    let runs = |waiting| -> Vec<serde_json::Value> {
        let run = |appenders| runtime.block_on(run(&folder, appenders, waiting, seconds));
        [1, 16, 64, 256].into_iter().map(run).collect()
    };
    let (all, intents) = (runs(Waiting::ForAll), runs(Waiting::ForIntents));
    let what = "durable ledger appends";
    println!("{}", serde_json::json!({ "what": what, "seconds": seconds, "runs": all, "runs_waiting_for_intents": intents }));
}

/// Which events an appender waits for.
#[derive(Clone, Copy)]
enum Waiting {
    ForAll,
    ForIntents,
}

/// Appends for a while into a ledger of its own, each appender one event after the other.
async fn run(folder: &Path, appenders: u64, waiting: Waiting, seconds: f64) -> serde_json::Value {
    let folder = tempfile::tempdir_in(folder).expect("a folder to write in");
    let path = folder.path().join("ledger.db");
    let signer = Signer::from_seed("bench", [1; 32]).expect("a key name");
    let options = AuditOptions::new(signer).with_head_file(path.with_extension("head"));
    let store = Box::new(SqliteStore::open(&path).expect("a new store"));
    let log = AuditLog::open(store, options, Arc::new(SystemClock)).expect("a new ledger");
    let begun = Instant::now();
    let until = begun + Duration::from_secs_f64(seconds);
    let tasks: Vec<_> = (0..appenders).map(|appender| tokio::spawn(appending(log.clone(), appender, waiting, until))).collect();
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await.expect("an appender"));
    }
    let elapsed = begun.elapsed();
    let appends = log.state().size;
    waits.sort_unstable();
    let quantile = |share: f64| waits.get((waits.len() as f64 * share) as usize).map_or(0.0, |wait| wait.as_secs_f64() * 1e3);
    let batches = log.with_reader(|reader| reader.checkpoints(0, usize::MAX)).expect("readable").len();
    serde_json::json!({
        "appenders": appenders,
        "appends": appends,
        "appends_per_second": (appends as f64 / elapsed.as_secs_f64()).round(),
        "batches": batches,
        "p50_ms": quantile(0.5),
        "p99_ms": quantile(0.99),
    })
}

async fn appending(log: Arc<AuditLog>, appender: u64, waiting: Waiting, until: Instant) -> Vec<Duration> {
    let mut waits = Vec::new();
    for number in 0.. {
        let begun = Instant::now();
        if begun >= until {
            break;
        }
        let number = appender << 40 | number;
        log.append(intent(number)).await.expect("durable");
        waits.push(begun.elapsed());
        let outcome = log.append(concluded(number));
        match waiting {
            Waiting::ForIntents => drop(outcome),
            Waiting::ForAll => {
                let begun = Instant::now();
                outcome.await.expect("durable");
                waits.push(begun.elapsed());
            }
        }
    }
    waits
}

fn intent(number: u64) -> Event {
    Event::Intent {
        intent: IntentId(number),
        session: SessionId(1),
        agent: "cursor".parse().expect("a name"),
        token: TokenId(1),
        system: "pocket-prod".parse().expect("a name"),
        environment: "production".parse().expect("a name"),
        digest: Digest([1; 32]),
        text: "UPDATE pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2".to_owned(),
        kinds: vec![Kind::Write],
    }
}

fn concluded(number: u64) -> Event {
    let outcome = reprieve_operation::Outcome::Abandoned;
    Event::Concluded { intent: IntentId(number), agent: "cursor".parse().expect("a name"), outcome, statements: Vec::new() }
}
