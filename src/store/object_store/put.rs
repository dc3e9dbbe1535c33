//! Writing: whole objects, and uploads in parts. Imports: `error`, `store::sealed`, the layer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{FutureExt, ready, try_join_all};

use super::error::ours;
use super::upstream::path::Path;
use super::upstream::{
    MultipartUpload, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use super::{Place, Shared};
use crate::error::{Error, ErrorKind};
use crate::store::sealed::owner::Writing;
use crate::store::sealed::parts::{self, Parts};

/// Seals the payload as one object, and acknowledges it only in the epoch of its sealing (contract D11).
pub(super) async fn put(
    store: &Shared,
    place: Place,
    location: &Path,
    payload: PutPayload,
    options: PutOptions,
) -> Result<PutResult> {
    let Place { owner, context } = place;
    let writing = owner.writer().await.map_err(ours)?;
    let account = writing.account.clone();
    let pieces = payload.iter().map(AsRef::as_ref);
    let (fence, sealed) =
        parts::seal_all(account, &context, store.layout, payload.content_length(), pieces).map_err(ours)?;
    drop(payload);
    let replacing = store.replacing(location).await;
    let done = store.inner.put_opts(location, sealed.into(), options).await?;
    if let Some(replacing) = replacing {
        replacing.done(store).await?;
    }
    writing.check().await.map_err(ours)?;
    fence.check_lease().map_err(ours)?;
    Ok(done)
}

/// An upload whose parts are cut anew, so that frames and the store's least size of a part do not bother the caller.
pub(super) struct SealedUpload {
    store: Arc<Shared>,
    location: Path,
    inner: Box<dyn MultipartUpload>,
    parts: Parts,
    writing: Writing,
    /// Parts that were begun, and those among them that have arrived.
    begun: usize,
    arrived: Arc<AtomicUsize>,
    /// Nothing follows the last frame.
    ended: bool,
}

impl SealedUpload {
    pub(super) async fn begin(
        store: &Arc<Shared>,
        place: Place,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Self> {
        let Place { owner, context } = place;
        let writing = owner.writer().await.map_err(ours)?;
        let parts =
            Parts::begin(writing.account.clone(), &context, store.layout, store.part_size).map_err(ours)?;
        let inner = store.inner.put_multipart_opts(location, options).await?;
        let (store, location) = (Arc::clone(store), location.clone());
        Ok(Self { store, location, inner, parts, writing, begun: 0, arrived: Arc::default(), ended: false })
    }

    /// All but the completion.
    pub(super) async fn send_rest(&mut self) -> Result<()> {
        self.check_not_ended().and_then(|()| self.check_all_arrived()).map_err(ours)?;
        let rest = self.parts.finish().map_err(ours)?;
        self.ended = true;
        self.send(rest).await
    }

    /// The completion alone, whatever was there.
    pub(super) async fn complete_here(&mut self) -> Result<PutResult> {
        // Before, so that no object appears that would not be acknowledged; and after, for the acknowledgement (contract D11).
        self.check().await.map_err(ours)?;
        let done = self.inner.complete().await?;
        self.check().await.map_err(ours)?;
        Ok(done)
    }

    /// The store underneath numbers parts in the order of these calls, whenever they are awaited.
    fn send(&mut self, full: Vec<Bytes>) -> UploadPart {
        let mut uploads = Vec::with_capacity(full.len());
        for part in full {
            self.begun += 1;
            let upload = self.inner.put_part(part.into());
            let arrived = Arc::clone(&self.arrived);
            uploads.push(async move {
                upload.await?;
                arrived.fetch_add(1, Ordering::SeqCst);
                Ok(())
            });
        }
        try_join_all(uploads).map(|done| done.map(drop)).boxed()
    }

    /// The look at the lease is the last thing: nothing is waited for after it.
    async fn check(&mut self) -> Result<(), Error> {
        self.writing.check().await?;
        self.parts.check()
    }

    fn check_not_ended(&self) -> Result<(), Error> {
        if self.ended { Err(Error::new(ErrorKind::Misuse, "the upload has ended")) } else { Ok(()) }
    }

    fn check_all_arrived(&self) -> Result<(), Error> {
        if self.arrived.load(Ordering::SeqCst) == self.begun {
            return Ok(());
        }
        let message = "a part has failed or was not awaited to its end: the upload cannot be completed";
        Err(Error::new(ErrorKind::Misuse, message))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl MultipartUpload for SealedUpload {
    /// Seals in this call and sends in the future, which has nothing to do where the piece fills no part.
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let pieces = data.iter().map(AsRef::as_ref);
        let full = self.check_not_ended().and_then(|()| self.parts.take(data.content_length(), pieces));
        match full {
            Ok(full) => self.send(full),
            Err(error) => ready(Err(ours(error))).boxed(),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.send_rest().await?;
        let replacing = self.store.replacing(&self.location).await;
        let done = self.complete_here().await?;
        if let Some(replacing) = replacing {
            replacing.done(&self.store).await?;
            self.check().await.map_err(ours)?;
        }
        Ok(done)
    }

    async fn abort(&mut self) -> Result<()> {
        self.ended = true;
        self.parts.give_up();
        self.inner.abort().await
    }
}

impl fmt::Debug for SealedUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedUpload").field("inner", &self.inner).finish_non_exhaustive()
    }
}
