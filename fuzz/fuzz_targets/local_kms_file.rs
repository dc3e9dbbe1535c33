//! See `strongroom::fuzzing::local_kms_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom::fuzzing::local_kms_file(data));
