//! What an operation takes away, in words: the verb, the loss in one sentence, and the effect in a cell.

use maud::{Markup, html};
use reprieve_operation::{Effect, Found, HoldState, Kind, Reach, TableReach};

use super::{count, visible};

/// The verb of an operation, from its first opinion and what was measured.
pub(crate) fn verb(effects: &[Effect], reach: Option<&Reach>) -> &'static str {
    if let Some(verb) = verb_of_call(effects) {
        return verb;
    }
    if reach.is_some_and(|reach| !reach.dropped.is_empty()) || effects.iter().any(|effect| matches!(effect, Effect::Drop { .. })) {
        return "Drop";
    }
    if reach.is_some_and(|reach| !reach.rewritten.is_empty()) || effects.iter().any(|effect| matches!(effect, Effect::Rewrite { .. })) {
        return "Truncate";
    }
    if reach.is_some_and(|reach| reach.deleted() > 0) || effects.iter().any(|effect| matches!(effect, Effect::Delete { .. })) {
        return "Delete";
    }
    if effects.iter().any(|effect| matches!(effect, Effect::Grant { .. })) {
        return "Privileges";
    }
    if effects.iter().any(|effect| matches!(effect, Effect::Define { .. })) || reach.is_some_and(Reach::touches_catalogs) {
        return "Schema";
    }
    if reach.is_some_and(|reach| reach.rows() > 0) { "Wide write" } else { "Unknown" }
}

/// A hold's loss in one sentence: the heading that no two holds share.
pub(crate) fn loss_of(hold: &HoldState) -> Markup {
    match &hold.reach {
        Some(reach) if !reach.found.is_empty() => loss_of_resources(&hold.effects, &reach.found),
        reach => loss(reach.as_ref(), &hold.confirm),
    }
}

/// What a call does to what it names.
fn loss_of_resources(effects: &[Effect], found: &[Found]) -> Markup {
    let Some(first) = found.first() else { return html! {} };
    let sort = first.resource.split('/').next().unwrap_or_default();
    let name = first.name.as_ref().unwrap_or(&first.resource);
    let backups: usize = found.iter().map(|found| found.backups.len()).sum();
    html! {
        (verb(effects, None)) " " (visible(sort)) " " span.n { (visible(name)) } @if let Some(size) = &first.size { ", " span.n { (visible(size)) } } (others(found.len()))
        @if backups > 0 { ", with " span.n { (count(backups as u64, "backup", "backups")) } " at the provider" }
    }
}

/// The verb of a call, by the operation's own name where that says it.
fn verb_of_call(effects: &[Effect]) -> Option<&'static str> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Invoke { operation, kind, .. } => Some((operation.to_ascii_lowercase(), *kind)),
            _ => None,
        })
        .max_by_key(|(_, kind)| *kind)
        .map(|(operation, kind)| match kind {
            Kind::Destroy if ["delete", "destroy", "remove", "terminate", "purge", "drop"].iter().any(|word| operation.contains(word)) => {
                "Delete"
            }
            Kind::Destroy => "Take away",
            Kind::Grant => "Change rights by",
            Kind::Write => "Change",
            Kind::Read => "Read",
            Kind::Escape | Kind::Unknown => "Call",
        })
}

/// The loss in one sentence, with its numbers marked. `named` is the table that has to be typed.
pub(crate) fn loss(reach: Option<&Reach>, named: &str) -> Markup {
    let Some(reach) = reach.filter(|reach| !reach.is_empty()) else {
        return html! { "Run a statement that could not be measured, so it counts as destroying " span.n { (visible(named)) } };
    };
    let about = if reach.estimated { "about " } else { "" };
    let (verb, main) = if !reach.dropped.is_empty() {
        ("Drop", html! { span.n { (visible(&reach.dropped[0])) } (others(reach.dropped.len())) })
    } else if !reach.rewritten.is_empty() {
        ("Empty or rewrite", html! { span.n { (visible(&reach.rewritten[0])) } (others(reach.rewritten.len())) })
    } else if reach.rows() > 0 {
        let (verb, own, name) = match main_table(reach, named) {
            Some((name, rows)) if rows.deleted > 0 => ("Delete", rows.deleted, name),
            Some((name, rows)) if rows.updated > 0 => ("Change", rows.updated, name),
            Some((name, rows)) => ("Add", rows.inserted, name),
            None => ("Change", reach.rows(), named),
        };
        (verb, html! { (about) span.n { (count(own, "row", "rows")) } " of " span.mono { (visible(name)) } })
    } else if reach.touches_catalogs() {
        ("Change", html! { "definitions or privileges of " span.n { (visible(named)) } })
    } else {
        ("Reach", html! { "outside of the transaction: " span.n { (visible(reach.escapes.first().map_or("", String::as_str))) } })
    };
    let own = main_table(reach, named).map_or(0, |(_, rows)| rows.rows());
    let rest = reach.rows().saturating_sub(own);
    let tables = reach.tables.len().saturating_sub(1) as u64;
    html! {
        (verb) " " (main)
        @if rest > 0 { " and " span.n { (count(rest, "row", "rows")) } " in " (count(tables, "table", "tables")) " besides" }
    }
}

/// The table that is named, with or without its schema; else the one with the most rows.
fn main_table<'a>(reach: &'a Reach, named: &str) -> Option<(&'a str, &'a TableReach)> {
    let is_named = |name: &str| !named.is_empty() && (name == named || name.rsplit('.').next() == Some(named));
    let found = reach.tables.iter().find(|(name, _)| is_named(name)).or_else(|| reach.tables.iter().max_by_key(|(_, rows)| rows.rows()));
    found.map(|(name, rows)| (name.as_str(), rows))
}

fn others(all: usize) -> Markup {
    html! { @if all > 1 { " and " (all - 1) " more" } }
}

/// The measured effect in a few words.
pub(crate) fn effect(reach: &Reach) -> Markup {
    let tables = reach.tables.len() as u64;
    html! {
        @if let Some(found) = reach.found.first() {
            b { (visible(found.size.as_deref().unwrap_or("1 resource"))) }
            @if !found.backups.is_empty() { br; "+ " (count(found.backups.len() as u64, "backup", "backups")) }
        }
        @else if !reach.dropped.is_empty() { b { (count(reach.dropped.len() as u64, "relation", "relations")) } br; "dropped" }
        @else if !reach.rewritten.is_empty() { b { (count(reach.rewritten.len() as u64, "relation", "relations")) } br; "rewritten" }
        @else if reach.rows() > 0 {
            @if reach.deleted() > 0 { b { (count(reach.rows(), "row", "rows")) } } @else { (count(reach.rows(), "row", "rows")) }
            @if tables > 1 { br; "in " (count(tables, "table", "tables")) }
        }
        @else if reach.touches_catalogs() { "definitions" }
        @else { "nothing" }
    }
}
