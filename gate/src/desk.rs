//! The operators' desk: the commands a person may give, and the trait that carries them out.
//!
//! No agent credential is worth anything here, and no operator credential on an agent's surface. Every command is signed
//! with the operator's key and carries a fresh second factor; see `service/approvals` for the checks.

use std::{future::Future, pin::Pin};

use reprieve_operation::{AgentName, Answer, Digest, HoldId, Kind, OperatorName, Pattern, Role, SystemName, UndoId};
use serde::{Deserialize, Serialize};

/// What an operator may ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// A new operator; answers the key to enrol the second factor with.
    AddOperator {
        /// The new operator.
        operator: OperatorName,
        /// Their Ed25519 public key, base64.
        public_key: String,
        /// Their TOTP secret, base32.
        totp_secret: String,
        /// What they may do.
        #[serde(default)]
        role: Role,
    },
    /// Lets an operator do more, or less. An administrator stays.
    GiveRole {
        /// The operator.
        operator: OperatorName,
        /// What they may do.
        role: Role,
    },
    /// Invites an operator, new or not, to enrol a passkey. Answers `{"operator": …, "secret": …}`, once.
    Invite {
        /// The operator.
        operator: OperatorName,
        /// What a new one may do; who is one already keeps theirs.
        #[serde(default)]
        role: Role,
    },
    /// New recovery codes for whoever asks: each lets its owner enrol one passkey, and nothing else. Those before are void.
    /// Answers `{"operator": …, "codes": […]}`, once.
    MakeRecoveryCodes {},
    /// Makes a passkey worthless.
    RemovePasskey {
        /// Whose.
        operator: OperatorName,
        /// WebAuthn's credential id, base64url.
        credential: String,
    },
    /// A new agent, or a new token for one. Answers `{"token": …, "agent": …, "token_id": …}`.
    IssueToken {
        /// The agent.
        agent: AgentName,
        /// Systems; environments follow from them.
        systems: Vec<SystemName>,
        /// Kinds of operation.
        allow: Vec<Kind>,
        /// Resource patterns, `*` if empty.
        resources: Vec<Pattern>,
        /// Own limit of rows an hour.
        rows_per_hour: Option<u64>,
        /// The operator it acts for.
        on_behalf_of: Option<OperatorName>,
        /// Seconds until it is void.
        expires_in_s: u64,
        /// The agent whose token this one narrows.
        parent: Option<AgentName>,
    },
    /// A decoy token under the name of `agent`.
    IssueDecoy {
        /// The name the bait goes by.
        agent: AgentName,
    },
    /// Narrows an agent's token.
    Narrow {
        /// The agent.
        agent: AgentName,
        /// The kinds that stay.
        allow: Vec<Kind>,
        /// The resources that stay, all if empty.
        resources: Vec<Pattern>,
    },
    /// Makes an agent's token and its children void.
    Revoke {
        /// The agent.
        agent: AgentName,
    },
    /// Answers a hold.
    Answer {
        /// The hold.
        hold: HoldId,
        /// The answer.
        answer: Answer,
        /// The resource's name as the person typed it; needed to approve.
        confirm: Option<String>,
        /// Why.
        reason: String,
        /// What the person saw and signs: [`reprieve_operation::HoldState::digest_to_sign`].
        signed: Digest,
    },
    /// Takes changes back. Answers what was done, table by table.
    Undo {
        /// Which, and what is to happen with rows that others changed since.
        request: UndoRequest,
        /// Why.
        reason: String,
    },
    /// Has a copy restored into a new place. Answers `{"restore": …}`; whoever asked carries it out.
    Restore {
        /// Of which system.
        system: SystemName,
        /// The recovery point.
        point: String,
        /// Where to, in words.
        to: String,
        /// Up to where, in words.
        until: String,
        /// Why.
        reason: String,
    },
    /// Says what was done about a system's last failed drill. Answers `{"drill": …}`.
    RemedyDrill {
        /// The system.
        system: SystemName,
        /// What was done.
        remedy: String,
    },
    /// Freezes an agent, or all.
    Freeze {
        /// The agent; all if missing.
        agent: Option<AgentName>,
        /// Why.
        reason: String,
    },
    /// Thaws an agent, or all.
    Thaw {
        /// The agent; all if missing.
        agent: Option<AgentName>,
        /// Why.
        reason: String,
    },
}

impl Command {
    /// The role that it takes. Stopping is everybody's, and so are one's own passkeys.
    #[must_use]
    pub fn needs(&self, by: &OperatorName) -> Role {
        match self {
            Self::Freeze { .. } | Self::MakeRecoveryCodes {} => Role::Viewer,
            Self::Invite { operator, .. } | Self::RemovePasskey { operator, .. } if operator == by => Role::Viewer,
            Self::Answer { .. }
            | Self::Undo { .. }
            | Self::Thaw { .. }
            | Self::Narrow { .. }
            | Self::Revoke { .. }
            | Self::RemedyDrill { .. } => Role::Approver,
            Self::AddOperator { .. }
            | Self::GiveRole { .. }
            | Self::Invite { .. }
            | Self::RemovePasskey { .. }
            | Self::IssueToken { .. }
            | Self::IssueDecoy { .. }
            | Self::Restore { .. } => Role::Administrator,
        }
    }
}

/// What is to be taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoRequest {
    /// The changes, of one system; they are taken back as one, newest first.
    pub changes: Vec<UndoId>,
    /// What is to happen with rows that others changed since.
    #[serde(default)]
    pub choice: UndoChoice,
    /// Rows that stay as they are, whatever was chosen for the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<RowName>,
}

/// One row, as people name it: `public.orders:17`, with several columns of a key as PostgreSQL spells a row, `public.lines:17,2`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RowName {
    /// `schema.table`, or the table alone.
    pub table: String,
    /// Its key.
    pub key: String,
}

impl RowName {
    /// The longest name of a row.
    const LONGEST: usize = 500;
}

impl std::str::FromStr for RowName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((table, key)) if !table.is_empty() && !key.is_empty() && text.len() <= Self::LONGEST && !text.contains('\0') => {
                Ok(Self { table: table.to_owned(), key: key.to_owned() })
            }
            _ => Err(format!("`{}` names no row: write TABLE:KEY, such as public.orders:17", text.chars().take(80).collect::<String>())),
        }
    }
}

impl TryFrom<String> for RowName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<RowName> for String {
    fn from(name: RowName) -> Self {
        name.to_string()
    }
}

impl std::fmt::Display for RowName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.table, self.key)
    }
}

/// What is to happen with rows that somebody changed since.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UndoChoice {
    /// Nothing is undone.
    #[default]
    Stop,
    /// They stay as they are; the rest is undone.
    Theirs,
    /// They are overwritten.
    Ours,
}

impl UndoChoice {
    /// The choice in one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Theirs => "theirs",
            Self::Ours => "ours",
        }
    }
}

/// Takes changes back, for an operator who was authenticated.
pub trait Revert: Send + Sync {
    /// Puts back what the changes replaced, in one recorded transaction. Answers what was done.
    fn revert(&self, request: UndoRequest, by: OperatorName, reason: String) -> DeskAnswer<'_>;
}

/// A command as it comes over the wire. `signature` is Ed25519 over [`SignedCommand::message`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedCommand {
    /// Who.
    pub operator: OperatorName,
    /// The [`Command`] as JSON text, exactly as signed.
    pub command: String,
    /// Six digits of the second factor (RFC 6238). Each works once.
    pub code: String,
    /// Milliseconds since the Unix epoch; more than two minutes off is refused.
    pub issued_at: u64,
    /// Base64.
    pub signature: String,
}

impl SignedCommand {
    /// The bytes that are signed.
    #[must_use]
    pub fn message(operator: &OperatorName, command: &str, code: &str, issued_at: u64) -> [u8; 32] {
        Digest::of(&[b"reprieve/command/v1", operator.as_str().as_bytes(), command.as_bytes(), code.as_bytes(), &issued_at.to_be_bytes()]).0
    }
}

/// Why a command was not carried out.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum DeskError {
    /// The signature, the code or the time is wrong. Which one is not told.
    #[error("not authenticated: the key, the code or the clock is wrong")]
    NotAuthenticated,
    /// Too many failed attempts.
    #[error("too many failed attempts: try again in {seconds} s")]
    TooMany {
        /// How long.
        seconds: u64,
    },
    /// A rule forbids it.
    #[error("{0}")]
    Forbidden(String),
    /// The command makes no sense as things stand.
    #[error("{0}")]
    Invalid(String),
    /// The ledger is not there.
    #[error("{0}")]
    Unavailable(String),
}

/// Carries out operators' commands.
pub trait Desk: Send + Sync {
    /// Checks and carries out one command.
    fn perform(&self, command: SignedCommand) -> DeskAnswer<'_>;

    /// Freezes at once, for whoever can show the gateway's freeze key: stopping is cheap, going on is not.
    fn freeze<'a>(&'a self, freeze_key: &'a str, agent: Option<AgentName>, reason: String) -> DeskAnswer<'a>;
}

/// A command's answer: JSON for the one who asked.
pub type DeskAnswer<'a> = Pin<Box<dyn Future<Output = Result<serde_json::Value, DeskError>> + Send + 'a>>;
