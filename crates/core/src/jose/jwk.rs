//! One JSON Web Key (RFC 7517 §4).

use serde_json::{Map, Value};

use super::{
    algorithm::Algorithm,
    base64url,
    public_key::{KeyProblem, PublicKey},
};

/// Members that only private or symmetric keys have (RFC 7518 §6.2.2, §6.3.2, §6.4.1; RFC 8037 §2).
const PRIVATE_MEMBERS: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

/// A public key with the id that its publisher gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwk {
    /// `kid`.
    pub id: Option<Box<str>>,
    /// The key, bound to `alg` where the publisher said one.
    pub key: PublicKey,
}

impl Jwk {
    /// Reads and checks a key for verifying signatures.
    ///
    /// Certificates (`x5c`, `x5u`, `x5t`) are not looked at.
    ///
    /// # Errors
    /// Why the key cannot be used.
    pub fn parse(value: &Value) -> Result<Self, KeyProblem> {
        let members = value.as_object().ok_or(KeyProblem::Malformed("keys"))?;
        let kind = text(members, "kty")?.ok_or(KeyProblem::Malformed("kty"))?;
        if kind == "oct" || members.contains_key("k") {
            return Err(KeyProblem::Symmetric);
        }
        if PRIVATE_MEMBERS.iter().any(|name| members.contains_key(*name)) {
            return Err(KeyProblem::Private);
        }
        check_purpose(members)?;
        let id = text(members, "kid")?;
        let algorithm = match text(members, "alg")? {
            Some(name) => Some(Algorithm::parse(name).ok_or(KeyProblem::UnsupportedAlgorithm)?),
            None => None,
        };
        let key = match (kind, text(members, "crv")?) {
            ("OKP", Some("Ed25519")) => PublicKey::ed25519(&bytes(members, "x")?)?,
            ("EC", Some("P-256")) => PublicKey::p256(&bytes(members, "x")?, &bytes(members, "y")?)?,
            ("EC", Some("P-384")) => PublicKey::p384(&bytes(members, "x")?, &bytes(members, "y")?)?,
            ("RSA", _) => PublicKey::rsa(&bytes(members, "n")?, &bytes(members, "e")?, algorithm)?,
            _ => return Err(KeyProblem::UnsupportedType),
        };
        if algorithm.is_some_and(|algorithm| !key.algorithms().contains(algorithm)) {
            return Err(KeyProblem::UnsupportedAlgorithm);
        }
        Ok(Self { id: id.map(Into::into), key })
    }
}

/// `use` must be `sig` and `key_ops` must hold `verify`, where they are there (RFC 7517 §4.2, §4.3).
fn check_purpose(members: &Map<String, Value>) -> Result<(), KeyProblem> {
    if text(members, "use")?.is_some_and(|purpose| purpose != "sig") {
        return Err(KeyProblem::NotForSigning);
    }
    match members.get("key_ops") {
        None => Ok(()),
        Some(Value::Array(operations)) if operations.iter().any(|operation| operation == "verify") => Ok(()),
        Some(Value::Array(_)) => Err(KeyProblem::NotForSigning),
        Some(_) => Err(KeyProblem::Malformed("key_ops")),
    }
}

fn text<'a>(members: &'a Map<String, Value>, name: &'static str) -> Result<Option<&'a str>, KeyProblem> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(KeyProblem::Malformed(name)),
    }
}

fn bytes(members: &Map<String, Value>, name: &'static str) -> Result<Vec<u8>, KeyProblem> {
    let text = text(members, name)?.ok_or(KeyProblem::Malformed(name))?;
    base64url::decode(text).map_err(|_| KeyProblem::Malformed(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ed25519() -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
    }

    fn with(name: &str, value: Value) -> Result<Jwk, KeyProblem> {
        let mut key = ed25519();
        key[name] = value;
        Jwk::parse(&key)
    }

    #[test]
    fn a_key_is_bound_to_its_purpose_and_algorithm() {
        assert!(Jwk::parse(&ed25519()).is_ok());
        assert!(with("alg", json!("Ed25519")).is_ok());
        assert!(with("key_ops", json!(["verify"])).is_ok());
        assert_eq!(with("use", json!("enc")), Err(KeyProblem::NotForSigning));
        assert_eq!(with("key_ops", json!(["encrypt"])), Err(KeyProblem::NotForSigning));
        assert_eq!(with("alg", json!("ES256")), Err(KeyProblem::UnsupportedAlgorithm));
        assert_eq!(with("alg", json!("HS256")), Err(KeyProblem::UnsupportedAlgorithm));
        assert_eq!(with("crv", json!("X25519")), Err(KeyProblem::UnsupportedType));
        assert_eq!(with("kty", json!("AKP")), Err(KeyProblem::UnsupportedType));
    }

    #[test]
    fn private_and_symmetric_material_is_refused_whatever_the_type_says() {
        assert_eq!(with("d", json!("AAAA")), Err(KeyProblem::Private));
        assert_eq!(with("k", json!("AAAA")), Err(KeyProblem::Symmetric));
        assert_eq!(with("kty", json!("oct")), Err(KeyProblem::Symmetric));
    }

    #[test]
    fn members_of_the_wrong_type_are_refused() {
        for name in ["kid", "alg", "use", "key_ops", "crv", "kty", "x"] {
            assert_eq!(with(name, json!(1)), Err(KeyProblem::Malformed(name)));
        }
    }
}
