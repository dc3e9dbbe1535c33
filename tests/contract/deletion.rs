//! Deleting and recovering: E7.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use strongroom::testing::{Answer, Call, ManualClock, ScriptedProvider};
use strongroom::{
    Account, AccountId, AccountRecord, AekCache, DestroyForGood, Error, ErrorKind, OutageGrace, RecordStore,
    Refusal, Retention, RotateTo, Status,
};

use crate::common::{Block, KEK, Store, World, kind, millis, secs, usable};
use crate::purge::wrapped_is_left;

pub(crate) const DAY: Duration = secs(86_400);

/// Two machines that share records, and time.
pub(crate) struct Shared {
    pub(crate) here: World,
    pub(crate) there: World,
    pub(crate) store: Arc<Store>,
}

impl Shared {
    pub(crate) fn new(grace: OutageGrace) -> Self {
        let clock = ManualClock::new();
        let kms = ScriptedProvider::on_virtual_time().with_clock(&clock);
        let machine = |refresh| World::beside(&clock, kms.clone(), secs(refresh), grace);
        Self { here: machine(6), there: machine(30), store: Store::new() }
    }

    pub(crate) fn records(&self) -> Arc<dyn RecordStore> {
        self.store.clone()
    }

    pub(crate) fn create(&self) -> Account {
        self.here.cache.create(self.here.spec().store(self.records())).unwrap()
    }

    pub(crate) fn attach(&self, id: AccountId) -> Result<Account, Error> {
        self.there.cache.attach_stored(self.records(), self.there.expect(id))
    }

    /// An account in use on both.
    pub(crate) fn account(&self) -> (Account, Account, Block) {
        let here = self.create();
        let there = self.attach(here.id()).unwrap();
        let block = Block::sealed_by(&here);
        self.pass(secs(1));
        assert_eq!(block.open(&there), Ok(()));
        (here, there, block)
    }

    pub(crate) fn pass(&self, time: Duration) {
        let steps = time.as_millis() / 100;
        for _ in 0..steps.max(1) {
            self.here.clock.advance(millis(100));
            self.here.cache.drive();
            self.there.cache.drive();
        }
    }

    /// Long, and without what happens meanwhile.
    pub(crate) fn skip(&self, time: Duration) {
        self.here.clock.advance(time);
        self.pass(secs(70));
    }

    pub(crate) fn record(&self, id: AccountId) -> AccountRecord {
        AccountRecord::parse(&self.store.bytes(id).unwrap()).unwrap()
    }
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
fn e7_c5_without_a_record_store_too_a_kms_that_hangs_does_not_hold_up_a_deletion() {
    let world = World::new(6, OutageGrace::DEFAULT);
    let account = world.create();
    world.kms.every_call(&Answer::Hang);
    world.run(secs(120));
    assert!(usable(&account));
    account.set_policy(account.record().policy().with_max_grace(secs(900))).unwrap();
    account.delete(Retention::DEFAULT).unwrap();
    assert_eq!(account.status(), Status::Deleted);
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
