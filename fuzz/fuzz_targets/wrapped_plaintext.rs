//! See `strongroom::fuzzing::wrapped_plaintext`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom::fuzzing::wrapped_plaintext(data));
