//! Undo: what an agent changed is put back, in one transaction, without overwriting what others did since.
//!
//! Rows come from the journal that the database keeps by triggers (`surface/postgres/src/journal.rs` installs them). What several
//! changes of a row come to is in `chain.rs`; what must be known of a table in `table.rs`; how rows are put back and checked in
//! `rows.rs`. Tables that are dropped are set aside (`aside.rs`). What takes calls to services back is kept by `calls.rs`, and the exact text of what was asked by `texts.rs`. Which changes there are is read from the ledger (`change.rs`), and an operator's request is carried out by [`Undo`].

mod access;
mod aside;
mod calls;
mod catalog_state;
mod chain;
mod change;
mod connect;
mod definitions;
mod export;
mod images;
pub mod journal;
mod keeper;
mod over;
mod position;
mod purge;
mod rows;
mod sample;
mod settle;
mod snapshots;
mod source;
mod strict;
mod table;
mod texts;
mod undo;

pub use access::VaultAccess;
pub use calls::{CallEscrow, CallObjects};
pub use chain::{Edge, net};
pub use change::{Change, History, Standing, changes};
pub use connect::Login;
pub use definitions::DefinitionsLog;
pub use export::{ExportedRow, export};
pub use journal::Journal;
pub use keeper::{Keeper, KeeperOptions, Kept};
pub use reprieve_gate::UndoChoice as Choice;
pub use rows::{Conflict, ConflictKind, Report, TableReport, Taken, Wish, revert};
pub use settle::Settler;
pub use snapshots::{Snapshot, snapshots};
pub use source::{Images, StoredImages, stored};
pub use strict::{Secured, Securer, StrictOptions, secured};
pub use texts::{KeptTexts, TextKeeper, kept_texts, sum, sums};
pub use undo::{Ground, RowChange, Undo, UndoOptions, preview, row_changes};

/// Why something was not undone. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// The database can't be reached, or refused a statement.
    #[error("the database refused: {}", in_words(.0))]
    Database(#[from] tokio_postgres::Error),
    /// The journal doesn't have what was measured.
    #[error("the journal holds {found} of the {measured} rows that were measured")]
    Missing {
        /// Rows in the journal.
        found: u64,
        /// Rows that were measured.
        measured: u64,
    },
    /// The table is gone.
    #[error("the table that was `{name}` is not there any more; undo what dropped it first")]
    Gone {
        /// Its oid, or its name where that is known.
        name: String,
    },
    /// The table is locked by somebody else.
    #[error("`{table}` is in use")]
    InUse {
        /// Which table.
        table: String,
    },
    /// The table has other columns now.
    #[error("`{table}` has other columns than it had: undo the change of its definition first")]
    Shape {
        /// Which table.
        table: String,
    },
    /// Rows were changed since.
    #[error("{} rows were changed since by somebody else; choose what is to happen with them", .0.conflicts_found)]
    Conflicts(Box<Report>),
    /// What was put back is not what was to be put back.
    #[error("putting rows back into `{table}` changed something else too, so it was rolled back: {what}")]
    Surprise {
        /// Which table.
        table: String,
        /// What.
        what: String,
    },
    /// A foreign key would be broken.
    #[error("{rows} rows of `{table}` would break its foreign key `{constraint}`: undo later changes of the table it refers to first")]
    ForeignKey {
        /// Which table.
        table: String,
        /// Which constraint.
        constraint: String,
        /// How many rows.
        rows: i64,
    },
    /// There is no such change, or it can't be undone.
    #[error("{0}")]
    NotUndoable(String),
    /// The ledger is not there.
    #[error("the ledger: {0}")]
    Ledger(String),
    /// The vault is away, or can't give or take what it should.
    #[error("{}", with_causes(.0))]
    Vault(#[from] reprieve_vault::VaultError),
    /// Row images are not where they should be.
    #[error("{0}")]
    Images(String),
    /// Definitions can't be read.
    #[error("the definitions can't be read: {0}")]
    Definitions(String),
    /// Too much for one plan.
    #[error("{0}")]
    Limit(String),
}

/// An error with what caused it, in one line.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(error.source(), |cause| cause.source()).fold(error.to_string(), |said, cause| format!("{said}: {cause}"))
}

fn in_words(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => match error.detail() {
            Some(detail) => format!("{} ({detail})", error.message()),
            None => error.message().to_owned(),
        },
        None => error.to_string(),
    }
}
