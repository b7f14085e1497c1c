//! The program: where the gateway's executable is, and that it is not older than its sources.
//!
//! A test's own executable lies in `target/PROFILE/deps`, the gateway's in `target/PROFILE`. One that is missing or older
//! than a source file is built once, with the profile of the test. `REPRIEVE_PROGRAM` names another one, which is
//! taken as it is.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};

/// Folders whose sources end up in the program.
const SOURCES: [&str; 7] = ["core", "effects", "protocol", "gate", "service", "surface", "reprieve"];

/// The gateway's executable.
pub fn program() -> Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(|| find().map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

fn find() -> Result<PathBuf> {
    if let Some(path) = env::var_os("REPRIEVE_PROGRAM") {
        return Ok(PathBuf::from(path));
    }
    let own = env::current_exe().context("cannot find out where this program is")?;
    let mut folder = own.parent().context("this program is in no folder")?;
    if folder.ends_with("deps") || folder.ends_with("examples") {
        folder = folder.parent().context("`deps` is in no folder")?;
    }
    let program = folder.join("reprieve");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate is in no workspace")?;
    // Several tests start at once: the first builds, the others wait and find it built.
    let lock = File::create(folder.join(".reprieve-build.lock")).context("cannot make the build's lock")?;
    lock.lock().context("cannot lock the build")?;
    if is_current(&program, workspace)? {
        return Ok(program);
    }
    build(workspace, folder)?;
    ensure!(program.exists(), "`cargo build` made no `{}`", program.display());
    Ok(program)
}

fn is_current(program: &Path, workspace: &Path) -> Result<bool> {
    let Ok(built) = fs::metadata(program).and_then(|metadata| metadata.modified()) else { return Ok(false) };
    for folder in SOURCES {
        if has_newer(&workspace.join(folder), built)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn has_newer(folder: &Path, than: SystemTime) -> Result<bool> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list `{}`", folder.display()))? {
        let path = entry.with_context(|| format!("cannot list `{}`", folder.display()))?.path();
        let is_source = path.extension().is_some_and(|kind| kind == "rs" || kind == "toml" || kind == "cedar" || kind == "sql");
        // Tests don't end up in the program.
        let newer = if path.is_dir() && !path.ends_with("tests") {
            has_newer(&path, than)?
        } else {
            is_source && fs::metadata(&path).and_then(|metadata| metadata.modified()).is_ok_and(|changed| changed > than)
        };
        if newer {
            return Ok(true);
        }
    }
    Ok(false)
}

fn build(workspace: &Path, folder: &Path) -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace).args(["build", "--quiet", "--package", "reprieve", "--bin", "reprieve", "--target-dir"]);
    command.arg(folder.parent().context("the profile's folder is in no folder")?);
    match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") => {}
        Some(profile) => drop(command.args(["--profile", profile])),
        None => bail!("`{}` names no profile", folder.display()),
    }
    let output = command.output().context("cannot run `cargo`")?;
    ensure!(output.status.success(), "the gateway does not build:\n{}", String::from_utf8_lossy(&output.stderr));
    // Cargo leaves a file alone that is as it should be; from here on it counts as just made.
    let made = File::options().append(true).open(folder.join("reprieve")).context("cannot open the program just built")?;
    made.set_modified(SystemTime::now()).context("cannot date the program just built")
}
