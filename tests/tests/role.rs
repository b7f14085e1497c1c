//! A login role whose effects can't be bounded is nobody's: agents are not let in with it, and those that are in can change nothing.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reprieve_testkit::GatewayOptions;
use reprieve_tests::{Denied, Site, connect, denied};
use tokio_postgres::NoTls;

/// How long anything may take before a test gives up; nothing depends on how fast it is.
const PATIENCE: Duration = Duration::from_secs(60);

fn is_for_the_role(told: &Denied) -> bool {
    told.code == "RPR01" && told.detail.contains("unbounded-role")
}

/// Waits until nobody is let in.
async fn until_shut(url: &str) -> Result<()> {
    let since = Instant::now();
    loop {
        if let Err(error) = tokio_postgres::connect(url, NoTls).await {
            let told = denied(Err(error))?;
            ensure!(is_for_the_role(&told), "{told:?}");
            return Ok(());
        }
        ensure!(since.elapsed() < PATIENCE, "still let in");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_can_not_be_bounded_lets_nobody_in() -> Result<()> {
    let site = Site::open(GatewayOptions::default())?;
    site.table("orders", 10)?;
    let url = site.gateway.agent("helper", &["shop"], "read,write")?;
    let inside = connect(&url).await?;
    inside.batch_execute("UPDATE orders SET word = 'w' WHERE id = 1").await?;
    for (given, taken) in [
        ("ALTER ROLE app SUPERUSER", "ALTER ROLE app NOSUPERUSER"),
        ("GRANT pg_write_server_files TO app", "REVOKE pg_write_server_files FROM app"),
        ("GRANT SET ON PARAMETER track_counts TO app", "REVOKE SET ON PARAMETER track_counts FROM app"),
        ("ALTER ROLE app REPLICATION", "ALTER ROLE app NOREPLICATION"),
    ] {
        site.server.psql("postgres", given)?;
        until_shut(&url).await?;
        let told = denied(inside.simple_query("UPDATE orders SET word = 'x' WHERE id = 1").await)?;
        ensure!(is_for_the_role(&told), "{given}: {told:?}");
        site.server.psql("postgres", taken)?;
        let since = Instant::now();
        while connect(&url).await.is_err() {
            ensure!(since.elapsed() < PATIENCE, "{taken}: never let in again");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        inside.batch_execute("UPDATE orders SET word = 'w' WHERE id = 1").await?;
    }
    Ok(())
}
