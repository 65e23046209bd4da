//! A connection whose bytes reach the HTTP library only once [`Framing`] has passed them.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use doorward_core::framing::{Flaw, Framing, HeadFlaw, Step};
use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// What the library is given in place of a head that did not pass; the service answers it with a refusal.
/// It is told apart by its number on the connection, not by anything in it.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
/// How much is read at once while a head is unfinished.
const CHUNK: usize = 4 * 1024;
/// How much of what a refused client still sends is read at the end, so that the refusal is not lost
/// in a reset.
const MAX_DISCARD: usize = 256 * 1024;

/// What the connection's bytes and its service tell each other.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Number of the request that is refused.
    refused: OnceLock<(u32, HeadFlaw)>,
    served: AtomicU32,
    in_flight: AtomicU32,
    switch: AtomicU8,
    reader: AtomicWaker,
}

const SWITCHED: u8 = 1;

impl Shared {
    /// Counts a request in; what is wrong with it, if it is the stand-in for a refused one.
    pub(super) fn serve(&self) -> Option<HeadFlaw> {
        let number = self.served.fetch_add(1, Ordering::AcqRel) + 1;
        self.refused.get().filter(|(refused, _)| *refused == number).map(|&(_, flaw)| flaw)
    }

    /// How many requests were counted in.
    pub(super) fn served(&self) -> u32 {
        self.served.load(Ordering::Acquire)
    }

    /// Whether a request is being answered.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) > 0
    }

    /// The request that asked for it switches protocols.
    pub(super) fn switch(&self) {
        self.switch.store(SWITCHED, Ordering::Release);
        self.reader.wake();
    }
}

/// One request that is being answered, until it is dropped.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Shared>);

impl InFlight {
    pub(super) fn of(shared: &Arc<Shared>) -> Self {
        shared.in_flight.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(shared))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Limits that belong to the bytes of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// From the first byte of a head, or the start of the connection, to the head's end.
    pub(super) head: Duration,
    /// Without a byte in the middle of a body, or of what we write.
    pub(super) stall: Duration,
    /// Longest head.
    pub(super) max_head: usize,
}

/// A connection that refuses what can be read in two ways. `_place` is given back when it is dropped.
pub(super) struct Guard<T, P> {
    io: T,
    framing: Framing,
    /// Bytes that have been read: the first `passed` may go on, the rest waits.
    held: Vec<u8>,
    passed: usize,
    stand_in: Option<&'static [u8]>,
    is_refused: bool,
    patience: Patience,
    head_timer: Option<Pin<Box<Sleep>>>,
    read_timer: Option<Pin<Box<Sleep>>>,
    write_timer: Option<Pin<Box<Sleep>>>,
    discarded: usize,
    shared: Arc<Shared>,
    _place: P,
}

impl<T, P> Guard<T, P> {
    pub(super) fn new(io: T, patience: Patience, shared: Arc<Shared>, place: P) -> Self {
        Self {
            io,
            framing: Framing::new(),
            held: Vec::new(),
            passed: 0,
            stand_in: None,
            is_refused: false,
            patience,
            head_timer: Some(Box::pin(sleep(patience.head))),
            read_timer: None,
            write_timer: None,
            discarded: 0,
            shared,
            _place: place,
        }
    }

    /// How many of `bytes`, which follow those that have passed, may pass.
    fn judge(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut passed = 0;
        loop {
            let mut step = self.framing.step(&bytes[passed..]);
            let unfinished = bytes.len() - passed;
            if step == Step::More && unfinished > self.patience.max_head {
                step = self.framing.refuse_head(HeadFlaw::TooLarge);
            }
            match step {
                Step::Pass(count) => {
                    passed += count;
                    self.head_timer = None;
                }
                Step::Undecided => return Ok(passed),
                Step::More => {
                    if unfinished > 0 && self.head_timer.is_none() {
                        self.head_timer = Some(Box::pin(sleep(self.patience.head)));
                    }
                    return Ok(passed);
                }
                Step::Refuse(Flaw::Chunk) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "the body is not framed as declared"));
                }
                Step::Refuse(Flaw::Head(flaw)) => {
                    // The rest is of no interest any more.
                    self.is_refused = true;
                    self.head_timer = None;
                    self.stand_in = Some(STAND_IN);
                    let _ = self.shared.refused.set((self.framing.heads() + 1, flaw));
                    return Ok(passed);
                }
            }
        }
    }

    /// Hands on what may go on; whether that was anything.
    fn deliver(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.passed > 0 {
            let count = self.passed.min(buf.remaining());
            buf.put_slice(&self.held[..count]);
            self.held.drain(..count);
            self.passed -= count;
            if self.held.is_empty() {
                self.held = Vec::new();
            }
            return true;
        }
        if let Some(stand_in) = self.stand_in {
            let (now, later) = stand_in.split_at(stand_in.len().min(buf.remaining()));
            buf.put_slice(now);
            self.stand_in = (!later.is_empty()).then_some(later);
            return true;
        }
        false
    }

    /// Whether a limit has run out; to be asked when no byte can be had.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if let Some(timer) = &mut self.head_timer {
            return timer.as_mut().poll(cx).map(|()| io::Error::new(io::ErrorKind::TimedOut, "no whole head in time"));
        }
        if self.framing.is_in_body() {
            let stall = self.patience.stall;
            let timer = self.read_timer.get_or_insert_with(|| Box::pin(sleep(stall)));
            return timer.as_mut().poll(cx).map(|()| io::Error::new(io::ErrorKind::TimedOut, "the body stalls"));
        }
        Poll::Pending
    }

    fn poll_stalled<R>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if polled.is_ready() {
            self.write_timer = None;
            return polled;
        }
        let stall = self.patience.stall;
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep(stall)));
        timer.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl<T: AsyncRead + Unpin, P: Unpin> AsyncRead for Guard<T, P> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if buf.remaining() == 0 || this.deliver(buf) {
                return Poll::Ready(Ok(()));
            }
            if this.is_refused {
                // The service answers, and hangs up.
                return Poll::Pending;
            }
            if this.framing.is_undecided() {
                this.shared.reader.register(cx.waker());
                if this.shared.switch.load(Ordering::Acquire) != SWITCHED {
                    return Poll::Pending;
                }
                this.framing.switch();
                this.passed = this.held.len();
                continue;
            }
            if this.held.is_empty() {
                // The usual way: into the library's own buffer, and nothing has to be taken back.
                let before = buf.filled().len();
                if Pin::new(&mut this.io).poll_read(cx, buf)?.is_pending() {
                    return this.poll_patience(cx).map(Err);
                }
                this.read_timer = None;
                let new = &buf.filled()[before..];
                if new.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                let passed = this.judge(new)?;
                this.held.extend_from_slice(&new[passed..]);
                buf.set_filled(before + passed);
                if passed > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                let mut chunk = [0; CHUNK];
                let mut chunk = ReadBuf::new(&mut chunk);
                if Pin::new(&mut this.io).poll_read(cx, &mut chunk)?.is_pending() {
                    return this.poll_patience(cx).map(Err);
                }
                if chunk.filled().is_empty() {
                    return Poll::Ready(Ok(()));
                }
                this.read_timer = None;
                let mut held = std::mem::take(&mut this.held);
                held.extend_from_slice(chunk.filled());
                let passed = this.judge(&held);
                this.held = held;
                this.passed = passed?;
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin, P: Unpin> AsyncWrite for Guard<T, P> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write(cx, buf);
        this.poll_stalled(cx, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.poll_stalled(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_flush(cx);
        this.poll_stalled(cx, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_shutdown(cx);
        ready!(this.poll_stalled(cx, polled))?;
        // What is there unread would turn the hanging up into a reset, and the answer might be lost.
        while (this.is_refused || this.framing.is_in_body()) && this.discarded < MAX_DISCARD {
            let mut chunk = [0; CHUNK];
            let mut chunk = ReadBuf::new(&mut chunk);
            match Pin::new(&mut this.io).poll_read(cx, &mut chunk) {
                Poll::Ready(Ok(())) if !chunk.filled().is_empty() => this.discarded += chunk.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const PATIENCE: Patience =
        Patience { head: Duration::from_secs(10), stall: Duration::from_secs(60), max_head: 1024 };

    fn guarded() -> (DuplexStream, Guard<DuplexStream, ()>, Arc<Shared>) {
        let (client, server) = duplex(64 * 1024);
        let shared = Arc::new(Shared::default());
        (client, Guard::new(server, PATIENCE, Arc::clone(&shared), ()), shared)
    }

    async fn read(guard: &mut Guard<DuplexStream, ()>) -> Vec<u8> {
        let mut buf = [0; 8192];
        let count = guard.read(&mut buf).await.unwrap();
        buf[..count].to_vec()
    }

    #[tokio::test]
    async fn a_head_is_held_back_until_it_is_whole() {
        let (mut client, mut guard, _) = guarded();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").await.unwrap();
        assert!(futures_util::poll!(std::pin::pin!(guard.read_u8())).is_pending());
        client.write_all(b"\r\n").await.unwrap();
        assert_eq!(read(&mut guard).await, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    }

    #[tokio::test]
    async fn good_requests_before_a_bad_one_pass_and_a_stand_in_follows_them() {
        let (mut client, mut guard, shared) = guarded();
        let good = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        client.write_all(&[good, &b"GET / HTTP/1.1\nHost: x\n\n"[..], good].concat()).await.unwrap();
        assert_eq!(read(&mut guard).await, good);
        assert_eq!(read(&mut guard).await, STAND_IN);
        assert!(futures_util::poll!(std::pin::pin!(guard.read_u8())).is_pending(), "something passed behind it");
        assert_eq!(shared.serve(), None);
        assert_eq!(shared.serve(), Some(HeadFlaw::BareLineEnd));
    }

    #[tokio::test]
    async fn bytes_behind_an_upgrade_wait_for_the_answer() {
        let (mut client, mut guard, shared) = guarded();
        let head = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n";
        client.write_all(&[&head[..], b"\x81\x00"].concat()).await.unwrap();
        assert_eq!(read(&mut guard).await, head);
        assert!(futures_util::poll!(std::pin::pin!(guard.read_u8())).is_pending());
        shared.switch();
        assert_eq!(read(&mut guard).await, b"\x81\x00");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_trickles_in_is_cut_off() {
        let (mut client, mut guard, _) = guarded();
        let trickle = async {
            for byte in b"GET / HTTP/1.1\r\nHost: x\r\nX: y".iter().cycle() {
                if client.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::advance(Duration::from_secs(1)).await;
            }
        };
        let mut buf = [0; 100];
        tokio::select! {
            () = trickle => panic!("was not cut off"),
            read = guard.read(&mut buf) => assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_byte_is_cut_off() {
        let (_client, mut guard, _) = guarded();
        assert_eq!(guard.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_cut_off() {
        let (_client, mut guard, _) = guarded();
        let error = guard.write_all(&[0; 100 * 1024]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_cut_off() {
        let (mut client, mut guard, _) = guarded();
        client.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe").await.unwrap();
        assert!(read(&mut guard).await.ends_with(b"he"));
        assert_eq!(guard.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
