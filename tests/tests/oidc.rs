//! Another sign-in: a real OpenID Connect provider, a real browser, and a provider that lies in every way that it can.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use reprieve_testkit::{Browser, Gateway, GatewayOptions};
use reprieve_tests::{Site, connect, denied, tools};

/// The provider's program; it ends with its input.
struct Provider {
    child: Child,
    port: u16,
    /// What it says besides; it ends when nobody can hear it.
    _said: BufReader<ChildStdout>,
}

impl Provider {
    fn start(packages: &Path, redirect: &str) -> Result<Provider> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/oidc.mjs");
        let mut child = Command::new("node")
            .arg(script)
            .arg(packages)
            .arg(redirect)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run Node")?;
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take().context("no output")?);
        said.read_line(&mut line)?;
        let port = line.trim().parse().with_context(|| format!("the provider did not start: {line:?}"))?;
        Ok(Provider { child, port, _said: said })
    }

    fn lie(&self, how: &str) -> Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        write!(stream, "GET /lie?how={how} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Ok(())
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Signs in at the provider under a name, and agrees to what it asks.
fn at_the_provider(browser: &mut Browser, gateway: &Gateway, name: &str) -> Result<()> {
    browser.open(&format!("{}/signin", gateway.console()))?;
    browser.click("a[href^='/signin/oidc']")?;
    browser.fill("input[name=login]", name)?;
    browser.fill("input[name=password]", "anything")?;
    browser.click("[type=submit]")?;
    browser.wait_for("document.querySelector('input[name=login]') === null && document.querySelector('[type=submit]') !== null")?;
    browser.click("[type=submit]")?;
    browser.wait_for(&format!("location.origin === '{}' && document.readyState === 'complete'", gateway.console()))
}

fn refused(browser: &mut Browser, gateway: &Gateway, path: &str) -> Result<()> {
    browser.open(&format!("{}{path}", gateway.console()))?;
    browser.wait_for("location.pathname === '/signin/oidc/callback' && document.readyState === 'complete'")?;
    let text = browser.text()?;
    ensure!(text.contains("You are not signed in"), "{text}");
    browser.open(&format!("{}/live", gateway.console()))?;
    browser.wait_for("location.pathname === '/signin'")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organisations_sign_in_opens_the_pages_and_approves_nothing() -> Result<()> {
    let Some(packages) = tools::node_with(Path::new(env!("CARGO_TARGET_TMPDIR")), "oidc", PACKAGES)? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "the-secret-of-the-client-of-the-test")?;
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    // The console's address has to be known to the provider, and the provider's to the gateway.
    let mut site = Site::open(GatewayOptions { wait: "1s".to_owned(), ..GatewayOptions::default() })?;
    let provider = Provider::start(&packages, &format!("{}/signin/oidc/callback", site.gateway.console()))?;
    site.gateway.add_settings(&format!(
        "[console.oidc]\nissuer = \"http://127.0.0.1:{}\"\nclient_id = \"reprieve\"\nclient_secret = \"file:{}\"\n\
         operators = {{ \"Ana@pocket.example\" = \"ana\", \"ghost@pocket.example\" = \"nobody-yet\", \"mallory@pocket.example\" = \"ana\" }}\n",
        provider.port,
        secret.display()
    ))?;
    site.table("orders", 300)?;
    let gateway = &site.gateway;

    let mut browser = Browser::start()?;
    at_the_provider(&mut browser, gateway, "ana")?;
    browser.wait_for("location.pathname === '/live'")?;
    let signed = gateway.events()?.into_iter().map(|recorded| recorded["event"].clone()).find(|event| event["event"] == "signed_in");
    let signed = signed.context("it is not on record")?;
    ensure!(signed["operator"] == "ana" && signed["credential"] == format!("oidc:http://127.0.0.1:{}#ana", provider.port), "{signed}");

    // It may deny, and not approve: that is a passkey's.
    let client = connect(&site.agent("eager")?).await?;
    let hold = denied(client.simple_query("DELETE FROM orders").await)?.hold.context("a hold")?;
    browser.open(&format!("{}/holds/{hold}", gateway.console()))?;
    let confirm = gateway.hold(&hold)?["confirm"].as_str().context("a name")?.to_owned();
    browser.fill("#confirm-name", &confirm)?;
    browser.click(".approve-zone .destroy")?;
    browser.wait_for("(t => t !== '' && !t.includes('Approving'))(document.querySelector('.approve-zone [data-say]').textContent)")?;
    ensure!(gateway.hold(&hold)?["status"] == "waiting", "{}", browser.text()?);
    browser.fill("#deny textarea", "not today")?;
    browser.click("#deny button[type=submit]")?;
    browser.wait_for("document.querySelector('.clock .out.denied') !== null")?;

    // What came back once is worth nothing again, and nothing in another browser.
    browser.call("Network.clearBrowserCookies", serde_json::json!({}))?;
    at_the_provider(&mut browser, gateway, "ana")?;
    browser.wait_for("location.pathname === '/live'")?;
    let used = browser.requests().iter().rev().find(|url| url.contains("/signin/oidc/callback?code=")).context("no answer")?.clone();
    let mut another = Browser::start()?;
    another.open(&used)?;
    ensure!(another.text()?.contains("You are not signed in"), "{}", another.text()?);
    drop(another);
    let signed_out = "fetch('/signout', { method: 'POST', body: new URLSearchParams({ form_token: document.querySelector('form[action=\"/signout\"] [name=form_token]').value }) }).then(r => r.ok)";
    ensure!(browser.evaluate(signed_out)? == true, "still in");
    browser.open(&used)?;
    ensure!(browser.text()?.contains("You are not signed in"), "{}", browser.text()?);

    // Lies, one by one. The provider knows the browser, so that it answers at once.
    for how in [
        "audience",
        "audiences",
        "nonce",
        "no-nonce",
        "issuer",
        "expired",
        "none",
        "hmac",
        "key",
        "unverified",
        "stranger",
        "about-another",
        "asked-unverified",
        "mixed-up",
        "no-issuer",
        "no-state",
    ] {
        provider.lie(how)?;
        refused(&mut browser, gateway, "/signin/oidc").with_context(|| format!("a provider that lies: {how}"))?;
    }
    // An open redirect is none, and the truth is taken again, also where an address is told only to who asks for it.
    for how in ["asked-for", "no"] {
        provider.lie(how)?;
        browser.open(&format!("{}/signin/oidc?next=https://evil.example/", gateway.console()))?;
        browser.wait_for(&format!("location.href === '{}/live'", gateway.console())).with_context(|| how)?;
    }
    drop(browser);

    // Nobody becomes an operator by signing in, nor by an address that the provider does not vouch for, or that was somebody else's.
    for (name, because) in [
        ("ghost", "not about one of our operators"),
        ("mallory", "not about one of our operators"),
        ("stranger", "not about one of our operators"),
        ("successor", "another account of the provider is linked to this operator"),
    ] {
        let mut browser = Browser::start()?;
        at_the_provider(&mut browser, gateway, name)?;
        let text = browser.text()?;
        ensure!(text.contains("You are not signed in") && text.contains(because), "{name}: {text}");
    }
    let strangers = ["ghost", "nobody-yet", "mallory", "stranger"];
    for recorded in gateway.events()? {
        let event = &recorded["event"];
        ensure!(!strangers.iter().any(|name| event["operator"] == *name), "{recorded}");
        ensure!(!event["credential"].as_str().is_some_and(|credential| credential.ends_with("#successor")), "{recorded}");
    }

    // Who is taken out of the settings is out, and without the provider there are passkeys.
    let mut browser = Browser::start()?;
    at_the_provider(&mut browser, gateway, "ana")?;
    browser.wait_for("location.pathname === '/live'")?;
    let file = site.gateway.folder().join("reprieve.toml");
    let settings = std::fs::read_to_string(&file)?;
    std::fs::write(&file, settings.replace("\"Ana@pocket.example\" = \"ana\", ", ""))?;
    site.gateway.restart()?;
    browser.open(&format!("{}/live", site.gateway.console()))?;
    browser.wait_for("location.pathname === '/signin'")?;
    refused(&mut browser, &site.gateway, "/signin/oidc")?;
    drop(provider);
    site.gateway.restart()?;
    browser.open(&format!("{}/signin/oidc", site.gateway.console()))?;
    let text = browser.text()?;
    ensure!(text.contains("can’t be used at this moment") && !text.contains("127.0.0.1"), "{text}");
    browser.open(&format!("{}/signin", site.gateway.console()))?;
    ensure!(browser.text()?.contains("Continue with passkey"), "{}", browser.text()?);
    Ok(())
}

const PACKAGES: &str = r#"{ "private": true, "dependencies": { "oidc-provider": "^9" } }
"#;
