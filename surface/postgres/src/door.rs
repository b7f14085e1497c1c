//! The door: a client proves which agent it is, by SCRAM-SHA-256 with its token as the password.

use std::sync::Arc;

use reprieve_gate::Gate;
use reprieve_operation::{AgentName, Event, Principal, SCRAM_ITERATIONS, ScramVerifier, Timestamp};
use reprieve_pgwire::{
    Limits,
    frontend::{ClientScanner, SaslInitial},
    scram::ScramServer,
    write,
};

use crate::{duplex::Duplex, system::System};

/// Decoys that one failed attempt is compared with.
const DECOYS_TRIED: usize = 1_000;

/// A client that was let in.
pub(crate) struct Entered {
    pub(crate) principal: Principal,
    pub(crate) system: Arc<System>,
    /// Startup parameters for the server: everything but the credentials.
    pub(crate) parameters: Vec<(String, String)>,
}

/// Why a client was turned away; it has been told.
#[derive(Debug)]
pub(crate) struct TurnedAway(pub(crate) String);

/// Lets a client in, or says why not.
pub(crate) async fn enter(
    client: &mut Duplex,
    gate: &Gate,
    systems: &[Arc<System>],
    salt: &[u8],
    startup: Vec<(String, String)>,
    peer: &str,
    binding: Option<Vec<u8>>,
) -> Result<Entered, TurnedAway> {
    let parameter = |name: &str| startup.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let user = parameter("user").unwrap_or_default();
    let database = parameter("database").unwrap_or_else(|| user.clone());
    let refuse = |client: &mut Duplex, code: &str, message: &str, reason: &str| {
        let fields = [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', code), (b'M', message)];
        write::error_response(&mut client.output, &fields);
        let claimed = user.chars().take(63).collect();
        let system = database.chars().take(63).collect();
        gate.note(Event::SessionRefused { claimed, system, peer: peer.to_owned(), reason: reason.to_owned() });
        TurnedAway(reason.to_owned())
    };
    let replication = parameter("replication").is_some_and(|value| !matches!(value.as_str(), "false" | "off" | "no" | "0"));
    if replication {
        return Err(refuse(client, "RPR01", "reprieve: refused: replication connections are not for agents", "replication"));
    }
    let agent = user.parse::<AgentName>().ok();
    let proven = authenticate(client, salt, binding).await;
    let failed = "reprieve: refused: the agent's name or its token is wrong";
    let (agent, proof) = match (agent, proven) {
        (Some(agent), Some(proof)) => (agent, proof),
        (_, Some(_) | None) => return Err(refuse(client, "28P01", failed, "not authenticated")),
    };
    match identify(gate, &agent, &proof) {
        Identity::Agent(principal, server_final) => {
            let written = write::authentication_sasl_final(&mut client.output, &server_final);
            if written.is_err() {
                return Err(TurnedAway("protocol".to_owned()));
            }
            if let Some(reason) = gate.audit().state().frozen_because(&agent).map(str::to_owned) {
                let message = format!("reprieve: frozen: {reason}");
                return Err(refuse(client, "RPF01", &message, "frozen"));
            }
            let name = database.strip_prefix("reprieve/").unwrap_or(&database);
            let system = systems.iter().find(|system| system.name.as_str() == name);
            let covered = |system: &&Arc<System>| {
                principal.scope.systems.contains(&system.name) && principal.scope.environments.contains(&system.environment)
            };
            match system.filter(covered) {
                Some(system) => {
                    let own = ["user", "database", "password", "replication"];
                    let parameters = startup.iter().filter(|(name, _)| !own.contains(&name.as_str())).cloned().collect();
                    Ok(Entered { principal, system: system.clone(), parameters })
                }
                None => {
                    // The same words whether it exists or not: an agent has no map of what it may not reach.
                    let message =
                        format!("reprieve: refused: the token of `{agent}` does not cover the system `{database}` (rule `token-scope`)");
                    Err(refuse(client, "RPR01", &message, "out of scope"))
                }
            }
        }
        Identity::Decoy(decoy) => {
            gate.note(Event::DecoyPresented { decoy, claimed: agent.clone(), peer: peer.to_owned() });
            gate.note(Event::Alarm {
                what: format!("a decoy token was presented from {peer} under the name `{agent}`; it is frozen"),
                agent: Some(agent),
            });
            Err(refuse(client, "28P01", failed, "decoy"))
        }
        Identity::Nobody => Err(refuse(client, "28P01", failed, "not authenticated")),
    }
}

enum Identity {
    Agent(Principal, Vec<u8>),
    Decoy(reprieve_operation::TokenId),
    Nobody,
}

fn identify(gate: &Gate, agent: &AgentName, proof: &reprieve_pgwire::scram::Proof) -> Identity {
    let now: Timestamp = gate.now();
    let state = gate.audit().state();
    let verify = |verifier: &ScramVerifier| verifier.keys().and_then(|(stored, server)| proof.verify(&stored, &server));
    if let Some(known) = state.agents.get(agent)
        && let Some(server_final) = verify(&known.verifier)
    {
        if known.decoy {
            return Identity::Decoy(known.token);
        }
        if known.revoked || known.expires <= now {
            return Identity::Nobody;
        }
        let (agent, token, on_behalf_of, scope) = (known.agent.clone(), known.token, known.on_behalf_of.clone(), known.scope.clone());
        return Identity::Agent(Principal { agent, token, on_behalf_of, scope }, server_final);
    }
    // A thief who found a decoy may present it under any name.
    let decoys = state.agents.values().filter(|agent| agent.decoy).take(DECOYS_TRIED);
    decoys.into_iter().find(|decoy| verify(&decoy.verifier).is_some()).map_or(Identity::Nobody, |decoy| Identity::Decoy(decoy.token))
}

/// The SCRAM exchange (RFC 5802), the same for agents that exist and that do not.
async fn authenticate(client: &mut Duplex, salt: &[u8], binding: Option<Vec<u8>>) -> Option<reprieve_pgwire::scram::Proof> {
    let mut scram = ScramServer::new(salt, SCRAM_ITERATIONS, crate::nonce(), binding);
    write::authentication_sasl(&mut client.output, scram.mechanisms()).ok()?;
    let mut frames = ClientScanner::new(Limits::default());
    let first = password_message(client, &mut frames).await?;
    let initial = SaslInitial::parse(&first).ok()?;
    let server_first = scram.client_first(initial.mechanism, initial.response?).ok()?;
    write::authentication_sasl_continue(&mut client.output, &server_first).ok()?;
    let last = password_message(client, &mut frames).await?;
    scram.client_final(&last).ok()
}

async fn password_message(client: &mut Duplex, frames: &mut ClientScanner) -> Option<Vec<u8>> {
    client.drain().await;
    loop {
        if let Some(frame) = frames.next(&mut client.input).ok()? {
            return (frame.tag == b'p').then(|| frame.body().to_vec());
        }
        if !client.fill().await {
            return None;
        }
    }
}
