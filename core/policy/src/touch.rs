//! Touches: what an operation is known to do to what, by its text and by its reach.

use std::{borrow::Cow, collections::BTreeSet};

use reprieve_operation::{Kind, Operation};

use crate::resource;

/// An operation that touches more than this can't be decided one by one.
const MOST: usize = 4_096;

/// Names shown in a reason are cut to this many characters: they are the agent's own text.
const SHOWN_CHARACTERS: usize = 100;

/// One kind of effect on one resource; `None` is the system as a whole.
pub(crate) type Touch<'a> = (Kind, Option<Cow<'a, str>>);

/// All touches of one operation, each once. Never empty.
#[derive(Debug, Clone)]
pub(crate) struct Touches<'a>(BTreeSet<Touch<'a>>);

/// More touches than can be looked at.
#[derive(Debug)]
pub(crate) struct TooMany;

/// What `operation` is known to do to which resources, each once; `None` where it touches more than can be decided on.
#[must_use]
pub fn touched(operation: &Operation) -> Option<BTreeSet<(Kind, Option<String>)>> {
    let touches = Touches::of(operation).ok()?;
    Some(touches.0.into_iter().map(|(kind, resource)| (kind, resource.map(Cow::into_owned))).collect())
}

impl<'a> Touches<'a> {
    pub(crate) fn of(operation: &'a Operation) -> Result<Self, TooMany> {
        let mut touches: BTreeSet<Touch<'a>> = BTreeSet::new();
        if let Some(reach) = &operation.reach {
            for (name, rows) in &reach.tables {
                if rows.deleted > 0 {
                    touches.insert((Kind::Destroy, Some(Cow::Borrowed(name))));
                }
                if rows.inserted > 0 || rows.updated > 0 {
                    touches.insert((Kind::Write, Some(Cow::Borrowed(name))));
                }
            }
            for name in reach.dropped.iter().chain(&reach.rewritten) {
                touches.insert((Kind::Destroy, Some(Cow::Borrowed(name))));
            }
        }
        for effect in operation.effects.iter() {
            touches.insert((effect.kind(), resource::of_effect(effect)));
            if touches.len() > MOST {
                return Err(TooMany);
            }
        }
        for kind in operation.kinds() {
            if !touches.iter().any(|(other, _)| *other == kind) {
                touches.insert((kind, None));
            }
        }
        // What touches nothing still needs a yes, as the mildest kind.
        if touches.is_empty() {
            touches.insert((Kind::Read, None));
        }
        if touches.len() > MOST { Err(TooMany) } else { Ok(Self(touches)) }
    }

    /// These touches and any change of any row.
    pub(crate) fn with_any_change(&self) -> Self {
        let mut touches = self.0.clone();
        touches.extend([(Kind::Write, Some(Cow::Borrowed("*"))), (Kind::Destroy, Some(Cow::Borrowed("*")))]);
        Self(touches)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Touch<'a>> {
        self.0.iter()
    }

    /// The kinds, each once.
    pub(crate) fn kinds(&self) -> BTreeSet<Kind> {
        self.0.iter().map(|(kind, _)| *kind).collect()
    }

    /// The first touch that the token does not cover, in words.
    pub(crate) fn out_of_scope(&self, operation: &Operation) -> Option<String> {
        let covers = |kind, resource| operation.principal.scope.covers(kind, &operation.environment, &operation.system, resource);
        let (kind, resource) = self.0.iter().find(|(kind, resource)| !covers(*kind, resource.as_deref()))?;
        let system = &operation.system;
        Some(match resource {
            Some(resource) => format!("`{kind}` on `{}` in `{system}`", shown(resource)),
            None => format!("`{kind}` in `{system}`"),
        })
    }
}

/// A name fit for a terminal and a log: no control characters, not too long.
fn shown(name: &str) -> String {
    name.chars().flat_map(char::escape_debug).take(SHOWN_CHARACTERS).collect()
}
