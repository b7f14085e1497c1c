//! How well a stanza stands: where its copies are, and what its configuration and the server's lack.

use std::path::Path;

use super::{ASK, Info, Stanza, run};
use crate::{
    Place, RecoveryError, Source, Tools,
    radius::{host_of, is_local, same_device},
};

/// What was looked at, and what was found: good, or lacking.
pub type Finding = (&'static str, Result<String, String>);

impl Stanza {
    /// Where its copies are. Not knowing is the same blast radius.
    #[must_use]
    pub fn place(&self) -> Place {
        let (name, same_because) = self.whereabouts().unwrap_or_else(|error| {
            ("an unknown place".to_owned(), Some(format!("where its repository is can't be told ({})", error.in_words())))
        });
        // Also where a bucket locks: nobody looks at it, and pgBackRest's configuration may lead to another one tomorrow.
        let locked = "unknown: pgBackRest's own retention may remove them, and so may whoever can write its repository or has its key";
        Place {
            name: format!("pgBackRest's stanza {} in repo1, {name}", self.name),
            same_because,
            locked: locked.to_owned(),
            is_locked: false,
        }
    }

    fn whereabouts(&self) -> Result<(String, Option<String>), RecoveryError> {
        let tools = Tools::find(None)?;
        let needed = |name: &str| {
            self.setting(&tools, name)?.ok_or_else(|| RecoveryError::Damaged(format!("pgBackRest says nothing of its option `{name}`")))
        };
        let on = |host: &str| match is_local(host) {
            Some(true) => Some("it is on the system's own machine".to_owned()),
            Some(false) => None,
            None => Some(format!("whether `{host}` is the system's own machine can't be told")),
        };
        let (kind, path) = (needed("repo-type")?, needed("repo-path")?);
        if let Some(host) = self.setting(&tools, "repo-host")? {
            return Ok((format!("{host}:{path}"), on(&host)));
        }
        let bucket = match kind.as_str() {
            "s3" => needed("repo-s3-bucket")?,
            "gcs" => needed("repo-gcs-bucket")?,
            "azure" => needed("repo-azure-container")?,
            // A folder, also one that another machine serves: this one may write there.
            "posix" | "cifs" => {
                let same = match self.setting(&tools, "pg-host")? {
                    Some(host) => on(&host),
                    None if same_device(Path::new(&path), &needed("pg-path")?) => {
                        Some("it is a folder on the disk of the data directory".to_owned())
                    }
                    None => Some("it is a folder on the system's own machine".to_owned()),
                };
                return Ok((format!("folder {path}"), same));
            }
            other => return Err(RecoveryError::Damaged(format!("`{other}` is a type of repository that is not known here"))),
        };
        let server = match self.setting(&tools, "repo-storage-host")? {
            None if kind == "azure" => None,
            None => self.setting(&tools, &format!("repo-{kind}-endpoint"))?,
            other => other,
        };
        // A store beside the server goes with it.
        let same = match (server.as_deref().map(host_of), self.setting(&tools, "pg-host")?) {
            (None, _) => None,
            (Some(server), Some(host)) if is_local(&host) == Some(false) => {
                (server == host).then(|| "its store is on the system's own machine".to_owned())
            }
            (Some(server), _) => on(server).map(|why| why.replacen("it is", "its store is", 1)),
        };
        Ok((format!("{kind} bucket {bucket}{path}"), same))
    }

    /// An option that is in force, if only by default.
    fn setting(&self, tools: &Tools, name: &str) -> Result<Option<String>, RecoveryError> {
        let mut command = self.command(tools, "help");
        command.args(["backup", name]);
        Ok(in_force(&run(command, ASK)?))
    }

    /// What it has and what it lacks. Has the server archive a segment of its log, to see that it does.
    #[must_use]
    pub fn findings(&self, source: &Source) -> Vec<Finding> {
        let place = self.place();
        let place = match place.same_because {
            None => Ok(place.name),
            Some(why) => Err(format!("{}: {why}: who loses the server may lose the copies", place.name)),
        };
        let checks: [(&'static str, Check); 5] = [
            ("stanza", Self::is_of),
            ("repo1-cipher-type", Self::is_encrypted),
            ("repo1-retention-full", Self::is_bounded),
            ("archive_command", Self::is_archived),
            ("pgbackrest check", Self::stands_its_own_check),
        ];
        let made = |check: Check| {
            let found = Tools::find(None).and_then(|tools| check(self, &tools, source));
            found.unwrap_or_else(|error| Err(error.in_words()))
        };
        let unverified = self.unverified().map(|why| ("repo1-storage-verify-tls", Err(why)));
        let others = self.others().map(|others| ("other repositories", Err(others)));
        checks.into_iter().map(|(name, check)| (name, made(check))).chain([("repository", place)]).chain(unverified).chain(others).collect()
    }

    /// Whether anybody on the way may pass for the store.
    fn unverified(&self) -> Option<String> {
        let tools = Tools::find(None).ok()?;
        let setting = |name: &str| self.setting(&tools, name).ok().flatten();
        let is_store = setting("repo-type").is_some_and(|kind| ["s3", "gcs", "azure"].contains(&kind.as_str()));
        let off = is_store && setting("repo-storage-verify-tls").is_some_and(|value| value == "n" || value == "false");
        off.then(|| {
            "off: whoever is on the way passes for the store, and has all that goes there; name the authority in repo1-storage-ca-file"
                .to_owned()
        })
    }

    /// Which repositories there are that nothing is done with here, in words.
    fn others(&self) -> Option<String> {
        let tools = Tools::find(None).ok()?;
        let mut command = self.command(&tools, "info");
        command.arg("--output=json");
        let others = Info::others(&run(command, ASK).ok()?, &self.name)?;
        Some(format!("{} too: copies are made in repo1, and only those are tried and brought back", others.join(" and ")))
    }

    fn is_of(&self, tools: &Tools, source: &Source) -> Answer {
        let info = self.info(tools)?;
        self.has_to_be_of(&info.cluster, &cluster(tools, source)?)?;
        Ok(Ok(format!("`{}` is of this server, and has {} copies", self.name, info.kept.len())))
    }

    /// Another server's copies are none of this one's.
    pub(crate) fn has_to_be_of(&self, its_own: &str, cluster: &str) -> Result<(), RecoveryError> {
        if its_own == cluster {
            return Ok(());
        }
        Err(RecoveryError::Refused(format!("pgBackRest's stanza `{}` is of the server {its_own}, and this is {cluster}", self.name)))
    }

    fn is_encrypted(&self, tools: &Tools, _: &Source) -> Answer {
        Ok(match self.setting(tools, "repo-cipher-type")? {
            Some(cipher) if cipher != "none" => Ok(cipher),
            _ => Err("not set: whoever can read the repository has the database".to_owned()),
        })
    }

    fn is_bounded(&self, tools: &Tools, _: &Source) -> Answer {
        Ok(match self.setting(tools, "repo-retention-full")? {
            Some(kept) => Ok(kept),
            None => Err("not set: nothing is removed until there is no room".to_owned()),
        })
    }

    fn is_archived(&self, tools: &Tools, source: &Source) -> Answer {
        let asked = "SELECT pg_catalog.current_setting('archive_mode') || ' ' || pg_catalog.current_setting('archive_command')";
        let said = source.sql(tools, asked, ASK)?;
        let (mode, command) = said.split_once(' ').unwrap_or_default();
        let words: Vec<&str> = command.split_whitespace().collect();
        let ours = command.contains("pgbackrest") && words.contains(&"archive-push") && command.contains(&self.name.to_string());
        Ok(if mode != "off" && ours {
            Ok(command.to_owned())
        } else {
            Err(format!(
                "archive_mode is `{mode}`, archive_command `{command}`: what is committed after a copy is lost; set archive_mode = on, \
                 archive_command = 'pgbackrest --stanza={} archive-push %p'",
                self.name
            ))
        })
    }

    fn stands_its_own_check(&self, tools: &Tools, _: &Source) -> Answer {
        run(self.command(tools, "check"), ASK)?;
        Ok(Ok("the server's log reaches the repository".to_owned()))
    }
}

type Answer = Result<Result<String, String>, RecoveryError>;
type Check = fn(&Stanza, &Tools, &Source) -> Answer;

fn cluster(tools: &Tools, source: &Source) -> Result<String, RecoveryError> {
    source.sql(tools, "SELECT system_identifier FROM pg_catalog.pg_control_system()", ASK)
}

/// The value of an option in what `help` says of it.
fn in_force(said: &str) -> Option<String> {
    let after = |mark: &str| said.lines().rev().find_map(|line| Some(line.strip_prefix(mark)?.trim().to_owned()));
    after("current: ").or_else(|| after("default: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_force_is_read() {
        for (said, value) in [
            ("Path.\n\ncurrent: /srv/repo\ndefault: /var/lib/pgbackrest\n", Some("/srv/repo")),
            ("Type.\n\ndefault: posix\n", Some("posix")),
            ("Host.\n\ndeprecated name: backup-host\n", None),
            ("", None),
        ] {
            assert_eq!(in_force(said).as_deref(), value, "{said}");
        }
    }
}
