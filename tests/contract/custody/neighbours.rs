//! Two providers of one account, and the accounts that have only one of them. A7 with B11, B12, C5.

use std::cell::Cell;

use strongroom::MemoryRecordStore;
use strongroom::testing::{FaultyRecordStore, StoreFault};

use super::*;
use crate::common::usable;

/// An account of its own under one KMS only.
fn alone(cache: &AekCache, kms: &ScriptedProvider) -> Account {
    cache.create(AccountSpec::new(AccountId::random(), Arc::new(kms.clone()), Kek::latest(KEK))).unwrap()
}

/// Forty accounts under both.
fn crowd(two: &Two, cache: &AekCache) -> Vec<Account> {
    let account = || {
        let (first, second) = (Arc::new(two.first.clone()), Arc::new(two.second.clone()));
        let spec = AccountSpec::new(AccountId::random(), first, Kek::latest(KEK)).store(Store::new());
        let spec = match two.custody {
            Custody::Failover(limit) => spec.failover(second, Kek::latest(KEK), limit),
            Custody::Joint => spec.joint_with(second, Kek::latest(KEK)),
        };
        cache.create(spec).unwrap()
    };
    (0..40).map(|_| account()).collect()
}

#[test]
fn a7_b12_a_dark_authority_of_an_account_holds_up_nobody_under_the_other_one() {
    for custody in [FAILOVER, Custody::Joint] {
        for dark in [Answer::Transient, Answer::Hang] {
            for first_is_dark in [true, false] {
                let two = Two::new(custody);
                let cache = two.cache(OutageGrace::None);
                let crowd = crowd(&two, &cache);
                let (works, fails) =
                    if first_is_dark { (&two.second, &two.first) } else { (&two.first, &two.second) };
                let neighbour = alone(&cache, works);
                fails.every_call(&dark);
                let worst = Cell::new(0);
                for _ in 0..90 {
                    cache.run_for(secs(10));
                    assert!(usable(&neighbour), "{custody:?} {dark:?} {first_is_dark}");
                    assert!(matches!(neighbour.status(), Status::Fresh { .. }));
                    worst.set(worst.get().max(crowd.iter().filter(|account| !usable(account)).count()));
                }
                // All of them are served by the second one, with no pause; joint custody needs both.
                match custody {
                    Custody::Failover(_) => assert_eq!(worst.get(), 0, "{dark:?} {first_is_dark}"),
                    Custody::Joint => assert!(crowd.iter().all(|account| !usable(account))),
                }
            }
        }
    }
}

#[test]
fn a7_b11_b12_a_second_kms_that_hangs_takes_four_workers_at_most() {
    let two = Two::new(Custody::Failover(secs(3600)));
    let cache = two.cache(OutageGrace::None);
    // No other account has a call waiting at the second KMS.
    let account = two.create(&cache);
    let elsewhere = ScriptedProvider::on_virtual_time().with_clock(&two.clock);
    let neighbour = alone(&cache, &elsewhere);
    Says::Silent.tell(&two.first);
    two.second.every_call(&Answer::Hang);
    cache.run_for(secs(1800));
    assert!(!usable(&account));
    assert!(usable(&neighbour), "{:?}", neighbour.status());
    let stats = cache.stats();
    assert!((1..=4).contains(&stats.hanging_workers), "{stats:?}");
}

#[test]
fn a7_b12_c5_where_a_kms_is_asked_beside_attempts_its_silence_earns_the_grace_of_its_own_accounts() {
    for custody in [FAILOVER, Custody::Joint] {
        for silence in [Answer::Transient, Answer::Late(secs(4), Box::new(Answer::Transient)), Answer::Hang] {
            let two = Two::new(custody);
            let cache = two.cache(OutageGrace::For(secs(1800)));
            let _crowd = crowd(&two, &cache);
            // The probes of the second one are few, and the crowd takes most of them.
            let neighbour = alone(&cache, &two.second);
            let block = Block::sealed_by(&neighbour);
            Says::Silent.tell(&two.first);
            two.second.every_call(&silence);
            for second in 0..1800 {
                cache.run_for(secs(1));
                assert_eq!(block.open(&neighbour), Ok(()), "{custody:?} {silence:?} {second}");
            }
            cache.run_for(secs(60));
            assert_eq!(block.open(&neighbour), Err(ErrorKind::Unavailable), "{custody:?} {silence:?}");
        }
    }
}

#[test]
fn a7_b12_record_stores_that_hang_once_a_kms_has_refused_bring_in_no_second_one() {
    let two = Two::new(FAILOVER);
    let cache = two.cache(OutageGrace::For(secs(1800)));
    two.first.add_key("theirs");
    let stores: Vec<_> = (0..4)
        .map(|_| Arc::new(FaultyRecordStore::on_virtual_time(Arc::new(MemoryRecordStore::new()))))
        .collect();
    let theirs = stores.iter().map(|store| {
        let spec = AccountSpec::new(AccountId::random(), Arc::new(two.first.clone()), Kek::latest("theirs"));
        cache.create(spec.store(Arc::clone(store) as _)).unwrap()
    });
    let theirs: Vec<_> = theirs.collect();
    let spec = AccountSpec::new(AccountId::random(), Arc::new(two.first.clone()), Kek::latest(KEK));
    let account = cache
        .create(spec.failover(Arc::new(two.second.clone()), Kek::latest(KEK), AccountSpec::FAILOVER_LIMIT))
        .unwrap();
    // The refusals are heard, and what follows them holds every call that the first one may have.
    two.first.set_enabled("theirs", false);
    stores.iter().for_each(|store| store.fail_every(StoreFault::Late(secs(1200))));
    cache.run_for(secs(60));
    let refused = theirs.iter().filter(|account| matches!(account.status(), Status::Revoked(_)));
    assert_eq!(refused.count(), 4, "{theirs:?}");
    two.first.clear_log();
    two.second.clear_log();
    cache.run_for(secs(300));
    assert_eq!((two.first.log(), seen(&account)), (Vec::new(), Some(Seen::Grace)), "nobody can ask it");
    assert_eq!(two.second.log(), [], "it has answered, as far as anybody knows");
}
