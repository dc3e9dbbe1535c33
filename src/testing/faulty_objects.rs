//! An object store that fails as it is told to, over any other (contract H5). Imports: nothing of ours.

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::object_store::path::Path;
use ::object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt};

/// What goes wrong with one request to an object store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ObjectFault {
    /// It fails, and nothing was done.
    Fails,
    /// It is done, and fails all the same: the answer was lost.
    DoneAndFails,
    /// Only so many bytes arrive: of what is read, though the answer says that it is whole; of what is put, and then the put
    /// fails. Anything else fails.
    Torn(usize),
    /// It is not done, and never answered. Whoever waits must give up.
    Hangs,
}

/// The kinds of request that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ObjectCall {
    /// `get` in all its forms, `head` too.
    Get,
    /// `put`, and each request of a multipart upload.
    Put,
    /// Each stream of deletions, as one.
    Delete,
    /// Each listing, as one.
    List,
    /// Copying and renaming.
    Copy,
}

/// An `ObjectStore` between an engine, or a `SealedStore`, and the real one: passes every request on, but for those that are
/// told to fail (feature `object-store`).
///
/// ```
/// use std::sync::Arc;
/// use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
/// use strongroom::testing::{FaultyObjectStore, ObjectFault};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let store = FaultyObjectStore::over(Arc::new(InMemory::new()));
/// let path = Path::from("orders/1");
/// store.fail_nth(0, ObjectFault::DoneAndFails);
/// assert!(store.put(&path, "an order".into()).await.is_err());
/// assert!(store.calm(), "it was struck");
/// assert!(store.get(&path).await.is_ok(), "and yet it is there");
/// # });
/// ```
#[derive(Debug)]
pub struct FaultyObjectStore {
    inner: Arc<dyn ObjectStore>,
    plan: Arc<Mutex<Plan>>,
}

#[derive(Debug, Default)]
struct Plan {
    begun: u64,
    faults: BTreeMap<u64, ObjectFault>,
    every: Vec<(ObjectCall, String, ObjectFault)>,
}

impl Plan {
    fn begin(&mut self, call: ObjectCall, path: &str) -> Option<ObjectFault> {
        let at = self.begun;
        self.begun += 1;
        let standing =
            |every: &&(ObjectCall, String, ObjectFault)| every.0 == call && path.contains(&every.1);
        self.faults.remove(&at).or_else(|| self.every.iter().find(standing).map(|every| every.2))
    }
}

impl FaultyObjectStore {
    /// Passes everything on to `inner` until told otherwise.
    #[must_use]
    pub fn over(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, plan: Arc::default() }
    }

    /// Has the `n`th request from now go wrong, of whatever kind, counted from zero, beside those that were told to before.
    pub fn fail_nth(&self, n: u64, fault: ObjectFault) {
        let mut plan = lock(&self.plan);
        let at = plan.begun + n;
        plan.faults.insert(at, fault);
    }

    /// Has every request of this kind go wrong from now on whose path contains `part`.
    pub fn fail_every(&self, call: ObjectCall, part: &str, fault: ObjectFault) {
        lock(&self.plan).every.push((call, part.to_owned(), fault));
    }

    /// Passes everything on again. True when every request that [`Self::fail_nth`] named has gone wrong.
    pub fn calm(&self) -> bool {
        let mut plan = lock(&self.plan);
        plan.every.clear();
        std::mem::take(&mut plan.faults).is_empty()
    }

    /// How many requests have begun.
    #[must_use]
    pub fn requests(&self) -> u64 {
        lock(&self.plan).begun
    }

    fn begin(&self, call: ObjectCall, path: &str) -> Option<ObjectFault> {
        lock(&self.plan).begin(call, path)
    }
}

#[async_trait]
impl ObjectStore for FaultyObjectStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fault = self.begin(ObjectCall::Put, location.as_ref());
        let payload = match fault {
            Some(ObjectFault::Torn(len)) => cut(&payload, len),
            _ => payload,
        };
        struck(fault, self.inner.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let fault = self.begin(ObjectCall::Put, location.as_ref());
        let inner = struck(fault, self.inner.put_multipart_opts(location, options)).await?;
        Ok(Box::new(FaultyUpload { inner, path: location.to_string(), plan: Arc::clone(&self.plan) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.begin(ObjectCall::Get, location.as_ref());
        let get = self.inner.get_opts(location, options);
        let Some(ObjectFault::Torn(len)) = fault else { return struck(fault, get).await };
        let mut answer = get.await?;
        let extensions = std::mem::take(&mut answer.extensions);
        let (meta, range, attributes) =
            (answer.meta.clone(), answer.range.clone(), answer.attributes.clone());
        let mut bytes = answer.bytes().await?;
        bytes.truncate(len);
        let payload = GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.begin(ObjectCall::Delete, "") {
            None => self.inner.delete_stream(locations),
            Some(ObjectFault::Hangs) => stream::pending().boxed(),
            Some(ObjectFault::DoneAndFails) => {
                self.inner.delete_stream(locations).map(|done| done.and_then(|_| Err(planted()))).boxed()
            }
            Some(_) => stream::once(async { Err(planted()) }).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.begin(ObjectCall::List, prefix.map_or("", Path::as_ref)) {
            None => self.inner.list(prefix),
            Some(ObjectFault::Hangs) => stream::pending().boxed(),
            Some(_) => stream::once(async { Err(planted()) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let fault = self.begin(ObjectCall::List, prefix.map_or("", Path::as_ref));
        struck(fault, self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let fault = self.begin(ObjectCall::Copy, to.as_ref());
        struck(fault, self.inner.copy_opts(from, to, options)).await
    }
}

/// A multipart upload each of whose requests can go wrong.
#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    path: String,
    plan: Arc<Mutex<Plan>>,
}

impl FaultyUpload {
    fn begin(&self) -> Option<ObjectFault> {
        lock(&self.plan).begin(ObjectCall::Put, &self.path)
    }
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let fault = self.begin();
        // A part that is not sent must not be part of what is completed.
        match fault {
            Some(ObjectFault::Fails) => Box::pin(async { Err(planted()) }),
            Some(ObjectFault::Hangs) => Box::pin(pending()),
            Some(ObjectFault::Torn(len)) => Box::pin(struck(fault, self.inner.put_part(cut(&data, len)))),
            _ => Box::pin(struck(fault, self.inner.put_part(data))),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fault = self.begin();
        struck(fault, self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        let fault = self.begin();
        struck(fault, self.inner.abort()).await
    }
}

impl fmt::Display for FaultyObjectStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyObjectStore({})", self.inner)
    }
}

/// Makes the request, or not, and lets it end as `fault` says. What is cut has been cut already.
async fn struck<T>(fault: Option<ObjectFault>, request: impl Future<Output = Result<T>>) -> Result<T> {
    match fault {
        None => request.await,
        Some(ObjectFault::Fails) => Err(planted()),
        Some(ObjectFault::DoneAndFails | ObjectFault::Torn(_)) => request.await.and(Err(planted())),
        Some(ObjectFault::Hangs) => pending().await,
    }
}

fn cut(payload: &PutPayload, len: usize) -> PutPayload {
    let mut bytes: Vec<u8> = payload.iter().flat_map(|part| part.to_vec()).collect();
    bytes.truncate(len);
    bytes.into()
}

fn planted() -> Error {
    Error::Generic { store: "FaultyObjectStore", source: "the test fails this request".into() }
}

fn lock(plan: &Mutex<Plan>) -> MutexGuard<'_, Plan> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use ::object_store::ObjectStoreExt;
    use ::object_store::memory::InMemory;
    use futures_util::FutureExt;

    use super::*;

    /// Everything here ends at the first poll, unless it hangs.
    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        Box::pin(future).now_or_never()
    }

    fn read(store: &FaultyObjectStore, path: &Path) -> Option<Vec<u8>> {
        let read = async { store.get(path).await?.bytes().await };
        now(read)?.ok().map(|bytes| bytes.to_vec())
    }

    #[test]
    fn h5_each_fault_of_an_object_store_does_what_it_says() {
        let store = FaultyObjectStore::over(Arc::new(InMemory::new()));
        let (path, other) = (Path::from("a/one"), Path::from("b/one"));
        store.fail_nth(0, ObjectFault::Fails);
        assert!(!store.calm(), "nothing was struck yet");
        for (fault, expected) in [
            (ObjectFault::Fails, None),
            (ObjectFault::Torn(2), Some(b"on".to_vec())),
            (ObjectFault::DoneAndFails, Some(b"one".to_vec())),
        ] {
            store.fail_nth(0, fault);
            assert!(now(store.put(&path, "one".into())).unwrap().is_err(), "{fault:?}");
            assert!(store.calm());
            assert_eq!(read(&store, &path), expected, "{fault:?}");
        }
        store.fail_nth(0, ObjectFault::Torn(1));
        assert_eq!(read(&store, &path).unwrap(), b"o");
        store.fail_nth(0, ObjectFault::Hangs);
        assert!(now(store.put(&other, "two".into())).is_none());
        assert_eq!(read(&store, &other), None, "was not done");

        store.fail_every(ObjectCall::Put, "b/", ObjectFault::Fails);
        assert!(now(store.put(&other, "two".into())).unwrap().is_err());
        assert!(now(store.put(&path, "two".into())).unwrap().is_ok());
        assert_eq!(read(&store, &path).unwrap(), b"two");
        let upload = async {
            let mut upload = store.put_multipart(&path).await?;
            store.fail_nth(1, ObjectFault::Fails);
            upload.put_part("three".into()).await?;
            upload.complete().await
        };
        assert!(now(upload).unwrap().is_err());
        assert!(store.calm());
        assert_eq!(read(&store, &path).unwrap(), b"two");
        store.fail_nth(0, ObjectFault::DoneAndFails);
        assert!(now(store.delete(&path)).unwrap().is_err());
        assert_eq!(read(&store, &path), None, "deleted all the same");
        assert!(store.requests() > 10);
    }
}
