//! The shares of a joint custody, each asked for alone while all of them together meet silence: a refusal of one KMS is then heard though
//! another one hangs. What such a call unwraps opens nothing and renews nothing.
//!
//! An attempt asks for all shares, so the calls here and the attempts are at least 6 s apart from each other (contract C1). An attempt goes first,
//! because it may be the one that has to fit into what is left of the lease; but where attempts wait for their turn in a lane that is silent, a
//! share waits no longer than [`PATIENCE`]. Imports: `lease`, `clock`, `id`.

use std::time::Duration;

use super::pace::spaced_from;
use super::second::Second;
use super::{Lease, MIN_SPACING, Phase};
use crate::clock::Moment;
use crate::id::Epoch;

/// What is asked beside the attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    /// Of a failover custody.
    Second(Second),
    /// Of a joint one.
    Shares(Shares),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shares {
    /// When an attempt was last begun, which asks for each of them.
    pub(super) attempted: Option<Moment>,
    /// Each secret of the account has its place here: two shares, and the outer AEK of double encryption.
    pub(super) each: [Share; MOST_SHARES],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    /// `None` while the attempts are answered.
    pub(super) due: Option<Moment>,
    pub(super) begun: Option<Moment>,
}

impl Beside {
    /// What the next account of the same id goes on from: it has to meet silence anew.
    pub(super) fn found_anew(self) -> Self {
        match self {
            Self::Second(second) => Self::Second(Second { due: None, ..second }),
            Self::Shares(mut shares) => {
                shares.each.iter_mut().for_each(|share| share.due = None);
                Self::Shares(shares)
            }
        }
    }
}

impl Lease {
    /// The same machine, of an account under joint custody.
    pub(crate) fn with_shares(self) -> Self {
        Self { beside: Some(Box::new(Beside::Shares(Shares::default()))), ..self }
    }

    /// Whether the share at `at` should be asked for alone now.
    pub(crate) fn wants_share(&self, now: Moment, at: usize) -> bool {
        self.share_at(at).is_some_and(|from| now.reached(from))
    }

    /// The call for the share at `at` begins, in this epoch.
    pub(crate) fn begin_share(&mut self, now: Moment, at: usize) -> Epoch {
        // So early that it has been made after r, though it waits for the attempts.
        let again = self.policy.refresh().saturating_sub(PATIENCE).max(MIN_SPACING);
        if let Some(share) = self.shares_mut().and_then(|shares| shares.each.get_mut(at)) {
            *share = Share { due: Some(now.plus(again)), begun: Some(now) };
        }
        self.last_begun = Some(now);
        self.epoch
    }

    /// Whether a refusal of one share, asked for in `epoch`, counts. Where none is due any more, all of them together have been answered since.
    pub(super) fn hears_shares(&self, epoch: Epoch) -> bool {
        epoch == self.epoch
            && self.shares().is_some_and(|shares| shares.each.iter().any(|share| share.due.is_some()))
    }

    /// When a share is next to be asked for that is not `now` already.
    pub(super) fn shares_wake(&self, now: Moment) -> Option<Moment> {
        let each = (0..MOST_SHARES).filter_map(|at| self.share_at(at));
        each.filter(|at| !now.reached(*at)).reduce(Moment::earlier)
    }

    /// On the boot-time clock alone: a wall clock that jumps buys no calls.
    fn share_at(&self, at: usize) -> Option<Moment> {
        let open = matches!(self.phase, Phase::Cold | Phase::Held(_) | Phase::Unavailable);
        let shares = self.shares().filter(|_| open && self.attempt.is_none())?;
        let Share { due, begun } = *shares.each.get(at)?;
        let due = due?;
        let spaced = spaced_from(spaced_from(due, begun), shares.attempted).boot_nanos();
        let next = self.due_spaced();
        let from = if next.boot_nanos() >= plus(spaced, MIN_SPACING) {
            spaced
        } else {
            let after = next.plus(MIN_SPACING).boot_nanos();
            spaced.max(after.min(due.plus(PATIENCE).boot_nanos()))
        };
        Some(Moment::from_nanos(from, u64::MAX))
    }

    pub(super) fn shares(&self) -> Option<&Shares> {
        match self.beside.as_deref() {
            Some(Beside::Shares(shares)) => Some(shares),
            _ => None,
        }
    }

    pub(super) fn shares_mut(&mut self) -> Option<&mut Shares> {
        match self.beside.as_deref_mut() {
            Some(Beside::Shares(shares)) => Some(shares),
            _ => None,
        }
    }

    /// The attempts have met silence: each share is to be asked for alone, unless a refusal stands that nothing could add to.
    pub(super) fn ask_for_shares(&mut self, now: Moment) {
        let open = matches!(self.phase, Phase::Cold | Phase::Held(_) | Phase::Unavailable);
        if let Some(shares) = self.shares_mut().filter(|_| open) {
            shares.each.iter_mut().for_each(|share| share.due = share.due.or(Some(now)));
        }
    }

    /// They have been answered, or nobody may be asked.
    pub(super) fn leave_shares(&mut self) {
        if let Some(shares) = self.shares_mut() {
            shares.each.iter_mut().for_each(|share| share.due = None);
        }
    }
}

fn plus(nanos: u64, by: Duration) -> u64 {
    Moment::from_nanos(nanos, 0).plus(by).boot_nanos()
}

/// How many secrets a record has at most.
pub(crate) const MOST_SHARES: usize = 3;
/// How long a share lets the attempts go first. A second attempt after the first silence has had its turn by then.
const PATIENCE: Duration = Duration::from_secs(12);
