//! What waits and runs at one authority. Imports: `authority`, `members`, `meter`, `clock`, `lease`, `account` (for its keys).

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::ControlCall;
use super::authority::{Bulkhead, Caps, Destination, Load};
use super::members::Members;
use super::meter::Cause;
use crate::account::AccountKey;
use crate::clock::Moment;
use crate::lease::MIN_SPACING;

/// An account's place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    /// Where the cap on calls makes accounts wait, what is used comes before what is not; without a cap all are the same.
    pub(super) rank: u32,
    /// First come first served.
    pub(super) number: u64,
    pub(super) account: AccountKey,
    /// For what is asked beside its attempts: which of it.
    pub(super) beside: Option<u8>,
    /// The tick in which it came.
    pub(super) since: u32,
}

impl Turn {
    pub(super) const fn new(since: u32, number: u64, account: AccountKey, beside: Option<u8>) -> Self {
        Self { rank: 0, number, account, beside, since }
    }

    /// The same, under a cap, of an account that was last used in this tick. It stands as if it had come later by a quarter of the time for
    /// which nobody had used it, a quarter of a minute at most: so those in use, however often, are served as they come, and nobody
    /// waits for all who come after it.
    pub(super) fn by_use(self, last_used: u32) -> Self {
        let idle = self.since.saturating_sub(last_used).min(60);
        // 0 is for what somebody waits for, the greatest for what nobody does.
        let rank = self.since.saturating_mul(4).saturating_add(idle).clamp(1, u32::MAX - 1);
        Self { rank, ..self }
    }
}

/// What people ask for, and the watch for newer versions.
pub(super) struct Asked {
    /// The time by which it has to be started.
    pub(super) start_by: Moment,
    pub(super) call: ControlCall,
    pub(super) cause: Cause,
}

/// What waits and runs at one authority. There are as many as customers with a KMS of their own, and most of them are idle, so each
/// keeps what it does not need at rest only while it needs it.
pub(super) struct Lane {
    pub(super) destination: Destination,
    pub(super) bulkhead: Bulkhead,
    /// Workers that this authority's calls hold now, kept by the executor: only where they do not hold one all the time, and nobody
    /// else can tell.
    pub(super) held: Option<Arc<AtomicUsize>>,
    pub(super) accounts: Members,
    /// Absent while nothing waits.
    pub(super) waiting: Option<Box<Waiting>>,
    /// When all accounts here were last told that one was refused.
    refusal_told: Option<Box<Moment>>,
}

/// What waits at one authority.
#[derive(Default)]
pub(super) struct Waiting {
    /// Accounts whose attempt is due.
    pub(super) due: BTreeSet<Turn>,
    pub(super) controls: VecDeque<Asked>,
    /// Looks for newer versions that wait until no refresh does: only where there is a cap on calls.
    pub(super) checks: VecDeque<Asked>,
    /// The ranks under which it stands among the lanes with work, and among those with accounts whose attempt is due.
    pub(super) listed: (Option<u32>, Option<u32>),
}

impl Lane {
    pub(super) fn new(destination: &Destination) -> Self {
        Self {
            destination: destination.clone(),
            bulkhead: Bulkhead::new(destination.holds_threads()),
            held: (!destination.holds_threads()).then(Arc::default),
            accounts: Members::default(),
            waiting: None,
            refusal_told: None,
        }
    }

    pub(super) fn held(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.load(Ordering::Relaxed))
    }

    pub(super) fn has_work(&self) -> bool {
        self.rank().is_some()
    }

    /// Of what it would start next: somebody waits for what was asked. `None` without work.
    pub(super) fn rank(&self) -> Option<u32> {
        let Waiting { due, controls, checks, .. } = self.waiting.as_deref()?;
        match due.first() {
            _ if !controls.is_empty() => Some(0),
            Some(turn) => Some(turn.rank),
            None => (!checks.is_empty()).then_some(u32::MAX),
        }
    }

    /// Of the account whose attempt would be started next.
    pub(super) fn due_rank(&self) -> Option<u32> {
        Some(self.waiting.as_deref()?.due.first()?.rank)
    }

    /// For what is to wait here. `Lanes::settle` is called after that.
    pub(super) fn waiting(&mut self) -> &mut Waiting {
        self.waiting.get_or_insert_default()
    }

    pub(super) fn is_unused(&self) -> bool {
        self.accounts.as_slice().is_empty() && !self.has_work() && self.bulkhead.is_idle()
    }

    /// Whoever is told asks anew within 6 s, so once in that time is enough; if each of N accounts that are refused
    /// together told all the others, that would be N * N events.
    pub(super) fn tells_of_refusal(&mut self, now: Moment) -> bool {
        let again = |told: &Moment| now.boot_nanos() >= told.plus(MIN_SPACING).boot_nanos();
        let tells = self.refusal_told.as_deref().is_none_or(again);
        if tells {
            self.refusal_told = Some(Box::new(now));
        }
        tells
    }

    pub(super) fn admit_due(&mut self, now: Moment, caps: Caps, load: Load) -> Option<Turn> {
        let due = &mut self.waiting.as_deref_mut()?.due;
        if due.is_empty() || !self.bulkhead.admits(now, caps, load) {
            return None;
        }
        due.pop_first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn c8_what_is_used_goes_first_and_what_is_not_waits_a_quarter_of_a_minute_longer_at_most() {
        let at = |since, last_used| Turn::new(since, 0, AccountKey::new(1), None).by_use(last_used).rank;
        assert!(at(1000, 1000) < at(1000, 996) && at(1000, 996) < at(1000, 0));
        assert!(at(1000, 1000) < at(1001, 1001), "as they come");
        assert!(at(1000, 992) <= at(1002, 1002), "eight ticks without use are worth two");
        assert!(at(1000, 0) < at(1016, 1016), "however long nobody has used it");
        assert!(at(0, 0) > 0 && at(u32::MAX, 0) < u32::MAX);
        assert!(Turn::new(1000, 7, AccountKey::new(1), None) < Turn::new(900, 8, AccountKey::new(1), None));
    }

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
