//! Runs what was approved and nobody waits for any more: once, with its result kept for the identical retry.

use std::{collections::HashMap, sync::Arc, time::Duration};

use reprieve_gate::Gate;
use reprieve_operation::{HoldId, HoldState, Operation, Principal, Protocol};

use crate::{
    known::KnownTexts,
    run::{Form, Run},
    session::Ends,
    system::System,
};

/// An approved operation that can't be run, because its agent is frozen or the rules changed, is not tried for ever.
const TRIES: u32 = 3;

/// A client that still waits goes first.
const GRACE: Duration = Duration::from_millis(500);

/// Runs approved holds for ever, one after another.
pub(crate) async fn run_unattended(gate: Arc<Gate>, systems: Vec<Arc<System>>, texts: Arc<KnownTexts>) {
    let mut changed = gate.holds_changed();
    let mut tried: HashMap<HoldId, u32> = HashMap::new();
    loop {
        gate.expire_holds();
        tokio::time::sleep(GRACE).await;
        for hold in gate.unattended() {
            let Some(system) = systems.iter().find(|system| system.name == hold.system) else { continue };
            let id = hold.hold;
            let tries = tried.entry(id).or_default();
            *tries += 1;
            if *tries > TRIES {
                continue;
            }
            if let Err(reason) = run(&gate, system, &texts, hold).await {
                tracing::warn!(hold = %id, reason, "an approved operation was not run");
            }
        }
        let _changed_or_time_to_look = tokio::time::timeout(Duration::from_secs(5), changed.changed()).await;
    }
}

async fn run(gate: &Arc<Gate>, system: &Arc<System>, texts: &KnownTexts, hold: HoldState) -> Result<(), String> {
    if hold.protocol != Protocol::Postgres || hold.parameters.is_some() {
        return Ok(()); // the identical retry runs it
    }
    let scope = gate.audit().state().agents.get(&hold.agent).map(|agent| agent.scope.clone()).ok_or("its agent is gone")?;
    let wire = system.open("reprieve: approved").await.map_err(|error| error.to_string())?;
    let mut ends = Ends::new(wire, gate.clone(), system.clone(), Arc::default());
    let known = texts.find(&hold.text);
    let operation = Operation {
        principal: Principal { agent: hold.agent, token: hold.token, on_behalf_of: hold.on_behalf_of, scope },
        session: hold.session,
        system: hold.system,
        environment: hold.environment,
        protocol: hold.protocol,
        text: known.text.clone(),
        redacted: known.redacted(),
        bound: None,
        parameters: None,
        action: hold.action,
        effects: known.effects.clone(),
        rows_apart: 0,
        reach: None,
    };
    let operation = ends.see_empty(operation).await.map_err(|gone| gone.to_string())?;
    let results = known.analysis.statements.len();
    let form =
        Form::Simple { text: known.text.clone(), results, plain: known.is_plain(), unwrapped: known.is_unwrapped(), copies_in: false };
    let mut run = Run { kept: true, ..Run::new(&mut ends, form) };
    gate.handle(operation, &mut run).await.map(drop).map_err(|refusal| refusal.to_string())
}
