//! Where every short history of a machine is played before an observer: breadth first over a small alphabet, each state visited once.
//!
//! Two histories are one state when machine, observer and open attempts agree in everything but the
//! absolute time and the numbers of attempts and epochs. The jitter is reset before each move, so a state
//! determines its future and nothing is lost by visiting it once.
//!
//! [`Arena`] is of accounts that ask somebody beside their attempts: it has the machine, its clock and the attempts, and shows each step to a
//! [`Beside`], which has those other calls and knows what they may do, and nothing of how the machine keeps to that. What holds of every account
//! is in `explore`.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::*;
use crate::lease::pace::Losses;
use crate::lease::second::Second;
use crate::lease::shares::{Share, Shares};

/// Plays every move in every state, and counts the states. `play` makes a move and gives the state's fingerprint, or nothing where the move is
/// none there.
pub(super) fn explore_all<W: Clone + Debug, M: Copy + Debug, B: Debug>(
    mut frontier: Vec<W>,
    deepest: u64,
    alphabet: &[M],
    play: impl Fn(&mut W, M) -> Result<Option<u64>, B>,
) -> usize {
    let mut seen = HashSet::new();
    let mut moves = 0_u64;
    for depth in 1..=deepest {
        let mut next = Vec::new();
        for (world, step) in frontier.iter().flat_map(|world| alphabet.iter().map(move |step| (world, *step)))
        {
            let mut after = world.clone();
            let fingerprint = match play(&mut after, step) {
                Ok(Some(fingerprint)) => fingerprint,
                Ok(None) => continue,
                Err(breach) => panic!("{breach:?} by {step:?} at depth {depth} from {world:#?}"),
            };
            moves += 1;
            if seen.insert(fingerprint) && depth < deepest {
                next.push(after);
            }
        }
        frontier = next;
        println!("depth {depth}: {} states by {moves} moves", seen.len());
    }
    seen.len()
}

/// A move of an account that asks somebody beside its attempts; `B` are those of the calls beside.
#[derive(Clone, Copy, Debug)]
pub(super) enum Move<B> {
    ToWake,
    /// An attempt.
    Begin,
    Succeed,
    Answer(Answer),
    LateSuccess,
    LateRefusal,
    SharedSilence,
    Beside(B),
    Tell(Event),
    Pass(Duration),
    /// A suspend that nobody is woken from yet.
    Sleep(Duration),
    WallForward(Duration),
}

/// The calls beside the attempts, and an observer. Each of its rules is a sentence of the contract.
pub(super) trait Beside: Clone + Debug {
    type Move: Copy + Debug;
    const POLICY: Policy;

    /// As last published.
    fn epoch(&self) -> Epoch;

    /// Locked or deleted.
    fn closed(&self) -> bool;

    /// Whether there are keys that time alone has ended.
    fn ended(&self, now: Moment) -> bool;

    /// An attempt begins.
    fn begun(&mut self, _now: Moment) -> Result<(), &'static str> {
        Ok(())
    }

    /// Makes a move of the calls beside; false where it is none here.
    fn play(arena: &mut Arena<Self>, step: Self::Move) -> Result<bool, &'static str>;

    /// Is shown what the machine made of an event, with the answer of the attempt under way.
    fn see(
        &mut self,
        now: Moment,
        event: Event,
        current: Option<Answer>,
        effects: Effects,
    ) -> Result<(), &'static str>;

    /// The data plane looks at its deadline alone.
    fn check_usable(&self, now: Moment) -> Result<(), &'static str>;

    /// What the machine must want, or not, after the event.
    fn check_wants(arena: &Arena<Self>, current: Option<Answer>) -> Result<(), &'static str>;

    /// All that decides the future of the calls, and what the observer will say.
    fn fingerprint(&self, hash: &mut Relative);
}

/// A machine, its clock, and what is under way.
#[derive(Clone, Debug)]
pub(super) struct Arena<B> {
    pub(super) lease: Lease,
    pub(super) beside: B,
    pub(super) now: Moment,
    /// The attempt, and when what it may still succeed with has started.
    pub(super) attempt: Option<(AttemptId, Moment)>,
    stale: Option<AttemptId>,
}

impl<B: Beside> Arena<B> {
    pub(super) const fn new(lease: Lease, beside: B, now: Moment) -> Self {
        Self { lease, beside, now, attempt: None, stale: None }
    }

    /// Plays every move in every state that is reached from these.
    pub(super) fn explore(from: Vec<Self>, deepest: u64, alphabet: &[Move<B::Move>]) -> usize {
        explore_all(from, deepest, alphabet, |arena, step| {
            arena.lease.jitter = Jitter::new(1);
            let played = arena.play(step)?;
            Ok::<_, &'static str>(played.then(|| arena.fingerprint()))
        })
    }

    /// After these moves, of which each is one.
    pub(super) fn lived(&self, moves: &[Move<B::Move>]) -> Self {
        let mut arena = self.clone();
        for step in moves {
            arena.lease.jitter = Jitter::new(1);
            assert_eq!(arena.play(*step), Ok(true), "{step:?} of {moves:?}");
            // What is woken before it may begin is woken again.
            while matches!(step, Move::ToWake) && !arena.lease.wants_attempt(arena.now) {
                assert_eq!(arena.play(Move::ToWake), Ok(true));
            }
        }
        arena
    }

    fn play(&mut self, step: Move<B::Move>) -> Result<bool, &'static str> {
        let told = match step {
            Move::Begin => return self.begin(),
            Move::Beside(step) => return B::play(self, step),
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
            Move::Tell(event) => Some(event),
            Move::ToWake => {
                let ahead = self.wake().filter(|at| !self.now.reached(*at));
                let Some(at) = ahead else { return Ok(false) };
                self.now = self.now.plus(self.now.until(at));
                Some(Event::Wake)
            }
            Move::Pass(time) => {
                self.now = self.now.plus(time);
                Some(Event::Wake)
            }
            Move::Sleep(time) => {
                self.now = self.now.plus(time);
                return self.beside.check_usable(self.now).map(|()| true);
            }
            Move::WallForward(time) => {
                self.now = Moment::from_nanos(self.now.boot_nanos(), self.now.plus(time).wall_nanos());
                return self.beside.check_usable(self.now).map(|()| true);
            }
        };
        match told {
            Some(event) => self.on(event).map(|()| true),
            None => Ok(false),
        }
    }

    fn begin(&mut self) -> Result<bool, &'static str> {
        if !self.lease.wants_attempt(self.now) {
            return Ok(false);
        }
        self.beside.begun(self.now)?;
        self.attempt = Some((self.lease.begin(self.now), self.now));
        Ok(true)
    }

    pub(super) fn on(&mut self, event: Event) -> Result<(), &'static str> {
        let current = self.current(event);
        let effects = self.lease.on(self.now, event);
        self.beside.see(self.now, event, current, effects)?;
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
        self.check_progress(event)?;
        B::check_wants(self, current)
    }

    /// The answer of the attempt under way, as it counts.
    fn current(&self, event: Event) -> Option<Answer> {
        // Time comes before the event: of a lease that has ended, what was under way is worth nothing.
        let Event::Answered(id, answer) = event else { return None };
        let (_, begun) =
            self.attempt.filter(|(attempt, _)| *attempt == id && !self.beside.ended(self.now))?;
        // What outlived its deadline by far was held up by us: of a KMS it says nothing.
        let held_up = self.now.age_since(begun) >= B::POLICY.call_deadline() + MIN_SPACING;
        Some(if answer == Answer::Transient && held_up { Answer::NotAsked } else { answer })
    }

    fn wake(&self) -> Option<Moment> {
        self.lease.wake_besides(self.now, false, false)
    }

    fn check_progress(&self, event: Event) -> Result<(), &'static str> {
        let Self { lease, beside, now, .. } = self;
        if lease.epoch() != beside.epoch() {
            return Err("every epoch is published");
        }
        if matches!(event, Event::Wake) && beside.ended(*now) {
            return Err("what has ended is wiped");
        }
        let wake = self.wake();
        if wake.is_some_and(|at| now.reached(at)) && !lease.wants_attempt(*now) && !lease.wants_second(*now) {
            return Err("no busy loop");
        }
        let soon = now.plus(MAX_REFRESH);
        if self.attempt.is_none() && !beside.closed() && !wake.is_some_and(|at| soon.reached(at)) {
            return Err("it asks again by itself");
        }
        Ok(())
    }

    /// A hash of all that decides the future.
    fn fingerprint(&self) -> u64 {
        let Self { lease, beside, now, attempt, stale } = self;
        let mut hash = Relative::at(*now);
        hash.lease(lease);
        hash.moments([attempt.map(|(_, started)| started)]);
        hash.other(stale.is_some());
        beside.fingerprint(&mut hash);
        hash.finish()
    }
}

/// Whether the attempts are silent: after their own silence they are, after a neighbour's they may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Silence {
    No,
    Perhaps,
    Yes,
}

pub(super) const REFUSED: Refusal = Refusal::KeyGone;

/// Hashes moments by their distance from now.
pub(super) struct Relative {
    now: Moment,
    hasher: DefaultHasher,
}

impl Relative {
    pub(super) fn at(now: Moment) -> Self {
        Self { now, hasher: DefaultHasher::new() }
    }

    pub(super) fn finish(&self) -> u64 {
        self.hasher.finish()
    }

    /// Of a machine, all that decides what it will do.
    pub(super) fn lease(&mut self, lease: &Lease) {
        let Lease {
            policy: _,
            cache_grace: _,
            phase,
            epoch: _,
            attempt,
            next_id: _,
            last_begun,
            due,
            failures,
            unlock_wanted,
            asked,
            tokens: Tokens { left, filled },
            flaps: Flaps(losses),
            jitter: _,
            overtaken,
            beside: _,
        } = lease;
        let Losses { last, doublings } = losses.as_deref().copied().unwrap_or_default();
        let Second { barred, due: second_due, last_begun: second_begun, verified } =
            lease.second().copied().unwrap_or_default();
        self.other(barred);
        if let Some(Shares { attempted, each }) = lease.shares() {
            self.moments([*attempted]);
            self.moments(each.iter().flat_map(|Share { due, begun }| [*due, *begun]));
        }
        self.moments([second_due, second_begun, verified]);
        self.other(std::mem::discriminant(phase));
        if let Phase::Held(Held { since, stood_in, silent_at, tainted, seen }) = phase {
            self.moments([*since, *stood_in, *silent_at]);
            self.other((tainted, seen));
        }
        self.other(matches!(phase, Phase::Deleted { locked: true }));
        self.moments([attempt.map(|attempt| attempt.begun)]);
        self.other(attempt.map(|attempt| (attempt.due, attempt.unlock)));
        self.moments([*last_begun, Some(*due)]);
        self.other(filled.wrapping_sub(self.now.boot_nanos()));
        self.moments(last);
        self.other((failures, unlock_wanted, asked, left, doublings, overtaken));
    }

    pub(super) fn moments(&mut self, moments: impl IntoIterator<Item = Option<Moment>>) {
        for moment in moments {
            moment
                .map(|at| {
                    let boot = at.boot_nanos().wrapping_sub(self.now.boot_nanos());
                    let wall = at.wall_nanos().wrapping_sub(self.now.wall_nanos());
                    // The end of time is the end of time from wherever it is seen.
                    (boot, if at.wall_nanos() == u64::MAX { u64::MAX } else { wall })
                })
                .hash(&mut self.hasher);
        }
    }

    pub(super) fn other(&mut self, other: impl Hash) {
        other.hash(&mut self.hasher);
    }
}
