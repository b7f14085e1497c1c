//! Which tables can be set aside unnoticed, and which can't; on a real server.

use reprieve_testkit::Postgres;
use reprieve_undo::journal;
use tokio_postgres::{Client, NoTls};

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(async move { drop(connection.await) });
    client
}

async fn answer(client: &Client, tables: &str) -> String {
    let text = format!("SELECT reprieve.set_aside(ARRAY(SELECT t::regclass::oid FROM unnest('{{{tables}}}'::text[]) t))");
    client.query_one(&text, &[]).await.expect("an answer").get(0)
}

const TABLES: &str = "
CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE SEQUENCE shared;
CREATE FUNCTION is_short(text) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT length($1) < 9';
CREATE TABLE plain (id serial PRIMARY KEY, word text); CREATE TABLE child (id int PRIMARY KEY, plain int REFERENCES plain);
CREATE TABLE with_enum (m mood); CREATE TABLE with_domain (p positive); CREATE TABLE with_sequence (n int DEFAULT nextval('shared'));
CREATE TABLE with_function (t text CHECK (is_short(t))); CREATE TABLE rowtype (a int); CREATE TABLE uses_rowtype (r rowtype);
CREATE TABLE seen (a int); CREATE VIEW sees AS SELECT * FROM seen; CREATE MATERIALIZED VIEW saw AS SELECT a, count(*) FROM sees GROUP BY a;
CREATE TABLE keyed (id int PRIMARY KEY, word text); CREATE MATERIALIZED VIEW by_key AS SELECT id, word FROM keyed GROUP BY id;
CREATE TABLE short (t text); CREATE MATERIALIZED VIEW shorter AS SELECT is_short(t) FROM short;
CREATE TABLE half (a int); CREATE TABLE stays (a int); CREATE MATERIALIZED VIEW joined AS SELECT half.a FROM half JOIN stays USING (a);
CREATE VIEW words AS SELECT word FROM keyed JOIN stays ON id = a;
CREATE TABLE circle (a int); CREATE VIEW one_way AS SELECT a FROM circle; CREATE VIEW other_way AS SELECT a FROM one_way;
CREATE MATERIALIZED VIEW around AS SELECT a FROM other_way; CREATE OR REPLACE VIEW one_way AS SELECT a FROM other_way UNION SELECT a FROM circle;
CREATE TABLE published (a int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE published;
CREATE TABLE parent (a int); CREATE TABLE heir () INHERITS (parent);
CREATE TABLE days (at date, n int) PARTITION BY RANGE (at); CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE \"Odd, name\" (\"a b\" int PRIMARY KEY); CREATE TABLE others (a int);
CREATE TABLE argument (a int); CREATE FUNCTION takes(argument) RETURNS int LANGUAGE sql AS 'SELECT 1'";

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_noticed_is_not_set_aside() {
    let server = Postgres::start().expect("a server");
    let root = connect(&server.superuser_url("postgres")).await;
    root.batch_execute("CREATE SCHEMA reprieve; GRANT USAGE ON SCHEMA reprieve TO PUBLIC; CREATE ROLE app LOGIN PASSWORD 'app'; GRANT ALL ON SCHEMA public TO app; GRANT CREATE ON DATABASE postgres TO app")
        .await
        .expect("a schema");
    let app = connect(&server.url("app", "app", "postgres")).await;
    app.batch_execute(&TABLES.replace("\\\"", "\"").replace("CREATE TABLE others (a int);", "")).await.expect("tables");
    root.batch_execute("CREATE TABLE others (a int)").await.expect("a table");
    for step in journal::planned(&root).await.expect("a plan") {
        root.batch_execute(&step.sql).await.unwrap_or_else(|error| panic!("{}: {error:?}", step.purpose));
    }
    for (tables, because) in [
        ("others", "only who may drop"),
        ("with_enum", "built on type public.mood"),
        ("with_domain", "built on type public.positive"),
        ("with_sequence", "built on sequence public.shared"),
        ("with_function", "built on function public.is_short"),
        ("rowtype", "is built on it"),
        ("argument", "is built on it"),
        ("short", "materialized view public.shorter is built on it"),
        ("half", "materialized view public.joined is built on it"),
        ("published", "published"),
        ("parent", "inherits"),
        ("heir", "inherits"),
        ("days_1", "part of a table that stays"),
        ("shared", "no ordinary table"),
        ("saw", "no ordinary table"),
        ("pg_catalog.pg_class", "only who may drop"),
        ("reprieve.journal", "only who may drop"),
    ] {
        let said = answer(&app, tables).await;
        assert!(said.contains(because), "{tables}: {said}");
    }
    // A schema that somebody made before would be theirs to look into.
    let oid: u32 = app.query_one("SELECT 'plain'::regclass::oid", &[]).await.expect("an oid").get(0);
    app.batch_execute(&format!("CREATE SCHEMA reprieve_aside_{oid}")).await.expect("a trap");
    assert!(answer(&app, "plain").await.contains("already exists"));
    app.batch_execute(&format!("DROP SCHEMA reprieve_aside_{oid}")).await.expect("gone");
    let nothing: i64 =
        root.query_one("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'reprieve_aside%'", &[]).await.expect("a count").get(0);
    assert_eq!(nothing, 0, "nothing was changed");
    // Views go along where one of them is filled, and nothing is under them that stays.
    for (table, kinds) in [("seen", "mrv"), ("keyed", "mr"), ("circle", "r"), ("plain", "r")] {
        app.batch_execute("BEGIN").await.expect("begun");
        answer(&app, table).await;
        let moved = "SELECT string_agg(c.relkind::text, '' ORDER BY c.relkind) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname LIKE 'reprieve_aside%' AND c.relkind NOT IN ('i', 'S', 't')";
        assert_eq!(app.query_one(moved, &[]).await.expect("kinds").get::<_, String>(0), kinds, "{table}");
        app.batch_execute("ROLLBACK").await.expect("rolled back");
    }
    // The others are, and the doubles meet the DROP as the tables would have.
    for (tables, drop, refused) in [
        ("plain", "DROP TABLE plain", Some("child")),
        ("plain", "DROP TABLE plain CASCADE", None),
        ("plain,child", "DROP TABLE child, plain", None),
        ("days", "DROP TABLE days", None),
        ("seen", "DROP TABLE seen", Some("materialized view saw depends on view sees")),
        ("seen", "DROP TABLE seen CASCADE", None),
        ("keyed", "DROP TABLE keyed CASCADE", None),
        ("circle", "DROP TABLE circle CASCADE", None),
        ("seen", "DROP VIEW sees CASCADE; DROP TABLE seen", None),
        ("\"\\\"Odd, name\\\"\"", "DROP TABLE \"Odd, name\"", None),
    ] {
        app.batch_execute("BEGIN").await.expect("begun");
        let said = answer(&app, tables).await;
        assert!(said.starts_with('{'), "{tables}: {said}");
        match (app.batch_execute(drop).await, refused) {
            (Ok(()), None) => {}
            (Err(error), Some(because)) => {
                let said = error.as_db_error().map(|error| format!("{} {:?}", error.code().code(), error.detail())).unwrap_or_default();
                assert!(said.contains("2BP01") && said.contains(because), "{said}");
            }
            (other, _) => panic!("{drop}: {other:?}"),
        }
        app.batch_execute("ROLLBACK").await.expect("rolled back");
    }
}
