//! A provider call as the control plane makes it: awaited, whichever form the provider has.
//!
//! A synchronous provider runs inside of the poll, on one of the library's own threads, and may block there. An
//! asynchronous one runs on its runtime, and no thread waits for it. Each call passes the gate; with the feature `tracing` or `metrics` it is
//! told of. Imports: `provider`, `clock`, `id`.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

#[cfg(any(feature = "tracing", feature = "metrics"))]
use super::observed::Observed;
use super::{Kek, KekInfo, KeyProvider, ProviderError, WrapContext, WrapInput, Wrapped, gate};
use crate::clock::Clock;
use crate::id::AccountId;

/// The asynchronous form of a provider, which only this crate makes.
#[derive(Clone, Copy)]
#[doc(hidden)]
pub struct Asynchronous<'a>(pub(crate) &'a dyn Calls);

/// The calls of [`KeyProvider`] as futures that need nothing of whoever polls them.
pub(crate) trait Calls: Send + Sync {
    fn wrap(&self, kek: &Kek, context: &WrapContext, secret: &WrapInput) -> Answer<Wrapped>;
    fn unwrap(&self, wrapped: &Wrapped, context: &WrapContext) -> Answer<WrapInput>;
    fn describe(&self, kek: &Kek) -> Answer<KekInfo>;
}

/// An answer on its way. Dropping it gives the call up.
pub(crate) type Answer<T> = Pin<Box<dyn Future<Output = Result<T, ProviderError>> + Send>>;

/// A provider, in the form in which it is to be called.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'a> {
    provider: &'a dyn KeyProvider,
    calls: Option<&'a dyn Calls>,
    /// Tells how long calls take, where anybody is told.
    #[cfg_attr(
        not(any(feature = "tracing", feature = "metrics")),
        expect(dead_code, reason = "nobody is told")
    )]
    clock: &'a Clock,
}

impl<'a> Caller<'a> {
    /// Holds a thread during a call only where the provider has no other form.
    pub(crate) fn awaiting(provider: &'a dyn KeyProvider, clock: &'a Clock) -> Self {
        Self { provider, calls: provider.asynchronous().map(|Asynchronous(calls)| calls), clock }
    }

    /// Holds the thread that polls, whatever the provider is: its futures are ready at once.
    pub(crate) const fn blocking(provider: &'a dyn KeyProvider) -> Self {
        Self { provider, calls: None, clock: &Clock::System }
    }

    pub(crate) const fn provider(self) -> &'a dyn KeyProvider {
        self.provider
    }

    pub(crate) async fn wrap(
        self,
        kek: &Kek,
        context: &WrapContext,
        secret: &WrapInput,
    ) -> Result<Wrapped, ProviderError> {
        gate::pass()?;
        let call = async {
            match self.calls {
                Some(calls) => calls.wrap(kek, context, secret).await,
                None => self.provider.wrap(kek, context, secret),
            }
        };
        self.told("wrap", Some(context.account()), call).await
    }

    pub(crate) async fn unwrap(
        self,
        wrapped: &Wrapped,
        context: &WrapContext,
    ) -> Result<WrapInput, ProviderError> {
        gate::pass()?;
        let call = async {
            match self.calls {
                Some(calls) => calls.unwrap(wrapped, context).await,
                None => self.provider.unwrap(wrapped, context),
            }
        };
        self.told("unwrap", Some(context.account()), call).await
    }

    pub(crate) async fn describe(self, kek: &Kek) -> Result<KekInfo, ProviderError> {
        gate::pass()?;
        let call = async {
            match self.calls {
                Some(calls) => calls.describe(kek).await,
                None => self.provider.describe(kek),
            }
        };
        self.told("describe", None, call).await
    }

    #[cfg(any(feature = "tracing", feature = "metrics"))]
    async fn told<T>(
        self,
        operation: &'static str,
        account: Option<AccountId>,
        call: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        let authority = self.provider.authority();
        Observed { operation, authority: &authority, account, clock: self.clock }.call(call).await
    }

    #[cfg(not(any(feature = "tracing", feature = "metrics")))]
    async fn told<T>(
        self,
        _: &'static str,
        _: Option<AccountId>,
        call: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        call.await
    }
}

/// Awaits all `calls`, and begins with the one numbered `first`, so that whoever asks again can let each have its turn. What is
/// asynchronous is under way at the same time; what blocks a thread is called one after the other. Ends before all have answered
/// once an answer `decides`: what is not answered by then is given up, or was not asked.
pub(crate) async fn together<T>(
    calls: Vec<Pin<Box<dyn Future<Output = T> + Send + '_>>>,
    first: usize,
    decides: impl Fn(&T) -> bool,
) -> Vec<Option<T>> {
    let mut answers: Vec<Option<T>> = calls.iter().map(|_| None).collect();
    let mut calls: Vec<_> = calls.into_iter().enumerate().collect();
    let turn = first % calls.len().max(1);
    calls.rotate_left(turn);
    poll_fn(|context| {
        let mut decided = false;
        calls.retain_mut(|(at, call)| {
            if decided {
                return true;
            }
            match call.as_mut().poll(context) {
                Poll::Pending => true,
                Poll::Ready(answer) => {
                    decided = decides(&answer);
                    answers[*at] = Some(answer);
                    false
                }
            }
        });
        if decided || calls.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    answers
}

/// Polls on this thread until `future` is ready, and waits in between.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            // A wake that came meanwhile is kept; one for nothing costs a poll.
            Poll::Pending => thread::park(),
        }
    }
}

impl fmt::Debug for Asynchronous<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asynchronous(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_on_waits_for_a_wake_from_another_thread() {
        let (send, receive) = std::sync::mpsc::channel::<Waker>();
        let mut sent = false;
        let future = std::future::poll_fn(move |context| {
            if sent {
                return Poll::Ready(7);
            }
            sent = true;
            send.send(context.waker().clone()).unwrap();
            Poll::Pending
        });
        thread::scope(|scope| {
            scope.spawn(move || receive.recv().unwrap().wake());
            assert_eq!(block_on(future), 7);
        });
    }
}
