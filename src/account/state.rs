//! What the data plane reads: the keys or the reason why there are none, a deadline, an epoch.
//!
//! The control plane writes here under the account's own mutex; readers take no lock. Two things meet:
//! - the *snapshot*, swapped as a whole: the keys, or why there are none, and the epoch they belong to;
//! - the *gate*: the current epoch and deadlines, which the final check reads afresh. So a lease that ends, or
//!   whose grace is taken back, ends also for calls that are already decrypting.
//!
//! Closing stores the new epoch first and publishes the keyless snapshot after it (invariant 5): from the moment that
//! `close` returns no final check that starts can pass. Keys are wiped when the last guard on their snapshot drops; guards live for one call.
//! Imports: `sync`, `tally`, `budget`, `block`, `clock`, `id`, `error`.

#[cfg(shuttle)]
#[cfg(test)]
mod schedules;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::budget::{Amount, Budgets};
use super::sync::{self, ArcSwap, AtomicU64, Ordering};
use super::tally::Tally;
use crate::block::{GenerationKeys, KeyRing};
use crate::clock::{Clock, Moment};
use crate::error::{Error, ErrorKind, Refusal};
use crate::id::{AccountId, Epoch, Generation};

/// Whether an account can be used now, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// No verified key yet, or the refresher was held up past the lease's end.
    NotReady,
    /// In use; the KMS confirmed the key within the refresh window.
    Fresh {
        /// When the lease ends unless it is renewed, by the wall clock as it stands now.
        valid_until: SystemTime,
    },
    /// In use, though the KMS is silent.
    Grace {
        /// When the grace ends, by the wall clock as it stands now.
        valid_until: SystemTime,
    },
    /// The KMS did not answer, or not sensibly, and grace is used up.
    Unavailable(UnavailableCause),
    /// The KMS answered and refused.
    Revoked(Refusal),
    /// Closed by `lock`.
    Locked,
    /// Deleted, and possibly recoverable.
    Deleted,
}

#[cfg(any(feature = "tracing", feature = "metrics"))]
impl Status {
    /// Where it stands in [`STATES`].
    pub(crate) const fn number(self) -> usize {
        match self {
            Self::Fresh { .. } => 0,
            Self::Grace { .. } => 1,
            Self::NotReady => 2,
            Self::Unavailable(UnavailableCause::Silent) => 3,
            Self::Unavailable(UnavailableCause::Integrity) => 4,
            Self::Revoked(_) => 5,
            Self::Locked => 6,
            Self::Deleted => 7,
        }
    }

    /// What operators see it called.
    pub(crate) const fn label(self) -> &'static str {
        STATES[self.number()]
    }
}

/// The labels of all states.
#[cfg(any(feature = "tracing", feature = "metrics"))]
pub(crate) const STATES: [&str; 8] =
    ["fresh", "grace", "not_ready", "unavailable", "integrity", "revoked", "locked", "deleted"];

/// Why an account is [`Status::Unavailable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnavailableCause {
    /// No answer until grace was used up.
    Silent,
    /// Answers that cannot be right: another AEK, a success that cannot be parsed. They earn no grace.
    Integrity,
}

/// Why an account has no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keyless {
    NotReady,
    Unavailable(UnavailableCause),
    Revoked(Refusal),
    Locked,
    Deleted,
}

impl Keyless {
    /// What a data-plane call returns. Costs no heap.
    const fn error(self) -> Error {
        match self {
            Self::NotReady => {
                Error::new(ErrorKind::NotReady, "no verified key yet: wait with `ready`, then retry")
            }
            Self::Unavailable(UnavailableCause::Silent) => Error::new(
                ErrorKind::Unavailable,
                "the KMS is silent and grace is used up: it recovers by itself once the KMS answers",
            ),
            Self::Unavailable(UnavailableCause::Integrity) => Error::new(
                ErrorKind::Unavailable,
                "the KMS gives answers that cannot be right: check which key and endpoint it serves",
            ),
            Self::Revoked(refusal) => Error::new(
                ErrorKind::Revoked,
                "the customer's KMS refused: it recovers by itself once the customer allows the key again",
            )
            .with_refusal(refusal),
            Self::Locked => Error::new(ErrorKind::Locked, "closed by `lock`: `unlock` opens it"),
            Self::Deleted => {
                Error::new(ErrorKind::Deleted, "the account is deleted: `recover` within its retention")
            }
        }
    }

    const fn status(self) -> Status {
        match self {
            Self::NotReady => Status::NotReady,
            Self::Unavailable(cause) => Status::Unavailable(cause),
            Self::Revoked(refusal) => Status::Revoked(refusal),
            Self::Locked => Status::Locked,
            Self::Deleted => Status::Deleted,
        }
    }
}

/// One account, as the data plane sees it.
pub(crate) struct AccountState {
    id: AccountId,
    clock: Clock,
    gate: Gate,
    snapshot: ArcSwap<Snapshot>,
    tally: Tally,
    /// When a lease was last asked for, in ticks of about a second. Not one of the atomics that threads meet in: it decides
    /// who is refreshed first where calls are scarce, and nothing else.
    used: AtomicU32,
}

struct Snapshot {
    epoch: Epoch,
    access: Access,
}

/// What opens and seals, and what of it may be sealed.
pub(crate) struct Keys {
    pub(crate) ring: Arc<KeyRing>,
    /// One for each generation of the ring that may seal.
    pub(crate) budgets: Budgets,
}

#[cfg(test)]
impl Keys {
    /// Of a ring with one generation, to the library's own limits.
    pub(crate) fn unlimited(ring: impl Into<Arc<KeyRing>>) -> Self {
        use super::budget::{Bell, Budget};
        use crate::format::policy::GenerationLimits;
        let ring = ring.into();
        let newest = ring.sealing(Moment::from_nanos(0, u64::MAX)).generation();
        let budget = Budget::new(newest, GenerationLimits::default(), Bell::default());
        Self { ring, budgets: [Arc::new(budget)].into() }
    }
}

enum Access {
    Keys(Keys),
    Keyless(Keyless),
}

/// Read by every final check. A deadline of zero is always reached.
#[derive(Default)]
struct Gate {
    epoch: AtomicU64,
    fresh_until: AtomicMoment,
    valid_until: AtomicMoment,
}

impl AccountState {
    /// An account without keys yet, which begins in `epoch`.
    pub(crate) fn new(id: AccountId, clock: Clock, epoch: Epoch) -> Self {
        let gate = Gate { epoch: AtomicU64::new(epoch.number()), ..Gate::default() };
        let snapshot = Snapshot { epoch, access: Access::Keyless(Keyless::NotReady) };
        let used = AtomicU32::new(tick(clock.now()));
        let snapshot = ArcSwap::from_pointee(snapshot);
        Self { id, clock, gate, snapshot, tally: Tally::default(), used }
    }

    pub(crate) const fn id(&self) -> AccountId {
        self.id
    }

    pub(crate) const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Puts keys into use, with their deadlines. `epoch` is the current one: a verified unwrap renews the
    /// epoch it started in, or opens the one that the last [`Self::close`] began.
    pub(crate) fn publish_keys(&self, epoch: Epoch, keys: Keys, fresh_until: Moment, valid_until: Moment) {
        debug_assert_eq!(self.gate.epoch.load(Ordering::SeqCst), epoch.number(), "keys of a past epoch");
        self.extend(fresh_until, valid_until);
        self.snapshot.store(Arc::new(Snapshot { epoch, access: Access::Keys(keys) }));
    }

    /// Other deadlines for the same keys: grace earned, or taken back.
    pub(crate) fn extend(&self, fresh_until: Moment, valid_until: Moment) {
        self.gate.fresh_until.store(fresh_until);
        self.gate.valid_until.store(valid_until);
    }

    /// Takes the keys out of service and starts `epoch`. No call whose final check starts after this returned
    /// releases anything.
    pub(crate) fn close(&self, epoch: Epoch, why: Keyless) {
        self.gate.epoch.store(epoch.number(), Ordering::SeqCst);
        self.snapshot.store(Arc::new(Snapshot { epoch, access: Access::Keyless(why) }));
        self.gate.fresh_until.store(Moment::from_nanos(0, 0));
        self.gate.valid_until.store(Moment::from_nanos(0, 0));
    }

    /// When it was last used, in ticks of about a second.
    pub(crate) fn last_used(&self) -> u32 {
        self.used.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// A store only once in a tick: threads that use one account must not take its cache line from each other at each block.
    #[inline]
    pub(super) fn note_use(&self, now: Moment) {
        let tick = tick(now);
        if self.used.load(std::sync::atomic::Ordering::Relaxed) != tick {
            self.used.store(tick, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// The epoch of what is published now.
    pub(crate) fn epoch(&self) -> Epoch {
        self.snapshot.load().epoch
    }

    pub(crate) fn status(&self) -> Status {
        match &self.snapshot.load().access {
            Access::Keyless(why) => why.status(),
            Access::Keys(_) => {
                let now = self.clock.now();
                let deadline = self.gate.valid_until.load();
                if now.reached(deadline) {
                    return Status::NotReady;
                }
                let valid_until = wall_time(now, deadline);
                if now.reached(self.gate.fresh_until.load()) {
                    Status::Grace { valid_until }
                } else {
                    Status::Fresh { valid_until }
                }
            }
        }
    }

    /// By how much the lease's freshness and its end lie ahead, and how long ago the former was; `None` without a valid lease.
    #[cfg(feature = "metrics")]
    pub(super) fn lease_left(&self) -> Option<LeaseLeft> {
        let now = self.clock.now();
        let (fresh, valid) = (self.gate.fresh_until.load(), self.gate.valid_until.load());
        (!now.reached(valid)).then(|| LeaseLeft {
            fresh: now.until(fresh),
            stale: now.age_since(fresh),
            valid: now.until(valid),
        })
    }

    pub(crate) const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// When the lease ends unless it is renewed; `None` when there is none.
    pub(crate) fn valid_until(&self) -> Option<SystemTime> {
        match self.status() {
            Status::Fresh { valid_until } | Status::Grace { valid_until } => Some(valid_until),
            _ => None,
        }
    }

    /// Begins a call of the data plane: holds the keys for its length. The deadline is not looked at yet.
    ///
    /// # Errors
    /// Why there are no keys; [`ErrorKind::NotReady`] when `epoch` has passed though there are keys again.
    #[inline]
    pub(crate) fn enter(&self, epoch: Option<Epoch>) -> Result<Guard<'_>, Error> {
        let snapshot = self.snapshot.load();
        if let Access::Keyless(why) = &snapshot.access {
            return Err(why.error().with_account(self.id));
        }
        if epoch.is_some_and(|epoch| epoch != snapshot.epoch) {
            return Err(self.epoch_has_passed());
        }
        Ok(Guard { state: self, snapshot })
    }

    #[cold]
    fn epoch_has_passed(&self) -> Error {
        // The reason, where it is published already; it is a moment after the epoch changed.
        let error = match &self.snapshot.load().access {
            Access::Keyless(why) => why.error(),
            Access::Keys(_) => Error::new(
                ErrorKind::NotReady,
                "the key was out of service meanwhile: take a new permit, then retry",
            ),
        };
        error.with_account(self.id)
    }
}

impl fmt::Debug for AccountState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccountState({}, {:?})", self.id, self.status())
    }
}

/// Of a lease that is valid.
#[cfg(feature = "metrics")]
pub(super) struct LeaseLeft {
    /// Until it is no longer fresh; zero in grace.
    pub(super) fresh: Duration,
    /// Since then; zero before.
    pub(super) stale: Duration,
    pub(super) valid: Duration,
}

/// The keys, held for one call. Intentionally never handed to user code.
pub(crate) struct Guard<'a> {
    state: &'a AccountState,
    snapshot: sync::Guard<Arc<Snapshot>>,
}

impl Guard<'_> {
    #[inline]
    pub(crate) fn epoch(&self) -> Epoch {
        self.snapshot.epoch
    }

    #[inline]
    fn held(&self) -> &Keys {
        match &self.snapshot.access {
            Access::Keys(keys) => keys,
            Access::Keyless(_) => unreachable!("`enter` makes no guard of a keyless snapshot"),
        }
    }

    /// Where what the call has done is counted.
    #[inline]
    pub(crate) const fn tally(&self) -> &Tally {
        self.state.tally()
    }

    /// The keys that new data is sealed under at `now`.
    #[inline]
    pub(crate) fn sealing(&self, now: Moment) -> &GenerationKeys {
        self.held().ring.sealing(now)
    }

    /// Pays for what is about to be sealed under `keys` (contract E6). What fails after this stays paid for.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] when a limit of their generation would be passed.
    #[inline]
    pub(crate) fn pay(&self, keys: &GenerationKeys, cost: Amount) -> Result<(), Error> {
        let generation = keys.generation();
        let budget = self.held().budgets.iter().find(|budget| budget.generation() == generation);
        match budget {
            Some(budget) if budget.pay(cost) => Ok(()),
            _ => Err(self.generation_is_used_up()),
        }
    }

    #[cold]
    fn generation_is_used_up(&self) -> Error {
        let message = "the generation has sealed as much as the record allows: `rotate_aek` makes a new one; opening goes on";
        Error::new(ErrorKind::Limit, message).with_account(self.state.id)
    }

    /// # Errors
    /// [`ErrorKind::UnknownGeneration`].
    #[inline]
    pub(crate) fn keys(&self, generation: Generation) -> Result<&GenerationKeys, Error> {
        self.held().ring.get(generation).ok_or_else(|| {
            Error::new(
                ErrorKind::UnknownGeneration,
                "sealed under a generation that the account's record does not know",
            )
            .with_account(self.state.id)
        })
    }

    /// Reads the clock and makes sure that a lease is valid at that time: before sealing, and as the first half of
    /// [`Self::release`].
    ///
    /// # Errors
    /// [`ErrorKind::NotReady`] past the deadline: no attempt at a refresh has finished in time.
    #[inline]
    pub(crate) fn check_lease(&self) -> Result<Moment, Error> {
        let now = self.state.clock.now();
        self.state.note_use(now);
        if now.reached(self.state.gate.valid_until.load()) {
            return Err(self.lease_has_ended());
        }
        Ok(now)
    }

    /// A closed account's deadline is zero: then the reason is not that time ran out.
    #[cold]
    fn lease_has_ended(&self) -> Error {
        self.check_epoch().err().unwrap_or_else(|| {
            Error::new(ErrorKind::NotReady, "the lease ran out before a refresh finished: retry soon")
                .with_account(self.state.id)
        })
    }

    /// Makes sure that the keys were not taken out of service since this guard was taken.
    ///
    /// # Errors
    /// Why they were; [`ErrorKind::NotReady`] where that is not known yet.
    #[inline]
    pub(crate) fn check_epoch(&self) -> Result<(), Error> {
        if self.state.gate.epoch.load(Ordering::SeqCst) == self.snapshot.epoch.number() {
            Ok(())
        } else {
            Err(self.state.epoch_has_passed())
        }
    }

    /// The final check of an open (invariant 4): age, then epoch. In this order, because reading the clock
    /// waits until all reads before it are done, which keeps the read of the epoch after decryption.
    ///
    /// # Errors
    /// As [`Self::check_lease`] and [`Self::check_epoch`].
    #[inline]
    pub(crate) fn release(&self) -> Result<(), Error> {
        self.check_lease()?;
        self.check_epoch()
    }
}

/// A moment that readers see without a lock. Its two halves are read apart: each is a deadline of its own
/// clock, and both bind, so a mix of two published moments never outlasts the later one.
#[derive(Default)]
struct AtomicMoment {
    boot: AtomicU64,
    wall: AtomicU64,
}

impl AtomicMoment {
    #[inline]
    fn load(&self) -> Moment {
        Moment::from_nanos(self.boot.load(Ordering::SeqCst), self.wall.load(Ordering::SeqCst))
    }

    fn store(&self, moment: Moment) {
        self.boot.store(moment.boot_nanos(), Ordering::SeqCst);
        self.wall.store(moment.wall_nanos(), Ordering::SeqCst);
    }
}

/// Which 2^30 ns of the boot-time clock it is: a shift, where a second would cost a division.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "wraps after 146 years without a restart")]
pub(crate) const fn tick(now: Moment) -> u32 {
    (now.boot_nanos() >> 30) as u32
}

/// A deadline on both clocks, told by the wall clock as it stands now.
fn wall_time(now: Moment, deadline: Moment) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(now.wall_nanos()) + now.until(deadline)
}
