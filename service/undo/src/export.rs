//! Exporting: a change's rows from the vault alone, for the day on which there is no database left to put them back into.

use std::collections::HashMap;

use reprieve_operation::Timestamp;
use serde::Serialize;

use crate::{Change, Images, UndoError, secured, snapshots, source::StoredImages};

/// One row as it was written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExportedRow {
    /// `schema.table` where definitions that are kept know it.
    pub table: Option<String>,
    /// Its number in the database.
    pub relation: u32,
    /// The statement; those of one number belong together.
    pub statement: i64,
    /// The row before, as PostgreSQL spells rows. `None`: there was none.
    pub before: Option<String>,
    /// The row after. `None`: there is none.
    pub after: Option<String>,
}

/// Hands every row that the vault has of a change to `each`, in the order in which they were written down, and answers how many.
/// Needs the ledger and the vault, and no database.
pub async fn export(images: &Images, change: &Change, mut each: impl FnMut(ExportedRow)) -> Result<u64, UndoError> {
    let xid = change.xid.ok_or_else(|| UndoError::NotUndoable(format!("{} has no transaction", change.undo)))?;
    let names = table_names(images, change).await?;
    let mut rows = 0;
    let mut rest = Vec::new();
    let mut failed = None;
    images
        .read(&change.system, xid, |piece| {
            rest.extend_from_slice(&piece);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                match row(&line, &names) {
                    Some(row) => {
                        rows += 1;
                        each(row);
                    }
                    None => failed = Some(UndoError::Images("a row in the vault can't be read".to_owned())),
                }
            }
        })
        .await?;
    match failed {
        Some(error) => Err(error),
        None if rows == 0 => Err(UndoError::Images(format!("the vault has no rows of {}", change.undo))),
        None => Ok(rows),
    }
}

/// Tables' names by their numbers, from the last definitions that were kept before the change ended.
async fn table_names(images: &Images, change: &Change) -> Result<HashMap<u32, String>, UndoError> {
    let kept = snapshots(images.history(), &change.system)?;
    let Some(snapshot) = kept.iter().find(|snapshot| snapshot.index < change.index).or(kept.last()) else { return Ok(HashMap::new()) };
    let definitions = crate::definitions::read(images.vault().await?, snapshot.object).await?;
    let tables = definitions.entries().iter().filter(|entry| entry.kind() == "TABLE");
    Ok(tables.filter_map(|entry| Some((entry.identity()?.1, format!("{}.{}", entry.schema().unwrap_or_default(), entry.name())))).collect())
}

/// Reads a line as COPY writes it: transaction, statement, relation, before, after.
fn row(line: &[u8], names: &HashMap<u32, String>) -> Option<ExportedRow> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let mut fields = line.split('\t');
    let (_, statement, relation) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let (before, after) = (value(fields.next()?)?, value(fields.next()?)?);
    let whole = fields.next().is_none();
    whole.then(|| ExportedRow { table: names.get(&relation).cloned(), relation, statement, before, after })
}

/// Undoes the escapes of COPY's text format (PostgreSQL 15, COPY, "Text Format"). The outer `None`: that is none.
fn value(field: &str) -> Option<Option<String>> {
    if field == "\\N" {
        return Some(None);
    }
    let mut text = String::with_capacity(field.len());
    let mut rest = field.chars();
    while let Some(c) = rest.next() {
        text.push(match c {
            '\\' => match rest.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\u{b}',
                other => other,
            },
            c => c,
        });
    }
    Some(Some(text))
}

impl Images {
    /// Reads one transaction's rows from the vault, as COPY writes them: from what is stored for good, or else from what a strict
    /// system put there before the transaction was final.
    async fn read(&self, system: &reprieve_operation::SystemName, xid: u64, mut each: impl FnMut(bytes::Bytes)) -> Result<(), UndoError> {
        let is_in = |part: &StoredImages| part.transactions.0 <= xid && part.transactions.1 >= xid;
        let mut found: Vec<StoredImages> = crate::stored(self.history(), system)?
            .into_iter()
            .filter(|(part, counts)| *counts && is_in(part))
            .map(|(part, _)| part)
            .collect();
        found.reverse();
        let mut any = false;
        let vault = self.vault().await?;
        let mut objects: Vec<_> = found.into_iter().map(|part| part.object).collect();
        loop {
            for object in &objects {
                let mut reader = vault.open_pack(object).await?;
                for entry in crate::images::pieces_of(&mut reader, system, xid).await? {
                    each(reader.read(entry).await?);
                    any = true;
                }
            }
            if any {
                return Ok(());
            }
            let secured = secured(self.history(), system, Timestamp(0))?;
            let Some(one) = secured.into_iter().find(|one| one.transactions.contains(&xid)) else { return Ok(()) };
            // Asked once: what holds the transaction holds rows of it.
            any = true;
            objects = vec![one.object];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_or_refused() {
        let names = HashMap::from([(16400, "public.orders".to_owned())]);
        let read = row(b"700\t4194405\t16400\t(1,\"a\\\\tb\\n\")\t\\N\n", &names).expect("a row");
        assert_eq!((read.table.as_deref(), read.before.as_deref(), read.after), (Some("public.orders"), Some("(1,\"a\\tb\n\")"), None));
        for wrong in [
            "",
            "\n",
            "700\t1\t16400\ta\n",
            "700\t1\t16400\ta\tb\tc\n",
            "700\t1\tx\ta\tb\n",
            "700\t1\t16400\ta\\\tb\n",
            "700\t1\t16400\ta\tb",
        ] {
            assert_eq!(row(wrong.as_bytes(), &names), None, "{wrong:?}");
        }
    }
}
