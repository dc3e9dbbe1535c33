//! Taking the key away, and giving it back: D1 to D4, D7 to D11.

use std::time::Duration;

use strongroom::testing::{Answer, Call};
use strongroom::{ErrorKind, ObjectId, OutageGrace, Refusal, Status, UnavailableCause};

use crate::common::{Block, C, KEK, NANO, World, kind, longest_interval, millis, secs, usable};

#[test]
fn d1_d2_d3_every_form_of_reading_and_writing_fails_once_refused() {
    let world = World::new(6, OutageGrace::DEFAULT);
    let account = world.create();
    let block = Block::sealed_by(&account);
    let id = strongroom::BlockId::new(ObjectId::random(), 1);
    let aad = strongroom::Aad::EMPTY;
    let mut page = *b"a page in place";
    let detached = account.permit().unwrap().seal_detached(id, aad, &mut page).unwrap();
    let sealed_page = page;
    let permit = account.permit().unwrap();
    world.kms.set_enabled(KEK, false);
    world.run(world.cache.staleness_bound());

    assert_eq!(block.open(&account), Err(ErrorKind::Revoked));
    let revoked = Some(ErrorKind::Revoked);
    assert_eq!(kind(account.seal(id, aad, b"dropped in silence?")), revoked);
    // A permit of before is worth nothing, in any form.
    assert_eq!(kind(permit.seal(id, aad, b"x")), revoked);
    assert_eq!(kind(permit.seal_append(id, aad, &[], &mut bytes::BytesMut::new())), revoked);
    assert_eq!(kind(permit.seal_detached(id, aad, &mut [1, 2, 3])), revoked);
    assert_eq!(kind(permit.open(id, aad, &block.frame)), revoked);
    assert_eq!(kind(permit.open_into(id, aad, &block.frame, &mut [0; Block::PLAIN.len()])), revoked);
    assert_eq!(kind(permit.open_bytes(id, aad, block.frame.clone().into())), revoked);
    assert_eq!(kind(permit.open_detached(id, aad, &detached, &mut page)), revoked);
    assert_eq!(page, sealed_page, "nothing was decrypted");
    assert_eq!(kind(permit.sealing()), revoked);
}

#[test]
fn d7_a_revoked_account_recovers_by_itself_within_r_and_the_spacing() {
    for refresh in [6, 30, 60] {
        for phase in 0..20 {
            let world = World::new(refresh, OutageGrace::None);
            let account = world.create();
            let block = Block::sealed_by(&account);
            world.kms.set_enabled(KEK, false);
            world.run(secs(100) + millis(997) * phase);
            assert_eq!(block.open(&account), Err(ErrorKind::Revoked));
            world.kms.set_enabled(KEK, true);
            let took = world.run_until(millis(250), secs(80), || usable(&account));
            assert!(took <= secs(refresh + 6), "r = {refresh}: {took:?}");
            assert_eq!(block.open(&account), Ok(()));
        }
    }
}

#[test]
fn d7_an_account_recovers_by_itself_after_an_outage_of_any_length() {
    for refresh in [6, 30, 60] {
        for outage in [20, 65, 200, 1000, 5000] {
            for silence in
                [Answer::Transient, Answer::Late(secs(3), Box::new(Answer::Transient)), Answer::Integrity]
            {
                let world = World::new(refresh, OutageGrace::For(secs(100)));
                let account = world.create();
                world.kms.always(Call::Unwrap, silence.clone());
                world.run(secs(outage));
                world.kms.always(Call::Unwrap, Answer::Ok);
                let verified = world.cache.stats().verified;
                let took = world.run_until(millis(250), secs(80), || world.cache.stats().verified > verified);
                // A call that was under way when the KMS came back still fails, at its own deadline.
                assert!(took <= secs(refresh + 6) + C, "r = {refresh}, {outage} s of {silence:?}: {took:?}");
                assert!(usable(&account));
            }
        }
    }
}

#[test]
fn d7_a_kms_that_flaps_is_asked_less_often_but_at_least_once_a_minute() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    for _ in 0..10 {
        world.kms.set_enabled(KEK, false);
        world.run_until(millis(100), secs(20), || !usable(&account));
        world.kms.set_enabled(KEK, true);
        let took = world.run_until(millis(100), secs(70), || usable(&account));
        assert!(took <= secs(66), "{took:?}");
    }
}

#[test]
fn d8_revoked_and_unavailable_are_different_kinds_and_states() {
    let refusals = [
        Refusal::KeyDisabled,
        Refusal::KeyGone,
        Refusal::PermissionRemoved,
        Refusal::CredentialRejected,
        Refusal::Unrecognised,
    ];
    for refusal in refusals {
        let world = World::new(6, OutageGrace::DEFAULT);
        let account = world.create();
        world.kms.every_call(&Answer::Refused(refusal));
        world.run(world.cache.staleness_bound());
        let error = account.permit().unwrap_err();
        assert_eq!((error.kind(), error.refusal()), (ErrorKind::Revoked, Some(refusal)));
        assert_eq!((error.account(), account.status()), (Some(account.id()), Status::Revoked(refusal)));
        assert_eq!(account.last_failure().unwrap().kind(), ErrorKind::Revoked);
        assert!(world.cache.stats().refused > 0 && world.cache.stats().transient == 0);
    }
    for (answer, cause) in
        [(Answer::Transient, UnavailableCause::Silent), (Answer::OtherAek, UnavailableCause::Integrity)]
    {
        let world = World::new(6, OutageGrace::None);
        let account = world.create();
        world.kms.every_call(&answer);
        world.run(world.cache.fresh_for());
        let error = account.permit().unwrap_err();
        assert_eq!((error.kind(), error.refusal()), (ErrorKind::Unavailable, None));
        assert_eq!(account.status(), Status::Unavailable(cause));
        assert_eq!(world.cache.stats().refused, 0);
    }
}

#[test]
fn d8_an_outage_after_a_refusal_stays_a_refusal() {
    let world = World::new(6, OutageGrace::DEFAULT);
    let account = world.create();
    world.kms.every_call(&Answer::Refused(Refusal::KeyGone));
    world.run(secs(10));
    world.kms.every_call(&Answer::Transient);
    world.run(secs(3600));
    assert_eq!(account.status(), Status::Revoked(Refusal::KeyGone));
}

#[test]
fn d9_state_and_end_of_the_lease_can_be_asked_at_any_time() {
    let world = World::new(30, OutageGrace::For(secs(100)));
    let account = world.create();
    let Status::Fresh { valid_until } = account.status() else { panic!("fresh") };
    assert_eq!(account.valid_until(), Some(valid_until));
    world.kms.every_call(&Answer::Transient);
    world.run(world.cache.fresh_for());
    let Status::Grace { valid_until: later } = account.status() else { panic!("grace") };
    assert!(later > valid_until);
    world.run(secs(100) - NANO);
    // The very end of grace is told exactly.
    let Status::Grace { valid_until: last } = account.status() else { panic!("grace") };
    assert_eq!(last, valid_until + secs(100));
    world.run(NANO);
    assert_eq!(account.valid_until(), None);
    assert!(matches!(account.status(), Status::Unavailable(_)));
}

#[test]
fn d10_staleness_after_a_refusal_is_within_the_published_bound() {
    let mut worst = Vec::new();
    for (refresh, phases, step) in [(6, 120, millis(10)), (30, 60, millis(40)), (60, 60, millis(40))] {
        let mut most = Duration::ZERO;
        for phase in 0..phases {
            for latency in [Duration::ZERO, millis(15), C - millis(1)] {
                let world = World::new(refresh, OutageGrace::DEFAULT);
                let account = world.create();
                world.kms.always(Call::Unwrap, Answer::Delay(latency));
                world.run(secs(refresh) + secs(refresh) * phase * 3 / phases + millis(7) * phase);
                world.kms.set_enabled(KEK, false);
                let stale = world.run_until(step, secs(100), || !usable(&account));
                assert_eq!(kind(account.permit()), Some(ErrorKind::Revoked));
                most = most.max(stale);
            }
            let bound = longest_interval(secs(refresh)) + C;
            assert!(most <= bound + step, "r = {refresh}: {most:?} > {bound:?}");
        }
        worst.push((refresh, most));
    }
    println!("worst staleness by refresh interval in seconds: {worst:?}");
}

#[test]
fn d10_the_published_bounds_are_the_formulas() {
    for refresh in [6, 20, 60] {
        let world = World::new(refresh, OutageGrace::For(secs(300)));
        let j = longest_interval(secs(refresh));
        assert_eq!(world.cache.staleness_bound(), j + C);
        assert_eq!(world.cache.fresh_for(), j + secs(6) + C);
        assert_eq!(world.cache.usable_for(), j + secs(6) + C + secs(300));
    }
}

#[test]
fn d10_a_refusal_behind_lost_answers_bites_by_f() {
    // The refusal comes, but its first answer is lost: the second attempt still fits into F.
    for phase in 0..40 {
        let world = World::new(6, OutageGrace::DEFAULT);
        let account = world.create();
        world.run(millis(331) * phase);
        world.kms.always(Call::Unwrap, Answer::Refused(Refusal::KeyDisabled));
        world.kms.next(Call::Unwrap, [Answer::Late(secs(3), Box::new(Answer::Transient))]);
        let stale = world.run_until(millis(50), secs(30), || !usable(&account));
        assert!(stale <= world.cache.fresh_for() + millis(50), "{stale:?}");
        assert!(matches!(account.status(), Status::Revoked(_)));
    }
}

#[test]
fn d11_a_fence_passes_renewals_and_nothing_else() {
    let world = World::new(6, OutageGrace::For(secs(100)));
    let account = world.create();
    let fence = account.fence().unwrap();
    world.run(secs(600));
    fence.check().unwrap();
    world.kms.every_call(&Answer::Transient);
    world.run(secs(60));
    fence.check().unwrap();
    world.kms.every_call(&Answer::Ok);
    world.run(secs(60));
    fence.check().unwrap();

    account.lock();
    assert_eq!(kind(fence.check()), Some(ErrorKind::Locked));
    account.unlock().unwrap();
    assert_eq!(kind(fence.check()), Some(ErrorKind::NotReady), "sealed before the lock");
    let fence = account.fence().unwrap();
    world.kms.set_enabled(KEK, false);
    world.run(secs(12));
    assert_eq!(kind(fence.check()), Some(ErrorKind::Revoked));
    world.kms.set_enabled(KEK, true);
    world.run(secs(12));
    assert!(usable(&account));
    assert!(fence.check().is_err(), "the key was out of service in between");
    assert!(account.fence().unwrap().epoch() > fence.epoch());
}

#[test]
fn d11_a_lease_that_ran_out_fails_the_fence() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    let fence = account.fence().unwrap();
    world.clock.advance(world.cache.fresh_for());
    assert_eq!(kind(fence.check()), Some(ErrorKind::NotReady));
}

#[test]
fn d4_an_open_overtaken_by_the_end_of_the_lease_has_wiped_its_output() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    let id = strongroom::BlockId::new(ObjectId::random(), 1);
    let frame = account.seal(id, strongroom::Aad::EMPTY, Block::PLAIN).unwrap();
    let permit = account.permit().unwrap();
    // Keys are still published, but the lease is over: decryption happens and its result is not released.
    world.clock.advance(world.cache.fresh_for());
    let mut out = [7; Block::PLAIN.len()];
    assert_eq!(
        kind(permit.open_into(id, strongroom::Aad::EMPTY, &frame, &mut out)),
        Some(ErrorKind::NotReady)
    );
    assert!(out == [0; Block::PLAIN.len()] || out == [7; Block::PLAIN.len()]);
}
