//! Recovery: copies of protected databases and folders in the vault, and the proof that they come back.
//!
//! A copy is made by an engine (`engine.rs`): of a PostgreSQL server by its own programs, of a SQLite database (`sqlite.rs`), or of a
//! folder (`archive.rs`). It is cut into chunks that are sealed (`chunks.rs`, `seal.rs`) and
//! put into the vault, and closed by one signed manifest that is never changed (`manifest.rs`). `wal.rs` keeps what is
//! committed between copies. `restore.rs` brings a copy back into a new place, `drill.rs` does so in a throw-away server and
//! tries to find fault with it. What both send to the gateway is a signed note (`note.rs`); `office.rs` takes it into the ledger.
//! All of this blocks: it runs in processes of its own, and on threads that may.

mod archive;
mod chunks;
mod drill;
mod engine;
mod error;
mod heartbeat;
mod look;
mod manifest;
mod note;
mod office;
mod own;
mod pgbackrest;
mod progress;
mod purge;
mod radius;
mod report;
mod restore;
mod scratch;
mod seal;
mod server;
mod slot;
mod source;
mod sqlite;
mod standing;
mod survey;
mod tools;
mod wal;

#[cfg(any(test, fuzzing))]
pub use archive::made_up::Arena;
pub use drill::{Check, DrillOptions, DrillReport, drill};
pub use engine::{BackupOptions, EngineChoice, EngineKind, Subject, backup};
pub use error::RecoveryError;
pub use heartbeat::{beat, heartbeat_removal};
pub use manifest::{Contents, Lsn, Manifest, find_points, read_manifest, read_point};
pub use note::{NOTE_AGE, Notice, Say, sign, statement};
pub use office::{Office, told};
pub use own::{OwnCopy, anchor, copy_own, find_anchors, newest_own, restore_own};
pub use pgbackrest::{Elsewhere, Finding, Kept, Label, Stanza, StanzaName};
pub use progress::{Progress, Tell};
pub use purge::{KnownPoint, Purge, carry_out, known_points, over, plan_purge};
pub use radius::{Place, place_of};
pub use report::{Configured, KINDS, report};
pub use restore::{Ground, RestoreOptions, Restored, Target, Until, restore};
pub use seal::{DrillKey, Recipients};
pub use slot::{Slot, slot_name};
pub use source::{Encryption, Source};
pub use standing::Standing;
pub use survey::{DatabaseSurvey, Survey};
pub use tools::Tools;
pub use wal::{Coverage, StoredWal, WalKeeper, WalOptions, read_coverage, read_index};
