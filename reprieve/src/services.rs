//! The services behind the agents' proxy, as the settings describe them.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use reprieve_audit::SystemClock;
use reprieve_effects_http::Catalog;
use reprieve_gate::{Escrow, Gate, TakeBack};
use reprieve_secrets::resolve;
use reprieve_surface_http::{Credential, HostPattern, Options, Returns, Surface, System, SystemOptions};

use crate::{calls, keys::Keys, settings::Settings};

/// The services of the settings, and what their operations mean.
pub(crate) struct Services {
    systems: Vec<Arc<System>>,
    catalog: Arc<Catalog>,
}

/// The services; none where there is no service.
pub(crate) fn services(settings: &Settings, keys: &Keys) -> anyhow::Result<Option<Services>> {
    let systems = settings.services().map(|system| open(settings, system, keys).map(Arc::new)).collect::<anyhow::Result<Vec<_>>>()?;
    if systems.is_empty() {
        return Ok(None);
    }
    let catalog = Arc::new(calls::catalog(settings)?);
    if let Some(unknown) = settings.services().filter_map(|system| system.provider.as_ref()).find(|name| catalog.provider(name).is_none()) {
        let known: Vec<&str> = catalog.providers().map(|provider| provider.name()).collect();
        bail!("no provider is called `{unknown}`; the catalog has: {}", known.join(", "));
    }
    Ok(Some(Services { systems, catalog }))
}

impl Services {
    /// The agents' proxy.
    pub(crate) fn surface(
        self,
        settings: &Settings,
        keys: &Keys,
        gate: Arc<Gate>,
        escrow: Arc<dyn Escrow>,
    ) -> anyhow::Result<Arc<Surface>> {
        let options = Options { tls: Some(keys.tls()?), connections: settings.listen.sessions };
        Ok(Surface::new(gate, self.systems, self.catalog, escrow, keys.authority()?, options))
    }

    /// What takes calls back; without `escrow` it only looks.
    pub(crate) fn returns(&self, escrow: Option<Arc<dyn Escrow>>) -> Arc<dyn TakeBack> {
        Arc::new(Returns::new(self.systems.clone(), self.catalog.clone(), escrow))
    }
}

/// One service.
pub(crate) fn open(settings: &Settings, system: &crate::settings::System, keys: &Keys) -> anyhow::Result<System> {
    let name = &system.name;
    let credential = match (&system.credential, &system.presented) {
        (None, None) => Credential::none(),
        (Some(reference), Some(way)) => {
            let secret = resolve(reference, Some(&keys.secrets()?)).with_context(|| format!("cannot find the credential of `{name}`"))?;
            let credential = match way.as_str() {
                "sigv4" => Credential::signing(secret.reveal(), Arc::new(SystemClock)),
                way => Credential::new(way, secret.reveal()),
            };
            credential.with_context(|| format!("the credential of `{name}` is not right"))?
        }
        _ => bail!("`credential` and `as` belong together in the system `{name}`"),
    };
    let hosts = system.hosts.iter().map(|host| host.parse::<HostPattern>().with_context(|| format!("`{host}` of `{name}` is no host")));
    let networks = system.networks.iter().map(|text| text.parse().with_context(|| format!("`{text}` of `{name}` is no network")));
    let authorities = system.ca.as_ref().map(|path| {
        let path = settings.path(path);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    });
    let url =
        if system.url.is_empty() { None } else { Some(system.url.parse().with_context(|| format!("the `url` of `{name}` is not right"))?) };
    let options = SystemOptions {
        name: name.clone(),
        environment: system.environment.clone(),
        provider: system.provider.clone(),
        hosts: hosts.collect::<anyhow::Result<_>>()?,
        url,
        credential,
        authorities: authorities.transpose()?,
        networks: networks.collect::<anyhow::Result<_>>()?,
    };
    Ok(System::new(options)?)
}
