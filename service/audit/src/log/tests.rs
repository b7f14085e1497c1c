//! Tests of the audit log: what it promises to the gate, and what a start refuses.

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
};

use reprieve_ledger::Hash;
use reprieve_operation::{AgentName, HoldId, IntentId, Kind, Reach, SessionId, Timestamp, TokenId};
use reprieve_store::{Head, Placed, Row, Seal, Snapshot, SqliteStore};

use super::*;

/// A clock that a test sets.
pub(crate) struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

pub(crate) fn clock() -> Arc<TestClock> {
    Arc::new(TestClock(AtomicU64::new(1_000_000)))
}

pub(crate) fn signer() -> Signer {
    Signer::from_seed("ledger.test", [5; 32]).expect("a key name")
}

/// Appends and waits for the answer.
pub(crate) fn append(log: &AuditLog, event: Event) -> Result<u64, AuditError> {
    wait(log.append(event))
}

pub(crate) fn wait(mut pending: Pending) -> Result<u64, AuditError> {
    loop {
        if let Some(answer) = pending.try_now() {
            return answer;
        }
        std::thread::yield_now();
    }
}

pub(crate) fn agent() -> AgentName {
    "cursor".parse().expect("a name")
}

pub(crate) fn intent(number: u64) -> Event {
    Event::Intent {
        intent: IntentId(number),
        session: SessionId(1),
        agent: agent(),
        token: TokenId(1),
        system: "pocket".parse().expect("a name"),
        environment: "staging".parse().expect("a name"),
        digest: reprieve_operation::Digest([3; 32]),
        text: "DELETE FROM orders WHERE id = $1".to_owned(),
        kinds: vec![Kind::Destroy],
    }
}

pub(crate) fn concluded(number: u64, outcome: Outcome) -> Event {
    Event::Concluded { intent: IntentId(number), agent: agent(), outcome, statements: Vec::new() }
}

fn alarm(what: &str) -> Event {
    Event::Alarm { what: what.to_owned(), agent: None }
}

fn open(path: &Path) -> Result<Arc<AuditLog>, OpenError> {
    let options = AuditOptions::new(signer()).with_head_file(path.with_extension("head"));
    AuditLog::open(Box::new(SqliteStore::open(path).expect("a store")), options, clock())
}

#[test]
fn what_nobody_waits_for_rides_along_with_what_somebody_does() {
    let store = MemoryStore::new();
    // So long that nothing below can be its end.
    let options = AuditOptions { linger: Duration::from_secs(86_400), ..AuditOptions::new(signer()) };
    let log = AuditLog::open(Box::new(store.clone()), options, clock()).expect("an empty store");
    let unheard = |what| {
        let (answer, pending) = Pending::channel();
        drop(pending); // before the writer can look whether anybody listens
        log.enqueue(alarm(what), answer);
    };
    let batches = || store.checkpoints(0, 10).expect("readable").into_iter().map(|(size, _)| size).collect::<Vec<_>>();
    unheard("one");
    unheard("two");
    assert_eq!(append(&log, alarm("three")), Ok(2), "at once, with the two before it");
    assert_eq!(batches(), [3]);
    assert_eq!(append(&log, alarm("four")), Ok(3), "an event that is waited for needs no company");
    unheard("five");
    log.close();
    assert_eq!(batches(), [3, 4, 5], "the end takes along what lingers");
}

#[test]
fn what_nobody_waits_for_becomes_durable_without_company() {
    let log = AuditLog::in_memory(clock());
    drop(log.append(alarm("alone")));
    while log.state().size == 0 {
        std::thread::yield_now();
    }
}

#[test]
fn events_are_durable_folded_and_told_in_order_before_the_answer() {
    let log = AuditLog::in_memory(clock());
    let mut follower = log.follow();
    for number in 0..3 {
        assert_eq!(append(&log, intent(number)), Ok(number));
        assert_eq!(log.state().size, number + 1);
        assert!(log.state().open_intents.contains_key(&IntentId(number)));
        assert_eq!(follower.try_recv().expect("told before the answer").index, number);
    }
    assert_eq!(append(&log, concluded(1, Outcome::Abandoned)), Ok(3));
    assert!(!log.state().open_intents.contains_key(&IntentId(1)));
    let found = log.search(&Query { kind: Some("intent".to_owned()), limit: 2, ..Query::default() }).expect("readable");
    assert_eq!(found.iter().map(|recorded| recorded.index).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(log.events(3, 10).expect("readable").len(), 1);
    assert!(log.verify().expect("readable").is_good());
}

#[test]
fn what_may_happen_once_happens_once() {
    let log = AuditLog::in_memory(clock());
    let release = |intent| Event::HoldReleased { hold: HoldId(7), intent: IntentId(intent) };
    let pending: Vec<Pending> = (0..50).map(|number| log.append(release(number))).collect();
    let answers: Vec<_> = pending.into_iter().map(wait).collect();
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert_eq!(answers.first(), Some(&Ok(0)));
    assert!(answers.iter().skip(1).all(|answer| *answer == Err(AuditError::KeyTaken { key: "release:H-7".to_owned() })));
    assert_eq!(append(&log, alarm("next")), Ok(1), "a loser leaves no gap");
}

#[test]
fn time_never_goes_backwards() {
    let clock = clock();
    let log = AuditLog::in_memory(clock.clone());
    for now in [5_000_000, 4_000_000, 6_000_000] {
        clock.0.store(now, Ordering::Relaxed);
        append(&log, alarm("tick")).expect("durable");
    }
    let times: Vec<u64> = log.events(0, 10).expect("readable").iter().map(|recorded| recorded.at.0).collect();
    assert_eq!(times, [5_000_000, 5_000_000, 6_000_000]);
}

#[test]
fn a_new_start_knows_the_same_state_with_a_snapshot_and_without() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("ledger.db");
    let log = open(&path).expect("a new ledger");
    for number in 0..20 {
        append(&log, intent(number)).expect("durable");
        append(&log, concluded(number, Outcome::Abandoned)).expect("durable");
    }
    append(&log, Event::Frozen { agent: Some(agent()), by: "ana".to_owned(), reason: "a test".to_owned() }).expect("durable");
    let before = log.state().clone();
    log.close();
    assert_eq!(*open(&path).expect("with its snapshot").state(), before);
    let database = rusqlite::Connection::open(&path).expect("the database");
    assert_eq!(database.execute("DELETE FROM snapshot", []).expect("a snapshot was written at the close"), 1);
    assert_eq!(*open(&path).expect("without its snapshot").state(), before);
}

#[test]
fn a_forged_snapshot_is_not_believed() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("ledger.db");
    let log = open(&path).expect("a new ledger");
    append(&log, Event::Frozen { agent: None, by: "ana".to_owned(), reason: "a test".to_owned() }).expect("durable");
    log.close();
    let database = rusqlite::Connection::open(&path).expect("the database");
    let forged = "UPDATE snapshot SET body = CAST(replace(CAST(body AS TEXT), '\"all_frozen\":true', '\"all_frozen\":false') AS BLOB)";
    assert_eq!(database.execute(forged, []).expect("writable"), 1);
    let body: Vec<u8> = database.query_row("SELECT body FROM snapshot", [], |row| row.get(0)).expect("readable");
    assert!(String::from_utf8_lossy(&body).contains("\"all_frozen\":false"), "the forgery is in place");
    assert!(open(&path).expect("read from its events").state().all_frozen);
}

#[test]
fn intents_found_open_become_unknown() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("ledger.db");
    let log = open(&path).expect("a new ledger");
    for number in 0..5 {
        append(&log, intent(number)).expect("durable");
    }
    append(&log, concluded(2, Outcome::Abandoned)).expect("durable");
    drop(log);
    let log = open(&path).expect("the same ledger");
    assert!(log.state().open_intents.is_empty());
    let swept = log.events(6, 10).expect("readable");
    assert_eq!(
        swept.iter().map(|recorded| recorded.event.clone()).collect::<Vec<_>>(),
        [0, 1, 3, 4].map(|number| concluded(number, Outcome::Unknown))
    );
    assert!(matches!(append(&log, concluded(0, Outcome::Abandoned)), Err(AuditError::KeyTaken { .. })), "one outcome each");
    assert!(log.verify().expect("readable").is_good());
    // Which ones are not settled is part of the state, also out of a snapshot.
    let unsettled = |log: &AuditLog| log.state().unsettled.keys().map(|intent| intent.0).collect::<Vec<_>>();
    assert_eq!(unsettled(&log), [0, 1, 3, 4]);
    let agent = log.state().unsettled[&IntentId(1)].intent.agent.clone();
    append(&log, Event::Settled { intent: IntentId(1), agent, xid: None, reach: Reach::default() }).expect("durable");
    log.close();
    drop(log);
    assert_eq!(unsettled(&open(&path).expect("the same ledger")), [0, 3, 4]);
}

#[test]
fn after_the_close_nothing_is_taken() {
    let log = AuditLog::in_memory(clock());
    append(&log, alarm("first")).expect("durable");
    let last: Vec<Pending> = (0..100).map(|number| log.append(alarm(&number.to_string()))).collect();
    log.close();
    assert!(last.into_iter().map(wait).all(|answer| answer.is_ok()), "what was taken is finished");
    assert!(matches!(append(&log, alarm("late")), Err(AuditError::Unavailable { .. })));
    log.close();
}

#[test]
fn an_event_that_is_too_long_is_refused_and_harms_no_other() {
    let log = AuditLog::in_memory(clock());
    assert!(matches!(append(&log, alarm(&"x".repeat(70_000))), Err(AuditError::Unavailable { .. })));
    assert_eq!(append(&log, alarm("short")), Ok(0));
}

#[test]
fn an_older_copy_of_the_database_is_refused() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("ledger.db");
    let log = open(&path).expect("a new ledger");
    append(&log, alarm("one")).expect("durable");
    log.close();
    drop(log);
    let older = folder.path().join("older.db");
    fs::copy(&path, &older).expect("a copy");
    let log = open(&path).expect("the same ledger");
    append(&log, alarm("two")).expect("durable");
    log.close();
    drop(log);
    fs::copy(&older, &path).expect("the rollback");
    assert!(matches!(open(&path), Err(OpenError::RolledBack { head: 2, stored: 1 })));
}

#[test]
fn a_ledger_that_went_on_from_an_older_copy_is_refused() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("ledger.db");
    let log = open(&path).expect("a new ledger");
    append(&log, alarm("one")).expect("durable");
    drop(log);
    let head = fs::read(path.with_extension("head")).expect("a head file");
    fs::remove_file(&path).expect("the ledger is lost");
    fs::remove_file(path.with_extension("head")).expect("and its head file");
    let log = open(&path).expect("another ledger");
    append(&log, alarm("another")).expect("durable");
    append(&log, alarm("past")).expect("durable");
    drop(log);
    fs::write(path.with_extension("head"), head).expect("the first ledger's head");
    assert!(matches!(open(&path), Err(OpenError::Forked { head: 1 })));
}

#[test]
fn a_head_file_that_is_gone_or_foreign_is_refused() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("ledger.db");
    let log = open(&path).expect("a new ledger");
    append(&log, alarm("one")).expect("durable");
    drop(log);
    let head = path.with_extension("head");
    fs::write(&head, "not a note").expect("writable");
    assert!(matches!(open(&path), Err(OpenError::HeadNote { .. })));
    fs::remove_file(&head).expect("removable");
    assert!(matches!(open(&path), Err(OpenError::HeadMissing { size: 1, .. })));
    let options = AuditOptions { adopt_missing_head: true, ..AuditOptions::new(signer()).with_head_file(&head) };
    drop(AuditLog::open(Box::new(SqliteStore::open(&path).expect("a store")), options, clock()).expect("adopted"));
    assert!(open(&path).is_ok());
}

#[test]
fn a_changed_ledger_or_another_key_is_refused() {
    for change in [
        "UPDATE events SET body = CAST(replace(CAST(body AS TEXT), 'two', 'owt') AS BLOB) WHERE idx = 1",
        "DELETE FROM events WHERE idx = 1",
        "DELETE FROM events WHERE idx = 2",
        "DELETE FROM checkpoints WHERE size = 3",
        "UPDATE frontier SET hashes = zeroblob(length(hashes))",
        "DELETE FROM frontier",
        "INSERT INTO events SELECT 3, at_ms, kind, agent, hold, unique_key, leaf_hash, body FROM events WHERE idx = 0",
    ] {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("ledger.db");
        let log = open(&path).expect("a new ledger");
        for what in ["one", "two", "three"] {
            append(&log, alarm(what)).expect("durable");
        }
        drop(log);
        let database = rusqlite::Connection::open(&path).expect("the database");
        database.execute("DELETE FROM snapshot", []).expect("writable");
        assert_eq!(database.execute(change, []).expect("a change of the test"), 1, "{change}");
        assert!(open(&path).is_err(), "{change}");
    }
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("ledger.db");
    append(&open(&path).expect("a new ledger"), alarm("one")).expect("durable");
    let other = Signer::from_seed("ledger.test", [6; 32]).expect("a key name");
    let store = Box::new(SqliteStore::open(&path).expect("a store"));
    assert!(matches!(AuditLog::open(store, AuditOptions::new(other), clock()), Err(OpenError::Load(LoadError::Checkpoint(_)))));
}

/// A store whose writes can be made to fail or to wait.
struct FaultyStore {
    inner: MemoryStore,
    fails: Arc<AtomicBool>,
    appends: Arc<AtomicU64>,
    entered: Arc<AtomicU64>,
    gate: Option<Mutex<mpsc::Receiver<()>>>,
}

impl FaultyStore {
    fn new() -> Self {
        Self { inner: MemoryStore::new(), fails: Arc::default(), appends: Arc::default(), entered: Arc::default(), gate: None }
    }
}

impl Reader for FaultyStore {
    fn head(&self) -> Result<Option<Head>, StoreError> {
        self.inner.head()
    }
    fn checkpoints(&self, from: u64, limit: usize) -> Result<Vec<(u64, String)>, StoreError> {
        self.inner.checkpoints(from, limit)
    }
    fn rows(&self, from: u64, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.inner.rows(from, limit)
    }
    fn search(&self, query: &Query) -> Result<Vec<Row>, StoreError> {
        self.inner.search(query)
    }
    fn block_roots(&self, from: u64, limit: usize) -> Result<Vec<Hash>, StoreError> {
        self.inner.block_roots(from, limit)
    }
    fn snapshot(&self) -> Result<Option<Snapshot>, StoreError> {
        self.inner.snapshot()
    }
    fn as_of_now(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.inner.as_of_now()
    }
}

impl Store for FaultyStore {
    fn append(&mut self, keys: &[Option<String>], seal: Seal<'_>) -> Result<Vec<Placed>, StoreError> {
        self.entered.fetch_add(1, Ordering::Relaxed);
        if let Some(gate) = &self.gate {
            let _ = gate.lock().expect("one writer").recv();
        }
        self.appends.fetch_add(1, Ordering::Relaxed);
        if self.fails.load(Ordering::Relaxed) { Err(StoreError::Damaged("a disk of the test")) } else { self.inner.append(keys, seal) }
    }
    fn save_snapshot(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        self.inner.save_snapshot(snapshot)
    }
    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.inner.reader()
    }
}

#[test]
fn a_failed_write_is_never_tried_again_and_nothing_is_taken_afterwards() {
    let store = FaultyStore::new();
    let (fails, appends) = (store.fails.clone(), store.appends.clone());
    let log = AuditLog::open(Box::new(store), AuditOptions::new(signer()), clock()).expect("an empty store");
    append(&log, alarm("good")).expect("durable");
    fails.store(true, Ordering::Relaxed);
    let failed = Err(AuditError::Unavailable { reason: "its storage failed".to_owned() });
    assert_eq!(append(&log, alarm("lost")), failed);
    fails.store(false, Ordering::Relaxed);
    let tried = appends.load(Ordering::Relaxed);
    for _ in 0..10 {
        assert!(matches!(append(&log, alarm("late")), Err(AuditError::Unavailable { .. })));
    }
    log.close();
    assert_eq!(append(&log, alarm("later")), failed);
    assert_eq!(appends.load(Ordering::Relaxed), tried);
    assert_eq!(log.state().size, 1);
}

#[test]
fn a_full_queue_refuses_at_once_and_what_waits_becomes_one_batch() {
    let (pass, gate) = mpsc::channel();
    let store = FaultyStore { gate: Some(Mutex::new(gate)), ..FaultyStore::new() };
    let (appends, entered) = (store.appends.clone(), store.entered.clone());
    let options = AuditOptions { queue_limit: 10, ..AuditOptions::new(signer()) };
    let log = AuditLog::open(Box::new(store), options, clock()).expect("an empty store");
    let first = log.append(alarm("first"));
    while entered.load(Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }
    // The writer is busy with the first from here on.
    let waiting: Vec<Pending> = (0..100).map(|number| log.append(alarm(&number.to_string()))).collect();
    for _ in 0..3 {
        pass.send(()).expect("the writer waits");
    }
    assert_eq!(wait(first), Ok(0));
    let answers: Vec<_> = waiting.into_iter().map(wait).collect();
    let full = Err(AuditError::Unavailable { reason: "its queue is full".to_owned() });
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(*answer, if number < 10 { Ok(number as u64 + 1) } else { full.clone() }, "{number}");
    }
    assert_eq!(appends.load(Ordering::Relaxed), 2, "one transaction for what waited");
    assert_eq!(append(&log, alarm("next")), Ok(11));
    assert_eq!(log.shared.queued_bytes.load(Ordering::Relaxed), 0);
}

/// A search that has no time stops after its first part, says where, and goes on from there without missing or repeating anything.
#[test]
fn a_search_stops_when_its_time_is_up_and_goes_on_from_there() {
    let log = AuditLog::in_memory(clock());
    for number in 0..20_000 {
        let what = format!("{} {number}", if number % 9_000 == 1 { "needle" } else { "hay" });
        let mut pending = log.append(Event::Alarm { what, agent: None });
        // Less than the queue takes.
        while (number % 4_000 == 0 || number == 19_999) && pending.try_now().is_none() {
            std::thread::yield_now();
        }
    }
    let mut query = Query { text: Some("needle".to_owned()), limit: 10, ..Query::default() };
    let (first, stopped) = log.search_for(&query, Duration::ZERO).expect("readable");
    assert_eq!(stopped, Some(20_000 - SEARCHED_AT_ONCE));
    query.before = stopped;
    let (second, end) = log.search_for(&query, Duration::ZERO).expect("readable");
    let indexes: Vec<u64> = first.iter().chain(&second).map(|recorded| recorded.index).collect();
    assert_eq!((indexes, end), (vec![18_001, 9_001, 1], None));
    query.before = None;
    assert_eq!(log.search_for(&query, Duration::from_secs(60)).expect("readable").0.len(), 3);
    let one = Query { limit: 1, ..query };
    assert_eq!(log.search_for(&one, Duration::ZERO).expect("readable").0[0].index, 18_001);
}
