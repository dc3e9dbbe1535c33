//! Joint custody while one of the two does not answer: each share is asked for alone, and a refusal of it is heard. A7 with B11, B12, C1.
//!
//! Without a record store, because on virtual time one would let a refusal through from within a call that hangs.

use super::*;

const GRACE: OutageGrace = OutageGrace::For(secs(3600));
/// J + 18 s + 2 c, at r = 30 s and c = 2 s: whatever the attempts are at.
const HEARD: Duration = secs(33 + 18 + 4);
/// r + c, once one of them has been silent for long.
const HEARD_IN_AN_OUTAGE: Duration = secs(30 + 2);

/// A joint account under these two, whose record nobody but the process keeps.
fn joint(cache: &AekCache, first: &ScriptedProvider, second: &ScriptedProvider) -> Account {
    let spec = AccountSpec::new(AccountId::random(), Arc::new(first.clone()), Kek::latest(KEK));
    cache.create(spec.joint_with(Arc::new(second.clone()), Kek::latest(KEK))).unwrap()
}

/// C1: background unwraps of an account begin at least 6 s apart at each of its KMSs.
fn assert_spaced(kms: &ScriptedProvider) {
    let begun: Vec<_> =
        kms.log().into_iter().filter(|call| call.call == Call::Unwrap).map(|c| c.started).collect();
    for pair in begun.windows(2) {
        assert!(pair[1] - pair[0] >= secs(6), "{pair:?}");
    }
}

#[test]
fn a7_joint_a_refusal_revokes_beside_a_kms_that_hangs() {
    for silence in [Answer::Hang, Answer::Transient, Answer::Late(secs(1), Box::new(Answer::Transient))] {
        for first_refuses in [true, false] {
            for outage in [0, 3, 17, 60, 333, 1200] {
                let two = Two::new(Custody::Joint);
                let cache = two.cache(GRACE);
                let account = joint(&cache, &two.first, &two.second);
                let block = Block::sealed_by(&account);
                let (refusing, silent) =
                    if first_refuses { (&two.first, &two.second) } else { (&two.second, &two.first) };
                refusing.clear_log();
                silent.clear_log();
                silent.every_call(&silence);
                cache.run_for(secs(outage));
                let what = format!("{silence:?} {first_refuses} {outage}");
                assert_eq!(block.open(&account), Ok(()), "{what}");
                Says::Refused.tell(refusing);
                cache.run_for(if outage < 60 { HEARD } else { HEARD_IN_AN_OUTAGE });
                assert_eq!(account.status(), Status::Revoked(Refusal::KeyDisabled), "{what}");
                assert_eq!(block.open(&account), Err(ErrorKind::Revoked), "{what}");
                assert_spaced(refusing);
                assert_spaced(silent);
                // Both are needed for it to come back.
                Says::Ok.tell(refusing);
                cache.run_for(STEP);
                assert_eq!(block.open(&account), Err(ErrorKind::Revoked), "{what}");
                if silence == Answer::Transient {
                    Says::Ok.tell(silent);
                    cache.run_for(STEP);
                    assert_eq!((seen(&account), block.open(&account)), (Some(Seen::Fresh), Ok(())), "{what}");
                }
            }
        }
    }
}

#[test]
fn a7_joint_a_refusal_revokes_in_a_lane_that_neighbours_have_made_suspect() {
    for silence in [Answer::Hang, Answer::Transient] {
        for first_refuses in [true, false] {
            let two = Two::new(Custody::Joint);
            let cache = two.cache(GRACE);
            let crowd: Vec<_> = (0..40).map(|_| joint(&cache, &two.first, &two.second)).collect();
            // A key of its own at the same two authorities.
            let kms = |name: &str| {
                let kms = ScriptedProvider::on_virtual_time().with_clock(&two.clock);
                kms.with_authority(Authority::new("scripted", name))
            };
            let (first, second) = (kms("first"), kms("second"));
            let account = joint(&cache, &first, &second);
            let block = Block::sealed_by(&account);
            let ((refusing, of_refusing), (silent, of_silent)) = if first_refuses {
                ((&first, &two.first), (&second, &two.second))
            } else {
                ((&second, &two.second), (&first, &two.first))
            };
            silent.every_call(&silence);
            of_silent.every_call(&silence);
            cache.run_for(secs(300));
            assert_eq!(block.open(&account), Ok(()));
            Says::Refused.tell(refusing);
            cache.run_for(HEARD_IN_AN_OUTAGE);
            assert_eq!(block.open(&account), Err(ErrorKind::Revoked), "{silence:?} {first_refuses}");
            // The others were not refused.
            assert!(crowd.iter().all(|account| seen(account) == Some(Seen::Grace)));
            assert!(of_refusing.calls(Call::Unwrap) > 0);
        }
    }
}

#[test]
fn a7_a_share_alone_renews_nothing_and_gives_no_key() {
    for silence in [Answer::Hang, Answer::Transient] {
        for first_is_silent in [true, false] {
            let two = Two::new(Custody::Joint);
            let cache = two.cache(OutageGrace::For(secs(600)));
            let account = joint(&cache, &two.first, &two.second);
            let block = Block::sealed_by(&account);
            let silent = if first_is_silent { &two.first } else { &two.second };
            let other = if first_is_silent { &two.second } else { &two.first };
            silent.every_call(&silence);
            // F + G after the unwrap that created it.
            cache.run_for(secs(41 + 600 - 1));
            assert_eq!(block.open(&account), Ok(()), "{silence:?} {first_is_silent}");
            other.clear_log();
            cache.run_for(secs(1));
            assert_eq!(block.open(&account), Err(ErrorKind::Unavailable), "{silence:?} {first_is_silent}");
            cache.run_for(secs(600));
            assert!(other.calls(Call::Unwrap) > 10, "its share is there all the time");
            assert_eq!(block.open(&account), Err(ErrorKind::Unavailable), "{silence:?} {first_is_silent}");
        }
    }
}

#[test]
fn a7_b11_b12_shares_of_a_kms_that_hangs_take_eight_workers_at_most() {
    let two = Two::new(Custody::Joint);
    let cache = two.cache(OutageGrace::None);
    let account = joint(&cache, &two.first, &two.second);
    let neighbour = cache
        .create(AccountSpec::new(AccountId::random(), Arc::new(two.second.clone()), Kek::latest(KEK)))
        .unwrap();
    two.first.every_call(&Answer::Hang);
    for _ in 0..180 {
        cache.run_for(secs(10));
        assert!(matches!(neighbour.status(), Status::Fresh { .. }));
    }
    assert_eq!(seen(&account), Some(Seen::Unavailable));
    // Four where both are asked together, and four where it is asked alone.
    let stats = cache.stats();
    assert!((1..=8).contains(&stats.hanging_workers), "{stats:?}");
}
