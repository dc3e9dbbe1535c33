//! Worlds to test in: a virtual clock, a scripted KMS, a cache; stores and providers that fail on demand.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use strongroom::provider::{
    Authority, Kek, KekInfo, KeyProvider, ProviderError, WrapContext, WrapInput, Wrapped,
};
use strongroom::testing::{Call, FaultyRecordStore, ManualClock, ScriptedProvider, StoreFault};
use strongroom::{
    Aad, Account, AccountId, AccountSpec, AekCache, BlockId, Error, ErrorKind, Expect, Loaded,
    MemoryRecordStore, ObjectId, OutageGrace, RecordArchive, RecordStore, RecordTag, Sequence,
};

pub(crate) const KEK: &str = ScriptedProvider::KEK;
pub(crate) const NANO: Duration = Duration::from_nanos(1);
/// c, as caches have it by default.
pub(crate) const C: Duration = secs(2);

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// J: the longest distance of two refreshes.
pub(crate) fn longest_interval(refresh: Duration) -> Duration {
    (refresh + refresh / 10).min(secs(60))
}

/// A cache on virtual time, and a KMS that answers as scripted.
pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) kms: ScriptedProvider,
    pub(crate) cache: AekCache,
    elapsed: Cell<Duration>,
}

impl World {
    pub(crate) fn new(refresh: u64, grace: OutageGrace) -> Self {
        let clock = ManualClock::new();
        Self::beside(&clock, ScriptedProvider::on_virtual_time().with_clock(&clock), secs(refresh), grace)
    }

    /// Another cache, as on another machine, with the same clock.
    pub(crate) fn beside(
        clock: &ManualClock,
        kms: ScriptedProvider,
        refresh: Duration,
        grace: OutageGrace,
    ) -> Self {
        let cache =
            AekCache::builder().refresh_every(refresh).outage_grace(grace).manual(clock).build().unwrap();
        Self { clock: clock.clone(), kms, cache, elapsed: Cell::default() }
    }

    pub(crate) fn provider(&self) -> Arc<dyn KeyProvider> {
        Arc::new(self.kms.clone())
    }

    pub(crate) fn spec(&self) -> AccountSpec {
        AccountSpec::new(AccountId::random(), self.provider(), Kek::latest(KEK))
    }

    pub(crate) fn expect(&self, account: AccountId) -> Expect {
        Expect::account(account).kek(self.provider(), KEK)
    }

    pub(crate) fn create(&self) -> Account {
        self.cache.create(self.spec()).unwrap()
    }

    /// An account that is attached and has made no call yet, and a block that was sealed under it.
    pub(crate) fn attached(&self) -> (Account, Block) {
        let account = self.create();
        let block = Block::sealed_by(&account);
        let (record, id) = (account.record(), account.id());
        drop(account);
        self.cache.drive();
        self.kms.clear_log();
        (self.cache.attach(record, self.expect(id)).unwrap(), block)
    }

    pub(crate) fn run(&self, duration: Duration) {
        self.cache.run_for(duration);
        self.elapsed.set(self.elapsed.get() + duration);
    }

    /// How long `run` has run for in all.
    pub(crate) fn elapsed(&self) -> Duration {
        self.elapsed.get()
    }

    /// Runs in steps until `done`, at most `most`. Returns how long it took.
    pub(crate) fn run_until(&self, step: Duration, most: Duration, done: impl Fn() -> bool) -> Duration {
        let begun = self.elapsed();
        while !done() {
            assert!(self.elapsed() - begun <= most, "not within {most:?}");
            self.run(step);
        }
        self.elapsed() - begun
    }

    /// When unwraps began, counted from when the world did.
    pub(crate) fn unwraps(&self) -> Vec<Duration> {
        let unwraps = self.kms.log().into_iter().filter(|call| call.call == Call::Unwrap);
        unwraps.map(|call| call.started - secs(3600)).collect()
    }
}

/// A block that an account sealed, to open again.
pub(crate) struct Block {
    id: BlockId,
    pub(crate) frame: Vec<u8>,
}

impl Block {
    pub(crate) const PLAIN: &'static [u8] = b"what the customer wrote";

    pub(crate) fn sealed_by(account: &Account) -> Self {
        let id = BlockId::new(ObjectId::random(), 7);
        Self { id, frame: account.seal(id, Aad::new(b"tenant-42"), Self::PLAIN).unwrap() }
    }

    /// The kind of the error, if it does not open to what was sealed.
    pub(crate) fn open(&self, account: &Account) -> Result<(), ErrorKind> {
        let plain = account.open(self.id, Aad::new(b"tenant-42"), &self.frame).map_err(|e| e.kind())?;
        assert_eq!(plain, Self::PLAIN);
        Ok(())
    }
}

pub(crate) fn usable(account: &Account) -> bool {
    account.permit().is_ok()
}

pub(crate) fn kind<T>(result: Result<T, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// A thing to do once, in the middle of a call.
type Hook = Box<dyn FnOnce() + Send>;

/// Passes calls on to a scripted KMS; fails the one that it is told to, and can do something first, or when it is dropped.
pub(crate) struct Meddler {
    inner: ScriptedProvider,
    fail: FailNth,
    hook: Mutex<Option<(Call, Hook)>>,
    at_drop: Mutex<Option<Hook>>,
}

impl Meddler {
    pub(crate) fn new(inner: ScriptedProvider) -> Arc<Self> {
        Arc::new(Self { inner, fail: FailNth::default(), hook: Mutex::default(), at_drop: Mutex::default() })
    }

    /// Fails the `n`th call from now, counted from zero: before it has an effect, or after.
    pub(crate) fn fail_nth(&self, n: usize, after: bool) {
        self.fail.set(n, after);
    }

    /// Whether that call has not come yet. Answers truthfully from now on.
    pub(crate) fn calm(&self) -> bool {
        self.fail.calm()
    }

    /// Does `hook` at the beginning of the next call of this kind.
    pub(crate) fn at_next(&self, call: Call, hook: impl FnOnce() + Send + 'static) {
        *self.hook.lock().unwrap() = Some((call, Box::new(hook)));
    }

    pub(crate) fn at_drop(&self, hook: impl FnOnce() + Send + 'static) {
        *self.at_drop.lock().unwrap() = Some(Box::new(hook));
    }

    fn call<T>(
        &self,
        call: Call,
        run: impl FnOnce() -> Result<T, ProviderError>,
    ) -> Result<T, ProviderError> {
        let hook = self.hook.lock().unwrap().take_if(|(at, _)| *at == call);
        if let Some((_, hook)) = hook {
            hook();
        }
        self.fail.wrap(run, || ProviderError::transient("the test fails this call"))
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        if let Some(hook) = self.at_drop.lock().unwrap().take() {
            hook();
        }
    }
}

impl std::fmt::Debug for Meddler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meddler")
    }
}

impl KeyProvider for Meddler {
    fn wrap(&self, kek: &Kek, context: &WrapContext, secret: &WrapInput) -> Result<Wrapped, ProviderError> {
        self.call(Call::Wrap, || self.inner.wrap(kek, context, secret))
    }

    fn unwrap(&self, wrapped: &Wrapped, context: &WrapContext) -> Result<WrapInput, ProviderError> {
        self.call(Call::Unwrap, || self.inner.unwrap(wrapped, context))
    }

    fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError> {
        self.call(Call::Describe, || self.inner.describe(kek))
    }

    fn authority(&self) -> Authority {
        self.inner.authority()
    }
}

/// A record store in memory that fails the operation that it is told to.
#[derive(Debug)]
pub(crate) struct Store {
    inner: Arc<MemoryRecordStore>,
    faulty: FaultyRecordStore,
    conflict: FailNth,
    panic_load: FailNth,
    panic_authenticated: FailNth,
}

impl Store {
    pub(crate) fn new() -> Arc<Self> {
        let inner = Arc::new(MemoryRecordStore::new());
        let faulty = FaultyRecordStore::on_virtual_time(inner.clone());
        Arc::new(Self {
            inner,
            faulty,
            conflict: FailNth::default(),
            panic_load: FailNth::default(),
            panic_authenticated: FailNth::default(),
        })
    }

    /// As [`Meddler::fail_nth`].
    pub(crate) fn fail_nth(&self, n: usize, after: bool) {
        let fault = if after { StoreFault::DoneAndFails } else { StoreFault::Fails };
        self.faulty.fail_nth(n as u64, fault);
    }

    /// The `n`th replacement from now is told that somebody else came first.
    pub(crate) fn conflict_nth(&self, n: usize) {
        self.conflict.set(n, false);
    }

    /// The `n`th load from now panics.
    pub(crate) fn panic_nth_load(&self, n: usize) {
        self.panic_load.set(n, false);
    }

    /// The `n`th operation from now is done this much later.
    pub(crate) fn delay_nth(&self, n: usize, by: Duration) {
        self.faulty.fail_nth(n as u64, StoreFault::Late(by));
    }

    /// The store panics the `n`th time from now that it is told of a record that was proven.
    pub(crate) fn panic_nth_authenticated(&self, n: usize) {
        self.panic_authenticated.set(n, false);
    }

    /// Whether that has happened.
    pub(crate) fn has_panicked_at_authenticated(&self) -> bool {
        !self.panic_authenticated.calm()
    }

    pub(crate) fn calm(&self) -> bool {
        let (struck, conflicting) = (self.faulty.calm(), self.conflict.calm());
        !struck || conflicting
    }

    /// Fails every operation until [`Self::calm`].
    pub(crate) fn fail_all(&self) {
        self.faulty.fail_every(StoreFault::Fails);
    }

    /// The record's bytes, whatever is set to fail.
    pub(crate) fn bytes(&self, account: AccountId) -> Option<Vec<u8>> {
        match self.inner.load(account, None).unwrap() {
            Loaded::Found { bytes, .. } => Some(bytes),
            _ => None,
        }
    }

    /// The bytes of every record that is kept beside the newest one.
    pub(crate) fn kept(&self, account: AccountId) -> Vec<Vec<u8>> {
        let kept = self.inner.history(account).unwrap();
        kept.into_iter().map(|kept| self.inner.load_kept(account, kept).unwrap()).collect()
    }

    /// Replaces the record by any bytes, as an attacker would.
    pub(crate) fn plant(&self, account: AccountId, bytes: &[u8]) {
        let Loaded::Found { tag, .. } = self.inner.load(account, None).unwrap() else { panic!("no record") };
        self.inner.compare_and_swap(account, Some(&tag), bytes).unwrap();
    }
}

impl RecordStore for Store {
    fn load(&self, account: AccountId, known: Option<&RecordTag>) -> Result<Loaded, Error> {
        assert!(!self.panic_load.strikes(), "as the test has it");
        self.faulty.load(account, known)
    }

    fn compare_and_swap(
        &self,
        account: AccountId,
        expected: Option<&RecordTag>,
        bytes: &[u8],
    ) -> Result<RecordTag, Error> {
        let swap = || self.faulty.compare_and_swap(account, expected, bytes);
        self.conflict.wrap(swap, || Error::record_conflict(account))
    }

    fn authenticated(&self, account: AccountId, sequence: Sequence) -> Result<(), Error> {
        assert!(!self.panic_authenticated.strikes(), "as the test has it");
        self.faulty.authenticated(account, sequence)
    }

    fn destroy_kept(&self, account: AccountId) -> Result<(), Error> {
        self.faulty.destroy_kept(account)
    }
}

/// Counts down to a failure.
#[derive(Debug, Default)]
struct FailNth {
    /// One more than the number of operations that still succeed; zero for ever.
    left: AtomicUsize,
    after: AtomicUsize,
}

impl FailNth {
    fn set(&self, n: usize, after: bool) {
        self.after.store(usize::from(after), Ordering::SeqCst);
        self.left.store(n + 1, Ordering::SeqCst);
    }

    fn calm(&self) -> bool {
        self.left.swap(0, Ordering::SeqCst) != 0
    }

    /// Counts an operation. True for the one that is to fail.
    fn strikes(&self) -> bool {
        let left = self.left.load(Ordering::SeqCst);
        self.left.store(left.saturating_sub(1), Ordering::SeqCst);
        left == 1
    }

    fn wrap<T, E>(&self, run: impl FnOnce() -> Result<T, E>, failed: impl FnOnce() -> E) -> Result<T, E> {
        if !self.strikes() {
            return run();
        }
        if self.after.load(Ordering::SeqCst) == 1 {
            run()?;
        }
        Err(failed())
    }
}
