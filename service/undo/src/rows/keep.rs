//! Rows that an operator named: they stay as they are, and everything else is taken back.

use std::collections::BTreeMap;

use reprieve_gate::RowName;
use tokio_postgres::Transaction;

use super::{Part, make_pairs};
use crate::UndoError;

/// Rows that one request may name.
const MOST: usize = 200;

/// Takes the named rows out of what is to be done, and answers how many of which table. A name that fits nothing is an error: it was
/// meant to save something.
pub(super) async fn leave_out_what_is_kept(
    work: &Transaction<'_>,
    parts: &mut [Part],
    keep: &[RowName],
) -> Result<BTreeMap<String, u64>, UndoError> {
    let mut kept: BTreeMap<String, u64> = BTreeMap::new();
    if keep.len() > MOST {
        return Err(UndoError::Limit(format!("at most {MOST} rows can be named at a time; `--theirs` keeps all that were changed since")));
    }
    for name in keep {
        let no = |because: &str| Err(UndoError::NotUndoable(format!("`{name}` can't be kept: {because}")));
        let is_it =
            |part: &Part| part.table.shown == name.table || part.table.shown.split_once('.').is_some_and(|(_, table)| table == name.table);
        let mut found = parts.iter_mut().filter(|part| is_it(part));
        let part = match (found.next(), found.next()) {
            (Some(part), None) => part,
            (Some(_), Some(_)) => return no("the change is about several tables of that name; write its schema, too"),
            (None, _) => return no("no rows of that table are to be taken back, and definitions are taken back as a whole"),
        };
        if part.table.key.is_empty() {
            return no("the table has no key that tells its rows apart; choose with `--theirs` or `--ours`");
        }
        make_pairs(work, part).await?;
        let text = format!(
            "DELETE FROM {} p WHERE p.had AND {} = $1::pg_catalog.text OR p.has AND {} = $1::pg_catalog.text",
            part.pairs,
            part.table.key_text("(p.before)"),
            part.table.key_text("(p.after)")
        );
        let rows = work.execute(&text, &[&name.key]).await?;
        if rows == 0 {
            return no("the change is not about a row with that key");
        }
        *kept.entry(part.table.shown.clone()).or_default() += rows;
    }
    Ok(kept)
}
