//! What a record says, and every way in which it is not believed.

use std::time::Duration;

use proptest::prelude::*;

use super::custody::MAX_PROVIDER_LEN;
use super::*;
use crate::derive::{Kcv, Secrets};
use crate::evidence::report;
use crate::format::policy::{GenerationLimits, VersionPolicy};
use crate::provider::{KekVersion, WrapAlgorithm};
use crate::secret::MemoryLock;

const SECRET: [u8; 32] = [0x5E; 32];

fn account(byte: u8) -> AccountId {
    AccountId::from_bytes([byte; 16])
}

fn prk_of(account: AccountId, secret: &[u8; 32]) -> Prks {
    Prks::extract(account, Generation::FIRST, Secrets::single(secret), MemoryLock::BestEffort).unwrap()
}

fn seconds(seconds: u64) -> Timestamp {
    Timestamp::from_wall_nanos(seconds * 1_000_000_000)
}

fn wrap(kek: &str, version: &str) -> Wrapped {
    Wrapped::new(
        KekUri::new(kek).unwrap(),
        KekVersion::new(version).unwrap(),
        WrapAlgorithm::new("AES-256-GCM").unwrap(),
        vec![0xC1; 84],
    )
    .unwrap()
}

fn single(kek: &str, version: &str) -> Custody {
    Custody::Single(Slot { wrapped: wrap(kek, version), standby: None })
}

/// Beside version 1 of `orders`, a standby.
fn with_standby(kek: &str, version: &str) -> Custody {
    Custody::Single(Slot { wrapped: wrap("local://abc/orders", "1"), standby: Some(wrap(kek, version)) })
}

fn draft(account: AccountId, prk: &Prks) -> RecordDraft {
    RecordDraft {
        account,
        sequence: Sequence::FIRST,
        created: seconds(1_790_000_000),
        state: RecordState::Active,
        policy: RecordPolicy::default().with_max_grace(Duration::from_secs(600)),
        custody: single("local://abc/orders", "1"),
        newest: GenerationEntry::first(prk, seconds(1_790_000_000)),
        outer: None,
        older: OlderGenerations::default(),
    }
}

/// For tests elsewhere: a record of `account` under `kek`, as it is parsed.
pub(crate) fn sealed_by(account: AccountId, kek: &KekUri, sequence: Sequence) -> AccountRecord {
    let prk = prk_of(account, &SECRET);
    let custody = single(kek.as_str(), "1");
    RecordDraft { sequence, custody, ..draft(account, &prk) }.seal(&prk).unwrap().record().clone()
}

/// A record with everything optional in it, and its key.
fn full() -> (Vec<u8>, Prks) {
    let prk = prk_of(account(1), &SECRET);
    let state = RecordState::Deleted { at: seconds(5), recoverable_until: seconds(9) };
    let custody = with_standby("local://abc/orders", "2");
    let record = RecordDraft { state, custody, ..draft(account(1), &prk) }.seal(&prk).unwrap();
    (record.record().to_bytes(), prk)
}

fn small() -> (Vec<u8>, Prks) {
    let prk = prk_of(account(1), &SECRET);
    let record = draft(account(1), &prk).seal(&prk).unwrap();
    (record.record().to_bytes(), prk)
}

fn verify(bytes: &[u8], prk: &Prks) -> Result<VerifiedRecord, Error> {
    AccountRecord::parse(bytes)?.verify(prk)
}

/// The offset of `needle`, which is there exactly once.
fn find(bytes: &[u8], needle: &[u8]) -> usize {
    let found: Vec<_> =
        bytes.windows(needle.len()).enumerate().filter(|(_, w)| *w == needle).map(|(at, _)| at).collect();
    assert_eq!(found.len(), 1);
    found[0]
}

#[test]
fn f1_a_record_is_laid_out_as_format_md_says() {
    let (bytes, prk) = small();
    let mut expected = b"\x89SRR\r\n\x1a\n\x01".to_vec();
    expected.extend([1; 16]);
    expected.extend(1_u64.to_be_bytes());
    expected.extend(1_790_000_000_u64.to_be_bytes());
    expected.push(1);
    expected.extend([1, 1]);
    expected.extend(600_u32.to_be_bytes());
    expected.extend((1_u64 << 48).to_be_bytes());
    expected.extend((1_u64 << 60).to_be_bytes());
    expected.extend(365_u32.to_be_bytes());
    expected.push(1);
    expected.extend(b"\0\x05local\0\x12local://abc/orders\0\x011\0\x0bAES-256-GCM\0\x54");
    expected.extend([0xC1; 84]);
    expected.push(0);
    expected.extend([0, 0, 0, 1, 1]);
    expected.extend(1_790_000_000_u64.to_be_bytes());
    expected.extend(1_790_000_000_u64.to_be_bytes());
    expected.extend(prk.kcv().as_bytes());
    expected.extend([0, 0]);
    let mac = prk.mac(MacUse::Record, b"account record", &[&expected]);
    expected.extend(mac);
    assert_eq!(bytes, expected);
}

#[test]
fn f1_parse_then_write_gives_the_same_bytes() {
    for (bytes, prk) in [full(), small()] {
        let record = AccountRecord::parse(&bytes).unwrap();
        assert_eq!(record.to_bytes(), bytes);
        let again = record.clone().verify(&prk).unwrap();
        assert_eq!(again.record().draft.clone().seal(&prk).unwrap().record().to_bytes(), bytes);
    }
}

#[test]
fn a8_what_a_record_says_is_what_was_sealed() {
    let (bytes, prk) = full();
    let verified = verify(&bytes, &prk).unwrap();
    let record = verified.record();
    assert_eq!(record.account(), account(1));
    assert_eq!(record.sequence(), Sequence::FIRST);
    assert_eq!(record.kek().as_str(), "local://abc/orders");
    assert_eq!(record.kek_version().as_str(), "1");
    assert_eq!(record.standby_version().unwrap().as_str(), "2");
    assert_eq!(record.standby(), Some(&wrap("local://abc/orders", "2")));
    assert_eq!(record.generation(), Generation::FIRST);
    assert_eq!(record.fingerprint(), KeyFingerprint::of(&prk.kcv()));
    assert_eq!(record.created(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000));
    assert_eq!(record.wrap_context().account(), account(1));
    assert_eq!(verified.policy().max_grace(), Some(Duration::from_secs(600)));
    assert!(matches!(verified.state(), RecordState::Deleted { .. }));
}

#[test]
fn f5_r4_every_flipped_bit_is_refused() {
    let (mut bits, mut rejected) = (0, 0);
    for (bytes, prk) in [full(), small()] {
        verify(&bytes, &prk).expect("the original is fine");
        bits += 8 * bytes.len();
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let error = verify(&flipped, &prk).expect_err("a flipped bit");
            assert!(matches!(error.kind(), ErrorKind::Format | ErrorKind::Untrusted), "bit {bit}: {error}");
            rejected += 1;
        }
    }
    report("R4", "flips of two records rejected", rejected, "=", bits);
}

#[test]
fn f1_every_truncation_and_extension_is_refused() {
    for (bytes, prk) in [full(), small()] {
        for len in 0..bytes.len() {
            let error = verify(&bytes[..len], &prk).expect_err("truncated");
            assert!(matches!(error.kind(), ErrorKind::Format | ErrorKind::Untrusted), "{len}: {error}");
            let error = verify(&bytes[bytes.len() - len..], &prk).expect_err("beheaded");
            assert_eq!(error.kind(), ErrorKind::Format);
        }
        for (end, count) in [(0, 1), (0xFF, 1), (0, 32), (0, 4096)] {
            let mut longer = bytes.clone();
            longer.resize(bytes.len() + count, end);
            assert_eq!(verify(&longer, &prk).expect_err("trailing").kind(), ErrorKind::Format);
        }
        let content = bytes.len() - MAC_LEN;
        for at in 0..content {
            let mut longer = bytes.clone();
            longer.insert(at, 0);
            verify(&longer, &prk).expect_err("a byte inserted");
        }
    }
}

#[test]
fn f2_a_record_above_its_limit_is_refused() {
    let (mut bytes, _) = small();
    bytes.resize(AccountRecord::MAX_LEN + 1, 0);
    let error = AccountRecord::parse(&bytes).expect_err("too long");
    assert_eq!((error.kind(), error.to_string().contains("1 MiB")), (ErrorKind::Format, true));
    bytes.truncate(AccountRecord::MAX_LEN);
    assert!(!AccountRecord::parse(&bytes).expect_err("trailing").to_string().contains("1 MiB"));
}

#[test]
fn f1_unknown_versions_suites_kinds_states_and_counts_are_refused() {
    let (bytes, prk) = small();
    let fingerprint = find(&bytes, prk.kcv().as_bytes());
    let cases = [
        (8, 2, "version"),
        (8, 0, "version"),
        (32, 0, "sequence"),
        (33, 0xFF, "year"),
        (41, 0, "state"),
        (41, 3, "state"),
        (68, 0, "custody"),
        (68, 4, "custody"),
        (fingerprint - 18, 0, "generation"),
        (fingerprint - 17, 0, "suite"),
        (fingerprint - 17, 3, "suite"),
        (fingerprint - 1, 0, "active"),
        (fingerprint - 22, 2, "flag"),
        (fingerprint + 32, 2, "older"),
        (fingerprint + 33, 1, "truncated"),
    ];
    for (at, value, what) in cases {
        let mut bad = bytes.clone();
        bad[at] = value;
        let error = AccountRecord::parse(&bad).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Format, "{what}: {error}");
        assert!(error.to_string().contains(what), "{what}: {error}");
    }
}

#[test]
fn a8_f3_nothing_moves_from_one_record_to_another() {
    let (mine, theirs) = (prk_of(account(1), &SECRET), prk_of(account(2), &[7; 32]));
    let base = draft(account(1), &mine);
    let sealed = base.clone().seal(&mine).unwrap();
    let other = RecordDraft { custody: single("local://abc/mines!", "3"), ..draft(account(2), &theirs) };
    let other = other.seal(&theirs).unwrap();
    let (bytes, foreign) = (sealed.record().to_bytes(), other.record().to_bytes());
    assert_eq!(bytes.len(), foreign.len());

    let kek = find(&bytes, b"local://abc/orders");
    let fingerprint = find(&bytes, mine.kcv().as_bytes());
    let mac = bytes.len() - MAC_LEN;
    let swaps = [
        ("account", 9..25),
        ("kek", kek..kek + 18),
        ("version", kek + 20..kek + 21),
        ("fingerprint", fingerprint..fingerprint + 32),
        ("mac", mac..bytes.len()),
        ("all but the mac", 0..mac),
    ];
    for (what, range) in swaps {
        let mut swapped = bytes.clone();
        swapped[range.clone()].copy_from_slice(&foreign[range]);
        assert_ne!(swapped, bytes, "{what} differs");
        for prk in [&mine, &theirs] {
            let error = verify(&swapped, prk).expect_err(what);
            assert_eq!(error.kind(), ErrorKind::Untrusted, "{what}");
        }
    }
}

#[test]
fn a5_a8_another_key_verifies_nothing() {
    let (bytes, _) = full();
    let wrong_secret = prk_of(account(1), &[0x5F; 32]);
    let wrong_account = prk_of(account(2), &SECRET);
    let generation = Generation::new(2).unwrap();
    let wrong_generation =
        Prks::extract(account(1), generation, Secrets::single(&SECRET), MemoryLock::BestEffort).unwrap();
    for prk in [wrong_secret, wrong_account, wrong_generation] {
        assert_eq!(verify(&bytes, &prk).expect_err("another key").kind(), ErrorKind::Untrusted);
    }
}

#[test]
fn a8_a_forged_record_is_refused_under_the_real_key() {
    // The forger knows the format and the fingerprint, but not the AEK.
    let (real, forger) = (prk_of(account(1), &SECRET), prk_of(account(1), &[0x66; 32]));
    let newest = draft(account(1), &real).newest;
    let wish = RecordDraft { newest, ..draft(account(1), &forger) };
    assert_eq!(wish.clone().seal(&forger).expect_err("not its key").kind(), ErrorKind::Misuse);
    let mut bytes = wish.write().into_bytes();
    let mac = forger.mac(MacUse::Record, MAC_NAME, &[&bytes]);
    bytes.extend(mac);
    for prk in [&real, &forger] {
        assert_eq!(verify(&bytes, prk).expect_err("forged").kind(), ErrorKind::Untrusted);
    }
    // A MAC of another use, or under another name, is no MAC of a record.
    let content = bytes[..bytes.len() - MAC_LEN].to_vec();
    let macs = [
        real.mac(MacUse::ObjectHeader, MAC_NAME, &[&content]),
        real.mac(MacUse::ObjectHeader, MAC_NAME, &[&content]),
        real.mac(MacUse::Record, b"", &[&content]),
    ];
    for mac in macs {
        let forged = [&content[..], &mac].concat();
        assert_eq!(verify(&forged, &real).expect_err("forged").kind(), ErrorKind::Untrusted);
    }
}

#[test]
fn e3_f6_a_process_adopts_only_a_newer_record_of_the_same_key() {
    let prk = prk_of(account(1), &SECRET);
    let first = draft(account(1), &prk).seal(&prk).unwrap();
    let rotated = RecordDraft { custody: single("local://abc/orders", "2"), ..first.successor().unwrap() };
    let second = rotated.clone().seal(&prk).unwrap();
    let third = second.successor().unwrap().seal(&prk).unwrap();

    let adopted = first.verify_successor(second.record().clone(), &prk).unwrap();
    assert_eq!(adopted.record().kek_version().as_str(), "2");
    assert_eq!(adopted.record().sequence().number(), 2);
    first.verify_successor(third.record().clone(), &prk).expect("versions may be skipped");

    let refuse = |current: &VerifiedRecord, next: AccountRecord, why| {
        let error = current.verify_successor(next, &prk).expect_err(why);
        assert_eq!((error.kind(), error.account()), (ErrorKind::Untrusted, Some(account(1))), "{why}");
    };
    refuse(&third, second.record().clone(), "rolled back");
    refuse(&second, second.record().clone(), "replayed");

    let mut forged = second.record().to_bytes();
    let at = find(&forged, b"local://abc/orders") + 20;
    forged[at] = b'9';
    refuse(&first, AccountRecord::parse(&forged).unwrap(), "forged");

    let stranger = prk_of(account(2), &SECRET);
    let other = RecordDraft { sequence: Sequence::new(9).unwrap(), ..draft(account(2), &stranger) };
    refuse(&first, other.seal(&stranger).unwrap().record().clone(), "another account");

    // Even under the right key, a generation that is in use never changes.
    let mut newest = rotated.newest;
    newest.active_from = newest.active_from.plus(Duration::from_secs(1));
    let changed = RecordDraft { newest, ..rotated.clone() }.seal(&prk).unwrap();
    refuse(&first, changed.record().clone(), "another entry");
    let changed = RecordDraft { created: seconds(1), ..rotated }.seal(&prk).unwrap();
    refuse(&first, changed.record().clone(), "another creation");
}

#[test]
fn f1_a_draft_that_contradicts_itself_is_not_sealed() {
    let prk = prk_of(account(1), &SECRET);
    let good = draft(account(1), &prk);
    let mut late = good.clone();
    late.newest.created = late.newest.created.plus(Duration::from_secs(1));
    let drafts = [
        RecordDraft { custody: with_standby("local://abc/other", "2"), ..good.clone() },
        RecordDraft { custody: with_standby("local://abc/orders", "1"), ..good.clone() },
        RecordDraft { custody: single("no provider", "1"), ..good.clone() },
        RecordDraft { custody: single("://endpoint/name", "1"), ..good.clone() },
        RecordDraft { custody: single(&format!("{}://a/b", "p".repeat(65)), "1"), ..good.clone() },
        RecordDraft {
            state: RecordState::Deleted { at: seconds(2), recoverable_until: seconds(1) },
            ..good.clone()
        },
        late,
    ];
    for draft in drafts {
        assert_eq!(draft.seal(&prk).expect_err("contradicts itself").kind(), ErrorKind::Misuse);
    }
    let last = RecordDraft { sequence: Sequence::new(u64::MAX).unwrap(), ..good };
    assert_eq!(last.seal(&prk).unwrap().successor().expect_err("the end").kind(), ErrorKind::Limit);
}

#[test]
fn f2_the_largest_record_is_far_below_its_limit() {
    let prk = prk_of(account(1), &SECRET);
    let largest = |version: &str| {
        Wrapped::new(
            KekUri::new(format!("{}://{}", "p".repeat(MAX_PROVIDER_LEN), "n".repeat(1024 - 67))).unwrap(),
            KekVersion::new(version.repeat(KekVersion::MAX_LEN)).unwrap(),
            WrapAlgorithm::new("a".repeat(WrapAlgorithm::MAX_LEN)).unwrap(),
            vec![1; Wrapped::MAX_LEN],
        )
        .unwrap()
    };
    let record = RecordDraft {
        custody: Custody::Single(Slot { wrapped: largest("1"), standby: Some(largest("2")) }),
        state: RecordState::Deleted { at: seconds(1), recoverable_until: seconds(2) },
        ..draft(account(1), &prk)
    };
    let bytes = record.seal(&prk).unwrap().record().to_bytes();
    verify(&bytes, &prk).unwrap();
    // 256 older generations of 127 bytes and a link MAC still fit many times over.
    assert!(bytes.len() + 256 * 127 + 32 < AccountRecord::MAX_LEN / 16, "{}", bytes.len());
}

#[test]
fn debug_shows_no_ciphertext_and_fingerprints_read_back() {
    let (bytes, prk) = full();
    let shown = format!("{:?}", AccountRecord::parse(&bytes).unwrap());
    assert!(shown.contains("local://abc/orders") && !shown.contains("193, 193") && !shown.contains("c1c1"));
    let fingerprint = KeyFingerprint::of(&prk.kcv());
    assert_eq!(fingerprint.to_string().parse::<KeyFingerprint>().unwrap(), fingerprint);
    for bad in ["", "00", &"g".repeat(64), &"+1".repeat(32), &"é".repeat(32)] {
        assert_eq!(bad.parse::<KeyFingerprint>().expect_err(bad).kind(), ErrorKind::Misuse);
    }
    assert!(!fingerprint.is_of(&Kcv::from_bytes([0; 32])));
}

prop_compose! {
    fn any_wrap(kek: String)(
        version in "[ -~]{1,256}",
        algorithm in "[!-~é]{1,32}",
        bytes in proptest::collection::vec(any::<u8>(), 1..=4096),
    ) -> Wrapped {
        Wrapped::new(
            KekUri::new(kek.clone()).unwrap(),
            KekVersion::new(version).unwrap(),
            WrapAlgorithm::new(algorithm).unwrap(),
            bytes,
        ).unwrap()
    }
}

prop_compose! {
    fn any_policy()(
        grace in proptest::option::of(any::<u32>()),
        consent in any::<bool>(),
        pinned in any::<bool>(),
        seals in 1..=GenerationLimits::MAX_SEALS,
        bytes in 1..=GenerationLimits::MAX_BYTES,
        days in 1..=GenerationLimits::MAX_AGE_DAYS,
    ) -> RecordPolicy {
        let mut policy = RecordPolicy::default().with_limits(GenerationLimits::new(seals, bytes, days).unwrap());
        if let Some(grace) = grace {
            policy = policy.with_max_grace(Duration::from_secs(grace.into()));
        }
        if consent {
            policy = policy.with_whole_outage_consent();
        }
        if pinned { policy.with_version_policy(VersionPolicy::Pinned) } else { policy }
    }
}

fn any_draft() -> impl Strategy<Value = RecordDraft> {
    let wraps = "[a-z]{1,64}://[!-~]{1,100}".prop_flat_map(|kek| {
        (any_wrap(kek.clone()), proptest::option::of(any_wrap(kek))).prop_filter(
            "two versions",
            |(wrapped, standby)| {
                standby.as_ref().is_none_or(|standby| standby.version() != wrapped.version())
            },
        )
    });
    let times = (0..18_000_000_000_u64, 0..18_000_000_000_u64, proptest::option::of(0..18_000_000_000_u64));
    (any::<[u8; 16]>(), 1..u64::MAX, 1..u32::MAX, times, any_policy(), wraps, any::<[u8; 32]>()).prop_map(
        |(account, sequence, number, (created, later, deleted), policy, (wrapped, standby), secret)| {
            let account = AccountId::from_bytes(account);
            let number = Generation::new(number).unwrap();
            let prk =
                Prks::extract(account, number, Secrets::single(&secret), MemoryLock::BestEffort).unwrap();
            let at = deleted.map(seconds);
            RecordDraft {
                account,
                sequence: Sequence::new(sequence).unwrap(),
                created: seconds(created),
                state: at.map_or(RecordState::Active, |at| RecordState::Deleted {
                    at,
                    recoverable_until: at.plus(Duration::from_secs(later)),
                }),
                policy,
                custody: Custody::Single(Slot { wrapped, standby }),
                newest: GenerationEntry {
                    number,
                    suite: Suite::Aes256Gcm,
                    created: seconds(created),
                    active_from: seconds(created).plus(Duration::from_secs(later)),
                    fingerprint: KeyFingerprint::of(&prk.kcv()),
                    outer: None,
                },
                outer: None,
                older: OlderGenerations::default(),
            }
        },
    )
}

proptest! {
    #[test]
    fn f1_any_draft_reads_back(draft in any_draft()) {
        let bytes = draft.write().into_bytes();
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(RecordDraft::parse(&mut reader).unwrap(), draft);
        reader.finish().unwrap();
    }

    #[test]
    fn f1_f2_what_parses_has_one_encoding(
        draft in any_draft(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = draft.write().into_bytes();
        for (at, value) in edits {
            *at.get_mut(&mut bytes) = value;
        }
        bytes.extend([0; MAC_LEN]);
        if let Ok(record) = AccountRecord::parse(&bytes) {
            prop_assert_eq!(record.draft.write().into_bytes(), &bytes[..bytes.len() - MAC_LEN]);
            prop_assert_eq!(record.to_bytes(), bytes);
        }
    }

    #[test]
    fn f2_hostile_bytes_are_refused_without_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..2048),
        headed in any::<bool>(),
    ) {
        if headed && bytes.len() > MAGIC.len() {
            bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
            bytes[MAGIC.len()] = VERSION;
        }
        let error = AccountRecord::parse(&bytes).expect_err("noise");
        prop_assert_eq!(error.kind(), ErrorKind::Format);
    }
}
