//! Providers with methods and paths: OpenAPI documents, and clients that were generated from them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use regex::Regex;
use serde_json::Value;

use super::{Operation, words};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// The operations as lines, each method and path once.
pub(super) fn table(operations: Vec<Operation>) -> String {
    let mut by_call: BTreeMap<(String, String), Operation> = BTreeMap::new();
    for operation in operations {
        by_call.entry((operation.path.clone(), operation.method.clone())).or_insert(operation);
    }
    let mut used = BTreeSet::new();
    let lines: Vec<String> = by_call
        .into_values()
        .map(|operation| {
            let mut id = operation.id.clone();
            let mut number = 2;
            while !used.insert(id.clone()) {
                id = format!("{}#{number}", operation.id);
                number += 1;
            }
            format!("{id}\t{} {}\t{}\n", operation.method, operation.path, operation.class)
        })
        .collect();
    lines.concat()
}

fn operation(id: &str, method: &str, path: &str) -> Operation {
    let method = method.to_uppercase();
    Operation { id: id.to_owned(), class: words::of_call(id, &method, path).to_owned(), method, path: path.to_owned() }
}

/// An OpenAPI document in JSON.
pub(super) fn openapi(file: &Path) -> Result<Vec<Operation>> {
    let document: Value = serde_json::from_slice(&fs::read(file).with_context(|| format!("cannot read {}", file.display()))?)?;
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().context("it has no paths")? {
        for (method, described) in item.as_object().into_iter().flatten().filter(|(method, _)| METHODS.contains(&method.as_str())) {
            operations.push(operation(described["operationId"].as_str().unwrap_or(path), method, path));
        }
    }
    Ok(operations)
}

/// An OpenAPI document in YAML, of which only the paths, methods and ids are read: by their indentation.
pub(super) fn yaml(file: &Path) -> Result<Vec<Operation>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let (path_line, method_line, id_line) = (
        Regex::new(r"^ {2,4}'?(/[^':]*)'?:\s*$")?,
        Regex::new(r"^ {4,8}(get|post|put|patch|delete):\s*$")?,
        Regex::new(r"^\s+operationId:\s*'?(\w+)'?")?,
    );
    let (mut path, mut method, mut operations) = (String::new(), String::new(), Vec::new());
    for line in text.lines() {
        if let Some(found) = path_line.captures(line) {
            found[1].clone_into(&mut path);
        } else if let Some(found) = method_line.captures(line) {
            found[1].clone_into(&mut method);
        } else if let Some(found) = id_line.captures(line) {
            operations.push(operation(&found[1], &method, &path));
        }
    }
    Ok(operations)
}

/// Cloudflare's client: `this._client.delete(path `/zones/${zone_id}/…``, an id made of the path.
pub(super) fn cloudflare(folder: &Path) -> Result<Vec<Operation>> {
    let call = Regex::new(r"(?:_client\.(get|post|put|patch|delete)|getAPIList)\(\s*(?:path )?[`']([^`']+)[`']")?;
    let list_method = Regex::new(r"method: '(\w+)'")?;
    let parameter = Regex::new(r"\$\{([^}]+)\}")?;
    let mut operations = Vec::new();
    for file in files(folder, "mjs")? {
        let text = fs::read_to_string(&file)?;
        for found in call.captures_iter(&text) {
            let rest: String = text[found.get(0).map_or(0, |all| all.end())..].chars().take(160).collect();
            let listed = list_method.captures(rest.split("getAPIList").next().unwrap_or_default()).map(|method| method[1].to_owned());
            let method = found.get(1).map_or_else(|| listed.unwrap_or_else(|| "get".to_owned()), |method| method.as_str().to_owned());
            let template = &found[2];
            // Accounts and zones are two paths of one call.
            let both = ["accounts", "zones"].map(|kind| {
                template.replace("${accountOrZone}", kind).replace("${accountOrZoneId}", &format!("${{{}_id}}", &kind[..kind.len() - 1]))
            });
            for template in both.into_iter().collect::<BTreeSet<_>>() {
                let path = parameter
                    .replace_all(&template, |name: &regex::Captures<'_>| {
                        format!("{{{}}}", name[1].replace(|letter: char| !letter.is_alphanumeric(), "_"))
                    })
                    .into_owned();
                let path = path.split('?').next().unwrap_or_default().to_owned();
                operations.push(operation(&from_path(&method, &path), &method, &path));
            }
        }
    }
    Ok(operations)
}

/// An id for an operation that has none: `delete_zones_dns_records_by_id`.
fn from_path(method: &str, path: &str) -> String {
    let mut id = method.to_lowercase();
    for part in path.split('/').filter(|part| !part.is_empty() && !part.starts_with('{')) {
        id.push('_');
        id.push_str(&part.replace(['-', ':'], "_"));
    }
    if path.trim_end_matches('/').ends_with('}') {
        id.push_str("_by_id");
    }
    id
}

/// Stripe's client: `'POST', '/v1/…'` or `method: 'POST', fullPath: '/v1/…'`.
pub(super) fn stripe(folder: &Path) -> Result<Vec<Operation>> {
    let new = Regex::new(r"(?s)_makeRequest\(\s*'(GET|POST|DELETE)',\s*[`']([^`']+)[`']")?;
    let old = Regex::new(r"(?s)method:\s*'(GET|POST|DELETE)',\s*fullPath:\s*'([^']+)'")?;
    let parameter = Regex::new(r"\$\{([^}]+)\}")?;
    let mut operations = Vec::new();
    for file in files(folder, "js")? {
        let text = fs::read_to_string(&file)?;
        for found in new.captures_iter(&text).chain(old.captures_iter(&text)) {
            let path = parameter.replace_all(&found[2], |name: &regex::Captures<'_>| {
                let inner = name[1].trim_start_matches("encodeURIComponent(").trim_end_matches(')');
                format!("{{{}}}", inner.replace(|letter: char| !letter.is_alphanumeric(), "_"))
            });
            operations.push(operation(&from_path(&found[1], &path), &found[1], &path));
        }
    }
    Ok(operations)
}

/// Vercel's client: a file a function, with `pathToFunc("/…")` and `method: "POST"`.
pub(super) fn vercel(folder: &Path) -> Result<Vec<Operation>> {
    let (path, method) = (Regex::new(r#"pathToFunc\("([^"]+)"\)"#)?, Regex::new(r#"method: "(\w+)""#)?);
    let mut operations = Vec::new();
    for file in files(folder, "ts")? {
        let text = fs::read_to_string(&file)?;
        let name = file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if let (Some(path), Some(method)) = (path.captures(&text), method.captures(&text)) {
            operations.push(operation(&name, &method[1], &path[1]));
        }
    }
    Ok(operations)
}

/// DigitalOcean's client: a function builds each request.
pub(super) fn pydo(folder: &Path) -> Result<Vec<Operation>> {
    let function = Regex::new(r"(?s)\ndef build_(\w+)_request\((.*?)HttpRequest\(\s*method=\x22(\w+)\x22")?;
    let url = Regex::new(r#"_url = "([^"]+)""#)?;
    let mut operations = Vec::new();
    for file in files(folder, "py")? {
        let text = fs::read_to_string(&file)?;
        for found in function.captures_iter(&text) {
            if let Some(path) = url.captures(&found[2]) {
                operations.push(operation(&found[1], &found[3], &path[1]));
            }
        }
    }
    Ok(operations)
}

fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
