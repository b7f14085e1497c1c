//! What other rules would have said to what agents really did, and the least their tokens need.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use reprieve_testkit::{Gateway, GatewayOptions, GuardedSystem, Postgres};
use serde_json::Value;

/// The verdicts before and after, by a piece of the text.
fn change<'a>(report: &'a Value, text: &str) -> Option<(&'a str, &'a str, u64)> {
    let changes = report["changes"].as_array()?;
    let found = changes.iter().find(|change| change["text"].as_str().is_some_and(|shown| shown.contains(text)))?;
    Some((found["from"]["verdict"].as_str()?, found["to"]["verdict"].as_str()?, found["times"].as_u64()?))
}

#[test]
fn recorded_operations_are_asked_again_and_tokens_are_measured_by_them() -> Result<()> {
    let server = Postgres::start()?;
    server.create_role("app", "secret", "")?;
    server.create_database("shop", "app")?;
    let direct = server.url("app", "secret", "shop");
    server.psql_at(
        &direct,
        "CREATE TABLE items(id int PRIMARY KEY, price int); CREATE TABLE orders(id int PRIMARY KEY);
         INSERT INTO items SELECT n, n FROM generate_series(1, 500) n; INSERT INTO orders SELECT generate_series(1, 500)",
    )?;
    let systems = vec![GuardedSystem::new("shop", "production", &direct)];
    let gateway = Gateway::start(GatewayOptions { systems, wait: "0s".to_owned(), ..GatewayOptions::default() })?;
    let agent = gateway.agent("worker", &["shop"], "read,write,destroy,grant")?;
    gateway.agent("idler", &["shop"], "read")?;

    server.psql_at(&agent, "SELECT price FROM items WHERE id = 7")?;
    for id in 1..=3 {
        let text = format!("UPDATE items SET price = 0 WHERE id = {id} AND now() > now() - interval '1 day'");
        server.psql_at(&agent, &text)?;
    }
    server.psql_at(&agent, "BEGIN; INSERT INTO items VALUES (1001, 1); DELETE FROM items WHERE id = 1001; COMMIT")?;
    ensure!(server.psql_at(&agent, "DELETE FROM orders WHERE id <= 400").is_err());
    ensure!(server.psql_at(&agent, "DROP TABLE orders").is_err());
    let hold = gateway.wait_for_hold("worker", "DROP TABLE")?;
    gateway.deny(hold["id"].as_str().context("an id")?, "not today")?;

    // The rules in force answer as they did: nothing changes, and the replay says so of everything.
    let same = gateway.json(&["policy", "simulate", "--json"])?;
    ensure!(same["changed"] == 0 && same["asked"] == same["as_recorded"], "{same}");
    ensure!(same["asked"].as_u64().is_some_and(|asked| asked >= 7), "{same}");

    // Reads only: what changed would have been refused, what was read would not.
    let lockdown = gateway.json(&["policy", "simulate", "--profile", "lockdown", "--json"])?;
    ensure!(change(&lockdown, "UPDATE items") == Some(("allow", "refuse", 3)), "{lockdown}");
    ensure!(change(&lockdown, "SELECT price").is_none(), "{lockdown}");

    // One table out of bounds, also for reads; the other as before.
    let folder = gateway.folder().join("proposed");
    fs::create_dir(&folder)?;
    let rule = r#"@id("items-are-ours") @reason("items are not for agents") @remedy("ask")
        forbid (principal is Agent, action, resource) when { resource is Table && resource == Table::"shop/public.items" };"#;
    fs::write(folder.join("items.cedar"), rule)?;
    let with = folder.to_str().context("a path")?;
    let items = gateway.json(&["policy", "simulate", "--with", with, "--json"])?;
    ensure!(change(&items, "SELECT price").is_some_and(|(from, to, _)| (from, to) == ("allow", "refuse")), "{items}");
    ensure!(change(&items, "DELETE FROM orders").is_none(), "{items}");

    // Looser rules show what would no longer be asked.
    let observe = gateway.json(&["policy", "simulate", "--profile", "observe", "--json"])?;
    ensure!(change(&observe, "DELETE FROM orders") == Some(("hold", "allow", 1)), "{observe}");
    ensure!(change(&observe, "DROP TABLE orders") == Some(("hold", "allow", 1)), "{observe}");

    // Rules that are not right are said to be so, and nothing is asked.
    fs::write(folder.join("items.cedar"), "permit (principal, action, resource) when { context.nothing };")?;
    ensure!(!gateway.cli(&["policy", "simulate", "--with", with])?.status.success());
    ensure!(!gateway.cli(&["policy", "simulate", "--with", "/nowhere"])?.status.success());

    let suggested = gateway.json(&["policy", "suggest", "--json"])?;
    let of = |name: &str| suggested["agents"].as_array().into_iter().flatten().find(|agent| agent["agent"] == name).cloned();
    let worker = of("worker").context("the worker is there")?;
    ensure!(worker["unused"]["allow"] == serde_json::json!(["grant"]), "{worker}");
    ensure!(worker["command"] == "reprieve agent narrow worker --allow read,write,destroy --resource 'public.items'", "{worker}");
    ensure!(of("idler").is_some_and(|idler| idler["operations"] == 0 && idler["command"].is_null()), "{suggested}");
    Ok(())
}
