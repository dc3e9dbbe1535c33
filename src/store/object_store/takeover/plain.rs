//! Reading an object that is plaintext still. No byte is released before the manifest has been asked whether it is, and none without a lease.
//! Imports: `account`, `error`, `store::takeover`, `store::sealed::opener`, the layer.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt};

use super::super::error::{generic, ours};
use super::super::upstream::path::Path;
use super::super::upstream::{
    self, GetOptions, GetRange, GetResult, GetResultPayload, OBJECT_STORE_COALESCE_DEFAULT, ObjectStoreExt,
    Result, coalesce_ranges,
};
use super::super::{Place, Shared, get, take_stream};
use super::{Plaintext, keep};
use crate::account::Account;
use crate::error::Error;
use crate::format::takeover::Entry;
use crate::store::sealed::opener::{another_range, ended_early, too_long};
use crate::store::takeover::segment;

impl Plaintext {
    /// The answer if the object is the plaintext that was listed and is listed now; `None` if it is to be read as a sealed one.
    pub(in super::super) async fn get(
        &self,
        store: &Shared,
        place: &Place,
        location: &Path,
        options: &GetOptions,
    ) -> Result<Option<GetResult>> {
        let mut answer = store.inner.get_opts(location, options.clone()).await?;
        if !segment::is(&self.entry, &get::identity(&answer.meta)) || !self.is_confirmed(store).await? {
            return Ok(None);
        }
        let size = answer.meta.size;
        let range = options.range.as_ref().map_or(Ok(0..size), |range| range.as_range(size));
        if answer.range != range.map_err(generic)? {
            return Err(ours(another_range()));
        }
        let account = lease(place).await.map_err(ours)?;
        let left = answer.range.end - answer.range.start;
        let passing = Passing { inner: take_stream(&mut answer), account, left };
        answer.payload = GetResultPayload::Stream(passing.into_stream());
        Ok(Some(answer))
    }

    /// The same for ranges, all of one object.
    pub(in super::super) async fn get_ranges(
        &self,
        store: &Shared,
        place: &Place,
        location: &Path,
        ranges: &[Range<u64>],
    ) -> Result<Option<Vec<Bytes>>> {
        let within = |range: &Range<u64>| GetRange::Bounded(range.clone()).as_range(self.entry.size);
        let ranges = match ranges.iter().map(within).collect::<Result<Vec<_>, _>>() {
            Ok(ranges) => ranges,
            Err(out_of_bounds) => {
                let found = store.inner.head(location).await?;
                let same = segment::is(&self.entry, &get::identity(&found));
                return if same { Err(generic(out_of_bounds)) } else { Ok(None) };
            }
        };
        let fetch = |range| fetch(store, &self.entry, location, range);
        let fetched = match coalesce_ranges(&ranges, fetch, OBJECT_STORE_COALESCE_DEFAULT).await {
            Ok(fetched) => fetched,
            Err(Missed::Replaced) => return Ok(None),
            Err(Missed::Failed(error)) => return Err(error),
        };
        if !self.is_confirmed(store).await? {
            return Ok(None);
        }
        lease(place).await.map_err(ours)?;
        Ok(Some(fetched))
    }

    async fn is_confirmed(&self, store: &Shared) -> Result<bool> {
        let Self { taking, entry } = self;
        match taking.manifest.segment_of(&entry.path) {
            Some(segment) => keep::confirm(store, &taking.manifest, segment, &entry.path).await,
            None => Ok(false),
        }
    }
}

/// Plaintext is served as long as it could be sealed: the account that new data goes under, with a valid lease.
async fn lease(place: &Place) -> Result<Account, Error> {
    let account = place.owner.clone().writer().await?.account;
    account.permit()?;
    Ok(account)
}

enum Missed {
    Replaced,
    Failed(upstream::Error),
}

async fn fetch(store: &Shared, entry: &Entry, location: &Path, range: Range<u64>) -> Result<Bytes, Missed> {
    let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
    let mut answer = match store.inner.get_opts(location, options).await {
        Ok(answer) => answer,
        // What is there instead is for the sealed way to say.
        Err(upstream::Error::NotFound { .. }) => return Err(Missed::Replaced),
        Err(error) => return Err(Missed::Failed(error)),
    };
    if !segment::is(entry, &get::identity(&answer.meta)) {
        return Err(Missed::Replaced);
    }
    let failed = |error| Missed::Failed(ours(error));
    if answer.range != range {
        return Err(failed(another_range()));
    }
    let len = usize::try_from(range.end - range.start).map_err(|_| failed(too_long()))?;
    let mut stream = take_stream(&mut answer);
    // Memory is taken for what has arrived.
    let mut bytes = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk.map_err(Missed::Failed)?);
        if bytes.len() > len {
            return Err(failed(too_long()));
        }
    }
    if bytes.len() < len { Err(failed(ended_early())) } else { Ok(bytes.freeze()) }
}

/// The store's own bytes, each chunk under a lease that was looked at after it arrived.
struct Passing {
    inner: BoxStream<'static, Result<Bytes>>,
    account: Account,
    left: u64,
}

impl Passing {
    fn into_stream(self) -> BoxStream<'static, Result<Bytes>> {
        stream::try_unfold(self, |mut passing| async move {
            Ok(passing.next().await?.map(|chunk| (chunk, passing)))
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        while let Some(chunk) = self.inner.next().await {
            let chunk = chunk?;
            self.left = self.left.checked_sub(chunk.len() as u64).ok_or_else(|| ours(too_long()))?;
            if !chunk.is_empty() {
                self.account.permit().map(drop).map_err(ours)?;
                return Ok(Some(chunk));
            }
        }
        let missing: Option<Error> = (self.left > 0).then(ended_early);
        missing.map_or(Ok(None), |error| Err(ours(error)))
    }
}
