//! Freezing and thawing: stopping is cheap, going on is not.

use rand::{RngCore as _, rngs::OsRng};
use reprieve_gate::DeskError;
use reprieve_operation::{AgentName, Event, OperatorName};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::{
    ApprovalsDesk, OptionsError,
    desk::{checked_reason, refused},
};

const SHORTEST_KEY: usize = 16;
const LONGEST_KEY: usize = 512;

/// The freeze key, as a salted digest. It has no lock-out: whoever could trigger one could switch the kill switch off.
pub(crate) struct FreezeKey {
    salt: [u8; 16],
    digest: [u8; 32],
}

impl FreezeKey {
    pub(crate) fn new(key: &str) -> Result<Option<Self>, OptionsError> {
        if key.is_empty() {
            return Ok(None);
        }
        if !(SHORTEST_KEY..=LONGEST_KEY).contains(&key.len()) {
            return Err(OptionsError::ShortFreezeKey);
        }
        let mut salt = [0; 16];
        OsRng.fill_bytes(&mut salt);
        Ok(Some(Self { salt, digest: digest(&salt, key) }))
    }

    /// Compares digests, in constant time.
    fn is(&self, key: &str) -> bool {
        key.len() <= LONGEST_KEY && bool::from(self.digest.ct_eq(&digest(&self.salt, key)))
    }
}

fn digest(salt: &[u8; 16], key: &str) -> [u8; 32] {
    Sha256::new().chain_update(salt).chain_update(key.as_bytes()).finalize().into()
}

impl ApprovalsDesk {
    pub(crate) async fn freeze_by_key(&self, key: &str, agent: Option<AgentName>, reason: String) -> Result<Value, DeskError> {
        if !self.freeze_key.as_ref().is_some_and(|own| own.is(key)) {
            self.attempts().note("use the freeze key".to_owned());
            self.raise_alarms();
            return Err(DeskError::NotAuthenticated);
        }
        self.record_freeze(agent, "freeze key".to_owned(), &reason).await
    }

    pub(crate) async fn record_freeze(&self, agent: Option<AgentName>, by: String, reason: &str) -> Result<Value, DeskError> {
        let mut reason = checked_reason(reason)?;
        if reason.is_empty() {
            // Nobody is asked for words in an emergency.
            "no reason given".clone_into(&mut reason);
        }
        if let Some(agent) = &agent
            && !self.audit.state().agents.contains_key(agent)
        {
            return Err(DeskError::Invalid(format!("there is no agent `{agent}`; nothing was frozen")));
        }
        let frozen = json!({ "frozen": agent.as_ref().map_or("all agents", AgentName::as_str) });
        self.append(Event::Frozen { agent, by, reason }).await.map_err(|error| refused(error, ""))?;
        Ok(frozen)
    }

    pub(crate) async fn thaw(&self, agent: Option<AgentName>, by: OperatorName, reason: &str) -> Result<Value, DeskError> {
        let reason = checked_reason(reason)?;
        if reason.is_empty() {
            return Err(DeskError::Invalid("thawing needs a reason".to_owned()));
        }
        let still_frozen: Vec<String> = {
            let state = self.audit.state();
            let frozen = agent.as_ref().map_or(state.all_frozen, |agent| state.frozen.contains_key(agent));
            if !frozen {
                let whom = agent.as_ref().map_or("not all agents are".to_owned(), |agent| format!("agent `{agent}` is not"));
                return Err(DeskError::Invalid(format!("{whom} frozen by itself")));
            }
            let others = state.frozen.keys().filter(|name| Some(*name) != agent.as_ref()).map(ToString::to_string);
            let all = (agent.is_some() && state.all_frozen).then(|| "all agents".to_owned());
            others.chain(all).collect()
        };
        let thawed = json!({ "thawed": agent.as_ref().map_or("all agents", AgentName::as_str), "still_frozen": still_frozen });
        self.append(Event::Thawed { agent, by, reason }).await.map_err(|error| refused(error, ""))?;
        Ok(thawed)
    }
}
