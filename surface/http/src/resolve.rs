//! Resolving: before the verdict, the gateway looks at what a call names with reads of its own.
//!
//! The answers become the operation's reach and environment. What can't be resolved counts as production.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::Response;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use reprieve_effects_http::{Call, Lookup, Request, Resolved, answer};
use reprieve_operation::{Effect, Environment, Found, Kind, Reach, TableReach};
use tokio::time::{Duration, timeout};

use crate::{
    asked::Asked,
    place::Place,
    run::send,
    system::System,
    understand::Understood,
    way_back::{Ground, Making, look_before},
};

/// Reads for one verdict, and how many at a time.
const READS: usize = 64;
const SIDE_BY_SIDE: usize = 4;

/// How long one may take, and how much it may answer.
const READ_TIME: Duration = Duration::from_secs(20);
pub(crate) const READ_BYTES: usize = 2 << 20;

/// What a request was found to do, to what, and where.
pub(crate) struct Measured {
    pub(crate) effects: Vec<Effect>,
    pub(crate) reach: Reach,
    pub(crate) environment: Environment,
}

/// Looks at everything that a request names, and at whether there is a way back from it.
pub(crate) async fn measure(ground: Ground<'_>, understood: &Understood) -> Measured {
    let mut measured = look(ground.system, understood).await;
    measured.reach.lasting = look_before(ground, understood, Making::Later).await.lasting;
    measured
}

/// Looks at everything that a request names.
pub(crate) async fn look(system: &System, understood: &Understood) -> Measured {
    let place = &understood.asked.place;
    let mut effects = understood.analysis.effects.clone();
    let mut reads: BTreeMap<String, Vec<Lookup>> = BTreeMap::new();
    let changing: Vec<&Call> = understood.analysis.calls.iter().filter(|call| !only_reads(call)).collect();
    for call in &changing {
        if let Some(staged) = look_at_staged(system, place, call).await {
            effects.retain(|effect| !matches!(effect, Effect::Invoke { operation, .. } if *operation == call.operation));
            effects.extend(staged);
        }
        for lookup in &call.lookups {
            reads.entry(lookup.resource.clone()).or_default().push(lookup.clone());
        }
    }
    let too_many = reads.values().map(Vec::len).sum::<usize>() > READS;
    let found: Vec<Found> = stream::iter(reads)
        .map(|(resource, lookups)| async move {
            if too_many {
                return Found { resource, unresolved: Some("it names more than can be looked at".to_owned()), ..Found::default() };
            }
            find(system, place, resource, &lookups).await
        })
        .buffered(SIDE_BY_SIDE)
        .collect()
        .await;
    let environment = environment_of(system, &found);
    let mut reach = reach_of(&effects);
    reach.found = found;
    Measured { effects, reach, environment }
}

/// What effects reach by what they name, once each.
pub(crate) fn reach_of(effects: &[Effect]) -> Reach {
    let mut reach = Reach::default();
    for effect in effects {
        let named = match effect {
            Effect::Invoke { resource, .. } => resource.clone().unwrap_or_else(|| "*".to_owned()),
            other => other.relation().map_or_else(|| "*".to_owned(), ToString::to_string),
        };
        match effect.kind() {
            Kind::Read => {}
            Kind::Destroy => reach.dropped.push(named),
            Kind::Write | Kind::Grant | Kind::Escape | Kind::Unknown => {
                reach.tables.entry(named).or_insert(TableReach { updated: 1, ..TableReach::default() });
            }
        }
    }
    reach.dropped.sort();
    reach.dropped.dedup();
    reach
}

/// Whether a call changes nothing.
pub(crate) fn only_reads(call: &Call) -> bool {
    call.dry_run || (call.class.kind == Kind::Read && call.class.hazards.is_empty())
}

/// What a call that carries out what was staged before would do.
async fn look_at_staged(system: &System, place: &Place, call: &Call) -> Option<Vec<Effect>> {
    let staged = call.staged.as_ref()?;
    let (status, headers, body) = read(system, place, staged.request.as_ref().ok()?, READ_BYTES).await.ok()?;
    let (class, because, resources) = staged.judge(&answer(media(&headers), &body).ok().filter(|_| (200..300).contains(&status))?)?;
    tracing::debug!(operation = call.operation, ?because, "what is staged was looked at");
    let effect = |resource: Option<String>| Effect::Invoke {
        operation: call.operation.clone(),
        kind: class.kind,
        resource,
        hazards: class.hazards.clone(),
    };
    let named: Vec<String> = if resources.is_empty() { call.resources.clone() } else { resources };
    Some(if named.is_empty() { vec![effect(None)] } else { named.into_iter().map(|resource| effect(Some(resource))).collect() })
}

async fn find(system: &System, place: &Place, resource: String, lookups: &[Lookup]) -> Found {
    let mut resolved = Resolved::default();
    for lookup in lookups {
        let answered = match &lookup.request {
            Ok(request) => read(system, place, request, READ_BYTES).await,
            Err(missing) => Err(missing.to_string()),
        };
        let one =
            answered.and_then(|(status, headers, body)| lookup.read(status, media(&headers), &body).map_err(|error| error.to_string()));
        match one {
            Ok(one) => resolved.add(one),
            Err(reason) => return Found { resource, unresolved: Some(reason.chars().take(200).collect()), ..Found::default() },
        }
    }
    let Resolved { name, environment, size, attached, backups, parents, protection } = resolved;
    Found { resource, name, environment, size, attached, backups, parents, protection, unresolved: None }
}

/// The system's environment if everything is there, else production.
fn environment_of(system: &System, found: &[Found]) -> Environment {
    let elsewhere = found.iter().any(|found| {
        found.unresolved.is_some()
            || found.environment.as_ref().is_some_and(|environment| !environment.eq_ignore_ascii_case(system.environment.as_str()))
    });
    if elsewhere { Environment::production() } else { system.environment.clone() }
}

/// A service's answer to the gateway: status, headers with names in lower case, body.
pub(crate) type Read = (u16, Vec<(String, String)>, Bytes);

/// A request of the gateway's own.
pub(crate) async fn read(system: &System, place: &Place, request: &Request, limit: usize) -> Result<Read, String> {
    let (status, headers, response) = ask(system, place, request).await?;
    Ok((status, headers, collect(response, limit).await?))
}

/// The same, with the answer's body still to come.
pub(crate) async fn ask(
    system: &System,
    place: &Place,
    request: &Request,
) -> Result<(u16, Vec<(String, String)>, Response<Incoming>), String> {
    // It goes where the call goes, or to another host of the same service: nowhere else would the credential be right.
    let place = match Place::of_authority(place.scheme, &request.host) {
        Ok(asked) if asked == *place || system.claims(&asked) => asked,
        _ => return Err(format!("`{}` is not a host of this system", request.host)),
    };
    let asked = Asked::of(request, &place).ok_or("the catalog's request can't be sent")?;
    let response = send(system, &asked).await.map_err(|failure| failure.reason)?;
    let status = response.status().as_u16();
    let text = |(name, value): (&http::HeaderName, &http::HeaderValue)| Some((name.to_string(), value.to_str().ok()?.to_owned()));
    let headers = response.headers().iter().filter_map(text).collect();
    Ok((status, headers, response))
}

fn media(headers: &[(String, String)]) -> &str {
    headers.iter().find(|(name, _)| name == "content-type").map_or("", |(_, value)| value.as_str())
}

/// An answer's body, whole.
pub(crate) async fn collect(response: Response<Incoming>, limit: usize) -> Result<Bytes, String> {
    let collected = timeout(READ_TIME, Limited::new(response.into_body(), limit).collect()).await;
    let collected = collected.map_err(|_| "the answer took too long".to_owned())?;
    collected.map(http_body_util::Collected::to_bytes).map_err(|error| format!("the answer broke off: {error}"))
}
