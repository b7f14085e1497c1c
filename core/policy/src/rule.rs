//! Rules: one Cedar policy each, with what has to be known about it before it is asked.

use std::collections::BTreeSet;

use cedar_policy::{ActionConstraint, EntityUid, Policy, PrincipalConstraint, ResourceConstraint};
use serde_json::Value;

use crate::circumstances::{Circumstances, Mentions};

/// Annotations longer than this are cut.
const WORDS_CHARACTERS: usize = 1_000;

/// One policy.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) id: String,
    pub(crate) policy: Policy,
    reason: Option<String>,
    remedy: Option<String>,
    /// Attributes of the context that it looks at or quotes.
    pub(crate) mentions: Mentions,
    /// Numbers it contains, if it looks at the delay.
    pub(crate) delays_s: BTreeSet<u64>,
    /// Whether it tells one table from another.
    pub(crate) names_tables: bool,
    /// Whether it looks at the entities' places and attributes.
    pub(crate) needs_entities: bool,
    /// Whether it tells a system from the tables in it, which is a trap.
    pub(crate) mistakes_system: bool,
}

impl Rule {
    /// Reads a policy, or says why that isn't possible.
    pub(crate) fn new(id: String, policy: Policy) -> Result<Self, String> {
        let tree = policy.to_json().map_err(|error| error.to_string())?;
        let words = |key: &str| policy.annotation(key).map(|text| text.chars().take(WORDS_CHARACTERS).collect::<String>());
        let mut rule = Self {
            id,
            reason: words("reason"),
            remedy: words("remedy"),
            mentions: Mentions::default(),
            delays_s: BTreeSet::new(),
            names_tables: false,
            needs_entities: false,
            mistakes_system: false,
            policy,
        };
        rule.look_at_scope();
        for clause in tree.get("conditions").and_then(Value::as_array).into_iter().flatten() {
            rule.look_at(clause.get("body").unwrap_or(&Value::Null));
        }
        for text in [&rule.reason, &rule.remedy].into_iter().flatten() {
            for name in placeholders(text) {
                rule.mentions.add(name.split('.').next().unwrap_or(name));
            }
        }
        if rule.mentions.has("delay_s") {
            for clause in tree.get("conditions").and_then(Value::as_array).into_iter().flatten() {
                collect_numbers(clause, &mut rule.delays_s);
            }
        }
        Ok(rule)
    }

    /// Why it forbids, in words.
    pub(crate) fn reason(&self, circumstances: &Circumstances) -> String {
        match &self.reason {
            Some(text) => fill(text, circumstances),
            None => format!("the rule `{}` forbids it", self.id),
        }
    }

    /// What may be done instead.
    pub(crate) fn remedy(&self, circumstances: &Circumstances) -> String {
        match &self.remedy {
            Some(text) => fill(text, circumstances),
            None => "ask an operator".to_owned(),
        }
    }

    /// Actions it applies to, by id; `None` is any.
    pub(crate) fn actions(&self) -> Option<Vec<EntityUid>> {
        match self.policy.action_constraint() {
            ActionConstraint::Any => None,
            ActionConstraint::In(actions) => Some(actions),
            ActionConstraint::Eq(action) => Some(vec![action]),
        }
    }

    /// The one principal it applies to, if it names one.
    pub(crate) fn principal(&self) -> Option<EntityUid> {
        match self.policy.principal_constraint() {
            PrincipalConstraint::Eq(principal) => Some(principal),
            PrincipalConstraint::Any | PrincipalConstraint::In(_) | PrincipalConstraint::Is(_) | PrincipalConstraint::IsIn(_, _) => None,
        }
    }

    /// The one resource, or whatever is in it, that it applies to, if it names one.
    pub(crate) fn resource(&self) -> Option<EntityUid> {
        match self.policy.resource_constraint() {
            ResourceConstraint::Eq(resource) | ResourceConstraint::In(resource) | ResourceConstraint::IsIn(_, resource) => Some(resource),
            ResourceConstraint::Any | ResourceConstraint::Is(_) => None,
        }
    }

    fn look_at_scope(&mut self) {
        match self.policy.principal_constraint() {
            PrincipalConstraint::Any | PrincipalConstraint::Eq(_) | PrincipalConstraint::Is(_) => {}
            PrincipalConstraint::In(_) | PrincipalConstraint::IsIn(_, _) => self.needs_entities = true,
        }
        let whole = |resource: &EntityUid| is_whole(&resource.type_name().to_string());
        match self.policy.resource_constraint() {
            ResourceConstraint::Any => {}
            ResourceConstraint::In(resource) => {
                self.needs_entities = true;
                self.names_tables |= !whole(&resource);
            }
            ResourceConstraint::Eq(resource) => {
                self.mistakes_system |= whole(&resource);
                self.names_tables = true;
            }
            ResourceConstraint::Is(kind) => {
                self.mistakes_system |= is_whole(&kind.to_string());
                self.names_tables = true;
            }
            ResourceConstraint::IsIn(kind, _) => {
                self.mistakes_system |= is_whole(&kind.to_string());
                self.names_tables = true;
                self.needs_entities = true;
            }
        }
    }

    /// Walks an expression in Cedar's JSON form. What it does not recognise counts as looking at everything.
    fn look_at(&mut self, tree: &Value) {
        let Value::Object(node) = tree else {
            if let Value::Array(items) = tree {
                items.iter().for_each(|item| self.look_at(item));
            }
            return;
        };
        for (operator, operand) in node {
            let left = operand.get("left").and_then(variable);
            let right = operand.get("right").and_then(variable);
            match operator.as_str() {
                "Value" => {}
                // Its keys are the user's own words, not operators.
                "Record" => operand.as_object().into_iter().flat_map(|record| record.values()).for_each(|value| self.look_at(value)),
                "Var" => match operand.as_str() {
                    Some("context") => self.mentions.merge(Mentions::ALL),
                    Some("resource") => {
                        self.names_tables = true;
                        self.needs_entities = true;
                    }
                    Some("principal") => self.needs_entities = true,
                    Some(_) | None => {}
                },
                "." | "has" if left == Some("context") => match operand.get("attr").and_then(Value::as_str) {
                    Some(name) => self.mentions.add(name),
                    None => self.mentions.merge(Mentions::ALL),
                },
                "in" if left == Some("resource") && operand.get("right").is_some_and(is_whole_literal) => self.needs_entities = true,
                "==" | "!=" if left == Some("resource") || right == Some("resource") => {
                    let literal = |side: &str| operand.get(side).is_some_and(is_whole_literal);
                    self.mistakes_system |= literal("left") || literal("right");
                    self.names_tables = true;
                    self.look_at(operand.get("left").unwrap_or(&Value::Null));
                    self.look_at(operand.get("right").unwrap_or(&Value::Null));
                }
                "is" if left == Some("resource") => {
                    self.mistakes_system |= operand.get("entity_type").and_then(Value::as_str).is_none_or(is_whole);
                    self.names_tables = true;
                    self.needs_entities = true;
                    self.look_at(operand.get("in").unwrap_or(&Value::Null));
                }
                _ => self.look_at(operand),
            }
        }
    }
}

fn variable(tree: &Value) -> Option<&str> {
    tree.get("Var").and_then(Value::as_str)
}

/// Whether entities of this type stand for more than one table.
fn is_whole(kind: &str) -> bool {
    kind == "System" || kind == "Environment"
}

/// Whether `tree` is a system, an environment, or a list of these.
fn is_whole_literal(tree: &Value) -> bool {
    if let Some(items) = tree.get("Set").and_then(Value::as_array) {
        return !items.is_empty() && items.iter().all(is_whole_literal);
    }
    tree.get("Value")
        .and_then(|value| value.get("__entity"))
        .and_then(|entity| entity.get("type"))
        .and_then(Value::as_str)
        .is_some_and(is_whole)
}

fn collect_numbers(tree: &Value, numbers: &mut BTreeSet<u64>) {
    match tree {
        Value::Number(number) => numbers.extend(number.as_u64().filter(|number| *number > 0)),
        Value::Array(items) => items.iter().for_each(|item| collect_numbers(item, numbers)),
        Value::Object(node) => node.values().for_each(|value| collect_numbers(value, numbers)),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// The names in `{…}`.
fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name)
}

/// `text` with each `{name}` replaced by its value; what isn't known stays as it is written.
fn fill(text: &str, circumstances: &Circumstances) -> String {
    let mut pieces = text.split('{');
    let mut filled = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let value = piece.split_once('}').and_then(|(name, rest)| Some((circumstances.in_words(name)?, rest)));
        match value {
            Some((value, rest)) => {
                filled.push_str(&value);
                filled.push_str(rest);
            }
            None => {
                filled.push('{');
                filled.push_str(piece);
            }
        }
    }
    filled
}
