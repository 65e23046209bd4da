//! `/sessions`: a person sees where they are signed in, and ends what they do not know.

use std::sync::Arc;

use axum::body::Body;
use doorward_core::{
    decision::Denial,
    id::{SessionId, UserId},
    principal::{Authenticated, Principal},
    reason::Reason,
    session::Session,
};
use doorward_gate::flow::sessions::{self, Listed};
use http::{Response, StatusCode};
use serde_json::json;

use super::{
    call::{self, Call},
    login,
    respond::Want,
    session::{self, rfc3339},
};
use crate::pages;

/// The session that asks. The route table lets nobody else through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub(super) user: UserId,
    pub(super) id: SessionId,
}

impl Own {
    pub(super) fn of(caller: Option<&Arc<Principal>>) -> Result<Self, Denial> {
        let caller = caller.ok_or(Reason::Internal)?;
        match (&caller.authenticated, caller.user_id) {
            (Authenticated::Session { id, .. }, Some(user)) => Ok(Self { user, id: *id }),
            _ => Err(Reason::Internal.into()),
        }
    }
}

/// `GET /sessions`.
pub async fn list(call: Call, caller: Option<Arc<Principal>>) -> Response<Body> {
    let now = call.server.gate.clock().now();
    let listed = match Own::of(caller.as_ref()) {
        Ok(own) => sessions::list(&call.server.gate, own.user, own.id, now).await.map(|listed| (own, listed)),
        Err(denial) => Err(denial),
    };
    let (own, listed) = match listed {
        Ok(listed) => listed,
        Err(denial) => return call.refuse(denial),
    };
    if let Want::Page { .. } = call.want {
        return page(&call, own, &listed);
    }
    let entries: Vec<_> = listed.sessions.iter().map(|session| entry(session, own)).collect();
    call::json(StatusCode::OK, &json!({ "sessions": entries, "more": listed.is_cut }))
}

fn entry(session: &Session, own: Own) -> serde_json::Value {
    json!({
        "id": session.id.to_string(),
        "current": session.id == own.id,
        "created_at": rfc3339(session.created_at),
        "last_used_at": rfc3339(session.last_used_at),
        "ip": session.ip.map(|ip| ip.to_string()),
        "user_agent": session.user_agent,
    })
}

fn page(call: &Call, own: Own, listed: &Listed) -> Response<Body> {
    let csrf = session::presented(call).and_then(|hash| call.server.csrf_value(&hash));
    let Some(csrf) = csrf else {
        return call.refuse(Denial::from(Reason::StoreUnavailable).with_note("the session key ring is not loaded yet"));
    };
    let page = pages::Sessions { sessions: &listed.sessions, is_cut: listed.is_cut, current: own.id, csrf: &csrf };
    call::page(StatusCode::OK, pages::sessions(&call.site.pages, &page))
}

/// `DELETE /sessions/{id}` and `POST /sessions/{id}/revoke`. A session of somebody else is not there.
pub async fn revoke(call: Call, caller: Option<Arc<Principal>>, id: &str) -> Response<Body> {
    let own = match Own::of(caller.as_ref()) {
        Ok(own) => own,
        Err(denial) => return call.refuse(denial),
    };
    let Ok(id) = id.parse::<SessionId>() else { return call.refuse(Reason::NotFound.into()) };
    if id == own.id {
        return session::logout(call).await;
    }
    let (now, asker) = (call.server.gate.clock().now(), login::asker(&call));
    match sessions::revoke(&call.server.gate, own.user, own.id, id, &asker, now).await {
        Ok(Some(_)) => done(&call, call::ok),
        Ok(None) => call.refuse(Reason::NotFound.into()),
        Err(denial) => call.refuse(denial),
    }
}

/// `POST /sessions/revoke-others`.
pub async fn revoke_others(call: Call, caller: Option<Arc<Principal>>) -> Response<Body> {
    let own = match Own::of(caller.as_ref()) {
        Ok(own) => own,
        Err(denial) => return call.refuse(denial),
    };
    let (now, asker) = (call.server.gate.clock().now(), login::asker(&call));
    match sessions::revoke_others(&call.server.gate, own.user, own.id, &asker, now).await {
        Ok(ended) => done(&call, || call::json(StatusCode::OK, &json!({ "ok": true, "ended": ended }))),
        Err(denial) => call.refuse(denial),
    }
}

/// Back to the list for a page, `json` for everybody else.
fn done(call: &Call, json: impl FnOnce() -> Response<Body>) -> Response<Body> {
    match call.want {
        Want::Page { .. } => call::see_other(&format!("{}/sessions", call.site.pages.base)),
        Want::Json => json(),
    }
}
