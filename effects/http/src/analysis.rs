//! Analyses: what one request does, and how to find out more, keep first, and go back.

use std::fmt::Write as _;

use reprieve_operation::{Effect, Hazard, Kind};
use serde_json::{Map, Value, json};

use crate::{
    aws,
    canonical::{Canonical, Content, Paths, canonical, other_than_its_method, shown},
    catalog::{Catalog, Provider},
    class::Class,
    draft::{Draft, Encoding, Missing},
    format::{Ask, Naming, Row, Speaks, StagedRow},
    graphql::{self, OperationKind},
    guard::glob,
    kubernetes,
    lookup::{Lookup, texts},
    place,
    request::Request,
    rest,
    undo::{Check, Escrow, ONCE, Undo, Unless, Until, with_once},
};

/// More resources than one call sensibly names.
const MOST_RESOURCES: usize = 256;

/// What one request does.
#[derive(Debug, Clone)]
pub struct Analysis {
    /// The provider whose catalog was used.
    pub provider: String,
    /// Every operation it calls. Empty if it could not be understood.
    pub calls: Vec<Call>,
    /// What it touches, the first opinion.
    pub effects: Vec<Effect>,
    /// Why it could not be understood, where it wasn't.
    pub problem: Option<String>,
    /// What is to be sent: exactly what was understood. `None` where that has no one meaning.
    pub send: Option<Request>,
    /// The request as it is recorded: without bodies, values and whatever looks like a credential.
    pub redacted: String,
    /// The exact request, for people who decide on it.
    pub text: String,
}

/// One operation that a request calls.
#[derive(Debug, Clone)]
pub struct Call {
    /// `provider:operation`.
    pub operation: String,
    /// What it does.
    pub class: Class,
    /// Why it is of that class, in words.
    pub because: Vec<String>,
    /// What it touches, `type/id` each. Empty: the system as a whole.
    pub resources: Vec<String>,
    /// How to find out what these are.
    pub lookups: Vec<Lookup>,
    /// What to keep first.
    pub escrow: Vec<Escrow>,
    /// The call that takes it back.
    pub undo: Option<Undo>,
    /// Why there is nothing to take back, in words: what it adds replaces nothing.
    pub adds: Option<String>,
    /// How the provider itself keeps what is deleted, in words.
    pub soft: Option<String>,
    /// It carries out what earlier calls put together: to be looked at first.
    pub staged: Option<Staged>,
    /// Texts in SQL that it runs.
    pub sql: Vec<String>,
    /// It only says what it would do.
    pub dry_run: bool,
}

/// What earlier calls put together and this one carries out. Until it was looked at, the call counts as destroying.
#[derive(Debug, Clone)]
pub struct Staged {
    /// The read that shows it.
    pub request: Result<Request, Missing>,
    take: String,
    otherwise: Class,
    row: Row,
}

impl Staged {
    /// The class of what is staged, why, and what it touches, by the service's answer. `None`: the answer doesn't show it.
    #[must_use]
    pub fn judge(&self, answer: &Value) -> Option<(Class, Vec<String>, Vec<String>)> {
        let staged = place::first(answer, &self.take)?;
        let (mut class, mut because, mut resources) = (self.otherwise.clone(), Vec::new(), Vec::new());
        for guard in self.row.guards.iter().filter(|guard| guard.test.holds(&staged)) {
            class.raise(&guard.class);
            because.push(guard.because.clone());
            name(&guard.names, &staged, &mut resources);
        }
        Some((class, because, resources))
    }
}

/// An operation with its arguments, as a decoder found it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Invocation {
    /// The operation's id in the catalog; `None` if it has none.
    pub(crate) id: Option<String>,
    /// What it is called where it has none.
    pub(crate) label: String,
    pub(crate) arguments: Value,
    /// By its method or kind it should change nothing.
    pub(crate) safe: bool,
    /// What it touches, where no row says so.
    pub(crate) resources: Vec<String>,
    /// The class, where conventions tell it and no row.
    pub(crate) class: Option<Class>,
    pub(crate) because: Vec<String>,
    /// What the decoder knows beyond the catalog: raises the class.
    pub(crate) raise: Vec<(Class, String)>,
    /// What conventions tell about finding out, keeping and going back.
    pub(crate) lookups: Vec<Lookup>,
    pub(crate) escrow: Vec<Escrow>,
    pub(crate) undo: Option<Undo>,
}

/// What `request` to `provider` does. An unknown provider's requests are judged by their method alone.
#[must_use]
pub fn analyze(catalog: &Catalog, provider: &str, request: &Request) -> Analysis {
    let known = catalog.provider(provider);
    let speaks = known.map_or(Speaks::Rest, Provider::speaks);
    let paths = match speaks {
        Speaks::Aws => Paths::Names,
        Speaks::Rest | Speaks::Graphql | Speaks::Kubernetes => Paths::Strict,
    };
    let understood = canonical(request, paths).and_then(|canonical| {
        let mut invocations = match (known, speaks) {
            (Some(known), Speaks::Graphql) => graphql_calls(known, &canonical)?,
            (Some(known), Speaks::Rest) => rest_calls(known, &canonical),
            (Some(known), Speaks::Aws) => vec![aws::call(&known.services, known.answers_on(&request.host), &canonical)?],
            (Some(_), Speaks::Kubernetes) => vec![kubernetes::call(&canonical)?],
            (None, _) => vec![by_method(&canonical)],
        };
        if let Some(why) = other_than_its_method(&canonical).filter(|_| speaks != Speaks::Aws || canonical.request.method != "POST") {
            invocations.iter_mut().for_each(|invocation| invocation.raise.push((Class::plain(Kind::Unknown), why.to_owned())));
        }
        Ok((canonical, invocations))
    });
    match understood {
        Ok((canonical, invocations)) => {
            let calls: Vec<Call> = invocations.iter().map(|invocation| judge(known, provider, &canonical.request, invocation)).collect();
            let effects = calls.iter().flat_map(effects).collect();
            let redacted = redacted(&canonical, &calls);
            Analysis {
                provider: provider.to_owned(),
                effects,
                problem: None,
                redacted,
                text: canonical.request.text(),
                send: Some(canonical.request),
                calls,
            }
        }
        Err(problem) => Analysis {
            provider: provider.to_owned(),
            calls: Vec::new(),
            effects: vec![Effect::Unknown { because: problem.clone() }],
            redacted: format!("{} {}://{}", shown(&request.method), shown(&request.scheme), shown(&request.host)),
            text: request.text(),
            problem: Some(problem),
            send: None,
        },
    }
}

fn graphql_calls(provider: &Provider, request: &Canonical) -> Result<Vec<Invocation>, String> {
    let path = request.request.path().trim_end_matches('/');
    if !provider.paths.iter().any(|endpoint| endpoint.trim_end_matches('/') == path) {
        // Servers differ in which spellings of a path they take for one that executes documents.
        return if request.query.iter().any(|(name, _)| place::same(name, "query")) {
            Err("it has a document, but its path is none that is known to take one".to_owned())
        } else {
            Ok(rest_calls(provider, request))
        };
    }
    let fields = graphql::fields(request)?;
    if fields.is_empty() {
        return Ok(vec![by_method(request)]);
    }
    let of_field = |field: graphql::Field| {
        let safe = field.kind != OperationKind::Mutation;
        let secret =
            field.selected.iter().chain([&field.name]).find(|name| provider.secret_fields.iter().any(|secret| place::same(secret, name)));
        let raise = secret.map(|name| {
            let class = Class { kind: Kind::Read, hazards: [Hazard::Secret].into() };
            (class, format!("`{name}` shows credentials"))
        });
        let harmless = safe && field.name.starts_with("__");
        Invocation {
            id: (provider.class(&field.name).is_some() || provider.row(&field.name).is_some() || harmless).then(|| field.name.clone()),
            label: field.name.clone(),
            resources: ids_of(&field.arguments),
            arguments: field.arguments,
            safe,
            raise: raise.into_iter().collect(),
            ..Invocation::default()
        }
    };
    Ok(fields.into_iter().map(of_field).collect())
}

/// `volumeId: "v"` names `volume/v`: what arguments are called in GraphQL, where no row says more.
fn ids_of(arguments: &Value) -> Vec<String> {
    let mut resources = Vec::new();
    let mut visit = |object: &Map<String, Value>| {
        for (name, value) in object {
            let kind = name.strip_suffix("Id").or_else(|| name.strip_suffix("ID"));
            if let (Some(kind), Value::String(id)) = (kind.filter(|kind| !kind.is_empty()), value) {
                push(&mut resources, format!("{kind}/{id}"));
            }
        }
    };
    if let Value::Object(object) = arguments {
        visit(object);
        object.values().filter_map(Value::as_object).for_each(visit);
    }
    resources
}

fn rest_calls(provider: &Provider, request: &Canonical) -> Vec<Invocation> {
    let method = request.request.method.as_str();
    let mut segments = request.segments.as_slice();
    if provider.speaks == Speaks::Rest {
        for prefix in &provider.paths {
            let prefix: Vec<&str> = prefix.split('/').filter(|part| !part.is_empty()).collect();
            if segments.len() >= prefix.len()
                && segments.iter().zip(&prefix).all(|(segment, part)| glob(part, segment))
                && !prefix.is_empty()
            {
                segments = &segments[prefix.len()..];
                break;
            }
        }
    }
    let find = |segments: &[String]| provider.routes.find(method, segments).or_else(|| provider.table.find(method, segments));
    let found = find(segments).or_else(|| {
        segments = request.segments.as_slice();
        find(segments)
    });
    let Some(found) = found else { return vec![by_method(request)] };
    // Guards that can't see the body would find nothing in it.
    let guards = provider.row(&found.id).map_or(&[] as &[_], |row| row.guards.as_slice());
    let unread = matches!(request.content, Content::Text(..) | Content::Opaque | Content::Cbor(_))
        && guards.iter().any(|guard| guard.test.at.starts_with("body") || guard.test.at.starts_with('*'));
    let raise =
        unread.then(|| (Class::plain(Kind::Unknown), "what its body says decides, and it is in a form that is not read here".to_owned()));
    vec![Invocation {
        raise: raise.into_iter().collect(),
        label: found.id.clone(),
        id: Some(found.id),
        resources: of_path(segments, &found.path),
        arguments: rest::arguments(found.path, request),
        safe: is_safe(method),
        ..Invocation::default()
    }]
}

/// `/v2/volumes/{id}` names `volumes/ID`: the last parameter and the part before it.
fn of_path(segments: &[String], path: &Map<String, Value>) -> Vec<String> {
    let is_parameter = |segment: &String| path.values().any(|value| value.as_str() == Some(segment));
    let Some(place) = segments.iter().rposition(is_parameter) else { return Vec::new() };
    let kind = segments[..place].iter().rev().find(|segment| !is_parameter(segment));
    kind.map(|kind| format!("{kind}/{}", segments[place])).into_iter().collect()
}

fn is_safe(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS")
}

/// What stands before an operation's own path: as the request has it, where that is not the same for all.
fn prefix(provider: &Provider, request: &Request) -> String {
    let Some(first) = provider.paths.first() else { return String::new() };
    if !first.contains('*') {
        return first.trim_end_matches('/').to_owned();
    }
    let parts: Vec<&str> = request.path().split('/').filter(|part| !part.is_empty()).collect();
    let matches = |pattern: &&String| {
        let pattern: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
        parts.len() >= pattern.len() && parts.iter().zip(&pattern).all(|(part, pattern)| glob(pattern, part))
    };
    let length = provider.paths.iter().find(matches).map_or(0, |pattern| pattern.split('/').filter(|part| !part.is_empty()).count());
    parts[..length].iter().map(|part| format!("/{part}")).collect()
}

/// A request that no catalog knows.
fn by_method(request: &Canonical) -> Invocation {
    let method = &request.request.method;
    Invocation {
        id: None,
        label: format!("{method} {}", request.request.path()),
        arguments: rest::arguments(Map::new(), request),
        safe: is_safe(method),
        ..Invocation::default()
    }
}

/// What one operation does, and all that the catalog knows about it.
fn judge(provider: Option<&Provider>, provider_name: &str, request: &Request, invocation: &Invocation) -> Call {
    let row = invocation.id.as_ref().and_then(|id| provider.and_then(|provider| provider.row(id)));
    let listed = invocation.id.as_ref().and_then(|id| provider.and_then(|provider| provider.class(id)));
    let mut because = invocation.because.clone();
    let mut class = match listed.or_else(|| invocation.class.clone()) {
        Some(class) => class,
        None if invocation.safe => {
            because.push("it is in no catalog; its method says that it only reads".to_owned());
            Class::plain(Kind::Read)
        }
        None => {
            because.push("it is in no catalog, and its method doesn't say that it only reads".to_owned());
            Class::plain(Kind::Unknown)
        }
    };
    because.extend(row.and_then(|row| row.note.clone()));
    let dry_run = row.and_then(|row| row.dry_run.as_ref()).is_some_and(|test| test.holds_strictly(&invocation.arguments));
    let mut resources = Vec::new();
    if let Some(row) = row {
        name(&row.names, &invocation.arguments, &mut resources);
    }
    if dry_run {
        class = Class::plain(Kind::Read);
        because.push("it only says what it would do".to_owned());
    } else {
        let id = invocation.id.as_deref().unwrap_or_default();
        let general = provider.into_iter().flat_map(|provider| &provider.guards).filter(|guard| guard.concerns(id));
        let own = row.into_iter().flat_map(|row| &row.guards);
        // What only reads has nothing to guard.
        let reads = class.kind == Kind::Read;
        for guard in general.filter(|_| !reads).chain(own).filter(|guard| guard.test.holds(&invocation.arguments)) {
            class.raise(&guard.class);
            because.push(guard.because.clone());
            name(&guard.names, &invocation.arguments, &mut resources);
        }
    }
    for (raised, why) in &invocation.raise {
        class.raise(raised);
        because.push(why.clone());
    }
    if resources.is_empty() {
        resources.clone_from(&invocation.resources);
    }
    if resources.len() >= MOST_RESOURCES {
        class.raise(&Class::plain(Kind::Unknown));
        because.push(format!("it names {MOST_RESOURCES} things or more, which is too many to look at"));
    }
    let known = |id: &str| json!({ "id": id, "args": invocation.arguments, "host": request.host });
    let first = resources.first().and_then(|resource| resource.split_once('/')).map_or("", |(_, id)| id).to_owned();
    let draft = |ask: &Ask| provider.map_or_else(|| Err(unfillable()), |provider| draft(provider, request, ask));
    let fill = |ask: &Ask, known: &Value| draft(ask).and_then(|draft| draft.fill(known));
    let mut lookups = invocation.lookups.clone();
    for resource in &resources {
        let Some((kind, id)) = resource.split_once('/') else { continue };
        for resolve in provider.and_then(|provider| provider.resource(kind)).into_iter().flat_map(|row| &row.resolve) {
            lookups.push(Lookup {
                resource: resource.clone(),
                request: fill(&resolve.ask, &known(id)),
                reads: resolve.read.iter().map(|(what, places)| (what.clone(), texts(places))).collect(),
                unit: resolve.unit.clone(),
            });
        }
    }
    let mut escrow = invocation.escrow.clone();
    escrow.extend(row.into_iter().flat_map(|row| &row.escrow).map(|step| {
        Escrow {
            save: step.save.clone(),
            says: step.says.clone(),
            request: draft(&step.ask).and_then(|draft| with_once(&draft, &known(&first), 0)),
            anew: draft(&step.ask)
                .ok()
                .map(|draft| (draft, known(&first)))
                .filter(|(draft, known)| draft.fill(known) == Err(Missing(ONCE.to_owned()))),
            take: step.take.clone(),
            until: step.until.as_ref().and_then(|until| {
                let draft = draft(&until.ask).ok()?;
                Some(Until { draft, known: known(&first), at: until.at.clone(), is: until.is.clone(), never: until.never.clone() })
            }),
            going: step.going.clone(),
            raw: step.raw,
            unless: step.unless.iter().map(|unless| Unless { test: unless.test.clone(), because: unless.because.clone() }).collect(),
        }
    }));
    let undo = row.and_then(|row| row.undo.as_ref()).and_then(|undo| {
        // A call that names several things at once would need several calls back.
        let back = if resources.len() > 1 { None } else { draft(&undo.ask).ok() };
        let check = undo.check.as_ref().and_then(|ask| draft(ask).ok());
        back.map(|back| Undo {
            says: undo.says.clone(),
            loses: undo.loses.clone(),
            anew: undo.anew.clone(),
            draft: back,
            absent: undo.absent.as_ref().and_then(|ask| draft(ask).ok()),
            check: check.map(|draft| Check { draft, take: undo.take.clone(), going: None }),
            known: known(&first),
        })
    });
    let staged = row.and_then(|row| row.staged.as_ref().map(|staged| (row, staged))).map(|(row, staged): (&Row, &StagedRow)| Staged {
        request: fill(&staged.ask, &known(&first)),
        take: staged.take.clone(),
        otherwise: staged.class.clone(),
        row: row.clone(),
    });
    Call {
        operation: format!("{provider_name}:{}", shown(&invocation.label)),
        escrow,
        undo: undo.or_else(|| invocation.undo.clone()),
        adds: row.and_then(|row| row.adds.clone()),
        soft: row.and_then(|row| row.soft.clone()),
        staged,
        sql: row
            .and_then(|row| row.sql.as_ref())
            .map_or_else(Vec::new, |at| place::find(&invocation.arguments, at).iter().map(|found| place::plain(&found.value)).collect()),
        dry_run,
        class,
        because,
        lookups,
        resources,
    }
}

/// Adds what `names` finds to `resources`.
fn name(names: &[Naming], arguments: &Value, resources: &mut Vec<String>) {
    for naming in names {
        for id in naming.ids(arguments) {
            push(resources, format!("{}/{id}", naming.r#type));
        }
    }
}

fn push(resources: &mut Vec<String>, resource: String) {
    if resources.len() < MOST_RESOURCES && !resources.contains(&resource) {
        resources.push(resource);
    }
}

fn unfillable() -> Missing {
    Missing("provider".to_owned())
}

/// A draft of what the catalog asks, for the host that the request went to.
pub(crate) fn draft(provider: &Provider, request: &Request, ask: &Ask) -> Result<Draft, Missing> {
    let mut headers = ask.headers.clone();
    headers.entry("accept".to_owned()).or_insert_with(|| "application/json".to_owned());
    let mut draft = Draft {
        method: "POST".to_owned(),
        scheme: request.scheme.clone(),
        host: ask.host.clone().unwrap_or_else(|| request.host.clone()),
        target: "/".to_owned(),
        headers,
        body: ask.body.clone(),
        encoding: if ask.file { Encoding::Bytes } else { Encoding::Json },
        keep: ask.keep.clone(),
        drop: ask.drop.clone(),
        headers_from: ask.headers_from.clone(),
    };
    if let Some(scope) = aws::scope_header(request, None) {
        draft.headers.insert("authorization".to_owned(), scope);
    }
    if let Some(document) = &ask.graphql {
        draft.target = provider.paths.first().cloned().unwrap_or_else(|| "/graphql".to_owned());
        draft.body = Some(json!({ "query": document, "variables": ask.variables }));
    } else if let Some((method, target)) = ask.call.as_ref().and_then(|call| call.split_once(' ')) {
        if provider.speaks == Speaks::Aws && ask.host.is_none() {
            draft.host = aws::host_without_bucket(&request.host);
        }
        let prefix = match provider.speaks {
            Speaks::Rest => prefix(provider, request),
            Speaks::Graphql | Speaks::Aws | Speaks::Kubernetes => String::new(),
        };
        method.clone_into(&mut draft.method);
        draft.target = format!("{prefix}{target}");
    } else if let Some((service, operation)) = ask.aws.as_ref().and_then(|name| name.split_once(':')) {
        let service = provider.services.get(service).ok_or_else(unfillable)?;
        if let Some(scope) = aws::scope_header(request, Some(service.signing_name())) {
            draft.headers.insert("authorization".to_owned(), scope);
        }
        let mut input = ask.with.as_object().cloned().unwrap_or_default();
        if service.protocols.iter().any(|protocol| protocol == "query" || protocol == "ec2") {
            input.insert("Action".to_owned(), json!(operation));
            input.insert("Version".to_owned(), json!(service.version));
            draft.encoding = Encoding::Form;
            draft.headers.insert("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned());
        } else if service.protocols.iter().any(|protocol| protocol == "json") {
            draft.headers.insert("x-amz-target".to_owned(), format!("{}.{operation}", service.target));
            draft.headers.insert("content-type".to_owned(), "application/x-amz-json-1.1".to_owned());
        } else {
            return Err(unfillable());
        }
        draft.body = Some(Value::Object(input));
    } else {
        return Err(unfillable());
    }
    if draft.body.is_some() && !ask.file {
        draft.headers.entry("content-type".to_owned()).or_insert_with(|| "application/json".to_owned());
    }
    Ok(draft)
}

fn effects(call: &Call) -> Vec<Effect> {
    let effect = |resource: Option<&String>| match call.class.kind {
        Kind::Unknown => Effect::Unknown { because: format!("`{}`: {}", call.operation, call.because.join("; ")) },
        kind => {
            Effect::Invoke { operation: call.operation.clone(), kind, resource: resource.cloned(), hazards: call.class.hazards.clone() }
        }
    };
    if call.resources.is_empty() || call.class.kind == Kind::Unknown {
        return vec![effect(None)];
    }
    call.resources.iter().map(|resource| effect(Some(resource))).collect()
}

/// Method, host, path and the operations' names; parts of the path that look like credentials are hidden.
fn redacted(request: &Canonical, calls: &[Call]) -> String {
    let mut text = format!("{} {}://{}", request.request.method, request.request.scheme, request.request.host);
    for segment in &request.segments {
        let secret = segment.len() >= 20
            && segment.bytes().any(|byte| byte.is_ascii_digit())
            && segment.bytes().any(|byte| byte.is_ascii_alphabetic())
            && calls.iter().all(|call| !call.resources.iter().any(|resource| resource.contains(segment.as_str())));
        let _ = write!(text, "/{}", if secret { "***".to_owned() } else { shown(segment) });
    }
    let names: Vec<String> = request.query.iter().map(|(name, _)| shown(name)).collect();
    if !names.is_empty() {
        let _ = write!(text, "?{}", names.join("&"));
    }
    for call in calls.iter().take(20) {
        let _ = write!(text, " {}", call.operation);
        for resource in call.resources.iter().take(5) {
            let _ = write!(text, " {}", shown(resource));
        }
    }
    text
}
