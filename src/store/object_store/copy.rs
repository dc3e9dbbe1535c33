//! Copies and renames. An object is bound to its path, so a copy is sealed anew, as a stream of bounded memory.
//! Imports: `id`, the layer.

use std::sync::Arc;

use futures_util::stream::TryStreamExt;

use super::error::ours;
use super::get;
use super::put::{SealedUpload, put};
use super::takeover::Replacing;
use super::upstream::path::Path;
use super::upstream::{
    self, CopyMode, CopyOptions, GetOptions, GetResult, MultipartUpload, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, RenameOptions, RenameTargetMode, Result,
};
use super::{Place, Shared};
use crate::id::ObjectId;

pub(super) async fn copy(store: &Arc<Shared>, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
    let (source, target) = (store.place(from).await?, store.place(to).await?);
    let fenced = target.owner.fenced().await.map_err(ours)?;
    if source.is(&target) && store.plaintext(from).is_none() {
        let replacing = store.replacing(to).await;
        store.inner.copy_opts(from, to, options).await?;
        done(store, replacing).await?;
    } else {
        seal_anew(store, source, from, target, to, options).await?;
    }
    fenced.check().await.map_err(ours)
}

pub(super) async fn rename(
    store: &Arc<Shared>,
    from: &Path,
    to: &Path,
    options: RenameOptions,
) -> Result<()> {
    let (source, target) = (store.place(from).await?, store.place(to).await?);
    if from == to {
        return rename_to_itself(store, from, options.target_mode).await;
    }
    let fenced = target.owner.fenced().await.map_err(ours)?;
    let leaving = store.replacing(from).await;
    if source.is(&target) && leaving.is_none() {
        let replacing = store.replacing(to).await;
        store.inner.rename_opts(from, to, options).await?;
        done(store, replacing).await?;
    } else {
        let RenameOptions { target_mode, extensions } = options;
        let mode = match target_mode {
            RenameTargetMode::Overwrite => CopyMode::Overwrite,
            RenameTargetMode::Create => CopyMode::Create,
        };
        seal_anew(store, source, from, target, to, CopyOptions { mode, extensions }).await?;
        // The source goes once its copy could be acknowledged.
        fenced.check().await.map_err(ours)?;
        store.inner.delete(from).await?;
        done(store, leaving).await?;
    }
    fenced.check().await.map_err(ours)
}

/// The end of what may have replaced plaintext.
async fn done(store: &Shared, replacing: Option<Replacing>) -> Result<()> {
    match replacing {
        Some(replacing) => replacing.done(store).await,
        None => Ok(()),
    }
}

/// Nothing is moved: many a store would copy the object to where it is, and then delete it.
async fn rename_to_itself(store: &Shared, location: &Path, mode: RenameTargetMode) -> Result<()> {
    store.inner.head(location).await?;
    match mode {
        RenameTargetMode::Overwrite => Ok(()),
        RenameTargetMode::Create => Err(upstream::Error::AlreadyExists {
            path: location.to_string(),
            source: "an object cannot be renamed to itself where its name has to be free".into(),
        }),
    }
}

async fn seal_anew(
    store: &Arc<Shared>,
    source: Place,
    from: &Path,
    target: Place,
    to: &Path,
    options: CopyOptions,
) -> Result<()> {
    let CopyOptions { mode, extensions } = options;
    let reading = GetOptions { extensions: extensions.clone(), ..GetOptions::default() };
    let object = get::get(store, source, from, reading).await?;
    let attributes = object.attributes.clone();
    if object.meta.size <= store.part_size as u64 {
        let payload = object.bytes().await?.into();
        let mode = match mode {
            CopyMode::Overwrite => PutMode::Overwrite,
            CopyMode::Create => PutMode::Create,
        };
        let options = PutOptions { mode, attributes, extensions, ..PutOptions::default() };
        return put(store, target, to, payload, options).await.map(drop);
    }
    let options =
        PutMultipartOptions { attributes, extensions: extensions.clone(), ..PutMultipartOptions::default() };
    match mode {
        CopyMode::Overwrite => upload(store, target, to, options, object).await,
        // An upload in parts overwrites. So it goes elsewhere, bound to the place where it is to be, and the store moves it.
        CopyMode::Create => {
            let staged = Path::parse(format!("{to}.{STAGED}{}", ObjectId::random()))?;
            upload(store, target, &staged, options, object).await?;
            let replacing = store.replacing(to).await;
            let moved = store.inner.copy_opts(&staged, to, CopyOptions { mode, extensions }).await;
            let deleted = store.inner.delete(&staged).await;
            moved?;
            done(store, replacing).await?;
            deleted
        }
    }
}

/// Reads and writes one part at a time.
async fn upload(
    store: &Arc<Shared>,
    target: Place,
    at: &Path,
    options: PutMultipartOptions,
    object: GetResult,
) -> Result<()> {
    let mut upload = SealedUpload::begin(store, target, at, options).await?;
    let done = send(&mut upload, object).await;
    if done.is_err() {
        // The failure that counts is the first. What is left is what an upload leaves whose process has ended.
        let _ = upload.abort().await;
    }
    done
}

async fn send(upload: &mut SealedUpload, object: GetResult) -> Result<()> {
    let mut plain = object.into_stream();
    while let Some(chunk) = plain.try_next().await? {
        upload.put_part(chunk.into()).await?;
    }
    upload.complete().await.map(drop)
}

/// What stands behind the name of an object on its way to a place that has to be free.
const STAGED: &str = "strongroom-staged-";
