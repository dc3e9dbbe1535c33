//! The file of a LocalKms.

use crate::provider::local_fuzzing;

/// The first byte chooses: the rest is a whole file, or its second line.
pub fn local_kms_file(data: &[u8]) {
    match data.split_first() {
        Some((0, body)) => local_fuzzing::body(body),
        Some((_, content)) => local_fuzzing::content(content),
        None => local_fuzzing::content(&[]),
    }
}
