//! See `doorward_fuzz::jwk_set`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: doorward_fuzz::seed("jwk_set"), |data: &[u8]| doorward_fuzz::jwk_set(data));
