//! `cargo xtask`: the project's own tool.
//!
//! `catalog` makes the lists of operations, `layers` draws and checks the arrows between folders, `golden` writes the golden files anew, `ci` does what
//! the build machine does. What each does is in the file of its name.

mod catalog;
mod ci;
mod golden;
mod layers;
mod packages;

use std::env;
use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "usage: cargo xtask COMMAND

  catalog  fetch the providers' descriptions and write catalog/generated anew (needs pip, npm, python3, tar)
  layers   draw the arrows between folders; fails if one goes uphill
  golden   write the golden files anew; review the difference before you commit it
  ci       everything the build machine checks
";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<ExitCode> {
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["catalog"] => catalog::run(),
        ["layers"] => layers::run(),
        ["golden"] => golden::run(),
        ["ci"] => ci::run(),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        other => bail!("unknown command `{}`\n{USAGE}", other.join(" ")),
    }
}
