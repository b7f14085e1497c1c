//! `reprieve checklist`: the eight points, as the console shows them, with an exit code for CI.

use reprieve_audit::SystemClock;
use reprieve_gate::{Clock as _, Mark, Measured, checklist as points};
use reprieve_operation::SystemName;
use serde_json::json;

use crate::{
    args::Cli,
    ledger::recount,
    recovery::known,
    settings::{Settings, System, SystemKind},
    wire,
};

pub(crate) fn checklist(cli: &Cli, settings: &Settings) -> anyhow::Result<u8> {
    let policy = wire::read_policy(settings)?;
    let (recovery, state) = known(settings)?;
    let ledger = recount(settings)?;
    let points = points(&Measured {
        state: &state,
        profile: policy.profile(),
        recovery: &recovery,
        ledger: Some(&ledger),
        shared: &shared_credentials(settings),
        now: SystemClock.now(),
    });
    let open = points.iter().filter(|point| point.mark != Mark::Holds).count();
    if cli.json {
        tell!("{}", json!({ "points": points, "open": open }));
        return Ok(u8::from(open > 0));
    }
    for (number, point) in (1..).zip(&points) {
        let word = match point.mark {
            Mark::Holds => "holds     ",
            Mark::Attention => "ATTENTION ",
            Mark::Broken => "BROKEN    ",
            Mark::NotMeasured => "not known ",
        };
        tell!("{number}. {word} {}", point.title);
        tell!("              {}", point.evidence);
        if let Some(fix) = point.fix.filter(|_| point.mark != Mark::Holds) {
            tell!("              fix: {}", fix.command);
        }
    }
    tell!("{} of 8 hold.", points.len() - open);
    Ok(u8::from(open > 0))
}

/// Systems of different environments that are reached with the same credential, or that are the same one.
pub(crate) fn shared_credentials(settings: &Settings) -> Vec<(SystemName, SystemName)> {
    let mut shared = Vec::new();
    for (at, one) in settings.system.iter().enumerate() {
        let logins = |system: &System| {
            let url = Some(&system.url).filter(|_| system.kind == SystemKind::Postgres).cloned();
            [url, system.admin.clone(), system.credential.clone()]
                .into_iter()
                .flatten()
                .filter(|login| !login.is_empty())
                .collect::<Vec<_>>()
        };
        let mine = logins(one);
        for other in settings.system.iter().skip(at + 1).filter(|other| other.environment != one.environment) {
            if logins(other).iter().any(|login| mine.contains(login)) {
                shared.push((one.name.clone(), other.name.clone()));
            }
        }
    }
    shared
}
