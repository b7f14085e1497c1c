//! Copies in a bucket with object lock, and everybody who would like them gone: the agent, the gateway's own credential, and the
//! bucket's owner. Against a real store that enforces locks; without its programs (`scripts/setup.sh`) there is nothing to say.

use reprieve_testkit::{Bucket, Who};

use super::*;

const LOCKED: &str = "[recovery]\nlocked = \"1d\"\n";

/// A gateway whose vault is the bucket, with the writer's credential.
fn open(bucket: &Bucket, backup: &str) -> Result<Stage> {
    let (id, secret) = Who::Writer.key();
    let environment = [("AWS_ACCESS_KEY_ID", id), ("AWS_SECRET_ACCESS_KEY", secret)];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let vault =
        format!("[vault]\nstore = \"s3://{}/copies\"\nendpoint = \"{}\"\nregion = \"us-east-1\"\n", bucket.name(), bucket.endpoint());
    Stage::open_in(backup, &format!("{vault}{LOCKED}"), environment)
}

pub(super) fn here() -> bool {
    let can = Bucket::can_run();
    if !can {
        eprintln!("skipped: no Ceph here (ceph-mon, ceph-osd, radosgw); scripts/setup.sh installs it");
    }
    can
}

/// What is in the bucket: names and their versions.
fn versions(bucket: &Bucket) -> Result<Vec<(String, String)>> {
    let (status, said) = bucket.ask(Who::Owner, "GET", "?versions=", &[], "")?;
    ensure!(status == 200 && !said.contains("<IsTruncated>true"), "{status}: {said}");
    let parts = said.split("<Version>").skip(1).map(|version| {
        let part = |name: &str| {
            version.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once('<')).map(|(text, _)| text.to_owned())
        };
        Some((part("Key")?, part("VersionId")?))
    });
    parts.collect::<Option<_>>().context("a version without a name")
}

/// Tries everything with one credential. Whatever is done by who may, every version has to be there afterwards.
fn attack(bucket: &Bucket, who: Who) -> Result<()> {
    let before = versions(bucket)?;
    let refused = |what: &str, (status, said): (u16, String)| -> Result<()> {
        ensure!((400..500).contains(&status), "{who:?} may {what}: {status} {said}");
        Ok(())
    };
    let soon = "<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>2026-01-01T00:00:00Z</RetainUntilDate></Retention>";
    let weaker = "<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2030-01-01T00:00:00Z</RetainUntilDate></Retention>";
    let bypass = [("x-amz-bypass-governance-retention", "true")];
    for (key, version) in &before {
        let one = format!("/{key}?versionId={version}");
        refused("delete a version", bucket.ask(who, "DELETE", &one, &[], "")?)?;
        refused("delete a version, going around", bucket.ask(who, "DELETE", &one, &bypass, "")?)?;
        let retention = format!("/{key}?retention=&versionId={version}");
        refused("shorten a lock", bucket.ask(who, "PUT", &retention, &bypass, soon)?)?;
        refused("weaken a lock", bucket.ask(who, "PUT", &retention, &bypass, weaker)?)?;
    }
    let suspended = "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>";
    refused("suspend versioning", bucket.ask(who, "PUT", "?versioning=", &[], suspended)?)?;
    refused("delete the bucket", bucket.ask(who, "DELETE", "", &[], "")?)?;
    let expire = "<LifecycleConfiguration><Rule><ID>all</ID><Prefix></Prefix><Status>Enabled</Status><Expiration><Days>1</Days></Expiration>\
                  <NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration></Rule></LifecycleConfiguration>";
    let everybody = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":["arn:aws:s3:::vault","arn:aws:s3:::vault/*"]}]}"#;
    let unlocked = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>";
    let may = [
        ("have objects expire", "?lifecycle=", expire),
        ("let everybody in", "?policy=", everybody),
        ("drop the default lock", "?object-lock=", unlocked),
    ];
    for (what, target, body) in may {
        if who != Who::Owner {
            refused(what, bucket.ask(who, "PUT", target, &[], body)?)?;
        }
    }
    for (key, _) in &before {
        let (hidden, _) = bucket.ask(who, "DELETE", &format!("/{key}"), &[], "")?;
        ensure!((hidden < 300) == (who == Who::Owner), "{who:?} hides: {hidden}");
        let (replaced, _) = bucket.ask(who, "PUT", &format!("/{key}"), &[], "not what it was")?;
        ensure!((replaced < 300) == (who != Who::Agent), "{who:?} puts something over it: {replaced}");
        // The last word is a marker where that may be had: nothing seems to be there.
        let _hidden = bucket.ask(who, "DELETE", &format!("/{key}"), &[], "")?;
    }
    if who == Who::Owner {
        let (status, said) = bucket.ask(who, "PUT", "?lifecycle=", &[], expire)?;
        ensure!(status < 300, "{status}: {said}");
        // A day has five seconds there.
        std::thread::sleep(Duration::from_secs(15));
    }
    let after = versions(bucket)?;
    ensure!(before.iter().all(|version| after.contains(version)), "{who:?} made versions disappear: {before:?} {after:?}");
    Ok(())
}

#[test]
fn nobody_gets_a_copy_out_of_a_locked_bucket() -> Result<()> {
    if !here() {
        return Ok(());
    }
    let bucket = Bucket::start()?;
    let stage = open(&bucket, "assertions = [\"SELECT count(*) = 5000 FROM orders\"]\nwal = \"stream\"\n")?;
    let point = stage.copy()?["point"].clone();
    stage.wait("the log is kept", || Ok(stage.index().exists()))?;
    let (answer, passed) = stage.drill()?;
    ensure!(passed, "{answer}");
    ensure!(answer["report"]["checks"].as_array().into_iter().flatten().any(|check| check["name"] == "they are locked"), "{answer}");
    for who in [Who::Agent, Who::Writer, Who::Owner] {
        attack(&bucket, who)?;
        // A new process, which has not seen what was there.
        let (answer, passed) = stage.drill()?;
        ensure!(passed, "after {who:?}: {answer}");
        let list = stage.gateway.json(&["backup", "list", "--vault", "--json"])?;
        ensure!(list["points"][0]["point"] == point, "after {who:?} the copy is not found any more: {list}");
    }
    let place = new_place(&stage, "bucket")?;
    stage.gateway.operate(&["restore", "shop", "--to", &place.display().to_string(), "--reason", "the bucket was attacked"])?;
    let restored = Restored::start(&place)?;
    assert_eq!(restored.psql("SELECT count(*) FROM orders")?, "5000");
    drop(restored);
    fs::remove_dir_all(&place)?;
    Ok(())
}

#[test]
fn what_the_bucket_does_not_lock_is_no_copy() -> Result<()> {
    if !here() {
        return Ok(());
    }
    let bucket = Bucket::start()?;
    let stage = open(&bucket, "")?;
    stage.copy()?;
    stage.drill_passes(4)?;
    // Its owner takes the rule away: what is put from now on can be deleted.
    let unlocked = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>";
    let (status, said) = bucket.ask(Who::Owner, "PUT", "?object-lock=", &[], unlocked)?;
    ensure!(status < 300, "{status}: {said}");
    let output = stage.gateway.cli(&["backup", "now", "shop", "--json"])?;
    ensure!(!output.status.success() && answer(&output)?["error"].as_str().is_some_and(|said| said.contains("not locked")), "{output:?}");
    ensure!(stage.events("backup_failed")?.len() == 1);
    // What was put before is as good as it was, also below the same contents without a lock.
    let mut names: Vec<String> = versions(&bucket)?.into_iter().map(|(key, _)| key).collect();
    names.dedup();
    for key in names {
        bucket.put_again(Who::Writer, &key)?;
        let (status, said) = bucket.ask(Who::Writer, "GET", &format!("/{key}?retention="), &[], "")?;
        ensure!(status == 404, "the one above is locked: {status} {said}");
    }
    stage.drill_passes(4)?;
    bucket.lock_by_default()?;
    stage.copy()?;
    stage.drill_passes(4)?;
    Ok(())
}
