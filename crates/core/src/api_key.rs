//! API keys: their text, the record and its check.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    decision::Denial,
    id::{ApiKeyId, OrgId, UserId},
    reason::Reason,
    secret::Secret,
    session::TokenHash,
    time::Timestamp,
};

/// What every key of ours begins with.
pub const PREFIX: &str = "dwk_";

/// How many characters of a key may ever be shown again.
pub const SHOWN: usize = 8;

const RANDOM: usize = 32;
const CHECKSUM: usize = 4;

/// A key that has just been made: the only moment at which its text exists here.
#[derive(Debug)]
pub struct MintedKey {
    /// The key, to be shown once.
    pub text: Secret<String>,
    /// What is stored.
    pub hash: TokenHash,
    /// First characters, to recognise it in a list.
    pub prefix: String,
}

/// Mints a key from 32 random bytes: [`PREFIX`], then base64url of the bytes and the first four of
/// SHA-256 over prefix and bytes. The checksum tells a typing error from a revoked key without a
/// question to the store; it protects nothing.
pub fn mint(random: [u8; RANDOM]) -> MintedKey {
    let mut bytes = [0; RANDOM + CHECKSUM];
    bytes[..RANDOM].copy_from_slice(&random);
    bytes[RANDOM..].copy_from_slice(&checksum(&random));
    let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
    MintedKey { hash: TokenHash::of(text.as_bytes()), prefix: shown(&text).to_owned(), text: Secret::new(text) }
}

/// The part of a key that lists may show: [`SHOWN`] characters at most, and of a short imported key
/// not more than a third.
pub fn shown(text: &str) -> &str {
    let length = SHOWN.min(text.chars().count() / 3);
    text.char_indices().nth(length).map_or(text, |(end, _)| &text[..end])
}

/// The hash to look a presented key up by.
///
/// A key of ours has to be whole: exact length, canonical base64url, right checksum. Any other text
/// may be an imported key and is hashed as it is. Not checked here: whether the key exists.
///
/// # Errors
/// `api_key_not_found` for a mutilated key of ours; the store need not be asked.
pub fn hash_presented(text: &str) -> Result<TokenHash, Denial> {
    if let Some(body) = text.strip_prefix(PREFIX) {
        let mut bytes = [0; RANDOM + CHECKSUM];
        let whole = body.len() == (RANDOM + CHECKSUM) / 3 * 4
            && URL_SAFE_NO_PAD.decode_slice(body, &mut bytes) == Ok(RANDOM + CHECKSUM)
            && bytes[RANDOM..] == checksum(&bytes[..RANDOM]);
        if !whole {
            return Err(Denial::from(Reason::ApiKeyNotFound).with_note("api key: checksum or form is wrong"));
        }
    }
    Ok(TokenHash::of(text.as_bytes()))
}

fn checksum(random: &[u8]) -> [u8; CHECKSUM] {
    let mut input = Vec::with_capacity(PREFIX.len() + random.len());
    input.extend_from_slice(PREFIX.as_bytes());
    input.extend_from_slice(random);
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&TokenHash::of(&input).as_bytes()[..CHECKSUM]);
    sum
}

/// Who owns an API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOwner {
    /// A user.
    User(UserId),
    /// An organisation.
    Org(OrgId),
    /// A named program.
    Service(String),
}

/// An API key as the store keeps it. The key itself is nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Public name.
    pub id: ApiKeyId,
    /// SHA-256 of the key.
    pub hash: TokenHash,
    /// Owner.
    pub owner: KeyOwner,
    /// Organisation it is bound to.
    pub org_id: Option<OrgId>,
    /// What a person calls it, 64 bytes at most.
    pub name: String,
    /// First characters, to recognise it in a list: 8 at most.
    pub prefix: String,
    /// What it may do; empty means nothing.
    pub capabilities: BTreeSet<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When it was taken back.
    pub revoked_at: Option<Timestamp>,
    /// When it was removed from lists.
    pub deleted_at: Option<Timestamp>,
    /// When it was last used, as far as written.
    pub last_used_at: Option<Timestamp>,
}

/// Checks that a key is alive. Capabilities are the rule's business.
///
/// # Errors
/// `api_key_deleted`, `api_key_revoked`, `api_key_expired`, in this order.
pub fn check(key: &ApiKey, now: Timestamp) -> Result<(), Denial> {
    if key.deleted_at.is_some() {
        return Err(Reason::ApiKeyDeleted.into());
    }
    if key.revoked_at.is_some() {
        return Err(Reason::ApiKeyRevoked.into());
    }
    if key.expires_at.is_some_and(|end| now >= end) {
        return Err(Reason::ApiKeyExpired.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_key_is_found_by_its_hash_and_shows_eight_characters() {
        let key = mint([7; 32]);
        let text = key.text.expose();
        assert_eq!((text.len(), key.prefix.len()), (52, 8));
        assert!(text.starts_with("dwk_") && text.starts_with(&key.prefix));
        assert_eq!(hash_presented(text), Ok(key.hash));
        assert!(!format!("{key:?}").contains(&text[8..]));
    }

    #[test]
    fn a_mutilated_key_is_refused_without_the_store() {
        let text = mint([7; 32]).text.expose().clone();
        let mut swapped = text.clone().into_bytes();
        swapped.swap(10, 45);
        for wrong in [
            format!("{text}x"),
            text[..51].to_owned(),
            format!("{text}="),
            text.replacen("dwk_", "dwk_x", 1),
            text.to_ascii_uppercase().replacen("DWK_", "dwk_", 1),
            String::from_utf8(swapped).unwrap(),
            "dwk_".to_owned(),
        ] {
            assert_eq!(hash_presented(&wrong).unwrap_err().reason, Reason::ApiKeyNotFound, "{wrong}");
        }
    }

    #[test]
    fn an_imported_key_keeps_its_form_and_shows_a_third_at_most() {
        assert_eq!(hash_presented("rmo_abc"), Ok(TokenHash::of(b"rmo_abc")));
        assert_eq!((shown("rmo_abc"), shown("äöüäöü"), shown("ab"), shown("")), ("rm", "äö", "", ""));
    }
}
