//! Any request: the analysis ends, never panics, and what it says is consistent with itself.

use std::sync::LazyLock;

use proptest::prelude::*;
use reprieve_effects_http::{Analysis, Body, Catalog, Request, analyze};
use reprieve_operation::{Effect, Kind};

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::built_in().expect("the built-in catalog"));

fn consistent(analysis: &Analysis) {
    assert_eq!(analysis.problem.is_some(), analysis.send.is_none());
    assert!(!analysis.effects.is_empty());
    if analysis.problem.is_some() {
        assert!(analysis.effects.iter().all(|effect| matches!(effect, Effect::Unknown { .. })));
    }
    // What is sent is understood as the same again.
    if let Some(sent) = &analysis.send {
        let again = analyze(&CATALOG, &analysis.provider, sent);
        assert_eq!((again.effects, again.send.as_ref()), (analysis.effects.clone(), Some(sent)), "{sent:?}");
    }
}

fn target() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("graphql".to_owned()),
        Just("v2".to_owned()),
        Just("..".to_owned()),
        Just("%2e%2E".to_owned()),
        Just("namespaces".to_owned()),
        Just("api".to_owned()),
        Just("apis".to_owned()),
        Just("bucket".to_owned()),
        Just("containers".to_owned()),
        Just("zones".to_owned()),
        Just(String::new()),
        "[a-zA-Z0-9%;:+.-]{0,6}",
        "\\PC{0,4}",
    ];
    let query = prop_oneof![
        Just(String::new()),
        Just("?query=%7Ba%7D".to_owned()),
        Just("?Action=DeleteVolume&VolumeId=v".to_owned()),
        "\\?[a-zA-Z0-9%&=+]{0,20}"
    ];
    (prop::collection::vec(part, 0..6), query).prop_map(|(parts, query)| format!("/{}{query}", parts.join("/")))
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        Just(Body::Empty),
        prop::collection::vec(any::<u8>(), 0..200).prop_map(Body::Bytes),
        "[{}\\[\\]\":,a-z0-9 ]{0,60}".prop_map(|text| Body::Bytes(text.into_bytes())),
        "(query|mutation)? ?(\\{|\\}|\\(|\\)|[a-z$:.\"]|\\.\\.\\.| ){0,40}"
            .prop_map(|text| Body::Bytes(serde_json::json!({ "query": text }).to_string().into_bytes())),
        "(<[a-z]{1,3}>|</[a-z]{1,3}>|[a-z&;]){0,20}".prop_map(|text| Body::Bytes(text.into_bytes())),
        "[A-Za-z0-9.=&%]{0,60}".prop_map(|text| Body::Bytes(format!("Action=ModifyDBInstance&{text}").into_bytes())),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let method = prop_oneof![Just("GET"), Just("POST"), Just("PUT"), Just("PATCH"), Just("DELETE"), Just("HEAD"), Just("BREW")];
    let host = prop_oneof![
        Just("ec2.us-east-1.amazonaws.com"),
        Just("rds.us-east-1.amazonaws.com"),
        Just("b.s3.amazonaws.com"),
        Just("backboard.railway.com"),
        Just("h")
    ];
    let media = prop_oneof![
        Just("application/json"),
        Just("application/x-www-form-urlencoded"),
        Just("text/xml"),
        Just("application/cbor"),
        Just("multipart/form-data; boundary=x"),
        Just("text/plain"),
        Just("application/graphql"),
    ];
    let scope = prop_oneof![Just("ec2"), Just("rds"), Just("s3"), Just("dynamodb")];
    let extra = prop::collection::vec(("[A-Za-z-]{1,12}", "\\PC{0,12}"), 0..3);
    (method, host, target(), media, scope, extra, body()).prop_map(|(method, host, target, media, scope, extra, body)| {
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential=A/20260101/us-east-1/{scope}/aws4_request, SignedHeaders=host, Signature=0");
        let mut headers = vec![("content-type".to_owned(), media.to_owned()), ("authorization".to_owned(), authorization)];
        headers.extend(extra);
        Request { method: method.to_owned(), scheme: "https".to_owned(), host: host.to_owned(), target, headers, body }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn any_request_to_anyone(request in request()) {
        for provider in ["railway", "aws", "kubernetes", "docker", "cloudflare", "nobody"] {
            consistent(&analyze(&CATALOG, provider, &request));
        }
    }

    #[test]
    fn only_what_reads_is_a_read_by_an_unknown_name(name in "[a-z]{3,12}[A-Z][a-z]{2,8}") {
        prop_assume!(CATALOG.provider("railway").and_then(|railway| railway.class(&name)).is_none());
        let request = Request::json("POST", "backboard.railway.com", "/graphql/v2", Some(&serde_json::json!({ "query": format!("mutation {{ {name}(id: \"x\") }}") })));
        prop_assert!(analyze(&CATALOG, "railway", &request).effects.iter().all(|effect| effect.kind() == Kind::Unknown));
    }
}

/// Twice the input may not take much more than twice the work. Work is counted in what comes out, and the sizes are such that a
/// quadratic step would not end within a test's time.
#[test]
fn large_inputs_end() {
    let megabyte = 1 << 20;
    let bodies = [
        format!("{{\"query\":\"{{ {} }}\"}}", "a ".repeat(megabyte)),
        format!("{{\"query\":\"{{ a }}\",\"variables\":{{\"v\":[{}1]}}}}", "1,".repeat(megabyte)),
        format!("{}{}", "[".repeat(megabyte), "]".repeat(megabyte)),
        format!("{{\"a\":\"{}\"}}", "{\\\"a\\\":".repeat(megabyte / 8)),
        format!("{{{}\"z\":1}}", (0..100_000).map(|n| format!("\"k{n}\":{{\"isDeleted\":true}},")).collect::<String>()),
        "a=1&".repeat(megabyte),
        "<a>".repeat(megabyte),
        "--x\r\n".repeat(megabyte / 2),
    ];
    for media in [
        "application/json",
        "application/x-www-form-urlencoded",
        "text/xml",
        "multipart/form-data; boundary=x",
        "text/plain",
        "application/cbor",
    ] {
        for body in &bodies {
            let mut request = Request::json("POST", "backboard.railway.com", "/graphql/v2", None);
            request.headers = vec![("content-type".into(), media.into())];
            request.body = Body::Bytes(body.clone().into_bytes());
            for provider in ["railway", "docker", "kubernetes"] {
                let _ = analyze(&CATALOG, provider, &request);
            }
        }
    }
}
