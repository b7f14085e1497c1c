//! What a SQL text touches and changes, on PostgreSQL's own grammar.
//!
//! [`analyze`] turns a text into [`Statement`]s with their effects, the first opinion about an operation. It only reads the
//! text: what a function, trigger or rule will do is for the measurement to see. A [`Catalog`] adds what one database knows,
//! so that some reads can be proven to be nothing but reads. [`redact`] takes the literals out of a text.

mod analyze;
mod bounds;
mod builtins;
mod catalog;
mod children;
mod define;
mod hazards;
mod marks;
mod names;
mod redact;
mod scan;
mod statement;
mod utility;
mod walk;

pub use analyze::{MAX_STATEMENTS, MAX_TEXT_BYTES, analyze, unread};
pub use catalog::{CATALOG_QUERY, Catalog, CatalogTable, DeleteAction, Reference};
pub use marks::{Mark, marks};
pub use redact::{redact, redact_readable};
pub use statement::{Analysis, Class, Control, Copy, HOLDABLE, Statement};
