//! Records that two KEKs hold: byte for byte, and what nobody can make of them.

use super::*;
use crate::derive::{Prks, Secrets};
use crate::error::ErrorKind;
use crate::evidence::report;
use crate::format::policy::RecordPolicy;
use crate::format::record::OlderGenerations;
use crate::format::record::{
    AccountRecord, GenerationEntry, RecordDraft, RecordState, Sequence, VerifiedRecord,
};
use crate::id::{AccountId, Generation};
use crate::provider::WrapRole;
use crate::secret::MemoryLock;

const ACCOUNT: AccountId = AccountId::from_bytes([1; 16]);
const LIMIT: u64 = 86_400;

fn prks(secret: &[u8]) -> Prks {
    let secrets = Secrets { inner: secret, outer: None };
    Prks::extract(ACCOUNT, Generation::FIRST, secrets, MemoryLock::BestEffort).unwrap()
}

fn time(seconds: u64) -> Timestamp {
    Timestamp::from_wall_nanos(seconds * 1_000_000_000)
}

fn slot(kek: &str) -> Slot {
    let version = KekVersion::new("1").unwrap();
    let algorithm = WrapAlgorithm::new("A").unwrap();
    Slot {
        wrapped: Wrapped::new(KekUri::new(kek).unwrap(), version, algorithm, vec![0xC1; 2]).unwrap(),
        standby: None,
    }
}

fn failover() -> Custody {
    let limit = Limit::new(Duration::from_secs(LIMIT)).unwrap();
    let terms = Terms { limit, confirmed: time(7), standing: Standing::UNSEALED };
    Custody::Failover { first: slot("a://x/k"), second: slot("b://y/k"), terms }
}

fn joint() -> Custody {
    Custody::Joint { first: slot("a://x/k"), second: slot("b://y/k") }
}

fn sealed(custody: Custody, prks: &Prks) -> VerifiedRecord {
    let draft = RecordDraft {
        account: ACCOUNT,
        sequence: Sequence::FIRST,
        created: time(5),
        state: RecordState::Active,
        policy: RecordPolicy::default(),
        custody,
        newest: GenerationEntry::first(prks, time(5)),
        outer: None,
        older: OlderGenerations::default(),
    };
    draft.seal(prks).unwrap()
}

/// The bytes of the custody, which begin after 61 others.
fn custody_of(record: &AccountRecord, len: usize) -> Vec<u8> {
    record.to_bytes()[CUSTODY_AT..CUSTODY_AT + len].to_vec()
}

const CUSTODY_AT: usize = 8 + 1 + 16 + 8 + 8 + 1 + 1 + 1 + 4 + 8 + 8 + 4;
const SLOTS: &[u8] =
    b"\0\x01a\0\x07a://x/k\0\x011\0\x01A\0\x02\xC1\xC1\0\0\x01b\0\x07b://y/k\0\x011\0\x01A\0\x02\xC1\xC1\0";

#[test]
fn a7_f1_two_slots_are_laid_out_as_format_md_says() {
    let prks = prks(&[0x5E; 64]);
    let record = sealed(joint(), &prks);
    let expected = [&[3][..], SLOTS].concat();
    assert_eq!(custody_of(record.record(), expected.len()), expected);
    let held = record.record().held();
    assert_eq!(
        held.iter().map(|held| (held.at, held.context.to_bytes()[40])).collect::<Vec<_>>(),
        [(0, 1), (1, 2)]
    );
    assert!(record.record().held_by_second().is_none() && record.record().barred().is_none());

    let record = sealed(failover(), &prks);
    let Some(Terms { standing: Standing::Open { bar }, .. }) = record.record().custody().terms() else {
        panic!("open")
    };
    let terms = [&86_400_u32.to_be_bytes()[..], &7_u64.to_be_bytes(), &[0], bar].concat();
    let expected = [&[2][..], SLOTS, &terms].concat();
    assert_eq!(custody_of(record.record(), expected.len()), expected);
    let held = record.record().held();
    assert_eq!((held.len(), held[0].at, held[0].context.role()), (1, 0, WrapRole::Inner));
    let second = record.record().held_by_second().unwrap();
    assert_eq!((second.len(), second[0].at, second[0].context), (1, 1, held[0].context));
    let again = AccountRecord::parse(&record.record().to_bytes()).unwrap();
    assert_eq!(&again, record.record());
}

#[test]
fn a7_a_refusal_is_recorded_without_a_key_and_taken_back_with_one_only() {
    let prks = prks(&[0x5E; 32]);
    let record = sealed(failover(), &prks);
    let barred = AccountRecord::parse(&record.record().barred().unwrap().to_bytes()).unwrap();
    assert_eq!(barred.sequence().number(), 2);
    assert_eq!(barred.custody().terms().unwrap().standing, Standing::Barred);
    assert!(barred.barred().is_none());
    let barred = record.verify_successor(barred, &prks).unwrap();
    // Every single byte of it counts.
    let bytes = barred.record().to_bytes();
    for at in 0..bytes.len() {
        let mut forged = bytes.clone();
        forged[at] ^= 1;
        assert!(AccountRecord::parse(&forged).and_then(|forged| forged.verify(&prks)).is_err(), "byte {at}");
    }
    let open = barred.confirmed(time(9)).unwrap().unwrap().seal(&prks).unwrap();
    let terms = *open.record().custody().terms().unwrap();
    assert_eq!((open.record().sequence().number(), terms.confirmed), (4, time(9)));
    assert!(open.record().barred().unwrap().verify(&prks).is_ok());
}

#[test]
fn a7_slots_that_were_swapped_or_replaced_and_another_kind_of_custody_are_no_record() {
    let prks = prks(&[0x5E; 64]);
    for custody in [failover(), joint()] {
        let bytes = sealed(custody.clone(), &prks).record().to_bytes();
        let swap = |from: &[u8], to: &[u8]| {
            let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
            [&bytes[..at], to, &bytes[at + from.len()..]].concat()
        };
        let half = SLOTS.len() / 2;
        let swapped = swap(SLOTS, &[&SLOTS[half..], &SLOTS[..half]].concat());
        let theirs = swap(b"b://y/k", b"b://z/k");
        let single = swap(SLOTS, &SLOTS[..half]);
        for forged in [swapped, theirs, single] {
            let kind =
                AccountRecord::parse(&forged).and_then(|forged| forged.verify(&prks)).unwrap_err().kind();
            assert!(matches!(kind, ErrorKind::Untrusted | ErrorKind::Format));
        }
    }
}

#[test]
fn f5_r4_every_flipped_bit_of_a_record_that_two_keks_hold_is_refused() {
    let (mut bits, mut rejected) = (0, 0);
    let open = || sealed(failover(), &prks(&[0x5E; 32])).record().clone();
    let records = [
        (open(), prks(&[0x5E; 32])),
        (open().barred().unwrap(), prks(&[0x5E; 32])),
        (sealed(joint(), &prks(&[0x5E; 64])).record().clone(), prks(&[0x5E; 64])),
    ];
    for (record, prks) in records {
        let bytes = record.to_bytes();
        record.verify(&prks).expect("the original is fine");
        bits += 8 * bytes.len();
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let believed = AccountRecord::parse(&flipped).and_then(|record| record.verify(&prks));
            let error = believed.expect_err("a flipped bit");
            assert!(matches!(error.kind(), ErrorKind::Format | ErrorKind::Untrusted), "bit {bit}: {error}");
            rejected += 1;
        }
    }
    report("R4", "flips of three records of two KEKs rejected", rejected, "=", bits);
}

#[test]
fn a7_f2_terms_are_bounded_and_two_keks_are_two() {
    assert!(
        Limit::new(Duration::ZERO).is_none() && Limit::new(Limit::MOST + Duration::from_secs(1)).is_none()
    );
    assert_eq!(Limit::new(Limit::MOST).unwrap().duration(), Limit::MOST);
    let prks = prks(&[0x5E; 32]);
    let bytes = sealed(failover(), &prks).record().to_bytes();
    let limit_at = CUSTODY_AT + 1 + SLOTS.len();
    for limit in [0_u32, 604_801] {
        let mut forged = bytes.clone();
        forged[limit_at..limit_at + 4].copy_from_slice(&limit.to_be_bytes());
        assert_eq!(AccountRecord::parse(&forged).unwrap_err().kind(), ErrorKind::Format);
    }
    let mut forged = bytes.clone();
    forged[CUSTODY_AT] = 4;
    assert_eq!(AccountRecord::parse(&forged).unwrap_err().kind(), ErrorKind::Format);
    let one = Custody::Joint { first: slot("a://x/k"), second: slot("a://x/k") };
    let draft = RecordDraft { custody: one, ..sealed(joint(), &prks).successor().unwrap() };
    assert_eq!(draft.seal(&prks).unwrap_err().kind(), ErrorKind::Misuse);
}

#[test]
fn a7_both_shares_are_in_the_key_in_their_order() {
    let shares = [[1_u8; 32], [2; 32]];
    let kcvs = [
        prks(&shares.concat()).kcv(),
        prks(&[shares[1], shares[0]].concat()).kcv(),
        prks(&shares[0]).kcv(),
        prks(&shares[1]).kcv(),
    ];
    for (at, kcv) in kcvs.iter().enumerate() {
        assert!(kcvs.iter().skip(at + 1).all(|other| !kcv.ct_eq(other)));
    }
}
