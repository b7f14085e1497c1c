//! Every form of change, one by one through the gateway: what passes comes back; what can't come back is held before it runs. There is
//! no third way. `docs/undo.md` says for each what happens.
//!
//! A fifth of them as part of every run; `REPRIEVE_FORMS=all cargo nextest run --workspace --test forms` takes all, and with
//! UPDATE_GOLDEN=1 writes the page instead of comparing; `REPRIEVE_FORMS='DROP TYPE|ATTACH'` takes those with such words.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use reprieve_testkit::{Gateway, GatewayOptions, GuardedSystem, Postgres, PostgresOptions};
use reprieve_tests::{Site, State, connect};
use serde_json::Value;

/// Something of most kinds, with rows in it.
const START: &str = r#"
CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a int, b text); CREATE TYPE lone AS (x int); CREATE TYPE spare AS ENUM ('p', 'q');
CREATE DOMAIN positive AS int CONSTRAINT above CHECK (VALUE > 0); CREATE DOMAIN unused AS text;
CREATE SEQUENCE numbers INCREMENT 3; SELECT nextval('numbers'), nextval('numbers');
CREATE FUNCTION twice(x int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT x * 2';
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO notes (what) VALUES (TG_OP); RETURN NULL; END$$;
CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text);
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, mood mood DEFAULT 'ok', spot pair, days positive, tags text[], extra jsonb,
 score numeric(8,2), doubled numeric GENERATED ALWAYS AS (score * 2) STORED, photo text, UNIQUE (name));
INSERT INTO customers (id, name, mood, spot, days, tags, extra, score, photo) SELECT n, 'c' || n, 'sad', ROW(n, 'p,"' || n)::pair, n, ARRAY['a,b', NULL], jsonb_build_object('k', n), n + 0.55,
 CASE WHEN n < 4 THEN (SELECT string_agg(md5((n * i)::text), '') FROM generate_series(1, 3000) i) END FROM generate_series(1, 60) n;
CREATE TABLE rentals (id serial PRIMARY KEY, customer int NOT NULL REFERENCES customers ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, during int4range, EXCLUDE USING gist (during WITH &&));
INSERT INTO rentals (customer, during) SELECT 1 + n % 60, int4range(n * 10, n * 10 + 5) FROM generate_series(1, 80) n;
CREATE TRIGGER noted AFTER DELETE ON rentals FOR EACH STATEMENT EXECUTE FUNCTION noted();
CREATE INDEX rentals_customer ON rentals (customer); CREATE STATISTICS both_of ON id, customer FROM rentals;
CREATE VIEW busy AS SELECT c.id, c.name, count(*) AS n FROM customers c JOIN rentals r ON r.customer = c.id GROUP BY c.id;
CREATE MATERIALIZED VIEW totals AS SELECT customer, count(*) AS n FROM rentals GROUP BY customer; CREATE UNIQUE INDEX totals_key ON totals (customer);
CREATE TABLE log (k int NOT NULL, note text DEFAULT 'none', PRIMARY KEY (k)) PARTITION BY RANGE (k);
CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM (0) TO (20); CREATE TABLE log_2 PARTITION OF log FOR VALUES FROM (20) TO (40);
INSERT INTO log SELECT n, 'l' || n FROM generate_series(0, 39) n; CREATE TABLE log_3 (k int PRIMARY KEY, note text DEFAULT 'none'); INSERT INTO log_3 VALUES (50, 'x');
CREATE TABLE plain (id int PRIMARY KEY, word text, old int); INSERT INTO plain SELECT n, 'w' || n, n FROM generate_series(1, 50) n; COMMENT ON TABLE plain IS 'of words'; COMMENT ON COLUMN plain.word IS 'one';
CREATE TABLE nokey (a int, b text); INSERT INTO nokey SELECT n % 5, 'x' FROM generate_series(1, 20) n;
CREATE TABLE secret (id int PRIMARY KEY, owner text); INSERT INTO secret SELECT n, 'app' FROM generate_series(1, 10) n; ALTER TABLE secret ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON secret USING (owner = current_user);
CREATE TABLE moods (id int PRIMARY KEY, m mood); INSERT INTO moods SELECT n, 'ok' FROM generate_series(1, 10) n;
CREATE RULE silent AS ON UPDATE TO notes DO INSTEAD NOTHING;
CREATE SCHEMA attic; CREATE TABLE attic.old (id int PRIMARY KEY, at timestamptz DEFAULT now()); INSERT INTO attic.old SELECT generate_series(1, 30);
ALTER DEFAULT PRIVILEGES IN SCHEMA attic GRANT SELECT ON TABLES TO PUBLIC; GRANT SELECT ON plain TO PUBLIC;
CREATE PUBLICATION pub FOR TABLE plain; CREATE AGGREGATE total(int) (sfunc = int4pl, stype = int); CREATE OPERATOR @+@ (function = int4pl, leftarg = int, rightarg = int);
ALTER TABLE nokey REPLICA IDENTITY FULL; CREATE TABLE empty (id int PRIMARY KEY, a int, b varchar(9)); CREATE TYPE span AS RANGE (subtype = int8);
CREATE TABLE wide (id int PRIMARY KEY, spans span, many text[][], doc jsonb, raw bytea, words tsvector); INSERT INTO wide SELECT n, span(n, n + 9), ARRAY[[n::text, NULL], ['{', '"']], '{"a": [1, null]}', decode(repeat('00ff', n), 'hex'), to_tsvector('a b') FROM generate_series(1, 20) n;
 CREATE COLLATION german (provider = icu, locale = 'de')"#;

/// What the gateway does about a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It passes, and comes back.
    Passes,
    /// People are asked; then it comes back.
    Asks,
    /// People are asked; the table is set aside, and comes back.
    Aside,
    /// People are asked, and told that it does not come back.
    Stays,
    /// It never runs.
    Refused,
}

impl Way {
    fn words(self) -> &'static str {
        match self {
            Self::Passes => "passes; undone",
            Self::Asks => "asks first; undone",
            Self::Aside => "asks first; set aside, undone",
            Self::Stays => "asks first, and says that it does not come back",
            Self::Refused => "refused",
        }
    }
}

const ROWS: &[&str] = &[
    "DELETE FROM customers WHERE id = 7",
    "UPDATE customers SET spot = ROW(1, 'x')::pair, tags = '{}', extra = 'null', photo = 'y', score = 1, mood = 'ok', days = 3 WHERE id < 10",
    "INSERT INTO plain VALUES (77, 'new', 1)",
    "MERGE INTO plain p USING generate_series(40, 60) n ON p.id = n WHEN MATCHED AND n % 2 = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET word = 'm' WHEN NOT MATCHED THEN INSERT VALUES (n, 'i', 0)",
    "DELETE FROM nokey WHERE a = 1",
    "DELETE FROM log WHERE k BETWEEN 15 AND 25",
    "UPDATE secret SET owner = 'nobody' WHERE id < 4",
    "BEGIN; UPDATE rentals SET customer = 999 WHERE id = 1; INSERT INTO customers (id, name) VALUES (999, 'late'); DELETE FROM rentals WHERE id = 2; COMMIT",
    "DELETE FROM rentals",
    "DELETE FROM wide WHERE id > 10",
    "UPDATE wide SET spans = NULL, many = '{}', doc = NULL, raw = '', words = NULL WHERE id < 15",
    "BEGIN; DELETE FROM log WHERE k = 25; UPDATE log SET k = 25 WHERE k = 5; COMMIT",
    "WITH gone AS (DELETE FROM plain WHERE id < 5 RETURNING *) INSERT INTO nokey SELECT id, word FROM gone",
    "INSERT INTO notes (what) VALUES ('a'), ('b')",
    "INSERT INTO plain VALUES (1, 'taken', 0) ON CONFLICT (id) DO UPDATE SET word = excluded.word",
    "TRUNCATE plain",
    "TRUNCATE customers, rentals RESTART IDENTITY",
    "TRUNCATE log",
    "SELECT setval('numbers', 1000)",
    "WITH a AS (UPDATE plain SET word = 'a' WHERE id = 1 RETURNING id), b AS (DELETE FROM plain WHERE id = 2) INSERT INTO empty SELECT id FROM a",
];

const DROPS: &[&str] = &[
    "DROP TABLE nokey",
    "DROP TABLE rentals CASCADE",
    "DROP TABLE log",
    "DROP TABLE log_1",
    "DROP TABLE plain",
    "DROP TABLE moods",
    "DROP TABLE customers CASCADE",
    "DROP SCHEMA attic CASCADE",
    "DROP VIEW busy",
    "DROP MATERIALIZED VIEW totals",
    "DROP INDEX rentals_customer",
    "DROP SEQUENCE numbers",
    "DROP FUNCTION twice(int)",
    "DROP TYPE lone",
    "DROP TYPE span CASCADE",
    "DROP TABLE wide",
    "DROP TABLE empty",
    "DROP TABLE secret, log_3",
    "DROP TYPE mood CASCADE",
    "DROP DOMAIN unused",
    "DROP DOMAIN positive CASCADE",
    "DROP TRIGGER noted ON rentals",
    "DROP RULE silent ON notes",
    "DROP POLICY own ON secret",
    "DROP STATISTICS both_of",
    "DROP PUBLICATION pub",
    "DROP AGGREGATE total(int)",
    "DROP OPERATOR @+@ (int, int)",
    "DROP COLLATION german",
    "DROP TABLE customers, rentals CASCADE",
    "DROP OWNED BY app",
    "DROP DATABASE postgres",
];

const TABLES: &[&str] = &[
    "ALTER TABLE plain DROP COLUMN word",
    "ALTER TABLE customers DROP COLUMN score CASCADE",
    "ALTER TABLE customers DROP COLUMN doubled",
    "ALTER TABLE nokey DROP COLUMN b",
    "ALTER TABLE log DROP COLUMN note",
    "ALTER TABLE plain ALTER COLUMN old TYPE bigint",
    "ALTER TABLE empty ALTER COLUMN a TYPE bigint",
    "ALTER TABLE empty DROP COLUMN b",
    "ALTER TABLE wide DROP COLUMN raw, DROP COLUMN spans",
    "ALTER TABLE nokey DROP COLUMN a, DROP COLUMN b",
    "ALTER TABLE nokey ALTER COLUMN a TYPE text USING 'lost'",
    "ALTER TABLE plain ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY",
    "ALTER TABLE notes ALTER COLUMN id SET GENERATED BY DEFAULT",
    "ALTER TABLE plain ADD COLUMN twofold int GENERATED ALWAYS AS (old * 2) STORED",
    "ALTER TABLE log ADD COLUMN more int",
    "ALTER TABLE plain ADD CONSTRAINT once UNIQUE (word) DEFERRABLE",
    "ALTER TABLE plain ALTER COLUMN word SET STORAGE EXTERNAL",
    "ALTER TABLE plain SET (fillfactor = 70)",
    "ALTER TABLE plain ALTER COLUMN word SET STATISTICS 10",
    "ALTER VIEW busy SET (security_barrier)",
    "ALTER VIEW busy RENAME COLUMN n TO rentals",
    "ALTER MATERIALIZED VIEW totals RENAME TO sums",
    "ALTER MATERIALIZED VIEW totals SET SCHEMA attic",
    "ALTER TABLE plain CLUSTER ON plain_pkey",
    "ALTER TABLE rentals ALTER CONSTRAINT rentals_customer_fkey NOT DEFERRABLE",
    "ALTER TABLE plain ALTER COLUMN old TYPE text USING 'lost'",
    "ALTER TABLE plain ADD COLUMN extra text NOT NULL DEFAULT 'e'",
    "ALTER TABLE plain ADD COLUMN stamp timestamptz DEFAULT clock_timestamp()",
    "ALTER TABLE plain RENAME COLUMN word TO wort",
    "ALTER TABLE plain RENAME TO simple",
    "ALTER TABLE plain SET SCHEMA attic",
    "ALTER TABLE plain ALTER COLUMN word SET NOT NULL, ALTER COLUMN old SET DEFAULT 4",
    "ALTER TABLE plain ADD CHECK (id > 0)",
    "ALTER TABLE plain ADD FOREIGN KEY (old) REFERENCES customers",
    "ALTER TABLE rentals DROP CONSTRAINT rentals_pkey",
    "ALTER TABLE rentals DROP CONSTRAINT rentals_customer_fkey",
    "ALTER TABLE rentals DROP CONSTRAINT rentals_during_excl",
    "ALTER TABLE rentals ALTER COLUMN id DROP DEFAULT; DROP SEQUENCE rentals_id_seq",
    "ALTER TABLE notes ALTER COLUMN id DROP IDENTITY",
    "ALTER TABLE customers ALTER COLUMN doubled DROP EXPRESSION",
    "ALTER TABLE log DETACH PARTITION log_1",
    "ALTER TABLE log ATTACH PARTITION log_3 FOR VALUES FROM (40) TO (60)",
    "CREATE TABLE log_4 PARTITION OF log FOR VALUES FROM (60) TO (80)",
    "ALTER TABLE plain REPLICA IDENTITY FULL",
    "ALTER TABLE plain ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE rentals DISABLE TRIGGER noted",
    "ALTER TABLE attic.old ALTER COLUMN at SET DEFAULT '2020-01-01'",
    "CREATE TABLE fresh AS SELECT * FROM plain",
    "CREATE INDEX plain_word ON plain (word)",
    "ALTER INDEX rentals_customer RENAME TO by_customer",
    "COMMENT ON TABLE plain IS 'changed'",
    "COMMENT ON COLUMN plain.word IS NULL",
    "CLUSTER rentals USING rentals_customer",
];

const OTHERS: &[&str] = &[
    "ALTER TYPE mood ADD VALUE 'glad' AFTER 'sad'",
    "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
    "ALTER TYPE spare RENAME TO extra",
    "ALTER TYPE lone ADD ATTRIBUTE y text",
    "ALTER TYPE pair DROP ATTRIBUTE b CASCADE",
    "ALTER DOMAIN positive DROP CONSTRAINT above",
    "CREATE TYPE colour AS ENUM ('red')",
    "CREATE TYPE stretch AS RANGE (subtype = int4)",
    "CREATE TYPE point3 AS (x int, y int, z int)",
    "COMMENT ON TYPE mood IS 'how it is'",
    "COMMENT ON SCHEMA attic IS 'above'",
    "CREATE DOMAIN word AS text CHECK (VALUE <> '')",
    "ALTER SEQUENCE numbers INCREMENT 7 MAXVALUE 1000 CYCLE",
    "ALTER SEQUENCE numbers RESTART WITH 500",
    "ALTER SEQUENCE numbers OWNED BY plain.id",
    "CREATE SEQUENCE more",
    "CREATE CAST (text AS mood) WITH INOUT AS IMPLICIT",
    "CREATE TEXT SEARCH CONFIGURATION own (COPY = simple)",
    "CREATE CONVERSION own FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
    "CREATE AGGREGATE product(int) (sfunc = int4mul, stype = int)",
    "ALTER FUNCTION twice(int) SECURITY DEFINER",
    "ALTER FUNCTION twice(int) RENAME TO double",
    "ALTER AGGREGATE total(int) RENAME TO sum_of",
    "CREATE OR REPLACE FUNCTION twice(x int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT x + x + 1'",
    "CREATE VIEW names AS SELECT name FROM customers",
    "CREATE OR REPLACE VIEW busy AS SELECT c.id, c.name, 1::bigint AS n FROM customers c",
    "CREATE TRIGGER again AFTER INSERT ON plain FOR EACH STATEMENT EXECUTE FUNCTION noted()",
    "CREATE RULE again AS ON DELETE TO plain DO INSTEAD NOTHING",
    "ALTER POLICY own ON secret USING (true)",
    "CREATE POLICY all_of ON plain USING (true)",
    "CREATE PUBLICATION more FOR TABLE nokey",
    "ALTER PUBLICATION pub ADD TABLE nokey",
    "ALTER PUBLICATION pub DROP TABLE plain",
    "GRANT INSERT ON plain TO PUBLIC",
    "REVOKE SELECT ON plain FROM PUBLIC",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA attic REVOKE SELECT ON TABLES FROM PUBLIC",
    "CREATE SCHEMA cellar",
    "ALTER SCHEMA attic RENAME TO loft",
    "DO $$ BEGIN EXECUTE 'DROP VIEW busy'; DELETE FROM plain WHERE id < 9; END $$",
    "SELECT lo_create(4711)",
    "CREATE EXTENSION hstore",
    "ALTER SYSTEM SET work_mem = '8MB'",
    "VACUUM FULL plain",
    "CREATE INDEX CONCURRENTLY slow ON plain (word)",
];

/// A site with [`START`] in it, protected, under the guard profile with its default budget.
fn site() -> Result<Site> {
    let server = Postgres::start_with(&PostgresOptions::default())?;
    server.create_role("app", "secret", "")?;
    server.create_database("shop", "app")?;
    let system = GuardedSystem {
        admin_url: Some(server.superuser_url("shop")),
        ..GuardedSystem::new("shop", "production", &server.url("app", "secret", "shop"))
    };
    let options = GatewayOptions { systems: vec![system], wait: "0s".to_owned(), rows_without_undo: 0, ..GatewayOptions::default() };
    let site = Site { gateway: Gateway::start(options)?, server };
    site.direct(START)?;
    site.direct("ANALYZE")?;
    site.gateway.json(&["protect", "shop", "--apply", "--json"])?;
    Ok(site)
}

/// What an agent meets that does `sql`, and whether the way back leads back. Ends in the state that it began with, unless it stays.
async fn meets(site: &Site, url: &str, sql: &str) -> Result<Way> {
    let before = State::of(site)?;
    let known = newest(site)?;
    let client = connect(url).await?;
    let mut answer = client.batch_execute(sql).await;
    let mut asked = false;
    let mut warned = false;
    for _ in 0..5 {
        let Err(error) = &answer else { break };
        let said = error.as_db_error().with_context(|| format!("{error}"))?;
        match said.code().code() {
            "RPH01" => {}
            "RPR01" => return Ok(Way::Refused),
            _ => bail!("{}: {}", said.code().code(), said.message()),
        }
        asked = true;
        client.batch_execute("ROLLBACK").await?;
        let holds = site.gateway.holds()?;
        let hold = holds.iter().find(|hold| hold["status"] == "waiting").context("a hold that waits")?;
        let id = hold["id"].as_str().context("an id")?;
        println!("held: {} {}", hold["needs"]["reason"], hold["reach"]);
        warned |= hold["reach"]["lasting"].as_array().is_some_and(|lasting| !lasting.is_empty());
        site.gateway.approve_as_asked(id)?;
        if hold["action"] == "selfcontained" {
            site.gateway.wait_for_status(id, "finished")?;
        }
        answer = client.batch_execute(sql).await;
    }
    answer.context("it never succeeds")?;
    let now = State::of(site)?;
    ensure!(!now.is_same(&before) || now.sequences != before.sequences, "nothing was changed");
    let is_aside = now.definitions.iter().any(|line| line.starts_with("CREATE TABLE reprieve_aside_"));
    // What became of it is recorded a moment after its client hears.
    let mut change = newest(site)?;
    for _ in 0..50 {
        if change["id"] != known["id"] && change["operator"].is_null() {
            break;
        }
        tokio::task::block_in_place(|| thread::sleep(Duration::from_millis(100)));
        change = newest(site)?;
    }
    ensure!(change["id"] != known["id"], "no change was recorded");
    if change["standing"] != "undoable" {
        ensure!(asked && warned, "it is {} and nobody was told before: {change}", change["standing"]);
        return Ok(Way::Stays);
    }
    undo(site, change["id"].as_str().context("an id")?).await?;
    let after = State::of(site)?;
    after.is_as_before(&before)?;
    let at = |state: &State| state.sequences.get("public.numbers").copied();
    ensure!(at(&after) == at(&before), "the sequence stands at {:?} and not at {:?}", at(&after), at(&before));
    Ok(match (asked, is_aside) {
        (false, _) => Way::Passes,
        (true, false) => Way::Asks,
        (true, true) => Way::Aside,
    })
}

/// The newest change that is listed; null if there is none.
fn newest(site: &Site) -> Result<Value> {
    let listed = site.gateway.json(&["undo", "list", "--limit", "1", "--json"])?;
    Ok(listed["changes"][0].clone())
}

/// Takes a change back, once the snapshot of definitions after it was taken.
async fn undo(site: &Site, id: &str) -> Result<()> {
    let mut shown = Value::Null;
    for _ in 0..100 {
        shown = site.gateway.json(&["undo", "show", id, "--json"])?;
        if shown["plan"]["possible"] == true {
            site.gateway.operate(&["undo", "apply", id])?;
            return Ok(());
        }
        if !shown["plan"]["because"].as_str().is_some_and(|because| because.contains("not kept")) {
            break;
        }
        tokio::task::block_in_place(|| thread::sleep(Duration::from_millis(100)));
    }
    let log = site.gateway.log();
    let last: Vec<&str> = log.lines().rev().take(12).collect();
    bail!("{id} can't be undone: {}\n{}", shown["plan"]["because"], last.join("\n"))
}

/// The page with what happens to each form.
fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/undo.md")
}

fn line(sql: &str, way: Way) -> String {
    format!("| `{}` | {} |", sql.replace('|', "\\|"), way.words())
}

/// Writes a group's lines between its marks in the page.
fn document(group: &str, lines: &[String]) -> Result<()> {
    // Groups are tests of their own, side by side.
    let lock = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("forms.lock"))?;
    lock.lock()?;
    let text = fs::read_to_string(page())?;
    let (start, end) = (format!("<!-- {group} -->\n"), "<!-- end -->");
    let from = text.find(&start).with_context(|| format!("no mark for {group}"))? + start.len();
    let to = from + text[from..].find(end).context("no end mark")?;
    let table = format!("| statement | what happens |\n|---|---|\n{}\n", lines.join("\n"));
    fs::write(page(), format!("{}{table}{}", &text[..from], &text[to..]))?;
    Ok(())
}

/// Goes through a group of forms, and compares what happens with what the page says.
async fn each(group: &str, forms: &[&str]) -> Result<()> {
    let documented = fs::read_to_string(page())?;
    let wanted = std::env::var("REPRIEVE_FORMS").unwrap_or_default();
    let is_wanted = |(place, sql): &(usize, &&str)| match wanted.as_str() {
        "" => place % 5 == 0,
        "all" => true,
        words => words.split('|').any(|words| sql.contains(words)),
    };
    let is_written = std::env::var_os("UPDATE_GOLDEN").is_some() && wanted == "all";
    let mut site = site()?;
    let (mut lines, mut wrong) = (Vec::new(), Vec::new());
    for (_, sql) in forms.iter().enumerate().filter(is_wanted) {
        let url = site.gateway.agent("helper", &["shop"], "read,write,destroy,grant")?;
        let met = meets(&site, &url, sql).await.map_err(|error| format!("{error:#}"));
        println!("{sql}: {met:?}");
        match &met {
            Ok(way) if is_written => lines.push(line(sql, *way)),
            Ok(way) if documented.contains(&line(sql, *way)) => {}
            Ok(way) => wrong.push(format!("docs/undo.md doesn't say: {}", line(sql, *way))),
            Err(error) => wrong.push(format!("{sql}: {error}")),
        }
        // What stays, and what went wrong, must not meet the next one.
        if !matches!(met, Ok(Way::Passes | Way::Asks | Way::Aside | Way::Refused)) {
            site = self::site()?;
        }
    }
    if is_written {
        document(group, &lines)?;
    }
    ensure!(wrong.is_empty(), "{} of {} forms:\n{}", wrong.len(), forms.len(), wrong.join("\n\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows() -> Result<()> {
    each("rows", ROWS).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drops() -> Result<()> {
    each("drops", DROPS).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables() -> Result<()> {
    each("tables", TABLES).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others() -> Result<()> {
    each("others", OTHERS).await
}
