//! The frame around every page: navigation, search, freezing, and what is true of everything at this moment.

use std::sync::Arc;

use axum::response::{IntoResponse as _, Response};
use maud::{DOCTYPE, Markup, html};
use reprieve_gate::SignedIn;
use reprieve_operation::HoldStatus;

use crate::{
    assets::{ICONS, path},
    site::Site,
    words::{icon, ours, person, time, visible},
};

/// The pages one can go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Live,
    Holds,
    Undo,
    Agents,
    Systems,
    Policies,
    Recovery,
    Audit,
    Checklist,
}

impl Section {
    /// In order; `true` where a gap comes before.
    const ALL: [(Self, bool); 9] = [
        (Self::Live, false),
        (Self::Holds, false),
        (Self::Undo, false),
        (Self::Agents, true),
        (Self::Systems, false),
        (Self::Policies, false),
        (Self::Recovery, true),
        (Self::Audit, false),
        (Self::Checklist, false),
    ];

    fn parts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Live => ("live", "Live", "/live"),
            Self::Holds => ("holds", "Holds", "/holds"),
            Self::Undo => ("undo", "Undo", "/undo"),
            Self::Agents => ("agents", "Agents & tokens", "/agents"),
            Self::Systems => ("systems", "Systems", "/systems"),
            Self::Policies => ("policies", "Policies", "/policies"),
            Self::Recovery => ("recovery", "Recovery", "/recovery"),
            Self::Audit => ("audit", "Audit", "/audit"),
            Self::Checklist => ("checklist", "Checklist", "/checklist"),
        }
    }
}

/// One page.
pub(crate) struct Page {
    pub(crate) section: Section,
    /// What comes after the section's name, on a page below it. Never an agent's text.
    pub(crate) below: Option<String>,
    /// Whether the hatched strip of something destructive is drawn.
    pub(crate) destructive: bool,
    /// Whether the page listens to events.
    pub(crate) live: bool,
    pub(crate) body: Markup,
}

impl Page {
    pub(crate) fn new(section: Section, body: Markup) -> Self {
        Self { section, below: None, destructive: false, live: false, body }
    }

    pub(crate) fn below(self, name: impl Into<String>) -> Self {
        Self { below: Some(name.into()), ..self }
    }

    pub(crate) fn live(self) -> Self {
        Self { live: true, ..self }
    }

    pub(crate) fn destructive(self, destructive: bool) -> Self {
        Self { destructive, ..self }
    }

    pub(crate) fn answer(self, site: &Arc<Site>, who: &SignedIn) -> Response {
        self.render(site, who).into_response()
    }

    fn render(&self, site: &Arc<Site>, who: &SignedIn) -> Markup {
        let (all_frozen, waiting, agents, size) = {
            let state = site.console.audit.state();
            let waiting = state.holds.values().filter(|hold| hold.status == HoldStatus::Waiting).count();
            let agents: Vec<_> =
                state.agents.values().filter(|agent| !agent.revoked && !agent.decoy).map(|agent| agent.agent.clone()).collect();
            (state.all_frozen, waiting, agents, state.size)
        };
        let (_, section, section_path) = self.section.parts();
        let title = self.below.as_deref().unwrap_or(section);
        let body = html! {
            (ours(ICONS))
            a.skip href="#main" { "Skip to content" }
            div.shell {
                header.side {
                    a.brand href="/live" { (icon("logo")) "Reprieve" }
                    nav.nav aria-label="Console" { ul {
                        @for (section, gap) in Section::ALL {
                            @let (shape, name, href) = section.parts();
                            li.gap[gap] { a href=(href) aria-current=[(section == self.section).then_some("page")] {
                                (icon(shape)) (name)
                                @if section == Section::Holds { (holds_count(waiting)) }
                            } }
                        }
                    } }
                    div.spacer {}
                    a.pledge href="/audit" { b { (icon("check")) "On record" } (crate::words::number(size)) " events, each signed for" }
                    div.me {
                        (person(&who.operator))
                        button.btn.ghost.icon.sm type="button" data-theme-toggle aria-label="Switch between light and dark" { (icon("theme")) }
                        form method="post" action="/signout" { (form_token(who)) button.btn.ghost.icon.sm type="submit" title="Sign out" { (icon("ext")) span.vh { "Sign out" } } }
                    }
                }
                main.sheet id="main" {
                    div.bar {
                        @if let Some(below) = &self.below {
                            a.crumb href=(section_path) { (section) } span.sep aria-hidden="true" { "/" } span.small.soft { (below) }
                        } @else { h1 { (section) } }
                        form.find.push role="search" action="/audit" {
                            (icon("search")) input type="search" name="q" placeholder="Search the record" aria-label="Search the audit log"; kbd { "/" }
                        }
                        @if all_frozen { span.tag.big-tag { (icon("freeze")) "Everything frozen" } }
                        @else { button.btn.freeze type="button" popovertarget="freeze" { (icon("freeze")) span { "Freeze" span.only-wide { " agents" } } } }
                    }
                    @if self.destructive { div.strip role="presentation" {} }
                    div.page {
                        @if all_frozen { (ice_bar(site, who)) }
                        (self.body)
                    }
                }
            }
            div popover id="freeze" role="dialog" aria-labelledby="fz-t" {
                form method="post" action="/freeze" {
                    (form_token(who))
                    div.head {
                        h2 id="fz-t" { "Freeze agents" }
                        p.muted.small { "Takes effect in under a second. Connections stay open; every new statement is refused. Nothing is lost. Thawing needs a passkey and a reason." }
                    }
                    div.body.stack {
                        div.stack-s {
                            label.choice { input type="radio" name="agent" value="" checked; span { b { "All agents" } small { (crate::words::count(agents.len() as u64, "agent", "agents")) ", every environment" } } }
                            @for agent in &agents {
                                label.choice { input type="radio" name="agent" value=(agent); span { b { (agent) } small { "Only this one" } } }
                            }
                        }
                        div.row {
                            button.btn.main type="submit" { "Freeze now" }
                            button.btn.ghost type="button" popovertarget="freeze" popovertargetaction="hide" { "Cancel" }
                        }
                    }
                }
            }
        };
        document(site, title, Some(who), all_frozen, self.live, &body)
    }
}

/// The whole document. `live` opens the stream of events.
pub(crate) fn document(site: &Arc<Site>, title: &str, who: Option<&SignedIn>, frozen: bool, live: bool, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Reprieve" }
                meta name="color-scheme" content="light dark";
                meta name="htmx-config" content=r#"{"includeIndicatorStyles":false,"allowEval":false,"selfRequestsOnly":true,"historyCacheSize":0}"#;
                @if let Some(who) = who { meta name="form-token" content=(who.form_token); }
                link rel="stylesheet" href=(path("reprieve.css"));
                script src=(path("htmx.min.js")) defer {}
                @if live { script src=(path("sse.min.js")) defer {} }
                script src=(path("console.js")) defer {}
            }
            body data-frozen[frozen] data-rp=(site.console.relying_party())
                hx-ext=[live.then_some("sse")] sse-connect=[live.then_some("/events")] { (body) }
        }
    }
}

/// How many wait, beside the navigation's word.
pub(crate) fn holds_count(waiting: usize) -> Markup {
    html! { span id="holds-count" { @if waiting > 0 { span.n.due { (waiting) span.vh { " waiting" } } } } }
}

/// What makes a form one of this session.
pub(crate) fn form_token(who: &SignedIn) -> Markup {
    html! { input type="hidden" name="form_token" value=(who.form_token); }
}

/// Where a form that a passkey confirms says what went wrong.
pub(crate) fn say() -> Markup {
    html! { p.small.c-danger role="alert" data-say hidden {} }
}

fn ice_bar(site: &Site, who: &SignedIn) -> Markup {
    html! {
        section.icebar aria-label="Frozen" {
            (icon("freeze"))
            div { b { "All agents are frozen." } " " span.soft {
                @if let Some((at, by)) = site.feed.stopped() { (time(at, site.now())) " " (visible(&by)) ". " }
                "Every new statement is refused until somebody thaws."
            } }
            (thaw_form(who, ""))
        }
    }
}

/// Thawing: a passkey and a reason.
pub(crate) fn thaw_form(who: &SignedIn, agent: &str) -> Markup {
    html! {
        form.push.row method="post" action="/thaw" data-passkey {
            (form_token(who)) input type="hidden" name="agent" value=(agent);
            input type="text" name="reason" required maxlength="1000" placeholder="Why it is safe to go on" aria-label="Reason to thaw";
            button.btn.main type="submit" { (icon("key")) "Thaw" }
            (say())
        }
    }
}
