//! Listings with plain sizes, which are arithmetic on the stored ones. Imports: `store::sealed::span`, the layer.

use futures_util::future::ready;
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};

use super::upstream::{ListResult, ObjectMeta, Result};
use crate::format::object::BlockSize;
use crate::store::sealed::span;

/// Leaves out what no sealed object can be.
pub(super) fn sealed(
    listing: BoxStream<'static, Result<ObjectMeta>>,
    block_size: BlockSize,
) -> BoxStream<'static, Result<ObjectMeta>> {
    listing.try_filter_map(move |meta| ready(Ok(plain(meta, block_size)))).boxed()
}

pub(super) fn sealed_at_once(listing: ListResult, block_size: BlockSize) -> ListResult {
    let mut listing = listing;
    let objects = std::mem::take(&mut listing.objects);
    listing.objects = objects.into_iter().filter_map(|meta| plain(meta, block_size)).collect();
    listing
}

/// Leaves in only what no sealed object can be, with its stored size.
pub(super) fn foreign(
    listing: BoxStream<'static, Result<ObjectMeta>>,
    block_size: BlockSize,
) -> BoxStream<'static, Result<ObjectMeta>> {
    listing.try_filter(move |meta| ready(span::plain_len(meta.size, block_size).is_none())).boxed()
}

fn plain(meta: ObjectMeta, block_size: BlockSize) -> Option<ObjectMeta> {
    let size = span::plain_len(meta.size, block_size)?;
    Some(ObjectMeta { size, ..meta })
}
