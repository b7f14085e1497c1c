//! Classes: what an operation does, as the catalog spells it (`destroy lasting`).

use std::{collections::BTreeSet, fmt, str::FromStr};

use reprieve_operation::{Hazard, Kind};
use serde::Deserialize;

/// A kind of effect, and what makes it more than that.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Class {
    /// What it does.
    pub kind: Kind,
    /// What makes it more.
    pub hazards: BTreeSet<Hazard>,
}

impl Class {
    /// A kind and nothing more.
    #[must_use]
    pub fn plain(kind: Kind) -> Self {
        Self { kind, hazards: BTreeSet::new() }
    }

    /// The worse of both in every respect.
    pub fn raise(&mut self, other: &Self) {
        self.kind = self.kind.max(other.kind);
        self.hazards.extend(other.hazards.iter().copied());
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        self.hazards.iter().try_for_each(|hazard| write!(f, " {}", hazard.as_str()))
    }
}

/// Not a class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a class: one of read, write, destroy, grant, unknown, then any of lasting, secret, code, unprotects, every")]
pub struct UnknownClass(String);

impl FromStr for Class {
    type Err = UnknownClass;
    fn from_str(text: &str) -> Result<Self, UnknownClass> {
        let unknown = || UnknownClass(text.to_owned());
        let mut words = text.split_whitespace();
        let kind = words.next().ok_or_else(unknown)?;
        let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind && *known != Kind::Escape).ok_or_else(unknown)?;
        let hazards = words.map(|word| Hazard::ALL.into_iter().find(|known| known.as_str() == word).ok_or_else(unknown));
        Ok(Self { kind, hazards: hazards.collect::<Result<_, _>>()? })
    }
}

impl TryFrom<String> for Class {
    type Error = UnknownClass;
    fn try_from(text: String) -> Result<Self, UnknownClass> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_read_as_they_are_shown() {
        for text in ["read", "read secret", "destroy lasting every", "grant", "unknown"] {
            assert_eq!(text.parse::<Class>().map(|class| class.to_string()).as_deref(), Ok(text));
        }
        for text in ["", "delete", "read often", "escape"] {
            assert!(text.parse::<Class>().is_err(), "{text}");
        }
    }
}
