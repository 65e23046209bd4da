//! Where WebSocket frames end (RFC 6455 §5.2), without looking at what is in them.
//!
//! A proxied socket is piped byte by byte. To end one with a close frame of our own, the proxy must know
//! when the bytes so far make whole frames; a frame written into the middle of another would be read as
//! its payload. Extensions such as permessage-deflate change payloads only, so this holds with them too.
//!
//! Not verified here: masking, opcodes, fragmentation, UTF-8. Those are matters of the two ends.

use crate::reason::CloseCode;

/// Opcode of a close frame.
const CLOSE: u8 = 0x8;
/// Longest reason in a close frame: 125 bytes of a control frame's payload less the code.
const MAX_CLOSE_TEXT: usize = 123;

/// Follows one direction of a WebSocket and tells where its frames end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameTracker {
    state: State,
    has_closed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Inside a frame header: the bytes so far.
    Header { bytes: [u8; 10], have: u8 },
    /// Inside the masking key or payload: so many bytes are missing.
    Rest(u64),
    /// A length that no frame can have: boundaries cannot be told any more.
    Lost,
}

impl Default for State {
    fn default() -> Self {
        Self::Header { bytes: [0; 10], have: 0 }
    }
}

impl FrameTracker {
    /// A tracker at the start of a direction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the bytes so far make whole frames.
    pub fn is_at_boundary(&self) -> bool {
        matches!(self.state, State::Header { have: 0, .. })
    }

    /// Whether this direction has sent a close frame; nothing may follow one (§5.5.1).
    pub fn has_closed(&self) -> bool {
        self.has_closed
    }

    /// Whether a header made no sense, so that boundaries are unknown from there on.
    pub fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost)
    }

    /// Takes note of `bytes`.
    pub fn advance(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.advance_to_boundary(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    /// Takes note of `bytes` up to the next frame boundary and returns how many those were; all of them
    /// when the frame does not end in `bytes`.
    pub fn advance_to_boundary(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            match &mut self.state {
                State::Lost => return bytes.len(),
                State::Rest(left) => {
                    let step = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - taken);
                    *left -= step as u64;
                    taken += step;
                    if *left == 0 {
                        self.state = State::default();
                        return taken;
                    }
                }
                State::Header { bytes: header, have } => {
                    header[usize::from(*have)] = bytes[taken];
                    *have += 1;
                    taken += 1;
                    if *have >= 2 && *have == header_len(header[1]) {
                        let header = *header;
                        if self.finish_header(&header) {
                            return taken;
                        }
                    }
                }
            }
        }
        taken
    }

    /// Acts on a whole header; whether the frame ends with it.
    fn finish_header(&mut self, header: &[u8; 10]) -> bool {
        self.has_closed |= header[0] & 0x0f == CLOSE;
        let mask = if header[1] & 0x80 != 0 { 4 } else { 0 };
        let payload = match header[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([header[2], header[3]])),
            127 => {
                let mut length = [0; 8];
                length.copy_from_slice(&header[2..]);
                u64::from_be_bytes(length)
            }
            short => u64::from(short),
        };
        self.state = match payload {
            _ if payload >> 63 != 0 => State::Lost,
            0 if mask == 0 => State::default(),
            _ => State::Rest(payload + mask),
        };
        self.is_at_boundary()
    }
}

/// Length of a frame header without the masking key.
fn header_len(second: u8) -> u8 {
    match second & 0x7f {
        126 => 4,
        127 => 10,
        _ => 2,
    }
}

/// The bytes of a close frame as a server sends it: unmasked. A longer text is cut at a character.
pub fn close_frame(code: CloseCode, text: &str) -> Vec<u8> {
    let mut end = text.len().min(MAX_CLOSE_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = &text.as_bytes()[..end];
    let mut frame = Vec::with_capacity(4 + text.len());
    // `MAX_CLOSE_TEXT` keeps the length below 126.
    frame.extend([0x80 | CLOSE, text.len() as u8 + 2]);
    frame.extend(code.to_be_bytes());
    frame.extend(text);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(opcode: u8, masked: bool, payload: usize, wide: u8) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match (payload, wide) {
            (0..=125, 0) => bytes.push(mask | payload as u8),
            (0..=0xffff, 0 | 1) => {
                bytes.push(mask | 126);
                bytes.extend((payload as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend((payload as u64).to_be_bytes());
            }
        }
        if masked {
            bytes.extend([1, 2, 3, 4]);
        }
        bytes.resize(bytes.len() + payload, 0x88);
        bytes
    }

    proptest! {
        #[test]
        fn boundaries_are_found_however_the_bytes_are_cut(
            frames in prop::collection::vec((0u8..16, any::<bool>(), prop_oneof![0usize..300, 65_530usize..65_540], 0u8..3), 1..8),
            cuts in prop::collection::vec(1usize..700, 1..50),
        ) {
            let mut stream = Vec::new();
            let mut boundaries = vec![0];
            for (opcode, masked, payload, wide) in &frames {
                stream.extend(frame(*opcode, *masked, *payload, *wide));
                boundaries.push(stream.len());
            }
            let mut tracker = FrameTracker::new();
            let mut at = 0;
            let mut cuts = cuts.iter().cycle();
            while at < stream.len() {
                prop_assert_eq!(tracker.is_at_boundary(), boundaries.contains(&at), "at {}", at);
                let step = (*cuts.next().unwrap()).min(stream.len() - at);
                let piece = &stream[at..at + step];
                let mut probe = tracker.clone();
                let taken = probe.advance_to_boundary(piece);
                let next = boundaries.iter().copied().find(|&b| b > at).unwrap();
                prop_assert_eq!(at + taken, next.min(at + step));
                tracker.advance(piece);
                at += step;
            }
            prop_assert!(tracker.is_at_boundary() && !tracker.is_lost());
            prop_assert_eq!(tracker.has_closed(), frames.iter().any(|(opcode, ..)| *opcode == CLOSE));
        }

        #[test]
        fn no_bytes_make_it_fail_and_the_cutting_never_matters(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 0usize..400) {
            let mut whole = FrameTracker::new();
            whole.advance(&bytes);
            let mut halves = FrameTracker::new();
            let (a, b) = bytes.split_at(cut.min(bytes.len()));
            halves.advance(a);
            halves.advance(b);
            prop_assert_eq!(whole, halves);
        }
    }

    #[test]
    fn an_impossible_length_loses_the_boundaries_for_good() {
        let mut tracker = FrameTracker::new();
        tracker.advance(&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert!(tracker.is_lost());
        tracker.advance(&[0x81, 0]);
        assert!(!tracker.is_at_boundary());
    }

    #[test]
    fn a_close_frame_is_one_frame_and_its_text_is_cut_at_a_character() {
        for text in ["", "session_revoked", &"é".repeat(100), &"x".repeat(400)] {
            let bytes = close_frame(4003, text);
            let mut tracker = FrameTracker::new();
            assert_eq!(tracker.advance_to_boundary(&bytes), bytes.len());
            assert!(tracker.is_at_boundary() && tracker.has_closed());
            assert_eq!(&bytes[2..4], 4003u16.to_be_bytes());
            assert!(text.starts_with(std::str::from_utf8(&bytes[4..]).unwrap()));
            assert!(bytes.len() <= 127);
        }
    }
}
