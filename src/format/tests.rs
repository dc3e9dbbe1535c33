//! `docs/FORMAT.md` says what the code does: its limits, and its example.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use crate::block::{GenerationKeys, MAX_AAD, Place};
use crate::derive::{Kind, MacUse, Secrets};
use crate::error::{Error, ErrorKind};
use crate::expect::Expect;
use crate::format::frame::{Detached, MAX_BLOCK, split};
use crate::format::object::{BlockSize, Context};
use crate::format::operation::{OperationKind, OperationState, OperationStatus};
use crate::format::policy::{GenerationLimits, RecordPolicy, VersionPolicy};
use crate::format::record::{AccountRecord, KeyFingerprint, Sequence};
use crate::format::scope::ScopeState;
use crate::format::tombstone::{Purged, Tombstone};
use crate::id::{Aad, AccountId, BlockId, Generation, ObjectId, ScopeId};
use crate::provider::{KekUri, KekVersion, LocalKms, WrapAlgorithm, WrapContext, WrapInput, Wrapped};
use crate::record_store::RecordTag;
use crate::secret::MemoryLock;

const FORMAT: &str = include_str!("../../docs/FORMAT.md");

/// The bytes of the example called `name`, over all its lines.
fn example(name: &str) -> Vec<u8> {
    let begin = format!("\n{name:<11}= ");
    let (_, rest) = FORMAT.split_once(&begin).expect("is in the document");
    let mut lines = rest.lines();
    let mut digits = lines.next().expect("has a line").to_owned();
    lines.take_while(|line| line.starts_with(' ')).for_each(|line| digits.push_str(line.trim()));
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn fixed<const N: usize>(name: &str) -> [u8; N] {
    example(name).try_into().expect("has the length that its type has")
}

fn account() -> AccountId {
    AccountId::from_bytes(fixed("account"))
}

fn keys() -> GenerationKeys {
    let lock = MemoryLock::BestEffort;
    GenerationKeys::new(account(), Generation::FIRST, Secrets::single(&fixed("secret")), lock).unwrap()
}

#[test]
fn f2_format_md_has_every_limit_with_its_value() {
    let limits = [
        ("MAX_BLOCK", MAX_BLOCK as u64),
        ("MAX_AAD", MAX_AAD as u64),
        ("BlockSize::MIN", BlockSize::MIN.bytes() as u64),
        ("BlockSize::MAX", BlockSize::MAX.bytes() as u64),
        ("MAX_PLAIN_LEN", super::object::MAX_PLAIN_LEN),
        ("AccountRecord::MAX_LEN", AccountRecord::MAX_LEN as u64),
        ("MAX_PROVIDER_LEN", super::record::MAX_PROVIDER_LEN as u64),
        ("MAX_OLDER", super::record::MAX_OLDER as u64),
        ("MAX_SEALED_LEN", super::record::MAX_SEALED_LEN as u64),
        ("Limit::MOST", super::record::Limit::MOST.as_secs()),
        ("KekUri::MAX_LEN", KekUri::MAX_LEN as u64),
        ("KekVersion::MAX_LEN", KekVersion::MAX_LEN as u64),
        ("WrapAlgorithm::MAX_LEN", WrapAlgorithm::MAX_LEN as u64),
        ("Wrapped::MAX_LEN", Wrapped::MAX_LEN as u64),
        ("WrapInput::LEN", WrapInput::LEN as u64),
        ("WrapContext::LEN", WrapContext::LEN as u64),
        ("Timestamp::MAX", super::record::Timestamp::MAX),
        ("GenerationLimits::MAX_SEALS", GenerationLimits::MAX_SEALS),
        ("GenerationLimits::MAX_BYTES", GenerationLimits::MAX_BYTES),
        ("GenerationLimits::MAX_AGE_DAYS", GenerationLimits::MAX_AGE_DAYS.into()),
        ("ScopeState::MAX_CUSTOMERS", ScopeState::MAX_CUSTOMERS as u64),
        ("ScopeState::MAX_LEN", ScopeState::MAX_LEN as u64),
        ("ScopeState::MOST_CONFIRMED_WITHIN", ScopeState::MOST_CONFIRMED_WITHIN.as_secs()),
        ("OperationState::MAX_CURSOR", OperationState::MAX_CURSOR as u64),
        ("OperationState::MAX_LEN", OperationState::MAX_LEN as u64),
        ("MAX_MESSAGE", super::operation::MAX_MESSAGE as u64),
        ("RecordTag::MAX_LEN", RecordTag::MAX_LEN as u64),
        ("LISTED_AT_ONCE", crate::record_store::archive::LISTED_AT_ONCE as u64),
    ];
    for (name, value) in limits {
        let row = format!("| `{name}` | {value} |");
        assert!(FORMAT.contains(&row), "{row}");
    }
}

#[cfg(any(feature = "object-store", feature = "object-store-0-13"))]
#[test]
fn f2_format_md_has_every_limit_of_a_manifest_with_its_value() {
    use super::takeover::{
        MAX_OBJECTS, MAX_PATH_LEN, MAX_SEGMENT_ENTRIES, MAX_SEGMENT_LEN, MAX_SEGMENTS, MAX_TAG_LEN,
    };
    let limits = [
        ("MAX_OBJECTS", MAX_OBJECTS),
        ("MAX_SEGMENTS", MAX_SEGMENTS.into()),
        ("MAX_SEGMENT_ENTRIES", MAX_SEGMENT_ENTRIES as u64),
        ("MAX_SEGMENT_LEN", MAX_SEGMENT_LEN as u64),
        ("MAX_PATH_LEN", MAX_PATH_LEN as u64),
        ("MAX_TAG_LEN", MAX_TAG_LEN as u64),
        ("TakeoverMark::MAX_LEN", crate::store::TakeoverMark::MAX_LEN as u64),
    ];
    for (name, value) in limits {
        let row = format!("| `{name}` | {value} |");
        assert!(FORMAT.contains(&row), "{row}");
    }
}

#[test]
fn f1_format_md_s_wrap_is_the_wrap() {
    let record = AccountRecord::parse(&example("record")).unwrap();
    let context = record.wrap_context();
    assert_eq!(context.to_bytes(), fixed("context"));
    let input = WrapInput::from_slice(&example("wrap_input")).unwrap();
    assert_eq!(input.secret_for(&context), Some(&fixed("secret")));
    assert_eq!(record.wrapped().bytes(), example("wrapped"));
}

#[test]
fn f1_b2_format_md_s_local_kms_file_unwraps() {
    let at = FORMAT.rfind("{\"format\"").expect("the file is in the document");
    let file = FORMAT[at..].strip_suffix("```\n").expect("and ends it");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kms.json");
    std::fs::write(&path, file).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();

    let record = AccountRecord::parse(&example("record")).unwrap();
    let kms = Arc::new(LocalKms::open(&path).unwrap());
    let providers = Expect::account(account()).kek(kms, "orders").admit(&record).unwrap();
    let input = providers[0].unwrap(record.wrapped(), &record.wrap_context()).unwrap();
    assert_eq!(input.secret_for(&record.wrap_context()), Some(&fixed("secret")));
}

#[test]
fn f1_format_md_s_record_verifies() {
    let record = AccountRecord::parse(&example("record")).unwrap();
    let keys = keys();
    assert_eq!(keys.kcv().as_bytes(), &fixed("KCV"));
    let verified = record.verify(keys.prks()).unwrap();
    assert_eq!(verified.record().account(), account());
    assert_eq!(verified.record().sequence().number(), 3);
    assert_eq!(verified.policy().max_grace().expect("is given").as_secs(), 600);
}

#[test]
fn f1_e9_format_md_s_scope_verifies() {
    let stored = example("scope");
    let (state, content, mac) = ScopeState::parse(&stored).unwrap();
    keys().verify_mac(MacUse::Scope, b"scope state", &[content], mac).unwrap();
    let scope = ScopeId::from_bytes(0xE0E1_E2E3_E4E5_E6E7_E8E9_EAEB_ECED_EEEF_u128.to_be_bytes());
    let customer = AccountId::from_bytes(0xF0F1_F2F3_F4F5_F6F7_F8F9_FAFB_FCFD_FEFF_u128.to_be_bytes());
    assert_eq!((state.scope(), state.sequence().number(), state.service()), (scope, 2, account()));
    assert_eq!((state.writes_to(), state.customers()), (customer, &[customer][..]));
    assert_eq!([&state.content()[..], mac].concat(), stored);
}

#[test]
fn f1_e8_format_md_s_operation_verifies() {
    let stored = example("operation");
    let (state, content, mac) = OperationState::parse(&stored).unwrap();
    keys().verify_mac(MacUse::Operation, b"operation", &[content], mac).unwrap();
    assert_eq!((state.target, state.account), (account().into(), account()));
    assert_eq!((state.kind, state.run, state.cursor.as_slice()), (OperationKind::Reseal, 2, &b"a/0020"[..]));
    let revoked = Error::new(ErrorKind::Revoked, "the KMS refused");
    assert_eq!(state.status, OperationStatus::failed(&revoked));
    assert_eq!((state.progress.done, state.progress.total), (20, Some(50)));
    assert_eq!([&state.content()[..], mac].concat(), stored);
}

#[test]
fn f1_e7_format_md_s_tombstone_is_one() {
    let stored = example("tombstone");
    let tombstone = Tombstone::parse(&stored).unwrap();
    assert_eq!((tombstone.account, tombstone.sequence.number()), (account(), 4));
    assert_eq!(tombstone.reason, Purged::AfterRetention);
    assert_eq!(tombstone.to_bytes(), stored);
}

#[test]
fn f1_format_md_s_block_opens() {
    let block = example("block");
    let (head, sealed, tag) = split(Kind::Block, &block).unwrap();
    let object = ObjectId::from_bytes(0xB0B1_B2B3_B4B5_B6B7_B8B9_BABB_BCBD_BEBF_u128.to_be_bytes());
    let place = Place::block(BlockId::new(object, 7), Aad::new(b"tenant-42"));
    let mut plain = vec![0; sealed.len()];
    keys().open_to(&place, &head, &tag, sealed, &mut plain, || Ok(())).unwrap();
    assert_eq!(plain, b"hello, strongroom");
}

#[test]
fn f1_format_md_s_object_opens() {
    let stored = example("object");
    let (header, frame) = stored.split_at(80);
    // SHA-256 of the two parts, each behind its length in 8 bytes.
    let parts = [&6_u64.to_be_bytes()[..], b"bucket", &4_u64.to_be_bytes(), b"path"].concat();
    let context = <sha2::Sha256 as sha2::Digest>::digest(parts);
    let mac = header[48..].try_into().expect("80 - 48 = 32");
    let keys = keys();
    keys.verify_mac(MacUse::ObjectHeader, b"object header", &[&header[..48], &context], mac).unwrap();
    let (head, sealed, tag) = split(Kind::ObjectFrame, frame).unwrap();
    let object = ObjectId::from_bytes(header[32..48].try_into().expect("48 - 32 = 16"));
    let place = Place::object_frame(BlockId::new(object, 0), true);
    let mut plain = vec![0; sealed.len()];
    keys.open_to(&place, &head, &tag, sealed, &mut plain, || Ok(())).unwrap();
    assert_eq!(plain, b"one small object");
}

#[test]
fn c5_e2_e6_a_policy_says_what_it_was_told_and_nothing_else() {
    let limits = GenerationLimits::new(1, 2, 3).unwrap();
    assert_eq!((limits.seals(), limits.bytes(), limits.age_days()), (1, 2, 3));
    let policy = RecordPolicy::default();
    let grace = std::time::Duration::from_secs(7);
    let all = [
        policy,
        policy.with_max_grace(grace),
        policy.with_whole_outage_consent(),
        policy.with_version_policy(VersionPolicy::Pinned),
        policy.with_limits(limits),
    ];
    let (latest, most) = (VersionPolicy::Latest, GenerationLimits::default());
    let says = all.map(|said| {
        (said.max_grace(), said.consents_to_whole_outage(), said.version_policy(), said.limits())
    });
    let told = [
        (None, false, latest, most),
        (Some(grace), false, latest, most),
        (None, true, latest, most),
        (None, false, VersionPolicy::Pinned, most),
        (None, false, latest, limits),
    ];
    assert_eq!(says, told);
}

#[test]
fn what_is_shown_names_public_values_and_no_byte_of_the_rest() {
    let block = example("block");
    let bytes = [&block[..48], &block[block.len() - 16..]].concat();
    let detached = Detached::from_bytes(bytes.as_slice()).unwrap();
    let header = "Header { suite: Aes256Gcm, kind: Block, last: false, generation: Generation(1) }";
    assert_eq!(format!("{detached:?}"), format!("Detached({header})"));
    assert_eq!(format!("{:?}", BlockSize::MIN), "BlockSize(4096)");
    assert_eq!(format!("{:?}", Context::new(&[b"path"])), "Context(..)");
    assert_eq!(Sequence::new(12).expect("is one").to_string(), "12");
    let fingerprint = KeyFingerprint::from_bytes([0xA7; 32]);
    assert_eq!(fingerprint.to_string(), "a7".repeat(32));
    assert_eq!(format!("{fingerprint:?}"), format!("KeyFingerprint({fingerprint})"));
}
