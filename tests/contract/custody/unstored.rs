//! A custody whose record nobody but the process keeps: what is written in the background replaces no change. A7 with E4.

use strongroom::{Generation, NothingRefersToIt, RecordPolicy};

use super::*;

/// An account whose record nobody but the process keeps.
fn without_a_store(two: &Two, cache: &AekCache) -> Account {
    created(two, cache, Arc::new(two.first.clone()))
}

fn created(two: &Two, cache: &AekCache, first: Arc<dyn KeyProvider>) -> Account {
    let spec = AccountSpec::new(two.id, first, Kek::latest(KEK));
    cache.create(spec.failover(Arc::new(two.second.clone()), Kek::latest(KEK), secs(900))).unwrap()
}

/// Runs until the next refresh is under way.
fn until_asked(two: &Two, cache: &AekCache) {
    let calls = two.first.calls(Call::Unwrap);
    while two.first.calls(Call::Unwrap) == calls {
        cache.run_for(Duration::from_millis(100));
    }
}

#[test]
fn a7_a_renewal_without_a_store_undoes_no_change() {
    let two = Two::new(Custody::Failover(secs(900)));
    let cache = two.cache(OutageGrace::For(secs(1800)));
    let account = without_a_store(&two, &cache);
    let block = Block::sealed_by(&account);
    two.first.every_call(&Answer::Delay(secs(1)));
    for terms in 1..=80 {
        until_asked(&two, &cache);
        let policy = RecordPolicy::default().with_max_grace(secs(terms));
        account.set_policy(policy).unwrap();
        cache.run_for(secs(2));
        assert_eq!(account.record().policy().max_grace(), Some(secs(terms)));
    }
    // One that nothing comes between says that the first one answers, ten minutes after the account was made.
    cache.run_for(secs(60));
    let (record, id) = (account.record(), two.id);
    Says::Silent.tell(&two.first);
    let again = two.cache(OutageGrace::None);
    let expect = Expect::account(id).kek(Arc::new(two.first.clone()), KEK);
    let attached = again.attach(record, expect.failover_kek(Arc::new(two.second.clone()), KEK)).unwrap();
    again.run_for(secs(500));
    assert_eq!(block.open(&attached), Ok(()));
}

#[test]
fn a7_a_bar_without_a_store_undoes_no_change() {
    let two = Two::new(FAILOVER);
    let cache = two.cache(OutageGrace::None);
    let first = Meddler::new(two.first.clone());
    let account = created(&two, &cache, first.clone());
    let block = Block::sealed_by(&account);
    Says::Refused.tell(&two.first);
    let changed = account.clone();
    first.at_next(Call::Unwrap, move || {
        changed.set_policy(RecordPolicy::default().with_max_grace(secs(60))).unwrap();
    });
    while block.open(&account).is_ok() {
        cache.run_for(secs(1));
    }
    assert_eq!(seen(&account), Some(Seen::Revoked));
    let record = account.record();
    assert_eq!(record.policy().max_grace(), Some(secs(60)));
    Says::Silent.tell(&two.first);
    let again = two.cache(OutageGrace::None);
    let late = again.attach(record, two.expect()).unwrap();
    again.run_for(STEP);
    assert!(block.open(&late).is_err(), "the refusal is in the record that is in force: {:?}", late.status());
}

#[test]
fn a7_e4_a_bar_without_a_store_leaves_an_account_that_comes_back() {
    let two = Two::new(FAILOVER);
    let cache = two.cache(OutageGrace::None);
    let account = without_a_store(&two, &cache);
    let expected = two.expect().fingerprint(account.record().fingerprint());
    let record = account.record();
    drop(account);
    cache.drive();
    // What is expected names an AEK that is gone by and by.
    let account = cache.attach(record, expected).unwrap();
    cache.run_for(secs(1));
    account.rotate_aek().unwrap();
    cache.run_for(secs(132 + 72));
    let block = Block::sealed_by(&account);
    let first = Generation::new(1).unwrap();
    account.destroy_generation(first, NothingRefersToIt::as_the_engine_states()).unwrap();
    Says::Refused.tell(&two.first);
    cache.run_for(STEP);
    assert_eq!(seen(&account), Some(Seen::Revoked));
    Says::Ok.tell(&two.first);
    cache.run_for(STEP);
    assert_eq!((seen(&account), block.open(&account)), (Some(Seen::Fresh), Ok(())));
}
