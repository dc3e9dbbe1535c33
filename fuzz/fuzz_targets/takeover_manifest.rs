//! See `strongroom::fuzzing::takeover_manifest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom::fuzzing::takeover_manifest(data));
