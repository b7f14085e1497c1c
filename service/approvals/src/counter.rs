//! The counter: what operators do from the console, once they are in.
//!
//! Denying and freezing need no more than the session. Everything else is proposed first; the passkey then signs the digest of
//! exactly that command, and the very command that was kept is carried out.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64URL},
};
use reprieve_gate::{Assertion, Command, Counter, DeskAnswer, DeskError, Proposal, SignedIn};
use reprieve_operation::{Answer, Digest, OperatorName, OperatorState, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ApprovalsDesk,
    evidence::Evidence,
    holds::GivenAnswer,
    passkey::{PasskeyError, check, signed_challenge},
};

/// A command that a passkey signed, as it is kept in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasskeyCommand {
    pub(crate) operator: OperatorName,
    /// The [`Command`] as JSON text, exactly as signed.
    pub(crate) command: String,
    pub(crate) nonce: String,
    pub(crate) issued_at: Timestamp,
    pub(crate) assertion: Assertion,
}

impl PasskeyCommand {
    /// Checks the signature of one of the operator's passkeys over this command: without a clock or a site, as an auditor can.
    pub(crate) fn is_signed_by(&self, public_key: &[u8]) -> Result<bool, PasskeyError> {
        let challenge = challenge(&self.operator, &self.command, &self.nonce, self.issued_at);
        Ok(signed_challenge(&self.assertion, public_key)? == challenge)
    }
}

/// What a passkey signs for a command. An answer's command names the hold and holds the digest of operation, reach and answer.
fn challenge(operator: &OperatorName, command: &str, nonce: &str, issued_at: Timestamp) -> [u8; 32] {
    let issued_at = issued_at.0.to_be_bytes();
    Digest::of(&[b"reprieve/passkey/v1", operator.as_str().as_bytes(), command.as_bytes(), nonce.as_bytes(), &issued_at]).0
}

impl ApprovalsDesk {
    async fn carry_out_confirmed(&self, who: SignedIn, proposal: String, assertion: Assertion) -> Result<Value, DeskError> {
        let now = self.clock.now();
        let over = || DeskError::Invalid("this was confirmed before, or waited too long: begin again".to_owned());
        let proposed = self.sessions().take(&who.session, &proposal, now).ok_or_else(over)?;
        let challenge = challenge(&who.operator, &proposed.command, &proposed.nonce, proposed.issued_at);
        let passkey = self.passkey(&assertion.credential).filter(|(operator, _)| *operator == who.operator);
        let checked = passkey.map(|(_, public_key)| check(&assertion, &public_key, &challenge, &self.console));
        if !matches!(checked, Some(Ok(_))) {
            tracing::info!(operator = %who.operator, ?checked, "a passkey did not confirm a command");
            self.attempts().note(format!("confirm a command of operator `{}`", who.operator));
            self.raise_alarms();
            return Err(DeskError::NotAuthenticated);
        }
        let command = serde_json::from_str(&proposed.command).map_err(|error| DeskError::Invalid(error.to_string()))?;
        let (operator, command_text) = (who.operator.clone(), proposed.command);
        let signed = PasskeyCommand { operator, command: command_text, nonce: proposed.nonce, issued_at: proposed.issued_at, assertion };
        self.dispatch(command, who.operator, Evidence::of_passkey(&signed)).await
    }

    /// A denial or a freeze by who is in.
    async fn carry_out_safe(&self, who: SignedIn, command: Command) -> Result<Value, DeskError> {
        match &command {
            Command::Answer { answer: Answer::Deny, .. } | Command::Freeze { .. } => {
                let evidence = Evidence::of_session(&who);
                self.dispatch(command, who.operator, evidence).await
            }
            _ => Err(DeskError::Forbidden("this needs your passkey".to_owned())),
        }
    }

    fn keep_proposal(&self, who: &SignedIn, command: &Command) -> Result<Proposal, DeskError> {
        self.check_role(command, &who.operator)?;
        if let Command::Answer { hold, answer, confirm, reason, signed } = command {
            let given = GivenAnswer { hold: *hold, answer: *answer, confirm: confirm.clone(), reason: reason.clone(), signed: *signed };
            self.check_answer(&given, &who.operator)?;
        }
        let text = serde_json::to_string(command).map_err(|error| DeskError::Invalid(error.to_string()))?;
        let credentials = {
            let state = self.audit.state();
            let passkeys = |entry: &OperatorState| entry.passkeys.iter().map(|key| key.credential.clone()).collect();
            state.operators.get(&who.operator).map(passkeys).unwrap_or_default()
        };
        let proposed = self.sessions().propose(&who.session, text, self.clock.now()).ok_or(DeskError::NotAuthenticated)?;
        let challenge = challenge(&who.operator, &proposed.command, &proposed.nonce, proposed.issued_at);
        Ok(Proposal { proposal: proposed.nonce, challenge: BASE64URL.encode(challenge), credentials })
    }
}

impl Counter for ApprovalsDesk {
    fn act(&self, who: SignedIn, command: Command) -> DeskAnswer<'_> {
        Box::pin(self.carry_out_safe(who, command))
    }

    fn propose(&self, who: &SignedIn, command: Command) -> Result<Proposal, DeskError> {
        self.keep_proposal(who, &command)
    }

    fn confirm(&self, who: SignedIn, proposal: String, assertion: Assertion) -> DeskAnswer<'_> {
        Box::pin(self.carry_out_confirmed(who, proposal, assertion))
    }
}

/// Reads what [`Evidence::of_passkey`] wrote.
pub(crate) fn passkey_evidence(text: &str) -> Option<PasskeyCommand> {
    serde_json::from_slice(&BASE64.decode(text).ok()?).ok()
}
