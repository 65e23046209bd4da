//! Verdicts that were good, for tokens that come again.
//!
//! Only grants are kept: a refusal is worked out anew each time. A kept grant holds as long as the key set under
//! which it was found is the one in use, and within the times of the token. It says nothing about revocation: that is
//! judged at every request, as the rules are. Another policy comes with other issuers, which keep nothing yet.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use doorward_core::{
    jose::JwkSet,
    keys::Snapshot,
    time::{Now, Timestamp},
    token::{Claims, TokenPolicy},
};
use quick_cache::{Equivalent, sync::Cache};

use super::VerifiedToken;

/// Longest token that is kept; with the number of entries this bounds the memory.
const MAX_BYTES: usize = 4096;

/// Kept grants of one issuer, by the whole text of the token: two tokens never share a place, whatever their hashes
/// are. Nothing where none are to be kept.
pub(super) struct Kept(Option<Cache<Text<Box<str>>, Arc<VerifiedToken>>>);

/// The text of a token: its hash is that of its end alone, which is its signature and unlike that of any other that was
/// granted; it is compared whole.
struct Text<T>(T);

/// Bytes of the end that are hashed: 92 bits of the signature at least.
const END: usize = 16;

impl<T: AsRef<str>> Hash for Text<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let bytes = self.0.as_ref().as_bytes();
        state.write(bytes.last_chunk::<END>().map_or(bytes, |end| end));
    }
}

impl Equivalent<Text<Box<str>>> for Text<&str> {
    fn equivalent(&self, key: &Text<Box<str>>) -> bool {
        *self.0 == *key.0
    }
}

impl PartialEq for Text<Box<str>> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Text<Box<str>> {}

/// What a grant rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Basis {
    /// The set that held the key.
    pub(super) set: Arc<JwkSet>,
    /// From when until when the verdict cannot change by the passing of time alone.
    pub(super) times: (Timestamp, Timestamp),
}

impl Kept {
    /// For at most `entries` grants.
    pub(super) fn new(entries: usize) -> Self {
        Self((entries > 0).then(|| Cache::new(entries)))
    }

    /// The grant for this very token, if it still holds.
    pub(super) fn find(&self, text: &str, current: &ArcSwapOption<Snapshot>, now: Now) -> Option<Arc<VerifiedToken>> {
        let token = self.0.as_ref().filter(|_| text.len() <= MAX_BYTES)?.get(&Text(text))?;
        let Basis { set, times: (from, until) } = token.basis.as_ref()?;
        let current = current.load();
        let current = current.as_ref().filter(|snapshot| !snapshot.is_stale(now))?;
        let holds = Arc::ptr_eq(current.set(), set) && *from <= now.wall && now.wall < *until;
        holds.then_some(token)
    }

    /// Keeps a grant whose basis is known.
    pub(super) fn keep(&self, text: &str, token: &Arc<VerifiedToken>) {
        if let Some(cache) = self.0.as_ref().filter(|_| text.len() <= MAX_BYTES && token.basis.is_some()) {
            cache.insert(Text(text.into()), Arc::clone(token));
        }
    }
}

/// From when until when the verdict cannot change by the passing of time alone. A token without an end is never granted.
pub(super) fn times(claims: &Claims, policy: &TokenPolicy) -> Option<(Timestamp, Timestamp)> {
    let tolerance = policy.clock_tolerance;
    let mut until = claims.expires_at?.plus(tolerance);
    if let Some(max_age) = policy.max_token_age {
        until = until.min(claims.issued_at?.plus(max_age).plus(tolerance));
    }
    let issuer = claims.issuer.as_deref()?;
    if issuer != policy.issuer {
        let alias = policy.aliases.iter().filter(|alias| alias.issuer == issuer).map(|alias| alias.until).max()?;
        until = until.min(alias);
    }
    let from =
        claims.issued_at.max(claims.not_before).map_or(Timestamp::from_millis(i64::MIN), |at| at.minus(tolerance));
    Some((from, until))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use doorward_core::{
        jose::AlgorithmSet,
        principal::{Authenticated, Principal, PrincipalKind, SubjectId},
        token::IssuerAlias,
    };

    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    fn claims(issuer: &str) -> Claims {
        Claims {
            issuer: Some(issuer.into()),
            issued_at: Some(at(100)),
            not_before: Some(at(110)),
            expires_at: Some(at(1000)),
            ..Claims::default()
        }
    }

    #[test]
    fn a_grant_holds_no_longer_than_any_of_its_limits() {
        let policy = TokenPolicy {
            issuer: "a".into(),
            aliases: vec![IssuerAlias { issuer: "b".into(), until: at(300) }],
            audiences: vec![],
            algorithms: AlgorithmSet::NONE,
            required_claims: vec![],
            clock_tolerance: Duration::from_secs(10),
            max_token_age: None,
            kind: None,
        };
        assert_eq!(times(&claims("a"), &policy), Some((at(100), at(1010))));
        assert_eq!(times(&claims("b"), &policy), Some((at(100), at(300))));
        let aged = TokenPolicy { max_token_age: Some(Duration::from_secs(50)), ..policy };
        assert_eq!(times(&claims("a"), &aged), Some((at(100), at(160))));
        assert_eq!(times(&Claims { expires_at: None, ..claims("a") }, &aged), None);
    }

    fn grant() -> Arc<VerifiedToken> {
        let claims = Arc::new(claims("a"));
        let principal = Principal {
            kind: PrincipalKind::Service,
            subject: SubjectId { issuer: "main".into(), subject: "s".into() },
            user_id: None,
            email: None,
            org_id: None,
            authenticated: Authenticated::Bearer { claims: Arc::clone(&claims) },
            expires_at: claims.expires_at,
        };
        let basis = Some(Basis { set: Arc::default(), times: (at(0), at(1000)) });
        Arc::new(VerifiedToken { issuer: "main".into(), claims, principal: Arc::new(principal), basis })
    }

    #[test]
    fn no_more_is_kept_than_was_agreed_however_many_tokens_come() {
        let (kept, grant) = (Kept::new(100), grant());
        for number in 0..20_000 {
            kept.keep(&format!("{number:0600}"), &grant);
        }
        let cache = kept.0.as_ref().unwrap();
        assert!((1..=100).contains(&cache.len()), "{}", cache.len());
        kept.keep(&"x".repeat(MAX_BYTES + 1), &grant);
        assert!(cache.get(&Text(&*"x".repeat(MAX_BYTES + 1))).is_none(), "too long to be kept");
        // What is kept is found by its whole text only: one byte makes another token.
        let long = format!("a.b.{}", "c".repeat(END));
        kept.keep(&long, &grant);
        assert!(cache.get(&Text(&*long)).is_some());
        for other in [long.replace('a', "b"), long.replace("b.", ""), format!("{long}c"), long[1..].to_owned()] {
            assert!(cache.get(&Text(&*other)).is_none(), "{other}");
        }
    }
}
