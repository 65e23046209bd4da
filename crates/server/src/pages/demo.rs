//! Pages of the demo: the application behind the door, and the mailbox.

use askama::Template;
use doorward_store::Mail;

use super::{
    Site, render,
    text::{Moment, moment},
};

#[derive(Template)]
#[template(path = "demo_app.html")]
struct AppPage<'a> {
    site: &'a Site,
    auth: &'a str,
    public_url: &'a str,
    who: Option<&'a str>,
    identity: &'a [(String, String)],
}

/// The demo application: who is signed in and every identity header that arrived, in order.
///
/// `auth` is Doorward's `base_path`. The page believes the headers, as an app behind Doorward may.
pub fn app(site: &Site, auth: &str, public_url: &str, identity: &[(String, String)]) -> String {
    let value = |wanted: &str| {
        let found = identity.iter().find(|(name, value)| name.eq_ignore_ascii_case(wanted) && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    };
    let who = value("x-doorward-email").or_else(|| value("x-doorward-subject"));
    render(&AppPage { site, auth, public_url, who, identity })
}

struct MailView<'a> {
    id: String,
    to: &'a str,
    subject: &'a str,
    at: Moment,
}

impl<'a> MailView<'a> {
    fn of(mail: &'a Mail) -> Self {
        Self { id: mail.id.to_string(), to: mail.to.as_str(), subject: &mail.subject, at: moment(mail.created_at) }
    }
}

#[derive(Template)]
#[template(path = "mailbox.html")]
struct MailboxPage<'a> {
    site: &'a Site,
    mails: Vec<MailView<'a>>,
}

/// The list of mails, in the order given.
pub fn mailbox(site: &Site, mails: &[Mail]) -> String {
    render(&MailboxPage { site, mails: mails.iter().map(MailView::of).collect() })
}

struct Part<'a> {
    text: &'a str,
    is_link: bool,
}

#[derive(Template)]
#[template(path = "mail.html")]
struct MailPage<'a> {
    site: &'a Site,
    mail: MailView<'a>,
    parts: Vec<Part<'a>>,
}

/// One mail: its plain text, with `http` addresses made into links.
pub fn mail(site: &Site, mail: &Mail) -> String {
    render(&MailPage { site, mail: MailView::of(mail), parts: parts(&mail.text) })
}

/// Cuts a text at its web addresses; the parts put together are the text again.
fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let start = match (rest.find("http://"), rest.find("https://")) {
            (Some(a), Some(b)) => a.min(b),
            (Some(a), None) | (None, Some(a)) => a,
            (None, None) => break,
        };
        let (before, from) = rest.split_at(start);
        let end = from.find(|c: char| c.is_whitespace() || "<>\"'`".contains(c)).unwrap_or(from.len());
        let end = from[..end].trim_end_matches(['.', ',', ';', ':', '!', ')']).len();
        let (link, after) = from.split_at(end);
        parts.push(Part { text: before, is_link: false });
        parts.push(Part { text: link, is_link: true });
        rest = after;
    }
    parts.push(Part { text: rest, is_link: false });
    parts
}

#[derive(Template)]
#[template(path = "mailbox_closed.html")]
struct MailboxClosedPage<'a> {
    site: &'a Site,
    was_used: bool,
}

/// The mailbox to somebody without its key; `was_used` when they brought the key that another browser used.
pub fn mailbox_closed(site: &Site, was_used: bool) -> String {
    render(&MailboxClosedPage { site, was_used })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_mail_are_the_mail() {
        for text in [
            "",
            "no link",
            "Open https://a.test/x?y=z.\nor http://b.test, then\n",
            "http://",
            "https://http://x",
            "see <https://a.test/ü> »",
        ] {
            let parts = parts(text);
            assert_eq!(parts.iter().map(|part| part.text).collect::<String>(), text);
            for part in parts.iter().filter(|part| part.is_link) {
                assert!(part.text.starts_with("http"), "{}", part.text);
            }
        }
    }

    #[test]
    fn a_link_ends_before_the_full_stop() {
        let links: Vec<_> = parts("Go to https://a.test/cb?token=a.b.c. Or (http://b.test/)").into_iter().collect();
        let links: Vec<_> = links.iter().filter(|part| part.is_link).map(|part| part.text).collect();
        assert_eq!(links, ["https://a.test/cb?token=a.b.c", "http://b.test/"]);
    }
}
