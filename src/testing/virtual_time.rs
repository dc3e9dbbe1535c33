//! How a provider on virtual time tells its executor that an answer comes late.
//!
//! A keeper driven by hand runs provider calls on the test's own thread. A call that really waited
//! would stop the clock it waits for. So a scripted provider returns at once and leaves a
//! [`Latency`] here; the executor takes it right after the call and delivers the answer that much
//! later on the virtual clock, or never. Imports: nothing of ours.

use std::cell::Cell;
use std::time::Duration;

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
