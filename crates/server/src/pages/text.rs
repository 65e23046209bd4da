//! Small texts that several pages share: moments, spans, half-hidden addresses, local paths.

use std::time::Duration;

use doorward_core::{time::Timestamp, user::Email};

/// A moment, for people and for `<time datetime>`. Pages cannot know the reader's zone without a script,
/// so it is said in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// As people read it.
    pub text: String,
    /// RFC 3339.
    pub machine: String,
}

/// A moment in both forms; one outside the calendar's range is shown as its number of seconds.
pub fn moment(at: Timestamp) -> Moment {
    match jiff::Timestamp::from_millisecond(at.as_millis()) {
        Ok(time) => Moment {
            text: time.strftime("%-d %B %Y, %H:%M UTC").to_string(),
            machine: time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        },
        Err(_) => Moment { text: format!("{} s", at.as_secs()), machine: String::new() },
    }
}

/// A span in the largest unit that says it exactly enough: "15 minutes", "1 hour", "7 days".
pub fn span(span: Duration) -> String {
    let secs = span.as_secs();
    let (n, unit) = match secs {
        s if s >= 172_800 && s % 86_400 == 0 => (s / 86_400, "day"),
        s if s >= 3600 && s % 3600 == 0 => (s / 3600, "hour"),
        s if s >= 120 || s == 60 => (s.div_ceil(60), "minute"),
        s => (s, "second"),
    };
    if n == 1 { format!("1 {unit}") } else { format!("{n} {unit}s") }
}

/// An address of which its owner recognises enough and a stranger learns little: `a•••@example.com`.
pub fn half_hidden(email: &Email) -> String {
    let (local, domain) = email.as_str().split_once('@').unwrap_or((email.as_str(), ""));
    let first = local.chars().next().unwrap_or('•');
    format!("{first}•••@{domain}")
}

/// `path` if it is a path on this origin, else `/`.
///
/// The last line of defence of a page that writes a link; the rules for where a sign-in may lead are in
/// `core::redirect`. Browsers take `\` for `/` and drop tabs and line ends (WHATWG URL), so both disqualify.
pub fn local(path: &str) -> &str {
    let bytes = path.as_bytes();
    let is_local = bytes.first() == Some(&b'/')
        && bytes.get(1) != Some(&b'/')
        && !bytes.iter().any(|&b| b == b'\\' || b.is_ascii_control());
    if is_local { path } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_said_in_utc() {
        let moment = moment(Timestamp::from_secs(1_800_000_000));
        assert_eq!(moment.text, "15 January 2027, 08:00 UTC");
        assert_eq!(moment.machine, "2027-01-15T08:00:00Z");
        assert_eq!(super::moment(Timestamp::from_millis(i64::MAX)).machine, "");
    }

    #[test]
    fn a_span_is_said_in_its_unit() {
        let said = [(1, "1 second"), (60, "1 minute"), (90, "90 seconds"), (900, "15 minutes"), (3600, "1 hour")];
        for (secs, text) in said.into_iter().chain([(86_400, "24 hours"), (604_800, "7 days"), (150, "3 minutes")]) {
            assert_eq!(span(Duration::from_secs(secs)), text);
        }
    }

    #[test]
    fn an_address_is_half_hidden_whatever_its_length() {
        for (email, shown) in [("alice@example.com", "a•••@example.com"), ("b@x.test", "b•••@x.test")] {
            assert_eq!(half_hidden(&Email::parse(email).unwrap()), shown);
        }
    }

    #[test]
    fn a_link_never_leaves_this_origin() {
        for path in ["/", "/a?b=c", "/a//b"] {
            assert_eq!(local(path), path);
        }
        for path in
            ["", "a", "//evil.test", "/\\evil.test", "/\t/evil.test", "javascript:alert(1)", "https://evil.test"]
        {
            assert_eq!(local(path), "/", "{path}");
        }
    }
}
