//! A provider in every kind of program: without a runtime, and within each flavour of tokio's.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use strongroom::provider::{ErrorClass, Kek, KeyProvider, Verdict, preflight};
use strongroom::{Aad, Account, AccountId, AccountSpec, AekCache, BlockId, ObjectId};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

/// Runs a provider in a synchronous program and in runtimes of both flavours.
///
/// `make` connects. It is called within each of the runtimes too, where it uses whatever runtime is there, as a service would:
/// an asynchronous provider is checked twice, on the runtime of the program and on one of its own.
///
/// # Panics
/// When a call fails, or does not end, or blocks the threads of a runtime, or anything panics when it is dropped there.
pub fn check(make: impl Fn() -> Arc<dyn KeyProvider> + Clone + Send + 'static, kek: &Kek) {
    let plain = ends("a synchronous program", {
        let (make, kek) = (make.clone(), kek.clone());
        move || synchronously(&make(), &kek)
    });
    for (name, workers) in [("two workers", Some(2)), ("one worker", Some(1)), ("current_thread", None)] {
        let (make, kek) = (make.clone(), kek.clone());
        let verdict = ends(name, move || {
            let runtime = runtime(workers);
            let verdict = within(&runtime, make.clone(), &kek);
            // A call by hand from the only thread of the very runtime that it runs on would wait for itself: an error.
            by_hand(&runtime, make, kek, workers.is_none());
            verdict
        });
        assert_eq!(verdict, plain, "{name}");
    }
}

fn synchronously(provider: &Arc<dyn KeyProvider>, kek: &Kek) -> Verdict {
    let verdict = preflight(provider.as_ref(), kek).verdict();
    let cache = AekCache::builder().build().expect("the settings are in range");
    let account = cache.create(spec(provider, kek)).expect("the KEK is fit");
    account.wait_ready(PATIENCE).expect("becomes ready");
    use_account(&account);
    account.lock();
    account.unlock().expect("unlocks");
    use_account(&account);
    verdict
}

/// Everything that waits is awaited, beside a heart that beats each millisecond.
fn within(
    runtime: &Runtime,
    make: impl FnOnce() -> Arc<dyn KeyProvider> + Send + 'static,
    kek: &Kek,
) -> Verdict {
    let kek = kek.clone();
    let machine = Watch::of_the_machine();
    let task = async move {
        let stop = Arc::new(AtomicBool::new(false));
        let heart = tokio::spawn(beat(Arc::clone(&stop)));
        let provider = make();
        let verdict = {
            let cache = AekCache::builder().build().expect("the settings are in range");
            let account = cache.begin_create(spec(&provider, &kek)).await.expect("the KEK is fit");
            account.ready().await.expect("becomes ready");
            use_account(&account);
            account.lock();
            account.begin_unlock().await.expect("unlocks");
            use_account(&account);
            let provider = Arc::clone(&provider);
            // It blocks: on a thread of its own.
            let (sender, verdict) = oneshot::channel();
            thread::spawn(move || sender.send(preflight(provider.as_ref(), &kek).verdict()));
            verdict.await.expect("no panic")
            // The cache and the account are dropped here, within the runtime.
        };
        drop(provider);
        stop.store(true, Ordering::SeqCst);
        (verdict, heart.await.expect("the heart beats"))
    };
    // A task of the runtime's own threads, where it has any.
    let (verdict, longest) = runtime
        .block_on(runtime.spawn(async { tokio::time::timeout(PATIENCE, task).await.expect("ends") }))
        .unwrap_or_else(|error| {
            resume_unwind(error.try_into_panic().unwrap_or_else(|error| Box::new(error)))
        });
    let allowed = UNNOTICED + machine.longest();
    assert!(longest <= allowed, "a worker was blocked for {longest:?}, allowed are {allowed:?}");
    verdict
}

/// The blocking calls from within a task: unwise, and yet no panic and no deadlock.
fn by_hand(
    runtime: &Runtime,
    make: impl FnOnce() -> Arc<dyn KeyProvider> + Send + 'static,
    kek: Kek,
    error_allowed: bool,
) {
    let described = runtime.spawn(async move { make().describe(&kek).map(|_| ()) });
    match runtime.block_on(described).expect("no panic") {
        Err(error) if error_allowed => assert_eq!(error.class(), ErrorClass::Misconfigured, "{error}"),
        described => described.expect("describes"),
    }
}

fn spec(provider: &Arc<dyn KeyProvider>, kek: &Kek) -> AccountSpec {
    AccountSpec::new(AccountId::random(), Arc::clone(provider), kek.clone())
}

fn use_account(account: &Account) {
    let id = BlockId::new(ObjectId::random(), 0);
    let sealed = account.seal(id, Aad::EMPTY, b"a block").expect("a lease");
    assert_eq!(account.open(id, Aad::EMPTY, &sealed).expect("a lease"), b"a block");
}

fn runtime(workers: Option<usize>) -> Runtime {
    let mut builder = match workers {
        Some(workers) => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(workers);
            builder
        }
        None => Builder::new_current_thread(),
    };
    builder.enable_all().build().expect("a runtime")
}

/// The longest time between two beats that are to be a millisecond apart.
async fn beat(stop: Arc<AtomicBool>) -> Duration {
    let mut longest = Duration::ZERO;
    let mut last = Instant::now();
    while !stop.load(Ordering::SeqCst) {
        tokio::time::sleep(TICK).await;
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    longest
}

/// The same for a thread without a runtime: what the machine itself takes away while it is busy.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Duration>,
}

impl Watch {
    fn of_the_machine() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !stopped.load(Ordering::SeqCst) {
                let before = Instant::now();
                thread::sleep(TICK);
                longest = longest.max(before.elapsed());
            }
            longest
        });
        Self { stop, thread }
    }

    fn longest(self) -> Duration {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("only sleeps")
    }
}

/// In a thread of its own, so that a deadlock is a failure.
fn ends<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
    assert!(Handle::try_current().is_err(), "not from within a runtime");
    let (sender, receiver) = mpsc::channel::<Result<T, Box<dyn Any + Send>>>();
    thread::spawn(move || drop(sender.send(catch_unwind(AssertUnwindSafe(run)))));
    match receiver.recv_timeout(PATIENCE * 2) {
        Ok(Ok(value)) => value,
        Ok(Err(panic)) => {
            eprintln!("in {name}:");
            resume_unwind(panic)
        }
        Err(_) => panic!("{name}: did not end"),
    }
}

const TICK: Duration = Duration::from_millis(1);
/// Nothing on a worker takes so long, beside what the machine takes: a handshake of TLS in a debug build.
const UNNOTICED: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use strongroom::provider::{
        AsyncKeyProvider, Authority, KekInfo, KeyOptions, LocalKms, OnTokio, ProviderError, WrapContext,
        WrapInput, Wrapped,
    };

    use super::*;

    struct World {
        folder: tempfile::TempDir,
        kek: Kek,
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let kms = LocalKms::create(folder.path().join("kms.json")).unwrap();
            kms.create_key("orders", KeyOptions::default()).unwrap();
            Self { folder, kek: Kek::latest("orders") }
        }

        fn kms(&self) -> impl Fn() -> LocalKms + Clone + Send + 'static {
            let file = self.folder.path().join("kms.json");
            move || LocalKms::open(&file).unwrap()
        }
    }

    /// A LocalKms that takes its time, on a runtime.
    #[derive(Debug)]
    struct Slow {
        kms: LocalKms,
        blocks: bool,
    }

    impl Slow {
        async fn wait(&self) {
            if self.blocks {
                thread::sleep(Duration::from_millis(400));
            } else {
                tokio::time::sleep(Duration::from_millis(5)).await;
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
            self.wait().await;
            self.kms.wrap(kek, context, secret)
        }

        async fn unwrap(&self, wrapped: &Wrapped, context: &WrapContext) -> Result<WrapInput, ProviderError> {
            self.wait().await;
            self.kms.unwrap(wrapped, context)
        }

        async fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError> {
            self.wait().await;
            self.kms.describe(kek)
        }

        fn authority(&self) -> Authority {
            self.kms.authority()
        }
    }

    #[test]
    fn a_synchronous_provider_works_everywhere() {
        let world = World::new();
        let kms = world.kms();
        check(move || Arc::new(kms()), &world.kek);
    }

    #[test]
    fn an_asynchronous_provider_works_everywhere_on_the_programs_runtime_and_on_its_own() {
        let world = World::new();
        let kms = world.kms();
        let own = move || OnTokio::with_own_runtime(Slow { kms: kms(), blocks: false }).unwrap();
        check(
            {
                let own = own.clone();
                move || Arc::new(own())
            },
            &world.kek,
        );
        let kms = world.kms();
        let the_programs = move || match Handle::try_current() {
            Ok(handle) => OnTokio::new(Slow { kms: kms(), blocks: false }, handle),
            Err(_) => own(),
        };
        check(move || Arc::new(the_programs()), &world.kek);
    }

    #[test]
    fn a_provider_on_a_runtime_of_its_own_can_be_called_by_hand_in_any_other() {
        let world = World::new();
        for workers in [Some(2), Some(1), None] {
            let kms = world.kms();
            let own = move || OnTokio::with_own_runtime(Slow { kms: kms(), blocks: false }).unwrap();
            by_hand(&runtime(workers), move || Arc::new(own()), world.kek.clone(), false);
        }
    }

    #[test]
    #[should_panic(expected = "a worker was blocked for")]
    fn a_provider_that_blocks_its_runtime_is_found() {
        let world = World::new();
        let kms = world.kms();
        let blocking = move || match Handle::try_current() {
            Ok(handle) => OnTokio::new(Slow { kms: kms(), blocks: true }, handle),
            Err(_) => OnTokio::with_own_runtime(Slow { kms: kms(), blocks: true }).unwrap(),
        };
        check(move || Arc::new(blocking()), &world.kek);
    }

    #[test]
    #[should_panic(expected = "no panic")]
    fn a_provider_that_panics_within_a_runtime_is_found() {
        let world = World::new();
        let kms = world.kms();
        let panics = move || {
            let by_hand = Handle::try_current().is_ok();
            let inner = tokio::runtime::Builder::new_current_thread().build().unwrap();
            // What clients with a runtime inside of them do when called or dropped in another.
            if by_hand {
                inner.block_on(async {});
            }
            kms()
        };
        by_hand(&runtime(Some(1)), move || Arc::new(panics()), world.kek.clone(), false);
    }
}
