//! The rest of the table: clocks, hung calls, late answers, flapping, and what others tell.

use super::*;

const REFUSED: Answer = Answer::Refused(Refusal::KeyGone);
const HOUR: Duration = Duration::from_secs(3600);

impl World {
    /// The wall clock is set; no time passes.
    fn set_wall(&mut self, forward: Duration, back: Duration) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).expect("short");
        self.now =
            Moment::from_nanos(self.now.boot_nanos(), self.now.wall_nanos() + nanos(forward) - nanos(back));
    }

    /// The next attempt, and one that is given up at the call deadline.
    fn hung_attempt(&mut self) -> (AttemptId, Effects) {
        self.wake_until_wanted();
        let id = self.begin();
        self.pass(DEFAULT.call_deadline());
        (id, self.answer(Answer::Transient))
    }

    fn fresh_until(&self) -> Moment {
        self.watch.keys.expect("held").since.plus(DEFAULT.fresh_for())
    }
}

// clock back

#[test]
fn c7_table_clock_back_changes_nothing() {
    for mut world in [World::cold(), World::fresh(), World::grace()] {
        let before = world.seen();
        world.set_wall(Duration::ZERO, HOUR);
        assert_eq!(world.on(Event::Wake).publish, None);
        assert_eq!(world.seen(), before);
    }
}

#[test]
fn c7_clock_back_lengthens_neither_lease_nor_grace() {
    let mut world = World::fresh();
    let fresh_until = world.fresh_until();
    world.set_wall(Duration::ZERO, HOUR);
    world.pass(Duration::from_nanos(fresh_until.boot_nanos() - world.now.boot_nanos()));
    assert_eq!(world.seen(), Seen::Lapsed);

    let mut world = World::grace();
    let end = world.watch.keys.expect("held").since.plus(DEFAULT.usable_for());
    while world.seen() == Seen::Grace {
        world.attempt(|_| Answer::Transient);
        world.set_wall(Duration::ZERO, 10 * SECOND);
    }
    assert_eq!(world.seen(), Seen::Closed(Closed::Silent));
    assert!(world.now.boot_nanos() >= end.boot_nanos());
}

/// Silence met while the clock was an hour behind lets the lease end by that clock, before F by the other. An answer
/// that cannot be right does not bring it back.
#[test]
fn c7_integrity_after_the_wall_clock_has_ended_the_lease_closes() {
    let mut world = World::fresh();
    let fresh_until = world.fresh_until();
    world.set_wall(Duration::ZERO, HOUR);
    world.attempt(|_| Answer::Transient);
    world.set_wall(DEFAULT.fresh_for(), Duration::ZERO);
    assert_eq!(world.seen(), Seen::Lapsed);
    assert!(world.attempt(|_| Answer::Integrity).alarm);
    assert!(world.now.boot_nanos() < fresh_until.boot_nanos());
    assert_eq!(world.seen(), Seen::Closed(Closed::Integrity));
}

// clock forward, resume

#[test]
fn c7_table_resume_past_f_is_not_ready_and_asks_at_once() {
    let mut world = World::fresh();
    world.pass(DEFAULT.fresh_for());
    assert_eq!(world.seen(), Seen::Lapsed, "before the machine has even woken");
    world.on(Event::Wake);
    assert_eq!(world.seen(), Seen::Lapsed, "sleep earns no grace");
    assert!(world.lease.wants_attempt(world.now));
    world.attempt(World::verified);
    assert_eq!(world.seen(), Seen::Fresh);
}

#[test]
fn c7_table_clock_forward_past_f_asks_as_soon_as_calls_may_start() {
    let mut world = World::fresh();
    let start = world.now;
    world.set_wall(HOUR / 2, Duration::ZERO);
    world.on(Event::Wake);
    assert_eq!(world.seen(), Seen::Lapsed);
    world.wake_until_wanted();
    let waited = Duration::from_nanos(world.now.boot_nanos() - start.boot_nanos());
    assert!(waited <= MIN_SPACING, "{waited:?}");
}

#[test]
fn c1_a_wall_clock_that_jumps_buys_no_calls() {
    let mut world = World::fresh();
    for _ in 0..10 {
        world.set_wall(Duration::from_secs(35), Duration::ZERO);
        world.on(Event::Wake);
        assert!(!world.lease.wants_attempt(world.now));
    }
}

#[test]
fn c7_table_resume_past_the_end_of_grace_closes() {
    let mut world = World::grace();
    world.pass(DEFAULT.grace());
    world.on(Event::Wake);
    assert_eq!(world.seen(), Seen::Closed(Closed::Silent));
}

#[test]
fn d8_resume_past_everything_is_not_the_silence_of_the_kms() {
    let mut world = World::fresh();
    world.pass(DEFAULT.usable_for());
    assert!(world.on(Event::Wake).notify);
    assert_eq!(world.seen(), Seen::Closed(Closed::NotReady));
    assert!(world.lease.wants_attempt(world.now));
}

#[test]
fn c7_table_resume_without_a_key_probes_at_once() {
    for mut world in [World::unavailable(), World::revoked()] {
        world.pass(HOUR);
        world.on(Event::Wake);
        assert!(world.lease.wants_attempt(world.now));
    }
}

#[test]
fn c5_an_attempt_cut_short_by_our_own_sleep_earns_no_grace() {
    let mut world = World::fresh();
    world.wake_until_wanted();
    world.begin();
    world.pass(HOUR / 4);
    world.answer(Answer::Transient);
    assert_eq!(world.seen(), Seen::Lapsed);
    assert!(world.lease.wants_attempt(world.now), "the next one decides");
    world.attempt(|_| Answer::Transient);
    assert_eq!(world.seen(), Seen::Grace);
}

#[test]
fn c5_an_attempt_is_cut_short_from_6_s_past_its_deadline_on() {
    let most = DEFAULT.call_deadline() + MIN_SPACING;
    for (took, earns) in [(most - Duration::from_nanos(1), true), (most, false)] {
        let mut world = World::fresh();
        world.wake_until_wanted();
        world.begin();
        world.pass(took);
        let Some(Publish::Extend { fresh_until, valid_until }) = world.answer(Answer::Transient).publish
        else {
            panic!("silence says how long the keys are good for");
        };
        assert_eq!(valid_until != fresh_until, earns, "{took:?}");
    }
}

#[test]
fn an_answer_that_cannot_be_right_is_looked_into_within_half_an_interval() {
    let mut world = World::fresh();
    assert_eq!(world.ask(), Ok(true));
    let mut starts = Vec::new();
    while world.seen() == Seen::Fresh {
        world.wake_until_wanted();
        starts.push(world.now);
        world.begin();
        world.pass(LATENCY);
        world.answer(Answer::Integrity);
    }
    let half = DEFAULT.longest_interval() / 2;
    for (pair, least) in starts.windows(2).zip([MIN_SPACING, 2 * MIN_SPACING, half]) {
        let pause = pair[1].age_since(pair[0]);
        assert!((least..=least * 21 / 20).contains(&pause), "{pause:?}, at least {least:?}");
    }
    assert!(starts.len() > 3);
}

#[test]
fn c7_a_success_that_slept_past_f_opens_nothing() {
    let mut world = World::cold();
    world.begin();
    let started = world.now;
    world.pass(DEFAULT.fresh_for());
    assert_eq!(world.answer(Answer::Verified { started, max_grace: None }), Effects::default());
    assert!(world.lease.wants_attempt(world.now));
}

// call hangs

#[test]
fn b11_table_a_hung_call_is_silence() {
    let mut world = World::cold();
    world.hung_attempt();
    assert_eq!(world.seen(), Seen::Closed(Closed::NotReady));

    let mut world = World::fresh();
    world.hung_attempt();
    assert!(world.watch.keys.expect("held").earned.is_some());

    let mut world = World::grace();
    world.hung_attempt();
    assert_eq!(world.seen(), Seen::Grace);

    for mut world in [World::unavailable(), World::revoked()] {
        let before = world.seen();
        assert_eq!(world.hung_attempt().1, Effects::default());
        assert_eq!(world.seen(), before);
    }
}

// late result of an abandoned call

#[test]
fn table_a_late_success_is_dropped() {
    for mut world in [World::cold(), World::fresh(), World::grace(), World::revoked()] {
        let (id, _) = world.hung_attempt();
        let (before, wake) = (world.seen(), world.lease.wake_at());
        world.pass(SECOND);
        let verified = world.verified();
        assert_eq!(world.on(Event::Answered(id, verified)), Effects::default());
        assert_eq!((world.seen(), world.lease.wake_at()), (before, wake));
    }
}

#[test]
fn table_a_late_refusal_probes_at_once() {
    for mut world in [World::fresh(), World::grace(), World::unavailable()] {
        world.hung_attempt();
        let (id, _) = world.hung_attempt();
        world.pass(MIN_SPACING - DEFAULT.call_deadline());
        let before = world.seen();
        assert!(!world.lease.wants_attempt(world.now), "the second retry would come later");
        assert_eq!(world.on(Event::Answered(id, REFUSED)).publish, None);
        assert_eq!(world.seen(), before, "it decides nothing by itself");
        assert!(world.lease.wants_attempt(world.now));
    }
}

#[test]
fn d7_table_a_late_success_while_unavailable_probes_at_once() {
    let mut world = World::unavailable();
    let (id, _) = world.hung_attempt();
    world.pass(MIN_SPACING);
    let verified = world.verified();
    assert_eq!(world.on(Event::Answered(id, verified)), Effects::default());
    assert!(world.lease.wants_attempt(world.now));
}

#[test]
fn table_a_late_result_is_dropped_when_locked_or_deleted() {
    for event in [Event::Lock, Event::Delete] {
        let mut world = World::fresh();
        let (id, _) = world.hung_attempt();
        world.on(event);
        for answer in [REFUSED, world.verified()] {
            assert_eq!(world.on(Event::Answered(id, answer)), Effects::default());
        }
        assert_eq!(world.lease.wake_at(), None);
    }
}

// flapping

#[test]
fn table_flapping_backs_off_to_a_minute() {
    let mut world = World::fresh_with(Policy::new(6 * SECOND, 2 * SECOND, HOUR), 1);
    let mut pauses = Vec::new();
    for _ in 0..7 {
        world.attempt(|_| REFUSED);
        let lost = world.now;
        world.attempt(World::verified);
        pauses.push(world.now.age_since(lost).as_secs());
    }
    assert!(matches!(pauses[..], [6, 6, 12, 24..26, 48..51, 60, 60]), "{pauses:?}");

    for _ in 0..300 {
        world.attempt(World::verified);
    }
    world.attempt(|_| REFUSED);
    let lost = world.now;
    world.attempt(World::verified);
    assert_eq!(world.now.age_since(lost).as_secs(), 6, "forgiven after ten quiet minutes");
}

// record changed, and what other accounts meet

#[test]
fn table_record_changed_is_looked_at_at_once() {
    for mut world in [World::cold(), World::fresh(), World::grace(), World::unavailable(), World::revoked()] {
        for event in [Event::RecordChanged, Event::AuthorityRefused] {
            world.hung_attempt();
            world.hung_attempt();
            world.pass(MIN_SPACING - DEFAULT.call_deadline());
            let before = world.seen();
            assert_eq!(world.on(event).publish, None);
            assert_eq!(world.seen(), before, "a refusal is not shared, nor a success");
            assert!(world.lease.wants_attempt(world.now));
        }
    }
}

#[test]
fn c1_news_keep_their_distance() {
    let mut world = World::fresh();
    world.on(Event::AuthorityRefused);
    assert!(!world.lease.wants_attempt(world.now));
    world.pass(MIN_SPACING);
    assert!(world.lease.wants_attempt(world.now));
}

#[test]
fn news_during_an_attempt_are_not_answered_by_it() {
    let mut world = World::fresh();
    world.wake_until_wanted();
    world.begin();
    world.on(Event::AuthorityRefused);
    world.pass(LATENCY);
    let verified = world.verified();
    world.answer(verified);
    world.pass(MIN_SPACING);
    assert!(world.lease.wants_attempt(world.now));
}

#[test]
fn c5_shared_silence_counts_for_the_accounts_that_were_due() {
    let mut world = World::fresh();
    let early = world.now;
    world.on(Event::AuthoritySilent { begun: early, asked: true });
    assert_eq!(world.watch.keys.expect("held").earned, None, "it was not due");
    world.wake_until_wanted();
    let begun = world.now;
    world.pass(DEFAULT.call_deadline());
    let effects = world.on(Event::AuthoritySilent { begun, asked: true });
    assert!(matches!(effects.publish, Some(Publish::Extend { .. })));
    assert!(!world.lease.wants_attempt(world.now), "and saves it the call");
    world.pass_to(world.fresh_until());
    assert_eq!(world.seen(), Seen::Grace);
}

#[test]
fn shared_silence_leaves_an_attempt_under_way_alone() {
    let mut world = World::fresh();
    world.wake_until_wanted();
    let id = world.begin();
    assert_eq!(world.on(Event::AuthoritySilent { begun: world.now, asked: true }), Effects::default());
    assert!(world.lease.is_current(id));
}

#[test]
fn shared_silence_does_nothing_without_a_key() {
    for mut world in
        [World::cold(), World::unavailable(), World::revoked(), World::locked(), World::deleted()]
    {
        world.pass(HOUR);
        world.on(Event::Wake);
        let wake = world.lease.wake_at();
        assert_eq!(world.on(Event::AuthoritySilent { begun: world.now, asked: true }), Effects::default());
        assert_eq!(world.lease.wake_at(), wake);
    }
}

// what people ask for

#[test]
fn c1_requests_come_from_a_bucket_of_three() {
    let mut world = World::fresh();
    for _ in 0..3 {
        assert!(world.ask().expect("granted"));
        world.attempt(World::verified);
    }
    assert!(!world.ask().expect("refused"));
    world.pass(MIN_SPACING);
    assert!(world.ask().expect("granted again"));
}

#[test]
fn c1_unlocks_come_from_the_same_bucket() {
    let mut world = World::fresh();
    for _ in 0..3 {
        world.on(Event::Lock);
        world.on(Event::Unlock);
        world.attempt(World::verified);
    }
    world.on(Event::Lock);
    world.on(Event::Unlock);
    assert!(!world.lease.wants_attempt(world.now));
    world.pass(MIN_SPACING);
    assert!(world.lease.wants_attempt(world.now), "late, but not lost");
}

#[test]
fn c4_whoever_asks_during_an_attempt_shares_it() {
    let mut world = World::fresh();
    world.ask().expect("granted");
    world.begin();
    for _ in 0..100 {
        assert!(world.ask().expect("shared"));
    }
    world.pass(LATENCY);
    let verified = world.verified();
    world.answer(verified);
    assert!(!world.lease.wants_attempt(world.now));
}

#[test]
fn c5_a_request_before_it_is_due_earns_no_grace() {
    let mut world = World::fresh();
    world.pass(SECOND);
    world.ask().expect("granted");
    world.begin();
    world.answer(Answer::Transient);
    assert_eq!(world.watch.keys.expect("held").earned, None);
}

#[test]
fn c5_the_record_shortens_grace_and_never_lengthens_it() {
    for (max_grace, expected) in [(HOUR, DEFAULT.grace()), (SECOND, SECOND), (Duration::ZERO, Duration::ZERO)]
    {
        let mut world = World::fresh();
        world.attempt(|world| Answer::Verified { started: world.now, max_grace: Some(max_grace) });
        assert_eq!(world.lease.policy().grace(), expected);
        let since = world.now;
        while world.seen() != Seen::Closed(Closed::Silent) {
            world.attempt(|_| Answer::Transient);
        }
        assert!(world.now.age_since(since) < DEFAULT.fresh_for() + expected + MAX_REFRESH);
        world.attempt(World::verified);
        assert_eq!(world.lease.policy().grace(), DEFAULT.grace(), "the next record may allow more again");
    }
}

#[test]
fn d5_a_lock_cancels_what_was_asked_before_it() {
    let mut world = World::fresh();
    for _ in 0..2 {
        world.ask().expect("granted");
        world.attempt(World::verified);
    }
    assert!(world.ask().expect("the last token"));
    world.on(Event::Lock);
    world.on(Event::Unlock);
    assert!(!world.lease.wants_attempt(world.now), "that token went with the request");
}

#[test]
fn a_success_ends_the_back_off() {
    let mut world = World::grace();
    world.attempt(|_| Answer::Transient);
    world.attempt(World::verified);
    world.wake_until_wanted();
    let first = world.now;
    world.attempt(|_| Answer::Transient);
    world.wake_until_wanted();
    assert_eq!(world.now.age_since(first), MIN_SPACING);
}

#[test]
fn a_tainted_lease_is_woken_for_its_end_even_during_an_attempt() {
    let mut world = World::fresh();
    world.attempt(|_| Answer::Integrity);
    world.wake_until_wanted();
    world.begin();
    assert_eq!(world.lease.wake_at(), Some(world.fresh_until()));
}
