//! Mistakes that others made, one test each.

use std::sync::Arc;

use strongroom::provider::{ErrorClass, Kek, KeyProvider, WrapContext};
use strongroom::testing::{Answer, Call};
use strongroom::{
    Aad, AccountId, BlockId, ErrorKind, Generation, ObjectId, OutageGrace, Refusal, RotateTo, Status,
};

use crate::common::{Block, KEK, Store, World, kind, secs, usable};

/// Kubernetes KMS v2: reads allowed from the cache indefinitely after a revocation.
#[test]
fn reads_from_the_cache_for_ever_after_a_revocation() {
    let world = World::new(60, OutageGrace::WholeOutage);
    let policy = strongroom::RecordPolicy::default().with_whole_outage_consent();
    let account = world.cache.create(world.spec().policy(policy)).unwrap();
    let block = Block::sealed_by(&account);
    world.kms.set_enabled(KEK, false);
    world.run(world.cache.staleness_bound());
    assert_eq!(block.open(&account), Err(ErrorKind::Revoked));
}

/// Kubernetes KMS v2: a lease renewed by a status reply, with an unchanged key id.
#[test]
fn a_lease_renewed_by_a_status_reply() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    // `describe` and `wrap` go on answering; only what needs the key does not.
    world.kms.always(Call::Unwrap, Answer::Transient);
    world.run(world.cache.fresh_for());
    assert!(!usable(&account));
}

/// TiKV: a timeout reported as "wrong master key".
#[test]
fn a_timeout_reported_as_a_wrong_key() {
    for silence in [Answer::Transient, Answer::Hang] {
        let world = World::new(6, OutageGrace::None);
        let account = world.create();
        world.kms.every_call(&silence);
        world.run(secs(20));
        assert_eq!(kind(account.permit()), Some(ErrorKind::Unavailable));
        assert_eq!(account.last_failure().unwrap().kind(), ErrorKind::Unavailable);
    }
}

/// TiKV, ScyllaDB: a restart during an outage is fatal.
#[test]
fn a_restart_during_an_outage_is_fatal() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    let (block, record, id) = (Block::sealed_by(&account), account.record(), account.id());
    world.kms.every_call(&Answer::Transient);
    drop(account);
    let restarted = World::beside(&world.clock, world.kms.clone(), secs(6), OutageGrace::None);
    let account = restarted.cache.attach(record, restarted.expect(id)).unwrap();
    restarted.run(secs(3600));
    restarted.kms.every_call(&Answer::Ok);
    restarted.run(secs(14));
    assert_eq!(block.open(&account), Ok(()));
}

/// AWS Encryption SDK, MongoDB: one time to live for refusal and for outage.
#[test]
fn one_time_to_live_for_refusal_and_for_outage() {
    let world = World::new(6, OutageGrace::For(secs(3600)));
    let (account, other) = (world.create(), world.create());
    world.kms.every_call(&Answer::Transient);
    world.run(secs(3000));
    assert!(usable(&account) && usable(&other), "an outage of almost an hour is survived");
    world.kms.every_call(&Answer::Refused(Refusal::KeyDisabled));
    world.run(secs(14));
    assert!(!usable(&account) && !usable(&other), "a refusal is not");
}

/// envelopers: encrypted with the context dropped by a bug. Tink: an empty AAD on the wrapped key.
#[test]
fn a_wrapped_key_that_is_bound_to_nothing() {
    let world = World::new(6, OutageGrace::None);
    let here = WrapContext::for_tests(AccountId::from_bytes([1; 16]), Generation::FIRST);
    let elsewhere = WrapContext::for_tests(AccountId::from_bytes([2; 16]), Generation::FIRST);
    let later = WrapContext::for_tests(here.account(), Generation::new(2).unwrap());
    let secret = strongroom::provider::WrapInput::from_slice(&[7; 56]).unwrap();
    let wrapped = world.kms.wrap(&Kek::latest(KEK), &here, &secret).unwrap();
    assert!(world.kms.unwrap(&wrapped, &here).is_ok());
    for other in [elsewhere, later] {
        assert_eq!(world.kms.unwrap(&wrapped, &other).unwrap_err().class(), ErrorClass::Integrity);
    }
}

/// SlateDB's block transformer: it gets no identity of the block.
#[test]
fn a_block_without_identity() {
    let world = World::new(6, OutageGrace::None);
    let (account, other) = (world.create(), world.create());
    let object = ObjectId::random();
    let (id, aad) = (BlockId::new(object, 1), Aad::new(b"tenant"));
    let frame = account.seal(id, aad, b"x").unwrap();
    assert_eq!(account.open(id, aad, &frame).unwrap(), b"x");
    assert_eq!(kind(account.open(BlockId::new(object, 2), aad, &frame)), Some(ErrorKind::Corrupt));
    assert_eq!(
        kind(account.open(BlockId::new(ObjectId::random(), 1), aad, &frame)),
        Some(ErrorKind::Corrupt)
    );
    assert_eq!(kind(account.open(id, Aad::EMPTY, &frame)), Some(ErrorKind::Corrupt));
    assert_eq!(kind(other.open(id, aad, &frame)), Some(ErrorKind::UnknownGeneration));
}

/// Azure client-side encryption v2: the nonce taken from the stored region, never checked against its position.
#[test]
fn blocks_that_can_be_swapped_with_their_nonces() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    let object = ObjectId::random();
    let ids = [BlockId::new(object, 0), BlockId::new(object, 1)];
    let frames = ids.map(|id| account.seal(id, Aad::EMPTY, b"same length").unwrap());
    assert_eq!(kind(account.open(ids[0], Aad::EMPTY, &frames[1])), Some(ErrorKind::Corrupt));
    assert_eq!(kind(account.open(ids[1], Aad::EMPTY, &frames[0])), Some(ErrorKind::Corrupt));
}

/// CockroachDB: rotation that silently stops after a restart.
#[test]
fn rotation_that_stops_after_a_restart() {
    let world = World::new(30, OutageGrace::None);
    let store = Store::new();
    let mut account = world.cache.create(world.spec().store(Arc::clone(&store) as _)).unwrap();
    let id = account.id();
    world.kms.add_version(KEK);
    // Restarted every two minutes: far more often than versions are looked for.
    for _ in 0..3 {
        drop(account);
        world.run(secs(1));
        account = world.cache.attach_stored(Arc::clone(&store) as _, world.expect(id)).unwrap();
        world.run(secs(120));
    }
    assert_eq!(account.record().kek_version().as_str(), "2");
}

/// CockroachDB: rotation that stalls writes while it runs.
#[test]
fn rotation_that_stalls_writes() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    world.kms.add_version(KEK);
    world.kms.always(Call::Wrap, Answer::Hang);
    let _rotating = account.begin_rotate_kek(RotateTo::Latest);
    for _ in 0..60 {
        world.run(secs(1));
        assert_eq!(Block::sealed_by(&account).open(&account), Ok(()));
    }
}

/// Azure SDK issues: decrypting with "latest" after the key was rotated.
#[test]
fn unwrapping_with_the_latest_version() {
    let world = World::new(6, OutageGrace::None);
    let account = world.create();
    let block = Block::sealed_by(&account);
    world.kms.add_version(KEK);
    world.run(secs(60));
    assert_eq!(account.record().kek_version().as_str(), "1");
    assert_eq!(block.open(&account), Ok(()));
}

/// Kroxylicious' default: passes data on unencrypted, or opens it, where the key is missing.
#[test]
fn sealing_or_opening_in_the_clear_without_a_key() {
    let world = World::new(6, OutageGrace::None);
    let (account, block) = world.attached();
    let id = BlockId::new(ObjectId::random(), 0);
    assert_eq!(kind(account.seal(id, Aad::EMPTY, Block::PLAIN)), Some(ErrorKind::NotReady));
    assert_eq!(block.open(&account), Err(ErrorKind::NotReady));
    account.ready().wait().unwrap();
    assert_eq!(
        kind(account.open(id, Aad::EMPTY, Block::PLAIN)),
        Some(ErrorKind::Format),
        "plaintext is no frame"
    );
}

/// Azure: a disabled key still wraps. So a key is judged by unwrapping.
#[test]
fn a_key_judged_by_whether_it_wraps() {
    let world = World::new(6, OutageGrace::None);
    world.kms.always(Call::Unwrap, Answer::Refused(Refusal::KeyDisabled));
    assert_eq!(kind(world.cache.create(world.spec())), Some(ErrorKind::Revoked));
    world.kms.always(Call::Unwrap, Answer::Ok);
    let account = world.create();
    world.kms.always(Call::Unwrap, Answer::Refused(Refusal::KeyDisabled));
    world.run(secs(9));
    assert_eq!(account.status(), Status::Revoked(Refusal::KeyDisabled));
}

/// AWS: throttling is HTTP 400. The class of an error is the provider's word, and silence never revokes.
#[test]
fn throttling_taken_for_a_refusal() {
    let world = World::new(6, OutageGrace::DEFAULT);
    let account = world.create();
    world.kms.always(Call::Unwrap, Answer::Transient);
    world.run(secs(120));
    assert!(matches!(account.status(), Status::Grace { .. }));
    assert!(usable(&account));
}
