//! Sessions that are open, so that a client's cancel request and an operator's freeze find what they stop.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use reprieve_gate::Gate;
use reprieve_operation::{AgentName, SessionId, TokenId};

use tokio::sync::Notify;

use crate::{connect::cancel, system::System};

/// One open session.
#[derive(Clone)]
struct Open {
    agent: AgentName,
    token: TokenId,
    system: Arc<System>,
    /// The key that our client was given.
    client_key: Option<(i32, [u8; 4])>,
    /// The key that the server gave us.
    server_key: Option<(i32, Vec<u8>)>,
    /// Ends a wait for people.
    cancelled: Arc<Notify>,
}

/// The open sessions.
#[derive(Default)]
pub(crate) struct Sessions {
    open: Mutex<HashMap<SessionId, Open>>,
}

impl Sessions {
    /// Adds a session; dropping the answer removes it.
    pub(crate) fn enter(
        self: &Arc<Self>,
        id: SessionId,
        agent: (AgentName, TokenId),
        system: Arc<System>,
        client_key: Option<(i32, [u8; 4])>,
        server_key: Option<(i32, Vec<u8>)>,
        cancelled: Arc<Notify>,
    ) -> Entry {
        let open = Open { agent: agent.0, token: agent.1, system, client_key, server_key, cancelled };
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(id, open);
        Entry { sessions: self.clone(), id }
    }

    pub(crate) fn count(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// A client's cancel request: only who knows the session's key is heard.
    pub(crate) async fn cancel(&self, pid: i32, key: &[u8]) {
        let found = {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.values().find(|open| open.client_key.is_some_and(|(own, secret)| own == pid && secret == key)).cloned()
        };
        if let Some(Open { system, server_key: Some((pid, key)), cancelled, .. }) = found {
            cancelled.notify_waiters();
            cancel(&system.target, pid, &key).await;
        }
    }

    /// Cancels what runs for agents that may not go on. Runs until the gate is dropped.
    pub(crate) async fn stop_frozen(self: Arc<Self>, gate: Arc<Gate>) {
        let mut control = gate.control();
        while control.changed().await.is_ok() {
            let stopped: Vec<Open> = {
                let state = gate.audit().state();
                let may_go_on = |open: &Open| {
                    let token = state.agents.get(&open.agent).is_some_and(|agent| agent.token == open.token && !agent.revoked);
                    token && state.frozen_because(&open.agent).is_none()
                };
                let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
                open.values().filter(|open| !may_go_on(open)).cloned().collect()
            };
            for Open { agent, system, server_key, .. } in stopped {
                let Some((pid, key)) = server_key else { continue };
                tracing::info!(%agent, "cancelling what runs");
                tokio::spawn(async move { cancel(&system.target, pid, &key).await });
            }
        }
    }
}

/// A session's place among the open ones.
pub(crate) struct Entry {
    sessions: Arc<Sessions>,
    id: SessionId,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.sessions.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
