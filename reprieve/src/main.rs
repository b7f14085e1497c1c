//! The program: arguments, settings, and one command.
//!
//! What runs is wired in `wire.rs`; the gateway's life is in `serve.rs`.

// Printing goes through `tell!`, which survives a closed pipe.
#![warn(clippy::print_stdout)]

// First: the others use its macro.
#[macro_use]
mod out;

mod args;
mod calls;
mod checklist;
mod curl;
mod demo;
mod environment;
mod explain;
mod incident;
mod init;
mod keys;
mod ledger;
mod notify;
mod operator;
mod people;
mod policy;
mod protect;
mod recovery;
mod replay;
mod serve;
mod services;
mod settings;
mod shown;
mod simulation;
mod undo;
mod vault;
mod verify;
mod wire;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{
    args::{Cli, Command},
    operator::Refused,
    settings::Settings,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let log =
        std::env::var("REPRIEVE_LOG").unwrap_or_else(|_| if matches!(cli.command, Command::Serve) { "info" } else { "warn" }.to_owned());
    tracing_subscriber::fmt().with_env_filter(log).with_writer(std::io::stderr).init();
    match run(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) if error.is::<Refused>() => {
            report(&cli, &error);
            ExitCode::from(4)
        }
        Err(error) => {
            report(&cli, &error);
            ExitCode::FAILURE
        }
    }
}

fn report(cli: &Cli, error: &anyhow::Error) {
    if cli.json {
        tell!("{}", serde_json::json!({ "error": format!("{error:#}") }));
    } else {
        eprintln!("reprieve: {error:#}");
    }
}

fn run(cli: &Cli) -> anyhow::Result<u8> {
    match &cli.command {
        Command::Init(init) => return init::init(cli, init),
        Command::Demo(demo) => return demo::demo(demo),
        // Whoever checks what we handed out has nothing of ours.
        Command::Verify(what) => return verify::verify(cli, what),
        // There are no settings yet: they come back with it.
        Command::Recovery(args::Recovery::Gateway { kit, identity, to }) => {
            return recovery::own::restore(cli, kit, identity.as_deref(), to);
        }
        // What is compiled in can be read without settings.
        Command::Catalog(command) if !cli.config.exists() => return calls::catalog_show(cli, None, command),
        _ => {}
    }
    let settings = Settings::read(&cli.config)?;
    match &cli.command {
        Command::Init(_) | Command::Demo(_) | Command::Verify(_) => Ok(0),
        Command::Serve => serve::serve(cli, settings),
        Command::Check => serve::check(cli, &settings),
        Command::Protect(protect) => protect::protect(cli, &settings, protect),
        Command::Undo(command) => undo::undo(cli, &settings, command),
        Command::Vault(command) => vault::vault(cli, &settings, command),
        Command::Secret(secret) => people::secret(cli, &settings, secret),
        Command::Agent(agent) => people::agent(cli, &settings, agent),
        Command::Operator(operator) => people::operator(cli, &settings, operator),
        Command::Env { agent } => environment::environment(cli, &settings, agent),
        Command::Schedule(schedule) => people::schedule(cli, &settings, schedule),
        Command::Hold(hold) => people::hold(cli, &settings, hold),
        Command::Freeze(freeze) => people::freeze(cli, &settings, freeze),
        Command::Thaw(thaw) => people::thaw(cli, &settings, thaw),
        Command::Ledger(command) => ledger::ledger(cli, &settings, command),
        Command::Policy(command) => policy::policy(cli, &settings, command),
        Command::Explain(args::Explain::Sql { environment }) => explain::explain(&settings, environment),
        Command::Explain(args::Explain::Http { environment }) => calls::explain_lines(&settings, environment),
        Command::Http(command) => calls::http(cli, &settings, command),
        Command::Catalog(command) => calls::catalog_show(cli, Some(&settings), command),
        Command::Backup(command) => recovery::backup(cli, &settings, command),
        Command::Drill(command) => recovery::drills::drill(cli, &settings, command),
        Command::Restore(restore) => recovery::restore::restore(cli, &settings, restore),
        Command::Checklist => checklist::checklist(cli, &settings),
        Command::Incident(incident) => incident::incident(cli, &settings, incident),
        Command::Recovery(args::Recovery::Gateway { .. }) => Ok(0),
        Command::Recovery(args::Recovery::Status) => recovery::status(cli, &settings),
        Command::Recovery(args::Recovery::Kit) => recovery::own::kit(&settings),
    }
}
