//! No write is acknowledged across a gap in the lease, wherever in it the gap lies (contract D11).

use object_store::path::Path;
use object_store::{ObjectStoreExt, Result};
use strongroom::store::Route;
use strongroom::{BlockSize, Context, ErrorKind};

use crate::SealedStore;
use crate::world::{World, kind, pattern};

/// More than one part.
const LARGE: usize = 6 * 1024 * 1024;
const SMALL: usize = 9_000;

const KINDS: [&str; 9] = [
    "put",
    "upload",
    "copy of a small object",
    "copy of a large object",
    "copy to where nothing is, small",
    "copy to where nothing is, large",
    "rename of a small object",
    "rename of a large object",
    "rename to where nothing is, large",
];

async fn write(store: &SealedStore, kind: &str) -> Result<()> {
    let (small, large, to): (Path, Path, Path) = ("small".into(), "large".into(), "to".into());
    match kind {
        "put" => store.put(&to, pattern(SMALL).into()).await.map(drop),
        "upload" => {
            let mut upload = store.put_multipart(&to).await?;
            for piece in pattern(LARGE).chunks(4 * 1024 * 1024) {
                upload.put_part(piece.to_vec().into()).await?;
            }
            upload.complete().await.map(drop)
        }
        "copy of a small object" => store.copy(&small, &to).await,
        "copy of a large object" => store.copy(&large, &to).await,
        "copy to where nothing is, small" => store.copy_if_not_exists(&small, &to).await,
        "copy to where nothing is, large" => store.copy_if_not_exists(&large, &to).await,
        "rename of a small object" => store.rename(&small, &to).await,
        "rename of a large object" => store.rename(&large, &to).await,
        "rename to where nothing is, large" => store.rename_if_not_exists(&large, &to).await,
        other => panic!("{other}"),
    }
}

/// The account has a valid lease again when the write ends, but was without one while it was under way.
async fn none_is_acknowledged(world: &World, store: &SealedStore, kinds: &[&str]) {
    for what in kinds {
        for nth in 1.. {
            store.put(&"small".into(), pattern(SMALL).into()).await.unwrap();
            let mut upload = store.put_multipart(&"large".into()).await.unwrap();
            upload.put_part(pattern(LARGE).into()).await.unwrap();
            upload.complete().await.unwrap();
            store.delete(&"to".into()).await.unwrap();
            world.bent.interrupt_at(&world.customer, nth);
            let done = write(store, what).await;
            if world.bent.was_not_interrupted() {
                assert!(done.is_ok() && nth > 1, "{what} {nth}: {done:?}");
                break;
            }
            let error = done.expect_err(&format!("{what}, interrupted during operation {nth}"));
            assert_eq!(kind(&error), Some(ErrorKind::NotReady), "{what} {nth}: {error}");
            // Begun, two parts, and the completion, without which nothing appears.
            let appeared = store.head(&"to".into()).await.is_ok();
            assert!(*what != "upload" || appeared == (nth == 4), "{what} {nth}: {appeared}");
            // What was there before is at one of the two places.
            for (path, len) in [("small", SMALL), ("large", LARGE)] {
                let there = async |path: &str| match store.get(&path.into()).await {
                    Ok(found) => found.bytes().await.unwrap() == pattern(len),
                    Err(_) => false,
                };
                assert!(there(path).await || there("to").await, "{what} {nth}: {path} is lost");
            }
        }
    }
}

#[tokio::test]
async fn d11_no_write_is_acknowledged_across_a_gap_in_the_lease() {
    let world = World::with_large_blocks();
    none_is_acknowledged(&world, &world.store, &KINDS).await;
}

/// Where both paths are one account's in one context, the storage copies and renames.
#[tokio::test]
async fn d11_nor_what_the_storage_copies_by_itself() {
    let world = World::with_large_blocks();
    let route = Route::sealed_in(world.customer.account.clone(), Context::new(&[b"any place"]));
    let builder = SealedStore::builder(world.bent.clone(), "bucket", move |_: &str| route.clone());
    let store = builder.block_size(BlockSize::DEFAULT).part_size(5 * 1024 * 1024).build().unwrap();
    none_is_acknowledged(&world, &store, &KINDS[2..]).await;
}
