//! The children of a node: everything below it that can name, run or change something.
//!
//! One level at a time, so that the walk keeps its own stack and no text, however deep, uses up the thread's. The C walker
//! of libpg_query leaves out operators, sort operators, sampling methods and the cycle clause; this one does not.

use pg_raw_parse::{
    Node,
    list::{CastNodeList, NodeList},
};

/// Something that can be put on the walk's stack.
trait Child<'a> {
    fn put(self, into: &mut Vec<Node<'a>>);
}

impl<'a> Child<'a> for Node<'a> {
    fn put(self, into: &mut Vec<Node<'a>>) {
        match self {
            Node::None => {}
            Node::NodeList(list) => list.put(into),
            node => into.push(node),
        }
    }
}

impl<'a> Child<'a> for &'a NodeList {
    fn put(self, into: &mut Vec<Node<'a>>) {
        into.extend(self.iter().filter(|node| !matches!(node, Node::None)));
    }
}

impl<'a, T> Child<'a> for &'a CastNodeList<T>
where
    &'a CastNodeList<T>: IntoIterator<Item = &'a T>,
    Node<'a>: From<&'a T>,
{
    fn put(self, into: &mut Vec<Node<'a>>) {
        into.extend(self.into_iter().map(Node::from));
    }
}

impl<'a, T> Child<'a> for Option<&'a T>
where
    Node<'a>: From<&'a T>,
{
    fn put(self, into: &mut Vec<Node<'a>>) {
        into.extend(self.map(Node::from));
    }
}

/// Puts the children of `node` into `into`, in the text's order as far as the tree keeps it.
///
/// Answers `false` for a node this walk does not know: its reader must take that for something not understood.
/// `WITH` clauses are left out: they open a scope, which is the walk's business.
#[must_use]
pub(crate) fn children<'a>(node: Node<'a>, into: &mut Vec<Node<'a>>) -> bool {
    macro_rules! put {
        ($($child:expr),* $(,)?) => {{ $($child.put(into);)* true }};
    }
    match node {
        Node::None
        | Node::A_Const(_)
        | Node::A_Star(_)
        | Node::Alias(_)
        | Node::BitString(_)
        | Node::Boolean(_)
        | Node::ColumnRef(_)
        | Node::CurrentOfExpr(_)
        | Node::Float(_)
        | Node::Integer(_)
        | Node::JsonFormat(_)
        | Node::JsonReturning(_)
        | Node::MergeSupportFunc(_)
        | Node::ParamRef(_)
        | Node::RangeVar(_)
        | Node::ReturningOption(_)
        | Node::RoleSpec(_)
        | Node::SQLValueFunction(_)
        | Node::SetToDefault(_)
        | Node::String(_) => true,
        Node::NodeList(n) => put!(n),

        Node::SelectStmt(n) => put!(
            n.distinct_clause(),
            n.target_list(),
            n.from_clause(),
            n.where_clause(),
            n.group_clause(),
            n.having_clause(),
            n.window_clause(),
            n.values_lists(),
            n.larg(),
            n.rarg(),
            n.sort_clause(),
            n.limit_offset(),
            n.limit_count(),
            n.locking_clause(),
        ),
        Node::InsertStmt(n) => put!(n.cols(), n.select_stmt(), n.on_conflict_clause(), n.returning_clause()),
        Node::UpdateStmt(n) => put!(n.target_list(), n.from_clause(), n.where_clause(), n.returning_clause()),
        Node::DeleteStmt(n) => put!(n.using_clause(), n.where_clause(), n.returning_clause()),
        Node::MergeStmt(n) => put!(n.source_relation(), n.join_condition(), n.merge_when_clauses(), n.returning_clause()),
        Node::MergeWhenClause(n) => put!(n.condition(), n.target_list(), n.values()),
        Node::OnConflictClause(n) => put!(n.infer(), n.target_list(), n.where_clause()),
        Node::InferClause(n) => put!(n.index_elems(), n.where_clause()),
        Node::IndexElem(n) => put!(n.expr(), n.opclassopts()),
        Node::ReturningClause(n) => put!(n.exprs()),
        Node::CommonTableExpr(n) => put!(n.ctequery(), n.cycle_clause()),
        Node::CTECycleClause(n) => put!(n.cycle_mark_value(), n.cycle_mark_default()),
        Node::LockingClause(_) => true,

        Node::JoinExpr(n) => put!(n.larg(), n.rarg(), n.quals()),
        Node::RangeSubselect(n) => put!(n.subquery()),
        Node::RangeFunction(n) => put!(n.functions(), n.coldeflist()),
        Node::RangeTableSample(n) => put!(n.relation(), n.args(), n.repeatable()),
        Node::RangeTableFunc(n) => put!(n.docexpr(), n.rowexpr(), n.namespaces(), n.columns()),
        Node::RangeTableFuncCol(n) => put!(n.type_name(), n.colexpr(), n.coldefexpr()),

        Node::A_Expr(n) => put!(n.lexpr(), n.rexpr()),
        Node::A_ArrayExpr(n) => put!(n.elements()),
        Node::A_Indices(n) => put!(n.lidx(), n.uidx()),
        Node::A_Indirection(n) => put!(n.arg(), n.indirection()),
        Node::BoolExpr(n) => put!(n.args()),
        Node::BooleanTest(n) => put!(n.arg()),
        Node::CaseExpr(n) => put!(n.arg(), n.args(), n.defresult()),
        Node::CaseWhen(n) => put!(n.expr(), n.result()),
        Node::CoalesceExpr(n) => put!(n.args()),
        Node::CollateClause(n) => put!(n.arg()),
        Node::FuncCall(n) => put!(n.args(), n.agg_order(), n.agg_filter(), n.over()),
        Node::GroupingFunc(n) => put!(n.args()),
        Node::GroupingSet(n) => put!(n.content()),
        Node::MinMaxExpr(n) => put!(n.args()),
        Node::MultiAssignRef(n) => put!(n.source()),
        Node::NamedArgExpr(n) => put!(n.arg()),
        Node::NullTest(n) => put!(n.arg()),
        Node::ResTarget(n) => put!(n.indirection(), n.val()),
        Node::RowExpr(n) => put!(n.args()),
        Node::SortBy(n) => put!(n.node()),
        Node::SubLink(n) => put!(n.testexpr(), n.subselect()),
        Node::TypeCast(n) => put!(n.arg(), n.type_name()),
        Node::TypeName(n) => put!(n.typmods(), n.array_bounds()),
        Node::WindowDef(n) => put!(n.partition_clause(), n.order_clause(), n.start_offset(), n.end_offset()),
        Node::XmlExpr(n) => put!(n.named_args(), n.args()),
        Node::XmlSerialize(n) => put!(n.expr(), n.type_name()),

        Node::JsonAggConstructor(n) => put!(n.output(), n.agg_order(), n.agg_filter(), n.over()),
        Node::JsonArgument(n) => put!(n.val()),
        Node::JsonArrayAgg(n) => put!(n.constructor(), n.arg()),
        Node::JsonArrayConstructor(n) => put!(n.exprs(), n.output()),
        Node::JsonArrayQueryConstructor(n) => put!(n.query(), n.output()),
        Node::JsonBehavior(n) => put!(n.expr()),
        Node::JsonFuncExpr(n) => {
            put!(n.context_item(), n.pathspec(), n.passing(), n.output(), n.on_empty(), n.on_error())
        }
        Node::JsonIsPredicate(n) => put!(n.expr()),
        Node::JsonKeyValue(n) => put!(n.key(), n.value()),
        Node::JsonObjectAgg(n) => put!(n.constructor(), n.arg()),
        Node::JsonObjectConstructor(n) => put!(n.exprs(), n.output()),
        Node::JsonOutput(n) => put!(n.type_name()),
        Node::JsonParseExpr(n) => put!(n.expr(), n.output()),
        Node::JsonScalarExpr(n) => put!(n.expr(), n.output()),
        Node::JsonSerializeExpr(n) => put!(n.expr(), n.output()),
        Node::JsonTable(n) => put!(n.context_item(), n.pathspec(), n.passing(), n.columns(), n.on_error()),
        Node::JsonTableColumn(n) => put!(n.type_name(), n.pathspec(), n.columns(), n.on_empty(), n.on_error()),
        Node::JsonTablePathSpec(n) => put!(n.string()),
        Node::JsonValueExpr(n) => put!(n.raw_expr(), n.formatted_expr()),

        // What definitions hold.
        Node::ColumnDef(n) => put!(n.type_name(), n.raw_default(), n.constraints()),
        Node::Constraint(n) => put!(n.raw_expr(), n.exclusions(), n.where_clause()),
        Node::TableLikeClause(_) | Node::DefElem(_) => true,
        Node::PartitionSpec(n) => put!(n.part_params()),
        Node::PartitionElem(n) => put!(n.expr()),
        Node::PartitionBoundSpec(n) => put!(n.listdatums(), n.lowerdatums(), n.upperdatums()),
        Node::PartitionRangeDatum(n) => put!(n.value()),
        Node::FunctionParameter(n) => put!(n.arg_type(), n.defexpr()),
        Node::StatsElem(n) => put!(n.expr()),
        Node::ReturnStmt(n) => put!(n.returnval()),
        _ => false,
    }
}
