//! base64url without padding (RFC 7515 §2): one text per byte string, nothing else is accepted.

use std::mem::MaybeUninit;

use base64_simd::{Out, URL_SAFE_NO_PAD};

/// The text is not canonical base64url: another alphabet, padding, white space, spare bits that are not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotBase64Url;

/// Decodes `text`.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, NotBase64Url> {
    URL_SAFE_NO_PAD.decode_to_vec(text).map_err(|_| NotBase64Url)
}

/// Decodes `text` into `room`, which has at least three bytes for every four of the text.
pub(super) fn decode_into<'a>(text: &str, room: &'a mut [MaybeUninit<u8>]) -> Result<&'a [u8], NotBase64Url> {
    match URL_SAFE_NO_PAD.decode(text.as_bytes(), Out::from_uninit_slice(room)) {
        Ok(decoded) => Ok(decoded),
        Err(_) => Err(NotBase64Url),
    }
}

/// Appends `bytes` to `out`.
pub(super) fn encode_onto(bytes: &[u8], out: &mut String) {
    URL_SAFE_NO_PAD.encode_append(bytes, out);
}

/// Encodes `bytes`.
pub(super) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode_to_string(bytes)
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as OTHER};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_canonical_text_of_a_byte_string_is_read() {
        assert_eq!(decode("-_8"), Ok(vec![0xfb, 0xff]));
        for bad in ["-_8=", "-_9", "+/8", " -_8", "-_8\n", "-", "-_8==", "é"] {
            assert_eq!(decode(bad), Err(NotBase64Url), "{bad:?}");
        }
    }

    #[test]
    fn every_byte_at_every_place_of_a_long_text_is_judged_as_by_another_decoder() {
        // Long enough for every width at which the text is taken in.
        for length in [96, 98, 99] {
            let good = OTHER.encode(vec![0x5a; 99])[..length].to_owned();
            for at in 0..length {
                for byte in 0..=127_u8 {
                    let text = format!("{}{}{}", &good[..at], char::from(byte), &good[at + 1..]);
                    assert_eq!(decode(&text).ok(), OTHER.decode(&text).ok(), "{text:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn texts_and_bytes_are_read_and_written_as_by_another_codec(text in "[A-Za-z0-9_=+/ -]{0,80}", bytes: Vec<u8>) {
            prop_assert_eq!(decode(&text).ok(), OTHER.decode(&text).ok());
            prop_assert_eq!(encode(&bytes), OTHER.encode(&bytes));
            prop_assert_eq!(decode(&encode(&bytes)), Ok(bytes));
        }
    }
}
