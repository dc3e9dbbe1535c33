//! Accounts that a test takes away, stores over them, and a store underneath that counts, fails and lies on demand.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    Result, UploadPart,
};
use strongroom::provider::{Kek, KeyProvider};
use strongroom::store::OneAccount;
use strongroom::testing::{ManualClock, ScriptedProvider};
use strongroom::{Account, AccountId, AccountSpec, AekCache, BlockSize, Error, ErrorKind, Suite};

use crate::SealedStore;
use crate::deletions::Batches;

pub(crate) const BLOCK: usize = 4096;
pub(crate) const FRAME: usize = BLOCK + 48;
pub(crate) const HEADER: usize = 80;

const REFRESH: Duration = Duration::from_secs(6);

/// A customer with a KMS of their own.
#[derive(Debug)]
pub(crate) struct Customer {
    pub(crate) account: Account,
    kms: Arc<ScriptedProvider>,
    cache: AekCache,
}

impl Customer {
    pub(crate) fn new() -> Self {
        Self::of(Suite::Aes256Gcm)
    }

    /// One under double encryption.
    pub(crate) fn double() -> Self {
        Self::of(Suite::Double)
    }

    fn of(suite: Suite) -> Self {
        let kms = Arc::new(ScriptedProvider::on_virtual_time());
        kms.add_key("orders");
        kms.add_key("second");
        let cache = AekCache::builder().refresh_every(REFRESH).manual(&ManualClock::new()).build().unwrap();
        let provider: Arc<dyn KeyProvider> = kms.clone();
        let mut spec = AccountSpec::new(AccountId::random(), provider.clone(), Kek::latest("orders"));
        if suite == Suite::Double {
            spec = spec.double_encryption(provider, Kek::latest("second"));
        }
        Self { account: cache.create(spec).unwrap(), kms, cache }
    }

    /// The customer disables the key, and the published bound passes.
    pub(crate) fn revoke(&self) {
        self.disable("orders");
    }

    /// The same, of the second key of double encryption.
    pub(crate) fn revoke_second(&self) {
        self.disable("second");
    }

    fn disable(&self, kek: &str) {
        self.kms.set_enabled(kek, false);
        self.cache.run_for(self.cache.staleness_bound());
    }

    /// Another generation, and the time until it is used everywhere.
    pub(crate) fn rotate_aek(&self) {
        self.account.rotate_aek().unwrap();
        self.cache.run_for(Duration::from_secs(132));
    }

    /// The customer enables all again. Those who flap are asked once a minute only.
    pub(crate) fn restore(&self) {
        self.kms.set_enabled("orders", true);
        self.kms.set_enabled("second", true);
        self.cache.run_for(Duration::from_secs(61));
        assert!(self.account.permit().is_ok());
    }

    /// Out of service and back: another epoch.
    pub(crate) fn interrupt(&self) {
        self.revoke();
        self.restore();
    }
}

/// A store over a [`Bent`] one in memory.
pub(crate) struct World {
    pub(crate) customer: Arc<Customer>,
    pub(crate) bent: Arc<Bent>,
    pub(crate) store: SealedStore,
}

impl World {
    /// With blocks of 4 KiB.
    pub(crate) fn new() -> Self {
        Self::of(Suite::Aes256Gcm)
    }

    /// The same, of an account under double encryption.
    pub(crate) fn double() -> Self {
        Self::of(Suite::Double)
    }

    fn of(suite: Suite) -> Self {
        let customer = Arc::new(Customer::of(suite));
        let bent = Arc::new(Bent::default());
        let store = store_of(bent.clone(), &customer.account, BlockSize::MIN, suite);
        Self { customer, bent, store }
    }

    /// With blocks of 64 KiB, where many bytes pass: a block costs unoptimised code most.
    pub(crate) fn with_large_blocks() -> Self {
        let world = Self::new();
        let store = store(world.bent.clone(), &world.customer.account, BlockSize::DEFAULT);
        Self { store, ..world }
    }

    /// Objects of 4 KiB blocks through a store that remembers nothing.
    pub(crate) fn cold(&self) -> SealedStore {
        store_of(self.bent.clone(), &self.customer.account, BlockSize::MIN, self.suite())
    }

    fn suite(&self) -> Suite {
        self.customer.account.record().suite()
    }

    /// How long a sealed block of 4 KiB is.
    pub(crate) fn frame(&self) -> usize {
        match self.suite() {
            Suite::Double => FRAME + 16,
            _ => FRAME,
        }
    }

    pub(crate) async fn put(&self, path: &str, plain: &[u8]) {
        self.store.put(&path.into(), plain.to_vec().into()).await.unwrap();
    }

    pub(crate) async fn read(&self, path: &str) -> Result<Bytes> {
        self.store.get(&path.into()).await?.bytes().await
    }

    /// The sealed bytes.
    pub(crate) async fn stored(&self, path: &str) -> Vec<u8> {
        self.bent.memory.get(&path.into()).await.unwrap().bytes().await.unwrap().to_vec()
    }

    pub(crate) async fn store_raw(&self, path: &str, bytes: &[u8]) {
        self.bent.memory.put(&path.into(), bytes.to_vec().into()).await.unwrap();
    }
}

pub(crate) fn store(inner: Arc<dyn ObjectStore>, account: &Account, block_size: BlockSize) -> SealedStore {
    store_of(inner, account, block_size, Suite::Aes256Gcm)
}

/// For accounts of `suite`.
pub(crate) fn store_of(
    inner: Arc<dyn ObjectStore>,
    account: &Account,
    block_size: BlockSize,
    suite: Suite,
) -> SealedStore {
    let builder = SealedStore::builder(inner, "bucket", OneAccount::new(account.clone()));
    builder.block_size(block_size).suite(suite).part_size(5 * 1024 * 1024).build().unwrap()
}

/// The kind of our own error inside of theirs.
pub(crate) fn kind(error: &object_store::Error) -> Option<ErrorKind> {
    Error::find(error).map(Error::kind)
}

/// Bytes in which no two blocks are alike.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let period: Vec<u8> = (0..=250).cycle().take(BLOCK + 251).collect();
    let mut out = Vec::with_capacity(len + BLOCK);
    for index in 0..len.div_ceil(BLOCK) {
        out.extend_from_slice(&index.to_be_bytes());
        out.extend_from_slice(&period[index % 251..][..BLOCK - size_of::<usize>()]);
    }
    out.truncate(len);
    out
}

/// What a store says that lies.
#[derive(Clone, Debug)]
pub(crate) enum Lie {
    /// The stream ends this many bytes early.
    Short(usize),
    /// The stream goes on for this many bytes.
    Long(usize),
    /// The answer to a request for a header alone goes on for this many bytes.
    LongHeader(usize),
    /// A bit of this byte of the stream is flipped.
    Flip(usize),
    /// The object is said to be this long.
    Size(u64),
    /// Another range is said to have been read.
    Range(Range<u64>),
    /// Another object is given, under the name of the one that was asked for.
    Swap(&'static str),
    /// The truth, in pieces of this many bytes, and empty ones between them.
    Pieces(usize),
    /// The truth, and the object is overwritten by these bytes before the stream's end is told.
    Overwritten(Vec<u8>),
    /// The truth, and the customer disables the key before the stream's end is told.
    Revoked(Arc<Customer>),
}

/// A request to read, as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) range: Option<GetRange>,
    pub(crate) options: GetOptions,
}

/// A store in memory that counts what it is asked, fails the nth operation, and lies.
#[derive(Debug, Default)]
pub(crate) struct Bent {
    pub(crate) memory: Arc<InMemory>,
    lie: Mutex<Option<Lie>>,
    reads: Mutex<Vec<Request>>,
    operations: Arc<AtomicUsize>,
    /// Bytes that were pulled out of bent streams, and those that arrived in parts.
    pulled: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
    /// The operation that fails, counted from 1; 0 for none.
    fail_at: AtomicUsize,
    /// Whether a write that fails was done all the same, and whether everything after it fails too.
    fails_after: AtomicBool,
    fails_on: AtomicBool,
    interruption: Arc<Mutex<Option<Interruption>>>,
    batches: Mutex<Option<Arc<Batches>>>,
}

/// A customer whose key is out of service and back again while an operation of the store is under way.
#[derive(Debug)]
struct Interruption {
    customer: Arc<Customer>,
    nth: usize,
}

/// To be called as the `nth` operation begins.
fn interrupt(interruption: &Mutex<Option<Interruption>>, nth: usize) {
    if let Some(Interruption { customer, .. }) = interruption.lock().unwrap().take_if(|due| due.nth == nth) {
        customer.interrupt();
    }
}

impl Bent {
    pub(crate) fn lie(&self, lie: impl Into<Option<Lie>>) {
        *self.lie.lock().unwrap() = lie.into();
    }

    /// Has it delete in batches.
    pub(crate) fn delete_in(&self, batches: &Arc<Batches>) {
        *self.batches.lock().unwrap() = Some(Arc::clone(batches));
    }

    /// The reads since this was last called.
    pub(crate) fn reads(&self) -> Vec<Request> {
        std::mem::take(&mut self.reads.lock().unwrap())
    }

    pub(crate) fn fail_at(&self, nth: usize) {
        self.operations.store(0, Ordering::SeqCst);
        self.fail_at.store(nth, Ordering::SeqCst);
    }

    /// Has the customer interrupted during the nth operation from now.
    pub(crate) fn interrupt_at(&self, customer: &Arc<Customer>, nth: usize) {
        self.operations.store(0, Ordering::SeqCst);
        *self.interruption.lock().unwrap() = Some(Interruption { customer: customer.clone(), nth });
    }

    /// Whether there were fewer operations than it waited for, and then it does not wait any more.
    pub(crate) fn was_not_interrupted(&self) -> bool {
        self.interruption.lock().unwrap().take().is_some()
    }

    /// Has writes and deletions that fail be done before they do.
    pub(crate) fn fail_after_doing(&self, after: bool) {
        self.fails_after.store(after, Ordering::SeqCst);
    }

    /// Has all that follows the one that fails do so too: as if the process were cut off.
    pub(crate) fn fail_on(&self, on: bool) {
        self.fails_on.store(on, Ordering::SeqCst);
    }

    pub(crate) fn operations(&self) -> usize {
        self.operations.load(Ordering::SeqCst)
    }

    pub(crate) fn pulled(&self) -> usize {
        self.pulled.load(Ordering::SeqCst)
    }

    pub(crate) fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }

    fn operation(&self) -> Result<()> {
        let nth = self.operations.fetch_add(1, Ordering::SeqCst) + 1;
        let fail_at = self.fail_at.load(Ordering::SeqCst);
        interrupt(&self.interruption, nth);
        let is_later = fail_at > 0 && nth > fail_at && self.fails_on.load(Ordering::SeqCst);
        if nth == fail_at || is_later { Err(planted()) } else { Ok(()) }
    }

    /// Whether an operation that fails now is done before.
    fn does_it_first(&self) -> bool {
        // Only the very one: what follows comes from a process that is not there any more.
        let is_first = self.operations() <= self.fail_at.load(Ordering::SeqCst);
        is_first && self.fails_after.load(Ordering::SeqCst)
    }
}

pub(crate) fn planted() -> object_store::Error {
    object_store::Error::Generic { store: "Bent", source: "planted".into() }
}

pub(crate) fn is_planted(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::Generic { store: "Bent", .. })
}

#[async_trait]
impl ObjectStore for Bent {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let allowed = self.operation();
        if self.does_it_first() {
            let done = self.memory.put_opts(location, payload, opts).await;
            return allowed.and(done);
        }
        allowed?;
        self.memory.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.operation()?;
        let inner = self.memory.put_multipart_opts(location, opts).await?;
        let (operations, fail_at) = (self.operations.clone(), self.fail_at.load(Ordering::SeqCst));
        let (sent, interruption) = (self.sent.clone(), self.interruption.clone());
        Ok(Box::new(BentUpload { inner, operations, sent, fail_at, interruption, lens: Vec::new() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.operation()?;
        self.reads.lock().unwrap().push(Request { range: options.range.clone(), options: options.clone() });
        let lie = self.lie.lock().unwrap().clone();
        let mut answer = match &lie {
            Some(Lie::Swap(other)) => self.memory.get_opts(&Path::from(*other), options).await?,
            _ => self.memory.get_opts(location, options).await?,
        };
        let Some(lie) = lie else { return Ok(answer) };
        let (meta, range) = (answer.meta.clone(), answer.range.clone());
        let mut bytes = answer.bytes().await?.to_vec();
        let mut piece = bytes.len().max(1);
        let (mut revoked, mut overwritten) = (None, None);
        answer = self.memory.get_opts(&meta.location, GetOptions::default()).await?;
        (answer.meta, answer.range) = (meta, range);
        match lie {
            Lie::Short(by) => bytes.truncate(bytes.len().saturating_sub(by)),
            Lie::Long(by) => bytes.resize(bytes.len() + by, 7),
            Lie::LongHeader(by) if bytes.len() == HEADER => bytes.resize(HEADER + by, 7),
            Lie::LongHeader(_) => {}
            Lie::Flip(at) => bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1),
            Lie::Size(size) => answer.meta.size = size,
            Lie::Range(range) => answer.range = range,
            Lie::Swap(_) => answer.meta.location = location.clone(),
            Lie::Pieces(len) => piece = len,
            Lie::Overwritten(bytes) => overwritten = Some((location.clone(), bytes)),
            Lie::Revoked(customer) => revoked = Some(customer),
        }
        let pieces: Vec<_> = bytes
            .chunks(piece)
            .flat_map(|piece| [Ok(Bytes::copy_from_slice(piece)), Ok(Bytes::new())])
            .collect();
        let pulled = self.pulled.clone();
        let counted = stream::iter(pieces).inspect(move |piece| {
            pulled.fetch_add(piece.as_ref().map_or(0, Bytes::len), Ordering::SeqCst);
        });
        // An empty piece at the very end, and what happens meanwhile.
        let memory = Arc::clone(&self.memory);
        let end = stream::once(async move {
            if let Some((location, bytes)) = overwritten {
                memory.put(&location, bytes.into()).await?;
            }
            revoked.iter().for_each(|customer| customer.revoke());
            Ok(Bytes::new())
        });
        answer.payload = GetResultPayload::Stream(counted.chain(end).boxed());
        Ok(answer)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let batches = self.batches.lock().unwrap().clone();
        match (self.operation(), batches) {
            (Ok(()), Some(batches)) => batches.delete(&self.memory, locations),
            (Ok(()), None) => self.memory.delete_stream(locations),
            (Err(error), _) if self.does_it_first() => {
                let deleted = self.memory.delete_stream(locations);
                let mut error = Some(error);
                deleted.map(move |done| error.take().map_or(done, Err)).boxed()
            }
            (Err(error), _) => stream::once(async { Err(error) }).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.operation() {
            Ok(()) => self.memory.list(prefix),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.operation()?;
        self.memory.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.operation()?;
        self.memory.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.operation()?;
        self.memory.rename_opts(from, to, options).await
    }
}

impl fmt::Display for Bent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bent")
    }
}

/// Like S3, it takes no part below 5 MiB but the last, and like R2 none of another size.
#[derive(Debug)]
struct BentUpload {
    inner: Box<dyn MultipartUpload>,
    operations: Arc<AtomicUsize>,
    sent: Arc<AtomicUsize>,
    fail_at: usize,
    interruption: Arc<Mutex<Option<Interruption>>>,
    lens: Vec<usize>,
}

impl BentUpload {
    fn operation(&self) -> Result<()> {
        let nth = self.operations.fetch_add(1, Ordering::SeqCst) + 1;
        interrupt(&self.interruption, nth);
        if nth == self.fail_at { Err(planted()) } else { Ok(()) }
    }
}

#[async_trait]
impl MultipartUpload for BentUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.lens.push(data.content_length());
        self.sent.fetch_add(data.content_length(), Ordering::SeqCst);
        let allowed = self.operation();
        let part = self.inner.put_part(data);
        Box::pin(async move {
            allowed?;
            part.await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.operation()?;
        if let Some((last, before)) = self.lens.split_last() {
            let equal = before.iter().all(|len| *len == before[0] && *len >= 5 * 1024 * 1024);
            assert!(equal && before.first().is_none_or(|len| last <= len), "{:?}", self.lens);
        }
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.operation()?;
        self.inner.abort().await
    }
}
