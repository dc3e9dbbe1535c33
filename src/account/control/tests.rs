//! Ends of attempts and of waits, in orders that the event loop rarely brings about.

use std::cell::Cell;
use std::time::Duration;

use super::*;
use crate::account::Account;
use crate::cache::{AccountSpec, AekCache};
use crate::clock::ManualClock;
use crate::error::{ErrorKind, Refusal};
use crate::format::policy::{GenerationLimits, RecordPolicy};
use crate::id::{BlockId, ObjectId};
use crate::keeper::{Pending, Report};
use crate::provider::Kek;
use crate::provider::block_on;
use crate::record_store::{MemoryRecordStore, RecordStore};
use crate::rotate::RotateTo;
use crate::testing::{Answer as Script, Call, ScriptedProvider, virtual_time};

fn account(clock: &ManualClock) -> (AekCache, Arc<ScriptedProvider>, Account) {
    let kms = Arc::new(ScriptedProvider::on_virtual_time());
    let cache = AekCache::builder().manual(clock).build().unwrap();
    let spec = AccountSpec::new(AccountId::random(), kms.clone(), Kek::latest(ScriptedProvider::KEK));
    let account = cache.create(spec).unwrap();
    (cache, kms, account)
}

#[test]
fn an_account_that_a_shutdown_has_locked_is_not_opened_by_its_creation() {
    let clock = ManualClock::new();
    let (_cache, _kms, account) = account(&clock);
    let inner = account.inner();
    let refreshed = block_on(inner.refresh(&Report::to_nobody()));
    let Ok(Refreshed::Verified(adopt)) = refreshed else { panic!("verified") };
    inner.retire();
    inner.adopt_first(clock.moment(), *adopt);
    assert_eq!(account.status(), Status::Locked);
}

#[test]
fn d5_an_unlock_that_finds_the_account_deleted_does_not_say_done() {
    let clock = ManualClock::new();
    let (_cache, _kms, account) = account(&clock);
    account.lock();
    let (inner, now) = (account.inner(), clock.moment());
    let unlocking = inner.begin_unlock();
    let attempt = inner.begin_attempt(now).expect("of the unlock");
    inner.take_refreshed(now, attempt, Refreshed::Deleted(inner.known()));
    assert_eq!(unlocking.wait().unwrap_err().kind(), ErrorKind::Deleted);
    assert_eq!(account.unlock().unwrap_err().kind(), ErrorKind::Deleted);
}

#[test]
fn e7_a_late_answer_that_tells_of_a_deletion_ends_the_waits() {
    let clock = ManualClock::new();
    let (_cache, kms, account) = account(&clock);
    kms.always(Call::Unwrap, Script::Hang);
    let (inner, now) = (account.inner(), clock.moment());
    inner.feed(now, Event::Delete);
    inner.feed(now, Event::Recover);
    clock.advance(Duration::from_secs(10));
    let now = clock.moment();
    let late = inner.begin_attempt(now).expect("due");
    inner.feed(now, Event::Answered(late, Answer::Transient));
    let (pending, completer) = Pending::new();
    let since = inner.lock_control().ended;
    inner.lock_control().waiters.push(Waiter { completer, unlock: false, since });
    inner.take_refreshed(now, late, Refreshed::Deleted(inner.known()));
    let ended = pending.wait_timeout(Duration::from_secs(5));
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Deleted);
}

#[test]
fn e7_a_deletion_that_was_overtaken_by_a_newer_record_is_not_heard() {
    let clock = ManualClock::new();
    let (_cache, kms, account) = account(&clock);
    let inner = account.inner();
    let before = inner.known();
    kms.add_version(ScriptedProvider::KEK);
    account.rotate_kek(RotateTo::Latest).unwrap();
    let newer = inner.known().record;
    assert!(newer.sequence() > before.record.sequence());
    clock.advance(Duration::from_secs(6));
    let now = clock.moment();
    let attempt = inner.begin_attempt(now).expect("due");
    inner.take_refreshed(now, attempt, Refreshed::Deleted(before));
    assert!(matches!(account.status(), Status::Fresh { .. }));
    assert_eq!(inner.known().record, newer);
}

/// A record store on which another machine recovers what is deleted, and this one hears of that before its own swap has returned.
#[derive(Debug)]
struct Recovering {
    records: Arc<MemoryRecordStore>,
    then: Mutex<Option<(Account, Account)>>,
}

impl RecordStore for Recovering {
    fn load(&self, account: AccountId, known: Option<&crate::RecordTag>) -> Result<crate::Loaded, Error> {
        self.records.load(account, known)
    }

    fn compare_and_swap(
        &self,
        account: AccountId,
        expected: Option<&crate::RecordTag>,
        bytes: &[u8],
    ) -> Result<crate::RecordTag, Error> {
        let swapped = self.records.compare_and_swap(account, expected, bytes)?;
        let then = self.then.lock().unwrap().take();
        if let Some((here, there)) = then {
            there.recover()?;
            here.inner().replace_known(there.inner().known())?;
        }
        Ok(swapped)
    }
}

#[test]
fn e7_who_deletes_and_has_heard_of_the_recovery_already_stays_open() {
    let (clock, kms) = (ManualClock::new(), Arc::new(ScriptedProvider::on_virtual_time()));
    let cache = || AekCache::builder().manual(&clock).build().unwrap();
    let (here, there) = (cache(), cache());
    let records = Arc::new(MemoryRecordStore::new());
    let store = Arc::new(Recovering { records: records.clone(), then: Mutex::default() });
    let spec = AccountSpec::new(AccountId::random(), kms.clone(), Kek::latest(ScriptedProvider::KEK));
    let account = here.create(spec.store(store.clone())).unwrap();
    let expect = Expect::account(account.id()).kek(kms, ScriptedProvider::KEK);
    let elsewhere = there.attach_stored(records, expect).unwrap();
    *store.then.lock().unwrap() = Some((account.clone(), elsewhere));
    account.delete(crate::Retention::DEFAULT).unwrap();
    assert!(store.then.lock().unwrap().is_none());
    assert_eq!(account.record().recoverable_until(), None);
    assert!(matches!(account.status(), Status::Fresh { .. }), "{:?}", account.status());
}

#[test]
fn a7_d12_a_stale_call_of_the_second_opens_nothing() {
    for closed_meanwhile in [false, true] {
        let clock = ManualClock::new();
        let (first, second) = (two_kms("first"), two_kms("second"));
        let store: Arc<dyn RecordStore> = Arc::new(MemoryRecordStore::new());
        let elsewhere = AekCache::builder().manual(&clock).build().unwrap();
        let id = AccountId::random();
        let spec = AccountSpec::new(id, first.clone(), Kek::latest(ScriptedProvider::KEK));
        let spec = spec.store(Arc::clone(&store));
        let limit = AccountSpec::FAILOVER_LIMIT;
        elsewhere.create(spec.failover(second.clone(), Kek::latest(ScriptedProvider::KEK), limit)).unwrap();
        let cache = AekCache::builder().manual(&clock).build().unwrap();
        let expect = Expect::account(id).kek(first, ScriptedProvider::KEK);
        let expect = expect.failover_kek(second, ScriptedProvider::KEK);
        let account = cache.attach_stored(store, expect).unwrap();
        let inner = account.inner();
        let first_says = |refreshed: fn(Error) -> Refreshed| {
            clock.advance(Duration::from_secs(60));
            let attempt = inner.begin_attempt(clock.moment()).expect("due");
            let error = Error::new(ErrorKind::Unavailable, "the test says so");
            inner.take_refreshed(clock.moment(), attempt, refreshed(error));
        };
        first_says(Refreshed::Silent);
        let begun_in = inner.begin_second(clock.moment()).expect("due");
        if closed_meanwhile {
            first_says(Refreshed::Wrong);
            first_says(Refreshed::Silent);
        }
        let unwrapped = block_on(inner.stand_in(&Report::to_nobody())).unwrap();
        let epoch = inner.take_second_pending(clock.moment(), begun_in);
        inner.take_stood_in(clock.moment(), epoch, unwrapped);
        let opened = matches!(account.status(), Status::Grace { .. });
        assert_eq!(opened, !closed_meanwhile, "{:?}", account.status());
    }
}

#[test]
fn b11_where_there_is_no_thread_one_attempt_fails_and_the_others_wait() {
    let clock = ManualClock::new();
    let (cache, kms, first) = account(&clock);
    let spec = || AccountSpec::new(AccountId::random(), kms.clone(), Kek::latest(ScriptedProvider::KEK));
    let accounts: Vec<_> = (0..20).map(|_| cache.create(spec()).unwrap()).collect();
    cache.run_for(Duration::from_secs(7));
    accounts.iter().chain([&first]).for_each(Account::record_changed);
    virtual_time::give_no_thread(true);
    let before = cache.stats().transient;
    cache.drive();
    let failed = cache.stats().transient - before;
    virtual_time::give_no_thread(false);
    // As a step follows each thing that the loop is told, a few; none costs an account its lease.
    assert!((1..=2).contains(&failed), "{failed}");
    cache.run_for(Duration::from_secs(7));
    let fresh = |account: &Account| matches!(account.status(), Status::Fresh { .. });
    assert!(accounts.iter().all(fresh));
}

#[test]
fn c1_an_account_that_was_left_for_good_begins_no_call() {
    for for_good in [false, true] {
        let clock = ManualClock::new();
        let (_cache, _kms, account) = account(&clock);
        clock.advance(Duration::from_secs(60));
        account.inner().leave(for_good);
        assert_eq!(account.inner().begin_attempt(clock.moment()).is_none(), for_good);
    }
}

fn two_kms(name: &str) -> Arc<ScriptedProvider> {
    let authority = crate::provider::Authority::new("scripted", name);
    Arc::new(ScriptedProvider::on_virtual_time().with_authority(authority))
}

#[test]
fn d7_whoever_waits_while_revoked_is_told_by_the_next_attempt_and_by_nothing_before() {
    let clock = ManualClock::new();
    let (_cache, _kms, account) = account(&clock);
    let inner = account.inner();
    let refused = || {
        let error = Error::new(ErrorKind::Revoked, "the key is disabled");
        Refreshed::Refused(Refusal::KeyDisabled, error)
    };
    let mut now = clock.moment();
    let mut attempt = || {
        clock.advance(Duration::from_secs(60));
        now = clock.moment();
        (now, inner.begin_attempt(now).expect("due"))
    };
    let (now, first) = attempt();
    inner.take_refreshed(now, first, refused());
    let (pending, completer) = Pending::new();
    let since = inner.lock_control().ended;
    inner.lock_control().waiters.push(Waiter { completer, unlock: false, since });
    let (now, second) = attempt();
    inner.feed(now, Event::Wake);
    assert_eq!(inner.lock_control().waiters.len(), 1, "no attempt has ended since");
    inner.take_refreshed(now, second, refused());
    let ended = pending.wait_timeout(Duration::from_secs(5));
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Revoked);
}

#[test]
fn d5_an_unlock_waits_for_its_own_attempt() {
    let clock = ManualClock::new();
    let (_cache, _kms, account) = account(&clock);
    let (inner, now) = (account.inner(), clock.moment());
    account.lock();
    let first = inner.begin_unlock();
    let overtaken = inner.begin_attempt(now).expect("of the first unlock");
    account.lock();
    assert_eq!(first.wait().unwrap_err().kind(), ErrorKind::Locked);

    let second = inner.begin_unlock();
    let waits = || inner.lock_control().waiters.len() == 1;
    inner.feed(now, Event::Wake);
    assert!(waits(), "an event that is no answer ends no wait");
    let refreshed = || block_on(inner.refresh(&Report::to_nobody()));
    inner.take_refreshed(now, overtaken, refreshed().unwrap());
    assert!(waits(), "the answer to an unlock before the lock ends no wait after it");
    let attempt = inner.begin_attempt(now).expect("of the second unlock");
    inner.take_refreshed(now, attempt, refreshed().unwrap());
    second.wait().unwrap();
}

#[test]
fn waits_that_were_given_up_are_not_kept_for_the_length_of_an_outage() {
    let clock = ManualClock::new();
    let (_cache, kms, account) = account(&clock);
    kms.always(Call::Unwrap, Script::Transient);
    account.inner().feed(clock.moment(), Event::Delete);
    account.inner().feed(clock.moment(), Event::Recover);
    let kept: Vec<_> = (0..10).map(|_| account.ready()).collect();
    for _ in 0..1000 {
        drop(account.ready());
    }
    let waiters = account.inner().lock_control().waiters.len();
    assert!((kept.len()..100).contains(&waiters), "{waiters} are kept");
}

#[test]
fn e6_a_full_older_generation_rings_once() {
    let clock = ManualClock::new();
    let (cache, _kms, account) = account(&clock);
    let limits = GenerationLimits::new(100, 1 << 60, 365).unwrap();
    account.set_policy(RecordPolicy::default().with_limits(limits)).unwrap();
    let older = account.record().generation();
    account.rotate_aek().unwrap();
    cache.run_for(Duration::from_secs(130));
    // The new one is in use, and no refresh has said so yet.
    clock.advance(Duration::from_secs(2));
    let inner = account.inner();
    let bell = &inner.parts.common.limits_bell;
    let rings = Cell::new(0);
    let seals = |generation| {
        let (id, mut out) = (BlockId::new(ObjectId::random(), 0), Vec::new());
        let permit = account.permit().unwrap();
        (0..1000)
            .map(|_| {
                let sealed = permit.seal_object_frame(generation, id, true, b"frame", &mut out);
                if bell.rang() {
                    rings.set(rings.get() + 1);
                    inner.look_at_limits(clock.moment());
                }
                sealed
            })
            .filter(Result::is_ok)
            .count()
    };
    assert_eq!((seals(older), rings.get()), (100, 1), "nobody is told of it, so once is enough");
    let newer = account.generation_use().unwrap().generation;
    assert_eq!((seals(newer), rings.get()), (100, 4), "near, imminent and reached");
    cache.run_for(Duration::from_secs(60));
    assert_eq!((seals(older), seals(newer), rings.get()), (0, 0, 4));
}
