//! What AWS KMS, or something before it, answers, as the SDK hands it on.

use super::Input;
use crate::provider::aws_kms_fuzzing;

/// Names between newlines; or a status in two bytes, then code, message and body between newlines.
pub fn aws_kms_answers(data: &[u8]) {
    let mut input = Input(data);
    let (what, status) = (input.u8(), input.u16());
    let text = String::from_utf8_lossy(input.0);
    if what.is_multiple_of(2) {
        aws_kms_fuzzing::names(&text);
    } else {
        aws_kms_fuzzing::failure(status, &text);
    }
}
