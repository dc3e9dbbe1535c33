//! Who runs the event loop: a thread of its own, or a test by hand. Imports: `clock`, `error`.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
#[cfg(any(test, feature = "testing"))]
use std::sync::TryLockError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::event_loop::EventLoop;
use super::executor::{Executor, Pool};
#[cfg(any(test, feature = "testing"))]
use super::inline::Inline;
use super::{ControlCall, Counters, Message, Pending};
use crate::clock::Clock;
#[cfg(any(test, feature = "testing"))]
use crate::clock::ManualClock;
use crate::error::{Error, ErrorKind};

/// Moves a keeper without threads until nothing is due at its clock's present time.
pub(crate) type Drive = Arc<dyn Fn() + Send + Sync>;

/// A running event loop. Dropping it ends the loop; calls that hang are left behind.
pub(crate) struct Keeper {
    handle: KeeperHandle,
    runner: Runner,
}

/// How the rest of the control plane talks to the loop.
#[derive(Clone)]
pub(crate) struct KeeperHandle {
    outbox: Sender<Message>,
    closed: Arc<AtomicBool>,
    drive: Option<Drive>,
}

enum Runner {
    Thread {
        closed: Mutex<Receiver<bool>>,
        thread: Mutex<Option<JoinHandle<()>>>,
        patience: Arc<Mutex<Duration>>,
    },
    #[cfg(any(test, feature = "testing"))]
    Manual(Arc<Manual>),
}

/// What the loop needs to know of its cache.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) call_deadline: Duration,
    pub(crate) threads: usize,
    /// Calls to KMSs that may begin in any second.
    pub(crate) cap: Option<u32>,
    pub(crate) version_check: Duration,
    pub(crate) counters: Arc<Counters>,
}

impl Keeper {
    /// Starts the loop on a thread.
    ///
    /// # Errors
    /// `Limit` when the operating system gives no thread.
    pub(crate) fn start(clock: Clock, setup: Setup) -> Result<Self, Error> {
        let (outbox, inbox) = mpsc::channel();
        let executor = Executor::Threads(Pool::new(setup.threads, outbox.clone()));
        let mut event_loop = EventLoop::new(clock, outbox.clone(), executor, setup);
        let (report, closed) = mpsc::channel();
        let patience = Arc::new(Mutex::new(Duration::ZERO));
        let deadline = Arc::clone(&patience);
        let handle = KeeperHandle { outbox, closed: Arc::default(), drive: None };
        let is_closed = Arc::clone(&handle.closed);
        let thread = thread::Builder::new()
            .name("strongroom-keeper".into())
            .spawn(move || {
                // A panic here would be our own. It ends every wait and every lease, as a shutdown does.
                drop(catch_unwind(AssertUnwindSafe(|| run(&mut event_loop, &inbox))));
                is_closed.store(true, Ordering::SeqCst);
                let patience = *deadline.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = report.send(event_loop.close(patience));
            })
            .map_err(|e| Error::new(ErrorKind::Limit, "no thread for the keeper").with_source(e))?;
        let runner =
            Runner::Thread { closed: Mutex::new(closed), thread: Mutex::new(Some(thread)), patience };
        Ok(Self { handle, runner })
    }

    /// A loop that moves only when it is driven, on `clock`'s time.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn manual(clock: &ManualClock, setup: Setup) -> Self {
        let (outbox, inbox) = mpsc::channel();
        let executor = Executor::Inline(Inline::new(clock.clone(), outbox.clone(), setup.threads));
        let time = Clock::Manual(clock.clone());
        let event_loop = EventLoop::new(time, outbox.clone(), executor, setup);
        let manual = Arc::new(Manual { clock: clock.clone(), state: Mutex::new((event_loop, inbox)) });
        let driven = Arc::clone(&manual);
        let drive: Drive = Arc::new(move || driven.drive());
        let handle = KeeperHandle { outbox, closed: Arc::default(), drive: Some(drive) };
        Self { handle, runner: Runner::Manual(manual) }
    }

    pub(crate) const fn handle(&self) -> &KeeperHandle {
        &self.handle
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn as_manual(&self) -> Option<&Manual> {
        match &self.runner {
            Runner::Manual(manual) => Some(manual),
            Runner::Thread { .. } => None,
        }
    }

    /// In a forked child: there is no thread to wait for.
    pub(crate) fn forget_threads(&self) {
        self.handle.closed.store(true, Ordering::SeqCst);
        match &self.runner {
            Runner::Thread { thread, .. } => {
                *thread.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
            #[cfg(any(test, feature = "testing"))]
            Runner::Manual(_) => {}
        }
    }

    /// Ends the loop and waits for calls under way, at most `deadline`. True when no worker is left behind.
    pub(crate) fn shutdown(&self, deadline: Duration) -> bool {
        match &self.runner {
            Runner::Thread { closed, thread, patience } => {
                let taken = thread.lock().unwrap_or_else(PoisonError::into_inner).take();
                let Some(thread) = taken else { return true };
                *patience.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
                drop(self.handle.outbox.send(Message::Shutdown));
                if thread.thread().id() == thread::current().id() {
                    // The last handle was dropped by what ran on the keeper's own thread, which cannot wait for itself.
                    return false;
                }
                let all_gone = closed.lock().unwrap_or_else(PoisonError::into_inner).recv().unwrap_or(true);
                drop(thread.join());
                all_gone
            }
            #[cfg(any(test, feature = "testing"))]
            Runner::Manual(manual) => {
                self.handle.closed.store(true, Ordering::SeqCst);
                manual.close()
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shutdown(Duration::ZERO);
    }
}

fn run(event_loop: &mut EventLoop, inbox: &Receiver<Message>) {
    let mut wait = event_loop.step();
    loop {
        match inbox.recv_timeout(wait) {
            Ok(Message::Shutdown) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(message) => event_loop.take(message),
            Err(RecvTimeoutError::Timeout) => {}
        }
        // A burst is taken in whole before the next look at what is due, within bounds.
        for message in inbox.try_iter().take(BURST) {
            if matches!(message, Message::Shutdown) {
                return;
            }
            event_loop.take(message);
        }
        wait = event_loop.step();
    }
}

impl KeeperHandle {
    pub(crate) fn send(&self, message: Message) {
        // A loop that is gone renews nothing: every lease ends by its own deadline.
        drop(self.outbox.send(message));
    }

    /// Whether the loop has ended, or is about to end every wait.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Has `call` run; its own completer answers the waiter.
    pub(crate) fn control<T>(&self, pending: Pending<T>, call: ControlCall) -> Pending<T> {
        if self.is_closed() {
            // Its completer ends the wait. A forked child has no loop that would ever take the message.
            drop(call);
        } else {
            self.send(Message::Control(call));
        }
        self.waiting(pending)
    }

    /// Lets whoever waits for `pending` drive the loop, where it has no thread.
    pub(crate) fn waiting<T>(&self, pending: Pending<T>) -> Pending<T> {
        pending.driven_by(self.drive.clone())
    }
}

/// The loop in a test's hands.
#[cfg(any(test, feature = "testing"))]
pub(crate) struct Manual {
    clock: ManualClock,
    state: Mutex<(EventLoop, Receiver<Message>)>,
}

#[cfg(any(test, feature = "testing"))]
impl Manual {
    /// Does all that is due at the clock's present time.
    pub(crate) fn drive(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (event_loop, inbox) = &mut *state;
        loop {
            event_loop.step();
            let mut any = false;
            for message in inbox.try_iter() {
                any = true;
                event_loop.take(message);
            }
            if !any {
                break;
            }
        }
    }

    /// Moves the clock by `duration`, stopping wherever something is due.
    pub(crate) fn run_for(&self, duration: Duration) {
        let mut left = duration;
        loop {
            self.drive();
            let step = self.next_wake().max(Duration::from_nanos(1)).min(left);
            if left.is_zero() {
                return;
            }
            self.clock.advance(step);
            left -= step;
        }
    }

    fn next_wake(&self) -> Duration {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.next_wake()
    }

    fn close(&self) -> bool {
        match self.state.try_lock() {
            Ok(mut state) => state.0.close(Duration::ZERO),
            Err(TryLockError::Poisoned(state)) => state.into_inner().0.close(Duration::ZERO),
            // Dropped from within `drive`, which cannot wait for itself.
            Err(TryLockError::WouldBlock) => false,
        }
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

impl fmt::Debug for KeeperHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeeperHandle").finish_non_exhaustive()
    }
}

const BURST: usize = 1024;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::Destination;
    use super::super::Met;
    use super::*;
    use crate::testing::ScriptedProvider;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "it waits for a real thread")]
    fn the_last_handle_may_drop_on_the_keepers_own_thread() {
        let counters = Arc::new(Counters::default());
        let setup = Setup {
            call_deadline: Duration::from_secs(1),
            threads: 2,
            cap: None,
            version_check: Duration::from_secs(600),
            counters: Arc::clone(&counters),
        };
        let keeper = Keeper::start(Clock::System, setup).unwrap();
        let handle = keeper.handle().clone();
        let call = ControlCall {
            destination: Destination::of(&ScriptedProvider::new()),
            patience: Duration::from_secs(60),
            deadline: Duration::from_secs(60),
            run: Box::pin(async { Met::Answers }),
            // Never called: dropped by the loop once the call has ended, and the keeper with it.
            abandon: Box::new(move |_| drop(keeper)),
        };
        handle.send(Message::Control(call));
        let patience = Instant::now() + Duration::from_secs(10);
        while Arc::strong_count(&counters) > 1 {
            assert!(Instant::now() < patience, "the keeper's thread waits for itself");
            thread::yield_now();
        }
    }
}
