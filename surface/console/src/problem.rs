//! Refusals as `application/problem+json` (RFC 9457).

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use reprieve_gate::DeskError;
use serde_json::json;

/// A refusal: its status, its name and what is said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) name: &'static str,
    pub(crate) detail: String,
    pub(crate) retry_after_s: Option<u64>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, name: &'static str, detail: impl Into<String>) -> Self {
        Self { status, name, detail: detail.into(), retry_after_s: None }
    }
}

impl From<DeskError> for Problem {
    fn from(error: DeskError) -> Self {
        let detail = error.to_string();
        let (status, name, retry_after_s) = match error {
            DeskError::NotAuthenticated => (StatusCode::UNAUTHORIZED, "not-authenticated", None),
            DeskError::TooMany { seconds } => (StatusCode::TOO_MANY_REQUESTS, "too-many", Some(seconds)),
            DeskError::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden", None),
            DeskError::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid", None),
            DeskError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", None),
        };
        Self { status, name, detail, retry_after_s }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.name.replace('-', " ");
        let body =
            json!({ "type": format!("/problems/{}", self.name), "title": title, "status": self.status.as_u16(), "detail": self.detail });
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Reprieve-Signature"));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
