//! See `strongroom::fuzzing::aws_kms_answers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom::fuzzing::aws_kms_answers(data));
