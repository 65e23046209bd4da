//! `[license]`: who says whether this installation or its users have paid.

use std::{path::PathBuf, time::Duration};

use doorward_core::keygen::{AccountKeys, Scheme};

use super::{
    key::settings,
    read::Reader,
    scalar::{Scalar, SecretText, scalar_field, words},
    urls::RemoteUrl,
};

settings! {
    /// The license provider.
    pub struct License check License::check {
        /// `keygen`, `jwt` (license JWTs and an HMAC webhook), `file` (one for the installation), `none`.
        provider: Provider = default "none";
        /// Provider `keygen`: base URL of its API.
        api_url: RemoteUrl = optional "https://license.example.com";
        /// Provider `keygen`: account.
        account: String = optional "demo";
        /// Provider `keygen`: product.
        product: String = optional "app";
        /// Provider `keygen`: API token.
        token: SecretText<32> = optional "a secret of 32 characters or more", or_file;
        /// Providers `keygen` and `file`: the account's keys, which sign its answers, license keys and files; one of
        /// each type, as hex, base64 or PEM.
        public_keys: Vec<PinnedKey> = default [];
        /// Providers `keygen` and `file`: how the policy makes license keys.
        scheme: Scheme = default "ED25519_SIGN";
        /// Provider `jwt`: name of the `[[issuers]]` entry whose keys verify license JWTs.
        issuer: String = optional "titanium";
        /// Provider `file`: the license file.
        path: PathBuf = optional "./license.lic";
        /// How long an answer is taken without asking again.
        cache_ttl: Duration = default "5m";
        /// How long an answer is relied on while the provider cannot be asked.
        trust_for: Duration = default "24h";
        /// How long requests that only read pass after a license has ended.
        grace: Duration = default "7d";
        /// Provider `jwt`: secrets of the webhook; several during a change.
        webhook_secrets: Vec<SecretText<16>> = default [];
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
            Provider::Jwt => &[("issuer", self.issuer.is_some())],
            Provider::File => &[("path", self.path.is_some()), ("public_keys", !self.public_keys.is_empty())],
        };
        for (name, _) in needed.iter().filter(|(_, is_there)| !is_there) {
            cx.problem_in(name, "this license provider needs the key", format!("add `{name}` to [license]"));
        }
        let texts: Vec<&str> = self.public_keys.iter().map(|key| key.0.as_str()).collect();
        if let Err((at, problem)) = AccountKeys::parse(&texts) {
            cx.problem_in(&format!("public_keys[{at}]"), problem.to_string(), "keep one key of each type");
        }
        if self.trust_for < self.cache_ttl {
            cx.problem_in("trust_for", "shorter than `cache_ttl`", "make it at least as long as `cache_ttl`");
        }
    }
}
