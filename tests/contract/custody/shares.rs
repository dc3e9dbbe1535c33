//! Joint custody while one of the two does not answer: each share is asked for alone, and a refusal of it is heard. A7 with B11, B12, C1.
//!
//! Without a record store where attempts are made, because on virtual time one would let a refusal through from within a call that hangs.

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

/// Whether an unwrap of this one began just then.
fn asked_at(kms: &ScriptedProvider, at: Duration) -> bool {
    kms.log().iter().any(|call| call.call == Call::Unwrap && call.started == at)
}

/// What is found after one share was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compared {
    /// The record is the same.
    Confirmed,
    /// Another machine has wrapped the share anew, and the KMS unwraps that.
    Rewrapped,
    /// It refuses that too.
    Refused,
    /// What it says of that cannot be right.
    Wrong,
    /// It does not answer.
    TooLate,
}

/// What users see of an account whose second share is refused in an outage of the first KMS, from just before on. `None` where it was an
/// attempt at both that met the refusal.
fn refused_alone(compared: Compared) -> Option<Vec<Result<Seen, ErrorKind>>> {
    let two = Two::new(Custody::Joint);
    let (cache, elsewhere) = (two.cache(GRACE), two.cache(GRACE));
    // Neighbours at the same two authorities make the lane of the pair suspect, so that an account makes hardly an attempt.
    let neighbours = Two::new(Custody::Joint);
    let of_neighbours = |kms: &ScriptedProvider| kms.clone().with_clock(&two.clock);
    let (dark, fine) = (of_neighbours(&neighbours.first), of_neighbours(&neighbours.second));
    let _crowd: Vec<_> = (0..40).map(|_| joint(&cache, &dark, &fine)).collect();
    let other = two.create(&elsewhere);
    let block = Block::sealed_by(&other);
    let meddler = Meddler::new(two.second.clone());
    let expect = Expect::account(two.id).kek(Arc::new(two.first.clone()), KEK);
    let account = cache.attach_stored(two.store.clone(), expect.joint_kek(meddler.clone(), KEK)).unwrap();
    cache.run_for(secs(1));
    assert_eq!(block.open(&account), Ok(()));
    Says::Silent.tell(&dark);
    Says::Silent.tell(&two.first);
    cache.run_for(secs(300));
    // The record is read, and the share about to be asked for; now another machine re-wraps, and the old version goes.
    two.second.every_call(&Answer::Delay(Duration::from_millis(600)));
    two.first.clear_log();
    let old = other.record().second_kek_version().unwrap().clone();
    let (next, first, second) = (meddler.clone(), two.first.clone(), two.second.clone());
    let met_at = Arc::new(std::sync::Mutex::new(None));
    let (at, clock) = (met_at.clone(), two.clock.clone());
    meddler.at_next(Call::Unwrap, move || {
        let now = clock.since_boot();
        *at.lock().unwrap() = Some((now, asked_at(&first, now)));
        if compared != Compared::Confirmed {
            second.add_version(KEK);
            Says::Ok.tell(&first);
            other.rotate_second_kek(RotateTo::Latest).unwrap();
            first.clear_log();
            Says::Silent.tell(&first);
        }
        second.set_version_enabled(KEK, &old, false);
        let then = match compared {
            Compared::Confirmed | Compared::Rewrapped => return,
            Compared::Refused => REFUSED,
            Compared::Wrong => Answer::Integrity,
            Compared::TooLate => Answer::Hang,
        };
        next.at_next(Call::Unwrap, move || second.every_call(&then));
    });
    let look = |account: &Account| match seen(account) {
        Some(seen) => Ok(seen),
        None => Err(block.open(account).unwrap_err()),
    };
    let mut met = vec![look(&account)];
    for _ in 0..600 {
        cache.run_for(Duration::from_millis(100));
        let now = look(&account);
        if met.last() != Some(&now) {
            met.push(now);
        }
    }
    let (at, both) = met_at.lock().unwrap().expect("the share was asked for");
    if both || asked_at(&two.first, at) {
        return None;
    }
    // Whatever it was, the account comes back by itself once both unwrap.
    for kms in [&two.first, &two.second, &dark] {
        Says::Ok.tell(kms);
    }
    if compared == Compared::Confirmed {
        two.second.set_version_enabled(KEK, account.record().second_kek_version().unwrap(), true);
    }
    cache.run_for(STEP);
    assert_eq!((seen(&account), block.open(&account)), (Some(Seen::Fresh), Ok(())), "{compared:?}");
    Some(met)
}

#[test]
fn a7_d12_a_refusal_of_one_share_is_compared_before_it_counts() {
    for compared in
        [Compared::Confirmed, Compared::Rewrapped, Compared::Refused, Compared::Wrong, Compared::TooLate]
    {
        let met = (0..20).find_map(|_| refused_alone(compared)).expect("shares are asked for alone");
        let closed = Err(ErrorKind::NotReady);
        match compared {
            // One share that is there opens nothing, and the refusal of the old wrap counts no more.
            Compared::Rewrapped => assert_eq!(met, [Ok(Seen::Grace), closed]),
            // Reads are closed meanwhile, and nothing but an unwrap unsays a refusal.
            _ => assert_eq!(met, [Ok(Seen::Grace), closed, Ok(Seen::Revoked)], "{compared:?}"),
        }
    }
}

#[test]
fn a7_d12_a_refusal_of_one_share_that_comes_after_its_deadline_revokes() {
    for first_refuses in [true, false] {
        let two = Two::new(Custody::Joint);
        let cache = two.cache(GRACE);
        let account = joint(&cache, &two.first, &two.second);
        let block = Block::sealed_by(&account);
        let (refusing, silent) =
            if first_refuses { (&two.first, &two.second) } else { (&two.second, &two.first) };
        silent.every_call(&Answer::Hang);
        cache.run_for(secs(120));
        // Longer than c, within which an attempt hears nothing of it either.
        refusing.every_call(&Answer::Late(secs(5), Box::new(REFUSED)));
        cache.run_for(HEARD + secs(5));
        assert_eq!(account.status(), Status::Revoked(Refusal::KeyDisabled), "{first_refuses}");
        assert_eq!(block.open(&account), Err(ErrorKind::Revoked), "{first_refuses}");
    }
}

#[test]
fn a7_c5_an_answer_for_one_share_that_cannot_be_right_neither_revokes_nor_renews() {
    for wrong in [Answer::Integrity, Answer::Garbage, Answer::OtherAek] {
        let two = Two::new(Custody::Joint);
        let cache = two.cache(OutageGrace::For(secs(600)));
        let account = joint(&cache, &two.first, &two.second);
        let block = Block::sealed_by(&account);
        two.first.every_call(&Answer::Hang);
        cache.run_for(secs(60));
        two.second.every_call(&wrong);
        two.second.clear_log();
        for _ in 0..(41 + 600 - 60 - 1) {
            cache.run_for(secs(1));
            assert_ne!(seen(&account), Some(Seen::Revoked), "{wrong:?}");
        }
        assert!(two.second.calls(Call::Unwrap) > 10, "its share is asked for all the time");
        cache.run_for(secs(1));
        // F + G after the unwrap that created it, at the latest.
        assert_eq!(block.open(&account), Err(ErrorKind::Unavailable), "{wrong:?}");
        // Nor does it hide a refusal.
        Says::Refused.tell(&two.second);
        cache.run_for(HEARD_IN_AN_OUTAGE);
        assert_eq!(block.open(&account), Err(ErrorKind::Revoked), "{wrong:?}");
    }
}
