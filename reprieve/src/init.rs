//! `reprieve init`: settings, keys, and the first operator.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, bail};
use reprieve_audit::SystemClock;
use serde_json::json;

use crate::{
    args::{Cli, Init},
    keys::Keys,
    operator::enrol,
    settings::Settings,
    wire,
};

/// The settings a new folder starts with.
const SETTINGS: &str = r#"# Reprieve's settings. `reprieve check` prints what is in force.

[listen]
postgres  = "127.0.0.1:6432"    # agents
operators = "127.0.0.1:6443"    # people; agents' tokens are worth nothing here

[ledger]
store = "sqlite:reprieve.db"
head  = "reprieve.head"         # the newest checkpoint once more: put it on another disk

[policy]
profile   = "guard"             # observe | guard | lockdown
directory = "policies"          # your own *.cedar files

[hold]
wait   = "60s"                  # a client that still listens waits this long
expire = "72h"                  # then it is denied

[undo]
window = "72h"                  # how long a change can be taken back

[vault]
store = "file:vault"            # where the rows lie that undo needs: another disk, or s3://bucket/prefix

# What an agent may change without a person being asked. An environment that is not listed has the defaults shown.
[budget.production]
rows_per_statement   = 100
rows_per_transaction = 1000
rows_per_hour        = 10000
relations_dropped    = 0

# A database to protect. The URL is named, never written here:
#   reprieve secret set prod        (reads it from standard input)
#
# [[system]]
# name        = "prod"
# kind        = "postgres"
# environment = "production"
# url         = "secret:prod"    # or "env:PROD_DATABASE_URL"
# admin       = "secret:prod-admin"    # for `protect --apply` and undo: a login out of the agents' reach
"#;

pub(crate) fn init(cli: &Cli, init: &Init) -> anyhow::Result<u8> {
    if !cli.config.exists() {
        std::fs::write(&cli.config, SETTINGS).with_context(|| format!("cannot write {}", cli.config.display()))?;
    }
    let settings = Settings::read(&cli.config)?;
    let keys = Keys::of(&settings);
    keys.create(&init.host)?;
    let policies = settings.path(&settings.policy.directory);
    std::fs::create_dir_all(&policies).with_context(|| format!("cannot make {}", policies.display()))?;
    let audit = wire::open_ledger(&settings, &keys, Arc::new(SystemClock))?;
    let added = first_operator(cli, init, &settings, &keys, &audit);
    audit.close();
    added
}

fn first_operator(cli: &Cli, init: &Init, settings: &Settings, keys: &Keys, audit: &Arc<reprieve_audit::AuditLog>) -> anyhow::Result<u8> {
    use reprieve_gate::Audit as _;
    if !audit.state().operators.is_empty() {
        bail!("there are operators already; another one is added by `reprieve operator add`");
    }
    let desk = wire::open_desk(settings, keys, audit.clone(), Arc::new(SystemClock), None)?;
    let (public_key, totp) = enrol(keys, &init.operator)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(desk.bootstrap_operator(init.operator.clone(), public_key, totp.base32().to_string()))?;
    let uri = totp.otpauth_uri(&init.operator);
    if cli.json {
        tell!("{}", json!({ "operator": init.operator, "totp_secret": *totp.base32(), "otpauth": *uri, "config": cli.config }));
        return Ok(0);
    }
    tell!("Settings   {}", cli.config.display());
    tell!("Operator   {}  (key sealed by your passphrase in {})", init.operator, display(&keys.operator_key(init.operator.as_str())));
    tell!("2nd factor put this into an authenticator app, on another device; it is not shown again:");
    tell!("           {}", *totp.base32());
    tell!("           {}", *uri);
    tell!("\nNext: name a database in {}, `reprieve secret set NAME`, then `reprieve serve`.", cli.config.display());
    Ok(0)
}

fn display(path: &Path) -> String {
    path.display().to_string()
}
