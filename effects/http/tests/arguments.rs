//! What hides in arguments: the same operation is one thing or another by what is in its body, its variables or its address.

use reprieve_effects_http::{Body, Catalog, Request, analyze};
use serde_json::{Value, json};

fn check(provider: &str, request: &Request, expected: &str) {
    let analysis = analyze(&Catalog::built_in().expect("the built-in catalog"), provider, request);
    let shown = match (&analysis.problem, analysis.calls.as_slice()) {
        (Some(problem), _) => format!("unclear: {problem}"),
        (None, [call]) => {
            let operation = call.operation.split_once(':').map_or("", |(_, operation)| operation);
            format!("{operation} {} {}", call.class, call.resources.join(",")).trim_end().to_owned()
        }
        (None, calls) => format!("{} calls", calls.len()),
    };
    assert_eq!(shown, expected, "{provider} {} {}", request.method, request.target);
}

fn railway(query: &str, variables: Value) -> Request {
    Request::json("POST", "backboard.railway.com", "/graphql/v2", Some(&json!({"query": query, "variables": variables})))
}

#[test]
fn railway_patches() {
    let commit = "mutation($e: String!, $p: JSON) { environmentPatchCommit(environmentId: $e, patch: $p) }";
    for (variables, expected) in [
        (json!({"e": "e1", "p": {"services": {"s1": {"source": {"image": "a"}}}}}), "environmentPatchCommit write environment/e1"),
        (
            json!({"e": "e1", "p": {"volumes": {"v1": {"isDeleted": true}}}}),
            "environmentPatchCommit destroy lasting environment/e1,volume/v1",
        ),
        (
            json!({"e": "e1", "p": {"buckets": {"b1": {"isDeleted": "true"}}}}),
            "environmentPatchCommit destroy lasting environment/e1,bucket/b1",
        ),
        (json!({"e": "e1", "p": {"services": {"s1": {"isDeleted": false}}}}), "environmentPatchCommit write environment/e1"),
        (
            json!({"e": "e1", "p": {"services": {"s1": {"ISDELETED": 1}}}}),
            "environmentPatchCommit destroy lasting environment/e1,service/s1",
        ),
        (
            json!({"e": "e1", "p": "{\"volumes\":{\"v1\":{\"isDeleted\":true}}}"}),
            "environmentPatchCommit destroy lasting environment/e1,volume/v1",
        ),
        (json!({"e": "e1", "p": {"services": {"s1": {"deploy": {"numReplicas": 0}}}}}), "environmentPatchCommit destroy environment/e1"),
    ] {
        check("railway", &railway(commit, variables), expected);
    }
    check(
        "railway",
        &railway("mutation { environmentPatchCommitStaged(environmentId: \"e1\") }", json!({})),
        "environmentPatchCommitStaged destroy lasting environment/e1",
    );
    let upsert = "mutation($r: Boolean = true) { variableCollectionUpsert(input: {environmentId: \"e1\", variables: {}, replace: $r}) }";
    check("railway", &railway(upsert, json!({})), "variableCollectionUpsert destroy every environment/e1");
    check("railway", &railway(upsert, json!({"r": false})), "variableCollectionUpsert write environment/e1");
    check("railway", &railway("mutation { somethingNew(id: \"x\") }", json!({})), "somethingNew unknown");
    check("railway", &railway("{ variables(projectId: \"p\") }", json!({})), "variables read secret project/p");
    check(
        "railway",
        &railway("{ project(id: \"p\") { ...f } } fragment f on P { environments { variables } }", json!({})),
        "project read secret",
    );
}

#[test]
fn what_is_staged_is_looked_at() {
    let analysis = analyze(
        &Catalog::built_in().expect("the built-in catalog"),
        "railway",
        &railway("mutation { environmentPatchCommitStaged(environmentId: \"e1\") }", json!({})),
    );
    let staged = analysis.calls[0].staged.as_ref().expect("something staged");
    assert!(
        matches!(&staged.request, Ok(Request { body: Body::Bytes(body), .. }) if String::from_utf8_lossy(body).contains("environmentStagedChanges"))
    );
    let answer = |patch: Value| json!({"data": {"environmentStagedChanges": {"id": "c", "patch": patch}}});
    let judged = |patch: Value| staged.judge(&answer(patch)).map(|(class, _, resources)| format!("{class} {}", resources.join(",")));
    assert_eq!(judged(json!({"services": {"s": {"variables": {}}}})).as_deref(), Some("write "));
    assert_eq!(judged(json!({"volumes": {"v": {"isDeleted": true}}})).as_deref(), Some("destroy lasting volume/v"));
    assert_eq!(staged.judge(&json!({"data": null})), None);
}

#[test]
fn one_address_for_many_actions() {
    let droplet = |body: Value| Request::json("POST", "api.digitalocean.com", "/v2/droplets/7/actions", Some(&body));
    check("digitalocean", &droplet(json!({"type": "snapshot"})), "droplet-action write droplets/7");
    check("digitalocean", &droplet(json!({"type": "rebuild"})), "droplet-action destroy lasting droplets/7");
    check(
        "digitalocean",
        &droplet(json!({"Type": "rebuild"})),
        "droplet-action unknown droplets/7".replace("unknown", "destroy lasting").as_str(),
    );
    check("digitalocean", &droplet(json!({"type": "password_reset"})), "droplet-action grant secret droplets/7");
    check("digitalocean", &droplet(json!({})), "droplet-action unknown droplets/7");
    let mut yaml = droplet(json!({}));
    yaml.headers = vec![("content-type".into(), "application/yaml".into())];
    yaml.body = Body::Bytes(b"type: rebuild".to_vec());
    check("digitalocean", &yaml, "droplet-action unknown droplets/7");
}

#[test]
fn batches_settings_and_sql() {
    let cloudflare =
        |method: &str, path: &str, body: Option<&Value>| Request::json(method, "api.cloudflare.com", &format!("/client/v4{path}"), body);
    for (method, path, body, expected) in [
        ("POST", "/zones/z/dns_records/batch", json!({"posts": [{"name": "a"}]}), "dns-record-batch write zone/z"),
        ("POST", "/zones/z/dns_records/batch", json!({"deletes": [{"id": "r"}]}), "dns-record-batch destroy zone/z,dns_record/r"),
        ("PATCH", "/zones/z/settings/ssl", json!({"value": "off"}), "setting-edit destroy unprotects settings/ssl"),
        ("POST", "/zones/z/purge_cache", json!({"purge_everything": true}), "purge-cache destroy every zones/z"),
        ("POST", "/accounts/a/d1/database/d/query", json!({"sql": "DROP TABLE a"}), "d1-query unknown d1/d"),
    ] {
        check("cloudflare", &cloudflare(method, path, Some(&body)), expected);
    }
    check("cloudflare", &cloudflare("DELETE", "/zones/z", None), "zone-delete destroy lasting zone/z");
    check("cloudflare", &cloudflare("DELETE", "/Zones/z", None), "zone-delete destroy lasting zone/z");
    check("cloudflare", &cloudflare("GET", "/zones/z/dns_records", None), "get_zones_dns_records read zones/z");
    let analysis = analyze(
        &Catalog::built_in().expect("the built-in catalog"),
        "cloudflare",
        &cloudflare("POST", "/accounts/a/d1/database/d/query", Some(&json!({"batch": [{"sql": "SELECT 1"}, {"sql": "DROP TABLE a"}]}))),
    );
    assert_eq!(analysis.calls[0].sql, ["SELECT 1", "DROP TABLE a"]);
}

#[test]
fn containers_and_repositories() {
    let docker = |method: &str, path: &str, body: Option<&Value>| Request::json(method, "localhost", path, body);
    check("docker", &docker("DELETE", "/v1.43/volumes/data", None), "VolumeDelete destroy lasting volume/data");
    check("docker", &docker("DELETE", "/volumes/data", None), "VolumeDelete destroy lasting volume/data");
    check("docker", &docker("POST", "/v1.43/containers/create", Some(&json!({"Image": "a"}))), "ContainerCreate write image/a");
    for host in [
        json!({"Privileged": true}),
        json!({"privileged": true}),
        json!({"Binds": ["/:/host"]}),
        json!({"Mounts": [{"Type": "bind", "Source": "/"}]}),
    ] {
        check(
            "docker",
            &docker("POST", "/v1.43/containers/create", Some(&json!({"Image": "a", "HostConfig": host}))),
            "ContainerCreate grant image/a",
        );
    }
    check("docker", &docker("GET", "/v1.43/containers/a/attach/ws", None), "ContainerAttachWebsocket write code containers/a");
    let github = |method: &str, path: &str, body: Option<&Value>| Request::json(method, "api.github.com", path, body);
    check("github", &github("DELETE", "/repos/o/r", None), "repos/delete destroy lasting repository/r");
    check("github", &github("PATCH", "/repos/o/r", Some(&json!({"description": "x"}))), "repos/update write repos/r");
    check("github", &github("PATCH", "/repos/o/r", Some(&json!({"private": false}))), "repos/update grant repos/r");
    check(
        "github",
        &github("PATCH", "/repos/o/r/git/refs/heads/main", Some(&json!({"sha": "a", "force": true}))),
        "git/update-ref destroy ref/heads/main",
    );
    check(
        "github",
        &github("PUT", "/repos/o/r/contents/.github/workflows/x.yml", Some(&json!({"content": ""}))),
        "repos/create-or-update-file-contents write code file/.github/workflows/x.yml",
    );
    check("github", &github("POST", "/graphql", Some(&json!({"query": "mutation { x }"}))), "graphql unknown");
}

#[test]
fn nobodys_requests_are_judged_by_their_method() {
    for (method, expected) in [
        ("GET", "GET /x read"),
        ("HEAD", "HEAD /x read"),
        ("POST", "POST /x unknown"),
        ("DELETE", "DELETE /x unknown"),
        ("OPTIONS", "OPTIONS /x read"),
    ] {
        check("nobody", &Request::json(method, "nobody.test", "/x", None), expected);
    }
}
