//! What stands before each provider call of the control plane: whoever runs the work counts its calls, and may hold one back.
//!
//! The gate is found through the thread, and not through arguments, so that no call can be written that passes it by:
//! whatever polls the work sets the gate for the length of the poll. Imports: `provider::error`.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::ProviderError;

/// Asked before each call to a provider.
pub(crate) trait Gate: Send + Sync {
    /// Returns when the call may begin. May block its thread.
    ///
    /// # Errors
    /// Where there will be no more calls.
    fn pass(&self) -> Result<(), ProviderError>;
}

/// Work whose provider calls pass `gate`.
pub(crate) struct Gated<F> {
    gate: Arc<dyn Gate>,
    work: Pin<Box<F>>,
}

thread_local! {
    static GATE: RefCell<Option<Arc<dyn Gate>>> = const { RefCell::new(None) };
}

impl<F> Gated<F> {
    pub(crate) fn new(gate: Arc<dyn Gate>, work: F) -> Self {
        Self { gate, work: Box::pin(work) }
    }
}

impl<F: Future> Future for Gated<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // Put back also when the work panics.
        let _before = Before(GATE.replace(Some(Arc::clone(&self.gate))));
        self.work.as_mut().poll(context)
    }
}

struct Before(Option<Arc<dyn Gate>>);

impl Drop for Before {
    fn drop(&mut self) {
        GATE.set(self.0.take());
    }
}

/// Passes the gate of the work that this thread is at; there is none where a caller uses a provider by itself.
pub(super) fn pass() -> Result<(), ProviderError> {
    let gate = GATE.with_borrow(Clone::clone);
    gate.map_or(Ok(()), |gate| gate.pass())
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::provider::block_on;

    #[derive(Default)]
    struct Counts(AtomicUsize);

    impl Gate for Counts {
        fn pass(&self) -> Result<(), ProviderError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    #[test]
    fn c8_calls_pass_the_gate_of_their_own_work_only() {
        let gate = Arc::new(Counts::default());
        block_on(Gated::new(Arc::clone(&gate) as _, async {
            pass().unwrap();
            let inner = Arc::new(Counts::default());
            block_on(Gated::new(Arc::clone(&inner) as _, async { pass().unwrap() }));
            pass().unwrap();
            assert_eq!(inner.0.load(Ordering::Relaxed), 1);
        }));
        let panics = Gated::new(Arc::clone(&gate) as _, async { panic!("planted") });
        drop(catch_unwind(AssertUnwindSafe(|| block_on(panics))));
        assert!(GATE.with_borrow(Option::is_none), "nothing passes it outside of its work");
        assert_eq!(gate.0.load(Ordering::Relaxed), 2);
    }
}
