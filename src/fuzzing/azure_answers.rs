//! What Key Vault, the login service, or something before them answers.

use super::Input;
use crate::provider::azure_fuzzing;

/// What was asked for, the status in two bytes, and the body.
pub fn azure_answers(data: &[u8]) {
    let mut input = Input(data);
    let (asked, status) = (input.u8(), input.u16());
    azure_fuzzing::answer(asked, status, input.0);
}
