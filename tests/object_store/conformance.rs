//! The suite that `object_store` publishes for its own stores, through ours.

use std::future::Future;
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt, integration};
use strongroom::{BlockSize, Suite};

use crate::world::{Customer, store, store_of};

/// All of `integration` but `multipart*` and `list_paginated`, which take a `MultipartStore` and a `PaginatedListStore`: a sealed store
/// is neither, on purpose. Each case begins with an empty store.
async fn suite<F: Future<Output = ()>>(
    store: impl Fn() -> Box<dyn ObjectStore>,
    differing: impl FnOnce(Box<dyn ObjectStore>) -> F,
) {
    integration::put_get_delete_list(&store()).await;
    integration::get_opts(&store()).await;
    integration::list_uses_directories_correctly(&store()).await;
    integration::list_with_delimiter(&store()).await;
    integration::list_with_offset_exclusivity(&store()).await;
    integration::rename_and_copy(&store()).await;
    integration::copy_if_not_exists(&store()).await;
    integration::copy_rename_nonexistent_object(&store()).await;
    integration::stream_get(&store()).await;
    integration::multipart_race_condition(&store(), true).await;
    integration::multipart_out_of_order(&store()).await;
    integration::put_get_attributes(&store()).await;
    assert!(integration::get_nonexistent_object(&store(), None).await.is_err());
    differing(store()).await;
}

#[tokio::test]
async fn g1_the_public_suite_passes_over_memory() {
    let customer = Customer::new();
    let memory = || -> Box<dyn ObjectStore> {
        Box::new(store(Arc::new(InMemory::new()), &customer.account, BlockSize::DEFAULT))
    };
    suite(memory, |store| async move { integration::put_opts(&store, true).await }).await;
}

#[tokio::test]
async fn a6_a_sealed_store_has_one_suite() {
    let (single, double) = (Customer::new(), Customer::double());
    let memory = || -> Box<dyn ObjectStore> {
        Box::new(store_of(Arc::new(InMemory::new()), &double.account, BlockSize::DEFAULT, Suite::Double))
    };
    suite(memory, |store| async move { integration::put_opts(&store, true).await }).await;

    // Neither writes nor reads an object of the other one.
    let inner = Arc::new(InMemory::new());
    let path = object_store::path::Path::from("object");
    for (ours, suite, theirs, other) in [
        (&single.account, Suite::Aes256Gcm, &double.account, Suite::Double),
        (&double.account, Suite::Double, &single.account, Suite::Aes256Gcm),
    ] {
        let ours_in_ours = store_of(inner.clone(), ours, BlockSize::MIN, suite);
        ours_in_ours.put(&path, vec![7; 5000].into()).await.unwrap();
        assert_eq!(ours_in_ours.head(&path).await.unwrap().size, 5000);
        assert_eq!(ours_in_ours.get_range(&path, 4090..4100).await.unwrap(), [7; 10].as_slice());
        assert!(store_of(inner.clone(), ours, BlockSize::MIN, other).get(&path).await.is_err());
        assert!(store_of(inner.clone(), theirs, BlockSize::MIN, other).get(&path).await.is_err());
        let wrong = store_of(inner.clone(), ours, BlockSize::MIN, other);
        assert!(wrong.put(&path, vec![7; 5000].into()).await.is_err());
        assert_eq!(ours_in_ours.get(&path).await.unwrap().bytes().await.unwrap(), [7; 5000].as_slice());
    }
}

#[tokio::test]
async fn g1_the_public_suite_passes_over_local_disk() {
    let customer = Customer::new();
    let folder = tempfile::tempdir().unwrap();
    let disk = || -> Box<dyn ObjectStore> {
        let root = tempfile::tempdir_in(folder.path()).unwrap().keep();
        Box::new(store(
            Arc::new(LocalFileSystem::new_with_prefix(root).unwrap()),
            &customer.account,
            BlockSize::DEFAULT,
        ))
    };
    suite(disk, |store| async move { integration::put_opts(&store, false).await }).await;
}
