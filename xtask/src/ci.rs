//! What the build machine checks, run here: it is the same script.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::packages;

/// Runs `.ci/run` and passes its verdict on.
pub(crate) fn run() -> Result<ExitCode> {
    let status = Command::new(".ci/run").current_dir(packages::root()?).status().context("cannot run `.ci/run`")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
