//! `[store]`: what Doorward remembers, and where.

use std::fmt;

use doorward_core::secret::Secret;
use url::Url;

use super::{
    key::settings,
    read::Reader,
    scalar::{Scalar, scalar_field},
};

settings! {
    /// The database.
    pub struct Store {
        /// `sqlite:PATH` (relative to `data_dir`), or `postgres://user:password@host/database`. A pooler in between must
        /// hand out whole sessions (PgBouncer: `pool_mode = session`).
        url: StoreUrl = default "sqlite:doorward.db", or_file;
    }
}

scalar_field!(StoreUrl);

/// A database. Does not print its password.
#[derive(Clone)]
pub enum StoreUrl {
    /// A file; relative to `data_dir`.
    Sqlite(String),
    /// A server; the whole URL.
    Postgres(Secret<String>),
}

impl StoreUrl {
    /// The URL for [`doorward_store`], password and all.
    pub fn expose(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite:{path}"),
            Self::Postgres(url) => url.expose().clone(),
        }
    }

    /// Whether replicas can share it.
    pub const fn is_shared(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }
}

/// The URL with its password left out.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{path}"),
            Self::Postgres(url) => f.write_str(&without_password(url.expose())),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A URL as it may be shown: password and query left out.
pub(super) fn without_password(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else { return "(not a URL)".into() };
    url.set_query(None);
    if url.password().is_some() && url.set_password(Some("…")).is_err() {
        return format!("{}:…", url.scheme());
    }
    url.to_string().replace("%E2%80%A6", "…")
}

impl Scalar for StoreUrl {
    const TYPE: &'static str = "database URL";
    const HINT: &'static str = "`sqlite:PATH` or `postgres://user:password@host/database`";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path.starts_with(':') || path.contains(['?', '\0']) {
                return Err("the path after `sqlite:` is empty or not a plain path".into());
            }
            return Ok(Self::Sqlite(path.to_owned()));
        }
        let url = Url::parse(text).map_err(|error| format!("not a database URL: {error}"))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(format!("`{}` is not a database that Doorward knows", url.scheme()));
        }
        if !url.has_host() || url.path().len() < 2 {
            return Err("the database URL names no host or no database".into());
        }
        Ok(Self::Postgres(Secret::new(text.to_owned())))
    }
}
