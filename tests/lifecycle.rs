//! The story of an account on virtual time: created, attached, silent KMS, refusal, recovery, lock, rotation.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::time::Duration;

use strongroom::provider::{Kek, KeyProvider};
use strongroom::testing::{ManualClock, ScriptedProvider};
use strongroom::{
    Aad, Account, AccountId, AccountSpec, AekCache, BlockId, Expect, ObjectId, OutageGrace, Status,
};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

struct World {
    clock: ManualClock,
    kms: Arc<ScriptedProvider>,
    cache: AekCache,
    account: Account,
}

fn world(refresh: u64, grace: OutageGrace) -> World {
    let clock = ManualClock::new();
    let kms = Arc::new(ScriptedProvider::on_virtual_time());
    kms.add_key("orders");
    let cache =
        AekCache::builder().refresh_every(secs(refresh)).outage_grace(grace).manual(&clock).build().unwrap();
    let provider: Arc<dyn KeyProvider> = kms.clone();
    let spec = AccountSpec::new(AccountId::random(), provider, Kek::latest("orders"));
    let account = cache.create(spec).unwrap();
    World { clock, kms, cache, account }
}

#[test]
fn an_account_is_usable_once_created_and_stays_so_while_the_kms_answers() {
    let world = world(6, OutageGrace::None);
    let id = BlockId::new(ObjectId::random(), 7);
    let sealed = world.account.seal(id, Aad::new(b"tenant-42"), b"hello").unwrap();
    for _ in 0..100 {
        world.cache.run_for(secs(3));
        assert_eq!(world.account.open(id, Aad::new(b"tenant-42"), &sealed).unwrap(), b"hello");
    }
    let stats = world.cache.stats();
    assert!((45..=50).contains(&stats.verified), "{stats:?}");
}

#[test]
fn a_record_attaches_without_a_call() {
    let world = world(6, OutageGrace::None);
    let id = BlockId::new(ObjectId::random(), 7);
    let sealed = world.account.seal(id, Aad::EMPTY, b"hello").unwrap();
    let bytes = world.account.record().to_bytes();
    let account_id = world.account.id();
    drop(world.account);
    world.cache.drive();
    let record = strongroom::AccountRecord::parse(&bytes).unwrap();
    let provider: Arc<dyn KeyProvider> = world.kms.clone();
    let account = world.cache.attach(record, Expect::account(account_id).kek(provider, "orders")).unwrap();
    assert_eq!(account.status(), Status::NotReady);
    account.ready().wait().unwrap();
    assert_eq!(account.open(id, Aad::EMPTY, &sealed).unwrap(), b"hello");
    let _ = world.clock;
}
