//! The path of a request: judged and forwarded as the same bytes.
//!
//! Upstreams read one path in different ways: some decode escapes first, fold case, cut `;params`,
//! merge slashes or resolve dots. A path that has several readings is judged by all of them; the
//! bytes that go to the app are the ones that arrived.

use std::fmt;

use crate::{decision::Denial, reason::Reason, rule::PathMode};

/// Why a target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathFault {
    /// Not in origin form (RFC 9112 §3.2.1): it does not begin with `/`.
    NotOriginForm,
    /// Longer than [`RequestPath::MAX`].
    TooLong,
    /// A raw control, space or non-ASCII byte.
    RawByte,
    /// A fragment; those stay in the client (RFC 9110 §7.1).
    Fragment,
    /// `%` without two hex digits.
    BadEscape,
    /// An escape that stands for a control character.
    EncodedControl,
    /// Escapes that do not decode to UTF-8.
    InvalidUtf8,
    /// `%2f`.
    EncodedSlash,
    /// `\` or `%5c`.
    Backslash,
    /// `.` or `..` as a segment, raw, encoded or before `;`.
    DotSegment,
    /// `//`.
    EmptySegment,
    /// `%25` before two hex digits.
    DoubleEncoding,
}

impl PathFault {
    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotOriginForm => "not origin-form",
            Self::TooLong => "too long",
            Self::RawByte => "raw control, space or non-ASCII byte",
            Self::Fragment => "fragment",
            Self::BadEscape => "bad percent escape",
            Self::EncodedControl => "encoded control",
            Self::InvalidUtf8 => "invalid UTF-8",
            Self::EncodedSlash => "encoded slash",
            Self::Backslash => "backslash",
            Self::DotSegment => "dot segment",
            Self::EmptySegment => "empty segment",
            Self::DoubleEncoding => "double encoding",
        }
    }

    /// The refusal.
    pub(crate) fn denial(self) -> Denial {
        Denial::from(Reason::RequestMalformed).with_note(format!("path: {self}"))
    }
}

impl fmt::Display for PathFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One way to read a path that has several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The path as that upstream would route it; begins with `/`.
    pub(crate) path: Vec<u8>,
    /// Whether it may meet no rule at all: only the raw spelling, because a rule is never written
    /// with escapes.
    pub(crate) may_miss: bool,
}

/// A request target in origin form, taken apart; its bytes are never changed.
///
/// A path without escapes, `;` and other oddities has one reading and costs no allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPath<'a> {
    target: &'a str,
    path_len: usize,
    has_upper: bool,
    oddity: Option<PathFault>,
    readings: Vec<Reading>,
}

/// What a byte of a path asks for. Everything that is not here has one meaning only.
const PLAIN: u8 = 0;
const UPPER: u8 = 1;
const SPECIAL: u8 = 2;
const CLASS: [u8; 256] = {
    let mut class = [SPECIAL; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        class[byte as usize] = match byte {
            b'A'..=b'Z' => UPPER,
            b'%' | b';' | b'?' | b'#' | b'\\' | b'/' | b'.' => SPECIAL,
            _ => PLAIN,
        };
        byte += 1;
    }
    class
};

impl<'a> RequestPath<'a> {
    /// Longest accepted path in bytes (RFC 9110 §4.1 asks for 8,000 at least).
    pub const MAX: usize = 8192;

    /// Longest accepted odd path: all of its readings are made, so it costs more than its length.
    pub const MAX_ODD: usize = 1024;

    /// Reads a request target exactly as it arrived: path, and query if any.
    ///
    /// In [`PathMode::Strict`] nothing odd passes. In [`PathMode::SameRule`] dot and empty segments,
    /// encoded slashes, backslashes and double escapes pass on to
    /// [`RuleSet::find`](crate::rule::RuleSet::find), which demands that all readings meet one rule and
    /// that its app wants this. Not judged: the query, beyond bytes that no target may have.
    ///
    /// # Errors
    /// `request_malformed`, with the [`PathFault`] in its note.
    pub fn parse(target: &'a str, mode: PathMode) -> Result<Self, Denial> {
        Self::read(target, mode).map_err(PathFault::denial)
    }

    fn read(target: &'a str, mode: PathMode) -> Result<Self, PathFault> {
        let bytes = target.as_bytes();
        if bytes.first() != Some(&b'/') {
            return Err(PathFault::NotOriginForm);
        }
        let (mut has_upper, mut several, mut oddity) = (false, false, None);
        let mut segment = 1;
        let mut at = 1;
        while let Some(&byte) = bytes.get(at) {
            match CLASS[byte as usize] {
                PLAIN => {}
                UPPER => has_upper = true,
                _ => match byte {
                    b'?' => break,
                    b'/' => {
                        oddity = oddity.or(odd_segment(&bytes[segment..at], true));
                        segment = at + 1;
                    }
                    b'.' => {}
                    b'%' | b';' => several = true,
                    b'\\' => oddity = Some(PathFault::Backslash),
                    b'#' => return Err(PathFault::Fragment),
                    _ => return Err(PathFault::RawByte),
                },
            }
            at += 1;
        }
        if at > Self::MAX {
            return Err(PathFault::TooLong);
        }
        oddity = oddity.or(odd_segment(&bytes[segment..at], false));
        if let Some(&bad) = bytes[at..].iter().find(|&&byte| byte == b'#' || !byte.is_ascii_graphic()) {
            return Err(if bad == b'#' { PathFault::Fragment } else { PathFault::RawByte });
        }
        let mut read = Self { target, path_len: at, has_upper, oddity, readings: Vec::new() };
        if several {
            let decoded = decode(read.raw().as_bytes()).ok_or(PathFault::BadEscape)?;
            read.oddity = read.oddity.or(odd_decoded(read.raw().as_bytes(), &decoded)?);
            if read.oddity.is_none() {
                read.readings = readings(read.raw().as_bytes(), decoded);
            }
        }
        match read.oddity {
            Some(fault) if mode == PathMode::Strict => return Err(fault),
            Some(_) if at > Self::MAX_ODD => return Err(PathFault::TooLong),
            Some(_) => read.readings = odd_readings(read.raw().as_bytes()),
            None => {}
        }
        read.has_upper |= read.readings.iter().any(|reading| reading.path.iter().any(u8::is_ascii_uppercase));
        Ok(read)
    }

    /// The whole target as it arrived.
    pub fn target(&self) -> &'a str {
        self.target
    }

    /// The path as it arrived, without the query.
    pub fn raw(&self) -> &'a str {
        &self.target[..self.path_len]
    }

    /// The query as it arrived, without `?`.
    pub fn query(&self) -> Option<&'a str> {
        self.target[self.path_len..].strip_prefix('?')
    }

    /// What strict reading refuses about it; only [`PathMode::SameRule`] lets such a path exist.
    pub const fn oddity(&self) -> Option<PathFault> {
        self.oddity
    }

    /// Whether folding case changes it.
    pub(crate) const fn has_upper(&self) -> bool {
        self.has_upper
    }

    /// Its readings, the ordinary one first; none if the path itself is the only one.
    pub(crate) fn readings(&self) -> &[Reading] {
        &self.readings
    }
}

/// What is odd about a raw segment. The last one may be empty: that is a trailing slash.
fn odd_segment(segment: &[u8], inner: bool) -> Option<PathFault> {
    match segment {
        b"" if inner => Some(PathFault::EmptySegment),
        b"." | b".." => Some(PathFault::DotSegment),
        _ => None,
    }
}

/// What is odd, or refused outright, about a decoded path.
fn odd_decoded(raw: &[u8], decoded: &[u8]) -> Result<Option<PathFault>, PathFault> {
    let text = std::str::from_utf8(decoded).map_err(|_| PathFault::InvalidUtf8)?;
    if text.chars().any(char::is_control) {
        return Err(PathFault::EncodedControl);
    }
    let has = |escape: &[u8; 3]| raw.windows(3).any(|window| window.eq_ignore_ascii_case(escape));
    let doubled =
        |window: &[u8]| window[..3] == *b"%25" && window[3].is_ascii_hexdigit() && window[4].is_ascii_hexdigit();
    let dots = |segment: &[u8]| {
        let name = segment.split(|&byte| byte == b';').next().unwrap_or_default();
        name == b"." || name == b".."
    };
    Ok(if has(b"%2f") {
        Some(PathFault::EncodedSlash)
    } else if has(b"%5c") {
        Some(PathFault::Backslash)
    } else if raw.windows(5).any(doubled) {
        Some(PathFault::DoubleEncoding)
    } else if decoded.split(|&byte| byte == b'/').any(dots) {
        Some(PathFault::DotSegment)
    } else {
        None
    })
}

/// Decodes all escapes once; `None` if one is bad.
fn decode(path: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.iter();
    while let Some(&byte) = bytes.next() {
        decoded.push(if byte == b'%' { hex(*bytes.next()?)? << 4 | hex(*bytes.next()?)? } else { byte });
    }
    Some(decoded)
}

/// Decodes the good escapes once and leaves the others, as upstreams do that decode twice.
/// With `only_unreserved`, those that RFC 3986 §6.2.2.2 calls the same path.
fn decode_good(path: &[u8], only_unreserved: bool) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if let (b'%', [high, low, tail @ ..]) = (byte, after)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            let value = high << 4 | low;
            if !only_unreserved || value.is_ascii_alphanumeric() || b"-._~".contains(&value) {
                decoded.push(value);
                rest = tail;
                continue;
            }
        }
        decoded.push(byte);
    }
    decoded
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Drops `;params` from every segment.
fn cut_params(path: &[u8]) -> Vec<u8> {
    let mut keep = true;
    let kept = path.iter().filter(|&&byte| {
        keep = byte == b'/' || keep && byte != b';';
        keep
    });
    kept.copied().collect()
}

/// Cuts at a decoded `?` or `#`, as an upstream does that decodes before it splits off the query.
fn cut_query(path: &[u8]) -> Vec<u8> {
    path.split(|&byte| byte == b'?' || byte == b'#').next().unwrap_or_default().to_vec()
}

/// Makes `//` one slash.
fn merge_slashes(path: &[u8]) -> Vec<u8> {
    let mut merged = Vec::with_capacity(path.len());
    for &byte in path {
        if byte != b'/' || merged.last() != Some(&b'/') {
            merged.push(byte);
        }
    }
    merged
}

/// Resolves `.` and `..` (RFC 3986 §5.2.4); stays at the root.
fn resolve_dots(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut ends_in_dots = false;
    for segment in path.split(|&byte| byte == b'/').skip(1) {
        ends_in_dots = segment == b"." || segment == b"..";
        match segment {
            b"." => {}
            b".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    let mut resolved = Vec::with_capacity(path.len());
    for segment in kept {
        resolved.push(b'/');
        resolved.extend_from_slice(segment);
    }
    if ends_in_dots || resolved.is_empty() {
        resolved.push(b'/');
    }
    resolved
}

fn push_new(readings: &mut Vec<Reading>, path: Vec<u8>, may_miss: bool) {
    if !readings.iter().any(|reading| reading.path == path && (!reading.may_miss || may_miss)) {
        readings.push(Reading { path, may_miss });
    }
}

/// The readings of a path that is not odd: decoded, raw, parameters cut before and after decoding.
fn readings(raw: &[u8], decoded: Vec<u8>) -> Vec<Reading> {
    let mut readings = Vec::with_capacity(2);
    let has = |path: &[u8], marks: &[u8]| path.iter().any(|byte| marks.contains(byte));
    let cut = has(&decoded, b";").then(|| merge_slashes(&cut_params(&decoded)));
    let cut_first = has(raw, b";").then(|| merge_slashes(&decode_good(&cut_params(raw), false)));
    let no_query = has(&decoded, b"?#").then(|| cut_query(&decoded));
    readings.push(Reading { path: decoded, may_miss: false });
    for path in [cut, cut_first, no_query].into_iter().flatten() {
        push_new(&mut readings, path, false);
    }
    push_new(&mut readings, raw.to_vec(), true);
    readings
}

/// Every reading of an odd path: decoded not at all, once or twice; backslashes as slashes; parameters
/// cut; slashes merged; dots resolved, before or after merging.
fn odd_readings(raw: &[u8]) -> Vec<Reading> {
    let once = decode_good(raw, false);
    let twice = decode_good(&once, false);
    let mut readings = Vec::new();
    for decoded in [once, decode_good(raw, true), twice] {
        let slashed: Vec<u8> = decoded.iter().map(|&byte| if byte == b'\\' { b'/' } else { byte }).collect();
        for path in [decoded, slashed] {
            for path in [cut_params(&path), cut_query(&path), path] {
                let resolved = resolve_dots(&path);
                let merged = merge_slashes(&path);
                push_new(&mut readings, resolve_dots(&merged), false);
                push_new(&mut readings, merge_slashes(&resolved), false);
                push_new(&mut readings, resolved, false);
                push_new(&mut readings, merged, false);
                push_new(&mut readings, path, false);
            }
        }
    }
    push_new(&mut readings, raw.to_vec(), true);
    readings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(target: &str) -> Option<PathFault> {
        RequestPath::read(target, PathMode::Strict).err()
    }

    #[test]
    fn a_plain_path_has_no_second_reading_and_keeps_its_bytes() {
        let path = RequestPath::parse("/a/b.c/~d/?q=%zz&r=;/../", PathMode::Strict).unwrap();
        assert_eq!((path.raw(), path.query()), ("/a/b.c/~d/", Some("q=%zz&r=;/../")));
        assert!(path.readings().is_empty() && !path.has_upper());
        assert_eq!(RequestPath::parse("/a?", PathMode::Strict).unwrap().query(), Some(""));
    }

    #[test]
    fn each_fault_has_its_name() {
        for (target, expected) in [
            ("a", PathFault::NotOriginForm),
            ("", PathFault::NotOriginForm),
            ("/a b", PathFault::RawByte),
            ("/a?\u{7f}", PathFault::RawByte),
            ("/ä", PathFault::RawByte),
            ("/a?x#y", PathFault::Fragment),
            ("/%4", PathFault::BadEscape),
            ("/%+41", PathFault::BadEscape),
            ("/%1f", PathFault::EncodedControl),
            ("/%c2%85", PathFault::EncodedControl),
            ("/%ff", PathFault::InvalidUtf8),
            ("/a%2Fb", PathFault::EncodedSlash),
            ("/a%5Cb", PathFault::Backslash),
            ("/a/..", PathFault::DotSegment),
            ("/a/.%2e;x/b", PathFault::DotSegment),
            ("/a//", PathFault::EmptySegment),
            ("/a%2541", PathFault::DoubleEncoding),
        ] {
            assert_eq!(fault(target), Some(expected), "{target}");
        }
        assert_eq!(fault("/100%25/...;a/b."), None);
        assert_eq!(fault(&format!("/{}", "a".repeat(RequestPath::MAX))), Some(PathFault::TooLong));
        assert_eq!(fault(&format!("/{}", "a".repeat(RequestPath::MAX - 1))), None);
    }

    #[test]
    fn only_same_rule_lets_an_odd_path_through_and_never_a_broken_one() {
        assert!(RequestPath::parse("/a%2fb", PathMode::Strict).is_err());
        let odd = RequestPath::parse("/a%2fb", PathMode::SameRule).unwrap();
        assert_eq!(odd.oddity(), Some(PathFault::EncodedSlash));
        let long = |length: usize| format!("/{}%2f", "a".repeat(length - 4));
        assert!(RequestPath::parse(&long(RequestPath::MAX_ODD), PathMode::SameRule).is_ok());
        assert!(RequestPath::parse(&long(RequestPath::MAX_ODD + 1), PathMode::SameRule).is_err());
        assert!(odd.readings().iter().any(|reading| reading.path == b"/a/b"));
        for target in ["/%00", "/a#b", "/%ff", "/%zz", "*", "http://a/"] {
            assert!(RequestPath::parse(target, PathMode::SameRule).is_err(), "{target}");
        }
    }

    #[test]
    fn the_readings_hold_what_upstreams_make_of_a_path() {
        let has = |target: &str, reading: &str| {
            let path = RequestPath::parse(target, PathMode::SameRule).unwrap();
            let found = path.readings().iter().any(|r| r.path == reading.as_bytes());
            assert!(found, "{target}: no {reading} in {:?}", path.readings());
        };
        has("/a;x/b", "/a/b");
        has("/a%3bx/b", "/a/b");
        has("/;/a", "/a");
        has("/a%3fx/b", "/a");
        has("/%61/b", "/a/b");
        has("/p/../a/x", "/a/x");
        has("/p//../a/x", "/p/a/x");
        has("/p//../a/x", "/a/x");
        has("/p/..;/a", "/a");
        has("/p/%252e%252e/a", "/a");
        has("/p\\..\\a", "/a");
        has("/../../a/.", "/a/");
    }
}
