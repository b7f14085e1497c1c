//! Changes: what agents did that can be undone, read from the ledger.
//!
//! A change is an intent that was concluded with rows in a transaction. Nothing about it is kept anywhere else: the ledger is the
//! database. It is read backwards, page by page, as far as the window goes.

use std::{collections::HashMap, time::Duration};

use reprieve_operation::{
    AgentName, Environment, Event, IntentId, OperatorName, Outcome, Reach, Recorded, SessionId, SystemName, Timestamp, UndoId,
};
use serde::Serialize;

use crate::{
    CallObjects, UndoError,
    calls::{Moments, object_of},
};

/// Events read at a time.
const PAGE: usize = 1_000;

/// The ledger, read backwards.
pub trait History: Send + Sync {
    /// At most `limit` events before the one with index `before`, newest first.
    fn before(&self, before: u64, limit: usize) -> Result<Vec<Recorded>, String>;

    /// At most `limit` events of one kind before the one with index `before`, newest first.
    fn of_kind(&self, kind: &str, before: u64, limit: usize) -> Result<Vec<Recorded>, String>;
}

/// How a change stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "standing", rename_all = "lowercase")]
pub enum Standing {
    /// It can be undone.
    Undoable,
    /// It was undone.
    Undone {
        /// By this.
        by: UndoId,
    },
    /// Its window is over.
    Expired,
    /// Something of it can't be brought back.
    Lasting {
        /// What, and why.
        because: Vec<String>,
    },
    /// Its outcome was lost, and nothing of it was found in the journal (yet).
    Unknown,
}

/// Something that was changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Its number.
    pub undo: UndoId,
    /// Where the ledger says how it ended.
    pub index: u64,
    /// When it became final.
    pub at: Timestamp,
    /// Who.
    pub agent: AgentName,
    /// The operator, where it was an undo itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<OperatorName>,
    /// On which connection; none for an undo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Where.
    pub system: SystemName,
    /// In what environment.
    pub environment: Environment,
    /// The statements, literals redacted.
    pub text: String,
    /// What it was measured to reach.
    pub reach: Reach,
    /// Its transaction.
    pub xid: Option<u64>,
    /// Of a call to a service: where it lies what takes it back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<CallObjects>,
    /// When it can't be undone any more.
    pub expires: Timestamp,
    /// How it stands.
    #[serde(flatten)]
    pub standing: Standing,
}

struct Ended {
    index: u64,
    at: Timestamp,
    outcome: Outcome,
    statements: Vec<String>,
}

/// The changes that `wanted` accepts, newest first, at most `limit`, none older than `window`.
pub fn changes(
    history: &dyn History,
    now: Timestamp,
    window: Duration,
    limit: usize,
    mut wanted: impl FnMut(&Change) -> bool,
) -> Result<Vec<Change>, UndoError> {
    let mut ended: HashMap<IntentId, Ended> = HashMap::new();
    let mut undone: HashMap<UndoId, UndoId> = HashMap::new();
    let mut settled: HashMap<IntentId, (Option<u64>, Reach)> = HashMap::new();
    let mut kept: HashMap<IntentId, Moments> = HashMap::new();
    let mut found: Vec<Change> = Vec::new();
    let mut before = u64::MAX;
    while found.len() < limit {
        let page = history.before(before, PAGE).map_err(UndoError::Ledger)?;
        let Some(last) = page.last() else { break };
        before = last.index;
        let is_old = now.since(last.at) > window.saturating_mul(2);
        for Recorded { index, at, event } in page {
            let (intent, change) = match event {
                Event::Concluded { intent, outcome, statements, agent: _ } => {
                    ended.insert(intent, Ended { index, at, outcome, statements });
                    continue;
                }
                Event::Settled { intent, xid, reach, agent: _ } => {
                    settled.insert(intent, (xid, reach));
                    continue;
                }
                Event::CallKept { intent, moment, resource, object, plain_bytes, stored_bytes, .. } => {
                    kept.entry(intent).or_default().add(moment, object_of(object, plain_bytes, stored_bytes), resource);
                    continue;
                }
                Event::Intent { intent, session, agent, system, environment, text, .. } => {
                    (intent, (agent, None, Some(session), system, environment, text))
                }
                Event::UndoStarted { intent, reverts, agent, system, environment, operator, choice: _, reason: _ } => {
                    if ended.get(&intent).is_some_and(|ended| matches!(ended.outcome, Outcome::Done { .. })) {
                        for reverted in reverts.iter().filter(|_| !undone.contains_key(&intent.into())).copied().collect::<Vec<_>>() {
                            undone.entry(reverted).or_insert(intent.into());
                        }
                    }
                    let names: Vec<String> = reverts.iter().map(ToString::to_string).collect();
                    (intent, (agent, Some(operator), None, system, environment, format!("undo of {}", names.join(", "))))
                }
                _ => continue,
            };
            let kept = kept.remove(&intent);
            let Some(ended) = ended.remove(&intent) else { continue };
            let (reach, xid, is_known) = match ended.outcome {
                Outcome::Done { reach, xid, .. } if !reach.is_empty() => (reach, xid, true),
                Outcome::Unknown => match settled.remove(&intent) {
                    // It was rolled back after all.
                    Some((Some(_), reach)) if reach.is_empty() => continue,
                    Some((Some(xid), reach)) => (reach, Some(xid), true),
                    // Whether a call took place shows when it is looked at.
                    Some((None, _)) | None => match &kept {
                        Some(kept) if kept.objects().is_some() => (kept.reach(), None, true),
                        Some(_) | None => (Reach::default(), None, false),
                    },
                },
                Outcome::Done { .. } | Outcome::Failed { .. } | Outcome::Refused { .. } | Outcome::Abandoned => continue,
            };
            let kept = kept.and_then(|kept| kept.objects());
            let undo = UndoId::from(intent);
            let expires = ended.at.plus(window);
            let standing = match (undone.get(&undo), is_known) {
                (Some(by), _) => Standing::Undone { by: *by },
                (None, _) if expires <= now => Standing::Expired,
                (None, false) => Standing::Unknown,
                // What was kept of a call can be brought back, also where something else of it can't.
                (None, true) if kept.is_some() || reach.lasting.is_empty() && xid.is_some() => Standing::Undoable,
                (None, true) => Standing::Lasting { because: reach.lasting.clone() },
            };
            let (agent, operator, session, system, environment, mut text) = change;
            ended.statements.iter().for_each(|statement| text.push_str(&format!(";\n{statement}")));
            let change = Change {
                undo,
                index: ended.index,
                at: ended.at,
                agent,
                operator,
                session,
                system,
                environment,
                text,
                reach,
                xid,
                kept,
                expires,
                standing,
            };
            if found.len() < limit && wanted(&change) {
                found.push(change);
            }
        }
        if is_old {
            break;
        }
    }
    Ok(found)
}
