//! Renames: objects that kept their oid and changed their name or schema, found, taken back, and read past.
//!
//! The names stand in other objects' texts too. A dump qualifies every name, so that replacing `schema.name` in the tokens of a text
//! says what the text would be without the rename. If that guess fails, an object is made again that could have stayed: never less.

use std::collections::{HashMap, HashSet};

use crate::dump::{Definitions, Entry};
use crate::lex::{self, Kind, Token};
use crate::shape::Name;

/// From the names in one snapshot to the names in the one before the operation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Renames {
    objects: HashMap<Name, Name>,
    schemas: HashMap<String, String>,
    /// By the table's old name.
    columns: HashMap<Name, HashMap<String, String>>,
    /// Constraints' new names by their place in the list of entries.
    constraints: HashMap<usize, String>,
    /// How the names are written in the earlier snapshot, quoted as `pg_dump` does.
    written: HashMap<String, String>,
}

/// What the renames take.
#[derive(Clone, Debug, Default)]
pub(crate) struct Renaming {
    pub(crate) renames: Renames,
    /// Statements that do it, in order.
    pub(crate) statements: Vec<(String, String)>,
    /// Keys (in the snapshot's own names) of what was renamed by the operation and again since.
    pub(crate) conflicts: Vec<String>,
}

/// Relations and types: they share a name space as far as this is concerned.
const NAMED: &[&str] = &["TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE", "INDEX", "TYPE", "DOMAIN", "FUNCTION", "PROCEDURE"];

impl Renaming {
    /// What leads from the names in `now` back to those in `before`, as far as they were changed between `before` and `after`.
    pub(crate) fn between(before: &Definitions, after: &Definitions, now: &Definitions) -> Renaming {
        let mut result = Renaming::default();
        let old = by_identity(before);
        let at_after = by_identity(after);
        let wanted: Vec<(&Entry, &Entry)> = now
            .entries
            .iter()
            .filter_map(|entry| {
                let old = old.get(&entry.identity?)?;
                let is_tracked = NAMED.contains(&entry.kind.as_str()) && entry.kind == old.kind && is_unique(entry, now);
                (is_tracked && entry.object_name() != old.object_name()).then_some((entry, *old))
            })
            .collect();
        result.schemas(now, &old, &at_after);
        let changed = |entry: &Entry, old: &Entry| {
            at_after.get(&entry.identity.unwrap_or_default()).is_some_and(|after| after.object_name() != old.object_name())
        };
        let by_operation: Vec<(&Entry, &Entry)> = wanted
            .into_iter()
            .filter(|(entry, old)| {
                let after = entry.identity.and_then(|identity| at_after.get(&identity));
                let untouched_since = after.is_some_and(|after| after.object_name() == entry.object_name());
                if !untouched_since && changed(entry, old) {
                    result.conflicts.push(entry.key.clone());
                }
                untouched_since
            })
            .collect();
        result.objects(now, &by_operation);
        result.constraints(now, &old, &at_after);
        result.columns(before, after, now, &old, &at_after);
        result
    }

    fn schemas(&mut self, now: &Definitions, old: &HashMap<(u32, u32), &Entry>, at_after: &HashMap<(u32, u32), &Entry>) {
        let names: HashSet<&str> = now.entries.iter().filter(|entry| entry.kind == "SCHEMA").map(|entry| entry.tag.as_str()).collect();
        let mut later = Vec::new();
        for entry in now.entries.iter().filter(|entry| entry.kind == "SCHEMA") {
            let Some(identity) = entry.identity else { continue };
            let Some(was) = old.get(&identity).filter(|was| was.tag != entry.tag) else { continue };
            if at_after.get(&identity).is_none_or(|after| after.tag != entry.tag) {
                self.conflicts.push(entry.key.clone());
                continue;
            }
            self.renames.schemas.insert(entry.tag.clone(), was.tag.clone());
            self.renames.remember(was);
            let (from, to) = (lex::quote(&entry.tag), lex::quote(&was.tag));
            if names.contains(was.tag.as_str()) {
                let aside = lex::quote(&aside(entry));
                self.push(entry, format!("ALTER SCHEMA {from} RENAME TO {aside}"));
                later.push((entry, format!("ALTER SCHEMA {aside} RENAME TO {to}")));
                // A schema that the operation made under the freed name makes room.
                if let Some(other) = now.entries.iter().find(|other| other.kind == "SCHEMA" && other.tag == was.tag)
                    && other.identity.is_some_and(|identity| !old.contains_key(&identity))
                {
                    let room = format!("reprieve_undo_{}", other.identity.unwrap_or_default().1);
                    self.push(other, format!("ALTER SCHEMA {to} RENAME TO {}", lex::quote(&room)));
                    self.renames.schemas.insert(other.tag.clone(), room);
                }
            } else {
                self.push(entry, format!("ALTER SCHEMA {from} RENAME TO {to}"));
            }
        }
        for (entry, sql) in later {
            self.push(entry, sql);
        }
    }

    fn objects(&mut self, now: &Definitions, wanted: &[(&Entry, &Entry)]) {
        let occupied: HashMap<Name, &Entry> = now
            .entries
            .iter()
            .filter(|entry| NAMED.contains(&entry.kind.as_str()) || entry.kind == "CONSTRAINT")
            .filter_map(|entry| Some((self.renames.schema_of(&index_name(entry)?), entry)))
            .collect();
        let moved_tables: HashSet<(Name, String)> =
            wanted.iter().filter_map(|(entry, old)| Some((entry.object_name()?, old.schema.clone()?))).collect();
        let renamed: HashSet<Option<(u32, u32)>> = wanted.iter().map(|(entry, _)| entry.identity).collect();
        let mut last = Vec::new();
        for (entry, old) in wanted {
            let (Some(name), Some(target)) = (entry.object_name(), old.object_name()) else { continue };
            self.renames.objects.insert(name.clone(), target.clone());
            self.renames.remember(old);
            // The schema's own rename has brought it along already.
            let here = self.renames.schema_of(&name);
            if here == target {
                continue;
            }
            let goes_with_its_table = now.needs(entry).any(|need| {
                need.object_name().is_some_and(|table| moved_tables.contains(&(table, target.schema.clone()))) && is_part(entry, need)
            });
            let verb = kind_word(entry);
            let arguments = entry.tag.find('(').filter(|_| verb == "FUNCTION" || verb == "PROCEDURE");
            let arguments = arguments.and_then(|at| entry.tag.get(at..)).unwrap_or_default();
            let called = |name: &str| format!("{}{arguments}", lex::quote(name));
            let mut place = here.clone();
            let occupant = occupied.get(&target).filter(|other| other.identity != entry.identity);
            if let Some(other) = occupant {
                if !renamed.contains(&other.identity) {
                    self.make_room(other, &target);
                }
                let aside = aside(entry);
                self.push(
                    entry,
                    format!("ALTER {verb} {}.{} RENAME TO {}", lex::quote(&place.schema), called(&place.name), lex::quote(&aside)),
                );
                place.name = aside;
            }
            let mut rest = Vec::new();
            if place.schema != target.schema {
                if !goes_with_its_table {
                    let sql = format!(
                        "ALTER {verb} {}.{} SET SCHEMA {}",
                        lex::quote(&place.schema),
                        called(&place.name),
                        lex::quote(&target.schema)
                    );
                    rest.push((*entry, sql));
                }
                place.schema.clone_from(&target.schema);
            }
            if place.name != target.name {
                let sql =
                    format!("ALTER {verb} {}.{} RENAME TO {}", lex::quote(&place.schema), called(&place.name), lex::quote(&target.name));
                rest.push((*entry, sql));
            }
            // Names that are still taken get free when all others have stepped aside.
            if occupant.is_some() {
                last.extend(rest);
            } else {
                rest.into_iter().for_each(|(entry, sql)| self.push(entry, sql));
            }
        }
        for (entry, sql) in last {
            self.push(entry, sql);
        }
    }

    /// Something new has taken the name: it will be dropped, under another one.
    fn make_room(&mut self, other: &Entry, target: &Name) {
        let room = Name { schema: target.schema.clone(), name: aside(other) };
        let Some(name) = index_name(other) else { return };
        if self.renames.objects.insert(name, room.clone()).is_none() {
            let verb = if other.kind == "CONSTRAINT" { "INDEX".to_owned() } else { kind_word(other) };
            let sql =
                format!("ALTER {verb} {}.{} RENAME TO {}", lex::quote(&target.schema), lex::quote(&target.name), lex::quote(&room.name));
            self.push(other, sql);
        }
    }

    fn constraints(&mut self, now: &Definitions, old: &HashMap<(u32, u32), &Entry>, at_after: &HashMap<(u32, u32), &Entry>) {
        for (place, entry) in now.entries.iter().enumerate().filter(|(_, entry)| entry.kind == "CONSTRAINT") {
            let Some(identity) = entry.identity else { continue };
            if let (Some(own), Some(relation)) = (&entry.shape.own, &entry.shape.relation) {
                // A key's index goes with its table.
                let schema = self.renames.name_of(relation).schema;
                if schema != relation.schema {
                    let index = |schema: &str| Name { schema: schema.to_owned(), name: own.clone() };
                    self.renames.objects.entry(index(&relation.schema)).or_insert_with(|| index(&schema));
                }
            }
            let Some(was) = old.get(&identity).filter(|was| was.shape.own != entry.shape.own) else { continue };
            let (Some(own), Some(name), Some(relation)) = (&entry.shape.own, &was.shape.own, &entry.shape.relation) else { continue };
            if at_after.get(&identity).is_none_or(|after| after.shape.own != entry.shape.own) {
                self.conflicts.push(entry.key.clone());
                continue;
            }
            let table = self.renames.name_of(relation);
            self.renames.constraints.insert(place, name.clone());
            self.renames.remember(was);
            self.renames.objects.insert(
                Name { schema: relation.schema.clone(), name: own.clone() },
                Name { schema: table.schema.clone(), name: name.clone() },
            );
            self.push(
                entry,
                format!(
                    "ALTER TABLE {}.{} RENAME CONSTRAINT {} TO {}",
                    lex::quote(&table.schema),
                    lex::quote(&table.name),
                    lex::quote(own),
                    lex::quote(name)
                ),
            );
        }
    }

    fn columns(
        &mut self,
        before: &Definitions,
        after: &Definitions,
        now: &Definitions,
        old: &HashMap<(u32, u32), &Entry>,
        at_after: &HashMap<(u32, u32), &Entry>,
    ) {
        for entry in now.entries.iter().filter(|entry| entry.table.is_some()) {
            let Some(identity) = entry.identity else { continue };
            let (Some(was), Some(then)) = (old.get(&identity), at_after.get(&identity)) else { continue };
            let (Some(was_columns), Some(then_columns), Some(columns)) =
                (before.column_numbers(was), after.column_numbers(then), now.column_numbers(entry))
            else {
                continue;
            };
            let (Some(table), Some(name)) = (&entry.table, entry.object_name()) else { continue };
            let target = self.renames.name_of(&name);
            // What the parent has renamed, its partitions have too.
            let parent_names: HashSet<(String, String)> = parents(now, entry)
                .filter_map(Entry::object_name)
                .filter_map(|parent| self.renames.columns.get(&parent))
                .flatten()
                .map(|(from, to)| (from.clone(), to.clone()))
                .collect();
            let mut last = Vec::new();
            for (number, column) in columns {
                let Some(wanted) = was_columns.get(number).filter(|wanted| *wanted != column) else { continue };
                if then_columns.get(number) != Some(column) {
                    self.conflicts.push(entry.key.clone());
                    continue;
                }
                self.renames.columns.entry(name.clone()).or_default().insert(column.clone(), wanted.clone());
                self.renames.remember(was);
                let is_inherited = !table.columns.contains(column) || parent_names.contains(&(column.clone(), wanted.clone()));
                if is_inherited {
                    continue;
                }
                let sql = |from: &str, to: &str| {
                    format!(
                        "ALTER TABLE {}.{} RENAME COLUMN {} TO {}",
                        lex::quote(&target.schema),
                        lex::quote(&target.name),
                        lex::quote(from),
                        lex::quote(to)
                    )
                };
                if columns.values().any(|other| other == wanted) {
                    let aside = format!("reprieve_undo_{number}");
                    self.push(entry, sql(column, &aside));
                    last.push(sql(&aside, wanted));
                    // A new column that has taken the name will be dropped under another one.
                    if let Some((other, taken)) = columns.iter().find(|(_, other)| *other == wanted)
                        && !was_columns.contains_key(other)
                    {
                        let room = format!("reprieve_undo_{other}");
                        self.push(entry, sql(taken, &room));
                        self.renames.columns.entry(name.clone()).or_default().insert(taken.clone(), room);
                    }
                } else {
                    self.push(entry, sql(column, wanted));
                }
            }
            for sql in last {
                self.push(entry, sql);
            }
        }
    }

    fn push(&mut self, entry: &Entry, sql: String) {
        self.statements.push((entry.key.clone(), sql));
    }
}

impl Renames {
    /// The snapshot as it would be without the renames. `like` is the one from before the operation.
    pub(crate) fn apply(&self, definitions: &Definitions, like: &Definitions) -> Definitions {
        let mut result = definitions.clone();
        // Reading every entry anew takes longer than all the rest.
        if self.objects.is_empty() && self.schemas.is_empty() && self.columns.is_empty() && self.constraints.is_empty() {
            return result;
        }
        for (place, entry) in result.entries.iter_mut().enumerate() {
            let original = definitions.entries.get(place);
            for statement in &mut entry.statements {
                *statement = self.rename_in(statement);
            }
            if let Some(name) = self.constraints.get(&place) {
                for statement in &mut entry.statements {
                    *statement = self.replace_after(statement, "CONSTRAINT", name);
                }
            }
            if let Some(target) = original.and_then(index_name).and_then(|name| self.objects.get(&name)).filter(|_| entry.kind == "INDEX") {
                for statement in &mut entry.statements {
                    *statement = self.replace_after(statement, "INDEX", &target.name);
                }
            }
            if let Some(name) = original.and_then(Entry::object_name) {
                let target = self.name_of(&name);
                entry.tag = match entry.tag.find('(') {
                    Some(at) if matches!(entry.kind.as_str(), "FUNCTION" | "PROCEDURE" | "AGGREGATE") => {
                        let own = if target.name == name.name {
                            entry.tag.get(..at).unwrap_or_default().to_owned()
                        } else {
                            self.write(&target.name)
                        };
                        format!("{own}{}", self.rename_in(entry.tag.get(at..).unwrap_or_default()))
                    }
                    _ => target.name,
                };
                entry.schema = Some(target.schema);
            } else if entry.kind == "SCHEMA"
                && let Some(name) = self.schemas.get(&entry.tag)
            {
                entry.tag.clone_from(name);
            }
        }
        result.index();
        self.move_needs(definitions, &mut result);
        self.apply_columns(definitions, &mut result, like);
        result
    }

    /// What was moved does not stand in its schema of now any more.
    fn move_needs(&self, definitions: &Definitions, result: &mut Definitions) {
        let schemas: HashMap<String, usize> = result
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.kind == "SCHEMA")
            .map(|(place, entry)| (entry.tag.clone(), place))
            .collect();
        for (entry, original) in result.entries.iter_mut().zip(&definitions.entries) {
            let moved = entry
                .schema
                .as_ref()
                .filter(|schema| original.schema.as_ref().is_some_and(|was| was != *schema && self.schemas.get(was) != Some(*schema)));
            if let Some(schema) = moved {
                entry.needs.retain(|need| !schemas.values().any(|place| place == need));
                entry.needs.extend(schemas.get(schema));
            }
        }
    }

    fn apply_columns(&self, definitions: &Definitions, result: &mut Definitions, like: &Definitions) {
        if self.columns.is_empty() {
            return;
        }
        for (place, original) in definitions.entries.iter().enumerate() {
            let itself = original.object_name().filter(|_| original.table.is_some());
            let own = itself.as_ref().and_then(|name| self.columns.get(name));
            let needed: Vec<&HashMap<String, String>> = definitions
                .needs(original)
                .filter(|need| need.table.is_some())
                .filter_map(|need| self.columns.get(&need.object_name()?))
                .collect();
            let Some(entry) = result.entries.get_mut(place) else { continue };
            if let (Some(names), Some(table)) = (own, &mut entry.table) {
                let renamed = |name: &str| names.get(name).cloned().unwrap_or_else(|| name.to_owned());
                let properties = std::mem::take(&mut table.properties);
                table.properties = properties
                    .into_iter()
                    .map(|(property, value)| rename_property(property, value, &renamed, &|text| self.columns_in(text, names)))
                    .collect();
                for column in &mut table.columns {
                    *column = renamed(column);
                }
            }
            for names in needed {
                let statements: Vec<String> = entry.statements.iter().map(|statement| self.columns_in(statement, names)).collect();
                let mut guess = entry.clone();
                guess.statements.clone_from(&statements);
                let mut single = Definitions::of(vec![guess]);
                let Some(guess) = single.entries.pop() else { continue };
                let is_by_column = matches!(original.kind.as_str(), "COMMENT" | "ACL" | "DEFAULT" | "SEQUENCE OWNED BY" | "SECURITY LABEL")
                    || (original.kind == "SEQUENCE" && original.statements.first().is_some_and(|sql| sql.starts_with("ALTER")));
                if is_by_column || like.find(&guess.key).is_some_and(|old| old.statements == guess.statements) {
                    *entry = guess;
                }
            }
        }
        // Keys may have changed; tables must not be read anew from their statements, which still have the old columns.
        result.at = result.entries.iter().enumerate().map(|(place, entry)| (entry.key.clone(), place)).collect();
    }

    fn remember(&mut self, old: &Entry) {
        for token in old.statements.iter().flat_map(|statement| lex::words(statement)) {
            if let Some(name) = token.name() {
                self.written.entry(name).or_insert_with(|| token.text.to_owned());
            }
        }
    }

    fn write(&self, name: &str) -> String {
        self.written.get(name).cloned().unwrap_or_else(|| lex::quote(name))
    }

    fn schema_of(&self, name: &Name) -> Name {
        let schema = self.schemas.get(&name.schema).unwrap_or(&name.schema).clone();
        Name { schema, name: name.name.clone() }
    }

    fn name_of(&self, name: &Name) -> Name {
        self.objects.get(name).cloned().unwrap_or_else(|| self.schema_of(name))
    }

    /// Replaces qualified names, also in strings that stand for relations.
    fn rename_in(&self, text: &str) -> String {
        if self.objects.is_empty() && self.schemas.is_empty() {
            return text.to_owned();
        }
        let all: Vec<Token<'_>> = lex::tokens(text).collect();
        let mut result = String::with_capacity(text.len());
        let mut place = 0;
        while let Some(token) = all.get(place) {
            let sign = |at: usize, sign: &str| all.get(at).is_some_and(|token| token.text == sign);
            let follows_dot = place > 0 && sign(place - 1, ".");
            if token.kind == Kind::Literal && sign(place + 1, ":") && all.get(place + 3).is_some_and(|token| token.is("regclass")) {
                let inner = token.text.trim_matches('\'');
                result.push_str(&format!("'{}'", self.rename_in(inner)));
                place += 1;
                continue;
            }
            if let (false, true, Some(schema), Some(name)) =
                (follows_dot, sign(place + 1, "."), token.name(), all.get(place + 2).and_then(Token::name))
            {
                let name = Name { schema, name };
                let target = self.name_of(&name);
                if target != name {
                    let part = |at: usize, was: &str, is: &str| match all.get(at) {
                        Some(token) if was == is => token.text.to_owned(),
                        _ => self.write(is),
                    };
                    result.push_str(&part(place, &name.schema, &target.schema));
                    result.push('.');
                    result.push_str(&part(place + 2, &name.name, &target.name));
                    place += 3;
                    continue;
                }
            }
            // Operators have names that are no words.
            let names_operator = !follows_dot && sign(place + 1, ".") && all.get(place + 2).is_some_and(|token| token.kind == Kind::Sign);
            let is_schema = names_operator || place >= 2 && all.get(place - 2).is_some_and(|token| token.is("SCHEMA"));
            match token.name().filter(|_| is_schema).and_then(|name| self.schemas.get(&name)) {
                Some(schema) => result.push_str(&self.write(schema)),
                None => result.push_str(token.text),
            }
            place += 1;
        }
        result
    }

    /// Replaces the name after a key word.
    fn replace_after(&self, text: &str, word: &str, name: &str) -> String {
        let words = lex::words(text);
        let own = words.iter().position(|token| token.is(word)).and_then(|place| words.get(place + 1));
        match own.filter(|token| token.name().is_some()) {
            Some(token) => {
                let (start, end) = (text.get(..token.at).unwrap_or_default(), text.get(token.end()..).unwrap_or_default());
                format!("{start}{}{end}", self.write(name))
            }
            None => text.to_owned(),
        }
    }

    /// Replaces columns' names: alone, or as the last part of a longer one.
    fn columns_in(&self, text: &str, names: &HashMap<String, String>) -> String {
        let all: Vec<Token<'_>> = lex::tokens(text).collect();
        let sign = |at: Option<usize>| at.and_then(|at| all.get(at)).is_some_and(|token| token.text == ".");
        let mut result = String::with_capacity(text.len());
        for (place, token) in all.iter().enumerate() {
            let is_last = !sign(place.checked_add(1));
            match token.name().and_then(|name| names.get(&name)).filter(|_| is_last) {
                Some(name) => result.push_str(&self.write(name)),
                None => result.push_str(token.text),
            }
        }
        result
    }
}

fn rename_property(
    property: crate::table::Property,
    value: String,
    renamed: &dyn Fn(&str) -> String,
    in_text: &dyn Fn(&str) -> String,
) -> (crate::table::Property, String) {
    use crate::table::Property as P;
    match property {
        P::Column(name) => (P::Column(renamed(&name)), value),
        P::Generated(name) => (P::Generated(renamed(&name)), in_text(&value)),
        P::Default(name) => (P::Default(renamed(&name)), value),
        P::NotNull(name) => (P::NotNull(renamed(&name)), value),
        P::Storage(name) => (P::Storage(renamed(&name)), value),
        P::Statistics(name) => (P::Statistics(renamed(&name)), value),
        P::Compression(name) => (P::Compression(renamed(&name)), value),
        P::ColumnOptions(name) => (P::ColumnOptions(renamed(&name)), value),
        P::Check(name) => (P::Check(name), in_text(&value)),
        P::PartitionBy => (P::PartitionBy, in_text(&value)),
        other => (other, value),
    }
}

/// The tables that a partition hangs on.
pub(crate) fn parents<'a>(definitions: &'a Definitions, entry: &'a Entry) -> impl Iterator<Item = &'a Entry> {
    let attach = format!("TABLE ATTACH {}.{}", entry.schema.as_deref().unwrap_or("-"), entry.tag);
    definitions
        .find(&attach)
        .into_iter()
        .flat_map(|attach| definitions.needs(attach))
        .filter(move |need| need.kind == "TABLE" && need.key != entry.key)
}

/// Whether an index or sequence is a part of a table and moves with it.
fn is_part(entry: &Entry, table: &Entry) -> bool {
    (table.table.is_some() || table.kind == "MATERIALIZED VIEW") && matches!(entry.kind.as_str(), "INDEX" | "SEQUENCE")
}

fn kind_word(entry: &Entry) -> String {
    entry.kind.clone()
}

fn aside(entry: &Entry) -> String {
    format!("reprieve_undo_{}", entry.identity.unwrap_or_default().1)
}

/// The name in the relations' name space; a constraint's is its index's.
fn index_name(entry: &Entry) -> Option<Name> {
    if entry.kind == "CONSTRAINT" {
        return Some(Name { schema: entry.shape.relation.as_ref()?.schema.clone(), name: entry.shape.own.clone()? });
    }
    entry.object_name()
}

/// Overloaded functions are not told apart by their name.
fn is_unique(entry: &Entry, definitions: &Definitions) -> bool {
    !matches!(entry.kind.as_str(), "FUNCTION" | "PROCEDURE")
        || definitions
            .entries
            .iter()
            .filter(|other| {
                other.object_name() == entry.object_name() && matches!(other.kind.as_str(), "FUNCTION" | "PROCEDURE" | "AGGREGATE")
            })
            .count()
            == 1
}

fn by_identity(definitions: &Definitions) -> HashMap<(u32, u32), &Entry> {
    definitions.entries.iter().filter_map(|entry| Some((entry.identity?, entry))).collect()
}
