//! Extractors for axum handlers behind [`GateLayer`](crate::tower::GateLayer).

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use axum::{
    extract::{ConnectInfo, FromRequestParts, OptionalFromRequestParts, OriginalUri},
    response::{IntoResponse, Response},
};
use doorward_core::{decision::Decision, principal::Principal, reason::Reason};
use http::{Extensions, StatusCode, Uri, request::Parts};

use crate::tower::Admitted;

/// Who is calling. Refuses with `internal` where no gate stands in front or the rule is public: a handler
/// that asks for a caller must never run without one. Use `Option<Caller>` where that is fine.
#[derive(Clone, Debug)]
pub struct Caller(pub Arc<Principal>);

/// The decision that let the request in.
#[derive(Clone, Debug)]
pub struct Verdict(pub Arc<Decision>);

/// A handler asked for what the gate did not put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoGate;

impl IntoResponse for NoGate {
    fn into_response(self) -> Response {
        tracing::error!("a handler asks for the caller, but its rule is public or no gate stands in front of it");
        (StatusCode::INTERNAL_SERVER_ERROR, Reason::Internal.text()).into_response()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = NoGate;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        parts.extensions.get::<Admitted>().and_then(|admitted| admitted.principal.clone()).map(Self).ok_or(NoGate)
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
        Ok(parts.extensions.get::<Admitted>().and_then(|admitted| admitted.principal.clone()).map(Self))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Verdict {
    type Rejection = NoGate;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        parts.extensions.get::<Admitted>().map(|admitted| Self(Arc::clone(&admitted.decision))).ok_or(NoGate)
    }
}

/// The peer, where the app is served with `into_make_service_with_connect_info::<SocketAddr>()`.
pub(crate) fn connect_info(extensions: &Extensions) -> Option<SocketAddr> {
    extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0)
}

/// The URI before nested routers cut their prefix off.
pub(crate) fn original_uri(extensions: &Extensions) -> Option<&Uri> {
    extensions.get::<OriginalUri>().map(|uri| &uri.0)
}
