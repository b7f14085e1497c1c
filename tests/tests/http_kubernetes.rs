//! A Kubernetes cluster behind the gateway, which alone has its client's certificate: `kubectl` and Python's client, set up by
//! `reprieve env` alone. The cluster is kmock's emulator; no real API server can be installed from a registry here.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result, ensure};
use reprieve_testkit::{EnvironmentBudget, Gateway, GatewayOptions, GuardedService, free_port};
use reprieve_tests::tools::{debian, python_with, said};
use serde_json::Value;
use tempfile::TempDir;

const CONFIG: &str = "/api/v1/namespaces/shop/configmaps/settings";

/// kmock's emulator. It ends when dropped.
struct Cluster {
    child: Child,
    port: u16,
    folder: TempDir,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Cluster {
    fn start(python: &Path) -> Result<Cluster> {
        let folder = tempfile::tempdir()?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/kubernetes_server.py");
        let mut child = Command::new(python).arg(script).arg(folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let port = lines.next().context("kmock does not start")??.trim().parse().context("no port")?;
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = asked.clone();
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| kept.lock().unwrap_or_else(PoisonError::into_inner).push(line)));
        Ok(Cluster { child, port, folder, asked })
    }

    /// What it was asked that is no read, in order.
    fn changes(&self) -> Vec<String> {
        thread::sleep(std::time::Duration::from_millis(300));
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|line| !line.to_uppercase().starts_with("GET ")).cloned().collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Python with its client and the emulator; `None` where they can't be installed.
fn python() -> Result<Option<PathBuf>> {
    python_with(Path::new(env!("CARGO_TARGET_TMPDIR")), "kubernetes", &["kmock==0.8", "kubernetes==37.*", "trustme==1.*"])
}

struct Stage {
    gateway: Gateway,
    cluster: Cluster,
    python: PathBuf,
}

impl Stage {
    /// `more`: of the system's settings.
    fn open(more: &str) -> Result<Option<Stage>> {
        let Some(python) = python()? else { return Ok(None) };
        let cluster = Cluster::start(&python)?;
        let folder = cluster.folder.path();
        let service = GuardedService {
            name: "shop".to_owned(),
            environment: "production".to_owned(),
            credential: std::fs::read_to_string(folder.join("client.pem"))?,
            presented: "certificate".to_owned(),
            settings: format!(
                "provider = \"kubernetes\"\nhosts = [\"cluster.example:6443\"]\nurl = \"https://127.0.0.1:{}\"\nca = \"{}\"\ndelay = \"0s\"\n{more}",
                cluster.port,
                folder.join("ca.pem").display()
            ),
        };
        let budget = EnvironmentBudget {
            environment: "production".to_owned(),
            rows_per_statement: 100,
            rows_per_transaction: 1_000,
            rows_per_hour: 10_000,
            relations_dropped: 5,
        };
        let options = GatewayOptions { services: vec![service], budgets: vec![budget], rows_without_undo: 0, ..GatewayOptions::default() };
        Ok(Some(Stage { gateway: Gateway::start(options)?, cluster, python }))
    }

    /// What `reprieve env` prints for a new agent.
    fn variables(&self, agent: &str) -> Result<Vec<(String, String)>> {
        let url = self.gateway.agent(agent, &["shop"], "read,write,destroy,grant")?;
        let token = url.split(['@', ':']).nth(2).context("no token")?.to_owned();
        let output = Command::new(reprieve_testkit::program()?)
            .args(["--json", "env", "--agent", agent])
            .current_dir(self.gateway.folder())
            .env("REPRIEVE_TOKEN", token)
            .output()?;
        ensure!(output.status.success(), "{}", said(&output));
        let told: Value = serde_json::from_slice(&output.stdout)?;
        let members = told.as_object().context("no variables")?;
        Ok(members.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect())
    }
}

fn kubectl(variables: &[(String, String)], home: &Path, arguments: &[&str]) -> Result<Option<Output>> {
    let Some((program, _)) = debian(Path::new(env!("CARGO_TARGET_TMPDIR")), "kubectl", &["kubernetes-client"])? else { return Ok(None) };
    let mut command = Command::new(program);
    command.args(arguments).args(["--request-timeout", "60s"]).envs(variables.iter().cloned()).env("HOME", home).stdin(Stdio::null());
    Ok(Some(command.output()?))
}

#[test]
fn kubectl_works_as_it_comes_and_is_held_where_it_destroys() -> Result<()> {
    // By the proxy, and at a listener of its own.
    for more in [String::new(), format!("listen = \"127.0.0.1:{}\"\n", free_port()?)] {
        let Some(stage) = Stage::open(&more)? else { return Ok(()) };
        let variables = stage.variables("cursor")?;
        let file = variables.iter().find(|(name, _)| name == "KUBECONFIG").context("no KUBECONFIG")?.1.clone();
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file)?) & 0o777;
        ensure!(mode == 0o600, "{file} has a token in it and mode {mode:o}");
        ensure!(!std::fs::read_to_string(&file)?.contains("PRIVATE KEY"), "it has the cluster's credential");
        let home = stage.cluster.folder.path();
        let run = |arguments: &[&str]| kubectl(&variables, home, arguments);
        // The emulator's list of the oldest resources is of a form that `kubectl` doesn't take; these are asked for by path.
        let Some(found) = run(&["get", "deployment", "web", "-n", "shop", "-o", "jsonpath={.spec.replicas}"])? else { return Ok(()) };
        ensure!(found.status.success() && said(&found).trim() == "2", "{}\n{}", said(&found), stage.gateway.log());
        let found = run(&["get", "--raw", CONFIG])?.context("no kubectl")?;
        ensure!(said(&found).contains("live"), "{}", said(&found));
        ensure!(stage.cluster.changes().is_empty(), "{:?}", stage.cluster.changes());
        // What takes things away for good, or runs programs, is held, and the tool shows so.
        for (what, arguments) in [
            ("a namespace", ["delete", "--raw", "/api/v1/namespaces/shop"].as_slice()),
            ("all of a kind", &["delete", "--raw", "/api/v1/namespaces/shop/configmaps"]),
            ("a node", &["delete", "--raw", "/api/v1/nodes/node-1"]),
            ("a program", &["create", "--raw", "/api/v1/namespaces/shop/pods/web-0/exec?command=rm", "-f", "/dev/null"]),
            ("a token", &["create", "--raw", "/api/v1/namespaces/shop/serviceaccounts/default/token", "-f", "/dev/null"]),
        ] {
            let held = run(arguments)?.context("no kubectl")?;
            ensure!(!held.status.success(), "{what}: {}", said(&held));
        }
        ensure!(stage.cluster.changes().is_empty(), "{:?}", stage.cluster.changes());
        ensure!(!stage.gateway.holds()?.is_empty(), "nothing was held");
        ensure!(stage.gateway.verify()?["verified"] == true, "the ledger does not verify");
    }
    Ok(())
}

#[test]
fn pythons_client_changes_what_comes_back_and_no_more() -> Result<()> {
    let Some(stage) = Stage::open(&format!("listen = \"127.0.0.1:{}\"\n", free_port()?))? else { return Ok(()) };
    let script = "from kubernetes import client, config\n\
        from kubernetes.client.rest import ApiException\n\
        config.load_kube_config()\n\
        core = client.CoreV1Api()\n\
        assert core.read_namespaced_config_map('settings', 'shop').data['mode'] == 'live'\n\
        def status(call, *arguments):\n\
        \x20   try: call(*arguments); return 200\n\
        \x20   except ApiException as error: return error.status\n\
        print(status(core.delete_namespaced_config_map, 'settings', 'shop'), status(core.delete_namespace, 'shop'),\n\
        \x20     status(core.create_namespaced_service_account_token, 'default', 'shop', {'apiVersion': 'authentication.k8s.io/v1', 'kind': 'TokenRequest', 'spec': {'audiences': []}}))\n";
    let output = Command::new(&stage.python).args(["-c", script]).envs(stage.variables("scripts")?).output()?;
    ensure!(said(&output).trim() == "200 403 403", "{}\n{:?}\n{}", said(&output), stage.cluster.changes(), stage.gateway.log());
    ensure!(stage.cluster.changes() == [format!("DELETE {CONFIG}")], "{:?}", stage.cluster.changes());
    // What was deleted comes back.
    let listed = stage.gateway.json(&["undo", "list", "--json"])?;
    let newest = listed["changes"][0]["id"].as_str().with_context(|| format!("{listed}"))?;
    stage.gateway.operate(&["undo", "apply", newest, "--reason", "it is still read"])?;
    let look = "from kubernetes import client, config\nconfig.load_kube_config()\n\
        print(client.CoreV1Api().read_namespaced_config_map('settings', 'shop').data['mode'])\n";
    let output = Command::new(&stage.python).args(["-c", look]).envs(stage.variables("look")?).output()?;
    ensure!(said(&output).trim() == "live", "{}", said(&output));
    Ok(())
}
