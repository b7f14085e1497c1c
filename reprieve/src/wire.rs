//! The wiring: which parts there are and how they know each other. A table of contents in code.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use reprieve_approvals::{ApprovalsDesk, DeskOptions};
use reprieve_audit::{AuditLog, AuditOptions, SystemClock};
use reprieve_gate::{Audit as _, Clock, Gate, GateOptions, Provider, Revert};
use reprieve_oidc::{Oidc, OidcOptions};
use reprieve_operation::{Event, SystemName};
use reprieve_policy::{Policy, Source};
use reprieve_secrets::resolve;
use reprieve_store::SqliteStore;
use reprieve_surface_console::{Console, Shown};
use reprieve_surface_postgres::{Options, Surface, System, Target, TlsMode};
use reprieve_undo::{
    CallEscrow, DefinitionsLog, Images, Journal, Keeper, KeeperOptions, Kept, Login, Settler, StrictOptions, TextKeeper, Undo, UndoOptions,
    VaultAccess,
};
use reprieve_vault::{Location, VaultOptions};

use crate::{keys::Keys, policy::used_rights, settings::Settings, shown::ShownChanges, simulation::simulate, undo::LedgerHistory};

/// Everything that runs.
pub(crate) struct Parts {
    pub(crate) audit: Arc<AuditLog>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) desk: Arc<ApprovalsDesk>,
    pub(crate) postgres: Arc<Surface>,
    /// None where no system is a service.
    pub(crate) http: Option<Arc<reprieve_surface_http::Surface>>,
    pub(crate) policy: Arc<ArcSwap<Policy>>,
    pub(crate) keepers: Vec<Arc<Keeper>>,
    pub(crate) definitions: Vec<Arc<DefinitionsLog>>,
    pub(crate) settlers: Vec<Arc<Settler>>,
    pub(crate) console: Arc<Console>,
    pub(crate) escrow: Arc<CallEscrow>,
    pub(crate) texts: Arc<TextKeeper>,
    /// What copies and tries, by the clock.
    pub(crate) recovery: Vec<Arc<crate::recovery::runs::Runs>>,
}

/// Builds the gateway that the settings describe.
pub(crate) fn build(settings: &Settings, keys: &Keys) -> anyhow::Result<Parts> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let audit = open_ledger(settings, keys, clock.clone())?;
    let policy = Arc::new(ArcSwap::from_pointee(read_policy(settings)?));
    let options = GateOptions {
        budgets: settings.budget.clone(),
        wait: settings.hold.wait,
        expire: settings.hold.expire,
        open_holds: settings.hold.open,
        link: settings.hold_link()?,
    };
    let windows = settings.services().map(|system| (system.name.clone(), system.delay.unwrap_or(settings.hold.delay))).collect();
    let (configured, covered) = (crate::recovery::configured(settings, keys)?, crate::recovery::covered(settings));
    let history = Arc::new(LedgerHistory::open(&settings.ledger_file()?)?);
    let vault = Arc::new(vault(settings, keys)?);
    let texts = Arc::new(TextKeeper::new(vault.clone(), audit.clone(), history.clone(), clock.clone(), settings.vault.texts));
    let gate = Gate::new(audit.clone(), clock.clone(), policy.clone(), options).with_texts(texts.clone());
    let gate = Arc::new(gate.with_windows(windows).with_copies(crate::recovery::copies(settings, &configured, covered.clone())));
    let office = Arc::new(crate::recovery::office(settings, keys, &audit, configured, covered.clone())?);
    let logins = settings.databases().map(|system| Ok((system.name.clone(), login(system, keys)?)));
    let logins: BTreeMap<SystemName, Login> = logins.collect::<anyhow::Result<_>>()?;
    let images = Images::new(vault.clone(), history.clone());
    let definitions = |system: &crate::settings::System| {
        let (name, login, window) = (system.name.clone(), login(system, keys)?, settings.undo.window);
        Ok(Arc::new(DefinitionsLog::new(name, login, vault.clone(), audit.clone(), history.clone(), clock.clone(), window)))
    };
    let definitions = settings.databases().map(definitions).collect::<anyhow::Result<Vec<_>>>()?;
    let by_system =
        settings.databases().zip(&definitions).map(|(system, definitions)| (system.name.clone(), definitions.clone())).collect();
    let escrow = Arc::new(CallEscrow::new(vault.clone(), audit.clone(), history.clone(), clock.clone(), settings.undo.window));
    let services = crate::services::services(settings, keys)?;
    let calls = services.as_ref().map(|services| services.returns(Some(escrow.clone())));
    let shown = ShownChanges::new(history.clone(), images.clone(), logins.clone(), calls.clone(), settings.undo.window);
    let changes = Arc::new(shown);
    let undo = Arc::new(Undo::new(
        gate.clone(),
        history.clone(),
        UndoOptions { logins, definitions: by_system, calls, window: settings.undo.window, images },
    ));
    let desk = Arc::new(open_desk(settings, keys, audit.clone(), clock.clone(), Some(undo))?);
    let keeper = |system: &crate::settings::System| {
        let options = KeeperOptions {
            window: settings.undo.window,
            journal_window: settings.undo.journal_window,
            journal_bytes: settings.undo.journal_bytes,
            lag: settings.undo.lag,
            strict: StrictOptions { strict: system.strict, wait: settings.undo.strict_wait, bytes: settings.undo.strict_bytes },
        };
        let (name, login) = (system.name.clone(), login(system, keys)?);
        Ok(Arc::new(Keeper::new(name, login, vault.clone(), audit.clone(), history.clone(), clock.clone(), options)))
    };
    let keepers = settings.databases().map(keeper).collect::<anyhow::Result<Vec<_>>>()?;
    let settler = |system: &crate::settings::System| {
        let (name, login, window) = (system.name.clone(), login(system, keys)?, settings.undo.window);
        Ok(Arc::new(Settler::new(name, login, audit.clone(), history.clone(), clock.clone(), window)))
    };
    let settlers = settings.databases().map(settler).collect::<anyhow::Result<Vec<_>>>()?;
    let kept = keepers.iter().zip(&definitions);
    let systems = settings
        .databases()
        .zip(kept)
        .map(|(system, (keeper, definitions))| open_system(system, keys, keeper.clone(), definitions.clone()));
    let systems = systems.collect::<anyhow::Result<Vec<_>>>()?;
    let options = Options {
        tls: Some(keys.tls()?),
        channel_binding: Some(keys.channel_binding()?),
        salt: keys.scram_salt()?.into(),
        sessions: settings.listen.sessions,
    };
    let postgres = Surface::new(gate.clone(), systems, options).context("cannot start the threads for sessions")?;
    let recovery = crate::recovery::runs::open(settings, keys, &audit, &covered)?;
    let console = console(settings, &audit, clock, &desk, changes, policy.clone(), office)?;
    let console = Arc::new(Console { provider: provider(settings, keys)?, ..console });
    let http = services.map(|services| services.surface(settings, keys, gate.clone(), escrow.clone())).transpose()?;
    Ok(Parts { audit, gate, desk, postgres, http, policy, keepers, definitions, settlers, console, escrow, texts, recovery })
}

/// Opens the ledger to append to it.
pub(crate) fn open_ledger(settings: &Settings, keys: &Keys, clock: Arc<dyn Clock>) -> anyhow::Result<Arc<AuditLog>> {
    let path = settings.ledger_file()?;
    let store = SqliteStore::open(&path).with_context(|| format!("cannot open the ledger in {}", path.display()))?;
    let options = AuditOptions::new(keys.signer()?).with_head_file(settings.path(&settings.ledger.head));
    Ok(AuditLog::open(Box::new(store), options, clock)?)
}

/// The operators' desk.
pub(crate) fn open_desk(
    settings: &Settings,
    keys: &Keys,
    audit: Arc<AuditLog>,
    clock: Arc<dyn Clock>,
    revert: Option<Arc<dyn Revert>>,
) -> anyhow::Result<ApprovalsDesk> {
    let (sealing, unsealing) = (keys.master()?, keys.master()?);
    let options = DeskOptions {
        seal: Arc::new(move |bytes| sealing.seal(bytes).ok()),
        unseal: Arc::new(move |text| unsealing.unseal(text).ok().map(|secret| secret.reveal().clone())),
        scram_salt: keys.scram_salt()?,
        systems: settings.system.iter().map(|system| (system.name.clone(), system.environment.clone())).collect(),
        freeze_key: keys.freeze_key()?,
        revert,
        console: settings.console_origin()?,
    };
    Ok(ApprovalsDesk::new(audit, clock, options)?)
}

/// The longest that a page waits for the past to be asked.
const SIMULATE_WITHIN: Duration = Duration::from_secs(20);

/// Another sign-in besides passkeys, where there is one.
pub(crate) fn provider(settings: &Settings, keys: &Keys) -> anyhow::Result<Option<Arc<dyn Provider>>> {
    let Some(own) = &settings.console.oidc else { return Ok(None) };
    let secret = match &own.client_secret {
        Some(reference) => Some(resolve(reference, Some(&keys.secrets()?))?.reveal().trim().to_owned()),
        None => None,
    };
    let options = OidcOptions {
        issuer: own.issuer.clone(),
        client: own.client_id.clone(),
        secret,
        origin: settings.console_origin()?.as_str().to_owned(),
        operators: own.operators.clone(),
    };
    Ok(Some(Arc::new(Oidc::new(options).context("`[console.oidc]` is not right")?)))
}

/// The operators' pages.
fn console(
    settings: &Settings,
    audit: &Arc<AuditLog>,
    clock: Arc<dyn Clock>,
    desk: &Arc<ApprovalsDesk>,
    changes: Arc<ShownChanges>,
    policy: Arc<ArcSwap<Policy>>,
    recovery: Arc<dyn reprieve_gate::Recovery>,
) -> anyhow::Result<Console> {
    let folder = settings.path(&settings.policy.directory);
    let (replayed, looked_at) = (settings.clone(), settings.clone());
    let host = settings.listen.host.clone().unwrap_or_else(|| settings.listen.postgres.ip().to_string());
    Ok(Console {
        desk: desk.clone(),
        reception: desk.clone(),
        provider: None,
        counter: desk.clone(),
        audit: audit.clone(),
        clock,
        records: audit.clone(),
        changes,
        recovery,
        policy,
        policy_files: Arc::new(move || read_sources(&folder).map_err(|error| format!("{error:#}"))),
        simulate: Arc::new(move |current, proposed, after| {
            simulate(&replayed, current, proposed, after, Some(Instant::now() + SIMULATE_WITHIN)).map_err(|error| format!("{error:#}"))
        }),
        used_rights: Arc::new(move |agent, after| {
            let until = Some(Instant::now() + SIMULATE_WITHIN);
            let (mut found, _left_out) = used_rights(&looked_at, Some(agent), after, until).map_err(|error| format!("{error:#}"))?;
            found.remove(agent).map(|(used, ..)| used).ok_or_else(|| format!("`{agent}` holds no token"))
        }),
        origin: settings.console_origin()?.as_str().to_owned(),
        name: settings.console.name.clone().unwrap_or_else(|| "your gateway".to_owned()),
        agents_at: format!("{host}:{}", settings.listen.postgres.port()),
        systems: settings
            .system
            .iter()
            .map(|system| Shown { name: system.name.clone(), environment: system.environment.clone(), kind: kind(system) })
            .collect(),
        shared_credentials: crate::checklist::shared_credentials(settings),
        hold_expires: settings.hold.expire,
        undo_window: settings.undo.window,
    })
}

/// What sort of system it is, in a word.
fn kind(system: &crate::settings::System) -> &'static str {
    match system.kind {
        crate::settings::SystemKind::Postgres => "PostgreSQL",
        crate::settings::SystemKind::Http => "HTTP service",
        crate::settings::SystemKind::Files => "folder",
        crate::settings::SystemKind::Sqlite => "SQLite",
    }
}

/// The connection target of one system, with the agents' login.
pub(crate) fn target(system: &crate::settings::System, keys: &Keys) -> anyhow::Result<Target> {
    target_by(&system.url, "URL", system, keys)
}

/// The same with the administrator's.
pub(crate) fn admin_target(system: &crate::settings::System, keys: &Keys) -> anyhow::Result<Target> {
    target_by(system.admin.as_ref().unwrap_or(&system.url), "administrator's URL", system, keys)
}

fn target_by(reference: &str, what: &str, system: &crate::settings::System, keys: &Keys) -> anyhow::Result<Target> {
    let secrets = keys.secrets()?;
    let url = resolve(reference, Some(&secrets)).with_context(|| format!("cannot find the {what} of `{}`", system.name))?;
    Target::parse(url.reveal()).with_context(|| format!("the {what} of `{}` is not right", system.name))
}

/// The vault, which is opened when it is needed.
pub(crate) fn vault(settings: &Settings, keys: &Keys) -> anyhow::Result<VaultAccess> {
    let mut options = VaultOptions::new(&settings.vault.store, keys.vault()?)?;
    if let Location::File(path) = &mut options.store {
        *path = settings.path(path);
    }
    options.max_bytes = settings.vault.max_bytes;
    options.s3.endpoint.clone_from(&settings.vault.endpoint);
    options.s3.region.clone_from(&settings.vault.region);
    Ok(VaultAccess::new(options))
}

/// The login by which Reprieve itself works in a system.
pub(crate) fn login(system: &crate::settings::System, keys: &Keys) -> anyhow::Result<Login> {
    let target = admin_target(system, keys)?;
    let (mode, config) = target.tls();
    let encrypted = match mode {
        TlsMode::Off => Some(false),
        TlsMode::Prefer => None,
        TlsMode::Require | TlsMode::Verify => Some(true),
    };
    Ok(Login::new(target.host(), target.port(), target.user(), target.password(), target.database(), encrypted, config))
}

fn open_system(
    system: &crate::settings::System,
    keys: &Keys,
    keeper: Arc<Keeper>,
    definitions: Arc<DefinitionsLog>,
) -> anyhow::Result<Arc<System>> {
    let journal = Journal::new(login(system, keys)?, Some(definitions));
    let mut open = System::new(system.name.clone(), system.environment.clone(), target(system, keys)?, system.measure_limit);
    if system.run_with_unbounded_role {
        open = open.running_with_unbounded_role();
    }
    if !system.sample_rows {
        open = open.without_samples();
    }
    Ok(Arc::new(open.with_coverage(Arc::new(Kept::new(journal, keeper)))))
}

/// The policy set in the settings' folder.
pub(crate) fn read_policy(settings: &Settings) -> anyhow::Result<Policy> {
    let sources = read_sources(&settings.path(&settings.policy.directory))?;
    Ok(Policy::build(settings.policy.profile, &sources)?)
}

/// The `*.cedar` files of a folder, by name. No folder is no policies of one's own.
pub(crate) fn read_sources(folder: &Path) -> anyhow::Result<Vec<Source>> {
    let mut sources = Vec::new();
    if !folder.exists() {
        return Ok(sources);
    }
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cedar") {
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            sources.push(Source { name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(), text });
        }
    }
    sources.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(sources)
}

/// Looks at the policy files every second and swaps a new set in whole. A bad set is refused and the old one stays.
pub(crate) async fn follow_policies(settings: Arc<Settings>, parts: Arc<Parts>) {
    let folder = settings.path(&settings.policy.directory);
    let mut seen = read_sources(&folder).unwrap_or_default();
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let Ok(sources) = read_sources(&folder) else { continue };
        if sources == seen {
            continue;
        }
        seen.clone_from(&sources);
        match Policy::build(settings.policy.profile, &sources) {
            Ok(policy) => {
                let event = Event::PolicyActivated { digest: policy.digest(), profile: policy.profile().to_string() };
                parts.policy.store(Arc::new(policy));
                parts.gate.control_changed();
                drop(parts.audit.append(event));
                tracing::info!("a new policy set is in force");
            }
            Err(error) => {
                tracing::error!(%error, "the changed policies are refused; the old ones stay in force");
                drop(parts.audit.append(Event::PolicyRejected { reason: error.to_string() }));
            }
        }
    }
}
