//! The service that stands before the real one on each connection: refuses, and keeps count.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use doorward_core::decision::Denial;
use http::{
    HeaderValue, Request, Response, StatusCode, Uri, Version,
    header::{CONNECTION, UPGRADE},
};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tower_service::Service;

use super::{
    Connection,
    guard::{InFlight, Shared},
    strict,
};

/// Turns a refusal into an answer, given where the request was going and on what connection; the listener adds
/// `Connection: close`.
pub type Refuse<B> = Arc<dyn Fn(Denial, &Uri, Connection) -> Response<B> + Send + Sync>;

pub(super) struct Front<S, B> {
    pub(super) service: S,
    pub(super) refuse: Refuse<B>,
    pub(super) connection: Connection,
    pub(super) shared: Arc<Shared>,
}

type Answer<B> = Result<Response<Counted<B>>, Infallible>;

impl<S, B> hyper::service::Service<Request<Incoming>> for Front<S, B>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body + Unpin + Send + 'static,
{
    type Response = Response<Counted<B>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Answer<B>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let in_flight = InFlight::of(&self.shared);
        let checked = match self.shared.serve() {
            Some(flaw) => Err(strict::denial_of(flaw)),
            None => strict::check(&mut request),
        };
        let is_h1 = request.version() != Version::HTTP_2;
        if let Err(denial) = checked {
            tracing::debug!(peer = %self.connection.peer, %denial, "refused before it was looked at");
            let mut response = (self.refuse)(denial, request.uri(), self.connection);
            if is_h1 {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            let response = response.map(|body| Counted { body, _in_flight: in_flight });
            return Box::pin(std::future::ready(Ok(response)));
        }
        // As hyper and the framing see it: what may be answered by switching.
        let is_upgrade = request.version() == Version::HTTP_11 && request.headers().contains_key(UPGRADE);
        request.extensions_mut().insert(self.connection);
        let mut service = self.service.clone();
        let shared = is_upgrade.then(|| Arc::clone(&self.shared));
        Box::pin(async move {
            let Ok(()) = poll_fn(|cx| service.poll_ready(cx)).await;
            let Ok(mut response) = service.call(request).await;
            if let Some(shared) = shared {
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    shared.switch();
                } else {
                    // What the client sent behind its offer was not read, and will not be.
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
            }
            Ok(response.map(|body| Counted { body, _in_flight: in_flight }))
        })
    }
}

/// A body that counts as a request under way until it is dropped.
pub(super) struct Counted<B> {
    body: B,
    _in_flight: InFlight,
}

impl<B: Body + Unpin> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
