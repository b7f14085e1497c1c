//! Undo, from outside: an agent changes something that policy lets pass, and an operator brings it back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reprieve_testkit::{EnvironmentBudget, Gateway, GatewayOptions, GuardedSystem, Postgres, PostgresOptions};
use reprieve_tests::{Site, connect, denied};
use serde_json::Value;

/// A site whose agents log in as an ordinary role, with a journal that an administrator set up. Nothing passes without a way back.
fn site(protect: bool) -> Result<Site> {
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
                let hold = told.hold.with_context(|| format!("{sql}: {} {}", told.code, told.message))?;
                site.gateway.approve_as_asked(&hold)?;
                site.gateway.wait_for_status(&hold, "finished")?;
            }
        }
        // What CASCADE takes along is not in an estimate: more than was approved is held anew, as measured.
        if dump(&site)? == before {
            let holds = site.gateway.holds()?;
            let anew = holds.iter().find(|hold| hold["status"] == "waiting").with_context(|| format!("{sql} changed nothing"))?;
            let hold = anew["id"].as_str().context("an id")?;
            site.gateway.approve_as_asked(hold)?;
            site.gateway.wait_for_status(hold, "finished")?;
            ensure!(dump(&site)? != before, "{sql} changed nothing");
        }
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
