//! The one table of refusals.
//!
//! Bodies, headers, WebSocket closes, logs, metric labels, audit rows, OpenAPI and
//! `docs/reference/reasons.md` all come from here. Codes are append-only: a code that has shipped is
//! never renamed or given another meaning.

use std::fmt;

/// What the caller can do about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Remedy {
    /// Send a well-formed request.
    FixRequest,
    /// Sign in.
    SignIn,
    /// Prove again who you are, then repeat the request.
    ReAuthenticate,
    /// Ask for a new sign-in link.
    RequestLink,
    /// Go back to the browser that asked for the link.
    UseSameBrowser,
    /// Get a new token from the issuer.
    RefreshToken,
    /// Use another API key, or have this one replaced.
    ReplaceKey,
    /// Get a fresh CSRF token (`GET /session`) and repeat the request.
    RefreshCsrf,
    /// Repeat later, after `Retry-After`.
    RetryLater,
    /// Renew or extend the license.
    RenewLicense,
    /// Ask whoever runs this installation.
    AskOperator,
    /// Nothing; the answer is final.
    None,
}

impl Remedy {
    /// All remedies.
    pub const ALL: &'static [Self] = &[
        Self::FixRequest,
        Self::SignIn,
        Self::ReAuthenticate,
        Self::RequestLink,
        Self::UseSameBrowser,
        Self::RefreshToken,
        Self::ReplaceKey,
        Self::RefreshCsrf,
        Self::RetryLater,
        Self::RenewLicense,
        Self::AskOperator,
        Self::None,
    ];

    /// The word in the body.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FixRequest => "fix_request",
            Self::SignIn => "sign_in",
            Self::ReAuthenticate => "re_authenticate",
            Self::RequestLink => "request_link",
            Self::UseSameBrowser => "use_same_browser",
            Self::RefreshToken => "refresh_token",
            Self::ReplaceKey => "replace_key",
            Self::RefreshCsrf => "refresh_csrf",
            Self::RetryLater => "retry_later",
            Self::RenewLicense => "renew_license",
            Self::AskOperator => "ask_operator",
            Self::None => "none",
        }
    }

    /// One sentence for people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::FixRequest => "Correct the request and send it again.",
            Self::SignIn => "Sign in.",
            Self::ReAuthenticate => "Prove again who you are, then repeat the request.",
            Self::RequestLink => "Ask for a new sign-in link.",
            Self::UseSameBrowser => "Go back to the browser that asked for the link and open the link there.",
            Self::RefreshToken => "Get a new token from its issuer.",
            Self::ReplaceKey => "Use another API key, or have this one replaced.",
            Self::RefreshCsrf => {
                "Get a fresh CSRF token, from GET /session or by loading the page again, and repeat the request."
            }
            Self::RetryLater => "Try again later.",
            Self::RenewLicense => "Renew or extend the license.",
            Self::AskOperator => "Ask whoever runs this installation.",
            Self::None => "There is nothing to be done about this answer.",
        }
    }
}

/// How much of a reason a caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// Code and text are shown.
    Public,
    /// The caller is told another reason; logs, audit and `explain` have the exact one.
    Masked(Reason),
}

/// A WebSocket close code (RFC 6455 §7.4) for a refusal on an open socket.
pub type CloseCode = u16;

macro_rules! reasons {
    ($(
        $(#[$doc:meta])*
        $variant:ident = $code:literal $status:literal $error:literal $bearer:tt $close:literal
            $remedy:ident $retry:literal $exposure:tt $text:literal;
    )+) => {
        /// Why a request was refused. One row of the table per variant.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* #[doc = ""] #[doc = $text] $variant,)+ }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The exact code: `reason` in the body, `X-Doorward-Reason`, metric label, close text.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// HTTP status.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// The coarse word: `error` in the body.
            pub const fn error(self) -> &'static str {
                match self { $(Self::$variant => $error,)+ }
            }

            /// The word of RFC 6750 §3.1 in `WWW-Authenticate`; `None` where no credential was judged.
            pub const fn bearer_error(self) -> Option<&'static str> {
                match self { $(Self::$variant => reasons!(@bearer $bearer),)+ }
            }

            /// The close code when this ends or refuses a WebSocket.
            pub const fn close_code(self) -> CloseCode {
                match self { $(Self::$variant => $close,)+ }
            }

            /// What the caller can do.
            pub const fn remedy(self) -> Remedy {
                match self { $(Self::$variant => Remedy::$remedy,)+ }
            }

            /// Whether the same caller can succeed with the same request: later, or at once with what the
            /// refusal brought along.
            pub const fn is_retryable(self) -> bool {
                match self { $(Self::$variant => $retry,)+ }
            }

            /// How much of it a caller is told.
            pub const fn exposure(self) -> Exposure {
                match self { $(Self::$variant => reasons!(@exposure $exposure),)+ }
            }

            /// One sentence for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// Reads a code back.
            pub fn parse(code: &str) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }
        }
    };
    (@bearer -) => { None };
    (@bearer $word:literal) => { Some($word) };
    (@exposure public) => { Exposure::Public };
    (@exposure (as $other:ident)) => { Exposure::Masked(Reason::$other) };
}

reasons! {
    // variant = code status error rfc6750 close remedy retryable exposure text
    /// The request itself.
    RequestMalformed = "request_malformed" 400 "bad_request" "invalid_request" 4001 FixRequest false public
        "The request is malformed or can be read in more than one way.";
    /// The `Host` is none of ours.
    HostUnknown = "host_unknown" 421 "misdirected" - 4001 FixRequest false public
        "This server does not answer for that host.";
    /// Nothing was presented that the rule looks at.
    NoCredential = "no_credential" 401 "unauthorized" - 4001 SignIn false public
        "No credential was presented.";
    /// Two of one kind.
    AmbiguousCredential = "ambiguous_credential" 400 "bad_request" "invalid_request" 4001 FixRequest false public
        "More than one credential of the same kind was presented.";
    /// Body over a limit.
    PayloadTooLarge = "payload_too_large" 413 "payload_too_large" - 4001 FixRequest false public
        "The request is larger than this route allows.";

    /// Not a compact JWS of our profile.
    TokenMalformed = "token_malformed" 401 "unauthorized" "invalid_token" 4001 RefreshToken false public
        "The token is not a well-formed signed JWT.";
    /// Algorithm outside the issuer's list.
    TokenAlgNotAllowed = "token_alg_not_allowed" 401 "unauthorized" "invalid_token" 4001 RefreshToken false public
        "The token's algorithm is not allowed for its issuer.";
    /// Algorithm and key do not belong together.
    TokenKeyMismatch = "token_key_mismatch" 401 "unauthorized" "invalid_token" 4001 RefreshToken false public
        "The token's algorithm does not fit the key that it names.";
    /// No key of that id.
    TokenUnknownKey = "token_unknown_key" 401 "unauthorized" "invalid_token" 4001 RefreshToken false public
        "The token names a key that its issuer does not publish.";
    /// Signature does not verify.
    TokenBadSignature = "token_bad_signature" 401 "unauthorized" "invalid_token" 4001 RefreshToken false public
        "The token's signature does not verify.";
    /// `exp` has passed.
    TokenExpired = "token_expired" 401 "unauthorized" "invalid_token" 4001 RefreshToken false public
        "The token has expired.";
    /// `nbf` or `iat` lies ahead.
    TokenNotYetValid = "token_not_yet_valid" 401 "unauthorized" "invalid_token" 4001 RefreshToken false public
        "The token is not valid yet.";
    /// `iss` is none of ours.
    TokenWrongIssuer = "token_wrong_issuer" 401 "unauthorized" "invalid_token" 4001 RefreshToken false public
        "The token comes from an issuer that is not accepted here.";
    /// `aud` does not name us.
    TokenWrongAudience = "token_wrong_audience" 401 "unauthorized" "invalid_token" 4001 RefreshToken false public
        "The token is meant for another audience.";
    /// `typ` is another kind of token.
    TokenWrongType = "token_wrong_type" 401 "unauthorized" "invalid_token" 4001 RefreshToken false public
        "The token is of another type than this issuer's access tokens.";
    /// A required claim is absent.
    TokenMissingClaim = "token_missing_claim" 401 "unauthorized" "invalid_token" 4001 RefreshToken false public
        "The token lacks a required claim.";
    /// A claim has the wrong type or value.
    TokenInvalidClaim = "token_invalid_claim" 401 "unauthorized" "invalid_token" 4001 RefreshToken false public
        "A claim of the token has the wrong type or an impossible value.";
    /// On the blocklist.
    TokenRevoked = "token_revoked" 401 "unauthorized" "invalid_token" 4003 RefreshToken false public
        "The token or its subject has been revoked.";
    /// The issuer's keys cannot be had now.
    KeysUnavailable = "keys_unavailable" 503 "unavailable" - 4003 RetryLater true public
        "The issuer's keys cannot be had at the moment, so the token cannot be judged.";

    /// No such session.
    SessionUnknown = "session_unknown" 401 "unauthorized" - 4001 SignIn false public
        "The session is not known, or has ended.";
    /// Idle limit.
    SessionIdle = "session_idle" 401 "unauthorized" - 4003 SignIn false public
        "The session was not used for too long.";
    /// Absolute limit.
    SessionExpiredAbsolute = "session_expired_absolute" 401 "unauthorized" - 4003 SignIn false public
        "The session has reached its longest lifetime.";
    /// Ended by somebody.
    SessionRevoked = "session_revoked" 401 "unauthorized" - 4003 SignIn false public
        "The session has been revoked.";
    /// The user may not sign in.
    UserBanned = "user_banned" 403 "forbidden" - 4003 AskOperator false public
        "This account has been suspended.";

    /// No CSRF header.
    CsrfMissing = "csrf_missing" 403 "csrf_failed" - 4001 RefreshCsrf true public
        "The request changes something and carries no CSRF token.";
    /// CSRF header of another session.
    CsrfMismatch = "csrf_mismatch" 403 "csrf_failed" - 4001 RefreshCsrf false public
        "The CSRF token does not belong to this session.";
    /// Another site sent it.
    CrossSite = "cross_site" 403 "csrf_failed" - 4001 FixRequest false public
        "The request was sent by another site.";

    /// Sign-in too old for this.
    ReAuthRequired = "re_auth_required" 401 "re_auth_required" - 4001 ReAuthenticate false public
        "This needs a recent sign-in.";
    /// No `token` in the form.
    MissingToken = "missing_token" 400 "bad_request" - 4001 RequestLink false public
        "The sign-in link carries no token.";
    /// Not a link of ours, or void.
    LinkInvalid = "link_invalid" 401 "unauthorized" - 4001 RequestLink false public
        "The sign-in link is not valid.";
    /// Too old.
    LinkExpired = "link_expired" 401 "unauthorized" - 4001 RequestLink false public
        "The sign-in link has expired.";
    /// Another browser asked for it.
    LinkWrongBrowser = "link_wrong_browser" 403 "forbidden" - 4001 UseSameBrowser false public
        "The sign-in link was asked for in another browser.";
    /// Second use.
    LinkReused = "link_reused" 409 "link_reused" - 4001 RequestLink false public
        "The sign-in link has already been used.";
    /// The license provider knows another subject for this address.
    LinkMismatch = "link_mismatch" 409 "link_mismatch" - 4001 AskOperator false public
        "The account could not be linked: the address belongs to another subject.";
    /// Wrong code.
    CodeInvalid = "code_invalid" 401 "unauthorized" - 4001 RequestLink false public
        "The code is not valid.";
    /// No such address, or not its password; nobody is told which.
    PasswordInvalid = "password_invalid" 401 "unauthorized" - 4001 RequestLink false public
        "Mail address or password is not right.";
    /// The soak window is closed.
    LegacyLoginDisabled = "legacy_login_disabled" 410 "gone" - 4001 RequestLink false public
        "Passwords and tokens of the old system are no longer accepted here.";

    /// No such key.
    ApiKeyNotFound = "api_key_not_found" 401 "unauthorized" "invalid_token" 4001 ReplaceKey false public
        "The API key is not known.";
    /// Taken back.
    ApiKeyRevoked = "api_key_revoked" 401 "unauthorized" "invalid_token" 4001 ReplaceKey false public
        "The API key has been revoked.";
    /// Removed.
    ApiKeyDeleted = "api_key_deleted" 401 "unauthorized" "invalid_token" 4001 ReplaceKey false public
        "The API key has been deleted.";
    /// Past its end.
    ApiKeyExpired = "api_key_expired" 401 "unauthorized" "invalid_token" 4001 ReplaceKey false public
        "The API key has expired.";
    /// Key without the right.
    MissingCapability = "missing_capability" 403 "forbidden" "insufficient_scope" 4001 ReplaceKey false public
        "The API key lacks the capability that this needs.";
    /// Agent frame without a place to work.
    NoProjectOrRootless = "no_project_or_rootless" 401 "unauthorized" - 4001 FixRequest false public
        "The agent named neither a project nor rootless sessions.";
    /// The user disconnected this agent.
    SessionDisconnected = "session_disconnected" 401 "unauthorized" - 4002 RetryLater true public
        "The user has disconnected this agent; it may come back after a pause.";
    /// Agent frame without host name.
    HostnameRequired = "hostname_required" 401 "unauthorized" - 4001 FixRequest false public
        "The agent named no host.";
    /// No auth frame in time.
    AuthTimeout = "auth_timeout" 401 "unauthorized" - 4000 FixRequest true public
        "No credential arrived in time.";

    /// No license at all.
    LicenseNone = "license_none" 402 "license_required" - 4003 RenewLicense false public
        "There is no license.";
    /// Past expiry and grace.
    LicenseExpired = "license_expired" 402 "license_required" - 4003 RenewLicense false public
        "The license has expired.";
    /// In grace, and this is a write.
    LicenseExpiredGrace = "license_expired_grace" 402 "license_required" - 4003 RenewLicense false public
        "The license has expired; during the grace period only reading is allowed.";
    /// Suspended.
    LicenseSuspended = "license_suspended" 402 "license_required" - 4003 RenewLicense false public
        "The license is suspended.";
    /// Banned.
    LicenseBanned = "license_banned" 402 "license_required" - 4003 AskOperator false public
        "The license is banned.";
    /// Blocklisted.
    LicenseBlocked = "license_blocked" 402 "license_required" - 4003 AskOperator false public
        "The license is blocked.";
    /// Does not verify.
    LicenseInvalid = "license_invalid" 402 "license_required" - 4003 RenewLicense false public
        "The license is not valid.";
    /// Entitlement not included.
    LicenseEntitlementMissing = "license_entitlement_missing" 402 "license_required" - 4003 RenewLicense false public
        "The license does not include what this needs.";
    /// Cannot be told now.
    LicenseUnknown = "license_unknown" 503 "unavailable" - 4003 RetryLater true public
        "The state of the license cannot be told at the moment.";

    /// Refresh token too old.
    RefreshExpired = "refresh_expired" 401 "unauthorized" "invalid_token" 4001 SignIn false public
        "The refresh token has expired.";
    /// Refresh token taken back.
    RefreshRevoked = "refresh_revoked" 401 "unauthorized" "invalid_token" 4001 SignIn false public
        "The refresh token has been revoked.";
    /// Refresh token used twice.
    RefreshReused = "refresh_reused" 401 "unauthorized" "invalid_token" 4001 SignIn false public
        "The refresh token was used before; its family has been revoked.";
    /// No refresh on this kind of request.
    RefreshNotHere = "refresh_not_here" 401 "unauthorized" "invalid_token" 4001 RefreshToken true public
        "The access token has expired and cannot be refreshed on this kind of request.";

    /// Not in the organisation.
    NotAMember = "not_a_member" 403 "forbidden" - 4001 AskOperator false public
        "The caller is not a member of the organisation.";
    /// Scope not granted.
    MissingScope = "missing_scope" 403 "forbidden" "insufficient_scope" 4001 RefreshToken false public
        "The token lacks the scope that this needs.";
    /// Claim not as the rule asks.
    MissingClaim = "missing_claim" 403 "forbidden" "insufficient_scope" 4001 AskOperator false public
        "The credential does not carry the claim that this needs.";
    /// The rule does not admit this.
    RuleDenies = "rule_denies" 403 "forbidden" - 4001 FixRequest false public
        "The rule for this path does not allow the request.";
    /// Nothing matches.
    NoRule = "no_rule" 403 "forbidden" - 4001 AskOperator false public
        "No rule admits this path.";
    /// Forward-auth asked by somebody else.
    UntrustedPeer = "untrusted_peer" 403 "forbidden" - 4001 AskOperator false (as NotFound)
        "The forward-auth routes answer trusted proxies only.";

    /// Webhook without a secret.
    WebhookDisabled = "webhook_disabled" 503 "unavailable" - 4001 AskOperator false public
        "This webhook is not configured.";
    /// No signature.
    WebhookMissingSignature = "webhook_missing_signature" 401 "unauthorized" - 4001 FixRequest false public
        "The webhook carries no signature.";
    /// Timestamp unreadable.
    WebhookBadTimestamp = "webhook_bad_timestamp" 401 "unauthorized" - 4001 FixRequest false public
        "The webhook's timestamp is missing or unreadable.";
    /// Signature wrong.
    WebhookBadSignature = "webhook_bad_signature" 401 "unauthorized" - 4001 FixRequest false public
        "The webhook's signature does not verify.";
    /// Too old or too new.
    WebhookStale = "webhook_stale" 401 "unauthorized" - 4001 FixRequest false public
        "The webhook's timestamp lies outside the window.";
    /// Body unreadable.
    WebhookBadPayload = "webhook_bad_payload" 400 "bad_request" - 4001 FixRequest false public
        "The webhook's payload cannot be read.";

    /// Too many.
    RateLimited = "rate_limited" 429 "rate_limited" - 4001 RetryLater true public
        "Too many requests.";

    /// The store does not answer.
    StoreUnavailable = "store_unavailable" 503 "unavailable" - 4003 RetryLater true public
        "The store does not answer at the moment.";
    /// Redis or blocklist do not answer.
    SharedUnavailable = "shared_unavailable" 503 "unavailable" - 4003 RetryLater true public
        "The revocation state is not fresh enough to let this through.";
    /// Mail does not leave.
    MailUnavailable = "mail_unavailable" 503 "unavailable" - 4001 RetryLater true public
        "Mail cannot be sent at the moment.";
    /// The app does not answer.
    UpstreamUnavailable = "upstream_unavailable" 502 "unavailable" - 4001 RetryLater true public
        "The application behind this door does not answer.";
    /// The app is too slow.
    UpstreamTimeout = "upstream_timeout" 504 "unavailable" - 4001 RetryLater true public
        "The application behind this door did not answer in time.";
    /// Our fault.
    Internal = "internal" 500 "internal" - 4001 AskOperator true public
        "Something went wrong here.";

    /// No such route of ours.
    NotFound = "not_found" 404 "not_found" - 4001 FixRequest false public
        "There is nothing at this address.";
    /// The route has other methods.
    MethodNotAllowed = "method_not_allowed" 405 "method_not_allowed" - 4001 FixRequest false public
        "This address does not answer that method.";
}

impl Reason {
    /// The reason that a caller is told: itself, or what masks it.
    pub const fn shown(self) -> Self {
        match self.exposure() {
            Exposure::Public => self,
            Exposure::Masked(other) => other,
        }
    }

    /// Whether it is about a license.
    pub const fn is_license(self) -> bool {
        matches!(
            self,
            Self::LicenseNone
                | Self::LicenseExpired
                | Self::LicenseExpiredGrace
                | Self::LicenseSuspended
                | Self::LicenseBanned
                | Self::LicenseBlocked
                | Self::LicenseInvalid
                | Self::LicenseEntitlementMissing
                | Self::LicenseUnknown
        )
    }

    /// Whether this is a fault of ours or a neighbour's rather than the caller's situation.
    pub const fn is_fault(self) -> bool {
        self.status() >= 500
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_reads_back_and_stands_once() {
        let mut seen = HashSet::new();
        for &reason in Reason::ALL {
            assert!(seen.insert(reason.code()), "{reason} stands twice");
            assert_eq!(Reason::parse(reason.code()), Some(reason));
            assert!(reason.code().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{reason}");
        }
    }

    #[test]
    fn a_close_text_fits_a_close_frame_and_a_mask_is_not_masked() {
        for &reason in Reason::ALL {
            assert!(reason.code().len() <= 123, "{reason}");
            assert_eq!(reason.shown().exposure(), Exposure::Public, "{reason}");
        }
    }

    #[test]
    fn faults_say_when_to_come_back() {
        for &reason in Reason::ALL {
            if reason.status() == 429 || reason.is_fault() && reason != Reason::WebhookDisabled {
                assert!(reason.is_retryable(), "{reason}");
            }
        }
    }
}
