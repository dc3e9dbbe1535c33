//! What the fuzz target `local_kms_file` holds of a file's content. Imports: `error`, this
//! provider's own files.

use sha2::{Digest, Sha256};

use super::document::{Document, MAX_FILE};
use crate::error::ErrorKind;

/// Whatever parses is written again as what parses to the same; nothing panics.
pub(crate) fn content(data: &[u8]) {
    match Document::parse(data) {
        Ok(document) => {
            let first = document.to_bytes().expect("what was read can be written");
            let again = Document::parse(&first).expect("what was written can be read");
            let second = again.to_bytes().expect("what was read can be written");
            assert_eq!(*first, *second, "there is one way to write a document");
            assert_eq!(document.id(), again.id());
            for key in &document.keys {
                let same = again.key(&key.name).expect("no key is lost");
                assert_eq!(same.current().name(), key.current().name());
            }
        }
        Err(error) => match error.kind() {
            ErrorKind::Limit => assert!(data.len() > MAX_FILE / 16, "a small file is within the limits"),
            ErrorKind::Format | ErrorKind::Corrupt => {}
            _ => panic!("{error:?} of bytes in memory"),
        },
    }
}

/// The same for a second line, under a first one that is right: a checksum stops no fuzzer.
pub(crate) fn body(data: &[u8]) {
    let digest = Sha256::digest(data);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut file =
        format!("{{\"format\":\"strongroom-local-kms\",\"version\":1,\"sha256\":\"{hex}\"}}\n").into_bytes();
    file.extend_from_slice(data);
    file.push(b'\n');
    content(&file);
}
