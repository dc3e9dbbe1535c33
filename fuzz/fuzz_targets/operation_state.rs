//! See `strongroom::fuzzing::operation_state`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom::fuzzing::operation_state(data));
