//! The door: an agent proves who it is, by its name and token, on each connection to the proxy and each request to the gateway itself.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, PROXY_AUTHORIZATION},
};
use reprieve_gate::Gate;
use reprieve_operation::{AgentName, AgentState, Digest, Event, Principal, SystemName, Token, TokenId};

/// Headers for a token where `Authorization` is taken.
pub(crate) const TOKEN: HeaderName = HeaderName::from_static("reprieve-token");
const TOKEN_TOO: HeaderName = HeaderName::from_static("reprieve-authorization");

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Entered {
    pub(crate) principal: Principal,
    /// The system it means, where several share a host: `AGENT+SYSTEM`.
    pub(crate) system: Option<SystemName>,
}

/// What a client showed.
struct Shown {
    /// The name, where one was given.
    agent: Option<AgentName>,
    system: Option<SystemName>,
    token: Token,
}

/// Lets a client in by `Proxy-Authorization`. `None`: it was turned away, and that is on record.
pub(crate) fn enter_by_proxy(gate: &Gate, headers: &HeaderMap, peer: &str) -> Option<Entered> {
    enter(gate, shown(headers, &[PROXY_AUTHORIZATION]), headers.contains_key(PROXY_AUTHORIZATION), peer)
}

/// Lets a client in that calls the gateway itself.
pub(crate) fn enter_directly(gate: &Gate, headers: &HeaderMap, peer: &str) -> Option<Entered> {
    let names = [TOKEN, TOKEN_TOO, PROXY_AUTHORIZATION, AUTHORIZATION];
    enter(gate, shown(headers, &names), names.iter().any(|name| headers.contains_key(name)), peer)
}

/// Lets a client in at a service's own listener: its token may also be where the service's credential would be.
pub(crate) fn enter_for(gate: &Gate, headers: &HeaderMap, credential: Option<&HeaderName>, peer: &str) -> Option<Entered> {
    let mut names = vec![TOKEN, TOKEN_TOO, PROXY_AUTHORIZATION, AUTHORIZATION];
    names.extend(credential.filter(|name| !names.contains(name)).cloned());
    enter(gate, shown(headers, &names), names.iter().any(|name| headers.contains_key(name)), peer)
}

/// The agent whose socket it is, while its token holds.
pub(crate) fn enter_as(gate: &Gate, agent: &AgentName) -> Option<Entered> {
    let now = gate.now();
    let state = gate.audit().state();
    let known = state.agents.get(agent).filter(|known| !known.decoy && !known.revoked && known.expires > now)?;
    Some(Entered { principal: principal(known), system: None })
}

fn enter(gate: &Gate, shown: Option<Shown>, tried: bool, peer: &str) -> Option<Entered> {
    let turned_away = |claimed: &str, reason: &str| {
        let claimed = claimed.chars().take(63).collect();
        gate.note(Event::SessionRefused { claimed, system: "http".to_owned(), peer: peer.to_owned(), reason: reason.to_owned() });
        None
    };
    let Some(Shown { agent, system, token }) = shown else {
        // Clients try without a credential first: that is how they learn that one is wanted.
        return if tried { turned_away("?", "not authenticated") } else { None };
    };
    match identify(gate, agent.as_ref(), &token) {
        Identity::Agent(principal) => Some(Entered { principal, system }),
        Identity::Decoy(decoy, claimed) => {
            gate.note(Event::DecoyPresented { decoy, claimed: claimed.clone(), peer: peer.to_owned() });
            gate.note(Event::Alarm {
                what: format!("a decoy token was presented from {peer} under the name `{claimed}`; it is frozen"),
                agent: Some(claimed.clone()),
            });
            turned_away(claimed.as_str(), "decoy")
        }
        Identity::Nobody => turned_away(agent.as_ref().map_or("?", AgentName::as_str), "not authenticated"),
    }
}

enum Identity {
    Agent(Principal),
    Decoy(TokenId, AgentName),
    Nobody,
}

fn identify(gate: &Gate, agent: Option<&AgentName>, token: &Token) -> Identity {
    let now = gate.now();
    // Digests are compared: how long that takes tells nothing about a token.
    let digest: Digest = token.digest();
    let state = gate.audit().state();
    let found = match agent.and_then(|agent| state.agents.get(agent)).filter(|known| known.digest == digest) {
        Some(known) => Some(known),
        // A token alone says who it is of. A thief who found a decoy may present it under any name.
        None => state.agents.values().find(|known| known.digest == digest && (agent.is_none() || known.decoy)),
    };
    match found {
        Some(known) if known.decoy => Identity::Decoy(known.token, agent.unwrap_or(&known.agent).clone()),
        Some(known) if !known.revoked && known.expires > now => Identity::Agent(principal(known)),
        _ => Identity::Nobody,
    }
}

fn principal(known: &AgentState) -> Principal {
    Principal { agent: known.agent.clone(), token: known.token, on_behalf_of: known.on_behalf_of.clone(), scope: known.scope.clone() }
}

/// What the first of these headers holds that has a token.
fn shown(headers: &HeaderMap, names: &[HeaderName]) -> Option<Shown> {
    names.iter().find_map(|name| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => read(value),
            _ => None,
        }
    })
}

fn read(value: &HeaderValue) -> Option<Shown> {
    let text = value.to_str().ok()?.trim();
    let (scheme, rest) = text.split_once(' ').unwrap_or(("", text));
    let alone = |token: &str| Some(Shown { agent: None, system: None, token: Token::parse(token.trim()).ok()? });
    match scheme.to_ascii_lowercase().as_str() {
        "" | "bearer" | "token" => alone(rest),
        "basic" => {
            let bytes = BASE64.decode(rest.trim()).ok()?;
            let (user, password) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
            let (agent, system) = match user.split_once('+') {
                Some((agent, system)) => (agent, Some(system.parse().ok()?)),
                None => (user, None),
            };
            Some(Shown { agent: Some(agent.parse().ok()?), system, token: Token::parse(password).ok()? })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown() {
        let token = Token::from_random(|| 7);
        let basic = |text: String| format!("Basic {}", BASE64.encode(text));
        let check = |text: String, expected: Option<(Option<&str>, Option<&str>)>| {
            let shown = HeaderValue::from_str(&text).ok().as_ref().and_then(read);
            let found =
                shown.as_ref().map(|shown| (shown.agent.as_ref().map(AgentName::as_str), shown.system.as_ref().map(SystemName::as_str)));
            assert_eq!(found, expected, "{text}");
        };
        let text = token.reveal().to_owned();
        check(basic(format!("cursor:{text}")), Some((Some("cursor"), None)));
        check(basic(format!("cursor+railway:{text}")), Some((Some("cursor"), Some("railway"))));
        check(basic(format!("Cursor:{text}")), None);
        check(basic(format!("cursor+:{text}")), None);
        check(basic("cursor:rpv_short".to_owned()), None);
        check(format!("Bearer {text}"), Some((None, None)));
        check(format!("token {text}"), Some((None, None)));
        check(text, Some((None, None)));
        check("Bearer ghp_something".to_owned(), None);
        check("Basic !!!".to_owned(), None);
    }
}
