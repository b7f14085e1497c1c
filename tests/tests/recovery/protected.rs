//! A database that is protected and copied: neither is in the other's way, and `protect` says what copies come to and takes all away.

use super::*;

impl Stage {
    /// Waits for a heartbeat that is newer than now.
    fn beats(&self) -> Result<()> {
        let now = self.server.psql("shop", "SELECT clock_timestamp()")?;
        let sql = format!("SELECT count(*) FROM reprieve_recovery.heartbeat WHERE at > '{now}'");
        // Until the first one there is no table to look into.
        self.wait("there is a newer heartbeat", || Ok(self.server.psql("shop", &sql).is_ok_and(|count| count == "1")))
    }

    fn protect(&self, how: &str) -> Result<Value> {
        self.gateway.json(&["protect", "shop", how, "--json"])
    }

    /// Whether our journal's triggers are on a table.
    fn is_covered(&self, table: &str) -> Result<bool> {
        let count = format!("SELECT count(*) FROM pg_trigger WHERE tgrelid = to_regclass('{table}') AND tgname LIKE 'reprieve_keeps%'");
        Ok(self.server.psql("shop", &count)? != "0")
    }

    fn slots(&self) -> Result<String> {
        self.server.psql("shop", "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'reprieve_shop'")
    }
}

/// What was found of a subject.
fn found(answer: &Value, subject: &str) -> Vec<String> {
    let text = |finding: &Value| finding["text"].as_str().unwrap_or_default().to_owned();
    let all = answer["findings"].as_array().into_iter().flatten();
    all.filter(|finding| finding["subject"] == subject).map(text).collect()
}

fn ensure_found(answer: &Value, subject: &str, wanted: &str) -> Result<()> {
    ensure!(found(answer, subject).iter().any(|text| text.contains(wanted)), "{subject}: no {wanted:?} in {answer}");
    Ok(())
}

const OLD_TRIGGERS: &str =
    "CREATE TRIGGER reprieve_keeps_inserts AFTER INSERT ON reprieve_recovery.heartbeat REFERENCING NEW TABLE AS reprieve_new
  FOR EACH STATEMENT EXECUTE FUNCTION reprieve.keep_inserted();
 ALTER TABLE reprieve_recovery.heartbeat ENABLE ALWAYS TRIGGER reprieve_keeps_inserts";

#[test]
fn heartbeats_and_the_journal_of_changes_go_together() -> Result<()> {
    let mut stage = Stage::open("objective = { rpo = \"1h\" }\n", "")?;
    // After the first beat.
    stage.beats()?;
    stage.protect("--apply")?;
    assert!(stage.is_covered("orders")? && !stage.is_covered("reprieve_recovery.heartbeat")?);
    stage.beats()?;
    // Before it.
    stage.gateway.stop()?;
    stage.server.psql("shop", "DROP SCHEMA reprieve_recovery CASCADE")?;
    stage.protect("--apply")?;
    stage.gateway.restart()?;
    stage.beats()?;
    // Agents' changes make the gateway look for tables that came, and cover them.
    let url = stage.gateway.agent("helper", &["shop"], "read,write,destroy")?;
    stage.server.psql("shop", "CREATE TABLE newer (id int PRIMARY KEY); GRANT ALL ON newer TO app")?;
    stage.server.psql_at(&url, "INSERT INTO orders VALUES (5001, 1, 'of an agent')")?;
    stage.wait("the new table is covered", || stage.is_covered("newer"))?;
    assert!(!stage.is_covered("reprieve_recovery.heartbeat")?);
    stage.beats()?;
    stage.copy()?;
    let answer = stage.drill_passes(4)?;
    assert!(answer["report"]["rpo_ms"].as_u64().is_some_and(|ms| ms < 3_600_000), "{answer}");
    assert!(stage.events("alarm")?.is_empty(), "nobody was told of anything");
    Ok(())
}

#[test]
fn triggers_that_an_older_version_put_on_heartbeats_go() -> Result<()> {
    let mut stage = Stage::open("", "")?;
    stage.beats()?;
    stage.protect("--apply")?;
    // By the command.
    stage.gateway.stop()?;
    stage.server.psql("shop", OLD_TRIGGERS)?;
    let answer = stage.protect("--apply")?;
    let purposes: Vec<&str> = answer["plan"].as_array().into_iter().flatten().filter_map(|step| step["purpose"].as_str()).collect();
    assert!(purposes.contains(&"stop keeping changes of reprieve_recovery.heartbeat"), "{answer}");
    stage.gateway.restart()?;
    stage.beats()?;
    // By the gateway itself.
    stage.gateway.stop()?;
    stage.server.psql("shop", OLD_TRIGGERS)?;
    stage.gateway.restart()?;
    stage.beats()?;
    // Somebody else's rule is refused, and when it is gone it is forgotten.
    stage.server.psql("shop", "CREATE RULE theirs AS ON UPDATE TO reprieve_recovery.heartbeat DO ALSO SELECT 1")?;
    let told = |event: &Value| event["what"].as_str().is_some_and(|what| what.contains("somebody else"));
    stage.wait("there is an alarm", || Ok(stage.events("alarm")?.iter().any(told)))?;
    stage.server.psql("shop", "DROP RULE theirs ON reprieve_recovery.heartbeat")?;
    stage.beats()?;
    stage.copy()?;
    assert!(stage.drill()?.1);
    Ok(())
}

#[test]
fn a_removal_leaves_no_slot_and_no_schema() -> Result<()> {
    let mut stage = Stage::open("wal = \"stream\"\n", "")?;
    stage.protect("--apply")?;
    stage.beats()?;
    stage.wait("the log is kept", || Ok(stage.index().exists()))?;
    // While it is read it stays, and that is said.
    let output = stage.gateway.cli(&["protect", "shop", "--remove", "--json"])?;
    let said = answer(&output)?;
    assert_eq!(output.status.code(), Some(1), "{said}");
    ensure_found(&said, "slot", "stop `reprieve serve`")?;
    assert_eq!(stage.slots()?, "1");
    stage.gateway.stop()?;
    let unread = "SELECT count(*) FROM pg_replication_slots WHERE NOT active";
    stage.wait("nobody reads it", || Ok(stage.server.psql("shop", unread)? == "1"))?;
    let planned = stage.gateway.json(&["protect", "shop", "--remove", "--dry-run", "--json"])?;
    assert_eq!(stage.slots()?, "1");
    assert!(planned["plan"].to_string().contains("pg_drop_replication_slot('reprieve_shop')"), "{planned}");
    let removed = stage.protect("--remove")?;
    assert_eq!(removed["plan"], planned["plan"]);
    assert_eq!(stage.slots()?, "0");
    assert_eq!(stage.server.psql("shop", "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'reprieve%'")?, "0");
    assert_eq!(stage.protect("--remove")?["plan"].as_array().map(Vec::len), Some(0));
    // What others put into the schema is not ours to drop.
    stage.server.psql("shop", "CREATE SCHEMA reprieve_recovery; CREATE TABLE reprieve_recovery.theirs (id int)")?;
    let output = stage.gateway.cli(&["protect", "shop", "--remove", "--json"])?;
    assert_eq!(output.status.code(), Some(1));
    ensure_found(&answer(&output)?, "heartbeats", "not ours")?;
    assert_eq!(stage.server.psql("shop", "SELECT count(*) FROM reprieve_recovery.theirs")?, "0");
    Ok(())
}

#[test]
fn protect_says_what_copies_come_to() -> Result<()> {
    let settings = "wal = \"synchronous\"\nevery = \"24h\"\ndrill = \"90m\"\nobjective = { rpo = \"15m\", rto = \"15m\" }\n";
    let stage = Stage::open(settings, "")?;
    stage.wait("the log is kept", || Ok(stage.index().exists()))?;
    let name = "set synchronous_standby_names = 'reprieve_shop'";
    for (how, dry) in [("--check", false), ("--apply", true), ("--apply", false)] {
        let mut arguments = vec!["protect", "shop", how, "--json"];
        arguments.extend(dry.then_some("--dry-run"));
        let said = stage.gateway.json(&arguments)?;
        for (subject, wanted) in [
            ("copies", "by pg_basebackup, as `copies`"),
            ("how often", "every 1 d"),
            ("drills", "every 90 min"),
            ("objective", "lost at most: 15 min; back within: 15 min"),
            ("write-ahead log", name),
            ("room for copies", "wal_level replica"),
            ("slot", "max_slot_wal_keep_size is -1"),
            ("heartbeat", "every 1 s"),
            ("place", "the same blast radius"),
        ] {
            ensure_found(&said, subject, wanted)?;
        }
        let copies = &said["copies"];
        assert_eq!(
            (copies["engine"].as_str(), copies["every_s"].as_u64(), copies["wal"].as_str()),
            (Some("physical"), Some(86_400), Some("synchronous"))
        );
        assert_eq!((&copies["slot"], &copies["place"]["same_blast_radius"]), (&Value::from("reprieve_shop"), &Value::from(true)));
    }
    stage.server.psql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'reprieve_shop'")?;
    stage.server.psql("postgres", "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'")?;
    stage.server.psql("postgres", "SELECT pg_reload_conf()")?;
    let output = String::from_utf8(stage.gateway.cli(&["protect", "shop", "--check"])?.stdout)?;
    assert!(output.contains("good    write-ahead log") && output.contains("good    slot"), "{output}");
    Ok(())
}

#[test]
fn protect_says_what_keeps_copies_from_being_made() -> Result<()> {
    let mut stage = Stage::open("objective = { rpo = \"15m\" }\n", "")?;
    stage.gateway.stop()?;
    // A role that may not replicate, and a slot that a setting of before left.
    stage.server.psql("postgres", "ALTER ROLE copies NOREPLICATION; REVOKE pg_read_all_data FROM copies")?;
    stage.server.psql("postgres", "SELECT pg_create_physical_replication_slot('reprieve_shop', true)")?;
    let said = stage.protect("--check")?;
    for (subject, wanted) in [
        ("copies", "ALTER ROLE \"copies\" REPLICATION"),
        ("rows of copies", "GRANT pg_read_all_data"),
        ("how often", "no copies are made: set every in [system.backup], or run `reprieve backup now shop`"),
        ("drills", "reprieve drill run shop"),
        ("slot", "pg_drop_replication_slot('reprieve_shop')"),
    ] {
        ensure_found(&said, subject, wanted)?;
    }
    assert_eq!(said["copies"]["engine"], "logical");
    // A role that can't log in keeps nothing from being protected; and the administrator drops the slot.
    stage.server.psql("postgres", "ALTER ROLE copies NOLOGIN")?;
    ensure_found(&stage.protect("--apply")?, "copies", "could not be looked at")?;
    stage.protect("--remove")?;
    assert_eq!(stage.slots()?, "0");
    // And without copies that is what is said.
    let file = stage.gateway.folder().join("reprieve.toml");
    let text = fs::read_to_string(&file)?;
    let (before, after) = text.split_once("[system.backup]").context("the settings")?;
    let rest = after.find("\n[").map_or("", |at| &after[at..]);
    fs::write(&file, format!("{before}{rest}"))?;
    let said = stage.protect("--check")?;
    ensure_found(&said, "copies", "nothing is copied: no [system.backup]")?;
    assert!(said["copies"].is_null());
    Ok(())
}

#[test]
fn a_logical_copy_of_a_protected_database_comes_back() -> Result<()> {
    let stage = Stage::open("engine = \"logical\"\n", "")?;
    stage.protect("--apply")?;
    assert!(stage.is_covered("orders")?);
    stage.beats()?;
    stage.copy()?;
    stage.drill_passes(4)?;
    Ok(())
}
