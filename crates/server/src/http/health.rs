//! Liveness, readiness, and the operator's view of both.

use std::sync::atomic::Ordering;

use axum::body::Body;
use doorward_core::{decision::Denial, reason::Reason};
use doorward_gate::license::{BreakerState, FaultKind, FileStatus, LicenseStatus};
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::{
    Server,
    call::{self, Call},
    session::rfc3339,
};
use crate::local_license::LocalLicense;

/// `GET /healthz`: the process answers. No neighbour is asked.
pub fn healthz() -> Response<Body> {
    call::ok()
}

/// `GET /readyz`: requests can be served: not draining, and the store answers.
pub fn readyz(call: &Call) -> Response<Body> {
    if call.server.is_draining.load(Ordering::Relaxed) {
        return call.refuse(Denial::from(Reason::StoreUnavailable).with_note("draining"));
    }
    let refuse = |note: &str| call.refuse(Denial::from(Reason::StoreUnavailable).with_note(note));
    if !call.server.store_is_up.load(Ordering::Relaxed) {
        return refuse("the store does not answer");
    }
    // Ready means that a request sent now would not be refused only because it came too early.
    if !call.server.ring_is_settled.load(Ordering::Relaxed) {
        return refuse("the key ring is not read from the store yet");
    }
    if !call.server.gate.is_fresh(call.server.gate.clock().now()) {
        return refuse("the revocation log is not read from the store");
    }
    call::ok()
}

/// The deep view for the admin listener: every neighbour with its state, 200 if all are well, else 503.
pub fn deep(server: &Server) -> Response<Body> {
    let now = server.gate.clock().now();
    let store_is_up = server.store_is_up.load(Ordering::Relaxed);
    let issuers: Vec<_> = server
        .gate
        .issuers()
        .status(now)
        .into_iter()
        .map(|issuer| {
            json!({
                "name": &*issuer.name,
                "source": issuer.source,
                "address": issuer.address,
                "keys": issuer.keys.keys,
                "fetched_seconds_ago": issuer.keys.age.map(|age| age.as_secs()),
                "serves_for_seconds": issuer.keys.serves_for.map(|span| span.as_secs()),
                "next_fetch_in_seconds": issuer.keys.next_fetch_in.map(|span| span.as_secs()),
                "fetches": issuer.keys.fetches,
                "failures": issuer.keys.failures,
                "last_error": issuer.keys.last_problem.map(|problem| problem.to_string()),
                "skipped": issuer.keys.skipped.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "waiters": issuer.waiters,
            })
        })
        .collect();
    let license = server.gate.licenses().map(|licenses| licenses.status());
    let license_is_up = license.as_ref().is_none_or(|license| license.breaker == BreakerState::Closed);
    let file = match server.local_license.load().as_deref() {
        Some(LocalLicense::File(file)) => Some(file.status()),
        Some(LocalLicense::Relay(_)) | None => None,
    };
    let shared = server.shared.status();
    let shared_is_up = shared.as_ref().is_none_or(|shared| shared.problem.is_none());
    let is_well = store_is_up
        && shared_is_up
        && license_is_up
        && server.gate.issuers().status(now).iter().all(|issuer| issuer.keys.keys > 0);
    let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    call::json(
        status,
        &json!({
            "ok": is_well,
            "draining": server.is_draining.load(Ordering::Relaxed),
            "store": { "up": store_is_up },
            "revocations": { "seq": server.gate.revocation_seq(), "fresh": server.gate.is_fresh(now) },
            "issuers": issuers,
            "blocklist": { "entries": server.gate.blocklist_len() },
            "shared": shared.map(|shared| json!({
                "up": shared.problem.is_none(),
                "problem": shared.problem,
                "asked": shared.asked,
                "blocked": shared.members,
                "unanswered": shared.failed,
            })),
            "license": license.map(|license| license_json(&license, file.as_ref())),
            "policy_version": server.gate.policy().version,
            "open_sockets": server.proxy.open_sockets(),
        }),
    )
}

fn license_json(status: &LicenseStatus, file: Option<&FileStatus>) -> Value {
    let (state, asked_in) = match status.breaker {
        BreakerState::Closed => ("answers", None),
        BreakerState::Open(pause) => ("failed", Some(pause.as_secs())),
        BreakerState::Trial => ("failed", Some(0)),
    };
    let faults: Map<String, Value> =
        FaultKind::ALL.iter().map(|kind| (kind.as_str().to_owned(), status.faults[*kind as usize].into())).collect();
    let fault = status.last_fault.as_ref();
    json!({
        "provider": status.provider,
        "state": state,
        "asked_again_in_seconds": asked_in,
        "answered_at": status.answered_at.map(rfc3339),
        "last_fault": fault.map(|(at, fault)| json!({ "at": rfc3339(*at), "kind": fault.kind.as_str(), "note": fault.note })),
        "questions": status.questions,
        "answers": status.answers,
        "faults": faults,
        "under_way": status.under_way,
        "time": {
            "judged_by": rfc3339(status.time.latest()),
            "ahead_of_clock_seconds": status.time.lead().as_secs(),
            "clock_leapt_seconds": status.time.leap().map_or(0, |leap| leap.as_secs()),
        },
        "file": file.map(|file| json!({
            "name": file.file, "ends_at": file.ends_at.map(rfc3339), "problem": file.problem,
        })),
    })
}
