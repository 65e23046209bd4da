//! The mail with which a signed-in person proves again who they are.

use std::{net::IpAddr, time::Duration};

use super::mail_text::{MailText, asked_from, escape, span};

/// What it says.
pub(super) struct ReAuthMail<'a> {
    pub(super) site: &'a str,
    pub(super) url: &'a str,
    pub(super) valid_for: Duration,
    pub(super) code: &'a str,
    pub(super) code_valid_for: Duration,
    pub(super) ip: Option<IpAddr>,
    pub(super) user_agent: Option<&'a str>,
}

/// Writes it. As in the sign-in mail, no text that a stranger chose and nothing remote.
pub(super) fn text(mail: &ReAuthMail<'_>) -> MailText {
    let ReAuthMail { site, url, code, .. } = *mail;
    let (valid, code_valid) = (span(mail.valid_for), span(mail.code_valid_for));
    let asked = asked_from(mail.ip, mail.user_agent);
    let subject = format!("Confirm that it is you at {site}");
    let text = format!(
        "Confirm that it is you at {site}\n\
         \n\
         Somebody who is signed in as you wants to do something that needs a fresh proof. Open this link in\n\
         that browser:\n\
         \n\
         {url}\n\
         \n\
         It works for {valid} and only once. Or type this code there, within {code_valid}:\n\
         \n\
         {code}\n\
         \n\
         Asked for {asked}.\n\
         If that was not you, somebody else is signed in as you: sign in and end that session. Do not forward\n\
         this mail, and tell nobody the code.\n"
    );
    let html = format!(
        "<!doctype html>\n\
         <html lang=\"en\"><head><meta charset=\"utf-8\"><title>{subject}</title></head>\n\
         <body style=\"margin:0;padding:24px;background:#f4f4f5;color:#18181b;font:16px/1.5 sans-serif\">\n\
         <div style=\"max-width:480px;margin:0 auto;padding:24px;background:#ffffff;border-radius:8px\">\n\
         <h1 style=\"margin:0 0 16px;font-size:20px\">{subject}</h1>\n\
         <p style=\"margin:0 0 16px\">Somebody who is signed in as you wants to do something that needs a fresh \
         proof. Open this link in that browser:</p>\n\
         <p style=\"margin:0 0 16px\"><a href=\"{url}\" style=\"display:inline-block;padding:10px 20px;\
         background:#18181b;color:#ffffff;border-radius:6px;text-decoration:none\">It is me</a></p>\n\
         <p style=\"margin:0 0 8px\">It works for {valid} and only once. Or type this code there, within \
         {code_valid}:</p>\n\
         <p style=\"margin:0 0 16px;font:600 24px/1.5 monospace;letter-spacing:2px\">{code}</p>\n\
         <p style=\"margin:0;font-size:14px;color:#52525b\">Asked for {asked}. If that was not you, somebody else is \
         signed in as you: sign in and end that session. Do not forward this mail, and tell nobody the code.</p>\n\
         </div></body></html>\n",
        subject = escape(&subject),
        url = escape(url),
        asked = escape(&asked),
    );
    MailText { subject, text, html }
}
