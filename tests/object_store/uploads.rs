//! Uploads in parts of any size, in any order.

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use object_store::{ObjectStoreExt, PutPayload};
use strongroom::ErrorKind;

use crate::world::{BLOCK, World, kind, pattern};

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn g1_pieces_of_any_size_become_equal_parts() {
    let world = World::with_large_blocks();
    // `Bent` checks the sizes of the parts that reach it.
    let plans: [&[usize]; 9] = [
        &[],
        &[0],
        &[1],
        &[BLOCK],
        &[0, 3, 0, BLOCK, 5],
        &[12 * MIB],
        &[6 * MIB, 6 * MIB, 6 * MIB],
        &[3, 11 * MIB, 7, 2 * MIB],
        &[5 * MIB - 1, 5 * MIB + 1, BLOCK],
    ];
    for pieces in plans {
        let plain = pattern(pieces.iter().sum());
        let mut upload = world.store.put_multipart(&"a".into()).await.unwrap();
        let mut rest = &plain[..];
        let mut parts = Vec::new();
        for len in pieces {
            let (piece, after) = rest.split_at(*len);
            // A payload of several chunks.
            let payload: PutPayload = piece.chunks(100_001).map(Bytes::copy_from_slice).collect();
            parts.push(upload.put_part(payload));
            rest = after;
        }
        parts.reverse();
        for part in parts {
            part.await.unwrap();
        }
        upload.complete().await.unwrap();
        assert_eq!(world.read("a").await.unwrap(), plain, "{pieces:?}");
        assert_eq!(world.store.head(&"a".into()).await.unwrap().size, plain.len() as u64);
    }
}

#[tokio::test]
async fn g1_an_upload_holds_back_less_than_a_part_and_a_block() {
    let world = World::with_large_blocks();
    let mut upload = world.store.put_multipart(&"a".into()).await.unwrap();
    for pieces in 1..=24 {
        upload.put_part(vec![7; MIB].into()).await.unwrap();
        let held_back = (pieces * MIB).saturating_sub(world.bent.sent());
        assert!(held_back <= 5 * MIB + 64 * 1024, "{held_back} bytes after {pieces} MiB");
    }
    upload.complete().await.unwrap();
}

#[tokio::test]
async fn an_upload_is_completed_only_when_every_part_has_arrived() {
    let world = World::with_large_blocks();
    let mut upload = world.store.put_multipart(&"a".into()).await.unwrap();
    let plain = pattern(18 * MIB);
    // The first has nothing to send: its last block may be the object's.
    upload.put_part(plain[..9 * MIB].to_vec().into()).await.unwrap();
    let forgotten = upload.put_part(plain[9 * MIB..].to_vec().into());
    let error = upload.complete().await.unwrap_err();
    assert_eq!(kind(&error), Some(ErrorKind::Misuse), "{error}");
    forgotten.await.unwrap();
    upload.complete().await.unwrap();
    assert_eq!(world.read("a").await.unwrap(), plain);
    assert_eq!(kind(&upload.complete().await.unwrap_err()), Some(ErrorKind::Misuse));
    assert_eq!(kind(&upload.put_part("x".into()).await.unwrap_err()), Some(ErrorKind::Misuse));
}

#[tokio::test]
async fn an_upload_that_is_aborted_leaves_nothing() {
    let world = World::with_large_blocks();
    let mut upload = world.store.put_multipart(&"a".into()).await.unwrap();
    upload.put_part(pattern(6 * MIB).into()).await.unwrap();
    upload.abort().await.unwrap();
    assert!(world.store.head(&"a".into()).await.is_err());
    assert!(upload.complete().await.is_err());
}

#[tokio::test]
async fn uploads_of_one_path_at_a_time_do_not_mix() {
    let world = World::with_large_blocks();
    let mut uploads =
        try_join_all((0..3).map(|_| async { world.store.put_multipart(&"a".into()).await })).await.unwrap();
    for round in 0..4 {
        let parts = uploads
            .iter_mut()
            .zip(0_u8..)
            .map(|(upload, i)| upload.put_part(vec![10 * i + round; 2 * MIB].into()));
        try_join_all(parts.collect::<Vec<_>>()).await.unwrap();
    }
    join_all(uploads.iter_mut().map(|upload| upload.complete())).await;
    let read = world.read("a").await.unwrap();
    assert_eq!(read.len(), 8 * MIB);
    let writer = read[0] / 10;
    for (round, part) in read.chunks(2 * MIB).enumerate() {
        assert!(part.iter().all(|byte| usize::from(*byte) == usize::from(10 * writer) + round));
    }
}
