//! A sealed store over one in memory: a streamed read of 64 MiB, what a random range costs in requests and blocks, and what
//! every method costs beside the same method of the plain store (`store/costs.rs`).
//!
//! "raw" opens the same bytes out of place with one key, in the same blocks of 64 KiB, into fresh chunks of 1 MiB: what
//! anybody has to do who gives plaintext out of a store that keeps its own bytes. Either way whoever reads keeps all chunks until the
//! object's end. Both take turns in one run, and medians are compared. `tests/evidence.sh P10` takes its figures from lines that begin with
//! `evidence`.
//!
//! glibc's allocator gives the memory of large chunks back to the system, or, once it has seen some, keeps it for the next ones, whose pages are
//! mapped already. Which of the two it does at a moment depends on what else was allocated, and moves raw from 7 to 12 GB/s. So the
//! benchmark runs in a process of its own in which every chunk is fresh, and pays for its pages, on both sides.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock itself")]

#[path = "store/costs.rs"]
mod costs;
#[path = "store/counting.rs"]
mod counting;
#[path = "../tests/evidence/report.rs"]
mod evidence;

use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::aead;
use bytes::Bytes;
use counting::Counting;
use futures_util::stream::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use strongroom::provider::{Kek, KeyOptions, LocalKms};
use strongroom::store::{OneAccount, SealedStore};
use strongroom::{AccountId, AccountSpec, AekCache};
use tokio::runtime::{Builder, Runtime};

const MIB: usize = 1024 * 1024;
const LEN: usize = 64 * MIB;
const BLOCK: usize = 64 * 1024;
const FRAME: u64 = BLOCK as u64 + 48;
const TAG: usize = 16;

/// Has glibc take what is as large as [`FRESH_FROM`] bytes from the system each time. Others do not know it.
const FRESH: &str = "MALLOC_MMAP_THRESHOLD_";
const FRESH_FROM: &str = "262144";

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    if std::env::var_os(FRESH).is_none() {
        let mut fresh = Command::new(std::env::current_exe()?);
        fresh.args(std::env::args_os().skip(1)).env(FRESH, FRESH_FROM);
        return if fresh.status()?.success() { Ok(()) } else { Err("it failed".into()) };
    }
    let folder = tempfile::tempdir()?;
    let kms = LocalKms::create(folder.path().join("kms.json"))?;
    kms.create_key("bench", KeyOptions::default())?;
    let cache = AekCache::builder().build()?;
    let account = cache.create(AccountSpec::new(AccountId::random(), Arc::new(kms), Kek::latest("bench")))?;
    let counting = Arc::new(Counting::default());
    let store = SealedStore::builder(counting.clone(), "bench", OneAccount::new(account.clone())).build()?;
    let runtime = Builder::new_current_thread().build()?;
    let plain: Bytes = (0..LEN).map(|at| (at % 251).to_le_bytes()[0]).collect::<Vec<u8>>().into();
    let path = Path::from("object");
    runtime.block_on(store.put(&path, plain.clone().into()))?;

    // `cargo test --benches` only asks whether this runs.
    let rounds = if std::env::args().any(|arg| arg == "--test") { 1 } else { 100 };
    let share = streamed(&runtime, &store, &path, &plain, rounds);
    evidence::timed("P10", "streamed get of 64 MiB, share of raw", share, ">=", 0.80);

    let (requests, frames) = random_ranges(&runtime, &store, &counting, &path, &plain);
    evidence::report("P10", "warm 4 KiB range, requests at most", requests, "=", 1);
    evidence::report("P10", "blocks at most", frames, "<=", 2);
    let cold = cold_range(&runtime, &store, &counting, &path);
    evidence::report("P10", "cold, requests at the same time", cold, "=", 2);

    let forgetful = SealedStore::builder(counting.clone(), "bench", OneAccount::new(account));
    let forgetful = forgetful.cached_headers(0).build()?;
    costs::print(&runtime, &counting, &store, &forgetful, if rounds == 1 { 1 } else { 15 });
    Ok(())
}

/// How many times as fast raw is as reading through the store, the other way round.
fn streamed(runtime: &Runtime, store: &SealedStore, path: &Path, plain: &[u8], rounds: u32) -> f64 {
    let raw = Raw::new(plain);
    let (mut raw_times, mut times) = (Vec::new(), Vec::new());
    for round in 0..rounds + 2 {
        let raw_time = timed(|| raw.open());
        let time = timed(|| {
            runtime.block_on(async {
                let mut stream = store.get(path).await.expect("is there").into_stream();
                let mut kept = Vec::new();
                while let Some(chunk) = stream.try_next().await.expect("ours") {
                    kept.push(chunk);
                }
                assert_eq!(black_box(&kept).iter().map(Bytes::len).sum::<usize>(), LEN);
            });
        });
        if round >= 2 || rounds == 1 {
            raw_times.push(raw_time);
            times.push(time);
        }
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64()
    };
    let (raw, ours) = (median(raw_times), median(times));
    let speed = |seconds: f64| 64.0 / 1024.0 * 1.073_741_824 / seconds;
    println!("{rounds} streamed reads of 64 MiB: raw {:.2} GB/s, ours {:.2} GB/s", speed(raw), speed(ours));
    raw / ours
}

/// The most requests and the most frames that one random 4 KiB range of a warm object took.
fn random_ranges(
    runtime: &Runtime,
    store: &SealedStore,
    counting: &Counting,
    path: &Path,
    plain: &Bytes,
) -> (usize, u64) {
    let (mut requests, mut frames) = (0, 0);
    counting.take();
    let mut offset = 0;
    for _ in 0..2000 {
        offset = (offset + 7_919 * 4_099) % (LEN - 4096);
        let range = offset as u64..offset as u64 + 4096;
        let read = runtime.block_on(store.get_range(path, range)).expect("ours");
        assert_eq!(read, plain[offset..offset + 4096]);
        let asked = counting.take();
        requests = requests.max(asked.len());
        frames = frames.max(asked.iter().map(|bytes| bytes.div_ceil(FRAME)).sum());
    }
    (requests, frames)
}

/// Requests that were begun before the first of them was answered.
fn cold_range(runtime: &Runtime, store: &SealedStore, counting: &Counting, path: &Path) -> usize {
    let other = Path::from("cold");
    runtime.block_on(async {
        store.copy(path, &other).await.expect("ours");
        counting.take();
        counting.hold_back(true);
        store.get_range(&other, 1_000_000..1_004_096).await.expect("ours");
    });
    counting.at_once()
}

/// The bare cipher over the same bytes.
struct Raw {
    key: aead::LessSafeKey,
    sealed: Vec<u8>,
}

impl Raw {
    fn new(plain: &[u8]) -> Self {
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, &[7; 32]).expect("32 bytes");
        let key = aead::LessSafeKey::new(key);
        let mut sealed = plain.to_vec();
        let mut out = Vec::with_capacity(LEN + LEN / BLOCK * TAG);
        for block in sealed.chunks_mut(BLOCK) {
            let tag = key.seal_in_place_separate_tag(nonce(), aead::Aad::empty(), block).expect("seals");
            out.extend_from_slice(block);
            out.extend_from_slice(tag.as_ref());
        }
        Self { key, sealed: out }
    }

    fn open(&self) {
        let mut kept = Vec::new();
        for chunk in self.sealed.chunks(MIB / BLOCK * (BLOCK + TAG)) {
            let mut plain = vec![0; MIB];
            for (frame, out) in chunk.chunks(BLOCK + TAG).zip(plain.chunks_mut(BLOCK)) {
                let (sealed, tag) = frame.split_at(BLOCK);
                self.key.open_separate_gather(nonce(), aead::Aad::empty(), sealed, tag, out).expect("ours");
            }
            kept.push(Bytes::from(plain));
        }
        assert_eq!(black_box(&kept).iter().map(Bytes::len).sum::<usize>(), LEN);
    }
}

fn nonce() -> aead::Nonce {
    aead::Nonce::assume_unique_for_key([1; 12])
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}
