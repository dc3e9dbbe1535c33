//! Records that were changed and then authenticated again, as only a holder of the key can: a MAC stops no fuzzer.

use super::Input;
use super::record::SEALED;
use crate::derive::MacUse;
use crate::error::ErrorKind;
use crate::format::record::{AccountRecord, MAC_NAME};

/// Changes to the content of a record: set, insert, remove, cut, a length in two bytes. A first byte of 254 chooses a record under
/// failover custody, of 255 one under joint custody.
pub fn record_resealed(data: &[u8]) {
    let ((prk, sealed), data) = match data.split_first() {
        Some((254, changes)) => (&SEALED[1], changes),
        Some((255, changes)) => (&SEALED[2], changes),
        _ => (&SEALED[0], data),
    };
    let mut bytes = sealed[..sealed.len() - MAC_LEN].to_vec();
    let mut input = Input(data);
    while !input.is_empty() {
        let (how, at, value) = (input.u8(), usize::from(input.u16()), input.u8());
        let at = at % (bytes.len() + 1);
        match how % 5 {
            0 if at < bytes.len() => bytes[at] = value,
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 => bytes.truncate(at),
            3 if at + 1 < bytes.len() => bytes[at..at + 2].copy_from_slice(&u16::from(value).to_be_bytes()),
            _ => bytes.insert(at, value),
        }
    }
    let mac = prk.mac(MacUse::Record, MAC_NAME, &[&bytes]);
    bytes.extend_from_slice(&mac);
    let record = match AccountRecord::parse(&bytes) {
        Ok(record) => record,
        Err(error) => return assert_eq!(error.kind(), ErrorKind::Format),
    };
    let _ = format!("{record:?}");
    let verified = match record.verify(prk) {
        Ok(verified) => verified,
        Err(error) => return assert_eq!(error.kind(), ErrorKind::Untrusted, "it names another key"),
    };
    let Ok(draft) = verified.successor() else {
        return assert_eq!(verified.record().sequence().number(), u64::MAX);
    };
    let failover = verified.record().custody().terms().is_some();
    let next = match draft.seal(prk) {
        Ok(next) => next,
        // The last record of all has room for no refusal after it.
        Err(error) => {
            assert!(failover && verified.record().sequence().number() == u64::MAX - 1, "{error}");
            return;
        }
    };
    let written = next.record().to_bytes();
    assert_eq!(written.len(), bytes.len(), "there is one way to write a record");
    let differing = written.iter().zip(&bytes).filter(|(new, old)| new != old).count();
    let bar = if failover { MAC_LEN } else { 0 };
    assert!(differing <= MAC_LEN + SEQUENCE_LEN + bar, "only its sequence, its MAC and its bar are others");
    if let Some(barred) = next.record().barred() {
        next.verify_successor(barred, prk).expect("a refusal is recorded without a key");
    }
    let read = AccountRecord::parse(&written).expect("what was sealed can be read");
    verified.verify_successor(read, prk).expect("it follows the one before");
    let error = next.verify_successor(verified.record().clone(), prk).expect_err("a rollback");
    assert_eq!(error.kind(), ErrorKind::Untrusted);
}

const MAC_LEN: usize = 32;
const SEQUENCE_LEN: usize = 8;
