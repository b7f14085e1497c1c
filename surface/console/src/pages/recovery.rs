//! Recovery: how fast would we be back, and what proves it? For operators, and, where it is published, for everybody.
//!
//! Where nothing is proved the page says so in red, and never shows the last good number in its place.

mod chart;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use maud::{Markup, html};
use reprieve_gate::{Failure, LastDrill, RecoveryReport, Spread, SystemRecovery};
use reprieve_operation::Timestamp;
use serde::Deserialize;
use serde_json::json;

use self::chart::{Chart, strip};
use crate::{
    assets::ICONS,
    door::Entered,
    frame::{Page, Section, document},
    problem::Problem,
    site::Site,
    words::{ago, bytes, count, environment, icon, line, measured, ours, promised, spelled, time, time_of_year, utc},
};

/// How many failures the page for everybody tells of.
const TOLD: usize = 8;

/// Which system is looked at closely.
#[derive(Deserialize)]
pub(crate) struct Asked {
    system: Option<String>,
}

/// What is known, read on a thread that may block.
pub(crate) async fn report(site: &Arc<Site>) -> RecoveryReport {
    let recovery = site.console.recovery.clone();
    let nothing = RecoveryReport { at: site.now(), systems: Vec::new() };
    tokio::task::spawn_blocking(move || recovery.report()).await.unwrap_or(nothing)
}

pub(crate) async fn page(State(site): State<Arc<Site>>, Entered(who): Entered, Query(asked): Query<Asked>) -> Response {
    let report = report(&site).await;
    let body = body(&report, asked.system.as_deref(), site.console.recovery.is_published());
    Page::new(Section::Recovery, body).answer(&site, &who)
}

/// The page for everybody; where it is not published, there is none.
pub(crate) async fn public(State(site): State<Arc<Site>>) -> Response {
    if !site.console.recovery.is_published() {
        return not_published().into_response();
    }
    let body = for_everybody(&report(&site).await, &site.console.name);
    document(&site, "Recovery", None, false, false, &body).into_response()
}

/// The same as a signed note.
pub(crate) async fn public_note(State(site): State<Arc<Site>>) -> Response {
    let recovery = site.console.recovery.clone();
    match tokio::task::spawn_blocking(move || recovery.published()).await.ok().flatten() {
        Some(note) => Json(json!({ "note": note })).into_response(),
        None => not_published().into_response(),
    }
}

fn not_published() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no-such-path", "there is nothing here")
}

/// What the production systems come to, together.
enum Answer<'a> {
    /// There is none.
    Nothing,
    /// So many of so many are unproven.
    Unproven(usize, usize),
    /// Each came back in its last drill: the slowest one, its time, and the most that was lost where all of them measured it.
    Back { slowest: &'a SystemRecovery, at: Timestamp, rto_ms: u64, rpo_ms: Option<u64>, of: usize },
}

impl<'a> Answer<'a> {
    fn of(report: &'a RecoveryReport) -> Self {
        let production: Vec<&SystemRecovery> = report.systems.iter().filter(|system| system.environment.is_production()).collect();
        let proven = |system: &'a SystemRecovery| {
            let last = system.last.as_ref().filter(|last| system.unproven.is_none() && last.passed)?;
            Some((system, last, last.rto_ms?))
        };
        let drills: Vec<(&SystemRecovery, &LastDrill, u64)> = production.iter().filter_map(|system| proven(system)).collect();
        match drills.iter().max_by_key(|(_, _, rto_ms)| *rto_ms) {
            _ if production.is_empty() => Self::Nothing,
            Some(&(slowest, last, rto_ms)) if drills.len() == production.len() => {
                let lost: Option<Vec<u64>> = drills.iter().map(|(_, last, _)| last.rpo_ms).collect();
                Self::Back { slowest, at: last.at, rto_ms, rpo_ms: lost.and_then(|lost| lost.into_iter().max()), of: drills.len() }
            }
            _ => Self::Unproven(production.len() - drills.len(), production.len()),
        }
    }
}

const HOPE: &str = "What counts is a copy that was restored and looked at, lately. A copy that was never tried is a hope.";

fn body(report: &RecoveryReport, asked: Option<&str>, is_published: bool) -> Markup {
    let close = report
        .systems
        .iter()
        .find(|system| asked == Some(system.system.as_str()))
        .or_else(|| report.systems.iter().find(|system| system.environment.is_production() && system.backup.is_some()))
        .or_else(|| report.systems.first());
    html! {
        div.row.top {
            div {
                @match Answer::of(report) {
                    Answer::Nothing => { p.answer { "No database in production is known here." } p.under { (HOPE) } }
                    Answer::Unproven(unproven, of) => {
                        p.answer { span.c-danger { (spelled(unproven)) " of " (spelled(of).to_lowercase()) " in production: unproven." } }
                        p.under { (HOPE) }
                    }
                    Answer::Back { slowest, at, rto_ms, rpo_ms, of } => {
                        p.answer { "You could be back in " (measured(rto_ms)) @if let Some(lost) = rpo_ms { ", losing at most " (measured(lost)) " of data" } "." }
                        p.under {
                            "Measured by " @if of == 1 { "the drill" } @else { "the last drills of " (spelled(of).to_lowercase()) " systems, the slowest" }
                            " of " span.mono { (slowest.system) } ", " (ago(at, report.at)) ", not estimated."
                            @if let (Some(rto), Some(rpo)) = (slowest.objective_rto_s, slowest.objective_rpo_s) { " Promised: " (promised(rto)) " and " (promised(rpo)) "." }
                        }
                    }
                }
            }
            @if is_published { span.push.row { a.btn href="/recovery/public" { "Public page" (icon("ext")) } } }
        }
        (radius(report))
        @if let Some(system) = close { (closely(system, report.at)) }
        @if !report.systems.is_empty() { (copies(report, close)) }
    }
}

/// That copies may go with what they are copies of.
fn radius(report: &RecoveryReport) -> Markup {
    let same = report.systems.iter().filter(|system| system.same_blast_radius && system.backup.is_some()).count();
    html! {
        @if same > 0 {
            div.note.hold { (icon("warn")) div { b.c-danger { "Same blast radius. " } span.soft { "Copies of " (count(same as u64, "system", "systems")) " lie where what destroys the system may destroy them, too." } } }
        }
    }
}

/// One system's drills over time, its last drill, and what is known of its copies.
fn closely(system: &SystemRecovery, now: Timestamp) -> Markup {
    let name = &system.system;
    let drawn = |title: &str, id: &str, side: &str, chart: &Chart<'_>| {
        html! {
            section aria-labelledby=(id) {
                div.sec-head { h2 id=(id) { (title) ", " (chart.unit().0) } span.push { (side) } }
                div.scroll tabindex="0" role="region" aria-label={ "Chart: " (title) } { (chart.draw()) }
            }
        }
    };
    let (back, lost) = (format!("Time to recover {name}"), format!("Data of {name} lost at most"));
    let today = now.0 / 86_400_000;
    let rto = Chart {
        what: &back,
        days: &system.days,
        today,
        of: |day| day.rto_ms,
        is_proven: system.unproven.is_none(),
        promised: system.objective_rto_s,
        base: 170.0,
    };
    let rpo = Chart { what: &lost, of: |day| day.rpo_ms, promised: system.objective_rpo_s, base: 118.0, ..rto };
    html! {
        div.split.after {
            div.stack-l {
                (drawn("Time to recover", "r-rto", &format!("{name}, the slowest drill of each day, 90 days"), &rto))
                (drawn("Data lost at most", "r-rpo", "dated by a row that is written all the time", &rpo))
            }
            div.stack-l {
                section aria-labelledby="r-last" {
                    div.sec-head { h2 id="r-last" { "Last drill" } span.push.mono { (system.last.as_ref().map_or("", |last| last.drill.as_str())) } }
                    (last_drill(system, now))
                }
                div.card.sunk { div.body.stack {
                    p.lab { "Who can restore" }
                    p.small.soft { "People only: a restore waits for an approval, and never goes over what is there. "
                        @if system.tried_apart { "Drills are signed with a key that is not on this gateway, and that no agent's token reaches." }
                        @else { "Drills are signed with a key that no agent's token reaches. It is on this gateway: keep it on a machine of its own." } }
                    p.small.mono { "reprieve drill run " (name) }
                } }
            }
        }
        section.after aria-label=(name) { (proof(system)) (facts(system, now)) }
    }
}

fn last_drill(system: &SystemRecovery, now: Timestamp) -> Markup {
    let Some(last) = &system.last else { return html! { p.muted { "There was no drill in 90 days." } } };
    let (stood, all) = last.checks;
    html! {
        ol.tl {
            @for (step, ms) in &last.phases { li { time { (measured(*ms)) } " " (line(step)) } }
            @if all > 0 { li { (count(all as u64, "check", "checks")) ", " (stood) " stood" } }
            @if last.passed {
                li.ok { (time(last.at, now)) " " b { "Passed." } @if let Some(ms) = last.rto_ms { " Back after " (measured(ms)) } @if let Some(ms) = last.rpo_ms { ", " (measured(ms)) " lost" } }
            } @else {
                li.deny { (time(last.at, now)) " " b { "Failed." } @if let Some(failed) = system.failures.first() { " " (line(&failed.reason)) } }
            }
        }
    }
}

/// Name and seal.
fn proof(system: &SystemRecovery) -> Markup {
    html! {
        div.sec-head { h2 { span.mono { (system.system) } " " (environment(&system.environment)) }
            @if let Some(why) = system.unproven { span.seal.bad.push { (icon("x")) "Unproven: " (why.in_words()) } }
            @else { span.seal.push { (icon("check")) "Came back" } }
        }
    }
}

/// All systems, a line each.
fn copies(report: &RecoveryReport, close: Option<&SystemRecovery>) -> Markup {
    let last = |system: &SystemRecovery, of: fn(&LastDrill) -> Option<u64>| {
        let ms = system.last.as_ref().filter(|last| system.unproven.is_none() && last.passed).and_then(of);
        html! { @match ms { Some(ms) => { (measured(ms)) }, None => { span.muted { "unknown" } } } }
    };
    html! {
        section.after aria-labelledby="bk" {
            div.sec-head { h2 id="bk" { "Copies" } span.push { "restored and looked at, not only written" } }
            div.scroll tabindex="0" role="region" aria-label="Copies, table" { table.tbl.hoverable {
                thead { tr { th scope="col" { "Data" } th scope="col" { "Where" } th scope="col" { "Stored in" } th scope="col" { "Blast radius" } th scope="col" { "Came back" } th.num scope="col" { "Data loss" } th.num scope="col" { "Back in" } th.num scope="col" { "Promise" } th scope="col" { "Drills, 90 days" } } }
                tbody { @for system in &report.systems {
                    tr {
                        td.mono { @if close.is_some_and(|close| close.system == system.system) { (system.system) } @else { a href={ "/recovery?system=" (system.system) } { (system.system) } } }
                        td { (environment(&system.environment)) }
                        td.small { (system.place.split(": ").next().unwrap_or_default()) }
                        td { @if system.backup.is_none() { span.muted { "no copy" } }
                            @else if system.same_blast_radius { span.tag.danger { (icon("warn")) "the same" } }
                            @else { span.tag.ok { (icon("check")) "separate" } } }
                        td { @if let Some(why) = system.unproven { span.c-danger { (why.in_words()) } } @else if let Some((at, ..)) = system.passed { (time(at, report.at)) } }
                        td.num { (last(system, |last| last.rpo_ms)) }
                        td.num { (last(system, |last| last.rto_ms)) }
                        td.num.muted { (system.objective_rto_s.map_or_else(|| "none".to_owned(), promised)) }
                        td { (system.drills.0) " of " (system.drills.0 + system.drills.1) " passed" }
                    }
                } }
            } }
        }
    }
}

/// What is known of a system's copies, and how.
fn facts(system: &SystemRecovery, now: Timestamp) -> Markup {
    let objective =
        |seconds: Option<u64>| seconds.map_or("nothing promised".to_owned(), |seconds| format!("promised {}", promised(seconds)));
    let spread = |spread: Option<Spread>| {
        html! {
            @match spread {
                Some(Spread { p50, p95, worst }) if system.unproven.is_none() => { b { (measured(p50)) } " p50, " (measured(p95)) " p95, " (measured(worst)) " worst" }
                _ => { b.c-danger { "unproven" } }
            }
        }
    };
    html! {
        table.tbl.facts { tbody {
            tr { th scope="row" { "Would be lost" } td { (spread(system.rpo_ms)) } td.muted { (objective(system.objective_rpo_s)) } }
            tr { th scope="row" { "Back after" } td { (spread(system.rto_ms)) } td.muted { (objective(system.objective_rto_s)) } }
            tr { th scope="row" { "Drills of 90 days" }
                td { (system.drills.0) " passed, " (system.drills.1) " failed" }
                td.muted { @if let Some((at, level, index)) = system.passed { "passed " (ago(at, now)) ", level " (level) ", event " (index) } @else { "none passed" } } }
            @if let Some(Failure { at, reason, remedy, .. }) = system.failures.first() {
                tr { th scope="row" { "Last failure" } td { (line(reason)) } td.muted { (utc(*at)) } }
                tr { th scope="row" { "What was done" }
                    @if let Some((at, remedy)) = remedy { td { (line(remedy)) } td.muted { (utc(*at)) } }
                    @else { td.muted { "nobody said" } td.muted { @if let Some((passed, ..)) = system.passed.filter(|(passed, ..)| passed > at) { "the next drill that passed: " (utc(passed)) } } } }
            }
            tr { th scope="row" { "Newest copy" }
                td { @if let Some(at) = system.backup { (ago(at, now)) } @else { span.c-danger { "none" } } }
                td.muted { (system.backups) " in 90 days" @if let Some((plain, stored)) = system.bytes { ", " (bytes(plain)) " in " (bytes(stored)) } } }
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

/// The page that customers read.
fn for_everybody(report: &RecoveryReport, name: &str) -> Markup {
    let today = report.at.0 / 86_400_000;
    html! {
        (ours(ICONS))
        div.public-page { main.public.stack-l id="main" {
            header { span.brand { (icon("logo")) "Reprieve" } b { (name) } span.soft { "Data recovery" } a.seal.push href="/recovery/public.json" { (icon("check")) "Signed" } }
            (hero(report))
            (radius(report))
            @for system in &report.systems {
                section aria-label=(system.system) { (proof(system)) (strip(&system.days, today)) (facts(system, report.at)) }
            }
            (happened(report))
            (kept(report))
            p.small.muted.foot-note {
                "Measured by drills: a copy is restored into an empty server, checked, and thrown away. The time runs from the command to the first query that "
                "the restored server answers; what is lost is dated by a row that is written all the time. Finding out, deciding, and pointing clients to the "
                "new server come on top. " a href="/recovery/public.json" { "The same, signed, with its proofs" } ": " span.mono { "reprieve verify" } " checks it with the public key."
            }
        } }
    }
}

fn hero(report: &RecoveryReport) -> Markup {
    let longest = |of: fn(&SystemRecovery) -> Option<Spread>| {
        report.systems.iter().filter(|system| system.environment.is_production()).filter_map(of).map(|spread| spread.worst).max()
    };
    let card = |what: &str, ms: Option<u64>, objective: Option<u64>, longest: Option<u64>| {
        html! { div {
            p.muted.small { (what) }
            p.big { (ms.map_or_else(|| "not measured".to_owned(), measured)) }
            p.small.soft { @if let Some(seconds) = objective { "Promised: " (promised(seconds)) ". " } @if let Some(ms) = longest { "Most in 90 days: " (measured(ms)) "." } }
        } }
    };
    html! {
        @match Answer::of(report) {
            Answer::Nothing => { div { h1.hero { "No database in production is known here." } p.soft { (HOPE) } } }
            Answer::Unproven(unproven, of) => {
                div {
                    h1.hero { @if of == 1 { "Nothing proves that our database would come back." } @else { "Of " (spelled(of).to_lowercase()) " databases, nothing proves that " (spelled(unproven).to_lowercase()) " would come back." } }
                    p.c-danger { (spelled(unproven)) " of " (spelled(of).to_lowercase()) " in production: unproven." }
                    p.soft { (HOPE) }
                }
            }
            Answer::Back { slowest, rto_ms, rpo_ms, of, .. } => {
                div {
                    h1.hero { @if of == 1 { "If our database were lost now, it" } @else { "If our databases were lost now, all" } " would be back in " (measured(rto_ms)) "." }
                    p.soft { @if of == 1 { "We rebuild it from a copy on an empty server" } @else { "We rebuild them from copies on empty servers" } ", again and again. This number is measured, not guessed." }
                }
                div.promise {
                    (card("Back within", Some(rto_ms), slowest.objective_rto_s, longest(|system| system.rto_ms)))
                    (card("Data lost at most", rpo_ms, slowest.objective_rpo_s, longest(|system| system.rpo_ms)))
                }
            }
        }
    }
}

/// What failed, and what was done about it.
fn happened(report: &RecoveryReport) -> Markup {
    let mut failures: Vec<(&SystemRecovery, &Failure)> =
        report.systems.iter().flat_map(|system| system.failures.iter().map(move |failure| (system, failure))).collect();
    failures.sort_by_key(|(_, failure)| std::cmp::Reverse(failure.at));
    html! {
        section aria-labelledby="s-what" {
            div.sec-head { h2 id="s-what" { "What happened" } span.push { "drills that failed, 90 days" } }
            @if failures.is_empty() { p.muted { "No drill failed." } }
            ol.tl { @for (system, failure) in failures.iter().take(TOLD) {
                li.deny {
                    (time_of_year(failure.at, report.at)) " The drill of " span.mono { (system.system) } " failed: " (line(&failure.reason))
                    @if let Some((_, remedy)) = &failure.remedy { " " b { "What was done: " } (line(remedy)) }
                }
            } }
        }
    }
}

/// What holds for every copy in production, and what doesn't.
fn kept(report: &RecoveryReport) -> Markup {
    let all = |of: fn(&SystemRecovery) -> bool| report.systems.iter().filter(|system| system.environment.is_production()).all(of);
    let point = |holds: bool, yes: &str, no: &str| {
        html! { li class=(if holds { "y" } else { "n" }) { (icon(if holds { "check" } else { "x" })) span { (if holds { yes } else { no }) } } }
    };
    html! {
        @if report.systems.iter().any(|system| system.environment.is_production() && system.backup.is_some()) {
            section aria-labelledby="s-how" {
                div.sec-head { h2 id="s-how" { "How we keep this promise" } }
                ul.chk {
                    (point(all(|system| !system.same_blast_radius), "Copies lie where what destroys a database does not reach them.", "Copies lie where what destroys a database may destroy them, too."))
                    (point(all(|system| system.is_locked), "Each copy is looked at for a lock that nobody can take away before its time.", "Copies are not known to be locked against whoever can write them."))
                    (point(all(|system| system.tried_apart), "Whoever makes copies can't say that they come back: who tries them has a key elsewhere.", "What tries the copies has its key where they are made."))
                    (point(all(|system| system.unproven.is_none()), "Every copy that counts was restored and checked: rows, definitions, foreign keys, and how old its newest row is.", "Not every database came back in its last drill."))
                }
            }
        }
    }
}
