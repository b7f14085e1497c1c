//! What every page can ask of the desk: propose, confirm, freeze, thaw.

use std::sync::Arc;

use axum::{
    Json,
    extract::{FromRequest as _, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use maud::html;
use reprieve_gate::{Assertion, Command, DeskError, SignedIn};
use reprieve_operation::AgentName;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    door::{Posted, Unsigned, see_other, who},
    problem::Problem,
    site::Site,
    words::icon,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmation {
    proposal: String,
    assertion: Assertion,
}

/// Proposes a command; `then` is where the page goes on to.
pub(crate) fn propose(site: &Site, who: &SignedIn, command: Command, then: &str) -> Result<Response, Problem> {
    let mut proposal = json!(site.console.counter.propose(who, command)?);
    proposal["then"] = json!(then);
    Ok(Json(proposal).into_response())
}

/// Carries a command to its end, even if the one who sent it hangs up.
pub(crate) async fn carried<T: Send + 'static>(command: impl Future<Output = Result<T, DeskError>> + Send + 'static) -> Result<T, Problem> {
    let bug = "the command failed by a mistake of ours; whether it was recorded is not known";
    let done = tokio::spawn(command).await.map_err(|error| {
        tracing::error!(%error, "a command ended in a bug");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", bug)
    })?;
    Ok(done?)
}

/// Carries out what was proposed, if its passkey agrees.
pub(crate) async fn confirm(State(site): State<Arc<Site>>, request: Request) -> Result<Response, Response> {
    let (parts, body) = request.into_parts();
    let who = who(&site, &parts.headers).ok_or_else(|| {
        Problem::new(StatusCode::UNAUTHORIZED, "not-authenticated", "your session is over: sign in again").into_response()
    })?;
    if parts.headers.get("x-form-token").and_then(|value| value.to_str().ok()) != Some(who.form_token.as_str()) {
        let text = "this form is not of your session: load the page again";
        return Err(Problem::new(StatusCode::FORBIDDEN, "not-your-form", text).into_response());
    }
    let Unsigned(bytes) = Unsigned::from_request(Request::from_parts(parts, body), &site).await?;
    let wrong = |error: serde_json::Error| Problem::new(StatusCode::BAD_REQUEST, "malformed", error.to_string()).into_response();
    let Confirmation { proposal, assertion } = serde_json::from_slice(&bytes).map_err(wrong)?;
    let counter = site.console.counter.clone();
    let done = carried(async move { counter.confirm(who, proposal, assertion).await }).await.map_err(Problem::into_response)?;
    let html = shown_once(&site, &done);
    Ok(Json(json!({ "done": true, "html": html })).into_response())
}

/// What a command answers that is told once: a token or an invitation.
fn shown_once(site: &Site, done: &Value) -> Option<String> {
    let text = |name: &str| done.get(name).and_then(Value::as_str);
    if let (Some(token), Some(agent)) = (text("token"), text("agent")) {
        let systems = site
            .console
            .audit
            .state()
            .agents
            .iter()
            .find(|(name, _)| name.as_str() == agent)
            .and_then(|(_, entry)| entry.scope.systems.first().cloned());
        let system = systems.map_or_else(|| "SYSTEM".to_owned(), |system| system.to_string());
        let url = format!("postgres://{agent}:{token}@{}/{system}", site.console.agents_at);
        return Some(
            html! {
                section.card tabindex="-1" data-shown { div.body.stack {
                    h2 { "A token for " span.mono { (agent) } }
                    p { "Shown once. Only its digest is kept, so that nobody can read it again." }
                    div.cmd { span id="new-url" { (url) } }
                    p.small.soft { "The agent connects with this address, and with nothing else." }
                    a.btn href={ "/agents/" (agent) } { (icon("check")) "Done" }
                } }
            }
            .into_string(),
        );
    }
    if let (Some(codes), Some(operator)) = (done.get("codes").and_then(Value::as_array), text("operator")) {
        return Some(
            html! {
                section.card tabindex="-1" data-shown { div.body.stack {
                    h2 { "Recovery codes of " (operator) }
                    p { "Shown once. Print them, and lock them away: each lets you enrol one passkey when you have lost yours. Those before are void." }
                    ul.plain { @for code in codes { li.mono { (code.as_str().unwrap_or_default()) } } }
                    a.btn href="/agents" { (icon("check")) "Done" }
                } }
            }
            .into_string(),
        );
    }
    let (secret, operator) = (text("secret")?, text("operator")?);
    let link = format!("{}/enrol#{secret}", site.console.origin);
    Some(
        html! {
            section.card tabindex="-1" data-shown { div.body.stack {
                h2 { "An invitation for " (operator) }
                p { "Shown once, works once, within 24 hours. Hand it over yourself: whoever opens it first enrols the passkey." }
                div.cmd { span id="new-link" { (link) } }
                a.btn href="/agents" { (icon("check")) "Done" }
            } }
        }
        .into_string(),
    )
}

/// Freezes one agent or all: two clicks, no reason, no passkey.
pub(crate) async fn freeze(State(site): State<Arc<Site>>, Posted { who, form }: Posted) -> Result<Response, Problem> {
    let agent = named(form.get("agent"))?;
    let command = Command::Freeze { agent, reason: form.get("reason").to_owned() };
    let counter = site.console.counter.clone();
    carried(async move { counter.act(who, command).await }).await?;
    Ok(see_other("/live"))
}

pub(crate) async fn thaw(State(site): State<Arc<Site>>, Posted { who, form }: Posted) -> Result<Response, Problem> {
    let command = Command::Thaw { agent: named(form.get("agent"))?, reason: form.get("reason").to_owned() };
    propose(&site, &who, command, "/live")
}

fn named(text: &str) -> Result<Option<AgentName>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    parsed(text).map(Some)
}

/// A field that is a name or a number of ours.
pub(crate) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Problem> {
    text.parse().map_err(|error: T::Err| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", error.to_string()))
}

/// A text file.
pub(crate) fn text_file(name: &str, kind: &str, body: String) -> Response {
    let named = format!("attachment; filename=\"{name}\"");
    ([(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, named)], body).into_response()
}
