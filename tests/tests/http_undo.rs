//! Calls and the way back: what was changed in a service is kept first, and an operator brings it back. A hostile agent tries to make
//! something count as undoable that is not.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use reprieve_testkit::{EnvironmentBudget, Gateway, GatewayOptions, Reply};
use reprieve_tests::{
    Answer, Cloud, Curl,
    cloud::{BRANCH, CONFIG, DEPLOYMENT, FILE, RECORD},
};
use serde_json::{Value, json};

const CLOUDFLARE: &str = "https://api.cloudflare.com";
const GITHUB: &str = "https://api.github.com";
const CLUSTER: &str = "https://cluster.example.com";
const S3: &str = "https://s3.us-east-1.amazonaws.com";

/// A stand-in behind a gateway that lets what can be undone pass, ten things at a time, and nothing else.
struct Stage {
    gateway: Gateway,
    cloud: Cloud,
    curl: Curl,
}

impl Stage {
    fn open() -> Result<Stage> {
        Self::with(10)
    }

    fn with(relations_dropped: u64) -> Result<Stage> {
        Self::set(relations_dropped, "")
    }

    fn set(relations_dropped: u64, settings: &str) -> Result<Stage> {
        let cloud = Cloud::start()?;
        let services = [
            ("cloudflare", "api.cloudflare.com"),
            ("github", "api.github.com"),
            ("kubernetes", "cluster.example.com"),
            ("aws", "s3.us-east-1.amazonaws.com"),
        ];
        let budget = EnvironmentBudget {
            environment: "production".to_owned(),
            rows_per_statement: 100,
            rows_per_transaction: 1_000,
            rows_per_hour: 10_000,
            relations_dropped,
        };
        let options = GatewayOptions {
            services: services.iter().map(|(provider, host)| cloud.guarded(provider, host)).collect(),
            budgets: vec![budget],
            rows_without_undo: 0,
            settings: settings.to_owned(),
            ..GatewayOptions::default()
        };
        let gateway = Gateway::start(options)?;
        let proxy = gateway.agent("cursor", &services.map(|(provider, _)| provider), "read,write,destroy,grant")?;
        let curl = Curl { proxy, authority: gateway.authority_file() };
        Ok(Stage { gateway, cloud, curl })
    }

    fn call(&self, method: &str, url: &str, body: Option<&str>) -> Result<Answer> {
        let mut arguments = vec!["-X", method];
        if let Some(body) = body {
            arguments.extend(["--data-binary", body, "-H", "content-type: application/json"]);
        }
        self.curl.run(url, &arguments)
    }

    /// The newest change. A client may have its answer a moment before the ledger has the outcome.
    fn newest(&self) -> Result<Value> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let events = self.gateway.events()?;
            let count = |kinds: &[&str]| events.iter().filter(|event| kinds.iter().any(|kind| event["event"]["event"] == *kind)).count();
            if count(&["intent", "undo_started"]) == count(&["concluded"]) {
                break;
            }
            ensure!(Instant::now() < until, "an intent without an outcome");
            std::thread::sleep(Duration::from_millis(50));
        }
        let listed = self.gateway.json(&["undo", "list", "--json"])?;
        listed["changes"].get(0).cloned().with_context(|| format!("no change: {listed}"))
    }

    fn id(&self) -> Result<String> {
        Ok(self.newest()?["id"].as_str().context("no id")?.to_owned())
    }

    fn undo(&self, id: &str, more: &[&str]) -> Result<Value> {
        let mut arguments = vec!["undo", "apply", id, "--reason", "not meant"];
        arguments.extend(more);
        self.gateway.operate(&arguments)
    }
}

#[test]
fn a_record_that_was_deleted_comes_back_and_the_undo_can_be_undone() -> Result<()> {
    let stage = Stage::open()?;
    let url = format!("{CLOUDFLARE}{RECORD}");
    let passed = stage.call("DELETE", &url, None)?;
    ensure!(passed.status == 200, "it was not let pass: {passed:?}");
    ensure!(stage.cloud.get(RECORD).is_none(), "it is still there");
    let change = stage.newest()?;
    ensure!(change["standing"] == "undoable" && change["conflicts"] == "none", "{change}");
    let shown = stage.gateway.json(&["undo", "show", &stage.id()?, "--diff", "--json"])?;
    ensure!(
        shown["rows"][0]["before"].as_str().is_some_and(|text| text.contains("192.0.2.10")) && shown["rows"][0]["after"].is_null(),
        "{shown}"
    );
    ensure!(shown["plan"]["possible"] == true, "{shown}");

    let id = stage.id()?;
    let answer = stage.undo(&id, &[])?;
    ensure!(answer["report"]["tables"]["dns_record/r1"]["restored"] == 1, "{answer}");
    let there = stage.cloud.below("/client/v4/zones/z1/dns_records/");
    let [again] = there.as_slice() else { anyhow::bail!("{there:?}") };
    let record = stage.cloud.get(again).context("no record")?;
    ensure!(record["content"] == "192.0.2.10" && record["ttl"] == 300 && record["proxied"] == true, "{record}");
    ensure!(record.get("modified_on").is_none(), "what the service writes itself was sent: {record}");

    // Once.
    let twice = stage.undo(&id, &[]).err().context("it was undone twice")?;
    ensure!(format!("{twice:#}").contains("undone already"), "{twice:#}");
    // The undo is a change as well.
    let undo = stage.newest()?;
    ensure!(undo["standing"] == "undoable" && undo["operator"].is_string(), "{undo}");
    stage.undo(&stage.id()?, &[])?;
    ensure!(stage.cloud.below("/client/v4/zones/z1/dns_records/").is_empty(), "the undo was not undone");
    ensure!(stage.gateway.verify()?["verified"] == true, "the ledger does not verify");
    let events = stage.gateway.events()?;
    let kept: Vec<&Value> = events.iter().map(|event| &event["event"]).filter(|event| event["event"] == "call_kept").collect();
    ensure!(kept.len() == 6, "before and after of three changes: {kept:?}");
    ensure!(!format!("{events:?}").contains("proxied"), "the ledger has what was kept in it");
    Ok(())
}

#[test]
fn what_was_changed_goes_back_to_what_it_was() -> Result<()> {
    let stage = Stage::open()?;
    let before = stage.cloud.get(RECORD).context("a record")?;
    for (method, body) in [
        ("PATCH", r#"{"content":"198.51.100.7"}"#),
        ("PUT", r#"{"type":"A","name":"www.pocket.example","content":"198.51.100.8","ttl":60}"#),
    ] {
        let passed = stage.call(method, &format!("{CLOUDFLARE}{RECORD}"), Some(body))?;
        ensure!(passed.status == 200, "{passed:?}");
        ensure!(stage.cloud.get(RECORD).context("a record")?["content"] != "192.0.2.10", "not changed");
        let answer = stage.undo(&stage.id()?, &[])?;
        ensure!(answer["report"]["tables"]["dns_record/r1"]["reverted"] == 1, "{answer}");
        let after = stage.cloud.get(RECORD).context("a record")?;
        ensure!(after["content"] == before["content"] && after["ttl"] == before["ttl"], "{after}");
    }
    // A record of the agent's own goes again.
    let passed = stage.call(
        "POST",
        &format!("{CLOUDFLARE}/client/v4/zones/z1/dns_records"),
        Some(r#"{"type":"A","name":"new","content":"192.0.2.1"}"#),
    )?;
    ensure!(passed.status == 201, "{passed:?}");
    ensure!(stage.cloud.below("/client/v4/zones/z1/dns_records/").len() == 2, "not made");
    stage.undo(&stage.id()?, &[])?;
    ensure!(stage.cloud.below("/client/v4/zones/z1/dns_records/") == [RECORD], "not taken out");

    let settings = stage.call("PATCH", &format!("{GITHUB}/repos/pocket/site"), Some(r#"{"description":"hacked","has_wiki":false}"#))?;
    ensure!(settings.status == 200, "{settings:?}");
    stage.undo(&stage.id()?, &[])?;
    let repository = stage.cloud.get("/repos/pocket/site").context("a repository")?;
    ensure!(repository["description"] == "our site" && repository["has_wiki"] == true, "{repository}");
    Ok(())
}

#[test]
fn branches_objects_and_files_come_back() -> Result<()> {
    let stage = Stage::open()?;
    let branch = stage.call("DELETE", &format!("{GITHUB}{}", BRANCH.replace("/git/ref/", "/git/refs/")), None)?;
    ensure!(branch.status == 204 && stage.cloud.get(BRANCH).is_none(), "{branch:?}");
    stage.undo(&stage.id()?, &[])?;
    ensure!(stage.cloud.get(BRANCH).context("no branch")?["object"]["sha"] == "a1b2c3", "another commit");
    ensure!(stage.newest()?["standing"] == "undoable", "{}", stage.newest()?);

    for (path, patch) in [(CONFIG, r#"{"data":{"mode":"off"}}"#), (DEPLOYMENT, r#"{"spec":{"replicas":0}}"#)] {
        let before = stage.cloud.get(path).context("an object")?;
        let url = format!("{CLUSTER}{path}");
        let patched = stage.curl.run(&url, &["-X", "PATCH", "-H", "content-type: application/merge-patch+json", "--data-binary", patch])?;
        ensure!(patched.status == 200, "{patched:?}");
        stage.undo(&stage.id()?, &[])?;
        let after = stage.cloud.get(path).context("an object")?;
        ensure!(after["spec"] == before["spec"] && after["data"] == before["data"], "{after}");
        let deleted = stage.call("DELETE", &url, None)?;
        ensure!(deleted.status == 200 && stage.cloud.get(path).is_none(), "{deleted:?}");
        stage.undo(&stage.id()?, &[])?;
        let again = stage.cloud.get(path).context("it did not come back")?;
        ensure!(again["spec"] == before["spec"] && again["data"] == before["data"], "{again}");
        ensure!(again["metadata"]["uid"] != before["metadata"]["uid"] && again.get("status").is_none(), "{again}");
    }

    let url = format!("{S3}{FILE}");
    let overwritten = stage.curl.run(&url, &["-X", "PUT", "--data-binary", "gone", "-H", "content-type: text/plain"])?;
    ensure!(overwritten.status == 200 && stage.cloud.get(FILE) == Some(json!("gone")), "{overwritten:?}");
    stage.undo(&stage.id()?, &[])?;
    ensure!(stage.cloud.get(FILE) == Some(json!("the first report")), "{:?}", stage.cloud.get(FILE));
    let put = stage.cloud.service().received().into_iter().rev().find(|received| received.method == "PUT").context("no PUT")?;
    ensure!(put.header("x-amz-meta-owner") == Some("ana") && put.header("content-type") == Some("text/plain"), "{put:?}");
    let deleted = stage.call("DELETE", &url, None)?;
    ensure!(deleted.status == 204 && stage.cloud.get(FILE).is_none(), "{deleted:?}");
    stage.undo(&stage.id()?, &[])?;
    ensure!(stage.cloud.get(FILE) == Some(json!("the first report")), "it did not come back");
    // What was not there before goes again.
    let new = stage.curl.run(&format!("{S3}/assets/new.txt"), &["-X", "PUT", "--data-binary", "new"])?;
    ensure!(new.status == 200, "{new:?}");
    stage.undo(&stage.id()?, &[])?;
    ensure!(stage.cloud.get("/assets/new.txt").is_none(), "it stayed");
    Ok(())
}

#[test]
fn what_others_changed_since_is_not_overwritten_unless_the_operator_says_so() -> Result<()> {
    let stage = Stage::open()?;
    let url = format!("{CLOUDFLARE}{RECORD}");
    ensure!(stage.call("PATCH", &url, Some(r#"{"content":"198.51.100.7"}"#))?.status == 200, "not let pass");
    let id = stage.id()?;
    let mut record = stage.cloud.get(RECORD).context("a record")?;
    record["content"] = json!("203.0.113.5");
    stage.cloud.set(RECORD, record);
    let listed = stage.newest()?;
    ensure!(listed["conflicts"].as_str().is_some_and(|text| text.contains("changed since")), "{listed}");
    let stopped = stage.undo(&id, &[]).err().context("it was overwritten")?;
    ensure!(format!("{stopped:#}").contains("changed since"), "{stopped:#}");
    ensure!(stage.cloud.get(RECORD).context("a record")?["content"] == "203.0.113.5", "it was overwritten");
    stage.undo(&id, &["--ours"])?;
    ensure!(stage.cloud.get(RECORD).context("a record")?["content"] == "192.0.2.10", "not put back");
    // And what was overwritten by that can be had again.
    stage.undo(&stage.id()?, &[])?;
    ensure!(stage.cloud.get(RECORD).context("a record")?["content"] == "203.0.113.5", "lost");
    Ok(())
}

#[test]
fn what_can_not_be_kept_is_held() -> Result<()> {
    let stage = Stage::open()?;
    let json_reply =
        |status: u16, body: &str| Reply { status, headers: vec![("content-type".into(), "application/json".into())], body: body.into() };
    for (what, reply) in [
        ("the read fails", Reply::text(500, "no")),
        ("the read is refused", Reply::text(403, "no")),
        (
            "the read leads elsewhere",
            Reply { status: 302, headers: vec![("location".into(), "https://api.cloudflare.com/other".into())], body: Vec::new() },
        ),
        ("only a part comes", json_reply(206, r#"{"result":{"id":"r1","content":"192.0.2.10"}}"#)),
        ("it is cut", json_reply(200, r#"{"result":{"id":"r1","content":"192.0"#)),
        ("it is empty", json_reply(200, "")),
        ("it is another thing", json_reply(200, r#"{"result":null}"#)),
        ("it is not there", json_reply(404, "{}")),
        ("it is over the limit", json_reply(200, &format!(r#"{{"result":{{"id":"r1","content":"{}"}}}}"#, "x".repeat(3 << 20)))),
    ] {
        stage.cloud.break_reads(Some(("dns_records/r1", reply)));
        // Another address each time: an identical request would join the hold before.
        let url = format!("{CLOUDFLARE}{RECORD}?because={}", what.replace(' ', "-"));
        let answer = stage.call("DELETE", &url, None)?;
        let problem = answer.json()?;
        ensure!(answer.status == 403 && problem["outcome"] == "held", "{what}: {problem}");
        ensure!(problem["reach"]["lasting"][0].is_string(), "{what}: {problem}");
    }
    ensure!(stage.cloud.changes().is_empty(), "{:?}", stage.cloud.changes());
    Ok(())
}

#[test]
fn what_changes_while_it_is_kept_is_held() -> Result<()> {
    let stage = Stage::open()?;
    // Somebody writes after each read: whatever was kept is old when the request would be sent.
    let count = AtomicU64::new(0);
    stage.cloud.meddle(move |received, objects| {
        if received.method == "GET"
            && let Some(record) = objects.get_mut(RECORD)
        {
            record["content"] = json!(format!("192.0.2.{}", count.fetch_add(1, Ordering::Relaxed)));
        }
    });
    let answer = stage.call("DELETE", &format!("{CLOUDFLARE}{RECORD}"), None)?;
    let problem = answer.json()?;
    ensure!(problem["outcome"] == "held" && answer.body.contains("changed each time"), "{problem}");
    ensure!(stage.cloud.changes().is_empty(), "{:?}", stage.cloud.changes());
    Ok(())
}

#[test]
fn a_hostile_agent_gets_nothing_through_that_does_not_come_back() -> Result<()> {
    let stage = Stage::open()?;
    let merge = "content-type: application/merge-patch+json";
    let tries: [(&str, &str, String, Option<&str>, &str); 13] = [
        ("the whole zone", "DELETE", format!("{CLOUDFLARE}/client/v4/zones/z1"), None, "application/json"),
        ("a batch", "POST", format!("{CLOUDFLARE}/client/v4/zones/z1/dns_records/batch"), Some(r#"{"deletes":[{"id":"r1"}]}"#), ""),
        ("a list", "DELETE", format!("{CLUSTER}/api/v1/namespaces/shop/configmaps"), None, ""),
        ("a namespace", "DELETE", format!("{CLUSTER}/api/v1/namespaces/shop"), None, ""),
        ("a claim", "DELETE", format!("{CLUSTER}/api/v1/namespaces/shop/persistentvolumeclaims/data"), None, ""),
        (
            "an object with an owner to come",
            "PATCH",
            format!("{CLUSTER}{CONFIG}"),
            Some(r#"{"metadata":{"ownerReferences":[{"name":"x"}]}}"#),
            merge,
        ),
        ("its finalizers", "PATCH", format!("{CLUSTER}{CONFIG}"), Some(r#"{"metadata":{"finalizers":null}}"#), merge),
        (
            "what it runs",
            "PATCH",
            format!("{CLUSTER}{DEPLOYMENT}"),
            Some(r#"{"spec":{"template":{"spec":{"containers":[{"name":"a","image":"evil"}]}}}}"#),
            merge,
        ),
        ("at once", "DELETE", format!("{CLUSTER}{DEPLOYMENT}?gracePeriodSeconds=0"), None, ""),
        ("one version", "DELETE", format!("{S3}{FILE}?versionId=1"), None, ""),
        ("everyone may read", "PATCH", format!("{GITHUB}/repos/pocket/site"), Some(r#"{"private":false}"#), ""),
        ("another name", "PATCH", format!("{GITHUB}/repos/pocket/site"), Some(r#"{"name":"other"}"#), ""),
        ("the repository", "DELETE", format!("{GITHUB}/repos/pocket/site"), None, ""),
    ];
    for (what, method, url, body, media) in tries {
        let media = if media.is_empty() || !media.contains(':') { "content-type: application/json" } else { media };
        let mut arguments = vec!["-X", method];
        if let Some(body) = body {
            arguments.extend(["--data-binary", body, "-H", media]);
        }
        let answer = stage.curl.run(&url, &arguments)?;
        let problem = answer.json()?;
        ensure!(answer.status == 403 && problem["outcome"] == "held", "{what}: {answer:?}");
        ensure!(problem["reach"]["lasting"].as_array().is_some_and(|lasting| !lasting.is_empty()), "{what}: {problem}");
    }
    let keys = format!("{S3}/assets?delete");
    let many = "<Delete><Object><Key>reports/2026/q1.bin</Key></Object></Delete>";
    for (label, outcome) in [("content-type: application/xml", "held"), ("content-type: application/x-www-form-urlencoded", "refused")] {
        let many = stage.curl.run(&keys, &["-X", "POST", "--data-binary", many, "-H", label])?;
        ensure!(many.status == 403 && many.json()?["outcome"] == outcome, "{many:?}");
    }
    // The service finds in them what a careless reader doesn't: each of them switches versions off.
    for (label, text) in [
        ("content-type: application/xml", "<VersioningConfiguration><Status>Sus<!-- x -->pended</Status></VersioningConfiguration>"),
        ("content-type: application/xml", "<VersioningConfiguration><Status>&#83;uspended</Status></VersioningConfiguration>"),
        (
            "content-type: text/plain",
            "<x:VersioningConfiguration xmlns:x='x'><x:Status><![CDATA[Suspended]]></x:Status></x:VersioningConfiguration>",
        ),
        (
            "content-type: application/x-www-form-urlencoded",
            "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>",
        ),
        ("content-type: multipart/form-data; boundary=b", "--b\r\n\r\n<VersioningConfiguration/>\r\n--b--\r\n"),
        (
            "content-type: application/xml",
            "<?xml version='1.0' encoding='UTF-7'?><VersioningConfiguration><Status>+AFM-uspended</Status></VersioningConfiguration>",
        ),
        (
            "content-type: application/xml",
            "<!DOCTYPE v [<!ENTITY x 'Suspended'>]><VersioningConfiguration><Status>&x;</Status></VersioningConfiguration>",
        ),
    ] {
        let off = stage.curl.run(&format!("{S3}/assets?versioning"), &["-X", "PUT", "--data-binary", text, "-H", label])?;
        let told = off.json()?;
        let seen = told["outcome"] == "refused" || told["rule"] == "calls-that-destroy";
        ensure!(off.status == 403 && seen, "{label} {text}: {told}");
    }
    ensure!(stage.cloud.changes().is_empty(), "{:?}", stage.cloud.changes());
    Ok(())
}

#[test]
fn an_object_whose_deletion_does_more_is_held() -> Result<()> {
    let stage = Stage::open()?;
    let mut object = stage.cloud.get(CONFIG).context("an object")?;
    object["metadata"]["finalizers"] = json!(["cloud.example.com/bucket"]);
    stage.cloud.set(CONFIG, object);
    let answer = stage.call("DELETE", &format!("{CLUSTER}{CONFIG}"), None)?;
    ensure!(answer.status == 403 && answer.body.contains("finalizers do something else"), "{answer:?}");
    ensure!(stage.cloud.get(CONFIG).is_some(), "it is gone");
    Ok(())
}

#[test]
fn what_is_approved_can_be_undone_as_well_and_waits_for_nobody() -> Result<()> {
    let stage = Stage::with(0)?;
    let url = format!("{CLOUDFLARE}{RECORD}");
    let answer = stage.call("DELETE", &url, None)?;
    let problem = answer.json()?;
    ensure!(problem["outcome"] == "held" && problem["reach"].get("lasting").is_none(), "{problem}");
    let hold = problem["hold"].as_str().context("no hold")?.to_owned();
    ensure!(stage.gateway.hold(&hold)?["needs"]["delay"]["secs"] == 0, "what comes back needs no window");
    stage.gateway.approve_as_asked(&hold)?;
    stage.gateway.wait_for_status(&hold, "finished")?;
    ensure!(stage.cloud.get(RECORD).is_none(), "it was not carried out");
    stage.undo(&stage.id()?, &[])?;
    ensure!(stage.cloud.below("/client/v4/zones/z1/dns_records/").len() == 1, "it did not come back");
    Ok(())
}

#[test]
fn while_the_vault_is_away_nothing_counts_as_undoable() -> Result<()> {
    let stage = Stage::open()?;
    ensure!(stage.call("PATCH", &format!("{CLOUDFLARE}{RECORD}"), Some(r#"{"ttl":60}"#))?.status == 200, "not let pass");
    let vault = stage.gateway.folder().join("vault");
    let aside = stage.gateway.folder().join("vault-away");
    std::fs::rename(&vault, &aside)?;
    let answer = stage.call("DELETE", &format!("{CLOUDFLARE}{RECORD}"), None)?;
    ensure!(answer.status == 403 && answer.json()?["outcome"] == "held", "{answer:?}");
    ensure!(stage.cloud.get(RECORD).is_some(), "it is gone");
    std::fs::rename(&aside, &vault)?;
    Ok(())
}

/// Every file below a folder.
fn files(folder: &std::path::Path) -> Result<std::collections::BTreeSet<std::path::PathBuf>> {
    let (mut found, mut folders) = (std::collections::BTreeSet::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path);
            }
        }
    }
    Ok(found)
}

#[test]
fn what_was_kept_is_gone_from_the_vault_once_its_window_is_over() -> Result<()> {
    let mut stage = Stage::set(10, "[undo]\nwindow = \"20s\"\njournal_window = \"10s\"\n")?;
    let vault = stage.gateway.folder().join("vault");
    let before = files(&vault)?;
    ensure!(stage.call("DELETE", &format!("{CLOUDFLARE}{RECORD}"), None)?.status == 200, "not let pass");
    let id = stage.id()?;
    let kept: Vec<_> = files(&vault)?.difference(&before).cloned().collect();
    let recorded =
        |events: &[Value], kind: &str| events.iter().filter(|event| event["event"]["event"] == kind).cloned().collect::<Vec<_>>();
    ensure!(kept.len() >= 2 && recorded(&stage.gateway.events()?, "call_kept").len() == 2, "{kept:?}");
    // What is over is looked for at a start, and then every ten minutes. The first start comes too early.
    stage.gateway.restart()?;
    std::thread::sleep(Duration::from_secs(25));
    ensure!(recorded(&stage.gateway.events()?, "calls_purged").is_empty(), "removed before its window was over");
    stage.gateway.restart()?;
    let until = Instant::now() + Duration::from_secs(60);
    let purged = loop {
        if let Some(purged) = recorded(&stage.gateway.events()?, "calls_purged").pop() {
            break purged;
        }
        ensure!(Instant::now() < until, "nothing was removed\n{}", stage.gateway.log());
        std::thread::sleep(Duration::from_millis(200));
    };
    ensure!(purged["event"]["objects"] == 2 && purged["event"]["stored_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{purged}");
    let left = files(&vault)?;
    ensure!(kept.iter().filter(|path| left.contains(*path)).count() + 2 <= kept.len(), "it is still there: {kept:?}");
    ensure!(stage.undo(&id, &[]).is_err(), "it was undone after its window");
    // Once: the next start finds nothing more.
    stage.gateway.restart()?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(recorded(&stage.gateway.events()?, "calls_purged").len() == 1, "removed twice");
    Ok(())
}
