//! Reads a JSON object (RFC 8259) in one pass, without building values: every member is checked to the end and handed
//! out as a span of the text. As strict as [`super::json`], which builds values, and held against it by the tests.

use std::{borrow::Cow, fmt};

use memchr::memrchr;

use super::json::MAX_DEPTH;

/// Where and why a text is not a strict JSON object. Holds nothing of the text: notes are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotStrict {
    what: &'static str,
    at: usize,
}

impl fmt::Display for NotStrict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

/// A value as it stands in the text: well-formed to its end, at most [`MAX_DEPTH`] deep, no name twice in any object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span<'a> {
    /// The value with its quotes or brackets.
    pub(crate) text: &'a str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Without escapes.
    Plain,
    Escaped,
    Number,
    Array,
    /// An object, `true`, `false` or `null`.
    Other,
}

/// A member of the outermost object.
#[derive(Debug)]
pub(crate) struct Member<'a> {
    /// Its name without escapes; borrowed where it was written without.
    pub(crate) name: Cow<'a, str>,
    /// Where the name begins in the text, behind its quote.
    pub(crate) name_at: usize,
    pub(crate) value: Span<'a>,
    /// Where the value begins in the text.
    pub(crate) value_at: usize,
}

impl<'a> Span<'a> {
    /// The string that this is.
    pub(crate) fn string(self) -> Option<Cow<'a, str>> {
        match self.kind {
            Kind::Plain => Some(Cow::Borrowed(inside(self.text))),
            Kind::Escaped => unescape(inside(self.text)).map(Cow::Owned),
            Kind::Number | Kind::Array | Kind::Other => None,
        }
    }

    /// The text of the number that this is.
    pub(crate) fn number(self) -> Option<&'a str> {
        (self.kind == Kind::Number).then_some(self.text)
    }

    /// The strings of an array that holds nothing else.
    pub(crate) fn strings(self) -> Option<Vec<String>> {
        if self.kind != Kind::Array {
            return None;
        }
        let mut reader = Reader::new(self.text);
        let mut list = Vec::new();
        // What was read once without a problem is read again without one.
        let read = reader.array(|reader| {
            list.push(reader.span(MAX_DEPTH)?.string().map(Cow::into_owned));
            Ok(())
        });
        read.ok().and_then(|()| list.into_iter().collect())
    }
}

/// Reads `text`, which must be exactly one object, and hands out its members in order.
///
/// # Errors
/// Where it is not, a name appears twice in one object at any depth, or `take` says why a member cannot be.
pub(crate) fn read_object<'a>(
    text: &'a str,
    mut take: impl FnMut(Member<'a>) -> Result<(), &'static str>,
) -> Result<(), NotStrict> {
    let mut reader = Reader::new(text);
    reader.white_space();
    let read = reader.object(MAX_DEPTH, |reader, (name, name_at), below| {
        let value_at = reader.at;
        let value = reader.span(below)?;
        take(Member { name, name_at, value, value_at }).or_else(|what| reader.bad_at(value_at, Bad(what)))
    });
    read.map_err(|problem| reader.problem(problem))?;
    reader.white_space();
    if reader.at == text.len() { Ok(()) } else { Err(reader.problem(Bad("more than one JSON text"))) }
}

/// A string without its quotes.
fn inside(text: &str) -> &str {
    &text[1..text.len() - 1]
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Names of the objects that are open, the innermost last.
    names: Vec<Cow<'a, str>>,
}

/// What is wrong at the place where the reader stands.
struct Bad(&'static str);

const NOT_JSON: Bad = Bad("not JSON");
const TOO_DEEP: Bad = Bad("nested too deep");
const TWICE: Bad = Bad("a name appears twice");

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, names: Vec::new() }
    }

    fn problem(&self, Bad(what): Bad) -> NotStrict {
        NotStrict { what: if self.at < self.text.len() { what } else { "ends too early" }, at: self.at }
    }

    /// A problem that lies not here but at `at`.
    fn bad_at<T>(&mut self, at: usize, problem: Bad) -> Result<T, Bad> {
        self.at = at;
        Err(problem)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn white_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn span(&mut self, depth: u8) -> Result<Span<'a>, Bad> {
        let start = self.at;
        let kind = self.value(depth)?;
        Ok(Span { text: &self.text[start..self.at], kind })
    }

    fn value(&mut self, depth: u8) -> Result<Kind, Bad> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'{') => {
                self.object(depth, |reader, _, below| reader.value(below).map(|_| ()))?;
                Ok(Kind::Other)
            }
            Some(b'[') => {
                let below = depth.checked_sub(1).ok_or(TOO_DEEP)?;
                self.pass_strings();
                self.array(|reader| reader.value(below).map(|_| ()))?;
                Ok(Kind::Array)
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            _ => Err(NOT_JSON),
        }
    }

    fn word(&mut self, word: &'static str) -> Result<Kind, Bad> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(NOT_JSON);
        }
        self.at += word.len();
        Ok(Kind::Other)
    }

    fn array(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), Bad>) -> Result<(), Bad> {
        self.at += 1;
        self.white_space();
        if self.take(b']') {
            return Ok(());
        }
        loop {
            item(self)?;
            if !self.goes_on(b']')? {
                return Ok(());
            }
        }
    }

    /// Goes on, from the `[` of an array, as long as one string without escapes is followed directly by another: to the
    /// `,` before one of the last of them. Lists of groups and roles are the bulk of large tokens.
    ///
    /// A quote between two strings either has `,"` behind it or `",` before it. Where every quote behind the first, which
    /// opens, has one of the two and not both, they close and open in turn; so all quotes of a block can be judged at once.
    fn pass_strings(&mut self) {
        let bytes = self.text.as_bytes();
        let opens = |at: usize| bytes.get(at) == Some(&b'"');
        let inside = self.at + 2;
        if !opens(self.at + 1) || bytes[inside..].starts_with(b",\"") {
            return;
        }
        let mut judged = inside;
        while let Some(block) = bytes[judged - 2..].first_chunk()
            && is_in_strings(block)
        {
            judged += BLOCK;
        }
        if let Some(last) = memrchr(b'"', &bytes[inside..judged]) {
            let last = inside + last;
            self.at = if bytes[last + 1] == b',' && opens(last + 2) { last + 1 } else { last - 1 };
        }
    }

    /// Whether another item follows, rather than the `end` of all.
    fn goes_on(&mut self, end: u8) -> Result<bool, Bad> {
        self.white_space();
        if self.take(b',') {
            self.white_space();
            return Ok(true);
        }
        if self.take(end) { Ok(false) } else { Err(NOT_JSON) }
    }

    /// Reads an object; `member` reads the value of the name, and of where the name begins, that it is given.
    fn object(
        &mut self,
        depth: u8,
        mut member: impl FnMut(&mut Self, (Cow<'a, str>, usize), u8) -> Result<(), Bad>,
    ) -> Result<(), Bad> {
        if !self.take(b'{') {
            return Err(Bad("not a JSON object"));
        }
        let below = depth.checked_sub(1).ok_or(TOO_DEEP)?;
        if self.names.capacity() == 0 {
            self.names.reserve(16);
        }
        let mut names = Names { first: self.names.len(), seen: 0 };
        self.white_space();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let start = self.at;
            let name = if self.peek() == Some(b'"') { self.span(0)?.string() } else { None };
            let name = name.ok_or(NOT_JSON)?;
            if !names.add(&mut self.names, name.clone()) {
                return self.bad_at(start, TWICE);
            }
            self.white_space();
            if !self.take(b':') {
                return Err(NOT_JSON);
            }
            self.white_space();
            member(self, (name, start + 1), below)?;
            if !self.goes_on(b'}')? {
                break;
            }
        }
        if names.end(&mut self.names) { Ok(()) } else { self.bad_at(self.at - 1, TWICE) }
    }

    fn string(&mut self) -> Result<Kind, Bad> {
        self.at += 1;
        let mut kind = Kind::Plain;
        loop {
            self.at += plain_bytes(&self.text.as_bytes()[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(kind);
                }
                Some(b'\\') => {
                    let (_, length) = escape(&self.text[self.at..]).ok_or(NOT_JSON)?;
                    self.at += length;
                    kind = Kind::Escaped;
                }
                _ => return Err(NOT_JSON),
            }
        }
    }

    fn number(&mut self) -> Result<Kind, Bad> {
        /// The longest text without an exponent that is surely a finite number.
        const SURELY_FINITE: usize = 300;
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') && self.digits() == 0 {
            return Err(NOT_JSON);
        }
        if self.take(b'.') && self.digits() == 0 {
            return Err(NOT_JSON);
        }
        let has_exponent = self.take(b'e') || self.take(b'E');
        if has_exponent {
            let _ = self.take(b'+') || self.take(b'-');
            if self.digits() == 0 {
                return Err(NOT_JSON);
            }
        }
        let is_finite = || self.text[start..self.at].parse().is_ok_and(f64::is_finite);
        if (has_exponent || self.at - start > SURELY_FINITE) && !is_finite() {
            return self.bad_at(start, Bad("a number out of range"));
        }
        Ok(Kind::Number)
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }
}

/// The names of one object, to find one that appears twice.
struct Names {
    /// Where they begin among the names of all objects that are open.
    first: usize,
    /// A bit for each kind of name: most names are new by this alone.
    seen: u64,
}

impl Names {
    /// Beyond this many, names are sorted at the end instead of compared one by one.
    const FEW: usize = 32;

    /// False: surely there twice.
    fn add<'a>(&mut self, all: &mut Vec<Cow<'a, str>>, name: Cow<'a, str>) -> bool {
        let bytes = name.as_bytes();
        let ends = usize::from(bytes.first().copied().unwrap_or_default()) * 7
            + usize::from(bytes.last().copied().unwrap_or_default()) * 3;
        let bit = 1_u64 << ((ends + bytes.len()) % 64);
        let is_twice = self.seen & bit != 0 && all.len() - self.first < Self::FEW && all[self.first..].contains(&name);
        self.seen |= bit;
        all.push(name);
        !is_twice
    }

    /// Forgets the names. False: one was there twice.
    fn end(self, all: &mut Vec<Cow<'_, str>>) -> bool {
        let names = &mut all[self.first..];
        let is_twice = names.len() > Self::FEW && {
            names.sort_unstable();
            names.windows(2).any(|pair| pair[0] == pair[1])
        };
        all.truncate(self.first);
        !is_twice
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = 0x8080_8080_8080_8080;
const QUOTES: u64 = ONES * 0x22;
const BACKSLASHES: u64 = ONES * 0x5c;

/// Marks the first byte of eight that does not stand for itself in a JSON string; marks behind that one mean nothing.
const fn special(word: u64) -> u64 {
    // The top bit of a byte is the same in all three terms: none of the bytes sought has it.
    let below_space = word.wrapping_sub(ONES * 0x20);
    (below_space | (word ^ QUOTES).wrapping_sub(ONES) | (word ^ BACKSLASHES).wrapping_sub(ONES)) & !word & TOPS
}

/// How many bytes are judged at once.
const BLOCK: usize = 64;

/// Whether a block can be a piece of a list of strings: every quote either has `,"` behind it or `",` before it, for
/// which two bytes on either side are looked at, and there are neither escapes nor control characters.
/// Branchless, so that the compiler looks at many bytes at once.
fn is_in_strings(block: &[u8; BLOCK + 4]) -> bool {
    let is = |at: usize, byte: u8| u8::from(block[at] == byte);
    let wrong = (2..BLOCK + 2).fold(0, |wrong, at| {
        let closes = is(at + 1, b',') & is(at + 2, b'"');
        let opens = is(at - 1, b',') & is(at - 2, b'"');
        let is_special = is(at, b'\\') | u8::from(block[at] < b' ');
        wrong | is_special | (is(at, b'"') & (closes ^ opens ^ 1))
    });
    wrong == 0
}

/// How many bytes at the beginning of `bytes` stand for themselves in a JSON string.
fn plain_bytes(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let marks = special(u64::from_le_bytes(*word));
        if marks != 0 {
            return index * 8 + marks.trailing_zeros() as usize / 8;
        }
    }
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
    words.len() * 8 + rest.iter().position(is_special).unwrap_or(rest.len())
}

/// The character of the escape sequence at the beginning of `text`, and how long the sequence is. A half of a surrogate
/// pair is no character.
fn escape(text: &str) -> Option<(char, usize)> {
    let simple = match *text.as_bytes().get(1)? {
        byte @ (b'"' | b'\\' | b'/') => char::from(byte),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let first = unit(text)?;
            if !(0xd800..0xdc00).contains(&first) {
                return char::from_u32(first).map(|found| (found, 6));
            }
            let second = text.get(6..).filter(|rest| rest.starts_with("\\u")).and_then(unit)?;
            let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
            return char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + low).map(|found| (found, 12));
        }
        _ => return None,
    };
    Some((simple, 2))
}

/// The four hex digits behind `\u`.
fn unit(text: &str) -> Option<u32> {
    text.as_bytes().get(2..6)?.iter().try_fold(0, |value, byte| Some(value << 4 | char::from(*byte).to_digit(16)?))
}

fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (found, length) = escape(&rest[at..])?;
        plain.push_str(&rest[..at]);
        plain.push(found);
        rest = &rest[at + length..];
    }
    plain.push_str(rest);
    Some(plain)
}

#[cfg(test)]
mod tests;
