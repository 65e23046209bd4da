//! The page on which a signed-in person proves again who they are.

use askama::Template;

use super::{Site, render};

/// Before the mail was asked for.
#[derive(Clone, Copy, Debug)]
pub struct ReAuth<'a> {
    /// Where the mail will go.
    pub email: &'a str,
    /// Where to go afterwards.
    pub return_to: &'a str,
    /// CSRF value of the session, for the form.
    pub csrf: &'a str,
}

#[derive(Template)]
#[template(path = "re_auth.html")]
struct ReAuthPage<'a> {
    site: &'a Site,
    page: &'a ReAuth<'a>,
}

/// One button that asks for the mail; posts `{base}/reauth`.
pub fn re_auth(site: &Site, page: &ReAuth<'_>) -> String {
    render(&ReAuthPage { site, page })
}
