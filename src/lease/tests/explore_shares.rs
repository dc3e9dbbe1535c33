//! Every short history of an account under joint custody (contract A7), shown to an observer that knows what a share may do, and nothing of
//! how the machine keeps to that.
//!
//! Two shares, because the outer AEK of double encryption is asked for as they are.

use super::explore::{Relative, explore_all};
use super::*;
use crate::evidence::{count, report};

const DEPTH: u64 = 7;
const FULL_DEPTH: u64 = 9;
/// The same for those that begin in the midst of an outage or of a refusal.
const LATE_DEPTH: u64 = 5;
const FULL_LATE_DEPTH: u64 = 7;

/// r = 6 s, c = 2 s, G = 20 s: F = 14.6 s.
const POLICY: Policy = Policy::new(Duration::from_secs(6), Duration::from_secs(2), Duration::from_secs(20));
const REFUSED: Refusal = Refusal::KeyGone;

#[derive(Clone, Copy, Debug)]
enum Move {
    ToWake,
    /// An attempt, at both.
    Begin,
    Succeed,
    Answer(Answer),
    LateSuccess,
    LateRefusal,
    SharedSilence,
    /// A call for one share.
    BeginShare(usize),
    /// It unwraps. Nobody tells the machine, unless it was refused before; one who mistook it for a whole key would tell it this.
    SucceedShare(usize),
    /// The record is compared meanwhile; the rest of the call is an unwrap that starts now.
    PendShare(usize),
    RefuseShare(usize),
    Tell(Event),
    /// Dropped, and attached again.
    Attach,
    Pass(Duration),
    /// A suspend that nobody is woken from yet.
    Sleep(Duration),
    WallForward(Duration),
}

const ALPHABET: [Move; 27] = [
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
    Move::BeginShare(0),
    Move::BeginShare(1),
    Move::SucceedShare(0),
    Move::SucceedShare(1),
    Move::PendShare(0),
    Move::PendShare(1),
    Move::RefuseShare(0),
    Move::RefuseShare(1),
    Move::Tell(Event::Lock),
    Move::Tell(Event::Unlock),
    Move::Tell(Event::Delete),
    Move::Tell(Event::Recover),
    Move::Attach,
    Move::Pass(Duration::from_secs(2)),
    Move::Sleep(Duration::from_secs(15)),
    Move::WallForward(Duration::from_secs(15)),
];

#[test]
fn a7_r7_every_history_of_two_shares_keeps_the_contract() {
    let depth = count(DEPTH, DEPTH, FULL_DEPTH);
    let states = explore(vec![Joint::cold()], depth);
    report("R7", "moves of a lease with shares from cold", depth, ">=", DEPTH);
    report("R7", "states of a lease with shares from cold", states, ">=", LEAST);
    assert!(states > LEAST, "the alphabet still reaches something");
}

#[test]
fn a7_r7_so_does_every_history_of_shares_that_begins_in_an_outage_or_a_refusal() {
    let fresh = Joint::cold().lived(&[Move::Begin, Move::Succeed]);
    let silent = fresh.lived(&[Move::ToWake, Move::Begin, Move::Answer(Answer::Transient)]);
    let asked = silent.lived(&[Move::Pass(MIN_SPACING * 2), Move::BeginShare(0)]);
    let both = asked.lived(&[Move::BeginShare(1)]);
    let pending = both.lived(&[Move::PendShare(1)]);
    let revoked = both.lived(&[Move::RefuseShare(0)]);
    let depth = count(LATE_DEPTH, LATE_DEPTH, FULL_LATE_DEPTH);
    let states = explore(vec![fresh, silent, asked, both, pending, revoked], depth);
    report("R7", "moves of a lease with shares from later", depth, ">=", LATE_DEPTH);
    report("R7", "states of a lease with shares from later", states, ">=", LEAST_LATE);
    assert!(states > LEAST_LATE, "the alphabet still reaches something");
}

const LEAST: usize = 50_000;
const LEAST_LATE: usize = 50_000;

fn explore(from: Vec<Joint>, deepest: u64) -> usize {
    explore_all(from, deepest, &ALPHABET, |joint, step| {
        joint.lease.jitter = Jitter::new(1);
        let played = joint.play(step)?;
        Ok::<_, &'static str>(played.then(|| joint.fingerprint()))
    })
}

/// A machine, its clock, and what is under way.
#[derive(Clone, Debug)]
struct Joint {
    lease: Lease,
    watch: Watch,
    now: Moment,
    /// The attempt, and when what it may still succeed with has started.
    attempt: Option<(AttemptId, Moment)>,
    stale: Option<AttemptId>,
    shares: [Option<Call>; 2],
}

#[derive(Clone, Copy, Debug)]
struct Call {
    epoch: Epoch,
    pended: bool,
}

/// What is known from outside. Each rule is a sentence of the contract.
#[derive(Clone, Debug)]
struct Watch {
    epoch: Epoch,
    keys: Option<Keys>,
    silence: Silence,
    locked: bool,
    deleted: bool,
    /// A person asks, so that no distance need be kept.
    asked: bool,
    attempted: Option<Moment>,
    begun: [Option<Moment>; 2],
}

#[derive(Clone, Copy, Debug)]
struct Keys {
    since: Moment,
    /// Whether silence has earned grace.
    grace: bool,
    tainted: bool,
    valid_until: Moment,
}

/// Whether the attempts are silent: after their own silence they are, after a neighbour's they may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Silence {
    No,
    Perhaps,
    Yes,
}

impl Joint {
    fn cold() -> Self {
        let now = crate::clock::ManualClock::new().moment();
        let watch = Watch {
            epoch: Epoch::FIRST,
            keys: None,
            silence: Silence::No,
            locked: false,
            deleted: false,
            asked: false,
            attempted: None,
            begun: [None; 2],
        };
        let lease = Lease::new(POLICY, now, 1).with_shares();
        Self { lease, watch, now, attempt: None, stale: None, shares: [None; 2] }
    }

    /// After these moves, of which each is one.
    fn lived(&self, moves: &[Move]) -> Self {
        let mut joint = self.clone();
        for step in moves {
            joint.lease.jitter = Jitter::new(1);
            assert_eq!(joint.play(*step), Ok(true), "{step:?} of {moves:?}");
            // What is woken before it may begin is woken again.
            while matches!(step, Move::ToWake) && !joint.lease.wants_attempt(joint.now) {
                assert_eq!(joint.play(Move::ToWake), Ok(true));
            }
        }
        joint
    }

    fn play(&mut self, step: Move) -> Result<bool, &'static str> {
        let told = match step {
            Move::Begin => return self.begin(),
            Move::BeginShare(at) => return self.begin_share(at),
            Move::PendShare(at) => return self.pend_share(at),
            Move::Attach => return Ok(self.attach()),
            Move::Succeed => self
                .attempt
                .map(|(id, started)| Event::Answered(id, Answer::Verified { started, max_grace: None })),
            Move::Answer(answer) => self.attempt.map(|(id, _)| Event::Answered(id, answer)),
            Move::LateSuccess => {
                let answer = Answer::Verified { started: self.now, max_grace: None };
                self.stale.map(|id| Event::Answered(id, answer))
            }
            Move::LateRefusal => self.stale.map(|id| Event::Answered(id, Answer::Refused(REFUSED))),
            Move::SharedSilence => Some(Event::AuthoritySilent { begun: self.now, asked: true }),
            Move::SucceedShare(at) => self.shares[at].take().map(|call| self.share_succeeds(call)),
            Move::RefuseShare(at) => self.shares[at]
                .take()
                .map(|Call { epoch, .. }| Event::SecondRefused { epoch, refusal: REFUSED }),
            Move::Tell(event) => Some(event),
            Move::ToWake => {
                let ahead = self.lease.wake_besides(self.now, false, false);
                let Some(at) = ahead.filter(|at| !self.now.reached(*at)) else { return Ok(false) };
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

    /// As `AccountInner::take_stood_in` after a refusal; otherwise what nobody should say of a share.
    fn share_succeeds(&self, Call { epoch, pended }: Call) -> Event {
        if pended {
            return Event::RecordChanged;
        }
        let (started, limit) = (self.now, MAX_REFRESH);
        Event::StoodIn { epoch, started, confirmed: started, limit, max_grace: None }
    }

    fn begin(&mut self) -> Result<bool, &'static str> {
        if !self.lease.wants_attempt(self.now) {
            return Ok(false);
        }
        let Watch { attempted, begun, asked, .. } = &mut self.watch;
        let too_near = |last: Option<Moment>| last.is_some_and(|last| near(last, self.now));
        if !*asked && (too_near(*attempted) || begun.iter().any(|begun| too_near(*begun))) {
            return Err("attempts keep their distance, of shares too");
        }
        (*attempted, *asked) = (Some(self.now), false);
        self.attempt = Some((self.lease.begin(self.now), self.now));
        Ok(true)
    }

    fn begin_share(&mut self, at: usize) -> Result<bool, &'static str> {
        if !self.lease.wants_share(self.now, at) {
            return Ok(false);
        }
        let last = self.watch.begun[at].replace(self.now);
        if [last, self.watch.attempted].into_iter().flatten().any(|last| near(last, self.now)) {
            return Err("shares keep their distance, of attempts too");
        }
        self.shares[at] = Some(Call { epoch: self.lease.begin_share(self.now, at), pended: false });
        Ok(true)
    }

    /// As `AccountInner::take_second_pending`.
    fn pend_share(&mut self, at: usize) -> Result<bool, &'static str> {
        let Some(Call { epoch, pended: false }) = self.shares[at] else { return Ok(false) };
        self.on(Event::Wake)?;
        let heard = self.lease.hears_second(epoch);
        self.on(Event::SecondRefusedPending { epoch })?;
        let epoch = if heard { self.lease.epoch() } else { epoch };
        self.shares[at] = Some(Call { epoch, pended: true });
        Ok(true)
    }

    fn attach(&mut self) -> bool {
        let Some(past) = self.lease.past() else { return false };
        self.lease = Lease::new(POLICY, self.now, 1).with_shares().following(past);
        self.watch.epoch = self.lease.epoch();
        (self.watch.keys, self.watch.silence, self.watch.deleted) = (None, Silence::No, false);
        true
    }

    fn on(&mut self, event: Event) -> Result<(), &'static str> {
        // Time comes before the event: of a lease that has ended, what was under way is worth nothing.
        let ended = self.watch.keys.is_some_and(|keys| keys.ended(self.now));
        let current = match event {
            Event::Answered(id, answer) if !ended => {
                self.attempt.filter(|(attempt, _)| *attempt == id).map(|(_, begun)| (answer, begun))
            }
            _ => None,
        };
        let current = current.map(|(answer, begun)| {
            // What outlived its deadline by far was held up by us: of a KMS it says nothing.
            let held_up = self.now.age_since(begun) >= POLICY.call_deadline() + MIN_SPACING;
            if answer == Answer::Transient && held_up { Answer::NotAsked } else { answer }
        });
        let effects = self.lease.on(self.now, event);
        self.watch.see(self.now, event, current, effects)?;
        match self.attempt {
            Some((id, _)) if !self.lease.is_current(id) => {
                self.stale = Some(id);
                self.attempt = None;
            }
            // The rest of the attempt is an unwrap that starts now.
            Some((id, _)) if matches!(current, Some(Answer::RefusedPending(_))) => {
                self.attempt = Some((id, self.now));
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
        let wanted = (0..2).any(|at| lease.wants_share(*now, at));
        if wanted && (watch.silence == Silence::No || closed || self.attempt.is_some()) {
            return Err(
                "a share is asked for in silence only, never beside an attempt, a lock or a deletion",
            );
        }
        let open = matches!(lease.phase, Phase::Held(_) | Phase::Cold | Phase::Unavailable);
        if current == Some(Answer::Transient) && open {
            let soon = now.plus(MIN_SPACING * 2);
            if !(0..2).all(|at| lease.wants_share(soon, at)) {
                return Err("silence of the attempts has each share asked for");
            }
        }
        if matches!(event, Event::Wake) && watch.keys.is_some_and(|keys| keys.ended(*now)) {
            return Err("what has ended is wiped");
        }
        let wake = lease.wake_besides(*now, false, false);
        if wake.is_some_and(|at| now.reached(at)) && !lease.wants_attempt(*now) {
            return Err("no busy loop");
        }
        let soon = now.plus(MAX_REFRESH);
        if self.attempt.is_none() && !closed && !wake.is_some_and(|at| soon.reached(at)) {
            return Err("it asks again by itself");
        }
        Ok(())
    }

    /// A hash of all that decides the future.
    fn fingerprint(&self) -> u64 {
        let Self { lease, watch, now, attempt, stale, shares } = self;
        let mut hash = Relative::at(*now);
        hash.lease(lease);
        let Watch { epoch, keys, silence, locked, deleted, asked, attempted, begun } = watch;
        hash.moments([*attempted, attempt.map(|(_, started)| started)]);
        hash.moments(*begun);
        if let Some(Keys { since, grace, tainted, valid_until }) = keys {
            hash.moments([Some(*since), Some(*valid_until)]);
            hash.other((grace, tainted));
        }
        for call in shares {
            hash.other(call.map(|Call { epoch: begun, pended }| (begun == *epoch, pended)));
        }
        hash.other((silence, locked, deleted, asked, stale.is_some(), keys.is_some()));
        hash.finish()
    }
}

/// On the boot-time clock, as the distance is kept.
fn near(last: Moment, now: Moment) -> bool {
    Duration::from_nanos(now.boot_nanos() - last.boot_nanos()) < MIN_SPACING
}

impl Keys {
    fn lives(&self, now: Moment) -> bool {
        let most = if self.grace { POLICY.usable_for() } else { POLICY.fresh_for() };
        now.age_since(self.since) < most
    }

    /// Whether nothing could earn it grace any more.
    fn ended(&self, now: Moment) -> bool {
        let most = if self.tainted { POLICY.fresh_for() } else { POLICY.usable_for() };
        now.age_since(self.since) >= most
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
        self.note(now, event, current);
        if let Some(keys) = self.keys.as_mut().filter(|_| current == Some(Answer::Integrity)) {
            keys.tainted = true;
        }
        match effects.publish {
            None => {}
            Some(Publish::Keys { fresh_until, valid_until }) => {
                let Some(Answer::Verified { started, .. }) = current else {
                    return Err("what opens is an attempt that both have answered");
                };
                if fresh_until != started.plus(POLICY.fresh_for()) || valid_until != fresh_until {
                    return Err("a lease counts from the start of its unwrap");
                }
                self.keys = Some(Keys { since: started, grace: false, tainted: false, valid_until });
                (self.silence, self.locked) = (Silence::No, false);
            }
            Some(Publish::Extend { fresh_until, valid_until }) => {
                let Some(keys) = self.keys.as_mut() else { return Err("only what is open is extended") };
                let attempts = current.is_some() || matches!(event, Event::AuthoritySilent { .. });
                if !attempts {
                    return Err("nothing but an attempt lengthens a lease");
                }
                let last = keys.since.plus(POLICY.usable_for());
                if fresh_until != keys.since.plus(POLICY.fresh_for()) || !last.reached(valid_until) {
                    return Err("nothing outlives F + G");
                }
                keys.grace = !keys.tainted;
                keys.valid_until = valid_until;
            }
            Some(Publish::Close { epoch, why }) => {
                if epoch <= was.epoch || !effects.notify {
                    return Err("a closing has an epoch of its own, and is told");
                }
                let by_share = matches!(event, Event::SecondRefused { epoch, .. } if was.counts(now, epoch));
                if matches!(why, Closed::Revoked(_)) && !by_share && current.is_none() {
                    return Err("who revokes is a KMS that was asked");
                }
                (self.epoch, self.keys) = (epoch, None);
            }
        }
        let refused = match event {
            Event::SecondRefused { epoch, .. } | Event::SecondRefusedPending { epoch } => {
                was.counts(now, epoch) && was.silence == Silence::Yes
            }
            _ => matches!(current, Some(Answer::Refused(_) | Answer::RefusedPending(_))),
        };
        if refused && self.keys.is_some() {
            return Err("a refusal closes at once");
        }
        self.check_usable(now)
    }

    /// What counts of a share: in its epoch, which time may have ended, and while all of them together are not answered.
    fn counts(&self, now: Moment, epoch: Epoch) -> bool {
        let lasts = epoch == self.epoch && !self.keys.is_some_and(|keys| keys.ended(now));
        lasts && self.silence != Silence::No && !self.locked && !self.deleted
    }

    /// Takes in what the event means, whatever the machine makes of it.
    fn note(&mut self, now: Moment, event: Event, current: Option<Answer>) {
        match event {
            Event::AuthoritySilent { asked: true, .. } if self.silence == Silence::No => {
                self.silence = Silence::Perhaps;
            }
            Event::Lock => (self.locked, self.asked) = (true, false),
            Event::Unlock => self.asked = self.asked || self.locked,
            Event::Delete => self.deleted = true,
            Event::Recover => self.deleted = false,
            _ => {}
        }
        if current == Some(Answer::Transient) {
            self.silence = Silence::Yes;
        }
        // Late or not, a refusal is an answer; the attempt that it brings has to meet silence anew. What cannot be right is one too.
        let refused = matches!(event, Event::Answered(_, Answer::Refused(_) | Answer::RefusedPending(_)))
            || matches!(event, Event::SecondRefused { epoch, .. } if self.counts(now, epoch));
        if refused || self.locked || self.deleted || current == Some(Answer::Integrity) {
            self.silence = Silence::No;
        }
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
