//! What an issuer says of itself: OpenID Connect Discovery 1.0 and RFC 8414.
//!
//! Only the place of the key set is taken from it. What the metadata says of algorithms, audiences or lifetimes
//! is not believed: the configuration says what is accepted.

use std::fmt;

use serde_json::Value;
use url::{Host, Origin, Url};

use crate::jose::StrictValue;

/// Longest `jwks_uri`, in bytes.
const MAX_URL: usize = 2048;

/// Why metadata cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataProblem {
    /// The issuer is not a URL with a host and without query and fragment (RFC 8414 §2).
    NotAnIssuer,
    /// Not JSON, a name twice in one object, or nested too deep; with the reader's words.
    Malformed(String),
    /// `issuer` is missing, or not byte by byte the one that was asked for (RFC 8414 §3.3); with what it says.
    OtherIssuer(Option<String>),
    /// `jwks_uri` is missing or no URL.
    NoKeySet,
    /// `jwks_uri` is neither https nor on loopback.
    Insecure(String),
    /// `jwks_uri` lies on an origin that is neither the issuer's nor an allowed one.
    ForeignOrigin(String),
}

impl fmt::Display for MetadataProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnIssuer => f.write_str("the issuer is not a URL that metadata can be looked for under"),
            Self::Malformed(why) => write!(f, "not strict JSON: {why}"),
            Self::OtherIssuer(Some(other)) => write!(f, "it is about another issuer, {other:?}"),
            Self::OtherIssuer(None) => f.write_str("it names no issuer"),
            Self::NoKeySet => f.write_str("it has no usable `jwks_uri`"),
            Self::Insecure(url) => write!(f, "`jwks_uri` {url:?} is neither https nor on loopback"),
            Self::ForeignOrigin(url) => {
                write!(f, "`jwks_uri` {url:?} is on another origin; allow it with `jwks_origins`")
            }
        }
    }
}

impl std::error::Error for MetadataProblem {}

/// Where metadata of `issuer` may lie, in the order of asking: appended to its path (OpenID Connect Discovery 1.0
/// §4), and inserted before its path (RFC 8414 §3.1).
///
/// # Errors
/// [`MetadataProblem::NotAnIssuer`], [`MetadataProblem::Insecure`].
pub fn places(issuer: &str) -> Result<[Url; 2], MetadataProblem> {
    let url = Url::parse(issuer).map_err(|_| MetadataProblem::NotAnIssuer)?;
    let is_plain = url.query().is_none() && url.fragment().is_none() && has_no_user(&url) && url.has_host();
    if !is_plain || !matches!(url.scheme(), "http" | "https") {
        return Err(MetadataProblem::NotAnIssuer);
    }
    if !is_secure(&url) {
        return Err(MetadataProblem::Insecure(issuer.to_owned()));
    }
    let path = url.path().trim_end_matches('/');
    let (mut appended, mut inserted) = (url.clone(), url.clone());
    appended.set_path(&format!("{path}/.well-known/openid-configuration"));
    inserted.set_path(&format!("/.well-known/oauth-authorization-server{path}"));
    Ok([appended, inserted])
}

/// The place of the key set in the metadata of `issuer`; on the issuer's origin or one of `allowed`.
///
/// # Errors
/// [`MetadataProblem`].
pub fn parse_key_set_url(document: &[u8], issuer: &str, allowed: &[Origin]) -> Result<Url, MetadataProblem> {
    let StrictValue(document) =
        serde_json::from_slice(document).map_err(|error| MetadataProblem::Malformed(error.to_string()))?;
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    let named = text("issuer");
    if named != Some(issuer) {
        return Err(MetadataProblem::OtherIssuer(named.map(|other| other.chars().take(256).collect())));
    }
    let found = text("jwks_uri").filter(|found| found.len() <= MAX_URL).ok_or(MetadataProblem::NoKeySet)?;
    let url = Url::parse(found).map_err(|_| MetadataProblem::NoKeySet)?;
    if !has_no_user(&url) || url.fragment().is_some() {
        return Err(MetadataProblem::NoKeySet);
    }
    if !is_secure(&url) {
        return Err(MetadataProblem::Insecure(found.to_owned()));
    }
    let own = Url::parse(issuer).map_err(|_| MetadataProblem::NotAnIssuer)?.origin();
    if url.origin() != own && !allowed.contains(&url.origin()) {
        return Err(MetadataProblem::ForeignOrigin(found.to_owned()));
    }
    Ok(url)
}

/// Whether keys may be fetched from `url`: over https, or over http from this very machine. Link-local addresses,
/// where clouds answer for machines, are never meant.
pub fn is_secure(url: &Url) -> bool {
    match (url.scheme(), url.host()) {
        ("https", Some(Host::Ipv4(address))) => !address.is_link_local() && !address.is_unspecified(),
        ("https", Some(Host::Ipv6(address))) => !address.is_unicast_link_local() && !address.is_unspecified(),
        ("https", Some(Host::Domain(_))) => true,
        ("http", Some(_)) => is_local(url),
        _ => false,
    }
}

/// Whether `url` means this very machine: a loopback address or a name below `localhost` (RFC 6761 §6.3).
pub fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => is_local_name(name),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Whether `name` is `localhost` or below it.
pub fn is_local_name(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

fn has_no_user(url: &Url) -> bool {
    url.username().is_empty() && url.password().is_none()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ISSUER: &str = "https://sso.example.com/realms/main";

    fn read(document: &Value) -> Result<Url, MetadataProblem> {
        let allowed = [Url::parse("https://keys.example.com").unwrap().origin()];
        parse_key_set_url(document.to_string().as_bytes(), ISSUER, &allowed)
    }

    #[test]
    fn metadata_is_looked_for_behind_and_before_the_path_of_the_issuer() {
        let of = |issuer: &str| places(issuer).map(|places| places.map(|url| url.to_string()));
        let well_known = ["openid-configuration", "oauth-authorization-server"];
        for slash in ["", "/"] {
            assert_eq!(
                of(&format!("{ISSUER}{slash}")),
                Ok([
                    format!("{ISSUER}/.well-known/{}", well_known[0]),
                    format!("https://sso.example.com/.well-known/{}/realms/main", well_known[1]),
                ])
            );
            let root = format!("https://sso.example.com{slash}");
            let expected = well_known.map(|name| format!("https://sso.example.com/.well-known/{name}"));
            assert_eq!(of(&root), Ok(expected));
        }
        for issuer in
            ["sso", "urn:sso", "file:///etc", "https://a.example/?x", "https://a.example/#x", "https://u@a.example"]
        {
            assert_eq!(of(issuer), Err(MetadataProblem::NotAnIssuer), "{issuer}");
        }
        assert!(matches!(of("http://sso.example.com"), Err(MetadataProblem::Insecure(_))));
        assert!(of("http://127.0.0.1:8080/realms/main").is_ok());
    }

    #[test]
    fn the_metadata_must_be_about_the_issuer_that_was_asked_for_to_the_byte() {
        let jwks_uri = "https://sso.example.com/realms/main/certs";
        assert_eq!(read(&json!({"issuer": ISSUER, "jwks_uri": jwks_uri})).unwrap().as_str(), jwks_uri);
        for other in
            ["https://sso.example.com/realms/main/", "https://SSO.example.com/realms/main", "https://evil.example"]
        {
            let problem = read(&json!({"issuer": other, "jwks_uri": jwks_uri})).unwrap_err();
            assert_eq!(problem, MetadataProblem::OtherIssuer(Some(other.to_owned())));
        }
        for broken in [json!({"jwks_uri": jwks_uri}), json!({"issuer": [ISSUER], "jwks_uri": jwks_uri}), json!([])] {
            assert_eq!(read(&broken), Err(MetadataProblem::OtherIssuer(None)), "{broken}");
        }
        let twice = format!(r#"{{"issuer":"{ISSUER}","issuer":"x","jwks_uri":"{jwks_uri}"}}"#);
        assert!(matches!(parse_key_set_url(twice.as_bytes(), ISSUER, &[]), Err(MetadataProblem::Malformed(_))));
    }

    #[test]
    fn the_key_set_lies_on_the_issuers_origin_or_an_allowed_one_and_never_in_the_open() {
        let of = |jwks_uri: &str| read(&json!({"issuer": ISSUER, "jwks_uri": jwks_uri}));
        assert!(of("https://keys.example.com/any/where?v=1").is_ok());
        for foreign in [
            "https://evil.example/certs",
            "https://sso.example.com:8443/certs",
            "https://keys.example.com.evil.example/",
        ] {
            assert_eq!(of(foreign), Err(MetadataProblem::ForeignOrigin(foreign.to_owned())));
        }
        for open in [
            "http://sso.example.com/certs",
            "file:///etc/passwd",
            "data:,{}",
            "https://169.254.169.254/x",
            "https://[fe80::1]/",
        ] {
            assert_eq!(of(open), Err(MetadataProblem::Insecure(open.to_owned())));
        }
        for none in ["", "certs", "/certs", "https://u:p@sso.example.com/certs", "https://sso.example.com/certs#x"] {
            assert_eq!(of(none), Err(MetadataProblem::NoKeySet), "{none}");
        }
        assert_eq!(of(&format!("https://sso.example.com/{}", "x".repeat(MAX_URL))), Err(MetadataProblem::NoKeySet));
        assert_eq!(read(&json!({"issuer": ISSUER, "jwks_uri": 1})), Err(MetadataProblem::NoKeySet));
    }

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for (url, is_allowed) in [
            ("https://issuer.example/jwks", true),
            ("https://10.0.0.1/jwks", true),
            ("http://127.0.0.1:8080/jwks", true),
            ("http://[::1]/jwks", true),
            ("http://localhost/jwks", true),
            ("http://sso.localhost/jwks", true),
            ("http://issuer.example/jwks", false),
            ("http://localhost.example/jwks", false),
            ("http://169.254.169.254/", false),
            ("https://169.254.169.254/", false),
            ("https://0.0.0.0/", false),
            ("file:///etc/passwd", false),
            ("ftp://127.0.0.1/", false),
            ("data:application/json,{}", false),
        ] {
            assert_eq!(is_secure(&Url::parse(url).unwrap()), is_allowed, "{url}");
        }
    }
}
