//! `reprieve checklist`: the eight points, as the console shows them, with an exit code for CI.

use reprieve_audit::SystemClock;
use reprieve_gate::{Clock as _, Mark, checklist as points};
use serde_json::json;

use crate::{args::Cli, recovery::known, settings::Settings, wire};

pub(crate) fn checklist(cli: &Cli, settings: &Settings) -> anyhow::Result<u8> {
    let policy = wire::read_policy(settings)?;
    let (recovery, state) = known(settings)?;
    let points = points(&state, policy.profile(), &recovery, SystemClock.now());
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
