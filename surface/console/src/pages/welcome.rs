//! Welcome: what do I do first? Each step looks for itself whether it is done.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use maud::{Markup, html};
use reprieve_gate::SignedIn;
use reprieve_operation::{HoldState, OperatorState, State as Folded};

use crate::{
    door::Entered,
    frame::{Page, Section},
    site::Site,
    words::{agent, environment, icon, spelled},
};

/// One step: whether it is done, what it is called, and what there is to do or was done.
struct Step {
    done: bool,
    title: &'static str,
    text: Markup,
}

pub(crate) async fn page(State(site): State<Arc<Site>>, Entered(who): Entered) -> Response {
    let (steps, passed) = {
        let state = site.console.audit.state();
        (steps(&site, &state, &who), state.next.session > 0)
    };
    let left = steps.iter().filter(|step| !step.done).count();
    let now = steps.iter().position(|step| !step.done);
    let body = html! {
        // The page notices by itself: any event of an agent or a hold brings it anew.
        div.first id="first" hx-get="/welcome" hx-trigger="sse:action throttle:2s, sse:hold throttle:2s" hx-select="#first" hx-target="#first" hx-swap="outerHTML" {
            p.answer { @if !passed { "Nothing passes through Reprieve yet." } @else if left == 0 { "Everything is set up, and you have seen it refuse." } @else { (spelled(left)) @if left == 1 { " step is left." } @else { " steps are left." } } }
            p.under { "Until step 3 no agent can reach anything. After the last you know that it works, because you tried to break it." }
            div.split {
                ol.steps { @for (at, step) in steps.iter().enumerate() {
                    li.done[step.done].now[now == Some(at)] { div.row { h2 { (step.title) } @if step.done { span.push.small.muted { "done" } } } (step.text) }
                } }
                aside.stack {
                    div.card.sunk { div.body { h2 { "What you will see on Live" } (ghosts()) p.small.soft { "Reads stay quiet, writes can be undone, and anything that destroys waits for a person." } } }
                    div.card { div.body { h2 { "Can I take it out again?" } p.small.soft.gap-t { "Yes. " code { "reprieve protect SYSTEM --remove" } " takes out of the database what was put in, and its old address still works. The record stays readable without Reprieve." } } }
                }
            }
        }
    };
    Page::new(Section::Live, body).below("Welcome").live().answer(&site, &who)
}

fn steps(site: &Site, state: &Folded, who: &SignedIn) -> Vec<Step> {
    let now = site.now();
    let passkeys = |operator: &OperatorState| operator.passkeys.len();
    let own = state.operators.get(&who.operator).map_or(0, passkeys);
    let others = state.operators.iter().filter(|(name, operator)| **name != who.operator && passkeys(operator) > 0).count();
    let agents: Vec<_> = state.agents.values().filter(|entry| !entry.revoked && !entry.decoy && entry.expires > now).collect();
    let answered = |hold: &HoldState| !hold.answers.is_empty();
    vec![
        Step {
            done: own > 0,
            title: "Give yourself a passkey",
            text: html! { p.soft { (who.operator) ", with " (own) @if own == 1 { " passkey." } @else { " passkeys." } " A second one, on a phone, saves you when the first is lost: " a href="/agents" { "invite yourself" } "." } },
        },
        Step {
            done: !site.console.systems.is_empty(),
            title: "Put Reprieve in front of one system",
            text: html! { @if site.console.systems.is_empty() { div.stack {
                p.soft { "Start with staging. Agents get a new address and a token; the real password stays here. Add it to " code { "reprieve.toml" } " and start the gateway again:" }
                div.cmd { span id="c1" { "[[system]]\nname = \"pocket-stg\"\nkind = \"postgres\"\nenvironment = \"staging\"\nurl = \"secret:STG_URL\"" } button.btn.icon.sm.ghost type="button" data-copy="#c1" aria-label="Copy" { (icon("copy")) } }
            } } @else { p.row { @for shown in &site.console.systems { span.mono { (shown.name) } (environment(&shown.environment)) } } } },
        },
        Step {
            done: !agents.is_empty(),
            title: "Make the first token",
            text: html! { @if agents.is_empty() { p.soft { "One agent, one environment, read to begin with. " a href="/agents/new" { "New token" } } } @else { p.row { @for entry in agents.iter().take(6) { (agent(&entry.agent, false)) } } } },
        },
        Step {
            done: state.next.session > 0,
            title: "Let the agent connect",
            text: html! { @if state.next.session > 0 { p.soft { "A client has been here." } } @else { div.note { (icon("clock")) div { b { "Waiting for the first connection." } " " span.soft { "Agents connect to " code { (site.console.agents_at) } ". This page notices by itself." } } } } },
        },
        Step {
            done: others > 0,
            title: "Invite a second person",
            text: html! { p.soft { "What destroys in production may need two, and nobody approves alone what an agent does for them. One can be on the phone. " @if others == 0 { a href="/agents" { "Invite a person" } } } },
        },
        Step {
            done: state.holds.values().any(answered),
            title: "Try the nine seconds",
            text: html! { @if state.holds.values().any(answered) { p.soft { "An answer of a person is on record." } } @else {
                p.soft { "Play the agent yourself: connect with its address and ask for something that must not happen, such as emptying a table. It is held, and you decide on " a href="/holds" { "Holds" } "." }
                div.cmd { span id="c2" { "psql 'postgres://AGENT:TOKEN@" (site.console.agents_at) "/SYSTEM' -c 'TRUNCATE a_table'" } button.btn.icon.sm.ghost type="button" data-copy="#c2" aria-label="Copy" { (icon("copy")) } }
            } },
        },
    ]
}

fn ghosts() -> Markup {
    let row = |place: &str, production: bool, class: &str, word: &str| {
        let (env, shape) = (if production { "env prod" } else { "env stg" }, format!("#i-r-{class}"));
        html! { p { span class=(env) { (place) } span class={ "risk " (class) } { svg.i aria-hidden="true" { use href=(shape) {} } (word) } span {} } }
    };
    html! { div.ghost-feed aria-hidden="true" { (row("staging", false, "read", "Read")) (row("staging", false, "write", "Write")) (row("Production", true, "read", "Read")) (row("Production", true, "destroy", "Delete")) } }
}
