//! The sealed store over `object_store` 0.14: which crate the layer stands on, and what differs between its versions.

use ::object_store as upstream;
use futures_util::stream::{self, BoxStream, StreamExt};
use upstream::{GetResult, GetResultPayload};

#[cfg_attr(
    all(feature = "object-store", feature = "object-store-0-13"),
    expect(clippy::duplicate_mod, reason = "the same layer over either version")
)]
#[path = "object_store/mod.rs"]
mod layer;

pub use layer::{Artifacts, SealedStore, SealedStoreBuilder, StoreReseal, Takeover};

/// Takes the payload out of an answer, as a stream whatever it was.
fn take_stream(answer: &mut GetResult) -> BoxStream<'static, upstream::Result<bytes::Bytes>> {
    let empty = GetResultPayload::Stream(stream::empty().boxed());
    let payload = std::mem::replace(&mut answer.payload, empty);
    let (meta, range) = (answer.meta.clone(), answer.range.clone());
    let (attributes, extensions) = Default::default();
    GetResult { payload, meta, range, attributes, extensions }.into_stream()
}
