//! Where HTTP/1 requests begin and end on a connection, read as strictly as RFC 9112 can be read.
//!
//! Request smuggling lives from two programs that see different requests in the same bytes. This reader
//! stands before the HTTP library and lets pass only what every program reads alike; what it refuses ends
//! the connection. The library then has no choice left to make, and the upstream gets a framing made anew.
//!
//! Refused are, among others: `Content-Length` beside `Transfer-Encoding`, either of them twice, a
//! transfer coding other than exactly `chunked`, any in HTTP/1.0, bare CR or LF, folded lines, white space
//! before a colon, control characters, targets that are not in origin form, none or several `Host`.
//!
//! Not verified here: whether path, host or header values make sense; sizes (the caller holds a head only
//! up to a limit of its own, and refuses longer ones). HTTP/2 frames its messages itself: after its preface everything passes.

mod chunked;
mod head;

use self::chunked::Chunked;
pub use self::head::{HeadFlaw, MAX_FIELDS};

/// The start of an HTTP/2 connection by prior knowledge (RFC 9113 §3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is wrong with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// In a head: nothing of that request has passed yet.
    Head(HeadFlaw),
    /// In a chunked body: its head has passed.
    Chunk,
}

/// What may be done with the bytes at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many of them may pass; call again with the rest.
    Pass(usize),
    /// A head is not whole yet: keep them, and call again with more behind them.
    More,
    /// The last head asked to switch protocols: nothing passes until [`Framing::switch`].
    Undecided,
    /// Nothing passes any more.
    Refuse(Flaw),
}

/// Follows the client's direction of one connection.
#[derive(Debug)]
pub struct Framing {
    state: State,
    /// How far the bytes of an unfinished head were looked at.
    looked: usize,
    heads: u32,
}

#[derive(Debug)]
enum State {
    Head,
    Sized { left: u64, then: Then },
    Chunked { chunked: Chunked, then: Then },
    Undecided,
    Opaque,
    Refused(Flaw),
}

/// What follows a body.
#[derive(Clone, Copy, Debug)]
enum Then {
    Head,
    Undecided,
}

impl From<Then> for State {
    fn from(then: Then) -> Self {
        match then {
            Then::Head => Self::Head,
            Then::Undecided => Self::Undecided,
        }
    }
}

impl Default for Framing {
    fn default() -> Self {
        Self { state: State::Head, looked: 0, heads: 0 }
    }
}

impl Framing {
    /// A connection without a byte yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many whole heads have passed.
    pub fn heads(&self) -> u32 {
        self.heads
    }

    /// Whether nothing passes until it is known whether protocols are switched.
    pub fn is_undecided(&self) -> bool {
        matches!(self.state, State::Undecided)
    }

    /// Whether it stands inside a body.
    pub fn is_in_body(&self) -> bool {
        matches!(self.state, State::Sized { .. } | State::Chunked { .. })
    }

    /// The request that asked for it has switched protocols: everything passes from now on.
    pub fn switch(&mut self) {
        if matches!(self.state, State::Undecided) {
            self.state = State::Opaque;
        }
    }

    /// Looks at the bytes that follow those which have passed.
    pub fn step(&mut self, bytes: &[u8]) -> Step {
        if bytes.is_empty() {
            return Step::More;
        }
        match &mut self.state {
            State::Opaque => Step::Pass(bytes.len()),
            State::Undecided => Step::Undecided,
            State::Refused(flaw) => Step::Refuse(*flaw),
            State::Sized { left, then } => {
                let step = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= step as u64;
                if *left == 0 {
                    self.state = (*then).into();
                }
                Step::Pass(step)
            }
            State::Chunked { chunked, then } => match chunked.step(bytes) {
                None => self.refuse(Flaw::Chunk),
                Some(chunked::Progress { taken, is_over }) => {
                    if is_over {
                        self.state = (*then).into();
                    }
                    Step::Pass(taken)
                }
            },
            State::Head => self.step_head(bytes),
        }
    }

    fn step_head(&mut self, bytes: &[u8]) -> Step {
        if self.heads == 0 && H2_PREFACE.starts_with(&bytes[..bytes.len().min(H2_PREFACE.len())]) {
            if bytes.len() < H2_PREFACE.len() {
                return Step::More;
            }
            self.state = State::Opaque;
            return Step::Pass(bytes.len());
        }
        // A server is asked to overlook an empty line before a request (RFC 9112 §2.2); one is enough.
        let start = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
        let from = self.looked.max(start);
        let (looked, end) = match head::find_end(bytes, start, from) {
            Ok(found) => found,
            Err(flaw) => return self.refuse(Flaw::Head(flaw)),
        };
        self.looked = looked;
        let Some(end) = end else { return Step::More };
        self.looked = 0;
        let body = match head::check(&bytes[start..end]) {
            Ok(body) => body,
            Err(flaw) => return self.refuse(Flaw::Head(flaw)),
        };
        self.heads = self.heads.saturating_add(1);
        let then = if body.is_upgrade { Then::Undecided } else { Then::Head };
        self.state = match body.length {
            head::Length::Sized(0) => then.into(),
            head::Length::Sized(left) => State::Sized { left, then },
            head::Length::Chunked => State::Chunked { chunked: Chunked::default(), then },
        };
        Step::Pass(end)
    }

    /// Refuses the head at hand for a reason of the caller's.
    pub fn refuse_head(&mut self, flaw: HeadFlaw) -> Step {
        self.refuse(Flaw::Head(flaw))
    }

    fn refuse(&mut self, flaw: Flaw) -> Step {
        self.state = State::Refused(flaw);
        Step::Refuse(flaw)
    }
}

#[cfg(test)]
mod tests;
