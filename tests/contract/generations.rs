//! AEK rotation: E4, and what it may cost (P12).

use std::sync::Arc;
use std::time::Duration;

use strongroom::provider::{Kek, KekVersion};
use strongroom::testing::{Answer, Call};
use strongroom::{
    Account, AccountId, AccountRecord, AccountSpec, ErrorKind, Generation, NothingRefersToIt, OutageGrace,
    RecordPolicy, RotateTo, SealedObject, peek,
};

use crate::common::{Block, KEK, Meddler, Store, World, kind, secs, usable};

/// How long after a rotation the new generation is used: 71 s, and a minute.
const ACTIVE_AFTER: Duration = secs(131);

fn stored(world: &World, store: &Arc<Store>) -> Account {
    world.cache.create(world.spec().store(Arc::clone(store) as _)).unwrap()
}

/// A machine that shares the clock, the KMS and the records.
fn beside(world: &World, store: &Arc<Store>, account: AccountId, refresh: u64) -> (World, Account) {
    let other = World::beside(&world.clock, world.kms.clone(), secs(refresh), OutageGrace::DEFAULT);
    let attached = other.cache.attach_stored(Arc::clone(store) as _, other.expect(account)).unwrap();
    other.cache.drive();
    assert!(usable(&attached));
    (other, attached)
}

fn generation(block: &Block) -> u32 {
    peek(&block.frame).unwrap().generation().number()
}

fn nth(number: u32) -> Generation {
    Generation::new(number).unwrap()
}

fn destroy(account: &Account, number: u32) -> Option<ErrorKind> {
    kind(account.destroy_generation(nth(number), NothingRefersToIt::as_the_engine_states()))
}

#[test]
fn e4_new_data_takes_the_new_generation_once_it_is_active_and_old_data_stays_readable() {
    let world = World::new(6, OutageGrace::None);
    let account = stored(&world, &Store::new());
    let before = Block::sealed_by(&account);
    let fingerprint = account.record().fingerprint();

    let rotation = account.rotate_aek().unwrap();
    assert_eq!(rotation.generation, nth(2));
    assert_eq!(rotation.active_from, account.record().generation_active_from());
    assert_ne!(account.record().fingerprint(), fingerprint, "an AEK of its own");
    assert_eq!(account.record().older_generations(), [nth(1)]);
    world.run(secs(30));
    let between = Block::sealed_by(&account);
    assert_eq!(generation(&between), 1, "published, not yet active");
    world.run(ACTIVE_AFTER - secs(31));
    assert_eq!(generation(&Block::sealed_by(&account)), 1);
    world.run(secs(1));
    let after = Block::sealed_by(&account);
    assert_eq!(generation(&after), 2, "active from the second that was told");
    for block in [&before, &between, &after] {
        assert_eq!(block.open(&account), Ok(()));
    }
}

#[test]
fn e4_every_machine_opens_the_new_generation_before_anybody_seals_under_it() {
    for refresh in [6, 60] {
        let world = World::new(6, OutageGrace::None);
        let store = Store::new();
        let account = stored(&world, &store);
        let (slow, follower) = beside(&world, &store, account.id(), refresh);
        account.rotate_aek().unwrap();
        let mut seen = false;
        for _ in 0..200 {
            world.run(secs(1));
            slow.cache.drive();
            for (writer, reader) in [(&account, &follower), (&follower, &account)] {
                let block = Block::sealed_by(writer);
                assert_eq!(block.open(reader), Ok(()), "generation {}", generation(&block));
                seen |= generation(&block) == 2;
            }
        }
        assert!(seen && follower.record().generation() == nth(2));
    }
}

#[test]
fn e4_a_machine_that_missed_two_rotations_follows_and_one_that_starts_anew_too() {
    let world = World::new(6, OutageGrace::None);
    let store = Store::new();
    let account = stored(&world, &store);
    let block = Block::sealed_by(&account);
    let (slept, follower) = beside(&world, &store, account.id(), 6);
    for _ in 0..2 {
        account.rotate_aek().unwrap();
        world.run(ACTIVE_AFTER);
    }
    let newest = Block::sealed_by(&account);
    assert_eq!(generation(&newest), 3);
    slept.cache.drive();
    slept.run(secs(12));
    assert_eq!((block.open(&follower), newest.open(&follower)), (Ok(()), Ok(())));
    let (_started, anew) = beside(&world, &store, account.id(), 6);
    assert_eq!((block.open(&anew), newest.open(&anew)), (Ok(()), Ok(())));
}

#[test]
fn e4_p12_any_number_of_generations_costs_one_unwrap() {
    let world = World::new(6, OutageGrace::None);
    let store = Store::new();
    let account = stored(&world, &store);
    let mut blocks = vec![Block::sealed_by(&account)];
    for number in 2..=20 {
        account.rotate_aek().unwrap();
        world.run(ACTIVE_AFTER + secs(1));
        blocks.push(Block::sealed_by(&account));
        assert_eq!(generation(blocks.last().unwrap()), number);
    }
    let record = AccountRecord::parse(&store.bytes(account.id()).unwrap()).unwrap();
    assert_eq!(record.older_generations().len(), 19);
    world.kms.clear_log();
    world.run(secs(60));
    let refreshes = world.kms.calls(Call::Unwrap);
    assert!((8..=10).contains(&refreshes), "{refreshes} in a minute at 6 s");
    let (_started, anew) = {
        world.kms.clear_log();
        beside(&world, &store, account.id(), 60)
    };
    assert_eq!((world.kms.calls(Call::Unwrap), world.kms.log().len()), (1, 1));
    assert!(blocks.iter().all(|block| block.open(&anew).is_ok()));
}

#[test]
fn e4_d3_a_revocation_covers_every_generation() {
    let world = World::new(6, OutageGrace::DEFAULT);
    let account = stored(&world, &Store::new());
    let old = Block::sealed_by(&account);
    account.rotate_aek().unwrap();
    world.run(ACTIVE_AFTER + secs(1));
    let new = Block::sealed_by(&account);
    world.kms.set_enabled(KEK, false);
    world.run(world.cache.staleness_bound());
    assert_eq!([old.open(&account), new.open(&account)], [Err(ErrorKind::Revoked); 2]);
    world.kms.set_enabled(KEK, true);
    world.run(secs(12));
    assert_eq!([old.open(&account), new.open(&account)], [Ok(()); 2]);
}

#[test]
fn e4_an_object_is_under_one_generation_also_when_the_next_becomes_active_while_it_is_written() {
    let world = World::new(6, OutageGrace::None);
    let account = stored(&world, &Store::new());
    account.rotate_aek().unwrap();
    world.run(ACTIVE_AFTER - secs(1));
    let context = strongroom::Context::new(&[b"store", b"path"]);
    let mut writer = SealedObject::writer(account.clone(), context, Vec::new()).unwrap();
    let plain = vec![7; 300_000];
    std::io::Write::write_all(&mut writer, &plain[..200_000]).unwrap();
    world.run(secs(2));
    assert_eq!(generation(&Block::sealed_by(&account)), 2);
    std::io::Write::write_all(&mut writer, &plain[200_000..]).unwrap();
    let (stored, _) = writer.finish().unwrap();
    let mut reader = SealedObject::reader(account, context, stored).unwrap();
    let mut read = Vec::new();
    std::io::Read::read_to_end(&mut reader, &mut read).unwrap();
    assert_eq!(read, plain);
}

#[test]
fn e4_one_rotation_at_a_time_and_of_two_machines_one_is_told() {
    let world = World::new(6, OutageGrace::None);
    let store = Store::new();
    let account = stored(&world, &store);
    let (_other, rival) = beside(&world, &store, account.id(), 6);
    account.rotate_aek().unwrap();
    let first = account.record();
    assert_eq!(kind(account.rotate_aek()), Some(ErrorKind::Misuse), "the newest is not active yet");
    // The rival reads the newest record before it begins.
    assert_eq!(kind(rival.rotate_aek()), Some(ErrorKind::Misuse));
    assert_eq!(account.record(), first);
    // And who has begun is overtaken.
    world.run(ACTIVE_AFTER + secs(1));
    store.conflict_nth(0);
    assert_eq!(kind(account.rotate_aek()), Some(ErrorKind::Conflict));
    store.calm();
    assert_eq!(account.rotate_aek().unwrap().generation, nth(3));
}

#[test]
fn e4_e1_kek_and_aek_rotate_in_any_order() {
    let world = World::new(6, OutageGrace::None);
    let store = Store::new();
    let account = stored(&world, &store);
    let mut blocks = Vec::new();
    for round in 0..6 {
        blocks.push(Block::sealed_by(&account));
        world.kms.add_version(KEK);
        if round % 2 == 0 {
            account.rotate_kek(RotateTo::Latest).unwrap();
            account.rotate_aek().unwrap();
        } else {
            account.rotate_aek().unwrap();
            account.rotate_kek(RotateTo::Latest).unwrap();
        }
        world.run(ACTIVE_AFTER + secs(1));
        assert!(blocks.iter().all(|block| block.open(&account).is_ok()), "round {round}");
    }
    // Only the newest version of the KEK is needed, for all generations.
    for old in 1..=6 {
        world.kms.set_version_enabled(KEK, &KekVersion::new(old.to_string()).unwrap(), false);
    }
    world.run(secs(60));
    assert!(blocks.iter().all(|block| block.open(&account).is_ok()));
}

#[test]
fn e4_e2_a_pinned_account_rotates_under_its_version_and_keeps_its_standby() {
    let world = World::new(6, OutageGrace::DEFAULT);
    let store = Store::new();
    let kek = Kek::pinned(KEK, KekVersion::new("1").unwrap());
    let spec = AccountSpec::new(AccountId::random(), world.provider(), kek).store(Arc::clone(&store) as _);
    let account = world.cache.create(spec).unwrap();
    let newer = world.kms.add_version(KEK);
    world.run(secs(700));
    assert_eq!(account.record().standby_version(), Some(&newer));
    account.rotate_aek().unwrap();
    let record = account.record();
    assert_eq!((record.kek_version().as_str(), record.standby_version()), ("1", Some(&newer)));
    world.run(ACTIVE_AFTER + secs(1));
    let block = Block::sealed_by(&account);
    world.kms.set_version_enabled(KEK, &KekVersion::new("1").unwrap(), false);
    world.run(secs(12));
    assert_eq!(block.open(&account), Err(ErrorKind::Revoked));
    account.rotate_kek(RotateTo::Latest).unwrap();
    world.run(secs(12));
    assert_eq!(block.open(&account), Ok(()), "by the standby wrap of the new AEK");
}

#[test]
fn e4_a_generation_counts_from_when_it_was_wrapped() {
    let world = World::new(6, OutageGrace::None);
    let kms = Meddler::new(world.kms.clone());
    let spec = AccountSpec::new(AccountId::random(), kms.clone(), Kek::latest(KEK));
    let account = world.cache.create(spec.store(Store::new())).unwrap();
    let begun = account.record().generation_created();
    let clock = world.clock.clone();
    kms.at_next(Call::Wrap, move || clock.advance(secs(30)));
    let rotation = account.rotate_aek().unwrap();
    // Until then a machine could read the record from before.
    assert_eq!(account.record().generation_created(), begun + secs(30));
    assert_eq!(rotation.active_from, begun + secs(30) + ACTIVE_AFTER);
}

#[test]
fn e4_grace_without_an_end_keeps_a_generation() {
    let world = World::new(6, OutageGrace::For(Duration::MAX));
    let account = stored(&world, &Store::new());
    account.rotate_aek().unwrap();
    let from = account.generation_destroyable_from(nth(1)).unwrap();
    assert!(from > account.record().generation_created() + secs(7000 * 365 * 86_400), "{from:?}");
    world.run(ACTIVE_AFTER + secs(72));
    assert_eq!(destroy(&account, 1), Some(ErrorKind::Misuse));
}

#[test]
fn e4_a_generation_is_destroyed_when_no_machine_can_seal_under_it_and_not_before() {
    let grace = secs(600);
    let world = World::new(6, OutageGrace::For(grace));
    let store = Store::new();
    let account = stored(&world, &store);
    let old = Block::sealed_by(&account);
    assert_eq!(account.generation_destroyable_from(nth(1)), None, "it is the newest");
    assert_eq!(destroy(&account, 1), Some(ErrorKind::Misuse));
    account.rotate_aek().unwrap();
    let made = account.record().generation_created();
    let from = account.generation_destroyable_from(nth(1)).unwrap();
    let clocks = secs(60);
    assert_eq!(
        from,
        made + secs(71) + grace + clocks,
        "F of the slowest machine, its grace, and a minute for clocks"
    );
    // A machine to which the KMS falls silent right now seals on under the generation it knows.
    let (dark, follower) = beside(&world, &store, account.id(), 60);
    world.run(secs(71) + grace + clocks - secs(1));
    assert_eq!(destroy(&account, 1), Some(ErrorKind::Misuse), "a second too early");
    assert_eq!((old.open(&account), old.open(&follower)), (Ok(()), Err(ErrorKind::NotReady)));
    world.run(secs(1));
    assert!(!store.kept(account.id()).is_empty());
    assert_eq!(destroy(&account, 1), None);
    assert_eq!(account.record().older_generations(), []);
    assert!(store.kept(account.id()).is_empty(), "what was kept has the AEK too");
    world.run(secs(12));
    assert_eq!(old.open(&account), Err(ErrorKind::UnknownGeneration));
    assert_eq!(Block::sealed_by(&account).open(&account), Ok(()));
    dark.cache.drive();
    dark.run(secs(12));
    assert_eq!(old.open(&follower), Err(ErrorKind::UnknownGeneration));
    assert_eq!(destroy(&account, 1), None, "once more does no harm");
    assert_eq!(destroy(&account, 3), Some(ErrorKind::Misuse));
}

#[test]
fn e4_generations_are_destroyed_oldest_first_and_the_customer_bounds_the_wait() {
    let world = World::new(6, OutageGrace::For(secs(3600)));
    let store = Store::new();
    let spec = world.spec().policy(RecordPolicy::default().with_max_grace(secs(60)));
    let account = world.cache.create(spec.store(Arc::clone(&store) as _)).unwrap();
    let mut blocks = vec![Block::sealed_by(&account)];
    for _ in 0..3 {
        account.rotate_aek().unwrap();
        world.run(ACTIVE_AFTER + secs(61));
        blocks.push(Block::sealed_by(&account));
    }
    assert_eq!(destroy(&account, 2), Some(ErrorKind::Misuse), "an older one stands behind it");
    for number in 1..=3 {
        assert_eq!(destroy(&account, number), None, "generation {number}");
        world.run(secs(12));
        for (at, block) in blocks.iter().enumerate() {
            let expected = if at < number as usize { Err(ErrorKind::UnknownGeneration) } else { Ok(()) };
            assert_eq!(block.open(&account), expected, "after {number}: {at}");
        }
    }
    // A destroyed history is no end of it.
    account.rotate_aek().unwrap();
    world.run(ACTIVE_AFTER + secs(1));
    assert_eq!(generation(&Block::sealed_by(&account)), 5);
}

#[test]
fn e4_while_the_kms_is_silent_or_refuses_nothing_is_rotated() {
    let world = World::new(6, OutageGrace::DEFAULT);
    let store = Store::new();
    let account = stored(&world, &store);
    let before = store.bytes(account.id());
    world.kms.every_call(&Answer::Transient);
    assert_eq!(kind(account.rotate_aek()), Some(ErrorKind::Unavailable));
    world.kms.every_call(&Answer::Ok);
    world.kms.set_enabled(KEK, false);
    assert_eq!(kind(account.rotate_aek()), Some(ErrorKind::Revoked));
    assert_eq!(store.bytes(account.id()), before);
}

#[test]
fn e4_a8_an_account_that_is_pinned_to_its_key_follows_and_one_pinned_to_its_generation_does_not_rotate() {
    let world = World::new(6, OutageGrace::None);
    let store = Store::new();
    let account = stored(&world, &store);
    let pinned = world.expect(account.id()).fingerprint(account.record().fingerprint());
    account.rotate_aek().unwrap();
    let other = World::beside(&world.clock, world.kms.clone(), secs(6), OutageGrace::None);
    let follower = other.cache.attach_stored(Arc::clone(&store) as _, pinned).unwrap();
    other.cache.drive();
    assert!(usable(&follower), "whoever made the new AEK held the one that is expected");
    drop(follower);
    other.cache.drive();
    world.run(ACTIVE_AFTER + secs(1));
    let exact = world.expect(account.id()).generation(nth(2));
    let follower = other.cache.attach_stored(Arc::clone(&store) as _, exact).unwrap();
    other.cache.drive();
    assert_eq!(kind(follower.rotate_aek()), Some(ErrorKind::Untrusted));
    assert_eq!(account.record().generation(), nth(2), "nothing was persisted");
}
