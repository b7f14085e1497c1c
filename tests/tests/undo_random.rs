//! Random changes of rows and of definitions together, through the gateway: a state, what an agent does to it, the undo, and the same
//! state again, catalogue included. A statement that the server itself refuses is no harm.
//!
//! A few cases as part of every run; `REPRIEVE_CASES=200 cargo nextest run -p reprieve-tests --test undo_random --no-capture` for more,
//! and `REPRIEVE_SEED=17 REPRIEVE_CASES=1` to see one again.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use reprieve_testkit::{EnvironmentBudget, Gateway, GatewayOptions, GuardedSystem, Postgres, PostgresOptions};
use reprieve_tests::{Site, State, connect};

/// What every case starts with: keys and none, a foreign key, partitions, and what hangs on tables.
const START: &str = r#"
CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE FUNCTION twice(x int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT x * 2';
CREATE TABLE a (id int PRIMARY KEY, word text DEFAULT 'w', price numeric(8,2), m mood DEFAULT 'ok', days positive, g int GENERATED ALWAYS AS (id * 2) STORED);
INSERT INTO a SELECT n, 'a' || n, n + 0.5, 'sad', n FROM generate_series(1, 40) n;
CREATE TABLE b (id serial PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE, word text CHECK (word <> ''), price int);
INSERT INTO b (a, word, price) SELECT 1 + n % 40, 'b' || n, n FROM generate_series(1, 60) n;
CREATE TABLE "C c" (id int NOT NULL, word text, price int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE "C 1" PARTITION OF "C c" FOR VALUES FROM (0) TO (20); CREATE TABLE "C 2" PARTITION OF "C c" FOR VALUES FROM (20) TO (99);
INSERT INTO "C c" SELECT n, 'c' || n, n FROM generate_series(1, 40) n;
CREATE TABLE d (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, word varchar(40), price float8, tags text[]);
INSERT INTO d (word, price, tags) SELECT 'd' || n, n / 3.0, ARRAY['t', n::text] FROM generate_series(1, 30) n;
CREATE INDEX i1 ON a (word); CREATE UNIQUE INDEX i2 ON b (id) WHERE price > 3;
CREATE VIEW v1 AS SELECT a.id, a.word, count(b.id) AS n FROM a LEFT JOIN b ON b.a = a.id GROUP BY a.id; CREATE VIEW v2 AS SELECT word FROM d;
COMMENT ON COLUMN b.word IS 'a word'; GRANT SELECT ON d TO PUBLIC; CREATE SEQUENCE q1 START 7"#;

/// A small generator of numbers: the same seed gives the same case.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[usize::try_from(self.below(list.len() as u64)).unwrap_or(0)]
    }

    fn table(&mut self) -> &'static str {
        self.of(&["a", "b", "\"C c\"", "d"])
    }

    fn statement(&mut self) -> String {
        if self.below(2) == 0 { self.rows() } else { self.definition() }
    }

    fn rows(&mut self) -> String {
        let (table, step, low) = (self.table(), 2 + self.below(4), self.below(40));
        match self.below(9) {
            0 => format!("DELETE FROM {table} WHERE id % {step} = 0"),
            1 => format!("DELETE FROM {table} WHERE id > {low}"),
            2 => format!("UPDATE {table} SET word = word || '!' WHERE id % {step} = 1"),
            3 => format!("UPDATE {table} SET price = price + 1"),
            4 => format!("UPDATE {table} SET id = id + 50 WHERE id < {low}"),
            5 => format!("INSERT INTO a (id, word, price, days) SELECT n, 'new', 0, 1 FROM generate_series({0}, {0} + 5) n", 60 + low),
            6 => format!("INSERT INTO {} (word, price) VALUES ('new', 1), ('newer', {low})", self.of(&["b", "d"])),
            7 => format!("TRUNCATE {table} CASCADE"),
            _ => format!("INSERT INTO \"C c\" SELECT n, 'moved', 1 FROM generate_series(41, 41 + {step}) n"),
        }
    }

    fn definition(&mut self) -> String {
        let (table, number) = (self.table(), self.below(3));
        let column = self.of(&["word", "price", "m", "days", "extra", "a"]);
        match self.below(24) {
            0 => format!("ALTER TABLE {table} ADD COLUMN extra int DEFAULT {number}"),
            1 => format!("ALTER TABLE {table} ADD COLUMN late text"),
            2 | 3 => format!("ALTER TABLE {table} DROP COLUMN {column} CASCADE"),
            4 => format!("ALTER TABLE {table} ALTER COLUMN price TYPE {}", self.of(&["int", "text", "numeric(4,1)", "bigint"])),
            5 => format!("ALTER TABLE {table} ALTER COLUMN word TYPE varchar(90)"),
            6 => format!("ALTER TABLE {table} RENAME COLUMN {column} TO \"N {number}\""),
            7 => format!("ALTER TABLE {table} RENAME TO e{number}"),
            8 | 9 => format!("DROP TABLE {table} CASCADE"),
            10 => format!("CREATE TABLE f{number} AS SELECT * FROM {table}"),
            11 => format!("CREATE TABLE f{number} (id serial PRIMARY KEY, m mood, a int REFERENCES a)"),
            12 => format!("CREATE INDEX n{number} ON {table} (word, price)"),
            13 => format!("DROP INDEX i{}", 1 + number % 2),
            14 => format!("DROP VIEW v{}", 1 + number % 2),
            15 => format!("CREATE VIEW w{number} AS SELECT word, price FROM {table}"),
            16 => format!("ALTER TYPE mood {}", self.of(&["ADD VALUE 'glad'", "RENAME VALUE 'sad' TO 'blue'", "RENAME TO feeling"])),
            17 => "ALTER TABLE b DROP CONSTRAINT b_a_fkey".to_owned(),
            18 => format!("ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL"),
            19 => self
                .of(&[
                    "ALTER TABLE \"C c\" DETACH PARTITION \"C 1\"",
                    "DROP TABLE \"C 2\"",
                    "CREATE TABLE \"C 3\" PARTITION OF \"C c\" DEFAULT",
                ])
                .to_owned(),
            20 => format!("COMMENT ON TABLE {table} IS 'said {number}'"),
            21 => self.of(&["GRANT UPDATE ON d TO PUBLIC", "REVOKE SELECT ON d FROM PUBLIC"]).to_owned(),
            22 => self
                .of(&["DROP FUNCTION twice(int)", "DROP TYPE mood CASCADE", "DROP DOMAIN positive CASCADE", "DROP SEQUENCE q1"])
                .to_owned(),
            _ => self.of(&["ALTER SEQUENCE q1 INCREMENT 5", "CREATE SCHEMA attic", "ALTER TABLE d SET SCHEMA attic"]).to_owned(),
        }
    }
}

fn site() -> Result<Site> {
    let server = Postgres::start_with(&PostgresOptions::default())?;
    server.create_role("app", "secret", "")?;
    server.create_database("shop", "app")?;
    let system = GuardedSystem {
        admin_url: Some(server.superuser_url("shop")),
        ..GuardedSystem::new("shop", "production", &server.url("app", "secret", "shop"))
    };
    let budget = EnvironmentBudget {
        environment: "production".to_owned(),
        rows_per_statement: 1_000,
        rows_per_transaction: 10_000,
        rows_per_hour: 1_000_000,
        relations_dropped: 0,
    };
    let options = GatewayOptions {
        systems: vec![system],
        wait: "0s".to_owned(),
        open_holds: 1_000,
        budgets: vec![budget],
        rows_without_undo: 0,
        ..GatewayOptions::default()
    };
    Ok(Site { gateway: Gateway::start(options)?, server })
}

/// Runs a text as the agent, and agrees to whatever it is held for. Answers whether it took place.
async fn done(site: &Site, client: &tokio_postgres::Client, text: &str) -> Result<bool> {
    let mut failed = 0;
    while failed < 3 {
        let Err(error) = client.batch_execute(text).await else { return Ok(true) };
        let said = error.as_db_error().with_context(|| format!("{text}: {error}"))?;
        let is_held = said.code().code() == "RPH01";
        // What another hold's approval has run meanwhile, and what can't come back, is told.
        let told = format!("{} {}", said.code().code(), said.message());
        client.batch_execute("ROLLBACK").await?;
        if !is_held {
            ensure!(!told.starts_with("RPU"), "{text}: {told}");
            return Ok(false);
        }
        let holds = site.gateway.holds()?;
        let hold = holds.iter().find(|hold| hold["status"] == "waiting").with_context(|| format!("a hold of {text}"))?;
        let id = hold["id"].as_str().context("an id")?;
        if hold["reach"]["lasting"].as_array().is_some_and(|lasting| !lasting.is_empty() && hold["reach"]["estimated"] != true) {
            // People are told that it stays, and say no.
            site.gateway.deny(id, "it could not be undone")?;
            return Ok(false);
        }
        site.gateway.approve_as_asked(id)?;
        if hold["action"] == "selfcontained" {
            let ended = site.gateway.wait_for_status(id, "finished")?;
            if ended["succeeded"] == true {
                return Ok(true);
            }
            // More than was approved, or the server itself refuses it: its text says neither.
            failed += 1;
        }
    }
    Ok(false)
}

/// One case: answers how much was done.
async fn case(site: &Site, seed: u64) -> Result<usize> {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    // The gateway may be looking at the definitions just now, and then the server ends one of the two.
    let clear = "SET client_min_messages = error; DROP SCHEMA public CASCADE; DROP SCHEMA IF EXISTS attic CASCADE; CREATE SCHEMA public AUTHORIZATION app";
    let mut cleared = site.server.psql_at(&site.server.superuser_url("shop"), clear);
    for _ in 0..5 {
        if !matches!(&cleared, Err(error) if format!("{error:#}").contains("deadlock")) {
            break;
        }
        cleared = site.server.psql_at(&site.server.superuser_url("shop"), clear);
    }
    cleared?;
    site.direct(START)?;
    site.direct("ANALYZE")?;
    site.gateway.json(&["protect", "shop", "--apply", "--json"])?;
    let agent = format!("agent-{seed}");
    let url = site.gateway.agent(&agent, &["shop"], "read,write,destroy,grant")?;
    let before = State::of(site)?;
    let client = connect(&url).await?;
    let mut ran: Vec<String> = Vec::new();
    for _ in 0..2 + random.below(4) {
        let statement = random.statement();
        let text = if random.below(3) == 0 { format!("BEGIN; {statement}; {}; COMMIT", random.statement()) } else { statement };
        if done(site, &client, &text).await? {
            ran.push(text);
        }
    }
    drop(client);
    let told = || format!("seed {seed}: {}", ran.join(";\n"));
    let listed = site.gateway.json(&["undo", "list", "--agent", &agent, "--json"])?;
    let changes = listed["changes"].as_array().cloned().unwrap_or_default();
    for change in &changes {
        ensure!(change["standing"] == "undoable", "{}\n{change} can't be undone", told());
    }
    let ids: Vec<&str> = changes.iter().filter_map(|change| change["id"].as_str()).collect();
    let plans: Vec<Vec<&str>> = if random.below(2) == 0 { ids.iter().map(|id| vec![*id]).collect() } else { vec![ids.clone()] };
    for plan in plans.iter().filter(|plan| !plan.is_empty()) {
        undo(site, plan).await.with_context(told)?;
    }
    State::of(site)?.is_as_before(&before).with_context(told)?;
    Ok(changes.len())
}

/// Takes changes back as one plan, once the snapshots of definitions were taken.
async fn undo(site: &Site, ids: &[&str]) -> Result<()> {
    let mut because = String::new();
    for _ in 0..100 {
        match site.gateway.json(&[&["undo", "apply"], ids, &["--dry-run", "--json"]].concat()) {
            Ok(_) => return site.gateway.operate(&[&["undo", "apply"], ids].concat()).map(drop),
            Err(error) => because = format!("{error:#}"),
        }
        if !because.contains("not kept") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("{ids:?} can't be undone: {because}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_and_definitions_come_back_together() -> Result<()> {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let (first, cases) = (number("REPRIEVE_SEED").unwrap_or(1), number("REPRIEVE_CASES").unwrap_or(8));
    let mut site = site()?;
    let (mut changed, mut failed) = (0, Vec::new());
    for seed in first..first + cases {
        match case(&site, seed).await {
            Ok(number) => changed += number,
            Err(error) => {
                failed.push(format!("{error:#}"));
                site = self::site()?;
            }
        }
    }
    println!("{cases} cases, {changed} changes");
    ensure!(failed.is_empty(), "{} of {cases} failed:\n{}", failed.len(), failed.join("\n\n"));
    ensure!(changed as u64 >= cases, "too little was changed: {changed} in {cases} cases");
    Ok(())
}
