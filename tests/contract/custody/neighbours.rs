//! Two providers of one account, and the accounts that have only one of them. A7 with B11, B12, C5.

use std::cell::Cell;

use super::*;
use crate::common::usable;

/// An account of its own under one KMS only.
fn alone(cache: &AekCache, kms: &ScriptedProvider) -> Account {
    cache.create(AccountSpec::new(AccountId::random(), Arc::new(kms.clone()), Kek::latest(KEK))).unwrap()
}

#[test]
fn a7_b12_a_dark_authority_of_an_account_holds_up_nobody_under_the_other_one() {
    for custody in [FAILOVER, Custody::Joint] {
        for dark in [Answer::Transient, Answer::Hang] {
            for first_is_dark in [true, false] {
                let two = Two::new(custody);
                let cache = two.cache(OutageGrace::None);
                let crowd: Vec<_> = (0..40)
                    .map(|_| {
                        let id = AccountId::random();
                        let (first, second) = (Arc::new(two.first.clone()), Arc::new(two.second.clone()));
                        let spec = AccountSpec::new(id, first, Kek::latest(KEK)).store(Store::new());
                        cache
                            .create(match custody {
                                Custody::Failover(limit) => spec.failover(second, Kek::latest(KEK), limit),
                                Custody::Joint => spec.joint_with(second, Kek::latest(KEK)),
                            })
                            .unwrap()
                    })
                    .collect();
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
