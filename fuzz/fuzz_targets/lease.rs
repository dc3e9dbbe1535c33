//! See `strongroom::fuzzing::lease`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom::fuzzing::lease(data));
