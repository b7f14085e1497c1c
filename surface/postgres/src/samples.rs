//! Sample rows of a change that is measured and will be held: read in the same transaction, before it is rolled back.
//!
//! They come from the journal, by a function that shows an agent's session only rows of tables that it may read anyway, so that calling it
//! tells an agent nothing. Values are masked here, before they go anywhere: what could be about a person is shown by its first letter.

use std::collections::BTreeSet;

use reprieve_operation::{Effect, Reach, Sample, SampleRow};

use crate::session::Ends;

/// Tables with samples, rows of one that the text names, and columns of a row.
const MOST_TABLES: usize = 3;
const MOST_ROWS: usize = 6;
/// Rows of a table that the text does not name.
const ROWS_BESIDES: usize = 3;
const MOST_COLUMNS: usize = 10;
/// Characters of a value.
const LONGEST_VALUE: usize = 40;
const LONGEST_WORD: usize = 24;
/// Rows that are looked at to find those that differ in kind.
const LOOKED_AT: u32 = 100;
/// A text that has so few values in all of its table is a kind of something, not about somebody.
const FEW_VALUES: f64 = 20.0;

/// Parts of names of columns that are about somebody, whatever their type.
const PERSONAL: [&str; 31] = [
    "name",
    "mail",
    "phone",
    "mobile",
    "address",
    "street",
    "zip",
    "postcode",
    "birth",
    "dob",
    "gender",
    "sex",
    "religion",
    "ethnic",
    "health",
    "salary",
    "wage",
    "ssn",
    "social",
    "tax",
    "passport",
    "iban",
    "bic",
    "account_n",
    "card",
    "cvv",
    "pin",
    "lat",
    "lon",
    "ip",
    "license",
];
/// The same, of which not even a letter is shown.
const SECRET: [&str; 9] = ["secret", "token", "password", "passwd", "hash", "salt", "api_key", "private", "credential"];

/// A column as it is shown.
struct Column {
    name: String,
    /// Shown as it is: where it is no text, or a word.
    open: bool,
    plain: bool,
    secret: bool,
    /// Its values say what kind of row it is.
    kind: bool,
}

impl Column {
    fn new(name: String, data_type: &str, is_enum: bool, distinct: f64) -> Self {
        let lower = name.to_lowercase();
        // Short parts of names count as whole words only: `ship_date` is nobody's address.
        let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).collect();
        let says = |parts: &[&str]| parts.iter().any(|part| if part.len() <= 4 { words.contains(part) } else { lower.contains(part) });
        let (secret, personal) = (says(&SECRET), says(&PERSONAL));
        let plain = ["smallint", "integer", "bigint", "numeric", "real", "double precision", "boolean", "date", "uuid", "oid", "interval"];
        let is_plain = plain.contains(&data_type) || data_type.starts_with("time");
        let few = distinct > 0.0 && distinct <= FEW_VALUES;
        let is_text = ["text", "character varying", "character", "citext", "name", "\"char\""].contains(&data_type);
        let kind = !secret && !personal && (is_enum || data_type == "boolean" || (is_text && few));
        Self { name, open: !secret && !personal && (is_plain || kind), plain: is_plain, secret, kind }
    }

    fn show(&self, value: Option<&str>) -> Option<String> {
        let value = value?;
        Some(match (self.open && (self.plain || is_word(value)), self.secret) {
            (true, _) => clip(value),
            (false, true) => "•••".to_owned(),
            (false, false) => masked(value),
        })
    }
}

/// A word or two, as names of kinds are, and no prose, address or markup.
fn is_word(value: &str) -> bool {
    value.chars().count() <= LONGEST_WORD && value.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | ' ' | '.'))
}

fn clip(value: &str) -> String {
    let mut short: String = value.chars().take(LONGEST_VALUE).collect();
    if short.len() < value.len() {
        short.push('…');
    }
    short
}

/// The first letter, and what sort of thing it is; never how long.
fn masked(value: &str) -> String {
    let first: String = value.chars().take(1).filter(|c| c.is_alphanumeric()).collect();
    let domain = value.rsplit_once('@').and_then(|(_, host)| host.rsplit_once('.')).map(|(_, top)| top);
    match domain.filter(|top| (2..=6).contains(&top.len()) && top.chars().all(|c| c.is_ascii_alphabetic())) {
        Some(top) => format!("{first}•••@•••.{top}"),
        None => format!("{first}•••"),
    }
}

/// The values of a row as PostgreSQL writes one (section 8.16.6); `None` if it is not one.
fn fields(image: &str) -> Option<Vec<Option<String>>> {
    let mut rest = image.strip_prefix('(')?.strip_suffix(')')?.chars().peekable();
    let mut all = Vec::new();
    loop {
        let (mut value, mut quoted) = (String::new(), false);
        loop {
            match rest.peek() {
                None | Some(',') => break,
                Some('"') => {
                    quoted = true;
                    rest.next();
                    loop {
                        match rest.next()? {
                            '"' if rest.peek() == Some(&'"') => value.extend(rest.next()),
                            '"' => break,
                            '\\' => value.push(rest.next()?),
                            other => value.push(other),
                        }
                    }
                }
                Some('\\') => {
                    rest.next();
                    value.push(rest.next()?);
                }
                Some(_) => value.extend(rest.next()),
            }
        }
        all.push((quoted || !value.is_empty()).then_some(value));
        if rest.next().is_none() {
            return Some(all);
        }
    }
}

/// Whether an effect changes rows of the table `schema.name`.
fn names(effect: &Effect, full: &str) -> bool {
    match effect {
        Effect::Update { table, .. } | Effect::Delete { table, .. } | Effect::Rewrite { table, .. } => {
            let shown = table.to_string();
            shown == full || full.rsplit('.').next() == Some(shown.as_str())
        }
        _ => false,
    }
}

/// Those that differ in kind first, then as they came.
fn chosen<'a>(columns: &[Column], images: &'a [SampleRow], most: usize) -> Vec<&'a SampleRow> {
    let kind_of = |row: &SampleRow| -> Vec<Option<String>> {
        columns.iter().enumerate().filter(|(_, column)| column.kind).map(|(at, _)| row.before.get(at).cloned().flatten()).collect()
    };
    let mut seen = BTreeSet::new();
    let (new, again): (Vec<&SampleRow>, Vec<&SampleRow>) = images.iter().partition(|row| seen.insert(kind_of(row)));
    new.into_iter().chain(again).take(most).collect()
}

impl Ends {
    /// Takes samples of what the open transaction did. What can't be had is left out: a sample only helps to decide.
    pub(crate) async fn take_samples(&mut self, reach: &Reach, effects: &[Effect]) {
        self.samples.clear();
        if !self.system.shows_samples || reach.estimated {
            return;
        }
        let Ok(view) = self.system.measured_by().await else { return };
        let lost = |name: &String| reach.tables.get(name).map_or(0, |rows| rows.deleted.saturating_add(rows.updated));
        let mut tables: Vec<(String, u64, u32)> = reach
            .tables
            .keys()
            .filter_map(|name| Some((name.clone(), lost(name), view.snapshot.table(name)?)))
            .filter(|(_, of, _)| *of > 0)
            .collect();
        // What the text names first, then what loses most along with it.
        let named = |name: &str| effects.iter().any(|effect| names(effect, name));
        tables.sort_by_key(|(name, of, _)| (!named(name), std::cmp::Reverse(*of)));
        for (table, of, oid) in tables.into_iter().take(MOST_TABLES) {
            let rows = if named(&table) { MOST_ROWS } else { ROWS_BESIDES };
            match self.sample(table, of, oid, rows).await {
                Some(sample) if !sample.rows.is_empty() => self.samples.push(sample),
                Some(_) => {}
                // The transaction failed by it: no other question is answered.
                None => return,
            }
        }
    }

    async fn sample(&mut self, table: String, of: u64, oid: u32, most: usize) -> Option<Sample> {
        #[allow(clippy::cast_precision_loss, reason = "a share")]
        let share = (2.0 * f64::from(LOOKED_AT) / of as f64).min(1.0);
        let sampling = self.system.sampling(oid, share, LOOKED_AT)?;
        // Where it is not installed nothing is asked: an error would end the transaction.
        let ready = self.ask_within(&sampling.ready).await.ok()?;
        if ready.rows.first().and_then(|row| row.first().cloned().flatten()).as_deref() != Some("t") {
            return None;
        }
        let described = self.ask_within(&columns_of(oid)).await.ok()?;
        let columns: Option<Vec<Column>> = described.rows.iter().map(|row| column(row)).collect();
        let columns = columns.filter(|_| described.error.is_none())?;
        let answered = self.ask_within(&sampling.rows).await.ok()?;
        if answered.error.is_some() {
            return None;
        }
        let show = |image: Option<&String>| -> Option<Vec<Option<String>>> {
            let fields = fields(image?)?;
            // Another number of columns: the table was altered on the way.
            (fields.len() == columns.len())
                .then(|| columns.iter().zip(&fields).take(MOST_COLUMNS).map(|(column, value)| column.show(value.as_deref())).collect())
        };
        let images: Vec<SampleRow> = answered
            .rows
            .iter()
            .filter_map(|row| {
                let before = show(row.first().and_then(Option::as_ref))?;
                Some(SampleRow { before, after: show(row.get(1).and_then(Option::as_ref)) })
            })
            .collect();
        let rows = chosen(&columns, &images, most).into_iter().cloned().collect();
        let names = columns.into_iter().take(MOST_COLUMNS).map(|column| clip(&column.name)).collect();
        Some(Sample { table, of, columns: names, rows })
    }
}

/// A table's columns: name, type, whether it is an enumeration, and how many values the statistics know.
fn columns_of(oid: u32) -> String {
    format!(
        "SELECT a.attname, pg_catalog.format_type(a.atttypid, NULL), t.typtype OPERATOR(pg_catalog.=) 'e', COALESCE(s.n_distinct, 0) \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) a.atttypid \
         JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
         LEFT JOIN pg_catalog.pg_stats s ON s.schemaname OPERATOR(pg_catalog.=) n.nspname AND s.tablename OPERATOR(pg_catalog.=) c.relname AND s.attname OPERATOR(pg_catalog.=) a.attname AND NOT s.inherited \
         WHERE a.attrelid OPERATOR(pg_catalog.=) {oid}::pg_catalog.oid AND a.attnum OPERATOR(pg_catalog.>) 0::pg_catalog.int2 AND NOT a.attisdropped ORDER BY a.attnum"
    )
}

fn column(row: &[Option<String>]) -> Option<Column> {
    match row {
        [Some(name), Some(data_type), is_enum, distinct] => {
            let distinct = distinct.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0.0);
            Some(Column::new(name.clone(), data_type, is_enum.as_deref() == Some("t"), distinct))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_the_server_writes_rows() {
        for (image, expected) in [
            ("(1,two,)", vec![Some("1"), Some("two"), None]),
            (r#"("a,b","say ""hi""","back\\slash","")"#, vec![Some("a,b"), Some("say \"hi\""), Some("back\\slash"), Some("")]),
            ("()", vec![None]),
            ("(\"(1,2)\",\u{202E})", vec![Some("(1,2)"), Some("\u{202E}")]),
        ] {
            let expected: Vec<Option<String>> = expected.into_iter().map(|value| value.map(str::to_owned)).collect();
            assert_eq!(fields(image), Some(expected), "{image}");
        }
        for broken in ["", "(", "1,2", "(\"open)", "(a\\"] {
            assert_eq!(fields(broken), None, "{broken}");
        }
    }

    #[test]
    fn only_what_is_about_nobody_is_shown() {
        let show = |name: &str, data_type: &str, distinct: f64, value: &str| {
            Column::new(name.to_owned(), data_type, false, distinct).show(Some(value)).unwrap_or_default()
        };
        for (name, data_type, distinct, value, shown) in [
            ("id", "integer", -1.0, "118204", "118204"),
            ("pickup_at", "date", 400.0, "2026-07-18", "2026-07-18"),
            ("status", "text", 3.0, "confirmed", "confirmed"),
            ("note", "text", 3000.0, "call Maya", "c•••"),
            ("note", "text", 0.0, "not analysed yet", "n•••"),
            ("customer", "text", -1.0, "maya@mail.com", "m•••@•••.com"),
            ("customer", "text", -1.0, "maya@mail.toolongtobeone", "m•••"),
            ("customer", "text", -1.0, "a@b.<script>", "a•••"),
            ("phone", "bigint", -1.0, "491701234567", "4•••"),
            ("gender", "text", 3.0, "diverse", "d•••"),
            ("api_key", "text", 2.0, "sk-1", "•••"),
            ("token_hash", "bytea", -1.0, "\\x00", "•••"),
            ("payload", "jsonb", -1.0, "{\"a\":1}", "•••"),
            ("ship_date", "date", 30.0, "2026-01-01", "2026-01-01"),
            ("status", "text", 3.0, &"x".repeat(50), "x•••"),
            ("status", "text", 1.0, "<b>same everywhere</b>", "•••"),
            ("total", "numeric", -1.0, &"9".repeat(50), &format!("{}…", "9".repeat(40))),
        ] {
            assert_eq!(show(name, data_type, distinct, value), shown, "{name} {value}");
        }
    }

    #[test]
    fn every_kind_comes_before_another_of_the_same() {
        let columns = [Column::new("id".to_owned(), "integer", false, -1.0), Column::new("status".to_owned(), "text", false, 3.0)];
        let row = |id: u32, status: &str| SampleRow { before: vec![Some(id.to_string()), Some(status.to_owned())], after: None };
        let images: Vec<SampleRow> = (0..50).map(|id| row(id, "completed")).chain([row(90, "confirmed"), row(91, "cancelled")]).collect();
        let ids: Vec<String> = chosen(&columns, &images, MOST_ROWS).iter().filter_map(|row| row.before[0].clone()).collect();
        assert_eq!(ids, ["0", "90", "91", "1", "2", "3"]);
    }
}
