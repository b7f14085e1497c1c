//! Services behind the proxy: what agents' tools send through it, and what comes of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reprieve_testkit::{Gateway, GatewayOptions, GuardedService, Railway};
use reprieve_tests::Curl;
use serde_json::Value;

const DELETE: &str = r#"{"query":"mutation($id: String!) { volumeDelete(volumeId: $id) }","variables":{"id":"vol-prod"}}"#;

/// Railway's stand-in behind a gateway.
struct Site {
    gateway: Gateway,
    railway: Railway,
}

impl Site {
    fn open(options: GatewayOptions) -> Result<Site> {
        Self::with(options, "production", "")
    }

    fn with(options: GatewayOptions, environment: &str, settings: &str) -> Result<Site> {
        let railway = Railway::start()?;
        let service = GuardedService {
            name: "railway".to_owned(),
            environment: environment.to_owned(),
            credential: Railway::TOKEN.to_owned(),
            presented: "bearer".to_owned(),
            settings: format!("provider = \"railway\"\n{}{settings}", railway.service().settings(Railway::HOST)),
        };
        Ok(Site { gateway: Gateway::start(GatewayOptions { services: vec![service], ..options })?, railway })
    }

    fn curl(&self, name: &str) -> Result<Curl> {
        let proxy = self.gateway.agent(name, &["railway"], "read,write,destroy,grant")?;
        Ok(Curl { proxy, authority: self.gateway.authority_file() })
    }
}

const GRAPHQL: &str = "https://backboard.railway.com/graphql/v2";

#[test]
fn a_read_passes_and_the_incident_is_held_until_a_person_approves_it() -> Result<()> {
    let site = Site::with(GatewayOptions::default(), "production", "delay = \"0s\"\n")?;
    let curl = site.curl("cursor")?;

    let read = curl.post(GRAPHQL, r#"{"query":"query { volume(id: \"vol-prod\") { id name } }"}"#)?;
    ensure!(read.status == 200 && read.json()?["data"]["volume"]["name"] == "pocket-db-data", "{read:?}");

    let held = curl.post(GRAPHQL, DELETE)?;
    let problem = held.json()?;
    ensure!(held.status == 403 && held.header("content-type") == Some("application/problem+json"), "{held:?}");
    ensure!(problem["type"].as_str().is_some_and(|text| text.ends_with("/held")), "{problem}");
    ensure!(problem["user_consent"] == false && problem["outcome"] == "held", "{problem}");
    let found = &problem["reach"]["found"][0];
    ensure!(found["name"] == "pocket-db-data" && found["environment"] == "production", "{problem}");
    ensure!(found["attached"][0] == "postgres" && found["size"].as_str().is_some_and(|size| size.contains("41233")), "{problem}");
    let hold = held.header("reprieve-hold").context("no hold")?.to_owned();
    ensure!(problem["hold"] == hold.as_str(), "{problem}");
    ensure!(site.railway.volumes().contains(&"vol-prod".to_owned()), "it was deleted");

    // Asking again opens no second hold and changes nothing.
    ensure!(curl.post(GRAPHQL, DELETE)?.header("reprieve-hold") == Some(&*hold), "another hold");

    site.gateway.approve(&hold, "pocket-db-data")?;
    site.gateway.wait_for_status(&hold, "finished")?;
    ensure!(!site.railway.volumes().contains(&"vol-prod".to_owned()), "it was not deleted");
    let kept = curl.post(GRAPHQL, DELETE)?;
    ensure!(kept.status == 200 && kept.json()?["data"]["volumeDelete"] == true, "{kept:?}");
    ensure!(kept.header("reprieve-kept").is_some(), "{kept:?}");
    let deletes = site.railway.service().received().iter().filter(|received| received.text().contains("volumeDelete")).count();
    ensure!(deletes == 1, "sent {deletes} times");
    ensure!(site.gateway.verify()?["verified"] == true, "the ledger does not verify");
    Ok(())
}

#[test]
fn the_real_credential_is_the_gateways_alone() -> Result<()> {
    let site = Site::open(GatewayOptions::default())?;
    let curl = site.curl("cursor")?;
    let stolen = ["-H", "Authorization: Bearer stolen", "-H", "Project-Access-Token: stolen", "-H", "Cookie: a=stolen"];
    let read =
        curl.with(&stolen).run(GRAPHQL, &["--data", r#"{"query":"query { me { name } }"}"#, "-H", "content-type: application/json"])?;
    ensure!(read.status == 200, "{read:?}");
    let received = site.railway.service().received();
    let last = received.last().context("nothing was sent")?;
    ensure!(last.header("authorization") == Some(&format!("Bearer {}", Railway::TOKEN)), "{last:?}");
    ensure!(!format!("{last:?}").contains("stolen") && !format!("{last:?}").contains("rpv_"), "{last:?}");
    Ok(())
}

#[test]
fn a_token_for_staging_does_not_reach_production() -> Result<()> {
    let site = Site::with(GatewayOptions::default(), "staging", "")?;
    let curl = site.curl("cursor")?;
    let refused = curl.post(GRAPHQL, DELETE)?;
    let problem: Value = refused.json()?;
    ensure!(refused.status == 403 && problem["outcome"] == "refused" && problem["rule"] == "scope", "{problem}");
    // What is in staging is only held.
    let staging = curl.post(GRAPHQL, &DELETE.replace("vol-prod", "vol-staging"))?;
    ensure!(staging.json()?["outcome"] == "held", "{staging:?}");
    // And what is nowhere counts as production.
    let nowhere = curl.post(GRAPHQL, &DELETE.replace("vol-prod", "vol-nowhere"))?;
    ensure!(nowhere.json()?["outcome"] == "refused", "{nowhere:?}");
    ensure!(site.railway.volumes().len() == 2, "something was deleted");
    Ok(())
}

#[test]
fn what_was_approved_waits_in_sight_and_is_carried_out_once_also_after_a_restart() -> Result<()> {
    let mut site = Site::with(GatewayOptions::default(), "production", "delay = \"12s\"\n")?;
    let curl = site.curl("cursor")?;
    let hold = curl.post(GRAPHQL, DELETE)?.header("reprieve-hold").context("no hold")?.to_owned();
    site.gateway.approve(&hold, "pocket-db-data")?;
    let shown = site.gateway.hold(&hold)?;
    ensure!(shown["status"] == "scheduled" && shown["needs"]["delay"]["secs"] == 12, "{shown}");
    let listed = site.gateway.json(&["schedule", "list", "--json"])?;
    ensure!(listed["scheduled"][0]["hold"] == shown["hold"], "{listed}");
    let again = curl.post(GRAPHQL, DELETE)?;
    ensure!(
        again.json()?["outcome"] == "held" && again.json()?["reason"].as_str().is_some_and(|text| text.contains("carried out in")),
        "{again:?}"
    );
    ensure!(site.railway.volumes().len() == 2, "it did not wait");
    site.gateway.kill_now()?;
    site.gateway.restart()?;
    site.gateway.wait_for_status(&hold, "finished")?;
    ensure!(site.railway.volumes() == ["vol-staging"], "it was not carried out");
    let deletes = site.railway.service().received().iter().filter(|received| received.text().contains("volumeDelete")).count();
    ensure!(deletes == 1, "sent {deletes} times");
    let result = curl.post(GRAPHQL, DELETE)?;
    ensure!(result.json()?["data"]["volumeDelete"] == true, "{result:?}");
    Ok(())
}

#[test]
fn what_is_scheduled_can_be_cancelled_by_any_operator_and_hurried_by_a_second_one() -> Result<()> {
    let site = Site::with(GatewayOptions::default(), "production", "delay = \"48h\"\n")?;
    let curl = site.curl("cursor")?;
    let hold = curl.post(GRAPHQL, DELETE)?.header("reprieve-hold").context("no hold")?.to_owned();
    site.gateway.operate_as("mia", &["hold", "approve", &hold, "--confirm", "pocket-db-data"])?;
    // Who approved can't hurry it alone.
    ensure!(site.gateway.operate_as("mia", &["schedule", "run", &hold, "--confirm", "pocket-db-data"]).is_err(), "one person hurried it");
    site.gateway.operate_as("jonas", &["schedule", "cancel", &hold, "--reason", "that is production"])?;
    ensure!(site.gateway.hold(&hold)?["status"] == "denied", "not cancelled");
    let told = curl.post(GRAPHQL, DELETE)?;
    ensure!(told.json()?["outcome"] == "refused" && told.body.contains("that is production"), "{told:?}");
    ensure!(site.gateway.operate_as("mia", &["schedule", "run", &hold, "--confirm", "pocket-db-data"]).is_err(), "it came back");

    let other = DELETE.replace("vol-prod", "vol-staging");
    let hold = curl.post(GRAPHQL, &other)?.header("reprieve-hold").context("no hold")?.to_owned();
    site.gateway.operate_as("mia", &["hold", "approve", &hold, "--confirm", "staging-scratch"])?;
    site.gateway.operate_as("jonas", &["schedule", "run", &hold, "--confirm", "staging-scratch"])?;
    site.gateway.wait_for_status(&hold, "finished")?;
    ensure!(site.railway.volumes() == ["vol-prod"], "{:?}", site.railway.volumes());
    Ok(())
}

#[test]
fn what_became_something_else_since_it_was_approved_is_held_anew() -> Result<()> {
    let site = Site::with(GatewayOptions::default(), "production", "delay = \"6s\"\n")?;
    let curl = site.curl("cursor")?;
    let hold = curl.post(GRAPHQL, DELETE)?.header("reprieve-hold").context("no hold")?.to_owned();
    site.gateway.approve(&hold, "pocket-db-data")?;
    site.railway.attach("vol-prod", "payments");
    site.gateway.wait_for_status(&hold, "finished")?;
    ensure!(site.railway.volumes().len() == 2, "it was deleted all the same");
    let again = curl.post(GRAPHQL, DELETE)?;
    let problem = again.json()?;
    ensure!(problem["outcome"] == "held" && problem["hold"] != hold.as_str(), "{problem}");
    ensure!(problem["reach"]["found"][0]["attached"][0] == "payments", "{problem}");
    Ok(())
}

#[test]
fn a_shell_is_set_up_by_env() -> Result<()> {
    let site = Site::open(GatewayOptions::default())?;
    let proxy = site.gateway.agent("cursor", &["railway"], "read")?;
    let token = proxy.split(['@', ':']).nth(2).context("no token")?.to_owned();
    let script = format!(
        "eval \"$(REPRIEVE_TOKEN={token} {} env --agent cursor)\" && curl -sS -H content-type:application/json --data '{}' {GRAPHQL}",
        reprieve_testkit::program()?.display(),
        r#"{"query":"query { me { name } }"}"#
    );
    let output = std::process::Command::new("sh").args(["-c", &script]).current_dir(site.gateway.folder()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("\"name\":\"pocket\""), "{said}");
    let wrong = site.gateway.cli(&["env", "--agent", "cursor"])?;
    ensure!(!wrong.status.success(), "it needs a token");
    Ok(())
}

#[test]
fn a_service_that_says_no_with_status_200_has_done_nothing() -> Result<()> {
    let site = Site::with(GatewayOptions::default(), "production", "delay = \"0s\"\n")?;
    let curl = site.curl("cursor")?;
    let nowhere = DELETE.replace("vol-prod", "vol-nowhere");
    let held = curl.post(GRAPHQL, &nowhere)?;
    ensure!(held.json()?["reach"]["found"][0]["unresolved"].is_string(), "{held:?}");
    let hold = held.header("reprieve-hold").context("no hold")?.to_owned();
    site.gateway.approve(&hold, "vol-nowhere")?;
    let ended = site.gateway.wait_for_status(&hold, "finished")?;
    ensure!(ended["succeeded"] == false, "{ended}");
    // The hold's end is recorded a moment before the intent's.
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let outcomes: Vec<Value> = site.gateway.events()?.into_iter().filter(|event| event["event"]["event"] == "concluded").collect();
        if outcomes.last().is_some_and(|outcome| outcome["event"]["code"] == "errors") {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{outcomes:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
