//! `[[issuers]]`: whose tokens are accepted, and with which keys.

use std::{path::PathBuf, time::Duration};

use base64::{Engine as _, engine::general_purpose};
use jiff::civil::Date;

use super::{
    key::{Field, Key, settings},
    read::Reader,
    scalar::{Scalar, scalar_field, shown, to_json, words},
    tree::{Node, Value},
    urls::RemoteUrl,
};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

settings! {
    /// An issuer of tokens. A rule that allows `bearer` admits tokens of every issuer listed here.
    pub struct Issuer check Issuer::check {
        /// Its name here: in logs, in `X-Doorward-Subject`, on the command line.
        name: IssuerName = required "main";
        /// The exact `iss` of its tokens.
        issuer: String = required "https://sso.example.com/realms/main";
        /// Other values of `iss` that mean this issuer, for a time.
        aliases: Vec<Alias> = default [];
        /// The values of `aud` that mean us; a token must carry one of them.
        audiences: Vec<String> = required ["app"];
        /// Algorithms that its tokens may use. `EdDSA` also admits the name `Ed25519` on such a key.
        algorithms: Vec<AlgorithmName> = default ["RS256", "EdDSA"];
        /// Claims that a token must carry besides `iss`, `aud`, `sub`, `exp`.
        required_claims: Vec<String> = default [];
        /// How far the issuer's clock may be off.
        clock_tolerance: Duration = default "30s";
        /// Longest accepted age of a token, counted from `iat`.
        max_token_age: Duration = default "24h";
        /// The `typ` that its tokens carry, for example `at+jwt`; absent: `JWT`, `at+jwt` or none.
        typ: String = optional "at+jwt";
        /// Where its keys come from: exactly one source.
        keys: Keys = required { jwks_url = "https://sso.example.com/certs" };
    }

    /// Another spelling of an issuer, for a time.
    pub struct Alias {
        /// The other value of `iss`.
        issuer: String = required "https://sso.example.com/realms/main/";
        /// The last day on which it is accepted.
        until: Date = required "2027-01-31";
    }

    /// Where an issuer's keys come from: one of `jwks_url`, `discovery`, `jwks_file`, `jwks`, `public_key`.
    pub struct Keys check Keys::check {
        /// URL of the key set.
        jwks_url: RemoteUrl = optional "https://sso.example.com/realms/main/protocol/openid-connect/certs";
        /// Whether to find the key set through the issuer's discovery document.
        discovery: bool = default false;
        /// File with a key set; read on start and on SIGHUP.
        jwks_file: PathBuf = optional "./keys.json";
        /// A key set, written here: JSON text, or a table.
        jwks: JwksText = optional { keys = [] };
        /// A single key that answers to every `kid`: hex, base64, PEM, or DER in base64.
        public_key: PublicKeyText = optional "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        /// With `jwks_url` or `discovery`: a key set to begin with, from `doorward keys fetch`.
        first: PathBuf = optional "keys.json";
        /// How long one fetch may take.
        fetch_timeout: Duration = default "5s";
        /// Shortest time between two fetches, whatever tokens ask for.
        min_interval: Duration = default "30s";
        /// How long keys are relied on while they cannot be fetched again.
        max_stale: Duration = default "24h";
    }
}

impl Issuer {
    fn check(&self, cx: &mut Reader<'_>) {
        if self.audiences.is_empty() {
            cx.problem_in(
                "audiences",
                "without an audience, tokens meant for other services would be accepted",
                "name the value of `aud` that means this installation",
            );
        }
        if self.algorithms.is_empty() {
            cx.problem_in("algorithms", "no algorithm is allowed", "name at least one, for example \"RS256\"");
        }
        cx.check_range("clock_tolerance", self.clock_tolerance, (Duration::ZERO, "0s"), (300 * SECOND, "5m"));
        cx.check_range("max_token_age", self.max_token_age, (SECOND, "1s"), (366 * DAY, "366d"));
        if self.keys.discovery && !self.issuer.starts_with("http") {
            cx.problem_in("keys.discovery", "`issuer` is not a URL, so there is nothing to discover", "use `jwks_url`");
        }
        for (i, alias) in self.aliases.iter().enumerate() {
            if alias.issuer == self.issuer {
                cx.problem_in(&format!("aliases[{i}].issuer"), "the alias is the issuer itself", "remove the alias");
            }
        }
    }
}

impl Keys {
    /// How many sources are given; exactly one is right.
    fn sources(&self) -> Vec<&'static str> {
        let given = [
            ("jwks_url", self.jwks_url.is_some()),
            ("discovery", self.discovery),
            ("jwks_file", self.jwks_file.is_some()),
            ("jwks", self.jwks.is_some()),
            ("public_key", self.public_key.is_some()),
        ];
        given.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name).collect()
    }

    fn check(&self, cx: &mut Reader<'_>) {
        match self.sources().as_slice() {
            [_] => {}
            [] => cx.problem_in("", "no source of keys", "add one of jwks_url, discovery, jwks_file, jwks, public_key"),
            [first, others @ ..] => cx.problem_in(
                others[0],
                format!("more than one source of keys: {first}, {}", others.join(", ")),
                "keep one of them",
            ),
        }
        if self.first.is_some() && self.jwks_url.is_none() && !self.discovery {
            cx.problem_in("first", "a first key set, but nothing to fetch later ones from", "use `jwks_file` instead");
        }
        for (name, path) in [("jwks_file", &self.jwks_file), ("first", &self.first)] {
            if let Some(path) = path
                && let Err(what) = cx.read_file(path)
            {
                cx.problem_in(name, what, "fetch it with `doorward keys fetch`, or correct the path");
            }
        }
        cx.check_range("fetch_timeout", self.fetch_timeout, (SECOND / 10, "100ms"), (60 * SECOND, "60s"));
        cx.check_range("min_interval", self.min_interval, (SECOND, "1s"), (DAY, "24h"));
        cx.check_range("max_stale", self.max_stale, (60 * SECOND, "1m"), (30 * DAY, "30d"));
    }
}

scalar_field!(IssuerName, PublicKeyText);

/// Name of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerName(pub String);

impl Scalar for IssuerName {
    const TYPE: &'static str = "name";
    const HINT: &'static str = "a name of lower-case letters, digits, `-` and `_`";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        if text == doorward_core::principal::SubjectId::LOCAL {
            return Err("`local` names our own users".into());
        }
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        if text.is_empty() || text.len() > 64 || !text.bytes().all(is_plain) {
            return Err(format!("`{}` is not a name", shown(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The registered name of a signature algorithm that tokens may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlgorithmName(pub &'static str);

words!(AlgorithmName, "algorithm":
    "EdDSA" => AlgorithmName("EdDSA"),
    "ES256" => AlgorithmName("ES256"), "ES384" => AlgorithmName("ES384"),
    "RS256" => AlgorithmName("RS256"), "RS384" => AlgorithmName("RS384"), "RS512" => AlgorithmName("RS512"),
    "PS256" => AlgorithmName("PS256"), "PS384" => AlgorithmName("PS384"), "PS512" => AlgorithmName("PS512"));

/// A key set, as JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwksText(pub String);

impl Field for JwksText {
    const TYPE: &'static str = "key set";
    const HINT: &'static str = "a JWK set: JSON text, or a table with `keys`";
    fn read(node: Node, cx: &mut Reader<'_>, key: &Key) -> Option<Self> {
        let at = node.at.clone();
        let value: serde_json::Value = match node.value {
            Value::String(text) | Value::Text(text) => serde_json::from_str(&text).unwrap_or_default(),
            value => to_json(value),
        };
        if value.get("keys").is_none_or(|keys| !keys.is_array()) {
            cx.problem(&at, "not a JWK set", key.remedy());
            return None;
        }
        Some(Self(value.to_string()))
    }
}

/// A public key as the operator gave it; hex, base64 or PEM, and whole as such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKeyText(pub String);

impl Scalar for PublicKeyText {
    const TYPE: &'static str = "public key";
    const HINT: &'static str = "a public key as hex, base64 or PEM";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        let text = text.trim();
        if text.contains("PRIVATE KEY") {
            return Err("this is a private key; it does not belong here".into());
        }
        let is_base64 = |text: &str| {
            let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            !text.is_empty() && general_purpose::STANDARD.decode(text).is_ok()
        };
        let is_hex = text.len().is_multiple_of(2) && !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
        let pem = text.strip_prefix("-----BEGIN ").and_then(|rest| {
            let (label, rest) = rest.split_once("-----")?;
            let body = rest.trim_end().strip_suffix("-----")?.strip_suffix(label)?.strip_suffix("-----END ")?;
            label.ends_with("PUBLIC KEY").then_some(body)
        });
        let is_ok = match pem {
            Some(body) => is_base64(body),
            None => is_hex || is_base64(text),
        };
        is_ok.then(|| Self(text.to_owned())).ok_or_else(|| "not a public key".into())
    }
}
