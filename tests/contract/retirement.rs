//! Which KEK versions any record still needs, kept ones included (contracts E5, E10).

use std::sync::Arc;

use strongroom::provider::{Kek, KekVersion};
use strongroom::testing::{Answer, Call};
use strongroom::{
    Account, AccountId, AccountRecord, AccountSpec, DestroyForGood, Error, ErrorKind, Expect,
    FileRecordStore, KeptRecord, Listed, Loaded, MemoryRecordStore, OutageGrace, RecordArchive, RecordStore,
    RecordTag, Refusal, Retirement, RotateTo, VerifyReport, WhichRecord,
};

use super::common::{KEK, World, secs};

fn created(world: &World, store: &Arc<dyn RecordArchive>) -> Account {
    world.cache.create(world.spec().store(Arc::clone(store) as _)).unwrap()
}

fn rotate(world: &World, account: &Account) -> AccountRecord {
    world.kms.add_version(KEK);
    account.rotate_kek(RotateTo::Latest).unwrap();
    account.record()
}

/// Puts any bytes in the place of a record, as whoever can write to the store would.
fn plant(store: &dyn RecordStore, account: AccountId, bytes: &[u8]) {
    let Loaded::Found { tag, .. } = store.load(account, None).unwrap() else { panic!("a record") };
    store.compare_and_swap(account, Some(&tag), bytes).unwrap();
}

/// Without a MAC that fits.
fn forged(record: &AccountRecord) -> Vec<u8> {
    let mut bytes = record.to_bytes();
    *bytes.last_mut().unwrap() ^= 1;
    bytes
}

fn verify(world: &World, store: &Arc<dyn RecordArchive>, with_history: bool) -> VerifyReport {
    world.cache.drive();
    world.kms.clear_log();
    let provider = world.provider();
    let expect = move |id| Some(Expect::account(id).kek(Arc::clone(&provider), KEK));
    let all = world.cache.verify_all(Arc::clone(store), expect, 1000).unwrap();
    if with_history { all.with_history() } else { all }.report().unwrap()
}

fn of(report: &VerifyReport, account: &Account, version: &str) -> Retirement {
    report.retirement(account.record().kek(), &KekVersion::new(version).unwrap())
}

fn needed(report: &VerifyReport, account: &Account, version: &str) -> Option<(u64, u64)> {
    match of(report, account, version) {
        Retirement::Needed(need) => Some((need.newest, need.kept)),
        _ => None,
    }
}

fn told_with_history(store: &Arc<dyn RecordArchive>) {
    let world = World::new(6, OutageGrace::None);
    let accounts = [created(&world, store), created(&world, store)];
    rotate(&world, &accounts[0]);
    rotate(&world, &accounts[0]);
    // What is kept is proven by the AEK that the newest record has, so that it does not matter what the KMS does with the version.
    world.kms.set_version_enabled(KEK, &KekVersion::new("2").unwrap(), false);
    let report = verify(&world, store, true);
    assert_eq!((report.accounts, report.authentic, report.kept), (2, 2, 2), "{report:?}");
    assert_eq!(world.unwraps().len(), 2, "one for each account");
    assert_eq!(needed(&report, &accounts[0], "1"), Some((1, 1)));
    assert_eq!(needed(&report, &accounts[0], "2"), Some((0, 1)));
    assert_eq!(needed(&report, &accounts[0], "3"), Some((1, 0)));
    assert_eq!(of(&report, &accounts[0], "4"), Retirement::NotNeeded);

    let newest = verify(&world, store, false);
    assert_eq!((newest.authentic, newest.kept), (2, 0));
    assert_eq!(needed(&newest, &accounts[0], "1"), Some((1, 0)));
    assert_eq!(of(&newest, &accounts[0], "2"), Retirement::Unknown { failures: 0 }, "nobody looked");
}

#[test]
fn e5_e10_kept_records_in_memory_are_verified_and_tell_what_they_need() {
    told_with_history(&(Arc::new(MemoryRecordStore::new()) as _));
}

#[test]
fn e5_e10_kept_records_in_files_are_verified_and_tell_what_they_need() {
    let folder = tempfile::tempdir().unwrap();
    told_with_history(&(Arc::new(FileRecordStore::open(folder.path()).unwrap()) as _));
}

#[test]
fn e5_a_standby_wrap_needs_its_version_too() {
    let world = World::new(6, OutageGrace::DEFAULT);
    let store: Arc<dyn RecordArchive> = Arc::new(MemoryRecordStore::new());
    let kek = Kek::pinned(KEK, KekVersion::new("1").unwrap());
    let spec = AccountSpec::new(AccountId::random(), world.provider(), kek);
    let account = world.cache.create(spec.store(Arc::clone(&store) as _)).unwrap();
    let newer = world.kms.add_version(KEK);
    world.run(secs(700));
    assert_eq!(account.record().standby_version(), Some(&newer));
    let report = verify(&world, &store, true);
    assert_eq!(needed(&report, &account, "1"), Some((1, 1)));
    assert_eq!(needed(&report, &account, "2"), Some((1, 0)));
}

#[test]
fn e5_e10_a_kept_record_that_is_not_authentic_leaves_no_version_retirable() {
    let world = World::new(6, OutageGrace::None);
    let store: Arc<dyn RecordArchive> = Arc::new(MemoryRecordStore::new());
    let (account, other) = (created(&world, &store), created(&world, &store));
    let good = account.record();
    let foreign = other.record().to_bytes();
    for bytes in [&b"no record"[..], &forged(&good), &foreign, &good.to_bytes()] {
        plant(store.as_ref(), account.id(), bytes);
    }
    let report = verify(&world, &store, true);
    assert_eq!((report.accounts, report.authentic, report.kept), (2, 2, 0), "{report:?}");
    let mut kinds: Vec<ErrorKind> = Vec::new();
    for failure in &report.failures {
        assert!(matches!(failure.which, WhichRecord::Kept(_)) && failure.account == account.id());
        kinds.push(failure.result.as_ref().unwrap_err().kind());
    }
    kinds.sort_by_key(|kind| format!("{kind:?}"));
    assert_eq!(kinds, [ErrorKind::Format, ErrorKind::Untrusted, ErrorKind::Untrusted]);
    assert_eq!(needed(&report, &account, "1"), Some((2, 0)));
    assert_eq!(of(&report, &account, "2"), Retirement::Unknown { failures: 3 });
}

#[test]
fn e10_kept_records_are_unwrapped_by_themselves_where_the_newest_one_proves_nothing() {
    let world = World::new(6, OutageGrace::None);
    let store: Arc<dyn RecordArchive> = Arc::new(MemoryRecordStore::new());
    let account = created(&world, &store);
    let newest = rotate(&world, &account);
    plant(store.as_ref(), account.id(), &forged(&newest));
    let report = verify(&world, &store, true);
    assert_eq!((report.accounts, report.authentic, report.kept), (1, 0, 2), "{report:?}");
    // The forged one is kept as well, and told of once.
    let [failure] = &report.failures[..] else { panic!("{report:?}") };
    assert_eq!(failure.which, WhichRecord::Newest);
    assert_eq!(
        (needed(&report, &account, "1"), needed(&report, &account, "2")),
        (Some((0, 1)), Some((0, 1)))
    );

    // What is known of the newest one's sequence says nothing against those that are kept.
    let (provider, known) = (world.provider(), newest.sequence());
    let expect = move |id| Some(Expect::account(id).kek(Arc::clone(&provider), KEK).least_sequence(known));
    let all = world.cache.verify_all(Arc::clone(&store), expect, 1000).unwrap();
    assert_eq!(all.with_history().report().unwrap().kept, 2);

    world.kms.always(Call::Unwrap, Answer::Refused(Refusal::KeyGone));
    let report = verify(&world, &store, true);
    assert_eq!((report.kept, report.needed.len(), report.failures.len()), (0, 0, 3));
    assert_eq!(of(&report, &account, "1"), Retirement::Unknown { failures: 3 });
}

#[test]
fn e10_f2_a_long_history_is_read_64_records_at_a_time() {
    let world = World::new(6, OutageGrace::None);
    let store: Arc<dyn RecordArchive> = Arc::new(MemoryRecordStore::new());
    let account = created(&world, &store);
    let first = account.record();
    let second = rotate(&world, &account);
    // Two more of each, again and again: 1 + 1 + 2 * 70 in all.
    for _ in 0..70 {
        plant(store.as_ref(), account.id(), &first.to_bytes());
        plant(store.as_ref(), account.id(), &second.to_bytes());
    }
    assert_eq!(store.history(account.id()).unwrap().len(), 142);
    let report = verify(&world, &store, true);
    assert_eq!((report.accounts, report.authentic, report.kept), (1, 1, 71), "{report:?}");
    assert!(report.failures.is_empty());
    assert_eq!(world.unwraps().len(), 3);
}

#[test]
fn e5_e7_a_purged_account_needs_nothing() {
    let world = World::new(6, OutageGrace::None);
    let store: Arc<dyn RecordArchive> = Arc::new(MemoryRecordStore::new());
    let (account, other) = (created(&world, &store), created(&world, &store));
    let newest = rotate(&world, &account);
    let records: Arc<dyn RecordStore> = Arc::clone(&store) as _;
    world.cache.shred(&records, account.id(), DestroyForGood).unwrap();
    let report = verify(&world, &store, true);
    assert_eq!((report.purged, report.authentic, report.kept, report.failures.len()), (1, 1, 0, 0));
    assert_eq!(report.retirement(newest.kek(), newest.kek_version()), Retirement::NotNeeded);
    assert_eq!(needed(&report, &other, "1"), Some((1, 0)));

    // Somebody put a tombstone over a record, and the record over that: it is kept, and no record.
    let Loaded::Found { bytes: tombstone, .. } = store.load(account.id(), None).unwrap() else { panic!() };
    plant(store.as_ref(), other.id(), &tombstone);
    plant(store.as_ref(), other.id(), &other.record().to_bytes());
    let report = verify(&world, &store, true);
    assert_eq!((report.purged, report.authentic, report.kept, report.failures.len()), (1, 1, 0, 0));
}

/// One whose history cannot be listed.
#[derive(Debug)]
struct Silent(Arc<dyn RecordArchive>);

impl RecordStore for Silent {
    fn load(&self, account: AccountId, known: Option<&RecordTag>) -> Result<Loaded, Error> {
        self.0.load(account, known)
    }

    fn compare_and_swap(
        &self,
        account: AccountId,
        expected: Option<&RecordTag>,
        bytes: &[u8],
    ) -> Result<RecordTag, Error> {
        self.0.compare_and_swap(account, expected, bytes)
    }
}

impl RecordArchive for Silent {
    fn list(&self, after: Option<AccountId>) -> Result<Vec<Listed>, Error> {
        self.0.list(after)
    }

    fn history(&self, account: AccountId) -> Result<Vec<KeptRecord>, Error> {
        Err(Error::record_store(account, std::io::Error::other("no listing")))
    }

    fn load_kept(&self, account: AccountId, kept: KeptRecord) -> Result<Vec<u8>, Error> {
        self.0.load_kept(account, kept)
    }
}

#[test]
fn e5_e10_a_history_that_cannot_be_listed_is_a_failure_of_its_own() {
    let world = World::new(6, OutageGrace::None);
    let store: Arc<dyn RecordArchive> = Arc::new(Silent(Arc::new(MemoryRecordStore::new())));
    let account = created(&world, &store);
    let report = verify(&world, &store, true);
    assert_eq!((report.accounts, report.authentic), (1, 1));
    let [failure] = &report.failures[..] else { panic!("{report:?}") };
    let error = failure.result.as_ref().unwrap_err();
    assert_eq!((failure.which, error.kind()), (WhichRecord::History, ErrorKind::Io));
    assert_eq!(of(&report, &account, "2"), Retirement::Unknown { failures: 1 });
}
