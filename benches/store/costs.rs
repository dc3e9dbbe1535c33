//! What each method of a sealed store costs beside the same method of the store underneath, in one run: requests, bytes that are sent and
//! received, and CPU time of the calling thread. The store is in memory, which does next to nothing itself, so that what is
//! shown as the sealed store's is the sealing.
//!
//! How many requests it may be is not measured but held: the table of docs/STORES.md says so.

use std::future::Future;
use std::hint::black_box;
use std::ops::Range;

use bytes::Bytes;
use futures_util::stream::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use rustix::time::{ClockId, clock_gettime};
use strongroom::store::SealedStore;
use tokio::runtime::Runtime;

use crate::counting::{Counting, Tally};

const MIB: usize = 1024 * 1024;
const LARGE: usize = 64 * MIB;
/// What `object_store::buffered::BufWriter` sends.
const PIECE: usize = 10 * MIB;
const LISTED: usize = 1000;
const RANGES: [Range<u64>; 4] =
    [40_000_000..40_004_096, 5_000_000..5_010_000, 40_100_000..40_100_010, 20..30];

/// The rows of the table: what is done, and how many requests more it takes than without us.
const ROWS: [(Act, &str, usize); 12] = [
    (Act::Put, "put, 1 MiB", 0),
    (Act::Upload, "put_multipart, 64 MiB in 10 MiB", 0),
    (Act::GetSmall, "get, 1 MiB", 0),
    (Act::GetLarge, "get, 64 MiB", 0),
    (Act::Range, "get_range, 4 KiB, header remembered", 0),
    (Act::ColdRange, "get_range, 4 KiB, header not remembered", 1),
    (Act::Ranges, "get_ranges, 4 in 3 groups", 0),
    (Act::Head, "head", 0),
    (Act::List, "list, 1000 objects", 0),
    (Act::Copy, "copy, 1 MiB", 1),
    (Act::Rename, "rename, 1 MiB", 2),
    (Act::Delete, "delete", 0),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Put,
    Upload,
    GetSmall,
    GetLarge,
    Range,
    ColdRange,
    Ranges,
    Head,
    List,
    Copy,
    Rename,
    Delete,
}

/// `forgetful` remembers no header.
pub(crate) fn print(
    runtime: &Runtime,
    counting: &Counting,
    sealed: &SealedStore,
    forgetful: &SealedStore,
    rounds: usize,
) {
    counting.hold_back(false);
    let content = Bytes::from((0..=250).cycle().take(LARGE).collect::<Vec<u8>>());
    for (store, folder) in [(counting as &dyn ObjectStore, "plain"), (sealed, "sealed")] {
        runtime.block_on(prepare(store, folder, &content));
    }
    println!("| | requests, plain and sealed | sent | received | CPU, us |\n|---|---|---|---|---|");
    for (act, what, more) in ROWS {
        let ours = if act == Act::ColdRange { forgetful } else { sealed };
        let (plain, plain_time) = measure(runtime, counting, counting, (act, "plain"), &content, rounds);
        let (tally, time) = measure(runtime, counting, ours, (act, "sealed"), &content, rounds);
        assert_eq!(tally.requests, plain.requests + more, "requests of {what}");
        println!(
            "| {what} | {}, {} | {}, {} | {}, {} | {plain_time:.1}, {time:.1} |",
            plain.requests, tally.requests, plain.sent, tally.sent, plain.received, tally.received,
        );
    }
}

async fn prepare(store: &dyn ObjectStore, folder: &str, content: &Bytes) {
    let at = |name: &str| Path::from(format!("{folder}/{name}"));
    store.put(&at("small"), content.slice(..MIB).into()).await.expect("ours");
    store.put(&at("large"), content.clone().into()).await.expect("ours");
    for number in 0..LISTED {
        store.put(&at(&format!("many/{number:04}")), content.slice(..100).into()).await.expect("ours");
    }
    store.get_range(&at("large"), 40_000_000..40_000_001).await.expect("ours");
}

/// What it asks of the store, and the median of its CPU time in microseconds.
fn measure(
    runtime: &Runtime,
    counting: &Counting,
    store: &dyn ObjectStore,
    (act, folder): (Act, &str),
    content: &Bytes,
    rounds: usize,
) -> (Tally, f64) {
    let at = |name: &str| Path::from(format!("{folder}/{name}"));
    let (mut times, mut tally) = (Vec::new(), Tally::default());
    for _ in 0..rounds {
        // What is renamed or deleted has to be there each time.
        runtime.block_on(store.put(&at("passing"), content.slice(..MIB).into())).expect("ours");
        counting.tally();
        times.push(cpu(runtime, perform(store, act, at, content)));
        tally = counting.tally();
    }
    times.sort_by(f64::total_cmp);
    (tally, times[times.len() / 2])
}

async fn perform(store: &dyn ObjectStore, act: Act, at: impl Fn(&str) -> Path, content: &Bytes) {
    let done = match act {
        Act::Put => store.put(&at("put"), content.slice(..MIB).into()).await.map(drop),
        Act::Upload => upload(store, &at("uploaded"), content).await,
        Act::GetSmall => read(store, &at("small")).await,
        Act::GetLarge => read(store, &at("large")).await,
        Act::Range | Act::ColdRange => {
            store.get_range(&at("large"), 40_000_000..40_004_096).await.map(|read| drop(black_box(read)))
        }
        Act::Ranges => store.get_ranges(&at("large"), &RANGES).await.map(|read| drop(black_box(read))),
        Act::Head => store.head(&at("large")).await.map(|meta| drop(black_box(meta))),
        Act::List => {
            let listed = store.list(Some(&at("many"))).try_fold(0, async |count, _| Ok(count + 1)).await;
            listed.map(|count: usize| assert_eq!(count, LISTED))
        }
        Act::Copy => store.copy(&at("small"), &at("copied")).await,
        Act::Rename => store.rename(&at("passing"), &at("renamed")).await,
        Act::Delete => store.delete(&at("passing")).await,
    };
    done.expect("ours");
}

async fn upload(store: &dyn ObjectStore, at: &Path, content: &Bytes) -> object_store::Result<()> {
    let mut upload = store.put_multipart(at).await?;
    for start in (0..content.len()).step_by(PIECE) {
        upload.put_part(content.slice(start..content.len().min(start + PIECE)).into()).await?;
    }
    upload.complete().await.map(drop)
}

/// Chunks are dropped as they come, as by somebody who writes them on.
async fn read(store: &dyn ObjectStore, at: &Path) -> object_store::Result<()> {
    let mut stream = store.get(at).await?.into_stream();
    while let Some(chunk) = stream.try_next().await? {
        black_box(chunk);
    }
    Ok(())
}

fn cpu(runtime: &Runtime, work: impl Future<Output = ()>) -> f64 {
    let now = || {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        std::time::Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
    };
    let begun = now();
    runtime.block_on(work);
    (now() - begun).as_secs_f64() * 1e6
}
