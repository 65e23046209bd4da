//! Users, entitlements, errors and keys of an account, as Keygen's documents describe them.

use serde::Deserialize;

use super::{
    Problem,
    resource::{Resource, list, single},
};

/// A user of the account. That there is one proves nothing about who owns the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Their id: the subject, as far as licenses go.
    pub id: String,
    /// Their mail address, as Keygen spells it.
    pub email: Option<String>,
    /// Whether they are banned, and with them the licenses that they own.
    pub is_banned: bool,
}

impl User {
    /// Reads a document whose `data` is a user.
    ///
    /// # Errors
    /// [`Problem::Malformed`].
    pub fn read(json: &str) -> Result<Self, Problem> {
        Self::of(single(json)?)
    }

    /// Reads a document whose `data` is a list of users.
    ///
    /// # Errors
    /// [`Problem::Malformed`].
    pub fn read_list(json: &str) -> Result<Vec<Self>, Problem> {
        list(json)?.into_iter().map(Self::of).collect()
    }

    fn of(resource: Resource) -> Result<Self, Problem> {
        if resource.kind != "users" || resource.id.is_empty() {
            return Err(Problem::Malformed("the type of `data`"));
        }
        let is_banned = resource.attributes.status.as_deref() == Some("BANNED");
        Ok(Self { id: resource.id, email: resource.attributes.email, is_banned })
    }
}

/// The codes in a list of entitlements; one page of it.
///
/// # Errors
/// [`Problem::Malformed`].
pub fn read_entitlements(json: &str) -> Result<Vec<String>, Problem> {
    let code = |resource: Resource| match resource.attributes.code {
        Some(code) if resource.kind == "entitlements" => Ok(code),
        _ => Err(Problem::Malformed("the type of `data`")),
    };
    list(json)?.into_iter().map(code).collect()
}

/// The first error of a refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiError {
    /// `TOKEN_INVALID`, …; often missing.
    pub code: Option<String>,
    /// The sentence for people, in which nothing secret is.
    pub detail: Option<String>,
}

/// Longest text that is taken over from an error, in characters.
const MAX_TEXT: usize = 200;

impl ApiError {
    /// Reads the body of a refusal; what is no such document holds no error.
    pub fn read(json: &str) -> Self {
        #[derive(Deserialize)]
        struct Body {
            errors: Vec<Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            code: Option<String>,
            detail: Option<String>,
        }
        let first = serde_json::from_str(json).ok().and_then(|body: Body| body.errors.into_iter().next());
        let short = |text: String| text.chars().filter(|character| !character.is_control()).take(MAX_TEXT).collect();
        first.map_or_else(Self::default, |first| Self { code: first.code.map(short), detail: first.detail.map(short) })
    }
}

/// The public keys in the account's own document (`data.meta.keys`), as texts for [`AccountKeys`](super::AccountKeys).
///
/// # Errors
/// [`Problem::Malformed`].
pub fn read_account_keys(json: &str) -> Result<Vec<String>, Problem> {
    #[derive(Deserialize)]
    struct Body {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        meta: Meta,
    }
    #[derive(Deserialize)]
    struct Meta {
        keys: Keys,
    }
    /// `ecdsa` came with version 1.6.0 of the server.
    #[derive(Deserialize)]
    struct Keys {
        ed25519: Option<String>,
        rsa2048: Option<String>,
        ecdsa: Option<String>,
    }
    let body: Body = serde_json::from_str(json).map_err(|_| Problem::Malformed("`data.meta.keys`"))?;
    let Keys { ed25519, rsa2048, ecdsa } = body.data.meta.keys;
    Ok([ed25519, rsa2048, ecdsa].into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read_one_by_one_and_as_a_list() {
        let user = r#"{"type":"users","id":"u1","attributes":{"email":"ann@example.com","status":"BANNED"}}"#;
        let read = User::read(&format!(r#"{{"data":{user}}}"#)).unwrap();
        assert_eq!(read, User { id: "u1".to_owned(), email: Some("ann@example.com".to_owned()), is_banned: true });
        assert_eq!(User::read_list(&format!(r#"{{"data":[{user},{user}]}}"#)).unwrap().len(), 2);
        for other in [r#"{"data":{"type":"licenses","id":"l"}}"#, r#"{"data":null}"#, "[]", r#"{"data":[]}"#] {
            assert!(User::read(other).is_err(), "{other}");
        }
    }

    #[test]
    fn entitlements_are_codes_and_nothing_else() {
        let body = r#"{"data":[{"type":"entitlements","id":"1","attributes":{"code":"sso","name":"SSO"}}]}"#;
        assert_eq!(read_entitlements(body), Ok(vec!["sso".to_owned()]));
        assert_eq!(read_entitlements(r#"{"data":[]}"#), Ok(Vec::new()));
        assert!(read_entitlements(r#"{"data":[{"type":"users","id":"1","attributes":{"code":"sso"}}]}"#).is_err());
    }

    #[test]
    fn an_error_has_a_code_a_sentence_or_nothing() {
        let read = ApiError::read(r#"{"errors":[{"title":"t","detail":"no\nway","code":"TOKEN_INVALID"},{}]}"#);
        assert_eq!((read.code.as_deref(), read.detail.as_deref()), (Some("TOKEN_INVALID"), Some("noway")));
        for nothing in ["", "<html>", "{}", r#"{"errors":[]}"#] {
            assert_eq!(ApiError::read(nothing), ApiError::default());
        }
    }

    #[test]
    fn pinned_keys_that_the_account_does_not_show_any_more_are_named() {
        use crate::keygen::{AccountKeys, Algorithm};

        const ONE: &str = "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";
        const OTHER: &str = "e8601e48b69383ba520245fd07971e983d06d22c4257cfd82304601479cee788";
        let body = format!(r#"{{"data":{{"meta":{{"keys":{{"ed25519":"{ONE}","rsa2048":null}}}}}}}}"#);
        let shown = AccountKeys::parse(&read_account_keys(&body).unwrap()).unwrap();
        let pinned = |text: &str| AccountKeys::parse(&[text]).unwrap();
        assert_eq!(pinned(ONE).differing(&shown), []);
        assert_eq!(pinned(OTHER).differing(&shown), [Algorithm::Ed25519]);
        assert!(read_account_keys("{}").is_err());
    }
}
