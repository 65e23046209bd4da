//! An upgraded socket: bytes both ways, as they come, until somebody ends it.

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use doorward_core::{
    reason::CloseCode,
    ws::{FrameTracker, close_frame},
};
use futures_util::future::try_join;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::OwnedSemaphorePermit,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Until, pump::Pump};
use crate::idle::IdleWatch;

/// Limit for both sides to hand over their connection once the 101 is on its way.
const HAND_OVER: Duration = Duration::from_secs(10);
/// Limit for a frame under way to end, so that ours does not land inside it.
const FRAME_GRACE: Duration = Duration::from_millis(500);
/// Limit for the client to read the close frame and hang up.
const CLOSE_GRACE: Duration = Duration::from_secs(1);
/// RFC 6455 §7.4.1.
const GOING_AWAY: CloseCode = 1001;
/// Ends for good by decision of the door (`docs/reference/reasons.md`).
const ENDED: CloseCode = 4003;

/// Both connections, as soon as they are handed over.
pub(super) struct Ends {
    pub(super) client: OnUpgrade,
    pub(super) app: OnUpgrade,
}

pub(super) struct Limits {
    pub(super) idle: Duration,
    pub(super) closing: CancellationToken,
}

struct Tunnel {
    client: TokioIo<Upgraded>,
    app: TokioIo<Upgraded>,
    to_app: Pump,
    to_client: Pump,
    /// Of the direction to the client, where we may have a last word.
    frames: FrameTracker,
    moves: u32,
}

/// Why a tunnel comes to its end.
enum End {
    Over,
    Close(CloseCode, &'static str),
}

/// Carries one socket until its end; holds `_permit` so long.
pub(super) async fn run(ends: Ends, limits: Limits, until: Option<Until>, _permit: OwnedSemaphorePermit) {
    let (client, app) = match timeout(HAND_OVER, try_join(ends.client, ends.app)).await {
        Ok(Ok(ends)) => ends,
        Ok(Err(error)) => return tracing::debug!(%error, "an upgraded connection was not handed over"),
        Err(_) => return tracing::debug!("an upgraded connection was not handed over in time"),
    };
    let mut tunnel = Tunnel {
        client: TokioIo::new(client),
        app: TokioIo::new(app),
        to_app: Pump::default(),
        to_client: Pump::default(),
        frames: FrameTracker::new(),
        moves: 0,
    };
    if let End::Close(code, text) = tunnel.carry(limits, until).await {
        tunnel.close(code, text).await;
    }
}

impl Tunnel {
    async fn carry(&mut self, limits: Limits, mut until: Option<Until>) -> End {
        let mut idle = IdleWatch::new(limits.idle);
        let mut closing = pin!(limits.closing.cancelled());
        poll_fn(|cx| {
            if let Some(until) = &mut until
                && let Poll::Ready(reason) = until.as_mut().poll(cx)
            {
                return Poll::Ready(End::Close(ENDED, reason.code()));
            }
            if closing.as_mut().poll(cx).is_ready() {
                return Poll::Ready(End::Close(GOING_AWAY, "going away"));
            }
            if let Poll::Ready(result) = self.poll_both(cx) {
                if let Err(error) = result {
                    tracing::debug!(%error, "a proxied socket broke off");
                }
                return Poll::Ready(End::Over);
            }
            idle.poll(cx, self.moves).map(|()| End::Close(GOING_AWAY, "idle"))
        })
        .await
    }

    fn poll_both(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { client, app, to_app, to_client, frames, moves } = self;
        let up = to_app.poll(cx, client, app, |_| *moves = moves.wrapping_add(1))?;
        let down = to_client.poll(cx, app, client, |bytes| {
            *moves = moves.wrapping_add(1);
            frames.advance(bytes);
        })?;
        if up.is_ready() && down.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Lets the frame under way end, says why, and hangs up; within `FRAME_GRACE` + `CLOSE_GRACE`.
    async fn close(&mut self, code: CloseCode, text: &str) {
        match timeout(FRAME_GRACE, self.last_word(code, text)).await {
            Ok(Ok(())) => {}
            // Cut without a word: a frame inside a frame would be read as the app's data.
            Ok(Err(error)) => return tracing::debug!(%error, "a proxied socket was cut"),
            Err(_) => return tracing::debug!("a proxied socket was cut inside a frame"),
        }
        // Hanging up with unread bytes would reset the connection, and the close frame be lost with it.
        let mut rest = [0; 1024];
        let _ = timeout(CLOSE_GRACE, async { while matches!(self.client.read(&mut rest).await, Ok(1..)) {} }).await;
    }

    async fn last_word(&mut self, code: CloseCode, text: &str) -> io::Result<()> {
        poll_fn(|cx| self.to_client.poll_drain(cx, &mut self.client)).await?;
        let mut chunk = [0; 1024];
        while !self.frames.is_at_boundary() {
            let read = Pin::new(&mut self.app).read(&mut chunk).await?;
            if read == 0 || self.frames.is_lost() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let frame = self.frames.advance_to_boundary(&chunk[..read]);
            self.client.write_all(&chunk[..frame]).await?;
        }
        if !self.frames.has_closed() {
            self.client.write_all(&close_frame(code, text)).await?;
        }
        self.client.shutdown().await
    }
}
