//! The code in the mail, for people who read it on another device than the one that asked.

use std::fmt;

use aws_lc_rs::hmac;

use crate::{
    id::LinkId,
    ring::{KeyMaterial, KeySet},
    secret::Secret,
};

/// The characters of a code: no `I`, `L`, `O`, which look like digits, and no `U` (Crockford's base 32).
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters in a code: 40 bits.
const LENGTH: usize = 8;
/// Longest text looked at, in bytes: somebody may put blanks between all characters.
const MAX_BYTES: usize = 64;

/// A code of 40 random bits, as it was typed or is to be mailed. Does not print itself.
#[derive(Clone)]
pub struct Code(Secret<[u8; LENGTH]>);

impl Code {
    /// A code out of 40 random bits.
    pub fn mint(random: [u8; 5]) -> Self {
        let bits = random.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        Self(Secret::new(std::array::from_fn(|at| ALPHABET[usize_of(bits >> (5 * (LENGTH - 1 - at)) & 31)])))
    }

    /// Reads a code as people type it: in any case, with blanks, hyphens and dots anywhere, with the letters that
    /// look like digits for those digits. `None` for everything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_BYTES {
            return None;
        }
        let mut code = [0; LENGTH];
        let mut read = 0;
        // The dashes are those that phones put in place of a hyphen.
        for typed in text.chars().filter(|c| !c.is_whitespace() && !"-‐‑–—.".contains(*c)) {
            let known = match typed.to_ascii_uppercase() {
                'O' => b'0',
                'I' | 'L' => b'1',
                other => u8::try_from(other).ok().filter(|byte| ALPHABET.contains(byte))?,
            };
            *code.get_mut(read)? = known;
            read += 1;
        }
        (read == LENGTH).then(|| Self(Secret::new(code)))
    }

    /// In two groups, for the mail; each call is a place to review.
    pub fn expose(&self) -> String {
        let (one, two) = self.0.expose().split_at(LENGTH / 2);
        [one, b"-", two].concat().into_iter().map(char::from).collect()
    }

    /// What is stored: HMAC-SHA256 under `key` over the link and the code. Without the key nobody who reads the
    /// store can try the 2^40 codes; a code is never looked up by its hash.
    pub fn hash(&self, key: &KeyMaterial, link: LinkId) -> [u8; 32] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()), &self.message(link));
        let mut hash = [0; 32];
        hash.copy_from_slice(tag.as_ref());
        hash
    }

    /// Whether this is the code of `link` that was hashed to `hash` under a key that is still accepted; takes the
    /// same time for every wrong code.
    ///
    /// Not verified: how often somebody has tried, whose browser it is, and the time.
    pub fn matches(&self, keys: &KeySet, link: LinkId, hash: &[u8; 32]) -> bool {
        let message = self.message(link);
        keys.accepted().fold(false, |found, key| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
            found | hmac::verify(&key, &message, hash).is_ok()
        })
    }

    fn message(&self, link: LinkId) -> Vec<u8> {
        [b"typed code v1\0".as_slice(), link.as_uuid().as_bytes(), self.0.expose()].concat()
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(…)")
    }
}

fn usize_of(bits: u64) -> usize {
    usize::try_from(bits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{link::token::tests::ring, time::Timestamp};

    fn link(number: u8) -> LinkId {
        LinkId::mint(Timestamp::from_secs(1_800_000_000), [number; 10])
    }

    #[test]
    fn a_code_is_read_as_people_type_it() {
        let code = Code::mint([0x08, 0x42, 0x10, 0x84, 0x21]);
        assert_eq!(code.expose(), "1111-1111");
        assert_eq!(Code::mint([0xff; 5]).expose(), "ZZZZ-ZZZZ");
        assert_eq!(Code::mint([0x00, 0x44, 0x32, 0x14, 0xc7]).expose(), "0123-4567");
        for typed in ["11111111", "1111 1111", "llll-IIII", " 1-1-1-1 1.1.1.1\n", "1111–1111"] {
            assert_eq!(Code::parse(typed).map(|code| code.expose()).as_deref(), Some("1111-1111"), "{typed}");
        }
        assert_eq!(Code::parse("oO00-zzZZ").map(|code| code.expose()).as_deref(), Some("0000-ZZZZ"));
        for typed in ["", "1111-111", "1111-11111", "1111-111U", "1111-111é", "1111-111\0", &"1".repeat(65)] {
            assert!(Code::parse(typed).is_none(), "{typed}");
        }
    }

    #[test]
    fn every_code_of_a_thousand_reads_back() {
        for n in 0..1_000_u64 {
            let bits = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
            let code = Code::mint([bits[0], bits[1], bits[2], bits[3], bits[4]]);
            assert_eq!(Code::parse(&code.expose().to_lowercase()).unwrap().expose(), code.expose());
        }
    }

    #[test]
    fn a_hash_stands_for_one_code_of_one_link_until_its_key_is_gone() {
        let code = Code::mint([1, 2, 3, 4, 5]);
        let hash = code.hash(ring(&[1]).current(), link(1));
        assert!(code.matches(&ring(&[1]), link(1), &hash));
        assert!(code.matches(&ring(&[2, 1]), link(1), &hash), "a rotated key still verifies");
        assert!(!code.matches(&ring(&[2]), link(1), &hash));
        assert!(!code.matches(&ring(&[1]), link(2), &hash));
        assert!(!Code::mint([1, 2, 3, 4, 6]).matches(&ring(&[1]), link(1), &hash));
        assert!(!format!("{code:?}").contains(&code.expose()[..4]));
    }
}
