//! What a request does, as the catalog tells it. What was understood is what is sent.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use reprieve_effects_http::{Analysis, Body, Catalog, Request, analyze};
use reprieve_operation::{Effect, Hazard, Kind, Parameters, Refusal};

use crate::{asked::Asked, place::Place, system::System};

/// Effects of SQL that are shown.
const MOST_EFFECTS: usize = 256;

/// A request that was understood, or can at least be sent in one way only.
#[derive(Debug, Clone)]
pub(crate) struct Understood {
    pub(crate) asked: Asked,
    pub(crate) analysis: Arc<Analysis>,
    /// What it touches, by its text alone.
    pub(crate) effects: Arc<[Effect]>,
    /// As people approve it, and its body where that is no text.
    pub(crate) text: Arc<str>,
    pub(crate) parameters: Option<Parameters>,
    /// As it is recorded.
    pub(crate) redacted: Arc<str>,
}

impl Understood {
    fn new(asked: Asked, analysis: Analysis) -> Self {
        let (text, parameters) = asked.held();
        let (effects, redacted) = (analysis.effects.clone().into(), analysis.redacted.as_str().into());
        Self { asked, analysis: Arc::new(analysis), effects, text: text.into(), parameters, redacted }
    }
}

/// Looks at a request. What has no one meaning is refused: nobody could say what to send.
pub(crate) fn understand(catalog: &Catalog, system: &System, asked: &Asked) -> Result<Understood, Refusal> {
    let mut request = asked.request();
    // Services are classified by the place agents call them by, wherever they really are.
    request.host = asked.place.authority();
    let mut analysis = analyze(catalog, system.provider.as_deref().unwrap_or_default(), &request);
    // What a service's database would do is seen by no guard: what the text says is said to whoever decides, and less is never made of it.
    let texts: Vec<&String> = analysis.calls.iter().flat_map(|call| &call.sql).collect();
    let said = texts.iter().flat_map(|text| reprieve_effects_sql::analyze(text).statements).flat_map(|statement| statement.effects);
    let said: Vec<Effect> = said.take(MOST_EFFECTS).collect();
    analysis.effects.extend(said);
    let sent = analysis.send.as_ref().and_then(|send| Asked::of(send, &asked.place));
    match sent {
        Some(mut sent) => {
            sent.upgrade.clone_from(&asked.upgrade);
            sent.file.clone_from(&asked.file);
            // What is said once the connection has become something else is seen by nobody.
            analysis.effects.extend(sent.upgrade.as_ref().map(|protocol| Effect::Invoke {
                operation: format!("{}:becomes {protocol}", if analysis.provider.is_empty() { "any" } else { &analysis.provider }),
                kind: Kind::Unknown,
                resource: None,
                hazards: [Hazard::Channel].into(),
            }));
            Ok(Understood::new(sent, analysis))
        }
        None => {
            let problem = analysis.problem.clone().unwrap_or_else(|| "it can't be sent in one way only".to_owned());
            let reason = format!("the request could not be understood: {problem}");
            Err(Refusal::refused("calls-not-understood", reason, "send it in the plainest form the service takes"))
        }
    }
}

impl Asked {
    /// The request as values.
    pub(crate) fn request(&self) -> Request {
        let headers = self.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()));
        Request {
            method: self.method.to_string(),
            scheme: self.place.scheme.as_str().to_owned(),
            host: self.place.authority(),
            target: self.target.clone(),
            headers: headers.collect(),
            body: match &self.file {
                Some(file) => Body::File { bytes: file.bytes, sha256: file.sha256.clone() },
                None if self.body.is_empty() => Body::Empty,
                None => Body::Bytes(self.body.to_vec()),
            },
        }
    }

    /// The request that these values are, for `place`. `None`: they can't be sent.
    pub(crate) fn of(request: &Request, place: &Place) -> Option<Self> {
        let mut headers = HeaderMap::with_capacity(request.headers.len());
        for (name, value) in &request.headers {
            headers.append(name.to_ascii_lowercase().parse::<HeaderName>().ok()?, HeaderValue::from_str(value).ok()?);
        }
        headers.remove(http::header::HOST);
        headers.remove(http::header::CONTENT_LENGTH);
        let body = match &request.body {
            // The file itself goes along beside it.
            Body::Empty | Body::File { .. } => Bytes::new(),
            Body::Bytes(bytes) => Bytes::copy_from_slice(bytes),
            Body::Unread(_) => return None,
        };
        let target = request.target.clone();
        Some(Self { method: request.method.parse().ok()?, place: place.clone(), target, headers, body, file: None, upgrade: None })
    }
}
