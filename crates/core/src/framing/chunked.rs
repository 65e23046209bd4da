//! Chunked bodies (RFC 9112 §7.1), byte by byte where framing, in strides where data.

/// Longest line with a chunk's size and extensions, and longest trailer section.
const MAX_SIZE_LINE: u32 = 256;
const MAX_TRAILERS: u32 = 16 * 1024;

/// How far a chunked body is.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    state: State,
    /// Bytes of the line or trailer section under way.
    used: u32,
}

#[derive(Debug)]
enum State {
    Size {
        value: u64,
        digits: u8,
    },
    Extension {
        value: u64,
    },
    SizeEnd {
        value: u64,
    },
    Data(u64),
    DataCr,
    DataLf,
    /// At the start of a line of the trailer section.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerEnd,
    LastLf,
}

impl Default for State {
    fn default() -> Self {
        Self::Size { value: 0, digits: 0 }
    }
}

pub(super) struct Progress {
    pub(super) taken: usize,
    pub(super) is_over: bool,
}

impl Chunked {
    /// Takes bytes up to the end of the body; `None` when they are not one.
    pub(super) fn step(&mut self, bytes: &[u8]) -> Option<Progress> {
        let mut taken = 0;
        while taken < bytes.len() {
            if let State::Data(left) = &mut self.state {
                let step = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - taken);
                *left -= step as u64;
                taken += step;
                if *left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            let is_over = self.take(bytes[taken])?;
            taken += 1;
            if is_over {
                return Some(Progress { taken, is_over });
            }
        }
        Some(Progress { taken, is_over: false })
    }

    /// Takes one byte of framing; whether it was the last.
    fn take(&mut self, byte: u8) -> Option<bool> {
        self.used += 1;
        self.state = match (&self.state, byte) {
            // 15 digits: no sum with a length can overflow.
            (&State::Size { value, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < 15 => {
                let digit = (byte as char).to_digit(16)?;
                State::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
            }
            (&State::Size { value, digits: 1.. }, b'\r') | (&State::Extension { value }, b'\r') => {
                State::SizeEnd { value }
            }
            (&State::Size { value, digits: 1.. }, b';') => State::Extension { value },
            (&State::Extension { value }, b'\t' | b' '..=b'~') if self.used < MAX_SIZE_LINE => {
                State::Extension { value }
            }
            (&State::SizeEnd { value }, b'\n') => {
                self.used = 0;
                if value == 0 { State::Trailer } else { State::Data(value) }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => {
                self.used = 0;
                State::default()
            }
            (State::Trailer, b'\r') => State::LastLf,
            (State::LastLf, b'\n') => return Some(true),
            _ if self.used > MAX_TRAILERS => return None,
            (State::Trailer, _) if super::head::is_token(byte) => State::TrailerName,
            (State::TrailerName, _) if super::head::is_token(byte) => State::TrailerName,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerEnd,
            (State::TrailerValue, _) if super::head::is_value(byte) => State::TrailerValue,
            (State::TrailerEnd, b'\n') => State::Trailer,
            _ => return None,
        };
        Some(false)
    }
}
