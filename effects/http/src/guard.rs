//! Guards: questions about an operation's arguments that its name doesn't answer.

use serde_json::Value;

use crate::{
    format::{Guard, Naming, Test},
    place,
};

impl Test {
    /// Whether exactly one answer is given and its place is one.
    pub(crate) fn is_sound(&self) -> bool {
        let answers = [
            self.is.is_some(),
            self.is_not.is_some(),
            self.one_of.is_some(),
            self.present.is_some(),
            self.empty.is_some(),
            self.below.is_some(),
            self.has.is_some(),
        ];
        place::is_place(&self.at) && answers.into_iter().filter(|given| *given).count() == 1
    }

    /// Whether `arguments` answer the question so.
    pub(crate) fn holds(&self, arguments: &Value) -> bool {
        let found = place::find(arguments, &self.at);
        if let Some(present) = self.present {
            return present == found.iter().any(|found| !found.value.is_null());
        }
        found.iter().any(|found| self.holds_for(&found.value))
    }

    /// Whether nothing else can be read from `arguments`: one value, under exactly this name, spelled exactly so. For answers that
    /// make less of an operation.
    pub(crate) fn holds_strictly(&self, arguments: &Value) -> bool {
        let found = place::find(arguments, &self.at);
        let [one] = found.as_slice() else { return false };
        let wanted = self.is.as_ref().map(place::plain);
        one.trail.join(".") == self.at && wanted.is_some_and(|wanted| place::plain(&one.value) == wanted)
    }

    fn holds_for(&self, value: &Value) -> bool {
        if let Some(wanted) = &self.is {
            return alike(value, wanted);
        }
        if let Some(unwanted) = &self.is_not {
            return !value.is_null() && !alike(value, unwanted);
        }
        if let Some(wanted) = &self.one_of {
            return wanted.iter().any(|wanted| alike(value, wanted));
        }
        if self.empty.is_some() {
            return match value {
                Value::Array(items) => items.is_empty(),
                Value::Object(members) => members.is_empty(),
                Value::String(text) => text.is_empty(),
                Value::Null | Value::Bool(_) | Value::Number(_) => false,
            };
        }
        if let Some(limit) = self.below {
            return number(value).is_some_and(|number| number < limit);
        }
        self.has.as_ref().is_some_and(|part| place::plain(value).to_lowercase().contains(&part.to_lowercase()))
    }
}

impl Guard {
    /// Whether it is about the operation `id` at all.
    pub(crate) fn concerns(&self, id: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|pattern| glob(pattern, id))
    }
}

impl Naming {
    /// The ids it finds, each once.
    pub(crate) fn ids(&self, arguments: &Value) -> Vec<String> {
        let mut ids = Vec::new();
        for found in place::find(arguments, &self.at) {
            let id = match self.up {
                0 => match &found.value {
                    Value::String(_) | Value::Number(_) => Some(place::plain(&found.value)),
                    Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
                },
                steps => found.trail.len().checked_sub(steps + 1).and_then(|place| found.trail.get(place).cloned()),
            };
            ids.extend(id.filter(|id| !id.is_empty() && !ids.contains(id)));
        }
        ids
    }
}

/// Compared as text without regard to case: services take `"true"` for `true` and `"0"` for `0`.
fn alike(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::Array(_) | Value::Object(_), _) => value == wanted,
        (Value::Null, _) => wanted.is_null(),
        (Value::Bool(truth), Value::Bool(wanted)) => truth == wanted,
        (_, Value::Bool(wanted)) => {
            let text = place::plain(value).to_lowercase();
            let truths = if *wanted { ["true", "1", "yes", "on"] } else { ["false", "0", "no", "off"] };
            truths.contains(&text.trim())
        }
        (_, Value::Number(_)) => number(value).is_some_and(|left| number(wanted).is_some_and(|right| left.total_cmp(&right).is_eq())),
        _ => place::plain(value).eq_ignore_ascii_case(&place::plain(wanted)),
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Whether `text` matches a pattern with `*` in it.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let head = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(head) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((tail, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn questions() {
        let arguments = json!({"flag": "FALSE", "n": "0", "list": [], "text": "rate(365 days)", "nothing": null, "days": 3});
        for (test, expected) in [
            (Test { at: "flag".into(), is: Some(json!(false)), ..Test::default() }, true),
            (Test { at: "flag".into(), is: Some(json!(true)), ..Test::default() }, false),
            (Test { at: "n".into(), is: Some(json!(0)), ..Test::default() }, true),
            (Test { at: "n".into(), is: Some(json!(false)), ..Test::default() }, true),
            (Test { at: "list".into(), empty: Some(true), ..Test::default() }, true),
            (Test { at: "nothing".into(), present: Some(true), ..Test::default() }, false),
            (Test { at: "missing".into(), present: Some(false), ..Test::default() }, true),
            (Test { at: "days".into(), below: Some(7.0), ..Test::default() }, true),
            (Test { at: "text".into(), has: Some("RATE".into()), ..Test::default() }, true),
            (Test { at: "text".into(), is_not: Some(json!("x")), ..Test::default() }, true),
            (Test { at: "text".into(), one_of: Some(vec![json!("x"), json!("y")]), ..Test::default() }, false),
        ] {
            assert!(test.is_sound());
            assert_eq!(test.holds(&arguments), expected, "{test:?}");
        }
        assert!(!Test { at: "a".into(), ..Test::default() }.is_sound());
    }

    #[test]
    fn patterns() {
        for (pattern, text, expected) in
            [("Modify*", "ModifyVolume", true), ("*", "", true), ("a*b*c", "aXbYc", true), ("a*a", "a", false), ("a", "ab", false)]
        {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }
}
