//! What the vault tells about its objects.

use reprieve_operation::{Digest, Timestamp};
use serde::{Deserialize, Serialize};

/// How an object is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// One stream of bytes, read from its beginning to its end.
    Stream,
    /// Many entries, any of which can be read alone; see [`crate::Pack`].
    Pack,
    /// One stream that can't be compressed any more, as it is.
    Bytes,
}

/// Where something lies in the vault: what a ledger event keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// The keyed digest of the contents: the object's name.
    pub digest: Digest,
    /// How it is to be read.
    pub kind: Kind,
    /// The contents' size.
    pub plain_bytes: u64,
    /// The size in the storage: compressed and encrypted.
    pub stored_bytes: u64,
}

/// An object as the storage lists it. What is in it takes the key to tell; see [`crate::Vault::describe`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The object's name.
    pub digest: Digest,
    /// The size in the storage.
    pub stored_bytes: u64,
    /// When it was stored, or last stored again.
    pub stored_at: Timestamp,
}

/// How long nobody can remove an object, whatever their credential. A later one is the better lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lock {
    /// Anybody who may remove can.
    None,
    /// Locked for most; a certain right goes around it.
    Weak,
    /// Nobody before this.
    Until(Timestamp),
}

/// How much is in the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// How many objects.
    pub objects: u64,
    /// Their size in the storage.
    pub stored_bytes: u64,
    /// The bound from the settings.
    pub max_bytes: Option<u64>,
    /// What the storage has left, where it can tell.
    pub free_bytes: Option<u64>,
}

/// What [`crate::Vault::verify`] found in the whole vault.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Verified {
    /// Objects that are what was stored under their names.
    pub good: u64,
    /// Their contents' size.
    pub plain_bytes: u64,
    /// Those that are not, and why.
    pub damaged: Vec<(Digest, String)>,
}
