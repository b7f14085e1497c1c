//! Lookups: what an id really is, found out with the gateway's own read before the verdict.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{canonical::shown, draft::Missing, format::OneOrMore, json, place, request::Request, xml};

/// Longest list of dependents or backups that is kept.
const MOST: usize = 100;

/// A read that tells what a resource is.
#[derive(Debug, Clone, PartialEq)]
pub struct Lookup {
    /// The resource, `type/id`.
    pub resource: String,
    /// The read, without a credential. It can't be made if something that it needs isn't in the request.
    pub request: Result<Request, Missing>,
    pub(crate) reads: BTreeMap<String, OneOrMoreText>,
    pub(crate) unit: String,
}

/// Places in an answer, the first that has something counts.
pub(crate) type OneOrMoreText = Vec<String>;

pub(crate) fn texts(places: &OneOrMore) -> OneOrMoreText {
    places.iter().cloned().collect()
}

/// What a resource turned out to be. Several lookups of one resource add up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Its name for people: what an approver types.
    pub name: Option<String>,
    /// Its environment in the provider's words; unknown counts as production.
    pub environment: Option<String>,
    /// How large it is, with its unit.
    pub size: Option<String>,
    /// What hangs on it, and would go or break with it.
    pub attached: Vec<String>,
    /// Its backups that the provider keeps.
    pub backups: Vec<String>,
    /// What it belongs to.
    pub parents: Vec<String>,
    /// What protects it at the moment.
    pub protection: Option<String>,
}

/// Why a resource could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// There is none of that id.
    #[error("there is no `{0}`")]
    Absent(String),
    /// The service did not answer the question.
    #[error("the service answered {0}")]
    Status(u16),
    /// Its answer can't be read.
    #[error("the answer can't be read: {0}")]
    Answer(String),
}

impl Lookup {
    /// Reads the service's answer.
    pub fn read(&self, status: u16, media: &str, body: &[u8]) -> Result<Resolved, ResolveError> {
        if matches!(status, 404 | 410) {
            return Err(ResolveError::Absent(shown(&self.resource)));
        }
        if !(200..300).contains(&status) {
            return Err(ResolveError::Status(status));
        }
        let answer = answer(media, body).map_err(ResolveError::Answer)?;
        if place::first(&answer, "errors").is_some_and(|errors| errors.as_array().is_some_and(|errors| !errors.is_empty())) {
            return Err(ResolveError::Answer("it has errors in it".to_owned()));
        }
        let all = |what: &str| -> Vec<String> {
            let places = self.reads.get(what).into_iter().flatten();
            let mut found: Vec<String> = Vec::new();
            for place in places {
                for value in place::find(&answer, place).into_iter().map(|found| found.value) {
                    let text = place::plain(&value);
                    if !value.is_null() && !text.is_empty() && !found.contains(&text) && found.len() < MOST {
                        found.push(text.chars().take(200).collect());
                    }
                }
            }
            found
        };
        let one = |what: &str| all(what).into_iter().next();
        if self.reads.contains_key("exists") && one("exists").is_none() {
            return Err(ResolveError::Absent(shown(&self.resource)));
        }
        Ok(Resolved {
            name: one("name"),
            environment: one("environment"),
            size: one("size").map(|size| format!("{size} {}", self.unit).trim().to_owned()),
            attached: all("attached"),
            backups: all("backups"),
            parents: all("parents"),
            protection: one("protection"),
        })
    }
}

impl Resolved {
    /// Adds what another lookup of the same resource told.
    pub fn add(&mut self, other: Self) {
        let Self { name, environment, size, attached, backups, parents, protection } = other;
        self.name = self.name.take().or(name);
        self.environment = self.environment.take().or(environment);
        self.size = self.size.take().or(size);
        self.protection = self.protection.take().or(protection);
        self.attached.extend(attached);
        self.backups.extend(backups);
        self.parents.extend(parents);
    }
}

/// A service's answer as a tree, whichever of JSON and XML it is.
pub fn answer(media: &str, body: &[u8]) -> Result<Value, String> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    let text = std::str::from_utf8(body).map_err(|_| "no UTF-8".to_owned())?;
    if media.contains("xml") || text.trim_start().starts_with('<') {
        return xml::parse(text);
    }
    json::parse(body)
}
