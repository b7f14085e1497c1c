//! A stand-in for services that keep objects under paths, each in its own words: Cloudflare's records, GitHub's branches and settings,
//! Kubernetes' objects, S3's files. It does at once what a valid token asks for, and others can be let to meddle.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Result;
use reprieve_testkit::{GuardedService, Received, Reply, Service};
use serde_json::{Value, json};

/// The token that it takes.
pub const TOKEN: &str = "cloud-token-3f1c9a";

/// What happens besides, after a request was answered.
type Meddle = Arc<dyn Fn(&Received, &mut Objects) + Send + Sync>;

/// Objects by path. Files are texts.
pub type Objects = BTreeMap<String, Value>;

#[derive(Default)]
struct Inner {
    objects: Objects,
    meddle: Option<Meddle>,
    /// Reads of paths with this in them are answered so.
    broken: Option<(String, Reply)>,
}

/// A running stand-in. It ends when dropped.
pub struct Cloud {
    service: Service,
    inner: Arc<Mutex<Inner>>,
}

impl Cloud {
    /// Starts one.
    pub fn start() -> Result<Cloud> {
        let inner = Arc::new(Mutex::new(Inner { objects: objects(), ..Inner::default() }));
        let (state, next) = (inner.clone(), AtomicU64::new(100));
        let service = Service::start(move |received| {
            let mut inner = state.lock().unwrap_or_else(PoisonError::into_inner);
            if received.header("authorization") != Some(&format!("Bearer {TOKEN}")) {
                return Reply::text(401, "who are you");
            }
            if let Some((part, reply)) = &inner.broken
                && received.method == "GET"
                && received.target.contains(part)
            {
                return reply.clone();
            }
            let reply = answer(&mut inner.objects, received, &next);
            if let Some(meddle) = inner.meddle.clone() {
                meddle(received, &mut inner.objects);
            }
            reply
        })?;
        Ok(Cloud { service, inner })
    }

    /// The service that it is.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// It as a system behind a gateway, under a provider's host.
    pub fn guarded(&self, provider: &str, host: &str) -> GuardedService {
        GuardedService {
            name: provider.to_owned(),
            environment: "production".to_owned(),
            credential: TOKEN.to_owned(),
            presented: "bearer".to_owned(),
            settings: format!("provider = \"{provider}\"\n{}delay = \"0s\"\n", self.service.settings(host)),
        }
    }

    /// An object.
    pub fn get(&self, path: &str) -> Option<Value> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).objects.get(path).cloned()
    }

    /// The paths of all objects below one.
    pub fn below(&self, path: &str) -> Vec<String> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.objects.keys().filter(|other| other.starts_with(path)).cloned().collect()
    }

    /// Changes an object, as somebody else might.
    pub fn set(&self, path: &str, value: Value) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).objects.insert(path.to_owned(), value);
    }

    /// Lets something happen after every request.
    pub fn meddle(&self, meddle: impl Fn(&Received, &mut Objects) + Send + Sync + 'static) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).meddle = Some(Arc::new(meddle));
    }

    /// Answers reads of paths with `part` in them with `reply`; with `None`, as usual again.
    pub fn break_reads(&self, broken: Option<(&str, Reply)>) {
        let broken = broken.map(|(part, reply)| (part.to_owned(), reply));
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).broken = broken;
    }

    /// Everything it was asked that is no read, as `METHOD TARGET`.
    pub fn changes(&self) -> Vec<String> {
        let received = self.service.received();
        let changes = received.iter().filter(|received| received.method != "GET" && received.method != "HEAD");
        changes.map(|received| format!("{} {}", received.method, received.target)).collect()
    }
}

/// The path of a record.
pub const RECORD: &str = "/client/v4/zones/z1/dns_records/r1";

/// The path of a branch.
pub const BRANCH: &str = "/repos/pocket/site/git/ref/heads/feature/login";

/// The path of a config map.
pub const CONFIG: &str = "/api/v1/namespaces/shop/configmaps/settings";

/// The path of a deployment.
pub const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/shop/deployments/web";

/// The path of a file.
pub const FILE: &str = "/assets/reports/2026/q1.bin";

fn objects() -> Objects {
    let meta =
        |name: &str, namespace: &str| json!({ "name": name, "namespace": namespace, "uid": format!("uid-{name}"), "resourceVersion": "7" });
    BTreeMap::from([
        ("/client/v4/zones/z1".to_owned(), json!({ "id": "z1", "name": "pocket.example" })),
        (
            RECORD.to_owned(),
            json!({ "id": "r1", "type": "A", "name": "www.pocket.example", "content": "192.0.2.10", "ttl": 300, "proxied": true, "modified_on": "2026-01-01" }),
        ),
        (
            "/repos/pocket/site".to_owned(),
            json!({ "id": 7, "name": "site", "full_name": "pocket/site", "description": "our site", "has_wiki": true, "private": true, "pushed_at": "1" }),
        ),
        (BRANCH.to_owned(), json!({ "ref": "refs/heads/feature/login", "object": { "sha": "a1b2c3", "type": "commit" } })),
        ("/api/v1/namespaces/shop".to_owned(), json!({ "metadata": { "name": "shop", "uid": "uid-shop" } })),
        (
            CONFIG.to_owned(),
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("settings", "shop"), "data": { "mode": "live" } }),
        ),
        (
            DEPLOYMENT.to_owned(),
            json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta("web", "shop"), "spec": { "replicas": 3 }, "status": { "readyReplicas": 3 } }),
        ),
        (FILE.to_owned(), json!("the first report")),
    ])
}

fn answer(objects: &mut Objects, received: &Received, next: &AtomicU64) -> Reply {
    let path = received.target.split('?').next().unwrap_or_default().replace("/git/refs/", "/git/ref/");
    let is_cloudflare = path.starts_with("/client/v4");
    let is_file = path.starts_with("/assets");
    let json = |value: &Value| Reply::json(&if is_cloudflare { json!({ "success": true, "result": value }) } else { value.clone() });
    let missing = || Reply { status: 404, ..Reply::json(&json!({ "message": "there is none" })) };
    if is_file {
        return file(objects, &path, received);
    }
    let body = serde_json::from_slice::<Value>(&received.body).unwrap_or(Value::Null);
    match received.method.as_str() {
        "GET" => objects.get(&path).map_or_else(missing, json),
        "DELETE" => {
            objects.remove(&path).map_or_else(missing, |gone| if path.contains("/git/ref/") { Reply::text(204, "") } else { json(&gone) })
        }
        "PUT" | "PATCH" => {
            let Some(object) = objects.get_mut(&path) else { return missing() };
            if received.method == "PUT" && !is_cloudflare {
                let meta = object["metadata"].clone();
                *object = body;
                object["metadata"]["uid"] = meta["uid"].clone();
            } else if body.get("sha").is_some() {
                object["object"]["sha"] = body["sha"].clone();
            } else {
                merge(object, &body);
            }
            object["pushed_at"] = json!(next.fetch_add(1, Ordering::Relaxed));
            json(object)
        }
        "POST" => {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let (at, mut made) = (path.replace("/git/refs", "/git/ref"), body.clone());
            let name = match body["ref"].as_str() {
                Some(name) => {
                    made = json!({ "ref": name, "object": { "sha": body["sha"], "type": "commit" } });
                    name.trim_start_matches("refs/").to_owned()
                }
                None => body["metadata"]["name"].as_str().map_or_else(|| format!("r{number}"), str::to_owned),
            };
            if is_cloudflare {
                made["id"] = json!(name);
            } else if made.get("metadata").is_some() {
                made["metadata"]["uid"] = json!(format!("uid-{number}"));
            }
            if objects.contains_key(&format!("{at}/{name}")) {
                return Reply { status: 409, ..Reply::json(&json!({ "message": "there is one" })) };
            }
            objects.insert(format!("{at}/{name}"), made.clone());
            Reply { status: 201, ..json(&made) }
        }
        _ => Reply::text(405, "no"),
    }
}

/// A file, as an object store keeps it.
fn file(objects: &mut Objects, path: &str, received: &Received) -> Reply {
    let missing = || Reply {
        status: 404,
        headers: vec![("content-type".into(), "application/xml".into())],
        body: b"<Error><Code>NoSuchKey</Code></Error>".to_vec(),
    };
    match received.method.as_str() {
        "GET" | "HEAD" => objects.get(path).map_or_else(missing, |file| {
            let mut reply = Reply::text(200, file.as_str().unwrap_or_default());
            reply.headers.push(("x-amz-meta-owner".to_owned(), "ana".to_owned()));
            reply
        }),
        "PUT" => {
            objects.insert(path.to_owned(), json!(received.text()));
            Reply::text(200, "")
        }
        "DELETE" => {
            objects.remove(path);
            Reply::text(204, "")
        }
        _ => Reply::text(405, "no"),
    }
}

/// RFC 7396.
fn merge(object: &mut Value, patch: &Value) {
    match (object.as_object_mut(), patch.as_object()) {
        (Some(members), Some(patches)) => {
            for (name, patch) in patches {
                if patch.is_null() {
                    members.remove(name);
                } else {
                    merge(members.entry(name.clone()).or_insert(Value::Null), patch);
                }
            }
        }
        (None, Some(_)) => {
            *object = json!({});
            merge(object, patch);
        }
        _ => *object = patch.clone(),
    }
}
