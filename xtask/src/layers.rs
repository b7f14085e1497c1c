//! Layers: which folder may be built with which other; the rule of `STYLE.md`, as a function.
//!
//! Tests may use what they like, so dev-dependencies are no arrows. A folder the rule does not know is an error:
//! a new layer is decided here, in its own pull request.

use std::process::ExitCode;

use anyhow::Result;

use crate::packages;

/// The kinds of folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    /// `core/operation`: the nouns that everything knows.
    Nouns,
    Core,
    Effects,
    Protocol,
    Gate,
    /// Services that other services share: the ledger's storage, object storage, and what a schema dump says.
    Store,
    Service,
    Surface,
    Program,
    /// `testkit`: starts other people's servers, knows nothing of ours.
    Testkit,
    /// `tests`: plays stories against everything.
    Tests,
    Xtask,
}

/// Draws the arrows, fails when one is not allowed.
pub(crate) fn run() -> Result<ExitCode> {
    let packages = packages::read()?;
    let mut wrong = Vec::new();
    for package in &packages {
        println!("{:<20} → {}", package.folder, if package.needs.is_empty() { "nothing of ours".into() } else { package.needs.join(", ") });
        if package.needs.is_empty() {
            // A folder without arrows still has to be one we know.
            wrong.extend(layer_of(&package.folder).err());
        }
        wrong.extend(package.needs.iter().filter_map(|need| check(&package.folder, need).err()));
    }
    if wrong.is_empty() {
        println!("\n{} folders, every arrow goes downhill", packages.len());
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!();
    for reason in &wrong {
        eprintln!("uphill: {reason}");
    }
    Ok(ExitCode::FAILURE)
}

/// Whether the crate in folder `from` may be built with the one in folder `to`.
fn check(from: &str, to: &str) -> Result<(), String> {
    let (above, below) = (layer_of(from)?, layer_of(to)?);
    if allows(above, below) { Ok(()) } else { Err(format!("`{from}` → `{to}`: {}", rule_for(above))) }
}

fn layer_of(folder: &str) -> Result<Layer, String> {
    match folder.split('/').collect::<Vec<_>>().as_slice() {
        ["core", "operation"] => Ok(Layer::Nouns),
        ["core", _] => Ok(Layer::Core),
        ["effects", _] => Ok(Layer::Effects),
        ["protocol", _] => Ok(Layer::Protocol),
        ["gate"] => Ok(Layer::Gate),
        ["service", "store" | "vault" | "definitions"] => Ok(Layer::Store),
        ["service", _] => Ok(Layer::Service),
        ["surface", _] => Ok(Layer::Surface),
        ["reprieve"] => Ok(Layer::Program),
        ["testkit"] => Ok(Layer::Testkit),
        ["tests"] => Ok(Layer::Tests),
        ["xtask"] => Ok(Layer::Xtask),
        _ => Err(format!("`{folder}` belongs to no layer; decide its place in `xtask/src/layers.rs` and in STYLE.md")),
    }
}

fn allows(above: Layer, below: Layer) -> bool {
    use Layer::{Core, Effects, Gate, Nouns, Program, Protocol, Service, Store, Surface, Testkit, Tests, Xtask};
    match above {
        Nouns | Protocol | Testkit | Xtask => false,
        Core => matches!(below, Nouns),
        Effects | Gate => matches!(below, Nouns | Core),
        Store => matches!(below, Nouns | Core | Gate),
        Service => matches!(below, Nouns | Core | Gate | Store),
        Surface => matches!(below, Nouns | Core | Gate | Protocol | Effects),
        Program => matches!(below, Nouns | Core | Effects | Protocol | Gate | Store | Service | Surface | Testkit),
        Tests => !matches!(below, Tests | Xtask),
    }
}

fn rule_for(above: Layer) -> &'static str {
    match above {
        Layer::Nouns => "`core/operation` imports nothing of ours",
        Layer::Core => "`core` knows `core/operation` only",
        Layer::Effects => "`effects` knows `core` only",
        Layer::Protocol => "`protocol` imports nothing of ours",
        Layer::Gate => "`gate` knows `core` only",
        Layer::Store => "a shared service knows `gate` and `core`",
        Layer::Service => "a service knows `gate`, `core` and the shared services",
        Layer::Surface => "a surface knows `gate`, `protocol`, `effects` and `core`",
        Layer::Program => "the program knows every layer, but not the tests nor the tools",
        Layer::Testkit => "`testkit` imports nothing of ours",
        Layer::Tests => "the tests know everything but themselves and the tools",
        Layer::Xtask => "`xtask` imports nothing of ours",
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn arrows_go_downhill() {
        for (from, to) in [
            ("core/policy", "core/operation"),
            ("effects/sql", "core/operation"),
            ("effects/sql", "core/policy"),
            ("gate", "core/policy"),
            ("service/audit", "gate"),
            ("service/audit", "core/ledger"),
            ("service/audit", "service/store"),
            ("service/store", "core/ledger"),
            ("service/undo", "service/vault"),
            ("surface/postgres", "gate"),
            ("surface/postgres", "protocol/pgwire"),
            ("surface/postgres", "effects/sql"),
            ("surface/console", "core/operation"),
            ("reprieve", "surface/postgres"),
            ("reprieve", "service/audit"),
            ("reprieve", "core/operation"),
            ("reprieve", "testkit"),
            ("tests", "reprieve"),
        ] {
            assert_eq!(check(from, to), Ok(()), "{from} → {to}");
        }
    }

    #[test]
    fn arrows_do_not_go_uphill_or_aside() {
        for (from, to) in [
            ("core/operation", "core/policy"),
            ("core/policy", "core/ledger"),
            ("core/policy", "gate"),
            ("effects/sql", "gate"),
            ("effects/sql", "effects/http"),
            ("effects/sql", "protocol/pgwire"),
            ("protocol/pgwire", "core/operation"),
            ("gate", "effects/sql"),
            ("gate", "protocol/pgwire"),
            ("gate", "service/audit"),
            ("service/audit", "service/secrets"),
            ("service/store", "service/audit"),
            ("service/store", "service/vault"),
            ("service/vault", "service/undo"),
            ("service/audit", "surface/console"),
            ("service/audit", "effects/sql"),
            ("surface/console", "service/approvals"),
            ("surface/console", "service/store"),
            ("surface/console", "surface/postgres"),
            ("surface/postgres", "reprieve"),
            ("surface/postgres", "testkit"),
            ("testkit", "gate"),
            ("reprieve", "xtask"),
            ("reprieve", "tests"),
            ("xtask", "gate"),
            ("gate", "/elsewhere/crate"),
            ("newcomer", "core/operation"),
            ("core/policy/deeper", "core/operation"),
            ("gate", "newcomer"),
        ] {
            let reason = check(from, to).expect_err("it should be refused");
            assert!(!reason.is_empty(), "{from} → {to}");
        }
    }
}
