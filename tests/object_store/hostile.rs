//! Stores that lie, and objects that are not what they should be: typed errors, never a panic, never another's bytes.

use object_store::{ObjectStore, ObjectStoreExt};
use strongroom::{BlockSize, ErrorKind, Suite};

use crate::world::{BLOCK, Customer, HEADER, Lie, World, kind, pattern, store, store_of};

/// Every way to read four blocks; whatever is read has to be the truth.
async fn read_every_way(store: &dyn ObjectStore, path: &str, plain: &[u8]) -> Vec<object_store::Error> {
    let path = path.into();
    let mut errors = Vec::new();
    let ranges = [0..plain.len(), 0..10, 5_000..5_010, BLOCK..2 * BLOCK, plain.len() - 1..plain.len()];
    for range in ranges {
        let asked = range.start as u64..range.end as u64;
        match store.get_range(&path, asked.clone()).await {
            Ok(read) => assert!(plain[range.clone()].starts_with(&read), "{range:?}"),
            Err(error) => errors.push(error),
        }
        match store.get_ranges(&path, &[asked, 3..4]).await {
            Ok(read) => assert!(plain[range].starts_with(&read[0]) && read[1] == plain[3..4]),
            Err(error) => errors.push(error),
        }
    }
    match store.get(&path).await {
        Ok(answer) => match answer.bytes().await {
            Ok(read) => assert_eq!(read, plain, "a whole object is whole"),
            Err(error) => errors.push(error),
        },
        Err(error) => errors.push(error),
    }
    errors
}

#[tokio::test]
async fn f3_a_store_that_lies_is_found_out_in_every_way_of_reading() {
    for world in [World::new(), World::double()] {
        let plain = pattern(4 * BLOCK);
        world.put("a", &plain).await;
        world.put("b", &vec![0xB; 4 * BLOCK]).await;
        let frame = world.frame();
        let stored = (HEADER + 4 * frame) as u64;
        let lies = [
            Lie::Short(1),
            Lie::Short(frame),
            Lie::Short(usize::MAX),
            Lie::Long(1),
            Lie::Long(frame),
            Lie::Flip(0),
            Lie::Flip(30),
            Lie::Size(0),
            Lie::Size(stored - 1),
            Lie::Size(stored + frame as u64),
            Lie::Size(u64::MAX),
            Lie::Range(0..u64::MAX),
            Lie::Range(1..2),
            Lie::Swap("b"),
        ];
        for lie in lies {
            for warm in [false, true] {
                let store = world.cold();
                if warm {
                    world.bent.lie(None);
                    assert!(read_every_way(&store, "a", &plain).await.is_empty());
                }
                world.bent.lie(lie.clone());
                let errors = read_every_way(&store, "a", &plain).await;
                // Ranges that were all there, or that begin with what was not touched, may be read.
                assert!(!errors.is_empty(), "{lie:?} {warm}");
                for error in errors {
                    let ours = kind(&error);
                    let range = error.to_string().contains("range") || error.to_string().contains("Range");
                    let kinds = [ErrorKind::Format, ErrorKind::Corrupt, ErrorKind::Io].map(Some);
                    assert!(kinds.contains(&ours) || range, "{lie:?} {warm}: {error}");
                }
            }
        }
        world.bent.lie(None);
        assert!(read_every_way(&world.store, "a", &plain).await.is_empty());
    }
}

#[tokio::test]
async fn f3_truncated_extended_spliced_and_foreign_objects_are_refused() {
    for world in [World::new(), World::double()] {
        let plain = pattern(4 * BLOCK);
        world.put("a", &plain).await;
        world.put("b", &vec![0xB; 4 * BLOCK]).await;
        let (a, b) = (world.stored("a").await, world.stored("b").await);
        let last = a.len() - world.frame();
        let mut future = a.clone();
        future[8] = 2;
        let mut block_size = a.clone();
        block_size[10] = 16;
        let objects: [(&str, Vec<u8>, ErrorKind); 11] = [
            ("nothing", Vec::new(), ErrorKind::Format),
            ("text", b"no object".repeat(1000), ErrorKind::Format),
            ("half a header", a[..40].to_vec(), ErrorKind::Format),
            ("a header", a[..HEADER].to_vec(), ErrorKind::Format),
            ("cut at a frame's edge", a[..last].to_vec(), ErrorKind::Corrupt),
            ("cut within a frame", a[..last + 100].to_vec(), ErrorKind::Corrupt),
            ("extended", [&a[..], &a[last..]].concat(), ErrorKind::Corrupt),
            ("spliced", [&a[..last], &b[last..]].concat(), ErrorKind::Corrupt),
            ("another path's", b.clone(), ErrorKind::Corrupt),
            ("from the future", future, ErrorKind::Format),
            ("of another block size", block_size, ErrorKind::Corrupt),
        ];
        for (what, bytes, expected) in objects {
            world.store_raw("a", &bytes).await;
            let found = world.read("a").await.map(|_| ()).unwrap_err();
            assert_eq!(kind(&found), Some(expected), "{what}: {found}");
            // By ranges, what is given out is the truth; and nothing is copied that is not whole.
            read_every_way(&world.cold(), "a", &plain).await;
            let copied = world.store.copy(&"a".into(), &"copy".into()).await.unwrap_err();
            assert_eq!(kind(&copied), Some(expected), "{what}: {copied}");
            assert!(world.store.head(&"copy".into()).await.is_err(), "{what}");
            // It is still there, and can be replaced.
            assert_eq!(world.stored("a").await, bytes, "{what}");
        }
        world.put("a", &plain).await;
        assert_eq!(world.read("a").await.unwrap(), plain);
        // Swapped behind the back of a store that remembers both headers.
        world.store_raw("a", &a).await;
        world.read("a").await.unwrap();
        world.store_raw("a", &b).await;
        assert_eq!(kind(&world.read("a").await.unwrap_err()), Some(ErrorKind::Corrupt));
        let range = world.store.get_range(&"a".into(), 5_000..5_001).await;
        assert_eq!(kind(&range.unwrap_err()), Some(ErrorKind::Corrupt));
    }
}

#[tokio::test]
async fn f3_a_header_that_came_with_more_than_was_asked_for_is_refused() {
    let world = World::new();
    world.put("a", &pattern(4 * BLOCK)).await;
    world.bent.lie(Lie::LongHeader(1));
    let range = world.cold().get_range(&"a".into(), 5_000..5_001).await.map(drop);
    let ranges = world.cold().get_ranges(&"a".into(), &[5_000..5_001]).await.map(drop);
    for refused in [range.unwrap_err(), ranges.unwrap_err()] {
        assert_eq!(kind(&refused), Some(ErrorKind::Format), "{refused}");
    }
}

#[tokio::test]
async fn f3_every_flipped_bit_of_an_object_is_refused() {
    for world in [World::new(), World::double()] {
        world.put("a", b"a short object").await;
        let sealed = world.stored("a").await;
        for at in 0..sealed.len() * 8 {
            let mut bytes = sealed.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            world.store_raw("a", &bytes).await;
            let kind = kind(&world.read("a").await.unwrap_err()).unwrap();
            let kinds = [ErrorKind::Corrupt, ErrorKind::Format, ErrorKind::UnknownGeneration];
            assert!(kinds.contains(&kind), "bit {at}: {kind:?}");
        }
    }
}

#[tokio::test]
async fn f3_an_object_of_another_account_or_store_does_not_open() {
    for (world, stranger, suite) in [
        (World::new(), Customer::new(), Suite::Aes256Gcm),
        (World::double(), Customer::double(), Suite::Double),
    ] {
        world.put("a", b"ours").await;
        let other = store_of(world.bent.clone(), &stranger.account, BlockSize::MIN, suite);
        let error = other.get(&"a".into()).await.unwrap_err();
        assert_eq!(kind(&error), Some(ErrorKind::Corrupt));

        let router = strongroom::store::OneAccount::new(world.customer.account.clone());
        let builder = crate::SealedStore::builder(world.bent.clone(), "another bucket", router);
        let elsewhere = builder.block_size(BlockSize::MIN).suite(suite).build().unwrap();
        let error = elsewhere.get(&"a".into()).await.unwrap_err();
        assert_eq!(kind(&error), Some(ErrorKind::Corrupt));
    }
}

#[tokio::test]
async fn a_payload_is_never_passed_on() {
    use object_store::local::LocalFileSystem;
    use object_store::{GetOptions, GetResultPayload};

    let customer = Customer::new();
    let folder = tempfile::tempdir().unwrap();
    let disk = std::sync::Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    let store = store(disk, &customer.account, BlockSize::MIN);
    store.put(&"a".into(), pattern(9_000).into()).await.unwrap();
    for options in
        [GetOptions::new(), GetOptions::new().with_head(true), GetOptions::new().with_range(Some(1..2))]
    {
        let answer = store.get_opts(&"a".into(), options).await.unwrap();
        assert!(matches!(answer.payload, GetResultPayload::Stream(_)));
    }
}
