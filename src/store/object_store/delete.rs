//! Deleting, each path routed first. Imports: the layer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::{self, BoxStream, Fuse, StreamExt};

use super::Shared;
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
                slots.enter(allowed).map(Ok)
            }
        })
    };
    let merge = Merge { slots, deleted: store.inner.delete_stream(routed.boxed()).fuse(), waiting: None };
    stream::unfold(merge, |mut merge| async move { merge.next().await.map(|result| (result, merge)) }).boxed()
}

/// What became of each path, in order, until its result is given out.
#[derive(Default)]
struct Slots(Mutex<VecDeque<Slot>>);

enum Slot {
    HandedOn,
    Refused(Error),
}

impl Slots {
    /// Notes the next path, and gives it back if it is to be handed on.
    fn enter(&self, allowed: Result<Path>) -> Option<Path> {
        let (slot, path) = match allowed {
            Ok(path) => (Slot::HandedOn, Some(path)),
            Err(error) => (Slot::Refused(error), None),
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(slot);
        path
    }

    fn leave(&self) -> Option<Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

struct Merge {
    slots: Arc<Slots>,
    deleted: Fuse<BoxStream<'static, Result<Path>>>,
    /// A result whose place may be behind refusals.
    waiting: Option<Result<Path>>,
}

impl Merge {
    async fn next(&mut self) -> Option<Result<Path>> {
        if self.waiting.is_none() {
            self.waiting = self.deleted.next().await;
        }
        loop {
            match self.slots.leave() {
                Some(Slot::Refused(error)) => return Some(Err(error)),
                // There may be fewer results than paths, where a whole batch failed with one.
                Some(Slot::HandedOn) if self.waiting.is_none() => {}
                Some(Slot::HandedOn) | None => return self.waiting.take(),
            }
        }
    }
}
