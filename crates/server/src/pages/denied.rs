//! The page of a refusal: what happened, what to do next, and what to tell the operator.

use std::time::Duration;

use askama::Template;
use doorward_core::{
    decision::Denial,
    id::DecisionId,
    reason::{Reason, Remedy},
};

use super::{Site, render, text};

/// A refusal to show.
#[derive(Clone, Copy, Debug)]
pub struct Denied<'a> {
    /// The refusal; its note for the operator is not shown, a masked reason is shown as its mask.
    pub denial: &'a Denial,
    /// The decision's name; joins this page with the log.
    pub decision: DecisionId,
    /// Path that was asked for, for "try again"; `/` where repeating it makes no sense.
    pub return_to: &'a str,
}

struct Action {
    label: &'static str,
    href: String,
}

#[derive(Template)]
#[template(path = "denied.html")]
struct DeniedPage<'a> {
    site: &'a Site,
    page: &'a Denied<'a>,
    reason: Reason,
    heading: &'static str,
    is_fault: bool,
    /// Whether another code may be typed.
    is_code: bool,
    wait: Option<String>,
    max_age: Option<String>,
    required: Option<&'a str>,
    explanation: Option<&'static str>,
    action: Option<Action>,
}

/// The page of any refusal.
pub fn denied(site: &Site, page: &Denied<'_>) -> String {
    let reason = page.denial.reason.shown();
    let is_masked = reason != page.denial.reason;
    // Extras belong to the exact reason; next to a mask they would give it away.
    let detail = page.denial.detail().filter(|_| !is_masked);
    let seconds = |n: u32| text::span(Duration::from_secs(n.into()));
    render(&DeniedPage {
        site,
        page,
        reason,
        heading: heading(reason),
        is_fault: reason.is_fault() || reason == Reason::RateLimited,
        is_code: reason == Reason::CodeInvalid,
        wait: if is_masked { None } else { page.denial.retry_after().map(seconds) },
        max_age: detail.and_then(|detail| detail.max_age_seconds).map(seconds),
        required: detail.and_then(|detail| detail.required.as_deref()),
        explanation: detail.and_then(|detail| detail.explanation),
        action: action(site, reason.remedy(), page.return_to),
    })
}

/// What to press next; `None` where nothing on a page can help.
fn action(site: &Site, remedy: Remedy, return_to: &str) -> Option<Action> {
    let (label, href) = match remedy {
        Remedy::SignIn => ("Sign in", site.login_href(return_to)),
        Remedy::ReAuthenticate => ("Confirm that it is you", site.re_auth_href(return_to)),
        Remedy::RequestLink => ("Ask for a new link", site.login_href(return_to)),
        Remedy::UseSameBrowser => ("Ask for a new link here", site.login_href(return_to)),
        Remedy::RefreshCsrf => ("Load the page again", text::local(return_to).to_owned()),
        Remedy::RetryLater => ("Try again", text::local(return_to).to_owned()),
        Remedy::FixRequest => ("Go to the start page", "/".to_owned()),
        Remedy::RefreshToken | Remedy::ReplaceKey => return None,
        Remedy::RenewLicense | Remedy::AskOperator | Remedy::None => return None,
    };
    Some(Action { label, href })
}

/// A few words over the reason's own sentence. The match is full: a new reason chooses its heading.
fn heading(reason: Reason) -> &'static str {
    use Reason as R;
    match reason {
        R::NoCredential => "Please sign in",
        R::SessionUnknown | R::SessionIdle | R::SessionExpiredAbsolute | R::SessionRevoked | R::SessionDisconnected => {
            "Your session has ended"
        }
        R::ReAuthRequired => "Please confirm that it is you",
        R::UserBanned => "This account is suspended",

        R::LinkExpired => "This link has expired",
        R::LinkReused => "This link has been used already",
        R::LinkWrongBrowser => "Continue in your other browser",
        R::LinkMismatch => "This account could not be linked",
        R::MissingToken | R::LinkInvalid => "This link does not work",
        R::CodeInvalid => "This code does not work",
        R::PasswordInvalid => "This sign-in did not work",
        R::LegacyLoginDisabled => "Passwords are no longer used here",

        R::CsrfMissing | R::CsrfMismatch => "This page is out of date",
        R::CrossSite => "This request came from another site",

        R::TokenMalformed
        | R::TokenAlgNotAllowed
        | R::TokenKeyMismatch
        | R::TokenUnknownKey
        | R::TokenBadSignature
        | R::TokenExpired
        | R::TokenNotYetValid
        | R::TokenWrongIssuer
        | R::TokenWrongAudience
        | R::TokenWrongType
        | R::TokenMissingClaim
        | R::TokenInvalidClaim
        | R::TokenRevoked
        | R::RefreshExpired
        | R::RefreshRevoked
        | R::RefreshReused
        | R::RefreshNotHere => "This token was not accepted",
        R::ApiKeyNotFound | R::ApiKeyRevoked | R::ApiKeyDeleted | R::ApiKeyExpired => "This API key was not accepted",

        R::LicenseNone
        | R::LicenseExpired
        | R::LicenseExpiredGrace
        | R::LicenseSuspended
        | R::LicenseBanned
        | R::LicenseBlocked
        | R::LicenseInvalid
        | R::LicenseEntitlementMissing => "A license is needed",

        R::MissingCapability
        | R::NotAMember
        | R::MissingScope
        | R::MissingClaim
        | R::RuleDenies
        | R::NoRule
        | R::UntrustedPeer => "You may not go in here",

        R::RequestMalformed
        | R::HostUnknown
        | R::AmbiguousCredential
        | R::PayloadTooLarge
        | R::NoProjectOrRootless
        | R::HostnameRequired
        | R::AuthTimeout
        | R::MethodNotAllowed
        | R::WebhookMissingSignature
        | R::WebhookBadTimestamp
        | R::WebhookBadSignature
        | R::WebhookStale
        | R::WebhookBadPayload => "This request was not understood",
        R::NotFound => "There is nothing here",

        R::RateLimited => "Too many tries",
        R::KeysUnavailable
        | R::LicenseUnknown
        | R::WebhookDisabled
        | R::StoreUnavailable
        | R::SharedUnavailable
        | R::MailUnavailable => "Not available at the moment",
        R::UpstreamUnavailable | R::UpstreamTimeout => "The application does not answer",
        R::Internal => "Something went wrong",
    }
}
