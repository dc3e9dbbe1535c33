//! What threads meet in: the atomics and the swapped pointer of `state`.
//!
//! They are those of the standard library and of `arc-swap`, as they are. Tests built with `--cfg shuttle` get others, at
//! each access of which shuttle decides which thread runs on, so that it can play every order.
//!
//! Not modelled there: memory orders weaker than sequential consistency, which `state` does not use; the inside of
//! `arc-swap`, a load or a swap of which is one step; and the clock, which moves when a test moves it.
//! Imports: nothing of ours.

#[cfg(not(all(test, shuttle)))]
pub(super) use {
    arc_swap::{ArcSwap, Guard},
    std::sync::atomic::{AtomicU64, Ordering},
};

#[cfg(test)]
#[cfg(shuttle)]
pub(super) use {
    shim::{ArcSwap, Guard},
    shuttle::sync::atomic::{AtomicU64, Ordering},
};

#[cfg(test)]
#[cfg(shuttle)]
mod shim {
    use std::ops::Deref;
    use std::sync::{Arc, Mutex, PoisonError};

    use super::{AtomicU64, Ordering};

    /// A pointer that is loaded and swapped as a whole. The lock is never waited for: no other thread runs on
    /// before the next access of something instrumented.
    pub(crate) struct ArcSwap<T> {
        step: AtomicU64,
        value: Mutex<Arc<T>>,
    }

    impl<T> ArcSwap<T> {
        pub(crate) fn from_pointee(value: T) -> Self {
            Self { step: AtomicU64::new(0), value: Mutex::new(Arc::new(value)) }
        }

        pub(crate) fn load(&self) -> Guard<Arc<T>> {
            self.step.load(Ordering::SeqCst);
            Guard(Arc::clone(&self.value.lock().unwrap_or_else(PoisonError::into_inner)))
        }

        pub(crate) fn store(&self, value: Arc<T>) {
            self.step.load(Ordering::SeqCst);
            *self.value.lock().unwrap_or_else(PoisonError::into_inner) = value;
        }
    }

    /// Keeps what was loaded alive.
    pub(crate) struct Guard<A>(A);

    impl<A> Deref for Guard<A> {
        type Target = A;

        fn deref(&self) -> &A {
            &self.0
        }
    }
}
