//! pgBackRest, for those who have it: copies and the log lie in its repository, and go by its own retention.
//!
//! Its configuration is the operator's: named here, never read; what is in force is asked of the program. What becomes an argument has a
//! form that was looked at. What the repository has is in `info.rs`, how well it stands in `standing.rs`, and what of a bucket's answer is
//! told in `short.rs`.

mod info;
mod short;
mod standing;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub(crate) use self::info::Info;
use self::short::in_short;
pub use self::{info::Kept, standing::Finding};
use crate::{RecoveryError, Tools, tools::run_and_tell};

/// The repository that is used, of those that a stanza has: pgBackRest makes copies in the first by itself.
const REPOSITORY: &str = "--repo=1";
/// A question's longest; the repository may be far away.
const ASK: Duration = Duration::from_secs(600);
/// The longest name.
const NAME: usize = 64;
/// Parts of its list of a copy's files that may change, or that nobody else is to keep: a checksum of the list, keys, notes.
const LEFT_OUT: [&str; 3] = ["[backrest]", "[cipher]", "[metadata]"];
/// What every list has.
const FILES: &str = "[target:file]";

/// Runs it to its end. What it prints of a bucket's refusals fills a page.
fn run(command: Command, within: Duration) -> Result<String, RecoveryError> {
    run_and_tell(command, within, in_short)
}

/// A stanza's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StanzaName(String);

impl FromStr for StanzaName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let fits = text.len() <= NAME
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if fits { Ok(Self(text.to_owned())) } else { Err(format!("`{text}` is no stanza: letters, digits, `-`, `_` and `.`")) }
    }
}

/// The name of a copy in a stanza: when it was made, and on which it rests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

impl FromStr for Label {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let is_moment = |text: &str| {
            text.len() == 15 && text.bytes().enumerate().all(|(at, byte)| if at == 8 { byte == b'-' } else { byte.is_ascii_digit() })
        };
        let rests_on = |rest: &str| rest.strip_prefix('_').and_then(|rest| rest.strip_suffix(['D', 'I'])).is_some_and(is_moment);
        match text.split_once('F') {
            Some((full, rest)) if is_moment(full) && (rest.is_empty() || rests_on(rest)) => Ok(Self(text.to_owned())),
            _ => Err(format!("`{text}` is no label of a copy")),
        }
    }
}

macro_rules! is_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}
is_text!(StanzaName);
is_text!(Label);

/// Where a copy lies that is not in the vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elsewhere {
    /// In which stanza.
    pub stanza: StanzaName,
    /// Under which name.
    pub label: Label,
}

/// A stanza, and the configuration that knows it.
#[derive(Debug, Clone)]
pub struct Stanza {
    /// Its name.
    pub name: StanzaName,
    /// The configuration's file; where pgBackRest looks by itself if missing.
    pub config: Option<PathBuf>,
}

impl Stanza {
    /// A command that only says what is wrong.
    pub(crate) fn command(&self, tools: &Tools, command: &str) -> Command {
        self.told(tools, command, &["--log-level-console=off", "--log-level-file=off"])
    }

    fn told(&self, tools: &Tools, command: &str, options: &[&str]) -> Command {
        let mut program = tools.system("pgbackrest");
        program.arg(format!("--stanza={}", self.name));
        if let Some(config) = &self.config {
            program.arg(option("--config=", config));
        }
        program.args(options).args(["--log-level-stderr=error", "--no-log-timestamp", command]);
        program
    }

    /// What the repository has.
    pub(crate) fn info(&self, tools: &Tools) -> Result<Info, RecoveryError> {
        let mut command = self.command(tools, "info");
        command.args([REPOSITORY, "--output=json"]);
        Info::read(&run(command, ASK)?, &self.name)
    }

    /// The copies that the repository has, oldest first.
    pub fn kept(&self) -> Result<Vec<Kept>, RecoveryError> {
        Ok(self.info(&Tools::find(None)?)?.kept)
    }

    /// Has a copy made, and answers its name.
    pub(crate) fn backup(&self, tools: &Tools, full: bool, within: Duration) -> Result<Label, RecoveryError> {
        let mut command = self.told(tools, "backup", &["--log-level-console=info"]);
        command.args([REPOSITORY, if full { "--type=full" } else { "--type=incr" }]);
        label_in(&run(command, within)?)
    }

    /// The list of a copy's files, with their checksums.
    pub(crate) fn list(&self, tools: &Tools, label: &Label) -> Result<String, RecoveryError> {
        let list = self.file(tools, &format!("backup/{}/{label}/backup.manifest", self.name))?;
        what_stays(&list).ok_or_else(|| RecoveryError::Damaged(format!("pgBackRest's list of {label} is none that can be read here")))
    }

    /// A file of the repository.
    pub(crate) fn file(&self, tools: &Tools, path: &str) -> Result<String, RecoveryError> {
        let mut command = self.command(tools, "repo-get");
        command.args([REPOSITORY, path]);
        run(command, ASK)
    }

    /// The files below a folder of the repository, as paths from there.
    pub(crate) fn files(&self, tools: &Tools, folder: &str) -> Result<Vec<String>, RecoveryError> {
        #[derive(Deserialize)]
        struct Entry {
            r#type: String,
        }
        let mut command = self.command(tools, "repo-ls");
        command.args([REPOSITORY, "--recurse", "--output=json", folder]);
        let found: Result<BTreeMap<String, Entry>, _> = serde_json::from_str(&run(command, ASK)?);
        let found = found.map_err(|error| RecoveryError::Damaged(format!("pgBackRest's list of `{folder}` can't be read: {error}")))?;
        Ok(found.into_iter().filter(|(_, entry)| entry.r#type == "file").map(|(path, _)| path).collect())
    }

    /// Brings a copy's files into an empty folder. Whatever the configuration says about restores, nothing is put anywhere else.
    pub(crate) fn restore(&self, tools: &Tools, label: &Label, data: &Path, within: Duration) -> Result<(), RecoveryError> {
        let mut command = self.command(tools, "restore");
        command.args(over(data)).arg(format!("--set={label}")).args([
            // The log is brought by us: a server takes one that can't be read for the log's end.
            "--type=none",
            "--archive-mode=off",
            "--no-delta",
            "--no-link-all",
            "--reset-link-map",
            "--reset-tablespace-map",
            "--reset-tablespace-map-all",
            "--reset-recovery-option",
            "--reset-db-include",
            "--reset-db-exclude",
        ]);
        run(command, within).map(drop)
    }

    /// Brings a part of the log, for the restored files in `data`.
    pub(crate) fn fetch(&self, tools: &Tools, data: &Path, file: &str, into: &Path) -> Result<(), RecoveryError> {
        let mut command = self.command(tools, "archive-get");
        command.args(over(data)).args(["--no-archive-async", file]).arg(into);
        run(command, ASK).map(drop)
    }
}

/// For these files on this machine, and not for the server that the stanza is of.
fn over(data: &Path) -> [OsString; 3] {
    [REPOSITORY.into(), "--reset-pg1-host".into(), option("--pg1-path=", data)]
}

fn option(name: &str, value: impl AsRef<OsStr>) -> OsString {
    let mut option = OsString::from(name);
    option.push(value);
    option
}

/// What `backup` said: under which name the copy lies.
fn label_in(said: &str) -> Result<Label, RecoveryError> {
    let label = said.lines().rev().find_map(|line| line.split_once("new backup label = ")?.1.trim().parse().ok());
    label.ok_or_else(|| RecoveryError::Damaged("`pgbackrest backup` did not say under which label the copy lies".to_owned()))
}

/// A list without what may change in it. None: it is no list.
fn what_stays(list: &str) -> Option<String> {
    let mut stays = true;
    let lines = list.lines().filter(|line| {
        if line.starts_with('[') {
            stays = !LEFT_OUT.contains(line);
        }
        stays
    });
    let kept: Vec<&str> = lines.collect();
    kept.contains(&FILES).then(|| kept.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_an_argument_has_its_form() {
        for good in ["main", "shop-prod_15.2", "0", &"x".repeat(NAME)] {
            assert!(good.parse::<StanzaName>().is_ok(), "{good}");
        }
        let long = "x".repeat(NAME + 1);
        for bad in ["", "-x", "--config=/etc/passwd", ".", "..", "../main", "main/x", "a b", "main\n", "mäin", "a;b", "$(x)", &long] {
            assert!(bad.parse::<StanzaName>().is_err(), "{bad}");
        }
        for good in ["20261123-012601F", "20261123-012601F_20261124-012601D", "20261123-012601F_20261124-012601I"] {
            assert!(good.parse::<Label>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "F",
            "latest",
            "--force",
            "20261123-012601",
            "20261123-012601D",
            "20261123-012601F_",
            "20261123-012601F_x",
            "20261123-012601F_20261124-012601",
            "20261123-012601F/../x",
            "2026112x-012601F",
            "20261123-012601F\n",
            "20261123-012601FF",
            "2026١123-12601F",
        ] {
            assert!(bad.parse::<Label>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_label_of_a_new_copy_is_read() {
        let said = "P00   INFO: backup stop archive = 2\nP00   INFO: new backup label = 20261123-012601F\nP00   INFO: expire command begin";
        assert_eq!(label_in(said).expect("a label").to_string(), "20261123-012601F");
        for wrong in ["", "new backup label = ", "new backup label = --force", "label = 20261123-012601F"] {
            assert!(label_in(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn keys_and_notes_are_no_part_of_a_list() {
        let list = "[backrest]\nbackrest-format=5\n\n[backup]\nlabel=\"x\"\n[cipher]\ncipher-pass=\"secret\"\n[metadata]\nannotation={}\n\
                    [target:file]\npg_data/a={\"checksum\":\"1\"}\n[backrest]\nbackrest-checksum=\"2\"";
        let kept = what_stays(list).expect("a list");
        assert_eq!(kept, "[backup]\nlabel=\"x\"\n[target:file]\npg_data/a={\"checksum\":\"1\"}");
        for wrong in ["", "[backup]\nlabel=\"x\"", "\u{0}"] {
            assert_eq!(what_stays(wrong), None, "{wrong}");
        }
    }
}
