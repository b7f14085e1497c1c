//! Setting tables aside: what a person agreed to drop is moved where no agent reaches it, at any size in no time.
//!
//! Before the DROP runs, `set_aside` moves the table into a schema of its own, `reprieve_aside_OID`, with its indexes, sequences and
//! privileges, and puts an empty double of the same name in its place. The DROP then takes the double, under the agent's own rights:
//! what it answers, complains about or takes along is the server's own business. What remembers that the table was moved is the
//! catalogue itself: in the snapshots of definitions it is a table that kept its number and changed its schema, which the plan takes
//! back like any other move (`definitions.rs`). Tables that can't be moved unnoticed are written down whole (`journal.rs`).

use std::time::Duration;

use tokio_postgres::Client;

use crate::{UndoError, journal::Step};

/// The function's name and the types of its arguments.
const SIGNATURE: &str = "reprieve.set_aside(pg_catalog.oid[])";

const BODY: &str = include_str!("aside/set_aside.sql");

/// A call that sets these tables aside and answers the numbers of their doubles, as an array's text.
pub(crate) fn set_aside(relations: &[u32]) -> String {
    let listed = relations.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    format!("SELECT reprieve.set_aside('{{{listed}}}'::pg_catalog.oid[])")
}

/// Whether a schema holds a table set aside: its name ends in the table's number.
pub(crate) fn is_aside(schema: &str) -> bool {
    schema.strip_prefix("reprieve_aside_").is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Installs the function, if it isn't there as it has to be.
pub(crate) async fn planned(client: &Client) -> Result<Option<Step>, UndoError> {
    let current = client
        .query_opt(
            "SELECT f.prosrc FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace s ON s.oid = f.pronamespace \
             WHERE s.nspname = 'reprieve' AND f.proname = 'set_aside' AND f.prosecdef AND f.proconfig = '{\"search_path=pg_catalog, pg_temp\"}'",
            &[],
        )
        .await?;
    Ok(current.is_none_or(|row| row.get::<_, String>(0) != BODY).then(|| Step {
        purpose: "set a table aside before it is dropped".to_owned(),
        sql: format!(
            "CREATE OR REPLACE FUNCTION reprieve.set_aside(relations pg_catalog.oid[]) RETURNS pg_catalog.text LANGUAGE plpgsql VOLATILE \
             SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $aside${BODY}$aside$"
        ),
    }))
}

/// Takes the function away, and what was set aside with it.
pub(crate) async fn removal(client: &Client) -> Result<Vec<Step>, UndoError> {
    let mut steps: Vec<Step> = schemas(client)
        .await?
        .into_iter()
        .map(|(schema, tables, _)| Step {
            purpose: format!("give up what was set aside: {}", tables.join(", ")),
            sql: format!("DROP SCHEMA {schema} CASCADE"),
        })
        .collect();
    steps.push(Step { purpose: "take away set_aside".to_owned(), sql: format!("DROP FUNCTION IF EXISTS {SIGNATURE}") });
    Ok(steps)
}

/// Schemas of this login's that hold something set aside: the name, what is in it, and for how many seconds.
async fn schemas(client: &Client) -> Result<Vec<(String, Vec<String>, f64)>, UndoError> {
    let rows = client
        .query(
            "SELECT pg_catalog.quote_ident(n.nspname), ARRAY(SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c \
              WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm') ORDER BY 1), \
             pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - (pg_catalog.substring(pg_catalog.obj_description(n.oid, 'pg_namespace'), \
              'at (\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d)$') || ' UTC')::pg_catalog.timestamptz) \
             FROM pg_catalog.pg_namespace n WHERE n.nspname ~ '^reprieve_aside_[0-9]+$' AND pg_catalog.pg_get_userbyid(n.nspowner) = current_user ORDER BY 1",
            &[],
        )
        .await?;
    // A schema whose comment somebody took away is old enough never: people have to look.
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get::<_, Option<f64>>(2).unwrap_or(0.0))).collect())
}

/// Drops what was set aside longer than `window` ago, and says what that was.
pub(crate) async fn purge(client: &Client, window: Duration) -> Result<Vec<String>, UndoError> {
    let mut purged = Vec::new();
    for (schema, tables, seconds) in schemas(client).await? {
        if seconds > window.as_secs_f64() {
            client.batch_execute(&format!("DROP SCHEMA {schema} CASCADE")).await?;
            purged.extend(tables);
        }
    }
    Ok(purged)
}
