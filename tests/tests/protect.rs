//! `protect --apply`: the guard as a function in the database, what it must not change, and who must not change it.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reprieve_testkit::{EnvironmentBudget, Gateway, GatewayOptions, GuardedSystem, Postgres, PostgresOptions};
use reprieve_tests::{Site, connect, denied};
use serde_json::Value;

/// How long anything may take before a test gives up; nothing depends on how fast it is.
const PATIENCE: Duration = Duration::from_secs(60);

/// A site whose server logs what it is asked and by whom, with an administrator besides the owner that agents log in as. Ten rows pass.
fn site(admin: bool) -> Result<Site> {
    let settings = [("log_statement", "all"), ("log_line_prefix", "%a|"), ("autovacuum", "off")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let server = Postgres::start_with(&PostgresOptions { settings, ..PostgresOptions::default() })?;
    server.create_role("app", "secret", "")?;
    server.create_database("shop", "app")?;
    let budget = EnvironmentBudget {
        environment: "production".to_owned(),
        rows_per_statement: 10,
        rows_per_transaction: 10,
        rows_per_hour: 100_000,
        relations_dropped: 0,
    };
    let system = GuardedSystem {
        admin_url: admin.then(|| server.superuser_url("shop")),
        ..GuardedSystem::new("shop", "production", &server.url("app", "secret", "shop"))
    };
    let options = GatewayOptions { systems: vec![system], wait: "0s".to_owned(), budgets: vec![budget], ..GatewayOptions::default() };
    let site = Site { gateway: Gateway::start(options)?, server };
    site.table("orders", 100)?;
    Ok(site)
}

fn protect(site: &Site, how: &str) -> Result<Vec<Value>> {
    let answer = site.gateway.json(&["protect", "shop", how, "--json"])?;
    Ok(answer["plan"].as_array().cloned().unwrap_or_default())
}

/// How often the function was called by sessions: the look at the catalogue tries it, too.
fn calls(site: &Site) -> usize {
    let log = site.server.log();
    let by_oid = log.lines().filter(|line| line.contains("fastpath function call: \"guard\"") && !line.starts_with("reprieve: catalogue|"));
    by_oid.count() + log.matches("SELECT reprieve.guard(").count()
}

/// Runs a small change until it was measured by the function.
async fn until_called(site: &Site, url: &str) -> Result<()> {
    let client = connect(url).await?;
    let (before, since) = (calls(site), Instant::now());
    while calls(site) <= before + 1 {
        ensure!(since.elapsed() < PATIENCE, "the function is not called");
        client.batch_execute("BEGIN; UPDATE orders SET word = 'w' WHERE id = 1; COMMIT").await?;
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// What the guard lets pass and what not, by every way to the server that it rides on.
async fn measures(url: &str) -> Result<()> {
    let client = connect(url).await?;
    let mut client2 = connect(url).await?;
    let (few, many) = ("UPDATE orders SET word = 'few' WHERE id <= 10", "UPDATE orders SET word = 'many' WHERE id <= 11");
    client.simple_query(few).await?;
    assert_eq!(denied(client.simple_query(many).await)?.code, "RPH01");
    assert_eq!(client.execute(few, &[]).await?, 10);
    assert_eq!(client.execute(many, &[]).await.expect_err("held").code().expect("a code").code(), "RPH01");
    for (text, passes) in [(few, true), (many, false)] {
        client.batch_execute("BEGIN").await?;
        client.batch_execute(text).await?;
        assert_eq!(client.batch_execute("COMMIT").await.is_ok(), passes, "{text}");
        let transaction = client2.transaction().await?;
        transaction.execute(text, &[]).await?;
        assert_eq!(transaction.commit().await.is_ok(), passes, "{text}");
        client2.batch_execute("BEGIN").await?;
        client2.execute(text, &[]).await?;
        assert_eq!(client2.execute("COMMIT", &[]).await.is_ok(), passes, "{text}");
        client2.batch_execute("ROLLBACK").await?;
    }
    // What a statement of its own does besides rows raises too, and the server's own errors are the client's.
    for text in ["UPDATE orders SET word = 'x' WHERE id = keep_open()", "SELECT keep_open()"] {
        assert!(client.simple_query(text).await.is_err(), "{text}");
        client.batch_execute("BEGIN").await?;
        client.batch_execute(text).await?;
        assert!(client.batch_execute("COMMIT").await.is_err(), "{text}");
    }
    let duplicate = client.execute("INSERT INTO orders (id) VALUES (1)", &[]).await.expect_err("a duplicate");
    assert_eq!(duplicate.code().expect("a code").code(), "23505");
    // A check that the server makes at COMMIT fails with the server's error, by each protocol.
    let orphan = "INSERT INTO parts (orders) VALUES (4711)";
    assert_eq!(denied(client.simple_query(orphan).await)?.code, "23503");
    assert_eq!(client.execute(orphan, &[]).await.expect_err("no such order").code().expect("a code").code(), "23503");
    client.execute("INSERT INTO parts (orders) VALUES (1)", &[]).await?;
    Ok(())
}

const MORE: &str = "CREATE TABLE parts (orders int REFERENCES orders DEFERRABLE INITIALLY DEFERRED);
 CREATE FUNCTION wipe() RETURNS int LANGUAGE plpgsql AS 'BEGIN DELETE FROM public.orders; RETURN 1; END';
 CREATE FUNCTION keep_open() RETURNS int LANGUAGE plpgsql AS
  'BEGIN EXECUTE $$CLOSE ALL; DECLARE late CURSOR WITH HOLD FOR SELECT public.wipe()$$; RETURN 1; END'";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_measured_is_the_same_with_and_without_the_function() -> Result<()> {
    let site = site(true)?;
    site.direct(MORE)?;
    let url = site.agent_of_shop("eve")?;
    measures(&url).await?;
    assert!(protect(&site, "--apply")?.len() > 4, "the guard, the journal, and its triggers");
    assert_eq!(protect(&site, "--apply")?.len(), 0);
    until_called(&site, &url).await?;
    let before = calls(&site);
    measures(&url).await?;
    assert!(calls(&site) > before + 6, "every one of these is measured by the function");
    assert_eq!(site.count("orders")?, 100);
    // A table that is newer than the function is counted by it as well.
    site.table("newer", 100)?;
    until_called(&site, &url).await?;
    let client = connect(&url).await?;
    client.execute("UPDATE newer SET word = 'y' WHERE id <= 10", &[]).await?;
    assert!(client.execute("DELETE FROM newer WHERE id <= 11", &[]).await.is_err());
    assert_eq!(site.count("newer")?, 100);
    // The journal's triggers are among the steps unless the gateway was faster.
    assert!(protect(&site, "--apply")?.len() >= 2);
    assert_eq!(protect(&site, "--apply")?.len(), 0);
    until_called(&site, &url).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_after_a_removal_and_writes_go_on() -> Result<()> {
    let site = site(true)?;
    let url = site.agent_of_shop("eve")?;
    let everything =
        "SELECT (SELECT count(*) FROM pg_namespace) || ' ' || (SELECT count(*) FROM pg_proc) || ' ' || (SELECT count(*) FROM pg_class)
      || ' ' || (SELECT count(*) FROM pg_type) || ' ' || (SELECT count(*) FROM pg_depend) || ' ' || (SELECT count(*) FROM pg_shdepend)";
    let before = site.server.psql("shop", everything)?;
    assert_eq!(site.gateway.json(&["protect", "shop", "--apply", "--dry-run", "--json"])?["done"], false);
    assert_eq!(site.server.psql("shop", everything)?, before);
    protect(&site, "--apply")?;
    until_called(&site, &url).await?;
    let client = connect(&url).await?;
    assert!(protect(&site, "--remove")?.len() > 2);
    assert_eq!(protect(&site, "--remove")?.len(), 0);
    assert_eq!(site.server.psql("shop", everything)?, before);
    // At most the first change after it is refused, because what would have measured it is gone.
    let change = "UPDATE orders SET word = 'z' WHERE id = 2";
    let _refused_or_done = client.execute(change, &[]).await;
    assert_eq!(client.execute(change, &[]).await?, 1);
    assert!(client.execute("DELETE FROM orders", &[]).await.is_err());
    assert_eq!(site.count("orders")?, 100);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_an_agent_could_change_is_not_called() -> Result<()> {
    // The agents' own role installs it: refused, with the reason.
    let open = site(false)?;
    let refused = open.gateway.cli(&["protect", "shop", "--apply"])?;
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("set `admin`"));
    assert_eq!(open.server.psql("shop", "SELECT count(*) FROM pg_namespace WHERE nspname = 'reprieve'")?.trim(), "0");

    let site = site(true)?;
    let url = site.agent_of_shop("eve")?;
    let wanted = site.gateway.json(&["protect", "shop", "--apply", "--dry-run", "--json"])?;
    // Before it is applied, the owner has a schema of that name with that very function in it.
    for step in wanted["plan"].as_array().expect("steps") {
        site.direct(step["sql"].as_str().expect("a statement"))?;
    }
    for how in ["--apply", "--remove"] {
        let refused = site.gateway.cli(&["protect", "shop", how])?;
        assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("belongs to `app`"));
    }
    let client = connect(&url).await?;
    for _ in 0..5 {
        client.execute("UPDATE orders SET word = 'q' WHERE id = 1", &[]).await?;
        assert!(client.execute("DELETE FROM orders", &[]).await.is_err());
        thread::sleep(Duration::from_millis(300)); // the catalogue is looked at every second
    }
    assert_eq!((site.count("orders")?, calls(&site)), (100, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_can_not_change_the_guard() -> Result<()> {
    let site = site(true)?;
    site.direct(MORE)?;
    protect(&site, "--apply")?;
    let url = site.agent_of_shop("eve")?;
    until_called(&site, &url).await?;
    let source = "SELECT md5(string_agg(concat_ws(' ', oid, prosrc, proowner, proacl), ',')) FROM pg_proc WHERE proname = 'guard'";
    let before = site.server.psql("shop", source)?;
    let blind =
        "FUNCTION reprieve.guard(ceiling int8, newest oid, more oid[]) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN chr(124); END'";
    let client = connect(&url).await?;
    for text in [
        format!("CREATE OR REPLACE {blind}"),
        "DROP FUNCTION reprieve.guard".to_owned(),
        "ALTER FUNCTION reprieve.guard SET SCHEMA public".to_owned(),
        "ALTER FUNCTION reprieve.guard(int8, oid, oid[]) OWNER TO app".to_owned(),
        "ALTER SCHEMA reprieve RENAME TO other".to_owned(),
        "DROP SCHEMA reprieve CASCADE".to_owned(),
        "REVOKE EXECUTE ON FUNCTION reprieve.guard FROM PUBLIC".to_owned(),
        "CREATE FUNCTION reprieve.guard(int4, oid, oid[]) RETURNS text LANGUAGE sql AS $$SELECT '|'$$".to_owned(),
        "CREATE TABLE reprieve.pg_class (oid oid)".to_owned(),
        format!("DO $do$ BEGIN EXECUTE $e$CREATE OR REPLACE {blind}$e$; DELETE FROM public.orders; END $do$"),
    ] {
        // Refused, held, or denied by the server: nothing of it may last.
        let _denied = client.batch_execute(&text).await;
        let _none = client.batch_execute("ROLLBACK").await;
        assert_eq!(site.server.psql("shop", source)?, before, "{text}");
    }
    // Shadows in a schema of the agent's own, first in its path, and temporary ones.
    client.batch_execute("CREATE TEMP TABLE pg_class AS SELECT 1::oid AS oid").await?;
    client.batch_execute("SET search_path = public, pg_catalog").await?;
    for shadow in [
        "CREATE FUNCTION public.concat(VARIADIC text[]) RETURNS text LANGUAGE sql AS $$SELECT '|'$$",
        "CREATE FUNCTION public.pg_stat_get_xact_tuples_deleted(oid) RETURNS int8 LANGUAGE sql AS $$SELECT 0::int8$$",
        "CREATE FUNCTION public.nothing(int8, int8) RETURNS int8 LANGUAGE sql AS $$SELECT 0::int8$$",
        "CREATE OPERATOR public.+ (LEFTARG = int8, RIGHTARG = int8, FUNCTION = public.nothing)",
    ] {
        site.direct(shadow)?;
    }
    for text in ["DELETE FROM orders WHERE id > 10", "SELECT wipe()"] {
        assert!(client.execute(text, &[]).await.is_err(), "{text}");
        assert!(client.simple_query(text).await.is_err(), "{text}");
        client.batch_execute("BEGIN").await?;
        client.batch_execute(text).await?;
        assert!(client.batch_execute("COMMIT").await.is_err(), "{text}");
    }
    assert_eq!(site.count("orders")?, 100);
    Ok(())
}

trait Agents {
    fn agent_of_shop(&self, name: &str) -> Result<String>;
}

impl Agents for Site {
    fn agent_of_shop(&self, name: &str) -> Result<String> {
        self.gateway.agent(name, &["shop"], "read,write,destroy,grant")
    }
}
