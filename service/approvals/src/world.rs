//! A small world for tests: a desk, its ledger and clock, two operators with keys and second factors, an agent, and a hold.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use reprieve_gate::{Audit as _, Clock as _, Command, Desk as _, DeskError, SignedCommand};
use reprieve_operation::{
    Action, AgentName, Answer, Digest, Event, HeldReason, HoldId, HoldState, HoldStatus, IntentId, Kind, Needs, OperatorName, Protocol,
    Reach, Role, SessionId, TableReach, Timestamp,
};
use serde_json::Value;

use crate::{
    ApprovalsDesk, ConsoleOrigin, DeskOptions, OperatorKey, TotpSecret,
    memory::{Hand, Memory},
};

pub(crate) const FREEZE_KEY: &str = "stop-everything-now";

pub(crate) struct Person {
    pub(crate) name: OperatorName,
    pub(crate) key: OperatorKey,
    pub(crate) totp: TotpSecret,
}

impl Person {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: named(name), key: OperatorKey::generate(), totp: TotpSecret::generate() }
    }

    pub(crate) fn sign(&self, command: &Command, now: Timestamp) -> SignedCommand {
        self.key.sign_command(&self.name, command, &self.totp.code_at(now), now).expect("signed")
    }
}

pub(crate) struct World {
    pub(crate) clock: Arc<Hand>,
    pub(crate) ledger: Arc<Memory>,
    pub(crate) desk: Arc<ApprovalsDesk>,
    pub(crate) ana: Person,
    pub(crate) ben: Person,
}

pub(crate) fn named<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a name of the test")
}

pub(crate) fn options() -> DeskOptions {
    DeskOptions {
        revert: None,
        seal: Arc::new(|bytes| Some(BASE64.encode(bytes))),
        unseal: Arc::new(|text| BASE64.decode(text).ok()),
        scram_salt: b"sixteen bytes ok".to_vec(),
        systems: vec![(named("pocket-prod"), named("production")), (named("pocket-staging"), named("staging"))],
        freeze_key: FREEZE_KEY.to_owned(),
        console: ConsoleOrigin::parse("https://console.test:6443").expect("an origin"),
    }
}

impl World {
    /// Ana and Ben are operators; agent `bot` acts for Ana.
    pub(crate) async fn new() -> Self {
        let clock = Hand::new(Timestamp(1_800_000_000_000));
        let ledger = Memory::new(clock.clone());
        let desk = Arc::new(ApprovalsDesk::new(ledger.clone(), clock.clone(), options()).expect("a desk"));
        let world = Self { clock, ledger, desk, ana: Person::new("ana"), ben: Person::new("ben") };
        let (key, totp) = (world.ana.key.public_key(), world.ana.totp.base32().to_string());
        world.desk.bootstrap_operator(world.ana.name.clone(), key, totp).await.expect("the first operator");
        world.perform(&world.ana, &add(&world.ben)).await.expect("the second operator");
        world.perform(&world.ben, &issue("bot", Some("ana"))).await.expect("an agent");
        world
    }

    /// A desk of another gateway, or after a restart, over the same ledger.
    pub(crate) fn another_desk(&self) -> Arc<ApprovalsDesk> {
        Arc::new(ApprovalsDesk::new(self.ledger.clone(), self.clock.clone(), options()).expect("a desk"))
    }

    /// Signs and performs a command with a fresh code.
    pub(crate) async fn perform(&self, person: &Person, command: &Command) -> Result<Value, DeskError> {
        self.clock.forward(Duration::from_secs(30));
        self.desk.perform(person.sign(command, self.clock.now())).await
    }

    /// Opens a hold of agent `bot` that deletes 12 rows of `public.orders`.
    pub(crate) async fn hold(&self, number: u64, approvals: u32) -> HoldId {
        let rows = TableReach { deleted: 12, ..TableReach::default() };
        let token = self.ledger.state().agents[&named::<AgentName>("bot")].token;
        let event = Event::HoldOpened {
            hold: HoldId(number),
            intent: IntentId(number),
            digest: Digest::of(&[b"an operation"]),
            agent: named("bot"),
            token,
            on_behalf_of: Some(named("ana")),
            session: SessionId(1),
            system: named("pocket-prod"),
            environment: named("production"),
            protocol: Protocol::Postgres,
            action: Action::SelfContained,
            text: "DELETE FROM orders".to_owned(),
            parameters: None,
            effects: Vec::new(),
            reach: Some(Reach { tables: [("public.orders".to_owned(), rows)].into(), ..Reach::default() }),
            samples: Vec::new(),
            reason: HeldReason::Measured,
            needs: Needs {
                approvals,
                delay: Duration::ZERO,
                undo: false,
                rule: "wide-deletes".to_owned(),
                reason: "deletes every row".to_owned(),
                remedy: "add a WHERE".to_owned(),
            },
            confirm: "public.orders".to_owned(),
            expires: self.clock.now().plus(Duration::from_secs(3_600)),
        };
        self.ledger.append(event).await.expect("held");
        HoldId(number)
    }

    pub(crate) fn held(&self, hold: HoldId) -> HoldState {
        self.ledger.state().holds[&hold].clone()
    }

    pub(crate) fn status(&self, hold: HoldId) -> HoldStatus {
        self.held(hold).status
    }

    /// The answer as a person gives it who looked at the hold.
    pub(crate) fn answer(&self, hold: HoldId, answer: Answer) -> Command {
        let signed = self.held(hold).digest_to_sign(answer);
        Command::Answer { hold, answer, confirm: Some("public.orders".to_owned()), reason: "test data".to_owned(), signed }
    }

    pub(crate) fn count(&self, kind: &str) -> usize {
        self.ledger.events().iter().filter(|event| event.kind() == kind).count()
    }
}

pub(crate) fn add(person: &Person) -> Command {
    let (operator, public_key) = (person.name.clone(), person.key.public_key());
    Command::AddOperator { operator, public_key, totp_secret: person.totp.base32().to_string(), role: Role::Administrator }
}

pub(crate) fn issue(agent: &str, on_behalf_of: Option<&str>) -> Command {
    Command::IssueToken {
        agent: named(agent),
        systems: vec![named("pocket-prod")],
        allow: vec![Kind::Read, Kind::Write],
        resources: vec![named("public.*")],
        rows_per_hour: Some(100),
        on_behalf_of: on_behalf_of.map(named),
        expires_in_s: 3_600,
        parent: None,
    }
}
