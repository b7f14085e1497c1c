//! A throw-away PostgreSQL for scripts: prints one JSON line, runs until its input ends.
//!
//! Arguments are settings, `name=value`. `bench/run` and `conformance/run` start their server with it.

use std::io;

use anyhow::{Context, Result};
use reprieve_testkit::{Postgres, PostgresOptions};

fn main() -> Result<()> {
    let mut options = PostgresOptions::default();
    for argument in std::env::args().skip(1) {
        let (name, value) = argument.split_once('=').with_context(|| format!("`{argument}` is not `name=value`"))?;
        match name {
            "fsync" => options.fsync = value == "on",
            "ssl" => options.tls = value == "on",
            _ => options.settings.push((name.to_owned(), value.to_owned())),
        }
    }
    let server = Postgres::start_with(&options)?;
    // Neither value needs escaping: the URL is percent-encoded, the port a number.
    println!("{{\"url\": \"{}\", \"port\": {}}}", server.superuser_url("postgres"), server.port());
    io::copy(&mut io::stdin().lock(), &mut io::sink()).context("cannot wait for the end of input")?;
    Ok(())
}
