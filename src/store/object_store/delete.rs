//! Deleting, each path routed first. Imports: the layer.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use futures_util::stream::{self, BoxStream, Fuse, StreamExt};

use super::Shared;
use super::get::give_way;
use super::takeover::Replacing;
use super::upstream::path::Path;
use super::upstream::{Error, Result};

/// Hands what may be deleted to the store underneath, in its own batches, and puts the refusals of the others in
/// their places: results come in the order of the paths.
pub(super) fn delete_stream(
    store: Arc<Shared>,
    locations: BoxStream<'static, Result<Path>>,
) -> BoxStream<'static, Result<Path>> {
    let slots = Arc::new(Slots::default());
    let routed = {
        let (store, slots) = (Arc::clone(&store), Arc::clone(&slots));
        locations.filter_map(move |location| {
            let (store, slots) = (Arc::clone(&store), Arc::clone(&slots));
            async move {
                let allowed = match location {
                    Ok(location) => store.place(&location).await.map(|_| location),
                    Err(error) => Err(error),
                };
                let replacing = match &allowed {
                    Ok(location) => store.replacing(location).await,
                    Err(_) => None,
                };
                let path = slots.enter(allowed, replacing);
                if path.is_none() {
                    // The refusal can be given out now, before the next is looked for.
                    give_way().await;
                }
                path.map(Ok)
            }
        })
    };
    let merge = Merge { slots, deleted: store.inner.delete_stream(routed.boxed()).fuse(), waiting: None };
    let merged =
        stream::unfold(merge, |mut merge| async move { merge.next().await.map(|result| (result, merge)) });
    // Those that a manifest listed are acknowledged once it does not list them any more: many at a time, in few changes of it.
    merged
        .map(move |(result, allowed)| {
            let store = Arc::clone(&store);
            async move {
                let location = result?;
                // Of the path that was deleted: where a whole batch failed with one result, that is not the one of the slot.
                if let Some(replacing) = store.replacing(&location).await {
                    replacing.done(&store).await?;
                }
                drop(allowed);
                Ok(location)
            }
        })
        .buffered(AT_ONCE)
        .boxed()
}

/// What became of each path, in order, until its result is given out. Those behind a path that the store keeps for a batch of its wait for it.
#[derive(Default)]
struct Slots(Mutex<VecDeque<Slot>>);

enum Slot {
    HandedOn(Option<Replacing>),
    Refused(Error),
}

impl Slots {
    /// Notes the next path, and gives it back if it is to be handed on.
    fn enter(&self, allowed: Result<Path>, replacing: Option<Replacing>) -> Option<Path> {
        let (slot, path) = match allowed {
            Ok(path) => (Slot::HandedOn(replacing), Some(path)),
            Err(error) => (Slot::Refused(error), None),
        };
        self.slots().push_back(slot);
        path
    }

    fn leave(&self) -> Option<Slot> {
        self.slots().pop_front()
    }

    /// A refusal whose turn it is.
    fn leave_refused(&self) -> Option<Error> {
        let mut slots = self.slots();
        if !matches!(slots.front(), Some(Slot::Refused(_))) {
            return None;
        }
        match slots.pop_front() {
            Some(Slot::Refused(error)) => Some(error),
            _ => None,
        }
    }

    fn slots(&self) -> MutexGuard<'_, VecDeque<Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Merge {
    slots: Arc<Slots>,
    deleted: Fuse<BoxStream<'static, Result<Path>>>,
    /// A result whose place may be behind refusals.
    waiting: Option<Result<Path>>,
}

impl Merge {
    async fn next(&mut self) -> Option<(Result<Path>, Option<Replacing>)> {
        if self.waiting.is_none()
            && let Some(refused) = self.wait().await
        {
            return Some((Err(refused), None));
        }
        loop {
            match self.slots.leave() {
                Some(Slot::Refused(error)) => return Some((Err(error), None)),
                // There may be fewer results than paths, where a whole batch failed with one.
                Some(Slot::HandedOn(_)) if self.waiting.is_none() => {}
                Some(Slot::HandedOn(replacing)) => return Some((self.waiting.take()?, replacing)),
                None => return Some((self.waiting.take()?, None)),
            }
        }
    }

    /// Until the store has a result, or no more of them. Before that, a refusal whose turn it is: a long run of them is not kept.
    async fn wait(&mut self) -> Option<Error> {
        let Self { slots, deleted, waiting } = self;
        poll_fn(|context| match deleted.poll_next_unpin(context) {
            Poll::Ready(result) => {
                *waiting = result;
                Poll::Ready(None)
            }
            Poll::Pending => {
                slots.leave_refused().map_or(Poll::Pending, |refused| Poll::Ready(Some(refused)))
            }
        })
        .await
    }
}

/// How many results wait for a manifest at the same time.
const AT_ONCE: usize = 64;
