//! What a GraphQL request executes, by every way of saying it.

use serde_json::json;

use super::*;
use crate::{
    canonical::{Paths, canonical},
    request::{Body, Request},
};

fn names(request: &Request) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = fields(&canonical(request, Paths::Strict)?)?.into_iter().map(|field| field.name).collect();
    names.sort_unstable();
    Ok(names)
}

fn post(body: &Value) -> Request {
    Request::json("POST", "api.test", "/graphql", Some(body))
}

fn query(text: &str) -> Request {
    post(&json!({ "query": text }))
}

fn arguments(request: &Request) -> Value {
    fields(&canonical(request, Paths::Strict).expect("canonical")).expect("fields").remove(0).arguments
}

#[test]
fn every_operation_is_collected_and_the_named_one_runs() {
    let two = "query a { me } mutation b { volumeDelete(volumeId: \"v\") }";
    let named = |name: Value| post(&json!({"query": two, "operationName": name}));
    assert_eq!(names(&named(json!("b"))).as_deref(), Ok(["volumeDelete".to_owned()].as_slice()));
    assert_eq!(names(&named(json!("a"))).as_deref(), Ok(["me".to_owned()].as_slice()));
    for name in [json!("c"), json!(null), json!(""), json!(1), json!(["b"])] {
        assert!(names(&named(name.clone())).is_err(), "{name}");
    }
    assert!(names(&query("{ a } { b }")).is_err());
    assert!(names(&query("query a { a } mutation a { b }")).is_err());
    assert!(names(&query("fragment f on Query { a }")).is_err());
    assert!(names(&query("type Query { a: Int }")).is_err());
}

#[test]
fn fragments_are_expanded_and_aliases_are_not_names() {
    for text in [
        "mutation { me: volumeDelete(volumeId: \"v\") }",
        "mutation { ... { volumeDelete(volumeId: \"v\") } }",
        "mutation { ... on Mutation { ... on Mutation { x: volumeDelete(volumeId: \"v\") } } }",
        "mutation { ...f } fragment f on Mutation { ...g } fragment g on Mutation { volumeDelete(volumeId: \"v\") ...f }",
        "mutation { ...f @skip(if: true) } fragment f on Mutation { volumeDelete(volumeId: \"v\") @include(if: false) }",
        "#comment\nmutation\u{feff} { , , volumeDelete,(volumeId: \"v\") }",
    ] {
        let found = names(&query(text));
        assert!(found.as_ref().is_ok_and(|found| found == &["volumeDelete"]) || found.is_err(), "{text}: {found:?}");
    }
    assert_eq!(names(&query("mutation { ...f } fragment f on Mutation { a ...f }")).map(|names| names.len()), Ok(1));
    assert!(names(&query("mutation { ...missing }")).is_err());
    assert!(names(&query("mutation { ...f } fragment f on M { a } fragment f on M { b }")).is_err());
}

#[test]
fn every_root_field_counts() {
    assert_eq!(names(&query("mutation { a b c: d }")).map(|names| names.join(" ")).as_deref(), Ok("a b d"));
    let many = format!("mutation {{ {} }}", (0..300).map(|n| format!("a{n}: x ")).collect::<String>());
    assert!(names(&query(&many)).is_err());
}

#[test]
fn every_element_of_a_batch_counts() {
    let batch = post(&json!([{"query": "{ a }"}, {"query": "mutation { b }"}]));
    assert_eq!(names(&batch).map(|names| names.join(" ")).as_deref(), Ok("a b"));
    for broken in [json!([]), json!([{"query": "{ a }"}, 1]), json!("{ a }"), json!(vec![json!({"query": "{a}"}); 51])] {
        assert!(names(&post(&broken)).is_err(), "{broken}");
    }
    let mut lines = query("{ a }");
    lines.body = Body::Bytes(b"{\"query\":\"{ a }\"}\n{\"query\":\"mutation { b }\"}".to_vec());
    assert!(names(&lines).is_err());
}

#[test]
fn every_transport_is_read_or_refused() {
    let get = |target: &str| Request::json("GET", "api.test", target, None);
    assert_eq!(names(&get("/graphql?query=mutation%20%7Bb%7D")).map(|names| names.join(" ")).as_deref(), Ok("b"));
    assert_eq!(names(&get("/graphql?query=%7Ba%28x%3A%24x%29%7D&variables=%7B%22x%22%3A1%7D")).map(|names| names.len()), Ok(1));
    assert_eq!(names(&get("/graphql")), Ok(Vec::new()));
    for target in ["/graphql?query=%7Ba%7D&query=%7Bb%7D", "/graphql?id=17", "/graphql?QUERY=%7Ba%7D", "/graphql?extensions=%7B%7D"] {
        assert!(names(&get(target)).is_err(), "{target}");
    }
    let mut both = query("{ a }");
    both.target = "/graphql?query=mutation%7Bb%7D".into();
    assert!(names(&both).is_err());
    let with = |media: &str, body: &[u8]| Request {
        headers: vec![("content-type".into(), media.into())],
        body: Body::Bytes(body.to_vec()),
        ..query("{ a }")
    };
    assert_eq!(names(&with("application/graphql", b"mutation { b }")).map(|names| names.join(" ")).as_deref(), Ok("b"));
    let upload = b"--x\r\nContent-Disposition: form-data; name=\"operations\"\r\n\r\n{\"query\":\"mutation { b }\"}\r\n--x\r\nContent-Disposition: form-data; name=\"map\"\r\n\r\n{}\r\n--x--\r\n";
    assert_eq!(names(&with("multipart/form-data; boundary=x", upload)).map(|names| names.join(" ")).as_deref(), Ok("b"));
    for (media, body) in [
        ("application/json", b"{\"query\":\"{ a }\",\"query\":\"mutation { b }\"}".as_slice()),
        ("application/x-www-form-urlencoded", b"{\"query\":\"mutation { b }\"}"),
        ("application/x-www-form-urlencoded", b"query=mutation%7Bb%7D"),
        ("application/json; charset=utf-16", b"{\"query\":\"{ a }\"}"),
        ("text/plain", b"mutation { b }"),
    ] {
        assert!(names(&with(media, body)).is_err(), "{media}");
    }
    // JSON without its label is JSON to many servers.
    assert_eq!(names(&with("text/plain", b"{\"query\":\"mutation { b }\"}")).map(|names| names.join(" ")).as_deref(), Ok("b"));
    let mut zipped = query("mutation { b }");
    zipped.headers.push(("content-encoding".into(), "gzip".into()));
    assert!(names(&zipped).is_err());
}

#[test]
fn arguments_are_resolved_before_anyone_looks() {
    let with = |text: &str, variables: Value| arguments(&post(&json!({"query": text, "variables": variables})));
    for (text, variables, expected) in [
        ("mutation { p(patch: {a: {isDeleted: true}}) }", json!({}), json!({"patch": {"a": {"isDeleted": true}}})),
        ("mutation($p: J) { p(patch: $p) }", json!({"p": {"isDeleted": true}}), json!({"patch": {"isDeleted": true}})),
        ("mutation($d: Boolean = true) { p(patch: {a: [{isDeleted: $d}]}) }", json!({}), json!({"patch": {"a": [{"isDeleted": true}]}})),
        ("mutation($d: Boolean = true) { p(x: $d) }", json!({"d": false}), json!({"x": false})),
        ("mutation($d: Boolean) { p(x: $d, y: \"\\u0061\", z: E, n: -1.5e2) }", json!({}), json!({"y": "a", "z": "E", "n": -150.0})),
        ("mutation { p(x: $undeclared) }", json!({"undeclared": 1}), json!({"x": 1})),
    ] {
        assert_eq!(with(text, variables), expected, "{text}");
    }
    assert!(names(&query("mutation { p(x: 1, x: 2) }")).is_err());
    assert!(names(&query("mutation { p(x: {a: 1, a: 2}) }")).is_err());
    assert!(names(&post(&json!({"query": "{ a }", "variables": "{}"}))).is_err());
    let blown = format!("mutation($v: J) {{ {} }}", (0..150).map(|n| format!("a{n}: p(x: $v) ")).collect::<String>());
    assert!(names(&post(&json!({"query": blown, "variables": {"v": "x".repeat(100_000)}}))).is_err());
}

#[test]
fn persisted_queries_need_their_text() {
    let hash = "3b3d6fd1fa5d4a2b1d9c3e5c3d47b0d5a3c4ba9d9b7f0a8a7d9a1a2d8d8f5a11";
    for body in [
        json!({"extensions": {"persistedQuery": {"version": 1, "sha256Hash": hash}}}),
        json!({"query": "{ a }", "extensions": {"persistedQuery": {"version": 1, "sha256Hash": hash}}}),
        json!({"id": "17"}),
        json!({"query": "{ a }", "documentId": "17"}),
        json!({"query": null}),
        json!({"query": ""}),
        json!({"query": "{ a }", "Query": "mutation { b }"}),
    ] {
        assert!(names(&post(&body)).is_err(), "{body}");
    }
    let real: String = Sha256::digest(b"{ a }").iter().map(|byte| format!("{byte:02x}")).collect();
    let body = json!({"query": "{ a }", "extensions": {"persistedQuery": {"version": 1, "sha256Hash": real}}});
    assert_eq!(names(&post(&body)).map(|names| names.len()), Ok(1));
}

#[test]
fn depth_and_length_are_limited() {
    let deep = format!("{{ {} a {} }}", "a { ".repeat(100_000), "}".repeat(100_000));
    assert!(names(&query(&deep)).is_err());
    let long = format!("{{ {} }}", "a ".repeat(100_000));
    assert!(names(&query(&long)).is_err());
    // Fragments that spread each other twice would be exponential if they were expanded.
    let mut doubling: String = (0..60).map(|n| format!("fragment f{n} on Q {{ x {{ ...f{} ...f{} }} }} ", n + 1, n + 1)).collect();
    doubling.push_str("fragment f60 on Q { secret }");
    let request = query(&format!("{{ root {{ ...f0 }} }} {doubling}"));
    let found = fields(&canonical(&request, Paths::Strict).expect("canonical")).expect("fields");
    assert!(found[0].selected.contains(&"secret".to_owned()));
}
