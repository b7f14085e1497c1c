//! Channels: connections that became something else than HTTP (WebSocket, a terminal), once a person or a policy permitted it.
//!
//! Nobody can say what is done in there, so they count as unknown when they are asked for; here they are only carried, and cut as soon as
//! their agent may not go on.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use reprieve_gate::Gate;
use reprieve_operation::Principal;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::OwnedSemaphorePermit,
    time::{sleep, timeout},
};

use crate::mask::Mask;

/// Channels at a time.
pub(crate) const CHANNELS: usize = 64;

/// How long the two ends may take to get ready.
const READY: Duration = Duration::from_secs(15);

/// How often it is looked whether the agent may go on.
const LOOK: Duration = Duration::from_millis(250);

/// How long nothing may be said.
const SILENCE: Duration = Duration::from_secs(3600);

/// What a channel is between.
pub(crate) struct Channel {
    pub(crate) gate: Arc<Gate>,
    pub(crate) principal: Principal,
    pub(crate) mask: Mask,
    pub(crate) agent: OnUpgrade,
    pub(crate) service: OnUpgrade,
    /// Its place among those that are open.
    pub(crate) place: OwnedSemaphorePermit,
}

impl Channel {
    /// Carries it until one end closes it, or its agent may not go on.
    pub(crate) async fn carry(self) {
        let Self { gate, principal, mask, agent, service, place } = self;
        let ready = timeout(READY, async { tokio::try_join!(agent, service) }).await;
        let (agent, service) = match ready {
            Ok(Ok(ends)) => ends,
            Ok(Err(error)) => return tracing::debug!(%error, "a channel was not opened"),
            Err(_) => return tracing::debug!("a channel was not opened in time"),
        };
        let (from_agent, to_agent) = tokio::io::split(TokioIo::new(agent));
        let (from_service, to_service) = tokio::io::split(TokioIo::new(service));
        let moved = AtomicU64::new(0);
        let there = async {
            let sent = pass(from_agent, to_service, None, &moved).await;
            match sent {
                // The agent has said all; the service may still answer.
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            }
        };
        let watched = async {
            let (mut seen, mut silent) = (0, Duration::ZERO);
            loop {
                sleep(LOOK).await;
                if let Err(refusal) = gate.may_go_on(&principal) {
                    return refusal.to_string();
                }
                let now = moved.load(Ordering::Relaxed);
                silent = if now == seen { silent + LOOK } else { Duration::ZERO };
                seen = now;
                if silent >= SILENCE {
                    return "nothing was said in it for too long".to_owned();
                }
            }
        };
        tokio::select! {
            error = there => tracing::debug!(%error, "a channel broke"),
            ended = pass(from_service, to_agent, Some(mask), &moved) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a channel broke");
                }
            }
            reason = watched => tracing::info!(agent = %principal.agent, reason, "a channel was cut"),
        }
        drop(place);
    }
}

/// Passes what one end says to the other, with the gateway's credential covered where there is a mask.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut mask: Option<Mask>,
    moved: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        moved.fetch_add(count as u64, Ordering::Relaxed);
        if count == 0 {
            if let Some(mask) = &mut mask {
                to.write_all(&mask.finish()).await?;
            }
            return to.shutdown().await;
        }
        match &mut mask {
            Some(mask) => to.write_all(&mask.push(Bytes::copy_from_slice(&buffer[..count]))).await?,
            None => to.write_all(&buffer[..count]).await?,
        }
        to.flush().await?;
    }
}
