//! Audit: what happened, and can I prove it?

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Path, Query, State},
    http::StatusCode,
    response::Response,
};
use maud::{Markup, html};
use reprieve_gate::{RecordQuery, RecordsError, Searched, UNSIGNED};
use reprieve_operation::{AgentName, Answer, Event, HoldId, Outcome, Protocol, Recorded, RefusalKind};
use serde::Deserialize;

use super::{desk::text_file, undo::unavailable};
use crate::{
    door::Entered,
    frame::{Page, Section},
    problem::Problem,
    site::Site,
    statement::in_line,
    words::{agent, icon, line, number, outcome, person, small_icon, time, time_of_day, utc, visible},
};

const PAGE: usize = 60;
/// How long a search goes back through the record before it shows what it has.
const PATIENCE: Duration = Duration::from_millis(120);
const MOST_EXPORTED: usize = 1_000;

#[derive(Deserialize, Default)]
pub(crate) struct Asked {
    #[serde(default)]
    q: String,
    #[serde(default)]
    agent: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    before: Option<u64>,
}

impl Asked {
    /// What was typed: `agent:NAME`, `kind:KIND`, `H-17`, and any other word as text.
    fn query(&self, limit: usize) -> RecordQuery {
        let mut query = RecordQuery { before: self.before.filter(|before| *before < 1 << 62), limit, ..RecordQuery::default() };
        query.agent = self.agent.parse::<AgentName>().ok();
        query.kind = Some(self.kind.clone()).filter(|kind| !kind.is_empty());
        let mut rest = Vec::new();
        for word in self.q.split_whitespace() {
            if let Some(name) = word.strip_prefix("agent:") {
                query.agent = name.parse().ok();
            } else if let Some(kind) = word.strip_prefix("kind:") {
                query.kind = Some(kind.to_owned());
            } else if let Some(hold) = word.strip_prefix("H-").and_then(|digits| digits.parse().ok()) {
                query.hold = Some(HoldId(hold));
            } else {
                rest.push(word);
            }
        }
        // Events keep numbers without their letter.
        query.text = Some(rest.join(" ")).filter(|text| !text.is_empty());
        query
    }

    /// The same search, further back.
    fn older(&self, before: u64) -> String {
        let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        format!("/audit?q={}&agent={}&kind={}&before={before}", encode(&self.q), encode(&self.agent), encode(&self.kind))
    }
}

async fn search(site: &Arc<Site>, query: RecordQuery) -> Result<Vec<Recorded>, Problem> {
    let records = site.console.records.clone();
    let done = tokio::task::spawn_blocking(move || records.search(&query)).await;
    done.map_err(|error| unavailable(RecordsError::Unavailable(error.to_string())))?.map_err(unavailable)
}

pub(crate) async fn page(State(site): State<Arc<Site>>, Entered(who): Entered, Query(asked): Query<Asked>) -> Result<Response, Problem> {
    let (records, query) = (site.console.records.clone(), asked.query(PAGE));
    let done = tokio::task::spawn_blocking(move || records.search_for(&query, PATIENCE)).await;
    let done = done.map_err(|error| unavailable(RecordsError::Unavailable(error.to_string())))?.map_err(unavailable)?;
    let Searched { found, stopped_at } = done;
    let size = site.console.audit.state().size;
    let typed = if asked.q.is_empty() && !asked.agent.is_empty() { format!("agent:{}", asked.agent) } else { asked.q.clone() };
    let export: String = form_urlencoded::byte_serialize(typed.as_bytes()).collect();
    let body = html! {
        div.row.top {
            div {
                p.answer { (number(size)) " events, in one log that can only grow." }
                p.under { "Each is a leaf of a tree whose root is signed. " code { "reprieve ledger verify" } " computes all of it again; an event’s page has its proof." }
            }
            span.push.row { a.btn href={ "/audit/export?q=" (export) } { (icon("download")) "Export" } }
        }
        form.filters role="search" aria-label="Search the log" action="/audit" {
            div.find.wide { (icon("search")) input type="search" name="q" value=(typed) aria-label="Query: words, agent:NAME, kind:KIND or H-17"; }
            @for (kind, word) in [("", "Everything"), ("hold_opened", "Holds"), ("hold_answered", "Answers"), ("concluded", "Changes"), ("frozen", "Freezes")] {
                label.pick { input type="radio" name="kind" value=(kind) checked[asked.kind == kind]; (word) }
            }
            button.btn.sm type="submit" { "Search" }
        }
        (entries(&site, &found, stopped_at.is_none()))
        @if let Some(stopped_at) = stopped_at {
            p.foot-note role="status" { "Looked through events " (number(stopped_at)) " to " (number(asked.before.unwrap_or(size).saturating_sub(1))) ". " a href=(asked.older(stopped_at)) { "Look further back" } }
        }
        @if found.len() == PAGE && let Some(last) = found.last() { p.small.muted.foot-note { a href=(asked.older(last.index)) { "Older" } } }
    };
    Ok(Page::new(Section::Audit, body).answer(&site, &who))
}

fn entries(site: &Site, found: &[Recorded], whole: bool) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Entries" { table.tbl.hoverable {
            thead { tr { th scope="col" { "Entry" } th scope="col" { "Time" } th scope="col" { "Actor" } th scope="col" { "Event" } th scope="col" { "Outcome" } } }
            tbody {
                @for recorded in found { tr {
                    td.mono { a href={ "/audit/" (recorded.index) } data-row { (number(recorded.index)) } } td { (time_of_day(recorded.at)) }
                    td { (actor(site, &recorded.event)) } td { (what(&recorded.event)) } td { (result(&recorded.event)) }
                } }
                @if found.is_empty() && whole { tr { td.muted colspan="5" { "Nothing matches." } } }
                @if found.is_empty() && !whole { tr { td.muted colspan="5" { "Nothing so far." } } }
            }
        } }
    }
}

fn actor(site: &Site, event: &Event) -> Markup {
    match event {
        Event::HoldAnswered { operator, .. }
        | Event::SignedIn { operator, .. }
        | Event::PasskeyEnrolled { operator, .. }
        | Event::RecoveryCodesMade { operator, .. }
        | Event::CodeSpent { operator, .. }
        | Event::DrillRemedied { operator, .. }
        | Event::UndoStarted { operator, .. } => person(operator),
        Event::Thawed { by, .. }
        | Event::TokenNarrowed { by, .. }
        | Event::TokenRevoked { by, .. }
        | Event::PasskeyRemoved { by, .. }
        | Event::RoleGiven { by, .. }
        | Event::TokenIssued { by, .. } => person(by),
        Event::Frozen { by, .. } => html! { (visible(by)) },
        _ => match event.agent() {
            Some(name) => agent(name, site.is_frozen(name)),
            None => html! { span.small.soft { "gateway" } },
        },
    }
}

/// An event in a line.
pub(crate) fn what(event: &Event) -> Markup {
    html! {
        @match event {
            Event::Intent { text, system, .. } => { code { (line(text)) } " " span.muted { (system) } },
            Event::Concluded { intent, outcome, .. } => { span.mono { (intent) } @if let Outcome::Done { reach, .. } = outcome { ": " (visible(&reach.to_string())) } @else if let Outcome::Refused { refusal } = outcome { ": " (visible(&refusal.reason)) } },
            Event::Reads { reads, system, .. } => { (number(reads.iter().map(|tally| tally.count).sum())) " reads " span.muted { (system) } },
            Event::HoldOpened { hold, text, protocol: Protocol::Postgres, .. } => { a href={ "/holds/" (hold) } { (hold) } " " code { (in_line(text)) } },
            Event::HoldOpened { hold, text, .. } => { a href={ "/holds/" (hold) } { (hold) } " " code { (line(text)) } },
            Event::HoldAnswered { hold, answer, reason, .. } => { @if *answer == Answer::Approve { "Approved " } @else { "Denied " } a href={ "/holds/" (hold) } { (hold) } @if !reason.is_empty() { ": “" (visible(reason)) "”" } },
            Event::Frozen { agent, reason, .. } => { "Froze " @match agent { Some(name) => (name), None => "all agents" } ": " (visible(reason)) },
            Event::Thawed { agent, reason, .. } => { "Thawed " @match agent { Some(name) => (name), None => "all agents" } ": " (visible(reason)) },
            Event::TokenIssued { token, agent, .. } => { "Issued " span.mono { (token) } " to " (agent) },
            Event::TokenNarrowed { token, .. } => { "Narrowed " span.mono { (token) } },
            Event::TokenRevoked { token, .. } => { "Revoked " span.mono { (token) } },
            Event::SessionOpened { session, system, peer, .. } => { "Connected to " (system) " from " (visible(peer)) ", " span.mono { (session) } },
            Event::SessionRefused { claimed, reason, .. } => { "Turned away: " (visible(claimed)) ", " (visible(reason)) },
            Event::SignedIn { peer, .. } => { "Signed in from " (visible(peer)) },
            Event::RoleGiven { operator, role, .. } => { (operator) " is " (role) " now" },
            Event::RecoveryCodesMade { digests, .. } => { "Made " (number(digests.len() as u64)) " recovery codes" },
            Event::PasskeyEnrolled { label, .. } => { "Enrolled a passkey: " (visible(label)) },
            Event::Notified { hold, channel, delivered, attempts, detail } => { @if *delivered { "Told " } @else { "Could not tell " } b { (visible(channel)) } " of " a href={ "/holds/" (hold) } { (hold) } @if *attempts > 1 { ", " (attempts) " attempts" } @if !detail.is_empty() { ": " (visible(detail)) } },
            Event::Alarm { what, .. } => b { (visible(what)) },
            Event::DrillRemedied { system, drill, remedy, .. } => { "About the failed drill " span.mono { (visible(drill)) } " of " (system) ": “" (visible(remedy)) "”" },
            Event::PolicyActivated { profile, digest } => { "Policy in force: " (visible(profile)) ", " span.mono { (digest.short()) } },
            Event::PolicyRejected { reason } => { "Policy refused: " (visible(reason)) },
            Event::UndoStarted { reverts, .. } => { "Takes back " @for undo in reverts.iter().take(8) { (undo) " " } },
            _ => (event.kind().replace('_', " ")),
        }
    }
}

/// What became of it.
pub(crate) fn result(event: &Event) -> Markup {
    match event {
        Event::Concluded { outcome: done, .. } => match done {
            Outcome::Done { reach, .. } if reach.is_undoable() && !reach.is_empty() => outcome("undo", "undo", "Undoable"),
            Outcome::Done { .. } => outcome("ran", "check", "Ran"),
            Outcome::Failed { .. } => outcome("ran", "x", "Failed"),
            Outcome::Refused { refusal } if refusal.kind == RefusalKind::Held => outcome("held", "holds", "Held"),
            Outcome::Refused { refusal } if refusal.kind == RefusalKind::Frozen => outcome("denied", "deny", "Refused"),
            Outcome::Refused { .. } => outcome("denied", "deny", "Denied"),
            Outcome::Abandoned => outcome("undo", "undo", "Rolled back"),
            Outcome::Unknown => outcome("held", "warn", "Not known"),
        },
        Event::HoldOpened { .. } => outcome("held", "holds", "Held"),
        Event::HoldAnswered { answer: Answer::Deny, signature, .. } if signature.starts_with(UNSIGNED) => {
            html! { (outcome("denied", "deny", "Denied")) " " span.small.muted { "unsigned" } }
        }
        Event::HoldAnswered { answer: Answer::Deny, .. } | Event::HoldExpired { .. } => outcome("denied", "deny", "Denied"),
        Event::HoldAnswered { .. } => outcome("ran", "key", "Signed"),
        Event::Frozen { .. } | Event::DecoyPresented { .. } => outcome("", "freeze", "Frozen"),
        _ => html! {},
    }
}

#[derive(Deserialize)]
pub(crate) struct Form {
    #[serde(default, rename = "as")]
    form: String,
}

/// One event with its proof, or the proof as a file.
pub(crate) async fn entry(
    State(site): State<Arc<Site>>,
    Entered(who): Entered,
    Path(index): Path<String>,
    Query(asked): Query<Form>,
) -> Result<Response, Problem> {
    let index: u64 = index.parse().map_err(|_| Problem::new(StatusCode::NOT_FOUND, "no-such-record", "an entry is a number"))?;
    let records = site.console.records.clone();
    let proven = tokio::task::spawn_blocking(move || records.prove(index)).await;
    let proven = proven.map_err(|error| unavailable(RecordsError::Unavailable(error.to_string())))?.map_err(unavailable)?;
    let body = String::from_utf8_lossy(&proven.body).into_owned();
    match asked.form.as_str() {
        "proof" => return Ok(text_file(&format!("event-{index}.proof"), "text/plain; charset=utf-8", proven.text)),
        "event" => return Ok(text_file(&format!("event-{index}.json"), "application/json", body)),
        _ => {}
    }
    let recorded: Option<Recorded> = serde_json::from_str(&body).ok();
    let value: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    let pretty = serde_json::to_string_pretty(&value).unwrap_or(body);
    let now = site.now();
    let page = html! {
        p.answer { "Event " (number(index)) " is in the signed log." }
        p.under { "With " (proven.hashes) " neighbours’ hashes it gives the root of the newest checkpoint, which was checked as this page was made. Changing or dropping any event would change that root." }
        div.split.wide-aside.audit-split {
            div.stack-l {
                @if let Some(recorded) = &recorded { dl.kv.facts {
                    dt { "When" } dd { (utc(recorded.at)) " " span.muted { (time(recorded.at, now)) } }
                    dt { "Who" } dd { (actor(&site, &recorded.event)) } dt { "What" } dd { (what(&recorded.event)) } dt { "Outcome" } dd { (result(&recorded.event)) }
                } }
                figure.stmt { pre { code { @for part in pretty.split('\n') { span.l { (visible(part)) } } } } figcaption.foot { span { "As recorded" } } }
            }
            aside.card aria-labelledby="en" {
                div.head { h2 id="en" { "Proof" } span.seal.push { (small_icon("check")) "Included in the signed log" } }
                div.body.stack {
                    pre.mono.small.scroll tabindex="0" aria-label="Proof" { (proven.text) }
                    div.row { a.btn.sm href={ "/audit/" (index) "?as=proof" } { "Proof" } a.btn.sm href={ "/audit/" (index) "?as=event" } { "Event" } }
                    div { p.lab { "Check it without us" } div.cmd { span id="vcmd" { "reprieve ledger prove " (index) } button.btn.icon.sm.ghost type="button" data-copy="#vcmd" aria-label="Copy command" { (icon("copy")) } } }
                    dl.kv.sm { dt { "Key" } dd.mono { (site.console.records.verifier()) } }
                }
            }
        }
    };
    Ok(Page::new(Section::Audit, page).below(format!("Event {}", number(index))).answer(&site, &who))
}

/// What was found, an event a line.
pub(crate) async fn export(State(site): State<Arc<Site>>, _who: Entered, Query(asked): Query<Asked>) -> Result<Response, Problem> {
    let found = search(&site, asked.query(MOST_EXPORTED)).await?;
    let lines: Vec<String> = found.iter().rev().filter_map(|recorded| serde_json::to_string(recorded).ok()).collect();
    Ok(text_file("reprieve.jsonl", "application/x-ndjson", lines.join("\n") + "\n"))
}
