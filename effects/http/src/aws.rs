//! The protocols of AWS: query, EC2's, JSON, REST with JSON or XML, and CBOR. Each says one operation of one service.
//!
//! Which service it is, its host and the scope of its signature have to agree on: the gateway signs anew for that service, so
//! a request can't be read here as one service's and there as another's. What services there are is in `aws/services.rs`.

mod host;
mod services;

use serde_json::{Map, Value};

use crate::{
    analysis::Invocation,
    canonical::{Canonical, Content, shown},
    class::Class,
    rest, xml,
};

pub(crate) use services::Services;
use services::{Found, Service};

/// The one operation that `request` calls.
pub(crate) fn call(services: &Services, is_aws_host: bool, request: &Canonical) -> Result<Invocation, String> {
    if request
        .query
        .iter()
        .any(|(name, _)| ["x-amz-signature", "x-amz-credential", "awsaccesskeyid"].contains(&name.to_ascii_lowercase().as_str()))
    {
        return Err("it is presigned: what signed it is not in it".to_owned());
    }
    let place = if is_aws_host { Some(host::place(&request.request.host)?) } else { None };
    let scope = scope(request)?;
    let candidates = candidates(services, place.as_ref(), scope.as_ref())?;
    let mut segments = request.segments.clone();
    if let Some(bucket) = place.as_ref().and_then(|place| place.bucket.clone()) {
        segments.insert(0, bucket);
    }
    let mut found: Vec<(&Service, Found, Value)> = Vec::new();
    for service in &candidates {
        found.extend(of_service(service, request, &segments)?.into_iter().map(|(operation, arguments)| (*service, operation, arguments)));
    }
    // Services that share a name have operations in common: `rds` stands for Neptune and DocumentDB too.
    let Some((service, operation, arguments)) =
        found.iter().min_by_key(|(service, operation, _)| (operation.name.len(), service.name != service.signing))
    else {
        return Ok(unknown(request, candidates.first().map_or("aws", |service| service.name.as_str())));
    };
    if let Some((_, other, _)) = found.iter().find(|(_, other, _)| other.name != operation.name) {
        return Err(format!("it can be read as `{}` and as `{}`", operation.name, other.name));
    }
    let mut worst = operation.class.clone();
    found.iter().for_each(|(_, other, _)| worst.raise(&other.class));
    let id = format!("{}:{}", service.name, operation.name);
    let raise = if worst == operation.class {
        Vec::new()
    } else {
        vec![(worst, "another service of the same host does more by that name".to_owned())]
    };
    Ok(Invocation {
        label: id.clone(),
        resources: resources(&service.name, &operation.name, arguments),
        id: Some(id),
        arguments: arguments.clone(),
        raise,
        ..Invocation::default()
    })
}

/// The host of the service as a whole, where `host` is a bucket's own.
pub(crate) fn host_without_bucket(host: &str) -> String {
    match host::place(host).ok().and_then(|place| place.bucket) {
        Some(bucket) => host.get(bucket.len() + 1..).unwrap_or(host).to_owned(),
        None => host.to_owned(),
    }
}

fn unknown(request: &Canonical, service: &str) -> Invocation {
    let method = &request.request.method;
    // POST to a path is how queries are sent too, so a method says nothing about services that don't use it.
    let safe = matches!(method.as_str(), "GET" | "HEAD") && !request.query.iter().any(|(name, _)| name.eq_ignore_ascii_case("action"));
    Invocation {
        id: None,
        label: format!("{service} {method} {}", request.request.path()),
        arguments: rest::arguments(Map::new(), request),
        safe,
        ..Invocation::default()
    }
}

/// Region and service of a signature.
#[derive(Debug, PartialEq, Eq)]
struct Scope {
    region: String,
    service: String,
}

fn scope(request: &Canonical) -> Result<Option<Scope>, String> {
    let Some(authorization) = request.request.header("authorization") else { return Ok(None) };
    let Some(rest) = authorization.strip_prefix("AWS4-HMAC-SHA256") else {
        return if authorization.starts_with("AWS4") || authorization.starts_with("AWS ") {
            Err("it is signed in a way that can't be renewed here".to_owned())
        } else {
            Ok(None)
        };
    };
    let credential = rest.split([',', ' ']).find_map(|part| part.trim().strip_prefix("Credential=")).unwrap_or_default();
    match credential.split('/').collect::<Vec<_>>().as_slice() {
        [.., region, service, "aws4_request"] => Ok(Some(Scope { region: (*region).to_owned(), service: (*service).to_owned() })),
        _ => Err("its signature names no service".to_owned()),
    }
}

/// Whom a request of the gateway's own is to be signed for: the region of the request that it belongs to, and its service or `service`.
/// `None`: that request is not signed.
pub(crate) fn scope_header(request: &crate::request::Request, service: Option<&str>) -> Option<String> {
    let authorization = request.header("authorization")?.strip_prefix("AWS4-HMAC-SHA256")?;
    let credential = authorization.split([',', ' ']).find_map(|part| part.trim().strip_prefix("Credential="))?;
    let [.., region, own, "aws4_request"] = credential.split('/').collect::<Vec<_>>()[..] else { return None };
    Some(format!("AWS4-HMAC-SHA256 Credential=-/-/{region}/{}/aws4_request", service.unwrap_or(own)))
}

/// The services it may be for: all that its host and its signature agree on.
fn candidates<'a>(services: &'a Services, place: Option<&host::Place>, scope: Option<&Scope>) -> Result<Vec<&'a Service>, String> {
    if place.is_none() && scope.is_none() {
        return Err("neither its host nor its signature names a service".to_owned());
    }
    let agrees = |service: &&Service| {
        place.is_none_or(|place| place.is_of(&service.prefix)) && scope.is_none_or(|scope| scope.service == service.signing)
    };
    let candidates: Vec<&Service> = services.all().filter(agrees).collect();
    if candidates.is_empty() {
        return Err("its host and its signature agree on no service that is known".to_owned());
    }
    if let (Some(place), Some(scope)) = (place, scope)
        && place.region.as_ref().is_some_and(|region| *region != scope.region)
    {
        return Err("its host and its signature name different regions".to_owned());
    }
    Ok(candidates)
}

/// What a request is to one service, in every protocol that the service speaks.
fn of_service(service: &Service, request: &Canonical, segments: &[String]) -> Result<Vec<(Found, Value)>, String> {
    let mut found: Vec<(Found, Value)> = Vec::new();
    let body = match &request.content {
        Content::Json(value) | Content::Cbor(value) => value.clone(),
        _ => Value::Null,
    };
    for protocol in &service.protocols {
        match protocol.as_str() {
            "json" => {
                let target = request.request.header("x-amz-target").and_then(|target| target.rsplit_once('.'));
                if target.is_some() && !matches!(request.content, Content::Json(_) | Content::None) {
                    return Err("its body is not labelled as JSON".to_owned());
                }
                if let Some((prefix, name)) = target
                    && prefix == service.target
                {
                    found.extend(service.operation(name).map(|operation| (operation, body.clone())));
                }
            }
            "smithy-rpc-v2-cbor" => {
                let is_cbor = matches!(request.content, Content::Cbor(_) | Content::None);
                if let [.., one, service_name, two, name] = segments
                    && one == "service"
                    && two == "operation"
                    && (service_name == &service.target || service_name == &service.name)
                {
                    if !is_cbor {
                        return Err("its body is not labelled as CBOR".to_owned());
                    }
                    found.extend(service.operation(name).map(|operation| (operation, body.clone())));
                }
            }
            "query" | "ec2" => found.extend(of_form(service, request)?),
            "rest-json" | "rest-xml" => found.extend(of_route(service, request, segments)?),
            _ => {}
        }
    }
    Ok(found)
}

/// `Action=…&Version=…`, in the body or in the address.
fn of_form(service: &Service, request: &Canonical) -> Result<Option<(Found, Value)>, String> {
    let is_action = |(name, _): &&(String, String)| name.eq_ignore_ascii_case("action");
    let in_query: Vec<&(String, String)> = request.query.iter().filter(is_action).collect();
    let form = match &request.content {
        Content::Form(pairs) => pairs.as_slice(),
        _ => &[],
    };
    let in_form: Vec<&(String, String)> = form.iter().filter(is_action).collect();
    let (pairs, name) = match (in_query.as_slice(), in_form.as_slice()) {
        ([], []) => return Ok(None),
        ([one], []) if form.is_empty() => (&request.query, &one.1),
        ([], [one]) if request.query.is_empty() => match &request.content {
            Content::Form(pairs) => (pairs, &one.1),
            _ => return Ok(None),
        },
        _ => return Err("it names an action more than once, or in two places".to_owned()),
    };
    let mut seen = std::collections::BTreeSet::new();
    if let Some((name, _)) = pairs.iter().find(|(name, _)| !seen.insert(name.to_ascii_lowercase())) {
        return Err(format!("the parameter `{}` occurs twice", shown(name)));
    }
    Ok(service.operation(name).map(|operation| (operation, unflattened(pairs))))
}

/// `Filter.1.Value.2=x` as members; `member` between a list and its numbers is left out.
fn unflattened(pairs: &[(String, String)]) -> Value {
    let mut root = Map::new();
    for (name, value) in pairs {
        let parts: Vec<&str> = name.split('.').take(24).collect();
        let parts: Vec<&str> = parts
            .iter()
            .enumerate()
            .filter(|(place, part)| {
                let before_number = parts.get(place + 1).is_some_and(|next| next.bytes().all(|byte| byte.is_ascii_digit()));
                !(**part == "member" && *place > 0 && before_number)
            })
            .map(|(_, part)| *part)
            .collect();
        if let Some((head, rest)) = parts.split_first() {
            rest::insert(&mut root, head, rest, value);
        }
    }
    Value::Object(root)
}

fn of_route(service: &Service, request: &Canonical, segments: &[String]) -> Result<Option<(Found, Value)>, String> {
    let mut names: Vec<&str> = request.query.iter().map(|(name, _)| name.as_str()).collect();
    // The one kind of header that makes another operation of the same address.
    names.extend(
        request
            .request
            .headers
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| name.starts_with("x-amz-") && name.ends_with("-source")),
    );
    let Some((operation, path)) = service.route(&request.request.method, segments, &names)? else { return Ok(None) };
    let empty = request.query.iter().find(|(name, value)| value.is_empty() && !operation.constraints.contains(name));
    if let Some((name, _)) = empty.filter(|_| service.name == "s3" && operation.class.kind != reprieve_operation::Kind::Read) {
        // `?acl`, `?policy`: a part of a bucket that this operation is not about.
        return Err(format!("the part `{}` of a bucket is not known here", shown(name)));
    }
    let mut arguments = path;
    for (name, value) in rest::pairs(&request.query).as_object().into_iter().flatten() {
        merge(&mut arguments, name, value.clone());
    }
    match &request.content {
        Content::Json(Value::Object(members)) | Content::Xml(Value::Object(members)) | Content::Cbor(Value::Object(members)) => {
            members.iter().for_each(|(name, value)| merge(&mut arguments, name, value.clone()));
        }
        Content::Json(other) | Content::Xml(other) | Content::Cbor(other) => merge(&mut arguments, "body", other.clone()),
        // Services that speak XML read it whatever its label.
        Content::Text(_, text) => match xml::parse(text) {
            Ok(Value::Object(members)) => members.iter().for_each(|(name, value)| merge(&mut arguments, name, value.clone())),
            Ok(_) | Err(_) if is_upload(&operation.name) || !service.protocols.iter().any(|protocol| protocol == "rest-xml") => {}
            Ok(_) | Err(_) => return Err("its body is no XML".to_owned()),
        },
        Content::Broken(_) | Content::Opaque if is_upload(&operation.name) => {}
        Content::Opaque if service.protocols.iter().all(|protocol| protocol != "rest-xml") => {}
        Content::Opaque => return Err("its body is no XML".to_owned()),
        Content::Broken(why) => return Err(why.clone()),
        // Such a service doesn't look at labels, and finds in it what nobody saw here.
        Content::Form(_) | Content::Multipart(_)
            if !is_upload(&operation.name) && service.protocols.iter().any(|protocol| protocol == "rest-xml") =>
        {
            return Err("its body is labelled as a form, and the service reads XML; set `Content-Type: application/xml`".to_owned());
        }
        Content::None | Content::Form(_) | Content::Multipart(_) => {}
    }
    let headers = request.request.headers.iter().filter(|(name, _)| name.starts_with("x-amz-"));
    let headers = headers.map(|(name, value)| (name.clone(), Value::String(value.clone()))).collect();
    arguments.insert("headers".to_owned(), Value::Object(headers));
    Ok(Some((operation, Value::Object(arguments))))
}

/// Whether the body is the user's own file.
fn is_upload(operation: &str) -> bool {
    matches!(operation, "PutObject" | "UploadPart")
}

/// A second value of a name makes a list: guards look at both.
fn merge(arguments: &mut Map<String, Value>, name: &str, value: Value) {
    match arguments.get_mut(name) {
        None => {
            arguments.insert(name.to_owned(), value);
        }
        Some(Value::Array(items)) => items.push(value),
        Some(other) => *other = Value::Array(vec![other.take(), value]),
    }
}

/// What the arguments name, by what they are called: `VolumeId` names a `volume`. Those that the operation is called after
/// come first; the others only where there is none of these.
fn resources(service: &str, operation: &str, arguments: &Value) -> Vec<String> {
    let Value::Object(members) = arguments else { return Vec::new() };
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    if service == "s3" {
        return match (text("Bucket"), text("Key")) {
            (Some(bucket), Some(key)) => vec![format!("object/{bucket}/{key}")],
            (Some(bucket), None) => vec![format!("bucket/{bucket}")],
            _ => Vec::new(),
        };
    }
    let (mut named, mut others) = (Vec::new(), Vec::new());
    let lower = operation.to_ascii_lowercase();
    for (name, value) in members {
        let Some(kind) = ["Identifier", "Identifiers", "Ids", "Id", "Names", "Name", "Arns", "Arn", "ARN"].iter().find_map(|end| {
            let cut = name.len().checked_sub(end.len())?;
            name.get(cut..).filter(|tail| tail.eq_ignore_ascii_case(end)).and_then(|_| name.get(..cut)).filter(|kind| !kind.is_empty())
        }) else {
            continue;
        };
        let kind = kind.to_ascii_lowercase();
        let into = if lower.contains(&kind) { &mut named } else { &mut others };
        let mut ids = vec![value];
        while let Some(id) = ids.pop() {
            match id {
                Value::String(id) if !id.is_empty() && into.len() < 256 => into.push(format!("{kind}/{id}")),
                Value::Array(items) => ids.extend(items.iter().rev()),
                Value::Object(items) => ids.extend(items.values().rev()),
                _ => {}
            }
        }
    }
    if named.is_empty() { others } else { named }
}

/// The class of an operation, for the catalog's list.
pub(crate) fn class(services: &Services, id: &str) -> Option<Class> {
    let (service, operation) = id.split_once(':')?;
    services.get(service)?.operation(operation).map(|found| found.class)
}

#[cfg(test)]
mod tests;
