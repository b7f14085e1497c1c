//! What has to be known of a table to put its rows back.

use tokio_postgres::Transaction;

use crate::UndoError;

/// A table as it is now.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) oid: u32,
    /// Quoted, with its schema.
    pub(crate) name: String,
    /// For people: `schema.table`.
    pub(crate) shown: String,
    pub(crate) columns: Vec<Column>,
    /// What tells its rows apart; empty where nothing does.
    pub(crate) key: Vec<KeyColumn>,
    /// Whether somebody defined a cast to its rows, which would run in place of reading them.
    pub(crate) has_cast: bool,
    /// Whether something that must be unique is checked by a trigger, at the statement's or the transaction's end.
    pub(crate) checks_later: bool,
    /// Whether somebody defined rules for its rows, beside which a row that is in the way can't be passed over.
    pub(crate) has_rules: bool,
}

/// A column.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    /// Quoted.
    pub(crate) name: String,
    /// Computed by the server from others.
    pub(crate) generated: bool,
    /// `GENERATED ALWAYS AS IDENTITY`: an UPDATE can't set it.
    pub(crate) identity_always: bool,
}

/// A column of the key.
#[derive(Debug, Clone)]
pub(crate) struct KeyColumn {
    /// Quoted.
    pub(crate) name: String,
    /// The equality operator of the key's index, qualified.
    pub(crate) equals: String,
}

const TABLE: &str = "
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.concat(n.nspname, '.', c.relname),
 EXISTS (SELECT FROM pg_catalog.pg_cast k WHERE k.casttarget = c.reltype OR k.castsource = c.reltype),
 EXISTS (SELECT FROM pg_catalog.pg_index i WHERE NOT i.indimmediate AND (i.indrelid = c.oid
  OR i.indrelid IN (SELECT p.relid FROM pg_catalog.pg_partition_tree(c.oid) p))), c.relhasrules
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1 AND c.relkind IN ('r', 'p')";

const COLUMNS: &str = "
SELECT pg_catalog.quote_ident(a.attname), a.attgenerated <> '', a.attidentity = 'a'
FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

/// The primary key, or else the smallest unique index that covers every row.
const KEY: &str = "
SELECT pg_catalog.quote_ident(a.attname), pg_catalog.format('OPERATOR(%I.%s)', s.nspname, o.oprname)
FROM (SELECT i.indexrelid, i.indkey, i.indclass, i.indnkeyatts FROM pg_catalog.pg_index i
  WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1 AND a.attnum = ANY (i.indkey) AND NOT a.attnotnull)
  ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid LIMIT 1) i,
 LATERAL ROWS FROM (pg_catalog.unnest(i.indkey::pg_catalog.int2[]), pg_catalog.unnest(i.indclass::pg_catalog.oid[])) WITH ORDINALITY k(attnum, opclass, place)
 JOIN pg_catalog.pg_attribute a ON a.attrelid = $1 AND a.attnum = k.attnum
 JOIN pg_catalog.pg_opclass c ON c.oid = k.opclass
 JOIN pg_catalog.pg_amop m ON m.amopfamily = c.opcfamily AND m.amopstrategy = 3 AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype
 JOIN pg_catalog.pg_operator o ON o.oid = m.amopopr JOIN pg_catalog.pg_namespace s ON s.oid = o.oprnamespace
WHERE k.place <= i.indnkeyatts ORDER BY k.place";

impl Table {
    /// Looks at the table. `None`: there is none with this oid.
    pub(crate) async fn look(work: &Transaction<'_>, oid: u32) -> Result<Option<Self>, UndoError> {
        let Some(row) = work.query_opt(TABLE, &[&oid]).await? else { return Ok(None) };
        let columns = work.query(COLUMNS, &[&oid]).await?;
        let key = work.query(KEY, &[&oid]).await?;
        Ok(Some(Self {
            oid,
            name: row.get(0),
            shown: row.get(1),
            has_cast: row.get(2),
            checks_later: row.get(3),
            has_rules: row.get(4),
            columns: columns.iter().map(|row| Column { name: row.get(0), generated: row.get(1), identity_always: row.get(2) }).collect(),
            key: key.iter().map(|row| KeyColumn { name: row.get(0), equals: row.get(1) }).collect(),
        }))
    }

    /// `left` and `right` have the same key. Both are SQL for rows of this table.
    pub(crate) fn same_key(&self, left: &str, right: &str) -> String {
        let columns =
            self.key.iter().map(|column| format!("{left}.{name} {equals} {right}.{name}", name = column.name, equals = column.equals));
        columns.collect::<Vec<_>>().join(" AND ")
    }

    /// A row's key as people write it: its value, or several as PostgreSQL spells a row, without the parentheses.
    pub(crate) fn key_text(&self, row: &str) -> String {
        match self.key.as_slice() {
            [] => "NULL::pg_catalog.text".to_owned(),
            [only] => format!("pg_catalog.concat({row}.{})", only.name),
            several => {
                let columns: Vec<String> = several.iter().map(|column| format!("{row}.{}", column.name)).collect();
                let spelled = format!("pg_catalog.textin(pg_catalog.record_out(ROW({})))", columns.join(", "));
                format!("pg_catalog.substr({spelled}, 2, pg_catalog.length({spelled}) - 2)")
            }
        }
    }

    /// The columns that a row is written with.
    pub(crate) fn written(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| !column.generated)
    }

    /// Whether two rows differ in something that an UPDATE shouldn't or can't set: they are taken out and put in anew.
    pub(crate) fn moved(&self, left: &str, right: &str) -> String {
        let fixed = self.columns.iter().filter(|column| column.identity_always);
        let fixed: String = fixed.map(|column| format!(" OR {left}.{0} IS DISTINCT FROM {right}.{0}", column.name)).collect();
        format!("(NOT ({}){fixed})", self.same_key(left, right))
    }
}
