//! See `strongroom::fuzzing::key_names`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom::fuzzing::key_names(data));
