//! One direction of a tunnel.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is read at once. Lives on the stack while it is passed on: an idle tunnel holds no buffer.
const CHUNK: usize = 8 * 1024;

/// What has been read and not been written yet, and how far this direction is.
#[derive(Debug, Default)]
pub(super) struct Pump {
    left: Vec<u8>,
    written: usize,
    is_dirty: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    Ending,
    Done,
}

impl Pump {
    /// Moves what can be moved; ready when `from` has ended and `to` was told so. `see` is shown what
    /// was read, before any of it is written.
    pub(super) fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        mut see: impl FnMut(&[u8]),
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            if let Poll::Ready(result) = self.poll_drain(cx, to) {
                result?;
            } else {
                return Poll::Pending;
            }
            match self.state {
                State::Open => {}
                State::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.state = State::Done;
                }
                State::Done => return Poll::Ready(Ok(())),
            }
            if self.state == State::Open {
                let mut chunk = [0; CHUNK];
                let mut chunk = ReadBuf::new(&mut chunk);
                if Pin::new(&mut *from).poll_read(cx, &mut chunk)?.is_pending() {
                    if self.is_dirty {
                        ready!(Pin::new(&mut *to).poll_flush(cx))?;
                        self.is_dirty = false;
                    }
                    return Poll::Pending;
                }
                let chunk = chunk.filled();
                if chunk.is_empty() {
                    self.state = State::Ending;
                    continue;
                }
                see(chunk);
                let written = match Pin::new(&mut *to).poll_write(cx, chunk)? {
                    Poll::Ready(written) => written,
                    Poll::Pending => 0,
                };
                self.is_dirty = true;
                self.left.extend_from_slice(&chunk[written..]);
            }
        }
    }

    /// Writes what was read before.
    pub(super) fn poll_drain<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<io::Result<()>> {
        while self.written < self.left.len() {
            match ready!(Pin::new(&mut *to).poll_write(cx, &self.left[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
            if self.written == self.left.len() {
                // Given back, so that only a tunnel under pressure holds memory.
                self.left = Vec::new();
                self.written = 0;
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn every_byte_arrives_in_order_through_a_narrow_pipe_and_then_the_end() {
        let sent: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        let (mut source, mut from) = duplex(64 * 1024);
        let (mut to, mut sink) = duplex(100);
        let mut seen = 0;
        let mut pump = Pump::default();
        let (_, moved, received) = tokio::join!(
            async {
                source.write_all(&sent).await.unwrap();
                drop(source);
            },
            poll_fn(|cx| pump.poll(cx, &mut from, &mut to, |bytes| seen += bytes.len())),
            async {
                let mut received = Vec::new();
                sink.read_to_end(&mut received).await.unwrap();
                received
            },
        );
        moved.unwrap();
        assert!(received == sent);
        assert_eq!(seen, sent.len());
        assert_eq!(pump.left.capacity(), 0, "an empty pump holds memory");
    }
}
