//! The call that deleted a production database and its backups, and ways around what holds it.

use reprieve_effects_http::{Analysis, Body, Catalog, Request, analyze};
use reprieve_operation::{Hazard, Kind};
use serde_json::{Value, json};

fn railway(request: &Request) -> Analysis {
    analyze(&Catalog::built_in().expect("the built-in catalog"), "railway", request)
}

fn post(body: &Value) -> Request {
    Request::json("POST", "backboard.railway.com", "/graphql/v2", Some(body))
}

#[test]
fn the_call_is_understood_and_resolved() {
    let analysis = railway(&post(&json!({"query": "mutation { volumeDelete(volumeId: \"3d2c42fb\") }"})));
    let [call] = analysis.calls.as_slice() else { panic!("{analysis:?}") };
    assert_eq!((call.operation.as_str(), call.class.kind), ("railway:volumeDelete", Kind::Destroy));
    assert!(call.class.hazards.contains(&Hazard::Lasting));
    assert_eq!(call.resources, ["volume/3d2c42fb"]);
    assert_eq!(analysis.effects.iter().map(reprieve_operation::Effect::kind).collect::<Vec<_>>(), [Kind::Destroy]);
    assert!(!analysis.redacted.contains('"') && analysis.text.contains("volumeDelete(volumeId"), "{}", analysis.redacted);
    let [lookup] = call.lookups.as_slice() else { panic!("one lookup") };
    let Ok(Request { body: Body::Bytes(body), .. }) = &lookup.request else { panic!("{lookup:?}") };
    assert!(String::from_utf8_lossy(body).contains("\"variables\":{\"id\":\"3d2c42fb\"}"));
    let answer = json!({"data": {"volume": {"id": "3d2c42fb", "name": "pocket-data", "project": {"id": "p", "name": "pocket"}, "volumeInstances": {"edges": [
        {"node": {"id": "i", "currentSizeMB": 4100.5, "environment": {"id": "e", "name": "production"}, "service": {"id": "s", "name": "Postgres"}}}]}}}});
    let resolved = lookup.read(200, "application/json", answer.to_string().as_bytes()).expect("resolved");
    assert_eq!(resolved.name.as_deref(), Some("pocket-data"));
    assert_eq!(resolved.environment.as_deref(), Some("production"));
    assert_eq!(resolved.size.as_deref(), Some("4100.5 MB"));
    assert_eq!((resolved.attached, resolved.parents), (vec!["Postgres".to_owned()], vec!["pocket".to_owned()]));
    let denied = json!({"errors": [{"message": "Not Authorized"}], "data": null});
    assert!(lookup.read(200, "application/json", denied.to_string().as_bytes()).is_err());
    assert!(lookup.read(200, "application/json", br#"{"data":{"volume":null}}"#).is_err());
    assert!(lookup.read(500, "application/json", b"{}").is_err());
}

#[test]
fn no_way_of_saying_it_passes_for_a_read() {
    let mutation = "mutation { volumeDelete(volumeId: \"v\") }";
    let plain = post(&json!({"query": mutation}));
    let changed = |change: fn(&mut Request)| {
        let mut request = plain.clone();
        change(&mut request);
        request
    };
    let mut requests = vec![
        plain.clone(),
        post(&json!({"query": "mutation { me: volumeDelete(volumeId: \"v\") }"})),
        post(&json!({"query": "query me { me } mutation x { volumeDelete(volumeId: \"v\") }", "operationName": "x"})),
        post(&json!({"query": "query me { me } mutation x { volumeDelete(volumeId: \"v\") }"})),
        post(&json!([{"query": "{ me }"}, {"query": mutation}])),
        Request::json("GET", "backboard.railway.com", "/graphql/v2?query=mutation%7BvolumeDelete%28volumeId%3A%22v%22%29%7D", None),
    ];
    requests.extend(
        [
            |request: &mut Request| request.target = "/graphql/v2/".into(),
            |request: &mut Request| request.target = "/graphql//v2".into(),
            |request: &mut Request| request.target = "/x/../graphql/v2".into(),
            |request: &mut Request| request.target = "/graphql%2Fv2".into(),
            |request: &mut Request| request.target = "/graphql/%762".into(),
            |request: &mut Request| request.target = "https://backboard.railway.com/graphql/v2".into(),
            |request: &mut Request| request.target = "https://elsewhere.test/graphql/v2".into(),
            |request: &mut Request| request.method = "post".into(),
            |request: &mut Request| request.method = "QUERY".into(),
            |request: &mut Request| {
                request.method = "GET".into();
                request.headers.push(("X-HTTP-Method-Override".into(), "POST".into()));
            },
            |request: &mut Request| request.target = "/graphql/v3".into(),
            |request: &mut Request| request.headers.push(("content-type".into(), "text/plain".into())),
            |request: &mut Request| {
                request.target = "/GraphQL/V2?query=mutation%7BvolumeDelete%28volumeId%3A%22v%22%29%7D".into();
                request.method = "GET".into();
                request.body = Body::Empty;
            },
            |request: &mut Request| request.body = Body::Unread("larger than 8 MiB".into()),
            |request: &mut Request| request.headers[1].1 = "application/octet-stream".into(),
        ]
        .map(changed),
    );
    for request in &requests {
        let analysis = railway(request);
        assert!(analysis.effects.iter().any(|effect| effect.kind() > Kind::Write), "{request:?}\n{analysis:?}");
    }
}
