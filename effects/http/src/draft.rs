//! Drafts: requests of the gateway's own, with places to be filled in from ids, arguments and earlier answers.

use std::{collections::BTreeMap, fmt::Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    place,
    request::{Body, Request},
};

/// What stays as it is in a part of an address (RFC 3986, unreserved).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The same for a name of the user's that may be several parts: `{+name}` (RFC 6570, section 3.2.3).
const UNRESERVED_AND_SLASH: &AsciiSet = &UNRESERVED.remove(b'/');

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Encoding {
    Json,
    Form,
    /// The text itself.
    Text,
    /// The bytes that a text in base64 stands for.
    Bytes,
}

/// A request to be filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Draft {
    pub(crate) method: String,
    pub(crate) scheme: String,
    pub(crate) host: String,
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Option<Value>,
    pub(crate) encoding: Encoding,
    pub(crate) keep: Vec<String>,
    /// Names with dots between them, or JSON pointers (RFC 6901) where names have dots in them.
    pub(crate) drop: Vec<String>,
    /// Where an object is whose members are headers too.
    #[serde(default)]
    pub(crate) headers_from: Option<String>,
}

/// Why a draft can't become a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{{{0}}}` is not known")]
pub struct Missing(pub String);

impl Draft {
    /// The request, its places filled from `known`.
    pub(crate) fn fill(&self, known: &Value) -> Result<Request, Missing> {
        let mut headers = Vec::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            // A value from elsewhere must not become a header of its own.
            headers.push((name.clone(), text(value, known, |value, _| value.replace(char::is_control, ""))?));
        }
        if let Some(at) = &self.headers_from {
            let more = place::first(known, at).ok_or_else(|| Missing(at.clone()))?;
            for (name, value) in more.as_object().into_iter().flatten() {
                headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
                headers.push((name.clone(), place::plain(value).replace(char::is_control, "")));
            }
        }
        let target = self.target(known)?;
        if target.contains("//") || target.split(['/', '?']).any(|part| part == "." || part == "..") {
            return Err(Missing("a part of the address".to_owned()));
        }
        let body = match &self.body {
            None => Body::Empty,
            Some(body) => Body::Bytes(self.body(body, known)?),
        };
        let host =
            text(&self.host, known, |value, _| value.chars().filter(|letter| letter.is_ascii_alphanumeric() || *letter == '-').collect())?;
        Ok(Request { method: self.method.clone(), scheme: self.scheme.clone(), host, target, headers, body })
    }

    fn target(&self, known: &Value) -> Result<String, Missing> {
        let encode =
            |value: &str, slashes: bool| utf8_percent_encode(value, if slashes { UNRESERVED_AND_SLASH } else { UNRESERVED }).to_string();
        text(&self.target, known, encode)
    }

    /// What it would write, as a value.
    pub(crate) fn shape(&self, known: &Value) -> Result<Value, Missing> {
        let body = self.body.as_ref().map(|body| filled(body, known)).transpose()?.map(|body| self.shaped(body));
        let headers = self.headers_from.as_ref().and_then(|at| place::first(known, at));
        Ok(json!({ "target": self.target(known)?, "body": body, "headers": headers }))
    }

    /// A body with the members only that it may have.
    pub(crate) fn shaped(&self, mut value: Value) -> Value {
        if let Value::Object(members) = &mut value
            && !self.keep.is_empty()
        {
            members.retain(|name, member| self.keep.contains(name) && !member.is_null());
        }
        for place in &self.drop {
            remove(&mut value, place);
        }
        value
    }

    fn body(&self, body: &Value, known: &Value) -> Result<Vec<u8>, Missing> {
        let value = self.shaped(filled(body, known)?);
        Ok(match self.encoding {
            Encoding::Json => value.to_string().into_bytes(),
            Encoding::Bytes => BASE64.decode(place::plain(&value)).map_err(|_| Missing("the file".to_owned()))?,
            Encoding::Text => place::plain(&value).into_bytes(),
            Encoding::Form => {
                // In one order, whatever keeps the members.
                let members: BTreeMap<&String, &Value> = value.as_object().into_iter().flatten().collect();
                let mut form = form_urlencoded::Serializer::new(String::new());
                for (name, member) in members {
                    form.append_pair(name, &place::plain(member));
                }
                form.finish().into_bytes()
            }
        })
    }
}

/// A text with its `{places}` filled in; `encode` is applied to what is put in.
pub(crate) fn text(template: &str, known: &Value, encode: impl Fn(&str, bool) -> String) -> Result<String, Missing> {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        filled.push_str(&rest[..open]);
        let after = &rest[open + 1..];
        match after.find('}') {
            Some(close) if is_name(named(&after[..close]).0) => {
                let (name, without) = named(&after[..close]);
                let slashes = after.starts_with('+');
                let value = place::first(known, name).ok_or_else(|| Missing(name.to_owned()))?;
                if value.is_object() || value.is_array() {
                    return Err(Missing(name.to_owned()));
                }
                let plain = place::plain(&value);
                let _ = write!(filled, "{}", encode(plain.strip_prefix(without).unwrap_or(&plain), slashes));
                rest = &after[close + 1..];
            }
            _ => {
                filled.push('{');
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

/// The name in a place, and what is left off at the start of its value: `{+answer.ref:refs/}`.
fn named(place: &str) -> (&str, &str) {
    let place = place.strip_prefix('+').unwrap_or(place);
    match place.split_once(':') {
        Some((name, without)) if without.ends_with('/') => (name, without),
        _ => (place, ""),
    }
}

/// Places have letters, digits and the signs of a place; a GraphQL selection is none.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || "._-*".contains(letter))
}

fn filled(value: &Value, known: &Value) -> Result<Value, Missing> {
    Ok(match value {
        Value::String(template) => {
            let whole = template.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).filter(|name| is_name(name));
            match whole {
                Some(name) => place::first(known, name).ok_or_else(|| Missing(name.to_owned()))?,
                None => Value::String(text(template, known, |value, _| value.to_owned())?),
            }
        }
        Value::Array(items) => Value::Array(items.iter().map(|item| filled(item, known)).collect::<Result<_, _>>()?),
        Value::Object(members) => {
            Value::Object(members.iter().map(|(name, member)| Ok((name.clone(), filled(member, known)?))).collect::<Result<_, Missing>>()?)
        }
        other => other.clone(),
    })
}

fn remove(value: &mut Value, place: &str) {
    let (above, name) = match place.strip_prefix('/') {
        Some(pointer) => {
            let (above, name) = pointer.rsplit_once('/').unwrap_or(("", pointer));
            (if above.is_empty() { String::new() } else { format!("/{above}") }, name.replace("~1", "/").replace("~0", "~"))
        }
        None => {
            let (above, name) = place.rsplit_once('.').unwrap_or(("", place));
            (if above.is_empty() { String::new() } else { format!("/{}", above.replace('.', "/")) }, name.to_owned())
        }
    };
    if let Some(Value::Object(members)) = value.pointer_mut(&above) {
        members.remove(&name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(target: &str, body: Option<Value>) -> Draft {
        Draft {
            method: "POST".into(),
            scheme: "https".into(),
            host: "api.test".into(),
            target: target.into(),
            headers: BTreeMap::from([("x-id".into(), "{id}".into())]),
            body,
            encoding: Encoding::Json,
            keep: Vec::new(),
            drop: vec!["metadata.uid".into(), "/metadata/a.b~1c".into()],
            headers_from: None,
        }
    }

    #[test]
    fn what_is_put_in_stays_in_its_place() {
        let known = json!({"id": "a/../b?x\r\ny: z", "saved": {"o": {"metadata": {"uid": 1, "name": "n", "a.b/c": 2}, "n": 7}}});
        let request = draft("/v/{id}", Some(json!("{saved.o}"))).fill(&known).expect("filled");
        assert_eq!(request.target, "/v/a%2F..%2Fb%3Fx%0D%0Ay%3A%20z");
        assert_eq!(request.headers, [("x-id".to_owned(), "a/../b?xy: z".to_owned())]);
        assert_eq!(request.body, Body::Bytes(br#"{"metadata":{"name":"n"},"n":7}"#.to_vec()));
        assert_eq!(draft("/v/{missing}", None).fill(&known), Err(Missing("missing".into())));
        assert!(draft("/v/{id}", None).fill(&json!({"id": ".."})).is_err());
        assert!(draft("/v/{id}/w", None).fill(&json!({"id": ""})).is_err());
        assert_eq!(draft("/v/{+id}", None).fill(&json!({"id": "a/b c?"})).map(|request| request.target), Ok("/v/a/b%20c%3F".into()));
        assert_eq!(draft("/v/{+id:a/}", None).fill(&json!({"id": "a/a/b"})).map(|request| request.target), Ok("/v/a/b".into()));
        assert!(draft("/v/{+id}", None).fill(&json!({"id": "a/../b"})).is_err());
        assert!(draft("/v/{+id}", None).fill(&json!({"id": "/b"})).is_err());
        let query = draft("/g", Some(json!({"query": "query($id: ID!) { v(id: $id) { name } }", "n": "{saved.o.n}"})));
        let Body::Bytes(body) = query.fill(&known).expect("filled").body else { panic!("a body") };
        assert!(String::from_utf8_lossy(&body).contains("{ v(id: $id) { name } }") && String::from_utf8_lossy(&body).contains("\"n\":7"));
    }
}
