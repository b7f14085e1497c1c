//! The ledger's storage: rows in order, each uniqueness key once, and the signed head, all durable together or not at all.
//!
//! What the rows mean is not known here; see `service/audit`. [`SqliteStore`] keeps them in one file, [`MemoryStore`] in
//! memory; `tests/conformance.rs` holds both to the same promises. Start in `store.rs`.

mod blocks;
mod memory;
mod row;
mod sqlite;
mod store;

pub use blocks::BLOCK_LEAVES;
pub use memory::MemoryStore;
pub use row::{Batch, Head, Placed, Query, Row, Snapshot};
pub use sqlite::SqliteStore;
pub use store::{Reader, Seal, Store, StoreError};
