//! The lease machine: when an AEK may be used, when the KMS is asked again, when the key is wiped.
//!
//! One per account. It is sans-I/O: events and the time go in, [`Effects`] come out; it has no clock, no
//! thread and no key bytes, so its whole behaviour can be explored. The keeper feeds it. The rules, with
//! r the refresh interval, c the call deadline and G the grace:
//!
//! ```text
//! J = min(1.1 r, 60 s)      background unwraps start at most J apart while the KMS answers
//! F = J + 6 s + c           a lease is fresh until F after the start of its unwrap; a second attempt always fits
//! F + G                     nothing outlives this
//! ```
//!
//! Grace is earned again by every failed attempt: the n-th silent answer carries the lease to
//! `min(start + F + G, answer + F)`. So a refresher that stalls in the middle of an outage loses the lease as
//! surely as one that stalls outside of it.
//!
//! Of a failover custody the first provider is what all of this is about. While it is silent the second one is asked beside it, at the
//! pace of a refresh, and each of its successes carries the lease, as grace, to
//!
//! ```text
//! min(start + F, last verified answer of the first one + limit)
//! ```
//! A refusal by the first one, or news of one, bars the second until the first one unwraps again. Imports: `clock`, `error` (for `Refusal`), `id`.

mod event;
mod pace;
mod phase;
mod policy;
mod second;
mod shares;

use std::time::Duration;

use crate::clock::Moment;
use crate::error::Refusal;
use crate::id::Epoch;

pub(crate) use event::{Answer, AttemptId, Closed, Effects, Event, Publish};
pub(crate) use pace::Past;
use pace::{Flaps, Jitter, Tokens, spaced_from};
use phase::{Held, Phase, Seen};
use policy::Nanos;
pub(crate) use policy::{MAX_REFRESH, MIN_SPACING, Policy};
use shares::Beside;
pub(crate) use shares::MOST_SHARES;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Attempt {
    id: AttemptId,
    /// Begun in this epoch; worth nothing in another (invariant 1).
    epoch: Epoch,
    begun: Moment,
    /// Begun because it was due, not because somebody asked: only then does silence earn grace.
    due: bool,
    unlock: bool,
}

/// The machine of one account.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    policy: Policy,
    /// What the cache allows of it, before the record does.
    cache_grace: Nanos,
    phase: Phase,
    epoch: Epoch,
    attempt: Option<Attempt>,
    next_id: u64,
    last_begun: Option<Moment>,
    due: Moment,
    failures: u32,
    unlock_wanted: bool,
    /// A token was taken: the next attempt need not wait until it is due, nor keep its distance.
    asked: bool,
    tokens: Tokens,
    flaps: Flaps,
    jitter: Jitter,
    /// There was news during the attempt under way, which may have begun too early to see it.
    overtaken: bool,
    beside: Option<Box<Beside>>,
}

impl Lease {
    /// A machine without a key, due at once. `seed` spreads the refreshes of many accounts.
    pub(crate) fn new(policy: Policy, now: Moment, seed: u64) -> Self {
        Self {
            policy,
            cache_grace: policy.kept_grace(),
            phase: Phase::Cold,
            epoch: Epoch::FIRST,
            attempt: None,
            next_id: 0,
            last_begun: None,
            due: now,
            failures: 0,
            unlock_wanted: false,
            asked: false,
            tokens: Tokens::full(now),
            flaps: Flaps::default(),
            jitter: Jitter::new(seed),
            overtaken: false,
            beside: None,
        }
    }

    /// Takes in an event.
    pub(crate) fn on(&mut self, now: Moment, event: Event) -> Effects {
        // What time alone has decided comes first: no answer may find a lease alive that had ended.
        let expired = self.expire(now);
        let effects = match event {
            Event::Wake => Effects::default(),
            Event::Answered(id, answer) => self.on_answer(now, id, answer),
            Event::AuthoritySilent { begun, asked } => self.on_shared_silence(now, begun, asked),
            Event::AuthorityRefused | Event::RecordChanged => {
                self.ask_soon(now);
                Effects::default()
            }
            Event::StoodIn { epoch, started, confirmed, limit, max_grace } => {
                self.on_stood_in(now, epoch, started, confirmed.plus(limit), limit, max_grace)
            }
            Event::SecondRefused { epoch, refusal } => self.on_second_refused(now, epoch, refusal),
            Event::SecondRefusedPending { epoch } => self.on_second_pending(epoch),
            Event::Lock => self.on_lock(),
            Event::Unlock => self.on_unlock(now),
            Event::Delete => self.on_delete(),
            Event::Recover => self.on_recover(now),
            Event::Grace(grace) => self.on_grace(now, grace),
        };
        if now.reached(self.due) && !self.spaced(now) {
            // Due by the wall clock alone: from here on the distance decides, on the other clock.
            self.due = self.due.earlier(now);
        }
        if let Some(second) = self.second_mut() {
            second.keep_distance(now);
        }
        expired.then(effects)
    }

    /// Somebody asks for an attempt now (`ready`, `rotate`). False when the bucket is empty: the
    /// background schedule then has to do. An attempt under way will do, and costs no token.
    pub(crate) fn ask(&mut self, now: Moment) -> bool {
        if self.attempt.is_some() {
            // C4: whoever asks meanwhile shares its answer.
            return true;
        }
        self.asked = self.asked || self.tokens.take(now);
        self.asked
    }

    /// Whether an attempt should begin now.
    pub(crate) fn wants_attempt(&self, now: Moment) -> bool {
        self.attempt.is_none()
            && self.attempt_at().is_some_and(|at| now.reached(at))
            && (self.asked || self.spaced(now))
    }

    /// The attempt begins. Until it is answered, or a closing forgets it, no other one does (single flight).
    pub(crate) fn begin(&mut self, now: Moment) -> AttemptId {
        let id = AttemptId(self.next_id);
        self.next_id += 1;
        let unlock = self.phase == Phase::Locked;
        let due = now.reached(self.due);
        self.attempt = Some(Attempt { id, epoch: self.epoch, begun: now, due, unlock });
        self.last_begun = Some(now);
        if let Some(shares) = self.shares_mut() {
            shares.attempted = Some(now);
        }
        self.asked = false;
        self.unlock_wanted = false;
        self.overtaken = false;
        id
    }

    /// When the machine wants to be woken next. `None` while nothing but an event can change anything.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn wake_at(&self) -> Option<Moment> {
        self.wake_besides(Moment::from_nanos(0, 0), false, false)
    }

    /// The same, where an attempt, or a call of the second provider, waits for its turn already. What wants to be asked for a share `now` does, too.
    pub(crate) fn wake_besides(&self, now: Moment, attempt: bool, second: bool) -> Option<Moment> {
        let attempt = if attempt || self.attempt.is_some() { None } else { self.attempt_at() };
        let second = if second { None } else { self.second_at() };
        [attempt, second, self.shares_wake(now), self.expires_at()]
            .into_iter()
            .flatten()
            .reduce(Moment::earlier)
    }

    /// The epoch, as last published.
    pub(crate) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether the attempt `id` is the one under way, and was begun for `unlock`. Then it is current too: what closes a locked
    /// account once more takes the attempt away.
    pub(crate) fn is_unlock(&self, id: AttemptId) -> bool {
        self.attempt.is_some_and(|attempt| attempt.id == id && attempt.unlock)
    }

    /// Whether `id` is still the attempt whose success would count.
    pub(crate) fn is_current(&self, id: AttemptId) -> bool {
        self.attempt.is_some_and(|attempt| attempt.id == id && attempt.epoch == self.epoch)
    }

    /// Whether an unlock was asked for and has not ended.
    pub(crate) fn unlock_under_way(&self) -> bool {
        self.unlock_wanted || self.attempt.is_some_and(|attempt| attempt.unlock)
    }

    pub(crate) fn is_locked(&self) -> bool {
        self.phase == Phase::Locked
    }

    #[cfg(test)]
    pub(crate) const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What the cache is set to, whatever the record says.
    const fn cache_policy(&self) -> Policy {
        self.policy.with_grace(self.cache_grace)
    }

    fn attempt_at(&self) -> Option<Moment> {
        match self.phase {
            Phase::Deleted { .. } | Phase::Confirming(_) => None,
            Phase::Locked if !self.unlock_wanted => None,
            _ if self.asked => Some(Moment::from_nanos(0, 0)),
            _ => Some(self.due_spaced()),
        }
    }

    /// When the next background attempt is due, pushed back to its distance where it falls short of it.
    fn due_spaced(&self) -> Moment {
        spaced_from(self.due, self.last_begun)
    }

    /// C1: background unwraps start at least 6 s apart, on the boot-time clock: a wall clock that
    /// jumps about must not make us call more often.
    fn spaced(&self, now: Moment) -> bool {
        self.last_begun.is_none_or(|last| now.boot_nanos() >= last.plus(MIN_SPACING).boot_nanos())
    }

    /// When time alone will next change the state.
    pub(crate) fn expires_at(&self) -> Option<Moment> {
        let Phase::Held(held) = self.phase else { return None };
        let (fresh_until, valid_until) = self.deadlines()?;
        Some(match held.seen {
            Seen::Fresh => fresh_until,
            Seen::Grace => valid_until,
            Seen::Lapsed => held.since.map_or(valid_until, |since| since.plus(self.policy.usable_for())),
        })
    }

    fn on_answer(&mut self, now: Moment, id: AttemptId, answer: Answer) -> Effects {
        if matches!(answer, Answer::Refused(_) | Answer::RefusedPending(_)) {
            // Late or not: who refused is the first provider.
            self.bar_second();
        }
        let Some(attempt) = self.attempt.filter(|attempt| attempt.id == id) else {
            // Late, of an attempt given up: it decides nothing. But a refusal is a reason to ask, and so is
            // a success where the KMS was thought silent.
            let unavailable = self.phase == Phase::Unavailable;
            match answer {
                Answer::Refused(_) | Answer::RefusedPending(_) => self.ask_soon(now),
                Answer::Verified { .. } if unavailable => self.ask_soon(now),
                Answer::Verified { .. } | Answer::Transient | Answer::NotAsked | Answer::Integrity => {}
            }
            return Effects::default();
        };
        if let Answer::RefusedPending(refusal) = answer {
            return self.on_pending_refusal(attempt, refusal);
        }
        self.attempt = None;
        if attempt.epoch != self.epoch {
            // Closed since it began. Nothing of before the closing may open again.
            return Effects::default();
        }
        match answer {
            Answer::Verified { started, max_grace } => self.on_verified(now, attempt, started, max_grace),
            Answer::Transient => {
                self.first_is_silent(now, attempt.begun);
                self.on_silence(now, attempt.begun, attempt.due)
            }
            Answer::NotAsked => self.on_silence(now, attempt.begun, attempt.due),
            Answer::Integrity => self.on_integrity(now, attempt),
            Answer::Refused(refusal) | Answer::RefusedPending(refusal) => self.on_refused(now, refusal),
        }
    }

    fn on_verified(
        &mut self,
        now: Moment,
        attempt: Attempt,
        started: Moment,
        max_grace: Option<Duration>,
    ) -> Effects {
        match self.phase {
            Phase::Deleted { .. } => return Effects::default(),
            Phase::Locked if !attempt.unlock => return Effects::default(),
            _ => {}
        }
        let policy = self.cache_policy().shortened(max_grace);
        let fresh_until = started.plus(policy.fresh_for());
        if now.reached(fresh_until) {
            // The process slept between call and answer. Older than any lease may be: ask again.
            self.due = now;
            return match self.phase {
                // Neither refused nor let in: from here on it is an account without a key.
                Phase::Confirming(_) => self.close(Phase::Cold, Closed::NotReady),
                _ => Effects::default(),
            };
        }
        self.policy = policy;
        let was_held = matches!(self.phase, Phase::Held(held) if held.seen == Seen::Fresh);
        self.first_has_unwrapped(started);
        self.phase = Phase::Held(Held {
            since: Some(started),
            stood_in: None,
            silent_at: None,
            tainted: false,
            seen: Seen::Fresh,
        });
        self.failures = 0;
        self.last_begun = Some(started);
        let (low, high) = (policy.shortest_interval(), policy.longest_interval());
        self.due = started.plus(self.jitter.between(low, high));
        if self.overtaken {
            self.ask_soon(now);
        }
        Effects {
            publish: Some(Publish::Keys { fresh_until, valid_until: fresh_until }),
            notify: !was_held,
            alarm: false,
        }
    }

    fn on_silence(&mut self, now: Moment, begun: Moment, was_due: bool) -> Effects {
        let begun_lately = self.begun_lately(now, begun);
        match &mut self.phase {
            Phase::Held(held) => {
                if was_due && begun_lately {
                    held.silent_at = Some(now);
                }
                let publish = self
                    .deadlines()
                    .map(|(fresh_until, valid_until)| Publish::Extend { fresh_until, valid_until });
                self.back_off(begun, was_due, self.policy.longest_interval() / 2);
                let entered = self.expire(now);
                Effects { publish, ..Effects::default() }.then(entered)
            }
            Phase::Confirming(refusal) => {
                let refusal = *refusal;
                self.on_refused(now, refusal)
            }
            Phase::Cold => {
                self.back_off(begun, was_due, self.policy.refresh());
                Effects::default()
            }
            Phase::Unavailable | Phase::Revoked => {
                self.probe_later(now);
                Effects::default()
            }
            Phase::Locked | Phase::Deleted { .. } => Effects::default(),
        }
    }

    fn on_shared_silence(&mut self, now: Moment, begun: Moment, asked: bool) -> Effects {
        // Silence is shared, success is not: an account that was due when the failed call began need
        // not make the same call to learn the same thing (invariant 3).
        if self.attempt.is_some() || !begun.reached(self.due) {
            return Effects::default();
        }
        if asked {
            self.first_is_silent(now, begun);
        }
        match self.phase {
            Phase::Held(_) => self.on_silence(now, begun, true),
            _ => Effects::default(),
        }
    }

    /// C5: an attempt that took much longer than its deadline was cut short by our own sleep.
    fn begun_lately(&self, now: Moment, begun: Moment) -> bool {
        now.age_since(begun) < self.policy.call_deadline() + MIN_SPACING
    }

    fn on_integrity(&mut self, now: Moment, attempt: Attempt) -> Effects {
        let alarm = Effects { alarm: true, ..Effects::default() };
        // It has answered, so it is not silent.
        self.leave_others();
        match &mut self.phase {
            Phase::Held(held) if held.seen == Seen::Fresh => {
                held.tainted = true;
                held.stood_in = None;
                let publish = self
                    .deadlines()
                    .map(|(fresh_until, valid_until)| Publish::Extend { fresh_until, valid_until });
                self.back_off(attempt.begun, attempt.due, self.policy.longest_interval() / 2);
                let expired = self.expire(now);
                Effects { publish, ..alarm }.then(expired)
            }
            Phase::Held(_) | Phase::Cold => {
                self.probe_later(now);
                alarm.then(self.close(Phase::Unavailable, Closed::Integrity))
            }
            Phase::Confirming(refusal) => {
                let refusal = *refusal;
                alarm.then(self.on_refused(now, refusal))
            }
            Phase::Unavailable | Phase::Revoked => {
                self.probe_later(now);
                alarm
            }
            Phase::Locked | Phase::Deleted { .. } => alarm,
        }
    }

    fn on_pending_refusal(&mut self, attempt: Attempt, refusal: Refusal) -> Effects {
        if attempt.epoch != self.epoch {
            return Effects::default();
        }
        let effects = match self.phase {
            Phase::Held(_) => self.close(Phase::Confirming(refusal), Closed::NotReady),
            Phase::Cold | Phase::Unavailable | Phase::Confirming(_) => {
                self.phase = Phase::Confirming(refusal);
                Effects::default()
            }
            // Without a key anyway: the rest of the answer decides.
            Phase::Revoked | Phase::Locked | Phase::Deleted { .. } => Effects::default(),
        };
        // The second unwrap of this attempt starts after the refusal, so it counts in the new epoch.
        self.attempt = Some(Attempt { epoch: self.epoch, ..attempt });
        effects
    }

    fn on_refused(&mut self, now: Moment, refusal: Refusal) -> Effects {
        match self.phase {
            Phase::Locked | Phase::Deleted { .. } => return Effects::default(),
            Phase::Held(_) | Phase::Confirming(_) => self.flaps.note(now),
            _ => {}
        }
        let again = self.phase == Phase::Revoked;
        self.due = now.plus(self.jitter.near(self.flaps.back_off(now, self.policy.refresh())));
        if again { Effects::default() } else { self.close(Phase::Revoked, Closed::Revoked(refusal)) }
    }

    fn on_lock(&mut self) -> Effects {
        self.unlock_wanted = false;
        self.asked = false;
        match &mut self.phase {
            Phase::Deleted { locked } => {
                *locked = true;
                Effects::default()
            }
            // Locked again: an unlock under way is overtaken.
            _ => self.close(Phase::Locked, Closed::Locked),
        }
    }

    fn on_unlock(&mut self, now: Moment) -> Effects {
        // An attempt under way while locked is of an unlock already, begun after the lock.
        if self.phase == Phase::Locked && self.attempt.is_none() {
            self.unlock_wanted = true;
            // Without a token it keeps the distance of a background attempt (contract C1).
            self.due = now;
            self.asked = self.asked || self.tokens.take(now);
        }
        Effects::default()
    }

    fn on_delete(&mut self) -> Effects {
        self.unlock_wanted = false;
        match self.phase {
            Phase::Deleted { .. } => Effects::default(),
            phase => self.close(Phase::Deleted { locked: phase == Phase::Locked }, Closed::Deleted),
        }
    }

    fn on_recover(&mut self, now: Moment) -> Effects {
        let Phase::Deleted { locked } = self.phase else { return Effects::default() };
        self.due = now;
        if locked {
            self.close(Phase::Locked, Closed::Locked)
        } else {
            self.close(Phase::Cold, Closed::NotReady)
        }
    }

    fn on_grace(&mut self, now: Moment, grace: Duration) -> Effects {
        self.policy = self.policy.shortened(Some(grace));
        let publish =
            self.deadlines().map(|(fresh_until, valid_until)| Publish::Extend { fresh_until, valid_until });
        let ended = self.expire(now);
        Effects { publish, ..Effects::default() }.then(ended)
    }

    /// Applies what the passing of time alone decides.
    fn expire(&mut self, now: Moment) -> Effects {
        let Phase::Held(held) = self.phase else { return Effects::default() };
        let age = held.since.map_or(Duration::MAX, |since| now.age_since(since));
        let fresh = age < self.policy.fresh_for();
        let stands_in = held.stood_in.is_some_and(|end| !now.reached(end));
        if !fresh && held.tainted {
            self.probe_later(now);
            return self.close(Phase::Unavailable, Closed::Integrity);
        }
        if age >= self.policy.usable_for() && !stands_in {
            return if held.silent_at.is_some() {
                self.probe_later(now);
                self.close(Phase::Unavailable, Closed::Silent)
            } else {
                // Nobody asked the KMS in all this time: not its silence but ours.
                self.due = now;
                self.close(Phase::Cold, Closed::NotReady)
            };
        }
        if !fresh && held.silent_at.is_none() {
            // Past F after a sleep: nothing is earned before the KMS was asked.
            self.due = self.due.earlier(now);
        }
        let valid = self.deadlines().is_some_and(|(_, valid_until)| !now.reached(valid_until));
        let seen = match (fresh, valid) {
            (_, false) => Seen::Lapsed,
            (true, true) => Seen::Fresh,
            (false, true) => Seen::Grace,
        };
        self.phase = Phase::Held(Held { seen, ..held });
        Effects { notify: seen != held.seen, ..Effects::default() }
    }

    /// `fresh_until` and `valid_until` of the lease that is held.
    fn deadlines(&self) -> Option<(Moment, Moment)> {
        let Phase::Held(held) = self.phase else { return None };
        let Some(since) = held.since else {
            // A deadline of zero is always reached: what the second provider gives is never fresh.
            let never = Moment::from_nanos(0, 0);
            return Some((never, held.stood_in.unwrap_or(never)));
        };
        let fresh_until = since.plus(self.policy.fresh_for());
        let valid_until = match held.silent_at {
            Some(at) if !held.tainted => {
                at.plus(self.policy.fresh_for()).earlier(since.plus(self.policy.usable_for()))
            }
            _ => fresh_until,
        };
        // One or the other as a whole, because a mix would outlast both.
        let valid_until = match held.stood_in {
            Some(end) if end.boot_nanos() > valid_until.boot_nanos() => end,
            _ => valid_until,
        };
        // OK because silence comes after the start: `at + F` is past `since + F` unless a clock went
        // back, and then the earlier one is the safe one.
        Some((fresh_until, valid_until))
    }

    /// Every move to a keyless state: a new epoch, and nothing begun before it counts.
    fn close(&mut self, phase: Phase, why: Closed) -> Effects {
        if self.phase == phase && phase != Phase::Locked {
            return Effects::default();
        }
        if matches!(phase, Phase::Locked | Phase::Deleted { .. }) {
            self.leave_others();
        }
        self.phase = phase;
        self.epoch = self.epoch.next();
        self.attempt = match phase {
            Phase::Confirming(_) => self.attempt,
            _ => None,
        };
        Effects { publish: Some(Publish::Close { epoch: self.epoch, why }), notify: true, alarm: false }
    }

    /// There is news: the next attempt is due now, whatever one under way may say.
    fn ask_soon(&mut self, now: Moment) {
        self.due = self.due.earlier(now);
        self.overtaken = self.attempt.is_some();
    }

    /// Tries again 6 s after the failed attempt began, then after twice that, up to `most`.
    fn back_off(&mut self, begun: Moment, was_due: bool, most: Duration) {
        let doubled = MIN_SPACING * (1 << self.failures.min(4));
        let wait = doubled.min(most).max(MIN_SPACING);
        // The first retry is exact: F leaves room for one that starts 6 s after the first and takes c.
        let wait = if self.failures == 0 { wait } else { self.jitter.near(wait) };
        self.failures = self.failures.saturating_add(1);
        let again = begun.plus(wait);
        // An attempt that was asked for must not put off the one that is due, which alone can earn grace.
        self.due = if was_due { again } else { self.due.earlier(again) };
    }

    /// Probes every r: what has failed for good is asked at the pace of a healthy refresh.
    fn probe_later(&mut self, now: Moment) {
        self.due = now.plus(self.jitter.near(self.policy.refresh()));
    }
}

#[cfg(test)]
mod tests;
