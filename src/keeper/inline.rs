//! Work on virtual time: it runs at once on the thread that drives, and its result arrives when the scripted
//! latency has passed on the test's clock. Imports: `clock`, `provider`, `testing`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::mpsc::Sender;

use super::executor::Job;
use super::{CallId, Message};
use crate::clock::{ManualClock, Moment};
use crate::provider::block_on;
use crate::testing::virtual_time::{self, Latency};

/// An executor without threads, which counts those that its work would hold.
pub(crate) struct Inline {
    clock: ManualClock,
    results: Sender<Message>,
    /// Results on their way, by arrival and order of starting.
    late: BTreeMap<Arrival, (CallId, Message)>,
    /// Workers that calls hold which are not answered yet. One that hangs holds its own for ever.
    held: usize,
    /// Calls of asynchronous providers that are not answered yet, which hold none; those that hang have no arrival.
    parked: HashMap<CallId, Option<Arrival>>,
    started: u64,
    most: usize,
}

/// Nanoseconds of the boot-time clock, and the order of starting.
type Arrival = (u64, u64);

impl Inline {
    pub(crate) fn new(clock: ManualClock, results: Sender<Message>, most: usize) -> Self {
        Self { clock, results, late: BTreeMap::new(), held: 0, parked: HashMap::new(), started: 0, most }
    }

    pub(crate) const fn most(&self) -> usize {
        self.most
    }

    pub(crate) fn free(&self) -> usize {
        self.most.saturating_sub(self.held)
    }

    pub(crate) fn run(&mut self, job: Job) {
        let Job { id, held: _, holds_thread, work } = job;
        let begun = self.clock.moment();
        // What an earlier caller left must not delay this call.
        let _ = (virtual_time::take(), virtual_time::take_delay());
        let message = block_on(work);
        let delay = virtual_time::take_delay();
        let latency = match virtual_time::take() {
            None if delay.is_zero() => return drop(self.results.send(message)),
            None => Latency::For(delay),
            Some(Latency::For(latency)) => Latency::For(delay + latency),
            Some(Latency::Forever) => Latency::Forever,
        };
        let arrival = match latency {
            Latency::For(latency) => {
                self.started += 1;
                let arrival = (begun.plus(latency).boot_nanos(), self.started);
                self.late.insert(arrival, (id, message));
                Some(arrival)
            }
            Latency::Forever => None,
        };
        if holds_thread {
            self.held += 1;
        } else {
            self.parked.insert(id, arrival);
        }
    }

    /// Drops the call of `id` if it is parked, and says so.
    pub(crate) fn cancel(&mut self, id: CallId) {
        let Some(arrival) = self.parked.remove(&id) else { return };
        if let Some(arrival) = arrival {
            self.late.remove(&arrival);
        }
        drop(self.results.send(Message::Dropped(id)));
    }

    /// Sends what has arrived by `now`.
    pub(crate) fn deliver(&mut self, now: Moment) {
        while let Some(entry) = self.late.first_entry() {
            if entry.key().0 > now.boot_nanos() {
                break;
            }
            let (id, message) = entry.remove();
            if self.parked.remove(&id).is_none() {
                self.held -= 1;
            }
            drop(self.results.send(message));
        }
    }

    /// When the next result arrives, on the boot-time clock.
    pub(crate) fn next_arrival(&self) -> Option<u64> {
        self.late.first_key_value().map(|((at, _), _)| *at)
    }
}

impl fmt::Debug for Inline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inline")
            .field("late", &self.late.len())
            .field("held", &self.held)
            .field("parked", &self.parked.len())
            .finish()
    }
}
