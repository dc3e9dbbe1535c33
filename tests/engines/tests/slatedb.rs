//! SlateDB on a sealed store: its basic workload over memory, S3 and Azure Blob Storage, and what a revocation does (contract G1).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use slatedb::Db;
use slatedb::config::{CompactorOptions, FlushOptions, FlushType, Settings};
use strongroom::provider::Kek;
use strongroom::store::{OneAccount, SealedStore};
use strongroom::testing::{ManualClock, ScriptedProvider};
use strongroom::{AccountId, AccountSpec, AekCache, Error, ErrorKind};
use strongroom_stores_tests::{azurite_store, in_a_process_given_an_azurite, is_given_an_azurite, s3};

const MARKER: &[u8] = b"confidential value";
const REFRESH: Duration = Duration::from_secs(6);

/// A sealed store on virtual time.
struct World {
    kms: Arc<ScriptedProvider>,
    cache: AekCache,
    store: Arc<SealedStore>,
}

impl World {
    fn new(inner: Arc<dyn ObjectStore>) -> Self {
        let kms = Arc::new(ScriptedProvider::on_virtual_time());
        kms.add_key("orders");
        let cache =
            AekCache::builder().refresh_every(REFRESH).manual(&ManualClock::new()).build().expect("a cache");
        let spec = AccountSpec::new(AccountId::random(), kms.clone(), Kek::latest("orders"));
        let account = cache.create(spec).expect("an account");
        let store =
            SealedStore::builder(inner, "database", OneAccount::new(account)).build().expect("is complete");
        Self { kms, cache, store: Arc::new(store) }
    }

    /// Without a cache of blocks in the plain.
    async fn open(&self, retries: Option<u32>) -> Result<Db, slatedb::Error> {
        let compactor =
            CompactorOptions { poll_interval: Duration::from_millis(100), ..CompactorOptions::default() };
        let settings = Settings {
            object_store_max_retries: retries,
            compactor_options: Some(compactor),
            ..Settings::default()
        };
        Db::builder("db", self.store.clone()).with_settings(settings).with_db_cache_disabled().build().await
    }

    fn revoke(&self) {
        self.kms.set_enabled("orders", false);
        self.cache.run_for(2 * REFRESH);
    }

    fn restore(&self) {
        self.kms.set_enabled("orders", true);
        self.cache.run_for(Duration::from_secs(61));
    }
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

async fn contents(db: &Db) -> Model {
    let mut found = Model::new();
    let mut rows = db.scan(..).await.expect("is scanned");
    while let Some(row) = rows.next().await.expect("is read") {
        found.insert(row.key.to_vec(), row.value.to_vec());
    }
    found
}

async fn to_tables(db: &Db) -> Result<(), slatedb::Error> {
    db.flush_with_options(FlushOptions { flush_type: FlushType::MemTable }).await
}

/// What the library said, however deep SlateDB has wrapped it.
fn kind(error: &slatedb::Error) -> Option<ErrorKind> {
    Error::find(error).map(Error::kind)
}

/// Writes, overwrites, deletes, flushes, scans, compacts and opens again, beside a map.
async fn workload(inner: Arc<dyn ObjectStore>) {
    let world = World::new(Arc::clone(&inner));
    let mut model = Model::new();
    let db = world.open(Some(3)).await.expect("opens");
    for round in 0..6_u32 {
        for number in 0..200_u32 {
            let key = format!("key {:05}", (number * 7 + round * 131) % 1000).into_bytes();
            if number % 5 == 4 {
                db.delete(&key).await.expect("is deleted");
                model.remove(&key);
                continue;
            }
            let value = [MARKER, format!(" {number} of round {round}").as_bytes()].concat();
            db.put(&key, &value).await.expect("is written");
            model.insert(key, value);
        }
        to_tables(&db).await.expect("is flushed");
    }
    assert!(model.len() > 500);
    assert_eq!(contents(&db).await, model);

    let begun = Instant::now();
    while db.manifest().compacted().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing is compacted");
        tokio::time::sleep(Duration::from_millis(100)).await;
        db.refresh_manifest().await.expect("is read");
    }
    assert_eq!(contents(&db).await, model, "after a compaction");
    for (key, value) in model.iter().step_by(50) {
        assert_eq!(db.get(key).await.expect("is read").as_deref(), Some(value.as_slice()));
    }
    assert_eq!(db.get(b"no such key").await.expect("is read"), None);
    db.put(b"in the log only", MARKER).await.expect("is written");
    db.flush().await.expect("is in the log");
    model.insert(b"in the log only".to_vec(), MARKER.to_vec());
    db.close().await.expect("is closed");

    let db = world.open(Some(3)).await.expect("opens again");
    assert_eq!(contents(&db).await, model, "after it was opened again");
    db.close().await.expect("is closed");
    let mut stored = Vec::new();
    for object in inner.list(None).try_collect::<Vec<_>>().await.expect("is listed") {
        stored.extend(inner.get(&object.location).await.expect("is there").bytes().await.expect("is read"));
    }
    assert!(stored.len() > 10_000);
    assert!(!stored.windows(MARKER.len()).any(|window| window == MARKER), "a value lies in the storage");
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_slatedb_does_its_basic_workload_over_memory() {
    workload(Arc::new(InMemory::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_slatedb_does_its_basic_workload_over_s3() {
    let (_server, inner) = s3();
    workload(inner).await;
}

#[test]
fn g1_slatedb_does_its_basic_workload_over_azure_blob_storage() {
    in_a_process_given_an_azurite(
        "what_a_process_that_is_given_an_azurite_does",
        "the workload is done over Azurite",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_that_is_given_an_azurite_does() {
    if !is_given_an_azurite() {
        return;
    }
    workload(azurite_store()).await;
    println!("the workload is done over Azurite");
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_d1_d2_a_revoked_slatedb_neither_reads_nor_acknowledges_and_has_everything_when_it_is_opened_again()
 {
    let world = World::new(Arc::new(InMemory::new()));
    let db = world.open(Some(0)).await.expect("opens");
    db.put(b"before", MARKER).await.expect("is written");
    to_tables(&db).await.expect("is flushed");
    world.revoke();
    let error = db.get(b"before").await.expect_err("is refused");
    assert_eq!(kind(&error), Some(ErrorKind::Revoked), "{error}");
    // Its own background may have met the refusal first, and have closed it.
    let written = match db.put(b"meanwhile", MARKER).await {
        Ok(handle) => handle.await_durable().await,
        Err(error) => Err(error),
    };
    let error = written.expect_err("is not acknowledged");
    assert_eq!(kind(&error), Some(ErrorKind::Revoked), "{error}");
    drop(db.close().await);
    let error = world.open(Some(0)).await.err().expect("does not open");
    assert_eq!(kind(&error), Some(ErrorKind::Revoked), "{error}");
    world.restore();
    let db = world.open(Some(0)).await.expect("opens again");
    assert_eq!(db.get(b"before").await.expect("is read").as_deref(), Some(MARKER));
    db.put(b"after", MARKER).await.expect("is written").await_durable().await.expect("is acknowledged");
    db.close().await.expect("is closed");
}

/// As it is set by itself, SlateDB tries again for ever: it waits, and goes on by itself when the key is back.
#[tokio::test(flavor = "multi_thread")]
async fn g1_d7_a_slatedb_that_retries_waits_out_a_revocation() {
    let world = World::new(Arc::new(InMemory::new()));
    let db = world.open(None).await.expect("opens");
    db.put(b"before", MARKER).await.expect("is written");
    to_tables(&db).await.expect("is flushed");
    world.revoke();
    let waits = tokio::time::timeout(Duration::from_millis(500), db.get(b"before")).await;
    assert!(waits.is_err(), "nothing is read meanwhile");
    world.restore();
    assert_eq!(db.get(b"before").await.expect("is read").as_deref(), Some(MARKER));
    db.put(b"after", MARKER).await.expect("is written").await_durable().await.expect("is acknowledged");
    db.close().await.expect("is closed");
}
