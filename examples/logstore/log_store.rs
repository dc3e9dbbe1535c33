//! The log store: segments of lines as sealed objects, each named by the range of time that it covers.
//!
//! ```text
//! logs/<tenant>/<first time>-<last time>-<number of the segment>
//!
//! chunk of lines | chunk | ... | index: first time8 offset8, one for each chunk | offset of the index 8
//! ```
//! A query lists names, reads the tails of the segments whose range meets its own, and then the chunks that it needs: all of it
//! by ranges, so it costs the blocks that they touch. Nothing here knows of keys. The store underneath seals and opens; when a
//! tenant's key is gone, the call fails and says so.

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::Range;

use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use strongroom::store::SealedStore;

use crate::lines::{Line, Time};

/// Logs of many tenants in one store.
#[derive(Debug)]
pub(crate) struct LogStore {
    store: SealedStore,
}

/// What a query found, and what it read for that.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) lines: Vec<String>,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_stored: u64,
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

impl LogStore {
    pub(crate) const fn new(store: SealedStore) -> Self {
        Self { store }
    }

    /// Writes lines, which are in the order of time, as segments. What is not acknowledged was not written: the caller still has it.
    pub(crate) async fn ingest(&self, tenant: &str, lines: &[Line]) -> Result<usize> {
        let folder = folder(tenant);
        let already = self.store.list(Some(&folder)).try_collect::<Vec<_>>().await?.len();
        let segments =
            lines.chunks(SEGMENT_LINES).filter_map(|lines| Some((lines.first()?, lines.last()?, lines)));
        let mut number = already;
        for (first, last, lines) in segments {
            let path = folder.clone().join(format!("{:014}-{:014}-{number:06}", first.time, last.time));
            // A segment is written once: a second writer of the same number is told.
            let create = PutOptions::from(PutMode::Create);
            self.store.put_opts(&path, segment(lines).into(), create).await?;
            number += 1;
        }
        Ok(number - already)
    }

    /// The lines of `tenant` with times in `wanted`.
    pub(crate) async fn query(&self, tenant: &str, wanted: Range<Time>) -> Result<Found> {
        let mut found = Found::default();
        let mut segments = BTreeMap::new();
        for object in self.store.list(Some(&folder(tenant))).try_collect::<Vec<_>>().await? {
            found.bytes_stored += object.size;
            let times = times_of(&object.location).ok_or("a segment has another name")?;
            if times.0 < wanted.end && times.1 >= wanted.start {
                segments.insert(object.location, object.size);
            }
        }
        for (path, size) in segments {
            self.search(&path, size, &wanted, &mut found).await?;
        }
        Ok(found)
    }

    async fn search(&self, path: &Path, size: u64, wanted: &Range<Time>, found: &mut Found) -> Result<()> {
        let tail = size.saturating_sub(TAIL)..size;
        let bytes = self.store.get_range(path, tail.clone()).await?;
        found.bytes_read += tail.end - tail.start;
        let ranges = chunks_of(&bytes, size, wanted).ok_or("a segment has no index")?;
        for chunk in self.store.get_ranges(path, &ranges).await? {
            found.bytes_read += chunk.len() as u64;
            let lines = std::str::from_utf8(&chunk)?.lines();
            let timed = lines.filter_map(|line| line.split_once(' '));
            let matching = timed.filter(|(time, _)| time.parse().is_ok_and(|time| wanted.contains(&time)));
            found.lines.extend(matching.map(|(_, text)| text.to_owned()));
        }
        Ok(())
    }
}

/// Where a tenant's segments are.
pub(crate) fn folder(tenant: &str) -> Path {
    Path::from_iter(["logs", tenant])
}

/// The bytes of a segment.
fn segment(lines: &[Line]) -> Vec<u8> {
    let (mut bytes, mut index) = (Vec::new(), Vec::new());
    for chunk in lines.chunks(CHUNK_LINES) {
        for number in [chunk[0].time, bytes.len() as u64] {
            index.extend(number.to_be_bytes());
        }
        for Line { time, text } in chunk {
            bytes.extend(format!("{time:014} {text}\n").into_bytes());
        }
    }
    let index_at = bytes.len() as u64;
    bytes.extend(index);
    bytes.extend(index_at.to_be_bytes());
    bytes
}

/// The chunks of a segment that may hold lines of `wanted`, by the last bytes of a segment of `size` bytes.
fn chunks_of(tail: &[u8], size: u64, wanted: &Range<Time>) -> Option<Vec<Range<u64>>> {
    let (rest, index_at) = tail.split_last_chunk()?;
    let index_at = u64::from_be_bytes(*index_at);
    let index_len = usize::try_from((size - 8).checked_sub(index_at)?).ok()?;
    let index = rest.get(rest.len().checked_sub(index_len)?..)?;
    let entries: Vec<(Time, u64)> = index.chunks_exact(16).filter_map(entry).collect();
    let ends = entries.iter().skip(1).copied().chain([(Time::MAX, index_at)]);
    // A chunk ends with the time that the next one begins with, at the latest.
    let wanted = entries
        .iter()
        .zip(ends)
        .filter(|((first, _), (next, _))| *first < wanted.end && *next >= wanted.start);
    Some(wanted.map(|((_, from), (_, to))| *from..to).collect())
}

fn entry(bytes: &[u8]) -> Option<(Time, u64)> {
    let (time, offset) = bytes.split_first_chunk()?;
    Some((u64::from_be_bytes(*time), u64::from_be_bytes(offset.try_into().ok()?)))
}

fn times_of(path: &Path) -> Option<(Time, Time)> {
    let mut times = path.filename()?.split('-').map(str::parse);
    Some((times.next()?.ok()?, times.next()?.ok()?))
}

const CHUNK_LINES: usize = 32;
/// So the index, 16 bytes for each chunk, always lies in the last [`TAIL`] bytes.
const SEGMENT_LINES: usize = 127 * CHUNK_LINES;
const TAIL: u64 = 127 * 16 + 8;
