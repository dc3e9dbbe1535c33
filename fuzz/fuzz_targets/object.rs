//! See `strongroom::fuzzing::object`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom::fuzzing::object(data));
