//! The built-in functions that are known to be harmless; how the list was made is told at its head.

use std::{collections::HashSet, sync::LazyLock};

static HARMLESS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| names().collect());

/// Whether every function `name` that PostgreSQL brings along only looks.
pub(crate) fn is_harmless(name: &str) -> bool {
    HARMLESS.contains(name)
}

fn names() -> impl Iterator<Item = &'static str> {
    include_str!("harmless.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hazards::function_hazard;

    #[test]
    fn the_list_is_sorted_and_names_nothing_hazardous() {
        let names: Vec<_> = names().collect();
        assert!(names.len() > 1000);
        for pair in names.windows(2) {
            assert!(pair[0] < pair[1], "{} before {}", pair[0], pair[1]);
        }
        for name in names {
            assert_eq!(function_hazard(None, name), None, "{name}");
        }
    }
}
