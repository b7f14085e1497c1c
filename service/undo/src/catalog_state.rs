//! The catalogue's state: a word that is another one after every change of a definition, and the same as long as there is none.
//!
//! Every row of a catalogue is told by the transaction that wrote it and by its place (PostgreSQL, section 5.5, "System Columns"), so a
//! sum over them misses no insert, update or delete. The servers' counters of changes won't do for that: a session reports them up to
//! ten seconds late.

use tokio_postgres::{Client, GenericClient, IsolationLevel, Transaction};

use crate::UndoError;

/// Catalogs whose rows say nothing of definitions, and that may be long.
const NO_DEFINITIONS: [&str; 3] = ["pg_statistic", "pg_largeobject", "pg_largeobject_metadata"];

/// The state as the session, or its open transaction, sees it.
pub(crate) async fn state(client: &impl GenericClient) -> Result<String, UndoError> {
    let text = client
        .query_one(
            "SELECT pg_catalog.string_agg(pg_catalog.format('SELECT %L, pg_catalog.count(*), pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.concat(t.xmin, t.ctid), 0)) FROM pg_catalog.%I t', \
             c.relname, c.relname), ' UNION ALL ' ORDER BY c.oid) FROM pg_catalog.pg_class c \
             WHERE c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace AND c.relkind = 'r' AND NOT c.relisshared AND NOT c.relname = ANY ($1)",
            &[&NO_DEFINITIONS.as_slice()],
        )
        .await?
        .get::<_, String>(0);
    let summed = format!("SELECT pg_catalog.md5(pg_catalog.string_agg(s::pg_catalog.text, ',')) FROM ({text}) s");
    Ok(client.query_one(&summed, &[]).await?.get(0))
}

/// One look at a database that others can share.
pub(crate) struct Look<'a> {
    work: Transaction<'a>,
    /// The name by which they do.
    pub(crate) exported: String,
}

impl<'a> Look<'a> {
    pub(crate) async fn begin(client: &'a mut Client) -> Result<Self, UndoError> {
        let work = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start().await?;
        let exported = work.query_one("SELECT pg_catalog.pg_export_snapshot()", &[]).await?.get(0);
        Ok(Self { work, exported })
    }

    /// Which transactions it shows (`pg_current_snapshot()`), and the catalogue's state.
    pub(crate) async fn end(self) -> Result<(String, String), UndoError> {
        let seen: String = self.work.query_one("SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text", &[]).await?.get(0);
        let state = state(&self.work).await?;
        self.work.rollback().await?;
        Ok((seen, state))
    }
}
