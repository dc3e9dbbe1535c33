//! The nth operation of the store underneath fails, for every n: nothing acknowledged is lost, nothing wrong is read.

use object_store::{ObjectStore, ObjectStoreExt};

use crate::evidence::report;
use crate::world::{World, is_planted, kind, pattern};

/// More than one part.
const LARGE: usize = 6 * 1024 * 1024;

/// One of everything, until something fails.
async fn everything(
    world: &World,
    acknowledged: &mut Vec<(&'static str, Vec<u8>)>,
) -> object_store::Result<()> {
    let store = &world.store;
    store.put(&"small".into(), pattern(9_000).into()).await?;
    acknowledged.push(("small", pattern(9_000)));
    let mut upload = store.put_multipart(&"large".into()).await?;
    for piece in pattern(LARGE).chunks(4 * 1024 * 1024) {
        upload.put_part(piece.to_vec().into()).await?;
    }
    upload.complete().await?;
    acknowledged.push(("large", pattern(LARGE)));
    // The header of `large` is not known yet: two requests.
    let range = 5_000_000..5_001_000;
    assert_eq!(
        store.get_range(&"large".into(), range.clone()).await?,
        pattern(LARGE)[range.start as usize..][..1000]
    );
    store.get_ranges(&"small".into(), &[1..2, 8_000..8_999]).await?;
    store.copy(&"large".into(), &"copy".into()).await?;
    acknowledged.push(("copy", pattern(LARGE)));
    store.copy_if_not_exists(&"large".into(), &"created".into()).await?;
    acknowledged.push(("created", pattern(LARGE)));
    store.rename(&"small".into(), &"renamed".into()).await?;
    acknowledged.retain(|(path, _)| *path != "small");
    acknowledged.push(("renamed", pattern(9_000)));
    store.list_with_delimiter(None).await?;
    store.delete(&"copy".into()).await?;
    acknowledged.retain(|(path, _)| *path != "copy");
    Ok(())
}

#[tokio::test]
async fn r14_every_operation_fails_in_turn_and_nothing_acknowledged_is_lost() {
    let mut nth = 0;
    loop {
        nth += 1;
        let world = World::with_large_blocks();
        world.bent.fail_at(nth);
        let mut acknowledged = Vec::new();
        let done = everything(&world, &mut acknowledged).await;
        let reached = world.bent.operations() >= nth;
        world.bent.fail_at(0);
        match done {
            Ok(()) if !reached => break,
            // A rename whose copy arrived and whose source could not be deleted has both.
            Ok(()) => {}
            Err(error) => assert!(is_planted(&error) || kind(&error).is_some(), "{nth}: {error}"),
        }
        for (path, plain) in &acknowledged {
            let read = world.read(path).await;
            assert_eq!(read.unwrap_or_else(|error| panic!("{nth} {path}: {error}")), plain, "{nth} {path}");
        }
    }
    report("R14", "object store calls failed", nth - 1, ">=", 20);
    assert!(nth > 20, "{nth} operations");
}
