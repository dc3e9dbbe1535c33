//! Accounts of a store deleted in bulk: E7, E8.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use strongroom::provider::Kek;
use strongroom::testing::Call;
use strongroom::{
    Account, AccountId, AccountRecord, AccountSpec, DeleteReport, Error, ErrorKind, Expect, KeptRecord,
    Listed, Loaded, MemoryRecordStore, OperationKind, OperationRun, OperationStatus, OperationTarget,
    Operations, OutageGrace, RecordArchive, RecordStore, RecordTag, Retention, Status,
};

use crate::common::{Block, KEK, World, kind, secs};

/// Where a record has its state, and behind it, where it is deleted, two times (docs/FORMAT.md).
const STATE: usize = 8 + 1 + 16 + 8 + 8;
const HERS: OperationTarget = OperationTarget::from_bytes(*b"all of a tenant.");

struct Tenant {
    world: World,
    records: Arc<MemoryRecordStore>,
    operations: Operations,
    /// In use nowhere, in the order in which a store lists them.
    ids: Vec<AccountId>,
}

impl Tenant {
    fn new(count: usize) -> Self {
        let world = World::new(60, OutageGrace::None);
        let operations = Operations::new(Arc::new(MemoryRecordStore::new()), world.create());
        let mut this = Self { world, records: Arc::default(), operations, ids: Vec::new() };
        let ids: BTreeSet<_> = (0..count).map(|_| this.create().id()).collect();
        this.ids = ids.into_iter().collect();
        this.world.cache.drive();
        this
    }

    fn create(&self) -> Account {
        let spec = AccountSpec::new(AccountId::random(), self.world.provider(), Kek::latest(KEK));
        self.world.cache.create(spec.store(self.records.clone())).unwrap()
    }

    fn attach(&self, id: AccountId) -> Account {
        let account = self.world.cache.attach_stored(self.records.clone(), self.world.expect(id)).unwrap();
        self.world.run(secs(1));
        account
    }

    fn begin(&self) -> OperationRun {
        self.operations.begin(OperationKind::Delete, HERS).unwrap()
    }

    fn delete(&self, run: OperationRun, pace: u32) -> DeleteReport {
        self.delete_those(&|id| Some(self.world.expect(id)), run, pace)
    }

    fn delete_those(
        &self,
        expect: &dyn Fn(AccountId) -> Option<Expect>,
        run: OperationRun,
        pace: u32,
    ) -> DeleteReport {
        let store = self.records.clone();
        self.world.cache.delete_all(store, expect, run, Retention::DEFAULT, pace).unwrap()
    }

    /// In the same store, by way of `between`.
    fn delete_in(&self, between: Arc<Between>) -> DeleteReport {
        let expect = |id| Some(self.world.expect(id));
        self.world.cache.delete_all(between, &expect, self.begin(), Retention::DEFAULT, 1000).unwrap()
    }

    fn record(&self, id: AccountId) -> AccountRecord {
        let Loaded::Found { bytes, .. } = self.records.load(id, None).unwrap() else { panic!("a record") };
        AccountRecord::parse(&bytes).unwrap()
    }

    fn deleted(&self) -> usize {
        self.ids.iter().filter(|id| self.record(**id).recoverable_until().is_some()).count()
    }
}

#[test]
fn e7_e8_the_accounts_that_are_named_are_deleted_in_bulk_and_come_back_with_their_data() {
    let tenant = Tenant::new(20);
    let (in_use, other) = (tenant.attach(tenant.ids[3]), tenant.ids[7]);
    let block = Block::sealed_by(&in_use);
    let before = tenant.attach(tenant.ids[5]);
    before.delete(Retention::days(30).unwrap()).unwrap();
    let retained = tenant.record(before.id()).recoverable_until();
    let shredded = tenant.ids[9];
    let store: Arc<dyn RecordStore> = tenant.records.clone();
    tenant.world.cache.shred(&store, shredded, strongroom::DestroyForGood).unwrap();
    let expect = |id| (id != other).then(|| tenant.world.expect(id));
    let report = tenant.delete_those(&expect, tenant.begin(), 1000);

    assert_eq!((report.deleted, report.before, report.purged, report.left), (17, 1, 1, 1));
    assert!(report.failures.is_empty() && report.refused_everywhere_after.is_some());
    assert_eq!(*report.operation.status(), OperationStatus::Succeeded);
    assert_eq!((report.operation.progress().done, report.operation.progress().total), (20, Some(20)));
    assert_eq!((in_use.status(), block.open(&in_use)), (Status::Deleted, Err(ErrorKind::Deleted)), "at once");
    assert_eq!(tenant.record(before.id()).recoverable_until(), retained, "it keeps its retention");
    let other = tenant.attach(other);
    assert_eq!(Block::sealed_by(&other).open(&other), Ok(()));
    in_use.recover().unwrap();
    in_use.wait_ready(secs(10)).unwrap();
    assert_eq!(block.open(&in_use), Ok(()));
}

#[test]
fn e8_calls_of_a_bulk_deletion_are_bounded_in_each_second() {
    let tenant = Tenant::new(60);
    tenant.world.run(secs(60));
    tenant.world.kms.clear_log();
    let pace = 10;
    tenant.delete(tenant.begin(), pace);
    let log = tenant.world.kms.log();
    let calls: Vec<Duration> = log.iter().map(|call| call.started).collect();
    assert!(log.iter().filter(|call| call.call == Call::Unwrap).count() >= 60, "each is verified");
    for from in &calls {
        let within = calls.iter().filter(|at| **at >= *from && **at < *from + secs(1)).count();
        // The service's account is refreshed meanwhile.
        assert!(within <= pace as usize + 2, "{within} within a second");
    }
    assert!(*calls.last().unwrap() - *calls.first().unwrap() >= secs(5));
}

#[test]
fn e8_a_bulk_deletion_that_was_killed_goes_on_where_it_was_and_deletes_nothing_that_was_recovered() {
    let tenant = Tenant::new(50);
    let asked = Cell::new(0);
    let dying = |id| {
        asked.set(asked.get() + 1);
        assert!(asked.get() < 40, "killed");
        Some(tenant.world.expect(id))
    };
    let run = tenant.begin();
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let store = tenant.records.clone();
        tenant.world.cache.delete_all(store, &dying, run, Retention::DEFAULT, 1000).map(drop)
    }));
    assert!(died.is_err());
    assert_eq!(tenant.deleted(), 39);
    let left = tenant.operations.find(HERS).unwrap().unwrap();
    assert_eq!((left.status(), left.progress().done), (&OperationStatus::Deleting, 32));
    assert_eq!(kind(tenant.operations.begin(OperationKind::Rewrap, HERS)), Some(ErrorKind::Conflict));
    let back = tenant.attach(tenant.ids[0]);
    back.recover().unwrap();

    let report = tenant.delete(tenant.operations.resume(HERS).unwrap().unwrap(), 1000);
    assert_eq!((report.deleted, report.before), (11, 7), "16 accounts at most are done twice");
    assert_eq!((report.operation.id(), report.operation.progress().done), (left.id(), 50));
    assert_eq!((tenant.deleted(), tenant.record(back.id()).recoverable_until()), (49, None));
    assert!(report.refused_everywhere_after.is_some());
}

#[test]
fn e8_a_bulk_deletion_ends_when_it_is_cancelled_and_what_was_deleted_stays_so() {
    let tenant = Tenant::new(10);
    let asked = Cell::new(0);
    let expect = |id| {
        asked.set(asked.get() + 1);
        if asked.get() == 4 {
            tenant.operations.find(HERS).unwrap().unwrap().cancel().unwrap();
        }
        Some(tenant.world.expect(id))
    };
    let report = tenant.delete_those(&expect, tenant.begin(), 1000);
    assert_eq!(*report.operation.status(), OperationStatus::Cancelled);
    assert_eq!((report.deleted, report.refused_everywhere_after, tenant.deleted()), (4, None, 4));
}

#[test]
fn e8_an_account_that_cannot_be_deleted_is_left_and_told_and_a_claim_of_deletion_is_not_believed() {
    let tenant = Tenant::new(6);
    // Whoever writes the store says that the account is deleted: no reason to leave it in use.
    let (victim, model) = (tenant.ids[1], tenant.ids[4]);
    tenant.attach(model).delete(Retention::DEFAULT).unwrap();
    let (mut forged, deleted) = (tenant.record(victim).to_bytes(), tenant.record(model).to_bytes());
    forged.splice(STATE..=STATE, deleted[STATE..STATE + 17].iter().copied());
    assert!(AccountRecord::parse(&forged).unwrap().recoverable_until().is_some());
    let Loaded::Found { tag, .. } = tenant.records.load(victim, None).unwrap() else { panic!("a record") };
    tenant.records.compare_and_swap(victim, Some(&tag), &forged).unwrap();
    let report = tenant.delete(tenant.begin(), 1000);
    let failed: Vec<_> = report.failures.iter().map(|(id, error)| (*id, error.kind())).collect();
    assert_eq!(failed, [(victim, ErrorKind::Untrusted)]);
    assert_eq!((report.deleted, report.before, report.refused_everywhere_after), (4, 1, None));
    assert_eq!((report.operation.progress().done, report.operation.progress().failed), (5, 1));
    // Nor is anything deleted that its KMS does not unwrap any more.
    let revoked = Tenant::new(2);
    revoked.world.kms.set_enabled(KEK, false);
    revoked.world.kms.clear_log();
    let report = revoked.delete(revoked.begin(), 1000);
    assert_eq!(
        report.failures.iter().map(|(_, error)| error.kind()).collect::<Vec<_>>(),
        [ErrorKind::Revoked; 2]
    );
    let wrong = revoked.operations.begin(OperationKind::Purge, HERS).unwrap();
    let expect = |id| Some(revoked.world.expect(id));
    let result =
        revoked.world.cache.delete_all(revoked.records.clone(), &expect, wrong, Retention::DEFAULT, 9);
    assert_eq!(kind(result), Some(ErrorKind::Misuse));
}

/// Done once, with the account that is loaded or whose record is replaced, until it says that it was done.
type Hook = Box<dyn FnMut(AccountId) -> bool + Send>;

/// A tenant's records, and somebody who comes between.
#[derive(Default)]
struct Between {
    records: Arc<MemoryRecordStore>,
    before_load: Mutex<Option<Hook>>,
    before_swap: Mutex<Option<Hook>>,
    after_swap: Mutex<Option<Hook>>,
}

impl Between {
    fn of(tenant: &Tenant) -> Self {
        Self { records: tenant.records.clone(), ..Self::default() }
    }

    fn call(at: &Mutex<Option<Hook>>, account: AccountId) {
        let hook = at.lock().unwrap().take();
        if let Some(mut hook) = hook
            && !hook(account)
        {
            *at.lock().unwrap() = Some(hook);
        }
    }

    fn is_done(&self) -> bool {
        [&self.before_load, &self.before_swap, &self.after_swap].iter().all(|at| at.lock().unwrap().is_none())
    }
}

impl std::fmt::Debug for Between {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Between")
    }
}

impl RecordStore for Between {
    fn load(&self, account: AccountId, known: Option<&RecordTag>) -> Result<Loaded, Error> {
        Self::call(&self.before_load, account);
        self.records.load(account, known)
    }

    fn compare_and_swap(
        &self,
        account: AccountId,
        expected: Option<&RecordTag>,
        bytes: &[u8],
    ) -> Result<RecordTag, Error> {
        Self::call(&self.before_swap, account);
        let swapped = self.records.compare_and_swap(account, expected, bytes);
        Self::call(&self.after_swap, account);
        swapped
    }
}

impl RecordArchive for Between {
    fn list(&self, after: Option<AccountId>) -> Result<Vec<Listed>, Error> {
        self.records.list(after)
    }

    fn history(&self, account: AccountId) -> Result<Vec<KeptRecord>, Error> {
        self.records.history(account)
    }

    fn load_kept(&self, account: AccountId, kept: KeptRecord) -> Result<Vec<u8>, Error> {
        self.records.load_kept(account, kept)
    }
}

#[test]
fn e7_e8_recovery_beside_a_bulk_deletion_stays() {
    let tenant = Tenant::new(5);
    let in_use = tenant.attach(tenant.ids[2]);
    let block = Block::sealed_by(&in_use);
    // Somebody recovers it once it is deleted, before the cache hears of the deletion.
    let between = Between::of(&tenant);
    let asked = Arc::new(Mutex::new(None));
    let (account, pending) = (in_use.clone(), asked.clone());
    *between.after_swap.lock().unwrap() = Some(Box::new(move |id| {
        let it = id == account.id();
        if it {
            *pending.lock().unwrap() = Some(account.begin_recover());
        }
        it
    }));
    let between = Arc::new(between);
    let report = tenant.delete_in(between.clone());
    assert!(between.is_done());
    asked.lock().unwrap().take().unwrap().wait().unwrap();
    assert_eq!((report.deleted, report.failures.len(), tenant.deleted()), (5, 0, 4));
    assert_eq!(tenant.record(in_use.id()).recoverable_until(), None);
    tenant.world.run(secs(1));
    assert_eq!((block.open(&in_use), in_use.record().recoverable_until()), (Ok(()), None));
}

#[test]
fn e8_an_account_that_another_process_deleted_counts_as_before() {
    let tenant = Tenant::new(5);
    let (clock, kms) = (&tenant.world.clock, tenant.world.kms.clone());
    let there = World::beside(clock, kms, secs(60), OutageGrace::None);
    // Another process deletes one account after it was looked at, and one while it is being deleted.
    let elsewhere = |id: AccountId, times: usize| -> Hook {
        let account = there.cache.attach_stored(tenant.records.clone(), there.expect(id)).unwrap();
        let mut met = 0;
        Box::new(move |at| {
            met += usize::from(at == id);
            let now = met == times;
            if now {
                account.delete(Retention::days(30).unwrap()).unwrap();
            }
            now
        })
    };
    let between = Between::of(&tenant);
    *between.before_load.lock().unwrap() = Some(elsewhere(tenant.ids[1], 2));
    *between.before_swap.lock().unwrap() = Some(elsewhere(tenant.ids[3], 1));
    let between = Arc::new(between);
    let report = tenant.delete_in(between.clone());
    assert!(between.is_done());
    assert_eq!((report.deleted, report.before, report.failures.len(), tenant.deleted()), (3, 2, 0, 5));
    for id in [tenant.ids[1], tenant.ids[3]] {
        let (theirs, ours) = (tenant.record(id), tenant.record(tenant.ids[0]));
        assert!(theirs.recoverable_until() > ours.recoverable_until(), "it keeps its retention");
    }
}

#[test]
fn e7_e8_a_bulk_purge_destroys_nothing_for_a_tombstone_and_shredding_does() {
    let tenant = Tenant::new(2);
    let victim = tenant.ids[0];
    let planted = {
        let store: Arc<dyn RecordStore> = tenant.records.clone();
        tenant.world.cache.shred(&store, tenant.ids[1], strongroom::DestroyForGood).unwrap();
        let Loaded::Found { bytes, .. } = tenant.records.load(tenant.ids[1], None).unwrap() else {
            panic!("a tombstone")
        };
        [&bytes[..9], victim.as_bytes(), &bytes[25..]].concat()
    };
    let Loaded::Found { tag, .. } = tenant.records.load(victim, None).unwrap() else { panic!("a record") };
    tenant.records.compare_and_swap(victim, Some(&tag), &planted).unwrap();
    let kept = tenant.records.history(victim).unwrap();
    assert!(!kept.is_empty(), "from which it can be restored");
    let run = tenant.operations.begin(OperationKind::Purge, HERS).unwrap();
    let expect = |id| Some(tenant.world.expect(id));
    let report = tenant.world.cache.purge_all(tenant.records.clone(), &expect, run, 1000).unwrap();
    assert_eq!((report.purged, report.retained, report.failures.len()), (0, 0, 0));
    assert_eq!(tenant.records.history(victim).unwrap(), kept);
    let store: Arc<dyn RecordStore> = tenant.records.clone();
    tenant.world.cache.shred(&store, victim, strongroom::DestroyForGood).unwrap();
    assert!(tenant.records.history(victim).unwrap().is_empty());
}
