//! Reach: the measured blast radius of a change.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// Rows one table gained, changed and lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableReach {
    /// Rows added.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inserted: u64,
    /// Rows changed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub updated: u64,
    /// Rows removed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deleted: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's `skip_serializing_if` hands a reference")]
fn is_zero(rows: &u64) -> bool {
    *rows == 0
}

impl TableReach {
    /// All rows touched.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.inserted.saturating_add(self.updated).saturating_add(self.deleted)
    }

    /// Both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            inserted: self.inserted.saturating_add(other.inserted),
            updated: self.updated.saturating_add(other.updated),
            deleted: self.deleted.saturating_add(other.deleted),
        }
    }

    /// What there is beyond the other.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            inserted: self.inserted.saturating_sub(other.inserted),
            updated: self.updated.saturating_sub(other.updated),
            deleted: self.deleted.saturating_sub(other.deleted),
        }
    }
}

/// What a resource of a service turned out to be, by the gateway's own look at it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Which: `type/id`.
    pub resource: String,
    /// Its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its environment in the provider's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// How large it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// What hangs on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attached: Vec<String>,
    /// Its backups at the provider.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backups: Vec<String>,
    /// What it belongs to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<String>,
    /// What protects it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<String>,
    /// Why nothing is known of it, where that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unresolved: Option<String>,
}

impl Found {
    /// Whether an approval of `approved` is one of this: the size alone may have changed, and backups may have come.
    #[must_use]
    pub fn is_same(&self, approved: &Self) -> bool {
        let without = |found: &Self| Self { size: None, backups: Vec::new(), ..found.clone() };
        without(self) == without(approved) && approved.backups.iter().all(|backup| self.backups.contains(backup))
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(reason) = &self.unresolved {
            return write!(f, "{} could not be resolved ({reason}) and counts as production", self.resource);
        }
        let kind = self.resource.split('/').next().unwrap_or_default();
        match &self.name {
            Some(name) => write!(f, "{kind} `{name}`")?,
            None => f.write_str(&self.resource)?,
        }
        let mut facts: Vec<String> = Vec::new();
        facts.extend(self.environment.iter().map(|environment| format!("in {environment}")));
        facts.extend(self.size.clone());
        let list = |what: &str, names: &[String]| (!names.is_empty()).then(|| format!("{what} {}", names.join(", ")));
        facts.extend(list("attached to", &self.attached));
        facts.extend(list("of", &self.parents));
        facts.extend(list("its backups at the provider:", &self.backups));
        facts.extend(self.protection.iter().map(|protection| format!("protected: {protection}")));
        if facts.is_empty() { Ok(()) } else { write!(f, " ({})", facts.join("; ")) }
    }
}

/// What a change reached, table by table. Tables and objects are spelled `schema.name`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Rows by table, cascades and triggers included.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tables: BTreeMap<String, TableReach>,
    /// Relations that are gone afterwards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
    /// Relations whose contents are replaced as a whole (`TRUNCATE`, a changed column type).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewritten: Vec<String>,
    /// Rows written to system catalogs, by catalog: definitions, privileges, roles.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub catalogs: BTreeMap<String, u64>,
    /// What would happen outside the measurement, e.g. a cursor that runs inside COMMIT.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub escapes: Vec<String>,
    /// What of this can't be brought back, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lasting: Vec<String>,
    /// What the resources of a service turned out to be that a call names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<Found>,
    /// Whether these are the planner's or the catalogue's numbers, because the change was not run to find out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
}

impl Reach {
    /// All rows touched in tables.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.values().fold(0, |sum, table| sum.saturating_add(table.rows()))
    }

    /// Rows removed from tables.
    #[must_use]
    pub fn deleted(&self) -> u64 {
        self.tables.values().fold(0, |sum, table| sum.saturating_add(table.deleted))
    }

    /// Whether definitions, privileges or roles changed.
    #[must_use]
    pub fn touches_catalogs(&self) -> bool {
        self.catalogs.values().any(|rows| *rows > 0)
    }

    /// Whether nothing at all was reached.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
            && self.dropped.is_empty()
            && self.rewritten.is_empty()
            && !self.touches_catalogs()
            && self.escapes.is_empty()
            && self.found.is_empty()
    }

    /// Whether everything here is also in `approved`: no new table, no larger number, nothing new dropped.
    ///
    /// A `TRUNCATE` or `DROP` hides row counters, so these must be in `approved` by name. Catalog rows are compared by
    /// catalog, unless the approval was given on an estimate of named objects: catalog rows can't be estimated.
    #[must_use]
    pub fn is_within(&self, approved: &Self) -> bool {
        let beyond = self.beyond(approved);
        // An estimate names what stays, and can't list every reason why.
        let names_nothing = |reason: &String| approved.estimated && !approved.lasting.is_empty() && !reason.contains('`');
        beyond.is_empty() && beyond.lasting.iter().all(names_nothing)
    }

    /// Whether there is a way back from all of it.
    #[must_use]
    pub fn is_undoable(&self) -> bool {
        !self.estimated && self.lasting.is_empty()
    }
}

impl Reach {
    /// What of this is not in `approved`.
    fn beyond(&self, approved: &Self) -> Self {
        let without = |mine: &[String], theirs: &[String]| mine.iter().filter(|name| !theirs.contains(name)).cloned().collect();
        let less = |rows: &TableReach, limit: TableReach| TableReach {
            inserted: rows.inserted.saturating_sub(limit.inserted),
            updated: rows.updated.saturating_sub(limit.updated),
            deleted: rows.deleted.saturating_sub(limit.deleted),
        };
        let tables =
            self.tables.iter().map(|(name, rows)| (name.clone(), less(rows, approved.tables.get(name).copied().unwrap_or_default())));
        let named_estimate = approved.estimated && !(approved.dropped.is_empty() && approved.rewritten.is_empty());
        let catalogs = self.catalogs.iter().filter(|_| !named_estimate);
        let catalogs = catalogs.map(|(name, rows)| (name.clone(), rows.saturating_sub(approved.catalogs.get(name).copied().unwrap_or(0))));
        Self {
            tables: tables.filter(|(_, rows)| rows.rows() > 0).collect(),
            dropped: without(&self.dropped, &approved.dropped),
            rewritten: without(&self.rewritten, &approved.rewritten),
            catalogs: catalogs.filter(|(_, rows)| *rows > 0).collect(),
            escapes: without(&self.escapes, &approved.escapes),
            lasting: without(&self.lasting, &approved.lasting),
            found: self.found.iter().filter(|found| !approved.found.iter().any(|other| found.is_same(other))).cloned().collect(),
            estimated: self.estimated,
        }
    }

    /// What an approval of `approved` leaves to be decided on. Where that is only that there is no way back, it is all of it.
    #[must_use]
    pub fn undecided(&self, approved: &Self) -> Self {
        if self.is_within(approved) {
            return Self::default();
        }
        let beyond = self.beyond(approved);
        if beyond.is_empty() { self.clone() } else { beyond }
    }

    /// Adds `other`, as when one transaction does both.
    pub fn add(&mut self, other: &Self) {
        for (name, rows) in &other.tables {
            let sum = self.tables.entry(name.clone()).or_default();
            sum.inserted = sum.inserted.saturating_add(rows.inserted);
            sum.updated = sum.updated.saturating_add(rows.updated);
            sum.deleted = sum.deleted.saturating_add(rows.deleted);
        }
        for (name, rows) in &other.catalogs {
            let sum = self.catalogs.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*rows);
        }
        self.dropped.extend_from_slice(&other.dropped);
        self.rewritten.extend_from_slice(&other.rewritten);
        self.escapes.extend_from_slice(&other.escapes);
        self.found.extend_from_slice(&other.found);
        self.lasting.extend(other.lasting.iter().filter(|lasting| !self.lasting.contains(lasting)).cloned().collect::<Vec<_>>());
        self.estimated |= other.estimated;
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = Vec::new();
        parts.extend(self.dropped.iter().map(|name| format!("drops {name}")));
        parts.extend(self.rewritten.iter().map(|name| format!("rewrites {name}")));
        for (name, rows) in &self.tables {
            for (verb, count) in [("deletes", rows.deleted), ("updates", rows.updated), ("inserts", rows.inserted)] {
                if count > 0 {
                    parts.push(format!("{verb} {count} in {name}"));
                }
            }
        }
        let catalogs = self.catalogs.values().fold(0, |sum: u64, rows| sum.saturating_add(*rows));
        if catalogs > 0 && self.dropped.is_empty() && self.rewritten.is_empty() {
            let names: Vec<&str> = self.catalogs.keys().map(String::as_str).collect();
            parts.push(format!("changes definitions or privileges ({catalogs} rows of {})", names.join(", ")));
        }
        parts.extend(self.escapes.iter().cloned());
        parts.extend(self.found.iter().map(ToString::to_string));
        parts.extend(self.lasting.iter().map(|lasting| format!("can't be undone: {lasting}")));
        if parts.is_empty() {
            parts.push("reaches nothing".to_owned());
        }
        write!(f, "{}{}", if self.estimated { "about: " } else { "" }, parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deletes(rows: &[(&str, u64)]) -> Reach {
        let tables =
            rows.iter().map(|(name, deleted)| ((*name).to_owned(), TableReach { deleted: *deleted, ..TableReach::default() })).collect();
        Reach { tables, ..Reach::default() }
    }

    #[test]
    fn within_compares_table_by_table() {
        let approved = deletes(&[("public.a", 10), ("public.b", 5)]);
        assert!(deletes(&[("public.a", 10)]).is_within(&approved));
        assert!(!deletes(&[("public.a", 11)]).is_within(&approved));
        assert!(!deletes(&[("public.c", 1)]).is_within(&approved));
        let dropped = Reach { dropped: vec!["public.a".into()], ..Reach::default() };
        assert!(!dropped.is_within(&approved));
        assert!(dropped.is_within(&dropped));
    }
    #[test]
    fn what_stays_is_approved_by_name_and_then_whatever_the_reason() {
        let lasting = |reasons: &[&str]| Reach {
            dropped: vec!["public.a".into()],
            lasting: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
            ..Reach::default()
        };
        let estimate = |reasons: &[&str]| Reach { estimated: true, ..lasting(reasons) };
        let measured = lasting(&["`public.a` is dropped", "rules are changed"]);
        assert!(measured.is_within(&estimate(&["`public.a` is dropped"])));
        assert!(!measured.is_within(&lasting(&["`public.a` is dropped"])));
        for told in [estimate(&[]), estimate(&["`public.b` is rewritten"])] {
            assert!(!measured.is_within(&told));
            assert_eq!(measured.undecided(&told), measured);
        }
    }
}
