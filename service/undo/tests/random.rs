//! Random schemas, random rows, random changes through the real journal: a state, a change, its undo, and the same state again; then
//! the undo of that undo, and the change is there again. A statement that fails is no harm.
//!
//! A few dozen cases as part of every run; `REPRIEVE_CASES=3000 cargo test -p reprieve-undo --test random` for more, and
//! `REPRIEVE_SEED=17 REPRIEVE_CASES=1` to see one again.

use reprieve_testkit::Postgres;
use reprieve_undo::{Choice, Taken, UndoError, journal, revert};
use tokio_postgres::{Client, NoTls};

/// A small generator of numbers: the same seed gives the same case.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[usize::try_from(self.below(list.len() as u64)).unwrap_or(0)]
    }
}

/// Types, and an expression for a value of each from a number `n`.
const KINDS: [(&str, &str); 18] = [
    ("int", "n"),
    ("text", "'t' || n || E'\\\\ \\t\\n\",(\\''"),
    ("numeric(9,3)", "n / 7.0"),
    ("float8", "n / 3.0"),
    ("float4", "(CASE WHEN n % 5 = 0 THEN 'NaN' ELSE n::text END)::float4"),
    ("timestamptz", "'2026-03-29 00:30:00+00'::timestamptz + n * interval '17 minutes'"),
    ("interval", "n * interval '1 month 1 day -1 second'"),
    ("bytea", "decode(md5(n::text), 'hex')"),
    ("jsonb", "jsonb_build_object('k', n, 'l', ARRAY[n, NULL])"),
    ("json", "('{\"b\" : ' || n || ', \"a\":1, \"a\":2}')::json"),
    ("int[]", "ARRAY[n, NULL, 2]"),
    ("text[]", "ARRAY['a,b', '', NULL, 'q\"' || n]"),
    ("mood", "(CASE n % 3 WHEN 0 THEN 'good' WHEN 1 THEN 'so, so' ELSE 'bad' END)::mood"),
    ("positive", "1 + n % 90"),
    ("pair", "ROW(n, 'p,\"' || n)::pair"),
    ("int4range", "int4range(n, n + 3)"),
    ("char(5)", "'c' || n % 100"),
    ("uuid", "md5(n::text)::uuid"),
];

const TYPES: &str = "
DROP SCHEMA IF EXISTS public CASCADE; CREATE SCHEMA public; SET search_path = public;
CREATE TYPE mood AS ENUM ('good', 'so, so', 'bad'); CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE TYPE pair AS (a int, b text);
CREATE TABLE log (at timestamptz DEFAULT clock_timestamp(), what text);
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log (what) VALUES (TG_OP || ' ' || TG_TABLE_NAME); RETURN NULL; END $$;
CREATE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.n := COALESCE(NEW.n, 0) + 1; RETURN NEW; END $$;";

struct Table {
    name: &'static str,
    /// How rows are told apart, and how a new one gets its key from a number `n`.
    keys: Vec<(&'static str, &'static str)>,
    /// Quoted columns with an expression for a value.
    columns: Vec<(String, &'static str)>,
    parent: Option<&'static str>,
}

/// A schema, and statements that make it.
fn schema(random: &mut Random) -> (Vec<Table>, Vec<String>) {
    const NAMES: [&str; 4] = ["a", "b", "\"C d\"", "e"];
    let mut tables: Vec<Table> = Vec::new();
    let mut sql = Vec::new();
    for name in &NAMES[..2 + usize::try_from(random.below(3)).unwrap_or(0)] {
        let (key_columns, keys): (&str, Vec<(&str, &str)>) = match random.below(7) {
            0 => ("k int PRIMARY KEY, j int", vec![("k", "n")]),
            1 => ("k bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, j int", vec![]),
            2 => ("k bigserial PRIMARY KEY, j int", vec![]),
            3 => ("k int, j int DEFAULT 3, PRIMARY KEY (k, j)", vec![("k", "n"), ("j", "n % 4")]),
            4 => ("k text COLLATE \"C\" PRIMARY KEY, j int", vec![("k", "'k' || n")]),
            5 => ("k int NOT NULL UNIQUE DEFERRABLE, j int NOT NULL, UNIQUE (k, j)", vec![("k", "n"), ("j", "n % 4")]),
            _ => ("k int, j int", vec![("k", "n % 9")]),
        };
        let is_keyed_by_int = key_columns.starts_with("k int PRIMARY") || key_columns.starts_with("k big");
        let mut columns: Vec<(String, &str)> = vec![("n".to_owned(), "n")];
        let mut spelled = vec![key_columns.to_owned(), "n int".to_owned()];
        for number in 0..random.below(5) {
            let (kind, value) = KINDS[usize::try_from(random.below(KINDS.len() as u64)).unwrap_or(0)];
            let column = format!("\"V {number}\"");
            spelled.push(format!("{column} {kind}{}", random.of(&["", "", " DEFAULT NULL"])));
            columns.push((column, value));
        }
        if random.below(3) == 0 {
            spelled.push("g int GENERATED ALWAYS AS (n * 2) STORED".to_owned());
        }
        let parents: Vec<&'static str> = tables.iter().filter(|table| table.parent == Some("key")).map(|table| table.name).collect();
        if !parents.is_empty() && random.below(3) > 0 {
            let parent = random.of(&parents);
            let deed = random.of(&[
                "",
                " ON DELETE CASCADE",
                " ON DELETE SET NULL",
                " ON DELETE CASCADE ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED",
                " DEFERRABLE",
            ]);
            spelled.push(format!("p bigint REFERENCES {parent} (k){deed}"));
            columns.push(("p".to_owned(), if parent == "a" { "(SELECT min(k) + n % 7 FROM a)" } else { "NULL" }));
        }
        let is_partitioned =
            key_columns.starts_with("k int PRIMARY") && random.below(3) == 0 || key_columns == "k int, j int" && random.below(3) == 0;
        sql.push(format!("CREATE TABLE {name} ({}){}", spelled.join(", "), if is_partitioned { " PARTITION BY RANGE (k)" } else { "" }));
        if is_partitioned {
            let bare = name.trim_matches('"');
            sql.push(format!("CREATE TABLE \"{bare} 1\" PARTITION OF {name} FOR VALUES FROM (MINVALUE) TO (10)"));
            sql.push(format!("CREATE TABLE \"{bare} 2\" PARTITION OF {name} DEFAULT"));
        }
        if random.below(3) == 0 {
            let when = random.of(&["AFTER DELETE OR UPDATE", "AFTER INSERT"]);
            sql.push(format!(
                "CREATE TRIGGER noted {when} ON {name} FOR EACH {} EXECUTE FUNCTION noted()",
                random.of(&["ROW", "STATEMENT"])
            ));
        }
        if random.below(4) == 0 {
            sql.push(format!("CREATE TRIGGER touched BEFORE UPDATE ON {name} FOR EACH ROW EXECUTE FUNCTION touched()"));
        }
        if random.below(4) == 0 {
            sql.push(format!("CREATE UNIQUE INDEX ON {name} (n) WHERE n % 3 = 0"));
        }
        if random.below(3) == 0 {
            let view = name.trim_matches('"');
            sql.push(format!("CREATE VIEW \"{view} view\" AS SELECT * FROM {name} WHERE n < 40"));
        }
        if random.below(6) == 0 {
            sql.push(format!("ALTER TABLE {name} ENABLE ROW LEVEL SECURITY; ALTER TABLE {name} FORCE ROW LEVEL SECURITY"));
        }
        // A dropped column leaves a hole in every row.
        if random.below(4) == 0 {
            sql.push(format!("ALTER TABLE {name} ADD COLUMN hole text; ALTER TABLE {name} DROP COLUMN hole; ALTER TABLE {name} ADD COLUMN late int DEFAULT 7"));
        }
        tables.push(Table { name, keys, columns, parent: is_keyed_by_int.then_some("key") });
    }
    for table in &tables {
        sql.push(insert(random, table, 1, 30));
    }
    (tables, sql)
}

fn insert(random: &mut Random, table: &Table, from: u64, rows: u64) -> String {
    let columns: Vec<&str> = table.keys.iter().map(|(name, _)| *name).chain(table.columns.iter().map(|(name, _)| name.as_str())).collect();
    let sparse = random.below(2) == 0;
    let values =
        table.columns.iter().map(|(_, value)| if sparse { format!("CASE WHEN n % 4 > 0 THEN {value} END") } else { (*value).to_owned() });
    let values: Vec<String> = table.keys.iter().map(|(_, value)| (*value).to_owned()).chain(values).collect();
    format!(
        "INSERT INTO {} ({}) SELECT {} FROM generate_series({from}, {}) n",
        table.name,
        columns.join(", "),
        values.join(", "),
        from + rows - 1
    )
}

fn statement(random: &mut Random, tables: &[Table]) -> String {
    let table = &tables[usize::try_from(random.below(tables.len() as u64)).unwrap_or(0)];
    let (name, bare) = (table.name, table.name.trim_matches('"'));
    let (column, value) = &table.columns[usize::try_from(random.below(table.columns.len() as u64)).unwrap_or(0)];
    let (low, step) = (random.below(40), 1 + random.below(4));
    match random.below(20) {
        0 | 1 => {
            let from = 1 + random.below(60);
            let rows = 1 + random.below(8);
            insert(random, table, from, rows)
        }
        2 => format!("DELETE FROM {name} WHERE n % {step} = 0"),
        3 => format!("DELETE FROM {name} WHERE n > {low}"),
        4 => format!("DELETE FROM {name}"),
        5 => format!("UPDATE {name} SET {column} = {value} WHERE n > {low}"),
        6 => format!("UPDATE {name} SET {column} = NULL WHERE n % {step} = 0"),
        7 => format!("UPDATE {name} SET n = n + 1"),
        8 => format!("UPDATE {name} SET k = k WHERE n < {low}"),
        9 => format!("UPDATE {name} SET k = k + 100 WHERE n % {step} = 0"),
        10 => format!("UPDATE {name} SET k = 41 - k WHERE k BETWEEN 1 AND 40"),
        11 => format!("UPDATE {name} SET k = DEFAULT WHERE n = {low}"),
        12 => format!("TRUNCATE {name} {}", random.of(&["", "CASCADE", "RESTART IDENTITY"])),
        13 => format!(
            "WITH gone AS (DELETE FROM {name} WHERE n % {step} = 0 RETURNING *) INSERT INTO {name} OVERRIDING SYSTEM VALUE SELECT (gone.*).* FROM gone"
        ),
        14 => format!(
            "MERGE INTO {name} t USING generate_series(1, 20) s ON t.n = s WHEN MATCHED AND s % 3 = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET {column} = NULL"
        ),
        15 => format!("UPDATE \"{bare} view\" SET n = n - 1 WHERE n > {low}"),
        16 => format!("DELETE FROM \"{bare} view\" WHERE n % {step} = 1"),
        17 => format!("DELETE FROM \"{bare} 1\"; UPDATE \"{bare} 2\" SET n = 0"),
        18 => format!("{} ON CONFLICT DO NOTHING", insert(random, table, 1, 50)),
        _ => format!(
            "SET LOCAL datestyle = 'SQL, DMY'; SET LOCAL timezone = 'Asia/Tokyo'; SET LOCAL bytea_output = 'escape'; SET LOCAL extra_float_digits = -5; UPDATE {name} SET {column} = {column}, n = n + 50 WHERE n < {low}"
        ),
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(async move { drop(connection.await) });
    client.batch_execute("SET client_min_messages = error").await.expect("a setting");
    client
}

/// Every row of every table, in any order, and every setting of a table's that an undo might leave changed.
async fn state(client: &Client) -> Vec<String> {
    let tables = "SELECT c.oid::regclass::text FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1";
    let mut all = Vec::new();
    for table in client.query(tables, &[]).await.expect("tables") {
        let name: String = table.get(0);
        let rows = client.query(&format!("SELECT t::text FROM {name} t ORDER BY 1"), &[]).await.expect("rows");
        all.extend(rows.iter().map(|row| format!("{name} {}", row.get::<_, String>(0))));
    }
    let triggers = "SELECT pg_catalog.concat_ws(' ', t.tgrelid::regclass, t.tgname, t.tgenabled) FROM pg_trigger t WHERE NOT t.tgisinternal ORDER BY 1";
    all.extend(client.query(triggers, &[]).await.expect("triggers").iter().map(|row| row.get::<_, String>(0)));
    all
}

async fn undo(client: &mut Client, xid: u64) -> Result<Option<u64>, UndoError> {
    let work = client.transaction().await?;
    let report = revert(&work, &[Taken::unmeasured(xid)], Choice::Stop).await?;
    work.commit().await?;
    Ok(report.xid)
}

/// One case. Answers how many statements changed something, or what went wrong.
async fn case(client: &mut Client, seed: u64) -> Result<u32, String> {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    client.batch_execute(TYPES).await.map_err(|error| format!("{error:?}"))?;
    let (tables, statements) = schema(&mut random);
    for sql in &statements {
        // Some don't go together.
        drop(client.batch_execute(sql).await);
    }
    for step in journal::planned(client).await.map_err(|error| error.to_string())? {
        client.batch_execute(&step.sql).await.map_err(|error| format!("{}: {error:?}", step.sql))?;
    }
    let before = state(client).await;
    let mut ran = Vec::new();
    client.batch_execute("BEGIN").await.map_err(|error| error.to_string())?;
    for _ in 0..=random.below(7) {
        let sql = statement(&mut random, &tables);
        client.batch_execute("SAVEPOINT s").await.map_err(|error| error.to_string())?;
        if client.batch_execute(&sql).await.is_err() || random.below(12) == 0 {
            client.batch_execute("ROLLBACK TO s").await.map_err(|error| error.to_string())?;
        } else {
            ran.push(sql);
        }
    }
    let xid: String = client.query_one("SELECT pg_current_xact_id()::text", &[]).await.map_err(|error| error.to_string())?.get(0);
    if client.batch_execute("COMMIT").await.is_err() {
        return Ok(0);
    }
    client
        .batch_execute("RESET ALL; SET search_path = public; SET client_min_messages = error")
        .await
        .map_err(|error| error.to_string())?;
    let changed = state(client).await;
    let told = |what: &str, error: &dyn std::fmt::Debug| {
        format!("seed {seed}: {what}: {error:?}\n{};\n-- then\n{};", statements.join(";\n"), ran.join(";\n"))
    };
    let compare = |what: &str, wanted: &[String], found: &[String]| {
        let less = |one: &[String], other: &[String]| one.iter().filter(|row| !other.contains(row)).take(5).cloned().collect::<Vec<_>>();
        if wanted == found { Ok(()) } else { Err(told(what, &(less(wanted, found), less(found, wanted)))) }
    };
    let xid = xid.parse().map_err(|_| "no number".to_owned())?;
    let undone = undo(client, xid).await.map_err(|error| told("undo", &error))?;
    compare("after the undo", &before, &state(client).await)?;
    if let Some(undone) = undone {
        undo(client, undone).await.map_err(|error| told("undo of the undo", &error))?;
        compare("after the undo of the undo", &changed, &state(client).await)?;
    }
    Ok(u32::from(before != changed))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_changed_comes_back() {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let (first, cases) = (number("REPRIEVE_SEED").unwrap_or(1), number("REPRIEVE_CASES").unwrap_or(80));
    let server = Postgres::start().expect("a server");
    let mut client = connect(&server.superuser_url("postgres")).await;
    client.batch_execute("CREATE SCHEMA reprieve; GRANT USAGE ON SCHEMA reprieve TO PUBLIC").await.expect("a schema");
    let (mut changed, mut failed) = (0, Vec::new());
    for seed in first..first + cases {
        match case(&mut client, seed).await {
            Ok(number) => changed += number,
            Err(problem) => {
                failed.push(problem);
                drop(client);
                client = connect(&server.superuser_url("postgres")).await;
            }
        }
        if seed % 50 == 0 {
            client.batch_execute("TRUNCATE reprieve.journal").await.expect("emptied");
        }
    }
    println!("{cases} cases, {changed} of them changed something");
    assert!(failed.is_empty(), "{} of {cases} failed:\n{}", failed.len(), failed.iter().take(3).cloned().collect::<Vec<_>>().join("\n\n"));
    assert!(u64::from(changed) * 2 > cases, "most cases have to change something, not {changed} of {cases}");
}
