//! See `doorward_fuzz::claims`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: doorward_fuzz::seed("claims"), |data: &[u8]| doorward_fuzz::claims(data));
