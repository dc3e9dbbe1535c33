//! See `strongroom::fuzzing::object_model`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom::fuzzing::object_model(data));
