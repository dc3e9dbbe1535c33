//! The second provider of a failover custody, beside the machine of the first: when it is asked, and what its answers are worth.

use super::*;

const LIMIT: Duration = Duration::from_secs(3600);
const REFUSED: Refusal = Refusal::KeyDisabled;

/// A machine and its clock. What the record says of the first provider is `confirmed`.
struct Pair {
    lease: Lease,
    now: Moment,
    confirmed: Moment,
}

impl Pair {
    fn cold() -> Self {
        let now = crate::clock::ManualClock::new().moment();
        Self { lease: Lease::new(DEFAULT, now, 1).with_second(), now, confirmed: now }
    }

    fn fresh() -> Self {
        let mut pair = Self::cold();
        pair.first(|started| Answer::Verified { started, max_grace: None });
        pair
    }

    /// In an outage of the first, with the second one standing in.
    fn standing_in() -> Self {
        let mut pair = Self::fresh();
        pair.silence();
        pair.stand_in();
        pair
    }

    fn pass(&mut self, time: Duration) -> Effects {
        self.now = self.now.plus(time);
        self.lease.on(self.now, Event::Wake)
    }

    /// The next attempt at the first one.
    fn first(&mut self, answer: impl FnOnce(Moment) -> Answer) -> Effects {
        while !self.lease.wants_attempt(self.now) {
            self.pass(SECOND);
        }
        let started = self.now;
        let id = self.lease.begin(started);
        self.now = self.now.plus(LATENCY);
        self.lease.on(self.now, Event::Answered(id, answer(started)))
    }

    fn silence(&mut self) {
        self.first(|_| Answer::Transient);
    }

    /// The next call of the second one, which unwraps.
    fn stand_in(&mut self) -> Effects {
        while !self.lease.wants_second(self.now) {
            self.pass(SECOND);
        }
        let (started, epoch) = (self.now, self.lease.begin_second(self.now));
        self.now = self.now.plus(LATENCY);
        self.stood_in(epoch, started)
    }

    fn stood_in(&mut self, epoch: Epoch, started: Moment) -> Effects {
        let (confirmed, limit) = (self.confirmed, LIMIT);
        self.lease.on(self.now, Event::StoodIn { epoch, started, confirmed, limit, max_grace: None })
    }

    fn refuse_second(&mut self) -> Effects {
        let epoch = self.lease.epoch();
        self.lease.on(self.now, Event::SecondRefused { epoch, refusal: REFUSED })
    }
}

fn valid_until(effects: Effects) -> Option<(Moment, Moment)> {
    match effects.publish {
        Some(Publish::Keys { fresh_until, valid_until }) => Some((fresh_until, valid_until)),
        _ => None,
    }
}

#[test]
fn a7_the_second_is_asked_in_silence_only() {
    let mut pair = Pair::fresh();
    assert_eq!(pair.lease.second_at(), None);
    pair.silence();
    assert!(pair.lease.wants_second(pair.now));
    pair.first(|started| Answer::Verified { started, max_grace: None });
    assert_eq!(pair.lease.second_at(), None);
    // Without a second one there is nobody to ask.
    let mut alone = World::fresh();
    alone.attempt(|_| Answer::Transient);
    assert_eq!(alone.lease.second_at(), None);
}

#[test]
fn a7_what_is_no_silence_of_the_first_does_not_bring_the_second_in() {
    let mut pair = Pair::fresh();
    pair.first(|_| Answer::NotAsked);
    assert_eq!(pair.lease.second_at(), None);
    let Phase::Held(held) = pair.lease.phase else { panic!("held") };
    assert!(held.silent_at.is_some(), "the usual grace is earned all the same");
    // Cut short by our own sleep, of this account or of a neighbour.
    let asleep = DEFAULT.call_deadline() + MIN_SPACING;
    for mut pair in [Pair::cold(), Pair::fresh()] {
        pair.first(|_| Answer::NotAsked);
        while !pair.lease.wants_attempt(pair.now) {
            pair.pass(SECOND);
        }
        let begun = pair.now;
        pair.pass(asleep);
        pair.lease.on(pair.now, Event::AuthoritySilent { begun, asked: true });
        assert_eq!(pair.lease.second_at(), None);
        let id = pair.lease.begin(pair.now);
        pair.pass(asleep);
        pair.lease.on(pair.now, Event::Answered(id, Answer::Transient));
        assert_eq!(pair.lease.second_at(), None);
        pair.silence();
        assert!(pair.lease.wants_second(pair.now));
    }
}

#[test]
fn a7_a_neighbours_silence_is_enough_also_without_a_key() {
    for mut pair in [Pair::cold(), Pair::fresh()] {
        while !pair.lease.wants_attempt(pair.now) {
            pair.pass(SECOND);
        }
        let begun = pair.now;
        pair.lease.on(pair.now, Event::AuthoritySilent { begun, asked: true });
        assert!(pair.lease.wants_second(pair.now));
    }
}

#[test]
fn a7_what_hung_before_the_kms_was_asked_earns_grace_and_brings_no_second_in() {
    let mut pair = Pair::fresh();
    while !pair.lease.wants_attempt(pair.now) {
        pair.pass(SECOND);
    }
    pair.lease.on(pair.now, Event::AuthoritySilent { begun: pair.now, asked: false });
    let Phase::Held(held) = pair.lease.phase else { panic!("held") };
    assert!(held.silent_at.is_some());
    assert_eq!(pair.lease.second_at(), None);
}

#[test]
fn a7_calls_of_the_second_keep_their_distance() {
    let mut pair = Pair::fresh();
    pair.silence();
    pair.lease.begin_second(pair.now);
    let begun = pair.now;
    while !pair.lease.wants_second(pair.now) {
        pair.pass(SECOND);
    }
    assert_eq!(pair.now.age_since(begun), MIN_SPACING);
    pair.stand_in();
    let begun = pair.now;
    while !pair.lease.wants_second(pair.now) {
        pair.pass(SECOND);
    }
    let paused = pair.now.age_since(begun);
    assert!(paused >= DEFAULT.shortest_interval() - SECOND && paused <= DEFAULT.longest_interval() + SECOND);
}

#[test]
fn a7_c1_a_wall_clock_that_jumps_buys_no_calls_of_the_second() {
    let mut pair = Pair::standing_in();
    pair.silence();
    let begun = pair.lease.second().and_then(|second| second.last_begun).expect("it stands in");
    for _ in 0..10 {
        let wall = pair.now.plus(Duration::from_secs(60)).wall_nanos();
        pair.now = Moment::from_nanos(begun.plus(MIN_SPACING).boot_nanos() - 1, wall);
        pair.lease.on(pair.now, Event::Wake);
        assert!(!pair.lease.wants_second(pair.now));
    }
    pair.now = Moment::from_nanos(begun.plus(MIN_SPACING).boot_nanos(), pair.now.wall_nanos());
    assert!(pair.lease.wants_second(pair.now));
}

#[test]
fn a7_a_success_of_the_second_lasts_f_and_is_never_fresh() {
    let mut pair = Pair::cold();
    pair.silence();
    let effects = pair.stand_in();
    let (fresh_until, valid_until) = valid_until(effects).expect("keys");
    assert!(pair.now.reached(fresh_until) && effects.notify);
    let started = Moment::from_nanos(pair.now.boot_nanos() - 50_000_000, pair.now.wall_nanos() - 50_000_000);
    assert_eq!(valid_until, started.plus(DEFAULT.fresh_for()));
    let left = pair.now.until(valid_until);
    pair.now = pair.now.plus(left);
    let effects = pair.lease.on(pair.now, Event::Wake);
    assert!(matches!(effects.publish, Some(Publish::Close { why: Closed::Silent, .. })), "{effects:?}");
}

#[test]
fn a7_the_limit_counts_from_the_first_ones_last_answer_here_or_by_the_record() {
    for (cold, recorded) in [(true, 100), (false, 100), (false, 0)] {
        let mut pair = if cold { Pair::cold() } else { Pair::fresh() };
        let verified = pair.now;
        if recorded > 0 {
            pair.confirmed = pair.now.plus(Duration::from_secs(recorded));
        }
        let end = if recorded > 0 { pair.confirmed } else { verified }.plus(LIMIT);
        let mut last = None;
        while pair.now.age_since(verified) < LIMIT + Duration::from_secs(300) {
            if pair.lease.wants_attempt(pair.now) {
                pair.silence();
            }
            if pair.lease.wants_second(pair.now) {
                last = valid_until(pair.stand_in()).or(last);
            }
            pair.pass(SECOND);
        }
        let (_, last) = last.expect("it stood in");
        assert!(end.until(last).is_zero() && last.until(end) < SECOND * 2, "{last:?} {end:?}");
        assert!(!matches!(pair.lease.phase, Phase::Held(_)));
    }
}

#[test]
fn a7_the_usual_grace_is_not_shorter_for_having_a_second() {
    let mut pair = Pair::standing_in();
    let Phase::Held(held) = pair.lease.phase else { panic!("held") };
    assert!(held.silent_at.is_some() && held.stood_in.is_some());
    let since = held.since.expect("the first one's");
    // Neither answers any more.
    while pair.now.age_since(since) < DEFAULT.usable_for() - SECOND * 10 {
        if pair.lease.wants_attempt(pair.now) {
            pair.silence();
        }
        pair.pass(SECOND);
        assert!(matches!(pair.lease.phase, Phase::Held(_)), "{:?}", pair.now.age_since(since));
    }
}

#[test]
fn a7_a_refusal_by_the_first_bars_the_second_until_it_unwraps() {
    for late in [false, true] {
        let mut pair = Pair::standing_in();
        let epoch = pair.lease.epoch();
        if late {
            let gone = AttemptId(1_000_000);
            pair.lease.on(pair.now, Event::Answered(gone, Answer::Refused(REFUSED)));
        } else {
            let effects = pair.first(|_| Answer::Refused(REFUSED));
            assert!(matches!(effects.publish, Some(Publish::Close { why: Closed::Revoked(REFUSED), .. })));
        }
        for _ in 0..200 {
            if pair.lease.wants_attempt(pair.now) {
                pair.silence();
            }
            pair.pass(SECOND);
            assert_eq!(pair.lease.second_at(), None);
        }
        let started = pair.now;
        for epoch in [epoch, pair.lease.epoch()] {
            assert_eq!(pair.stood_in(epoch, started).publish, None);
        }
        pair.first(|started| Answer::Verified { started, max_grace: None });
        pair.silence();
        assert!(pair.lease.wants_second(pair.now));
    }
}

#[test]
fn a7_a_pending_refusal_bars_too() {
    let mut pair = Pair::standing_in();
    pair.first(|_| Answer::RefusedPending(REFUSED));
    let (epoch, started) = (pair.lease.epoch(), pair.now);
    assert_eq!(pair.stood_in(epoch, started).publish, None);
    assert!(matches!(pair.lease.phase, Phase::Confirming(_)));
}

#[test]
fn a7_what_was_begun_before_a_closing_opens_nothing() {
    for close in [Event::Lock, Event::Delete] {
        let mut pair = Pair::standing_in();
        let (epoch, started) = (pair.lease.epoch(), pair.now);
        pair.lease.on(pair.now, close);
        for epoch in [epoch, pair.lease.epoch()] {
            assert_eq!(pair.stood_in(epoch, started).publish, None);
            let event = Event::SecondRefused { epoch, refusal: REFUSED };
            assert_eq!(pair.lease.on(pair.now, event), Effects::default());
        }
        assert_eq!(pair.lease.second_at(), None);
        // A lock is opened by the first one only: nobody asks the second in it, and nobody has to after it.
        pair.lease.on(pair.now, Event::AuthoritySilent { begun: pair.now, asked: true });
        assert_eq!(pair.lease.second_at(), None);
        pair.lease.on(pair.now, Event::Recover);
        assert_eq!(pair.lease.second_at(), None);
    }
}

#[test]
fn a7_an_answer_that_comes_once_the_first_has_answered_is_nothing() {
    let mut pair = Pair::fresh();
    pair.silence();
    let (epoch, started) = (pair.lease.begin_second(pair.now), pair.now);
    pair.first(|started| Answer::Verified { started, max_grace: None });
    assert_eq!(pair.stood_in(epoch, started), Effects::default());
    assert_eq!(pair.refuse_second(), Effects::default());
}

#[test]
fn a7_a_refusal_by_the_second_revokes_and_is_forgiven_by_either() {
    for by_first in [false, true] {
        let mut pair = Pair::standing_in();
        let before = pair.lease.epoch();
        let effects = pair.refuse_second();
        assert!(matches!(effects.publish, Some(Publish::Close { why: Closed::Revoked(REFUSED), .. })));
        assert_ne!(pair.lease.epoch(), before);
        assert_eq!(pair.refuse_second().publish, None);
        if by_first {
            pair.first(|started| Answer::Verified { started, max_grace: None });
        } else {
            assert!(valid_until(pair.stand_in()).is_some());
        }
        assert!(matches!(pair.lease.phase, Phase::Held(_)));
    }
}

#[test]
fn a7_an_answer_of_the_first_that_cannot_be_right_ends_a_stand_in() {
    let mut pair = Pair::standing_in();
    while matches!(pair.lease.phase, Phase::Held(held) if held.seen == super::super::Seen::Fresh) {
        if pair.lease.wants_attempt(pair.now) {
            pair.silence();
        }
        if pair.lease.wants_second(pair.now) {
            pair.stand_in();
        }
        pair.pass(SECOND);
    }
    let effects = pair.first(|_| Answer::Integrity);
    assert!(matches!(effects.publish, Some(Publish::Close { why: Closed::Integrity, .. })), "{effects:?}");

    // While it is fresh, it stays so, and not a moment longer by the second one.
    let mut pair = Pair::standing_in();
    pair.first(|_| Answer::Integrity);
    let (epoch, started) = (pair.lease.epoch(), pair.now);
    assert_eq!(pair.stood_in(epoch, started).publish, None);
    let Phase::Held(held) = pair.lease.phase else { panic!("held") };
    assert!(held.tainted && held.stood_in.is_none());
}

#[test]
fn a7_the_second_does_not_stand_in_for_an_answer_that_cannot_be_right() {
    for cold in [true, false] {
        let mut pair = if cold { Pair::cold() } else { Pair::fresh() };
        pair.silence();
        let (epoch, started) = (pair.lease.begin_second(pair.now), pair.now);
        pair.first(|_| Answer::Integrity);
        assert_eq!(pair.lease.second_at(), None);
        for epoch in [epoch, pair.lease.epoch()] {
            assert_eq!(pair.stood_in(epoch, started), Effects::default());
        }
        let far = pair.now.plus(DEFAULT.usable_for());
        while !pair.now.reached(far) {
            if pair.lease.wants_attempt(pair.now) {
                pair.first(|_| Answer::Integrity);
            }
            pair.pass(SECOND);
            assert_eq!(pair.lease.second_at(), None);
        }
        assert_eq!(pair.lease.phase, Phase::Unavailable);
        // Silent again, it may be stood in for again.
        pair.silence();
        assert!(pair.lease.wants_second(pair.now));
    }
}

#[test]
fn a7_the_bar_outlives_an_account_that_is_dropped_and_attached_again() {
    let mut pair = Pair::standing_in();
    pair.first(|_| Answer::Refused(REFUSED));
    let past = pair.lease.past().expect("no attempt is under way");
    let mut next = Pair { lease: Lease::new(DEFAULT, pair.now, 2).with_second().following(past), ..pair };
    next.silence();
    assert_eq!(next.lease.second_at(), None);
}

#[test]
fn a7_c1_calls_of_the_second_keep_their_distance_from_those_before_a_drop() {
    let pair = Pair::standing_in();
    let (begun, verified) = (
        pair.lease.second().and_then(|second| second.last_begun).expect("it stands in"),
        pair.lease.first_verified(),
    );
    let past = pair.lease.past().expect("no attempt is under way");
    let mut next = Pair { lease: Lease::new(DEFAULT, pair.now, 2).with_second().following(past), ..pair };
    assert_eq!((next.lease.second_at(), next.lease.first_verified()), (None, verified));
    next.lease.on(next.now, Event::AuthoritySilent { begun: next.now, asked: true });
    assert_eq!(next.lease.second_at().map(Moment::boot_nanos), Some(begun.plus(MIN_SPACING).boot_nanos()));
    while !next.lease.wants_second(next.now) {
        next.pass(SECOND);
    }
    assert!(next.now.age_since(begun) >= MIN_SPACING);
}

#[test]
fn a7_a_success_that_started_too_long_ago_is_none() {
    let mut pair = Pair::cold();
    pair.silence();
    let (epoch, started) = (pair.lease.begin_second(pair.now), pair.now);
    pair.now = pair.now.plus(DEFAULT.fresh_for());
    assert_eq!(pair.stood_in(epoch, started).publish, None);
}
