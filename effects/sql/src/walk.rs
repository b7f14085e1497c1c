//! The walk over queries and expressions: what they read, change, call, compare and cast.
//!
//! It keeps its own stack, so that depth costs heap and not the thread's stack. Statements that are not queries are in
//! `utility.rs`, which borrows this walk for the queries inside them.

use pg_raw_parse::{ConstValue, Node, list::NodeList, nodes, raw};
use reprieve_operation::{Effect, ObjectKind, ObjectName};

use crate::{
    bounds::is_bounded,
    builtins,
    children::children,
    hazards::{Hazard, blinds, function_hazard},
    names::{Once, list_name, relation_name, strings_name},
};

/// More common table expressions than this in one statement are not told apart from tables any more.
const MAX_CTES: usize = 256;

/// What a walk has found so far.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) effects: Once<Effect>,
    pub(crate) functions: Once<ObjectName>,
    pub(crate) operators: Once<ObjectName>,
    pub(crate) casts: Once<ObjectName>,
    pub(crate) attributes: Once<String>,
    /// Rows are changed, locked or announced somewhere in it.
    pub(crate) writes: bool,
    /// A SELECT makes a table.
    pub(crate) defines: bool,
    pub(crate) in_session: bool,
}

/// The names of common table expressions that one place can see: a list from the innermost outwards.
struct Scopes<'a> {
    entries: Vec<(usize, &'a str)>,
}

const NO_SCOPE: usize = usize::MAX;

impl<'a> Scopes<'a> {
    fn open(&mut self, parent: usize, name: &'a str) -> usize {
        self.entries.push((parent, name));
        self.entries.len() - 1
    }

    fn sees(&self, scope: usize, name: &str) -> bool {
        let mut at = scope;
        while let Some((parent, entry)) = self.entries.get(at) {
            if *entry == name {
                return true;
            }
            at = *parent;
        }
        false
    }
}

impl Found {
    /// Walks `root` and everything below it.
    pub(crate) fn walk(&mut self, root: Node<'_>) {
        let mut scopes = Scopes { entries: Vec::new() };
        let mut stack = vec![(root, NO_SCOPE)];
        let mut below = Vec::new();
        while let Some((node, mut scope)) = stack.pop() {
            if let Some(with) = with_clause(node) {
                scope = self.open_scope(with, scope, &mut scopes, &mut stack);
            }
            self.visit(node, |name| scopes.sees(scope, name));
            if !children(node, &mut below) {
                self.not_understood("a part of a query that this version does not know");
            }
            stack.extend(below.drain(..).rev().map(|child| (child, scope)));
        }
    }

    pub(crate) fn not_understood(&mut self, because: &str) {
        self.effects.add(Effect::Unknown { because: because.to_owned() });
    }

    pub(crate) fn escape(&mut self, what: impl Into<String>) {
        self.effects.add(Effect::Escape { what: what.into() });
    }

    /// Opens the scope of a WITH clause, puts its queries on the stack, and answers the scope of the statement it belongs to.
    fn open_scope<'a>(
        &mut self,
        with: &'a nodes::WithClause,
        outer: usize,
        scopes: &mut Scopes<'a>,
        stack: &mut Vec<(Node<'a>, usize)>,
    ) -> usize {
        let mut scope = outer;
        if scopes.entries.len() + with.ctes().len() > MAX_CTES {
            self.not_understood("more common table expressions than this version tells apart");
        } else if with.recursive {
            for query in with.ctes() {
                scope = scopes.open(scope, query.ctename().unwrap_or_default());
            }
            stack.extend(with.ctes().iter().map(|query| (Node::from(query), scope)));
            return scope;
        } else {
            for query in with.ctes() {
                stack.push((Node::from(query), scope));
                scope = scopes.open(scope, query.ctename().unwrap_or_default());
            }
            return scope;
        }
        stack.extend(with.ctes().iter().map(|query| (Node::from(query), scope)));
        scope
    }

    fn visit(&mut self, node: Node<'_>, is_cte: impl Fn(&str) -> bool) {
        match node {
            Node::RangeVar(relation) => self.read(relation, is_cte),
            Node::SelectStmt(select) => self.visit_select(select),
            Node::InsertStmt(insert) => self.visit_insert(insert),
            Node::UpdateStmt(update) => {
                let table = self.changed(update.relation());
                self.effects.add(Effect::Update { table, bounded: is_bounded(update.where_clause()) });
            }
            Node::DeleteStmt(delete) => {
                let table = self.changed(delete.relation());
                self.effects.add(Effect::Delete { table, bounded: is_bounded(delete.where_clause()) });
            }
            Node::MergeStmt(merge) => self.visit_merge(merge),
            Node::FuncCall(call) => self.visit_call(call),
            Node::A_Expr(expression) => self.visit_operator(expression),
            Node::SubLink(link) => match link.sub_link_type {
                raw::SubLinkType::ANY_SUBLINK | raw::SubLinkType::ALL_SUBLINK | raw::SubLinkType::ROWCOMPARE_SUBLINK => {
                    self.operator(link.oper_name(), "=");
                }
                _ => {}
            },
            Node::SortBy(sort) if !sort.use_op().is_empty() => self.operators.add(list_name(sort.use_op())),
            Node::CaseExpr(case) if !matches!(case.arg(), Node::None) => self.operators.add(ObjectName::bare("=")),
            Node::JoinExpr(join) if join.is_natural || !join.using_clause().is_empty() => self.operators.add(ObjectName::bare("=")),
            Node::TypeName(name) => self.casts.add(strings_name(name.names())),
            Node::A_Indirection(indirection) => self.visit_attributes(indirection.indirection(), 0),
            Node::ColumnRef(column) => self.visit_attributes(column.fields(), 1),
            Node::RangeTableSample(sample) => self.called(&list_name(sample.method()), None),
            Node::CurrentOfExpr(_) => self.in_session = true,
            node => {
                // What the newest grammar reads as syntax is an ordinary call to an older server, and may be the user's function.
                if let Some(name) = syntax_function(node) {
                    self.functions.add(ObjectName::bare(name));
                }
            }
        }
    }

    fn read(&mut self, relation: &nodes::RangeVar, is_cte: impl Fn(&str) -> bool) {
        let name = relation_name(relation);
        self.note_temporary(&name);
        if name.schema.is_none() && is_cte(&name.name) {
            return;
        }
        self.effects.add(Effect::Read { relation: name });
    }

    pub(crate) fn note_temporary(&mut self, name: &ObjectName) {
        if name.schema.as_deref().is_some_and(|schema| schema.starts_with("pg_temp")) {
            self.in_session = true;
        }
    }

    /// The target of a change.
    fn changed(&mut self, relation: Option<&nodes::RangeVar>) -> ObjectName {
        self.writes = true;
        let name = crate::names::some_relation_name(relation);
        self.note_temporary(&name);
        name
    }

    fn visit_select(&mut self, select: &nodes::SelectStmt) {
        if !select.locking_clause().is_empty() {
            self.writes = true;
        }
        if let Some(into) = select.into_clause() {
            self.defines = true;
            let name = crate::names::some_relation_name(into.rel());
            self.note_temporary(&name);
            self.in_session |= into.rel().is_some_and(is_temporary);
            self.effects.add(Effect::Define { object: ObjectKind("table".to_owned()), name });
        }
    }

    fn visit_insert(&mut self, insert: &nodes::InsertStmt) {
        let table = self.changed(insert.relation());
        self.effects.add(Effect::Insert { table: table.clone() });
        if insert.on_conflict_clause().is_some_and(|clause| clause.action == raw::OnConflictAction::ONCONFLICT_UPDATE) {
            // Only rows that the inserted ones collide with.
            self.effects.add(Effect::Update { table, bounded: true });
        }
    }

    fn visit_merge(&mut self, merge: &nodes::MergeStmt) {
        let table = self.changed(merge.relation());
        let joined = is_bounded(merge.join_condition());
        for when in merge.merge_when_clauses() {
            let matched = when.match_kind == raw::MergeMatchKind::MERGE_WHEN_MATCHED;
            let bounded = (matched && joined) || is_bounded(when.condition());
            let table = table.clone();
            match when.command_type {
                raw::CmdType::CMD_INSERT => self.effects.add(Effect::Insert { table }),
                raw::CmdType::CMD_UPDATE => self.effects.add(Effect::Update { table, bounded }),
                raw::CmdType::CMD_DELETE => self.effects.add(Effect::Delete { table, bounded }),
                raw::CmdType::CMD_NOTHING => {}
                _ => self.not_understood("a MERGE action that this version does not know"),
            }
        }
    }

    pub(crate) fn visit_call(&mut self, call: &nodes::FuncCall) {
        self.called(&list_name(call.funcname()), Some(call));
    }

    fn called(&mut self, function: &ObjectName, call: Option<&nodes::FuncCall>) {
        self.functions.add(function.clone());
        match function_hazard(function.schema.as_deref(), &function.name) {
            Some(Hazard::Escape) => self.escape(format!("calls `{function}`")),
            Some(Hazard::Runs) => self.effects.add(Effect::Call { function: function.clone() }),
            Some(Hazard::Notifies) => {
                self.writes = true;
                self.effects.add(Effect::Session { what: "sends a notification".to_owned() });
            }
            Some(Hazard::Sets) => {
                self.in_session = true;
                self.set_config(call);
            }
            Some(Hazard::Session) => self.in_session = true,
            Some(Hazard::Sequence) => {}
            None => {
                let built_in = matches!(function.schema.as_deref(), None | Some("pg_catalog")) && builtins::is_harmless(&function.name);
                if !built_in {
                    self.effects.add(Effect::Call { function: function.clone() });
                }
            }
        }
    }

    /// `set_config(name, value, is_local)` is SET by another name.
    fn set_config(&mut self, call: Option<&nodes::FuncCall>) {
        let args = call.map(nodes::FuncCall::args);
        let literal = |position| args.and_then(|args: &NodeList| args.get(position)).and_then(literal_text);
        match literal(0) {
            Some(name) if blinds(&name, literal(1).as_deref()) => self.escape(format!("sets `{}`", name.to_ascii_lowercase())),
            Some(name) => self.effects.add(Effect::Session { what: format!("sets `{}`", name.to_ascii_lowercase()) }),
            None => self.escape("sets a setting whose name the text does not show"),
        }
    }

    fn visit_operator(&mut self, expression: &nodes::A_Expr) {
        let spelled: &[&str] = match expression.kind {
            raw::A_Expr_Kind::AEXPR_BETWEEN | raw::A_Expr_Kind::AEXPR_BETWEEN_SYM => &[">=", "<="],
            raw::A_Expr_Kind::AEXPR_NOT_BETWEEN | raw::A_Expr_Kind::AEXPR_NOT_BETWEEN_SYM => &["<", ">"],
            _ => &[],
        };
        if spelled.is_empty() {
            self.operator(expression.name(), "=");
            return;
        }
        self.operators.extend(spelled.iter().map(|name| ObjectName::bare(name)));
    }

    fn operator(&mut self, name: &NodeList, implied: &str) {
        self.operators.add(if name.is_empty() { ObjectName::bare(implied) } else { list_name(name) });
    }

    /// `(x).name` and `t.name` call a function `name(x)` where there is no such column: PostgreSQL's attribute notation, for
    /// built-in functions of one argument too.
    fn visit_attributes(&mut self, fields: &NodeList, skip: usize) {
        for name in fields.iter().skip(skip).filter_map(Node::as_str) {
            match function_hazard(None, name) {
                Some(Hazard::Escape | Hazard::Runs | Hazard::Notifies) => self.called(&ObjectName::bare(name), None),
                _ => self.attributes.add(name.to_owned()),
            }
        }
    }
}

/// Whether a relation is made for this session only.
pub(crate) fn is_temporary(relation: &nodes::RangeVar) -> bool {
    relation.relpersistence == b't'.cast_signed() as std::ffi::c_char
}

/// The text of a literal: a string, a number or a boolean, also under a cast.
pub(crate) fn literal_text(node: Node<'_>) -> Option<String> {
    match node {
        Node::A_Const(constant) => match constant.val()? {
            ConstValue::String(text) | ConstValue::Float(text) => Some(text.to_owned()),
            ConstValue::Integer(number) => Some(number.to_string()),
            ConstValue::Boolean(value) => Some(value.to_string()),
            ConstValue::BitString(_) | ConstValue::Unrecognized(_) => None,
            _ => None,
        },
        Node::TypeCast(cast) => match cast.arg() {
            Node::A_Const(_) => literal_text(cast.arg()),
            _ => None,
        },
        _ => None,
    }
}

fn with_clause(node: Node<'_>) -> Option<&nodes::WithClause> {
    match node {
        Node::SelectStmt(statement) => statement.with_clause(),
        Node::InsertStmt(statement) => statement.with_clause(),
        Node::UpdateStmt(statement) => statement.with_clause(),
        Node::DeleteStmt(statement) => statement.with_clause(),
        Node::MergeStmt(statement) => statement.with_clause(),
        _ => None,
    }
}

fn syntax_function(node: Node<'_>) -> Option<&'static str> {
    Some(match node {
        Node::JsonFuncExpr(expression) => match expression.op {
            raw::JsonExprOp::JSON_EXISTS_OP => "json_exists",
            raw::JsonExprOp::JSON_QUERY_OP => "json_query",
            raw::JsonExprOp::JSON_VALUE_OP => "json_value",
            _ => "json_table",
        },
        Node::JsonParseExpr(_) => "json",
        Node::JsonScalarExpr(_) => "json_scalar",
        Node::JsonSerializeExpr(_) => "json_serialize",
        Node::JsonObjectConstructor(_) => "json_object",
        Node::JsonArrayConstructor(_) | Node::JsonArrayQueryConstructor(_) => "json_array",
        Node::JsonObjectAgg(_) => "json_objectagg",
        Node::JsonArrayAgg(_) => "json_arrayagg",
        Node::JsonTable(_) => "json_table",
        Node::MergeSupportFunc(_) => "merge_action",
        _ => return None,
    })
}
