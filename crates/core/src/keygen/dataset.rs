//! What a license key says, in the forms that Keygen writes by default.

use serde::Deserialize;

use super::{Problem, parse_time};
use crate::time::Timestamp;

/// The parts of a license key's data that count. A policy may put any text there: then nothing of this is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dataset {
    /// The license.
    pub license: Option<String>,
    /// Account that it belongs to.
    pub account: Option<String>,
    /// Product that it is for. A JWT does not say.
    pub product: Option<String>,
    /// When the license was made.
    pub created_at: Option<Timestamp>,
    /// When it ends, as of the day on which it was made: a key never changes.
    pub expires_at: Option<Timestamp>,
}

#[derive(Default, Deserialize)]
struct Json {
    account: Option<Named>,
    product: Option<Named>,
    license: Option<Named>,
    aud: Option<Audience>,
    sub: Option<String>,
    iat: Option<i64>,
    exp: Option<i64>,
}

#[derive(Deserialize)]
struct Named {
    id: Option<String>,
    created: Option<String>,
    expiry: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Dataset {
    /// Reads the data of a license key whose signature fits: Keygen's default JSON, or the claims of a JWT.
    ///
    /// Not verified: that it is about the license, product and account that are wanted, and any time in it.
    ///
    /// # Errors
    /// [`Problem::Malformed`] for a time or a member of another type than Keygen writes. Text that is no JSON object is
    /// none: it names nothing.
    pub fn read(data: &[u8]) -> Result<Self, Problem> {
        if !data.trim_ascii_start().starts_with(b"{") {
            return Ok(Self::default());
        }
        let json: Json = serde_json::from_slice(data).map_err(|_| Problem::Malformed("what the license key says"))?;
        let time = |text: Option<String>| {
            let read = |text: String| parse_time(&text).ok_or(Problem::Malformed("a time in the license key"));
            text.map(read).transpose()
        };
        let (license, created, expiry) = json.license.map_or((None, None, None), |it| (it.id, it.created, it.expiry));
        let audience = match json.aud {
            Some(Audience::One(name)) => Some(name),
            Some(Audience::Many(names)) if names.len() == 1 => names.into_iter().next(),
            _ => None,
        };
        Ok(Self {
            license: license.or(json.sub),
            account: json.account.and_then(|it| it.id).or(audience),
            product: json.product.and_then(|it| it.id),
            created_at: time(created)?.or(json.iat.map(Timestamp::from_secs)),
            // Of two ends the earlier counts.
            expires_at: match (time(expiry)?, json.exp.map(Timestamp::from_secs)) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_data_names_license_account_product_and_end() {
        let json = r#"{"account":{"id":"a"},"product":{"id":"p"},"policy":{"id":"x","duration":1},"user":null,
            "license":{"id":"l","created":"2026-01-01T00:00:00.000Z","expiry":"2027-01-01T00:00:00.000Z"}}"#;
        let wanted = Dataset {
            license: Some("l".into()),
            account: Some("a".into()),
            product: Some("p".into()),
            created_at: Some(Timestamp::from_secs(1_767_225_600)),
            expires_at: Some(Timestamp::from_secs(1_798_761_600)),
        };
        assert_eq!(Dataset::read(json.as_bytes()), Ok(wanted));
    }

    #[test]
    fn the_claims_of_a_jwt_say_the_same_but_the_product() {
        let json = br#"{"jti":"j","iss":"https://keygen.sh","aud":"a","sub":"l","iat":1,"nbf":1,"exp":2}"#;
        let read = Dataset::read(json).unwrap();
        assert_eq!((read.license.as_deref(), read.account.as_deref(), read.product), (Some("l"), Some("a"), None));
        assert_eq!((read.created_at, read.expires_at), (Some(Timestamp::from_secs(1)), Some(Timestamp::from_secs(2))));
    }

    #[test]
    fn a_text_of_the_policys_own_names_nothing_and_a_bad_time_is_not_taken_for_never() {
        assert_eq!(Dataset::read(b"user@example.com"), Ok(Dataset::default()));
        for bad in [
            r#"{"license":{"id":"l","expiry":"soon"}}"#,
            r#"{"license":{"id":"l","expiry":7}}"#,
            r#"{"exp":"never"}"#,
            "{",
        ] {
            assert!(Dataset::read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
