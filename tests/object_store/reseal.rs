//! Objects under an older generation are sealed anew: E4, E8.

use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use object_store::{Attribute, Attributes, ObjectStore, ObjectStoreExt, PutOptions};
use sha2::{Digest, Sha256};
use strongroom::{
    Error, ErrorKind, MemoryRecordStore, Operation, OperationKind, OperationRun, OperationStatus, Operations,
    ResealLimits, ResealStep, SealedObject, Suite,
};

use crate::StoreReseal;
use crate::world::{Customer, Lie, World, kind, pattern};

fn operations(world: &World) -> Operations {
    Operations::new(Arc::new(MemoryRecordStore::new()), world.customer.account.clone())
}

fn begin(world: &World, operations: &Operations) -> OperationRun {
    operations.begin(OperationKind::Reseal, world.customer.account.id()).unwrap()
}

fn job(world: &World, run: OperationRun) -> StoreReseal {
    world.store.reseal(&Path::from("data"), &world.customer.account, run).unwrap()
}

async fn ended(mut job: StoreReseal, limits: &ResealLimits) -> (Operation, Vec<(String, Error)>) {
    loop {
        if let ResealStep::Ended(operation) = job.step(limits).await.unwrap() {
            return (operation, job.failures().to_vec());
        }
    }
}

async fn generation(world: &World, path: &str) -> u32 {
    SealedObject::peek(&world.stored(path).await).unwrap().generation.number()
}

fn path(nth: usize) -> String {
    format!("data/{nth:02}")
}

/// As docs/FORMAT.md says: generation 2, the context of these parts, and the path.
fn cursor(parts: &[&str], path: &str) -> Vec<u8> {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    [&[0, 0, 0, 2], &hash.finalize()[..], path.as_bytes()].concat()
}

/// So many objects under generation 1, and generation 2 active.
async fn rotated(objects: usize) -> World {
    rotated_in(World::new(), objects).await
}

async fn rotated_in(world: World, objects: usize) -> World {
    for nth in 0..objects {
        world.put(&path(nth), &pattern(1000 * nth)).await;
    }
    world.customer.rotate_aek();
    world
}

#[tokio::test]
async fn e4_objects_of_an_older_generation_are_sealed_anew_and_say_what_they_said() {
    let world = World::new();
    let attributes = Attributes::from_iter([(Attribute::ContentType, "text/plain")]);
    for nth in 0..7 {
        let options = PutOptions { attributes: attributes.clone(), ..PutOptions::default() };
        world.store.put_opts(&path(nth).into(), pattern(1000 * nth).into(), options).await.unwrap();
    }
    world.put("elsewhere", b"not under the prefix").await;
    world.store_raw("data/foreign", &[7; 100]).await;
    world.customer.rotate_aek();
    world.put("data/new", b"under generation 2").await;
    let untouched = world.stored("data/new").await;

    let operations = operations(&world);
    let mut job = job(&world, begin(&world, &operations));
    assert_eq!((job.oldest().number(), job.count().await.unwrap()), (2, 9));
    let (operation, failures) = ended(job, &ResealLimits::DEFAULT.batch(3).at_once(2)).await;
    assert_eq!((operation.status(), failures.len()), (&OperationStatus::Succeeded, 0));
    let progress = operation.progress();
    assert_eq!((progress.done, progress.total, progress.bytes), (9, Some(9), 21_000));
    for nth in 0..7 {
        assert_eq!(generation(&world, &path(nth)).await, 2);
        let read = world.store.get(&path(nth).into()).await.unwrap();
        assert_eq!(read.attributes, attributes);
        assert_eq!(read.bytes().await.unwrap(), pattern(1000 * nth));
    }
    assert_eq!(world.stored("data/new").await, untouched);
    assert_eq!(generation(&world, "elsewhere").await, 1);

    // Again: nothing is left to do.
    let (again, _) = ended(self::job(&world, begin(&world, &operations)), &ResealLimits::DEFAULT).await;
    assert_eq!((again.progress().done, again.progress().bytes), (9, 0));
}

#[tokio::test]
async fn e4_e8_a_job_that_was_dropped_goes_on_behind_what_was_done() {
    let world = rotated(6).await;
    let operations = operations(&world);
    let mut first = job(&world, begin(&world, &operations));
    let limits = ResealLimits::DEFAULT.batch(4).pieces_per_second(2);
    let ResealStep::More { pause } = first.step(&limits).await.unwrap() else { panic!("there is more") };
    assert_eq!(pause, Duration::from_secs(2), "4 objects, 2 a second");
    drop(first);
    assert_eq!((generation(&world, &path(3)).await, generation(&world, &path(4)).await), (2, 1));
    world.bent.reads();
    let run = operations.resume(world.customer.account.id()).unwrap().unwrap();
    assert_eq!(run.cursor(), cursor(&["reseal", "bucket", "data"], "data/03"));
    let (operation, _) = ended(job(&world, run), &ResealLimits::DEFAULT).await;
    assert_eq!((operation.status(), operation.progress().done), (&OperationStatus::Succeeded, 6));
    // A header, and an object that has its own, for each of the two that were left.
    assert_eq!(world.bent.reads().len(), 4);
    assert_eq!(generation(&world, &path(5)).await, 2);
}

#[tokio::test]
async fn e4_whoever_overwrites_an_object_meanwhile_wins() {
    let world = World::new();
    world.put(&path(1), b"theirs, written meanwhile").await;
    let theirs = world.stored(&path(1)).await;
    world.put(&path(1), b"what was there when the job began").await;
    world.customer.rotate_aek();
    let operations = operations(&world);
    world.bent.lie(Lie::Overwritten(theirs.clone()));
    let (operation, failures) = ended(job(&world, begin(&world, &operations)), &ResealLimits::DEFAULT).await;
    world.bent.lie(None);
    assert_eq!(world.stored(&path(1)).await, theirs, "what they wrote is lost");
    assert_eq!((failures.len(), failures[0].1.kind()), (1, ErrorKind::Conflict));
    assert!(matches!(operation.status(), OperationStatus::Failed { code: ErrorKind::Conflict, .. }));

    let (operation, _) = ended(job(&world, begin(&world, &operations)), &ResealLimits::DEFAULT).await;
    assert_eq!(operation.status(), &OperationStatus::Succeeded);
    assert_eq!(generation(&world, &path(1)).await, 2);
    assert_eq!(world.read(&path(1)).await.unwrap(), &b"theirs, written meanwhile"[..]);
}

#[tokio::test]
async fn e4_d1_a_revoked_account_stops_the_job_and_it_goes_on_with_the_key() {
    let world = rotated(5).await;
    let operations = operations(&world);
    let mut job = job(&world, begin(&world, &operations));
    let limits = ResealLimits::DEFAULT.batch(2);
    job.step(&limits).await.unwrap();
    world.customer.revoke();
    assert_eq!(kind(&job.step(&limits).await.unwrap_err()), Some(ErrorKind::Revoked));
    assert_eq!(generation(&world, &path(2)).await, 1);
    world.customer.restore();
    let (operation, _) = ended(job, &limits).await;
    assert_eq!((operation.status(), operation.progress().done), (&OperationStatus::Succeeded, 5));
    for nth in 0..5 {
        assert_eq!(world.read(&path(nth)).await.unwrap(), pattern(1000 * nth));
    }
}

#[tokio::test]
async fn a6_e4_objects_under_double_encryption_are_sealed_anew_and_either_key_stops_the_job() {
    let world = rotated_in(World::double(), 5).await;
    let operations = operations(&world);
    let mut job = job(&world, begin(&world, &operations));
    let limits = ResealLimits::DEFAULT.batch(2);
    job.step(&limits).await.unwrap();
    for revoke in [Customer::revoke, Customer::revoke_second] {
        revoke(&world.customer);
        assert_eq!(kind(&job.step(&limits).await.unwrap_err()), Some(ErrorKind::Revoked));
        assert_eq!((generation(&world, &path(1)).await, generation(&world, &path(2)).await), (2, 1));
        world.customer.restore();
    }
    let (operation, failures) = ended(job, &limits).await;
    assert_eq!((operation.status(), failures.len()), (&OperationStatus::Succeeded, 0));
    assert_eq!((operation.progress().done, operation.progress().bytes), (5, 10_000));
    for nth in 0..5 {
        let info = SealedObject::peek(&world.stored(&path(nth)).await).unwrap();
        assert_eq!((info.generation.number(), info.suite), (2, Suite::Double));
        assert_eq!(
            world.cold().get(&path(nth).into()).await.unwrap().bytes().await.unwrap(),
            pattern(1000 * nth)
        );
    }
}

#[tokio::test]
async fn e4_what_cannot_be_sealed_anew_is_told_and_the_operation_has_not_succeeded() {
    let world = rotated(4).await;
    let mut damaged = world.stored(&path(1)).await;
    damaged[200] ^= 1;
    world.store_raw(&path(1), &damaged).await;
    // One that claims to be under the newest generation already.
    let mut claims = world.stored(&path(2)).await;
    claims[12..40].iter_mut().for_each(|byte| *byte ^= u8::from(*byte == 1) * 3);
    assert_eq!(SealedObject::peek(&claims).unwrap().generation.number(), 2);
    world.store_raw(&path(2), &claims).await;
    let operations = operations(&world);
    let limits = ResealLimits::DEFAULT.one_request(2999).at_once(1);
    let (operation, failures) = ended(job(&world, begin(&world, &operations)), &limits).await;
    assert!(matches!(operation.status(), OperationStatus::Failed { .. }), "{operation:?}");
    assert_eq!((operation.progress().done, operation.progress().failed), (1, 3));
    let told: Vec<_> = failures.iter().map(|(path, error)| (path.as_str(), error.kind())).collect();
    let expected =
        [("data/01", ErrorKind::Corrupt), ("data/02", ErrorKind::Corrupt), ("data/03", ErrorKind::Limit)];
    assert_eq!(told, expected);
    assert_eq!(world.stored(&path(1)).await, damaged);
}

#[tokio::test]
async fn e4_a_cursor_of_another_prefix_and_a_generation_that_is_not_active_are_refused() {
    let world = rotated(3).await;
    let operations = operations(&world);
    let mut job = job(&world, begin(&world, &operations));
    job.step(&ResealLimits::DEFAULT.batch(2)).await.unwrap();
    drop(job);
    let account = &world.customer.account;
    let run = operations.resume(account.id()).unwrap().unwrap();
    let other = world.store.reseal(&Path::from("dat"), account, run);
    assert_eq!(other.unwrap_err().kind(), ErrorKind::Misuse);

    let world = World::new();
    world.customer.account.rotate_aek().unwrap();
    let account = &world.customer.account;
    let early = world.store.reseal(&Path::from("data"), account, begin(&world, &self::operations(&world)));
    assert_eq!(early.unwrap_err().kind(), ErrorKind::Misuse);
}

#[tokio::test]
async fn e4_e9_the_root_of_a_finished_takeover_is_sealed_anew_and_still_finished() {
    let world = World::new();
    world.store_raw(&path(1), b"plaintext, for now").await;
    let takeover = world.store.begin_takeover(&Path::from("data")).await.unwrap();
    world.customer.rotate_aek();
    let operations = operations(&world);
    let (_, failures) = ended(job(&world, begin(&world, &operations)), &ResealLimits::DEFAULT).await;
    let told: Vec<_> = failures.iter().map(|(_, error)| error.kind()).collect();
    assert_eq!(told, [ErrorKind::Conflict], "the segment is still read");
    assert_eq!(world.read(&path(1)).await.unwrap(), &b"plaintext, for now"[..]);
    takeover.run(&strongroom::store::TakeoverLimits::DEFAULT).await.unwrap();
    let mark = takeover.mark();
    world.customer.rotate_aek();
    let (operation, failures) = ended(job(&world, begin(&world, &operations)), &ResealLimits::DEFAULT).await;
    assert_eq!(operation.status(), &OperationStatus::Succeeded, "{failures:?}");
    assert_eq!(generation(&world, "data/.strongroom-takeover/root").await, 3);
    assert_eq!(generation(&world, &path(1)).await, 3);
    let again = world.cold().open_takeover(&Path::from("data"), Some(&mark)).await.unwrap();
    assert!(again.progress().finished);
}
