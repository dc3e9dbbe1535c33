//! See `strongroom::fuzzing::record_resealed`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom::fuzzing::record_resealed(data));
