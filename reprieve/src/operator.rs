//! An operator's side: opening the key, asking for the second factor, sending signed commands to the operators' listener.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use reprieve_approvals::{OperatorKey, TotpSecret};
use reprieve_audit::SystemClock;
use reprieve_gate::{Clock as _, Command};
use reprieve_operation::{AgentName, OperatorName};
use serde_json::{Value, json};

use crate::{args::As, keys::Keys, settings::Settings};

/// Undoing a large change takes minutes.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// The desk said no.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub(crate) String);

/// Signs a command as an operator and sends it.
pub(crate) fn send(settings: &Settings, by: &As, command: &Command) -> anyhow::Result<Value> {
    let keys = Keys::of(settings);
    let operator = who(&keys, by)?;
    let key = OperatorKey::open(&keys.operator_key(operator.as_str()), &passphrase(&format!("Passphrase of {operator}: "))?)?;
    let code = match std::env::var("REPRIEVE_CODE") {
        Ok(code) => code,
        Err(_) => rpassword::prompt_password(format!("Code of {operator}'s second factor: "))
            .context("cannot ask for a code; set REPRIEVE_CODE")?,
    };
    let signed = key.sign_command(&operator, command, code.trim(), SystemClock.now())?;
    post(settings, &keys, "/v1/commands", &[], &serde_json::to_value(&signed)?)
}

/// Freezes with the gateway's freeze key: no passphrase, no code.
pub(crate) fn freeze(settings: &Settings, agent: Option<&AgentName>, reason: &str) -> anyhow::Result<Value> {
    let keys = Keys::of(settings);
    let mut body = json!({ "reason": if reason.is_empty() { "frozen from the command line" } else { reason } });
    if let Some(agent) = agent {
        body["agent"] = json!(agent);
    }
    post(settings, &keys, "/v1/freeze", &[("Reprieve-Freeze-Key", keys.freeze_key()?)], &body)
}

fn who(keys: &Keys, by: &As) -> anyhow::Result<OperatorName> {
    match &by.operator {
        Some(operator) => Ok(operator.clone()),
        None => match keys.only_operator() {
            Some(name) => Ok(name.parse()?),
            None => bail!("say which operator acts: --as NAME"),
        },
    }
}

/// A passphrase: from `REPRIEVE_PASSPHRASE`, or asked for.
pub(crate) fn passphrase(prompt: &str) -> anyhow::Result<String> {
    match std::env::var("REPRIEVE_PASSPHRASE") {
        Ok(passphrase) => Ok(passphrase),
        Err(_) => rpassword::prompt_password(prompt).context("cannot ask for a passphrase here; set REPRIEVE_PASSPHRASE"),
    }
}

/// Posts JSON to the operators' listener, whose certificate is pinned.
pub(crate) fn post(settings: &Settings, keys: &Keys, path: &str, headers: &[(&str, String)], body: &Value) -> anyhow::Result<Value> {
    let certificate = keys.certificate()?;
    let roots = ureq::tls::RootCerts::Specific(Arc::new(vec![ureq::tls::Certificate::from_der(certificate.as_ref()).to_owned()]));
    let tls = ureq::tls::TlsConfig::builder().root_certs(roots).build();
    let config = ureq::Agent::config_builder().tls_config(tls).timeout_global(Some(LONGEST)).http_status_as_error(false).build();
    let address = settings.listen.operators;
    let mut request = ureq::Agent::from(config).post(format!("https://localhost:{}{path}", address.port()));
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let mut response = request
        .send_json(body)
        .with_context(|| format!("cannot reach the operators' listener at {address}; is `reprieve serve` running?"))?;
    let status = response.status();
    let answer: Value = response.body_mut().read_json().context("the operators' listener gave no JSON")?;
    if status.is_success() {
        return Ok(answer.get("ok").cloned().unwrap_or(answer));
    }
    let text = |name: &str| answer.get(name).and_then(Value::as_str);
    Err(Refused(text("detail").or_else(|| text("title")).unwrap_or("refused").to_owned()).into())
}

/// A new operator's key and second factor: the key sealed in a file, the factor shown once.
pub(crate) fn enrol(keys: &Keys, operator: &OperatorName) -> anyhow::Result<(String, TotpSecret)> {
    let path = keys.operator_key(operator.as_str());
    if path.exists() {
        bail!("{} is already there; choose another name or move it away", path.display());
    }
    let passphrase = match std::env::var("REPRIEVE_PASSPHRASE") {
        Ok(passphrase) => passphrase,
        Err(_) => {
            let first = rpassword::prompt_password(format!("New passphrase for {operator}: "))
                .context("cannot ask for a passphrase here; set REPRIEVE_PASSPHRASE")?;
            let second = rpassword::prompt_password("The same again: ")?;
            if first != second {
                bail!("the two passphrases differ");
            }
            first
        }
    };
    if passphrase.chars().count() < 8 {
        bail!("a passphrase has at least 8 characters");
    }
    let key = OperatorKey::generate();
    key.save(&path, &passphrase)?;
    Ok((key.public_key(), TotpSecret::generate()))
}

/// The same with a passphrase that is known already.
pub(crate) fn enrol_with(keys: &Keys, operator: &OperatorName, passphrase: &str) -> anyhow::Result<(String, TotpSecret)> {
    let key = OperatorKey::generate();
    key.save(&keys.operator_key(operator.as_str()), passphrase)?;
    Ok((key.public_key(), TotpSecret::generate()))
}
