//! A throw-away gateway that allows everything and measures it all the same: prints one JSON line, runs until its input ends.
//!
//! Arguments: the superuser's URL at the server behind it, without a database; then what it lets in, `system=NAME` for the database
//! of that name and `agent=NAME` for an agent. `conformance/run` plays other people's test suites through it.

use std::io;

use anyhow::{Context, Result, bail};
use reprieve_testkit::{Gateway, GatewayOptions, GuardedSystem};
use serde_json::{Map, Value, json};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let server = arguments.next().context("no URL of the server")?;
    let (mut systems, mut agents) = (Vec::new(), Vec::new());
    for argument in arguments {
        match argument.split_once('=') {
            Some(("system", name)) => systems.push(name.to_owned()),
            Some(("agent", name)) => agents.push(name.to_owned()),
            _ => bail!("`{argument}` is neither `system=NAME` nor `agent=NAME`"),
        }
    }
    // Test suites of servers and drivers want a superuser.
    let guard = |name: &String| GuardedSystem { unbounded_role: true, ..GuardedSystem::new(name, "staging", &format!("{server}/{name}")) };
    let guarded = systems.iter().map(guard);
    let options = GatewayOptions { systems: guarded.collect(), profile: "observe".to_owned(), ..GatewayOptions::default() };
    let gateway = Gateway::start(options)?;
    let names: Vec<&str> = systems.iter().map(String::as_str).collect();
    let mut urls = Map::new();
    for agent in &agents {
        urls.insert(agent.clone(), Value::from(gateway.agent(agent, &names, "read,write,destroy,grant")?));
    }
    println!("{}", json!({ "agents": urls, "port": gateway.port(), "folder": gateway.folder() }));
    io::copy(&mut io::stdin().lock(), &mut io::sink()).context("cannot wait for the end of input")?;
    Ok(())
}
