//! Providers whose client is asynchronous (contract B1, feature `tokio`): no thread waits for them, in a program
//! with a runtime of either flavour and in one without. And two of them asked at the same time (A7).
#![expect(clippy::unwrap_used, reason = "a test that fails is told by its panic")]
#![expect(clippy::disallowed_methods, reason = "the ban is for the library; these tests measure")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use strongroom::provider::{
    AsyncKeyProvider, Authority, ErrorClass, Kek, KekInfo, KeyProvider, OnTokio, ProviderError, Verdict,
    WrapContext, WrapInput, Wrapped, preflight,
};
use strongroom::testing::conformance::{self, Subject};
use strongroom::testing::{Answer, Call, ScriptedProvider};
use strongroom::{
    Aad, Account, AccountId, AccountRecord, AccountSpec, AekCache, BlockId, ErrorKind, Expect,
    MemoryRecordStore, ObjectId, Refusal, Retire, RotateTo, Status, UnavailableCause,
};
use tokio::runtime::{Builder, Handle, Runtime};

const KEK: &str = ScriptedProvider::KEK;
const CALL_DEADLINE: Duration = Duration::from_secs(1);

/// A KMS client that takes its time without holding a thread.
#[derive(Debug, Clone)]
struct Slow {
    kms: Arc<ScriptedProvider>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// How long each call takes, in microseconds; the maximum stands for ever.
    micros: AtomicU64,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    dropped: AtomicUsize,
}

/// A call under way. One that is dropped before its end was given up.
struct UnderWay<'a> {
    shared: &'a Shared,
    ended: bool,
}

impl Slow {
    fn new(authority: &str) -> Self {
        let authority = Authority::new("scripted", authority);
        Self { kms: Arc::new(ScriptedProvider::new().with_authority(authority)), shared: Arc::default() }
    }

    fn takes(&self, latency: Duration) {
        self.shared.micros.store(u64::try_from(latency.as_micros()).unwrap(), Ordering::SeqCst);
    }

    fn hangs(&self) {
        self.shared.micros.store(u64::MAX, Ordering::SeqCst);
    }

    fn dropped(&self) -> usize {
        self.shared.dropped.load(Ordering::SeqCst)
    }

    async fn answer<T>(&self, call: impl FnOnce(&ScriptedProvider) -> T) -> T {
        let shared = &self.shared;
        let now = shared.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most_in_flight.fetch_max(now, Ordering::SeqCst);
        let mut under_way = UnderWay { shared, ended: false };
        match shared.micros.load(Ordering::SeqCst) {
            u64::MAX => std::future::pending().await,
            0 => {}
            micros => tokio::time::sleep(Duration::from_micros(micros)).await,
        }
        under_way.ended = true;
        call(&self.kms)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.shared.in_flight.fetch_sub(1, Ordering::SeqCst);
        if !self.ended {
            self.shared.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl AsyncKeyProvider for Slow {
    async fn wrap(
        &self,
        kek: &Kek,
        context: &WrapContext,
        secret: &WrapInput,
    ) -> Result<Wrapped, ProviderError> {
        self.answer(|kms| kms.wrap(kek, context, secret)).await
    }

    async fn unwrap(&self, wrapped: &Wrapped, context: &WrapContext) -> Result<WrapInput, ProviderError> {
        self.answer(|kms| kms.unwrap(wrapped, context)).await
    }

    async fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError> {
        self.answer(|kms| kms.describe(kek)).await
    }

    fn authority(&self) -> Authority {
        self.kms.authority()
    }
}

fn cache(threads: usize) -> AekCache {
    AekCache::builder().call_deadline(CALL_DEADLINE).kms_threads(threads).build().unwrap()
}

fn spec(kms: &Arc<dyn KeyProvider>) -> AccountSpec {
    AccountSpec::new(AccountId::random(), Arc::clone(kms), Kek::latest(KEK))
}

/// Runtimes of both flavours.
fn runtimes() -> [Runtime; 2] {
    [
        Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
        Builder::new_current_thread().enable_all().build().unwrap(),
    ]
}

fn seals_and_opens(account: &Account) {
    let id = BlockId::new(ObjectId::random(), 0);
    let sealed = account.seal(id, Aad::EMPTY, b"a block").unwrap();
    assert_eq!(account.open(id, Aad::EMPTY, &sealed).unwrap(), b"a block");
}

/// Threads of this process whose name begins like that.
fn threads_named(start: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|name| name.starts_with(start))
        .count()
}

/// Attaches `count` new accounts in a new cache, and returns once each is ready.
async fn attach_many(
    kms: &Arc<dyn KeyProvider>,
    cache: &AekCache,
    records: Vec<AccountRecord>,
) -> Vec<Account> {
    let attach = |record: AccountRecord| {
        let expect = Expect::account(record.account()).kek(Arc::clone(kms), KEK);
        cache.attach(record, expect).unwrap()
    };
    let accounts: Vec<Account> = records.into_iter().map(attach).collect();
    for account in &accounts {
        account.ready().await.unwrap();
    }
    accounts
}

async fn records(kms: &Arc<dyn KeyProvider>, count: usize) -> Vec<AccountRecord> {
    let cache = cache(4);
    let created: Vec<_> = (0..count).map(|_| cache.begin_create(spec(kms))).collect();
    let mut records = Vec::new();
    for account in created {
        records.push(account.await.unwrap().record());
    }
    records
}

#[test]
fn b1_a_thousand_slow_calls_hold_no_thread() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let slow = Slow::new("thousand");
        let kms: Arc<dyn KeyProvider> = Arc::new(OnTokio::new(slow.clone(), Handle::current()));
        let records = records(&kms, 1000).await;
        slow.takes(Duration::from_millis(400));
        let patient = AekCache::builder().call_deadline(Duration::from_secs(5));
        let cache = patient.kms_threads(4).build().unwrap();
        let begun = Instant::now();
        let attached = tokio::spawn({
            let (kms, cache) = (Arc::clone(&kms), cache.clone());
            async move { attach_many(&kms, &cache, records).await }
        });
        let mut threads = 0;
        while !attached.is_finished() {
            threads = threads.max(threads_named("strongroom-kms"));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let took = begun.elapsed();
        let accounts = attached.await.unwrap();
        let together = slow.shared.most_in_flight.load(Ordering::SeqCst);
        println!("1000 calls of 400 ms: {took:?}, {together} together, {threads} worker threads");
        assert!(together > 900, "only {together} calls were under way together");
        // Other tests of this process have pools too, of as many threads at most.
        assert!(threads <= 4 * 12, "{threads} threads");
        // Four threads that waited would have taken 100 s.
        assert!(took < Duration::from_secs(10), "{took:?}");
        accounts.iter().for_each(seals_and_opens);
    });
}

#[test]
fn b1_with_two_workers_and_a_5_ms_provider_on_them_nothing_waits_longer_than_the_provider_takes() {
    const ACCOUNTS: usize = 400;
    let latency = Duration::from_millis(5);
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let slow = Slow::new("two-workers");
        let kms: Arc<dyn KeyProvider> = Arc::new(OnTokio::new(slow.clone(), Handle::current()));
        let records = records(&kms, ACCOUNTS).await;
        slow.takes(latency);
        let cache = cache(4);
        // What else the service does: its tasks must not feel that KMS calls are under way.
        let heart = tokio::spawn(async {
            let mut longest = Duration::ZERO;
            for _ in 0..200 {
                let begun = Instant::now();
                tokio::time::sleep(Duration::from_millis(1)).await;
                longest = longest.max(begun.elapsed());
            }
            longest
        });
        let begun = Instant::now();
        let accounts = attach_many(&kms, &cache, records).await;
        let all_ready = begun.elapsed();
        // A valid lease: nothing to wait for, whatever the provider does.
        slow.hangs();
        let begun = Instant::now();
        for account in &accounts {
            account.ready().await.unwrap();
            seals_and_opens(account);
        }
        let used = begun.elapsed();
        let longest = heart.await.unwrap();
        println!("{ACCOUNTS} accounts ready after {all_ready:?}, used in {used:?}, longest pause of a task {longest:?}");
        // Held by the two workers, the calls would have taken 1 s; one after the other 2 s.
        assert!(all_ready < Duration::from_millis(500), "{all_ready:?}");
        assert!(longest < Duration::from_millis(250), "{longest:?}");
    });
}

#[test]
fn b1_the_whole_life_of_an_account_in_either_flavour_of_runtime() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let slow = Slow::new("life");
            slow.takes(Duration::from_millis(2));
            let kms: Arc<dyn KeyProvider> = Arc::new(OnTokio::new(slow.clone(), Handle::current()));
            let cache = cache(2);
            let report = cache.begin_preflight(Arc::clone(&kms), Kek::latest(KEK)).await.unwrap();
            assert_eq!(report.verdict(), Verdict::Ready, "{report}");
            let store = Arc::new(MemoryRecordStore::new());
            let account = cache.begin_create(spec(&kms).store(store)).await.unwrap();
            account.ready().await.unwrap();
            seals_and_opens(&account);
            slow.kms.add_version(KEK);
            let done = account.begin_rotate_kek(RotateTo::Latest).await.unwrap();
            assert!(matches!(done, Retire::SafeAfter(_)), "{done:?}");
            assert_eq!(account.record().kek_version().as_str(), "2");
            account.lock();
            account.begin_unlock().await.unwrap();
            seals_and_opens(&account);
            // Dropped within the runtime, the provider's last handle among them.
        });
    }
}

#[test]
fn b1_a_runtime_of_its_own_serves_programs_without_one_and_blocking_calls_within_any() {
    let whole = || {
        let kms: Arc<dyn KeyProvider> = Arc::new(OnTokio::with_own_runtime(Slow::new("own")).unwrap());
        assert_eq!(preflight(kms.as_ref(), &Kek::latest(KEK)).verdict(), Verdict::Ready);
        let cache = cache(2);
        let account = cache.create(spec(&kms)).unwrap();
        account.wait_ready(Duration::from_secs(10)).unwrap();
        seals_and_opens(&account);
        assert!(cache.shutdown(Duration::from_secs(10)));
    };
    whole();
    for runtime in runtimes() {
        runtime.block_on(async { whole() });
    }
}

#[test]
fn b1_a_blocking_call_that_would_wait_for_itself_is_an_error() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let slow = Slow::new("itself");
    let kms = Arc::new(OnTokio::new(slow, runtime.handle().clone()));
    runtime.block_on(async {
        let error = kms.describe(&Kek::latest(KEK)).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Misconfigured);
        assert!(error.message().contains("runtime of its own"), "{error}");
        // The cache calls from elsewhere, but its caller holds the only thread: silence, within bounds.
        let cache = cache(2);
        let kms: Arc<dyn KeyProvider> = Arc::clone(&kms) as _;
        let error = cache.create(spec(&kms)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    });
    // From another thread nothing is in the way, while somebody drives the runtime.
    let described = std::thread::scope(|scope| {
        let called = scope.spawn(|| kms.describe(&Kek::latest(KEK)));
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(200)).await });
        called.join().unwrap()
    });
    assert!(described.unwrap().enabled);
}

#[test]
fn b11_a_call_that_hangs_is_dropped_at_its_deadline_and_costs_nothing() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let slow = Slow::new("hangs");
        let kms: Arc<dyn KeyProvider> = Arc::new(OnTokio::new(slow.clone(), Handle::current()));
        let records = records(&kms, 1).await;
        slow.hangs();
        let cache = cache(2);
        let record = records[0].clone();
        let expect = Expect::account(record.account()).kek(Arc::clone(&kms), KEK);
        let account = cache.attach(record, expect).unwrap();
        let patience = Instant::now() + Duration::from_secs(10);
        while slow.dropped() == 0 || cache.stats().hanging_workers > 0 {
            assert!(Instant::now() < patience, "the call goes on: {:?}", cache.stats());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(slow.shared.in_flight.load(Ordering::SeqCst), 0);
        assert_eq!(cache.stats().late, 1);
        assert!(!matches!(account.status(), Status::Revoked(_)), "silence is no refusal");
        slow.takes(Duration::ZERO);
        account.ready().await.unwrap();
        seals_and_opens(&account);
        assert!(cache.shutdown(Duration::from_secs(10)), "no worker is left behind");
    });
}

#[test]
fn a7_d3_of_two_kms_asked_at_the_same_time_one_refusal_revokes_whatever_the_other_does_and_when() {
    #[derive(Clone, Copy, Debug)]
    enum Beside {
        Silence,
        SilenceLater,
        Hangs,
    }
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let soon = Duration::from_millis(200);
    for beside in [Beside::Silence, Beside::SilenceLater, Beside::Hangs] {
        for refusing in 0..2 {
            let both = ["first", "second"].map(Slow::new);
            let [first, second] = both.clone().map(|slow| -> Arc<dyn KeyProvider> {
                Arc::new(OnTokio::new(slow, runtime.handle().clone()))
            });
            let spec = spec(&first).joint_with(Arc::clone(&second), Kek::latest(KEK));
            let record = cache(2).create(spec).unwrap().record();
            let (refuses, other) = (&both[refusing], &both[1 - refusing]);
            refuses.kms.clear_log();
            refuses.kms.set_enabled(KEK, false);
            other.kms.every_call(&Answer::Transient);
            match beside {
                Beside::Silence => refuses.takes(soon),
                Beside::SilenceLater => other.takes(soon),
                Beside::Hangs => other.hangs(),
            }
            let cache = cache(2);
            let expect = Expect::account(record.account()).kek(first, KEK).joint_kek(second, KEK);
            let account = cache.attach(record, expect).unwrap();
            let told = account.wait_ready(Duration::from_secs(10)).unwrap_err();
            assert_eq!(told.kind(), ErrorKind::Revoked, "{beside:?} {refusing}");
            assert_eq!(account.status(), Status::Revoked(Refusal::KeyDisabled));
            assert_eq!(refuses.kms.calls(Call::Unwrap), 1, "with the first attempt: {beside:?} {refusing}");
        }
    }
}

#[test]
fn b12_dark_asynchronous_authorities_take_no_worker_from_others() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let cache = cache(4);
    let mut waits = Vec::new();
    for number in 0..100 {
        let slow = Slow::new(&format!("dark-{number}"));
        slow.hangs();
        let kms: Arc<dyn KeyProvider> = Arc::new(OnTokio::new(slow, runtime.handle().clone()));
        waits.push(cache.begin_create(spec(&kms)));
    }
    let healthy: Arc<dyn KeyProvider> = Arc::new(ScriptedProvider::new());
    let begun = Instant::now();
    let account = cache.create(spec(&healthy)).unwrap();
    seals_and_opens(&account);
    assert!(begun.elapsed() < CALL_DEADLINE, "{:?}: it waited for those that hang", begun.elapsed());
    drop(cache);
    for wait in waits {
        assert_eq!(wait.wait().unwrap_err().kind(), ErrorKind::Unavailable);
    }
}

#[test]
fn a_client_that_panics_and_a_runtime_that_is_gone_are_silence() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let slow = Slow::new("gone");
    let kms: Arc<dyn KeyProvider> = Arc::new(OnTokio::new(slow.clone(), runtime.handle().clone()));
    slow.kms.next(Call::Describe, [Answer::Panic]);
    let class = |kms: &Arc<dyn KeyProvider>| kms.describe(&Kek::latest(KEK)).map_err(|error| error.class());
    assert_eq!(class(&kms), Err(ErrorClass::Transient));
    class(&kms).unwrap();
    let cache = cache(2);
    let account = cache.create(spec(&kms)).unwrap();
    runtime.shutdown_background();
    assert_eq!(class(&kms), Err(ErrorClass::Transient));
    seals_and_opens(&account);
    account.lock();
    assert_eq!(account.unlock().unwrap_err().kind(), ErrorKind::Unavailable);
    assert_ne!(account.status(), Status::Unavailable(UnavailableCause::Integrity));
}

#[test]
fn b10_an_asynchronous_provider_passes_the_suite() {
    let slow = Slow::new("suite");
    let scripted = Arc::clone(&slow.kms);
    let kms = OnTokio::with_own_runtime(slow).unwrap();
    let subject = Subject::new(&kms, KEK)
        .on_rotate(|| {
            scripted.add_version(KEK);
            Ok::<_, String>(())
        })
        .on_disable(|| {
            scripted.set_enabled(KEK, false);
            Ok::<_, String>(())
        })
        .on_enable(|| {
            scripted.set_enabled(KEK, true);
            Ok::<_, String>(())
        })
        .on_delete(|| {
            scripted.set_deleted(KEK, true);
            Ok::<_, String>(())
        })
        .on_recover(|| {
            scripted.set_deleted(KEK, false);
            Ok::<_, String>(())
        });
    let report = conformance::run(&subject);
    assert!(report.is_complete(), "{report}");
}
