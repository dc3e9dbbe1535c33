//! See `strongroom::fuzzing::scope_state`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom::fuzzing::scope_state(data));
