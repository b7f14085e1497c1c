//! How much is in the vault, kept in step so that the bound is known before a byte too much is written.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::VaultError;

/// What is stored and what is being written.
#[derive(Debug)]
pub(crate) struct Tally {
    limit: Option<u64>,
    sums: Mutex<Sums>,
}

#[derive(Debug, Default)]
struct Sums {
    stored: u64,
    reserved: u64,
    /// What was added since a count began, which may or may not have been counted.
    added: u64,
}

impl Tally {
    pub(crate) fn new(limit: Option<u64>) -> Arc<Self> {
        Arc::new(Self { limit, sums: Mutex::default() })
    }

    /// A count of what is stored begins.
    pub(crate) fn begin_count(&self) {
        self.sums().added = 0;
    }

    /// A count has ended. What was added meanwhile counts twice rather than not at all.
    pub(crate) fn counted(&self, bytes: u64) {
        let mut sums = self.sums();
        sums.stored = bytes.saturating_add(sums.added);
    }

    /// How full it is, in percent of the bound, if there is one.
    pub(crate) fn percent(&self) -> Option<u64> {
        let stored = self.sums().stored;
        self.limit.map(|limit| stored.saturating_mul(100) / limit.max(1))
    }

    pub(crate) fn removed(&self, bytes: u64) {
        let mut sums = self.sums();
        sums.stored = sums.stored.saturating_sub(bytes);
    }

    pub(crate) fn reserve(self: &Arc<Self>) -> Reservation {
        Reservation { tally: self.clone(), bytes: 0 }
    }

    // The sums are right whenever the lock is free: no holder can panic between two of them.
    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room for an object that is being written. Dropped, the room is free again.
#[derive(Debug)]
pub(crate) struct Reservation {
    tally: Arc<Tally>,
    bytes: u64,
}

impl Reservation {
    /// Takes more room, if there is.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), VaultError> {
        let mut sums = self.tally.sums();
        let wanted = sums.stored.saturating_add(sums.reserved).saturating_add(bytes);
        if let Some(limit) = self.tally.limit.filter(|limit| wanted > *limit) {
            return Err(VaultError::Full { limit });
        }
        sums.reserved += bytes;
        self.bytes += bytes;
        Ok(())
    }

    /// The object is stored, in place of one of `replaced` bytes.
    pub(crate) fn settle(self, replaced: u64) {
        let mut sums = self.tally.sums();
        sums.stored = sums.stored.saturating_sub(replaced).saturating_add(self.bytes);
        sums.added = sums.added.saturating_add(self.bytes);
        // `reserved` goes down in `drop`.
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut sums = self.tally.sums();
        sums.reserved = sums.reserved.saturating_sub(self.bytes);
    }
}
