//! What the gate looks at in the moment it decides: the token, the holds, the people's answers and the rules as they stand then.
//!
//! Each test is one story against the real gate, with a ledger that is durable at once. What may happen in between is left to
//! `simulation.rs`.

#[path = "simulation/ledger.rs"]
#[allow(dead_code, reason = "the simulation uses the rest")]
mod ledger;

use std::{
    sync::{Arc, Mutex, RwLockReadGuard},
    time::Duration,
};

use arc_swap::ArcSwap;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use reprieve_gate::{Audit, Clock as _, Done, Gate, GateOptions, Pending, Permit, Ran, Running, Upstream};
use reprieve_operation::*;
use reprieve_policy::{Policy, Profile};
use tokio::sync::broadcast;

use crate::ledger::{Disk, Ledger, StandingClock};

/// A ledger whose events are durable at once.
struct Prompt(Ledger);

impl Audit for Prompt {
    fn append(&self, event: Event) -> Pending {
        let pending = self.0.append(event);
        self.0.place(1);
        self.0.tell(1);
        pending
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.0.state()
    }

    fn follow(&self) -> broadcast::Receiver<Arc<Recorded>> {
        self.0.follow()
    }
}

/// A gate, its ledger, its clock and its rules.
struct Story {
    gate: Gate,
    ledger: Arc<Prompt>,
    clock: Arc<StandingClock>,
    policy: Arc<ArcSwap<Policy>>,
}

const OPEN_HOLDS: usize = 3;

fn story() -> Story {
    let clock = Arc::new(StandingClock::new());
    let ledger = Arc::new(Prompt(Ledger::start(Arc::new(Mutex::new(Disk::default())), clock.clone(), false)));
    let policy = Arc::new(ArcSwap::from(rules(Profile::Guard)));
    let options = GateOptions {
        budgets: [(Environment::production(), Budget { rows_per_statement: 10, ..Budget::default() })].into(),
        wait: Duration::ZERO,
        expire: Duration::from_secs(3_600),
        open_holds: OPEN_HOLDS,
        link: String::new(),
    };
    let gate = Gate::new(ledger.clone(), clock.clone(), policy.clone(), options);
    let story = Story { gate, ledger, clock, policy };
    story.issue(1, scope(&Kind::ALL));
    story
}

fn rules(profile: Profile) -> Arc<Policy> {
    Arc::new(Policy::build(profile, &[]).expect("the built-in rules"))
}

fn scope(kinds: &[Kind]) -> Scope {
    Scope {
        kinds: kinds.iter().copied().collect(),
        environments: [Environment::production()].into(),
        systems: ["pocket".parse().expect("a name")].into(),
        resources: ["*".parse().expect("a pattern")].into(),
        rows_per_hour: None,
    }
}

fn deletes(rows: u64) -> Reach {
    let rows = TableReach { deleted: rows, ..TableReach::default() };
    Reach { tables: [("public.orders".to_owned(), rows)].into(), ..Reach::default() }
}

/// `DELETE FROM orders WHERE id = {number}` by the agent as it logged in.
fn delete(number: u64) -> Operation {
    Operation {
        principal: Principal {
            agent: "cursor".parse().expect("a name"),
            token: TokenId(1),
            on_behalf_of: Some("ana".parse().expect("a name")),
            scope: Arc::new(scope(&Kind::ALL)),
        },
        session: SessionId(1),
        system: "pocket".parse().expect("a name"),
        environment: Environment::production(),
        protocol: Protocol::Postgres,
        text: format!("DELETE FROM orders WHERE id = {number}").into(),
        redacted: "DELETE FROM orders WHERE id = $1".into(),
        bound: None,
        parameters: None,
        action: Action::SelfContained,
        effects: [Effect::Delete { table: ObjectName::bare("orders"), bounded: true }].into(),
        rows_apart: 0,
        reach: None,
    }
}

impl Story {
    fn record(&self, event: Event) {
        drop(self.ledger.append(event));
    }

    fn issue(&self, token: u64, scope: Scope) {
        self.record(Event::TokenIssued {
            token: TokenId(token),
            agent: "cursor".parse().expect("a name"),
            digest: Digest::of(&[&token.to_be_bytes()]),
            verifier: ScramVerifier { stored_key: String::new(), server_key: String::new() },
            scope,
            on_behalf_of: Some("ana".parse().expect("a name")),
            expires: self.clock.now().plus(Duration::from_secs(24 * 3_600)),
            parent: None,
            decoy: false,
            by: "ben".parse().expect("a name"),
        });
    }

    fn answer(&self, hold: HoldId, operator: &str, answer: Answer) {
        let state = self.ledger.state();
        let signed = state.holds.get(&hold).expect("the hold").digest_to_sign(answer);
        drop(state);
        let (operator, reason) = (operator.parse().expect("a name"), "test data".to_owned());
        self.record(Event::HoldAnswered { hold, operator, answer, reason, signature: String::new(), signed });
    }

    fn status(&self, hold: HoldId) -> HoldStatus {
        self.ledger.state().holds.get(&hold).expect("the hold").status
    }

    async fn run(&self, operation: Operation, server: &mut Server<'_>) -> Result<Ran, Refusal> {
        self.gate.handle(operation, server).await
    }

    /// Runs something that has to be held, and answers its hold.
    async fn held(&self, operation: Operation, server: &mut Server<'_>) -> HoldId {
        let refusal = self.run(operation, server).await.expect_err("it is held");
        assert_eq!(refusal.kind, RefusalKind::Held, "{refusal}");
        refusal.hold.expect("a hold")
    }
}

/// A database that measures what it was told, and counts what became final.
struct Server<'a> {
    reach: Reach,
    /// Happens after the run began and before it is measured.
    meanwhile: Option<&'a (dyn Fn() + Send + Sync)>,
    fails: bool,
    finals: Vec<Reach>,
}

fn server<'a>(reach: Reach) -> Server<'a> {
    Server { reach, meanwhile: None, fails: false, finals: Vec::new() }
}

impl Upstream for Server<'_> {
    fn run<'a>(&'a mut self, mut permit: Permit<'a>) -> Running<'a, Result<Ran, Refusal>> {
        Box::pin(async move {
            if let Some(meanwhile) = self.meanwhile.take() {
                meanwhile();
            }
            if self.fails {
                return Ok(Ran::Failed { code: "40001".to_owned() });
            }
            if permit.clear(&self.reach).await?.is_none() {
                return Ok(Ran::Beyond(self.reach.clone()));
            }
            self.finals.push(self.reach.clone());
            Ok(Ran::Final(Done { tag: "DELETE".to_owned(), reach: self.reach.clone(), xid: None, kept: None }))
        })
    }

    fn estimate<'a>(&'a mut self, _operation: &'a Operation) -> Running<'a, Option<Reach>> {
        let reach = self.reach.clone();
        Box::pin(async move { Some(reach) })
    }

    fn can_wait(&self) -> bool {
        false
    }

    fn tell_waiting<'a>(&'a mut self, _refusal: &'a Refusal) -> Running<'a, ()> {
        Box::pin(async {})
    }

    fn gone(&mut self) -> Running<'_, ()> {
        Box::pin(std::future::pending())
    }

    fn deliver<'a>(&'a mut self, _kept: &'a str) -> Running<'a, bool> {
        Box::pin(async { false })
    }
}

/// A rule, and what makes a session meet it.
type Fate = (&'static str, fn(&Story));

/// What happens to the token of a session that is open already, and the rule that its next change meets.
fn fates() -> [Fate; 6] {
    [
        ("token-revoked", |story| story.record(Event::TokenRevoked { token: TokenId(1), by: "ben".parse().expect("a name") })),
        ("token-revoked", |story| story.issue(2, scope(&Kind::ALL))),
        ("token-expired", |story| story.clock.advance(Duration::from_secs(24 * 3_600))),
        ("scope", |story| {
            let scope = scope(&[Kind::Read, Kind::Write]);
            story.record(Event::TokenNarrowed { token: TokenId(1), scope, by: "ben".parse().expect("a name") });
        }),
        ("frozen", |story| story.record(Event::Frozen { agent: None, by: "ben".to_owned(), reason: String::new() })),
        ("frozen", |story| {
            let claimed = "cursor".parse().expect("a name");
            story.record(Event::DecoyPresented { decoy: TokenId(9), claimed, peer: String::new() });
        }),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_token_counts_as_it_stands_when_it_is_used() {
    for (rule, happens) in fates() {
        let story = story();
        let mut server = server(deletes(1));
        assert!(matches!(story.run(delete(1), &mut server).await, Ok(Ran::Final(_))), "before: {rule}");
        happens(&story);
        let refusal = story.run(delete(1), &mut server).await.expect_err("it is refused");
        assert_eq!((refusal.rule.as_str(), server.finals.len()), (rule, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_counts_as_it_stands_when_the_change_becomes_final() {
    for (rule, happens) in fates() {
        let story = story();
        let meanwhile = || happens(&story);
        let mut server = Server { meanwhile: Some(&meanwhile), ..server(deletes(1)) };
        let result = story.run(delete(1), &mut server).await;
        assert!(result.is_err() && server.finals.is_empty(), "{rule}: {result:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_approval_does_not_outlive_the_token() {
    for (rule, happens) in fates() {
        let story = story();
        let mut server = server(deletes(50));
        let hold = story.held(delete(1), &mut server).await;
        story.answer(hold, "ben", Answer::Approve);
        happens(&story);
        let refusal = story.run(delete(1), &mut server).await.expect_err("it is refused");
        assert!(server.finals.is_empty(), "{rule}");
        assert_ne!(refusal.kind, RefusalKind::Unavailable, "{rule}: {refusal}");
        assert_ne!(story.status(hold), HoldStatus::Released, "{rule}: a refused run leaves no release behind");
    }
}

#[tokio::test(start_paused = true)]
async fn one_agent_has_few_open_holds_and_repeating_opens_none() {
    let story = story();
    let mut server = server(deletes(50));
    for number in 0..OPEN_HOLDS as u64 {
        let hold = story.held(delete(number), &mut server).await;
        assert_eq!(story.held(delete(number), &mut server).await, hold, "the identical request joins");
    }
    let refusal = story.run(delete(99), &mut server).await.expect_err("too many");
    assert_eq!(refusal.rule, "open-holds");
    story.answer(HoldId(1), "ben", Answer::Deny);
    story.held(delete(99), &mut server).await;
    assert!(server.finals.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_denial_is_remembered_for_a_quarter_of_an_hour() {
    let story = story();
    let mut server = server(deletes(50));
    let hold = story.held(delete(1), &mut server).await;
    story.answer(hold, "ben", Answer::Deny);
    story.clock.advance(Duration::from_secs(14 * 60));
    let refusal = story.run(delete(1), &mut server).await.expect_err("remembered");
    assert_eq!((refusal.rule.as_str(), refusal.hold), ("denied", Some(hold)));
    assert!(refusal.reason.contains("test data"), "the person's reason is told: {refusal}");
    assert_ne!(story.held(delete(2), &mut server).await, hold, "another text is another question");
    story.clock.advance(Duration::from_secs(2 * 60));
    assert_ne!(story.held(delete(1), &mut server).await, hold, "later it may be asked again");
    assert!(server.finals.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_release_is_decided_under_the_rules_then_in_force() {
    let story = story();
    let mut server = server(deletes(50));
    let hold = story.held(delete(1), &mut server).await;
    story.answer(hold, "ben", Answer::Approve);
    story.policy.store(rules(Profile::Lockdown));
    let refusal = story.run(delete(1), &mut server).await.expect_err("a lockdown is not lifted by an approval");
    assert_eq!((refusal.rule.as_str(), story.status(hold)), ("reads-only", HoldStatus::Approved));
    story.policy.store(rules(Profile::Guard));
    assert!(matches!(story.run(delete(1), &mut server).await, Ok(Ran::Final(_))));
    assert_eq!((server.finals.len(), story.status(hold)), (1, HoldStatus::Finished));
    assert_ne!(story.held(delete(1), &mut server).await, hold, "one approval, one run");
}

#[tokio::test(start_paused = true)]
async fn the_one_it_acts_for_is_never_the_only_approver() {
    let story = story();
    let mut server = server(deletes(50));
    let hold = story.held(delete(1), &mut server).await;
    story.answer(hold, "ana", Answer::Approve);
    assert_eq!(story.held(delete(1), &mut server).await, hold);
    story.answer(hold, "ben", Answer::Approve);
    assert!(matches!(story.run(delete(1), &mut server).await, Ok(Ran::Final(_))));
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_hold_is_a_no() {
    let story = story();
    let mut server = server(deletes(50));
    let hold = story.held(delete(1), &mut server).await;
    story.clock.advance(Duration::from_secs(3_600));
    story.gate.expire_holds();
    assert_eq!(story.status(hold), HoldStatus::Expired);
    story.answer(hold, "ben", Answer::Approve);
    assert_eq!(story.status(hold), HoldStatus::Expired, "too late");
    assert_ne!(story.held(delete(1), &mut server).await, hold);
    assert!(server.finals.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_release_is_spent_by_a_run_that_failed() {
    let story = story();
    let mut server = server(deletes(50));
    let hold = story.held(delete(1), &mut server).await;
    story.answer(hold, "ben", Answer::Approve);
    server.fails = true;
    assert!(matches!(story.run(delete(1), &mut server).await, Ok(Ran::Failed { .. })));
    server.fails = false;
    assert_ne!(story.held(delete(1), &mut server).await, hold);
    assert!(server.finals.is_empty());
}

/// Whatever was approved and whatever it turns out to reach: it becomes final exactly if all of it was approved.
#[tokio::test(start_paused = true)]
async fn nothing_beyond_what_was_approved_becomes_final() {
    let mut random = StdRng::seed_from_u64(20_260_105);
    let names = ["public.orders", "public.payments", "public.customers"];
    for round in 0..300 {
        let story = story();
        let mut draw = |most: u64| {
            let mut reach = Reach::default();
            for name in names {
                let rows = TableReach { inserted: 0, updated: random.gen_range(0..most), deleted: random.gen_range(0..most) };
                if random.gen_bool(0.6) {
                    reach.tables.insert(name.to_owned(), rows);
                }
            }
            reach.dropped.extend(names.iter().filter(|_| random.gen_bool(0.1)).map(|name| (*name).to_owned()));
            reach
        };
        let (mut approved, actual) = (draw(40), draw(12));
        approved.tables.entry("public.orders".to_owned()).or_default().inserted = 11; // so that it is held in any case
        let mut server = server(approved.clone());
        let hold = story.held(delete(1), &mut server).await;
        story.answer(hold, "ben", Answer::Approve);
        server.reach = actual.clone();
        let result = story.run(delete(1), &mut server).await;
        let rows = |reach: &Reach, name: &str| reach.tables.get(name).copied().unwrap_or_default();
        let within = names.iter().all(|name| {
            let (mine, limit) = (rows(&actual, name), rows(&approved, name));
            mine.updated <= limit.updated && mine.deleted <= limit.deleted
        }) && actual.dropped.iter().all(|name| approved.dropped.contains(name));
        if within {
            assert_eq!(server.finals, [actual], "round {round}: {result:?}");
        } else {
            // It is looked at anew: small enough for the budget, or another question.
            let small = actual.rows() <= 10 && actual.dropped.is_empty();
            assert_eq!(server.finals.len(), usize::from(small), "round {round}: approved {approved}, reaches {actual}: {result:?}");
        }
    }
}
