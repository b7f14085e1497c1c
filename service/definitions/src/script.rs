//! The way back, as a value: statements in order, what stands against it, and what only the caller can bring.

use thiserror::Error;

/// How to undo what an operation did to definitions.
#[derive(Clone, Debug, Default)]
pub struct UndoScript {
    /// What to run, in order, in one transaction: first all of [`Section::Before`], then the data, then all of [`Section::After`].
    pub statements: Vec<Step>,
    /// What somebody changed since. It is left alone, unless the plan was made with force.
    pub conflicts: Vec<Conflict>,
    /// What the caller has to fill in between the sections.
    pub needs_data: Vec<Data>,
    /// What the script throws away: rows or values that may have come since.
    pub loses: Vec<Loss>,
    /// What this version cannot take back. If there is anything, the script is empty.
    pub refusals: Vec<Refusal>,
    /// Tables whose columns come back in another order, because PostgreSQL adds columns at the end.
    pub reordered: Vec<String>,
}

/// When a step runs, seen from the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// Before rows and values are filled in.
    Before,
    /// After that: indexes, constraints, triggers, privileges.
    After,
}

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When it runs.
    pub section: Section,
    /// What it is about.
    pub object: String,
    /// The statement, without its semicolon.
    pub sql: String,
    /// What to run if `sql` fails (inside of a savepoint): a column whose present values do not convert is emptied.
    /// Only right if the caller has the value of every row.
    pub or_else: Option<String>,
}

/// Something that was changed by the operation, and changed again since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The object.
    pub object: String,
    /// What about it.
    pub because: String,
}

/// What definitions alone do not bring back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Data {
    /// All rows of a table.
    Rows {
        /// The table, as a statement names it.
        table: String,
    },
    /// A column's values.
    Column {
        /// The table, as a statement names it.
        table: String,
        /// The column.
        column: String,
        /// The type the values had.
        kind: String,
        /// The primary key's columns, by which rows are told apart. Empty if there is none.
        key: Vec<String>,
    },
    /// A sequence's position.
    Sequence {
        /// The sequence, as a statement names it.
        sequence: String,
    },
}

/// What goes when the script runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// A table made by the operation, with its rows.
    Table(String),
    /// A column made by the operation, with its values: table and column.
    Column(String, String),
}

/// A change that cannot be taken back.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{object}` cannot be undone: {because}")]
pub struct Refusal {
    /// The object.
    pub object: String,
    /// Why.
    pub because: String,
}

impl UndoScript {
    /// The whole as a text, for people and for `psql`: no data, and no way out if a statement fails.
    #[must_use]
    pub fn to_sql(&self) -> String {
        self.statements.iter().map(|step| format!("{};\n", step.sql)).collect()
    }
}
