//! The pages: every path a browser may ask for.

mod agents;
mod audit;
mod checklist;
mod desk;
mod hold;
mod holds;
mod live;
mod policies;
mod recovery;
mod report;
mod signin;
mod systems;
mod undo;
mod welcome;

use std::sync::Arc;

use axum::{
    Router,
    middleware::from_fn,
    routing::{get, post},
};

pub(crate) use self::holds::ending;
use crate::{
    assets::asset,
    door::{one_name, see_other},
    site::Site,
};

/// Every page's method and path; a test compares the router with it. All but the first thirteen take a session.
pub const PAGES: [(&str, &str); 48] = [
    ("GET", "/"),
    ("GET", "/assets/{name}"),
    ("GET", "/signin"),
    ("POST", "/signin"),
    ("POST", "/signin/challenge"),
    ("GET", "/signin/oidc"),
    ("GET", "/signin/oidc/callback"),
    ("GET", "/enrol"),
    ("POST", "/enrol"),
    ("POST", "/enrol/begin"),
    ("GET", "/favicon.ico"),
    ("GET", "/recovery/public"),
    ("GET", "/recovery/public.json"),
    ("POST", "/signout"),
    ("POST", "/confirm"),
    ("POST", "/freeze"),
    ("POST", "/thaw"),
    ("GET", "/events"),
    ("GET", "/welcome"),
    ("GET", "/live"),
    ("GET", "/holds"),
    ("GET", "/holds/waiting"),
    ("POST", "/holds/deny"),
    ("GET", "/holds/{id}"),
    ("POST", "/holds/{id}/deny"),
    ("POST", "/holds/{id}/approve"),
    ("GET", "/undo"),
    ("GET", "/undo/{id}"),
    ("POST", "/undo/{id}"),
    ("GET", "/agents"),
    ("GET", "/agents/new"),
    ("POST", "/agents/new"),
    ("GET", "/agents/{name}"),
    ("GET", "/agents/{name}/report"),
    ("POST", "/agents/{name}/narrow"),
    ("POST", "/agents/{name}/revoke"),
    ("POST", "/operators/invite"),
    ("POST", "/operators/passkey"),
    ("POST", "/operators/role"),
    ("POST", "/operators/recovery"),
    ("GET", "/systems"),
    ("GET", "/policies"),
    ("POST", "/policies/check"),
    ("GET", "/recovery"),
    ("GET", "/audit"),
    ("GET", "/audit/export"),
    ("GET", "/audit/{index}"),
    ("GET", "/checklist"),
];

/// The pages' router.
pub(crate) fn router(site: Arc<Site>) -> Router {
    let named = site.clone();
    Router::new()
        .route("/", get(async || see_other("/live")))
        .route("/favicon.ico", get(async || axum::http::StatusCode::NO_CONTENT))
        .route("/assets/{name}", get(asset))
        .route("/signin", get(signin::page).post(signin::sign_in))
        .route("/signin/challenge", post(signin::challenge))
        .route("/signin/oidc", get(signin::to_provider))
        .route("/signin/oidc/callback", get(signin::from_provider))
        .route("/enrol", get(signin::enrol_page).post(signin::enrol))
        .route("/enrol/begin", post(signin::enrol_begin))
        .route("/signout", post(signin::sign_out))
        .route("/confirm", post(desk::confirm))
        .route("/freeze", post(desk::freeze))
        .route("/thaw", post(desk::thaw))
        .route("/events", get(live::events))
        .route("/welcome", get(welcome::page))
        .route("/live", get(live::page))
        .route("/holds", get(holds::page))
        .route("/holds/waiting", get(holds::waiting))
        .route("/holds/deny", post(holds::deny))
        .route("/holds/{id}", get(hold::page))
        .route("/holds/{id}/deny", post(hold::deny))
        .route("/holds/{id}/approve", post(hold::approve))
        .route("/undo", get(undo::page))
        .route("/undo/{id}", get(undo::change).post(undo::apply))
        .route("/agents", get(agents::page))
        .route("/agents/new", get(agents::new).post(agents::create))
        .route("/agents/{name}", get(agents::one))
        .route("/agents/{name}/report", get(report::page))
        .route("/agents/{name}/narrow", post(agents::narrow))
        .route("/agents/{name}/revoke", post(agents::revoke))
        .route("/operators/invite", post(agents::invite))
        .route("/operators/passkey", post(agents::remove_passkey))
        .route("/operators/role", post(agents::give_role))
        .route("/operators/recovery", post(agents::recovery_codes))
        .route("/systems", get(systems::page))
        .route("/policies", get(policies::page))
        .route("/policies/check", post(policies::check))
        .route("/recovery", get(recovery::page))
        .route("/recovery/public", get(recovery::public))
        .route("/recovery/public.json", get(recovery::public_note))
        .route("/audit", get(audit::page))
        .route("/audit/export", get(audit::export))
        .route("/audit/{index}", get(audit::entry))
        .route("/checklist", get(checklist::page))
        .layer(from_fn(move |request, next| one_name(named.clone(), request, next)))
        .with_state(site)
}
