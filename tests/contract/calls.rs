//! Control calls: futures that need no runtime, the end of a cache, misuse told as such.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use strongroom::provider::Kek;
use strongroom::testing::{Answer, Call, ScriptedProvider};
use strongroom::{
    AccountId, AccountSpec, AekCache, ErrorKind, Expect, OutageGrace, Pending, Retire, RotateTo, Status,
};

use crate::common::{Block, KEK, Store, World, kind, millis, secs, usable};

/// The smallest executor there is.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        thread::park();
    }
}

fn poll_once<T>(pending: &mut Pending<T>) -> bool {
    Pin::new(pending).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

fn real(kms: &ScriptedProvider) -> AccountSpec {
    AccountSpec::new(AccountId::random(), Arc::new(kms.clone()), Kek::latest(KEK))
}

#[test]
fn futures_are_send_and_static_and_need_no_runtime() {
    fn send_static<T: Send + 'static>(value: T) -> T {
        value
    }
    let kms = ScriptedProvider::new();
    let cache = AekCache::builder().build().unwrap();
    let create = send_static(cache.begin_create(real(&kms)));
    let account = thread::scope(|scope| scope.spawn(|| block_on(create)).join().unwrap()).unwrap();
    block_on(async {
        send_static(account.ready()).await.unwrap();
        account.lock();
        assert_eq!(kind(account.ready().await), Some(ErrorKind::Locked));
        send_static(account.begin_unlock()).await.unwrap();
        kms.add_version(KEK);
        let rotated = send_static(account.begin_rotate_kek(RotateTo::Latest)).await.unwrap();
        assert!(matches!(rotated, Retire::AfterPersisting(_)));
    });
    assert!(usable(&account));
}

#[test]
fn a_dropped_future_abandons_the_wait_and_never_the_operation() {
    for polls in 0..3 {
        let world = World::new(6, OutageGrace::None);
        let store = Store::new();
        let spec = world.spec().store(Arc::clone(&store) as _);
        let account = world.cache.create(spec).unwrap();
        let poll_and_drop = |mut pending: Pending<Retire>| {
            for _ in 0..polls {
                assert!(!poll_once(&mut pending));
            }
        };
        world.kms.add_version(KEK);
        world.kms.next(Call::Wrap, [Answer::Delay(millis(500))]);
        poll_and_drop(account.begin_rotate_kek(RotateTo::Latest));
        world.run(secs(1));
        assert_eq!(account.record().kek_version().as_str(), "2");
        assert_eq!(store.bytes(account.id()).unwrap(), account.record().to_bytes());

        account.lock();
        let mut unlocking = account.begin_unlock();
        for _ in 0..polls {
            assert!(!poll_once(&mut unlocking));
        }
        drop(unlocking);
        world.run(secs(1));
        assert!(usable(&account));

        let id = AccountId::random();
        let spec = AccountSpec::new(id, world.provider(), Kek::latest(KEK)).store(Arc::clone(&store) as _);
        let mut creating = world.cache.begin_create(spec);
        for _ in 0..polls {
            assert!(!poll_once(&mut creating));
        }
        drop(creating);
        world.run(secs(1));
        // It was created, and nobody holds it: it can be attached.
        let account = world.cache.attach_stored(Arc::clone(&store) as _, world.expect(id)).unwrap();
        account.ready().wait().unwrap();
    }
}

#[test]
fn b11_a_control_call_at_a_kms_that_hangs_ends_with_its_deadline() {
    let kms = ScriptedProvider::new();
    let _release = kms.release_on_drop();
    let cache = AekCache::builder().call_deadline(secs(1)).build().unwrap();
    let account = cache.create(real(&kms)).unwrap();
    kms.every_call(&Answer::Hang);
    // Six calls' deadlines together; the second is not even started.
    let (rotating, creating) = (account.begin_rotate_kek(RotateTo::Latest), cache.begin_create(real(&kms)));
    assert_eq!(kind(rotating.wait()), Some(ErrorKind::Unavailable));
    assert_eq!(kind(creating.wait()), Some(ErrorKind::Unavailable));
}

#[test]
fn a_bounded_wait_ends_with_the_reason() {
    let kms = ScriptedProvider::new();
    let _release = kms.release_on_drop();
    let cache = AekCache::builder().build().unwrap();
    let account = cache.create(real(&kms)).unwrap();
    let (record, id) = (account.record(), account.id());
    drop(account);
    kms.every_call(&Answer::Hang);
    let expect = Expect::account(id).kek(Arc::new(kms.clone()), KEK);
    let account = cache.attach(record, expect).unwrap();
    assert_eq!(kind(account.wait_ready(millis(10))), Some(ErrorKind::NotReady));
}

#[test]
fn shutdown_closes_accounts_and_answers_everybody_who_waits() {
    let kms = ScriptedProvider::new();
    let release = kms.release_on_drop();
    let cache = AekCache::builder().build().unwrap();
    let account = cache.create(real(&kms)).unwrap();
    let cold = cache.create(real(&kms)).unwrap();
    let (record, id) = (cold.record(), cold.id());
    drop(cold);
    kms.every_call(&Answer::Hang);
    let cold = cache.attach(record, Expect::account(id).kek(Arc::new(kms.clone()), KEK)).unwrap();
    let mut events = cache.events();
    let (ready, rotating) = (cold.ready(), account.begin_rotate_kek(RotateTo::Latest));
    let creating = cache.begin_create(real(&kms));
    while kms.in_flight() == 0 {
        thread::yield_now();
    }
    assert!(!cache.shutdown(millis(10)), "a worker hangs in its call");
    assert!(ready.wait().is_err() && rotating.wait().is_err() && creating.wait().is_err());
    assert_eq!(kind(account.permit()), Some(ErrorKind::Locked));
    assert!(events.by_ref().count() >= 1, "and then they end");
    assert!(events.is_closed());
    drop(release);
    assert!(cache.shutdown(secs(1)), "a second one finds nothing to do");
}

#[test]
fn after_a_shutdown_every_control_call_fails_and_none_waits_for_ever() {
    let kms = ScriptedProvider::new();
    let cache = AekCache::builder().build().unwrap();
    let account = cache.create(real(&kms)).unwrap();
    let (record, expect) = (account.record(), Expect::account(account.id()).kek(Arc::new(kms.clone()), KEK));
    assert!(cache.shutdown(secs(5)));
    assert!(kind(account.unlock()).is_some());
    assert!(kind(account.ready().wait()).is_some());
    assert!(kind(account.wait_ready(secs(60))).is_some());
    assert!(kind(account.rotate_kek(RotateTo::Latest)).is_some());
    assert_eq!(kind(cache.create(real(&kms))), Some(ErrorKind::Unavailable));
    assert_eq!(kind(cache.attach(record, expect)), Some(ErrorKind::Unavailable));
    account.lock();
    account.record_changed();
}

#[test]
fn in_a_forked_child_every_account_is_closed_for_good() {
    // As far as one process can show it: the child's copy has no keeper to ask.
    let kms = ScriptedProvider::new();
    let cache = AekCache::builder().build().unwrap();
    let account = cache.create(real(&kms)).unwrap();
    let block = Block::sealed_by(&account);
    cache.after_fork();
    assert_eq!(block.open(&account), Err(ErrorKind::Locked));
    assert!(kind(account.unlock()).is_some(), "nobody is there to open it again");
    assert_eq!(kind(cache.create(real(&kms))), Some(ErrorKind::Unavailable));
    assert_eq!(block.open(&account), Err(ErrorKind::Locked));
    assert!(cache.shutdown(secs(1)));
}

#[test]
fn dropping_the_last_handle_closes_the_account_and_lets_it_be_attached_again() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    let block = Block::sealed_by(&account);
    let (record, id) = (account.record(), account.id());
    let (clone, fence) = (account.clone(), account.fence().unwrap());
    drop(account);
    assert_eq!(block.open(&clone), Ok(()));
    let again = || world.cache.attach(record.clone(), world.expect(id));
    assert_eq!(kind(again()), Some(ErrorKind::Misuse), "it is attached already");
    let waiting = clone.ready();
    drop(clone);
    assert_eq!(kind(fence.check()), Some(ErrorKind::Locked));
    waiting.wait().unwrap();
    assert_eq!(world.cache.stats().accounts, 0);
    // Though the fence still looks at the old one.
    let account = again().unwrap();
    assert!(fence.check().is_err());
    account.ready().wait().unwrap();
    assert_eq!(block.open(&account), Ok(()));
}

#[test]
fn an_account_that_is_dropped_while_it_waits_answers() {
    let world = World::new(6, OutageGrace::None);
    let (account, _) = world.attached();
    world.kms.every_call(&Answer::Transient);
    let waiting = account.ready();
    drop(account);
    assert_eq!(kind(waiting.wait()), Some(ErrorKind::Locked));
}

#[test]
fn settings_out_of_range_are_refused_before_anything_starts() {
    let misused = |builder: strongroom::AekCacheBuilder| {
        assert_eq!(kind(builder.build()), Some(ErrorKind::Misuse));
    };
    misused(AekCache::builder().call_deadline(millis(999)));
    misused(AekCache::builder().call_deadline(millis(5001)));
    misused(AekCache::builder().kms_threads(1));
    misused(AekCache::builder().kms_threads(1025));
    misused(AekCache::builder().version_check_every(secs(59)));
}

#[test]
fn creating_over_an_existing_record_is_a_conflict_and_changes_nothing() {
    let world = World::new(6, OutageGrace::None);
    let store = Store::new();
    let spec = world.spec().store(Arc::clone(&store) as _);
    let account = world.cache.create(spec.clone()).unwrap();
    let block = Block::sealed_by(&account);
    assert_eq!(kind(world.cache.create(spec.clone())), Some(ErrorKind::Misuse), "it is attached");
    let id = account.id();
    let before = store.bytes(id);
    drop(account);
    assert_eq!(kind(world.cache.create(spec)), Some(ErrorKind::Conflict));
    assert_eq!(store.bytes(id), before);
    let account = world.cache.attach_stored(Arc::clone(&store) as _, world.expect(id)).unwrap();
    account.ready().wait().unwrap();
    assert_eq!(block.open(&account), Ok(()));
}

#[test]
fn attaching_what_the_store_does_not_have_is_told() {
    let world = World::new(6, OutageGrace::None);
    let store = Store::new();
    let error =
        world.cache.attach_stored(Arc::clone(&store) as _, world.expect(AccountId::random())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted);
    store.fail_all();
    let id = AccountId::random();
    assert_eq!(kind(world.cache.attach_stored(store as _, world.expect(id))), Some(ErrorKind::Io));
    assert_eq!(world.kms.log().len(), 0);
    let (account, _) = world.attached();
    assert_eq!(account.status(), Status::NotReady);
}
