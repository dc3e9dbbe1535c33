//! Reading one range, as a stream. Imports: `account`, `error`, `format::object`, `object::proven`, `store::sealed`, the layer.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures_util::future::join;
use futures_util::stream::{self, BoxStream, StreamExt};

use super::error::{generic, ours};
use super::upstream::path::Path;
use super::upstream::{self, GetOptions, GetRange, GetResult, GetResultPayload, ObjectMeta, Result};
use super::{Place, Shared, take_stream};
use crate::account::Account;
use crate::error::{Error, ErrorKind};
use crate::format::object::{HEADER_LEN, ObjectGeometry, UnverifiedHeader};
use crate::object::proven::Proven;
use crate::store::sealed::headers::Identity;
use crate::store::sealed::opener::{Arrived, Opener, another_range, ended_early, too_long};
use crate::store::sealed::owner::Owner;
use crate::store::sealed::span::{Cover, Wanted};

/// One request where the header is remembered or comes with the range, otherwise two at the same time.
pub(super) async fn get(
    store: &Arc<Shared>,
    place: Place,
    location: &Path,
    options: GetOptions,
) -> Result<GetResult> {
    if let Some(range) = &options.range {
        range.is_valid().map_err(generic)?;
    }
    if options.head {
        return head(store, location, options).await;
    }
    // A closed account costs no request.
    place.owner.check_open().map_err(ours)?;
    if let Some(plaintext) = store.plaintext(location)
        && let Some(answer) = plaintext.get(store, &place, location, &options).await?
    {
        return Ok(answer);
    }
    for _ in 0..ATTEMPTS {
        if let Some(answer) = attempt(store, &place, location, &options).await? {
            return Ok(answer);
        }
    }
    Err(ours(kept_changing()))
}

/// What the store says, in plain sizes. Nothing is proven.
async fn head(store: &Shared, location: &Path, options: GetOptions) -> Result<GetResult> {
    let range = options.range.clone();
    let mut answer = store.inner.get_opts(location, GetOptions { range: None, ..options }).await?;
    if !store.is_plaintext(&answer.meta) {
        let geometry = ObjectGeometry::of_stored(answer.meta.size, store.layout).map_err(ours)?;
        answer.meta.size = geometry.plain_len();
    }
    answer.range = plain_range(range.as_ref(), answer.meta.size)?;
    answer.payload = GetResultPayload::Stream(stream::empty().boxed());
    Ok(answer)
}

/// `None` when the object was replaced between two requests, or since its header was remembered.
async fn attempt(
    store: &Arc<Shared>,
    place: &Place,
    location: &Path,
    options: &GetOptions,
) -> Result<Option<GetResult>> {
    let asked = wanted(options.range.as_ref()).stored(store.layout);
    let request = GetOptions { range: get_range(&asked), ..options.clone() };
    let known = match asked.begins_at_zero() {
        true => Header::InRange,
        false => Header::known(store, place, location),
    };
    let (mut answer, header) = match known {
        Header::Unknown => {
            let header = fetch_header(store, location, options);
            let (answer, header) = join(store.inner.get_opts(location, request), header).await;
            (answer?, header?)
        }
        known => (store.inner.get_opts(location, request).await?, known),
    };
    let stored = asked.in_length(answer.meta.size);
    if answer.range != stored {
        return Err(ours(another_range()));
    }
    let identity = identity(&answer.meta);
    let mut sealed = Sealed { inner: take_stream(&mut answer), arrived: Arrived::default() };
    let mut position = stored.start;
    // A tail may reach back to the header, though that was not known when it was asked for.
    let Readable { account, proven } = if position == 0 {
        position = HEADER_LEN as u64;
        let header = sealed.header().await?;
        prove(store, place, location, &identity, header).await?
    } else {
        match header.proven(store, place, location, &identity).await? {
            Some(readable) => readable,
            None => return Ok(None),
        }
    };
    let geometry = ObjectGeometry::of_stored(identity.size, store.layout).map_err(ours)?;
    let range = plain_range(options.range.as_ref(), geometry.plain_len())?;
    let cover = Cover::new(&geometry, &range);
    let before = cover.stored.start.checked_sub(position).filter(|_| cover.stored.end == stored.end);
    let before = before.ok_or_else(|| ours(another_range()))?;
    let opening = Opening {
        store: Arc::clone(store),
        location: location.clone(),
        sealed,
        before,
        opener: Opener::new(account, proven, geometry, &cover),
        ended: false,
        chunks: 0,
    };
    answer.meta.size = geometry.plain_len();
    answer.range = range;
    answer.payload = GetResultPayload::Stream(opening.into_stream());
    Ok(Some(answer))
}

/// Where an object's header is to be had.
pub(super) enum Header {
    /// Before the frames that are asked for.
    InRange,
    /// Proven before, of the object of that identity.
    Known(Identity, Proven),
    /// Just read.
    Fetched(Identity, [u8; HEADER_LEN]),
    /// The object is gone, or was when it was asked for its header.
    Gone,
    Unknown,
}

impl Header {
    pub(super) fn known(store: &Shared, place: &Place, location: &Path) -> Self {
        let known = store.headers.at(location.as_ref(), |id| place.owner.may_open(id), &place.context);
        known.map_or(Self::Unknown, |(identity, proven)| Self::Known(identity, proven))
    }

    /// The proof for the object of that identity; `None` when the header is another object's.
    pub(super) async fn proven(
        self,
        store: &Shared,
        place: &Place,
        location: &Path,
        identity: &Identity,
    ) -> Result<Option<Readable>> {
        match self {
            Self::Known(of, proven) if of == *identity => {
                let account = place.owner.opener(proven.info().account).await.map_err(ours)?;
                Ok(Some(Readable { account, proven }))
            }
            Self::Fetched(of, header) if of == *identity => {
                prove(store, place, location, identity, header).await.map(Some)
            }
            _ => {
                store.headers.forget(location.as_ref());
                Ok(None)
            }
        }
    }
}

/// Reads the 80 bytes alone. The conditions of the read are put to the range, which goes with this.
pub(super) async fn fetch_header(store: &Shared, location: &Path, options: &GetOptions) -> Result<Header> {
    let request = GetOptions {
        range: Some(GetRange::Bounded(0..HEADER_LEN as u64)),
        version: options.version.clone(),
        extensions: options.extensions.clone(),
        ..GetOptions::default()
    };
    let mut answer = match store.inner.get_opts(location, request).await {
        Ok(answer) => answer,
        Err(upstream::Error::NotFound { .. }) => return Ok(Header::Gone),
        Err(error) => return Err(error),
    };
    let identity = identity(&answer.meta);
    if answer.range != (0..identity.size.min(HEADER_LEN as u64)) {
        return Err(ours(another_range()));
    }
    let mut sealed = Sealed { inner: take_stream(&mut answer), arrived: Arrived::default() };
    let header = sealed.header().await?;
    sealed.end(0).await?;
    Ok(Header::Fetched(identity, header))
}

/// A header that was proven, and the account that did.
pub(super) struct Readable {
    pub(super) account: Account,
    pub(super) proven: Proven,
}

/// The account to prove a header with: the one that it names, if that is one of the owner's.
pub(super) async fn opener(owner: &Owner, header: [u8; HEADER_LEN]) -> Result<Account, Error> {
    owner.opener(UnverifiedHeader::parse(header)?.info().account).await
}

/// Proves a header for its place and this store's geometry, and remembers it.
pub(super) async fn prove(
    store: &Shared,
    place: &Place,
    location: &Path,
    identity: &Identity,
    header: [u8; HEADER_LEN],
) -> Result<Readable> {
    let account = opener(&place.owner, header).await.map_err(ours)?;
    let proven = Proven::new(&account, &place.context, header).map_err(ours)?;
    if proven.info().layout() != store.layout {
        let message = "an object of another block size or suite than this store's";
        return Err(ours(Error::new(ErrorKind::Misuse, message).with_account(account.id())));
    }
    store.headers.keep(location.as_ref(), identity, &place.context, proven);
    Ok(Readable { account, proven })
}

pub(super) fn identity(meta: &ObjectMeta) -> Identity {
    let ObjectMeta { location: _, last_modified, size, e_tag, version } = meta;
    Identity {
        e_tag: e_tag.clone(),
        version: version.clone(),
        modified: last_modified.timestamp_micros(),
        size: *size,
    }
}

/// The answer's payload, of which nothing is believed.
pub(super) struct Sealed {
    pub(super) inner: BoxStream<'static, Result<Bytes>>,
    pub(super) arrived: Arrived,
}

impl Sealed {
    /// Waits for more bytes.
    pub(super) async fn more(&mut self) -> Result<()> {
        match self.inner.next().await {
            Some(chunk) => {
                self.arrived.push(chunk?);
                Ok(())
            }
            None => Err(ours(ended_early())),
        }
    }

    pub(super) async fn header(&mut self) -> Result<[u8; HEADER_LEN]> {
        loop {
            if let Some(header) = self.arrived.header() {
                return Ok(header);
            }
            self.more().await?;
        }
    }

    /// Makes sure that nothing follows the `len` bytes that have arrived and are still to be used.
    pub(super) async fn end(&mut self, len: u64) -> Result<()> {
        while self.arrived.len() as u64 == len {
            match self.inner.next().await {
                Some(chunk) => self.arrived.push(chunk?),
                None => return Ok(()),
            }
        }
        Err(ours(too_long()))
    }
}

/// A stream of plaintext: at most one chunk of it, one frame and one piece of the store's at a time.
struct Opening {
    store: Arc<Shared>,
    location: Path,
    sealed: Sealed,
    /// How many bytes lie before the first frame.
    before: u64,
    opener: Opener,
    /// Whether the store's stream has ended, where it should.
    ended: bool,
    chunks: u32,
}

impl Opening {
    fn into_stream(self) -> BoxStream<'static, Result<Bytes>> {
        stream::try_unfold(self, |mut opening| async move {
            match opening.next().await {
                Ok(chunk) => Ok(chunk.map(|chunk| (chunk, opening))),
                Err(error) => {
                    // What does not open under a header that was remembered is to be read with its own.
                    opening.store.headers.forget(opening.location.as_ref());
                    Err(error)
                }
            }
        })
        .boxed()
    }

    /// Whatever has to be waited for is waited for before a chunk's last block is opened: its look at the lease is the last
    /// thing before the release.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        self.breathe().await;
        while !self.opener.is_done() {
            self.before -= self.sealed.arrived.skip(self.before);
            if self.before == 0 {
                self.end_if_all_has_arrived().await?;
                match self.opener.open(&mut self.sealed.arrived).map_err(ours)? {
                    Some(chunk) if !chunk.is_empty() => return Ok(Some(chunk)),
                    Some(_) => continue,
                    None => {}
                }
            }
            self.sealed.more().await?;
        }
        Ok(None)
    }

    async fn end_if_all_has_arrived(&mut self) -> Result<()> {
        let remaining = self.opener.remaining();
        if !self.ended && self.sealed.arrived.len() as u64 >= remaining {
            self.sealed.end(remaining).await?;
            self.ended = true;
        }
        Ok(())
    }

    /// A store in memory is never waited for: now and then, others get their turn.
    async fn breathe(&mut self) {
        self.chunks += 1;
        if self.chunks.is_multiple_of(CHUNKS_IN_A_ROW) {
            give_way().await;
        }
    }
}

/// Lets other tasks of this thread run.
pub(super) async fn give_way() {
    let mut given = false;
    poll_fn(|context| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn wanted(range: Option<&GetRange>) -> Wanted {
    match range {
        None => Wanted::All,
        Some(GetRange::Bounded(range)) => Wanted::Within(range.clone()),
        Some(GetRange::Offset(offset)) => Wanted::From(*offset),
        Some(GetRange::Suffix(len)) => Wanted::Last(*len),
    }
}

pub(super) fn get_range(wanted: &Wanted) -> Option<GetRange> {
    match wanted {
        Wanted::All => None,
        Wanted::Within(range) => Some(GetRange::Bounded(range.clone())),
        Wanted::From(offset) => Some(GetRange::Offset(*offset)),
        Wanted::Last(len) => Some(GetRange::Suffix(*len)),
    }
}

fn plain_range(range: Option<&GetRange>, len: u64) -> Result<std::ops::Range<u64>> {
    range.map_or(Ok(0..len), |range| range.as_range(len).map_err(generic))
}

pub(super) const fn kept_changing() -> Error {
    Error::new(ErrorKind::Io, "the object was replaced again and again while it was read: retry")
}

/// How often a read begins again because the object was replaced in the midst of its requests.
pub(super) const ATTEMPTS: u32 = 4;

/// About a millisecond of work.
const CHUNKS_IN_A_ROW: u32 = 8;
