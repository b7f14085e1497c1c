//! The services of AWS and their operations, from the generated table.
//!
//! `#⇥service⇥signing name⇥endpoint prefix⇥protocols⇥target prefix⇥version` begins a service; its operations follow, a line each:
//! `Name⇥METHOD /path?needed&parameters⇥class`, the call only where its protocols have one.

use std::{collections::HashMap, io::Read as _, sync::OnceLock};

use flate2::read::GzDecoder;
use serde_json::{Map, Value};

use crate::{class::Class, rest::Routes};

/// Every service. Read from the table at first use.
#[derive(Debug, Default)]
pub(crate) struct Services {
    compressed: &'static [u8],
    read: OnceLock<Vec<Service>>,
}

/// One service.
#[derive(Debug, Default)]
pub(crate) struct Service {
    pub(super) name: String,
    /// What signatures call it.
    pub(super) signing: String,
    /// What its hosts begin with.
    pub(super) prefix: String,
    pub(crate) protocols: Vec<String>,
    /// What stands before an operation in `X-Amz-Target`.
    pub(crate) target: String,
    pub(crate) version: String,
    classes: HashMap<String, Class>,
    routes: Routes,
    /// The operations of one route, told apart by the parameters they need.
    by_route: HashMap<String, Vec<Route>>,
}

#[derive(Debug, Clone)]
struct Route {
    name: String,
    parameters: Vec<String>,
    constraints: Vec<String>,
}

/// An operation that was found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) class: Class,
    /// Parameters of the address that make it this one.
    pub(super) constraints: Vec<String>,
}

/// An operation with its path's parameters.
pub(super) type Routed = (Found, Map<String, Value>);

impl Service {
    /// What signatures call it.
    pub(crate) fn signing_name(&self) -> &str {
        &self.signing
    }
}

impl Services {
    pub(crate) fn new(compressed: &'static [u8]) -> Self {
        Self { compressed, read: OnceLock::new() }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Service> {
        self.read
            .get_or_init(|| {
                let mut text = String::new();
                // What can't be read has no services, so everything is held; a test reads the table that is compiled in.
                if self.compressed.is_empty() || GzDecoder::new(self.compressed).read_to_string(&mut text).is_err() {
                    return Vec::new();
                }
                read(&text)
            })
            .iter()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Service> {
        self.all().find(|service| service.name == name)
    }

    /// Every operation with its class.
    pub(crate) fn classes(&self) -> impl Iterator<Item = (String, Class)> {
        self.all().flat_map(|service| service.classes.iter().map(move |(name, class)| (format!("{}:{name}", service.name), class.clone())))
    }
}

impl Service {
    pub(super) fn operation(&self, name: &str) -> Option<Found> {
        self.classes.get(name).map(|class| Found { name: name.to_owned(), class: class.clone(), constraints: Vec::new() })
    }

    /// The operation of a path, by the names of the query's parameters, and the path's parameters.
    pub(super) fn route(&self, method: &str, segments: &[String], names: &[&str]) -> Result<Option<Routed>, String> {
        let Some(matched) = self.routes.find(method, segments) else { return Ok(None) };
        let routes = self.by_route.get(&matched.id).map_or(&[] as &[Route], Vec::as_slice);
        let fits = |route: &&Route| route.constraints.iter().all(|needed| names.contains(&needed.split('=').next().unwrap_or_default()));
        let Some(best) = routes.iter().filter(fits).map(|route| route.constraints.len()).max() else { return Ok(None) };
        let mut of_best = routes.iter().filter(fits).filter(|route| route.constraints.len() == best);
        let Some(route) = of_best.next() else { return Ok(None) };
        // Two kinds of parts in one address: which one counts is the service's secret.
        if let Some(other) = routes.iter().filter(fits).find(|other| other.constraints.iter().any(|name| !route.constraints.contains(name)))
        {
            return Err(format!("it can be read as `{}` and as `{}`", route.name, other.name));
        }
        let mut class = self.classes.get(&route.name).cloned().ok_or("its table is broken")?;
        for same in of_best {
            class.raise(self.classes.get(&same.name).ok_or("its table is broken")?);
        }
        let values = (0..route.parameters.len()).map(|place| matched.path.get(&place.to_string()).cloned().unwrap_or(Value::Null));
        let path = route.parameters.iter().cloned().zip(values).collect();
        Ok(Some((Found { name: route.name.clone(), class, constraints: route.constraints.clone() }, path)))
    }
}

fn read(text: &str) -> Vec<Service> {
    let mut services: Vec<Service> = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields.as_slice() {
            ["#", name, signing, prefix, protocols, target, version] => services.push(Service {
                name: (*name).to_owned(),
                signing: (*signing).to_owned(),
                prefix: (*prefix).to_owned(),
                protocols: protocols.split(',').map(str::to_owned).collect(),
                target: (*target).to_owned(),
                version: (*version).to_owned(),
                ..Service::default()
            }),
            [name, call, class] => {
                let (Some(service), Ok(class)) = (services.last_mut(), class.parse()) else { continue };
                service.classes.insert((*name).to_owned(), class);
                if !call.is_empty() {
                    service.add(name, call);
                }
            }
            _ => {}
        }
    }
    services
}

impl Service {
    fn add(&mut self, name: &str, call: &str) {
        let (path, query) = call.split_once('?').unwrap_or((call, ""));
        let constraints = query.split('&').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        // Parameters are numbered in the route, so that operations of one path share it whatever they call them.
        let (mut numbered, mut parameters) = (String::new(), Vec::new());
        for part in path.split_inclusive('/') {
            let bare = part.trim_end_matches('/');
            match bare.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
                Some(parameter) => {
                    let greedy = if parameter.ends_with('+') { "+" } else { "" };
                    numbered.push_str(&format!("{{{}{greedy}}}", parameters.len()));
                    parameters.push(parameter.trim_end_matches('+').to_owned());
                    numbered.push_str(&part[bare.len()..]);
                }
                None => numbered.push_str(part),
            }
        }
        let numbered = numbered.trim_end_matches('/').to_owned();
        let numbered = if numbered.ends_with(' ') { format!("{numbered}/") } else { numbered };
        if self.routes.add(&numbered, &numbered, None).is_ok() {
            self.by_route.entry(numbered).or_default().push(Route { name: name.to_owned(), parameters, constraints });
        }
    }
}
