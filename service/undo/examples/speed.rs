//! How fast undo is: `cargo run --release -p reprieve-undo --example speed [ROWS]`, on a server of its own.
//!
//! Prints one JSON line: seconds for a DELETE of all rows without and with the journal, for its undo and the undo of that, the same for
//! an UPDATE, and bytes of the journal a row.

use std::time::Instant;

use reprieve_testkit::{Postgres, PostgresOptions};
use reprieve_undo::{Choice, Taken, journal, revert};
use tokio_postgres::{Client, NoTls};

const TABLE: &str = "DROP TABLE IF EXISTS big; CREATE TABLE big (id bigint PRIMARY KEY, name text NOT NULL, amount numeric(10,2), at timestamptz DEFAULT now(), note text); \
 CREATE INDEX ON big (name); INSERT INTO big SELECT i, 'name ' || i, i * 1.25, now(), repeat('x', 30) FROM generate_series(1, $rows) i; ANALYZE big";

async fn run(client: &mut Client, sql: &str) -> anyhow::Result<(f64, u64)> {
    let work = client.transaction().await?;
    let started = Instant::now();
    work.batch_execute(sql).await?;
    let xid: String = work.query_one("SELECT pg_current_xact_id()::text", &[]).await?.get(0);
    work.commit().await?;
    Ok((started.elapsed().as_secs_f64(), xid.parse()?))
}

async fn undo(client: &mut Client, xid: u64) -> anyhow::Result<(f64, u64)> {
    let started = Instant::now();
    let work = client.transaction().await?;
    let report = revert(&work, &[Taken::unmeasured(xid)], Choice::Stop).await?;
    work.commit().await?;
    Ok((started.elapsed().as_secs_f64(), report.xid.unwrap_or_default()))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let rows = std::env::args().nth(1).unwrap_or_else(|| "1000000".to_owned());
    let settings = [("shared_buffers", "512MB"), ("max_wal_size", "8GB"), ("work_mem", "64MB")];
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let server = Postgres::start_with(&PostgresOptions { fsync: true, settings, ..PostgresOptions::default() })?;
    let (mut client, connection) = tokio_postgres::connect(&server.superuser_url("postgres"), NoTls).await?;
    tokio::spawn(connection);
    let table = TABLE.replace("$rows", &rows);
    client.batch_execute(&table).await?;
    let (plain, _) = run(&mut client, "DELETE FROM big").await?;
    client.batch_execute(&table).await?;
    let (plain_update, _) = run(&mut client, "UPDATE big SET amount = amount + 1").await?;
    client.batch_execute(&format!("{table}; CREATE SCHEMA reprieve")).await?;
    for step in journal::planned(&client).await? {
        client.batch_execute(&step.sql).await?;
    }
    let (deleted, xid) = run(&mut client, "DELETE FROM big").await?;
    let bytes: i64 =
        client.query_one("SELECT pg_total_relation_size('reprieve.journal') / (SELECT count(*) FROM reprieve.journal)", &[]).await?.get(0);
    let (restored, again) = undo(&mut client, xid).await?;
    let (redone, last) = undo(&mut client, again).await?;
    undo(&mut client, last).await?;
    client.batch_execute("VACUUM ANALYZE big").await?;
    let (updated, xid) = run(&mut client, "UPDATE big SET amount = amount + 1").await?;
    let (reverted, _) = undo(&mut client, xid).await?;
    println!(
        "{{\"rows\":{rows},\"delete_s\":{plain:.2},\"delete_journaled_s\":{deleted:.2},\"undo_s\":{restored:.2},\"undo_of_the_undo_s\":{redone:.2},\
         \"update_s\":{plain_update:.2},\"update_journaled_s\":{updated:.2},\"undo_of_update_s\":{reverted:.2},\"journal_bytes_a_row\":{bytes}}}"
    );
    Ok(())
}
