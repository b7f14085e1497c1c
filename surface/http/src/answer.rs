//! Answers: what a service said, and refusals as problem documents (RFC 9457).

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, PROXY_AUTHENTICATE, WWW_AUTHENTICATE},
};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use reprieve_gate::Gate;
use reprieve_operation::{HoldState, HoldStatus, Refusal, RefusalKind};
use serde_json::{Value, json};

use crate::mask::Mask;

/// The header with a hold's id.
const HOLD: HeaderName = HeaderName::from_static("reprieve-hold");

/// A body on its way to an agent.
pub(crate) enum Body {
    /// All of it.
    Whole(Option<Bytes>),
    /// A service's, as it comes, with the gateway's credential covered.
    Streamed { incoming: Incoming, mask: Mask, ended: bool },
}

impl Body {
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Some(bytes.into()))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = |bytes: Bytes| Poll::Ready(Some(Ok(Frame::data(bytes))));
        match self.get_mut() {
            Self::Whole(bytes) => match bytes.take() {
                Some(bytes) if !bytes.is_empty() => frame(bytes),
                _ => Poll::Ready(None),
            },
            Self::Streamed { ended: true, .. } => Poll::Ready(None),
            Self::Streamed { incoming, mask, ended } => loop {
                match Pin::new(&mut *incoming).poll_frame(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                    Poll::Ready(Some(Ok(next))) => {
                        // Trailers of an answer stay here: they were not looked at.
                        if let Ok(piece) = next.into_data() {
                            let safe = mask.push(piece);
                            if !safe.is_empty() {
                                return frame(safe);
                            }
                        }
                    }
                    Poll::Ready(None) => {
                        *ended = true;
                        let rest = mask.finish();
                        return if rest.is_empty() { Poll::Ready(None) } else { frame(rest) };
                    }
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Streamed { ended, .. } => *ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            // The mask keeps lengths as they are, so what the service said stays true.
            Self::Streamed { incoming, .. } => incoming.size_hint(),
        }
    }
}

/// An answer in JSON.
pub(crate) fn json_answer(status: StatusCode, kind: &'static str, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::whole(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A refusal in words, with what is known besides.
pub(crate) fn problem(gate: &Gate, refusal: &Refusal, more: &Value) -> Response<Body> {
    let (status, name, title) = match refusal.kind {
        RefusalKind::Held => (StatusCode::FORBIDDEN, "held", "Held: a person has to decide"),
        RefusalKind::Refused => (StatusCode::FORBIDDEN, "refused", "Refused"),
        RefusalKind::Frozen => (StatusCode::FORBIDDEN, "frozen", "Frozen"),
        RefusalKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Unavailable"),
    };
    let reach = refusal.reach.as_ref().map(|reach| format!(" Effect: {reach}.")).unwrap_or_default();
    let detail = match (refusal.kind, refusal.hold) {
        (RefusalKind::Held, Some(hold)) => format!(
            "{}. Nothing was changed.{reach} A person decides out of band about {hold}. Silence is not consent, and another route to the same \
             effect meets the same answer. Once approved, Reprieve carries out exactly this request, once; the identical request tells how \
             it stands, and then its result. Instead: {}.",
            refusal.reason, refusal.remedy
        ),
        _ => format!(
            "{}. Nothing was changed.{reach} Another route to the same effect meets the same answer. Instead: {}.",
            refusal.reason, refusal.remedy
        ),
    };
    let mut document = json!({
        "type": format!("/problems/{name}"),
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
        "outcome": name,
        "rule": refusal.rule,
        "reason": refusal.reason,
        "instead": refusal.remedy,
        "user_consent": false,
        "changed": false,
    });
    if let Some(reach) = &refusal.reach {
        document["reach"] = json!(reach);
    }
    if let Some(hold) = refusal.hold {
        document["hold"] = json!(hold.to_string());
        document["link"] = json!(gate.hold_link(hold));
        document["state"] = json!(format!("/holds/{hold}"));
    }
    if let (Some(fields), Some(more)) = (document.as_object_mut(), more.as_object()) {
        fields.extend(more.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    let mut response = json_answer(status, "application/problem+json", &document);
    if let Some(hold) = refusal.hold.and_then(|hold| HeaderValue::from_str(&hold.to_string()).ok()) {
        response.headers_mut().insert(HOLD, hold);
    }
    response
}

/// Nobody knows who asks. The same words whatever was wrong.
pub(crate) fn who_are_you(by_proxy: bool) -> Response<Body> {
    let (status, header) = if by_proxy {
        (StatusCode::PROXY_AUTHENTICATION_REQUIRED, PROXY_AUTHENTICATE)
    } else {
        (StatusCode::UNAUTHORIZED, WWW_AUTHENTICATE)
    };
    let document = json!({
        "type": "/problems/refused",
        "title": "Not authenticated",
        "status": status.as_u16(),
        "detail": "The agent's name or its token is missing or wrong. Nothing was changed.",
        "outcome": "refused",
        "rule": "not-authenticated",
        "user_consent": false,
        "changed": false,
    });
    let mut response = json_answer(status, "application/problem+json", &document);
    response.headers_mut().insert(header, HeaderValue::from_static("Basic realm=\"reprieve\""));
    response
}

/// The service can't be reached, or its answer can't be passed on. `sent`: the request may have been carried out.
pub(crate) fn no_answer(reason: &str, sent: bool) -> Response<Body> {
    let status = StatusCode::BAD_GATEWAY;
    let detail = if sent {
        format!("{reason}. The request was sent: whether it was carried out is not known.")
    } else {
        format!("{reason}. Nothing was changed.")
    };
    let document = json!({
        "type": "/problems/no-answer",
        "title": "No answer from the service",
        "status": status.as_u16(),
        "detail": detail,
        "outcome": if sent { "unknown" } else { "failed" },
        "user_consent": false,
    });
    json_answer(status, "application/problem+json", &document)
}

/// Where a hold stands, for its agent.
pub(crate) fn hold_answer(hold: &HoldState) -> Response<Body> {
    let status = match hold.status {
        HoldStatus::Waiting => "waiting",
        HoldStatus::Approved => "approved",
        HoldStatus::Scheduled => "scheduled",
        HoldStatus::Denied => "denied",
        HoldStatus::Expired => "expired",
        HoldStatus::Released => "running",
        HoldStatus::Finished if hold.succeeded == Some(true) => "done",
        HoldStatus::Finished => "failed",
    };
    let said = hold.answers.last().map(|(_, _, reason)| reason.clone());
    let document = json!({
        "hold": hold.hold.to_string(), "state": status, "system": hold.system, "environment": hold.environment,
        "rule": hold.needs.rule, "reason": hold.needs.reason, "opened_ms": hold.opened.0, "expires_ms": hold.expires.0,
        "due_ms": hold.due.map(|due| due.0), "reach": hold.reach,
        "answer": said, "user_consent": false,
    });
    json_answer(StatusCode::OK, "application/json", &document)
}

/// A service's headers as an agent gets them: nothing of the connection, no credential, no cookie.
pub(crate) fn passed_on(headers: &HeaderMap, mask: &Mask) -> HeaderMap {
    const NOT_PASSED: [&str; 10] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "transfer-encoding",
        "trailer",
        "upgrade",
        "set-cookie",
        "alt-svc",
        "reprieve-hold",
    ];
    let mut passed = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        if NOT_PASSED.contains(&name.as_str()) {
            continue;
        }
        let value = match mask.cover(value.as_bytes()) {
            Some(covered) => HeaderValue::from_bytes(&covered).unwrap_or_else(|_| HeaderValue::from_static("***")),
            None => value.clone(),
        };
        passed.append(name.clone(), value);
    }
    passed
}
