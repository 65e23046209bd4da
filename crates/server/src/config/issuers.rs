//! `[[issuers]]`: whose tokens are accepted, and with which keys.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use doorward_core::{
    jose::{Algorithm, AlgorithmSet, JwkSet, PublicKey},
    keys::metadata,
    origin::Origin,
    time::Timestamp,
    token::{IssuerAlias, TokenPolicy},
};
use doorward_gate::issuer::{self, IssuerConfig};
use jiff::civil::Date;
use url::Url;

use super::{
    key::{Field, Key, settings},
    read::Reader,
    scalar::{Scalar, scalar_field, shown, to_json},
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
        algorithms: Vec<Algorithm> = default ["RS256", "EdDSA"];
        /// Claims that a token must carry besides `iss`, `aud`, `sub`, `exp`.
        required_claims: Vec<String> = default [];
        /// How far the issuer's clock may be off.
        clock_tolerance: Duration = default "30s";
        /// Longest accepted age of a token, counted from `iat`.
        max_token_age: Duration = default "24h";
        /// The `typ` that its tokens carry, for example `at+jwt`; absent: `JWT`, `at+jwt` or none.
        typ: String = optional "at+jwt";
        /// How many verified tokens are remembered, so that a token that comes again costs no signature; 0: none. Keys,
        /// times, policy and revocations are judged at every request all the same. One takes about 2 KB, 20 KB at most.
        token_cache: u32 = default 4096;
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
        /// Whether to find the key set through the issuer's metadata (OpenID Connect Discovery, RFC 8414).
        discovery: bool = default false;
        /// With `discovery`: origins besides the issuer's own that its key set may lie on.
        jwks_origins: Vec<Origin> = default [];
        /// File with a key set; read again when it changes.
        jwks_file: KeyFile = optional "./keys.json";
        /// A key set, written here: JSON text, or a table.
        jwks: KeySet = optional { keys = [] };
        /// A single key that answers to every `kid`: hex, base64, PEM, or DER in base64.
        public_key: PublicKey = optional "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        /// With `jwks_url` or `discovery`: a key set to begin with, from `doorward keys fetch`. While there is no such
        /// file, the live keys serve from the start.
        first: FirstFile = optional "keys.json";
        /// How long one fetch may take.
        fetch_timeout: Duration = default "5s";
        /// Shortest time between two fetches, whatever tokens ask for.
        min_interval: Duration = default "30s";
        /// How long keys are relied on while they cannot be fetched again.
        max_stale: Duration = default "24h";
    }
}

/// Where an issuer's keys come from, resolved.
#[derive(Clone, Copy, Debug)]
pub enum KeySource<'a> {
    /// Fetched from here.
    Url(&'a Url),
    /// Fetched from where the issuer's metadata says.
    Discovery,
    /// Given with the configuration; never fetched.
    Given(&'a JwkSet),
    /// A single key for every `kid`, given with the configuration.
    Single(&'a PublicKey),
}

impl Issuer {
    /// The rules for its tokens.
    pub fn policy(&self) -> TokenPolicy {
        let alias = |alias: &Alias| IssuerAlias { issuer: alias.issuer.clone(), until: end_of(alias.until) };
        TokenPolicy {
            issuer: self.issuer.clone(),
            aliases: self.aliases.iter().map(alias).collect(),
            audiences: self.audiences.clone(),
            algorithms: AlgorithmSet::of(&self.algorithms),
            required_claims: self.required_claims.clone(),
            clock_tolerance: self.clock_tolerance,
            max_token_age: Some(self.max_token_age),
            kind: self.typ.clone(),
        }
    }

    /// The issuer as the gate wants it.
    pub fn to_gate(&self) -> IssuerConfig {
        let keys = &self.keys;
        let source = match (keys.source(), &keys.jwks_file) {
            (_, Some(file)) => issuer::KeySource::File(file.path.clone()),
            (KeySource::Url(url), None) => issuer::KeySource::Url(url.clone()),
            (KeySource::Discovery, None) => issuer::KeySource::Discovery { origins: keys.key_origins() },
            (KeySource::Given(set), None) => issuer::KeySource::Inline(set.clone()),
            (KeySource::Single(key), None) => issuer::KeySource::Single(key.clone()),
        };
        IssuerConfig {
            first: keys.first_set().cloned(),
            first_made: keys.first.as_ref().and_then(|first| first.made),
            token_cache: self.token_cache as usize,
            fetch_timeout: keys.fetch_timeout,
            min_interval: keys.min_interval,
            max_stale: keys.max_stale,
            ..IssuerConfig::new(self.name.0.clone(), self.policy(), source)
        }
    }

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
        cx.check_range("token_cache", self.token_cache, (0, "0"), (1 << 20, "1048576"));
        if self.keys.discovery
            && let Err(problem) = metadata::places(&self.issuer)
        {
            cx.problem_in("keys.discovery", problem.to_string(), "use `jwks_url`");
        }
        for (i, alias) in self.aliases.iter().enumerate() {
            if alias.issuer == self.issuer {
                cx.problem_in(&format!("aliases[{i}].issuer"), "the alias is the issuer itself", "remove the alias");
            }
        }
    }
}

/// The first moment after a day, UTC.
fn end_of(day: Date) -> Timestamp {
    let next = day.tomorrow().unwrap_or(Date::MAX);
    let midnight = next.to_zoned(jiff::tz::TimeZone::UTC).map_or(i64::MAX, |at| at.timestamp().as_millisecond());
    Timestamp::from_millis(midnight)
}

impl Keys {
    /// Where the keys come from. Reading made sure that there is exactly one source; discovery needs no value.
    pub fn source(&self) -> KeySource<'_> {
        let url = self.jwks_url.as_ref().map(|url| KeySource::Url(&url.0));
        let file = self.jwks_file.as_ref().map(|file| KeySource::Given(&file.set));
        let set = self.jwks.as_ref().map(|set| KeySource::Given(&set.0));
        url.or(file).or(set).or(self.public_key.as_ref().map(KeySource::Single)).unwrap_or(KeySource::Discovery)
    }

    /// The key set to begin with, where its file is there.
    pub fn first_set(&self) -> Option<&JwkSet> {
        self.first.as_ref()?.set.as_ref()
    }

    /// The file of a key set to begin with that is not there.
    pub fn missing_first(&self) -> Option<&Path> {
        self.first.as_ref().filter(|first| first.set.is_none()).map(|first| &*first.path)
    }

    fn key_origins(&self) -> Vec<url::Origin> {
        self.jwks_origins.iter().filter_map(|one| Some(Url::parse(&one.to_string()).ok()?.origin())).collect()
    }

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
        if !self.jwks_origins.is_empty() && !self.discovery {
            cx.problem_in("jwks_origins", "without `discovery` the key set lies where `jwks_url` says", "remove it");
        }
        cx.check_range("fetch_timeout", self.fetch_timeout, (SECOND / 10, "100ms"), (60 * SECOND, "60s"));
        cx.check_range("min_interval", self.min_interval, (SECOND, "1s"), (DAY, "24h"));
        cx.check_range("max_stale", self.max_stale, (60 * SECOND, "1m"), (30 * DAY, "30d"));
    }
}

scalar_field!(IssuerName, Algorithm, PublicKey, KeyFile, FirstFile);

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
        if text == doorward_core::legacy::ISSUER {
            return Err("`legacy` names the old system of the soak window".into());
        }
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        if text.is_empty() || text.len() > 64 || !text.bytes().all(is_plain) {
            return Err(format!("`{}` is not a name", shown(text)));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Scalar for Algorithm {
    const TYPE: &'static str = "algorithm";
    const HINT: &'static str = "some of `EdDSA` `ES256` `ES384` `RS256` `RS384` `RS512` `PS256` `PS384` `PS512`";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| format!("`{}` is not an algorithm that tokens may use", shown(text)))
    }
}

impl Scalar for PublicKey {
    const TYPE: &'static str = "public key";
    const HINT: &'static str = "a public key as hex, base64 or PEM";
    fn parse(text: &str, _: &Reader<'_>) -> Result<Self, String> {
        Self::parse_text(text).map_err(|error| format!("not a usable public key: {error}"))
    }
}

/// A key set in a file, as it was when the configuration was read.
#[derive(Clone, Debug)]
pub struct KeyFile {
    /// The file.
    pub path: PathBuf,
    /// The set.
    pub set: JwkSet,
}

impl Scalar for KeyFile {
    const TYPE: &'static str = "path";
    const HINT: &'static str = "the path of a key set, as `doorward keys fetch` writes it";
    fn parse(text: &str, cx: &Reader<'_>) -> Result<Self, String> {
        let path = <PathBuf as Scalar>::parse(text, cx)?;
        let document = cx.read_file(&path)?;
        let set = parse_set(document.as_bytes()).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { path, set })
    }
}

/// A key set to begin with, as it was when the configuration was read.
#[derive(Clone, Debug)]
pub struct FirstFile {
    /// The file.
    pub path: PathBuf,
    /// The set; `None` while there is no such file, which is no problem: there are the live keys.
    pub set: Option<JwkSet>,
    /// When the file was written.
    pub made: Option<Timestamp>,
}

impl Scalar for FirstFile {
    const TYPE: &'static str = "path";
    const HINT: &'static str = <KeyFile as Scalar>::HINT;
    fn parse(text: &str, cx: &Reader<'_>) -> Result<Self, String> {
        let path = <PathBuf as Scalar>::parse(text, cx)?;
        let about = match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self { path, set: None, made: None });
            }
            about => about.ok(),
        };
        let KeyFile { path, set } = KeyFile::parse(text, cx)?;
        let modified = about.and_then(|about| about.modified().ok());
        let made = modified.and_then(|at| jiff::Timestamp::try_from(at).ok());
        Ok(Self { path, set: Some(set), made: made.map(|at| Timestamp::from_millis(at.as_millisecond())) })
    }
}

/// A key set written into the configuration.
#[derive(Clone, Debug)]
pub struct KeySet(pub JwkSet);

impl Field for KeySet {
    const TYPE: &'static str = "key set";
    const HINT: &'static str = "a JWK set: JSON text, or a table with `keys`";
    fn read(node: Node, cx: &mut Reader<'_>, key: &Key) -> Option<Self> {
        let document = match node.value {
            Value::String(text) | Value::Text(text) => text,
            value => to_json(value).to_string(),
        };
        parse_set(document.as_bytes()).map(Self).map_err(|what| cx.problem(&node.at, what, key.remedy())).ok()
    }
}

/// A set with at least one usable key; a key that cannot be used does not discard the others.
fn parse_set(document: &[u8]) -> Result<JwkSet, String> {
    let set = JwkSet::parse(document).map_err(|error| format!("not a key set: {error}"))?;
    if !set.is_empty() {
        return Ok(set);
    }
    let why: Vec<_> =
        set.skipped().iter().map(|skipped| format!("key {}: {}", skipped.index, skipped.problem)).collect();
    Err(format!(
        "no usable key in the set ({})",
        if why.is_empty() { "it is empty".to_owned() } else { why.join("; ") }
    ))
}
