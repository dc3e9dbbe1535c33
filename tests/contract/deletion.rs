//! Deleting, recovering, purging: E7.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use strongroom::testing::{Answer, Call, ManualClock, ScriptedProvider};
use strongroom::{
    Account, AccountId, AccountRecord, AccountSpec, AekCache, Anchor, AnchoredRecordStore, DestroyForGood,
    Directory, Error, ErrorKind, FileRecordStore, MemoryRecordStore, OutageGrace, RecordArchive,
    RecordCursor, RecordPolicy, RecordStore, Refusal, RestoreSpec, Restored, Retention, RotateTo, Status,
    StoredAnchor,
};

use crate::common::{Block, KEK, Store, World, kind, millis, secs, usable};

const DAY: Duration = secs(86_400);

/// Two machines that share records, and time.
struct Shared {
    here: World,
    there: World,
    store: Arc<Store>,
}

impl Shared {
    fn new(grace: OutageGrace) -> Self {
        let clock = ManualClock::new();
        let kms = ScriptedProvider::on_virtual_time().with_clock(&clock);
        let machine = |refresh| World::beside(&clock, kms.clone(), secs(refresh), grace);
        Self { here: machine(6), there: machine(30), store: Store::new() }
    }

    fn records(&self) -> Arc<dyn RecordStore> {
        self.store.clone()
    }

    fn create(&self) -> Account {
        self.here.cache.create(self.here.spec().store(self.records())).unwrap()
    }

    fn attach(&self, id: AccountId) -> Result<Account, Error> {
        self.there.cache.attach_stored(self.records(), self.there.expect(id))
    }

    /// An account in use on both.
    fn account(&self) -> (Account, Account, Block) {
        let here = self.create();
        let there = self.attach(here.id()).unwrap();
        let block = Block::sealed_by(&here);
        self.pass(secs(1));
        assert_eq!(block.open(&there), Ok(()));
        (here, there, block)
    }

    fn pass(&self, time: Duration) {
        let steps = time.as_millis() / 100;
        for _ in 0..steps.max(1) {
            self.here.clock.advance(millis(100));
            self.here.cache.drive();
            self.there.cache.drive();
        }
    }

    /// Long, and without what happens meanwhile.
    fn skip(&self, time: Duration) {
        self.here.clock.advance(time);
        self.pass(secs(70));
    }

    fn record(&self, id: AccountId) -> AccountRecord {
        AccountRecord::parse(&self.store.bytes(id).unwrap()).unwrap()
    }
}

/// Whether the bytes of the record's wrapped key are anywhere in what the store has.
fn wrapped_is_left(store: &Store, record: &AccountRecord) -> bool {
    let bytes = record.to_bytes();
    let wrapped = &bytes[150..190];
    let stored = [store.bytes(record.account()).into_iter().collect(), store.kept(record.account())].concat();
    stored.iter().any(|stored| stored.windows(wrapped.len()).any(|window| window == wrapped))
}

#[test]
fn e7_a_deleted_account_refuses_at_once_and_says_that_it_is_deleted() {
    let shared = Shared::new(OutageGrace::DEFAULT);
    let account = shared.create();
    let (block, fence) = (Block::sealed_by(&account), account.fence().unwrap());
    let (guarded, events, epoch) = (account.guard(7).unwrap(), shared.here.cache.events(), account.epoch());
    let deletion = account.delete(Retention::DEFAULT).unwrap();
    assert_eq!((block.open(&account), account.status()), (Err(ErrorKind::Deleted), Status::Deleted));
    assert_eq!(kind(account.permit()), Some(ErrorKind::Deleted));
    assert_eq!(
        (kind(fence.check()), kind(guarded.get().map(drop))),
        (Some(ErrorKind::Deleted), Some(ErrorKind::Deleted))
    );
    assert!(account.epoch() > epoch);
    assert_eq!(events.try_next().unwrap().status, Status::Deleted);
    assert_eq!(kind(account.ready().wait()), Some(ErrorKind::Deleted));
    let until = shared.record(account.id()).recoverable_until().unwrap();
    assert_eq!(until, deletion.recoverable_until);
    shared.here.kms.clear_log();
    shared.pass(secs(300));
    assert!(shared.here.unwraps().is_empty(), "nobody asks for the key of a deleted account");
}

#[test]
fn e7_retention_is_14_days_unless_said_otherwise_and_bounded() {
    assert_eq!(Retention::default().duration(), 14 * DAY);
    for days in [0, 366, u16::MAX] {
        assert_eq!(kind(Retention::days(days)), Some(ErrorKind::Misuse));
    }
    for days in [1, 14, 365] {
        let shared = Shared::new(OutageGrace::None);
        let account = shared.create();
        let Status::Fresh { valid_until } = account.status() else { panic!("fresh") };
        let now: SystemTime = valid_until - shared.here.cache.fresh_for();
        let deletion = account.delete(Retention::days(days).unwrap()).unwrap();
        let retained = deletion.recoverable_until.duration_since(now).unwrap();
        assert!(retained <= DAY * u32::from(days) && retained > DAY * u32::from(days) - secs(1));
        // A second deletion keeps the first one's retention.
        let again = account.delete(Retention::days(100).unwrap()).unwrap();
        assert_eq!(again.recoverable_until, deletion.recoverable_until);
    }
}

#[test]
fn e7_other_machines_refuse_within_the_bound() {
    let shared = Shared::new(OutageGrace::DEFAULT);
    let (here, there, block) = shared.account();
    let deletion = here.delete(Retention::DEFAULT).unwrap();
    shared.pass(shared.there.cache.staleness_bound());
    assert_eq!((block.open(&there), there.status()), (Err(ErrorKind::Deleted), Status::Deleted));
    assert!(deletion.refused_everywhere_after.unwrap() < deletion.recoverable_until);
}

#[test]
fn e7_c5_in_an_outage_an_account_is_deleted_here_and_elsewhere_all_the_same() {
    for silence in [Answer::Transient, Answer::Hang] {
        let shared = Shared::new(OutageGrace::For(secs(3000)));
        let (here, there, block) = shared.account();
        shared.here.kms.every_call(&silence);
        shared.pass(secs(120));
        assert!(
            matches!(here.status(), Status::Grace { .. }) && matches!(there.status(), Status::Grace { .. })
        );
        let before = shared.here.kms.log().len();
        here.delete(Retention::DEFAULT).unwrap();
        assert_eq!(shared.here.kms.log().len(), before, "the KMS was not asked");
        assert_eq!(block.open(&here), Err(ErrorKind::Deleted));
        shared.pass(secs(71));
        assert_eq!(block.open(&there), Err(ErrorKind::Deleted), "not only at the end of grace: {silence:?}");
    }
}

#[test]
fn e7_c5_an_account_that_lives_on_its_neighbours_silence_hears_of_its_deletion_too() {
    for silence in [Answer::Transient, Answer::Hang] {
        let shared = Shared::new(OutageGrace::For(secs(3000)));
        let accounts: Vec<_> = (0..8).map(|_| shared.account()).collect();
        shared.here.kms.every_call(&silence);
        shared.pass(secs(120));
        for (here, there, _) in &accounts {
            assert!(usable(here) && usable(there));
            here.delete(Retention::DEFAULT).unwrap();
        }
        shared.pass(secs(71));
        for (_, there, block) in &accounts {
            assert_eq!(block.open(there), Err(ErrorKind::Deleted), "{silence:?}");
        }
    }
}

#[test]
fn e7_a_deleted_account_comes_back_with_its_data_on_any_machine() {
    let shared = Shared::new(OutageGrace::DEFAULT);
    let (here, there, block) = shared.account();
    here.delete(Retention::DEFAULT).unwrap();
    shared.pass(secs(60));
    shared.skip(13 * DAY);
    // The other machine recovers it, and this one hears of it.
    there.recover().unwrap();
    shared.pass(secs(1));
    assert_eq!((block.open(&there), block.open(&here)), (Ok(()), Err(ErrorKind::Deleted)));
    here.record_changed();
    shared.pass(secs(10));
    assert_eq!(block.open(&here), Ok(()));
    assert_eq!(shared.record(here.id()).recoverable_until(), None);
    // One that was recovered elsewhere is taken back into use here.
    here.delete(Retention::DEFAULT).unwrap();
    shared.pass(secs(60));
    assert_eq!(block.open(&there), Err(ErrorKind::Deleted));
    here.recover().unwrap();
    there.recover().expect("it is recovered already");
    shared.pass(secs(10));
    assert_eq!((block.open(&here), block.open(&there)), (Ok(()), Ok(())));
}

#[test]
fn e7_recovery_needs_an_unwrap_that_starts_after_it_was_asked_for() {
    let shared = Shared::new(OutageGrace::DEFAULT);
    let account = shared.create();
    let block = Block::sealed_by(&account);
    account.delete(Retention::DEFAULT).unwrap();
    let deleted = shared.store.bytes(account.id()).unwrap();
    for (answer, expected) in [
        (Answer::Refused(Refusal::KeyDisabled), ErrorKind::Revoked),
        (Answer::Transient, ErrorKind::Unavailable),
        (Answer::OtherAek, ErrorKind::Untrusted),
    ] {
        shared.here.kms.next(Call::Unwrap, [answer]);
        assert_eq!(kind(account.recover()), Some(expected));
        assert_eq!(shared.store.bytes(account.id()).unwrap(), deleted);
        shared.pass(secs(30));
        assert_eq!((block.open(&account), account.status()), (Err(ErrorKind::Deleted), Status::Deleted));
    }
    shared.here.kms.next(Call::Unwrap, [Answer::Ok, Answer::Refused(Refusal::KeyDisabled)]);
    account.recover().unwrap();
    shared.pass(secs(1));
    assert_eq!(block.open(&account), Err(ErrorKind::Revoked), "the lease begins with an unwrap of its own");
    shared.pass(secs(20));
    assert_eq!(block.open(&account), Ok(()));
}

#[test]
fn e7_d5_a_lock_outlives_deletion_and_recovery() {
    let shared = Shared::new(OutageGrace::DEFAULT);
    let account = shared.create();
    let block = Block::sealed_by(&account);
    account.lock();
    account.delete(Retention::DEFAULT).unwrap();
    assert_eq!(account.status(), Status::Deleted);
    account.recover().unwrap();
    shared.pass(secs(60));
    assert_eq!((account.status(), block.open(&account)), (Status::Locked, Err(ErrorKind::Locked)));
    account.unlock().unwrap();
    assert_eq!(block.open(&account), Ok(()));
}

#[test]
fn e7_a_revoked_or_silent_account_without_a_lease_is_not_deleted_without_its_key() {
    for (answer, expected) in
        [(Answer::Refused(Refusal::KeyGone), ErrorKind::Revoked), (Answer::Transient, ErrorKind::Unavailable)]
    {
        let shared = Shared::new(OutageGrace::None);
        let account = shared.create();
        let record = shared.store.bytes(account.id()).unwrap();
        shared.here.kms.every_call(&answer);
        shared.pass(secs(60));
        assert_eq!(kind(account.delete(Retention::DEFAULT)), Some(expected));
        assert_eq!(shared.store.bytes(account.id()).unwrap(), record);
        // The customer who demands destruction gets it.
        shared.here.cache.shred(&shared.records(), account.id(), DestroyForGood).unwrap();
        assert_eq!(account.status(), Status::Deleted);
        assert!(!wrapped_is_left(&shared.store, &account.record()));
    }
}

#[test]
fn e7_a_purge_before_the_end_of_the_retention_or_of_an_active_account_is_refused() {
    let shared = Shared::new(OutageGrace::None);
    let account = shared.create();
    assert_eq!(kind(account.purge()), Some(ErrorKind::Misuse));
    account.delete(Retention::days(2).unwrap()).unwrap();
    shared.skip(2 * DAY - secs(120));
    let before = (shared.store.bytes(account.id()), shared.store.kept(account.id()));
    assert_eq!(kind(account.purge()), Some(ErrorKind::Misuse));
    assert_eq!((shared.store.bytes(account.id()), shared.store.kept(account.id())), before);
    shared.skip(secs(120));
    assert_eq!(kind(account.recover()), Some(ErrorKind::Deleted), "the retention is over");
    account.purge().unwrap();
}

#[test]
fn e7_a_purge_destroys_the_wrapped_key_with_its_whole_history_and_the_id_stays_taken() {
    let shared = Shared::new(OutageGrace::None);
    let (here, there, block) = shared.account();
    let record = here.record();
    shared.here.kms.add_version(KEK);
    here.rotate_kek(RotateTo::Latest).unwrap();
    here.delete(Retention::DEFAULT).unwrap();
    shared.skip(14 * DAY);
    assert!(wrapped_is_left(&shared.store, &record) && wrapped_is_left(&shared.store, &here.record()));
    here.purge().unwrap();
    assert!(!wrapped_is_left(&shared.store, &record) && !wrapped_is_left(&shared.store, &here.record()));
    assert_eq!(shared.store.kept(here.id()), Vec::<Vec<u8>>::new());
    here.purge().expect("once more");

    let tombstone = shared.store.bytes(here.id()).unwrap();
    // Who has it attached neither uses it nor writes the record back.
    for account in [&here, &there] {
        assert_eq!(block.open(account), Err(ErrorKind::Deleted));
        account.record_changed();
        shared.pass(secs(30));
        assert_eq!(block.open(account), Err(ErrorKind::Deleted));
        assert_eq!(kind(account.recover()), Some(ErrorKind::Deleted));
        assert_eq!(kind(account.rotate_kek(RotateTo::Latest)), Some(ErrorKind::Deleted));
        assert_eq!(kind(account.set_policy(RecordPolicy::default())), Some(ErrorKind::Deleted));
        assert_eq!(kind(account.delete(Retention::DEFAULT)), Some(ErrorKind::Deleted));
    }
    let id = here.id();
    drop((here, there));
    shared.pass(secs(1));
    assert_eq!(kind(shared.attach(id)), Some(ErrorKind::Deleted));
    let spec = AccountSpec::new(id, shared.here.provider(), strongroom::provider::Kek::latest(KEK));
    assert_eq!(kind(shared.here.cache.create(spec.store(shared.records()))), Some(ErrorKind::Conflict));
    assert_eq!(shared.store.bytes(id).unwrap(), tombstone);
}

#[test]
fn e7_an_account_that_is_shredded_closes_here_at_once_and_elsewhere_within_the_bound() {
    let shared = Shared::new(OutageGrace::DEFAULT);
    let (here, there, block) = shared.account();
    let record = here.record();
    shared.here.cache.shred(&shared.records(), here.id(), DestroyForGood).unwrap();
    assert_eq!((block.open(&here), block.open(&there)), (Err(ErrorKind::Deleted), Ok(())));
    // Before it has heard of it, it cannot write the record back either.
    let tombstone = shared.store.bytes(here.id()).unwrap();
    assert_eq!(kind(there.set_policy(record.policy().with_max_grace(secs(1)))), Some(ErrorKind::Deleted));
    assert_eq!(kind(there.delete(Retention::DEFAULT)), Some(ErrorKind::Deleted));
    shared.pass(shared.there.cache.staleness_bound());
    assert_eq!((block.open(&there), there.status()), (Err(ErrorKind::Deleted), Status::Deleted));
    assert_eq!(shared.store.bytes(here.id()).unwrap(), tombstone);
    assert!(!wrapped_is_left(&shared.store, &record));
}

#[test]
fn e7_shredding_asks_nobody_and_destroys_whatever_is_there() {
    let shared = Shared::new(OutageGrace::DEFAULT);
    let account = shared.create();
    let (id, record) = (account.id(), account.record());
    shared.here.kms.every_call(&Answer::Hang);
    shared.here.kms.clear_log();
    // The store fails: closed all the same, and said.
    shared.store.fail_all();
    assert_eq!(kind(shared.here.cache.shred(&shared.records(), id, DestroyForGood)), Some(ErrorKind::Io));
    assert_eq!(account.status(), Status::Deleted);
    shared.store.calm();
    // A damaged record, and rivals.
    shared.store.plant(id, b"damaged");
    shared.store.conflict_nth(0);
    shared.here.cache.shred(&shared.records(), id, DestroyForGood).unwrap();
    assert!(!wrapped_is_left(&shared.store, &record));
    assert!(shared.here.kms.log().is_empty(), "the KMS was not asked");
    // What a rival wrote into the history meanwhile goes the next time, and an account that never was is taken.
    shared.here.cache.shred(&shared.records(), id, DestroyForGood).unwrap();
    let never = AccountId::random();
    shared.here.cache.shred(&shared.records(), never, DestroyForGood).unwrap();
    assert_eq!(kind(shared.attach(never)), Some(ErrorKind::Deleted));
}

#[test]
fn e7_f6_with_an_anchor_neither_a_deleted_nor_a_purged_account_can_be_put_back() {
    let clock = ManualClock::new();
    let kms = ScriptedProvider::on_virtual_time().with_clock(&clock);
    let world = World::beside(&clock, kms, secs(6), OutageGrace::None);
    let (records, anchors) = (Store::new(), Store::new());
    let anchor = Arc::new(StoredAnchor::new(anchors as _));
    let store = || -> Arc<dyn RecordStore> {
        Arc::new(AnchoredRecordStore::new(records.clone() as _, anchor.clone()))
    };
    let account = world.cache.create(world.spec().store(store())).unwrap();
    let (id, active) = (account.id(), records.bytes(account.id()).unwrap());
    account.delete(Retention::days(1).unwrap()).unwrap();
    let deleted = records.bytes(id).unwrap();
    clock.advance(DAY);
    let attach = || {
        let other = World::beside(&clock, world.kms.clone(), secs(6), OutageGrace::None);
        let attached = other.cache.attach_stored(store(), other.expect(id));
        attached.map(drop)
    };
    attach().expect("as a deleted account");
    records.plant(id, &active);
    assert_eq!(kind(attach()), Some(ErrorKind::Untrusted));
    records.plant(id, &deleted);
    let anchored = anchor.least(id).unwrap();
    account.purge().unwrap();
    assert!(anchor.least(id).unwrap() > anchored, "the tombstone is anchored");
    assert_eq!(kind(attach()), Some(ErrorKind::Deleted));
    assert!(records.kept(id).is_empty(), "the store within was told");
    for old in [active, deleted] {
        records.plant(id, &old);
        assert_eq!(kind(attach()), Some(ErrorKind::Untrusted));
        account.record_changed();
        world.run(secs(30));
        assert!(!usable(&account));
    }
}

#[test]
fn e7_a_directory_tells_a_deleted_and_a_purged_account_by_kind() {
    let shared = Shared::new(OutageGrace::None);
    let account = shared.create();
    let id = account.id();
    let directory = Directory::builder(shared.there.cache.clone(), shared.records()).build().unwrap();
    directory.register(shared.there.expect(id)).unwrap();
    account.delete(Retention::days(1).unwrap()).unwrap();
    let found = directory.account(id).unwrap();
    assert_eq!(kind(found.ready().wait()), Some(ErrorKind::Deleted));
    assert_eq!(kind(found.permit()), Some(ErrorKind::Deleted));
    shared.skip(DAY);
    account.purge().unwrap();
    drop(found);
    directory.unregister(id);
    directory.register(shared.there.expect(id)).unwrap();
    assert_eq!(kind(directory.account(id)), Some(ErrorKind::Deleted));
}

#[test]
fn e7_of_rivals_one_wins_and_the_other_is_told() {
    let shared = Shared::new(OutageGrace::None);
    let (here, there, block) = shared.account();
    let before = shared.store.bytes(here.id()).unwrap();
    shared.store.conflict_nth(0);
    assert_eq!(kind(here.delete(Retention::DEFAULT)), Some(ErrorKind::Conflict));
    assert_eq!((shared.store.bytes(here.id()).unwrap(), block.open(&here)), (before, Ok(())));
    // A rotation elsewhere is no obstacle: the newest record is deleted.
    shared.here.kms.add_version(KEK);
    there.rotate_kek(RotateTo::Latest).unwrap();
    here.delete(Retention::DEFAULT).unwrap();
    assert_eq!(shared.record(here.id()).kek_version().as_str(), "2");
    // And a deleted account's key can still be wrapped anew, and stays deleted.
    shared.here.kms.add_version(KEK);
    there.rotate_kek(RotateTo::Latest).unwrap();
    assert!(shared.record(here.id()).recoverable_until().is_some());
    shared.pass(secs(60));
    shared.store.conflict_nth(0);
    assert_eq!(kind(there.recover()), Some(ErrorKind::Conflict));
    assert_eq!(there.status(), Status::Deleted);
    there.recover().unwrap();
    shared.pass(secs(2));
    assert_eq!(block.open(&there), Ok(()));
}

#[test]
fn e7_without_a_record_store_the_caller_keeps_the_deletion() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    let id = account.id();
    let deletion = account.delete(Retention::DEFAULT).unwrap();
    assert_eq!(deletion.refused_everywhere_after, None);
    let record = account.record();
    assert_eq!(record.recoverable_until(), Some(deletion.recoverable_until));
    assert_eq!(kind(account.purge()), Some(ErrorKind::Misuse));
    drop(account);
    world.cache.drive();
    let again = world.cache.attach(record, world.expect(id)).unwrap();
    assert_eq!(kind(again.ready().wait()), Some(ErrorKind::Deleted));
    again.recover().unwrap();
    world.run(secs(10));
    assert!(usable(&again));
    assert_eq!(again.record().recoverable_until(), None);
}

#[test]
fn e7_a_forged_deletion_deletes_nothing() {
    let shared = Shared::new(OutageGrace::DEFAULT);
    let (here, there, _) = shared.account();
    let honest = shared.store.bytes(here.id()).unwrap();
    // As `delete` writes it, without the key that the MAC needs.
    let mut forged = honest.clone();
    forged.splice(41..42, [2].into_iter().chain([0; 16]));
    forged[25..33].copy_from_slice(&9_u64.to_be_bytes());
    assert!(AccountRecord::parse(&forged).unwrap().recoverable_until().is_some());
    shared.store.plant(here.id(), &forged);
    assert_eq!(kind(here.purge()), Some(ErrorKind::Untrusted));
    assert_eq!(kind(here.delete(Retention::DEFAULT)), Some(ErrorKind::Untrusted));
    shared.pass(secs(40));
    assert_ne!(there.status(), Status::Deleted);
    assert_eq!(shared.store.bytes(here.id()).unwrap(), forged, "nothing was destroyed");
    shared.store.plant(here.id(), &honest);
    shared.pass(secs(60));
    assert!(usable(&here) && usable(&there));
}

#[test]
fn e7_e10_a_purge_is_told_by_verification_reaches_no_mirror_and_is_undone_by_an_explicit_word_only() {
    let world = World::new(6, OutageGrace::None);
    let (first, second) = (Arc::new(MemoryRecordStore::new()), Arc::new(MemoryRecordStore::new()));
    let account = world.cache.create(world.spec().store(first.clone())).unwrap();
    let (id, block) = (account.id(), Block::sealed_by(&account));
    let mirror = |cursor: &mut RecordCursor| {
        let expect = |id| Some(world.expect(id));
        world.cache.mirror(first.as_ref(), second.clone(), cursor, &expect, 1000).unwrap()
    };
    assert_eq!(mirror(&mut RecordCursor::new()).copied, 1);
    let copy = account.record();
    let records: Arc<dyn RecordStore> = first.clone();
    world.cache.shred(&records, id, DestroyForGood).unwrap();

    let expect = {
        let provider = world.provider();
        move |id| Some(strongroom::Expect::account(id).kek(Arc::clone(&provider), KEK))
    };
    let report = world.cache.verify_all(first.clone(), expect, 1000).unwrap().report().unwrap();
    assert_eq!((report.accounts, report.purged, report.failures.len()), (1, 1, 0));
    let report = mirror(&mut RecordCursor::new());
    assert_eq!(report.failures[0].1.kind(), ErrorKind::Deleted);
    assert!(
        matches!(second.load(id, None).unwrap(), strongroom::Loaded::Found { bytes, .. } if bytes == copy.to_bytes())
    );
    drop(account);
    world.cache.drive();
    // With a copy and the customer's KEK the data is back: what purge does not destroy.
    let spec = RestoreSpec::new(first.clone(), copy, world.expect(id));
    assert_eq!(kind(world.cache.restore(spec.clone())), Some(ErrorKind::Deleted));
    assert!(matches!(world.cache.restore(spec.accept_an_older_record()), Ok(Restored::Again(_))));
    let back = world.cache.attach_stored(first, world.expect(id)).unwrap();
    world.run(secs(1));
    assert_eq!(block.open(&back), Ok(()));
    let mirror: Arc<dyn RecordStore> = second.clone();
    world.cache.shred(&mirror, id, DestroyForGood).unwrap();
    assert!(second.history(id).unwrap().is_empty());
}

/// Deletes, recovers, deletes and purges, with a failure at the `n`th call of the store. False when it did not come.
fn life_with_a_failure(strike: impl Fn(&Store)) -> bool {
    let shared = Shared::new(OutageGrace::None);
    let account = shared.create();
    let (id, block, wrapped) = (account.id(), Block::sealed_by(&account), account.record());
    strike(&shared.store);
    let insist = |call: &dyn Fn() -> Result<(), Error>| {
        for _ in 0..3 {
            match call() {
                Ok(()) => return,
                Err(error) => assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::Conflict), "{error}"),
            }
            // Whatever is there, it is the account's, and nothing is served that it does not allow.
            let bytes = shared.store.bytes(id).unwrap();
            if let Ok(record) = AccountRecord::parse(&bytes) {
                assert_eq!(record.fingerprint(), wrapped.fingerprint());
            } else {
                assert!(!usable(&account), "a tombstone");
            }
        }
        panic!("fails again and again");
    };
    insist(&|| account.delete(Retention::days(1)?).map(drop));
    assert_eq!(block.open(&account), Err(ErrorKind::Deleted));
    insist(&|| account.recover());
    shared.pass(secs(60));
    assert_eq!(block.open(&account), Ok(()));
    insist(&|| account.delete(Retention::days(1)?).map(drop));
    shared.skip(DAY);
    insist(&|| account.purge());
    let struck = !shared.store.calm();
    assert!(!wrapped_is_left(&shared.store, &wrapped));
    assert_eq!(kind(shared.attach(id)), Some(ErrorKind::Deleted));
    struck
}

#[test]
fn e7_r14_the_nth_call_of_the_record_store_fails_and_a_deletion_is_done_or_not() {
    let strikes: [fn(&Store, usize); 3] = [
        |store, n| store.fail_nth(n, false),
        |store, n| store.fail_nth(n, true),
        |store, n| store.conflict_nth(n),
    ];
    for strike in strikes {
        let struck = (0..).take_while(|n| life_with_a_failure(|store| strike(store, *n))).count();
        assert!(struck >= 4, "there was something to strike: {struck}");
    }
}

#[test]
fn e7_files_of_a_purged_account_hold_nothing_of_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records");
    let clock = ManualClock::new();
    let kms = ScriptedProvider::on_virtual_time().with_clock(&clock);
    let world = World::beside(&clock, kms, secs(6), OutageGrace::None);
    let store = Arc::new(FileRecordStore::open(&path).unwrap());
    let account = world.cache.create(world.spec().store(store.clone())).unwrap();
    let wrapped = account.record().to_bytes()[150..190].to_vec();
    account.delete(Retention::days(1).unwrap()).unwrap();
    let found = || {
        let mut folders = vec![path.clone()];
        let mut found = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap().path();
                if entry.is_dir() {
                    folders.push(entry);
                } else if std::fs::read(entry).unwrap().windows(40).any(|window| window == wrapped) {
                    found += 1;
                }
            }
        }
        found
    };
    assert_eq!(found(), 3, "the record, and both that were written");
    clock.advance(DAY);
    account.purge().unwrap();
    assert_eq!(found(), 0);
    let reopened: Arc<dyn RecordStore> = Arc::new(FileRecordStore::open(&path).unwrap());
    assert_eq!(
        kind(world.cache.attach_stored(reopened, world.expect(account.id()))),
        Some(ErrorKind::Deleted)
    );
}

/// A store of the user's own, which says nothing of destroying.
#[derive(Debug)]
struct Plain(MemoryRecordStore);

impl RecordStore for Plain {
    fn load(
        &self,
        account: AccountId,
        known: Option<&strongroom::RecordTag>,
    ) -> Result<strongroom::Loaded, Error> {
        self.0.load(account, known)
    }

    fn compare_and_swap(
        &self,
        account: AccountId,
        expected: Option<&strongroom::RecordTag>,
        bytes: &[u8],
    ) -> Result<strongroom::RecordTag, Error> {
        self.0.compare_and_swap(account, expected, bytes)
    }
}

#[test]
fn e7_what_a_store_cannot_destroy_is_not_said_to_be_destroyed() {
    let world = World::new(6, OutageGrace::None);
    let store: Arc<dyn RecordStore> = Arc::new(Plain(MemoryRecordStore::new()));
    let account = world.cache.create(world.spec().store(Arc::clone(&store))).unwrap();
    let error = world.cache.shred(&store, account.id(), DestroyForGood).unwrap_err();
    assert_eq!((error.kind(), error.account()), (ErrorKind::Misuse, Some(account.id())));
    assert_eq!(account.status(), Status::Deleted);
    assert_eq!(kind(world.cache.attach_stored(store, world.expect(account.id()))), Some(ErrorKind::Deleted));
}

#[test]
fn e7_nothing_is_deleted_by_a_cache_that_is_shut_down() {
    let world = World::new(6, OutageGrace::None);
    let store = Store::new();
    let account = world.cache.create(world.spec().store(store.clone())).unwrap();
    let before = store.bytes(account.id()).unwrap();
    let cache: &AekCache = &world.cache;
    cache.shutdown(secs(1));
    assert_eq!(kind(account.delete(Retention::DEFAULT)), Some(ErrorKind::Unavailable));
    assert_eq!(store.bytes(account.id()).unwrap(), before);
}
