//! Sealing and opening blocks, in place and apart, on both engines: `cargo bench --bench block`.
//!
//! `ratio` sets the same path against the bare cipher.
#![allow(missing_docs, reason = "criterion's macros make public items without any")]

use std::hint::black_box;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use strongroom::provider::{Kek, KeyOptions, LocalKms};
use strongroom::{Aad, AccountId, AccountSpec, AekCache, BlockId, Engine, ObjectId};

const KIB: usize = 1024;
const SIZES: [usize; 6] = [512, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, KIB * KIB];
const AAD: Aad<'static> = Aad::new(b"tenant-42");

fn block(c: &mut Criterion) {
    for (engine, name) in [(Engine::Fastest, "fastest"), (Engine::Portable, "portable")] {
        let folder = tempfile::tempdir().expect("a writable temporary folder");
        let kms = LocalKms::create(folder.path().join("kms.json")).expect("a new file");
        kms.create_key("bench", KeyOptions::default()).expect("a new key");
        let cache = AekCache::builder().engine(engine).build().expect("threads");
        let spec = AccountSpec::new(AccountId::random(), Arc::new(kms), Kek::latest("bench"));
        let account = cache.create(spec).expect("the KMS answers");
        let permit = account.permit().expect("a lease");
        let id = BlockId::new(ObjectId::random(), 7);
        let mut group = c.benchmark_group(name);
        for size in SIZES {
            group.throughput(Throughput::Bytes(u64::try_from(size).expect("small")));
            let plain = vec![0x5A; size];
            let frame = permit.seal(id, AAD, &plain).expect("seals");

            group.bench_function(BenchmarkId::new("seal", size), |b| {
                b.iter(|| black_box(permit.seal(id, AAD, &plain)).expect("seals"));
            });
            let mut out = BytesMut::with_capacity(frame.len());
            group.bench_function(BenchmarkId::new("seal_append", size), |b| {
                b.iter(|| {
                    out.clear();
                    permit.seal_append(id, AAD, &[IoSlice::new(&plain)], &mut out).expect("seals");
                });
            });
            let mut data = plain.clone();
            group.bench_function(BenchmarkId::new("seal_detached", size), |b| {
                b.iter(|| black_box(permit.seal_detached(id, AAD, &mut data)).expect("seals"));
            });
            group.bench_function(BenchmarkId::new("open", size), |b| {
                b.iter(|| black_box(permit.open(id, AAD, &frame)).expect("opens"));
            });
            let mut out = vec![0; size];
            group.bench_function(BenchmarkId::new("open_into", size), |b| {
                b.iter(|| permit.open_into(id, AAD, &frame, &mut out).expect("opens"));
            });
            // An open in place uses its input up: what is measured is a seal and an open.
            group.bench_function(BenchmarkId::new("seal_and_open_detached", size), |b| {
                b.iter(|| {
                    let detached = permit.seal_detached(id, AAD, &mut data).expect("seals");
                    permit.open_detached(id, AAD, &detached, &mut data).expect("opens");
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, block);
criterion_main!(benches);
