//! See `doorward_fuzz::request`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: doorward_fuzz::seed("request"), |data: &[u8]| doorward_fuzz::request(data));
