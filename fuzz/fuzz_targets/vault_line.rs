//! See `strongroom::fuzzing::vault_line`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom::fuzzing::vault_line(data));
