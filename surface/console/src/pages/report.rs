//! The incident report: what did this agent touch? To be read, printed and handed on, each line with its proof.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use maud::{Markup, html};
use reprieve_gate::{RecordQuery, RecordsError};
use reprieve_operation::{AgentName, Event, IntentId, Outcome, Recorded, RefusalKind, SystemName};

use super::{
    audit::{result, what},
    desk::parsed,
    undo::unavailable,
};
use crate::{
    door::Entered,
    frame::{Page, Section},
    problem::Problem,
    site::Site,
    words::{count, environment, icon, number, small_icon, time_of_day, utc, visible},
};

/// Events that a report goes back.
const MOST: usize = 1_000;

#[derive(Default)]
struct Tally {
    reads: u64,
    changes: u64,
    rows: u64,
    lasting: u64,
    stopped: u64,
}

pub(crate) async fn page(State(site): State<Arc<Site>>, Entered(who): Entered, Path(name): Path<String>) -> Result<Response, Problem> {
    let agent: AgentName = parsed(&name)?;
    if !site.console.audit.state().agents.contains_key(&agent) {
        return Err(Problem::new(StatusCode::NOT_FOUND, "no-such-agent", format!("there is no agent `{agent}`")));
    }
    let (records, query) =
        (site.console.records.clone(), RecordQuery { agent: Some(agent.clone()), limit: MOST, ..RecordQuery::default() });
    let read = tokio::task::spawn_blocking(move || Ok::<_, RecordsError>((records.search(&query)?, records.checkpoint()?))).await;
    let (mut told, checkpoint) = read.map_err(|error| unavailable(RecordsError::Unavailable(error.to_string())))?.map_err(unavailable)?;
    told.reverse();
    let by_system = tallied(&told);
    let all = by_system.values().fold(Tally::default(), |sum, one| Tally {
        reads: sum.reads + one.reads,
        changes: sum.changes + one.changes,
        rows: sum.rows + one.rows,
        lasting: sum.lasting + one.lasting,
        stopped: sum.stopped + one.stopped,
    });
    let frozen = site.is_frozen(&agent);
    let body = html! {
        div.row.top.report-head {
            div {
                p.answer { (agent) " made " (count(all.changes, "change", "changes")) " and was stopped " (count(all.stopped, "time", "times")) "."
                    @if all.lasting > 0 { " " span.c-danger { (count(all.lasting, "change", "changes")) " can’t be taken back." } } @else { " Whatever it changed was made undoable." } }
                p.under { @match (told.first(), told.last()) {
                    (Some(first), Some(last)) => { "From " (utc(first.at)) " to " (utc(last.at)) ", " (count(told.len() as u64, "event", "events")) " on record."
                        @if told.len() == MOST { " Older ones are in the audit log." } @if frozen { " It is frozen." } },
                    _ => "Nothing of it is on record.",
                } }
            }
            span.push.row { a.btn href={ "/audit/export?q=agent%3A" (agent) } { (icon("download")) "Export" } }
        }
        div.cols4.outcome {
            (figure("Read", &number(all.reads), "reads, folded by the minute"))
            (figure("Changed", &number(all.rows), &format!("rows, in {}", count(all.changes, "change", "changes"))))
            (figure("Held or refused", &number(all.stopped), "each left everything as it was"))
            (figure("Not undoable", &number(all.lasting), "changes that a person approved, or a budget let pass"))
        }
        div.stack-l {
            section aria-labelledby="r-t" {
                div.sec-head { h2 id="r-t" { "What it touched" } }
                div.scroll tabindex="0" role="region" aria-label="What it touched" { table.tbl {
                    thead { tr { th scope="col" { "System" } th scope="col" { "Where" } th.num scope="col" { "Reads" } th.num scope="col" { "Rows changed" } th.num scope="col" { "Stopped" } } }
                    tbody { @for (system, tally) in &by_system { tr {
                        td.mono { (system) } td { (environment(&site.console.environment_of(system))) } td.num { (number(tally.reads)) } td.num { (number(tally.rows)) } td.num { (number(tally.stopped)) }
                    } } @if by_system.is_empty() { tr { td.muted colspan="5" { "Nothing." } } } }
                } }
            }
            section aria-labelledby="r-l" {
                div.sec-head { h2 id="r-l" { "In order" } span.push { "reads left out; each line with its proof" } }
                ol.tl { @for recorded in told.iter().filter(|recorded| !matches!(recorded.event, Event::Reads { .. })) {
                    li class=(mark(&recorded.event)) { (time_of_day(recorded.at)) " " (what(&recorded.event)) " " (result(&recorded.event)) " "
                        a.small href={ "/audit/" (recorded.index) } aria-label={ "Record " (recorded.index) } { (small_icon("audit")) } }
                } }
            }
            @if let Some(checkpoint) = &checkpoint {
                section aria-labelledby="r-c" {
                    div.sec-head { h2 id="r-c" { "Signed" } span.push { "the newest checkpoint of the log, and the key that checks it" } }
                    pre.mono.small.scroll tabindex="0" aria-label="Checkpoint" { (visible_lines(checkpoint)) }
                    dl.kv.sm { dt { "Key" } dd.mono { (site.console.records.verifier()) } }
                    p.small.soft { code { "reprieve incident " (agent) } " writes the same with a proof for each event." }
                }
            }
        }
    };
    Ok(Page::new(Section::Audit, body).below(format!("{agent}, what it touched")).answer(&site, &who))
}

fn figure(cap: &str, big: &str, sub: &str) -> Markup {
    html! { div.stat { p.cap { (cap) } p.big { (big) } p.sub { (sub) } } }
}

fn visible_lines(text: &str) -> Markup {
    html! { @for (at, line) in text.trim_end().split('\n').enumerate() { @if at > 0 { "\n" } (visible(line)) } }
}

fn mark(event: &Event) -> &'static str {
    match event {
        Event::HoldOpened { .. } => "hold",
        Event::Concluded { outcome: Outcome::Done { .. }, .. } => "ok",
        Event::Concluded { outcome: Outcome::Refused { .. }, .. } | Event::Frozen { .. } | Event::DecoyPresented { .. } => "deny",
        _ => "",
    }
}

/// What was done where. A system is an intent's; what ended says only which intent it was.
fn tallied(told: &[Recorded]) -> BTreeMap<SystemName, Tally> {
    let mut places: BTreeMap<IntentId, SystemName> = BTreeMap::new();
    let mut all: BTreeMap<SystemName, Tally> = BTreeMap::new();
    for recorded in told {
        match &recorded.event {
            Event::Intent { intent, system, .. } => drop(places.insert(*intent, system.clone())),
            Event::Reads { system, reads, .. } => {
                all.entry(system.clone()).or_default().reads += reads.iter().map(|tally| tally.count).sum::<u64>();
            }
            Event::Concluded { intent, outcome, .. } => {
                let Some(system) = places.get(intent) else { continue };
                let tally = all.entry(system.clone()).or_default();
                match outcome {
                    Outcome::Done { reach, .. } => {
                        tally.changes += u64::from(!reach.is_empty());
                        tally.rows += reach.rows();
                        tally.lasting += u64::from(!reach.is_empty() && !reach.is_undoable());
                    }
                    Outcome::Refused { refusal } => tally.stopped += u64::from(refusal.kind != RefusalKind::Unavailable),
                    Outcome::Failed { .. } | Outcome::Abandoned | Outcome::Unknown => {}
                }
            }
            _ => {}
        }
    }
    all
}
