//! See `doorward_fuzz::jws`.
#![no_main]

libfuzzer_sys::fuzz_target!(init: doorward_fuzz::seed("jws"), |data: &[u8]| doorward_fuzz::jws(data));
