//! Sealing objects anew that are under older generations, each by one conditional put, so that whoever overwrites one meanwhile wins (contract E4).
//! Imports: `account`, `reseal`, `operation`, `error`, `format::object`, `id`, `store::sealed`, `store::takeover`, the layer.

use std::fmt;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::error::ours;
use super::get::{self, Header};
use super::put::put;
use super::upstream::path::Path;
use super::upstream::{self, GetOptions, ObjectMeta, PutMode, PutOptions, Result, UpdateVersion};
use super::{SealedStore, Shared};
use crate::account::Account;
use crate::error::{Error, ErrorKind};
use crate::format::object::{Context, UnverifiedHeader};
use crate::format::operation::OperationProgress;
use crate::id::Generation;
use crate::operation::OperationRun;
use crate::reseal::{Batch, Job, ResealLimits, ResealStep, Resealed};
use crate::store::sealed::owner::Owner;
use crate::store::sealed::span;
use crate::store::takeover::is_reserved;

/// A re-seal job over the objects of a [`SealedStore`] (contract E4): what [`SealedStore::reseal`] gives. `docs/STORES.md` is its guide.
///
/// Nothing happens outside of [`Self::step`]. Dropped, it is resumed where the last step ended, by the operation. What it does not show is
/// told at [`Reseal`](crate::Reseal).
#[must_use = "nothing happens outside of its steps"]
pub struct StoreReseal {
    store: Arc<Shared>,
    prefix: Path,
    job: Job,
    failures: Vec<(String, Error)>,
}

impl SealedStore {
    /// A job that seals anew what lies under `prefix` and is under an older generation of `account`, as `run`: at its beginning, or where it was left. Other accounts' objects
    /// are left alone, and so is plaintext that a takeover lists.
    ///
    /// The store underneath needs conditional puts, and listings in order of the paths: S3, Google's and Azure's are so.
    ///
    /// # Errors
    /// As [`Reseal::new`](crate::Reseal::new).
    pub fn reseal(&self, prefix: &Path, account: &Account, run: OperationRun) -> Result<StoreReseal, Error> {
        let job = Job::new(account, run)?;
        let made = StoreReseal {
            store: Arc::clone(&self.shared),
            prefix: prefix.clone(),
            job,
            failures: Vec::new(),
        };
        made.place()?;
        Ok(made)
    }
}

impl StoreReseal {
    /// What all objects of the account will be under, or under a newer one.
    #[must_use]
    pub const fn oldest(&self) -> Generation {
        self.job.oldest
    }

    /// How far it is: objects, those of other accounts too, and bytes of plaintext that were sealed anew.
    #[must_use]
    pub const fn progress(&self) -> OperationProgress {
        self.job.progress
    }

    /// The objects that could not be sealed anew by this job, since it was begun or resumed, and why: the first thousand of them.
    ///
    /// - [`ErrorKind::Limit`]: too large for one request ([`ResealLimits::one_request`])
    /// - [`ErrorKind::Conflict`]: it was overwritten again and again; or it is of the manifest of a takeover: finish that first
    /// - [`ErrorKind::Corrupt`], [`ErrorKind::Format`]: damaged, or no object of its place
    /// - any other: what the store underneath said
    #[must_use]
    pub fn failures(&self) -> &[(String, Error)] {
        &self.failures
    }

    /// Counts what lies there, so that the progress tells how long it takes: a whole listing, with a request for each thousand objects on most stores.
    ///
    /// # Errors
    /// The store's.
    pub async fn count(&mut self) -> Result<u64> {
        let listed = self.store.inner.list(self.under());
        let total = listed.try_fold(0, |count: u64, _| std::future::ready(Ok(count + 1))).await?;
        self.job.progress.total = Some(total);
        Ok(total)
    }

    /// Looks at one batch of objects, seals anew those that are under an older generation, and notes how far it is. Each costs a request for its
    /// header, and two more where it is sealed anew. Blocks the thread for one write of the store that the operation is noted in.
    ///
    /// # Errors
    /// The account's state when it has no valid lease; the store's when it cannot be listed, [`ErrorKind::Misuse`] when its listing is in no order; as
    /// [`OperationRun::checkpoint`], such as [`ErrorKind::Conflict`] when somebody took the operation over: stop. After any other error call it again, or
    /// resume the operation.
    pub async fn step(&mut self, limits: &ResealLimits) -> Result<ResealStep> {
        if let Some(ended) = self.job.ended().map_err(ours)? {
            return Ok(ended);
        }
        self.job.account.permit().map_err(ours)?;
        let begun = self.job.now();
        let at = self.place().map_err(ours)?;
        let page = self.page(at.as_ref(), limits.batch).await?;
        let last = page.last().map(|meta| meta.location.clone()).or(at);
        let all = page.is_empty();
        let mut batch = Batch::default();
        if !self.job.is_cancelled() {
            let (store, account, oldest) = (&self.store, &self.job.account, self.job.oldest);
            let mut looks = stream::iter(page)
                .map(|meta| async move {
                    let done = Looking { store, account, oldest, limits }.reseal(&meta).await;
                    (meta.location, done)
                })
                .buffer_unordered(limits.at_once);
            while let Some((location, done)) = looks.next().await {
                match done {
                    Ok(resealed) => batch.count(resealed),
                    Err(error) => {
                        let reason = reason(error)?;
                        if self.failures.len() < MAX_FAILURES {
                            self.failures.push((location.to_string(), reason));
                        }
                        batch.count(Resealed::Failed);
                    }
                }
            }
        } else {
            // What was not looked at is not behind the cursor.
            let place = self.job.place().to_vec();
            return self.job.done(&place, batch, all, begun, limits).map_err(ours);
        }
        let mut place = self.named().to_vec();
        place.extend_from_slice(last.as_ref().map_or("", Path::as_ref).as_bytes());
        self.job.done(&place, batch, all, begun, limits).map_err(ours)
    }

    fn under(&self) -> Option<&Path> {
        (!self.prefix.as_ref().is_empty()).then_some(&self.prefix)
    }

    /// A cursor of this store and prefix begins so.
    fn named(&self) -> [u8; 32] {
        *Context::new(&[b"reseal", self.store.id.as_bytes(), self.prefix.as_ref().as_bytes()]).as_bytes()
    }

    /// The path of the last object that was looked at; `None` at the beginning.
    fn place(&self) -> Result<Option<Path>, Error> {
        let place = self.job.place();
        if place.is_empty() {
            return Ok(None);
        }
        let path = place.strip_prefix(&self.named()).and_then(|path| std::str::from_utf8(path).ok());
        let path = path.and_then(|path| Path::parse(path).ok());
        let path = path.ok_or_else(|| {
            Error::new(ErrorKind::Misuse, "the operation's cursor is of another store or prefix")
        })?;
        Ok((!path.as_ref().is_empty()).then_some(path))
    }

    async fn page(&self, at: Option<&Path>, most: usize) -> Result<Vec<ObjectMeta>> {
        let listing = match at {
            Some(at) => self.store.inner.list_with_offset(self.under(), at),
            None => self.store.inner.list(self.under()),
        };
        let page: Vec<ObjectMeta> = listing.take(most).try_collect().await?;
        let paths = at.into_iter().chain(page.iter().map(|meta| &meta.location));
        // What comes before the cursor in no order would never be looked at.
        if !paths.is_sorted_by(|one, next| one < next) {
            let message = "the store does not list its objects in order: they cannot be gone through";
            return Err(ours(Error::new(ErrorKind::Misuse, message)));
        }
        Ok(page)
    }
}

impl fmt::Debug for StoreReseal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreReseal")
            .field("prefix", &self.prefix)
            .field("oldest", &self.job.oldest)
            .field("progress", &self.job.progress)
            .finish_non_exhaustive()
    }
}

/// A look at one object.
struct Looking<'a> {
    store: &'a Arc<Shared>,
    account: &'a Account,
    oldest: Generation,
    limits: &'a ResealLimits,
}

impl Looking<'_> {
    async fn reseal(&self, meta: &ObjectMeta) -> Result<Resealed> {
        let location = &meta.location;
        if is_reserved(location.as_ref()) {
            return self.manifest(location).await;
        }
        // Plaintext will be sealed; what no sealed object can be is under no generation.
        if self.store.is_plaintext(meta) || span::plain_len(meta.size, self.store.layout).is_none() {
            return Ok(Resealed::Current);
        }
        for _ in 0..ATTEMPTS {
            if let Some(resealed) = self.attempt(location).await? {
                return Ok(resealed);
            }
        }
        Err(ours(Error::new(
            ErrorKind::Conflict,
            "the object was overwritten again and again while it was sealed anew",
        )))
    }

    /// `None` when it was overwritten meanwhile: that may have been by a machine which does not know of the newest generation yet.
    async fn attempt(&self, location: &Path) -> Result<Option<Resealed>> {
        let place = self.store.place(location).await?;
        if let Owner::Account(owner) = &place.owner
            && owner.id() != self.account.id()
        {
            return Ok(Some(Resealed::Current));
        }
        let Header::Fetched(identity, header) =
            get::fetch_header(self.store, location, &GetOptions::default()).await?
        else {
            return Ok(Some(Resealed::Current)); // gone
        };
        let claimed = UnverifiedHeader::parse(header).map_err(ours)?.info().account;
        if claimed != self.account.id() && matches!(place.owner, Owner::Scope(_)) {
            return Ok(Some(Resealed::Current));
        }
        let readable = get::prove(self.store, &place, location, &identity, header).await?;
        if readable.proven.info().generation >= self.oldest {
            return Ok(Some(Resealed::Current));
        }
        // By its own proof: what is put is put over this object only.
        let reading = self.store.place(location).await?;
        let object = match get::get(self.store, reading, location, GetOptions::default()).await {
            Err(upstream::Error::NotFound { .. }) => return Ok(Some(Resealed::Current)),
            object => object?,
        };
        if object.meta.size > self.limits.one_request {
            let message = "larger than what is replaced by one request: see ResealLimits";
            return Err(ours(Error::new(ErrorKind::Limit, message)));
        }
        let seen = UpdateVersion { e_tag: object.meta.e_tag.clone(), version: object.meta.version.clone() };
        let attributes = object.attributes.clone();
        let plain = object.bytes().await?;
        let bytes = plain.len() as u64;
        let options = PutOptions { mode: PutMode::Update(seen), attributes, ..PutOptions::default() };
        match put(self.store, place, location, plain.into(), options).await {
            Ok(_) => Ok(Some(Resealed::Anew(bytes))),
            Err(upstream::Error::Precondition { .. } | upstream::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A takeover's root stays for good, so it is sealed anew like an object. Its segments go when it is finished.
    async fn manifest(&self, location: &Path) -> Result<Resealed> {
        let header = match get::fetch_header(self.store, location, &GetOptions::default()).await? {
            Header::Fetched(_, header) => UnverifiedHeader::parse(header).map_err(ours)?.info(),
            _ => return Ok(Resealed::Current),
        };
        if header.account != self.account.id() || header.generation >= self.oldest {
            return Ok(Resealed::Current);
        }
        match self.store.reseal_manifest(location).await? {
            Some(0) => Ok(Resealed::Current),
            Some(bytes) => Ok(Resealed::Anew(bytes)),
            None => Err(ours(Error::new(
                ErrorKind::Conflict,
                "part of the manifest of a takeover: finish that first",
            ))),
        }
    }
}

/// Why one object could not be sealed anew; an error where no other would fare better.
fn reason(error: upstream::Error) -> Result<Error> {
    use ErrorKind::{Deleted, Locked, NotReady, Revoked, Unavailable};
    match Error::find(&error).cloned() {
        Some(found) if matches!(found.kind(), Revoked | Unavailable | NotReady | Locked | Deleted) => {
            Err(error)
        }
        Some(found) => Ok(found),
        None => Ok(Error::new(ErrorKind::Io, "the store failed").with_source(error)),
    }
}

/// How often an object is looked at again because it was overwritten meanwhile.
const ATTEMPTS: u32 = 4;
const MAX_FAILURES: usize = 1000;
