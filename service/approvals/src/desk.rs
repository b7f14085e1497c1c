//! The desk: authenticates a command, then carries it out, one at a time.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rand::{RngCore as _, rngs::OsRng};
use reprieve_gate::{Audit, AuditError, Clock, Command, Desk, DeskAnswer, DeskError, Revert, SignedCommand};
use reprieve_operation::{AgentName, Environment, Event, OperatorName, OperatorState, Role, SystemName};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::time::timeout;

use crate::{
    ConsoleOrigin, OperatorKey, TotpSecret, attempts::Attempts, evidence::Evidence, freezing::FreezeKey, holds::GivenAnswer,
    operators::NewOperator, reception::Challenges, sessions::Sessions, tokens::Issue,
};

/// Seals a small value for the ledger. `None`: it can't.
pub type Seal = Arc<dyn Fn(&[u8]) -> Option<String> + Send + Sync>;
/// Opens what [`Seal`] made. `None`: it was sealed for another key, or changed.
pub type Unseal = Arc<dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync>;

/// No wait for the ledger, or for another command, is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What a desk has to be told.
pub struct DeskOptions {
    /// Seals second factors.
    pub seal: Seal,
    /// Opens them.
    pub unseal: Unseal,
    /// The SCRAM salt all tokens of this gateway share; at least 16 bytes.
    pub scram_salt: Vec<u8>,
    /// The protected systems and where they are.
    pub systems: Vec<(SystemName, Environment)>,
    /// Whoever shows this may freeze, and do nothing else: at least 16 characters, or empty to have none.
    pub freeze_key: String,
    /// Takes changes back; none where nothing can be undone.
    pub revert: Option<Arc<dyn Revert>>,
    /// Where browsers find the console: passkeys count there only.
    pub console: ConsoleOrigin,
}

/// Why a desk can't work with its options.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum OptionsError {
    /// The salt is short.
    #[error("the SCRAM salt has to be at least 16 bytes")]
    ShortSalt,
    /// The freeze key is short.
    #[error("the freeze key has to be at least 16 characters, or empty to have none")]
    ShortFreezeKey,
    /// Sealing and unsealing don't fit together.
    #[error("what the master key seals it does not open")]
    Sealing,
}

/// The operators' desk. See [`Desk`] for what it does.
pub struct ApprovalsDesk {
    pub(crate) audit: Arc<dyn Audit>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) seal: Seal,
    pub(crate) unseal: Unseal,
    pub(crate) scram_salt: Vec<u8>,
    pub(crate) systems: BTreeMap<SystemName, Environment>,
    pub(crate) freeze_key: Option<FreezeKey>,
    revert: Option<Arc<dyn Revert>>,
    /// Checked in place of an operator who doesn't exist, so that the time taken doesn't tell.
    pub(crate) stand_in: OperatorState,
    /// Where passkeys count.
    pub(crate) console: ConsoleOrigin,
    attempts: Mutex<Attempts>,
    sessions: Mutex<Sessions>,
    challenges: Mutex<Challenges>,
    /// One command at a time: what a command was checked against must still hold when its event is appended.
    turn: tokio::sync::Mutex<()>,
}

impl ApprovalsDesk {
    /// A desk over a ledger.
    pub fn new(audit: Arc<dyn Audit>, clock: Arc<dyn Clock>, options: DeskOptions) -> Result<Self, OptionsError> {
        let DeskOptions { seal, unseal, scram_salt, systems, freeze_key, revert, console } = options;
        if scram_salt.len() < 16 {
            return Err(OptionsError::ShortSalt);
        }
        let freeze_key = FreezeKey::new(&freeze_key)?;
        let nobody = TotpSecret::generate();
        let sealed_totp = seal(nobody.bytes()).ok_or(OptionsError::Sealing)?;
        if unseal(&sealed_totp).as_deref() != Some(nobody.bytes()) {
            return Err(OptionsError::Sealing);
        }
        let stand_in = OperatorState {
            public_key: OperatorKey::generate().public_key(),
            sealed_totp,
            role: Role::Viewer,
            passkeys: Vec::new(),
            recovery_codes: Vec::new(),
            vouched: None,
        };
        Ok(Self {
            audit,
            clock,
            seal,
            unseal,
            scram_salt,
            systems: systems.into_iter().collect(),
            freeze_key,
            revert,
            stand_in,
            console,
            attempts: Mutex::default(),
            sessions: Mutex::default(),
            challenges: Mutex::new(Challenges::new()),
            turn: tokio::sync::Mutex::default(),
        })
    }

    async fn carry_out(&self, signed: SignedCommand) -> Result<Value, DeskError> {
        let (command, evidence) = self.authenticate(&signed).await?;
        self.dispatch(command, signed.operator, evidence).await
    }

    /// Carries out a command of an operator who proved to be one. `evidence` is what is kept of the proof.
    pub(crate) async fn dispatch(&self, command: Command, by: OperatorName, evidence: Evidence) -> Result<Value, DeskError> {
        tracing::info!(operator = %by, command = name_of(&command), "operator's command");
        self.check_role(&command, &by)?;
        // Freezing waits for nobody.
        if let Command::Freeze { agent, reason } = command {
            return self.record_freeze(agent, by.to_string(), &reason).await;
        }
        // Putting back may take minutes; nobody else has to wait for that.
        if let Command::Undo { request, reason } = command {
            let revert = self.revert.as_ref().ok_or_else(|| DeskError::Invalid("nothing can be undone here".to_owned()))?;
            return revert.revert(request, by, checked_reason(&reason)?).await;
        }
        let _turn = self.turn().await?;
        // Once more: it may have become another while this waited.
        self.check_role(&command, &by)?;
        match command {
            Command::AddOperator { operator, public_key, totp_secret, role } => {
                self.add_operator(NewOperator { operator, public_key, totp_secret, role }, Some(by)).await
            }
            Command::GiveRole { operator, role } => self.give_role(operator, role, by).await,
            Command::Invite { operator, role } => self.invite(operator, role, by).await,
            Command::MakeRecoveryCodes {} => self.make_recovery_codes(by).await,
            Command::RemovePasskey { operator, credential } => self.remove_passkey(operator, credential, by).await,
            Command::IssueToken { agent, systems, allow, resources, rows_per_hour, on_behalf_of, expires_in_s, parent } => {
                let lifetime = Duration::from_secs(expires_in_s);
                self.issue(Issue { agent, systems, allow, resources, rows_per_hour, on_behalf_of, lifetime, parent }, by).await
            }
            Command::IssueDecoy { agent } => self.issue_decoy(agent, by).await,
            Command::Narrow { agent, allow, resources } => self.narrow(&agent, allow, resources, by).await,
            Command::Revoke { agent } => self.revoke(&agent, by).await,
            Command::Answer { hold, answer, confirm, reason, signed } => {
                self.answer(GivenAnswer { hold, answer, confirm, reason, signed }, by, evidence).await
            }
            Command::Undo { .. } | Command::Freeze { .. } => Err(DeskError::Invalid("not carried out in turn".to_owned())),
            Command::Thaw { agent, reason } => self.thaw(agent, by, &reason).await,
            Command::Restore { system, point, to, until, reason } => self.let_restore(system, [point, to, until], by, &reason).await,
            Command::RemedyDrill { system, remedy } => self.remedy_drill(system, &remedy, by).await,
        }
    }

    /// Whether an operator may give a command at all.
    pub(crate) fn check_role(&self, command: &Command, by: &OperatorName) -> Result<(), DeskError> {
        let role = self.audit.state().operators.get(by).map(|operator| operator.role);
        let needed = command.needs(by);
        match role {
            Some(role) if role >= needed => Ok(()),
            Some(role) => Err(DeskError::Forbidden(format!("`{by}` is {role}, and this takes at least {needed}"))),
            None => Err(DeskError::NotAuthenticated),
        }
    }

    /// Records that an operator has a copy restored. What does it is a process of theirs: it needs what opens copies, which
    /// the gateway hasn't.
    async fn let_restore(&self, system: SystemName, words: [String; 3], by: OperatorName, reason: &str) -> Result<Value, DeskError> {
        let reason = checked_reason(reason)?;
        if reason.is_empty() {
            return Err(DeskError::Invalid("restoring needs a reason".to_owned()));
        }
        if !self.systems.contains_key(&system) {
            return Err(DeskError::Invalid(format!("no system is called `{system}`")));
        }
        let [point, to, until] = words;
        let restore = format!("X-{:08x}", OsRng.next_u32());
        let (to, until) = (checked_reason(&to)?, checked_reason(&format!("{until}, from {point}"))?);
        let event = Event::RestoreStarted { system, restore: restore.clone(), to, until, operator: by, reason };
        self.append(event).await.map_err(|error| refused(error, "this restore is known already"))?;
        Ok(json!({ "restore": restore }))
    }

    /// Records what was done about the last drill that failed.
    async fn remedy_drill(&self, system: SystemName, remedy: &str, operator: OperatorName) -> Result<Value, DeskError> {
        let remedy = checked_reason(remedy)?;
        if remedy.is_empty() {
            return Err(DeskError::Invalid("say what was done".to_owned()));
        }
        let failed = self.audit.state().recovery.get(&system).and_then(|recovery| recovery.failed_drill.clone());
        let drill = failed.ok_or_else(|| DeskError::Invalid(format!("no drill of `{system}` failed")))?;
        let event = Event::DrillRemedied { system, drill: drill.clone(), remedy, operator };
        self.append(event).await.map_err(|error| refused(error, ""))?;
        Ok(json!({ "drill": drill }))
    }

    /// Waits until no other command is being carried out.
    pub(crate) async fn turn(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, DeskError> {
        let busy = |_| DeskError::Unavailable("another command takes too long: try again".to_owned());
        timeout(LONGEST_WAIT, self.turn.lock()).await.map_err(busy)
    }

    /// Appends an event and waits until it is durable.
    pub(crate) async fn append(&self, event: Event) -> Result<u64, AuditError> {
        let late = || AuditError::Unavailable { reason: "it took too long; whether the command was recorded is not known".to_owned() };
        timeout(LONGEST_WAIT, self.audit.append(event)).await.unwrap_or_else(|_| Err(late()))
    }

    /// Reports failed attempts, where that is due. Nobody waits for it.
    pub(crate) fn raise_alarms(&self) {
        let due = self.attempts().due_alarms(self.clock.now());
        for what in due {
            tracing::warn!(what, "failed attempts");
            drop(self.audit.append(Event::Alarm { what, agent: None }));
        }
    }

    pub(crate) fn attempts(&self) -> MutexGuard<'_, Attempts> {
        // Counters stay usable whatever happened while they were held.
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn challenges(&self) -> MutexGuard<'_, Challenges> {
        self.challenges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk for ApprovalsDesk {
    fn perform(&self, command: SignedCommand) -> DeskAnswer<'_> {
        Box::pin(self.carry_out(command))
    }

    fn freeze<'a>(&'a self, freeze_key: &'a str, agent: Option<AgentName>, reason: String) -> DeskAnswer<'a> {
        Box::pin(self.freeze_by_key(freeze_key, agent, reason))
    }
}

impl fmt::Debug for ApprovalsDesk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApprovalsDesk").field("systems", &self.systems).finish_non_exhaustive()
    }
}

/// What a ledger's refusal is to an operator. `taken` is said when another event with the same key came first.
pub(crate) fn refused(error: AuditError, taken: &str) -> DeskError {
    match error {
        AuditError::KeyTaken { .. } => DeskError::Invalid(taken.to_owned()),
        AuditError::Unavailable { .. } => DeskError::Unavailable(error.to_string()),
    }
}

/// A reason as it goes into the ledger and onto people's screens: short, and without control characters.
pub(crate) fn checked_reason(text: &str) -> Result<String, DeskError> {
    let text = text.trim();
    if text.chars().count() > 1_000 || text.chars().any(|c| c.is_control() && c != '\n') {
        return Err(DeskError::Invalid("a reason is at most 1,000 characters, none of them a control character".to_owned()));
    }
    Ok(text.to_owned())
}

/// Standard base64 of exactly `N` bytes.
pub(crate) fn decoded<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() > N * 2 + 4 {
        return None;
    }
    BASE64.decode(text).ok()?.try_into().ok()
}

/// One byte of the operating system's randomness.
pub(crate) fn random_byte() -> u8 {
    let mut byte = [0u8];
    OsRng.fill_bytes(&mut byte);
    byte[0]
}

/// Whether the name of an agent is an operator's, or the other way round: nobody may be taken for the other.
pub(crate) fn same_name(agent: &AgentName, operator: &OperatorName) -> bool {
    agent.as_str() == operator.as_str()
}

fn name_of(command: &Command) -> &'static str {
    match command {
        Command::AddOperator { .. } => "add_operator",
        Command::GiveRole { .. } => "give_role",
        Command::Invite { .. } => "invite",
        Command::MakeRecoveryCodes {} => "make recovery codes",
        Command::RemovePasskey { .. } => "remove_passkey",
        Command::IssueToken { .. } => "issue_token",
        Command::IssueDecoy { .. } => "issue_decoy",
        Command::Narrow { .. } => "narrow",
        Command::Revoke { .. } => "revoke",
        Command::Answer { .. } => "answer",
        Command::Undo { .. } => "undo",
        Command::Restore { .. } => "restore",
        Command::RemedyDrill { .. } => "remedy_drill",
        Command::Freeze { .. } => "freeze",
        Command::Thaw { .. } => "thaw",
    }
}

#[cfg(test)]
mod tests;
