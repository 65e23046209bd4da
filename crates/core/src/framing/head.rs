//! One request head: the request line and the fields that frame the message.

/// How many fields a head may have.
pub const MAX_FIELDS: usize = 100;

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HeadFlaw {
    /// A CR without LF, or a LF without CR.
    BareLineEnd,
    /// A request line other than `method SP target SP HTTP/1.0|1.1`.
    RequestLine,
    /// A target that does not begin with `/`: absolute, authority or asterisk form.
    TargetForm,
    /// A `#` in the target, which some cut off and some take along.
    TargetFragment,
    /// A byte in the target that must be escaped: control characters, white space, non-ASCII, `"<>` and the back-tick.
    TargetByte,
    /// A line that begins with white space: the continuation of another, or none.
    Folded,
    /// A field name that is no token, among them one with white space before the colon.
    FieldName,
    /// A control character in a field value.
    FieldValue,
    /// Not exactly one `Host`.
    Host,
    /// `Content-Length` twice, or not one plain number.
    ContentLength,
    /// `Transfer-Encoding` twice, other than exactly `chunked`, or in HTTP/1.0.
    TransferEncoding,
    /// `Content-Length` beside `Transfer-Encoding`.
    BothLengths,
    /// More fields than [`MAX_FIELDS`], or a head longer than the caller holds.
    TooLarge,
    /// A field that some gateways take for one that frames or routes the message: `Content_Length`.
    LookAlike,
}

impl HeadFlaw {
    /// For the operator.
    pub const fn text(self) -> &'static str {
        match self {
            Self::BareLineEnd => "a line ends with a bare CR or LF",
            Self::RequestLine => "the request line is not one of HTTP/1.0 or 1.1",
            Self::TargetForm => "the request target is not in origin form",
            Self::TargetFragment => "the request target has a fragment",
            Self::TargetByte => "the request target has a character that must be escaped",
            Self::Folded => "a line begins with white space",
            Self::FieldName => "a field name is not a token",
            Self::FieldValue => "a field value has a control character",
            Self::Host => "there is not exactly one Host",
            Self::ContentLength => "Content-Length stands twice or is not a plain number",
            Self::TransferEncoding => "Transfer-Encoding is not exactly chunked, once, in HTTP/1.1",
            Self::BothLengths => "Content-Length stands beside Transfer-Encoding",
            Self::TooLarge => "the head is too long or has too many fields",
            Self::LookAlike => "a field name looks like one that frames or routes the message",
        }
    }
}

/// What a head says about what follows it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) length: Length,
    /// Whether a server may answer by switching protocols.
    pub(super) is_upgrade: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Length {
    Sized(u64),
    Chunked,
}

/// Looks for the empty line that ends the head which begins at `start`, going on at `from`. Returns how
/// far was looked, and where the head ends if it does.
pub(super) fn find_end(bytes: &[u8], start: usize, from: usize) -> Result<(usize, Option<usize>), HeadFlaw> {
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            b'\r' => match bytes.get(at + 1) {
                None => return Ok((at, None)),
                Some(b'\n') => {
                    if at == start {
                        // A second empty line where a request line should be.
                        return Err(HeadFlaw::RequestLine);
                    }
                    if bytes[..at].ends_with(b"\r\n") {
                        return Ok((at, Some(at + 2)));
                    }
                    at += 2;
                }
                Some(_) => return Err(HeadFlaw::BareLineEnd),
            },
            b'\n' => return Err(HeadFlaw::BareLineEnd),
            _ => at += 1,
        }
    }
    Ok((at, None))
}

/// Checks a whole head, its last empty line included. Line ends have been checked by [`find_end`].
pub(super) fn check(head: &[u8]) -> Result<Body, HeadFlaw> {
    let head = head.strip_suffix(b"\r\n").unwrap_or(head);
    let mut lines = Lines(head);
    let is_11 = check_request_line(lines.next().ok_or(HeadFlaw::RequestLine)?)?;
    let mut found = Found::default();
    for (number, line) in lines.enumerate() {
        if number >= MAX_FIELDS {
            return Err(HeadFlaw::TooLarge);
        }
        found.take(line)?;
    }
    if found.hosts != 1 {
        return Err(HeadFlaw::Host);
    }
    let length = match (found.length, found.has_encoding) {
        (Some(_), true) => return Err(HeadFlaw::BothLengths),
        (None, true) if !is_11 => return Err(HeadFlaw::TransferEncoding),
        (None, true) => Length::Chunked,
        (length, false) => Length::Sized(length.unwrap_or(0)),
    };
    Ok(Body { length, is_upgrade: found.has_upgrade && is_11 })
}

/// Lines that end with CRLF.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|&byte| byte == b'\r')?;
        let line = &self.0[..end];
        self.0 = self.0.get(end + 2..).unwrap_or_default();
        Some(line)
    }
}

/// Whether the line is one, and of HTTP/1.1.
fn check_request_line(line: &[u8]) -> Result<bool, HeadFlaw> {
    let method = line.iter().position(|&byte| byte == b' ').ok_or(HeadFlaw::RequestLine)?;
    let (method, rest) = (&line[..method], &line[method + 1..]);
    if method.is_empty() || !method.iter().copied().all(is_token) {
        return Err(HeadFlaw::RequestLine);
    }
    let (target, version) = rest.split_at_checked(rest.len().saturating_sub(9)).ok_or(HeadFlaw::RequestLine)?;
    let is_11 = match version {
        b" HTTP/1.1" => true,
        b" HTTP/1.0" => false,
        _ => return Err(HeadFlaw::RequestLine),
    };
    if target.first() != Some(&b'/') {
        return Err(HeadFlaw::TargetForm);
    }
    for &byte in target {
        match byte {
            b'#' => return Err(HeadFlaw::TargetFragment),
            b'"' | b'<' | b'>' | b'`' => return Err(HeadFlaw::TargetByte),
            b'!'..=b'~' => {}
            _ => return Err(HeadFlaw::TargetByte),
        }
    }
    Ok(is_11)
}

#[derive(Default)]
struct Found {
    hosts: u32,
    length: Option<u64>,
    has_encoding: bool,
    has_upgrade: bool,
}

impl Found {
    fn take(&mut self, line: &[u8]) -> Result<(), HeadFlaw> {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(HeadFlaw::Folded);
        }
        let colon = line.iter().position(|&byte| !is_token(byte)).unwrap_or(line.len());
        if colon == 0 || line.get(colon) != Some(&b':') {
            return Err(HeadFlaw::FieldName);
        }
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if !value.iter().copied().all(is_value) {
            return Err(HeadFlaw::FieldValue);
        }
        let value = value.trim_ascii();
        if name.eq_ignore_ascii_case(b"host") {
            self.hosts += 1;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.has_upgrade = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let length = parse_length(value).filter(|_| self.length.is_none());
            self.length = Some(length.ok_or(HeadFlaw::ContentLength)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.has_encoding || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(HeadFlaw::TransferEncoding);
            }
            self.has_encoding = true;
        } else if is_look_alike(name) {
            return Err(HeadFlaw::LookAlike);
        }
        Ok(())
    }
}

/// A plain number of at most 18 digits: no sum with another length can overflow.
fn parse_length(value: &[u8]) -> Option<u64> {
    let is_plain = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    is_plain.then(|| value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// Names that become those of framing fields once everything but letters and digits counts as `-`.
fn is_look_alike(name: &[u8]) -> bool {
    let is = |wanted: &[u8]| {
        name.len() == wanted.len()
            && name.iter().zip(wanted).all(|(byte, &wanted)| match wanted {
                b'-' => !byte.is_ascii_alphanumeric(),
                wanted => byte.to_ascii_lowercase() == wanted,
            })
    };
    is(b"content-length") || is(b"transfer-encoding")
}

/// `tchar` of RFC 9110 §5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    TOKEN[byte as usize]
}

/// A table, since every byte of every field name is asked about.
static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(
            byte as u8,
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z'
                | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        );
        byte += 1;
    }
    table
};

/// What may stand in a field value: no control characters but the tab (RFC 9110 §5.5).
pub(super) fn is_value(byte: u8) -> bool {
    byte == b'\t' || byte >= b' ' && byte != 0x7f
}
