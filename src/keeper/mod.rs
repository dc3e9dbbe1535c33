//! The control plane's engine room: one event loop per cache that decides when which KMS call runs.
//!
//! ```text
//! account, cache ── Message ──► event_loop ── Work ──► executor ── provider calls
//!                                   ▲  bulkheads, timers                │
//!                                   └───────────── Message ─────────────┘
//! ```
//! Imports: `clock`, `lease`, `provider`, `error`, `id`, `account`.

mod authority;
mod debt;
mod event_loop;
mod executor;
#[cfg(any(test, feature = "testing"))]
mod inline;
mod lane;
mod lanes;
mod members;
mod meter;
mod pace;
mod pending;
mod report;
mod service;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::account::{AccountInner, AccountKey, Refreshed};
use crate::clock::Moment;
use crate::error::{Error, Refusal};

pub(crate) use authority::Destination;
pub(crate) use pace::Pace;
pub(crate) use pending::Completer;
pub use pending::Pending;
pub(crate) use report::Report;
pub(crate) use service::{Keeper, KeeperHandle, Setup};

/// A future that answers with a panic of `F` instead of passing it on.
pub(crate) struct CatchPanic<F: ?Sized>(pub(crate) Pin<Box<F>>);

impl<F: Future + ?Sized> Future for CatchPanic<F> {
    type Output = std::thread::Result<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}

/// What the event loop is told.
pub(crate) enum Message {
    Attach(Arc<AccountInner>),
    Detach(AccountKey),
    /// The account's machine was fed from outside: look at its timers.
    Poke(AccountKey),
    Control(ControlCall),
    /// The same, of which nobody has asked for the result: a look for newer versions of a KEK.
    VersionCheck(ControlCall),
    Chore(Chore),
    /// A refresh was refused; the newest record is being compared (contract D12).
    RefusedPending(CallId, Refusal),
    Refreshed(CallId, Box<Refreshed>),
    ControlDone(CallId, Met),
    /// A call waits for its answer, and its worker is free for another.
    Parked,
    /// A call that was given up has been dropped: it will not answer any more.
    Dropped(CallId),
    Shutdown,
}

/// What a person asked for: a piece of work made of several provider calls.
pub(crate) struct ControlCall {
    pub(crate) destination: Destination,
    /// How long it may wait to be started.
    pub(crate) patience: Duration,
    /// How long all of its calls together may take once it is.
    pub(crate) deadline: Duration,
    pub(crate) run: Pin<Box<dyn Future<Output = Met> + Send>>,
    /// Answers the waiter when the work could not be run, or not in time.
    pub(crate) abandon: Abandon,
}

/// Done by the event loop whenever it looks at what is due, at least once a second, for as long as it answers true.
/// It must not block.
pub(crate) type Chore = Box<dyn FnMut(Moment) -> bool + Send>;

/// Ends a waiter's wait with an error.
pub(crate) type Abandon = Box<dyn FnOnce(Error) + Send>;

/// What a control call met at its authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    Answers,
    Silence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CallId(u64);

/// What has happened in a cache so far. Relaxed counters: they order nothing.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) refreshes: AtomicU64,
    pub(crate) verified: AtomicU64,
    pub(crate) transient: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) integrity: AtomicU64,
    /// Calls that passed their deadline.
    pub(crate) late: AtomicU64,
    /// Workers that hang in such a call right now.
    pub(crate) hanging: AtomicU64,
    /// Silent authorities whose probe is due and waits for a worker right now.
    pub(crate) probes_waiting: AtomicU64,
    /// Calls to providers begun, by what they are for: what a KMS bills.
    pub(crate) refresh_calls: AtomicU64,
    pub(crate) control_calls: AtomicU64,
    pub(crate) version_check_calls: AtomicU64,
    /// Pieces of work that could not start at once because of the cap on calls.
    pub(crate) deferred: AtomicU64,
    /// Accounts that a directory has dropped because nobody used them.
    pub(crate) idle_dropped: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
