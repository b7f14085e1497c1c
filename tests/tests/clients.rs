//! Ordinary clients do their ordinary work through the gateway: psql, pgbench, psycopg and asyncpg.
//!
//! The Python drivers live in an environment of their own under the build folder, made by `pip` on first use. Where `pip`
//! can't install them the tests say so and end; the build machine has it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use reprieve_testkit::{EnvironmentBudget, GatewayOptions};
use reprieve_tests::{
    Site,
    tools::{self, said},
};

/// A site whose budget is never in the way.
fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    let roomy = |environment: &str| EnvironmentBudget {
        environment: environment.to_owned(),
        rows_per_statement: 1_000_000,
        rows_per_transaction: 1_000_000,
        rows_per_hour: 100_000_000,
        relations_dropped: 0,
    };
    SITE.get_or_init(|| {
        let budgets = vec![roomy("production"), roomy("staging")];
        Site::open(GatewayOptions { budgets, ..GatewayOptions::default() }).expect("a site")
    })
}

#[test]
fn psql_describes_and_copies() -> Result<()> {
    let site = site();
    let url = site.agent("psql")?;
    site.direct("CREATE TABLE psql_items (id int PRIMARY KEY, name text); CREATE VIEW psql_view AS SELECT id FROM psql_items; CREATE TABLE psql_direct (LIKE psql_items INCLUDING ALL)")?;
    let script = "\\copy psql_items FROM STDIN\n1\tone\n2\ttwo\n\\.\n\\copy (SELECT * FROM psql_items ORDER BY id) TO STDOUT\n\
        \\d psql_items\n\\d+ psql_view\n\\dt\n\\di\n\\df\n\\dn\n\\du\n\\dp\n\\l\n\\conninfo\n\\set FETCH_COUNT 1\nSELECT * FROM psql_items ORDER BY id;\n\
        \\unset FETCH_COUNT\nBEGIN;\nINSERT INTO psql_items VALUES (3, 'three');\nROLLBACK;\nSELECT count(*) AS n FROM psql_items \\gset\n\
        \\echo n is :n\n";
    // What the script itself can't do with this psql isn't asked of the gateway.
    site.server.psql_at(&site.direct_url(), &script.replace("psql_items", "psql_direct"))?;
    let told = site.server.psql_at(&url, script)?;
    for part in ["1\tone\n2\ttwo", "psql_items_pkey", "n is 2"] {
        assert!(told.contains(part), "no {part:?} in:\n{told}");
    }
    assert_eq!(site.count("psql_items")?, 2);
    Ok(())
}

#[test]
fn pgbench_in_every_mode() -> Result<()> {
    let site = site();
    let url = site.agent("pgbench")?;
    let pgbench = |url: &str, arguments: &[&str]| -> Result<String> {
        let program = site.server.binaries().program("pgbench");
        // A client that waits for a reply that never comes would wait for ever.
        let output = Command::new("timeout").arg("120").arg(program).args(arguments).arg(url).output()?;
        ensure!(output.status.success(), "pgbench {arguments:?}: {}", said(&output));
        Ok(said(&output))
    };
    pgbench(&site.direct_url(), &["-i", "-q", "-s", "1"])?;
    for mode in ["simple", "extended", "prepared"] {
        for script in ["select-only", "tpcb-like", "simple-update"] {
            let told = pgbench(&url, &["-n", "-b", script, "-M", mode, "-c", "4", "-j", "2", "-t", "20"])?;
            assert!(told.contains("80/80"), "{mode} {script}: {told}");
            assert!(told.contains("failed transactions: 0 "), "{mode} {script}: {told}");
        }
    }
    assert_eq!(site.count("pgbench_history")?, 3 * 2 * 80);
    let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)";
    assert_eq!(site.direct(sums)?, "t");
    Ok(())
}

/// The Python with the drivers; `None` where they can't be installed, with the reason on the screen.
fn python() -> Result<Option<PathBuf>> {
    tools::python(Path::new(env!("CARGO_TARGET_TMPDIR")))
}

/// Runs a script of `tests/clients/` with the agent's URL; it ends with an error where something is not as it should be.
fn run(script: &str, url: &str) -> Result<()> {
    let Some(python) = python()? else { return Ok(()) };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
    let output = Command::new("timeout").arg("120").arg(python).arg(&path).arg(url).output().context("cannot run Python")?;
    ensure!(output.status.success(), "{script}: {}", said(&output));
    ensure!(said(&output).contains("all of it works"), "{script} did not come to its end: {}", said(&output));
    Ok(())
}

#[test]
fn psycopg_works() -> Result<()> {
    let site = site();
    site.direct("CREATE TABLE psycopg_items (id int PRIMARY KEY, name text)")?;
    run("with_psycopg.py", &site.agent("psycopg")?)
}

#[test]
fn asyncpg_works() -> Result<()> {
    let site = site();
    site.direct("CREATE TABLE asyncpg_items (id int PRIMARY KEY, name text, at timestamptz)")?;
    run("with_asyncpg.py", &site.agent("asyncpg")?)
}

#[test]
fn sqlalchemy_works() -> Result<()> {
    let site = site();
    run("with_sqlalchemy.py", &site.agent("sqlalchemy")?)
}

#[test]
fn django_migrates_and_what_drops_is_held() -> Result<()> {
    let site = site();
    run("with_django.py", &site.agent("django")?)?;
    if python()?.is_some() {
        assert_eq!(site.direct("SELECT count(*) FROM shop_item")?, "2");
        site.gateway.wait_for_hold("django", "shop_item")?;
    }
    Ok(())
}
