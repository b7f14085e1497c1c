//! The reception: invitations, passkeys, signing in.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64URL},
};
use hmac::{Hmac, Mac as _};
use rand::{RngCore as _, rngs::OsRng};
use reprieve_gate::{Answering, DeskError, Invited, NewPasskey, Reception, SignIn, SignedIn, SignedOn, Vouched};
use reprieve_operation::{Digest, Event, InvitationState, OperatorName, OperatorState, Role, State, Timestamp, VOUCHED};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::{
    ApprovalsDesk,
    attempts::{Failure, Rebuff},
    desk::refused,
    operators::check_name,
    passkey::{check, check_new},
    sessions::{random_code, random_text},
};

/// How many recovery codes an operator has.
const RECOVERY_CODES: usize = 8;

/// How long an invitation that an operator gave lasts, and how long the first one.
const INVITATION_LASTS: Duration = Duration::from_secs(24 * 3_600);
const FIRST_INVITATION_LASTS: Duration = Duration::from_secs(3_600);
const CHALLENGE_LASTS: Duration = Duration::from_secs(300);
const MOST_PASSKEYS: usize = 8;
const LONGEST_LABEL: usize = 60;
/// Failed attempts of one address in a minute that are answered as such.
const FREE_FAILURES: u32 = 10;
const MOST_ADDRESSES: usize = 1_024;

/// Challenges to sign in with need no memory until one is used: they carry their time and our mark.
pub(crate) struct Challenges {
    key: [u8; 32],
    /// Used ones, until they would be too old anyway. Only who has a passkey adds one.
    used: HashMap<[u8; 16], Timestamp>,
    failures: HashMap<IpAddr, (Timestamp, u32)>,
}

impl Challenges {
    pub(crate) fn new() -> Self {
        let mut key = [0; 32];
        OsRng.fill_bytes(&mut key);
        Self { key, used: HashMap::new(), failures: HashMap::new() }
    }

    fn mark(&self, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(body);
        mac
    }

    fn make(&self, now: Timestamp) -> String {
        let mut body = [0u8; 24];
        body[..8].copy_from_slice(&now.0.to_be_bytes());
        OsRng.fill_bytes(&mut body[8..]);
        let mut challenge = body.to_vec();
        challenge.extend_from_slice(&self.mark(&body).finalize().into_bytes());
        BASE64URL.encode(challenge)
    }

    /// Whether it is ours, young and unused.
    fn is_good(&self, challenge: &[u8], now: Timestamp) -> bool {
        let Some((body, mark)) = challenge.split_at_checked(24) else { return false };
        let made = Timestamp(u64::from_be_bytes(body[..8].try_into().unwrap_or_default()));
        let young = made <= now && now.since(made) <= CHALLENGE_LASTS;
        self.mark(body).verify_slice(mark).is_ok() && young && !self.used.contains_key(&number_of(challenge))
    }

    /// Uses it up; `false` if another was faster.
    fn spend(&mut self, challenge: &[u8], now: Timestamp) -> bool {
        self.used.retain(|_, used| now.since(*used) <= CHALLENGE_LASTS);
        self.used.insert(number_of(challenge), now).is_none()
    }

    /// Counts a failure of an address; answers for how long it hears nothing else. Whoever has a passkey is not kept out by it.
    fn fail(&mut self, peer: IpAddr, now: Timestamp) -> Option<u64> {
        const MINUTE: Duration = Duration::from_secs(60);
        self.failures.retain(|_, (since, _)| now.since(*since) < MINUTE);
        if self.failures.len() >= MOST_ADDRESSES && !self.failures.contains_key(&peer) {
            self.failures.clear();
        }
        let (since, count) = self.failures.entry(peer).or_insert((now, 0));
        *count = count.saturating_add(1);
        (*count > FREE_FAILURES).then(|| MINUTE.saturating_sub(now.since(*since)).as_secs().max(1))
    }
}

/// What tells challenges apart.
fn number_of(challenge: &[u8]) -> [u8; 16] {
    challenge.get(8..24).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default()
}

impl ApprovalsDesk {
    /// Invites whoever may come first: where no operator has a passkey, the one operator there is. Answers who, and the secret; nothing
    /// where that is not so. The operator's second factor is asked for besides.
    pub async fn first_invitation(&self) -> Result<Option<(OperatorName, String)>, DeskError> {
        let _turn = self.turn().await?;
        let operator = {
            let state = self.audit.state();
            let nobody = state.operators.values().all(|operator| operator.passkeys.is_empty());
            let mut with_terminal = state.operators.iter().filter(|(_, operator)| operator.has_terminal()).map(|(name, _)| name.clone());
            with_terminal.next().filter(|_| nobody)
        };
        let Some(operator) = operator else { return Ok(None) };
        let secret = self.record_invitation(operator.clone(), Role::Administrator, None, FIRST_INVITATION_LASTS).await?;
        Ok(Some((operator, secret)))
    }

    /// Invites an operator. A new one, or oneself: nobody can enrol a passkey as somebody else, because two approvals mean two people.
    pub(crate) async fn invite(&self, operator: OperatorName, role: Role, by: OperatorName) -> Result<Value, DeskError> {
        {
            let state = self.audit.state();
            match state.operators.get(&operator) {
                None => drop(check_name(&state, &operator)?),
                Some(entry) if operator != by && !entry.has_terminal() => {
                    let text = format!("`{operator}` is an operator already: only they invite themselves to another passkey");
                    return Err(DeskError::Forbidden(text));
                }
                Some(_) => {}
            }
        }
        let secret = self.record_invitation(operator.clone(), role, Some(by), INVITATION_LASTS).await?;
        Ok(json!({ "operator": operator, "secret": secret, "path": format!("/enrol#{secret}") }))
    }

    async fn record_invitation(
        &self,
        operator: OperatorName,
        role: Role,
        by: Option<OperatorName>,
        lasts: Duration,
    ) -> Result<String, DeskError> {
        let secret = random_text();
        let event = Event::Invited { operator, digest: invitation_digest(&secret), expires: self.clock.now().plus(lasts), role, by };
        self.append(event).await.map_err(|error| refused(error, ""))?;
        Ok(secret)
    }

    /// Codes to print and lock away: who has lost every passkey enrols another with one of them. Each is worth an invitation to that
    /// operator alone, so it takes the second factor of the terminal as well, where they have one, and approves nothing.
    pub(crate) async fn make_recovery_codes(&self, by: OperatorName) -> Result<Value, DeskError> {
        let codes: Vec<String> = (0..RECOVERY_CODES).map(|_| random_code()).collect();
        let digests = codes.iter().map(|code| invitation_digest(code)).collect();
        let event = Event::RecoveryCodesMade { operator: by.clone(), digests };
        self.append(event).await.map_err(|error| refused(error, ""))?;
        Ok(json!({ "operator": by, "codes": codes }))
    }

    pub(crate) async fn remove_passkey(&self, operator: OperatorName, credential: String, by: OperatorName) -> Result<Value, DeskError> {
        {
            let state = self.audit.state();
            let known = state.operators.get(&operator).is_some_and(|entry| entry.passkeys.iter().any(|key| key.credential == credential));
            if !known {
                return Err(DeskError::Invalid(format!("`{operator}` has no such passkey")));
            }
        }
        let event = Event::PasskeyRemoved { operator: operator.clone(), credential: credential.clone(), by };
        self.append(event).await.map_err(|error| refused(error, ""))?;
        self.sessions().end_of_passkey(&credential);
        Ok(json!({ "operator": operator, "removed": credential }))
    }

    fn find_invitation(&self, secret: &str) -> Result<(OperatorName, InvitationState, Option<OperatorState>), DeskError> {
        let digest = invitation_digest(secret);
        let state = self.audit.state();
        if let Some((operator, known)) = state.operators.iter().find(|(_, entry)| entry.recovery_codes.contains(&digest)) {
            let (expires, by) = (Timestamp(u64::MAX), Some(operator.clone()));
            return Ok((operator.clone(), InvitationState { digest, expires, role: known.role, by }, Some(known.clone())));
        }
        let found = state.invitations.iter().find(|(_, entry)| entry.digest == digest && self.clock.now() < entry.expires);
        let Some((operator, entry)) = found else {
            return Err(DeskError::Invalid("the invitation was used, replaced, or is over: ask for another".to_owned()));
        };
        Ok((operator.clone(), entry.clone(), state.operators.get(operator).cloned()))
    }

    async fn enrol_passkey(&self, secret: &str, code: Option<&str>, passkey: NewPasskey) -> Result<OperatorName, DeskError> {
        let _turn = self.turn().await?;
        let (operator, invitation, known) = self.find_invitation(secret)?;
        let wrong = |error: crate::passkey::PasskeyError| DeskError::Invalid(format!("the passkey was not taken: {error}"));
        let key = check_new(&passkey, &enrolment_challenge(secret), &self.console).map_err(wrong)?;
        let label = checked_label(&passkey.label)?;
        check_unknown(&self.audit.state(), &operator, &passkey.credential)?;
        match &known {
            Some(entry) if entry.has_terminal() => self.check_code(&operator, entry, code.unwrap_or_default()).await?,
            Some(_) => {}
            None => {
                check_name(&self.audit.state(), &operator)?;
                let (public_key, sealed_totp) = (String::new(), String::new());
                let event =
                    Event::OperatorAdded { operator: operator.clone(), public_key, sealed_totp, role: invitation.role, by: invitation.by };
                self.append(event).await.map_err(|error| refused(error, "an operator's name is never given twice"))?;
            }
        }
        let (credential, public_key, digest) = (passkey.credential, BASE64.encode(key), invitation.digest);
        let event = Event::PasskeyEnrolled { operator: operator.clone(), credential, public_key, label, invitation: digest };
        self.append(event).await.map_err(|error| refused(error, "the invitation was used already"))?;
        if known.is_some_and(|known| known.recovery_codes.contains(&digest)) {
            let what = format!("a recovery code of {operator} was used to enrol a passkey");
            self.append(Event::Alarm { what, agent: None }).await.map_err(|error| refused(error, ""))?;
        }
        tracing::info!(%operator, "a passkey was enrolled");
        Ok(operator)
    }

    /// A code of the terminal's second factor, which is spent.
    async fn check_code(&self, operator: &OperatorName, entry: &OperatorState, code: &str) -> Result<(), DeskError> {
        let now = self.clock.now();
        if let Some(seconds) = self.attempts().locked_out(operator, now) {
            return Err(DeskError::TooMany { seconds });
        }
        let step = self.second_factor(entry).and_then(|secret| secret.matching_step(code, now));
        let spent = match step {
            Some(step) => self.spend(operator, step, now).await.is_ok(),
            None => false,
        };
        if spent {
            return Ok(());
        }
        let rebuff = self.attempts().fail(operator, true, Failure::Guessed, now);
        self.raise_alarms();
        match rebuff {
            Rebuff::No => Err(DeskError::NotAuthenticated),
            Rebuff::Wait(seconds) => Err(DeskError::TooMany { seconds }),
        }
    }

    async fn begin_session(&self, sign_in: SignIn, browser: &str, peer: IpAddr) -> Result<SignedOn, DeskError> {
        let now = self.clock.now();
        let Some(operator) = self.who_signs(&sign_in, now) else {
            let wait = self.challenges().fail(peer, now);
            self.attempts().note("sign in to the console".to_owned());
            self.raise_alarms();
            return Err(wait.map_or(DeskError::NotAuthenticated, |seconds| DeskError::TooMany { seconds }));
        };
        let credential = sign_in.assertion.credential;
        let event = Event::SignedIn { operator: operator.clone(), credential: credential.clone(), peer: peer.to_string() };
        self.append(event).await.map_err(|error| refused(error, ""))?;
        let secret = self.sessions().begin(operator.clone(), credential, browser, now);
        Ok(SignedOn { secret, operator })
    }

    /// A session without a passkey: what it may do without one is to look, to deny and to freeze.
    async fn begin_vouched(&self, vouched: Vouched, browser: &str, peer: IpAddr) -> Result<SignedOn, DeskError> {
        let Vouched { operator, evidence, is_named } = vouched;
        let _turn = self.turn().await?;
        let (is_operator, is_somebody_else) = {
            let state = self.audit.state();
            let others = state.operators.iter().any(|(name, entry)| *name != operator && entry.vouched.as_ref() == Some(&evidence));
            let before = state.operators.get(&operator).and_then(|entry| entry.vouched.as_ref());
            (state.operators.contains_key(&operator), others || before.is_some_and(|before| *before != evidence) && !is_named)
        };
        if !is_operator || !evidence.starts_with(VOUCHED) {
            tracing::info!(%operator, "a provider vouches for somebody who is no operator");
            return Err(DeskError::NotAuthenticated);
        }
        // An address was given to somebody else, or one person is to be two operators: two approvals would not mean two people.
        if is_somebody_else {
            tracing::warn!(%operator, "a provider vouches for an operator under another name than before");
            self.attempts().note(format!("sign in as operator `{operator}` by another account of the provider"));
            self.raise_alarms();
            let text = "another account of the provider is linked to this operator, or this account to another one; an administrator can name \
                        it in the settings";
            return Err(DeskError::Forbidden(text.to_owned()));
        }
        let event = Event::SignedIn { operator: operator.clone(), credential: evidence.clone(), peer: peer.to_string() };
        self.append(event).await.map_err(|error| refused(error, ""))?;
        let secret = self.sessions().begin(operator.clone(), evidence, browser, self.clock.now());
        Ok(SignedOn { secret, operator })
    }

    fn who_signs(&self, sign_in: &SignIn, now: Timestamp) -> Option<OperatorName> {
        let challenge = BASE64URL.decode(&sign_in.challenge).ok()?;
        if !self.challenges().is_good(&challenge, now) {
            return None;
        }
        let (operator, public_key) = self.passkey(&sign_in.assertion.credential)?;
        let checked = check(&sign_in.assertion, &public_key, &challenge, &self.console);
        if let Err(error) = &checked {
            tracing::info!(%operator, %error, "a passkey did not open the console");
        }
        (checked.is_ok() && self.challenges().spend(&challenge, now)).then_some(operator)
    }

    /// Whose passkey it is, and its public key.
    pub(crate) fn passkey(&self, credential: &str) -> Option<(OperatorName, Vec<u8>)> {
        let state = self.audit.state();
        let mut all = state.operators.iter().flat_map(|(name, entry)| entry.passkeys.iter().map(move |key| (name, key)));
        let (name, key) = all.find(|(_, key)| key.credential == credential)?;
        Some((name.clone(), BASE64.decode(&key.public_key).ok()?))
    }
}

impl Reception for ApprovalsDesk {
    fn invited(&self, secret: &str) -> Result<Invited, DeskError> {
        let (operator, invitation, known) = self.find_invitation(secret)?;
        Ok(Invited {
            operator,
            needs_code: known.as_ref().is_some_and(OperatorState::has_terminal),
            challenge: BASE64URL.encode(enrolment_challenge(secret)),
            exclude: known.map(|entry| entry.passkeys.into_iter().map(|key| key.credential).collect()).unwrap_or_default(),
            expires: invitation.expires,
        })
    }

    fn enrol<'a>(&'a self, secret: &'a str, code: Option<&'a str>, passkey: NewPasskey) -> Answering<'a, OperatorName> {
        Box::pin(self.enrol_passkey(secret, code, passkey))
    }

    fn challenge(&self) -> String {
        self.challenges().make(self.clock.now())
    }

    fn sign_in<'a>(&'a self, sign_in: SignIn, browser: &'a str, peer: IpAddr) -> Answering<'a, SignedOn> {
        Box::pin(self.begin_session(sign_in, browser, peer))
    }

    fn admit<'a>(&'a self, vouched: Vouched, browser: &'a str, peer: IpAddr) -> Answering<'a, SignedOn> {
        Box::pin(self.begin_vouched(vouched, browser, peer))
    }

    fn session(&self, secret: &str, browser: &str) -> Option<SignedIn> {
        let (who, credential) = self.sessions().find(secret, browser, self.clock.now())?;
        if credential.starts_with(VOUCHED) {
            return self.audit.state().operators.contains_key(&who.operator).then_some(who);
        }
        // Another gateway may have removed the passkey.
        self.passkey(&credential).is_some_and(|(operator, _)| operator == who.operator).then_some(who)
    }

    fn sign_out(&self, session: &Digest) {
        self.sessions().end(session);
    }
}

fn invitation_digest(secret: &str) -> Digest {
    Digest::of(&[b"reprieve/invitation/v1", secret.as_bytes()])
}

/// Follows from the secret, which is used once: nothing has to be kept for it.
fn enrolment_challenge(secret: &str) -> [u8; 32] {
    Digest::of(&[b"reprieve/enrolment/v1", secret.as_bytes()]).0
}

fn checked_label(label: &str) -> Result<String, DeskError> {
    let label = label.trim();
    if label.is_empty() || label.chars().count() > LONGEST_LABEL || label.chars().any(char::is_control) {
        return Err(DeskError::Invalid("a passkey's name has 1 to 60 characters, none of them a control character".to_owned()));
    }
    Ok(label.to_owned())
}

fn check_unknown(state: &State, operator: &OperatorName, credential: &str) -> Result<(), DeskError> {
    if state.operators.values().any(|entry| entry.passkeys.iter().any(|key| key.credential == credential)) {
        return Err(DeskError::Invalid("this passkey is enrolled already".to_owned()));
    }
    if state.operators.get(operator).is_some_and(|entry| entry.passkeys.len() >= MOST_PASSKEYS) {
        return Err(DeskError::Invalid(format!("an operator has at most {MOST_PASSKEYS} passkeys")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
