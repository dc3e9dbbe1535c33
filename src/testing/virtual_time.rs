//! How a provider on virtual time tells its executor that an answer comes late.
//!
//! A keeper driven by hand runs provider calls on the test's own thread. A call that really waited
//! would stop the clock it waits for. So a scripted provider returns at once and leaves a
//! [`Latency`] here; the executor takes it right after the call and delivers the answer that much
//! later on the virtual clock, or never. Imports: `provider`.

use std::cell::Cell;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use crate::provider::{
    Answer, Asynchronous, Authority, Calls, Kek, KekInfo, KeyProvider, ProviderError, WrapContext, WrapInput,
    Wrapped,
};

/// How late the answer of the provider call that just returned on this thread arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Latency {
    /// This long after the call began.
    For(Duration),
    /// Never: the call hangs.
    Forever,
}

thread_local! {
    static LATENCY: Cell<Option<Latency>> = const { Cell::new(None) };
    static DELAY: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    #[cfg(test)]
    static NO_THREADS: Cell<bool> = const { Cell::new(false) };
}

/// From now on executors that are driven on this thread find none to run a call on.
#[cfg(test)]
pub(crate) fn give_no_thread(none: bool) {
    NO_THREADS.set(none);
}

#[cfg(test)]
pub(crate) fn gives_no_thread() -> bool {
    NO_THREADS.get()
}

/// The call that is about to be made on this thread would have waited this long for its turn.
pub(crate) fn delay(by: Duration) {
    DELAY.set(DELAY.get() + by);
}

/// What the calls on this thread would have waited together, once.
pub(crate) fn take_delay() -> Duration {
    DELAY.take()
}

/// Leaves `latency` for whoever called the provider on this thread; `None` is an answer at once.
pub fn set(latency: Option<Latency>) {
    LATENCY.set(latency);
}

/// What the last provider call on this thread left, once. Executors take it before a call as well, so that
/// nothing left by an earlier caller who did not ask delays this one.
#[must_use]
pub fn take() -> Option<Latency> {
    LATENCY.take()
}

/// Whether the last provider call on this thread left a latency that nobody has taken yet.
pub(crate) fn is_late() -> bool {
    LATENCY.get().is_some()
}

/// A provider on virtual time as if its client were asynchronous: while an answer is late, or never comes, the call holds no
/// worker of the keeper that is driven by hand.
///
/// For virtual time only. A provider whose client *is* asynchronous is an `AsyncKeyProvider` in an `OnTokio` (feature `tokio`).
#[derive(Clone, Debug)]
pub struct Awaited(Arc<dyn KeyProvider>);

impl Awaited {
    /// `provider`, which answers at once and leaves a [`Latency`] here.
    #[must_use]
    pub fn new(provider: Arc<dyn KeyProvider>) -> Self {
        Self(provider)
    }
}

impl Calls for Awaited {
    fn wrap(&self, kek: &Kek, context: &WrapContext, secret: &WrapInput) -> Answer<Wrapped> {
        Box::pin(ready(self.0.wrap(kek, context, secret)))
    }

    fn unwrap(&self, wrapped: &Wrapped, context: &WrapContext) -> Answer<WrapInput> {
        Box::pin(ready(self.0.unwrap(wrapped, context)))
    }

    fn describe(&self, kek: &Kek) -> Answer<KekInfo> {
        Box::pin(ready(self.0.describe(kek)))
    }
}

impl KeyProvider for Awaited {
    fn wrap(&self, kek: &Kek, context: &WrapContext, secret: &WrapInput) -> Result<Wrapped, ProviderError> {
        self.0.wrap(kek, context, secret)
    }

    fn unwrap(&self, wrapped: &Wrapped, context: &WrapContext) -> Result<WrapInput, ProviderError> {
        self.0.unwrap(wrapped, context)
    }

    fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError> {
        self.0.describe(kek)
    }

    fn authority(&self) -> Authority {
        self.0.authority()
    }

    fn wrap_is_authentic(&self) -> bool {
        self.0.wrap_is_authentic()
    }

    fn asynchronous(&self) -> Option<Asynchronous<'_>> {
        Some(Asynchronous(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_taken_once() {
        set(Some(Latency::Forever));
        assert_eq!(take(), Some(Latency::Forever));
        assert_eq!(take(), None);
    }
}
