//! What Vault, or something before it, answers.

use super::Input;
use crate::provider::vault_fuzzing;

/// What was asked for, the status in two bytes, and the body; or three lines of an address.
pub fn vault_answers(data: &[u8]) {
    let mut input = Input(data);
    let (asked, status) = (input.u8(), input.u16());
    if asked == 255 {
        vault_fuzzing::address(&String::from_utf8_lossy(input.0));
    } else {
        vault_fuzzing::answer(asked, status, input.0);
    }
}
