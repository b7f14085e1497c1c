//! A site: one database `shop`, guarded twice, as `shop` (production) and as `lab` (staging).

use anyhow::{Context, Result, bail};
use reprieve_testkit::{Gateway, GatewayOptions, GuardedSystem, Postgres, PostgresOptions};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// A PostgreSQL and a gateway in front of it.
#[derive(Debug)]
pub struct Site {
    /// The gateway. First, so that it goes first.
    pub gateway: Gateway,
    /// The server.
    pub server: Postgres,
}

impl Site {
    /// Starts both, with the database's owner as the gateway's role.
    pub fn open(options: GatewayOptions) -> Result<Site> {
        let server = Postgres::start_with(&PostgresOptions::default())?;
        server.create_role("app", "secret", "")?;
        server.create_database("shop", "app")?;
        let url = server.url("app", "secret", "shop");
        let systems = vec![GuardedSystem::new("shop", "production", &url), GuardedSystem::new("lab", "staging", &url)];
        let gateway = Gateway::start(GatewayOptions { systems, ..options })?;
        Ok(Site { gateway, server })
    }

    /// The owner's URL, past the gateway.
    pub fn direct_url(&self) -> String {
        self.server.url("app", "secret", "shop")
    }

    /// Runs SQL as the owner, past the gateway.
    pub fn direct(&self, sql: &str) -> Result<String> {
        self.server.psql_at(&self.direct_url(), sql)
    }

    /// Makes a table of `rows` rows, numbered from 1, with a text each.
    pub fn table(&self, name: &str, rows: u32) -> Result<()> {
        self.direct(&format!(
            "CREATE TABLE {name} (id int PRIMARY KEY, word text NOT NULL DEFAULT 'x');
             INSERT INTO {name} SELECT n, 'word ' || n FROM generate_series(1, {rows}) n; ANALYZE {name}"
        ))?;
        Ok(())
    }

    /// How many rows a table has, past the gateway.
    pub fn count(&self, table: &str) -> Result<u64> {
        self.direct(&format!("SELECT count(*) FROM {table}"))?.parse().context("a count is a number")
    }

    /// A new agent for `shop` with every kind of right, and its URL.
    pub fn agent(&self, name: &str) -> Result<String> {
        self.gateway.agent(name, &["shop", "lab"], "read,write,destroy,grant")
    }
}

/// Connects without TLS; the connection is driven in the background, its notices are dropped.
pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// What a client was told instead of a result.
#[derive(Debug)]
pub struct Denied {
    /// The SQLSTATE.
    pub code: String,
    /// The message.
    pub message: String,
    /// DETAIL.
    pub detail: String,
    /// HINT.
    pub hint: String,
    /// The hold that the message names, if it names one.
    pub hold: Option<String>,
}

/// The error that a text was answered with. A result is an error.
pub fn denied(result: Result<Vec<SimpleQueryMessage>, tokio_postgres::Error>) -> Result<Denied> {
    let error = match result {
        Ok(messages) => bail!("it was answered with a result of {} messages", messages.len()),
        Err(error) => error,
    };
    let said = error.as_db_error().with_context(|| format!("not an error of the server: {error}"))?;
    let words = said.message().split([' ', ':']);
    let hold = words.into_iter().find(|word| word.strip_prefix("H-").is_some_and(|number| number.parse::<u64>().is_ok()));
    Ok(Denied {
        code: said.code().code().to_owned(),
        message: said.message().to_owned(),
        detail: said.detail().unwrap_or_default().to_owned(),
        hint: said.hint().unwrap_or_default().to_owned(),
        hold: hold.map(str::to_owned),
    })
}
