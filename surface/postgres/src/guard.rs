//! The guard: measures inside the transaction what it really did, before it becomes final.
//!
//! Row counters of the transaction (PostgreSQL 15, section 28.2.25, `pg_stat_get_xact_tuples_*`) are read for user tables and for
//! every system catalog; the latter show definitions, privileges and TRUNCATE by whatever route. Everything is addressed by oid
//! and every function and operator by schema, so that an agent's search path can't replace it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use reprieve_operation::{Reach, TableReach};

use crate::{
    guard_function::{Found, GuardCall, GuardFunction},
    secured::CODE,
    wire::Captured,
};

/// What is known of one relation from outside the transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relation {
    /// `schema.name`.
    pub(crate) name: String,
    /// `pg_class.relkind`.
    pub(crate) kind: char,
    /// `pg_class.relpersistence`.
    pub(crate) persistence: char,
    /// Changes when the contents are replaced as a whole.
    pub(crate) filenode: u32,
    /// Number, name and type of each column in order. An addition only appends to it.
    pub(crate) columns: String,
    /// What is demanded of each column, and who may touch it. An addition only appends to it.
    pub(crate) column_rules: String,
    /// Owner, privileges, row security, constraints, triggers, rules and a view's definition.
    pub(crate) rules: String,
    /// The planner's idea of its rows.
    pub(crate) rows: u64,
    /// Its foreign keys, each with what it does to rows of this table when others delete or change what they refer to. An addition only
    /// appends to it.
    pub(crate) keys: String,
}

/// What is known of a database from outside the transaction.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) relations: HashMap<u32, Relation>,
    /// System catalogs by oid.
    pub(crate) catalogs: BTreeMap<u32, String>,
    /// The largest oid in `pg_class`: a larger one means that there is a relation we don't know.
    pub(crate) max_oid: u32,
    /// Whether triggers of users may run inside COMMIT.
    pub(crate) deferrable_triggers: bool,
    /// Whether triggers, rules or functions of users exist: plain statements may then run any code.
    pub(crate) user_code: bool,
    /// Types whose values run code when they are read: domains and ranges.
    pub(crate) code_types: u64,
    /// Names of relations that are not safe to read unmeasured; see [`LOUD`].
    pub(crate) loud: HashSet<String>,
    /// Tables whose every row change is written down in the same transaction, so that it can be taken back.
    covered: HashSet<u32>,
    /// Why there is no way back from them either, at the moment.
    uncovered_because: Option<String>,
    /// Tables that the guard counts, by oid.
    counted: BTreeSet<u32>,
    /// The guard as a function, where it is installed as it has to be.
    pub(crate) function: Option<GuardFunction>,
}

/// A guard, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Guard {
    /// As a statement that needs nothing in the database.
    Select(String),
    /// As a call of the function that is installed there.
    Call(GuardCall),
}

impl Guard {
    /// The guard as a statement.
    pub(crate) fn statement(&self) -> String {
        match self {
            Self::Select(text) => text.clone(),
            Self::Call(call) => call.statement(),
        }
    }
}

/// Reads the relations of the database: oid, schema.name, relkind, relpersistence, relfilenode, columns, column rules, rules, rows.
pub(crate) const RELATIONS: &str = "
SELECT c.oid, pg_catalog.concat(n.nspname, '.', c.relname), c.relkind, c.relpersistence, c.relfilenode,
 (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(',', a.attnum, a.attname, a.atttypid, a.attisdropped), '|' ORDER BY a.attnum)
  FROM pg_catalog.pg_attribute a WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0),
 (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(',', a.attnum, a.attnotnull, a.atthasdef, a.attidentity, a.attacl::pg_catalog.text, pg_catalog.md5(f.adbin::pg_catalog.text)), '|' ORDER BY a.attnum)
  FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef f ON f.adrelid OPERATOR(pg_catalog.=) a.attrelid AND f.adnum OPERATOR(pg_catalog.=) a.attnum WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0),
 pg_catalog.md5(pg_catalog.concat_ws('|', c.relowner, c.relacl::pg_catalog.text, c.relrowsecurity, c.relforcerowsecurity,
  (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(',', k.conname, k.contype, k.condeferrable), ';' ORDER BY k.oid) FROM pg_catalog.pg_constraint k
   WHERE k.conrelid OPERATOR(pg_catalog.=) c.oid AND k.contype OPERATOR(pg_catalog.<>) 'f'),
  (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(',', t.tgname, t.tgenabled, t.tgfoid, t.tgdeferrable), ';' ORDER BY t.oid) FROM pg_catalog.pg_trigger t
   WHERE t.tgrelid OPERATOR(pg_catalog.=) c.oid AND (NOT t.tgisinternal OR t.tgenabled OPERATOR(pg_catalog.<>) 'O')),
  (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(',', r.rulename, r.ev_enabled, pg_catalog.md5(r.ev_action::pg_catalog.text)), ';' ORDER BY r.oid)
   FROM pg_catalog.pg_rewrite r WHERE r.ev_class OPERATOR(pg_catalog.=) c.oid),
  (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(',', q.polname, q.polcmd, q.polpermissive, q.polroles::pg_catalog.text, pg_catalog.md5(pg_catalog.concat(q.polqual::pg_catalog.text, q.polwithcheck::pg_catalog.text))), ';' ORDER BY q.oid)
   FROM pg_catalog.pg_policy q WHERE q.polrelid OPERATOR(pg_catalog.=) c.oid))),
 GREATEST(c.reltuples, 0)::pg_catalog.int8,
 (SELECT pg_catalog.string_agg(pg_catalog.concat(pg_catalog.md5(pg_catalog.concat_ws('|', k.conname, k.confrelid, k.conkey::pg_catalog.text, k.confkey::pg_catalog.text,
   k.condeferrable, k.condeferred, k.confmatchtype, k.conparentid)), k.confdeltype, k.confupdtype), '|' ORDER BY k.oid)
  FROM pg_catalog.pg_constraint k WHERE k.conrelid OPERATOR(pg_catalog.=) c.oid AND k.contype OPERATOR(pg_catalog.=) 'f')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.relkind OPERATOR(pg_catalog.<>) 't' AND (c.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid)";

/// Reads the names of relations that run code of users' making when they are only read: planning folds constant calls in their indexes
/// and checks, and reading a constant for a column of a domain, composite or range type runs that type's checks.
pub(crate) const LOUD: &str = "
SELECT DISTINCT c.relname FROM pg_catalog.pg_class c WHERE c.oid IN (
 SELECT i.indrelid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_index i ON d.objid OPERATOR(pg_catalog.=) i.indexrelid
  WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid
   AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid AND d.refobjid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
 UNION SELECT k.conrelid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_constraint k ON d.objid OPERATOR(pg_catalog.=) k.oid
  WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_constraint'::pg_catalog.regclass::pg_catalog.oid
   AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid AND d.refobjid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
 UNION SELECT a.attrelid FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) a.atttypid
  LEFT JOIN pg_catalog.pg_type e ON e.oid OPERATOR(pg_catalog.=) t.typelem
  WHERE a.attrelid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid AND t.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
   AND (t.typtype OPERATOR(pg_catalog.=) ANY ('{d,c,r,m}') OR e.typtype OPERATOR(pg_catalog.=) ANY ('{d,c,r,m}')))";

/// Reads the system catalogs: oid, name.
pub(crate) const CATALOGS: &str = "
SELECT c.oid, c.relname FROM pg_catalog.pg_class c
WHERE c.relkind OPERATOR(pg_catalog.=) 'r' AND c.oid OPERATOR(pg_catalog.<) 16384::pg_catalog.oid
 AND c.relnamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace::pg_catalog.oid ORDER BY 1";

/// Reads what may run inside COMMIT, what may run at all (but for what is ours and out of the agents' reach), and the largest oid.
pub(crate) const TRIGGERS: &str = "
SELECT COALESCE(pg_catalog.bool_or(t.tgdeferrable), false), (pg_catalog.count(*) OPERATOR(pg_catalog.>) 0)
 OR EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_type OPERATOR(pg_catalog.<>) '1' AND r.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid)
 OR EXISTS (SELECT FROM pg_catalog.pg_proc f WHERE f.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid AND f.prolang OPERATOR(pg_catalog.>=) 14::pg_catalog.oid
  AND NOT (f.pronamespace OPERATOR(pg_catalog.=) ANY (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) 'reprieve'
   AND NOT pg_catalog.pg_has_role(n.nspowner, 'MEMBER') AND NOT pg_catalog.has_schema_privilege(n.oid, 'CREATE')))),
 (SELECT pg_catalog.max(c.oid) FROM pg_catalog.pg_class c),
 (SELECT pg_catalog.count(*) FROM pg_catalog.pg_type y WHERE y.typtype OPERATOR(pg_catalog.=) ANY ('{d,r}') AND y.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid)
FROM pg_catalog.pg_trigger t WHERE NOT t.tgisinternal
 AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc g JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) g.pronamespace WHERE g.oid OPERATOR(pg_catalog.=) t.tgfoid
  AND n.nspname OPERATOR(pg_catalog.=) 'reprieve' AND NOT pg_catalog.pg_has_role(n.nspowner, 'MEMBER') AND NOT pg_catalog.has_schema_privilege(n.oid, 'CREATE'))";

/// Reads the cursors WITH HOLD: the text that declared them, and whether that was before this transaction.
pub(crate) const CURSORS: &str = "
SELECT h.statement, h.creation_time OPERATOR(pg_catalog.<) pg_catalog.now() FROM pg_catalog.pg_cursor() h WHERE h.is_holdable";

/// What a reach says of a cursor WITH HOLD.
pub(crate) const HELD_CURSOR: &str = "leaves a cursor WITH HOLD, whose query runs inside COMMIT";

/// Above this many user tables the guard asks the backend's own locks which tables were touched.
const LISTED_TABLES: usize = 200;

/// What the names of our own tables start with.
const OURS: &str = "reprieve.";

/// The word that starts an error of ours.
const MARK: &str = "reprieve:";

impl Snapshot {
    /// Builds a snapshot from the answers to [`RELATIONS`], [`CATALOGS`], [`TRIGGERS`], [`LOUD`] and
    /// [`GUARD_FUNCTION`](crate::guard_function::GUARD_FUNCTION). `None`: an answer is not as expected.
    pub(crate) fn read([relations, catalogs, triggers, loud, function]: [&Captured; 5]) -> Option<Self> {
        let mut snapshot = Self::default();
        if [relations, catalogs, triggers, loud, function].iter().any(|captured| captured.error.is_some()) {
            return None;
        }
        snapshot.loud = loud.rows.iter().filter_map(|row| row.first()?.clone()).collect();
        for row in &relations.rows {
            let field = |index: usize| row.get(index)?.as_deref();
            let relation = Relation {
                name: field(1)?.to_owned(),
                kind: field(2)?.chars().next()?,
                persistence: field(3)?.chars().next()?,
                filenode: field(4)?.parse().ok()?,
                columns: field(5).unwrap_or_default().to_owned(),
                column_rules: field(6).unwrap_or_default().to_owned(),
                rules: field(7)?.to_owned(),
                rows: field(8)?.parse().ok()?,
                keys: field(9).unwrap_or_default().to_owned(),
            };
            snapshot.relations.insert(field(0)?.parse().ok()?, relation);
        }
        for row in &catalogs.rows {
            snapshot.catalogs.insert(row.first()?.as_deref()?.parse().ok()?, row.get(1)?.clone()?);
        }
        let row = triggers.rows.first()?;
        snapshot.deferrable_triggers = row.first()?.as_deref()? == "t";
        snapshot.user_code = row.get(1)?.as_deref()? == "t";
        snapshot.max_oid = row.get(2)?.as_deref()?.parse().ok()?;
        snapshot.code_types = row.get(3)?.as_deref()?.parse().ok()?;
        let counts = |relation: &Relation| {
            matches!(relation.kind, 'r' | 'p' | 'm') && relation.persistence != 't' && !relation.name.starts_with(OURS)
        };
        snapshot.counted = snapshot.relations.iter().filter(|(_, relation)| counts(relation)).map(|(oid, _)| *oid).collect();
        let (found, function) = GuardFunction::read(function, &snapshot.counted, &snapshot.catalog_oids());
        snapshot.function = function;
        snapshot.user_code |= found == Found::Other;
        (snapshot.catalogs.len() >= 50).then_some(snapshot)
    }

    /// The system catalogs in order.
    pub(crate) fn catalog_oids(&self) -> Vec<u32> {
        self.catalogs.keys().copied().collect()
    }

    /// The tables that the guard counts. `None`: there are too many.
    pub(crate) fn counted(&self) -> Option<&BTreeSet<u32>> {
        (self.counted.len() <= LISTED_TABLES).then_some(&self.counted)
    }

    /// Whether there is a way back from this table.
    fn covers(&self, oid: u32) -> bool {
        self.uncovered_because.is_none() && self.covered.contains(&oid)
    }

    /// Counted tables from which there is no way back.
    fn uncovered(&self) -> impl Iterator<Item = u32> + '_ {
        let is_view = |oid: &u32| self.relations.get(oid).is_some_and(|relation| relation.kind == 'm');
        self.counted.iter().copied().filter(move |oid| !self.covers(*oid) && !is_view(oid))
    }

    /// The guard that raises above `ceiling` rows, on any definition change, and on a cursor that would run inside COMMIT. It answers
    /// the counters otherwise. `None`: this database has to be measured the long way.
    ///
    /// With `unknown_too` it also raises when there is a relation that we don't know. Only where the work can be run again: others'
    /// temporary tables would otherwise fail a client's COMMIT. What isn't counted then is younger than the last look.
    pub(crate) fn raising_guard(&self, ceiling: u64, unknown_too: bool) -> Option<Guard> {
        // Tables that are called like ours and that agents may reach are counted the long way.
        if self.covered.is_empty() && self.relations.values().any(|relation| relation.name.starts_with(OURS)) {
            return None;
        }
        let tables = self.counted().filter(|_| self.max_oid <= 4_000_000_000)?;
        Some(match &self.function {
            Some(function) => Guard::Call(function.call(ceiling, unknown_too.then_some(self.max_oid))),
            None => Guard::Select(self.raising_select(tables, ceiling, unknown_too)),
        })
    }

    fn raising_select(&self, tables: &BTreeSet<u32>, ceiling: u64, unknown_too: bool) -> String {
        let oids = self.catalogs.keys().chain(tables).map(u32::to_string).collect::<Vec<_>>().join(",");
        let known = match (unknown_too, self.max_oid) {
            (true, max) => {
                format!("AND (SELECT pg_catalog.max(p.oid) FROM pg_catalog.pg_class p) OPERATOR(pg_catalog.=) {max}::pg_catalog.oid")
            }
            (false, _) => String::new(),
        };
        format!(
            "SELECT pg_catalog.pg_stat_force_next_flush(), CASE WHEN g.r OPERATOR(pg_catalog.<=) {ceiling}::pg_catalog.numeric AND g.c OPERATOR(pg_catalog.=) 0::pg_catalog.int8 \
             {known} \
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_cursor() h WHERE h.is_holdable) THEN g.t \
             ELSE (('{MARK}' OPERATOR(pg_catalog.||) g.t)::pg_catalog.int4)::pg_catalog.text END, pg_catalog.pg_current_xact_id_if_assigned() \
             FROM (SELECT COALESCE(pg_catalog.sum(x.s) FILTER (WHERE x.o OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid), 0) r, \
             pg_catalog.count(*) FILTER (WHERE x.o OPERATOR(pg_catalog.<) 16384::pg_catalog.oid) c, \
             COALESCE(pg_catalog.string_agg(pg_catalog.concat(x.o, ':', x.i, ',', x.u, ',', x.d), ' '), '') t \
             FROM (SELECT y.o, y.i, y.u, y.d, (y.i OPERATOR(pg_catalog.+) y.u) OPERATOR(pg_catalog.+) y.d s FROM (SELECT o, pg_catalog.pg_stat_get_xact_tuples_inserted(o) i, \
             pg_catalog.pg_stat_get_xact_tuples_updated(o) u, pg_catalog.pg_stat_get_xact_tuples_deleted(o) d \
             FROM pg_catalog.unnest('{{{oids}}}'::pg_catalog.oid[]) o OFFSET 0) y OFFSET 0) x WHERE x.s OPERATOR(pg_catalog.>) 0::pg_catalog.int8) g"
        )
    }

    /// The same with tables from which there is a way back.
    pub(crate) fn with_covered(self, covered: HashSet<u32>, uncovered_because: Option<String>) -> Self {
        Self { covered, uncovered_because, ..self }
    }

    /// Takes rows of one table into a reach, with what of them can't be taken back.
    fn add_rows(&self, reach: &mut Reach, oid: u32, name: &str, rows: TableReach) {
        if rows.rows() == 0 {
            return;
        }
        if name.starts_with(OURS) && !self.covered.is_empty() {
            // Only the journal's own triggers add to it, and nobody else may.
            if rows.updated > 0 || rows.deleted > 0 {
                reach.escapes.push(format!("changes `{name}`, which is Reprieve's own"));
            }
            return;
        }
        reach.lasting.extend(self.stays(oid, name));
        reach.tables.insert(name.to_owned(), rows);
    }

    /// Why changed rows of a table can't be taken back.
    pub(crate) fn stays(&self, oid: u32, name: &str) -> Option<String> {
        let because = self.uncovered_because.as_ref().map_or_else(String::new, |because| format!(": {because}"));
        (!self.covers(oid)).then(|| format!("changes of `{name}` are not kept{because}"))
    }

    /// The long way: every relation that the backend holds a lock on, and every catalog, with counters and what tells a replaced,
    /// altered or dropped relation from one that was only written to.
    pub(crate) fn measurement(&self) -> String {
        let catalogs = self.catalogs.keys().map(u32::to_string).collect::<Vec<_>>().join(",");
        format!(
            "SELECT x.o, pg_catalog.pg_stat_get_xact_tuples_inserted(x.o), pg_catalog.pg_stat_get_xact_tuples_updated(x.o), pg_catalog.pg_stat_get_xact_tuples_deleted(x.o), \
             n.nspname OPERATOR(pg_catalog.||) '.' OPERATOR(pg_catalog.||) c.relname, c.relkind, c.relpersistence, c.relfilenode, \
             x.e, \
             (SELECT pg_catalog.count(*) FROM pg_catalog.pg_cursor() h WHERE h.is_holdable), pg_catalog.pg_current_xact_id_if_assigned(), pg_catalog.pg_stat_force_next_flush() \
             FROM (SELECT y.o, pg_catalog.bool_or(y.e) e FROM (SELECT l.relation o, l.mode OPERATOR(pg_catalog.=) 'AccessExclusiveLock' e FROM pg_catalog.pg_lock_status() l \
             WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND l.locktype OPERATOR(pg_catalog.=) 'relation' AND l.relation OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid \
             UNION ALL SELECT o, false FROM pg_catalog.unnest('{{{catalogs}}}'::pg_catalog.oid[]) o) y GROUP BY y.o) x \
             LEFT JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) x.o LEFT JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace"
        )
    }

    /// Reads the counters that [`Snapshot::raising_guard`] answers or raises with.
    pub(crate) fn reach_of_counters(&self, text: &str) -> Option<Reach> {
        let mut reach = Reach::default();
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            let (oid, counts) = word.split_once(':')?;
            let oid: u32 = oid.parse().ok()?;
            let mut counts = counts.split(',').map(str::parse::<u64>);
            let rows = TableReach { inserted: counts.next()?.ok()?, updated: counts.next()?.ok()?, deleted: counts.next()?.ok()? };
            match (self.relations.get(&oid), self.catalogs.get(&oid)) {
                (Some(relation), _) => self.add_rows(&mut reach, oid, &relation.name, rows),
                (None, Some(catalog)) => drop(reach.catalogs.insert(catalog.clone(), rows.rows())),
                (None, None) => self.add_rows(&mut reach, oid, &format!("oid {oid}"), rows),
            }
        }
        Some(reach)
    }

    /// The counters of the catalogs in the answer to [`Snapshot::measurement`].
    pub(crate) fn catalog_counts(&self, captured: &Captured) -> Option<CatalogCounts> {
        let mut counts = CatalogCounts::new();
        for row in &captured.rows {
            let count = |index: usize| row.get(index)?.as_deref()?.parse().ok();
            let oid: u32 = row.first()?.as_deref()?.parse().ok()?;
            if self.catalogs.contains_key(&oid) {
                counts.insert(oid, TableReach { inserted: count(1)?, updated: count(2)?, deleted: count(3)? });
            }
        }
        (captured.error.is_none() && !counts.is_empty()).then_some(counts)
    }

    /// Reads the answer to [`Snapshot::measurement`]. `None`: it isn't as expected, which is a refusal. What `ours` counts in catalogs
    /// was done by Reprieve, in the same transaction.
    pub(crate) fn reach_of_measurement(&self, captured: &Captured, ours: &CatalogCounts) -> Option<Measured> {
        if captured.error.is_some() || captured.rows.is_empty() {
            return None;
        }
        let mut reach = Reach::default();
        let mut counts = BTreeMap::new();
        let mut xid = None;
        let mut unknown = false;
        let mut gone: Vec<&Relation> = Vec::new();
        for row in &captured.rows {
            let field = |index: usize| row.get(index)?.as_deref();
            let oid: u32 = field(0)?.parse().ok()?;
            let rows = TableReach { inserted: field(1)?.parse().ok()?, updated: field(2)?.parse().ok()?, deleted: field(3)?.parse().ok()? };
            let exclusive = field(8)? == "t";
            if field(9)? != "0" && reach.escapes.is_empty() {
                reach.escapes.push(HELD_CURSOR.to_owned());
            }
            xid = field(10).and_then(|xid| xid.parse().ok());
            if let Some(catalog) = self.catalogs.get(&oid) {
                let rows = rows.minus(ours.get(&oid).copied().unwrap_or_default());
                if rows.rows() > 0 {
                    counts.insert(catalog.as_str(), rows);
                }
                continue;
            }
            let known = self.relations.get(&oid);
            let (Some(name), Some(kind), Some(persistence)) = (field(4), field(5), field(6)) else {
                // Its lock is held and it is not in pg_class any more: dropped. What never was in a committed pg_class was made and
                // dropped inside this transaction.
                if let Some(known) = known.filter(|known| known.persistence != 't') {
                    gone.push(known);
                }
                continue;
            };
            if persistence == "t" || kind == "t" {
                continue;
            }
            match known {
                Some(_) => self.add_rows(&mut reach, oid, name, rows),
                // Whoever takes the table back takes its rows along.
                None if rows.rows() > 0 => drop(reach.tables.insert(name.to_owned(), rows)),
                None => {}
            }
            match known {
                Some(known) if exclusive && matches!(kind, "r" | "p") => {
                    let filenode: u32 = field(7)?.parse().ok()?;
                    if filenode != known.filenode {
                        reach.rewritten.push(name.to_owned());
                    }
                    if name != known.name {
                        reach.dropped.push(known.name.clone());
                    }
                }
                Some(_) => {}
                None => unknown |= exclusive || rows.rows() > 0,
            }
        }
        // The indexes and sequences of a table that goes are not news.
        let parts_only = gone.iter().all(|relation| matches!(relation.kind, 'i' | 'I' | 'S' | 'c'));
        gone.retain(|relation| parts_only || !matches!(relation.kind, 'i' | 'I' | 'S' | 'c'));
        reach.dropped.extend(gone.iter().map(|relation| relation.name.clone()));
        // Each view goes with the rule that makes it one; whatever rule goes besides is a rule that somebody made.
        let views_gone = gone.iter().filter(|relation| matches!(relation.kind, 'v' | 'm')).count() as u64;
        if let Some(rules) = counts.get_mut("pg_rewrite") {
            rules.deleted = rules.deleted.saturating_sub(views_gone);
        }
        read_catalogs(&mut reach, &counts);
        self.add_lasting_definitions(&mut reach, counts.contains_key("pg_attribute") || counts.contains_key("pg_type"));
        let moved = |catalogs: &[&str]| catalogs.iter().any(|catalog| counts.contains_key(catalog));
        let definitions_may_have_changed =
            moved(&["pg_class", "pg_attribute", "pg_attrdef", "pg_constraint", "pg_trigger", "pg_rewrite", "pg_policy", "pg_type"]);
        let holds_cursors = !reach.escapes.is_empty();
        Some(Measured { reach, xid, holds_cursors, unknown_relation: unknown, definitions_may_have_changed })
    }

    /// Compares definitions inside the transaction, as [`RELATIONS`] and [`TRIGGERS`] answer there, with those outside.
    /// Tables with numbers above `young` were made since the session began: a foreign key that changes no row of theirs could as well have
    /// been made with them.
    /// What was set `aside` is as Reprieve made it.
    pub(crate) fn compare_definitions(
        &self,
        reach: &mut Reach,
        [relations, types]: [&Captured; 2],
        young: Option<u32>,
        aside: &[u32],
    ) -> Option<()> {
        if relations.error.is_some() || types.error.is_some() {
            return None;
        }
        let mut rules_changed = 0;
        for row in &relations.rows {
            let field = |index: usize| row.get(index).and_then(Option::as_deref).unwrap_or_default();
            let oid: u32 = field(0).parse().ok()?;
            let Some(known) = self.relations.get(&oid) else { continue };
            if aside.iter().any(|root| field(1).strip_prefix(&format!("reprieve_aside_{root}")).is_some_and(|rest| rest.starts_with('.'))) {
                continue;
            }
            if !continues(field(5), &known.columns) && !reach.rewritten.contains(&known.name) {
                reach.rewritten.push(known.name.clone());
            }
            let may_have_keys = young.is_some_and(|young| oid > young);
            let keys = field(9) == known.keys || (may_have_keys && only_checks(field(9), &known.keys));
            rules_changed += u64::from(!continues(field(6), &known.column_rules) || field(7) != known.rules || !keys);
        }
        let code_types: u64 = types.rows.first()?.get(3)?.as_deref()?.parse().ok()?;
        rules_changed += u64::from(code_types != self.code_types);
        if rules_changed > 0 {
            *reach.catalogs.entry(RULES.to_owned()).or_default() += rules_changed;
        }
        let columns_moved = reach.catalogs.contains_key("pg_attribute") || reach.catalogs.contains_key("pg_type");
        self.add_lasting_definitions(reach, columns_moved);
        Some(())
    }

    /// What of changed definitions can't be taken back: what is gone, rewritten in another form, or changes rights and code. What a
    /// TRUNCATE empties is kept before it is gone.
    pub(crate) fn add_lasting_definitions(&self, reach: &mut Reach, columns_moved: bool) {
        let is_kept =
            |name: &String| !columns_moved && self.relations.iter().any(|(oid, relation)| relation.name == *name && self.covers(*oid));
        let mut lasting: Vec<String> = reach.dropped.iter().map(|name| format!("`{name}` is dropped")).collect();
        lasting.extend(reach.rewritten.iter().filter(|name| !is_kept(name)).map(|name| format!("`{name}` is rewritten")));
        lasting.extend(reach.catalogs.contains_key(RULES).then(|| CODE.to_owned()));
        for reason in lasting {
            if !reach.lasting.contains(&reason) {
                reach.lasting.push(reason);
            }
        }
    }

    /// The relation's number, if all of it can be written down: a covered table or a sequence of at most `limit` rows.
    pub(crate) fn keepable(&self, name: &str, limit: u64) -> Option<u32> {
        let (oid, relation) = self.relations.iter().find(|(_, relation)| relation.name == name)?;
        let can_be = match relation.kind {
            'r' | 'p' => self.covered.contains(oid) && relation.rows <= limit,
            'S' => true,
            _ => false,
        };
        can_be.then_some(*oid)
    }

    /// The number of a table with this name.
    pub(crate) fn table(&self, name: &str) -> Option<u32> {
        let is_it = |relation: &Relation| relation.name == name && matches!(relation.kind, 'r' | 'p');
        self.relations.iter().find(|(_, relation)| is_it(relation)).map(|(oid, _)| *oid)
    }

    /// What adding rows to one of these tables reaches at most.
    pub(crate) fn reach_of_insert(&self, table: u32, rows: u64) -> Reach {
        let mut reach = Reach::default();
        if let Some(relation) = self.relations.get(&table) {
            self.add_rows(&mut reach, table, &relation.name, TableReach { inserted: rows, ..TableReach::default() });
        } else {
            reach.lasting.push("a table that is not known is changed".to_owned());
        }
        reach
    }

    /// Whether rows or a position go with the relation.
    pub(crate) fn holds_rows(&self, name: &str) -> bool {
        self.relations.values().any(|relation| relation.name == name && matches!(relation.kind, 'r' | 'S'))
    }

    /// Whether there is a way back from every table that a plain statement may change.
    pub(crate) fn is_covered(&self) -> bool {
        self.uncovered().next().is_none()
    }
}

/// Whether a list of columns still begins with the columns it had, each as it was.
fn continues(now: &str, before: &str) -> bool {
    let mut now = now.split('|');
    before.is_empty() || before.split('|').all(|column| now.next() == Some(column))
}

/// Whether foreign keys only came that refuse, and change no rows by themselves (`confdeltype`, `confupdtype`: PostgreSQL 15, 53.13).
fn only_checks(now: &str, before: &str) -> bool {
    let added = now.split('|').skip(before.split('|').filter(|key| !key.is_empty()).count());
    continues(now, before) && added.into_iter().all(|key| ["aa", "ar", "ra", "rr"].iter().any(|refuses| key.ends_with(refuses)))
}

/// The name under which a reach counts changes of rights, and of code and rules that others' statements run into.
const RULES: &str = "privileges";

/// Rows of catalogs that were changed, by the catalog's number.
pub(crate) type CatalogCounts = BTreeMap<u32, TableReach>;

/// What a measurement says, and what it leaves open.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) reach: Reach,
    pub(crate) xid: Option<u64>,
    /// A cursor WITH HOLD is open.
    pub(crate) holds_cursors: bool,
    /// A relation was written to or altered that the snapshot doesn't know: it is new, or the snapshot is old.
    pub(crate) unknown_relation: bool,
    /// Columns, rules and privileges have to be compared.
    pub(crate) definitions_may_have_changed: bool,
}

/// Turns catalog counters into what they mean. Additions are definitions; what disappears behind the text's back counts as dropped,
/// and whatever changes rights or code as such.
fn read_catalogs(reach: &mut Reach, counts: &BTreeMap<&str, TableReach>) {
    // Rows of these come and go with any definition, and with ANALYZE. Defaults of columns that were there are compared one by one.
    const BOOKKEEPING: [&str; 11] = [
        "pg_attrdef",
        "pg_depend",
        "pg_shdepend",
        "pg_statistic",
        "pg_description",
        "pg_shdescription",
        "pg_class",
        "pg_attribute",
        "pg_index",
        "pg_sequence",
        "pg_statistic_ext_data",
    ];
    // Harmless to add to; compared relation by relation where that matters.
    const ADDITIVE: [&str; 9] = [
        "pg_type",
        "pg_constraint",
        "pg_trigger",
        "pg_inherits",
        "pg_partitioned_table",
        "pg_namespace",
        "pg_enum",
        "pg_statistic_ext",
        "pg_largeobject_metadata",
    ];
    // Changed with additions to others.
    const UPDATED_BY_ADDITIONS: [&str; 2] = ["pg_constraint", "pg_inherits"];
    let relations_dropped = !reach.dropped.is_empty();
    for (catalog, rows) in counts {
        if *catalog == "pg_largeobject" {
            // Contents, not definitions; but a row here is a page of up to 2 kB, so that rows say nothing about how much is lost.
            reach.tables.insert("pg_catalog.pg_largeobject".to_owned(), *rows);
            if rows.updated > 0 || rows.deleted > 0 {
                reach.rewritten.push("large objects".to_owned());
            }
            continue;
        }
        reach.catalogs.insert((*catalog).to_owned(), rows.rows());
        if BOOKKEEPING.contains(catalog) {
            continue;
        }
        if rows.deleted > 0 && !relations_dropped {
            reach.dropped.push(format!("{} rows of {catalog}", rows.deleted));
        }
        let additive = ADDITIVE.contains(catalog);
        let updated = if UPDATED_BY_ADDITIONS.contains(catalog) { 0 } else { rows.updated };
        let rules = if additive { updated } else { rows.rows() };
        if rules > 0 {
            *reach.catalogs.entry(RULES.to_owned()).or_default() += rules;
        }
    }
}

/// The counters inside an error that our guard raised: `reprieve:…`, or `invalid input syntax for type integer: "reprieve:…"`.
pub(crate) fn raised_counters(error: &reprieve_pgwire::backend::ServerError) -> Option<&str> {
    let message = error.message().filter(|_| error.code() == Some("22P02"))?;
    let (_, counters) = message.split_once(MARK)?;
    // The failed cast quotes what it could not read; the function raises the bare counters.
    Some(counters.split_once('"').map_or(counters, |(counters, _)| counters))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_additions_continue_a_list_of_columns() {
        for (now, before, expected) in [
            ("1,id|2,name|3,new", "1,id|2,name", true),
            ("1,id|2,name,{=w/app}", "1,id|2,name", false),
            ("1,id", "1,id|2,name", false),
            ("1,id", "", true),
        ] {
            assert_eq!(continues(now, before), expected, "{now} {before}");
        }
    }

    #[test]
    fn foreign_keys_that_only_refuse_are_told_from_others() {
        let check = |now: &str, before: &str, expected: bool| assert_eq!(only_checks(now, before), expected, "{before} {now}");
        check("0faa", "", true);
        check("0faa|1aar", "0faa", true);
        check("0fca", "", false);
        check("0faa|1aan", "0faa", false);
        check("0fca|1aaa", "0fca", true);
        check("1aaa", "0faa", false);
        check("", "0faa", false);
    }

    #[test]
    fn counters_are_read_by_name() {
        let mut snapshot = Snapshot::default();
        let relation = Relation {
            name: "public.orders".into(),
            kind: 'r',
            persistence: 'p',
            filenode: 1,
            columns: String::new(),
            column_rules: String::new(),
            rules: String::new(),
            rows: 0,
            keys: String::new(),
        };
        snapshot.relations.insert(20000, relation);
        snapshot.catalogs.insert(1259, "pg_class".into());
        let reach = snapshot.reach_of_counters("20000:1,2,3 1259:0,1,0 ").expect("well formed");
        assert_eq!(reach.tables["public.orders"], TableReach { inserted: 1, updated: 2, deleted: 3 });
        assert_eq!(reach.catalogs["pg_class"], 1);
        assert!(snapshot.reach_of_counters("20000:x,2,3").is_none());
    }
}
