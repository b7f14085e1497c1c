//! Roles: what an operator may do.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What an operator may do, each with all that those before may. Whoever was added before there were roles may do everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks, and stops: freezing is everybody's.
    Viewer,
    /// Answers holds, takes changes back, thaws, and takes rights away from agents.
    Approver,
    /// Makes tokens, and decides who is an operator.
    #[default]
    Administrator,
}

impl Role {
    /// Every role, the smallest first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Approver, Self::Administrator];

    /// The role in one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Approver => "approver",
            Self::Administrator => "administrator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|role| role.as_str() == text);
        known.ok_or_else(|| format!("`{}` is no role: viewer, approver or administrator", text.chars().take(40).collect::<String>()))
    }
}
