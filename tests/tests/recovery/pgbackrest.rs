//! Copies by pgBackRest, in a repository of its own: real program, real PostgreSQL, real damage. Each thing that is wrong ends red.
//! Here the repository is a folder; in a bucket, and with a second one, see `pgbackrest/bucket.rs`.

#[path = "pgbackrest/bucket.rs"]
mod bucket;

use std::os::unix::fs::PermissionsExt as _;

use reprieve_testkit::PostgresOptions;

use super::*;

/// A server with a stanza, and a gateway that has it copied there.
struct Repository {
    stage: Stage,
    folder: tempfile::TempDir,
}

impl Repository {
    fn open(backup: &str) -> Result<Repository> {
        Repository::open_with(backup, "repo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=hardly\n")
    }

    /// With more in the configuration of pgBackRest.
    fn open_with(backup: &str, more: &str) -> Result<Repository> {
        Repository::open_at(None, backup, more)
    }

    /// At another path than a folder's.
    fn open_at(path: Option<&str>, backup: &str, more: &str) -> Result<Repository> {
        let folder = tempfile::Builder::new().prefix("reprieve-pgbackrest-").tempdir()?;
        let file = folder.path().join("pgbackrest.conf");
        let settings = [
            ("archive_mode", "on".to_owned()),
            ("archive_command", format!("pgbackrest --config={} --stanza=main archive-push %p", file.display())),
        ];
        let settings = settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let server = Postgres::start_with(&PostgresOptions { settings, ..PostgresOptions::default() })?;
        let place = server.socket_folder();
        let text = format!(
            "[global]\nrepo1-path={}\nrepo1-retention-full=9\njob-retry=0\nlock-path={}\nlog-path={}\nspool-path={}\nstart-fast=y\n{more}\n[main]\npg1-path={}\n\
             pg1-socket-path={}\npg1-port={}\npg1-user=postgres\n",
            path.map_or_else(|| folder.path().join("repo"), PathBuf::from).display(),
            folder.path().join("lock").display(),
            folder.path().join("log").display(),
            folder.path().join("spool").display(),
            place.join("data").display(),
            place.display(),
            server.port()
        );
        fs::write(&file, text)?;
        let owner = fs::metadata(place.join("data"))?;
        for path in [folder.path(), &file] {
            chown(path, Some(owner.uid()), Some(owner.gid()))?;
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        // pgBackRest comes by the socket, without a password.
        let doors = place.join("data/pg_hba.conf");
        let rules = fs::read_to_string(&doors)?;
        fs::write(&doors, format!("local all postgres trust\n{rules}"))?;
        server.psql("postgres", "SELECT pg_reload_conf()")?;
        let backup = format!("engine = \"pgbackrest\"\nstanza = \"main\"\nconfig = \"{}\"\n{backup}", file.display());
        let repository = Repository { stage: Stage::of(server, &backup, "", Vec::new())?, folder };
        repository.tool(&["stanza-create"])?;
        Ok(repository)
    }

    /// pgBackRest, by hand.
    fn tool(&self, arguments: &[&str]) -> Result<String> {
        let output = self
            .as_owner("pgbackrest")
            .arg(format!("--config={}", self.config().display()))
            .arg("--stanza=main")
            .args(arguments)
            .output()?;
        ensure!(output.status.success(), "{arguments:?}: {}{}", said(&output.stdout), said(&output.stderr));
        Ok(said(&output.stdout))
    }

    fn as_owner(&self, program: &str) -> Command {
        let owner = fs::metadata(self.config()).map(|owner| (owner.uid(), owner.gid())).unwrap_or_default();
        let mut command = Command::new("setpriv");
        command.current_dir("/").arg(format!("--reuid={}", owner.0)).arg(format!("--regid={}", owner.1)).args(["--clear-groups", program]);
        if fs::metadata("/proc/self").is_ok_and(|own| own.uid() != 0) {
            command = Command::new(program);
        }
        command
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("pgbackrest.conf")
    }

    /// The one file of the repository whose path has this in it, largest first where there are many.
    fn stored(&self, part: &str) -> Result<PathBuf> {
        let mut found: Vec<(u64, PathBuf)> =
            self.all_stored()?.into_iter().filter(|(_, path)| path.display().to_string().contains(part)).collect();
        found.sort();
        found.pop().map(|(_, path)| path).with_context(|| format!("nothing in the repository is called {part}"))
    }

    fn all_stored(&self) -> Result<Vec<(u64, PathBuf)>> {
        let (mut found, mut folders) = (Vec::new(), vec![self.folder.path().join("repo")]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                match entry.file_type()?.is_dir() {
                    true => folders.push(entry.path()),
                    false => found.push((entry.metadata()?.len(), entry.path())),
                }
            }
        }
        Ok(found)
    }

    /// What the log's part of the repository has.
    fn archived(&self) -> Result<Vec<PathBuf>> {
        let mut found: Vec<PathBuf> = self.all_stored()?.into_iter().map(|(_, path)| path).collect();
        // A file still being written has another name until it is whole.
        let is_log = |path: &str| path.contains("/archive/main/") && !path.contains("archive.info") && !path.ends_with(".tmp");
        found.retain(|path| is_log(&path.display().to_string()));
        found.sort();
        Ok(found)
    }

    /// Everything up to now is in the repository.
    fn archive_now(&self) -> Result<()> {
        let file = self.stage.server.psql("shop", "SELECT pg_walfile_name(pg_current_wal_lsn())")?;
        self.stage.server.psql("shop", "CREATE TABLE IF NOT EXISTS nudge (n int); DROP TABLE nudge; SELECT pg_switch_wal()")?;
        self.stage.wait("the log is archived", || Ok(self.archived()?.iter().any(|path| path.display().to_string().contains(&file))))
    }

    /// Writes something else in a file's place; the drill is red, and green again once it is what it was.
    fn is_red_with(&self, path: &Path, other: Option<&[u8]>, why: &str) -> Result<()> {
        let whole = fs::read(path)?;
        match other {
            Some(bytes) => fs::write(path, bytes)?,
            None => fs::remove_file(path)?,
        }
        self.stage.drill_fails(why).with_context(|| format!("with {}", path.display()))?;
        fs::write(path, whole)?;
        let owner = fs::metadata(self.config())?;
        Ok(chown(path, Some(owner.uid()), Some(owner.gid()))?)
    }

    fn newest_label(&self) -> Result<String> {
        let list = self.stage.gateway.json(&["backup", "list", "--json"])?;
        Ok(list["points"][0]["label"].as_str().context("a label")?.to_owned())
    }
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn flipped(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = fs::read(path)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    Ok(bytes)
}

#[test]
fn a_stanza_is_copied_to_tried_and_told_of() -> Result<()> {
    let repository = Repository::open("assertions = [\"SELECT count(*) = 5000 FROM orders\"]\n")?;
    let stage = &repository.stage;
    stage.drill_fails("no copy")?;
    let made = stage.copy()?;
    assert_eq!(made["engine"], "pgbackrest");
    // The sizes are those of the database, not those of the list that the vault has.
    assert!(made["plain_bytes"].as_u64().is_some_and(|bytes| bytes > 10 << 20), "{made}");
    let (answer, passed) = stage.drill()?;
    assert!(passed && answer["report"]["level"] == 5, "{answer}");
    assert!(
        answer["report"]["rto_ms"].is_u64() && answer["report"]["rpo_ms"].is_u64() && answer["report"]["wal_files"].as_u64() > Some(0),
        "{answer}"
    );
    // A second rests on the first; a third is not ours.
    let second = stage.copy()?;
    assert!(second["added_bytes"].as_u64() < made["added_bytes"].as_u64(), "{made} {second}");
    repository.tool(&["backup", "--type=full"])?;
    let list = stage.gateway.json(&["backup", "list", "--json"])?;
    let points = list["points"].as_array().context("points")?;
    assert_eq!(points.len(), 3, "{list}");
    let others = points.iter().find(|point| point["point"].is_null()).context("the third")?;
    assert!(others["verified"].is_null() && others["label"].is_string(), "{list}");
    let first = points.iter().find(|point| point["point"] == made["point"]).context("the first")?;
    assert!(first["verified"]["level"] == 5 && first["there"] == true && first["age_s"].is_u64(), "{list}");
    assert!(first["locked"].as_str().is_some_and(|locked| locked.starts_with("unknown: pgBackRest's own retention")), "{list}");
    assert!(first["same_blast_radius"] == true && first["place"].as_str().is_some_and(|place| place.contains("stanza main")), "{list}");
    assert_eq!(
        stage.gateway.json(&["backup", "list", "--vault", "--json"])?["points"].as_array().map(Vec::len),
        Some(3),
        "without the ledger"
    );
    let status = stage.gateway.json(&["recovery", "status", "--json"])?;
    assert!(
        status["systems"][0]["unproven"].is_null() && status["systems"][0]["place"].as_str().is_some_and(|place| place.contains("disk of")),
        "{status}"
    );
    // The vault has neither the keys of the repository nor the database.
    for object in stage.objects()? {
        let bytes = fs::read(&object)?;
        assert!(!bytes.windows(11).any(|window| window == b"cipher-pass"), "{}", object.display());
    }
    stage.gateway.verify()?;
    Ok(())
}

#[test]
fn a_damaged_repository_is_never_green() -> Result<()> {
    // What is not packed has no checksum of its own: nothing but ours finds a flipped bit in the log.
    let repository = Repository::open_with("", "compress-type=none\narchive-timeout=60\n")?;
    let stage = &repository.stage;
    stage.copy()?;
    stage.server.psql("shop", "INSERT INTO commits VALUES (1)")?;
    repository.archive_now()?;
    stage.server.psql("shop", "INSERT INTO commits VALUES (2)")?;
    repository.archive_now()?;
    assert!(stage.drill()?.1);
    let archived: Vec<PathBuf> =
        repository.archived()?.into_iter().filter(|path| !path.display().to_string().ends_with(".backup")).collect();
    let newest = archived.last().context("a segment")?;
    // In the log's last segment nobody misses what is behind the flip.
    let mut bytes = fs::read(newest)?;
    bytes[10_000] ^= 1;
    repository.is_red_with(newest, Some(&bytes), "not what was archived")?;
    repository.is_red_with(newest, Some(&fs::read(newest)?[..1 << 20]), "")?;
    let middle = &archived[archived.len() - 2];
    repository.is_red_with(middle, None, "missing")?;
    let table = repository.stored("/pg_data/base/")?;
    repository.is_red_with(&table, Some(&flipped(&table)?), "checksum")?;
    let whole = fs::read(&table)?;
    repository.is_red_with(&table, Some(&whole[..whole.len() - 8_192]), "")?;
    repository.is_red_with(&table, None, "")?;
    for info in ["backup.info", "archive.info"] {
        let (main, second) =
            (repository.stored(info)?.with_file_name(info), repository.stored(info)?.with_file_name(format!("{info}.copy")));
        let kept = fs::read(&second)?;
        fs::write(&second, &kept[..40])?;
        repository.is_red_with(&main, Some(&kept[..40]), "")?;
        fs::write(&second, kept)?;
    }
    assert!(stage.drill()?.1, "as it was");
    Ok(())
}

#[test]
fn another_list_of_files_than_was_signed_for_is_red() -> Result<()> {
    let repository = Repository::open_with("", "compress-type=none\n")?;
    let stage = &repository.stage;
    stage.copy()?;
    let label = repository.newest_label()?;
    // A note changes nothing that comes back.
    repository.tool(&["annotate", &format!("--set={label}"), "--annotation=who=ana"])?;
    assert!(stage.drill()?.1);
    // Who has the repository can have another file in its place, and the sums that fit it.
    let copies = repository.folder.path().join("repo/backup/main");
    let (list, second) = (copies.join(&label).join("backup.manifest"), copies.join(&label).join("backup.manifest.copy"));
    let before = fs::read_to_string(&list)?;
    let changed = before.replace("pg_data/PG_VERSION={\"checksum\":\"", "pg_data/PG_VERSION={\"mode\":\"0644\",\"checksum\":\"");
    ensure!(changed != before, "the list has another form: {before:.400}");
    fs::write(&second, with_its_sum(&changed)?)?;
    repository.is_red_with(&list, Some(with_its_sum(&changed)?.as_bytes()), "not the one that was signed for")?;
    Ok(())
}

/// A list with the checksum that pgBackRest finds right.
fn with_its_sum(list: &str) -> Result<String> {
    let (start, end) = (list.find("backrest-checksum=").context("a checksum")?, list.rfind('"').context("its end")?);
    let from = start + "backrest-checksum=\"".len();
    Ok(format!("{}{}{}", &list[..from], sum_of(list)?, &list[end..]))
}

/// As pgBackRest makes it: the sections and their values as one line of JSON, without the sum itself.
fn sum_of(list: &str) -> Result<String> {
    use std::io::Write as _;
    let mut text = String::from("{");
    let mut sections: Vec<(String, Vec<String>)> = Vec::new();
    for line in list.lines().filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            sections.push((name.to_owned(), Vec::new()));
        } else if !line.starts_with("backrest-checksum=") {
            let (key, value) = line
                .split_once("={")
                .map(|(key, value)| (key, format!("{{{value}")))
                .or_else(|| line.rsplit_once('=').map(|(key, value)| (key, value.to_owned())))
                .context("a line")?;
            sections.last_mut().context("a section")?.1.push(format!("\"{key}\":{value}"));
        }
    }
    let sections: Vec<String> = sections
        .into_iter()
        .filter(|(_, lines)| !lines.is_empty())
        .map(|(name, lines)| format!("\"{name}\":{{{}}}", lines.join(",")))
        .collect();
    text.push_str(&sections.join(","));
    text.push('}');
    let mut child = Command::new("sha1sum").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn()?;
    child.stdin.take().context("its input")?.write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    Ok(said(&output.stdout).split_whitespace().next().context("a sum")?.to_owned())
}

#[test]
fn a_stanza_comes_back_as_it_was_at_a_moment_and_archives_nothing() -> Result<()> {
    let mut repository = Repository::open("")?;
    // The copy brings settings that would have the restored server archive.
    let archives = repository.stage.server.psql("postgres", "SHOW archive_command")?;
    repository.stage.server.psql("postgres", &format!("ALTER SYSTEM SET archive_command = '{archives}'"))?;
    repository.stage.server.psql("postgres", "ALTER SYSTEM SET archive_mode = 'always'")?;
    repository.stage.copy()?;
    repository.stage.server.psql("shop", "INSERT INTO commits VALUES (1)")?;
    std::thread::sleep(Duration::from_secs(1));
    let moment =
        repository.stage.server.psql("shop", "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS')")?;
    std::thread::sleep(Duration::from_secs(1));
    repository.stage.server.psql("shop", "INSERT INTO commits VALUES (2); DELETE FROM orders")?;
    repository.archive_now()?;
    repository.stage.server.lose_data()?;
    let archived = repository.archived()?;
    for (name, arguments, commits, orders) in [("then", vec!["--at", moment.as_str()], "1", "5000"), ("newest", vec![], "2", "0")] {
        let place = new_place(&repository.stage, name)?;
        let to = place.display().to_string();
        let arguments = [&["restore", "shop", "--to", &to, "--reason", "the disk is gone"], arguments.as_slice()].concat();
        let answer = repository.stage.gateway.operate(&arguments)?;
        assert_eq!(answer["restored"]["engine"], "pgbackrest", "{answer}");
        let restored = Restored::start(&place)?;
        assert_eq!(restored.psql("SELECT count(*) FROM commits")?, commits, "{name}");
        assert_eq!(restored.psql("SELECT count(*) FROM orders")?, orders, "{name}");
        assert_eq!(restored.psql("SHOW archive_mode")?, "off", "{name}");
        let settings = fs::read_to_string(place.join("postgresql.auto.conf"))?;
        assert!(settings.contains(&archives) && settings.contains("always"), "the copy's own settings came back: {settings}");
        for round in 0..3 {
            restored.psql(&format!("INSERT INTO commits VALUES ({}); SELECT pg_switch_wal()", 100 + round))?;
            restored.psql("CHECKPOINT")?;
        }
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(restored.psql("SELECT archived_count + failed_count FROM pg_stat_archiver")?, "0");
        drop(restored);
        if name == "newest" {
            // Without the last word on it, it would.
            fs::write(place.join("postgresql.auto.conf"), settings.replace("archive_mode = 'off'\n", ""))?;
            let restored = Restored::start(&place)?;
            restored.psql("INSERT INTO commits VALUES (200)")?;
            restored.psql("SELECT pg_switch_wal()")?;
            repository
                .stage
                .wait("it tries to archive", || Ok(restored.psql("SELECT archived_count + failed_count FROM pg_stat_archiver")? != "0"))?;
        }
        // Never over anything.
        let again = repository.stage.gateway.operate(&arguments);
        assert!(again.as_ref().is_err_and(|error| format!("{error:#}").contains("not empty")), "{again:?}");
        fs::remove_dir_all(&place)?;
    }
    assert_eq!(repository.archived()?, archived, "the repository has the log of the server that is gone, and of no other");
    // A drill's server did not archive either, and what is gone is still proved.
    assert!(repository.stage.drill_without_orders()?);
    assert_eq!(repository.archived()?, archived);
    Ok(())
}

impl Stage {
    /// A drill that finds what is wrong with the rows, and nothing else.
    fn drill_without_orders(&self) -> Result<bool> {
        let (answer, _) = self.drill()?;
        Ok(answer["report"]["reason"].as_str().is_some_and(|reason| reason.starts_with("rows: ")))
    }
}

#[test]
fn the_log_is_followed_where_a_restored_server_went_on() -> Result<()> {
    let mut repository = Repository::open("assertions = [\"SELECT count(*) = 1 FROM commits WHERE n = 777\"]\n")?;
    repository.stage.copy()?;
    repository.stage.server.psql("shop", "INSERT INTO commits VALUES (1)")?;
    repository.archive_now()?;
    repository.stage.drill_fails("own check 1")?;
    // It is lost, comes back, and takes its own place: what it writes from now on is another line of time.
    let data = repository.stage.server.socket_folder().join("data");
    repository.stage.server.lose_data()?;
    let place = new_place(&repository.stage, "line")?;
    repository.stage.gateway.operate(&["restore", "shop", "--to", &place.display().to_string(), "--reason", "the disk is gone"])?;
    let auto = place.join("postgresql.auto.conf");
    fs::write(&auto, fs::read_to_string(&auto)?.replace("archive_mode = 'off'\n", ""))?;
    let moved = Command::new("cp").arg("-a").arg(&place).arg(&data).status()?;
    ensure!(moved.success());
    fs::remove_dir_all(&place)?;
    repository.stage.server.resume()?;
    repository.stage.server.psql("shop", "INSERT INTO commits VALUES (777)")?;
    repository.archive_now()?;
    let (answer, passed) = repository.stage.drill()?;
    ensure!(passed && answer["report"]["level"] == 5, "{answer}");
    Ok(())
}

#[test]
fn restores_that_the_configuration_leads_elsewhere_stay_where_they_belong() -> Result<()> {
    let evil = tempfile::tempdir()?;
    let more = format!(
        "[global:restore]\nlink-all=y\ndelta=y\ndb-include=other\nrecovery-option=archive_cleanup_command=touch {0}/ran\ntablespace-map=x={0}\n\
         archive-mode=preserve\n[global:archive-get]\narchive-async=y\n[global]",
        evil.path().display()
    );
    let repository = Repository::open_with("", &more)?;
    repository.stage.copy()?;
    let (answer, passed) = repository.stage.drill()?;
    assert!(passed, "{answer}");
    assert!(fs::read_dir(evil.path())?.next().is_none());
    Ok(())
}

#[test]
fn what_can_not_be_relied_on_is_no_copy() -> Result<()> {
    let mut repository = Repository::open("")?;
    let fails = |repository: &Repository, why: &str| -> Result<()> {
        let output = repository.stage.gateway.cli(&["backup", "now", "shop", "--json"])?;
        ensure!(!output.status.success(), "it was copied: {}", said(&output.stdout));
        let text = answer(&output)?["error"].as_str().unwrap_or_default().to_owned();
        ensure!(text.contains(why), "no {why:?}: {text}");
        ensure!(
            repository
                .stage
                .events("backup_failed")?
                .last()
                .is_some_and(|event| event["reason"].as_str().is_some_and(|reason| reason.contains(why)))
        );
        Ok(())
    };
    repository.stage.copy()?;
    assert!(repository.stage.drill()?.1);
    let config = repository.config();
    let text = fs::read_to_string(&config)?;
    // No such stanza; no repository; a folder that nobody may look into; no configuration.
    let changed = |text: &str, why: &str| -> Result<()> {
        fs::write(&config, text)?;
        fails(&repository, why)?;
        repository.stage.drill_fails(why)?;
        let list = repository.stage.gateway.cli(&["backup", "list", "--json"])?;
        ensure!(
            !list.status.success() && answer(&list)?["unreadable"][0].as_str().is_some_and(|said| said.contains(why)),
            "{}",
            said(&list.stdout)
        );
        Ok(())
    };
    changed(&text.replace("/repo\n", "/elsewhere\n"), "missing stanza path")?;
    changed("[global]\nnot an option\n", "pgbackrest")?;
    fs::write(&config, &text)?;
    let lists = repository.folder.path().join("repo/backup");
    fs::rename(&lists, lists.with_extension("away"))?;
    fs::write(&lists, "")?;
    changed(&text, "")?;
    fs::remove_file(&lists)?;
    fs::rename(lists.with_extension("away"), &lists)?;
    // Tablespaces lie where others may.
    let place = repository.folder.path().join("space");
    fs::create_dir(&place)?;
    let owner = fs::metadata(&config)?;
    chown(&place, Some(owner.uid()), Some(owner.gid()))?;
    repository.stage.server.psql("postgres", &format!("CREATE TABLESPACE elsewhere LOCATION '{}'", place.display()))?;
    fails(&repository, "tablespaces")?;
    repository.stage.server.psql("postgres", "DROP TABLESPACE elsewhere")?;
    // The log has made it all the same, and is not replayed over it; a new copy comes after that.
    repository.stage.copy()?;
    // pgBackRest finds a damaged page, and makes its copy all the same.
    let file = repository.stage.server.psql("shop", "CHECKPOINT; SELECT pg_relation_filepath('customers')")?;
    let data = repository.stage.server.socket_folder().join("data");
    repository.stage.server.stop()?;
    let program = repository.stage.server.binaries().program("pg_checksums").display().to_string();
    let output = repository.as_owner(&program).args(["--enable", "--no-sync", "-D"]).arg(&data).output()?;
    ensure!(output.status.success(), "{}", said(&output.stderr));
    let table = data.join(file.trim());
    let whole = fs::read(&table)?;
    let mut bytes = whole.clone();
    bytes[6_000] ^= 1;
    fs::write(&table, bytes)?;
    repository.stage.server.resume()?;
    repository.stage.server.psql("shop", "ALTER SYSTEM SET ignore_checksum_failure = on; SELECT pg_reload_conf()")?;
    fails(&repository, "damaged pages")?;
    let list = repository.stage.gateway.json(&["backup", "list", "--json"])?;
    assert!(list["points"][0]["wrong"].as_str().is_some_and(|wrong| wrong.contains("damaged pages")), "{list}");
    // What its retention takes away is gone, and told.
    let (answer, passed) = repository.stage.drill()?;
    assert!(passed, "the one before: {answer}");
    fs::write(&table, whole)?;
    repository.tool(&["backup", "--type=full"])?;
    repository.tool(&["expire", "--repo1-retention-full=1"])?;
    repository.stage.drill_fails("not in pgBackRest's repository")?;
    let list = repository.stage.gateway.json(&["backup", "list", "--json"])?;
    let ours =
        list["points"].as_array().and_then(|points| points.iter().find(|point| point["point"].is_string()).cloned()).context("ours")?;
    assert_eq!(ours["there"], false, "{list}");
    Ok(())
}

#[test]
fn another_servers_stanza_is_not_this_ones() -> Result<()> {
    let (one, other) = (Repository::open("")?, Repository::open("")?);
    // The repository of the other, named in the settings of the one. They were made from the same files: even their numbers are the same.
    let number = "SELECT system_identifier FROM pg_control_system()";
    assert_eq!(one.stage.server.psql("shop", number)?, other.stage.server.psql("shop", number)?);
    let settings = one.stage.gateway.folder().join("reprieve.toml");
    let changed = fs::read_to_string(&settings)?.replace(&one.config().display().to_string(), &other.config().display().to_string());
    fs::write(&settings, changed)?;
    let output = one.stage.gateway.cli(&["backup", "now", "shop", "--json"])?;
    assert!(!output.status.success() && said(&output.stdout).contains("another server"), "{}", said(&output.stdout));
    Ok(())
}

#[test]
fn an_answer_in_another_form_is_no_answer() -> Result<()> {
    let repository = Repository::open("")?;
    let stage = &repository.stage;
    stage.copy()?;
    // A later version, as it may be: the same program, with its answers changed.
    let folder = repository.folder.path().join("bin");
    fs::create_dir(&folder)?;
    let program = folder.join("pgbackrest");
    let with = |change: &str| -> Result<std::process::Output> {
        fs::write(&program, format!("#!/bin/sh\nset -e\nsaid=$(/usr/bin/pgbackrest \"$@\")\nprintf '%s' \"$said\" | sed '{change}'\n"))?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new(reprieve_testkit::program()?);
        command.current_dir(stage.gateway.folder()).args(["drill", "run", "shop", "--json"]).env("PATH", path);
        command
            .env("GUARDED_0_URL", stage.server.url("app", "secret", "shop"))
            .env("GUARDED_0_ADMIN_URL", stage.server.superuser_url("shop"));
        Ok(command.output()?)
    };
    let report = |output: std::process::Output| -> Result<Value> { Ok(answer(&output)?["report"].clone()) };
    assert_eq!(report(with("")?)?["passed"], true, "the program in its place works");
    for (change, why) in [
        ("s/\"format\":5/\"format\":6/g", "not known here"),
        ("s/\"error\":false/\"error\":true/g", "damaged pages"),
        ("s/\"error\":false,//g", "does not say"),
        ("s/\"system-id\"/\"system\"/g", "can.t be read"),
        ("s/\"label\":\"[^\"]*\"/\"label\":\"--force\"/g", "can.t be read"),
        ("s/^\\[{.*/{}/", "can.t be read"),
    ] {
        let report = report(with(change)?)?;
        let reason = report["reason"].as_str().unwrap_or_default().replace('\'', ".");
        assert!(report["passed"] == false && reason.contains(why), "{change}: {report}");
    }
    Ok(())
}

#[test]
fn hostile_names_are_refused_before_anything_runs() -> Result<()> {
    let repository = Repository::open("")?;
    let folder = repository.stage.gateway.folder();
    let text = fs::read_to_string(folder.join("reprieve.toml"))?;
    let run = |changed: String, arguments: &[&str]| -> Result<String> {
        ensure!(changed != text, "nothing was changed");
        fs::write(folder.join("other.toml"), changed)?;
        let output = repository.stage.gateway.cli(&[&["--config", "other.toml"], arguments].concat())?;
        ensure!(!output.status.success(), "{}", said(&output.stdout));
        Ok(said(&output.stdout) + &said(&output.stderr))
    };
    for name in ["--config=/etc/passwd", "-h", "", "../main", "main/../x", "a b", "$(touch /tmp/x)", "main\\nx"] {
        let said = run(text.replace("stanza = \"main\"", &format!("stanza = \"{name}\"")), &["backup", "now", "shop", "--json"])?;
        ensure!(said.contains("is no stanza"), "{name}: {said}");
    }
    for (from, to, why) in [
        ("stanza = \"main\"\n", "", "names no `stanza`"),
        ("engine = \"pgbackrest\"\n", "", "has a `stanza`"),
        ("stanza = \"main\"\n", "stanza = \"main\"\nwal = \"stream\"\n", "keeps the log itself"),
        ("[[system]]", "[recovery]\nlocked = \"30d\"\n[[system]]", "can't be looked at"),
    ] {
        let said = run(text.replacen(from, to, 1), &["check", "--json"])?;
        ensure!(said.contains(why), "{to}: {said}");
    }
    repository.stage.copy()?;
    for moment in ["--force", "now", "2026-05-12 14:02:10'; --", "2026-05-12 14:02:10\n", "infinity"] {
        let to = folder.join("to").display().to_string();
        let refused = repository.stage.gateway.operate(&["restore", "shop", "--to", &to, "--reason", "look", &format!("--at={moment}")]);
        ensure!(refused.is_err() && !Path::new(&to).exists(), "{moment}: {refused:?}");
    }
    Ok(())
}

#[test]
fn protect_says_what_a_stanza_lacks() -> Result<()> {
    let repository = Repository::open_with("", "")?;
    let findings = || -> Result<Vec<(String, bool, String)>> {
        let output = repository.stage.gateway.cli(&["protect", "shop", "--check", "--json"])?;
        let told = answer(&output)?;
        let told = told["findings"].as_array().context("findings")?.iter().map(|finding| {
            let text = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
            (text("subject"), finding["level"] == "good", text("text"))
        });
        Ok(told.filter(|(subject, ..)| subject.starts_with("pgBackRest, ")).collect())
    };
    let good = |found: &[(String, bool, String)], subject: &str| found.iter().any(|(of, good, _)| of.ends_with(subject) && *good);
    let found = findings()?;
    for (subject, expected) in [
        ("stanza", true),
        ("repo1-cipher-type", false),
        ("repo1-retention-full", true),
        ("archive_command", true),
        ("pgbackrest check", true),
        ("repository", false),
    ] {
        assert_eq!(good(&found, subject), expected, "{subject}: {found:?}");
    }
    let applied = repository.stage.gateway.json(&["protect", "shop", "--apply", "--json"])?;
    let told = applied["findings"].as_array().context("findings")?;
    let of_it = |finding: &&Value| finding["subject"].as_str().is_some_and(|subject| subject.starts_with("pgBackRest, "));
    assert_eq!(told.iter().filter(of_it).count(), 6, "{applied}");
    // The server stops archiving, and nothing would be removed.
    repository.stage.server.psql("postgres", "ALTER SYSTEM SET archive_command = ''")?;
    repository.stage.server.psql("postgres", "SELECT pg_reload_conf()")?;
    let text = fs::read_to_string(repository.config())?;
    fs::write(repository.config(), text.replace("repo1-retention-full=9\n", "repo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=x\n"))?;
    let found = findings()?;
    for (subject, expected) in
        [("repo1-cipher-type", true), ("repo1-retention-full", false), ("archive_command", false), ("pgbackrest check", false)]
    {
        assert_eq!(good(&found, subject), expected, "{subject}: {found:?}");
    }
    // A bucket is somewhere else; another machine is; a name that leads nowhere may be here.
    let place = |more: &str| -> Result<(bool, String)> {
        fs::write(repository.config(), text.replace("[main]", &format!("{more}\n[main]")))?;
        let list = repository.stage.gateway.cli(&["recovery", "status", "--json"])?;
        let told = answer(&list)?;
        let system = &told["systems"][0];
        Ok((system["same_blast_radius"] == true, system["place"].as_str().unwrap_or_default().to_owned()))
    };
    let at = |endpoint: &str| {
        format!(
            "repo1-type=s3\nrepo1-s3-bucket=copies\nrepo1-s3-endpoint={endpoint}\nrepo1-s3-region=r\nrepo1-s3-key=k\nrepo1-s3-key-secret=s"
        )
    };
    // RFC 5737: nobody's address.
    let (bucket, beside, unknown) = (at("192.0.2.1"), at("127.0.0.1:9000"), at("s3.invalid"));
    let (behind, moved) = (format!("{bucket}\nrepo1-storage-host=localhost"), format!("{beside}\n[main]\npg1-host=203.0.113.2"));
    let together = format!("{bucket}\n[main]\npg1-host=192.0.2.1");
    for (more, same, name) in [
        (bucket.as_str(), false, "s3 bucket copies/"),
        (&beside, true, "its store is on the system's own machine"),
        (&unknown, true, "can't be told"),
        (&behind, true, "own machine"),
        (&moved, false, "s3 bucket copies/"),
        (&together, true, "own machine"),
        ("repo1-host=192.0.2.1", false, "192.0.2.1:/"),
        ("repo1-host=127.0.0.1", true, "own machine"),
        // Not knowing counts as the same.
        ("repo1-host=nobody.invalid", true, "can't be told"),
        ("repo1-type=nonsense", true, "can't be told"),
        ("", true, "on the disk of the data directory"),
    ] {
        let found = place(more)?;
        assert!(found.0 == same && found.1.contains(name), "{more}: {found:?}");
    }
    Ok(())
}
