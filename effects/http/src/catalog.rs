//! The catalog: what each provider's operations mean.
//!
//! Providers are files (`format.rs`); those of this repository's `catalog/` are compiled in, users add their own. Long lists of
//! operations are generated from the providers' own descriptions (`table.rs`).

use std::collections::{BTreeMap, HashMap};

use crate::{
    aws::{self, Services},
    class::{Class, UnknownClass},
    format::{File, Guard, ResourceRow, Row, Speaks},
    guard::glob,
    place,
    rest::Routes,
    table::Table,
};

/// The files that are compiled in, by name, and the generated operations that belong to them.
const BUILT_IN: &[(&str, &str, &[u8])] = &[
    ("aws", include_str!("../../../catalog/aws.toml"), include_bytes!("../../../catalog/generated/aws.tsv.gz")),
    ("cloudflare", include_str!("../../../catalog/cloudflare.toml"), include_bytes!("../../../catalog/generated/cloudflare.tsv.gz")),
    ("digitalocean", include_str!("../../../catalog/digitalocean.toml"), include_bytes!("../../../catalog/generated/digitalocean.tsv.gz")),
    ("docker", include_str!("../../../catalog/docker.toml"), &[]),
    ("fly", include_str!("../../../catalog/fly.toml"), &[]),
    ("fly-machines", include_str!("../../../catalog/fly-machines.toml"), &[]),
    ("github", include_str!("../../../catalog/github.toml"), include_bytes!("../../../catalog/generated/github.tsv.gz")),
    ("heroku", include_str!("../../../catalog/heroku.toml"), &[]),
    ("kubernetes", include_str!("../../../catalog/kubernetes.toml"), &[]),
    ("neon", include_str!("../../../catalog/neon.toml"), include_bytes!("../../../catalog/generated/neon.tsv.gz")),
    ("railway", include_str!("../../../catalog/railway.toml"), &[]),
    ("stripe", include_str!("../../../catalog/stripe.toml"), include_bytes!("../../../catalog/generated/stripe.tsv.gz")),
    ("supabase", include_str!("../../../catalog/supabase.toml"), &[]),
    ("vercel", include_str!("../../../catalog/vercel.toml"), include_bytes!("../../../catalog/generated/vercel.tsv.gz")),
];

/// Every provider.
#[derive(Debug, Default)]
pub struct Catalog {
    providers: BTreeMap<String, Provider>,
}

/// One provider.
#[derive(Debug)]
pub struct Provider {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) speaks: Speaks,
    pub(crate) hosts: Vec<String>,
    pub(crate) paths: Vec<String>,
    pub(crate) sources: Vec<String>,
    pub(crate) secret_fields: Vec<String>,
    pub(crate) guards: Vec<Guard>,
    /// Classes of operations that have no row of their own, or a row without a class.
    classes: HashMap<String, Class>,
    rows: HashMap<String, Row>,
    resources: HashMap<String, ResourceRow>,
    pub(crate) routes: Routes,
    pub(crate) table: Table,
    pub(crate) services: Services,
}

/// Why a catalog can't be.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The file's form is wrong.
    #[error("`{file}` is not a provider's file")]
    Form {
        /// Which.
        file: String,
        /// Where and what.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A class is none.
    #[error("in `{file}`")]
    Class {
        /// Which.
        file: String,
        /// What.
        #[source]
        source: UnknownClass,
    },
    /// The file contradicts itself or another.
    #[error("in `{file}`: {what}")]
    Content {
        /// Which.
        file: String,
        /// What.
        what: String,
    },
}

impl Catalog {
    /// The catalog that is compiled in.
    pub fn built_in() -> Result<Self, CatalogError> {
        let mut catalog = Self::default();
        for (name, text, table) in BUILT_IN {
            catalog.add(name, text)?;
            if let Some(provider) = catalog.providers.get_mut(*name) {
                match provider.speaks {
                    Speaks::Aws => provider.services = Services::new(table),
                    Speaks::Rest | Speaks::Graphql | Speaks::Kubernetes => provider.table = Table::new(table),
                }
            }
        }
        Ok(catalog)
    }

    /// Adds a provider, or to a provider, from `text`, which is called `file` in errors.
    pub fn add(&mut self, file: &str, text: &str) -> Result<(), CatalogError> {
        let read: File = toml::from_str(text).map_err(|source| CatalogError::Form { file: file.to_owned(), source: Box::new(source) })?;
        let wrong = |what: String| CatalogError::Content { file: file.to_owned(), what };
        let provider = self.providers.entry(read.name.clone()).or_insert_with(|| Provider::new(&read));
        if provider.speaks != read.speaks {
            return Err(wrong(format!("`{}` speaks something else in another file", read.name)));
        }
        provider.hosts.extend(read.hosts);
        provider.paths.extend(read.paths);
        provider.sources.extend(read.sources);
        provider.secret_fields.extend(read.secret_fields);
        check_guards(&read.guards).map_err(wrong)?;
        provider.guards.extend(read.guards);
        for (class, operations) in read.classes {
            let class: Class = class.parse().map_err(|source| CatalogError::Class { file: file.to_owned(), source })?;
            for operation in operations {
                if provider.classes.insert(operation.clone(), class.clone()).is_some_and(|before| before != class) {
                    return Err(wrong(format!("`{operation}` has two classes")));
                }
            }
        }
        for row in read.operations {
            check_guards(&row.guards).map_err(wrong)?;
            let unless = row.escrow.iter().flat_map(|step| &step.unless);
            if unless.into_iter().any(|unless| !unless.test.is_sound()) {
                return Err(wrong(format!("an `unless` of `{}` asks nothing", row.id.iter().next().map_or("", String::as_str))));
            }
            if row.dry_run.as_ref().is_some_and(|test| !test.is_sound()) || row.names.iter().any(|name| !place::is_place(&name.at)) {
                return Err(wrong(format!("a place or question of `{}` is none", row.id.iter().next().map_or("", String::as_str))));
            }
            for id in row.id.iter() {
                if let Some(call) = &row.call {
                    provider.routes.add(call, id, None).map_err(wrong)?;
                }
                provider.rows.insert(id.clone(), row.clone());
            }
        }
        for resource in read.resources {
            provider.resources.insert(resource.r#type.clone(), resource);
        }
        Ok(())
    }

    /// Every provider, by name.
    pub fn providers(&self) -> impl Iterator<Item = &Provider> {
        self.providers.values()
    }

    /// The provider of that name.
    #[must_use]
    pub fn provider(&self, name: &str) -> Option<&Provider> {
        self.providers.get(name)
    }

    /// The provider that answers on `host`, a port left out.
    #[must_use]
    pub fn of_host(&self, host: &str) -> Option<&Provider> {
        self.providers.values().find(|provider| provider.answers_on(host))
    }
}

impl Provider {
    fn new(file: &File) -> Self {
        Self {
            name: file.name.clone(),
            title: if file.title.is_empty() { file.name.clone() } else { file.title.clone() },
            speaks: file.speaks,
            hosts: Vec::new(),
            paths: Vec::new(),
            sources: Vec::new(),
            secret_fields: Vec::new(),
            guards: Vec::new(),
            classes: HashMap::new(),
            rows: HashMap::new(),
            resources: HashMap::new(),
            routes: Routes::default(),
            table: Table::default(),
            services: Services::default(),
        }
    }

    /// Its name, as settings spell it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name for people.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// How it is talked to.
    #[must_use]
    pub fn speaks(&self) -> Speaks {
        self.speaks
    }

    /// The hosts it answers on, as patterns.
    #[must_use]
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Where what is known about it comes from.
    #[must_use]
    pub fn sources(&self) -> &[String] {
        &self.sources
    }

    /// Whether it answers on `host`.
    #[must_use]
    pub fn answers_on(&self, host: &str) -> bool {
        let host =
            host.rsplit_once(':').map_or(host, |(name, port)| if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host });
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.hosts.iter().any(|pattern| {
            // A star is one or more labels only where the pattern begins with it.
            glob(pattern, &host) && (pattern.starts_with('*') || pattern.matches('.').count() == host.matches('.').count())
        })
    }

    /// Every operation that is known by name, with its class before arguments are looked at.
    #[must_use]
    pub fn operations(&self) -> BTreeMap<String, Option<Class>> {
        // A row for the same call comes before the generated operation.
        let is_own = |call: &str| {
            let (method, path) = call.split_once(' ').unwrap_or_default();
            let parts: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
            self.routes.find(method, &parts).is_some()
        };
        let generated = self.table.operations().filter(|(_, call, _)| !is_own(call)).map(|(id, _, _)| id.to_owned());
        let of_aws = self.services.classes().map(|(id, _)| id);
        let own = self.classes.keys().chain(self.rows.keys()).cloned();
        generated.chain(of_aws).chain(own).map(|id| (id.clone(), self.class(&id))).collect()
    }

    /// The class of an operation: by its row, by the lists, by the generated table.
    #[must_use]
    pub fn class(&self, id: &str) -> Option<Class> {
        let by_row = self.rows.get(id).and_then(|row| row.class.clone());
        by_row.or_else(|| self.classes.get(id).cloned()).or_else(|| self.table.class(id)).or_else(|| aws::class(&self.services, id))
    }

    pub(crate) fn row(&self, id: &str) -> Option<&Row> {
        self.rows.get(id)
    }

    pub(crate) fn resource(&self, kind: &str) -> Option<&ResourceRow> {
        self.resources.get(kind)
    }

    /// What is known of an operation beyond its class, in words: for `catalog show`.
    #[must_use]
    pub fn about(&self, id: &str) -> Vec<String> {
        let Some(row) = self.rows.get(id) else { return Vec::new() };
        let mut lines: Vec<String> = Vec::new();
        lines.extend(row.note.clone());
        lines.extend(row.names.iter().map(|name| format!("names a {} at `{}`", name.r#type, name.at)));
        lines.extend(row.guards.iter().map(|guard| format!("`{}`: {} ({})", guard.test.at, guard.class, guard.because)));
        lines.extend(row.adds.iter().map(|adds| format!("nothing to take back: {adds}")));
        lines.extend(row.soft.iter().map(|soft| format!("the provider keeps it: {soft}")));
        lines.extend(row.escrow.iter().map(|escrow| format!("kept first: {}", escrow.says)));
        lines.extend(row.undo.iter().map(|undo| {
            let loses = if undo.loses.is_empty() { String::new() } else { format!("; lost: {}", undo.loses) };
            let anew = if undo.anew.is_empty() { String::new() } else { format!("; another one afterwards: {}", undo.anew) };
            format!("undo: {}{loses}{anew}", undo.says)
        }));
        lines.extend(row.staged.iter().map(|_| "what was staged before is looked at first".to_owned()));
        lines
    }
}

fn check_guards(guards: &[Guard]) -> Result<(), String> {
    match guards.iter().find(|guard| !guard.test.is_sound() || guard.names.iter().any(|name| !place::is_place(&name.at))) {
        Some(guard) => Err(format!("the guard at `{}` asks nothing, or several things at once", guard.test.at)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
