//! Reading many ranges at once: each block is fetched and opened once, whatever shares it.
//! Imports: `account`, `format::object`, `object::proven`, `store::sealed`, the layer.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::error::{generic, ours};
use super::get::{self, ATTEMPTS, Header, Readable, Sealed, fetch_header, give_way};
use super::upstream::path::Path;
use super::upstream::{GetOptions, GetRange, Result};
use super::{Place, Shared, take_stream};
use crate::account::Account;
use crate::error::Error;
use crate::format::object::{HEADER_LEN, ObjectGeometry};
use crate::object::proven::Proven;
use crate::store::sealed::headers::Identity;
use crate::store::sealed::opener::{Arrived, Opener, another_range, ended_early, wipe};
use crate::store::sealed::span::{self, Cover, Run, Wanted};

/// All requests go at the same time, the one for the header included where it is not remembered.
pub(super) async fn get_ranges(
    store: &Arc<Shared>,
    place: Place,
    location: &Path,
    ranges: &[Range<u64>],
) -> Result<Vec<Bytes>> {
    for range in ranges {
        GetRange::Bounded(range.clone()).is_valid().map_err(generic)?;
    }
    place.owner.check_open().map_err(ours)?;
    if ranges.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(plaintext) = store.plaintext(location)
        && let Some(plain) = plaintext.get_ranges(store, &place, location, ranges).await?
    {
        return Ok(plain);
    }
    for _ in 0..ATTEMPTS {
        if let Some(plain) = attempt(store, &place, location, ranges).await? {
            return Ok(plain);
        }
    }
    Err(ours(get::kept_changing()))
}

/// `None` when the object was replaced between two requests, or since its header was remembered.
async fn attempt(
    store: &Shared,
    place: &Place,
    location: &Path,
    ranges: &[Range<u64>],
) -> Result<Option<Vec<Bytes>>> {
    let fetches = span::fetches(&span::runs(ranges, store.layout), store.layout);
    let in_range = fetches.first().is_some_and(|(asked, _)| asked.begins_at_zero());
    let known = if in_range { Header::InRange } else { Header::known(store, place, location) };
    let fetched = stream::iter(fetches)
        .map(|(asked, runs)| fetch(store, location, asked, runs))
        .buffered(AT_ONCE)
        .try_collect::<Vec<Fetched>>();
    let (mut fetched, header) = match known {
        Header::Unknown => {
            let options = GetOptions::default();
            let (fetched, header) = join(fetched, fetch_header(store, location, &options)).await;
            (fetched?, header?)
        }
        known => (fetched.await?, known),
    };
    let Some(identity) = fetched.first().map(|first| first.identity.clone()) else { return Ok(None) };
    if fetched.iter().any(|other| other.identity != identity) {
        return Ok(None);
    }
    let Readable { account, proven } = match header {
        Header::InRange => {
            let first = fetched[0].arrived.header().ok_or_else(|| ours(ended_early()))?;
            fetched[0].position = HEADER_LEN as u64;
            get::prove(store, place, location, &identity, first).await?
        }
        header => match header.proven(store, place, location, &identity).await? {
            Some(readable) => readable,
            None => return Ok(None),
        },
    };
    let geometry = ObjectGeometry::of_stored(identity.size, store.layout).map_err(ours)?;
    let ranges: Vec<_> = ranges
        .iter()
        .map(|range| GetRange::Bounded(range.clone()).as_range(geometry.plain_len()).map_err(generic))
        .collect::<Result<_>>()?;
    let mut opened = Vec::new();
    if let Err(error) = open(&account, proven, geometry, fetched, &mut opened).await {
        // What does not open under a header that was remembered is to be read with its own.
        store.headers.forget(location.as_ref());
        return Err(ours(error));
    }
    Ok(Some(ranges.into_iter().map(|range| cut(&opened, &range)).collect()))
}

/// The sealed bytes of runs that were fetched together, all of them.
struct Fetched {
    identity: Identity,
    /// Where in the object the first of the bytes that have arrived lies.
    position: u64,
    arrived: Arrived,
    runs: Vec<Run>,
}

async fn fetch(store: &Shared, location: &Path, asked: Wanted, runs: Vec<Run>) -> Result<Fetched> {
    let request = GetOptions { range: get::get_range(&asked), ..GetOptions::default() };
    let mut answer = store.inner.get_opts(location, request).await?;
    let stored = asked.in_length(answer.meta.size);
    if answer.range != stored {
        return Err(ours(another_range()));
    }
    let mut sealed = Sealed { inner: take_stream(&mut answer), arrived: Arrived::default() };
    let len = stored.end - stored.start;
    while (sealed.arrived.len() as u64) < len {
        sealed.more().await?;
    }
    sealed.end(len).await?;
    let identity = get::identity(&answer.meta);
    Ok(Fetched { identity, position: stored.start, arrived: sealed.arrived, runs })
}

/// The plaintext of whole blocks, from an offset on. Wiped, unless a part of it was given out: also where whoever asked has stopped waiting.
struct Opened {
    offset: u64,
    plain: Bytes,
}

impl Drop for Opened {
    fn drop(&mut self) {
        wipe(std::mem::take(&mut self.plain));
    }
}

/// The lease is looked at after each block, and after the last of them there is no wait before the release.
async fn open(
    account: &Account,
    proven: Proven,
    geometry: ObjectGeometry,
    fetched: Vec<Fetched>,
    opened: &mut Vec<Opened>,
) -> Result<(), Error> {
    let block = geometry.layout().block_len() as u64;
    for Fetched { identity: _, mut position, mut arrived, runs } in fetched {
        for Run { first, last } in runs {
            give_way().await;
            let offset = first * block;
            let range = offset.min(geometry.plain_len())..((last + 1) * block).min(geometry.plain_len());
            let cover = Cover::new(&geometry, &range);
            let before = cover.stored.start.saturating_sub(position);
            let mut opener = Opener::new(account.clone(), proven, geometry, &cover).at_once();
            // Everything has arrived: what is missing is not to come. Memory is taken for what is there.
            let needed = before.saturating_add(cover.stored.end - cover.stored.start);
            if needed > arrived.len() as u64 {
                return Err(ended_early());
            }
            arrived.skip(before);
            let plain = opener.open(&mut arrived)?.ok_or_else(ended_early)?;
            position = cover.stored.end;
            opened.push(Opened { offset, plain });
        }
    }
    Ok(())
}

/// The bytes of one range, which lies within one run, without a copy.
fn cut(opened: &[Opened], range: &Range<u64>) -> Bytes {
    let at = opened.partition_point(|run| run.offset <= range.start).saturating_sub(1);
    let Opened { offset, plain } = &opened[at];
    let within = |position: u64| usize::try_from(position - offset).unwrap_or(usize::MAX).min(plain.len());
    plain.slice(within(range.start)..within(range.end))
}

/// How many requests go at the same time, as in `object_store` itself.
const AT_ONCE: usize = 10;

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    /// What lies in this process's memory where `plain` did, but for what an allocator writes at either end of what is free.
    fn after(plain: Bytes, let_go: impl FnOnce(Bytes)) -> Vec<u8> {
        let memory = File::open("/proc/self/mem").unwrap();
        let mut left = vec![0; plain.len() - 2 * MARGIN];
        let at = plain.as_ptr().addr() + MARGIN;
        let_go(plain);
        memory.read_exact_at(&mut left, at as u64).unwrap();
        left
    }

    #[test]
    fn d4_what_was_opened_and_not_given_out_is_wiped() {
        let plain = || Bytes::from(vec![0xa5; 1024]);
        assert!(after(plain(), drop).contains(&0xa5), "the positive control");
        let left = after(plain(), |plain| drop(Opened { offset: 0, plain }));
        assert!(!left.contains(&0xa5));
        // What was given out is whole.
        let opened = [Opened { offset: 0, plain: plain() }];
        let given = cut(&opened, &(1..1023));
        drop(opened);
        assert_eq!(given, vec![0xa5; 1022]);
    }

    const MARGIN: usize = 64;
}
