//! Running: a permitted request is sent once, as it was looked at, with the real credential.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Uri,
    header::{ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, UPGRADE},
};
use http_body_util::{BodyExt as _, Limited};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use reprieve_gate::{Done, Permit, Ran, Running, Upstream};
use reprieve_operation::{Operation, Principal, Reach, Refusal};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    answer::{Body, no_answer, passed_on},
    asked::{Asked, EXTENSIONS},
    channel::Channel,
    file::Outgoing,
    listener::Surface,
    mask::Mask,
    resolve::{look, reach_of},
    system::System,
    understand::Understood,
    way_back::{Making, Secured, WayBack, answered, look_before},
};

/// How long a service may take to begin its answer.
const ANSWER: Duration = Duration::from_secs(300);

/// Largest answer that is kept for the identical retry.
const KEPT: usize = 256 * 1024;

/// Largest answer to a change that is looked into before it is passed on.
const LOOKED_INTO: usize = 8 << 20;

/// A request that runs, for an agent or for none.
pub(crate) struct Run {
    surface: Arc<Surface>,
    system: Arc<System>,
    understood: Arc<Understood>,
    /// What the service said, or was kept of that.
    pub(crate) response: Option<Response<Body>>,
    /// Nobody waits: the answer is kept.
    keep: bool,
    /// Until when somebody waits for a person.
    until: Option<Instant>,
    gone: Option<oneshot::Receiver<()>>,
    /// The agent's end of the channel that it asks for, and who it is.
    becomes: Option<(OnUpgrade, Principal)>,
}

impl Run {
    pub(crate) fn new(surface: Arc<Surface>, system: Arc<System>, understood: Arc<Understood>) -> Self {
        Self { surface, system, understood, response: None, keep: false, until: None, gone: None, becomes: None }
    }

    /// For an agent that is there until `gone`, and ready to wait.
    pub(crate) fn waiting(self, wait: Option<Duration>, gone: oneshot::Receiver<()>) -> Self {
        Self { until: wait.map(|wait| Instant::now() + wait), gone: Some(gone), ..self }
    }

    /// For an agent whose connection becomes something else.
    pub(crate) fn becoming(self, agent: Option<OnUpgrade>, principal: Principal) -> Self {
        Self { becomes: agent.map(|agent| (agent, principal)), ..self }
    }

    /// For nobody: the answer is kept.
    pub(crate) fn unattended(self) -> Self {
        Self { keep: true, ..self }
    }

    async fn carry_out(&mut self, mut permit: Permit<'_>) -> Result<Ran, Refusal> {
        let ground = self.surface.ground(&self.system);
        let (intent, agent) = (permit.intent(), permit.operation().principal.agent.clone());
        let turn = self.system.turns.take(&WayBack::turn(&self.understood)).await;
        let _turn = turn.map_err(|reason| Refusal::unavailable("turn", reason))?;
        // What was approved may have become something else since.
        let mut reach = match (permit.approved(), &permit.operation().reach) {
            (None, Some(reach)) => reach.clone(),
            _ => look(&self.system, &self.understood).await.reach,
        };
        let making = if permit.approved().is_some() { Making::Now(self.surface.gate.now()) } else { Making::Later };
        let Secured { way_back, lasting } = look_before(ground, &self.understood, making).await;
        reach.lasting = lasting;
        let way_back = match way_back {
            None => None,
            Some(way_back) => match way_back.keep(ground, intent, &agent).await {
                Ok(kept) => Some(kept),
                Err(reason) => {
                    reach.lasting.push(reason);
                    None
                }
            },
        };
        let mut channel = None;
        if self.understood.asked.upgrade.is_some() {
            channel = Some(self.surface.channels.place(intent, &agent, &self.system.name)?);
        }
        if permit.clear(&reach).await?.is_none() {
            return Ok(Ran::Beyond(reach));
        }
        let mut response = match send(&self.system, &self.understood.asked).await {
            Ok(response) => response,
            Err(failure) => {
                self.response = Some(no_answer(&failure.reason, failure.sent));
                return Ok(if failure.sent { Ran::Unknown } else { Ran::Failed { code: "unreachable".to_owned() } });
            }
        };
        let status = response.status();
        if let (StatusCode::SWITCHING_PROTOCOLS, Some(place), Some((agent, principal))) = (status, channel, self.becomes.take()) {
            let (gate, mask) = (self.surface.gate.clone(), self.system.credential.mask());
            let Some(answer) = switched(&self.understood.asked, &mask, &response) else {
                self.response = Some(no_answer("the service made something else of the connection than it was asked for", true));
                return Ok(Ran::Unknown);
            };
            self.response = Some(answer);
            let service = hyper::upgrade::on(&mut response);
            let (system, limits) = (self.system.name.clone(), self.system.channel);
            let protocol = self.understood.asked.upgrade.clone().unwrap_or_default();
            tokio::spawn(Channel { gate, principal, system, limits, protocol, mask, agent, service, place }.carry());
            return Ok(Ran::Final(Done { tag: "HTTP 101".to_owned(), reach, xid: None, kept: None }));
        }
        let is_json = response.headers().get(CONTENT_TYPE).is_some_and(|media| media.to_str().is_ok_and(|media| media.contains("json")));
        let (mut kept, mut says_no, mut answer_left) = (None, false, serde_json::Value::Null);
        if self.keep || is_json || way_back.is_some() {
            let limit = if self.keep { KEPT } else { LOOKED_INTO };
            let Some(answer) = Answer::read(&self.system, response, limit).await else {
                self.response = Some(no_answer("the service's answer broke off", true));
                return Ok(Ran::Unknown);
            };
            says_no = self::says_no(&answer.body);
            if way_back.is_some() {
                answer_left = answered(if is_json { "json" } else { "" }, &answer.body);
            }
            if self.keep {
                kept = serde_json::to_string(&Kept::of(&answer)).ok();
            } else {
                self.response = Some(answer.response());
            }
        } else {
            self.response = Some(pass(&self.system, response));
        }
        if says_no {
            return Ok(Ran::Failed { code: "errors".to_owned() });
        }
        // A service that failed may have done its work before.
        if status.is_server_error() {
            return Ok(Ran::Unknown);
        }
        if status.is_client_error() {
            return Ok(Ran::Failed { code: status.as_u16().to_string() });
        }
        if let Some(way_back) = way_back {
            way_back.keep_left(ground, intent, &agent, answer_left).await;
        }
        Ok(Ran::Final(Done { tag: format!("HTTP {}", status.as_u16()), reach, xid: None, kept }))
    }
}

impl Upstream for Run {
    fn run<'a>(&'a mut self, permit: Permit<'a>) -> Running<'a, Result<Ran, Refusal>> {
        Box::pin(self.carry_out(permit))
    }

    fn estimate<'a>(&'a mut self, operation: &'a Operation) -> Running<'a, Option<Reach>> {
        Box::pin(async move { Some(reach_of(&operation.effects)) })
    }

    fn can_wait(&self) -> bool {
        self.until.is_some()
    }

    fn tell_waiting<'a>(&'a mut self, _refusal: &'a Refusal) -> Running<'a, ()> {
        Box::pin(async {})
    }

    fn gone(&mut self) -> Running<'_, ()> {
        Box::pin(async {
            let hung_up = async {
                match &mut self.gone {
                    // The other end is dropped when the connection is.
                    Some(gone) => drop(gone.await),
                    None => std::future::pending().await,
                }
            };
            let late = async {
                match self.until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = hung_up => {}
                () = late => {}
            }
        })
    }

    fn deliver<'a>(&'a mut self, kept: &'a str) -> Running<'a, bool> {
        Box::pin(async move {
            self.response = serde_json::from_str::<Kept>(kept).ok().and_then(Kept::response);
            self.response.is_some()
        })
    }
}

/// Why there is no answer.
pub(crate) struct Failure {
    pub(crate) reason: String,
    /// Whether the request may have been carried out.
    pub(crate) sent: bool,
}

/// Sends a request with the real credential.
pub(crate) async fn send(system: &System, asked: &Asked) -> Result<Response<Incoming>, Failure> {
    let at = system.reached_at(&asked.place);
    let mut headers = asked.headers.clone();
    // Compressed answers can't be looked through for the credential.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let unsent = |reason: String| Failure { reason, sent: false };
    let target = system.credential.apply(asked, &mut headers);
    let text = format!("{at}{target}");
    let uri: Uri = text.parse().map_err(|_| unsent("the request's target can't be sent".to_owned()))?;
    headers.insert(HOST, HeaderValue::from_str(&at.authority()).map_err(|_| unsent("the host's name can't be sent".to_owned()))?);
    let mut client = &system.client;
    if let Some(upgrade) = &asked.upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_str(upgrade).map_err(|_| unsent("the upgrade can't be sent".to_owned()))?);
        client = &system.upgrading;
    }
    system.credential.sign(asked, &text, &mut headers).map_err(unsent)?;
    let mut request = Request::new(Outgoing::new(&asked.body, asked.file.as_ref()));
    *request.method_mut() = asked.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    match timeout(ANSWER, client.request(request)).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => {
            let sent = !error.is_connect();
            let mut reason = format!("`{}` gave no answer: {error}", at.host);
            let mut source = std::error::Error::source(&error);
            while let Some(next) = source {
                reason.push_str(&format!(": {next}"));
                source = next.source();
            }
            tracing::warn!(system = %system.name, reason, "no answer");
            Err(Failure { reason, sent })
        }
        Err(_) => Err(Failure { reason: format!("`{}` did not answer within {} s", at.host, ANSWER.as_secs()), sent: true }),
    }
}

/// The answer after which a connection is a channel. `None`: it became something else than was asked for.
fn switched(asked: &Asked, mask: &Mask, answer: &Response<Incoming>) -> Option<Response<Body>> {
    let upgrade = asked.upgrade.as_ref()?;
    let said = answer.headers().get(UPGRADE)?.to_str().ok()?;
    if !said.eq_ignore_ascii_case(upgrade) || answer.headers().contains_key(EXTENSIONS) {
        return None;
    }
    let mut switched = Response::new(Body::Whole(None));
    *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *switched.headers_mut() = passed_on(answer.headers(), mask);
    switched.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    switched.headers_mut().insert(UPGRADE, HeaderValue::from_str(said).ok()?);
    Some(switched)
}

/// A service's answer as the agent gets it.
pub(crate) fn pass(system: &System, response: Response<Incoming>) -> Response<Body> {
    let (parts, incoming) = response.into_parts();
    if let Some(reason) = unreadable(system, parts.status, &parts.headers) {
        return no_answer(&reason, true);
    }
    let mask = system.credential.mask();
    let headers = passed_on(&parts.headers, &mask);
    let mut passed = Response::new(Body::Streamed { incoming, mask, ended: false });
    *passed.status_mut() = parts.status;
    *passed.headers_mut() = headers;
    passed
}

/// Why an answer can't be looked through, if that is so.
fn unreadable(system: &System, status: StatusCode, headers: &HeaderMap) -> Option<String> {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Some("the service changed the protocol without being asked".to_owned());
    }
    let encoded = headers.get_all(CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    (encoded && !system.credential.marks().is_empty())
        .then(|| "the service compressed its answer, which can't be looked through for the gateway's credential".to_owned())
}

/// A service's answer, read whole, with the gateway's credential covered.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    /// Whether there was more, or what can't be looked through.
    cut: bool,
}

impl Answer {
    /// Reads an answer to its end. `None`: it broke off.
    async fn read(system: &System, response: Response<Incoming>, limit: usize) -> Option<Self> {
        let (parts, incoming) = response.into_parts();
        let mut mask = system.credential.mask();
        let unreadable = unreadable(system, parts.status, &parts.headers);
        let collected = timeout(ANSWER, Limited::new(incoming, limit).collect()).await.ok()?;
        let (body, cut) = match (unreadable, collected) {
            (Some(_), _) => (Bytes::new(), true),
            (None, Ok(body)) => (body.to_bytes(), false),
            (None, Err(error)) if error.is::<http_body_util::LengthLimitError>() => (Bytes::new(), true),
            (None, Err(_)) => return None,
        };
        let mut covered = mask.push(body).to_vec();
        covered.extend_from_slice(&mask.finish());
        let mut headers = passed_on(&parts.headers, &mask);
        headers.remove(CONTENT_LENGTH);
        headers.remove(CONTENT_ENCODING);
        Some(Self { status: parts.status, headers, body: covered.into(), cut })
    }

    fn response(self) -> Response<Body> {
        if self.cut {
            return no_answer("the service's answer is too large, or compressed, to be looked through", true);
        }
        let mut response = Response::new(Body::whole(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// Whether a service that answers 200 to everything says in the body that it did nothing (GraphQL's specification, section 7.1).
pub(crate) fn says_no(body: &[u8]) -> bool {
    let Ok(answer) = serde_json::from_slice::<serde_json::Value>(body) else { return false };
    let errors = answer.get("errors").and_then(serde_json::Value::as_array).is_some_and(|errors| !errors.is_empty());
    errors && answer.get("data").is_none_or(serde_json::Value::is_null)
}

/// An answer that is kept for the identical retry.
#[derive(Serialize, Deserialize)]
struct Kept {
    status: u16,
    headers: Vec<(String, String)>,
    /// Base64.
    body: String,
    /// Whether there was more than is kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
}

impl Kept {
    fn of(answer: &Answer) -> Self {
        let text = |(name, value): (&http::HeaderName, &HeaderValue)| Some((name.to_string(), value.to_str().ok()?.to_owned()));
        let headers = answer.headers.iter().filter_map(text).collect();
        Self { status: answer.status.as_u16(), headers, body: BASE64.encode(&answer.body), cut: answer.cut }
    }

    fn response(self) -> Option<Response<Body>> {
        let mut response = Response::new(Body::whole(BASE64.decode(self.body).ok()?));
        *response.status_mut() = StatusCode::from_u16(self.status).ok()?;
        for (name, value) in self.headers {
            response.headers_mut().append(name.parse::<http::HeaderName>().ok()?, HeaderValue::from_str(&value).ok()?);
        }
        response.headers_mut().insert("reprieve-kept", HeaderValue::from_static(if self.cut { "cut" } else { "whole" }));
        Some(response)
    }
}
