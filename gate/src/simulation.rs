//! Simulation: what other rules would have said of what agents did, and how much of its rights an agent used.

use std::collections::BTreeMap;

use reprieve_operation::{AgentName, Environment, Kind, SystemName, Timestamp};
use serde::Serialize;

/// A rule's answer in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It passes.
    Allow,
    /// A person is asked.
    Hold,
    /// It is refused.
    Refuse,
}

impl Verdict {
    /// The answer as a word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Hold => "hold",
            Self::Refuse => "refuse",
        }
    }
}

/// An answer with its rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Said {
    /// The answer.
    pub verdict: Verdict,
    /// The rule that gave it.
    pub rule: String,
    /// Why, in the rule's words.
    pub reason: String,
}

impl Said {
    /// Another word, or the same by another rule; who permits makes no difference to an agent.
    #[must_use]
    pub fn differs(&self, other: &Self) -> bool {
        self.verdict != other.verdict || (self.verdict != Verdict::Allow && self.rule != other.rule)
    }
}

/// Operations that would be answered otherwise, all in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AnswerChange {
    /// Whose.
    pub agent: AgentName,
    /// Where.
    pub system: SystemName,
    /// In what environment.
    pub environment: Environment,
    /// What, literals redacted.
    pub text: String,
    /// How often.
    pub times: u64,
    /// The event that ended the first of them.
    pub first_event: u64,
    /// The event that ended the last.
    pub last_event: u64,
    /// When that was.
    pub newest: Timestamp,
    /// What today's rules say.
    pub from: Said,
    /// What the proposed ones say.
    pub to: Said,
}

/// What proposed rules would have said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Simulated {
    /// Recorded operations that were asked about.
    pub asked: u64,
    /// Of these, how many today's rules answer as they were answered then.
    pub as_recorded: u64,
    /// How many would be answered otherwise.
    pub changed: u64,
    /// How many of these are not listed.
    pub unlisted: u64,
    /// What could not be asked about, by reason.
    pub left_out: BTreeMap<String, u64>,
    /// In which ways: what would pass that does not first, then the most frequent.
    pub changes: Vec<AnswerChange>,
}

/// What an agent used of what its token gives it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct UsedRights {
    /// Operations that ran.
    pub operations: u64,
    /// Kinds that they were of.
    pub kinds: Vec<Kind>,
    /// Resources that they touched, as a token's patterns.
    pub resources: Vec<String>,
    /// Kinds that the token has and nothing needed.
    pub unused_kinds: Vec<Kind>,
    /// Systems that the token has and nothing reached.
    pub unused_systems: Vec<String>,
    /// Whether a token of what was used alone would be narrower.
    pub narrower: bool,
}
