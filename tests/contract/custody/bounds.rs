//! What a second provider may not do: outlast its limit by any clock, or forget a refusal. A7 with C7, D12.

use strongroom::{Anchor, AnchoredRecordStore, RecordPolicy, RecordStore, Retention, StoredAnchor};

use super::*;

const LIMIT: Duration = secs(3600);

/// Something that is done to an account of [`Two`].
type Step<'a, T> = &'a dyn Fn(&Two, &AekCache, &Account) -> T;

/// In an outage of the first one from the beginning, on a machine that has just started where `anew`.
fn standing_in(anew: bool) -> (Two, AekCache, Account, Block) {
    let two = Two::new(Custody::Failover(LIMIT));
    let cache = two.cache(OutageGrace::None);
    let account = two.create(&cache);
    let block = Block::sealed_by(&account);
    Says::Silent.tell(&two.first);
    let (cache, account) = if anew {
        let again = two.cache(OutageGrace::None);
        let attached = two.attach(&again);
        (again, attached)
    } else {
        (cache, account)
    };
    cache.run_for(STEP);
    assert_eq!(seen(&account), Some(Seen::Grace));
    (two, cache, account, block)
}

#[test]
fn a7_c7_a_wall_clock_that_is_set_back_does_not_lengthen_the_limit() {
    for anew in [false, true] {
        for back in [secs(60), secs(1800)] {
            let (two, cache, account, block) = standing_in(anew);
            cache.run_for(secs(1800));
            assert_eq!(block.open(&account), Ok(()));
            two.clock.jump_wall_back(back);
            cache.run_for(LIMIT - STEP - secs(1800) - secs(1));
            // Set back before the first one's last answer it allows nothing.
            let _ = block.open(&account);
            cache.run_for(secs(2));
            assert_eq!(block.open(&account), Err(ErrorKind::Unavailable), "{anew} {back:?}");
            cache.run_for(LIMIT);
            assert_eq!(block.open(&account), Err(ErrorKind::Unavailable), "{anew} {back:?}");
        }
    }
}

#[test]
fn a7_c7_a_wall_clock_that_is_set_forward_ends_it_early_and_never_late() {
    for anew in [false, true] {
        let (two, cache, account, block) = standing_in(anew);
        two.clock.jump_wall_forward(LIMIT);
        cache.run_for(NANO);
        assert!(block.open(&account).is_err());
        cache.run_for(STEP);
        assert!(block.open(&account).is_err());
        assert_ne!(seen(&account), Some(Seen::Fresh));
    }
}

#[test]
fn a7_c7_a_process_that_is_suspended_past_the_limit_comes_back_without_a_key() {
    for anew in [false, true] {
        let (two, cache, account, block) = standing_in(anew);
        // Nobody drives the cache meanwhile.
        two.clock.advance(LIMIT - STEP);
        assert!(block.open(&account).is_err(), "at once, with no help of the keeper");
        cache.run_for(STEP);
        assert_eq!(block.open(&account), Err(ErrorKind::Unavailable));
    }
}

#[test]
fn a7_what_passed_before_the_machine_was_booted_counts() {
    let two = Two::new(Custody::Failover(secs(3 * 3600)));
    let cache = two.cache(OutageGrace::None);
    let block = Block::sealed_by(&two.create(&cache));
    // Two hours in which no boot-time clock ran: another machine, an hour after it was booted.
    two.clock.jump_wall_forward(secs(2 * 3600));
    Says::Silent.tell(&two.first);
    let again = two.cache(OutageGrace::None);
    let account = two.attach(&again);
    again.run_for(STEP);
    assert_eq!(block.open(&account), Ok(()));
    two.clock.jump_wall_back(secs(1800));
    again.run_for(secs(3600) - STEP - secs(1));
    assert_eq!(block.open(&account), Ok(()));
    again.run_for(secs(2));
    assert_eq!(
        block.open(&account),
        Err(ErrorKind::Unavailable),
        "the wall clock was set back by half an hour"
    );
}

#[test]
fn a7_a_refusal_that_cannot_be_recorded_revokes_here_and_is_recorded_later() {
    for done in [false, true] {
        let two = Two::new(FAILOVER);
        let cache = two.cache(OutageGrace::For(secs(1800)));
        let account = two.create(&cache);
        let block = Block::sealed_by(&account);
        let open = two.store.bytes(two.id).unwrap();
        two.second.clear_log();
        Says::Refused.tell(&two.first);
        // A refresh reads, and once more when it is refused, and then writes.
        two.store.fail_nth(2, done);
        while block.open(&account).is_ok() {
            cache.run_for(secs(1));
        }
        cache.run_for(secs(1));
        assert_eq!(seen(&account), Some(Seen::Revoked));
        assert_eq!(two.store.bytes(two.id).unwrap() != open, done, "whether it is in the store");
        assert_eq!(two.second.log(), []);
        // Silent from now on: nobody tells of the refusal again, and this process knows.
        Says::Silent.tell(&two.first);
        cache.run_for(secs(3600));
        assert_eq!((seen(&account), two.second.log()), (Some(Seen::Revoked), Vec::new()));
        Says::Refused.tell(&two.first);
        cache.run_for(STEP);
        assert_ne!(two.store.bytes(two.id).unwrap(), open, "the next probe has recorded it");
    }
}

#[test]
fn a7_a_rival_that_writes_first_does_not_keep_a_refusal_out_of_the_record() {
    let two = Two::new(FAILOVER);
    let cache = two.cache(OutageGrace::None);
    let account = two.create(&cache);
    let block = Block::sealed_by(&account);
    two.store.conflict_nth(0);
    Says::Refused.tell(&two.first);
    cache.run_for(secs(40));
    assert_eq!(seen(&account), Some(Seen::Revoked));
    Says::Silent.tell(&two.first);
    let again = two.cache(OutageGrace::None);
    let late = two.attach(&again);
    again.run_for(STEP);
    assert!(block.open(&late).is_err(), "{:?}", late.status());
}

#[test]
fn f6_a7_a_refused_forgery_does_not_raise_the_anchor() {
    let two = Two::new(FAILOVER);
    let anchor = Arc::new(StoredAnchor::new(Store::new()));
    let store = || -> Arc<dyn RecordStore> {
        Arc::new(AnchoredRecordStore::new(two.store.clone(), Arc::clone(&anchor) as _))
    };
    let cache = two.cache(OutageGrace::None);
    let spec = two.spec(Arc::new(two.first.clone()), Arc::new(two.second.clone())).store(store());
    let account = cache.create(spec).unwrap();
    let block = Block::sealed_by(&account);
    let (genuine, anchored) = (two.store.bytes(two.id).unwrap(), anchor.least(two.id).unwrap());
    // Of no version that there is: the KMS says that it is gone, which is a refusal. The sequence is the highest but one.
    let mut forged = genuine.clone();
    forged[25..33].copy_from_slice(&(u64::MAX - 1).to_be_bytes());
    let kek = account.record().kek().as_str().as_bytes().to_vec();
    let version = forged.windows(kek.len()).position(|at| at == kek).unwrap() + kek.len() + 2;
    assert_eq!(forged[version], b'1');
    forged[version] = b'9';
    let (another, two_caches) = (two.cache(OutageGrace::None), store());
    for cold in [false, true] {
        two.store.plant(two.id, &forged);
        if cold {
            let attached = another.attach_stored(Arc::clone(&two_caches), two.expect()).unwrap();
            another.run_for(STEP);
            assert_eq!(seen(&attached), Some(Seen::Revoked));
        } else {
            cache.run_for(STEP);
            assert_eq!(seen(&account), Some(Seen::Revoked));
        }
        assert_ne!(two.store.bytes(two.id).unwrap(), forged, "the refusal was written");
        assert_eq!(anchor.least(two.id).unwrap(), anchored);
        two.store.plant(two.id, &genuine);
        cache.run_for(STEP);
        assert_eq!(block.open(&account), Ok(()), "the genuine record is no older one");
    }
}

#[test]
fn f6_a7_the_bar_after_an_authenticated_record_raises_the_anchor() {
    let two = Two::new(FAILOVER);
    let anchor = Arc::new(StoredAnchor::new(Store::new()));
    let store: Arc<dyn RecordStore> =
        Arc::new(AnchoredRecordStore::new(two.store.clone(), Arc::clone(&anchor) as _));
    let cache = two.cache(OutageGrace::None);
    let spec = two.spec(Arc::new(two.first.clone()), Arc::new(two.second.clone())).store(Arc::clone(&store));
    let account = cache.create(spec).unwrap();
    let open = two.store.bytes(two.id).unwrap();
    Says::Refused.tell(&two.first);
    cache.run_for(STEP);
    assert_eq!(seen(&account), Some(Seen::Revoked));
    assert_eq!(anchor.least(two.id).unwrap().unwrap().number(), account.record().sequence().number() + 1);
    two.store.plant(two.id, &open);
    assert_eq!(
        kind(two.cache(OutageGrace::None).attach_stored(store, two.expect())),
        Some(ErrorKind::Untrusted)
    );
}

#[test]
fn a7_d12_a_refusal_whose_comparison_is_silent_is_recorded() {
    let two = Two::new(FAILOVER);
    let first = Meddler::new(two.first.clone());
    let cache = two.cache(OutageGrace::None);
    let account = cache.create(two.spec(first.clone(), Arc::new(two.second.clone()))).unwrap();
    let block = Block::sealed_by(&account);
    let elsewhere = two.cache(OutageGrace::None);
    let other = two.attach(&elsewhere);
    elsewhere.run_for(secs(1));
    // While the KMS is asked under the first version, another machine wraps under the second, and the first one is disabled. What is
    // asked then meets silence.
    two.first.add_version(KEK);
    let (kms, failing) = (two.first.clone(), Arc::clone(&first));
    let old = account.record().kek_version().clone();
    first.at_next(Call::Unwrap, move || {
        other.rotate_kek(RotateTo::Latest).unwrap();
        kms.set_version_enabled(KEK, &old, false);
        failing.fail_nth(1, false);
    });
    while block.open(&account).is_ok() {
        cache.run_for(secs(1));
    }
    cache.run_for(NANO);
    assert_eq!(seen(&account), Some(Seen::Revoked));
    assert!(!first.calm(), "it was asked a second time");
    Says::Silent.tell(&two.first);
    let again = two.cache(OutageGrace::None);
    let late = two.attach(&again);
    again.run_for(STEP);
    assert!(block.open(&late).is_err(), "{:?}", late.status());
    Says::Ok.tell(&two.first);
    again.run_for(STEP);
    assert_eq!(block.open(&late), Ok(()), "by the second version");
}

#[test]
fn a7_a_refusal_heard_by_a_rotation_bars_the_second() {
    let without_a_lease = |two: &Two, cache: &AekCache| {
        cache.run_for(STEP);
        Says::Silent.tell(&two.second);
        cache.run_for(secs(600));
    };
    let heard: [(&str, Step<Option<ErrorKind>>); 4] = [
        ("a rotation of the first KEK", &|two, _, account| {
            let latest = two.first.add_version(KEK);
            kind(account.rotate_kek(RotateTo::Version(latest)))
        }),
        ("a rotation of the second KEK", &|two, _, account| {
            two.second.add_version(KEK);
            kind(account.rotate_second_kek(RotateTo::Latest))
        }),
        ("an AEK rotation", &|_, _, account| kind(account.rotate_aek())),
        ("a policy, without a lease", &|two, cache, account| {
            Says::Silent.tell(&two.first);
            without_a_lease(two, cache);
            Says::Refused.tell(&two.first);
            let policy = kind(account.set_policy(RecordPolicy::default().with_max_grace(secs(60))));
            Says::Ok.tell(&two.second);
            policy
        }),
    ];
    for (what, hear) in heard {
        let two = Two::new(FAILOVER);
        let cache = two.cache(OutageGrace::None);
        let account = two.create(&cache);
        let block = Block::sealed_by(&account);
        Says::Silent.tell(&two.first);
        cache.run_for(STEP);
        assert_eq!(seen(&account), Some(Seen::Grace));
        Says::Refused.tell(&two.first);
        assert_eq!(hear(&two, &cache, &account), Some(ErrorKind::Revoked), "{what}");
        // Silent again before anything else has asked it.
        Says::Silent.tell(&two.first);
        let again = two.cache(OutageGrace::None);
        let late = two.attach(&again);
        again.run_for(STEP);
        assert!(block.open(&late).is_err(), "{what}: {:?}", late.status());
        cache.run_for(STEP);
        assert!(block.open(&account).is_err(), "{what}: {:?}", account.status());
        Says::Ok.tell(&two.first);
        cache.run_for(STEP);
        assert_eq!(block.open(&account), Ok(()), "{what}");
    }
}

#[test]
fn f6_a7_a_bar_does_not_take_the_place_of_the_change_that_followed() {
    let changes: [(&str, Step<()>); 5] = [
        ("a policy", &|_, _, account| {
            account.set_policy(RecordPolicy::default().with_max_grace(secs(60))).unwrap();
        }),
        ("a KEK rotation", &|two, _, account| {
            two.first.add_version(KEK);
            account.rotate_kek(RotateTo::Latest).unwrap();
        }),
        ("an AEK rotation", &|_, _, account| _ = account.rotate_aek().unwrap()),
        ("a deletion", &|_, _, account| _ = account.delete(Retention::DEFAULT).unwrap()),
        ("a purge", &|two, cache, account| {
            account.delete(Retention::days(1).unwrap()).unwrap();
            two.clock.advance(secs(24 * 3600));
            // What the attacker kept is of just before.
            cache.drive();
        }),
    ];
    for (what, change) in changes {
        let two = Two::new(FAILOVER);
        let anchor = Arc::new(StoredAnchor::new(Store::new()));
        let store = || -> Arc<dyn RecordStore> {
            Arc::new(AnchoredRecordStore::new(two.store.clone(), Arc::clone(&anchor) as _))
        };
        let cache = two.cache(OutageGrace::None);
        let spec = two.spec(Arc::new(two.first.clone()), Arc::new(two.second.clone())).store(store());
        let account = cache.create(spec).unwrap();
        let purges = what == "a purge";
        if purges {
            change(&two, &cache, &account);
        }
        // Anyone who holds a record can make the one that bars: here a process that is not told of the anchor does.
        let before = two.store.bytes(two.id).unwrap();
        Says::Refused.tell(&two.first);
        let other = two.cache(OutageGrace::None);
        let attached = other.attach_stored(two.store.clone(), two.expect()).unwrap();
        other.run_for(secs(1));
        assert_eq!(seen(&attached), Some(Seen::Revoked));
        let bar = two.store.bytes(two.id).unwrap();
        assert_ne!(bar, before);
        two.store.plant(two.id, &before);
        Says::Ok.tell(&two.first);

        if purges {
            account.purge().unwrap()
        } else {
            change(&two, &cache, &account)
        }
        let newest = anchor.least(two.id).unwrap().unwrap();
        two.store.plant(two.id, &bar);
        let restarted = two.cache(OutageGrace::None);
        let anchored = restarted.attach_stored(store(), two.expect());
        assert_eq!(kind(anchored), Some(ErrorKind::Untrusted), "{what}");
        let expect = two.expect().least_sequence(newest);
        assert_eq!(
            kind(restarted.attach_stored(two.store.clone(), expect)),
            Some(ErrorKind::Untrusted),
            "{what}"
        );
    }
}

#[test]
fn a7_the_second_is_not_asked_while_the_record_cannot_be_read() {
    let (two, cache, account, block) = standing_in(false);
    two.store.fail_all();
    cache.run_for(secs(72));
    assert_eq!(block.open(&account), Err(ErrorKind::Unavailable));
    two.second.clear_log();
    cache.run_for(secs(600));
    assert_eq!(two.second.log(), []);
    two.store.calm();
    cache.run_for(STEP);
    assert_eq!(block.open(&account), Ok(()));
}

#[test]
fn a7_one_failing_load_of_the_record_does_not_bring_the_second_in() {
    for panics in [false, true] {
        let two = Two::new(FAILOVER);
        let cache = two.cache(OutageGrace::None);
        let block = Block::sealed_by(&two.create(&cache));
        cache.drive();
        two.second.clear_log();
        // Nobody has heard of it yet, so the record does not say it.
        Says::Refused.tell(&two.first);
        let again = two.cache(OutageGrace::None);
        let attached = two.attach(&again);
        match panics {
            false => two.store.fail_nth(0, false),
            true => two.store.panic_nth_load(0),
        }
        for _ in 0..60 {
            again.run_for(secs(1));
            assert!(block.open(&attached).is_err(), "{:?}", attached.status());
        }
        assert!(again.stats().transient > 0, "a load has failed");
        assert_eq!(
            (two.second.log(), seen(&attached)),
            (Vec::new(), Some(Seen::Revoked)),
            "panics: {panics}"
        );
    }
}

#[test]
fn a7_a_record_store_that_panics_once_the_first_has_unwrapped_does_not_bring_the_second_in() {
    let two = Two::new(FAILOVER);
    let cache = two.cache(OutageGrace::None);
    let account = two.create(&cache);
    cache.drive();
    two.second.clear_log();
    two.store.panic_nth_authenticated(0);
    cache.run_for(secs(120));
    assert!(two.store.has_panicked_at_authenticated());
    assert_eq!((two.second.calls(Call::Unwrap), seen(&account)), (0, Some(Seen::Fresh)));
}

#[test]
fn a7_a_success_that_is_too_old_lifts_no_bar() {
    let two = Two::new(FAILOVER);
    let cache = two.cache(OutageGrace::None);
    let account = two.create(&cache);
    Says::Refused.tell(&two.first);
    cache.run_for(STEP);
    assert_eq!(seen(&account), Some(Seen::Revoked));
    let barred = two.store.bytes(two.id).unwrap();
    two.first.every_call(&Answer::Delay(secs(1)));
    two.first.clear_log();
    while two.first.calls(Call::Unwrap) == 0 {
        cache.run_for(Duration::from_millis(100));
    }
    // A pause between call and answer that the wall clock alone has seen, so that the call is not given up first.
    two.clock.jump_wall_forward(secs(3600));
    Says::Refused.tell(&two.first);
    cache.run_for(secs(2));
    assert_eq!(seen(&account), Some(Seen::Revoked));
    assert!(two.store.bytes(two.id).unwrap() == barred, "the bar was lifted");
    // One that is not too old does.
    Says::Ok.tell(&two.first);
    cache.run_for(STEP);
    assert_eq!(seen(&account), Some(Seen::Fresh));
    assert!(two.store.bytes(two.id).unwrap() != barred);
}

/// What the newest record says of a refusal by the second one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compared {
    Rewrapped,
    Confirmed,
    TooLate,
}

#[test]
fn a7_d12_a_refusal_by_the_second_is_compared_before_it_counts() {
    for compared in [Compared::Rewrapped, Compared::Confirmed, Compared::TooLate] {
        let two = Two::new(FAILOVER);
        let (cache, again) = (two.cache(OutageGrace::None), two.cache(OutageGrace::None));
        let elsewhere = two.create(&cache);
        let block = Block::sealed_by(&elsewhere);
        let meddler = Meddler::new(two.second.clone());
        let expect = Expect::account(two.id).kek(Arc::new(two.first.clone()), KEK);
        let account =
            again.attach_stored(two.store.clone(), expect.failover_kek(meddler.clone(), KEK)).unwrap();
        again.run_for(secs(1));
        Says::Silent.tell(&two.first);
        for _ in 0..60 {
            cache.run_for(NANO);
            again.run_for(secs(1));
        }
        assert_eq!(seen(&account), Some(Seen::Grace));
        // The record is read, and the second one about to be asked; now another machine re-wraps, and the old version goes.
        two.second.every_call(&Answer::Delay(Duration::from_millis(600)));
        let old = elsewhere.record().second_kek_version().unwrap().clone();
        let (next, first, second) = (meddler.clone(), two.first.clone(), two.second.clone());
        meddler.at_next(Call::Unwrap, move || {
            if compared != Compared::Confirmed {
                second.add_version(KEK);
                Says::Ok.tell(&first);
                elsewhere.rotate_second_kek(RotateTo::Latest).unwrap();
                Says::Silent.tell(&first);
            }
            second.set_version_enabled(KEK, &old, false);
            if compared == Compared::TooLate {
                next.at_next(Call::Unwrap, move || second.every_call(&Answer::Hang));
            }
        });
        let mut met = vec![account.status()];
        for _ in 0..450 {
            again.run_for(Duration::from_millis(100));
            let status = account.status();
            if std::mem::discriminant(&status) != std::mem::discriminant(met.last().unwrap()) {
                assert!(!matches!(status, Status::NotReady) || block.open(&account).is_err());
                met.push(status);
            }
        }
        let [Status::Grace { .. }, Status::NotReady, last] = met[..] else { panic!("{compared:?}: {met:?}") };
        match compared {
            Compared::Rewrapped => assert!(matches!(last, Status::Grace { .. }), "{last:?}"),
            _ => assert_eq!(last, Status::Revoked(Refusal::KeyDisabled), "{compared:?}"),
        }
    }
}
