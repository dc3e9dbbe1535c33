//! What the whole path costs over the bare cipher: `cargo bench --bench ratio`.
//!
//! "raw" is the engine's AES-256-GCM (of double encryption its ChaCha20-Poly1305) in place with one key for all blocks; "ours" is `seal_detached` and
//! `open_detached` (and their batches): lease check, fresh DEK, nonce, tag, wiping. Both take turns over the
//! same buffers in one run, and medians are compared, so that the ratio means something on a busy machine as well.
//! `tests/evidence.sh P1` and its like run it too, and take its figures from lines that begin with `evidence`. Where goals are named
//! (`cargo bench --bench ratio -- P5`), only what they need is measured.
#![allow(
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a benchmark reads the clock itself"
)]

#[path = "../tests/evidence/report.rs"]
mod evidence;
#[path = "ratio/parts.rs"]
mod parts;

use std::fmt;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use aws_lc_rs::aead;
use strongroom::provider::{Kek, KeyOptions, LocalKms};
use strongroom::{
    Aad, Account, AccountId, AccountSpec, AekCache, BlockId, Detached, Engine, ObjectId, OpenJob, Permit,
    SealJob,
};
use tempfile::TempDir;

const KIB: usize = 1024;
/// Those that goals name.
const BLOCK: usize = 4 * KIB;
const LARGE: usize = 64 * KIB;
const LARGEST: usize = KIB * KIB;
const SIZES: [usize; 7] = [512, KIB, BLOCK, 16 * KIB, LARGE, 256 * KIB, LARGEST];
/// How many blocks of a size take part: a batch of 32, or as many as fit into 1 MiB.
const fn batch(size: usize) -> usize {
    let fit = KIB * KIB / size;
    if fit < 32 { fit } else { 32 }
}

/// How much of each size is sealed for a measurement, in bytes, so that small blocks have as many rounds as they need.
const VOLUME: usize = 256 * KIB * KIB;
/// Nothing of the caller's: 48 bytes are authenticated with each block all the same. A caller's few bytes cost some 15 ns more.
const AAD: Aad<'static> = Aad::EMPTY;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let named: Vec<&str> =
        words.iter().flat_map(|word| word.split(' ')).filter(|word| word.starts_with('P')).collect();
    let wanted = |goals: &[&str]| named.is_empty() || goals.iter().any(|goal| named.contains(goal));
    let aws_lc = Bench {
        raw: Raw::AwsLc(vec![aws_lc_key(&aead::AES_256_GCM)]),
        ours: Managed::new(Engine::Fastest),
        volume: VOLUME,
    };
    let double = Bench {
        raw: Raw::AwsLc(vec![aws_lc_key(&aead::CHACHA20_POLY1305)]),
        ours: Managed::double(Engine::Fastest),
        volume: VOLUME / 2,
    };
    let both = Bench {
        raw: Raw::AwsLc(vec![aws_lc_key(&aead::AES_256_GCM), aws_lc_key(&aead::CHACHA20_POLY1305)]),
        ours: Managed::double(Engine::Fastest),
        volume: VOLUME / 2,
    };
    let portable = Bench {
        raw: Raw::AesGcm(Box::new(aes_gcm_key())),
        ours: Managed::new(Engine::Portable),
        volume: VOLUME / 8,
    };
    if wanted(&["P1", "P2", "P3", "P4"]) {
        let needed = |size: &usize| match *size {
            BLOCK => wanted(&["P1", "P4"]),
            LARGE => wanted(&["P2"]),
            LARGEST => wanted(&["P3"]),
            _ => named.is_empty(),
        };
        one_layer(&aws_lc, SIZES.into_iter().filter(needed), &wanted);
    }
    if wanted(&["P5"]) {
        two_threads(&aws_lc);
    }
    if wanted(&["P7"]) {
        portable_engine(&portable);
    }
    if wanted(&["P8"]) {
        two_layers(&double, &both);
    }
}

/// P1 to P4, as far as they are wanted.
fn one_layer(aws_lc: &Bench, sizes: impl Iterator<Item = usize>, wanted: &impl Fn(&[&str]) -> bool) {
    head("one layer against raw AES-256-GCM");
    let rows = rows(aws_lc, sizes);
    if wanted(&["P1"]) {
        at_least("P1", "one by one, share of raw", worst(&rows, BLOCK, false), 0.52);
        at_least("P1", "in a batch, share of raw", worst(&rows, BLOCK, true), 0.55);
    }
    if wanted(&["P2"]) {
        at_least("P2", "share of raw", worst(&rows, LARGE, false), 0.92);
    }
    if wanted(&["P3"]) {
        at_least("P3", "share of raw", worst(&rows, LARGEST, false), 0.985);
    }
    if wanted(&["P4"]) {
        let cost = |batch| {
            let rows = rows.iter().filter(|row| row.size == BLOCK && row.op.is_batch() == batch);
            rows.map(Row::overhead).fold(f64::NEG_INFINITY, f64::max)
        };
        parts::print();
        at_most("P4", "ns over raw, one by one", cost(false), 285.0);
        at_most("P4", "ns over raw, in a batch", cost(true), 240.0);
    }
}

/// P5.
fn two_threads(aws_lc: &Bench) {
    for (size, what) in [(4, "4 KiB, gain as a share of raw's"), (64, "64 KiB, gain as a share of raw's")] {
        let (raw, ours) = two_thread_gains(aws_lc, size * KIB);
        println!("    two threads at {size} KiB: raw x{raw:.2}, ours x{ours:.2}");
        at_least("P5", what, ours / raw, 0.97);
    }
}

/// P7.
fn portable_engine(portable: &Bench) {
    head("portable engine against raw aes-gcm");
    let rows = rows(portable, [BLOCK, LARGE]);
    at_least("P7", "4 KiB, share of raw aes-gcm", worst(&rows, BLOCK, false), 0.80);
    at_least("P7", "64 KiB, share of raw aes-gcm", worst(&rows, LARGE, false), 0.97);
}

/// P8.
fn two_layers(double: &Bench, both: &Bench) {
    head("double encryption against raw ChaCha20-Poly1305");
    let double_rows = rows(double, [BLOCK, LARGE]);
    head("double encryption against raw AES-256-GCM and raw ChaCha20-Poly1305, one after the other");
    let both_rows = rows(both, [BLOCK, LARGE]);
    at_least("P8", "share of raw ChaCha20-Poly1305", worst(&double_rows, LARGE, false), 0.80);
    // No code above the two ciphers can do better than they do with one key each and nothing else.
    let most = double_rows.iter().zip(&both_rows).filter(|(row, _)| row.size == LARGE);
    let most = most.map(|(one, both)| one.raw / both.raw).fold(f64::INFINITY, f64::min);
    println!(
        "    the two ciphers alone reach {most:.3} of it, ours {:.3} of them",
        worst(&both_rows, LARGE, false)
    );
}

fn head(what: &str) {
    println!("\n{what}");
    println!(
        "{:>8}  {:<12} {:>10} {:>10} {:>6} {:>11}",
        "size", "op", "raw_ns", "ours_ns", "ratio", "overhead_ns"
    );
}

/// Measures and prints them.
fn rows(bench: &Bench, sizes: impl IntoIterator<Item = usize>) -> Vec<Row> {
    let rows: Vec<Row> = sizes.into_iter().flat_map(|size| bench.measure(size)).collect();
    rows.iter().for_each(|row| println!("{row}"));
    rows
}

/// The least share of raw of one size, of what is done in a batch or of what is not.
fn worst(rows: &[Row], size: usize, batch: bool) -> f64 {
    let rows = rows.iter().filter(|row| row.size == size && row.op.is_batch() == batch);
    rows.map(Row::ratio).fold(f64::INFINITY, f64::min)
}

/// A cipher alone, and the whole path over the same cipher.
struct Bench {
    raw: Raw,
    ours: Managed,
    /// Bytes to seal for a measurement.
    volume: usize,
}

impl Bench {
    /// Six rows: raw against ours and against ours in a batch, sealing and opening.
    fn measure(&self, size: usize) -> Vec<Row> {
        let permit = self.ours.account.permit().expect("a lease");
        let object = ObjectId::random();
        let count = batch(size);
        let mut memory = vec![0x5A; count * size];
        let mut raw_tags = vec![RawTags::default(); count];
        let mut detached = Vec::with_capacity(count);
        let mut times: [Vec<Duration>; 6] = Default::default();
        for round in 0..(self.volume / memory.len()).min(MAX_ROUNDS) + WARM_UP {
            let nonce = u64::try_from(round).expect("few rounds");
            let mut elapsed = [Duration::ZERO; 6];
            elapsed[0] = time(|| self.raw.seal(nonce, &mut memory, size, &mut raw_tags));
            elapsed[1] = time(|| self.raw.open(nonce, &mut memory, size, &raw_tags));
            elapsed[2] = time(|| seal(&permit, object, &mut memory, size, &mut detached));
            elapsed[3] = time(|| open(&permit, object, &mut memory, size, &detached));
            let mut jobs: Vec<SealJob<'_>> =
                blocks(object, &mut memory, size).map(|(id, data)| SealJob::new(id, AAD, data)).collect();
            elapsed[4] = time(|| permit.seal_batch(&mut jobs).expect("seals"));
            detached = jobs.iter().map(|job| *job.detached().expect("sealed")).collect();
            let mut jobs: Vec<OpenJob<'_>> = blocks(object, &mut memory, size)
                .zip(&detached)
                .map(|((id, data), detached)| OpenJob::in_place(id, AAD, detached, data))
                .collect();
            elapsed[5] = time(|| permit.open_batch(&mut jobs).expect("opens"));
            if round >= WARM_UP {
                times.iter_mut().zip(elapsed).for_each(|(times, elapsed)| times.push(elapsed));
            }
        }
        assert!(memory.iter().all(|byte| *byte == 0x5A), "everything sealed was opened again");
        let [raw_seal, raw_open, seal, open, seal_batch, open_batch] =
            times.map(|times| median(times).as_nanos() as f64 / count as f64);
        vec![
            Row { size, op: Op::Seal, raw: raw_seal, ours: seal },
            Row { size, op: Op::Open, raw: raw_open, ours: open },
            Row { size, op: Op::SealBatch, raw: raw_seal, ours: seal_batch },
            Row { size, op: Op::OpenBatch, raw: raw_open, ours: open_batch },
        ]
    }
}

/// An account as a user has it: its KMS is a file, and its keeper refreshes the lease in the background.
struct Managed {
    account: Account,
    _cache: AekCache,
    _folder: TempDir,
}

impl Managed {
    fn new(engine: Engine) -> Self {
        Self::of(engine, |spec, _| spec)
    }

    /// Under double encryption, by two keys of one KMS.
    fn double(engine: Engine) -> Self {
        Self::of(engine, |spec, kms| spec.double_encryption(kms, Kek::latest("second")))
    }

    fn of(engine: Engine, choose: impl FnOnce(AccountSpec, Arc<LocalKms>) -> AccountSpec) -> Self {
        let folder = tempfile::tempdir().expect("a writable temporary folder");
        let kms = LocalKms::create(folder.path().join("kms.json")).expect("a new file");
        kms.create_key("bench", KeyOptions::default()).expect("a new key");
        kms.create_key("second", KeyOptions::default()).expect("a new key");
        let kms = Arc::new(kms);
        let cache = AekCache::builder()
            .engine(engine)
            .refresh_every(Duration::from_secs(60))
            .build()
            .expect("threads");
        let spec = AccountSpec::new(AccountId::random(), kms.clone(), Kek::latest("bench"));
        let account = cache.create(choose(spec, kms)).expect("the KMS answers");
        Self { account, _cache: cache, _folder: folder }
    }
}

enum Raw {
    /// One cipher, or several one after the other.
    AwsLc(Vec<aead::LessSafeKey>),
    AesGcm(Box<Aes256Gcm>),
}

/// One for each cipher.
type RawTags = [[u8; 16]; 2];

impl Raw {
    fn seal(&self, nonce: u64, memory: &mut [u8], size: usize, tags: &mut [RawTags]) {
        for (data, tags) in memory.chunks_exact_mut(size).zip(tags) {
            match self {
                Self::AwsLc(keys) => {
                    for (key, tag) in keys.iter().zip(tags) {
                        let sealed =
                            key.seal_in_place_separate_tag(aws_lc_nonce(nonce), aead::Aad::empty(), data);
                        *tag = sealed.expect("seals").as_ref().try_into().expect("16 bytes");
                    }
                }
                Self::AesGcm(key) => {
                    let sealed = key.encrypt_inout_detached(&nonce12(nonce).into(), &[], data.into());
                    tags[0] = sealed.expect("seals").into();
                }
            }
        }
    }

    fn open(&self, nonce: u64, memory: &mut [u8], size: usize, tags: &[RawTags]) {
        for (data, tags) in memory.chunks_exact_mut(size).zip(tags) {
            match self {
                Self::AwsLc(keys) => {
                    for (key, tag) in keys.iter().zip(tags).rev() {
                        key.open_in_place_separate_tag(aws_lc_nonce(nonce), aead::Aad::empty(), tag, data)
                            .expect("opens");
                    }
                }
                Self::AesGcm(key) => {
                    let (nonce, tag) = (nonce12(nonce).into(), &tags[0]);
                    key.decrypt_inout_detached(&nonce, &[], data.into(), tag.into()).expect("opens");
                }
            }
        }
    }
}

fn seal(permit: &Permit<'_>, object: ObjectId, memory: &mut [u8], size: usize, out: &mut Vec<Detached>) {
    out.clear();
    out.extend(
        blocks(object, memory, size).map(|(id, data)| permit.seal_detached(id, AAD, data).expect("seals")),
    );
}

fn open(permit: &Permit<'_>, object: ObjectId, memory: &mut [u8], size: usize, detached: &[Detached]) {
    for ((id, data), detached) in blocks(object, memory, size).zip(detached) {
        permit.open_detached(id, AAD, detached, data).expect("opens");
    }
}

fn blocks(object: ObjectId, memory: &mut [u8], size: usize) -> impl Iterator<Item = (BlockId, &mut [u8])> {
    (0..).map(move |index| BlockId::new(object, index)).zip(memory.chunks_exact_mut(size))
}

/// How many times as much two threads seal as one does: raw, ours.
fn two_thread_gains(bench: &Bench, size: usize) -> (f64, f64) {
    let raw = |memory: &mut [u8]| {
        let mut tags = vec![RawTags::default(); memory.len() / size];
        (0..PASSES).for_each(|nonce| bench.raw.seal(nonce, memory, size, &mut tags));
    };
    let ours = |memory: &mut [u8]| {
        let permit = bench.ours.account.permit().expect("a lease");
        let object = ObjectId::random();
        let mut detached = Vec::with_capacity(memory.len() / size);
        (0..PASSES).for_each(|_| seal(&permit, object, memory, size, &mut detached));
    };
    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..THREAD_ROUNDS {
        times[0].push(on_threads(1, &raw));
        times[1].push(on_threads(1, &ours));
        times[2].push(on_threads(2, &raw));
        times[3].push(on_threads(2, &ours));
    }
    // The fastest of each: what other processes take from one run they take from none of the best ones.
    let [raw_one, ours_one, raw_two, ours_two] =
        times.map(|times| times.into_iter().min().expect("several rounds").as_secs_f64());
    (2.0 * raw_one / raw_two, 2.0 * ours_one / ours_two)
}

/// How long `threads` threads take to do `work` each, at the same time: from the first one's start to the last one's end. Each by
/// itself may well be quick where one waited for the other.
fn on_threads(threads: usize, work: &(impl Fn(&mut [u8]) + Sync)) -> Duration {
    let barrier = Barrier::new(threads);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut memory = vec![0x5A; KIB * KIB];
                    work(&mut memory);
                    barrier.wait();
                    let start = Instant::now();
                    work(&mut memory);
                    (start, Instant::now())
                })
            })
            .collect();
        let times: Vec<_> = running.into_iter().map(|thread| thread.join().expect("works")).collect();
        let first = times.iter().map(|(start, _)| *start).min().expect("at least one thread");
        let last = times.iter().map(|(_, end)| *end).max().expect("at least one thread");
        last.duration_since(first)
    })
}

#[derive(Clone, Copy)]
enum Op {
    Seal,
    Open,
    SealBatch,
    OpenBatch,
}

impl Op {
    const fn is_batch(self) -> bool {
        matches!(self, Self::SealBatch | Self::OpenBatch)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Seal => "seal",
            Self::Open => "open",
            Self::SealBatch => "seal batch",
            Self::OpenBatch => "open batch",
        }
    }
}

struct Row {
    size: usize,
    op: Op,
    raw: f64,
    ours: f64,
}

impl Row {
    fn ratio(&self) -> f64 {
        self.raw / self.ours
    }

    fn overhead(&self) -> f64 {
        self.ours - self.raw
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, op, raw, ours } = self;
        let (ratio, overhead) = (self.ratio(), self.overhead());
        write!(f, "{size:>8}  {:<12} {raw:>10.0} {ours:>10.0} {ratio:>6.3} {overhead:>11.0}", op.name())
    }
}

fn at_least(number: &str, what: &str, value: f64, goal: f64) {
    let verdict = if value >= goal { "ok" } else { "short" };
    println!("{number}  {what:<36} {value:>7.3}  goal >= {goal:<6} {verdict}");
    hand_in(number, what, value, ">=", goal);
}

fn at_most(number: &str, what: &str, value: f64, goal: f64) {
    let verdict = if value <= goal { "ok" } else { "short" };
    println!("{number}  {what:<36} {value:>7.0}  goal <= {goal:<6} {verdict}");
    hand_in(number, what, value.round(), "<=", goal);
}

/// To `tests/evidence.sh`, when that is who runs us.
fn hand_in(number: &str, what: &str, value: f64, relation: &str, goal: f64) {
    if std::env::var_os("STRONGROOM_EVIDENCE").is_some() {
        evidence::timed(number, what, value, relation, goal);
    }
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn aws_lc_key(algorithm: &'static aead::Algorithm) -> aead::LessSafeKey {
    aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, &[7; 32]).expect("32 bytes"))
}

fn aes_gcm_key() -> Aes256Gcm {
    Aes256Gcm::new(&[7; 32].into())
}

fn aws_lc_nonce(nonce: u64) -> aead::Nonce {
    aead::Nonce::assume_unique_for_key(nonce12(nonce))
}

fn nonce12(nonce: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&nonce.to_be_bytes());
    bytes
}

const MAX_ROUNDS: usize = 4000;
const THREAD_ROUNDS: usize = 400;
const WARM_UP: usize = 5;
/// Passes over the memory in a measurement with threads, so that starting them does not count.
const PASSES: u64 = 4;
