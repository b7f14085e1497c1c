//! The way back of a call: what is kept before it, and the call that undoes it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    draft::{Draft, Missing},
    place,
    request::Request,
};

/// Something to keep before an operation runs, in this order.
#[derive(Debug, Clone, PartialEq)]
pub struct Escrow {
    /// Its name among what is saved.
    pub save: String,
    /// What it keeps, in words.
    pub says: String,
    /// The request, without a credential.
    pub request: Result<Request, Missing>,
    /// The part of the answer to keep; all of it if missing.
    pub take: Option<String>,
    /// Whether to wait until it is done.
    pub until: Option<Until>,
}

/// Asked again until the answer says that it is done.
#[derive(Debug, Clone, PartialEq)]
pub struct Until {
    pub(crate) draft: Draft,
    pub(crate) known: Value,
    pub(crate) at: String,
    pub(crate) is: Value,
    pub(crate) never: Vec<Value>,
}

/// How far something is that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Ask again later.
    Waiting,
    /// It is so.
    Done,
    /// It won't be.
    Failed,
}

impl Escrow {
    /// The part of the service's answer to keep; `None` if it isn't there.
    #[must_use]
    pub fn kept(&self, answer: &Value) -> Option<Value> {
        match &self.take {
            None => Some(answer.clone()).filter(|answer| !answer.is_null()),
            Some(place) => place::first(answer, place),
        }
    }
}

impl Until {
    /// The request to ask with, after `kept` was answered to the step's own request.
    pub fn request(&self, save: &str, kept: &Value) -> Result<Request, Missing> {
        self.draft.fill(&with_saved(&self.known, &Map::from_iter([(save.to_owned(), kept.clone())]), &Value::Null))
    }

    /// What an answer to it says.
    #[must_use]
    pub fn progress(&self, answer: &Value) -> Progress {
        let found: Vec<String> = place::find(answer, &self.at).into_iter().map(|found| place::plain(&found.value)).collect();
        if found.iter().any(|found| self.never.iter().any(|never| place::plain(never).eq_ignore_ascii_case(found))) {
            Progress::Failed
        } else if found.iter().any(|found| place::plain(&self.is).eq_ignore_ascii_case(found)) {
            Progress::Done
        } else {
            Progress::Waiting
        }
    }
}

/// The call that takes an operation back. It is kept until the operation has run, and filled in then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Undo {
    /// What it brings back, in words.
    pub says: String,
    /// What doesn't come back, in words; empty if everything does.
    pub loses: String,
    pub(crate) draft: Draft,
    pub(crate) known: Value,
}

impl Undo {
    /// The request that undoes it, given what was `saved` by name and the operation's own `answer`.
    pub fn request(&self, saved: &Map<String, Value>, answer: &Value) -> Result<Request, Missing> {
        self.draft.fill(&with_saved(&self.known, saved, answer))
    }

    /// Whether it can be filled in once the operation has run, as far as that can be known from what was `saved`.
    #[must_use]
    pub fn is_ready(&self, saved: &Map<String, Value>) -> bool {
        match self.request(saved, &Value::Null) {
            Ok(_) => true,
            Err(Missing(what)) => what.starts_with("answer."),
        }
    }
}

fn with_saved(known: &Value, saved: &Map<String, Value>, answer: &Value) -> Value {
    let mut known = known.as_object().cloned().unwrap_or_default();
    known.insert("saved".to_owned(), Value::Object(saved.clone()));
    known.insert("answer".to_owned(), answer.clone());
    Value::Object(known)
}
