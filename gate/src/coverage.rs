//! Coverage: from which of a system's tables there is a way back, and when it has to be out of the database's reach.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::upstream::Running;

/// Knows, for one protected database, which tables' changes are written down before they are final, and keeps that up.
pub trait Coverage: Send + Sync {
    /// A query for the oids of the covered tables, to be asked by the role that agents log in with.
    fn query(&self) -> &str;

    /// Resolves when what the definitions are at this moment is kept. Answers whether they had changed since they were last kept, or
    /// the reason if they can't be.
    fn definitions_ready(&self) -> Running<'_, Result<bool, String>>;

    /// A statement for the session that is about to drop or rewrite a covered relation: writes all of it down first.
    fn keep_whole(&self, relation: u32) -> String;

    /// A statement for the session that is about to drop covered tables: moves them out of agents' reach and leaves an empty double
    /// of each for the DROP. Answers the doubles' oids as an array's text, or why they have to be written down instead.
    fn set_aside(&self, relations: &[u32]) -> String;

    /// Covers what came since. Answers the reason if it can't; then it is asked again soon.
    fn keep_up(&self) -> Running<'_, Result<(), String>>;

    /// Whether what is written down is also brought out of the database's reach at the moment. Answers the reason if it isn't, in
    /// words that stay the same as long as it does: no table counts as covered then, and what people approve says why.
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    /// How the session whose open transaction this is asks for a few of the rows that were changed in a relation: up to `most`, of which
    /// it takes a share. None where nothing is written down.
    fn sampling(&self, _relation: u32, _share: f64, _most: u32) -> Option<Sampling> {
        None
    }

    /// For a system whose changes become final only when what they replaced is out of the database's reach: what brings it there.
    fn strict(&self) -> Option<&dyn Strict> {
        None
    }
}

/// How sample rows are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sampling {
    /// A question whether the answer can be believed: one truth value.
    pub ready: String,
    /// The rows: before, and after where there is one.
    pub rows: String,
}

/// Brings what a transaction replaced out of the database's reach, before that transaction is final.
pub trait Strict: Send + Sync {
    /// The most bytes of one transaction that are waited for.
    fn most(&self) -> u64;

    /// Room in memory for so many bytes; waits for it as long as for the vault.
    fn room(&self, bytes: u64) -> Running<'_, Result<Room, String>>;

    /// A statement for the session whose open transaction this is. It copies out what the transaction replaced, if that is at most
    /// `most` bytes; otherwise one row that says how many they are, of a statement with the number 0.
    fn question(&self, transaction: u64, most: u64) -> Result<String, String>;

    /// Resolves when what the transaction replaced lies outside of the database's reach and is recorded, or with the reason why not
    /// within the time that a change may wait for it.
    fn secure(&self, transaction: u64, images: Vec<u8>, room: Room) -> Running<'_, Result<(), String>>;
}

/// Room in memory for images on their way; given back when dropped.
#[derive(Debug)]
pub struct Room(#[allow(dead_code, reason = "held, never read")] OwnedSemaphorePermit);

impl Room {
    /// Takes `kibibytes` out of what there is.
    pub async fn take(all: Arc<Semaphore>, kibibytes: u32) -> Option<Self> {
        all.acquire_many_owned(kibibytes).await.ok().map(Self)
    }
}
