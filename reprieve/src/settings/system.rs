//! One protected system: what it is, where it is, and what its kind needs.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::bail;
use reprieve_operation::{AgentName, Environment, SystemName};
use reprieve_recovery::EngineChoice;
use reprieve_surface_http::ChannelLimits;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{Backup, Wal, bytes, duration, some_bytes, some_duration};

/// One protected system.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct System {
    pub(crate) name: SystemName,
    pub(crate) kind: SystemKind,
    /// Unknown counts as production.
    #[serde(default = "Environment::production")]
    pub(crate) environment: Environment,
    /// A database's connection URL as `env:NAME`, `secret:NAME` or `file:PATH`; for a service, where it really is.
    #[serde(default)]
    pub(crate) url: String,
    /// An administrator's login for `protect`, named in the same way; `url` if missing. Agents never get it.
    pub(crate) admin: Option<String>,
    /// Rows up to which an unbounded change is run (and rolled back) to be measured.
    #[serde(default = "measure_limit")]
    pub(crate) measure_limit: u64,
    /// Of a database: whether people who decide on a change see a few of its rows, masked.
    #[serde(default = "yes")]
    pub(crate) sample_rows: bool,
    /// Lets agents in although what their login role does can't be bounded. Never for anything that matters.
    #[serde(default)]
    pub(crate) run_with_unbounded_role: bool,
    /// Of a database: a change becomes final only when what it replaced is in the vault. Slower, and safe from losing the server.
    #[serde(default)]
    pub(crate) strict: bool,
    /// How copies of it are made and tried; none are if missing.
    pub(crate) backup: Option<Backup>,
    /// Of a folder or a SQLite database, which agents reach by nothing of ours: where it is.
    pub(crate) path: Option<PathBuf>,
    /// Of a service: which catalog tells what its calls do.
    pub(crate) provider: Option<String>,
    /// Of a service: its hosts, `api.example.com` or `*.example.com`.
    #[serde(default)]
    pub(crate) hosts: Vec<String>,
    /// Of a service: the real credential, as `env:NAME`, `secret:NAME` or `file:PATH`.
    pub(crate) credential: Option<String>,
    /// How it is presented: `bearer`, `basic`, `header:NAME`, `query:NAME`, `certificate` or `sigv4`.
    #[serde(rename = "as")]
    pub(crate) presented: Option<String>,
    /// Of a service: a PEM file with its own authorities, instead of the public ones.
    pub(crate) ca: Option<PathBuf>,
    /// Of a service: networks that are not public and may be reached, `10.0.0.0/8`.
    #[serde(default)]
    pub(crate) networks: Vec<String>,
    /// Of a service: its own `hold.delay`.
    #[serde(default, deserialize_with = "some_duration")]
    pub(crate) delay: Option<Duration>,
    /// Of a service: a listener of its own, besides the proxy: `127.0.0.1:PORT`, or `unix:FOLDER` for a socket for each agent.
    #[serde(default, deserialize_with = "some_listener")]
    pub(crate) listen: Option<Listener>,
    /// Of a service that listens in a folder: accounts of this machine, by number, that agents' sockets are given to.
    #[serde(default)]
    pub(crate) users: BTreeMap<AgentName, u32>,
    /// Of a service: what a connection may become once that is permitted, `["websocket", "tcp"]`.
    #[serde(default)]
    pub(crate) upgrades: Vec<String>,
    /// Of a service: what may be said in such a connection.
    pub(crate) channel: Option<Channel>,
    /// Of a service: the largest file that is passed on to it.
    #[serde(default, deserialize_with = "some_bytes")]
    pub(crate) largest_file: Option<u64>,
}

/// What may be said in one channel.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Channel {
    /// Each way.
    #[serde(deserialize_with = "bytes")]
    pub(crate) bytes: u64,
    /// Each way, where the protocol has messages.
    pub(crate) messages: u64,
    /// How long it may be open.
    #[serde(deserialize_with = "duration")]
    pub(crate) life: Duration,
    /// How long nothing may be said.
    #[serde(deserialize_with = "duration")]
    pub(crate) idle: Duration,
}

impl Default for Channel {
    fn default() -> Self {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        Self { bytes: 1 << 30, messages: 1_000_000, life: hours(8), idle: hours(1) }
    }
}

impl Channel {
    pub(crate) fn limits(self) -> ChannelLimits {
        let Self { bytes, messages, life, idle } = self;
        ChannelLimits { bytes, messages, life, idle }
    }
}

/// A service's own listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listener {
    /// At an address.
    Address(SocketAddr),
    /// A socket for each agent in this folder.
    Folder(PathBuf),
}

/// What sort of system it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SystemKind {
    Postgres,
    Http,
    /// A folder; only copied.
    Files,
    /// A SQLite database; only copied.
    Sqlite,
}

impl std::fmt::Display for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Folder(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl System {
    /// Whether it has what its kind needs, and nothing that only another kind knows.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let of_a_service = self.provider.is_some()
            || !self.hosts.is_empty()
            || self.credential.is_some()
            || self.presented.is_some()
            || self.ca.is_some()
            || !self.networks.is_empty()
            || self.delay.is_some()
            || self.listen.is_some()
            || !self.upgrades.is_empty()
            || self.channel.is_some()
            || self.largest_file.is_some();
        let is_copied_only = matches!(self.kind, SystemKind::Files | SystemKind::Sqlite);
        match self.kind {
            _ if is_copied_only => self.check_copied_only(of_a_service),
            _ if self.path.is_some() => bail!("the system `{}` has a `path`, which only `files` and `sqlite` have", self.name),
            _ if self.backup.as_ref().is_some_and(|backup| !backup.leave_out.is_empty()) => {
                bail!("the system `{}` has `leave_out`, which only `files` have", self.name)
            }
            SystemKind::Postgres if self.url.is_empty() => bail!("the system `{}` has no `url`", self.name),
            SystemKind::Postgres if of_a_service => bail!("the system `{}` is a database and has settings of a service", self.name),
            SystemKind::Http if self.listen.is_some() && self.provider.as_deref() == Some("aws") => {
                bail!("the system `{}` is AWS, whose services are told apart by host: agents reach it by the proxy only", self.name)
            }
            SystemKind::Http if self.listen.is_some() && self.url.is_empty() && self.hosts.iter().all(|host| host.starts_with('*')) => {
                bail!("the system `{}` has a listener of its own, but no host or `url` of its own", self.name)
            }
            SystemKind::Http if !self.users.is_empty() && !matches!(self.listen, Some(Listener::Folder(_))) => {
                bail!("the system `{}` has `users`, but no `listen = \"unix:FOLDER\"`", self.name)
            }
            SystemKind::Http if self.strict => bail!("the system `{}` is a service and can't be `strict`", self.name),
            SystemKind::Http if self.backup.is_some() => bail!("the system `{}` is a service and has a `backup`", self.name),
            SystemKind::Http if self.admin.is_some() => bail!("the system `{}` is a service and has an `admin`", self.name),
            SystemKind::Postgres | SystemKind::Http | SystemKind::Files | SystemKind::Sqlite => Ok(()),
        }
    }

    /// Whether what pgBackRest does and what we do would not get into each other's way.
    pub(super) fn check_stanza(&self, locked: bool) -> anyhow::Result<()> {
        let Some(backup) = &self.backup else { return Ok(()) };
        let (name, by_pgbackrest) = (&self.name, backup.engine == EngineChoice::Pgbackrest);
        match (&backup.stanza, by_pgbackrest) {
            (None, true) => bail!("the backup of `{name}` names no `stanza` of pgBackRest's"),
            (Some(_), false) => bail!("the backup of `{name}` has a `stanza`, and not engine = \"pgbackrest\""),
            _ if backup.config.is_some() && !by_pgbackrest => bail!("the backup of `{name}` has a `config`, which only pgBackRest has"),
            _ if backup.wal != Wal::Off && by_pgbackrest => bail!("the backup of `{name}` has `wal`: pgBackRest keeps the log itself"),
            _ if locked && by_pgbackrest => {
                bail!(
                    "`recovery.locked` promises that nobody can remove a copy, and for `{name}` that is pgBackRest's, which can't be looked at"
                )
            }
            _ => Ok(()),
        }
    }

    /// The same for what nothing is done about but copies.
    fn check_copied_only(&self, of_a_service: bool) -> anyhow::Result<()> {
        let name = &self.name;
        let Some(backup) = &self.backup else { bail!("the system `{name}` has no `backup`, and nothing else is done for it") };
        if self.path.as_ref().is_none_or(|path| path.as_os_str().is_empty()) {
            bail!("the system `{name}` has no `path`");
        }
        if of_a_service || !self.url.is_empty() || self.admin.is_some() || self.strict || self.run_with_unbounded_role {
            bail!("the system `{name}` is only copied, and has settings of what agents reach");
        }
        if backup.url.is_some() || backup.wal != Wal::Off || backup.engine != EngineChoice::Auto || backup.stanza.is_some() {
            bail!("the backup of `{name}` has settings of PostgreSQL: `url`, `wal`, `engine` or `stanza`");
        }
        if self.kind == SystemKind::Sqlite && !backup.leave_out.is_empty() {
            bail!("the system `{name}` has `leave_out`, which only `files` have");
        }
        Ok(())
    }
}

fn yes() -> bool {
    true
}

fn measure_limit() -> u64 {
    1_000_000
}

fn some_listener<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Listener>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let listener = match text.strip_prefix("unix:") {
        Some(path) if !path.is_empty() => Some(Listener::Folder(PathBuf::from(path))),
        Some(_) => None,
        None => text.parse().ok().map(Listener::Address),
    };
    listener.map(Some).ok_or_else(|| D::Error::custom(format!("`{text}` is no listener: write 127.0.0.1:6481 or unix:FOLDER")))
}
