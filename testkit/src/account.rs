//! Accounts: as whom a server runs.
//!
//! PostgreSQL refuses to run as root. A root caller (a container, a build machine) lends it the account
//! `postgres`, or `nobody` where that is missing; everybody else runs it as themselves.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The account that servers run under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Account {
    /// The caller's own.
    Own,
    /// Another one, because the caller is root.
    Lent { user: u32, group: u32 },
}

impl Account {
    /// Finds out who we are and, for root, whom to lend from.
    pub(crate) fn find() -> Result<Account> {
        if own_user()? != 0 {
            return Ok(Account::Own);
        }
        let passwd = fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
        match ["postgres", "nobody"].iter().find_map(|name| ids_of(&passwd, name)) {
            Some((user, group)) => Ok(Account::Lent { user, group }),
            None => bail!("we are root, PostgreSQL refuses to run as root, and there is no account `postgres` or `nobody`"),
        }
    }

    /// A command that runs as this account. It starts in `/`, because the caller's folder may be closed to it.
    pub(crate) fn command(self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/");
        if let Account::Lent { user, group } = self {
            command.uid(user).gid(group);
        }
        command
    }

    /// Gives one file or folder to this account.
    pub(crate) fn give(self, path: &Path) -> Result<()> {
        match self {
            Account::Own => Ok(()),
            Account::Lent { user, group } => {
                chown(path, Some(user), Some(group)).with_context(|| format!("cannot give `{}` to user {user}", path.display()))
            }
        }
    }
}

/// The user this process runs as.
pub(crate) fn own_user() -> Result<u32> {
    Ok(fs::metadata("/proc/self").context("cannot read /proc/self")?.uid())
}

fn ids_of(passwd: &str, name: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let user = fields.nth(1)?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        (user != 0).then_some((user, group))
    })
}

#[cfg(test)]
mod tests {
    use super::ids_of;

    #[test]
    fn ids_come_from_the_named_line_only() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\npostgres2:x:7:7::/:/bin/sh\npostgres:x:101:104:PostgreSQL:/var:/bin/bash\nodd:x:y:1\nevil:x:0:0\n";
        for (name, expected) in
            [("postgres", Some((101, 104))), ("nobody", None), ("odd", None), ("evil", None), ("root", None), ("", None)]
        {
            assert_eq!(ids_of(passwd, name), expected, "{name}");
        }
    }
}
