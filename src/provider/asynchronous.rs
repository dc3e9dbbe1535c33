//! Providers whose KMS client is asynchronous, on a tokio runtime (contract B1, feature `tokio`).
//!
//! ```text
//! keeper ── call ──► OnTokio ── spawn ──► a tokio runtime: the user's or one of its own ──► AsyncKeyProvider
//! ```
//! Nothing of the library waits on a thread meanwhile: a thousand slow calls hold none. Imports: `provider`, `secret`.

use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};
use tokio::task::{JoinHandle, block_in_place};

use super::call::{Answer, Asynchronous, Calls};
use crate::secret::wash_stack;

use super::{Authority, Kek, KekInfo, KeyProvider, ProviderError, WrapContext, WrapInput, Wrapped};

/// A connection to a KMS whose client is asynchronous: [`KeyProvider`]'s calls as futures.
///
/// Write each as an `async fn`. Hand the provider to [`OnTokio`], which is a [`KeyProvider`]. What is said there of
/// errors, exact versions and foreign URIs holds here as well. A call that is given up at its deadline is dropped, wherever
/// it waits.
///
/// ```
/// use std::sync::Arc;
/// use strongroom::provider::{
///     AsyncKeyProvider, Authority, Kek, KekInfo, KeyProvider, OnTokio, ProviderError, WrapContext, WrapInput, Wrapped,
/// };
///
/// /// Whatever your client is.
/// #[derive(Debug)]
/// struct Remote;
///
/// impl AsyncKeyProvider for Remote {
///     async fn wrap(&self, _: &Kek, _: &WrapContext, _: &WrapInput) -> Result<Wrapped, ProviderError> {
///         Err(ProviderError::transient("not there yet"))
///     }
///     async fn unwrap(&self, _: &Wrapped, _: &WrapContext) -> Result<WrapInput, ProviderError> {
///         Err(ProviderError::transient("not there yet"))
///     }
///     async fn describe(&self, _: &Kek) -> Result<KekInfo, ProviderError> {
///         Err(ProviderError::transient("not there yet"))
///     }
///     fn authority(&self) -> Authority {
///         Authority::new("example", "remote")
///     }
/// }
///
/// // In a program without a runtime; within one, `OnTokio::new(Remote, Handle::current())`.
/// let kms: Arc<dyn KeyProvider> = Arc::new(OnTokio::with_own_runtime(Remote)?);
/// assert!(kms.describe(&Kek::latest("orders")).is_err());
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait AsyncKeyProvider: fmt::Debug + Send + Sync + 'static {
    /// As [`KeyProvider::wrap`].
    fn wrap(
        &self,
        kek: &Kek,
        context: &WrapContext,
        secret: &WrapInput,
    ) -> impl Future<Output = Result<Wrapped, ProviderError>> + Send;

    /// As [`KeyProvider::unwrap`].
    fn unwrap(
        &self,
        wrapped: &Wrapped,
        context: &WrapContext,
    ) -> impl Future<Output = Result<WrapInput, ProviderError>> + Send;

    /// As [`KeyProvider::describe`].
    fn describe(&self, kek: &Kek) -> impl Future<Output = Result<KekInfo, ProviderError>> + Send;

    /// As [`KeyProvider::authority`].
    fn authority(&self) -> Authority;

    /// As [`KeyProvider::wrap_is_authentic`].
    fn wrap_is_authentic(&self) -> bool {
        true
    }
}

/// An asynchronous provider and the runtime that its calls run on.
///
/// The cache calls it without holding a thread. As a [`KeyProvider`] it can also be called by hand, which blocks the
/// calling thread and no other. From a thread of the very runtime that has only this one (`current_thread`), that is an error
/// and no deadlock; whatever else keeps a runtime from going on is silence after 30 s.
pub struct OnTokio<P> {
    provider: Arc<P>,
    runtime: RunsOn,
    /// For calls by hand. Those of the cache have its call deadline.
    patience: Duration,
}

enum RunsOn {
    Users(Handle),
    /// Taken out only when dropped.
    Own(Option<Runtime>),
}

impl<P: AsyncKeyProvider> OnTokio<P> {
    /// Runs the calls on the runtime of `handle`.
    ///
    /// A runtime of the flavour `current_thread` makes progress only while its thread is in it: with such a one do not
    /// block that thread on this library (`wait`, `create`), await instead (`ready`, `begin_create`), or use
    /// [`Self::with_own_runtime`]. Once the runtime is shut down, calls fail as transient.
    #[must_use]
    pub fn new(provider: P, handle: Handle) -> Self {
        Self { provider: Arc::new(provider), runtime: RunsOn::Users(handle), patience: PATIENCE }
    }

    /// Runs the calls on a runtime of its own, of one thread: for programs without one, and whenever KMS calls shall not
    /// depend on how busy the program's runtime is. May be created and dropped anywhere, inside of a runtime too.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn with_own_runtime(provider: P) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("strongroom-tokio")
            .enable_all()
            .build()?;
        let runtime = RunsOn::Own(Some(runtime));
        Ok(Self { provider: Arc::new(provider), runtime, patience: PATIENCE })
    }

    /// The provider itself.
    #[must_use]
    pub fn provider(&self) -> &P {
        &self.provider
    }

    fn handle(&self) -> Option<&Handle> {
        match &self.runtime {
            RunsOn::Users(handle) => Some(handle),
            RunsOn::Own(runtime) => runtime.as_ref().map(Runtime::handle),
        }
    }

    fn spawn<T, F>(&self, call: F) -> Answer<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ProviderError>> + Send + 'static,
    {
        match self.handle() {
            Some(handle) => Box::pin(Spawned(handle.spawn(call))),
            // OK because only `drop` takes the runtime out.
            None => Box::pin(async { Err(ProviderError::transient(GONE)) }),
        }
    }

    /// Waits for a call on the calling thread, which may belong to any runtime.
    fn block_on<T: Send + 'static>(&self, call: impl FnOnce() -> Answer<T>) -> Result<T, ProviderError> {
        if self.would_wait_for_itself() {
            return Err(ProviderError::misconfigured(WAITS_FOR_ITSELF));
        }
        let Some(handle) = self.handle() else { return Err(ProviderError::transient(GONE)) };
        let (answer, waiting) = mpsc::sync_channel(1);
        let call = call();
        handle.spawn(async move {
            // Nobody waits any more only when this thread is gone.
            drop(answer.send(call.await));
        });
        let wait = || waiting.recv_timeout(self.patience);
        let answer = if is_on_worker() {
            // The call may lie in the queue of the very worker that waits for it: another thread takes that over. Within a
            // `LocalSet` that is not to be had, nor needed: its thread is no worker.
            catch_unwind(AssertUnwindSafe(|| block_in_place(wait))).unwrap_or_else(|_| wait())
        } else {
            wait()
        };
        answer.unwrap_or_else(|why| {
            Err(ProviderError::transient(match why {
                RecvTimeoutError::Timeout => STUCK,
                RecvTimeoutError::Disconnected => GONE,
            }))
        })
    }

    /// Whether this thread is the only one that could make the call go on.
    fn would_wait_for_itself(&self) -> bool {
        let RunsOn::Users(handle) = &self.runtime else { return false };
        handle.runtime_flavor() == RuntimeFlavor::CurrentThread
            && Handle::try_current().is_ok_and(|current| current.id() == handle.id())
    }
}

impl<P: AsyncKeyProvider> Calls for OnTokio<P> {
    fn wrap(&self, kek: &Kek, context: &WrapContext, secret: &WrapInput) -> Answer<Wrapped> {
        let (provider, kek, context, secret) =
            (Arc::clone(&self.provider), kek.clone(), *context, WrapInput::copy_of(secret));
        self.spawn(washed(async move { provider.wrap(&kek, &context, &secret).await }))
    }

    fn unwrap(&self, wrapped: &Wrapped, context: &WrapContext) -> Answer<WrapInput> {
        let (provider, wrapped, context) = (Arc::clone(&self.provider), wrapped.clone(), *context);
        self.spawn(washed(async move { provider.unwrap(&wrapped, &context).await }))
    }

    fn describe(&self, kek: &Kek) -> Answer<KekInfo> {
        let (provider, kek) = (Arc::clone(&self.provider), kek.clone());
        self.spawn(async move { provider.describe(&kek).await })
    }
}

impl<P: AsyncKeyProvider> KeyProvider for OnTokio<P> {
    fn wrap(&self, kek: &Kek, context: &WrapContext, secret: &WrapInput) -> Result<Wrapped, ProviderError> {
        self.block_on(|| Calls::wrap(self, kek, context, secret))
    }

    fn unwrap(&self, wrapped: &Wrapped, context: &WrapContext) -> Result<WrapInput, ProviderError> {
        self.block_on(|| Calls::unwrap(self, wrapped, context))
    }

    fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError> {
        self.block_on(|| Calls::describe(self, kek))
    }

    fn authority(&self) -> Authority {
        self.provider.authority()
    }

    fn wrap_is_authentic(&self) -> bool {
        self.provider.wrap_is_authentic()
    }

    fn asynchronous(&self) -> Option<Asynchronous<'_>> {
        Some(Asynchronous(self))
    }
}

/// Whether this is a task of a runtime that has several threads.
fn is_on_worker() -> bool {
    tokio::task::try_id().is_some()
        && Handle::try_current().is_ok_and(|current| current.runtime_flavor() == RuntimeFlavor::MultiThread)
}

/// An AEK passed through the thread that ends `call`, which is the runtime's.
async fn washed<T>(call: impl Future<Output = T>) -> T {
    let answer = call.await;
    wash_stack::<WASHED>();
    answer
}

/// A call on the runtime. Dropping it ends the call there.
struct Spawned<T>(JoinHandle<Result<T, ProviderError>>);

impl<T> Future for Spawned<T> {
    type Output = Result<T, ProviderError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|joined| match joined {
            Ok(answer) => answer,
            Err(error) if error.is_panic() => {
                // What it says may hold a secret, and its own drop may panic.
                drop(catch_unwind(AssertUnwindSafe(|| drop(error))));
                Err(ProviderError::transient("the provider panicked"))
            }
            Err(_) => Err(ProviderError::transient(GONE)),
        })
    }
}

impl<T> Drop for Spawned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<P> Drop for OnTokio<P> {
    /// A runtime that is dropped within another panics; one that is shut down in the background does not.
    fn drop(&mut self) {
        if let RunsOn::Own(runtime) = &mut self.runtime
            && let Some(runtime) = runtime.take()
        {
            runtime.shutdown_background();
        }
    }
}

impl<P: fmt::Debug> fmt::Debug for OnTokio<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnTokio").field("provider", &self.provider).finish_non_exhaustive()
    }
}

/// Less than on threads of ours, whose stacks are larger than a runtime's may be.
const WASHED: usize = 32 * 1024;
/// Far more than a provider's own time-outs: it is the runtime that does not go on.
const PATIENCE: Duration = Duration::from_secs(30);
const STUCK: &str = "no answer for a long time: is the runtime of the KMS client blocked by its callers?";
const GONE: &str = "the runtime of the KMS client was shut down";
const WAITS_FOR_ITSELF: &str = "a blocking call on the only thread of the runtime that has to serve it: await instead, or give the provider a runtime of its own";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::ErrorClass;

    #[derive(Debug)]
    struct Prompt;

    impl AsyncKeyProvider for Prompt {
        async fn wrap(&self, _: &Kek, _: &WrapContext, _: &WrapInput) -> Result<Wrapped, ProviderError> {
            Err(ProviderError::misconfigured("not here"))
        }

        async fn unwrap(&self, _: &Wrapped, _: &WrapContext) -> Result<WrapInput, ProviderError> {
            Err(ProviderError::misconfigured("not here"))
        }

        async fn describe(&self, _: &Kek) -> Result<KekInfo, ProviderError> {
            Err(ProviderError::misconfigured("not here"))
        }

        fn authority(&self) -> Authority {
            Authority::new("prompt", "test")
        }
    }

    #[test]
    fn a_call_by_hand_from_a_worker_is_answered_by_whoever_takes_its_place() {
        for workers in [1, 2] {
            let runtime = Builder::new_multi_thread().worker_threads(workers).build().unwrap();
            let on_runtime = || OnTokio::new(Prompt, runtime.handle().clone());
            for kms in [on_runtime(), OnTokio::with_own_runtime(Prompt).unwrap()] {
                let called = runtime.spawn(async move { described(&kms) });
                assert_eq!(runtime.block_on(called).unwrap(), answered(), "{workers}");
            }
            let kms = on_runtime();
            let local = tokio::task::LocalSet::new();
            let called =
                local.run_until(async { tokio::task::spawn_local(async move { described(&kms) }).await });
            assert_eq!(runtime.block_on(called).unwrap(), answered(), "{workers}");
        }
    }

    #[test]
    fn a_runtime_that_nobody_drives_is_silence() {
        let runtime = Builder::new_current_thread().build().unwrap();
        let mut kms = OnTokio::new(Prompt, runtime.handle().clone());
        kms.patience = Duration::from_millis(10);
        assert_eq!(described(&kms), (ErrorClass::Transient, STUCK.to_owned()));
    }

    fn answered() -> (ErrorClass, String) {
        (ErrorClass::Misconfigured, "not here".to_owned())
    }

    fn described(kms: &OnTokio<Prompt>) -> (ErrorClass, String) {
        let error = KeyProvider::describe(kms, &Kek::latest("kek")).unwrap_err();
        (error.class(), error.message().to_owned())
    }
}
