//! What reading costs in requests and bytes, and that options go through.

use std::time::Duration;

use futures_util::{FutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use strongroom::store::OneAccount;
use strongroom::{BlockSize, ErrorKind};

use crate::SealedStore;
use crate::world::{BLOCK, FRAME, HEADER, Lie, World, kind, pattern};

fn bounded(start: usize, end: usize) -> Option<GetRange> {
    Some(GetRange::Bounded(start as u64..end as u64))
}

fn frame_at(index: usize) -> usize {
    HEADER + index * FRAME
}

#[tokio::test]
async fn f4_a_range_of_a_warm_object_costs_one_request_and_the_blocks_it_covers() {
    let world = World::new();
    let plain = pattern(9 * BLOCK + 5);
    world.put("a", &plain).await;
    world.read("a").await.unwrap();
    world.bent.reads();
    for start in [BLOCK, 2 * BLOCK + 7, 5 * BLOCK - 1, 8 * BLOCK] {
        let read = world.store.get_range(&"a".into(), start as u64..(start + BLOCK) as u64).await.unwrap();
        assert_eq!(read, plain[start..start + BLOCK]);
        let reads = world.bent.reads();
        let (first, last) = (start / BLOCK, start.div_ceil(BLOCK));
        assert_eq!(reads.len(), 1);
        assert_eq!(reads[0].range, bounded(frame_at(first), frame_at(last + 1)));
        assert!(last - first < 2, "at most two blocks");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn d4_what_a_range_leaves_out_is_not_in_the_memory_that_is_given_out() {
    use std::os::unix::fs::FileExt;

    let world = World::new();
    let plain = vec![0xa5; 2 * BLOCK];
    world.put("a", &plain).await;
    let memory = std::fs::File::open("/proc/self/mem").unwrap();
    let read = world.store.get_range(&"a".into(), 1_000..1_100).await.unwrap();
    // One block was opened, and what is given out is a part of where it was.
    let mut block = vec![0; BLOCK];
    memory.read_exact_at(&mut block, (read.as_ptr().addr() - 1_000) as u64).unwrap();
    assert_eq!(block[1_000..1_100], plain[..100], "the positive control");
    assert!(!block[..1_000].contains(&0xa5) && !block[1_100..].contains(&0xa5));
}

#[tokio::test]
async fn f4_a_cold_range_costs_two_requests_at_the_same_time_and_one_at_the_start() {
    let world = World::new();
    let plain = pattern(9 * BLOCK);
    world.put("a", &plain).await;

    let read = world.cold().get_range(&"a".into(), 20_000..20_010).await.unwrap();
    assert_eq!(read, plain[20_000..20_010]);
    let reads = world.bent.reads();
    assert_eq!(reads.len(), 2);
    assert!(reads.iter().any(|read| read.range == bounded(0, HEADER)));

    world.cold().get_range(&"a".into(), 10..20).await.unwrap();
    let reads = world.bent.reads();
    assert_eq!((reads.len(), &reads[0].range), (1, &bounded(0, frame_at(1))));

    world.cold().get(&"a".into()).await.unwrap().bytes().await.unwrap();
    assert_eq!(world.bent.reads().len(), 1);
}

#[tokio::test]
async fn f4_many_ranges_are_one_request_and_each_block_is_fetched_once() {
    let world = World::new();
    let plain = pattern(60 * BLOCK + 9);
    world.put("a", &plain).await;
    let len = plain.len() as u64;
    let ranges = [200_000..200_004, 5..9, 200_001..204_801, 0..1, 90_000..90_001, len - 3..len + 10];
    for store in [&world.cold(), &world.store] {
        let read = store.get_ranges(&"a".into(), &ranges).await.unwrap();
        for (range, read) in ranges.iter().zip(read) {
            let end = range.end.min(len);
            assert_eq!(read, plain[range.start as usize..end as usize], "{range:?}");
        }
        let reads = world.bent.reads();
        assert_eq!((reads.len(), &reads[0].range), (1, &bounded(0, frame_at(61))));
    }
    // Warm, and far enough apart for two requests.
    let far = pattern(700 * BLOCK);
    world.put("far", &far).await;
    world.store.get_ranges(&"far".into(), &[BLOCK as u64..5000]).await.unwrap();
    world.bent.reads();
    let ranges = [2_800_000..2_800_100, 5_000..5_001];
    let read = world.store.get_ranges(&"far".into(), &ranges).await.unwrap();
    assert_eq!((&read[0][..], &read[1][..]), (&far[2_800_000..2_800_100], &far[5_000..5_001]));
    assert_eq!(world.bent.reads().len(), 2);
    // Near each other, and far from the beginning.
    let ranges = [2_800_000..2_800_001, 2_000_000..2_000_001];
    world.store.get_ranges(&"far".into(), &ranges).await.unwrap();
    assert_eq!(world.bent.reads().len(), 1);

    let backwards = std::ops::Range { start: 7, end: 6 };
    for wrong in [0..0, backwards, len..len + 1] {
        assert!(world.store.get_ranges(&"a".into(), &[3..4, wrong.clone()]).await.is_err(), "{wrong:?}");
    }
    assert!(world.store.get_ranges(&"a".into(), &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_object_that_was_replaced_is_read_with_its_own_header() {
    let world = World::new();
    world.put("a", &pattern(5 * BLOCK)).await;
    world.read("a").await.unwrap();
    // Behind the store's back, so that it cannot know; and of the same length.
    let other = vec![9; 5 * BLOCK];
    world.cold().put(&"a".into(), other.clone().into()).await.unwrap();
    let read = world.store.get_range(&"a".into(), 9_000..9_010).await.unwrap();
    assert_eq!(read, other[9_000..9_010]);
    world.cold().put(&"a".into(), pattern(5 * BLOCK).into()).await.unwrap();
    let read = world.store.get_ranges(&"a".into(), &[9_000..9_010]).await.unwrap();
    assert_eq!(read[0], pattern(5 * BLOCK)[9_000..9_010]);
}

/// At least half of as many as it was told, and no more.
#[tokio::test]
async fn headers_of_the_last_objects_are_remembered_and_older_ones_are_not() {
    let world = World::new();
    let router = OneAccount::new(world.customer.account.clone());
    let builder = SealedStore::builder(world.bent.clone(), "bucket", router).block_size(BlockSize::MIN);
    let store = builder.cached_headers(4).build().unwrap();
    let path = |number: usize| Path::from(format!("{number}"));
    let cost = async |number: usize| {
        world.bent.reads();
        store.get_range(&path(number), 5_000..5_001).await.unwrap();
        world.bent.reads().len()
    };
    for number in 0..10 {
        store.put(&path(number), pattern(2 * BLOCK).into()).await.unwrap();
        assert_eq!(cost(number).await, 2, "{number}");
        // What is used again and again stays.
        assert_eq!(cost(0).await, 1, "{number}");
    }
    for (number, requests) in [(9, 1), (8, 1), (0, 1), (1, 2), (2, 2), (3, 2), (4, 2)] {
        assert_eq!(cost(number).await, requests, "{number}");
    }
}

#[tokio::test]
async fn suffixes_offsets_and_the_ends_are_as_with_plain_objects() {
    let world = World::new();
    for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 4 * BLOCK, 4 * BLOCK + 1] {
        let plain = pattern(len);
        world.put("a", &plain).await;
        world.bent.memory.put(&"plain".into(), plain.clone().into()).await.unwrap();
        let (end, block) = (len as u64, BLOCK as u64);
        let ranges = [
            GetRange::Suffix(1),
            GetRange::Suffix(block),
            GetRange::Suffix(end),
            GetRange::Suffix(u64::MAX),
            GetRange::Offset(0),
            GetRange::Offset(end.saturating_sub(1)),
            GetRange::Offset(end),
            GetRange::Offset(u64::MAX),
            GetRange::Bounded(0..1),
            GetRange::Bounded(0..u64::MAX),
            GetRange::Bounded(end..end + 1),
            GetRange::Bounded(block..block + 1),
            GetRange::Bounded(u64::MAX - 1..u64::MAX),
            GetRange::Bounded(5..5),
        ];
        for range in ranges {
            let options = GetOptions::new().with_range(Some(range.clone()));
            let expected = world.bent.memory.get_opts(&"plain".into(), options.clone()).await;
            for store in [&world.store, &world.cold()] {
                match (store.get_opts(&"a".into(), options.clone()).await, &expected) {
                    (Ok(found), Ok(expected)) => {
                        assert_eq!(
                            (&found.range, found.meta.size),
                            (&expected.range, end),
                            "{len} {range:?}"
                        );
                        let (start, end) = (found.range.start as usize, found.range.end as usize);
                        assert_eq!(found.bytes().await.unwrap(), plain[start..end]);
                    }
                    (Err(_), Err(_)) => {}
                    (found, expected) => panic!("{len} {range:?}: {found:?} and not {expected:?}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn conditions_versions_and_extensions_reach_the_store_and_head_reads_nothing() {
    let world = World::new();
    world.put("a", b"abc").await;
    let meta = world.store.head(&"a".into()).await.unwrap();
    let reads = world.bent.reads();
    assert_eq!((meta.size, reads.len(), reads[0].options.head), (3, 1, true));

    let mut options = GetOptions::new()
        .with_if_match(meta.e_tag.clone())
        .with_if_modified_since(Some(meta.last_modified - Duration::from_secs(9)))
        .with_range(Some(1..2));
    options.extensions.insert(Mark);
    world.store.get_opts(&"a".into(), options).await.unwrap();
    let sent = world.bent.reads().remove(0).options;
    assert_eq!(sent.if_match, meta.e_tag);
    assert!(sent.if_modified_since.is_some() && sent.extensions.get::<Mark>().is_some());

    let none = GetOptions::new().with_if_none_match(meta.e_tag.clone());
    let error = world.store.get_opts(&"a".into(), none).await.unwrap_err();
    assert!(matches!(error, object_store::Error::NotModified { .. }), "{error}");
    let other = GetOptions::new().with_if_match(Some("other"));
    let error = world.store.get_opts(&"a".into(), other).await.unwrap_err();
    assert!(matches!(error, object_store::Error::Precondition { .. }), "{error}");
}

#[derive(Clone)]
struct Mark;

#[tokio::test]
async fn listings_have_plain_sizes_and_leave_out_what_cannot_be_an_object() {
    let world = World::new();
    world.put("f/a", &pattern(BLOCK + 1)).await;
    world.put("f/g/b", b"").await;
    world.store_raw("f/c", b"_SUCCESS").await;
    let names = |list: Vec<object_store::ObjectMeta>| -> Vec<(String, u64)> {
        list.into_iter().map(|meta| (meta.location.to_string(), meta.size)).collect()
    };
    let all = names(world.store.list(None).try_collect().await.unwrap());
    assert_eq!(all, [("f/a".into(), BLOCK as u64 + 1), ("f/g/b".into(), 0)]);
    let after = names(world.store.list_with_offset(None, &"f/a".into()).try_collect().await.unwrap());
    assert_eq!(after, [("f/g/b".into(), 0)]);
    let folder = world.store.list_with_delimiter(Some(&"f".into())).await.unwrap();
    assert_eq!(names(folder.objects), [("f/a".into(), BLOCK as u64 + 1)]);
    assert_eq!(folder.common_prefixes, ["f/g".into()]);
    let foreign = names(world.store.list_foreign(None).try_collect().await.unwrap());
    assert_eq!(foreign, [("f/c".into(), 8)]);
    assert_eq!(kind(&world.store.head(&"f/c".into()).await.unwrap_err()), Some(ErrorKind::Format));
}

#[tokio::test]
async fn an_object_is_a_sealed_object_of_the_documented_context() {
    use strongroom::{Context, SealedObject};

    let world = World::new();
    world.put("f/a", b"abc").await;
    let context = Context::new(&[b"bucket", b"f/a"]);
    let reader =
        SealedObject::reader(world.customer.account.clone(), context, world.stored("f/a").await).unwrap();
    let mut plain = [0; 3];
    reader.read_at(0, &mut plain).unwrap();
    assert_eq!(&plain, b"abc");
}

#[tokio::test]
async fn pieces_of_any_size_are_put_together() {
    let world = World::new();
    let plain = pattern(3 * BLOCK + 77);
    world.put("a", &plain).await;
    for len in [1, 79, 80, 81, BLOCK, FRAME, FRAME + 1, 3 * FRAME] {
        world.bent.lie(Lie::Pieces(len));
        assert_eq!(world.cold().get(&"a".into()).await.unwrap().bytes().await.unwrap(), plain, "{len}");
        assert_eq!(world.cold().get_range(&"a".into(), 5000..9000).await.unwrap(), plain[5000..9000]);
        assert_eq!(world.cold().get_ranges(&"a".into(), &[5000..9000]).await.unwrap()[0], plain[5000..9000]);
    }
}

#[tokio::test]
async fn g1_a_stream_pulls_no_more_than_it_needs_for_its_next_chunk() {
    const MIB: usize = 1024 * 1024;
    const PIECE: usize = 16 * 1024;
    let world = World::new();
    world.put("a", &pattern(8 * MIB)).await;
    world.bent.lie(Lie::Pieces(PIECE));
    let mut stream = world.store.get(&"a".into()).await.unwrap().into_stream();
    let mut given = 0;
    while let Some(chunk) = stream.try_next().await.unwrap() {
        given += chunk.len();
        let sealed = HEADER + given / BLOCK * FRAME;
        assert!(chunk.len() <= MIB && world.bent.pulled() <= sealed + PIECE, "{given}");
    }
    assert_eq!(given, 8 * MIB);
}

/// A store in memory keeps nobody waiting.
#[tokio::test]
async fn a_stream_that_is_never_kept_waiting_gives_way_once_in_8_mib() {
    let world = World::with_large_blocks();
    world.put("a", &pattern(20 * 1024 * 1024)).await;
    let mut stream = world.store.get(&"a".into()).await.unwrap().into_stream();
    let (mut given, mut gave_way) = (0, 0);
    loop {
        match stream.try_next().now_or_never() {
            None => gave_way += 1,
            Some(Ok(Some(chunk))) => given += chunk.len(),
            Some(end) => {
                assert!(end.unwrap().is_none());
                break;
            }
        }
    }
    assert_eq!((given, gave_way), (20 * 1024 * 1024, 2));
}

#[tokio::test]
async fn another_block_size_is_an_error() {
    let world = World::new();
    world.put("a", &pattern(100)).await;
    let router = OneAccount::new(world.customer.account.clone());
    let other = SealedStore::builder(world.bent.clone(), "bucket", router).build().unwrap();
    let error = other.get(&"a".into()).await.unwrap_err();
    assert_eq!(kind(&error), Some(ErrorKind::Misuse));
}

#[test]
fn a_part_size_that_stores_refuse_is_refused() {
    let world = World::new();
    for size in [0, 5 * 1024 * 1024 - 1] {
        let router = OneAccount::new(world.customer.account.clone());
        let built = SealedStore::builder(world.bent.clone(), "bucket", router).part_size(size).build();
        assert_eq!(built.unwrap_err().kind(), ErrorKind::Misuse);
    }
}
