//! Beginning a takeover, and reading the manifest of one that was begun.
//! Imports: `format::takeover`, `id`, `error`, `store::takeover`, the layer.

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::super::error::ours;
use super::super::upstream::path::Path;
use super::super::upstream::{self, ObjectMeta, ObjectStoreExt, PutMode, Result};
use super::super::{Shared, get};
use super::keep;
use crate::error::{Error, ErrorKind};
use crate::format::takeover::{Entry, MAX_OBJECTS, Root, RootState, SegmentBody, cut};
use crate::id::ObjectId;
use crate::store::sealed::headers::Identity;
use crate::store::sealed::owner::Owner;
use crate::store::takeover::manifest::{Manifest, is_below};
use crate::store::takeover::segment::{Segment, bare};
use crate::store::takeover::{TakeoverMark, is_reserved, rolled_back, root_path, upwards};

/// The root is written first, as a claim; then the segments; then the root says that it has begun. So nothing has before all is there.
pub(super) async fn begin(store: &Shared, prefix: &Path) -> Result<()> {
    let owner = keep::keeper(store, prefix.as_ref()).await?;
    none_above(store, prefix.as_ref()).await?;
    let (claim, seen) = claim(store, &owner, prefix.as_ref()).await?;
    let segments = cut(listed(store, prefix).await?).map_err(ours)?;
    let sizes = segments.iter().flat_map(|segment| &segment.entries).map(|entry| entry.size);
    let root = Root {
        version: claim.version.saturating_add(1),
        state: RootState::UnderWay,
        // OK because `cut` makes at most MAX_SEGMENTS.
        segments: u32::try_from(segments.len()).unwrap_or(u32::MAX),
        objects: segments.iter().map(|segment| segment.entries.len() as u64).sum(),
        bytes: sizes.fold(0, u64::saturating_add),
        ..claim
    };
    write(store, &owner, prefix.as_ref(), claim.takeover, &segments).await?;
    match keep::put_root(store, &owner, prefix.as_ref(), root, Some(&seen)).await {
        Err(upstream::Error::Precondition { .. }) => Err(ours(begun())),
        done => done.map(drop),
    }
}

/// Draws an id and writes it into a root that says nothing yet, over one of an attempt that came to no end.
async fn claim(store: &Shared, owner: &Owner, prefix: &str) -> Result<(Root, Identity)> {
    let found = keep::load_root(store, owner, prefix).await?;
    let before = match &found {
        None => 0,
        Some((Root { state: RootState::Beginning, version, .. }, _)) => *version,
        Some(_) => return Err(ours(begun())),
    };
    let root = Root {
        takeover: ObjectId::random(),
        version: before.saturating_add(1),
        state: RootState::Beginning,
        segments: 0,
        objects: 0,
        bytes: 0,
    };
    let over = found.as_ref().map(|(_, identity)| identity);
    match keep::put_root(store, owner, prefix, root, over).await {
        Err(upstream::Error::Precondition { .. } | upstream::Error::AlreadyExists { .. }) => {
            Err(ours(begun()))
        }
        Err(error) => Err(error),
        Ok(_) => match keep::load_root(store, owner, prefix).await? {
            Some((found, identity)) if found == root => Ok((root, identity)),
            _ => Err(ours(begun())),
        },
    }
}

/// What lies there, in order of the paths.
async fn listed(store: &Shared, prefix: &Path) -> Result<Vec<Entry>> {
    let own = root_path(prefix.as_ref());
    let folder = own.rfind('/').map_or("", |at| &own[..at]);
    let mut listing = store.inner.list((!prefix.as_ref().is_empty()).then_some(prefix));
    let mut entries = Vec::new();
    while let Some(meta) = listing.try_next().await? {
        if is_below(folder, meta.location.as_ref()) {
            continue;
        }
        if is_reserved(meta.location.as_ref()) {
            return Err(ours(begun()));
        }
        if entries.len() as u64 >= MAX_OBJECTS {
            return Err(ours(Error::new(ErrorKind::Limit, "more objects than one manifest lists")));
        }
        entries.push(entry(&meta).map_err(ours)?);
    }
    entries.sort_unstable_by(|one: &Entry, other| one.path.cmp(&other.path));
    entries.dedup_by(|one, other| one.path == other.path);
    Ok(entries)
}

fn entry(meta: &ObjectMeta) -> Result<Entry, Error> {
    let Identity { e_tag, version, modified: _, size } = get::identity(meta);
    let e_tag = e_tag.ok_or_else(|| {
        Error::new(
            ErrorKind::Misuse,
            "a store without entity tags cannot tell plaintext from what replaced it",
        )
    })?;
    let modified = u64::try_from(meta.last_modified.timestamp())
        .map_err(|_| Error::new(ErrorKind::Limit, "an object is from before 1970"))?;
    Ok(Entry {
        path: meta.location.as_ref().into(),
        size,
        modified,
        e_tag: bare(&e_tag).into(),
        version: version.map(Into::into),
    })
}

async fn write(
    store: &Shared,
    owner: &Owner,
    prefix: &str,
    takeover: ObjectId,
    segments: &[SegmentBody],
) -> Result<()> {
    stream::iter((0..).zip(segments))
        .map(|(number, body)| async move {
            keep::put_segment(store, owner, (prefix, takeover, number), body, PutMode::Create).await
        })
        .buffer_unordered(AT_ONCE)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await
}

/// A prefix within one that was taken over has sealed data in it, or soon will.
async fn none_above(store: &Shared, prefix: &str) -> Result<()> {
    for above in upwards(prefix).skip(1) {
        match store.inner.head(&Path::from(root_path(above))).await {
            Err(upstream::Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(ours(begun())),
        }
    }
    Ok(())
}

pub(super) async fn load(store: &Shared, prefix: &str, least: Option<&TakeoverMark>) -> Result<Manifest> {
    let owner = keep::keeper(store, prefix).await?;
    let found = keep::load_root(store, &owner, prefix).await?;
    let (root, _) = found.ok_or_else(|| match least {
        Some(_) => ours(rolled_back()),
        None => ours(Error::new(ErrorKind::Misuse, "no takeover of this prefix was begun")),
    })?;
    let segments = match root.state {
        RootState::Beginning => {
            let message = "the beginning of this takeover came to no end: begin it again";
            return Err(ours(Error::new(ErrorKind::Misuse, message)));
        }
        RootState::Finished => Vec::new(),
        RootState::UnderWay => {
            let owner = &owner;
            stream::iter(0..root.segments)
                .map(|number| async move {
                    let loaded = keep::load_segment(store, owner, prefix, root.takeover, number).await?;
                    Ok::<_, upstream::Error>(Segment::new(number, loaded.0, loaded.1))
                })
                .buffered(AT_ONCE)
                .try_collect()
                .await?
        }
    };
    Manifest::new(prefix, root, segments, least).map_err(ours)
}

const fn begun() -> Error {
    Error::new(ErrorKind::Conflict, "a takeover of this prefix, or across it, was begun already: open it")
}

/// How many segments are read or written at the same time.
const AT_ONCE: usize = 8;
