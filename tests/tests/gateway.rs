//! The throw-away gateway of the test kit does what the other tests here build on.

use anyhow::Result;
use reprieve_testkit::{Gateway, GatewayOptions, GuardedSystem, Postgres};

#[test]
fn a_gateway_starts_answers_is_killed_and_comes_back() -> Result<()> {
    let server = Postgres::start()?;
    server.create_role("app", "secret", "")?;
    server.create_database("shop", "app")?;
    let url = server.url("app", "secret", "shop");
    server.psql_at(&url, "CREATE TABLE items(id int PRIMARY KEY); INSERT INTO items SELECT generate_series(1, 500)")?;
    let systems = vec![GuardedSystem::new("shop", "production", &url)];
    let mut gateway = Gateway::start(GatewayOptions { systems, ..GatewayOptions::default() })?;
    // More commands in a row than one operator has codes.
    let mut urls = Vec::new();
    for number in 0..6 {
        urls.push(gateway.agent(&format!("agent-{number}"), &["shop"], "read,write,destroy")?);
    }
    for url in &urls {
        assert_eq!(server.psql_at(url, "SELECT count(*) FROM items")?, "500");
    }
    assert!(server.psql_at(&urls[0], "DROP TABLE items").is_err());
    let hold = gateway.wait_for_hold("agent-0", "DROP TABLE")?;
    gateway.kill_now()?;
    assert!(server.psql_at(&urls[1], "SELECT 1").is_err());
    gateway.restart()?;
    assert_eq!(gateway.hold(hold["id"].as_str().expect("an id"))?["status"], "waiting");
    assert_eq!(server.psql_at(&urls[1], "SELECT 1")?, "1");
    gateway.verify()?;
    Ok(())
}
