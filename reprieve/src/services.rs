//! The services behind the agents' proxy, as the settings describe them.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, bail};
use reprieve_audit::SystemClock;
use reprieve_effects_http::Catalog;
use reprieve_gate::{Escrow, Gate, TakeBack};
use reprieve_operation::SystemName;
use reprieve_secrets::resolve;
use reprieve_surface_http::{Credential, HostPattern, Options, Returns, SocketFolder, Surface, System, SystemOptions};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{
    calls,
    keys::Keys,
    settings::{Listener, Settings},
};

/// The largest file that is passed on where the settings don't say: as much as S3 takes in one request.
const LARGEST_FILE: u64 = 5 << 30;

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
        let options = Options { tls: Some(keys.tls()?), connections: settings.listen.sessions, host: settings.listen.host.clone() };
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
                "certificate" => Credential::shown(secret.reveal()),
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
    let socket = system.url.strip_prefix("unix:").map(|path| settings.path(Path::new(path)));
    let url = match (&socket, system.url.as_str()) {
        // What it is called in records, and by agents who reach it by the proxy.
        (Some(_), _) => Some(format!("http://{name}")),
        (None, "") => None,
        (None, url) => Some(url.to_owned()),
    };
    let url = url.map(|url| url.parse().with_context(|| format!("the `url` of `{name}` is not right"))).transpose()?;
    let options = SystemOptions {
        name: name.clone(),
        environment: system.environment.clone(),
        provider: system.provider.clone(),
        hosts: hosts.collect::<anyhow::Result<_>>()?,
        url,
        socket,
        credential,
        authorities: authorities.transpose()?,
        networks: networks.collect::<anyhow::Result<_>>()?,
        upgrades: system.upgrades.iter().map(|upgrade| upgrade.to_ascii_lowercase()).collect(),
        channel: system.channel.unwrap_or_default().limits(),
        largest_file: system.largest_file.unwrap_or(LARGEST_FILE),
    };
    Ok(System::new(options)?)
}

/// Services' own listeners, open but not served yet.
pub(crate) struct Fronts(Vec<(SystemName, Front)>);

enum Front {
    Address(TcpListener),
    Folder(SocketFolder),
}

impl Fronts {
    /// Opens every one of the settings.
    pub(crate) async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let mut fronts = Vec::new();
        for system in settings.services() {
            let front = match &system.listen {
                None => continue,
                Some(Listener::Address(address)) => {
                    let listener = TcpListener::bind(address).await;
                    Front::Address(listener.with_context(|| format!("cannot listen on {address} for `{}`", system.name))?)
                }
                Some(Listener::Folder(path)) => Front::Folder(SocketFolder::open(&settings.path(path), system.users.clone())?),
            };
            fronts.push((system.name.clone(), front));
        }
        Ok(Self(fronts))
    }

    /// Serves them until `stop` says so.
    pub(crate) fn serve(self, surface: &Arc<Surface>, stop: &watch::Receiver<bool>) -> Vec<JoinHandle<()>> {
        let serve = |(name, front): (SystemName, Front)| {
            let (system, surface, stop) = (surface.system(&name)?, surface.clone(), stop.clone());
            Some(match front {
                Front::Address(listener) => tokio::spawn(surface.listen_for(system, listener, stop)),
                Front::Folder(folder) => tokio::spawn(surface.listen_at(system, folder, stop)),
            })
        };
        self.0.into_iter().filter_map(serve).collect()
    }
}
