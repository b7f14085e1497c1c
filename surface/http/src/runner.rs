//! Runs what was approved and nobody waits for any more: once, with its answer kept for the identical retry.

use std::{collections::HashMap, sync::Arc, time::Duration};

use reprieve_operation::{HoldId, HoldState, Operation, Principal, Protocol};

use crate::{asked::Asked, listener::Surface, resolve::measure, run::Run, understand::understand};

/// An approved request that can't be run, because its agent is frozen or the rules changed, is not tried for ever.
const TRIES: u32 = 3;

/// An agent that still waits goes first.
const GRACE: Duration = Duration::from_millis(300);

/// Runs approved requests for ever, one after another.
pub(crate) async fn run_unattended(surface: Arc<Surface>) {
    let mut changed = surface.gate.holds_changed();
    let mut tried: HashMap<HoldId, u32> = HashMap::new();
    loop {
        tokio::time::sleep(GRACE).await;
        for hold in surface.gate.unattended().into_iter().filter(|hold| hold.protocol == Protocol::Http) {
            let id = hold.hold;
            let tries = tried.entry(id).or_default();
            *tries += 1;
            if *tries > TRIES {
                continue;
            }
            if let Err(reason) = run(&surface, hold).await {
                tracing::warn!(hold = %id, reason, "an approved request was not run");
            }
        }
        let _changed_or_time_to_look = tokio::time::timeout(Duration::from_secs(5), changed.changed()).await;
    }
}

async fn run(surface: &Arc<Surface>, hold: HoldState) -> Result<(), String> {
    let system = surface.systems.iter().find(|system| system.name == hold.system).ok_or("its system is gone")?;
    let scope = surface.gate.audit().state().agents.get(&hold.agent).map(|agent| agent.scope.clone()).ok_or("its agent is gone")?;
    let asked = Asked::from_held(&hold.text, hold.parameters.as_ref()).ok_or("what was held is no request")?;
    let understood = understand(&surface.catalog, system, &asked).map_err(|refusal| refusal.to_string())?;
    let measured = measure(surface.ground(system), &understood).await;
    let operation = Operation {
        principal: Principal { agent: hold.agent, token: hold.token, on_behalf_of: hold.on_behalf_of, scope },
        session: hold.session,
        system: hold.system,
        environment: measured.environment,
        protocol: hold.protocol,
        text: hold.text.into(),
        redacted: understood.analysis.redacted.as_str().into(),
        bound: None,
        parameters: hold.parameters,
        action: hold.action,
        effects: measured.effects.into(),
        reach: Some(measured.reach),
        rows_apart: 0,
    };
    let mut run = Run::new(surface.clone(), system.clone(), Arc::new(understood)).unattended();
    surface.gate.handle(operation, &mut run).await.map(drop).map_err(|refusal| refusal.to_string())
}
