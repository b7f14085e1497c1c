//! Definitions: what a PostgreSQL database's schema was, what an operation made of it, and the way back.
//!
//! [`take`](take::take) makes a snapshot with PostgreSQL's own `pg_dump`, and [`Definitions`] reads it. Three snapshots, from before an
//! operation, after it, and now, make an [`UndoScript`]: statements in the order of dependencies, to be run in one transaction.
//! What somebody else changed since is a [`Conflict`], and stays. What this crate does not understand is a [`Refusal`] by name: an
//! operation that did such a thing is not undoable, and has to be held before it runs ([`can_undo`]).
//!
//! Rows are not known here: the script says where the caller has to fill them in ([`Data`]), between its two sections.
//! Constraints, indexes and views run functions when they come back: run a script as the objects' owner, not as superuser.
//!
//! Not in a dump, and so invisible here: roles and their memberships, settings of roles and databases, tablespaces, other databases,
//! large objects, the state of replication and of subscriptions.

mod alter;
mod change;
mod dump;
mod lex;
mod plan;
mod privileges;
mod rename;
mod script;
mod shape;
mod table;
pub mod take;

pub use change::{Change, What};
pub use dump::{Definitions, Entry, ReadError};
pub use plan::{Options, can_undo, plan_undo};
pub use script::{Conflict, Data, Loss, Refusal, Section, Step, UndoScript};
pub use take::{Scope, TakeError, Tools, take};
