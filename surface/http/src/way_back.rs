//! The way back of a call: looked at and kept before it is sent, looked at again after it.
//!
//! Only one change of one thing has a way back, and only where the catalog says how. Whatever does not come back with it is said in
//! words, and then the change counts as lasting: it is held. Taking it back is in `take_back.rs`.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, ETAG};
use reprieve_effects_http::{Call, Catalog, Class, Escrow as Step, FILE_LIMIT, Look, Progress, Seen, State, Undo, analyze, answer};
use reprieve_gate::{Escrow, Keeping};
use reprieve_operation::{AgentName, Hazard, IntentId, Kind, Moment, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    place::Place,
    resolve::{READ_BYTES, ask, collect, only_reads, read},
    system::System,
    understand::Understood,
};

/// How long something may take that is made before a change, a snapshot say, and how often it is asked after.
const MADE_WITHIN: Duration = Duration::from_secs(600);
const ASK_EVERY: Duration = Duration::from_secs(3);

/// How often what changes while it is kept is looked at anew.
const TRIES: usize = 3;

/// Where a call goes, and what is known there.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) system: &'a System,
    /// `None`: nothing can be kept here.
    pub(crate) escrow: Option<&'a dyn Escrow>,
}

/// Whether what is kept may be made first: a snapshot costs something, and is made only for what will be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Making {
    /// It is only said that it would be.
    Later,
    /// It is made, under a name of this time where it has one.
    Now(Timestamp),
}

/// What a call takes to be taken back, as it lies in the vault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct WayBack {
    /// The change that it belongs to: no two are alike.
    pub(crate) intent: Option<IntentId>,
    pub(crate) operation: String,
    /// What it changes.
    pub(crate) resource: String,
    /// Where the call went.
    pub(crate) place: String,
    /// How to see it.
    pub(crate) looks: Vec<Look>,
    pub(crate) before: State,
    pub(crate) undo: Undo,
}

/// How a call left what it changed, as it lies in the vault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Left {
    pub(crate) intent: IntentId,
    /// What the service answered.
    pub(crate) answer: Value,
    /// `None`: it could not be seen.
    pub(crate) state: Option<State>,
}

/// What was found before a change.
#[derive(Debug, Default)]
pub(crate) struct Secured {
    pub(crate) way_back: Option<WayBack>,
    /// What doesn't come back, and why.
    pub(crate) lasting: Vec<String>,
}

/// Looks at what a request is about to change.
pub(crate) async fn look_before(ground: Ground<'_>, understood: &Understood, making: Making) -> Secured {
    if let Some(upgrade) = &understood.asked.upgrade {
        let reason = format!("the connection becomes `{upgrade}`, and what is done in there is seen by nobody");
        return Secured { way_back: None, lasting: vec![reason] };
    }
    let changing: Vec<&Call> = understood.analysis.calls.iter().filter(|call| !only_reads(call)).collect();
    let call = match changing.as_slice() {
        [] => return Secured::default(),
        // More than a write (for everyone to read, say) is more than an addition.
        [call] if call.adds.is_some() && call.class == Class::plain(Kind::Write) => return Secured::default(),
        [call] => *call,
        several => {
            let one_of = |call: &&Call| format!("`{}` is one of several changes in one request, which are not taken back", call.operation);
            return Secured { way_back: None, lasting: several.iter().map(one_of).collect() };
        }
    };
    match keep(ground, understood, call, making).await {
        Ok((way_back, mut lasting)) => {
            lasting.extend(losses(call));
            Secured { way_back, lasting }
        }
        Err(reason) => Secured { way_back: None, lasting: vec![reason] },
    }
}

/// Why there can't be a way back, by what the catalog says alone.
fn no_way_back(call: &Call) -> Option<String> {
    let operation = &call.operation;
    let Some(undo) = &call.undo else {
        return Some(match call.resources.len() {
            _ if call.class.hazards.contains(&Hazard::Lasting) => format!("`{operation}` is final at the provider"),
            2.. => format!("`{operation}` names several things at once, which are not taken back"),
            _ => format!("no way back from `{operation}` is known"),
        });
    };
    if call.class.kind == Kind::Unknown || call.staged.is_some() {
        return Some(format!("what `{operation}` does is not known, so it is not taken back"));
    }
    if let Some(missing) = call.escrow.iter().find_map(|step| step.request.as_ref().err()) {
        return Some(format!("what `{operation}` would need to be taken back can't be kept: {missing}"));
    }
    let seen = undo.checks() || !call.escrow.is_empty();
    (!seen).then(|| format!("`{operation}` could be taken back by hand only: nothing shows whether others changed something since"))
}

/// What of a call does not come back although the rest does.
fn losses(call: &Call) -> Vec<String> {
    let operation = &call.operation;
    let has = |hazard: Hazard| call.class.hazards.contains(&hazard);
    let mut lost = Vec::new();
    if let Some(undo) = call.undo.as_ref().filter(|undo| !undo.loses.is_empty()) {
        lost.push(format!("{} (`{operation}` is taken back without)", undo.loses));
    }
    for (is_so, why) in [
        (has(Hazard::Lasting), "is final at the provider; what is made of what was kept may be another"),
        (has(Hazard::Every), "touches all there is, not only what it names"),
        (has(Hazard::Unprotects), "takes a protection away: what goes without it meanwhile doesn't come back"),
        (has(Hazard::Secret), "hands out a credential, which stays known"),
        (has(Hazard::Code) || call.class.kind == Kind::Grant, "gives rights or runs code: what is done with that doesn't come back"),
    ] {
        if is_so {
            lost.push(format!("`{operation}` {why}"));
        }
    }
    lost
}

async fn keep(ground: Ground<'_>, understood: &Understood, call: &Call, making: Making) -> Result<(Option<WayBack>, Vec<String>), String> {
    if let Some(reason) = no_way_back(call) {
        return Err(reason);
    }
    let Some(undo) = &call.undo else { return Err(format!("no way back from `{}` is known", call.operation)) };
    let escrow = ground.escrow.ok_or("nothing is kept here")?;
    escrow.ready().await.map_err(|reason| format!("nothing can be kept at the moment: {reason}"))?;
    let place = &understood.asked.place;
    let provider = ground.system.provider.as_deref().unwrap_or_default();
    let (mut looks, mut lasting) = (Vec::new(), Vec::new());
    let mut before = if call.escrow.is_empty() { State::Absent } else { State::Present(Map::new()) };
    let mut awaited = false;
    for step in &call.escrow {
        let look = step
            .look(if let Making::Now(now) = making { now.0 } else { 0 })
            .map_err(|missing| format!("what `{}` changes can't be kept: {missing}", call.operation))?;
        let analysis = analyze(ground.catalog, provider, &look.request);
        let reads = analysis.problem.is_none() && analysis.calls.iter().all(|call| call.dry_run || call.class.kind == Kind::Read);
        if !reads {
            lasting.push(format!("`{}` comes back from {} only, which is made once it is approved", call.operation, step.says));
            if making == Making::Later {
                awaited = true;
                continue;
            }
        }
        let seen = see(ground.system, place, &look).await.map_err(|why| format!("{} could not be kept: {why}", step.says))?;
        match (seen, &mut before) {
            (Seen::Present(kept), _) if is_too_large(&kept) => return Err(format!("{} is too large to be kept", step.says)),
            (Seen::Present(kept), State::Present(saved)) => {
                lasting.extend(step.lost(&kept).map(|lost| format!("{lost} (`{}`)", call.operation)));
                wait_for(ground.system, place, step, &kept).await?;
                saved.insert(look.save.clone(), kept);
            }
            (Seen::Absent, _) if looks.is_empty() && undo.takes_nothing_back() => before = State::Absent,
            (Seen::Absent | Seen::Going, _) => return Err(format!("{} is not there to be kept", step.says)),
            (Seen::Present(_), State::Absent) => return Err("only a part of it is there".to_owned()),
        }
        if reads {
            looks.push(look);
        }
    }
    if awaited {
        return Ok((None, lasting));
    }
    if let State::Present(saved) = &before
        && !undo.is_ready(saved)
    {
        return Err(format!("what is kept of it is not enough to take `{}` back", call.operation));
    }
    let resource = call.resources.first().cloned().unwrap_or_else(|| understood.asked.target.split('?').next().unwrap_or("/").to_owned());
    let (operation, place, undo) = (call.operation.clone(), place.to_string(), undo.clone());
    Ok((Some(WayBack { intent: None, operation, resource, place, looks, before, undo }), lasting))
}

/// One look at the service.
async fn see(system: &System, place: &Place, look: &Look) -> Result<Seen, String> {
    if !look.raw {
        let (status, headers, body) = read(system, place, &look.request, READ_BYTES).await?;
        return look.read(status, &headers, &body);
    }
    // Files are large, and kept in memory on their way to the vault: few at a time.
    let _place = system.files.acquire().await.map_err(|error| error.to_string())?;
    let (status, headers, response) = ask(system, place, &look.request).await?;
    let header = |name: &str| headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
    let length = header(CONTENT_LENGTH.as_str()).and_then(|length| length.parse::<u64>().ok());
    match (length.filter(|length| *length > FILE_LIMIT as u64), header(ETAG.as_str())) {
        // Not its content, but enough to tell whether it is still the same.
        (Some(length), Some(etag)) if status == 200 => Ok(Seen::Present(json!({ TOO_LARGE: { "bytes": length, "etag": etag } }))),
        _ => look.read(status, &headers, &collect(response, FILE_LIMIT).await?),
    }
}

/// What is seen of a file that is too large to be kept.
const TOO_LARGE: &str = "too_large";

fn is_too_large(seen: &Value) -> bool {
    seen.get(TOO_LARGE).is_some()
}

/// Waits for what was asked for to be made.
async fn wait_for(system: &System, place: &Place, step: &Step, kept: &Value) -> Result<(), String> {
    let Some(until) = &step.until else { return Ok(()) };
    let wrong = |why: String| format!("{} could not be made: {why}", step.says);
    let deadline = Instant::now() + MADE_WITHIN;
    let request = until.request(&step.save, kept).map_err(|missing| wrong(missing.to_string()))?;
    loop {
        let (status, headers, body) = read(system, place, &request, READ_BYTES).await.map_err(wrong)?;
        let media = headers.iter().find(|(name, _)| name == "content-type").map_or("", |(_, value)| value.as_str());
        let progress = if (200..300).contains(&status) { until.progress(&answer(media, &body).map_err(wrong)?) } else { Progress::Waiting };
        match progress {
            Progress::Done => return Ok(()),
            Progress::Failed => return Err(wrong("the service says that it failed".to_owned())),
            Progress::Waiting if Instant::now() > deadline => return Err(wrong("it takes too long".to_owned())),
            Progress::Waiting => sleep(ASK_EVERY).await,
        }
    }
}

impl WayBack {
    /// What others may not change at the same time.
    pub(crate) fn turn(understood: &Understood) -> String {
        let named = understood.analysis.calls.iter().find(|call| !only_reads(call)).and_then(|call| call.resources.first());
        named.cloned().unwrap_or_else(|| understood.asked.target.split('?').next().unwrap_or("/").to_owned())
    }

    /// What it changes, as it is now.
    pub(crate) async fn see(&self, system: &System, answer: &Value) -> Result<State, String> {
        let place = self.place.parse().map_err(|_| "its place is none".to_owned())?;
        let made = self.undo.check(answer).transpose().map_err(|missing| missing.to_string())?;
        let mut saved = match &self.before {
            State::Present(saved) => saved.clone(),
            State::Absent => Map::new(),
        };
        for look in self.looks.iter().chain(&made) {
            match see(system, &place, look).await? {
                Seen::Present(value) => {
                    saved.insert(look.save.clone(), value);
                }
                Seen::Absent | Seen::Going => return Ok(State::Absent),
            }
        }
        Ok(State::Present(saved))
    }

    /// Keeps it, durable when this returns, and looks whether it is still so: what others change at the same moment would be lost.
    pub(crate) async fn keep(mut self, ground: Ground<'_>, intent: IntentId, agent: &AgentName) -> Result<Self, String> {
        self.intent = Some(intent);
        for _ in 0..TRIES {
            let bytes = serde_json::to_vec(&self).map_err(|error| error.to_string())?;
            hand_over(ground, &self.resource, Moment::Before, intent, agent, bytes).await?;
            if self.looks.is_empty() {
                return Ok(self);
            }
            let now = self.see(ground.system, &Value::Null).await.map_err(|why| format!("`{}` could not be seen: {why}", self.resource))?;
            if self.undo.mark(&now) == self.undo.mark(&self.before) {
                return Ok(self);
            }
            if now == State::Absent && !self.undo.takes_nothing_back() {
                return Err(format!("`{}` went while it was kept", self.resource));
            }
            if matches!(&now, State::Present(saved) if saved.values().any(is_too_large)) {
                return Err(format!("`{}` became too large to be kept", self.resource));
            }
            self.before = now;
        }
        Err(format!("`{}` changed each time it was kept", self.resource))
    }

    /// Looks at what the call left, and keeps that. What can't be kept is missing when somebody wants to undo, and then they are told.
    pub(crate) async fn keep_left(&self, ground: Ground<'_>, intent: IntentId, agent: &AgentName, answer: Value) {
        let state = self.see(ground.system, &answer).await;
        if let Err(why) = &state {
            tracing::warn!(%intent, resource = self.resource, why, "what a call left could not be seen");
        }
        let left = Left { intent, answer, state: state.ok() };
        let kept = match serde_json::to_vec(&left) {
            Ok(bytes) => hand_over(ground, &self.resource, Moment::After, intent, agent, bytes).await,
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = kept {
            tracing::warn!(%intent, why, "what a call left could not be kept");
        }
    }
}

async fn hand_over(
    ground: Ground<'_>,
    resource: &str,
    moment: Moment,
    intent: IntentId,
    agent: &AgentName,
    bytes: Vec<u8>,
) -> Result<(), String> {
    let escrow = ground.escrow.ok_or("nothing is kept here")?;
    let (agent, system, resource) = (agent.clone(), ground.system.name.clone(), resource.chars().take(300).collect());
    let keeping = Keeping { intent, agent, system, moment, resource, bytes };
    escrow.keep(keeping).await.map_err(|reason| format!("it could not be kept: {reason}"))
}

/// A service's answer as a value, where it is one.
pub(crate) fn answered(media: &str, body: &Bytes) -> Value {
    answer(media, body).unwrap_or(Value::Null)
}
