//! A tokio runtime that calls run on, the user's or one of our own, and how threads that may block wait for them
//! (feature `tokio`). Imports: nothing of ours.

use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};
use tokio::task::{JoinHandle, block_in_place};

/// Where calls run.
pub(crate) enum RunsOn {
    Users(Handle),
    /// Taken out only when dropped.
    Own(Option<Runtime>),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The call panicked.
    Panicked,
    /// The runtime was shut down.
    Gone,
    /// Not in time.
    Late,
    /// The thread that waits is the only one that could make the call go on.
    WaitsForItself,
}

impl RunsOn {
    /// A runtime of one thread, with whatever of tokio is compiled in.
    pub(crate) fn own() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("strongroom-tokio")
            .enable_all()
            .build()?;
        Ok(Self::Own(Some(runtime)))
    }

    /// Begins `call`. Dropping what is returned ends it.
    pub(crate) fn spawn<T, F>(&self, call: F) -> Spawned<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        Spawned(self.handle().map(|handle| handle.spawn(call)))
    }

    /// Waits for a call on the calling thread, which may belong to any runtime, at most for `patience`. The call ends
    /// where the wait does.
    pub(crate) fn block_on<T, F>(&self, patience: Duration, call: F) -> Result<T, NoAnswer>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        if self.would_wait_for_itself() {
            return Err(NoAnswer::WaitsForItself);
        }
        let (answer, waiting) = mpsc::sync_channel(1);
        let spawned = self.spawn(async move {
            // Nobody waits any more only when this thread is gone.
            drop(answer.send(CatchPanic(Box::pin(call)).await));
        });
        let wait = || waiting.recv_timeout(patience);
        let answer = if is_on_worker() {
            // The call may lie in the queue of the very worker that waits for it: another thread takes that over. Within a
            // `LocalSet` that is not to be had, nor needed: its thread is no worker.
            catch_unwind(AssertUnwindSafe(|| block_in_place(wait))).unwrap_or_else(|_| wait())
        } else {
            wait()
        };
        drop(spawned);
        match answer {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => Err(NoAnswer::Late),
            Err(RecvTimeoutError::Disconnected) => Err(NoAnswer::Gone),
        }
    }

    fn handle(&self) -> Option<&Handle> {
        match self {
            Self::Users(handle) => Some(handle),
            Self::Own(runtime) => runtime.as_ref().map(Runtime::handle),
        }
    }

    /// Whether this thread is the only one that could make a call go on.
    fn would_wait_for_itself(&self) -> bool {
        let Self::Users(handle) = self else { return false };
        handle.runtime_flavor() == RuntimeFlavor::CurrentThread
            && Handle::try_current().is_ok_and(|current| current.id() == handle.id())
    }
}

/// Whether this is a task of a runtime that has several threads.
fn is_on_worker() -> bool {
    tokio::task::try_id().is_some()
        && Handle::try_current().is_ok_and(|current| current.runtime_flavor() == RuntimeFlavor::MultiThread)
}

/// A call on the runtime. Dropping it ends the call there.
pub(crate) struct Spawned<T>(Option<JoinHandle<T>>);

impl<T> Future for Spawned<T> {
    type Output = Result<T, NoAnswer>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // OK because only the runtime's drop leaves none.
        let Some(handle) = &mut self.0 else { return Poll::Ready(Err(NoAnswer::Gone)) };
        Pin::new(handle).poll(context).map(|joined| match joined {
            Ok(answer) => Ok(answer),
            Err(error) if error.is_panic() => {
                forget_panic(error);
                Err(NoAnswer::Panicked)
            }
            Err(_) => Err(NoAnswer::Gone),
        })
    }
}

impl<T> Drop for Spawned<T> {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.abort();
        }
    }
}

/// What a panic says may hold a secret, and its own drop may panic.
fn forget_panic(panic: impl Sized) {
    drop(catch_unwind(AssertUnwindSafe(|| drop(panic))));
}

struct CatchPanic<F>(Pin<Box<F>>);

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, NoAnswer>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(answer)) => Poll::Ready(Ok(answer)),
            Err(panic) => {
                forget_panic(panic);
                Poll::Ready(Err(NoAnswer::Panicked))
            }
        }
    }
}

impl Drop for RunsOn {
    /// A runtime that is dropped within another panics; one that is shut down in the background does not.
    fn drop(&mut self) {
        if let Self::Own(runtime) = self
            && let Some(runtime) = runtime.take()
        {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for RunsOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Users(_) => "Users",
            Self::Own(_) => "Own",
        })
    }
}
