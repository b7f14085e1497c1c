//! A stand-in for Railway's GraphQL API: volumes, their backups and variables, as its public schema names them.
//!
//! Like the original it does at once what a valid token asks for: a deleted volume takes its backups along.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use serde_json::{Value, json};

use crate::service::{Received, Reply, Service};

/// A volume.
#[derive(Clone, Debug)]
struct Volume {
    name: String,
    environment: String,
    service: String,
    megabytes: u64,
    backups: Vec<String>,
}

/// A running stand-in. It ends when dropped.
#[derive(Debug)]
pub struct Railway {
    service: Service,
    volumes: Arc<Mutex<BTreeMap<String, Volume>>>,
}

impl Railway {
    /// The token that it takes.
    pub const TOKEN: &'static str = "railway-token-9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d";

    /// The host that the original has.
    pub const HOST: &'static str = "backboard.railway.com";

    /// Starts one with two volumes: `vol-prod`, the production database's, and `vol-staging`.
    pub fn start() -> Result<Railway> {
        let volume = |name: &str, environment: &str, megabytes, backups: &[&str]| Volume {
            name: name.to_owned(),
            environment: environment.to_owned(),
            service: "postgres".to_owned(),
            megabytes,
            backups: backups.iter().map(|backup| (*backup).to_owned()).collect(),
        };
        let volumes = BTreeMap::from([
            ("vol-prod".to_owned(), volume("pocket-db-data", "production", 41_233, &["daily-24", "daily-23", "weekly-16"])),
            ("vol-staging".to_owned(), volume("staging-scratch", "staging", 12, &[])),
        ]);
        let volumes = Arc::new(Mutex::new(volumes));
        let state = volumes.clone();
        let service = Service::start(move |received| answer(&mut state.lock().unwrap_or_else(PoisonError::into_inner), received))?;
        Ok(Railway { service, volumes })
    }

    /// The service that it is.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// The ids of the volumes that are there.
    #[must_use]
    pub fn volumes(&self) -> Vec<String> {
        self.volumes.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Attaches a volume to another service, as somebody else might.
    pub fn attach(&self, id: &str, service: &str) {
        if let Some(volume) = self.volumes.lock().unwrap_or_else(PoisonError::into_inner).get_mut(id) {
            service.clone_into(&mut volume.service);
        }
    }
}

fn answer(volumes: &mut BTreeMap<String, Volume>, received: &Received) -> Reply {
    let wrong = |message: &str| Reply::json(&json!({ "errors": [{ "message": message }], "data": null }));
    if received.header("authorization") != Some(&format!("Bearer {}", Railway::TOKEN)) {
        return wrong("Not Authorized");
    }
    let Ok(request) = serde_json::from_slice::<Value>(&received.body) else { return Reply::text(400, "no JSON") };
    let query = request["query"].as_str().unwrap_or_default();
    // The first argument that is called so, written out or through a variable.
    let argument = |name: &str| {
        // `$id: String!` declares a variable and is no argument.
        let is_argument = |at: &usize| !query[..*at].ends_with(|c: char| c == '$' || c.is_alphanumeric());
        let places = query.match_indices(&format!("{name}:")).map(|(at, _)| at).collect::<Vec<_>>();
        let value = places.iter().find(|at| is_argument(at)).map_or("", |at| query[at + name.len() + 1..].trim_start());
        let text = match value.strip_prefix('$') {
            Some(variable) => request["variables"][variable.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default()].as_str(),
            None => value.split('"').nth(1),
        };
        text.unwrap_or_default().to_owned()
    };
    if query.contains("volumeDelete") {
        return match volumes.remove(&argument("volumeId")) {
            Some(_) => Reply::json(&json!({ "data": { "volumeDelete": true } })),
            None => wrong("Volume not found"),
        };
    }
    if query.contains("volumeInstanceBackupList") {
        let backups: Vec<Value> = volumes
            .values()
            .flat_map(|volume| &volume.backups)
            .map(|name| json!({ "id": format!("backup-{name}"), "name": name, "createdAt": "2026-04-24T03:00:00Z" }))
            .collect();
        return Reply::json(&json!({ "data": { "volumeInstanceBackupList": backups } }));
    }
    if query.contains("volume(") {
        let id = argument("id");
        let volume = volumes.get(&id).map(|volume| {
            json!({ "id": id, "name": volume.name, "project": { "id": "project-1", "name": "pocket" }, "volumeInstances": { "edges": [{ "node": {
                "id": format!("instance-{id}"), "mountPath": "/var/lib/postgresql/data", "sizeMB": 50_000, "currentSizeMB": volume.megabytes,
                "state": "READY", "environment": { "id": format!("env-{}", volume.environment), "name": volume.environment },
                "service": { "id": format!("service-{}", volume.service), "name": volume.service } } }] } })
        });
        return Reply::json(&json!({ "data": { "volume": volume } }));
    }
    if query.contains("me ") || query.contains("me{") {
        return Reply::json(&json!({ "data": { "me": { "name": "pocket" } } }));
    }
    Reply::json(&json!({ "data": {} }))
}
