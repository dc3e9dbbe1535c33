//! A map beside plaintext that is taken over: any history of writes, sealing, restarts and crashes (contract E9).

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode};
use proptest::prelude::*;
use strongroom::store::TakeoverLimits;

use crate::SealedStore;
use crate::evidence::report;
use crate::takeover::{another, another_with_takeover, prefix, read};
use crate::world::{World, is_planted, kind, pattern};

#[derive(Clone, Debug)]
enum Operation {
    Put(u8, usize),
    Create(u8, usize),
    Upload(u8, usize),
    Copy(u8, u8, bool),
    Rename(u8, u8, bool),
    Delete(u8),
    Read(u8),
    Step(usize),
    Restart,
}

const PATHS: u8 = 8;

fn operation() -> impl Strategy<Value = (u8, Operation)> {
    let path = || 0..PATHS;
    let operation = prop_oneof![
        (path(), 0..9_000_usize).prop_map(|(at, len)| Operation::Put(at, len)),
        (path(), 0..9_000_usize).prop_map(|(at, len)| Operation::Create(at, len)),
        (path(), 0..9_000_usize).prop_map(|(at, len)| Operation::Upload(at, len)),
        (path(), path(), any::<bool>()).prop_map(|(from, to, create)| Operation::Copy(from, to, create)),
        (path(), path(), any::<bool>()).prop_map(|(from, to, create)| Operation::Rename(from, to, create)),
        path().prop_map(Operation::Delete),
        path().prop_map(Operation::Read),
        (1..4_usize).prop_map(Operation::Step),
        Just(Operation::Restart),
    ];
    // Which of two processes does it.
    (0..2_u8, operation)
}

fn path(number: u8) -> Path {
    format!("data/{number}").into()
}

fn fresh(serial: usize, len: usize) -> Vec<u8> {
    pattern(len + serial).split_off(serial)
}

type Model = BTreeMap<u8, Vec<u8>>;

/// Does it, and says what is there afterwards, if it was done.
async fn write(
    store: &SealedStore,
    model: &Model,
    operation: &Operation,
    serial: usize,
) -> object_store::Result<Model> {
    let mut next = model.clone();
    match *operation {
        Operation::Put(at, len) => {
            store.put(&path(at), fresh(serial, len).into()).await?;
            next.insert(at, fresh(serial, len));
        }
        Operation::Create(at, len) => {
            store.put_opts(&path(at), fresh(serial, len).into(), PutMode::Create.into()).await?;
            assert_eq!(next.insert(at, fresh(serial, len)), None);
        }
        Operation::Upload(at, len) => {
            let mut upload = store.put_multipart(&path(at)).await?;
            upload.put_part(fresh(serial, len).into()).await?;
            upload.complete().await?;
            next.insert(at, fresh(serial, len));
        }
        Operation::Copy(from, to, create) => {
            match create {
                true => store.copy_if_not_exists(&path(from), &path(to)).await?,
                false => store.copy(&path(from), &path(to)).await?,
            }
            next.insert(to, model[&from].clone());
        }
        Operation::Rename(from, to, create) => {
            match create {
                true => store.rename_if_not_exists(&path(from), &path(to)).await?,
                false => store.rename(&path(from), &path(to)).await?,
            }
            let moved = next.remove(&from).expect("what was renamed was there");
            next.insert(to, moved);
        }
        Operation::Delete(at) => {
            store.delete(&path(at)).await?;
            next.remove(&at);
        }
        Operation::Read(at) => {
            assert_eq!(&read(store, path(at).as_ref()).await?, &model[&at]);
        }
        Operation::Step(_) | Operation::Restart => {}
    }
    Ok(next)
}

/// What an operation may say that nothing is wrong with.
fn expected(error: &Error) -> bool {
    matches!(error, Error::NotFound { .. } | Error::AlreadyExists { .. })
}

async fn compare(store: &SealedStore, model: &Model) {
    let listed: Vec<_> = store.list(Some(&prefix())).try_collect().await.unwrap();
    let listed: BTreeMap<_, _> = listed.into_iter().map(|meta| (meta.location, meta.size)).collect();
    let sizes = model.iter().map(|(at, plain)| (path(*at), plain.len() as u64)).collect();
    assert_eq!(listed, sizes);
    for (at, plain) in model {
        assert_eq!(store.head(&path(*at)).await.unwrap().size, plain.len() as u64);
        assert_eq!(&read(store, path(*at).as_ref()).await.unwrap(), plain);
    }
}

async fn begun() -> (World, Model) {
    let world = World::new();
    let mut model = Model::new();
    for at in 0..PATHS {
        let plain = fresh(usize::from(at), usize::from(at) * 1_333);
        world.store_raw(path(at).as_ref(), &plain).await;
        model.insert(at, plain);
    }
    world.store.begin_takeover(&prefix()).await.unwrap();
    (world, model)
}

/// With an end: whatever the history was, the rest is sealed, and a store without a takeover reads it all.
async fn finish(world: &World, model: &Model) {
    let store = another(world);
    let takeover = store.open_takeover(&prefix(), None).await.unwrap();
    let progress = takeover.run(&TakeoverLimits::DEFAULT).await.unwrap();
    assert!(progress.finished, "{progress:?} {:?}", takeover.failures());
    compare(&store, model).await;
    compare(&another(world), model).await;
}

async fn history(operations: Vec<(u8, Operation)>) {
    let (world, mut model) = begun().await;
    let open = async || {
        let store = another(&world);
        let takeover = store.open_takeover(&prefix(), None).await.unwrap();
        (store, takeover)
    };
    let mut processes = [open().await, open().await];
    for (serial, (who, operation)) in operations.into_iter().enumerate() {
        let (store, takeover) = &processes[usize::from(who)];
        match operation {
            Operation::Restart => processes[usize::from(who)] = open().await,
            Operation::Step(batch) => {
                takeover.step(&TakeoverLimits::DEFAULT.batch(batch)).await.unwrap();
                assert_eq!(takeover.progress().failed, 0);
            }
            operation => match write(store, &model, &operation, serial).await {
                Ok(next) => model = next,
                Err(error) => assert!(expected(&error), "{operation:?}: {error}"),
            },
        }
        for (store, _) in &processes {
            compare(store, &model).await;
        }
    }
    finish(&world, &model).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 48 } else { 1024 }))]

    #[test]
    fn e9_any_history_of_a_takeover_agrees_with_a_map(
        operations in prop::collection::vec(operation(), 1..25),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(history(operations));
    }
}

/// One of everything. What was acknowledged is in the model; of what failed, either may be.
async fn everything(world: &World, model: &mut Model, unsure: &mut Vec<(u8, Option<Vec<u8>>)>) -> bool {
    let store = another(world);
    let Ok(takeover) = store.open_takeover(&prefix(), None).await else { return false };
    let limits = TakeoverLimits::DEFAULT.batch(2).at_once(1);
    let operations = [
        Operation::Put(0, 700),
        Operation::Step(2),
        Operation::Upload(1, 900),
        Operation::Copy(2, 3, false),
        Operation::Rename(4, 5, false),
        Operation::Step(2),
        Operation::Delete(6),
        Operation::Copy(0, 7, false),
        Operation::Read(2),
        Operation::Step(2),
        Operation::Step(2),
        Operation::Step(2),
    ];
    for (serial, operation) in operations.into_iter().enumerate() {
        if let Operation::Step(_) = operation {
            if takeover.step(&limits).await.is_err() {
                return false;
            }
            continue;
        }
        let before = model.clone();
        match write(&store, &before, &operation, serial).await {
            Ok(next) => *model = next,
            Err(error) => {
                assert!(is_planted(&error) || kind(&error).is_some(), "{operation:?}: {error}");
                // As if it had been done.
                let done = match operation {
                    Operation::Put(at, len) | Operation::Upload(at, len) => {
                        vec![(at, Some(fresh(serial, len)))]
                    }
                    Operation::Copy(from, to, _) => vec![(to, Some(before[&from].clone()))],
                    Operation::Rename(from, to, _) => vec![(from, None), (to, Some(before[&from].clone()))],
                    Operation::Delete(at) => vec![(at, None)],
                    _ => Vec::new(),
                };
                unsure.extend(done);
                return false;
            }
        }
    }
    true
}

#[tokio::test]
async fn e9_r14_a_crash_at_every_request_of_a_takeover_loses_nothing_acknowledged() {
    let mut crashes = 0;
    // The request fails before anything was done, or all was done and nobody hears of it; it alone, or everything after it too.
    for (after, on) in [(false, false), (false, true), (true, false), (true, true)] {
        for nth in 1.. {
            let (world, mut model) = begun().await;
            let mut unsure = Vec::new();
            world.bent.fail_at(nth);
            world.bent.fail_after_doing(after);
            world.bent.fail_on(on);
            let whole = everything(&world, &mut model, &mut unsure).await;
            let reached = world.bent.operations() >= nth;
            world.bent.fail_at(0);
            if whole && !reached {
                break;
            }
            crashes += 1;
            // The process is gone. Another one finds what it finds.
            let store = another_with_takeover(&world).await;
            for (at, done) in unsure {
                let found = match read(&store, path(at).as_ref()).await {
                    Ok(found) => Some(found),
                    Err(Error::NotFound { .. }) => None,
                    Err(error) => panic!("{nth}: {at}: {error}"),
                };
                assert!(found == done || found.as_ref() == model.get(&at), "{nth}: {at} is neither");
                match found {
                    Some(found) => model.insert(at, found),
                    None => model.remove(&at),
                };
            }
            compare(&store, &model).await;
            finish(&world, &model).await;
        }
    }
    report("R14", "crashes of a takeover", crashes, ">=", 150);
    assert!(crashes >= 150, "{crashes}");
}
