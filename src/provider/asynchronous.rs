//! Providers whose KMS client is asynchronous, on a tokio runtime (contract B1, feature `tokio`).
//!
//! ```text
//! keeper ── call ──► OnTokio ── spawn ──► a tokio runtime: the user's or one of its own ──► AsyncKeyProvider
//! ```
//! Nothing of the library waits on a thread meanwhile: a thousand slow calls hold none. Imports: `provider`, `runtime`, `secret`.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::call::{Answer, Asynchronous, Calls};
use crate::runtime::{NoAnswer, RunsOn};
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
        let runtime = RunsOn::own()?;
        Ok(Self { provider: Arc::new(provider), runtime, patience: PATIENCE })
    }

    /// The provider itself.
    #[must_use]
    pub fn provider(&self) -> &P {
        &self.provider
    }

    fn spawn<T, F>(&self, call: F) -> Answer<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ProviderError>> + Send + 'static,
    {
        let spawned = self.runtime.spawn(call);
        Box::pin(async move { spawned.await.unwrap_or_else(|none| Err(unanswered(none))) })
    }

    /// Waits for a call on the calling thread, which may belong to any runtime.
    fn block_on<T: Send + 'static>(&self, call: impl FnOnce() -> Answer<T>) -> Result<T, ProviderError> {
        self.runtime.block_on(self.patience, call()).unwrap_or_else(|none| Err(unanswered(none)))
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

/// An AEK passed through the thread that ends `call`, which is the runtime's.
async fn washed<T>(call: impl Future<Output = T>) -> T {
    let answer = call.await;
    wash_stack::<WASHED>();
    answer
}

fn unanswered(why: NoAnswer) -> ProviderError {
    match why {
        NoAnswer::Panicked => ProviderError::transient("the provider panicked"),
        NoAnswer::Gone => ProviderError::transient(GONE),
        NoAnswer::Late => ProviderError::transient(STUCK),
        NoAnswer::WaitsForItself => ProviderError::misconfigured(WAITS_FOR_ITSELF),
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
    use tokio::runtime::Builder;

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
