//! Bodies on their way through: counted, trailers sifted, ended early where asked.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use doorward_core::reason::Reason;
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use super::{Until, headers};
use crate::idle::IdleWatch;

type BoxError = Box<dyn Error + Send + Sync>;

/// An answer that declares at most this length is finished rather than cut, if its app is quick.
const SHORT: u64 = 64 * 1024;
/// How long such an answer may take, from when it is noticed that its caller may no longer read on. Whatever is open ends
/// within a second of a revocation, which another process learns of within 200 ms.
const LINGER: Duration = Duration::from_millis(300);

/// What both directions of one exchange know of each other.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    moves: AtomicU32,
    has_client_failed: AtomicBool,
}

impl Exchange {
    /// Counts movements; wraps.
    pub(super) fn moves(&self) -> u32 {
        self.moves.load(Ordering::Relaxed)
    }

    fn moved(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the client's body broke, so that a failure to forward is not the app's.
    pub(super) fn has_client_failed(&self) -> bool {
        self.has_client_failed.load(Ordering::Relaxed)
    }
}

/// The client's body on its way to the app.
pub(super) enum RequestBody {
    Empty,
    Stream {
        inner: Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>,
        exchange: Arc<Exchange>,
        strip: Box<[HeaderName]>,
    },
}

impl RequestBody {
    pub(super) fn new<B>(body: B, exchange: &Arc<Exchange>, strip: &[HeaderName]) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if body.is_end_stream() {
            return Self::Empty;
        }
        let inner = Box::pin(http_body_util::BodyExt::map_err(body, Into::into));
        Self::Stream { inner, exchange: Arc::clone(exchange), strip: strip.into() }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self::Stream { inner, exchange, strip } = self.get_mut() else { return Poll::Ready(None) };
        let polled = inner.as_mut().poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Err(_))) => exchange.has_client_failed.store(true, Ordering::Relaxed),
            Poll::Ready(_) => exchange.moved(),
            Poll::Pending => {}
        }
        polled.map_ok(|frame| sift(frame, |trailers| headers::sift_request_trailers(trailers, strip)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream { inner, .. } => inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream { inner, .. } => inner.size_hint(),
        }
    }
}

fn sift(mut frame: Frame<Bytes>, sift: impl FnOnce(&mut HeaderMap)) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        sift(trailers);
    }
    frame
}

/// The app's body on its way to the client.
#[derive(Debug)]
pub struct ProxyBody(Option<Box<Streaming>>);

struct Streaming {
    inner: Incoming,
    exchange: Arc<Exchange>,
    idle: Duration,
    watch: Option<IdleWatch>,
    until: Option<Until>,
    /// Whether the HTTP library has asked before. It sends the head together with what it gets first, so an error
    /// at that moment would take the head along, and the client would get nothing at all.
    is_begun: bool,
    _permit: OwnedSemaphorePermit,
}

impl fmt::Debug for Streaming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streaming").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl ProxyBody {
    pub(super) fn empty() -> Self {
        Self(None)
    }

    pub(super) fn new(
        inner: Incoming,
        exchange: Arc<Exchange>,
        idle: Duration,
        until: Option<Until>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let is_short = inner.size_hint().exact().is_some_and(|length| length <= SHORT);
        let until = if is_short { until.map(after_lingering) } else { until };
        Self(Some(Box::new(Streaming { inner, exchange, idle, watch: None, until, is_begun: false, _permit: permit })))
    }
}

/// A page that was let in and is on its way should not become a broken connection because somebody signed out
/// in another window at that moment.
fn after_lingering(until: Until) -> Until {
    Box::pin(async move {
        let reason = until.await;
        tokio::time::sleep(LINGER).await;
        reason
    })
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(this) = self.get_mut().0.as_deref_mut() else { return Poll::Ready(None) };
        // First, so that a stream which always has something to say is ended too.
        if let Some(until) = &mut this.until
            && let Poll::Ready(reason) = until.as_mut().poll(cx)
        {
            this.until = None;
            if !std::mem::replace(&mut this.is_begun, true) {
                this.until = Some(Box::pin(std::future::ready(reason)));
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            return Poll::Ready(Some(Err(BodyError::Ended(reason))));
        }
        this.is_begun = true;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            this.exchange.moved();
            return Poll::Ready(frame.map(|frame| match frame {
                Ok(frame) => Ok(sift(frame, headers::sift_response_trailers)),
                Err(error) => Err(BodyError::Upstream(error)),
            }));
        }
        let watch = this.watch.get_or_insert_with(|| IdleWatch::new(this.idle));
        watch.poll(cx, this.exchange.moves()).map(|()| Some(Err(BodyError::Idle)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|this| this.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |this| this.inner.size_hint())
    }
}

/// Why an answer ended before its end. The connection to the client is cut, so it can tell.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The app broke off.
    #[error("the application broke off: {0}")]
    Upstream(#[source] hyper::Error),
    /// No byte moved in either direction for the app's idle limit.
    #[error("no byte moved for the idle limit")]
    Idle,
    /// The caller may not read on.
    #[error("ended: {0}")]
    Ended(Reason),
}
