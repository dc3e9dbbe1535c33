//! Sealed objects through memory: write, sequential read, random 4 KiB reads.
//!
//! Before criterion's own figures stands the table for P9: how a sequential write and read of a whole object compare with
//! sealing and opening the same blocks one by one, measured alternately in one run. `tests/evidence.sh P9` runs that alone.

#[path = "../tests/evidence/report.rs"]
mod evidence;

use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput};
use strongroom::provider::{Kek, KeyOptions, LocalKms};
use strongroom::{
    Aad, Account, AccountId, AccountSpec, AekCache, BlockId, BlockSize, Context, ObjectId, ObjectOptions,
    ObjectReader, SealedObject,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A real account, its keeper refreshing in the background: what is measured is what a user has.
    let folder = tempfile::tempdir()?;
    let kms = LocalKms::create(folder.path().join("kms.json"))?;
    kms.create_key("bench", KeyOptions::default())?;
    let cache = AekCache::builder().build()?;
    let account = cache.create(AccountSpec::new(AccountId::random(), Arc::new(kms), Kek::latest("bench")))?;

    // `cargo test --benches` only asks whether this runs.
    let rounds = if std::env::args().any(|arg| arg == "--test") { 1 } else { 150 };
    let (write, read) = p9(&account, rounds);
    if std::env::var_os("STRONGROOM_EVIDENCE").is_some() {
        evidence::timed("P9", "write, share of the blocks'", write, ">=", 0.85);
        evidence::timed("P9", "read, share of the blocks'", read, ">=", 0.85);
        return Ok(());
    }
    let mut criterion = Criterion::default().configure_from_args().measurement_time(Duration::from_secs(2));
    bench(&mut criterion, &account);
    criterion.final_summary();
    Ok(())
}

/// How long the plaintext is: one MiB, which fits the caches, so that what is measured is our work and not
/// memory; and at least 16 blocks, so that it is a stream.
fn len(block_size: BlockSize) -> usize {
    (1024 * 1024).max(16 * block_size.bytes())
}

/// Prints the table. Returns the worst ratios of all block sizes: of writing, of reading.
fn p9(account: &Account, rounds: u32) -> (f64, f64) {
    println!("block_size  op     blocks_us  object_us  ratio   (P9: at least 0.85)");
    let mut worst = (f64::INFINITY, f64::INFINITY);
    for log2 in [12, 14, 16, 18, 20] {
        let bench = Objects::new(account, BlockSize::new(1 << log2).expect("in range"));
        let (mut blocks, mut object) = (BytesMut::new(), Vec::new());
        let (blocks_time, object_time) =
            alternate(rounds, || bench.seal_blocks(&mut blocks), || bench.write_object(&mut object));
        worst.0 = worst.0.min(row(bench.block_size, "write", blocks_time, object_time));

        let sealed = bench.sealed_blocks();
        let reader = bench.reader();
        let mut plain = vec![0; bench.plain.len()];
        let mut again = vec![0; bench.plain.len()];
        let (blocks_time, object_time) = alternate(
            rounds,
            || bench.open_blocks(&sealed, &mut plain),
            || {
                let len = reader.read_at(0, &mut again).expect("ours");
                assert_eq!(len, bench.plain.len());
            },
        );
        worst.1 = worst.1.min(row(bench.block_size, "read", blocks_time, object_time));
    }
    worst
}

/// Prints a row and returns its ratio.
fn row(block_size: BlockSize, op: &str, blocks: Duration, object: Duration) -> f64 {
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let ratio = micros(blocks) / micros(object);
    let size = block_size.bytes();
    println!("{size:<10}  {op:<5}  {:9.1}  {:9.1}  {ratio:5.3}", micros(blocks), micros(object));
    ratio
}

/// The median time of each, run in turn so that both see the same machine.
fn alternate(rounds: u32, mut first: impl FnMut(), mut second: impl FnMut()) -> (Duration, Duration) {
    let mut times = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        times.0.push(timed(&mut first));
        times.1.push(timed(&mut second));
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    (median(times.0), median(times.1))
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures")]
fn timed(work: &mut impl FnMut()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// The same plaintext as blocks and as an object.
struct Objects {
    account: Account,
    block_size: BlockSize,
    id: ObjectId,
    plain: Vec<u8>,
}

impl Objects {
    fn new(account: &Account, block_size: BlockSize) -> Self {
        let plain = (0..len(block_size)).map(|at| (at % 251).to_le_bytes()[0]).collect();
        Self { account: account.clone(), block_size, id: ObjectId::random(), plain }
    }

    fn blocks(&self) -> impl Iterator<Item = (BlockId, &[u8])> {
        (0..)
            .zip(self.plain.chunks(self.block_size.bytes()))
            .map(|(i, plain)| (BlockId::new(self.id, i), plain))
    }

    fn seal_blocks(&self, out: &mut BytesMut) {
        out.clear();
        for (id, plain) in self.blocks() {
            let permit = self.account.permit().expect("a lease");
            permit.seal_append(id, Aad::EMPTY, &[std::io::IoSlice::new(plain)], out).expect("a lease");
        }
        black_box(out);
    }

    fn sealed_blocks(&self) -> Vec<Vec<u8>> {
        self.blocks()
            .map(|(id, plain)| {
                self.account.permit().expect("a lease").seal(id, Aad::EMPTY, plain).expect("a lease")
            })
            .collect()
    }

    fn open_blocks(&self, sealed: &[Vec<u8>], out: &mut [u8]) {
        for (((id, _), sealed), out) in self.blocks().zip(sealed).zip(out.chunks_mut(self.block_size.bytes()))
        {
            let permit = self.account.permit().expect("a lease");
            permit.open_into(id, Aad::EMPTY, sealed, out).expect("ours");
        }
        black_box(out);
    }

    fn write_object(&self, out: &mut Vec<u8>) {
        out.clear();
        let options = ObjectOptions::with_block_size(self.block_size);
        let mut writer =
            SealedObject::writer_with(self.account.clone(), context(), out, options).expect("a lease");
        writer.write_all(&self.plain).expect("memory takes all");
        black_box(writer.finish().expect("memory takes all"));
    }

    fn reader(&self) -> ObjectReader<Vec<u8>> {
        let mut sealed = Vec::new();
        self.write_object(&mut sealed);
        SealedObject::reader(self.account.clone(), context(), sealed).expect("ours")
    }
}

fn context() -> Context {
    Context::new(&[b"benchmark"])
}

fn bench(criterion: &mut Criterion, account: &Account) {
    let mut group = criterion.benchmark_group("object");
    for log2 in [12, 16, 20] {
        let bench = Objects::new(account, BlockSize::new(1 << log2).expect("in range"));
        let size = bench.block_size.bytes();
        group.throughput(Throughput::Bytes(bench.plain.len() as u64));
        let mut out = Vec::new();
        group.bench_function(BenchmarkId::new("write", size), |b| b.iter(|| bench.write_object(&mut out)));
        let reader = bench.reader();
        let mut plain = vec![0; bench.plain.len()];
        group.bench_function(BenchmarkId::new("sequential_read", size), |b| {
            b.iter(|| reader.read_at(0, black_box(&mut plain)).expect("ours"));
        });
        group.throughput(Throughput::Bytes(4096));
        group.bench_function(BenchmarkId::new("random_4k_read", size), |b| {
            // A walk that visits every 4 KiB of the object in a scattered order.
            let mut offset = 0;
            b.iter(|| {
                offset = (offset + 97 * 4096) % reader.len();
                reader.read_at(offset, black_box(&mut plain[..4096])).expect("ours")
            });
        });
    }
}
