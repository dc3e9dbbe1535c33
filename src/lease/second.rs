//! The second provider of a failover custody, beside the machine of the first: when it is asked, and what its answers are worth.
//!
//! Imports: `lease`, `clock`, `error`, `id`.

use std::time::Duration;

use super::pace::spaced_from;
use super::shares::Beside;
use super::{Closed, Effects, Held, Lease, MIN_SPACING, Phase, Publish, Seen};
use crate::clock::Moment;
use crate::error::Refusal;
use crate::id::Epoch;

/// What concerns the second provider of a failover custody; other machines have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Second {
    /// The first one has refused, and has not unwrapped since.
    pub(super) barred: bool,
    /// When it is to be asked; `None` while the first one is not silent.
    pub(super) due: Option<Moment>,
    pub(super) last_begun: Option<Moment>,
    /// When the first one's last verified unwrap started, in this process.
    pub(super) verified: Option<Moment>,
}

impl Second {
    /// C1: its calls start at least 6 s apart too, on the boot-time clock.
    fn spaced(&self, now: Moment) -> bool {
        self.last_begun.is_none_or(|last| now.boot_nanos() >= last.plus(MIN_SPACING).boot_nanos())
    }

    /// Where it is due by the wall clock alone, the distance decides from here on, on the other clock.
    pub(super) fn keep_distance(&mut self, now: Moment) {
        if let Some(due) = self.due.filter(|due| now.reached(*due) && !self.spaced(now)) {
            self.due = Some(due.earlier(now));
        }
    }
}

impl Lease {
    /// The same machine, of an account with a second provider to stand in for the first.
    pub(crate) fn with_second(self) -> Self {
        Self { beside: Some(Box::new(Beside::Second(Second::default()))), ..self }
    }

    pub(super) fn second(&self) -> Option<&Second> {
        match self.beside.as_deref() {
            Some(Beside::Second(second)) => Some(second),
            _ => None,
        }
    }

    pub(super) fn second_mut(&mut self) -> Option<&mut Second> {
        match self.beside.as_deref_mut() {
            Some(Beside::Second(second)) => Some(second),
            _ => None,
        }
    }

    /// Whether the second provider should be asked now.
    pub(crate) fn wants_second(&self, now: Moment) -> bool {
        self.second_at().is_some_and(|at| now.reached(at))
            && self.second().is_some_and(|second| second.spaced(now))
    }

    /// A call of the second provider begins, in this epoch. Whatever comes of it, the next one is due at the distance at which
    /// a lease that it renewed has room for it.
    pub(crate) fn begin_second(&mut self, now: Moment) -> Epoch {
        let again = if matches!(self.phase, Phase::Held(_)) { MIN_SPACING } else { self.policy.refresh() };
        if let Some(second) = self.second_mut() {
            second.last_begun = Some(now);
            second.due = Some(now.plus(again));
        }
        self.epoch
    }

    /// When the second provider is to be asked: while the first one is silent, and nothing else stands against it.
    pub(crate) fn second_at(&self) -> Option<Moment> {
        let open = matches!(self.phase, Phase::Cold | Phase::Held(_) | Phase::Unavailable | Phase::Revoked);
        let second = self.second()?;
        let due = second.due.filter(|_| open && !second.barred)?;
        Some(spaced_from(due, second.last_begun))
    }

    /// Whether what is said in a call begun in `epoch` counts: by the second provider, or by that of one share alone. Where it is due no
    /// longer, the first one, or all that hold a share together, have answered meanwhile.
    pub(crate) fn hears_second(&self, epoch: Epoch) -> bool {
        epoch == self.epoch && (self.second_at().is_some() || self.hears_shares(epoch))
    }

    /// When the first provider's last verified unwrap started, in this process. Kept for the second one's sake.
    pub(crate) fn first_verified(&self) -> Option<Moment> {
        self.second()?.verified
    }

    /// The first provider has unwrapped: the second one is not needed, and not barred any more.
    pub(super) fn first_has_unwrapped(&mut self, started: Moment) {
        self.leave_shares();
        if let Some(second) = self.second_mut() {
            (second.barred, second.due, second.verified) = (false, None, Some(started));
        }
    }

    /// The first provider has refused: from here on the second one is nobody.
    pub(crate) fn bar_second(&mut self) {
        self.leave_shares();
        if let Some(second) = self.second_mut() {
            second.barred = true;
            second.due = None;
        }
    }

    /// What the second provider of a failover custody is for. Silence that may be our own sleep brings it in no more than it earns grace.
    pub(super) fn first_is_silent(&mut self, now: Moment, begun: Moment) {
        let open = matches!(self.phase, Phase::Cold | Phase::Held(_) | Phase::Unavailable | Phase::Revoked);
        let lately = self.begun_lately(now, begun);
        if let Some(second) = self.second_mut().filter(|second| open && lately && !second.barred) {
            second.due = second.due.or(Some(now));
        }
        if lately {
            self.ask_for_shares(now);
        }
    }

    /// The first provider, or all that hold a share together, have answered, or the account is closed for good reason.
    pub(super) fn leave_others(&mut self) {
        self.set_second_due(None);
        self.leave_shares();
    }

    fn set_second_due(&mut self, due: Option<Moment>) {
        if let Some(second) = self.second_mut() {
            second.due = due;
        }
    }

    pub(super) fn on_stood_in(
        &mut self,
        now: Moment,
        epoch: Epoch,
        started: Moment,
        recorded: Moment,
        limit: Duration,
        max_grace: Option<Duration>,
    ) -> Effects {
        // One share of a joint custody stands in for nobody, whoever says so.
        if self.second().is_none() || !self.hears_second(epoch) {
            return Effects::default();
        }
        let policy = self.cache_policy().shortened(max_grace);
        let ours = self.first_verified().map(|verified| verified.plus(limit));
        // The later one, as a whole: each is true, and a mix of the two would outlast both.
        let end = match ours {
            Some(ours) if ours.boot_nanos() > recorded.boot_nanos() => ours,
            _ => recorded,
        };
        let end = end.earlier(started.plus(policy.fresh_for()));
        if now.reached(end) {
            return Effects::default();
        }
        let held = match self.phase {
            Phase::Held(held) if held.tainted => return Effects::default(),
            Phase::Held(held) => Held { stood_in: Some(end), ..held },
            _ => Held {
                since: None,
                stood_in: Some(end),
                silent_at: Some(now),
                tainted: false,
                seen: Seen::Lapsed,
            },
        };
        self.policy = policy;
        self.phase = Phase::Held(held);
        let pause = self.jitter.between(policy.shortest_interval(), policy.longest_interval());
        self.set_second_due(Some(started.plus(pause)));
        let expired = self.expire(now);
        let publish =
            self.deadlines().map(|(fresh_until, valid_until)| Publish::Keys { fresh_until, valid_until });
        Effects { publish, ..Effects::default() }.then(expired)
    }

    /// Without a key from here on, until the rest of the answer decides.
    pub(super) fn on_second_pending(&mut self, epoch: Epoch) -> Effects {
        match self.phase {
            Phase::Held(_) if self.hears_second(epoch) => self.close(Phase::Cold, Closed::NotReady),
            _ => Effects::default(),
        }
    }

    pub(super) fn on_second_refused(&mut self, now: Moment, epoch: Epoch, refusal: Refusal) -> Effects {
        if self.shares().is_some() {
            if self.hears_shares(epoch) {
                self.leave_shares();
                return self.on_refused(now, refusal);
            }
            // What closed since, or was answered, decides; but it is news.
            self.ask_soon(now);
            return Effects::default();
        }
        if !self.hears_second(epoch) {
            return Effects::default();
        }
        let pause = self.jitter.near(self.policy.refresh());
        self.set_second_due(Some(now.plus(pause)));
        match self.phase {
            Phase::Revoked => Effects::default(),
            _ => self.close(Phase::Revoked, Closed::Revoked(refusal)),
        }
    }
}
