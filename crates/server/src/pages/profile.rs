//! The page that tells a person who they are here.

use std::net::IpAddr;

use askama::Template;
use doorward_core::{principal::SubjectId, session::SignInMethod, time::Timestamp, user::Email};

use super::{
    Site, render,
    text::{Moment, moment},
};

/// A signed-in person's session.
#[derive(Clone, Copy, Debug)]
pub struct Profile<'a> {
    /// Address that signs in; none as long as nobody has proven to read its mail (first administrator, imported
    /// password).
    pub email: Option<&'a Email>,
    /// Subject, as apps see it.
    pub subject: &'a SubjectId,
    /// How it began.
    pub method: SignInMethod,
    /// When it began.
    pub created_at: Timestamp,
    /// When its person last proved who they are.
    pub authenticated_at: Timestamp,
    /// When it ends if it is not used again.
    pub idle_expires_at: Timestamp,
    /// When it ends whatever happens.
    pub expires_at: Timestamp,
    /// The client's address as derived.
    pub client: Option<IpAddr>,
    /// The license that counts for this person, where any does.
    pub license: Option<ProfileLicense>,
}

/// A license as its holder sees it.
#[derive(Clone, Copy, Debug)]
pub struct ProfileLicense {
    /// Its status, in the words of `GET /profile/license`.
    pub status: &'static str,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When reading ends, where only that goes on.
    pub grace_until: Option<Timestamp>,
}

impl ProfileLicense {
    fn words(self) -> &'static str {
        match self.status {
            "active" => "active",
            "expiring" => "active, ends soon",
            "expired" => "has ended",
            "suspended" => "suspended",
            "banned" => "banned",
            "none" => "none",
            _ => "not known at the moment",
        }
    }
}

/// The same, ready for the template.
struct ShownLicense {
    words: &'static str,
    end: Option<Moment>,
    grace: Option<Moment>,
}

#[derive(Template)]
#[template(path = "profile.html")]
struct ProfilePage<'a> {
    site: &'a Site,
    page: &'a Profile<'a>,
    method: &'static str,
    since: Moment,
    proven: Option<Moment>,
    idle_end: Moment,
    end: Moment,
    license: Option<ShownLicense>,
}

/// Who you are, how and since when you are signed in, until when, and the way out.
pub fn profile(site: &Site, page: &Profile<'_>) -> String {
    let method = match page.method {
        // A link in a mail proves its address; this session began with the address that the server printed.
        SignInMethod::MagicLink if page.email.is_none() => "the address for the first administrator",
        SignInMethod::MagicLink => "a link in a mail",
        SignInMethod::Code => "a code in a mail",
        SignInMethod::Oidc => "another sign-in provider",
        SignInMethod::Password => "a password",
    };
    render(&ProfilePage {
        site,
        page,
        method,
        since: moment(page.created_at),
        proven: (page.authenticated_at != page.created_at).then(|| moment(page.authenticated_at)),
        idle_end: moment(page.idle_expires_at.min(page.expires_at)),
        end: moment(page.expires_at),
        license: page.license.map(|license| ShownLicense {
            words: license.words(),
            end: license.expires_at.map(moment),
            grace: license.grace_until.map(moment),
        }),
    })
}
