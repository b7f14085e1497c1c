//! What the pages know: the gate's traits, and how this gateway is called.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use reprieve_gate::{Audit, Changes, Clock, Counter, Desk, Provider, Reception, Records, Recovery, Simulated, UsedRights};
use reprieve_operation::{AgentName, Environment, SystemName, Timestamp};
use reprieve_policy::{Policy, Source};
use tokio::sync::{Semaphore, watch};

use crate::feed::Feed;

/// A system, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its name.
    pub name: SystemName,
    /// Where it is.
    pub environment: Environment,
    /// What sort of system, in a word.
    pub kind: &'static str,
}

/// Reads the policy files as they are now; says why where that fails.
pub type PolicyFiles = Arc<dyn Fn() -> Result<Vec<Source>, String> + Send + Sync>;

/// Asks the first policy and the second about every operation on record since a time; says why where that can't be done. Blocks.
pub type Simulate = Arc<dyn Fn(&Policy, &Policy, Timestamp) -> Result<Simulated, String> + Send + Sync>;

/// What an agent used of its rights since a time; says why where that can't be known. Blocks.
pub type UsedSince = Arc<dyn Fn(&AgentName, Timestamp) -> Result<UsedRights, String> + Send + Sync>;

/// What the console shows, and by whom it acts.
pub struct Console {
    /// Carries out signed commands.
    pub desk: Arc<dyn Desk>,
    /// Lets people in.
    pub reception: Arc<dyn Reception>,
    /// Their organisation's sign-in, where there is one.
    pub provider: Option<Arc<dyn Provider>>,
    /// Carries out what they do once they are in.
    pub counter: Arc<dyn Counter>,
    /// The ledger, to know the state and to follow it.
    pub audit: Arc<dyn Audit>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The ledger, to search in.
    pub records: Arc<dyn Records>,
    /// What can be taken back.
    pub changes: Arc<dyn Changes>,
    /// What is known of copies, and who takes notes of those who make them.
    pub recovery: Arc<dyn Recovery>,
    /// The policy in force.
    pub policy: Arc<ArcSwap<Policy>>,
    /// Where it is read from.
    pub policy_files: PolicyFiles,
    /// What other rules would have said.
    pub simulate: Simulate,
    /// How much of its rights an agent used.
    pub used_rights: UsedSince,
    /// As browsers name it: `https://HOST:PORT`.
    pub origin: String,
    /// Whose gateway it is.
    pub name: String,
    /// Where agents connect: `HOST:PORT`.
    pub agents_at: String,
    /// What is protected.
    pub systems: Vec<Shown>,
    /// Systems of different environments that are reached with the same credential.
    pub shared_credentials: Vec<(SystemName, SystemName)>,
    /// How long a hold waits.
    pub hold_expires: Duration,
    /// How long a change can be taken back.
    pub undo_window: Duration,
}

impl Console {
    /// The host that passkeys belong to.
    pub(crate) fn relying_party(&self) -> &str {
        let authority = self.authority();
        authority.split_once(':').map_or(authority, |(host, _)| host)
    }

    /// What browsers send as `Host`.
    pub(crate) fn authority(&self) -> &str {
        self.origin.strip_prefix("https://").unwrap_or(&self.origin)
    }

    pub(crate) fn environment_of(&self, system: &SystemName) -> Environment {
        self.systems.iter().find(|shown| shown.name == *system).map_or_else(Environment::production, |shown| shown.environment.clone())
    }
}

/// Open event streams.
const MOST_STREAMS: usize = 200;

/// The console with what it keeps while it is served.
pub(crate) struct Site {
    pub(crate) console: Arc<Console>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) streams: Arc<Semaphore>,
    /// Simulations read all of the ledger: one at a time.
    pub(crate) simulations: Arc<Semaphore>,
    /// Turns true when the listener stops: streams end then.
    pub(crate) closing: watch::Receiver<bool>,
    pub(crate) body_timeout: Duration,
}

impl Site {
    pub(crate) fn new(console: Arc<Console>, feed: Arc<Feed>, closing: watch::Receiver<bool>, body_timeout: Duration) -> Self {
        Self {
            console,
            feed,
            streams: Arc::new(Semaphore::new(MOST_STREAMS)),
            simulations: Arc::new(Semaphore::new(1)),
            closing,
            body_timeout,
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.console.clock.now()
    }

    pub(crate) fn is_frozen(&self, agent: &AgentName) -> bool {
        self.console.audit.state().frozen_because(agent).is_some()
    }
}
