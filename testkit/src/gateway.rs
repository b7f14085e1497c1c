//! A throw-away gateway: the real program in a temporary folder on free loopback ports.
//!
//! It is used from outside only: its command line, its listeners, its files. A small shell stands between us and it, as with
//! [`crate::Postgres`], so that it ends with the process that started it, however that ends.
//! Second factors are in `operators.rs`, the program is found in `program.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::operators::Operators;
use crate::port::free_port;
use crate::program::program;

const START_WITHIN: Duration = Duration::from_secs(60);
const PORT_ATTEMPTS: u32 = 5;
const PASSPHRASE: &str = "correct horse battery staple";

/// Runs the gateway named by its arguments; a line on its input means "stop, keep the files", an end of input "stop, drop them".
const WATCHDOG: &str = r#"
folder=$1; shift
"$@" </dev/null >"$folder/serve.out" 2>>"$folder/serve.log" &
gateway=$!
echo "$gateway" >"$folder/serve.pid.new" && mv "$folder/serve.pid.new" "$folder/serve.pid"
if read -r _; then keep=yes tries=650; else keep= tries=150; fi
kill -TERM "$gateway" 2>/dev/null
while readlink "/proc/$gateway/exe" >/dev/null && [ "$tries" -gt 0 ]; do sleep 0.02; tries=$((tries - 1)); done
kill -KILL "$gateway" 2>/dev/null
wait "$gateway"
[ -n "$keep" ] || rm -rf "$folder"
exit 0
"#;

/// One database behind the gateway.
#[derive(Clone, Debug)]
pub struct GuardedSystem {
    /// The name agents connect to.
    pub name: String,
    /// Its environment, such as `production`.
    pub environment: String,
    /// The URL with the credentials that only the gateway knows.
    pub url: String,
    /// The URL that `protect` logs in with, if it is another one.
    pub admin_url: Option<String>,
    /// Rows up to which an unbounded change is run to be measured; the program's default if `None`.
    pub measure_limit: Option<u64>,
    /// Whether changes wait for the vault.
    pub strict: bool,
    /// Lets agents in although what the role behind `url` does can't be bounded.
    pub unbounded_role: bool,
    /// More of its settings, as TOML.
    pub settings: String,
}

impl GuardedSystem {
    /// A system with the default limit of measuring.
    pub fn new(name: &str, environment: &str, url: &str) -> GuardedSystem {
        GuardedSystem {
            name: name.to_owned(),
            environment: environment.to_owned(),
            url: url.to_owned(),
            admin_url: None,
            measure_limit: None,
            strict: false,
            unbounded_role: false,
            settings: String::new(),
        }
    }
}

/// One service behind the gateway's proxy.
#[derive(Clone, Debug)]
pub struct GuardedService {
    /// Its name.
    pub name: String,
    /// Its environment.
    pub environment: String,
    /// The credential that only the gateway knows.
    pub credential: String,
    /// How it is presented, such as `bearer`; empty where there is none.
    pub presented: String,
    /// Everything else, as TOML: `provider`, `hosts`, `url`, `ca`, …
    pub settings: String,
}

/// What agents may change in an environment without a person being asked.
#[derive(Clone, Debug)]
pub struct EnvironmentBudget {
    /// The environment.
    pub environment: String,
    /// Rows one statement may change.
    pub rows_per_statement: u64,
    /// Rows one transaction may change.
    pub rows_per_transaction: u64,
    /// Rows one agent may change in an hour.
    pub rows_per_hour: u64,
    /// Relations one transaction may drop or empty.
    pub relations_dropped: u64,
}

/// How a gateway is set up.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// The first operator.
    pub operator: String,
    /// What it guards.
    pub systems: Vec<GuardedSystem>,
    /// Services that it guards besides.
    pub services: Vec<GuardedService>,
    /// How long a client waits for people: `1s`.
    pub wait: String,
    /// When a hold that nobody answers is denied: `72h`.
    pub expire: String,
    /// Open holds of one agent.
    pub open_holds: usize,
    /// `observe`, `guard` or `lockdown`.
    pub profile: String,
    /// Budgets; environments that are not listed have the program's defaults.
    pub budgets: Vec<EnvironmentBudget>,
    /// Rows that may change although they can't be brought back: plenty, because most tests are not about undo.
    pub rows_without_undo: u64,
    /// Own policies, as file names ending in `.cedar` and texts.
    pub policies: Vec<(String, String)>,
    /// More settings, as TOML.
    pub settings: String,
    /// What the program finds in its environment besides.
    pub environment: Vec<(String, String)>,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        GatewayOptions {
            operator: "ana".to_owned(),
            systems: Vec::new(),
            services: Vec::new(),
            wait: "1s".to_owned(),
            expire: "72h".to_owned(),
            open_holds: 20,
            profile: "guard".to_owned(),
            budgets: Vec::new(),
            rows_without_undo: 1_000_000_000,
            policies: Vec::new(),
            settings: String::new(),
            environment: Vec::new(),
        }
    }
}

/// A running gateway that stops and vanishes when dropped.
#[derive(Debug)]
pub struct Gateway {
    program: PathBuf,
    options: GatewayOptions,
    ports: (u16, u16, u16),
    // Locked while a command of an operator runs: codes are used in order.
    operators: Mutex<Operators>,
    watchdog: Option<Child>,
    // Last, so that the folder goes after the program.
    folder: TempDir,
}

impl Gateway {
    /// Makes keys and settings in a new folder, and serves.
    pub fn start(options: GatewayOptions) -> Result<Gateway> {
        let folder = tempfile::Builder::new().prefix("reprieve-gateway-").tempdir().context("cannot make a folder")?;
        let operators = Mutex::new(Operators::default());
        let mut gateway = Gateway { program: program()?, options, ports: (0, 0, 0), operators, watchdog: None, folder };
        gateway.write_settings()?;
        let first = gateway.options.operator.clone();
        let made = gateway.json(&["init", "--operator", &first, "--json"])?;
        let secret = made["totp_secret"].as_str().context("`init` told no second factor")?;
        gateway.operators.get_mut().map_err(|_| poisoned())?.add(&first, secret)?;
        for (name, text) in &gateway.options.policies {
            fs::write(gateway.folder().join("policies").join(name), text).with_context(|| format!("cannot write `{name}`"))?;
        }
        for attempt in 1..=PORT_ATTEMPTS {
            match gateway.launch() {
                Ok(()) => return Ok(gateway),
                // Somebody took the port between our look and the program's.
                Err(error) if attempt < PORT_ATTEMPTS && format!("{error:#}").contains("cannot listen") => {
                    gateway.halt()?;
                    gateway.write_settings()?;
                }
                Err(error) => return Err(error),
            }
        }
        bail!("no free ports in {PORT_ATTEMPTS} attempts")
    }

    /// The folder with its settings, keys and ledger.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The port agents connect to.
    pub fn port(&self) -> u16 {
        self.ports.0
    }

    /// The port of the agents' proxy.
    pub fn proxy_port(&self) -> u16 {
        self.ports.2
    }

    /// The certificate of the authority that agents' tools trust, as a PEM file.
    pub fn authority_file(&self) -> PathBuf {
        self.folder().join("keys/ca.crt")
    }

    /// The gateway's certificate, as a PEM file.
    pub fn certificate_file(&self) -> PathBuf {
        self.folder().join("keys/tls.crt")
    }

    /// Where browsers find its console.
    pub fn console(&self) -> String {
        format!("https://localhost:{}", self.ports.1)
    }

    /// The one-time link that it printed at its last start.
    pub fn enrolment_link(&self) -> Result<String> {
        let text = fs::read_to_string(self.folder().join("serve.out")).context("the gateway printed nothing")?;
        let ready: Value = serde_json::from_str(text.lines().next().unwrap_or_default()).context("its first line is not JSON")?;
        ready["enrol"]["link"].as_str().map(str::to_owned).context("nobody is invited")
    }

    /// The next free code of an operator's second factor. Waits for one if need be.
    pub fn code(&self, operator: &str) -> Result<String> {
        self.operators.lock().map_err(|_| poisoned())?.code_of(operator)
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        fs::read(self.folder().join("serve.log")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The process that serves.
    pub fn process_id(&self) -> Result<u32> {
        let text = fs::read_to_string(self.folder().join("serve.pid")).context("the gateway has no process")?;
        text.trim().parse().context("the watchdog wrote no process id")
    }

    /// The memory it has now (`VmRSS`), in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process_id()?)).context("the gateway does not run")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("its status tells no memory")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().context("its memory is no number")?;
        Ok(kilobytes * 1024)
    }

    /// A new agent that may reach `systems`; `allow` as in `read,write,destroy,grant`. Returns its URL for the first of them.
    pub fn agent(&self, name: &str, systems: &[&str], allow: &str) -> Result<String> {
        self.agent_with(name, systems, allow, &[])
    }

    /// The same with more arguments, such as `--on-behalf-of ana`.
    pub fn agent_with(&self, name: &str, systems: &[&str], allow: &str, more: &[&str]) -> Result<String> {
        let mut arguments = vec!["agent", "add", name, "--allow", allow];
        for system in systems {
            arguments.extend(["--system", system]);
        }
        arguments.extend(more);
        let answer = self.operate(&arguments)?;
        answer["url"].as_str().map(str::to_owned).with_context(|| format!("`agent add` told no URL: {answer}"))
    }

    /// An agent's URL for another system.
    pub fn url_for(&self, url: &str, system: &str) -> String {
        let before = url.rsplit_once('/').map_or(url, |(before, _)| before);
        format!("{before}/{system}")
    }

    /// Approves a hold as an operator the agent does not act for, with the confirmation given.
    pub fn approve(&self, hold: &str, confirm: &str) -> Result<Value> {
        let own = self.hold(hold)?["on_behalf_of"].as_str().map(str::to_owned);
        self.operate_but(own.as_deref(), &["hold", "approve", hold, "--confirm", confirm])
    }

    /// Approves a hold with the name it asks for.
    pub fn approve_as_asked(&self, hold: &str) -> Result<Value> {
        let confirm = self.hold(hold)?["confirm"].as_str().context("the hold asks for no name")?.to_owned();
        self.approve(hold, &confirm)
    }

    /// Denies a hold.
    pub fn deny(&self, hold: &str, reason: &str) -> Result<Value> {
        self.operate(&["hold", "deny", hold, "--reason", reason])
    }

    /// Every hold, newest first. Each has its id as people write it, `H-17`, in `id`.
    pub fn holds(&self) -> Result<Vec<Value>> {
        let answer = self.json(&["hold", "list", "--all", "--json"])?;
        let holds = answer["holds"].as_array().context("`hold list` told no holds")?;
        Ok(holds.iter().cloned().map(with_id).collect())
    }

    /// One hold.
    pub fn hold(&self, hold: &str) -> Result<Value> {
        Ok(with_id(self.json(&["hold", "show", hold, "--json"])?["hold"].clone()))
    }

    /// Waits until a hold of `agent` is open whose text contains `part`, and returns it.
    pub fn wait_for_hold(&self, agent: &str, part: &str) -> Result<Value> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let found = self.holds()?.into_iter().find(|hold| {
                hold["agent"] == agent && hold["status"] == "waiting" && hold["text"].as_str().is_some_and(|text| text.contains(part))
            });
            if let Some(hold) = found {
                return Ok(hold);
            }
            ensure!(Instant::now() < deadline, "no hold of `{agent}` with {part:?} was opened:\n{}", self.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a hold has a status, such as `finished`.
    pub fn wait_for_status(&self, hold: &str, status: &str) -> Result<Value> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let now = self.hold(hold)?;
            if now["status"] == status {
                return Ok(now);
            }
            ensure!(Instant::now() < deadline, "{hold} is {} and not {status}:\n{}", now["status"], self.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Approves what is held, and what it is held for anew as measured (a CASCADE reaches further than the estimate), until it has run.
    pub fn approve_until_done(&self) -> Result<()> {
        let mut ended = Value::Null;
        for _ in 0..6 {
            let deadline = Instant::now() + Duration::from_secs(20);
            // A run ends a moment before the next hold is opened.
            let waiting = loop {
                let waiting = self.holds()?.into_iter().find(|hold| hold["status"] == "waiting");
                if waiting.is_some() || Instant::now() > deadline {
                    break waiting;
                }
                thread::sleep(Duration::from_millis(100));
            };
            let hold = waiting.with_context(|| format!("nothing is held; before: {ended}\n{}", self.log()))?;
            let hold = hold["id"].as_str().context("an id")?;
            self.approve_as_asked(hold)?;
            ended = self.wait_for_status(hold, "finished")?;
            if ended["succeeded"] == true {
                return Ok(());
            }
        }
        bail!("it is held again and again: {ended}")
    }

    /// Freezes one agent, or all.
    pub fn freeze(&self, agent: Option<&str>) -> Result<Value> {
        self.json(&["freeze", agent.unwrap_or("--all"), "--json"])
    }

    /// Thaws one agent, or all.
    pub fn thaw(&self, agent: Option<&str>) -> Result<Value> {
        self.operate(&["thaw", agent.unwrap_or("--all"), "--reason", "looked into it"])
    }

    /// Checks the whole ledger.
    pub fn verify(&self) -> Result<Value> {
        self.json(&["ledger", "verify", "--json"])
    }

    /// Every event, in order.
    pub fn events(&self) -> Result<Vec<Value>> {
        let output = self.cli(&["ledger", "export"])?;
        ensure!(output.status.success(), "`ledger export` failed: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).context("`ledger export` printed something that is not UTF-8")?;
        text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))).collect()
    }

    /// Runs the program with the gateway's settings and no operator's secrets.
    pub fn cli(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments).output().context("cannot run the program")
    }

    /// Runs a command that prints one JSON line, which is returned. An exit code other than 0 is an error.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = self.command(arguments);
        if arguments.first() == Some(&"init") {
            command.env("REPRIEVE_PASSPHRASE", PASSPHRASE);
        }
        answer_of(&command.output().context("cannot run the program")?, arguments)
    }

    /// Runs a command that needs an operator, with the next free code of any of them. Makes another operator when codes run out.
    pub fn operate(&self, arguments: &[&str]) -> Result<Value> {
        self.operate_but(None, arguments)
    }

    /// Runs a command as this operator, who is made if there is none of that name. Waits for a code if need be.
    pub fn operate_as(&self, operator: &str, arguments: &[&str]) -> Result<Value> {
        let mut operators = self.operators.lock().map_err(|_| poisoned())?;
        if !operators.has(operator) {
            self.enrol(&mut operators, operator)?;
        }
        let code = operators.code_of(operator)?;
        self.with_code(operator, &code, arguments)
    }

    fn operate_but(&self, not: Option<&str>, arguments: &[&str]) -> Result<Value> {
        let mut operators = self.operators.lock().map_err(|_| poisoned())?;
        if operators.codes_left(not) <= 1 {
            let name = operators.fresh_name();
            self.enrol(&mut operators, &name)?;
        }
        let (operator, code) = operators.code(not)?;
        self.with_code(&operator, &code, arguments)
    }

    fn enrol(&self, operators: &mut Operators, name: &str) -> Result<()> {
        let (by, code) = operators.code(None)?;
        let made = self.with_code(&by, &code, &["operator", "add", name])?;
        operators.add(name, made["totp_secret"].as_str().context("`operator add` told no second factor")?)
    }

    fn with_code(&self, operator: &str, code: &str, arguments: &[&str]) -> Result<Value> {
        let mut command = self.command(arguments);
        command.args(["--json", "--as", operator]).env("REPRIEVE_PASSPHRASE", PASSPHRASE).env("REPRIEVE_CODE", code);
        answer_of(&command.output().context("cannot run the program")?, arguments)
    }

    /// Kills it without notice.
    pub fn kill_now(&mut self) -> Result<()> {
        let id = self.process_id()?.to_string();
        let status = Command::new("kill").args(["-KILL", &id]).status().context("cannot run `kill`")?;
        ensure!(status.success(), "process {id} could not be killed");
        self.halt()
    }

    /// Stops it as an operator would, and keeps its files.
    pub fn stop(&mut self) -> Result<()> {
        self.halt()
    }

    /// Adds settings, as TOML of tables that it has not yet, and starts it again.
    pub fn add_settings(&mut self, text: &str) -> Result<()> {
        let file = self.folder().join("reprieve.toml");
        let before = fs::read_to_string(&file).context("cannot read the settings")?;
        fs::write(
            &file,
            format!(
                "{before}
{text}"
            ),
        )
        .context("cannot write the settings")?;
        self.restart()
    }

    /// Starts it again after [`Gateway::kill_now`] or [`Gateway::stop`]; stops it first if it runs. Same ports.
    pub fn restart(&mut self) -> Result<()> {
        self.halt()?;
        self.launch()
    }

    /// A command of the program's that is not run yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        self.prepare(&mut command);
        command.args(arguments);
        command
    }

    /// The folder, and the systems' URLs under the names that the settings use.
    fn prepare(&self, command: &mut Command) {
        command.current_dir(self.folder());
        for name in ["REPRIEVE_PASSPHRASE", "REPRIEVE_CODE", "REPRIEVE_OPERATOR", "REPRIEVE_CONFIG"] {
            command.env_remove(name);
        }
        for (name, value) in &self.options.environment {
            command.env(name, value);
        }
        for (number, system) in self.options.systems.iter().enumerate() {
            command.env(format!("GUARDED_{number}_URL"), &system.url);
            if let Some(url) = &system.admin_url {
                command.env(format!("GUARDED_{number}_ADMIN_URL"), url);
            }
        }
        for (number, service) in self.options.services.iter().enumerate() {
            command.env(format!("GUARDED_SERVICE_{number}"), &service.credential);
        }
    }

    fn write_settings(&mut self) -> Result<()> {
        self.ports = (free_port()?, free_port()?, free_port()?);
        let (agents, people, proxy) = self.ports;
        let GatewayOptions {
            operator: _,
            systems,
            services,
            wait,
            expire,
            open_holds,
            profile,
            budgets,
            rows_without_undo,
            policies: _,
            settings,
            environment: _,
        } = &self.options;
        let mut text = format!(
            "[listen]\npostgres = \"127.0.0.1:{agents}\"\nhttp = \"127.0.0.1:{proxy}\"\noperators = \"127.0.0.1:{people}\"\n\
             [policy]\nprofile = \"{profile}\"\n[hold]\nwait = \"{wait}\"\nexpire = \"{expire}\"\nopen = {open_holds}\n"
        );
        let environments: BTreeSet<&String> = systems
            .iter()
            .map(|system| &system.environment)
            .chain(services.iter().map(|service| &service.environment))
            .chain(budgets.iter().map(|budget| &budget.environment))
            .collect();
        for environment in environments {
            text += &format!("[budget.{environment}]\nrows_without_undo = {rows_without_undo}\n");
            if let Some(budget) = budgets.iter().find(|budget| budget.environment == *environment) {
                text += &format!(
                    "rows_per_statement = {}\nrows_per_transaction = {}\nrows_per_hour = {}\nrelations_dropped = {}\n",
                    budget.rows_per_statement, budget.rows_per_transaction, budget.rows_per_hour, budget.relations_dropped
                );
            }
        }
        text += settings;
        for (number, system) in systems.iter().enumerate() {
            let GuardedSystem { name, environment, url: _, admin_url, measure_limit, strict, unbounded_role, settings } = system;
            text += &format!(
                "[[system]]\nname = \"{name}\"\nkind = \"postgres\"\nenvironment = \"{environment}\"\nurl = \"env:GUARDED_{number}_URL\"\n"
            );
            if admin_url.is_some() {
                text += &format!("admin = \"env:GUARDED_{number}_ADMIN_URL\"\n");
            }
            if let Some(rows) = measure_limit {
                text += &format!("measure_limit = {rows}\n");
            }
            if *strict {
                text += "strict = true\n";
            }
            if *unbounded_role {
                text += "run_with_unbounded_role = true\n";
            }
            text += settings;
            text += "\n";
        }
        for (number, service) in services.iter().enumerate() {
            let GuardedService { name, environment, credential: _, presented, settings } = service;
            text += &format!("[[system]]\nname = \"{name}\"\nkind = \"http\"\nenvironment = \"{environment}\"\n");
            if !presented.is_empty() {
                text += &format!("credential = \"env:GUARDED_SERVICE_{number}\"\nas = \"{presented}\"\n");
            }
            text += &format!("{settings}\n");
        }
        fs::write(self.folder().join("reprieve.toml"), text).context("cannot write the settings")
    }

    fn launch(&mut self) -> Result<()> {
        let folder = self.folder().to_owned();
        for name in ["serve.pid", "serve.out"] {
            // Left by an earlier run, or not there.
            let _ = fs::remove_file(folder.join(name));
        }
        let logged = self.log().len();
        let mut command = Command::new("/bin/sh");
        self.prepare(&mut command);
        let watchdog = command
            .args(["-c", WATCHDOG, "reprieve-gateway"])
            .arg(&folder)
            .arg(&self.program)
            .args(["serve", "--json"])
            // A signal sent to our terminal must not take the watchdog before its work.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run `/bin/sh`")?;
        self.watchdog = Some(watchdog);
        let deadline = Instant::now() + START_WITHIN;
        loop {
            let said = fs::read_to_string(folder.join("serve.out")).unwrap_or_default();
            if said.contains("\"ready\":true") && folder.join("serve.pid").exists() {
                return Ok(());
            }
            let log = self.log();
            let new = format!("{said}{}", log.get(logged..).unwrap_or_default());
            ensure!(!said.contains("\"error\""), "the gateway did not start:\n{new}");
            ensure!(Instant::now() < deadline, "the gateway is not ready after {START_WITHIN:?}:\n{new}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn halt(&mut self) -> Result<()> {
        let Some(mut watchdog) = self.watchdog.take() else { return Ok(()) };
        let input = watchdog.stdin.as_mut().context("the watchdog has no input")?;
        input.write_all(b"keep\n").context("the watchdog is gone")?;
        watchdog.wait().context("cannot wait for the watchdog")?;
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(mut watchdog) = self.watchdog.take() {
            // Waiting closes the pipe first, which is the watchdog's signal; it ends by itself in any case.
            let _ = watchdog.wait();
        }
    }
}

fn answer_of(output: &Output, arguments: &[&str]) -> Result<Value> {
    let said = String::from_utf8_lossy(&output.stdout);
    let shown = arguments.join(" ");
    ensure!(
        output.status.success(),
        "`reprieve {shown}` ended with {}: {} {}",
        output.status,
        said.trim(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    serde_json::from_str(said.trim()).with_context(|| format!("`reprieve {shown}` printed no JSON: {said}"))
}

/// Adds the hold's id as the command line takes it.
fn with_id(mut hold: Value) -> Value {
    hold["id"] = Value::from(format!("H-{}", hold["hold"]));
    hold
}

fn poisoned() -> anyhow::Error {
    anyhow::anyhow!("a test died while it used an operator's code")
}
