//! Rows come back: each way of changing them, on a real server, compared table by table.

use reprieve_testkit::Postgres;
use reprieve_undo::{Choice, ConflictKind, Taken, UndoError, journal, revert};
use tokio_postgres::{Client, NoTls};

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(async move { drop(connection.await) });
    client
}

/// A server with these tables, covered by the journal.
async fn covered(schema: &str) -> (Postgres, Client) {
    let server = Postgres::start().expect("a server");
    let client = connect(&server.superuser_url("postgres")).await;
    client.batch_execute("CREATE SCHEMA reprieve; GRANT USAGE ON SCHEMA reprieve TO PUBLIC").await.expect("a schema");
    client.batch_execute(schema).await.expect("tables");
    protect(&client).await;
    (server, client)
}

async fn protect(client: &Client) {
    for step in journal::planned(client).await.expect("a plan") {
        client.batch_execute(&step.sql).await.unwrap_or_else(|error| panic!("{}: {error:?}\n{}", step.purpose, step.sql));
    }
    assert_eq!(journal::planned(client).await.expect("a plan"), [], "nothing is left to do");
}

/// Every row of every table of `public`.
async fn state(client: &Client) -> Vec<(String, Vec<String>)> {
    let tables = client
        .query("SELECT c.oid::regclass::text FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1", &[])
        .await
        .expect("tables");
    let mut all = Vec::new();
    for table in tables {
        let name: String = table.get(0);
        let rows = client.query(&format!("SELECT t::text FROM {name} t ORDER BY 1"), &[]).await.expect("rows");
        all.push((name, rows.iter().map(|row| row.get(0)).collect()));
    }
    all
}

/// Runs a change in one transaction; answers its id.
async fn change(client: &Client, sql: &str) -> u64 {
    client.batch_execute("BEGIN").await.expect("begun");
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let xid: String = client.query_one("SELECT pg_current_xact_id()::text", &[]).await.expect("an id").get(0);
    client.batch_execute("COMMIT").await.expect("committed");
    xid.parse().expect("a number")
}

async fn undo(client: &mut Client, xids: &[u64], choice: Choice) -> Result<reprieve_undo::Report, UndoError> {
    let work = client.transaction().await.expect("begun");
    let report = revert(&work, &xids.iter().map(|xid| Taken::unmeasured(*xid)).collect::<Vec<_>>(), choice).await?;
    work.commit().await.expect("committed");
    Ok(report)
}

const SHOP: &str = "
CREATE TABLE customers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, born date, spent numeric(12,2) DEFAULT 0, at timestamptz DEFAULT now(), tags text[], extra jsonb, twice numeric GENERATED ALWAYS AS (spent * 2) STORED);
CREATE TABLE orders (id serial PRIMARY KEY, customer bigint NOT NULL REFERENCES customers ON DELETE CASCADE ON UPDATE CASCADE, weight float8, note text);
CREATE TABLE lines (\"order\" int REFERENCES orders ON DELETE CASCADE, no int, \"What, now\" text, PRIMARY KEY (\"order\", no));
CREATE TABLE heap (a int, b text);
CREATE TABLE log (at timestamptz, what text);
CREATE TABLE big (id int PRIMARY KEY, blob bytea);
CREATE TABLE measures (at date NOT NULL, place int NOT NULL, value float4, PRIMARY KEY (at, place)) PARTITION BY RANGE (at);
CREATE TABLE measures_1 PARTITION OF measures FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
CREATE TABLE measures_2 PARTITION OF measures FOR VALUES FROM ('2026-07-01') TO ('2027-01-01');
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES (now(), TG_OP || OLD.id); RETURN OLD; END $$;
CREATE TRIGGER noted AFTER DELETE ON orders FOR EACH ROW EXECUTE FUNCTION noted();
CREATE FUNCTION stamped() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.at := now(); RETURN NEW; END $$;
CREATE TRIGGER stamped BEFORE UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION stamped();
INSERT INTO customers (name, born, spent, tags, extra) SELECT 'c,\"' || i || E'\\\\ \\t\\n', '2000-01-01'::date + i, i, ARRAY['x', 'y,' || i], jsonb_build_object('k', i) FROM generate_series(1, 20) i;
INSERT INTO orders (customer, weight, note) SELECT 1 + i % 20, i / 3.0, CASE WHEN i % 7 = 0 THEN NULL ELSE '' END FROM generate_series(1, 60) i;
INSERT INTO lines SELECT i, k, 'l' || k FROM generate_series(1, 60) i, generate_series(1, 3) k;
INSERT INTO heap SELECT i % 3, CASE WHEN i % 4 = 0 THEN NULL ELSE 'h' END FROM generate_series(1, 24) i; INSERT INTO heap VALUES (NULL, NULL), (NULL, NULL);
INSERT INTO big SELECT i, decode(repeat('00ff5c27', 50000), 'hex') FROM generate_series(1, 3) i;
INSERT INTO measures SELECT '2026-01-01'::date + i, i, i / 7.0 FROM generate_series(0, 300, 10) i;
";

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_changing_rows_comes_back() {
    let (_server, mut client) = covered(SHOP).await;
    for sql in [
        "DELETE FROM orders WHERE id = 3",
        "DELETE FROM customers WHERE id < 10",
        "UPDATE customers SET name = upper(name), spent = spent + 1, tags = tags || 'z'::text",
        "UPDATE orders SET weight = 0.1 + 0.2 WHERE id % 2 = 0",
        "INSERT INTO orders (customer, weight) VALUES (1, 'NaN'), (2, '-Infinity')",
        "INSERT INTO customers (name) VALUES ('new'); UPDATE customers SET spent = 5 WHERE name = 'new'; DELETE FROM customers WHERE name = 'new'",
        "UPDATE lines SET no = no + 100",
        "UPDATE customers SET id = DEFAULT WHERE id = 4",
        "UPDATE lines SET no = 4 - no WHERE \"order\" = 5 AND no <> 2 AND false; UPDATE lines SET no = no + 10 WHERE \"order\" = 5; UPDATE lines SET no = 14 - no WHERE \"order\" = 5",
        "DELETE FROM heap WHERE a = 1; INSERT INTO heap VALUES (1, 'h'), (9, NULL), (NULL, NULL)",
        "UPDATE heap SET b = 'changed' WHERE a = 2 OR a IS NULL",
        "DELETE FROM heap WHERE a IS NULL",
        "MERGE INTO orders o USING (VALUES (1, 'a'), (2, 'b'), (900, 'c')) v(id, note) ON o.id = v.id WHEN MATCHED AND v.id = 1 THEN DELETE WHEN MATCHED THEN UPDATE SET note = v.note WHEN NOT MATCHED THEN INSERT (id, customer, note) VALUES (v.id, 1, v.note)",
        "INSERT INTO orders (id, customer, note) VALUES (1, 1, 'up'), (901, 1, 'in') ON CONFLICT (id) DO UPDATE SET note = excluded.note",
        "DO $$ BEGIN EXECUTE 'delete from lines where no = 1'; UPDATE big SET blob = '\\x01'; END $$",
        "UPDATE measures SET at = at + 170 WHERE at < '2026-02-01'",
        "DELETE FROM measures_1; UPDATE measures SET value = -value",
        "TRUNCATE lines",
        "TRUNCATE customers CASCADE",
        "DELETE FROM orders WHERE id = 7; INSERT INTO orders (id, customer, note) VALUES (7, 2, 'again')",
        "WITH gone AS (DELETE FROM lines WHERE no = 2 RETURNING *) INSERT INTO lines SELECT \"order\", no + 50, 'moved' FROM gone",
        "SET LOCAL datestyle = 'SQL, DMY'; SET LOCAL timezone = 'Asia/Tokyo'; SET LOCAL extra_float_digits = -3; SET LOCAL bytea_output = 'escape'; SET LOCAL intervalstyle = 'sql_standard'; DELETE FROM customers; DELETE FROM big; DELETE FROM measures",
        "SET LOCAL session_replication_role = replica; DELETE FROM orders WHERE id < 5",
        "SAVEPOINT a; DELETE FROM lines; ROLLBACK TO a; DELETE FROM lines WHERE no = 3",
    ] {
        let before = state(&client).await;
        let xid = change(&client, sql).await;
        let changed = state(&client).await;
        assert!(before != changed || sql.contains("'new'"), "{sql}");
        let report = undo(&mut client, &[xid], Choice::Stop).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        assert_eq!(state(&client).await, before, "{sql}: {report:?}");
        // Undo is undoable.
        // A broken foreign key can be mended, and not broken again.
        if let Some(again) = report.xid.filter(|_| !sql.contains("replica")) {
            undo(&mut client, &[again], Choice::Stop).await.unwrap_or_else(|error| panic!("undoing the undo of {sql}: {error:?}"));
            assert_eq!(state(&client).await, changed, "{sql}");
            undo(&mut client, &[xid], Choice::Stop).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            assert_eq!(state(&client).await, before, "{sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_changed_since_is_not_overwritten() {
    let (server, mut client) = covered(SHOP).await;
    let other = connect(&server.superuser_url("postgres")).await;
    let before = state(&client).await;
    let xid = change(&client, "UPDATE orders SET note = 'agent' WHERE id <= 3; DELETE FROM lines WHERE \"order\" = 9; INSERT INTO orders (id, customer, note) VALUES (800, 1, 'agent')").await;
    other
        .batch_execute("UPDATE orders SET note = 'human' WHERE id = 2; DELETE FROM orders WHERE id = 3; INSERT INTO lines VALUES (9, 1, 'human'); UPDATE orders SET note = 'kept' WHERE id = 800")
        .await
        .expect("others' work");
    let theirs = state(&client).await;
    let error = undo(&mut client, &[xid], Choice::Stop).await.expect_err("conflicts");
    let UndoError::Conflicts(report) = error else { panic!("{error:?}") };
    let mut kinds: Vec<(String, ConflictKind)> = report.conflicts.iter().map(|conflict| (conflict.table.clone(), conflict.kind)).collect();
    kinds.sort_by_key(|(table, kind)| (table.clone(), format!("{kind:?}")));
    let orders = |kind| ("public.orders".to_owned(), kind);
    assert_eq!(
        kinds,
        [
            ("public.lines".to_owned(), ConflictKind::Added),
            orders(ConflictKind::Changed),
            orders(ConflictKind::Changed),
            orders(ConflictKind::Deleted)
        ]
    );
    assert_eq!(state(&client).await, theirs, "nothing was changed");
    let work = client.transaction().await.expect("begun");
    revert(&work, &[Taken::unmeasured(xid)], Choice::Theirs).await.expect("undone");
    let kept: Vec<Option<String>> = work
        .query("SELECT note FROM public.orders WHERE id IN (1, 2, 3, 800) ORDER BY id", &[])
        .await
        .expect("rows")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(kept, [Some(String::new()), Some("human".to_owned()), Some("kept".to_owned())]);
    work.rollback().await.expect("rolled back");
    undo(&mut client, &[xid], Choice::Ours).await.expect("undone");
    let overwritten = |state: Vec<(String, Vec<String>)>| state.into_iter().filter(|(table, _)| table == "orders").collect::<Vec<_>>();
    assert_eq!(overwritten(state(&client).await), overwritten(before));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_transactions_come_back_as_one() {
    let (_server, mut client) = covered(SHOP).await;
    let before = state(&client).await;
    let first = change(&client, "UPDATE orders SET note = '1'; DELETE FROM customers WHERE id = 5").await;
    let second = change(&client, "UPDATE orders SET note = '2' WHERE id < 30; INSERT INTO customers (name) VALUES ('x')").await;
    assert!(matches!(undo(&mut client, &[first], Choice::Stop).await, Err(UndoError::Conflicts(_))), "the second one stands on it");
    undo(&mut client, &[second, first], Choice::Stop).await.expect("undone");
    assert_eq!(state(&client).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_break_a_foreign_key_or_a_unique_value_is_refused() {
    let (server, mut client) = covered("CREATE TABLE p (id int PRIMARY KEY, u int UNIQUE); CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p); INSERT INTO p VALUES (1, 1), (2, 2); INSERT INTO c VALUES (1, 1)").await;
    let other = connect(&server.superuser_url("postgres")).await;
    let added = change(&client, "INSERT INTO p VALUES (3, 3)").await;
    other.batch_execute("INSERT INTO c VALUES (2, 3)").await.expect("referred to");
    assert!(matches!(undo(&mut client, &[added], Choice::Stop).await, Err(UndoError::ForeignKey { rows: 1, .. })));
    let removed = change(&client, "DELETE FROM c WHERE id = 1").await;
    other.batch_execute("DELETE FROM p WHERE id = 1").await.expect("gone");
    assert!(matches!(undo(&mut client, &[removed], Choice::Stop).await, Err(UndoError::ForeignKey { rows: 1, .. })));
    let removed = change(&client, "DELETE FROM p WHERE id = 2").await;
    other.batch_execute("INSERT INTO p VALUES (20, 2)").await.expect("taken");
    let error = undo(&mut client, &[removed], Choice::Ours).await.expect_err("taken");
    let UndoError::Conflicts(report) = error else { panic!("{error:?}") };
    assert!(report.conflicts.iter().all(|conflict| conflict.kind == ConflictKind::Taken));
}

/// The server's own check of foreign keys is left out while rows are put back: whoever takes the row away that they refer to, at that
/// moment, must not get through.
#[tokio::test(flavor = "multi_thread")]
async fn what_rows_refer_to_is_not_taken_away_while_they_come_back() {
    const TABLES: &str = "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p); \
        INSERT INTO p VALUES (1), (2); INSERT INTO c VALUES (1, 1), (2, 2)";
    for removal in
        ["DELETE FROM c WHERE id = 1", "DELETE FROM c WHERE id = 1; UPDATE c SET p = 1 WHERE id = 2", "UPDATE c SET p = NULL WHERE id = 1"]
    {
        for is_taken_away in [true, false] {
            let (server, mut client) = covered(TABLES).await;
            let other = connect(&server.superuser_url("postgres")).await;
            let watch = connect(&server.superuser_url("postgres")).await;
            let removed = change(&client, removal).await;
            if removal.contains("UPDATE c SET p = 1") {
                client.batch_execute("UPDATE c SET p = NULL WHERE id = 2").await.expect("nothing refers to it");
            }
            other.batch_execute("BEGIN; DELETE FROM p WHERE id = 1").await.expect("nothing refers to it");
            let undoing = tokio::spawn(async move { undo(&mut client, &[removed], Choice::Theirs).await });
            while !undoing.is_finished() {
                let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock')";
                if watch.query_one(waits, &[]).await.expect("an answer").get(0) {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            other.batch_execute(if is_taken_away { "COMMIT" } else { "ROLLBACK" }).await.expect("ended");
            let undone = undoing.await.expect("an answer");
            let orphans = "SELECT count(*) FROM c WHERE p IS NOT NULL AND NOT EXISTS (SELECT FROM p WHERE p.id = c.p)";
            assert_eq!(other.query_one(orphans, &[]).await.expect("a count").get::<_, i64>(0), 0, "{removal}");
            if is_taken_away {
                assert!(matches!(undone, Err(UndoError::ForeignKey { rows: 1, .. })), "{removal}: {undone:?}");
            } else {
                undone.unwrap_or_else(|error| panic!("{removal}: {error:?}"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_without_superuser_rights_can_undo() {
    let server = Postgres::start().expect("a server");
    let root = connect(&server.superuser_url("postgres")).await;
    root.batch_execute(
        "CREATE ROLE owner LOGIN PASSWORD 'owner'; GRANT CREATE ON DATABASE postgres TO owner; GRANT ALL ON SCHEMA public TO owner",
    )
    .await
    .expect("a role");
    let mut client = connect(&server.url("owner", "owner", "postgres")).await;
    client.batch_execute("CREATE SCHEMA reprieve; GRANT USAGE ON SCHEMA reprieve TO PUBLIC").await.expect("a schema");
    client.batch_execute(SHOP).await.expect("tables");
    protect(&client).await;
    let before = state(&client).await;
    for sql in [
        "DELETE FROM customers WHERE id < 10",
        "UPDATE customers SET name = ''; INSERT INTO customers (name) VALUES ('new'); INSERT INTO orders (customer) SELECT max(id) FROM customers",
    ] {
        let xid = change(&client, sql).await;
        undo(&mut client, &[xid], Choice::Stop).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        assert_eq!(state(&client).await, before, "{sql}");
    }
    let enabled: i64 =
        root.query_one("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal AND tgenabled = 'D'", &[]).await.expect("a count").get(0);
    assert_eq!(enabled, 0, "triggers are as they were");
}

/// The journal takes what agents do, whoever they say they are, and costs others nothing. While nobody empties it, it takes no more
/// from an administrator either.
#[tokio::test]
async fn the_journal_takes_what_agents_change_and_does_not_fill_the_disk() {
    let (server, client) = covered("CREATE TABLE t (a int, b text); GRANT ALL ON t TO PUBLIC").await;
    server.create_role("agent", "secret", "").expect("a role");
    server.create_role("other", "secret", "").expect("a role");
    client.batch_execute("GRANT EXECUTE ON FUNCTION reprieve.agent() TO agent").await.expect("granted");
    let rows = async || client.query_one("SELECT count(*) FROM reprieve.journal", &[]).await.expect("a count").get::<_, i64>(0);
    let other = connect(&server.url("other", "secret", "postgres")).await;
    let agent = connect(&server.url("agent", "secret", "postgres")).await;
    let insert = "INSERT INTO t SELECT n, repeat('x', 100) FROM generate_series(1, 1000) n";
    for text in [insert, "UPDATE t SET a = a + 1", "DELETE FROM t WHERE a < 100", "TRUNCATE t"] {
        other.batch_execute(text).await.expect(text);
        assert_eq!(rows().await, 0, "{text}");
    }
    client.batch_execute(insert).await.expect("inserted");
    assert_eq!(rows().await, 1000, "an administrator's are");
    // The same functions with a bound that a test can reach.
    for function in ["keep_inserted", "keep_updated", "keep_deleted", "keep_truncated"] {
        let source: String =
            client.query_one("SELECT prosrc FROM pg_proc WHERE proname = $1", &[&function]).await.expect("its source").get(0);
        assert!(source.contains("8589934592"), "{source}");
        let small = source.replace("8589934592", "65536");
        let text = format!(
            "CREATE OR REPLACE FUNCTION reprieve.{function}() RETURNS trigger LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $keep${small}$keep$"
        );
        client.batch_execute(&text).await.expect("replaced");
    }
    client.batch_execute(insert).await.expect("inserted");
    assert_eq!(rows().await, 1000, "an administrator fills no disk");
    agent.batch_execute(insert).await.expect("inserted");
    assert_eq!(rows().await, 2000, "whatever an agent changes is written down");
    // No agent gets out of that by itself.
    let mut expected = 2000;
    for text in [
        "SET ROLE other",
        "REVOKE EXECUTE ON FUNCTION reprieve.agent() FROM agent",
        "SET SESSION AUTHORIZATION other",
        "SET session_replication_role = replica",
    ] {
        drop(agent.batch_execute(text).await);
        let gone = agent.execute("DELETE FROM t WHERE a <= 10", &[]).await.expect("deleted");
        let come = agent.execute("INSERT INTO t SELECT n FROM generate_series(1, 10) n", &[]).await.expect("inserted");
        expected += i64::try_from(gone + come).expect("few");
        assert_eq!(rows().await, expected, "{text}");
    }
}
