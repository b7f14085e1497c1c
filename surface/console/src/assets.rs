//! Files that pages need, all of them ours or vendored: nothing is asked of another host.
//!
//! `htmx.min.js` is htmx 2.0.11 and `sse.min.js` its extension 2.2.4, both under 0BSD, as published.

use std::{io::Write as _, sync::LazyLock};

use axum::{
    body::Body,
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use flate2::{Compression, write::GzEncoder};
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

/// Each file packed, in the same order; empty where that failed. Pages themselves are not: what is packed together with a secret tells of it.
static PACKED: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let pack = |bytes: &[u8]| {
        let mut packer = GzEncoder::new(Vec::new(), Compression::best());
        packer.write_all(bytes).and_then(|()| packer.finish()).unwrap_or_default()
    };
    ASSETS.iter().map(|(_, _, bytes)| pack(bytes)).collect()
});

/// The path of a file.
pub(crate) fn path(name: &str) -> String {
    format!("/assets/{name}?v={}", *VERSION)
}

pub(crate) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let Some((at, (_, kind, bytes))) = ASSETS.iter().enumerate().find(|(_, (own, ..))| *own == name) else {
        return Problem::new(StatusCode::NOT_FOUND, "no-such-path", "there is nothing here").into_response();
    };
    let takes = |coding: &str| coding.split(';').next().map(str::trim) == Some("gzip") && !coding.contains("q=0");
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let packed = PACKED.get(at).filter(|packed| !packed.is_empty() && accepted.split(',').any(takes));
    let mut response = Response::new(packed.map_or_else(|| Body::from(*bytes), |packed| Body::from(packed.as_slice())));
    if packed.is_some() {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    response
}
