//! Signing in and enrolling: what somebody sees who is not in yet.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use maud::{Markup, html};
use reprieve_gate::{DeskError, NewPasskey, ProviderAnswer, SignIn};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    door::{Form, Peer, Posted, Unsigned, browser, cookie, own_path, see_other, way_cookie, way_secret},
    frame::document,
    problem::Problem,
    site::Site,
    words::{icon, ours, visible},
};

#[derive(Deserialize)]
pub(crate) struct Asked {
    #[serde(default)]
    next: String,
    #[serde(default)]
    enrolled: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Secret {
    secret: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Enrolment {
    secret: String,
    code: Option<String>,
    passkey: NewPasskey,
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let wrong =
        |error: serde_json::Error| Problem::new(StatusCode::BAD_REQUEST, "malformed", format!("not a request of this path: {error}"));
    serde_json::from_slice(bytes).map_err(wrong)
}

fn door(site: &Arc<Site>, title: &str, body: &Markup) -> Markup {
    let body = html! {
        (ours(crate::assets::ICONS))
        main.door id="main" { div.panel {
            p.brand { (icon("logo")) "Reprieve" }
            (body)
            noscript { p.small.c-danger { "Passkeys need JavaScript. The terminal works without: " code { "reprieve hold list" } } }
        } }
    };
    document(site, title, None, false, false, &body)
}

pub(crate) async fn page(State(site): State<Arc<Site>>, Query(asked): Query<Asked>) -> Response {
    let next = own_path(&asked.next);
    let body = html! {
        h1.door-h { "Sign in to " (site.console.name) }
        form.stack data-signin data-next=(next) {
            @if !asked.enrolled.is_empty() { p.small { "Your passkey is enrolled. Sign in with it." } }
            button.btn.main.block type="submit" { (icon("key")) "Continue with passkey" }
            (crate::frame::say())
        }
        @if let Some(provider) = &site.console.provider {
            p.door-p { a.btn.block href={ "/signin/oidc?next=" (encoded(next)) } { "Continue with " (visible(provider.name())) } }
            p.small.muted.door-p { "It opens the pages. To approve something you need a passkey all the same." }
        }
        p.small.door-p { a href="/enrol" { "Lost your passkey? Use a recovery code" } }
        p.small.muted.door-p { "No passwords, so none can be found on a disk. Agents cannot sign in here; they hold tokens." }
    };
    door(&site, "Sign in", &body).into_response()
}

/// The longest path that rides along in a cookie.
const LONGEST_PATH: usize = 1_000;

fn encoded(path: &str) -> String {
    form_urlencoded::byte_serialize(path.as_bytes()).collect()
}

/// Sends the browser to the organisation's own sign-in.
pub(crate) async fn to_provider(State(site): State<Arc<Site>>, Query(asked): Query<Asked>) -> Result<Response, Problem> {
    let provider = site.console.provider.as_ref().ok_or_else(no_provider)?;
    let redirect = match provider.begin().await {
        Ok(redirect) => redirect,
        Err(error) => return Ok(turned_away(&site, error)),
    };
    let mut response = see_other(&redirect.url);
    // What one goes on to rides along in the cookie: it is a path of ours, whatever it was.
    let next = if asked.next.len() > LONGEST_PATH { "" } else { &asked.next };
    let kept = format!("{}.{}", redirect.secret, encoded(own_path(next)));
    response.headers_mut().insert(header::SET_COOKIE, way_cookie(Some(&kept)));
    Ok(response)
}

/// Takes in who comes back from there. The page is reached by a link of the provider's, so it changes nothing but for the cookie's owner.
pub(crate) async fn from_provider(
    State(site): State<Arc<Site>>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    Query(brought): Query<Brought>,
) -> Result<Response, Problem> {
    let provider = site.console.provider.as_ref().ok_or_else(no_provider)?;
    let kept = way_secret(&headers).unwrap_or_default();
    let (secret, next) = kept.split_once('.').unwrap_or((&kept, ""));
    let next = Form::read(format!("next={next}").as_bytes()).get("next").to_owned();
    let answer = ProviderAnswer { code: brought.code, state: brought.state, issuer: brought.iss };
    let come = match provider.finish(secret.to_owned(), answer).await {
        Ok(vouched) => site.console.reception.admit(vouched, browser(&headers), peer).await,
        Err(error) => Err(error),
    };
    let mut response = match come {
        Ok(signed_on) => {
            let mut response = see_other(own_path(&next));
            response.headers_mut().append(header::SET_COOKIE, cookie(Some(&signed_on.secret)));
            response
        }
        Err(error) => turned_away(&site, error),
    };
    response.headers_mut().append(header::SET_COOKIE, way_cookie(None));
    Ok(response)
}

/// Why somebody is not in, in words for people; the log has the rest.
fn turned_away(site: &Arc<Site>, error: DeskError) -> Response {
    let because = match &error {
        DeskError::NotAuthenticated => {
            "its answer was not good, or not for this browser, or it is not about one of our operators".to_owned()
        }
        DeskError::TooMany { .. } | DeskError::Forbidden(_) | DeskError::Invalid(_) | DeskError::Unavailable(_) => error.to_string(),
    };
    let body = html! {
        h1.door-h { "You are not signed in" }
        p { "Your organisation’s sign-in was not taken: " (visible(&because)) "." }
        p.door-p { a.btn.main.block href="/signin" { "Sign in another way" } }
    };
    (Problem::from(error).status, door(site, "Not signed in", &body)).into_response()
}

/// What the provider sends back, by the browser.
#[derive(Deserialize)]
pub(crate) struct Brought {
    #[serde(default)]
    code: String,
    #[serde(default)]
    state: String,
    iss: Option<String>,
}

fn no_provider() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no-provider", "no other sign-in is configured here")
}

pub(crate) async fn enrol_page(State(site): State<Arc<Site>>) -> Response {
    let body = html! {
        h1.door-h { "Give yourself a passkey" }
        form.stack data-recover hidden {
            div { label.lab for="recovery" { "Recovery code" } input.mono id="recovery" name="recovery" type="text" required maxlength="60" autocapitalize="none" autocomplete="off" spellcheck="false"; }
            button.btn.main.block type="submit" { "Go on" }
        }
        form.stack data-enrol {
            p { "For operator " b data-who { "…" } "." }
            div { label.lab for="label" { "Name of this passkey" } input id="label" name="label" type="text" required maxlength="60" placeholder="This laptop, or a phone"; }
            div data-code hidden { label.lab for="code" { "Code of your second factor" } input id="code" name="code" type="text" inputmode="numeric" pattern="[0-9]{6}" maxlength="6" autocomplete="one-time-code"; }
            button.btn.main.block type="submit" disabled { (icon("key")) "Make a passkey" }
            (crate::frame::say())
        }
        p.small.muted.door-p { "Keep it on another device than the one agents run on. The invitation works once." }
    };
    door(&site, "Give yourself a passkey", &body).into_response()
}

pub(crate) async fn challenge(State(site): State<Arc<Site>>, _body: Unsigned) -> Response {
    Json(json!({ "challenge": site.console.reception.challenge() })).into_response()
}

/// Signs in. Whatever cookie the browser had, the session is a new one.
pub(crate) async fn sign_in(
    State(site): State<Arc<Site>>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    Unsigned(body): Unsigned,
) -> Result<Response, Problem> {
    let sign_in: SignIn = read(&body)?;
    let signed_on = site.console.reception.sign_in(sign_in, browser(&headers), peer).await?;
    let mut response = Json(json!({ "operator": signed_on.operator, "then": "/live" })).into_response();
    response.headers_mut().insert(header::SET_COOKIE, cookie(Some(&signed_on.secret)));
    Ok(response)
}

pub(crate) async fn enrol_begin(State(site): State<Arc<Site>>, Unsigned(body): Unsigned) -> Result<Response, Problem> {
    let Secret { secret } = read(&body)?;
    Ok(Json(site.console.reception.invited(&secret)?).into_response())
}

pub(crate) async fn enrol(State(site): State<Arc<Site>>, Unsigned(body): Unsigned) -> Result<Response, Problem> {
    let Enrolment { secret, code, passkey } = read(&body)?;
    let operator = site.console.reception.enrol(&secret, code.as_deref(), passkey).await?;
    Ok(Json(json!({ "operator": operator })).into_response())
}

pub(crate) async fn sign_out(State(site): State<Arc<Site>>, posted: Posted) -> Response {
    site.console.reception.sign_out(&posted.who.session);
    let mut response = see_other("/signin");
    response.headers_mut().insert(header::SET_COOKIE, cookie(None));
    response
}
