//! The demo's databases hold what its story says: the numbers of `demo/README.md`, counted.

use std::fs;
use std::path::Path;

use reprieve_testkit::Postgres;

const DELETE: &str = "DELETE FROM public.reservations WHERE updated_at < '2026-02-14' AND source IS DISTINCT FROM 'web'";

const TOUCHED: &str = "SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_xact_user_tables
    WHERE n_tup_ins + n_tup_upd + n_tup_del > 0 ORDER BY relname";

const ORPHANS: &str =
    "SELECT (SELECT count(*) FROM reservation_items AS i WHERE NOT EXISTS (SELECT FROM reservations AS r WHERE r.id = i.reservation_id))
    + (SELECT count(*) FROM invoices AS i WHERE NOT EXISTS (SELECT FROM reservations AS r WHERE r.id = i.reservation_id))
    + (SELECT count(*) FROM invoice_lines AS l WHERE NOT EXISTS (SELECT FROM invoices AS i WHERE i.id = l.invoice_id))
    + (SELECT count(*) FROM payments AS p WHERE NOT EXISTS (SELECT FROM reservations AS r WHERE r.id = p.reservation_id))
    + (SELECT count(*) FROM reservations AS r WHERE NOT EXISTS (SELECT FROM customers AS c WHERE c.id = r.customer_id))
    + (SELECT count(*) FROM reservations AS r WHERE NOT EXISTS (SELECT FROM vehicles AS v WHERE v.id = r.vehicle_id))
    + (SELECT count(*) FROM vehicles AS v WHERE NOT EXISTS (SELECT FROM locations AS l WHERE l.id = v.location_id))";

fn demo(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo").join(file)).expect("a file of the demo")
}

fn check(server: &Postgres, database: &str, query: &str, expected: &str) {
    assert_eq!(server.psql(database, query).expect(query), expected, "{database}: {query}");
}

#[test]
fn the_story_is_true() {
    let server = Postgres::start().expect("a server");
    server.psql("postgres", &demo("roles.sql")).expect("roles");
    for (database, environment) in [("pocket_prod", "production"), ("pocket_staging", "staging")] {
        server.create_database(database, "appowner").expect("a database");
        let script = format!("SET pocket.environment = '{environment}';\n{}\n{}", demo("schema.sql"), demo("seed.sql"));
        server.psql(database, &script).expect("a seeded database");
        check(&server, database, ORPHANS, "0");
    }

    // The same words, twice: harmless where the agent tried them, not where it wants to run them.
    let story = format!("BEGIN; SET ROLE agent_migrations; {DELETE}; {TOUCHED}; ROLLBACK");
    let staging = "invoice_lines|0|0|816\ninvoices|0|0|202\npayments|0|196|0\nreservation_items|0|0|600\nreservations|0|0|212";
    let production = "invoice_lines|0|0|161227\ninvoices|0|0|39906\nmail_outbox|1318|0|0\npayments|0|38771|0\n\
                      reservation_items|0|0|118340\nreservations|0|0|41872";
    check(&server, "pocket_staging", &story, staging);
    check(&server, "pocket_prod", &story, production);
    check(&server, "pocket_prod", "SELECT count(*) FROM reservations", "133347");

    // Natively, nothing stops the migrations agent, and nothing but a missing right to connect stops the other one.
    check(&server, "pocket_prod", "BEGIN; SET ROLE agent_migrations; TRUNCATE invoice_lines; DROP TABLE payments; ROLLBACK", "");
    for (database, expected) in [("pocket_prod", "f"), ("pocket_staging", "t")] {
        check(&server, database, "SELECT has_database_privilege('agent_cursor_staging', current_database(), 'CONNECT')", expected);
    }
}
