//! See `strongroom::fuzzing::vault_answers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom::fuzzing::vault_answers(data));
