//! Operators: added by another operator, except for the very first.

use ed25519_dalek::VerifyingKey;
use reprieve_gate::DeskError;
use reprieve_operation::{Event, OperatorName, OperatorState, Role, State};
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

use crate::{
    ApprovalsDesk, TotpSecret,
    desk::{decoded, refused, same_name},
};

/// A person to be added.
pub(crate) struct NewOperator {
    pub(crate) operator: OperatorName,
    pub(crate) public_key: String,
    pub(crate) totp_secret: String,
    pub(crate) role: Role,
}

impl ApprovalsDesk {
    /// Adds the very first operator. Whoever starts the gateway on an empty ledger may; nobody may afterwards.
    pub async fn bootstrap_operator(&self, operator: OperatorName, public_key: String, totp_secret: String) -> Result<Value, DeskError> {
        let _turn = self.turn().await?;
        if !self.audit.state().operators.is_empty() {
            return Err(DeskError::Forbidden("there is an operator already: only an operator adds another".to_owned()));
        }
        self.add_operator(NewOperator { operator, public_key, totp_secret, role: Role::Administrator }, None).await
    }

    pub(crate) async fn add_operator(&self, new: NewOperator, by: Option<OperatorName>) -> Result<Value, DeskError> {
        let NewOperator { operator, public_key, totp_secret, role } = new;
        let key = decoded::<32>(&public_key).filter(|bytes| VerifyingKey::from_bytes(bytes).is_ok_and(|key| !key.is_weak()));
        let key = key.ok_or_else(|| DeskError::Invalid("the public key is not 32 bytes of Ed25519 in base64".to_owned()))?;
        let secret = TotpSecret::from_base32(&totp_secret).map_err(|error| DeskError::Invalid(error.to_string()))?;
        let others = check_name(&self.audit.state(), &operator)?;
        self.check_factors(&others, key, &secret)?;
        let sealed_totp =
            (self.seal)(secret.bytes()).ok_or_else(|| DeskError::Unavailable("the second factor can't be sealed".to_owned()))?;
        let event = Event::OperatorAdded { operator: operator.clone(), public_key, sealed_totp, role, by };
        self.append(event).await.map_err(|error| refused(error, "an operator's name is never given twice"))?;
        Ok(json!({ "operator": operator, "otpauth": secret.otpauth_uri(&operator).as_str() }))
    }

    /// Lets an operator do more, or less. Somebody has to be left who can.
    pub(crate) async fn give_role(&self, operator: OperatorName, role: Role, by: OperatorName) -> Result<Value, DeskError> {
        {
            let state = self.audit.state();
            let known = state.operators.contains_key(&operator);
            let others = state.operators.iter().filter(|(name, entry)| **name != operator && entry.role == Role::Administrator);
            let able = others.filter(|(_, entry)| entry.has_terminal() || !entry.passkeys.is_empty()).count();
            if !known {
                return Err(DeskError::Invalid(format!("there is no operator `{operator}`")));
            }
            if role < Role::Administrator && able == 0 {
                return Err(DeskError::Forbidden(format!("`{operator}` is the only administrator: name another first")));
            }
        }
        let event = Event::RoleGiven { operator: operator.clone(), role, by };
        self.append(event).await.map_err(|error| refused(error, ""))?;
        Ok(json!({ "operator": operator, "role": role }))
    }

    /// Two approvals mean two people: neither factor may be another operator's.
    fn check_factors(&self, others: &[OperatorState], key: [u8; 32], secret: &TotpSecret) -> Result<(), DeskError> {
        let others = || others.iter().filter(|other| other.has_terminal());
        if others().any(|other| decoded::<32>(&other.public_key) == Some(key)) {
            return Err(DeskError::Invalid("another operator has this key".to_owned()));
        }
        let shared = |sealed: &str| (self.unseal)(sealed).is_some_and(|bytes| bytes.as_slice().ct_eq(secret.bytes()).into());
        if others().any(|other| shared(&other.sealed_totp)) {
            return Err(DeskError::Invalid("another operator has this second factor".to_owned()));
        }
        Ok(())
    }
}

/// Checks that nobody has the name yet; answers the other operators.
pub(crate) fn check_name(state: &State, operator: &OperatorName) -> Result<Vec<OperatorState>, DeskError> {
    if state.operators.contains_key(operator) {
        return Err(DeskError::Invalid(format!("there is an operator `{operator}` already")));
    }
    if state.agents.keys().any(|agent| same_name(agent, operator)) {
        return Err(DeskError::Invalid(format!("`{operator}` is the name of an agent")));
    }
    Ok(state.operators.values().cloned().collect())
}

#[cfg(test)]
mod tests;
