//! What a real database's catalogue proves.
//!
//! `golden/catalog.tsv` holds the rows that PostgreSQL 15.18 answered to the catalogue query for a small database; the
//! comment at its head tells how that was made.

use reprieve_effects_sql::{Catalog, DeleteAction, analyze};
use reprieve_operation::ObjectName;

fn catalog() -> Catalog {
    let rows = include_str!("golden/catalog.tsv").lines().filter(|line| !line.starts_with("--")).map(|line| {
        let mut fields = line.split('\t').map(|field| (field != "\\N").then(|| field.to_owned()));
        std::array::from_fn(|_| fields.next().expect("four fields"))
    });
    Catalog::from_rows(rows)
}

#[test]
fn reads_are_proven_only_where_nothing_of_the_users_can_run() {
    let catalog = catalog();
    let check = |text: &str, expected: bool| {
        let analysis = analyze(text);
        let [statement] = analysis.statements.as_slice() else { panic!("one statement: {text}") };
        assert_eq!(catalog.proves_read(statement), expected, "{text}");
    };
    for text in [
        "SELECT 1",
        "SHOW server_version",
        "SELECT * FROM orders WHERE id = $1",
        "SELECT o.id, count(*) FROM public.orders o JOIN app.customers c ON c.id = o.id GROUP BY 1 ORDER BY 2 DESC LIMIT 5",
        "SELECT lower(status), now(), total::int FROM orders WHERE total BETWEEN 1 AND 2",
        "SELECT 'a'::mood, 'b'::public.mood, pg_catalog.upper('x')",
        "SELECT * FROM mv",
        "SELECT last_value FROM orders_id_seq",
        "SELECT * FROM pg_stat_activity",
        "SELECT * FROM information_schema.tables",
        "SELECT c.relname FROM pg_catalog.pg_class c WHERE pg_catalog.pg_table_is_visible(c.oid)",
        "WITH x AS (SELECT * FROM orders) SELECT * FROM x",
        "EXPLAIN SELECT * FROM orders",
        "EXPLAIN ANALYZE SELECT * FROM orders",
        "COPY orders TO STDOUT",
        "SELECT o.status FROM orders o",
        "SELECT json_object('{a,1}'), JSON_ARRAY(1)",
        "SELECT * FROM orders TABLESAMPLE bernoulli (1)",
    ] {
        check(text, true);
    }
    for text in [
        "SELECT * FROM orders FOR UPDATE",
        "SELECT * INTO copy FROM orders",
        "DELETE FROM orders",
        "SELECT * FROM nowhere",
        "SELECT * FROM app.orders",
        "SELECT * FROM v",
        "SELECT * FROM app.secured",
        "SELECT * FROM app.ruled",
        // In one schema a table, in another a view: the search path decides.
        "SELECT * FROM shadowed",
        "SELECT upper('x')",
        "SELECT app.upper('x')",
        // Syntax in 16, a call of the user's function in 15.
        "SELECT JSON_SCALAR('x')",
        "SELECT my_function()",
        "SELECT nextval('orders_id_seq')",
        "SELECT setval('orders_id_seq', 1)",
        "SELECT set_config('x.y', '1', false)",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_notify('a', 'b')",
        "SELECT query_to_xml('DELETE FROM orders', true, true, '')",
        "SELECT 1 <-> 2",
        "SELECT 1 OPERATOR(app.<->) 2",
        "SELECT '1'::positive",
        "SELECT '1'::app.items",
        "SELECT positive('1')",
        // The attribute notation calls `app.wipe(orders)`.
        "SELECT o.wipe FROM orders o",
        "SELECT (o).wipe FROM orders o",
        "SELECT (4711).pg_terminate_backend",
        "FETCH c",
        "DECLARE c CURSOR FOR SELECT * FROM orders",
        "EXPLAIN EXECUTE q",
        "EXPLAIN SELECT app.upper('x')",
        "COPY orders TO '/tmp/x'",
        "COPY v TO STDOUT",
        "WITH x AS (DELETE FROM orders RETURNING *) SELECT * FROM x",
        "SELECT * FROM json_to_record('{}') AS x(a positive)",
        "SELECT jsonb_populate_record(NULL::app.items, '{}')",
        "SET search_path = app",
        "not sql at all",
    ] {
        check(text, false);
    }
}

#[test]
fn a_catalogue_that_is_empty_or_unreadable_proves_nothing() {
    let analysis = analyze("SELECT 1");
    let statement = analysis.statements.first().expect("one statement");
    assert!(!Catalog::from_rows(std::iter::empty()).proves_read(statement));
    let row = |kind: &str| [Some(kind.to_owned()), Some("public".to_owned()), Some("t".to_owned()), Some("20000 r p 0 f f f".to_owned())];
    assert!(Catalog::from_rows([row("relation")].into_iter()).proves_read(statement));
    assert!(!Catalog::from_rows([row("relation"), row("something new")].into_iter()).proves_read(statement));
    let mut broken = row("relation");
    broken[3] = Some("20000 r p".to_owned());
    assert!(!Catalog::from_rows([row("relation"), broken].into_iter()).proves_read(statement));
    let implicit = [Some("implicit".to_owned()), None, Some("cast".to_owned()), None];
    assert!(!Catalog::from_rows([row("relation"), implicit].into_iter()).proves_read(statement));
}

#[test]
fn tables_and_what_hangs_on_them() {
    let catalog = catalog();
    let names: Vec<_> = catalog.user_tables().iter().map(|(_, name, _)| name.as_str()).collect();
    assert_eq!(names, ["public.orders", "app.customers", "app.items", "app.secured", "app.ruled", "public.shadowed"]);
    assert!(catalog.has_deferrable_triggers());
    assert!(catalog.max_relation_oid() > 16_384);
    assert!(catalog.relation_count() > 100);
    assert_eq!(catalog.catalogs().len(), 64, "the system catalogs of PostgreSQL 15");
    let found = catalog.find_tables(&ObjectName::bare("orders"));
    let [orders] = found.as_slice() else { panic!("one table") };
    assert_eq!(orders.kind, 'r');
    let [items] = orders.dependents.as_slice() else { panic!("one dependent") };
    assert_eq!((items.table.to_string(), items.on_delete), ("app.items".to_owned(), DeleteAction::Cascade));
    let readers: Vec<String> = orders.readers.iter().map(ToString::to_string).collect();
    assert_eq!(readers, ["public.v"]);
    assert_eq!(catalog.find_tables(&ObjectName::bare("shadowed")).len(), 2);
    assert_eq!(catalog.find_tables(&ObjectName::qualified("app", "orders")).len(), 0);
}
