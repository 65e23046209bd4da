//! `[shared]`: Redis, which accelerates and is never the only place of a truth.

use std::fmt;

use doorward_core::secret::Secret;
use doorward_store::shared::SharedSet;
use url::Url;

use super::{
    key::settings,
    read::Reader,
    scalar::{Scalar, scalar_field},
    store::without_password,
};

settings! {
    /// A Redis with a blocklist that others write. Optional.
    pub struct Shared {
        /// `redis://` or `rediss://` URL.
        url: RedisUrl = required "redis://127.0.0.1:6379", or_file;
        /// A set of blocked subjects that another system writes, asked for the `sub` of every bearer. An answer may
        /// take 250 ms; without one, the rule's `on_stale` decides.
        blocklist_set: String = optional "titanium:blocklist";
    }
}

scalar_field!(RedisUrl);

/// A Redis. Does not print its password.
#[derive(Clone, Debug)]
pub struct RedisUrl(pub Secret<String>);

/// The URL with its password left out.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_password(self.0.expose()))
    }
}

impl Scalar for RedisUrl {
    const TYPE: &'static str = "Redis URL";
    const HINT: &'static str = "a redis:// or rediss:// URL";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("not a Redis URL: {error}"))?;
        if !matches!(url.scheme(), "redis" | "rediss") || !url.has_host() {
            return Err("not a redis:// or rediss:// URL with a host".into());
        }
        SharedSet::check_url(text).map_err(|error| error.to_string())?;
        Ok(Self(Secret::new(text.to_owned())))
    }
}
