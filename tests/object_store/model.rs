//! A `Vec<u8>` for each path beside the real thing.

use std::collections::BTreeMap;
use std::ops::Range;

use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use proptest::prelude::*;

use crate::world::{BLOCK, World, pattern};

#[derive(Clone, Debug)]
enum Operation {
    Put(u8, usize),
    Create(u8, usize),
    Upload(u8, Vec<usize>),
    Copy(u8, u8, bool),
    Rename(u8, u8, bool),
    Delete(u8),
    Range(u8, Range<u64>),
    Ranges(u8, Vec<Range<u64>>),
}

fn operation() -> impl Strategy<Value = Operation> {
    let path = 0..4_u8;
    let range = || (0..20_000_u64, 1..9_000_u64).prop_map(|(start, len)| start..start + len);
    let len = || prop_oneof![0..20_000_usize, (0..5_usize).prop_map(|blocks| blocks * BLOCK)];
    prop_oneof![
        (path.clone(), len()).prop_map(|(path, len)| Operation::Put(path, len)),
        (path.clone(), len()).prop_map(|(path, len)| Operation::Create(path, len)),
        (path.clone(), prop::collection::vec(0..7_000_usize, 0..5))
            .prop_map(|(path, lens)| Operation::Upload(path, lens)),
        (path.clone(), path.clone(), any::<bool>())
            .prop_map(|(from, to, create)| Operation::Copy(from, to, create)),
        (path.clone(), path.clone(), any::<bool>())
            .prop_map(|(from, to, create)| Operation::Rename(from, to, create)),
        path.clone().prop_map(Operation::Delete),
        (path.clone(), range()).prop_map(|(path, range)| Operation::Range(path, range)),
        (path, prop::collection::vec(range(), 1..5))
            .prop_map(|(path, ranges)| Operation::Ranges(path, ranges)),
    ]
}

fn path(number: u8) -> Path {
    format!("folder/{number}").into()
}

/// What is put: never the same twice.
fn fresh(serial: usize, len: usize) -> Vec<u8> {
    pattern(len + serial).split_off(serial)
}

async fn apply(world: &World, model: &mut BTreeMap<u8, Vec<u8>>, operation: Operation, serial: usize) {
    let store = &world.store;
    match operation {
        Operation::Put(at, len) => {
            store.put(&path(at), fresh(serial, len).into()).await.unwrap();
            model.insert(at, fresh(serial, len));
        }
        Operation::Create(at, len) => {
            let mode = object_store::PutMode::Create;
            let done = store.put_opts(&path(at), fresh(serial, len).into(), mode.into()).await;
            assert_eq!(matches!(done, Err(Error::AlreadyExists { .. })), model.contains_key(&at));
            model.entry(at).or_insert_with(|| fresh(serial, len));
        }
        Operation::Upload(at, lens) => {
            let plain = fresh(serial, lens.iter().sum());
            let mut upload = store.put_multipart(&path(at)).await.unwrap();
            let mut rest = &plain[..];
            for len in lens {
                let (piece, after) = rest.split_at(len);
                upload.put_part(piece.to_vec().into()).await.unwrap();
                rest = after;
            }
            upload.complete().await.unwrap();
            model.insert(at, plain);
        }
        Operation::Copy(from, to, create) => {
            let done = match create {
                true => store.copy_if_not_exists(&path(from), &path(to)).await,
                false => store.copy(&path(from), &path(to)).await,
            };
            transfer(model, from, to, create, &done);
        }
        Operation::Rename(from, to, create) => {
            let done = match create {
                true => store.rename_if_not_exists(&path(from), &path(to)).await,
                false => store.rename(&path(from), &path(to)).await,
            };
            if transfer(model, from, to, create, &done) && from != to {
                model.remove(&from);
            }
        }
        Operation::Delete(at) => {
            store.delete(&path(at)).await.unwrap();
            model.remove(&at);
        }
        Operation::Range(at, range) => {
            check(model, at, &range, &store.get_range(&path(at), range.clone()).await);
        }
        Operation::Ranges(at, ranges) => {
            let read = store.get_ranges(&path(at), &ranges).await;
            match &read {
                Ok(read) => {
                    for (range, read) in ranges.iter().zip(read) {
                        check(model, at, range, &Ok(read.clone()));
                    }
                }
                Err(_) => {
                    let len = model.get(&at).map_or(0, Vec::len) as u64;
                    assert!(ranges.iter().any(|range| range.start >= len));
                }
            }
        }
    }
}

/// Whether it was to be done, and so was.
fn transfer(
    model: &mut BTreeMap<u8, Vec<u8>>,
    from: u8,
    to: u8,
    create: bool,
    done: &Result<(), Error>,
) -> bool {
    let Some(plain) = model.get(&from).cloned() else {
        assert!(matches!(done, Err(Error::NotFound { .. })), "{done:?}");
        return false;
    };
    if create && model.contains_key(&to) {
        assert!(matches!(done, Err(Error::AlreadyExists { .. })), "{done:?}");
        return false;
    }
    assert!(done.is_ok(), "{done:?}");
    model.insert(to, plain);
    true
}

fn check(model: &BTreeMap<u8, Vec<u8>>, at: u8, range: &Range<u64>, read: &Result<bytes::Bytes, Error>) {
    let plain = model.get(&at).filter(|plain| (range.start as usize) < plain.len());
    match (plain, read) {
        (Some(plain), Ok(read)) => {
            let end = plain.len().min(range.end as usize);
            assert_eq!(read, &plain[range.start as usize..end]);
        }
        (None, Err(error)) => {
            assert_eq!(matches!(error, Error::NotFound { .. }), !model.contains_key(&at), "{error}");
        }
        (plain, read) => panic!("{range:?}: {:?} and {read:?}", plain.map(Vec::len)),
    }
}

async fn compare(world: &World, model: &BTreeMap<u8, Vec<u8>>) {
    let listed: Vec<_> = world.store.list(None).try_collect().await.unwrap();
    let listed: BTreeMap<_, _> = listed.into_iter().map(|meta| (meta.location, meta.size)).collect();
    let expected = model.iter().map(|(at, plain)| (path(*at), plain.len() as u64)).collect();
    assert_eq!(listed, expected);
    for (at, plain) in model {
        assert_eq!(world.store.get(&path(*at)).await.unwrap().bytes().await.unwrap(), plain);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 48 } else { 1024 }))]

    #[test]
    fn g1_f4_any_history_agrees_with_a_vec(operations in prop::collection::vec(operation(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let mut model = BTreeMap::new();
            for (serial, operation) in operations.into_iter().enumerate() {
                apply(&world, &mut model, operation, serial).await;
            }
            compare(&world, &model).await;
        });
    }
}
