//! Undo: what can I still take back?

use std::sync::Arc;

use axum::{
    extract::{Path, Query, State},
    http::StatusCode,
    response::Response,
};
use maud::{Markup, html};
use reprieve_gate::{ChangeView, Command, RecordsError, UndoChoice, UndoPreview, UndoRequest};
use reprieve_operation::{HoldState, HoldStatus, Timestamp, UndoId};
use serde::Deserialize;

use super::{
    desk::{parsed, propose},
    holds::planned,
};
use crate::{
    door::{Entered, Posted},
    frame::{Page, Section, form_token, say},
    problem::Problem,
    site::Site,
    words::{Risk, agent, bar, count, day, environment, icon, line, loss, number, person, small_icon, span, time, time_of_day, visible},
};

const MOST: usize = 100;

#[derive(Deserialize)]
pub(crate) struct Asked {
    #[serde(default)]
    choice: String,
}

pub(crate) fn unavailable(error: RecordsError) -> Problem {
    match error {
        RecordsError::Unavailable(text) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", text),
        RecordsError::Missing(text) => Problem::new(StatusCode::NOT_FOUND, "no-such-record", text),
    }
}

pub(crate) async fn page(State(site): State<Arc<Site>>, Entered(who): Entered) -> Result<Response, Problem> {
    let changes = site.console.changes.list(MOST).await.map_err(unavailable)?;
    let now = site.now();
    let possible = changes.iter().filter(|change| change.because.is_none()).count();
    let window = site.console.undo_window;
    let scheduled: Vec<HoldState> =
        site.console.audit.state().holds.values().filter(|hold| hold.status == HoldStatus::Scheduled).cloned().collect();
    let body = html! {
        p.answer { @if changes.is_empty() { "Nothing was changed that could be taken back." } @else { (possible) " of " (count(changes.len() as u64, "change", "changes")) " can still be undone." } }
        p.under { "Undo writes the rows back as they were. Where a row has changed since, you choose. An undo is on record, and can be undone too. Window: " (span(window)) "." }
        @if !scheduled.is_empty() {
            h2.day { "Scheduled, not done yet" }
            @for hold in &scheduled { (planned(hold, now)) }
        }
        @for (at, change) in changes.iter().enumerate() {
            @let day = day(change.at, now);
            @if at == 0 || day != self::day(changes[at - 1].at, now) { h2.day { (day) } }
            (row(&site, change, window, now))
        }
    };
    Ok(Page::new(Section::Undo, body).answer(&site, &who))
}

fn row(site: &Site, change: &ChangeView, window: std::time::Duration, now: Timestamp) -> Markup {
    let path = format!("/undo/{}", change.undo);
    let left = change.expires.since(now);
    html! {
        article.chg { div.sum {
            span.c-ok[change.because.is_none()] aria-hidden="true" { (small_icon(if change.because.is_none() { "undo" } else { "x" })) }
            span.muted.small { (time_of_day(change.at)) } (environment(&change.environment))
            div.ttl { b { (loss(Some(&change.reach), main_table(change))) }
                small { @match &change.operator { Some(operator) => (person(operator)), None => (agent(&change.agent, site.is_frozen(&change.agent))) } " " (change.undo) ": " code { (line(&change.text)) } } }
            span.small.soft { (count(change.reach.rows(), "row", "rows")) }
            @match &change.because {
                None => {
                    div.left { small { span { "undo for" } b { (span(left)) } } (bar("g thin", left.as_secs_f64() / window.as_secs_f64().max(1.0))) }
                    span.act { a.btn href=(path) data-row { "Preview undo" } }
                }
                Some(because) => {
                    div.left.small.muted { (visible(because)) }
                    div.act { a.btn.ghost href={ "/audit/" (change.index) } { "Proof" } }
                }
            }
        } }
    }
}

fn main_table(change: &ChangeView) -> &str {
    change.reach.tables.iter().max_by_key(|(_, rows)| rows.rows()).map_or("", |(name, _)| name)
}

pub(crate) async fn change(
    State(site): State<Arc<Site>>,
    Entered(who): Entered,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let id: UndoId = parsed(&id)?;
    let choice = read_choice(&asked.choice);
    let change = site.console.changes.find(id).await.map_err(unavailable)?;
    let preview = match site.console.changes.preview(id, choice).await {
        Ok(preview) => preview,
        Err(error) => UndoPreview { rows: Vec::new(), plan: Err(error.to_string()), conflicts: Vec::new(), conflicts_found: 0 },
    };
    let now = site.now();
    let kinds = [];
    let body = html! {
        p.answer { @match &preview.plan {
            Ok(plan) => { "Undoing " (id) " would: " (visible(plan)) "." },
            Err(because) => { span.c-danger { (id) " can’t be undone as it is: " } (visible(because)) "." },
        } }
        p.under { "Nothing was written to find that out. It runs again when you confirm; if a row changes meanwhile, you are asked again." }
        article.stack-l {
            header.verdict {
                p.meta { (environment(&change.environment)) (Risk::of(&kinds, Some(&change.reach)).mark("Changed")) span.mono.soft { (change.system) } }
                h2 { (loss(Some(&change.reach), main_table(&change))) }
                p.meta { span.mono { (id) } span { "made " (time(change.at, now)) }
                    @match &change.operator { Some(operator) => span { "by " (person(operator)) }, None => span { "by " (agent(&change.agent, site.is_frozen(&change.agent))) } }
                    span { "undo for " (span(change.expires.since(now))) } a href={ "/audit/" (change.index) } { "Proof" } }
            }
            figure.stmt { pre { code { @for part in change.text.split('\n') { span.l { (visible(part)) } } } } figcaption.foot { span { "Literals are redacted" } } }
            (conflicts(&preview))
            @if preview.plan.is_ok() || preview.conflicts_found > 0 {
                form.row.undo-go id="undo-go" method="post" action={ "/undo/" (id) } data-passkey {
                    (form_token(&who))
                    @if preview.conflicts_found > 0 {
                        fieldset.row.tight { legend.vh { "Rows that changed since" }
                            label.pick { input type="radio" name="choice" value="theirs" checked; "Keep all of them as they are now" }
                            label.pick { input type="radio" name="choice" value="ours"; "Put back what is not ticked above" } }
                    } @else { input type="hidden" name="choice" value=(choice.as_str()); }
                    input type="text" name="reason" maxlength="1000" placeholder="Why, for the record" aria-label="Reason";
                    button.btn.main type="submit" { (icon("key")) "Undo with passkey" }
                    (say())
                }
            }
            (rows(&preview))
        }
    };
    Ok(Page::new(Section::Undo, body).below(id.to_string()).answer(&site, &who))
}

fn conflicts(preview: &UndoPreview) -> Markup {
    html! {
        @if preview.conflicts_found > 0 {
            section aria-labelledby="u-c" {
                div.sec-head { h2 id="u-c" { (count(preview.conflicts_found, "row was", "rows were")) " changed since" }
                    @if preview.conflicts_found > preview.conflicts.len() as u64 { span.push { "the first " (preview.conflicts.len()) "; the rest follows what you choose below" } } }
                div.scroll tabindex="0" role="region" aria-label="Conflicting rows" {
                    table.tbl.sample.conflicts {
                        thead { tr { th scope="col" { "Keep now" } th scope="col" { "Row" } th scope="col" { "Now" } th scope="col" { "Before the change" } } }
                        tbody { @for conflict in &preview.conflicts { tr {
                            td { @match &conflict.row {
                                // What stays is the default: nothing later is overwritten silently.
                                Some(row) => input type="checkbox" name="keep" form="undo-go" value=(row.to_string()) checked aria-label={ "Keep " (row.to_string()) " as it is now" };,
                                None => span.muted { "has no key" },
                            } }
                            td.mono { @match &conflict.row { Some(row) => (visible(&row.to_string())), None => (visible(&conflict.table)) } }
                            td.mono.is { @match &conflict.now { Some(row) => (visible(row)), None => "no row" } } td.mono { @match &conflict.wanted { Some(row) => (visible(row)), None => "no row" } }
                        } } }
                    }
                }
            }
        }
    }
}

fn rows(preview: &UndoPreview) -> Markup {
    html! {
        @if !preview.rows.is_empty() {
            section aria-labelledby="u-r" {
                div.sec-head { h2 id="u-r" { "Rows as the change made them" } span.push { "the first " (number(preview.rows.len() as u64)) } }
                div.scroll tabindex="0" role="region" aria-label="Changed rows" {
                    table.tbl.sample {
                        thead { tr { th scope="col" { "Table" } th scope="col" { "Before" } th scope="col" { "After" } } }
                        tbody { @for row in &preview.rows { tr class=[row.after.is_none().then_some("del")] {
                            td.mono { (visible(&row.table)) } td.mono { @match &row.before { Some(row) => (visible(row)), None => "no row" } } td.mono { @match &row.after { Some(row) => (visible(row)), None => "no row" } }
                        } } }
                    }
                }
            }
        }
    }
}

fn read_choice(text: &str) -> UndoChoice {
    match text {
        "theirs" => UndoChoice::Theirs,
        "ours" => UndoChoice::Ours,
        _ => UndoChoice::Stop,
    }
}

/// Proposes to take a change back.
pub(crate) async fn apply(
    State(site): State<Arc<Site>>,
    Path(id): Path<String>,
    Posted { who, form }: Posted,
) -> Result<Response, Problem> {
    let id: UndoId = parsed(&id)?;
    let choice = read_choice(form.get("choice"));
    // With every conflicting row kept, single ones say nothing.
    let keep = if choice == UndoChoice::Ours { form.all("keep").map(parsed).collect::<Result<_, _>>()? } else { Vec::new() };
    let request = UndoRequest { changes: vec![id], choice, keep };
    propose(&site, &who, Command::Undo { request, reason: form.get("reason").to_owned() }, "/undo")
}
