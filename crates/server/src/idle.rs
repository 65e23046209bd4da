//! Notices that nothing moves any more, without reading a clock on every byte.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

/// How often within the limit a look is taken. The limit is kept to within one look: an idle limit of
/// 60 s ends after 60 to 75 s without a byte.
const LOOKS: u32 = 4;

/// Resolves when a counter of movements has stood still for a limit.
pub(crate) struct IdleWatch {
    every: Duration,
    seen: u32,
    quiet: u32,
    sleep: Pin<Box<Sleep>>,
}

impl IdleWatch {
    pub(crate) fn new(limit: Duration) -> Self {
        let every = limit / LOOKS;
        Self { every, seen: 0, quiet: 0, sleep: Box::pin(sleep(every)) }
    }

    /// `moves`: the counter as it stands now.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, moves: u32) -> Poll<()> {
        while self.sleep.as_mut().poll(cx).is_ready() {
            self.quiet = if moves == self.seen { self.quiet + 1 } else { 0 };
            self.seen = moves;
            if self.quiet >= LOOKS {
                return Poll::Ready(());
            }
            self.sleep.as_mut().set(sleep(self.every));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::poll_fn};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_waits_while_something_moves_and_ends_within_a_look_after_the_last_move() {
        let moves = Cell::new(0u32);
        let mut watch = IdleWatch::new(Duration::from_secs(60));
        let mut idle = std::pin::pin!(poll_fn(|cx| watch.poll(cx, moves.get())));
        for _ in 0..10 {
            moves.set(moves.get() + 1);
            let early = tokio::time::timeout(Duration::from_secs(50), idle.as_mut()).await;
            assert!(early.is_err(), "ended although bytes moved");
        }
        let late = tokio::time::timeout(Duration::from_secs(80), idle).await;
        assert!(late.is_ok(), "did not end although nothing moved");
    }
}
