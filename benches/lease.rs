//! What asking about a lease costs: its status, and the checks that every call makes, alone and beside a second thread.
#![allow(missing_docs, reason = "criterion's macros write undocumented functions")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use criterion::{Criterion, criterion_group, criterion_main};
use strongroom::provider::{Kek, KeyOptions, LocalKms};
use strongroom::{Account, AccountId, AccountSpec, AekCache};

fn lease(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a writable temporary folder");
    let kms = LocalKms::create(folder.path().join("kms.json")).expect("a new file");
    kms.create_key("bench", KeyOptions::default()).expect("a new key");
    let cache = AekCache::builder().build().expect("threads");
    let spec = AccountSpec::new(AccountId::random(), Arc::new(kms), Kek::latest("bench"));
    let account = cache.create(spec).expect("the KMS answers");

    questions(c, "1 thread", &account);
    // The same while another thread asks the same as fast as it can.
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let fence = account.fence().expect("a lease");
            while !stop.load(Ordering::Relaxed) {
                black_box((account.status(), account.permit().is_ok(), fence.check().is_ok()));
            }
        });
        questions(c, "2 threads", &account);
        stop.store(true, Ordering::Relaxed);
    });
}

fn questions(c: &mut Criterion, threads: &str, account: &Account) {
    let mut group = c.benchmark_group(format!("lease, {threads}"));
    let fence = account.fence().expect("a lease");
    let guarded = account.guard(7_u64).expect("a lease");
    group.bench_function("status", |b| b.iter(|| black_box(account).status()));
    group.bench_function("permit", |b| b.iter(|| black_box(account).permit().is_ok()));
    group.bench_function("fence check", |b| b.iter(|| black_box(&fence).check().is_ok()));
    group.bench_function("guarded get", |b| b.iter(|| black_box(&guarded).get().is_ok()));
    group.finish();
}

criterion_group!(benches, lease);
criterion_main!(benches);
