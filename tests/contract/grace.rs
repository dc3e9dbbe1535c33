//! Silence extends, within bounds, and has to be earned; clocks never do: C5 to C7.

use std::time::Duration;

use strongroom::testing::{Answer, Call};
use strongroom::{ErrorKind, OutageGrace, RecordPolicy, Refusal, Status, UnavailableCause};

use crate::common::{Block, NANO, Store, World, kind, millis, secs};

const GRACE: Duration = secs(300);

#[test]
fn c5_silence_extends_until_exactly_f_plus_g() {
    for (silence, refresh) in [(Answer::Transient, 6), (Answer::Transient, 60), (Answer::Panic, 30)] {
        let world = World::new(refresh, OutageGrace::For(GRACE));
        let account = world.create();
        let block = Block::sealed_by(&account);
        world.kms.every_call(&silence);
        let fresh = world.cache.fresh_for();
        assert_eq!(world.cache.usable_for(), fresh + GRACE);
        world.run(fresh - NANO);
        assert!(matches!(account.status(), Status::Fresh { .. }));
        world.run(NANO);
        assert!(matches!(account.status(), Status::Grace { .. }));
        world.run(GRACE - NANO);
        assert_eq!(block.open(&account), Ok(()));
        world.run(NANO);
        assert_eq!(block.open(&account), Err(ErrorKind::Unavailable));
        assert_eq!(account.status(), Status::Unavailable(UnavailableCause::Silent));
    }
}

#[test]
fn c5_every_moment_of_an_outage_with_calls_that_hang_is_served_until_the_end() {
    let world = World::new(6, OutageGrace::For(GRACE));
    let account = world.create();
    // Later than the deadline, so that no worker is lost for good.
    world.kms.every_call(&Answer::Late(secs(3), Box::new(Answer::Transient)));
    let usable = world.run_until(millis(50), secs(1000), || account.permit().is_err());
    let end = world.cache.usable_for();
    assert!(usable >= end && usable < end + millis(50), "{usable:?} {end:?}");
}

#[test]
fn c5_without_grace_silence_ends_service_at_f() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    world.kms.every_call(&Answer::Transient);
    world.run(world.cache.fresh_for() - NANO);
    assert!(account.permit().is_ok());
    world.run(NANO);
    assert_eq!(kind(account.permit()), Some(ErrorKind::Unavailable));
}

#[test]
fn c5_a_refusal_ends_grace_at_once() {
    let world = World::new(6, OutageGrace::For(GRACE));
    let account = world.create();
    world.kms.every_call(&Answer::Transient);
    world.run(secs(60));
    assert!(matches!(account.status(), Status::Grace { .. }));
    world.kms.every_call(&Answer::Refused(Refusal::KeyGone));
    world.run_until(millis(100), secs(12), || account.permit().is_err());
    assert_eq!(account.status(), Status::Revoked(Refusal::KeyGone));
}

#[test]
fn c5_an_answer_that_cannot_be_right_earns_no_grace() {
    for wrong in [Answer::Integrity, Answer::OtherAek, Answer::Garbage, Answer::Misconfigured] {
        let world = World::new(6, OutageGrace::For(GRACE));
        let account = world.create();
        world.kms.always(Call::Unwrap, wrong);
        world.run(world.cache.fresh_for() - NANO);
        assert!(account.permit().is_ok());
        world.run(NANO);
        assert_eq!(account.status(), Status::Unavailable(UnavailableCause::Integrity));
        assert_eq!(kind(account.permit()), Some(ErrorKind::Unavailable));
    }
}

#[test]
fn c5_a_suspended_process_earns_no_grace() {
    let world = World::new(6, OutageGrace::For(GRACE));
    let account = world.create();
    let block = Block::sealed_by(&account);
    world.clock.advance(world.cache.fresh_for());
    assert_eq!(block.open(&account), Err(ErrorKind::NotReady));
    assert_eq!(account.status(), Status::NotReady);
    world.cache.drive();
    assert_eq!(block.open(&account), Ok(()), "asks at once when it wakes");
}

#[test]
fn c5_a_process_suspended_during_an_outage_loses_the_grace_it_had_earned() {
    let world = World::new(6, OutageGrace::For(GRACE));
    let account = world.create();
    world.kms.every_call(&Answer::Transient);
    world.run(secs(60));
    assert!(matches!(account.status(), Status::Grace { .. }));
    world.clock.advance(world.cache.fresh_for());
    assert_eq!(kind(account.permit()), Some(ErrorKind::NotReady));
    world.clock.advance(GRACE);
    world.cache.drive();
    assert!(account.permit().is_err(), "past F + G nothing is earned any more");
}

#[test]
fn c5_a_record_shortens_grace_and_cannot_lengthen_it() {
    for (record, expected) in [(secs(0), secs(0)), (secs(40), secs(40)), (2 * GRACE, GRACE)] {
        let world = World::new(6, OutageGrace::For(GRACE));
        let policy = RecordPolicy::default().with_max_grace(record);
        let account = world.cache.create(world.spec().policy(policy)).unwrap();
        world.kms.every_call(&Answer::Transient);
        let end = world.cache.fresh_for() + expected;
        world.run(end - NANO);
        assert!(account.permit().is_ok(), "{record:?}");
        world.run(NANO);
        assert_eq!(kind(account.permit()), Some(ErrorKind::Unavailable), "{record:?}");
    }
}

#[test]
fn c5_a_refresh_under_way_does_not_give_back_grace() {
    for stored in [false, true] {
        let world = World::new(30, OutageGrace::For(secs(1800)));
        let spec = if stored { world.spec().store(Store::new()) } else { world.spec() };
        let account = world.cache.create(spec).unwrap();
        world.kms.every_call(&Answer::Delay(secs(1)));
        let calls = world.unwraps().len();
        world.run_until(millis(100), secs(60), || world.unwraps().len() > calls);
        // It has read the record of before.
        account.set_policy(RecordPolicy::default().with_max_grace(secs(60))).unwrap();
        world.run(secs(1));
        assert!(matches!(account.status(), Status::Fresh { .. }));
        world.kms.every_call(&Answer::Transient);
        world.run(world.cache.fresh_for() + secs(60));
        assert_eq!(account.status(), Status::Unavailable(UnavailableCause::Silent), "{stored}");
    }
}

#[test]
fn c5_a_whole_outage_needs_the_records_consent() {
    for (policy, lasts) in
        [(RecordPolicy::default(), false), (RecordPolicy::default().with_whole_outage_consent(), true)]
    {
        let world = World::new(60, OutageGrace::WholeOutage);
        let account = world.cache.create(world.spec().policy(policy)).unwrap();
        world.kms.every_call(&Answer::Transient);
        world.run(secs(24 * 3600));
        assert_eq!(account.permit().is_ok(), lasts);
    }
}

#[test]
fn c6_without_a_lease_every_call_fails_at_once_with_the_reason() {
    let world = World::new(6, OutageGrace::None);
    let (account, block) = world.attached();
    let all = |expected: ErrorKind| {
        assert_eq!(block.open(&account), Err(expected));
        let id = strongroom::BlockId::new(strongroom::ObjectId::random(), 0);
        assert_eq!(kind(account.seal(id, strongroom::Aad::EMPTY, b"x")), Some(expected));
        assert_eq!(kind(account.permit()), Some(expected));
        assert_eq!(kind(account.fence()), Some(expected));
        assert_eq!(kind(account.guard(())), Some(expected));
        assert_eq!(account.valid_until(), None);
    };
    all(ErrorKind::NotReady);
    account.ready().wait().unwrap();
    let calls = world.kms.log().len();
    account.lock();
    all(ErrorKind::Locked);
    assert_eq!(world.kms.log().len(), calls, "nobody asks the KMS on a caller's behalf");
    account.unlock().unwrap();
    world.kms.set_enabled(crate::common::KEK, false);
    world.run(secs(10));
    all(ErrorKind::Revoked);
    world.kms.set_enabled(crate::common::KEK, true);
    world.run(secs(12));
    world.kms.every_call(&Answer::Transient);
    world.run(secs(30));
    all(ErrorKind::Unavailable);
}

#[test]
fn c7_a_wall_clock_set_forward_ends_a_lease_and_has_it_renewed() {
    let world = World::new(30, OutageGrace::For(GRACE));
    let account = world.create();
    world.run(secs(6));
    world.clock.jump_wall_forward(world.cache.fresh_for());
    assert_eq!(kind(account.permit()), Some(ErrorKind::NotReady));
    // The loop looks at the clocks once a second.
    world.run(secs(1));
    assert!(account.permit().is_ok());
}

#[test]
fn c7_a_wall_clock_set_back_lengthens_nothing() {
    for back in [secs(1), secs(20), secs(24 * 3600)] {
        let world = World::new(6, OutageGrace::For(GRACE));
        let account = world.create();
        world.kms.every_call(&Answer::Transient);
        world.run(secs(3));
        world.clock.jump_wall_back(back);
        world.run(world.cache.usable_for() - secs(3) - NANO);
        world.run(NANO);
        assert!(account.permit().is_err(), "{back:?}");
    }
}

#[test]
fn c7_a_wall_clock_that_jumps_about_costs_no_calls_and_buys_no_time() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    world.kms.clear_log();
    for round in 0..200_u64 {
        world.run(secs(1));
        if round % 2 == 0 {
            world.clock.jump_wall_forward(secs(100));
        } else {
            world.clock.jump_wall_back(secs(100));
        }
    }
    assert!(world.unwraps().windows(2).all(|pair| pair[1] - pair[0] >= secs(6)));
    world.kms.every_call(&Answer::Refused(Refusal::KeyDisabled));
    world.run(world.cache.staleness_bound());
    assert!(account.permit().is_err());
}
