//! A scope that is linked and unlinked again and again while two machines write and read through it (contract E9).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use strongroom::provider::{Kek, KeyProvider};
use strongroom::store::{Moved, Route, Scope, ScopeBuilder};
use strongroom::testing::ScriptedProvider;
use strongroom::{
    Account, AccountId, AccountSpec, AekCache, BlockSize, ErrorKind, Expect, MemoryRecordStore, RecordStore,
    ScopeId, SealedObject,
};

use crate::SealedStore;
use crate::world::kind;

/// What all threads share.
struct Load {
    memory: Arc<InMemory>,
    /// Counts the moves' begins and ends: odd while nothing moves, so a write during which it stays the same odd number has
    /// begun after the move before it had returned, and was acknowledged before the next began.
    phase: AtomicUsize,
    /// The account that new data goes under, in each odd phase.
    expected: Mutex<Vec<AccountId>>,
    /// Acknowledged: path, what was written, and the account in its header.
    written: Mutex<Vec<(Path, String, AccountId)>>,
    /// How many of them had to be under a certain account.
    judged: AtomicUsize,
    overtaken: AtomicUsize,
    over: AtomicBool,
}

struct Machine {
    _cache: AekCache,
    customer: Account,
    scope: Scope,
    store: SealedStore,
}

const MACHINES: usize = 2;
const WRITERS: usize = 3;
const READERS: usize = 1;

impl Load {
    fn machines(&self, bound: Duration) -> (Arc<ScriptedProvider>, Vec<Machine>, [AccountId; 2]) {
        let kms = Arc::new(ScriptedProvider::new());
        let provider: Arc<dyn KeyProvider> = kms.clone();
        let records: Arc<dyn RecordStore> = Arc::new(MemoryRecordStore::new());
        let states: Arc<dyn RecordStore> = Arc::new(MemoryRecordStore::new());
        let ids = [AccountId::random(), AccountId::random()];
        let first = AekCache::builder().build().unwrap();
        for (name, id) in ["service", "customer"].into_iter().zip(ids) {
            kms.add_key(name);
            let spec = AccountSpec::new(id, Arc::clone(&provider), Kek::latest(name));
            first.create(spec.store(Arc::clone(&records))).unwrap();
        }
        let scope = ScopeId::random();
        let machine = |nth: usize| {
            let cache = AekCache::builder().refresh_every(Duration::from_secs(6)).build().unwrap();
            let attach = |name: &str, id| {
                let expect = Expect::account(id).kek(Arc::clone(&provider), name);
                let account = cache.attach_stored(Arc::clone(&records), expect).unwrap();
                account.wait_ready(Duration::from_secs(10)).unwrap();
                account
            };
            let (service, customer) = (attach("service", ids[0]), attach("customer", ids[1]));
            let known = customer.clone();
            let find = move |id| (id == known.id()).then(|| known.clone());
            let builder = Scope::builder(scope, service, Arc::clone(&states), find).confirmed_within(bound);
            let scope = if nth == 0 { builder.create().unwrap() } else { ScopeBuilder::open(builder) };
            let routed = scope.clone();
            let builder = SealedStore::builder(self.memory.clone(), "bucket", move |_: &str| {
                Route::scoped(routed.clone())
            });
            let store = builder.block_size(BlockSize::MIN).build().unwrap();
            Machine { _cache: cache, customer, scope, store }
        };
        (kms.clone(), (0..MACHINES).map(machine).collect(), ids)
    }

    async fn write(&self, store: &SealedStore, name: String) {
        let path = Path::from(name.clone());
        let before = self.phase.load(Ordering::SeqCst);
        match store.put(&path, name.clone().into()).await {
            Ok(_) => {
                let after = self.phase.load(Ordering::SeqCst);
                let stored = self.memory.get(&path).await.unwrap().bytes().await.unwrap();
                let owner = SealedObject::peek(&stored).unwrap().account;
                if before == after && before % 2 == 1 {
                    assert_eq!(owner, self.expected.lock().unwrap()[before / 2], "{name}, in phase {before}");
                    self.judged.fetch_add(1, Ordering::SeqCst);
                }
                self.written.lock().unwrap().push((path, name, owner));
            }
            Err(error) => {
                assert_eq!(kind(&error), Some(ErrorKind::Conflict), "{error}");
                self.overtaken.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    async fn read_some(&self, store: &SealedStore) {
        let some: Vec<_> = self.written.lock().unwrap().iter().rev().step_by(3).take(20).cloned().collect();
        for (path, plain, _) in some {
            assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), plain);
        }
    }
}

/// However a thread ends, by a panic too, it is over for all.
struct Ends<'a>(&'a Load);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
    }
}

fn run(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
}

/// Moves that many times; after each waits until it is in force everywhere, which is at once where the bound is zero.
fn under_load(bound: Duration, moves: usize, each: Duration) {
    let load = Load {
        memory: Arc::new(InMemory::new()),
        phase: AtomicUsize::new(0),
        expected: Mutex::default(),
        written: Mutex::default(),
        judged: AtomicUsize::new(0),
        overtaken: AtomicUsize::new(0),
        over: AtomicBool::new(false),
    };
    let (kms, machines, ids) = load.machines(bound);
    thread::scope(|scope| {
        for (at, machine) in machines.iter().enumerate() {
            let load = &load;
            for writer in 0..WRITERS {
                scope.spawn(move || {
                    let _ends = Ends(load);
                    run(async {
                        let mut nth = 0;
                        while !load.over.load(Ordering::SeqCst) {
                            load.write(&machine.store, format!("{at}/{writer}/{nth}")).await;
                            nth += 1;
                        }
                    });
                });
            }
            for _ in 0..READERS {
                scope.spawn(move || {
                    let _ends = Ends(load);
                    run(async {
                        while !load.over.load(Ordering::SeqCst) {
                            load.read_some(&machine.store).await;
                            thread::yield_now();
                        }
                    });
                });
            }
        }
        let _ends = Ends(&load);
        for nth in 0..moves {
            // The machines take turns.
            let Machine { scope, customer, .. } = &machines[nth % MACHINES];
            let linked = nth % 2 == 0;
            let moved: Moved = if linked { scope.link(customer) } else { scope.unlink() }.unwrap();
            wait(bound);
            load.expected.lock().unwrap().push(if linked { ids[1] } else { ids[0] });
            assert_eq!(moved.sequence.number(), nth as u64 + 2);
            assert_eq!(load.phase.fetch_add(1, Ordering::SeqCst) % 2, 0);
            wait(each);
            assert_eq!(load.phase.fetch_add(1, Ordering::SeqCst) % 2, 1);
        }
    });
    let written = load.written.lock().unwrap().clone();
    let judged = load.judged.load(Ordering::SeqCst);
    assert!(judged > moves, "{judged} of {} writes lay within one phase", written.len());
    assert!(ids.iter().all(|id| written.iter().any(|(_, _, owner)| owner == id)));

    kms.set_enabled("customer", false);
    for machine in &machines {
        while machine.customer.permit().is_ok() {
            wait(Duration::from_millis(50));
        }
        run(async {
            for (path, plain, owner) in written.iter().step_by(written.len().div_ceil(500)) {
                let read = machine.store.get(path).await;
                match *owner == ids[1] {
                    true => assert_eq!(kind(&read.unwrap_err()), Some(ErrorKind::Revoked)),
                    false => assert_eq!(read.unwrap().bytes().await.unwrap(), plain),
                }
            }
        });
    }
}

#[expect(clippy::disallowed_methods, reason = "it runs in real time")]
fn wait(duration: Duration) {
    thread::sleep(duration);
}

#[test]
fn e9_under_load_every_acknowledged_write_that_began_after_a_move_is_under_the_new_key() {
    under_load(Duration::ZERO, 40, Duration::from_millis(25));
}

#[test]
fn e9_under_load_every_machine_follows_within_the_bound() {
    under_load(Duration::from_secs(1), 3, Duration::from_millis(300));
}
