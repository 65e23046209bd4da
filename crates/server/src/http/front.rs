//! Everything that is not a route of ours: judged by the rules, then proxied to its app.

use std::sync::Arc;

use axum::body::Body;
use doorward_core::{
    decision::{Action, Decision, Denial, Grant, Permitted},
    forward::{self, ForwardPolicy},
    principal::Principal,
    reason::Reason,
    time::Now,
};
use doorward_gate::{assertion::HEADER as ASSERTION, respond::mark_grace};
use http::{HeaderName, HeaderValue, Request, Response};

use super::{SiteApp, Source, call::Call, cors};
use crate::proxy::{ForwardPlan, Until};

/// Judges by the rules and forwards what they admit.
pub async fn front(mut call: Call) -> Response<Body> {
    if let Some(answer) = cors::preflight_for_app(&call) {
        return answer;
    }
    let site = Arc::clone(&call.site);
    let (index, mut response) = judged(&mut call).await;
    let rule = index.and_then(|index| site.policy.rule(index));
    if response.extensions().get::<Source>().is_none() {
        let cors = rule.and_then(|rule| site.apps.get(rule.app)).is_some_and(|app| app.cors);
        response.extensions_mut().insert(Source::RefusalFor { cors });
    }
    response
}

/// The answer, and the rule that it is about.
async fn judged(call: &mut Call) -> (Option<usize>, Response<Body>) {
    let since = call.server.gate.clock().now();
    let decision = call.server.gate.check_by(&call.facts(), &call.site.policy).decision().await;
    let response = match &decision.outcome {
        Err(_) => call.answer(&decision),
        Ok(grant) => match forward(call, &decision, grant, since).await {
            Ok(response) => response,
            // The grant stands; what failed is the way to the app.
            Err(denial) => call.refuse(denial),
        },
    };
    (decision.rule, response)
}

async fn forward(call: &mut Call, decision: &Decision, grant: &Grant, since: Now) -> Result<Response<Body>, Denial> {
    let site = Arc::clone(&call.site);
    let rule = decision.rule.and_then(|index| site.policy.rule(index)).ok_or(Reason::Internal)?;
    let app = site.apps.get(rule.app).ok_or(Reason::Internal)?;
    let principal = grant.principal.as_ref().map(Permitted::get);
    let used = principal.map(|principal| principal.authenticated.kind());
    // Looks at the headers, which go to the app below.
    let until = principal.map(|principal| until(call, principal, decision, grant, since));
    let mut headers = std::mem::take(&mut call.parts.headers);
    let strip = ForwardPolicy { extra: &app.extra_names, used, forward_authorization: rule.forward_authorization };
    forward::strip(&mut headers, &strip);
    let set = identity(call, app, grant, decision)?;
    let host = HeaderValue::try_from(&*call.client.host).map_err(|_| Reason::RequestMalformed)?;
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
    let mut response = response.map(Body::new);
    mark_grace(response.headers_mut(), grant);
    response.extensions_mut().insert(Source::App { cors: app.cors, harden: app.harden });
    Ok(response)
}

/// What ends the answer, or the socket that comes of it: whatever ends the caller's credential, and the loss of the
/// license that let the request pass.
fn until(call: &Call, principal: &Arc<Principal>, decision: &Decision, grant: &Grant, since: Now) -> Until {
    let gate = &call.server.gate;
    let ended = gate.ended(Arc::clone(principal), since);
    let (Some(_), Some(rule)) = (&grant.license, decision.rule) else { return Box::pin(ended) };
    let reads = Action::is_read(&call.parts.method, call.facts().is_upgrade);
    let lost = gate.license_lost(Arc::clone(principal), Arc::clone(&call.site.policy), rule, reads);
    Box::pin(async move {
        tokio::select! {
            reason = ended => reason,
            reason = lost => reason,
        }
    })
}

/// The identity headers for an app: those with something to say, under our names and its own.
fn identity(
    call: &Call,
    app: &SiteApp,
    grant: &Grant,
    decision: &Decision,
) -> Result<Vec<(HeaderName, HeaderValue)>, Denial> {
    let (principal, license) = (grant.principal.as_ref().map(Permitted::get), grant.license.as_ref());
    let identity = forward::identity_headers(principal.map(|principal| &**principal), license, decision.id);
    let ours = identity.all().map(|(name, value)| (name, value.clone()));
    let extra = app.extra.iter().map(|(field, name)| (name.clone(), identity.value(*field).clone()));
    let mut set: Vec<_> = ours.chain(extra).filter(|(_, value)| !value.is_empty()).collect();
    if let (Some(principal), Some(audience)) = (principal, &app.assertion) {
        let now = call.server.gate.clock().now();
        set.push((ASSERTION, call.server.assertions.for_principal(principal, license, audience, now)?));
    }
    Ok(set)
}
