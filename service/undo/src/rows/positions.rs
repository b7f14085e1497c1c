//! Putting sequences back where they stood before something set them anew: `TRUNCATE … RESTART IDENTITY`, `ALTER SEQUENCE … RESTART`.
//!
//! Positions are no part of a transaction: others count on meanwhile. A sequence is set back only where no number is given twice by that.

use tokio_postgres::Transaction;

use crate::UndoError;

/// Sequences that are still there, with where they stood before the oldest of these transactions.
const KEPT: &str = "
SELECT DISTINCT ON (s.relation) s.new, pg_catalog.format('%I.%I', n.nspname, c.relname), q.seqincrement > 0
FROM {source} s JOIN pg_catalog.pg_class c ON c.oid = s.relation AND c.relkind = 'S' JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 JOIN pg_catalog.pg_sequence q ON q.seqrelid = c.oid
WHERE s.xid IN ({xids}) AND s.statement < 0 AND s.old IS NULL ORDER BY s.relation, s.statement DESC";

/// Sets sequences back whose position the transactions `xids` wrote down.
pub(crate) async fn put_positions_back(work: &Transaction<'_>, source: &str, xids: &[u64]) -> Result<(), UndoError> {
    let listed = xids.iter().map(|xid| format!("'{xid}'")).collect::<Vec<_>>().join(",");
    for row in work.query(&KEPT.replace("{source}", source).replace("{xids}", &listed), &[]).await? {
        let (kept, name, is_rising): (String, String, bool) = (row.get(0), row.get(1), row.get(2));
        let Some((value, was_called)) = kept.split_once(',') else { continue };
        let Ok(value) = value.parse::<i64>() else { continue };
        let now = work.query_one(&format!("SELECT last_value, is_called FROM {name}"), &[]).await?;
        let (at, is_called): (i64, bool) = (now.get(0), now.get(1));
        let is_beyond = if is_rising { at >= value } else { at <= value };
        if !(is_called && is_beyond) {
            let text = "SELECT pg_catalog.setval($1::pg_catalog.text::pg_catalog.regclass, $2, $3)";
            work.execute(text, &[&name, &value, &(was_called == "t" || was_called == "true")]).await?;
        }
    }
    Ok(())
}
