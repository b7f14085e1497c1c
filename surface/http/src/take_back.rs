//! Taking calls back: by a fresh look first, so that nothing is overwritten that somebody made since, and as a change of its own
//! that can be taken back again.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use reprieve_effects_http::{Catalog, State};
use reprieve_gate::{CallConflict, CallDone, CallFailure, CallReport, CallStates, Escrow, KeptCall, Running, TakeBack, UndoChoice};
use reprieve_operation::{AgentName, IntentId, SystemName};
use serde_json::Value;

use crate::{
    asked::Asked,
    place::Place,
    resolve::collect,
    run::{says_no, send},
    system::System,
    understand::understand,
    way_back::{Ground, Left, Making, WayBack, answered, look_before},
};

/// Characters of a state that people are shown.
const SHOWN: usize = 4_000;

/// Bytes of an answer that are looked into.
const LOOKED_INTO: usize = 8 << 20;

/// Takes back what agents called.
pub struct Returns {
    systems: Vec<Arc<System>>,
    catalog: Arc<Catalog>,
    /// `None`: only to look.
    escrow: Option<Arc<dyn Escrow>>,
}

/// A call with its two states.
struct Call {
    way_back: WayBack,
    left: Option<Left>,
}

/// What is to be done.
struct Plan {
    report: CallReport,
    /// `None`: nothing.
    request: Option<Asked>,
}

impl Returns {
    /// For these services. Without `escrow` nothing is taken back, only looked at.
    #[must_use]
    pub fn new(systems: Vec<Arc<System>>, catalog: Arc<Catalog>, escrow: Option<Arc<dyn Escrow>>) -> Self {
        Self { systems, catalog, escrow }
    }

    fn system(&self, name: &SystemName) -> Result<&System, CallFailure> {
        let system = self.systems.iter().find(|system| system.name == *name);
        system.map(Arc::as_ref).ok_or_else(|| CallFailure::Before(format!("`{name}` is no service here any more")))
    }

    async fn carry_out(&self, kept: &KeptCall, choice: UndoChoice, intent: IntentId, agent: AgentName) -> Result<CallReport, CallFailure> {
        let system = self.system(&kept.system)?;
        let ground = Ground { catalog: &self.catalog, system, escrow: self.escrow.as_deref() };
        let call = Call::read(kept)?;
        let _turn = system.turns.take(&call.way_back.resource).await.map_err(CallFailure::Before)?;
        let Plan { mut report, request } = call.plan(system, choice).await?;
        if report.conflict.is_some() && choice == UndoChoice::Stop {
            return Err(CallFailure::Conflict(Box::new(report)));
        }
        let Some(asked) = request else { return Ok(report) };
        let understood =
            understand(&self.catalog, system, &asked).map_err(|refusal| CallFailure::Before(format!("its way back: {refusal}")))?;
        let secured = look_before(ground, &understood, Making::Later).await;
        report.lasting = secured.lasting;
        let mut way_back = None;
        if let Some(found) = secured.way_back {
            match found.keep(ground, intent, &agent).await {
                Ok(kept) => way_back = Some(kept),
                Err(reason) => report.lasting.push(reason),
            }
        }
        let response = send(system, &understood.asked)
            .await
            .map_err(|failure| if failure.sent { CallFailure::Unknown(failure.reason) } else { CallFailure::Before(failure.reason) })?;
        let status = response.status();
        let media = response.headers().get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default().to_owned();
        let body = collect(response, LOOKED_INTO).await;
        let said = body.as_ref().map(|body| String::from_utf8_lossy(body).chars().take(500).collect::<String>()).unwrap_or_default();
        if status.is_server_error() {
            return Err(CallFailure::Unknown(format!("the service answered {status}: {said}")));
        }
        if !status.is_success() || body.as_ref().is_ok_and(|body| says_no(body)) {
            return Err(CallFailure::Before(format!("the service would not: it answered {status}: {said}")));
        }
        if let Some(way_back) = way_back {
            let answer = body.as_ref().map_or(Value::Null, |body| answered(&media, body));
            way_back.keep_left(ground, intent, &agent, answer).await;
        }
        Ok(report)
    }
}

impl Call {
    fn read(kept: &KeptCall) -> Result<Self, CallFailure> {
        let unreadable = |error: serde_json::Error| CallFailure::Before(format!("what was kept of it can't be read: {error}"));
        let way_back: WayBack = serde_json::from_slice(&kept.before).map_err(unreadable)?;
        let left: Option<Left> = kept.after.as_deref().map(serde_json::from_slice).transpose().map_err(unreadable)?;
        Ok(Self { way_back, left })
    }

    /// How the call left it, where that was seen.
    fn after(&self) -> Option<&State> {
        self.left.as_ref().and_then(|left| left.state.as_ref())
    }

    /// What taking it back takes, as things are now.
    async fn plan(&self, system: &System, choice: UndoChoice) -> Result<Plan, CallFailure> {
        let before = |why: String| CallFailure::Before(why);
        let Self { way_back, left } = self;
        let place: Place = way_back.place.parse().map_err(|_| before("its place is none".to_owned()))?;
        // Settings may have changed since: a credential goes to its own service only.
        if !system.claims(&place) {
            return Err(before(format!("`{place}` is not a host of `{}` any more", system.name)));
        }
        let answer = left.as_ref().map_or(&Value::Null, |left| &left.answer);
        let now = way_back.see(system, answer).await.map_err(|why| before(format!("`{}` can't be seen: {why}", way_back.resource)))?;
        let mark = |state: &State| way_back.undo.mark(state);
        let done = match (&way_back.before, &now) {
            (State::Present(_), State::Absent) => CallDone::Restored,
            (State::Present(_), State::Present(_)) => CallDone::Reverted,
            (State::Absent, _) => CallDone::Removed,
        };
        let shown = |state: &State| (*state != State::Absent).then(|| shown(&mark(state)));
        let (wanted, is) = (shown(&way_back.before), shown(&now));
        let mut report = CallReport { resource: way_back.resource.clone(), done, conflict: None, wanted, now: is, lasting: Vec::new() };
        if mark(&now) == mark(&way_back.before) {
            report.done = CallDone::Already;
            return Ok(Plan { report, request: None });
        }
        if self.after().is_none_or(|after| mark(after) != mark(&now)) {
            report.conflict = Some(match (&now, self.after()) {
                (State::Absent, _) => CallConflict::Deleted,
                (_, Some(State::Absent)) => CallConflict::Added,
                _ => CallConflict::Changed,
            });
            if choice == UndoChoice::Theirs {
                report.done = CallDone::Left;
                return Ok(Plan { report, request: None });
            }
        }
        let request = way_back.undo.back(&way_back.before, answer).map_err(|missing| before(missing.to_string()))?;
        let asked = Asked::of(&request, &place).ok_or_else(|| before("its way back can't be sent".to_owned()))?;
        Ok(Plan { report, request: Some(asked) })
    }
}

impl TakeBack for Returns {
    fn serves(&self, system: &SystemName) -> bool {
        self.systems.iter().any(|known| known.name == *system)
    }

    fn preview<'a>(&'a self, call: &'a KeptCall, choice: UndoChoice) -> Running<'a, Result<CallReport, CallFailure>> {
        Box::pin(async move {
            let plan = Call::read(call)?.plan(self.system(&call.system)?, choice).await?;
            match plan.report.conflict {
                Some(_) if choice == UndoChoice::Stop => Err(CallFailure::Conflict(Box::new(plan.report))),
                _ => Ok(plan.report),
            }
        })
    }

    fn take_back<'a>(
        &'a self,
        call: &'a KeptCall,
        choice: UndoChoice,
        intent: IntentId,
        agent: AgentName,
    ) -> Running<'a, Result<CallReport, CallFailure>> {
        Box::pin(self.carry_out(call, choice, intent, agent))
    }

    fn states(&self, call: &KeptCall) -> Result<CallStates, CallFailure> {
        let call = Call::read(call)?;
        let text = |state: &State| (*state != State::Absent).then(|| shown(&call.way_back.undo.mark(state)));
        Ok((text(&call.way_back.before), call.after().and_then(text)))
    }
}

/// A state for people: what counts of it, in one line.
fn shown(mark: &Value) -> String {
    let value = mark.get("body").filter(|body| !body.is_null()).unwrap_or(mark);
    value.to_string().chars().take(SHOWN).collect()
}
