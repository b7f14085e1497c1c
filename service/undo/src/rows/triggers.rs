//! Triggers of users and of foreign keys: left out while rows are put back, and as they were afterwards.

use tokio_postgres::{Transaction, error::SqlState};

use super::Part;
use crate::UndoError;

/// Triggers of users and foreign keys are left out where the login may: cascades must not run again. The journal's triggers always run.
pub(super) async fn leave_triggers_out(work: &Transaction<'_>) -> Result<bool, UndoError> {
    work.batch_execute("SAVEPOINT unhindered").await?;
    match work.batch_execute("SET LOCAL session_replication_role = replica").await {
        Ok(()) => Ok(true),
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            work.batch_execute("ROLLBACK TO SAVEPOINT unhindered; SET CONSTRAINTS ALL DEFERRED").await?;
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn disable_triggers(work: &Transaction<'_>, parts: &[Part]) -> Result<(), UndoError> {
    switch_triggers(work, parts, "tgenabled <> 'D'", "DISABLE").await
}

/// Those that were disabled before are not in the list: it is kept in a temporary table.
pub(super) async fn enable_triggers(work: &Transaction<'_>, _parts: &[Part]) -> Result<(), UndoError> {
    let rows = work.query("SELECT s.statement FROM pg_temp.undo_triggers s", &[]).await?;
    for row in rows {
        work.batch_execute(row.get(0)).await?;
    }
    Ok(())
}

async fn switch_triggers(work: &Transaction<'_>, parts: &[Part], which: &str, how: &str) -> Result<(), UndoError> {
    work.batch_execute("CREATE TEMPORARY TABLE undo_triggers (statement pg_catalog.text) ON COMMIT DROP").await?;
    for part in parts {
        let triggers = work
            .query(
                &format!(
                    "SELECT pg_catalog.quote_ident(t.tgname), t.tgenabled::pg_catalog.text FROM pg_catalog.pg_trigger t \
                     WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.{which} \
                     AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace WHERE f.oid = t.tgfoid AND n.nspname = 'reprieve')"
                ),
                &[&part.table.oid],
            )
            .await?;
        for trigger in triggers {
            let (name, enabled): (String, String) = (trigger.get(0), trigger.get(1));
            let table = &part.table.name;
            work.batch_execute(&format!("ALTER TABLE {table} {how} TRIGGER {name}")).await?;
            let again = match enabled.as_str() {
                "R" => "ENABLE REPLICA",
                "A" => "ENABLE ALWAYS",
                _ => "ENABLE",
            };
            let statement = format!("ALTER TABLE {table} {again} TRIGGER {name}");
            work.execute("INSERT INTO pg_temp.undo_triggers VALUES ($1)", &[&statement]).await?;
        }
    }
    Ok(())
}
