//! State: the fold over events that a gateway keeps in memory, so that a decision touches no database.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    Action, AgentName, Answer, Digest, Effect, Environment, Event, HeldReason, HoldId, IntentId, Needs, OperatorName, Outcome, Parameters,
    Protocol, Reach, Recorded, RecoveryState, Role, Sample, Scope, ScramVerifier, SessionId, SystemName, Timestamp, TokenId, UndoId,
};

/// A token as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentState {
    /// The agent.
    pub agent: AgentName,
    /// Its current token.
    pub token: TokenId,
    /// The token's digest.
    pub digest: Digest,
    /// The token's SCRAM verifier.
    pub verifier: ScramVerifier,
    /// What it covers.
    pub scope: Arc<Scope>,
    /// The operator it acts for.
    pub on_behalf_of: Option<OperatorName>,
    /// From when on it is void.
    pub expires: Timestamp,
    /// The token it was narrowed from.
    pub parent: Option<TokenId>,
    /// Whether it is bait.
    pub decoy: bool,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// What the credential of a sign-in begins with that a provider vouched for. A passkey's is base64url, so it is never one of these.
pub const VOUCHED: &str = "oidc:";

/// An operator as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorState {
    /// Ed25519 public key, base64.
    pub public_key: String,
    /// The TOTP secret, sealed by the gateway's master key.
    pub sealed_totp: String,
    /// What they may do.
    #[serde(default)]
    pub role: Role,
    /// Passkeys for the console.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passkeys: Vec<PasskeyState>,
    /// The digests of recovery codes that were not used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recovery_codes: Vec<Digest>,
    /// Who they are at a provider of sign-ins, as of the last time: [`VOUCHED`], the issuer, `#`, and its name for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vouched: Option<String>,
}

impl OperatorState {
    /// Whether they have a key and a second factor for the terminal. Who was invited to the console only has neither.
    #[must_use]
    pub fn has_terminal(&self) -> bool {
        !self.public_key.is_empty()
    }
}

/// A passkey as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasskeyState {
    /// WebAuthn's credential id, base64url.
    pub credential: String,
    /// Its `SubjectPublicKeyInfo`, base64.
    pub public_key: String,
    /// What its owner calls it.
    pub label: String,
    /// Since when it counts.
    pub added: Timestamp,
}

/// An invitation that nobody has used yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitationState {
    /// The digest of its secret.
    pub digest: Digest,
    /// From when on it is void.
    pub expires: Timestamp,
    /// What they may do, where they are no operator yet.
    #[serde(default)]
    pub role: Role,
    /// Who invited; nobody for the very first.
    pub by: Option<OperatorName>,
}

/// Where a hold stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HoldStatus {
    /// Nobody has decided yet.
    Waiting,
    /// Enough people approved; it has not run.
    Approved,
    /// Enough people approved; it is carried out when its window ends, unless somebody cancels it.
    Scheduled,
    /// A person said no.
    Denied,
    /// Nobody answered in time: denied.
    Expired,
    /// Its one run has begun.
    Released,
    /// Its one run has ended.
    Finished,
}

/// A hold as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of `Event::HoldOpened`")]
pub struct HoldState {
    pub hold: HoldId,
    pub intent: IntentId,
    pub digest: Digest,
    pub agent: AgentName,
    pub token: TokenId,
    pub on_behalf_of: Option<OperatorName>,
    pub session: SessionId,
    pub system: SystemName,
    pub environment: Environment,
    pub protocol: Protocol,
    pub action: Action,
    pub text: String,
    pub parameters: Option<Parameters>,
    pub effects: Vec<Effect>,
    pub reach: Option<Reach>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
    pub reason: HeldReason,
    pub needs: Needs,
    pub confirm: String,
    pub opened: Timestamp,
    pub expires: Timestamp,
    /// Where it stands.
    pub status: HoldStatus,
    /// When it is carried out, once it is scheduled.
    #[serde(default)]
    pub due: Option<Timestamp>,
    /// Who answered what, and why.
    pub answers: Vec<(OperatorName, Answer, String)>,
    /// The result kept for the identical retry, until it is handed over.
    pub kept: Option<String>,
    /// Whether the kept result was handed over.
    pub delivered: bool,
    /// Whether its one run succeeded, once it has ended.
    pub succeeded: Option<bool>,
    /// The intent whose run spent the release.
    #[serde(default)]
    pub released_by: Option<IntentId>,
    /// The channels on which people were told of it, or could not be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notified: Vec<String>,
}

impl HoldState {
    /// What an approver signs: the operation, what it was measured to reach, and the answer. Anything else needs a new signature.
    #[must_use]
    pub fn digest_to_sign(&self, answer: Answer) -> Digest {
        let reach = serde_json::to_vec(&self.reach).unwrap_or_default();
        let answer: &[u8] = match answer {
            Answer::Approve => b"approve",
            Answer::Deny => b"deny",
        };
        Digest::of(&[b"reprieve/hold/v1", self.hold.to_string().as_bytes(), &self.digest.0, &reach, answer])
    }

    /// Operators whose approval counts, and whether the operator the agent acts for is among them.
    fn approvals(&self) -> (u32, bool) {
        let approving = self.answers.iter().filter(|(_, answer, _)| *answer == Answer::Approve);
        let own =
            self.answers.iter().any(|(operator, answer, _)| *answer == Answer::Approve && Some(operator) == self.on_behalf_of.as_ref());
        (u32::try_from(approving.count()).unwrap_or(u32::MAX), own)
    }

    /// Approvals that count as a fact: the operator on whose behalf the agent acts is never the only one.
    #[must_use]
    pub fn counted_approvals(&self) -> u32 {
        match self.approvals() {
            (1, true) => 0,
            (count, _) => count,
        }
    }

    /// Whether it still waits or may still run.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.status, HoldStatus::Waiting | HoldStatus::Approved | HoldStatus::Scheduled)
    }

    /// Whether it is over because nobody answered, or used, it in time. What is scheduled has its own time.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        matches!(self.status, HoldStatus::Waiting | HoldStatus::Approved) && self.expires <= now
    }

    /// Whether it may run now, as far as its own state tells.
    #[must_use]
    pub fn is_ready(&self, now: Timestamp) -> bool {
        match self.status {
            HoldStatus::Approved => true,
            HoldStatus::Scheduled => self.due.is_some_and(|due| due <= now),
            HoldStatus::Waiting | HoldStatus::Denied | HoldStatus::Expired | HoldStatus::Released | HoldStatus::Finished => false,
        }
    }

    /// How long it has waited in sight of everybody.
    #[must_use]
    pub fn delayed(&self, now: Timestamp) -> Duration {
        self.due.map_or(Duration::ZERO, |due| (now.since(Timestamp(0)) + self.needs.delay).saturating_sub(due.since(Timestamp(0))))
    }
}

/// An intent without an outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenIntent {
    /// Who.
    pub agent: AgentName,
    /// Where.
    pub system: SystemName,
    /// On which connection; none for an undo.
    pub session: Option<SessionId>,
    /// Since when.
    pub at: Timestamp,
}

/// An intent that ended, nobody knows how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostOutcome {
    /// What was meant.
    pub intent: OpenIntent,
    /// When that was written down.
    pub at: Timestamp,
}

/// Everything a gateway has to know to decide.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The next event's index.
    pub size: u64,
    /// Tokens by agent; an agent's newest token counts.
    pub agents: BTreeMap<AgentName, AgentState>,
    /// Operators.
    pub operators: BTreeMap<OperatorName, OperatorState>,
    /// Invitations that nobody has used yet, the newest for each operator.
    #[serde(default)]
    pub invitations: BTreeMap<OperatorName, InvitationState>,
    /// Whether everything is frozen.
    pub all_frozen: bool,
    /// Agents that are frozen.
    pub frozen: BTreeMap<AgentName, String>,
    /// Holds that are open, or whose result is kept, or that ended lately.
    pub holds: BTreeMap<HoldId, HoldState>,
    /// Intents without an outcome.
    pub open_intents: HashMap<IntentId, OpenIntent>,
    /// Intents whose outcome was lost, and that nobody has settled since. The oldest ones are given up where there are too many.
    pub unsettled: BTreeMap<IntentId, LostOutcome>,
    /// Open intents that run on an approval: their rows are not taken from the agent's budget.
    approved_intents: HashSet<IntentId>,
    /// What is known of each system's copies.
    #[serde(default)]
    pub recovery: BTreeMap<SystemName, RecoveryState>,
    /// The next numbers to hand out.
    pub next: Next,
    /// Rows changed by agent and minute of the last hour.
    rows: BTreeMap<AgentName, VecDeque<(u64, u64)>>,
}

/// The next numbers to hand out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "one number each")]
pub struct Next {
    pub hold: u64,
    pub intent: u64,
    pub session: u64,
    pub token: u64,
}

/// Lost outcomes that are remembered: each is one of a gateway that was killed. A change that is given up stays unknown.
const MOST_UNSETTLED: usize = 10_000;

/// Ended holds stay in memory this long, so that a retry hears what became of its hold.
const REMEMBER_ENDED: Duration = Duration::from_secs(72 * 3600);

impl State {
    /// Takes in one event. Events arrive in order and once each.
    pub fn apply(&mut self, recorded: &Recorded) {
        self.size = recorded.index + 1;
        let at = recorded.at;
        match &recorded.event {
            Event::TokenIssued { token, agent, digest, verifier, scope, on_behalf_of, expires, parent, decoy, by: _ } => {
                let state = AgentState {
                    agent: agent.clone(),
                    token: *token,
                    digest: *digest,
                    verifier: verifier.clone(),
                    scope: Arc::new(scope.clone()),
                    on_behalf_of: on_behalf_of.clone(),
                    expires: *expires,
                    parent: *parent,
                    decoy: *decoy,
                    revoked: false,
                };
                self.agents.insert(agent.clone(), state);
                self.next.token = self.next.token.max(token.0 + 1);
            }
            Event::TokenNarrowed { token, scope, by: _ } => {
                for state in self.agents.values_mut().filter(|state| state.token == *token) {
                    state.scope = Arc::new(scope.clone());
                }
            }
            Event::TokenRevoked { token, by: _ } => self.revoke(*token),
            Event::OperatorAdded { operator, public_key, sealed_totp, role, by: _ } => {
                let (public_key, sealed_totp) = (public_key.clone(), sealed_totp.clone());
                self.operators.insert(
                    operator.clone(),
                    OperatorState { public_key, sealed_totp, role: *role, passkeys: Vec::new(), recovery_codes: Vec::new(), vouched: None },
                );
            }
            Event::RoleGiven { operator, role, by: _ } => {
                if let Some(state) = self.operators.get_mut(operator) {
                    state.role = *role;
                }
            }
            Event::Invited { operator, digest, expires, role, by } => {
                let invitation = InvitationState { digest: *digest, expires: *expires, role: *role, by: by.clone() };
                self.invitations.insert(operator.clone(), invitation);
            }
            Event::RecoveryCodesMade { operator, digests } => {
                if let Some(state) = self.operators.get_mut(operator) {
                    state.recovery_codes.clone_from(digests);
                }
            }
            Event::PasskeyEnrolled { operator, credential, public_key, label, invitation } => {
                self.invitations.remove(operator);
                if let Some(state) = self.operators.get_mut(operator) {
                    state.recovery_codes.retain(|code| code != invitation);
                    let (credential, public_key, label) = (credential.clone(), public_key.clone(), label.clone());
                    state.passkeys.push(PasskeyState { credential, public_key, label, added: at });
                }
            }
            Event::PasskeyRemoved { operator, credential, by: _ } => {
                if let Some(state) = self.operators.get_mut(operator) {
                    state.passkeys.retain(|passkey| passkey.credential != *credential);
                }
            }
            Event::SignedIn { operator, credential, .. } => {
                if let Some(state) = self.operators.get_mut(operator).filter(|_| credential.starts_with(VOUCHED)) {
                    state.vouched = Some(credential.clone());
                }
            }
            Event::DecoyPresented { claimed, .. } => {
                self.frozen.insert(claimed.clone(), "presented a decoy token".to_owned());
            }
            Event::Frozen { agent: None, .. } => self.all_frozen = true,
            Event::Frozen { agent: Some(agent), reason, .. } => {
                self.frozen.insert(agent.clone(), reason.clone());
            }
            Event::Thawed { agent: None, .. } => self.all_frozen = false,
            Event::Thawed { agent: Some(agent), .. } => {
                self.frozen.remove(agent);
            }
            Event::SessionOpened { session, .. } => self.next.session = self.next.session.max(session.0 + 1),
            Event::Intent { intent, agent, system, session, .. } => {
                let open = OpenIntent { agent: agent.clone(), system: system.clone(), session: Some(*session), at };
                self.open_intents.insert(*intent, open);
                self.next.intent = self.next.intent.max(intent.0 + 1);
            }
            Event::UndoStarted { intent, agent, system, reverts, .. } => {
                // A kept result would tell the next one who asks that it is done.
                let undone = |intent: Option<IntentId>| intent.is_some_and(|intent| reverts.contains(&UndoId::from(intent)));
                self.holds.values_mut().filter(|hold| undone(hold.released_by)).for_each(|hold| hold.kept = None);
                let open = OpenIntent { agent: agent.clone(), system: system.clone(), session: None, at };
                self.open_intents.insert(*intent, open);
                self.approved_intents.insert(*intent);
                self.next.intent = self.next.intent.max(intent.0 + 1);
            }
            Event::Concluded { intent, agent, outcome, statements: _ } => {
                let open = self.open_intents.remove(intent);
                if let (Outcome::Unknown, Some(open)) = (outcome, open) {
                    self.unsettled.insert(*intent, LostOutcome { intent: open, at });
                    if self.unsettled.len() > MOST_UNSETTLED {
                        self.unsettled.pop_first();
                    }
                }
                // Its intent may have been refused by a full queue: the number is used all the same.
                self.next.intent = self.next.intent.max(intent.0 + 1);
                let approved = self.approved_intents.remove(intent);
                if let (Outcome::Done { reach, .. }, false) = (outcome, approved) {
                    self.count_rows(agent, reach.rows(), at);
                }
            }
            Event::Settled { intent, agent, reach, .. } => {
                self.unsettled.remove(intent);
                self.count_rows(agent, reach.rows(), at);
            }
            Event::HoldOpened { .. }
            | Event::HoldAnswered { .. }
            | Event::HoldExpired { .. }
            | Event::HoldCancelled { .. }
            | Event::HoldReleased { .. }
            | Event::HoldFinished { .. }
            | Event::Notified { .. }
            | Event::ResultDelivered { .. } => self.apply_to_hold(recorded),
            Event::Started { .. }
            | Event::Stopped
            | Event::PolicyActivated { .. }
            | Event::PolicyRejected { .. }
            | Event::CodeSpent { .. }
            | Event::SessionClosed { .. }
            | Event::SessionRefused { .. }
            | Event::Reads { .. }
            | Event::DefinitionsTaken { .. }
            | Event::DefinitionsPurged { .. }
            | Event::ImagesStored { .. }
            | Event::ImagesPurged { .. }
            | Event::CallKept { .. }
            | Event::ChannelClosed { .. }
            | Event::CallsPurged { .. }
            | Event::TextsKept { .. }
            | Event::TextsPurged { .. }
            | Event::ImagesSecured { .. }
            | Event::SecuredPurged { .. }
            | Event::Measured { .. }
            | Event::AsidePurged { .. }
            | Event::DrillStarted { .. }
            | Event::DrillRemedied { .. }
            | Event::CopiesPurged { .. }
            | Event::LedgerResumed { .. }
            | Event::RestoreStarted { .. }
            | Event::RestoreFinished { .. }
            | Event::Alarm { .. } => {}
            Event::BackupMade { system, .. }
            | Event::BackupMissing { system, .. }
            | Event::BackupFailed { system, .. }
            | Event::LogBroken { system, .. }
            | Event::DrillPassed { system, .. }
            | Event::DrillFailed { system, .. } => self.recovery.entry(system.clone()).or_default().apply(at, &recorded.event),
        }
    }

    fn apply_to_hold(&mut self, recorded: &Recorded) {
        if let Event::HoldOpened {
            hold,
            intent,
            digest,
            agent,
            token,
            on_behalf_of,
            session,
            system,
            environment,
            protocol,
            action,
            text,
            parameters,
            effects,
            reach,
            samples,
            reason,
            needs,
            confirm,
            expires,
        } = &recorded.event
        {
            self.next.hold = self.next.hold.max(hold.0 + 1);
            self.forget_ended(recorded.at);
            self.holds.insert(
                *hold,
                HoldState {
                    hold: *hold,
                    intent: *intent,
                    digest: *digest,
                    agent: agent.clone(),
                    token: *token,
                    on_behalf_of: on_behalf_of.clone(),
                    session: *session,
                    system: system.clone(),
                    environment: environment.clone(),
                    protocol: *protocol,
                    action: *action,
                    text: text.clone(),
                    parameters: parameters.clone(),
                    effects: effects.clone(),
                    reach: reach.clone(),
                    samples: samples.clone(),
                    reason: *reason,
                    needs: needs.clone(),
                    confirm: confirm.clone(),
                    opened: recorded.at,
                    expires: *expires,
                    status: HoldStatus::Waiting,
                    due: None,
                    answers: Vec::new(),
                    kept: None,
                    delivered: false,
                    succeeded: None,
                    released_by: None,
                    notified: Vec::new(),
                },
            );
            return;
        }
        if let Event::HoldReleased { intent, .. } = &recorded.event {
            self.approved_intents.insert(*intent);
        }
        let Some(hold) = recorded.event.hold().and_then(|hold| self.holds.get_mut(&hold)) else { return };
        match &recorded.event {
            Event::HoldAnswered { operator, answer, reason, .. } if hold.status == HoldStatus::Waiting => {
                hold.answers.push((operator.clone(), *answer, reason.clone()));
                match answer {
                    Answer::Deny => hold.status = HoldStatus::Denied,
                    Answer::Approve if hold.counted_approvals() < hold.needs.approvals => {}
                    Answer::Approve if hold.needs.delay.is_zero() => hold.status = HoldStatus::Approved,
                    Answer::Approve => {
                        hold.status = HoldStatus::Scheduled;
                        hold.due = Some(recorded.at.plus(hold.needs.delay));
                    }
                }
            }
            // One more person than it needs ends the window early, if the rules say so when it runs.
            Event::HoldAnswered { operator, answer: Answer::Approve, reason, .. } if hold.status == HoldStatus::Scheduled => {
                hold.answers.push((operator.clone(), Answer::Approve, reason.clone()));
                if hold.counted_approvals() > hold.needs.approvals {
                    hold.status = HoldStatus::Approved;
                }
            }
            Event::HoldCancelled { operator, reason, .. } if hold.is_open() => {
                hold.answers.push((operator.clone(), Answer::Deny, reason.clone()));
                hold.status = HoldStatus::Denied;
            }
            Event::HoldExpired { .. } if matches!(hold.status, HoldStatus::Waiting | HoldStatus::Approved) => {
                hold.status = HoldStatus::Expired
            }
            Event::HoldReleased { intent, .. } => {
                hold.status = HoldStatus::Released;
                hold.released_by = Some(*intent);
            }
            Event::HoldFinished { kept, succeeded, intent, .. } if hold.released_by == Some(*intent) => {
                hold.status = HoldStatus::Finished;
                hold.succeeded = Some(*succeeded);
                hold.kept.clone_from(kept);
            }
            Event::Notified { channel, .. } => hold.notified.push(channel.clone()),
            Event::ResultDelivered { .. } => {
                hold.delivered = true;
                hold.kept = None;
            }
            _ => {}
        }
    }

    /// A revoked token takes its children along.
    fn revoke(&mut self, token: TokenId) {
        let mut void = vec![token];
        while let Some(token) = void.pop() {
            for state in self.agents.values_mut() {
                if state.token == token {
                    state.revoked = true;
                } else if state.parent == Some(token) && !state.revoked {
                    state.revoked = true;
                    void.push(state.token);
                }
            }
        }
    }

    fn forget_ended(&mut self, now: Timestamp) {
        self.holds.retain(|_, hold| hold.is_open() || hold.status == HoldStatus::Released || now.since(hold.opened) < REMEMBER_ENDED);
    }

    fn count_rows(&mut self, agent: &AgentName, rows: u64, at: Timestamp) {
        if rows == 0 {
            return;
        }
        let minutes = self.rows.entry(agent.clone()).or_default();
        let minute = at.0 / 60_000;
        match minutes.back_mut() {
            Some((last, sum)) if *last == minute => *sum = sum.saturating_add(rows),
            _ => minutes.push_back((minute, rows)),
        }
        while minutes.front().is_some_and(|(first, _)| first + 60 < minute) {
            minutes.pop_front();
        }
    }

    /// Rows `agent` changed in the hour before `now`, to the minute.
    #[must_use]
    pub fn rows_this_hour(&self, agent: &AgentName, now: Timestamp) -> u64 {
        let minute = now.0 / 60_000;
        let rows = self.rows.get(agent).into_iter().flatten();
        rows.filter(|(at, _)| at + 60 >= minute).fold(0, |sum, (_, rows)| sum.saturating_add(*rows))
    }

    /// Why `agent` is frozen, if it is.
    #[must_use]
    pub fn frozen_because(&self, agent: &AgentName) -> Option<&str> {
        if self.all_frozen {
            return Some("all agents are frozen");
        }
        self.frozen.get(agent).map(String::as_str)
    }

    /// The newest hold for an identical operation that a retry may join or use.
    #[must_use]
    pub fn hold_for(&self, digest: &Digest) -> Option<&HoldState> {
        self.holds
            .values()
            .rev()
            .find(|hold| hold.digest == *digest && (hold.is_open() || hold.status == HoldStatus::Released || hold.kept.is_some()))
    }

    /// Holds of `agent` that wait for people.
    #[must_use]
    pub fn open_holds(&self, agent: &AgentName) -> usize {
        self.holds.values().filter(|hold| hold.agent == *agent && hold.is_open()).count()
    }
}
