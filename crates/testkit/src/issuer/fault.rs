//! What can be wrong with the answers of a key set's address.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// What is wrong with the key set's address.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// This status, no keys.
    Status(u16),
    /// The right answer, that many milliseconds later.
    #[serde(deserialize_with = "milliseconds")]
    Slow(Duration),
    /// The head of an answer, then one byte a second.
    Drip,
    /// A connection that is accepted and never answered.
    Silent,
    /// A connection that ends in the middle of the document.
    CutOff,
    /// Half a document, properly ended.
    Garbage,
    /// JSON, but not a set.
    NotASet,
    /// A set without keys.
    Empty,
    /// A page for people, with status 200.
    Html,
    /// The right document, called `text/plain`.
    WrongType,
    /// A redirect to this address.
    Redirect(String),
    /// A redirect to another path here, which has the keys.
    Moved,
    /// A redirect to itself, for ever.
    RedirectLoop,
    /// A document of this many bytes.
    Large(usize),
    /// A document without end, 16 MB of it a second.
    Endless,
    /// 400 KB of gzip that unpack to 64 MB, with the right set at the end.
    GzipBomb,
    /// The set as it was before keys last changed, `Age: 3600`, as a cache on the way may have it.
    Stale,
    /// 304 to everything, whether the question had a condition or not.
    NotModified,
}

fn milliseconds<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    u64::deserialize(from).map(Duration::from_millis)
}

/// Blanks of this length, and then `end`, as one gzip member (RFC 1952 with RFC 1951 §3.2.6, fixed codes).
///
/// The checksum at its end is wrong: who checks it has unpacked everything by then.
pub(super) fn gzip_bomb(blanks: usize, end: &[u8]) -> Vec<u8> {
    let mut bits = Bits { out: vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], buffer: 0, count: 0 };
    bits.write(0b011, 3); // last block, fixed codes
    bits.literal(b' ');
    for _ in 0..blanks / 258 {
        bits.code(0b1100_0101, 8); // length 258
        bits.code(0, 5); // distance 1
    }
    for byte in end {
        bits.literal(*byte);
    }
    bits.code(0, 7); // end of block
    bits.write(0, 7); // to the next byte
    bits.out.extend([0; 8]);
    bits.out
}

struct Bits {
    out: Vec<u8>,
    buffer: u32,
    count: u32,
}

impl Bits {
    /// Lowest bit first.
    fn write(&mut self, value: u32, bits: u32) {
        self.buffer |= value << self.count;
        self.count += bits;
        while self.count >= 8 {
            self.out.push(self.buffer.to_le_bytes()[0]);
            self.buffer >>= 8;
            self.count -= 8;
        }
    }

    /// Huffman codes go highest bit first.
    fn code(&mut self, code: u32, bits: u32) {
        self.write(code.reverse_bits() >> (32 - bits), bits);
    }

    fn literal(&mut self, byte: u8) {
        match u32::from(byte) {
            low @ 0..=143 => self.code(0x30 + low, 8),
            high => self.code(0x190 + high - 144, 9),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, process};

    use super::*;

    #[test]
    fn the_bomb_is_gzip_that_unpacks_to_what_it_promises() {
        let bomb = gzip_bomb(64 << 20, br#"{"keys":[]}"#);
        assert!(bomb.len() < 450 * 1024, "{}", bomb.len());
        let mut unpack = process::Command::new("gzip")
            .arg("-dc")
            .stdin(process::Stdio::piped())
            .stdout(process::Stdio::piped())
            .stderr(process::Stdio::null())
            .spawn()
            .unwrap();
        let mut input = unpack.stdin.take().unwrap();
        let writer = std::thread::spawn(move || input.write_all(&bomb));
        // It complains about the checksum, after it has written everything.
        let unpacked = unpack.wait_with_output().unwrap().stdout;
        writer.join().unwrap().ok();
        assert!(unpacked.len() > 63 << 20, "{}", unpacked.len());
        assert!(unpacked.ends_with(br#"{"keys":[]}"#));
    }
}
