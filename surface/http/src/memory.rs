//! Reads that were understood before: the same bytes mean the same, so they are not taken apart again.
//!
//! Only what changes nothing is remembered, and only as the whole request that it was: another header, and it is another request.
//! What is decided about it is decided each time.

use std::{
    hash::{BuildHasher as _, RandomState},
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use lru::LruCache;
use reprieve_operation::SystemName;

use crate::{asked::Asked, system::System, understand::Understood};

/// Requests that are remembered, and bytes of a body that are.
const REQUESTS: NonZeroUsize = NonZeroUsize::new(128).expect("not zero");
const LARGEST: usize = 16 * 1024;

/// What reads were understood to be.
pub(crate) struct Memory {
    secret: RandomState,
    known: Mutex<LruCache<u64, Known>>,
}

struct Known {
    system: SystemName,
    asked: Asked,
    understood: Arc<Understood>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self { secret: RandomState::new(), known: Mutex::new(LruCache::new(REQUESTS)) }
    }

    /// What exactly this request was understood to be.
    pub(crate) fn recall(&self, system: &System, asked: &Asked) -> Option<Arc<Understood>> {
        let place = self.place(system, asked)?;
        // What is put in is whole, so a poisoned lock protects nothing broken.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // The place only finds a candidate; that it is the same is looked at byte by byte.
        let found = known.get(&place).filter(|known| known.system == system.name && known.asked == *asked)?;
        Some(found.understood.clone())
    }

    /// Remembers a read.
    pub(crate) fn remember(&self, system: &System, asked: Asked, understood: &Arc<Understood>) {
        let Some(place) = self.place(system, &asked) else { return };
        let known = Known { system: system.name.clone(), asked, understood: understood.clone() };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).put(place, known);
    }

    fn place(&self, system: &System, asked: &Asked) -> Option<u64> {
        if asked.body.len() > LARGEST || asked.file.is_some() || asked.upgrade.is_some() {
            return None;
        }
        Some(self.secret.hash_one((&system.name, &asked.method, &asked.place, &asked.target, &asked.body)))
    }
}
