//! Copies and renames: sealed anew for their place, in memory that does not grow, in the mode that was asked for.

use object_store::{Attribute, Attributes, ObjectStore, ObjectStoreExt, PutOptions};

use crate::world::{HEADER, World, pattern};

const LARGE: usize = 11 * 1024 * 1024;

#[tokio::test]
async fn g1_copies_of_any_size_keep_attributes_and_are_objects_of_their_own() {
    let world = World::with_large_blocks();
    for len in [0, 10_000, LARGE] {
        let plain = pattern(len);
        let attributes = Attributes::from_iter([(Attribute::ContentType, "text/plain")]);
        let options: PutOptions = attributes.clone().into();
        world.store.put_opts(&"a".into(), plain.clone().into(), options).await.unwrap();
        for (to, create) in [("b", false), ("f/c", true)] {
            let done = match create {
                false => world.store.copy(&"a".into(), &to.into()).await,
                true => world.store.copy_if_not_exists(&"a".into(), &to.into()).await,
            };
            done.unwrap();
            let copy = world.store.get(&to.into()).await.unwrap();
            assert_eq!(copy.attributes, attributes);
            assert_eq!(copy.bytes().await.unwrap(), plain);
            let (sealed, copied) = (world.stored("a").await, world.stored(to).await);
            assert_eq!(sealed.len(), copied.len());
            assert_ne!(sealed[32..HEADER], copied[32..HEADER], "an object id of its own");
        }
        let again = world.store.copy_if_not_exists(&"a".into(), &"f/c".into()).await.unwrap_err();
        assert!(matches!(again, object_store::Error::AlreadyExists { .. }), "{again}");
        let again = world.store.rename_if_not_exists(&"a".into(), &"b".into()).await.unwrap_err();
        assert!(matches!(again, object_store::Error::AlreadyExists { .. }), "{again}");
        assert_eq!(world.read("a").await.unwrap(), plain, "what could not be renamed is where it was");
        world.store.rename(&"a".into(), &"d".into()).await.unwrap();
        assert_eq!(world.read("d").await.unwrap(), plain);
        assert!(matches!(world.read("a").await, Err(object_store::Error::NotFound { .. })));
        for path in ["b", "f/c", "d"] {
            world.store.delete(&path.into()).await.unwrap();
        }
        assert_eq!(
            futures_util::StreamExt::count(world.bent.memory.list(None)).await,
            0,
            "nothing is left over"
        );
    }
}

#[tokio::test]
async fn a_copy_of_a_damaged_object_is_none() {
    let world = World::with_large_blocks();
    world.put("a", &pattern(LARGE)).await;
    let mut sealed = world.stored("a").await;
    let end = sealed.len() - 1;
    sealed[end] ^= 1;
    world.store_raw("a", &sealed).await;
    assert!(world.store.copy(&"a".into(), &"b".into()).await.is_err());
    assert!(world.store.head(&"b".into()).await.is_err());
}
