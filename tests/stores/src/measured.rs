//! A store that counts puts, gets and heads, and the time that they took.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Passes everything on.
#[derive(Debug)]
pub struct Measured {
    inner: Arc<dyn ObjectStore>,
    put: Kind,
    get: Kind,
    head: Kind,
}

#[derive(Debug, Default)]
struct Kind {
    count: AtomicU64,
    nanos: AtomicU64,
}

/// The requests of one kind, and the mean time from question to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requests {
    /// How many there were.
    pub count: u64,
    /// Of a get until its headers are there.
    pub mean: Duration,
}

/// What was asked of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Asked {
    pub put: Requests,
    pub get: Requests,
    pub head: Requests,
}

impl Measured {
    /// Over `inner`, from nothing on.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, put: Kind::default(), get: Kind::default(), head: Kind::default() }
    }

    /// What was asked for since this was called last.
    pub fn take(&self) -> Asked {
        let Self { inner: _, put, get, head } = self;
        Asked { put: put.take(), get: get.take(), head: head.take() }
    }
}

impl Kind {
    fn add(&self, begun: Instant) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn take(&self) -> Requests {
        let count = self.count.swap(0, Ordering::Relaxed);
        let nanos = self.nanos.swap(0, Ordering::Relaxed);
        Requests { count, mean: Duration::from_nanos(nanos / count.max(1)) }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { put, get, head } = self;
        for (name, requests) in [("put", put), ("get", get), ("head", head)] {
            let Requests { count, mean } = requests;
            if *count > 0 {
                write!(f, " {count} {name} of {:.2} ms", mean.as_secs_f64() * 1000.0)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Measured({})", self.inner)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Measured {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let begun = Instant::now();
        let answer = self.inner.put_opts(location, payload, opts).await;
        self.put.add(begun);
        answer
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let kind = if options.head { &self.head } else { &self.get };
        let begun = Instant::now();
        let answer = self.inner.get_opts(location, options).await;
        kind.add(begun);
        answer
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.inner.get_ranges(location, ranges).await
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
}
