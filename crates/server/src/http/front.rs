//! Everything that is not a route of ours: judged by the rules, then proxied to its app.

use std::sync::Arc;

use axum::body::Body;
use doorward_core::{
    decision::{Decision, Denial, Grant, Permitted},
    forward::{self, ForwardPolicy},
    principal::Principal,
    reason::Reason,
};
use doorward_gate::{assertion::HEADER as ASSERTION, gate::Checked};
use http::{HeaderName, HeaderValue, Request, Response};

use super::{SiteApp, call::Call};
use crate::proxy::{ForwardPlan, Until};

/// How often a decision is taken again because the policy was swapped while it was taken.
const SWAPS: usize = 3;

/// Judges by the rules and forwards what they admit.
pub async fn front(mut call: Call) -> Response<Body> {
    let decision = match judge(&mut call).await {
        Ok(decision) => decision,
        Err(denial) => return call.refuse(denial),
    };
    match &decision.outcome {
        Err(_) => call.answer(&decision),
        Ok(grant) => match forward(&mut call, &decision, grant).await {
            Ok(response) => response,
            // The grant stands; what failed is the way to the app.
            Err(denial) => call.refuse(denial),
        },
    }
}

/// Takes a decision under the very policy version that `call.site` belongs to, so the app that a rule
/// points to is the one that the rule meant.
pub async fn judge(call: &mut Call) -> Result<Decision, Denial> {
    for _ in 0..SWAPS {
        let checked = call.server.gate.check(&call.facts());
        let decision = match checked {
            Checked::Ready(decision) => decision,
            Checked::Pending(decision) => decision.await,
        };
        if decision.policy == call.site.version {
            return Ok(decision);
        }
        call.site = call.server.site();
    }
    Err(Denial::from(Reason::Internal).with_note("the policy kept changing"))
}

async fn forward(call: &mut Call, decision: &Decision, grant: &Grant) -> Result<Response<Body>, Denial> {
    let site = Arc::clone(&call.site);
    let policy = call.server.gate.policy();
    let rule = decision
        .rule
        .filter(|_| policy.version == site.version)
        .and_then(|index| policy.rule(index))
        .ok_or(Reason::Internal)?;
    let app = site.apps.get(rule.app).ok_or(Reason::Internal)?;
    let principal = grant.principal.as_ref().map(Permitted::get);
    let used = principal.map(|principal| principal.authenticated.kind());
    let mut headers = std::mem::take(&mut call.parts.headers);
    let strip = ForwardPolicy { extra: &app.extra_names, used, forward_authorization: rule.forward_authorization };
    forward::strip(&mut headers, &strip);
    let set = identity(call, app, principal, decision)?;
    let host = HeaderValue::try_from(&*call.client.host).map_err(|_| Reason::RequestMalformed)?;
    let until: Option<Until> = principal.map(|principal| {
        let gate = call.server.gate.clone();
        let principal = Arc::clone(principal);
        Box::pin(async move { gate.ended(principal).await }) as Until
    });
    let mut request = Request::new(call.take_body().unwrap_or_default());
    *request.method_mut() = call.parts.method.clone();
    *request.uri_mut() = call.parts.uri.clone();
    *request.version_mut() = call.parts.version;
    *request.headers_mut() = headers;
    // The handle of an upgrade travels here.
    *request.extensions_mut() = std::mem::take(&mut call.parts.extensions);
    let plan = ForwardPlan {
        strip: &[],
        set: &set,
        cookies: &[],
        // What was used is gone already; what is left belongs to the app.
        keep_authorization: true,
        scheme: call.client.scheme,
        host: &host,
        client: call.client.ip,
        is_authenticated: principal.is_some(),
        until,
    };
    let response = call.server.proxy.forward(request, &app.upstream, plan).await?;
    Ok(response.map(Body::new))
}

/// The identity headers for an app: those with something to say, under our names and its own.
fn identity(
    call: &Call,
    app: &SiteApp,
    principal: Option<&Arc<Principal>>,
    decision: &Decision,
) -> Result<Vec<(HeaderName, HeaderValue)>, Denial> {
    let identity = forward::identity_headers(principal.map(|principal| &**principal), None, decision.id);
    let ours = identity.all().map(|(name, value)| (name, value.clone()));
    let extra = app.extra.iter().map(|(field, name)| (name.clone(), identity.value(*field).clone()));
    let mut set: Vec<_> = ours.chain(extra).filter(|(_, value)| !value.is_empty()).collect();
    if let (Some(principal), Some(audience)) = (principal, &app.assertion) {
        let now = call.server.gate.clock().now();
        set.push((ASSERTION, call.server.assertions.for_principal(principal, audience, now)?));
    }
    Ok(set)
}
