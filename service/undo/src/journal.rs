//! The journal: what each statement did to rows, written down by triggers in the same transaction.
//!
//! Statement triggers with transition tables see every row that a statement changed, by whatever route it came: cascades, functions,
//! COPY, MERGE (PostgreSQL 15, chapter 39.1). They write row images as text, so that no table's type is tied to the journal, and in
//! one spelling whatever the session's settings. They run as their owner, out of the agents' reach, and also where
//! `session_replication_role` leaves other triggers out.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use reprieve_gate::{Coverage, Running, Sampling};
use tokio_postgres::{Client, GenericClient, Transaction, error::SqlState};

use crate::{DefinitionsLog, Login, UndoError, aside, sample, strict};

/// One step of setting the journal up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it is for, in words.
    pub purpose: String,
    /// The statement.
    pub sql: String,
}

/// Settings that change how values are spelled, and the values under which the journal spells them.
const SPELLING: [(&str, &str); 5] =
    [("DateStyle", "ISO, MDY"), ("IntervalStyle", "postgres"), ("TimeZone", "UTC"), ("extra_float_digits", "1"), ("bytea_output", "hex")];

/// The triggers: name, event, transition tables, function.
const TRIGGERS: [(&str, &str, &str, &str); 4] = [
    ("reprieve_keeps_inserts", "AFTER INSERT", "REFERENCING NEW TABLE AS reprieve_new", "keep_inserted"),
    ("reprieve_keeps_updates", "AFTER UPDATE", "REFERENCING OLD TABLE AS reprieve_old NEW TABLE AS reprieve_new", "keep_updated"),
    ("reprieve_keeps_deletes", "AFTER DELETE", "REFERENCING OLD TABLE AS reprieve_old", "keep_deleted"),
    ("reprieve_keeps_truncates", "BEFORE TRUNCATE", "", "keep_truncated"),
];

/// The schema of heartbeats, as `reprieve-recovery` has it too (`survey.rs`). Nothing of anybody's is in there, and who writes its rows
/// trusts no table with a trigger.
const HEARTBEATS: &str = "reprieve_recovery";

/// Tables that the journal can cover: ordinary and partitioned ones that live in the database's WAL, but for those whose rows another
/// table's statements change in another form (inheritance), and those with columns whose spelling depends on the search path.
const COVERABLE: &str = "
 c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND c.oid >= 16384 AND n.nspname NOT IN ('reprieve', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname !~ '^reprieve_aside_[0-9]+$'
 AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class p ON p.oid = h.inhparent WHERE (h.inhrelid = c.oid OR h.inhparent = c.oid) AND p.relkind = 'r')
 AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  AND a.atttypid IN ('pg_catalog.regclass'::pg_catalog.regtype, 'pg_catalog.regproc'::pg_catalog.regtype, 'pg_catalog.regprocedure'::pg_catalog.regtype,
   'pg_catalog.regoper'::pg_catalog.regtype, 'pg_catalog.regoperator'::pg_catalog.regtype, 'pg_catalog.regtype'::pg_catalog.regtype, 'pg_catalog.regconfig'::pg_catalog.regtype,
   'pg_catalog.regdictionary'::pg_catalog.regtype, 'pg_catalog.regcollation'::pg_catalog.regtype))";

fn coverable() -> String {
    format!("{COVERABLE} AND n.nspname <> '{HEARTBEATS}'")
}

/// Whether a table's triggers are all there, as they have to be, with the functions of this version.
fn covered() -> String {
    let functions: Vec<String> =
        TRIGGERS.iter().map(|(_, _, _, function)| format!("('{function}', pg_catalog.md5($md5${}$md5$))", body(function))).collect();
    let kinds: Vec<String> = [("keep_inserted", 4), ("keep_updated", 16), ("keep_deleted", 8), ("keep_truncated", 34)]
        .iter()
        .map(|(function, kind)| format!("('{function}', {kind})"))
        .collect();
    format!(
        "(SELECT pg_catalog.count(DISTINCT f.proname) FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc f ON f.oid = t.tgfoid \
         JOIN pg_catalog.pg_namespace s ON s.oid = f.pronamespace \
         WHERE t.tgrelid = c.oid AND s.nspname = 'reprieve' AND t.tgenabled = 'A' AND t.tgqual IS NULL AND t.tgattr = ''::pg_catalog.int2vector AND f.prosecdef \
         AND (f.proname::pg_catalog.text, pg_catalog.md5(f.prosrc)) IN ({}) AND (f.proname::pg_catalog.text, t.tgtype::pg_catalog.int4) IN ({})) = 4",
        functions.join(", "),
        kinds.join(", ")
    )
}

/// A statement's number is this many times its place among all statements, plus its process: Linux numbers processes below that.
pub(crate) const BACKENDS: i64 = 1 << 22;

/// Who may call this does so as an agent: whatever that role changes is written down. It does nothing.
const AGENT: &str = "reprieve.agent()";

/// The size from which an administrator's changes are not written down any more, while nobody empties the journal: it must not fill the
/// server's disk. Agents are held before that, and change nothing while the gateway is down.
const LARGEST: u64 = 8 << 30;

/// The function that writes down all of a table before it is dropped or rewritten, with its columns and its sequences' positions.
const KEEP_WHOLE: &str = "keep_whole";

/// A call of it, for the session that is about to drop or rewrite the relation.
#[must_use]
pub fn keep_whole(oid: u32) -> String {
    format!("SELECT reprieve.{KEEP_WHOLE}({oid}::pg_catalog.oid)")
}

/// Its body. What it writes has negative numbers of statements, so that it isn't taken for deleted rows.
fn whole_body() -> String {
    let (set, set_back) = spelling_guard();
    format!(
        "
-- Installed by `reprieve protect --apply`; `--remove` takes it away.
DECLARE
  spelling pg_catalog.text[];
  name pg_catalog.text;
  kind pg_catalog.\"char\";
  number pg_catalog.int8 := OPERATOR(pg_catalog.-) pg_catalog.nextval('reprieve.journal_statement'::pg_catalog.regclass);
  kept pg_catalog.int8 := 0;
  owned pg_catalog.oid;
  at pg_catalog.text;
BEGIN
  SELECT c.relkind, pg_catalog.format('%I.%I', n.nspname, c.relname) INTO kind, name
   FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace WHERE c.oid OPERATOR(pg_catalog.=) relation;
  IF kind OPERATOR(pg_catalog.=) 'S' AND NOT pg_catalog.has_sequence_privilege(session_user, relation, 'UPDATE')
   OR kind OPERATOR(pg_catalog.<>) 'S' AND NOT pg_catalog.has_table_privilege(session_user, relation, 'DELETE') THEN
    RAISE EXCEPTION 'only who may delete its rows may have a table kept';
  END IF;
{set}
  IF kind OPERATOR(pg_catalog.=) 'r' THEN
    -- Until the end of this transaction nobody changes what was kept.
    EXECUTE pg_catalog.format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', name);
    EXECUTE pg_catalog.format('INSERT INTO reprieve.journal (xid, statement, relation, old, new) SELECT pg_catalog.pg_current_xact_id(), %s, %s, pg_catalog.textin(pg_catalog.record_out(r)), NULL FROM ONLY %s r', number, relation, name);
    GET DIAGNOSTICS kept = ROW_COUNT;
  END IF;
  IF kind OPERATOR(pg_catalog.=) ANY ('{{r,p}}'::pg_catalog.\"char\"[]) THEN
    -- Types are named in full: whoever puts rows back has another search path.
    at := pg_catalog.current_setting('search_path');
    PERFORM pg_catalog.set_config('search_path', '', true);
    INSERT INTO reprieve.journal (xid, statement, relation, old, new)
     SELECT pg_catalog.pg_current_xact_id(), number, relation, NULL,
      pg_catalog.string_agg(pg_catalog.format('%I %s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
     FROM pg_catalog.pg_attribute a WHERE a.attrelid OPERATOR(pg_catalog.=) relation AND a.attnum OPERATOR(pg_catalog.>) 0::pg_catalog.int2 AND NOT a.attisdropped;
    PERFORM pg_catalog.set_config('search_path', at, true);
  END IF;
  FOR owned IN SELECT relation WHERE kind OPERATOR(pg_catalog.=) 'S' UNION ALL
    SELECT d.objid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class s ON s.oid OPERATOR(pg_catalog.=) d.objid
    WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid
     AND d.refobjid OPERATOR(pg_catalog.=) relation AND d.deptype OPERATOR(pg_catalog.=) ANY ('{{a,i}}'::pg_catalog.\"char\"[]) AND s.relkind OPERATOR(pg_catalog.=) 'S'
  LOOP
    SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) INTO at
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace WHERE c.oid OPERATOR(pg_catalog.=) owned;
    EXECUTE pg_catalog.format('INSERT INTO reprieve.journal (xid, statement, relation, old, new) SELECT pg_catalog.pg_current_xact_id(), %s, %s, NULL, pg_catalog.concat(s.last_value, '','', s.is_called) FROM %s s', number, owned, at);
  END LOOP;
{set_back}
  RETURN kept;
END;
"
    )
}

/// The journal of one database.
pub struct Journal {
    login: Login,
    query: String,
    definitions: Option<Arc<DefinitionsLog>>,
    /// The definitions' version that the surface was told of: an undo, too, learns that they changed.
    told: AtomicU64,
}

impl Journal {
    /// The journal that this administrator's login sets up and keeps up.
    #[must_use]
    pub fn new(login: Login, definitions: Option<Arc<DefinitionsLog>>) -> Self {
        Self { login, query: covered_tables(), definitions, told: AtomicU64::new(0) }
    }

    /// Covers tables that came since it was set up. Does nothing where it never was.
    async fn cover_new_tables(&self) -> Result<(), UndoError> {
        let client = self.login.connect().await?;
        client.batch_execute("SET lock_timeout = '500ms'; SET client_min_messages = error").await?;
        if !is_set_up(&client).await? {
            return Ok(());
        }
        for step in on_heartbeats(&client).await? {
            if let Err(error) = client.batch_execute(&step.sql).await {
                tracing::warn!(error = %UndoError::from(error), "a trigger of ours stays on the heartbeats' table, so that none is written");
            }
        }
        let mut in_use = None;
        let uncovered = uncovered(&client).await?;
        for table in &uncovered {
            let steps: Vec<String> = triggers_of(table).map(|step| step.sql).collect();
            // One at a time: a table that somebody has locked must not keep the others waiting.
            if let Err(error) = client.batch_execute(&format!("BEGIN; {}; COMMIT", steps.join("; "))).await {
                if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) {
                    in_use = Some(table.clone());
                } else {
                    tracing::warn!(table, error = %UndoError::from(error), "changes of this table can't be kept yet, so they are held");
                }
                client.batch_execute("ROLLBACK").await?;
            }
        }
        // Whoever uses it will be done soon: an analysis after a load, say.
        in_use.map_or(Ok(()), |table| Err(UndoError::InUse { table }))
    }
}

impl Coverage for Journal {
    fn query(&self) -> &str {
        &self.query
    }

    fn keep_up(&self) -> Running<'_, Result<(), String>> {
        Box::pin(async move {
            let covered = self.cover_new_tables().await;
            if let Some(definitions) = &self.definitions {
                let _has_changed = definitions.look().await.map_err(|error| error.to_string())?;
            }
            covered.map_err(|error| error.to_string())
        })
    }

    fn definitions_ready(&self) -> Running<'_, Result<bool, String>> {
        Box::pin(async move {
            match &self.definitions {
                Some(definitions) => {
                    let had_changed = definitions.ready().await?;
                    let version = definitions.version();
                    Ok(self.told.swap(version, Ordering::AcqRel) != version || had_changed)
                }
                None => Err("definitions are not kept".to_owned()),
            }
        })
    }

    fn keep_whole(&self, relation: u32) -> String {
        keep_whole(relation)
    }

    fn set_aside(&self, relations: &[u32]) -> String {
        aside::set_aside(relations)
    }

    fn sampling(&self, relation: u32, share: f64, most: u32) -> Option<Sampling> {
        Some(sample::sampling(relation, share, most))
    }
}

pub(crate) async fn is_set_up(client: &Client) -> Result<bool, UndoError> {
    // Ours, and not something of that name that somebody else made for us to trip over.
    let ours = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
        WHERE n.nspname OPERATOR(pg_catalog.=) 'reprieve' AND c.relname OPERATOR(pg_catalog.=) 'journal' AND c.relkind OPERATOR(pg_catalog.=) 'r' \
        AND c.relowner OPERATOR(pg_catalog.=) n.nspowner AND pg_catalog.pg_get_userbyid(c.relowner) OPERATOR(pg_catalog.=) current_user)";
    Ok(client.query_one(ours, &[]).await?.get(0))
}

/// Covers what was made in the open transaction.
pub(crate) async fn cover_within(work: &Transaction<'_>) -> Result<(), UndoError> {
    for table in uncovered(work).await? {
        for step in triggers_of(&table) {
            work.batch_execute(&step.sql).await?;
        }
    }
    Ok(())
}

/// Tables that can be covered and are not.
async fn uncovered(client: &impl GenericClient) -> Result<Vec<String>, UndoError> {
    let query = format!(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE {} AND NOT {} ORDER BY 1",
        coverable(),
        covered()
    );
    Ok(client.query(&query, &[]).await?.iter().map(|row| row.get(0)).collect())
}

fn triggers_of(table: &str) -> impl Iterator<Item = Step> {
    TRIGGERS.iter().flat_map(move |(name, event, transition, function)| {
        let kept = event.rsplit(' ').next().unwrap_or_default().to_lowercase();
        [
            Step {
                purpose: format!("keep {kept}s of {table}"),
                sql: format!(
                    "CREATE OR REPLACE TRIGGER {name} {event} ON {table} {transition} FOR EACH STATEMENT EXECUTE FUNCTION reprieve.{function}()"
                ),
            },
            Step {
                purpose: "always, also where other triggers are left out".to_owned(),
                sql: format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}"),
            },
        ]
    })
}

/// A query for the oids of tables whose every row change is in the journal, or that are set aside, where whoever asks can't change
/// them. A partition counts where its whole tree does, and none does where whoever asks could change the journal.
#[must_use]
pub fn covered_tables() -> String {
    let (covered, coverable) = (covered(), coverable());
    format!(
        "WITH t AS (SELECT c.oid, {covered} AS is_covered FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE {coverable}) \
         SELECT t.oid FROM t WHERE t.is_covered AND NOT EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(t.oid) a WHERE a.relid <> t.oid \
          AND NOT EXISTS (SELECT FROM t o WHERE o.oid = a.relid AND o.is_covered)) \
          AND NOT COALESCE(pg_catalog.has_table_privilege(pg_catalog.to_regclass('reprieve.journal'), 'INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER'), true) \
          AND COALESCE(pg_catalog.has_function_privilege(pg_catalog.to_regprocedure('{AGENT}'), 'EXECUTE'), false) \
          AND NOT COALESCE(pg_catalog.has_table_privilege(pg_catalog.to_regclass('reprieve.seal'), 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER'), false) \
         UNION SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND n.nspname ~ '^reprieve_aside_[0-9]+$' \
          AND NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND NOT pg_catalog.has_schema_privilege(n.oid, 'CREATE') ORDER BY 1"
    )
}

/// What is missing for every table that can be covered to be covered, and for a strict system to be one.
/// `agents` is the role that they log in with.
pub async fn plan(login: &Login, agents: &str, strict: bool) -> Result<Vec<Step>, UndoError> {
    let client = login.connect().await?;
    let mut steps = planned(&client).await?;
    let may = "SELECT COALESCE(pg_catalog.has_function_privilege($1::pg_catalog.text::pg_catalog.name, pg_catalog.to_regprocedure('reprieve.agent()'), 'EXECUTE'), false)";
    if !client.query_one(may, &[&agents]).await?.get::<_, bool>(0) {
        steps.push(Step {
            purpose: format!("always write down what `{agents}` changes"),
            sql: format!("GRANT EXECUTE ON FUNCTION {AGENT} TO \"{}\"", agents.replace('"', "\"\"")),
        });
    }
    if strict {
        steps.extend(strict::planned(&client).await?);
    }
    Ok(steps)
}

/// The same over a connection.
pub async fn planned(client: &Client) -> Result<Vec<Step>, UndoError> {
    let mut steps = Vec::new();
    let mut step = |purpose: &str, sql: String| steps.push(Step { purpose: purpose.to_owned(), sql });
    if !is_set_up(client).await? {
        step("number statements", "CREATE SEQUENCE reprieve.journal_statement".to_owned());
        step(
            "make the journal of row changes",
            "CREATE TABLE reprieve.journal (xid pg_catalog.xid8 NOT NULL, statement pg_catalog.int8 NOT NULL, relation pg_catalog.oid NOT NULL, old pg_catalog.text, new pg_catalog.text)".to_owned(),
        );
        step("find changes in it by their transaction", "CREATE INDEX journal_xid ON reprieve.journal (xid)".to_owned());
    }
    if client.query_one("SELECT pg_catalog.to_regprocedure('reprieve.agent()') IS NULL", &[]).await?.get(0) {
        step("know agents' sessions", format!("CREATE FUNCTION {AGENT} RETURNS pg_catalog.bool LANGUAGE sql IMMUTABLE AS 'SELECT true'"));
        step("only who is named", format!("REVOKE ALL ON FUNCTION {AGENT} FROM PUBLIC"));
    }
    for (_, _, _, function) in TRIGGERS {
        let current = client
            .query_opt(
                "SELECT f.prosrc FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace s ON s.oid = f.pronamespace \
                 WHERE s.nspname = 'reprieve' AND f.proname = $1 AND f.prosecdef",
                &[&function],
            )
            .await?;
        if current.is_none_or(|row| row.get::<_, String>(0) != body(function)) {
            let sql = format!(
                "CREATE OR REPLACE FUNCTION reprieve.{function}() RETURNS trigger LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $keep${}$keep$",
                body(function)
            );
            step(&format!("write {} rows down", function.trim_start_matches("keep_")), sql);
            step("nobody calls it but the triggers", format!("REVOKE ALL ON FUNCTION reprieve.{function}() FROM PUBLIC"));
        }
    }
    let whole = client
        .query_opt(
            "SELECT f.prosrc FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace s ON s.oid = f.pronamespace WHERE s.nspname = 'reprieve' AND f.proname = $1",
            &[&KEEP_WHOLE],
        )
        .await?;
    if whole.is_none_or(|row| row.get::<_, String>(0) != whole_body()) {
        step(
            "write a whole table down before it is dropped",
            format!(
                "CREATE OR REPLACE FUNCTION reprieve.{KEEP_WHOLE}(relation pg_catalog.oid) RETURNS pg_catalog.int8 LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $keep${}$keep$",
                whole_body()
            ),
        );
    }
    let shown = client
        .query_opt(
            "SELECT f.prosrc FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace s ON s.oid = f.pronamespace \
             WHERE s.nspname = 'reprieve' AND f.proname = 'sample' AND f.prosecdef",
            &[],
        )
        .await?;
    steps.extend(sample::step(shown.map(|row| row.get::<_, String>(0)).as_deref()));
    steps.extend(aside::planned(client).await?);
    steps.extend(on_heartbeats(client).await?);
    for table in uncovered(client).await? {
        steps.extend(triggers_of(&table));
    }
    Ok(steps)
}

/// Takes the journal and its triggers away; what it holds is lost.
pub async fn removal(login: &Login) -> Result<Vec<Step>, UndoError> {
    let client = login.connect().await?;
    if client.query_one("SELECT pg_catalog.to_regnamespace('reprieve') IS NULL", &[]).await?.get(0) {
        return Ok(Vec::new());
    }
    let mut steps = triggers_off(&client, "true").await?;
    steps.extend(aside::removal(&client).await?);
    steps.extend(strict::removal());
    for (kind, name) in [
        ("FUNCTION", "keep_inserted()"),
        ("FUNCTION", "keep_updated()"),
        ("FUNCTION", "keep_deleted()"),
        ("FUNCTION", "keep_truncated()"),
        ("FUNCTION", "keep_whole(oid)"),
        ("FUNCTION", "sample(oid, float8, int4)"),
        ("FUNCTION", "agent()"),
        ("TABLE", "journal"),
        ("SEQUENCE", "journal_statement"),
    ] {
        steps.push(Step { purpose: format!("take away {name}"), sql: format!("DROP {kind} IF EXISTS reprieve.{name}") });
    }
    Ok(steps)
}

/// Takes the triggers off tables that aren't covered any more: versions before this one covered the heartbeats', too.
async fn on_heartbeats(client: &Client) -> Result<Vec<Step>, UndoError> {
    triggers_off(client, &format!("n.nspname = '{HEARTBEATS}' AND pg_catalog.pg_has_role(c.relowner, 'USAGE')")).await
}

/// Takes the journal's triggers off the tables that are so.
async fn triggers_off(client: &Client, which: &str) -> Result<Vec<Step>, UndoError> {
    let triggers = format!(
        "SELECT pg_catalog.format('DROP TRIGGER %I ON %I.%I', t.tgname, n.nspname, c.relname), pg_catalog.format('%I.%I', n.nspname, c.relname) \
         FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc f ON f.oid = t.tgfoid JOIN pg_catalog.pg_namespace s ON s.oid = f.pronamespace \
         JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE s.nspname = 'reprieve' AND f.proname LIKE 'keep\\_%' AND t.tgparentid = 0 AND {which} ORDER BY 2, 1"
    );
    let step =
        |row: &tokio_postgres::Row| Step { purpose: format!("stop keeping changes of {}", row.get::<_, String>(1)), sql: row.get(0) };
    Ok(client.query(&triggers, &[]).await?.iter().map(step).collect())
}

/// A trigger function's body. Every name and operator is qualified: it runs in the agent's session, under the agent's search path.
fn body(function: &str) -> String {
    let image = |row: &str| format!("pg_catalog.textin(pg_catalog.record_out({row}))");
    let numbered = |table: &str| format!("(SELECT pg_catalog.row_number() OVER () AS place, {} AS image FROM {table} r)", image("r"));
    // Evaluated once a statement, and not at all where no row was changed: reading assigns no transaction id.
    let head = format!("pg_catalog.pg_current_xact_id(), (SELECT {}), TG_RELID", next_statement());
    let insert = "INSERT INTO reprieve.journal (xid, statement, relation, old, new)";
    let keep = match function {
        "keep_inserted" => format!("{insert} SELECT {head}, NULL, {} FROM reprieve_new r;", image("r")),
        "keep_deleted" => format!("{insert} SELECT {head}, {}, NULL FROM reprieve_old r;", image("r")),
        // Both tables list the changed rows in one order: each is filled row by row, together.
        "keep_updated" => format!(
            "{insert} SELECT {head}, o.image, n.image FROM {} o JOIN {} n ON o.place OPERATOR(pg_catalog.=) n.place;",
            numbered("reprieve_old"),
            numbered("reprieve_new")
        ),
        // The positions of its sequences too, which it may restart: with negative numbers, so that they aren't taken for rows.
        _ => format!(
            "FOR owned IN SELECT s.oid, pg_catalog.format('%I.%I', n.nspname, s.relname) AS name FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class s ON s.oid OPERATOR(pg_catalog.=) d.objid
   JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) s.relnamespace
   WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid
    AND d.refobjid OPERATOR(pg_catalog.=) TG_RELID AND d.deptype OPERATOR(pg_catalog.=) ANY ('{{a,i}}'::pg_catalog.\"char\"[]) AND s.relkind OPERATOR(pg_catalog.=) 'S'
  LOOP
    EXECUTE pg_catalog.format('{insert} SELECT pg_catalog.pg_current_xact_id(), OPERATOR(pg_catalog.-) pg_catalog.nextval(''reprieve.journal_statement''::pg_catalog.regclass), %s, NULL, pg_catalog.concat(q.last_value, '','', q.is_called) FROM %s q', owned.oid, owned.name);
  END LOOP;
  EXECUTE pg_catalog.format('{insert} SELECT pg_catalog.pg_current_xact_id(), (SELECT {}), %s, {}, NULL FROM ONLY %I.%I r', TG_RELID, TG_TABLE_SCHEMA, TG_TABLE_NAME);",
            next_statement().replace('\'', "''"),
            image("r")
        ),
    };
    let (set, set_back) = spelling_guard();
    format!(
        "
-- Installed by `reprieve protect --apply`; `--remove` takes it away.
DECLARE
  spelling pg_catalog.text[];
  owned pg_catalog.record;
BEGIN
  -- What others do is not Reprieve's to take back: it costs them nothing, and fills no disk while nobody empties the journal.
  IF NOT pg_catalog.has_function_privilege(session_user, '{AGENT}', 'EXECUTE') THEN
    RETURN NULL;
  END IF;
  IF pg_catalog.pg_has_role(session_user, current_user, 'MEMBER') THEN
    -- An administrator, or an undo, which fails then.
    IF pg_catalog.pg_total_relation_size('reprieve.journal'::pg_catalog.regclass) OPERATOR(pg_catalog.>) {LARGEST}::pg_catalog.int8 THEN
      RETURN NULL;
    END IF;
  END IF;
{set}
  {keep}
{set_back}
  RETURN NULL;
END;
"
    )
}

/// The number of the next statement, with the server's process that runs it: no setting of an agent's says who did something.
fn next_statement() -> String {
    format!(
        "pg_catalog.nextval('reprieve.journal_statement'::pg_catalog.regclass) OPERATOR(pg_catalog.*) {BACKENDS}::pg_catalog.int8 OPERATOR(pg_catalog.+) pg_catalog.pg_backend_pid()"
    )
}

/// What makes values be spelled in one way, and what sets the session's own way back.
fn spelling_guard() -> (String, String) {
    let differs: Vec<String> =
        SPELLING.iter().map(|(name, value)| format!("pg_catalog.current_setting('{name}') OPERATOR(pg_catalog.<>) '{value}'")).collect();
    let names: Vec<String> = SPELLING.iter().map(|(name, _)| format!("pg_catalog.current_setting('{name}')")).collect();
    let set: String =
        SPELLING.iter().map(|(name, value)| format!("    PERFORM pg_catalog.set_config('{name}', '{value}', true);\n")).collect();
    let set_back: String = SPELLING
        .iter()
        .enumerate()
        .map(|(place, (name, _))| format!("    PERFORM pg_catalog.set_config('{name}', spelling[{}], true);\n", place + 1))
        .collect();
    (
        format!("  IF {} THEN\n    spelling := ARRAY[{}];\n{set}  END IF;", differs.join("\n   OR "), names.join(", ")),
        format!("  IF spelling IS NOT NULL THEN\n{set_back}  END IF;"),
    )
}
