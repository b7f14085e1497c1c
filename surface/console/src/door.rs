//! The door of every page: who is in, which forms are theirs, and what an answer tells the browser.

use std::{net::IpAddr, sync::Arc};

use axum::{
    body::{Body, to_bytes},
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use maud::html;
use reprieve_gate::SignedIn;
use tokio::time::timeout;

use crate::{problem::Problem, site::Site};

/// The session's cookie. The prefix makes browsers keep it for this host, on all paths, over TLS only.
const COOKIE: &str = "__Host-reprieve";
const WAY: &str = "__Host-reprieve-way";
const FORM_TOKEN: HeaderName = HeaderName::from_static("x-form-token");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const LARGEST_FORM: usize = 256 * 1024;

/// The address a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Somebody who is in.
pub(crate) struct Entered(pub(crate) SignedIn);

/// Somebody who is in and sent one of their own forms.
pub(crate) struct Posted {
    pub(crate) who: SignedIn,
    pub(crate) form: Form,
}

/// A body that needs no session: signing in and enrolling.
pub(crate) struct Unsigned(pub(crate) Vec<u8>);

/// A form's fields, in order.
#[derive(Debug, Default)]
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        Self(form_urlencoded::parse(bytes).into_owned().collect())
    }

    /// A field, without blanks around it.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.trim()).unwrap_or_default()
    }

    /// A field exactly as it came.
    pub(crate) fn exact(&self, name: &str) -> &str {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// The session's cookie for a new session, or to forget the old one.
pub(crate) fn cookie(secret: Option<&str>) -> HeaderValue {
    let text = match secret {
        Some(secret) => format!("{COOKIE}={secret}; Path=/; Max-Age=28800; Secure; HttpOnly; SameSite=Strict"),
        None => format!("{COOKIE}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict"),
    };
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The cookie of who is on their way to another sign-in: it has to come back by a link of theirs, so it is lax, and lasts minutes.
pub(crate) fn way_cookie(kept: Option<&str>) -> HeaderValue {
    let text = match kept {
        Some(kept) => format!("{WAY}={kept}; Path=/; Max-Age=600; Secure; HttpOnly; SameSite=Lax"),
        None => format!("{WAY}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax"),
    };
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// What that cookie holds; nothing where there are two.
pub(crate) fn way_secret(headers: &HeaderMap) -> Option<String> {
    only_cookie(headers, WAY).map(str::to_owned)
}

/// A cookie that came once.
fn only_cookie<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|line| line.split(';'));
    let mut own = cookies.filter_map(|pair| pair.trim().split_once('=')).filter(|(name, _)| *name == wanted).map(|(_, value)| value);
    let value = own.next()?;
    (own.next().is_none() && !value.is_empty()).then_some(value)
}

/// What a session is bound to.
pub(crate) fn browser(headers: &HeaderMap) -> &str {
    headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Who is in, by the cookie. A browser that sends two of them is not believed.
pub(crate) fn who(site: &Site, headers: &HeaderMap) -> Option<SignedIn> {
    let secret = only_cookie(headers, COOKIE)?;
    site.console.reception.session(secret, browser(headers))
}

impl FromRequestParts<Arc<Site>> for Entered {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, site: &Arc<Site>) -> Result<Self, Response> {
        match who(site, &parts.headers) {
            Some(who) => Ok(Self(who)),
            None => Err(to_sign_in(&parts.method, &parts.uri, &parts.headers)),
        }
    }
}

impl FromRequest<Arc<Site>> for Posted {
    type Rejection = Response;

    async fn from_request(request: Request, site: &Arc<Site>) -> Result<Self, Response> {
        let (parts, body) = request.into_parts();
        check_site(site, &parts.headers).map_err(Problem::into_response)?;
        let who = who(site, &parts.headers).ok_or_else(|| {
            Problem::new(StatusCode::UNAUTHORIZED, "not-authenticated", "your session is over: sign in again").into_response()
        })?;
        let bytes = read_body(site, body).await.map_err(Problem::into_response)?;
        let form = Form::read(&bytes);
        let token = parts.headers.get(FORM_TOKEN).and_then(|value| value.to_str().ok()).unwrap_or_else(|| form.get("form_token"));
        if !same(token.as_bytes(), who.form_token.as_bytes()) {
            return Err(Problem::new(StatusCode::FORBIDDEN, "not-your-form", "this form is not of your session: load the page again")
                .into_response());
        }
        Ok(Self { who, form })
    }
}

impl FromRequest<Arc<Site>> for Unsigned {
    type Rejection = Response;

    async fn from_request(request: Request, site: &Arc<Site>) -> Result<Self, Response> {
        let (parts, body) = request.into_parts();
        check_site(site, &parts.headers).map_err(Problem::into_response)?;
        read_body(site, body).await.map(Self).map_err(Problem::into_response)
    }
}

/// Every post has to say that it comes from one of our pages: all browsers do.
fn check_site(site: &Site, headers: &HeaderMap) -> Result<(), Problem> {
    let origin = headers.get(header::ORIGIN).and_then(|value| value.to_str().ok());
    let site_is_own = headers.get(FETCH_SITE).is_none_or(|value| value == "same-origin");
    if origin == Some(site.console.origin.as_str()) && site_is_own {
        return Ok(());
    }
    Err(Problem::new(StatusCode::FORBIDDEN, "another-site", "this was sent from another site, and did nothing"))
}

async fn read_body(site: &Site, body: Body) -> Result<Vec<u8>, Problem> {
    let slow = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "the request took too long to arrive");
    let large = |_| Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "a form holds at most 256 KiB");
    let bytes = timeout(site.body_timeout, to_bytes(body, LARGEST_FORM)).await.map_err(slow)?.map_err(large)?;
    if bytes.windows(4).any(|window| window == b"rpv_") {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "agents-not-allowed",
            "this listener is for operators: an agent's token is worth nothing here",
        ));
    }
    Ok(bytes.to_vec())
}

/// Compares in a time that tells nothing but the length.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |all, (one, other)| all | (one ^ other)) == 0
}

/// Leads to the sign-in page and back. A link from elsewhere, such as a mail, comes without the strict cookie: the page asks once more
/// from our own site before it sends anybody to sign in.
fn to_sign_in(method: &Method, uri: &Uri, headers: &HeaderMap) -> Response {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    if headers.contains_key("hx-request") || method != Method::GET {
        return Problem::new(StatusCode::UNAUTHORIZED, "not-authenticated", "your session is over: sign in again").into_response();
    }
    if headers.get(FETCH_SITE).is_some_and(|value| value == "cross-site") {
        let again = format!("0;url={path}");
        let page = html! {
            (maud::DOCTYPE) html lang="en" { head { title { "Reprieve" } meta http-equiv="refresh" content=(again); } body { a href=(path) { "Go on" } } }
        };
        return page.into_response();
    }
    let next: String = form_urlencoded::byte_serialize(path.as_bytes()).collect();
    see_other(&format!("/signin?next={next}"))
}

pub(crate) fn see_other(path: &str) -> Response {
    let location = HeaderValue::from_str(path).unwrap_or_else(|_| HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}

/// A path of ours to go on to, and nothing that leads elsewhere.
pub(crate) fn own_path(text: &str) -> &str {
    let plain = text.starts_with('/') && !text.starts_with("//") && !text.contains(['\\', '\n', '\r', '\t']);
    if plain && !text.starts_with("/signin") { text } else { "/live" }
}

/// Pages are found under one name only, whatever points here (DNS rebinding).
pub(crate) async fn one_name(site: Arc<Site>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if host == site.console.authority() {
        return next.run(request).await;
    }
    if request.method() == Method::GET {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let location = format!("{}{path}", site.console.origin);
        if let Ok(location) = HeaderValue::from_str(&location) {
            return (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response();
        }
    }
    Problem::new(StatusCode::MISDIRECTED_REQUEST, "another-name", "the console has another name").into_response()
}

/// What pages may do: load from here, and nothing else.
pub(crate) const POLICY: &str = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_paths_are_gone_on_to() {
        for good in ["/live", "/holds/H-1?x=1"] {
            assert_eq!(own_path(good), good);
        }
        for bad in ["", "https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/signin?next=/signin", "/a\nb"]
        {
            assert_eq!(own_path(bad), "/live", "{bad:?}");
        }
    }

    #[test]
    fn fields_are_found_by_name() {
        let form = Form::read(b"a=1&b=x%20y&a=2&c=%26&name=%20t%20");
        assert_eq!((form.get("a"), form.get("b"), form.get("c"), form.get("none")), ("1", "x y", "&", ""));
        assert_eq!(form.all("a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!((form.get("name"), form.exact("name")), ("t", " t "));
    }
}
