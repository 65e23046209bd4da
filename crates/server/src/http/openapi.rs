//! `openapi.json`, made from the route table and the reason table.

use std::collections::BTreeMap;

use doorward_core::reason::{Reason, Remedy};
use serde_json::{Map, Value, json};

use super::routes::{Handler, ROUTES, Route};

/// What every route can refuse with.
const COMMON: &[Reason] = &[Reason::RequestMalformed, Reason::HostUnknown, Reason::Internal];

/// The document, with paths under `base`.
pub fn document(base: &str) -> Value {
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for route in ROUTES {
        let path = format!("{base}{}", route.path.replace('*', "{rest}"));
        let methods = if route.methods.is_empty() { &["GET", "POST", "PUT", "PATCH", "DELETE"] } else { route.methods };
        let item = paths.entry(path).or_default();
        let parameter =
            if route.path.ends_with('*') { Some("rest") } else { route.path.contains("{id}").then_some("id") };
        if let Some(name) = parameter {
            item.insert(
                "parameters".to_owned(),
                json!([{ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }]),
            );
        }
        for method in methods {
            item.insert(method.to_ascii_lowercase(), operation(route, method));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Doorward",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The front door's own routes. Every refusal is a problem document whose `reason` \
                            comes from one append-only table.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": {
                "Problem": problem(),
                "Ok": {
                    "type": "object", "required": ["ok"],
                    "properties": { "ok": { "type": "boolean", "const": true } },
                },
                "LinkRequest": {
                    "type": "object", "required": ["email"], "additionalProperties": false,
                    "properties": {
                        "email": { "type": "string", "maxLength": 254 },
                        "return_to": { "type": "string", "description": "local path to go to afterwards" },
                    },
                },
                "ReAuth": {
                    "type": "object",
                    "properties": {
                        "return_to": { "type": "string", "description": "local path to go to afterwards" },
                    },
                },
                "Callback": {
                    "type": "object", "required": ["token"], "additionalProperties": false,
                    "properties": { "token": { "type": "string" } },
                },
                "Password": {
                    "type": "object", "required": ["email", "password"], "additionalProperties": false,
                    "properties": {
                        "email": { "type": "string" },
                        "password": { "type": "string", "format": "password" },
                        "return_to": { "type": "string" },
                    },
                },
                "Session": session(),
                "Sessions": sessions(),
                "Whoami": whoami(),
            },
            "securitySchemes": {
                "session": { "type": "apiKey", "in": "cookie", "name": "__Host-doorward_sid" },
                "bearer": { "type": "http", "scheme": "bearer", "description": "a JWT of a configured issuer, or an API key (`dwk_…`)" },
            },
        },
    })
}

fn operation(route: &Route, method: &str) -> Value {
    let mut responses = Map::new();
    for (status, text) in route.answers {
        let mut answer = json!({ "description": text });
        if let Some(content) = content(route.handler, *status) {
            answer["content"] = content;
        }
        responses.insert(status.to_string(), answer);
    }
    let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for reason in COMMON.iter().chain(route.refusals) {
        by_status.entry(reason.shown().status()).or_default().push(reason.shown().code());
    }
    for (status, codes) in by_status {
        responses.entry(status.to_string()).or_insert_with(|| {
            json!({
                "description": codes.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", "),
                "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
            })
        });
    }
    let mut operation = json!({
        "operationId": format!("{}_{}", method.to_ascii_lowercase(), route.path.trim_matches('/').replace(['{', '}'], "").replace(['/', '-', '.', '*'], "_").trim_matches('_')),
        "summary": route.summary,
        "responses": responses,
    });
    if let Some(schema) = request_schema(route.handler) {
        let schema = json!({ "schema": { "$ref": format!("#/components/schemas/{schema}") } });
        operation["requestBody"] = json!({
            "required": true,
            "content": { "application/json": schema, "application/x-www-form-urlencoded": schema },
        });
    }
    operation
}

fn request_schema(handler: Handler) -> Option<&'static str> {
    match handler {
        Handler::RequestLink => Some("LinkRequest"),
        Handler::Callback => Some("Callback"),
        Handler::ReAuth => Some("ReAuth"),
        Handler::Password => Some("Password"),
        _ => None,
    }
}

fn content(handler: Handler, status: u16) -> Option<Value> {
    let json_of = |schema: &str| {
        Some(json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } }))
    };
    match (handler, status) {
        (Handler::Healthz | Handler::Readyz | Handler::RequestLink | Handler::Callback | Handler::Logout, 200)
        | (Handler::ReAuth | Handler::Password, 200)
        | (Handler::RevokeSession | Handler::RevokeSessionForm, 200) => json_of("Ok"),
        (Handler::Sessions, 200) => json_of("Sessions"),
        (Handler::Session, 200) => json_of("Session"),
        (Handler::Whoami, 200) => json_of("Whoami"),
        (Handler::LoginPage | Handler::CallbackPage | Handler::Docs, 200) => Some(json!({ "text/html": {} })),
        _ => None,
    }
}

fn problem() -> Value {
    let words = |mut words: Vec<&'static str>| {
        words.sort_unstable();
        words.dedup();
        words
    };
    let shown = || Reason::ALL.iter().map(|reason| reason.shown());
    json!({
        "type": "object",
        "required": ["type", "title", "status", "error", "reason", "remedy", "retryable", "decision_id"],
        "properties": {
            "type": { "type": "string" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "error": { "type": "string", "enum": words(shown().map(Reason::error).collect()) },
            "reason": { "type": "string", "enum": words(shown().map(Reason::code).collect()) },
            "remedy": { "type": "string", "enum": words(Remedy::ALL.iter().map(|remedy| remedy.as_str()).collect()) },
            "retryable": { "type": "boolean" },
            "decision_id": { "type": "string", "format": "uuid" },
            "max_age_seconds": { "type": "integer" },
            "retry_after": { "type": "integer" },
            "required": { "type": "string" },
        },
    })
}

fn session() -> Value {
    let time = json!({ "type": "string", "format": "date-time" });
    json!({
        "type": "object", "required": ["authenticated"],
        "properties": {
            "authenticated": { "type": "boolean" },
            "user": {
                "type": "object", "required": ["id", "email"],
                "properties": { "id": { "type": "string", "format": "uuid" }, "email": { "type": "string" } },
            },
            "method": { "type": "string" },
            "csrf_token": { "type": "string" },
            "created_at": time, "authenticated_at": time, "idle_expires_at": time, "expires_at": time,
        },
    })
}

fn sessions() -> Value {
    let time = json!({ "type": "string", "format": "date-time" });
    json!({
        "type": "object", "required": ["sessions", "more"],
        "properties": {
            "sessions": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["id", "current", "created_at", "last_used_at", "ip", "user_agent"],
                    "properties": {
                        "id": { "type": "string", "format": "uuid" },
                        "current": { "type": "boolean", "description": "the session that asks" },
                        "created_at": time, "last_used_at": time,
                        "ip": { "type": ["string", "null"], "description": "client address at sign-in" },
                        "user_agent": { "type": ["string", "null"] },
                    },
                },
            },
            "more": { "type": "boolean", "description": "whether there are older ones, which are not listed" },
        },
    })
}

fn whoami() -> Value {
    json!({
        "type": "object", "required": ["authenticated", "client"],
        "properties": {
            "authenticated": { "type": "boolean" },
            "subject": { "type": "string" },
            "issuer": { "type": "string" },
            "email": { "type": "string" },
            "method": { "type": "string", "enum": ["session", "bearer", "api_key", "legacy"] },
            "reason": { "type": "string", "description": "why a credential that was presented was refused" },
            "client": {
                "type": "object", "required": ["address", "scheme", "host"],
                "properties": {
                    "address": { "type": "string" }, "scheme": { "type": "string" }, "host": { "type": "string" },
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_and_method_stands_in_the_document() {
        let document = document("/auth");
        for route in ROUTES {
            let path = format!("/auth{}", route.path.replace('*', "{rest}"));
            let item = &document["paths"][&path];
            for method in route.methods {
                assert!(item[method.to_ascii_lowercase()].is_object(), "{method} {path}");
            }
        }
    }

    #[test]
    fn operation_ids_stand_once() {
        let document = document("/auth");
        let mut seen = std::collections::HashSet::new();
        for item in document["paths"].as_object().unwrap().values() {
            for operation in item.as_object().unwrap().values().filter_map(|value| value.get("operationId")) {
                assert!(seen.insert(operation.clone()), "{operation}");
            }
        }
    }
}
