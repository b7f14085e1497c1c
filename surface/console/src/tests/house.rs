//! A console whose every part is of the test: one session, one passkey that is never right, an empty record.

use std::{
    net::IpAddr,
    sync::{Arc, RwLock, RwLockReadGuard},
    time::Duration,
};

use arc_swap::ArcSwap;
use reprieve_gate::{
    Answering, Assertion, Audit, AuditError, ChangeView, Changes, Clock, Command, Counter, Desk, DeskAnswer, DeskError, EventProof,
    Invited, LedgerCheck, Looking, NewPasskey, Pending, Proposal, Provider, ProviderAnswer, Reception, RecordQuery, Records, RecordsError,
    Recovery, RecoveryReport, Redirect, Searched, SignIn, SignedIn, SignedOn, UndoChoice, UndoPreview, Vouched,
};
use reprieve_operation::{Digest, Event, OperatorName, Recorded, State, Timestamp, UndoId};
use reprieve_policy::{Policy, Profile};
use tokio::sync::broadcast;

use super::Clerk;
use crate::{Console, Shown};

/// Where the tests' console is.
pub(super) const ORIGIN: &str = "https://localhost";
/// The one session's secret, and the browser it is bound to.
pub(super) const SECRET: &str = "the-secret-of-the-session";
pub(super) const BROWSER: &str = "the browser of the test";
/// What its forms carry.
pub(super) const FORM_TOKEN: &str = "the-token-of-the-forms";

struct House {
    clerk: Arc<Clerk>,
    state: RwLock<State>,
    events: broadcast::Sender<Arc<Recorded>>,
}

/// The console over a clerk, who writes down what he is asked.
pub(super) fn console(clerk: Arc<Clerk>) -> Arc<Console> {
    let house = Arc::new(House { clerk: clerk.clone(), state: RwLock::default(), events: broadcast::Sender::new(8) });
    let desk: Arc<dyn Desk> = clerk;
    Arc::new(Console {
        desk,
        reception: house.clone(),
        provider: Some(house.clone()),
        counter: house.clone(),
        audit: house.clone(),
        clock: house.clone(),
        records: house.clone(),
        changes: house.clone(),
        recovery: house,
        policy: Arc::new(ArcSwap::from_pointee(Policy::build(Profile::Guard, &[]).expect("the built-in rules"))),
        policy_files: Arc::new(|| Ok(Vec::new())),
        simulate: Arc::new(|_, _, _| Err("nothing is on record".to_owned())),
        used_rights: Arc::new(|_, _| Err("nothing is on record".to_owned())),
        origin: ORIGIN.to_owned(),
        name: "the test".to_owned(),
        agents_at: "127.0.0.1:6432".to_owned(),
        systems: vec![Shown {
            name: "shop".parse().expect("a name"),
            environment: "production".parse().expect("a name"),
            kind: "PostgreSQL",
        }],
        shared_credentials: Vec::new(),
        hold_expires: Duration::from_secs(3_600),
        undo_window: Duration::from_secs(3_600),
    })
}

impl House {
    fn note(&self, what: String) {
        self.clerk.asked.lock().expect("not poisoned").push(what);
    }
}

impl Reception for House {
    fn invited(&self, _secret: &str) -> Result<Invited, DeskError> {
        Err(DeskError::Invalid("no invitation".to_owned()))
    }

    fn enrol<'a>(&'a self, _secret: &'a str, _code: Option<&'a str>, _passkey: NewPasskey) -> Answering<'a, OperatorName> {
        Box::pin(async { Err(DeskError::NotAuthenticated) })
    }

    fn challenge(&self) -> String {
        "Y2hhbGxlbmdl".to_owned()
    }

    fn sign_in<'a>(&'a self, sign_in: SignIn, _browser: &'a str, _peer: IpAddr) -> Answering<'a, SignedOn> {
        Box::pin(async move {
            if sign_in.challenge == "good" {
                Ok(SignedOn { secret: SECRET.to_owned(), operator: "ana".parse().expect("a name") })
            } else {
                Err(DeskError::NotAuthenticated)
            }
        })
    }

    fn admit<'a>(&'a self, vouched: Vouched, _browser: &'a str, _peer: IpAddr) -> Answering<'a, SignedOn> {
        self.note(format!("{} is vouched for by {}", vouched.operator, vouched.evidence));
        Box::pin(async move { Ok(SignedOn { secret: SECRET.to_owned(), operator: vouched.operator }) })
    }

    fn session(&self, secret: &str, browser: &str) -> Option<SignedIn> {
        let who = || SignedIn {
            operator: "ana".parse().expect("a name"),
            session: Digest::of(&[b"a session"]),
            form_token: FORM_TOKEN.to_owned(),
            expires: Timestamp(u64::MAX),
        };
        (secret == SECRET && browser == BROWSER).then(who)
    }

    fn sign_out(&self, _session: &Digest) {
        self.note("sign out".to_owned());
    }
}

impl Provider for House {
    fn begin(&self) -> Answering<'_, Redirect> {
        Box::pin(async { Ok(Redirect { url: "https://id.example/auth?state=s".to_owned(), secret: "on-the-way".to_owned() }) })
    }

    fn finish(&self, secret: String, answer: ProviderAnswer) -> Answering<'_, Vouched> {
        self.note(format!("came back with {secret}, {answer:?}"));
        Box::pin(async move {
            if secret == "on-the-way" && answer.code == "good" {
                Ok(Vouched { operator: "ana".parse().expect("a name"), evidence: "oidc:https://id.example#24".to_owned(), is_named: false })
            } else {
                Err(DeskError::NotAuthenticated)
            }
        })
    }

    fn name(&self) -> &'static str {
        "id.example"
    }
}

impl Counter for House {
    fn act(&self, who: SignedIn, command: Command) -> DeskAnswer<'_> {
        self.note(format!("{} acts: {command:?}", who.operator));
        Box::pin(async { Ok(serde_json::Value::Null) })
    }

    fn propose(&self, who: &SignedIn, command: Command) -> Result<Proposal, DeskError> {
        self.note(format!("{} proposes: {command:?}", who.operator));
        Ok(Proposal { proposal: "a proposal".to_owned(), challenge: "Y2hhbGxlbmdl".to_owned(), credentials: Vec::new() })
    }

    fn confirm(&self, _who: SignedIn, _proposal: String, _assertion: Assertion) -> DeskAnswer<'_> {
        self.note("confirm".to_owned());
        Box::pin(async { Err(DeskError::NotAuthenticated) })
    }
}

impl Audit for House {
    fn append(&self, _event: Event) -> Pending {
        let (sender, pending) = Pending::channel();
        sender.send(Err(AuditError::Unavailable { reason: "it is the test’s".to_owned() })).ok();
        pending
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect("not poisoned")
    }

    fn follow(&self) -> broadcast::Receiver<Arc<Recorded>> {
        self.events.subscribe()
    }
}

impl Clock for House {
    fn now(&self) -> Timestamp {
        Timestamp(1_800_000_000_000)
    }
}

impl Records for House {
    fn search(&self, _query: &RecordQuery) -> Result<Vec<Recorded>, RecordsError> {
        Ok(Vec::new())
    }

    fn search_for(&self, _query: &RecordQuery, _patience: Duration) -> Result<Searched, RecordsError> {
        Ok(Searched::default())
    }

    fn prove(&self, _index: u64) -> Result<EventProof, RecordsError> {
        Err(RecordsError::Missing("an empty record".to_owned()))
    }

    fn checkpoint(&self) -> Result<Option<String>, RecordsError> {
        Ok(None)
    }

    fn verifier(&self) -> String {
        "a key".to_owned()
    }

    fn checked(&self) -> Option<LedgerCheck> {
        None
    }
}

impl Recovery for House {
    fn take(&self, note: String) -> DeskAnswer<'_> {
        self.note(format!("a note: {note}"));
        Box::pin(async { Err(DeskError::NotAuthenticated) })
    }

    fn report(&self) -> RecoveryReport {
        RecoveryReport { at: self.now(), systems: Vec::new() }
    }

    fn is_published(&self) -> bool {
        true
    }

    fn published(&self) -> Option<String> {
        Some("a note".to_owned())
    }
}

impl Changes for House {
    fn list(&self, _limit: usize) -> Looking<'_, Vec<ChangeView>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn find(&self, _id: UndoId) -> Looking<'_, ChangeView> {
        Box::pin(async { Err(RecordsError::Missing("nothing was changed".to_owned())) })
    }

    fn preview(&self, _id: UndoId, _choice: UndoChoice) -> Looking<'_, UndoPreview> {
        Box::pin(async { Err(RecordsError::Missing("nothing was changed".to_owned())) })
    }
}
