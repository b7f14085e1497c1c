//! One request: who sends it, where it goes, what it does, and what came of it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{
    Request, Response,
    header::{HeaderName, UPGRADE},
    request::Parts,
};
use hyper::body::Incoming;
use reprieve_gate::{Considered, Ran};
use reprieve_operation::{Action, Effect, Event, Operation, Protocol, Refusal, SessionId, SystemName};
use serde_json::json;
use tokio::sync::{Mutex, oneshot};

use crate::{
    answer::{Body, no_answer, problem},
    asked::Asked,
    door::Entered,
    listener::Surface,
    place::Place,
    resolve::measure,
    reverse::OWN,
    run::{Run, pass, send},
    system::System,
    understand::{Understood, understand},
};

/// RFC 7240: how long an agent is ready to wait for a person.
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// An agent's connection.
pub(crate) struct Caller {
    pub(crate) surface: Arc<Surface>,
    pub(crate) entered: Entered,
    pub(crate) peer: String,
    sessions: Mutex<HashMap<SystemName, SessionId>>,
    /// Whether it came to a service's own listener.
    direct: bool,
}

impl Caller {
    pub(crate) fn new(surface: Arc<Surface>, entered: Entered, peer: String) -> Self {
        Self { surface, entered, peer, sessions: Mutex::default(), direct: false }
    }

    /// One that came to a service's own listener.
    pub(crate) fn directly(self) -> Self {
        Self { direct: true, ..self }
    }

    /// The service that a place is, to this agent.
    pub(crate) fn system(&self, place: &Place) -> Result<Arc<System>, Refusal> {
        let scope = &self.entered.principal.scope;
        let wanted = self.entered.system.as_ref();
        let mut covered = self.surface.systems.iter().filter(|system| {
            system.claims(place)
                && scope.systems.contains(&system.name)
                && scope.environments.contains(&system.environment)
                && wanted.is_none_or(|wanted| *wanted == system.name)
        });
        match (covered.next(), covered.next()) {
            (Some(system), None) => Ok(system.clone()),
            (Some(_), Some(_)) => {
                let reason = format!("`{}` is more than one system to this agent", place.host);
                Err(Refusal::refused("ambiguous-system", reason, "say which one is meant: log in as AGENT+SYSTEM"))
            }
            // The same words whether it exists or not: an agent has no map of what it may not reach.
            (None, _) => {
                self.surface.gate.note(Event::SessionRefused {
                    claimed: self.entered.principal.agent.to_string(),
                    system: place.authority().chars().take(63).collect(),
                    peer: self.peer.clone(),
                    reason: "no system of its token".to_owned(),
                });
                let reason = format!("the token of `{}` covers no system at `{place}`", self.entered.principal.agent);
                Err(Refusal::refused("unclaimed-host", reason, "call the services that your token covers; an operator can add more"))
            }
        }
    }

    async fn session(&self, system: &System) -> Result<SessionId, Refusal> {
        // Held while the session is recorded: requests side by side on one connection share it.
        let mut sessions = self.sessions.lock().await;
        if let Some(session) = sessions.get(&system.name) {
            return Ok(*session);
        }
        let session = self.surface.gate.open_session(&self.entered.principal, &system.name, &self.peer, None).await?;
        sessions.insert(system.name.clone(), session);
        Ok(session)
    }

    /// The connection has ended.
    pub(crate) async fn leave(&self) {
        for session in self.sessions.lock().await.drain().map(|(_, session)| session) {
            self.surface.gate.note(Event::SessionClosed { session });
        }
    }
}

/// Carries one request for `place` to its answer.
pub(crate) async fn exchange(caller: &Arc<Caller>, place: Place, request: Request<Incoming>) -> Response<Body> {
    let gate = &caller.surface.gate;
    // A connection may outlive its token.
    if let Err(refusal) = gate.may_go_on(&caller.entered.principal) {
        return problem(gate, &refusal, &json!({}));
    }
    match ask(caller, place, request).await {
        Ok(response) => response,
        Err(refusal) => {
            tracing::info!(agent = %caller.entered.principal.agent, rule = refusal.rule, "a request was not looked at further");
            problem(gate, &refusal, &json!({}))
        }
    }
}

async fn ask(caller: &Arc<Caller>, place: Place, mut request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let gate = &caller.surface.gate;
    let system = caller.system(&place)?;
    let becomes = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let wait = preferred_wait(&parts);
    let (mut asked, _place) = Asked::read(parts, body, place, &system).await?;
    system.credential.strip(&mut asked.headers, &mut asked.target)?;
    let session = caller.session(&system).await?;
    let Surface { memory, catalog, .. } = caller.surface.as_ref();
    let recalled = memory.recall(&system, &asked);
    let is_new = recalled.is_none();
    let understood = match recalled.map_or_else(|| understand(catalog, &system, &asked).map(Arc::new), Ok) {
        Ok(understood) => understood,
        Err(refusal) => {
            gate.note_refusal(&not_understood(caller, &system, session, &asked, &refusal), &refusal);
            return Ok(refused(caller, &system, &refusal));
        }
    };
    let mut operation = operation(caller, &system, session, &understood);
    if !operation.may_change() {
        if is_new {
            memory.remember(&system, asked, &understood);
        }
        match gate.consider(&operation) {
            Considered::Pass => return Ok(look(caller, &system, &operation, &understood.asked).await),
            Considered::Refuse(refusal) => {
                gate.note_refusal(&operation, &refusal);
                return Ok(refused(caller, &system, &refusal));
            }
            Considered::Hold(_) => {}
        }
    } else {
        let measured = measure(caller.surface.ground(&system), &understood).await;
        operation.effects = measured.effects.into();
        operation.environment = measured.environment;
        operation.reach = Some(measured.reach);
    }
    // A spent permit is carried to its end even if the agent hangs up.
    let (alive, gone) = oneshot::channel();
    let run = Run::new(caller.surface.clone(), system.clone(), understood)
        .waiting(wait, gone)
        .becoming(becomes, caller.entered.principal.clone());
    let carried = tokio::spawn(carry(caller.clone(), system.clone(), operation, run)).await;
    drop(alive);
    match carried {
        Ok(response) => Ok(response),
        Err(error) => {
            tracing::error!(%error, "a request ended in a bug");
            Ok(no_answer("the gateway failed by a mistake of ours", true))
        }
    }
}

/// Carries what may change something through the gate.
async fn carry(caller: Arc<Caller>, system: Arc<System>, operation: Operation, mut run: Run) -> Response<Body> {
    let Surface { gate, running, .. } = caller.surface.as_ref();
    let _running = Running::begin(running);
    match gate.handle(operation, &mut run).await {
        Ok(Ran::Final(_) | Ran::Failed { .. } | Ran::Unknown) => {
            run.response.take().unwrap_or_else(|| no_answer("the service gave no answer", true))
        }
        Ok(Ran::Abandoned | Ran::Beyond(_)) => no_answer("the request was given up", false),
        Err(refusal) => refused(&caller, &system, &refusal),
    }
}

/// Passes a read on. It shares a record with others like it.
async fn look(caller: &Caller, system: &System, operation: &Operation, asked: &Asked) -> Response<Body> {
    let Surface { gate, reads, .. } = caller.surface.as_ref();
    reads.count(gate, operation.session, &operation.principal.agent, &system.name, &operation.redacted);
    match send(system, asked).await {
        Ok(response) => pass(system, response),
        Err(failure) => no_answer(&failure.reason, false),
    }
}

fn refused(caller: &Caller, system: &System, refusal: &Refusal) -> Response<Body> {
    let mut more = json!({ "system": system.name, "environment": system.environment });
    if let (true, Some(hold)) = (caller.direct, refusal.hold) {
        more["state"] = json!(format!("{OWN}/holds/{hold}"));
    }
    problem(&caller.surface.gate, refusal, &more)
}

fn operation(caller: &Caller, system: &System, session: SessionId, understood: &Understood) -> Operation {
    Operation {
        principal: caller.entered.principal.clone(),
        session,
        system: system.name.clone(),
        environment: system.environment.clone(),
        protocol: Protocol::Http,
        text: understood.text.clone(),
        redacted: understood.redacted.clone(),
        bound: None,
        parameters: understood.parameters.clone(),
        // A channel is of no use to anybody but the client that asked for it, and a large file is only there while it is sent.
        action: if understood.asked.upgrade.is_some() || understood.asked.is_large() { Action::InSession } else { Action::SelfContained },
        effects: understood.effects.clone(),
        reach: None,
        rows_apart: 0,
    }
}

/// What is recorded of a request that has no one meaning.
fn not_understood(caller: &Caller, system: &System, session: SessionId, asked: &Asked, refusal: &Refusal) -> Operation {
    let text: Arc<str> = format!("{} {}", asked.method, asked.place).into();
    Operation {
        principal: caller.entered.principal.clone(),
        session,
        system: system.name.clone(),
        environment: system.environment.clone(),
        protocol: Protocol::Http,
        text: text.clone(),
        redacted: text,
        bound: None,
        parameters: None,
        action: Action::SelfContained,
        effects: [Effect::Unknown { because: refusal.reason.clone() }].into(),
        reach: None,
        rows_apart: 0,
    }
}

/// Counts a change while it is carried out, so that a stop waits for it.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// `Prefer: wait=30`: an agent that is ready to wait for a person says so; others hear at once that a person is asked.
fn preferred_wait(parts: &Parts) -> Option<Duration> {
    let preferences = parts.headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let mut waits = preferences.filter_map(|preference| preference.trim().strip_prefix("wait="));
    waits.next()?.parse().ok().map(Duration::from_secs)
}
