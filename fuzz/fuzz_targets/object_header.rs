//! See `strongroom::fuzzing::object_header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom::fuzzing::object_header(data));
