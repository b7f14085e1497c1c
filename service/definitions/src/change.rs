//! Changes: what differs between two snapshots, named.

use std::collections::{HashMap, HashSet};

use crate::dump::{Definitions, Entry};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The object's kind, as `pg_dump` says it.
    pub kind: String,
    /// Its schema.
    pub schema: Option<String>,
    /// Its name.
    pub name: String,
    /// What happened to it.
    pub what: What,
}

/// What happened to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It is new.
    Created,
    /// It is gone.
    Dropped,
    /// It was made anew under its old name.
    Replaced,
    /// It has another name or schema; this is the one it had.
    Renamed {
        /// The schema it was in.
        schema: Option<String>,
        /// The name it had.
        name: String,
    },
    /// It is defined otherwise.
    Altered,
}

impl Change {
    /// Everything that differs, in the order of the second snapshot; what is gone comes last.
    #[must_use]
    pub fn between(before: &Definitions, after: &Definitions) -> Vec<Change> {
        let identities: HashMap<(u32, u32), &Entry> = before.entries.iter().filter_map(|entry| Some((entry.identity?, entry))).collect();
        let mut changes = Vec::new();
        let mut renamed = HashSet::new();
        for entry in &after.entries {
            let old = entry.identity.and_then(|identity| identities.get(&identity));
            let what = match (before.find(&entry.key), old) {
                (Some(same), _) if same.kind == "TABLE" && same.identity != entry.identity => What::Replaced,
                (Some(same), _) if same.is_same(entry, true) && before.replaced_columns(same, after).is_empty() => continue,
                (Some(_), _) => What::Altered,
                (None, Some(old)) => {
                    renamed.insert(old.key.clone());
                    What::Renamed { schema: old.schema.clone(), name: old.tag.clone() }
                }
                (None, None) => What::Created,
            };
            changes.push(Change { kind: entry.kind.clone(), schema: entry.schema.clone(), name: entry.tag.clone(), what });
        }
        let gone = before.entries.iter().filter(|entry| after.find(&entry.key).is_none() && !renamed.contains(&entry.key));
        changes.extend(gone.map(|entry| Change {
            kind: entry.kind.clone(),
            schema: entry.schema.clone(),
            name: entry.tag.clone(),
            what: What::Dropped,
        }));
        changes
    }
}
