//! `SealedStore`: an `object_store::ObjectStore` over any other, in which everything is a sealed object.
//!
//! This folder is compiled once for each version of `object_store` that is asked for, by `store/v0_14.rs` and `store/object_store_0_13.rs`;
//! what does not need the trait is in `store/sealed` and `store/takeover`. Imports: `account`, `object`, `format`, `error`, `store::*`.

mod artifacts;
mod copy;
mod delete;
mod error;
mod get;
mod list;
mod put;
mod ranges;
mod reseal;
mod takeover;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use self::error::{denied, generic, reserved};
use self::takeover::Takings;
use super::{take_stream, upstream};
use crate::error::{Error, ErrorKind};
use crate::format::object::{BlockSize, Context, Layout};
use crate::id::Suite;
use crate::store::route::{Route, Router};
use crate::store::sealed::headers::Headers;
use crate::store::sealed::owner::Owner;
use crate::store::takeover::is_reserved;
use upstream::path::Path;
use upstream::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

pub use self::artifacts::Artifacts;
pub use self::reseal::StoreReseal;
pub use self::takeover::Takeover;

/// An `object_store::ObjectStore` over another one: what is written becomes sealed objects, what is read was sealed
/// (contract G1). `docs/STORES.md` tells what it costs and what a crash leaves.
///
/// ```
/// # use std::sync::Arc;
/// # use strongroom::provider::{Kek, KeyOptions, LocalKms};
/// # use strongroom::{AccountId, AccountSpec, AekCache};
/// use object_store::memory::InMemory;
/// use object_store::{ObjectStore, ObjectStoreExt, path::Path};
/// # #[cfg(feature = "object-store")]
/// use strongroom::store::{OneAccount, SealedStore};
/// # #[cfg(not(feature = "object-store"))]
/// # fn main() {}
/// # #[cfg(feature = "object-store")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let kms = LocalKms::create(folder.path().join("kms.json"))?;
/// # kms.create_key("orders", KeyOptions::default())?;
/// # let cache = AekCache::builder().build()?;
/// # let account = cache.create(AccountSpec::new(AccountId::random(), Arc::new(kms), Kek::latest("orders")))?;
/// let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
/// let store = SealedStore::builder(inner.clone(), "orders-bucket", OneAccount::new(account.clone())).build()?;
///
/// let path = Path::from("2026/11/part-0001");
/// store.put(&path, "as much as you like".into()).await?;
/// assert_eq!(store.get_range(&path, 3..7).await?, "much");
/// assert_eq!(inner.head(&path).await?.size, 80 + 19 + 48);
///
/// account.lock();
/// let error = store.get(&path).await.unwrap_err();
/// assert_eq!(strongroom::Error::find(&error).unwrap().kind(), strongroom::ErrorKind::Locked);
/// # Ok(()) }
/// ```
///
/// - **Sizes and ranges are of plaintext**, in every answer. A payload of the store underneath is never passed on.
/// - **Memory is bounded**, whatever the object's size: one part, one block and the parts on their way when writing, a chunk of 1 MiB or a
///   block, and two frames when reading. `put` and `get_ranges` hold what they were given or asked for.
/// - **Errors** are those of the store underneath, unchanged, or `Generic` with a [`strongroom::Error`](crate::Error) as its
///   source, which [`Error::find`](crate::Error::find) digs out. Where the router denies, `PermissionDenied`.
/// - **A write is acknowledged** only if the account has been in one epoch from its first byte on, and a copy or rename from its
///   beginning on, with a valid lease immediately before the acknowledgement (contract D11).
/// - **`head` and listings** need no key and prove nothing: they show names, and sizes computed from what the store
///   says. Every byte read is proven; a read that reaches an object's end proves its size.
///
/// Intentionally no `Signer` and no `MultipartStore`: a signed URL gives sealed bytes to whoever has it and takes plaintext,
/// and parts that are written apart from each other cannot be cut into blocks.
///
/// Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct SealedStore {
    shared: Arc<Shared>,
}

/// What operations use, and streams that outlive their call.
struct Shared {
    inner: Arc<dyn ObjectStore>,
    id: String,
    router: Box<dyn Router>,
    layout: Layout,
    part_size: usize,
    headers: Headers,
    /// What is plaintext still (contract E9); nothing, unless a takeover is open.
    takings: Takings,
}

/// Where an object belongs: whose key, and bound to what.
struct Place {
    owner: Owner,
    context: Context,
}

impl SealedStore {
    /// Begins a store over `inner`. `store_id` names this store for good: objects are bound to it, so that one copied to
    /// another store, or in from there, does not open.
    pub fn builder(
        inner: Arc<dyn ObjectStore>,
        store_id: impl Into<String>,
        router: impl Router,
    ) -> SealedStoreBuilder {
        SealedStoreBuilder {
            inner,
            id: store_id.into(),
            router: Box::new(router),
            layout: Layout { block_size: BlockSize::DEFAULT, suite: Suite::Aes256Gcm },
            part_size: DEFAULT_PART,
            cached_headers: DEFAULT_HEADERS,
        }
    }

    /// The objects under `prefix` that listings leave out because no sealed object has their size: somebody else's, or
    /// cut. With the size that is stored.
    ///
    /// A foreign object may have a possible size. It is listed then, and is an error when it is read.
    pub fn list_foreign(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        list::foreign(&self.shared, self.shared.inner.list(prefix))
    }
}

impl Shared {
    /// An object of this store with blocks of another size: a part of a manifest.
    const fn laid_out(&self, block_size: BlockSize) -> Layout {
        Layout { block_size, ..self.layout }
    }

    /// Asks the router.
    async fn place(&self, location: &Path) -> Result<Place> {
        if is_reserved(location.as_ref()) {
            return Err(reserved(location.as_ref()));
        }
        let (owner, binding) = match self.router.route(location.as_ref()).await.map_err(generic)? {
            Route::Sealed { account, binding } => (Owner::Account(account), binding),
            Route::Scoped { scope, binding } => (Owner::Scope(scope), binding),
            Route::Deny => return Err(denied(location.as_ref())),
        };
        let context = binding.context(&self.id, location.as_ref());
        Ok(Place { owner, context })
    }
}

impl Place {
    /// Whether the bytes of an object here are those of an object there.
    fn is(&self, other: &Self) -> bool {
        self.owner.is_one_account_with(&other.owner) && self.context == other.context
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for SealedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let place = self.shared.place(location).await?;
        put::put(&self.shared, place, location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let place = self.shared.place(location).await?;
        Ok(Box::new(put::SealedUpload::begin(&self.shared, place, location, opts).await?))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let place = self.shared.place(location).await?;
        get::get(&self.shared, place, location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let place = self.shared.place(location).await?;
        ranges::get_ranges(&self.shared, place, location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        delete::delete_stream(Arc::clone(&self.shared), locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        list::sealed(&self.shared, self.shared.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        list::sealed(&self.shared, self.shared.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let listing = self.shared.inner.list_with_delimiter(prefix).await?;
        Ok(list::sealed_at_once(&self.shared, listing))
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        copy::copy(&self.shared, from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        copy::rename(&self.shared, from, to, options).await
    }
}

impl fmt::Display for SealedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedStore({})", self.shared.inner)
    }
}

impl fmt::Debug for SealedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { inner, id, router: _, layout, part_size, headers, takings: _ } = &*self.shared;
        f.debug_struct("SealedStore")
            .field("inner", inner)
            .field("id", id)
            .field("layout", layout)
            .field("part_size", part_size)
            .field("headers", headers)
            .finish_non_exhaustive()
    }
}

/// Choices for a [`SealedStore`], made by [`SealedStore::builder`].
#[must_use]
pub struct SealedStoreBuilder {
    inner: Arc<dyn ObjectStore>,
    id: String,
    router: Box<dyn Router>,
    layout: Layout,
    part_size: usize,
    cached_headers: usize,
}

impl SealedStoreBuilder {
    /// The size of all objects' blocks; [`BlockSize::DEFAULT`] unless set. It is for good: sizes in listings are computed
    /// with it, and reading an object of another one is an error.
    pub const fn block_size(mut self, block_size: BlockSize) -> Self {
        self.layout.block_size = block_size;
        self
    }

    /// The suite of all accounts that this store's routes lead to; [`Suite::Aes256Gcm`] unless set. For good, like the block size:
    /// [`Suite::Double`] is for accounts created with
    /// [`AccountSpec::double_encryption`](crate::AccountSpec::double_encryption), and writing or reading under an account of the
    /// other suite is an error.
    pub const fn suite(mut self, suite: Suite) -> Self {
        self.layout.suite = suite;
        self
    }

    /// The least size of a part of an upload, in bytes; 8 MiB unless set, at least 5 MiB. Parts are all of one size, which is that
    /// of the first piece when it is larger. Copies of objects up to this size take one request.
    pub const fn part_size(mut self, bytes: usize) -> Self {
        self.part_size = bytes;
        self
    }

    /// How many proven headers are remembered, each about 300 bytes and the path; 4096 unless set, 0 for none.
    pub const fn cached_headers(mut self, count: usize) -> Self {
        self.cached_headers = count;
        self
    }

    /// The store. It makes no request.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] for a part size below 5 MiB or above 5 GiB.
    pub fn build(self) -> Result<SealedStore, Error> {
        let Self { inner, id, router, layout, part_size, cached_headers } = self;
        if !(LEAST_PART..=MOST_PART).contains(&(part_size as u64)) {
            return Err(Error::new(ErrorKind::Misuse, "a part of an upload is 5 MiB to 5 GiB long"));
        }
        let headers = Headers::new(cached_headers);
        let takings = Takings::default();
        let shared = Shared { inner, id, router, layout, part_size, headers, takings };
        Ok(SealedStore { shared: Arc::new(shared) })
    }
}

impl fmt::Debug for SealedStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedStoreBuilder")
            .field("inner", &self.inner)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What S3 asks of every part but the last, and what it takes at most.
const LEAST_PART: u64 = 5 * 1024 * 1024;
const MOST_PART: u64 = 5 * 1024 * 1024 * 1024;
const DEFAULT_PART: usize = 8 * 1024 * 1024;
const DEFAULT_HEADERS: usize = 4096;
