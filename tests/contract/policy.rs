//! The customer's terms, changed in the record: C5.

use std::sync::Arc;

use strongroom::testing::{Answer, ManualClock, ScriptedProvider};
use strongroom::{
    Account, ErrorKind, GenerationLimits, OutageGrace, RecordPolicy, RecordStore, Status, UnavailableCause,
    VersionPolicy,
};

use crate::common::{Block, NANO, Store, World, kind, secs};

const GRACE: std::time::Duration = secs(300);
const SILENT: Status = Status::Unavailable(UnavailableCause::Silent);

fn in_grace(world: &World, account: &Account) -> bool {
    world.kms.every_call(&Answer::Transient);
    world.run(world.cache.fresh_for() + secs(100));
    matches!(account.status(), Status::Grace { .. })
}

#[test]
fn c5_grace_that_is_made_shorter_in_an_outage_bites_at_once() {
    let world = World::new(6, OutageGrace::For(GRACE));
    let account = world.create();
    let block = Block::sealed_by(&account);
    assert!(in_grace(&world, &account));
    let calls = world.kms.log().len();
    account.set_policy(RecordPolicy::default().with_max_grace(secs(120))).unwrap();
    assert_eq!(world.kms.log().len(), calls, "the KMS was not asked");
    assert_eq!(block.open(&account), Ok(()), "20 s are left");
    world.run(secs(20) - NANO);
    assert_eq!(block.open(&account), Ok(()));
    world.run(NANO);
    assert_eq!((block.open(&account), account.status()), (Err(ErrorKind::Unavailable), SILENT));
}

#[test]
fn c5_a_lease_that_has_outlived_the_new_grace_ends_before_the_call_returns() {
    let world = World::new(6, OutageGrace::For(GRACE));
    let account = world.create();
    let (block, epoch) = (Block::sealed_by(&account), account.epoch());
    assert!(in_grace(&world, &account));
    account.set_policy(RecordPolicy::default().with_max_grace(secs(10))).unwrap();
    assert_eq!((block.open(&account), account.status()), (Err(ErrorKind::Unavailable), SILENT));
    assert!(account.epoch() > epoch);
    world.kms.every_call(&Answer::Ok);
    world.run(secs(12));
    assert_eq!(block.open(&account), Ok(()));
    world.kms.every_call(&Answer::Transient);
    world.run(world.cache.fresh_for() + secs(10));
    assert_eq!(account.status(), SILENT, "and stays the rule");
}

#[test]
fn c5_other_machines_follow_at_their_next_attempt_also_in_an_outage() {
    let clock = ManualClock::new();
    let kms = ScriptedProvider::on_virtual_time().with_clock(&clock);
    let machine = || World::beside(&clock, kms.clone(), secs(6), OutageGrace::For(GRACE));
    let (here, there, store) = (machine(), machine(), Store::new());
    let records: Arc<dyn RecordStore> = store.clone();
    let account = here.cache.create(here.spec().store(Arc::clone(&records))).unwrap();
    let other = there.cache.attach_stored(records, there.expect(account.id())).unwrap();
    let pass = |seconds: u64| {
        for _ in 0..seconds * 4 {
            clock.advance(std::time::Duration::from_millis(250));
            here.cache.drive();
            there.cache.drive();
        }
    };
    pass(1);
    here.kms.every_call(&Answer::Transient);
    pass(100);
    assert!(matches!(other.status(), Status::Grace { .. }));
    account.set_policy(RecordPolicy::default().with_max_grace(secs(30))).unwrap();
    assert_eq!(account.status(), SILENT);
    pass(10);
    assert_eq!(other.status(), SILENT, "by the record, which it verified with the key that it held");
    assert_eq!(other.record().policy().max_grace(), None, "goes by it once the KMS has unwrapped");
    here.kms.every_call(&Answer::Ok);
    pass(20);
    assert_eq!(other.record().policy().max_grace(), Some(secs(30)));
    assert!(other.permit().is_ok() && account.permit().is_ok());
}

#[test]
fn c5_longer_grace_counts_from_the_next_refresh_and_never_past_the_caches() {
    let world = World::new(6, OutageGrace::For(GRACE));
    let policy = RecordPolicy::default().with_max_grace(secs(0));
    let account = world.cache.create(world.spec().policy(policy)).unwrap();
    account.set_policy(policy.with_max_grace(2 * GRACE)).unwrap();
    world.kms.every_call(&Answer::Transient);
    world.run(world.cache.fresh_for());
    assert_eq!(account.status(), SILENT, "no unwrap since");
    world.kms.every_call(&Answer::Ok);
    world.run(secs(30));
    world.kms.every_call(&Answer::Transient);
    let lasted = world.run_until(secs(1), secs(1000), || account.permit().is_err());
    assert!(lasted > GRACE && lasted <= world.cache.usable_for(), "{lasted:?}");
}

#[test]
fn c5_consent_to_a_whole_outage_is_given_and_withdrawn_in_the_record() {
    let world = World::new(60, OutageGrace::WholeOutage);
    let account = world.create();
    account.set_policy(RecordPolicy::default().with_whole_outage_consent()).unwrap();
    world.run(secs(120));
    world.kms.every_call(&Answer::Transient);
    world.run(secs(4 * 3600));
    assert!(matches!(account.status(), Status::Grace { .. }));
    account.set_policy(RecordPolicy::default()).unwrap();
    assert_eq!(account.status(), SILENT, "half an hour of grace was over long ago");
    assert!(!account.record().policy().consents_to_whole_outage());
}

#[test]
fn c5_e6_limits_are_changed_and_versions_are_not() {
    let world = World::new(6, OutageGrace::For(GRACE));
    let store = Store::new();
    let account = world.cache.create(world.spec().store(store.clone())).unwrap();
    let limits = GenerationLimits::new(10, 20, 30).unwrap();
    let policy = RecordPolicy::default().with_limits(limits).with_version_policy(VersionPolicy::Pinned);
    account.set_policy(policy).unwrap();
    let record = strongroom::AccountRecord::parse(&store.bytes(account.id()).unwrap()).unwrap();
    assert_eq!(record.policy().limits(), limits);
    assert_eq!(record.policy().version_policy(), VersionPolicy::Latest, "follows from the KEK");
    assert_eq!((record.sequence().number(), &record), (2, &account.record()));
    account.set_policy(policy).unwrap();
    assert_eq!(store.bytes(account.id()).unwrap(), record.to_bytes(), "nothing to change, nothing written");
    assert!(account.permit().is_ok());
}

#[test]
fn c5_e3_a_policy_is_changed_whole_or_not_and_rivals_are_told() {
    for (strike, expected) in [(0, ErrorKind::Io), (1, ErrorKind::Io), (2, ErrorKind::Conflict)] {
        let world = World::new(6, OutageGrace::For(GRACE));
        let store = Store::new();
        let account = world.cache.create(world.spec().store(store.clone())).unwrap();
        let block = Block::sealed_by(&account);
        // The load is the first call.
        match strike {
            0 => store.fail_nth(1, false),
            1 => store.fail_nth(1, true),
            _ => store.conflict_nth(0),
        }
        let policy = RecordPolicy::default().with_max_grace(secs(7));
        assert_eq!(kind(account.set_policy(policy)), Some(expected));
        let there = strongroom::AccountRecord::parse(&store.bytes(account.id()).unwrap()).unwrap();
        assert_eq!(there.policy().max_grace().is_some(), strike == 1);
        world.run(secs(20));
        assert_eq!(block.open(&account), Ok(()));
        assert_eq!(account.record(), there, "and goes by what is there");
        account.set_policy(policy).unwrap();
        assert_eq!(account.record().policy().max_grace(), Some(secs(7)));
    }
}

#[test]
fn c5_a_forged_policy_changes_nothing() {
    let world = World::new(6, OutageGrace::For(GRACE));
    let store = Store::new();
    let records: Arc<dyn RecordStore> = store.clone();
    let account = world.cache.create(world.spec().store(records)).unwrap();
    let mut forged = store.bytes(account.id()).unwrap();
    // A maximum of zero, and the next sequence.
    forged[42] = 1;
    forged[25..33].copy_from_slice(&2_u64.to_be_bytes());
    let parsed = strongroom::AccountRecord::parse(&forged).unwrap();
    assert_eq!(parsed.policy().max_grace(), Some(secs(0)));
    store.plant(account.id(), &forged);
    assert!(in_grace(&world, &account), "silence: whoever writes to the store does not shorten it either");
    assert_eq!(kind(account.set_policy(RecordPolicy::default())), Some(ErrorKind::Untrusted));
}
