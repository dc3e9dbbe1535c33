//! See `strongroom::fuzzing::azure_answers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom::fuzzing::azure_answers(data));
