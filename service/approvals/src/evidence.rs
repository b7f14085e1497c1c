//! Evidence: what the ledger keeps of an answer, so that anyone with the operator's public key can check it later.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use reprieve_gate::{Command, SignedCommand, SignedIn, UNSIGNED};
use reprieve_operation::Event;
use thiserror::Error;

use crate::{
    authentication::is_signed_by,
    counter::{PasskeyCommand, passkey_evidence},
};

/// A whole signed command: its signature, Ed25519 or a passkey's, covers the command's text, which names the hold, the answer, the
/// reason and the digest of what was shown. Its code or its challenge is spent, so that it is worth nothing to who reads it.
#[derive(Debug, Clone)]
pub(crate) struct Evidence(String);

impl Evidence {
    pub(crate) fn of(signed: &SignedCommand) -> Self {
        let json = serde_json::to_vec(signed).expect("a signed command is five texts and numbers");
        Self(BASE64.encode(json))
    }

    pub(crate) fn of_passkey(signed: &PasskeyCommand) -> Self {
        let json = serde_json::to_vec(signed).expect("a signed command is texts and numbers");
        Self(BASE64.encode(json))
    }

    /// A denial takes no signature: it says which session gave it, and proves nothing.
    pub(crate) fn of_session(who: &SignedIn) -> Self {
        Self(format!("{UNSIGNED}{}", who.session))
    }

    /// As it is kept in `HoldAnswered::signature`.
    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

/// Why a recorded answer is not proven.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EvidenceError {
    /// The event is no answer.
    #[error("the event is not an answer to a hold")]
    NotAnAnswer,
    /// The evidence is not readable.
    #[error("the evidence is not a signed command")]
    Unreadable,
    /// The signature is another's.
    #[error("the signature is not the operator's")]
    Signature,
    /// The signature is for something else.
    #[error("the operator signed something else than what is recorded")]
    Differs,
}

/// Checks that an [`Event::HoldAnswered`] says what the operator with `public_key` signed: their Ed25519 key, or that of the passkey
/// that signed, in base64. A denial out of a session was not signed, and is unreadable here.
pub fn verify_answer(event: &Event, public_key: &str) -> Result<(), EvidenceError> {
    let Event::HoldAnswered { hold, operator, answer, reason, signature, signed } = event else {
        return Err(EvidenceError::NotAnAnswer);
    };
    let (by, command) = match passkey_evidence(signature) {
        Some(evidence) => {
            let key = BASE64.decode(public_key).map_err(|_| EvidenceError::Unreadable)?;
            if !evidence.is_signed_by(&key).map_err(|_| EvidenceError::Signature)? {
                return Err(EvidenceError::Signature);
            }
            (evidence.operator, evidence.command)
        }
        None => {
            let json = BASE64.decode(signature).map_err(|_| EvidenceError::Unreadable)?;
            let evidence: SignedCommand = serde_json::from_slice(&json).map_err(|_| EvidenceError::Unreadable)?;
            if !is_signed_by(&evidence, public_key) {
                return Err(EvidenceError::Signature);
            }
            (evidence.operator, evidence.command)
        }
    };
    match serde_json::from_str(&command).map_err(|_| EvidenceError::Unreadable)? {
        Command::Answer { hold: its_hold, answer: its_answer, confirm: _, reason: its_reason, signed: its_signed }
            if by == *operator && its_hold == *hold && its_answer == *answer && its_reason.trim() == reason && its_signed == *signed =>
        {
            Ok(())
        }
        _ => Err(EvidenceError::Differs),
    }
}
