//! What a plan says beside its statements: conflicts, data to fill in, what goes, what it will not do.

#[path = "undo/bench.rs"]
#[expect(dead_code, reason = "shared with `undo.rs`, which uses all of it")]
mod bench;

use anyhow::{Context, Result};
use bench::Bench;
use reprieve_definitions::{Change, Data, Definitions, Loss, Options, What, can_undo, plan_undo};

const START: &str = "
CREATE SCHEMA s; CREATE TYPE s.mood AS ENUM ('sad', 'ok');
CREATE TABLE s.customer (id int PRIMARY KEY, name text NOT NULL, mood s.mood DEFAULT 'ok');
CREATE TABLE s.rental (id serial, customer int REFERENCES s.customer, days int, at timestamptz);
CREATE VIEW s.names AS SELECT name FROM s.customer;
INSERT INTO s.customer VALUES (1, 'ana', 'sad'), (2, 'ben', 'ok');
INSERT INTO s.rental (customer, days) SELECT 1, n FROM generate_series(1, 3) n;";

/// Before, after `change`, and after `since`.
fn three(bench: &Bench, change: &str, since: &str) -> Result<(String, Definitions, Definitions, Definitions)> {
    let database = bench.database(START)?;
    let before = bench.take(&database)?;
    bench.server.psql(&database, change)?;
    let after = bench.take(&database)?;
    bench.server.psql(&database, since)?;
    let now = bench.take(&database)?;
    Ok((database, before, after, now))
}

#[test]
fn what_was_changed_since_is_left_alone() -> Result<()> {
    let bench = Bench::new()?;
    // What the operation did, what somebody did since, what conflicts, and what has to be there after the undo.
    let check = |change: &str, since: &str, conflicts: &[&str], query: &str, expected: &str| -> Result<()> {
        let (database, before, after, now) = three(&bench, change, since)?;
        let script = plan_undo(&before, &after, &now, Options::default());
        assert_eq!(script.refusals, [], "{change}");
        let found: Vec<&str> = script.conflicts.iter().map(|conflict| conflict.object.as_str()).collect();
        assert_eq!(found, conflicts, "{change}; {since}");
        bench.run(&database, &script).with_context(|| script.to_sql())?;
        assert_eq!(bench.server.psql(&database, query)?, expected, "{change}; {since}\n{}", script.to_sql());
        Ok(())
    };
    let columns = "SELECT string_agg(attname || ' ' || atttypid::regtype, ',' ORDER BY attname) FROM pg_attribute WHERE attrelid = 's.rental'::regclass AND attnum > 0 AND NOT attisdropped";
    check(
        "ALTER TABLE s.rental ADD x int",
        "ALTER TABLE s.rental ADD y int",
        &[],
        columns,
        "at timestamp with time zone,customer integer,days integer,id integer,y integer",
    )?;
    check(
        "ALTER TABLE s.rental ALTER days TYPE bigint, ADD x int",
        "ALTER TABLE s.rental ALTER days TYPE text",
        &["TABLE s.rental"],
        columns,
        "at timestamp with time zone,customer integer,days text,id integer",
    )?;
    let views = "SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class WHERE relkind = 'v' AND relnamespace = 's'::regnamespace";
    check(
        "CREATE OR REPLACE VIEW s.names AS SELECT name, id FROM s.customer",
        "CREATE VIEW s.more AS SELECT name FROM s.names",
        &[],
        views,
        "more,names",
    )?;
    check(
        "CREATE VIEW s.extra AS SELECT 1 AS one",
        "CREATE VIEW s.more AS SELECT one FROM s.extra",
        &["VIEW s.extra"],
        views,
        "extra,more,names",
    )?;
    check(
        "CREATE VIEW s.extra AS SELECT 1 AS one",
        "CREATE OR REPLACE VIEW s.extra AS SELECT 2 AS one",
        &["VIEW s.extra"],
        views,
        "extra,names",
    )?;
    check("DROP VIEW s.names", "CREATE VIEW s.names AS SELECT 'mine' AS name", &["VIEW s.names"], "SELECT name FROM s.names", "mine")?;
    check("DROP VIEW s.names", "CREATE VIEW s.names AS SELECT name FROM s.customer", &[], views, "names")?;
    check(
        "ALTER TABLE s.rental RENAME TO lent",
        "ALTER TABLE s.lent RENAME TO mine",
        &["TABLE s.mine"],
        "SELECT 's.mine'::regclass",
        "s.mine",
    )?;
    check(
        "COMMENT ON TABLE s.rental IS 'a'",
        "COMMENT ON TABLE s.rental IS 'b'",
        &["COMMENT ON TABLE s.rental IS"],
        "SELECT obj_description('s.rental'::regclass)",
        "b",
    )?;
    check(
        "ALTER TABLE s.customer RENAME TO client",
        "CREATE VIEW s.more AS SELECT * FROM s.client",
        &[],
        "SELECT count(*) FROM s.customer",
        "2",
    )
}

#[test]
fn force_takes_back_what_was_changed_since() -> Result<()> {
    let bench = Bench::new()?;
    let (database, before, after, now) = three(&bench, "DROP VIEW s.names", "CREATE VIEW s.names AS SELECT 'mine' AS name, 1 AS x")?;
    let script = plan_undo(&before, &after, &now, Options { force: true });
    assert_eq!(script.conflicts.len(), 1);
    bench.run(&database, &script)?;
    assert_eq!(bench.server.psql(&database, "SELECT string_agg(name, ',' ORDER BY name) FROM s.names")?, "ana,ben");
    Ok(())
}

#[test]
fn the_caller_is_told_which_data_to_bring() -> Result<()> {
    let bench = Bench::new()?;
    let check = |change: &str, data: &[Data], loses: &[Loss]| -> Result<()> {
        let (database, before, after, _) = three(&bench, change, "")?;
        let script = plan_undo(&before, &after, &after, Options::default());
        assert_eq!((script.needs_data.as_slice(), script.loses.as_slice()), (data, loses), "{change}");
        bench.drop(&database)
    };
    let rental = r#""s"."rental""#.to_owned();
    let column = |table: &str, column: &str, kind: &str, key: &[&str]| Data::Column {
        table: format!("\"s\".\"{table}\""),
        column: column.to_owned(),
        kind: kind.to_owned(),
        key: key.iter().map(|key| (*key).to_owned()).collect(),
    };
    let sequence = Data::Sequence { sequence: r#""s"."rental_id_seq""#.to_owned() };
    check("DROP TABLE s.rental", &[Data::Rows { table: rental.clone() }, sequence], &[])?;
    check("ALTER TABLE s.customer DROP COLUMN mood", &[column("customer", "mood", "s.mood", &["id"])], &[])?;
    check("ALTER TABLE s.rental ALTER at TYPE date", &[column("rental", "at", "timestamp with time zone", &[])], &[])?;
    check(
        "ALTER TABLE s.rental DROP at; ALTER TABLE s.rental ADD at timestamptz",
        &[column("rental", "at", "timestamp with time zone", &[])],
        &[Loss::Column(rental.clone(), "at".to_owned())],
    )?;
    check(
        "CREATE TABLE s.new (a int); ALTER TABLE s.rental ADD z int",
        &[],
        &[Loss::Table(r#""s"."new""#.to_owned()), Loss::Column(rental.clone(), "z".to_owned())],
    )?;
    check("ALTER TABLE s.rental RENAME TO lent; ALTER TABLE s.lent RENAME days TO d", &[], &[])?;
    // The same name and the same columns, and yet another table without the rows.
    check(
        "CREATE TABLE s.copy (LIKE s.customer INCLUDING ALL); DROP TABLE s.customer CASCADE; ALTER TABLE s.copy RENAME TO customer; ALTER INDEX s.copy_pkey RENAME TO customer_pkey",
        &[Data::Rows { table: r#""s"."customer""#.to_owned() }],
        &[Loss::Table(r#""s"."customer""#.to_owned())],
    )
}

#[test]
fn rows_stay_when_definitions_come_back() -> Result<()> {
    let bench = Bench::new()?;
    let check = |change: &str| -> Result<()> {
        let (database, before, after, now) = three(&bench, change, "")?;
        let script = plan_undo(&before, &after, &now, Options::default());
        bench.run(&database, &script).with_context(|| script.to_sql())?;
        let rows = "SELECT string_agg(c::text, ';' ORDER BY id) FROM s.customer c; SELECT sum(days) FROM s.rental; SELECT nextval('s.rental_id_seq')";
        assert_eq!(bench.server.psql(&database, rows)?, "(1,ana,sad);(2,ben,ok)\n6\n4", "{change}");
        bench.drop(&database)
    };
    check("ALTER TABLE s.customer RENAME TO rental2; ALTER TABLE s.rental RENAME TO customer; ALTER TABLE s.rental2 RENAME TO rental")?;
    check("ALTER TABLE s.customer RENAME id TO x; ALTER TABLE s.customer RENAME name TO id; ALTER TABLE s.customer RENAME x TO name")?;
    check("ALTER TYPE s.mood ADD VALUE 'glad' BEFORE 'ok'")?;
    check("ALTER TABLE s.rental ALTER days TYPE text; ALTER TABLE s.rental ADD x int DEFAULT 3 NOT NULL")?;
    check("ALTER SCHEMA s RENAME TO t; CREATE SCHEMA s; CREATE TABLE s.customer (x int)")
}

#[test]
fn what_is_not_understood_is_refused() -> Result<()> {
    let bench = Bench::new()?;
    let check = |start: &str, change: &str, object: &str| -> Result<()> {
        let database = bench.database(start)?;
        let before = bench.take(&database)?;
        bench.server.psql(&database, change)?;
        let refusals = can_undo(&before, &bench.take(&database)?).expect_err("this cannot be undone");
        assert!(refusals.iter().any(|refusal| refusal.object.contains(object)), "{change}: {refusals:?}");
        bench.drop(&database)
    };
    check(
        "CREATE EXTENSION file_fdw; CREATE SERVER f FOREIGN DATA WRAPPER file_fdw",
        "CREATE FOREIGN TABLE x (a int) SERVER f OPTIONS (filename '/x')",
        "FOREIGN TABLE",
    )?;
    check("CREATE TABLE p (a int); CREATE TABLE c () INHERITS (p)", "ALTER TABLE c NO INHERIT p", "TABLE public.c")?;
    check("CREATE TYPE y AS (a int); CREATE TABLE t (y y)", "ALTER TYPE y ADD ATTRIBUTE b int", "TYPE public.y")?;
    // A name that reads like a heading's next part is nobody's.
    check("", "CREATE TABLE \"x; Type: VIEW; Schema: y\" (a int)", "y; Type")
}

#[test]
fn a_string_cannot_pose_as_an_entry() -> Result<()> {
    let bench = Bench::new()?;
    let fake =
        "--\n-- TOC entry 1 (class 1259 OID 1)\n-- Name: evil; Type: TABLE; Schema: s; Owner: postgres\n--\n\nDROP TABLE s.customer;";
    let (_, before, after, _) = three(
        &bench,
        &format!("COMMENT ON TABLE s.rental IS '{fake}'; CREATE FUNCTION s.f() RETURNS text LANGUAGE sql AS $$SELECT '\n{fake}'$$"),
        "",
    )?;
    let changes: Vec<(String, What)> = Change::between(&before, &after).into_iter().map(|change| (change.name, change.what)).collect();
    assert_eq!(changes, [("f()".to_owned(), What::Created), ("TABLE rental".to_owned(), What::Created)]);
    assert!(plan_undo(&before, &after, &after, Options::default()).statements.iter().all(|step| !step.sql.contains("evil")));
    // And what is kept is read again as the same.
    assert_eq!(Definitions::parse(after.text())?.differences(&after, true), Vec::<String>::new());
    Ok(())
}
