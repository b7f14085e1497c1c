//! The Docker command line against a real engine behind the gateway: Podman's service, which speaks Docker's API, with `DOCKER_HOST` as
//! `reprieve env` sets it. No container is started: not every machine that builds this lets one.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use reprieve_testkit::{EnvironmentBudget, Gateway, GatewayOptions, GuardedService};
use reprieve_tests::tools::{debian, said};
use serde_json::Value;
use tempfile::TempDir;

const PODMAN: [&str; 9] =
    ["podman", "conmon", "crun", "libgpgme11", "libassuan0", "libsubid4", "libyajl2", "netavark", "golang-github-containers-common"];

/// Podman's service over a folder of its own. It ends when dropped.
struct Podman {
    child: Child,
    socket: PathBuf,
    folder: TempDir,
}

impl Podman {
    /// `None`: it can't be installed here.
    fn start() -> Result<Option<Podman>> {
        let Some((program, root)) = debian(Path::new(env!("CARGO_TARGET_TMPDIR")), "podman", &PODMAN)? else { return Ok(None) };
        let folder = tempfile::Builder::new().prefix("reprieve-podman-").tempdir()?;
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("home/.config/containers"))?;
        fs::create_dir_all(at("run"))?;
        fs::set_permissions(at("run"), fs::Permissions::from_mode(0o700))?;
        fs::write(at("home/.config/containers/policy.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#)?;
        fs::write(
            at("storage.conf"),
            format!("[storage]\ndriver = \"vfs\"\nrunroot = \"{}\"\ngraphroot = \"{}\"\n", at("run").display(), at("store").display()),
        )?;
        let tool = |name: &str| {
            ["/usr/bin", "/usr/sbin"]
                .iter()
                .map(|place| Path::new(place).join(name))
                .find(|path| path.exists())
                .unwrap_or(root.join("usr/bin").join(name))
        };
        fs::write(
            at("containers.conf"),
            format!(
                "[engine]\nruntime = \"crun\"\nconmon_path = [\"{}\"]\nhelper_binaries_dir = [\"{}\"]\ncgroup_manager = \"cgroupfs\"\n\
                 events_logger = \"file\"\n[engine.runtimes]\ncrun = [\"{}\"]\n[network]\nnetwork_config_dir = \"{}\"\n",
                tool("conmon").display(),
                root.join("usr/lib/podman").display(),
                tool("crun").display(),
                at("net").display()
            ),
        )?;
        let socket = at("engine.sock");
        let child = Command::new(program)
            .args(["system", "service", "--time=0", &format!("unix://{}", socket.display())])
            .env("HOME", at("home"))
            .env("XDG_RUNTIME_DIR", at("run"))
            .env("LD_LIBRARY_PATH", root.join("usr/lib/x86_64-linux-gnu"))
            .env("CONTAINERS_CONF", at("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", at("storage.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(at("log"))?)
            .spawn()
            .context("cannot run podman")?;
        let podman = Podman { child, socket, folder };
        let until = Instant::now() + Duration::from_secs(60);
        while std::os::unix::net::UnixStream::connect(&podman.socket).is_err() {
            let log = fs::read_to_string(podman.folder.path().join("log")).unwrap_or_default();
            ensure!(Instant::now() < until, "podman does not start: {log}");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(Some(podman))
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn dockers_command_line_works_and_is_held_where_it_destroys() -> Result<()> {
    let Some((docker, _)) = debian(Path::new(env!("CARGO_TARGET_TMPDIR")), "docker", &["docker.io"])? else { return Ok(()) };
    let Some(podman) = Podman::start()? else { return Ok(()) };
    let run = |host: &str, arguments: &[&str]| -> Result<Output> {
        let mut command = Command::new(&docker);
        command.args(arguments).env("DOCKER_HOST", host).env("DOCKER_CONFIG", podman.folder.path()).stdin(Stdio::null());
        command.output().context("cannot run docker")
    };
    let owner_host = format!("unix://{}", podman.socket.display());
    let owner = |arguments: &[&str]| run(&owner_host, arguments);
    let budget = EnvironmentBudget {
        environment: "production".to_owned(),
        rows_per_statement: 100,
        rows_per_transaction: 1_000,
        rows_per_hour: 10_000,
        relations_dropped: 5,
    };
    let service = GuardedService {
        name: "engine".to_owned(),
        environment: "production".to_owned(),
        credential: String::new(),
        presented: String::new(),
        settings: format!("provider = \"docker\"\nurl = \"unix:{}\"\nlisten = \"unix:engine\"\ndelay = \"0s\"\n", podman.socket.display()),
    };
    let gateway = Gateway::start(GatewayOptions { services: vec![service], budgets: vec![budget], ..GatewayOptions::default() })?;
    let url = gateway.agent("cursor", &["engine"], "read,write,destroy,grant")?;
    let told = Command::new(reprieve_testkit::program()?)
        .args(["--json", "env", "--agent", "cursor"])
        .current_dir(gateway.folder())
        .env("REPRIEVE_TOKEN", url.split(['@', ':']).nth(2).context("no token")?)
        .output()?;
    let told: Value = serde_json::from_slice(&told.stdout).with_context(|| said(&told))?;
    let host = told["DOCKER_HOST"].as_str().context("no DOCKER_HOST")?.to_owned();
    let until = Instant::now() + Duration::from_secs(30);
    while !Path::new(host.trim_start_matches("unix://")).exists() {
        ensure!(Instant::now() < until, "no socket:\n{}", gateway.log());
        thread::sleep(Duration::from_millis(50));
    }
    let agent = |arguments: &[&str]| run(&host, arguments);

    let version = agent(&["version"])?;
    ensure!(version.status.success() && said(&version).contains("Podman"), "{}", said(&version));
    owner(&["volume", "create", "--label", "environment=production", "pocket-db"])?;
    let made = agent(&["volume", "create", "scratch"])?;
    ensure!(made.status.success(), "{}", said(&made));
    let listed = agent(&["volume", "ls", "--quiet"])?;
    ensure!(said(&listed).contains("scratch") && said(&listed).contains("pocket-db"), "{}", said(&listed));
    // What comes for a while is passed on as it comes.
    let events = agent(&["events", "--since", "1h", "--until", "0s"])?;
    ensure!(events.status.success(), "{}", said(&events));

    let removed = agent(&["volume", "rm", "pocket-db"])?;
    ensure!(!removed.status.success() && said(&removed).contains("held"), "{}", said(&removed));
    let hold = gateway.wait_for_hold("cursor", "/volumes/pocket-db")?;
    ensure!(hold["confirm"] == "pocket-db", "{hold}");
    ensure!(hold["reach"]["found"][0]["name"] == "pocket-db" && hold["reach"]["found"][0]["environment"] == "production", "{hold}");
    for arguments in [
        ["volume", "prune", "--all", "--force"].as_slice(),
        &["system", "prune", "--volumes", "--force"],
        &["volume", "rm", "--force", "pocket-db"],
        &["volume", "create", "--driver", "local", "--opt", "type=none", "--opt", "o=bind", "--opt", "device=/", "whole"],
    ] {
        let refused = agent(arguments)?;
        ensure!(said(&refused).contains("held") || !refused.status.success(), "{arguments:?}: {}", said(&refused));
    }
    let there = owner(&["volume", "ls", "--quiet"])?;
    ensure!(said(&there).contains("pocket-db") && said(&there).contains("scratch") && !said(&there).contains("whole"), "{}", said(&there));

    // Approved, it is carried out once, by the gateway itself.
    let id = hold["id"].as_str().context("no hold")?;
    gateway.approve_as_asked(id)?;
    gateway.wait_for_status(id, "finished")?;
    let there = owner(&["volume", "ls", "--quiet"])?;
    ensure!(!said(&there).contains("pocket-db") && said(&there).contains("scratch"), "{}", said(&there));
    ensure!(gateway.verify()?["verified"] == true, "the ledger does not verify");
    Ok(())
}
