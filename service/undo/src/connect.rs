//! The login by which Reprieve itself works in a protected database: to set it up, and to bring back what was changed.

use std::{sync::Arc, time::Duration};

use tokio_postgres::{Client, NoTls, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::UndoError;

/// Where a protected database is, and the administrator's login for it. Prints no password.
#[derive(Clone)]
pub struct Login {
    config: tokio_postgres::Config,
    tls: Arc<rustls::ClientConfig>,
}

impl Login {
    /// A login with everything spelled out. `encrypted`: `Some(true)` is a must, `None` is if the server has it.
    #[must_use]
    pub fn new(
        host: &str,
        port: u16,
        user: &str,
        password: &str,
        database: &str,
        encrypted: Option<bool>,
        tls: Arc<rustls::ClientConfig>,
    ) -> Self {
        let mut config = tokio_postgres::Config::new();
        config.host(host).port(port).user(user).password(password).dbname(database).application_name("reprieve: undo");
        config.ssl_mode(match encrypted {
            Some(true) => SslMode::Require,
            None => SslMode::Prefer,
            Some(false) => SslMode::Disable,
        });
        config.connect_timeout(Duration::from_secs(10));
        Self { config, tls }
    }

    /// The login as a URL, for PostgreSQL's own programs. Holds the password.
    pub(crate) fn url(&self) -> String {
        let encode = |bytes: &[u8]| bytes.iter().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let host = self.config.get_hosts().first().map_or_else(String::new, |host| match host {
            tokio_postgres::config::Host::Tcp(name) => name.clone(),
            tokio_postgres::config::Host::Unix(path) => encode(path.as_os_str().as_encoded_bytes()),
        });
        let mode = match self.config.get_ssl_mode() {
            SslMode::Disable => "disable",
            SslMode::Require => "require",
            _ => "prefer",
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        format!(
            "postgres://{}:{}@{host}:{}/{}?sslmode={mode}",
            encode(self.config.get_user().unwrap_or_default().as_bytes()),
            encode(self.config.get_password().unwrap_or_default()),
            self.config.get_ports().first().copied().unwrap_or(5432),
            encode(self.config.get_dbname().unwrap_or_default().as_bytes())
        )
    }

    /// A connection, served in the background until the client is dropped.
    pub(crate) async fn connect(&self) -> Result<Client, UndoError> {
        let lost = |error: tokio_postgres::Error| tracing::debug!(%error, "a connection for undo ended");
        if self.config.get_ssl_mode() == SslMode::Disable {
            let (client, connection) = self.config.connect(NoTls).await?;
            tokio::spawn(async move { connection.await.unwrap_or_else(lost) });
            return Ok(client);
        }
        let (client, connection) = self.config.connect(MakeRustlsConnect::new((*self.tls).clone())).await?;
        tokio::spawn(async move { connection.await.unwrap_or_else(lost) });
        Ok(client)
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.config.get_user()).field("database", &self.config.get_dbname()).finish_non_exhaustive()
    }
}
