//! A store that answers with what was there before, and lets something happen between an answer and the next request.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

type Event = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Over another store, with a copy of how it was: identities and all, as a store has them that makes its entity tags from the
/// content, or that lies.
pub(crate) struct Haunted {
    inner: Arc<dyn ObjectStore>,
    before: Mutex<Option<InMemory>>,
    haunted: Mutex<BTreeSet<String>>,
    /// What happens once the object of that path was answered for.
    event: Mutex<Option<(String, Event)>>,
    writes: Mutex<Vec<String>>,
    gives_way: AtomicBool,
}

impl Haunted {
    pub(crate) fn over(inner: Arc<dyn ObjectStore>) -> Self {
        Self {
            inner,
            before: Mutex::default(),
            haunted: Mutex::default(),
            event: Mutex::default(),
            writes: Mutex::default(),
            gives_way: AtomicBool::default(),
        }
    }

    /// From now on these paths are as they are in `before`.
    pub(crate) fn haunt(&self, before: InMemory, paths: &[&str]) {
        *self.before.lock().unwrap() = Some(before);
        *self.haunted.lock().unwrap() = paths.iter().map(|path| (*path).to_owned()).collect();
    }

    pub(crate) fn after_get(&self, path: &str, event: impl Future<Output = ()> + Send + 'static) {
        *self.event.lock().unwrap() = Some((path.to_owned(), Box::pin(event)));
    }

    /// Each write lets others go first.
    pub(crate) fn give_way(&self) {
        self.gives_way.store(true, Ordering::SeqCst);
    }

    /// How many writes there were to paths that contain `part`.
    pub(crate) fn writes_of(&self, part: &str) -> usize {
        self.writes.lock().unwrap().iter().filter(|path| path.contains(part)).count()
    }

    fn before(&self, location: &Path) -> Option<InMemory> {
        let haunted = self.haunted.lock().unwrap().contains(location.as_ref());
        haunted.then(|| self.before.lock().unwrap().as_ref().unwrap().clone())
    }
}

#[async_trait]
impl ObjectStore for Haunted {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.writes.lock().unwrap().push(location.to_string());
        if self.gives_way.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let answer = match self.before(location) {
            Some(before) => before.get_opts(location, options).await,
            None => self.inner.get_opts(location, options).await,
        };
        let event = {
            let mut event = self.event.lock().unwrap();
            match &*event {
                Some((path, _)) if *path == location.as_ref() => event.take(),
                _ => None,
            }
        };
        if let Some((_, event)) = event {
            event.await;
        }
        answer
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

impl fmt::Display for Haunted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Haunted")
    }
}

impl fmt::Debug for Haunted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Haunted")
    }
}
