//! Holds: takes people's answers, and closes what nobody answered.

use reprieve_gate::{AuditError, DeskError};
use reprieve_operation::{Answer, Digest, Event, HoldId, HoldState, HoldStatus, OperatorName, State, Timestamp};
use serde_json::{Value, json};

use crate::{
    ApprovalsDesk,
    desk::{checked_reason, refused, same_name},
    evidence::Evidence,
};

/// An answer as an operator gave it.
pub(crate) struct GivenAnswer {
    pub(crate) hold: HoldId,
    pub(crate) answer: Answer,
    pub(crate) confirm: Option<String>,
    pub(crate) reason: String,
    pub(crate) signed: Digest,
}

impl ApprovalsDesk {
    pub(crate) async fn answer(&self, given: GivenAnswer, by: OperatorName, evidence: Evidence) -> Result<Value, DeskError> {
        let reason = checked_reason(&given.reason)?;
        check(&self.audit.state(), &given, &reason, &by, self.clock.now())?;
        let GivenAnswer { hold, answer, signed, .. } = given;
        let scheduled = self.audit.state().holds.get(&hold).is_some_and(|hold| hold.status == HoldStatus::Scheduled);
        let (operator, signature) = (by.clone(), evidence.into_text());
        let (event, taken) = match answer {
            // Whoever is first in the ledger, this or its run, is the one that takes place.
            Answer::Deny if scheduled => {
                (Event::HoldCancelled { hold, operator, reason, signature, signed }, "too late: it is being carried out, or was cancelled")
            }
            Answer::Deny | Answer::Approve => {
                (Event::HoldAnswered { hold, operator, answer, reason, signature, signed }, "you have answered already")
            }
        };
        self.append(event).await.map_err(|error| refused(error, taken))?;
        let state = self.audit.state();
        let hold = state.holds.get(&hold).ok_or_else(|| DeskError::Invalid("the hold ended meanwhile".to_owned()))?;
        // The ledger's order decides: an answer that came second is on record, and counts for nothing.
        if !hold.answers.iter().any(|(operator, its, _)| *operator == by && *its == answer) {
            return Err(DeskError::Invalid(format!("too late: the hold is {} already", word(hold.status))));
        }
        Ok(standing(hold))
    }

    /// Whether an answer would be taken as things stand.
    pub(crate) fn check_answer(&self, given: &GivenAnswer, by: &OperatorName) -> Result<(), DeskError> {
        let reason = checked_reason(&given.reason)?;
        check(&self.audit.state(), given, &reason, by, self.clock.now())
    }

    /// Closes every hold that nobody answered, or used, in time; answers how many. To be called every few seconds.
    pub async fn expire(&self) -> Result<usize, DeskError> {
        self.raise_alarms();
        let now = self.clock.now();
        let due: Vec<HoldId> = self.audit.state().holds.values().filter(|hold| is_over(hold, now)).map(|hold| hold.hold).collect();
        let mut closed = 0;
        for hold in due {
            match self.append(Event::HoldExpired { hold }).await {
                Ok(_) => closed += 1,
                Err(AuditError::KeyTaken { .. }) => {}
                Err(error @ AuditError::Unavailable { .. }) => return Err(refused(error, "")),
            }
        }
        Ok(closed)
    }
}

fn is_over(hold: &HoldState, now: Timestamp) -> bool {
    hold.is_over(now)
}

/// Whether an answer may be taken.
fn check(state: &State, given: &GivenAnswer, reason: &str, by: &OperatorName, now: Timestamp) -> Result<(), DeskError> {
    let invalid = |text: String| Err(DeskError::Invalid(text));
    let Some(hold) = state.holds.get(&given.hold) else {
        return invalid(format!("there is no hold `{}`", given.hold));
    };
    if is_over(hold, now) {
        return invalid("the hold has expired, which is a no".to_owned());
    }
    let scheduled = hold.status == HoldStatus::Scheduled;
    if hold.status != HoldStatus::Waiting && !scheduled {
        return invalid(format!("the hold is {} already", word(hold.status)));
    }
    // Who approved may still cancel, but not be the second one to approve.
    if hold.answers.iter().any(|(operator, ..)| operator == by) && !(scheduled && given.answer == Answer::Deny) {
        return invalid("you have answered already".to_owned());
    }
    if given.signed != hold.digest_to_sign(given.answer) {
        return invalid("the effect changed, or is not what you signed: look again".to_owned());
    }
    match given.answer {
        Answer::Deny if reason.is_empty() => invalid("a denial needs a reason".to_owned()),
        Answer::Deny => Ok(()),
        Answer::Approve => check_approval(state, hold, given.confirm.as_deref(), by, now),
    }
}

/// What only an approval needs. A denial is safe, so that none of this stands in its way.
fn check_approval(state: &State, hold: &HoldState, confirm: Option<&str>, by: &OperatorName, now: Timestamp) -> Result<(), DeskError> {
    let forbidden = |text: String| Err(DeskError::Forbidden(text));
    if hold.confirm.is_empty() || confirm != Some(hold.confirm.as_str()) {
        return Err(DeskError::Invalid("to approve, type the name of what is changed exactly as it is shown".to_owned()));
    }
    if state.agents.keys().any(|agent| same_name(agent, by)) {
        return forbidden("an agent goes by your name".to_owned());
    }
    if let Some(because) = state.frozen_because(&hold.agent) {
        return forbidden(format!("agent `{}` is frozen ({because}): thaw first", hold.agent));
    }
    match state.agents.get(&hold.agent) {
        Some(agent) if !agent.revoked && !agent.decoy && agent.expires > now => {}
        _ => return forbidden(format!("the token of agent `{}` is void", hold.agent)),
    }
    let alone = hold.on_behalf_of.as_ref() == Some(by) && !hold.answers.iter().any(|(_, answer, _)| *answer == Answer::Approve);
    if alone && hold.needs.approvals == 0 {
        return forbidden("the agent acts for you: a different operator has to answer".to_owned());
    }
    Ok(())
}

/// Where a hold stands, for the one who answered.
fn standing(hold: &HoldState) -> Value {
    let (counted, needed) = (hold.counted_approvals(), hold.needs.approvals);
    let own =
        |(operator, answer, _): &(OperatorName, Answer, String)| *answer == Answer::Approve && Some(operator) == hold.on_behalf_of.as_ref();
    let message = match hold.status {
        HoldStatus::Waiting if hold.answers.iter().any(own) && counted == 0 => {
            "the agent acts for you, so your approval counts only together with another's: a different operator is still needed".to_owned()
        }
        HoldStatus::Waiting => format!("{} more of different operators needed", needed.saturating_sub(counted)),
        status @ (HoldStatus::Approved
        | HoldStatus::Scheduled
        | HoldStatus::Denied
        | HoldStatus::Expired
        | HoldStatus::Released
        | HoldStatus::Finished) => word(status).to_owned(),
    };
    json!({ "hold": hold.hold.to_string(), "status": hold.status, "approvals": counted, "needed": needed, "message": message, "due_ms": hold.due.map(|due| due.0) })
}

fn word(status: HoldStatus) -> &'static str {
    match status {
        HoldStatus::Waiting => "waiting",
        HoldStatus::Approved => "approved",
        HoldStatus::Scheduled => "scheduled",
        HoldStatus::Denied => "denied",
        HoldStatus::Expired => "expired",
        HoldStatus::Released => "released",
        HoldStatus::Finished => "finished",
    }
}

#[cfg(test)]
mod tests;
