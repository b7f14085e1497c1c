//! Packages: the workspace's crates as `cargo metadata` tells them.

use std::collections::HashMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// One crate of the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Its folder, relative to the workspace: `service/audit`.
    pub(crate) folder: String,
    /// Folders of the workspace's crates that it is built with; tests' own needs left out.
    pub(crate) needs: Vec<String>,
}

/// The workspace's root folder.
pub(crate) fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.parent().context("xtask has no parent folder")?.to_owned())
}

/// Cargo, the one that runs us.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Reads the workspace.
pub(crate) fn read() -> Result<Vec<Package>> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root()?)
        .output()
        .context("cannot run `cargo metadata`")?;
    ensure!(output.status.success(), "`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr));
    packages_in(&serde_json::from_slice(&output.stdout).context("`cargo metadata` printed no JSON")?)
}

fn packages_in(metadata: &Value) -> Result<Vec<Package>> {
    let root = PathBuf::from(text(metadata, "workspace_root")?);
    let listed = metadata["packages"].as_array().context("no `packages`")?;
    let mut folders = HashMap::new();
    for package in listed {
        let manifest = PathBuf::from(text(package, "manifest_path")?);
        let folder = manifest.parent().context("a manifest without a folder")?.to_owned();
        let relative = folder.strip_prefix(&root).context("a crate outside the workspace")?.display().to_string();
        folders.insert(folder, relative);
    }
    let mut packages = Vec::new();
    for package in listed {
        let manifest = PathBuf::from(text(package, "manifest_path")?);
        let mut needs = Vec::new();
        for dependency in package["dependencies"].as_array().context("no `dependencies`")? {
            // A dependency without a path is somebody else's crate. `kind` is null, "dev" or "build".
            let Some(path) = dependency["path"].as_str() else { continue };
            if dependency["kind"].as_str() == Some("dev") {
                continue;
            }
            needs.push(folders.get(Path::new(path)).cloned().unwrap_or_else(|| path.to_owned()));
        }
        needs.sort();
        needs.dedup();
        let folder = manifest.parent().and_then(|folder| folders.get(folder)).context("a crate without a folder")?.clone();
        packages.push(Package { name: text(package, "name")?.to_owned(), folder, needs });
    }
    packages.sort_by(|a, b| a.folder.cmp(&b.folder));
    Ok(packages)
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("no `{key}`"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Package, packages_in};

    #[test]
    fn paths_become_folders_and_dev_needs_are_left_out() {
        let metadata = json!({
            "workspace_root": "/w",
            "packages": [
                {"name": "gate", "manifest_path": "/w/gate/Cargo.toml", "dependencies": [
                    {"name": "operation", "kind": null, "path": "/w/core/operation"},
                    {"name": "testkit", "kind": "dev", "path": "/w/testkit"},
                    {"name": "elsewhere", "kind": "build", "path": "/other/crate"},
                    {"name": "serde", "kind": null}]},
                {"name": "operation", "manifest_path": "/w/core/operation/Cargo.toml", "dependencies": []},
            ]
        });
        let package = |name: &str, folder: &str, needs: &[&str]| Package {
            name: name.into(),
            folder: folder.into(),
            needs: needs.iter().map(|need| (*need).into()).collect(),
        };
        let expected = vec![package("operation", "core/operation", &[]), package("gate", "gate", &["/other/crate", "core/operation"])];
        assert_eq!(packages_in(&metadata).expect("packages"), expected);
        packages_in(&json!({})).expect_err("not a workspace");
    }
}
