//! The console as a person meets it: a real browser with a virtual passkey, the real program, a real PostgreSQL.
//!
//! `axe.min.js` is axe-core 4.14.1 (MPL-2.0), as published; it is run in the page, and finds nothing to say.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use reprieve_testkit::{Browser, Gateway, GatewayOptions};
use reprieve_tests::{Site, connect, denied};
use serde_json::{Value, json};

#[path = "console/story.rs"]
mod story;
use story::Story;

const AXE: &str = include_str!("../assets/axe.min.js");

/// Every page that an operator can go to.
const PAGES: [&str; 12] = [
    "/welcome",
    "/live",
    "/holds",
    "/undo",
    "/agents",
    "/agents/new",
    "/systems",
    "/policies",
    "/recovery",
    "/audit",
    "/audit/0",
    "/checklist",
];

fn site(wait: &str) -> Result<Site> {
    Site::open(GatewayOptions { wait: wait.to_owned(), ..GatewayOptions::default() })
}

/// Enrols the first operator's passkey by the link of the first start, and signs in with it.
fn enter(gateway: &Gateway) -> Result<Browser> {
    enter_as(gateway, "ana")
}

fn enter_as(gateway: &Gateway, operator: &str) -> Result<Browser> {
    let mut browser = Browser::start()?;
    browser.open(&gateway.enrolment_link()?)?;
    browser.wait_for(&format!("document.querySelector('[data-who]').textContent === '{operator}'"))?;
    browser.fill("#label", "the test’s laptop")?;
    browser.fill("#code", &gateway.code(operator)?)?;
    browser.click("form[data-enrol] button")?;
    browser.wait_for("location.pathname === '/signin'")?;
    sign_in(&mut browser)?;
    Ok(browser)
}

fn sign_in(browser: &mut Browser) -> Result<()> {
    browser.click("form[data-signin] button")?;
    browser.wait_for("location.pathname === '/live' && document.readyState === 'complete'")
}

/// Types the name, touches the passkey, and lets the ten seconds go by.
fn approve(browser: &mut Browser, confirm: &str) -> Result<()> {
    browser.fill("#confirm-name", confirm)?;
    browser.click(".approve-zone .destroy")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_enrols_signs_in_and_approves_what_then_runs_once() -> Result<()> {
    let site = site("120s")?;
    site.table("orders", 300)?;
    let client = connect(&site.agent("cleaner")?).await?;
    let waiting =
        tokio::spawn(async move { client.batch_execute("DELETE FROM orders WHERE id <= 250 /* <b>approved</b> \u{202E} */").await });
    let hold = site.gateway.wait_for_hold("cleaner", "DELETE FROM orders")?;
    let (id, confirm) = (hold["id"].as_str().context("an id")?.to_owned(), hold["confirm"].as_str().context("a name")?.to_owned());

    let mut browser = enter(&site.gateway)?;
    browser.open(&format!("{}/holds", site.gateway.console()))?;
    ensure!(browser.text()?.contains("One statement waits for a person."), "{}", browser.text()?);
    browser.open(&format!("{}/holds/{id}", site.gateway.console()))?;
    let text = browser.text()?;
    ensure!(text.contains("250") && text.contains("⟨U+202E⟩") && text.contains("<b>approved</b>"), "{text}");
    // The wrong name keeps the button shut, and so does the right one in another case.
    for wrong in ["", "orders ", &confirm.to_uppercase()] {
        browser.fill("#confirm-name", wrong)?;
        ensure!(browser.evaluate("document.querySelector('.approve-zone .destroy').disabled")? == json!(true), "{wrong:?}");
    }
    // Stopping within the ten seconds leaves it as it was.
    approve(&mut browser, &confirm)?;
    browser.click("[data-stop]:not([hidden]) button")?;
    browser.wait_for("document.querySelector('.approve-zone [data-say]').textContent.includes('Stopped')")?;
    ensure!(site.gateway.hold(&id)?["status"] == "waiting");

    approve(&mut browser, &confirm)?;
    waiting.await??;
    assert_eq!(site.count("orders")?, 50);
    let hold = site.gateway.wait_for_status(&id, "finished")?;
    assert_eq!(hold["answers"][0][0], "ana");
    let answered = event(&site.gateway, "hold_answered")?;
    let evidence = answered["signature"].as_str().context("evidence")?;
    ensure!(evidence.len() > 400, "the ledger holds the whole assertion: {evidence}");
    site.gateway.verify()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_denies_with_a_reason_freezes_and_thaws() -> Result<()> {
    let site = site("1s")?;
    site.table("orders", 300)?;
    let client = connect(&site.agent("eager")?).await?;
    let told = denied(client.simple_query("DELETE FROM orders").await)?;
    let id = told.hold.context("a hold")?;
    let mut browser = enter(&site.gateway)?;
    browser.open(&format!("{}/holds/{id}", site.gateway.console()))?;
    browser.fill("#deny textarea", "not on a Friday")?;
    browser.click("#deny button[name=freeze]")?;
    browser.wait_for("document.querySelector('.clock .out.denied') !== null")?;
    assert_eq!(site.gateway.hold(&id)?["answers"][0][2], "not on a Friday");
    let told = denied(client.simple_query("SELECT 1").await)?;
    assert_eq!(told.code, "RPF01", "{told:?}");

    browser.open(&format!("{}/agents/eager", site.gateway.console()))?;
    browser.fill("form[action='/thaw'] input[name=reason]", "talked to the team")?;
    browser.click("form[action='/thaw'] button")?;
    browser.wait_for("location.pathname === '/live'")?;
    client.simple_query("SELECT 1").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_move_by_themselves_and_tokens_are_made_and_revoked() -> Result<()> {
    let site = site("1s")?;
    site.table("orders", 300)?;
    let mut browser = enter(&site.gateway)?;
    let client = connect(&site.agent("quick")?).await?;
    client.batch_execute("INSERT INTO orders VALUES (1000)").await?;
    denied(client.simple_query("DELETE FROM orders").await)?;
    browser.wait_for("document.getElementById('feed').innerText.includes('DELETE FROM orders')")?;
    browser.wait_for("document.getElementById('feed').innerText.includes('INSERT INTO orders')")?;

    browser.open(&format!("{}/agents/new", site.gateway.console()))?;
    browser.fill("#ag", "from-console")?;
    browser.click("input[name=system][value=shop]")?;
    browser.click("input[name=allow][value=write]")?;
    browser.click(".sticky button[type=submit]")?;
    browser.wait_for("document.getElementById('new-url') !== null")?;
    let url = browser.evaluate("document.getElementById('new-url').textContent")?;
    let made = connect(url.as_str().context("a URL")?).await?;
    made.batch_execute("INSERT INTO orders VALUES (1001)").await?;
    browser.open(&format!("{}/agents/from-console", site.gateway.console()))?;
    browser.click("form[action$='/revoke'] button")?;
    browser.wait_for("document.querySelector('.pickl [aria-current]')?.innerText.includes('revoked')")?;
    ensure!(connect(url.as_str().context("a URL")?).await.is_err(), "the token is void");
    Ok(())
}

#[test]
fn every_page_is_accessible_and_asks_nobody_else() -> Result<()> {
    let story = Story::play()?;
    let gateway = &story.gateway;
    let mut found = Vec::new();
    let mut browser = Browser::start()?;
    for path in ["/signin", "/enrol"] {
        found.extend(look(&mut browser, gateway, path, "light")?);
    }
    drop(browser);
    let mut browser = enter_as(gateway, "maya.chen")?;
    let hold = format!("/holds/{}", story.hold);
    let pages: Vec<&str> =
        PAGES.iter().copied().chain([hold.as_str(), "/agents/nightly-etl?used=30", "/agents/cursor-staging/report"]).collect();
    for (theme, dark) in [("light", false), ("dark", true)] {
        browser.screen(1440, 900, false, dark)?;
        for path in &pages {
            found.extend(look(&mut browser, gateway, path, theme)?);
            found.extend(too_heavy(&mut browser, path)?);
        }
    }
    // A phone shows the same parts in another order, and nothing that has to be moved sideways.
    browser.screen(390, 844, true, false)?;
    for path in &pages {
        if *path == hold || *path == "/live" {
            found.extend(look(&mut browser, gateway, path, "phone")?);
        } else {
            browser.open(&format!("{}{path}", gateway.console()))?;
        }
        let wide = browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")?;
        if wide.as_i64().unwrap_or(0) > 0 {
            found.push(format!("{path} on a phone: scrolls sideways by {wide}"));
        }
    }
    ensure!(found.is_empty(), "{}", found.join("\n"));
    let own = gateway.console();
    for request in browser.requests() {
        ensure!(request.starts_with(&own) || request.starts_with("about:") || request.starts_with("data:"), "asked {request}");
    }
    ensure!(browser.complaints().is_empty(), "{:?}", browser.complaints());
    Ok(())
}

/// Opens a page and lets axe look at it; answers what it finds to say.
fn look(browser: &mut Browser, gateway: &Gateway, path: &str, theme: &str) -> Result<Vec<String>> {
    browser.open(&format!("{}{path}", gateway.console()))?;
    browser.evaluate(AXE)?;
    let found = browser.evaluate(
        "axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'] })
           .then(r => r.violations.map(v => v.id + ': ' + v.nodes.slice(0, 4).map(n => n.html.slice(0, 200) + ' ' + n.any.map(a => a.message).join(' ').slice(0, 160)).join(' | ')))",
    )?;
    let texts = found.as_array().with_context(|| format!("axe did not run on {path}: {found}"))?;
    Ok(texts.iter().filter_map(Value::as_str).map(|text| format!("{path} {theme}: {text}")).collect())
}

/// What a page weighs without pictures, and what keeps its first paint waiting: itself and one style sheet.
fn too_heavy(browser: &mut Browser, path: &str) -> Result<Vec<String>> {
    let weight = browser.evaluate(
        "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
           .filter(e => e.initiatorType !== 'img' && e.initiatorType !== 'other').reduce((sum, e) => sum + e.encodedBodySize, 0)",
    )?;
    let blocking = browser.evaluate(
        "[...document.querySelectorAll('link[rel=stylesheet]')].length + [...document.head.querySelectorAll('script')].filter(s => !s.defer && !s.async).length * 100",
    )?;
    let weight = weight.as_f64().with_context(|| format!("{path} weighs nothing"))?;
    ensure!(weight > 10_000.0, "{path} weighs {weight} bytes, which can't be");
    let mut found = Vec::new();
    if weight > 150_000.0 {
        found.push(format!("{path} weighs {weight} bytes"));
    }
    if blocking != json!(1) {
        found.push(format!("{path} waits for more than one style sheet before its first paint: {blocking}"));
    }
    Ok(found)
}

fn event(gateway: &Gateway, kind: &str) -> Result<Value> {
    let found = gateway.events()?.into_iter().map(|recorded| recorded["event"].clone()).find(|event| event["event"] == kind);
    found.with_context(|| format!("no event `{kind}`"))
}

/// A passkey is lost with its device: a code from paper gives its owner another one, once. And the rules of tomorrow are tried on today.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_passkey_is_replaced_by_a_recovery_code_and_rules_are_tried_on_the_past() -> Result<()> {
    let site = site("1s")?;
    site.table("orders", 300)?;
    let client = connect(&site.agent("quick")?).await?;
    client.batch_execute("INSERT INTO orders VALUES (1000)").await?;
    let mut browser = enter(&site.gateway)?;
    browser.open(&format!("{}/policies", site.gateway.console()))?;
    let rule = r#"@id("nothing-is-added") @reason("a quiet day") @remedy("wait") forbid (principal, action == Action::"write", resource);"#;
    browser.fill("#cedar", rule)?;
    browser.click("input[name=replay][value='7']")?;
    browser.click("form[action='/policies/check'] button")?;
    browser.wait_for("document.body.innerText.includes('recorded operations would be answered otherwise')")?;
    let text = browser.text()?;
    ensure!(text.contains("INSERT INTO orders") && text.contains("nothing-is-added") && text.contains("Refused"), "{text}");

    browser.open(&format!("{}/agents", site.gateway.console()))?;
    browser.click("form[action='/operators/recovery'] button")?;
    browser.wait_for("document.querySelectorAll('[data-shown] li').length === 8")?;
    let code = browser.evaluate("document.querySelector('[data-shown] li').textContent")?;
    let code = code.as_str().context("a code")?.to_uppercase();
    drop(browser);
    let mut browser = Browser::start()?;
    browser.open(&format!("{}/enrol", site.gateway.console()))?;
    browser.fill("#recovery", &format!(" {code} "))?;
    browser.click("form[data-recover] button")?;
    browser.wait_for("document.querySelector('[data-who]').textContent === 'ana'")?;
    browser.fill("#label", "the next laptop")?;
    browser.fill("#code", &site.gateway.code("ana")?)?;
    browser.click("form[data-enrol] button")?;
    browser.wait_for("location.pathname === '/signin'")?;
    sign_in(&mut browser)?;
    let alarm = event(&site.gateway, "alarm")?;
    ensure!(alarm["what"].as_str().is_some_and(|what| what.contains("recovery code of ana")), "{alarm}");
    Ok(())
}

/// The story of the pages, by the hands of one of its people: from the one-time link to the incident report.
#[test]
fn the_story_is_played_from_the_first_link_to_the_incident_report() -> Result<()> {
    let story = Story::play()?;
    let gateway = &story.gateway;
    let go = |browser: &mut Browser, path: &str| browser.open(&format!("{}{path}", gateway.console()));

    // She comes in by the link of the first start, and finds what happened, and what waits.
    let mut browser = enter_as(gateway, "maya.chen")?;
    browser.wait_for("document.getElementById('feed').innerText.includes('reservations')")?;
    let text = browser.text()?;
    ensure!(text.contains("cursor-staging") && text.contains("jonas.weber approved"), "{text}");
    go(&mut browser, "/holds")?;
    ensure!(browser.text()?.contains("claude-migrations"), "{}", browser.text()?);

    // The agent's comment says 212 rows and that it was reviewed; the page says what was measured.
    go(&mut browser, &format!("/holds/{}", story.hold))?;
    let text = browser.text()?;
    for expected in ["400,116", "41,872", "Already reviewed by the DBA team", "1 of 2 approvals", "Rows looked old", "@mail.example"] {
        ensure!(text.contains(expected) == (expected != "@mail.example"), "{expected}: {text}");
    }
    // She denies it, with a reason that its agent reads.
    browser.fill("#deny textarea", "212 rows, by their source, please")?;
    browser.click("#deny button[type=submit]:not([name])")?;
    browser.wait_for("document.querySelector('.clock .out.denied') !== null")?;
    ensure!(gateway.hold(&story.hold)?["status"] == "denied");
    ensure!(story.production("SELECT count(*) FROM reservations")? == "133350", "nothing ran");

    // What cursor-staging did to the fleet comes back, but for the rows that people need as they are now: all but one of them.
    go(&mut browser, "/undo")?;
    let change = browser.evaluate(
        "[...document.querySelectorAll('.chg')].find(c => c.innerText.includes('1,210 rows')).querySelector('.act a').getAttribute('href')",
    )?;
    let change = change.as_str().context("no such change")?.to_owned();
    go(&mut browser, &change)?;
    ensure!(browser.text()?.contains("6 rows were changed since"), "{}", browser.text()?);
    browser.click("input[name=keep][value$='V-0182']")?;
    browser.click("input[name=choice][value=ours]")?;
    browser.fill("#undo-go input[name=reason]", "the test set is rebuilt elsewhere")?;
    browser.click("#undo-go button[type=submit]")?;
    browser.wait_for("location.pathname === '/undo' && document.readyState === 'complete'")?;
    let states = "SELECT string_agg(state || ' ' || n, ', ' ORDER BY state) FROM (SELECT state, count(*) n FROM vehicles GROUP BY 1) s";
    let states = story.staging(states)?;
    ensure!(states.contains("rented 5") && !states.contains("available"), "{states}");
    ensure!(story.staging("SELECT state FROM vehicles WHERE id = 'V-0182'")? == "maintenance");
    ensure!(event(gateway, "undo_started")?["choice"].to_string().contains("V-0417"), "what stays is on record");

    // What an agent never used is taken away by one button.
    go(&mut browser, "/agents/claude-migrations")?;
    browser.click("section[aria-labelledby=un] a.btn")?;
    browser.wait_for("location.search.includes('used=30') && document.readyState === 'complete'")?;
    let text = browser.text()?;
    ensure!(text.contains("Never needed"), "what it never needed: {} {text}", browser.evaluate("location.href")?);
    browser.click("section[aria-labelledby=un] form button")?;
    browser.wait_for("!location.search.includes('used=30') && document.readyState === 'complete'")?;
    let narrowed = event(gateway, "token_narrowed")?;
    let (kinds, resources) = (narrowed["scope"]["kinds"].to_string(), narrowed["scope"]["resources"].to_string());
    ensure!(!kinds.contains("grant") && resources.contains("reservations"), "{narrowed}");

    // Everything stops in two clicks, and goes on with a passkey and a reason.
    browser.click(".btn.freeze")?;
    browser.click("#freeze button.main")?;
    browser.wait_for("document.readyState === 'complete' && document.body.innerText.includes('Everything frozen')")?;
    browser.fill("form[action='/thaw'] input[name=reason]", "it was one agent")?;
    browser.click("form[action='/thaw'] button")?;
    browser.wait_for("document.readyState === 'complete' && !document.body.innerText.includes('Everything frozen')")?;
    ensure!(event(gateway, "thawed")?["reason"] == "it was one agent");

    // What the agent of the nine seconds touched, each line with its proof.
    go(&mut browser, "/agents/cursor-staging")?;
    browser.click("a[href='/agents/cursor-staging/report']")?;
    browser.wait_for("location.pathname.endsWith('/report') && document.readyState === 'complete'")?;
    let text = browser.text()?;
    for expected in ["volumeDelete", "vehicles", "hosting-api", "pocket-stg-db", "maya.chen"] {
        ensure!(text.contains(expected), "{expected}: {text}");
    }
    browser.click("main a[href^='/audit/']:not([href*=export])")?;
    browser.wait_for("location.pathname.startsWith('/audit/') && document.readyState === 'complete'")?;
    let text = browser.text()?;
    ensure!(text.to_lowercase().contains("proof"), "its proof: {text}");
    gateway.verify()?;
    ensure!(browser.complaints().is_empty(), "{:?}", browser.complaints());
    Ok(())
}

/// Writes every page in both themes on desktop and phone to the folder named by `REPRIEVE_SCREENSHOTS`; `make screenshots` does.
#[test]
#[ignore = "writes pictures; run by `make screenshots`"]
fn screenshots() -> Result<()> {
    let folder = std::path::PathBuf::from(std::env::var("REPRIEVE_SCREENSHOTS").context("REPRIEVE_SCREENSHOTS names no folder")?);
    std::fs::create_dir_all(&folder)?;
    let story = Story::play()?;
    let gateway = &story.gateway;
    let mut browser = Browser::start()?;
    let mut pages = vec![("signin".to_owned(), "/signin".to_owned()), ("enrol".to_owned(), "/enrol".to_owned())];
    pictures(&mut browser, gateway, &folder, &pages)?;
    drop(browser);
    let mut browser = enter_as(gateway, "maya.chen")?;
    browser.wait_for("document.getElementById('feed').innerText.includes('reservations')")?;
    let first = |browser: &mut Browser, page: &str, link: &str| -> Result<String> {
        let found = browser.evaluate(&format!("fetch('{page}').then(r => r.text()).then(t => (t.match(/{link}/) || ['', ''])[1])"))?;
        Ok(found.as_str().unwrap_or_default().to_owned())
    };
    pages = PAGES.iter().map(|path| (path.trim_start_matches('/').replace('/', "-"), (*path).to_owned())).collect();
    pages.push(("hold".to_owned(), format!("/holds/{}", story.hold)));
    pages.push(("agent".to_owned(), "/agents/nightly-etl?used=30".to_owned()));
    pages.push(("report".to_owned(), "/agents/cursor-staging/report".to_owned()));
    let conflicting = first(&mut browser, "/undo", ">1,210 rows[^]*?(\\/undo\\/U-\\d+)")?;
    for (name, path) in [("undo-one", conflicting), ("audit-event", first(&mut browser, "/audit?kind=hold_opened", "(\\/audit\\/\\d+)")?)] {
        ensure!(!path.is_empty(), "no page for {name}");
        pages.push((name.to_owned(), path));
    }
    pages.retain(|(name, _)| name != "audit-0");
    pictures(&mut browser, gateway, &folder, &pages)?;
    gateway.freeze(None)?;
    pictures(&mut browser, gateway, &folder, &[("frozen".to_owned(), "/live".to_owned())])
}

/// Each page as `NAME-SIZE-THEME.png`; of a phone also what its screen shows first.
fn pictures(browser: &mut Browser, gateway: &Gateway, folder: &Path, pages: &[(String, String)]) -> Result<()> {
    for (size, width, height, phone) in [("desktop", 1440, 1000, false), ("phone", 390, 844, true)] {
        for (theme, dark) in [("light", false), ("dark", true)] {
            browser.screen(width, height, phone, dark)?;
            for (name, path) in pages {
                browser.open(&format!("{}{path}", gateway.console()))?;
                browser.screenshot(&folder.join(format!("{name}-{size}-{theme}.png")))?;
                if phone && name == "hold" {
                    browser.screenful(&folder.join(format!("{name}-{size}-{theme}-first.png")))?;
                }
            }
        }
    }
    Ok(())
}
