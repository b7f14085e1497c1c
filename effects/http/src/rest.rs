//! REST: a method and a path become an operation, and parameters by name.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::{
    canonical::{Canonical, Content},
    class::Class,
};

/// Operations by method and path template. Literal parts win over parameters.
#[derive(Debug, Default, Clone)]
pub(crate) struct Routes(HashMap<String, Node>);

#[derive(Debug, Default, Clone)]
struct Node {
    literal: HashMap<String, Node>,
    /// `{name}`: one part. Parameters of one place may have different names in different templates.
    parameter: Option<Box<Node>>,
    /// `{name+}`: this part and all after it.
    rest: Option<Route>,
    here: Option<Route>,
}

#[derive(Debug, Clone)]
struct Route {
    id: String,
    class: Option<Class>,
    /// The names of its parameters, in order.
    parameters: Vec<String>,
}

/// What a path is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Matched {
    pub(crate) id: String,
    pub(crate) class: Option<Class>,
    pub(crate) path: Map<String, Value>,
}

impl Routes {
    /// Adds `METHOD /path/{parameter}`.
    pub(crate) fn add(&mut self, call: &str, id: &str, class: Option<Class>) -> Result<(), String> {
        let (method, path) =
            call.split_once(' ').filter(|(_, path)| path.starts_with('/')).ok_or_else(|| format!("`{call}` is no call"))?;
        let mut node = self.0.entry(method.to_owned()).or_default();
        let mut parameters = Vec::new();
        let parts: Vec<&str> = path[1..].split('/').filter(|part| !part.is_empty()).collect();
        for (place, part) in parts.iter().enumerate() {
            let Some(name) = part.strip_prefix('{').and_then(|name| name.strip_suffix('}')) else {
                node = node.literal.entry((*part).to_owned()).or_default();
                continue;
            };
            if let Some(name) = name.strip_suffix('+') {
                if place + 1 != parts.len() {
                    return Err(format!("in `{call}` something follows `{{{name}+}}`"));
                }
                parameters.push(name.to_owned());
                node.rest = Some(Route { id: id.to_owned(), class, parameters });
                return Ok(());
            }
            parameters.push(name.to_owned());
            node = node.parameter.get_or_insert_default();
        }
        node.here = Some(Route { id: id.to_owned(), class, parameters });
        Ok(())
    }

    /// The operation that `segments` name; HEAD is a GET without the answer's body.
    pub(crate) fn find(&self, method: &str, segments: &[String]) -> Option<Matched> {
        let node = self.0.get(method).or_else(|| if method == "HEAD" { self.0.get("GET") } else { None })?;
        let mut values = Vec::new();
        let route = find(node, segments, &mut values)?;
        let path = route.parameters.iter().cloned().zip(values.into_iter().map(Value::String)).collect();
        Some(Matched { id: route.id.clone(), class: route.class.clone(), path })
    }
}

/// Each node is visited at most once for a path, so this is bounded by the catalog and not by the request.
fn find<'a>(node: &'a Node, segments: &[String], values: &mut Vec<String>) -> Option<&'a Route> {
    let Some((segment, rest)) = segments.split_first() else { return node.here.as_ref() };
    // Some servers don't look at the case of a path.
    let literal = || node.literal.iter().find(|(name, _)| name.eq_ignore_ascii_case(segment)).map(|(_, child)| child);
    if let Some(found) = node.literal.get(segment).or_else(literal).and_then(|child| find(child, rest, values)) {
        return Some(found);
    }
    if let Some(child) = &node.parameter {
        let before = values.len();
        values.push(segment.clone());
        if let Some(found) = find(child, rest, values) {
            return Some(found);
        }
        values.truncate(before);
    }
    let route = node.rest.as_ref()?;
    values.push(segments.join("/"));
    Some(route)
}

/// The path's, the query's and the body's parameters, for places such as `path.id`, `query.force`, `body.type`.
pub(crate) fn arguments(path: Map<String, Value>, request: &Canonical) -> Value {
    let body = match &request.content {
        Content::Json(value) | Content::Xml(value) | Content::Cbor(value) => value.clone(),
        Content::Form(pairs) => form(pairs),
        Content::Text(_, text) => Value::String(text.clone()),
        Content::Multipart(parts) => Value::Object(
            parts.iter().map(|part| (part.name.clone(), Value::String(String::from_utf8_lossy(&part.bytes).into_owned()))).collect(),
        ),
        Content::None | Content::Opaque | Content::Broken(_) => Value::Null,
    };
    let query = pairs(&request.query);
    Value::Object(Map::from_iter([("path".to_owned(), Value::Object(path)), ("query".to_owned(), query), ("body".to_owned(), body)]))
}

/// Parameters by name; those that occur more than once become lists.
pub(crate) fn pairs(pairs: &[(String, String)]) -> Value {
    let mut object = Map::new();
    for (name, value) in pairs {
        push(&mut object, name, Value::String(value.clone()));
    }
    Value::Object(object)
}

/// Form fields, `a[b][]=c` taken apart.
fn form(pairs: &[(String, String)]) -> Value {
    let mut root = Map::new();
    for (name, value) in pairs {
        let mut parts = name.split('[').map(|part| part.trim_end_matches(']'));
        let head = parts.next().unwrap_or_default();
        let rest: Vec<&str> = parts.filter(|part| !part.is_empty()).take(16).collect();
        insert(&mut root, head, &rest, value);
    }
    Value::Object(root)
}

pub(crate) fn insert(object: &mut Map<String, Value>, name: &str, rest: &[&str], value: &str) {
    let Some((next, rest)) = rest.split_first() else { return push(object, name, Value::String(value.to_owned())) };
    let entry = object.entry(name.to_owned()).or_insert_with(|| Value::Object(Map::new()));
    if !entry.is_object() {
        *entry = Value::Object(Map::new());
    }
    if let Value::Object(inner) = entry {
        insert(inner, next, rest, value);
    }
}

fn push(object: &mut Map<String, Value>, name: &str, value: Value) {
    match object.get_mut(name) {
        None => {
            object.insert(name.to_owned(), value);
        }
        Some(Value::Array(items)) => items.push(value),
        Some(other) => *other = Value::Array(vec![other.take(), value]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_find_their_operation() {
        let mut routes = Routes::default();
        for (call, id) in [
            ("GET /v/{id}", "get"),
            ("DELETE /v/{id}", "delete"),
            ("DELETE /v/all", "deleteAll"),
            ("DELETE /v/{id}/s/{snapshot}", "deleteSnapshot"),
            ("GET /files/{path+}", "file"),
            ("GET /", "root"),
        ] {
            assert_eq!(routes.add(call, id, None), Ok(()));
        }
        assert!(routes.add("GET /a/{b+}/c", "x", None).is_err());
        assert!(routes.add("GET", "x", None).is_err());
        for (method, path, expected) in [
            ("GET", "v/1", Some(("get", json!({"id": "1"})))),
            ("HEAD", "v/1", Some(("get", json!({"id": "1"})))),
            ("DELETE", "v/all", Some(("deleteAll", json!({})))),
            ("DELETE", "v/all/s/2", Some(("deleteSnapshot", json!({"id": "all", "snapshot": "2"})))),
            ("GET", "files/a/b", Some(("file", json!({"path": "a/b"})))),
            ("DELETE", "V/ALL", Some(("deleteAll", json!({})))),
            ("POST", "v/1", None),
            ("DELETE", "v", None),
        ] {
            let segments: Vec<String> = path.split('/').map(str::to_owned).collect();
            let found = routes.find(method, &segments).map(|found| (found.id, Value::Object(found.path)));
            assert_eq!(found, expected.map(|(id, path)| (id.to_owned(), path)), "{method} {path}");
        }
        assert_eq!(routes.find("GET", &[]).map(|found| found.id).as_deref(), Some("root"));
    }

    #[test]
    fn forms_are_taken_apart() {
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let fields = [field("a[b]", "1"), field("a[c][]", "2"), field("a[c][]", "3"), field("d", "4"), field("d[e]", "5"), field("[", "6")];
        assert_eq!(form(&fields), json!({"a": {"b": "1", "c": ["2", "3"]}, "d": {"e": "5"}, "": "6"}));
    }
}
