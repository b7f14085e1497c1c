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
use reprieve_gate::{Command, RecordQuery, SignedIn};
use reprieve_operation::{
    Action, Answer, Digest, Effect, Event, HeldReason, HoldId, HoldState, HoldStatus, Kind, OperatorName, Protocol, Recorded, Timestamp,
};

use super::{
    desk::{carried, parsed, propose},
    holds::{deny_one, ending, pips},
};
use crate::{
    door::{Entered, Posted, see_other},
    frame::{Page, Section, form_token, say},
    problem::Problem,
    site::Site,
    words::{Risk, agent, bar, count, environment, hidden, icon, loss, number, person, small_icon, span, time, time_of_day, verb, visible},
};

/// How long an approval can still be stopped after the passkey.
const STOP_WITHIN_S: u32 = 10;
/// Rows of the table of reach.
const MOST_TABLES: usize = 200;

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
                (way_back(&hold))
            }
            aside.sticky aria-label="Decision" { (decision(&site, &hold, &people, &who, now)) }
            div.stack-l.part-b {
                (who_asked(&site, &hold, now))
                (similar_before(&similar, now))
                (story(&told))
            }
        }
    };
    Ok(Page::new(Section::Holds, body).below(hold.hold.to_string()).destructive(destructive).live().answer(&site, &who))
}

fn risk(hold: &HoldState) -> Risk {
    let kinds: Vec<Kind> = hold.effects.iter().map(Effect::kind).collect();
    Risk::of(&kinds, hold.reach.as_ref())
}

fn verdict(site: &Site, hold: &HoldState, now: Timestamp) -> Markup {
    html! {
        header.verdict {
            p.meta {
                (environment(&hold.environment)) (risk(hold).mark(verb(&hold.effects, hold.reach.as_ref())))
                span.mono.soft { (hold.system) " / " (visible(&hold.confirm)) }
            }
            h1 { (loss(hold.reach.as_ref(), &hold.confirm)) }
            p.meta {
                span.mono { (hold.hold) } span { "held " (time(hold.opened, now)) }
                span { "by " (agent(&hold.agent, site.is_frozen(&hold.agent))) }
                @if let Some(owner) = &hold.on_behalf_of { span { "acting for " (person(owner)) } }
            }
        }
    }
}

/// The text's word against the measurement.
fn claims(hold: &HoldState) -> Markup {
    let unbounded =
        hold.effects.iter().any(|effect| matches!(effect, Effect::Update { bounded: false, .. } | Effect::Delete { bounded: false, .. }));
    let named: std::collections::BTreeSet<String> = hold.effects.iter().filter_map(table_of).collect();
    html! {
        section.claims aria-label="What the text says, and what was measured" {
            div.agent-says { p.cap { "The text names" } p.big { (named.len()) " " small { @if named.len() == 1 { "table" } @else { "tables" } } }
                p.note2 { @if unbounded { b { "Without a condition: every row." } } @else { "Its word, not a measurement." } } }
            @match &hold.reach {
                Some(reach) => {
                    div.bad { p.cap { @if reach.estimated { "Estimated" } @else { "Measured" } } p.big { (number(reach.rows())) " " small { @if reach.rows() == 1 { "row" } @else { "rows" } } }
                        p.note2 { @if reach.estimated { "From the catalogue: it was not run to find out." } @else { b { (count(reach.tables.len() as u64, "table", "tables")) } ", triggers and cascades included." } } }
                    div.bad[!reach.is_undoable()] { p.cap { "Cannot be undone" } p.big { @if reach.estimated { "?" } @else { (reach.lasting.len()) } " " small { @if reach.lasting.len() == 1 { "part" } @else { "parts" } } }
                        p.note2 { @if reach.is_undoable() { "All of it can be taken back." } @else { "Read below what stays." } } }
                }
                None => div.bad { p.cap { "Measured" } p.big { "not" } p.note2 { b { "We could not measure this, so it counts as destroying everything it names." } } }
            }
        }
    }
}

fn table_of(effect: &Effect) -> Option<String> {
    match effect {
        Effect::Insert { table } | Effect::Update { table, .. } | Effect::Delete { table, .. } | Effect::Rewrite { table, .. } => {
            Some(table.to_string())
        }
        Effect::Drop { name, .. } | Effect::Define { name, .. } => Some(name.to_string()),
        Effect::Invoke { resource, operation, .. } => Some(resource.as_ref().unwrap_or(operation).clone()),
        Effect::Read { .. }
        | Effect::Grant { .. }
        | Effect::Call { .. }
        | Effect::Session { .. }
        | Effect::Escape { .. }
        | Effect::Unknown { .. } => None,
    }
}

fn statement(hold: &HoldState) -> Markup {
    let unseen = hidden(&hold.text);
    let digest = hold.digest.to_string();
    let wire = match hold.protocol {
        Protocol::Postgres => "PostgreSQL",
        Protocol::Http => "HTTP",
    };
    let sort = match hold.action {
        Action::SelfContained => "stands alone",
        Action::InSession => "inside the client’s transaction",
        Action::Commit => "a whole transaction",
    };
    html! {
        section aria-labelledby="h-stmt" {
            div.sec-head { h2 id="h-stmt" { "Exact statement" } span.push { (wire) ", " (sort) } }
            figure.stmt {
                pre id="stmt" { code { @for part in hold.text.split('\n') { span.l { (visible(part)) } } } }
                figcaption.foot {
                    span.mono { "sha256 " (&digest[..8]) " … " (&digest[60..]) }
                    @if unseen == 0 { span { "no invisible characters" } }
                    @else { span.c-hold { (count(unseen as u64, "place", "places")) " drawn that could not be seen" } }
                    button.btn.ghost.sm.push type="button" data-copy="#stmt" { (icon("copy")) "Copy" }
                }
            }
            @if let Some(parameters) = &hold.parameters {
                dl.kv.sm.reach { @for (at, value) in parameters.values.iter().enumerate() {
                    dt.mono { "$" (at + 1) } dd.mono { @match value { None => "NULL", Some(bytes) => (visible(&String::from_utf8_lossy(bytes))) } }
                } }
            }
            @for effect in &hold.effects {
                @if let Effect::Unknown { because } | Effect::Escape { what: because } = effect {
                    div.note.danger { (icon("warn")) div { b { "Not bounded: " } span.soft { (visible(because)) } } }
                }
            }
        }
    }
}

fn blast_radius(hold: &HoldState, now: Timestamp) -> Markup {
    let Some(reach) = &hold.reach else { return html! {} };
    let most = reach.tables.values().map(|rows| rows.rows()).max().unwrap_or(0).max(1);
    #[allow(clippy::cast_precision_loss, reason = "a bar's width")]
    let share = |rows: u64| rows as f64 / most as f64;
    html! {
        section aria-labelledby="h-blast" {
            div.sec-head { h2 id="h-blast" { @if reach.estimated { "Estimated blast radius" } @else { "Measured blast radius" } }
                span.push { @match hold.reason {
                    HeldReason::Measured => { "ran in a transaction " (time(hold.opened, now)) ", rolled back" },
                    HeldReason::Text => "held before it ran",
                } } }
            @if !reach.tables.is_empty() {
                div.scroll tabindex="0" role="region" aria-label="Rows per table" {
                    table.tbl.blast {
                        thead { tr { th scope="col" { "Table" } th.only-wide scope="col" { "What happens" } th.num scope="col" { "Rows" } th.share scope="col" { "Against the largest" } } }
                        tbody { @for (name, rows) in reach.tables.iter().take(MOST_TABLES) {
                            @for (verb, class, count) in [("Deleted", "c-danger", rows.deleted), ("Changed", "c-hold", rows.updated), ("Added", "", rows.inserted)] {
                                @if count > 0 { tr {
                                    th scope="row" { span.mono { (visible(name)) } } td.only-wide { b class=(class) { (verb) } }
                                    td.num { (number(count)) } td { span.with-bar { (bar(if verb == "Deleted" { "d" } else { "h" }, share(count))) } }
                                } }
                            }
                        } }
                        tfoot { tr { th scope="row" { (count(reach.tables.len() as u64, "table", "tables")) } td.only-wide {} td.num { (number(reach.rows())) } td {} } }
                    }
                }
            }
            dl.kv.sm.reach {
                @if !reach.dropped.is_empty() { dt { "Dropped" } dd { (names(&reach.dropped)) } }
                @if !reach.rewritten.is_empty() { dt { "Emptied or rewritten" } dd { (names(&reach.rewritten)) } }
                @if reach.touches_catalogs() { dt { "Definitions" } dd { @for (name, rows) in &reach.catalogs { span.mono { (visible(name)) } " " (count(*rows, "row", "rows")) " " } } }
                @if !reach.escapes.is_empty() { dt { "Outside of it" } dd { (names(&reach.escapes)) } }
            }
        }
    }
}

fn names(all: &[String]) -> Markup {
    html! { @for (at, name) in all.iter().take(MOST_TABLES).enumerate() { @if at > 0 { ", " } span.mono { (visible(name)) } } }
}

fn way_back(hold: &HoldState) -> Markup {
    html! {
        section aria-labelledby="h-undo" {
            div.sec-head { h2 id="h-undo" { "What can be undone" } }
            ul.chk {
                @match &hold.reach {
                    Some(reach) if reach.is_undoable() => li.y { (icon("check")) span { b { "All " (count(reach.rows(), "row", "rows")) "." } " " span.soft { "What they were before is kept as the change is made." } } },
                    Some(reach) if reach.lasting.is_empty() => li.w { (icon("warn")) span { b { "Not known before it runs." } " " span.soft { "It was not run to find out." } } },
                    Some(reach) => @for lasting in &reach.lasting { li.n { (icon("x")) span { b { (visible(lasting)) } } } },
                    None => li.n { (icon("x")) span { b { "Nothing, as far as we know." } } },
                }
                li.w { (icon("warn")) span { b { "What others did with the data meanwhile stays." } " " span.soft { "Mails, exports and copies are out of our reach." } } }
                li.w { (icon("warn")) span { b { "No drill is on record." } " " span.soft { "Backups and drills are not built yet: count on your own." } } }
            }
        }
    }
}

/// The panel where one decides.
fn decision(site: &Site, hold: &HoldState, people: &[OperatorName], who: &SignedIn, now: Timestamp) -> Markup {
    let path = format!("/holds/{}", hold.hold);
    let (have, need) = (hold.counted_approvals(), hold.needs.approvals);
    let left = hold.expires.since(now);
    let waiting = hold.status == HoldStatus::Waiting;
    let mine = hold.answers.iter().find(|(operator, ..)| *operator == who.operator);
    let alone = hold.on_behalf_of.as_ref() == Some(&who.operator);
    let frozen = site.is_frozen(&hold.agent);
    html! {
        // Without a trigger of its own a click anywhere would fetch it anew, under the hands of whoever decides.
        @let refreshed = !waiting || mine.is_some();
        div.decide id="decision" hx-get=[refreshed.then_some(&path)] hx-select="#decision" hx-swap="outerHTML" hx-trigger=[refreshed.then_some("sse:hold")] {
            @if waiting { p.clock { (icon("clock")) "Denied automatically in" span.push data-left=(left.as_secs()) { (span(left)) } } }
            @else { p.clock { (ending(hold)) } }
            section aria-labelledby="d-ap" {
                div.row { h2 id="d-ap" { (have) " of " (need.max(1)) @if need > 1 { " approvals" } @else { " approval" } } span.push { (pips(have, need.max(1))) } }
                ul.people {
                    @for (operator, answer, reason) in &hold.answers { li {
                        (person(operator)) small { @if *answer == Answer::Approve { "approved" } @else { "denied" } }
                        @if !reason.is_empty() { q { (visible(reason)) } }
                    } }
                    @if waiting && mine.is_none() && !alone { li { span.who { i aria-hidden="true" { "•" } b { "You" } } small { "not decided" } } }
                    @for operator in people.iter().filter(|operator| hold.on_behalf_of.as_ref() == Some(operator)) {
                        li.muted { (person(operator)) small { "the agent acts for them: not the only one" } }
                    }
                }
            }
            @if waiting && mine.is_none() {
                (deny_form(&path, hold, who))
                @if frozen { section.approve-zone { p.small { "The agent is frozen. Only a denial is possible until it is thawed." } } }
                @else if alone && need <= 1 { section.approve-zone { p.small { "The agent acts for you, so your approval would not count: somebody else has to look." } } }
                @else { (approve_form(&path, hold, who)) }
            } @else if waiting {
                section { p.small.soft { "Your answer is on record. It takes " (need.saturating_sub(have)) " more." } }
            } @else {
                section { p.small.soft { @match hold.status {
                    HoldStatus::Denied => "It did not run. The agent gets to read the reason.",
                    HoldStatus::Expired => "Nobody decided in time, so it is denied. It did not run.",
                    HoldStatus::Approved => "It runs once, when its client comes for it, if it still reaches no further.",
                    HoldStatus::Scheduled => "It is carried out when its window ends, unless somebody cancels it.",
                    HoldStatus::Released => "It is running now.",
                    HoldStatus::Finished => @if hold.succeeded == Some(true) { "It ran once, as approved." a.btn href="/undo" { (icon("undo")) "What can be taken back" } } @else { "It was approved, and did not run: nothing was changed." },
                    HoldStatus::Waiting => "",
                } } }
            }
        }
    }
}

fn deny_form(path: &str, hold: &HoldState, who: &SignedIn) -> Markup {
    let draft = match &hold.reach {
        Some(reach) if reach.rows() > 0 => format!("This reaches {}. Narrow it, and ask again.", count(reach.rows(), "row", "rows")),
        _ => hold.needs.remedy.clone(),
    };
    html! {
        section id="deny" aria-labelledby="d-no" {
            form.stack-s method="post" action={ (path) "/deny" } {
                (form_token(who))
                h2 id="d-no" { "Deny" }
                label { span.vh { "What the agent is told" } textarea name="reason" rows="3" required maxlength="1000" { (draft) } }
                button.btn.main.block type="submit" { "Deny" }
                button.btn.block type="submit" name="freeze" value="1" { (icon("freeze")) "Deny and freeze " (hold.agent) }
            }
        }
    }
}

fn approve_form(path: &str, hold: &HoldState, who: &SignedIn) -> Markup {
    // Blanks and signs in a name count as themselves.
    let pattern: String = hold
        .confirm
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c.to_string() } else { format!("\\u{{{:X}}}", u32::from(c)) })
        .collect();
    html! {
        section.approve-zone id="approve" aria-labelledby="d-yes" {
            form method="post" action={ (path) "/approve" } data-confirm=(hold.confirm) data-passkey data-delay=(STOP_WITHIN_S) autocomplete="off" {
                (form_token(who))
                input type="hidden" name="signed" value=(hold.digest_to_sign(Answer::Approve).to_string());
                h2.vh id="d-yes" { "Approve" }
                label.lab for="confirm-name" { "To approve, type " span.confirm-name { (visible(&hold.confirm)) } }
                input.mono id="confirm-name" type="text" name="confirm" required pattern=(pattern) data-confirm-field autocapitalize="none" autocorrect="off" spellcheck="false" aria-describedby="signs";
                label.lab for="why-yes" { "Why, for the record" }
                input id="why-yes" type="text" name="reason" maxlength="1000";
                button.btn.destroy.block type="submit" { (icon("key")) "Approve with passkey" }
                p.small data-stop hidden role="status" { "Approving in " b { (STOP_WITHIN_S) } " s. " button.btn.sm type="button" { "Stop" } }
                (say())
                p.signs id="signs" { "Your passkey signs this statement and this measurement. It is measured again as it runs; if it reaches further, it is rolled back and held again." }
            }
        }
    }
}

fn who_asked(site: &Site, hold: &HoldState, now: Timestamp) -> Markup {
    let token = site.console.audit.state().agents.get(&hold.agent).map(|entry| (entry.scope.clone(), entry.expires));
    html! {
        section aria-labelledby="h-who" {
            div.sec-head { h2 id="h-who" { "Who asked, and by which rule it is held" } }
            dl.kv.facts {
                dt { "Agent" } dd { (agent(&hold.agent, site.is_frozen(&hold.agent))) }
                @if let Some(owner) = &hold.on_behalf_of { dt { "On behalf of" } dd { (person(owner)) } }
                dt { "Token" } dd { span.mono { (hold.token) } @if let Some((scope, expires)) = &token {
                    span.muted { " " @for kind in &scope.kinds { (kind) " " } "on " @for system in &scope.systems { (system) " " } ", expires " (time_until(*expires, now)) } } }
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

/// What the ledger says of this hold, in order.
fn story(told: &[Recorded]) -> Markup {
    html! {
        section aria-labelledby="h-tl" {
            div.sec-head { h2 id="h-tl" { "This hold" } span.push.small { "each line with its proof" } }
            ol.tl { @for recorded in told.iter().rev() {
                @let (class, words) = step(&recorded.event);
                li class=(class) { (time_of_day(recorded.at)) " " (words) " " a.small href={ "/audit/" (recorded.index) } aria-label={ "Record " (recorded.index) } { (small_icon("audit")) } }
            } }
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
        Event::HoldAnswered { operator, .. } => ("", html! { (operator) " denied" }),
        Event::HoldExpired { .. } => ("", html! { "Nobody decided in time: denied" }),
        Event::HoldCancelled { operator, .. } => ("", html! { (operator) " cancelled it" }),
        Event::HoldReleased { .. } => ("", html! { "Its one run began" }),
        Event::HoldFinished { succeeded, .. } => ("ok", html! { @if *succeeded { "It ran" } @else { "It did not run" } }),
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
