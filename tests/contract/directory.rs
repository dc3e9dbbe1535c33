//! Many accounts over one record store, attached on use and dropped when idle: C8, C9, G1.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use strongroom::provider::{Kek, KeyProvider};
use strongroom::testing::{Answer, Call, ScriptedProvider};
use strongroom::{
    Account, AccountId, AccountSpec, AekCache, Directory, DirectoryBuilder, Error, ErrorKind, Expect, Loaded,
    MemoryRecordStore, OutageGrace, RecordStore, RecordTag, RotateTo, Status,
};

use crate::common::{Block, KEK, Meddler, World, kind, millis, secs, usable};

type Hook = Arc<dyn Fn(AccountId) -> Result<(), Error> + Send + Sync>;

/// Records in memory; counts loads, and does at each whatever it is told to.
#[derive(Default)]
struct Shelf {
    records: MemoryRecordStore,
    loads: AtomicUsize,
    at_load: Mutex<Option<Hook>>,
}

impl Shelf {
    fn at_load(&self, hook: impl Fn(AccountId) -> Result<(), Error> + Send + Sync + 'static) {
        *self.at_load.lock().unwrap() = Some(Arc::new(hook));
    }

    fn calm(&self) {
        *self.at_load.lock().unwrap() = None;
    }

    fn loads(&self) -> usize {
        self.loads.load(Ordering::SeqCst)
    }

    fn bytes(&self, id: AccountId) -> Vec<u8> {
        let Loaded::Found { bytes, .. } = self.records.load(id, None).unwrap() else { panic!("no record") };
        bytes
    }

    fn plant(&self, id: AccountId, bytes: &[u8]) {
        let tag = match self.records.load(id, None).unwrap() {
            Loaded::Found { tag, .. } => Some(tag),
            _ => None,
        };
        self.records.compare_and_swap(id, tag.as_ref(), bytes).unwrap();
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shelf")
    }
}

impl RecordStore for Shelf {
    fn load(&self, account: AccountId, known: Option<&RecordTag>) -> Result<Loaded, Error> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let hook = self.at_load.lock().unwrap().clone();
        hook.map_or(Ok(()), |hook| hook(account))?;
        self.records.load(account, known)
    }

    fn compare_and_swap(
        &self,
        account: AccountId,
        expected: Option<&RecordTag>,
        bytes: &[u8],
    ) -> Result<RecordTag, Error> {
        self.records.compare_and_swap(account, expected, bytes)
    }
}

/// A directory with tenants in it.
struct Tenants {
    world: World,
    shelf: Arc<Shelf>,
    directory: Directory,
}

impl Tenants {
    /// Refreshed every 6 s, so that J = 6.6 s.
    fn new(configure: impl FnOnce(DirectoryBuilder) -> DirectoryBuilder) -> Self {
        let (world, shelf) = (World::new(6, OutageGrace::None), Arc::new(Shelf::default()));
        let builder = Directory::builder(world.cache.clone(), shelf.clone());
        let directory = configure(builder).build().unwrap();
        Self { world, shelf, directory }
    }

    /// An account that is registered and not attached, and a block of its own.
    fn tenant(&self) -> (AccountId, Block) {
        let account = self.world.cache.create(self.world.spec().store(self.shelf.clone())).unwrap();
        let (id, block) = (account.id(), Block::sealed_by(&account));
        drop(account);
        self.world.cache.drive();
        self.directory.register(self.world.expect(id)).unwrap();
        self.world.kms.clear_log();
        self.shelf.loads.store(0, Ordering::SeqCst);
        (id, block)
    }

    fn use_of(&self, id: AccountId) -> Account {
        self.directory.account(id).unwrap()
    }

    fn attached(&self) -> usize {
        self.world.cache.stats().accounts
    }

    fn lookup(&self, id: AccountId) -> Option<ErrorKind> {
        kind(self.directory.account(id))
    }
}

fn store_failed(id: AccountId) -> Error {
    Error::record_store(id, std::io::Error::other("the test fails this"))
}

#[test]
fn c8_registering_5000_accounts_makes_no_call() {
    let tenants = Tenants::new(|builder| builder);
    for _ in 0..5000 {
        tenants.directory.register(tenants.world.expect(AccountId::random())).unwrap();
    }
    tenants.world.run(secs(3600));
    assert_eq!((tenants.world.kms.log().len(), tenants.shelf.loads(), tenants.attached()), (0, 0, 0));
    assert_eq!(format!("{:?}", tenants.directory), "Directory { registered: 5000, attached: 0, .. }");
}

#[test]
fn c8_c9_a_thousand_callers_on_threads_cause_one_load_and_one_unwrap() {
    let tenants = Tenants::new(|builder| builder);
    let (id, block) = tenants.tenant();
    let directory = &tenants.directory;
    let pending: Vec<_> = thread::scope(|scope| {
        let callers: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| (0..50).map(|_| directory.begin_account(id)).collect::<Vec<_>>()))
            .collect();
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    });
    assert_eq!(tenants.shelf.loads(), 0, "nothing is read on a caller's thread");
    let accounts: Vec<_> = pending.into_iter().map(|pending| pending.wait().unwrap()).collect();
    tenants.world.cache.drive();
    assert!(accounts.iter().all(|account| block.open(account).is_ok()));
    assert_eq!(accounts.len(), 1000);
    // One to attach, one by the refresh.
    assert_eq!((tenants.shelf.loads(), tenants.world.unwraps().len(), tenants.attached()), (2, 1, 1));
}

#[test]
fn c9_an_account_of_a_directory_is_attached_while_the_kms_is_down() {
    let tenants = Tenants::new(|builder| builder);
    let (id, block) = tenants.tenant();
    tenants.world.kms.every_call(&Answer::Transient);
    let account = tenants.use_of(id);
    tenants.world.run(secs(60));
    assert_eq!(block.open(&account), Err(ErrorKind::NotReady));
    tenants.world.kms.every_call(&Answer::Ok);
    tenants.world.run(secs(60));
    assert_eq!(block.open(&account), Ok(()), "it became ready by itself");
}

#[test]
fn c8_idle_accounts_are_dropped_cost_no_call_and_come_back_on_use() {
    let tenants = Tenants::new(|builder| builder);
    let ((idle, block), (busy, _)) = (tenants.tenant(), tenants.tenant());
    let first = tenants.use_of(idle).epoch();
    for _ in 0..59 {
        tenants.world.run(secs(10));
        assert!(usable(&tenants.use_of(busy)));
    }
    assert_eq!(tenants.attached(), 2, "9 minutes 50 seconds");
    let events = tenants.world.cache.events();
    for _ in 0..7 {
        tenants.world.run(secs(10));
        drop(tenants.use_of(busy));
    }
    assert_eq!(tenants.attached(), 1, "11 minutes");
    let closed = std::iter::from_fn(|| events.try_next()).find(|event| event.account == idle).unwrap();
    assert_eq!(closed.status, Status::Locked, "its key is gone");
    assert!(closed.epoch > first);

    tenants.world.run(secs(660));
    assert_eq!(tenants.attached(), 0);
    tenants.world.kms.clear_log();
    tenants.world.run(secs(3600));
    assert!(tenants.world.kms.log().is_empty());

    tenants.world.kms.every_call(&Answer::Delay(millis(15)));
    let again = tenants.use_of(idle);
    assert!(again.epoch() > closed.epoch, "no epoch is told twice");
    assert_eq!(block.open(&again), Err(ErrorKind::NotReady));
    tenants.world.run(millis(15));
    assert_eq!((block.open(&again), tenants.world.unwraps().len()), (Ok(()), 1));
}

#[test]
fn c8_what_somebody_holds_waits_for_or_locked_is_not_idle() {
    let tenants = Tenants::new(|builder| builder.idle_after(Some(secs(60))));
    let ids: Vec<_> = (0..5).map(|_| tenants.tenant().0).collect();
    let accounts: Vec<_> = ids.iter().map(|id| tenants.use_of(*id)).collect();
    tenants.world.cache.drive();
    accounts[0].lock();
    let (fence, value) = (accounts[1].fence().unwrap(), accounts[2].guard(7).unwrap());
    let held = accounts[3].clone();
    drop(accounts);
    tenants.world.run(secs(600));
    assert_eq!(tenants.attached(), 4);
    assert_eq!(tenants.use_of(ids[0]).status(), Status::Locked, "until `unlock`");
    assert!(fence.check().is_ok() && *value.get().unwrap() == 7 && usable(&held));
    drop((fence, value, held));
    tenants.world.run(secs(53));
    assert_eq!(tenants.attached(), 4, "idle since just now, give or take a tenth");
    tenants.world.run(secs(20));
    assert_eq!(tenants.attached(), 1);

    tenants.world.kms.every_call(&Answer::Transient);
    let ready = tenants.use_of(ids[4]).ready();
    tenants.world.run(secs(600));
    assert_eq!(tenants.attached(), 2, "somebody waits for it");
    drop(ready);
    tenants.world.run(secs(80));
    assert_eq!(tenants.attached(), 1);
}

#[test]
fn c8_an_account_that_is_never_idle_stays() {
    let tenants = Tenants::new(|builder| builder.idle_after(None));
    let (id, _) = tenants.tenant();
    drop(tenants.use_of(id));
    tenants.world.run(secs(7200));
    assert_eq!(tenants.attached(), 1);
}

#[test]
fn c1_unwraps_keep_their_distance_however_often_an_account_is_dropped_and_attached() {
    let tenants = Tenants::new(|builder| builder.idle_after(Some(millis(6600))));
    let (id, _) = tenants.tenant();
    let mut drops = 0;
    for _ in 0..200 {
        drop(tenants.use_of(id));
        tenants.world.run_until(millis(50), secs(30), || tenants.attached() == 0);
        drops += 1;
    }
    let unwraps = tenants.world.unwraps();
    let nearest = unwraps.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap();
    assert!(drops == 200 && unwraps.len() > 200 && nearest >= secs(6), "{nearest:?}");
}

#[test]
fn c1_unwraps_keep_their_distance_however_often_an_account_is_registered_anew() {
    let tenants = Tenants::new(|builder| builder);
    let (id, block) = tenants.tenant();
    for time in 0..200 {
        let account = tenants.use_of(id);
        tenants.world.run(millis(350));
        // Also in the midst of an attempt.
        tenants.world.kms.every_call(&Answer::Delay(millis(time % 2 * 100)));
        drop(account);
        assert!(tenants.directory.unregister(id));
        assert_eq!(tenants.attached(), 0);
        tenants.directory.register(tenants.world.expect(id)).unwrap();
    }
    let unwraps = tenants.world.unwraps();
    let nearest = unwraps.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap();
    assert!(unwraps.len() >= 9 && nearest >= secs(6), "{} {nearest:?}", unwraps.len());
    let account = tenants.use_of(id);
    tenants.world.run(secs(7));
    assert_eq!(block.open(&account), Ok(()));
}

#[test]
fn c1_a_dropped_account_does_not_refill_the_bucket_of_requests() {
    let tenants = Tenants::new(|builder| builder.idle_after(Some(millis(6600))));
    let (id, _) = tenants.tenant();
    let begun = tenants.world.elapsed();
    for _ in 0..100 {
        let account = tenants.use_of(id);
        for _ in 0..5 {
            drop(account.ready());
            tenants.world.cache.drive();
            account.lock();
            drop(account.unlock());
        }
        drop(account);
        tenants.world.run_until(millis(50), secs(30), || tenants.attached() == 0);
    }
    // The schedule's, one each 6 s, and what the bucket gives: three, and one more each 6 s.
    let most = 2 * (tenants.world.elapsed() - begun).as_secs() / 6 + 3;
    let unwraps = tenants.world.unwraps().len() as u64;
    assert!(unwraps <= most, "{unwraps} in {:?}", tenants.world.elapsed() - begun);
}

#[test]
fn c8_a_bound_that_cannot_serve_the_accounts_in_use_is_an_error() {
    let tenants = Tenants::new(|builder| builder.most_attached(2).idle_after(None));
    let ids: Vec<_> = (0..4).map(|_| tenants.tenant().0).collect();
    drop(tenants.use_of(ids[0]));
    tenants.world.run(secs(1));
    drop(tenants.use_of(ids[1]));
    assert_eq!(tenants.lookup(ids[2]), Some(ErrorKind::Limit), "both were used just now");
    tenants.world.run(secs(7));
    tenants.world.kms.every_call(&Answer::Delay(millis(15)));
    let held = tenants.use_of(ids[2]);
    assert!(usable(&tenants.use_of(ids[1])), "the other one, used less recently, made room");
    assert_eq!(tenants.attached(), 2);
    assert_eq!(tenants.lookup(ids[0]), Some(ErrorKind::Limit));
    tenants.world.run(secs(7));
    assert_eq!(tenants.lookup(ids[0]), None);
    tenants.world.run(secs(7));
    assert!(usable(&held), "it is in use, though used least recently");
    let other = tenants.use_of(ids[3]);
    tenants.world.run(secs(7));
    assert_eq!(tenants.lookup(ids[0]), Some(ErrorKind::Limit), "both are held");
    assert_eq!((tenants.attached(), usable(&other)), (2, true));
}

#[test]
fn d1_a_revoked_tenant_stays_revoked_when_it_is_dropped_and_attached_again() {
    let tenants = Tenants::new(|builder| builder.idle_after(Some(secs(60))));
    let (id, block) = tenants.tenant();
    drop(tenants.use_of(id));
    tenants.world.kms.set_enabled(KEK, false);
    tenants.world.run(secs(80));
    assert_eq!(tenants.attached(), 0);
    tenants.world.kms.every_call(&Answer::Delay(millis(15)));
    let account = tenants.use_of(id);
    assert_eq!(block.open(&account), Err(ErrorKind::NotReady), "until an unwrap decides");
    tenants.world.run(secs(7));
    assert_eq!(block.open(&account), Err(ErrorKind::Revoked));
    tenants.world.kms.set_enabled(KEK, true);
    tenants.world.run(secs(61));
    assert_eq!(block.open(&account), Ok(()));
}

#[test]
fn f6_a_record_older_than_one_seen_is_refused_when_it_is_attached_again() {
    let tenants = Tenants::new(|builder| builder.idle_after(Some(secs(60))));
    let (id, block) = tenants.tenant();
    let old = tenants.shelf.bytes(id);
    let account = tenants.use_of(id);
    tenants.world.cache.drive();
    tenants.world.kms.add_version(KEK);
    account.rotate_kek(RotateTo::Latest).unwrap();
    drop(account);
    tenants.world.run(secs(80));
    let new = tenants.shelf.bytes(id);
    assert!(new != old && tenants.attached() == 0);
    tenants.shelf.plant(id, &old);
    assert_eq!(tenants.lookup(id), Some(ErrorKind::Untrusted));
    tenants.shelf.plant(id, &new);
    let account = tenants.use_of(id);
    tenants.world.cache.drive();
    assert_eq!(block.open(&account), Ok(()));
}

#[test]
fn g1_what_cannot_be_attached_is_an_error_of_its_own_and_tried_again() {
    let tenants = Tenants::new(|builder| builder);
    let (id, _) = tenants.tenant();
    assert_eq!(tenants.lookup(AccountId::random()), Some(ErrorKind::Misuse), "not registered");
    let absent = AccountId::random();
    tenants.directory.register(tenants.world.expect(absent)).unwrap();
    assert_eq!(tenants.lookup(absent), Some(ErrorKind::Untrusted));
    tenants.shelf.plant(absent, b"not a record");
    assert_eq!(tenants.lookup(absent), Some(ErrorKind::Format));
    tenants.shelf.plant(absent, &tenants.shelf.bytes(id));
    assert_eq!(tenants.lookup(absent), Some(ErrorKind::Untrusted), "of another account");

    tenants.shelf.at_load(|id| Err(store_failed(id)));
    assert_eq!(tenants.lookup(id), Some(ErrorKind::Io));
    tenants.shelf.at_load(|_| panic!("the store panics"));
    assert_eq!(tenants.lookup(id), Some(ErrorKind::Unavailable));
    tenants.shelf.calm();
    assert_eq!(tenants.lookup(id), None);
    assert_eq!(tenants.attached(), 1);
    assert!(tenants.world.kms.calls(Call::Unwrap) <= 1, "no failure made a call");

    assert_eq!(kind(tenants.directory.register(tenants.world.expect(id))), Some(ErrorKind::Misuse));
    let other = Expect::account(absent).kek(tenants.world.provider(), "another");
    assert!(tenants.directory.unregister(absent) && !tenants.directory.unregister(absent));
    tenants.directory.register(other).unwrap();
    assert_eq!(tenants.lookup(absent), Some(ErrorKind::Untrusted));
}

/// On threads, because a load that hangs holds one.
#[test]
fn b11_a_record_store_that_hangs_costs_one_worker_and_delays_no_other_for_long() {
    let kms: Arc<dyn KeyProvider> = Arc::new(ScriptedProvider::new());
    let shelf = Arc::new(Shelf::default());
    // A quarter of the threads may load: one that hangs, and one that does not.
    let cache = AekCache::builder().kms_threads(8).build().unwrap();
    let directory = Directory::builder(cache.clone(), shelf.clone()).build().unwrap();
    let ids: Vec<_> = (0..9).map(|_| AccountId::random()).collect();
    for id in &ids {
        let spec = AccountSpec::new(*id, Arc::clone(&kms), Kek::latest(KEK)).store(shelf.clone());
        cache.create(spec).unwrap();
        directory.register(Expect::account(*id).kek(Arc::clone(&kms), KEK)).unwrap();
    }
    let (hung, others) = ids.split_first().unwrap();
    let (release, held) = mpsc::channel::<()>();
    let (bad, held) = (*hung, Mutex::new(held));
    shelf.at_load(move |id| {
        if id == bad {
            let _ = held.lock().unwrap().recv();
        }
        Ok(())
    });
    let first = directory.begin_account(*hung);
    for id in others {
        directory.account(*id).unwrap().wait_ready(PATIENCE).unwrap();
    }
    assert_eq!(kind(first.wait()), Some(ErrorKind::Unavailable), "at its deadline");
    for _ in 0..10 {
        assert_eq!(kind(directory.account(*hung)), Some(ErrorKind::Unavailable), "at once");
    }
    assert_eq!(cache.stats().hanging_workers, 1);
    drop(release);
    while cache.stats().hanging_workers > 0 {
        thread::yield_now();
    }
    directory.account(*hung).unwrap().wait_ready(PATIENCE).unwrap();
}

const PATIENCE: Duration = secs(60);

/// On threads, because two loads have to land at once.
#[test]
fn g1_a_load_that_was_overtaken_by_unregister_is_in_nobodys_way() {
    let kms: Arc<dyn KeyProvider> = Arc::new(ScriptedProvider::new());
    let shelf = Arc::new(Shelf::default());
    let cache = AekCache::builder().kms_threads(8).build().unwrap();
    let directory = Directory::builder(cache.clone(), shelf.clone()).build().unwrap();
    let id = AccountId::random();
    let expect = || Expect::account(id).kek(Arc::clone(&kms), KEK);
    cache.create(AccountSpec::new(id, Arc::clone(&kms), Kek::latest(KEK)).store(shelf.clone())).unwrap();
    directory.register(expect()).unwrap();
    let may_land = Arc::new(AtomicBool::new(false));
    let land = Arc::clone(&may_land);
    shelf.at_load(move |_| {
        while !land.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        Ok(())
    });
    for time in 0..2000 {
        let overtaken = directory.begin_account(id);
        assert!(directory.unregister(id));
        directory.register(expect()).unwrap();
        let wanted = directory.begin_account(id);
        may_land.store(true, Ordering::SeqCst);
        let found = wanted.wait();
        assert!(found.is_ok(), "{time}: {found:?}");
        assert_eq!(kind(overtaken.wait()), Some(ErrorKind::Misuse));
        drop(found);
        assert!(directory.unregister(id));
        directory.register(expect()).unwrap();
        may_land.store(false, Ordering::SeqCst);
    }
    may_land.store(true, Ordering::SeqCst);
}

#[test]
fn an_unregistered_account_is_dropped_and_its_waits_end() {
    let tenants = Tenants::new(|builder| builder);
    let ((first, _), (second, _)) = (tenants.tenant(), tenants.tenant());
    drop(tenants.use_of(first));
    let waits = tenants.directory.begin_account(second);
    assert!(tenants.directory.unregister(first) && tenants.directory.unregister(second));
    assert_eq!(kind(waits.wait()), Some(ErrorKind::Misuse));
    tenants.world.cache.drive();
    assert_eq!(tenants.attached(), 0);
    tenants.directory.register(tenants.world.expect(first)).unwrap();
    assert_eq!(tenants.lookup(first), None);

    tenants.world.cache.shutdown(Duration::ZERO);
    assert_eq!(tenants.use_of(first).status(), Status::Locked);
    tenants.directory.register(tenants.world.expect(second)).unwrap();
    assert_eq!(tenants.lookup(second), Some(ErrorKind::Unavailable));
}

#[test]
fn a_directory_that_would_take_turns_at_the_kms_is_refused() {
    let world = World::new(30, OutageGrace::None);
    let builder = || Directory::builder(world.cache.clone(), Arc::new(Shelf::default()));
    assert_eq!(kind(builder().idle_after(Some(millis(32_999))).build()), Some(ErrorKind::Misuse));
    assert_eq!(kind(builder().idle_after(Some(secs(33))).build()), None);
    assert_eq!(kind(builder().most_attached(0).build()), Some(ErrorKind::Misuse));
}

#[test]
fn g1_a_provider_that_is_dropped_with_its_account_may_use_the_directory() {
    let tenants = Tenants::new(|builder| builder);
    let (id, other) = (AccountId::random(), tenants.tenant().0);
    let provider = Meddler::new(tenants.world.kms.clone());
    let directory = tenants.directory.clone();
    let (used, uses) = mpsc::channel();
    provider.at_drop(move || used.send(directory.unregister(other)).unwrap());
    tenants.directory.register(Expect::account(id).kek(provider, KEK)).unwrap();
    let directory = tenants.directory.clone();
    // Where it would wait for itself, that is on a thread that nobody waits for.
    thread::Builder::new().spawn(move || directory.unregister(id)).unwrap();
    assert_eq!(uses.recv_timeout(secs(30)), Ok(true));
}
