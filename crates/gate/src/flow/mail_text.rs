//! The texts of our mails, as plain text and as HTML.
//!
//! No remote content and no text that a stranger chose: whoever asks for a link for somebody else's
//! address decides nothing of what that person reads except one IP address and one browser name out of
//! a closed list.

use std::{fmt::Write as _, net::IpAddr, time::Duration};

/// A mail's subject and both parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailText {
    /// Subject line.
    pub subject: String,
    /// Plain text part.
    pub text: String,
    /// HTML part.
    pub html: String,
}

/// What the sign-in mail says.
#[derive(Clone, Copy, Debug)]
pub struct MagicLinkMail<'a> {
    /// The host that people know the product by.
    pub site: &'a str,
    /// The link.
    pub url: &'a str,
    /// How long it works.
    pub valid_for: Duration,
    /// The code, as it is shown.
    pub code: &'a str,
    /// How long the code works.
    pub code_valid_for: Duration,
    /// Address of whoever asked.
    pub ip: Option<IpAddr>,
    /// `User-Agent` of whoever asked; only its family is shown.
    pub user_agent: Option<&'a str>,
}

/// Writes the sign-in mail.
pub fn magic_link(mail: &MagicLinkMail<'_>) -> MailText {
    let site = mail.site;
    let url = mail.url;
    let valid = span(mail.valid_for);
    let (code, code_valid) = (mail.code, span(mail.code_valid_for));
    let asked = asked_from(mail.ip, mail.user_agent);
    let subject = format!("Sign in to {site}");
    let text = format!(
        "Sign in to {site}\n\
         \n\
         Open this link in the browser in which you asked for it:\n\
         \n\
         {url}\n\
         \n\
         It works for {valid} and only once.\n\
         \n\
         You read this on another device? Then type this code there, where you asked for it:\n\
         \n\
         {code}\n\
         \n\
         It works for {code_valid}.\n\
         \n\
         Asked for {asked}.\n\
         If that was not you, do nothing: nobody is signed in without this link or code, and they do not\n\
         work in another browser. Do not forward this mail, and tell nobody the code.\n"
    );
    let html = format!(
        "<!doctype html>\n\
         <html lang=\"en\"><head><meta charset=\"utf-8\"><title>{subject}</title></head>\n\
         <body style=\"margin:0;padding:24px;background:#f4f4f5;color:#18181b;font:16px/1.5 sans-serif\">\n\
         <div style=\"max-width:480px;margin:0 auto;padding:24px;background:#ffffff;border-radius:8px\">\n\
         <h1 style=\"margin:0 0 16px;font-size:20px\">Sign in to {site}</h1>\n\
         <p style=\"margin:0 0 16px\">Open this link in the browser in which you asked for it:</p>\n\
         <p style=\"margin:0 0 16px\"><a href=\"{url}\" style=\"display:inline-block;padding:10px 20px;\
         background:#18181b;color:#ffffff;border-radius:6px;text-decoration:none\">Sign in</a></p>\n\
         <p style=\"margin:0 0 16px\">It works for {valid} and only once.</p>\n\
         <p style=\"margin:0 0 8px\">You read this on another device? Then type this code there, where you asked \
         for it:</p>\n\
         <p style=\"margin:0 0 8px;font:600 24px/1.5 monospace;letter-spacing:2px\">{code}</p>\n\
         <p style=\"margin:0 0 16px\">It works for {code_valid}.</p>\n\
         <p style=\"margin:0;font-size:14px;color:#52525b\">Asked for {asked}. If that was not you, do nothing: \
         nobody is signed in without this link or code, and they do not work in another browser. \
         Do not forward this mail, and tell nobody the code.</p>\n\
         </div></body></html>\n",
        subject = escape(&subject),
        site = escape(site),
        url = escape(url),
        asked = escape(&asked),
    );
    MailText { subject, text, html }
}

pub(super) fn asked_from(ip: Option<IpAddr>, user_agent: Option<&str>) -> String {
    let browser = user_agent.and_then(browser_name);
    let mut out = match browser {
        Some(browser) => format!("with {browser}"),
        None => "with a browser that we do not know".to_owned(),
    };
    if let Some(ip) = ip {
        // Infallible: writing to a String.
        let _ = write!(out, " from the address {}", ip.to_canonical());
    }
    out
}

/// The family of a browser and its system, out of a closed list; `None` if either is unknown.
pub fn browser_name(user_agent: &str) -> Option<String> {
    // Order matters: every Chromium browser also calls itself Safari, Edge and Opera also Chrome.
    const BROWSERS: &[(&str, &str)] = &[
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("FxiOS/", "Firefox"),
        ("CriOS/", "Chrome"),
        ("Chrome/", "Chrome"),
        ("Chromium/", "Chromium"),
        ("Safari/", "Safari"),
        ("curl/", "curl"),
    ];
    const SYSTEMS: &[(&str, &str)] = &[
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("CrOS", "ChromeOS"),
        ("Linux", "Linux"),
    ];
    let find =
        |list: &[(&str, &'static str)]| list.iter().find(|(mark, _)| user_agent.contains(mark)).map(|&(_, name)| name);
    match (find(BROWSERS)?, find(SYSTEMS)) {
        (browser, Some(system)) => Some(format!("{browser} on {system}")),
        (browser, None) => Some(browser.to_owned()),
    }
}

/// `15 minutes`, `1 hour`, `90 seconds`: the largest unit that divides it.
pub(super) fn span(span: Duration) -> String {
    let secs = span.as_secs();
    let (n, unit) = match secs {
        s if s >= 3600 && s % 3600 == 0 => (s / 3600, "hour"),
        s if s >= 60 && s % 60 == 0 => (s / 60, "minute"),
        s => (s, "second"),
    };
    if n == 1 { format!("1 {unit}") } else { format!("{n} {unit}s") }
}

/// Escapes text for HTML, in elements and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHROME: &str =
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";

    fn mail(url: &str, user_agent: Option<&str>) -> MailText {
        magic_link(&MagicLinkMail {
            site: "app.example.com",
            url,
            valid_for: Duration::from_secs(900),
            code: "7K3M-P0QX",
            code_valid_for: Duration::from_secs(600),
            ip: Some("192.0.2.7".parse().unwrap()),
            user_agent,
        })
    }

    #[test]
    fn the_mail_says_who_asked_how_long_and_that_it_works_once() {
        let mail = mail("https://app.example.com/auth/login/callback?token=a.b.c", Some(CHROME));
        assert_eq!(mail.subject, "Sign in to app.example.com");
        for part in [&mail.text, &mail.html] {
            for words in [
                "15 minutes",
                "only once",
                "7K3M-P0QX",
                "10 minutes",
                "Chrome on Linux",
                "192.0.2.7",
                "If that was not you",
                "token=a.b.c",
            ] {
                assert!(part.contains(words), "{words} is missing in {part}");
            }
        }
    }

    #[test]
    fn nothing_that_a_stranger_wrote_is_in_the_mail() {
        let evil = "Chrome/1 <a href=https://evil.test>You have won</a> Linux";
        let mail = mail("https://app.example.com/?token=x", Some(evil));
        for part in [&mail.subject, &mail.text, &mail.html] {
            assert!(!part.contains("evil.test") && !part.contains("won"), "{part}");
        }
    }

    #[test]
    fn the_html_part_escapes_and_loads_nothing() {
        let mail = mail("https://app.example.com/?a=1&b=\"><script>", None);
        assert!(mail.html.contains("?a=1&amp;b=&quot;&gt;&lt;script&gt;"), "{}", mail.html);
        for mark in ["<script", "<img", "<link", "url(", "src="] {
            assert!(!mail.html.contains(mark), "{mark}");
        }
        assert!(mail.text.contains("?a=1&b="), "the text part is not escaped");
    }

    #[test]
    fn spans_read_like_people_write_them() {
        let said = |secs| span(Duration::from_secs(secs));
        assert_eq!([said(900), said(60), said(3600), said(90)], ["15 minutes", "1 minute", "1 hour", "90 seconds"]);
    }
}
