//! A sealed store whose tenants are attached when their objects are used: G1, C8.

use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStoreExt;
use strongroom::provider::{Kek, KeyProvider};
use strongroom::store::ByTenant;
use strongroom::testing::ScriptedProvider;
use strongroom::{
    AccountId, AccountSpec, AekCache, Directory, ErrorKind, Expect, MemoryRecordStore, RecordStore,
};

use crate::SealedStore;
use crate::world::{Bent, kind, pattern};

#[tokio::test]
async fn g1_c8_tenants_are_attached_when_their_objects_are_used() {
    let kms: Arc<dyn KeyProvider> = Arc::new(ScriptedProvider::new());
    let records: Arc<dyn RecordStore> = Arc::new(MemoryRecordStore::new());
    let cache = AekCache::builder().build().unwrap();
    let directory = Directory::builder(cache.clone(), Arc::clone(&records)).build().unwrap();
    let tenants: Vec<_> = (0..3).map(|_| AccountId::random()).collect();
    for id in &tenants {
        let spec = AccountSpec::new(*id, Arc::clone(&kms), Kek::latest(ScriptedProvider::KEK));
        cache.create(spec.store(Arc::clone(&records))).unwrap();
        directory.register(Expect::account(*id).kek(Arc::clone(&kms), ScriptedProvider::KEK)).unwrap();
    }
    let tenant = |path: &str| path.split('/').next()?.parse::<AccountId>().ok();
    let router = ByTenant::new(directory.clone(), tenant).wait_until_ready();
    let store = SealedStore::builder(Arc::new(Bent::default()), "bucket", router).build().unwrap();
    let plain = pattern(10_000);
    for id in &tenants[..2] {
        let path = format!("{id}/x").into();
        store.put(&path, plain.clone().into()).await.unwrap();
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), plain);
    }
    assert_eq!(cache.stats().accounts, 2, "the third was not used");

    let stranger = store.get(&format!("{}/x", AccountId::random()).into()).await.unwrap_err();
    assert_eq!(kind(&stranger), Some(ErrorKind::Misuse), "{stranger}");
    let nobody = store.get(&"elsewhere/x".into()).await.unwrap_err();
    assert!(matches!(nobody, object_store::Error::PermissionDenied { .. }), "{nobody}");

    assert!(cache.shutdown(Duration::from_secs(60)));
    let closed = store.get(&format!("{}/x", tenants[0]).into()).await.unwrap_err();
    assert_eq!(kind(&closed), Some(ErrorKind::Locked), "{closed}");
    let late = store.get(&format!("{}/x", tenants[2]).into()).await.unwrap_err();
    assert_eq!(kind(&late), Some(ErrorKind::Unavailable), "{late}");
}

#[tokio::test]
async fn g1_a_tenant_without_a_key_yet_is_not_ready_unless_waiting_is_asked_for() {
    let kms = Arc::new(ScriptedProvider::new());
    let provider: Arc<dyn KeyProvider> = kms.clone();
    let records: Arc<dyn RecordStore> = Arc::new(MemoryRecordStore::new());
    let cache = AekCache::builder().build().unwrap();
    let id = AccountId::random();
    let spec = AccountSpec::new(id, Arc::clone(&provider), Kek::latest(ScriptedProvider::KEK));
    cache.create(spec.store(Arc::clone(&records))).unwrap();
    let directory = Directory::builder(cache, records).build().unwrap();
    directory.register(Expect::account(id).kek(provider, ScriptedProvider::KEK)).unwrap();
    let _release = kms.release_on_drop();
    kms.every_call(&strongroom::testing::Answer::Hang);
    let router = ByTenant::new(directory, move |_: &str| Some(id));
    let store = SealedStore::builder(Arc::new(Bent::default()), "bucket", router).build().unwrap();
    let error = store.put(&"x".into(), "x".into()).await.unwrap_err();
    assert_eq!(kind(&error), Some(ErrorKind::NotReady), "{error}");
}
