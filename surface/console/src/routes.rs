//! What the command line asks of the operators' listener, and the guard before all of it. There is no route that takes an agent's
//! credential.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Body, HttpBody as _, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use reprieve_gate::{Desk, DeskError, Recovery, SignedCommand};
use reprieve_operation::AgentName;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{door::POLICY, problem::Problem};

/// Every route of the command line: method and path. A test compares the router with it.
pub const ROUTES: [(&str, &str); 5] =
    [("GET", "/v1/health"), ("GET", "/v1/openapi.json"), ("POST", "/v1/commands"), ("POST", "/v1/freeze"), ("POST", "/v1/recovery")];

/// The routes and their bodies, as `OpenAPI` 3.1 tells them.
pub(crate) const DESCRIPTION: &str = include_str!("../assets/openapi.json");

const LARGEST_BODY: usize = 64 * 1024;
const FREEZE_KEY: HeaderName = HeaderName::from_static("reprieve-freeze-key");

type SharedDesk = Arc<dyn Desk>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FreezeRequest {
    #[serde(default)]
    agent: Option<AgentName>,
    #[serde(default)]
    reason: String,
}

/// A note on copies, signed by whoever made or tried them: the signature is the only credential.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    note: String,
}

/// The router over a desk. `body_timeout` bounds how long a request's body may take.
pub(crate) fn router(desk: SharedDesk, recovery: Arc<dyn Recovery>, body_timeout: Duration) -> Router {
    let notes = post(move |headers: HeaderMap, body: Body| async move {
        let Note { note } = read(&headers, body, body_timeout).await?;
        carry_out(async move { recovery.take(note).await }).await
    });
    let commands = post(move |State(desk): State<SharedDesk>, headers: HeaderMap, body: Body| async move {
        let command: SignedCommand = read(&headers, body, body_timeout).await?;
        carry_out(async move { desk.perform(command).await }).await
    });
    let freeze = post(move |State(desk): State<SharedDesk>, headers: HeaderMap, body: Body| async move {
        let request: FreezeRequest = read(&headers, body, body_timeout).await?;
        let key = headers.get(FREEZE_KEY).and_then(|key| key.to_str().ok()).unwrap_or_default().to_owned();
        carry_out(async move { desk.freeze(&key, request.agent, request.reason).await }).await
    });
    Router::new()
        .route("/v1/health", get(async || Json(json!({ "ok": { "listener": "operators" } }))))
        .route("/v1/openapi.json", get(async || ([(header::CONTENT_TYPE, "application/json")], DESCRIPTION)))
        .route("/v1/commands", commands)
        .route("/v1/freeze", freeze)
        .route("/v1/recovery", notes)
        .with_state(desk)
}

/// Everything that is served, behind the guard.
pub(crate) fn guarded(router: Router) -> Router {
    router
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no-such-method", "this path takes another method")
        })
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "no-such-path", "there is nothing here"))
        .layer(from_fn(guard))
}

/// Turns agents away before anything is read, and marks every answer as nothing to keep, frame or guess at.
async fn guard(request: Request, next: Next) -> Response {
    let api = request.uri().path().starts_with("/v1/");
    let mut response = if carries_agent_credential(request.uri(), request.headers()) {
        Problem::new(
            StatusCode::FORBIDDEN,
            "agents-not-allowed",
            "this listener is for operators: an agent's credential is worth nothing here",
        )
        .into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    let nothing = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, if api { nothing } else { POLICY }),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        // Under `no-referrer` a browser would say that our own forms come from nowhere.
        (header::REFERRER_POLICY, if api { "no-referrer" } else { "same-origin" }),
        (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A token anywhere, or any `Authorization` at all: operators sign their commands and never send one.
fn carries_agent_credential(uri: &Uri, headers: &HeaderMap) -> bool {
    uri.to_string().contains("rpv_")
        || headers.contains_key(header::AUTHORIZATION)
        || headers.contains_key(header::PROXY_AUTHORIZATION)
        || headers.values().any(|value| value.as_bytes().windows(4).any(|window| window == b"rpv_"))
}

/// Reads a JSON body, bounded in size and time.
async fn read<T: DeserializeOwned>(headers: &HeaderMap, body: Body, body_timeout: Duration) -> Result<T, Problem> {
    let json = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).and_then(|kind| kind.split(';').next());
    if json.map(str::trim) != Some("application/json") {
        let detail = "send `Content-Type: application/json`";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", detail));
    }
    let too_large = || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "a request holds at most 64 KiB");
    if body.size_hint().lower() > LARGEST_BODY as u64 {
        return Err(too_large());
    }
    let slow = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "the request took too long to arrive");
    // What fails while it arrives is either broken off, so that nobody hears the answer, or too large.
    let bytes = timeout(body_timeout, to_bytes(body, LARGEST_BODY)).await.map_err(slow)?.map_err(|_| too_large())?;
    let wrong = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "malformed", format!("not a request of this path: {detail}"));
    // serde would also take a list for a request, by the order of its fields.
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(wrong("expected a JSON object".to_owned()));
    }
    serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))
}

/// Carries a command to its end, even if the one who sent it hangs up.
async fn carry_out(command: impl Future<Output = Result<Value, DeskError>> + Send + 'static) -> Result<Response, Problem> {
    let answer = tokio::spawn(command).await.map_err(|error| {
        tracing::error!(%error, "a command ended in a bug");
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "bug",
            "the command failed by a mistake of ours; whether it was recorded is not known",
        )
    })?;
    Ok(Json(json!({ "ok": answer? })).into_response())
}
