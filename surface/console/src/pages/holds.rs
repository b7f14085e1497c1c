//! Holds: what waits for me?

use std::sync::Arc;

use axum::{
    extract::{Query, State},
    response::{IntoResponse as _, Response},
};
use maud::{Markup, html};
use reprieve_gate::{Command, SignedIn};
use reprieve_operation::{Answer, HoldId, HoldState, HoldStatus, Protocol, Timestamp};
use serde::Deserialize;

use super::desk::{carried, parsed};
use crate::{
    door::{Entered, Posted, see_other},
    frame::{Page, Section, form_token},
    problem::Problem,
    site::Site,
    statement::in_line,
    words::{agent, bar, count, environment, hidden, icon, line, loss_of, outcome, person, rail, small_icon, span, spelled, time, visible},
};

#[derive(Deserialize)]
pub(crate) struct Asked {
    #[serde(default)]
    told: String,
}

pub(crate) async fn page(State(site): State<Arc<Site>>, Entered(who): Entered, Query(asked): Query<Asked>) -> Response {
    let now = site.now();
    let holds: Vec<HoldState> = site.console.audit.state().holds.values().rev().cloned().collect();
    let waiting: Vec<&HoldState> = holds.iter().filter(|hold| hold.status == HoldStatus::Waiting).collect();
    let scheduled: Vec<&HoldState> = holds.iter().filter(|hold| hold.status == HoldStatus::Scheduled).collect();
    let ended: Vec<&HoldState> = holds.iter().filter(|hold| !matches!(hold.status, HoldStatus::Waiting | HoldStatus::Scheduled)).collect();
    let production = waiting.iter().filter(|hold| hold.environment.is_production()).count();
    let body = html! {
        p.answer {
            @match waiting.len() {
                0 => "Nothing waits for a person.",
                1 => { "One statement waits for a person." @if production == 1 { span.c-danger { " It would change production." } } }
                more => { (spelled(more)) " statements wait for a person." @if production > 0 { span.c-danger { " " (spelled(production)) " would change production." } } }
            }
        }
        p.under { "If nobody decides, each is denied when its time runs out. Deny several at once; approve one at a time, on its own page." }
        @if !asked.told.is_empty() { p.note role="status" { (visible(&asked.told)) } }
        form method="post" action="/holds/deny" {
            (form_token(&who))
            div hx-get="/holds/waiting" hx-trigger="sse:hold" hx-target="this" hx-swap="innerHTML" { (list(&site, &waiting, now)) }
        }
        @if !scheduled.is_empty() {
            section.after aria-labelledby="sched" {
                div.sec-head { h2 id="sched" { "Approved, and waiting in sight" } span.push { "anybody may still cancel them" } }
                @for hold in &scheduled { (planned(hold, now)) }
            }
        }
        (decided(&ended, now))
    };
    Page::new(Section::Holds, body).live().answer(&site, &who)
}

/// The waiting ones alone, for a page that is open.
pub(crate) async fn waiting(State(site): State<Arc<Site>>, _who: Entered) -> Response {
    let holds: Vec<HoldState> = site.console.audit.state().holds.values().rev().cloned().collect();
    let waiting: Vec<&HoldState> = holds.iter().filter(|hold| hold.status == HoldStatus::Waiting).collect();
    list(&site, &waiting, site.now()).into_response()
}

fn list(site: &Site, waiting: &[&HoldState], now: Timestamp) -> Markup {
    html! {
        section id="waiting" aria-label="Waiting holds" {
            @for hold in waiting { (row(site, hold, now)) }
        }
        @if !waiting.is_empty() {
            div.row.fix {
                input type="text" name="reason" required maxlength="1000" placeholder="What the agents are told" aria-label="Reason to deny the selected holds";
                button.btn.main type="submit" { "Deny selected" }
            }
        }
    }
}

fn row(site: &Site, hold: &HoldState, now: Timestamp) -> Markup {
    let frozen = site.is_frozen(&hold.agent);
    let path = format!("/holds/{}", hold.hold);
    let left = hold.expires.since(now);
    let (have, need) = (hold.counted_approvals(), hold.needs.approvals.max(1));
    html! {
        article class={ "hold-row " (rail(&hold.environment)) } {
            div.lead {
                svg.i.glyph aria-hidden="true" { use href="#i-r-destroy" {} }
                input type="checkbox" name="hold" value=(hold.hold) aria-label={ "Select " (hold.hold) " to deny" };
            }
            div {
                h2 { a href=(path) data-row { (loss_of(hold)) } }
                p.meta { (environment(&hold.environment)) span.mono { (hold.system) " / " (visible(&hold.confirm)) } }
                p.st.mono.clip { @if hold.protocol == Protocol::Postgres { (in_line(&hold.text)) } @else { (line(&request_line(&hold.text))) } }
                p.meta {
                    @if let Some(gap) = super::hold::gap(hold) { span.mismatch { (icon("warn")) (gap) } }
                    @else if hidden(&hold.text) > 0 { span.mismatch { (icon("warn")) "Characters that can’t be seen are in it." } }
                    @else { span.soft { (visible(&hold.needs.reason)) } }
                }
            }
            dl.kv.sm.facts3 {
                dt { "Agent" } dd { (agent(&hold.agent, frozen)) }
                @if let Some(owner) = &hold.on_behalf_of { dt { "For" } dd { (owner) } }
                dt { "Undo" } dd { (undo_in_words(hold)) }
                dt { "Approvals" } dd { (have) " of " (need) " " (pips(have, need)) }
            }
            div.act {
                @if frozen { p.muted.small { "Agent frozen. Only a denial is possible until it is thawed." } }
                @else { p.c-hold { b data-left=(left.as_secs()) { (span(left)) } " " span.small { "left" } } }
                a.btn.main[hold.environment.is_production()] href=(path) { "Review" }
            }
        }
    }
}

/// Something that is approved, and will be carried out when its time is up.
pub(crate) fn planned(hold: &HoldState, now: Timestamp) -> Markup {
    let left = hold.due.unwrap_or(hold.expires).since(now);
    let share = left.as_secs_f64() / hold.needs.delay.as_secs_f64().max(1.0);
    html! {
        article.chg { div.sum {
            span aria-hidden="true" { (small_icon("clock")) }
            span.muted.small { (hold.hold) } (environment(&hold.environment))
            div.ttl { b { (loss_of(hold)) } small { (agent(&hold.agent, false)) " asked" @for (operator, ..) in &hold.answers { ", " (operator) " approved" } } }
            span.small.soft.mono { (hold.system) }
            div.left { small { span { "happens in" } b { (span(left)) } } (bar("h thin", share)) }
            span.act { a.btn href={ "/holds/" (hold.hold) } data-row { "Keep it…" } }
        } }
    }
}

/// A request's method and place with what its body begins with: the headers are on its page.
fn request_line(text: &str) -> String {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    format!("{} {}", head.lines().next().unwrap_or_default(), body.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// What of a hold could be taken back, in a few words.
fn undo_in_words(hold: &HoldState) -> Markup {
    html! {
        @match &hold.reach {
            Some(reach) if reach.is_undoable() => "complete",
            Some(reach) if !reach.lasting.is_empty() => span.c-danger { "not all of it" },
            _ => span.c-danger { "not known" },
        }
    }
}

pub(crate) fn pips(have: u32, need: u32) -> Markup {
    html! { span.pips aria-hidden="true" { @for at in 0..need.min(8) { i.on[at < have] {} } } }
}

/// How a hold ended.
pub(crate) fn ending(hold: &HoldState) -> Markup {
    match hold.status {
        HoldStatus::Waiting => outcome("held", "holds", "Waiting"),
        HoldStatus::Approved => outcome("ran", "check", "Approved"),
        HoldStatus::Scheduled => outcome("held", "clock", "Delayed"),
        HoldStatus::Denied => outcome("denied", "deny", "Denied"),
        HoldStatus::Expired => outcome("denied", "deny", "Expired"),
        HoldStatus::Released => outcome("ran", "check", "Running"),
        HoldStatus::Finished if hold.succeeded == Some(true) => outcome("ran", "check", "Approved, ran"),
        HoldStatus::Finished => outcome("denied", "x", "Approved, did not run"),
    }
}

fn decided(ended: &[&HoldState], now: Timestamp) -> Markup {
    if ended.is_empty() {
        return html! {};
    }
    let of = |answer: fn(&HoldState) -> bool| ended.iter().filter(|hold| answer(hold)).count();
    let denied = of(|hold| hold.status == HoldStatus::Denied);
    let expired = of(|hold| hold.status == HoldStatus::Expired);
    html! {
        section.after aria-labelledby="dec" {
            div.sec-head { h2 id="dec" { "Decided, last 3 days" }
                span.push { (ended.len()) " held: " (ended.len() - denied - expired) " approved, " (denied) " denied, " (expired) " expired." } }
            table.tbl.hoverable.fold {
                thead { tr { th scope="col" { "When" } th scope="col" { "Hold" } th scope="col" { "Where" } th scope="col" { "What" } th.num scope="col" { "Measured" } th scope="col" { "Decision" } th scope="col" { "By" } } }
                tbody { @for hold in ended.iter().take(100) {
                    tr {
                        td { (time(hold.opened, now)) } td.mono { a href={ "/holds/" (hold.hold) } { (hold.hold) } } td { (environment(&hold.environment)) }
                        td { (loss_of(hold)) }
                        td.num { @if let Some(reach) = &hold.reach { (count(reach.rows(), "row", "rows")) } @else { "–" } }
                        td { (ending(hold)) }
                        td { @if hold.answers.is_empty() { span.muted { "nobody decided" } }
                            @for (operator, _, reason) in &hold.answers { (person(operator)) @if !reason.is_empty() { ": “" (visible(reason)) "” " } } }
                    }
                } }
            }
        }
    }
}

/// Denies several. Approving is never done in a list.
pub(crate) async fn deny(State(site): State<Arc<Site>>, Posted { who, form }: Posted) -> Result<Response, Problem> {
    let holds = form.all("hold").map(parsed::<HoldId>).collect::<Result<Vec<_>, _>>()?;
    let (mut denied, mut failed) = (0u64, None);
    for hold in holds.into_iter().take(100) {
        match deny_one(&site, &who, hold, form.get("reason")).await {
            Ok(()) => denied += 1,
            Err(problem) => failed = Some(format!("{hold} was not denied: {}", problem.detail)),
        }
    }
    let told = failed.unwrap_or_else(|| format!("Denied: {}.", count(denied, "hold", "holds")));
    let told: String = form_urlencoded::byte_serialize(told.as_bytes()).collect();
    Ok(see_other(&format!("/holds?told={told}")))
}

/// Denies one, as it stands now: whatever it has become, the answer is no.
pub(crate) async fn deny_one(site: &Arc<Site>, who: &SignedIn, hold: HoldId, reason: &str) -> Result<(), Problem> {
    let signed = {
        let state = site.console.audit.state();
        let missing = || Problem::new(axum::http::StatusCode::NOT_FOUND, "no-such-hold", format!("there is no hold {hold}"));
        state.holds.get(&hold).ok_or_else(missing)?.digest_to_sign(Answer::Deny)
    };
    let command = Command::Answer { hold, answer: Answer::Deny, confirm: None, reason: reason.to_owned(), signed };
    let (counter, who) = (site.console.counter.clone(), who.clone());
    carried(async move { counter.act(who, command).await }).await?;
    Ok(())
}
