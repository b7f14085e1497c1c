//! The company: PocketRentals on a throw-away PostgreSQL, and the superuser's own view of its rows.
//!
//! What the superuser counts here owes nothing to the gateway: it is what the demo's claims are checked against.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use reprieve_operation::TableReach;
use reprieve_testkit::Postgres;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

const ROLES: &str = include_str!("../../../demo/roles.sql");
const SCHEMA: &str = include_str!("../../../demo/schema.sql");
const SEED: &str = include_str!("../../../demo/seed.sql");

/// The production database.
pub(crate) const PRODUCTION: &str = "pocket_prod";
/// The staging database.
pub(crate) const STAGING: &str = "pocket_staging";

/// A server with both databases.
pub(crate) struct Company {
    server: Postgres,
    password: String,
}

/// One table: how many rows, and a digest of all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) rows: u64,
    digest: String,
}

/// Every table of a database.
pub(crate) type Tables = BTreeMap<String, Table>;

/// What statements would do, found out by running them and rolling back.
pub(crate) struct Rehearsal {
    /// Rows by table, before.
    pub(crate) before: Tables,
    /// What the statements touched.
    pub(crate) touched: BTreeMap<String, TableReach>,
    /// Every table as it would be afterwards.
    pub(crate) after: Tables,
}

impl Company {
    pub(crate) fn start() -> anyhow::Result<Self> {
        Ok(Self { server: Postgres::start()?, password: format!("{:032x}", rand::random::<u128>()) })
    }

    pub(crate) fn version(&self) -> &str {
        self.server.binaries().version()
    }

    /// Makes both databases and fills them.
    pub(crate) async fn seed(&self) -> anyhow::Result<()> {
        let root = self.superuser("postgres").await?;
        root.batch_execute(ROLES).await.context("cannot make the roles")?;
        for role in ["agent_migrations", "agent_cursor_staging", "copies"] {
            root.batch_execute(&format!("ALTER ROLE {role} PASSWORD '{}'", self.password)).await?;
        }
        for database in [PRODUCTION, STAGING] {
            root.batch_execute(&format!("CREATE DATABASE {database} OWNER appowner")).await?;
        }
        tokio::try_join!(self.fill(PRODUCTION, "production"), self.fill(STAGING, "staging"))?;
        Ok(())
    }

    async fn fill(&self, database: &str, environment: &str) -> anyhow::Result<()> {
        let client = self.superuser(database).await?;
        client.batch_execute(&format!("SET pocket.environment = '{environment}'")).await?;
        client.batch_execute(SCHEMA).await.with_context(|| format!("cannot make the tables of `{database}`"))?;
        client.batch_execute(SEED).await.with_context(|| format!("cannot fill the tables of `{database}`"))
    }

    /// The URL the gateway gets: agents never see it.
    pub(crate) fn upstream_url(&self, role: &str, database: &str) -> String {
        self.server.url(role, &self.password, database)
    }

    pub(crate) fn superuser_url(&self, database: &str) -> String {
        self.server.superuser_url(database)
    }

    /// A session of the superuser, past the gateway.
    pub(crate) async fn superuser(&self, database: &str) -> anyhow::Result<Client> {
        connect(&self.superuser_url(database)).await.map_err(anyhow::Error::from)
    }

    /// The server is killed and its data directory removed, as by somebody with rights on the machine.
    pub(crate) fn lose_everything(&mut self) -> anyhow::Result<()> {
        self.server.lose_data()
    }

    /// Where its data is.
    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.server.socket_folder().join("data")
    }

    /// Starts the server again, over whatever its data directory has now.
    pub(crate) fn resume(&mut self) -> anyhow::Result<()> {
        self.server.resume()
    }

    /// Runs statements in production as superuser, looks, and rolls back.
    pub(crate) async fn rehearse(&self, statements: &[&str]) -> anyhow::Result<Rehearsal> {
        // A new session each time: the counters of one session carry over from one transaction to the next.
        let client = self.superuser(PRODUCTION).await?;
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        let before = tables(&client).await?;
        for statement in statements {
            client.batch_execute(statement).await?;
        }
        let touched = touched(&client).await?;
        let after = tables(&client).await?;
        client.batch_execute("ROLLBACK").await?;
        Ok(Rehearsal { before, touched, after })
    }

    /// What statements touch, without looking at every row.
    pub(crate) async fn measure(&self, statement: &str) -> anyhow::Result<BTreeMap<String, TableReach>> {
        let client = self.superuser(PRODUCTION).await?;
        client.batch_execute("BEGIN").await?;
        client.batch_execute(statement).await?;
        let touched = touched(&client).await?;
        client.batch_execute("ROLLBACK").await?;
        Ok(touched)
    }

    /// Every table of production as it is now.
    pub(crate) async fn tables(&self) -> anyhow::Result<Tables> {
        tables(&self.superuser(PRODUCTION).await?).await
    }

    /// Whether some session runs exactly this statement.
    pub(crate) async fn is_running(&self, statement: &str) -> anyhow::Result<bool> {
        let client = self.superuser(PRODUCTION).await?;
        let query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = $1";
        Ok(client.query_one(query, &[&statement]).await?.get::<_, i64>(0) > 0)
    }
}

/// A connection, kept going by a task that ends with it.
pub(crate) async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// All tables with a digest over all their rows, whatever order these come in.
async fn tables(client: &Client) -> anyhow::Result<Tables> {
    let names = "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') ORDER BY 1";
    let mut found = Tables::new();
    for row in client.query(names, &[]).await? {
        let name: String = row.get(0);
        let query = format!("SELECT count(*), coalesce(sum(hashtextextended(one::text, 0)::numeric), 0)::text FROM public.{name} AS one");
        let row = client.query_one(&query, &[]).await.with_context(|| format!("cannot read `{name}`"))?;
        found.insert(name, Table { rows: row.get::<_, i64>(0).try_into()?, digest: row.get(1) });
    }
    if found.is_empty() {
        bail!("there are no tables left");
    }
    Ok(found)
}

async fn touched(client: &Client) -> anyhow::Result<BTreeMap<String, TableReach>> {
    let query = "SELECT schemaname || '.' || relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_xact_user_tables
        WHERE n_tup_ins + n_tup_upd + n_tup_del > 0 AND schemaname NOT IN ('reprieve', 'reprieve_recovery')";
    let mut found = BTreeMap::new();
    for message in client.simple_query(query).await? {
        if let SimpleQueryMessage::Row(row) = message {
            let number = |index: usize| row.get(index).unwrap_or_default().parse::<u64>();
            let reach = TableReach { inserted: number(1)?, updated: number(2)?, deleted: number(3)? };
            found.insert(row.get(0).unwrap_or_default().to_owned(), reach);
        }
    }
    Ok(found)
}

/// Rows in all tables.
pub(crate) fn rows(tables: &Tables) -> u64 {
    tables.values().map(|table| table.rows).sum()
}
