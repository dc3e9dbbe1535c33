//! What threads meet in: the atomics, the swapped pointer of `state`, the shares of `budget`, and which of those is a thread's.
//!
//! They are those of the standard library and of `arc-swap`, as they are. Tests built with `--cfg shuttle` get others, at
//! each access of which shuttle decides which thread runs on, so that it can play every order.
//!
//! Not modelled there: memory orders weaker than sequential consistency, which `state` does not use, and `budget` where nothing
//! else hangs on it; the inside of `arc-swap` and of what is set once, a load or a store of which is one step; and the clock, which moves when a test moves it.
//! Imports: nothing of ours.

#[cfg(not(all(test, shuttle)))]
pub(super) use {
    arc_swap::{ArcSwap, Guard},
    own::own_stripe,
    std::sync::OnceLock,
    std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
};

#[cfg(test)]
#[cfg(shuttle)]
pub(super) use {
    shim::{ArcSwap, Guard, OnceLock, own_stripe},
    shuttle::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
};

#[cfg(not(all(test, shuttle)))]
mod own {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Which of so many stripes is this thread's: threads take them in turn.
    #[inline]
    pub(crate) fn own_stripe<const STRIPES: usize>() -> usize {
        MINE.get().unwrap_or_else(take_number) % STRIPES
    }

    #[cold]
    fn take_number() -> usize {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let mine = NEXT.fetch_add(1, Ordering::Relaxed);
        MINE.set(Some(mine));
        mine
    }

    thread_local! {
        static MINE: Cell<Option<usize>> = const { Cell::new(None) };
    }
}

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

    /// A value that is set once, and looked at in one step.
    #[derive(Debug)]
    pub(crate) struct OnceLock<T> {
        step: AtomicU64,
        value: std::sync::OnceLock<T>,
    }

    impl<T> OnceLock<T> {
        pub(crate) const fn new() -> Self {
            Self { step: AtomicU64::new(0), value: std::sync::OnceLock::new() }
        }

        pub(crate) fn get(&self) -> Option<&T> {
            self.step.load(Ordering::SeqCst);
            self.value.get()
        }

        pub(crate) fn set(&self, value: T) -> Result<(), T> {
            self.step.load(Ordering::SeqCst);
            self.value.set(value)
        }
    }

    /// Threads have their numbers from shuttle: the same in each schedule.
    pub(crate) fn own_stripe<const STRIPES: usize>() -> usize {
        usize::from(shuttle::thread::current().id()) % STRIPES
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
