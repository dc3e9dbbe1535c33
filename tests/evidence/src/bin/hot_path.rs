//! What a block costs beside cryptography: heap allocations, counted here, and system calls, which strace counts
//! between the marks that this writes (tests/evidence/checks/P6.sh).
//!
//! `hot_path BLOCKS`. Ends with a failure when a block allocated more than its bare engine does.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::aead::{self, LessSafeKey, Nonce, UnboundKey};
use strongroom::provider::{Kek, KeyOptions, LocalKms};
use strongroom::{
    Aad, Account, AccountId, AccountSpec, AekCache, BlockId, Detached, Engine, ObjectId, OpenJob, SealJob,
};
use strongroom_evidence::counting::{Counting, allocations};
use strongroom_evidence::report::report;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const BLOCK: usize = 4096;
const BATCH: usize = 32;
const AAD: Aad<'static> = Aad::new(b"tenant-42");

fn main() -> ExitCode {
    let blocks: usize =
        std::env::args().nth(1).and_then(|count| count.parse().ok()).expect("hot_path BLOCKS");
    let rounds = blocks.div_ceil(BATCH);
    let raw = counted(|| bare_engine(rounds));
    let mut ours = 0;
    for (engine, excepted) in [(Engine::Fastest, raw), (Engine::Portable, 0)] {
        let folder = tempfile::tempdir().expect("a writable temporary folder");
        let kms = LocalKms::create(folder.path().join("kms.json")).expect("a new file");
        kms.create_key("hot", KeyOptions::default()).expect("a new key");
        let cache = AekCache::builder().engine(engine).build().expect("threads");
        let spec = AccountSpec::new(AccountId::random(), Arc::new(kms), Kek::latest("hot"));
        let account = cache.create(spec).expect("the KMS answers");
        // Each is sealed and opened: as often as the bare engine did it.
        for path in [one_by_one, in_batches] {
            let quiet = measured(&account, rounds, path);
            let contended = beside_control_calls(&account, || measured(&account, rounds, path));
            ours = quiet.saturating_sub(excepted).max(contended.saturating_sub(excepted)).max(ours);
        }
    }
    report("P6", "heap allocations of ours", ours, "=", 0);
    if ours == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The heap allocations of `path` once it is warm, between marks for strace.
fn measured(account: &Account, rounds: usize, path: fn(&Account, usize, &mut [u8])) -> u64 {
    let mut memory = vec![0x5A; BATCH * BLOCK];
    path(account, 100, &mut memory);
    eprintln!("hot path begins");
    let count = counted(|| path(account, rounds, &mut memory));
    eprintln!("hot path ends");
    assert!(memory.iter().all(|byte| *byte == 0x5A), "everything sealed was opened again");
    count
}

fn counted(work: impl FnOnce()) -> u64 {
    let before = allocations();
    work();
    allocations() - before
}

fn one_by_one(account: &Account, rounds: usize, memory: &mut [u8]) {
    let object = ObjectId::from_bytes([7; 16]);
    for _ in 0..rounds {
        for (index, data) in (0..).zip(memory.chunks_exact_mut(BLOCK)) {
            let id = BlockId::new(object, index);
            let permit = account.permit().expect("a lease");
            let detached = permit.seal_detached(id, AAD, data).expect("seals");
            permit.open_detached(id, AAD, &detached, data).expect("opens");
        }
    }
}

fn in_batches(account: &Account, rounds: usize, memory: &mut [u8]) {
    let object = ObjectId::from_bytes([7; 16]);
    for _ in 0..rounds {
        let permit = account.permit().expect("a lease");
        let mut blocks = (0..).map(|index| BlockId::new(object, index)).zip(memory.chunks_exact_mut(BLOCK));
        let mut jobs: [SealJob<'_>; BATCH] = std::array::from_fn(|_| {
            let (id, data) = blocks.next().expect("as many");
            SealJob::new(id, AAD, data)
        });
        permit.seal_batch(&mut jobs).expect("seals");
        let sealed: [Detached; BATCH] = jobs.map(|job| *job.detached().expect("sealed"));
        let mut blocks = (0..).map(|index| BlockId::new(object, index)).zip(memory.chunks_exact_mut(BLOCK));
        let mut jobs: [OpenJob<'_>; BATCH] = std::array::from_fn(|at| {
            let (id, data) = blocks.next().expect("as many");
            OpenJob::in_place(id, AAD, &sealed[at], data)
        });
        permit.open_batch(&mut jobs).expect("opens");
    }
}

/// What aws-lc-rs allocates by itself, with a key for each block as ours has one.
fn bare_engine(rounds: usize) {
    let mut data = [0x5A; BLOCK];
    for _ in 0..rounds * BATCH {
        let key = || LessSafeKey::new(UnboundKey::new(&aead::AES_256_GCM, &[7; 32]).expect("32 bytes"));
        let nonce = || Nonce::assume_unique_for_key([1; 12]);
        let tag = key().seal_in_place_separate_tag(nonce(), aead::Aad::empty(), &mut data).expect("seals");
        let opened = key()
            .open_in_place_separate_tag(nonce(), aead::Aad::empty(), tag.as_ref(), &mut data)
            .map(|_| ());
        opened.expect("opens");
    }
}

/// Does `work` while another thread asks for renewals and for the status without a pause.
fn beside_control_calls<T>(account: &Account, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                account.record_changed();
                std::hint::black_box(account.status());
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}
