//! A ledger in memory that becomes durable, speaks, fills up, fails and dies when the simulation says so.
//!
//! It keeps the promises of the real writer (`service/audit`): events in their order, each unique key once, folded into the state before
//! anybody is told, nothing accepted after a failure. What it adds is that every moment in between can be stopped at.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use reprieve_gate::{Audit, AuditError, Clock, Pending};
use reprieve_operation::{Event, IntentId, Outcome, Recorded, SessionId, State, Timestamp};
use tokio::sync::{broadcast, oneshot};

/// A clock that stands still until it is moved.
pub(crate) struct StandingClock(AtomicU64);

impl StandingClock {
    /// A clock at noon of Monday, 5 January 2026, UTC.
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(1_767_614_400_000))
    }

    /// Moves on.
    pub(crate) fn advance(&self, by: std::time::Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Clock for StandingClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

/// What survives a crash.
#[derive(Default)]
pub(crate) struct Disk {
    /// Every durable event.
    pub(crate) events: Vec<Arc<Recorded>>,
    keys: HashSet<String>,
    /// Where intents and their outcomes are, for the checks.
    pub(crate) intents: HashSet<IntentId>,
    /// Outcomes by intent.
    pub(crate) outcomes: HashMap<IntentId, Outcome>,
}

impl Disk {
    /// Appends an event, or answers that its key is taken.
    pub(crate) fn push(&mut self, event: Event, at: Timestamp) -> Result<Arc<Recorded>, AuditError> {
        if let Some(key) = event.unique_key()
            && !self.keys.insert(key.clone())
        {
            return Err(AuditError::KeyTaken { key });
        }
        match &event {
            Event::Intent { intent, .. } => {
                self.intents.insert(*intent);
            }
            Event::Concluded { intent, outcome, .. } => {
                self.outcomes.insert(*intent, outcome.clone());
            }
            _ => {}
        }
        let recorded = Arc::new(Recorded { index: self.events.len() as u64, at, event });
        self.events.push(recorded.clone());
        Ok(recorded)
    }

    /// The state that all events fold to.
    pub(crate) fn state(&self) -> State {
        let mut state = State::default();
        self.events.iter().for_each(|recorded| state.apply(recorded));
        state
    }
}

/// How the ledger's storage is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// It takes events.
    Well,
    /// Its queue is full: it refuses events, and may recover.
    Full,
    /// A write failed: it refuses everything until the next start.
    Failed,
    /// Its process is dead: whatever its last values still say is not heard.
    Dead,
}

type Answer = oneshot::Sender<Result<u64, AuditError>>;

/// A durable event that nobody was told of, with whom to answer.
type Untold = (Answer, Result<u64, AuditError>, Option<Arc<Recorded>>);

struct Waiting {
    health: Health,
    queue: VecDeque<(Event, Answer)>,
    untold: VecDeque<Untold>,
    intent_of: HashMap<SessionId, IntentId>,
    has_refused: bool,
}

/// The ledger of one life of the gateway.
pub(crate) struct Ledger {
    disk: Arc<Mutex<Disk>>,
    waiting: Mutex<Waiting>,
    state: RwLock<State>,
    /// The state as far as the followers were told.
    told: RwLock<State>,
    followers: broadcast::Sender<Arc<Recorded>>,
    clock: Arc<StandingClock>,
    /// Whether it says that an event is durable before it is, to see that the checks see it.
    lies: bool,
}

/// Locks; a test that panicked elsewhere has failed already.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// Starts on what is durable, and sweeps open intents to `unknown`, as the real start does.
    pub(crate) fn start(disk: Arc<Mutex<Disk>>, clock: Arc<StandingClock>, lies: bool) -> Self {
        let mut state = lock(&disk).state();
        let mut open: Vec<_> = state.open_intents.iter().map(|(intent, open)| (*intent, open.agent.clone())).collect();
        open.sort_by_key(|(intent, _)| *intent);
        for (intent, agent) in open {
            let event = Event::Concluded { intent, agent, outcome: Outcome::Unknown, statements: Vec::new() };
            if let Ok(recorded) = lock(&disk).push(event, clock.now()) {
                state.apply(&recorded);
            }
        }
        let waiting = Waiting {
            health: Health::Well,
            queue: VecDeque::new(),
            untold: VecDeque::new(),
            intent_of: HashMap::new(),
            has_refused: false,
        };
        let told = RwLock::new(state.clone());
        let (waiting, state, followers) = (Mutex::new(waiting), RwLock::new(state), broadcast::channel(4_096).0);
        Self { disk, waiting, state, told, followers, clock, lies }
    }

    /// Makes the first `count` waiting events durable and folds them. Nobody is told yet.
    pub(crate) fn place(&self, count: usize) {
        let mut waiting = lock(&self.waiting);
        for _ in 0..count {
            let Some((event, answer)) = waiting.queue.pop_front() else { return };
            match lock(&self.disk).push(event, self.clock.now()) {
                Ok(recorded) => {
                    self.state.write().unwrap_or_else(PoisonError::into_inner).apply(&recorded);
                    waiting.untold.push_back((answer, Ok(recorded.index), Some(recorded)));
                }
                Err(error) => waiting.untold.push_back((answer, Err(error), None)),
            }
        }
    }

    /// Tells followers of, and answers, the first `count` events that are durable.
    pub(crate) fn tell(&self, count: usize) {
        for _ in 0..count {
            let Some((answer, result, recorded)) = lock(&self.waiting).untold.pop_front() else { return };
            if let Some(recorded) = recorded {
                self.told.write().unwrap_or_else(PoisonError::into_inner).apply(&recorded);
                let _nobody_follows = self.followers.send(recorded);
            }
            let _nobody_waits = answer.send(result);
        }
    }

    /// The storage fails under the waiting events: none is acknowledged, and the first `reached` are on the disk nevertheless.
    pub(crate) fn fail(&self, reached: usize) {
        let queue = {
            let mut waiting = lock(&self.waiting);
            waiting.health = Health::Failed;
            std::mem::take(&mut waiting.queue)
        };
        for (place, (event, answer)) in queue.into_iter().enumerate() {
            if place < reached {
                let _taken = lock(&self.disk).push(event, self.clock.now());
            }
            let _nobody_waits = answer.send(Err(AuditError::Unavailable { reason: "its storage failed".to_owned() }));
        }
    }

    /// Fills the queue, or makes room again.
    pub(crate) fn set_full(&self, full: bool) {
        let mut waiting = lock(&self.waiting);
        match waiting.health {
            Health::Well | Health::Full => waiting.health = if full { Health::Full } else { Health::Well },
            Health::Failed | Health::Dead => {}
        }
    }

    /// The process dies: nothing that is said from now on reaches the disk.
    pub(crate) fn die(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.health = Health::Dead;
        waiting.queue.clear();
        waiting.untold.clear();
    }

    /// Whether it had to refuse an event in this life.
    pub(crate) fn has_refused(&self) -> bool {
        lock(&self.waiting).has_refused
    }

    /// How it is doing.
    pub(crate) fn health(&self) -> Health {
        lock(&self.waiting).health
    }

    /// Events that wait to be durable, and durable ones that wait to be told.
    pub(crate) fn backlog(&self) -> (usize, usize) {
        let waiting = lock(&self.waiting);
        (waiting.queue.len(), waiting.untold.len())
    }

    /// Its clock.
    pub(crate) fn clock(&self) -> &StandingClock {
        &self.clock
    }

    /// What is durable.
    pub(crate) fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.disk)
    }

    /// The state as far as the followers were told.
    pub(crate) fn told(&self) -> RwLockReadGuard<'_, State> {
        self.told.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest intent of a session, durable or not.
    pub(crate) fn intent_of(&self, session: SessionId) -> Option<IntentId> {
        lock(&self.waiting).intent_of.get(&session).copied()
    }
}

impl Audit for Ledger {
    fn append(&self, event: Event) -> Pending {
        let (answer, pending) = Pending::channel();
        let mut waiting = lock(&self.waiting);
        if let Event::Intent { session, intent, .. } = &event {
            waiting.intent_of.insert(*session, *intent);
        }
        match waiting.health {
            Health::Well if self.lies => {
                let _nobody_waits = answer.send(Ok(0));
                waiting.queue.push_back((event, Pending::channel().0));
            }
            Health::Well => waiting.queue.push_back((event, answer)),
            Health::Full | Health::Failed => {
                waiting.has_refused = true;
                let reason = if waiting.health == Health::Full { "its queue is full" } else { "its storage failed" };
                let _nobody_waits = answer.send(Err(AuditError::Unavailable { reason: reason.to_owned() }));
            }
            Health::Dead => {}
        }
        pending
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&self) -> broadcast::Receiver<Arc<Recorded>> {
        self.followers.subscribe()
    }
}
