//! Limits on how much one generation is used, with warnings before they bite: E6.

use std::sync::Arc;

use strongroom::{
    Aad, Account, BlockId, Context, Directory, ErrorKind, GenerationLimits, LimitWarning, ObjectId,
    OutageGrace, RecordPolicy, SealJob, SealedObject, Status, Transition, peek,
};

use crate::common::{Block, Store, World, kind, secs};

/// How long after a rotation the new generation is used.
const ACTIVE_AFTER: std::time::Duration = secs(131);
const DAY: u64 = 86_400;

fn policy(seals: u64, bytes: u64, days: u32) -> RecordPolicy {
    RecordPolicy::default().with_limits(GenerationLimits::new(seals, bytes, days).unwrap())
}

fn limited(world: &World, policy: RecordPolicy) -> Account {
    world.cache.create(world.spec().policy(policy).store(Store::new())).unwrap()
}

/// How many blocks it seals until it refuses, at most so many.
fn seals(account: &Account, most: u64) -> u64 {
    let id = BlockId::new(ObjectId::random(), 0);
    let sealed = |_: &u64| match account.seal(id, Aad::EMPTY, b"ten bytes!") {
        Ok(_) => true,
        Err(error) => {
            assert_eq!((error.kind(), error.account()), (ErrorKind::Limit, Some(account.id())));
            assert!(error.to_string().contains("rotate_aek"), "it says what to do: {error}");
            false
        }
    };
    (0..most).take_while(sealed).count() as u64
}

fn warnings(transitions: &[Transition]) -> Vec<Option<LimitWarning>> {
    transitions.iter().map(|transition| transition.limit).collect()
}

#[test]
fn e6_a_generation_that_is_full_seals_no_more_and_opens_on() {
    let world = World::new(6, OutageGrace::None);
    for policy in [policy(100, 1 << 60, 365), policy(1 << 48, 1000, 365)] {
        let account = limited(&world, policy);
        let (id, aad) = (BlockId::new(ObjectId::random(), 1), Aad::EMPTY);
        let frame = account.seal(id, aad, b"ten bytes!").unwrap();
        assert_eq!(seals(&account, 1000), 99);
        world.run(secs(60));
        assert_eq!(seals(&account, 1), 0, "a refresh gives nothing back");
        assert!(matches!(account.status(), Status::Fresh { .. }));
        assert_eq!(account.open(id, aad, &frame).unwrap(), b"ten bytes!");
        let used = account.generation_use().unwrap();
        assert_eq!((used.seals, used.bytes), (100, 1000));
        assert_eq!(used.warning(), Some(LimitWarning::Reached));
        account.lock();
        account.unlock().unwrap();
        assert_eq!(seals(&account, 1), 0, "nor a lock");
    }
}

#[test]
fn e6_every_way_to_seal_is_counted_and_a_refused_one_leaves_its_buffer_as_it_was() {
    let world = World::new(6, OutageGrace::None);
    let account = limited(&world, policy(9, 1 << 60, 365));
    let (id, aad) = (BlockId::new(ObjectId::random(), 0), Aad::EMPTY);
    let permit = account.permit().unwrap();
    let used = || account.generation_use().unwrap().seals;

    permit.seal(id, aad, b"1").unwrap();
    let mut page = bytes::BytesMut::from(&b"page"[..]);
    permit.seal_append(id, aad, &[std::io::IoSlice::new(b"2")], &mut page).unwrap();
    permit.seal_detached(id, aad, &mut b"3".to_vec()).unwrap();
    assert_eq!(used(), 3);
    let (mut one, mut two) = (*b"one", *b"two");
    permit.seal_batch(&mut [SealJob::new(id, aad, &mut one), SealJob::new(id, aad, &mut two)]).unwrap();
    assert_eq!(used(), 5);
    let mut writer = SealedObject::writer(account.clone(), Context::new(&[b"o"]), Vec::new()).unwrap();
    std::io::Write::write_all(&mut writer, &vec![7; 150_000]).unwrap();
    writer.finish().unwrap();
    assert_eq!(used(), 8, "three frames of 64 KiB");
    // A batch is sealed as a whole or not at all.
    let (mut one, mut two) = (*b"one", *b"two");
    let mut jobs = [SealJob::new(id, aad, &mut one), SealJob::new(id, aad, &mut two)];
    assert_eq!(kind(permit.seal_batch(&mut jobs)), Some(ErrorKind::Limit));
    assert!(jobs.iter().all(|job| job.detached().is_none()));
    assert_eq!((&one, &two, used()), (b"one", b"two", 8));
    permit.seal(id, aad, b"9").unwrap();

    let (mut out, mut data) = (bytes::BytesMut::from(&b"page"[..]), *b"data");
    let append = permit.seal_append(id, aad, &[std::io::IoSlice::new(b"x")], &mut out);
    assert_eq!((kind(append), &out[..]), (Some(ErrorKind::Limit), &b"page"[..]));
    assert_eq!(kind(permit.seal_detached(id, aad, &mut data)), Some(ErrorKind::Limit));
    assert_eq!(&data, b"data");
    let mut writer = SealedObject::writer(account.clone(), Context::new(&[b"o"]), Vec::new()).unwrap();
    std::io::Write::write_all(&mut writer, b"x").unwrap();
    assert_eq!(kind(writer.finish()), Some(ErrorKind::Limit), "no object is acknowledged");
}

#[test]
fn e6_the_engine_is_warned_at_80_and_at_95_percent_and_at_the_limit_within_a_second() {
    let world = World::new(60, OutageGrace::None);
    let account = limited(&world, policy(1000, 1 << 60, 365));
    world.run(secs(1));
    let events = world.cache.events();
    let told = || {
        world.run(secs(1));
        warnings(&std::iter::from_fn(|| events.try_next()).collect::<Vec<_>>())
    };
    for (more, expected) in [
        (780, vec![]),
        (20, vec![Some(LimitWarning::Near)]),
        (140, vec![]),
        (10, vec![Some(LimitWarning::Imminent)]),
        (40, vec![]),
        (10, vec![Some(LimitWarning::Reached)]),
    ] {
        seals(&account, more);
        assert_eq!(told(), expected, "after {} seals", account.generation_use().unwrap().seals);
    }
    assert_eq!(told(), []);
}

#[test]
fn e6_the_next_generation_counts_anew_once_it_is_active_and_until_then_the_one_before_does() {
    let world = World::new(6, OutageGrace::None);
    let account = limited(&world, policy(100, 1 << 60, 365));
    let events = world.cache.events();
    // The last word within this time, and a second for the keeper; none where nothing was told.
    let told = |time| {
        world.run(time + secs(1));
        warnings(&std::iter::from_fn(|| events.try_next()).collect::<Vec<_>>()).pop()
    };
    assert_eq!(seals(&account, 90), 90);
    let block = Block::sealed_by(&account);
    assert_eq!(told(secs(0)), Some(Some(LimitWarning::Near)));
    let first = account.record().generation();
    let rotation = account.rotate_aek().unwrap();
    world.run(secs(30));
    assert_eq!(seals(&account, 100), 9, "published, not yet active");
    assert_eq!(account.generation_use().unwrap().generation, first);
    assert_eq!(told(secs(0)), Some(Some(LimitWarning::Reached)));
    assert_eq!(told(ACTIVE_AFTER), Some(None), "the warning was of the one before");
    let used = account.generation_use().unwrap();
    assert_eq!((used.generation, used.seals, used.warning()), (rotation.generation, 0, None));
    let after = Block::sealed_by(&account);
    assert_eq!(peek(&after.frame).unwrap().generation(), rotation.generation);
    assert_eq!(seals(&account, 1000), 99);
    assert_eq!((block.open(&account), after.open(&account)), (Ok(()), Ok(())));
    assert_eq!(told(secs(0)), Some(Some(LimitWarning::Reached)));
    assert_eq!(account.generation_use().unwrap().warning(), Some(LimitWarning::Reached));
    assert_eq!(told(secs(30)), None, "once");
}

#[test]
fn e6_an_object_counts_for_the_generation_that_it_was_begun_under() {
    let world = World::new(6, OutageGrace::None);
    let account = limited(&world, policy(4, 1 << 60, 365));
    account.rotate_aek().unwrap();
    world.run(ACTIVE_AFTER - secs(1));
    let mut writer = SealedObject::writer(account.clone(), Context::new(&[b"o"]), Vec::new()).unwrap();
    let mut write = |blocks: usize| std::io::Write::write_all(&mut writer, &vec![7_u8; blocks * 65_536]);
    write(3).unwrap();
    world.run(secs(20));
    assert_eq!(seals(&account, 10), 4, "the new one has its own limit");
    account.rotate_aek().unwrap();
    world.run(ACTIVE_AFTER);
    assert_eq!((account.record().older_generations().len(), seals(&account, 10)), (2, 4));
    write(2).unwrap();
    let error = writer.finish().map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit, "five frames under the first one");
}

#[test]
fn e6_age_warns_and_does_not_bite() {
    let world = World::new(60, OutageGrace::None);
    let account = limited(&world, policy(1 << 48, 1 << 60, 30));
    let events = world.cache.events();
    let told = || std::iter::from_fn(|| events.try_next()).filter_map(|told| told.limit).collect::<Vec<_>>();
    world.clock.advance(secs(30 * DAY - 120));
    world.run(secs(61));
    assert_eq!((told(), account.generation_use().unwrap().warning()), (vec![], None));
    world.run(secs(121));
    assert_eq!(told(), [LimitWarning::Age]);
    assert_eq!(account.generation_use().unwrap().warning(), Some(LimitWarning::Age));
    assert_eq!(seals(&account, 100), 100);
    account.rotate_aek().unwrap();
    world.run(ACTIVE_AFTER + secs(61));
    assert_eq!(account.generation_use().unwrap().warning(), None);
}

#[test]
fn e6_a_customers_new_limits_bind_here_at_once_and_other_machines_with_their_next_refresh() {
    let world = World::new(6, OutageGrace::None);
    let store: Arc<Store> = Store::new();
    let account = world.cache.create(world.spec().store(store.clone())).unwrap();
    let other = World::beside(&world.clock, world.kms.clone(), secs(6), OutageGrace::None);
    let follower = other.cache.attach_stored(store, other.expect(account.id())).unwrap();
    other.cache.drive();
    assert_eq!((seals(&account, 200), seals(&follower, 300)), (200, 300));
    account.set_policy(policy(250, 1 << 60, 365)).unwrap();
    assert_eq!(seals(&account, 1000), 50);
    world.run(secs(7));
    other.run(secs(7));
    assert_eq!(seals(&follower, 1), 0, "each holds itself to the limit by what it knows");
    account.set_policy(policy(400, 1 << 60, 365)).unwrap();
    assert_eq!(seals(&account, 1000), 150);
    // The KMS is not asked whether a block may be sealed.
    world.kms.clear_log();
    assert_eq!((seals(&account, 1), world.kms.log().len()), (0, 0));
}

#[test]
fn e6_an_account_that_a_directory_drops_when_idle_comes_back_with_its_count() {
    let world = World::new(6, OutageGrace::None);
    let store = Store::new();
    let directory =
        Directory::builder(world.cache.clone(), store.clone()).idle_after(Some(secs(60))).build().unwrap();
    let spec = world.spec().policy(policy(100, 1 << 60, 365)).store(store);
    let id = world.cache.create(spec).unwrap().id();
    world.cache.drive();
    directory.register(world.expect(id)).unwrap();
    let account = || {
        let account = directory.account(id).unwrap();
        account.wait_ready(secs(10)).unwrap();
        account
    };
    assert_eq!(seals(&account(), 70), 70);
    world.run(secs(130));
    assert_eq!((world.cache.stats().accounts, world.cache.stats().idle_dropped), (0, 1));
    assert_eq!(account().generation_use().unwrap().seals, 70);
    assert_eq!(seals(&account(), 1000), 30);
}

#[test]
fn e6_an_account_that_is_registered_anew_comes_back_with_its_count() {
    let world = World::new(6, OutageGrace::None);
    let store = Store::new();
    let directory = Directory::builder(world.cache.clone(), store.clone()).build().unwrap();
    let spec = world.spec().policy(policy(100, 1 << 60, 365)).store(store);
    let id = world.cache.create(spec).unwrap().id();
    world.cache.drive();
    let mut sealed = Vec::new();
    for _ in 0..3 {
        directory.register(world.expect(id)).unwrap();
        let account = directory.account(id).unwrap();
        account.wait_ready(secs(10)).unwrap();
        sealed.push(seals(&account, 40));
        drop(account);
        assert!(directory.unregister(id));
        // Where it is not even attached in between.
        directory.register(world.expect(id)).unwrap();
        assert!(directory.unregister(id));
    }
    assert_eq!(sealed, [40, 40, 20]);
}

#[test]
fn e6_without_limits_of_the_customers_a_generation_has_those_of_the_library() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    let limits = account.generation_use().unwrap().limits;
    assert_eq!((limits.seals(), limits.bytes(), limits.age_days()), (1 << 48, 1 << 60, 365));
    assert_eq!(seals(&account, 1000), 1000);
    assert_eq!(account.generation_use().unwrap().warning(), None);
    let (record, id) = (account.record(), account.id());
    drop(account);
    world.cache.drive();
    let attached = world.cache.attach(record, world.expect(id)).unwrap();
    assert_eq!(attached.generation_use(), None, "no key yet");
    world.run(secs(7));
    assert_eq!(
        attached.generation_use().unwrap().seals,
        0,
        "counted since it was attached, as the documentation says"
    );
}
