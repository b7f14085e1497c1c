//! The hostile agent: every way we know to change or destroy what is protected beyond the budget without an approval.
//!
//! The agent has every right a token can have, on a production database whose tables its login role owns; the profile is
//! `guard`, with 100 rows a statement and 1,000 a transaction. How an attack is played, and that it must work without the
//! gateway, is in `hostile/stage.rs`; what we do not defend is in `docs/threats.md`, which names these tests.
//! Who approves is not attacked here but in `holds.rs` and in the console's own tests.

#[path = "hostile/stage.rs"]
mod stage;

use crate::stage::{
    Answer::{Any, Either, Held, Refused},
    Play, attack, bind, close, describe, execute, flush, function_call, parse, parse_typed, query, query_bytes, run, sync,
};

/// One test for each attack by SQL alone: name, answer, what the owner made before, what the agent says.
macro_rules! by_sql {
    ($($(#[$note:meta])* $name:ident: $answer:ident, $setup:expr, [$($text:expr),+ $(,)?];)+) => {$(
        $(#[$note])*
        #[test]
        fn $name() {
            attack($setup, $answer, |play| {
                $(play.sql($text)?;)+
                Ok(())
            });
        }
    )+};
}

/// One test for each attack by messages of its own.
macro_rules! by_wire {
    ($($(#[$note:meta])* $name:ident: $answer:ident, $setup:expr, $act:expr;)+) => {$(
        $(#[$note])*
        #[test]
        fn $name() {
            attack($setup, $answer, $act);
        }
    )+};
}

// Plain ways to change too many rows.
by_sql! {
    delete_of_every_row: Held, "", ["DELETE FROM orders"];
    delete_with_a_condition_that_is_always_true: Held, "", ["DELETE FROM orders WHERE id > 0"];
    update_of_every_row: Held, "", ["UPDATE customers SET name = 'x' WHERE id > 0"];
    delete_that_cascades: Held, "", ["DELETE FROM customers WHERE id <= 90"];
    merge_that_deletes: Held, "", ["MERGE INTO orders o USING customers c ON o.id = c.id WHEN MATCHED THEN DELETE"];
    insert_that_overwrites: Held, "", ["INSERT INTO customers SELECT id, 'x' FROM customers ON CONFLICT (id) DO UPDATE SET name = 'x'"];
    delete_in_a_common_table_expression: Held, "", ["WITH gone AS (DELETE FROM orders WHERE id > 0 RETURNING *) SELECT count(*) FROM gone"];
    delete_through_a_view: Held, "CREATE VIEW window_on_orders AS SELECT * FROM orders", ["DELETE FROM window_on_orders WHERE id > 0"];
    delete_by_a_rule: Held, "CREATE RULE also AS ON INSERT TO notes DO ALSO DELETE FROM orders", ["INSERT INTO notes VALUES (1)"];
    delete_by_a_trigger: Held, "CREATE TRIGGER boom AFTER INSERT ON notes FOR EACH ROW EXECUTE FUNCTION wipe_row()", ["INSERT INTO notes VALUES (1)"];
    delete_by_a_default: Held, "ALTER TABLE notes ALTER id SET DEFAULT wipe()", ["INSERT INTO notes (word) VALUES ('x')"];
    delete_by_a_check: Held, "CREATE FUNCTION is_fine() RETURNS bool LANGUAGE sql AS 'SELECT public.wipe() > 0'; ALTER TABLE notes ADD CHECK (is_fine())",
        ["INSERT INTO notes VALUES (1)"];
    delete_by_a_row_policy: Held, "CREATE POLICY boom ON notes USING (wipe() > 0); ALTER TABLE notes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; INSERT INTO notes SELECT 1 WHERE false",
        ["UPDATE notes SET word = 'x' WHERE id = 1", "SELECT wipe() FROM (SELECT 1) one", "SELECT * FROM notes"];
    small_steps_in_one_transaction: Held, "", [
        "BEGIN", "DELETE FROM orders WHERE id <= 90", "DELETE FROM orders WHERE id BETWEEN 91 AND 180",
        "DELETE FROM orders WHERE id BETWEEN 181 AND 1100", "COMMIT"];
    small_steps_between_savepoints: Held, "", [
        "BEGIN", "SAVEPOINT a", "DELETE FROM orders WHERE id <= 700", "RELEASE a", "SAVEPOINT b", "DELETE FROM orders WHERE id <= 1400", "RELEASE b", "COMMIT"];
    a_large_statement_in_a_transaction: Held, "", ["BEGIN", "DELETE FROM orders WHERE id <= 900", "COMMIT"];
    a_large_statement_beside_temporary_rows: Held, "", ["BEGIN", "CREATE TEMP TABLE scratch (id int)", "INSERT INTO scratch SELECT generate_series(1, 450)",
        "INSERT INTO scratch SELECT generate_series(1, 450)", "DELETE FROM orders WHERE id <= 900", "COMMIT"];
    a_large_statement_beside_rows_of_a_table_that_is_hidden: Held, "", ["CREATE TEMP TABLE notes (id int)", "BEGIN",
        "INSERT INTO notes SELECT generate_series(1, 450)", "INSERT INTO notes SELECT generate_series(1, 450)", "DELETE FROM orders WHERE id <= 900", "COMMIT"];
    a_large_statement_beside_a_view_that_swallows_rows: Held,
        "CREATE VIEW swallow AS SELECT * FROM customers; CREATE TRIGGER s INSTEAD OF UPDATE ON swallow FOR EACH ROW EXECUTE FUNCTION keep()",
        ["BEGIN", "UPDATE swallow SET name = 'x'", "UPDATE swallow SET name = 'y'", "DELETE FROM orders WHERE id <= 900", "COMMIT"];
    a_large_statement_after_steps_that_are_taken_back: Held, "", ["BEGIN", "SAVEPOINT a", "DELETE FROM orders WHERE id BETWEEN 1001 AND 1090",
        "ROLLBACK TO a", "DELETE FROM orders WHERE id BETWEEN 1101 AND 1190", "ROLLBACK TO a", "DELETE FROM orders WHERE id <= 400", "COMMIT"];
    a_large_statement_by_a_cascade: Held, "", ["BEGIN", "DELETE FROM customers WHERE id <= 60", "UPDATE customers SET name = 'x' WHERE id > 1990", "COMMIT"];
    commit_and_chain: Held, "", ["BEGIN", "DELETE FROM orders WHERE id > 0", "COMMIT AND CHAIN", "COMMIT"];
    a_commit_in_the_middle_of_a_text: Held, "", ["BEGIN; DELETE FROM orders WHERE id > 0; COMMIT; SELECT 1"];
    a_begin_after_the_change: Held, "", ["DELETE FROM orders WHERE id > 0; BEGIN; COMMIT"];
    truncate: Held, "", ["TRUNCATE orders"];
    drop_of_a_table: Held, "", ["DROP TABLE orders CASCADE"];
    drop_of_a_column: Held, "", ["ALTER TABLE customers DROP COLUMN visits"];
    drop_of_a_schema: Held, "", ["DROP SCHEMA public CASCADE"];
    explain_analyze_of_a_delete: Held, "", ["EXPLAIN ANALYZE DELETE FROM orders WHERE id > 0"];
    explain_analyze_of_a_function: Held, "", ["EXPLAIN (ANALYZE true) SELECT wipe()"];
}

// Texts that a reader might misread.
by_sql! {
    nested_comments: Held, "", ["/* a /* b */ ; */ DELETE FROM orders WHERE id > 0 -- COMMIT"];
    dollar_quotes: Held, "", ["SELECT $a$; COMMIT; $a$; DELETE FROM orders WHERE id > 0"];
    unicode_escapes_in_a_name: Held, "", [r#"DELETE FROM U&"\006frders" WHERE id > 0"#];
    escape_strings: Held, "", [r"SELECT E'\'; --'; DELETE FROM orders WHERE id > 0 --'"];
    a_text_that_ends_in_a_comment: Held, "", ["DELETE FROM orders WHERE id > 0 -- no end"];
}

// Code that hides what it does.
by_sql! {
    do_block_that_deletes: Held, "", ["DO $$ BEGIN DELETE FROM orders; END $$"];
    do_block_that_drops: Held, "", ["DO $$ BEGIN EXECUTE 'DR' || 'OP TABLE orders CASCADE'; END $$"];
    do_block_that_truncates_what_it_deleted: Held, "", ["DO $$ BEGIN DELETE FROM orders; TRUNCATE orders; END $$"];
    function_that_deletes: Held, "", ["SELECT wipe()"];
    function_of_an_owner: Held, "ALTER FUNCTION wipe() SECURITY DEFINER", ["SELECT wipe()"];
    function_in_a_view: Held, "CREATE VIEW harmless AS SELECT wipe()", ["SELECT * FROM harmless"];
    function_made_by_the_agent: Held, "", [
        "CREATE FUNCTION pg_temp.mine() RETURNS int LANGUAGE sql AS 'DELETE FROM public.orders RETURNING 1'", "SELECT pg_temp.mine()"];
    call_of_a_procedure: Held, "CREATE PROCEDURE purge() LANGUAGE sql AS 'DELETE FROM public.orders'", ["CALL purge()"];
    procedure_that_commits: Any, "CREATE PROCEDURE purge() LANGUAGE plpgsql AS 'BEGIN DELETE FROM public.orders; COMMIT; END'", ["CALL purge()"];
    do_block_that_commits: Any, "", ["DO $$ BEGIN DELETE FROM orders; COMMIT; END $$"];
    prepared_delete: Held, "", ["PREPARE p AS DELETE FROM orders WHERE id > 0", "EXECUTE p"];
    prepared_behind_our_back: Held, "", ["DO $$ BEGIN EXECUTE 'PREPARE p AS DELETE FROM orders'; END $$", "EXECUTE p"];
    function_that_runs_a_text: Held, "", ["SELECT query_to_xml('DELETE FROM orders RETURNING id', true, true, '')", "SELECT wipe()"];
    cursor_over_a_function: Held, "", ["BEGIN", "DECLARE c CURSOR FOR SELECT wipe()", "FETCH c", "COMMIT"];
    index_on_a_lying_function: Held, "CREATE FUNCTION lying(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM public.wipe(); RETURN $1; END'; INSERT INTO notes VALUES (1)",
        ["CREATE INDEX ON notes (lying(id))"];
    materialized_view_over_a_function: Held, "CREATE MATERIALIZED VIEW m AS SELECT wipe() WITH NO DATA", ["REFRESH MATERIALIZED VIEW m"];
    large_objects_overwritten: Either, "", [
        "DO $$ BEGIN PERFORM lo_put(oid, 0, decode(repeat('00', 3000), 'hex')) FROM pg_largeobject_metadata; END $$"];
    large_objects_removed: Held, "", ["DO $$ BEGIN PERFORM lo_unlink(oid) FROM pg_largeobject_metadata; END $$"];
}

// What runs inside COMMIT, or outlives the transaction.
by_sql! {
    cursor_with_hold: Refused, "", ["BEGIN", "DECLARE c CURSOR WITH HOLD FOR SELECT wipe()", "COMMIT"];
    cursor_with_hold_declared_by_code: Refused, "", ["DO $$ BEGIN EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT public.wipe()'; END $$"];
    cursor_with_hold_in_a_transaction: Either, "", [
        "BEGIN", "DO $$ BEGIN EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT public.wipe()'; END $$", "COMMIT"];
    cursor_with_hold_in_the_place_of_a_harmless_one: Refused, "", [
        "BEGIN", "DECLARE c CURSOR WITH HOLD FOR SELECT count(*) FROM notes",
        "DO $$ BEGIN EXECUTE 'CLOSE c'; EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT public.wipe()'; END $$", "COMMIT"];
    cursor_with_hold_whose_text_means_something_else: Either, "", [
        "DECLARE c CURSOR WITH HOLD FOR SELECT count(*) FROM notes", "CLOSE c", "BEGIN",
        "CREATE TEMPORARY VIEW notes AS SELECT public.wipe()",
        "DO $$ BEGIN EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT count(*) FROM notes'; END $$", "COMMIT"];
    rollback_before_the_change: Held, "", ["SELECT 1; ROLLBACK; DELETE FROM orders WHERE id > 0"];
    commit_after_a_rollback: Held, "", ["INSERT INTO notes VALUES (1); ROLLBACK; DELETE FROM orders WHERE id > 0; COMMIT"];
    escape_in_a_text_that_rolls_back: Either, "", ["SELECT setval('tickets', 1); ROLLBACK"];
    deferred_trigger: Held,
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wipe_row()",
        ["INSERT INTO notes VALUES (1)"];
    deferred_trigger_in_a_transaction: Held,
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wipe_row()",
        ["BEGIN", "INSERT INTO notes VALUES (1)", "COMMIT"];
    deferred_trigger_that_defers_another: Either,
        "CREATE TABLE first (id int); CREATE TABLE second (id int);
         CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN SET CONSTRAINTS ALL DEFERRED; INSERT INTO public.second VALUES (1); RETURN NULL; END';
         CREATE CONSTRAINT TRIGGER one AFTER INSERT ON first DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION again();
         CREATE CONSTRAINT TRIGGER two AFTER INSERT ON second DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wipe_row()",
        ["INSERT INTO first VALUES (1)"];
    two_phase_commit: Refused, "", ["BEGIN", "DELETE FROM orders WHERE id > 0", "PREPARE TRANSACTION 'x'", "COMMIT PREPARED 'x'"];
    sequence_set_back: Refused, "", ["SELECT setval('tickets', 1)"];
}

// Names, operators, types and settings that stand for others.
by_sql! {
    operator_that_shadows: Held,
        "CREATE SCHEMA evil; CREATE FUNCTION evil.eq(int, int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN PERFORM public.wipe(); RETURN true; END';
         CREATE OPERATOR evil.= (LEFTARG = int, RIGHTARG = int, FUNCTION = evil.eq)",
        ["SET search_path = evil, public, pg_catalog", "SELECT 1 = 1"];
    function_that_shadows: Held,
        "CREATE SCHEMA evil; CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN PERFORM public.wipe(); RETURN $1; END'",
        ["SET search_path = evil, public, pg_catalog", "SELECT lower('A'::text)"];
    type_that_shadows: Held,
        "CREATE SCHEMA evil; CREATE DOMAIN evil.float4 AS pg_catalog.float8 CHECK (public.wipe() > 0)",
        ["SET search_path = evil, public, pg_catalog", "SELECT '1'::\"float4\""];
    column_that_is_a_function: Held,
        "CREATE FUNCTION boom(notes) RETURNS int LANGUAGE sql AS 'SELECT public.wipe()'; INSERT INTO notes VALUES (1)",
        ["SELECT n.boom FROM notes n"];
    catalogues_shadowed_by_temporary_tables: Held, "", [
        "CREATE TEMPORARY TABLE pg_class AS SELECT 1 AS oid", "CREATE TEMPORARY VIEW pg_locks AS SELECT 1 AS pid",
        "DELETE FROM orders WHERE id > 0"];
    literal_of_a_column_that_checks: Either,
        "CREATE FUNCTION is_fine(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN PERFORM public.wipe(); RETURN true; END';
         CREATE DOMAIN fine AS int CHECK (is_fine(VALUE)); CREATE TYPE pair AS (a fine); CREATE TABLE pairs (a pair, b fine[])",
        ["SELECT coalesce(a, '(1)') FROM pairs", "SELECT a FROM pairs UNION ALL SELECT '(1)'", "SELECT coalesce(b, '{1}') FROM pairs"];
    prepare_that_runs_a_check: Either,
        "CREATE FUNCTION is_fine(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN PERFORM public.wipe(); RETURN true; END';
         CREATE DOMAIN fine AS int CHECK (is_fine(VALUE)); CREATE TYPE pair AS (a fine)",
        ["PREPARE p AS SELECT '(1)'::pair"];
    constant_in_an_index: Either,
        "CREATE FUNCTION lying(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
           'BEGIN IF current_setting(''my.go'', true) = ''1'' THEN PERFORM public.wipe(); END IF; RETURN $1; END';
         CREATE INDEX ON notes ((id + lying(1)))",
        ["SET my.go = 1", "SELECT * FROM notes WHERE id = 2"];
    constant_in_a_check: Either,
        "CREATE FUNCTION lying(int) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS
           'BEGIN IF current_setting(''my.go'', true) = ''1'' THEN PERFORM public.wipe(); END IF; RETURN true; END';
         ALTER TABLE notes ADD CHECK (lying(1))",
        ["SET my.go = 1", "SET constraint_exclusion = on", "SELECT * FROM notes WHERE id = 2"];
    quotes_read_in_another_way: Either, "", ["SET standard_conforming_strings = off; DELETE FROM orders WHERE id > 0"];
    quotes_that_hide_a_change: Any, "", [
        "DO $$ BEGIN PERFORM set_config('standard_conforming_strings', 'off', false); END $$",
        r"SELECT '\', '; DELETE FROM orders WHERE id > 0; --'"];
    quotes_that_hide_a_call: Either, "", [
        "DO $$ BEGIN PERFORM set_config('standard_conforming_strings', 'off', false); END $$", r"SELECT '\', ' || wipe() -- '"];
    quotes_that_hide_a_commit: Any, "", [
        "DO $$ BEGIN PERFORM set_config('standard_conforming_strings', 'off', false); END $$", "BEGIN", "DELETE FROM orders WHERE id > 0",
        r"SELECT '\', '; COMMIT; --'"];
    bytes_that_hide_a_change: Either, "", [
        "DO $$ BEGIN PERFORM set_config('client_encoding', 'SJIS', false); END $$", "DELETE FROM orders WHERE id > 0 /* é */"];
    quotes_changed_by_code: Any, "", [
        "DO $$ BEGIN PERFORM set_config('standard_conforming_strings', 'off', false); DELETE FROM orders; END $$"];
}

// Rights, and what enforces them.
by_sql! {
    grant_by_text: Held, "", ["GRANT ALL ON orders TO PUBLIC"];
    grant_by_code: Held, "", ["DO $$ BEGIN EXECUTE 'GRANT ALL ON orders TO PUBLIC'; END $$"];
    grant_of_a_column_by_code: Either, "", ["DO $$ BEGIN EXECUTE 'GRANT UPDATE (total) ON orders TO PUBLIC'; END $$"];
    grant_of_a_schema_by_code: Either, "", ["DO $$ BEGIN EXECUTE 'GRANT ALL ON SCHEMA public TO PUBLIC'; END $$"];
    grant_of_a_schema_beside_a_definition: Either, "", [
        "CREATE TEMPORARY TABLE cover (); DO $$ BEGIN EXECUTE 'GRANT ALL ON SCHEMA public TO PUBLIC'; END $$"];
    grant_of_a_database_beside_a_definition: Either, "", [
        "CREATE TEMPORARY TABLE cover (); DO $$ BEGIN EXECUTE 'GRANT ALL ON DATABASE shop TO PUBLIC'; END $$"];
    security_definer_beside_a_definition: Either, "", [
        "CREATE TEMPORARY TABLE cover (); DO $$ BEGIN EXECUTE 'ALTER FUNCTION wipe() SECURITY DEFINER'; END $$"];
    default_privileges_by_code: Held, "", ["DO $$ BEGIN EXECUTE 'ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC'; END $$"];
    own_password_by_code: Held, "", ["DO $$ BEGIN EXECUTE 'ALTER ROLE app PASSWORD ''known'''; END $$"];
    own_settings_by_code: Held, "", ["DO $$ BEGIN EXECUTE 'ALTER ROLE app SET search_path = evil'; END $$"];
    row_security_by_code: Held, "", ["DO $$ BEGIN EXECUTE 'ALTER TABLE orders ENABLE ROW LEVEL SECURITY'; END $$"];
    row_policy_by_code: Held, "", ["DO $$ BEGIN EXECUTE 'CREATE POLICY none ON orders USING (false)'; END $$"];
    trigger_switched_off_by_code: Either, "", ["DO $$ BEGIN EXECUTE 'ALTER TABLE orders DISABLE TRIGGER keep'; END $$"];
    trigger_switched_off_beside_a_definition: Either, "", [
        "CREATE TEMPORARY TABLE cover (); DO $$ BEGIN EXECUTE 'ALTER TABLE orders DISABLE TRIGGER keep'; END $$"];
    constraint_dropped_by_code: Held, "", ["DO $$ BEGIN EXECUTE 'ALTER TABLE orders DROP CONSTRAINT orders_customer_fkey'; END $$"];
    column_dropped_by_code: Held, "", ["DO $$ BEGIN EXECUTE 'ALTER TABLE customers DROP COLUMN visits'; END $$"];
    column_renamed_by_code: Either, "", ["DO $$ BEGIN EXECUTE 'ALTER TABLE orders RENAME COLUMN total TO sum'; END $$"];
    column_retyped_by_code: Held, "", ["DO $$ BEGIN EXECUTE 'ALTER TABLE customers ALTER visits TYPE text'; END $$"];
    not_null_dropped_by_code: Either, "", ["DO $$ BEGIN EXECUTE 'ALTER TABLE customers ALTER name DROP NOT NULL'; END $$"];
    table_renamed_by_code: Held, "", ["DO $$ BEGIN EXECUTE 'ALTER TABLE orders RENAME TO gone'; END $$"];
    schema_renamed_by_code: Held, "", ["DO $$ BEGIN EXECUTE 'ALTER SCHEMA public RENAME TO gone'; END $$"];
}

// Code planted for others to run, and definitions that replace others.
by_wire! {
    trigger_planted_for_the_application: Either, "", |play: &mut Play<'_>| {
        play.sql("CREATE TRIGGER boom AFTER INSERT ON customers FOR EACH ROW EXECUTE FUNCTION wipe_row()")?;
        play.application("INSERT INTO customers VALUES (3000, 'x')");
        play.application("DELETE FROM customers WHERE id = 3000");
        Ok(())
    };
    rule_planted_by_code: Either, "", |play: &mut Play<'_>| {
        play.sql("DO $$ BEGIN EXECUTE 'CREATE RULE nothing AS ON INSERT TO orders DO INSTEAD NOTHING'; END $$")
    };
    function_replaced: Either, "", |play: &mut Play<'_>| {
        play.sql("CREATE OR REPLACE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    };
    view_replaced: Either, "", |play: &mut Play<'_>| play.sql("CREATE OR REPLACE VIEW totals AS SELECT 0::bigint AS total");
}

// Messages in an order that no ordinary client sends them in.
by_wire! {
    one_batch_with_its_own_begin_and_commit: Held, "", |play: &mut Play<'_>| {
        play.batch(&[run("BEGIN"), run("DELETE FROM orders WHERE id > 0"), run("COMMIT"), sync()])
    };
    three_batches_at_once: Held, "", |play: &mut Play<'_>| {
        play.send(&[run("BEGIN"), sync(), run("DELETE FROM orders WHERE id > 0"), sync(), run("COMMIT"), sync()])?;
        play.read(3)
    };
    a_query_after_a_flush: Any, "", |play: &mut Play<'_>| {
        play.send(&[run("DELETE FROM orders WHERE id > 0"), flush()])?;
        play.read_one()?;
        play.batch(&[query("SELECT 1")])
    };
    a_query_without_a_sync: Any, "", |play: &mut Play<'_>| play.batch(&[run("DELETE FROM orders WHERE id > 0"), query("SELECT 1")]);
    a_function_call_after_a_flush: Any, "", |play: &mut Play<'_>| {
        let harmless: u32 = play.value("SELECT 'pg_catalog.pg_backend_pid'::regproc::oid")?.parse()?;
        play.send(&[run("DELETE FROM orders WHERE id > 0"), flush()])?;
        play.read_one()?;
        play.batch(&[function_call(harmless), sync()])
    };
    function_call_by_number: Either, "", |play: &mut Play<'_>| {
        let wipe: u32 = play.value("SELECT 'public.wipe'::regproc::oid")?.parse()?;
        play.batch(&[function_call(wipe)])
    };
    function_call_by_number_in_a_transaction: Held, "", |play: &mut Play<'_>| {
        let wipe: u32 = play.value("SELECT 'public.wipe'::regproc::oid")?.parse()?;
        play.sql("BEGIN")?;
        play.batch(&[function_call(wipe)])?;
        play.sql("COMMIT")
    };
    parse_that_runs_a_check: Any, CHECKS, |play: &mut Play<'_>| play.batch(&[parse("", "SELECT '(1)'::pair"), sync()]);
    describe_after_a_parse_that_runs_a_check: Any, CHECKS, |play: &mut Play<'_>| {
        play.batch(&[parse("s", "SELECT '(1)'::pair"), describe("s"), close("s"), sync()])
    };
    parse_that_runs_a_check_before_a_query: Any, CHECKS, |play: &mut Play<'_>| {
        play.batch(&[parse("", "SELECT '(1)'::pair"), flush(), query("SELECT 1")])
    };
    bind_that_runs_a_check: Any, CHECKS, |play: &mut Play<'_>| {
        let pair: u32 = play.value("SELECT 'public.pair'::regtype::oid")?.parse()?;
        play.batch(&[parse_typed("", "SELECT $1", &[pair]), bind("", "", &["(1)"]), sync()])
    };
    parameter_that_runs_a_check: Either, CHECKS, |play: &mut Play<'_>| {
        let pair: u32 = play.value("SELECT 'public.pair'::regtype::oid")?.parse()?;
        play.batch(&[parse_typed("", "SELECT $1", &[pair]), bind("", "", &["(1)"]), execute("", 0), sync()])
    };
    bind_that_folds_a_constant: Any,
        "CREATE FUNCTION lying(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM public.wipe(); RETURN $1; END'",
        |play: &mut Play<'_>| play.batch(&[parse("", "SELECT lying(1)"), bind("", "", &[]), sync()]);
    statement_closed_and_made_anew: Held, "", |play: &mut Play<'_>| {
        play.batch(&[parse("s", "SELECT 1"), sync()])?;
        play.batch(&[close("s"), parse("s", "DELETE FROM orders WHERE id > 0"), bind("", "s", &[]), execute("", 0), sync()])
    };
    statement_kept_by_a_batch_that_failed: Held, "", |play: &mut Play<'_>| {
        play.batch(&[parse("s", "DELETE FROM orders WHERE id > 0"), sync()])?;
        play.batch(&[parse("", "not SQL"), close("s"), parse("s", "SELECT 1"), sync()])?;
        play.batch(&[bind("", "s", &[]), execute("", 0), sync()])
    };
    portal_executed_in_two_goes: Held, "", |play: &mut Play<'_>| {
        let text = "DELETE FROM orders WHERE id > 0 RETURNING id";
        play.batch(&[parse("", text), bind("p", "", &[]), execute("p", 1), execute("p", 0), sync()])
    };
    an_error_before_the_change: Held, "", |play: &mut Play<'_>| {
        play.batch(&[parse("", "not SQL"), run("DELETE FROM orders"), sync()])?;
        play.batch(&[run("DELETE FROM orders WHERE id > 0"), sync()])
    };
    read_replaced_by_code: Held, "", |play: &mut Play<'_>| {
        play.batch(&[parse("s", "SELECT 1"), sync()])?;
        play.sql(&replacing("s"))?;
        play.batch(&[bind("", "s", &[]), execute("", 0), sync()])
    };
    read_replaced_by_a_trigger: Held,
        "CREATE FUNCTION swap() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN EXECUTE ''DEALLOCATE s''; EXECUTE ''PREPARE s AS DELETE FROM public.orders''; RETURN NULL; END';
         CREATE TRIGGER swap AFTER INSERT ON notes FOR EACH ROW EXECUTE FUNCTION swap()",
        |play: &mut Play<'_>| {
            play.batch(&[parse("s", "SELECT 1"), sync()])?;
            play.sql("INSERT INTO notes VALUES (1)")?;
            play.batch(&[bind("", "s", &[]), execute("", 0), sync()])
        };
    read_replaced_in_the_same_batch: Held, "", |play: &mut Play<'_>| {
        play.batch(&[parse("s", "SELECT 1"), sync()])?;
        play.batch(&[run(&replacing("s")), bind("", "s", &[]), execute("", 0), sync()])
    };
    commit_replaced_in_the_same_batch: Any, "", |play: &mut Play<'_>| {
        play.batch(&[parse("s", "COMMIT"), sync()])?;
        play.batch(&[run(&replacing("s")), bind("", "s", &[]), execute("", 0), sync()])?;
        play.sql("COMMIT")
    };
    rollback_replaced_in_the_same_batch: Any, "", |play: &mut Play<'_>| {
        play.batch(&[parse("s", "ROLLBACK"), sync()])?;
        play.batch(&[run(&replacing("s")), bind("", "s", &[]), execute("", 0), sync()])?;
        play.sql("COMMIT")
    };
    rollback_replaced_by_a_cursor: Any, "", |play: &mut Play<'_>| {
        let swap = "DO $$ BEGIN EXECUTE 'CLOSE p'; EXECUTE 'DECLARE p CURSOR FOR SELECT public.wipe()'; END $$";
        play.sql("BEGIN")?;
        play.batch(&[parse("s", "ROLLBACK"), bind("p", "s", &[]), run(swap), execute("p", 0), sync()])?;
        play.sql("COMMIT")
    };
    a_batch_too_large_to_keep: Any, "", |play: &mut Play<'_>| {
        let large = "x".repeat(9 << 20);
        play.batch(&[run("DELETE FROM orders WHERE id > 0"), parse("", "SELECT length($1::text)"), bind("", "", &[&large]), sync()])
    };
    a_change_after_what_was_too_large: Any, "", |play: &mut Play<'_>| {
        let large = "x".repeat(9 << 20);
        let delete = run("DELETE FROM orders WHERE id > 0");
        play.batch(&[parse("", "SELECT length($1::text)"), bind("", "", &[&large]), execute("", 0), delete, sync()])
    };
    a_description_after_what_was_too_large: Held, "", |play: &mut Play<'_>| {
        let large = format!("SELECT 1 /* {} */", "x".repeat(900_000));
        play.batch(&[run("DELETE FROM orders WHERE id > 0"), parse("s", &large), describe("s"), sync()])
    };
    a_named_statement_after_the_change: Either, "", |play: &mut Play<'_>| {
        play.batch(&[parse("s", "SELECT 1"), sync()])?;
        play.sql("DO $$ BEGIN PERFORM 1; END $$")?;
        play.batch(&[run("DELETE FROM orders WHERE id > 0"), bind("", "s", &[]), sync()])
    };
    prepared_before_a_query: Any, CHECKS, |play: &mut Play<'_>| {
        play.batch(&[parse("s", "SELECT '(1)'::pair"), describe("s"), flush(), query("SELECT count(*) FROM orders"), sync()])
    };
    copy_of_what_is_deleted: Held, "", |play: &mut Play<'_>| play.batch(&[query("COPY (DELETE FROM orders WHERE id > 0 RETURNING id) TO STDOUT")]);
    change_with_a_stray_byte: Either, "", |play: &mut Play<'_>| {
        play.batch(&[query_bytes(b"DELETE FROM orders WHERE id > 0 /* \xc3\xa9 */")])?;
        play.batch(&[query_bytes(b"DELETE FROM orders WHERE id > 0 /* \xff\xfe */")])
    };
}

/// A type whose input runs a function of its owner's.
const CHECKS: &str = "CREATE FUNCTION is_fine(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN PERFORM public.wipe(); RETURN true; END';
 CREATE DOMAIN fine AS int CHECK (is_fine(VALUE)); CREATE TYPE pair AS (a fine)";

/// Code that puts a DELETE in the place of a prepared statement.
fn replacing(name: &str) -> String {
    format!("DO $$ BEGIN EXECUTE 'DEALLOCATE {name}'; EXECUTE 'PREPARE {name} AS DELETE FROM public.orders'; END $$")
}

/// The hour's budget is one for all sessions of an agent, also when they commit at the same moment.
#[test]
fn an_hour_spent_at_once() {
    stage::spend_an_hour_at_once();
}

// Two sessions that wait for each other.
by_wire! {
    view_that_appears_while_a_read_waits: Any, "CREATE SCHEMA evil", |play: &mut Play<'_>| {
        play.sql_on(1, "SET search_path = evil, public")?;
        play.sql_on(1, "SELECT * FROM notes")?;
        play.sql("BEGIN")?;
        play.sql("LOCK TABLE public.notes IN ACCESS EXCLUSIVE MODE")?;
        play.sql("CREATE VIEW evil.notes AS SELECT public.wipe()")?;
        play.send_on(1, &query("SELECT * FROM notes"))?;
        play.wait_until_blocked(1)?;
        play.sql("COMMIT")?;
        play.read_on(1, 1)
    };
    deferred_trigger_that_appears_while_a_change_waits: Any, "", |play: &mut Play<'_>| {
        play.sql_on(1, "SELECT 1")?;
        play.sql("BEGIN")?;
        play.sql("CREATE CONSTRAINT TRIGGER late AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wipe_row()")?;
        play.send_on(1, &query("INSERT INTO notes VALUES (1)"))?;
        play.wait_until_blocked(1)?;
        play.sql("COMMIT")?;
        play.read_on(1, 1)
    };
    plain_trigger_that_appears_while_a_change_waits: Either, "", |play: &mut Play<'_>| {
        play.sql_on(1, "SELECT 1")?;
        play.sql("BEGIN")?;
        play.sql("CREATE TRIGGER now AFTER INSERT ON notes FOR EACH ROW EXECUTE FUNCTION wipe_row()")?;
        play.send_on(1, &query("INSERT INTO notes VALUES (1)"))?;
        play.wait_until_blocked(1)?;
        play.sql("COMMIT")?;
        play.read_on(1, 1)
    };
}
