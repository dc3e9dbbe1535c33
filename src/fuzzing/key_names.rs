//! What names a key in a record: texts from outside, and the URI that leads from one place to one key.

use crate::provider::{Authority, ErrorClass, KekUri, KekVersion, WrapAlgorithm};

/// Endpoint, another endpoint and a key's name, between newlines.
pub fn key_names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.splitn(3, '\n');
    let mut part = || parts.next().unwrap_or_default();
    let (endpoint, elsewhere, name) = (part(), part(), part());
    let here = Authority::new("local", endpoint);
    let there = Authority::new("local", elsewhere);
    match here.uri_of(name) {
        Err(error) => assert_eq!(error.class(), ErrorClass::Misconfigured),
        Ok(uri) => {
            assert_eq!(here.name_of(&uri).ok(), Some(name), "a URI leads back to its name");
            if let Ok(other) = there.uri_of(name) {
                assert_eq!(other == uri, elsewhere == endpoint, "no two places share a URI");
                assert_eq!(there.name_of(&uri).is_ok(), elsewhere == endpoint, "nor believe each other's");
            }
        }
    }
    let accepted = |max: usize| !name.is_empty() && name.len() <= max && !name.chars().any(char::is_control);
    assert_eq!(KekUri::new(name).is_ok(), accepted(KekUri::MAX_LEN));
    assert_eq!(KekVersion::new(name).is_ok(), accepted(KekVersion::MAX_LEN));
    assert_eq!(WrapAlgorithm::new(name).is_ok(), accepted(WrapAlgorithm::MAX_LEN));
}
