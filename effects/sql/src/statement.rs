//! What the analysis says about one statement.
//!
//! Pure data. How it is found is in `analyze.rs` and what it proves in `catalog.rs`.

use std::ops::Range;

use reprieve_operation::{Effect, ObjectName};

/// What a text holds: its statements, in order. An empty text has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Analysis {
    /// The statements.
    pub statements: Vec<Statement>,
}

/// One statement, and everything its text alone tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Where it stands in the text, in bytes, without its semicolon.
    pub span: Range<usize>,
    /// How it has to be run.
    pub class: Class,
    /// What it touches, each touch once.
    pub effects: Vec<Effect>,
    /// Every function it calls by name, each once.
    pub functions: Vec<ObjectName>,
    /// Every operator it uses, also those that `BETWEEN`, `IN` or `USING` stand for; with a schema if the text gave one.
    pub operators: Vec<ObjectName>,
    /// Every type it names.
    pub casts: Vec<ObjectName>,
    /// Names after a dot: `t.x` reads a column, or calls a function `x` with the row, and the text cannot tell which.
    pub attributes: Vec<String>,
    /// Whether it answers with rows.
    pub returns_rows: bool,
    /// Whether it moves data through the COPY sub-protocol.
    pub copy: Option<Copy>,
    /// Whether it depends on the session, or leaves something behind in it.
    pub in_session: bool,
    /// Whether it does something only inside a transaction block. Alone, the server refuses it, or warns and forgets it.
    pub block_only: bool,
    /// Whether it declares a cursor WITH HOLD, whose query runs inside COMMIT; see [`HOLDABLE`].
    pub holdable: bool,
    /// Whether it goes over a partitioned relation part by part, each in a transaction of its own, outside any block.
    pub by_parts: bool,
}

/// The escape that a cursor WITH HOLD is, unless [`Catalog::proves_cursor`](crate::Catalog::proves_cursor) says that its query only reads.
pub const HOLDABLE: &str = "a cursor WITH HOLD runs inside COMMIT";

/// How a statement has to be run and guarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Writes nothing by its text; [`Catalog::proves_read`](crate::Catalog::proves_read) can tell that no function does either.
    Read,
    /// Touches the session's own state only.
    Session,
    /// Changes rows, and may run in the implicit form.
    Dml,
    /// Anything else that may run in a transaction block.
    Block,
    /// Begins, ends or marks a transaction.
    Control(Control),
    /// Cannot run inside a transaction block, so that nothing can be measured before it is final.
    Unwrapped,
    /// Not understood.
    Unreadable,
}

/// A statement about the transaction itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Control {
    /// `BEGIN`, `START TRANSACTION`.
    Begin,
    /// `COMMIT`, `END`.
    Commit {
        /// Whether the next transaction begins at once.
        chain: bool,
    },
    /// `ROLLBACK`, `ABORT`.
    Rollback {
        /// Whether the next transaction begins at once.
        chain: bool,
    },
    /// `SAVEPOINT`.
    Savepoint,
    /// `RELEASE SAVEPOINT`.
    Release,
    /// `ROLLBACK TO SAVEPOINT`.
    RollbackTo,
    /// `PREPARE TRANSACTION`.
    PrepareTransaction,
    /// `COMMIT PREPARED`.
    CommitPrepared,
    /// `ROLLBACK PREPARED`.
    RollbackPrepared,
}

/// The direction of a COPY through the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Copy {
    /// `COPY … FROM STDIN`.
    In,
    /// `COPY … TO STDOUT`.
    Out,
}
