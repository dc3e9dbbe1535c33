//! How many accounts a cap on calls can serve, and seats for each of them (contract C8).
//!
//! A cap that is too low for the accounts attached would starve the least used until their leases end. So the account
//! too many is refused, with the arithmetic. Imports: `keeper` (for its pace), `lease`, `error`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::keeper::Pace;
use crate::lease::Policy;

/// The seats of one cache.
#[derive(Debug)]
pub(crate) struct Seats {
    taken: AtomicU64,
    /// Absent without a cap.
    bound: Option<Bound>,
}

#[derive(Clone, Copy, Debug)]
struct Bound {
    most: u64,
    cap: u32,
    shortest: Duration,
    version_check: Duration,
}

/// One account's: a seat for each call that a refresh of it makes. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    calls: u64,
}

impl Seats {
    pub(crate) fn new(cap: Option<u32>, policy: &Policy, version_check: Duration) -> Self {
        let bound = cap.map(|cap| {
            let shortest = policy.shortest_interval();
            // Each account makes a call in the shortest interval, and one for each look at its KEK's versions.
            let (a, b) = (shortest.as_millis(), version_check.as_millis());
            let both = Duration::from_millis(u64::try_from(a * b / (a + b).max(1)).unwrap_or(u64::MAX));
            let most = Pace::new(cap).lasting(u64::try_from(both.as_nanos()).unwrap_or(u64::MAX));
            Bound { most, cap, shortest, version_check }
        });
        Self { taken: AtomicU64::new(0), bound }
    }

    /// How many accounts under one KEK each can be attached at once; `None` without a cap.
    pub(crate) fn most(&self) -> Option<u64> {
        self.bound.map(|bound| bound.most)
    }

    /// How many of them are taken: without a cap too.
    #[cfg(feature = "metrics")]
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// The cap on calls per second; `None` without one.
    #[cfg(feature = "metrics")]
    pub(crate) fn cap(&self) -> Option<u32> {
        self.bound.map(|bound| bound.cap)
    }

    /// For an account of which each refresh makes so many calls.
    ///
    /// # Errors
    /// `Limit` when the cap cannot serve one more.
    pub(crate) fn take(self: &Arc<Self>, calls: u64) -> Result<Seat, Error> {
        let taken = self.taken.fetch_add(calls, Ordering::Relaxed);
        let seat = Seat { seats: Arc::clone(self), calls };
        match self.bound {
            Some(bound) if taken.saturating_add(calls) > bound.most => Err(Error::new(
                ErrorKind::Limit,
                "the cap on KMS calls cannot serve one more account: raise `kms_calls_per_second`, refresh less often, or drop idle accounts",
            )
            .with_source(bound)),
            _ => Ok(seat),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken.fetch_sub(self.calls, Ordering::Relaxed);
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { most, cap, shortest, version_check } = self;
        write!(
            f,
            "{cap} calls a second, of which nine tenths can be kept up, serve {most} accounts with a refresh every {shortest:?} \
             at the most and a look at the KEK's versions every {version_check:?}; an account under two KEKs counts twice"
        )
    }
}

impl std::error::Error for Bound {}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn c8_the_accounts_that_a_cap_serves_follow_from_their_calls() {
        // (cap, r, served): 0.9 * cap / (1 / shortest interval + 1 / 600 s), less what rounding takes.
        for (cap, refresh, served) in [(100, 30, 2351), (1000, 30, 23_280), (1000, 6, 5_350), (10, 60, 495)] {
            let policy = Policy::new(secs(refresh), secs(2), secs(60));
            let most = Seats::new(Some(cap), &policy, secs(600)).most().unwrap();
            assert!(most.abs_diff(served) * 100 <= served, "{cap} {refresh}: {most}");
        }
    }

    #[test]
    fn c8_one_account_too_many_is_an_error_with_the_arithmetic_and_a_seat_comes_back() {
        let policy = Policy::new(secs(6), secs(2), secs(60));
        let seats = Arc::new(Seats::new(Some(1), &policy, secs(600)));
        let mut taken: Vec<_> = (0..seats.most().unwrap()).map(|_| seats.take(1).unwrap()).collect();
        assert_eq!(taken.len(), 5);
        let error = seats.take(1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("serve 5 accounts"), "{source}");
        taken.pop();
        assert_eq!(seats.take(2).unwrap_err().kind(), ErrorKind::Limit, "two calls do not fit");
        drop(seats.take(1).unwrap());
        taken.pop();
        let both = seats.take(2).unwrap();
        assert_eq!(seats.take(1).unwrap_err().kind(), ErrorKind::Limit);
        drop(both);
        drop(seats.take(1).unwrap());
        let free = Arc::new(Seats::new(None, &policy, secs(600)));
        assert!((0..10_000).all(|_| free.take(2).is_ok()));
    }
}
