//! What people see: pages as pure functions, data in, HTML text out.
//!
//! No HTTP types, no clock, no store. Every page works without JavaScript, by keyboard, at 320 px and in
//! the dark, and is served under the headers of [`crate::http::harden`], which admit neither inline styles nor inline scripts. All
//! values are escaped by the template engine; addresses that come from outside pass [`text::local`].
//! Where a page tells a refusal, its words are those of [`doorward_core::reason`].

mod assets;
pub mod demo;
mod denied;
mod docs;
mod people;
mod profile;
mod re_auth;
mod sessions;
mod sign_in;
#[cfg(test)]
mod tests;
pub mod text;

use askama::Template;

pub use self::{
    assets::{Asset, assets},
    denied::{Denied, denied},
    docs::docs,
    people::{
        ChangeEmail, ConfirmEmail, EmailAsked, FirstAdmin, change_email, confirm_email, email_asked, first_admin,
    },
    profile::{Profile, ProfileLicense, profile},
    re_auth::{ReAuth, re_auth},
    sessions::{Sessions, sessions},
    sign_in::{CheckInbox, Confirm, Login, check_inbox, confirm, elsewhere, login, signed_out},
};

/// `Content-Type` of every page.
pub const CONTENT_TYPE: &str = "text/html; charset=utf-8";

/// What all pages of one place have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Name in the head and in the title; the host of `public_url`, if nothing better is known.
    pub name: String,
    /// Where the routes and [`assets`] are: `base_path`, no slash at its end.
    pub base: String,
}

impl Site {
    fn asset(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn style(&self) -> String {
        self.asset(&assets::STYLE.path)
    }

    fn script(&self) -> String {
        self.asset(&assets::SCRIPT.path)
    }

    fn icon(&self) -> String {
        self.asset(&assets::ICON.path)
    }

    /// The login page, with the way back; `return_to` is kept only if it is local.
    pub fn login_href(&self, return_to: &str) -> String {
        self.with_way_back("login", return_to)
    }

    /// The page that asks for a fresh proof, likewise.
    fn re_auth_href(&self, return_to: &str) -> String {
        self.with_way_back("reauth", return_to)
    }

    fn with_way_back(&self, page: &str, return_to: &str) -> String {
        match text::local(return_to) {
            "/" => format!("{}/{page}", self.base),
            path => {
                let query: String = url::form_urlencoded::byte_serialize(path.as_bytes()).collect();
                format!("{}/{page}?return_to={query}", self.base)
            }
        }
    }
}

/// Renders a page. The templates write into a `String` and call nothing that fails, so the fallback is
/// for a defect of ours; it says so instead of sending half a page.
fn render(page: &impl Template) -> String {
    page.render().unwrap_or_else(|error| {
        tracing::error!(%error, "a page could not be rendered");
        "<!doctype html><html lang=\"en\"><title>Error</title><h1>This page could not be made</h1>\
         <p>Something went wrong here. Ask whoever runs this installation.</p></html>"
            .to_owned()
    })
}
