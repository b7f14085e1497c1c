//! Facts in, decision out: the nouns of `decide`.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Reach, Timestamp};

/// How the way back of a change is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Undoability {
    /// None yet; what it reaches isn't measured.
    #[default]
    None,
    /// Its before-image is durable before the change is final.
    Secured,
    /// It was measured to reach something that can't be brought back here.
    Impossible,
}

impl Undoability {
    /// As far as a reach tells: an estimate tells nothing.
    #[must_use]
    pub fn of(reach: Option<&Reach>) -> Self {
        match reach {
            Some(reach) if reach.is_undoable() => Self::Secured,
            Some(reach) if !reach.estimated => Self::Impossible,
            _ => Self::None,
        }
    }
}

/// How much may change without a person being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Rows one statement may change.
    pub rows_per_statement: u64,
    /// Rows one transaction may change.
    pub rows_per_transaction: u64,
    /// Rows one agent may change in any hour.
    pub rows_per_hour: u64,
    /// Relations one transaction may drop or empty.
    pub relations_dropped: u64,
    /// Rows one transaction may change although they can't be brought back: an operator's standing approval, none by default.
    pub rows_without_undo: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { rows_per_statement: 100, rows_per_transaction: 1_000, rows_per_hour: 10_000, relations_dropped: 0, rows_without_undo: 0 }
    }
}

/// What a decision may look at besides the operation. The same facts give the same decision, today and in a replay.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Facts {
    /// The time of the decision.
    pub now: Timestamp,
    /// Whether this agent, or all, are frozen.
    pub frozen: bool,
    /// Operators who approved exactly this operation and reach, none of them disqualified.
    pub approvals: u32,
    /// How long the operation has waited in a visible window.
    pub delayed: Duration,
    /// How long its system wants a call that destroys for good to wait in sight of everybody; zero where it doesn't.
    pub window: Duration,
    /// Whether the change can be taken back.
    pub undoable: Undoability,
    /// The budget in force for the environment.
    pub budget: Budget,
    /// Rows this agent changed in the last hour.
    pub rows_this_hour: u64,
    /// What is known of the system's copies.
    pub recovery: RecoveryFacts,
}

/// What is known of a system's copies. Nothing, by default, and nothing asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct RecoveryFacts {
    /// How old the newest copy is.
    pub backup_age: Option<Duration>,
    /// How long ago the last drill was, if it passed.
    pub drill_age: Option<Duration>,
    /// Whether the copies lie where what destroys the system may destroy them too, or nobody knows where.
    pub same_blast_radius: bool,
    /// How much was lost in that drill.
    pub rpo: Option<Duration>,
    /// How long it took.
    pub rto: Option<Duration>,
    /// A drill must have passed within its window before anything is destroyed here, and none has.
    pub unproven: bool,
}

/// The answer of `decide`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// It may run, on these terms.
    Allow(Terms),
    /// It may run once these are met.
    Needs(Needs),
    /// It may not run.
    Refuse(Refusal),
}

/// The terms on which an operation may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Rows up to which the policy is known to allow the change without being asked again. `None`: the policy has to see
    /// the exact measurement. Says nothing about definitions, privileges or escapes: these are always looked at.
    pub ceiling: Option<u64>,
    /// Whether the ceiling holds for what can be brought back only.
    pub undoable_only: bool,
    /// The policies that allowed it, by id.
    pub because: Vec<String>,
    /// What a stricter profile would have answered; only `observe` says so.
    pub would_have: Option<String>,
}

/// What is missing for an operation to be allowed. At least one is not its zero.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Approvals by different operators.
    pub approvals: u32,
    /// A delay in a visible window.
    pub delay: Duration,
    /// Whether a way back must be secured.
    pub undo: bool,
    /// The rule that asks, by id.
    pub rule: String,
    /// The rule in words.
    pub reason: String,
    /// What may be done instead.
    pub remedy: String,
}

/// What sort of no it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RefusalKind {
    /// Waits for a person.
    Held,
    /// A rule or a person said no.
    Refused,
    /// The agent, or all, are frozen.
    Frozen,
    /// Reprieve can't decide, record or measure: closed by default.
    Unavailable,
}

/// The answer no, with what the agent gets to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What sort of no.
    pub kind: RefusalKind,
    /// The rule, by id.
    pub rule: String,
    /// Why, in words.
    pub reason: String,
    /// What may be done instead.
    pub remedy: String,
    /// The hold that waits, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<crate::HoldId>,
    /// What the operation reaches, where that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach: Option<Reach>,
}

impl Refusal {
    /// A refusal by `rule`.
    #[must_use]
    pub fn refused(rule: &str, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { kind: RefusalKind::Refused, rule: rule.to_owned(), reason: reason.into(), remedy: remedy.into(), hold: None, reach: None }
    }

    /// A refusal because something of ours is missing.
    #[must_use]
    pub fn unavailable(rule: &str, reason: impl Into<String>) -> Self {
        let remedy = "try again later; nothing was changed".to_owned();
        Self { kind: RefusalKind::Unavailable, rule: rule.to_owned(), reason: reason.into(), remedy, hold: None, reach: None }
    }

    /// A refusal while frozen.
    #[must_use]
    pub fn frozen(reason: impl Into<String>) -> Self {
        let remedy = "wait until an operator thaws it".to_owned();
        Self { kind: RefusalKind::Frozen, rule: "frozen".to_owned(), reason: reason.into(), remedy, hold: None, reach: None }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (rule `{}`)", self.reason, self.rule)
    }
}

impl std::error::Error for Refusal {}

/// A person's answer to a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It may run.
    Approve,
    /// It may not.
    Deny,
}
