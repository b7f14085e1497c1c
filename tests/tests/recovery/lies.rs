//! Attempts to make a drill lie, by whoever owns tables, the database, or a clock. Each ends red.

use super::*;

impl Stage {
    /// A copy, and a drill of it that has to fail for a reason.
    fn copied_and_found_out(&self, why: &str) -> Result<()> {
        self.copy()?;
        self.drill_fails(why).map(drop)
    }
}

#[test]
fn a_decoy_in_the_search_path_stands_no_assertion() -> Result<()> {
    let stage = Stage::open("assertions = [\"SELECT count(*) = 5000 FROM orders\"]\n", "")?;
    stage.copy()?;
    assert!(stage.drill()?.1);
    // Whoever owns the database leads every session to a table of the same name; the real one is emptied before the next copy.
    stage.server.psql(
        "shop",
        "CREATE SCHEMA decoy; CREATE TABLE decoy.orders AS SELECT * FROM public.orders;
         ALTER DATABASE shop SET search_path = decoy, public; DELETE FROM public.orders",
    )?;
    assert_eq!(stage.server.psql("shop", "SELECT count(*) FROM orders")?, "5000", "the decoy works elsewhere");
    stage.copied_and_found_out("own check 1")
}

#[test]
fn settings_of_the_database_do_not_keep_a_drill_from_looking() -> Result<()> {
    let stage = Stage::open("", "")?;
    stage
        .server
        .psql("shop", "ALTER DATABASE shop SET statement_timeout = '1ms'; ALTER DATABASE shop SET default_transaction_read_only = on")?;
    let url = stage.server.superuser_url("postgres");
    stage.server.psql_at(&url, "ALTER DATABASE shop SET lock_timeout = '1ms'; ALTER DATABASE shop SET statement_timeout = 0")?;
    stage.copy()?;
    stage.server.psql_at(&url, "ALTER DATABASE shop RESET ALL")?;
    assert!(stage.drill()?.1);
    Ok(())
}

#[test]
fn an_unlogged_table_is_not_called_recoverable() -> Result<()> {
    let stage = Stage::open("", "")?;
    stage.copy()?;
    assert!(stage.drill()?.1);
    // Nothing looks different, and no copy has its rows any more.
    stage.server.psql("shop", "ALTER TABLE orders SET UNLOGGED")?;
    stage.copied_and_found_out("`public.orders` is empty")
}

#[test]
fn an_unlogged_table_that_may_be_empty_is_passed_over() -> Result<()> {
    let stage = Stage::open("may_be_empty = [\"public.cache\"]\n", "")?;
    stage.server.psql("shop", "CREATE UNLOGGED TABLE cache AS SELECT * FROM generate_series(1, 1000)")?;
    stage.copy()?;
    assert!(stage.drill()?.1);
    Ok(())
}

#[test]
fn a_heartbeat_from_the_future_dates_nothing() -> Result<()> {
    let stage = Stage::open("", "")?;
    // A server whose clock is wrong, or somebody who writes the row: it is set between two of ours, and copied.
    stage.wait("there is a heartbeat", || {
        Ok(stage.server.psql("shop", "SELECT to_regclass('reprieve_recovery.heartbeat') IS NOT NULL")? == "t")
    })?;
    stage.server.psql(
        "shop",
        "CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.at = now() + interval ''1 day''; RETURN NEW; END';
         UPDATE reprieve_recovery.heartbeat SET at = now() + interval '1 day';
         CREATE TRIGGER later BEFORE INSERT OR UPDATE ON reprieve_recovery.heartbeat FOR EACH ROW EXECUTE FUNCTION later()",
    )?;
    stage.copied_and_found_out("a clock is wrong")?;
    // And a table with somebody's trigger is not written to at all: people are told.
    let told = |event: &Value| event["what"].as_str().is_some_and(|what| what.contains("somebody else"));
    stage.wait("there is an alarm", || Ok(stage.events("alarm")?.iter().any(told)))
}

#[test]
fn a_view_in_the_heartbeats_place_runs_nothing_and_dates_nothing() -> Result<()> {
    let stage = Stage::open("", "")?;
    // Not while the first one is written: both would make the schema.
    let there = "SELECT to_regclass('reprieve_recovery.heartbeat') IS NOT NULL";
    stage.wait("there is a heartbeat", || Ok(stage.server.psql("shop", there)? == "t"))?;
    // The agent's role takes its place: it owns the schema, and what runs when somebody writes there.
    stage.server.psql(
        "shop",
        "CREATE TABLE caught (who text); GRANT INSERT ON caught TO app;
         BEGIN; DROP SCHEMA IF EXISTS reprieve_recovery CASCADE; CREATE SCHEMA reprieve_recovery AUTHORIZATION app; SET ROLE app;
         CREATE VIEW reprieve_recovery.heartbeat AS SELECT true AS one, clock_timestamp() AS at;
         CREATE FUNCTION reprieve_recovery.trap() RETURNS trigger LANGUAGE plpgsql
           AS 'BEGIN INSERT INTO public.caught VALUES (current_user); RETURN NEW; END';
         CREATE TRIGGER trap INSTEAD OF INSERT ON reprieve_recovery.heartbeat FOR EACH ROW EXECUTE FUNCTION reprieve_recovery.trap();
         COMMIT",
    )?;
    let told = |event: &Value| event["what"].as_str().is_some_and(|what| what.contains("no heartbeat"));
    stage.wait("there is an alarm", || Ok(stage.events("alarm")?.iter().any(told)))?;
    assert_eq!(stage.server.psql("shop", "SELECT count(*) FROM caught")?, "0", "nothing of theirs ran with our rights");
    stage.copied_and_found_out("no table of ours")
}

#[test]
fn a_verifier_that_was_promised_less_passes_nothing() -> Result<()> {
    let promise = "objective = { rpo = \"1s\" }\n";
    let stage = Stage::open(promise, "")?;
    stage.copy()?;
    // What came after the copy is lost, and that is more than a second by now.
    std::thread::sleep(Duration::from_secs(2));
    // The gateway runs with what was promised; whoever tries copies has settings without it.
    let settings = stage.gateway.folder().join("reprieve.toml");
    let text = fs::read_to_string(&settings)?;
    ensure!(text.contains(promise), "{text}");
    fs::write(&settings, text.replace(promise, ""))?;
    let output = stage.gateway.cli(&["drill", "run", "shop", "--json"])?;
    ensure!(answer(&output)?["report"]["passed"] == true, "by its own settings it passes: {output:?}");
    ensure!(stage.events("drill_passed")?.is_empty());
    let failed = stage.events("drill_failed")?;
    ensure!(failed.len() == 1 && failed[0]["reason"].as_str().is_some_and(|why| why.contains("were promised")), "{failed:?}");
    let status = stage.gateway.cli(&["recovery", "status", "--json"])?;
    ensure!(!status.status.success() && answer(&status)?["systems"][0]["unproven"] == "failed", "{status:?}");
    Ok(())
}
