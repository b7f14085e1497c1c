//! Evidence: what the ledger keeps of an answer, so that anyone with the operator's public key can check it later.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use reprieve_gate::{Command, SignedCommand};
use reprieve_operation::Event;
use thiserror::Error;

use crate::authentication::is_signed_by;

/// A whole signed command: its Ed25519 signature covers the command's text, which names the hold, the answer, the reason
/// and the digest of what was shown. Its code is spent, so that it is worth nothing to who reads it.
#[derive(Debug, Clone)]
pub(crate) struct Evidence(String);

impl Evidence {
    pub(crate) fn of(signed: &SignedCommand) -> Self {
        let json = serde_json::to_vec(signed).expect("a signed command is five texts and numbers");
        Self(BASE64.encode(json))
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

/// Checks that an [`Event::HoldAnswered`] says what the operator with `public_key` signed.
pub fn verify_answer(event: &Event, public_key: &str) -> Result<(), EvidenceError> {
    let Event::HoldAnswered { hold, operator, answer, reason, signature, signed } = event else {
        return Err(EvidenceError::NotAnAnswer);
    };
    let json = BASE64.decode(signature).map_err(|_| EvidenceError::Unreadable)?;
    let evidence: SignedCommand = serde_json::from_slice(&json).map_err(|_| EvidenceError::Unreadable)?;
    if !is_signed_by(&evidence, public_key) {
        return Err(EvidenceError::Signature);
    }
    match serde_json::from_str(&evidence.command).map_err(|_| EvidenceError::Unreadable)? {
        Command::Answer { hold: its_hold, answer: its_answer, confirm: _, reason: its_reason, signed: its_signed }
            if evidence.operator == *operator
                && its_hold == *hold
                && its_answer == *answer
                && its_reason.trim() == reason
                && its_signed == *signed =>
        {
            Ok(())
        }
        _ => Err(EvidenceError::Differs),
    }
}
