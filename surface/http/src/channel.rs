//! Channels: connections that became something else than HTTP (WebSocket, a terminal), once a person or a policy permitted it.
//!
//! Nobody can say what is done in there, so they count as unknown when they are asked for; here they are only carried, counted, and cut
//! as soon as their agent may not go on or their limits are reached. What was counted is recorded when they close.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use reprieve_gate::Gate;
use reprieve_operation::{AgentName, Event, IntentId, Principal, Refusal, SystemName};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{sleep, timeout},
};

use crate::{frames::Frames, mask::Mask};

/// Channels at a time, and of one agent.
const MOST: usize = 64;
const MOST_OF_ONE: usize = 16;

/// How long the two ends may take to get ready.
const READY: Duration = Duration::from_secs(15);

/// How often it is looked whether the agent may go on.
const LOOK: Duration = Duration::from_millis(250);

/// What may be said in one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelLimits {
    /// Bytes, each way.
    pub bytes: u64,
    /// Messages, each way, where the protocol has them.
    pub messages: u64,
    /// How long it may be open.
    pub life: Duration,
    /// How long nothing may be said.
    pub idle: Duration,
}

/// The channels that are open.
#[derive(Default)]
pub(crate) struct Channels(Mutex<HashMap<IntentId, Arc<Tally>>>);

/// A channel's place among those that are open. Dropped without a word, it was never opened.
pub(crate) struct Place {
    channels: Arc<Channels>,
    intent: IntentId,
}

/// What was said in one channel so far.
struct Tally {
    agent: AgentName,
    system: SystemName,
    opened: Instant,
    /// By the agent, and by the service.
    sent: Count,
    received: Count,
}

#[derive(Default)]
struct Count {
    bytes: AtomicU64,
    messages: AtomicU64,
}

/// What a channel is between.
pub(crate) struct Channel {
    pub(crate) gate: Arc<Gate>,
    pub(crate) principal: Principal,
    pub(crate) system: SystemName,
    pub(crate) limits: ChannelLimits,
    /// What the connection became.
    pub(crate) protocol: String,
    pub(crate) mask: Mask,
    pub(crate) agent: OnUpgrade,
    pub(crate) service: OnUpgrade,
    pub(crate) place: Place,
}

impl Channels {
    /// A place for one more of this agent's.
    pub(crate) fn place(self: &Arc<Self>, intent: IntentId, agent: &AgentName, system: &SystemName) -> Result<Place, Refusal> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= MOST || open.values().filter(|tally| tally.agent == *agent).count() >= MOST_OF_ONE {
            return Err(Refusal::unavailable("channels", "too many channels are open"));
        }
        let (agent, system, opened) = (agent.clone(), system.clone(), Instant::now());
        open.insert(intent, Arc::new(Tally { agent, system, opened, sent: Count::default(), received: Count::default() }));
        Ok(Place { channels: self.clone(), intent })
    }

    /// Records those that are still open when the gateway stops.
    pub(crate) fn flush(&self, gate: &Gate) {
        for (intent, tally) in std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)) {
            tally.record(gate, intent, "the gateway stopped".to_owned());
        }
    }

    fn leave(&self, intent: IntentId) -> Option<Arc<Tally>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&intent)
    }
}

impl Place {
    fn tally(&self) -> Option<Arc<Tally>> {
        self.channels.0.lock().unwrap_or_else(PoisonError::into_inner).get(&self.intent).cloned()
    }

    /// It is closed, and that is recorded, once.
    fn close(self, gate: &Gate, reason: String) {
        if let Some(tally) = self.channels.leave(self.intent) {
            tally.record(gate, self.intent, reason);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.channels.leave(self.intent);
    }
}

impl Tally {
    fn record(&self, gate: &Gate, intent: IntentId, reason: String) {
        let is_known = |count: &Count| Some(count.messages.load(Ordering::Relaxed)).filter(|messages| *messages != UNKNOWN);
        tracing::info!(agent = %self.agent, system = %self.system, reason, "a channel was closed");
        gate.note(Event::ChannelClosed {
            intent,
            agent: self.agent.clone(),
            system: self.system.clone(),
            reason,
            open_ms: u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX),
            sent_bytes: self.sent.bytes.load(Ordering::Relaxed),
            received_bytes: self.received.bytes.load(Ordering::Relaxed),
            sent_messages: is_known(&self.sent),
            received_messages: is_known(&self.received),
        });
    }

    fn moved(&self) -> u64 {
        self.sent.bytes.load(Ordering::Relaxed).wrapping_add(self.received.bytes.load(Ordering::Relaxed))
    }
}

/// A count of messages where the protocol has none.
const UNKNOWN: u64 = u64::MAX;

impl Channel {
    /// Carries it until one end closes it, its agent may not go on, or a limit is reached.
    pub(crate) async fn carry(self) {
        let Self { gate, principal, system, limits, protocol, mask, agent, service, place } = self;
        let ready = timeout(READY, async { tokio::try_join!(agent, service) }).await;
        let (agent, service) = match ready {
            Ok(Ok(ends)) => ends,
            Ok(Err(error)) => return place.close(&gate, format!("it was not opened: {error}")),
            Err(_) => return place.close(&gate, "it was not opened in time".to_owned()),
        };
        let Some(tally) = place.tally() else { return };
        let framed = protocol == "websocket";
        let (from_agent, to_agent) = tokio::io::split(TokioIo::new(agent));
        let (from_service, to_service) = tokio::io::split(TokioIo::new(service));
        let way = |count, masked: bool| Way { count, limits, frames: framed.then(|| Frames::new(masked)) };
        let there = async {
            match way(&tally.sent, true).pass(from_agent, to_service, None).await {
                // The agent has said all; the service may still answer.
                Ok(()) => std::future::pending().await,
                Err(ended) => ended.in_words("the agent"),
            }
        };
        let back = async {
            match way(&tally.received, false).pass(from_service, to_agent, Some(mask)).await {
                Ok(()) => "the service closed it".to_owned(),
                Err(ended) => ended.in_words("the service"),
            }
        };
        let watched = async {
            let (mut seen, mut silent) = (0, Duration::ZERO);
            loop {
                sleep(LOOK).await;
                if let Some(refusal) = may_not_go_on(&gate, &principal, &system) {
                    return refusal.to_string();
                }
                let now = tally.moved();
                silent = if now == seen { silent + LOOK } else { Duration::ZERO };
                seen = now;
                if silent >= limits.idle {
                    return format!("nothing was said in it for {} s", limits.idle.as_secs());
                }
                if tally.opened.elapsed() >= limits.life {
                    return format!("it was open for {} s", limits.life.as_secs());
                }
            }
        };
        let reason = tokio::select! {
            reason = there => reason,
            reason = back => reason,
            reason = watched => reason,
        };
        place.close(&gate, reason);
    }
}

/// Why an open channel is cut: its agent is frozen, its token is over, or doesn't cover the system any more.
fn may_not_go_on(gate: &Gate, principal: &Principal, system: &SystemName) -> Option<Refusal> {
    if let Err(refusal) = gate.may_go_on(principal) {
        return Some(refusal);
    }
    let state = gate.audit().state();
    let scope = &state.agents.get(&principal.agent)?.scope;
    (*scope != principal.scope).then(|| {
        let reason = format!("the token's scope on `{system}` is another one than when it was opened");
        Refusal::refused("scope", reason, "ask for the channel again")
    })
}

/// Why one way of a channel came to its end, other than by being said all.
enum Ended {
    Broke(io::Error),
    TooMany(&'static str, u64),
    NotFramed,
}

impl Ended {
    fn in_words(&self, who: &str) -> String {
        match self {
            Self::Broke(error) => format!("it broke: {error}"),
            Self::TooMany(what, most) => format!("{who} said more than {most} {what}"),
            Self::NotFramed => format!("what {who} said is no WebSocket"),
        }
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Broke(error)
    }
}

/// One way of a channel.
struct Way<'a> {
    count: &'a Count,
    limits: ChannelLimits,
    /// Where it has messages.
    frames: Option<Frames>,
}

impl Way<'_> {
    /// Passes what one end says to the other, with the gateway's credential covered where there is a mask.
    async fn pass(
        mut self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        mut mask: Option<Mask>,
    ) -> Result<(), Ended> {
        if self.frames.is_none() {
            self.count.messages.store(UNKNOWN, Ordering::Relaxed);
        }
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let count = from.read(&mut buffer).await?;
            if count == 0 {
                if let Some(mask) = &mut mask {
                    to.write_all(&mask.finish()).await?;
                }
                return Ok(to.shutdown().await?);
            }
            // Before it is passed on: what is over a limit is not said.
            self.count(&buffer[..count])?;
            match &mut mask {
                Some(mask) => to.write_all(&mask.push(Bytes::copy_from_slice(&buffer[..count]))).await?,
                None => to.write_all(&buffer[..count]).await?,
            }
            to.flush().await?;
        }
    }

    fn count(&mut self, piece: &[u8]) -> Result<(), Ended> {
        let bytes = self.count.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed) + piece.len() as u64;
        if bytes > self.limits.bytes {
            return Err(Ended::TooMany("bytes", self.limits.bytes));
        }
        let Some(frames) = &mut self.frames else { return Ok(()) };
        frames.push(piece).map_err(|_| Ended::NotFramed)?;
        self.count.messages.store(frames.messages(), Ordering::Relaxed);
        if frames.messages() > self.limits.messages {
            return Err(Ended::TooMany("messages", self.limits.messages));
        }
        Ok(())
    }
}
