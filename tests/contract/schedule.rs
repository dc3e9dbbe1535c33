//! When the KMS is asked, and that nobody waits for it: C1 to C4, C9, P12.

use std::sync::Arc;
use std::time::Duration;

use strongroom::testing::{Answer, Call, ScriptedProvider};
use strongroom::{AekCache, ErrorKind, OutageGrace, RefreshWindow, Status};

use crate::common::{Block, C, KEK, NANO, World, kind, longest_interval, millis, secs, usable};

#[test]
fn c1_refreshes_start_6_s_to_j_apart_for_hours() {
    for refresh in [6, 7, 10, 30, 55, 60] {
        let world = World::new(refresh, OutageGrace::None);
        let account = world.create();
        world.kms.clear_log();
        world.run(secs(3 * 3600));
        let starts = world.unwraps();
        let gaps: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
        assert!(
            *least >= secs(6) && *most <= longest_interval(secs(refresh)),
            "{refresh}: {least:?} {most:?}"
        );
        assert!(starts[0] <= longest_interval(secs(refresh)));
        assert!(usable(&account));
    }
}

#[test]
fn c1_refreshes_keep_their_distance_also_from_a_failing_kms() {
    for answer in [Answer::Transient, Answer::Integrity, Answer::Panic, Answer::OtherAek, Answer::Hang] {
        let world = World::new(6, OutageGrace::DEFAULT);
        let _account = world.create();
        world.kms.clear_log();
        world.kms.always(Call::Unwrap, answer.clone());
        world.run(secs(600));
        let starts = world.unwraps();
        assert!(starts.len() > 2);
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= secs(6)), "{answer:?}: {starts:?}");
    }
}

#[test]
fn c1_what_people_ask_for_comes_from_a_small_token_bucket() {
    let world = World::new(60, OutageGrace::None);
    let (account, _) = world.attached();
    world.kms.always(Call::Unwrap, Answer::Transient);
    let mut waits = Vec::new();
    for _ in 0..100 {
        waits.push(account.ready());
        world.cache.drive();
    }
    let at_once = world.unwraps().len();
    assert!((1..=4).contains(&at_once), "{at_once}");
    for _ in 0..600 {
        waits.push(account.ready());
        world.run(secs(1));
    }
    // One in 6 s, and what the bucket held.
    assert!(world.unwraps().len() <= at_once + 600 / 6 + 1, "{}", world.unwraps().len());
}

#[test]
fn c1_unlock_comes_from_the_bucket_too() {
    let world = World::new(60, OutageGrace::None);
    let account = world.create();
    world.kms.clear_log();
    for _ in 0..50 {
        account.lock();
        drop(account.begin_unlock());
        world.cache.drive();
    }
    assert!((1..=4).contains(&world.unwraps().len()), "{:?}", world.unwraps());
}

#[test]
fn c1_a_window_or_interval_out_of_range_is_refused_when_the_cache_is_built() {
    for refresh in [secs(0), secs(6) - NANO, secs(60) + NANO, Duration::MAX] {
        assert_eq!(kind(AekCache::builder().refresh_every(refresh).build()), Some(ErrorKind::Misuse));
    }
    for (low, high) in [(5, 60), (6, 61), (40, 30)] {
        assert_eq!(kind(RefreshWindow::new(secs(low), secs(high))), Some(ErrorKind::Misuse));
    }
    let narrow = RefreshWindow::new(secs(10), secs(20)).unwrap();
    for refresh in [9, 21] {
        let builder = AekCache::builder().refresh_window(narrow).refresh_every(secs(refresh));
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse);
        assert!(error.to_string().contains("refresh window"));
    }
}

#[test]
fn c2_age_counts_from_the_start_of_the_unwrap() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    let block = Block::sealed_by(&account);
    world.kms.clear_log();
    world.kms.next(Call::Unwrap, [Answer::Delay(millis(1900))]);
    world.kms.always(Call::Unwrap, Answer::Transient);
    world.run_until(millis(100), secs(20), || world.cache.stats().verified == 1);
    let started = world.unwraps()[0];
    world.run(started + world.cache.fresh_for() - NANO - world.elapsed());
    assert_eq!(block.open(&account), Ok(()));
    world.run(NANO);
    assert_eq!(block.open(&account), Err(ErrorKind::Unavailable));
}

#[test]
fn c3_no_caller_is_failed_or_held_up_by_a_refresh() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    let block = Block::sealed_by(&account);
    world.kms.always(Call::Unwrap, Answer::Delay(C - millis(1)));
    for round in 0..6000 {
        if round % 300 == 0 {
            world.kms.next(Call::Unwrap, [Answer::Transient]);
        }
        world.run(millis(100));
        // Virtual time stands still during the call: it cannot have waited.
        assert_eq!(block.open(&account), Ok(()), "round {round}");
    }
    assert!(world.cache.stats().transient >= 10);
}

#[test]
fn c4_a_thousand_callers_cause_one_unwrap() {
    let world = World::new(30, OutageGrace::None);
    let (account, block) = world.attached();
    world.kms.always(Call::Unwrap, Answer::Delay(secs(1)));
    let waits: Vec<_> = (0..1000).map(|_| account.ready()).collect();
    world.run(millis(500));
    let late: Vec<_> = (0..1000).map(|_| account.ready()).collect();
    world.run(secs(1));
    for wait in waits.into_iter().chain(late) {
        wait.wait().unwrap();
    }
    assert_eq!((world.kms.calls(Call::Unwrap), block.open(&account)), (1, Ok(())));
}

#[test]
fn c4_a_thousand_callers_on_threads_cause_one_unwrap() {
    let kms = ScriptedProvider::new();
    let release = kms.release_on_drop();
    let cache = AekCache::builder().build().unwrap();
    let id = strongroom::AccountId::random();
    let spec =
        strongroom::AccountSpec::new(id, Arc::new(kms.clone()), strongroom::provider::Kek::latest(KEK));
    let record = cache.create(spec).unwrap().record();
    kms.clear_log();
    kms.always(Call::Unwrap, Answer::Hang);
    let expect = strongroom::Expect::account(id).kek(Arc::new(kms.clone()), KEK);
    let account = cache.attach(record, expect).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let waits: Vec<_> = (0..125).map(|_| account.ready()).collect();
                waits.into_iter().for_each(|wait| wait.wait().unwrap());
            });
        }
        while kms.in_flight() == 0 {
            std::thread::yield_now();
        }
        drop(release);
    });
    assert_eq!(kms.calls(Call::Unwrap), 1);
}

#[test]
fn c9_attaching_makes_no_call_and_works_while_the_kms_is_down() {
    for down in [Answer::Transient, Answer::Panic] {
        let world = World::new(10, OutageGrace::None);
        let (account, block) = world.attached();
        assert_eq!(world.kms.log().len(), 0);
        assert_eq!(account.status(), Status::NotReady);
        world.kms.every_call(&down);
        world.run(secs(3600));
        assert_eq!(block.open(&account), Err(ErrorKind::NotReady), "silence is not a refusal");
        let waiting = account.ready();
        world.kms.every_call(&Answer::Ok);
        // By itself.
        let took = world.run_until(millis(100), secs(20), || usable(&account));
        assert!(took <= secs(10 + 6), "{took:?}");
        assert_eq!(block.open(&account), Ok(()));
        waiting.wait().unwrap();
    }
}

#[test]
fn p12_from_attach_to_ready_and_for_each_refresh_one_round_trip() {
    let world = World::new(6, OutageGrace::None);
    let (account, block) = world.attached();
    account.ready().wait().unwrap();
    assert_eq!(block.open(&account), Ok(()));
    assert_eq!(world.kms.log().len(), 1);
    world.run(secs(3600));
    let stats = world.cache.stats();
    assert!(stats.verified > 500 && stats.refreshes == stats.verified);
    let all = world.kms.log().len();
    let (unwraps, looks) = (world.kms.calls(Call::Unwrap), world.kms.calls(Call::Describe));
    assert_eq!(u64::try_from(unwraps).unwrap(), stats.verified);
    // Looking for new versions of the KEK: every ten minutes.
    assert!((6..=7).contains(&looks) && all == unwraps + looks, "{looks} of {all}");
}
