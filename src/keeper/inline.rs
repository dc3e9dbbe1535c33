//! Work on virtual time: it runs at once on the thread that drives, and its result arrives when the scripted
//! latency has passed on the test's clock. Imports: `clock`, `provider`, `testing`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::mpsc::Sender;

use super::Message;
use super::executor::Work;
use crate::clock::{ManualClock, Moment};
use crate::provider::block_on;
use crate::testing::virtual_time::{self, Latency};

/// An executor without threads.
pub(crate) struct Inline {
    clock: ManualClock,
    results: Sender<Message>,
    /// Results on their way, by arrival and order of starting.
    late: BTreeMap<(u64, u64), Message>,
    /// Results of calls that hang: they hold a worker, and never arrive.
    hanging: Vec<Message>,
    started: u64,
    most: usize,
}

impl Inline {
    pub(crate) const fn new(clock: ManualClock, results: Sender<Message>, most: usize) -> Self {
        Self { clock, results, late: BTreeMap::new(), hanging: Vec::new(), started: 0, most }
    }

    pub(crate) const fn most(&self) -> usize {
        self.most
    }

    pub(crate) fn free(&self) -> usize {
        self.most.saturating_sub(self.late.len() + self.hanging.len())
    }

    pub(crate) fn run(&mut self, work: Work) {
        let begun = self.clock.moment();
        // What an earlier caller left must not delay this call.
        let _ = (virtual_time::take(), virtual_time::take_delay());
        let message = block_on(work);
        let delay = virtual_time::take_delay();
        match virtual_time::take() {
            None if delay.is_zero() => drop(self.results.send(message)),
            None => self.arrives(begun.plus(delay), message),
            Some(Latency::For(latency)) => self.arrives(begun.plus(delay + latency), message),
            Some(Latency::Forever) => self.hanging.push(message),
        }
    }

    fn arrives(&mut self, at: Moment, message: Message) {
        self.started += 1;
        self.late.insert((at.boot_nanos(), self.started), message);
    }

    /// Sends what has arrived by `now`.
    pub(crate) fn deliver(&mut self, now: Moment) {
        while let Some(entry) = self.late.first_entry() {
            if entry.key().0 > now.boot_nanos() {
                break;
            }
            drop(self.results.send(entry.remove()));
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
            .field("hanging", &self.hanging.len())
            .finish()
    }
}
