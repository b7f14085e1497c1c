//! Undo, from outside: an agent changes something that policy lets pass, and an operator brings it back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reprieve_testkit::{EnvironmentBudget, Gateway, GatewayOptions, GuardedSystem, Postgres, PostgresOptions};
use reprieve_tests::{Site, connect, denied};
use serde_json::Value;

/// A site whose agents log in as an ordinary role, with a journal that an administrator set up. Nothing passes without a way back.
fn site(protect: bool) -> Result<Site> {
    site_with(protect, "")
}

fn site_with(protect: bool, settings: &str) -> Result<Site> {
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
        budgets: vec![budget],
        rows_without_undo: 0,
        settings: settings.to_owned(),
        ..GatewayOptions::default()
    };
    let site = Site { gateway: Gateway::start(options)?, server };
    site.direct(
        "CREATE TABLE customers (id int PRIMARY KEY, name text);
         CREATE TABLE orders (id int PRIMARY KEY, customer int NOT NULL REFERENCES customers ON DELETE CASCADE, note text);
         INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(1, 20) n;
         INSERT INTO orders SELECT n, 1 + n % 20, 'order ' || n FROM generate_series(1, 100) n",
    )?;
    if protect {
        site.gateway.json(&["protect", "shop", "--apply", "--json"])?;
    }
    Ok(site)
}

fn state(site: &Site) -> Result<String> {
    site.direct("SELECT md5(string_agg(c::text, '|' ORDER BY id)) FROM customers c UNION ALL SELECT md5(string_agg(o::text, '|' ORDER BY id)) FROM orders o")
}

fn changes(site: &Site) -> Result<Vec<Value>> {
    Ok(site.gateway.json(&["undo", "list", "--json"])?["changes"].as_array().cloned().unwrap_or_default())
}

fn newest(site: &Site) -> Result<String> {
    let changes = changes(site)?;
    Ok(changes.first().context("a change")?["id"].as_str().context("an id")?.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_changed_comes_back() -> Result<()> {
    let site = site(true)?;
    let url = site.gateway.agent("helper", &["shop"], "read,write,destroy")?;
    let client = connect(&url).await?;
    for sql in [
        "DELETE FROM customers WHERE id <= 5",
        "UPDATE orders SET note = 'x' WHERE id < 50",
        "BEGIN; INSERT INTO customers VALUES (99, 'new'); UPDATE customers SET name = 'newer' WHERE id = 99; DELETE FROM orders WHERE id = 7; COMMIT",
    ] {
        let before = state(&site)?;
        client.batch_execute(sql).await.with_context(|| sql.to_owned())?;
        ensure!(state(&site)? != before, "{sql}");
        let id = newest(&site)?;
        let shown = site.gateway.json(&["undo", "show", &id, "--diff", "--json"])?;
        assert_eq!(shown["plan"]["possible"], true, "{shown}");
        assert!(!shown["rows"].as_array().context("rows")?.is_empty());
        site.gateway.json(&["undo", "apply", &id, "--dry-run", "--json"])?;
        ensure!(state(&site)? != before, "a dry run changes nothing");
        let done = site.gateway.operate(&["undo", "apply", &id, "--reason", "a mistake"])?;
        assert_eq!(state(&site)?, before, "{sql}: {done}");
        let listed = changes(&site)?;
        assert!(listed[0]["operator"].is_string(), "the undo is a change itself: {}", listed[0]);
        assert_eq!(listed.iter().find(|change| change["id"] == id.as_str()).context("it")?["standing"], "undone");
    }
    let verified = site.gateway.verify()?;
    assert_eq!(verified["verified"], true, "{verified}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_comes_back_as_one_and_conflicts_are_told() -> Result<()> {
    let site = site(true)?;
    let before = state(&site)?;
    let url = site.gateway.agent("helper", &["shop"], "read,write,destroy")?;
    let client = connect(&url).await?;
    for sql in ["UPDATE orders SET note = '1' WHERE id = 1", "DELETE FROM orders WHERE id = 2", "UPDATE orders SET note = '2' WHERE id = 1"]
    {
        client.batch_execute(sql).await?;
    }
    let listed = changes(&site)?;
    let oldest = listed.last().context("a change")?;
    assert!(oldest["conflicts"].as_str().context("conflicts")?.contains("changed since"), "{oldest}");
    let session = format!("S-{}", oldest["session"]);
    site.gateway.operate(&["undo", "apply", "--session", &session])?;
    assert_eq!(state(&site)?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_way_back_changes_are_held() -> Result<()> {
    let site = site(false)?;
    let url = site.gateway.agent("helper", &["shop"], "read,write,destroy")?;
    let client = connect(&url).await?;
    let told = denied(client.simple_query("UPDATE orders SET note = 'x' WHERE id = 1").await)?;
    assert_eq!(told.code, "RPH01", "{told:?}");
    assert!(
        told.detail.contains("no-way-back") || told.message.contains("no-way-back") || told.detail.contains("brought back"),
        "{told:?}"
    );
    let mut session = connect(&url).await?;
    let transaction = session.transaction().await?;
    transaction.batch_execute("DELETE FROM orders WHERE id = 3").await?;
    assert_eq!(transaction.commit().await.expect_err("held").code().context("a code")?.code(), "RPH01");
    site.gateway.json(&["protect", "shop", "--apply", "--json"])?;
    // Until the gateway has looked at the catalogue again, it is held still.
    for _ in 0..100 {
        if client.simple_query("UPDATE orders SET note = 'y' WHERE id = 2").await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(site.direct("SELECT note FROM orders WHERE id = 2")?, "y");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_came_later_is_covered_and_what_is_taken_off_is_held() -> Result<()> {
    let site = site(true)?;
    let url = site.gateway.agent("helper", &["shop"], "read,write,destroy,grant")?;
    let client = connect(&url).await?;
    client.batch_execute("CREATE TABLE later (id int PRIMARY KEY, word text)").await?;
    client.batch_execute("INSERT INTO later SELECT n, 'w' FROM generate_series(1, 10) n").await?;
    client.batch_execute("DELETE FROM later WHERE id < 4").await?;
    let id = newest(&site)?;
    site.gateway.operate(&["undo", "apply", &id])?;
    assert_eq!(site.count("later")?, 10);
    // The owner may switch its triggers off, if a person agrees; from then on its changes are held.
    for sql in [
        "ALTER TABLE later DISABLE TRIGGER USER",
        "DROP TRIGGER reprieve_keeps_deletes ON later",
        "DO $$ BEGIN EXECUTE 'ALTER TABLE later DISABLE TRIGGER ALL'; DELETE FROM later WHERE id = 9; END $$",
        "CREATE RULE r AS ON DELETE TO later DO INSTEAD NOTHING",
    ] {
        assert_eq!(denied(client.simple_query(sql).await)?.code, "RPH01", "{sql}");
    }
    for sql in [
        "DELETE FROM reprieve.journal",
        "INSERT INTO reprieve.journal VALUES ('1', 1, 1, NULL, NULL)",
        "TRUNCATE reprieve.journal",
        "SELECT * FROM reprieve.journal",
    ] {
        assert!(client.simple_query(sql).await.is_err(), "{sql}");
    }
    Ok(())
}

/// Every definition and every row, as PostgreSQL's own tool tells them.
fn dump(site: &Site) -> Result<String> {
    let dump = site.server.binaries().program("pg_dump");
    let output = std::process::Command::new(dump)
        .arg(site.server.superuser_url("shop"))
        .args(["--exclude-schema=reprieve", "--inserts"])
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    // Rows in any order.
    let is_said = |line: &&str| !line.is_empty() && !line.starts_with("--") && !line.starts_with('\\') && !line.contains("reprieve_keeps");
    let mut lines: Vec<&str> = text.lines().filter(is_said).collect();
    lines.sort_unstable();
    Ok(lines.join("\n"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_come_back_with_their_rows() -> Result<()> {
    let site = site(true)?;
    site.direct(
        "CREATE VIEW busy AS SELECT c.id, c.name, count(*) AS orders FROM customers c JOIN orders o ON o.customer = c.id GROUP BY c.id;
         CREATE TABLE notes (id serial PRIMARY KEY, amount numeric(10,2), word varchar(20) DEFAULT 'w' NOT NULL CHECK (word <> ''), born date);
         INSERT INTO notes (amount, word, born) SELECT n * 1.5, 'n' || n, '2020-01-01'::date + n FROM generate_series(1, 30) n;
         CREATE INDEX notes_word ON notes (word); CREATE TYPE mood AS ENUM ('good', 'bad');
         CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n * 2'; CREATE SEQUENCE numbers START 7;
         SELECT nextval('numbers'); COMMENT ON TABLE notes IS 'of people'; GRANT SELECT ON notes TO PUBLIC",
    )?;
    let url = site.gateway.agent("helper", &["shop"], "read,write,destroy,grant")?;
    for sql in [
        "CREATE TABLE fresh (id int PRIMARY KEY)",
        "ALTER TABLE notes ADD COLUMN extra text",
        "CREATE INDEX notes_born ON notes (born)",
        "DROP TABLE notes",
        "DROP TABLE orders, customers CASCADE",
        "ALTER TABLE notes DROP COLUMN born",
        "ALTER TABLE notes ALTER COLUMN amount TYPE int",
        "ALTER TABLE notes RENAME COLUMN word TO wort",
        "ALTER TABLE notes RENAME TO remarks",
        "DROP VIEW busy",
        "DROP FUNCTION twice",
        "DROP TYPE mood",
        "DROP SEQUENCE numbers",
        "DROP INDEX notes_word",
        "REVOKE SELECT ON notes FROM PUBLIC",
        "TRUNCATE orders",
    ] {
        let before = dump(&site)?;
        let client = connect(&url).await?;
        match client.simple_query(sql).await {
            Ok(_) => {}
            Err(error) => {
                let told = denied(Err(error))?;
                ensure!(told.hold.is_some(), "{sql}: {} {}", told.code, told.message);
                site.gateway.approve_until_done().with_context(|| sql.to_owned())?;
            }
        }
        ensure!(dump(&site)? != before, "{sql} changed nothing");
        let id = newest(&site)?;
        // The snapshot after it may be in the making.
        let mut shown = Value::Null;
        for _ in 0..60 {
            shown = site.gateway.json(&["undo", "show", &id, "--json"])?;
            if shown["plan"]["possible"] == true {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(shown["plan"]["possible"], true, "{sql}: {shown}");
        site.gateway.operate(&["undo", "apply", &id]).with_context(|| sql.to_owned())?;
        let after = dump(&site)?;
        if sql.contains("DROP COLUMN") {
            continue; // the column comes back at the end
        }
        let only = |one: &str, other: &str| {
            one.lines().filter(|line| !other.lines().any(|known| known == *line)).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(after, before, "{sql}: added {:?}, missing {:?}", only(&after, &before), only(&before, &after));
    }
    Ok(())
}

/// A table with all that can hang on one, too large to be written down by what the gateway measures.
const LARGE: &str = "
CREATE TABLE makers (id int PRIMARY KEY, name text); INSERT INTO makers SELECT n, 'm' || n FROM generate_series(1, 10) n;
CREATE TABLE parts (id serial PRIMARY KEY, maker int NOT NULL REFERENCES makers, label text NOT NULL CHECK (label <> ''), weight numeric(8,2) DEFAULT 1, twice numeric GENERATED ALWAYS AS (weight * 2) STORED, UNIQUE (label));
CREATE INDEX parts_maker ON parts (maker); COMMENT ON COLUMN parts.label IS 'as printed'; GRANT SELECT ON parts TO PUBLIC;
INSERT INTO parts (maker, label) SELECT 1 + n % 10, 'part ' || n FROM generate_series(1, 20000) n;
CREATE TABLE uses (id int PRIMARY KEY, part int REFERENCES parts ON DELETE SET NULL); INSERT INTO uses SELECT n, n FROM generate_series(1, 50) n;
CREATE VIEW heavy AS SELECT p.id, p.label, count(u.id) AS uses FROM parts p LEFT JOIN uses u ON u.part = p.id GROUP BY p.id;
CREATE VIEW heavier AS SELECT * FROM heavy WHERE uses > 0;
CREATE MATERIALIZED VIEW heaviest AS SELECT id, label FROM heavier; CREATE UNIQUE INDEX heaviest_label ON heaviest (label);
COMMENT ON MATERIALIZED VIEW heaviest IS 'filled at night'; GRANT SELECT ON heaviest TO PUBLIC;
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER noted BEFORE UPDATE ON parts FOR EACH ROW EXECUTE FUNCTION noted();
CREATE TABLE days (at date NOT NULL, n int, PRIMARY KEY (at, n)) PARTITION BY RANGE (at);
CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
CREATE TABLE days_2 PARTITION OF days FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
INSERT INTO days SELECT '2026-01-01'::date + n, n FROM generate_series(0, 300) n";

/// Approves whatever waits until nothing does.
/// Waits until a change can be undone (the snapshot after it may be in the making), and undoes it.
async fn apply(site: &Site, id: &str) -> Result<Value> {
    let mut shown = Value::Null;
    for _ in 0..150 {
        shown = site.gateway.json(&["undo", "show", id, "--json"])?;
        if shown["plan"]["possible"] == true {
            return site.gateway.operate(&["undo", "apply", id]);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    anyhow::bail!("{id} can't be undone: {shown}")
}

fn is_aside(site: &Site, table: &str) -> Result<bool> {
    let found = site.direct(&format!(
        "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relname = '{table}' AND n.nspname LIKE 'reprieve_aside%'"
    ))?;
    Ok(found != "0")
}

fn differences(one: &str, other: &str) -> Vec<String> {
    one.lines().filter(|line| !other.lines().any(|known| known == *line)).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_table_is_set_aside_and_comes_back() -> Result<()> {
    let site = site(true)?;
    site.direct(LARGE)?;
    let url = site.gateway.agent("helper", &["shop"], "read,write,destroy")?;
    let client = connect(&url).await?;
    for (sql, table) in [("DROP TABLE parts CASCADE", "parts"), ("DROP TABLE days", "days_2"), ("DROP TABLE uses, parts CASCADE", "uses")] {
        // The materialized view is older than what it shows.
        site.direct("INSERT INTO uses SELECT max(id) + 1, max(id) + 1 FROM uses")?;
        let before = dump(&site)?;
        let oid = site.direct(&format!("SELECT '{table}'::regclass::oid"))?;
        let filled = site.direct("SELECT count(*) FROM heaviest")?;
        assert_eq!(denied(client.simple_query(sql).await)?.code, "RPH01", "{sql}");
        let asked = site.gateway.holds()?.len();
        site.gateway.approve_until_done()?;
        assert_eq!(site.gateway.holds()?.len(), asked, "{sql}: one answer is enough");
        assert_eq!(site.direct(&format!("SELECT to_regclass('public.{table}') IS NULL"))?, "t", "{sql}");
        ensure!(is_aside(&site, table)?, "{sql}\n{}", site.gateway.log());
        // Nobody who works through the gateway reaches it, its owner neither; the name is free.
        for reach in [
            format!("SELECT * FROM reprieve_aside_{oid}.{table}"),
            format!("DROP TABLE reprieve_aside_{oid}.{table}"),
            format!("DROP SCHEMA reprieve_aside_{oid} CASCADE"),
            format!("SELECT table_to_xml({oid}::regclass, true, false, '')"),
            format!("GRANT USAGE ON SCHEMA reprieve_aside_{oid} TO PUBLIC"),
        ] {
            assert!(client.simple_query(&reach).await.is_err(), "{reach}");
        }
        let id = newest(&site)?;
        client.batch_execute(&format!("BEGIN; CREATE TABLE {table} (id serial PRIMARY KEY); ROLLBACK")).await?;
        apply(&site, &id).await.with_context(|| sql.to_owned())?;
        let after = dump(&site)?;
        assert_eq!(after, before, "{sql}: added {:?}, missing {:?}", differences(&after, &before), differences(&before, &after));
        ensure!(!is_aside(&site, table)? && site.direct(&format!("SELECT '{table}'::regclass::oid"))? == oid, "{sql}");
        if table == "uses" {
            assert_eq!(
                site.direct("SELECT count(*) FROM heaviest")?,
                filled,
                "what was set aside with all it is built on is not filled anew"
            );
        }
        assert_eq!(site.direct("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'reprieve_aside%'")?, "0");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_went_before_their_table_come_back_with_it() -> Result<()> {
    let site = site(true)?;
    // One can be set aside, the other has to be written down.
    site.direct("CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE TABLE moods (id int PRIMARY KEY, m mood); INSERT INTO moods SELECT n, 'bad' FROM generate_series(1, 50) n")?;
    let before = dump(&site)?;
    let url = site.gateway.agent("helper", &["shop"], "read,write,destroy,grant")?;
    let client = connect(&url).await?;
    for table in ["orders", "moods"] {
        client.batch_execute(&format!("DELETE FROM {table} WHERE id > 10")).await?;
        client
            .batch_execute(&format!(
                "INSERT INTO {table} SELECT 700, {} FROM {table} WHERE id = 1",
                if table == "moods" { "m" } else { "customer" }
            ))
            .await?;
        assert_eq!(denied(client.simple_query(&format!("DROP TABLE {table}")).await)?.code, "RPH01");
        site.gateway.approve_until_done()?;
        assert_eq!(is_aside(&site, table)?, table == "orders");
    }
    let listed = changes(&site)?;
    let ids: Vec<&str> = listed.iter().map(|change| change["id"].as_str().unwrap_or_default()).collect();
    assert_eq!(ids.len(), 6, "{listed:?}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut all = vec!["undo", "apply"];
    all.extend(&ids);
    let done = site.gateway.operate(&all)?;
    let after = dump(&site)?;
    assert_eq!(after, before, "{done}: added {:?}, missing {:?}", differences(&after, &before), differences(&before, &after));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_set_aside_is_gone_when_its_window_ends() -> Result<()> {
    let site = site_with(true, "[undo]\nwindow = \"20s\"\n")?;
    let url = site.gateway.agent("helper", &["shop"], "read,write,destroy,grant")?;
    let client = connect(&url).await?;
    assert_eq!(denied(client.simple_query("DROP TABLE orders").await)?.code, "RPH01");
    site.gateway.approve_until_done()?;
    ensure!(is_aside(&site, "orders")?, "{}", site.gateway.log());
    for _ in 0..600 {
        if site.gateway.events()?.iter().any(|recorded| recorded["event"]["event"] == "aside_purged") {
            ensure!(!is_aside(&site, "orders")?, "it is gone");
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    anyhow::bail!("it is kept for ever")
}

/// Measures, on a table of 1 GB, what a DROP and its undo take: `cargo nextest run -p reprieve-tests --test undo --run-ignored only --no-capture`.
#[ignore = "a measurement: it takes a minute and 3 GB"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_gigabyte() -> Result<()> {
    let rows = std::env::var("REPRIEVE_LARGE_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(8_000_000_u64);
    let site = site(true)?;
    site.direct(&format!(
        "CREATE TABLE large (id bigint PRIMARY KEY, word text, at timestamptz); CREATE INDEX large_at ON large (at);
         INSERT INTO large SELECT n, repeat('x', 70), now() FROM generate_series(1, {rows}) n; CREATE VIEW latest AS SELECT max(at) AS at FROM large"
    ))?;
    let size = site.direct("SELECT pg_total_relation_size('large') / 1000000")?;
    let url = site.gateway.agent("helper", &["shop"], "read,write,destroy,grant")?;
    let client = connect(&url).await?;
    client.simple_query("SELECT 1").await?;
    assert_eq!(denied(client.simple_query("DROP TABLE large CASCADE").await)?.code, "RPH01");
    site.gateway.approve_until_done()?;
    ensure!(is_aside(&site, "large")?, "{}", site.gateway.log());
    let id = newest(&site)?;
    let mut since = std::time::Instant::now();
    // The snapshot after it may be in the making.
    while site.gateway.json(&["undo", "apply", &id, "--dry-run", "--json"]).is_err() {
        ensure!(
            site.gateway.json(&["undo", "show", &id, "--json"])?["plan"]["because"]
                .as_str()
                .is_some_and(|because| because.contains("not kept"))
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
        since = std::time::Instant::now();
    }
    let looked = since.elapsed();
    site.gateway.operate(&["undo", "apply", &id])?;
    // Between the two records: a second factor has to wait for its time, which is nobody's fault.
    let events = site.gateway.events()?;
    let at = |kind: &str| events.iter().rfind(|recorded| recorded["event"]["event"] == kind).and_then(|recorded| recorded["at"].as_u64());
    let took = at("concluded").zip(at("undo_started")).map(|(end, start)| end - start);
    assert_eq!(site.direct("SELECT count(*) FROM large")?, rows.to_string());
    println!("{size} MB in {rows} rows; undone in {took:?} ms; a dry run, the command line included, in {looked:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_others_changed_are_chosen_one_by_one() -> Result<()> {
    let site = site(true)?;
    site.direct(
        "CREATE TABLE lines (a int, b text, note text, PRIMARY KEY (a, b)); INSERT INTO lines SELECT n, 'b ' || n, 'line' FROM generate_series(1, 9) n;
         CREATE TABLE heap (a int); INSERT INTO heap SELECT generate_series(1, 9)",
    )?;
    site.gateway.json(&["protect", "shop", "--apply", "--json"])?;
    let url = site.gateway.agent("helper", &["shop"], "read,write,destroy")?;
    let client = connect(&url).await?;
    client
        .batch_execute(
            "BEGIN; UPDATE orders SET note = 'agent' WHERE id <= 5; DELETE FROM orders WHERE id BETWEEN 10 AND 12; INSERT INTO orders VALUES (500, 1, 'agent');
             DELETE FROM lines WHERE a <= 3; DELETE FROM heap WHERE a = 1; COMMIT",
        )
        .await?;
    site.direct(
        "UPDATE orders SET note = 'other 1' WHERE id = 1; UPDATE orders SET note = 'other 2' WHERE id = 2; DELETE FROM orders WHERE id = 3;
         INSERT INTO orders VALUES (10, 2, 'other 10'); UPDATE orders SET note = 'other 500' WHERE id = 500; INSERT INTO lines VALUES (2, 'b 2', 'other')",
    )?;
    let id = newest(&site)?;
    let shown = site.gateway.json(&["undo", "show", &id, "--diff", "--json"])?;
    let rows = shown["rows"].as_array().context("rows")?;
    let mut marked: Vec<String> =
        rows.iter().filter_map(|row| Some(format!("{} {}", row["conflict"]["key"].as_str()?, row["conflict"]["kind"]))).collect();
    marked.sort();
    assert_eq!(
        marked,
        ["1 \"changed\"", "10 \"added\"", "2 \"changed\"", "2,\"b 2\" \"added\"", "3 \"deleted\"", "500 \"changed\""],
        "{shown}"
    );
    let said = String::from_utf8(site.gateway.cli(&["undo", "show", &id, "--diff"])?.stdout)?;
    assert!(said.contains("--keep 'public.orders:1'") && said.contains("now (1,2,\"other 1\")"), "{said}");
    // A name that means nothing would save nothing.
    for (row, because) in [
        ("public.orders:99", "not about a row with that key"),
        ("orders:(1)", "not about a row with that key"),
        ("public.orders:1' OR '1'='1", "not about a row with that key"),
        ("nothing:1", "no rows of that table"),
        ("heap:1", "no key"),
    ] {
        let output = site.gateway.cli(&["undo", "apply", &id, "--dry-run", "--ours", "--keep", row])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        ensure!(!output.status.success() && said.contains(because), "{row}: {said}");
    }
    assert_eq!(site.gateway.cli(&["undo", "apply", &id, "--keep", "orders"])?.status.code(), Some(2));
    // What is not named and in the way still stops it.
    let error = site.gateway.operate(&["undo", "apply", &id, "--keep", "orders:1"]).expect_err("others are in the way");
    assert!(format!("{error:#}").contains("changed since"), "{error:#}");
    let done = site.gateway.operate(&[
        "undo",
        "apply",
        &id,
        "--ours",
        "--keep",
        "public.orders:1",
        "--keep",
        "orders:500",
        "--keep",
        "lines:2,\"b 2\"",
    ])?;
    assert_eq!(done["report"]["tables"]["public.orders"]["kept"], 2, "{done}");
    let now =
        site.direct("SELECT string_agg(id || ' ' || note, '|' ORDER BY id) FROM orders WHERE id <= 5 OR id BETWEEN 10 AND 12 OR id = 500")?;
    assert_eq!(now, "1 other 1|2 order 2|3 order 3|4 order 4|5 order 5|10 order 10|11 order 11|12 order 12|500 other 500");
    assert_eq!(site.direct("SELECT string_agg(a || ' ' || note, '|' ORDER BY a) FROM lines WHERE a <= 3")?, "1 line|2 other|3 line");
    let started: Vec<Value> = site.gateway.events()?.into_iter().filter(|event| event["event"]["event"] == "undo_started").collect();
    let choice = started.last().context("a start")?["event"]["choice"].to_string();
    assert!(choice.contains("ours, keep public.orders:1, keep orders:500"), "{choice}");
    Ok(())
}

/// The COMMIT waits for a standby that isn't there: it took place, and nobody heard of it before the gateway was killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_definitions_whose_outcome_was_lost_is_settled() -> Result<()> {
    let mut site = site(true)?;
    let url = site.gateway.agent("helper", &["shop"], "read,write,destroy")?;
    let columns = "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attnum > 0 AND NOT attisdropped";
    let client = connect(&url).await?;
    // The first one is decided on as usual.
    client.batch_execute("ALTER TABLE orders ADD COLUMN first int").await.with_context(|| site.gateway.log())?;
    site.server.psql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")?;
    site.server.psql("postgres", "SELECT pg_reload_conf()")?;
    let waiting = tokio::spawn(async move {
        client.batch_execute("BEGIN; ALTER TABLE orders ADD COLUMN lost int; INSERT INTO customers VALUES (77, 'lost'); COMMIT").await
    });
    for _ in 0..1_000 {
        if site.server.psql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = 'app'")? == "1" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    site.gateway.kill_now()?;
    ensure!(waiting.await?.is_err(), "nobody answered");
    site.server.psql("postgres", "ALTER SYSTEM RESET synchronous_standby_names")?;
    site.server.psql("postgres", "SELECT pg_reload_conf()")?;
    site.gateway.restart()?;
    let mut settled = Vec::new();
    for _ in 0..1_000 {
        settled = site.gateway.events()?.into_iter().filter(|event| event["event"]["event"] == "settled").collect();
        if !settled.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let event = &settled.first().with_context(|| site.gateway.log())?["event"];
    assert!(event["xid"].is_u64() && event["reach"]["tables"]["public.customers"]["inserted"] == 1, "{event}");
    assert_eq!(site.direct(columns)?, "id customer note first lost");
    let id = format!("U-{}", event["intent"]);
    undo_when_kept(&site, &id).await?;
    assert_eq!(site.direct(columns)?, "id customer note first");
    assert_eq!(site.direct("SELECT count(*) FROM customers WHERE id = 77")?, "0");
    Ok(())
}

/// Whose definition it was is told by the database's own order of transactions, not by when somebody happened to look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_of_others_stay_however_close_they_came() -> Result<()> {
    let site = site(true)?;
    let (one, two) = (
        connect(&site.gateway.agent("one", &["shop"], "read,write,destroy")?).await?,
        connect(&site.gateway.agent("two", &["shop"], "read,write,destroy")?).await?,
    );
    let columns = "SELECT string_agg(attname, ' ' ORDER BY attname) FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attnum > 3 AND NOT attisdropped";
    for round in 0..3 {
        // A person's own change, and another agent's, with nothing in between.
        site.direct(&format!("ALTER TABLE orders ADD COLUMN person{round} int"))?;
        two.batch_execute(&format!("ALTER TABLE orders ADD COLUMN two{round} int")).await.with_context(|| site.gateway.log())?;
        one.batch_execute(&format!("ALTER TABLE orders ADD COLUMN one{round} int")).await.with_context(|| site.gateway.log())?;
        undo_when_kept(&site, &change_of(&site, &format!("ADD COLUMN one{round}")).await?).await?;
    }
    assert_eq!(site.direct(columns)?, "person0 person1 person2 two0 two1 two2");
    // Open at the same time, final in either order: each comes back alone, or only together with the other.
    one.batch_execute("BEGIN; ALTER TABLE orders ADD COLUMN one int").await?;
    two.batch_execute("BEGIN; ALTER TABLE customers ADD COLUMN two int").await?;
    let (first, second) = tokio::join!(one.batch_execute("COMMIT"), two.batch_execute("COMMIT"));
    first.and(second).with_context(|| site.gateway.log())?;
    let both = [change_of(&site, "ADD COLUMN two int").await?, change_of(&site, "ADD COLUMN one int").await?];
    let there = "SELECT count(*) FILTER (WHERE attname = 'one') || ' ' || count(*) FILTER (WHERE attname = 'two') FROM pg_attribute WHERE attrelid IN ('orders'::regclass, 'customers'::regclass)";
    match undo_when_kept(&site, &both[0]).await {
        Ok(()) => {
            let left = site.direct(there)?;
            ensure!(left == "1 0" || left == "0 1", "undoing {} left {left}", both[0]);
            undo_when_kept(&site, &both[1]).await?;
        }
        Err(error) => {
            ensure!(format!("{error:#}").contains("undo them together"), "{error:#}");
            assert_eq!(site.direct(there)?, "1 1");
            site.gateway.operate(&["undo", "apply", &both[0], &both[1]])?;
        }
    }
    assert_eq!(site.direct(there)?, "0 0");
    Ok(())
}

/// The change with such a text: it is on record a moment after its client heard of it.
async fn change_of(site: &Site, text: &str) -> Result<String> {
    for _ in 0..100 {
        let all = changes(site)?;
        if let Some(id) = all
            .iter()
            .find(|change| change["text"].as_str().is_some_and(|said| said.contains(text)))
            .and_then(|change| change["id"].as_str())
        {
            return Ok(id.to_owned());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("no change by {text}: {:?}", changes(site)?)
}

/// The definitions after a change are kept a moment later.
async fn undo_when_kept(site: &Site, id: &str) -> Result<()> {
    for attempt in 0.. {
        match site.gateway.operate(&["undo", "apply", id]) {
            Err(error) if attempt < 20 && format!("{error:#}").contains("not kept (yet)") => {}
            other => return other.map(drop),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// An index that is attached to another one stays so: what attaches tables is approved, by whatever route it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_approves_is_told_what_stays_and_nobody_is_told_that_something_undone_is_done() -> Result<()> {
    let site = site(true)?;
    site.direct("CREATE SEQUENCE numbers; CREATE TABLE parts (id int PRIMARY KEY); INSERT INTO parts SELECT generate_series(1, 9)")?;
    site.gateway.json(&["protect", "shop", "--apply", "--json"])?;
    let url = site.gateway.agent("helper", &["shop"], "read,write,destroy,grant")?;
    let client = connect(&url).await?;
    // Each alone can be taken back; after the other, what the second empties can't. Nobody was asked about that.
    let both = "BEGIN; DROP SEQUENCE numbers; TRUNCATE parts; COMMIT";
    let mut asked = Vec::new();
    while let Err(error) = client.simple_query(both).await {
        assert_eq!(denied(Err(error))?.code, "RPH01", "{asked:?}");
        client.batch_execute("ROLLBACK").await?;
        let hold = site.gateway.holds()?.into_iter().find(|hold| hold["status"] == "waiting").context("a hold")?;
        asked.push(hold["reach"]["lasting"].to_string());
        site.gateway.approve_as_asked(hold["id"].as_str().context("an id")?)?;
    }
    ensure!(asked.last().is_some_and(|told| told.contains("`public.parts` is rewritten")), "{asked:?}");

    site.direct("CREATE TABLE uses (id int PRIMARY KEY); INSERT INTO uses SELECT generate_series(1, 9)")?;
    assert_eq!(denied(client.simple_query("DROP TABLE uses").await)?.code, "RPH01");
    site.gateway.approve_until_done()?;
    // Its result waits for whoever asked; but by then it was taken back.
    apply(&site, &newest(&site)?).await?;
    assert_eq!(denied(client.simple_query("DROP TABLE uses").await)?.code, "RPH01");
    assert_eq!(site.direct("SELECT count(*) FROM uses")?, "9");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_attaches_tables_is_held_and_a_new_partition_is_not() -> Result<()> {
    let site = site(false)?;
    site.direct(
        "CREATE TABLE log (at int PRIMARY KEY) PARTITION BY RANGE (at); ALTER TABLE log OWNER TO app;
         CREATE TABLE log_1 (at int PRIMARY KEY); ALTER TABLE log_1 OWNER TO app",
    )?;
    site.gateway.json(&["protect", "shop", "--apply", "--json"])?;
    let client = connect(&site.gateway.agent("helper", &["shop"], "read,write,destroy")?).await?;
    client.batch_execute("CREATE TABLE log_2 PARTITION OF log FOR VALUES FROM (10) TO (20)").await.with_context(|| site.gateway.log())?;
    let attach = "ALTER TABLE log ATTACH PARTITION log_1 FOR VALUES FROM (0) TO (10)";
    for text in [
        attach.to_owned(),
        format!("DO $$ BEGIN {attach}; END $$"),
        format!("BEGIN; CREATE TABLE log_3 PARTITION OF log FOR VALUES FROM (20) TO (30); {attach}; COMMIT"),
        "BEGIN; CREATE TABLE log_4 (at int PRIMARY KEY); ALTER TABLE log ATTACH PARTITION log_4 FOR VALUES FROM (30) TO (40); COMMIT"
            .to_owned(),
    ] {
        let error = client.batch_execute(&text).await.expect_err(&text);
        assert_eq!(error.code().map(tokio_postgres::error::SqlState::code), Some("RPH01"), "{text}: {error:?}");
        client.batch_execute("ROLLBACK").await?;
    }
    assert_eq!(site.direct("SELECT count(*) FROM pg_inherits WHERE inhparent = 'log'::regclass")?, "1");
    undo_when_kept(&site, &change_of(&site, "CREATE TABLE log_2").await?).await?;
    assert_eq!(site.direct("SELECT count(*) FROM pg_inherits WHERE inhparent = 'log'::regclass")?, "0");
    Ok(())
}
