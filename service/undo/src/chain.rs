//! Chains: what several changes of the same rows come to.
//!
//! A transaction may change a row, and change it again. Each change is an edge from the row's image before to its image after;
//! `None` is "no row". Linked where one's after is another's before, only the two ends of a chain are left. The order in which changes
//! were written down doesn't matter, and rows without a key need none: equal rows are interchangeable.

use std::collections::HashMap;

/// One row's change: its image before and after, as PostgreSQL spells a row (section 8.16.6, composite output).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// `None`: there was no row.
    pub before: Option<String>,
    /// `None`: there is no row any more.
    pub after: Option<String>,
}

/// What the edges come to together. Rows that ended as they began are left out.
#[must_use]
pub fn net(edges: Vec<Edge>) -> Vec<Edge> {
    let edges: Vec<Edge> = edges.into_iter().filter(|edge| edge.before != edge.after).collect();
    // Edges by the image they start from.
    let mut starting: HashMap<&str, Vec<usize>> = HashMap::new();
    for (place, edge) in edges.iter().enumerate() {
        if let Some(before) = &edge.before {
            starting.entry(before).or_default().push(place);
        }
    }
    let mut next: Vec<Option<usize>> = vec![None; edges.len()];
    let mut is_continued_from: Vec<bool> = vec![false; edges.len()];
    for (place, edge) in edges.iter().enumerate() {
        let follower = edge.after.as_deref().and_then(|after| starting.get_mut(after)).and_then(Vec::pop);
        if let Some(follower) = follower {
            next[place] = Some(follower);
            is_continued_from[follower] = true;
        }
    }
    // A ring has no first edge: its rows ended as they began.
    let firsts = (0..edges.len()).filter(|place| !is_continued_from[*place]);
    let ends = firsts.map(|first| {
        let mut last = first;
        while let Some(follower) = next[last] {
            last = follower;
        }
        Edge { before: edges[first].before.clone(), after: edges[last].after.clone() }
    });
    ends.filter(|edge| edge.before != edge.after).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn edge(before: &str, after: &str) -> Edge {
        let image = |text: &str| if text.is_empty() { None } else { Some(text.to_owned()) };
        Edge { before: image(before), after: image(after) }
    }

    #[test]
    fn chains_come_to_their_ends() {
        for (edges, expected) in [
            (vec![edge("a", "b"), edge("b", "c")], vec![edge("a", "c")]),
            (vec![edge("b", "c"), edge("a", "b")], vec![edge("a", "c")]),
            (vec![edge("", "a"), edge("a", "b"), edge("b", "")], vec![]),
            (vec![edge("a", "b"), edge("b", "a")], vec![]),
            (vec![edge("a", "a")], vec![]),
            (vec![edge("a", ""), edge("", "a")], vec![]),
            (vec![edge("a", ""), edge("a", "")], vec![edge("a", ""), edge("a", "")]),
            (vec![edge("a", ""), edge("", "b")], vec![edge("", "b"), edge("a", "")]),
        ] {
            let mut found = net(edges.clone());
            found.sort();
            assert_eq!(found, expected, "{edges:?}");
        }
    }

    proptest! {
        /// A table of equal or different rows without a key, changed at random: putting the net back restores it.
        #[test]
        fn the_net_leads_back(start in proptest::collection::vec("[a-d]", 0..6), steps in proptest::collection::vec(("[a-e]?", "[a-e]?"), 0..20)) {
            let mut table: BTreeMap<String, i64> = BTreeMap::new();
            start.iter().for_each(|row| *table.entry(row.clone()).or_default() += 1);
            let before = table.clone();
            let mut edges = Vec::new();
            for (from, to) in &steps {
                if !from.is_empty() {
                    let Some(count) = table.get_mut(from).filter(|count| **count > 0) else { continue };
                    *count -= 1;
                }
                if !to.is_empty() {
                    *table.entry(to.clone()).or_default() += 1;
                }
                edges.push(edge(from, to));
            }
            edges.reverse(); // any order will do
            for edge in net(edges) {
                if let Some(after) = edge.after {
                    *table.get_mut(&after).expect("there is such a row") -= 1;
                }
                if let Some(before) = edge.before {
                    *table.entry(before).or_default() += 1;
                }
            }
            let some = |table: &BTreeMap<String, i64>| table.iter().filter(|(_, count)| **count != 0).map(|(row, count)| (row.clone(), *count)).collect::<Vec<_>>();
            prop_assert_eq!(some(&table), some(&before));
        }
    }
}
