//! What a PKCS#11 module answers: return values, ids of objects, dates; and the versions that records name.

use super::Input;
use crate::provider::pkcs11_fuzzing;

/// The first byte chooses.
pub fn pkcs11_answers(data: &[u8]) {
    let mut input = Input(data);
    match input.u8() % 4 {
        0 => pkcs11_fuzzing::code(input.0.first_chunk().map_or(0, |code| u32::from_be_bytes(*code))),
        1 => pkcs11_fuzzing::id(input.0),
        2 => pkcs11_fuzzing::version(&String::from_utf8_lossy(input.0)),
        _ => pkcs11_fuzzing::date(input.0),
    }
}
