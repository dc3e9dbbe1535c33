//! Every short history of a lease that has nobody beside it.

use super::arena::{Relative, explore_all};
use super::*;
use crate::evidence::{count, report};

/// How many moves the longest history has, and in a full evidence run.
const DEPTH: u64 = 8;
const FULL_DEPTH: u64 = 10;
/// The same for those that begin fresh, in grace, tainted or in the middle of a refusal.
const LATE_DEPTH: u64 = 6;
const FULL_LATE_DEPTH: u64 = 8;

/// r = 6 s, c = 2 s, G = 20 s: J = 6.6 s, F = 14.6 s.
const POLICY: Policy = Policy::new(Duration::from_secs(6), Duration::from_secs(2), Duration::from_secs(20));

#[derive(Clone, Copy, Debug)]
pub(super) enum Move {
    Begin,
    Answer(Answer),
    /// A success that started when the attempt began, or with the refusal that it follows; and the grace
    /// that its record allows.
    Succeed(Option<Duration>),
    Late(Answer),
    LateSuccess,
    Tell(Event),
    SharedSilence,
    Ask,
    /// Time passes until the machine wants to be woken, and it is.
    ToWake,
    /// Time passes and the machine is woken, late or early.
    Pass(Duration),
    /// A suspend that nobody is woken from yet.
    Sleep(Duration),
    WallForward(Duration),
    WallBack(Duration),
}

const ALPHABET: [Move; 20] = [
    Move::ToWake,
    Move::Begin,
    Move::Succeed(None),
    Move::Answer(Answer::Transient),
    Move::Answer(Answer::Integrity),
    Move::Answer(Answer::RefusedPending(Refusal::KeyGone)),
    Move::Answer(Answer::Refused(Refusal::KeyGone)),
    Move::LateSuccess,
    Move::Late(Answer::Refused(Refusal::KeyGone)),
    Move::SharedSilence,
    Move::Tell(Event::AuthorityRefused),
    Move::Tell(Event::Lock),
    Move::Tell(Event::Unlock),
    Move::Tell(Event::Delete),
    Move::Tell(Event::Recover),
    Move::Ask,
    Move::Pass(Duration::from_secs(2)),
    Move::Sleep(Duration::from_secs(15)),
    Move::WallForward(Duration::from_secs(15)),
    Move::WallBack(Duration::from_secs(15)),
];

#[test]
fn every_history_of_a_few_moves_keeps_the_contract() {
    let depth = count(DEPTH, DEPTH, FULL_DEPTH);
    let states = explore(vec![World::new(POLICY, 1)], depth);
    report("R7", "moves of a lease from cold", depth, ">=", DEPTH);
    report("R7", "lease states from cold", states, ">=", 300_000);
    assert!(states > 300_000, "the alphabet still reaches something");
}

#[test]
fn so_does_every_history_that_begins_late() {
    let fresh = World::fresh_with(POLICY, 1);
    let mut grace = fresh.clone();
    while grace.seen() != Seen::Grace {
        grace.attempt(|_| Answer::Transient);
    }
    let mut confirming = fresh.clone();
    confirming.attempt(|_| Answer::RefusedPending(Refusal::KeyGone));
    let mut tainted = fresh.clone();
    tainted.attempt(|_| Answer::Integrity);
    let depth = count(LATE_DEPTH, LATE_DEPTH, FULL_LATE_DEPTH);
    let states = explore(vec![fresh, grace, confirming, tainted], depth);
    report("R7", "moves of a lease from later", depth, ">=", LATE_DEPTH);
    report("R7", "lease states from later", states, ">=", 50_000);
    assert!(states > 50_000, "the alphabet still reaches something");
}

/// Plays every move in every state, and counts the states.
fn explore(frontier: Vec<World>, deepest: u64) -> usize {
    explore_all(frontier, deepest, &ALPHABET, |world, step| {
        world.lease.jitter = Jitter::new(1);
        let played = world.play(step)?;
        Ok::<_, Breach>(played.then(|| world.fingerprint()))
    })
}

impl World {
    /// Makes a move; false where it is none here.
    pub(super) fn play(&mut self, step: Move) -> Result<bool, Breach> {
        let told = match step {
            Move::Begin if self.lease.wants_attempt(self.now) => return self.try_begin().map(|_| true),
            Move::Begin => return Ok(false),
            Move::Ask => return self.ask(),
            Move::Succeed(max_grace) => {
                let Some(started) = self.watch.flight.map(|flight| flight.counts_from) else {
                    return Ok(false);
                };
                self.flight.map(|id| Event::Answered(id, Answer::Verified { started, max_grace }))
            }
            Move::Answer(answer) => self.flight.map(|id| Event::Answered(id, answer)),
            Move::LateSuccess => {
                let answer = Answer::Verified { started: self.now, max_grace: None };
                self.stale.map(|id| Event::Answered(id, answer))
            }
            Move::Late(answer) => self.stale.map(|id| Event::Answered(id, answer)),
            Move::Tell(event) => Some(event),
            Move::SharedSilence => Some(Event::AuthoritySilent { begun: self.now, asked: true }),
            Move::ToWake => {
                // A lease for the whole outage has its end at the end of time: nobody waits for that.
                let near = self.now.plus(MAX_REFRESH * 1440);
                let ahead = |at: &Moment| !self.now.reached(*at) && near.reached(*at);
                let Some(at) = self.lease.wake_at().filter(ahead) else { return Ok(false) };
                self.pass_to(at);
                Some(Event::Wake)
            }
            Move::Pass(time) => {
                self.pass(time);
                Some(Event::Wake)
            }
            Move::Sleep(time) => {
                self.pass(time);
                None
            }
            Move::WallForward(time) => {
                self.now = Moment::from_nanos(self.now.boot_nanos(), self.now.plus(time).wall_nanos());
                None
            }
            Move::WallBack(time) => {
                let back = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
                let wall = self.now.wall_nanos().saturating_sub(back);
                self.now = Moment::from_nanos(self.now.boot_nanos(), wall);
                None
            }
        };
        match (told, step) {
            (Some(event), _) => self.try_on(event).map(|_| true),
            (None, Move::Sleep(_) | Move::WallForward(_) | Move::WallBack(_)) => {
                self.watch.check_usable(self.now).map(|()| true)
            }
            (None, _) => Ok(false),
        }
    }

    /// A hash of all that decides the future. Destructured in full: a new field has to be thought about.
    fn fingerprint(&self) -> u64 {
        let Self { lease, watch, now, flight, stale } = self;
        let mut hash = Relative::at(*now);
        hash.lease(lease);
        hash.other((flight.is_some(), stale.is_some()));
        watch.fingerprint(&mut hash);
        hash.finish()
    }
}
