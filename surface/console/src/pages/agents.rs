//! Agents and tokens: who may do what? And the people who decide.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    extract::{Path, Query, State},
    http::StatusCode,
    response::Response,
};
use maud::{Markup, html};
use reprieve_gate::{Command, SignedIn, UsedRights};
use reprieve_operation::{AgentName, AgentState, Kind, OperatorName, Pattern, Role, State as Folded, SystemName, Timestamp};
use serde::Deserialize;

use super::{
    desk::{parsed, propose},
    hold::time_until,
};
use crate::{
    answers::{Answers, by_operator},
    door::{Entered, Form, Posted},
    frame::{Page, Section, form_token, say, thaw_form},
    problem::Problem,
    site::Site,
    words::{count, environment, icon, number, person, spelled, time, visible},
};

/// The kinds a token may name.
const KINDS: [Kind; 4] = [Kind::Read, Kind::Write, Kind::Destroy, Kind::Grant];

pub(crate) async fn page(State(site): State<Arc<Site>>, Entered(who): Entered) -> Response {
    let answers = answers(&site).await;
    let body = overview(&site, &who, None, &answers);
    Page::new(Section::Agents, body).answer(&site, &who)
}

#[derive(Deserialize)]
pub(crate) struct Asked {
    /// Present where it is asked what the agent used of its rights.
    used: Option<String>,
}

/// How far back it is looked for what an agent used.
const LOOKED_BACK: Duration = Duration::from_secs(30 * 86_400);

pub(crate) async fn one(
    State(site): State<Arc<Site>>,
    Entered(who): Entered,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let name: AgentName = parsed(&name)?;
    if !site.console.audit.state().agents.contains_key(&name) {
        return Err(Problem::new(StatusCode::NOT_FOUND, "no-such-agent", format!("there is no agent `{name}`")));
    }
    let answers = answers(&site).await;
    let used = match asked.used {
        Some(_) => Some(used_rights(&site, name.clone()).await),
        None => None,
    };
    let body = overview(&site, &who, Some((&name, used.as_ref())), &answers);
    Ok(Page::new(Section::Agents, body).below(name.as_str()).answer(&site, &who))
}

/// What an agent used of its rights. Reads the record, so one at a time with simulations.
async fn used_rights(site: &Site, agent: AgentName) -> Result<UsedRights, String> {
    let Ok(alone) = site.simulations.clone().try_acquire_owned() else {
        return Err("somebody else asks about the past at this moment; try again when that is done".to_owned());
    };
    let (look, now) = (site.console.used_rights.clone(), site.now());
    let since = Timestamp(now.0.saturating_sub(u64::try_from(LOOKED_BACK.as_millis()).unwrap_or(u64::MAX)));
    let looked = tokio::task::spawn_blocking(move || {
        let _alone = alone;
        look(&agent, since)
    });
    looked.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// How people answered; nothing where the log can't be read.
async fn answers(site: &Site) -> BTreeMap<OperatorName, Answers> {
    let records = site.console.records.clone();
    tokio::task::spawn_blocking(move || by_operator(records.as_ref())).await.ok().and_then(Result::ok).unwrap_or_default()
}

type Used<'a> = Option<&'a Result<UsedRights, String>>;

fn overview(site: &Site, who: &SignedIn, asked: Option<(&AgentName, Used<'_>)>, answers: &BTreeMap<OperatorName, Answers>) -> Markup {
    let now = site.now();
    let state = site.console.audit.state();
    let good = |entry: &&AgentState| !entry.revoked && !entry.decoy && entry.expires > now;
    let holding = state.agents.values().filter(good).count();
    let (shown, used) = asked.unzip();
    let shown =
        shown.and_then(|name| state.agents.get(name)).or_else(|| state.agents.values().find(good)).or_else(|| state.agents.values().next());
    html! {
        div.row.top {
            div {
                p.answer { (spelled(holding)) @if holding == 1 { " agent holds a token." } @else { " agents hold tokens." } }
                p.under { "A token names systems, kinds of operation and resources, and nothing else. What destroys is held for a person whatever it names." }
            }
            a.btn.main.push href="/agents/new" { (icon("plus")) "New token" }
        }
        div.split.list {
            nav aria-label="Agents" { ul.pickl {
                @for entry in state.agents.values() {
                    @let frozen = state.frozen_because(&entry.agent).is_some();
                    li { a href={ "/agents/" (entry.agent) } aria-current=[shown.is_some_and(|shown| shown.agent == entry.agent).then_some("true")] {
                        span.agent.frozen[frozen] { (entry.agent) }
                        @if let Some(owner) = &entry.on_behalf_of { small { "for " (owner) } }
                        small { (condition(entry, frozen, now)) }
                    } }
                }
                @if state.agents.is_empty() { li { p.small.soft { "No agent yet." } } }
            } }
            div.stack-l {
                @if let Some(entry) = shown { (detail(site, &state, entry, used.flatten(), (who, now))) }
                (people(&state, who, answers, now))
            }
        }
    }
}

fn condition(entry: &AgentState, frozen: bool, now: Timestamp) -> Markup {
    html! {
        @if entry.decoy { b { "decoy" } } @else if entry.revoked { b { "revoked" } } @else if entry.expires <= now { b { "expired" } }
        @else if frozen { b { "frozen" } } @else { "expires " (time_until(entry.expires, now)) }
    }
}

fn detail(site: &Site, state: &Folded, entry: &AgentState, used: Used<'_>, (who, now): (&SignedIn, Timestamp)) -> Markup {
    let frozen = state.frozen_because(&entry.agent);
    let scope = &entry.scope;
    let alive = !entry.revoked && !entry.decoy;
    html! {
        section aria-labelledby="ag" {
            div.row {
                h2.agent-title id="ag" { span.agent.frozen[frozen.is_some()] { (entry.agent) } }
                @for place in &scope.environments { (environment(place)) }
                span.push.row.tight { @if frozen.is_none() { button.btn type="button" popovertarget="freeze" { (icon("freeze")) "Freeze" } } }
            }
            @if let Some(because) = frozen {
                div.note.hold { (icon("freeze")) div { b { "Frozen: " } (visible(because)) @if !state.all_frozen { (thaw_form(who, entry.agent.as_str())) } } }
            }
            div.scroll tabindex="0" role="region" aria-label="Privileges" {
                table.mx.card {
                    caption.vh { "What " (entry.agent) " may do, by resource and kind" }
                    thead { tr { th scope="col" { "Resource" } @for kind in KINDS { th scope="col" { (title(kind)) } } } }
                    tbody { @for system in &scope.systems {
                        tr.lane { th colspan="5" scope="colgroup" { (environment(&site.console.environment_of(system))) " " (system) } }
                        @for resource in &scope.resources { tr {
                            th.mono scope="row" { (resource.to_string()) }
                            @for kind in KINDS {
                                @let granted = scope.kinds.contains(&kind);
                                @let held = granted && matches!(kind, Kind::Destroy | Kind::Grant);
                                @if held { td.hold { span.cell { (icon("holds")) "held" } } }
                                @else if granted { td.yes { span.cell { (icon("check")) "allowed" } } }
                                @else { td.no { "no" } }
                            }
                        } }
                    } }
                }
            }
            p.small.soft { "Rows changed this hour: " (number(state.rows_this_hour(&entry.agent, now)))
                @if let Some(limit) = scope.rows_per_hour { " of " (number(limit)) } ". Beyond its budget every change is held." }
        }
        section aria-labelledby="tk" {
            div.sec-head { h2 id="tk" { "Token" } span.push { "Only a digest is stored. A token is shown once, when it is made." } }
            div.scroll tabindex="0" role="region" aria-label="Token, table" { table.tbl.fold {
                thead { tr { th scope="col" { "Token" } th scope="col" { "Acts for" } th scope="col" { "Narrowed from" } th scope="col" { "Last seen" } th scope="col" { "Expires" } } }
                tbody { tr {
                    td.mono { (entry.token) } td { @match &entry.on_behalf_of { Some(owner) => (person(owner)), None => span.muted { "nobody" } } }
                    td.mono { @match entry.parent { Some(parent) => (parent), None => span.muted { "–" } } }
                    td { @match site.feed.last(&entry.agent) { Some((at, _)) => (time(at, now)), None => span.muted { "not lately" } } }
                    td { (condition(entry, false, now)) }
                } }
            } }
        }
        @if alive { (unused(entry, used, who)) (changes_of(entry, who)) }
        p.small { a href={ "/agents/" (entry.agent) "/report" } { "What did " (entry.agent) " touch?" } " " a href={ "/audit?agent=" (entry.agent) } { "All of its events" } }
    }
}

/// Rights that the token has and its agent never used, and the button that takes them away.
fn unused(entry: &AgentState, used: Used<'_>, who: &SignedIn) -> Markup {
    let listed =
        |all: &mut dyn Iterator<Item = String>| html! { @for (at, one) in all.enumerate() { @if at > 0 { ", " } b { (visible(&one)) } } };
    html! {
        section aria-labelledby="un" {
            div.sec-head { h2 id="un" { "Rights it does not use" } span.push { "by what is on record of thirty days" } }
            @match used {
                None => a.btn href={ "/agents/" (entry.agent) "?used=30#un" } { (icon("search")) "Look at thirty days" },
                Some(Err(because)) => div.note.hold role="status" { (icon("warn")) div { b { "Not known: " } (visible(because)) } },
                Some(Ok(used)) if used.operations == 0 => p role="status" { "Nothing of " (entry.agent) " ran in thirty days. If nobody needs it, revoke its token." },
                Some(Ok(used)) => {
                    p role="status" { (count(used.operations, "operation", "operations")) " ran. "
                        @if !used.unused_kinds.is_empty() { "Never needed: " (listed(&mut used.unused_kinds.iter().map(|kind| title(*kind).to_owned()))) ". " }
                        @if !used.unused_systems.is_empty() { "Never reached: " (listed(&mut used.unused_systems.iter().cloned())) "; to leave a system out takes a new token. " }
                        @if used.narrower { "All of it was on " (listed(&mut used.resources.iter().cloned())) "." } @else { "It needs the kinds and resources that it has." }
                    }
                    @if used.narrower { form.row method="post" action={ "/agents/" (entry.agent) "/narrow" } data-passkey {
                        (form_token(who))
                        @for kind in &used.kinds { input type="hidden" name="allow" value=(kind); }
                        input type="hidden" name="resources" value=(used.resources.join("\n"));
                        button.btn type="submit" { (icon("key")) "Remove what it does not use" } (say())
                    } }
                }
            }
        }
    }
}

fn changes_of(entry: &AgentState, who: &SignedIn) -> Markup {
    html! {
        div.cols2 {
            section.card { form.body.stack-s method="post" action={ "/agents/" (entry.agent) "/narrow" } data-passkey {
                (form_token(who))
                h2 { "Narrow" }
                fieldset.row.tight { legend.vh { "Kinds that stay" } @for kind in &entry.scope.kinds {
                    label.pick { input type="checkbox" name="allow" value=(kind) checked; (title(*kind)) } } }
                label.lab for="narrow-r" { "Resources that stay, one a line" }
                textarea.mono id="narrow-r" name="resources" rows="2" spellcheck="false" { @for (at, resource) in entry.scope.resources.iter().enumerate() { @if at > 0 { "\n" } (resource.to_string()) } }
                button.btn type="submit" { (icon("key")) "Narrow with passkey" } (say())
            } }
            section.card { form.body.stack-s method="post" action={ "/agents/" (entry.agent) "/revoke" } data-passkey {
                (form_token(who))
                h2 { "Revoke" }
                p.small.soft { "At once, with every token narrowed from it. Open sessions end." }
                button.btn type="submit" { (icon("key")) "Revoke with passkey" } (say())
            } }
        }
    }
}

fn people(state: &Folded, who: &SignedIn, answers: &BTreeMap<OperatorName, Answers>, now: Timestamp) -> Markup {
    let answered =
        |name: &OperatorName| html! { @match answers.get(name) { Some(answers) => (answers.in_words()), None => span.muted { "none" } } };
    html! {
        section aria-labelledby="pp" {
            div.sec-head { h2 id="pp" { "People" } span.push { (count(state.operators.len() as u64, "operator", "operators")) } }
            div.scroll tabindex="0" role="region" aria-label="People and their passkeys" { table.tbl {
                thead { tr { th scope="col" { "Operator" } th scope="col" { "Role" } th scope="col" { "Answers to holds" } th scope="col" { "Terminal" } th scope="col" { "Passkeys" } th scope="col" { span.vh { "Remove" } } } }
                tbody { @for (name, operator) in &state.operators {
                    @if operator.passkeys.is_empty() { tr { td { (person(name)) } td { (roles(name, operator.role, who)) } td.small { (answered(name)) } td { @if operator.has_terminal() { "key and code" } @else { "–" } } td.muted { "none" } td {} } }
                    @for (at, passkey) in operator.passkeys.iter().enumerate() { tr {
                        td { @if at == 0 { (person(name)) } } td { @if at == 0 { (roles(name, operator.role, who)) } } td.small { @if at == 0 { (answered(name)) } } td { @if at == 0 { @if operator.has_terminal() { "key and code" } @else { "–" } } }
                        td { (visible(&passkey.label)) " " span.muted { "since " (time(passkey.added, now)) } }
                        td.num { form method="post" action="/operators/passkey" data-passkey {
                            (form_token(who)) input type="hidden" name="operator" value=(name); input type="hidden" name="credential" value=(passkey.credential);
                            button.btn.sm type="submit" { "Remove…" span.vh { " " (passkey.label) " of " (name) } } (say())
                        } }
                    } }
                } }
            } }
            form.row.fix method="post" action="/operators/invite" data-passkey {
                (form_token(who))
                input type="text" name="operator" required pattern="[a-z0-9][a-z0-9._\\-]*" maxlength="63" placeholder="name" aria-label="Name of the operator to invite" autocapitalize="none";
                select name="role" aria-label="What they may do" { @for role in Role::ALL { option value=(role) selected[role == Role::Approver] { (role) } } }
                button.btn type="submit" { (icon("key")) "Invite a person" } (say())
            }
            p.small.soft { "To add a passkey of your own, invite yourself: " (who.operator) "." }
            form.row method="post" action="/operators/recovery" data-passkey {
                (form_token(who))
                button.btn type="submit" { (icon("key")) "New recovery codes" }
                span.small.soft { (count(state.operators.get(&who.operator).map_or(0, |own| own.recovery_codes.len()) as u64, "code of yours is", "codes of yours are")) " good." }
                (say())
            }
        }
    }
}

/// Somebody's role, and how to give them another.
fn roles(name: &OperatorName, own: Role, who: &SignedIn) -> Markup {
    html! {
        form.row.nowrap method="post" action="/operators/role" data-passkey {
            (form_token(who)) input type="hidden" name="operator" value=(name);
            select name="role" aria-label={ "Role of " (name) } { @for role in Role::ALL { option value=(role) selected[role == own] { (role) } } }
            button.btn.sm type="submit" { "Give" span.vh { " " (name) " this role" } } (say())
        }
    }
}

fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::Read => "Read",
        Kind::Write => "Write",
        Kind::Destroy => "Destroy",
        Kind::Grant => "Grant",
        Kind::Escape => "Escape",
        Kind::Unknown => "Unknown",
    }
}

pub(crate) async fn new(State(site): State<Arc<Site>>, Entered(who): Entered) -> Response {
    let operators: Vec<OperatorName> = site.console.audit.state().operators.keys().cloned().collect();
    let body = html! {
        p.answer { "What may this agent do, where, and for how long?" }
        p.under { "Everything you do not grant stays refused. The agent cannot change any of this later, and neither can another agent." }
        form.split.wide-aside method="post" action="/agents/new" data-passkey {
            (form_token(&who))
            ol.steps {
                li.now { div { h2 { "Agent" } p.hint { "One agent, one person answerable for it." } } div.cols2.form-cols {
                    div { label.lab for="ag" { "Agent" } input.mono id="ag" name="agent" type="text" required pattern="[a-z0-9][a-z0-9._\\-]*" maxlength="63" autocapitalize="none" spellcheck="false"; }
                    div { label.lab for="ow" { "Acts for" } select id="ow" name="on_behalf_of" { option value="" { "nobody" } @for operator in &operators { option selected[*operator == who.operator] { (operator) } } } }
                } }
                li.now { div { h2 { "Systems" } p.hint { "Environments follow from them." } } fieldset.cols3.form-cols { legend.vh { "Systems" }
                    @for shown in &site.console.systems { label.choice { input type="checkbox" name="system" value=(shown.name); span { b { (shown.name) } small { (environment(&shown.environment)) " " (shown.kind) } } } }
                    @if site.console.systems.is_empty() { p.small { "No system is protected yet." } }
                } }
                li.now { div { h2 { "Operations and resources" } p.hint { "Starts at read. Raise only what the task needs." } } div.stack-s {
                    fieldset.row.tight { legend.vh { "Kinds of operation" } @for kind in KINDS { label.pick { input type="checkbox" name="allow" value=(kind) checked[kind == Kind::Read]; (title(kind)) } } }
                    label.lab for="rs" { "Resources, one pattern a line; empty is all of them" } textarea.mono id="rs" name="resources" rows="3" placeholder="public.*" spellcheck="false" {}
                } }
                li.now { div { h2 { "Lifetime and limits" } p.hint { "Short tokens need no clean-up." } } div.cols2.form-cols {
                    div { label.lab for="ex" { "Expires after" } select id="ex" name="hours" { option value="8" { "8 hours" } option value="24" { "1 day" } option value="336" { "14 days" } option value="720" { "30 days" } } }
                    div { label.lab for="rt" { "Rows changed an hour, at most; empty is the environment’s budget" } input.mono id="rt" name="rows_per_hour" type="number" min="0" inputmode="numeric"; }
                } }
            }
            aside.sticky { div.card {
                div.head { h2 { "Always" } }
                div.body.stack { ul.chk {
                    li.w { (icon("holds")) span { "must ask a person before it destroys or grants" } }
                    li.n { (icon("x")) span { "cannot make, widen or extend a token" } }
                    li.n { (icon("x")) span { "cannot answer a hold, its own or another’s" } }
                }
                button.btn.main.block type="submit" { (icon("key")) "Create token with passkey" } (say())
                p.tiny.muted { "Shown once, right here." } }
            } }
        }
    };
    Page::new(Section::Agents, body).below("New token").answer(&site, &who)
}

pub(crate) async fn create(State(site): State<Arc<Site>>, Posted { who, form }: Posted) -> Result<Response, Problem> {
    let hours: u64 = parsed(form.get("hours"))?;
    let command = Command::IssueToken {
        agent: parsed(form.get("agent"))?,
        systems: form.all("system").map(parsed::<SystemName>).collect::<Result<_, _>>()?,
        allow: kinds(&form)?,
        resources: resources(&form)?,
        rows_per_hour: some(form.get("rows_per_hour"))?,
        on_behalf_of: some(form.get("on_behalf_of"))?,
        expires_in_s: hours.saturating_mul(3_600),
        parent: None,
    };
    propose(&site, &who, command, "/agents")
}

pub(crate) async fn narrow(
    State(site): State<Arc<Site>>,
    Path(name): Path<String>,
    Posted { who, form }: Posted,
) -> Result<Response, Problem> {
    let agent: AgentName = parsed(&name)?;
    let command = Command::Narrow { agent: agent.clone(), allow: kinds(&form)?, resources: resources(&form)? };
    propose(&site, &who, command, &format!("/agents/{agent}"))
}

pub(crate) async fn revoke(
    State(site): State<Arc<Site>>,
    Path(name): Path<String>,
    Posted { who, .. }: Posted,
) -> Result<Response, Problem> {
    let agent: AgentName = parsed(&name)?;
    propose(&site, &who, Command::Revoke { agent: agent.clone() }, &format!("/agents/{agent}"))
}

pub(crate) async fn invite(State(site): State<Arc<Site>>, Posted { who, form }: Posted) -> Result<Response, Problem> {
    propose(&site, &who, Command::Invite { operator: parsed(form.get("operator"))?, role: role(&form)? }, "/agents")
}

pub(crate) async fn give_role(State(site): State<Arc<Site>>, Posted { who, form }: Posted) -> Result<Response, Problem> {
    propose(&site, &who, Command::GiveRole { operator: parsed(form.get("operator"))?, role: role(&form)? }, "/agents")
}

/// The role of a form; the smallest that decides, where none is named.
fn role(form: &Form) -> Result<Role, Problem> {
    Ok(some(form.get("role"))?.unwrap_or(Role::Approver))
}

pub(crate) async fn remove_passkey(State(site): State<Arc<Site>>, Posted { who, form }: Posted) -> Result<Response, Problem> {
    let command = Command::RemovePasskey { operator: parsed(form.get("operator"))?, credential: form.get("credential").to_owned() };
    propose(&site, &who, command, "/agents")
}

fn kinds(form: &Form) -> Result<Vec<Kind>, Problem> {
    let kind = |text: &str| KINDS.into_iter().find(|kind| kind.as_str() == text);
    let unknown = |text: &str| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", format!("`{text}` is no kind of operation that a token can name"))
    };
    form.all("allow").map(|text| kind(text).ok_or_else(|| unknown(text))).collect()
}

fn resources(form: &Form) -> Result<Vec<Pattern>, Problem> {
    form.get("resources").lines().map(str::trim).filter(|line| !line.is_empty()).map(parsed).collect()
}

fn some<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<Option<T>, Problem> {
    if text.is_empty() { Ok(None) } else { parsed(text).map(Some) }
}

/// Proposes new recovery codes for whoever asks.
pub(crate) async fn recovery_codes(State(site): State<Arc<Site>>, Posted { who, form: _ }: Posted) -> Result<Response, Problem> {
    propose(&site, &who, Command::MakeRecoveryCodes {}, "/agents")
}
