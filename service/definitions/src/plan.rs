//! The plan: from three snapshots to a script.
//!
//! Renames are taken back first, so that everything after speaks in the names from before. Then each object is compared three ways:
//! what differs between before and after is the operation's, what differs between after and now is somebody else's. What has to go or be
//! made anew takes along what is built on it, and the whole is put in the order of dependencies.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::alter::{self, Alteration};
use crate::dump::{Definitions, Entry, owner_of};
use crate::lex;
use crate::privileges;
use crate::rename::{self, Renaming};
use crate::script::{Conflict, Data, Loss, Refusal, Section, Step, UndoScript};
use crate::table::{self, Property, Table};

mod order;

/// How to plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Take back also what somebody has changed since.
    pub force: bool,
}

/// Plans how to make what changed between `before` and `after` what it was, given what there is `now`.
#[must_use]
pub fn plan_undo(before: &Definitions, after: &Definitions, now: &Definitions, options: Options) -> UndoScript {
    let renaming = Renaming::between(before, after, now);
    let after_names = Renaming::between(before, after, after);
    let now_named = renaming.renames.apply(now, before);
    let after_named = after_names.renames.apply(after, before);
    let mut skipped = HashSet::new();
    let mut conflicts: Vec<Conflict> = renaming
        .conflicts
        .iter()
        .map(|key| Conflict { object: key.clone(), because: "it was renamed by the operation, and again since".to_owned() })
        .collect();
    loop {
        let mut plan = Plan::new(before, &after_named, &now_named, options, &skipped);
        plan.decide();
        plan.close();
        let fresh: Vec<Conflict> = plan.conflicts.drain(..).filter(|conflict| !conflicts.contains(conflict)).collect();
        let again: Vec<String> = plan.skip.drain(..).filter(|key| !skipped.contains(key)).collect();
        conflicts.extend(fresh);
        if again.is_empty() || options.force {
            let mut script = plan.script(&renaming.statements);
            script.conflicts = conflicts;
            return script;
        }
        skipped.extend(again);
    }
}

/// Whether an operation that leads from `before` to `after` could be taken back right away; if not, why.
pub fn can_undo(before: &Definitions, after: &Definitions) -> Result<(), Vec<Refusal>> {
    let script = plan_undo(before, after, after, Options::default());
    let conflicts = script.conflicts.into_iter().map(|conflict| Refusal { object: conflict.object, because: conflict.because });
    let refusals: Vec<Refusal> = script.refusals.into_iter().chain(conflicts).collect();
    if refusals.is_empty() { Ok(()) } else { Err(refusals) }
}

struct Plan<'a> {
    before: &'a Definitions,
    after: &'a Definitions,
    now: &'a Definitions,
    options: Options,
    skipped: &'a HashSet<String>,
    /// What depends on each key now.
    dependents: HashMap<&'a str, Vec<&'a str>>,
    drops: BTreeSet<String>,
    makes: BTreeMap<String, Make>,
    /// Enums whose values go, and so cannot be changed in place.
    enums: BTreeSet<String>,
    conflicts: Vec<Conflict>,
    skip: Vec<String>,
    refusals: Vec<Refusal>,
    data: BTreeSet<Data>,
    loses: BTreeSet<Loss>,
    reordered: Vec<String>,
}

/// How an object becomes what it was.
enum Make {
    /// Made from its own statements.
    Create,
    /// Changed by these, before and after the data.
    Alter { before: Vec<(String, Option<String>)>, after: Vec<String> },
}

impl<'a> Plan<'a> {
    fn new(before: &'a Definitions, after: &'a Definitions, now: &'a Definitions, options: Options, skipped: &'a HashSet<String>) -> Self {
        let mut dependents: HashMap<&str, Vec<&str>> = HashMap::new();
        for entry in &now.entries {
            for need in now.needs(entry) {
                dependents.entry(need.key.as_str()).or_default().push(entry.key.as_str());
            }
        }
        Plan {
            before,
            after,
            now,
            options,
            skipped,
            dependents,
            drops: BTreeSet::new(),
            makes: BTreeMap::new(),
            enums: BTreeSet::new(),
            conflicts: Vec::new(),
            skip: Vec::new(),
            refusals: Vec::new(),
            data: BTreeSet::new(),
            loses: BTreeSet::new(),
            reordered: Vec::new(),
        }
    }

    /// Goes through everything the operation changed.
    fn decide(&mut self) {
        let keys: BTreeSet<&str> = self.before.entries.iter().chain(&self.after.entries).map(|entry| entry.key.as_str()).collect();
        for key in keys {
            if self.skipped.contains(key) {
                continue;
            }
            let (before, after, now) = (self.before.find(key), self.after.find(key), self.now.find(key));
            if let (Some(before), Some(now)) = (before, now) {
                self.replaced_columns(before, now);
            }
            if is_same(before, after) {
                continue;
            }
            let unreadable = [before, after, now].into_iter().flatten().find(|entry| !entry.is_readable);
            if let Some(entry) = unreadable {
                self.refuse(key, &format!("this version does not understand the definition of a {}", entry.kind.to_lowercase()));
                continue;
            }
            if is_same(before, now) {
                continue;
            }
            let is_table = [before, after, now].iter().all(|entry| entry.is_some_and(|entry| entry.table.is_some()));
            let is_replaced = before.zip(now).is_some_and(|(before, now)| is_replaced(before, now));
            if !is_same(after, now) && (!is_table || is_replaced) && !self.conflicting(key, "it was changed since") {
                continue;
            }
            match (before, now) {
                (Some(before), Some(now)) if is_replaced => self.replace(before, now),
                (Some(before), Some(now)) => self.modify(before, after, now),
                (Some(before), None) => self.create(before),
                (None, Some(now)) => {
                    if let Some(table) = &now.table {
                        self.loses.insert(Loss::Table(table.sql_name()));
                    }
                    self.drops.insert(key.to_owned());
                }
                (None, None) => {}
            }
        }
    }

    /// A column dropped and added again looks the same, without its values.
    fn replaced_columns(&mut self, before: &Entry, now: &Entry) {
        let (Some(was), Some(is)) = (&before.table, &now.table) else { return };
        for name in self.before.replaced_columns(before, self.after) {
            let kind = was.properties.get(&Property::Column(name.clone()));
            let is_generated = was.properties.contains_key(&Property::Generated(name.clone()));
            if let Some(kind) = kind.filter(|kind| !is_generated && is.properties.get(&Property::Column(name.clone())) == Some(*kind)) {
                let key = primary_key(self.now, now).unwrap_or_default();
                self.data.insert(Data::Column { table: is.sql_name(), column: name.clone(), kind: kind.clone(), key });
                self.loses.insert(Loss::Column(is.sql_name(), name));
            }
            if was.columns != is.columns && !self.reordered.contains(&is.sql_name()) {
                self.reordered.push(is.sql_name());
            }
        }
    }

    /// Notes a conflict; whether the change is to be taken back all the same.
    fn conflicting(&mut self, key: &str, because: &str) -> bool {
        self.conflicts.push(Conflict { object: key.to_owned(), because: because.to_owned() });
        if !self.options.force {
            self.skip.push(key.to_owned());
        }
        self.options.force
    }

    fn refuse(&mut self, key: &str, because: &str) {
        let refusal = Refusal { object: key.to_owned(), because: because.to_owned() };
        if !self.refusals.contains(&refusal) {
            self.refusals.push(refusal);
        }
    }

    fn create(&mut self, entry: &Entry) {
        if let Some(table) = &entry.table
            && !table.properties.contains_key(&Property::PartitionBy)
        {
            self.data.insert(Data::Rows { table: table.sql_name() });
        }
        if entry.kind == "SEQUENCE" {
            self.data.insert(Data::Sequence { sequence: sequence_name(entry) });
        }
        self.makes.insert(entry.key.clone(), Make::Create);
    }

    /// Another object has its name.
    fn replace(&mut self, before: &Entry, now: &Entry) {
        if before.kind == "SEQUENCE" {
            self.data.insert(Data::Sequence { sequence: sequence_name(before) });
            if !is_equal(before, now) {
                self.modify(before, None, now);
            }
            return;
        }
        if let Some(table) = &now.table {
            self.loses.insert(Loss::Table(table.sql_name()));
        }
        self.remake(&before.key);
        self.create(before);
    }

    fn remake(&mut self, key: &str) {
        self.drops.insert(key.to_owned());
        self.makes.insert(key.to_owned(), Make::Create);
    }

    fn alter(&mut self, key: &str, before: Vec<String>, after: Vec<String>) {
        let before = before.into_iter().map(|sql| (sql, None)).collect();
        self.makes.insert(key.to_owned(), Make::Alter { before, after });
    }

    fn modify(&mut self, before: &Entry, after: Option<&Entry>, now: &Entry) {
        let key = before.key.as_str();
        if let (Some(was), Some(is)) = (&before.table, &now.table) {
            let wanted = self.merge(key, was, after.and_then(|after| after.table.as_ref()), is);
            self.alter_table(before, now, &wanted);
            return;
        }
        let is_owner = |statement: &&String| owner_of(statement).is_some();
        let not_owner = |entry: &Entry| entry.statements.iter().filter(|line| !is_owner(line)).cloned().collect::<Vec<_>>();
        if not_owner(before) == not_owner(now) && before.tag == now.tag && before.statements != now.statements {
            let owner = before.statements.iter().filter(is_owner).cloned().collect();
            self.alter(key, owner, Vec::new());
            return;
        }
        match before.kind.as_str() {
            "COMMENT" | "SECURITY LABEL" | "ROW SECURITY" | "DEFAULT" | "SEQUENCE OWNED BY" => {
                self.alter(key, before.statements.clone(), Vec::new());
            }
            "FUNCTION" | "PROCEDURE" => match or_replace(before, now) {
                Some(statements) => self.alter(key, statements, Vec::new()),
                None => self.remake(key),
            },
            "SEQUENCE" if is_identity(before) != is_identity(now) => self.remake(key),
            "SEQUENCE" => match before.statements.first().and_then(|first| alter::sequence(first)) {
                Some(first) => {
                    let rest = before.statements.iter().skip(1).cloned();
                    self.alter(key, std::iter::once(first).chain(rest).collect(), Vec::new());
                }
                None => self.refuse(key, "the sequence's definition is not understood"),
            },
            "DOMAIN" => {
                let texts = now.statements.first().zip(before.statements.first());
                let name = before.designation().and_then(|name| name.strip_prefix("DOMAIN ").map(str::to_owned));
                match texts.zip(name).and_then(|((now, before), name)| alter::domain(now, before, &name)) {
                    Some((mut first, last)) => {
                        first.extend(before.statements.iter().filter(is_owner).cloned());
                        self.alter(key, first, last);
                    }
                    None => self.remake(key),
                }
            }
            "TYPE" => self.modify_type(before, now),
            "EXTENSION" => self.modify_extension(before, now),
            "SCHEMA" => self.refuse(key, "the schema's definition is not understood"),
            "INDEX ATTACH" => self.refuse(key, "an index cannot be taken from a partitioned one"),
            "RULE" if before.shape.is_view => {
                self.remake(key);
                self.remake(&view_of(before));
            }
            _ => self.remake(key),
        }
    }

    fn modify_type(&mut self, before: &Entry, now: &Entry) {
        let values = |entry: &Entry| entry.statements.first().and_then(|first| alter::enum_values(first));
        let (Some(wanted), Some(present)) = (values(before), values(now)) else {
            self.remake(&before.key);
            return;
        };
        let renamed: Vec<(&String, &String)> = present.iter().zip(&wanted).filter(|(is, was)| is != was).collect();
        let only_names = present.len() == wanted.len() && renamed.iter().all(|(is, was)| !wanted.contains(is) && !present.contains(was));
        if only_names {
            let name = before.designation().unwrap_or_default();
            let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
            let mut statements: Vec<String> =
                renamed.iter().map(|(is, was)| format!("ALTER {name} RENAME VALUE {} TO {}", literal(is), literal(was))).collect();
            statements.extend(before.statements.iter().skip(1).cloned());
            self.alter(&before.key, statements, Vec::new());
            return;
        }
        self.enums.insert(before.key.clone());
        self.remake(&before.key);
    }

    fn modify_extension(&mut self, before: &Entry, now: &Entry) {
        let Some(name) = before.designation() else { return };
        let mut statements = Vec::new();
        if before.statements != now.statements {
            let words = before.statements.first().map(|first| lex::words(first)).unwrap_or_default();
            let schema = words.iter().rposition(|token| token.is("SCHEMA")).and_then(|place| words.get(place + 1));
            match schema {
                Some(schema) => statements.push(format!("ALTER {name} SET SCHEMA {}", schema.text)),
                None => self.refuse(&before.key, "the extension's definition is not understood"),
            }
        }
        if before.tag != now.tag {
            let version = before.tag.split_once(' ').map(|(_, version)| version).unwrap_or_default();
            statements.push(format!("ALTER {name} UPDATE TO {}", lex::quote(version)));
        }
        self.alter(&before.key, statements, Vec::new());
    }

    /// Merges a table's properties: the operation's changes are taken back, others' stay.
    fn merge(&mut self, key: &str, before: &Table, after: Option<&Table>, now: &Table) -> BTreeMap<Property, String> {
        let mut wanted = now.properties.clone();
        let all: BTreeSet<&Property> = before.properties.keys().chain(after.iter().flat_map(|after| after.properties.keys())).collect();
        for property in all {
            let was = before.properties.get(property);
            let made = after.map_or_else(|| now.properties.get(property), |after| after.properties.get(property));
            let is = now.properties.get(property);
            if was == made || was == is {
                continue;
            }
            if made != is {
                let because = format!("{property:?} was changed since");
                self.conflicts.push(Conflict { object: key.to_owned(), because });
                if !self.options.force {
                    continue;
                }
            }
            match was {
                Some(value) => wanted.insert(property.clone(), value.clone()),
                None => wanted.remove(property),
            };
        }
        // A column that goes takes all that is said about it along.
        let columns: HashSet<String> = wanted
            .keys()
            .filter(|property| matches!(property, Property::Column(_)))
            .filter_map(|property| property.column().map(str::to_owned))
            .collect();
        let own: HashSet<&String> = before.columns.iter().chain(&now.columns).collect();
        wanted.retain(|property, _| property.column().is_none_or(|name| columns.contains(name) || !own.contains(&name.to_owned())));
        wanted
    }

    fn alter_table(&mut self, before: &Entry, now: &Entry, wanted: &BTreeMap<Property, String>) {
        let (Some(was), Some(is)) = (&before.table, &now.table) else { return };
        let mut order = was.columns.clone();
        order.extend(is.columns.iter().filter(|name| !was.columns.contains(name)).cloned());
        let brought = self.brought_by_parents(before, now);
        let key = primary_key(self.now, now).or_else(|| primary_key(self.before, before)).unwrap_or_default();
        let alteration = alter::table(is, wanted, &order, &key, &|property| brought.contains(property));
        let Alteration { before: first, after: last, data, loses, refusals, touched, is_reordered } = alteration;
        for because in refusals {
            self.refuse(&before.key, &because);
        }
        self.data.extend(data);
        self.loses.extend(loses);
        if is_reordered && !self.reordered.contains(&is.sql_name()) {
            self.reordered.push(is.sql_name());
        }
        self.makes.insert(before.key.clone(), Make::Alter { before: first, after: last });
        let retyped: HashSet<&String> = touched
            .iter()
            .filter(|name| wanted.contains_key(&Property::Column((*name).clone())) && !self.is_remade(is, wanted, name))
            .collect();
        for key in self.dependents.get(now.key.as_str()).cloned().unwrap_or_default() {
            let Some(entry) = self.now.find(key) else { continue };
            let mentioned: Vec<&String> = touched.iter().filter(|name| mentions(entry, name)).collect();
            let rebuilt_alone = matches!(
                entry.kind.as_str(),
                "INDEX"
                    | "CONSTRAINT"
                    | "FK CONSTRAINT"
                    | "CHECK CONSTRAINT"
                    | "STATISTICS"
                    | "COMMENT"
                    | "ACL"
                    | "SEQUENCE OWNED BY"
                    | "SEQUENCE"
                    | "TABLE ATTACH"
                    | "TABLE"
                    | "SECURITY LABEL"
                    | "INDEX ATTACH"
                    | "ROW SECURITY"
            );
            let is_in_the_way = mentioned.iter().any(|name| !retyped.contains(*name) || !rebuilt_alone);
            if is_in_the_way && entry.table.is_none() {
                self.take_along(now.key.as_str(), entry);
            }
        }
    }

    fn is_remade(&self, is: &Table, wanted: &BTreeMap<Property, String>, name: &str) -> bool {
        let generated = Property::Generated(name.to_owned());
        is.properties.contains_key(&generated) || wanted.contains_key(&generated)
    }

    /// What changes with the parent's change: a partition's columns.
    fn brought_by_parents(&self, before: &Entry, now: &Entry) -> HashSet<Property> {
        let mut brought = HashSet::new();
        for parent in rename::parents(self.now, now) {
            let is_partition_before = rename::parents(self.before, before).any(|old| old.key == parent.key);
            let (Some(is), Some(was)) = (&parent.table, self.before.find(&parent.key).and_then(|entry| entry.table.as_ref())) else {
                continue;
            };
            if is_partition_before {
                let all: BTreeSet<&Property> = is.properties.keys().chain(was.properties.keys()).collect();
                brought.extend(all.into_iter().filter(|property| is.properties.get(property) != was.properties.get(property)).cloned());
            }
        }
        brought
    }

    /// Everything built on what goes, goes too, and comes back.
    fn close(&mut self) {
        let mut done: HashSet<String> = HashSet::new();
        while let Some(key) = self.drops.iter().find(|key| !done.contains(*key)).cloned() {
            done.insert(key.clone());
            for dependent in self.dependents.get(key.as_str()).cloned().unwrap_or_default() {
                let Some(entry) = self.now.find(dependent) else { continue };
                if !self.drops.contains(dependent) {
                    self.take_along(&key, entry);
                }
            }
        }
    }

    /// `entry` is built on `key`, which goes or is in the way.
    fn take_along(&mut self, key: &str, entry: &Entry) {
        let dependent = entry.key.as_str();
        let target = self.target(dependent);
        let still_needs = target.is_some_and(|(definitions, target)| definitions.needs(target).any(|need| need.key == key));
        let comes_back = self.makes.contains_key(key);
        let is_owned_sequence =
            entry.kind == "SEQUENCE" && self.now.needs(entry).any(|need| need.table.is_some() && self.drops.contains(&need.key));
        if matches!(entry.kind.as_str(), "TABLE" | "SCHEMA" | "EXTENSION" | "SEQUENCE") && !is_owned_sequence {
            if self.enums.contains(key) {
                self.retype(key, entry);
            } else if still_needs && comes_back {
                self.refuse(key, &format!("`{dependent}` is built on it and cannot be made again"));
            } else if !self.makes.contains_key(dependent) && !self.drops.contains(dependent) {
                self.conflicting(key, &format!("`{dependent}` was built on it since"));
            }
            return;
        }
        let is_new_since = self.before.find(dependent).is_none();
        if is_new_since && !comes_back && !matches!(entry.kind.as_str(), "COMMENT" | "ACL" | "SECURITY LABEL") {
            // Not the operation's own, or that was left because of a conflict: it would be lost.
            if !self.conflicting(key, &format!("`{dependent}` was built on it since")) {
                return;
            }
        }
        if !entry.is_readable {
            self.refuse(dependent, "it is built on something that has to be made again, and is not understood");
            return;
        }
        if self.target(dependent).is_some() {
            let is_gone = self.before.find(dependent).is_none() && !comes_back;
            if !is_gone {
                self.makes.insert(dependent.to_owned(), Make::Create);
            }
        }
        self.drops.insert(dependent.to_owned());
        // A view's body stands apart from the view if it needs a primary key, and does not go alone.
        let view = view_of(entry);
        if entry.kind == "RULE" && entry.shape.is_view && !self.drops.contains(&view) {
            self.remake(&view);
        }
    }

    /// What an object has to be in the end: as before if the operation changed it, else as now.
    fn target(&self, key: &str) -> Option<(&'a Definitions, &'a Entry)> {
        let (before, after, now) = (self.before.find(key), self.after.find(key), self.now.find(key));
        if is_same(before, after) || self.skipped.contains(key) {
            return now.map(|entry| (self.now, entry));
        }
        before.map(|entry| (self.before, entry))
    }

    /// Columns of an enum that is made again go over to the new one by their text.
    fn retype(&mut self, key: &str, entry: &Entry) {
        let (Some(table), Some(kind)) = (&entry.table, self.now.find(key)) else {
            self.refuse(key, &format!("`{}` is built on it and cannot be made again", entry.key));
            return;
        };
        let mut wanted =
            self.target(&entry.key).and_then(|(_, target)| target.table.as_ref()).map(|table| table.properties.clone()).unwrap_or_default();
        for (property, value) in &table.properties {
            wanted.entry(property.clone()).or_insert_with(|| value.clone());
        }
        let is_about = |text: &str| {
            let words = lex::words(text);
            words.windows(3).any(|part| {
                let [schema, dot, name] = part else { return false };
                dot.text == "." && schema.name() == kind.schema && name.name().as_deref() == Some(kind.tag.as_str())
            })
        };
        let sql = table.sql_name();
        let (mut first, mut last, mut defaults) = (Vec::new(), Vec::new(), Vec::new());
        for (property, value) in &table.properties {
            let Some(target) = wanted.get(property) else { continue };
            match property {
                Property::Column(name) if is_about(value) => {
                    let column = lex::quote(name);
                    if let Some(default) = wanted.get(&Property::Default(name.clone())) {
                        first.push((format!("ALTER TABLE ONLY {sql} ALTER COLUMN {column} DROP DEFAULT"), None));
                        defaults.push((format!("ALTER TABLE ONLY {sql} ALTER COLUMN {column} SET DEFAULT {default}"), None));
                    }
                    let text = if target.ends_with(']') { "text[]" } else { "text" };
                    // Rows with the value that goes make this fail: they have to be changed first, by people who know to what.
                    defaults.insert(
                        0,
                        (format!("ALTER TABLE {sql} ALTER COLUMN {column} TYPE {target} USING {column}::{text}::{target}"), None),
                    );
                }
                Property::Check(name) if is_about(value) => {
                    first.push((format!("ALTER TABLE {sql} DROP CONSTRAINT {}", lex::quote(name)), None));
                    last.push(format!("ALTER TABLE {sql} ADD CONSTRAINT {} {target}", lex::quote(name)));
                }
                Property::Generated(_) if is_about(value) => self.refuse(key, &format!("a column of {sql} is computed from it")),
                _ => {}
            }
        }
        let first: Vec<(String, Option<String>)> = first.into_iter().chain(defaults).collect();
        match self.makes.get_mut(&entry.key) {
            Some(Make::Alter { before, after }) => {
                let own: Vec<_> = first.into_iter().filter(|step| !before.contains(step)).collect();
                before.extend(own);
                after.extend(last);
            }
            _ => {
                self.makes.insert(entry.key.clone(), Make::Alter { before: first, after: last });
            }
        }
        // Views and the like on such columns are in the way of a new type.
        for dependent in self.dependents.get(entry.key.as_str()).cloned().unwrap_or_default() {
            let Some(other) = self.now.find(dependent) else { continue };
            let columns = table.properties.iter().filter(|(_, value)| is_about(value)).filter_map(|(property, _)| property.column());
            let is_built_on_them = columns.into_iter().any(|name| mentions(other, name));
            if is_built_on_them && matches!(other.kind.as_str(), "VIEW" | "MATERIALIZED VIEW" | "RULE" | "POLICY" | "TRIGGER" | "FUNCTION")
            {
                self.take_along(&entry.key, other);
            }
        }
    }
}

/// Whether an entry's text has a column's name in it, or all columns.
fn mentions(entry: &Entry, column: &str) -> bool {
    entry.statements.iter().any(|statement| {
        let words = lex::words(statement);
        words.iter().any(|token| token.name().as_deref() == Some(column))
            || words.windows(2).any(|pair| matches!(pair, [dot, star] if dot.text == "." && star.text == "*"))
    })
}

fn is_same(one: Option<&Entry>, other: Option<&Entry>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => is_equal(one, other) && !is_replaced(one, other),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

fn is_equal(one: &Entry, other: &Entry) -> bool {
    one.is_same(other, false)
}

/// Whether another object has come under the same name, and the first one's rows or position are lost.
fn is_replaced(one: &Entry, other: &Entry) -> bool {
    matches!(one.kind.as_str(), "TABLE" | "SEQUENCE") && one.identity != other.identity
}

fn sequence_name(entry: &Entry) -> String {
    format!("{}.{}", lex::quote(entry.schema.as_deref().unwrap_or_default()), lex::quote(&entry.tag))
}

fn is_identity(entry: &Entry) -> bool {
    entry.statements.first().is_some_and(|first| first.starts_with("ALTER TABLE "))
}

fn view_of(rule: &Entry) -> String {
    rule.shape.relation.as_ref().map_or_else(String::new, |name| format!("VIEW {}.{}", name.schema, name.name))
}

/// The columns of a table's primary key.
fn primary_key(definitions: &Definitions, table: &Entry) -> Option<Vec<String>> {
    let name = table.table.as_ref().map(|table| &table.name)?;
    let constraint = definitions.entries.iter().find(|entry| {
        entry.kind == "CONSTRAINT"
            && entry.shape.relation.as_ref() == Some(name)
            && entry.statements.iter().any(|sql| sql.contains(" PRIMARY KEY ("))
    })?;
    let words = lex::words(constraint.statements.first()?);
    let start = words.windows(2).position(|pair| matches!(pair, [primary, key] if primary.is("PRIMARY") && key.is("KEY")))? + 2;
    let end = table::closing(&words, start)?;
    Some(words.get(start + 1..end)?.iter().filter_map(lex::Token::name).collect())
}

/// The statements with OR REPLACE, if that is allowed: nothing but the body differs.
fn or_replace(before: &Entry, now: &Entry) -> Option<Vec<String>> {
    let head = |entry: &Entry| -> Option<String> {
        let first = entry.statements.first()?;
        let words = lex::words(first);
        let end = words.iter().find(|token| token.is("LANGUAGE"))?.at;
        first.get(..end).map(str::to_owned)
    };
    if head(before)? != head(now)? {
        return None;
    }
    let (first, rest) = before.statements.split_first()?;
    let first = format!("CREATE OR REPLACE {}", first.strip_prefix("CREATE ")?);
    Some(std::iter::once(first).chain(rest.iter().cloned()).collect())
}
