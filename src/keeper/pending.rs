//! The result of a control call that is still under way: waited for by a thread or by a task.
//!
//! Needs no particular runtime. Dropping it abandons the wait, never the operation. Imports: `error`.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::Abandon;
use crate::error::{Error, ErrorKind};

/// A control call under way: a future, or something a thread waits for.
///
/// `Send + 'static`, safe to drop at any time. Dropping it abandons the wait; the operation goes on.
///
/// ```
/// # use std::sync::Arc;
/// # use strongroom::provider::{Kek, KeyOptions, LocalKms};
/// # use strongroom::{Account, AccountId, AccountSpec, AekCache, Error};
/// # let folder = tempfile::tempdir()?;
/// # let kms = LocalKms::create(folder.path().join("kms.json"))?;
/// # kms.create_key("orders", KeyOptions::default())?;
/// # let cache = AekCache::builder().build()?;
/// # let account = cache.create(AccountSpec::new(AccountId::random(), Arc::new(kms), Kek::latest("orders")))?;
/// use std::time::Duration;
///
/// async fn in_a_task(account: Account) -> Result<(), Error> {
///     account.ready().await // in any runtime
/// }
///
/// account.ready().wait_timeout(Duration::from_secs(10))?; // in a thread
/// # drop(in_a_task(account));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the call goes on by itself, but its error is lost unless waited for"]
pub struct Pending<T> {
    shared: Arc<Shared<T>>,
    /// Without threads of its own the keeper has to be driven by whoever waits.
    drive: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// The other end: completes the call once.
pub(crate) struct Completer<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    slot: Mutex<Slot<T>>,
    done: Condvar,
}

enum Slot<T> {
    Waiting(Option<Waker>),
    Done(Result<T, Error>),
    Taken,
}

impl<T> Pending<T> {
    pub(crate) fn new() -> (Self, Completer<T>) {
        let shared = Arc::new(Shared { slot: Mutex::new(Slot::Waiting(None)), done: Condvar::new() });
        (Self { shared: Arc::clone(&shared), drive: None }, Completer { shared })
    }

    pub(crate) fn ready(result: Result<T, Error>) -> Self {
        let (pending, completer) = Self::new();
        completer.complete(result);
        pending
    }

    pub(crate) fn driven_by(mut self, drive: Option<Arc<dyn Fn() + Send + Sync>>) -> Self {
        self.drive = drive;
        self
    }

    /// Without threads of its own the keeper does now what is due: for a task that awaits a call which another asked for.
    pub(crate) fn driven(self) -> Self {
        if let Some(drive) = &self.drive {
            drive();
        }
        self
    }

    /// Blocks this thread until the call has ended.
    ///
    /// # Errors
    /// The call's own. Under a manual keeper, which has no threads, [`ErrorKind::Unavailable`] when the
    /// call cannot end before the clock is moved.
    pub fn wait(self) -> Result<T, Error> {
        self.wait_until(None)
    }

    /// Blocks this thread until the call has ended, at most `timeout`. The operation goes on after that.
    ///
    /// # Errors
    /// The call's own, or [`ErrorKind::NotReady`] when `timeout` has passed first.
    pub fn wait_timeout(self, timeout: Duration) -> Result<T, Error> {
        self.wait_until(Some(timeout))
    }

    fn wait_until(self, timeout: Option<Duration>) -> Result<T, Error> {
        if let Some(drive) = &self.drive {
            drive();
            return self.shared.take().unwrap_or_else(|| {
                Err(Error::new(
                    ErrorKind::Unavailable,
                    "not done yet: move the manual clock, then drive the cache",
                ))
            });
        }
        let slot = self.shared.lock();
        let waiting = |slot: &mut Slot<T>| matches!(slot, Slot::Waiting(_));
        let mut slot = match timeout {
            None => self.shared.done.wait_while(slot, waiting).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.shared.done.wait_timeout_while(slot, timeout, waiting);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        slot.take().unwrap_or_else(|| {
            Err(Error::new(ErrorKind::NotReady, "not done within the time given; the call goes on"))
        })
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Wakers are cloned and dropped outside of the lock: either may run code that comes back here.
        let waker = context.waker().clone();
        let mut slot = self.shared.lock();
        if let Slot::Waiting(waiting) = &mut *slot {
            let before = waiting.replace(waker);
            drop(slot);
            drop(before);
            return Poll::Pending;
        }
        Poll::Ready(
            slot.take()
                .unwrap_or_else(|| Err(Error::new(ErrorKind::Misuse, "a finished call was polled again"))),
        )
    }
}

impl<T: Send + 'static> Completer<T> {
    /// Ends the wait with an error if nothing else has ended it yet: for a call that is given up.
    pub(crate) fn abandoner(&self) -> Abandon {
        let shared = Arc::clone(&self.shared);
        Box::new(move |error| shared.finish(Err(error)))
    }
}

impl<T> Completer<T> {
    /// Whether nobody waits any more.
    pub(crate) fn is_given_up(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
    }

    pub(crate) fn complete(self, result: Result<T, Error>) {
        self.shared.finish(result);
    }
}

impl<T> Drop for Completer<T> {
    /// A call that nobody will ever finish ends with an error, so that no waiter hangs.
    fn drop(&mut self) {
        self.shared
            .finish(Err(Error::new(ErrorKind::Unavailable, "the cache was shut down before the call ended")));
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Slot<T>> {
        // OK because every change of the slot is one assignment: a panic leaves it whole.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Result<T, Error>> {
        self.lock().take()
    }

    fn finish(&self, result: Result<T, Error>) {
        let waker = {
            let mut slot = self.lock();
            let Slot::Waiting(waker) = &mut *slot else { return };
            let waker = waker.take();
            *slot = Slot::Done(result);
            waker
        };
        self.done.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Slot<T> {
    fn take(&mut self) -> Option<Result<T, Error>> {
        match std::mem::replace(self, Self::Taken) {
            Self::Done(result) => Some(result),
            waiting @ Self::Waiting(_) => {
                *self = waiting;
                None
            }
            Self::Taken => None,
        }
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Completer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_send_static<T: Send + 'static>(_: &T) {}

    #[test]
    fn a_finished_call_answers_thread_and_task() {
        let (pending, completer) = Pending::<u32>::new();
        assert_send_static(&pending);
        completer.complete(Ok(7));
        assert_eq!(pending.wait().expect("done"), 7);

        let (mut pending, completer) = Pending::<u32>::new();
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut pending).poll(&mut context).is_pending());
        completer.complete(Ok(8));
        let Poll::Ready(Ok(8)) = Pin::new(&mut pending).poll(&mut context) else { panic!("done") };
        let Poll::Ready(Err(again)) = Pin::new(&mut pending).poll(&mut context) else { panic!("taken") };
        assert_eq!(again.kind(), ErrorKind::Misuse);
    }

    #[test]
    fn a_call_that_nobody_finishes_ends_with_an_error() {
        let (pending, completer) = Pending::<()>::new();
        drop(completer);
        assert_eq!(pending.wait().expect_err("abandoned").kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn a_dropped_wait_does_not_disturb_the_call() {
        let (pending, completer) = Pending::<()>::new();
        drop(pending);
        completer.complete(Ok(()));
    }

    #[test]
    fn a_bounded_wait_ends() {
        let (pending, _completer) = Pending::<()>::new();
        let error = pending.wait_timeout(Duration::from_millis(1)).expect_err("nobody completes it");
        assert_eq!(error.kind(), ErrorKind::NotReady);
    }
}
