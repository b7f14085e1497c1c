//! `reprieve env`: what a shell needs so that an agent's tools go through the gateway.
//!
//! Which tool obeys which variable was measured; docs/http.md has the table. Nothing here gives an agent more than its token does.

use std::{fs, net::SocketAddr, os::unix::fs::OpenOptionsExt as _, path::PathBuf};

use anyhow::{Context as _, bail};
use reprieve_operation::{AgentName, Token};
use serde_json::json;

use crate::{
    args::Cli,
    keys::Keys,
    ledger::read_state,
    settings::{Listener, Settings, System},
};

/// The variables that name a file with trusted authorities.
const AUTHORITY: [&str; 12] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "AWS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "CARGO_HTTP_CAINFO",
    "DENO_CERT",
    "PIP_CERT",
    "NIX_SSL_CERT_FILE",
    "BUNDLE_SSL_CA_CERT",
];

/// The variables that name the proxy. Each program reads another spelling.
const PROXY: [&str; 6] = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];

/// What stands where a credential is wanted: it is worth nothing, and the gateway takes it off.
const PLACEHOLDER: &str = "reprieve-puts-the-real-one-on";

/// By provider: variables without which its tools don't start.
const CREDENTIALS: [(&str, &[&str]); 12] = [
    ("railway", &["RAILWAY_API_TOKEN"]),
    ("aws", &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]),
    ("github", &["GH_TOKEN", "GITHUB_TOKEN"]),
    ("cloudflare", &["CLOUDFLARE_API_TOKEN"]),
    ("digitalocean", &["DIGITALOCEAN_ACCESS_TOKEN", "DIGITALOCEAN_TOKEN"]),
    ("vercel", &["VERCEL_TOKEN"]),
    ("neon", &["NEON_API_KEY"]),
    ("supabase", &["SUPABASE_ACCESS_TOKEN"]),
    ("heroku", &["HEROKU_API_KEY"]),
    ("fly", &["FLY_API_TOKEN"]),
    ("stripe", &["STRIPE_API_KEY"]),
    ("hetzner", &["HCLOUD_TOKEN"]),
];

pub(crate) fn environment(cli: &Cli, settings: &Settings, agent: &AgentName) -> anyhow::Result<u8> {
    if settings.services().next().is_none() {
        bail!("no system of the settings is of the kind `http`");
    }
    let text = std::env::var("REPRIEVE_TOKEN").context("put the agent's token into REPRIEVE_TOKEN: `reprieve agent add` shows it, once")?;
    let token = Token::parse(text.trim())?;
    let state = read_state(settings)?;
    let known = state.agents.get(agent).filter(|known| !known.decoy).with_context(|| format!("there is no agent `{agent}`"))?;
    if known.digest != token.digest() {
        bail!("the token in REPRIEVE_TOKEN is not the one of `{agent}`");
    }
    if known.revoked {
        bail!("the token of `{agent}` was revoked");
    }
    let listen = &settings.listen;
    let host = listen.host.clone().unwrap_or_else(|| listen.http.ip().to_string());
    let scheme = if listen.http.ip().is_loopback() { "http" } else { "https" };
    let proxy = format!("{scheme}://{agent}:{}@{host}:{}", token.reveal(), listen.http.port());
    let bundle = bundle(settings)?.display().to_string();
    let mut variables: Vec<(&str, String)> = PROXY.iter().map(|name| (*name, proxy.clone())).collect();
    // What was excepted before would go past the gateway; its own listeners are no proxy's matter.
    let own = settings.services().filter_map(|system| match &system.listen {
        Some(Listener::Address(address)) => Some(format!("{}:{}", own_host(settings, address), address.port())),
        Some(Listener::Folder(_)) | None => None,
    });
    let own = own.collect::<Vec<_>>().join(",");
    variables.extend(["NO_PROXY", "no_proxy"].map(|name| (name, own.clone())));
    variables.extend(AUTHORITY.map(|name| (name, bundle.clone())));
    variables.push(("NODE_USE_ENV_PROXY", "1".to_owned()));
    let provided = |provider: &str| {
        let covered = |system: &&crate::settings::System| known.scope.systems.contains(&system.name);
        settings.services().filter(covered).any(|system| system.provider.as_deref() == Some(provider))
    };
    for (_, names) in CREDENTIALS.iter().filter(|(provider, _)| provided(provider)) {
        variables.extend(names.iter().map(|name| (*name, PLACEHOLDER.to_owned())));
    }
    let covered = || settings.services().filter(|system| known.scope.systems.contains(&system.name));
    let of = |provider: &'static str| covered().filter(move |system| system.provider.as_deref() == Some(provider));
    // Docker's tools know one place only.
    if let Some(Listener::Folder(folder)) = of("docker").find_map(|system| system.listen.as_ref()) {
        let socket = std::path::absolute(settings.path(folder))?.join(format!("{agent}.sock"));
        variables.push(("DOCKER_HOST", format!("unix://{}", socket.display())));
    }
    if of("kubernetes").next().is_some() {
        let path = kubeconfig(settings, agent, &of("kubernetes").collect::<Vec<_>>(), token.reveal(), &proxy, &bundle)?;
        variables.push(("KUBECONFIG", path.display().to_string()));
    }
    if cli.json {
        tell!("{}", json!(variables.into_iter().collect::<std::collections::BTreeMap<_, _>>()));
        return Ok(0);
    }
    for (name, value) in variables {
        tell!("export {name}={}", quoted(&value));
    }
    Ok(0)
}

/// What agents call a listener of this gateway.
fn own_host(settings: &Settings, address: &SocketAddr) -> String {
    settings.listen.host.clone().unwrap_or_else(|| if address.is_ipv6() { format!("[{}]", address.ip()) } else { address.ip().to_string() })
}

/// Clusters as `kubectl` and its like find them. The file has the agent's token in it, so it is its owner's only.
fn kubeconfig(
    settings: &Settings,
    agent: &AgentName,
    systems: &[&System],
    token: &str,
    proxy: &str,
    bundle: &str,
) -> anyhow::Result<PathBuf> {
    let named = |name: &str, what: &str, value: serde_json::Value| json!({ "name": name, what: value });
    let (mut clusters, mut users, mut contexts) = (Vec::new(), Vec::new(), Vec::new());
    for system in systems {
        let name = system.name.as_str();
        let (cluster, token) = match &system.listen {
            Some(Listener::Address(address)) => {
                let host = own_host(settings, address);
                (json!({ "server": format!("https://{host}:{}", address.port()), "certificate-authority": bundle }), token)
            }
            Some(Listener::Folder(_)) | None => {
                let host = system.hosts.iter().find(|host| !host.starts_with('*'));
                let server = host.map_or_else(|| system.url.clone(), |host| format!("https://{host}"));
                (json!({ "server": server, "certificate-authority": bundle, "proxy-url": proxy }), PLACEHOLDER)
            }
        };
        clusters.push(named(name, "cluster", cluster));
        users.push(named(name, "user", json!({ "token": token })));
        contexts.push(named(name, "context", json!({ "cluster": name, "user": name })));
    }
    let first = systems.first().map(|system| system.name.as_str());
    // JSON is YAML.
    let config = json!({ "apiVersion": "v1", "kind": "Config", "clusters": clusters, "users": users, "contexts": contexts, "current-context": first });
    let path = std::path::absolute(settings.folder.join(format!("kubeconfig-{agent}.json")))?;
    let new = path.with_extension("new");
    // Left by one that was cut off.
    let _none = fs::remove_file(&new);
    crate::keys::write_new(&new, config.to_string().as_bytes())?;
    fs::rename(&new, &path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The authority's certificate where everybody can read it. It is public; its key is not there.
fn bundle(settings: &Settings) -> anyhow::Result<PathBuf> {
    let certificate =
        fs::read(Keys::of(settings).authority_file()).context("cannot read the authority's certificate; `reprieve init` makes it")?;
    let path = std::path::absolute(settings.folder.join("reprieve-ca.pem"))?;
    if fs::read(&path).is_ok_and(|there| there == certificate) {
        return Ok(path);
    }
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    std::io::Write::write_all(&mut file, &certificate).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// A value that a POSIX shell takes as it is.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_values_as_they_are() {
        assert_eq!(quoted("a b$c`d`"), "'a b$c`d`'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }
}
