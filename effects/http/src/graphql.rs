//! GraphQL requests: every root field that will be executed, by its real name, with its arguments resolved.
//!
//! How a request carries documents is here; reading one document is in `graphql/document.rs`.

mod document;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::{
    canonical::{Canonical, Content, shown},
    json, place,
};

/// More requests in one body than any client batches.
const MOST_BATCHED: usize = 50;

/// One root field that is executed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) kind: OperationKind,
    /// With variables and their defaults put in.
    pub(crate) arguments: Value,
    /// The names of every field selected below it.
    pub(crate) selected: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OperationKind {
    Query,
    Mutation,
    Subscription,
}

/// Every root field that `request` executes, or why that can't be told.
pub(crate) fn fields(request: &Canonical) -> Result<Vec<Field>, String> {
    let of_query = request.query.iter().any(|(name, _)| PARAMETERS.iter().any(|known| place::same(known, name)) || is_hash(name));
    let items = match (&request.content, request.request.method.as_str()) {
        (Content::None, "GET" | "HEAD") if !of_query => return Ok(Vec::new()),
        (Content::None, _) => vec![from_pairs(&request.query)?],
        (_, _) if of_query => return Err("it has a document in its address and a body".to_owned()),
        (Content::Json(value), "POST") => batch(value.clone())?,
        (Content::Text(media, text), "POST") if media == "application/graphql" => {
            vec![Map::from_iter([("query".to_owned(), Value::String(text.clone()))])]
        }
        (Content::Multipart(parts), "POST") => {
            let mut operations = parts.iter().filter(|part| part.name == "operations");
            match (operations.next(), operations.next()) {
                // Files take the place of nulls in the variables: what the guards look at can't be one.
                (Some(part), None) => batch(json::parse(&part.bytes).map_err(|error| format!("its `operations` are no JSON: {error}"))?)?,
                _ => return Err("its parts have not one `operations`".to_owned()),
            }
        }
        _ => return Err("it is no GraphQL request in a form that is read here: POST `application/json`".to_owned()),
    };
    let mut fields = Vec::new();
    for item in &items {
        fields.extend(one(item)?);
    }
    Ok(fields)
}

const PARAMETERS: [&str; 4] = ["query", "variables", "operationName", "extensions"];

fn is_hash(name: &str) -> bool {
    ["id", "documentId", "queryId", "doc_id", "hash", "sha256Hash"].iter().any(|known| place::same(known, name))
}

fn batch(value: Value) -> Result<Vec<Map<String, Value>>, String> {
    let not = || "it is no GraphQL request: an object with a `query`, or an array of them".to_owned();
    match value {
        Value::Object(object) => Ok(vec![object]),
        Value::Array(items) if items.len() <= MOST_BATCHED && !items.is_empty() => items
            .into_iter()
            .map(|item| match item {
                Value::Object(object) => Ok(object),
                _ => Err(not()),
            })
            .collect(),
        _ => Err(not()),
    }
}

fn from_pairs(pairs: &[(String, String)]) -> Result<Map<String, Value>, String> {
    let mut object = Map::new();
    for (name, value) in pairs {
        let value = match name.as_str() {
            "query" | "operationName" => Value::String(value.clone()),
            "variables" | "extensions" if value.is_empty() => Value::Null,
            "variables" | "extensions" => json::parse(value.as_bytes()).map_err(|error| format!("`{name}` is no JSON: {error}"))?,
            _ => return Err(format!("the parameter `{}` is none of GraphQL's", shown(name))),
        };
        if object.insert(name.clone(), value).is_some() {
            return Err(format!("the parameter `{name}` occurs twice"));
        }
    }
    Ok(object)
}

fn one(item: &Map<String, Value>) -> Result<Vec<Field>, String> {
    for name in item.keys() {
        if !PARAMETERS.contains(&name.as_str()) {
            return Err(if is_hash(name) {
                format!("`{}` names a document that is kept elsewhere; send its text", shown(name))
            } else {
                format!("the member `{}` is none of GraphQL's", shown(name))
            });
        }
    }
    let text = match item.get("query") {
        Some(Value::String(text)) if !text.trim().is_empty() => text,
        Some(Value::Null) | None => return Err("it names a persisted query by its hash, or none; send the query's text".to_owned()),
        Some(_) => return Err("its `query` is no text".to_owned()),
    };
    if let Some(hash) = item.get("extensions").and_then(|extensions| extensions.get("persistedQuery")) {
        let said = hash.get("sha256Hash").and_then(Value::as_str).unwrap_or_default();
        let real: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        if !said.eq_ignore_ascii_case(&real) {
            return Err("the hash of its persisted query is not the hash of its text".to_owned());
        }
    }
    let name = match item.get("operationName") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) if name.is_empty() => None,
        Some(Value::String(name)) => Some(name.as_str()),
        Some(_) => return Err("its `operationName` is no text".to_owned()),
    };
    let empty = Map::new();
    // Some servers take variables as a text with JSON in it.
    let variables = match item.get("variables") {
        None | Some(Value::Null) => &empty,
        Some(Value::Object(variables)) => variables,
        Some(_) => return Err("its `variables` are no object".to_owned()),
    };
    document::read(text, name, variables)
}

#[cfg(test)]
mod tests;
