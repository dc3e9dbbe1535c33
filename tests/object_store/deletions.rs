//! Deleting many objects from a store that does so in batches, as S3 and Azure do: a batch is sent once it is full or there is nothing
//! more, and may fail with one result for all of its paths (contract G1, E9).

use std::future::poll_fn;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, Result};

use crate::takeover::{LIMITS, prefix, world_of};
use crate::tenants::{Tenants, denied};
use crate::world::{is_planted, planted};

/// How a store deletes.
#[derive(Debug)]
pub(crate) struct Batches {
    of: usize,
    /// The batch that fails, counted from 0, and how many were sent.
    fails: Option<usize>,
    sent: AtomicUsize,
    /// How many more may be answered.
    answers: AtomicUsize,
}

impl Batches {
    fn of(of: usize) -> Self {
        Self { of, fails: None, sent: AtomicUsize::new(0), answers: AtomicUsize::new(usize::MAX) }
    }

    pub(crate) fn delete(
        self: Arc<Self>,
        memory: &Arc<InMemory>,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (memory, batches) = (Arc::clone(memory), locations.try_chunks(self.of));
        batches
            .map(move |batch| {
                let number = self.sent.fetch_add(1, Ordering::SeqCst);
                let (how, memory) = (Arc::clone(&self), Arc::clone(&memory));
                async move {
                    how.answer().await;
                    let batch = batch.map_err(|error| error.1)?;
                    if how.fails == Some(number) {
                        return Err(planted());
                    }
                    let paths = stream::iter(batch).map(Ok).boxed();
                    let results: Vec<_> = memory.delete_stream(paths).collect().await;
                    Ok(stream::iter(results))
                }
            })
            .buffered(20)
            .try_flatten()
            .boxed()
    }

    async fn answer(&self) {
        let one_less = |answers: usize| answers.checked_sub(1);
        poll_fn(|context| match self.answers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) {
            Ok(_) => Poll::Ready(()),
            Err(_) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
        })
        .await;
    }
}

/// What deleting came to, and how many paths there were at most that had been taken and had no result.
async fn delete(
    tenants: &Tenants,
    names: impl Iterator<Item = &'static str> + Send + 'static,
) -> (Vec<Result<Path>>, usize) {
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = {
        let taken = Arc::clone(&taken);
        move |_: &Result<Path>| {
            taken.fetch_add(1, Ordering::SeqCst);
        }
    };
    let paths = stream::iter(names).map(|name| Ok(name.into())).inspect(counted).boxed();
    let mut deleted = tenants.store.delete_stream(paths);
    let (mut results, mut most) = (Vec::new(), 0);
    while let Some(result) = deleted.next().await {
        most = most.max(taken.load(Ordering::SeqCst) - results.len());
        results.push(result);
    }
    (results, most)
}

#[tokio::test]
async fn g1_refused_deletions_behind_a_batch_of_the_store_are_not_kept_without_a_bound() {
    const REFUSED: usize = 100_000;
    let tenants = Tenants::new();
    tenants.bent.delete_in(&Arc::new(Batches::of(1000)));
    for path in ["ada/1", "ada/2", "bob/1"] {
        tenants.store.put(&path.into(), "x".into()).await.unwrap();
    }
    // The store keeps the first path for a batch that does not fill.
    let names = iter::once("ada/1").chain(iter::repeat_n("carol/1", REFUSED)).chain(["ada/2", "bob/1"]);
    let (results, most_kept) = delete(&tenants, names.clone()).await;
    assert_eq!(results.len(), REFUSED + 3);
    for (result, name) in results.into_iter().zip(names) {
        match result {
            Ok(path) => assert_eq!(path, name.into()),
            Err(error) => assert!(name == "carol/1" && denied(&error), "{error}"),
        }
    }
    assert!(most_kept < 40_000, "{most_kept}");
    assert_eq!(tenants.store.list(None).count().await, 0);
}

#[tokio::test]
async fn g1_refused_deletions_behind_a_batch_that_failed_are_not_kept_without_a_bound() {
    const REFUSED: usize = 100_000;
    let tenants = Tenants::new();
    tenants.bent.delete_in(&Arc::new(Batches { fails: Some(0), ..Batches::of(30_000) }));
    let names = iter::repeat_n("ada/1", 30_000).chain(iter::repeat_n("carol/1", REFUSED)).chain(["ada/2"]);
    let (results, most_kept) = delete(&tenants, names).await;
    // One result for all of the batch, and one for each of the others.
    assert_eq!(results.len(), 1 + REFUSED + 1);
    assert!(is_planted(results[0].as_ref().unwrap_err()));
    assert!(results[1..=REFUSED].iter().all(|result| result.as_ref().is_err_and(denied)));
    assert_eq!(*results[REFUSED + 1].as_ref().unwrap(), "ada/2".into());
    assert!(most_kept < 70_000, "{most_kept}");
}

#[tokio::test]
async fn e9_a_deletion_keeps_an_object_from_being_replaced_in_parts_until_its_own_batch_is_done() {
    let (world, plain) = world_of(9).await;
    let takeover = world.store.begin_takeover(&prefix()).await.unwrap();
    let batches = Arc::new(Batches { fails: Some(0), answers: AtomicUsize::new(2), ..Batches::of(3) });
    world.bent.delete_in(&batches);
    let all: Vec<_> = plain.iter().map(|(path, _)| Path::from(path.as_str())).collect();
    let mut results = world.store.delete_stream(stream::iter(all.clone()).map(Ok).boxed());
    // The first batch has failed with one result, the second is done, the third is under way: results fewer than paths.
    assert!(is_planted(&results.next().await.unwrap().unwrap_err()));
    for path in &all[3..6] {
        assert_eq!(results.next().await.unwrap().unwrap(), *path);
    }
    assert!(results.next().now_or_never().is_none());
    // What is being deleted is listed and there, and looks as if it could be sealed.
    let in_parts = LIMITS.one_request(1).large_objects_in_parts();
    takeover.run(&in_parts).await.unwrap();
    for (path, plain) in &plain[6..] {
        assert_eq!(world.stored(path).await, *plain, "replaced while it is being deleted");
    }
    batches.answers.store(1, Ordering::SeqCst);
    for path in &all[6..] {
        assert_eq!(results.next().await.unwrap().unwrap(), *path);
    }
    assert!(results.next().await.is_none());
    takeover.run(&in_parts).await.unwrap();
    for path in &all[3..] {
        assert!(matches!(world.store.head(path).await, Err(Error::NotFound { .. })), "{path} is back");
    }
}
