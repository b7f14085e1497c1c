//! Live: what are agents doing right now?

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::StatusCode,
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use maud::{Markup, html};
use reprieve_operation::{HoldStatus, State as Folded, Timestamp};
use tokio::sync::broadcast::error::RecvError;

use crate::{
    door::{Entered, who},
    feed::{Feed, Minute, News, View},
    frame::{Page, Section, holds_count},
    problem::Problem,
    site::Site,
    words::{agent, count, icon, number, spelled, time},
};

/// An agent counts as working so long after what it did last.
const WORKING: Duration = Duration::from_secs(120);
/// A session is asked about again this often while its stream is open.
const ASK_AGAIN: Duration = Duration::from_secs(20);

pub(crate) async fn page(State(site): State<Arc<Site>>, Entered(who): Entered) -> Response {
    let now = site.now();
    let body = {
        let state = site.console.audit.state();
        html! {
            (sentence(&state, &site.feed, now))
            div.pulse-band { (pulse(&site.feed.hour(now))) (crew(&state, &site.feed, now)) }
            (feed(&site, &View { state: &state, now, undo_window: site.console.undo_window }))
            p.muted.small.foot-note { a href="/audit" { "Older actions are in the audit log" } }
        }
    };
    Page::new(Section::Live, body).live().answer(&site, &who)
}

fn sentence(state: &Folded, feed: &Feed, now: Timestamp) -> Markup {
    let working = state.agents.keys().filter(|name| feed.last(name).is_some_and(|(at, _)| now.since(at) < WORKING)).count();
    let waiting = state.holds.values().filter(|hold| hold.status == HoldStatus::Waiting).count();
    let first = match (state.all_frozen, working) {
        (true, _) => "Nothing an agent asks for is running.".to_owned(),
        (false, 0) => "No agent is working at this moment.".to_owned(),
        (false, 1) => "One agent is working.".to_owned(),
        (false, more) => format!("{} agents are working.", spelled(more)),
    };
    html! {
        p.answer { (first) @match (state.all_frozen, state.frozen.len()) { (true, _) | (_, 0) => "", (false, 1) => " One is frozen.", (false, more) => { " " (spelled(more)) " are frozen." } } }
        p.under {
            @match waiting {
                0 => "Nothing waits for a person. ",
                1 => { a href="/holds" { "One statement waits for a person." } " " }
                more => { a href="/holds" { (spelled(more)) " statements wait for a person." } " " }
            }
            (count(state.agents.values().filter(|agent| !agent.revoked && !agent.decoy).count() as u64, "agent holds", "agents hold"))
            " a token. "
            @if state.next.session == 0 { a href="/welcome" { "Nothing has passed yet: the first steps" } }
        }
    }
}

/// The last hour as bars: reads above the line, changes below.
fn pulse(hour: &[Minute]) -> Markup {
    let most_reads = hour.iter().map(|minute| minute.reads).max().unwrap_or(0).max(1);
    let most_writes = hour.iter().map(|minute| minute.writes).max().unwrap_or(0).max(1);
    let last = hour.last().copied().unwrap_or_default();
    let (held, denied) = hour.iter().fold((0, 0), |(held, denied), minute| (held + minute.held, denied + minute.denied));
    let label = format!(
        "Actions a minute over the last hour: at most {} reads and {} changes; {held} held, {denied} denied",
        number(hour.iter().map(|minute| minute.reads).max().unwrap_or(0)),
        number(hour.iter().map(|minute| minute.writes).max().unwrap_or(0))
    );
    #[allow(clippy::cast_precision_loss, reason = "a few pixels")]
    let bars = hour.iter().enumerate().map(|(at, minute)| {
        let x = format!("{:.1}", 1.5 + at as f64 * 12.66);
        let (reads, writes) = (minute.reads as f64 / most_reads as f64 * 64.0, minute.writes as f64 / most_writes as f64 * 24.0);
        html! {
            @if minute.reads > 0 { rect.r x=(x) y=(format!("{:.1}", 83.5 - reads.max(1.0))) width="9.7" height=(format!("{:.1}", reads.max(1.0))) {} }
            @if minute.writes > 0 { rect.w x=(x) y="86" width="9.7" height=(format!("{:.1}", writes.max(1.5))) {} }
            @if minute.held > 0 { path.evh d=(octagon(6.3 + at as f64 * 12.66)) {} }
            @if minute.denied > 0 { path.evd d=(octagon(6.3 + at as f64 * 12.66)) {} }
        }
    });
    html! {
        section id="pulse" aria-labelledby="p-t" {
            div.sec-head { h2 id="p-t" { "Last hour" }
                p.legend.push {
                    span { i.sw aria-hidden="true" {} "Reads " b { (number(last.reads)) } "/min" }
                    span { i.sw.w aria-hidden="true" {} "Changes " b { (number(last.writes)) } "/min" }
                    span { span.risk.held { (icon("r-destroy")) } "Held " b { (held) } }
                    span { span.risk.destroy { (icon("r-destroy")) } "Denied " b { (denied) } }
                }
            }
            svg.chart.pulse viewBox="0 0 760 124" role="img" aria-label=(label) {
                path.ax d="M0 84.5H760" {}
                @for bar in bars { (bar) }
                text x="0" y="121" text-anchor="start" { "60 min ago" }
                text x="380" y="121" text-anchor="middle" { "30 min ago" }
                text x="760" y="121" text-anchor="end" { "now" }
            }
        }
    }
}

fn octagon(x: f64) -> String {
    let points = [(-2.7, 2.5), (2.7, 2.5), (6.5, 6.3), (6.5, 11.7), (2.7, 15.5), (-2.7, 15.5), (-6.5, 11.7), (-6.5, 6.3)];
    let text: Vec<String> = points.iter().map(|(dx, y)| format!("{:.1},{y:.1}", x + dx)).collect();
    format!("M{}z", text.join(" "))
}

fn crew(state: &Folded, feed: &Feed, now: Timestamp) -> Markup {
    let mut agents: Vec<_> = state.agents.values().filter(|agent| !agent.revoked && !agent.decoy).collect();
    agents.sort_by_key(|entry| std::cmp::Reverse(feed.last(&entry.agent).map(|(at, _)| at)));
    let tokens = agents.len() as u64;
    html! {
        section id="crew" aria-labelledby="c-t" {
            div.sec-head { h2 id="c-t" { "Agents now" } a.push href="/agents" { (count(tokens, "token", "tokens")) } }
            ul.crew {
                @for entry in agents.iter().take(6) {
                    @let frozen = state.frozen_because(&entry.agent).is_some();
                    @let hold = state.holds.values().find(|hold| hold.agent == entry.agent && hold.status == HoldStatus::Waiting);
                    li {
                        (agent(&entry.agent, frozen))
                        span.small.soft.clip {
                            @if frozen { "frozen" }
                            @else if let Some(hold) = hold { "waits on " a href={ "/holds/" (hold.hold) } { (hold.hold) } }
                            @else if let Some((at, what)) = feed.last(&entry.agent) { (what) ", " (time(at, now)) }
                            @else { "not seen yet" }
                        }
                        @if frozen { a.btn.sm href={ "/agents/" (entry.agent) } { "Thaw…" } }
                        @else { button.btn.sm type="button" popovertarget="freeze" aria-label={ "Freeze " (entry.agent) } { "Freeze" } }
                    }
                }
                @if agents.is_empty() { li { span.small.soft { "No agent yet. " a href="/agents/new" { "Make the first token" } } } }
            }
        }
    }
}

fn feed(site: &Site, view: &View<'_>) -> Markup {
    html! {
        form.filters aria-label="Filter the feed" {
            @for (value, word) in [("all", "Everything"), ("change", "Changes"), ("destroy", "Destructive"), ("stopped", "Held or denied")] {
                label.pick { input type="radio" name="f" value=(value) checked[value == "all"]; (word) }
            }
            span.livedot.push role="status" data-feed-state { span { "Live" } " " button.btn.sm type="button" hidden { "0 newer" } }
        }
        div.feed-head aria-hidden="true" { span { "When" } span { "Where" } span { "Risk" } span { "Agent" } span { "What" } span { "Measured effect" } span { "Outcome" } }
        ol.feed id="feed" aria-label="Agent actions, newest first" sse-swap="action" hx-swap="none" { (site.feed.rows(view)) }
    }
}

/// The stream of events, for as long as the session lasts.
pub(crate) async fn events(State(site): State<Arc<Site>>, entered: Entered, headers: axum::http::HeaderMap) -> Response {
    let Ok(permit) = site.streams.clone().try_acquire_owned() else {
        let text = "too many pages are open: this one does not move by itself";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-streams", text).into_response();
    };
    drop(entered);
    let (news, closing) = (site.feed.listen(), site.closing.clone());
    let start = (news, closing, site, headers, permit);
    let stream = stream::unfold(start, |(mut news, mut closing, site, headers, permit)| async move {
        loop {
            let event = tokio::select! {
                biased;
                _ = closing.wait_for(|closing| *closing) => return None,
                () = tokio::time::sleep(ASK_AGAIN) => {
                    // Signed out, or the passkey was removed: nothing more is told.
                    who(&site, &headers)?;
                    continue;
                }
                event = news.recv() => event,
            };
            let event = match event {
                Ok(News::Rows(rows)) => Event::default().event("action").data(&*rows),
                Ok(News::Hold) => {
                    let waiting = site.console.audit.state().holds.values().filter(|hold| hold.status == HoldStatus::Waiting).count();
                    Event::default().event("hold").data(holds_count(waiting).into_string())
                }
                Ok(News::Freeze) => Event::default().event("freeze").data("frozen"),
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return None,
            };
            return Some((Ok::<_, Infallible>(event), (news, closing, site, headers, permit)));
        }
    });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response()
}
