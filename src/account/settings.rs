//! What a cache is set to, as each of its accounts sees it. Imports: `lease`, `engine`, `secret`, `format`, `error`.

use std::time::Duration;

use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::format::policy::RecordPolicy;
use crate::lease::{MAX_REFRESH, MIN_SPACING, Policy};
use crate::secret::MemoryLock;

/// Within which bounds accounts are refreshed (contract C1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshWindow {
    shortest: Duration,
    longest: Duration,
}

impl RefreshWindow {
    /// The whole window: 6 s to 60 s.
    pub const FULL: Self = Self { shortest: MIN_SPACING, longest: MAX_REFRESH };

    /// A window from `shortest` to `longest`.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] when it reaches beyond 6 s to 60 s, or ends before it begins.
    pub fn new(shortest: Duration, longest: Duration) -> Result<Self, Error> {
        if shortest < MIN_SPACING || longest > MAX_REFRESH || shortest > longest {
            return Err(Error::new(
                ErrorKind::Misuse,
                "a refresh window lies within 6 s to 60 s: shorter would burden the customer's KMS, longer \
                 would keep a key in use for too long after it was taken away",
            ));
        }
        Ok(Self { shortest, longest })
    }

    pub(crate) fn contains(&self, refresh: Duration) -> bool {
        (self.shortest..=self.longest).contains(&refresh)
    }
}

/// For how long service goes on while the KMS is silent (contract C5). A refusal ends service at once all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutageGrace {
    /// Not at all: a lease ends when it is no longer fresh.
    None,
    /// This long after the lease was last fresh. A record can allow less.
    For(Duration),
    /// As long as the outage lasts, for accounts whose record consents to it; 30 minutes for the others.
    WholeOutage,
}

impl OutageGrace {
    /// 30 minutes.
    pub const DEFAULT: Self = Self::For(DEFAULT_GRACE);

    /// The most that any record could allow.
    pub(crate) const fn most(self) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::For(grace) => grace,
            Self::WholeOutage => WHOLE_OUTAGE,
        }
    }

    /// What the customer's record leaves of it: it can shorten, never lengthen.
    pub(crate) fn allowed_by(self, policy: &RecordPolicy) -> Duration {
        let wanted = match self {
            Self::WholeOutage if !policy.consents_to_whole_outage() => DEFAULT_GRACE,
            grace => grace.most(),
        };
        policy.max_grace().map_or(wanted, |max| max.min(wanted))
    }
}

/// What an account needs to know of its cache's configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) policy: Policy,
    pub(crate) grace: OutageGrace,
    pub(crate) memory_lock: MemoryLock,
    pub(crate) engine: Engine,
    pub(crate) version_check: Duration,
}

const DEFAULT_GRACE: Duration = Duration::from_secs(30 * 60);
/// A century: longer than any outage, short enough to add to a clock.
const WHOLE_OUTAGE: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn c1_a_window_outside_6_to_60_s_is_refused() {
        assert!(RefreshWindow::new(secs(6), secs(60)).is_ok());
        for (shortest, longest) in [(5, 60), (6, 61), (0, 6), (30, 20)] {
            let error = RefreshWindow::new(secs(shortest), secs(longest)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misuse);
        }
    }

    #[test]
    fn c5_a_record_shortens_grace_and_never_lengthens_it() {
        let plain = RecordPolicy::default();
        assert_eq!(OutageGrace::For(secs(60)).allowed_by(&plain), secs(60));
        assert_eq!(OutageGrace::For(secs(60)).allowed_by(&plain.with_max_grace(secs(10))), secs(10));
        assert_eq!(OutageGrace::For(secs(60)).allowed_by(&plain.with_max_grace(secs(100))), secs(60));
        assert_eq!(OutageGrace::None.allowed_by(&plain.with_max_grace(secs(100))), secs(0));
        assert_eq!(OutageGrace::WholeOutage.allowed_by(&plain), DEFAULT_GRACE);
        let consent = plain.with_whole_outage_consent();
        assert_eq!(OutageGrace::WholeOutage.allowed_by(&consent), WHOLE_OUTAGE);
        assert_eq!(OutageGrace::For(secs(60)).allowed_by(&consent), secs(60));
        assert_eq!(OutageGrace::WholeOutage.allowed_by(&consent.with_max_grace(secs(10))), secs(10));
    }
}
