//! Pages of the way in and out: login, inbox, callback, signed out.

use std::time::Duration;

use askama::Template;
use doorward_core::{reason::Reason, user::Email};

use super::{Site, render, text};

/// The login page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Login<'a> {
    /// Where to go afterwards; goes into the form as it is and is judged where it is posted.
    pub return_to: &'a str,
    /// What was typed before, if the form comes back.
    pub email: &'a str,
    /// Why the page is shown, where that is worth saying: the session that came is over.
    pub ended: Option<Reason>,
    /// Whether passwords of the old system are still accepted.
    pub with_password: bool,
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage<'a> {
    site: &'a Site,
    page: &'a Login<'a>,
    notice: Option<&'static str>,
}

/// The login page: one field, one button, posts `{base}/login/request-link`.
pub fn login(site: &Site, page: &Login<'_>) -> String {
    render(&LoginPage { site, page, notice: page.ended.map(|reason| reason.shown().text()) })
}

/// The page after asking for a mail. After asking for a link, the same for every address, known or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckInbox<'a> {
    /// The address as typed, so that a typing mistake is seen.
    pub email: &'a str,
    /// Where to go afterwards, for another try.
    pub return_to: &'a str,
    /// How long a link is good for.
    pub link_ttl: Duration,
    /// How long the code in the same mail is good for.
    pub code_ttl: Duration,
    /// Whether mails end in the demo mailbox.
    pub in_demo: bool,
    /// Whether it is somebody who is signed in and proves again who they are: then there is no doubt about the account.
    pub is_re_auth: bool,
}

struct CheckInboxView<'a> {
    email: &'a str,
    is_re_auth: bool,
    valid_for: String,
    code_valid_for: String,
    in_demo: bool,
}

#[derive(Template)]
#[template(path = "check_inbox.html")]
struct CheckInboxPage<'a> {
    site: &'a Site,
    page: CheckInboxView<'a>,
    again: String,
}

/// "Check your inbox", with what to do if nothing comes.
pub fn check_inbox(site: &Site, page: &CheckInbox<'_>) -> String {
    let view = CheckInboxView {
        email: page.email,
        is_re_auth: page.is_re_auth,
        valid_for: text::span(page.link_ttl),
        code_valid_for: text::span(page.code_ttl),
        in_demo: page.in_demo,
    };
    let again = if page.is_re_auth { site.re_auth_href(page.return_to) } else { site.login_href(page.return_to) };
    render(&CheckInboxPage { site, page: view, again })
}

/// The page behind a link, in the browser that asked for it. Showing it consumes nothing.
#[derive(Clone, Copy)]
pub struct Confirm<'a> {
    /// The token of the link; the form posts it.
    pub token: &'a str,
    /// Whom it signs in; shown half-hidden.
    pub email: &'a Email,
    /// Whether a script presses the button. Off leaves the act to the person (OWASP ASVS 7.6.2).
    pub goes_on: bool,
    /// Who is signed in here already; shown half-hidden. Signing in ends that session.
    pub other: Option<&'a Email>,
}

#[derive(Template)]
#[template(path = "confirm.html")]
struct ConfirmPage<'a> {
    site: &'a Site,
    page: &'a Confirm<'a>,
    account: String,
    other: Option<String>,
}

/// One button that signs in; posts `{base}/login/callback`. Not for other browsers than the one that
/// asked: those get [`elsewhere`].
pub fn confirm(site: &Site, page: &Confirm<'_>) -> String {
    render(&ConfirmPage {
        site,
        page,
        account: text::half_hidden(page.email),
        other: page.other.map(text::half_hidden),
    })
}

#[derive(Template)]
#[template(path = "elsewhere.html")]
struct ElsewherePage<'a> {
    site: &'a Site,
    reason: Reason,
    again: String,
}

/// The page behind a link in any other browser: where to go on. It has neither the token nor the
/// address, and no way to sign in by this link.
pub fn elsewhere(site: &Site) -> String {
    render(&ElsewherePage { site, reason: Reason::LinkWrongBrowser, again: site.login_href("/") })
}

#[derive(Template)]
#[template(path = "signed_out.html")]
struct SignedOutPage<'a> {
    site: &'a Site,
}

/// The page after signing out.
pub fn signed_out(site: &Site) -> String {
    render(&SignedOutPage { site })
}
