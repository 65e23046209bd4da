//! Licenses as Keygen's documents describe them, and what they mean here.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{Document, Problem, parse_time};
use crate::{
    license::{LicenseState, Observation},
    time::Timestamp,
};

/// Most entitlements that a license may have here.
const MAX_ENTITLEMENTS: usize = 1000;

/// The part of a license that counts. The license key is in the document and is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct License {
    /// Its id.
    pub id: String,
    /// Account that it belongs to.
    pub account: Option<String>,
    /// Product that it is for.
    pub product: Option<String>,
    /// User who owns it, where one does.
    pub owner: Option<String>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// Keygen's word for its state: for people, mostly. `INACTIVE` and `EXPIRING` ones can be used.
    pub status: Option<String>,
    /// Codes of the entitlements that came with it.
    pub entitlements: BTreeSet<String>,
}

/// The answer to the question whether a license is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validation {
    /// The license; `None` where there is none.
    pub license: Option<License>,
    /// The verdict; the code only explains it.
    pub is_valid: bool,
    /// `VALID`, `EXPIRED`, `SUSPENDED`, … New ones may come.
    pub code: String,
    /// When Keygen said so.
    pub at: Timestamp,
    /// The number that the question carried.
    pub nonce: Option<u64>,
}

impl License {
    /// Reads a document whose `data` is a license.
    ///
    /// # Errors
    /// [`Problem::Malformed`].
    pub fn read(json: &str) -> Result<Self, Problem> {
        let document: Body = serde_json::from_str(json).map_err(|_| Problem::Malformed("the document"))?;
        let data = document.data.ok_or(Problem::Malformed("`data`"))?;
        data.license(document.included)
    }

    /// Reads a document whose `data` is a list of licenses; nothing is said of their entitlements.
    ///
    /// # Errors
    /// [`Problem::Malformed`].
    pub fn read_list(json: &str) -> Result<Vec<Self>, Problem> {
        let licenses = list(json)?.into_iter();
        licenses.map(|resource| resource.license(Vec::new())).collect()
    }

    /// Reads the license inside a file. In a machine file it is among what is included.
    ///
    /// # Errors
    /// [`Problem::Malformed`], also where a machine file was made without `include=license`.
    pub fn of_document(document: &Document) -> Result<Self, Problem> {
        let Body { data, included, .. }: Body =
            serde_json::from_str(document.json.get()).map_err(|_| Problem::Malformed("the document"))?;
        let data = data.ok_or(Problem::Malformed("`data`"))?;
        if data.kind == "licenses" {
            return data.license(included);
        }
        let at = included.iter().position(|resource| resource.kind == "licenses");
        let mut included = included;
        let license = included.remove(at.ok_or(Problem::Malformed("the license in the file"))?);
        license.license(included)
    }

    /// What this says at `observed_at`, when Keygen wrote it. A status is as old as the document; the expiry is
    /// judged by whoever acts on it.
    pub fn observe(self, observed_at: Timestamp) -> Observation {
        let state = match self.status.as_deref() {
            Some("BANNED") => LicenseState::Banned,
            Some("SUSPENDED") => LicenseState::Suspended,
            Some("EXPIRED") => LicenseState::Expired,
            _ => LicenseState::Active,
        };
        self.observation(state, observed_at)
    }

    fn observation(self, state: LicenseState, observed_at: Timestamp) -> Observation {
        let Self { id, expires_at, entitlements, .. } = self;
        Observation { state, license_id: Some(id), expires_at, entitlements, observed_at }
    }
}

impl Validation {
    /// Reads the answer to a validation.
    ///
    /// Not verified: its signature, that the nonce is the one that was sent, and that product and account are ours.
    ///
    /// # Errors
    /// [`Problem::Malformed`].
    pub fn read(json: &str) -> Result<Self, Problem> {
        let document: Body = serde_json::from_str(json).map_err(|_| Problem::Malformed("the document"))?;
        let meta = document.meta.ok_or(Problem::Malformed("`meta`"))?;
        let license = document.data.map(|data| data.license(document.included)).transpose()?;
        Ok(Self {
            license,
            is_valid: meta.valid.ok_or(Problem::Malformed("`meta.valid`"))?,
            code: meta.code.ok_or(Problem::Malformed("`meta.code`"))?,
            at: meta.ts.as_deref().and_then(parse_time).ok_or(Problem::Malformed("`meta.ts`"))?,
            nonce: meta.nonce,
        })
    }

    /// What this says. `meta.valid` is the verdict: an expired license may be valid by its policy, and one that is not
    /// valid for a reason that we do not know does not count.
    pub fn observe(self) -> Observation {
        let Some(license) = self.license else {
            return Observation {
                state: LicenseState::None,
                license_id: None,
                expires_at: None,
                entitlements: BTreeSet::new(),
                observed_at: self.at,
            };
        };
        let is_past = license.expires_at.is_some_and(|end| end <= self.at);
        let state = match (self.is_valid, self.code.as_str()) {
            (true, _) if is_past => LicenseState::ActiveBeyondExpiry,
            (true, _) => LicenseState::Active,
            (false, "NOT_FOUND") => LicenseState::None,
            (false, "BANNED") => LicenseState::Banned,
            (false, "SUSPENDED") => LicenseState::Suspended,
            (false, "EXPIRED") => LicenseState::Expired,
            (false, _) => LicenseState::Invalid,
        };
        license.observation(state, self.at)
    }
}

/// The resources of a document whose `data` is a list.
pub(super) fn list(json: &str) -> Result<Vec<Resource>, Problem> {
    let document: Body<Vec<Resource>> = serde_json::from_str(json).map_err(|_| Problem::Malformed("the document"))?;
    document.data.ok_or(Problem::Malformed("`data`"))
}

/// The resource of a document whose `data` is one.
pub(super) fn single(json: &str) -> Result<Resource, Problem> {
    let document: Body = serde_json::from_str(json).map_err(|_| Problem::Malformed("the document"))?;
    document.data.ok_or(Problem::Malformed("`data`"))
}

#[derive(Deserialize)]
struct Body<D = Resource> {
    data: Option<D>,
    #[serde(default)]
    included: Vec<Resource>,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    ts: Option<String>,
    valid: Option<bool>,
    code: Option<String>,
    nonce: Option<u64>,
}

#[derive(Deserialize)]
pub(super) struct Resource {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) id: String,
    #[serde(default)]
    pub(super) attributes: Attributes,
    #[serde(default)]
    relationships: Relationships,
}

#[derive(Default, Deserialize)]
pub(super) struct Attributes {
    expiry: Option<String>,
    pub(super) status: Option<String>,
    pub(super) code: Option<String>,
    pub(super) email: Option<String>,
}

#[derive(Default, Deserialize)]
struct Relationships {
    account: Option<Related>,
    product: Option<Related>,
    /// `user` up to version 1.5.
    #[serde(alias = "user")]
    owner: Option<Related>,
}

#[derive(Deserialize)]
struct Related {
    data: Option<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    id: String,
}

impl Resource {
    fn license(self, included: Vec<Self>) -> Result<License, Problem> {
        if self.kind != "licenses" {
            return Err(Problem::Malformed("the type of `data`"));
        }
        let expires_at = match self.attributes.expiry {
            Some(text) => Some(parse_time(&text).ok_or(Problem::Malformed("the expiry"))?),
            None => None,
        };
        let entitlements: BTreeSet<String> = included
            .into_iter()
            .filter(|resource| resource.kind == "entitlements")
            .filter_map(|resource| resource.attributes.code)
            .collect();
        if entitlements.len() > MAX_ENTITLEMENTS {
            return Err(Problem::Malformed("the list of entitlements"));
        }
        let id = |related: Option<Related>| Some(related?.data?.id);
        Ok(License {
            id: self.id,
            account: id(self.relationships.account),
            product: id(self.relationships.product),
            owner: id(self.relationships.owner),
            expires_at,
            status: self.attributes.status,
            entitlements,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn validation(valid: bool, code: &str, expiry: Option<&str>) -> Observation {
        let license = json!({
            "type": "licenses", "id": "lic-1",
            "attributes": { "expiry": expiry, "status": "ACTIVE", "key": "never kept" },
            "relationships": {
                "account": { "data": { "type": "accounts", "id": "acct" } },
                "product": { "data": { "type": "products", "id": "prod" } },
                "owner": { "data": null },
            },
        });
        let body = json!({
            "data": if code == "NOT_FOUND" { json!(null) } else { license },
            "meta": { "ts": "2026-01-02T03:04:05.678Z", "valid": valid, "code": code, "detail": "…", "nonce": 7 },
        });
        let read = Validation::read(&body.to_string()).unwrap();
        assert_eq!(read.nonce, Some(7));
        read.observe()
    }

    #[test]
    fn the_verdict_counts_and_the_code_explains() {
        use LicenseState as S;
        let (past, ahead) = (Some("2026-01-01T00:00:00.000Z"), Some("2027-01-01T00:00:00.000Z"));
        for (valid, code, expiry, state) in [
            (true, "VALID", ahead, S::Active),
            (true, "VALID", None, S::Active),
            (true, "EXPIRED", past, S::ActiveBeyondExpiry),
            (true, "TOO_MANY_MACHINES", ahead, S::Active),
            (false, "EXPIRED", past, S::Expired),
            (false, "SUSPENDED", ahead, S::Suspended),
            (false, "BANNED", ahead, S::Banned),
            (false, "NOT_FOUND", None, S::None),
            (false, "TOO_MANY_MACHINES", ahead, S::Invalid),
            (false, "A_CODE_OF_TOMORROW", ahead, S::Invalid),
        ] {
            assert_eq!(validation(valid, code, expiry).state, state, "{valid} {code}");
        }
    }

    #[test]
    fn a_status_for_people_does_not_lock_anybody_out() {
        let read = |status: &str| {
            let body = json!({ "data": { "type": "licenses", "id": "l", "attributes": { "status": status } } });
            License::read(&body.to_string()).unwrap().observe(Timestamp::EPOCH).state
        };
        for usable in ["ACTIVE", "INACTIVE", "EXPIRING"] {
            assert_eq!(read(usable), LicenseState::Active);
        }
        assert_eq!(read("SUSPENDED"), LicenseState::Suspended);
        assert_eq!(read("BANNED"), LicenseState::Banned);
        assert_eq!(read("EXPIRED"), LicenseState::Expired);
    }

    #[test]
    fn documents_of_another_shape_say_what_is_missing() {
        for (body, what) in [
            ("[]", "the document"),
            (r#"{"data":null}"#, "`data`"),
            (r#"{"data":{"type":"users","id":"u"}}"#, "the type of `data`"),
            (r#"{"data":{"type":"licenses","id":"l","attributes":{"expiry":"tomorrow"}}}"#, "the expiry"),
        ] {
            assert_eq!(License::read(body), Err(Problem::Malformed(what)), "{body}");
        }
        assert_eq!(Validation::read(r#"{"data":null,"meta":{"valid":true}}"#), Err(Problem::Malformed("`meta.code`")));
    }
}
