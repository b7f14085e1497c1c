//! Golden files: what the program says and decides, kept as text so that a review sees it change.
//!
//! A crate has them when it has a folder `golden` or `tests/golden`. Its tests compare; with `UPDATE_GOLDEN=1`
//! in their environment they write instead.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::packages::{self, Package};

/// Runs the tests of every crate with golden files, told to write them.
pub(crate) fn run() -> Result<ExitCode> {
    let root = packages::root()?;
    let all = packages::read()?;
    let keepers = keepers(&all, &|folder| root.join(folder).is_dir());
    if keepers.is_empty() {
        println!("no crate has a folder `golden` or `tests/golden` yet: nothing to write");
        return Ok(ExitCode::SUCCESS);
    }
    let mut command = packages::cargo();
    command.current_dir(&root).arg("test").env("UPDATE_GOLDEN", "1");
    for name in &keepers {
        command.args(["-p", name]);
    }
    let status = command.status().context("cannot run `cargo test`")?;
    if !status.success() {
        return Ok(ExitCode::FAILURE);
    }
    println!("wrote the golden files of {}; see `git diff`", keepers.join(", "));
    Ok(ExitCode::SUCCESS)
}

fn keepers<'a>(packages: &'a [Package], is_folder: &dyn Fn(&Path) -> bool) -> Vec<&'a str> {
    let has = |package: &Package| {
        let folder = Path::new(&package.folder);
        is_folder(&folder.join("golden")) || is_folder(&folder.join("tests/golden"))
    };
    packages.iter().filter(|package| has(package)).map(|package| package.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::keepers;
    use crate::packages::Package;

    #[test]
    fn crates_with_a_golden_folder_are_found() {
        let package = |name: &str, folder: &str| Package { name: name.into(), folder: folder.into(), needs: Vec::new() };
        let packages = [package("tests", "tests"), package("sql", "effects/sql"), package("gate", "gate")];
        let exists = |path: &Path| [Path::new("tests/golden"), Path::new("effects/sql/tests/golden")].contains(&path);
        assert_eq!(keepers(&packages, &exists), ["tests", "sql"]);
        assert!(keepers(&packages, &|_| false).is_empty());
    }
}
