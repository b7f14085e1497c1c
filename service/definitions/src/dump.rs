//! Definitions: a schema dump, taken apart.
//!
//! The text is what `pg_restore --verbose` prints of a schema-only archive: each entry has a heading with its number, the object's
//! oid, and the numbers of the entries it depends on. Headings are comments, and are believed only outside of strings.
//! How such a text is made is in `take.rs`.

use std::collections::{BTreeMap, HashMap};

use thiserror::Error;

use crate::lex::{self, Kind};
use crate::privileges;
use crate::shape::{self, Name, Shape};
use crate::table::Table;

/// All definitions of a database at one moment.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    text: String,
    pub(crate) entries: Vec<Entry>,
    /// Where each key is in `entries`.
    pub(crate) at: HashMap<String, usize>,
    /// Columns' names by table's oid and the column's number, dropped ones left out.
    pub(crate) columns: BTreeMap<u32, BTreeMap<i32, String>>,
}

/// One object, or one thing said about an object, with the statements that make it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub(crate) kind: String,
    pub(crate) schema: Option<String>,
    pub(crate) tag: String,
    pub(crate) owner: Option<String>,
    pub(crate) statements: Vec<String>,
    /// The catalogue and the object's number in it, for what is an object of its own.
    pub(crate) identity: Option<(u32, u32)>,
    /// Places in the list of entries that this one depends on.
    pub(crate) needs: Vec<usize>,
    pub(crate) tablespace: String,
    pub(crate) access_method: String,
    pub(crate) shape: Shape,
    pub(crate) key: String,
    /// Whether all of it was understood.
    pub(crate) is_readable: bool,
    /// The columns and the rest of a table.
    pub(crate) table: Option<Table>,
}

/// Why a dump could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The end is missing, or it never was a dump.
    #[error("the schema dump is not complete")]
    Incomplete,
    /// An entry without its number and oid: a plain dump rather than a verbose one.
    #[error("the schema dump's entry `{0}` has no number: it was not printed by `pg_restore --verbose`")]
    NoNumber(String),
}

/// The last line of every complete dump.
const END: &str = "-- PostgreSQL database dump complete";
/// How `take` adds what the dump leaves out.
pub(crate) const COLUMN: &str = "-- Reprieve column: ";
pub(crate) const EXTENSION: &str = "-- Reprieve extension: ";

impl Definitions {
    /// Reads what [`take`](crate::take()) returned as text.
    pub fn parse(text: &str) -> Result<Definitions, ReadError> {
        let mut reading = Reading::default();
        for token in lex::tokens(text) {
            match token.kind {
                Kind::Comment => reading.comment(token.text),
                Kind::Space | Kind::Word | Kind::Quoted | Kind::Literal | Kind::Sign => reading.body.push_str(token.text),
            }
        }
        reading.finish()?;
        if !reading.complete {
            return Err(ReadError::Incomplete);
        }
        let numbers = reading.numbers;
        for (entry, needs) in reading.entries.iter_mut().zip(&reading.needs) {
            entry.needs = needs.iter().filter_map(|number| numbers.get(number).copied()).collect();
            entry.needs.sort_unstable();
            entry.needs.dedup();
            if let Some((_, oid)) = entry.identity.filter(|_| entry.kind == "EXTENSION") {
                let version = reading.extensions.get(&oid).map(String::as_str).unwrap_or_default();
                // A version is no statement, but a changed one has to be seen.
                entry.tag = format!("{} {version}", entry.tag).trim_end().to_owned();
            }
        }
        let mut definitions = Definitions { text: text.to_owned(), entries: reading.entries, at: HashMap::new(), columns: reading.columns };
        definitions.index();
        Ok(definitions)
    }

    /// The text it was read from, to be kept.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its entries, in the order in which they can be made.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Entries alone, without what they depend on.
    pub(crate) fn of(entries: Vec<Entry>) -> Definitions {
        let mut definitions = Definitions { entries, ..Definitions::default() };
        definitions.index();
        definitions
    }

    /// Finds an entry by its key.
    pub(crate) fn find(&self, key: &str) -> Option<&Entry> {
        self.at.get(key).and_then(|place| self.entries.get(*place))
    }

    /// The entries that one depends on.
    pub(crate) fn needs<'a>(&'a self, entry: &'a Entry) -> impl Iterator<Item = &'a Entry> {
        entry.needs.iter().filter_map(|place| self.entries.get(*place))
    }

    /// A table's columns by number, if they were taken and agree with the dump.
    pub(crate) fn column_numbers(&self, entry: &Entry) -> Option<&BTreeMap<i32, String>> {
        self.columns.get(&entry.identity?.1)
    }

    /// Columns of a table in `self` that were dropped in `other`, and whose names another column has taken there: the values are gone.
    pub(crate) fn replaced_columns(&self, table: &Entry, other: &Definitions) -> Vec<String> {
        let same = other.entries.iter().find(|entry| entry.identity.is_some() && entry.identity == table.identity);
        let numbers = self.column_numbers(table).zip(same.and_then(|same| other.column_numbers(same)));
        let Some((were, are)) = numbers else { return Vec::new() };
        let gone = were.iter().filter(|(number, name)| !are.contains_key(number) && are.values().any(|other| other == *name));
        gone.map(|(_, name)| name.clone()).collect()
    }

    /// Where the two differ, in words; column order counts only if `ordered`.
    #[must_use]
    pub fn differences(&self, other: &Definitions, ordered: bool) -> Vec<String> {
        let mut found = Vec::new();
        for entry in &self.entries {
            match other.find(&entry.key) {
                None => found.push(format!("missing: {}", entry.key)),
                Some(theirs) if !entry.is_same(theirs, ordered) && (ordered || !entry.differs_in_order(theirs)) => {
                    found.push(format!("{}: `{}` became `{}`", entry.key, entry.statements.join("; "), theirs.statements.join("; ")));
                }
                Some(_) => {}
            }
        }
        found.extend(other.entries.iter().filter(|entry| self.find(&entry.key).is_none()).map(|entry| format!("new: {}", entry.key)));
        found
    }

    /// Builds shapes and keys anew, after entries have changed.
    pub(crate) fn index(&mut self) {
        for entry in &mut self.entries {
            entry.read();
        }
        let mut seen: HashMap<String, usize> = HashMap::new();
        for entry in &self.entries {
            *seen.entry(entry.key.clone()).or_default() += 1;
        }
        for entry in &mut self.entries {
            // Overloaded operators share a heading: their text tells them apart.
            if seen.get(&entry.key).is_some_and(|count| *count > 1) {
                entry.key = format!("{} {}", entry.key, entry.statements.first().map(String::as_str).unwrap_or_default());
            }
        }
        self.at = self.entries.iter().enumerate().map(|(place, entry)| (entry.key.clone(), place)).collect();
    }
}

impl Entry {
    /// What kind of object it is, as `pg_dump` says it: `TABLE`, `FK CONSTRAINT`.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The schema it is in, if it is in one.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// Its name, as `pg_dump` says it: a constraint's with its table's before it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.tag
    }

    /// Its owner.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// The statements that make it.
    #[must_use]
    pub fn statements(&self) -> &[String] {
        &self.statements
    }

    /// The catalogue's oid and the object's, if it is an object of its own.
    #[must_use]
    pub fn identity(&self) -> Option<(u32, u32)> {
        self.identity
    }

    /// Whether two entries say the same.
    pub(crate) fn is_same(&self, other: &Entry, ordered: bool) -> bool {
        if self.tag != other.tag && self.kind == "EXTENSION" {
            return false;
        }
        let same_place = self.tablespace == other.tablespace && self.access_method == other.access_method;
        match (&self.table, &other.table) {
            (Some(ours), Some(theirs)) if !ordered => ours.properties == theirs.properties,
            _ => self.statements == other.statements && (same_place || !self.has_place()),
        }
    }

    /// Whether columns in another order are all that differs, where a dump names columns in their order.
    fn differs_in_order(&self, other: &Entry) -> bool {
        let sorted = |entry: &Entry| {
            let words = entry.statements.iter().flat_map(|statement| lex::words(statement).into_iter().map(|token| token.text.to_owned()));
            let mut words: Vec<String> = words.collect();
            words.sort();
            words
        };
        matches!(self.kind.as_str(), "ACL" | "STATISTICS") && sorted(self) == sorted(other)
    }

    /// Whether the session's tablespace and access method had a say in it.
    pub(crate) fn has_place(&self) -> bool {
        matches!(self.kind.as_str(), "TABLE" | "MATERIALIZED VIEW" | "INDEX" | "CONSTRAINT")
    }

    /// The name in its schema, without arguments.
    pub(crate) fn object_name(&self) -> Option<Name> {
        let name = match self.kind.as_str() {
            "FUNCTION" | "PROCEDURE" | "AGGREGATE" => lex::words(&self.tag).first()?.name()?,
            _ => self.tag.clone(),
        };
        Some(Name { schema: self.schema.clone()?, name })
    }

    /// The object as a statement names it: `FUNCTION s.f(integer)`, from the statement that gives it its owner, where there is one.
    pub(crate) fn designation(&self) -> Option<String> {
        let owner = self.statements.iter().find_map(|statement| owner_of(statement).map(|at| (statement, at)));
        let kind = self.kind.as_str();
        if let Some((statement, (from, to))) = owner
            && !matches!(kind, "VIEW" | "MATERIALIZED VIEW" | "SEQUENCE" | "PROCEDURAL LANGUAGE")
        {
            return statement.get(from..to).map(|text| text.trim().to_owned());
        }
        let own = lex::quote(&self.tag);
        let first = self.statements.first()?;
        match kind {
            "SCHEMA" | "PUBLICATION" | "ACCESS METHOD" | "EVENT TRIGGER" => Some(format!("{kind} {own}")),
            "EXTENSION" => Some(format!("EXTENSION {}", lex::quote(self.tag.split(' ').next()?))),
            "PROCEDURAL LANGUAGE" => Some(format!("LANGUAGE {own}")),
            "CAST" | "TRANSFORM" => {
                let words = lex::words(first);
                let end = words.iter().find(|token| token.text == if kind == "CAST" { ")" } else { "(" })?;
                let end = if kind == "CAST" { end.end() } else { end.at };
                let start = words.iter().find(|token| token.is(kind))?.at;
                first.get(start..end).map(|text| text.trim().to_owned())
            }
            _ => Some(format!("{kind} {}.{own}", lex::quote(self.schema.as_deref()?))),
        }
    }

    /// Reads shape, table and key from the statements.
    fn read(&mut self) {
        let first = self.statements.first().map(String::as_str).unwrap_or_default();
        let shape = shape::shape(first);
        // A parser that fails on it, or a statement that is not there: nothing is known about it.
        let mut is_readable = shape.is_some() && !self.statements.is_empty() && KINDS.contains(&self.kind.as_str());
        self.shape = shape.unwrap_or_default();
        if self.kind == "TABLE" {
            self.table = Table::read(self);
            is_readable &= self.table.is_some();
        }
        self.is_readable &= is_readable;
        self.key = self.make_key();
    }

    fn make_key(&self) -> String {
        let first = self.statements.first().map(String::as_str).unwrap_or_default();
        let kind = &self.kind;
        let on = |shape: &Shape| shape.relation.as_ref().map(|name| format!("{}.{}", lex::quote(&name.schema), lex::quote(&name.name)));
        match kind.as_str() {
            "COMMENT" | "SECURITY LABEL" => {
                let words = lex::words(first);
                let end = words.last().map_or(first.len(), |token| token.at);
                first.get(..end).unwrap_or(first).trim().to_owned()
            }
            "ACL" => {
                let object = self.statements.iter().find_map(|statement| privileges::object(statement));
                format!("ACL {}", object.unwrap_or_else(|| self.tag.clone()))
            }
            "CONSTRAINT" | "FK CONSTRAINT" | "CHECK CONSTRAINT" | "TRIGGER" | "RULE" | "POLICY" | "DEFAULT" | "ROW SECURITY" => {
                format!("{kind} {} {}", on(&self.shape).unwrap_or_else(|| self.tag.clone()), self.shape.own.as_deref().unwrap_or_default())
            }
            "PUBLICATION TABLE" | "PUBLICATION TABLES IN SCHEMA" => {
                let words = lex::words(first);
                let end = words.iter().find(|token| token.text == "(" || token.is("WHERE")).map_or(first.len(), |token| token.at);
                first.get(..end).unwrap_or(first).trim().to_owned()
            }
            "DEFAULT ACL" => {
                format!("{kind} {} {} {}", self.schema.as_deref().unwrap_or("-"), self.owner.as_deref().unwrap_or("-"), self.tag)
            }
            "EXTENSION" => format!("{kind} {}", self.tag.split(' ').next().unwrap_or_default()),
            _ => format!("{kind} {}.{}", self.schema.as_deref().unwrap_or("-"), self.tag),
        }
    }
}

/// Where the designation is in `ALTER … OWNER TO …`.
pub(crate) fn owner_of(statement: &str) -> Option<(usize, usize)> {
    let words = lex::words(statement);
    let [first, .., owner, to, _] = words.as_slice() else { return None };
    (first.is("ALTER") && owner.is("OWNER") && to.is("TO")).then_some((first.end(), owner.at))
}

/// What this crate knows how to take back. Anything else is not undoable.
const KINDS: &[&str] = &[
    "ACL",
    "AGGREGATE",
    "CAST",
    "CHECK CONSTRAINT",
    "COLLATION",
    "COMMENT",
    "CONSTRAINT",
    "CONVERSION",
    "DEFAULT",
    "DEFAULT ACL",
    "DOMAIN",
    "EVENT TRIGGER",
    "EXTENSION",
    "FK CONSTRAINT",
    "FOREIGN DATA WRAPPER",
    "FUNCTION",
    "INDEX",
    "INDEX ATTACH",
    "MATERIALIZED VIEW",
    "OPERATOR",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "POLICY",
    "PROCEDURE",
    "PUBLICATION",
    "PUBLICATION TABLE",
    "PUBLICATION TABLES IN SCHEMA",
    "ROW SECURITY",
    "RULE",
    "SCHEMA",
    "SECURITY LABEL",
    "SEQUENCE",
    "SEQUENCE OWNED BY",
    "STATISTICS",
    "TABLE",
    "TABLE ATTACH",
    "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY",
    "TRANSFORM",
    "TRIGGER",
    "TYPE",
    "VIEW",
];

/// The heading of the entry being read, and all that was read before.
#[derive(Default)]
struct Reading {
    entries: Vec<Entry>,
    /// Entries' numbers and where they are; several privileges of one object are one entry.
    numbers: HashMap<u64, usize>,
    privileges: HashMap<String, usize>,
    unnumbered: Option<String>,
    needs: Vec<Vec<u64>>,
    columns: BTreeMap<u32, BTreeMap<i32, String>>,
    extensions: HashMap<u32, String>,
    heading: Option<Heading>,
    body: String,
    tablespace: String,
    access_method: String,
    complete: bool,
}

#[derive(Default)]
struct Heading {
    number: u64,
    identity: Option<(u32, u32)>,
    needs: Vec<u64>,
    name: Option<[String; 4]>,
    is_ambiguous: bool,
}

impl Reading {
    fn comment(&mut self, text: &str) {
        if let Some(rest) = text.strip_prefix("-- TOC entry ") {
            self.close();
            let digits: Vec<u64> = rest.split(|letter: char| !letter.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect();
            let part = |place: usize| digits.get(place).and_then(|number| u32::try_from(*number).ok()).filter(|number| *number != 0);
            let identity = part(1).zip(part(2));
            self.heading = Some(Heading { number: digits.first().copied().unwrap_or_default(), identity, ..Heading::default() });
        } else if let Some(rest) = text.strip_prefix("-- Dependencies: ") {
            if let Some(heading) = &mut self.heading {
                heading.needs = rest.split_ascii_whitespace().filter_map(|part| part.parse().ok()).collect();
            }
        } else if let Some(rest) = text.strip_prefix("-- Name: ") {
            let heading = self.heading.get_or_insert_with(Heading::default);
            heading.name = heading_of(rest);
            // A name can hold what looks like a heading's next part.
            heading.is_ambiguous = ["; Type: ", "; Schema: ", "; Owner: "].iter().any(|part| rest.matches(part).count() != 1);
        } else if text.starts_with(END) {
            self.close();
            self.complete = true;
        } else if let Some(rest) = text.strip_prefix(COLUMN) {
            let mut parts = rest.splitn(3, ' ');
            if let (Some(Ok(oid)), Some(Ok(number)), Some(name)) =
                (parts.next().map(str::parse), parts.next().map(str::parse), parts.next())
            {
                self.columns.entry(oid).or_default().insert(number, name.to_owned());
            }
        } else if let Some(rest) = text.strip_prefix(EXTENSION)
            && let Some((oid, version)) = rest.split_once(' ')
            && let Ok(oid) = oid.parse()
        {
            self.extensions.insert(oid, version.to_owned());
        }
    }

    fn close(&mut self) {
        let body = std::mem::take(&mut self.body);
        let Some(heading) = self.heading.take() else { return };
        let [tag, kind, schema, owner] = heading.name.unwrap_or_default();
        // Lines for `psql` rather than for the server.
        let sql: String = body.split_inclusive('\n').filter(|line| !line.starts_with("\\unrestrict ")).collect();
        let statements = shape::split(&sql);
        let mut entry = Entry {
            is_readable: statements.is_some() && !heading.is_ambiguous,
            statements: Vec::new(),
            schema: Some(schema).filter(|schema| schema != "-"),
            owner: Some(owner).filter(|owner| owner != "-" && !owner.is_empty()),
            identity: heading.identity,
            needs: Vec::new(),
            tablespace: self.tablespace.clone(),
            access_method: self.access_method.clone(),
            shape: Shape::default(),
            key: String::new(),
            table: None,
            tag,
            kind,
        };
        for statement in statements.unwrap_or_else(|| vec![sql.trim().to_owned()]) {
            let words = lex::words(&statement);
            match words.as_slice() {
                [set, name, .., value] if set.is("SET") && name.is("default_tablespace") => {
                    self.tablespace = value.text.to_owned();
                }
                [set, name, .., value] if set.is("SET") && name.is("default_table_access_method") => {
                    self.access_method = value.text.to_owned();
                }
                _ => entry.statements.push(statement),
            }
        }
        if heading.number == 0 {
            self.unnumbered.get_or_insert(entry.tag);
            return;
        }
        let place = self.entries.len();
        if entry.kind == "ACL"
            && let Some(object) = entry.statements.iter().find_map(|statement| privileges::object(statement))
        {
            let first = *self.privileges.entry(object).or_insert(place);
            if let Some(whole) = self.entries.get_mut(first) {
                whole.statements.append(&mut entry.statements);
                whole.is_readable &= entry.is_readable;
                self.numbers.insert(heading.number, first);
                return;
            }
        }
        self.numbers.insert(heading.number, place);
        self.entries.push(entry);
        self.needs.push(heading.needs);
    }

    fn finish(&mut self) -> Result<(), ReadError> {
        self.close();
        self.unnumbered.take().map_or(Ok(()), |name| Err(ReadError::NoNumber(name)))
    }
}

/// `Name`, `Type`, `Schema`, `Owner` (and a tablespace that is said elsewhere too).
fn heading_of(text: &str) -> Option<[String; 4]> {
    let (name, rest) = text.split_once("; Type: ")?;
    let (kind, rest) = rest.split_once("; Schema: ")?;
    let (schema, owner) = rest.split_once("; Owner: ")?;
    let owner = owner.split_once("; Tablespace: ").map_or(owner, |(owner, _)| owner);
    Some([name, kind, schema, owner].map(|part| part.trim_end().to_owned()))
}
