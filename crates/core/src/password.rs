//! Password hashes of the old system, taken apart and kept within bounds (B48). Nothing is computed here.
//!
//! Accepted are bcrypt (`$2a$`, `$2b$`, `$2y$`) and Argon2 in PHC form (RFC 9106; `argon2id`, `argon2i`,
//! `argon2d`). An imported hash decides how much work a sign-in costs, so one that asks for more than
//! [`LIMITS`] is refused: it would let whoever wrote it, or anybody who knows of it, hold the server up.

use std::fmt;

use base64::{
    Engine as _, alphabet,
    engine::{GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD_NO_PAD},
};

/// Longest password that is looked at, in bytes (OWASP ASVS 6.2.9 asks for 64 characters at least).
pub const MAX_PASSWORD: usize = 1024;
/// Longest password that bcrypt can tell apart, in bytes; it ignores the rest.
pub const BCRYPT_MAX: usize = 72;
/// Longest text of a hash.
const MAX_TEXT: usize = 256;

/// bcrypt has an alphabet of its own, and its last character carries bits that mean nothing.
const BCRYPT64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::BCRYPT,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// What a hash may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// bcrypt: the exponent.
    pub bcrypt_cost: u32,
    /// Argon2: memory in KiB.
    pub memory_kib: u32,
    /// Argon2: passes.
    pub passes: u32,
    /// Argon2: memory times passes, in KiB.
    pub work_kib: u64,
    /// Argon2: lanes.
    pub lanes: u32,
}

/// The bounds of every hash: bcrypt up to 14 (about 1.5 s of a core), Argon2 up to 256 MiB and 1 GiB of work.
pub const LIMITS: Limits =
    Limits { bcrypt_cost: 14, memory_kib: 256 * 1024, passes: 16, work_kib: 1024 * 1024, lanes: 16 };

/// Which Argon2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Argon2Kind {
    /// `argon2id`.
    Id,
    /// `argon2i`.
    I,
    /// `argon2d`.
    D,
}

/// What it costs to compute a hash; two hashes of equal cost take equal time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cost {
    /// bcrypt with 2^`cost` rounds.
    Bcrypt {
        /// The exponent.
        cost: u32,
    },
    /// Argon2.
    Argon2 {
        /// Which one.
        kind: Argon2Kind,
        /// 0x10 or 0x13.
        version: u32,
        /// Memory in KiB.
        memory_kib: u32,
        /// Passes.
        passes: u32,
        /// Lanes.
        lanes: u32,
    },
}

/// What stands in for the hash of somebody who has none, as long as no other was seen: what the old system wrote.
pub const USUAL: Cost = Cost::Bcrypt { cost: 10 };

/// A hash taken apart. Does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    /// What it costs to compute.
    pub cost: Cost,
    /// Its salt; 16 bytes with bcrypt.
    pub salt: Vec<u8>,
    /// What must come out; 23 bytes with bcrypt.
    pub output: Vec<u8>,
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordHash").field("cost", &self.cost).finish_non_exhaustive()
    }
}

/// Why a text is no hash that is accepted. Never holds any of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHash {
    /// Neither bcrypt nor Argon2.
    Unknown,
    /// Not well-formed.
    Malformed(&'static str),
    /// It costs more than [`LIMITS`] admits, or so little that it protects nothing.
    Cost(&'static str),
}

impl fmt::Display for BadHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => {
                f.write_str("neither bcrypt ($2a$, $2b$, $2y$) nor Argon2 ($argon2id$, $argon2i$, $argon2d$)")
            }
            Self::Malformed(what) => write!(f, "not well-formed: {what}"),
            Self::Cost(what) => write!(f, "its parameters are out of bounds: {what}"),
        }
    }
}

impl std::error::Error for BadHash {}

impl PasswordHash {
    /// Takes a hash apart.
    ///
    /// # Errors
    /// [`BadHash`]; such a hash is as good as none.
    pub fn parse(text: &str) -> Result<Self, BadHash> {
        if text.len() > MAX_TEXT {
            return Err(BadHash::Malformed("longer than any hash"));
        }
        let mut parts = text.strip_prefix('$').ok_or(BadHash::Unknown)?.split('$');
        match parts.next() {
            Some("2a" | "2b" | "2y") => bcrypt(parts),
            Some("argon2id") => argon2(Argon2Kind::Id, parts),
            Some("argon2i") => argon2(Argon2Kind::I, parts),
            Some("argon2d") => argon2(Argon2Kind::D, parts),
            _ => Err(BadHash::Unknown),
        }
    }

    /// A hash of this cost that no password is known to have: what is computed for somebody who has none, so that
    /// it takes the same time. The salt is of no consequence.
    pub fn dummy(cost: Cost) -> Self {
        let output = match cost {
            Cost::Bcrypt { .. } => 23,
            Cost::Argon2 { .. } => 32,
        };
        Self { cost, salt: vec![0x5a; 16], output: vec![0; output] }
    }

    /// Whether `password` can be what was hashed. bcrypt ignores what follows the 72nd byte or a NUL, so with it
    /// two different passwords could pass for one another: such a password never matches.
    pub fn admits(&self, password: &[u8]) -> bool {
        match self.cost {
            Cost::Bcrypt { .. } => password.len() <= BCRYPT_MAX && !password.contains(&0),
            Cost::Argon2 { .. } => password.len() <= MAX_PASSWORD,
        }
    }
}

/// `10$` 22 characters of salt and 31 of hash.
fn bcrypt<'t>(mut parts: impl Iterator<Item = &'t str>) -> Result<PasswordHash, BadHash> {
    let (Some(cost), Some(rest), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(BadHash::Malformed("bcrypt has three parts"));
    };
    if cost.len() != 2 {
        return Err(BadHash::Malformed("the cost has two digits"));
    }
    let cost = number(cost)?;
    if !(4..=LIMITS.bcrypt_cost).contains(&cost) {
        return Err(BadHash::Cost("bcrypt cost from 4 to 14"));
    }
    let (salt, hash) = rest.split_at_checked(22).ok_or(BadHash::Malformed("the salt is cut off"))?;
    let decode = |text: &str| BCRYPT64.decode(text).map_err(|_| BadHash::Malformed("salt or hash"));
    let (salt, output) = (decode(salt)?, decode(hash)?);
    if salt.len() != 16 || output.len() != 23 {
        return Err(BadHash::Malformed("the length of salt or hash"));
    }
    Ok(PasswordHash { cost: Cost::Bcrypt { cost }, salt, output })
}

/// `v=19$m=65536,t=3,p=4$salt$hash`; without `v` it is version 0x10.
fn argon2<'t>(kind: Argon2Kind, parts: impl Iterator<Item = &'t str>) -> Result<PasswordHash, BadHash> {
    let parts: Vec<&str> = parts.take(5).collect();
    let (version, settings, salt, output) = match parts[..] {
        [version, settings, salt, output] => {
            let version = version.strip_prefix("v=").ok_or(BadHash::Malformed("`v`"))?;
            (number(version)?, settings, salt, output)
        }
        [settings, salt, output] => (0x10, settings, salt, output),
        _ => return Err(BadHash::Malformed("Argon2 has four or five parts")),
    };
    if !matches!(version, 0x10 | 0x13) {
        return Err(BadHash::Malformed("`v` is 16 or 19"));
    }
    let mut settings = settings.split(',');
    let mut setting = |name: &str| {
        let value = settings.next().and_then(|text| text.strip_prefix(name)?.strip_prefix('='));
        number(value.ok_or(BadHash::Malformed("the settings are m, t, p"))?)
    };
    let (memory_kib, passes, lanes) = (setting("m")?, setting("t")?, setting("p")?);
    if settings.next().is_some() {
        return Err(BadHash::Malformed("the settings are m, t, p"));
    }
    if !(1..=LIMITS.lanes).contains(&lanes) {
        return Err(BadHash::Cost("p from 1 to 16"));
    }
    if !(8 * lanes..=LIMITS.memory_kib).contains(&memory_kib) {
        return Err(BadHash::Cost("m from 8 times p to 262144"));
    }
    if !(1..=LIMITS.passes).contains(&passes) || u64::from(memory_kib) * u64::from(passes) > LIMITS.work_kib {
        return Err(BadHash::Cost("t from 1 to 16, and m times t up to 1048576"));
    }
    let decode = |text: &str| STANDARD_NO_PAD.decode(text).map_err(|_| BadHash::Malformed("salt or hash"));
    let (salt, output) = (decode(salt)?, decode(output)?);
    if !(8..=64).contains(&salt.len()) || !(16..=64).contains(&output.len()) {
        return Err(BadHash::Malformed("the length of salt or hash"));
    }
    Ok(PasswordHash { cost: Cost::Argon2 { kind, version, memory_kib, passes, lanes }, salt, output })
}

/// Decimal digits and nothing else.
fn number(text: &str) -> Result<u32, BadHash> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_canonical = text.len() <= 2 || !text.starts_with('0');
    if !is_plain || !is_canonical {
        return Err(BadHash::Malformed("a number"));
    }
    text.parse().map_err(|_| BadHash::Cost("a number is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCRYPT: &str = "$2b$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";
    const ARGON2: &str = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b0dWRWJTmaaJObG";

    fn refused(text: &str) -> BadHash {
        PasswordHash::parse(text).unwrap_err()
    }

    #[test]
    fn hashes_of_both_kinds_come_apart() {
        for kind in ["2a", "2b", "2y"] {
            let hash = PasswordHash::parse(&BCRYPT.replace("2b", kind)).unwrap();
            assert_eq!((hash.cost, hash.salt.len(), hash.output.len()), (Cost::Bcrypt { cost: 10 }, 16, 23));
        }
        let hash = PasswordHash::parse(ARGON2).unwrap();
        let cost = Cost::Argon2 { kind: Argon2Kind::Id, version: 0x13, memory_kib: 65_536, passes: 2, lanes: 1 };
        assert_eq!((hash.cost, hash.salt.as_slice(), hash.output.len()), (cost, &b"somesalt"[..], 24));
        let old = PasswordHash::parse(&ARGON2.replace("v=19$", "").replace("argon2id", "argon2i")).unwrap();
        assert!(matches!(old.cost, Cost::Argon2 { kind: Argon2Kind::I, version: 0x10, .. }));
        assert_eq!(format!("{hash:?}").matches("salt").count(), 0);
    }

    #[test]
    fn what_would_hold_the_server_up_is_refused() {
        for cost in ["03", "15", "31", "99"] {
            assert!(matches!(refused(&BCRYPT.replace("$10$", &format!("${cost}$"))), BadHash::Cost(_)), "{cost}");
        }
        for settings in [
            "m=262145,t=1,p=1",
            "m=4294967295,t=1,p=1",
            "m=99999999999,t=1,p=1",
            "m=65536,t=17,p=1",
            "m=262144,t=5,p=1",
            "m=65536,t=0,p=1",
            "m=7,t=1,p=1",
            "m=64,t=1,p=17",
            "m=15,t=1,p=2",
            "m=65536,t=2,p=0",
        ] {
            assert!(matches!(refused(&ARGON2.replace("m=65536,t=2,p=1", settings)), BadHash::Cost(_)), "{settings}");
        }
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        for text in
            ["", "plain", "$", "$1$salt$hash", "$2x$10$", "$2$10$", "$scrypt$ln=1", "5f4dcc3b5aa765d61d8327deb882cf99"]
        {
            assert_eq!(refused(text), BadHash::Unknown, "{text}");
        }
        for text in [
            &BCRYPT[..59],
            &format!("{BCRYPT}A"),
            &BCRYPT.replace("$10$", "$1$"),
            &BCRYPT.replace("$10$", "$+9$"),
            &BCRYPT.replace("N9", "N!"),
            &BCRYPT.replace("N9", "é"),
            &ARGON2.replace("v=19", "v=18"),
            &ARGON2.replace("v=19", "x=19"),
            &ARGON2.replace("m=65536,t=2,p=1", "t=2,m=65536,p=1"),
            &ARGON2.replace("p=1$", "p=1,data=AA$"),
            &ARGON2.replace("c29tZXNhbHQ", "c29t"),
            &ARGON2.replace("c29tZXNhbHQ", "c29tZXNhbHQ="),
            &ARGON2[..40],
            &format!("{ARGON2}$x"),
            &"$2b$10$".repeat(100),
        ] {
            assert!(matches!(refused(text), BadHash::Malformed(_)), "{text}");
        }
    }

    #[test]
    fn with_bcrypt_nothing_passes_by_what_it_ignores() {
        let bcrypt = PasswordHash::parse(BCRYPT).unwrap();
        assert!(bcrypt.admits(&[b'a'; 72]) && !bcrypt.admits(&[b'a'; 73]) && !bcrypt.admits(b"a\0b"));
        let argon2 = PasswordHash::parse(ARGON2).unwrap();
        assert!(argon2.admits(&[b'a'; 1024]) && argon2.admits(b"a\0b") && !argon2.admits(&[b'a'; 1025]));
    }

    #[test]
    fn a_stand_in_costs_what_it_stands_for() {
        for text in [BCRYPT, ARGON2] {
            let real = PasswordHash::parse(text).unwrap();
            let dummy = PasswordHash::dummy(real.cost);
            assert_eq!((dummy.cost, dummy.salt.len() >= 8), (real.cost, true));
        }
    }
}
