//! base64url without padding (RFC 7515 §2): one text per byte string, nothing else is accepted.

use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// The text is not canonical base64url: another alphabet, padding, white space, spare bits that are not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotBase64Url;

const STRICT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_allow_trailing_bits(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// Decodes `text` behind what `out` already holds, and returns how many bytes came.
pub(super) fn decode_onto(text: &str, out: &mut Vec<u8>) -> Result<usize, NotBase64Url> {
    let start = out.len();
    STRICT.decode_vec(text, out).map_err(|_| NotBase64Url)?;
    Ok(out.len() - start)
}

/// Decodes `text`.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, NotBase64Url> {
    STRICT.decode(text).map_err(|_| NotBase64Url)
}

/// Appends `bytes` to `out`.
pub(super) fn encode_onto(bytes: &[u8], out: &mut String) {
    STRICT.encode_string(bytes, out);
}

/// Encodes `bytes`.
pub(super) fn encode(bytes: &[u8]) -> String {
    STRICT.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_text_of_a_byte_string_is_read() {
        assert_eq!(decode("-_8"), Ok(vec![0xfb, 0xff]));
        for bad in ["-_8=", "-_9", "+/8", " -_8", "-_8\n", "-", "-_8==", "é"] {
            assert_eq!(decode(bad), Err(NotBase64Url), "{bad:?}");
        }
    }
}
