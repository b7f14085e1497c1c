//! An in-memory ledger and a clock to set, for tests.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use reprieve_gate::{Audit, AuditError, Clock, Pending};
use reprieve_operation::{Event, Recorded, State, Timestamp};
use tokio::sync::broadcast;

/// The ledger: durable at once, unless `broken`.
#[derive(Debug)]
pub(crate) struct Memory {
    events: Mutex<(Vec<Recorded>, HashSet<String>)>,
    state: RwLock<State>,
    pub(crate) broken: AtomicBool,
    now: Arc<Hand>,
}

/// A clock that moves when told to.
#[derive(Debug)]
pub(crate) struct Hand(AtomicU64);

impl Hand {
    pub(crate) fn new(now: Timestamp) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(now.0)))
    }

    pub(crate) fn forward(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).expect("a short while"), Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

impl Memory {
    pub(crate) fn new(now: Arc<Hand>) -> Arc<Self> {
        Arc::new(Self { events: Mutex::default(), state: RwLock::default(), broken: AtomicBool::new(false), now })
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().expect("not poisoned").0.iter().map(|recorded| recorded.event.clone()).collect()
    }
}

impl Audit for Memory {
    fn append(&self, event: Event) -> Pending {
        let (sender, pending) = Pending::channel();
        let mut events = self.events.lock().expect("not poisoned");
        let answer = if self.broken.load(Ordering::SeqCst) {
            Err(AuditError::Unavailable { reason: "broken by the test".to_owned() })
        } else if let Some(key) = event.unique_key().filter(|key| !events.1.insert(key.clone())) {
            Err(AuditError::KeyTaken { key })
        } else {
            let recorded = Recorded { index: events.0.len() as u64, at: self.now.now(), event };
            self.state.write().expect("not poisoned").apply(&recorded);
            events.0.push(recorded);
            Ok(events.0.len() as u64 - 1)
        };
        sender.send(answer).ok();
        pending
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect("not poisoned")
    }

    fn follow(&self) -> broadcast::Receiver<Arc<Recorded>> {
        broadcast::channel(1).1
    }
}
