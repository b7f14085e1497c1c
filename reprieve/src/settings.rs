//! Settings: one TOML file, unknown keys refused with their line, typed at start.

mod system;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use reprieve_approvals::ConsoleOrigin;
use reprieve_operation::{Budget, Environment, OperatorName, SystemName};
use reprieve_policy::Profile;
use reprieve_recovery::{EngineChoice, StanzaName};
use serde::{Deserialize, Deserializer, de::Error as _};

pub(crate) use self::system::{Listener, System, SystemKind};

/// The whole file. Relative paths in it are relative to the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    #[serde(default)]
    pub(crate) listen: Listen,
    #[serde(default)]
    pub(crate) ledger: Ledger,
    #[serde(default)]
    pub(crate) policy: PolicySettings,
    #[serde(default)]
    pub(crate) hold: Hold,
    #[serde(default)]
    pub(crate) console: ConsoleSettings,
    #[serde(default)]
    pub(crate) undo: Undo,
    #[serde(default)]
    pub(crate) vault: Vault,
    #[serde(default)]
    pub(crate) keys: Keys,
    /// Budgets by environment.
    #[serde(default)]
    pub(crate) budget: HashMap<Environment, Budget>,
    #[serde(default)]
    pub(crate) system: Vec<System>,
    #[serde(default)]
    pub(crate) catalog: CatalogSettings,
    /// Where people hear of holds.
    #[serde(default)]
    pub(crate) notify: Vec<crate::notify::Notify>,
    #[serde(default)]
    pub(crate) recovery: Recovery,
    /// The folder of the file.
    #[serde(skip)]
    pub(crate) folder: PathBuf,
    /// The file itself.
    #[serde(skip)]
    pub(crate) file: PathBuf,
}

/// Where to listen.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Listen {
    pub(crate) postgres: SocketAddr,
    /// Agents' proxy; not listened on where no system is of the kind `http`.
    pub(crate) http: SocketAddr,
    pub(crate) operators: SocketAddr,
    /// PostgreSQL sessions at a time.
    pub(crate) sessions: usize,
    /// The host name agents reach this gateway by; the listener's address if missing.
    pub(crate) host: Option<String>,
}

impl Default for Listen {
    fn default() -> Self {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self { postgres: local(6432), http: local(6480), operators: local(6443), sessions: 2_000, host: None }
    }
}

/// What services' operations mean, beyond what is compiled in.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CatalogSettings {
    /// Files of providers, in the form of `docs/http.md`.
    pub(crate) files: Vec<PathBuf>,
}

/// Where the ledger is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Ledger {
    /// `sqlite:PATH`.
    pub(crate) store: String,
    /// Where the newest checkpoint is kept besides; another disk is better.
    pub(crate) head: PathBuf,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { store: "sqlite:reprieve.db".to_owned(), head: PathBuf::from("reprieve.head") }
    }
}

/// Which rules are in force.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PolicySettings {
    #[serde(deserialize_with = "profile")]
    pub(crate) profile: Profile,
    pub(crate) directory: PathBuf,
}

impl Default for PolicySettings {
    fn default() -> Self {
        Self { profile: Profile::Guard, directory: PathBuf::from("policies") }
    }
}

/// How holds wait.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Hold {
    #[serde(deserialize_with = "duration")]
    pub(crate) wait: Duration,
    #[serde(deserialize_with = "duration")]
    pub(crate) expire: Duration,
    /// Open holds of one agent.
    pub(crate) open: usize,
    /// What a hold's id is appended to, for people; the console's page if missing.
    pub(crate) link: Option<String>,
    /// How long what destroys for good in a service waits after its approval, in sight of everybody, before it is carried out.
    #[serde(deserialize_with = "duration")]
    pub(crate) delay: Duration,
}

impl Default for Hold {
    fn default() -> Self {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        Self { wait: Duration::from_secs(60), expire: hours(72), open: 20, link: None, delay: hours(48) }
    }
}

/// How people reach the console.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ConsoleSettings {
    /// `https://HOST` or `https://HOST:PORT` as browsers see it; `https://localhost:PORT` if missing. Passkeys belong to the host.
    pub(crate) origin: Option<String>,
    /// Whose gateway it is, in a few words.
    pub(crate) name: Option<String>,
    /// Another sign-in besides passkeys.
    pub(crate) oidc: Option<OidcSettings>,
}

/// An OpenID Connect provider, and whom it may let in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OidcSettings {
    /// As the provider names itself: `https://…`.
    pub(crate) issuer: String,
    pub(crate) client_id: String,
    /// Our secret there, as `secret:NAME`, `env:NAME` or `file:PATH`; none for a public client.
    pub(crate) client_secret: Option<String>,
    /// Operators by verified e-mail address, or by `sub:` and the provider's name for them.
    pub(crate) operators: BTreeMap<String, OperatorName>,
}

/// How changes can be taken back.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Undo {
    /// How long a change can be undone.
    #[serde(deserialize_with = "duration")]
    pub(crate) window: Duration,
    /// How long rows that are in the vault stay in the database's journal too.
    #[serde(deserialize_with = "duration")]
    pub(crate) journal_window: Duration,
    /// The size of a database's journal above which rows that are in the vault leave it at once.
    #[serde(deserialize_with = "bytes")]
    pub(crate) journal_bytes: u64,
    /// How long rows may take to the vault before changes are held.
    #[serde(deserialize_with = "duration")]
    pub(crate) lag: Duration,
    /// How long a strict system's change may wait for the vault before it is rolled back.
    #[serde(deserialize_with = "duration")]
    pub(crate) strict_wait: Duration,
    /// The most bytes that one change of a strict system may replace; more can't be in the vault before it is final.
    #[serde(deserialize_with = "bytes")]
    pub(crate) strict_bytes: u64,
}

impl Default for Undo {
    fn default() -> Self {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let seconds = Duration::from_secs;
        Self {
            window: hours(72),
            journal_window: hours(24),
            journal_bytes: 4 << 30,
            lag: seconds(30),
            strict_wait: seconds(5),
            strict_bytes: 64 << 20,
        }
    }
}

/// Where what undo needs lies besides, outside of the protected databases' reach.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Vault {
    /// `file:PATH` or `s3://BUCKET/PREFIX`.
    pub(crate) store: String,
    /// The most that its objects may take.
    #[serde(deserialize_with = "some_bytes")]
    pub(crate) max_bytes: Option<u64>,
    /// How long the exact text of what agents asked is kept.
    #[serde(deserialize_with = "duration")]
    pub(crate) texts: Duration,
    /// The S3 server, when it is not Amazon's. Credentials come from the environment.
    pub(crate) endpoint: Option<String>,
    /// The S3 region.
    pub(crate) region: Option<String>,
}

impl Default for Vault {
    fn default() -> Self {
        let texts = Duration::from_secs(90 * 86_400);
        Self { store: "file:vault".to_owned(), max_bytes: None, texts, endpoint: None, region: None }
    }
}

/// How copies are sealed and tried, wherever they are of.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Recovery {
    /// A drill has to have passed this lately before anything that needs an approval is destroyed in production, in every system.
    #[serde(deserialize_with = "some_duration")]
    pub(crate) require_drill: Option<Duration>,
    /// The age identity that opens copies, for drills and restores. The gateway itself never reads it.
    pub(crate) identity: Option<PathBuf>,
    /// What the verifier signs its results with. The gateway reads the public half in the keys' folder only.
    pub(crate) verifier_key: Option<PathBuf>,
    /// Whom copies are sealed to besides: `age1…`, of identities that are kept elsewhere.
    pub(crate) recipients: Vec<String>,
    /// For how long the vault's bucket locks what is put. Every copy's objects are looked at, and one that is not locked fails.
    #[serde(deserialize_with = "some_duration")]
    pub(crate) locked: Option<Duration>,
    /// Where throw-away servers' files go, and SQLite databases while they are copied; the system's folder for that if missing.
    pub(crate) scratch: Option<PathBuf>,
    /// Whether the recovery page can be read without signing in.
    pub(crate) publish: bool,
}

/// How copies of one system are made and tried.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backup {
    /// The connection URL of the role that copies, named as `url` is; the administrator's if missing.
    pub(crate) url: Option<String>,
    /// How often a copy is made; only by hand if missing.
    #[serde(default, deserialize_with = "some_duration")]
    pub(crate) every: Option<Duration>,
    /// `auto`, `physical`, `logical` or `pgbackrest`.
    #[serde(default)]
    pub(crate) engine: EngineChoice,
    /// Of pgBackRest: the stanza.
    pub(crate) stanza: Option<StanzaName>,
    /// Of pgBackRest: its configuration; where it looks by itself if missing.
    pub(crate) config: Option<PathBuf>,
    /// Whether what is committed between copies is kept too.
    #[serde(default)]
    pub(crate) wal: Wal,
    /// Whether a database without rows is worth a copy.
    #[serde(default)]
    pub(crate) allow_empty: bool,
    /// How often a row is written that dates what comes back.
    #[serde(default = "ten_seconds", deserialize_with = "duration")]
    pub(crate) heartbeat: Duration,
    /// How often the newest copy is tried; only by hand if missing.
    #[serde(default, deserialize_with = "some_duration")]
    pub(crate) drill: Option<Duration>,
    /// How long a drill that passed counts.
    #[serde(default = "a_week", deserialize_with = "duration")]
    pub(crate) window: Duration,
    /// What is promised.
    #[serde(default)]
    pub(crate) objective: Objective,
    /// Percent of its rows that a restored table may have more or less than when it was copied.
    #[serde(default = "ten_percent")]
    pub(crate) band: u64,
    /// Tables that may come back empty: unlogged ones are in no physical copy. `schema.table`; of a folder, `NAME/` in it.
    #[serde(default)]
    pub(crate) may_be_empty: Vec<String>,
    /// How long copies are kept, and the log with them; for good if missing. The newest stays, and the newest that a drill proved.
    #[serde(default, deserialize_with = "some_duration")]
    pub(crate) keep: Option<Duration>,
    /// Queries that have to answer `t` in a restored copy (SQLite: 1); of a folder, files that have to be there.
    #[serde(default)]
    pub(crate) assertions: Vec<String>,
    /// Of a folder: paths in it that are not copied.
    #[serde(default)]
    pub(crate) leave_out: Vec<PathBuf>,
}

/// What is promised.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Objective {
    /// The most that may be lost.
    #[serde(deserialize_with = "some_duration")]
    pub(crate) rpo: Option<Duration>,
    /// The longest that it may take.
    #[serde(deserialize_with = "some_duration")]
    pub(crate) rto: Option<Duration>,
}

/// Whether the write-ahead log is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wal {
    /// Copies only.
    #[default]
    Off,
    /// As it comes.
    Stream,
    /// And confirmed at once, for a server that waits for us at each commit.
    Synchronous,
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn a_week() -> Duration {
    Duration::from_secs(7 * 86_400)
}

fn ten_percent() -> u64 {
    10
}

/// Where keys are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Keys {
    pub(crate) directory: PathBuf,
    pub(crate) secrets: PathBuf,
}

impl Default for Keys {
    fn default() -> Self {
        Self { directory: PathBuf::from("keys"), secrets: PathBuf::from("secrets") }
    }
}

impl Settings {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the settings in {}; `reprieve init` makes them", path.display()))?;
        let mut settings: Self = toml::from_str(&text).with_context(|| format!("the settings in {} are not right", path.display()))?;
        settings.folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
        settings.file = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut names: Vec<&SystemName> = settings.system.iter().map(|system| &system.name).collect();
        names.sort();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            bail!("two systems are called `{}` in {}", pair[0], path.display());
        }
        let locked = settings.recovery.locked.is_some();
        let check = |system: &System| system.check().and_then(|()| system.check_stanza(locked));
        settings.system.iter().try_for_each(check).with_context(|| format!("the settings in {} are not right", path.display()))?;
        Ok(settings)
    }

    /// The databases.
    pub(crate) fn databases(&self) -> impl Iterator<Item = &System> {
        self.system.iter().filter(|system| system.kind == SystemKind::Postgres)
    }

    /// What can be copied.
    pub(crate) fn copyable(&self) -> impl Iterator<Item = &System> {
        self.system.iter().filter(|system| system.kind != SystemKind::Http)
    }

    /// The services.
    pub(crate) fn services(&self) -> impl Iterator<Item = &System> {
        self.system.iter().filter(|system| system.kind == SystemKind::Http)
    }

    /// A path of the file, from where the program runs.
    pub(crate) fn path(&self, path: &Path) -> PathBuf {
        if path.is_absolute() { path.to_owned() } else { self.folder.join(path) }
    }

    /// The SQLite file of the ledger.
    pub(crate) fn ledger_file(&self) -> anyhow::Result<PathBuf> {
        match self.ledger.store.strip_prefix("sqlite:") {
            Some(path) => Ok(self.path(Path::new(path))),
            None => bail!("`ledger.store` is `{}`; this version keeps its ledger in `sqlite:PATH` only", self.ledger.store),
        }
    }

    /// Where browsers find the console.
    pub(crate) fn console_origin(&self) -> anyhow::Result<ConsoleOrigin> {
        let local = || format!("https://localhost:{}", self.listen.operators.port());
        Ok(ConsoleOrigin::parse(&self.console.origin.clone().unwrap_or_else(local))?)
    }

    /// What a hold's id is appended to: its page, which carries no authority.
    pub(crate) fn hold_link(&self) -> anyhow::Result<String> {
        match &self.hold.link {
            Some(link) => Ok(link.clone()),
            None => Ok(format!("{}/holds/", self.console_origin()?.as_str())),
        }
    }

    /// One system by name.
    pub(crate) fn system(&self, name: &str) -> anyhow::Result<&System> {
        self.system.iter().find(|system| system.name.as_str() == name).with_context(|| {
            let names: Vec<&str> = self.system.iter().map(|system| system.name.as_str()).collect();
            format!("no system is called `{name}`; the settings have: {}", names.join(", "))
        })
    }
}

fn profile<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Profile, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(D::Error::custom)
}

pub(crate) fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

/// Reads `90s`, `15m`, `72h` or `30d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration: write 90s, 15m, 72h or 30d");
    let split = text.len().checked_sub(1).filter(|at| text.is_char_boundary(*at)).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds)).map(Duration::from_secs).ok_or_else(wrong)
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_bytes(&text).map_err(D::Error::custom)
}

fn some_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    bytes(deserializer).map(Some)
}

/// Reads `512MiB`, `20GiB` or `1TiB`.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size: write 512MiB, 20GiB or 1TiB");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let shift = match unit {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("72h"), Ok(Duration::from_secs(259_200)));
        for bad in ["", "h", "7", "7é", "-1s", "99999999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("20GiB"), Ok(20 << 30));
        for bad in ["", "20", "GiB", "1.5GiB", "1 GiB", "1GB", "99999999999TiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn unknown_keys_are_refused_with_their_line() {
        let error = toml::from_str::<Settings>("[hold]\nwayt = \"60s\"\n").expect_err("refused").to_string();
        assert!(error.contains("line 2") && error.contains("wayt"), "{error}");
    }
}
