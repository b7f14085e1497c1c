//! People hear of holds: on webhooks, chats and by mail, and of nothing that an agent wrote.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use reprieve_testkit::{GatewayOptions, free_port};
use reprieve_tests::{Receiver, Site, connect, denied};
use serde_json::Value;

/// What an agent may try to put into a person's pocket.
const HOSTILE: &str =
    "/* <b>approved</b> <https://evil.example|click> @channel *urgent* \u{202E}\u{200B} https://evil.example */ DELETE FROM orders";

fn site(settings: &str) -> Result<Site> {
    let site = Site::open(GatewayOptions { settings: settings.to_owned(), ..GatewayOptions::default() })?;
    site.table("orders", 300)?;
    Ok(site)
}

/// An address as the settings name it: in a file of its own.
fn kept(folder: &Path, name: &str, text: &str) -> Result<String> {
    let path = folder.join(name);
    std::fs::write(&path, text)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(format!("file:{}", path.display()))
}

async fn hold(site: &Site, sql: &str) -> Result<String> {
    let client = connect(&site.agent("eager")?).await?;
    denied(client.simple_query(sql).await)?.hold.context("no hold")
}

fn notified(site: &Site, hold: &str, channel: &str) -> Result<Value> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let events = site.gateway.events()?;
        let own = |event: &&Value| {
            event["event"]["event"] == "notified" && format!("H-{}", event["event"]["hold"]) == hold && event["event"]["channel"] == channel
        };
        if let Some(found) = events.iter().find(own) {
            return Ok(found["event"].clone());
        }
        ensure!(Instant::now() < until, "{hold} was not told on {channel}: {}", site.gateway.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn nothing_of_the_agent(text: &str) -> Result<()> {
    for part in ["evil", "<b>", "approved", "@channel", "urgent", "\u{202E}", "\u{200B}", "DELETE FROM", "\\u202e"] {
        ensure!(!text.contains(part), "it carries {part:?}: {text}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_is_told_at_once_and_once_and_carries_nothing_of_the_agent() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (hook, chat, late) = (Receiver::start(&[])?, Receiver::start(&[500])?, Receiver::start(&[])?);
    let (hook_url, chat_url) = (kept(folder.path(), "hook", hook.url())?, kept(folder.path(), "chat", chat.url())?);
    let (late_url, key) = (kept(folder.path(), "late", late.url())?, kept(folder.path(), "key", "signing-key")?);
    let mut site = site(&format!(
        "[[notify]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"{hook_url}\"\ncredential = \"{key}\"\n\
         [[notify]]\nname = \"chat\"\nkind = \"slack\"\nurl = \"{chat_url}\"\n\
         [[notify]]\nname = \"late\"\nkind = \"webhook\"\nurl = \"{late_url}\"\nafter = \"4s\"\n\
         [[notify]]\nname = \"staging-only\"\nkind = \"webhook\"\nurl = \"{late_url}\"\nenvironments = [\"staging\"]\n"
    ))?;
    let id = hold(&site, HOSTILE).await?;
    let came = &hook.wait_for(1)?[0];
    let told = came.json()?;
    ensure!(told["hold"] == id.as_str() && told["environment"] == "production", "{told}");
    ensure!(told["link"] == format!("{}/holds/{id}", site.gateway.console()), "{told}");
    ensure!(told["text"].as_str().is_some_and(|text| text.contains("Deletes 300 rows of orders") && text.contains("eager")), "{told}");
    nothing_of_the_agent(&came.body)?;
    let signature = came.header("reprieve-signature").context("it is not signed")?;
    ensure!(signature.starts_with("t=") && signature.contains(",v1="), "{signature}");

    // The chat failed once and was tried again; the next to ask hears only after a while.
    let tries = chat.wait_for(2)?;
    ensure!(tries[1].body == tries[0].body && tries[0].json()?["parse"] == "none", "{tries:?}");
    nothing_of_the_agent(&tries[0].body)?;
    let told = notified(&site, &id, "chat")?;
    ensure!(told["delivered"] == true && told["attempts"] == 2, "{told}");
    let asked_later = late.wait_for(1)?;
    ensure!(asked_later[0].at.duration_since(came.at) > Duration::from_secs(3), "it was told too early");
    ensure!(notified(&site, &id, "hook")?["attempts"] == 1);

    // A start tells nobody twice, and a hold that is decided is told to nobody.
    site.gateway.restart()?;
    site.gateway.deny(&id, "no")?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(hook.got().len() == 1 && late.got().len() == 1, "{:?}", hook.got());
    site.gateway.verify()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_decided_in_time_is_not_followed_by_the_next_to_ask() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let late = Receiver::start(&[])?;
    let url = kept(folder.path(), "late", late.url())?;
    let site = site(&format!("[[notify]]\nname = \"late\"\nkind = \"webhook\"\nurl = \"{url}\"\nafter = \"20s\"\n"))?;
    let id = hold(&site, "DELETE FROM orders").await?;
    site.gateway.deny(&id, "no")?;
    std::thread::sleep(Duration::from_secs(22));
    ensure!(late.got().is_empty(), "{:?}", late.got());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_goes_through_a_real_server() -> Result<()> {
    let Some(server) = MailServer::start()? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let url = kept(folder.path(), "mail", &format!("smtp://127.0.0.1:{}", server.port))?;
    let site = site(&format!(
        "[[notify]]\nname = \"mail\"\nkind = \"mail\"\nurl = \"{url}\"\nfrom = \"Reprieve <reprieve@pocket.example>\"\nto = [\"maya@pocket.example\", \"jonas@pocket.example\"]\n"
    ))?;
    let id = hold(&site, HOSTILE).await?;
    ensure!(notified(&site, &id, "mail")?["delivered"] == true);
    let mail = server.received()?;
    ensure!(mail.contains(&format!("Subject: [Reprieve] {id} waits in production")), "{mail}");
    ensure!(mail.contains("maya@pocket.example") && mail.contains("jonas@pocket.example"), "{mail}");
    ensure!(mail.contains("Deletes 300 rows of orders") && mail.contains(&format!("/holds/{id}")), "{mail}");
    nothing_of_the_agent(&mail)
}

#[test]
fn a_channel_that_is_not_right_is_refused_at_the_start() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let url = kept(folder.path(), "hook", "http://127.0.0.1:9/hook")?;
    for (settings, word) in [
        ("[[notify]]\nname = \"a\"\nkind = \"webhook\"\nurl = \"https://hooks.example/T000/secret\"\n".to_owned(), "is a credential"),
        (format!("[[notify]]\nname = \"a\"\nkind = \"mail\"\nurl = \"{url}\"\n"), "mail needs both"),
        (format!("[[notify]]\nname = \"a\"\nkind = \"slack\"\nurl = \"{url}\"\nquiet = \"22-6\"\n"), "no span of the day"),
        (format!("[[notify]]\nname = \"a\"\nkind = \"slack\"\nurl = \"{url}\"\n").repeat(2), "two channels"),
        (format!("[[notify]]\nname = \"a\"\nkind = \"pigeon\"\nurl = \"{url}\"\n"), "pigeon"),
    ] {
        let started = Site::open(GatewayOptions { settings: settings.clone(), ..GatewayOptions::default() });
        let error = started.err().with_context(|| format!("it started with {settings}"))?;
        ensure!(format!("{error:#}").contains(word), "{error:#}");
    }
    Ok(())
}

/// aiosmtpd, which writes what it gets to its output.
struct MailServer {
    child: Child,
    port: u16,
}

impl MailServer {
    fn start() -> Result<Option<MailServer>> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mail");
        let python = folder.join("bin/python");
        if !folder.join("complete").exists() {
            let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder).output()?;
            let installed =
                Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "aiosmtpd"]).output();
            if !made.status.success() || !installed.as_ref().is_ok_and(|installed| installed.status.success()) {
                return skip(&format!("{installed:?}"));
            }
            std::fs::write(folder.join("complete"), "")?;
        }
        let port = free_port()?;
        let child = Command::new(&python)
            .args(["-u", "-m", "aiosmtpd", "-n", "-c", "aiosmtpd.handlers.Debugging", "-l"])
            .arg(format!("127.0.0.1:{port}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start aiosmtpd")?;
        let server = MailServer { child, port };
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(Instant::now() < until, "aiosmtpd does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Some(server))
    }

    /// The first message.
    fn received(mut self) -> Result<String> {
        let output = self.child.stdout.take().context("no output")?;
        let mut text = String::new();
        for line in BufReader::new(output).lines() {
            let line = line?;
            text.push_str(&line);
            text.push('\n');
            if line.contains("END MESSAGE") {
                break;
            }
        }
        Ok(text)
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::print_stderr, reason = "whoever runs the tests has to see what was not tested")]
fn skip(reason: &str) -> Result<Option<MailServer>> {
    ensure!(std::env::var_os("CI").is_none(), "aiosmtpd can't be installed on a build machine: {reason}");
    eprintln!("SKIPPED: the mail server is not there: {reason}");
    Ok(None)
}
