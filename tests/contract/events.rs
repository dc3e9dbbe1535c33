//! Telling the engine: every transition, with its epoch; values that no longer read: D6.

use strongroom::testing::{Answer, Call};
use strongroom::{ErrorKind, Events, OutageGrace, Refusal, Status, Transition};

use crate::common::{KEK, World, kind, secs};

fn drain(events: &Events) -> Vec<Transition> {
    std::iter::from_fn(|| events.try_next()).collect()
}

/// The only transition that is waiting.
fn only(events: &Events) -> Transition {
    let mut all = drain(events);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn d6_the_engine_is_told_of_every_transition_with_a_growing_epoch() {
    let world = World::new(6, OutageGrace::For(secs(60)));
    let events = world.cache.events();
    let account = world.create();
    let created = only(&events);
    assert!(matches!(created.status, Status::Fresh { .. }) && created.account == account.id());
    world.run(secs(300));
    assert!(drain(&events).is_empty(), "renewals are no transitions");

    world.kms.every_call(&Answer::Transient);
    world.run(secs(20));
    let grace = only(&events);
    assert!(matches!(grace.status, Status::Grace { .. }));
    assert_eq!(grace.epoch, created.epoch);
    assert_eq!(grace.cause.unwrap().kind(), ErrorKind::Unavailable);
    world.run(secs(100));
    let silent = only(&events);
    assert!(matches!(silent.status, Status::Unavailable(_)) && silent.epoch > created.epoch);
    world.kms.every_call(&Answer::Ok);
    world.run(secs(20));
    let back = only(&events);
    assert!(
        matches!(back.status, Status::Fresh { .. }) && back.epoch >= silent.epoch && back.cause.is_none()
    );

    world.kms.set_enabled(KEK, false);
    world.run(secs(12));
    let revoked = only(&events);
    assert_eq!(revoked.status, Status::Revoked(Refusal::KeyDisabled));
    assert_eq!(revoked.cause.unwrap().refusal(), Some(Refusal::KeyDisabled));
    assert!(revoked.epoch > back.epoch);
    world.kms.set_enabled(KEK, true);
    world.run(secs(12));
    assert!(matches!(only(&events).status, Status::Fresh { .. }));

    account.lock();
    let locked = only(&events);
    assert!(locked.status == Status::Locked && locked.epoch > revoked.epoch);
    account.unlock().unwrap();
    assert!(matches!(only(&events).status, Status::Fresh { .. }));
    assert_eq!(account.epoch(), locked.epoch);
}

#[test]
fn d6_a_slow_reader_sees_the_newest_state_and_by_its_epoch_that_it_missed_some() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    let before = account.epoch();
    let events = world.cache.events();
    for _ in 0..3 {
        account.lock();
        world.run(secs(6));
        account.unlock().unwrap();
    }
    let only = only(&events);
    assert!(matches!(only.status, Status::Fresh { .. }));
    assert_eq!(only.epoch.number(), before.number() + 3);
}

#[test]
fn d6_every_reader_sees_every_account() {
    let world = World::new(6, OutageGrace::None);
    let (first, second) = (world.cache.events(), world.cache.events());
    let accounts = [world.create(), world.create()];
    for events in [&first, &second] {
        let seen: Vec<_> = drain(events).iter().map(|t| t.account).collect();
        assert_eq!(seen, [accounts[0].id(), accounts[1].id()]);
    }
    drop(second);
    accounts[0].lock();
    assert_eq!(only(&first).account, accounts[0].id());
}

#[test]
fn d6_an_alarm_is_told_though_the_state_stays() {
    let world = World::new(60, OutageGrace::None);
    let _account = world.create();
    let events = world.cache.events();
    world.kms.next(Call::Unwrap, [Answer::OtherAek]);
    world.run(secs(60));
    let alarm = only(&events);
    assert!(matches!(alarm.status, Status::Fresh { .. }));
    assert_eq!(alarm.cause.unwrap().kind(), ErrorKind::Untrusted);
}

#[test]
fn d6_a_lease_that_a_suspension_ended_is_told_of() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    let events = world.cache.events();
    world.kms.every_call(&Answer::Transient);
    world.clock.advance(world.cache.usable_for());
    world.cache.drive();
    let told = only(&events);
    assert!(matches!(told.status, Status::NotReady | Status::Unavailable(_)), "{told:?}");
    assert!(told.epoch.number() > 1 && account.epoch() == told.epoch);
}

#[test]
fn d6_a_guarded_value_never_reads_again_once_its_lease_has_gone() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    let index = account.guard(vec![1, 2, 3]).unwrap();
    assert_eq!(index.get().unwrap(), &[1, 2, 3]);
    world.run(secs(600));
    assert_eq!(index.get().unwrap(), &[1, 2, 3], "renewals pass");
    world.kms.set_enabled(KEK, false);
    world.run(secs(12));
    assert_eq!(kind(index.get()), Some(ErrorKind::Revoked));
    world.kms.set_enabled(KEK, true);
    world.run(secs(12));
    assert_eq!(kind(index.get()), Some(ErrorKind::NotReady));
    assert!(account.epoch() >= index.epoch());
    let again = account.guard("made anew").unwrap();
    assert_eq!(again.get().unwrap(), &"made anew");
    assert!(!format!("{again:?}").contains("made anew"));
    world.clock.advance(world.cache.fresh_for());
    assert_eq!(kind(again.get()), Some(ErrorKind::NotReady));
}
