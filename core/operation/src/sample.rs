//! Samples: a few of the rows that a held change would take away or alter, masked, for whoever decides.

use serde::{Deserialize, Serialize};

/// Some rows of one table, as the measuring run met them. Bounded in number and size; values are masked before they get here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Which table: `schema.name`.
    pub table: String,
    /// How many rows of it the change concerns.
    pub of: u64,
    /// Its columns, in order; those beyond the first few are left out.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<SampleRow>,
}

/// One row of a sample, with a value for each column; `None` is NULL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleRow {
    /// As it was.
    pub before: Vec<Option<String>>,
    /// As it would be; nothing where it would be gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Vec<Option<String>>>,
}
