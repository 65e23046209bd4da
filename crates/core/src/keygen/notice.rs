//! Webhooks of Keygen: what they are about.

use serde_json::Value;

use super::Problem;
use crate::jose::StrictValue;

/// Longest webhook looked at, in bytes.
pub const MAX_NOTICE_BYTES: usize = 512 * 1024;
/// Most things that one webhook may be about here; an event about more is left to reconciliation.
const MAX_NAMED: usize = 100;
/// Longest id, address or event name taken, in bytes.
const MAX_TEXT: usize = 256;

/// Something that Keygen says happened. It is a hint to ask again, never a verdict: webhooks come out of order, and
/// the payload is as old as the event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notice {
    /// The same in every delivery of one event.
    pub token: String,
    /// `license.suspended`, `user.banned`, … New ones may come.
    pub event: String,
    /// Ids of licenses that it names.
    pub licenses: Vec<String>,
    /// Ids of users that it names.
    pub users: Vec<String>,
}

impl Notice {
    /// Reads a webhook whose signature fits.
    ///
    /// Not verified: that it is new (compare [`Notice::token`]).
    ///
    /// # Errors
    /// [`Problem::Malformed`].
    pub fn read(body: &[u8]) -> Result<Self, Problem> {
        if body.len() > MAX_NOTICE_BYTES {
            return Err(Problem::Malformed("the webhook"));
        }
        let StrictValue(outer) = serde_json::from_slice(body).map_err(|_| Problem::Malformed("the webhook"))?;
        let text = |at: &str, what| short(outer.pointer(at)).ok_or(Problem::Malformed(what));
        if outer.pointer("/data/type").and_then(Value::as_str) != Some("webhook-events") {
            return Err(Problem::Malformed("`data.type`"));
        }
        let mut notice = Self {
            token: text("/data/meta/idempotencyToken", "`data.meta.idempotencyToken`")?,
            event: text("/data/attributes/event", "`data.attributes.event`")?,
            ..Self::default()
        };
        // The payload is a document in a string.
        let payload = outer.pointer("/data/attributes/payload").and_then(Value::as_str);
        let payload = payload.ok_or(Problem::Malformed("`data.attributes.payload`"))?;
        let StrictValue(payload) =
            serde_json::from_str(payload).map_err(|_| Problem::Malformed("`data.attributes.payload`"))?;
        match payload.get("data") {
            Some(Value::Array(resources)) => resources.iter().take(MAX_NAMED).for_each(|one| notice.name(one)),
            Some(one @ Value::Object(_)) => notice.name(one),
            // Some events carry nothing; they are about nobody in particular.
            _ => {}
        }
        Ok(notice)
    }

    fn name(&mut self, resource: &Value) {
        let id = short(resource.get("id"));
        match resource.get("type").and_then(Value::as_str) {
            Some("licenses") => self.licenses.extend(id),
            Some("users") => self.users.extend(id),
            _ => {}
        }
        let related = |name: &str| short(resource.pointer(&format!("/relationships/{name}/data/id")));
        self.licenses.extend(related("license"));
        // `user` up to version 1.5.
        self.users.extend(related("owner").or_else(|| related("user")));
    }
}

fn short(value: Option<&Value>) -> Option<String> {
    let text = value?.as_str()?;
    (!text.is_empty() && text.len() <= MAX_TEXT).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn webhook(payload: &Value) -> Vec<u8> {
        let body = json!({ "data": {
            "id": "e1", "type": "webhook-events", "meta": { "idempotencyToken": "t1" },
            "attributes": { "event": "license.suspended", "payload": payload.to_string(), "status": "DELIVERING" },
        } });
        body.to_string().into_bytes()
    }

    fn named(payload: &Value) -> (Vec<String>, Vec<String>) {
        let notice = Notice::read(&webhook(payload)).unwrap();
        assert_eq!((notice.token.as_str(), notice.event.as_str()), ("t1", "license.suspended"));
        (notice.licenses, notice.users)
    }

    #[test]
    fn a_webhook_names_the_license_and_its_owner() {
        let owned = json!({ "data": { "type": "licenses", "id": "l1", "relationships": {
            "owner": { "data": { "type": "users", "id": "u1" } }, "policy": { "data": { "id": "p1" } } } } });
        assert_eq!(named(&owned), (vec!["l1".to_owned()], vec!["u1".to_owned()]));
        let nobodys =
            json!({ "data": { "type": "licenses", "id": "l1", "relationships": { "owner": { "data": null } } } });
        assert_eq!(named(&nobodys), (vec!["l1".to_owned()], vec![]));
        let banned = json!({ "data": { "type": "users", "id": "u1", "attributes": { "status": "BANNED" } } });
        assert_eq!(named(&banned), (vec![], vec!["u1".to_owned()]));
        let attached = json!({ "data": [
            { "type": "license-entitlements", "id": "x", "relationships": { "license": { "data": { "id": "l1" } } } },
            { "type": "license-users", "id": "y", "relationships": {
                "license": { "data": { "id": "l2" } }, "user": { "data": { "id": "u2" } } } },
        ] });
        assert_eq!(named(&attached), (vec!["l1".to_owned(), "l2".to_owned()], vec!["u2".to_owned()]));
        let policy = json!({ "data": { "type": "policies", "id": "p1" } });
        assert_eq!(named(&policy), (vec![], vec![]));
        assert_eq!(named(&json!({ "data": null })), (vec![], vec![]));
    }

    #[test]
    fn a_webhook_of_another_form_says_what_is_wrong_with_it() {
        let good = String::from_utf8(webhook(&json!({ "data": null }))).unwrap();
        for (body, what) in [
            ("[]".to_owned(), "`data.type`"),
            ("{".to_owned(), "the webhook"),
            (good.replace("webhook-events", "events"), "`data.type`"),
            (good.replace("idempotencyToken", "token"), "`data.meta.idempotencyToken`"),
            (good.replace("\"t1\"", "7"), "`data.meta.idempotencyToken`"),
            (good.replace("\"event\"", "\"name\""), "`data.attributes.event`"),
            (good.replace("\"payload\"", "\"load\""), "`data.attributes.payload`"),
            (good.replace("{\\\"data\\\":null}", "nothing"), "`data.attributes.payload`"),
        ] {
            assert_eq!(Notice::read(body.as_bytes()), Err(Problem::Malformed(what)), "{body}");
        }
        let long = vec![b' '; MAX_NOTICE_BYTES + 1];
        assert_eq!(Notice::read(&long), Err(Problem::Malformed("the webhook")));
    }
}
