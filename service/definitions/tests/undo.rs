//! What an operation did to definitions is taken back, on a real PostgreSQL, and the dump is the same as before.

#[path = "undo/bench.rs"]
mod bench;
#[path = "undo/random.rs"]
mod random;

use anyhow::Result;
use bench::{Bench, each};
use random::Random;
use reprieve_definitions::UndoScript;

/// A database with something of most kinds.
const START: &str = r#"
CREATE SCHEMA s; CREATE SCHEMA other;
CREATE TYPE s.mood AS ENUM ('sad', 'ok');
CREATE TYPE s.pair AS (a int, b text);
CREATE DOMAIN s.positive AS int DEFAULT 4 CONSTRAINT above CHECK (VALUE > 0);
CREATE SEQUENCE s.numbers INCREMENT 3;
CREATE FUNCTION s.twice(x int) RETURNS int LANGUAGE sql IMMUTABLE AS 'select x * 2';
CREATE FUNCTION s.touch() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN new; END$$;
CREATE TABLE s.customer (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL DEFAULT 'x;y', mood s.mood DEFAULT 'ok',
    score numeric(10,2), doubled numeric GENERATED ALWAYS AS (score * 2) STORED, "order" int,
    CONSTRAINT named CHECK (name <> ''), UNIQUE (name));
CREATE TABLE s.rental (id serial PRIMARY KEY, customer int NOT NULL REFERENCES s.customer ON DELETE CASCADE, days s.positive, at timestamptz DEFAULT now());
CREATE INDEX by_score ON s.customer (score DESC) WHERE mood = 'ok';
CREATE INDEX ON s.rental (customer, days);
CREATE STATISTICS s.both ON name, score FROM s.customer;
CREATE VIEW s.happy AS SELECT c.id, c.name, count(*) AS n FROM s.customer c JOIN s.rental r ON r.customer = c.id WHERE c.mood = 'ok' GROUP BY c.id;
CREATE VIEW s.names AS SELECT name FROM s.happy;
CREATE MATERIALIZED VIEW s.totals AS SELECT customer, sum(days) AS days FROM s.rental GROUP BY customer;
CREATE UNIQUE INDEX totals_key ON s.totals (customer);
CREATE TRIGGER touched BEFORE UPDATE ON s.customer FOR EACH ROW EXECUTE FUNCTION s.touch();
CREATE RULE keep AS ON DELETE TO s.rental DO INSTEAD NOTHING;
ALTER TABLE s.customer ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON s.customer TO ann USING (name = current_user);
COMMENT ON TABLE s.customer IS 'who rents'; COMMENT ON COLUMN s.customer.name IS 'in full; really';
GRANT USAGE ON SCHEMA s TO ann;
GRANT SELECT, UPDATE ON s.customer TO ann WITH GRANT OPTION; GRANT SELECT (name) ON s.customer TO bob;
REVOKE TRUNCATE ON s.customer FROM postgres;
ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO bob;
CREATE TABLE s.log (k int NOT NULL, note text DEFAULT 'none') PARTITION BY RANGE (k);
CREATE TABLE s.log1 PARTITION OF s.log FOR VALUES FROM (0) TO (10);
CREATE TABLE s.log2 PARTITION OF s.log FOR VALUES FROM (10) TO (20);
CREATE INDEX log_k ON s.log (k); ALTER TABLE s.log ADD PRIMARY KEY (k);
CREATE TABLE s.vip (discount int) INHERITS (s.customer);
CREATE TABLE s.sorted (id int PRIMARY KEY, a text COLLATE "C" NOT NULL, b text COLLATE "C" NOT NULL DEFAULT 'b', c varchar(9) NOT NULL);
CREATE PUBLICATION pub FOR TABLE s.rental;
CREATE EXTENSION hstore SCHEMA s;
CREATE AGGREGATE s.total(int) (sfunc = int4pl, stype = int);
CREATE OPERATOR s.@+@ (function = int4pl, leftarg = int, rightarg = int);
"#;

/// What may be done to it, one statement or a few at a time.
const CHANGES: &[&str] = &[
    // Tables
    "CREATE TABLE s.new (id serial PRIMARY KEY, a text REFERENCES s.customer (name)); COMMENT ON TABLE s.new IS 'n'; GRANT SELECT ON s.new TO ann",
    "DROP TABLE s.rental CASCADE",
    "DROP TABLE s.customer CASCADE",
    "DROP TABLE s.log",
    "DROP TABLE s.log1",
    "DROP TABLE s.vip",
    "ALTER TABLE s.rental RENAME TO lent",
    "ALTER TABLE s.customer RENAME TO client",
    "ALTER TABLE s.customer SET SCHEMA other",
    "ALTER TABLE s.rental SET SCHEMA other; ALTER TABLE other.rental RENAME TO lent",
    "ALTER TABLE s.rental RENAME TO aside; CREATE TABLE s.rental (x int)",
    "ALTER TABLE s.log1 RENAME TO x; ALTER TABLE s.log2 RENAME TO log1; ALTER TABLE s.x RENAME TO log2",
    "CREATE TABLE s.log3 PARTITION OF s.log FOR VALUES FROM (20) TO (30)",
    "ALTER TABLE s.log DETACH PARTITION s.log1",
    "ALTER TABLE s.rental OWNER TO ann",
    "ALTER TABLE s.rental SET (fillfactor = 70); ALTER TABLE s.vip SET UNLOGGED",
    "ALTER TABLE s.rental REPLICA IDENTITY FULL, FORCE ROW LEVEL SECURITY, ENABLE ROW LEVEL SECURITY",
    // Columns
    "ALTER TABLE s.rental ADD COLUMN extra text NOT NULL DEFAULT 'e'; CREATE INDEX ON s.rental (extra); COMMENT ON COLUMN s.rental.extra IS 'e'; GRANT SELECT (extra) ON s.rental TO ann",
    "ALTER TABLE s.rental DROP COLUMN at",
    "ALTER TABLE s.sorted DROP COLUMN a, ALTER COLUMN b TYPE text, ALTER COLUMN c TYPE varchar(9) COLLATE \"C\", ALTER COLUMN id TYPE bigint",
    "ALTER TABLE s.customer DROP COLUMN name CASCADE",
    "ALTER TABLE s.customer DROP COLUMN score CASCADE",
    "ALTER TABLE s.customer RENAME COLUMN name TO title",
    "ALTER TABLE s.customer RENAME COLUMN score TO points; ALTER TABLE s.customer RENAME COLUMN name TO score",
    r#"ALTER TABLE s.customer RENAME COLUMN "order" TO "select""#,
    "ALTER TABLE s.rental ALTER COLUMN at TYPE date",
    "ALTER TABLE s.rental ALTER COLUMN customer DROP NOT NULL, ALTER COLUMN days SET NOT NULL, ALTER COLUMN at SET DEFAULT '2020-01-01', ALTER COLUMN id DROP DEFAULT",
    "ALTER TABLE s.customer ALTER COLUMN doubled DROP EXPRESSION",
    "ALTER TABLE s.customer DROP COLUMN doubled",
    "ALTER TABLE s.customer ALTER COLUMN id DROP IDENTITY",
    "ALTER TABLE s.customer ALTER COLUMN id SET GENERATED BY DEFAULT SET INCREMENT 5",
    "ALTER TABLE s.rental ALTER COLUMN id DROP DEFAULT; DROP SEQUENCE s.rental_id_seq; ALTER TABLE s.rental ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY",
    "ALTER TABLE s.customer ALTER COLUMN name SET STORAGE EXTERNAL, ALTER COLUMN name SET STATISTICS 7, ALTER COLUMN score SET (n_distinct = 9)",
    "ALTER TABLE s.customer ALTER COLUMN name SET COMPRESSION pglz",
    "ALTER TABLE s.log ADD COLUMN extra int DEFAULT 3",
    "ALTER TABLE s.log DROP COLUMN note",
    "ALTER TABLE s.log RENAME COLUMN note TO remark",
    "ALTER TABLE s.log1 ALTER COLUMN note SET DEFAULT 'one'",
    // Constraints and indexes
    "ALTER TABLE s.customer DROP CONSTRAINT named; ALTER TABLE s.customer DROP CONSTRAINT customer_name_key",
    "ALTER TABLE s.customer DROP CONSTRAINT customer_pkey CASCADE",
    "ALTER TABLE s.rental DROP CONSTRAINT rental_customer_fkey; ALTER TABLE s.rental ADD CHECK (days < 99)",
    "ALTER TABLE s.customer RENAME CONSTRAINT customer_pkey TO pk",
    "ALTER TABLE s.customer RENAME CONSTRAINT named TO called",
    "DROP INDEX s.by_score; CREATE INDEX by_score ON s.customer (name)",
    "ALTER INDEX s.by_score RENAME TO by_points",
    "DROP INDEX s.log_k",
    "CREATE INDEX extra ON s.log (note)",
    "DROP STATISTICS s.both",
    // Views, functions, triggers, rules, policies
    "DROP VIEW s.happy CASCADE",
    "CREATE OR REPLACE VIEW s.names AS SELECT name, 1 AS one FROM s.happy",
    "DROP MATERIALIZED VIEW s.totals",
    "ALTER VIEW s.happy RENAME TO glad",
    "CREATE VIEW s.more AS SELECT * FROM s.names",
    "CREATE OR REPLACE FUNCTION s.twice(x int) RETURNS int LANGUAGE sql AS 'select x + x'",
    "DROP FUNCTION s.twice(int)",
    "DROP FUNCTION s.touch() CASCADE",
    "ALTER FUNCTION s.twice(int) RENAME TO double",
    "DROP TRIGGER touched ON s.customer; ALTER TABLE s.rental DISABLE RULE keep",
    "ALTER TABLE s.customer DISABLE TRIGGER touched",
    "DROP RULE keep ON s.rental; DROP POLICY own ON s.customer; ALTER TABLE s.customer DISABLE ROW LEVEL SECURITY",
    "ALTER POLICY own ON s.customer USING (true)",
    // Types, domains, sequences, schemas, the rest
    "ALTER TYPE s.mood ADD VALUE 'glad' AFTER 'sad'",
    "ALTER TYPE s.mood RENAME VALUE 'sad' TO 'blue'",
    "ALTER TYPE s.mood RENAME TO feeling",
    "DROP TYPE s.pair",
    "ALTER TYPE s.pair ADD ATTRIBUTE c int",
    "ALTER DOMAIN s.positive DROP CONSTRAINT above; ALTER DOMAIN s.positive SET NOT NULL; ALTER DOMAIN s.positive DROP DEFAULT",
    "DROP DOMAIN s.positive CASCADE",
    "ALTER SEQUENCE s.numbers INCREMENT 7 MAXVALUE 1000 CYCLE",
    "DROP SEQUENCE s.numbers",
    "DROP SCHEMA s CASCADE",
    "ALTER SCHEMA s RENAME TO t",
    "ALTER SCHEMA s RENAME TO t; CREATE SCHEMA s; CREATE TABLE s.customer (x int)",
    "CREATE SCHEMA x; CREATE TABLE x.a (b int); ALTER TABLE s.rental SET SCHEMA x; DROP SCHEMA other",
    "ALTER TABLE s.rental SET SCHEMA other; ALTER TABLE s.customer SET SCHEMA other",
    "DROP EXTENSION hstore",
    "DROP PUBLICATION pub",
    "ALTER PUBLICATION pub ADD TABLE s.customer; ALTER PUBLICATION pub DROP TABLE s.rental",
    "DROP AGGREGATE s.total(int); DROP OPERATOR s.@+@ (int, int)",
    // Privileges, owners, comments
    "REVOKE ALL ON s.customer FROM ann CASCADE; GRANT TRUNCATE ON s.customer TO postgres; GRANT INSERT ON s.rental TO bob",
    "GRANT ALL ON s.customer TO bob, PUBLIC; GRANT UPDATE (score) ON s.customer TO bob",
    "SET ROLE ann; GRANT SELECT ON s.customer TO bob",
    "REVOKE USAGE ON SCHEMA s FROM ann; REVOKE EXECUTE ON FUNCTION s.twice(int) FROM PUBLIC",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA s REVOKE SELECT ON TABLES FROM bob; ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC; CREATE TABLE s.z (a int)",
    "COMMENT ON TABLE s.customer IS NULL; COMMENT ON COLUMN s.customer.name IS 'short'; COMMENT ON SCHEMA s IS 'new'",
];

#[test]
fn each_kind_of_change_is_taken_back() -> Result<()> {
    let bench = Bench::new()?;
    let only = std::env::var("ONLY").ok();
    let start = bench.start(START)?;
    let changes: Vec<&str> =
        CHANGES.iter().copied().filter(|change| only.as_ref().is_none_or(|only| change.contains(only.as_str()))).collect();
    let results = each(&changes, |change| bench.undoes(&start, change));
    let failures: Vec<String> = results.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    assert!(failures.is_empty(), "{} of {} failed:\n\n{}", failures.len(), changes.len(), failures.join("\n\n"));
    Ok(())
}

/// `CASES` random schemas and changes (200 unless said otherwise), from `SEED` on.
#[test]
fn random_changes_are_taken_back() -> Result<()> {
    let number = |name: &str, otherwise: u64| std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise);
    let (cases, first) = (number("CASES", 200), number("SEED", 1));
    let bench = Bench::new()?;
    // A schema is used for four cases: making one takes longer than changing it.
    let rounds: Vec<u64> = (first..first + cases).step_by(4).collect();
    let results = each(&rounds, |round| -> Result<Vec<(u64, Result<UndoScript>)>> {
        let start = bench.start(&Random::new(*round).start())?;
        let seeds = *round..round + 4;
        let results = seeds.map(|seed| (seed, bench.undoes(&start, &Random::new(seed + 1_000_000).changes()))).collect();
        bench.drop(&start.database)?;
        Ok(results)
    });
    let (mut failures, mut refused, mut undone) = (Vec::new(), Vec::new(), 0);
    for (seed, result) in results.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten() {
        match result {
            Ok(script) => undone += u64::from(!script.statements.is_empty()),
            // A refusal is an answer, as long as it is rare.
            Err(error) if format!("{error:#}").contains("refused: ") => refused.push(format!("{error:#}")),
            Err(error) => failures.push(format!("SEED={seed}: {error:#}")),
        }
    }
    println!("{cases} cases, {undone} with something to undo, {} refused, {} failed", refused.len(), failures.len());
    refused.iter().for_each(|refusal| println!("{refusal}"));
    assert!(failures.is_empty(), "{} of {cases} failed:\n\n{}", failures.len(), failures.join("\n\n"));
    assert!(undone * 3 > cases, "only {undone} of {cases} changed anything");
    assert!(refused.len() * 20 <= cases.try_into()?, "{} of {cases} were refused", refused.len());
    Ok(())
}
