//! Work on all accounts of a store: E1, E7, E8.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use strongroom::provider::{Kek, KekVersion};
use strongroom::testing::Call;
use strongroom::{
    Account, AccountId, AccountRecord, AccountSpec, DestroyForGood, ErrorKind, Expect, FileRecordStore,
    Loaded, MemoryRecordStore, OperationKind, OperationRun, OperationStatus, OperationTarget, Operations,
    OutageGrace, PurgeReport, RecordArchive, RecordStore, Retention, RewrapReport,
};

use crate::common::{Block, KEK, World, kind, secs};

const ALL: OperationTarget = OperationTarget::from_bytes(*b"all of this test");

struct Fleet {
    world: World,
    records: Arc<MemoryRecordStore>,
    operations: Operations,
    /// Sealed by accounts that are in use nowhere now.
    blocks: BTreeMap<AccountId, Block>,
}

impl Fleet {
    /// `count` accounts under version 1, none of them attached.
    fn new(count: usize) -> Self {
        let world = World::new(60, OutageGrace::None);
        let service = world.create();
        let operations = Operations::new(Arc::new(MemoryRecordStore::new()), service);
        let mut fleet = Self { world, records: Arc::default(), operations, blocks: BTreeMap::new() };
        for _ in 0..count {
            let account = fleet.create(Kek::latest(KEK));
            fleet.blocks.insert(account.id(), Block::sealed_by(&account));
        }
        fleet.world.cache.drive();
        fleet
    }

    fn create(&self, kek: Kek) -> Account {
        let spec = AccountSpec::new(AccountId::random(), self.world.provider(), kek);
        self.world.cache.create(spec.store(self.records.clone())).unwrap()
    }

    fn attach(&self, id: AccountId) -> Account {
        self.world.cache.attach_stored(self.records.clone(), self.world.expect(id)).unwrap()
    }

    fn begin(&self, kind: OperationKind) -> OperationRun {
        self.operations.begin(kind, ALL).unwrap()
    }

    fn expect(&self) -> impl Fn(AccountId) -> Option<Expect> {
        |id| Some(self.world.expect(id))
    }

    fn rewrap(&self, run: OperationRun, pace: u32) -> RewrapReport {
        self.world.cache.rewrap_all(self.records.clone(), &self.expect(), run, pace).unwrap()
    }

    fn purge(&self, pace: u32) -> PurgeReport {
        let run = self.begin(OperationKind::Purge);
        self.world.cache.purge_all(self.records.clone(), &self.expect(), run, pace).unwrap()
    }

    fn record(&self, id: AccountId) -> AccountRecord {
        let Loaded::Found { bytes, .. } = self.records.load(id, None).unwrap() else { panic!("a record") };
        AccountRecord::parse(&bytes).unwrap()
    }

    fn versions(&self) -> BTreeMap<String, usize> {
        let mut versions = BTreeMap::new();
        for listed in self.records.list(None).unwrap() {
            *versions.entry(self.record(listed.account).kek_version().as_str().to_owned()).or_default() += 1;
        }
        versions
    }

    /// What was sealed before opens, with version 1 disabled.
    fn everything_opens_without_the_first_version(&self) {
        self.world.kms.set_version_enabled(KEK, &KekVersion::new("1").unwrap(), false);
        for (id, block) in &self.blocks {
            let account = self.attach(*id);
            self.world.run(secs(1));
            assert_eq!(block.open(&account), Ok(()));
        }
    }
}

#[test]
fn e1_e8_every_account_of_a_store_is_wrapped_anew_and_no_data_is_touched() {
    let fleet = Fleet::new(40);
    let pinned = fleet.create(Kek::pinned(KEK, KekVersion::new("1").unwrap())).id();
    let deleted = {
        let account = fleet.create(Kek::latest(KEK));
        account.delete(Retention::DEFAULT).unwrap();
        account.id()
    };
    let events = fleet.world.cache.events();
    fleet.world.kms.add_version(KEK);
    let report = fleet.rewrap(fleet.begin(OperationKind::Rewrap), 1000);
    assert_eq!((report.rewrapped, report.current, report.pinned, report.purged), (41, 0, 1, 0));
    assert!(report.failures.is_empty() && report.safe_after.is_some());
    assert_eq!(*report.operation.status(), OperationStatus::Succeeded);
    assert_eq!((report.operation.progress().done, report.operation.progress().total), (42, Some(42)));
    assert_eq!(fleet.versions(), BTreeMap::from([("1".to_owned(), 1), ("2".to_owned(), 41)]));
    assert_eq!(fleet.record(pinned).kek_version().as_str(), "1");
    assert!(fleet.record(deleted).recoverable_until().is_some(), "it stays deleted");
    assert!(events.try_next().is_none(), "nobody who uses an account is told of anything");
    let again = fleet.rewrap(fleet.begin(OperationKind::Rewrap), 1000);
    assert_eq!((again.rewrapped, again.current), (0, 41));
    fleet.everything_opens_without_the_first_version();
    let account = fleet.attach(deleted);
    account.recover().unwrap();
    account.wait_ready(secs(10)).unwrap();
}

#[test]
fn e8_calls_of_a_bulk_re_wrap_are_bounded_in_each_second() {
    let fleet = Fleet::new(60);
    fleet.world.kms.add_version(KEK);
    fleet.world.run(secs(60));
    fleet.world.kms.clear_log();
    let pace = 20;
    fleet.rewrap(fleet.begin(OperationKind::Rewrap), pace);
    let calls: Vec<Duration> = fleet.world.kms.log().into_iter().map(|call| call.started).collect();
    assert!(calls.len() >= 240, "{}", calls.len());
    for from in &calls {
        let within = calls.iter().filter(|at| **at >= *from && **at < *from + secs(1)).count();
        // The service's account is refreshed meanwhile.
        assert!(within <= pace as usize + 5 + 1, "{within} within a second");
    }
    let took = *calls.last().unwrap() - *calls.first().unwrap();
    assert!(took >= secs(14), "60 accounts of five calls each at most: {took:?}");
}

#[test]
fn e8_a_bulk_re_wrap_that_was_killed_goes_on_where_it_was() {
    let fleet = Fleet::new(50);
    fleet.world.kms.add_version(KEK);
    // It dies when it asks for the 40th account.
    let asked = std::cell::Cell::new(0);
    let world = &fleet.world;
    let dying = |id| {
        asked.set(asked.get() + 1);
        assert!(asked.get() < 40, "killed");
        Some(world.expect(id))
    };
    let run = fleet.begin(OperationKind::Rewrap);
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        fleet.world.cache.rewrap_all(fleet.records.clone(), &dying, run, 1000).map(drop)
    }));
    assert!(died.is_err());
    let left = fleet.operations.find(ALL).unwrap().unwrap();
    assert_eq!((left.status(), left.progress().done), (&OperationStatus::Updating, 32));
    assert_eq!(kind(fleet.operations.begin(OperationKind::Rewrap, ALL)), Some(ErrorKind::Conflict));

    fleet.world.kms.clear_log();
    let run = fleet.operations.resume(ALL).unwrap().unwrap();
    assert_eq!(run.cursor(), fleet.blocks.keys().nth(31).unwrap().as_bytes(), "as docs/FORMAT.md says");
    let report = fleet.rewrap(run, 1000);
    assert_eq!((report.rewrapped, report.current), (11, 7), "16 accounts at most are done twice");
    assert_eq!(report.operation.id(), left.id());
    assert_eq!(report.operation.progress().done, 50);
    assert!(report.safe_after.is_some());
    fleet.everything_opens_without_the_first_version();
}

#[test]
fn e8_a_bulk_re_wrap_ends_when_it_is_cancelled_and_what_was_done_stays() {
    let fleet = Fleet::new(10);
    fleet.world.kms.add_version(KEK);
    let asked = std::cell::Cell::new(0);
    let expect = |id| {
        asked.set(asked.get() + 1);
        if asked.get() == 4 {
            fleet.operations.find(ALL).unwrap().unwrap().cancel().unwrap();
        }
        Some(fleet.world.expect(id))
    };
    let run = fleet.begin(OperationKind::Rewrap);
    let report = fleet.world.cache.rewrap_all(fleet.records.clone(), &expect, run, 1000).unwrap();
    assert_eq!(*report.operation.status(), OperationStatus::Cancelled);
    assert_eq!((report.rewrapped, report.safe_after), (4, None));
    assert_eq!(fleet.versions()["2"], 4);
}

#[test]
fn e8_an_account_that_fails_is_left_and_told() {
    let fleet = Fleet::new(6);
    let (stranger, forged) = {
        let ids: Vec<_> = fleet.blocks.keys().copied().collect();
        (ids[1], ids[4])
    };
    fleet.world.kms.add_version(KEK);
    let mut bytes = fleet.record(forged).to_bytes();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let Loaded::Found { tag, .. } = fleet.records.load(forged, None).unwrap() else { panic!("a record") };
    fleet.records.compare_and_swap(forged, Some(&tag), &bytes).unwrap();
    let expect = |id| (id != stranger).then(|| fleet.world.expect(id));
    let run = fleet.begin(OperationKind::Rewrap);
    let report = fleet.world.cache.rewrap_all(fleet.records.clone(), &expect, run, 1000).unwrap();
    let failed: BTreeMap<_, _> = report.failures.iter().map(|(id, error)| (*id, error.kind())).collect();
    assert_eq!(failed, BTreeMap::from([(stranger, ErrorKind::Untrusted), (forged, ErrorKind::Untrusted)]));
    assert_eq!((report.rewrapped, report.safe_after), (4, None), "older versions are still needed");
    assert_eq!((report.operation.progress().done, report.operation.progress().failed), (4, 2));
    assert_eq!(
        kind(fleet.world.cache.rewrap_all(
            fleet.records.clone(),
            &expect,
            fleet.begin(OperationKind::Purge),
            9
        )),
        Some(ErrorKind::Misuse)
    );
}

#[test]
fn e8_a_bulk_operation_that_left_an_account_has_failed_and_says_with_what() {
    let fleet = Fleet::new(4);
    let damaged = *fleet.blocks.keys().nth(1).unwrap();
    let account = fleet.attach(damaged);
    fleet.world.run(secs(1));
    account.delete(Retention::days(1).unwrap()).unwrap();
    drop(account);
    fleet.world.clock.advance(secs(86_400));
    fleet.world.run(secs(61));
    let (honest, tag) = match fleet.records.load(damaged, None).unwrap() {
        Loaded::Found { bytes, tag } => (bytes, tag),
        other => panic!("{other:?}"),
    };
    let mut bytes = honest.clone();
    *bytes.last_mut().unwrap() ^= 1;
    fleet.records.compare_and_swap(damaged, Some(&tag), &bytes).unwrap();
    for kind in [OperationKind::Rewrap, OperationKind::Delete, OperationKind::Purge] {
        let (store, run, expect) = (fleet.records.clone(), fleet.begin(kind), fleet.expect());
        let cache = &fleet.world.cache;
        let failures = match kind {
            OperationKind::Rewrap => cache.rewrap_all(store, &expect, run, 1000).unwrap().failures,
            OperationKind::Delete => {
                cache.delete_all(store, &expect, run, Retention::DEFAULT, 1000).unwrap().failures
            }
            _ => cache.purge_all(store, &expect, run, 1000).unwrap().failures,
        };
        assert_eq!(failures.len(), 1);
        // As a process sees it that has just started.
        let ended = fleet.operations.find(ALL).unwrap().unwrap();
        let OperationStatus::Failed { code, message } = ended.status() else { panic!("{kind:?}: {ended:?}") };
        assert_eq!((*code, ended.kind()), (ErrorKind::Untrusted, kind));
        assert!(message.contains(&damaged.to_string()), "{message}");
        assert_eq!((ended.progress().done, ended.progress().failed), (3, 1));
        assert!(ended.ended().unwrap() >= ended.started());
    }
    // What an earlier run has left counts as well.
    let Loaded::Found { tag, .. } = fleet.records.load(damaged, None).unwrap() else { panic!("a record") };
    fleet.records.compare_and_swap(damaged, Some(&tag), &honest).unwrap();
    let mut run = fleet.begin(OperationKind::Rewrap);
    run.progress_mut().failed = 1;
    run.checkpoint(&[]).unwrap();
    drop(run);
    let report = fleet.rewrap(fleet.operations.resume(ALL).unwrap().unwrap(), 1000);
    assert!(matches!(report.operation.status(), OperationStatus::Failed { code: ErrorKind::Conflict, .. }));
    assert_eq!((report.failures.len(), report.safe_after), (0, None));
    let report = fleet.rewrap(fleet.begin(OperationKind::Rewrap), 1000);
    assert_eq!(*report.operation.status(), OperationStatus::Succeeded);
}

#[test]
fn e8_who_uses_an_account_meanwhile_goes_on_and_hears_of_the_new_record() {
    let fleet = Fleet::new(3);
    let (id, block) = fleet.blocks.first_key_value().unwrap();
    let account = fleet.attach(*id);
    fleet.world.run(secs(1));
    let (events, fence) = (fleet.world.cache.events(), account.fence().unwrap());
    fleet.world.kms.add_version(KEK);
    fleet.rewrap(fleet.begin(OperationKind::Rewrap), 1000);
    fleet.world.run(secs(7));
    assert_eq!(account.record().kek_version().as_str(), "2");
    assert_eq!((block.open(&account), kind(fence.check())), (Ok(()), None));
    assert!(events.try_next().is_none());
}

#[test]
fn e7_e8_deleted_accounts_are_purged_in_bulk_once_their_retention_is_over() {
    let fleet = Fleet::new(30);
    let ids: Vec<_> = fleet.blocks.keys().copied().collect();
    for (at, id) in ids.iter().take(20).enumerate() {
        let account = fleet.attach(*id);
        fleet.world.run(secs(1));
        account.delete(Retention::days(if at < 10 { 1 } else { 30 }).unwrap()).unwrap();
    }
    let before = fleet.purge(1000);
    assert_eq!((before.purged, before.retained, before.failures.len()), (0, 20, 0));
    fleet.world.clock.advance(secs(86_400));
    fleet.world.run(secs(61));
    fleet.world.kms.clear_log();
    let report = fleet.purge(1000);
    assert_eq!((report.purged, report.retained, report.failures.len()), (10, 10, 0));
    assert_eq!(*report.operation.status(), OperationStatus::Succeeded);
    let unwraps = fleet.world.kms.log().into_iter().filter(|call| call.call == Call::Unwrap).count();
    assert!((10..=12).contains(&unwraps), "one for each that is due: {unwraps}");
    for id in &ids[..10] {
        assert!(fleet.records.history(*id).unwrap().is_empty());
        let attached = fleet.world.cache.attach_stored(fleet.records.clone(), fleet.world.expect(*id));
        assert_eq!(kind(attached), Some(ErrorKind::Deleted));
    }
    assert_eq!((fleet.purge(1000).purged, fleet.records.list(None).unwrap().len()), (0, 30));
    for id in &ids[20..] {
        let account = fleet.attach(*id);
        fleet.world.run(secs(1));
        assert_eq!(fleet.blocks[id].open(&account), Ok(()));
    }
}

#[test]
fn e8_operations_in_files_survive_the_process_that_ran_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = || Arc::new(FileRecordStore::open(folder.path().join("operations")).unwrap());
    let fleet = Fleet::new(20);
    let service = fleet.world.create();
    fleet.world.kms.add_version(KEK);
    drop(Operations::new(store(), service.clone()).begin(OperationKind::Rewrap, ALL).unwrap());
    let run = Operations::new(store(), service).resume(ALL).unwrap().unwrap();
    assert_eq!(fleet.rewrap(run, 1000).rewrapped, 20);
}

#[test]
fn e7_e8_only_its_own_tombstone_says_of_an_account_that_it_was_purged() {
    let fleet = Fleet::new(3);
    let ids: Vec<AccountId> = fleet.blocks.keys().copied().collect();
    let stored = |id| match fleet.records.load(id, None).unwrap() {
        Loaded::Found { bytes, tag } => (bytes, tag),
        other => panic!("{other:?}"),
    };
    let attached = |id| kind(fleet.world.cache.attach_stored(fleet.records.clone(), fleet.world.expect(id)));
    let store: Arc<dyn RecordStore> = fleet.records.clone();
    fleet.world.cache.shred(&store, ids[0], DestroyForGood).unwrap();
    let tombstone = stored(ids[0]).0;
    // That of another account, and one that is cut.
    for (id, bytes) in [(ids[1], &tombstone[..]), (ids[2], &tombstone[..9])] {
        store.compare_and_swap(id, Some(&stored(id).1), bytes).unwrap();
    }
    let found: Vec<_> = ids.iter().map(|id| attached(*id)).collect();
    let format = Some(ErrorKind::Format);
    assert_eq!(found, [Some(ErrorKind::Deleted), format, format]);
    let report = fleet.rewrap(fleet.begin(OperationKind::Rewrap), 1000);
    assert_eq!((report.purged, report.failures.len(), report.safe_after), (1, 2, None));
    assert_eq!(fleet.purge(1000).failures.len(), 2);
    for id in &ids {
        fleet.world.cache.shred(&store, *id, DestroyForGood).unwrap();
        assert_eq!(attached(*id), Some(ErrorKind::Deleted));
    }
}
