//! Servers of other sorts than ours, and restores and drills that come to another end than planned.

use std::{
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    process::{Child, Stdio},
    time::Instant,
};

use anyhow::bail;
use reprieve_testkit::PostgresOptions;

use super::*;

/// A server with segments of this size.
fn segmented(mb: u32, settings: &[(&str, &str)]) -> Result<Postgres> {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Postgres::start_with(&PostgresOptions { segment_mb: Some(mb), settings, ..PostgresOptions::default() })
}

/// A scratch folder of the test's own, that the server's account may enter.
fn scratch() -> Result<PathBuf> {
    let folder = tempfile::Builder::new().prefix("reprieve-test-scratch-").tempdir()?.keep();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

fn inside(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}

/// The program, at work.
fn begin(stage: &Stage, arguments: &[&str]) -> Result<Child> {
    let mut command = stage.gateway.command(arguments);
    Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

/// Waits until something is there, and not a moment longer.
fn appears(child: &mut Child, what: &str, found: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !found() {
        if child.try_wait()?.is_some() || Instant::now() > deadline {
            let mut said = String::new();
            if let Some(errors) = &mut child.stderr {
                errors.read_to_string(&mut said)?;
            }
            bail!("never: {what}: {said}");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn signal(child: &Child, name: &str) -> Result<()> {
    ensure!(Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status()?.success(), "it has ended already");
    Ok(())
}

#[test]
fn servers_with_large_segments_come_back() -> Result<()> {
    let stage = Stage::of(segmented(64, &[])?, "wal = \"stream\"\n", "", Vec::new())?;
    stage.copy()?;
    stage.wait("the log is kept", || Ok(stage.index().exists()))?;
    let segment = stage.server.psql("shop", "INSERT INTO commits VALUES (1); SELECT pg_walfile_name(pg_switch_wal())")?;
    stage.server.psql("shop", "INSERT INTO commits VALUES (2)")?;
    let whole = |line: &str| line.contains(&segment) && line.contains("\"partial\":false");
    stage.wait("the segment is whole in the vault", || Ok(fs::read_to_string(stage.index())?.lines().any(whole)))?;
    let answer = stage.drill_passes(4)?;
    assert!(answer["report"]["wal_files"].as_u64().is_some_and(|files| files > 0), "{answer}");
    let place = new_place(&stage, "segments")?;
    // A place that is there and empty keeps its place.
    fs::create_dir(&place)?;
    let before = fs::metadata(&place)?.ino();
    stage.gateway.operate(&["restore", "shop", "--to", &place.display().to_string(), "--reason", "look"])?;
    assert_eq!(fs::metadata(&place)?.ino(), before);
    let restored = Restored::start(&place)?;
    assert_eq!(restored.psql("SELECT n FROM commits WHERE n = 1")?, "1");
    drop(restored);
    fs::remove_dir_all(&place)?;
    Ok(())
}

#[test]
fn what_a_server_was_told_does_not_keep_its_copy_from_coming_back() -> Result<()> {
    let settings = [
        ("max_connections", "400"),
        ("max_worker_processes", "40"),
        ("max_prepared_transactions", "700"),
        ("max_locks_per_transaction", "900"),
        ("shared_preload_libraries", "auto_explain"),
        ("logging_collector", "on"),
        ("log_destination", "csvlog,stderr"),
        ("archive_mode", "on"),
        ("archive_command", "false"),
        ("recovery_min_apply_delay", "1h"),
        ("include_if_exists", "/nonexistent/more.conf"),
    ];
    let stage = Stage::of(segmented(1, &settings)?, "", "", Vec::new())?;
    // More than a server has room for by default.
    let prepared: String = (0..300).map(|n| format!("BEGIN; INSERT INTO commits VALUES ({n}); PREPARE TRANSACTION 'p{n}';\n")).collect();
    stage.server.psql("shop", &prepared)?;
    // In the drill whoever asks comes by a socket.
    stage.server.psql(
        "shop",
        "CREATE FUNCTION acts() RETURNS event_trigger LANGUAGE plpgsql AS $$
           BEGIN IF inet_server_addr() IS NULL THEN RAISE EXCEPTION 'it acted'; END IF; END $$;
         CREATE EVENT TRIGGER acts ON ddl_command_end EXECUTE FUNCTION acts();
         ALTER EVENT TRIGGER acts ENABLE ALWAYS;
         ALTER ROLE postgres SET local_preload_libraries = '$libdir/plugins/not_here';
         ALTER ROLE postgres SET session_preload_libraries = 'not_here';
         ALTER ROLE postgres SET role = 'app'",
    )?;
    stage.copy()?;
    stage.drill_passes(4)?;
    Ok(())
}

#[test]
fn a_drill_that_is_broken_off_leaves_nothing_and_has_failed() -> Result<()> {
    let scratch = scratch()?;
    let waits = "assertions = [\"SELECT pg_sleep(CASE WHEN count(*) = 5000 THEN 300 ELSE 0 END) IS NOT NULL FROM orders\"]\n";
    let stage = Stage::open(waits, &format!("[recovery]\nscratch = \"{}\"\n", scratch.display()))?;
    stage.copy()?;
    let unpacked = |path: &str| inside(&scratch).unwrap_or_default().iter().any(|folder| folder.join(path).exists());
    let is_clean = || Ok(inside(&scratch)?.is_empty());
    // While it is unpacked.
    let mut drill = begin(&stage, &["drill", "run", "shop"])?;
    appears(&mut drill, "files are unpacked", || unpacked("data/base"))?;
    signal(&drill, "INT")?;
    drill.wait()?;
    stage.wait("nothing of it stays", is_clean)?;
    let failed = stage.events("drill_failed")?;
    assert!(failed.last().is_some_and(|event| event["reason"].as_str().is_some_and(|said| said.starts_with("interrupted"))), "{failed:?}");
    // While its server runs, and without a word.
    let mut drill = begin(&stage, &["drill", "run", "shop"])?;
    appears(&mut drill, "the server runs", || unpacked("data/postmaster.pid"))?;
    std::thread::sleep(Duration::from_secs(2));
    signal(&drill, "KILL")?;
    drill.wait()?;
    stage.wait("nothing of it stays", is_clean)?;
    let started = stage.events("drill_started")?;
    let killed = started.last().context("a beginning")?["drill"].clone();
    let list = stage.gateway.json(&["drill", "list", "--json"])?;
    assert_eq!(list["drills"][0]["event"]["drill"], killed, "{list}");
    assert_eq!(list["drills"][0]["event"]["event"], "drill_started");
    // The next one tells of it, and what the dead left is swept.
    let left = scratch.join("reprieve-scratch-left");
    fs::create_dir(&left)?;
    stage.server.psql("shop", "DELETE FROM orders WHERE id = 1")?;
    stage.copy()?;
    stage.drill_passes(5)?;
    let failed = stage.events("drill_failed")?;
    let told = failed.iter().find(|event| event["drill"] == killed).context("it has failed")?;
    assert_eq!(told["reason"], "interrupted: its end was never recorded");
    assert!(is_clean()?);
    fs::remove_dir(&scratch)?;
    Ok(())
}

#[test]
fn a_restore_that_is_broken_off_leaves_the_place_free() -> Result<()> {
    let stage = Stage::open("", "")?;
    stage.copy()?;
    let place = new_place(&stage, "broken-off")?;
    let partial = PathBuf::from(format!("{}.reprieve-partial", place.display()));
    let to = place.display().to_string();
    for name in ["KILL", "INT"] {
        let mut restore = begin(&stage, &["restore", "shop", "--to", &to, "--unrecorded"])?;
        appears(&mut restore, "files are unpacked", || partial.join("base").exists())?;
        assert!(!place.exists(), "half a server is not where the whole one will be");
        signal(&restore, name)?;
        restore.wait()?;
        stage.wait("nothing of it stays", || Ok(!partial.exists() && !place.exists()))?;
    }
    // As if the machine had gone down.
    fs::create_dir(&partial)?;
    fs::write(partial.join("recovery.signal"), "")?;
    let output = stage.gateway.cli(&["restore", "shop", "--to", &to, "--unrecorded"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{said}");
    // What is done is told while it is done.
    for step in ["a restore that broke off has left", "fetch …", "start and replay …"] {
        assert!(said.contains(step), "{step}: {said}");
    }
    let restored = Restored::start(&place)?;
    assert_eq!(restored.psql("SELECT count(*) FROM orders")?, "5000");
    assert!(!place.join("recovery.signal").exists() && !partial.exists());
    drop(restored);
    fs::remove_dir_all(&place)?;
    Ok(())
}

#[test]
fn a_time_that_the_log_does_not_reach_is_told() -> Result<()> {
    let stage = Stage::open("wal = \"stream\"\n", "")?;
    stage.copy()?;
    stage.wait("the log is kept", || Ok(stage.index().exists()))?;
    stage.server.psql("shop", "INSERT INTO commits VALUES (1); SELECT pg_switch_wal()")?;
    std::thread::sleep(Duration::from_secs(3));
    let time = |sql: &str| stage.server.psql("shop", &format!("SET timezone = 'Asia/Kolkata'; SELECT {sql}"));
    let moment = time("to_char(clock_timestamp() - interval '1 second', 'YYYY-MM-DD\"T\"HH24:MI:SS.USTZH:TZM')")?;
    stage.server.psql("shop", "INSERT INTO commits VALUES (2); SELECT pg_switch_wal()")?;
    stage.wait("segments are whole in the vault", || Ok(fs::read_to_string(stage.index())?.matches("\"partial\":false").count() >= 2))?;
    let place = new_place(&stage, "later")?;
    let to = place.display().to_string();
    let later = time("to_char(clock_timestamp() + interval '1 day', 'YYYY-MM-DD HH24:MI:SSTZH:TZM')")?;
    let output = stage.gateway.cli(&["restore", "shop", "--to", &to, "--unrecorded", "--at", &later])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && said.contains("the log that there is ends before that: the last commit in it is of 20"), "{said}");
    assert!(!said.contains("FATAL") && !place.exists(), "{said}");
    let partial = PathBuf::from(format!("{to}.reprieve-partial"));
    assert!(!partial.exists());
    // The zone that a time names is its own.
    stage.gateway.operate(&["restore", "shop", "--to", &to, "--at", &moment, "--reason", "look"])?;
    let restored = Restored::start(&place)?;
    assert_eq!(restored.psql("SELECT string_agg(n::text, ',' ORDER BY n) FROM commits")?, "1");
    drop(restored);
    fs::remove_dir_all(&place)?;
    Ok(())
}

#[test]
fn a_database_whose_policies_name_roles_comes_back() -> Result<()> {
    let stage = Stage::open("engine = \"logical\"\n", "")?;
    stage.server.psql("postgres", "CREATE ROLE app_ro NOLOGIN; CREATE ROLE \"Odd \"\"one\" NOLOGIN; ALTER ROLE copies BYPASSRLS")?;
    stage.server.psql(
        "shop",
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
         CREATE POLICY reads ON orders FOR SELECT TO app_ro, \"Odd \"\"one\" USING (customer < 100);
         CREATE POLICY everybody ON orders FOR SELECT TO PUBLIC USING (customer = 1);
         GRANT SELECT ON orders TO app_ro;
         ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO app_ro;
         ALTER TABLE customers OWNER TO app",
    )?;
    let made = stage.copy()?;
    assert_eq!(made["engine"], "logical");
    stage.drill_passes(4)?;
    let other = Postgres::start()?;
    other.create_database("back", "postgres")?;
    let secrets = tempfile::tempdir()?;
    let file = secrets.path().join("back");
    fs::write(&file, other.superuser_url("back"))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    let to = format!("file:{}", file.display());
    let refused = stage.gateway.operate(&["restore", "shop", "--to", &to, "--reason", "look"]);
    let said = refused.map_or_else(|error| format!("{error:#}"), |answer| answer.to_string());
    assert!(said.contains("app_ro") && said.contains("--create-roles"), "{said}");
    stage.gateway.operate(&["restore", "shop", "--to", &to, "--create-roles", "--reason", "look"])?;
    assert_eq!(other.psql("back", "SELECT count(*) FROM orders")?, "5000");
    let roles = "SELECT string_agg(rolname || ' ' || rolcanlogin, ',' ORDER BY rolname COLLATE \"C\") FROM pg_roles WHERE rolname IN ('app_ro', 'Odd \"one')";
    assert_eq!(other.psql("back", roles)?, "Odd \"one false,app_ro false");
    Ok(())
}
