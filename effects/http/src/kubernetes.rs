//! Kubernetes: verb and resource, by the conventions of its API, so that custom resources are understood too.
//!
//! A GET may run code (`exec`), a PATCH may take a finalizer away, a PUT may scale to zero. Objects are kept before they are
//! changed or deleted and put back from that: `kubernetes/plan.rs`.

mod plan;

use reprieve_operation::{Hazard, Kind};
use serde_json::{Map, Value, json};

use crate::{
    analysis::Invocation,
    canonical::{Canonical, Content},
    class::Class,
    place, rest,
};

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    group: String,
    /// The path of the collection.
    collection: String,
    namespace: Option<String>,
    resource: String,
    name: Option<String>,
    subresource: Option<String>,
    watch: bool,
}

/// The one operation that `request` calls.
pub(crate) fn call(request: &Canonical) -> Result<Invocation, String> {
    let method = request.request.method.as_str();
    let Some(target) = target(&request.segments) else { return Ok(outside(request)) };
    let verb = match (method, target.name.is_some()) {
        ("GET" | "HEAD", _) if target.watch => "watch",
        ("GET" | "HEAD", true) => "get",
        ("GET" | "HEAD", false) => "list",
        ("POST", _) => "create",
        ("PUT", true) => "update",
        ("PATCH", true) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => return Ok(outside(request)),
    };
    let arguments = arguments(&target, request);
    let mut because = Vec::new();
    let mut class = class(verb, method, &target, &mut because);
    let reads_body = matches!(verb, "create" | "update" | "patch");
    if reads_body
        && class.kind != Kind::Read
        && matches!(
            request.content,
            Content::Opaque | Content::Broken(_) | Content::Text(..) | Content::Cbor(_) | Content::Form(_) | Content::Multipart(_)
        )
    {
        return Err("its object is in a form that is not read here; send JSON".to_owned());
    }
    if class.kind != Kind::Read || !class.hazards.is_empty() {
        if is_dry_run(verb, request) {
            class = Class::plain(Kind::Read);
            because.push("it only says what it would do".to_owned());
        } else {
            look(verb, &target, &arguments, &mut class, &mut because);
        }
    }
    if request.request.headers.iter().any(|(name, _)| name.starts_with("impersonate-")) {
        class.raise(&Class::plain(Kind::Grant));
        because.push("it acts in another's name".to_owned());
    }
    let of_group = if target.group.is_empty() { String::new() } else { format!(".{}", target.group) };
    let sub = target.subresource.as_ref().map_or_else(String::new, |sub| format!("/{sub}"));
    let label = format!("{verb} {}{of_group}{sub}", target.resource);
    let resource = match (&target.namespace, &target.name) {
        (Some(namespace), Some(name)) => format!("{}/{namespace}/{name}", target.resource),
        (Some(namespace), None) => format!("{}/{namespace}/*", target.resource),
        (None, Some(name)) => format!("{}/{name}", target.resource),
        (None, None) => format!("{}/*", target.resource),
    };
    let mut invocation = Invocation {
        id: Some(label.clone()),
        label,
        arguments,
        safe: false,
        resources: vec![resource],
        class: Some(class),
        because,
        ..Invocation::default()
    };
    plan::plan(verb, &target, request, &mut invocation);
    Ok(invocation)
}

/// Paths that name no resource: `/version`, `/healthz`, `/openapi/v3`.
fn outside(request: &Canonical) -> Invocation {
    let method = request.request.method.as_str();
    let safe = matches!(method, "GET" | "HEAD") && request.segments.first().is_none_or(|first| first != "logs");
    Invocation {
        label: format!("{method} {}", request.request.path()),
        arguments: rest::arguments(Map::new(), request),
        safe,
        ..Invocation::default()
    }
}

fn target(segments: &[String]) -> Option<Target> {
    let (group, head, mut rest) = match segments {
        [api, version, rest @ ..] if api == "api" => (String::new(), format!("/api/{version}"), rest),
        [apis, group, version, rest @ ..] if apis == "apis" => (group.clone(), format!("/apis/{group}/{version}"), rest),
        _ => return None,
    };
    let watch = rest.first().is_some_and(|first| first == "watch") && rest.len() > 1;
    if watch {
        rest = &rest[1..];
    }
    let (namespace, rest) = match rest {
        // `namespaces/x/finalize` and `/status` are the namespace's own.
        [namespaces, name, rest @ ..]
            if namespaces == "namespaces" && !rest.is_empty() && !matches!(rest[0].as_str(), "finalize" | "status") =>
        {
            (Some(name.clone()), rest)
        }
        rest => (None, rest),
    };
    let (resource, rest) = rest.split_first()?;
    let name = rest.first().cloned();
    let subresource = rest.get(1).cloned();
    let collection = match &namespace {
        Some(namespace) => format!("{head}/namespaces/{namespace}/{resource}"),
        None => format!("{head}/{resource}"),
    };
    Some(Target { group, collection, namespace, resource: resource.clone(), name, subresource, watch })
}

fn arguments(target: &Target, request: &Canonical) -> Value {
    let mut arguments = rest::arguments(Map::new(), request);
    if let Value::Object(members) = &mut arguments {
        members.insert("namespace".to_owned(), json!(target.namespace));
        members.insert("name".to_owned(), json!(target.name));
    }
    arguments
}

/// Subresources that open a way into what runs.
const CONNECTS: [&str; 4] = ["exec", "attach", "portforward", "proxy"];

/// What decides who may do what, or what may run at all.
const RIGHTS: [&str; 9] = [
    "serviceaccounts",
    "validatingwebhookconfigurations",
    "mutatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
    "certificatesigningrequests",
    "apiservices",
];

/// What keeps others from harm.
const PROTECTS: [&str; 5] = ["networkpolicies", "poddisruptionbudgets", "resourcequotas", "limitranges", "volumesnapshotclasses"];

/// What takes data, or everything in it, along.
const LASTING: [&str; 9] = [
    "namespaces",
    "persistentvolumes",
    "persistentvolumeclaims",
    "customresourcedefinitions",
    "volumesnapshots",
    "volumesnapshotcontents",
    "clusters",
    "machines",
    "backups",
];

fn class(verb: &str, method: &str, target: &Target, because: &mut Vec<String>) -> Class {
    let resource = target.resource.as_str();
    let with = |kind: Kind, hazards: &[Hazard]| Class { kind, hazards: hazards.iter().copied().collect() };
    if let Some(sub) = target.subresource.as_deref() {
        match sub {
            _ if CONNECTS.contains(&sub) => {
                because.push(format!("`{sub}` opens a way into what runs, also by {method}"));
                return with(Kind::Write, &[Hazard::Code]);
            }
            "ephemeralcontainers" => return with(Kind::Write, &[Hazard::Code]),
            "token" => return with(Kind::Grant, &[Hazard::Secret]),
            "approval" | "binding" => return Class::plain(Kind::Grant),
            "eviction" => return Class::plain(Kind::Destroy),
            "finalize" => {
                because.push("it ends the wait for what still has to be cleaned up".to_owned());
                return with(Kind::Destroy, &[Hazard::Lasting]);
            }
            "log" | "status" | "scale" | "resize" => {}
            _ => {
                because.push(format!("what `{sub}` does is not known"));
                return Class::plain(Kind::Unknown);
            }
        }
    }
    let reads = matches!(verb, "get" | "list" | "watch");
    if reads {
        return if resource == "secrets" && target.group.is_empty() {
            with(Kind::Read, &[Hazard::Secret])
        } else {
            Class::plain(Kind::Read)
        };
    }
    if resource == "nodes" && target.subresource.as_deref() == Some("proxy") {
        return with(Kind::Write, &[Hazard::Code]);
    }
    // Reviews are questions that are asked by POST.
    if matches!(target.group.as_str(), "authorization.k8s.io" | "authentication.k8s.io") && verb == "create" {
        return Class::plain(Kind::Read);
    }
    if target.group == "rbac.authorization.k8s.io" || RIGHTS.contains(&resource) {
        return Class::plain(Kind::Grant);
    }
    let protects = PROTECTS.contains(&resource);
    match verb {
        "deletecollection" => {
            because.push("it deletes every one there is, or that its selector matches".to_owned());
            let lasting: &[Hazard] = if LASTING.contains(&resource) { &[Hazard::Every, Hazard::Lasting] } else { &[Hazard::Every] };
            with(Kind::Destroy, lasting)
        }
        "delete" if LASTING.contains(&resource) => {
            because.push("what is in it, or what it keeps, goes too".to_owned());
            with(Kind::Destroy, &[Hazard::Lasting])
        }
        "delete" if protects => with(Kind::Destroy, &[Hazard::Unprotects]),
        "delete" => Class::plain(Kind::Destroy),
        "update" | "patch" if protects => with(Kind::Write, &[Hazard::Unprotects]),
        _ => Class::plain(Kind::Write),
    }
}

/// `dryRun=All`, where the server looks for it: in the options that are a DELETE's body, else in the address.
fn is_dry_run(verb: &str, request: &Canonical) -> bool {
    if CONNECTS.iter().any(|sub| request.segments.last().is_some_and(|last| last == sub)) {
        return false;
    }
    let all = |values: &[String]| !values.is_empty() && values.iter().all(|value| value == "All");
    match (&request.content, verb) {
        (Content::None, _) | (_, "create" | "update" | "patch") => {
            let values: Vec<String> = request.query.iter().filter(|(name, _)| name == "dryRun").map(|(_, value)| value.clone()).collect();
            all(&values)
        }
        (Content::Json(options), _) => {
            let values = options.get("dryRun").and_then(Value::as_array).map(|values| values.iter().map(place::plain).collect::<Vec<_>>());
            values.is_some_and(|values| all(&values))
        }
        _ => false,
    }
}

/// What the object or patch says beyond verb and resource.
fn look(verb: &str, target: &Target, arguments: &Value, class: &mut Class, because: &mut Vec<String>) {
    let body = &arguments["body"];
    let any = |place: &str, test: &dyn Fn(&Value) -> bool| place::find(body, place).iter().any(|found| test(&found.value));
    let mut raise = |kind: Kind, hazards: &[Hazard], why: &str| {
        class.raise(&Class { kind, hazards: hazards.iter().copied().collect() });
        because.push(why.to_owned());
    };
    let zero = |value: &Value| value.as_f64().is_some_and(|number| number < 1.0) || value.as_str().is_some_and(|text| text.trim() == "0");
    let nothing = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    let truth = |value: &Value| value.as_bool() == Some(true);
    if verb == "delete" || verb == "deletecollection" {
        if any("gracePeriodSeconds", &zero) || arguments["query"]["gracePeriodSeconds"].as_str() == Some("0") {
            raise(Kind::Destroy, &[Hazard::Lasting], "it gives no time to end in order");
        }
        return;
    }
    // A JSON patch is a list of steps, each with its own place.
    for step in body.as_array().into_iter().flatten() {
        let (step_verb, path) = (step["op"].as_str().unwrap_or_default(), step["path"].as_str().unwrap_or_default());
        if path.contains("/finalizers") && step_verb != "test" && step_verb != "add" {
            raise(Kind::Destroy, &[Hazard::Lasting, Hazard::Unprotects], "it takes a finalizer away");
        }
        if path.ends_with("/replicas") && zero(&step["value"]) || path.ends_with("/spec") && zero(&step["value"]["replicas"]) {
            raise(Kind::Destroy, &[], "it scales to zero");
        }
        if matches!(path, "" | "/" | "/metadata" | "/spec") || step_verb == "move" || step_verb == "remove" {
            raise(Kind::Destroy, &[], "it removes or replaces a whole part of the object");
        }
        if path.starts_with("/metadata/ownerReferences") {
            raise(Kind::Destroy, &[Hazard::Lasting], "what owns it takes it along when it goes");
        }
        if path.to_lowercase().contains("reclaimpolicy") && step["value"].as_str() == Some("Delete") {
            raise(Kind::Destroy, &[Hazard::Unprotects], "the data will go with the claim");
        }
    }
    if any("metadata.finalizers", &nothing) || body.pointer("/metadata/$deleteFromPrimitiveList~1finalizers").is_some() {
        raise(Kind::Destroy, &[Hazard::Lasting, Hazard::Unprotects], "it takes finalizers away");
    }
    if verb != "create" && any("metadata.ownerReferences", &|value| !value.is_null()) {
        raise(Kind::Destroy, &[Hazard::Lasting], "what owns it takes it along when it goes");
    }
    if any("spec.replicas", &zero) || any("spec.parallelism", &zero) {
        raise(Kind::Destroy, &[], "it scales to zero");
    }
    if any("**.persistentVolumeReclaimPolicy", &|value| value.as_str() == Some("Delete"))
        && target.resource == "persistentvolumes"
        && verb != "create"
    {
        raise(Kind::Destroy, &[Hazard::Unprotects], "the data will go with the claim");
    }
    if any("**.$patch", &|value| matches!(value.as_str(), Some("delete" | "replace"))) {
        raise(Kind::Destroy, &[], "its patch deletes or replaces parts");
    }
    for (place, why) in [
        ("**.privileged", "it runs with the rights of the node"),
        ("**.hostPID", "it sees the node's processes"),
        ("**.hostNetwork", "it is on the node's network"),
        ("**.hostIPC", "it shares the node's memory"),
        ("**.allowPrivilegeEscalation", "it may take more rights"),
    ] {
        if any(place, &truth) {
            raise(Kind::Grant, &[], why);
        }
    }
    if any("**.hostPath", &|value| !value.is_null()) {
        raise(Kind::Grant, &[], "it mounts the node's files");
    }
    for step in place::find(body, "*.value") {
        if !place::find(&step.value, "**.hostPath").is_empty()
            || place::find(&step.value, "**.privileged").iter().any(|found| truth(&found.value))
        {
            raise(Kind::Grant, &[], "it gets at the node");
        }
    }
}

#[cfg(test)]
mod tests;
