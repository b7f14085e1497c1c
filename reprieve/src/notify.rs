//! `[[notify]]`: where people hear of holds.

use std::time::Duration;

use anyhow::{Context as _, bail};
use reprieve_notify::{Channel, Notifier, NotifierOptions, QuietHours, Route};
use reprieve_operation::Environment;
use reprieve_secrets::resolve;
use serde::Deserialize;

use crate::{
    keys::Keys,
    settings::{Settings, some_duration},
    wire::Parts,
};

/// One channel.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Notify {
    /// What the record calls it.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Its address, as `secret:NAME`, `env:NAME` or `file:PATH`: whoever knows it may write there.
    url: String,
    /// A webhook's key, or ntfy's access token, named in the same way.
    credential: Option<String>,
    /// Of mail.
    from: Option<String>,
    /// Of mail.
    #[serde(default)]
    to: Vec<String>,
    /// How long a hold has to wait before this channel hears of it.
    #[serde(default, deserialize_with = "some_duration")]
    after: Option<Duration>,
    /// When it is quiet, in UTC: `22:00-06:00`.
    quiet: Option<String>,
    /// Environments it is told of; all if missing.
    #[serde(default)]
    environments: Vec<Environment>,
}

/// What sort of channel it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Webhook,
    Slack,
    Ntfy,
    Mail,
}

impl Notify {
    fn open(&self, keys: &Keys) -> anyhow::Result<Channel> {
        let secret = |reference: &str| -> anyhow::Result<String> {
            if ["secret:", "env:", "file:"].iter().all(|scheme| !reference.starts_with(scheme)) {
                bail!("its address is a credential: name it as `secret:NAME`, `env:NAME` or `file:PATH`");
            }
            let secrets = keys.secrets()?;
            Ok(resolve(reference, Some(&secrets))?.reveal().trim().to_owned())
        };
        let url = secret(&self.url)?;
        let credential = self.credential.as_deref().map(secret).transpose()?;
        let of_mail = self.from.is_some() || !self.to.is_empty();
        if of_mail != (self.kind == Kind::Mail) {
            bail!("`from` and `to` are mail’s, and mail needs both");
        }
        if self.kind != Kind::Mail && !(url.starts_with("https://") || url.starts_with("http://")) {
            bail!("its address is not `https://…`");
        }
        let route = match (self.kind, credential) {
            (Kind::Webhook, key) => Route::Webhook { url, key },
            (Kind::Slack, None) => Route::Slack { url },
            (Kind::Ntfy, token) => Route::ntfy(&url, token)?,
            (Kind::Mail, None) => Route::mail(&url, self.from.as_deref().unwrap_or_default(), &self.to)?,
            (Kind::Slack | Kind::Mail, Some(_)) => bail!("its address is its credential; `credential` is a webhook’s or ntfy’s"),
        };
        let quiet = self.quiet.as_deref().map(str::parse::<QuietHours>).transpose()?;
        let environments = self.environments.clone();
        Ok(Channel { name: self.name.clone(), route, after: self.after.unwrap_or_default(), quiet, environments })
    }
}

/// Every channel of the settings, opened.
pub(crate) fn channels(settings: &Settings, keys: &Keys) -> anyhow::Result<Vec<Channel>> {
    let mut channels: Vec<Channel> = Vec::new();
    for notify in &settings.notify {
        if notify.name.is_empty() || channels.iter().any(|channel| channel.name == notify.name) {
            bail!("two channels of `[[notify]]` are called `{}`, or one has no name", notify.name);
        }
        channels.push(notify.open(keys).with_context(|| format!("the channel `{}` of `[[notify]]` is not right", notify.name))?);
    }
    Ok(channels)
}

/// Who tells people of holds.
pub(crate) fn notifier(settings: &Settings, keys: &Keys, parts: &Parts) -> anyhow::Result<Notifier> {
    let options = NotifierOptions { channels: channels(settings, keys)?, link: format!("{}/holds/", settings.console_origin()?.as_str()) };
    Ok(Notifier::new(parts.audit.clone(), std::sync::Arc::new(reprieve_audit::SystemClock), options))
}
