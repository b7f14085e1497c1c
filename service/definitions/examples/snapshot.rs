//! Takes a snapshot of the database at a URL and says how long each part of it took.

use std::time::Instant;

use anyhow::{Context, Result};
use reprieve_definitions::{Definitions, Options, Scope, Tools, plan_undo, take};

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).context("give a URL")?;
    let tools = Tools::find(15)?;
    let start = Instant::now();
    let taken = take(&tools, &url, &Scope::default()).await?;
    let took = start.elapsed();
    let start = Instant::now();
    let read = Definitions::parse(taken.text())?;
    let parsed = start.elapsed();
    let start = Instant::now();
    let script = plan_undo(&taken, &read, &read, Options::default());
    let (entries, bytes) = (taken.entries().len(), taken.text().len());
    println!("{entries} entries, {bytes} bytes; taken and read in {took:?}, of which reading {parsed:?}");
    println!("comparing three of them: {:?}, {} statements", start.elapsed(), script.statements.len());
    Ok(())
}
