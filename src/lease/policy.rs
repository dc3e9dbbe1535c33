//! The times that a lease obeys, all derived from r, c and G. Imports: nothing of ours.

use std::time::Duration;

/// The times that a lease obeys. Built by the cache's builder, which checks r and c.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    refresh: Nanos,
    call_deadline: Nanos,
    grace: Nanos,
}

/// Half as large as a [`Duration`], of which each account of a fleet would keep four. What does not fit, beyond 584 years, is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Nanos(u64);

impl Nanos {
    const fn of(duration: Duration) -> Self {
        let seconds = duration.as_secs().saturating_mul(1_000_000_000);
        Self(seconds.saturating_add(duration.subsec_nanos() as u64))
    }

    const fn duration(self) -> Duration {
        if self.0 == u64::MAX { Duration::MAX } else { Duration::from_nanos(self.0) }
    }
}

impl Policy {
    pub(crate) const fn new(refresh: Duration, call_deadline: Duration, grace: Duration) -> Self {
        let (refresh, call_deadline) = (Nanos::of(refresh), Nanos::of(call_deadline));
        Self { refresh, call_deadline, grace: Nanos::of(grace) }
    }

    /// The same, with no more grace than the customer's record allows.
    pub(crate) fn shortened(self, max_grace: Option<Duration>) -> Self {
        Self { grace: max_grace.map_or(self.grace, |max| Nanos::of(max).min(self.grace)), ..self }
    }

    /// The grace, to be kept where there is not room for all the times twice.
    pub(super) const fn kept_grace(&self) -> Nanos {
        self.grace
    }

    pub(super) const fn with_grace(self, grace: Nanos) -> Self {
        Self { grace, ..self }
    }

    pub(crate) const fn refresh(&self) -> Duration {
        self.refresh.duration()
    }

    pub(crate) const fn call_deadline(&self) -> Duration {
        self.call_deadline.duration()
    }

    /// G: how long a lease may outlive F while the KMS is silent.
    #[cfg(any(test, fuzzing))]
    pub(crate) const fn grace(&self) -> Duration {
        self.grace.duration()
    }

    /// J: the longest time between the starts of two background unwraps while the KMS answers.
    pub(crate) fn longest_interval(&self) -> Duration {
        (self.refresh() + self.refresh() / 10).min(MAX_REFRESH)
    }

    /// The shortest time between them that is planned.
    pub(crate) fn shortest_interval(&self) -> Duration {
        (self.refresh() - self.refresh() / 10).max(MIN_SPACING)
    }

    /// F: how long after the start of a verified unwrap its lease is fresh.
    pub(crate) fn fresh_for(&self) -> Duration {
        self.longest_interval() + MIN_SPACING + self.call_deadline()
    }

    /// F + G: when the key is wiped whatever happens.
    pub(crate) fn usable_for(&self) -> Duration {
        self.fresh_for().saturating_add(self.grace.duration())
    }
}

/// C1: background unwraps of an account start at least this far apart.
pub(crate) const MIN_SPACING: Duration = Duration::from_secs(6);
/// C1: and, while the KMS answers, at most this far.
pub(crate) const MAX_REFRESH: Duration = Duration::from_secs(60);
