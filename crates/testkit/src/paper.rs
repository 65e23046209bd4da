//! License files, machine files and license keys of an account whose key the test holds.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    digest::{SHA256, digest},
    rand,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE},
};
use serde_json::{Value, json};

/// An account of Keygen's, as far as it signs.
pub struct Account {
    key: Ed25519KeyPair,
}

/// What a file or key says. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug)]
pub struct Paper {
    /// The license.
    pub id: String,
    /// Account that it belongs to.
    pub account: String,
    /// Product that it is for.
    pub product: String,
    /// When the file was issued; in a key: when the license was made.
    pub issued: i64,
    /// When the file ends.
    pub file_ends: Option<i64>,
    /// When the license ends.
    pub expiry: Option<i64>,
    /// Status when it was issued.
    pub status: &'static str,
    /// Codes of entitlements.
    pub entitlements: Vec<&'static str>,
    /// Fingerprint, in a machine file.
    pub fingerprint: Option<String>,
}

impl Paper {
    /// An active license without an end, in a file without an end.
    pub fn new(id: &str, issued: i64) -> Self {
        Self {
            id: id.to_owned(),
            account: "acct-1".to_owned(),
            product: "prod-1".to_owned(),
            issued,
            file_ends: None,
            expiry: None,
            status: "ACTIVE",
            entitlements: Vec::new(),
            fingerprint: None,
        }
    }

    fn license(&self) -> Value {
        json!({
            "type": "licenses", "id": self.id,
            "attributes": { "expiry": self.expiry.map(time), "status": self.status, "key": "AAAAAA-BBBBBB-V3" },
            "relationships": {
                "account": { "data": { "type": "accounts", "id": self.account } },
                "product": { "data": { "type": "products", "id": self.product } },
                "owner": { "data": null },
            },
        })
    }

    fn document(&self) -> String {
        let entitlements = self.entitlements.iter().enumerate().map(|(number, code)| {
            json!({ "type": "entitlements", "id": format!("ent-{number}"), "attributes": { "code": code } })
        });
        let mut included: Vec<Value> = entitlements.collect();
        let data = match &self.fingerprint {
            None => self.license(),
            Some(fingerprint) => {
                included.push(self.license());
                json!({ "type": "machines", "id": "m-1", "attributes": { "fingerprint": fingerprint } })
            }
        };
        let meta = json!({ "issued": time(self.issued), "expiry": self.file_ends.map(time), "ttl": null });
        json!({ "data": data, "included": included, "meta": meta }).to_string()
    }

    fn label(&self) -> (&'static str, &'static str) {
        if self.fingerprint.is_some() { ("MACHINE FILE", "machine/") } else { ("LICENSE FILE", "license/") }
    }
}

fn time(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis).unwrap().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

impl Account {
    /// One with a new key.
    pub fn generate() -> Self {
        Self { key: Ed25519KeyPair::generate().unwrap() }
    }

    /// Its public key, as its dashboard shows it.
    pub fn public_key(&self) -> String {
        self.key.public_key().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// A license file, or a machine file where there is a fingerprint; readable by anybody.
    pub fn file(&self, paper: &Paper) -> String {
        self.armor(paper, &BASE64_STANDARD.encode(paper.document()), "base64+ed25519")
    }

    /// The same, opened by `license_key` (and the fingerprint).
    #[allow(clippy::disallowed_methods, reason = "a nonce of a test file")]
    pub fn encrypted(&self, paper: &Paper, license_key: &str) -> String {
        let secret = [license_key, paper.fingerprint.as_deref().unwrap_or_default()].concat();
        let key = UnboundKey::new(&AES_256_GCM, digest(&SHA256, secret.as_bytes()).as_ref()).unwrap();
        let mut nonce = [0; 12];
        rand::fill(&mut nonce).unwrap();
        let mut text = paper.document().into_bytes();
        let sealed = Nonce::assume_unique_for_key(nonce);
        let tag = LessSafeKey::new(key).seal_in_place_separate_tag(sealed, Aad::empty(), &mut text).unwrap();
        let parts = [&text, &nonce[..], tag.as_ref()].map(|part| BASE64_STANDARD.encode(part));
        self.armor(paper, &parts.join("."), "aes-256-gcm+ed25519")
    }

    fn armor(&self, paper: &Paper, inside: &str, algorithm: &str) -> String {
        let (label, prefix) = paper.label();
        let signature = self.key.sign([prefix, inside].concat().as_bytes());
        let envelope = json!({ "enc": inside, "sig": BASE64_STANDARD.encode(signature), "alg": algorithm });
        let body = BASE64_STANDARD.encode(envelope.to_string());
        let lines: Vec<&str> = body.as_bytes().chunks(60).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    /// A license key of the scheme `ED25519_SIGN` with any text in it.
    pub fn free_key(&self, text: &str) -> String {
        let signed = format!("key/{}", BASE64_URL_SAFE.encode(text));
        format!("{signed}.{}", BASE64_URL_SAFE.encode(self.key.sign(signed.as_bytes())))
    }

    /// A license key of the scheme `ED25519_SIGN` with Keygen's default data.
    pub fn key(&self, paper: &Paper) -> String {
        let data = json!({
            "account": { "id": paper.account }, "product": { "id": paper.product },
            "policy": { "id": "pol-1", "duration": null }, "user": null,
            "license": { "id": paper.id, "created": time(paper.issued), "expiry": paper.expiry.map(time) },
        });
        self.free_key(&data.to_string())
    }
}
