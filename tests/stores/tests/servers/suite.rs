//! The suite that `object_store` publishes for its own stores, through a sealed one over real servers (contract G1).

use std::sync::Arc;

use object_store::{ObjectStore, ObjectStoreExt, integration};
use strongroom::provider::Kek;
use strongroom::store::OneAccount;
use strongroom::testing::{ManualClock, ScriptedProvider};
use strongroom::{AccountId, AccountSpec, AekCache, ErrorKind};
use strongroom_stores_tests::{in_a_process_given_an_azurite, is_given_an_azurite, s3};

use crate::{Artifacts, SealedStore, azurite_store, s3_store};

const MIB: usize = 1024 * 1024;
fn sealed(inner: Arc<dyn ObjectStore>) -> (SealedStore, AekCache) {
    let kms = Arc::new(ScriptedProvider::on_virtual_time());
    kms.add_key("orders");
    let cache = AekCache::builder().manual(&ManualClock::new()).build().expect("a cache");
    let spec = AccountSpec::new(AccountId::random(), kms, Kek::latest("orders"));
    let account = cache.create(spec).expect("an account");
    let store = SealedStore::builder(inner, "bucket", OneAccount::new(account));
    (store.build().expect("is complete"), cache)
}

/// All of `object_store::integration` but `multipart*` and `list_paginated`, which take a `MultipartStore` and a `PaginatedListStore`:
/// a sealed store is neither, on purpose. `last_writer_wins`: what the server makes of two uploads of one object at the same time.
async fn suite(store: &SealedStore, last_writer_wins: bool) {
    integration::put_get_delete_list(store).await;
    integration::get_opts(store).await;
    integration::list_uses_directories_correctly(store).await;
    integration::list_with_delimiter(store).await;
    integration::list_with_offset_exclusivity(store).await;
    integration::rename_and_copy(store).await;
    integration::copy_if_not_exists(store).await;
    integration::copy_rename_nonexistent_object(store).await;
    integration::stream_get(store).await;
    integration::put_opts(store, true).await;
    integration::multipart_race_condition(store, last_writer_wins).await;
    integration::multipart_out_of_order(store).await;
    integration::put_get_attributes(store).await;
    assert!(integration::get_nonexistent_object(store, None).await.is_err());
}

/// More than one part, read whole, by ranges, cold and warm, and copied.
async fn large(store: &SealedStore) {
    let plain: Vec<u8> =
        (0..20 * MIB).map(|at| (at % 251).to_le_bytes()[0] ^ (at >> 16).to_le_bytes()[0]).collect();
    let mut upload = store.put_multipart(&"large".into()).await.expect("begins");
    let mut parts = Vec::new();
    for piece in plain.chunks(3 * MIB + 7) {
        parts.push(tokio::spawn(upload.put_part(piece.to_vec().into())));
    }
    for part in parts {
        part.await.expect("runs").expect("arrives");
    }
    upload.complete().await.expect("is complete");
    for range in [9_000_000..9_004_096, 0..10, 20_971_500..20_971_520, 65_535..65_537] {
        let read =
            store.get_range(&"large".into(), range.start as u64..range.end as u64).await.expect("is read");
        assert_eq!(read, plain[range]);
    }
    let ranges = [5_000_000..5_000_001, 10..20, 19_000_000..19_100_000];
    let read = store.get_ranges(&"large".into(), &ranges).await.expect("are read");
    for (range, read) in ranges.iter().zip(read) {
        assert_eq!(
            read,
            plain[usize::try_from(range.start).expect("small")..usize::try_from(range.end).expect("small")]
        );
    }
    store.copy(&"large".into(), &"copy".into()).await.expect("is copied");
    let read = store.get(&"copy".into()).await.expect("is there").bytes().await.expect("is read");
    assert_eq!(read, plain);
    assert_eq!(store.head(&"copy".into()).await.expect("is there").size, plain.len() as u64);
}

/// Saved queries in the customer's store, and what the conditional put is for (contract G4).
async fn artifacts(store: &SealedStore) {
    let queries = Artifacts::new(store.clone(), "queries/saved").expect("a path");
    let first = queries.put("Errors by Höst / 5m", "one".into(), None).await.expect("is put");
    let mut racing = tokio::task::JoinSet::new();
    for nth in 0..4 {
        let queries = queries.clone();
        let bytes = format!("two {nth}").into();
        racing.spawn(async move { queries.put("Errors by Höst / 5m", bytes, Some(first)).await });
    }
    let done = racing.join_all().await;
    let lost: Vec<_> = done.iter().filter_map(|done| done.as_ref().err()).collect();
    assert_eq!(lost.len(), 3, "{done:?}");
    assert!(lost.iter().all(|error| error.kind() == ErrorKind::Conflict), "{done:?}");
    let newest = queries.get("Errors by Höst / 5m").await.expect("is read").expect("is there");
    assert_eq!((newest.version.number(), newest.bytes.len()), (2, 5));
    let old = queries.get_version("Errors by Höst / 5m", first).await.expect("is read").expect("is there");
    assert_eq!(old.bytes, "one");
    let listed = queries.list().await.expect("is listed");
    assert_eq!((listed[0].name.as_str(), listed[0].size, listed.len()), ("Errors by Höst / 5m", 5, 1));
    assert_eq!(queries.versions("Errors by Höst / 5m").await.expect("is listed").len(), 2);
    queries.delete("Errors by Höst / 5m", newest.version).await.expect("is deleted");
    assert_eq!(queries.get("Errors by Höst / 5m").await.expect("is asked for"), None);
    assert!(queries.list().await.expect("is listed").is_empty());
    assert_eq!(queries.put("Errors by Höst / 5m", "three".into(), None).await.expect("is put").number(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn g4_artifacts_over_s3() {
    let (server, _) = s3();
    let (store, _cache) = sealed(s3_store(&server.url()));
    artifacts(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_the_public_suite_passes_over_s3() {
    let (server, _) = s3();
    let (store, _cache) = sealed(s3_store(&server.url()));
    suite(&store, true).await;
    large(&store).await;
}

#[test]
fn g1_the_public_suite_passes_over_azure_blob_storage() {
    in_a_process_given_an_azurite(
        "suite::what_a_process_that_is_given_an_azurite_does",
        "the suite has passed over Azurite",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_that_is_given_an_azurite_does() {
    if !is_given_an_azurite() {
        return;
    }
    let (store, _cache) = sealed(azurite_store());
    suite(&store, false).await;
    large(&store).await;
    artifacts(&store).await;
    println!("the suite has passed over Azurite");
}
