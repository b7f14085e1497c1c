//! The story of one operation, from request to recorded outcome.
//!
//! Read [`Gate::handle`] first: record the intent, settle the terms, run under a permit, record the outcome. How a hold
//! waits is in `holding.rs`; what the run must prove is in `permit.rs`.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use reprieve_operation::{
    Action, Budget, Decision, Effect, Environment, Event, Facts, HoldState, HoldStatus, IntentId, Kind, Operation, Outcome, Principal,
    Reach, Refusal, Scope, SessionId, State, SystemName, Terms, Timestamp, Undoability,
};
use reprieve_policy::{DecisionCache, Policy};
use tokio::sync::watch;

use crate::{
    audit::{Audit, Clock},
    holding::Holding,
    permit::{OpenIntent, Permit, Release},
    recovery::Copies,
    spending::{Reservation, Spending},
    texts::{AskedText, Texts},
    upstream::{Done, Ran, Upstream},
};

/// A measured excess may be run again under new terms this often before the operation is given up.
const MAX_ROUNDS: usize = 8;

/// Decisions remembered; one is a few hundred bytes.
const REMEMBERED_DECISIONS: NonZeroUsize = NonZeroUsize::new(8_192).expect("not zero");

/// How the gate behaves.
#[derive(Debug, Clone)]
pub struct GateOptions {
    /// Budgets by environment; an environment that is not listed has the default budget.
    pub budgets: HashMap<Environment, Budget>,
    /// How long a client that still listens waits for people.
    pub wait: Duration,
    /// When a hold that nobody answered is denied.
    pub expire: Duration,
    /// How many open holds one agent may have.
    pub open_holds: usize,
    /// Where people look at a hold; its id is appended.
    pub link: String,
}

/// Carries operations from request to recorded outcome.
pub struct Gate {
    pub(crate) audit: Arc<dyn Audit>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: GateOptions,
    pub(crate) holding: Holding,
    policy: Arc<ArcSwap<Policy>>,
    decisions: DecisionCache,
    spending: Arc<Spending>,
    judging: Mutex<()>,
    next_intent: AtomicU64,
    next_session: AtomicU64,
    /// By system: how long a call that destroys for good waits in sight of everybody.
    windows: HashMap<SystemName, Duration>,
    /// What is expected of each system's copies.
    copies: Copies,
    /// Where exact texts are kept.
    texts: Option<Arc<dyn Texts>>,
    control: watch::Sender<u64>,
}

impl Gate {
    /// A gate over a ledger and a policy set that may be swapped at any time.
    #[must_use]
    pub fn new(audit: Arc<dyn Audit>, clock: Arc<dyn Clock>, policy: Arc<ArcSwap<Policy>>, options: GateOptions) -> Self {
        let next = audit.state().next;
        // A run that was cut off by a crash has spent its release: whether it took place or not, it doesn't run again.
        let released = |hold: &&HoldState| hold.status == HoldStatus::Released;
        let cut_off: Vec<_> =
            audit.state().holds.values().filter(released).filter_map(|hold| Some((hold.hold, hold.released_by?))).collect();
        for (hold, intent) in cut_off {
            drop(audit.append(Event::HoldFinished { hold, intent, succeeded: false, kept: None }));
        }
        Self {
            audit,
            clock,
            options,
            holding: Holding::new(next.hold.max(1)),
            policy,
            decisions: DecisionCache::new(REMEMBERED_DECISIONS),
            spending: Arc::default(),
            judging: Mutex::default(),
            next_intent: AtomicU64::new(next.intent.max(1)),
            next_session: AtomicU64::new(next.session.max(1)),
            windows: HashMap::new(),
            copies: Copies::default(),
            texts: None,
            control: watch::channel(0).0,
        }
    }

    /// With a window for each of these systems: how long a call that destroys for good waits in sight of everybody.
    #[must_use]
    pub fn with_windows(self, windows: HashMap<SystemName, Duration>) -> Self {
        Self { windows, ..self }
    }

    /// With what is expected of the systems' copies.
    #[must_use]
    pub fn with_copies(self, copies: Copies) -> Self {
        Self { copies, ..self }
    }

    /// With something that keeps the exact text of everything that is asked; without, the ledger's redacted text is all there is.
    #[must_use]
    pub fn with_texts(self, texts: Arc<dyn Texts>) -> Self {
        Self { texts: Some(texts), ..self }
    }

    /// Carries one operation that may change something from request to recorded outcome.
    pub async fn handle(&self, operation: Operation, upstream: &mut dyn Upstream) -> Result<Ran, Refusal> {
        let intent = self.intend(&operation)?; // nothing runs unrecorded
        self.carry(intent, operation, upstream).await
    }

    /// The same for an intent that was opened earlier, when the first statement of a client's transaction ran.
    pub async fn carry(&self, intent: OpenIntent, operation: Operation, upstream: &mut dyn Upstream) -> Result<Ran, Refusal> {
        self.carry_released(intent, operation, upstream, &mut []).await
    }

    /// The same for a transaction whose statements drew on approvals: these are spent right before it becomes final.
    pub async fn carry_released(
        &self,
        mut intent: OpenIntent,
        mut operation: Operation,
        upstream: &mut dyn Upstream,
        releases: &mut [Release],
    ) -> Result<Ran, Refusal> {
        let result = self.settle(&mut intent, &mut operation, upstream, releases).await;
        intent.conclude(outcome(&result)); // a refusal is an outcome too
        result
    }

    async fn settle(
        &self,
        intent: &mut OpenIntent,
        operation: &mut Operation,
        upstream: &mut dyn Upstream,
        releases: &mut [Release],
    ) -> Result<Ran, Refusal> {
        for _ in 0..MAX_ROUNDS {
            intent.reservation = None;
            let (mut terms, release) = match self.terms(intent, operation, upstream, Spent::Now).await? {
                Granted::Terms(terms, release) => (terms, release),
                Granted::Delivered(done) => return Ok(Ran::Final(done)),
            };
            intent.spent = release.is_some(); // what people approved is not taken from the agent's budget
            intent.reservation = terms.ceiling.and_then(|rows| self.reserve(operation, rows));
            if intent.reservation.is_none() {
                terms.ceiling = None;
            }
            let approved = release.as_ref().map(|release| release.approved().clone());
            let permit = Permit { gate: self, intent, operation, terms, approved, releases: &mut *releases }; // only this crate can build one
            let ran = upstream.run(permit).await; // spends the permit
            if let Some(release) = release {
                let done = if let Ok(Ran::Final(done)) = &ran { Some(done) } else { None };
                let finished = release.finish(done.is_some(), done.and_then(|done| done.kept.clone()));
                if done.is_none() {
                    // The next look must not take this release for one that still runs. A ledger that failed says so there.
                    let _answer = finished.await;
                }
            }
            match ran? {
                Ran::Beyond(reach) => operation.reach = Some(reach),
                ran => {
                    if let (Ran::Final(done), false) = (&ran, intent.spent) {
                        self.spend(operation, done.reach.rows());
                    }
                    intent.reservation = None;
                    return Ok(ran);
                }
            }
            if operation.action == Action::Commit {
                // A client's transaction is gone once it is rolled back: it can be held, but not run again from here.
                return Err(self.hold_rolled_back(intent, operation, upstream).await);
            }
        }
        Err(Refusal::unavailable("measurement", "what this reaches changed each time it was measured; nothing was changed"))
    }

    /// Decides on text alone, without recording: for reads, which share one record, and for what the client's own transaction
    /// can still take back.
    pub fn consider(&self, operation: &Operation) -> Considered {
        match self.decide(operation, 0, Duration::ZERO) {
            Decision::Allow(_) => Considered::Pass,
            Decision::Refuse(_)
                if operation.action == Action::InSession && waits_for_commit(operation) && self.hangs_on_reach(operation) =>
            {
                Considered::Pass
            }
            Decision::Refuse(refusal) => Considered::Refuse(refusal),
            Decision::Needs(_) if operation.action == Action::InSession && waits_for_commit(operation) => Considered::Pass,
            Decision::Needs(needs) => Considered::Hold(Refusal::refused(&needs.rule, needs.reason, needs.remedy)),
        }
    }

    /// Finds, or asks for, the release of one statement inside a client's transaction. `None`: it turned out to need none.
    pub async fn release_statement(&self, mut operation: Operation, upstream: &mut dyn Upstream) -> Result<Option<Release>, Refusal> {
        let mut intent = self.intend(&operation)?;
        let spent = if is_taken_back(&operation) { Spent::AtCommit } else { Spent::Now };
        let result = match self.terms(&mut intent, &mut operation, upstream, spent).await {
            Ok(Granted::Terms(_, release)) => Ok(release),
            Ok(Granted::Delivered(_)) => Err(Refusal::unavailable("release", "a kept result can't be used inside a transaction")),
            Err(refusal) => Err(refusal),
        };
        intent.conclude(match &result {
            Ok(_) => Outcome::Done { tag: "released into its transaction".to_owned(), reach: Reach::default(), xid: None },
            Err(refusal) => Outcome::Refused { refusal: refusal.clone() },
        });
        result
    }

    /// Records that something harmless was refused.
    pub fn note_refusal(&self, operation: &Operation, refusal: &Refusal) {
        if let Ok(intent) = self.intend(operation) {
            intent.conclude(Outcome::Refused { refusal: refusal.clone() });
        }
    }

    /// Decides under today's facts, with `approvals` people having said yes to exactly this, which then waited for `delayed`.
    pub(crate) fn decide(&self, operation: &Operation, approvals: u32, delayed: Duration) -> Decision {
        let (facts, scope) = match self.facts(operation, approvals, delayed) {
            Ok(facts) => facts,
            Err(refusal) => return Decision::Refuse(refusal),
        };
        let policy = self.policy.load();
        if Arc::ptr_eq(&scope, &operation.principal.scope) {
            return self.decisions.decide(&policy, operation, &facts);
        }
        // The token was narrowed since its session began.
        let principal = Principal { scope, ..operation.principal.clone() };
        self.decisions.decide(&policy, &Operation { principal, ..operation.clone() }, &facts)
    }

    /// Whether the agent may still do anything at all.
    pub fn may_go_on(&self, principal: &Principal) -> Result<(), Refusal> {
        let state = self.audit.state();
        match state.frozen_because(&principal.agent) {
            Some(reason) => Err(Refusal::frozen(reason)),
            None => check_token(&state, principal, self.clock.now()).map(drop),
        }
    }

    /// Counts rows against the agent's hour.
    pub(crate) fn spend(&self, operation: &Operation, rows: u64) {
        self.spending.count(&operation.principal.agent, rows, self.clock.now());
    }

    /// Sets rows of the agent's hour aside for a run. `None`: others that run now may need them; then the exact number decides.
    fn reserve(&self, operation: &Operation, rows: u64) -> Option<Reservation> {
        let budget = self.options.budgets.get(&operation.environment).copied().unwrap_or_default();
        let hour = operation.principal.scope.rows_per_hour.unwrap_or(u64::MAX).min(budget.rows_per_hour);
        self.spending.reserve(&operation.principal.agent, rows, hour, self.clock.now())
    }

    /// Counts a measured reach against the agent's hour, if the policy allows it as it is.
    pub(crate) fn spend_if_allowed(&self, operation: &Operation, reach: &Reach) -> bool {
        // Sessions side by side must not each be told that the rest of the hour is theirs.
        let _one_at_a_time = self.judging.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = self.allows_measured(operation, reach);
        if allowed {
            self.spend(operation, reach.rows());
        }
        allowed
    }

    /// Whether the policy allows a measured reach as it is.
    #[must_use]
    pub fn allows_measured(&self, operation: &Operation, reach: &Reach) -> bool {
        matches!(self.decide_on(operation, reach), Decision::Allow(_))
    }

    /// Decides as if this had been measured.
    pub(crate) fn decide_on(&self, operation: &Operation, reach: &Reach) -> Decision {
        self.decide(&Operation { reach: Some(reach.clone()), ..operation.clone() }, 0, Duration::ZERO)
    }

    /// Whether what is refused before it was measured might not be afterwards.
    pub(crate) fn hangs_on_reach(&self, operation: &Operation) -> bool {
        operation.reach.is_none() && !matches!(self.decide_on(operation, &Reach::default()), Decision::Refuse(_))
    }

    /// Today's facts, and the token's scope as it stands.
    fn facts(&self, operation: &Operation, approvals: u32, delayed: Duration) -> Result<(Facts, Arc<Scope>), Refusal> {
        let now = self.clock.now();
        let agent = &operation.principal.agent;
        let state = self.audit.state();
        if let Some(reason) = state.frozen_because(agent) {
            return Err(Refusal::frozen(reason));
        }
        let scope = check_token(&state, &operation.principal, now)?;
        let facts = Facts {
            now,
            frozen: false,
            approvals,
            delayed,
            window: self.windows.get(&operation.system).copied().unwrap_or_default(),
            undoable: Undoability::of(operation.reach.as_ref()),
            budget: self.options.budgets.get(&operation.environment).copied().unwrap_or_default(),
            rows_this_hour: self.spending.rows(agent, now, || state.rows_this_hour(agent, now)),
            recovery: self.copies.facts(&operation.system, &operation.environment, state.recovery.get(&operation.system), now),
        };
        Ok((facts, scope))
    }

    /// Records that an operation is meant to run. Dropped without an outcome, it is recorded as abandoned.
    pub fn intend(&self, operation: &Operation) -> Result<OpenIntent, Refusal> {
        if let Some(reason) = self.audit.state().frozen_because(&operation.principal.agent) {
            return Err(Refusal::frozen(reason));
        }
        let id = self.number_intent();
        if let Some(texts) = &self.texts {
            let asked = AskedText {
                agent: operation.principal.agent.clone(),
                intent: id,
                text: operation.text.clone(),
                parameters: operation.parameters.clone(),
            };
            texts.keep(asked).map_err(|why| Refusal::unavailable("vault", why))?;
        }
        let principal = &operation.principal;
        let event = Event::Intent {
            intent: id,
            session: operation.session,
            agent: principal.agent.clone(),
            token: principal.token,
            system: operation.system.clone(),
            environment: operation.environment.clone(),
            digest: operation.digest(),
            text: operation.redacted.to_string(),
            kinds: operation.kinds().into_iter().collect(),
        };
        Ok(OpenIntent::new(self.audit.clone(), self.texts.clone(), principal.agent.clone(), id, event))
    }

    /// Opens a session: its number, recorded before the client may do anything. `backend` is the server's
    /// process that serves it, if it has one.
    pub async fn open_session(
        &self,
        principal: &Principal,
        system: &reprieve_operation::SystemName,
        peer: &str,
        backend: Option<u32>,
    ) -> Result<SessionId, Refusal> {
        let session = SessionId(self.next_session.fetch_add(1, Ordering::Relaxed));
        let event = Event::SessionOpened {
            session,
            agent: principal.agent.clone(),
            token: principal.token,
            system: system.clone(),
            peer: peer.to_owned(),
            backend,
        };
        self.audit.append(event).await.map_err(|error| Refusal::unavailable("ledger", error.to_string()))?;
        Ok(session)
    }

    /// A number for an intent of an operator's.
    pub fn number_intent(&self) -> IntentId {
        IntentId(self.next_intent.fetch_add(1, Ordering::Relaxed))
    }

    /// Records something that nobody waits for.
    pub fn note(&self, event: Event) {
        drop(self.audit.append(event));
    }

    /// The ledger, for surfaces that read its state.
    #[must_use]
    pub fn audit(&self) -> &Arc<dyn Audit> {
        &self.audit
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Changes whenever a freeze, a thaw, a token or the policy changes: what was decided before may no longer hold.
    #[must_use]
    pub fn control(&self) -> watch::Receiver<u64> {
        self.control.subscribe()
    }

    /// Says that something changed that decisions depend on.
    pub fn control_changed(&self) {
        self.control.send_modify(|version| *version += 1);
    }

    /// Follows the ledger, so that sessions and waiting holds hear at once what changed. Runs until the ledger stops.
    pub async fn follow(&self) {
        let mut events = self.audit.follow();
        loop {
            match events.recv().await {
                Ok(recorded) => match &recorded.event {
                    Event::Frozen { .. }
                    | Event::Thawed { .. }
                    | Event::DecoyPresented { .. }
                    | Event::TokenIssued { .. }
                    | Event::TokenNarrowed { .. }
                    | Event::TokenRevoked { .. }
                    | Event::DrillPassed { .. }
                    | Event::DrillFailed { .. } => {
                        self.control_changed();
                        self.holding.changed();
                    }
                    event if event.hold().is_some() => self.holding.changed(),
                    _ => {}
                },
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {
                    self.control_changed();
                    self.holding.changed();
                }
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            }
        }
    }
}

/// Whether there is a way back, as far as that was measured.
/// What is to be done with an operation by its text alone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Considered {
    /// It may be sent; if it changes something, the measurement decides.
    Pass,
    /// It has to be held before it is sent. The refusal says why, for what can't wait for people.
    Hold(Refusal),
    /// It may not be sent.
    Refuse(Refusal),
}

/// What [`Gate::terms`] found.
pub(crate) enum Granted {
    /// It may run on these terms.
    Terms(Terms, Option<Release>),
    /// Reprieve ran it already after its approval; the kept result was handed over.
    Delivered(Done),
}

/// Whether a transaction can take all of it back, so that its COMMIT is the moment to judge it. Dropping and emptying whole
/// relations is left out: it isn't run to find out.
fn waits_for_commit(operation: &Operation) -> bool {
    let kinds = operation.kinds();
    let wholesale = operation.effects.iter().any(|effect| matches!(effect, Effect::Drop { .. } | Effect::Rewrite { .. }));
    !(wholesale || kinds.contains(&Kind::Escape) || kinds.contains(&Kind::Unknown))
}

/// When a release counts as used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spent {
    /// Before the operation runs.
    Now,
    /// Before the transaction becomes final that it runs in.
    AtCommit,
}

/// Whether a rollback leaves nothing of it, so that an approval of it is not used up by a transaction that never became final.
fn is_taken_back(operation: &Operation) -> bool {
    operation.effects.iter().all(|effect| match effect {
        Effect::Read { .. }
        | Effect::Insert { .. }
        | Effect::Update { .. }
        | Effect::Delete { .. }
        | Effect::Define { .. }
        | Effect::Drop { .. }
        | Effect::Rewrite { .. }
        | Effect::Grant { .. } => true,
        Effect::Call { .. } | Effect::Session { .. } | Effect::Escape { .. } | Effect::Invoke { .. } | Effect::Unknown { .. } => false,
    })
}

fn check_token(state: &State, principal: &Principal, now: Timestamp) -> Result<Arc<Scope>, Refusal> {
    let again = "ask an operator for a new token";
    match state.agents.get(&principal.agent) {
        Some(agent) if agent.token != principal.token || agent.revoked => {
            Err(Refusal::refused("token-revoked", "this token was revoked or replaced", again))
        }
        Some(agent) if agent.expires <= now => Err(Refusal::refused("token-expired", "this token has expired", again)),
        Some(agent) => Ok(agent.scope.clone()),
        None => Err(Refusal::refused("token-unknown", "this token is not known", again)),
    }
}

fn outcome(result: &Result<Ran, Refusal>) -> Outcome {
    match result {
        Ok(Ran::Final(done)) => Outcome::Done { tag: done.tag.clone(), reach: done.reach.clone(), xid: done.xid },
        Ok(Ran::Failed { code }) => Outcome::Failed { code: code.clone() },
        Ok(Ran::Abandoned | Ran::Beyond(_)) => Outcome::Abandoned,
        Ok(Ran::Unknown) => Outcome::Unknown,
        Err(refusal) => Outcome::Refused { refusal: refusal.clone() },
    }
}
