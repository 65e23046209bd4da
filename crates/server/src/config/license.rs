//! `[license]`: who says whether this installation or its users have paid.

use std::{path::PathBuf, time::Duration};

use doorward_core::keygen::{AccountKeys, Scheme};

use super::{
    key::settings,
    read::Reader,
    scalar::{Scalar, SecretText, scalar_field, words},
    urls::{HostName, RemoteUrl, Upstream, is_loopback},
};

settings! {
    /// The license provider.
    pub struct License check License::check {
        /// `keygen`, `jwt` (license JWTs and an HMAC webhook), `file` (one for the installation), `none`.
        provider: Provider = default "none";
        /// Providers `keygen` and `jwt`: where its API is; https, or http on loopback or with `allow_http`.
        api_url: Upstream = optional "https://license.example.com";
        /// Providers `keygen` and `jwt`: the host that the server answers for (its `KEYGEN_HOST`), where `api_url` has
        /// another one, such as its name inside a private network. It is then told that requests came over TLS.
        host: HostName = optional "license.example.com";
        /// Whether `api_url` may be http on a network: the token goes over it in the clear.
        allow_http: bool = default false;
        /// Providers `keygen` and `jwt`: account; for Keygen its id, a UUID, since that is what signatures name.
        account: String = optional "1fddcec8-8dd3-4d8d-9b16-215cac0f9b52";
        /// Providers `keygen` and `jwt`: id of the product; licenses for another one do not count.
        product: String = optional "1f086ec9-a943-46ea-9da4-e62c2180c2f4";
        /// Providers `keygen` and `jwt`: API token; for Keygen one of the product (`prod-…`).
        token: SecretText<32> = optional "a secret of 32 characters or more", or_file;
        /// Providers `keygen` and `file`: the account's keys, which sign its answers, license keys and files; one of
        /// each type, as hex, base64 or PEM.
        public_keys: Vec<PinnedKey> = default [];
        /// Providers `keygen` and `file`: how the policy makes license keys.
        scheme: Scheme = default "ED25519_SIGN";
        /// Provider `jwt`: name of the `[[issuers]]` entry whose keys verify license JWTs.
        issuer: String = optional "titanium";
        /// Provider `jwt`: the claim in which a license JWT states when the license ends, in seconds or as RFC 3339; a
        /// license without it has no end. `exp` where the hub's tokens last as long as its licenses.
        end_claim: String = default "license_expires_at";
        /// Provider `file`: the license file, a file with a license key, or a folder of such files, of which the genuine
        /// one that was issued last counts. Read again when it changes.
        path: PathBuf = optional "./license.lic";
        /// Provider `file`: the license key that opens encrypted files.
        license_key: SecretText<16> = optional "AAAAAA-BBBBBB-CCCCCC-DDDDDD-EEEEEE-V3", or_file;
        /// Provider `file`: this machine's fingerprint. With `path` only machine files for it count; with `relay_url` it
        /// is this node's name at the relay.
        fingerprint: String = optional "b7b33d68a3a7";
        /// Provider `file`: how long a file counts after it was issued, if it does not say itself when it ends.
        file_max_age: Duration = default "366d";
        /// Provider `file`: a keygen-relay that leases license files, in place of `path`.
        relay_url: Upstream = optional "http://127.0.0.1:6349";
        /// Provider `file`: pool of the relay.
        relay_pool: String = optional "production";
        /// Provider `file`: secret under which the relay signs its answers (its `--signing-secret`); with it unsigned
        /// answers are refused.
        relay_secret: SecretText<16> = optional "a secret of 16 characters or more", or_file;
        /// How long an answer is taken without asking again.
        cache_ttl: Duration = default "5m";
        /// How long an answer is relied on while the provider cannot be asked.
        trust_for: Duration = default "24h";
        /// How long requests that only read pass after a license has ended.
        grace: Duration = default "7d";
        /// Provider `jwt`: secrets of the webhook; several during a change.
        webhook_secrets: Vec<SecretText<16>> = default [];
        /// Provider `keygen`: the URL of the webhook as Keygen was told it, where a proxy in front changes it; default:
        /// `public_url`, `base_path` and `/webhooks/license/keygen`.
        webhook_url: RemoteUrl = optional "https://hooks.example.com/keygen";
    }
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Nobody.
    None,
    /// Keygen.
    Keygen,
    /// License JWTs.
    Jwt,
    /// A license file.
    File,
}

words!(Provider, "word":
    "none" => Provider::None, "keygen" => Provider::Keygen, "jwt" => Provider::Jwt, "file" => Provider::File);

/// A key of the account that tells whether a license is genuine.
#[derive(Clone, Debug)]
pub struct PinnedKey(String);

scalar_field!(PinnedKey, Scheme);

impl Scalar for PinnedKey {
    const TYPE: &'static str = "public key";
    const HINT: &'static str = "a public key of the account as hex, base64 or PEM";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        AccountKeys::parse(&[text]).map_err(|(_, problem)| format!("not a usable public key: {problem}"))?;
        Ok(Self(text.to_owned()))
    }
}

impl Scalar for Scheme {
    const TYPE: &'static str = "word";
    const HINT: &'static str = "a scheme of Keygen's: `ED25519_SIGN`, `ECDSA_P256_SIGN`, `RSA_2048_PKCS1_SIGN_V2`, \
                                `RSA_2048_PKCS1_PSS_SIGN_V2`, `RSA_2048_JWT_RS256`";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| "no scheme of Keygen's".to_owned())
    }
}

impl License {
    /// The pinned keys of the account.
    pub fn account_keys(&self) -> AccountKeys {
        let texts: Vec<&str> = self.public_keys.iter().map(|key| key.0.as_str()).collect();
        // Reading refused what cannot be parsed.
        AccountKeys::parse(&texts).unwrap_or_default()
    }

    fn check(&self, cx: &mut Reader<'_>) {
        let needed: &[(&str, bool)] = match self.provider {
            Provider::None => &[],
            Provider::Keygen => &[
                ("api_url", self.api_url.is_some()),
                ("account", self.account.is_some()),
                ("product", self.product.is_some()),
                ("token", self.token.is_some()),
                ("public_keys", !self.public_keys.is_empty()),
            ],
            Provider::Jwt => &[
                ("api_url", self.api_url.is_some()),
                ("account", self.account.is_some()),
                ("token", self.token.is_some()),
                ("issuer", self.issuer.is_some()),
            ],
            Provider::File if self.relay_url.is_some() => {
                &[("fingerprint", self.fingerprint.is_some()), ("public_keys", !self.public_keys.is_empty())]
            }
            Provider::File => &[("path", self.path.is_some()), ("public_keys", !self.public_keys.is_empty())],
        };
        for (name, _) in needed.iter().filter(|(_, is_there)| !is_there) {
            cx.problem_in(name, "this license provider needs the key", format!("add `{name}` to [license]"));
        }
        if self.path.is_some() && self.relay_url.is_some() {
            cx.problem_in("relay_url", "both `path` and `relay_url` are given", "keep one of the two");
        }
        if let Some(url) = &self.api_url
            && url.as_url().scheme() == "http"
            && !is_loopback(url.as_url())
            && !self.allow_http
        {
            let remedy = "use https, or set `allow_http = true` where nobody listens on the way";
            cx.problem_in("api_url", "http and not on loopback: the token would go over it in the clear", remedy);
        }
        if let Some(account) = &self.account
            && self.provider == Provider::Keygen
            && !is_uuid(account)
        {
            let remedy = "put the account's id here; its dashboard and `GET /v1/accounts/<name>` show it";
            cx.problem_in("account", "no UUID: answers are signed in the name of the account's id", remedy);
        }
        let texts: Vec<&str> = self.public_keys.iter().map(|key| key.0.as_str()).collect();
        if let Err((at, problem)) = AccountKeys::parse(&texts) {
            cx.problem_in(&format!("public_keys[{at}]"), problem.to_string(), "keep one key of each type");
        }
        if ["", "iss", "sub", "aud", "nbf", "iat", "jti", "scope"].contains(&self.end_claim.as_str()) {
            let remedy = "name the claim that states when the license ends, or `exp` where tokens last as long";
            cx.problem_in("end_claim", "this claim says something else", remedy);
        }
        if self.trust_for < self.cache_ttl {
            cx.problem_in("trust_for", "shorter than `cache_ttl`", "make it at least as long as `cache_ttl`");
        }
    }
}

pub(crate) fn is_uuid(text: &str) -> bool {
    let dashes = [8, 13, 18, 23];
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match byte {
            b'-' => dashes.contains(&at),
            byte => byte.is_ascii_hexdigit() && !dashes.contains(&at),
        })
}
