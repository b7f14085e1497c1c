//! Who may: the operator's signature, a fresh second factor, and a clock that agrees. Which one failed is not told.

use std::time::Duration;

use ed25519_dalek::{Signature, VerifyingKey};
use reprieve_gate::{AuditError, Command, DeskError, SignedCommand};
use reprieve_operation::{Event, OperatorName, OperatorState, Timestamp};

use crate::{
    ApprovalsDesk, TotpSecret,
    attempts::{Failure, Rebuff},
    desk::{decoded, refused},
    evidence::Evidence,
    totp::step_of,
};

const MOST_DRIFT: Duration = Duration::from_secs(120);
const LARGEST_COMMAND: usize = 32 * 1024;

impl ApprovalsDesk {
    /// Proves both factors, spends the code, and only then reads the command.
    pub(crate) async fn authenticate(&self, signed: &SignedCommand) -> Result<(Command, Evidence), DeskError> {
        let now = self.clock.now();
        let operator = self.audit.state().operators.get(&signed.operator).filter(|operator| operator.has_terminal()).cloned();
        let known = operator.is_some();
        let checked = operator.as_ref().unwrap_or(&self.stand_in);

        // Everything is computed whatever fails first, so that the time taken doesn't tell what did.
        let by_key = is_signed_by(signed, &checked.public_key) & known & is_fresh(signed, now);
        let step = self.second_factor(checked).and_then(|secret| secret.matching_step(&signed.code, now));

        let locked_out = self.attempts().locked_out(&signed.operator, now);
        let step = match (by_key, step, locked_out) {
            (false, _, _) => return Err(self.failed(signed, known, Failure::Forged, now)),
            (true, None, _) => return Err(self.failed(signed, known, Failure::Guessed, now)),
            (true, Some(_), Some(seconds)) => return Err(DeskError::TooMany { seconds }),
            (true, Some(step), None) => step,
        };
        match self.spend(&signed.operator, step, now).await {
            Ok(()) => {}
            Err(AuditError::KeyTaken { .. }) => return Err(self.failed(signed, known, Failure::Forged, now)),
            Err(error @ AuditError::Unavailable { .. }) => return Err(refused(error, "")),
        }
        self.attempts().succeed(&signed.operator);
        let command =
            serde_json::from_str(&signed.command).map_err(|error| DeskError::Invalid(format!("that is not a command: {error}")))?;
        Ok((command, Evidence::of(signed)))
    }

    /// Makes a code, and every older one that would still be accepted, worthless: here, after a restart, and on every
    /// gateway of this ledger.
    pub(crate) async fn spend(&self, operator: &OperatorName, step: u64, now: Timestamp) -> Result<(), AuditError> {
        let spent = |step| Event::CodeSpent { operator: operator.clone(), step };
        self.append(spent(step)).await?;
        for older in step_of(now).saturating_sub(1)..step {
            match self.append(spent(older)).await {
                Ok(_) | Err(AuditError::KeyTaken { .. }) => {}
                Err(error @ AuditError::Unavailable { .. }) => return Err(error),
            }
        }
        Ok(())
    }

    pub(crate) fn second_factor(&self, operator: &OperatorState) -> Option<TotpSecret> {
        let secret = (self.unseal)(&operator.sealed_totp).and_then(|bytes| TotpSecret::from_bytes(bytes).ok());
        if secret.is_none() {
            tracing::error!("an operator's second factor does not open: is this the master key it was sealed with?");
        }
        secret
    }

    fn failed(&self, signed: &SignedCommand, known: bool, failure: Failure, now: Timestamp) -> DeskError {
        let rebuff = self.attempts().fail(&signed.operator, known, failure, now);
        self.raise_alarms();
        match rebuff {
            Rebuff::No => DeskError::NotAuthenticated,
            Rebuff::Wait(seconds) => DeskError::TooMany { seconds },
        }
    }
}

fn is_fresh(signed: &SignedCommand, now: Timestamp) -> bool {
    let issued = Timestamp(signed.issued_at);
    now.since(issued) <= MOST_DRIFT && issued.since(now) <= MOST_DRIFT
}

/// Whether the command is signed by the key. Strict: no second signature can be made out of a valid one.
pub(crate) fn is_signed_by(signed: &SignedCommand, public_key: &str) -> bool {
    if signed.command.len() > LARGEST_COMMAND || signed.code.len() != 6 {
        return false;
    }
    let key = decoded::<32>(public_key).and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok());
    let signature = decoded::<64>(&signed.signature).map(|bytes| Signature::from_bytes(&bytes));
    let message = SignedCommand::message(&signed.operator, &signed.command, &signed.code, signed.issued_at);
    matches!((key, signature), (Some(key), Some(signature)) if key.verify_strict(&message, &signature).is_ok())
}
