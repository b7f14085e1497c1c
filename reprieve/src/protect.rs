//! `reprieve protect`: what a database allows, and setting it up for Reprieve.

mod copies;

use std::time::Instant;

use reprieve_surface_postgres::{Aim, Finding, Level, Plan, Step, carry_out, plan};
use reprieve_undo::Login;
use serde_json::{Value, json};

use self::copies::{Removal, said};
use crate::{
    args::{Cli, Protect},
    keys::Keys,
    settings::{Settings, System},
    wire,
};

pub(crate) fn protect(cli: &Cli, settings: &Settings, protect: &Protect) -> anyhow::Result<u8> {
    let (system, keys) = (settings.system(protect.system.as_str())?, Keys::of(settings));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if protect.what.check {
        return runtime.block_on(check(cli, settings, system, &keys));
    }
    let aim = if protect.what.apply { Aim::Apply } else { Aim::Remove };
    runtime.block_on(set_up(cli, settings, system, &keys, aim, protect.dry_run))
}

async fn check(cli: &Cli, settings: &Settings, system: &System, keys: &Keys) -> anyhow::Result<u8> {
    let target = wire::target(system, keys)?;
    let mut findings = reprieve_surface_postgres::check(&target).await?;
    if system.strict {
        findings.push(strict(settings, system, keys).await);
    }
    let said = said(settings, system, keys);
    findings.extend(said.findings);
    let unsafe_found = findings.iter().any(|finding| finding.level == Level::Unsafe);
    if cli.json {
        tell!("{}", json!({ "system": system.name, "safe": !unsafe_found, "findings": findings, "copies": said.copies }));
    } else {
        tell!("{} at {} as {}", system.name, target.address(), target.user());
        tell_findings(&findings);
        tell!(
            "{}",
            if unsafe_found {
                "Agents must not use this role: its effects can't be bounded."
            } else {
                "What agents do with this role is measured and bounded."
            }
        );
    }
    Ok(u8::from(unsafe_found))
}

fn tell_findings(findings: &[Finding]) {
    for finding in findings {
        let mark = match finding.level {
            Level::Good => "good  ",
            Level::Note => "note  ",
            Level::Unsafe => "UNSAFE",
        };
        tell!("  {mark}  {}: {}", finding.subject, finding.text);
    }
}

/// What it costs that changes wait for the vault.
async fn strict(settings: &Settings, system: &System, keys: &Keys) -> Finding {
    let found = |level, text| Finding { level, subject: "strict".to_owned(), text };
    let missing = async {
        let steps = reprieve_undo::journal::plan(&wire::login(system, keys)?, wire::target(system, keys)?.user(), true).await?;
        anyhow::Ok(steps.iter().any(|step| step.sql.contains("reprieve.seal") || step.sql.contains("reprieve.images")))
    };
    match missing.await {
        Ok(false) => {}
        Ok(true) => return found(Level::Note, format!("every change is held until `reprieve protect {} --apply` was run", system.name)),
        Err(error) => return found(Level::Note, format!("what it needs could not be looked at: {error:#}")),
    }
    let probes = async {
        let access = wire::vault(settings, keys)?;
        access.healthy().await?;
        let mut times = Vec::new();
        for _ in 0..5 {
            let begun = Instant::now();
            access.healthy().await?;
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        anyhow::Ok(times[2])
    };
    match probes.await {
        Ok(median) => found(
            Level::Note,
            format!(
                "every change waits until the vault has what it replaced: a write there takes {:.1} ms now (median of 5), and three round trips to \
                 the server come on top; after {} s, or while the vault is away, nothing becomes final; more than {} MiB of replaced rows need an approval",
                median.as_secs_f64() * 1_000.0,
                settings.undo.strict_wait.as_secs(),
                settings.undo.strict_bytes >> 20
            ),
        ),
        Err(error) => found(Level::Note, format!("the vault can't be written, so that no change becomes final: {error:#}")),
    }
}

async fn set_up(cli: &Cli, settings: &Settings, system: &System, keys: &Keys, aim: Aim, dry_run: bool) -> anyhow::Result<u8> {
    let (agents, admin) = (wire::target(system, keys)?, wire::admin_target(system, keys)?);
    let mut plan = plan(&agents, &admin, aim).await?;
    let journal = journal_steps(&wire::login(system, keys)?, aim, agents.user(), system.strict).await?;
    // What they lack, or leave behind, keeps nothing from being done. The settings of the server and of pgBackRest are not ours to change.
    let (removal, findings, copies) = match aim {
        Aim::Apply => {
            plan.steps.extend(journal);
            let said = said(settings, system, keys);
            (Removal::default(), said.findings, said.copies)
        }
        // What is in our schema goes before the schema.
        Aim::Remove => {
            let mut removal = Removal::of(system, keys);
            plan.steps = journal.into_iter().chain(plan.steps).chain(std::mem::take(&mut removal.steps)).collect();
            let left = std::mem::take(&mut removal.said);
            (removal, left, Value::Null)
        }
    };
    let whole = Plan { steps: plan.steps.iter().cloned().chain(removal.last()).collect() };
    if !cli.json {
        tell!("{} at {} as {}", system.name, admin.address(), admin.user());
        show(&whole);
        tell_findings(&findings);
    }
    if !dry_run {
        carry_out(&admin, &plan).await?;
        removal.carry_out()?;
    }
    if cli.json {
        tell!("{}", json!({ "system": system.name, "plan": whole.steps, "done": !dry_run, "findings": findings, "copies": copies }));
    } else if !whole.steps.is_empty() {
        let done = if removal.last().is_some() { "Done, in one transaction, and the slot after it." } else { "Done, in one transaction." };
        tell!("{}", if dry_run { "Nothing was changed." } else { done });
    }
    // What stays of a removal may fill the server's disk: that is not done.
    Ok(u8::from(removal.leaves_something && !dry_run))
}

/// What the journal of row changes needs, or leaves behind.
async fn journal_steps(login: &Login, aim: Aim, agents: &str, strict: bool) -> anyhow::Result<Vec<Step>> {
    let steps = match aim {
        Aim::Apply => reprieve_undo::journal::plan(login, agents, strict).await?,
        Aim::Remove => reprieve_undo::journal::removal(login).await?,
    };
    Ok(steps.into_iter().map(|step| Step { purpose: step.purpose, sql: step.sql }).collect())
}

fn show(plan: &Plan) {
    if plan.steps.is_empty() {
        tell!("Nothing is left to do.");
    }
    for (number, step) in plan.steps.iter().enumerate() {
        tell!("  {}. {}", number + 1, step.purpose);
        // A function's body is long, and the same everywhere but for the numbers of tables; `--json` has all of it.
        tell!("     {}", step.sql.lines().next().unwrap_or_default());
    }
}
