//! One GraphQL document: the operation that runs, its root fields through all fragments, its arguments without variables.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use apollo_parser::{
    Parser,
    cst::{self, CstNode as _, Definition, Selection, SelectionSet},
};
use serde_json::{Map, Value};

use super::{Field, OperationKind};

const MOST_TOKENS: usize = 60_000;
const DEEPEST: usize = 60;
/// Root fields, after aliases: each is a call.
const MOST_FIELDS: usize = 200;
/// What variables may blow the arguments of one document up to.
const LARGEST_ARGUMENTS: usize = 4 << 20;

pub(super) fn read(text: &str, operation_name: Option<&str>, variables: &Map<String, Value>) -> Result<Vec<Field>, String> {
    let tree = Parser::new(text).recursion_limit(DEEPEST).token_limit(MOST_TOKENS).parse();
    if let Some(error) = tree.errors().next() {
        return Err(format!("its document is no GraphQL: {}", error.message()));
    }
    let mut operations = Vec::new();
    let mut fragments: HashMap<String, SelectionSet> = HashMap::new();
    for definition in tree.document().definitions() {
        match definition {
            Definition::OperationDefinition(operation) => operations.push(operation),
            Definition::FragmentDefinition(fragment) => {
                let name = fragment.fragment_name().and_then(|name| name.name()).map(|name| name.text().to_string());
                let (Some(name), Some(set)) = (name, fragment.selection_set()) else {
                    return Err("its document has an incomplete fragment".to_owned());
                };
                if fragments.insert(name, set).is_some() {
                    return Err("its document has two fragments of one name".to_owned());
                }
            }
            _ => return Err("its document defines types".to_owned()),
        }
    }
    let operation = select(operations, operation_name)?;
    let kind = match operation.operation_type() {
        None => OperationKind::Query,
        Some(kind) if kind.query_token().is_some() => OperationKind::Query,
        Some(kind) if kind.mutation_token().is_some() => OperationKind::Mutation,
        Some(_) => OperationKind::Subscription,
    };
    let variables = with_defaults(&operation, variables)?;
    let set = operation.selection_set().ok_or("its operation selects nothing")?;
    let mut reading = Reading { fragments: &fragments, variables: &variables, below: HashMap::new(), size: 0 };
    let mut fields = Vec::new();
    reading.roots(set, kind, &mut fields)?;
    if fields.is_empty() { Err("its operation selects nothing".to_owned()) } else { Ok(fields) }
}

fn select(operations: Vec<cst::OperationDefinition>, name: Option<&str>) -> Result<cst::OperationDefinition, String> {
    let name_of = |operation: &cst::OperationDefinition| operation.name().map(|name| name.text().to_string());
    let names: Vec<Option<String>> = operations.iter().map(name_of).collect();
    if names.len() > 1 && (names.iter().any(Option::is_none) || names.iter().collect::<BTreeSet<_>>().len() < names.len()) {
        return Err("its document has several operations without names of their own".to_owned());
    }
    match name {
        Some(name) => operations
            .into_iter()
            .find(|operation| name_of(operation).as_deref() == Some(name))
            .ok_or_else(|| "`operationName` names no operation of its document".to_owned()),
        None if operations.len() > 1 => Err("its document has several operations and `operationName` chooses none".to_owned()),
        None => operations.into_iter().next().ok_or_else(|| "its document has no operation".to_owned()),
    }
}

/// The variables that are declared, with their defaults where they weren't given.
fn with_defaults(operation: &cst::OperationDefinition, given: &Map<String, Value>) -> Result<BTreeMap<String, Value>, String> {
    let mut variables: BTreeMap<String, Value> = given.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let definitions = operation.variable_definitions();
    let mut seen = BTreeSet::new();
    for definition in definitions.iter().flat_map(cst::VariableDefinitions::variable_definitions) {
        let name = definition.variable().and_then(|variable| variable.name()).map(|name| name.text().to_string());
        let name = name.ok_or("its document has a variable without a name")?;
        if !seen.insert(name.clone()) {
            return Err("its document declares a variable twice".to_owned());
        }
        if let Some(default) = definition.default_value().and_then(|default| default.value())
            && let std::collections::btree_map::Entry::Vacant(e) = variables.entry(name)
        {
            let value = literal(&default, &BTreeMap::new(), &mut 0)?.unwrap_or(Value::Null);
            e.insert(value);
        }
    }
    Ok(variables)
}

struct Reading<'a> {
    fragments: &'a HashMap<String, SelectionSet>,
    variables: &'a BTreeMap<String, Value>,
    /// Names selected in a fragment and below, each fragment once.
    below: HashMap<String, BTreeSet<String>>,
    /// Bytes of arguments so far.
    size: usize,
}

impl Reading<'_> {
    /// Root fields, fragments included. `@skip` and `@include` are not looked at: what may run counts.
    fn roots(&mut self, set: SelectionSet, kind: OperationKind, fields: &mut Vec<Field>) -> Result<(), String> {
        let (mut sets, mut spread) = (vec![set], BTreeSet::new());
        while let Some(set) = sets.pop() {
            for selection in set.selections() {
                match selection {
                    Selection::Field(field) => {
                        if fields.len() >= MOST_FIELDS {
                            return Err(format!("its document calls more than {MOST_FIELDS} fields"));
                        }
                        let name = field.name().map(|name| name.text().to_string()).ok_or("a field has no name")?;
                        let arguments = self.arguments(&field)?;
                        let mut selected = BTreeSet::new();
                        if let Some(set) = field.selection_set() {
                            self.names(&set, &mut selected)?;
                        }
                        fields.push(Field { name, kind, arguments, selected: selected.into_iter().collect() });
                    }
                    Selection::FragmentSpread(fragment) => {
                        let name = fragment_name(&fragment)?;
                        // A fragment says the same each time, so once is enough, also when it spreads itself.
                        if spread.insert(name.clone()) {
                            sets.push(self.fragment(&name)?);
                        }
                    }
                    Selection::InlineFragment(fragment) => sets.extend(fragment.selection_set()),
                }
            }
        }
        Ok(())
    }

    fn fragment(&self, name: &str) -> Result<SelectionSet, String> {
        self.fragments.get(name).cloned().ok_or_else(|| "its document spreads a fragment that it doesn't have".to_owned())
    }

    /// Every field's name in `set` and below.
    fn names(&mut self, set: &SelectionSet, into: &mut BTreeSet<String>) -> Result<(), String> {
        let mut spreads = Vec::new();
        own_names(set, into, &mut spreads);
        let mut seen: BTreeSet<String> = BTreeSet::new();
        while let Some(name) = spreads.pop().transpose()? {
            if !seen.insert(name.clone()) {
                continue;
            }
            if !self.below.contains_key(&name) {
                let (mut own, mut further) = (BTreeSet::new(), Vec::new());
                own_names(&self.fragment(&name)?, &mut own, &mut further);
                own.extend(further.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().map(|name| format!("...{name}")));
                self.below.insert(name.clone(), own);
            }
            for found in &self.below[&name] {
                match found.strip_prefix("...") {
                    Some(further) => spreads.push(Ok(further.to_owned())),
                    None => {
                        into.insert(found.clone());
                    }
                }
            }
        }
        Ok(())
    }

    fn arguments(&mut self, field: &cst::Field) -> Result<Value, String> {
        let mut object = Map::new();
        for argument in field.arguments().iter().flat_map(cst::Arguments::arguments) {
            let name = argument.name().map(|name| name.text().to_string()).ok_or("an argument has no name")?;
            let value = argument.value().ok_or("an argument has no value")?;
            if let Some(value) = literal(&value, self.variables, &mut self.size)?
                && object.insert(name, value).is_some()
            {
                return Err("an argument occurs twice".to_owned());
            }
        }
        Ok(Value::Object(object))
    }
}

fn fragment_name(spread: &cst::FragmentSpread) -> Result<String, String> {
    spread
        .fragment_name()
        .and_then(|name| name.name())
        .map(|name| name.text().to_string())
        .ok_or_else(|| "a fragment has no name".to_owned())
}

/// Names in a selection set and the sets within it; fragments spread there go to `spreads`.
fn own_names(set: &SelectionSet, into: &mut BTreeSet<String>, spreads: &mut Vec<Result<String, String>>) {
    for node in set.syntax().descendants() {
        if let Some(field) = cst::Field::cast(node.clone()) {
            into.extend(field.name().map(|name| name.text().to_string()));
        } else if let Some(spread) = cst::FragmentSpread::cast(node) {
            spreads.push(fragment_name(&spread));
        }
    }
}

/// A literal as JSON, its variables put in; `None` for a variable that has no value.
fn literal(value: &cst::Value, variables: &BTreeMap<String, Value>, size: &mut usize) -> Result<Option<Value>, String> {
    Ok(Some(match value {
        cst::Value::Variable(variable) => {
            let name = variable.name().map(|name| name.text().to_string()).ok_or("a variable has no name")?;
            let Some(value) = variables.get(&name) else { return Ok(None) };
            *size = size.saturating_add(weight(value));
            if *size > LARGEST_ARGUMENTS {
                return Err("its variables are used too often".to_owned());
            }
            value.clone()
        }
        cst::Value::StringValue(text) => Value::String(String::from(text)),
        cst::Value::IntValue(number) => number_of(&number.syntax().text().to_string())?,
        cst::Value::FloatValue(number) => number_of(&number.syntax().text().to_string())?,
        cst::Value::BooleanValue(truth) => Value::Bool(truth.true_token().is_some()),
        cst::Value::NullValue(_) => Value::Null,
        cst::Value::EnumValue(name) => Value::String(name.text().to_string()),
        cst::Value::ListValue(list) => {
            let items = list.values().map(|item| literal(&item, variables, size).map(|item| item.unwrap_or(Value::Null)));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        cst::Value::ObjectValue(object) => {
            let mut members = Map::new();
            for member in object.object_fields() {
                let name = member.name().map(|name| name.text().to_string()).ok_or("a member has no name")?;
                let value = member.value().ok_or("a member has no value")?;
                if let Some(value) = literal(&value, variables, size)?
                    && members.insert(name, value).is_some()
                {
                    return Err("a member of an argument occurs twice".to_owned());
                }
            }
            Value::Object(members)
        }
    }))
}

fn number_of(text: &str) -> Result<Value, String> {
    serde_json::from_str(text.trim()).map_err(|_| "a number of its document is none".to_owned())
}

/// About how many bytes a value takes.
fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 8,
        Value::Array(items) => items.iter().fold(8, |sum, item| sum + weight(item)),
        Value::Object(object) => object.iter().fold(8, |sum, (name, member)| sum + name.len() + weight(member)),
    }
}
