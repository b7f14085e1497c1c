//! The log between copies, when what it comes from or who receives it is not what it was: it begins anew and says so, and what was received
//! before is not relied on for what came after.

use super::*;

impl Stage {
    fn wal(&self) -> PathBuf {
        self.gateway.folder().join("recovery/shop/wal")
    }

    /// The processes that receive.
    fn receivers(&self) -> Result<Vec<String>> {
        let folder = self.wal().display().to_string();
        let mut found = Vec::new();
        for process in fs::read_dir("/proc")?.flatten() {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let arguments: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
            if arguments[0].ends_with("pg_receivewal") && arguments.iter().any(|argument| *argument == folder) {
                found.push(process.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(found)
    }

    /// Waits until all that is committed by now is in the vault.
    fn wait_until_covered(&self) -> Result<()> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
        self.wait("what is committed is in the vault", || {
            let text = fs::read(self.gateway.folder().join("recovery/shop/stream.json")).unwrap_or_default();
            let noted: Value = serde_json::from_slice(&text).unwrap_or_default();
            Ok(noted["until"].as_u64().is_some_and(|until| u128::from(until) >= now) && noted["trouble"].is_null())
        })
    }

    fn commit(&self, n: u32) -> Result<String> {
        self.server.psql("shop", &format!("INSERT INTO commits VALUES ({n})"))
    }

    /// Waits until it is told that the log begins anew.
    fn wait_until_broken(&self, why: &str) -> Result<Value> {
        self.wait("it is recorded", || Ok(!self.events("log_broken")?.is_empty()))?;
        let broken = self.events("log_broken")?.remove(0);
        ensure!(broken["reason"].as_str().is_some_and(|reason| reason.contains(why)), "{broken}");
        let aside = PathBuf::from(broken["aside"].as_str().context("a folder")?);
        self.wait("what was received is set aside", || Ok(aside.join("index").exists()))?;
        let told = |event: &Value| event["what"].as_str().is_some_and(|what| what.contains("is lost") && what.contains("backup now shop"));
        self.wait("there is an alarm", || Ok(self.events("alarm")?.iter().any(told)))?;
        Ok(broken)
    }

    /// The newest there is, or a moment of it, and what was committed by then.
    fn restored(&self, name: &str, more: &[&str]) -> Result<String> {
        let place = new_place(self, name)?;
        let to = place.display().to_string();
        self.gateway.operate(&[["restore", "shop", "--to", &to, "--reason", "look"].as_slice(), more].concat())?;
        let restored = Restored::start(&place)?;
        let commits = restored.psql("SELECT string_agg(n::text, ',' ORDER BY n) FROM commits")?;
        drop(restored);
        fs::remove_dir_all(&place)?;
        Ok(commits)
    }
}

fn signal(name: &str, process: &str) -> Result<()> {
    ensure!(Command::new("kill").args([name, process]).status()?.success(), "{process} took no {name}");
    Ok(())
}

#[test]
fn a_receiver_ends_with_its_gateway_and_the_next_one_goes_on() -> Result<()> {
    let mut stage = Stage::open("wal = \"stream\"\n", "")?;
    stage.wait_until_covered()?;
    ensure!(stage.receivers()?.len() == 1);
    stage.gateway.stop()?;
    ensure!(stage.receivers()?.is_empty(), "stopped in good order, it leaves a receiver");
    // One that an earlier gateway left.
    let mut left = Command::new(stage.server.binaries().program("pg_receivewal"));
    left.args(["--slot", "reprieve_shop", "--dbname", &stage.server.superuser_url("postgres"), "--directory"]).arg(stage.wal());
    let mut left = left.spawn()?;
    let active = "SELECT active FROM pg_replication_slots WHERE slot_name = 'reprieve_shop'";
    stage.wait("it has the slot", || Ok(stage.server.psql("postgres", active)? == "t"))?;
    stage.gateway.restart()?;
    stage.wait_until_covered()?;
    left.wait()?;
    // A gateway that is killed, while its receiver does not answer.
    let receiver = stage.receivers()?.first().context("a receiver")?.clone();
    signal("-STOP", &receiver)?;
    stage.gateway.kill_now()?;
    stage.wait("its receiver ends", || Ok(stage.receivers()?.is_empty()))?;
    stage.gateway.restart()?;
    stage.wait_until_covered()?;
    ensure!(stage.events("log_broken")?.is_empty());
    Ok(())
}

#[test]
fn a_receiver_that_stands_still_is_begun_again() -> Result<()> {
    let stage = Stage::open("wal = \"stream\"\n", "")?;
    stage.wait_until_covered()?;
    let receiver = stage.receivers()?.first().context("a receiver")?.clone();
    signal("-STOP", &receiver)?;
    stage.commit(1)?;
    stage.wait_until_covered()?;
    ensure!(!stage.receivers()?.contains(&receiver), "it is the same");
    ensure!(stage.gateway.log().contains("nothing was received for"), "{}", stage.gateway.log());
    ensure!(stage.events("log_broken")?.is_empty());
    Ok(())
}

#[test]
fn a_server_that_went_back_gets_a_new_log_and_a_new_copy() -> Result<()> {
    let mut stage = Stage::open("wal = \"stream\"\nevery = \"24h\"\n", "")?;
    stage.wait("there is a copy", || Ok(!stage.events("backup_made")?.is_empty()))?;
    let first = stage.events("backup_made")?[0]["point"].as_str().context("a point")?.to_owned();
    stage.commit(1)?;
    std::thread::sleep(Duration::from_secs(1));
    let moment = stage.server.psql("shop", "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS')")?;
    std::thread::sleep(Duration::from_secs(1));
    for n in 2..6 {
        stage.commit(n)?;
        stage.server.psql("postgres", "SELECT pg_switch_wal()")?;
    }
    stage.commit(6)?;
    stage.wait_until_covered()?;
    // Restored as it was before, and started in the old place.
    let place = new_place(&stage, "back")?;
    stage.gateway.operate(&["restore", "shop", "--to", &place.display().to_string(), "--at", &moment, "--reason", "a mistake"])?;
    let data = stage.server.socket_folder().join("data");
    stage.server.stop()?;
    fs::remove_dir_all(&data)?;
    ensure!(Command::new("mv").arg(&place).arg(&data).status()?.success());
    stage.server.resume()?;
    let broken = stage.wait_until_broken("timeline 2")?;
    ensure!(broken["resumed"].as_str().is_some_and(|resumed| resumed.contains("on timeline 2")), "{broken}");
    // The gateway makes a copy by itself, long before it is time for one.
    stage.wait("there is a new copy", || Ok(stage.events("backup_made")?.len() > 1))?;
    stage.commit(100)?;
    stage.wait_until_covered()?;
    stage.drill_passes(4)?;
    assert_eq!(stage.restored("new", &[])?, "1,100");
    // The first copy comes back as it was at that time, too.
    assert_eq!(stage.restored("old", &["--point", &first, "--at", &moment])?, "1");
    assert_eq!(stage.events("log_broken")?.len(), 1);
    Ok(())
}

#[test]
fn a_slot_that_was_lost_is_told_and_a_new_copy_heals() -> Result<()> {
    let mut stage = Stage::open("wal = \"stream\"\n", "")?;
    let first = stage.copy()?["point"].as_str().context("a point")?.to_owned();
    stage.commit(1)?;
    std::thread::sleep(Duration::from_secs(1));
    let moment = stage.server.psql("shop", "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS')")?;
    std::thread::sleep(Duration::from_secs(1));
    stage.commit(2)?;
    stage.wait_until_covered()?;
    stage.drill_passes(4)?;
    stage.gateway.stop()?;
    stage.server.psql("postgres", "ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'")?;
    stage.server.psql("postgres", "SELECT pg_reload_conf()")?;
    let lost = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'reprieve_shop'";
    for n in 0..30 {
        stage.commit(10 + n)?;
        stage.server.psql("postgres", "SELECT pg_switch_wal(); CHECKPOINT")?;
        if stage.server.psql("postgres", lost)? == "lost" {
            break;
        }
    }
    assert_eq!(stage.server.psql("postgres", lost)?, "lost");
    stage.server.psql("postgres", "ALTER SYSTEM RESET max_slot_wal_keep_size")?;
    stage.server.psql("postgres", "SELECT pg_reload_conf()")?;
    stage.gateway.restart()?;
    stage.wait_until_broken("max_slot_wal_keep_size")?;
    // What was proved before is proved no more, and the old copy does not pass over what is missing.
    ensure!(!stage.gateway.cli(&["recovery", "status", "--json"])?.status.success(), "the status is green");
    stage.wait_until_covered()?;
    stage.drill_fails("missing")?;
    let to = new_place(&stage, "gap")?.display().to_string();
    let over = stage.gateway.operate(&["restore", "shop", "--to", &to, "--reason", "look"]);
    ensure!(over.as_ref().is_err_and(|error| format!("{error:#}").contains("missing")), "{over:?}");
    // Before it, it comes back to any moment.
    assert_eq!(stage.restored("before", &["--point", &first, "--at", &moment])?, "1");
    stage.copy()?;
    stage.commit(100)?;
    stage.wait_until_covered()?;
    stage.drill_passes(4)?;
    ensure!(stage.gateway.cli(&["recovery", "status", "--json"])?.status.success(), "the status is not green");
    let commits = stage.restored("new", &[])?;
    ensure!(commits.starts_with("1,2,10,") && commits.ends_with(",100"), "{commits}");
    assert_eq!(stage.events("log_broken")?.len(), 1);
    Ok(())
}

#[test]
fn another_cluster_in_the_place_of_the_first_is_told() -> Result<()> {
    let mut stage = Stage::open("wal = \"stream\"\n", "")?;
    stage.copy()?;
    stage.wait_until_covered()?;
    let data = stage.server.socket_folder().join("data");
    let old = stage.server.socket_folder().join("old");
    stage.gateway.stop()?;
    stage.server.stop()?;
    fs::rename(&data, &old)?;
    // As an administrator would, by the account that the server has.
    let owner = fs::metadata(&old)?;
    let password = stage.server.socket_folder().join("password");
    fs::write(&password, stage.server.password())?;
    chown(&password, Some(owner.uid()), Some(owner.gid()))?;
    fs::create_dir(&data)?;
    chown(&data, Some(owner.uid()), Some(owner.gid()))?;
    let initdb = stage.server.binaries().program("initdb");
    let root = fs::metadata("/proc/self")?.uid() == 0;
    let mut command = if root { Command::new("setpriv") } else { Command::new(&initdb) };
    if root {
        command.args([format!("--reuid={}", owner.uid()), format!("--regid={}", owner.gid()), "--clear-groups".to_owned()]).arg(initdb);
    }
    command.args(["--username=postgres", "--auth=scram-sha-256", "--no-sync", "--pwfile"]).arg(&password).arg("--pgdata").arg(&data);
    let made = command.current_dir("/").output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for file in ["postgresql.conf", "postgresql.auto.conf", "pg_hba.conf"] {
        ensure!(Command::new("cp").arg("-p").arg(old.join(file)).arg(data.join(file)).status()?.success());
    }
    stage.server.resume()?;
    stage.server.create_database("shop", "postgres")?;
    stage.server.create_role("app", "secret", "")?;
    stage.server.create_role("copies", "secret", "REPLICATION IN ROLE pg_read_all_data")?;
    stage.server.psql("shop", "CREATE TABLE commits (n bigint PRIMARY KEY)")?;
    stage.gateway.restart()?;
    stage.wait_until_broken("another cluster")?;
    stage.commit(7)?;
    stage.copy()?;
    stage.commit(8)?;
    stage.wait_until_covered()?;
    stage.drill_passes(4)?;
    assert_eq!(stage.restored("other", &[])?, "7,8");
    Ok(())
}
