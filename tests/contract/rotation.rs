//! KEK rotation and version policies: E1, E2.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use strongroom::provider::{Kek, KekVersion};
use strongroom::testing::{Answer, Call};
use strongroom::{
    Account, AccountId, AccountSpec, ErrorKind, OutageGrace, Refusal, Retire, RotateTo, Status, VersionPolicy,
};

use crate::common::{Block, KEK, Store, World, kind, millis, secs, usable};

fn version(account: &Account) -> String {
    account.record().kek_version().as_str().to_owned()
}

/// An account pinned to version 1, whose record is in a store.
fn pinned(world: &World, store: &Arc<Store>) -> Account {
    let kek = Kek::pinned(KEK, KekVersion::new("1").unwrap());
    let spec = AccountSpec::new(AccountId::random(), world.provider(), kek);
    world.cache.create(spec.store(Arc::clone(store) as _)).unwrap()
}

#[test]
fn e1_rotation_touches_no_data_and_keeps_it_readable() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    let (block, fence) = (Block::sealed_by(&account), account.fence().unwrap());
    let old = account.record();
    let new_version = world.kms.add_version(KEK);
    assert_eq!(account.rotate_kek(RotateTo::Latest).unwrap(), Retire::AfterPersisting(secs(71)));
    let new = account.record();
    assert_eq!((new.kek_version(), new.generation()), (&new_version, old.generation()));
    assert_eq!(new.fingerprint(), old.fingerprint());
    assert!(new.sequence() > old.sequence());
    world.kms.set_version_enabled(KEK, old.kek_version(), false);
    world.run(secs(60));
    assert_eq!(block.open(&account), Ok(()));
    fence.check().unwrap();
    assert_eq!(account.rotate_kek(RotateTo::Latest).unwrap(), Retire::AlreadyCurrent);
}

#[test]
fn e1_rotation_to_an_exact_version_and_to_one_that_is_not_there() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    let second = world.kms.add_version(KEK);
    world.kms.add_version(KEK);
    account.rotate_kek(RotateTo::Version(second)).unwrap();
    assert_eq!(version(&account), "2");
    let missing = account.rotate_kek(RotateTo::Version(KekVersion::new("9").unwrap())).unwrap_err();
    assert_eq!((missing.kind(), missing.refusal()), (ErrorKind::Revoked, Some(Refusal::KeyGone)));
    world.run(secs(30));
    assert!(usable(&account) && version(&account) == "2");
}

#[test]
fn e3_a_rotation_whose_answer_was_lost_is_looked_for_at_once() {
    let world = World::new(60, OutageGrace::None);
    let store = Store::new();
    let account = world.cache.create(world.spec().store(Arc::clone(&store) as _)).unwrap();
    world.run(secs(7));
    world.kms.add_version(KEK);
    // The record is loaded first.
    store.fail_nth(1, true);
    assert_eq!(kind(account.rotate_kek(RotateTo::Latest)), Some(ErrorKind::Io));
    assert!(!store.calm(), "it was struck");
    world.run(secs(1));
    assert_eq!(version(&account), "2");
}

#[test]
fn e2_with_a_store_the_latest_version_is_found_and_adopted() {
    let world = World::new(30, OutageGrace::None);
    let store = Store::new();
    let account = world.cache.create(world.spec().store(Arc::clone(&store) as _)).unwrap();
    let block = Block::sealed_by(&account);
    world.run(secs(120));
    let newer = world.kms.add_version(KEK);
    world.run(secs(660));
    assert_eq!(*account.record().kek_version(), newer);
    world.kms.set_version_enabled(KEK, &KekVersion::new("1").unwrap(), false);
    world.run(secs(60));
    assert_eq!(block.open(&account), Ok(()));
}

#[test]
fn e2_without_a_store_the_engine_is_told_of_a_newer_version() {
    let world = World::new(30, OutageGrace::None);
    let account = world.create();
    world.run(secs(120));
    let events = world.cache.events();
    world.kms.add_version(KEK);
    world.run(secs(660));
    assert_eq!(version(&account), "1", "nobody here could persist another record");
    assert!(events.try_next().unwrap().newer_kek_version);
    account.rotate_kek(RotateTo::Latest).unwrap();
    assert!(!events.try_next().unwrap().newer_kek_version);
    assert_eq!(version(&account), "2");
}

#[test]
fn e2_a_pinned_account_is_revoked_with_its_version_though_a_newer_one_exists() {
    let world = World::new(6, OutageGrace::DEFAULT);
    let store = Store::new();
    let account = pinned(&world, &store);
    let block = Block::sealed_by(&account);
    let first = account.record().kek_version().clone();
    world.kms.add_version(KEK);
    world.run(secs(700));
    assert_eq!(version(&account), "1", "a new version is used on explicit update only");
    world.kms.set_version_enabled(KEK, &first, false);
    world.run(world.cache.staleness_bound());
    assert_eq!(block.open(&account), Err(ErrorKind::Revoked));
    world.run(secs(3600));
    assert_eq!(account.status(), Status::Revoked(Refusal::KeyDisabled));
    world.kms.set_version_enabled(KEK, &first, true);
    world.run(secs(12));
    assert_eq!(block.open(&account), Ok(()), "enabling it again brings the account back");
}

#[test]
fn e2_updating_the_pin_brings_a_revoked_account_back_through_its_standby_wrap() {
    let world = World::new(6, OutageGrace::DEFAULT);
    let store = Store::new();
    let account = pinned(&world, &store);
    let block = Block::sealed_by(&account);
    let first = account.record().kek_version().clone();
    let newer = world.kms.add_version(KEK);
    world.run(secs(700));
    assert_eq!(account.record().standby_version(), Some(&newer));
    world.kms.set_version_enabled(KEK, &first, false);
    world.run(secs(12));
    assert_eq!(block.open(&account), Err(ErrorKind::Revoked));
    assert!(matches!(account.rotate_kek(RotateTo::Latest).unwrap(), Retire::SafeAfter(_)));
    world.run(secs(12));
    assert_eq!(block.open(&account), Ok(()));
    assert_eq!((version(&account), account.record().standby_version().cloned()), ("2".into(), None));
    // It is pinned to that version now.
    world.kms.add_version(KEK);
    world.run(secs(700));
    assert_eq!(version(&account), "2");
}

#[test]
fn e2_without_a_standby_wrap_an_update_cannot_pass_a_refusal() {
    let world = World::new(6, OutageGrace::DEFAULT);
    let store = Store::new();
    let account = pinned(&world, &store);
    world.kms.set_version_enabled(KEK, account.record().kek_version(), false);
    world.kms.add_version(KEK);
    world.run(secs(12));
    assert_eq!(kind(account.rotate_kek(RotateTo::Latest)), Some(ErrorKind::Revoked));
    assert_eq!(version(&account), "1");
}

#[test]
fn e2_a_policy_cannot_contradict_the_kek() {
    let world = World::new(6, OutageGrace::DEFAULT);
    let policy = strongroom::RecordPolicy::default().with_version_policy(VersionPolicy::Pinned);
    let store = Store::new();
    let account = world.cache.create(world.spec().policy(policy).store(Arc::clone(&store) as _)).unwrap();
    world.kms.add_version(KEK);
    world.run(secs(700));
    assert_eq!(version(&account), "2", "`Kek::latest` follows");
}

#[test]
fn e3_when_the_old_version_may_be_retired_is_said_after_persisting() {
    let world = World::new(6, OutageGrace::None);
    let store = Store::new();
    let account = world.cache.create(world.spec().store(Arc::clone(&store) as _)).unwrap();
    let Status::Fresh { valid_until } = account.status() else { panic!("fresh") };
    let now: SystemTime = valid_until - world.cache.fresh_for();
    world.kms.add_version(KEK);
    let retire = account.rotate_kek(RotateTo::Latest).unwrap();
    // 71 s: F of the slowest machine, 60 + 6 + 5 s.
    let Retire::SafeAfter(at) = retire else { panic!("{retire:?}") };
    let wait = at.duration_since(now).unwrap();
    assert!(wait >= secs(71) && wait < secs(72), "{wait:?}");
    assert_eq!(store.bytes(account.id()).unwrap(), account.record().to_bytes());
}

#[test]
fn e3_a_refresh_under_way_does_not_undo_a_rotation() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    world.kms.clear_log();
    world.kms.next(Call::Unwrap, [Answer::Delay(millis(1500))]);
    world.run_until(millis(10), secs(10), || !world.unwraps().is_empty());
    world.kms.add_version(KEK);
    account.rotate_kek(RotateTo::Latest).unwrap();
    assert_eq!(version(&account), "2");
    world.run(secs(2));
    assert_eq!(version(&account), "2", "the refresh had begun with the record of before");
    world.kms.set_version_enabled(KEK, &KekVersion::new("1").unwrap(), false);
    world.run(secs(60));
    assert!(usable(&account));
}

#[test]
fn e1_data_stays_usable_at_every_moment_of_a_slow_rotation() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    let block = Block::sealed_by(&account);
    world.kms.add_version(KEK);
    world.kms.always(Call::Wrap, Answer::Delay(secs(1)));
    let rotating = account.begin_rotate_kek(RotateTo::Latest);
    for _ in 0..30 {
        world.run(millis(100));
        assert_eq!(block.open(&account), Ok(()));
        Block::sealed_by(&account);
    }
    assert_eq!(rotating.wait().unwrap(), Retire::AfterPersisting(Duration::from_secs(71)));
}
