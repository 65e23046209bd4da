//! Browsers that have signed in before: what one keeps to show it ("device cookie").
//!
//! Whoever is not such a browser shares the limits of a mail address with all other strangers, so those who
//! spend it from elsewhere keep nobody out who has signed in before. The proof admits to nothing else.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    ring::{KeyMaterial, KeySet},
    session::TokenHash,
    user::Email,
};

const NONCE: usize = 16;
const MAC: usize = 32;
/// Length of the text form: base64url of 48 bytes.
const TEXT: usize = 64;

/// Mints what a browser keeps after `email` has signed in there: a random name of the browser, and the MAC that
/// ties it to the address. The address is not in it.
pub fn mint(email: &Email, key: &KeyMaterial, nonce: [u8; NONCE]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()), &message(email, &nonce));
    URL_SAFE_NO_PAD.encode([&nonce, tag.as_ref()].concat())
}

/// The same browser's name under the current key, where `text` is still good for `email`: signing in again is no way
/// to a fresh budget.
pub fn renew(text: &str, email: &Email, keys: &KeySet) -> Option<String> {
    read(text, email, keys).map(|nonce| mint(email, keys.current(), nonce))
}

/// Whether `text` was minted here after `email` had signed in, under a key that is still accepted; gives back the
/// browser's name, hashed.
///
/// Not verified: that nobody else holds a copy, and that the account is what it was.
pub fn check(text: &str, email: &Email, keys: &KeySet) -> Option<TokenHash> {
    read(text, email, keys).map(|nonce| TokenHash::of(&nonce))
}

fn read(text: &str, email: &Email, keys: &KeySet) -> Option<[u8; NONCE]> {
    if text.len() != TEXT {
        return None;
    }
    let mut bytes = [0; NONCE + MAC];
    let read = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
    let (nonce, mac) = bytes.split_first_chunk::<NONCE>().filter(|_| read == NONCE + MAC)?;
    let message = message(email, nonce);
    let is_ours = keys.accepted().fold(false, |found, key| {
        found | hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()), &message, mac).is_ok()
    });
    is_ours.then_some(*nonce)
}

fn message(email: &Email, nonce: &[u8]) -> Vec<u8> {
    [b"known browser v1\0".as_slice(), nonce, email.as_str().as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::token::tests::ring;

    fn email(text: &str) -> Email {
        Email::parse(text).unwrap()
    }

    #[test]
    fn a_browser_is_known_for_the_address_that_signed_in_there_and_no_other() {
        let anna = email("anna@example.com");
        let text = mint(&anna, ring(&[1]).current(), [7; 16]);
        assert_eq!(text.len(), TEXT);
        assert_eq!(check(&text, &anna, &ring(&[1])), Some(TokenHash::of(&[7; 16])));
        assert_eq!(check(&text, &anna, &ring(&[2, 1])), Some(TokenHash::of(&[7; 16])));
        let renewed = renew(&text, &anna, &ring(&[2, 1])).unwrap();
        assert_eq!(check(&renewed, &anna, &ring(&[2])), Some(TokenHash::of(&[7; 16])), "the same name, another key");
        assert_eq!(renew(&text, &email("bert@example.com"), &ring(&[1])), None);
        assert_eq!(check(&text, &email("bert@example.com"), &ring(&[1])), None);
        assert_eq!(check(&text, &anna, &ring(&[3])), None);
        for at in 0..TEXT {
            let other = if &text[at..=at] == "A" { "B" } else { "A" };
            let forged = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert_eq!(check(&forged, &anna, &ring(&[1])), None, "{at}");
        }
        for junk in ["", "A", &"A".repeat(64), &"é".repeat(32), &"A".repeat(10_000)] {
            assert_eq!(check(junk, &anna, &ring(&[1])), None);
        }
    }
}
