//! One test for each cell of the table in docs/DESIGN.md, section "The lease machine".

use super::*;

const REFUSED: Answer = Answer::Refused(Refusal::KeyGone);
const REVOKED: Seen = Seen::Closed(Closed::Revoked(Refusal::KeyGone));

/// The states, for the rows that treat several alike.
fn keyless_and_asking() -> [(World, Closed); 3] {
    [
        (World::cold(), Closed::NotReady),
        (World::unavailable(), Closed::Silent),
        (World::revoked(), Closed::Revoked(Refusal::KeyDisabled)),
    ]
}

// unwrap ok, key check value ok

#[test]
fn table_ok_from_cold_is_fresh() {
    let mut world = World::cold();
    let effects = world.attempt(World::verified);
    assert!(matches!(effects.publish, Some(Publish::Keys { .. })) && effects.notify);
    assert_eq!(world.seen(), Seen::Fresh);
}

#[test]
fn c2_table_ok_renews_from_the_start_of_the_call() {
    let mut world = World::fresh();
    world.wake_until_wanted();
    world.begin();
    let started = world.now;
    world.pass(SECOND);
    let effects = world.answer(Answer::Verified { started, max_grace: None });
    let until = started.plus(DEFAULT.fresh_for());
    assert_eq!(effects.publish, Some(Publish::Keys { fresh_until: until, valid_until: until }));
    assert!(!effects.notify, "a renewal is no news");
}

#[test]
fn table_ok_in_grace_is_fresh() {
    let mut world = World::grace();
    assert!(world.attempt(World::verified).notify);
    assert_eq!(world.seen(), Seen::Fresh);
}

#[test]
fn d7_table_ok_recovers_from_unavailable_and_revoked() {
    for mut world in [World::unavailable(), World::revoked()] {
        let lost = world.now;
        assert!(world.attempt(World::verified).notify);
        assert_eq!(world.seen(), Seen::Fresh);
        assert!(world.now.age_since(lost) <= DEFAULT.longest_interval(), "within one refresh interval");
    }
}

#[test]
fn d5_table_ok_opens_a_lock_for_unlock_only() {
    let mut world = World::fresh();
    world.wake_until_wanted();
    let before = world.begin();
    world.on(Event::Lock);
    let verified = world.verified();
    assert_eq!(world.on(Event::Answered(before, verified)), Effects::default());
    world.pass(1000 * SECOND);
    world.on(Event::Wake);
    assert!(!world.lease.wants_attempt(world.now) && !world.lease.unlock_under_way());

    world.on(Event::Unlock);
    assert!(world.lease.unlock_under_way(), "wanted");
    let id = world.begin();
    assert!(world.lease.is_unlock(id) && world.lease.is_locked());
    assert!(world.lease.unlock_under_way(), "begun");
    world.pass(LATENCY);
    let verified = world.verified();
    world.answer(verified);
    assert_eq!(world.seen(), Seen::Fresh);
    assert!(!world.lease.is_locked() && !world.lease.unlock_under_way());
}

#[test]
fn an_answer_is_that_of_one_attempt_and_of_no_other() {
    let mut world = World::fresh();
    world.wake_until_wanted();
    let refresh = world.begin();
    assert!(world.lease.is_current(refresh) && !world.lease.is_unlock(refresh));
    world.on(Event::Lock);
    world.on(Event::Unlock);
    let unlock = world.begin();
    assert_ne!(refresh, unlock);
    assert!(world.lease.is_current(unlock) && world.lease.is_unlock(unlock));
    assert!(!world.lease.is_current(refresh) && !world.lease.is_unlock(refresh));
    let verified = world.verified();
    assert_eq!(world.on(Event::Answered(refresh, verified)), Effects::default());
    assert_eq!(world.seen(), Seen::Closed(Closed::Locked));
    assert!(world.lease.is_current(unlock), "the late answer ends nothing");
}

/// No keeper begins one; the machine does not rely on that.
#[test]
fn table_ok_of_an_attempt_begun_while_deleted_is_ignored() {
    let mut world = World::deleted();
    let id = world.lease.begin(world.now);
    let verified = Answer::Verified { started: world.now, max_grace: None };
    assert_eq!(world.lease.on(world.now, Event::Answered(id, verified)), Effects::default());
    assert_eq!(world.lease.wake_at(), None);
}

/// None is current in a lock; the machine does not rely on that.
#[test]
fn d5_table_ok_of_an_attempt_that_is_no_unlock_opens_no_lock() {
    let mut world = World::locked();
    world.on(Event::Unlock);
    let id = world.begin();
    world.lease.attempt.as_mut().expect("begun").unlock = false;
    let verified = world.verified();
    assert_eq!(world.lease.on(world.now, Event::Answered(id, verified)), Effects::default());
    assert!(world.lease.is_locked());
}

#[test]
fn d5_a_second_lock_overtakes_an_unlock_under_way() {
    let mut world = World::locked();
    world.on(Event::Unlock);
    let id = world.begin();
    world.on(Event::Lock);
    let verified = world.verified();
    assert_eq!(world.on(Event::Answered(id, verified)), Effects::default());
    assert_eq!(world.seen(), Seen::Closed(Closed::Locked));
    assert!(!world.lease.wants_attempt(world.now), "the overtaken unlock does not try again");
}

#[test]
fn table_ok_of_before_is_ignored_when_deleted_until_recover() {
    let mut world = World::fresh();
    world.wake_until_wanted();
    let id = world.begin();
    world.on(Event::Delete);
    let verified = world.verified();
    assert_eq!(world.on(Event::Answered(id, verified)), Effects::default());
    assert_eq!(world.lease.wake_at(), None);
    world.on(Event::Recover);
    assert_eq!(world.seen(), Seen::Closed(Closed::NotReady));
    world.attempt(World::verified);
    assert_eq!(world.seen(), Seen::Fresh);
}

#[test]
fn d5_a_lock_outlives_delete_and_recover() {
    let lock_then_delete = [Event::Lock, Event::Delete, Event::Recover];
    let delete_then_lock = [Event::Delete, Event::Lock, Event::Recover];
    for events in [lock_then_delete, delete_then_lock] {
        let mut world = World::fresh();
        for event in events {
            world.on(event);
        }
        assert_eq!(world.seen(), Seen::Closed(Closed::Locked));
        assert_eq!(world.lease.wake_at(), None);
    }
}

// transient

#[test]
fn table_transient_from_cold_stays_and_backs_off() {
    let mut world = World::cold();
    let mut starts = Vec::new();
    for _ in 0..6 {
        world.wake_until_wanted();
        starts.push(world.now);
        world.attempt(|_| Answer::Transient);
        assert_eq!(world.seen(), Seen::Closed(Closed::NotReady));
    }
    let gaps: Vec<_> = starts.windows(2).map(|pair| pair[1].age_since(pair[0]).as_secs()).collect();
    assert!(matches!(gaps[..], [6, 12, 24..26, 30..32, 30..32]), "6 s, doubled, up to r: {gaps:?}");
}

#[test]
fn c1_the_first_retry_is_due_6_s_after_the_attempt_began_by_either_clock() {
    let mut world = World::cold();
    let begun = world.now;
    world.attempt(|_| Answer::Transient);
    assert_eq!(world.lease.wake_at(), Some(begun.plus(MIN_SPACING)));
}

#[test]
fn c5_table_transient_while_fresh_earns_grace_from_f_on() {
    let mut world = World::fresh();
    let since = world.watch.keys.expect("held").since;
    world.attempt(|_| Answer::Transient);
    assert_eq!(world.seen(), Seen::Fresh, "silence takes nothing away before F");
    world.pass_to(since.plus(DEFAULT.fresh_for()));
    assert!(world.on(Event::Wake).notify, "the move to grace is told");
    assert_eq!(world.seen(), Seen::Grace);
    assert!(!world.on(Event::Wake).notify, "and told once");
}

#[test]
fn c5_table_transient_in_grace_stays() {
    let mut world = World::grace();
    for _ in 0..5 {
        world.attempt(|_| Answer::Transient);
        assert_eq!(world.seen(), Seen::Grace);
    }
}

#[test]
fn c5_grace_that_is_not_earned_anew_lapses() {
    let mut world = World::grace();
    world.wake_until_wanted();
    world.pass(DEFAULT.fresh_for());
    assert_eq!(world.seen(), Seen::Lapsed, "a refresher that stalls in an outage loses the lease");
}

#[test]
fn d6_a_lapse_and_its_end_are_told() {
    let mut world = World::fresh();
    world.wake_until_wanted();
    world.pass(DEFAULT.fresh_for());
    assert!(world.on(Event::Wake).notify, "past F with nothing earned");
    assert_eq!(world.seen(), Seen::Lapsed);
    assert!(!world.on(Event::Wake).notify, "told once");
    assert!(world.attempt(World::verified).notify, "back in use, in the same epoch");
}

#[test]
fn table_transient_at_the_end_of_grace_is_unavailable() {
    let mut world = World::fresh();
    let since = world.watch.keys.expect("held").since;
    let end = since.plus(DEFAULT.usable_for());
    while !world.now.plus(LATENCY).reached(end) && world.seen() != Seen::Closed(Closed::Silent) {
        world.attempt(|_| Answer::Transient);
    }
    assert_eq!(world.seen(), Seen::Closed(Closed::Silent));
    assert_eq!(world.watch.keys, None);
}

#[test]
fn table_transient_when_unavailable_or_revoked_stays_and_probes_every_r() {
    for (mut world, why) in
        [World::unavailable(), World::revoked()].map(|world| (world.clone(), world.watch.why))
    {
        for _ in 0..3 {
            let before = world.now;
            assert_eq!(world.attempt(|_| Answer::Transient), Effects::default());
            assert_eq!(world.seen(), Seen::Closed(why));
            let pause = world.now.age_since(before);
            assert!((DEFAULT.refresh()..DEFAULT.longest_interval()).contains(&pause), "{pause:?}");
        }
    }
}

#[test]
fn table_transient_of_an_unlock_is_ignored() {
    let mut world = World::locked();
    world.on(Event::Unlock);
    world.begin();
    assert_eq!(world.answer(Answer::Transient), Effects::default());
    assert_eq!(world.seen(), Seen::Closed(Closed::Locked));
    assert_eq!(world.lease.wake_at(), None);
}

// refused

#[test]
fn table_refused_without_a_key_is_revoked() {
    for (mut world, _) in [(World::cold(), ()), (World::unavailable(), ())] {
        assert!(world.attempt(|_| REFUSED).notify);
        assert_eq!(world.seen(), REVOKED);
    }
}

#[test]
fn d3_table_refused_with_a_key_closes_at_once() {
    for mut world in [World::fresh(), World::grace()] {
        let epoch = world.lease.epoch();
        let effects = world.attempt(|_| REFUSED);
        assert!(matches!(effects.publish, Some(Publish::Close { epoch: new, .. }) if new > epoch));
        assert_eq!(world.seen(), REVOKED);
    }
}

#[test]
fn table_refused_when_revoked_stays_and_probes_every_r() {
    let mut world = World::revoked();
    let before = world.now;
    assert_eq!(world.attempt(|_| REFUSED), Effects::default());
    assert!(world.now.age_since(before) >= DEFAULT.refresh());
    assert_eq!(world.seen(), Seen::Closed(Closed::Revoked(Refusal::KeyDisabled)));
}

#[test]
fn table_refused_of_an_unlock_is_ignored() {
    let mut world = World::locked();
    world.on(Event::Unlock);
    world.begin();
    assert_eq!(world.answer(Answer::RefusedPending(Refusal::KeyGone)), Effects::default());
    assert_eq!(world.answer(REFUSED), Effects::default());
    assert_eq!(world.seen(), Seen::Closed(Closed::Locked));
}

#[test]
fn d12_a_refusal_closes_reads_until_the_newest_record_was_compared() {
    for mut world in [World::fresh(), World::grace()] {
        let effects = world.attempt(|_| Answer::RefusedPending(Refusal::KeyGone));
        assert!(matches!(effects.publish, Some(Publish::Close { why: Closed::NotReady, .. })));
        assert_eq!(world.lease.wake_at(), None, "the rest of the answer is to come");
        world.pass(LATENCY);
        let mut adopted = world.clone();
        adopted.answer(Answer::Verified { started: world.now, max_grace: None });
        assert_eq!(adopted.seen(), Seen::Fresh, "another version unwrapped");

        for answer in [REFUSED, Answer::Transient, Answer::Integrity] {
            let mut refused = world.clone();
            refused.answer(answer);
            assert_eq!(refused.seen(), REVOKED, "{answer:?} takes nothing back");
        }
    }
}

#[test]
fn d12_a_refusal_without_a_key_waits_for_the_record_too() {
    for (mut world, why) in keyless_and_asking() {
        assert_eq!(world.attempt(|_| Answer::RefusedPending(Refusal::KeyGone)), Effects::default());
        assert_eq!(world.seen(), Seen::Closed(why));
        let verified = Answer::Verified { started: world.now, max_grace: None };
        world.answer(verified);
        assert_eq!(world.seen(), Seen::Fresh);
    }
}

#[test]
fn d7_a_confirming_success_that_slept_does_not_end_in_a_dead_end() {
    let mut world = World::fresh();
    world.attempt(|_| Answer::RefusedPending(Refusal::KeyGone));
    let started = world.now;
    world.pass(3600 * SECOND);
    world.answer(Answer::Verified { started, max_grace: None });
    assert_eq!(world.seen(), Seen::Closed(Closed::NotReady));
    world.attempt(World::verified);
    assert_eq!(world.seen(), Seen::Fresh);
}

// integrity

#[test]
fn table_integrity_from_cold_is_an_error() {
    let mut world = World::cold();
    assert!(world.attempt(|_| Answer::Integrity).alarm);
    assert_eq!(world.seen(), Seen::Closed(Closed::Integrity));
}

#[test]
fn table_integrity_while_fresh_keeps_until_f_without_grace() {
    let mut world = World::fresh();
    let fresh_until = world.watch.keys.expect("held").since.plus(DEFAULT.fresh_for());
    world.attempt(|_| Answer::Transient);
    assert!(world.watch.keys.expect("held").valid_until.boot_nanos() > fresh_until.boot_nanos());

    let effects = world.attempt(|_| Answer::Integrity);
    assert!(effects.alarm && !effects.notify);
    assert_eq!(effects.publish, Some(Publish::Extend { fresh_until, valid_until: fresh_until }));
    assert_eq!(world.seen(), Seen::Fresh, "grace is taken back, the lease is not");
    world.pass_to(fresh_until);
    world.on(Event::Wake);
    assert_eq!(world.seen(), Seen::Closed(Closed::Integrity));
}

#[test]
fn table_integrity_then_silence_earns_no_grace() {
    let mut world = World::fresh();
    world.attempt(|_| Answer::Integrity);
    while world.seen() == Seen::Fresh {
        world.attempt(|_| Answer::Transient);
    }
    assert_eq!(world.seen(), Seen::Closed(Closed::Integrity));
}

#[test]
fn table_integrity_in_grace_closes() {
    let mut world = World::grace();
    assert!(world.attempt(|_| Answer::Integrity).alarm);
    assert_eq!(world.seen(), Seen::Closed(Closed::Integrity));
}

#[test]
fn d8_table_integrity_when_unavailable_or_revoked_stays() {
    for mut world in [World::unavailable(), World::revoked()] {
        let why = world.watch.why;
        let alarm = Effects { alarm: true, ..Effects::default() };
        assert_eq!(world.attempt(|_| Answer::Integrity), alarm);
        assert_eq!(world.seen(), Seen::Closed(why));
    }
}

#[test]
fn table_integrity_of_an_unlock_stays_locked() {
    let mut world = World::locked();
    world.on(Event::Unlock);
    world.begin();
    assert_eq!(world.answer(Answer::Integrity).publish, None);
    assert_eq!(world.seen(), Seen::Closed(Closed::Locked));
}
