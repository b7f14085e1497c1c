//! Shape: what PostgreSQL's grammar says about one statement of a dump: on which table it hangs, what it names.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pg_raw_parse::{Node, nodes};

/// A name in a schema.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) schema: String,
    pub(crate) name: String,
}

/// What one statement tells about the object that it makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The relation it belongs to, for what cannot live without one.
    pub(crate) relation: Option<Name>,
    /// Its own name there, or the column's.
    pub(crate) own: Option<String>,
    /// Whether it is a view: as a rule's statement, the body of one that had to be made without.
    pub(crate) is_view: bool,
}

/// Parses a text and hands the tree to `read`; nothing if it is not SQL that our grammar knows.
pub(crate) fn parsed<T>(sql: &str, read: impl FnOnce(&[&nodes::RawStmt]) -> T) -> Option<T> {
    // A bug in the parser's binding ends as a text that is not understood.
    let result = catch_unwind(AssertUnwindSafe(|| {
        let tree = pg_raw_parse::parse(sql).ok()?;
        let statements: Vec<&nodes::RawStmt> = tree.iter().collect();
        Some(read(&statements))
    }));
    result.ok().flatten()
}

/// Splits a text at its statements' ends; nothing if it cannot be read.
pub(crate) fn split(sql: &str) -> Option<Vec<String>> {
    parsed(sql, |statements| {
        let slice = |statement: &&nodes::RawStmt| {
            let start = usize::try_from(statement.stmt_location).ok()?;
            let length = usize::try_from(statement.stmt_len).ok()?;
            let text = if length == 0 { sql.get(start..) } else { sql.get(start..start + length) }?;
            Some(text.trim().trim_end_matches(';').to_owned())
        };
        statements.iter().map(slice).collect::<Option<Vec<_>>>()
    })?
}

/// The shape of one statement; nothing if it is not SQL that our grammar knows.
pub(crate) fn shape(sql: &str) -> Option<Shape> {
    parsed(sql, |statements| statements.first().map(|statement| of(statement.stmt())))?
}

fn of(statement: Node<'_>) -> Shape {
    match statement {
        Node::AlterTableStmt(alter) => {
            let command = alter.cmds().iter().find_map(|command| match command {
                Node::AlterTableCmd(command) => Some(command),
                _ => None,
            });
            let constraint = command.and_then(|command| match command.def() {
                Node::Constraint(constraint) => Some(constraint),
                _ => None,
            });
            let own = constraint.and_then(nodes::Constraint::conname).or_else(|| command.and_then(nodes::AlterTableCmd::name));
            Shape { relation: relation(alter.relation()), own: own.map(str::to_owned), is_view: false }
        }
        Node::IndexStmt(create) => hanging(create.relation(), create.idxname()),
        Node::CreateTrigStmt(create) => hanging(create.relation(), create.trigname()),
        Node::RuleStmt(create) => hanging(create.relation(), create.rulename()),
        Node::CreatePolicyStmt(create) => hanging(create.table(), create.policy_name()),
        Node::ViewStmt(create) => Shape { is_view: true, ..hanging(create.view(), None) },
        Node::AlterSeqStmt(alter) => hanging(alter.sequence(), None),
        _ => Shape::default(),
    }
}

fn hanging(on: Option<&nodes::RangeVar>, own: Option<&str>) -> Shape {
    Shape { relation: relation(on), own: own.map(str::to_owned), is_view: false }
}

pub(crate) fn relation(range: Option<&nodes::RangeVar>) -> Option<Name> {
    let range = range?;
    Some(Name { schema: range.schemaname().unwrap_or_default().to_owned(), name: range.relname()?.to_owned() })
}
