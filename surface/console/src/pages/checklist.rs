//! The checklist: would it have happened to us? Eight points, each from what is measured here, and open where nothing measures it.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use maud::{Markup, html};
use reprieve_operation::{AgentState, HoldStatus, Kind};
use reprieve_policy::Profile;

use crate::{
    door::Entered,
    frame::{Page, Section},
    site::Site,
    words::{count, icon, number, spelled},
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Holds,
    Attention,
    Broken,
    NotMeasured,
}

struct Point {
    mark: Mark,
    title: &'static str,
    text: &'static str,
    evidence: String,
    fix: Option<(&'static str, &'static str)>,
}

pub(crate) async fn page(State(site): State<Arc<Site>>, Entered(who): Entered) -> Response {
    let points = points(&site);
    let holding = points.iter().filter(|point| point.mark == Mark::Holds).count();
    let unknown = points.iter().filter(|point| point.mark == Mark::NotMeasured).count();
    let body = html! {
        p.answer { (spelled(holding)) " of eight hold." @if unknown > 0 { span.c-danger { " " (spelled(unknown)) " can’t be told." } } }
        p.under { "The eight questions to ask before giving an agent access, answered from the state of this gateway at this moment. What nothing here measures counts as open." }
        section.pts { @for (at, point) in points.iter().enumerate() { (render(at + 1, point)) } }
    };
    Page::new(Section::Checklist, body).answer(&site, &who)
}

fn points(site: &Site) -> Vec<Point> {
    let now = site.now();
    let state = site.console.audit.state();
    let agents: Vec<&AgentState> = state.agents.values().filter(|entry| !entry.revoked && !entry.decoy && entry.expires > now).collect();
    let tokens = agents.len() as u64;
    let wide = agents
        .iter()
        .filter(|entry| entry.scope.kinds.contains(&Kind::Grant) || entry.scope.resources.iter().any(|pattern| pattern.to_string() == "*"))
        .count() as u64;
    let mixed = agents.iter().filter(|entry| entry.scope.environments.len() > 1).count() as u64;
    let decided = state.holds.values().filter(|hold| hold.status != HoldStatus::Waiting).count() as u64;
    let with_passkey = state.operators.values().filter(|operator| !operator.passkeys.is_empty()).count();
    let profile = site.console.policy.load().profile();
    let holds = |good: bool, otherwise: Mark| if good { Mark::Holds } else { otherwise };
    vec![
        Point {
            mark: holds(wide == 0, Mark::Attention),
            title: "Tokens carry the least they need",
            text: "No token names every resource, or may grant.",
            evidence: format!("{}, {wide} of them wide", count(tokens, "token", "tokens")),
            fix: (wide > 0).then_some(("/agents", "Narrow them")),
        },
        Point {
            mark: holds(mixed == 0, Mark::Broken),
            title: "Staging and production use separate credentials",
            text: "No token reaches two environments.",
            evidence: format!("{mixed} of {} span environments", count(tokens, "token", "tokens")),
            fix: (mixed > 0).then_some(("/agents", "Split them")),
        },
        Point {
            mark: holds(
                profile != Profile::Observe && with_passkey > 0,
                if profile == Profile::Observe { Mark::Broken } else { Mark::Attention },
            ),
            title: "Destructive operations need a confirmation the agent cannot give",
            text: "Typed name and a person’s passkey.",
            evidence: format!(
                "profile {profile}, {} decided in 3 days, {}",
                number(decided),
                count(with_passkey as u64, "person with a passkey", "people with a passkey")
            ),
            fix: (with_passkey == 0).then_some(("/agents", "Enrol")),
        },
        Point {
            mark: Mark::Holds,
            title: "Every action is logged, with its time",
            text: "In a log nobody can change unnoticed, us included.",
            evidence: format!("{} events, signed", number(state.size)),
            fix: Some(("/audit", "Look")),
        },
        Point {
            mark: Mark::Holds,
            title: "Agents cannot change their own permissions",
            text: "No token opens this console, and no wire of agents has a word for it.",
            evidence: "tokens are refused on this listener; each refusal is tested".to_owned(),
            fix: None,
        },
        Point {
            mark: Mark::NotMeasured,
            title: "Backups are verified out of the agents’ reach",
            text: "Backups by Reprieve are not built yet, so nothing here knows.",
            evidence: "not measured".to_owned(),
            fix: Some(("/recovery", "Recovery")),
        },
        Point {
            mark: Mark::NotMeasured,
            title: "Recovery has been tested",
            text: "Drills are not built yet, so nothing here knows.",
            evidence: "not measured".to_owned(),
            fix: Some(("/recovery", "Recovery")),
        },
        Point {
            mark: Mark::NotMeasured,
            title: "Agents run in a sandbox with no other way to production",
            text: "The sandbox and the probe of other routes are not built yet: close the database’s port to all but the gateway.",
            evidence: "not measured".to_owned(),
            fix: None,
        },
    ]
}

fn render(number: usize, point: &Point) -> Markup {
    let (class, shape, word) = match point.mark {
        Mark::Holds => ("mark", "check", "Holds"),
        Mark::Attention => ("mark w", "warn", "Needs attention"),
        Mark::Broken => ("mark n", "x", "Does not hold"),
        Mark::NotMeasured => ("mark w", "clock", "Not measured"),
    };
    html! {
        article.pt {
            span class=(class) { (icon(shape)) span.vh { (word) } }
            div { h2 { (number) ". " (point.title) } p { (point.text) } }
            p.ev { (point.evidence) }
            @if let Some((path, word)) = point.fix { a.btn.sm.ghost href=(path) { (word) } } @else { span {} }
        }
    }
}
