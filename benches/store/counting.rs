//! A store in memory that counts requests, and the bytes that they ask for and send.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

#[derive(Debug, Default)]
pub(crate) struct Counting {
    inner: InMemory,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// How many bytes each read asked for.
    asked: Vec<u64>,
    tally: Tally,
    hold_back: bool,
    waiting: usize,
    at_once: usize,
}

/// What was asked of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) requests: usize,
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

impl Counting {
    /// How many bytes each read asked for since this was last called.
    pub(crate) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut self.lock().asked)
    }

    /// Everything since this was last called.
    pub(crate) fn tally(&self) -> Tally {
        std::mem::take(&mut self.lock().tally)
    }

    /// From now on a read gives way once before it is answered, so that one begun beside it shows.
    pub(crate) fn hold_back(&self, on: bool) {
        self.lock().hold_back = on;
    }

    pub(crate) fn at_once(&self) -> usize {
        self.lock().at_once
    }

    fn request(&self, sent: usize) {
        count(&self.state, sent);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics")
    }
}

fn count(state: &Mutex<State>, sent: usize) {
    let tally = &mut state.lock().expect("nobody panics").tally;
    tally.requests += 1;
    tally.sent += sent as u64;
}

#[async_trait]
impl ObjectStore for Counting {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.request(payload.content_length());
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.request(0);
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(CountingUpload { inner, state: Arc::clone(&self.state) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.request(0);
        let hold_back = {
            let mut state = self.lock();
            state.waiting += 1;
            state.at_once = state.at_once.max(state.waiting);
            state.hold_back
        };
        if hold_back {
            tokio::task::yield_now().await;
        }
        let is_head = options.head;
        let answer = self.inner.get_opts(location, options).await;
        let mut state = self.lock();
        state.waiting -= 1;
        if let (Ok(answer), false) = (&answer, is_head) {
            let len = answer.range.end - answer.range.start;
            state.asked.push(len);
            state.tally.received += len;
        }
        answer
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.request(0);
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.request(0);
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.request(0);
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.request(0);
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.request(0);
        self.inner.rename_opts(from, to, options).await
    }
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counting")
    }
}

#[derive(Debug)]
struct CountingUpload {
    inner: Box<dyn MultipartUpload>,
    state: Arc<Mutex<State>>,
}

#[async_trait]
impl MultipartUpload for CountingUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        count(&self.state, data.content_length());
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        count(&self.state, 0);
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        count(&self.state, 0);
        self.inner.abort().await
    }
}
