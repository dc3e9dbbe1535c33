//! Listings with plain sizes, which are arithmetic on the stored ones. Imports: `store::sealed::span`, `store::takeover`, the layer.

use std::sync::Arc;

use futures_util::future::ready;
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};

use super::Shared;
use super::upstream::{ListResult, ObjectMeta, Result};
use crate::store::sealed::span;
use crate::store::takeover::is_reserved;

/// Leaves out what no sealed object can be.
pub(super) fn sealed(
    store: &Arc<Shared>,
    listing: BoxStream<'static, Result<ObjectMeta>>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let store = Arc::clone(store);
    listing.try_filter_map(move |meta| ready(Ok(plain(&store, meta)))).boxed()
}

pub(super) fn sealed_at_once(store: &Shared, listing: ListResult) -> ListResult {
    let mut listing = listing;
    let objects = std::mem::take(&mut listing.objects);
    listing.objects = objects.into_iter().filter_map(|meta| plain(store, meta)).collect();
    listing.common_prefixes.retain(|prefix| !is_reserved(prefix.as_ref()));
    listing
}

/// Leaves in only what no sealed object can be, with its stored size.
pub(super) fn foreign(
    store: &Arc<Shared>,
    listing: BoxStream<'static, Result<ObjectMeta>>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let store = Arc::clone(store);
    let is_foreign = move |meta: &ObjectMeta| {
        let possible = span::plain_len(meta.size, store.layout).is_some();
        !possible && !is_reserved(meta.location.as_ref()) && !store.is_plaintext(meta)
    };
    listing.try_filter(move |meta| ready(is_foreign(meta))).boxed()
}

fn plain(store: &Shared, meta: ObjectMeta) -> Option<ObjectMeta> {
    if is_reserved(meta.location.as_ref()) {
        return None;
    }
    if store.is_plaintext(&meta) {
        return Some(meta);
    }
    let size = span::plain_len(meta.size, store.layout)?;
    Some(ObjectMeta { size, ..meta })
}
