//! The mails about a person's account: a new address to confirm, and the notice to the old one.

use std::{net::IpAddr, time::Duration};

use doorward_core::user::Email;

use super::mail_text::{MailText, asked_from, escape, span};

/// What the mail to the new address says.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConfirmMail<'a> {
    pub(super) site: &'a str,
    pub(super) url: &'a str,
    pub(super) valid_for: Duration,
    pub(super) ip: Option<IpAddr>,
    pub(super) user_agent: Option<&'a str>,
}

/// Writes the mail to the new address.
pub(super) fn confirm(mail: &ConfirmMail<'_>) -> MailText {
    let ConfirmMail { site, url, valid_for, ip, user_agent } = *mail;
    let (valid, asked) = (span(valid_for), asked_from(ip, user_agent));
    let subject = format!("Confirm this address for {site}");
    let text = format!(
        "Confirm this address for {site}\n\
         \n\
         Somebody wants to sign in to {site} with this address from now on. Open this link in the\n\
         browser in which you asked for it, or where you are signed in:\n\
         \n\
         {url}\n\
         \n\
         It works for {valid} and only once.\n\
         \n\
         Asked for {asked}.\n\
         If that was not you, do nothing: nothing changes without this link.\n"
    );
    let body = format!(
        "<p style=\"margin:0 0 16px\">Somebody wants to sign in to {site} with this address from now on. Open this \
         link in the browser in which you asked for it, or where you are signed in:</p>\n\
         <p style=\"margin:0 0 16px\"><a href=\"{url}\" style=\"display:inline-block;padding:10px 20px;\
         background:#18181b;color:#ffffff;border-radius:6px;text-decoration:none\">Look at it</a></p>\n\
         <p style=\"margin:0 0 16px\">It works for {valid} and only once.</p>\n\
         <p style=\"margin:0;font-size:14px;color:#52525b\">Asked for {asked}. If that was not you, do nothing: \
         nothing changes without this link.</p>\n",
        site = escape(site),
        url = escape(url),
        asked = escape(&asked),
    );
    MailText { html: frame(&subject, &body), subject, text }
}

/// Writes the notice to the old address; `shown` is the new one, half-hidden.
pub(super) fn changed(site: &str, shown: &str, ip: Option<IpAddr>, user_agent: Option<&str>) -> MailText {
    let asked = asked_from(ip, user_agent);
    let subject = format!("Your address for {site} was changed");
    let text = format!(
        "Your address for {site} was changed\n\
         \n\
         From now on you sign in with {shown}; this address no longer works. All other sessions\n\
         were ended.\n\
         \n\
         Confirmed {asked}.\n\
         If that was not you, tell whoever runs {site} at once.\n"
    );
    let body = format!(
        "<p style=\"margin:0 0 16px\">From now on you sign in with {shown}; this address no longer works. All other \
         sessions were ended.</p>\n\
         <p style=\"margin:0;font-size:14px;color:#52525b\">Confirmed {asked}. If that was not you, tell whoever runs \
         {site} at once.</p>\n",
        shown = escape(shown),
        asked = escape(&asked),
        site = escape(site),
    );
    MailText { html: frame(&subject, &body), subject, text }
}

pub(super) fn frame(subject: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n\
         <html lang=\"en\"><head><meta charset=\"utf-8\"><title>{subject}</title></head>\n\
         <body style=\"margin:0;padding:24px;background:#f4f4f5;color:#18181b;font:16px/1.5 sans-serif\">\n\
         <div style=\"max-width:480px;margin:0 auto;padding:24px;background:#ffffff;border-radius:8px\">\n\
         <h1 style=\"margin:0 0 16px;font-size:20px\">{subject}</h1>\n{body}</div></body></html>\n",
        subject = escape(subject),
    )
}

/// An address of which its owner recognises enough and a stranger learns little.
pub(super) fn half_hidden(email: &Email) -> String {
    let (local, domain) = email.as_str().split_once('@').unwrap_or((email.as_str(), ""));
    format!("{}***@{domain}", local.chars().next().unwrap_or('*'))
}
