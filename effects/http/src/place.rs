//! Places: where in a request's arguments or a service's answer something is.
//!
//! `input.services.*.isDeleted`: names with dots between them, `*` for every member, and once `**` for any depth. Names are
//! compared without regard to case, since some services read them so; a text that is JSON itself is looked into.

use serde_json::Value;

/// Longer strings than this are not tried as JSON.
const INNER_LIMIT: usize = 1 << 20;

/// What is found at a place, with the names that lead there.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    pub(crate) trail: Vec<String>,
    pub(crate) value: Value,
}

/// Everything at `place`, in order.
pub(crate) fn find(value: &Value, place: &str) -> Vec<Found> {
    let steps: Vec<&str> = place.split('.').filter(|step| !step.is_empty()).collect();
    let mut found = Vec::new();
    walk(value, &steps, &mut Vec::new(), &mut found, 0);
    found
}

/// The first thing at `place`.
pub(crate) fn first(value: &Value, place: &str) -> Option<Value> {
    find(value, place).into_iter().map(|found| found.value).find(|value| !value.is_null())
}

/// Whether `place` is one.
pub(crate) fn is_place(place: &str) -> bool {
    place.split('.').filter(|step| *step == "**").count() <= 1 && !place.contains("..")
}

fn walk(value: &Value, steps: &[&str], trail: &mut Vec<String>, found: &mut Vec<Found>, depth: usize) {
    // Deeper than any reader goes: JSON is limited to 128, and a text in a text adds to that.
    if depth > 300 {
        return;
    }
    let Some((step, rest)) = steps.split_first() else {
        found.push(Found { trail: trail.clone(), value: value.clone() });
        return;
    };
    if let Value::String(text) = value {
        if let Some(inner) = inner(text) {
            walk(&inner, steps, trail, found, depth + 1);
        }
        return;
    }
    if *step == "**" {
        walk(value, rest, trail, found, depth + 1);
        members(value, |name, member| {
            trail.push(name);
            walk(member, steps, trail, found, depth + 1);
            trail.pop();
        });
        return;
    }
    members(value, |name, member| {
        if *step == "*" || same(&name, step) {
            trail.push(name);
            walk(member, rest, trail, found, depth + 1);
            trail.pop();
        }
    });
}

fn members(value: &Value, mut visit: impl FnMut(String, &Value)) {
    match value {
        Value::Object(object) => object.iter().for_each(|(name, member)| visit(name.clone(), member)),
        Value::Array(array) => array.iter().enumerate().for_each(|(index, member)| visit(index.to_string(), member)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A text that is an object or array itself.
fn inner(text: &str) -> Option<Value> {
    let trimmed = text.trim_start();
    if text.len() > INNER_LIMIT || !(trimmed.starts_with('{') || trimmed.starts_with('[')) {
        return None;
    }
    serde_json::from_str(text).ok()
}

/// Whether two names are the same to a reader that folds case, Go's `encoding/json` with its two odd letters among them.
pub(crate) fn same(left: &str, right: &str) -> bool {
    let fold = |letter: char| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    left == right || left.chars().map(fold).eq(right.chars().map(fold))
}

/// A value as it stands in an address: texts bare, the rest in JSON.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn places() {
        let value = json!({"input": {"services": {"a": {"isDeleted": true}, "b": {"ISDELETED": false}}, "list": [1, 2]},
            "patch": "{\"volumes\":{\"v\":{\"isDeleted\":true}}}"});
        for (place, expected) in [
            ("input.services.*.isDeleted", json!([true, false])),
            ("**.isDeleted", json!([true, false, true])),
            ("patch.volumes.*.i\u{17f}Deleted", json!([true])),
            ("input.list.1", json!([2])),
            ("input.list.*", json!([1, 2])),
            ("nothing", json!([])),
        ] {
            let found: Vec<Value> = find(&value, place).into_iter().map(|found| found.value).collect();
            assert_eq!(Value::Array(found), expected, "{place}");
        }
        assert_eq!(find(&value, "**.isDeleted")[0].trail, ["input", "services", "a", "isDeleted"]);
    }
}
