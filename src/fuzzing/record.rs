//! Account records: parse and write give the same bytes, and no change of a sealed record is believed.

use std::sync::LazyLock;
use std::time::Duration;

use super::Input;
use crate::derive::{Prks, Secrets};
use crate::error::ErrorKind;
use crate::format::policy::RecordPolicy;
use crate::format::record::{
    AccountRecord, Custody, GenerationEntry, Limit, OlderGenerations, RecordDraft, RecordState, Sequence,
    Slot, Standing, Terms, Timestamp,
};
use crate::id::{AccountId, Generation};
use crate::provider::{Authority, KekVersion, WrapAlgorithm, Wrapped};
use crate::secret::MemoryLock;

/// The first byte chooses: the rest is a record, or a list of changes to a record that verifies, of one custody or another.
pub fn record(data: &[u8]) {
    match data.split_first() {
        Some((0, changes)) => changed(&SEALED[0], changes),
        Some((2, changes)) => changed(&SEALED[1], changes),
        Some((3, changes)) => changed(&SEALED[2], changes),
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
            if let Some(barred) = record.barred() {
                AccountRecord::parse(&barred.to_bytes()).expect("what a refusal makes of a record is one");
            }
            for (prks, sealed) in SEALED.iter().filter(|(_, sealed)| data != sealed) {
                let Err(error) = record.clone().verify(prks) else {
                    let made = AccountRecord::parse(sealed).expect("was sealed").barred();
                    assert_eq!(Some(record), made, "nobody else has the key");
                    return;
                };
                assert_eq!(error.kind(), ErrorKind::Untrusted);
            }
        }
    }
}

fn changed((prk, sealed): &(Prks, Vec<u8>), changes: &[u8]) {
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

/// Records with everything in them, and the key that authenticates each: of one KEK, and of two under failover and under joint custody.
pub(super) static SEALED: LazyLock<[(Prks, Vec<u8>); 3]> = LazyLock::new(|| {
    let slot = |kek: &str| Slot { wrapped: wrapped(kek, "1"), standby: Some(wrapped(kek, "2")) };
    let (first, second) = (|| slot("orders"), || slot("others"));
    let limit = Limit::new(Duration::from_secs(86_400)).expect("a day");
    let terms = Terms { limit, confirmed: created(), standing: Standing::UNSEALED };
    [
        sealed(&[9; 32], Custody::Single(first())),
        sealed(&[9; 32], Custody::Failover { first: first(), second: second(), terms }),
        sealed(&[9; 64], Custody::Joint { first: first(), second: second() }),
    ]
});

fn sealed(secret: &[u8], custody: Custody) -> (Prks, Vec<u8>) {
    let account = AccountId::from_bytes([7; 16]);
    let secrets = Secrets { inner: secret, outer: None };
    let prk = Prks::extract(account, Generation::FIRST, secrets, MemoryLock::BestEffort)
        .expect("one slot of memory");
    let draft = RecordDraft {
        account,
        sequence: Sequence::FIRST,
        created: created(),
        state: RecordState::Active,
        policy: RecordPolicy::default(),
        custody,
        newest: GenerationEntry::first(&prk, created()),
        outer: None,
        older: OlderGenerations::default(),
    };
    let sealed = draft.seal(&prk).expect("consistent").record().to_bytes();
    (prk, sealed)
}

fn created() -> Timestamp {
    Timestamp::from_wall_nanos(1_790_000_000_000_000_000)
}

fn wrapped(kek: &str, version: &str) -> Wrapped {
    let kek = Authority::new("local", "fuzz").uri_of(kek).expect("short");
    let version = KekVersion::new(version).expect("short");
    let algorithm = WrapAlgorithm::new("AES-256-GCM").expect("short");
    Wrapped::new(kek, version, algorithm, vec![5; 84]).expect("short")
}
