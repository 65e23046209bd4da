//! `[license]`: who says whether this installation or its users have paid.

use std::{path::PathBuf, time::Duration};

use doorward_core::jose::PublicKey;

use super::{
    key::settings,
    read::Reader,
    scalar::{SecretText, words},
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
        /// Providers `keygen` and `file`: keys that sign its answers and license files, hex or PEM.
        public_keys: Vec<PublicKey> = default [];
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

impl License {
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
        if self.trust_for < self.cache_ttl {
            cx.problem_in("trust_for", "shorter than `cache_ttl`", "make it at least as long as `cache_ttl`");
        }
    }
}
