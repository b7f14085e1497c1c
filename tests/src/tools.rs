//! Other people's programs: Python and Node packages, installed on first use under the build folder, one installation for all tests.
//!
//! Where a registry can't be reached, the tests that need it say so and end; the build machine has it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, ensure};

/// Drivers, and the migration tools that go with them.
const PYTHON: [&str; 6] = ["psycopg[binary]==3.*", "asyncpg", "sqlalchemy==2.*", "django==5.*", "alembic==1.*", "tzdata"];

/// Migration tools and what they ask for.
const NODE: &str = r#"{
  "private": true,
  "dependencies": {
    "drizzle-kit": "^0.31",
    "drizzle-orm": "^0.44",
    "knex": "^3",
    "node-pg-migrate": "^7",
    "pg": "^8",
    "reflect-metadata": "^0.2",
    "sequelize": "^6",
    "typeorm": "^0.3"
  }
}
"#;

/// What a program printed.
#[must_use]
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The Python with the packages, installed in `folder`; `None` where they can't be installed, with the reason on the screen.
pub fn python(folder: &Path) -> Result<Option<PathBuf>> {
    static FOUND: OnceLock<Result<Option<PathBuf>, String>> = OnceLock::new();
    FOUND
        .get_or_init(|| make_python(&folder.join("clients"), &PYTHON).map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}

/// A Python with other packages than the usual ones, in a folder of its own; `None` as with [`python`].
pub fn python_with(folder: &Path, name: &str, packages: &[&str]) -> Result<Option<PathBuf>> {
    make_python(&folder.join(name), packages)
}

/// A program of Debian's: the one that is installed, or one out of these packages, unpacked in a folder of its own, so that nothing of
/// the machine changes. Answers the program and the folder that the packages are unpacked in.
pub fn debian(folder: &Path, program: &str, packages: &[&str]) -> Result<Option<(PathBuf, PathBuf)>> {
    let folder = folder.join(format!("debian-{program}"));
    let root = folder.join("root");
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(found) = std::env::split_paths(&path).map(|place| place.join(program)).find(|place| place.exists()) {
        return Ok(Some((found, root)));
    }
    let unpacked = root.join("usr/bin").join(program);
    let installed = Installed::look(&folder, &packages.join("\n"))?;
    if installed.is_complete {
        return Ok(Some((unpacked, root)));
    }
    fs::create_dir_all(&root).context("cannot make the folder of the packages")?;
    let output = Command::new("apt-get").arg("download").args(packages).current_dir(&folder).output();
    if !output.as_ref().is_ok_and(|output| output.status.success()) {
        return skip("apt-get download", &output.map_or_else(|error| error.to_string(), |output| said(&output))).map(|_| None);
    }
    for file in fs::read_dir(&folder)? {
        let file = file?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            let output = Command::new("dpkg").arg("-x").arg(&file).arg(&root).output()?;
            ensure!(output.status.success(), "{}", said(&output));
        }
    }
    installed.complete()?;
    Ok(Some((unpacked, root)))
}

/// The folder with `node_modules`; `None` where they can't be installed, with the reason on the screen.
pub fn node(folder: &Path) -> Result<Option<PathBuf>> {
    static FOUND: OnceLock<Result<Option<PathBuf>, String>> = OnceLock::new();
    FOUND.get_or_init(|| make_node(&folder.join("node"), NODE).map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

/// Other packages than the usual ones, by their `package.json`, in a folder of their own; `None` as with [`node`].
pub fn node_with(folder: &Path, name: &str, packages: &str) -> Result<Option<PathBuf>> {
    make_node(&folder.join(name), packages)
}

fn make_python(folder: &Path, packages: &[&str]) -> Result<Option<PathBuf>> {
    let python = folder.join("bin/python");
    let installed = Installed::look(folder, &packages.join("\n"))?;
    if installed.is_complete {
        return Ok(Some(python));
    }
    let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder).output();
    if !made.as_ref().is_ok_and(|made| made.status.success()) {
        return skip("python3 -m venv", &made.map_or_else(|error| error.to_string(), |made| said(&made)));
    }
    let output = Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages).output()?;
    if !output.status.success() {
        return skip("pip", &said(&output));
    }
    installed.complete()?;
    Ok(Some(python))
}

fn make_node(folder: &Path, packages: &str) -> Result<Option<PathBuf>> {
    let installed = Installed::look(folder, packages)?;
    if installed.is_complete {
        return Ok(Some(folder.to_owned()));
    }
    fs::create_dir_all(folder).context("cannot make the folder of the packages")?;
    fs::write(folder.join("package.json"), packages).context("cannot write `package.json`")?;
    // Scripts of packages fetch programs from elsewhere; none of these needs one.
    let arguments = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    let output = Command::new("npm").args(arguments).current_dir(folder).output();
    if !output.as_ref().is_ok_and(|output| output.status.success()) {
        return skip("npm", &output.map_or_else(|error| error.to_string(), |output| said(&output)));
    }
    installed.complete()?;
    Ok(Some(folder.to_owned()))
}

/// A folder of packages; whoever looks holds it until the look is dropped, so that tests side by side install once.
struct Installed {
    is_complete: bool,
    mark: PathBuf,
    wanted: String,
    _lock: File,
}

impl Installed {
    fn look(folder: &Path, wanted: &str) -> Result<Self> {
        let lock = File::create(folder.with_extension("lock")).context("cannot make a lock")?;
        lock.lock().context("cannot lock the packages")?;
        let mark = folder.join("complete");
        // An older list of packages is no complete one.
        let is_complete = fs::read_to_string(&mark).is_ok_and(|had| had == wanted);
        Ok(Self { is_complete, mark, wanted: wanted.to_owned(), _lock: lock })
    }

    fn complete(&self) -> Result<()> {
        fs::write(&self.mark, &self.wanted).context("cannot mark the packages complete")
    }
}

#[expect(clippy::print_stderr, reason = "whoever runs the tests has to see what was not tested")]
fn skip(program: &str, reason: &str) -> Result<Option<PathBuf>> {
    ensure!(std::env::var_os("CI").is_none(), "{program} failed on a build machine: {reason}");
    eprintln!("SKIPPED: tests that need packages, because {program} failed: {reason}");
    Ok(None)
}
