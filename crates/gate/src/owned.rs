//! Request facts that outlive the request's borrow, for decisions that must wait.

use std::net::IpAddr;

use doorward_core::request::{RequestFacts, Scheme};
use http::{HeaderMap, Method};

/// [`RequestFacts`], owned. Made only when a decision has to wait for the store or an issuer.
#[derive(Clone, Debug)]
pub(crate) struct OwnedFacts {
    method: Method,
    scheme: Scheme,
    host: Box<str>,
    target: Box<str>,
    headers: HeaderMap,
    client: IpAddr,
    is_upgrade: bool,
    may_leave_http: bool,
}

impl OwnedFacts {
    /// Copies what is borrowed.
    pub(crate) fn of(facts: &RequestFacts<'_>) -> Self {
        Self {
            method: facts.method.clone(),
            scheme: facts.scheme,
            host: facts.host.into(),
            target: facts.target.into(),
            headers: facts.headers.clone(),
            client: facts.client,
            is_upgrade: facts.is_upgrade,
            may_leave_http: facts.may_leave_http,
        }
    }

    /// The facts again.
    pub(crate) fn as_facts(&self) -> RequestFacts<'_> {
        RequestFacts {
            method: &self.method,
            scheme: self.scheme,
            host: &self.host,
            target: &self.target,
            headers: &self.headers,
            client: self.client,
            is_upgrade: self.is_upgrade,
            may_leave_http: self.may_leave_http,
        }
    }
}
