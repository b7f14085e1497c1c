//! Scopes: which operations a token covers, where, and on what.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Environment, Kind, SystemName};

/// A resource pattern such as `public.reservations`, `public.*` or `*`. `*` stands for any run of characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

impl Pattern {
    /// Whether `resource` matches.
    #[must_use]
    pub fn covers(&self, resource: &str) -> bool {
        matches(self.0.as_bytes(), resource.as_bytes())
    }

    /// Whether everything that `narrower` covers is covered here. Says no when it can't tell.
    #[must_use]
    pub fn includes(&self, narrower: &Self) -> bool {
        self == narrower || self.0 == "*" || (!narrower.0.contains('*') && self.covers(&narrower.0)) || {
            // `public.*` includes `public.a*`: one trailing star each, and the longer head starts with the shorter.
            match (self.0.strip_suffix('*'), narrower.0.strip_suffix('*')) {
                (Some(mine), Some(theirs)) => !mine.contains('*') && !theirs.contains('*') && theirs.starts_with(mine),
                _ => false,
            }
        }
    }
}

/// Glob matching with one wildcard, in time linear in the product of both lengths at worst.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star, mut mark) = (0, 0, None, 0);
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some(p);
            mark = t;
            p += 1;
        } else if p < pattern.len() && pattern[p] == text[t] {
            p += 1;
            t += 1;
        } else if let Some(position) = star {
            p = position + 1;
            mark += 1;
            t = mark;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

impl FromStr for Pattern {
    type Err = ScopeError;
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let fits = !text.is_empty() && text.len() <= 200 && !text.chars().any(char::is_control) && text.matches('*').count() <= 8;
        if fits { Ok(Self(text.to_owned())) } else { Err(ScopeError::Pattern(text.to_owned())) }
    }
}

impl TryFrom<String> for Pattern {
    type Error = ScopeError;
    fn try_from(text: String) -> Result<Self, ScopeError> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a scope can't be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ScopeError {
    /// Not a pattern.
    #[error("`{0}` is not a resource pattern: up to 200 characters with at most eight `*`")]
    Pattern(String),
    /// A child asks for more than its parent has.
    #[error("a token can only be narrowed: {0} is not in its parent's scope")]
    Wider(String),
}

/// What a token covers: kinds of operation × environments × systems × resources, and rows an hour.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// Kinds of effect. `Escape` and `Unknown` are never granted by a token: the policy alone decides on them.
    pub kinds: BTreeSet<Kind>,
    /// Environments the systems must be in.
    pub environments: BTreeSet<Environment>,
    /// Systems.
    pub systems: BTreeSet<SystemName>,
    /// Resources in those systems, `*` for all.
    pub resources: BTreeSet<Pattern>,
    /// Rows the agent may change an hour, over and above the environment's own budget; `None` for no own limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_per_hour: Option<u64>,
}

impl Scope {
    /// Whether an effect of `kind` on `resource` (`None`: on the system as a whole) is covered.
    #[must_use]
    pub fn covers(&self, kind: Kind, environment: &Environment, system: &SystemName, resource: Option<&str>) -> bool {
        let kind_is_in = match kind {
            Kind::Read | Kind::Write | Kind::Destroy | Kind::Grant => self.kinds.contains(&kind),
            Kind::Escape | Kind::Unknown => true,
        };
        kind_is_in
            && self.environments.contains(environment)
            && self.systems.contains(system)
            && resource.is_none_or(|resource| self.resources.iter().any(|pattern| pattern.covers(resource)))
    }

    /// This scope narrowed to `child`, if `child` asks for nothing more.
    pub fn narrow(&self, child: Self) -> Result<Self, ScopeError> {
        let wider = |what: String| Err(ScopeError::Wider(what));
        if let Some(kind) = child.kinds.iter().find(|kind| !self.kinds.contains(kind)) {
            return wider(format!("`{kind}`"));
        }
        if let Some(environment) = child.environments.iter().find(|environment| !self.environments.contains(environment)) {
            return wider(format!("`{environment}`"));
        }
        if let Some(system) = child.systems.iter().find(|system| !self.systems.contains(system)) {
            return wider(format!("`{system}`"));
        }
        if let Some(pattern) = child.resources.iter().find(|pattern| !self.resources.iter().any(|mine| mine.includes(pattern))) {
            return wider(format!("`{pattern}`"));
        }
        match (self.rows_per_hour, child.rows_per_hour) {
            (Some(_), None) => wider("an unlimited number of rows an hour".to_owned()),
            (Some(mine), Some(theirs)) if theirs > mine => wider(format!("{theirs} rows an hour")),
            _ => Ok(child),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().expect("a pattern of the test")
    }

    #[test]
    fn patterns() {
        for (text, resource, expected) in [
            ("*", "public.a", true),
            ("public.*", "public.a", true),
            ("public.*", "publicx.a", false),
            ("*.a", "public.a", true),
            ("*.a", "public.ab", false),
            ("p*b*c", "pxxbyyc", true),
            ("", "", false),
        ] {
            assert_eq!(text.parse::<Pattern>().is_ok_and(|pattern| pattern.covers(resource)), expected, "{text} {resource}");
        }
        assert!(pattern("public.*").includes(&pattern("public.a*")));
        assert!(!pattern("public.a*").includes(&pattern("public.*")));
        assert!(!pattern("*.a").includes(&pattern("*")));
    }

    #[test]
    fn a_child_is_never_wider() {
        let scope = |kinds: &[Kind], resources: &str, rows| Scope {
            kinds: kinds.iter().copied().collect(),
            environments: [Environment::production()].into(),
            systems: ["pocket".parse().expect("a name")].into(),
            resources: [pattern(resources)].into(),
            rows_per_hour: rows,
        };
        let parent = scope(&[Kind::Read, Kind::Write], "public.*", Some(100));
        assert!(parent.narrow(scope(&[Kind::Read], "public.a", Some(100))).is_ok());
        assert!(parent.narrow(scope(&[Kind::Destroy], "public.a", Some(1))).is_err());
        assert!(parent.narrow(scope(&[Kind::Read], "*", Some(1))).is_err());
        assert!(parent.narrow(scope(&[Kind::Read], "public.a", None)).is_err());
    }
}
