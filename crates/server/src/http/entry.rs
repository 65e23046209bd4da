//! Where the listeners hand requests over.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use doorward_core::{decision::Denial, id::DecisionId, reason::Reason};
use http::{Request, Response};
use hyper::body::Incoming;
use tower_service::Service;

use super::{Server, admin, check, respond, respond::Want};
use crate::listener::{Connection, Refuse};

/// A listener's service.
#[derive(Clone, Debug)]
pub enum Entry {
    /// The front door.
    Public(Arc<Server>),
    /// The admin listener.
    Admin(Arc<Server>),
}

impl Service<Request<Incoming>> for Entry {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let entry = self.clone();
        let request = request.map(Body::new);
        Box::pin(async move {
            Ok(match entry {
                Self::Admin(server) => admin::handle(&server, request).await,
                Self::Public(server) => match request.extensions().get::<Connection>().copied() {
                    Some(connection) => server.handle(request, connection.peer, connection.scheme).await,
                    // The listener always puts it there; without it nothing can be said about the client.
                    None => refused(&server, &Reason::Internal.into()),
                },
            })
        })
    }
}

/// Answers what the listener refuses before anybody sees it.
pub fn refuse(server: &Arc<Server>) -> Refuse<Body> {
    let server = Arc::clone(server);
    Arc::new(move |denial, uri, connection| {
        let asks = check::asking(&server.site(), connection.peer.ip(), uri.path());
        let answer = || {
            let mut response = refused(&server, &denial);
            server.site().headers.finish(response.headers_mut(), connection.scheme);
            response
        };
        asks.map_or_else(answer, |dialect| check::refuse_unread(&server, dialect, &denial))
    })
}

fn refused(server: &Server, denial: &Denial) -> Response<Body> {
    let decision = server.gate.refuse(denial.clone());
    unread(server, denial, decision.id);
    respond::denial(denial, decision.id, &Want::Json, &server.site().pages)
}

/// Counts and logs a refusal of which nothing was read that facts could be made of.
pub(super) fn unread(server: &Server, denial: &Denial, decision: DecisionId) {
    server.metrics.decided(Err(denial.reason), "-");
    tracing::info!(reason = denial.reason.code(), %decision, note = denial.to_string(), "refused unread");
}
