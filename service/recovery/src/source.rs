//! The source: a protected database and the login that copies are made with, a role of its own.
//!
//! It is spoken to by `psql` and its sisters only, so that every way to encrypt and to log in works that works by hand.
//! The password goes by the environment: command lines are everybody's to read.

use std::{fmt, process::Command, time::Duration};

use serde::de::DeserializeOwned;

use crate::{
    RecoveryError, Tools,
    tools::{run, run_with},
};

/// The authorities that `Verify` trusts.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Settings that a database or a role may have of its own, and that don't hold for us: they may name a library that is not here.
const OVERRULED: &str = "-c search_path=public -c default_transaction_read_only=off -c statement_timeout=0 -c lock_timeout=0 \
                         -c role=none -c session_preload_libraries= -c local_preload_libraries=";

/// How a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// Not.
    Off,
    /// If the server can.
    Prefer,
    /// Or there is none.
    Require,
    /// And the server has to be who it says it is.
    Verify,
}

/// Where a database is, and the login for it. Prints no password.
#[derive(Clone)]
pub struct Source {
    /// Name, address, or a folder with a socket.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The role.
    pub user: String,
    /// Its password.
    pub password: String,
    /// The database.
    pub database: String,
    /// How the connection is encrypted.
    pub encryption: Encryption,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({}@{}:{}/{})", self.user, self.host, self.port, self.database)
    }
}

impl Source {
    /// `host:port/database`, for people.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}/{}", self.host, self.port, self.database)
    }

    /// The same login for another database.
    pub(crate) fn on(&self, database: &str) -> Self {
        Self { database: database.to_owned(), ..self.clone() }
    }

    /// Tells a program of PostgreSQL's where to connect.
    pub(crate) fn tell<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let mode = match self.encryption {
            Encryption::Off => "disable",
            Encryption::Prefer => "prefer",
            Encryption::Require => "require",
            Encryption::Verify => "verify-full",
        };
        command.env("PGHOST", &self.host).env("PGPORT", self.port.to_string()).env("PGUSER", &self.user);
        command.env("PGPASSWORD", &self.password).env("PGDATABASE", &self.database).env("PGSSLMODE", mode);
        if self.encryption == Encryption::Verify {
            command.env("PGSSLROOTCERT", AUTHORITIES);
        }
        if self.host.starts_with('/') {
            // What the owner of a database set for it must not lead our questions to other tables, or keep them from being asked.
            command.env("PGOPTIONS", OVERRULED);
        }
        command.env("PGCONNECT_TIMEOUT", "10").env("PGAPPNAME", "reprieve: recovery").env("PGCLIENTENCODING", "UTF8")
    }

    /// Runs SQL and gives what it printed: values without decoration.
    pub(crate) fn sql(&self, tools: &Tools, sql: &str, within: Duration) -> Result<String, RecoveryError> {
        let mut command = tools.client("psql");
        self.tell(&mut command).args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        run_with(command, sql.to_owned(), within)
    }

    /// Runs a command of the replication protocol.
    pub(crate) fn replication(&self, tools: &Tools, command: &str, within: Duration) -> Result<String, RecoveryError> {
        let mut psql = tools.client("psql");
        self.tell(&mut psql).args(["-X", "-q", "-A", "-t", "-d", "replication=true", "-c", command]).env_remove("PGDATABASE");
        // Settings of a session are nothing that this protocol knows.
        psql.env_remove("PGOPTIONS");
        run(psql, within)
    }

    /// Runs a query that answers one JSON value.
    pub(crate) fn json<T: DeserializeOwned>(&self, tools: &Tools, sql: &str, within: Duration) -> Result<T, RecoveryError> {
        let text = self.sql(tools, sql, within)?;
        serde_json::from_str(&text).map_err(|error| RecoveryError::Damaged(format!("`psql` answered something else: {error}")))
    }
}
