//! What both KMSs of a joint custody say in one attempt, and which of it counts: A7 with D3, D8.

use strongroom::RestoreSpec;
use strongroom::provider::KekVersion;

use super::*;

const GRACE: OutageGrace = OutageGrace::For(secs(1800));

impl Two {
    /// The one that a test is about, and the other one.
    fn joint(&self, first: bool) -> (&ScriptedProvider, &ScriptedProvider) {
        if first { (&self.first, &self.second) } else { (&self.second, &self.first) }
    }
}

/// Runs until `kms` was asked once more, and that attempt has ended.
fn one_more_attempt(cache: &AekCache, kms: &ScriptedProvider) {
    let before = kms.calls(Call::Unwrap);
    for _ in 0..120 {
        cache.run_for(secs(1));
        if kms.calls(Call::Unwrap) > before {
            assert_eq!(kms.calls(Call::Unwrap), before + 1);
            return;
        }
    }
    panic!("nobody was asked");
}

#[test]
fn a7_d3_a_refusal_beside_whatever_else_revokes_with_that_attempt_whichever_is_asked_first() {
    for beside in [Answer::Transient, Answer::Integrity] {
        for (first_refuses, leased) in [(true, true), (false, true), (true, false), (false, false)] {
            // Each is asked first in its turn, so an attempt more or less before it turns them round.
            let asked: Vec<usize> =
                (0..4).map(|attempts| one_refuses(first_refuses, &beside, leased, attempts)).collect();
            // The other one came first, or was not waited for: either, in turns.
            let in_turns = matches!(asked[..], [0, 1, 0, 1] | [1, 0, 1, 0]);
            // After silence each share is asked for alone too, so whose turn it is, is anyone's guess.
            assert!(in_turns || (!leased && asked.iter().all(|calls| *calls < 2)), "{asked:?}");
        }
    }
}

/// One KMS refuses while the other one says `beside`, to a process that has a lease or to one that never had. Returns how often the other
/// one was asked in that attempt.
fn one_refuses(first_refuses: bool, beside: &Answer, leased: bool, attempts_before: usize) -> usize {
    let two = Two::new(Custody::Joint);
    let cache = two.cache(GRACE);
    let account = two.create(&cache);
    let block = Block::sealed_by(&account);
    let (refusing, other) = two.joint(first_refuses);
    let (cache, account) = if leased {
        (cache, account)
    } else {
        Says::Silent.tell(&two.first);
        Says::Silent.tell(&two.second);
        let again = two.cache(GRACE);
        let attached = two.attach(&again);
        (again, attached)
    };
    for _ in 0..attempts_before {
        one_more_attempt(&cache, refusing);
    }
    assert_eq!(block.open(&account).is_ok(), leased);
    other.clear_log();
    other.every_call(beside);
    Says::Refused.tell(refusing);
    one_more_attempt(&cache, refusing);
    let what = format!("{first_refuses} {beside:?} {leased} {attempts_before}");
    assert_eq!(account.status(), Status::Revoked(Refusal::KeyDisabled), "{what}");
    assert_eq!(block.open(&account), Err(ErrorKind::Revoked), "{what}");
    other.calls(Call::Unwrap)
}

#[test]
fn a7_c5_a_wrong_answer_beside_a_silence_earns_no_grace() {
    for first_is_wrong in [true, false] {
        let two = Two::new(Custody::Joint);
        let cache = two.cache(GRACE);
        let account = two.create(&cache);
        let block = Block::sealed_by(&account);
        let (wrong, silent) = two.joint(first_is_wrong);
        Says::Silent.tell(silent);
        wrong.every_call(&Answer::Integrity);
        cache.run_for(STEP);
        assert_eq!(account.status(), Status::Unavailable(UnavailableCause::Integrity), "{first_is_wrong}");
        assert_eq!(block.open(&account), Err(ErrorKind::Unavailable));
        // Silence alone earns it.
        let two = Two::new(Custody::Joint);
        let cache = two.cache(GRACE);
        let account = two.create(&cache);
        Says::Silent.tell(two.joint(first_is_wrong).1);
        cache.run_for(STEP);
        assert_eq!(seen(&account), Some(Seen::Grace));
    }
}

#[test]
fn a7_d8_whoever_asks_for_something_is_told_of_the_refusal_and_not_of_the_silence_beside_it() {
    for first_refuses in [true, false] {
        let two = Two::new(Custody::Joint);
        let cache = two.cache(GRACE);
        let account = two.create(&cache);
        let (refusing, silent) = two.joint(first_refuses);
        Says::Silent.tell(silent);
        Says::Refused.tell(refusing);
        // Twice, because each KMS is asked first in its turn.
        for _ in 0..2 {
            assert_eq!(kind(account.rotate_aek()), Some(ErrorKind::Revoked));
            let spec = RestoreSpec::new(two.store.clone(), account.record(), two.expect());
            assert_eq!(kind(cache.restore(spec)), Some(ErrorKind::Revoked));
            account.lock();
            assert_eq!(kind(account.unlock()), Some(ErrorKind::Revoked));
            cache.run_for(secs(30));
        }
        assert_eq!(account.status(), Status::Locked);
        Says::Ok.tell(silent);
        Says::Ok.tell(refusing);
        account.unlock().unwrap();
        assert_eq!(seen(&account), Some(Seen::Fresh));
    }
}

#[test]
fn a7_e2_a_refusal_of_the_wrap_in_use_outweighs_the_silence_of_its_standby() {
    for custody in [FAILOVER, Custody::Joint] {
        let two = Two::new(custody);
        let cache = two.cache(OutageGrace::None);
        let one = KekVersion::new("1").unwrap();
        let pinned = || Kek::pinned(KEK, one.clone());
        let (first, second) = (Arc::new(two.first.clone()), Arc::new(two.second.clone()));
        let spec = AccountSpec::new(two.id, first, pinned()).store(two.store.clone());
        let account = cache
            .create(match custody {
                Custody::Failover(limit) => spec.failover(second, pinned(), limit),
                Custody::Joint => spec.joint_with(second, pinned()),
            })
            .unwrap();
        two.first.add_version(KEK);
        cache.run_for(secs(700));
        assert!(account.record().standby_version().is_some());
        two.first.always(Call::Unwrap, Answer::Transient);
        two.first.next(Call::Unwrap, [REFUSED]);
        assert_eq!(kind(account.rotate_kek(RotateTo::Latest)), Some(ErrorKind::Revoked), "{custody:?}");
        if custody == FAILOVER {
            // And it is recorded: elsewhere nobody stands in.
            Says::Silent.tell(&two.first);
            let elsewhere = two.cache(OutageGrace::None);
            let attached = two.attach(&elsewhere);
            elsewhere.run_for(STEP);
            assert!(attached.permit().is_err());
        }
    }
}
