//! Files that pages need, all of them ours or vendored: nothing is asked of another host.
//!
//! `htmx.min.js` is htmx 2.0.11 and `sse.min.js` its extension 2.2.4, both under 0BSD, as published.

use std::sync::LazyLock;

use axum::{
    body::Body,
    extract::Path,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use reprieve_operation::Digest;

use crate::problem::Problem;

/// A file: its name, its type and its bytes.
type Asset = (&'static str, &'static str, &'static [u8]);

const ASSETS: [Asset; 4] = [
    ("reprieve.css", "text/css; charset=utf-8", include_bytes!("../assets/reprieve.css")),
    ("console.js", "text/javascript; charset=utf-8", include_bytes!("../assets/console.js")),
    ("htmx.min.js", "text/javascript; charset=utf-8", include_bytes!("../assets/htmx.min.js")),
    ("sse.min.js", "text/javascript; charset=utf-8", include_bytes!("../assets/sse.min.js")),
];

/// Every icon, as symbols of one drawing.
pub(crate) const ICONS: &str = include_str!("../assets/icons.svg");

/// Changes with every file, so that a browser may keep them for ever.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let parts: Vec<&[u8]> = ASSETS.iter().map(|(_, _, bytes)| *bytes).collect();
    Digest::of(&parts).short()
});

/// The path of a file.
pub(crate) fn path(name: &str) -> String {
    format!("/assets/{name}?v={}", *VERSION)
}

pub(crate) async fn asset(Path(name): Path<String>) -> Response {
    let Some((_, kind, bytes)) = ASSETS.iter().find(|(own, ..)| *own == name) else {
        return Problem::new(StatusCode::NOT_FOUND, "no-such-path", "there is nothing here").into_response();
    };
    let mut response = Response::new(Body::from(*bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    response
}
