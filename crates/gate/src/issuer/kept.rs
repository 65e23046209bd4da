//! Verdicts that were good, for tokens that come again.
//!
//! Only grants are kept: a refusal is worked out anew each time. A kept grant holds as long as the key set under
//! which it was found is the one in use, and within the times of the token.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use doorward_core::{
    jose::JwkSet,
    keys::Snapshot,
    time::{Now, Timestamp},
    token::{Claims, TokenPolicy},
};
use quick_cache::sync::Cache;

use super::VerifiedToken;

/// Longest token that is kept; with [`ENTRIES`] this bounds the memory.
const MAX_BYTES: usize = 4096;
const ENTRIES: usize = 4096;

/// Kept grants of one issuer, by the whole text of the token: two tokens never share a place.
pub(super) struct Kept(Cache<Box<str>, Arc<Entry>>);

struct Entry {
    token: Arc<VerifiedToken>,
    set: Arc<JwkSet>,
    from: Timestamp,
    until: Timestamp,
}

impl Kept {
    pub(super) fn new() -> Self {
        Self(Cache::new(ENTRIES))
    }

    /// The grant for this very token, if it still holds.
    pub(super) fn find(&self, text: &str, current: &ArcSwapOption<Snapshot>, now: Now) -> Option<Arc<VerifiedToken>> {
        let entry = if text.len() > MAX_BYTES { None } else { self.0.get(text) }?;
        let current = current.load();
        let current = current.as_ref().filter(|snapshot| !snapshot.is_stale(now))?;
        let holds = Arc::ptr_eq(current.set(), &entry.set) && entry.from <= now.wall && now.wall < entry.until;
        holds.then(|| Arc::clone(&entry.token))
    }

    /// Keeps a grant that was found with the keys of `set`.
    pub(super) fn keep(&self, text: &str, token: &Arc<VerifiedToken>, set: &Arc<JwkSet>, policy: &TokenPolicy) {
        if text.len() > MAX_BYTES {
            return;
        }
        // A token without an end is never granted.
        let Some((from, until)) = times(&token.claims, policy) else { return };
        let entry = Entry { token: Arc::clone(token), set: Arc::clone(set), from, until };
        self.0.insert(text.into(), Arc::new(entry));
    }
}

/// From when until when the verdict cannot change by the passing of time alone.
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

    use doorward_core::{jose::AlgorithmSet, token::IssuerAlias};

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
}
