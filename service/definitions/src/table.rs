//! Tables: a `CREATE TABLE` and what follows it in a dump, as single properties that can be compared and merged one by one.
//!
//! The tree is PostgreSQL's own grammar's; the texts are cut out at the places the tree names, so that they stay as `pg_dump` wrote them.
//! How a difference becomes statements is in `alter.rs`.

use std::collections::BTreeMap;

use pg_raw_parse::raw::{AlterTableType, ConstrType};
use pg_raw_parse::{Node, nodes};

use crate::dump::Entry;
use crate::lex::{self, Token};
use crate::shape::{self, Name};

/// One thing that can differ between two tables.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Property {
    /// A column; its value is type and collation.
    Column(String),
    /// A generated column's expression.
    Generated(String),
    /// A column's default.
    Default(String),
    /// A column may not be null.
    NotNull(String),
    /// A check constraint that stands in the table; its value is the constraint without its name.
    Check(String),
    /// A storage parameter.
    Parameter(String),
    /// A column's storage.
    Storage(String),
    /// A column's statistics target.
    Statistics(String),
    /// A column's compression.
    Compression(String),
    /// A column's options, all of them.
    ColumnOptions(String),
    /// A table that it inherits from.
    Inherits(String),
    /// How it is partitioned.
    PartitionBy,
    /// Logged or not.
    Unlogged,
    /// What identifies a row to replication.
    ReplicaIdentity,
    /// Row security also for the owner.
    ForceRowSecurity,
    /// The owner.
    Owner,
    /// The tablespace.
    Tablespace,
    /// The access method.
    AccessMethod,
}

impl Property {
    /// The column it is about.
    pub(crate) fn column(&self) -> Option<&str> {
        match self {
            Self::Column(name)
            | Self::Generated(name)
            | Self::Default(name)
            | Self::NotNull(name)
            | Self::Storage(name)
            | Self::Statistics(name)
            | Self::Compression(name)
            | Self::ColumnOptions(name) => Some(name),
            Self::Check(_)
            | Self::Parameter(_)
            | Self::Inherits(_)
            | Self::PartitionBy
            | Self::Unlogged
            | Self::ReplicaIdentity
            | Self::ForceRowSecurity
            | Self::Owner
            | Self::Tablespace
            | Self::AccessMethod => None,
        }
    }
}

/// A table's definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: Name,
    pub(crate) properties: BTreeMap<Property, String>,
    /// Its own columns in their order.
    pub(crate) columns: Vec<String>,
}

impl Table {
    /// Reads a table's entry; nothing if there is something in it that this version does not know.
    pub(crate) fn read(entry: &Entry) -> Option<Table> {
        let (first, rest) = entry.statements.split_first()?;
        let mut table = shape::parsed(first, |statements| match statements.first()?.stmt() {
            Node::CreateStmt(create) => read_create(first, create),
            _ => None,
        })??;
        for statement in rest {
            shape::parsed(statement, |statements| match statements.first()?.stmt() {
                Node::AlterTableStmt(alter) => table.read_alter(statement, alter),
                _ => None,
            })??;
        }
        if !entry.tablespace.trim_matches('\'').is_empty() {
            table.set(Property::Tablespace, &entry.tablespace);
        }
        if !table.properties.contains_key(&Property::PartitionBy) {
            table.set(Property::AccessMethod, &entry.access_method);
        }
        Some(table)
    }

    /// The name in statements.
    pub(crate) fn sql_name(&self) -> String {
        sql_name(&self.name)
    }

    fn set(&mut self, property: Property, value: &str) {
        self.properties.insert(property, value.trim().to_owned());
    }

    fn read_alter(&mut self, statement: &str, alter: &nodes::AlterTableStmt) -> Option<()> {
        let Node::AlterTableCmd(command) = alter.cmds().iter().next()? else { return None };
        let words = lex::words(statement);
        let last = words.last()?.text;
        let column = command.name().map(str::to_owned);
        let after = |word: &str| {
            let token = words.iter().rfind(|token| token.is(word))?;
            statement.get(token.end()..)
        };
        match command.subtype {
            AlterTableType::AT_SetStatistics => self.set(Property::Statistics(column?), last),
            AlterTableType::AT_SetStorage => self.set(Property::Storage(column?), last),
            AlterTableType::AT_SetCompression => self.set(Property::Compression(column?), last),
            AlterTableType::AT_SetOptions => self.set(Property::ColumnOptions(column?), after("SET")?),
            AlterTableType::AT_SetNotNull => self.set(Property::NotNull(column?), ""),
            AlterTableType::AT_ColumnDefault => {
                let start = words.iter().find(|token| token.is("DEFAULT"))?.end();
                self.set(Property::Default(column?), statement.get(start..)?);
            }
            AlterTableType::AT_ReplicaIdentity => self.set(Property::ReplicaIdentity, after("IDENTITY")?),
            AlterTableType::AT_ForceRowSecurity => self.set(Property::ForceRowSecurity, ""),
            AlterTableType::AT_ChangeOwner => self.set(Property::Owner, after("TO")?),
            _ => return None,
        }
        Some(())
    }
}

/// A name as a statement writes it.
pub(crate) fn sql_name(name: &Name) -> String {
    format!("{}.{}", lex::quote(&name.schema), lex::quote(&name.name))
}

fn read_create(text: &str, create: &nodes::CreateStmt) -> Option<Table> {
    // A typed table takes its columns from elsewhere.
    if create.of_typename().is_some() || create.partbound().is_some() {
        return None;
    }
    let mut table = Table { name: shape::relation(create.relation())?, properties: BTreeMap::new(), columns: Vec::new() };
    let words = lex::words(text);
    if words.get(1)?.is("UNLOGGED") {
        table.set(Property::Unlogged, "");
    }
    let open = words.iter().position(|token| token.text == "(")?;
    let close = closing(&words, open)?;
    let end = words.get(close)?.at;
    let starts: Vec<usize> = create.table_elts().iter().map(location).collect::<Option<_>>()?;
    for (place, element) in create.table_elts().iter().enumerate() {
        let start = *starts.get(place)?;
        let stop = starts.get(place + 1).copied().unwrap_or(end);
        let slice = text.get(start..stop)?.trim_end();
        let slice = if place + 1 < starts.len() { slice.strip_suffix(',')? } else { slice };
        match element {
            Node::ColumnDef(column) => table.read_column(text, start + slice.len(), column)?,
            Node::Constraint(constraint) if constraint.contype == ConstrType::CONSTR_CHECK => {
                let name = constraint.conname()?;
                let own = lex::words(slice);
                let check = own.iter().find(|token| token.is("CHECK"))?;
                table.set(Property::Check(name.to_owned()), slice.get(check.at..)?);
            }
            _ => return None,
        }
    }
    table.read_tail(text, words.get(close + 1..)?)?;
    Some(table)
}

impl Table {
    fn read_column(&mut self, text: &str, end: usize, column: &nodes::ColumnDef) -> Option<()> {
        let name = column.colname()?.to_owned();
        let kind = usize::try_from(column.type_name()?.location).ok()?;
        let mut starts = Vec::new();
        let mut definition_end = end;
        for constraint in column.constraints() {
            let Node::Constraint(constraint) = constraint else { return None };
            let start = usize::try_from(constraint.location).ok()?;
            definition_end = definition_end.min(start);
            starts.push((start, Some(constraint.contype)));
        }
        // A dump writes the collation after the constraints.
        if let Some(collation) = column.coll_clause() {
            let start = usize::try_from(collation.location).ok()?;
            definition_end = definition_end.min(start);
            starts.push((start, None));
        }
        starts.sort_unstable();
        let mut collation = "";
        for (place, (start, contype)) in starts.iter().enumerate() {
            let stop = starts.get(place + 1).map_or(end, |(next, _)| *next);
            let slice = text.get(*start..stop)?;
            let own = lex::words(slice);
            let body = |word: &str| own.iter().find(|token| token.is(word)).and_then(|token| slice.get(token.end()..));
            match *contype {
                None => collation = slice.trim(),
                Some(ConstrType::CONSTR_DEFAULT) => self.set(Property::Default(name.clone()), body("DEFAULT")?),
                Some(ConstrType::CONSTR_NOTNULL) => self.set(Property::NotNull(name.clone()), ""),
                Some(ConstrType::CONSTR_GENERATED) => self.set(Property::Generated(name.clone()), slice),
                Some(_) => return None,
            }
        }
        let kind = text.get(kind..definition_end)?.trim();
        self.set(Property::Column(name.clone()), &format!("{kind} {collation}"));
        self.columns.push(name);
        Some(())
    }

    fn read_tail(&mut self, text: &str, words: &[Token<'_>]) -> Option<()> {
        let mut place = 0;
        while let Some(word) = words.get(place) {
            if word.is("PARTITION") {
                let open = words.iter().enumerate().position(|(at, token)| at > place && token.text == "(")?;
                let close = closing(words, open)?;
                self.set(Property::PartitionBy, text.get(word.at..words.get(close)?.end())?);
                place = close + 1;
            } else if word.is("INHERITS") || word.is("WITH") {
                let close = closing(words, place + 1)?;
                let items = split_list(text, words.get(place + 2..close)?, words.get(close)?.at)?;
                for item in items {
                    if word.is("INHERITS") {
                        self.set(Property::Inherits(item.clone()), "");
                    } else {
                        let (name, value) = item.split_once('=')?;
                        self.set(Property::Parameter(name.trim().to_owned()), value);
                    }
                }
                place = close + 1;
            } else {
                return None;
            }
        }
        Some(())
    }
}

/// The items of a list between commas that are in no parentheses.
fn split_list(text: &str, words: &[Token<'_>], end: usize) -> Option<Vec<String>> {
    let mut items = Vec::new();
    let mut start = words.first()?.at;
    let mut depth = 0usize;
    for token in words {
        match token.text {
            "(" => depth += 1,
            ")" => depth = depth.saturating_sub(1),
            "," if depth == 0 => {
                items.push(text.get(start..token.at)?.trim().to_owned());
                start = token.end();
            }
            _ => {}
        }
    }
    items.push(text.get(start..end)?.trim().to_owned());
    Some(items)
}

/// The place of the parenthesis that closes the one at `open`.
pub(crate) fn closing(words: &[Token<'_>], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (place, token) in words.iter().enumerate().skip(open) {
        match token.text {
            "(" => depth += 1,
            ")" => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(place);
                }
            }
            _ => {}
        }
    }
    None
}

fn location(element: Node<'_>) -> Option<usize> {
    match element {
        Node::ColumnDef(column) => usize::try_from(column.location).ok(),
        Node::Constraint(constraint) => usize::try_from(constraint.location).ok(),
        _ => None,
    }
}
