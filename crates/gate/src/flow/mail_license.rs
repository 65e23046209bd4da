//! The mail that says that a license ends.

use super::{
    mail_people::frame,
    mail_text::{MailText, escape},
};

/// What the mail says.
#[derive(Clone, Copy, Debug)]
pub struct LicenseEndsMail<'a> {
    /// The host that people know the product by.
    pub site: &'a str,
    /// Whether it is the license of the whole installation, and an administrator is told; else the reader's own.
    pub is_installation: bool,
    /// The provider's name of the license, where it is known.
    pub license: Option<&'a str>,
    /// When it ends, for people.
    pub ends: &'a str,
    /// Whole days until then, a begun one included; 0: it has ended.
    pub days: u64,
    /// Days for which reading goes on afterwards; 0: nothing goes on.
    pub grace_days: u64,
}

/// Writes the mail.
pub fn license_ends(mail: &LicenseEndsMail<'_>) -> MailText {
    let LicenseEndsMail { site, ends, .. } = *mail;
    let whose =
        if mail.is_installation { format!("The license of {site}") } else { format!("Your license for {site}") };
    let subject = match mail.days {
        0 => format!("{whose} has ended"),
        1 => format!("{whose} ends within a day"),
        days => format!("{whose} ends in {days} days"),
    };
    let when = if mail.days == 0 { format!("It ended on {ends}.") } else { format!("It ends on {ends}.") };
    let then = match (mail.days, mail.grace_days) {
        (0, 0) => "Nothing that needs a license works any more.".to_owned(),
        (0, days) => {
            format!("For {} from then on, what is there can still be read, where it allows that.", count(days))
        }
        (_, 0) => "After that, nothing that needs a license works any more.".to_owned(),
        (_, days) => format!("For {} after that, what is there can still be read, where it allows that.", count(days)),
    };
    let remedy = if mail.is_installation {
        "Renew it with whoever sold it to you. A renewed license is taken over by itself; a license file has to be put \
         in the place of the old one."
    } else {
        "Renew it with whoever sold it to you, or ask whoever runs this installation. A renewed license is taken over \
         by itself."
    };
    let license = mail.license.map(|license| format!("License: {license}")).unwrap_or_default();
    let text = [&subject, "", &when, &then, "", remedy, "", &license].join("\n");
    let paragraph = |words: &str| format!("<p style=\"margin:0 0 16px\">{}</p>\n", escape(words));
    let mut body = paragraph(&format!("{when} {then}")) + &paragraph(remedy);
    if !license.is_empty() {
        body += &format!("<p style=\"margin:0;font-size:14px;color:#52525b\">{}</p>\n", escape(&license));
    }
    MailText { html: frame(&subject, &body), text: format!("{}\n", text.trim_end()), subject }
}

fn count(days: u64) -> String {
    if days == 1 { "1 day".to_owned() } else { format!("{days} days") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(is_installation: bool, days: u64, grace_days: u64) -> MailText {
        let license = Some("lic <1>");
        let site = "app.example.com";
        license_ends(&LicenseEndsMail { site, is_installation, license, ends: "1 March 2027", days, grace_days })
    }

    #[test]
    fn the_mail_says_whose_license_ends_when_and_what_follows() {
        for (mail, subject, then) in [
            (mail(false, 14, 7), "Your license for app.example.com ends in 14 days", "7 days after that"),
            (mail(true, 3, 0), "The license of app.example.com ends in 3 days", "After that, nothing"),
            (mail(false, 1, 1), "Your license for app.example.com ends within a day", "1 day after that"),
            (mail(true, 0, 7), "The license of app.example.com has ended", "7 days from then on"),
            (mail(true, 0, 0), "The license of app.example.com has ended", "works any more"),
        ] {
            assert_eq!(mail.subject, subject);
            for part in [&mail.text, &mail.html] {
                for words in [subject, "1 March 2027", then, "Renew it"] {
                    assert!(part.contains(words), "{words} is missing in {part}");
                }
            }
            assert!(mail.html.contains("lic &lt;1&gt;") && mail.text.contains("lic <1>"));
        }
    }
}
