//! `reprieve serve`: start, wait, drain. Also `check`, which starts nothing.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use reprieve_audit::{AuditLog, SystemClock};
use reprieve_gate::Audit as _;
use reprieve_operation::{Event, OperatorName};
use serde_json::json;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{args::Cli, keys::Keys, out::line_if_read, settings::Settings, wire};

/// How long running statements may take to end when the gateway stops.
const DRAIN: Duration = Duration::from_secs(10);

/// How long the start waits for the vault and the databases.
const FIRST_LOOK: Duration = Duration::from_secs(3);

/// When the whole ledger is recounted: not while the first statements come in.
const RECOUNT_AFTER: Duration = Duration::from_secs(2);
const RECOUNT_EVERY: Duration = Duration::from_secs(24 * 3_600);

pub(crate) fn serve(cli: &Cli, settings: Settings) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("reprieve").build()?;
    runtime.block_on(run(cli.json, Arc::new(settings)))?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(0)
}

async fn run(as_json: bool, settings: Arc<Settings>) -> anyhow::Result<()> {
    let bind = |address| async move { TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}")) };
    let postgres = bind(settings.listen.postgres).await?;
    let http = if settings.services().next().is_some() { Some(bind(settings.listen.http).await?) } else { None };
    let operators = bind(settings.listen.operators).await?;
    let fronts = crate::services::Fronts::open(&settings).await?;
    let keys = Arc::new(Keys::of(&settings));
    tokio::task::spawn_blocking({
        let (settings, keys, handle) = (settings.clone(), keys.clone(), tokio::runtime::Handle::current());
        move || crate::recovery::own::may_serve(&settings, &keys, &handle)
    })
    .await??;
    let parts = Arc::new(wire::build(&settings, &keys)?);
    let anchors = crate::recovery::own::Anchors::new(&settings, &keys, parts.audit.clone())?;
    let notifier = Arc::new(crate::notify::notifier(&settings, &keys, &parts)?);
    let policy = parts.policy.load();
    drop(parts.audit.append(Event::Started { version: env!("CARGO_PKG_VERSION").to_owned() }));
    let activated = Event::PolicyActivated { digest: policy.digest(), profile: policy.profile().to_string() };
    parts.audit.append(activated).await.context("the ledger takes no events")?;
    let (stop, stopped) = watch::channel(false);
    let follow = tokio::spawn({
        let gate = parts.gate.clone();
        async move { gate.follow().await }
    });
    for keeper in &parts.keepers {
        tokio::spawn(keeper.clone().run());
    }
    for definitions in &parts.definitions {
        tokio::spawn(definitions.clone().keep());
    }
    for settler in &parts.settlers {
        tokio::spawn(settler.clone().run());
    }
    tokio::spawn(parts.texts.clone().run());
    tokio::spawn(parts.texts.clone().purge());
    if parts.http.is_some() {
        tokio::spawn(parts.escrow.clone().run());
    }
    for runs in &parts.recovery {
        runs.start(&settings, &keys, &parts.audit)?;
    }
    let anchoring = tokio::spawn(anchors.clone().run());
    tokio::spawn(recount(parts.audit.clone()));
    // A moment, so that the first changes are not held only because nobody has looked yet.
    let looked = async {
        for keeper in &parts.keepers {
            keeper.first_look().await;
        }
    };
    let _held_until_then = tokio::time::timeout(FIRST_LOOK, looked).await;
    tokio::spawn(parts.postgres.clone().attend());
    tokio::spawn(wire::follow_policies(settings.clone(), parts.clone()));
    tokio::spawn(notifier.run(stopped.clone()));
    tokio::spawn({
        let desk = parts.desk.clone();
        async move {
            loop {
                if let Err(error) = desk.expire().await {
                    tracing::warn!(%error, "holds could not be expired");
                }
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        }
    });
    let console = tokio::spawn({
        let mut stopped = stopped.clone();
        let until = async move { drop(stopped.wait_for(|stop| *stop).await) };
        reprieve_surface_console::serve(operators, keys.tls()?, parts.console.clone(), until)
    });
    let fronts = parts.http.as_ref().map_or_else(Vec::new, |surface| fronts.serve(surface, &stopped));
    let callers = parts.http.clone().zip(http).map(|(surface, listener)| {
        tokio::spawn(surface.clone().attend());
        tokio::spawn(surface.listen(listener, stopped.clone()))
    });
    let agents = tokio::spawn(parts.postgres.clone().listen(postgres, stopped));
    let invited = parts.desk.first_invitation().await.unwrap_or_else(|error| {
        tracing::warn!(%error, "nobody could be invited to the console");
        None
    });
    say_ready(as_json, &settings, invited.map(|(operator, secret)| (operator, format!("{}/enrol#{secret}", parts.console.origin))));
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        _ = follow => tracing::error!("the ledger has stopped"),
    }
    tracing::info!("stopping");
    stop.send_replace(true);
    let _accepting_ended = agents.await;
    let _console_ended = console.await;
    if let Some(callers) = callers {
        let _accepting_ended = callers.await;
    }
    for front in fronts {
        let _accepting_ended = front.await;
    }
    let calls = || parts.http.as_ref().map_or(0, |surface| surface.running());
    let drained = tokio::time::timeout(DRAIN, async {
        while parts.postgres.open_sessions() + calls() > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    if drained.await.is_err() {
        tracing::warn!(sessions = parts.postgres.open_sessions(), requests = calls(), "sessions are cut off");
    }
    if let Some(surface) = &parts.http {
        surface.flush();
    }
    if !matches!(tokio::time::timeout(DRAIN, parts.texts.flush()).await, Ok(Ok(()))) {
        tracing::warn!("the exact texts of the last seconds could not be put into the vault");
    }
    let _recorded = parts.audit.append(Event::Stopped).await;
    parts.recovery.iter().for_each(|runs| runs.stop());
    anchoring.abort();
    let (_known_elsewhere, _log_ended) = tokio::join!(
        tokio::time::timeout(DRAIN, anchors.put()),
        tokio::time::timeout(DRAIN, async {
            for runs in &parts.recovery {
                runs.ended().await;
            }
        })
    );
    let audit = parts.audit.clone();
    tokio::task::spawn_blocking(move || audit.close()).await?;
    Ok(())
}

/// Recounts the ledger soon after the start and once a day, and says so when it does not verify: what is in the store may have been
/// changed behind this program's back.
async fn recount(audit: Arc<AuditLog>) {
    tokio::time::sleep(RECOUNT_AFTER).await;
    loop {
        let counted = audit.clone();
        let checked = tokio::task::spawn_blocking(move || counted.check(&SystemClock)).await;
        if let Ok(Some(fault)) = checked.map(|checked| checked.fault) {
            tracing::error!(fault, "the ledger does not verify");
            let what = format!("the ledger does not verify: stop and call security: {fault}");
            drop(audit.append(Event::Alarm { what, agent: None }));
        }
        tokio::time::sleep(RECOUNT_EVERY).await;
    }
}

/// `enrol` is whom the one-time link is for, and the link: worth nothing without their second factor.
fn say_ready(as_json: bool, settings: &Settings, enrol: Option<(OperatorName, String)>) {
    let Settings { listen, .. } = settings;
    let line = if as_json {
        let http = settings.services().next().map(|_| listen.http.to_string());
        let mut ready = json!({ "ready": true, "listen": { "postgres": listen.postgres.to_string(), "http": http, "operators": listen.operators.to_string() } });
        if let Some((operator, link)) = enrol {
            ready["enrol"] = json!({ "operator": operator, "link": link });
        }
        ready.to_string()
    } else {
        let link = enrol.map_or_else(String::new, |(operator, link)| {
            format!("\nThe console waits for its first passkey. For {operator}, once, within an hour, with a code of the second factor:\n  {link}")
        });
        format!("Reprieve serves agents on {} and operators on {}. Stop it with Ctrl-C.{link}", listen.postgres, listen.operators)
    };
    line_if_read(&line);
}

/// Prints what would be in force.
pub(crate) fn check(cli: &Cli, settings: &Settings) -> anyhow::Result<u8> {
    let keys = Keys::of(settings);
    let policy = wire::read_policy(settings)?;
    let mut systems = Vec::new();
    let mut missing = 0;
    for system in settings.services() {
        let found = match crate::services::open(settings, system, &keys) {
            Ok(_) => {
                json!({ "hosts": system.hosts, "provider": system.provider, "listen": system.listen.as_ref().map(ToString::to_string) })
            }
            Err(error) => {
                missing += 1;
                json!({ "error": format!("{error:#}") })
            }
        };
        systems.push(json!({ "name": system.name, "environment": system.environment, "url": system.url, "target": found }));
    }
    for system in settings.databases() {
        let target = wire::target(system, &keys);
        missing += u32::from(target.is_err());
        let found = match &target {
            Ok(target) => json!({ "address": target.address(), "role": target.user() }),
            Err(error) => json!({ "error": format!("{error:#}") }),
        };
        systems.push(
            json!({ "name": system.name, "environment": system.environment, "url": system.url, "strict": system.strict, "target": found }),
        );
    }
    for system in settings.copyable() {
        let Some(path) = crate::recovery::path(settings, system)? else { continue };
        let there = path.exists();
        missing += u32::from(!there);
        systems.push(json!({ "name": system.name, "environment": system.environment, "path": path, "there": there }));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let vault = match runtime.block_on(crate::vault::usage(settings)) {
        Ok(usage) => json!({ "store": settings.vault.store, "objects": usage.objects, "stored_bytes": usage.stored_bytes,
                             "max_bytes": usage.max_bytes, "free_bytes": usage.free_bytes }),
        Err(error) => {
            missing += 1;
            json!({ "store": settings.vault.store, "error": format!("{error:#}") })
        }
    };
    let notify = match crate::notify::channels(settings, &keys) {
        Ok(channels) => json!(
            channels
                .iter()
                .map(|channel| json!({ "name": channel.name, "kind": format!("{:?}", channel.route),
                                                                   "after_s": channel.after.as_secs() }))
                .collect::<Vec<_>>()
        ),
        Err(error) => {
            missing += 1;
            json!({ "error": format!("{error:#}") })
        }
    };
    let sign_in = match wire::provider(settings, &keys) {
        Ok(provider) => json!(provider.map(|provider| provider.name().to_owned())),
        Err(error) => {
            missing += 1;
            json!({ "error": format!("{error:#}") })
        }
    };
    let report = json!({
        "profile": policy.profile().to_string(),
        "policy_digest": policy.digest(),
        "listen": { "postgres": settings.listen.postgres, "http": settings.listen.http, "operators": settings.listen.operators },
        "ledger": settings.ledger.store,
        "head": settings.path(&settings.ledger.head),
        "hold": { "wait_s": settings.hold.wait.as_secs(), "expire_s": settings.hold.expire.as_secs() },
        "systems": systems,
        "vault": vault,
        "notify": notify,
        "sign_in_by": sign_in,
        "undo": { "window_s": settings.undo.window.as_secs(), "journal_window_s": settings.undo.journal_window.as_secs(),
                  "journal_bytes": settings.undo.journal_bytes, "lag_s": settings.undo.lag.as_secs(),
                  "strict_wait_s": settings.undo.strict_wait.as_secs(), "strict_bytes": settings.undo.strict_bytes },
        "not_built_yet": ["mcp", "hook", "sandbox"],
    });
    if cli.json {
        tell!("{report}")
    } else {
        tell!("{}", serde_json::to_string_pretty(&report)?)
    }
    Ok(u8::from(missing > 0))
}
