//! Statements that are not plain queries: transactions, settings, cursors, COPY, maintenance.
//!
//! Definitions and privileges are in `define.rs`. A statement that is in neither is a block with an unknown effect.

use pg_raw_parse::{Node, nodes, raw};
use reprieve_operation::{Effect, ObjectKind, ObjectName};

use crate::{
    define,
    hazards::blinds,
    names::{list_name, some_relation_name},
    statement::{Class, Control, Copy, HOLDABLE},
    walk::{Found, is_temporary, literal_text},
};

/// How deep a statement may stand inside another (EXPLAIN of a CREATE TABLE AS of an EXECUTE is three).
const MAX_INNER: usize = 8;

/// What reading one statement came to.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) class: Class,
    pub(crate) found: Found,
    pub(crate) returns_rows: bool,
    pub(crate) copy: Option<Copy>,
    pub(crate) block_only: bool,
    pub(crate) by_parts: bool,
    pub(crate) holdable: bool,
}

impl Reading {
    /// Reads a whole statement.
    pub(crate) fn of(statement: Node<'_>) -> Self {
        let mut reading = Self {
            class: Class::Block,
            found: Found::default(),
            returns_rows: false,
            copy: None,
            block_only: false,
            by_parts: false,
            holdable: false,
        };
        reading.read(statement, MAX_INNER);
        reading
    }

    fn read(&mut self, statement: Node<'_>, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else {
            self.found.not_understood("statements inside statements, too deep");
            return;
        };
        match statement {
            Node::SelectStmt(_) => self.query(statement, true),
            Node::InsertStmt(insert) => self.query(statement, insert.returning_clause().is_some()),
            Node::UpdateStmt(update) => self.query(statement, update.returning_clause().is_some()),
            Node::DeleteStmt(delete) => self.query(statement, delete.returning_clause().is_some()),
            Node::MergeStmt(merge) => self.query(statement, merge.returning_clause().is_some()),
            Node::TransactionStmt(transaction) => self.transaction(transaction),
            Node::ExplainStmt(explain) => self.explain(explain, depth),
            Node::CopyStmt(copy) => self.copy(copy, depth),
            Node::VariableSetStmt(set) => self.set(set),
            Node::VariableShowStmt(_) => {
                self.class = Class::Read;
                self.returns_rows = true;
            }
            Node::CreateTableAsStmt(create) => self.create_table_as(create, depth),
            Node::PrepareStmt(prepare) => {
                self.read(prepare.query(), depth);
                for name in prepare.argtypes() {
                    self.found.walk(Node::from(name));
                }
                self.session_state("prepares a statement", Class::Session);
                self.returns_rows = false;
            }
            Node::ExecuteStmt(execute) => {
                for parameter in execute.params() {
                    self.found.walk(parameter);
                }
                self.call(&format!("EXECUTE {}", execute.name().unwrap_or_default()), Class::Block);
                self.found.in_session = true;
            }
            Node::DeallocateStmt(_) => self.session_state("forgets prepared statements", Class::Session),
            Node::DeclareCursorStmt(declare) => self.declare(declare, depth),
            Node::FetchStmt(fetch) => {
                self.call(&format!("FETCH {}", fetch.portalname().unwrap_or_default()), Class::Read);
                self.returns_rows = !fetch.ismove;
                self.found.in_session = true;
            }
            Node::ClosePortalStmt(_) => self.session_state("closes a cursor", Class::Session),
            Node::ListenStmt(_) => self.session_state("listens", Class::Session),
            Node::UnlistenStmt(_) => self.session_state("stops listening", Class::Session),
            Node::NotifyStmt(_) => {
                self.class = Class::Dml;
                self.found.effects.add(Effect::Session { what: "sends a notification".to_owned() });
            }
            Node::ConstraintsSetStmt(_) => {
                // IMMEDIATE runs what was deferred, so this is not session state only.
                self.class = Class::Dml;
                self.block_only = true;
                self.found.effects.add(Effect::Session { what: "sets when constraints are checked".to_owned() });
            }
            Node::DiscardStmt(discard) => match discard.target {
                raw::DiscardMode::DISCARD_PLANS | raw::DiscardMode::DISCARD_SEQUENCES => {
                    self.session_state("discards session state", Class::Session);
                }
                raw::DiscardMode::DISCARD_TEMP => self.session_state("drops the session's temporary tables", Class::Block),
                _ => {
                    self.session_state("discards all session state", Class::Unwrapped);
                }
            },
            Node::LockStmt(_) => self.block_only = true,
            Node::DoStmt(_) => self.call("DO", Class::Block),
            Node::CallStmt(call) => {
                if let Some(call) = call.funccall() {
                    let procedure = list_name(call.funcname());
                    self.found.walk(Node::from(call));
                    self.found.effects.add(Effect::Call { function: procedure });
                } else {
                    self.found.not_understood("a CALL without a procedure");
                }
                self.returns_rows = true;
            }
            Node::VacuumStmt(vacuum) => self.vacuum(vacuum),
            Node::ReindexStmt(reindex) => self.reindex(reindex),
            Node::ClusterStmt(cluster) => match cluster.relation() {
                Some(_) => {
                    self.by_parts = true;
                    self.define("table", some_relation_name(cluster.relation()));
                }
                None => self.unwrapped("CLUSTER of every table"),
            },
            Node::CheckPointStmt(_) => self.found.escape("CHECKPOINT acts on the whole server"),
            Node::LoadStmt(_) => self.found.escape("LOAD brings a library into the server"),
            Node::RefreshMatViewStmt(refresh) => self.define("materialized view", some_relation_name(refresh.relation())),
            Node::CreateSchemaStmt(create) => {
                let name = create.schemaname().or_else(|| create.authrole().and_then(nodes::RoleSpec::rolename)).unwrap_or_default();
                self.define("schema", ObjectName::bare(name));
                for element in create.schema_elts() {
                    self.read(element, depth);
                    self.class = Class::Block;
                    self.returns_rows = false;
                }
            }
            statement => define::read(self, statement),
        }
    }

    fn query(&mut self, statement: Node<'_>, returns_rows: bool) {
        self.found.walk(statement);
        self.returns_rows = returns_rows && !self.found.defines;
        self.class = match (self.found.defines, self.found.writes) {
            (true, _) => Class::Block,
            (false, true) => Class::Dml,
            (false, false) => Class::Read,
        };
    }

    pub(crate) fn define(&mut self, kind: &str, name: ObjectName) {
        self.found.note_temporary(&name);
        self.found.effects.add(Effect::Define { object: ObjectKind(kind.to_owned()), name });
    }

    /// For what the server refuses inside a transaction block.
    pub(crate) fn unwrapped(&mut self, what: &str) {
        self.class = Class::Unwrapped;
        self.found.escape(format!("{what} cannot run inside a transaction block"));
    }

    fn call(&mut self, what: &str, class: Class) {
        self.class = class;
        self.returns_rows = what.starts_with("EXECUTE");
        self.found.effects.add(Effect::Call { function: ObjectName::bare(what) });
    }

    fn session_state(&mut self, what: &str, class: Class) {
        self.class = class;
        self.found.in_session = true;
        self.found.effects.add(Effect::Session { what: what.to_owned() });
    }

    fn transaction(&mut self, transaction: &nodes::TransactionStmt) {
        let chain = transaction.chain;
        let (control, escapes) = match transaction.kind {
            raw::TransactionStmtKind::TRANS_STMT_BEGIN | raw::TransactionStmtKind::TRANS_STMT_START => (Control::Begin, None),
            raw::TransactionStmtKind::TRANS_STMT_COMMIT => (Control::Commit { chain }, None),
            raw::TransactionStmtKind::TRANS_STMT_ROLLBACK => (Control::Rollback { chain }, None),
            raw::TransactionStmtKind::TRANS_STMT_SAVEPOINT => (Control::Savepoint, None),
            raw::TransactionStmtKind::TRANS_STMT_RELEASE => (Control::Release, None),
            raw::TransactionStmtKind::TRANS_STMT_ROLLBACK_TO => (Control::RollbackTo, None),
            raw::TransactionStmtKind::TRANS_STMT_PREPARE => {
                (Control::PrepareTransaction, Some("PREPARE TRANSACTION leaves the session before it is measured"))
            }
            raw::TransactionStmtKind::TRANS_STMT_COMMIT_PREPARED => {
                (Control::CommitPrepared, Some("COMMIT PREPARED ends a transaction of another session"))
            }
            raw::TransactionStmtKind::TRANS_STMT_ROLLBACK_PREPARED => {
                (Control::RollbackPrepared, Some("ROLLBACK PREPARED ends a transaction of another session"))
            }
            _ => {
                self.found.not_understood("a transaction command that this version does not know");
                return;
            }
        };
        self.class = Class::Control(control);
        if let Some(what) = escapes {
            self.found.escape(what);
        }
    }

    fn explain(&mut self, explain: &nodes::ExplainStmt, depth: usize) {
        let runs = explain.options().iter().any(|option| option.defname() == Some("analyze") && !is_off(option.arg()));
        self.read(explain.query(), depth);
        self.copy = None;
        self.block_only = false;
        self.holdable = false;
        self.returns_rows = true;
        if runs {
            return;
        }
        // Nothing runs, but the planner looks at every relation and may call the functions.
        self.class = Class::Read;
        let effects = std::mem::take(&mut self.found.effects);
        for effect in effects.into_vec() {
            match effect {
                Effect::Insert { table } | Effect::Update { table, .. } | Effect::Delete { table, .. } => {
                    self.found.effects.add(Effect::Read { relation: table });
                }
                Effect::Define { .. } => {}
                effect => self.found.effects.add(effect),
            }
        }
    }

    fn copy(&mut self, copy: &nodes::CopyStmt, depth: usize) {
        let reaches_out = match (copy.is_program, copy.filename()) {
            (true, _) => Some("COPY runs a program on the server"),
            (false, Some(_)) => Some("COPY reads or writes a file of the server"),
            (false, None) => None,
        };
        if copy.is_from {
            self.class = Class::Dml;
            let table = some_relation_name(copy.relation());
            self.found.note_temporary(&table);
            self.found.effects.add(Effect::Insert { table });
            self.found.walk(copy.where_clause());
        } else if let Some(relation) = copy.relation() {
            self.class = Class::Read;
            self.found.walk(Node::from(relation));
        } else {
            self.read(copy.query(), depth);
        }
        self.returns_rows = false;
        self.copy = reaches_out.is_none().then_some(if copy.is_from { Copy::In } else { Copy::Out });
        if let Some(what) = reaches_out {
            self.found.escape(what);
        }
    }

    fn set(&mut self, set: &nodes::VariableSetStmt) {
        let name = set.name().unwrap_or_default();
        let lower = name.to_ascii_lowercase();
        // Going back to what the session began with is harmless, except for who the session is.
        let is_identity = matches!(lower.as_str(), "role" | "session_authorization");
        let escapes = match set.kind {
            raw::VariableSetKind::VAR_SET_VALUE => {
                let value = if set.args().len() == 1 { set.args().first().and_then(literal_text) } else { None };
                blinds(name, value.as_deref())
            }
            raw::VariableSetKind::VAR_SET_DEFAULT | raw::VariableSetKind::VAR_RESET => is_identity,
            raw::VariableSetKind::VAR_SET_MULTI | raw::VariableSetKind::VAR_RESET_ALL => false,
            _ => blinds(name, None),
        };
        let what = if lower.is_empty() { "resets every setting".to_owned() } else { format!("sets `{lower}`") };
        if escapes {
            self.class = Class::Session;
            self.found.in_session = true;
            self.found.escape(what);
        } else {
            self.session_state(&what, Class::Session);
        }
    }

    fn declare(&mut self, declare: &nodes::DeclareCursorStmt, depth: usize) {
        self.read(declare.query(), depth);
        self.returns_rows = false;
        self.found.in_session = true;
        if declare.options & raw::CURSOR_OPT_HOLD.cast_signed() != 0 {
            self.found.escape(HOLDABLE);
            self.holdable = true;
        } else {
            self.block_only = true;
        }
    }

    fn create_table_as(&mut self, create: &nodes::CreateTableAsStmt, depth: usize) {
        self.read(create.query(), depth);
        let kind = if create.objtype == raw::ObjectType::OBJECT_MATVIEW { "materialized view" } else { "table" };
        let into = create.into().and_then(nodes::IntoClause::rel);
        self.define(kind, some_relation_name(into));
        self.found.in_session |= into.is_some_and(is_temporary);
        self.class = Class::Block;
        self.returns_rows = false;
    }

    fn vacuum(&mut self, vacuum: &nodes::VacuumStmt) {
        if vacuum.is_vacuumcmd {
            self.unwrapped("VACUUM");
            return;
        }
        if vacuum.rels().is_empty() {
            self.define("statistics", ObjectName::bare(""));
        }
        for relation in vacuum.rels() {
            self.define("statistics", some_relation_name(relation.relation()));
        }
    }

    fn reindex(&mut self, reindex: &nodes::ReindexStmt) {
        let concurrently = reindex.params().iter().any(|option| option.defname() == Some("concurrently") && !is_off(option.arg()));
        let name = match reindex.relation() {
            Some(_) => some_relation_name(reindex.relation()),
            None => ObjectName::bare(reindex.name().unwrap_or_default()),
        };
        self.define("index", name);
        self.by_parts = true;
        let alone = !matches!(reindex.kind, raw::ReindexObjectType::REINDEX_OBJECT_INDEX | raw::ReindexObjectType::REINDEX_OBJECT_TABLE);
        if alone || concurrently {
            self.unwrapped(if concurrently { "REINDEX CONCURRENTLY" } else { "REINDEX of a schema, database or system" });
        }
    }
}

/// Whether an option's value switches it off. Without a value it is on.
pub(crate) fn is_off(value: Node<'_>) -> bool {
    match value {
        Node::String(text) => {
            matches!(text.sval().map(str::to_ascii_lowercase).as_deref(), Some("false" | "off" | "0" | "no"))
        }
        Node::Integer(number) => number.ival == 0,
        Node::Boolean(value) => !value.boolval,
        _ => false,
    }
}
