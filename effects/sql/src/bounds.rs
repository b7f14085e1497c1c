//! Whether a condition restricts the rows of a change.

use pg_raw_parse::{Node, list::NodeList, nodes, raw};

use crate::children::children;

/// Deeper conditions count as no condition.
const MAX_DEPTH: usize = 64;

/// Whether `condition` is there and not trivially true: it looks at a column, and not only to compare it with itself.
pub(crate) fn is_bounded(condition: Node<'_>) -> bool {
    bounded_within(condition, MAX_DEPTH)
}

fn bounded_within(condition: Node<'_>, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return false };
    match condition {
        Node::None => false,
        Node::CurrentOfExpr(_) => true,
        Node::BoolExpr(expression) => match expression.boolop {
            raw::BoolExprType::AND_EXPR => expression.args().iter().any(|part| bounded_within(part, depth)),
            raw::BoolExprType::OR_EXPR => expression.args().iter().all(|part| bounded_within(part, depth)),
            _ => expression.args().iter().any(|part| looks_at_a_column(part) && !compares_with_itself(part)),
        },
        condition => looks_at_a_column(condition) && !compares_with_itself(condition),
    }
}

/// `x = x`, `x >= x`, `x IS NOT DISTINCT FROM x`, also in the negative: none of them tells rows apart.
fn compares_with_itself(condition: Node<'_>) -> bool {
    let Node::A_Expr(expression) = condition else { return false };
    match (expression.lexpr(), expression.rexpr()) {
        (Node::ColumnRef(left), Node::ColumnRef(right)) => same_column(left, right),
        _ => false,
    }
}

fn same_column(left: &nodes::ColumnRef, right: &nodes::ColumnRef) -> bool {
    // The column's own name decides: `t.x = x` is the same column too.
    fn last(list: &NodeList) -> Option<&str> {
        list.iter().next_back().and_then(Node::as_str)
    }
    let (left, right) = (left.fields(), right.fields());
    last(left).is_some()
        && last(left) == last(right)
        && (left.len() != right.len() || left.iter().map(Node::as_str).eq(right.iter().map(Node::as_str)))
}

fn looks_at_a_column(node: Node<'_>) -> bool {
    let mut stack = vec![node];
    while let Some(node) = stack.pop() {
        if matches!(node, Node::ColumnRef(_) | Node::CurrentOfExpr(_)) {
            return true;
        }
        if !children(node, &mut stack) {
            return false;
        }
    }
    false
}
