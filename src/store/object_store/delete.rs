//! Deleting, each path routed first. Imports: the layer.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use futures_util::lock::Mutex as Turns;
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
    let source = Arc::new(Source {
        store: Arc::clone(&store),
        locations: Turns::new(locations),
        slots: Slots::default(),
        is_full: AtomicBool::new(false),
    });
    let merge = Merge { deleted: source.handed_on(), source, waiting: None };
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

/// The paths that are still to come, and what became of those that were taken.
struct Source {
    store: Arc<Shared>,
    locations: Turns<BoxStream<'static, Result<Path>>>,
    slots: Slots,
    /// The store was told that there is nothing more, because as much is noted as may be.
    is_full: AtomicBool,
}

impl Source {
    /// What may be deleted, deleted by the store underneath.
    fn handed_on(self: &Arc<Self>) -> Fuse<BoxStream<'static, Result<Path>>> {
        let paths = stream::unfold(Arc::clone(self), |source| async move {
            source.next().await.map(|path| (Ok(path), source))
        });
        self.store.inner.delete_stream(paths.fuse().boxed()).fuse()
    }

    /// `None` at the end, and where the store has to answer first for what it gathers in a batch.
    async fn next(&self) -> Option<Path> {
        let mut locations = self.locations.lock().await;
        loop {
            if self.slots.len() >= MOST_NOTED {
                self.is_full.store(true, Ordering::SeqCst);
                return None;
            }
            let allowed = match locations.next().await? {
                Ok(location) => self.store.place(&location).await.map(|_| location),
                Err(error) => Err(error),
            };
            let replacing = match &allowed {
                Ok(location) => self.store.replacing(location).await,
                Err(_) => None,
            };
            match self.slots.enter(allowed, replacing) {
                Some(path) => return Some(path),
                // The refusal can be given out now, before the next is looked for.
                None => give_way().await,
            }
        }
    }

    /// Whether there may be more for the store, once it has answered for all that it was given.
    fn goes_on(&self) -> bool {
        self.is_full.swap(false, Ordering::SeqCst)
    }
}

/// What became of each path, in order, until its result is given out. Those behind a path that the store keeps for a batch of its wait for it.
///
/// A guard goes with a result of its own path or of a later one: a store gives no more results than it was given paths, and in their order.
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

    fn len(&self) -> usize {
        self.slots().len()
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
    source: Arc<Source>,
    deleted: Fuse<BoxStream<'static, Result<Path>>>,
    /// A result whose place may be behind refusals.
    waiting: Option<Result<Path>>,
}

impl Merge {
    async fn next(&mut self) -> Option<(Result<Path>, Option<Replacing>)> {
        loop {
            if self.waiting.is_none()
                && let Some(refused) = self.wait().await
            {
                return Some((Err(refused), None));
            }
            while let Some(slot) = self.source.slots.leave() {
                match slot {
                    Slot::Refused(error) => return Some((Err(error), None)),
                    // There may be fewer results than paths, where a whole batch failed with one.
                    Slot::HandedOn(_) if self.waiting.is_none() => {}
                    Slot::HandedOn(replacing) => return Some((self.waiting.take()?, replacing)),
                }
            }
            if let Some(result) = self.waiting.take() {
                return Some((result, None));
            }
            if !self.source.goes_on() {
                return None;
            }
            self.deleted = self.source.handed_on();
        }
    }

    /// Until the store has a result, or no more of them. Before that, a refusal whose turn it is: a long run of them is not kept.
    async fn wait(&mut self) -> Option<Error> {
        let Self { source, deleted, waiting } = self;
        poll_fn(|context| match deleted.poll_next_unpin(context) {
            Poll::Ready(result) => {
                *waiting = result;
                Poll::Ready(None)
            }
            Poll::Pending => {
                source.slots.leave_refused().map_or(Poll::Pending, |refused| Poll::Ready(Some(refused)))
            }
        })
        .await
    }
}

/// How many results wait for a manifest at the same time.
const AT_ONCE: usize = 64;

/// How many paths are noted at a time, about 200 bytes each: more than what S3 is given, 20 batches of 1000.
const MOST_NOTED: usize = 32 * 1024;
