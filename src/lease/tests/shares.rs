//! The shares of a joint custody, each asked for alone: when, and what is made of what they say.

use super::*;

const REFUSED: Refusal = Refusal::KeyDisabled;
/// How long a share lets the attempts go first, and no longer.
const PATIENCE: Duration = Duration::from_secs(12);

/// A machine of a joint account, and its clock.
struct Joint {
    lease: Lease,
    now: Moment,
}

impl Joint {
    fn cold() -> Self {
        let now = crate::clock::ManualClock::new().moment();
        Self { lease: Lease::new(DEFAULT, now, 1).with_shares(), now }
    }

    fn fresh() -> Self {
        let mut joint = Self::cold();
        joint.attempt(|started| Answer::Verified { started, max_grace: None });
        joint
    }

    /// In an outage, with its lease held.
    fn silent() -> Self {
        let mut joint = Self::fresh();
        joint.silence();
        joint
    }

    fn pass(&mut self, time: Duration) -> Effects {
        self.now = self.now.plus(time);
        self.on(Event::Wake)
    }

    fn on(&mut self, event: Event) -> Effects {
        self.lease.on(self.now, event)
    }

    fn attempt(&mut self, answer: impl FnOnce(Moment) -> Answer) -> Effects {
        while !self.lease.wants_attempt(self.now) {
            self.pass(SECOND);
        }
        let started = self.now;
        let id = self.lease.begin(started);
        self.now = self.now.plus(LATENCY);
        self.on(Event::Answered(id, answer(started)))
    }

    fn silence(&mut self) {
        self.attempt(|_| Answer::Transient);
    }

    /// The next call for the share at `at`, while the attempts that come first are silent too.
    fn begin_share(&mut self, at: usize) -> Epoch {
        while !self.lease.wants_share(self.now, at) {
            if self.lease.wants_attempt(self.now) {
                self.silence();
            }
            self.pass(SECOND);
        }
        self.lease.begin_share(self.now, at)
    }

    fn refuse(&mut self, epoch: Epoch) -> Effects {
        self.on(Event::SecondRefused { epoch, refusal: REFUSED })
    }

    fn held(&self) -> bool {
        matches!(self.lease.phase, Phase::Held(_))
    }
}

fn revokes(effects: Effects) -> bool {
    matches!(effects.publish, Some(Publish::Close { why: Closed::Revoked(REFUSED), .. }))
}

#[test]
fn a7_a_share_is_asked_for_in_silence_only() {
    let mut joint = Joint::fresh();
    joint.now = joint.now.plus(SECOND * 20);
    assert!((0..MOST_SHARES).all(|at| !joint.lease.wants_share(joint.now, at)));
    joint.silence();
    let soon = joint.now.plus(PATIENCE);
    assert!((0..MOST_SHARES).all(|at| joint.lease.wants_share(soon, at)));
    joint.attempt(|started| Answer::Verified { started, max_grace: None });
    assert!((0..MOST_SHARES).all(|at| !joint.lease.wants_share(soon, at)));
    // Of an account that is no joint one there is none.
    let mut alone = World::fresh();
    alone.attempt(|_| Answer::Transient);
    assert!(!alone.lease.wants_share(alone.now.plus(MAX_REFRESH), 0));
}

#[test]
fn a7_our_own_sleep_has_no_share_asked_for() {
    let mut joint = Joint::fresh();
    while !joint.lease.wants_attempt(joint.now) {
        joint.pass(SECOND);
    }
    let id = joint.lease.begin(joint.now);
    joint.pass(DEFAULT.call_deadline() + MIN_SPACING);
    joint.on(Event::Answered(id, Answer::Transient));
    assert!(!joint.lease.wants_share(joint.now.plus(MAX_REFRESH), 0));
}

#[test]
fn a7_a_share_waits_for_attempts_and_not_for_long() {
    let mut joint = Joint::silent();
    let silent_from = joint.now;
    // The next attempt is due, and waits for its turn in a lane that is silent.
    while !joint.lease.wants_share(joint.now, 0) {
        joint.pass(SECOND);
    }
    let waited = joint.now.age_since(silent_from);
    assert!(waited <= PATIENCE + SECOND && waited > MIN_SPACING, "{waited:?}");
    // Not beside an attempt.
    let id = joint.lease.begin(joint.now);
    assert!(!joint.lease.wants_share(joint.now.plus(MAX_REFRESH), 0));
    joint.on(Event::Answered(id, Answer::Transient));
    assert!(joint.lease.wants_share(joint.now.plus(PATIENCE), 0));
}

#[test]
fn a7_c1_shares_and_attempts_keep_their_distance_from_each_other() {
    let mut joint = Joint::silent();
    let (mut attempts, mut shares) = (vec![joint.now], vec![]);
    for _ in 0..1200 {
        if joint.lease.wants_attempt(joint.now) {
            attempts.push(joint.now);
            joint.silence();
        }
        if joint.lease.wants_share(joint.now, 0) {
            shares.push(joint.now);
            joint.lease.begin_share(joint.now, 0);
        }
        joint.pass(SECOND);
    }
    assert!(shares.len() > 20 && attempts.len() > 20, "{} {}", shares.len(), attempts.len());
    let mut all = [attempts, shares].concat();
    all.sort_by_key(|at| at.boot_nanos());
    for pair in all.windows(2) {
        assert!(pair[1].age_since(pair[0]) >= MIN_SPACING - LATENCY, "{pair:?}");
    }
}

#[test]
fn a7_c1_a_wall_clock_that_jumps_has_no_share_asked_for() {
    let mut joint = Joint::silent();
    joint.begin_share(0);
    let begun = joint.now;
    let wall = begun.plus(MAX_REFRESH * 10).wall_nanos();
    joint.now = Moment::from_nanos(begun.plus(MIN_SPACING).boot_nanos() - 1, wall);
    joint.on(Event::Wake);
    assert!(!joint.lease.wants_share(joint.now, 0));
}

#[test]
fn a7_a_share_that_is_there_opens_and_renews_nothing() {
    for cold in [true, false] {
        let mut joint = if cold { Joint::cold() } else { Joint::silent() };
        joint.silence();
        let epoch = joint.begin_share(0);
        let before = joint.lease.deadlines();
        let (started, limit) = (joint.now, MAX_REFRESH);
        let stood_in = Event::StoodIn { epoch, started, confirmed: started, limit, max_grace: None };
        assert_eq!(joint.on(stood_in).publish, None);
        assert_eq!((joint.lease.deadlines(), joint.held()), (before, !cold));
    }
}

#[test]
fn a7_a_refusal_of_one_share_revokes() {
    for at in 0..MOST_SHARES {
        let mut joint = Joint::silent();
        let epoch = joint.begin_share(at);
        assert!(joint.held());
        assert!(revokes(joint.refuse(epoch)), "{at}");
        assert_eq!(joint.lease.phase, Phase::Revoked);
        assert!(!joint.lease.wants_share(joint.now.plus(MAX_REFRESH), at), "attempts alone bring it back");
        joint.attempt(|started| Answer::Verified { started, max_grace: None });
        assert!(joint.held());
    }
}

#[test]
fn a7_d12_a_refusal_of_one_share_closes_while_the_record_is_compared() {
    for refused in [true, false] {
        let mut joint = Joint::silent();
        let epoch = joint.begin_share(1);
        let effects = joint.on(Event::SecondRefusedPending { epoch });
        assert!(matches!(effects.publish, Some(Publish::Close { why: Closed::NotReady, .. })), "{effects:?}");
        // The rest of the call unwraps after the refusal, so that it counts in the epoch of the closing.
        let counts = joint.lease.epoch();
        assert_ne!(epoch, counts);
        if refused {
            assert!(revokes(joint.refuse(counts)));
        } else {
            // Another machine had wrapped it anew: nothing opens before an attempt that both have answered, soon.
            assert_eq!(joint.on(Event::RecordChanged), Effects::default());
            assert!(!joint.held() && joint.lease.wants_attempt(joint.now.plus(MIN_SPACING)));
            joint.attempt(|started| Answer::Verified { started, max_grace: None });
            assert!(joint.held());
        }
    }
}

#[test]
fn a7_what_a_share_said_of_before_a_closing_is_news_only() {
    for close in [Event::Lock, Event::Delete] {
        let mut joint = Joint::silent();
        let epoch = joint.begin_share(0);
        joint.on(close);
        let phase = joint.lease.phase;
        for epoch in [epoch, joint.lease.epoch()] {
            assert_eq!(joint.on(Event::SecondRefusedPending { epoch }), Effects::default());
            assert_eq!(joint.refuse(epoch), Effects::default());
        }
        assert_eq!(joint.lease.phase, phase);
        assert!(!joint.lease.wants_share(joint.now.plus(MAX_REFRESH), 0));
    }
}

#[test]
fn a7_a_refusal_that_comes_once_both_have_answered_is_a_reason_to_ask() {
    let mut joint = Joint::silent();
    let epoch = joint.begin_share(0);
    joint.attempt(|started| Answer::Verified { started, max_grace: None });
    assert_eq!(joint.refuse(epoch), Effects::default());
    assert!(joint.held() && joint.lease.wants_attempt(joint.now.plus(MIN_SPACING)));
}

#[test]
fn a7_a_wrong_answer_of_an_attempt_has_no_share_asked_for() {
    let mut joint = Joint::silent();
    joint.attempt(|_| Answer::Integrity);
    assert!(!joint.lease.wants_share(joint.now.plus(MAX_REFRESH), 0));
    joint.silence();
    assert!(joint.lease.wants_share(joint.now.plus(PATIENCE), 0));
}

#[test]
fn a7_c1_shares_keep_their_distance_from_those_before_a_drop() {
    let mut joint = Joint::silent();
    joint.begin_share(0);
    let begun = joint.now;
    let past = joint.lease.past().expect("no attempt is under way");
    let failover = Lease::new(DEFAULT, joint.now, 2).with_second();
    assert_eq!(
        failover.clone().following(past.clone()).beside,
        failover.beside,
        "of another custody nothing is left"
    );
    let lease = Lease::new(DEFAULT, joint.now, 2).with_shares().following(past);
    let mut next = Joint { lease, ..joint };
    // Silence has to be met anew.
    assert!(!next.lease.wants_share(next.now.plus(MAX_REFRESH), 0));
    next.on(Event::AuthoritySilent { begun: next.now, asked: true });
    let just_before = Moment::from_nanos(begun.plus(MIN_SPACING).boot_nanos() - 1, next.now.wall_nanos());
    assert!(!next.lease.wants_share(just_before, 0) && !next.lease.wants_attempt(just_before));
    assert!(next.lease.wants_share(begun.plus(MIN_SPACING + PATIENCE), 0));
}
