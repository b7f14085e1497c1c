//! What dropping or emptying whole relations would reach, from the catalogue, without running it.

use reprieve_effects_sql::CatalogTable;
use reprieve_operation::{Effect, ObjectKind, ObjectName, Reach, Rewrite, TableReach};

use crate::system::View;

/// The estimate for effects that destroy wholesale. `None`: these effects do not, and can be measured by running them.
pub(crate) fn wholesale(view: &View, effects: &[Effect], measure_limit: u64) -> Option<Reach> {
    // What isn't there, and what isn't a relation, is run inside a transaction: the server's own answer is exact.
    if !effects.iter().any(|effect| target(effect).is_some_and(|name| !view.catalog.find_tables(name).is_empty())) {
        return None;
    }
    let mut reach = Reach { estimated: true, ..Reach::default() };
    let mut found = false;
    for effect in effects {
        match effect {
            Effect::Drop { name, cascade, object } if is_relation(object) => {
                found = true;
                let goes_along = |table: &CatalogTable| if *cascade { table.readers.clone() } else { Vec::new() };
                add(view, &mut reach, name, goes_along, |reach| &mut reach.dropped);
            }
            Effect::Rewrite { table, how: Rewrite::Truncate, cascade } => {
                found = true;
                let refers = |table: &CatalogTable| table.dependents.iter().map(|reference| reference.table.clone()).collect();
                let goes_along = |table: &CatalogTable| if *cascade { refers(table) } else { Vec::new() };
                add(view, &mut reach, table, goes_along, |reach| &mut reach.rewritten);
            }
            Effect::Rewrite { table, how: Rewrite::DropColumn | Rewrite::ChangeType | Rewrite::Alter, .. } => {
                found = true;
                add(view, &mut reach, table, |_| Vec::new(), |reach| &mut reach.rewritten);
            }
            Effect::Delete { table, bounded: false } | Effect::Update { table, bounded: false } if rows(view, table) > measure_limit => {
                found = true;
                let deletes = matches!(effect, Effect::Delete { .. });
                for named in view.catalog.find_tables(table) {
                    let rows = named.rows_estimate as u64;
                    let touched = if deletes {
                        TableReach { deleted: rows, ..TableReach::default() }
                    } else {
                        TableReach { updated: rows, ..TableReach::default() }
                    };
                    reach.tables.insert(named.name.to_string(), touched);
                }
            }
            _ => {}
        }
    }
    found.then_some(reach)
}

fn is_relation(object: &ObjectKind) -> bool {
    matches!(object.0.as_str(), "table" | "view" | "materialized view" | "foreign table" | "sequence")
}

fn target(effect: &Effect) -> Option<&ObjectName> {
    match effect {
        Effect::Drop { name, object, .. } => is_relation(object).then_some(name),
        Effect::Rewrite { table, .. } | Effect::Delete { table, .. } | Effect::Update { table, .. } => Some(table),
        _ => None,
    }
}

fn rows(view: &View, name: &ObjectName) -> u64 {
    view.catalog.find_tables(name).iter().map(|table| table.rows_estimate.max(0.0) as u64).max().unwrap_or(0)
}

/// Adds a relation, its partitions, the rows they hold, and what goes along with it: views where it is dropped, tables that refer to it
/// where it is emptied (PostgreSQL 15, DROP TABLE and TRUNCATE, `CASCADE`).
fn add(
    view: &View,
    reach: &mut Reach,
    name: &ObjectName,
    goes_along: impl Fn(&CatalogTable) -> Vec<ObjectName>,
    list: fn(&mut Reach) -> &mut Vec<String>,
) {
    let tables = view.catalog.find_tables(name);
    if tables.is_empty() {
        list(reach).push(name.to_string());
        return;
    }
    let mut waiting = tables;
    while let Some(table) = waiting.pop() {
        let full = table.name.to_string();
        if list(reach).contains(&full) {
            continue;
        }
        list(reach).push(full.clone());
        let lost = TableReach { deleted: table.rows_estimate.max(0.0) as u64, ..TableReach::default() };
        // A partitioned table's own estimate is that of its partitions.
        if lost.deleted > 0 && table.parts.is_empty() {
            reach.tables.insert(full, lost);
        }
        for name in goes_along(&table).iter().chain(&table.parts) {
            waiting.extend(view.catalog.find_tables(name));
        }
    }
}
