//! What a store keeps: rows, heads and snapshots, and the query that finds rows.

use reprieve_ledger::Hash;

/// One event as it is stored. All but `body` and `leaf_hash` is there to be searched by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its place, from 0 without gaps.
    pub index: u64,
    /// When it was appended, in milliseconds since the Unix epoch. Never less than in the row before.
    pub at_ms: u64,
    /// What sort of event.
    pub kind: String,
    /// The agent it is about.
    pub agent: Option<String>,
    /// The hold it is about.
    pub hold: Option<u64>,
    /// A key that occurs once in a ledger.
    pub unique_key: Option<String>,
    /// The event, the bytes that are hashed.
    pub body: Vec<u8>,
    /// The hash of `body` as a leaf.
    pub leaf_hash: Hash,
}

/// Where the ledger ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// How many rows there are.
    pub size: u64,
    /// The signed checkpoint of that size.
    pub checkpoint: String,
    /// The frontier of that size, so that appending needs no other row.
    pub frontier: Vec<u8>,
}

/// Rows that follow the last one, and the head after them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The rows, in order.
    pub rows: Vec<Row>,
    /// The head with them.
    pub head: Head,
}

/// What became of one row that was to be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// It has this index.
    At(u64),
    /// Its uniqueness key is taken: it was left out.
    KeyTaken,
}

/// Everything up to a size folded into bytes, so that a start need not read it all. Derived: may be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// How many rows are folded.
    pub size: u64,
    /// The signed note that vouches for `body`.
    pub note: String,
    /// What they fold to.
    pub body: Vec<u8>,
}

/// Which rows to find: those for which everything given holds, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Of this kind.
    pub kind: Option<String>,
    /// About this agent.
    pub agent: Option<String>,
    /// About this hold.
    pub hold: Option<u64>,
    /// Appended at this time or later, in milliseconds since the Unix epoch.
    pub from_ms: Option<u64>,
    /// Appended before this time.
    pub until_ms: Option<u64>,
    /// With this text in the body, case and all.
    pub text: Option<String>,
    /// At this index or later.
    pub since: Option<u64>,
    /// Before this index: where the last page ended.
    pub before: Option<u64>,
    /// At most so many; a store answers at most [`Query::LIMIT_MAX`].
    pub limit: usize,
}

impl Query {
    /// No search answers more rows than these at once.
    pub const LIMIT_MAX: usize = 1_000;
}
