//! The suite that `object_store` publishes for its own stores, through ours.

use std::future::Future;
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{ObjectStore, integration};
use strongroom::BlockSize;

use crate::world::{Customer, store};

/// Each case begins with an empty store.
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
