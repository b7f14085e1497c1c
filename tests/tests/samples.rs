//! Sample rows of what is held: a few, masked, of tables that the agent may read, and nothing that an agent can forge or use.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use reprieve_testkit::{EnvironmentBudget, Gateway, GatewayOptions, GuardedSystem, Postgres, PostgresOptions};
use reprieve_tests::{Receiver, Site, connect, denied};
use serde_json::Value;

/// People with addresses, orders that go with them, and notes that the agents' role may not read.
const TABLES: &str = "
    CREATE TABLE people (id int PRIMARY KEY, status text NOT NULL, email text NOT NULL, phone bigint, note text, born date);
    CREATE TABLE orders (id int PRIMARY KEY, person int REFERENCES people ON DELETE CASCADE, total numeric NOT NULL);
    CREATE TABLE medical (id int PRIMARY KEY, person int REFERENCES people ON DELETE CASCADE, finding text NOT NULL);
    INSERT INTO people SELECT n, CASE n % 3 WHEN 0 THEN 'active' WHEN 1 THEN 'left' ELSE 'new' END, 'maya' || n || '@mail.com', 491700000000 + n,
        E'<script>alert(1)</script>\\u202E', date '1990-01-01' + n FROM generate_series(1, 300) n;
    INSERT INTO orders SELECT n, 1 + n % 300, n FROM generate_series(1, 900) n;
    INSERT INTO medical SELECT n, n, 'finding ' || n FROM generate_series(1, 300) n;
    ANALYZE";

/// The agents' role owns nothing here, and may not read `medical`. Ten rows pass.
fn site(settings: &str, notify: &str) -> Result<Site> {
    let server = Postgres::start_with(&PostgresOptions::default())?;
    server.create_role("app", "secret", "")?;
    server.create_role("owner", "secret", "")?;
    server.create_database("shop", "owner")?;
    server.psql_at(&server.url("owner", "secret", "shop"), TABLES)?;
    server.psql_at(
        &server.superuser_url("shop"),
        "GRANT SELECT, INSERT, UPDATE, DELETE ON people, orders TO app; GRANT DELETE ON medical TO app; GRANT CREATE ON DATABASE shop TO app",
    )?;
    let system = GuardedSystem {
        admin_url: Some(server.superuser_url("shop")),
        settings: settings.to_owned(),
        ..GuardedSystem::new("shop", "production", &server.url("app", "secret", "shop"))
    };
    let budget = EnvironmentBudget {
        environment: "production".to_owned(),
        rows_per_statement: 10,
        rows_per_transaction: 10,
        rows_per_hour: 100_000,
        relations_dropped: 0,
    };
    let gateway = Gateway::start(GatewayOptions {
        systems: vec![system],
        budgets: vec![budget],
        settings: notify.to_owned(),
        ..GatewayOptions::default()
    })?;
    Ok(Site { gateway, server })
}

fn protect(site: &Site) -> Result<()> {
    let done = site.gateway.cli(&["protect", "shop", "--apply"])?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

async fn held(site: &Site, url: &str, sql: &str) -> Result<Value> {
    let client = connect(url).await?;
    let told = denied(client.simple_query(sql).await)?;
    site.gateway.hold(&told.hold.context("no hold")?)
}

fn sample<'a>(hold: &'a Value, table: &str) -> Option<&'a Value> {
    hold["samples"].as_array()?.iter().find(|sample| sample["table"] == table)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_few_rows_are_shown_masked_and_not_to_everybody() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let hook = Receiver::start(&[])?;
    let address = folder.path().join("hook");
    std::fs::write(&address, hook.url())?;
    std::fs::set_permissions(&address, std::fs::Permissions::from_mode(0o600))?;
    let site = site("", &format!("[[notify]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"file:{}\"\n", address.display()))?;
    protect(&site)?;
    let url = site.gateway.agent("cleaner", &["shop"], "read,write,destroy,grant")?;
    let hold = held(&site, &url, "DELETE FROM people WHERE id <= 200").await?;
    let people = sample(&hold, "public.people").with_context(|| format!("no sample: {hold}"))?;
    assert_eq!(people["of"], 200, "{people}");
    assert_eq!(people["columns"], serde_json::json!(["id", "status", "email", "phone", "note", "born"]));
    let rows = people["rows"].as_array().context("rows")?;
    assert_eq!(rows.len(), 6, "{people}");
    let kinds: std::collections::BTreeSet<&str> = rows.iter().filter_map(|row| row["before"][1].as_str()).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["active", "left", "new"], "each kind is there: {people}");
    for row in rows {
        let row = &row["before"];
        ensure!(row[0].as_str().is_some_and(|id| id.parse::<u32>().is_ok_and(|id| id <= 200)), "{row}");
        assert_eq!((&row[2], &row[3], &row[4]), (&"m•••@•••.com".into(), &"4•••".into(), &"•••".into()), "{row}");
    }
    ensure!(sample(&hold, "public.orders").is_some_and(|orders| orders["of"] == 600), "what goes with them is shown, too: {hold}");
    // What the agents' role may not read is not shown, and so nobody can read it by being held.
    ensure!(hold["reach"]["tables"]["public.medical"]["deleted"] == 200 && sample(&hold, "public.medical").is_none(), "{hold}");
    let text = hold.to_string();
    ensure!(!text.contains("maya1") && !text.contains("finding ") && !text.contains("<script>"), "{text}");
    // Nothing was changed, nothing of it is told on a channel, and a change is shown as what was and what would be.
    assert_eq!(site.server.psql_at(&site.server.superuser_url("shop"), "SELECT count(*) FROM people")?.trim(), "300");
    let told = &hook.wait_for(1)?[0];
    ensure!(!told.body.contains("m•••") && !told.body.contains("active"), "{}", told.body);
    let hold = held(&site, &url, "UPDATE people SET status = 'gone', email = 'x@y.org' WHERE id <= 100").await?;
    let row = &sample(&hold, "public.people").context("no sample")?["rows"][0];
    ensure!(row["before"][1] != "gone" && row["after"][2] == "x•••@•••.org" && row["after"][0] == row["before"][0], "{row}");
    // An agent that calls the function itself hears only of what it changed and may read.
    let client = connect(&url).await?;
    client.batch_execute("BEGIN; DELETE FROM people WHERE id = 299").await?;
    let seen = client.simple_query("SELECT old FROM reprieve.sample('medical'::regclass, 1, 100)").await;
    ensure!(seen.is_err() || seen.is_ok_and(|seen| seen.len() <= 2), "rows of another's table were shown");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_of_the_agents_own_is_not_believed_and_samples_can_be_turned_off() -> Result<()> {
    let forged = site("", "")?;
    let url = forged.server.url("app", "secret", "shop");
    forged.server.psql_at(
        &url,
        "CREATE SCHEMA reprieve; CREATE FUNCTION reprieve.sample(relation oid, share float8, most int4) RETURNS TABLE (old text, new text)
         LANGUAGE sql SECURITY DEFINER AS $$SELECT '(1,active,harmless,1,test,2020-01-01)', NULL::text$$",
    )?;
    let url = forged.gateway.agent("forger", &["shop"], "read,write,destroy,grant")?;
    let hold = held(&forged, &url, "DELETE FROM people WHERE id <= 200").await?;
    ensure!(hold["samples"].is_null(), "{hold}");

    let quiet = site("sample_rows = false\n", "")?;
    protect(&quiet)?;
    let url = quiet.gateway.agent("cleaner", &["shop"], "read,write,destroy,grant")?;
    let hold = held(&quiet, &url, "DELETE FROM people WHERE id <= 200").await?;
    ensure!(hold["samples"].is_null() && hold["reach"]["tables"]["public.people"]["deleted"] == 200, "{hold}");
    Ok(())
}
