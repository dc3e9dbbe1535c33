//! The manifest in the store: small sealed objects, read as a whole, replaced only by who has seen the version before.
//! Imports: `object`, `format::takeover`, `error`, `store::takeover`, `store::sealed`, `store::route`, the layer.

use bytes::Bytes;
use futures_util::stream::StreamExt;

use super::super::error::{denied, generic, ours, reserved};
use super::super::upstream::path::Path;
use super::super::upstream::{
    self, GetOptions, ObjectStoreExt, PutMode, PutOptions, PutResult, Result, UpdateVersion,
};
use super::super::{Shared, get, take_stream};
use crate::error::{Error, ErrorKind};
use crate::format::object::{BlockSize, Context};
use crate::format::takeover::{
    MAX_SEGMENT_LEN, ROOT_LEN, Root, RootState, SegmentBody, root_context, segment_context,
};
use crate::id::ObjectId;
use crate::object::SealedObject;
use crate::store::route::Route;
use crate::store::sealed::headers::Identity;
use crate::store::sealed::opener::ended_early;
use crate::store::sealed::owner::Owner;
use crate::store::sealed::{parts, span};
use crate::store::takeover::manifest::Manifest;
use crate::store::takeover::segment::{Freshness, Segment, bare};
use crate::store::takeover::{is_reserved, root_path, segment_path};

/// Whose a prefix's manifest is: what its own path leads to.
pub(super) async fn keeper(store: &Shared, prefix: &str) -> Result<Owner> {
    let path = root_path(prefix);
    if is_reserved(prefix) {
        return Err(reserved(&path));
    }
    match store.router.route(&path).await.map_err(generic)? {
        Route::Sealed { account, binding: _ } => Ok(Owner::Account(account)),
        Route::Scoped { scope, binding: _ } => Ok(Owner::Scope(scope)),
        Route::Deny => Err(denied(&path)),
    }
}

/// A manifest's root, and what the store calls it; `None` where there is none.
pub(super) async fn load_root(
    store: &Shared,
    owner: &Owner,
    prefix: &str,
) -> Result<Option<(Root, Identity)>> {
    let context = root_context(&store.id, prefix);
    let loaded = load(store, owner, context, &root_path(prefix), ROOT_LEN).await?;
    loaded.map(|(bytes, identity)| Ok((Root::parse(&bytes).map_err(ours)?, identity))).transpose()
}

/// Writes a root where there is none, or over the one that was seen.
pub(super) async fn put_root(
    store: &Shared,
    owner: &Owner,
    prefix: &str,
    root: Root,
    over: Option<&Identity>,
) -> Result<PutResult> {
    let mode = over.map_or(PutMode::Create, update);
    let context = root_context(&store.id, prefix);
    put(store, owner, context, &root_path(prefix), &root.to_bytes(), mode).await
}

/// Seals a root anew, with what it says. Who saw the version before sees one that follows it.
pub(super) async fn reseal_root(store: &Shared, prefix: &str) -> Result<u64> {
    let owner = keeper(store, prefix).await?;
    let (root, seen) = load_root(store, &owner, prefix).await?.ok_or_else(|| ours(gone()))?;
    let next = Root { version: root.version.saturating_add(1), ..root };
    put_root(store, &owner, prefix, next, Some(&seen)).await?;
    Ok(ROOT_LEN as u64)
}

/// Whether the segment of that name is still asked for. Those of an attempt that came to no end are not, nor those of a takeover that has finished.
pub(super) async fn reads_segment(store: &Shared, prefix: &str, name: &str) -> Result<bool> {
    let owner = keeper(store, prefix).await?;
    let root = load_root(store, &owner, prefix).await?.map(|(root, _)| root);
    Ok(root.is_some_and(|root| match root.state {
        RootState::Finished => false,
        RootState::Beginning | RootState::UnderWay => name.starts_with(&root.takeover.to_string()),
    }))
}

pub(super) async fn load_segment(
    store: &Shared,
    owner: &Owner,
    prefix: &str,
    takeover: ObjectId,
    number: u32,
) -> Result<(SegmentBody, Identity)> {
    let context = segment_context(&store.id, prefix, takeover, number);
    let path = segment_path(prefix, takeover, number);
    let loaded = load(store, owner, context, &path, MAX_SEGMENT_LEN).await?;
    let (bytes, identity) = loaded.ok_or_else(|| ours(gone()))?;
    Ok((SegmentBody::parse(&bytes).map_err(ours)?, identity))
}

pub(super) async fn put_segment(
    store: &Shared,
    owner: &Owner,
    (prefix, takeover, number): (&str, ObjectId, u32),
    body: &SegmentBody,
    mode: PutMode,
) -> Result<PutResult> {
    let context = segment_context(&store.id, prefix, takeover, number);
    let path = segment_path(prefix, takeover, number);
    put(store, owner, context, &path, &body.to_bytes(), mode).await
}

/// Whether the object at `path` is still listed, now: the store is asked for the segment's identity, and for the segment
/// itself if that is not the one that we have. What is to be confirmed has to have arrived before.
pub(super) async fn confirm(
    store: &Shared,
    manifest: &Manifest,
    segment: &Segment,
    path: &str,
) -> Result<bool> {
    let found = segment.looks.share(look(store, manifest, segment)).await?;
    match segment.compare(&found, path) {
        Freshness::Plain => Ok(true),
        Freshness::Gone => Ok(false),
        // Within the turn nobody of this process replaces the segment, so that what is found is what is compared.
        Freshness::Stale => {
            let _turn = segment.turns.lock().await;
            let found = renew(store, manifest, segment).await?;
            Ok(segment.compare(&found, path) == Freshness::Plain)
        }
    }
}

/// Takes in what other processes have changed.
pub(super) async fn refresh(store: &Shared, manifest: &Manifest, segment: &Segment) -> Result<()> {
    let _turn = segment.turns.lock().await;
    renew(store, manifest, segment).await.map(drop)
}

/// Removes from the segment in the store whatever was replaced. Of writers who wait for their turn, the first takes the others'
/// along, who then find nothing left to do.
pub(super) async fn forget(store: &Shared, manifest: &Manifest, segment: &Segment) -> Result<()> {
    let _turn = segment.turns.lock().await;
    let mut failures = 0;
    for _ in 0..ATTEMPTS {
        let Some((body, stored)) = segment.next() else { return Ok(()) };
        let Some(stored) = stored else {
            reload(store, manifest, segment).await?;
            continue;
        };
        let owner = keeper(store, manifest.prefix()).await?;
        let named = (manifest.prefix(), manifest.takeover(), segment.number());
        match put_segment(store, &owner, named, &body, update(&stored)).await {
            Ok(put) => {
                // A put does not tell all that a later look at the object does.
                let found = look(store, manifest, segment).await.ok();
                let is_ours = |found: &Identity| {
                    let tags = found.e_tag.as_deref().zip(put.e_tag.as_deref());
                    tags.is_some_and(|(found, put)| bare(found) == bare(put))
                };
                segment.written(&body, found.filter(is_ours));
                return Ok(());
            }
            Err(upstream::Error::Precondition { .. } | upstream::Error::AlreadyExists { .. }) => {
                reload(store, manifest, segment).await?;
            }
            Err(upstream::Error::NotFound { .. }) => return Err(ours(gone())),
            // A client does not repeat a conditional write whose answer was lost. Here what the store has tells whether it was done.
            Err(error) if failures < RETRIES && Error::find(&error).is_none() => {
                failures += 1;
                reload(store, manifest, segment).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Err(ours(Error::new(ErrorKind::Conflict, "others kept changing the manifest of plaintext: retry")))
}

/// Looks, and reads the segment if it is another one than ours. Of the one who holds the turn.
async fn renew(store: &Shared, manifest: &Manifest, segment: &Segment) -> Result<Identity> {
    let found = look(store, manifest, segment).await?;
    match segment.is_stored_as(&found) {
        true => Ok(found),
        false => reload(store, manifest, segment).await,
    }
}

async fn reload(store: &Shared, manifest: &Manifest, segment: &Segment) -> Result<Identity> {
    let owner = keeper(store, manifest.prefix()).await?;
    let (prefix, takeover) = (manifest.prefix(), manifest.takeover());
    let (body, identity) = load_segment(store, &owner, prefix, takeover, segment.number()).await?;
    segment.adopt(&body, identity.clone()).map_err(ours)?;
    Ok(identity)
}

async fn look(store: &Shared, manifest: &Manifest, segment: &Segment) -> Result<Identity> {
    let path = segment_path(manifest.prefix(), manifest.takeover(), segment.number());
    match store.inner.head(&Path::from(path)).await {
        Ok(meta) => Ok(get::identity(&meta)),
        Err(upstream::Error::NotFound { .. }) => Err(ours(gone())),
        Err(error) => Err(error),
    }
}

/// Reads a small sealed object as a whole: at most `most` bytes of plaintext.
async fn load(
    store: &Shared,
    owner: &Owner,
    context: Context,
    path: &str,
    most: usize,
) -> Result<Option<(Vec<u8>, Identity)>> {
    let mut answer = match store.inner.get_opts(&Path::from(path), GetOptions::default()).await {
        Ok(answer) => answer,
        Err(upstream::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let identity = get::identity(&answer.meta);
    let limit = span::stored_len(most as u64, store.laid_out(BlockSize::MIN)).map_err(ours)?;
    let mut sealed = Vec::new();
    let mut stream = take_stream(&mut answer);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        if sealed.len() + chunk.len() > limit {
            return Err(ours(Error::new(ErrorKind::Format, "a part of a manifest is above its limit")));
        }
        sealed.extend_from_slice(&chunk);
    }
    let bytes = open(owner, context, &sealed).await.map_err(ours)?;
    Ok(Some((bytes, identity)))
}

async fn open(owner: &Owner, context: Context, sealed: &[u8]) -> Result<Vec<u8>, Error> {
    let header = sealed.first_chunk().ok_or_else(ended_early)?;
    let account = get::opener(owner, *header).await?;
    let reader = SealedObject::reader(account, context, sealed)?;
    let len = usize::try_from(reader.len()).map_err(|_| Error::new(ErrorKind::Format, "too long"))?;
    let mut bytes = vec![0; len];
    let read = reader.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

async fn put(
    store: &Shared,
    owner: &Owner,
    context: Context,
    path: &str,
    bytes: &[u8],
    mode: PutMode,
) -> Result<PutResult> {
    let writing = owner.clone().writer().await.map_err(ours)?;
    let account = writing.account.clone();
    let (fence, sealed): (_, Bytes) =
        parts::seal_all(account, &context, store.laid_out(BlockSize::DEFAULT), bytes.len(), [bytes])
            .map_err(ours)?;
    let options = PutOptions { mode, ..PutOptions::default() };
    let put = store.inner.put_opts(&Path::from(path), sealed.into(), options).await?;
    writing.check().await.map_err(ours)?;
    fence.check_lease().map_err(ours)?;
    Ok(put)
}

/// The condition that the object is still the one that was seen.
fn update(seen: &Identity) -> PutMode {
    PutMode::Update(UpdateVersion { e_tag: seen.e_tag.clone(), version: seen.version.clone() })
}

const fn gone() -> Error {
    Error::new(
        ErrorKind::Untrusted,
        "a part of the manifest of plaintext is missing: nothing of it is believed",
    )
}

/// How often a change is tried again because another process was first, and because the store failed.
const ATTEMPTS: u32 = 32;
pub(super) const RETRIES: u32 = 2;
