//! A license that lies in our hands as text: a signed file or a signed key, read and judged.

use std::{fmt, time::Duration};

use doorward_core::{
    keygen::{
        AccountKeys, Algorithm, Dataset, Document, FileKind, License, LicenseFile, Problem, Scheme, Sealed, verify_key,
    },
    license::{LicenseState, Observation},
    secret::Secret,
    time::Timestamp,
};

/// How far the clock of whoever made a file may be ahead of ours.
const SKEW: Duration = Duration::from_secs(300);

/// What a text must be to count here.
#[derive(Clone)]
pub struct Expected {
    /// Keys of the account, pinned.
    pub keys: AccountKeys,
    /// How the policy makes license keys; it is never guessed from a key.
    pub scheme: Scheme,
    /// Account, where only one counts.
    pub account: Option<String>,
    /// Product, where only one counts.
    pub product: Option<String>,
    /// The license key that opens encrypted files.
    pub license_key: Option<Secret<String>>,
    /// This machine's fingerprint; with it only machine files for this machine count.
    pub fingerprint: Option<String>,
    /// How long a file counts that does not say itself when it ends.
    pub max_age: Duration,
}

impl fmt::Debug for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expected").field("keys", &self.keys).field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

impl Expected {
    /// Whether what counts by the one counts by the other.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let Self { keys, scheme, account, product, license_key, fingerprint, max_age } = self;
        (keys, scheme, account, product) == (&other.keys, &other.scheme, &other.account, &other.product)
            && (fingerprint, max_age) == (&other.fingerprint, &other.max_age)
            && license_key.as_ref().map(Secret::expose) == other.license_key.as_ref().map(Secret::expose)
    }
}

/// Why a text is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Not genuine, or not readable.
    Problem(Problem),
    /// It is about another account or product than the named key of the configuration says.
    Another(&'static str),
    /// It does not say for which account or product it is, and the configuration names one.
    Unnamed(&'static str),
    /// It was issued in the future.
    Future,
    /// A license file, where the configuration has a fingerprint: only machine files are bound to a machine.
    NotOfAMachine,
    /// A machine file, and no fingerprint in the configuration.
    NoFingerprint,
    /// A machine file of another machine.
    OtherMachine,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Problem(problem) => problem.fmt(f),
            Self::Another(what) => write!(f, "it is for another {what} than `license.{what}`"),
            Self::Unnamed(what) => write!(f, "it does not say for which {what} it is, and `license.{what}` names one"),
            Self::Future => f.write_str("it was issued in the future: this clock or that of the issuer is wrong"),
            Self::NotOfAMachine => f.write_str("`license.fingerprint` asks for a machine file, and this is none"),
            Self::NoFingerprint => f.write_str("a machine file needs `license.fingerprint`"),
            Self::OtherMachine => f.write_str("it is for another machine than `license.fingerprint`"),
        }
    }
}

impl std::error::Error for Unusable {}

impl From<Problem> for Unusable {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// A genuine license for this installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paper {
    /// What it says, as of when it was issued.
    pub observation: Observation,
    /// When the paper itself stops counting, whatever the license says; a new one must be fetched before.
    pub ends_at: Option<Timestamp>,
}

impl Paper {
    /// Verifies and reads `text`: a license file, a machine file or a license key.
    ///
    /// Signature first, then the inside, then whom it is for. Not judged: whether it has ended ([`Paper::is_over`]).
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn read(text: &str, expected: &Expected, now: Timestamp) -> Result<Self, Unusable> {
        if text.trim_start().starts_with("-----BEGIN ") {
            Self::of_file(text, expected, now)
        } else {
            Self::of_key(text, expected, now)
        }
    }

    /// Whether it counts no more at `now`.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.ends_at.is_some_and(|end| end <= now)
    }

    /// Whether it says neither whose license it is nor when it ends: a key whose text the vendor chose freely. It is
    /// genuine, and counts without end where neither account nor product is asked for.
    pub fn is_bare(&self) -> bool {
        self.observation.license_id.is_none() && self.observation.expires_at.is_none() && self.ends_at.is_none()
    }

    fn of_file(text: &str, expected: &Expected, now: Timestamp) -> Result<Self, Unusable> {
        let is_machine = text.trim_start().starts_with("-----BEGIN MACHINE FILE");
        let kind = if is_machine { FileKind::Machine } else { FileKind::License };
        // `alg` in a file is not signed: only what the pinned keys can prove is looked at.
        let pinned = Algorithm::ALL.iter().filter(|algorithm| expected.keys.has(**algorithm));
        let allowed: Vec<(Sealed, Algorithm)> =
            pinned.flat_map(|algorithm| [(Sealed::Plain, *algorithm), (Sealed::Encrypted, *algorithm)]).collect();
        let file = LicenseFile::verify(text, kind, &allowed, &expected.keys)?;
        let fingerprint = match (is_machine, &expected.fingerprint) {
            (true, None) => return Err(Unusable::NoFingerprint),
            (false, Some(_)) => return Err(Unusable::NotOfAMachine),
            (_, fingerprint) => fingerprint.as_deref(),
        };
        let document = file.open(expected.license_key.as_ref(), fingerprint.unwrap_or_default())?;
        if fingerprint.is_some_and(|wanted| fingerprint_in(&document).as_deref() != Some(wanted)) {
            return Err(Unusable::OtherMachine);
        }
        if document.issued > now.plus(SKEW) {
            return Err(Unusable::Future);
        }
        let license = License::of_document(&document)?;
        is_for("account", expected.account.as_deref(), license.account.as_deref())?;
        is_for("product", expected.product.as_deref(), license.product.as_deref())?;
        let ends_at = document.expires_at.or(Some(document.issued.plus(expected.max_age)));
        Ok(Self { observation: license.observe(document.issued), ends_at })
    }

    fn of_key(text: &str, expected: &Expected, now: Timestamp) -> Result<Self, Unusable> {
        if expected.fingerprint.is_some() {
            return Err(Unusable::NotOfAMachine);
        }
        let said = Dataset::read(&verify_key(text, expected.scheme, &expected.keys)?)?;
        is_for("account", expected.account.as_deref(), said.account.as_deref())?;
        // A JWT has no place for a product; its account and license say enough.
        if expected.scheme != Scheme::JwtRs256 || said.product.is_some() {
            is_for("product", expected.product.as_deref(), said.product.as_deref())?;
        }
        let observed_at = said.created_at.unwrap_or(Timestamp::EPOCH);
        if observed_at > now.plus(SKEW) {
            return Err(Unusable::Future);
        }
        let observation = Observation {
            state: LicenseState::Active,
            license_id: said.license,
            expires_at: said.expires_at,
            entitlements: Default::default(),
            observed_at,
        };
        // What a key says never changes, so its own expiry is its end.
        Ok(Self { observation, ends_at: None })
    }
}

fn is_for(what: &'static str, wanted: Option<&str>, found: Option<&str>) -> Result<(), Unusable> {
    match (wanted, found) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(Unusable::Unnamed(what)),
        (Some(wanted), Some(found)) if wanted == found => Ok(()),
        (Some(_), Some(_)) => Err(Unusable::Another(what)),
    }
}

/// The fingerprint that a machine file states.
fn fingerprint_in(document: &Document) -> Option<String> {
    let json: serde_json::Value = serde_json::from_str(document.json.get()).ok()?;
    Some(json.pointer("/data/attributes/fingerprint")?.as_str()?.to_owned())
}
