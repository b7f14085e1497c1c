//! Attempts to make a drill of a folder or a SQLite database lie, by whoever writes to it. Each ends red.

use super::{folders, sqlite, *};

#[test]
fn rows_and_tables_that_are_gone_are_missed() -> Result<()> {
    let stage =
        sqlite::stage("wal", "assertions = [\"SELECT count(*) = 20000 FROM orders\", \"SELECT count(*) >= 500 FROM customers\"]\n")?;
    stage.copy()?;
    stage.drill_passes(5)?;
    // A view in the table's place runs what is not harmless when it is asked.
    stage.database()?.execute_batch(
        "ALTER TABLE orders RENAME TO others; ALTER TABLE customers RENAME TO gone; ALTER TABLE others RENAME TO orders; DELETE FROM gone;
         CREATE VIEW customers AS SELECT load_extension('x') AS id",
    )?;
    stage.copy()?;
    stage.drill_fails("own check 2")?;
    stage.database()?.execute_batch("DROP VIEW customers; ALTER TABLE gone RENAME TO customers; DELETE FROM orders")?;
    stage.copy()?;
    stage.drill_fails("own check 1").map(drop)
}

#[test]
fn an_answer_that_is_more_than_a_number_stands_no_assertion() -> Result<()> {
    for assertion in
        ["SELECT 1, 1", "SELECT 1 UNION ALL SELECT 1", "SELECT '1'", "SELECT 1.0", "SELECT 1 WHERE false", "DELETE FROM orders", ""]
    {
        let stage = sqlite::stage("delete", &format!("assertions = [\"{assertion}\"]\n"))?;
        stage.copy()?;
        stage.drill_fails("own check 1").with_context(|| assertion.to_owned())?;
    }
    Ok(())
}

#[test]
fn a_file_that_is_expected_is_not_replaced_by_a_link_or_by_nothing() -> Result<()> {
    let stage = folders::stage("assertions = [\"index.html\"]\n")?;
    stage.copy()?;
    stage.drill_passes(5)?;
    let index = stage.uploads().join("index.html");
    fs::remove_file(&index)?;
    std::os::unix::fs::symlink("/etc/passwd", &index)?;
    stage.copy()?;
    stage.drill_fails("own check 1")?;
    fs::remove_file(&index)?;
    fs::create_dir(&index)?;
    stage.copy()?;
    stage.drill_fails("own check 1")?;
    fs::remove_dir(&index)?;
    fs::write(&index, "")?;
    stage.copy()?;
    stage.drill_fails("own check 1").map(drop)
}

#[test]
fn a_copy_of_another_kind_or_system_is_not_taken_for_it() -> Result<()> {
    let stage = folders::stage("")?;
    stage.copy()?;
    // The settings name another kind: what is in the vault is a folder all the same, and is tried as one.
    let settings = stage.gateway.folder().join("reprieve.toml");
    let text = fs::read_to_string(&settings)?;
    fs::write(stage.gateway.folder().join("other.toml"), text.replace("name = \"shop\"", "name = \"other\""))?;
    let output = stage.gateway.cli(&["--config", "other.toml", "drill", "run", "other", "--json"])?;
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    fs::write(stage.gateway.folder().join("kind.toml"), text.replace("kind = \"files\"", "kind = \"sqlite\""))?;
    let output = stage.gateway.cli(&["--config", "kind.toml", "drill", "run", "shop", "--json"])?;
    let report = answer(&output)?;
    assert!(!output.status.success() && report["report"]["reason"].as_str().is_some_and(|why| why.contains("files copy")), "{report}");
    Ok(())
}
