//! How a message is handed over: a webhook, a chat that takes Slack's form, ntfy, or mail.
//!
//! Handing over blocks, for at most [`PATIENCE`]. Redirects are not followed, and what comes back is not kept.

use std::{fmt, fmt::Write as _, time::Duration};

use hmac::{Hmac, Mac as _};
use lettre::{
    Message as Mail, SmtpTransport, Transport as _,
    message::{Mailbox, header::ContentType},
};
use reprieve_operation::{Environment, Timestamp};
use serde_json::json;
use sha2::Sha256;
use thiserror::Error;

use crate::{Message, QuietHours};

/// No handing over takes longer.
const PATIENCE: Duration = Duration::from_secs(8);
/// What is kept of a reason.
const LONGEST_REASON: usize = 160;

/// A channel.
#[derive(Debug)]
pub struct Channel {
    /// What the record calls it.
    pub name: String,
    /// Where it leads.
    pub route: Route,
    /// How long a hold has to wait before this channel hears of it: the next one to ask.
    pub after: Duration,
    /// When it is quiet.
    pub quiet: Option<QuietHours>,
    /// Environments it is told of; all if empty.
    pub environments: Vec<Environment>,
}

/// Where a channel leads. Addresses may hold credentials and are not shown.
pub enum Route {
    /// JSON, signed with the key where there is one: `Reprieve-Signature: t=MILLISECONDS,v1=HMAC-SHA256 of "t.body"`.
    Webhook {
        /// The address.
        url: String,
        /// The key.
        key: Option<String>,
    },
    /// A webhook of Slack's, Mattermost's or another chat's that takes the same.
    Slack {
        /// The address.
        url: String,
    },
    /// An ntfy server's topic.
    Ntfy {
        /// `https://HOST`.
        server: String,
        /// The topic.
        topic: String,
        /// An access token.
        token: Option<String>,
    },
    /// Mail.
    Mail {
        /// Sends it.
        transport: Box<SmtpTransport>,
        /// From whom.
        from: Mailbox,
        /// To whom.
        to: Vec<Mailbox>,
    },
}

/// Why a channel can't be used, or a message was not handed over.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ChannelError(String);

impl ChannelError {
    fn new(text: impl fmt::Display) -> Self {
        Self(text.to_string().chars().take(LONGEST_REASON).collect())
    }
}

impl Route {
    /// ntfy's address of a topic: `https://HOST/TOPIC`.
    pub fn ntfy(url: &str, token: Option<String>) -> Result<Self, ChannelError> {
        let wrong = || ChannelError::new("an ntfy address is `https://HOST/TOPIC`");
        let (server, topic) = url.trim_end_matches('/').rsplit_once('/').ok_or_else(wrong)?;
        if !server.starts_with("http") || server.len() < 9 || topic.is_empty() {
            return Err(wrong());
        }
        Ok(Self::Ntfy { server: server.to_owned(), topic: topic.to_owned(), token })
    }

    /// Mail by the server at `url`: `smtps://USER:PASSWORD@HOST`, `smtp://HOST:25?tls=required`, or plain `smtp://HOST:25`.
    pub fn mail(url: &str, from: &str, to: &[String]) -> Result<Self, ChannelError> {
        let mailbox =
            |text: &str| text.parse::<Mailbox>().map_err(|error| ChannelError::new(format!("`{text}` is no mail address: {error}")));
        let transport =
            SmtpTransport::from_url(url).map_err(|_| ChannelError::new("the mail server's address is not `smtps://USER:PASSWORD@HOST`"))?;
        let to = to.iter().map(|text| mailbox(text)).collect::<Result<Vec<_>, _>>()?;
        if to.is_empty() {
            return Err(ChannelError::new("nobody is named to get the mail"));
        }
        Ok(Self::Mail { transport: Box::new(transport.timeout(Some(PATIENCE)).build()), from: mailbox(from)?, to })
    }

    /// Hands a message over. Blocks.
    pub(crate) fn hand_over(&self, message: &Message, now: Timestamp) -> Result<(), ChannelError> {
        match self {
            Self::Webhook { url, key } => {
                let body = message.json().to_string();
                let signature = key.as_ref().map(|key| signature(key, now, &body));
                post(url, &body, signature.as_deref().map(|signature| ("Reprieve-Signature", signature)))
            }
            Self::Slack { url } => post(url, &slack(message), None),
            Self::Ntfy { server, topic, token } => {
                let priority = if message.environment.is_production() { 5 } else { 3 };
                let body = json!({ "topic": topic, "title": message.title, "message": message.lines.join("\n"), "click": message.link, "priority": priority });
                let bearer = token.as_ref().map(|token| format!("Bearer {token}"));
                post(server, &body.to_string(), bearer.as_deref().map(|bearer| ("Authorization", bearer)))
            }
            Self::Mail { transport, from, to } => {
                let mut mail =
                    Mail::builder().from(from.clone()).subject(format!("[Reprieve] {}", message.title)).header(ContentType::TEXT_PLAIN);
                for one in to {
                    mail = mail.to(one.clone());
                }
                let mail = mail.body(message.text()).map_err(ChannelError::new)?;
                transport.send(&mail).map(drop).map_err(ChannelError::new)
            }
        }
    }
}

/// Plain text in a block, and the same escaped for whoever shows the fallback: nothing is a mention, and only our own link is one.
fn slack(message: &Message) -> String {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let plain = |text: &str| json!({ "type": "plain_text", "text": text, "emoji": false });
    let fallback = format!("{}\n{}\n{}", escaped(&message.title), escaped(&message.lines.join("\n")), message.link);
    json!({
        "text": fallback, "mrkdwn": false, "link_names": false, "parse": "none", "unfurl_links": false, "unfurl_media": false,
        "blocks": [
            { "type": "header", "text": plain(&message.title) },
            { "type": "section", "text": plain(&message.lines.join("\n")) },
            { "type": "actions", "elements": [{ "type": "button", "text": plain("Look at it"), "url": message.link }] },
        ],
    })
    .to_string()
}

fn signature(key: &str, now: Timestamp, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(format!("{}.{body}", now.0).as_bytes());
    let mut text = format!("t={},v1=", now.0);
    for byte in mac.finalize().into_bytes() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn post(url: &str, body: &str, header: Option<(&str, &str)>) -> Result<(), ChannelError> {
    let agent =
        ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).max_redirects(0).http_status_as_error(false).build().new_agent();
    let mut request = agent.post(url).header("Content-Type", "application/json").header("User-Agent", "reprieve");
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    // An address may be a credential: of an error only its sort is told.
    let failed = |error: ureq::Error| match error {
        ureq::Error::Timeout(_) => ChannelError::new("it did not answer in time"),
        ureq::Error::Io(error) => ChannelError::new(error),
        ureq::Error::HostNotFound => ChannelError::new("its host was not found"),
        _ => ChannelError::new("it could not be reached"),
    };
    let answer = request.send(body).map_err(failed)?;
    if answer.status().is_success() { Ok(()) } else { Err(ChannelError::new(format!("it answered {}", answer.status().as_u16()))) }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Webhook { .. } => "Webhook",
            Self::Slack { .. } => "Slack",
            Self::Ntfy { .. } => "Ntfy",
            Self::Mail { .. } => "Mail",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_and_not_shown() {
        assert!(matches!(Route::ntfy("https://ntfy.example/on-call", None), Ok(Route::Ntfy { topic, .. }) if topic == "on-call"));
        for bad in ["", "on-call", "https://", "ntfy.example/x"] {
            assert!(Route::ntfy(bad, None).is_err(), "{bad}");
        }
        let mail =
            |url: &str, to: &[&str]| Route::mail(url, "reprieve@example.com", &to.iter().map(|to| (*to).to_owned()).collect::<Vec<_>>());
        let route = mail("smtp://user:hunter2@mail.example:25", &["ana@example.com"]).expect("a route");
        assert!(!format!("{route:?}").contains("hunter2"));
        assert!(mail("smtp://mail.example", &[]).is_err());
        assert!(mail("http://mail.example", &["ana@example.com"]).is_err());
        assert!(mail("smtp://mail.example", &["no address"]).is_err());
    }

    #[test]
    fn a_signature_is_that_of_time_and_body() {
        // From another implementation: printf '1000.{}' | openssl dgst -sha256 -hmac key
        let made = signature("key", Timestamp(1_000), "{}");
        assert_eq!(made, "t=1000,v1=c32de42341dece79a1511c9e7f74a2734112edcfcf48943c976faf07047065db");
        assert_ne!(made, signature("key", Timestamp(1_001), "{}"));
        assert_ne!(made, signature("other", Timestamp(1_000), "{}"));
    }
}
