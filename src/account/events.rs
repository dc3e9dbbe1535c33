//! Telling the engine of every transition, so that it can drop what derives from a key (contract D6).
//!
//! The keeper never runs an engine's code: it posts here, and the engine takes from its own thread. Coalesced per
//! account: a slow reader sees the newest transition of each account, and by its epoch that it missed some. Imports: `error`,
//! `id`, `account::{state, usage}`.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::state::Status;
use super::usage::LimitWarning;
use crate::error::Error;
use crate::id::{AccountId, Epoch};

/// An account has changed its state.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Transition {
    /// Which account.
    pub account: AccountId,
    /// Its epoch now. Whatever was derived from plaintext in an earlier epoch is to be dropped.
    pub epoch: Epoch,
    /// Its state now.
    pub status: Status,
    /// What the KMS last answered, where that was not a key: for the operator's log.
    pub cause: Option<Error>,
    /// Newer versions of the KEK exist, and this cache cannot adopt them by itself.
    pub newer_kek_version: bool,
    /// The generation in use nears a limit, or has reached it: [`Account::rotate_aek`](crate::Account::rotate_aek). See
    /// [`Account::generation_use`](crate::Account::generation_use).
    pub limit: Option<LimitWarning>,
}

/// The transitions of a cache since this was made. Each `Events` sees all of them.
///
/// ```
/// # use std::sync::Arc;
/// # use strongroom::provider::{Kek, KeyOptions, LocalKms};
/// # use strongroom::{AccountId, AccountSpec, AekCache, Status};
/// # let folder = tempfile::tempdir()?;
/// # let kms = LocalKms::create(folder.path().join("kms.json"))?;
/// # kms.create_key("orders", KeyOptions::default())?;
/// # let cache = AekCache::builder().build()?;
/// # let account = cache.create(AccountSpec::new(AccountId::random(), Arc::new(kms), Kek::latest("orders")))?;
/// use std::time::Duration;
///
/// let events = cache.events();
/// account.lock();
/// let seen = events.next_timeout(Duration::from_secs(10)).expect("a transition was posted");
/// assert_eq!((seen.account, seen.status), (account.id(), Status::Locked));
/// // Now drop what was derived from plaintext of this account before `seen.epoch`.
/// assert_eq!(seen.epoch, account.epoch());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Events {
    queue: Arc<Queue>,
}

impl Events {
    /// The next transition, if one is waiting.
    #[must_use]
    pub fn try_next(&self) -> Option<Transition> {
        self.queue.lock().pop()
    }

    /// Blocks until there is a transition, at most `timeout`. `None` when the time has passed or the cache is gone.
    #[must_use]
    pub fn next_timeout(&self, timeout: Duration) -> Option<Transition> {
        let waiting = |queue: &mut Waiting| queue.order.is_empty() && !queue.closed;
        let (mut queue, _) = self
            .queue
            .posted
            .wait_timeout_while(self.queue.lock(), timeout, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        queue.pop()
    }

    /// Whether the cache has been shut down and nothing more will come.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let queue = self.queue.lock();
        queue.closed && queue.order.is_empty()
    }
}

/// Blocks for each transition; ends when the cache has been shut down.
impl Iterator for Events {
    type Item = Transition;

    fn next(&mut self) -> Option<Transition> {
        let waiting = |queue: &mut Waiting| queue.order.is_empty() && !queue.closed;
        let mut queue =
            self.queue.posted.wait_while(self.queue.lock(), waiting).unwrap_or_else(PoisonError::into_inner);
        queue.pop()
    }
}

/// Where a cache posts.
#[derive(Debug, Default)]
pub(crate) struct Bus {
    readers: Mutex<Readers>,
}

#[derive(Debug, Default)]
struct Readers {
    queues: Vec<Weak<Queue>>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    posted: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    order: VecDeque<AccountId>,
    latest: HashMap<AccountId, Transition>,
    closed: bool,
}

impl Bus {
    pub(crate) fn subscribe(&self) -> Events {
        let queue = Arc::new(Queue::default());
        let mut readers = self.lock();
        queue.lock().closed = readers.closed;
        readers.queues.push(Arc::downgrade(&queue));
        Events { queue }
    }

    pub(crate) fn post(&self, transition: &Transition) {
        self.each(|queue| {
            let mut waiting = queue.lock();
            if waiting.latest.insert(transition.account, transition.clone()).is_none() {
                waiting.order.push_back(transition.account);
            }
        });
    }

    /// Nothing more will come: no reader, present or future, waits for it.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.each(|queue| queue.lock().closed = true);
    }

    fn each(&self, act: impl Fn(&Queue)) {
        self.lock().queues.retain(|queue| {
            let Some(queue) = queue.upgrade() else { return false };
            act(&queue);
            queue.posted.notify_all();
            true
        });
    }

    fn lock(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Bus {
    /// The cache and all its accounts are gone, without a shutdown.
    fn drop(&mut self) {
        self.close();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn pop(&mut self) -> Option<Transition> {
        let account = self.order.pop_front()?;
        self.latest.remove(&account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transition(account: u8, epoch: Epoch) -> Transition {
        Transition {
            account: AccountId::from_bytes([account; 16]),
            epoch,
            status: Status::NotReady,
            cause: None,
            newer_kek_version: false,
            limit: None,
        }
    }

    #[test]
    fn d6_transitions_are_coalesced_per_account_and_carry_the_newest_epoch() {
        let bus = Bus::default();
        let events = bus.subscribe();
        let (first, second) = (Epoch::FIRST, Epoch::FIRST.next());
        bus.post(&transition(1, first));
        bus.post(&transition(2, first));
        bus.post(&transition(1, second));
        let seen: Vec<_> = std::iter::from_fn(|| events.try_next()).map(|t| (t.account, t.epoch)).collect();
        let id = |byte| AccountId::from_bytes([byte; 16]);
        assert_eq!(seen, [(id(1), second), (id(2), first)]);
    }

    #[test]
    fn a_closed_bus_ends_its_readers() {
        let bus = Bus::default();
        let mut events = bus.subscribe();
        bus.post(&transition(1, Epoch::FIRST));
        bus.close();
        assert!(events.next().is_some() && events.next().is_none() && events.is_closed());
    }

    #[test]
    fn a_reader_of_a_bus_that_is_gone_does_not_wait() {
        let bus = Bus::default();
        let before = bus.subscribe();
        bus.close();
        assert!(bus.subscribe().is_closed(), "subscribed after the end");
        drop(bus);
        assert!(before.is_closed());
        let bus = Bus::default();
        let events = bus.subscribe();
        drop(bus);
        assert!(events.is_closed(), "the cache was dropped without a shutdown");
    }
}
