//! Profiles: the built-in rules, one set to choose.

use std::{fmt, str::FromStr};

/// Which built-in rules are in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Profile {
    /// Nothing is held. What `guard` and the user's policies would have answered is recorded.
    Observe,
    /// Changes above the budget, grants, drops and escapes ask people.
    #[default]
    Guard,
    /// Reads only.
    Lockdown,
}

impl Profile {
    /// Every profile, laxest first.
    pub const ALL: [Self; 3] = [Self::Observe, Self::Guard, Self::Lockdown];

    /// The profile in one word, as settings spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Guard => "guard",
            Self::Lockdown => "lockdown",
        }
    }

    /// The built-in rules by file name, first rank first.
    pub(crate) fn texts(self) -> [(&'static str, &'static str); 2] {
        let always = ("always.cedar", include_str!("profiles/always.cedar"));
        match self {
            Self::Observe => [always, ("observe.cedar", include_str!("profiles/observe.cedar"))],
            Self::Guard => [always, ("guard.cedar", include_str!("profiles/guard.cedar"))],
            Self::Lockdown => [always, ("lockdown.cedar", include_str!("profiles/lockdown.cedar"))],
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is not a profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a profile: use `observe`, `guard` or `lockdown`")]
pub struct UnknownProfile(String);

impl FromStr for Profile {
    type Err = UnknownProfile;
    fn from_str(text: &str) -> Result<Self, UnknownProfile> {
        Self::ALL.into_iter().find(|profile| profile.as_str() == text).ok_or_else(|| UnknownProfile(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_comes_back_from_its_text() {
        for profile in Profile::ALL {
            assert_eq!(profile.to_string().parse(), Ok(profile));
        }
        assert!("Guard".parse::<Profile>().is_err());
        assert!("".parse::<Profile>().is_err());
    }
}
