//! Recovery: how fast would we be back, and what proves it? For operators, and, where it is published, for everybody.
//!
//! Where nothing is proved the page says so in red, and never shows the last good number in its place.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use maud::{Markup, html};
use reprieve_gate::{Failure, RecoveryReport, Spread, SystemRecovery};
use serde_json::json;

use crate::{
    door::Entered,
    frame::{Page, Section, document},
    problem::Problem,
    site::Site,
    words::{ago, count, environment, icon, spelled, utc},
};

/// What is known, read on a thread that may block.
pub(crate) async fn report(site: &Arc<Site>) -> RecoveryReport {
    let recovery = site.console.recovery.clone();
    let nothing = RecoveryReport { at: site.now(), systems: Vec::new() };
    tokio::task::spawn_blocking(move || recovery.report()).await.unwrap_or(nothing)
}

pub(crate) async fn page(State(site): State<Arc<Site>>, Entered(who): Entered) -> Response {
    let report = report(&site).await;
    Page::new(Section::Recovery, body(&report)).answer(&site, &who)
}

/// The page for everybody; where it is not published, there is none.
pub(crate) async fn public(State(site): State<Arc<Site>>) -> Response {
    if published(&site).await.is_none() {
        return not_published().into_response();
    }
    let report = report(&site).await;
    let body = html! {
        main.public id="main" {
            header { span.brand { (icon("logo")) "Reprieve" } span.soft { (site.console.name) } }
            h1.hero { "Would they be back?" }
            (body(&report))
            p.small.muted {
                "Measured by drills: a copy is restored into an empty server, checked, and thrown away. The time runs from the command to the first query that "
                "the restored server answers; what is lost is dated by a row that is written all the time. Finding out, deciding, and pointing clients to the "
                "new server come on top. " a href="/recovery/public.json" { "The same, signed, with its proofs" } "."
            }
        }
    };
    document(&site, "Recovery", None, false, false, &body).into_response()
}

/// The same as a signed note.
pub(crate) async fn public_note(State(site): State<Arc<Site>>) -> Response {
    match published(&site).await {
        Some(note) => Json(json!({ "note": note })).into_response(),
        None => not_published().into_response(),
    }
}

async fn published(site: &Arc<Site>) -> Option<String> {
    let recovery = site.console.recovery.clone();
    tokio::task::spawn_blocking(move || recovery.published()).await.ok().flatten()
}

fn not_published() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no-such-path", "there is nothing here")
}

fn body(report: &RecoveryReport) -> Markup {
    let production: Vec<&SystemRecovery> = report.systems.iter().filter(|system| system.environment.is_production()).collect();
    let unproven = production.iter().filter(|system| system.unproven.is_some()).count();
    let same = report.systems.iter().filter(|system| system.same_blast_radius && system.backup.is_some()).count();
    html! {
        p.answer {
            @if production.is_empty() { "No database in production is known here." }
            @else if unproven == 0 { "Every database in production came back in its last drill." }
            @else { span.c-danger { (spelled(unproven)) " of " (spelled(production.len()).to_lowercase()) " in production: unproven." } }
        }
        p.under { "What counts is a copy that was restored and looked at, lately. A copy that was never tried is a hope." }
        @if same > 0 {
            div.note.hold { (icon("warn")) div { b.c-danger { "Same blast radius. " } span.soft { "Copies of " (count(same as u64, "system", "systems")) " lie where what destroys the system may destroy them, too." } } }
        }
        @for system in &report.systems { (one(system, report)) }
    }
}

fn one(system: &SystemRecovery, report: &RecoveryReport) -> Markup {
    let seconds = |ms: u64| format!("{:.1} s", ms as f64 / 1000.0);
    let promised = |seconds: Option<u64>| seconds.map_or("nothing promised".to_owned(), |seconds| format!("promised {seconds} s"));
    let spread = |spread: Option<Spread>| {
        html! {
            @match spread {
                Some(Spread { p50, p95, worst }) if system.unproven.is_none() => { b { (seconds(p50)) } " p50, " (seconds(p95)) " p95, " (seconds(worst)) " worst" }
                _ => { b.c-danger { "unproven" } }
            }
        }
    };
    html! {
        section.after aria-label=(system.system) {
            div.sec-head { h2 { span.mono { (system.system) } " " (environment(&system.environment)) }
                @if let Some(why) = system.unproven { span.seal.bad.push { (icon("x")) "Unproven: " (why.in_words()) } }
                @else { span.seal.push { (icon("check")) "Came back" } }
            }
            table.tbl { tbody {
                tr { th scope="row" { "Would be lost" } td { (spread(system.rpo_ms)) } td.muted { (promised(system.objective_rpo_s)) } }
                tr { th scope="row" { "Back after" } td { (spread(system.rto_ms)) } td.muted { (promised(system.objective_rto_s)) } }
                tr { th scope="row" { "Drills of 90 days" }
                    td { (system.drills.0) " passed, " (system.drills.1) " failed" }
                    td.muted { @if let Some((at, level, index)) = system.passed { "passed " (ago(at, report.at)) ", level " (level) ", event " (index) } @else { "none passed" } } }
                @if let Some(Failure { at, reason, remedy, .. }) = &system.failed {
                    tr { th scope="row" { "Last failure" } td { (crate::words::line(reason)) } td.muted { (utc(*at)) } }
                    tr { th scope="row" { "What was done" }
                        @if let Some((at, remedy)) = remedy { td { (crate::words::line(remedy)) } td.muted { (utc(*at)) } }
                        @else { td.muted { "nobody said" } td.muted { @if let Some((passed, ..)) = system.passed.filter(|(passed, ..)| passed > at) { "the next drill that passed: " (utc(passed)) } } } }
                }
                tr { th scope="row" { "Newest copy" }
                    td { @if let Some(at) = system.backup { (ago(at, report.at)) } @else { span.c-danger { "none" } } }
                    td.muted { (system.backups) " in 90 days" @if let Some((plain, stored)) = system.bytes { ", " (plain) " bytes in " (stored) } } }
                @if let Some(failed) = system.backup_failed.filter(|failed| system.backup.is_none_or(|made| *failed > made)) {
                    tr { th scope="row" { "Last copy" } td { span.c-danger { "failed" } } td.muted { (utc(failed)) } }
                }
                tr { th scope="row" { "Reaches" }
                    td { @if let Some(at) = system.reaches { (utc(at)) } @else { span.c-danger { "nothing" } } }
                    td.muted { "what a restore would bring back, if all were lost now" } }
                tr { th scope="row" { "Where" }
                    td { @if system.same_blast_radius { span.c-danger { (system.place) } } @else { (system.place) } }
                    td.muted { (system.locked) } }
            } }
        }
    }
}
