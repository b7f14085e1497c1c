//! The way back of a call: what is kept before it, and the call that undoes it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    draft::{Draft, Missing},
    format::Test,
    look::{Look, State},
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
    /// Where the answer says that it is about to go.
    pub going: Option<String>,
    /// The answer is the user's own file.
    pub raw: bool,
    /// What there must not be about it for it to come back as it was.
    pub(crate) unless: Vec<Unless>,
    /// Where what it makes has a name that must be another one each time: how the request is made anew.
    pub(crate) anew: Option<(Draft, Value)>,
}

/// What stands for a text that is another one each time: `{once}`.
pub(crate) const ONCE: &str = "once";

/// Something about what is kept that does not come back with it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Unless {
    pub(crate) test: Test,
    pub(crate) because: String,
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
    /// The step as a look, where its request can be made. `once` is a number that no other look had.
    pub fn look(&self, once: u64) -> Result<Look, Missing> {
        let request = match &self.anew {
            Some((draft, known)) => with_once(draft, known, once)?,
            None => self.request.clone()?,
        };
        Ok(Look { save: self.save.clone(), request, take: self.take.clone(), going: self.going.clone(), raw: self.raw })
    }

    /// Why what was kept would not come back as it was.
    #[must_use]
    pub fn lost(&self, kept: &Value) -> Option<&str> {
        self.unless.iter().find(|unless| unless.test.holds(kept)).map(|unless| unless.because.as_str())
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
    /// What is another one afterwards, in words: an id that nobody chose.
    #[serde(default)]
    pub anew: String,
    pub(crate) draft: Draft,
    /// The call instead where there was nothing before.
    #[serde(default)]
    pub(crate) absent: Option<Draft>,
    /// How to look at what the operation made, where nothing was there before to be kept.
    #[serde(default)]
    pub(crate) check: Option<Check>,
    pub(crate) known: Value,
}

/// A look at what an operation made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Check {
    pub(crate) draft: Draft,
    pub(crate) take: Option<String>,
    pub(crate) going: Option<String>,
}

/// The name of what a check looks at.
const MADE: &str = "made";

impl Undo {
    /// The request that undoes it, given what was `saved` by name and the operation's own `answer`.
    pub fn request(&self, saved: &Map<String, Value>, answer: &Value) -> Result<Request, Missing> {
        self.draft.fill(&with_saved(&self.known, saved, answer))
    }

    /// The request that makes of `before` what is there again, after the operation gave `answer`.
    pub fn back(&self, before: &State, answer: &Value) -> Result<Request, Missing> {
        match (before, &self.absent) {
            (State::Present(saved), _) => self.request(saved, answer),
            (State::Absent, Some(absent)) => absent.fill(&with_saved(&self.known, &Map::new(), answer)),
            (State::Absent, None) => self.request(&Map::new(), answer),
        }
    }

    /// Whether it knows what to do where there was nothing before.
    #[must_use]
    pub fn takes_nothing_back(&self) -> bool {
        self.absent.is_some() || self.check.is_some()
    }

    /// Whether what the operation makes is looked at, rather than what was there before.
    #[must_use]
    pub fn checks(&self) -> bool {
        self.check.is_some()
    }

    /// The look at what the operation made, by its `answer`.
    #[must_use]
    pub fn check(&self, answer: &Value) -> Option<Result<Look, Missing>> {
        let check = self.check.as_ref()?;
        let request = check.draft.fill(&with_saved(&self.known, &Map::new(), answer));
        Some(request.map(|request| Look {
            save: MADE.to_owned(),
            request,
            take: check.take.clone(),
            going: check.going.clone(),
            raw: false,
        }))
    }

    /// What of a state counts: whatever the way back to it would write. Two states are the same if these are equal.
    #[must_use]
    pub fn mark(&self, state: &State) -> Value {
        let State::Present(saved) = state else { return Value::Null };
        match (&self.check, saved.get(MADE)) {
            (Some(check), Some(made)) => check.draft.shaped(made.clone()),
            _ => self.draft.shape(&with_saved(&self.known, saved, &Value::Null)).unwrap_or_else(|_| Value::Object(saved.clone())),
        }
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

/// The request with a text in it that is another one each time.
pub(crate) fn with_once(draft: &Draft, known: &Value, once: u64) -> Result<Request, Missing> {
    let mut known = known.as_object().cloned().unwrap_or_default();
    known.insert(ONCE.to_owned(), once.into());
    draft.fill(&Value::Object(known))
}

/// What is known, with what was saved and answered.
fn with_saved(known: &Value, saved: &Map<String, Value>, answer: &Value) -> Value {
    let mut known = known.as_object().cloned().unwrap_or_default();
    known.insert("saved".to_owned(), Value::Object(saved.clone()));
    known.insert("answer".to_owned(), answer.clone());
    Value::Object(known)
}
