//! The table of docs/DESIGN.md cell by cell, the invariants under random events, and every short history.
//!
//! [`World`] is a keeper and a data plane in one: it carries events to a machine, keeps what was published,
//! and shows each step to a [`Watch`], which knows the contract and nothing of the machine's inside.

mod arena;
mod explore;
mod explore_second;
mod explore_shares;
mod forged;
mod invariants;
mod outages;
mod pace;
mod schedule;
mod second;
mod shares;
mod table;
mod time_and_news;
mod watch;

use super::*;
use watch::{Breach, Step, Watch};

const SECOND: Duration = Duration::from_secs(1);
/// r = 30 s, c = 2 s, G = 30 min: the defaults. J = 33 s, F = 41 s.
const DEFAULT: Policy =
    Policy::new(Duration::from_secs(30), Duration::from_secs(2), Duration::from_secs(1800));

/// A call answers this long after it began, where a test does not say.
const LATENCY: Duration = Duration::from_millis(50);

/// What a reader of the account would be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Fresh,
    Grace,
    /// Keys past their deadline: refused like `NotReady`, not yet wiped.
    Lapsed,
    Closed(Closed),
}

/// One machine, its clock, its data plane.
#[derive(Clone, Debug)]
struct World {
    lease: Lease,
    watch: Watch,
    now: Moment,
    flight: Option<AttemptId>,
    /// The last attempt that ended or was forgotten, for answers that come too late.
    stale: Option<AttemptId>,
}

impl World {
    fn new(policy: Policy, seed: u64) -> Self {
        let now = crate::clock::ManualClock::new().moment();
        Self {
            lease: Lease::new(policy, now, seed),
            watch: Watch::new(policy, now),
            now,
            flight: None,
            stale: None,
        }
    }

    fn cold() -> Self {
        Self::new(DEFAULT, 1)
    }

    fn fresh() -> Self {
        Self::fresh_with(DEFAULT, 1)
    }

    fn fresh_with(policy: Policy, seed: u64) -> Self {
        let mut world = Self::new(policy, seed);
        world.attempt(World::verified);
        assert_eq!(world.seen(), Seen::Fresh);
        world
    }

    fn grace() -> Self {
        let mut world = Self::fresh();
        while world.seen() != Seen::Grace {
            world.attempt(|_| Answer::Transient);
        }
        world
    }

    fn unavailable() -> Self {
        let mut world = Self::fresh();
        while world.seen() != Seen::Closed(Closed::Silent) {
            world.attempt(|_| Answer::Transient);
        }
        world
    }

    fn revoked() -> Self {
        let mut world = Self::fresh();
        world.attempt(|_| Answer::Refused(Refusal::KeyDisabled));
        assert_eq!(world.seen(), Seen::Closed(Closed::Revoked(Refusal::KeyDisabled)));
        world
    }

    fn locked() -> Self {
        let mut world = Self::fresh();
        world.on(Event::Lock);
        world
    }

    fn deleted() -> Self {
        let mut world = Self::fresh();
        world.on(Event::Delete);
        world
    }

    /// What the data plane would say now.
    fn seen(&self) -> Seen {
        self.watch.seen(self.now)
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
    }

    /// Both clocks run on to `at`, by whichever is nearer.
    fn pass_to(&mut self, at: Moment) {
        self.pass(self.now.until(at));
    }

    fn on(&mut self, event: Event) -> Effects {
        self.try_on(event).unwrap_or_else(|breach| panic!("{event:?}: {breach:?}\n{self:#?}"))
    }

    fn try_on(&mut self, event: Event) -> Result<Effects, Breach> {
        let effects = self.lease.on(self.now, event);
        self.watch.see(self.now, Step::Took(event, effects))?;
        if let Some(id) = self.flight.filter(|id| !self.lease.is_current(*id)) {
            self.stale = Some(id);
            self.flight = None;
        }
        self.check_progress()?;
        Ok(effects)
    }

    fn ask(&mut self) -> Result<bool, Breach> {
        let granted = self.lease.ask(self.now);
        if granted {
            self.watch.see(self.now, Step::Asked)?;
        }
        Ok(granted)
    }

    fn begin(&mut self) -> AttemptId {
        self.try_begin().unwrap_or_else(|breach| panic!("{breach:?}\n{self:#?}"))
    }

    fn try_begin(&mut self) -> Result<AttemptId, Breach> {
        let id = self.lease.begin(self.now);
        self.watch.see(self.now, Step::Began(id))?;
        self.flight = Some(id);
        Ok(id)
    }

    fn answer(&mut self, answer: Answer) -> Effects {
        let id = self.flight.expect("an attempt is under way");
        self.on(Event::Answered(id, answer))
    }

    /// A success of a call that started `LATENCY` ago.
    fn verified(&mut self) -> Answer {
        let ago = u64::try_from(LATENCY.as_nanos()).expect("short");
        let started = Moment::from_nanos(self.now.boot_nanos() - ago, self.now.wall_nanos() - ago);
        Answer::Verified { started, max_grace: None }
    }

    /// Wakes the machine as often as it wants until it wants an attempt.
    fn wake_until_wanted(&mut self) {
        for _ in 0..1000 {
            if self.lease.wants_attempt(self.now) {
                return;
            }
            let at = self.lease.wake_at().expect("it asks again by itself");
            self.pass_to(at);
            self.on(Event::Wake);
        }
        panic!("no attempt after a thousand wakes: {self:#?}");
    }

    /// Runs the machine's next attempt, answered after [`LATENCY`].
    fn attempt(&mut self, answer: impl FnOnce(&mut Self) -> Answer) -> Effects {
        self.wake_until_wanted();
        self.begin();
        self.pass(LATENCY);
        let answer = answer(self);
        self.answer(answer)
    }

    /// No busy loop, no dead end.
    fn check_progress(&self) -> Result<(), Breach> {
        if self.watch.epoch() != self.lease.epoch() {
            return Err(Breach::EpochUnpublished);
        }
        let wake = self.lease.wake_at();
        if wake.is_some_and(|at| self.now.reached(at)) && !self.lease.wants_attempt(self.now) {
            return Err(Breach::BusyLoop);
        }
        // Probing every r, with jitter, is the slowest that anything gets.
        let soon = self.now.plus(MAX_REFRESH);
        if self.flight.is_none() && self.watch.should_ask() && !wake.is_some_and(|at| soon.reached(at)) {
            return Err(Breach::NeverAsksAgain);
        }
        Ok(())
    }
}
