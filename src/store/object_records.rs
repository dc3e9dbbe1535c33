//! Records in an object store: one object per account, shared by any number of machines (features `object-store` and
//! `tokio`).
//!
//! Replacing is a conditional put: `If-None-Match: *` for a new record, `If-Match` with the entity tag for a known one. A
//! record is kept in the history before it is put in place.
//!
//! ```text
//! <prefix>/records/<account>                      the newest record; its metadata names the write that put it there
//! <prefix>/history/<account>/<sequence>-<write>   each record that was written, the last ones of them
//! ```
//! Imports: `record_store`, `format::{record, tombstone}`, `runtime`, `id`, `error`.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, Error as StoreError, GetOptions, GetResult, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion,
};
use tokio::runtime::Handle;

use crate::error::{Error, ErrorKind};
use crate::format::record::AccountRecord;
use crate::format::tombstone::{Tombstone, sequence_of};
use crate::id::AccountId;
use crate::record_store::archive::{
    DEFAULT_HISTORY, KeptRecord, LISTED_AT_ONCE, Listed, RecordArchive, first_after,
};
use crate::record_store::{Loaded, RecordStore, RecordTag};
use crate::runtime::{NoAnswer, RunsOn};

/// A [`RecordStore`] in an object store: S3, Azure Blob Storage, Google Cloud Storage, memory.
///
/// The store has to replace objects conditionally. One that cannot, like the local disk of `object_store`, and one that
/// ignores the condition is [`ErrorKind::Misuse`] when the first account is created in it; take a
/// [`FileRecordStore`](crate::FileRecordStore) there. An unchanged record costs a conditional `GET` without a body, and a
/// change two `PUT`s and a listing.
///
/// Requests run on a tokio runtime, and each ends at a deadline of its own: a store that does not answer is
/// [`ErrorKind::Io`]. Nothing that it answers is believed, and no more than 1 MiB of a record is ever read.
///
/// ```
/// use std::sync::Arc;
/// use object_store::memory::InMemory;
/// use strongroom::store::ObjectRecordStore;
/// use strongroom::{AccountId, Loaded, RecordStore};
///
/// // In a tokio service: `ObjectRecordStore::new(bucket, "strongroom", Handle::current())`.
/// let store = ObjectRecordStore::with_own_runtime(Arc::new(InMemory::new()), "strongroom")?;
/// let account = AccountId::random();
/// let tag = store.compare_and_swap(account, None, b"the bytes of a record")?;
/// assert_eq!(store.load(account, Some(&tag))?, Loaded::Unchanged);
/// # Ok::<(), strongroom::Error>(())
/// ```
pub struct ObjectRecordStore {
    bucket: Bucket,
    runtime: RunsOn,
    call_deadline: Duration,
    most_kept: usize,
}

impl ObjectRecordStore {
    /// Records under `prefix` in `store`, which is asked on the runtime of `handle`: the one that the store's client needs,
    /// with its timers and its network enabled.
    ///
    /// As with [`OnTokio`](crate::provider::OnTokio), a runtime of the flavour `current_thread` makes progress only while its
    /// thread is in it. A call on that very thread is [`ErrorKind::Misuse`] and no deadlock.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] when `prefix` is no path of an object store. It may be empty.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str, handle: Handle) -> Result<Self, Error> {
        Self::on(store, prefix, RunsOn::Users(handle))
    }

    /// The same on a runtime of its own, of one thread: for programs without one, and whenever leases shall not depend on how
    /// busy the program's runtime is. Give it a client of its own then: one that is shared with another runtime may have its
    /// connections served there.
    ///
    /// # Errors
    /// As [`Self::new`], and [`ErrorKind::Limit`] when the operating system gives no thread.
    pub fn with_own_runtime(store: Arc<dyn ObjectStore>, prefix: &str) -> Result<Self, Error> {
        let runtime = RunsOn::own().map_err(|source| {
            Error::new(ErrorKind::Limit, "the operating system gives no thread").with_source(source)
        })?;
        Self::on(store, prefix, runtime)
    }

    /// After how long a request counts as unanswered. Default 2 s, like that of a call to a KMS, at most a minute. A listing may
    /// take 30 times as long.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] for zero and for more than a minute.
    pub fn call_deadline(mut self, deadline: Duration) -> Result<Self, Error> {
        if deadline.is_zero() || deadline > MAX_CALL_DEADLINE {
            return Err(Error::new(
                ErrorKind::Misuse,
                "`call_deadline` is more than zero and at most 1 minute",
            ));
        }
        self.call_deadline = deadline;
        Ok(self)
    }

    /// Keeps the last `most` records of each account, the newest one included; none with zero. Default: 32. Each process
    /// that writes trims by its own number.
    #[must_use]
    pub const fn keep_history(mut self, most: usize) -> Self {
        self.most_kept = most;
        self
    }

    fn on(store: Arc<dyn ObjectStore>, prefix: &str, runtime: RunsOn) -> Result<Self, Error> {
        let prefix = Path::parse(prefix).map_err(|source| {
            let detail = source.to_string();
            Error::new(ErrorKind::Misuse, "the prefix is no path of an object store").with_detail(detail)
        })?;
        let bucket = Bucket { store, prefix };
        Ok(Self { bucket, runtime, call_deadline: CALL_DEADLINE, most_kept: DEFAULT_HISTORY })
    }

    /// One request, or a few that share a deadline.
    fn ask<T, F>(&self, deadline: Duration, asked: impl FnOnce(Bucket) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let call = asked(self.bucket.clone());
        self.runtime.block_on(deadline, call).unwrap_or_else(|none| {
            Err(match none {
                NoAnswer::Late => Error::new(ErrorKind::Io, "the record store did not answer in time"),
                NoAnswer::Gone => Error::new(ErrorKind::Io, "the runtime of the record store was shut down"),
                NoAnswer::Panicked => Error::new(ErrorKind::Io, "the client of the record store panicked"),
                NoAnswer::WaitsForItself => Error::new(ErrorKind::Misuse, WAITS_FOR_ITSELF),
            })
        })
    }

    /// Whether a condition is understood and heeded: it asks for a replacement whose condition no object meets.
    fn require_conditional_puts(&self, account: AccountId) -> Result<(), Error> {
        let none = UpdateVersion { e_tag: Some("\"strongroom\"".to_owned()), version: Some("1".to_owned()) };
        let mode = PutMode::Update(none);
        let put = self.ask(self.call_deadline, |bucket| async move {
            Ok(bucket.put(&bucket.prefix.clone().join(PROBE), b"", mode, None).await)
        })?;
        match put {
            Err(error) if is_conflict(&error) => Ok(()),
            Err(error) => Err(failed(account, error)),
            Ok(_) => Err(Error::new(ErrorKind::Misuse, "the object store ignores the condition of a put")
                .with_account(account)),
        }
    }

    /// After a put whose condition was not met. The client may have put twice, the first time with success and without an
    /// answer: then what is there is of this very write.
    fn settle(&self, account: AccountId, write: KeptRecord) -> Result<RecordTag, Error> {
        let found = self.ask(self.call_deadline, move |bucket| async move {
            bucket.get(account, &bucket.record(account), None).await
        })?;
        match found {
            Got::Object { tag, write: Some(of), .. } if of == write.to_string() => return Ok(tag),
            // Of one sequence one record was ever in place, and this is not ours. And of a purged account nothing is kept.
            Got::Object { bytes, .. }
                if Tombstone::is_one(&bytes)
                    || sequence_of(&bytes).is_ok_and(|sequence| Some(sequence) == write.sequence()) =>
            {
                self.drop_kept(account, vec![write]);
            }
            _ => {}
        }
        Err(Error::record_conflict(account))
    }

    fn keep(&self, account: AccountId, write: KeptRecord, bytes: &[u8]) -> Result<(), Error> {
        if self.most_kept == 0 {
            return Ok(());
        }
        let bytes = bytes.to_vec();
        self.ask(self.call_deadline, move |bucket| async move {
            let put = bucket.put(&bucket.kept(account, write), &bytes, PutMode::Overwrite, None).await;
            put.map(drop).map_err(|error| failed(account, error))
        })
    }

    /// Once the new record is in place. What cannot be removed now is, by the next change.
    fn trim(&self, account: AccountId) {
        let kept = self.ask(self.call_deadline, move |bucket| async move { bucket.history(account).await });
        self.drop_kept(account, KeptRecord::surplus(&kept.unwrap_or_default(), self.most_kept));
    }

    fn drop_kept(&self, account: AccountId, kept: Vec<KeptRecord>) {
        if !kept.is_empty() {
            drop(self.ask(self.call_deadline, move |bucket| async move {
                for kept in kept {
                    // Best effort: the next change removes what stays.
                    let _ = bucket.store.delete(&bucket.kept(account, kept)).await;
                }
                Ok(())
            }));
        }
    }
}

impl RecordStore for ObjectRecordStore {
    fn load(&self, account: AccountId, known: Option<&RecordTag>) -> Result<Loaded, Error> {
        let e_tag = known.and_then(version_of).and_then(|version| version.e_tag);
        let got = self.ask(self.call_deadline, move |bucket| async move {
            bucket.get(account, &bucket.record(account), e_tag).await
        })?;
        Ok(match got {
            Got::Absent => Loaded::Absent,
            Got::Unchanged => Loaded::Unchanged,
            Got::Object { tag, .. } if known == Some(&tag) => Loaded::Unchanged,
            Got::Object { bytes, tag, .. } => Loaded::Found { bytes, tag },
        })
    }

    fn compare_and_swap(
        &self,
        account: AccountId,
        expected: Option<&RecordTag>,
        bytes: &[u8],
    ) -> Result<RecordTag, Error> {
        if bytes.len() > AccountRecord::MAX_LEN {
            return Err(Error::new(ErrorKind::Limit, "a record is longer than 1 MiB").with_account(account));
        }
        let mode = match expected.map(version_of) {
            None => {
                self.require_conditional_puts(account)?;
                PutMode::Create
            }
            Some(Some(version)) => PutMode::Update(version),
            // No tag of this store is written so.
            Some(None) => return Err(Error::record_conflict(account)),
        };
        let write = KeptRecord::naming(bytes);
        self.keep(account, write, bytes)?;
        let record = bytes.to_vec();
        let put = self.ask(self.call_deadline, move |bucket| async move {
            Ok(bucket.put(&bucket.record(account), &record, mode, Some(write)).await)
        })?;
        let tag = match put {
            Ok(version) => tag_of(account, version.e_tag.as_deref(), version.version.as_deref())?,
            Err(error) if is_conflict(&error) => self.settle(account, write)?,
            Err(error) => return Err(failed(account, error)),
        };
        self.trim(account);
        Ok(tag)
    }

    fn destroy_kept(&self, account: AccountId) -> Result<(), Error> {
        self.ask(
            self.call_deadline * LISTING,
            move |bucket| async move { bucket.destroy_history(account).await },
        )
    }
}

impl RecordArchive for ObjectRecordStore {
    fn list(&self, after: Option<AccountId>) -> Result<Vec<Listed>, Error> {
        self.ask(self.call_deadline * LISTING, move |bucket| async move { bucket.list(after).await })
    }

    fn history(&self, account: AccountId) -> Result<Vec<KeptRecord>, Error> {
        self.ask(self.call_deadline * LISTING, move |bucket| async move { bucket.history(account).await })
    }

    fn load_kept(&self, account: AccountId, kept: KeptRecord) -> Result<Vec<u8>, Error> {
        let got = self.ask(self.call_deadline, move |bucket| async move {
            bucket.get(account, &bucket.kept(account, kept), None).await
        })?;
        match got {
            Got::Object { bytes, .. } => Ok(bytes),
            Got::Absent | Got::Unchanged => Err(Error::record_not_kept(account)),
        }
    }
}

/// Where the objects are.
#[derive(Clone)]
struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

/// What a get came to.
enum Got {
    Absent,
    Unchanged,
    Object {
        bytes: Vec<u8>,
        tag: RecordTag,
        /// The write that put it there, by its own word.
        write: Option<String>,
    },
}

impl Bucket {
    fn records(&self) -> Path {
        self.prefix.clone().join(RECORDS)
    }

    fn record(&self, account: AccountId) -> Path {
        self.records().join(account.to_string())
    }

    fn history_of(&self, account: AccountId) -> Path {
        self.prefix.clone().join(HISTORY).join(account.to_string())
    }

    fn kept(&self, account: AccountId, kept: KeptRecord) -> Path {
        self.history_of(account).join(kept.to_string())
    }

    async fn put(
        &self,
        path: &Path,
        bytes: &[u8],
        mode: PutMode,
        write: Option<KeptRecord>,
    ) -> Result<UpdateVersion, StoreError> {
        let mut attributes = Attributes::new();
        if let Some(write) = write {
            attributes.insert(Attribute::Metadata(WRITE.into()), write.to_string().into());
        }
        let options = PutOptions { mode, attributes, ..PutOptions::default() };
        let put = self.store.put_opts(path, PutPayload::from(bytes.to_vec()), options).await?;
        Ok(UpdateVersion { e_tag: put.e_tag, version: put.version })
    }

    async fn get(&self, account: AccountId, path: &Path, unless: Option<String>) -> Result<Got, Error> {
        let conditional = unless.is_some();
        let options = GetOptions { if_none_match: unless, ..GetOptions::default() };
        match self.store.get_opts(path, options).await {
            Err(StoreError::NotFound { .. }) => Ok(Got::Absent),
            Err(StoreError::NotModified { .. }) if conditional => Ok(Got::Unchanged),
            Err(error) => Err(failed(account, error)),
            Ok(answer) => {
                let tag = tag_of(account, answer.meta.e_tag.as_deref(), answer.meta.version.as_deref())?;
                let write = answer.attributes.get(&Attribute::Metadata(WRITE.into()));
                let write = write.map(|write| write.to_string());
                Ok(Got::Object { bytes: read(account, answer).await?, tag, write })
            }
        }
    }

    async fn list(&self, after: Option<AccountId>) -> Result<Vec<Listed>, Error> {
        let folder = self.records();
        let mut all = match after {
            Some(after) => self.store.list_with_offset(Some(&folder), &self.record(after)),
            None => self.store.list(Some(&folder)),
        };
        let (mut first, mut seen) = (Vec::new(), 0_u64);
        while let Some(meta) = next_listed(&mut all, &mut seen).await? {
            if let Some(account) = name_in::<AccountId>(&folder, &meta) {
                let stamp =
                    format!("{:?} {:?} {} {}", meta.e_tag, meta.version, meta.size, meta.last_modified);
                first.push(Listed::new(account, RecordTag::sha256_of(stamp.as_bytes())));
            }
            // In whatever order they come: no more than two pages are held.
            if first.len() >= 2 * LISTED_AT_ONCE {
                first = first_after(first, after);
            }
        }
        Ok(first_after(first, after))
    }

    async fn destroy_history(&self, account: AccountId) -> Result<(), Error> {
        let folder = self.history_of(account);
        let mut all = self.store.list(Some(&folder));
        let mut seen = 0_u64;
        while let Some(meta) = next_listed(&mut all, &mut seen).await? {
            match self.store.delete(&meta.location).await {
                Ok(()) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(failed(account, error)),
            }
        }
        Ok(())
    }

    async fn history(&self, account: AccountId) -> Result<Vec<KeptRecord>, Error> {
        let folder = self.history_of(account);
        let mut all = self.store.list(Some(&folder));
        let (mut kept, mut seen) = (Vec::new(), 0_u64);
        while let Some(meta) = next_listed(&mut all, &mut seen).await? {
            if kept.len() >= MAX_KEPT {
                return Err(Error::new(ErrorKind::Limit, "more records are kept than are listed")
                    .with_account(account));
            }
            kept.extend(name_in::<KeptRecord>(&folder, &meta));
        }
        kept.sort_unstable();
        Ok(kept)
    }
}

/// The whole of an answer, at most 1 MiB: what it says of its length is looked at first, and what arrives as well.
async fn read(account: AccountId, answer: GetResult) -> Result<Vec<u8>, Error> {
    let too_long = || Error::new(ErrorKind::Limit, "a record is longer than 1 MiB").with_account(account);
    let said = usize::try_from(answer.meta.size).unwrap_or(usize::MAX);
    if said > AccountRecord::MAX_LEN {
        return Err(too_long());
    }
    let mut bytes = Vec::with_capacity(said);
    let mut pieces = answer.into_stream();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| failed(account, error))?;
        if bytes.len() + piece.len() > AccountRecord::MAX_LEN {
            return Err(too_long());
        }
        bytes.extend_from_slice(&piece);
    }
    if bytes.len() != said {
        return Err(Error::new(ErrorKind::Io, "the record store answered with another length than it said")
            .with_account(account));
    }
    Ok(bytes)
}

async fn next_listed(
    all: &mut BoxStream<'static, Result<ObjectMeta, StoreError>>,
    seen: &mut u64,
) -> Result<Option<ObjectMeta>, Error> {
    let next = all.next().await.transpose().map_err(|source| {
        let detail = source.to_string();
        Error::new(ErrorKind::Io, "the record store cannot be listed").with_detail(detail).with_source(source)
    })?;
    *seen += 1;
    if *seen > MAX_LISTED {
        return Err(Error::new(ErrorKind::Limit, "the record store's listing does not end"));
    }
    Ok(next)
}

/// What an object right below `folder` is called, where that is some `T`'s name.
fn name_in<T: std::str::FromStr + ToString>(folder: &Path, meta: &ObjectMeta) -> Option<T> {
    let mut parts = meta.location.prefix_match(folder)?;
    let (name, more) = (parts.next()?, parts.next());
    let parsed: T = name.as_ref().parse().ok()?;
    (more.is_none() && parsed.to_string() == name.as_ref()).then_some(parsed)
}

fn is_conflict(error: &StoreError) -> bool {
    // What was to be replaced is gone: some stores say that it is not found.
    matches!(
        error,
        StoreError::AlreadyExists { .. } | StoreError::Precondition { .. } | StoreError::NotFound { .. }
    )
}

fn failed(account: AccountId, error: StoreError) -> Error {
    match error {
        StoreError::NotImplemented { .. } | StoreError::NotSupported { .. } => {
            let detail = error.to_string();
            Error::new(
                ErrorKind::Misuse,
                "this object store cannot keep records: it replaces nothing conditionally",
            )
            .with_account(account)
            .with_detail(detail)
            .with_source(error)
        }
        error => Error::record_store(account, error),
    }
}

/// `flags | e_tag | 0 | version`: bit 0 of the flags says that there is an entity tag, bit 1 a version.
fn tag_of(account: AccountId, e_tag: Option<&str>, version: Option<&str>) -> Result<RecordTag, Error> {
    if e_tag.is_none() && version.is_none() {
        let message = "this object store cannot keep records: it gives neither entity tags nor versions";
        return Err(Error::new(ErrorKind::Misuse, message).with_account(account));
    }
    let flags = u8::from(e_tag.is_some()) | u8::from(version.is_some()) << 1;
    let (e_tag, version) = (e_tag.unwrap_or_default(), version.unwrap_or_default());
    let bytes = [&[flags], e_tag.as_bytes(), &[0], version.as_bytes()].concat();
    RecordTag::new(&bytes).map_err(|error| error.with_account(account))
}

/// What `tag_of` has made a tag of.
fn version_of(tag: &RecordTag) -> Option<UpdateVersion> {
    let (flags, rest) = tag.as_bytes().split_first()?;
    let (e_tag, version) = str::from_utf8(rest).ok()?.split_once('\0')?;
    let given = |bit, text: &str| (flags & bit != 0).then(|| text.to_owned());
    Some(UpdateVersion { e_tag: given(1, e_tag), version: given(2, version) })
}

impl fmt::Debug for ObjectRecordStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectRecordStore")
            .field("prefix", &self.bucket.prefix.as_ref())
            .field("call_deadline", &self.call_deadline)
            .finish_non_exhaustive()
    }
}

const RECORDS: &str = "records";
const HISTORY: &str = "history";
/// Written by nobody, unless a store ignores conditions.
const PROBE: &str = "probe";
/// The metadata of a record's object. No hyphen: Azure wants an identifier.
const WRITE: &str = "strongroom_write";
/// As long as a call to a KMS may take: both are part of a refresh.
const CALL_DEADLINE: Duration = Duration::from_secs(2);
const MAX_CALL_DEADLINE: Duration = Duration::from_secs(60);
/// How many times as long a listing may take.
const LISTING: u32 = 30;
/// The most objects of a listing that are looked at.
const MAX_LISTED: u64 = 10_000_000;
/// The most kept records of one account that are listed.
const MAX_KEPT: usize = 100_000;
const WAITS_FOR_ITSELF: &str = "a blocking call on the only thread of the runtime that has to serve it: call from another thread, or give the record store a runtime of its own";
