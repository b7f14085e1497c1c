//! Verbs and resources, and what hides in methods, options and patches.

use serde_json::{Value, json};

use crate::{
    analysis::{Analysis, analyze},
    catalog::Catalog,
    request::{Body, Request},
};

fn cluster(method: &str, target: &str, body: Option<&Value>) -> Analysis {
    analyze(&Catalog::built_in().expect("the built-in catalog"), "kubernetes", &Request::json(method, "10.0.0.1:6443", target, body))
}

fn shown(analysis: &Analysis) -> String {
    match (&analysis.problem, analysis.calls.as_slice()) {
        (Some(problem), _) => format!("unclear: {problem}"),
        (None, [call]) => format!("{} {} {}", call.operation.trim_start_matches("kubernetes:"), call.class, call.resources.join(",")),
        _ => "no single call".to_owned(),
    }
}

#[test]
fn verbs_and_resources() {
    for (method, target, expected) in [
        ("GET", "/api/v1/namespaces/prod/pods", "list pods read pods/prod/*"),
        ("GET", "/api/v1/namespaces/prod/pods/a/log", "get pods/log read pods/prod/a"),
        ("GET", "/api/v1/watch/namespaces/prod/pods", "watch pods read pods/prod/*"),
        ("GET", "/api/v1/namespaces/prod/secrets/db", "get secrets read secret secrets/prod/db"),
        ("GET", "/api/v1/secrets", "list secrets read secret secrets/*"),
        ("GET", "/api/v1/namespaces/prod/pods/a/exec?command=rm", "get pods/exec write code pods/prod/a"),
        ("GET", "/api/v1/namespaces/prod/services/a/proxy/x/y", "get services/proxy write code services/prod/a"),
        ("DELETE", "/api/v1/namespaces/prod", "delete namespaces destroy lasting namespaces/prod"),
        ("DELETE", "/api/v1/namespaces/prod/pods", "deletecollection pods destroy every pods/prod/*"),
        (
            "DELETE",
            "/api/v1/namespaces/prod/persistentvolumeclaims/data",
            "delete persistentvolumeclaims destroy lasting persistentvolumeclaims/prod/data",
        ),
        ("DELETE", "/apis/apps/v1/namespaces/prod/deployments/web", "delete deployments.apps destroy deployments/prod/web"),
        ("DELETE", "/apis/apps/v1/namespaces/prod/deployments/web?dryRun=All", "delete deployments.apps read deployments/prod/web"),
        (
            "DELETE",
            "/apis/apps/v1/namespaces/prod/deployments/web?dryRun=All&dryRun=None",
            "delete deployments.apps destroy deployments/prod/web",
        ),
        ("DELETE", "/apis/apps/v1/namespaces/prod/deployments/web?dryrun=All", "delete deployments.apps destroy deployments/prod/web"),
        (
            "DELETE",
            "/apis/networking.k8s.io/v1/namespaces/prod/networkpolicies/deny",
            "delete networkpolicies.networking.k8s.io destroy unprotects networkpolicies/prod/deny",
        ),
        ("DELETE", "/apis/example.com/v1/widgets/w", "delete widgets.example.com destroy widgets/w"),
        (
            "POST",
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            "create clusterrolebindings.rbac.authorization.k8s.io grant clusterrolebindings/*",
        ),
        ("POST", "/api/v1/namespaces/prod/serviceaccounts/a/token", "create serviceaccounts/token grant secret serviceaccounts/prod/a"),
        ("POST", "/api/v1/namespaces/prod/pods/a/eviction", "create pods/eviction destroy pods/prod/a"),
        ("PUT", "/api/v1/namespaces/prod/finalize", "update namespaces/finalize destroy lasting namespaces/prod"),
        (
            "GET",
            "/apis/subresources.kubevirt.io/v1/namespaces/prod/virtualmachines/a/vnc",
            "get virtualmachines.subresources.kubevirt.io/vnc unknown virtualmachines/prod/a",
        ),
        (
            "PUT",
            "/apis/subresources.kubevirt.io/v1/namespaces/prod/virtualmachines/a/stop",
            "update virtualmachines.subresources.kubevirt.io/stop unknown virtualmachines/prod/a",
        ),
        ("GET", "/version", "GET /version read "),
        ("GET", "/logs/kubelet.log", "GET /logs/kubelet.log unknown "),
        ("POST", "/apis", "POST /apis unknown "),
    ] {
        assert_eq!(shown(&cluster(method, target, None)), expected, "{method} {target}");
    }
}

#[test]
fn what_objects_and_patches_say() {
    let web = "/apis/apps/v1/namespaces/prod/deployments/web";
    for (method, target, body, expected) in [
        ("PATCH", web, json!({"spec": {"replicas": 3}}), "write"),
        ("PATCH", web, json!({"spec": {"replicas": 0}}), "destroy"),
        ("PATCH", "/apis/apps/v1/namespaces/prod/deployments/web/scale", json!({"spec": {"replicas": 0}}), "destroy"),
        ("PATCH", web, json!([{"op": "replace", "path": "/spec/replicas", "value": 0}]), "destroy"),
        ("PATCH", web, json!([{"op": "test", "path": "/spec/replicas", "value": 3}]), "write"),
        ("PATCH", web, json!({"metadata": {"finalizers": null}}), "destroy lasting unprotects"),
        ("PATCH", web, json!([{"op": "remove", "path": "/metadata/finalizers/0"}]), "destroy lasting unprotects"),
        ("PATCH", web, json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}), "destroy lasting unprotects"),
        ("PATCH", web, json!({"spec": {"template": {"spec": {"containers": [{"$patch": "delete", "name": "a"}]}}}}), "destroy"),
        ("PATCH", "/api/v1/persistentvolumes/a", json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}}), "destroy unprotects"),
        ("POST", "/api/v1/namespaces/prod/pods", json!({"spec": {"containers": [{"image": "a"}]}}), "write"),
        ("POST", "/api/v1/namespaces/prod/pods", json!({"spec": {"volumes": [{"hostPath": {"path": "/"}}]}}), "grant"),
        ("POST", "/api/v1/namespaces/prod/pods", json!({"spec": {"containers": [{"securityContext": {"privileged": true}}]}}), "grant"),
        ("DELETE", web, json!({"dryRun": ["All"]}), "read"),
        ("DELETE", web, json!({"gracePeriodSeconds": 0}), "destroy lasting"),
        ("DELETE", "/apis/apps/v1/namespaces/prod/deployments/web?dryRun=All", json!({"propagationPolicy": "Background"}), "destroy"),
    ] {
        let analysis = cluster(method, target, Some(&body));
        assert_eq!(analysis.calls.first().map(|call| call.class.to_string()).as_deref(), Some(expected), "{method} {target} {body}");
    }
    for (media, body) in [
        ("application/vnd.kubernetes.protobuf", b"k8s\0\xff".as_slice()),
        ("application/apply-patch+yaml", b"spec:\n  replicas: 0\n"),
        ("application/yaml", b"a: 1"),
    ] {
        let mut request = Request::json("PATCH", "10.0.0.1", web, None);
        request.headers = vec![("content-type".into(), media.into())];
        request.body = Body::Bytes(body.to_vec());
        assert!(analyze(&Catalog::built_in().expect("the catalog"), "kubernetes", &request).problem.is_some(), "{media}");
    }
}

#[test]
fn acting_in_anothers_name_is_a_grant() {
    let mut request = Request::json("GET", "10.0.0.1", "/api/v1/pods", None);
    request.headers.push(("Impersonate-User".into(), "system:admin".into()));
    let analysis = analyze(&Catalog::built_in().expect("the catalog"), "kubernetes", &request);
    assert_eq!(analysis.calls[0].class.to_string(), "grant");
}

#[test]
fn deleted_objects_are_kept_and_made_again() {
    let analysis = cluster("DELETE", "/apis/apps/v1/namespaces/prod/deployments/web", None);
    let call = &analysis.calls[0];
    assert_eq!(call.escrow[0].request.as_ref().map(|request| request.target.as_str()), Ok("/apis/apps/v1/namespaces/prod/deployments/web"));
    let object = json!({"apiVersion": "apps/v1", "metadata": {"name": "web", "uid": "u", "resourceVersion": "7"}, "spec": {"replicas": 2}, "status": {}});
    let saved = json!({ "object": object });
    let undo = call.undo.as_ref().expect("an undo").request(saved.as_object().expect("an object"), &Value::Null).expect("filled");
    assert_eq!((undo.method.as_str(), undo.target.as_str()), ("POST", "/apis/apps/v1/namespaces/prod/deployments"));
    assert!(
        matches!(undo.body, Body::Bytes(body) if body == json!({"apiVersion": "apps/v1", "metadata": {"name": "web"}, "spec": {"replicas": 2}}).to_string().into_bytes())
    );
    assert!(cluster("DELETE", "/api/v1/namespaces/prod", None).calls[0].undo.is_none(), "what was in a namespace does not come back");
}
