//! Systems: what can be reached, and by whom?

use std::sync::Arc;

use axum::{extract::State, response::Response};
use maud::{Markup, html};
use reprieve_operation::{AgentName, AgentState, HoldStatus, Kind, Timestamp};

use crate::{
    door::Entered,
    frame::{Page, Section},
    site::{Shown, Site},
    words::{agent, count, environment, spelled},
};

/// Agents and systems that are drawn; the table has all.
const MOST_DRAWN: usize = 12;

pub(crate) async fn page(State(site): State<Arc<Site>>, Entered(who): Entered) -> Response {
    let now = site.now();
    let body = {
        let state = site.console.audit.state();
        let agents: Vec<&AgentState> = state.agents.values().filter(|entry| is_good(entry, now)).collect();
        let systems = &site.console.systems;
        let production = systems.iter().filter(|system| system.environment.is_production()).count();
        let waits = |shown: &Shown| {
            state.holds.values().filter(|hold| hold.system == shown.name && hold.status == HoldStatus::Waiting).count() as u64
        };
        html! {
            p.answer { (spelled(systems.len())) @if systems.len() == 1 { " system is" } @else { " systems are" } " behind Reprieve, " (spelled(production).to_lowercase()) " of them production." }
            p.under { "Who acts, and what they reach. What burns together with its copies is on the " a href="/recovery" { "recovery page" } "." }
            (map(systems, &agents, |name| state.frozen_because(name).is_some()))
            p.legend {
                span { svg.ln viewBox="0 0 26 6" aria-hidden="true" { path.wr d="M0 3h26" {} } "reads and writes" }
                span { svg.ln viewBox="0 0 26 6" aria-hidden="true" { path.rd d="M0 3h26" {} } "reads" }
                span { svg.ln viewBox="0 0 26 6" aria-hidden="true" { path.hd2 d="M0 3h26" {} } "may also ask to destroy: held for a person" }
                span { svg.ln viewBox="0 0 26 6" aria-hidden="true" { path.fz d="M0 3h26" {} } "frozen" }
            }
            section.after aria-labelledby="st" {
                div.sec-head { h2 id="st" { "The same as a table" } }
                div.scroll tabindex="0" role="region" aria-label="Systems" { table.tbl.fold {
                    thead { tr { th scope="col" { "System" } th scope="col" { "Environment" } th scope="col" { "Sort" } th scope="col" { "Reached by" } th scope="col" { "Waiting" } } }
                    tbody { @for shown in systems { tr {
                        td.mono { (shown.name) } td { (environment(&shown.environment)) } td { (shown.kind) }
                        td { @for entry in agents.iter().filter(|entry| entry.scope.systems.contains(&shown.name)) { (agent(&entry.agent, state.frozen_because(&entry.agent).is_some())) " " } }
                        td { @if waits(shown) > 0 { a href="/holds" { (count(waits(shown), "hold", "holds")) } } @else { span.muted { "none" } } }
                    } } }
                } }
            }
        }
    };
    Page::new(Section::Systems, body).answer(&site, &who)
}

fn is_good(entry: &AgentState, now: Timestamp) -> bool {
    !entry.revoked && !entry.decoy && entry.expires > now
}

/// Agents at the left, systems at the right, Reprieve between them.
fn map(systems: &[Shown], agents: &[&AgentState], is_frozen: impl Fn(&AgentName) -> bool) -> Markup {
    let (agents, systems) = (&agents[..agents.len().min(MOST_DRAWN)], &systems[..systems.len().min(MOST_DRAWN)]);
    let rows = agents.len().max(systems.len()).max(1);
    let height = rows * 60 + 20;
    let view = format!("0 0 760 {height}");
    let middle = |at: usize, of: usize| 10 + (rows * 60 - of * 60) / 2 + at * 60 + 30;
    let gate = height / 2;
    html! {
        div.scroll.map-wrap tabindex="0" role="region" aria-label="Map of systems" {
            svg.map viewBox=(view) role="group" aria-labelledby="map-t" aria-describedby="map-d" {
                title id="map-t" { "Which agent reaches which system" } desc id="map-d" { "The same information is in the table below the map." }
                rect.gate x="330" y="10" width="22" height=(height - 20) rx="4" {}
                text.hd.on text-anchor="middle" transform={ "translate(345 " (gate) ") rotate(-90)" } { "Reprieve" }
                @for (at, entry) in agents.iter().enumerate() {
                    @let y = middle(at, agents.len());
                    @let class = edge(entry, is_frozen(&entry.agent));
                    path class={ "e " (class) } d={ "M184 " (y) "H330" } {}
                    @for (to, shown) in systems.iter().enumerate() {
                        @if entry.scope.systems.contains(&shown.name) {
                            @let end = middle(to, systems.len());
                            path class={ "e " (class) } d={ "M352 " (y) "C410 " (y) " 420 " (end) " 470 " (end) } {}
                        }
                    }
                    a href={ "/agents/" (entry.agent) } {
                        rect.node x="4" y=(y - 24) width="180" height="48" rx="6" {}
                        rect.bot x="17" y=(y - 12) width="9" height="9" rx="2" {}
                        text.m x="34" y=(y - 3) { (clipped(entry.agent.as_str(), 20)) }
                        text.mu x="17" y=(y + 14) { @match &entry.on_behalf_of { Some(owner) => { "for " (clipped(owner.as_str(), 20)) }, None => "for nobody" } }
                    }
                }
                @for (at, shown) in systems.iter().enumerate() {
                    @let y = middle(at, systems.len());
                    @let place = if shown.environment.is_production() { "PRODUCTION" } else { shown.environment.as_str() };
                    a href={ "/audit?q=" (shown.name) } {
                        rect.node x="470" y=(y - 24) width="284" height="48" rx="6" {}
                        text.m x="486" y=(y - 3) { (clipped(shown.name.as_str(), 30)) }
                        text.mu x="486" y=(y + 14) { (shown.kind) ", " (place) }
                    }
                }
            }
        }
    }
}

fn edge(entry: &AgentState, frozen: bool) -> &'static str {
    let kinds = &entry.scope.kinds;
    if frozen {
        "fz"
    } else if kinds.contains(&Kind::Destroy) || kinds.contains(&Kind::Grant) {
        "hd2"
    } else if kinds.contains(&Kind::Write) {
        "wr"
    } else {
        "rd"
    }
}

fn clipped(text: &str, most: usize) -> String {
    if text.len() <= most { text.to_owned() } else { format!("{}…", &text[..most - 1]) }
}
