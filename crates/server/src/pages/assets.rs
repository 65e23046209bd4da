//! The files that pages need, inside the executable and under names that change with their content.

use std::sync::LazyLock;

/// A file that a page refers to. Its path changes with its content, so it may be cached for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asset {
    /// Path below [`Site::base`](super::Site::base).
    pub path: String,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Content.
    pub bytes: &'static [u8],
}

impl Asset {
    /// `Cache-Control` of every asset.
    pub const CACHE_CONTROL: &'static str = "public, max-age=31536000, immutable";

    fn new(stem: &str, ending: &str, content_type: &'static str, bytes: &'static [u8]) -> Self {
        Self { path: format!("/assets/{stem}.{:016x}.{ending}", fnv1a(bytes)), content_type, bytes }
    }
}

/// FNV-1a, 64 bits. It tells one release's file from another's; nothing rests on it being hard to collide.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

pub(super) static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("doorward", "css", "text/css; charset=utf-8", include_bytes!("../../assets/doorward.css"))
});

pub(super) static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("go-on", "js", "text/javascript; charset=utf-8", include_bytes!("../../assets/go-on.js"))
});

pub(super) static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_bytes!("../../assets/icon.svg")));

/// All assets, to be served as they are with [`Asset::CACHE_CONTROL`] and `nosniff`.
pub fn assets() -> [&'static Asset; 3] {
    [&STYLE, &SCRIPT, &ICON]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_changes_with_the_content() {
        // Test value of the FNV reference: 64-bit FNV-1a of "foobar".
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
        assert_ne!(Asset::new("a", "css", "", b"a").path, Asset::new("a", "css", "", b"b").path);
    }

    #[test]
    fn the_style_sheet_loads_nothing_from_elsewhere() {
        let css = std::str::from_utf8(STYLE.bytes).unwrap();
        for word in ["url(", "@import", "//", "expression("] {
            assert!(!css.contains(word), "{word}");
        }
    }
}
