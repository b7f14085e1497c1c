//! The hosting provider of the demo: a stand-in that deletes at once what a valid token asks for, and an agent's curl on its way there.

use std::path::Path;

use anyhow::Context as _;
use reprieve_testkit::Railway;
use serde_json::Value;
use tokio::process::Command;

/// Where agents call it.
const ADDRESS: &str = "https://backboard.railway.com/graphql/v2";

/// The call of the incident.
pub(crate) const DELETE_VOLUME: &str = r#"{"query":"mutation { volumeDelete(volumeId: \"vol-prod\") }"}"#;

/// A question that changes nothing.
pub(crate) const LOOK: &str = r#"{"query":"query { volume(id: \"vol-prod\") { id name } }"}"#;

/// What a service, or the gateway before it, answered.
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// The settings of the provider's systems: one token, two environments.
pub(crate) fn settings(railway: &Railway) -> String {
    let system = |name: &str, environment: &str| {
        format!(
            "\n[[system]]\nname = \"{name}\"\nkind = \"http\"\nenvironment = \"{environment}\"\nprovider = \"railway\"\n\
             credential = \"secret:railway\"\nas = \"bearer\"\n{}",
            railway.service().settings(Railway::HOST)
        )
    };
    system("railway-prod", "production") + &system("railway-staging", "staging")
}

/// An agent's shell: `eval "$(reprieve env …)"`, and then curl as it comes.
pub(crate) async fn curl(program: &Path, settings: &Path, agent: &str, token: &str, body: &str) -> anyhow::Result<Told> {
    const SCRIPT: &str = r#"eval "$("$1" --config "$2" env --agent "$3")" &&
        exec curl -sS --max-time 30 -w '\n%{http_code}' -H 'content-type: application/json' --data-binary "$4" "$5""#;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", SCRIPT, "agent"]).arg(program).arg(settings).args([agent, body, ADDRESS]).env("REPRIEVE_TOKEN", token);
    let output = command.kill_on_drop(true).output().await.context("cannot run `/bin/sh`")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = said.rsplit_once('\n').with_context(|| {
        format!("curl, which `scripts/setup.sh` installs, got no answer: {}", String::from_utf8_lossy(&output.stderr).trim())
    })?;
    Ok(Told {
        status: status.trim().parse().context("curl told no status")?,
        body: serde_json::from_str(body).with_context(|| format!("not JSON: {body}"))?,
    })
}

impl Told {
    /// A text in the answer.
    pub(crate) fn text(&self, pointer: &str) -> String {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}
