//! The one door through which time enters.
//!
//! A [`Moment`] is read on two clocks at once: the boot-time clock, which counts during
//! suspend and never goes back, and the wall clock, which sees what a paused virtual
//! machine slept through. What expires does so when *either* clock says so; neither can make anything last
//! longer (contract C7). On Linux `std::time::Instant` stops during suspend, hence
//! `CLOCK_BOOTTIME`. Both reads are answered in user space (vDSO), without a system call. Imports: nothing of ours.

use std::num::NonZeroU64;
use std::time::Duration;

#[cfg(any(test, feature = "testing"))]
use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering},
};

/// A point in time on both clocks, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Moment {
    boot: Boot,
    wall: u64,
}

/// Nanoseconds since boot, and one more: where no number is zero, an `Option<Moment>` is no larger than a moment, and each account of a
/// fleet keeps a dozen of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Boot(NonZeroU64);

impl Boot {
    #[inline]
    const fn from_nanos(nanos: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }

    #[inline]
    const fn nanos(self) -> u64 {
        self.0.get() - 1
    }
}

impl Moment {
    pub(crate) const fn from_nanos(boot: u64, wall: u64) -> Self {
        Self { boot: Boot::from_nanos(boot), wall }
    }

    /// Nanoseconds since boot, suspended time included.
    pub(crate) const fn boot_nanos(self) -> u64 {
        self.boot.nanos()
    }

    /// The wall clock as nanoseconds since the Unix epoch.
    pub(crate) const fn wall_nanos(self) -> u64 {
        self.wall
    }

    pub(crate) fn plus(self, by: Duration) -> Self {
        let nanos = nanos(by);
        Self { boot: Boot(self.boot.0.saturating_add(nanos)), wall: self.wall.saturating_add(nanos) }
    }

    /// Whether either clock stands at or past `deadline`.
    #[inline]
    pub(crate) const fn reached(self, deadline: Self) -> bool {
        self.boot.0.get() >= deadline.boot.0.get() || self.wall >= deadline.wall
    }

    /// `max(boot-time delta, forward wall-clock delta)`: how old what happened at `start` is now.
    pub(crate) fn age_since(self, start: Self) -> Duration {
        let boot = self.boot.nanos().saturating_sub(start.boot.nanos());
        let wall = self.wall.saturating_sub(start.wall);
        Duration::from_nanos(boot.max(wall))
    }

    /// How long until `deadline`, by whichever clock is nearer to it.
    pub(crate) fn until(self, deadline: Self) -> Duration {
        let boot = deadline.boot.nanos().saturating_sub(self.boot.nanos());
        let wall = deadline.wall.saturating_sub(self.wall);
        Duration::from_nanos(boot.min(wall))
    }

    /// The earlier of two deadlines, on each clock.
    pub(crate) fn earlier(self, other: Self) -> Self {
        Self { boot: self.boot.min(other.boot), wall: self.wall.min(other.wall) }
    }
}

/// Where moments come from: the machine's clocks, or a test's.
#[derive(Clone, Debug, Default)]
pub(crate) enum Clock {
    #[default]
    System,
    #[cfg(any(test, feature = "testing"))]
    Manual(ManualClock),
    #[cfg(any(test, feature = "testing"))]
    Stepped(SteppedWall),
}

impl Clock {
    /// Reads both clocks. The wall clock is the kernel's coarse one (a few milliseconds), which costs
    /// a quarter of the precise one.
    #[inline]
    pub(crate) fn now(&self) -> Moment {
        match self {
            Self::System => system_now(),
            #[cfg(any(test, feature = "testing"))]
            Self::Manual(clock) => clock.moment(),
            #[cfg(any(test, feature = "testing"))]
            Self::Stepped(wall) => wall.moment(),
        }
    }
}

#[cfg(target_os = "linux")]
#[inline]
#[expect(clippy::disallowed_methods, reason = "this is the door")]
fn system_now() -> Moment {
    use rustix::time::{ClockId, clock_gettime};
    let boot = clock_gettime(ClockId::Boottime);
    let wall = clock_gettime(ClockId::RealtimeCoarse);
    Moment::from_nanos(timespec_nanos(boot.tv_sec, boot.tv_nsec), timespec_nanos(wall.tv_sec, wall.tv_nsec))
}

#[cfg(target_os = "linux")]
#[inline]
fn timespec_nanos(seconds: i64, nanos: i64) -> u64 {
    // A clock before its epoch reads as zero. A wall clock that does so expires nothing; the boot-time clock
    // never does, and binds all the same.
    let seconds = u64::try_from(seconds).unwrap_or(0);
    let nanos = u64::try_from(nanos).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// Elsewhere `Instant` may stop during suspend; the wall clock then catches what it slept through.
#[cfg(not(target_os = "linux"))]
#[expect(clippy::disallowed_methods, reason = "this is the door")]
fn system_now() -> Moment {
    use std::sync::LazyLock;
    use std::time::{Instant, SystemTime, UNIX_EPOCH};
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment::from_nanos(nanos(START.elapsed()).saturating_add(1), nanos(wall))
}

/// A clock that moves only when a test moves it.
///
/// Clones share the same time.
#[cfg(any(test, feature = "testing"))]
#[derive(Clone, Debug)]
pub struct ManualClock {
    boot: Arc<AtomicU64>,
    wall: Arc<AtomicU64>,
}

#[cfg(any(test, feature = "testing"))]
impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(any(test, feature = "testing"))]
impl ManualClock {
    /// A clock that stands an hour after boot, in the year 2026.
    #[must_use]
    pub fn new() -> Self {
        Self {
            boot: Arc::new(AtomicU64::new(3_600 * 1_000_000_000)),
            wall: Arc::new(AtomicU64::new(1_790_000_000 * 1_000_000_000)),
        }
    }

    /// The boot-time clock as it stands.
    #[must_use]
    pub fn since_boot(&self) -> Duration {
        Duration::from_nanos(self.moment().boot_nanos())
    }

    /// Lets `by` pass on both clocks.
    pub fn advance(&self, by: Duration) {
        self.boot.fetch_add(nanos(by), Ordering::SeqCst);
        self.jump_wall_forward(by);
    }

    /// Sets the wall clock forward; no time passes.
    pub fn jump_wall_forward(&self, by: Duration) {
        self.wall.fetch_add(nanos(by), Ordering::SeqCst);
    }

    /// Sets the wall clock back; no time passes.
    pub fn jump_wall_back(&self, by: Duration) {
        self.wall.fetch_sub(nanos(by), Ordering::SeqCst);
    }

    pub(crate) fn moment(&self) -> Moment {
        Moment::from_nanos(self.boot.load(Ordering::SeqCst), self.wall.load(Ordering::SeqCst))
    }
}

/// The machine's own clocks, but for the wall clock, which a test steps while real threads run on it.
///
/// No namespace holds the wall clock, and stepping the machine's would step everybody's. Clones share their steps.
#[cfg(any(test, feature = "testing"))]
#[derive(Clone, Debug, Default)]
pub struct SteppedWall {
    ahead: Arc<AtomicI64>,
}

#[cfg(any(test, feature = "testing"))]
impl SteppedWall {
    /// A wall clock that tells the machine's time, until it is stepped.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Steps the wall clock by so many nanoseconds, back when they are negative.
    pub fn step(&self, nanos: i64) {
        self.ahead.fetch_add(nanos, Ordering::SeqCst);
    }

    fn moment(&self) -> Moment {
        let Moment { boot, wall } = system_now();
        Moment { boot, wall: wall.saturating_add_signed(self.ahead.load(Ordering::SeqCst)) }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn c7_either_clock_expires_and_neither_extends() {
        let clock = ManualClock::new();
        let start = clock.moment();
        let deadline = start.plus(10 * SECOND);
        clock.jump_wall_back(100 * SECOND);
        clock.advance(9 * SECOND);
        assert!(!clock.moment().reached(deadline));
        clock.advance(SECOND);
        assert!(clock.moment().reached(deadline), "a wall clock set back does not extend");

        let clock = ManualClock::new();
        let start = clock.moment();
        clock.jump_wall_forward(10 * SECOND);
        assert!(clock.moment().reached(start.plus(10 * SECOND)));
        assert_eq!(clock.moment().age_since(start), 10 * SECOND);
    }

    #[test]
    fn a_stepped_wall_moves_the_wall_clock_alone() {
        let wall = SteppedWall::new();
        let clock = Clock::Stepped(wall.clone());
        let start = clock.now();
        wall.step(3_600_000_000_000);
        let ahead = clock.now();
        assert!(ahead.age_since(start) >= 3_600 * SECOND);
        assert!(ahead.boot_nanos() - start.boot_nanos() < 3_600_000_000_000);
        wall.step(-7_200_000_000_000);
        assert!(clock.now().wall_nanos() < start.wall_nanos());
    }

    #[test]
    fn the_system_clock_moves_forward() {
        let clock = Clock::System;
        let first = clock.now();
        let second = clock.now();
        assert!(second.boot_nanos() >= first.boot_nanos() && first.boot_nanos() > 0);
        assert!(first.wall_nanos() > 1_700_000_000 * 1_000_000_000);
    }
}
