//! Alterations: from one definition of an object to another, in place.
//!
//! What cannot be altered in place is dropped and made again; `plan.rs` decides that, here is only what can.

use std::collections::{BTreeMap, BTreeSet};

use pg_raw_parse::raw::ConstrType;
use pg_raw_parse::{Node, nodes};

use crate::lex;
use crate::script::{Data, Loss};
use crate::shape;
use crate::table::{Property, Table};

/// What changes a table in place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alteration {
    /// Statements before the data, each with what to run if it fails.
    pub(crate) before: Vec<(String, Option<String>)>,
    /// Statements after the data.
    pub(crate) after: Vec<String>,
    pub(crate) data: Vec<Data>,
    pub(crate) loses: Vec<Loss>,
    /// Why it cannot be done.
    pub(crate) refusals: Vec<String>,
    /// Columns that go, come anew or change their type: what is built on them has to be away meanwhile.
    pub(crate) touched: BTreeSet<String>,
    pub(crate) is_reordered: bool,
}

/// From `now` to the properties `wanted`, with the columns in the order that they had. `elsewhere` are the properties that the table's
/// parent brings along; `key` is the primary key.
pub(crate) fn table(
    now: &Table,
    wanted: &BTreeMap<Property, String>,
    order: &[String],
    key: &[String],
    elsewhere: &dyn Fn(&Property) -> bool,
) -> Alteration {
    let mut work = Work { table: now.sql_name(), now: now.properties.clone(), wanted, key, result: Alteration::default() };
    let mut columns = now.columns.clone();
    work.drop_checks(elsewhere);
    work.drop_columns(&mut columns, elsewhere);
    work.change_types(elsewhere);
    work.add_columns(&mut columns, order, elsewhere);
    work.change_rest(elsewhere);
    let kept: Vec<&String> = order.iter().filter(|name| wanted.contains_key(&Property::Column((*name).clone()))).collect();
    let placed: Vec<&String> = columns.iter().filter(|name| kept.contains(name)).collect();
    work.result.is_reordered = kept != placed;
    work.result
}

struct Work<'a> {
    table: String,
    now: BTreeMap<Property, String>,
    wanted: &'a BTreeMap<Property, String>,
    key: &'a [String],
    result: Alteration,
}

impl Work<'_> {
    fn run(&mut self, sql: String) {
        self.result.before.push((sql, None));
    }

    fn differs(&self, property: &Property) -> bool {
        self.now.get(property) != self.wanted.get(property)
    }

    /// Every property that differs, and what is wanted.
    fn differing(&self) -> Vec<(Property, Option<String>)> {
        let all: BTreeSet<&Property> = self.now.keys().chain(self.wanted.keys()).collect();
        all.into_iter()
            .filter(|property| self.differs(property))
            .map(|property| (property.clone(), self.wanted.get(property).cloned()))
            .collect()
    }

    fn drop_checks(&mut self, elsewhere: &dyn Fn(&Property) -> bool) {
        for (property, _) in self.differing() {
            if let Property::Check(name) = &property
                && self.now.remove(&property).is_some()
                && !elsewhere(&property)
            {
                self.run(format!("ALTER TABLE {} DROP CONSTRAINT {}", self.table, lex::quote(name)));
            }
        }
    }

    fn drop_columns(&mut self, columns: &mut Vec<String>, elsewhere: &dyn Fn(&Property) -> bool) {
        let mut gone: Vec<(bool, String)> = Vec::new();
        for name in columns.iter() {
            let column = Property::Column(name.clone());
            let generated = Property::Generated(name.clone());
            let is_generated = self.now.contains_key(&generated) || self.wanted.contains_key(&generated);
            // An expression cannot be given to a column that is there, nor changed.
            let remade = self.differs(&generated) || (is_generated && self.differs(&column));
            if !self.wanted.contains_key(&column) || remade {
                gone.push((!self.now.contains_key(&generated), name.clone()));
            }
        }
        // Generated columns first: others may be in their expressions.
        gone.sort();
        for (_, name) in gone {
            let is_elsewhere = elsewhere(&Property::Column(name.clone())) || elsewhere(&Property::Generated(name.clone()));
            self.now.retain(|property, _| property.column() != Some(name.as_str()));
            columns.retain(|column| *column != name);
            self.result.touched.insert(name.clone());
            if is_elsewhere {
                continue;
            }
            self.run(format!("ALTER TABLE {} DROP COLUMN {}", self.table, lex::quote(&name)));
            if !self.wanted.contains_key(&Property::Column(name.clone())) {
                self.result.loses.push(Loss::Column(self.table.clone(), name));
            }
        }
    }

    fn change_types(&mut self, elsewhere: &dyn Fn(&Property) -> bool) {
        for (property, wanted) in self.differing() {
            let (Property::Column(name), Some(wanted)) = (&property, wanted) else { continue };
            if self.now.insert(property.clone(), wanted.clone()).is_none() {
                self.now.remove(&property);
                continue;
            }
            // A new type comes with its own storage, and a default may not convert.
            self.now.remove(&Property::Storage(name.clone()));
            self.now.remove(&Property::Compression(name.clone()));
            let had_default = self.now.remove(&Property::Default(name.clone())).is_some();
            self.result.touched.insert(name.clone());
            let column = lex::quote(name);
            let start = format!("ALTER TABLE {} ALTER COLUMN {column}", self.table);
            if had_default {
                self.run(format!("ALTER TABLE ONLY {} ALTER COLUMN {column} DROP DEFAULT", self.table));
            }
            if elsewhere(&property) {
                continue;
            }
            let kind = without_collation(&wanted);
            let convert = format!("{start} TYPE {wanted} USING {column}::{kind}");
            let mut empty = format!("{start} TYPE {wanted} USING NULL::{kind}");
            let not_null = Property::NotNull(name.clone());
            if self.now.contains_key(&not_null) {
                // Only what is emptied has to be allowed to be: a primary key's column never is.
                empty = format!("{start} DROP NOT NULL, ALTER COLUMN {column} TYPE {wanted} USING NULL::{kind}");
                if self.wanted.contains_key(&not_null) {
                    self.result.after.push(format!("{start} SET NOT NULL"));
                }
            }
            self.result.before.push((convert, Some(empty)));
            self.result.data.push(self.column_data(name, kind));
        }
    }

    fn add_columns(&mut self, columns: &mut Vec<String>, order: &[String], elsewhere: &dyn Fn(&Property) -> bool) {
        let missing: Vec<&String> =
            order.iter().filter(|name| self.wanted.contains_key(&Property::Column((*name).clone())) && !columns.contains(name)).collect();
        let is_generated = |name: &str| self.wanted.contains_key(&Property::Generated(name.to_owned()));
        let (generated, plain): (Vec<&String>, Vec<&String>) = missing.into_iter().partition(|name| is_generated(name));
        for name in plain.into_iter().chain(generated) {
            let property = Property::Column(name.clone());
            let Some(kind) = self.wanted.get(&property).cloned() else { continue };
            let expression = self.wanted.get(&Property::Generated(name.clone())).cloned();
            columns.push(name.clone());
            self.now.insert(property.clone(), kind.clone());
            if let Some(expression) = &expression {
                self.now.insert(Property::Generated(name.clone()), expression.clone());
            } else if !elsewhere(&property) {
                self.result.data.push(self.column_data(name, without_collation(&kind)));
            }
            self.result.touched.insert(name.clone());
            if !elsewhere(&property) && !elsewhere(&Property::Generated(name.clone())) {
                let expression = expression.map_or_else(String::new, |expression| format!(" {expression}"));
                self.run(format!("ALTER TABLE {} ADD COLUMN {} {kind}{expression}", self.table, lex::quote(name)));
            }
        }
    }

    fn column_data(&self, name: &str, kind: &str) -> Data {
        Data::Column { table: self.table.clone(), column: name.to_owned(), kind: kind.to_owned(), key: self.key.to_vec() }
    }

    fn change_rest(&mut self, elsewhere: &dyn Fn(&Property) -> bool) {
        for (property, wanted) in self.differing() {
            let table = self.table.clone();
            let of = |name: &str| format!("ALTER TABLE ONLY {table} ALTER COLUMN {}", lex::quote(name));
            match (&property, wanted) {
                (Property::Column(_) | Property::Generated(_), _) => {
                    self.result.refusals.push(format!("the column's definition `{property:?}` is not understood"));
                }
                (Property::Default(name), Some(value)) => self.run(format!("{} SET DEFAULT {value}", of(name))),
                (Property::Default(name), None) => self.run(format!("{} DROP DEFAULT", of(name))),
                (Property::NotNull(_) | Property::Check(_), _) if elsewhere(&property) => {}
                (Property::NotNull(name), Some(_)) => {
                    self.result.after.push(format!("ALTER TABLE {table} ALTER COLUMN {} SET NOT NULL", lex::quote(name)));
                }
                (Property::NotNull(name), None) => {
                    self.run(format!("ALTER TABLE {table} ALTER COLUMN {} DROP NOT NULL", lex::quote(name)));
                }
                (Property::Check(name), Some(check)) => {
                    self.result.after.push(format!("ALTER TABLE {table} ADD CONSTRAINT {} {check}", lex::quote(name)));
                }
                (Property::Check(name), None) => self.run(format!("ALTER TABLE {table} DROP CONSTRAINT {}", lex::quote(name))),
                (Property::Parameter(name), Some(value)) => self.run(format!("ALTER TABLE {table} SET ({name}={value})")),
                (Property::Parameter(name), None) => self.run(format!("ALTER TABLE {table} RESET ({name})")),
                (Property::Storage(name), Some(value)) => self.run(format!("{} SET STORAGE {value}", of(name))),
                (Property::Storage(name), None) => self.run(default_storage(&table, name)),
                (Property::Statistics(name), value) => {
                    self.run(format!("{} SET STATISTICS {}", of(name), value.as_deref().unwrap_or("-1")));
                }
                (Property::Compression(name), value) => {
                    self.run(format!("{} SET COMPRESSION {}", of(name), value.as_deref().unwrap_or("default")));
                }
                (Property::ColumnOptions(name), value) => {
                    if let Some(names) = self.now.get(&property).and_then(|options| option_names(options)) {
                        self.run(format!("{} RESET ({names})", of(name)));
                    }
                    if let Some(value) = value {
                        self.run(format!("{} SET {value}", of(name)));
                    }
                }
                // A column that the parent gives is the child's own after they parted, which nothing takes back.
                (Property::Inherits(_), Some(_)) => self.result.refusals.push("it has left a table that it inherited from".to_owned()),
                (Property::Inherits(parent), None) => self.run(format!("ALTER TABLE {table} NO INHERIT {parent}")),
                (Property::PartitionBy, _) => self.result.refusals.push("how it is partitioned".to_owned()),
                (Property::Unlogged, Some(_)) => self.run(format!("ALTER TABLE {table} SET UNLOGGED")),
                (Property::Unlogged, None) => self.run(format!("ALTER TABLE {table} SET LOGGED")),
                (Property::ReplicaIdentity, value) => {
                    self.run(format!("ALTER TABLE ONLY {table} REPLICA IDENTITY {}", value.as_deref().unwrap_or("DEFAULT")));
                }
                (Property::ForceRowSecurity, Some(_)) => self.run(format!("ALTER TABLE ONLY {table} FORCE ROW LEVEL SECURITY")),
                (Property::ForceRowSecurity, None) => self.run(format!("ALTER TABLE ONLY {table} NO FORCE ROW LEVEL SECURITY")),
                (Property::Owner, Some(owner)) => self.run(format!("ALTER TABLE {table} OWNER TO {owner}")),
                (Property::Owner, None) => self.result.refusals.push("it has no owner".to_owned()),
                (Property::Tablespace, value) => {
                    let value = value.unwrap_or_else(|| "pg_default".to_owned());
                    self.run(format!("ALTER TABLE ONLY {table} SET TABLESPACE {}", value.trim_matches('\'')));
                }
                (Property::AccessMethod, Some(value)) => self.run(format!("ALTER TABLE ONLY {table} SET ACCESS METHOD {value}")),
                (Property::AccessMethod, None) => self.result.refusals.push("its access method is not known".to_owned()),
            }
        }
    }
}

/// `text COLLATE "C"` without its collation: what a cast may say.
fn without_collation(kind: &str) -> &str {
    let words = lex::words(kind);
    let end = words.iter().find(|token| token.is("COLLATE")).map_or(kind.len(), |token| token.at);
    kind.get(..end).unwrap_or(kind).trim()
}

/// The names of `(n_distinct=5, n_distinct_inherited=3)`.
fn option_names(options: &str) -> Option<String> {
    let inner = options.trim().strip_prefix('(')?.strip_suffix(')')?;
    let names: Vec<&str> = inner.split(',').filter_map(|part| part.split('=').next()).map(str::trim).collect();
    Some(names.join(", "))
}

/// Before PostgreSQL 16 there is no word for a type's own storage.
fn default_storage(table: &str, column: &str) -> String {
    let escaped = |text: &str| text.replace('\'', "''");
    format!(
        "DO $reprieve$BEGIN EXECUTE (SELECT pg_catalog.format('ALTER TABLE ONLY %s ALTER COLUMN %I SET STORAGE %s', '{}', a.attname, \
         CASE t.typstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END) \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) a.atttypid \
         WHERE a.attrelid OPERATOR(pg_catalog.=) '{}'::pg_catalog.regclass AND a.attname OPERATOR(pg_catalog.=) '{}'); END$reprieve$",
        escaped(table),
        escaped(table),
        escaped(column)
    )
}

/// A sequence in place.
pub(crate) fn sequence(wanted: &str) -> Option<String> {
    let words = lex::words(wanted);
    if words.first()?.is("ALTER") {
        return identity(wanted);
    }
    let [create, sequence, ..] = words.as_slice() else { return None };
    if !create.is("CREATE") || !sequence.is("SEQUENCE") {
        return None;
    }
    let name_end = words.get(4)?.end();
    let options = wanted.get(name_end..)?;
    let has = |word: &str| words.iter().skip(5).any(|token| token.is(word));
    let kind = if has("AS") { "" } else { " AS bigint" };
    let cycle = if has("CYCLE") { "" } else { " NO CYCLE" };
    Some(format!("ALTER{}{kind}{options}{cycle}", wanted.get(create.end()..name_end)?))
}

/// An identity column's sequence in place.
fn identity(wanted: &str) -> Option<String> {
    let (head, body) = wanted.split_once("(\n")?;
    let words = lex::words(head);
    let add = words.iter().rposition(|token| token.is("ADD"))?;
    let when = words.iter().rposition(|token| token.is("AS"))?;
    let (from, to) = (words.get(add + 1)?.at, words.get(when)?.at);
    let mut result = format!("{}SET {}", head.get(..words.get(add)?.at)?, head.get(from..to)?.trim());
    let mut cycles = false;
    for line in body.trim_end().trim_end_matches(')').lines().map(str::trim).filter(|line| !line.is_empty()) {
        if !line.starts_with("SEQUENCE NAME") {
            cycles |= line == "CYCLE";
            result.push_str(" SET ");
            result.push_str(line);
        }
    }
    if !cycles {
        result.push_str(" SET NO CYCLE");
    }
    Some(result)
}

/// A domain in place, unless its type differs: statements before the data, and after.
pub(crate) fn domain(now: &str, wanted: &str, name: &str) -> Option<(Vec<String>, Vec<String>)> {
    let (now, wanted) = (read_domain(now)?, read_domain(wanted)?);
    if now.kind != wanted.kind {
        return None;
    }
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for (constraint, text) in &now.checks {
        if wanted.checks.get(constraint) != Some(text) {
            before.push(format!("ALTER DOMAIN {name} DROP CONSTRAINT {}", lex::quote(constraint)));
        }
    }
    match (&now.default, &wanted.default) {
        (now, Some(value)) if now.as_ref() != Some(value) => before.push(format!("ALTER DOMAIN {name} SET DEFAULT {value}")),
        (Some(_), None) => before.push(format!("ALTER DOMAIN {name} DROP DEFAULT")),
        _ => {}
    }
    match (now.not_null, wanted.not_null) {
        (true, false) => before.push(format!("ALTER DOMAIN {name} DROP NOT NULL")),
        (false, true) => after.push(format!("ALTER DOMAIN {name} SET NOT NULL")),
        (true, true) | (false, false) => {}
    }
    for (constraint, text) in &wanted.checks {
        if now.checks.get(constraint) != Some(text) {
            after.push(format!("ALTER DOMAIN {name} ADD CONSTRAINT {} {text}", lex::quote(constraint)));
        }
    }
    Some((before, after))
}

struct Domain {
    kind: String,
    default: Option<String>,
    not_null: bool,
    checks: BTreeMap<String, String>,
}

fn read_domain(text: &str) -> Option<Domain> {
    shape::parsed(text, |statements| match statements.first()?.stmt() {
        Node::CreateDomainStmt(create) => {
            let start = usize::try_from(create.type_name()?.location).ok()?;
            let mut places: Vec<(usize, &nodes::Constraint)> = create
                .constraints()
                .iter()
                .map(|constraint| usize::try_from(constraint.location).ok().map(|at| (at, constraint)))
                .collect::<Option<_>>()?;
            places.sort_unstable_by_key(|(at, _)| *at);
            let kind_end = places.first().map_or(text.len(), |(at, _)| *at);
            let kind = text.get(start..kind_end)?.trim().to_owned();
            let mut domain = Domain { kind, default: None, not_null: false, checks: BTreeMap::new() };
            for (place, (at, constraint)) in places.iter().enumerate() {
                let slice = text.get(*at..places.get(place + 1).map_or(text.len(), |(next, _)| *next))?.trim();
                let own = lex::words(slice);
                let word = |word: &str| own.iter().find(|token| token.is(word));
                match constraint.contype {
                    ConstrType::CONSTR_DEFAULT => domain.default = Some(slice.get(word("DEFAULT")?.end()..)?.trim().to_owned()),
                    ConstrType::CONSTR_NOTNULL => domain.not_null = true,
                    ConstrType::CONSTR_CHECK => {
                        let check = slice.get(word("CHECK")?.at..)?.to_owned();
                        domain.checks.insert(constraint.conname()?.to_owned(), check);
                    }
                    _ => return None,
                }
            }
            Some(domain)
        }
        _ => None,
    })?
}

/// An enum's values in their order.
pub(crate) fn enum_values(text: &str) -> Option<Vec<String>> {
    shape::parsed(text, |statements| match statements.first()?.stmt() {
        Node::CreateEnumStmt(create) => create.vals().iter().map(|value| value.sval().map(str::to_owned)).collect(),
        _ => None,
    })?
}
