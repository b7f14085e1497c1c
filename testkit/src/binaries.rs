//! Binaries: where PostgreSQL's programs are.
//!
//! Debian keeps them in `/usr/lib/postgresql/VERSION/bin`, outside the path. The newest version wins;
//! `REPRIEVE_POSTGRES_BIN` names another folder.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The oldest PostgreSQL that Reprieve protects.
const OLDEST_VERSION: u32 = 15;

/// One installed PostgreSQL.
#[derive(Clone, Debug)]
pub struct Binaries {
    folder: PathBuf,
    version: String,
}

impl Binaries {
    /// Finds the newest installed PostgreSQL, 15 or later.
    pub fn find() -> Result<Binaries> {
        if let Some(folder) = env::var_os("REPRIEVE_POSTGRES_BIN") {
            return Binaries::in_folder(PathBuf::from(folder));
        }
        let root = Path::new("/usr/lib/postgresql");
        let entries = fs::read_dir(root).with_context(|| missing(root))?;
        let newest = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
            .filter(|version| root.join(version.to_string()).join("bin/initdb").exists())
            .max();
        match newest {
            Some(version) => Binaries::in_folder(root.join(version.to_string()).join("bin")),
            None => bail!(missing(root)),
        }
    }

    /// Takes the PostgreSQL whose programs are in `folder`.
    pub fn in_folder(folder: PathBuf) -> Result<Binaries> {
        let program = folder.join("postgres");
        let output = Command::new(&program).arg("--version").output().with_context(|| format!("cannot run `{}`", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        match version_in(&text) {
            Some((major, version)) if major >= OLDEST_VERSION => Ok(Binaries { folder, version }),
            Some((_, version)) => bail!("PostgreSQL {version} in `{}` is older than {OLDEST_VERSION}", folder.display()),
            None => bail!("`{} --version` said {text:?}, which names no version", program.display()),
        }
    }

    /// The path of one program, such as `psql`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The full version, such as `15.18`.
    pub fn version(&self) -> &str {
        &self.version
    }
}

fn missing(root: &Path) -> String {
    format!(
        "no PostgreSQL {OLDEST_VERSION} or later under `{}`; `scripts/setup.sh` installs it, or set REPRIEVE_POSTGRES_BIN",
        root.display()
    )
}

fn version_in(text: &str) -> Option<(u32, String)> {
    let word = text.strip_prefix("postgres (PostgreSQL) ")?.split_whitespace().next()?;
    let digits: String = word.chars().take_while(char::is_ascii_digit).collect();
    Some((digits.parse().ok()?, word.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::version_in;

    #[test]
    fn versions_are_read_from_what_postgres_prints() {
        for (text, expected) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some((15, "15.18"))),
            ("postgres (PostgreSQL) 19beta1\n", Some((19, "19beta1"))),
            ("postgres (PostgreSQL) \n", None),
            ("mysqld 8\n", None),
            ("", None),
        ] {
            assert_eq!(version_in(text), expected.map(|(major, word)| (major, word.to_owned())), "{text:?}");
        }
    }
}
