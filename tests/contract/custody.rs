//! Two providers for one AEK, of which one stands in for the other, or both are needed: A7.

use std::sync::Arc;
use std::time::Duration;

use strongroom::provider::{Authority, Kek, KeyProvider};
use strongroom::testing::{Answer, Call, ManualClock, ScriptedProvider};
use strongroom::{
    Account, AccountId, AccountRecord, AccountSpec, AekCache, Directory, ErrorKind, Expect, OutageGrace,
    Refusal, Retire, RotateTo, Status, UnavailableCause,
};

use crate::common::{Block, KEK, Meddler, NANO, Store, kind, secs};

mod bounds;
mod directory;
mod double;
mod gravest;
mod lifecycle;
mod neighbours;
mod shares;
mod unstored;

/// Longer than it takes to learn what has changed, from whatever state, at r = 30 s.
const STEP: Duration = secs(120);
const REFUSED: Answer = Answer::Refused(Refusal::KeyDisabled);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Custody {
    Failover(Duration),
    Joint,
}

const FAILOVER: Custody = Custody::Failover(AccountSpec::FAILOVER_LIMIT);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Ok,
    Silent,
    Refused,
}

const ALL: [Says; 3] = [Says::Ok, Says::Silent, Says::Refused];

impl Says {
    fn tell(self, kms: &ScriptedProvider) {
        kms.every_call(&match self {
            Self::Ok => Answer::Ok,
            Self::Silent => Answer::Transient,
            Self::Refused => REFUSED,
        });
    }
}

/// What users see, without the times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Fresh,
    Grace,
    Unavailable,
    Revoked,
}

fn seen(account: &Account) -> Option<Seen> {
    match account.status() {
        Status::Fresh { .. } => Some(Seen::Fresh),
        Status::Grace { .. } => Some(Seen::Grace),
        Status::Unavailable(UnavailableCause::Silent) => Some(Seen::Unavailable),
        Status::Revoked(_) => Some(Seen::Revoked),
        _ => None,
    }
}

/// Two KMSs, a store, and a cache on virtual time.
struct Two {
    clock: ManualClock,
    first: ScriptedProvider,
    second: ScriptedProvider,
    /// Of double encryption, a third one: it holds the second AEK.
    outer: Option<ScriptedProvider>,
    store: Arc<Store>,
    custody: Custody,
    id: AccountId,
}

impl Two {
    fn new(custody: Custody) -> Self {
        let clock = ManualClock::new();
        let kms = |name: &str| {
            ScriptedProvider::on_virtual_time()
                .with_clock(&clock)
                .with_authority(Authority::new("scripted", name))
        };
        let (first, second) = (kms("first"), kms("second"));
        let store = Store::new();
        Self { clock, first, second, outer: None, store, custody, id: AccountId::random() }
    }

    /// The same under double encryption.
    fn doubled(custody: Custody) -> Self {
        let two = Self::new(custody);
        let outer = ScriptedProvider::on_virtual_time().with_clock(&two.clock);
        Self { outer: Some(outer.with_authority(Authority::new("scripted", "outer"))), ..two }
    }

    /// A cache as on another machine, or after a restart.
    fn cache(&self, grace: OutageGrace) -> AekCache {
        AekCache::builder().refresh_every(secs(30)).outage_grace(grace).manual(&self.clock).build().unwrap()
    }

    fn spec(&self, first: Arc<dyn KeyProvider>, second: Arc<dyn KeyProvider>) -> AccountSpec {
        let spec = AccountSpec::new(self.id, first, Kek::latest(KEK)).store(self.store.clone());
        let spec = match self.custody {
            Custody::Failover(limit) => spec.failover(second, Kek::latest(KEK), limit),
            Custody::Joint => spec.joint_with(second, Kek::latest(KEK)),
        };
        match &self.outer {
            Some(outer) => spec.double_encryption(Arc::new(outer.clone()), Kek::latest(KEK)),
            None => spec,
        }
    }

    fn create(&self, cache: &AekCache) -> Account {
        cache.create(self.spec(Arc::new(self.first.clone()), Arc::new(self.second.clone()))).unwrap()
    }

    fn expect(&self) -> Expect {
        let expect = Expect::account(self.id).kek(Arc::new(self.first.clone()), KEK);
        let expect = match self.custody {
            Custody::Failover(_) => expect.failover_kek(Arc::new(self.second.clone()), KEK),
            Custody::Joint => expect.joint_kek(Arc::new(self.second.clone()), KEK),
        };
        match &self.outer {
            Some(outer) => expect.outer_kek(Arc::new(outer.clone()), KEK),
            None => expect,
        }
    }

    /// Every KMS that has to answer while all is well.
    fn needed(&self) -> Vec<&ScriptedProvider> {
        let second = matches!(self.custody, Custody::Joint).then_some(&self.second);
        std::iter::once(&self.first).chain(second).chain(&self.outer).collect()
    }

    fn attach(&self, cache: &AekCache) -> Account {
        cache.attach_stored(self.store.clone(), self.expect()).unwrap()
    }
}

/// The model: what is seen at the end of a step, and whether the second provider is barred.
fn failover(before: (Seen, bool), first: Says, second: Says) -> (Seen, bool) {
    match (first, second, before) {
        (Says::Ok, _, _) => (Seen::Fresh, false),
        (Says::Refused, _, _) => (Seen::Revoked, true),
        (Says::Silent, _, (seen, true)) => (seen, true),
        (Says::Silent, Says::Ok, _) => (Seen::Grace, false),
        (Says::Silent, Says::Refused, _) => (Seen::Revoked, false),
        (Says::Silent, Says::Silent, (Seen::Revoked, _)) => (Seen::Revoked, false),
        (Says::Silent, Says::Silent, _) => (Seen::Unavailable, false),
    }
}

fn joint(before: Seen, first: Says, second: Says) -> Seen {
    match (first, second, before) {
        (Says::Refused, _, _) | (_, Says::Refused, _) => Seen::Revoked,
        (Says::Ok, Says::Ok, _) => Seen::Fresh,
        (_, _, Seen::Revoked) => Seen::Revoked,
        _ => Seen::Unavailable,
    }
}

fn every_sequence(mut play: impl FnMut([(Says, Says); 3])) {
    let pairs: Vec<_> = ALL.into_iter().flat_map(|first| ALL.map(|second| (first, second))).collect();
    for a in &pairs {
        for b in &pairs {
            for c in &pairs {
                play([*a, *b, *c]);
            }
        }
    }
}

#[test]
fn a7_failover_every_sequence_of_answers_of_both() {
    every_sequence(|steps| {
        let two = Two::new(FAILOVER);
        let cache = two.cache(OutageGrace::None);
        let account = two.create(&cache);
        let block = Block::sealed_by(&account);
        let mut model = (Seen::Fresh, false);
        for (first, second) in steps {
            first.tell(&two.first);
            second.tell(&two.second);
            two.first.clear_log();
            two.second.clear_log();
            cache.run_for(STEP);
            model = failover(model, first, second);
            assert_eq!(seen(&account), Some(model.0), "{steps:?} at {:?}", (first, second));
            assert_eq!(block.open(&account).is_ok(), matches!(model.0, Seen::Fresh | Seen::Grace));
            if first != Says::Silent {
                let learned = two.first.log().iter().find(|call| call.call == Call::Unwrap).unwrap().started;
                let after =
                    two.second.log().into_iter().find(|c| c.call == Call::Unwrap && c.started > learned);
                assert_eq!(after, None, "{steps:?}: the second is asked while the first answers");
            }
        }
        // A restart in an outage of the first: what was refused is not forgotten.
        let again = two.cache(OutageGrace::None);
        let attached = two.attach(&again);
        Says::Silent.tell(&two.first);
        Says::Ok.tell(&two.second);
        again.run_for(STEP);
        assert_eq!(block.open(&attached).is_ok(), !model.1, "{steps:?}");
        assert_ne!(seen(&attached), Some(Seen::Fresh));
        // Whatever was before, an answer of the first one brings it back, with no help.
        Says::Ok.tell(&two.first);
        again.run_for(STEP);
        assert_eq!((seen(&attached), block.open(&attached)), (Some(Seen::Fresh), Ok(())), "{steps:?}");
    });
}

#[test]
fn a7_joint_every_sequence_of_answers_of_both() {
    every_sequence(|steps| {
        let two = Two::new(Custody::Joint);
        let cache = two.cache(OutageGrace::None);
        let account = two.create(&cache);
        let block = Block::sealed_by(&account);
        let mut model = Seen::Fresh;
        for (first, second) in steps {
            first.tell(&two.first);
            second.tell(&two.second);
            cache.run_for(STEP);
            model = joint(model, first, second);
            assert_eq!(seen(&account), Some(model), "{steps:?} at {:?}", (first, second));
            assert_eq!(block.open(&account).is_ok(), model == Seen::Fresh);
        }
        // A restart: each of them is needed, and both bring it back.
        let again = two.cache(OutageGrace::None);
        let attached = two.attach(&again);
        for (first, second, usable) in
            [(Says::Ok, Says::Silent, false), (Says::Silent, Says::Ok, false), (Says::Ok, Says::Ok, true)]
        {
            first.tell(&two.first);
            second.tell(&two.second);
            again.run_for(STEP);
            assert_eq!(block.open(&attached).is_ok(), usable, "{steps:?} at {:?}", (first, second));
        }
    });
}

#[test]
fn a7_the_second_stands_in_until_the_limit_since_the_first_has_answered() {
    for restarted in [false, true] {
        let two = Two::new(Custody::Failover(secs(900)));
        let cache = two.cache(OutageGrace::None);
        let account = two.create(&cache);
        let block = Block::sealed_by(&account);
        Says::Silent.tell(&two.first);
        cache.run_for(secs(300));
        assert_eq!(seen(&account), Some(Seen::Grace));
        let (cache, account) = if restarted {
            let again = two.cache(OutageGrace::None);
            let attached = two.attach(&again);
            (again, attached)
        } else {
            (cache, account)
        };
        cache.run_for(secs(598));
        assert_eq!(block.open(&account), Ok(()), "{restarted}");
        cache.run_for(secs(2));
        assert_eq!(block.open(&account), Err(ErrorKind::Unavailable), "{restarted}");
        two.second.clear_log();
        cache.run_for(secs(600));
        assert_eq!(block.open(&account), Err(ErrorKind::Unavailable), "{restarted}");
        assert_eq!(two.second.log(), [], "past the limit it is not asked");
        Says::Ok.tell(&two.first);
        cache.run_for(STEP);
        assert_eq!(seen(&account), Some(Seen::Fresh));
    }
}

#[test]
fn a7_the_record_says_when_the_first_has_answered_several_times_within_the_limit() {
    let two = Two::new(Custody::Failover(secs(900)));
    let cache = two.cache(OutageGrace::None);
    let account = two.create(&cache);
    let block = Block::sealed_by(&account);
    cache.run_for(secs(3600));
    Says::Silent.tell(&two.first);
    let again = two.cache(OutageGrace::None);
    let attached = two.attach(&again);
    again.run_for(secs(600));
    assert_eq!(block.open(&attached), Ok(()));
    // Each leaves out the sequence of the refusal that it was made instead of.
    let changes = account.record().sequence().number() / 2;
    assert!((12..=20).contains(&changes), "{changes}");
}

#[test]
fn a7_a_first_provider_whose_calls_hang_does_not_keep_the_second_from_standing_in() {
    let two = Two::new(FAILOVER);
    let cache = two.cache(OutageGrace::None);
    let account = two.create(&cache);
    let block = Block::sealed_by(&account);
    two.first.every_call(&Answer::Hang);
    for _ in 0..360 {
        cache.run_for(secs(10));
        assert_eq!(block.open(&account), Ok(()), "{:?}", account.status());
    }
    assert_eq!(seen(&account), Some(Seen::Grace));
}

#[test]
fn a7_a_refusal_is_recorded_by_whoever_hears_it_also_without_a_key() {
    let two = Two::new(FAILOVER);
    let cache = two.cache(OutageGrace::None);
    let account = two.create(&cache);
    let block = Block::sealed_by(&account);
    drop(account);
    cache.drive();
    // A process that has just started: it never has a key.
    two.second.clear_log();
    Says::Refused.tell(&two.first);
    let other = two.cache(OutageGrace::None);
    let attached = two.attach(&other);
    other.run_for(secs(1));
    assert_eq!(seen(&attached), Some(Seen::Revoked));
    assert_eq!(two.second.calls(Call::Unwrap), 0);
    // Another one, which the first one does not answer.
    Says::Silent.tell(&two.first);
    let third = two.cache(OutageGrace::For(secs(3600)));
    let late = two.attach(&third);
    third.run_for(secs(3600));
    assert!(block.open(&late).is_err(), "{:?}", late.status());
    Says::Ok.tell(&two.first);
    third.run_for(STEP);
    assert_eq!(seen(&late), Some(Seen::Fresh));
    // That has cleared it, for everyone.
    Says::Silent.tell(&two.first);
    let fourth = two.cache(OutageGrace::None);
    let last = two.attach(&fourth);
    fourth.run_for(STEP);
    assert_eq!(block.open(&last), Ok(()));
}

#[test]
fn a7_a_recorded_refusal_cannot_be_taken_out_of_the_record() {
    let two = Two::new(FAILOVER);
    let cache = two.cache(OutageGrace::None);
    let account = two.create(&cache);
    let open = two.store.bytes(two.id).unwrap();
    Says::Refused.tell(&two.first);
    cache.run_for(STEP);
    assert_eq!(seen(&account), Some(Seen::Revoked));
    Says::Silent.tell(&two.first);
    let barred = two.store.bytes(two.id).unwrap();
    assert_ne!(open, barred);
    let never_usable = |bytes: &[u8], expect: Expect, what: &str| {
        two.store.plant(two.id, bytes);
        let cache = two.cache(OutageGrace::None);
        let Ok(account) = cache.attach_stored(two.store.clone(), expect) else { return };
        cache.run_for(secs(10));
        assert!(account.permit().is_err(), "{what}");
    };
    for at in 0..barred.len() {
        let mut forged = barred.clone();
        forged[at] ^= 1;
        never_usable(&forged, two.expect(), &format!("byte {at}"));
    }
    // The MAC that records the refusal is one of that content alone: the old record with a higher sequence is none.
    let mut forged = open.clone();
    forged[25 + 7] += 1;
    never_usable(&forged, two.expect(), "a later sequence");
    // Put back as it was, it is an older one; that is what a least sequence is for.
    let least = AccountRecord::parse(&barred).unwrap().sequence();
    never_usable(&open, two.expect().least_sequence(least), "rolled back");
}

#[test]
fn a7_a8_a_record_of_another_custody_or_second_kek_is_not_admitted() {
    let elsewhere =
        ScriptedProvider::on_virtual_time().with_authority(Authority::new("scripted", "elsewhere"));
    for custody in [FAILOVER, Custody::Joint] {
        let two = Two::new(custody);
        let cache = two.cache(OutageGrace::None);
        let record = two.create(&cache).record();
        cache.drive();
        let first = Expect::account(two.id).kek(Arc::new(two.first.clone()), KEK);
        let kms = |kms: &ScriptedProvider| -> Arc<dyn KeyProvider> { Arc::new(kms.clone()) };
        let (a, b) = (kms(&two.second), kms(&elsewhere));
        let wrong = [
            first.clone(),
            if custody == Custody::Joint {
                first.clone().failover_kek(a, KEK)
            } else {
                first.clone().joint_kek(a, KEK)
            },
            if custody == Custody::Joint {
                first.clone().joint_kek(b, KEK)
            } else {
                first.clone().failover_kek(b, KEK)
            },
            Expect::account(two.id).kek(kms(&two.second), KEK).joint_kek(kms(&two.first), KEK),
            Expect::account(two.id).kek(kms(&two.second), KEK).failover_kek(kms(&two.first), KEK),
        ];
        for expect in wrong {
            assert_eq!(kind(cache.attach(record.clone(), expect)), Some(ErrorKind::Untrusted));
        }
        // And one KEK alone is not what two were expected of.
        let alone =
            cache.create(AccountSpec::new(AccountId::random(), kms(&two.first), Kek::latest(KEK))).unwrap();
        let (alone, id) = (alone.record(), alone.id());
        cache.drive();
        let expect = Expect::account(id).kek(kms(&two.first), KEK);
        for expect in
            [expect.clone().failover_kek(kms(&two.second), KEK), expect.joint_kek(kms(&two.second), KEK)]
        {
            assert_eq!(kind(cache.attach(alone.clone(), expect)), Some(ErrorKind::Untrusted));
        }
    }
}

#[test]
fn a7_e1_each_kek_is_rotated_by_itself() {
    for custody in [FAILOVER, Custody::Joint] {
        let two = Two::new(custody);
        let cache = two.cache(OutageGrace::None);
        let account = two.create(&cache);
        let block = Block::sealed_by(&account);
        let old =
            (account.record().kek_version().clone(), account.record().second_kek_version().unwrap().clone());
        let new = (two.first.add_version(KEK), two.second.add_version(KEK));
        assert!(matches!(account.rotate_second_kek(RotateTo::Latest).unwrap(), Retire::SafeAfter(_)));
        assert_eq!(account.record().kek_version(), &old.0);
        assert_eq!(account.record().second_kek_version(), Some(&new.1));
        assert!(matches!(account.rotate_kek(RotateTo::Latest).unwrap(), Retire::SafeAfter(_)));
        assert_eq!(account.record().kek_version(), &new.0);
        assert_eq!(account.rotate_second_kek(RotateTo::Latest).unwrap(), Retire::AlreadyCurrent);
        two.first.set_version_enabled(KEK, &old.0, false);
        two.second.set_version_enabled(KEK, &old.1, false);
        cache.run_for(STEP);
        assert_eq!(seen(&account), Some(Seen::Fresh));
        if custody == FAILOVER {
            Says::Silent.tell(&two.first);
            cache.run_for(STEP);
            assert_eq!(seen(&account), Some(Seen::Grace));
        }
        assert_eq!(block.open(&account), Ok(()));
    }
}

#[test]
fn a7_fail_the_nth_call_of_either_kms_at_creation() {
    for custody in [FAILOVER, Custody::Joint] {
        for which in [0, 1] {
            for (n, after) in (0..40).flat_map(|n| [(n, false), (n, true)]) {
                let two = Two::new(custody);
                let cache = two.cache(OutageGrace::None);
                let (first, second) = (Meddler::new(two.first.clone()), Meddler::new(two.second.clone()));
                let failing = [&first, &second][which];
                failing.fail_nth(n, after);
                let created = cache.create(two.spec(first.clone(), second.clone()));
                if failing.calm() {
                    created.unwrap();
                    assert!(n >= 4, "its preflight, a wrap and an unwrap at least");
                    break;
                }
                // Nothing was persisted, and it can be created now.
                assert_eq!(two.store.bytes(two.id), None, "{custody:?} {which} {n} {after}");
                created.unwrap_err();
                Block::sealed_by(&two.create(&cache));
            }
        }
    }
}

#[test]
fn a7_a_lock_is_opened_by_the_first_provider_only() {
    let two = Two::new(FAILOVER);
    let cache = two.cache(OutageGrace::None);
    let account = two.create(&cache);
    Says::Silent.tell(&two.first);
    cache.run_for(STEP);
    assert_eq!(seen(&account), Some(Seen::Grace));
    account.lock();
    assert!(account.unlock().is_err());
    cache.run_for(STEP);
    assert_eq!(account.status(), Status::Locked);
    Says::Ok.tell(&two.first);
    account.unlock().unwrap();
    cache.run_for(NANO);
    assert_eq!(seen(&account), Some(Seen::Fresh));
}

#[test]
fn a7_a_lock_in_the_middle_of_a_stand_in_stands() {
    let two = Two::new(FAILOVER);
    let cache = two.cache(OutageGrace::None);
    let account = two.create(&cache);
    Says::Silent.tell(&two.first);
    two.second.every_call(&Answer::Delay(secs(1)));
    cache.run_for(STEP);
    assert_eq!(seen(&account), Some(Seen::Grace));
    let calls = two.second.calls(Call::Unwrap);
    while two.second.calls(Call::Unwrap) == calls {
        cache.run_for(Duration::from_millis(100));
    }
    account.lock();
    cache.run_for(STEP);
    assert_eq!(account.status(), Status::Locked);
}
