//! Every short history of an account with a second provider (contract A7), shown to an observer that knows what the second one may
//! do, and nothing of how the machine keeps to that.
//!
//! Without grace of its own, so that whatever outlives F is the second one's doing. What holds of every account is in `explore`.

use super::arena::{Arena, Beside, Move, REFUSED, Relative, Silence};
use super::*;
use crate::evidence::{count, report};

const DEPTH: u64 = 8;
const FULL_DEPTH: u64 = 10;
/// The same for those that begin in the midst of an outage or of a refusal.
const LATE_DEPTH: u64 = 6;
const FULL_LATE_DEPTH: u64 = 8;

/// r = 6 s, c = 2 s, G = 0: F = 14.6 s.
const POLICY: Policy = Policy::new(Duration::from_secs(6), Duration::from_secs(2), Duration::ZERO);
/// Longer than F, and shorter than two of it: a second success does not always fit.
const LIMIT: Duration = Duration::from_secs(20);

/// Of a call of the second one.
#[derive(Clone, Copy, Debug)]
enum Call {
    /// The one before it is late from then on.
    Begin,
    StandIn,
    /// The record is compared meanwhile; the rest of the call is an unwrap that starts now.
    Pend,
    Refuse,
    LateStandIn,
    LateRefuse,
}

const ALPHABET: [Move<Call>; 24] = [
    Move::ToWake,
    Move::Begin,
    Move::Succeed,
    Move::Answer(Answer::Transient),
    Move::Answer(Answer::NotAsked),
    Move::Answer(Answer::Integrity),
    Move::Answer(Answer::RefusedPending(REFUSED)),
    Move::Answer(Answer::Refused(REFUSED)),
    Move::LateSuccess,
    Move::LateRefusal,
    Move::SharedSilence,
    Move::Beside(Call::Begin),
    Move::Beside(Call::StandIn),
    Move::Beside(Call::Pend),
    Move::Beside(Call::Refuse),
    Move::Beside(Call::LateStandIn),
    Move::Beside(Call::LateRefuse),
    Move::Tell(Event::Lock),
    Move::Tell(Event::Unlock),
    Move::Tell(Event::Delete),
    Move::Tell(Event::Recover),
    Move::Pass(Duration::from_secs(2)),
    Move::Sleep(Duration::from_secs(15)),
    Move::WallForward(Duration::from_secs(15)),
];

#[test]
fn a7_r7_every_history_of_two_providers_keeps_the_contract() {
    let depth = count(DEPTH, DEPTH, FULL_DEPTH);
    let states = Arena::explore(vec![cold()], depth, &ALPHABET);
    report("R7", "moves of a lease with a second provider from cold", depth, ">=", DEPTH);
    report("R7", "states of a lease with a second provider from cold", states, ">=", 300_000);
    assert!(states > 300_000, "the alphabet still reaches something");
}

#[test]
fn a7_r7_so_does_every_history_that_begins_in_an_outage_or_a_refusal() {
    let fresh = cold().lived(&[Move::Begin, Move::Succeed]);
    let silent = fresh.lived(&[Move::ToWake, Move::Begin, Move::Answer(Answer::Transient)]);
    let standing_in = silent.lived(&[Move::Beside(Call::Begin), Move::Beside(Call::StandIn)]);
    let refused_by_second = silent.lived(&[Move::Beside(Call::Begin), Move::Beside(Call::Refuse)]);
    let barred = standing_in.lived(&[Move::ToWake, Move::Begin, Move::Answer(Answer::Refused(REFUSED))]);
    let never_fresh = cold().lived(&[
        Move::Begin,
        Move::Answer(Answer::Transient),
        Move::Beside(Call::Begin),
        Move::Beside(Call::StandIn),
    ]);
    let depth = count(LATE_DEPTH, LATE_DEPTH, FULL_LATE_DEPTH);
    let states = Arena::explore(
        vec![fresh, silent, standing_in, refused_by_second, barred, never_fresh],
        depth,
        &ALPHABET,
    );
    report("R7", "moves of a lease with a second provider from later", depth, ">=", LATE_DEPTH);
    report("R7", "states of a lease with a second provider from later", states, ">=", 100_000);
    assert!(states > 100_000, "the alphabet still reaches something");
}

/// What is under way at the second one, and what is known from outside. Each rule is a sentence of the contract.
#[derive(Clone, Debug)]
struct Watch {
    second: Option<(Epoch, Moment)>,
    second_before: Option<(Epoch, Moment)>,
    epoch: Epoch,
    /// When the first one has last answered, as the record says. It is written once here.
    recorded: Moment,
    /// When the first one's last success started, in this process.
    verified: Option<Moment>,
    keys: Option<Keys>,
    silence: Silence,
    /// The first one has refused, and has not unwrapped since.
    barred: bool,
    locked: bool,
    deleted: bool,
    last_second: Option<Moment>,
}

#[derive(Clone, Copy, Debug)]
struct Keys {
    since: Option<Moment>,
    /// Until when the second one may carry them.
    stood_in: Option<Moment>,
    valid_until: Moment,
    tainted: bool,
}

fn cold() -> Arena<Watch> {
    let now = crate::clock::ManualClock::new().moment();
    let watch = Watch {
        second: None,
        second_before: None,
        epoch: Epoch::FIRST,
        recorded: now,
        verified: None,
        keys: None,
        silence: Silence::No,
        barred: false,
        locked: false,
        deleted: false,
        last_second: None,
    };
    Arena::new(Lease::new(POLICY, now, 1).with_second(), watch, now)
}

impl Beside for Watch {
    type Move = Call;
    const POLICY: Policy = POLICY;

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn closed(&self) -> bool {
        self.locked || self.deleted
    }

    fn ended(&self, now: Moment) -> bool {
        self.keys.is_some_and(|keys| !keys.lives(now))
    }

    fn play(arena: &mut Arena<Self>, step: Call) -> Result<bool, &'static str> {
        let watch = &mut arena.beside;
        let confirmed = watch.recorded;
        let stood_in =
            |(epoch, started)| Event::StoodIn { epoch, started, confirmed, limit: LIMIT, max_grace: None };
        let refused = |(epoch, _)| Event::SecondRefused { epoch, refusal: REFUSED };
        let told = match step {
            Call::Begin => return begin_second(arena),
            Call::Pend => return pend_second(arena),
            Call::StandIn => watch.second.take().map(stood_in),
            Call::Refuse => watch.second.take().map(refused),
            Call::LateStandIn => watch.second_before.take().map(stood_in),
            Call::LateRefuse => watch.second_before.take().map(refused),
        };
        match told {
            Some(event) => arena.on(event).map(|()| true),
            None => Ok(false),
        }
    }

    fn see(
        &mut self,
        now: Moment,
        event: Event,
        current: Option<Answer>,
        effects: Effects,
    ) -> Result<(), &'static str> {
        let was = self.clone();
        // What counts of the second one: in its epoch, and while it may be asked.
        let counts = |epoch: Epoch| {
            epoch == was.epoch && was.silence != Silence::No && !was.barred && !was.locked && !was.deleted
        };
        self.note(event, current);
        match effects.publish {
            None => {}
            Some(Publish::Keys { fresh_until, valid_until }) => {
                self.opened(now, &was, event, current, (fresh_until, valid_until))?;
            }
            Some(Publish::Extend { fresh_until, valid_until }) => {
                let Some(keys) = self.keys.as_mut() else { return Err("only what is open is extended") };
                check_deadlines(keys, fresh_until, valid_until)?;
                keys.valid_until = valid_until;
            }
            Some(Publish::Close { epoch, why }) => {
                if epoch <= was.epoch || !effects.notify {
                    return Err("a closing has an epoch of its own, and is told");
                }
                let by_second = matches!(event, Event::SecondRefused { epoch, .. } if counts(epoch));
                if matches!(why, Closed::Revoked(_)) && !by_second && current.is_none() {
                    return Err("who revokes is a provider that was asked");
                }
                (self.epoch, self.keys) = (epoch, None);
            }
        }
        let refused = match event {
            Event::SecondRefused { epoch, .. } | Event::SecondRefusedPending { epoch } => {
                counts(epoch) && was.silence == Silence::Yes
            }
            _ => matches!(current, Some(Answer::Refused(_) | Answer::RefusedPending(_))),
        };
        if refused && self.keys.is_some() {
            return Err("a refusal closes at once");
        }
        self.check_usable(now)
    }

    /// The data plane looks at its deadline alone.
    fn check_usable(&self, now: Moment) -> Result<(), &'static str> {
        let usable = self.keys.filter(|keys| !now.reached(keys.valid_until));
        if usable.is_some_and(|keys| !keys.lives(now) || self.locked || self.deleted) {
            return Err("usable for too long");
        }
        Ok(())
    }

    fn check_wants(arena: &Arena<Self>, current: Option<Answer>) -> Result<(), &'static str> {
        let Arena { lease, beside: watch, now, .. } = arena;
        let stands_against = watch.barred || watch.closed();
        if lease.wants_second(*now) && (watch.silence == Silence::No || stands_against) {
            return Err(
                "the second one is asked in silence only, and never where it is barred, locked or deleted",
            );
        }
        if current == Some(Answer::Transient) && !stands_against && lease.second_at().is_none() {
            return Err("silence of the first one brings the second one in");
        }
        Ok(())
    }

    fn fingerprint(&self, hash: &mut Relative) {
        let Self {
            second,
            second_before,
            epoch,
            recorded,
            verified,
            keys,
            silence,
            barred,
            locked,
            deleted,
            last_second,
        } = self;
        hash.moments([Some(*recorded), *verified, *last_second]);
        if let Some(Keys { since, stood_in, valid_until, tainted }) = keys {
            hash.moments([*since, *stood_in, Some(*valid_until)]);
            hash.other(tainted);
        }
        for call in [second, second_before] {
            hash.moments([call.map(|(_, started)| started)]);
            hash.other(call.map(|(begun, _)| begun == *epoch));
        }
        hash.other((silence, barred, locked, deleted, keys.is_some()));
    }
}

fn begin_second(arena: &mut Arena<Watch>) -> Result<bool, &'static str> {
    let Arena { lease, beside: watch, now, .. } = arena;
    if !lease.wants_second(*now) {
        return Ok(false);
    }
    let last = watch.last_second.replace(*now);
    let apart = |last: Moment| now.boot_nanos() - last.boot_nanos();
    if last.is_some_and(|last| Duration::from_nanos(apart(last)) < MIN_SPACING) {
        return Err("calls of the second one keep their distance");
    }
    watch.second_before = watch.second;
    watch.second = Some((lease.begin_second(*now), *now));
    Ok(true)
}

/// As `AccountInner::take_second_pending`.
fn pend_second(arena: &mut Arena<Watch>) -> Result<bool, &'static str> {
    let Some((epoch, started)) = arena.beside.second else { return Ok(false) };
    arena.on(Event::Wake)?;
    let heard = arena.lease.hears_second(epoch);
    arena.on(Event::SecondRefusedPending { epoch })?;
    arena.beside.second = Some(if heard { (arena.lease.epoch(), arena.now) } else { (epoch, started) });
    Ok(true)
}

impl Keys {
    fn fresh(&self, now: Moment) -> bool {
        self.since.is_some_and(|since| now.age_since(since) < POLICY.fresh_for())
    }

    fn lives(&self, now: Moment) -> bool {
        self.fresh(now) || self.stood_in.is_some_and(|end| !now.reached(end))
    }
}

impl Watch {
    /// Takes in what the event means, whatever the machine makes of it.
    fn note(&mut self, event: Event, current: Option<Answer>) {
        match event {
            // Late or not.
            Event::Answered(_, Answer::Refused(_) | Answer::RefusedPending(_)) => self.barred = true,
            Event::AuthoritySilent { asked: true, .. } if self.silence == Silence::No => {
                self.silence = Silence::Perhaps;
            }
            Event::Lock => self.locked = true,
            Event::Delete => self.deleted = true,
            Event::Recover => self.deleted = false,
            _ => {}
        }
        if current == Some(Answer::Transient) && !self.locked && !self.deleted {
            self.silence = Silence::Yes;
        }
        // Nobody stands in before the first one was found silent after that. What cannot be right is an answer too.
        if self.barred || self.locked || self.deleted || current == Some(Answer::Integrity) {
            self.silence = Silence::No;
        }
        if let Some(keys) = self.keys.as_mut().filter(|_| current == Some(Answer::Integrity)) {
            (keys.tainted, keys.stood_in) = (true, None);
        }
    }

    fn opened(
        &mut self,
        now: Moment,
        was: &Self,
        event: Event,
        current: Option<Answer>,
        (fresh_until, valid_until): (Moment, Moment),
    ) -> Result<(), &'static str> {
        if let Some(Answer::Verified { started, .. }) = current {
            let keys = Keys { since: Some(started), stood_in: None, valid_until, tainted: false };
            check_deadlines(&keys, fresh_until, valid_until)?;
            (self.keys, self.verified) = (Some(keys), Some(started));
            (self.silence, self.barred, self.locked) = (Silence::No, false, false);
            return Ok(());
        }
        let Event::StoodIn { epoch, started, confirmed, limit, .. } = event else {
            return Err("what opens is a success");
        };
        if epoch != was.epoch {
            return Err("what was begun before a closing opens nothing");
        }
        if was.silence == Silence::No || was.barred || was.locked || was.deleted {
            return Err("the second one stands in for silence only");
        }
        if was.keys.is_some_and(|keys| keys.tainted && keys.lives(now)) {
            return Err("an answer that cannot be right is not covered up");
        }
        let recorded = confirmed.plus(limit);
        let last = match self.verified.map(|verified| verified.plus(limit)) {
            Some(ours) if ours.boot_nanos() > recorded.boot_nanos() => ours,
            _ => recorded,
        };
        let end = last.earlier(started.plus(POLICY.fresh_for()));
        if now.reached(end) {
            return Err("nothing opens that has ended");
        }
        let since = was.keys.filter(|keys| keys.lives(now)).and_then(|keys| keys.since);
        let keys = Keys { since, stood_in: Some(end), valid_until, tainted: false };
        check_deadlines(&keys, fresh_until, valid_until)?;
        self.keys = Some(keys);
        Ok(())
    }
}

/// Fresh is what the first one has unwrapped lately. Valid is that, or what the second one carries, whichever is later: one or the other
/// as a whole.
fn check_deadlines(keys: &Keys, fresh_until: Moment, valid_until: Moment) -> Result<(), &'static str> {
    let fresh = keys.since.map_or(Moment::from_nanos(0, 0), |since| since.plus(POLICY.fresh_for()));
    let valid = match keys.stood_in {
        Some(end) if end.boot_nanos() > fresh.boot_nanos() => end,
        _ => fresh,
    };
    if (fresh_until, valid_until) == (fresh, valid) { Ok(()) } else { Err("another deadline") }
}
