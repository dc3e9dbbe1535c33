//! An account, as the control plane holds it.
//!
//! All that changes it passes through one mutex per account: an event goes into the lease machine, its
//! effects are published to the data plane, and only then is everybody told who waits or listens (invariant 5).
//! Imports: `account::*`, `block`, `lease`, `keeper`, `expect`, `record_store`, `provider`, `clock`, `id`, `error`.

#[cfg(feature = "metrics")]
pub(crate) mod glance;
mod limits;

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::budget::{Bell, Budgets};
use super::events::{Bus, Transition};
use super::failover::Recorded;
use super::refresh::{Adopt, Known, KnownAtRest, Refreshed};
use super::seats::Seat;
use super::settings::Settings;
use super::state::{AccountState, Keyless, Keys, Status, UnavailableCause};
use super::usage::LimitWarning;
use super::waits::Waiter;
use crate::block::GenerationKeys;
use crate::clock::{Clock, Moment};
use crate::error::{Error, ErrorKind};
use crate::expect::Expect;
use crate::format::record::{AccountRecord, Custody, Held, Sequence};
use crate::id::{AccountId, Generation};
use crate::keeper::{Destination, KeeperHandle, Message};
use crate::lease::{
    Answer, AttemptId, Closed, Effects, Event, Lease, MIN_SPACING, MOST_SHARES, Past, Publish,
};
use crate::provider::KeyProvider;
use crate::record_store::RecordStore;

/// Names an account within its cache's life: an id can be attached, dropped and attached again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AccountKey(u64);

/// The account, as the control plane holds it.
pub(crate) struct AccountInner {
    pub(super) state: AccountState,
    key: AccountKey,
    parts: Parts,
    destination: Destination,
    /// Where the second provider of a failover custody is asked.
    second: Option<Box<Destination>>,
    /// Where all providers are asked together, where that is another one.
    everyone: Option<Box<Destination>>,
    /// How many slots a record of this account has: its custody and its suite are for good.
    slots: u32,
    /// Counts refreshes, so that each KMS of several is asked first in its turn.
    turn: AtomicU32,
    control: Mutex<Control>,
}

/// What an account is made of, besides its record.
pub(crate) struct Parts {
    pub(crate) expect: Expect,
    pub(crate) store: Option<Arc<dyn RecordStore>>,
    pub(crate) common: Arc<Common>,
}

/// What the accounts of a cache have in common.
pub(crate) struct Common {
    pub(crate) settings: Settings,
    pub(crate) keeper: KeeperHandle,
    pub(crate) bus: Arc<Bus>,
    /// Rung by any account of the cache whose generation nears a limit.
    pub(crate) limits_bell: Bell,
    /// Takes over what an account has counted.
    #[cfg(feature = "metrics")]
    pub(crate) departed: Arc<super::tally::Tally>,
}

pub(super) struct Control {
    pub(super) lease: Lease,
    pub(super) known: KnownAtRest,
    pub(super) waiters: Vec<Waiter>,
    /// Attempts that have ended, to tell what a waiter has waited for.
    pub(super) ended: u64,
    pub(super) last_failure: Option<Box<Error>>,
    /// Of a failover custody.
    pub(super) recorded: Recorded,
    newer_kek_version: bool,
    /// Of each generation that may seal.
    budgets: Budgets,
    /// What was told of the limits.
    warned: Option<LimitWarning>,
    next_version_check: Option<Moment>,
    next_look: Option<Moment>,
    /// The cache is shut down, or the last handle dropped: nobody is left to answer a wait.
    pub(super) retired: bool,
    /// Its place among the accounts that the cache's cap on calls can serve; given back once it is retired.
    seat: Option<Seat>,
}

/// What an account that was taken out of use leaves to the next one of its id.
pub(crate) struct Departed {
    pub(crate) legacy: Legacy,
    /// Of the newest record that was authenticated.
    pub(crate) sequence: Option<Sequence>,
}

/// What the next one goes on from.
#[derive(Clone)]
pub(crate) struct Legacy {
    past: Past,
    budgets: Budgets,
    recorded: Recorded,
}

impl Control {
    fn legacy(&self, past: Past) -> Legacy {
        Legacy { past, budgets: Arc::clone(&self.budgets), recorded: self.recorded.clone() }
    }
}

/// What the event loop asks of an account.
pub(crate) struct Schedule {
    pub(crate) wants_attempt: bool,
    pub(crate) wants_second: bool,
    /// Of each share of a joint custody, whether it wants to be asked for alone.
    pub(crate) wants_shares: [bool; MOST_SHARES],
    pub(crate) wake_at: Option<Moment>,
}

impl AccountKey {
    pub(crate) const fn new(number: u64) -> Self {
        Self(number)
    }
}

impl AccountInner {
    /// An account without a key. `seed` spreads its refreshes among those of others; `legacy` is what an earlier one of
    /// its id has left.
    ///
    /// # Errors
    /// As [`Expect::admit`]: the record is not the expected one.
    pub(crate) fn new(
        key: AccountKey,
        clock: Clock,
        known: Known,
        parts: Parts,
        seed: u64,
        legacy: Option<Legacy>,
    ) -> Result<Self, Error> {
        let providers = parts.expect.admit(&known.record)?;
        let asked = |held: Vec<Held<'_>>| {
            let asked: Vec<_> = held.iter().filter_map(|held| providers.get(held.at).cloned()).collect();
            Destination::of_all(&asked)
        };
        let destination = asked(known.record.held());
        let second = known.record.held_by_second().map(asked).map(Box::new);
        let everyone = Destination::of_all(&providers);
        let everyone = (everyone != destination).then(|| Box::new(everyone));
        let fresh = Lease::new(parts.common.settings.policy, clock.now(), seed);
        let fresh = match known.record.custody() {
            Custody::Failover { .. } => fresh.with_second(),
            Custody::Joint { .. } => fresh.with_shares(),
            Custody::Single(_) => fresh,
        };
        let (lease, budgets, recorded) = match legacy {
            Some(Legacy { past, budgets, recorded }) => (fresh.following(past), budgets, recorded),
            None => (fresh, Budgets::default(), Recorded::default()),
        };
        let id = known.record.account();
        let control = Control {
            lease,
            known: KnownAtRest::of(known),
            waiters: Vec::new(),
            ended: 0,
            last_failure: None,
            recorded,
            newer_kek_version: false,
            budgets,
            warned: None,
            next_version_check: None,
            next_look: None,
            retired: false,
            seat: None,
        };
        Ok(Self {
            state: AccountState::new(id, clock, control.lease.epoch()),
            key,
            parts,
            destination,
            second,
            everyone,
            slots: u32::try_from(providers.len()).unwrap_or(1),
            turn: AtomicU32::new(0),
            control: Mutex::new(control),
        })
    }

    pub(crate) const fn id(&self) -> AccountId {
        self.state.id()
    }

    pub(crate) const fn key(&self) -> AccountKey {
        self.key
    }

    /// Takes its seat in the cache.
    pub(crate) fn sit(&self, seat: Seat) {
        let mut control = self.lock_control();
        if !control.retired {
            control.seat = Some(seat);
        }
    }

    /// When somebody last used it, or began to wait for it, in ticks of about a second.
    pub(crate) fn last_used(&self) -> u32 {
        self.state.last_used()
    }

    pub(crate) const fn destination(&self) -> &Destination {
        &self.destination
    }

    pub(crate) fn second_destination(&self) -> Option<&Destination> {
        self.second.as_deref()
    }

    pub(crate) const fn slots(&self) -> u32 {
        self.slots
    }

    pub(crate) fn destination_of_all(&self) -> &Destination {
        self.everyone.as_deref().unwrap_or(&self.destination)
    }

    pub(crate) fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed) as usize
    }

    pub(crate) const fn expect(&self) -> &Expect {
        &self.parts.expect
    }

    /// Which provider to ask about `record`, if it is as expected of what follows `known`.
    ///
    /// # Errors
    /// As [`Expect::admit`].
    pub(crate) fn admit(
        &self,
        known: &Known,
        record: &AccountRecord,
    ) -> Result<Vec<Arc<dyn KeyProvider>>, Error> {
        match known.verified {
            Some(_) => self.expect().admit_next(record),
            None => self.expect().admit(record),
        }
    }

    pub(crate) fn store(&self) -> Option<&dyn RecordStore> {
        self.parts.store.as_deref()
    }

    /// The same, to be named as a destination of calls.
    pub(crate) const fn record_store(&self) -> Option<&Arc<dyn RecordStore>> {
        self.parts.store.as_ref()
    }

    /// Does `then` with the keys of `generation` that a lease holds now; `None` without one. Not to be used for anything that waits: what
    /// is held here is not wiped.
    pub(crate) fn with_keys<T>(
        &self,
        generation: Generation,
        then: impl FnOnce(&GenerationKeys) -> T,
    ) -> Option<T> {
        let guard = self.state.enter(None).ok()?;
        guard.check_lease().ok()?;
        let done = then(guard.keys(generation).ok()?);
        guard.release().ok()?;
        Some(done)
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.parts.common.settings
    }

    pub(crate) fn keeper(&self) -> &KeeperHandle {
        &self.parts.common.keeper
    }

    pub(crate) fn clock(&self) -> &Clock {
        self.state.clock()
    }

    /// What the KMS last answered, where that was not a key.
    pub(super) fn last_failure(&self) -> Option<Error> {
        self.lock_control().last_failure.as_deref().cloned()
    }

    pub(crate) fn known(&self) -> Known {
        self.lock_control().known.wake()
    }

    /// Goes by `known` from now on: a record that this process has just persisted.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where no store has decided, and a change that was made meanwhile was acknowledged first.
    pub(crate) fn replace_known(&self, known: Known) -> Result<(), Error> {
        let mut control = self.lock_control();
        if control.known.yield_to(known.clone()) {
            self.follow_limits(&mut control, &known);
        } else if self.store().is_none() {
            let message = "the record was changed meanwhile: nothing was changed, retry";
            return Err(Error::new(ErrorKind::Conflict, message).with_account(self.id()));
        }
        // With a store a refresh has brought a newer one, which follows this.
        Ok(())
    }

    /// Tells the engine that a newer KEK version waits for somebody to persist a record.
    pub(crate) fn announce_newer_version(&self, newer: bool) {
        let mut control = self.lock_control();
        if control.newer_kek_version != newer {
            control.newer_kek_version = newer;
            self.post(&control);
        }
    }

    pub(crate) fn schedule(&self, now: Moment) -> Schedule {
        let control = self.lock_control();
        if control.retired {
            let wants_shares = [false; MOST_SHARES];
            return Schedule { wants_attempt: false, wants_second: false, wants_shares, wake_at: None };
        }
        let wants_attempt = control.lease.wants_attempt(now);
        // What wants to start waits for its turn, not for a timer.
        let wants_second = control.lease.wants_second(now);
        let wants_shares = std::array::from_fn(|at| control.lease.wants_share(now, at));
        let wake_at = control.lease.wake_besides(now, wants_attempt, wants_second);
        Schedule { wants_attempt, wants_second, wants_shares, wake_at }
    }

    /// Begins the attempt that is due, if one still is.
    pub(crate) fn begin_attempt(&self, now: Moment) -> Option<AttemptId> {
        let mut control = self.lock_control();
        (!control.retired && control.lease.wants_attempt(now)).then(|| control.lease.begin(now))
    }

    /// Takes the account out of use for good, where its only handle is about to be dropped. `None`, and nothing is done,
    /// while an attempt is under way, somebody waits for it, or it is to stay locked.
    ///
    /// From here on it makes no call, and another account of its id may be attached.
    pub(crate) fn depart(&self) -> Option<Departed> {
        let mut control = self.lock_control();
        if control.waiters.iter().any(|waiter| !waiter.completer.is_given_up()) {
            return None;
        }
        let past = control.lease.past()?;
        control.retired = true;
        control.seat = None;
        let sequence = control.known.verified_sequence();
        Some(Departed { legacy: control.legacy(past), sequence })
    }

    /// What it leaves now, whatever is under way. Where that is `for_good`, it begins no call after this.
    pub(crate) fn leave(&self, for_good: bool) -> Legacy {
        let mut control = self.lock_control();
        if for_good {
            control.retired = true;
            control.seat = None;
        }
        control.legacy(control.lease.past_so_far())
    }

    /// The last handle was dropped: the account closes for good, and the event loop forgets it.
    pub(super) fn detach(&self) {
        self.retire();
        self.parts.common.keeper.send(Message::Detach(self.key));
    }

    /// Closes the account for good, because its cache ends or nobody holds it any more.
    pub(crate) fn retire(&self) {
        {
            let mut control = self.lock_control();
            control.retired = true;
            control.seat = None;
        }
        self.feed(self.state.clock().now(), Event::Lock);
    }

    /// Whether it is closed for good. A worker, a fence or a guarded value may still hold it.
    pub(crate) fn is_retired(&self) -> bool {
        self.lock_control().retired
    }

    /// Takes in an event that brings no key.
    pub(crate) fn feed(&self, now: Moment, event: Event) {
        let mut control = self.lock_control();
        let effects = control.lease.on(now, event);
        self.apply(&mut control, effects, None);
        let ended = self.settle(&mut control, None);
        drop(control);
        ended.tell();
    }

    /// Takes in the end of an attempt. True when the account has just become revoked by it.
    pub(crate) fn take_refreshed(
        self: &Arc<Self>,
        now: Moment,
        attempt: AttemptId,
        refreshed: Refreshed,
    ) -> bool {
        let mut control = self.lock_control();
        let current = control.lease.is_current(attempt);
        let unlock = control.lease.is_unlock(attempt);
        let failure = refreshed.failure().cloned();
        let mut renewal = None;
        let (event, adopt) = match refreshed {
            Refreshed::Verified(mut adopt) => {
                renewal = adopt.renewal.take().map(|renewal| (renewal, adopt.known.clone()));
                let answer = Answer::Verified { started: adopt.started, max_grace: Some(adopt.grace) };
                (Event::Answered(attempt, answer), Some(*adopt))
            }
            Refreshed::Silent(_) => (Event::Answered(attempt, Answer::Transient), None),
            Refreshed::NoRecord(_) | Refreshed::OneShare => {
                (Event::Answered(attempt, Answer::NotAsked), None)
            }
            Refreshed::Wrong(_) => (Event::Answered(attempt, Answer::Integrity), None),
            Refreshed::Refused(refusal, _) => (Event::Answered(attempt, Answer::Refused(refusal)), None),
            Refreshed::Deleted(known) => match control.known.yield_to(known) {
                true => (Event::Delete, None),
                // Recovered since by a newer record. Nothing was learned; the next attempt reads that one.
                false => (Event::Answered(attempt, Answer::NotAsked), None),
            },
            // Purged: there is no record to go by any more.
            Refreshed::Purged => (Event::Delete, None),
        };
        if current {
            control.ended += 1;
            control.last_failure = failure.clone().map(Box::new);
        }
        let effects = control.lease.on(now, event);
        self.apply(&mut control, effects, adopt);
        let ended = self.settle(&mut control, unlock.then_some(failure));
        self.follow_versions(now, &mut control);
        drop(control);
        ended.tell();
        // What was too old to open the account says nothing of the first provider either.
        let opened = matches!(effects.publish, Some(Publish::Keys { .. }));
        if let Some((renewal, known)) = renewal.filter(|_| opened) {
            self.begin_renewal(renewal, &known);
        }
        matches!(effects.publish, Some(Publish::Close { why: Closed::Revoked(_), .. }))
    }

    /// Takes in what a look at the record has found: that the account is deleted, by the record that is given, or purged.
    pub(super) fn take_deletion(&self, now: Moment, known: Option<Known>) {
        let mut control = self.lock_control();
        // Recovered since, where this does not yield.
        if known.is_none_or(|known| control.known.yield_to(known)) {
            self.close_deleted(now, control);
        }
    }

    /// Takes in that the account is deleted, by an authentic record of this sequence: unless it was recovered since, by the one that it goes by.
    pub(crate) fn heed_deletion(&self, now: Moment, sequence: Sequence) {
        let control = self.lock_control();
        if control.known.verified_sequence().is_none_or(|known| known <= sequence) {
            self.close_deleted(now, control);
        }
    }

    fn close_deleted(&self, now: Moment, mut control: MutexGuard<'_, Control>) {
        let effects = control.lease.on(now, Event::Delete);
        self.apply(&mut control, effects, None);
        let ended = self.settle(&mut control, None);
        drop(control);
        ended.tell();
    }

    /// Whether it is time for another look at the record: while there are keys, and half a refresh interval after the one before. With what is
    /// between two silences that is no longer than between two refreshes.
    pub(super) fn may_look(&self) -> bool {
        let now = self.state.clock().now();
        let mut control = self.lock_control();
        let held = matches!(self.state.status(), Status::Fresh { .. } | Status::Grace { .. });
        if !held || control.retired || control.next_look.is_some_and(|next| !now.reached(next)) {
            return false;
        }
        control.next_look = Some(now.plus((self.settings().policy.refresh() / 2).max(MIN_SPACING)));
        true
    }

    /// Looks for a newer KEK version when it is time to: first soon after attaching, because a look that is put off at
    /// every restart is never taken.
    fn follow_versions(self: &Arc<Self>, now: Moment, control: &mut Control) {
        if !matches!(self.state.status(), Status::Fresh { .. }) {
            return;
        }
        match control.next_version_check {
            Some(at) if !now.reached(at) => {}
            // With the first key there is better to do: the second refresh looks.
            None => control.next_version_check = Some(now),
            Some(_) => {
                control.next_version_check = Some(now.plus(self.settings().version_check));
                self.begin_follow_versions();
            }
        }
    }

    /// Brings the first key into use, of an account that was just created, unless a shutdown has locked it already.
    pub(crate) fn adopt_first(&self, now: Moment, adopt: Adopt) {
        let mut control = self.lock_control();
        if control.lease.is_locked() {
            return;
        }
        let attempt = control.lease.begin(now);
        let answer = Answer::Verified { started: adopt.started, max_grace: Some(adopt.grace) };
        let effects = control.lease.on(now, Event::Answered(attempt, answer));
        self.apply(&mut control, effects, Some(adopt));
    }

    /// Publishes, then tells (invariant 5).
    pub(super) fn apply(&self, control: &mut Control, effects: Effects, adopt: Option<Adopt>) {
        let (mut limit, mut shortened) = (false, Effects::default());
        match effects.publish {
            Some(Publish::Keys { fresh_until, valid_until }) => {
                let adopt = adopt.expect("the machine publishes keys only in answer to a verified unwrap");
                // A rotation may have brought a newer record since this unwrap began; the AEK is the same.
                let yields = control.known.yield_to(adopt.known.clone());
                let known = if yields { adopt.known } else { control.known.wake() };
                self.follow_limits(control, &known);
                let keys = Keys { ring: adopt.ring, budgets: Arc::clone(&control.budgets) };
                self.state.publish_keys(control.lease.epoch(), keys, fresh_until, valid_until);
                limit = control.warns_anew(self.clock().now(), &known);
                if !yields {
                    // What the unwrap began by allows the grace of before: that of the record in force is shorter, or counts from the next one.
                    let grace = self.settings().grace.allowed_by(known.record.policy());
                    shortened = control.lease.on(self.clock().now(), Event::Grace(grace));
                }
            }
            Some(Publish::Extend { fresh_until, valid_until }) => self.state.extend(fresh_until, valid_until),
            Some(Publish::Close { epoch, why }) => self.state.close(epoch, keyless(why)),
            None => {}
        }
        if effects.notify || effects.alarm || limit {
            self.post(control);
        }
        if shortened != Effects::default() {
            self.apply(control, shortened, None);
        }
    }

    fn post(&self, control: &Control) {
        self.parts.common.bus.post(&Transition {
            account: self.id(),
            epoch: control.lease.epoch(),
            status: self.state.status(),
            cause: control.last_failure.as_deref().cloned(),
            newer_kek_version: control.newer_kek_version,
            limit: control.warned,
        });
    }

    /// Has the event loop look at the account's timers.
    pub(crate) fn poke(&self) {
        self.parts.common.keeper.send(Message::Poke(self.key));
    }

    pub(super) fn lock_control(&self) -> MutexGuard<'_, Control> {
        // A panic under this lock would be our own; the data plane is bound by its deadline all the same.
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for AccountInner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)
    }
}

const fn keyless(why: Closed) -> Keyless {
    match why {
        Closed::NotReady => Keyless::NotReady,
        Closed::Silent => Keyless::Unavailable(UnavailableCause::Silent),
        Closed::Integrity => Keyless::Unavailable(UnavailableCause::Integrity),
        Closed::Revoked(refusal) => Keyless::Revoked(refusal),
        Closed::Locked => Keyless::Locked,
        Closed::Deleted => Keyless::Deleted,
    }
}

#[cfg(test)]
mod tests;
