//! Pages about a person's account: another mail address, and the first administrator.

use std::time::Duration;

use askama::Template;
use doorward_core::user::Email;

use super::{Site, render, text};

/// The page that asks for another mail address.
#[derive(Clone, Copy, Debug)]
pub struct ChangeEmail<'a> {
    /// CSRF value of the session, for the form.
    pub csrf: &'a str,
}

#[derive(Template)]
#[template(path = "change_email.html")]
struct ChangeEmailPage<'a> {
    site: &'a Site,
    csrf: &'a str,
}

/// One field, one button; posts `{base}/profile/email`.
pub fn change_email(site: &Site, page: &ChangeEmail<'_>) -> String {
    render(&ChangeEmailPage { site, csrf: page.csrf })
}

/// The page after asking. The same for every address.
#[derive(Clone, Copy, Debug)]
pub struct EmailAsked<'a> {
    /// The address as typed, so that a typing mistake is seen.
    pub email: &'a str,
    /// How long a link is good for.
    pub link_ttl: Duration,
}

#[derive(Template)]
#[template(path = "email_asked.html")]
struct EmailAskedPage<'a> {
    site: &'a Site,
    email: &'a str,
    valid_for: String,
}

/// "Check the new inbox", with what to do if nothing comes.
pub fn email_asked(site: &Site, page: &EmailAsked<'_>) -> String {
    render(&EmailAskedPage { site, email: page.email, valid_for: text::span(page.link_ttl) })
}

/// The page behind the link to the new address. Showing it consumes nothing.
#[derive(Clone, Copy)]
pub struct ConfirmEmail<'a> {
    /// The token of the link; the form posts it.
    pub token: &'a str,
    /// The new address.
    pub email: &'a Email,
}

#[derive(Template)]
#[template(path = "confirm_email.html")]
struct ConfirmEmailPage<'a> {
    site: &'a Site,
    page: &'a ConfirmEmail<'a>,
}

/// One button that takes the address; posts `{base}/profile/email/confirm`.
pub fn confirm_email(site: &Site, page: &ConfirmEmail<'_>) -> String {
    render(&ConfirmEmailPage { site, page })
}

/// The page behind the address that `serve` prints. Showing it consumes nothing.
#[derive(Clone, Copy)]
pub struct FirstAdmin<'a> {
    /// The token; the form posts it.
    pub token: &'a str,
}

#[derive(Template)]
#[template(path = "first_admin.html")]
struct FirstAdminPage<'a> {
    site: &'a Site,
    page: &'a FirstAdmin<'a>,
}

/// One field, one button; posts `{base}/first-admin`.
pub fn first_admin(site: &Site, page: &FirstAdmin<'_>) -> String {
    render(&FirstAdminPage { site, page })
}
