//! Where provider calls run: a bounded pool of threads, or, under a test's clock, the caller.
//!
//! A call may hang for ever. It then costs its worker: another may start while the bound on all threads
//! allows, and the worker rejoins the pool if the call ever returns. Imports: `clock`, `secret`, `error`, and under `testing` its
//! `virtual_time`.

use std::collections::VecDeque;
use std::fmt;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::Message;
#[cfg(any(test, feature = "testing"))]
use super::inline::Inline;
use crate::error::{Error, ErrorKind};
use crate::secret::wash_stack;

/// A piece of work that calls providers, may block, and catches what they throw. What it returns is sent to the event loop.
pub(crate) type Work = Box<dyn FnOnce() -> Message + Send>;

/// Where work runs.
#[derive(Debug)]
pub(crate) enum Executor {
    Threads(Pool),
    /// On the thread that drives the keeper, at the time of a test's clock.
    #[cfg(any(test, feature = "testing"))]
    Inline(Inline),
}

impl Executor {
    /// How many pieces of work may run at once.
    pub(crate) const fn most(&self) -> usize {
        match self {
            Self::Threads(pool) => pool.most,
            #[cfg(any(test, feature = "testing"))]
            Self::Inline(inline) => inline.most(),
        }
    }

    /// How many pieces of work could start right now without waiting for another to end.
    pub(crate) fn free(&self) -> usize {
        match self {
            Self::Threads(pool) => pool.free(),
            #[cfg(any(test, feature = "testing"))]
            Self::Inline(inline) => inline.free(),
        }
    }

    /// Runs `work`.
    ///
    /// # Errors
    /// `Limit` when the operating system gives no thread and none is left to run it.
    pub(crate) fn run(&mut self, work: Work) -> Result<(), Error> {
        match self {
            Self::Threads(pool) => pool.run(work),
            #[cfg(any(test, feature = "testing"))]
            Self::Inline(inline) => {
                inline.run(work);
                Ok(())
            }
        }
    }

    /// Takes no more work and waits for what runs, at most `deadline`. True when nothing is left behind.
    pub(crate) fn close(&self, deadline: Duration) -> bool {
        match self {
            Self::Threads(pool) => pool.close(deadline),
            #[cfg(any(test, feature = "testing"))]
            Self::Inline(_) => true,
        }
    }
}

/// A bounded pool of threads. Dropping it lets the workers go as they finish.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    most: usize,
}

struct Shared {
    state: Mutex<State>,
    results: Sender<Message>,
    work_or_close: Condvar,
    gone: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Work>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Pool {
    /// A pool of at most `most` threads that sends results to `results`. Threads start as they are needed.
    pub(crate) fn new(most: usize, results: Sender<Message>) -> Self {
        let shared =
            Shared { state: Mutex::default(), results, work_or_close: Condvar::new(), gone: Condvar::new() };
        Self { shared: Arc::new(shared), most }
    }

    fn free(&self) -> usize {
        let state = self.shared.lock();
        (state.idle + self.most.saturating_sub(state.threads)).saturating_sub(state.queue.len())
    }

    fn run(&self, work: Work) -> Result<(), Error> {
        let mut state = self.shared.lock();
        if state.idle <= state.queue.len() && state.threads < self.most {
            let shared = Arc::clone(&self.shared);
            let started = thread::Builder::new().name("strongroom-kms".into()).spawn(move || shared.work());
            match started {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    return Err(Error::new(ErrorKind::Limit, "no thread for KMS calls").with_source(error));
                }
                // Fewer workers than wished for: the work waits for one of them.
                Err(_) => {}
            }
        }
        state.queue.push_back(work);
        drop(state);
        self.shared.work_or_close.notify_one();
        Ok(())
    }

    /// Workers that hang in a call are left behind, and end with the process or with their call.
    fn close(&self, deadline: Duration) -> bool {
        let mut state = self.shared.lock();
        state.closed = true;
        let dropped = std::mem::take(&mut state.queue);
        self.shared.work_or_close.notify_all();
        // Providers and waits are somebody else's code: not under the lock.
        drop(state);
        drop(dropped);
        let state = self.shared.lock();
        let (state, _) = self
            .shared
            .gone
            .wait_timeout_while(state, deadline, |state| state.threads > 0)
            .unwrap_or_else(PoisonError::into_inner);
        state.threads == 0
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // OK because no user code runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.queue.pop_front() {
                drop(state);
                let result = work();
                // An AEK passed through here.
                wash_stack::<WASHED>();
                // The event loop may be gone; then nobody waits for the result.
                drop(self.results.send(result));
                state = self.lock();
            } else if state.closed {
                break;
            } else {
                state.idle += 1;
                state = self.work_or_close.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
        state.threads -= 1;
        drop(state);
        self.gone.notify_all();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("Pool").field("threads", &state.threads).field("most", &self.most).finish()
    }
}

/// Deeper than the library or a provider takes a key: 64 KiB, of the 2 MiB that a thread has.
const WASHED: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn b11_a_hanging_call_costs_one_worker() {
        let (results, _inbox) = mpsc::channel();
        let pool = Pool::new(2, results);
        let (release, held) = mpsc::channel::<()>();
        let hang = move || {
            let _ = held.recv();
            Message::Shutdown
        };
        pool.run(Box::new(hang)).unwrap();
        let (done, seen) = mpsc::channel();
        for i in 0..10 {
            let done = done.clone();
            let work = move || {
                done.send(i).unwrap();
                Message::Shutdown
            };
            pool.run(Box::new(work)).unwrap();
        }
        for i in 0..10 {
            assert_eq!(seen.recv_timeout(Duration::from_secs(10)).unwrap(), i);
        }
        assert!(!pool.close(Duration::from_millis(10)), "one still hangs");
        drop(release);
        assert!(pool.close(Duration::from_secs(10)));
    }

    #[test]
    fn results_reach_the_event_loop_and_threads_are_bounded() {
        let (results, inbox) = mpsc::channel();
        let pool = Pool::new(3, results);
        for _ in 0..50 {
            pool.run(Box::new(|| Message::Shutdown)).unwrap();
        }
        for _ in 0..50 {
            let message = inbox.recv_timeout(Duration::from_secs(10)).unwrap();
            assert!(matches!(message, Message::Shutdown));
        }
        assert!(pool.shared.lock().threads <= 3);
    }
}
