//! What waits and runs at one authority. Imports: `clock`, `lease`, `account` (for its keys).

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::ControlCall;
use super::authority::{Bulkhead, Caps, Destination, Load};
use crate::account::AccountKey;
use crate::clock::Moment;
use crate::lease::MIN_SPACING;

/// What waits and runs at one authority.
pub(super) struct Lane {
    pub(super) bulkhead: Bulkhead,
    /// Workers that this authority's calls hold now, kept by the executor.
    pub(super) held: Arc<AtomicUsize>,
    pub(super) accounts: HashSet<AccountKey>,
    /// Accounts whose attempt is due, first come first served.
    pub(super) due: VecDeque<AccountKey>,
    /// What people ask for, each with the time by which it has to be started.
    pub(super) controls: VecDeque<(Moment, ControlCall)>,
    pub(super) control_was_last: bool,
    /// When all accounts here were last told that one was refused.
    refusal_told: Option<Moment>,
}

impl Lane {
    pub(super) fn new(destination: &Destination) -> Self {
        Self {
            bulkhead: Bulkhead::new(destination.holds_threads()),
            held: Arc::default(),
            accounts: HashSet::new(),
            due: VecDeque::new(),
            controls: VecDeque::new(),
            control_was_last: false,
            refusal_told: None,
        }
    }

    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn has_work(&self) -> bool {
        !self.due.is_empty() || !self.controls.is_empty()
    }

    pub(super) fn is_unused(&self) -> bool {
        self.accounts.is_empty() && !self.has_work() && self.bulkhead.is_idle()
    }

    /// Whoever is told asks anew within 6 s, so once in that time is enough; if each of N accounts that are refused
    /// together told all the others, that would be N * N events.
    pub(super) fn tells_of_refusal(&mut self, now: Moment) -> bool {
        let again = |told: Moment| now.boot_nanos() >= told.plus(MIN_SPACING).boot_nanos();
        let tells = self.refusal_told.is_none_or(again);
        if tells {
            self.refusal_told = Some(now);
        }
        tells
    }

    pub(super) fn admit_due(&mut self, now: Moment, caps: Caps, load: Load) -> Option<AccountKey> {
        if self.due.is_empty() || !self.bulkhead.admits(now, caps, load) {
            return None;
        }
        self.due.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn b12_accounts_that_are_refused_together_tell_the_others_once() {
        let clock = ManualClock::new();
        let provider = crate::testing::ScriptedProvider::new();
        let mut lane = Lane::new(&Destination::of(&provider));
        assert!(lane.tells_of_refusal(clock.moment()));
        assert!((0..1000).all(|_| !lane.tells_of_refusal(clock.moment())));
        clock.advance(MIN_SPACING);
        assert!(lane.tells_of_refusal(clock.moment()), "news again, once they can act on it");
    }
}
