//! Copies that share what did not change: it is stored once, goes with the last copy that needs it, and is not believed in blindly.

use super::*;

fn added(made: &Value) -> u64 {
    made["added_bytes"].as_u64().unwrap_or(u64::MAX)
}

#[test]
fn what_did_not_change_is_stored_once_and_damage_does_not_spread() -> Result<()> {
    let stage = Stage::open("", "")?;
    stage.server.psql(
        "shop",
        "CREATE TABLE noise AS SELECT n, (SELECT string_agg(md5((n * 31 + k)::text), '') FROM generate_series(1, 20) k) FROM generate_series(1, 60000) n;
         CHECKPOINT",
    )?;
    let first = stage.copy()?;
    ensure!(added(&first) <= first["stored_bytes"].as_u64().unwrap_or_default());
    let second = stage.copy()?;
    ensure!(added(&second) * 3 < added(&first), "{first} {second}");
    ensure!(stage.drill()?.1, "the second, which is mostly the first");
    // A chunk that both need is damaged. The drill says so, and the next copy relies on nothing that is there.
    let largest = stage.objects()?.first().context("an object")?.clone();
    let mut bytes = fs::read(&largest)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, &bytes)?;
    stage.drill_fails("")?;
    let third = stage.copy()?;
    ensure!(added(&third) > added(&second) * 3, "{second} {third}");
    let (answer, passed) = stage.drill()?;
    ensure!(passed, "{answer}");
    // Now that what is there is known to be good, it is relied on again.
    let fourth = stage.copy()?;
    ensure!(added(&fourth) * 3 < added(&third), "{third} {fourth}");
    Ok(())
}

#[test]
fn a_purge_leaves_what_younger_copies_need() -> Result<()> {
    let stage = Stage::open("keep = \"1s\"\n", "")?;
    stage
        .server
        .psql("shop", "CREATE TABLE noise AS SELECT n, md5(n::text) || md5((n + 1)::text) FROM generate_series(1, 200000) n; CHECKPOINT")?;
    let first = stage.copy()?["point"].clone();
    stage.copy()?;
    ensure!(stage.drill()?.1);
    std::thread::sleep(Duration::from_millis(1_100));
    // The third purges the first, of which the others have most.
    let third = stage.copy()?;
    ensure!(third["purged"] == serde_json::json!([first]), "{third}");
    let (answer, passed) = stage.drill()?;
    ensure!(passed, "{answer}");
    Ok(())
}
