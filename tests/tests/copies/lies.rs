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

#[test]
fn another_database_in_its_place_by_a_link_is_not_copied() -> Result<()> {
    let stage = sqlite::stage("delete", "")?;
    stage.copy()?;
    let (own, other) = (stage.folder.path().join("shop.db"), stage.folder.path().join("other.db"));
    fs::rename(&own, &other)?;
    std::os::unix::fs::symlink(&other, &own)?;
    stage.copy_fails("is a link")?;
    // The gateway's own ledger is a SQLite database, too.
    fs::remove_file(&own)?;
    std::os::unix::fs::symlink(stage.gateway.folder().join("reprieve.db"), &own)?;
    stage.copy_fails("is a link")
}

#[test]
fn what_a_writer_left_half_done_is_not_copied_and_not_touched() -> Result<()> {
    let stage = sqlite::stage("delete", "")?;
    let (own, journal) = (stage.folder.path().join("shop.db"), stage.folder.path().join("shop.db-journal"));
    let (half, rest) = (stage.folder.path().join("half"), stage.folder.path().join("rest"));
    // As if it had been killed: part of its change is in the file, and what was there before is in the journal.
    let writer = stage.database()?;
    writer.execute_batch("PRAGMA cache_size = 5; BEGIN IMMEDIATE; UPDATE orders SET note = 'half'")?;
    writer.cache_flush()?;
    fs::copy(&own, &half)?;
    fs::copy(&journal, &rest)?;
    drop(writer);
    fs::rename(&half, &own)?;
    fs::rename(&rest, &journal)?;
    let before = fs::read(&own)?;
    stage.copy_fails("broke off")?;
    assert_eq!(fs::read(&own)?, before, "it is its application's to repair");
    assert!(journal.exists());
    // Its application opens it, and all is as before the change.
    let all: i64 = stage.database()?.query_row("SELECT count(*) FROM orders WHERE note <> 'half'", [], |row| row.get(0))?;
    assert_eq!(all, 20_000);
    stage.copy()?;
    stage.drill_passes(4).map(drop)
}

#[test]
fn a_file_whose_time_was_set_back_is_copied_as_it_is() -> Result<()> {
    let stage = folders::stage("")?;
    stage.copy()?;
    let index = stage.uploads().join("index.html");
    let (then, size) = (fs::metadata(&index)?.modified()?, fs::metadata(&index)?.len());
    fs::write(&index, "x".repeat(usize::try_from(size)?))?;
    fs::File::options().write(true).open(&index)?.set_modified(then)?;
    stage.copy()?;
    stage.drill_passes(4)?;
    let to = stage.folder.path().join("back");
    stage.restore(&to)?;
    assert_eq!(fs::read_to_string(to.join("index.html"))?, "x".repeat(usize::try_from(size)?), "every file is read each time");
    Ok(())
}
