//! `reprieve explain http`, `reprieve http explain` and `reprieve catalog show`: how a request to a service is understood and
//! why, without sending it.

use std::{collections::BTreeSet, io::BufRead as _, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use reprieve_audit::SystemClock;
use reprieve_effects_http::{Analysis, Body, Call, Catalog, Class, Request, analyze};
use reprieve_gate::Clock as _;
use reprieve_operation::{
    Action, Decision, Environment, Facts, Kind, Operation, Principal, Protocol, Scope, SessionId, SystemName, TokenId, Undoability,
};
use reprieve_policy::{Policy, decide};
use serde_json::{Value, json};

use crate::{args, curl, settings::Settings, wire};

/// The catalog that is compiled in, and the user's files.
pub(crate) fn catalog(settings: &Settings) -> anyhow::Result<Catalog> {
    let mut catalog = Catalog::built_in().context("the built-in catalog is not right")?;
    for file in &settings.catalog.files {
        let path = settings.path(file);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        catalog.add(&path.display().to_string(), &text).with_context(|| format!("{} is not right", path.display()))?;
    }
    Ok(catalog)
}

/// One request a line on standard input, one JSON line out.
pub(crate) fn explain_lines(settings: &Settings, environment: &Environment) -> anyhow::Result<u8> {
    let (policy, catalog) = (wire::read_policy(settings)?, catalog(settings)?);
    for line in std::io::stdin().lock().lines() {
        let line = line.context("cannot read standard input")?;
        if line.trim().is_empty() {
            continue;
        }
        let given = serde_json::from_str::<Value>(&line).ok().filter(Value::is_object).unwrap_or_else(|| json!({ "request": line }));
        let system = given.get("system").and_then(Value::as_str);
        let environment = match system.map(|name| settings.system(name)) {
            Some(Ok(system)) => system.environment.clone(),
            Some(Err(_)) => Environment::production(),
            None => environment.clone(),
        };
        let provider = given.get("provider").and_then(Value::as_str);
        let answer = match request_of(given.get("request").unwrap_or(&Value::Null)) {
            Ok(request) => verdict(settings, &policy, &catalog, provider, &request, &environment),
            Err(error) => json!({ "error": format!("{error:#}") }),
        };
        tell!("{answer}");
    }
    Ok(0)
}

/// One `curl` command line.
pub(crate) fn http(
    cli: &args::Cli,
    settings: &Settings,
    args::Http::Explain { provider, environment, command }: &args::Http,
) -> anyhow::Result<u8> {
    let (policy, catalog) = (wire::read_policy(settings)?, catalog(settings)?);
    let request = curl::request(command)?;
    let answer = verdict(settings, &policy, &catalog, provider.as_deref(), &request, environment);
    if cli.json {
        tell!("{answer}");
        return Ok(0);
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    tell!("{:<10} {}", text(&answer["verdict"]), text(&answer["reason"]));
    tell!("{:<10} {}", "provider", text(&answer["provider"]));
    for call in answer["calls"].as_array().into_iter().flatten() {
        tell!("{:<10} {}", text(&call["class"]), text(&call["operation"]));
        for (label, field) in
            [("because", "because"), ("touches", "resources"), ("looks up", "lookups"), ("keeps", "keeps"), ("staged", "staged")]
        {
            call[field].as_array().into_iter().flatten().for_each(|line| tell!("  {label:<8} {}", text(line)));
        }
        for (label, field) in [("undo", "undo"), ("loses", "loses"), ("adds", "adds"), ("provider", "soft")] {
            call[field].as_str().filter(|line| !line.is_empty()).into_iter().for_each(|line| tell!("  {label:<8} {line}"));
        }
    }
    tell!("{:<10} {}", "recorded", text(&answer["recorded"]));
    Ok(0)
}

/// What the catalog has of a provider, or of one of its operations.
pub(crate) fn catalog_show(cli: &args::Cli, settings: Option<&Settings>, command: &args::Catalog) -> anyhow::Result<u8> {
    let catalog = match settings {
        Some(settings) => catalog(settings)?,
        None => Catalog::built_in().context("the built-in catalog is not right")?,
    };
    let args::Catalog::Show { provider, operation } = command;
    let Some(name) = provider else {
        for provider in catalog.providers() {
            let (operations, hosts) = (provider.operations().len(), provider.hosts().join(", "));
            if cli.json {
                tell!(
                    "{}",
                    json!({ "provider": provider.name(), "title": provider.title(), "operations": operations, "hosts": provider.hosts() })
                );
            } else {
                tell!("{:<14} {operations:>6} operations  {hosts}", provider.name());
            }
        }
        return Ok(0);
    };
    let Some(provider) = catalog.provider(name) else { bail!("no provider is called `{name}`; `reprieve catalog show` lists them") };
    let operations = provider.operations();
    let wanted = |id: &str| operation.as_ref().is_none_or(|operation| id.to_lowercase().contains(&operation.to_lowercase()));
    if operation.is_none() && !cli.json {
        tell!("{} ({} operations), from {}", provider.title(), operations.len(), provider.sources().join("; "));
        tell!("hosts: {}", provider.hosts().join(", "));
    }
    let mut shown = 0;
    for (id, class) in operations.iter().filter(|(id, _)| wanted(id)) {
        let class = class.as_ref().map_or_else(|| "by its arguments".to_owned(), Class::to_string);
        let about = provider.about(id);
        if cli.json {
            tell!("{}", json!({ "operation": id, "class": class, "about": about }));
        } else {
            tell!("{class:<28} {id}");
            about.iter().for_each(|line| tell!("{:<28}   {line}", ""));
        }
        shown += 1;
    }
    Ok(u8::from(shown == 0))
}

/// A request as `{"method", "url", "headers", "body"}`, `METHOD URL`, or a `curl` command line.
fn request_of(given: &Value) -> anyhow::Result<Request> {
    if let Some(text) = given.as_str() {
        return match text.split_once(' ') {
            Some(("curl", _)) => curl::request(&curl::words(text)?),
            Some((method, url)) => curl::to(method, url.trim()),
            None => curl::to("GET", text),
        };
    }
    let field = |name: &str| given.get(name).and_then(Value::as_str);
    let mut request = curl::to(field("method").unwrap_or("GET"), field("url").context("it has no `url`")?)?;
    for (name, value) in given.get("headers").and_then(Value::as_object).into_iter().flatten() {
        request.headers.push((name.clone(), value.as_str().unwrap_or_default().to_owned()));
    }
    request.body = match given.get("body") {
        None | Some(Value::Null) => Body::Empty,
        Some(Value::String(text)) => Body::Bytes(text.clone().into_bytes()),
        Some(value) => {
            if request.header("content-type").is_none() {
                request.headers.push(("content-type".to_owned(), "application/json".to_owned()));
            }
            Body::Bytes(value.to_string().into_bytes())
        }
    };
    Ok(request)
}

/// What the rules say to it, for a token that covers everything, before anything is looked up.
fn verdict(
    settings: &Settings,
    policy: &Policy,
    catalog: &Catalog,
    provider: Option<&str>,
    request: &Request,
    environment: &Environment,
) -> Value {
    let provider = provider.or_else(|| catalog.of_host(&request.host).map(reprieve_effects_http::Provider::name)).unwrap_or("none");
    let analysis = analyze(catalog, provider, request);
    let (verdict, rule, reason) = match &analysis.problem {
        Some(problem) => ("refuse", Some("calls-not-understood".to_owned()), format!("the request could not be understood: {problem}")),
        None => match decide(policy, &operation(&analysis, environment), &facts(settings, environment)) {
            Decision::Allow(terms) => ("allow", None, terms.because.join(", ")),
            Decision::Needs(needs) => ("hold", Some(needs.rule), needs.reason),
            Decision::Refuse(refusal) => ("refuse", Some(refusal.rule), refusal.reason),
        },
    };
    json!({
        "provider": provider,
        "effects": analysis.effects,
        "calls": analysis.calls.iter().map(call).collect::<Vec<_>>(),
        "verdict": verdict,
        "rule": rule,
        "reason": reason,
        "recorded": analysis.redacted,
    })
}

fn call(call: &Call) -> Value {
    let lookups = call.lookups.iter().map(|lookup| match &lookup.request {
        Ok(request) => format!("{}: {} {}", lookup.resource, request.method, request.target),
        Err(missing) => format!("{}: can't be looked up, {missing}", lookup.resource),
    });
    json!({
        "operation": call.operation,
        "class": call.class.to_string(),
        "because": call.because,
        "resources": call.resources,
        "lookups": lookups.collect::<Vec<_>>(),
        "keeps": call.escrow.iter().map(|escrow| escrow.says.clone()).collect::<Vec<_>>(),
        "undo": call.undo.as_ref().map(|undo| undo.says.clone()),
        "loses": call.undo.as_ref().map(|undo| undo.loses.clone()),
        "adds": call.adds,
        "soft": call.soft,
        "staged": call.staged.iter().map(|_| "what was staged before is looked at first").collect::<Vec<_>>(),
        "sql": call.sql,
        "dry_run": call.dry_run,
    })
}

fn operation(analysis: &Analysis, environment: &Environment) -> Operation {
    let system: SystemName = "any".parse().expect("`any` is a name");
    let scope = Scope {
        kinds: BTreeSet::from([Kind::Read, Kind::Write, Kind::Destroy, Kind::Grant]),
        environments: BTreeSet::from([environment.clone()]),
        systems: BTreeSet::from([system.clone()]),
        resources: BTreeSet::from(["*".parse().expect("`*` is a pattern")]),
        rows_per_hour: None,
    };
    Operation {
        principal: Principal { agent: "explain".parse().expect("a name"), token: TokenId(0), on_behalf_of: None, scope: Arc::new(scope) },
        session: SessionId(0),
        system,
        environment: environment.clone(),
        protocol: Protocol::Http,
        text: analysis.text.as_str().into(),
        redacted: analysis.redacted.as_str().into(),
        bound: None,
        parameters: None,
        action: Action::SelfContained,
        effects: analysis.effects.clone().into(),
        reach: None,
        rows_apart: 0,
    }
}

fn facts(settings: &Settings, environment: &Environment) -> Facts {
    Facts {
        now: SystemClock.now(),
        frozen: false,
        approvals: 0,
        delayed: Duration::ZERO,
        window: Duration::ZERO,
        undoable: Undoability::None,
        budget: settings.budget.get(environment).copied().unwrap_or_default(),
        rows_this_hour: 0,
        recovery: reprieve_operation::RecoveryFacts::default(),
    }
}
