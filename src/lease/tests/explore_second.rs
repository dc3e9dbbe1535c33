//! Every short history of an account with a second provider (contract A7), shown to an observer that knows what the second one may
//! do, and nothing of how the machine keeps to that.
//!
//! Without grace of its own, so that whatever outlives F is the second one's doing. What holds of every account is in `explore`.

use super::explore::{Relative, explore_all};
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
const REFUSED: Refusal = Refusal::KeyGone;

#[derive(Clone, Copy, Debug)]
enum Move {
    ToWake,
    /// An attempt at the first one.
    Begin,
    Succeed,
    Answer(Answer),
    LateSuccess,
    LateRefusal,
    SharedSilence,
    /// A call of the second one; the one before it is late from then on.
    BeginSecond,
    StandIn,
    /// The record is compared meanwhile; the rest of the call is an unwrap that starts now.
    PendSecond,
    RefuseSecond,
    LateStandIn,
    LateRefuseSecond,
    Tell(Event),
    Pass(Duration),
    /// A suspend that nobody is woken from yet.
    Sleep(Duration),
    WallForward(Duration),
}

const ALPHABET: [Move; 24] = [
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
    Move::BeginSecond,
    Move::StandIn,
    Move::PendSecond,
    Move::RefuseSecond,
    Move::LateStandIn,
    Move::LateRefuseSecond,
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
    let states = explore(vec![Two::cold()], depth);
    report("R7", "moves of a lease with a second provider from cold", depth, ">=", DEPTH);
    report("R7", "states of a lease with a second provider from cold", states, ">=", 300_000);
    assert!(states > 300_000, "the alphabet still reaches something");
}

#[test]
fn a7_r7_so_does_every_history_that_begins_in_an_outage_or_a_refusal() {
    let fresh = Two::cold().lived(&[Move::Begin, Move::Succeed]);
    let silent = fresh.lived(&[Move::ToWake, Move::Begin, Move::Answer(Answer::Transient)]);
    let standing_in = silent.lived(&[Move::BeginSecond, Move::StandIn]);
    let refused_by_second = silent.lived(&[Move::BeginSecond, Move::RefuseSecond]);
    let barred = standing_in.lived(&[Move::ToWake, Move::Begin, Move::Answer(Answer::Refused(REFUSED))]);
    let never_fresh =
        Two::cold().lived(&[Move::Begin, Move::Answer(Answer::Transient), Move::BeginSecond, Move::StandIn]);
    let depth = count(LATE_DEPTH, LATE_DEPTH, FULL_LATE_DEPTH);
    let states = explore(vec![fresh, silent, standing_in, refused_by_second, barred, never_fresh], depth);
    report("R7", "moves of a lease with a second provider from later", depth, ">=", LATE_DEPTH);
    report("R7", "states of a lease with a second provider from later", states, ">=", 100_000);
    assert!(states > 100_000, "the alphabet still reaches something");
}

fn explore(from: Vec<Two>, deepest: u64) -> usize {
    explore_all(from, deepest, &ALPHABET, |two, step| {
        two.lease.jitter = Jitter::new(1);
        let played = two.play(step)?;
        Ok::<_, &'static str>(played.then(|| two.fingerprint()))
    })
}

/// A machine, its clock, and what is under way.
#[derive(Clone, Debug)]
struct Two {
    lease: Lease,
    watch: Watch,
    now: Moment,
    /// The attempt at the first one, and when what it may still succeed with has started.
    first: Option<(AttemptId, Moment)>,
    stale: Option<AttemptId>,
    second: Option<(Epoch, Moment)>,
    second_before: Option<(Epoch, Moment)>,
}

/// What is known from outside. Each rule is a sentence of the contract.
#[derive(Clone, Debug)]
struct Watch {
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

/// Whether the first one is silent: after its own silence it is, after a neighbour's it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Silence {
    No,
    Perhaps,
    Yes,
}

impl Two {
    fn cold() -> Self {
        let now = crate::clock::ManualClock::new().moment();
        let watch = Watch {
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
        let lease = Lease::new(POLICY, now, 1).with_second();
        Self { lease, watch, now, first: None, stale: None, second: None, second_before: None }
    }

    /// After these moves, of which each is one.
    fn lived(&self, moves: &[Move]) -> Self {
        let mut two = self.clone();
        for step in moves {
            two.lease.jitter = Jitter::new(1);
            assert_eq!(two.play(*step), Ok(true), "{step:?} of {moves:?}");
            // What is woken before it may begin is woken again.
            while matches!(step, Move::ToWake) && !two.lease.wants_attempt(two.now) {
                assert_eq!(two.play(Move::ToWake), Ok(true));
            }
        }
        two
    }

    fn play(&mut self, step: Move) -> Result<bool, &'static str> {
        let stood_in = |(epoch, started): (Epoch, Moment)| Event::StoodIn {
            epoch,
            started,
            confirmed: self.watch.recorded,
            limit: LIMIT,
            max_grace: None,
        };
        let refused = |(epoch, _): (Epoch, Moment)| Event::SecondRefused { epoch, refusal: REFUSED };
        let told = match step {
            Move::Begin => return Ok(self.begin()),
            Move::BeginSecond => return self.begin_second(),
            Move::PendSecond => return self.pend_second(),
            Move::Succeed => self
                .first
                .map(|(id, started)| Event::Answered(id, Answer::Verified { started, max_grace: None })),
            Move::Answer(answer) => self.first.map(|(id, _)| Event::Answered(id, answer)),
            Move::LateSuccess => {
                let answer = Answer::Verified { started: self.now, max_grace: None };
                self.stale.map(|id| Event::Answered(id, answer))
            }
            Move::LateRefusal => self.stale.map(|id| Event::Answered(id, Answer::Refused(REFUSED))),
            Move::SharedSilence => Some(Event::AuthoritySilent { begun: self.now, asked: true }),
            Move::StandIn => self.second.take().map(stood_in),
            Move::RefuseSecond => self.second.take().map(refused),
            Move::LateStandIn => self.second_before.take().map(stood_in),
            Move::LateRefuseSecond => self.second_before.take().map(refused),
            Move::Tell(event) => Some(event),
            Move::ToWake => {
                let Some(at) = self.lease.wake_at().filter(|at| !self.now.reached(*at)) else {
                    return Ok(false);
                };
                self.now = self.now.plus(self.now.until(at));
                Some(Event::Wake)
            }
            Move::Pass(time) => {
                self.now = self.now.plus(time);
                Some(Event::Wake)
            }
            Move::Sleep(time) => {
                self.now = self.now.plus(time);
                return self.watch.check_usable(self.now).map(|()| true);
            }
            Move::WallForward(time) => {
                self.now = Moment::from_nanos(self.now.boot_nanos(), self.now.plus(time).wall_nanos());
                return self.watch.check_usable(self.now).map(|()| true);
            }
        };
        match told {
            Some(event) => self.on(event).map(|()| true),
            None => Ok(false),
        }
    }

    fn begin(&mut self) -> bool {
        let wanted = self.lease.wants_attempt(self.now);
        if wanted {
            self.first = Some((self.lease.begin(self.now), self.now));
        }
        wanted
    }

    fn begin_second(&mut self) -> Result<bool, &'static str> {
        if !self.lease.wants_second(self.now) {
            return Ok(false);
        }
        let last = self.watch.last_second.replace(self.now);
        let apart = |last: Moment| self.now.boot_nanos() - last.boot_nanos();
        if last.is_some_and(|last| Duration::from_nanos(apart(last)) < MIN_SPACING) {
            return Err("calls of the second one keep their distance");
        }
        self.second_before = self.second;
        self.second = Some((self.lease.begin_second(self.now), self.now));
        Ok(true)
    }

    /// As `AccountInner::take_second_pending`.
    fn pend_second(&mut self) -> Result<bool, &'static str> {
        let Some((epoch, started)) = self.second else { return Ok(false) };
        self.on(Event::Wake)?;
        let heard = self.lease.hears_second(epoch);
        self.on(Event::SecondRefusedPending { epoch })?;
        self.second = Some(if heard { (self.lease.epoch(), self.now) } else { (epoch, started) });
        Ok(true)
    }

    fn on(&mut self, event: Event) -> Result<(), &'static str> {
        // Time comes before the event: of a lease that has ended, what was under way is worth nothing.
        let ended = self.watch.keys.is_some_and(|keys| !keys.lives(self.now));
        let current = match event {
            Event::Answered(id, answer) if !ended => {
                self.first.filter(|(first, _)| *first == id).map(|(_, begun)| (answer, begun))
            }
            _ => None,
        };
        let current = current.map(|(answer, begun)| {
            // What outlived its deadline by far was held up by us: of the first one it says nothing.
            let held_up = self.now.age_since(begun) >= POLICY.call_deadline() + MIN_SPACING;
            if answer == Answer::Transient && held_up { Answer::NotAsked } else { answer }
        });
        let effects = self.lease.on(self.now, event);
        self.watch.see(self.now, event, current, effects)?;
        match self.first {
            Some((id, _)) if !self.lease.is_current(id) => {
                self.stale = Some(id);
                self.first = None;
            }
            // The rest of the attempt is an unwrap that starts now.
            Some((id, _)) if matches!(current, Some(Answer::RefusedPending(_))) => {
                self.first = Some((id, self.now));
            }
            _ => {}
        }
        self.check_progress(event, current)
    }

    fn check_progress(&self, event: Event, current: Option<Answer>) -> Result<(), &'static str> {
        let Self { lease, watch, now, .. } = self;
        let closed = watch.locked || watch.deleted;
        if lease.epoch() != watch.epoch {
            return Err("every epoch is published");
        }
        if lease.wants_second(*now) && (watch.silence == Silence::No || watch.barred || closed) {
            return Err(
                "the second one is asked in silence only, and never where it is barred, locked or deleted",
            );
        }
        if current == Some(Answer::Transient) && !watch.barred && !closed && lease.second_at().is_none() {
            return Err("silence of the first one brings the second one in");
        }
        if matches!(event, Event::Wake) && watch.keys.is_some_and(|keys| !keys.lives(*now)) {
            return Err("what has ended is wiped");
        }
        let wake = lease.wake_at();
        if wake.is_some_and(|at| now.reached(at)) && !lease.wants_attempt(*now) && !lease.wants_second(*now) {
            return Err("no busy loop");
        }
        let soon = now.plus(MAX_REFRESH);
        if self.first.is_none() && !closed && !wake.is_some_and(|at| soon.reached(at)) {
            return Err("it asks again by itself");
        }
        Ok(())
    }

    /// A hash of all that decides the future.
    fn fingerprint(&self) -> u64 {
        let Self { lease, watch, now, first, stale, second, second_before } = self;
        let mut hash = Relative::at(*now);
        hash.lease(lease);
        let Watch { epoch, recorded, verified, keys, silence, barred, locked, deleted, last_second } = watch;
        hash.moments([Some(*recorded), *verified, *last_second, first.map(|(_, started)| started)]);
        if let Some(Keys { since, stood_in, valid_until, tainted }) = keys {
            hash.moments([*since, *stood_in, Some(*valid_until)]);
            hash.other(tainted);
        }
        for call in [second, second_before] {
            hash.moments([call.map(|(_, started)| started)]);
            hash.other(call.map(|(begun, _)| begun == *epoch));
        }
        hash.other((silence, barred, locked, deleted, stale.is_some(), keys.is_some()));
        hash.finish()
    }
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

    /// The data plane looks at its deadline alone.
    fn check_usable(&self, now: Moment) -> Result<(), &'static str> {
        let usable = self.keys.filter(|keys| !now.reached(keys.valid_until));
        if usable.is_some_and(|keys| !keys.lives(now) || self.locked || self.deleted) {
            return Err("usable for too long");
        }
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
