//! Events: what is recorded. The gateway's whole state is a fold over them; see `state.rs`.

use serde::{Deserialize, Serialize};

use crate::{
    Action, AgentName, Answer, Digest, Effect, Environment, HoldId, IntentId, Kind, Needs, OperatorName, Parameters, Protocol, Reach,
    Refusal, Role, Sample, Scope, ScramVerifier, SessionId, SystemName, Timestamp, TokenId, UndoId,
};

/// An event with its place in the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// Its index, from 0 without gaps.
    pub index: u64,
    /// When it was appended.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
}

/// How an intent ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It ran and is final.
    Done {
        /// The server's word for it, e.g. `DELETE 3`.
        tag: String,
        /// What it was measured to reach.
        reach: Reach,
        /// The server's transaction id, where one was assigned: settles a crash.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        xid: Option<u64>,
    },
    /// The server itself said no; nothing was changed.
    Failed {
        /// The SQLSTATE or status.
        code: String,
    },
    /// Held, refused, frozen or unavailable; nothing was changed.
    Refused {
        /// The whole answer.
        refusal: Refusal,
    },
    /// Its client undid it, or went away before it was final.
    Abandoned,
    /// Reprieve stopped in between and could not find out.
    Unknown,
}

/// Why an operation is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldReason {
    /// By its text or an estimate, before it ran.
    Text,
    /// By what it was measured to do; it was rolled back.
    Measured,
}

/// Which of the two states of what a call changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// How things were before the call.
    Before,
    /// How the call left them.
    After,
}

/// Equal reads of one session, counted together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadTally {
    /// The statement, literals redacted, cut at 512 bytes.
    pub text: String,
    /// How often.
    pub count: u64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are named after the nouns they hold; each variant says what happened")]
pub enum Event {
    /// The gateway started.
    Started { version: String },
    /// The gateway stopped in good order.
    Stopped,
    /// A policy set came into force.
    PolicyActivated { digest: Digest, profile: String },
    /// A policy set was refused; the old one stays.
    PolicyRejected { reason: String },

    /// An operator may act from now on.
    OperatorAdded {
        operator: OperatorName,
        public_key: String,
        sealed_totp: String,
        #[serde(default)]
        role: Role,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<OperatorName>,
    },
    /// An operator may do more, or less, from now on.
    RoleGiven { operator: OperatorName, role: Role, by: OperatorName },
    /// Somebody may enrol a passkey as this operator: who knows the secret with this digest, once, and in time. A newer invitation
    /// replaces it.
    Invited {
        operator: OperatorName,
        digest: Digest,
        expires: Timestamp,
        /// What they may do, where they are no operator yet.
        #[serde(default)]
        role: Role,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<OperatorName>,
    },
    /// Codes with which an operator may enrol a passkey, as their digests. Those before are void.
    RecoveryCodesMade { operator: OperatorName, digests: Vec<Digest> },
    /// An operator may sign in and approve with a passkey from now on.
    PasskeyEnrolled {
        operator: OperatorName,
        /// WebAuthn's credential id, base64url.
        credential: String,
        /// Its `SubjectPublicKeyInfo`, base64.
        public_key: String,
        /// What its owner calls it.
        label: String,
        /// The invitation that was used up.
        invitation: Digest,
    },
    /// A passkey counts no more.
    PasskeyRemoved { operator: OperatorName, credential: String, by: OperatorName },
    /// An operator signed in to the console.
    SignedIn { operator: OperatorName, credential: String, peer: String },
    /// An operator proved a second factor; its code can't be used again.
    CodeSpent { operator: OperatorName, step: u64 },

    /// A token was issued, to a new agent or as an agent's new token.
    TokenIssued {
        token: TokenId,
        agent: AgentName,
        digest: Digest,
        verifier: ScramVerifier,
        scope: Scope,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        on_behalf_of: Option<OperatorName>,
        expires: Timestamp,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<TokenId>,
        decoy: bool,
        by: OperatorName,
    },
    /// A token's scope became narrower.
    TokenNarrowed { token: TokenId, scope: Scope, by: OperatorName },
    /// A token and its children are void.
    TokenRevoked { token: TokenId, by: OperatorName },
    /// A decoy was presented: whoever did is frozen.
    DecoyPresented { decoy: TokenId, claimed: AgentName, peer: String },
    /// Nothing more runs: for one agent, or for all.
    Frozen {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<AgentName>,
        by: String,
        reason: String,
    },
    /// Operations run again.
    Thawed {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<AgentName>,
        by: OperatorName,
        reason: String,
    },

    /// An agent's client connected.
    SessionOpened {
        session: SessionId,
        agent: AgentName,
        token: TokenId,
        system: SystemName,
        peer: String,
        /// The server's process that serves it, where there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        backend: Option<u32>,
    },
    /// It went away.
    SessionClosed { session: SessionId },
    /// A client was turned away at the door.
    SessionRefused { claimed: String, system: String, peer: String, reason: String },
    /// Reads of a session since its last such record.
    Reads { session: SessionId, agent: AgentName, system: SystemName, reads: Vec<ReadTally> },

    /// An agent wants to change something. Durable before the change is final.
    Intent {
        intent: IntentId,
        session: SessionId,
        agent: AgentName,
        token: TokenId,
        system: SystemName,
        environment: Environment,
        digest: Digest,
        /// Literals redacted.
        text: String,
        kinds: Vec<Kind>,
    },
    /// An operator wants changes taken back. Durable before anything is put back, and concluded as any intent.
    UndoStarted {
        intent: IntentId,
        /// The changes, newest first.
        reverts: Vec<UndoId>,
        /// The agent that made the newest of them.
        agent: AgentName,
        system: SystemName,
        environment: Environment,
        operator: OperatorName,
        /// What is to happen with rows that others changed since.
        choice: String,
        reason: String,
    },
    /// What a system's definitions were, kept in the vault. `from` is the ledger's size when taking them began: they show everything
    /// that was concluded before. `seen` says which transactions they show, as PostgreSQL spells a snapshot (table 9.75).
    DefinitionsTaken {
        system: SystemName,
        object: Digest,
        bytes: u64,
        from: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seen: Option<String>,
    },
    /// What definitions were was removed from the vault: no change can be taken back any more that would need it. `through` is the last
    /// event that recorded one of them; all before are gone too.
    DefinitionsPurged { system: SystemName, objects: u64, bytes: u64, through: u64 },
    /// What became of an intent whose outcome was lost, by what its transaction wrote down. No transaction: it changed no row that is
    /// kept. Unique for each intent.
    Settled {
        intent: IntentId,
        agent: AgentName,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        xid: Option<u64>,
        reach: Reach,
    },
    /// What an intent was measured to reach before it became final, and its transaction: settles a crash in between, where the rows
    /// alone don't tell what it was. Only where definitions change.
    Measured { intent: IntentId, agent: AgentName, xid: u64, reach: Reach },
    /// How it ended.
    Concluded {
        intent: IntentId,
        agent: AgentName,
        #[serde(flatten)]
        outcome: Outcome,
        /// Every statement of a transaction that changed something, literals redacted; empty where the intent says it all.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        statements: Vec<String>,
    },

    /// An operation waits for people.
    HoldOpened {
        hold: HoldId,
        intent: IntentId,
        digest: Digest,
        agent: AgentName,
        token: TokenId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        on_behalf_of: Option<OperatorName>,
        session: SessionId,
        system: SystemName,
        environment: Environment,
        protocol: Protocol,
        action: Action,
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parameters: Option<Parameters>,
        effects: Vec<Effect>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reach: Option<Reach>,
        /// A few of the rows it is about, masked.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        samples: Vec<Sample>,
        reason: HeldReason,
        needs: Needs,
        /// What an approver has to type.
        confirm: String,
        expires: Timestamp,
    },
    /// A person answered.
    HoldAnswered {
        hold: HoldId,
        operator: OperatorName,
        answer: Answer,
        reason: String,
        /// The operator's signature over what was shown, base64, and the digest it signs.
        signature: String,
        signed: Digest,
    },
    /// Nobody answered in time: denied.
    HoldExpired { hold: HoldId },
    /// A person took it back before it was carried out. Unique for each hold together with its release: one of both takes place.
    HoldCancelled {
        hold: HoldId,
        operator: OperatorName,
        reason: String,
        /// As with an answer.
        signature: String,
        signed: Digest,
    },
    /// The release was spent by one run. Unique for each hold.
    HoldReleased { hold: HoldId, intent: IntentId },
    /// The run ended; its result is kept for the identical retry where Reprieve ran it itself.
    HoldFinished {
        hold: HoldId,
        intent: IntentId,
        succeeded: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kept: Option<String>,
    },
    /// The kept result was handed over. Unique for each hold.
    ResultDelivered { hold: HoldId },
    /// People were told of a hold on a channel, or could not be. Unique for each hold and channel.
    Notified { hold: HoldId, channel: String, delivered: bool, attempts: u32, detail: String },

    /// Row images of finished transactions lie in the vault, outside of the database that they are of.
    ImagesStored {
        system: SystemName,
        /// Which vault.
        vault: Digest,
        /// Which database: another one behind the same name has transactions of its own.
        origin: String,
        object: Digest,
        plain_bytes: u64,
        stored_bytes: u64,
        /// The object's place among those of one look at the journal, from 0.
        part: u32,
        /// The lowest and the highest transaction in it.
        first: u64,
        last: u64,
        rows: u64,
        /// Up to where the journal is in the vault now: a snapshot, as PostgreSQL spells it. Only with the last part, without which
        /// the others count for nothing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        position: Option<String>,
    },
    /// Row images were removed from the vault: the time in which they could be asked for is over.
    ImagesPurged {
        system: SystemName,
        objects: u64,
        stored_bytes: u64,
        /// The last event that recorded one of them; all before are gone too.
        through: u64,
    },
    /// What a call to a service takes to be taken back lies in the vault: how things were, before the call was sent, and how it left
    /// them, afterwards. The newest of each for an intent counts.
    CallKept {
        intent: IntentId,
        agent: AgentName,
        system: SystemName,
        moment: Moment,
        /// What it changes.
        resource: String,
        object: Digest,
        plain_bytes: u64,
        stored_bytes: u64,
    },
    /// A channel that an intent opened is closed: why, how long it was open, and how much was said in it. Messages are counted where the
    /// protocol has them.
    ChannelClosed {
        intent: IntentId,
        agent: AgentName,
        system: SystemName,
        reason: String,
        open_ms: u64,
        sent_bytes: u64,
        received_bytes: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sent_messages: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        received_messages: Option<u64>,
    },
    /// It was removed from the vault: the time in which it could be asked for is over.
    /// Exact texts of what agents asked are in the vault, in one object. `sums` is the SHA-256 of a list of the texts' own; the object
    /// has that list.
    TextsKept {
        object: Digest,
        vault: Digest,
        first: IntentId,
        last: IntentId,
        texts: u64,
        sums: Digest,
        plain_bytes: u64,
        stored_bytes: u64,
    },
    /// Such objects were removed: their time was over. `through` is the last event that recorded one of them; all before are gone too.
    TextsPurged { objects: u64, stored_bytes: u64, through: u64 },
    CallsPurged {
        objects: u64,
        stored_bytes: u64,
        /// The last event that recorded one of them; all before are gone too.
        through: u64,
    },
    /// Row images of transactions that are not final yet lie in the vault: of a system whose changes wait for that. Whether they became
    /// final is not said here.
    ImagesSecured {
        system: SystemName,
        /// Which vault.
        vault: Digest,
        /// Which database.
        origin: String,
        object: Digest,
        plain_bytes: u64,
        stored_bytes: u64,
        transactions: Vec<u64>,
        rows: u64,
    },
    /// Such images were removed: their transactions have ended, and what became final is stored for good; or their time is over.
    SecuredPurged { system: SystemName, objects: Vec<Digest> },
    /// Tables that were set aside before they were dropped are gone for good: the time in which they could be asked for is over.
    AsidePurged { system: SystemName, tables: Vec<String> },

    /// A copy of a system lies in the vault, with a signed manifest.
    BackupMade {
        system: SystemName,
        /// The recovery point's name.
        point: String,
        /// Its manifest in the vault.
        manifest: Digest,
        /// When copying began: what was changed later may be missing.
        began: Timestamp,
        plain_bytes: u64,
        stored_bytes: u64,
        /// By which engine.
        engine: String,
    },
    /// A copy could not be made.
    BackupFailed { system: SystemName, reason: String },
    /// The newest copy is not in the vault, or the vault is another one: nothing that was proved counts until there is a new copy.
    BackupMissing { system: SystemName, point: String },
    /// The log that a system's copies are followed by has a hole, or goes on from somewhere else: no copy that began before this event is
    /// brought any further than `received`.
    LogBroken {
        system: SystemName,
        /// Why.
        reason: String,
        /// Up to where it was received: cluster, timeline and place.
        received: String,
        /// From where it is received anew.
        resumed: String,
        /// The folder with what was received.
        aside: String,
    },
    /// Recovery points whose time is over are removed from the vault, and the log that only they needed.
    CopiesPurged { system: SystemName, points: Vec<String>, objects: u64, stored_bytes: u64, log_files: u64 },
    /// The verifier began to restore a recovery point into a server of its own.
    DrillStarted { system: SystemName, drill: String, point: String },
    /// It came back and stood every check.
    DrillPassed {
        system: SystemName,
        drill: String,
        point: String,
        /// How much was proved, 0 to 5; see `docs/recovery.md`.
        level: u8,
        /// How old the newest that came back was, where that could be dated.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rpo_ms: Option<u64>,
        rto_ms: u64,
        /// The verifier's report as it signed it.
        note: String,
    },
    /// It did not come back, or a check failed.
    DrillFailed {
        system: SystemName,
        drill: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        point: Option<String>,
        reason: String,
        note: String,
    },
    /// What an operator says was done about a drill that failed. It proves nothing: only a drill that passes does.
    DrillRemedied { system: SystemName, drill: String, remedy: String, operator: OperatorName },
    /// An operator has a recovery point restored into a new place.
    RestoreStarted { system: SystemName, restore: String, to: String, until: String, operator: OperatorName, reason: String },
    /// What became of it.
    RestoreFinished { system: SystemName, restore: String, succeeded: bool, what: String },

    /// The ledger goes on after events of it were lost, or may have been: the gateway came back from a copy. `known` is how many events
    /// there had been by the newest checkpoint that was found elsewhere, kept here as evidence; `stored` is how many came back.
    LedgerResumed {
        known: u64,
        stored: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        checkpoint: Option<String>,
        reason: String,
    },

    /// A person must look.
    Alarm {
        what: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<AgentName>,
    },
}

impl Event {
    /// The variant's name as it is stored.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Stopped => "stopped",
            Self::PolicyActivated { .. } => "policy_activated",
            Self::PolicyRejected { .. } => "policy_rejected",
            Self::OperatorAdded { .. } => "operator_added",
            Self::RoleGiven { .. } => "role_given",
            Self::Invited { .. } => "invited",
            Self::RecoveryCodesMade { .. } => "recovery_codes_made",
            Self::PasskeyEnrolled { .. } => "passkey_enrolled",
            Self::PasskeyRemoved { .. } => "passkey_removed",
            Self::SignedIn { .. } => "signed_in",
            Self::CodeSpent { .. } => "code_spent",
            Self::TokenIssued { .. } => "token_issued",
            Self::TokenNarrowed { .. } => "token_narrowed",
            Self::TokenRevoked { .. } => "token_revoked",
            Self::DecoyPresented { .. } => "decoy_presented",
            Self::Frozen { .. } => "frozen",
            Self::Thawed { .. } => "thawed",
            Self::SessionOpened { .. } => "session_opened",
            Self::SessionClosed { .. } => "session_closed",
            Self::SessionRefused { .. } => "session_refused",
            Self::Reads { .. } => "reads",
            Self::Intent { .. } => "intent",
            Self::UndoStarted { .. } => "undo_started",
            Self::DefinitionsTaken { .. } => "definitions_taken",
            Self::DefinitionsPurged { .. } => "definitions_purged",
            Self::Settled { .. } => "settled",
            Self::Measured { .. } => "measured",
            Self::Concluded { .. } => "concluded",
            Self::HoldOpened { .. } => "hold_opened",
            Self::HoldAnswered { .. } => "hold_answered",
            Self::HoldExpired { .. } => "hold_expired",
            Self::HoldCancelled { .. } => "hold_cancelled",
            Self::HoldReleased { .. } => "hold_released",
            Self::HoldFinished { .. } => "hold_finished",
            Self::ResultDelivered { .. } => "result_delivered",
            Self::Notified { .. } => "notified",
            Self::ImagesStored { .. } => "images_stored",
            Self::ImagesPurged { .. } => "images_purged",
            Self::CallKept { .. } => "call_kept",
            Self::ChannelClosed { .. } => "channel_closed",
            Self::CallsPurged { .. } => "calls_purged",
            Self::TextsKept { .. } => "texts_kept",
            Self::TextsPurged { .. } => "texts_purged",
            Self::ImagesSecured { .. } => "images_secured",
            Self::SecuredPurged { .. } => "secured_purged",
            Self::AsidePurged { .. } => "aside_purged",
            Self::BackupMade { .. } => "backup_made",
            Self::BackupFailed { .. } => "backup_failed",
            Self::BackupMissing { .. } => "backup_missing",
            Self::LogBroken { .. } => "log_broken",
            Self::CopiesPurged { .. } => "copies_purged",
            Self::LedgerResumed { .. } => "ledger_resumed",
            Self::DrillStarted { .. } => "drill_started",
            Self::DrillPassed { .. } => "drill_passed",
            Self::DrillFailed { .. } => "drill_failed",
            Self::DrillRemedied { .. } => "drill_remedied",
            Self::RestoreStarted { .. } => "restore_started",
            Self::RestoreFinished { .. } => "restore_finished",
            Self::Alarm { .. } => "alarm",
        }
    }

    /// The key that may occur once in a ledger, for what must happen once.
    #[must_use]
    pub fn unique_key(&self) -> Option<String> {
        match self {
            Self::HoldReleased { hold, .. } | Self::HoldCancelled { hold, .. } => Some(format!("release:{hold}")),
            Self::ResultDelivered { hold } => Some(format!("delivered:{hold}")),
            Self::Notified { hold, channel, .. } => Some(format!("notified:{hold}:{channel}")),
            Self::HoldAnswered { hold, operator, .. } => Some(format!("answer:{hold}:{operator}")),
            Self::HoldExpired { hold } => Some(format!("expired:{hold}")),
            Self::CodeSpent { operator, step } => Some(format!("code:{operator}:{step}")),
            Self::Concluded { intent, .. } => Some(format!("concluded:{intent}")),
            Self::UndoStarted { intent, .. } => Some(format!("undo:{intent}")),
            Self::Settled { intent, .. } => Some(format!("settled:{intent}")),
            Self::ChannelClosed { intent, .. } => Some(format!("channel:{intent}")),
            Self::TokenIssued { token, .. } => Some(format!("token:{token}")),
            Self::OperatorAdded { operator, .. } => Some(format!("operator:{operator}")),
            Self::PasskeyEnrolled { invitation, .. } => Some(format!("invitation:{invitation}")),
            Self::BackupMade { point, .. } => Some(format!("backup:{point}")),
            Self::DrillStarted { drill, .. } => Some(format!("drill:{drill}")),
            Self::DrillPassed { drill, .. } | Self::DrillFailed { drill, .. } => Some(format!("drilled:{drill}")),
            Self::RestoreStarted { restore, .. } => Some(format!("restore:{restore}")),
            Self::RestoreFinished { restore, .. } => Some(format!("restored:{restore}")),
            Self::Started { .. }
            | Self::Stopped
            | Self::PolicyActivated { .. }
            | Self::PolicyRejected { .. }
            | Self::RoleGiven { .. }
            | Self::Invited { .. }
            | Self::RecoveryCodesMade { .. }
            | Self::PasskeyRemoved { .. }
            | Self::SignedIn { .. }
            | Self::TokenNarrowed { .. }
            | Self::TokenRevoked { .. }
            | Self::DecoyPresented { .. }
            | Self::Frozen { .. }
            | Self::Thawed { .. }
            | Self::SessionOpened { .. }
            | Self::SessionClosed { .. }
            | Self::SessionRefused { .. }
            | Self::Reads { .. }
            | Self::Intent { .. }
            | Self::DefinitionsTaken { .. }
            | Self::DefinitionsPurged { .. }
            | Self::HoldOpened { .. }
            | Self::HoldFinished { .. }
            | Self::ImagesStored { .. }
            | Self::ImagesPurged { .. }
            | Self::CallKept { .. }
            | Self::CallsPurged { .. }
            | Self::TextsKept { .. }
            | Self::TextsPurged { .. }
            | Self::ImagesSecured { .. }
            | Self::SecuredPurged { .. }
            | Self::Measured { .. }
            | Self::AsidePurged { .. }
            | Self::BackupFailed { .. }
            | Self::BackupMissing { .. }
            | Self::LogBroken { .. }
            | Self::CopiesPurged { .. }
            | Self::LedgerResumed { .. }
            | Self::DrillRemedied { .. }
            | Self::Alarm { .. } => None,
        }
    }

    /// The agent it is about, for searching.
    #[must_use]
    pub fn agent(&self) -> Option<&AgentName> {
        match self {
            Self::TokenIssued { agent, .. }
            | Self::SessionOpened { agent, .. }
            | Self::Reads { agent, .. }
            | Self::Intent { agent, .. }
            | Self::Concluded { agent, .. }
            | Self::Settled { agent, .. }
            | Self::Measured { agent, .. }
            | Self::UndoStarted { agent, .. }
            | Self::CallKept { agent, .. }
            | Self::ChannelClosed { agent, .. }
            | Self::HoldOpened { agent, .. }
            | Self::DecoyPresented { claimed: agent, .. } => Some(agent),
            Self::Frozen { agent, .. } | Self::Thawed { agent, .. } | Self::Alarm { agent, .. } => agent.as_ref(),
            Self::Started { .. }
            | Self::Stopped
            | Self::PolicyActivated { .. }
            | Self::PolicyRejected { .. }
            | Self::OperatorAdded { .. }
            | Self::RoleGiven { .. }
            | Self::Invited { .. }
            | Self::RecoveryCodesMade { .. }
            | Self::PasskeyEnrolled { .. }
            | Self::PasskeyRemoved { .. }
            | Self::SignedIn { .. }
            | Self::CodeSpent { .. }
            | Self::TokenNarrowed { .. }
            | Self::TokenRevoked { .. }
            | Self::SessionClosed { .. }
            | Self::SessionRefused { .. }
            | Self::DefinitionsTaken { .. }
            | Self::DefinitionsPurged { .. }
            | Self::HoldAnswered { .. }
            | Self::HoldExpired { .. }
            | Self::HoldCancelled { .. }
            | Self::HoldReleased { .. }
            | Self::HoldFinished { .. }
            | Self::ResultDelivered { .. }
            | Self::Notified { .. }
            | Self::ImagesStored { .. }
            | Self::ImagesPurged { .. }
            | Self::CallsPurged { .. }
            | Self::TextsKept { .. }
            | Self::TextsPurged { .. }
            | Self::ImagesSecured { .. }
            | Self::SecuredPurged { .. }
            | Self::AsidePurged { .. }
            | Self::BackupMade { .. }
            | Self::BackupFailed { .. }
            | Self::BackupMissing { .. }
            | Self::LogBroken { .. }
            | Self::CopiesPurged { .. }
            | Self::LedgerResumed { .. }
            | Self::DrillStarted { .. }
            | Self::DrillPassed { .. }
            | Self::DrillFailed { .. }
            | Self::DrillRemedied { .. }
            | Self::RestoreStarted { .. }
            | Self::RestoreFinished { .. } => None,
        }
    }

    /// The hold it is about, for searching.
    #[must_use]
    pub fn hold(&self) -> Option<HoldId> {
        match self {
            Self::HoldOpened { hold, .. }
            | Self::HoldAnswered { hold, .. }
            | Self::HoldExpired { hold }
            | Self::HoldCancelled { hold, .. }
            | Self::HoldReleased { hold, .. }
            | Self::HoldFinished { hold, .. }
            | Self::Notified { hold, .. }
            | Self::ResultDelivered { hold } => Some(*hold),
            _ => None,
        }
    }
}
