//! One hold: should this run?
//!
//! What is shown is what is signed: the form carries the digest of the operation, its reach and the answer as they were on the page,
//! and the desk refuses it when either has become another.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use maud::{Markup, html};
use reprieve_gate::{Command, RecordQuery, UNSIGNED};
use reprieve_operation::{
    Answer, Digest, Effect, Event, HeldReason, HoldId, HoldState, HoldStatus, Kind, OperatorName, Recorded, Timestamp,
};

use self::{
    decision::{decision, thumb},
    evidence::{blast_radius, claims, quoted, samples, statement, verdict, way_back},
};
use super::{
    desk::{carried, parsed, propose},
    holds::{deny_one, ending},
};
use crate::{
    door::{Entered, Posted, see_other},
    frame::{Page, Section},
    problem::Problem,
    site::Site,
    statement::claimed_rows,
    words::{Risk, agent, count, number, person, small_icon, span, time, time_of_day, utc, visible},
};

pub(crate) mod decision;
mod evidence;

pub(crate) async fn page(State(site): State<Arc<Site>>, Entered(who): Entered, Path(id): Path<String>) -> Result<Response, Problem> {
    let id: HoldId = parsed(&id)?;
    let (hold, people, similar) = {
        let state = site.console.audit.state();
        let missing = || Problem::new(StatusCode::NOT_FOUND, "no-such-hold", format!("there is no hold {id} of the last three days"));
        let hold = state.holds.get(&id).cloned().ok_or_else(missing)?;
        let people: Vec<OperatorName> = state.operators.keys().cloned().collect();
        let alike = |other: &&HoldState| other.hold != id && other.system == hold.system && other.confirm == hold.confirm;
        let similar: Vec<HoldState> = state.holds.values().rev().filter(alike).take(6).cloned().collect();
        (hold, people, similar)
    };
    let records = site.console.records.clone();
    let query = RecordQuery { hold: Some(id), limit: 50, ..RecordQuery::default() };
    let told = tokio::task::spawn_blocking(move || records.search(&query)).await.ok().and_then(Result::ok).unwrap_or_default();
    let now = site.now();
    let destructive = risk(&hold) == Risk::Destroy;
    let body = html! {
        article.split.hold {
            div.stack-l {
                (verdict(&site, &hold, now))
                (claims(&hold))
                (statement(&hold))
                (blast_radius(&hold, now))
                (samples(&hold))
                (way_back(&site, &hold))
            }
            aside.sticky aria-label="Decision" { (decision(&site, &hold, &people, &who, now)) }
            div.stack-l.part-b {
                (who_asked(&site, &hold, now))
                (similar_before(&similar, now))
                (story(&hold, &told))
            }
        }
        (thumb(&hold))
    };
    Ok(Page::new(Section::Holds, body).below(hold.hold.to_string()).destructive(destructive).live().answer(&site, &who))
}

fn risk(hold: &HoldState) -> Risk {
    let kinds: Vec<Kind> = hold.effects.iter().map(Effect::kind).collect();
    Risk::of(&kinds, hold.reach.as_ref())
}

/// The gap between what the agent says and what was measured, where there is one.
pub(crate) fn gap(hold: &HoldState) -> Option<String> {
    let claimed = evidence::words_of(hold).as_deref().and_then(claimed_rows)?;
    let measured = hold.reach.as_ref().map(reprieve_operation::Reach::rows).filter(|measured| *measured > claimed)?;
    Some(format!("It said {}. {}", count(claimed, "row", "rows"), evidence::times_as_many(Some(claimed), measured).unwrap_or_default()))
}

fn who_asked(site: &Site, hold: &HoldState, now: Timestamp) -> Markup {
    let token = site.console.audit.state().agents.get(&hold.agent).map(|entry| (entry.scope.clone(), entry.expires));
    html! {
        section aria-labelledby="h-who" {
            div.sec-head { h2 id="h-who" { "Who asked, and by which rule it is held" } }
            (quoted(hold))
            dl.kv.facts {
                dt { "Agent" } dd { (agent(&hold.agent, site.is_frozen(&hold.agent))) }
                @if let Some(owner) = &hold.on_behalf_of { dt { "On behalf of" } dd { (person(owner)) } }
                dt { "Token" } dd { span.mono { (hold.token) } @if let Some((scope, expires)) = &token {
                    span.muted { " " (listed(&scope.kinds)) " on " (listed(&scope.systems)) ", expires " (time_until(*expires, now)) } } }
                dt { "Session" } dd { a.mono href={ "/audit?q=" (hold.session) } { (hold.session) } }
                dt { "Rule" } dd { a.mono href="/policies" { (visible(&hold.needs.rule)) } " " span.muted { (visible(&hold.needs.reason)) } }
                dt { "Instead" } dd { (visible(&hold.needs.remedy)) }
            }
        }
    }
}

pub(crate) fn time_until(at: Timestamp, now: Timestamp) -> Markup {
    html! { @if at <= now { "already" } @else { "in " (span(at.since(now))) } }
}

fn similar_before(similar: &[HoldState], now: Timestamp) -> Markup {
    if similar.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby="h-sim" {
            div.sec-head { h2 id="h-sim" { "Similar before" } span.push { "the same system and name, last 3 days" } }
            table.tbl.fold {
                thead { tr { th scope="col" { "When" } th scope="col" { "Hold" } th scope="col" { "Agent" } th.num scope="col" { "Rows" } th scope="col" { "Decision" } } }
                tbody { @for hold in similar { tr {
                    td { (time(hold.opened, now)) } td.mono { a href={ "/holds/" (hold.hold) } { (hold.hold) } } td { (agent(&hold.agent, false)) }
                    td.num data-l="rows" { @if let Some(reach) = &hold.reach { (number(reach.rows())) } @else { "–" } }
                    td { (ending(hold)) @for (operator, _, reason) in &hold.answers { " " span.muted { "by " (operator) @if !reason.is_empty() { ": “" (visible(reason)) "”" } } } }
                } } }
            }
        }
    }
}

fn listed<T: std::fmt::Display>(all: impl IntoIterator<Item = T>) -> String {
    all.into_iter().map(|one| one.to_string()).collect::<Vec<_>>().join(", ")
}

/// What the ledger says of this hold, in order.
fn story(hold: &HoldState, told: &[Recorded]) -> Markup {
    html! {
        section aria-labelledby="h-tl" {
            div.sec-head { h2 id="h-tl" { "This hold" } span.push.small { "each line with its proof" } }
            ol.tl { @for recorded in told.iter().rev() {
                @let (class, words) = step(&recorded.event);
                li class=(class) { (time_of_day(recorded.at)) " " (words) " " a.small href={ "/audit/" (recorded.index) } aria-label={ "Record " (recorded.index) } { (small_icon("audit")) } }
                }
                @if hold.status == HoldStatus::Waiting {
                    @let more = hold.needs.approvals.max(1).saturating_sub(hold.counted_approvals());
                    li.next { span.muted { "Waiting for " (count(u64::from(more), "person", "people")) ", or for " (utc(hold.expires)) } }
                }
            }
        }
    }
}

fn step(event: &Event) -> (&'static str, Markup) {
    match event {
        Event::HoldOpened { reason, hold, .. } => (
            "hold",
            html! { @if *reason == HeldReason::Measured { "Measured in a transaction, rolled back, and held. " } @else { "Held before it ran. " } "The agent was told to wait and got " span.mono { (hold) } },
        ),
        Event::HoldAnswered { operator, answer, .. } if *answer == Answer::Approve => ("ok", html! { (operator) " approved" }),
        Event::HoldAnswered { operator, signature, .. } if signature.starts_with(UNSIGNED) => {
            ("deny", html! { (operator) " denied " span.muted { "out of a session, without a signature" } })
        }
        Event::HoldAnswered { operator, .. } => ("deny", html! { (operator) " denied" }),
        Event::HoldExpired { .. } => ("", html! { "Nobody decided in time: denied" }),
        Event::HoldCancelled { operator, .. } => ("", html! { (operator) " cancelled it" }),
        Event::HoldReleased { .. } => ("", html! { "Its one run began" }),
        Event::HoldFinished { succeeded, .. } => ("ok", html! { @if *succeeded { "It ran" } @else { "It did not run" } }),
        Event::Notified { channel, delivered, .. } => {
            if *delivered {
                ("", html! { "Told on " (visible(channel)) })
            } else {
                ("deny", html! { (visible(channel)) " could not be told" })
            }
        }
        Event::ResultDelivered { .. } => ("", html! { "The agent fetched the result" }),
        _ => ("", html! { (event.kind()) }),
    }
}

pub(crate) async fn deny(State(site): State<Arc<Site>>, Path(id): Path<String>, Posted { who, form }: Posted) -> Result<Response, Problem> {
    let id: HoldId = parsed(&id)?;
    let agent = site.console.audit.state().holds.get(&id).map(|hold| hold.agent.clone());
    // Freezing first: whatever becomes of the denial, the agent has stopped.
    if let (Some(agent), false) = (agent, form.get("freeze").is_empty()) {
        let (counter, who, reason) = (site.console.counter.clone(), who.clone(), format!("denied {id}: {}", form.get("reason")));
        let command = Command::Freeze { agent: Some(agent), reason: reason.chars().take(900).collect() };
        carried(async move { counter.act(who, command).await }).await?;
    }
    deny_one(&site, &who, id, form.get("reason")).await?;
    Ok(see_other(&format!("/holds/{id}")))
}

/// Proposes an approval of what was shown.
pub(crate) async fn approve(
    State(site): State<Arc<Site>>,
    Path(id): Path<String>,
    Posted { who, form }: Posted,
) -> Result<Response, Problem> {
    let id: HoldId = parsed(&id)?;
    let malformed = |text: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", text);
    let signed = Digest::try_from(form.get("signed").to_owned()).map_err(malformed)?;
    let (confirm, reason) = (Some(form.exact("confirm").to_owned()), form.get("reason").to_owned());
    let command = Command::Answer { hold: id, answer: Answer::Approve, confirm, reason, signed };
    propose(&site, &who, command, &format!("/holds/{id}"))
}
