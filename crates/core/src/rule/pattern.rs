//! Path patterns of rules.

use std::{fmt, sync::Arc};

/// A pattern over path segments: `/a/b` exactly, `/a/*` for `/a` and everything below, `/*` for all.
///
/// A trailing slash makes no difference, neither here nor in a request. There are no regular
/// expressions: rules that skip by one are what the field's gates were most often passed through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    text: Arc<str>,
    below: bool,
}

/// Why a text is no path pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatternError {
    /// It does not begin with `/`.
    NoSlash,
    /// It has an empty segment, `//`.
    EmptySegment,
    /// It has a `.` or `..` segment, which no request may have.
    DotSegment,
    /// `*` stands elsewhere than alone as the last segment.
    Star,
    /// A character that a path can spell in more than one way.
    Character(char),
    /// Longer than [`PathPattern::MAX`].
    TooLong,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlash => f.write_str("a path pattern begins with `/`"),
            Self::EmptySegment => f.write_str("`//` never matches; write one slash"),
            Self::DotSegment => f.write_str("`.` and `..` never match; write the path that is meant"),
            Self::Star => f.write_str("`*` may only stand alone as the last segment, as in `/api/*`"),
            Self::Character(c) => write!(
                f,
                "{c:?} is not allowed in a path pattern, because a request can spell it in several ways; \
                 cover the path with `*` from the segment before it"
            ),
            Self::TooLong => write!(f, "a path pattern has {} bytes at most", PathPattern::MAX),
        }
    }
}

impl std::error::Error for PatternError {}

impl PathPattern {
    /// Longest accepted pattern in bytes.
    pub const MAX: usize = 1024;

    /// Reads a pattern as it stands in the config.
    ///
    /// # Errors
    /// See [`PatternError`].
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.len() > Self::MAX {
            return Err(PatternError::TooLong);
        }
        let inner = text.strip_prefix('/').ok_or(PatternError::NoSlash)?;
        if let Some(c) = inner.chars().find(|&c| !is_plain(c) && c != '/' && c != '*') {
            return Err(PatternError::Character(c));
        }
        let (front, below) = match inner.strip_suffix('*') {
            _ if inner.is_empty() || inner == "*" => return Ok(Self { text: text.into(), below: inner == "*" }),
            Some(front) => (front.strip_suffix('/').ok_or(PatternError::Star)?, true),
            None => (inner.strip_suffix('/').unwrap_or(inner), false),
        };
        if front.contains('*') {
            return Err(PatternError::Star);
        }
        for segment in front.split('/') {
            match segment {
                "" => return Err(PatternError::EmptySegment),
                "." | ".." => return Err(PatternError::DotSegment),
                _ => {}
            }
        }
        Ok(Self { text: text.into(), below })
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it ends in `*`.
    pub const fn is_wildcard(&self) -> bool {
        self.below
    }

    /// Its literal segments.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        let text = if self.below { &self.text[..self.text.len() - 1] } else { &self.text };
        text.split('/').filter(|segment| !segment.is_empty())
    }

    /// Whether it matches `path` as it stands: byte by byte, one reading.
    ///
    /// For the decision use [`RuleSet::find`](super::RuleSet::find), which knows all readings.
    pub fn matches(&self, path: &str) -> bool {
        let Some(path) = path.strip_prefix('/') else { return false };
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut segments = path.split('/').filter(|_| !path.is_empty());
        self.segments().all(|wanted| segments.next() == Some(wanted)) && (self.below || segments.next().is_none())
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether a character of a path has one spelling once escapes are decoded, and no second meaning.
const fn is_plain(c: char) -> bool {
    matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '.' | '_' | '~' | '!' | '$' | '&' | '\'' | '(' | ')' | '+' | ',' | '=' | ':' | '@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_covers_the_segment_before_it_and_everything_below() {
        let api = PathPattern::parse("/api/*").unwrap();
        for path in ["/api", "/api/", "/api/a", "/api/a/b"] {
            assert!(api.matches(path), "{path}");
        }
        for path in ["/", "/apis", "/API/a", "/x/api", "api"] {
            assert!(!api.matches(path), "{path}");
        }
        let all = PathPattern::parse("/*").unwrap();
        assert!(all.matches("/") && all.matches("/a/b"));
    }

    #[test]
    fn without_a_star_a_pattern_is_one_path_with_or_without_a_slash_behind() {
        for text in ["/a/b", "/a/b/"] {
            let pattern = PathPattern::parse(text).unwrap();
            assert!(pattern.matches("/a/b") && pattern.matches("/a/b/"));
            assert!(!pattern.matches("/a") && !pattern.matches("/a/b/c") && !pattern.matches("/a/b//"));
        }
        let root = PathPattern::parse("/").unwrap();
        assert!(root.matches("/") && !root.matches("/a"));
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        for (text, expected) in [
            ("", PatternError::NoSlash),
            ("api/*", PatternError::NoSlash),
            ("*", PatternError::NoSlash),
            ("//", PatternError::EmptySegment),
            ("//a", PatternError::EmptySegment),
            ("/a//b", PatternError::EmptySegment),
            ("/a//", PatternError::EmptySegment),
            ("//*", PatternError::EmptySegment),
            ("/a//*", PatternError::EmptySegment),
            ("/a/../b", PatternError::DotSegment),
            ("/./*", PatternError::DotSegment),
            ("/a*", PatternError::Star),
            ("/*/a", PatternError::Star),
            ("/**", PatternError::Star),
            ("/a/*/*", PatternError::Star),
            ("/a%20b", PatternError::Character('%')),
            ("/a;b", PatternError::Character(';')),
            ("/a?b", PatternError::Character('?')),
            ("/ä", PatternError::Character('ä')),
            ("/a b", PatternError::Character(' ')),
            ("/{id}", PatternError::Character('{')),
        ] {
            assert_eq!(PathPattern::parse(text).unwrap_err(), expected, "{text}");
        }
        assert_eq!(PathPattern::parse(&format!("/{}", "a".repeat(1024))).unwrap_err(), PatternError::TooLong);
    }
}
