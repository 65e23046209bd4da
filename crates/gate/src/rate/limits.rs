//! The named limits of the sign-in, and where they are counted.

use std::{
    fmt,
    future::Future,
    net::{IpAddr, Ipv6Addr},
    pin::Pin,
    time::Duration,
};

use doorward_core::{decision::RateBudget, id::UserId, link::Asker, session::TokenHash, user::Email};

use super::{ClientNet, Limiter, Quota};
use crate::clock::Clock;

/// Keys held by each limit in memory.
const KEYS: usize = 65_536;

macro_rules! limits {
    ($($(#[$doc:meta])* $variant:ident = $name:literal $quota:expr, $by:literal, $over:literal;)+) => {
        /// A limit. Its name is what `RateLimit-Policy` says and what audit rows have.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Limit { $($(#[$doc])* $variant,)+ }

        impl Limit {
            /// All limits, in the order of the reference.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// How many.
            pub const fn quota(self) -> Quota {
                match self { $(Self::$variant => $quota,)+ }
            }

            /// Of what: one sentence part for the reference.
            pub const fn counted_by(self) -> &'static str {
                match self { $(Self::$variant => $by,)+ }
            }

            /// What happens over it, for the reference.
            pub const fn over(self) -> &'static str {
                match self { $(Self::$variant => $over,)+ }
            }
        }
    };
}

const TEN_MINUTES: Duration = Duration::from_secs(600);

limits! {
    /// Requests for links from one client (B73).
    LinkPerClient = "link-client" Quota::per_minute(3),
        "client: an IPv4 address or an IPv6 /64", "the same answer as ever, no mail, audited";
    /// Requests for links to one address, from browsers that are strangers to it (B73).
    LinkPerAddress = "link-address" Quota::per_hour(5),
        "mail address, from browsers that have not signed in with it before", "the same answer as ever, no mail, audited";
    /// Requests for links to one address from one browser that has signed in with it before.
    LinkPerBrowser = "link-browser" Quota::per_hour(5),
        "mail address and browser that has signed in with it before; then neither of the two above counts",
        "the same answer as ever, no mail, audited";
    /// Tries to use a link (B73).
    CallbackPerClient = "callback" Quota::per_minute(10), "client", "429 `rate_limited`";
    /// Tries to type a code.
    CodePerClient = "code-client" Quota::per_minute(10), "client", "429 `rate_limited`";
    /// Wrong codes since this browser last asked for a mail, whether or not one was sent.
    CodePerBrowser = "code-browser" Quota::per(5, TEN_MINUTES),
        "browser (login cookie); asking for another mail starts it anew", "429 `rate_limited`, the right code too";
    /// Wrong codes for one user, over all codes, from browsers that are strangers to it.
    CodePerUser = "code-user" Quota::per_hour(20),
        "user, over all codes, in browsers that have not signed in as that user before",
        "401 `code_invalid` whatever is typed: 429 would tell that there is such a user";
    /// Tries to sign in with a password.
    PasswordPerClient = "password-client" Quota::per_minute(10), "client", "429 `rate_limited`";
    /// Tries to sign in with a password to one address; the right password starts it anew. Whoever is shut out of
    /// the password by others still signs in by a link.
    PasswordPerAddress = "password-address" Quota::per_hour(10),
        "mail address, whether or not there is such a user; the right password starts it anew", "429 `rate_limited`";
    /// Mails that prove again who somebody is. They are signed in, so they are told.
    ReAuthPerUser = "reauth-user" Quota::per(5, TEN_MINUTES), "user", "429 `rate_limited`";
    /// Requests for another mail address; each may send a mail to an address of their choice.
    EmailChangePerUser = "email-change-user" Quota::per_hour(5), "user", "429 `rate_limited`";
    /// Webhooks that are not genuine.
    WebhookPerClient = "webhook-client" Quota::per_minute(30),
        "client, counting license webhooks that are not genuine", "429 `rate_limited`, genuine ones too";
}

/// Store look-ups for sessions and API keys that turned out to be nobody's, from one client (rule 8: a refusal is
/// confirmed by the store, bounded per client). Counted in each process for itself, because what it keeps from
/// the store is that process's load.
pub const UNKNOWN_CREDENTIALS: (&str, Quota) = ("unknown-credential", Quota::per_minute(120));

/// What is counted: never the thing itself, so that no counter holds an address.
pub type LimitKey = TokenHash;

impl Limit {
    /// The key of a client.
    pub fn client(ip: IpAddr) -> LimitKey {
        TokenHash::of(&[b"client\0".as_slice(), &ClientNet::of(ip).bytes()].concat())
    }

    /// The key of the client that `asker` is; those without an address share one.
    pub fn client_of(asker: &Asker) -> LimitKey {
        Self::client(asker.ip.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)))
    }

    /// The key of a mail address.
    pub fn address(email: &Email) -> LimitKey {
        TokenHash::of(format!("address\0{email}").as_bytes())
    }

    /// The key of what was typed as a mail address, which may be none.
    pub fn typed(text: &str) -> LimitKey {
        Email::parse(text)
            .map_or_else(|| TokenHash::of(format!("typed\0{text}").as_bytes()), |email| Self::address(&email))
    }

    /// The key of a mail address in one browser.
    pub fn address_in(email: &Email, browser: &TokenHash) -> LimitKey {
        TokenHash::of(&[b"address in\0".as_slice(), browser.as_bytes(), email.as_str().as_bytes()].concat())
    }

    /// The key of a user.
    pub fn user(id: UserId) -> LimitKey {
        TokenHash::of(format!("user\0{id}").as_bytes())
    }
}

/// What came out: what is left, or, as the error, the budget that is spent with its `reset`.
pub type Taken = Result<RateBudget, RateBudget>;

/// The answer of a backend that may have to ask somebody.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where events are counted.
///
/// A call counts and judges in one step, so that callers at once cannot get past a limit together. It
/// cannot fail: a backend that loses its neighbour counts in memory meanwhile, because nobody may be
/// locked out, and no limit may fall, by a neighbour that is down.
pub trait Limits: fmt::Debug + Send + Sync + 'static {
    /// Counts one event of `key`. One that is refused is not counted.
    fn take(&self, limit: Limit, key: LimitKey) -> Answer<'_, Taken>;

    /// Whether one event would fit, without counting it.
    fn look(&self, limit: Limit, key: LimitKey) -> Answer<'_, Taken>;

    /// Forgets what was counted for `key`.
    fn forget(&self, limit: Limit, key: LimitKey) -> Answer<'_, ()>;
}

/// Counts in this process.
#[derive(Debug)]
pub struct MemoryLimits(Vec<Limiter<LimitKey>>);

impl MemoryLimits {
    /// All limits with their own quotas.
    pub fn new(clock: &Clock) -> Self {
        Self::with(clock, Limit::quota)
    }

    /// All limits, with the quotas that `quota` gives them.
    pub fn with(clock: &Clock, quota: impl Fn(Limit) -> Quota) -> Self {
        Self(Limit::ALL.iter().map(|limit| Limiter::new(quota(*limit), KEYS, clock.clone())).collect())
    }

    fn ready<'a, T: Send + 'a>(value: T) -> Answer<'a, T> {
        Box::pin(std::future::ready(value))
    }
}

impl Limits for MemoryLimits {
    fn take(&self, limit: Limit, key: LimitKey) -> Answer<'_, Taken> {
        let limiter = &self.0[limit as usize];
        Self::ready(limiter.told(limit.as_str(), limiter.check(&key)))
    }

    fn look(&self, limit: Limit, key: LimitKey) -> Answer<'_, Taken> {
        let limiter = &self.0[limit as usize];
        Self::ready(limiter.told(limit.as_str(), limiter.has_room(&key)))
    }

    fn forget(&self, limit: Limit, key: LimitKey) -> Answer<'_, ()> {
        self.0[limit as usize].forget(&key);
        Self::ready(())
    }
}
