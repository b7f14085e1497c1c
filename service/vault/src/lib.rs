//! The vault: object storage in another blast radius, where before-images and backups live.
//!
//! Contents are compressed, encrypted and named by a keyed digest, so whoever holds the storage learns sizes and times, and
//! can neither read, change nor swap anything unnoticed. [`Vault`] is what callers use (`vault.rs`), [`Pack`] puts many
//! small things into one object (`pack.rs`), `format.rs` says what an object looks like, `backend.rs` where it lies.
//! What the contents mean, how long they are kept and who may read them is not known here.

mod backend;
mod error;
mod format;
mod key;
mod object;
mod options;
mod pack;
mod reading;
mod spool;
mod tally;
#[cfg(test)]
mod tests;
mod vault;

pub use error::VaultError;
pub use key::VaultKey;
pub use object::{Kind, Lock, ObjectRef, Stored, Usage, Verified};
pub use options::{Location, S3Options, VaultOptions};
pub use pack::{Pack, PackReader};
pub use reading::Reading;
pub use vault::{Listing, Named, Vault};
