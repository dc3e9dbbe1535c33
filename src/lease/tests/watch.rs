//! The contract as an observer: it is shown what a keeper sees, and says which rule was broken.
//!
//! It never looks into a machine, so a history written by hand can be shown to it as well: `forged` does that,
//! one forged history for each rule. A rule that flags nothing would prove nothing.

use super::*;

/// One thing that a keeper sees.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Took(Event, Effects),
    /// `ask` said yes.
    Asked,
    Began(AttemptId),
}

/// The rule that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breach {
    /// Keys without a success of the attempt under way, begun (and started) after the last closing.
    UnearnedKeys,
    /// Keys after `lock` or `delete` without `unlock` or `recover`.
    OpenedBehindALock,
    /// A success that counts published nothing.
    SuccessIgnored,
    /// Other deadlines than since + F, or min(silence + F, since + F + G).
    WrongDeadline,
    /// The data plane would still use a key that has ended.
    UsableTooLong,
    /// A key that has ended was not wiped when the machine was woken.
    NotWiped,
    /// A refusal, lock or deletion left keys.
    NotClosed,
    /// A closing with a reason that nothing gave.
    WrongReason,
    EpochNotNew,
    EpochUnpublished,
    /// A closing, or an alarm, that nobody was told of; or an alarm for nothing.
    WrongNotice,
    /// Less than 6 s between background starts (C1).
    TooSoon,
    /// More starts on request than the bucket has tokens for (C1).
    TooManyRequests,
    TwoInFlight,
    CallWhileClosed,
    BusyLoop,
    NeverAsksAgain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) since: Moment,
    pub(super) valid_until: Moment,
    pub(super) max_grace: Option<Duration>,
    /// The last silence that counted.
    pub(super) earned: Option<Moment>,
    /// Any silence at all, due or not.
    silent: bool,
    /// A silence of which it is certain, from outside, that it counted.
    surely_silent: bool,
    pub(super) tainted: bool,
    /// Nothing has happened since that could make an attempt due early.
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flight {
    id: AttemptId,
    begun: Moment,
    /// A success counts if it started here or later: the beginning, or the refusal since.
    pub(super) counts_from: Moment,
    pub(super) due: Due,
    pub(super) unlock: bool,
    pub(super) refused: Option<Refusal>,
    /// There was news meanwhile, so what follows may be due early.
    news: bool,
}

/// Whether an attempt was due, as far as can be told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Due {
    Yes,
    No,
    Perhaps,
}

#[derive(Clone, Debug)]
pub(super) struct Watch {
    policy: Policy,
    pub(super) keys: Option<Keys>,
    pub(super) flight: Option<Flight>,
    pub(super) why: Closed,
    epoch: Epoch,
    pub(super) locked: bool,
    pub(super) deleted: bool,
    pub(super) unlock_wanted: bool,
    pub(super) requested: bool,
    pub(super) last_start: Option<Moment>,
    /// Seconds of boot time that are paid for: a start on request costs 6 of at most 24 (three tokens and
    /// one that was taken before).
    credit: Duration,
    credit_at: Moment,
}

impl Watch {
    pub(super) fn new(policy: Policy, now: Moment) -> Self {
        Self {
            policy,
            keys: None,
            flight: None,
            why: Closed::NotReady,
            epoch: Epoch::FIRST,
            locked: false,
            deleted: false,
            unlock_wanted: false,
            requested: false,
            last_start: None,
            credit: Self::MOST_CREDIT,
            credit_at: now,
        }
    }

    const MOST_CREDIT: Duration = Duration::from_secs(24);

    pub(super) const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether the account has to come back by itself (C9, D7).
    pub(super) const fn should_ask(&self) -> bool {
        !self.locked && !self.deleted
    }

    pub(super) fn seen(&self, now: Moment) -> Seen {
        match self.keys {
            None => Seen::Closed(self.why),
            Some(keys) if now.reached(keys.valid_until) => Seen::Lapsed,
            Some(keys) if now.age_since(keys.since) < self.policy.fresh_for() => Seen::Fresh,
            Some(_) => Seen::Grace,
        }
    }

    pub(super) fn see(&mut self, now: Moment, step: Step) -> Result<(), Breach> {
        match step {
            Step::Asked => self.requested |= self.flight.is_none(),
            Step::Began(id) => self.began(now, id)?,
            Step::Took(event, effects) => self.took(now, event, effects)?,
        }
        self.check_usable(now)
    }

    fn began(&mut self, now: Moment, id: AttemptId) -> Result<(), Breach> {
        if self.flight.is_some() {
            return Err(Breach::TwoInFlight);
        }
        if self.deleted || (self.locked && !self.unlock_wanted) {
            return Err(Breach::CallWhileClosed);
        }
        let passed =
            |since: Moment| Duration::from_nanos(now.boot_nanos().saturating_sub(since.boot_nanos()));
        self.credit = (self.credit + passed(self.credit_at)).min(Self::MOST_CREDIT);
        self.credit_at = now;
        let on_request = self.requested || self.unlock_wanted;
        if self.last_start.is_some_and(|last| passed(last) < MIN_SPACING) {
            if !on_request {
                return Err(Breach::TooSoon);
            }
            self.credit = self.credit.checked_sub(MIN_SPACING).ok_or(Breach::TooManyRequests)?;
        }
        let due = if on_request { self.due(now) } else { Due::Yes };
        let unlock = self.locked;
        self.flight =
            Some(Flight { id, begun: now, counts_from: now, due, unlock, refused: None, news: false });
        self.last_start = Some(now);
        self.requested = false;
        self.unlock_wanted = false;
        Ok(())
    }

    /// Whether a lease that nothing has disturbed can be due for its refresh.
    fn due(&self, at: Moment) -> Due {
        match self.keys {
            Some(keys) if keys.quiet && at.age_since(keys.since) < self.earliest_refresh() => Due::No,
            _ => Due::Perhaps,
        }
    }

    fn earliest_refresh(&self) -> Duration {
        self.policy.refresh().mul_f64(0.9).max(MIN_SPACING)
    }

    fn took(&mut self, now: Moment, event: Event, effects: Effects) -> Result<(), Breach> {
        let was = self.clone();
        let ended = self.keys.filter(|keys| self.ended(now, keys));
        if ended.is_some() {
            // Time comes before the event: what was under way is worth nothing any more.
            self.keys = None;
            self.flight = None;
        }
        let flight = match event {
            Event::Answered(id, _) => self.flight.filter(|flight| flight.id == id),
            _ => None,
        };
        let answer = match event {
            Event::Answered(_, answer) if flight.is_some() => Some(answer),
            _ => None,
        };
        let earns = self.earns(now, event, flight);
        self.note(now, event, answer);
        // Grace that is made shorter may end the lease now.
        let shortened = self.keys.filter(|keys| matches!(event, Event::Grace(_)) && self.ended(now, keys));
        let ended = ended.or(shortened);
        if let Some(keys) = &mut self.keys {
            keys.surely_silent |= earns == Due::Yes;
        }
        match effects.publish {
            Some(Publish::Keys { fresh_until, valid_until }) => {
                self.check_keys(&was, flight.zip(answer), fresh_until, valid_until)?;
            }
            Some(Publish::Extend { fresh_until, valid_until }) => {
                self.check_extend(now, earns, fresh_until, valid_until)?;
            }
            Some(Publish::Close { epoch, why }) => {
                was.check_reason(now, event, flight.zip(answer), ended.as_ref(), why)?;
                if epoch <= self.epoch {
                    return Err(Breach::EpochNotNew);
                }
                self.keys = None;
                self.why = why;
                self.epoch = epoch;
                if !matches!(answer, Some(Answer::RefusedPending(_))) {
                    self.flight = None;
                }
            }
            None if earns == Due::Yes => return Err(Breach::WrongDeadline),
            None => {}
        }
        self.check_duties(now, &was, event, answer, &effects, ended.is_some())
    }

    /// Takes in what the event means, whatever the machine makes of it.
    fn note(&mut self, now: Moment, event: Event, answer: Option<Answer>) {
        match (answer, &mut self.flight) {
            (Some(Answer::RefusedPending(refusal)), Some(flight)) => {
                flight.refused = Some(refusal);
                flight.counts_from = now;
            }
            (Some(_), flight) => *flight = None,
            (None, Some(flight)) => flight.news |= !matches!(event, Event::Wake),
            (None, None) => {}
        }
        let earliest = self.earliest_refresh();
        if let Some(keys) = &mut self.keys {
            keys.tainted |= answer == Some(Answer::Integrity);
            keys.silent |= matches!(event, Event::AuthoritySilent { .. }) || answer.is_some_and(is_silence);
            // Once the refresh was due it stays so, though the wall clock that ran ahead is set back.
            let early = now.age_since(keys.since) < earliest;
            keys.quiet &= early && matches!(event, Event::Wake);
        }
        match event {
            Event::Lock => {
                self.locked = true;
                self.unlock_wanted = false;
                self.requested = false;
            }
            Event::Unlock => self.unlock_wanted |= self.locked && !self.deleted && self.flight.is_none(),
            Event::Delete => self.deleted = true,
            Event::Recover => self.deleted = false,
            Event::Grace(most) => {
                if let Some(keys) = &mut self.keys {
                    keys.max_grace = Some(keys.max_grace.map_or(most, |before| before.min(most)));
                }
            }
            _ => {}
        }
    }

    /// Whether the event is a silence that earns grace (C5).
    fn earns(&self, now: Moment, event: Event, flight: Option<Flight>) -> Due {
        let (begun, due) = match (self.keys, event, flight) {
            (Some(_), Event::Answered(_, answer), Some(flight)) if is_silence(answer) => {
                (flight.begun, flight.due)
            }
            (Some(_), Event::AuthoritySilent { begun, .. }, _) if self.flight.is_none() => {
                (begun, self.due(begun))
            }
            _ => return Due::No,
        };
        // An attempt that outlived its deadline by far was held up by us, not by the KMS.
        let held_up = now.age_since(begun) >= self.policy.call_deadline() + MIN_SPACING;
        if held_up { Due::No } else { due }
    }

    fn check_keys(
        &mut self,
        was: &Self,
        success: Option<(Flight, Answer)>,
        fresh_until: Moment,
        valid_until: Moment,
    ) -> Result<(), Breach> {
        let Some((flight, Answer::Verified { started, max_grace })) = success else {
            return Err(Breach::UnearnedKeys);
        };
        if started.boot_nanos() < flight.counts_from.boot_nanos() {
            return Err(Breach::UnearnedKeys);
        }
        if was.deleted || (was.locked && !flight.unlock) {
            return Err(Breach::OpenedBehindALock);
        }
        if fresh_until != valid_until || valid_until != started.plus(self.policy.fresh_for()) {
            return Err(Breach::WrongDeadline);
        }
        self.keys = Some(Keys { quiet: !flight.news, ..Keys::new(started, valid_until, max_grace) });
        self.locked = false;
        Ok(())
    }

    fn check_extend(
        &mut self,
        now: Moment,
        earns: Due,
        fresh_until: Moment,
        valid_until: Moment,
    ) -> Result<(), Breach> {
        let held = self.keys.ok_or(Breach::UnearnedKeys)?;
        let earned = earns != Due::No && valid_until == self.valid_until(&held, Some(now));
        let stays = earns != Due::Yes && valid_until == self.valid_until(&held, held.earned);
        if fresh_until != held.since.plus(self.policy.fresh_for()) || !(earned || stays) {
            return Err(Breach::WrongDeadline);
        }
        let earned = if earned { Some(now) } else { held.earned };
        self.keys = Some(Keys { valid_until, earned, ..held });
        Ok(())
    }

    /// Called on the state before the event.
    fn check_reason(
        &self,
        now: Moment,
        event: Event,
        answer: Option<(Flight, Answer)>,
        ended: Option<&Keys>,
        why: Closed,
    ) -> Result<(), Breach> {
        // Silence met while the wall clock was behind may have ended the lease before F: then it is no longer fresh.
        let fresh = self.keys.is_some_and(|keys| {
            now.age_since(keys.since) < self.policy.fresh_for() && !now.reached(keys.valid_until)
        });
        let pending = answer.and_then(|(flight, _)| flight.refused);
        let answer = answer.map(|(_, answer)| answer);
        let given = match why {
            Closed::Locked => {
                (event == Event::Lock && !self.deleted)
                    || (event == Event::Recover && self.deleted && self.locked)
            }
            Closed::Deleted => event == Event::Delete,
            Closed::Revoked(refusal) => {
                answer == Some(Answer::Refused(refusal)) || (answer.is_some() && pending == Some(refusal))
            }
            Closed::Silent => ended.is_some_and(|keys| keys.silent && !keys.tainted),
            Closed::Integrity => {
                ended.is_some_and(|keys| keys.tainted)
                    || (answer == Some(Answer::Integrity) && !fresh && pending.is_none())
            }
            Closed::NotReady => {
                ended.is_some_and(|keys| !keys.surely_silent)
                    || matches!(answer, Some(Answer::RefusedPending(_)))
                    || (pending.is_some() && matches!(answer, Some(Answer::Verified { .. })))
                    || (event == Event::Recover && self.deleted && !self.locked)
            }
        };
        if given { Ok(()) } else { Err(Breach::WrongReason) }
    }

    /// What must have happened, with all that was published taken in.
    fn check_duties(
        &self,
        now: Moment,
        was: &Self,
        event: Event,
        answer: Option<Answer>,
        effects: &Effects,
        ended: bool,
    ) -> Result<(), Breach> {
        let closed = matches!(effects.publish, Some(Publish::Close { .. }));
        let opened = matches!(effects.publish, Some(Publish::Keys { .. }));
        let ends = |keys: Keys| self.ended(now, &keys);
        if (ended && !closed) || self.keys.is_some_and(ends) {
            return Err(Breach::NotWiped);
        }
        let must_close = match event {
            Event::Lock | Event::Delete => !was.deleted,
            Event::Answered(..) => {
                let refused = matches!(answer, Some(Answer::Refused(_) | Answer::RefusedPending(_)));
                refused && was.keys.is_some()
            }
            _ => false,
        };
        if must_close && !closed {
            return Err(Breach::NotClosed);
        }
        if let Some(Answer::Verified { started, .. }) = answer
            && !opened
            && !now.reached(started.plus(self.policy.fresh_for()))
        {
            return Err(Breach::SuccessIgnored);
        }
        let told = effects.notify || !(closed || (opened && was.keys.is_none()));
        if !told || effects.alarm != (answer == Some(Answer::Integrity)) {
            return Err(Breach::WrongNotice);
        }
        Ok(())
    }

    /// The data plane looks at its deadline alone. It must not be able to use a key for longer than the
    /// contract allows, whatever was published.
    pub(super) fn check_usable(&self, now: Moment) -> Result<(), Breach> {
        let Some(keys) = self.keys.filter(|keys| !now.reached(keys.valid_until)) else { return Ok(()) };
        let age = now.age_since(keys.since);
        let fresh = age < self.policy.fresh_for();
        let silent_lately = keys.earned.is_some_and(|at| now.age_since(at) < self.policy.fresh_for());
        let grace = silent_lately && !keys.tainted && age < self.usable_for(&keys);
        if fresh || grace { Ok(()) } else { Err(Breach::UsableTooLong) }
    }

    /// All that decides what it will say, for the exploration.
    pub(super) fn fingerprint(&self, hash: &mut arena::Relative) {
        let Self {
            policy: _,
            keys,
            flight,
            why,
            epoch: _,
            locked,
            deleted,
            unlock_wanted,
            requested,
            last_start,
            credit,
            credit_at,
        } = self;
        if let Some(Keys {
            since,
            valid_until,
            max_grace: _,
            earned,
            silent,
            surely_silent,
            tainted,
            quiet,
        }) = keys
        {
            hash.moments([Some(*since), Some(*valid_until), *earned]);
            hash.other((silent, surely_silent, tainted, quiet));
        }
        if let Some(Flight { id: _, begun, counts_from, due, unlock, refused, news }) = flight {
            hash.moments([Some(*begun), Some(*counts_from)]);
            hash.other((due, unlock, refused, news));
        }
        hash.moments([*last_start, Some(*credit_at)]);
        hash.other((std::mem::discriminant(why), locked, deleted, unlock_wanted, requested, credit));
    }

    fn valid_until(&self, held: &Keys, earned: Option<Moment>) -> Moment {
        let fresh_until = held.since.plus(self.policy.fresh_for());
        match earned {
            Some(at) if !held.tainted => {
                at.plus(self.policy.fresh_for()).earlier(held.since.plus(self.usable_for(held)))
            }
            _ => fresh_until,
        }
    }

    fn usable_for(&self, held: &Keys) -> Duration {
        self.policy.shortened(held.max_grace).usable_for()
    }

    /// Whether the key must have been wiped by now.
    fn ended(&self, now: Moment, held: &Keys) -> bool {
        let most = if held.tainted { self.policy.fresh_for() } else { self.usable_for(held) };
        now.age_since(held.since) >= most
    }
}

/// To a lease it is all one whether its KMS was asked in vain, or not at all.
const fn is_silence(answer: Answer) -> bool {
    matches!(answer, Answer::Transient | Answer::NotAsked)
}

impl Keys {
    const fn new(since: Moment, valid_until: Moment, max_grace: Option<Duration>) -> Self {
        Self {
            since,
            valid_until,
            max_grace,
            earned: None,
            silent: false,
            surely_silent: false,
            tainted: false,
            quiet: true,
        }
    }
}
