//! See `strongroom::fuzzing::pkcs11_answers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| strongroom::fuzzing::pkcs11_answers(data));
