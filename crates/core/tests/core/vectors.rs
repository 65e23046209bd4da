//! The vectors of the repository: how they are read, and proof that none lies unread.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// Which file of `vectors/` is read by which source file; a folder with `/` behind it stands for all
/// its files. Whoever adds a file adds a line. A file may have several readers.
const READERS: &[(&str, &str)] = &[
    ("own/path-confusion.json", "crates/core/tests/core/path_vectors.rs"),
    ("own/header-smuggling.json", "crates/core/tests/core/header_vectors.rs"),
    ("own/cookie-csrf.json", "crates/core/tests/core/cookie_vectors.rs"),
    ("own/redirect-targets.json", "crates/core/tests/core/redirect_vectors.rs"),
    ("oauth2-proxy/openredirects.json", "crates/core/tests/core/redirect_vectors.rs"),
    ("own/api-keys.json", "crates/core/tests/core/api_key_vectors.rs"),
    ("own/websocket.json", "crates/core/tests/core/handshake_vectors.rs"),
    ("own/forward-family.json", "crates/core/tests/core/family_vectors.rs"),
    ("own/jwt-strict-profile.json", "crates/core/tests/core/strict_profile.rs"),
    ("own/jwt-strict-reasons.json", "crates/core/tests/core/strict_profile.rs"),
    ("own/jwt-strict-reasons.json", "crates/server/tests/http/golden/tokens.rs"),
    ("own/jwt-strict-profile.json", "crates/server/tests/http/golden/tokens.rs"),
    ("own/jwt-strict-profile.json", "crates/server/src/cli/explain/token/tests.rs"),
    ("own/jwt-strict-reasons.json", "crates/server/src/cli/explain/token/tests.rs"),
    ("own/path-confusion.json", "crates/server/tests/http/golden/vectors.rs"),
    ("own/header-smuggling.json", "crates/server/tests/http/golden/vectors.rs"),
    ("own/cookie-csrf.json", "crates/server/tests/http/golden/vectors.rs"),
    ("own/forward-family.json", "crates/server/tests/http/golden/vectors.rs"),
    ("own/redirect-targets.json", "crates/server/tests/http/golden/redirects.rs"),
    ("oauth2-proxy/openredirects.json", "crates/server/tests/http/golden/redirects.rs"),
    ("own/scenarios.json", "crates/gate/tests/gate/issuer/scenarios.rs"),
    ("own/webhook-hmac.json", "crates/core/tests/core/webhook_vectors.rs"),
    ("golden/license-jwt.json", "crates/core/tests/core/golden_license.rs"),
    ("rfc/rfc-examples.json", "crates/core/tests/core/jose_examples.rs"),
    ("ietf-jose-cookbook/jws/", "crates/core/tests/core/jose_examples.rs"),
    ("ietf-jose-cookbook/jwk/", "crates/core/tests/core/jose_examples.rs"),
    ("ietf-jose-cookbook/jwe/", "crates/core/tests/core/jose_examples.rs"),
    ("ietf-jose-cookbook/rfc7797/", "crates/core/tests/core/jose_examples.rs"),
    ("ietf-jose-cookbook/curve25519/jws.json", "crates/core/tests/core/jose_examples.rs"),
    ("wycheproof/ecdsa_secp256r1_sha256_p1363_test.json", "crates/core/tests/core/wycheproof.rs"),
    ("wycheproof/ecdsa_secp384r1_sha384_p1363_test.json", "crates/core/tests/core/wycheproof.rs"),
    ("wycheproof/ecdsa_secp521r1_sha512_p1363_test.json", "crates/core/tests/core/wycheproof.rs"),
    ("wycheproof/hmac_sha384_test.json", "crates/core/tests/core/wycheproof.rs"),
    ("wycheproof/hmac_sha512_test.json", "crates/core/tests/core/wycheproof.rs"),
    ("wycheproof/ed25519_test.json", "crates/core/tests/core/wycheproof.rs"),
    ("wycheproof/hmac_sha256_test.json", "crates/core/tests/core/wycheproof.rs"),
    ("wycheproof/json_web_crypto_test.json", "crates/core/tests/core/wycheproof.rs"),
    ("wycheproof/json_web_encryption_test.json", "crates/core/tests/core/wycheproof.rs"),
    ("wycheproof/json_web_key_test.json", "crates/core/tests/core/wycheproof.rs"),
    ("wycheproof/json_web_signature_test.json", "crates/core/tests/core/wycheproof.rs"),
    ("wycheproof/rsa_pss_2048_sha256_mgf1_32_test.json", "crates/core/tests/core/wycheproof.rs"),
    ("wycheproof/rsa_pss_2048_sha384_mgf1_48_test.json", "crates/core/tests/core/wycheproof.rs"),
    ("wycheproof/rsa_pss_3072_sha256_mgf1_32_test.json", "crates/core/tests/core/wycheproof.rs"),
    ("wycheproof/rsa_pss_4096_sha512_mgf1_64_test.json", "crates/core/tests/core/wycheproof.rs"),
    ("wycheproof/rsa_pss_misc_test.json", "crates/core/tests/core/wycheproof.rs"),
    ("wycheproof/rsa_signature_2048_sha256_test.json", "crates/core/tests/core/wycheproof.rs"),
    ("wycheproof/rsa_signature_2048_sha384_test.json", "crates/core/tests/core/wycheproof.rs"),
    ("wycheproof/rsa_signature_2048_sha512_test.json", "crates/core/tests/core/wycheproof.rs"),
    ("wycheproof/rsa_signature_3072_sha256_test.json", "crates/core/tests/core/wycheproof.rs"),
    ("wycheproof/rsa_signature_4096_sha512_test.json", "crates/core/tests/core/wycheproof.rs"),
    ("keygen/keygen.json", "crates/server/tests/http/cli/license.rs"),
    ("keygen/keygen.json", "crates/core/tests/core/keygen_vectors.rs"),
    ("keygen/keygen.json", "crates/gate/tests/gate/local_license.rs"),
    ("keygen/keygen.json", "crates/server/tests/http/webhooks/keygen.rs"),
    ("own/webhook-hmac.json", "crates/server/tests/http/webhooks.rs"),
    ("issuers/", "crates/core/tests/core/issuer_captures.rs"),
];

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Reads a file of `vectors/` as JSON.
pub(crate) fn load(name: &str) -> Value {
    let path = root().join("vectors").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The `cases` of a file, of which there must be at least one.
pub(crate) fn cases(file: &Value) -> &[Value] {
    let cases = file["cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    cases
}

/// A member that has to be a text.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no text {key} in {value}"))
}

fn files(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.file_name().is_none_or(|name| name != "README.md") {
            found.insert(path);
        }
    }
}

#[test]
fn every_vector_file_is_claimed_by_a_reader_that_names_it() {
    let folder = root().join("vectors");
    let mut found = BTreeSet::new();
    files(&folder, &mut found);
    let names: BTreeSet<String> =
        found.iter().map(|path| path.strip_prefix(&folder).unwrap().to_string_lossy().replace('\\', "/")).collect();
    let claims = |claim: &str, name: &str| claim == name || claim.ends_with('/') && name.starts_with(claim);
    for name in &names {
        assert!(READERS.iter().any(|(claim, _)| claims(claim, name)), "vectors/{name} has no reader");
    }
    for (claim, reader) in READERS {
        assert!(names.iter().any(|name| claims(claim, name)), "{reader} claims vectors/{claim}, which is not there");
        let source = fs::read_to_string(root().join(reader)).unwrap_or_else(|error| panic!("{reader}: {error}"));
        let named = claim.trim_end_matches('/');
        assert!(source.contains(named), "{reader} claims vectors/{claim} and does not name it");
    }
}
