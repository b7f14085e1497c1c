//! The gateway of the demo: this very program as a child process, and the two operators whom the demo plays.
//!
//! The operators use the command line as people would. Their passphrases and second factors are made up here and live only as
//! long as the demo's folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail, ensure};
use reprieve_approvals::TotpSecret;
use reprieve_operation::{HoldId, Reach, Timestamp};
use reprieve_testkit::{Railway, free_port};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, Command},
    task::JoinHandle,
};

use super::{
    company::{Company, PRODUCTION, STAGING},
    provider,
};

const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(15);
const PORT_ATTEMPTS: u32 = 5;
/// How often a command is given with another code.
const CODE_ATTEMPTS: u32 = 3;
const STEP_MS: u64 = 30_000;
/// A code is not used in the last moments in which it is accepted.
const MARGIN_MS: u64 = 8_000;

/// Stops the gateway when its own input ends: also when the demo is killed.
const WATCHDOG: &str = r#""$@" </dev/null & server=$!; read -r _; kill -TERM "$server" 2>/dev/null; wait "$server""#;

/// What every command of ours would otherwise take from whoever starts the demo.
const OWN_VARIABLES: [&str; 6] =
    ["REPRIEVE_CONFIG", "REPRIEVE_CODE", "REPRIEVE_LOG", "REPRIEVE_MASTER_KEY", "REPRIEVE_NEW_PASSPHRASE", "REPRIEVE_OPERATOR"];

/// A person with a key, a passphrase and a second factor.
pub(crate) struct Person {
    pub(crate) name: &'static str,
    pub(crate) passphrase: String,
    factor: TotpSecret,
    last_step: u64,
}

/// A running gateway in a folder of its own.
pub(crate) struct Gateway {
    program: PathBuf,
    folder: TempDir,
    ports: (u16, u16, u16),
    /// The settings of the systems that are services.
    services: String,
    /// Whether production is copied into the vault.
    is_copied: bool,
    child: Option<Child>,
}

/// What the gateway recorded about a hold.
pub(crate) struct Held {
    pub(crate) reach: Reach,
    pub(crate) confirm: String,
    pub(crate) status: String,
}

/// How production is copied.
const COPIES: &str = "[system.backup]\nurl = \"secret:pocket-prod-copies\"\nwal = \"stream\"\nheartbeat = \"1s\"\n\
    assertions = [\"SELECT count(*) > 100000 FROM public.reservations\"]\n";

/// A copy, and what a drill made of it.
pub(crate) struct Trial {
    pub(crate) plain_bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) copied_in: Duration,
    pub(crate) passed: bool,
    pub(crate) checks: usize,
    pub(crate) back_after: Duration,
}

impl Gateway {
    /// Settings, keys, the first operator, and the databases' URLs in the secrets store.
    pub(crate) async fn init(company: &Company, railway: &Railway, first: &'static str, is_copied: bool) -> anyhow::Result<(Self, Person)> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let folder = tempfile::Builder::new().prefix("reprieve-demo-").tempdir().context("cannot make a folder")?;
        let mut gateway = Self { program, folder, ports: (0, 0, 0), services: provider::settings(railway), is_copied, child: None };
        gateway.write_settings()?;
        let passphrase = new_passphrase();
        let made = gateway.json(&["init", "--operator", first], &[("REPRIEVE_PASSPHRASE", &passphrase)], "").await?;
        let person = Person::new(first, passphrase, &made)?;
        gateway.json(&["secret", "set", "railway"], &[], Railway::TOKEN).await?;
        for (system, role, database) in
            [("pocket-prod", "agent_migrations", PRODUCTION), ("pocket-staging", "agent_cursor_staging", STAGING)]
        {
            gateway.json(&["secret", "set", system], &[], &company.upstream_url(role, database)).await?;
            gateway.json(&["secret", "set", &format!("{system}-admin")], &[], &company.superuser_url(database)).await?;
            gateway.json(&["secret", "set", &format!("{system}-copies")], &[], &company.upstream_url("copies", database)).await?;
            gateway.json(&["protect", system, "--apply"], &[], "").await?;
        }
        Ok((gateway, person))
    }

    fn write_settings(&mut self) -> anyhow::Result<()> {
        self.ports = (free_port()?, free_port()?, free_port()?);
        let (postgres, operators, http) = self.ports;
        let copies = if self.is_copied { COPIES } else { "" };
        let text = format!(
            "[listen]\npostgres = \"127.0.0.1:{postgres}\"\noperators = \"127.0.0.1:{operators}\"\nhttp = \"127.0.0.1:{http}\"\n\n\
             [hold]\nwait = \"1s\"    # the story has no time for more\n\n\
             [[system]]\nname = \"pocket-prod\"\nkind = \"postgres\"\nenvironment = \"production\"\nurl = \"secret:pocket-prod\"\nadmin = \"secret:pocket-prod-admin\"\n\
             {copies}\n\
             [[system]]\nname = \"pocket-staging\"\nkind = \"postgres\"\nenvironment = \"staging\"\nurl = \"secret:pocket-staging\"\nadmin = \"secret:pocket-staging-admin\"\n"
        );
        fs::write(self.settings(), text + &self.services).context("cannot write the settings")
    }

    /// Starts `reprieve serve` and waits until it is ready.
    pub(crate) async fn serve(&mut self) -> anyhow::Result<()> {
        for attempt in 1..=PORT_ATTEMPTS {
            match self.launch().await {
                Ok(()) => return Ok(()),
                // Somebody took a port between our look and the gateway's.
                Err(_) if attempt < PORT_ATTEMPTS && self.log().contains("cannot listen") => self.write_settings()?,
                Err(error) => return Err(error.context(self.log())),
            }
        }
        bail!("no free port in {PORT_ATTEMPTS} attempts")
    }

    async fn launch(&mut self) -> anyhow::Result<()> {
        let log = fs::File::create(self.folder.path().join("serve.log")).context("cannot make the log")?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WATCHDOG, "watchdog"]).arg(&self.program).arg("--config").arg(self.settings()).args(["--json", "serve"]);
        without_own_variables(&mut command);
        // A group of its own: a Ctrl-C must not end the gateway before the demo has cleaned up.
        let mut child =
            command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().context("cannot run `/bin/sh`")?;
        let mut lines = BufReader::new(child.stdout.take().context("the gateway has no output")?).lines();
        let line = tokio::time::timeout(READY_WITHIN, lines.next_line()).await.context("the gateway is not ready in time")??;
        ensure!(line.is_some_and(|line| line.contains("\"ready\":true")), "the gateway did not start");
        self.child = Some(child);
        Ok(())
    }

    /// Stops the gateway in good order.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        drop(child.stdin.take());
        tokio::time::timeout(STOP_WITHIN, child.wait()).await.context("the gateway does not stop")??;
        Ok(())
    }

    pub(crate) fn settings(&self) -> PathBuf {
        self.folder.path().join("reprieve.toml")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("serve.log")).unwrap_or_default()
    }

    /// An operator's command, with a fresh code.
    pub(crate) async fn command(&self, person: &mut Person, arguments: &[&str], more: &[(&str, &str)]) -> anyhow::Result<Value> {
        let mut tried = 1;
        loop {
            let code = person.code().await?;
            let mut variables =
                vec![("REPRIEVE_PASSPHRASE", person.passphrase.as_str()), ("REPRIEVE_CODE", &code), ("REPRIEVE_OPERATOR", person.name)];
            variables.extend_from_slice(more);
            match self.json(arguments, &variables, "").await {
                // On a busy machine a code is too old before the command has come to use it.
                Err(error) if tried < CODE_ATTEMPTS && format!("{error:#}").contains("not authenticated") => tried += 1,
                answer => return answer,
            }
        }
    }

    /// Adds a second operator.
    pub(crate) async fn add_operator(&self, by: &mut Person, name: &'static str) -> anyhow::Result<Person> {
        let passphrase = new_passphrase();
        let made = self.command(by, &["operator", "add", name], &[("REPRIEVE_NEW_PASSPHRASE", &passphrase)]).await?;
        Person::new(name, passphrase, &made)
    }

    /// Adds an agent and answers its URL.
    pub(crate) async fn add_agent(&self, by: &mut Person, arguments: &[&str]) -> anyhow::Result<String> {
        let made = self.command(by, &[&["agent", "add"], arguments].concat(), &[]).await?;
        Ok(text(&made, "url")?.to_owned())
    }

    /// What is known about a hold.
    pub(crate) async fn hold(&self, id: HoldId) -> anyhow::Result<Held> {
        let shown = self.json(&["hold", "show", &id.to_string()], &[], "").await?;
        let hold = shown.get("hold").context("`hold show` shows no hold")?;
        let reach = hold.get("reach").filter(|reach| !reach.is_null()).context("the hold was not measured")?;
        let reach = serde_json::from_value(reach.clone()).context("the hold's reach can't be read")?;
        Ok(Held { reach, confirm: text(hold, "confirm")?.to_owned(), status: text(hold, "status")?.to_owned() })
    }

    /// `ledger verify` of this gateway's ledger, or of a copy: whether it verifies, and what it said.
    pub(crate) async fn verify(&self, settings: &Path) -> anyhow::Result<(bool, Value)> {
        let (succeeded, output) = self.run(settings, &["ledger", "verify"], &[], "").await?;
        let report: Value = serde_json::from_str(&output).with_context(|| format!("`ledger verify` said {output:?}"))?;
        let verified = report.get("verified").and_then(Value::as_bool).unwrap_or(false);
        ensure!(verified == succeeded, "the exit code and the report of `ledger verify` contradict each other: {output}");
        Ok((verified, report))
    }

    /// Makes a copy and tries it, while the story goes on.
    pub(crate) fn copy_and_try(&self, system: &'static str) -> JoinHandle<anyhow::Result<Trial>> {
        let (program, settings) = (self.program.clone(), self.settings());
        tokio::spawn(async move {
            let read = |(_, output): (bool, String)| serde_json::from_str(&output).with_context(|| format!("it said {output:?}"));
            let copy: Value = read(run(&program, &settings, &["backup", "now", system], &[], "").await?)?;
            let drill: Value = read(run(&program, &settings, &["drill", "run", system], &[], "").await?)?;
            let number = |value: &Value| value.as_u64().with_context(|| format!("a number is missing: {copy} {drill}"));
            let (report, checks) = (&drill["report"], drill["report"]["checks"].as_array().context("a drill without checks")?);
            Ok(Trial {
                plain_bytes: number(&copy["plain_bytes"])?,
                stored_bytes: number(&copy["stored_bytes"])?,
                copied_in: Duration::from_millis(number(&copy["ms"])?),
                passed: report["passed"] == true && !drill["recorded"]["index"].is_null(),
                checks: checks.len(),
                back_after: Duration::from_millis(number(&report["rto_ms"])?),
            })
        })
    }

    /// The time between the newest event of one kind and the newest of another, as the ledger has it.
    pub(crate) async fn ledger_time(&self, from: &str, to: &str) -> anyhow::Result<std::time::Duration> {
        let mut times = [0; 2];
        for (time, kind) in times.iter_mut().zip([from, to]) {
            let (_, output) = self.run(&self.settings(), &["ledger", "search", "--kind", kind, "--limit", "1"], &[], "").await?;
            let event: Value = serde_json::from_str(output.lines().next().unwrap_or_default()).context("the ledger has no such event")?;
            *time = event["at"].as_u64().context("an event without a time")?;
        }
        Ok(std::time::Duration::from_millis(times[1].saturating_sub(times[0])))
    }

    /// Runs a command that has to succeed.
    pub(crate) async fn json(&self, arguments: &[&str], variables: &[(&str, &str)], input: &str) -> anyhow::Result<Value> {
        let (succeeded, output) = self.run(&self.settings(), arguments, variables, input).await?;
        ensure!(succeeded, "`reprieve {}` failed: {output}", arguments.join(" "));
        serde_json::from_str(&output).with_context(|| format!("`reprieve {}` said {output:?}", arguments.join(" ")))
    }

    async fn run(&self, settings: &Path, arguments: &[&str], variables: &[(&str, &str)], input: &str) -> anyhow::Result<(bool, String)> {
        run(&self.program, settings, arguments, variables, input).await
    }
}

impl Drop for Gateway {
    /// A story that is broken off: the gateway ends before its folder goes.
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        drop(child.stdin.take());
        let deadline = Instant::now() + STOP_WITHIN;
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Person {
    fn new(name: &'static str, passphrase: String, made: &Value) -> anyhow::Result<Self> {
        Ok(Self { name, passphrase, factor: TotpSecret::from_base32(text(made, "totp_secret")?)?, last_step: 0 })
    }

    /// The next code that was not used yet; waits when all that are accepted now were.
    async fn code(&mut self) -> anyhow::Result<String> {
        loop {
            let now = now_ms()?;
            let earliest = (now + MARGIN_MS) / STEP_MS - 1; // the step before the present one still counts, if it does so long enough
            let step = earliest.max(self.last_step + 1);
            let valid_from = (step - 1) * STEP_MS;
            if now >= valid_from {
                self.last_step = step;
                return Ok(self.factor.code_at(Timestamp(step * STEP_MS)));
            }
            tokio::time::sleep(Duration::from_millis(valid_from - now)).await;
        }
    }

    /// The code an authenticator app would show now.
    pub(crate) fn code_now(&self) -> anyhow::Result<String> {
        Ok(self.factor.code_at(Timestamp(now_ms()?)))
    }

    /// How long until an authenticator app shows a code that the demo has not used.
    pub(crate) fn fresh_in(&self) -> anyhow::Result<Duration> {
        Ok(Duration::from_millis(((self.last_step + 1) * STEP_MS).saturating_sub(now_ms()?)))
    }

    /// The second factor's secret, for an authenticator app.
    pub(crate) fn secret(&self) -> String {
        self.factor.base32().to_string()
    }
}

/// Runs a command of this program: whether it succeeded, and what it said.
async fn run(
    program: &Path,
    settings: &Path,
    arguments: &[&str],
    variables: &[(&str, &str)],
    input: &str,
) -> anyhow::Result<(bool, String)> {
    let mut command = Command::new(program);
    command.arg("--config").arg(settings).arg("--json").args(arguments);
    without_own_variables(&mut command);
    command.envs(variables.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().context("cannot run this program")?;
    let mut stdin = child.stdin.take().context("the command has no input")?;
    // A command that needs no input may have closed it.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.context("cannot wait for the command")?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let complained = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok((output.status.success(), if said.is_empty() { complained } else { said }))
}

fn without_own_variables(command: &mut Command) {
    for name in OWN_VARIABLES {
        command.env_remove(name);
    }
}

fn new_passphrase() -> String {
    format!("demo-{:016x}", rand::random::<u64>())
}

fn now_ms() -> anyhow::Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_millis().try_into()?)
}

fn text<'a>(value: &'a Value, name: &str) -> anyhow::Result<&'a str> {
    value.get(name).and_then(Value::as_str).with_context(|| format!("there is no `{name}` in {value}"))
}
