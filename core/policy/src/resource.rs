//! Resources: how what an effect touches is spelled, for scopes and for policies.

use std::borrow::Cow;

use reprieve_operation::{Effect, ObjectName, Protocol};

/// Objects that live in no schema (PostgreSQL 15, chapter 5.9): their name stands alone.
const WITHOUT_SCHEMA: [&str; 22] = [
    "access method",
    "cast",
    "database",
    "event trigger",
    "extension",
    "fdw",
    "foreign data wrapper",
    "foreign server",
    "group",
    "language",
    "large object",
    "large_object",
    "policy",
    "procedural language",
    "publication",
    "role",
    "rule",
    "server",
    "subscription",
    "tablespace",
    "trigger",
    "user",
];

/// The resource that `effect` touches, `None` where it names none: then it is the system as a whole.
pub(crate) fn of_effect(effect: &Effect) -> Option<Cow<'_, str>> {
    if let Effect::Invoke { resource, .. } = effect {
        return resource.as_deref().filter(|resource| !resource.is_empty()).map(Cow::Borrowed);
    }
    let name = effect.relation().filter(|name| !name.name.is_empty())?;
    match effect {
        Effect::Define { object, .. } | Effect::Drop { object, .. } => {
            let object = object.0.trim();
            if object.eq_ignore_ascii_case("schema") {
                // Whoever drops a schema drops what is in it: only a pattern for all of that covers it.
                Some(Cow::Owned(format!("{}.*", name.name)))
            } else if name.schema.is_none() && WITHOUT_SCHEMA.iter().any(|word| object.eq_ignore_ascii_case(word)) {
                Some(Cow::Borrowed(&name.name))
            } else {
                Some(of_name(name))
            }
        }
        Effect::Read { .. }
        | Effect::Insert { .. }
        | Effect::Update { .. }
        | Effect::Delete { .. }
        | Effect::Rewrite { .. }
        | Effect::Grant { .. }
        | Effect::Call { .. }
        | Effect::Session { .. }
        | Effect::Escape { .. }
        | Effect::Invoke { .. }
        | Effect::Unknown { .. } => Some(of_name(name)),
    }
}

/// A name without its schema counts as one in `public`.
fn of_name(name: &ObjectName) -> Cow<'_, str> {
    Cow::Owned(format!("{}.{}", name.schema.as_deref().unwrap_or("public"), name.name))
}

/// The schema and the name in `schema.name`, or the type and the id in a service's `type/id`, as a reach or [`of_effect`] spells it.
pub(crate) fn parts(resource: &str, protocol: Protocol) -> (&str, &str) {
    // A service's ids may have dots, a database's schemas slashes.
    let between = if protocol == Protocol::Http { '/' } else { '.' };
    resource.split_once(between).unwrap_or(("", resource))
}

#[cfg(test)]
mod tests {
    use reprieve_operation::ObjectKind;

    use super::*;

    #[test]
    fn a_name_has_two_parts() {
        for (resource, protocol, expected) in [
            ("public.orders", Protocol::Postgres, ("public", "orders")),
            ("a/b.c.d", Protocol::Postgres, ("a/b", "c.d")),
            ("orders", Protocol::Postgres, ("", "orders")),
            ("dns_record/www.pocket.example", Protocol::Http, ("dns_record", "www.pocket.example")),
            ("configmaps/shop/settings", Protocol::Http, ("configmaps", "shop/settings")),
            ("*", Protocol::Http, ("", "*")),
        ] {
            assert_eq!(parts(resource, protocol), expected, "{resource}");
        }
    }

    #[test]
    fn objects_are_spelled_where_they_live() {
        let drops = |object: &str, name: ObjectName| Effect::Drop { object: ObjectKind(object.into()), name, cascade: false };
        for (effect, expected) in [
            (Effect::Read { relation: ObjectName::bare("a") }, Some("public.a")),
            (Effect::Delete { table: ObjectName::qualified("s", "a"), bounded: true }, Some("s.a")),
            (drops("table", ObjectName::bare("a")), Some("public.a")),
            (drops("schema", ObjectName::bare("s")), Some("s.*")),
            (drops("SCHEMA", ObjectName::bare("public")), Some("public.*")),
            (drops("extension", ObjectName::bare("pgcrypto")), Some("pgcrypto")),
            (drops("cast", ObjectName::bare("")), None),
            (Effect::Call { function: ObjectName::bare("f") }, None),
        ] {
            assert_eq!(of_effect(&effect).as_deref(), expected, "{effect}");
        }
    }
}
