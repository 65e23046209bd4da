//! The page on which a person sees where they are signed in.

use askama::Template;
use doorward_core::{id::SessionId, session::Session};
use doorward_gate::flow::mail_text::browser_name;

use super::{
    Site, render,
    text::{Moment, moment},
};

/// A person's sessions, in the order in which they are shown.
#[derive(Clone, Copy, Debug)]
pub struct Sessions<'a> {
    /// Those that are not over.
    pub sessions: &'a [Session],
    /// Whether there are older ones besides.
    pub is_cut: bool,
    /// The one that asks.
    pub current: SessionId,
    /// Its CSRF value, for the forms.
    pub csrf: &'a str,
}

struct Entry {
    id: SessionId,
    is_current: bool,
    device: String,
    address: Option<String>,
    since: Moment,
    used: Moment,
}

#[derive(Template)]
#[template(path = "sessions.html")]
struct SessionsPage<'a> {
    site: &'a Site,
    csrf: &'a str,
    entries: Vec<Entry>,
    has_others: bool,
    is_cut: bool,
}

/// Each session with its device, address and last use, and a button that ends it.
pub fn sessions(site: &Site, page: &Sessions<'_>) -> String {
    let entries: Vec<_> = page.sessions.iter().map(|session| entry(session, page.current)).collect();
    let has_others = entries.iter().any(|entry| !entry.is_current);
    render(&SessionsPage { site, csrf: page.csrf, entries, has_others, is_cut: page.is_cut })
}

fn entry(session: &Session, current: SessionId) -> Entry {
    Entry {
        id: session.id,
        is_current: session.id == current,
        device: session.user_agent.as_deref().and_then(browser_name).unwrap_or_else(|| "An unknown device".to_owned()),
        address: session.ip.map(|ip| ip.to_canonical().to_string()),
        since: moment(session.created_at),
        used: moment(session.last_used_at),
    }
}
