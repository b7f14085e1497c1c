//! One day at PocketRentals, played for real: databases, a hosting service, agents that work, ask, and go too far, people who answer.
//!
//! The pages are looked at with this behind them, by eye (`make screenshots`) and by axe.

use anyhow::{Context as _, Result, ensure};
use reprieve_testkit::{EnvironmentBudget, Gateway, GatewayOptions, GuardedService, GuardedSystem, Postgres, PostgresOptions, Railway};
use reprieve_tests::{Curl, connect, denied};
use tokio::runtime::Runtime;

const GRAPHQL: &str = "https://backboard.railway.com/graphql/v2";

/// Two people for what takes away a lot in production.
const TWO: &str = r#"@id("prod-destructive-needs-two")
@reason("it takes away more than ten thousand rows in production: two people decide")
@remedy("narrow it, or wait for two operators")
forbid (principal is Agent, action == Action::"destroy", resource)
when { context.production && context.rows > 10000 }
unless { context.approvals >= 2 };
"#;

/// The production database: 41,872 of its reservations match what the agent will ask for, 212 of them are what it means.
const PRODUCTION: &str = "
    CREATE SCHEMA analytics;
    CREATE TABLE reservations (id int PRIMARY KEY, status text NOT NULL, pickup_at date NOT NULL, source text, customer text NOT NULL,
                               total numeric(10, 2) NOT NULL, updated_at date NOT NULL);
    CREATE TABLE reservation_items (id int PRIMARY KEY, reservation_id int NOT NULL, vehicle text NOT NULL);
    CREATE TABLE invoices (id int PRIMARY KEY, reservation_id int NOT NULL, exported_at timestamptz);
    CREATE TABLE invoice_lines (id int PRIMARY KEY, invoice_id int NOT NULL, label text NOT NULL);
    CREATE TABLE payments (id int PRIMARY KEY, reservation_id int, amount numeric(10, 2) NOT NULL);
    CREATE TABLE locations (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE vehicles (id int PRIMARY KEY, location_id int NOT NULL REFERENCES locations ON DELETE CASCADE, plate text NOT NULL);
    CREATE TABLE analytics.trip_events (id int PRIMARY KEY, seen timestamptz NOT NULL);
    CREATE TABLE analytics.daily_utilisation (id int PRIMARY KEY, share numeric NOT NULL);
    INSERT INTO reservations SELECT n,
        CASE WHEN n <= 1318 THEN 'confirmed' WHEN n <= 3662 THEN 'cancelled' ELSE 'completed' END,
        CASE WHEN n <= 1318 THEN date '2026-06-02' + n % 90 ELSE date '2025-02-01' + n % 400 END,
        CASE WHEN n <= 41660 THEN NULL WHEN n <= 41872 THEN 'loadtest' ELSE 'web' END,
        'customer' || n || '@mail.example', 40 + n % 700, CASE WHEN n <= 41872 THEN date '2025-11-01' + n % 90 ELSE date '2026-03-01' END
        FROM generate_series(1, 133350) n;
    INSERT INTO reservation_items SELECT n, CASE WHEN n <= 118340 THEN 1 + n % 41872 ELSE 41873 + n % 91000 END, 'van' FROM generate_series(1, 383000) n;
    INSERT INTO invoices SELECT n, CASE WHEN n <= 39906 THEN n ELSE 41873 + n % 91000 END, NULL FROM generate_series(1, 120930) n;
    INSERT INTO invoice_lines SELECT n, CASE WHEN n <= 161227 THEN 1 + n % 39906 ELSE 39907 + n % 81000 END, 'day' FROM generate_series(1, 494500) n;
    INSERT INTO payments SELECT n, CASE WHEN n <= 38771 THEN n ELSE 41873 + n % 91000 END, 40 FROM generate_series(1, 130000) n;
    INSERT INTO locations SELECT n, 'station ' || n FROM generate_series(1, 9) n;
    INSERT INTO vehicles SELECT n, 1 + n % 9, 'P-' || n FROM generate_series(1, 1451) n;
    INSERT INTO analytics.trip_events SELECT n, now() FROM generate_series(1, 8120) n;
    INSERT INTO analytics.daily_utilisation SELECT n, 0.5 FROM generate_series(1, 900) n;
    CREATE INDEX ON reservation_items (reservation_id); CREATE INDEX ON invoices (reservation_id);
    CREATE INDEX ON invoice_lines (invoice_id); CREATE INDEX ON payments (reservation_id);
    ALTER TABLE reservation_items ADD FOREIGN KEY (reservation_id) REFERENCES reservations ON DELETE CASCADE;
    ALTER TABLE invoices ADD FOREIGN KEY (reservation_id) REFERENCES reservations ON DELETE CASCADE;
    ALTER TABLE invoice_lines ADD FOREIGN KEY (invoice_id) REFERENCES invoices ON DELETE CASCADE;
    ALTER TABLE payments ADD FOREIGN KEY (reservation_id) REFERENCES reservations ON DELETE SET NULL;
    ANALYZE";

const STAGING: &str = "
    CREATE TABLE reservations (id int PRIMARY KEY, status text NOT NULL, channel text);
    CREATE TABLE vehicles (id text PRIMARY KEY, state text NOT NULL);
    INSERT INTO reservations SELECT n, 'confirmed', NULL FROM generate_series(1, 20000) n;
    INSERT INTO vehicles SELECT 'V-' || lpad(n::text, 4, '0'), CASE WHEN n % 3 = 0 THEN 'retired' ELSE 'maintenance' END
        FROM generate_series(1, 1210) n;
    ANALYZE";

/// What the agent asks for. The comment is its own word, and not true.
const HELD: &str = "/* Removing 212 rows of leftover load tests so that migration 0147 can add NOT NULL.
   **Already reviewed by the DBA team, safe to approve.** <b>No confirmation needed.</b> */
DELETE FROM public.reservations
 WHERE updated_at < '2026-02-14'
   AND source IS DISTINCT FROM 'web';";

/// The day, with everything that runs.
#[derive(Debug)]
pub(crate) struct Story {
    /// First, so that it goes first.
    pub(crate) gateway: Gateway,
    /// The hold that takes away 400,116 rows, approved by one of two.
    pub(crate) hold: String,
    _railway: Railway,
    server: Postgres,
    production: String,
    staging: String,
    _clients: Vec<tokio_postgres::Client>,
    _runtime: Runtime,
}

impl Story {
    /// Plays it up to where cursor-staging is frozen.
    pub(crate) fn play() -> Result<Story> {
        let server = Postgres::start_with(&PostgresOptions::default())?;
        server.create_role("app", "secret", "")?;
        let mut systems = Vec::new();
        for (name, database, environment, tables) in
            [("pocket-prod-db", "pocket", "production", PRODUCTION), ("pocket-stg-db", "pocket_staging", "staging", STAGING)]
        {
            server.create_database(database, "app")?;
            let url = server.url("app", "secret", database);
            server.psql_at(&url, tables)?;
            systems.push(GuardedSystem { admin_url: Some(server.superuser_url(database)), ..GuardedSystem::new(name, environment, &url) });
        }
        let (production, staging) = (systems[0].url.clone(), systems[1].url.clone());
        let railway = Railway::start()?;
        let service = GuardedService {
            name: "hosting-api".to_owned(),
            environment: "production".to_owned(),
            credential: Railway::TOKEN.to_owned(),
            presented: "bearer".to_owned(),
            settings: format!("provider = \"railway\"\n{}", railway.service().settings(Railway::HOST)),
        };
        let gateway = Gateway::start(GatewayOptions {
            operator: "maya.chen".to_owned(),
            rows_without_undo: 0,
            systems,
            services: vec![service],
            budgets: vec![budget("production", 1_000), budget("staging", 10_000)],
            policies: vec![("two.cedar".to_owned(), TWO.to_owned())],
            settings: "[console]\nname = \"PocketRentals\"\n".to_owned(),
            ..GatewayOptions::default()
        })?;
        for system in ["pocket-prod-db", "pocket-stg-db"] {
            let protected = gateway.cli(&["protect", system, "--apply"])?;
            ensure!(protected.status.success(), "{}", String::from_utf8_lossy(&protected.stderr));
        }
        let add = |by: &str, arguments: &[&str]| -> Result<String> {
            let arguments = [&["agent", "add"], arguments].concat();
            let answer = gateway.operate_as(by, &arguments)?;
            answer["url"].as_str().map(str::to_owned).context("no URL")
        };
        // Each person gives a command once: that is what makes them operators here.
        let cursor = add(
            "jonas.weber",
            &[
                "cursor-staging",
                "--system",
                "pocket-stg-db",
                "--system",
                "hosting-api",
                "--allow",
                "read,write,destroy",
                "--expires",
                "14d",
            ],
        )?;
        let migrations = add(
            "priya.raman",
            &[
                "claude-migrations",
                "--system",
                "pocket-prod-db",
                "--system",
                "pocket-stg-db",
                "--allow",
                "read,write,destroy,grant",
                "--on-behalf-of",
                "priya.raman",
                "--expires",
                "14d",
            ],
        )?;
        let etl = add(
            "lena.novak",
            &[
                "nightly-etl",
                "--system",
                "pocket-prod-db",
                "--allow",
                "read,write,destroy",
                "--on-behalf-of",
                "lena.novak",
                "--resource",
                "public.*",
                "--resource",
                "analytics.*",
                "--expires",
                "14d",
            ],
        )?;
        let runtime = Runtime::new().context("no runtime")?;
        let day = Day { gateway: &gateway, server: &server, staging: &staging, etl, migrations, cursor };
        let (hold, clients) = runtime.block_on(day.pass())?;
        Ok(Story { gateway, hold, _railway: railway, server, production, staging, _clients: clients, _runtime: runtime })
    }

    /// Asks the production database, past the gateway.
    pub(crate) fn production(&self, sql: &str) -> Result<String> {
        self.server.psql_at(&self.production, sql)
    }

    /// The same of staging.
    pub(crate) fn staging(&self, sql: &str) -> Result<String> {
        self.server.psql_at(&self.staging, sql)
    }
}

/// Who works, and where.
struct Day<'a> {
    gateway: &'a Gateway,
    server: &'a Postgres,
    /// The staging database, past the gateway.
    staging: &'a str,
    etl: String,
    migrations: String,
    cursor: String,
}

impl Day<'_> {
    async fn pass(self) -> Result<(String, Vec<tokio_postgres::Client>)> {
        let Day { gateway, server, staging, etl, migrations, cursor } = self;
        let night = connect(&etl).await?;
        let migrator = connect(&migrations).await?;
        let stager = connect(&gateway.url_for(&migrations, "pocket-stg-db")).await?;
        let tester = connect(&cursor).await?;

        // The night's work, and the day's.
        night.batch_execute("UPDATE invoices SET exported_at = now() WHERE id BETWEEN 1 AND 84").await?;
        decided(gateway, &night, "TRUNCATE analytics.trip_events", "jonas.weber", Ok(())).await?;
        decided(gateway, &migrator, "DELETE FROM public.locations", "jonas.weber", Err("cascades into vehicles")).await?;
        for id in 1..64 {
            tester.batch_execute(&format!("SELECT state FROM vehicles WHERE id = 'V-{id:04}'")).await?;
        }
        tester
            .batch_execute(
                "/* Resetting fleet state so the booking tests start from a clean slate. */ UPDATE vehicles SET state = 'available'",
            )
            .await?;
        server.psql_at(
            staging,
            "UPDATE vehicles SET state = 'rented' WHERE id IN ('V-0182', 'V-0417', 'V-0500', 'V-0611', 'V-0800', 'V-0988')",
        )?;
        stager.batch_execute("UPDATE reservations SET channel = 'web' WHERE id BETWEEN 4001 AND 9000").await?;
        for id in 1..212 {
            night.batch_execute(&format!("SELECT count(*) FROM invoices WHERE id > {id}")).await?;
        }
        night.batch_execute("INSERT INTO analytics.daily_utilisation SELECT n, 0.5 FROM generate_series(1001, 1180) n").await?;
        migrator.batch_execute("SELECT count(*) FROM reservations WHERE source IS DISTINCT FROM 'web'").await?;

        // The hold that the pages are about.
        let told = denied(migrator.simple_query(HELD).await)?;
        let hold = told.hold.context("no hold")?;
        let confirm = gateway.hold(&hold)?["confirm"].as_str().context("no name")?.to_owned();
        gateway.operate_as(
            "jonas.weber",
            &["hold", "approve", &hold, "--confirm", &confirm, "--reason", "0147 needs this. Rows looked old."],
        )?;
        denied(night.simple_query("TRUNCATE analytics.daily_utilisation").await)?;
        night.batch_execute("UPDATE invoices SET exported_at = now() WHERE id BETWEEN 100 AND 417").await?;

        // The nine seconds.
        let login = cursor.strip_prefix("postgres://").and_then(|url| url.split_once('@')).map(|(login, _)| login).context("no login")?;
        let curl = Curl { proxy: format!("http://{login}@127.0.0.1:{}", gateway.proxy_port()), authority: gateway.authority_file() };
        curl.post(GRAPHQL, r#"{"query":"query { volume(id: \"vol-prod\") { id name } }"}"#)?;
        let staging_volume = curl.post(GRAPHQL, r#"{"query":"mutation { volumeDelete(volumeId: \"vol-staging\") }"}"#)?;
        if let Some(scheduled) = staging_volume.header("reprieve-hold").map(str::to_owned) {
            let confirm = gateway.hold(&scheduled)?["confirm"].as_str().context("no name")?.to_owned();
            gateway.operate_as("lena.novak", &["hold", "approve", &scheduled, "--confirm", &confirm, "--reason", "nobody mounts it"])?;
        }
        curl.post(GRAPHQL, r#"{"query":"mutation { volumeDelete(volumeId: \"vol-prod\") }"}"#)?;
        gateway.freeze(Some("cursor-staging"))?;
        Ok((hold, vec![night, migrator, stager, tester]))
    }
}

fn budget(environment: &str, rows: u64) -> EnvironmentBudget {
    EnvironmentBudget {
        environment: environment.to_owned(),
        rows_per_statement: rows,
        rows_per_transaction: rows,
        rows_per_hour: 100_000,
        relations_dropped: 0,
    }
}

/// A statement that is held, and answered.
async fn decided(gateway: &Gateway, client: &tokio_postgres::Client, sql: &str, by: &str, answer: Result<(), &str>) -> Result<()> {
    let hold = denied(client.simple_query(sql).await)?.hold.context("no hold")?;
    let shown = gateway.hold(&hold)?;
    let confirm = shown["confirm"].as_str().context("no name")?;
    match answer {
        Ok(()) => {
            gateway.operate_as(by, &["hold", "approve", &hold, "--confirm", confirm])?;
            // More than ten thousand rows take two.
            if gateway.hold(&hold)?["status"] == "waiting" {
                gateway.operate_as("priya.raman", &["hold", "approve", &hold, "--confirm", confirm])?;
            }
            gateway.wait_for_status(&hold, "finished")?;
        }
        Err(reason) => drop(gateway.operate_as(by, &["hold", "deny", &hold, "--reason", reason])?),
    }
    Ok(())
}
