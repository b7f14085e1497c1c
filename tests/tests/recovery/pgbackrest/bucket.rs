//! A repository of pgBackRest's in a bucket, and one beside another. Against a real store, by TLS; without its programs
//! (`scripts/setup.sh`) there is nothing to say.

use reprieve_testkit::{Bucket, Who};

use super::*;

/// Where in the bucket.
const PLACE: &str = "/pgbackrest";

/// The configuration of a repository in the bucket, with what locks nothing left to the bucket.
fn options(bucket: &Bucket, number: u32, authority: &Path) -> String {
    let (key, secret) = Who::Owner.key();
    let option = |(name, value): (&str, &str)| format!("repo{number}-{name}={value}\n");
    [
        ("type", "s3"),
        ("s3-bucket", bucket.name()),
        // By this name the store knows that what follows it is the bucket.
        ("s3-endpoint", "127.0.0.1"),
        ("s3-uri-style", "path"),
        ("s3-region", "us-east-1"),
        ("s3-key", key),
        ("s3-key-secret", secret),
        // By this one its certificate is looked at.
        ("storage-host", "localhost"),
        ("storage-port", &bucket.tls_port().to_string()),
        ("storage-ca-file", &authority.display().to_string()),
    ]
    .map(option)
    .concat()
        + "io-timeout=5\nprocess-max=4\n"
}

/// The authority's certificate, where the server's account can read it.
fn authority(bucket: &Bucket) -> Result<PathBuf> {
    let folder = tempfile::Builder::new().prefix("reprieve-authority-").tempdir()?.keep();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
    let file = folder.join("authority.pem");
    fs::write(&file, bucket.authority())?;
    Ok(file)
}

fn open(bucket: &Bucket, backup: &str, more: &str) -> Result<Repository> {
    let options = options(bucket, 1, &authority(bucket)?);
    Repository::open_at(Some(PLACE), backup, &format!("{options}{more}"))
}

impl Repository {
    /// What is below a folder of the repository, as paths from its top.
    fn listed(&self, folder: &str) -> Result<Vec<String>> {
        let told: Value = serde_json::from_str(&self.tool(&["repo-ls", "--repo=1", "--recurse", "--output=json", folder])?)?;
        let files = told.as_object().context("a list")?.iter().filter(|(_, entry)| entry["type"] == "file");
        Ok(files.map(|(path, _)| format!("{PLACE}/{folder}/{path}")).collect())
    }

    /// Everything up to now is in the repository.
    fn ship(&self) -> Result<()> {
        let file = self.stage.server.psql("shop", "SELECT pg_walfile_name(pg_current_wal_lsn())")?;
        self.stage.server.psql("shop", "CREATE TABLE IF NOT EXISTS nudge (n int); DROP TABLE nudge; SELECT pg_switch_wal()")?;
        self.stage.wait("the log is archived", || Ok(self.listed("archive/main")?.iter().any(|path| path.contains(&file))))
    }

    /// Puts something else over an object, or takes it away; the drill is red, and green again once it is what it was.
    fn is_red_in(&self, bucket: &Bucket, object: &str, other: Option<fn(&mut Vec<u8>)>, why: &str) -> Result<()> {
        let (status, whole) = bucket.send(Who::Owner, "GET", object, &[], b"")?;
        ensure!(status == 200, "{object}: {status}");
        let mut bytes = whole.clone();
        let (method, body) = other.map_or(("DELETE", Vec::new()), |change| {
            change(&mut bytes);
            ("PUT", bytes)
        });
        let done = bucket.send(Who::Owner, method, object, &[], &body)?.0;
        ensure!(done < 300, "{method} {object}: {done}");
        self.stage.drill_fails(why).with_context(|| format!("{method} {object}"))?;
        ensure!(bucket.send(Who::Owner, "PUT", object, &[], &whole)?.0 < 300);
        Ok(())
    }

    /// Runs with the configuration changed.
    fn with_config(&self, change: impl Fn(&str) -> String, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let text = fs::read_to_string(self.config())?;
        let changed = change(&text);
        ensure!(changed != text, "nothing was changed");
        fs::write(self.config(), changed)?;
        work()?;
        Ok(fs::write(self.config(), text)?)
    }
}

#[test]
fn a_stanza_in_a_bucket_is_copied_to_tried_and_brought_back() -> Result<()> {
    if !crate::bucket::here() {
        return Ok(());
    }
    let bucket = Bucket::start()?;
    let mut repository = open(
        &bucket,
        "assertions = [\"SELECT count(*) = 5000 FROM orders\"]\n[recovery]\npublish = true\n",
        "repo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=hardly\nrepo1-bundle=y\n",
    )?;
    let stage = &repository.stage;
    let made = stage.copy()?;
    assert_eq!(made["engine"], "pgbackrest");
    let (answer, passed) = stage.drill()?;
    assert!(passed && answer["report"]["level"] == 5, "{answer}");
    let second = stage.copy()?;
    assert!(second["added_bytes"].as_u64() < made["added_bytes"].as_u64(), "{made} {second}");
    // The bucket locks everything for a day. That is not looked at, so it is not said.
    let never_nobody = |told: &Value| -> Result<()> {
        let locked = told["locked"].as_str().unwrap_or_default();
        ensure!(locked.starts_with("unknown: ") && locked.contains("retention") && locked.contains("key"), "{told}");
        ensure!(!told.to_string().to_lowercase().contains("nobody"), "{told}");
        ensure!(told["place"].as_str().is_some_and(|place| place.contains("repo1, s3 bucket vault/pgbackrest")), "{told}");
        // The store runs on this machine.
        ensure!(told["same_blast_radius"] == true, "{told}");
        Ok(())
    };
    let list = stage.gateway.json(&["backup", "list", "--json"])?;
    let points = list["points"].as_array().context("points")?;
    assert!(points.len() == 2 && points.iter().all(|point| point["there"] == true), "{list}");
    points.iter().try_for_each(never_nobody)?;
    let status = stage.gateway.json(&["recovery", "status", "--json"])?;
    never_nobody(&status["systems"][0])?;
    let told = said(&stage.gateway.cli(&["recovery", "status"])?.stdout) + &said(&stage.gateway.cli(&["backup", "list"])?.stdout);
    let page = curl(stage, "/recovery/public")?;
    for told in [told, page.replace("&#39;", "'").replace("&#x27;", "'")] {
        assert!(
            told.contains("retention may remove them") && told.contains("unknown: ") && !told.to_lowercase().contains("nobody"),
            "{told}"
        );
    }
    // Neither the bucket's key nor the repository's is in the vault.
    let secrets = [Who::Owner.key().1, "cipher-pass"];
    for object in stage.objects()? {
        let bytes = fs::read(&object)?;
        assert!(
            !secrets.iter().any(|secret| bytes.windows(secret.len()).any(|window| window == secret.as_bytes())),
            "{}",
            object.display()
        );
    }
    let packed = repository.listed("backup/main")?.into_iter().find(|path| path.contains("/bundle/")).context("files packed together")?;
    repository.is_red_in(&bucket, &packed, Some(|bytes| bytes[5_000] ^= 1), "")?;
    assert!(repository.stage.drill()?.1, "as it was");
    // It comes back as it was at a moment, though the server is gone.
    stage.server.psql("shop", "INSERT INTO commits VALUES (1)")?;
    std::thread::sleep(Duration::from_secs(1));
    let moment = stage.server.psql("shop", "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS')")?;
    std::thread::sleep(Duration::from_secs(1));
    stage.server.psql("shop", "INSERT INTO commits VALUES (2); DELETE FROM orders")?;
    repository.ship()?;
    let archived = repository.listed("archive/main")?;
    repository.stage.server.lose_data()?;
    for (name, arguments, rows) in [("then", vec!["--at", moment.as_str()], "1 5000"), ("newest", vec![], "2 0")] {
        let place = new_place(&repository.stage, name)?;
        let to = place.display().to_string();
        let arguments = [&["restore", "shop", "--to", &to, "--reason", "the disk is gone"], arguments.as_slice()].concat();
        repository.stage.gateway.operate(&arguments)?;
        let restored = Restored::start(&place)?;
        let counted = "SELECT (SELECT count(*) FROM commits) || ' ' || (SELECT count(*) FROM orders)";
        assert_eq!(restored.psql(counted)?, rows, "{name}");
        restored.psql("INSERT INTO commits VALUES (100); SELECT pg_switch_wal()")?;
        drop(restored);
        fs::remove_dir_all(&place)?;
    }
    assert_eq!(repository.listed("archive/main")?, archived, "a restored server archives nothing");
    repository.stage.gateway.verify()?;
    Ok(())
}

#[test]
fn a_bucket_in_which_something_is_gone_or_changed_is_never_green() -> Result<()> {
    if !crate::bucket::here() {
        return Ok(());
    }
    let bucket = Bucket::start()?;
    // What is not packed has no checksum of its own: nothing but ours finds a flipped bit in the log.
    let repository = open(&bucket, "", "compress-type=none\narchive-timeout=60\n")?;
    let stage = &repository.stage;
    stage.copy()?;
    for round in 0..2 {
        stage.server.psql("shop", &format!("INSERT INTO commits VALUES ({round})"))?;
        repository.ship()?;
    }
    assert!(stage.drill()?.1);
    let mut log = repository.listed("archive/main")?;
    log.retain(|path| path.rsplit('/').next().is_some_and(|name| name.len() == 24 + 1 + 40));
    log.sort();
    let [.., middle, newest] = log.as_slice() else { anyhow::bail!("no log: {log:?}") };
    let label = repository.newest_label()?;
    let copied = repository.listed(&format!("backup/main/{label}"))?;
    let one = |end: &str| copied.iter().find(|path| path.ends_with(end)).with_context(|| format!("no {end}"));
    let flip: fn(&mut Vec<u8>) = |bytes| bytes[100] ^= 1;
    let cut: fn(&mut Vec<u8>) = |bytes| bytes.truncate(bytes.len() / 2);
    repository.is_red_in(&bucket, newest, Some(flip), "not what was archived")?;
    repository.is_red_in(&bucket, middle, None, "is missing in pgBackRest's repository")?;
    let (version, table) = (one("pg_data/PG_VERSION")?, one("/1259")?);
    repository.is_red_in(&bucket, table, Some(flip), "checksum")?;
    repository.is_red_in(&bucket, table, Some(cut), "checksum")?;
    repository.is_red_in(&bucket, version, None, "pg_data/PG_VERSION")?;
    repository.is_red_in(&bucket, one("backup.manifest")?, None, "backup.manifest")?;
    assert!(stage.drill()?.1, "as it was");
    // A key that is none any more, no bucket, no store: one line that says so, without the key.
    let (_, secret) = Who::Owner.key();
    let port = format!("storage-port={}", bucket.tls_port());
    for (from, to, why) in [
        (format!("secret={secret}"), "secret=of before".to_owned(), "403 (Forbidden)"),
        ("s3-bucket=vault".to_owned(), "s3-bucket=elsewhere".to_owned(), "NoSuchBucket"),
        (port, format!("storage-port={}", reprieve_testkit::free_port()?), "Connection refused"),
        // Whoever else answers there is not asked.
        ("storage-ca-file=".to_owned(), "storage-ca-path=/nowhere\n#".to_owned(), "certificate"),
    ] {
        repository.with_config(
            |text| text.replace(&from, &to).replace("io-timeout=5", "io-timeout=1"),
            || {
                let red = stage.drill_fails(why)?;
                let reason = red["report"]["reason"].as_str().unwrap_or_default();
                ensure!(!reason.contains("Request Headers") && !reason.contains("secret") && reason.lines().count() < 3, "{reason}");
                let list = stage.gateway.cli(&["backup", "list", "--json"])?;
                let unread = answer(&list)?["unreadable"][0].as_str().unwrap_or_default().to_owned();
                ensure!(!list.status.success() && unread.contains(why), "{unread}");
                Ok(())
            },
        )?;
    }
    let unverified = || -> Result<bool> {
        let found = answer(&stage.gateway.cli(&["protect", "shop", "--check", "--json"])?)?;
        let found = found["findings"].as_array().context("findings")?;
        Ok(found.iter().any(|finding| finding["subject"] == "pgBackRest, repo1-storage-verify-tls" && finding["level"] != "good"))
    };
    assert!(!unverified()?);
    repository.with_config(
        |text| text.replace("storage-ca-file=", "storage-verify-tls=n\n#"),
        || {
            ensure!(unverified()?);
            Ok(())
        },
    )?;
    // The key may be in the environment instead.
    let (key, secret) = Who::Owner.key();
    repository.with_config(
        |text| text.replace("repo1-s3-key=", "#").replace("repo1-s3-key-secret=", "#"),
        || {
            stage.drill_fails("repo1-s3-key")?;
            let mut command = Command::new(reprieve_testkit::program()?);
            command.current_dir(stage.gateway.folder()).args(["drill", "run", "shop", "--json"]);
            command.env("PGBACKREST_REPO1_S3_KEY", key).env("PGBACKREST_REPO1_S3_KEY_SECRET", secret);
            command
                .env("GUARDED_0_URL", stage.server.url("app", "secret", "shop"))
                .env("GUARDED_0_ADMIN_URL", stage.server.superuser_url("shop"));
            let told = answer(&command.output()?)?;
            ensure!(told["report"]["passed"] == true, "{told}");
            Ok(())
        },
    )?;
    stage.gateway.verify()?;
    Ok(())
}

#[test]
fn of_two_repositories_the_first_is_used_and_told_of() -> Result<()> {
    if !crate::bucket::here() {
        return Ok(());
    }
    let bucket = Bucket::start()?;
    let second = options(&bucket, 2, &authority(&bucket)?);
    let repository = Repository::open_with("", &format!("{second}repo2-path={PLACE}\nrepo2-retention-full=9\n"))?;
    let stage = &repository.stage;
    repository.tool(&["backup", "--repo=2", "--type=full"])?;
    stage.drill_fails("no copy")?;
    stage.copy()?;
    repository.archive_now()?;
    repository.archive_now()?;
    assert!(stage.drill()?.1);
    let list = stage.gateway.json(&["backup", "list", "--json"])?;
    let points = list["points"].as_array().context("points")?;
    assert!(points.len() == 1 && points[0]["place"].as_str().is_some_and(|place| place.contains("repo1, folder")), "{list}");
    let found = answer(&stage.gateway.cli(&["protect", "shop", "--check", "--json"])?)?;
    let others = found["findings"].as_array().into_iter().flatten().find(|finding| finding["subject"] == "pgBackRest, other repositories");
    assert!(others.is_some_and(|others| others["text"].as_str().is_some_and(|text| text.contains("repo2"))), "{found}");
    // What the second has makes up for nothing.
    let mut log = repository.archived()?;
    log.retain(|path| path.extension().is_some_and(|packed| packed == "gz"));
    repository.is_red_with(&log[log.len() - 2], None, "missing")?;
    let table = repository.stored("/pg_data/base/")?;
    repository.is_red_with(&table, None, "")?;
    assert!(stage.drill()?.1);
    // And what happens to the second is not what was proved.
    let gone = bucket.ask(Who::Owner, "DELETE", &format!("{PLACE}/backup/main/backup.info"), &[], "")?.0;
    ensure!(gone < 300, "{gone}");
    assert!(stage.drill()?.1);
    Ok(())
}
