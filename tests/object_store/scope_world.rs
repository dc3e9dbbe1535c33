//! A scope on two machines, on one virtual clock, and a store of its states that fails and lies on demand.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, Result};
use strongroom::provider::{Kek, KeyProvider};
use strongroom::store::{Route, Scope, ScopeBuilder};
use strongroom::testing::{ManualClock, ScriptedProvider};
use strongroom::{
    Account, AccountId, AccountSpec, AekCache, BlockSize, Error, ErrorKind, Expect, Loaded,
    MemoryRecordStore, RecordStore, RecordTag, ScopeId, SealedObject,
};

use crate::SealedStore;
use crate::world::{BLOCK, kind, pattern};

/// How long a machine may go by what it knows of a scope.
pub(crate) const BOUND: Duration = Duration::from_secs(6);
pub(crate) const SERVICE: &str = "service";
pub(crate) const ADA: &str = "ada";
pub(crate) const BOB: &str = "bob";

/// One clock, one KMS, one storage, one store of states.
pub(crate) struct Scene {
    pub(crate) clock: ManualClock,
    pub(crate) kms: Arc<ScriptedProvider>,
    pub(crate) records: Arc<dyn RecordStore>,
    pub(crate) states: Arc<States>,
    pub(crate) memory: Arc<InMemory>,
    pub(crate) id: ScopeId,
    pub(crate) ids: [(&'static str, AccountId); 3],
}

/// A cache in which the service's account and two customers' are in use, and the store over the scope.
pub(crate) struct Machine {
    pub(crate) cache: AekCache,
    pub(crate) service: Account,
    pub(crate) ada: Account,
    pub(crate) bob: Account,
    pub(crate) scope: Scope,
    pub(crate) store: SealedStore,
}

impl Scene {
    /// The scope was created, and two machines opened it.
    pub(crate) fn new() -> (Self, Machine, Machine) {
        Self::with_bound(BOUND)
    }

    pub(crate) fn with_bound(bound: Duration) -> (Self, Machine, Machine) {
        let clock = ManualClock::new();
        let kms = Arc::new(ScriptedProvider::on_virtual_time().with_clock(&clock));
        let records: Arc<dyn RecordStore> = Arc::new(MemoryRecordStore::new());
        let cache = AekCache::builder().manual(&clock).build().unwrap();
        let ids = [SERVICE, ADA, BOB].map(|name| {
            kms.add_key(name);
            let id = AccountId::random();
            let provider: Arc<dyn KeyProvider> = kms.clone();
            cache
                .create(AccountSpec::new(id, provider, Kek::latest(name)).store(Arc::clone(&records)))
                .unwrap();
            (name, id)
        });
        let (states, memory) = (Arc::new(States::default()), Arc::new(InMemory::new()));
        let scene = Self { clock, kms, records, states, memory, id: ScopeId::random(), ids };
        let a = scene.machine(|builder| builder.confirmed_within(bound).create().unwrap());
        let b = scene.machine(ScopeBuilder::open);
        (scene, a, b)
    }

    pub(crate) fn machine(&self, scope: impl FnOnce(ScopeBuilder) -> Scope) -> Machine {
        let cache = AekCache::builder().refresh_every(BOUND).manual(&self.clock).build().unwrap();
        let [service, ada, bob] = self.ids.map(|(name, id)| {
            let provider: Arc<dyn KeyProvider> = self.kms.clone();
            let expect = Expect::account(id).kek(provider, name);
            cache.attach_stored(Arc::clone(&self.records), expect).unwrap()
        });
        for account in [&service, &ada, &bob] {
            let _ = account.ready().wait();
        }
        let known = [ada.clone(), bob.clone()];
        let find = move |id: AccountId| known.iter().find(|account| account.id() == id).cloned();
        let scope = scope(Scope::builder(self.id, service.clone(), self.states.clone(), find));
        let store = self.store(&scope);
        Machine { cache, service, ada, bob, scope, store }
    }

    /// One that remembers nothing of the objects.
    pub(crate) fn store(&self, scope: &Scope) -> SealedStore {
        let scope = scope.clone();
        let route = move |_: &str| Route::scoped(scope.clone());
        let builder = SealedStore::builder(self.memory.clone(), "bucket", route);
        builder.block_size(BlockSize::MIN).part_size(5 * 1024 * 1024).build().unwrap()
    }

    /// Whose key the object says that it is under.
    pub(crate) async fn owner(&self, path: &str) -> AccountId {
        let bytes = self.memory.get(&path.into()).await.unwrap().bytes().await.unwrap();
        SealedObject::peek(&bytes).unwrap().account
    }

    pub(crate) fn run(&self, machines: &[&Machine], duration: Duration) {
        for _ in 0..duration.as_millis() / 500 {
            self.clock.advance(Duration::from_millis(500));
            machines.iter().for_each(|machine| machine.cache.drive());
        }
    }

    /// The customer disables or enables a key, and all have noticed.
    pub(crate) fn set_enabled(&self, name: &str, enabled: bool, machines: &[&Machine]) {
        self.kms.set_enabled(name, enabled);
        self.run(machines, Duration::from_secs(61));
    }
}

impl Machine {
    pub(crate) async fn put(&self, path: &str) -> Result<()> {
        self.store.put(&path.into(), pattern(LEN).into()).await.map(drop)
    }

    pub(crate) async fn read(&self, path: &str) -> Result<Bytes> {
        self.store.get(&path.into()).await?.bytes().await
    }

    pub(crate) async fn error_of_put(&self, path: &str) -> Option<ErrorKind> {
        kind(&self.put(path).await.expect_err(path))
    }

    pub(crate) async fn error_of_read(&self, path: &str) -> Option<ErrorKind> {
        kind(&self.read(path).await.expect_err(path))
    }
}

pub(crate) const LEN: usize = 3 * BLOCK + 7;

/// States in memory, and what can go wrong with them.
#[derive(Debug, Default)]
pub(crate) struct States {
    memory: MemoryRecordStore,
    pub(crate) loads: AtomicUsize,
    pub(crate) calls: AtomicUsize,
    /// The call that fails, counted from 1, and whether it has its effect all the same.
    pub(crate) fail_at: Mutex<Option<(usize, bool)>>,
    down: Mutex<bool>,
    /// What loads show in the place of what is there.
    shown: Mutex<Option<Vec<u8>>>,
    hook: Mutex<Option<Hook>>,
    load_hook: Mutex<Option<Hook>>,
}

struct Hook(Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hook")
    }
}

impl States {
    pub(crate) fn bytes(&self, scene: &Scene) -> Vec<u8> {
        let Ok(Loaded::Found { bytes, .. }) = self.memory.load(key(scene.id), None) else {
            panic!("is there")
        };
        bytes
    }

    pub(crate) fn show(&self, bytes: impl Into<Option<Vec<u8>>>) {
        *self.shown.lock().unwrap() = bytes.into();
    }

    pub(crate) fn down(&self, down: bool) {
        *self.down.lock().unwrap() = down;
    }

    /// Between the next load's reading and its answer.
    pub(crate) fn during_load(&self, hook: impl FnOnce() + Send + 'static) {
        *self.load_hook.lock().unwrap() = Some(Hook(Box::new(hook)));
    }

    /// Before the next swap.
    pub(crate) fn before_swap(&self, hook: impl FnOnce() + Send + 'static) {
        *self.hook.lock().unwrap() = Some(Hook(Box::new(hook)));
    }

    fn call<T>(
        &self,
        id: AccountId,
        effect: impl FnOnce() -> std::result::Result<T, Error>,
    ) -> std::result::Result<T, Error> {
        let nth = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let fails = self.fail_at.lock().unwrap().filter(|(at, _)| *at == nth);
        let planted = || Error::record_store(id, std::io::Error::other("planted"));
        if *self.down.lock().unwrap() {
            return Err(planted());
        }
        match fails {
            Some((_, true)) => effect().and_then(|_| Err(planted())),
            Some((_, false)) => Err(planted()),
            None => effect(),
        }
    }
}

impl RecordStore for States {
    fn load(&self, id: AccountId, known: Option<&RecordTag>) -> std::result::Result<Loaded, Error> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let hook = self.load_hook.lock().unwrap().take();
        let loaded = self.load_now(id, known);
        if let Some(Hook(hook)) = hook {
            hook();
        }
        loaded
    }

    fn compare_and_swap(
        &self,
        id: AccountId,
        expected: Option<&RecordTag>,
        bytes: &[u8],
    ) -> std::result::Result<RecordTag, Error> {
        let hook = self.hook.lock().unwrap().take();
        if let Some(Hook(hook)) = hook {
            hook();
        }
        self.call(id, || self.memory.compare_and_swap(id, expected, bytes))
    }
}

impl States {
    fn load_now(&self, id: AccountId, known: Option<&RecordTag>) -> std::result::Result<Loaded, Error> {
        self.call(id, || match self.shown.lock().unwrap().clone() {
            Some(bytes) if bytes.is_empty() => Ok(Loaded::Absent),
            Some(bytes) => Ok(Loaded::Found { tag: RecordTag::sha256_of(&bytes), bytes }),
            None => self.memory.load(id, known),
        })
    }
}

pub(crate) fn key(id: ScopeId) -> AccountId {
    AccountId::from_bytes(*id.as_bytes())
}
