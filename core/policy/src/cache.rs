//! The decision cache: what was decided under the same inputs is not asked again.
//!
//! Only what rules can look at makes up the key, so that two statements that differ in their literals share an entry. The
//! key is two keyed 64-bit hashes with secrets of this process: an agent can't construct two inputs that share one.

use std::{
    hash::{BuildHasher as _, Hash as _, Hasher, RandomState},
    num::NonZeroUsize,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lru::LruCache;
use reprieve_operation::{Decision, Facts, Operation};

use crate::{circumstances::Circumstances, decide::decide, policy::Policy};

/// Locks that share the entries, so that sessions seldom meet at one.
const SHARDS: usize = 16;

/// A reach of more tables than this is decided each time: such an entry would be large.
const TABLES: usize = 64;

/// The same bound for effects.
const EFFECTS: usize = 256;

type Key = (u64, u64);

/// Decisions by their inputs, a bounded number of them.
pub struct DecisionCache {
    secrets: (RandomState, RandomState),
    shards: Vec<Mutex<LruCache<Key, Decision>>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl DecisionCache {
    /// A cache of about `entries` decisions.
    #[must_use]
    pub fn new(entries: NonZeroUsize) -> Self {
        let each = NonZeroUsize::new(entries.get().div_ceil(SHARDS)).unwrap_or(NonZeroUsize::MIN);
        Self {
            secrets: (RandomState::new(), RandomState::new()),
            shards: (0..SHARDS).map(|_| Mutex::new(LruCache::new(each))).collect(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// The same answer as [`decide`], from memory where it can be.
    pub fn decide(&self, policy: &Policy, operation: &Operation, facts: &Facts) -> Decision {
        let is_large = operation.effects.len() > EFFECTS
            || operation.reach.as_ref().is_some_and(|reach| reach.tables.len() + reach.dropped.len() + reach.rewritten.len() > TABLES);
        let key = self.key(policy, operation, facts);
        let Some(shard) = self.shards.get(key.0 as usize % SHARDS).filter(|_| !is_large) else {
            return decide(policy, operation, facts);
        };
        // A decision is put in whole or not at all, so a poisoned lock protects nothing broken.
        if let Some(decision) = shard.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return decision.clone();
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let decision = decide(policy, operation, facts);
        shard.lock().unwrap_or_else(PoisonError::into_inner).put(key, decision.clone());
        decision
    }

    /// How many decisions came from memory, and how many did not.
    #[must_use]
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    fn key(&self, policy: &Policy, operation: &Operation, facts: &Facts) -> Key {
        let mut twin = Twin(self.secrets.0.build_hasher(), self.secrets.1.build_hasher());
        hash_inputs(policy, operation, facts, &mut twin);
        (twin.0.finish(), twin.1.finish())
    }
}

/// Two hashers fed alike.
struct Twin<H>(H, H);

impl<H: Hasher> Hasher for Twin<H> {
    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
        self.1.write(bytes);
    }
    fn finish(&self) -> u64 {
        self.0.finish()
    }
}

/// Everything that a decision depends on. The text, the session and the token are left out: no rule sees them.
fn hash_inputs(policy: &Policy, operation: &Operation, facts: &Facts, hash: &mut impl Hasher) {
    policy.digest().hash(hash);
    operation.principal.agent.hash(hash);
    operation.principal.scope.hash(hash);
    operation.system.hash(hash);
    operation.environment.hash(hash);
    operation.action.hash(hash);
    operation.effects.hash(hash);
    operation.rows_apart.hash(hash);
    match &operation.reach {
        None => hash.write_u8(0),
        Some(reach) => {
            hash.write_u8(1);
            hash.write_usize(reach.tables.len());
            for (name, rows) in &reach.tables {
                (name, rows.inserted, rows.updated, rows.deleted).hash(hash);
            }
            (&reach.dropped, &reach.rewritten, &reach.catalogs, &reach.escapes, reach.estimated).hash(hash);
        }
    }
    let Facts { now, frozen, approvals, delayed, window, undoable, budget, rows_this_hour, recovery } = facts;
    recovery.unproven.hash(hash);
    (frozen, approvals, delayed.as_secs(), window.as_secs(), undoable, budget).hash(hash);
    let mut mentions = policy.enforced.mentions;
    if let Some(shadow) = &policy.shadow {
        mentions.merge(shadow.mentions);
    }
    if mentions.has("hour_utc") || mentions.has("weekday") {
        hash.write_u64(now.0 / 3_600_000);
    }
    if ["backup_age_s", "drill_age_s", "same_blast_radius", "rpo_s", "rto_s"].into_iter().any(|name| mentions.has(name)) {
        let seconds = |span: Option<Duration>| span.map(|span| span.as_secs());
        let ages = (seconds(recovery.backup_age), seconds(recovery.drill_age));
        (ages, recovery.same_blast_radius, seconds(recovery.rpo), seconds(recovery.rto)).hash(hash);
    }
    if mentions.has("rows_hour") {
        hash.write_u64(*rows_this_hour);
    } else {
        // Rules only see whether the hour's budget is spent, and the terms how much of it is left below the other budgets.
        let circumstances = Circumstances::new(operation, facts, None);
        (circumstances.over_hour(), circumstances.rows_left()).hash(hash);
    }
}
