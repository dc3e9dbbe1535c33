//! Account records: parse and write give the same bytes, and no change of a sealed record is believed.

use std::sync::LazyLock;

use super::Input;
use crate::derive::{Prks, Secrets};
use crate::error::ErrorKind;
use crate::format::policy::RecordPolicy;
use crate::format::record::{
    AccountRecord, Custody, GenerationEntry, OlderGenerations, RecordDraft, RecordState, Sequence, Slot,
    Timestamp,
};
use crate::id::{AccountId, Generation, Suite};
use crate::provider::{Authority, KekVersion, WrapAlgorithm, Wrapped};
use crate::secret::MemoryLock;

/// The first byte chooses: the rest is a record, or a list of changes to a record that verifies.
pub fn record(data: &[u8]) {
    match data.split_first() {
        Some((0, changes)) => changed(changes),
        Some((_, record)) => parsed(record),
        None => parsed(&[]),
    }
}

fn parsed(data: &[u8]) {
    match AccountRecord::parse(data) {
        Err(error) => assert_eq!(error.kind(), ErrorKind::Format),
        Ok(record) => {
            assert_eq!(record.to_bytes(), data, "parse, then write");
            // Every accessor has an answer for whatever was parsed.
            let _ = format!("{record:?} {:?} {:?}", record.created(), record.standby_version());
            if data != SEALED.1 {
                let error = record.verify(&SEALED.0).expect_err("nobody else has the key");
                assert_eq!(error.kind(), ErrorKind::Untrusted);
            }
        }
    }
}

fn changed(changes: &[u8]) {
    let (prk, sealed) = &*SEALED;
    let mut bytes = sealed.clone();
    let mut input = Input(changes);
    while !input.is_empty() {
        let (how, at, value) = (input.u8(), usize::from(input.u16()), input.u8());
        let at = at % (bytes.len() + 1);
        match how % 3 {
            0 if at < bytes.len() => bytes[at] ^= value,
            1 => bytes.insert(at, value),
            _ => bytes.truncate(at),
        }
    }
    let verified = AccountRecord::parse(&bytes).and_then(|record| record.verify(prk));
    assert_eq!(verified.is_ok(), bytes == *sealed, "a changed record is not believed");
}

/// A record with everything in it, and the key that authenticates it.
pub(super) static SEALED: LazyLock<(Prks, Vec<u8>)> = LazyLock::new(|| {
    let account = AccountId::from_bytes([7; 16]);
    let prk = Prks::extract(account, Generation::FIRST, Secrets::single(&[9; 32]), MemoryLock::BestEffort)
        .expect("one slot of memory");
    let created = Timestamp::from_wall_nanos(1_790_000_000_000_000_000);
    let wrapped = |version: &str| {
        let kek = Authority::new("local", "fuzz").uri_of("orders").expect("short");
        let version = KekVersion::new(version).expect("short");
        let algorithm = WrapAlgorithm::new("AES-256-GCM").expect("short");
        Wrapped::new(kek, version, algorithm, vec![5; 84]).expect("short")
    };
    let draft = RecordDraft {
        account,
        sequence: Sequence::FIRST,
        created,
        state: RecordState::Active,
        policy: RecordPolicy::default(),
        custody: Custody::Single(Slot { wrapped: wrapped("1"), standby: Some(wrapped("2")) }),
        newest: GenerationEntry::first(&prk, created),
        outer: None,
        older: OlderGenerations::default(),
    };
    let sealed = draft.seal(&prk).expect("consistent").record().to_bytes();
    (prk, sealed)
});
