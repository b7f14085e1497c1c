//! Names out of parse trees, and lists that hold each thing once.

use std::{collections::HashSet, hash::Hash};

use pg_raw_parse::{
    Node,
    list::{CastNodeList, NodeList},
    nodes,
};
use reprieve_operation::ObjectName;

/// Below this many, looking along a list is quicker than hashing.
const SHORT: usize = 16;
/// More different names than this in one statement are not told apart any more.
pub(crate) const MAX_NAMES: usize = 4096;

/// A list without repetitions, in the order of first appearance.
#[derive(Debug)]
pub(crate) struct Once<T> {
    list: Vec<T>,
    seen: HashSet<T>,
    overflowed: bool,
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self { list: Vec::new(), seen: HashSet::new(), overflowed: false }
    }
}

impl<T: Clone + Eq + Hash> Once<T> {
    pub(crate) fn add(&mut self, item: T) {
        if self.list.len() < SHORT {
            if !self.list.contains(&item) {
                self.list.push(item);
            }
            return;
        }
        if self.list.len() >= MAX_NAMES {
            self.overflowed = true;
            return;
        }
        if self.seen.is_empty() {
            self.seen.extend(self.list.iter().cloned());
        }
        if self.seen.insert(item.clone()) {
            self.list.push(item);
        }
    }

    pub(crate) fn extend(&mut self, items: impl IntoIterator<Item = T>) {
        for item in items {
            self.add(item);
        }
    }

    pub(crate) fn has_overflowed(&self) -> bool {
        self.overflowed
    }

    pub(crate) fn into_vec(self) -> Vec<T> {
        self.list
    }
}

/// A relation's name as written. The database's own name, where written, has to be the current one, so it is left out.
pub(crate) fn relation_name(relation: &nodes::RangeVar) -> ObjectName {
    ObjectName { schema: relation.schemaname().map(str::to_owned), name: relation.relname().unwrap_or_default().to_owned() }
}

/// The name of an optional relation, empty where there is none.
pub(crate) fn some_relation_name(relation: Option<&nodes::RangeVar>) -> ObjectName {
    relation.map_or_else(|| ObjectName::bare(""), relation_name)
}

/// A name in parts, `[schema, name]` or `[database, schema, name]`.
pub(crate) fn list_name(list: &NodeList) -> ObjectName {
    parts_name(list.iter().filter_map(Node::as_str))
}

/// The same for lists that hold strings only.
pub(crate) fn strings_name(list: &CastNodeList<nodes::String>) -> ObjectName {
    parts_name(list.iter().filter_map(nodes::String::sval))
}

fn parts_name<'a>(parts: impl Iterator<Item = &'a str>) -> ObjectName {
    let mut schema = None;
    let mut name = None;
    for part in parts {
        schema = name.replace(part);
    }
    ObjectName { schema: schema.map(str::to_owned), name: name.unwrap_or_default().to_owned() }
}

/// The name of whatever a DROP, COMMENT or RENAME points at.
pub(crate) fn object_name(node: Node<'_>) -> ObjectName {
    match node {
        Node::NodeList(list) => match list.first() {
            // DROP CAST (source AS target), DROP TRANSFORM FOR type: the first type stands for the pair.
            Some(Node::TypeName(name)) => strings_name(name.names()),
            _ => list_name(list),
        },
        Node::String(name) => ObjectName::bare(name.sval().unwrap_or_default()),
        Node::ObjectWithArgs(object) => list_name(object.objname()),
        Node::TypeName(name) => strings_name(name.names()),
        Node::RangeVar(relation) => relation_name(relation),
        Node::RoleSpec(role) => ObjectName::bare(role.rolename().unwrap_or_default()),
        _ => ObjectName::bare(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_keeps_the_first_of_each_and_is_bounded() {
        let mut once = Once::default();
        once.extend((0..100).chain(0..100));
        assert!(!once.has_overflowed());
        assert_eq!(once.list, (0..100).collect::<Vec<_>>());
        once.extend(0..2 * MAX_NAMES);
        assert!(once.has_overflowed());
        assert_eq!(once.into_vec().len(), MAX_NAMES);
    }
}
