//! Sealing what is plaintext, in batches: the objects first, then the manifest without them. Whatever crashes in between is seen by the
//! objects' identities. Imports: `error`, `format`, `object::proven`, `store::takeover`, `store::sealed::parts`, the layer.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::super::error::ours;
use super::super::put::SealedUpload;
use super::super::upstream::path::Path;
use super::super::upstream::{
    self, GetOptions, GetResult, MultipartUpload, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions,
    Result, UpdateVersion,
};
use super::super::{Place, Shared, get, take_stream};
use super::{Taking, keep};
use crate::error::{Error, ErrorKind};
use crate::format::object::HEADER_LEN;
use crate::format::takeover::{Entry, MAX_SEGMENT_ENTRIES, Root, RootState};
use crate::object::proven::Proven;
use crate::store::sealed::opener::{ended_early, too_long};
use crate::store::sealed::parts::Parts;
use crate::store::takeover::segment::{self, Segment};
use crate::store::takeover::{TakeoverLimits, TakeoverProgress};

/// One batch of one segment; or, where nothing is left, the end.
pub(super) async fn step(
    store: &Arc<Shared>,
    taking: &Taking,
    limits: &TakeoverLimits,
) -> Result<TakeoverProgress> {
    let manifest = &taking.manifest;
    if manifest.root().state == RootState::Finished {
        return Ok(manifest.progress());
    }
    let most = limits.batch.min(MAX_SEGMENT_ENTRIES);
    let count = manifest.segments().len();
    for _ in 0..count {
        let segment = &manifest.segments()[taking.next.load(Ordering::Relaxed) % count];
        // What a foreground write or an earlier step left behind, and what other processes have done.
        keep::forget(store, manifest, segment).await?;
        if segment.left().0 > 0 {
            keep::refresh(store, manifest, segment).await?;
        }
        let batch = segment.batch(most);
        if !batch.is_empty() {
            seal_all(store, taking, segment, batch, limits).await?;
            break;
        }
        taking.next.fetch_add(1, Ordering::Relaxed);
    }
    if manifest.progress().objects_left == 0 {
        finish(store, taking).await?;
    }
    Ok(manifest.progress())
}

async fn seal_all(
    store: &Arc<Shared>,
    taking: &Taking,
    segment: &Segment,
    batch: Vec<Entry>,
    limits: &TakeoverLimits,
) -> Result<()> {
    let sealing = Sealing { store, taking, segment, limits };
    let done: Result<()> = stream::iter(batch)
        .map(|entry| async { sealing.seal(entry).await })
        .buffer_unordered(limits.at_once)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await;
    // What was sealed counts, also where the rest was not to be.
    let forgotten = keep::forget(store, &taking.manifest, segment).await;
    done.and(forgotten)
}

/// Says in the store that nothing is plaintext any more.
async fn finish(store: &Shared, taking: &Taking) -> Result<()> {
    let manifest = &taking.manifest;
    let owner = keep::keeper(store, manifest.prefix()).await?;
    for _ in 0..ATTEMPTS {
        let found = keep::load_root(store, &owner, manifest.prefix()).await?;
        let (root, identity) = found.ok_or_else(|| ours(crate::store::takeover::rolled_back()))?;
        manifest.set_root(root).map_err(ours)?;
        if root.state == RootState::Finished {
            return Ok(());
        }
        let finished = Root { version: root.version.saturating_add(1), state: RootState::Finished, ..root };
        match keep::put_root(store, &owner, manifest.prefix(), finished, Some(&identity)).await {
            Ok(_) => return manifest.set_root(finished).map_err(ours),
            Err(upstream::Error::Precondition { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(ours(kept_changing()))
}

/// What became of one look at an object.
enum Outcome {
    /// It is no plaintext of the manifest's any more.
    Done,
    /// It was replaced in the midst of it.
    Again,
}

/// What an upload in parts came to.
enum Uploaded {
    Replaced,
    /// It was sealed when it was listed: nothing was put.
    SealedBefore,
    /// It was replaced in the midst of it, or is about to be.
    Another,
}

struct Sealing<'a> {
    store: &'a Arc<Shared>,
    taking: &'a Taking,
    segment: &'a Segment,
    limits: &'a TakeoverLimits,
}

impl Sealing<'_> {
    /// Fails only where going on makes no sense. What is wrong with one object is noted.
    async fn seal(&self, entry: Entry) -> Result<()> {
        let failed = match self.attempts(&entry).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let reason = match Error::find(&failed) {
            Some(error) if is_of_the_account(error.kind()) => return Err(failed),
            Some(error) => error.clone(),
            None => Error::new(ErrorKind::Io, "the store failed").with_source(failed),
        };
        self.taking.manifest.fail(self.segment, &entry.path, reason);
        Ok(())
    }

    async fn attempts(&self, entry: &Entry) -> Result<()> {
        let mut failures = 0;
        for _ in 0..ATTEMPTS {
            match self.attempt(entry).await {
                Ok(Outcome::Done) => return Ok(()),
                Ok(Outcome::Again) => {}
                // Whether it was done all the same is seen at the next look.
                Err(error) if failures < keep::RETRIES && Error::find(&error).is_none() => failures += 1,
                Err(error) => return Err(error),
            }
        }
        Err(ours(kept_changing()))
    }

    async fn attempt(&self, entry: &Entry) -> Result<Outcome> {
        let location = Path::from(&*entry.path);
        let place = self.store.place(&location).await?;
        place.owner.check_open().map_err(ours)?;
        let answer = match self.store.inner.get_opts(&location, GetOptions::default()).await {
            Ok(answer) => answer,
            Err(upstream::Error::NotFound { .. }) => return Ok(self.is_done(entry)),
            Err(error) => return Err(error),
        };
        if !segment::is(entry, &get::identity(&answer.meta)) {
            drop(answer);
            return self.look_at_another(entry, &place, &location).await;
        }
        // Whoever overwrote it may have been told that it is done, and somebody else may have put the old plaintext back.
        if !keep::confirm(self.store, &self.taking.manifest, self.segment, &entry.path).await? {
            return Ok(Outcome::Done);
        }
        match entry.size <= self.limits.one_request {
            true => self.replace_at_once(entry, place, &location, answer).await,
            false if self.limits.in_parts => self.replace_in_parts(entry, place, &location, answer).await,
            false => {
                let message = "larger than what is replaced by one request: see TakeoverLimits";
                Err(ours(Error::new(ErrorKind::Limit, message)))
            }
        }
    }

    /// There is another object than the one that was listed: a sealed one, or what somebody put there past the store.
    async fn look_at_another(&self, entry: &Entry, place: &Place, location: &Path) -> Result<Outcome> {
        let header = match get::fetch_header(self.store, location, &GetOptions::default()).await {
            // Shorter than a header.
            Err(error) if Error::find(&error).is_some() => None,
            header => Some(header?),
        };
        match header {
            Some(get::Header::Fetched(_, header)) if is_sealed(place, &header).await? => {
                Ok(self.is_done(entry))
            }
            Some(get::Header::Gone) => Ok(self.is_done(entry)),
            _ => {
                let message = "there is neither what was listed nor a sealed object";
                Err(ours(Error::new(ErrorKind::Conflict, message)))
            }
        }
    }

    async fn replace_at_once(
        &self,
        entry: &Entry,
        place: Place,
        location: &Path,
        mut answer: GetResult,
    ) -> Result<Outcome> {
        let layout = self.store.layout;
        let writing = place.owner.clone().writer().await.map_err(ours)?;
        let account = writing.account.clone();
        let mut parts = Parts::begin(account, &place.context, layout, PIECE).map_err(ours)?;
        let mut pieces: Vec<Bytes> = Vec::new();
        let mut start = Start::default();
        let mut left = entry.size;
        let mut stream = take_stream(&mut answer);
        while let Some(chunk) = stream.try_next().await? {
            left = left.checked_sub(chunk.len() as u64).ok_or_else(|| ours(too_long()))?;
            start.take(&chunk);
            // Pieces of the store's, whatever their size: the settled length of a part is the first one's.
            pieces.extend(parts.take(chunk.len(), [&chunk[..]]).map_err(ours)?);
        }
        if left > 0 {
            return Err(ours(ended_early()));
        }
        if let Some(header) = start.header()
            && is_sealed(&place, header).await?
        {
            // It was sealed when it was listed.
            parts.give_up();
            return Ok(self.is_done(entry));
        }
        pieces.extend(parts.finish().map_err(ours)?);
        let seen = UpdateVersion { e_tag: answer.meta.e_tag, version: answer.meta.version };
        let options = PutOptions {
            mode: PutMode::Update(seen),
            attributes: answer.attributes,
            ..PutOptions::default()
        };
        match self.store.inner.put_opts(location, pieces.into_iter().collect(), options).await {
            Ok(_) => {
                writing.check().await.map_err(ours)?;
                parts.check().map_err(ours)?;
                Ok(self.is_done(entry))
            }
            Err(upstream::Error::Precondition { .. } | upstream::Error::NotFound { .. }) => {
                Ok(Outcome::Again)
            }
            Err(error) => Err(error),
        }
    }

    /// Not conditional: this process's own writes to the object wait meanwhile, and others' there are none, on the embedder's word.
    async fn replace_in_parts(
        &self,
        entry: &Entry,
        place: Place,
        location: &Path,
        mut answer: GetResult,
    ) -> Result<Outcome> {
        let options =
            PutMultipartOptions { attributes: answer.attributes.clone(), ..PutMultipartOptions::default() };
        let whose = Place { owner: place.owner.clone(), context: place.context };
        let mut upload = SealedUpload::begin(self.store, place, location, options).await?;
        let done = self.upload(entry, &whose, location, &mut upload, &mut answer).await;
        if !matches!(done, Ok(Uploaded::Replaced)) {
            // The failure that counts is the first. What is left is what an upload leaves whose process has ended.
            let _ = upload.abort().await;
        }
        match done? {
            Uploaded::Replaced | Uploaded::SealedBefore => Ok(self.is_done(entry)),
            Uploaded::Another => Ok(Outcome::Again),
        }
    }

    async fn upload(
        &self,
        entry: &Entry,
        place: &Place,
        location: &Path,
        upload: &mut SealedUpload,
        answer: &mut GetResult,
    ) -> Result<Uploaded> {
        let mut left = entry.size;
        let mut start = Start::default();
        let mut stream = take_stream(answer);
        while let Some(chunk) = stream.try_next().await? {
            left = left.checked_sub(chunk.len() as u64).ok_or_else(|| ours(too_long()))?;
            let had_header = start.header().is_some();
            start.take(&chunk);
            // Asked once, before most of it is read.
            if let Some(header) = start.header()
                && !had_header
                && is_sealed(place, header).await?
            {
                return Ok(Uploaded::SealedBefore);
            }
            upload.put_part(chunk.into()).await?;
        }
        if left > 0 {
            return Err(ours(ended_early()));
        }
        upload.send_rest().await?;
        let _turn = self.taking.parts.lock().await;
        let Some(_alone) = Alone::begin(self.segment, &entry.path) else { return Ok(Uploaded::Another) };
        let found = self.store.inner.head(location).await?;
        let is_listed = keep::confirm(self.store, &self.taking.manifest, self.segment, &entry.path).await?;
        if !is_listed || !segment::is(entry, &get::identity(&found)) {
            return Ok(Uploaded::Another);
        }
        upload.complete_here().await?;
        // While writes still wait.
        self.segment.replaced(&entry.path);
        Ok(Uploaded::Replaced)
    }

    /// From now on the object is read as a sealed one, in this process. It counts once the manifest says so.
    fn is_done(&self, entry: &Entry) -> Outcome {
        self.segment.replaced(&entry.path);
        Outcome::Done
    }
}

/// Keeps this process's writes away from one object.
struct Alone<'a> {
    segment: &'a Segment,
    path: &'a str,
}

impl<'a> Alone<'a> {
    fn begin(segment: &'a Segment, path: &'a str) -> Option<Self> {
        segment.begin_parts(path).then_some(Self { segment, path })
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.segment.end_parts(self.path);
    }
}

/// The first bytes of an object, gathered from pieces.
#[derive(Default)]
struct Start(Vec<u8>);

impl Start {
    fn take(&mut self, chunk: &[u8]) {
        let missing = HEADER_LEN - self.0.len();
        self.0.extend_from_slice(&chunk[..chunk.len().min(missing)]);
    }

    fn header(&self) -> Option<&[u8; HEADER_LEN]> {
        self.0.first_chunk()
    }
}

/// Whether an object that begins like this is a sealed one of its place.
async fn is_sealed(place: &Place, header: &[u8; HEADER_LEN]) -> Result<bool> {
    let proven = match get::opener(&place.owner, *header).await {
        Ok(account) => Proven::new(&account, &place.context, *header),
        Err(error) => Err(error),
    };
    match proven {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Format) => Ok(false),
        // Whether it is one is not known, and nothing is sealed twice.
        Err(error) => Err(ours(error)),
    }
}

/// No other object would fare better.
const fn is_of_the_account(kind: ErrorKind) -> bool {
    use ErrorKind::{Deleted, Locked, NotReady, Revoked, Unavailable};
    matches!(kind, Revoked | Unavailable | NotReady | Locked | Deleted)
}

const fn kept_changing() -> Error {
    Error::new(ErrorKind::Conflict, "the object was replaced again and again while it was sealed")
}

/// How often an object is looked at again because it was replaced meanwhile.
const ATTEMPTS: u32 = 4;

/// The pieces in which a sealed object is held until it is sent.
const PIECE: usize = 1024 * 1024;
