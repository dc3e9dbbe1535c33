//! Counts the provider calls of a cache, and holds them to its cap.
//!
//! Two paces of the same rate. By the first the event loop starts work, in its order of preference, so that nothing is
//! started which would only wait. By the second each call begins, the moment before it does: what was started together
//! and reached its call apart, or makes several calls, is held to the cap there. Imports: `clock`, `provider`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Counters;
use super::pace::Pace;
use super::report::Progress;
use crate::clock::Clock;
use crate::provider::{Gate, ProviderError};
#[cfg(any(test, feature = "testing"))]
use crate::testing::virtual_time;

/// What a call is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Refresh,
    /// Somebody asked.
    Control,
    /// The watch for newer versions of a KEK.
    VersionCheck,
}

/// Where all calls of one cache are counted.
pub(crate) struct Meter {
    clock: Clock,
    counters: Arc<Counters>,
    /// Absent without a cap.
    paces: Option<Mutex<Paces>>,
    /// What of the pace of work has gone to what somebody asked for.
    taken: AtomicU64,
    closing: Condvar,
}

struct Paces {
    work: Pace,
    calls: Pace,
    closed: bool,
}

impl Meter {
    pub(crate) fn new(clock: Clock, counters: Arc<Counters>, cap: Option<u32>) -> Self {
        let paces =
            cap.map(|cap| Mutex::new(Paces { work: Pace::new(cap), calls: Pace::new(cap), closed: false }));
        Self { clock, counters, paces, taken: AtomicU64::new(0), closing: Condvar::new() }
    }

    pub(crate) const fn has_cap(&self) -> bool {
        self.paces.is_some()
    }

    /// When the next piece of work may start, in nanoseconds of the boot-time clock; the past where it may now.
    pub(crate) fn opens_at(&self) -> u64 {
        self.paces.as_ref().map_or(0, |paces| lock(paces).work.opens_at())
    }

    /// How much of the pace of work has gone to what somebody asked for, in calls: those that were made, and those that were paid for and not made.
    pub(super) fn taken_by_asked(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Work starts `now` whose first call is paid for by this; the others pay as they begin. `progress` is told as soon as one does.
    pub(super) fn start(self: &Arc<Self>, now: u64, cause: Cause, progress: Progress) -> Arc<dyn Gate> {
        if let Some(paces) = &self.paces {
            self.take(&mut lock(paces), now, cause);
        }
        Arc::new(Ticket { meter: Arc::clone(self), cause, is_paid: AtomicBool::new(true), progress })
    }

    /// The same for work at a record store, which is not expected to call a KMS.
    pub(super) fn start_unpaid(self: &Arc<Self>, cause: Cause, progress: Progress) -> Arc<dyn Gate> {
        Arc::new(Ticket { meter: Arc::clone(self), cause, is_paid: AtomicBool::new(false), progress })
    }

    fn take(&self, paces: &mut Paces, now: u64, cause: Cause) {
        paces.work.take(now);
        if cause == Cause::Control {
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whoever waits for its turn is told that there will be none.
    pub(crate) fn close(&self) {
        if let Some(paces) = &self.paces {
            lock(paces).closed = true;
            self.closing.notify_all();
        }
    }

    fn pass(&self, is_paid: bool, cause: Cause) -> Result<(), ProviderError> {
        let Some(paces) = &self.paces else { return Ok(()) };
        let mut paces = lock(paces);
        let now = self.clock.now().boot_nanos();
        if !is_paid {
            // The next piece of work starts so much later.
            self.take(&mut paces, now, cause);
        }
        let at = paces.calls.take(now);
        if at > now { self.wait(paces, at) } else { Ok(()) }
    }

    #[cold]
    fn wait(&self, mut paces: MutexGuard<'_, Paces>, at: u64) -> Result<(), ProviderError> {
        loop {
            if paces.closed {
                return Err(ProviderError::transient("the cache is shut down"));
            }
            let now = self.clock.now().boot_nanos();
            if now >= at {
                return Ok(());
            }
            let left = Duration::from_nanos(at - now);
            #[cfg(any(test, feature = "testing"))]
            if matches!(self.clock, Clock::Manual(_)) {
                // Whoever moves that clock runs this call; its answer comes so much later.
                virtual_time::delay(left);
                return Ok(());
            }
            paces = self.closing.wait_timeout(paces, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The gate of one piece of work.
struct Ticket {
    meter: Arc<Meter>,
    cause: Cause,
    is_paid: AtomicBool,
    progress: Progress,
}

impl Gate for Ticket {
    fn pass(&self) -> Result<(), ProviderError> {
        let is_paid = self.is_paid.swap(false, Ordering::Relaxed);
        self.meter.pass(is_paid, self.cause)?;
        self.progress.asked();
        Counters::add(self.meter.counters.calls_for(self.cause));
        Ok(())
    }
}

impl Counters {
    const fn calls_for(&self, cause: Cause) -> &AtomicU64 {
        match cause {
            Cause::Refresh => &self.refresh_calls,
            Cause::Control => &self.control_calls,
            Cause::VersionCheck => &self.version_check_calls,
        }
    }
}

fn lock(paces: &Mutex<Paces>) -> MutexGuard<'_, Paces> {
    // OK because a pace is whole at each step.
    paces.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn c8_calls_that_bunch_after_their_start_are_held_to_the_cap() {
        let clock = ManualClock::new();
        let counters = Arc::new(Counters::default());
        let meter = Arc::new(Meter::new(Clock::Manual(clock.clone()), Arc::clone(&counters), Some(10)));
        let now = || clock.moment().boot_nanos();
        // Started one by one, as the pace allows, and all held up before their calls.
        let tickets: Vec<_> = (0..10)
            .map(|_| {
                let opens = meter.opens_at().saturating_sub(now());
                clock.advance(Duration::from_nanos(opens));
                meter.start(now(), Cause::Refresh, Progress::default())
            })
            .collect();
        let waits: Vec<_> = tickets
            .iter()
            .map(|ticket| {
                ticket.pass().unwrap();
                virtual_time::take_delay()
            })
            .collect();
        assert_eq!(waits[0], Duration::ZERO);
        assert!(waits.windows(2).all(|pair| pair[1] >= pair[0] + Duration::from_millis(100)), "{waits:?}");
        assert_eq!(counters.refresh_calls.load(Ordering::Relaxed), 10);
        // A second call of the same work is one that nobody paid for: the next work starts later.
        let before = meter.opens_at();
        tickets[0].pass().unwrap();
        assert!(meter.opens_at() > before);
    }

    #[test]
    fn c8_whoever_waits_for_a_turn_ends_with_the_cache() {
        let meter = Arc::new(Meter::new(Clock::System, Arc::default(), Some(1)));
        let gate = meter.start(0, Cause::Control, Progress::default());
        gate.pass().unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| (0..600).try_for_each(|_| gate.pass()));
            meter.close();
            assert!(waits.join().unwrap().is_err());
        });
        // Nor has it asked anybody who never had its turn.
        let progress = Progress::default();
        assert!(meter.start(0, Cause::Refresh, progress.clone()).pass().is_err());
        assert!(!progress.has_asked());
    }
}
