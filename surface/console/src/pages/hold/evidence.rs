//! The evidence of a hold: what would be lost, what its author says, what was measured, the exact text, and what leads back.

use maud::{Markup, html};
use reprieve_operation::{Action, Effect, Found, HeldReason, HoldState, Protocol, Timestamp};

use super::risk;
use crate::{
    site::Site,
    statement::{claimed_rows, plain, said, sql},
    words::{agent, bar, count, environment_class, hidden, icon, line, loss_of, number, person, small_icon, time, verb, visible},
};

/// Rows of the table of reach.
const MOST_TABLES: usize = 200;

pub(super) fn verdict(site: &Site, hold: &HoldState, now: Timestamp) -> Markup {
    html! {
        header.verdict {
            p.meta {
                span class={ "env lg " (environment_class(&hold.environment)) } { @if hold.environment.is_production() { "Production" } @else { (hold.environment) } }
                (risk(hold).mark(verb(&hold.effects, hold.reach.as_ref())))
                span.mono.soft { (hold.system) " / " (visible(&hold.confirm)) }
            }
            h1 { (loss_of(hold)) }
            p.meta {
                span.mono { (hold.hold) } span { "held " (time(hold.opened, now)) }
                span { "by " (agent(&hold.agent, site.is_frozen(&hold.agent))) }
                @if let Some(owner) = &hold.on_behalf_of { span { "acting for " (person(owner)) } }
            }
        }
    }
}

/// What the author of the statement says in it. Only SQL has comments that we can tell from the rest.
pub(super) fn words_of(hold: &HoldState) -> Option<String> {
    if hold.protocol == Protocol::Postgres { said(&hold.text) } else { None }
}

/// The author's word against the measurement.
pub(super) fn claims(hold: &HoldState) -> Markup {
    let unbounded = hold.effects.iter().any(Effect::is_unbounded);
    let claimed = words_of(hold).as_deref().and_then(claimed_rows);
    let named: std::collections::BTreeSet<String> = hold.effects.iter().filter_map(object_of).collect();
    let calls = hold.protocol == Protocol::Http;
    html! {
        section.claims aria-label="What the agent says, and what was measured" {
            @match claimed {
                Some(rows) => div.agent-says { p.cap { "The agent said" } p.big { (number(rows)) " " small { @if rows == 1 { "row" } @else { "rows" } } }
                    p.note2 { "Its words, not checked. Read them below." } },
                None => div.agent-says { p.cap { "The text names" }
                    p.big { (named.len()) " " small { @match (calls, named.len()) { (true, 1) => "resource", (true, _) => "resources", (false, 1) => "table", (false, _) => "tables" } } }
                    p.note2 { @if unbounded { b { "Without a condition: every row." } } @else { "Its word, not a measurement." } } },
            }
            @match &hold.reach {
                Some(reach) if calls || !reach.found.is_empty() => {
                    @let backups: usize = reach.found.iter().map(|found| found.backups.len()).sum();
                    @let unresolved = reach.found.iter().any(|found| found.unresolved.is_some());
                    div.bad { p.cap { "Looked up" } p.big { (reach.found.len()) " " small { @if reach.found.len() == 1 { "resource" } @else { "resources" } } }
                        p.note2 { @if unresolved { b { "Could not be resolved, so it counts as production." } } @else { "By the gateway’s own look, not the agent’s word." } } }
                    div.bad[backups > 0] { p.cap { "Its backups at the provider" } p.big { (backups) }
                        p.note2 { @if backups > 0 { b { "They may go with it." } } @else { "None was found there." } } }
                }
                Some(reach) => {
                    div.bad { p.cap { @if reach.estimated { "Estimated" } @else { "Measured" } } p.big { (number(reach.rows())) " " small { @if reach.rows() == 1 { "row" } @else { "rows" } } }
                        p.note2 { @if let Some(times) = times_as_many(claimed, reach.rows()) { b { (times) } " " }
                            @if reach.estimated { "From the catalogue: it was not run to find out." } @else { "In " (count(reach.tables.len() as u64, "table", "tables")) ", triggers and cascades included." } } }
                    div.bad[!reach.is_undoable()] { p.cap { "Cannot be undone" } p.big { @if reach.estimated { "?" } @else { (reach.lasting.len()) } " " small { @if reach.lasting.len() == 1 { "part" } @else { "parts" } } }
                        p.note2 { @if reach.is_undoable() { "All of it can be taken back." } @else { "Read below what stays." } } }
                }
                None => div.bad { p.cap { "Measured" } p.big { "not" } p.note2 { b { "We could not measure this, so it counts as destroying everything it names." } } }
            }
        }
    }
}

/// A gap between the word and the measurement is the loudest thing on the page.
pub(super) fn times_as_many(claimed: Option<u64>, measured: u64) -> Option<String> {
    let claimed = claimed?;
    match (measured, claimed) {
        (0, _) => None,
        (_, 0) => Some("It said none.".to_owned()),
        _ if measured / claimed >= 2 => Some(format!("{} times as many.", number(measured / claimed))),
        _ if measured > claimed => Some("More than it said.".to_owned()),
        _ => None,
    }
}

/// The object that an effect changes.
fn object_of(effect: &Effect) -> Option<String> {
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

pub(super) fn statement(hold: &HoldState) -> Markup {
    let unseen = hidden(&hold.text);
    let digest = hold.digest.to_string();
    let (wire, name) = match hold.protocol {
        Protocol::Postgres => ("PostgreSQL", "Exact statement"),
        Protocol::Http => ("HTTP", "Exact request"),
    };
    let sort = match hold.action {
        Action::SelfContained => "stands alone",
        Action::InSession => "inside the client’s transaction",
        Action::Commit => "a whole transaction",
    };
    // What could not be parsed is not coloured: colours would claim that we understood it.
    let understood = hold.protocol == Protocol::Postgres && !hold.effects.iter().any(|effect| matches!(effect, Effect::Unknown { .. }));
    let names: Vec<String> = hold.effects.iter().filter_map(object_of).collect();
    html! {
        section aria-labelledby="h-stmt" {
            div.sec-head { h2 id="h-stmt" { (name) } span.push { (wire) ", " (sort) } }
            figure.stmt {
                pre id="stmt" { code { @if understood { (sql(&hold.text, &names)) } @else { (plain(&hold.text)) } } }
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

pub(super) fn blast_radius(hold: &HoldState, now: Timestamp) -> Markup {
    let Some(reach) = &hold.reach else { return html! {} };
    let all = reach.rows().max(1);
    #[allow(clippy::cast_precision_loss, reason = "a bar's width")]
    let share = |rows: u64| rows as f64 / all as f64;
    let named = |name: &str| name == hold.confirm || name.rsplit('.').next() == hold.confirm.rsplit('.').next();
    // The table that is named first, then the others by how much they lose.
    let mut tables: Vec<_> = reach.tables.iter().collect();
    tables.sort_by_key(|(name, rows)| (!named(name), std::cmp::Reverse(rows.rows())));
    html! {
        section aria-labelledby="h-blast" {
            div.sec-head { h2 id="h-blast" { @if reach.estimated { "Estimated blast radius" } @else { "Measured blast radius" } }
                span.push { @match (hold.protocol, hold.reason) {
                    (Protocol::Http, _) => { "looked up " (time(hold.opened, now)) ", nothing was sent" },
                    (Protocol::Postgres, HeldReason::Measured) => { "ran in a transaction " (time(hold.opened, now)) ", rolled back" },
                    (Protocol::Postgres, HeldReason::Text) => "held before it ran",
                } } }
            @if !tables.is_empty() {
                div.scroll tabindex="0" role="region" aria-label="Rows per table" {
                    table.tbl.blast {
                        thead { tr { th scope="col" { "Table" } th.only-wide scope="col" { "What happens" } th.num scope="col" { "Rows" } th.share scope="col" { "Share of the whole" } } }
                        tbody { @for (at, (name, rows)) in tables.iter().take(MOST_TABLES).enumerate() {
                            @for (verb, class, count) in [("Deleted", "c-danger", rows.deleted), ("Changed", "c-hold", rows.updated), ("Added", "", rows.inserted)] {
                                @if count > 0 { tr {
                                    th scope="row" { @if at > 0 { span.tree { @if at + 1 == tables.len() { "└ " } @else { "├ " } } } span.mono { (visible(name)) } }
                                    td.only-wide { b class=(class) { (verb) } @if at > 0 && !named(name) { span.muted { " along with it" } } }
                                    td.num { (number(count)) } td { span.with-bar { (bar(if verb == "Deleted" { "d" } else { "h" }, share(count))) (format!("{:.1} %", share(count) * 100.0)) } }
                                } }
                            }
                        } }
                        tfoot { tr { th scope="row" { (count(tables.len() as u64, "table", "tables")) } td.only-wide {} td.num { (number(reach.rows())) } td {} } }
                    }
                }
            }
            @for found in reach.found.iter().take(MOST_TABLES) { (resource(found)) }
            dl.kv.sm.reach {
                @if !reach.dropped.is_empty() { dt { "Dropped" } dd { (names(&reach.dropped)) } }
                @if !reach.rewritten.is_empty() { dt { "Emptied or rewritten" } dd { (names(&reach.rewritten)) } }
                @if reach.touches_catalogs() { dt { "Definitions" } dd { @for (name, rows) in &reach.catalogs { span.mono { (visible(name)) } " " (count(*rows, "row", "rows")) " " } } }
                @if !reach.escapes.is_empty() { dt { "Outside of it" } dd { (names(&reach.escapes)) } }
            }
        }
    }
}

/// A few of the rows, masked before they got here. Their values are anybody's text all the same.
pub(super) fn samples(hold: &HoldState) -> Markup {
    let value = |value: &Option<String>| html! { @match value { Some(text) => (line(text)), None => span.muted { "NULL" } } };
    let takes = hold.reach.as_ref().is_some_and(|reach| reach.tables.values().any(|rows| rows.updated + rows.deleted > 0));
    html! {
        @if hold.samples.is_empty() && takes {
            section aria-labelledby="h-sample" {
                div.sec-head { h2 id="h-sample" { "Affected rows" } span.push { "none to show" } }
                p.small.soft { "They come from the journal, of a trial that is rolled back. This was estimated, or stopped by its count alone, its tables are not in the journal, its agent may not read them, or rows of this system are not shown." }
            }
        }
        @for (at, sample) in hold.samples.iter().enumerate() {
            section aria-labelledby={ "h-sample" (at) } {
                div.sec-head { h2 id={ "h-sample" (at) } { "Affected rows of " span.mono { (line(&sample.table)) } }
                    span.push { (number(sample.rows.len() as u64)) " of " (number(sample.of)) ", different kinds first, personal data masked" } }
                div.scroll tabindex="0" role="region" aria-label={ "Sample of affected rows, table " (at + 1) } { table.tbl.sample {
                    thead { tr { th scope="col" { span.vh { "Change" } } @for column in &sample.columns { th scope="col" { (line(column)) } } } }
                    tbody { @for row in &sample.rows {
                        @match &row.after {
                            None => tr.del { td { span aria-hidden="true" { "−" } span.vh { "deleted" } } @for field in &row.before { td { (value(field)) } } },
                            Some(after) => tr { td { span aria-hidden="true" { "~" } span.vh { "changed" } }
                                @for (was, is) in row.before.iter().zip(after) { td {
                                    @if was == is { (value(was)) } @else { span.was { (value(was)) } " " span.is { (value(is)) } }
                                } } },
                        }
                    } }
                } }
            }
        }
    }
}

/// A service's resource, as the gateway found it.
fn resource(found: &Found) -> Markup {
    html! {
        dl.kv.facts {
            dt { "What it is" } dd { @if let Some(name) = &found.name { b.mono { (visible(name)) } " " } span.mono.muted { (visible(&found.resource)) } }
            @if let Some(place) = &found.environment { dt { "Environment" } dd { (visible(place)) } }
            @if let Some(size) = &found.size { dt { "Size" } dd { b { (visible(size)) } } }
            @if !found.attached.is_empty() { dt { "Attached to" } dd { (names(&found.attached)) } }
            @if !found.parents.is_empty() { dt { "Belongs to" } dd { (names(&found.parents)) } }
            @if !found.backups.is_empty() { dt { "Backups there" } dd { span.c-danger { (names(&found.backups)) } } }
            @if let Some(protection) = &found.protection { dt { "Protected by" } dd { (visible(protection)) } }
            @if let Some(because) = &found.unresolved { dt { "Not resolved" } dd { span.c-danger { (visible(because)) } } }
        }
    }
}

fn names(all: &[String]) -> Markup {
    html! { @for (at, name) in all.iter().take(MOST_TABLES).enumerate() { @if at > 0 { ", " } span.mono { (visible(name)) } } }
}

pub(super) fn way_back(site: &Site, hold: &HoldState) -> Markup {
    let window = site.console.undo_window.as_secs() / 3_600;
    html! {
        section aria-labelledby="h-undo" {
            div.sec-head { h2 id="h-undo" { "What can be undone" } }
            ul.chk {
                @match &hold.reach {
                    Some(reach) if hold.protocol == Protocol::Http && reach.lasting.is_empty() => li.w { (icon("warn")) span { b { "Only what the service itself brings back." } " " span.soft { "Undo of calls is the provider’s, not ours." } } },
                    Some(reach) if reach.is_undoable() => li.y { (icon("check")) span { b { "All " (count(reach.rows(), "row", "rows")) ", for " (window) " hours." } " " span.soft { "What they were before is kept as the change is made, out of the agent’s reach." } } },
                    Some(reach) if reach.lasting.is_empty() => li.w { (icon("warn")) span { b { "Not known before it runs." } " " span.soft { "It was not run to find out." } } },
                    Some(reach) => @for lasting in &reach.lasting { li.n { (icon("x")) span { b { (visible(lasting)) } } } },
                    None => li.n { (icon("x")) span { b { "Nothing, as far as we know." } } },
                }
                li.w { (icon("warn")) span { b { "What others did with the data meanwhile stays." } " " span.soft { "Mails, exports and copies are out of our reach." } } }
            }
        }
    }
}

/// The agent's own words, framed as such.
pub(super) fn quoted(hold: &HoldState) -> Markup {
    html! {
        @if let Some(words) = words_of(hold) {
            div.said {
                p.from { (small_icon("quote")) span { b { "Written by the agent." } " Not checked, shown as plain text." } }
                pre { @for (at, part) in words.split('\n').enumerate() { @if at > 0 { "\n" } (visible(part)) } }
            }
        }
    }
}
