//! What to find out about an object, what to keep of it, and the way back.
//!
//! Kinds of which it is known that an object made again from what was kept does what it did before are listed here. All others may
//! have done something when they went or changed: they are kept too, and come back with a loss.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{LASTING, Target};
use crate::{
    analysis::Invocation,
    canonical::Canonical,
    draft::{Draft, Encoding},
    format::Test,
    lookup::Lookup,
    undo::{Check, Escrow, Undo, Unless},
};

/// What servers write themselves, and refuse or misread in what is created. The last is counted by a controller.
const OF_THE_SERVER: [&str; 9] = [
    "metadata.uid",
    "metadata.resourceVersion",
    "metadata.creationTimestamp",
    "metadata.deletionTimestamp",
    "metadata.deletionGracePeriodSeconds",
    "metadata.managedFields",
    "metadata.generation",
    "status",
    "/metadata/annotations/deployment.kubernetes.io~1revision",
];

/// Group and kind of objects that are what is written in them, and nothing else.
const PLAIN: [(&str, &str); 7] = [
    ("", "configmaps"),
    ("", "secrets"),
    ("", "services"),
    ("autoscaling", "horizontalpodautoscalers"),
    ("discovery.k8s.io", "endpointslices"),
    ("", "endpoints"),
    ("scheduling.k8s.io", "priorityclasses"),
];

/// Those that keep pods running. Deleted and made again they run the same; a change of what they run is code that has run.
const RUNNING: [(&str, &str); 3] = [("apps", "deployments"), ("apps", "daemonsets"), ("apps", "statefulsets")];

/// Where a name in an answer says that the object is being deleted.
const GOING: &str = "metadata.deletionTimestamp";

pub(super) fn plan(verb: &str, target: &Target, request: &Canonical, invocation: &mut Invocation) {
    let Some(name) =
        target.name.clone().filter(|name| name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-._:".contains(letter)))
    else {
        if verb == "create" && target.subresource.is_none() {
            invocation.undo = Some(take_out(request, target));
        }
        return;
    };
    let object = format!("{}/{name}", target.collection);
    look_up(target, &name, &object, request, invocation);
    let changes = matches!(verb, "update" | "patch" | "delete") && matches!(target.subresource.as_deref(), None | Some("scale"));
    if !changes {
        return;
    }
    let unless = |at: &str, is: Option<&str>, because: &str| Unless {
        test: Test { at: at.to_owned(), is: is.map(Value::from), present: is.is_none().then_some(true), ..Test::default() },
        because: because.to_owned(),
    };
    let mut lost = Vec::new();
    if verb == "delete" {
        lost = vec![
            unless("metadata.finalizers.*", None, "its finalizers do something else away when it goes"),
            unless("spec.type", Some("LoadBalancer"), "its public address goes with it"),
            unless("spec.persistentVolumeClaimRetentionPolicy.whenDeleted", Some("Delete"), "the claims of its pods go with it"),
        ];
    }
    invocation.escrow.push(Escrow {
        save: "object".to_owned(),
        says: "the object as it is".to_owned(),
        request: ask(request, &object),
        take: None,
        until: None,
        going: Some(GOING.to_owned()),
        raw: false,
        unless: lost,
        anew: None,
    });
    let saved = Some(json!("{saved.object}"));
    let kind = (target.group.as_str(), target.resource.as_str());
    let (plain, running) = (PLAIN.contains(&kind), RUNNING.contains(&kind));
    if verb == "delete" {
        // What was in it does not come back with it.
        if !LASTING.contains(&target.resource.as_str()) {
            let loses = if plain || running { "" } else { "what ran in it, or what its deletion set off" };
            let undo = undo(request, "POST", target.collection.clone(), saved, "creates the object again", loses);
            let anew = if running { "its identity and its status; its pods start anew" } else { "its identity and its status" };
            invocation.undo = Some(Undo { anew: anew.to_owned(), ..undo });
        }
        return;
    }
    let small = target.subresource.is_some() || is_small(&invocation.arguments["body"]);
    let loses = match (plain, running) {
        (true, _) => "",
        (_, true) if small => "",
        (_, true) => "what its new pods have done meanwhile",
        (false, false) => "what the change has set off",
    };
    let undo = undo(request, "PUT", object.clone(), saved, "puts the object back as it was", loses);
    // A PATCH of some kinds, and a PUT, may make what is not there.
    invocation.undo = Some(Undo { absent: Some(draft(request, "DELETE", object, None)), ..undo });
}

/// The way back from what was created.
fn take_out(request: &Canonical, target: &Target) -> Undo {
    let made = format!("{}/{{answer.metadata.name}}", target.collection);
    let plain = PLAIN.contains(&(target.group.as_str(), target.resource.as_str()));
    let loses = if plain { "" } else { "what it has run or set off meanwhile" };
    let undo = undo(request, "DELETE", made.clone(), None, "deletes what was created", loses);
    let check = Check { draft: draft(request, "GET", made, None), take: None, going: Some(GOING.to_owned()) };
    Undo { check: Some(check), ..undo }
}

/// Whether a change is only about how many there are, or notes about it: it runs nothing new.
fn is_small(body: &Value) -> bool {
    match body {
        Value::Array(steps) => steps.iter().all(|step| {
            let path = step["path"].as_str().unwrap_or_default();
            path == "/spec/replicas" || ["/metadata/labels/", "/metadata/annotations/"].iter().any(|place| path.starts_with(place))
        }),
        Value::Object(members) => members.iter().all(|(name, member)| match name.as_str() {
            "apiVersion" | "kind" => true,
            "metadata" => only(member, &["name", "namespace", "labels", "annotations"]),
            "spec" => only(member, &["replicas", "paused"]),
            _ => false,
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn only(value: &Value, names: &[&str]) -> bool {
    value.as_object().is_some_and(|members| members.keys().all(|name| names.contains(&name.as_str())))
}

/// How to find out what it is. What the namespace says about the environment comes first: an object's labels are easily changed.
fn look_up(target: &Target, name: &str, object: &str, request: &Canonical, invocation: &mut Invocation) {
    let reads = |pairs: &[(&str, &str)]| -> BTreeMap<String, Vec<String>> {
        pairs.iter().map(|(what, place)| ((*what).to_owned(), vec![(*place).to_owned()])).collect()
    };
    let resource = invocation.resources.first().cloned().unwrap_or_default();
    let lookup = |path: &str, pairs: &[(&str, &str)]| Lookup {
        resource: resource.clone(),
        request: ask(request, path),
        reads: reads(pairs),
        unit: String::new(),
    };
    if let Some(namespace) = &target.namespace {
        invocation.lookups.push(lookup(
            &format!("/api/v1/namespaces/{namespace}"),
            &[("environment", "metadata.labels.environment"), ("parents", "metadata.name")],
        ));
    }
    let own = [
        ("exists", "metadata.uid"),
        ("name", "metadata.name"),
        ("environment", "metadata.labels.environment"),
        ("size", "spec.resources.requests.storage"),
        ("parents", "metadata.namespace"),
        ("protection", "metadata.finalizers.*"),
    ];
    invocation.lookups.push(lookup(object, &own));
    if target.resource == "namespaces" {
        for within in ["api/v1/namespaces/{}/pods", "api/v1/namespaces/{}/persistentvolumeclaims", "apis/apps/v1/namespaces/{}/deployments"]
        {
            invocation.lookups.push(lookup(&format!("/{}", within.replace("{}", name)), &[("attached", "items.*.metadata.name")]));
        }
    }
}

fn ask(request: &Canonical, path: &str) -> Result<crate::request::Request, crate::draft::Missing> {
    draft(request, "GET", path.to_owned(), None).fill(&Value::Null)
}

fn draft(request: &Canonical, method: &str, target: String, body: Option<Value>) -> Draft {
    let mut headers = BTreeMap::from([("accept".to_owned(), "application/json".to_owned())]);
    if body.is_some() {
        headers.insert("content-type".to_owned(), "application/json".to_owned());
    }
    Draft {
        method: method.to_owned(),
        scheme: request.request.scheme.clone(),
        host: request.request.host.clone(),
        target,
        headers,
        body,
        encoding: Encoding::Json,
        keep: Vec::new(),
        drop: OF_THE_SERVER.map(str::to_owned).to_vec(),
        headers_from: None,
    }
}

fn undo(request: &Canonical, method: &str, target: String, body: Option<Value>, says: &str, loses: &str) -> Undo {
    Undo {
        says: says.to_owned(),
        loses: loses.to_owned(),
        anew: String::new(),
        draft: draft(request, method, target, body),
        absent: None,
        check: None,
        known: Value::Object(Map::new()),
    }
}
