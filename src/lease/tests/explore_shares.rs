//! Every short history of an account under joint custody (contract A7), shown to an observer that knows what a share may do, and nothing of
//! how the machine keeps to that.
//!
//! Two shares, because the outer AEK of double encryption is asked for as they are.

use super::arena::{Arena, Beside, Move, REFUSED, Relative, Silence};
use super::*;
use crate::evidence::{count, report};

const DEPTH: u64 = 7;
const FULL_DEPTH: u64 = 9;
/// The same for those that begin in the midst of an outage or of a refusal.
const LATE_DEPTH: u64 = 5;
const FULL_LATE_DEPTH: u64 = 7;

/// r = 6 s, c = 2 s, G = 20 s: F = 14.6 s.
const POLICY: Policy = Policy::new(Duration::from_secs(6), Duration::from_secs(2), Duration::from_secs(20));

/// Of a call for one share.
#[derive(Clone, Copy, Debug)]
enum Call {
    Begin(usize),
    /// It unwraps. Nobody tells the machine, unless it was refused before; one who mistook it for a whole key would tell it this.
    Succeed(usize),
    /// The record is compared meanwhile; the rest of the call is an unwrap that starts now.
    Pend(usize),
    Refuse(usize),
    /// The account is dropped, and attached again.
    Attach,
}

const ALPHABET: [Move<Call>; 27] = [
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
    Move::Beside(Call::Begin(0)),
    Move::Beside(Call::Begin(1)),
    Move::Beside(Call::Succeed(0)),
    Move::Beside(Call::Succeed(1)),
    Move::Beside(Call::Pend(0)),
    Move::Beside(Call::Pend(1)),
    Move::Beside(Call::Refuse(0)),
    Move::Beside(Call::Refuse(1)),
    Move::Tell(Event::Lock),
    Move::Tell(Event::Unlock),
    Move::Tell(Event::Delete),
    Move::Tell(Event::Recover),
    Move::Beside(Call::Attach),
    Move::Pass(Duration::from_secs(2)),
    Move::Sleep(Duration::from_secs(15)),
    Move::WallForward(Duration::from_secs(15)),
];

#[test]
fn a7_r7_every_history_of_two_shares_keeps_the_contract() {
    let depth = count(DEPTH, DEPTH, FULL_DEPTH);
    let states = Arena::explore(vec![cold()], depth, &ALPHABET);
    report("R7", "moves of a lease with shares from cold", depth, ">=", DEPTH);
    report("R7", "states of a lease with shares from cold", states, ">=", LEAST);
    assert!(states > LEAST, "the alphabet still reaches something");
}

#[test]
fn a7_r7_so_does_every_history_of_shares_that_begins_in_an_outage_or_a_refusal() {
    let fresh = cold().lived(&[Move::Begin, Move::Succeed]);
    let silent = fresh.lived(&[Move::ToWake, Move::Begin, Move::Answer(Answer::Transient)]);
    let asked = silent.lived(&[Move::Pass(MIN_SPACING * 2), Move::Beside(Call::Begin(0))]);
    let both = asked.lived(&[Move::Beside(Call::Begin(1))]);
    let pending = both.lived(&[Move::Beside(Call::Pend(1))]);
    let revoked = both.lived(&[Move::Beside(Call::Refuse(0))]);
    let depth = count(LATE_DEPTH, LATE_DEPTH, FULL_LATE_DEPTH);
    let states = Arena::explore(vec![fresh, silent, asked, both, pending, revoked], depth, &ALPHABET);
    report("R7", "moves of a lease with shares from later", depth, ">=", LATE_DEPTH);
    report("R7", "states of a lease with shares from later", states, ">=", LEAST_LATE);
    assert!(states > LEAST_LATE, "the alphabet still reaches something");
}

const LEAST: usize = 50_000;
const LEAST_LATE: usize = 50_000;

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    epoch: Epoch,
    pended: bool,
}

/// The calls that are under way, and what is known from outside. Each rule is a sentence of the contract.
#[derive(Clone, Debug)]
struct Watch {
    shares: [Option<UnderWay>; 2],
    epoch: Epoch,
    keys: Option<Keys>,
    silence: Silence,
    locked: bool,
    deleted: bool,
    /// A person asks, and such attempts have a bucket in the place of a distance (C1), which `explore` watches.
    asked: bool,
    /// An attempt was refused, and the rest of it is under way.
    confirming: bool,
    /// What was just said revoked nothing, and is a reason to ask.
    news: bool,
    attempted: Option<Moment>,
    begun: [Option<Moment>; 2],
}

#[derive(Clone, Copy, Debug)]
struct Keys {
    since: Moment,
    /// The last silence, which earns grace (C5).
    earned: Option<Moment>,
    tainted: bool,
    valid_until: Moment,
}

fn cold() -> Arena<Watch> {
    let now = crate::clock::ManualClock::new().moment();
    let watch = Watch {
        shares: [None; 2],
        epoch: Epoch::FIRST,
        keys: None,
        silence: Silence::No,
        locked: false,
        deleted: false,
        asked: false,
        confirming: false,
        news: false,
        attempted: None,
        begun: [None; 2],
    };
    Arena::new(Lease::new(POLICY, now, 1).with_shares(), watch, now)
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
        self.keys.is_some_and(|keys| keys.ended(now))
    }

    fn begun(&mut self, now: Moment) -> Result<(), &'static str> {
        let Self { attempted, begun, asked, confirming, .. } = self;
        let too_near = |last: Option<Moment>| last.is_some_and(|last| near(last, now));
        if !*asked && (too_near(*attempted) || begun.iter().any(|begun| too_near(*begun))) {
            return Err("attempts keep their distance, of shares too");
        }
        (*attempted, *asked, *confirming) = (Some(now), false, false);
        Ok(())
    }

    fn play(arena: &mut Arena<Self>, step: Call) -> Result<bool, &'static str> {
        let told = match step {
            Call::Begin(at) => return begin_share(arena, at),
            Call::Pend(at) => return pend_share(arena, at),
            Call::Attach => return Ok(attach(arena)),
            Call::Succeed(at) => arena.beside.shares[at].take().map(|call| call.succeeds(arena.now)),
            Call::Refuse(at) => arena.beside.shares[at]
                .take()
                .map(|UnderWay { epoch, .. }| Event::SecondRefused { epoch, refusal: REFUSED }),
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
        self.note(now, event, current);
        let silent = matches!(event, Event::AuthoritySilent { .. }) || self.meets_silence(now, current);
        match effects.publish {
            None if self.keys.is_some() && self.meets_silence(now, current) => {
                return Err("silence of an attempt earns grace");
            }
            None => {}
            Some(Publish::Keys { fresh_until, valid_until }) => {
                let Some(Answer::Verified { started, .. }) = current else {
                    return Err("what opens is an attempt that both have answered");
                };
                if fresh_until != started.plus(POLICY.fresh_for()) || valid_until != fresh_until {
                    return Err("a lease counts from the start of its unwrap");
                }
                self.keys = Some(Keys { since: started, earned: None, tainted: false, valid_until });
                (self.silence, self.locked) = (Silence::No, false);
            }
            Some(Publish::Extend { fresh_until, valid_until }) => {
                let Some(keys) = self.keys.as_mut() else { return Err("only what is open is extended") };
                if current.is_none() && !silent {
                    return Err("nothing but an attempt, or a neighbour's, lengthens a lease");
                }
                keys.earned = if silent { Some(now) } else { keys.earned };
                if (fresh_until, valid_until) != (keys.since.plus(POLICY.fresh_for()), keys.valid_until()) {
                    return Err("another deadline than the last silence has earned");
                }
                keys.valid_until = valid_until;
            }
            Some(Publish::Close { epoch, why }) => {
                was.check_closing(now, event, current, why)?;
                if epoch <= was.epoch || !effects.notify {
                    return Err("a closing has an epoch of its own, and is told");
                }
                (self.epoch, self.keys) = (epoch, None);
            }
        }
        let revokes = matches!(effects.publish, Some(Publish::Close { why: Closed::Revoked(_), .. }));
        self.news = matches!(event, Event::SecondRefused { .. } | Event::RecordChanged) && !revokes;
        was.check_refusal(now, event, revokes)?;
        let refused = match event {
            Event::SecondRefusedPending { epoch } => was.must_hear(now, epoch),
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
        if usable.is_some_and(|keys| !keys.live(now) || self.locked || self.deleted) {
            return Err("usable for too long");
        }
        Ok(())
    }

    fn check_wants(arena: &Arena<Self>, current: Option<Answer>) -> Result<(), &'static str> {
        let Arena { lease, beside: watch, now, attempt, .. } = arena;
        let wanted = (0..2).any(|at| lease.wants_share(*now, at));
        if wanted && (watch.silence == Silence::No || watch.closed() || attempt.is_some()) {
            return Err(
                "a share is asked for in silence only, never beside an attempt, a lock or a deletion",
            );
        }
        // An attempt under way has begun too early, and is followed by another one.
        if watch.news && !watch.closed() && attempt.is_none() && !lease.wants_attempt(now.plus(MIN_SPACING)) {
            return Err("a refusal that decides nothing is a reason to ask, and so is a new record");
        }
        let open = matches!(lease.phase, Phase::Held(_) | Phase::Cold | Phase::Unavailable);
        if current == Some(Answer::Transient) && open {
            let soon = now.plus(MIN_SPACING * 2);
            if !(0..2).all(|at| lease.wants_share(soon, at)) {
                return Err("silence of the attempts has each share asked for");
            }
        }
        Ok(())
    }

    fn fingerprint(&self, hash: &mut Relative) {
        let Self {
            shares,
            epoch,
            keys,
            silence,
            locked,
            deleted,
            asked,
            confirming,
            news: _,
            attempted,
            begun,
        } = self;
        hash.moments([*attempted]);
        hash.moments(*begun);
        if let Some(Keys { since, earned, tainted, valid_until }) = keys {
            hash.moments([Some(*since), Some(*valid_until), *earned]);
            hash.other(tainted);
        }
        for call in shares {
            hash.other(call.map(|UnderWay { epoch: begun, pended }| (begun == *epoch, pended)));
        }
        hash.other((silence, locked, deleted, asked, confirming, keys.is_some()));
    }
}

fn begin_share(arena: &mut Arena<Watch>, at: usize) -> Result<bool, &'static str> {
    let Arena { lease, beside: watch, now, .. } = arena;
    if !lease.wants_share(*now, at) {
        return Ok(false);
    }
    let last = watch.begun[at].replace(*now);
    if [last, watch.attempted].into_iter().flatten().any(|last| near(last, *now)) {
        return Err("shares keep their distance, of attempts too");
    }
    // So a neighbour's silence was ours too.
    watch.silence = Silence::Yes;
    watch.shares[at] = Some(UnderWay { epoch: lease.begin_share(*now, at), pended: false });
    Ok(true)
}

/// As `AccountInner::take_second_pending`.
fn pend_share(arena: &mut Arena<Watch>, at: usize) -> Result<bool, &'static str> {
    let Some(UnderWay { epoch, pended: false }) = arena.beside.shares[at] else { return Ok(false) };
    arena.on(Event::Wake)?;
    let heard = arena.lease.hears_second(epoch);
    arena.on(Event::SecondRefusedPending { epoch })?;
    let epoch = if heard { arena.lease.epoch() } else { epoch };
    arena.beside.shares[at] = Some(UnderWay { epoch, pended: true });
    Ok(true)
}

fn attach(arena: &mut Arena<Watch>) -> bool {
    let Arena { lease, beside: watch, now, .. } = arena;
    let Some(past) = lease.past() else { return false };
    *lease = Lease::new(POLICY, *now, 1).with_shares().following(past);
    watch.epoch = lease.epoch();
    (watch.keys, watch.silence, watch.deleted, watch.confirming) = (None, Silence::No, false, false);
    true
}

impl UnderWay {
    /// As `AccountInner::take_stood_in` after a refusal; otherwise what nobody should say of a share.
    const fn succeeds(self, started: Moment) -> Event {
        let Self { epoch, pended } = self;
        if pended {
            return Event::RecordChanged;
        }
        Event::StoodIn { epoch, started, confirmed: started, limit: MAX_REFRESH, max_grace: None }
    }
}

/// On the boot-time clock, as the distance is kept.
fn near(last: Moment, now: Moment) -> bool {
    Duration::from_nanos(now.boot_nanos() - last.boot_nanos()) < MIN_SPACING
}

impl Keys {
    /// Fresh, or carried by a silence of late.
    fn live(&self, now: Moment) -> bool {
        let (age, fresh_for) = (now.age_since(self.since), POLICY.fresh_for());
        let silent_lately = self.earned.is_some_and(|at| now.age_since(at) < fresh_for);
        age < fresh_for || (silent_lately && !self.tainted && age < POLICY.usable_for())
    }

    /// Until when they are to be used: each silence carries them for F, to F + G at most.
    fn valid_until(&self) -> Moment {
        let fresh_until = self.since.plus(POLICY.fresh_for());
        let earned = self.earned.filter(|_| !self.tainted);
        earned.map_or(fresh_until, |at| {
            at.plus(POLICY.fresh_for()).earlier(self.since.plus(POLICY.usable_for()))
        })
    }

    /// Wiped whatever happens. Between their deadline and this a silence may still carry them.
    fn ended(&self, now: Moment) -> bool {
        let most = if self.tainted { POLICY.fresh_for() } else { POLICY.usable_for() };
        now.age_since(self.since) >= most
    }
}

impl Watch {
    /// Called on the state before the event.
    fn check_closing(
        &self,
        now: Moment,
        event: Event,
        current: Option<Answer>,
        why: Closed,
    ) -> Result<(), &'static str> {
        let by_attempt = match current {
            Some(Answer::Refused(_)) => true,
            // Nothing that comes of the comparison unsays it (D12), but an unwrap.
            Some(Answer::Verified { .. } | Answer::RefusedPending(_)) | None => false,
            Some(Answer::Transient | Answer::NotAsked | Answer::Integrity) => self.confirming,
        };
        let by_share = matches!(event, Event::SecondRefused { epoch, .. } if self.may_hear(now, epoch));
        if matches!(why, Closed::Revoked(_)) && !by_share && !by_attempt {
            return Err("who revokes is a KMS that was asked");
        }
        if matches!(event, Event::StoodIn { .. } | Event::RecordChanged) && !self.ended(now) {
            return Err("a share that is there closes nothing");
        }
        Ok(())
    }

    /// One refusal revokes (A7), whether there are keys or not. Called on the state before the event.
    fn check_refusal(&self, now: Moment, event: Event, revokes: bool) -> Result<(), &'static str> {
        match event {
            Event::SecondRefused { epoch, .. } if self.must_hear(now, epoch) && !revokes => {
                Err("a refusal of one share revokes")
            }
            _ => Ok(()),
        }
    }

    /// Whether an attempt, as far as it was due and not held up by us, was silent. Whoever holds keys here asks only when due.
    fn meets_silence(&self, now: Moment, current: Option<Answer>) -> bool {
        let lately = |begun| now.age_since(begun) < POLICY.call_deadline() + MIN_SPACING;
        matches!(current, Some(Answer::Transient | Answer::NotAsked)) && self.attempted.is_some_and(lately)
    }

    /// Whether a refusal of one share may count, in a call begun in `epoch`. Where time has ended the lease just now it does not, told or not:
    /// there is no key any more (D1), and whether that is to be called revoked (D8) is for the attempt that the refusal brings, to which
    /// `check_wants` holds the machine. While only a neighbour was silent it may: silence is shared with those that were due, which cannot be seen
    /// from here, and to hear a refusal fails closed (A7).
    fn may_hear(&self, now: Moment, epoch: Epoch) -> bool {
        self.silence != Silence::No && self.lasts(now, epoch)
    }

    /// The same, where it has to count.
    fn must_hear(&self, now: Moment, epoch: Epoch) -> bool {
        self.silence == Silence::Yes && self.lasts(now, epoch)
    }

    fn lasts(&self, now: Moment, epoch: Epoch) -> bool {
        epoch == self.epoch && !self.ended(now) && !self.closed()
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
        if let Some(answer) = current {
            self.confirming = matches!(answer, Answer::RefusedPending(_));
        }
        if let Some(keys) = self.keys.as_mut().filter(|_| current == Some(Answer::Integrity)) {
            keys.tainted = true;
        }
        // Late or not, a refusal is an answer; the attempt that it brings has to meet silence anew. What cannot be right is one too.
        let refused = matches!(event, Event::Answered(_, Answer::Refused(_) | Answer::RefusedPending(_)))
            || matches!(event, Event::SecondRefused { epoch, .. } if self.may_hear(now, epoch));
        if refused || self.locked || self.deleted || current == Some(Answer::Integrity) {
            self.silence = Silence::No;
        }
    }
}
