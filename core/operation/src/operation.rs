//! Operations: what an agent wants done, and where.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{AgentName, Digest, Effect, Environment, Kind, OperatorName, Reach, Scope, SessionId, SystemName, TokenId};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The agent.
    pub agent: AgentName,
    /// The token it presented.
    pub token: TokenId,
    /// The operator it acts for, who can't be its only approver.
    pub on_behalf_of: Option<OperatorName>,
    /// What the token covers.
    pub scope: Arc<Scope>,
}

/// Which wire the operation came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// PostgreSQL frontend/backend protocol 3.
    Postgres,
    /// HTTP/1.1 or HTTP/2, whatever the service speaks over it.
    Http,
}

/// Bound parameters of a prepared statement, exactly as the client sent them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Parameters {
    /// One format code for each value: 0 text, 1 binary.
    pub formats: Vec<i16>,
    /// The values; `None` is NULL.
    pub values: Vec<Option<Vec<u8>>>,
}

/// Whether the operation stands alone or closes a transaction that its client opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// One statement or script with its own transaction. It can be run again by itself.
    SelfContained,
    /// One statement inside the client's transaction, or one that depends on its session.
    InSession,
    /// The COMMIT of the client's transaction: the whole of what was done in it.
    Commit,
}

/// What an agent wants done, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Who asks.
    pub principal: Principal,
    /// On which client connection.
    pub session: SessionId,
    /// Where.
    pub system: SystemName,
    /// The system's environment.
    pub environment: Environment,
    /// By which wire.
    pub protocol: Protocol,
    /// The exact text; for a commit, the transaction's statements, one a line.
    pub text: Arc<str>,
    /// The text as it is recorded: without its literals.
    pub redacted: Arc<str>,
    /// What an approval is bound to, where that is less than the whole text: values that steer nothing are left open.
    pub bound: Option<Arc<str>>,
    /// Bound parameters, where there are some.
    pub parameters: Option<Parameters>,
    /// Whether it stands alone.
    pub action: Action,
    /// What the text says it touches, the first opinion.
    pub effects: Arc<[Effect]>,
    /// Rows of a client's transaction that are known not to be its largest statement's; none where it is one statement.
    pub rows_apart: u64,
    /// What it was measured or estimated to reach, once that is known.
    pub reach: Option<Reach>,
}

impl Operation {
    /// Identifies an identical retry: the same agent, system, text and parameters. The session is left out on purpose.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let parameters = self.parameters.as_ref().map(|parameters| serde_json::to_vec(parameters).unwrap_or_default()).unwrap_or_default();
        let action: &[u8] = match self.action {
            Action::SelfContained | Action::InSession => b"statement",
            Action::Commit => b"commit",
        };
        let (action, text) = self.bound.as_ref().map_or((action, &self.text), |bound| (b"bound", bound));
        Digest::of(&[self.principal.agent.as_str().as_bytes(), self.system.as_str().as_bytes(), action, text.as_bytes(), &parameters])
    }

    /// The kinds of everything it is known to do: by its text, and by its reach where that was measured.
    #[must_use]
    pub fn kinds(&self) -> std::collections::BTreeSet<Kind> {
        let mut kinds: std::collections::BTreeSet<Kind> = self.effects.iter().map(Effect::kind).collect();
        if let Some(reach) = &self.reach {
            if reach.deleted() > 0 || !reach.dropped.is_empty() || !reach.rewritten.is_empty() {
                kinds.insert(Kind::Destroy);
            }
            if reach.tables.values().any(|rows| rows.inserted > 0 || rows.updated > 0) {
                kinds.insert(Kind::Write);
            }
            if !reach.escapes.is_empty() {
                kinds.insert(Kind::Escape);
            }
            if grants(reach) {
                kinds.insert(Kind::Grant);
            } else if reach.touches_catalogs() && reach.dropped.is_empty() && reach.rewritten.is_empty() {
                kinds.insert(Kind::Write);
            }
        }
        kinds
    }

    /// Whether it may change anything, as far as its text tells.
    #[must_use]
    pub fn may_change(&self) -> bool {
        self.effects.iter().any(|effect| match effect {
            Effect::Read { .. } | Effect::Session { .. } => false,
            Effect::Invoke { .. } => effect.kind() != Kind::Read,
            _ => true,
        })
    }
}

/// Whether roles, memberships, per-role settings or default privileges were written: catalogs that nothing but a change of
/// privileges touches (PostgreSQL 15, chapter 53).
fn grants(reach: &Reach) -> bool {
    const CATALOGS: [&str; 7] =
        ["privileges", "pg_authid", "pg_auth_members", "pg_db_role_setting", "pg_default_acl", "pg_parameter_acl", "pg_policy"];
    CATALOGS.iter().any(|catalog| reach.catalogs.get(*catalog).is_some_and(|rows| *rows > 0))
}
