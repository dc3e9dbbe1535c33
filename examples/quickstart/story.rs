//! The story itself, step by step.

use std::error::Error;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use strongroom::provider::{Kek, KeyOptions, LocalKms, Verdict, preflight};
use strongroom::{
    Aad, Account, AccountId, AccountSpec, AekCache, BlockId, BlockSize, Context, ErrorKind, Events,
    FileRecordStore, Guarded, ObjectId, ObjectOptions, Retire, RotateTo, SealedObject, Status,
};
use zeroize::Zeroizing;

use crate::customer;
use crate::provider::FlakyKms;
use crate::show::{Show, secs};

type Step = Result<(), Box<dyn Error>>;

/// What the steps share.
struct Story {
    show: Show,
    kms: Arc<FlakyKms>,
    kms_file: PathBuf,
    cache: AekCache,
    account: Account,
    plain: Vec<u8>,
    sealed: PathBuf,
}

/// Tells the whole story about `file`. True when every step held.
pub(crate) fn tell(file: &str) -> Result<bool, Box<dyn Error>> {
    let plain = fs::read(file).map_err(|error| format!("cannot read {file}: {error}"))?;
    let folder = tempfile::tempdir()?;
    let mut story = begin(plain, folder.path().to_owned())?;
    story.seal_the_file(file)?;
    story.swap_two_blocks()?;
    story.read_a_range()?;
    story.silence()?;
    story.kms_is_back()?;
    story.revocation()?;
    story.recovery()?;
    story.rotation()?;
    story.compare_everything()?;
    story.cache.shutdown(CALL_DEADLINE);
    Ok(story.show.end())
}

/// The customer makes a KEK; an account is created under it.
fn begin(plain: Vec<u8>, folder: PathBuf) -> Result<Story, Box<dyn Error>> {
    let mut show = Show::begin();
    let kms_file = folder.join("kms.json");
    let customers_kms = LocalKms::create(&kms_file)?;
    customers_kms.create_key(customer::KEK, KeyOptions::default())?;
    let kms = Arc::new(FlakyKms::new(customers_kms));
    let kek = Kek::latest(customer::KEK);

    let begun = Instant::now();
    let verdict = preflight(kms.as_ref(), &kek).verdict();
    let took = begun.elapsed().as_secs_f64() * 1e3;
    show.step(verdict == Verdict::Ready, &format!("preflight of the KEK: {verdict} (in {took:.1} ms)"));

    let cache = AekCache::builder().refresh_every(REFRESH).call_deadline(CALL_DEADLINE).build()?;
    let store = FileRecordStore::open(folder.join("records"))?;
    let begun = Instant::now();
    let account =
        cache.create(AccountSpec::new(AccountId::random(), kms.clone(), kek).store(Arc::new(store)))?;
    let took = begun.elapsed().as_secs_f64() * 1e3;
    let (record, id) = (account.record(), account.id());
    let (kek, version) = (record.kek(), record.kek_version());
    show.step(
        matches!(account.status(), Status::Fresh { .. }),
        &format!("account {id} created under {kek}, version {version} (in {took:.1} ms)"),
    );
    Ok(Story { show, kms, kms_file, cache, account, plain, sealed: folder.join("sealed") })
}

impl Story {
    fn seal_the_file(&mut self, name: &str) -> Step {
        let block = if self.plain.len() < SMALL { BlockSize::new(4096)? } else { BlockSize::DEFAULT };
        let options = ObjectOptions::with_block_size(block);
        let begun = Instant::now();
        let sink = File::create(&self.sealed)?;
        let mut writer = SealedObject::writer_with(self.account.clone(), context(), sink, options)?;
        writer.write_all(&self.plain)?;
        let (_, len) = writer.finish()?;
        let took = begun.elapsed();
        let blocks = len.plain.div_ceil(block.bytes() as u64).max(1);
        let caveat = if self.plain.len() < SMALL { "; a file this small measures file handling" } else { "" };
        self.show.step(
            len.plain == self.plain.len() as u64 && len.stored == fs::metadata(&self.sealed)?.len(),
            &format!(
                "{name} sealed: {blocks} blocks of {} KiB, {} bytes before, {} after, {}{caveat}",
                block.bytes() / 1024,
                len.plain,
                len.stored,
                rate(len.plain, took),
            ),
        );
        let begun = Instant::now();
        let same = self.read_back()? == self.plain;
        let took = begun.elapsed();
        self.show.step(same, &format!("opened: identical, {}", rate(len.plain, took)));
        Ok(())
    }

    /// A block is bound to its place: whoever swaps two of them is found out.
    fn swap_two_blocks(&mut self) -> Step {
        let object = ObjectId::random();
        let block = &self.plain[..self.plain.len().min(4096)];
        let sealed = self.account.seal(BlockId::new(object, 7), AAD, block)?;
        let right = self.account.open(BlockId::new(object, 7), AAD, &sealed)? == block;
        let wrong = self.account.open(BlockId::new(object, 8), AAD, &sealed);
        let refused = matches!(&wrong, Err(error) if error.kind() == ErrorKind::Corrupt);
        let seen = outcome(wrong);
        self.show.step(right && refused, &format!("block 7 read as block 8: {seen}"));
        Ok(())
    }

    fn read_a_range(&mut self) -> Step {
        let reader = SealedObject::reader(self.account.clone(), context(), File::open(&self.sealed)?)?;
        let from = rand::random_range(0..=self.plain.len());
        let to = rand::random_range(from..=self.plain.len().min(from + 100_000));
        let mut range = vec![0; to - from];
        let begun = Instant::now();
        let read = reader.read_at(from as u64, &mut range)?;
        let took = begun.elapsed().as_secs_f64() * 1e6;
        self.show.step(
            read == range.len() && range == self.plain[from..to],
            &format!("random range, {read} bytes at {from}: identical (in {took:.0} us)"),
        );
        Ok(())
    }

    /// Silence is not a refusal: service goes on, visibly on borrowed time.
    fn silence(&mut self) -> Step {
        self.kms.set_silent(true);
        let begun = Instant::now();
        let state = self.state();
        self.show.step(self.read_one().is_ok(), &format!("KMS silent: reads go on; {state}"));

        let fresh_for = self.cache.fresh_for();
        let (mut reads, mut failed) = (0_u32, 0_u32);
        while !matches!(self.account.status(), Status::Grace { .. }) && begun.elapsed() < fresh_for + SLACK {
            reads += 1;
            failed += u32::from(self.read_one().is_err());
            thread::sleep(Duration::from_millis(10));
        }
        let took = secs(begun.elapsed());
        let in_grace = matches!(self.account.status(), Status::Grace { .. }) && self.read_one().is_ok();
        let (state, most) = (self.state(), self.cache.usable_for().as_secs() / 60);
        // The grace is earned again by each attempt that meets silence, up to its limit.
        self.show.step(
            in_grace && failed == 0,
            &format!(
                "still silent after {took}: {reads} reads, {failed} failed; {state}, \
                 longer with each silent answer, {most} min in all"
            ),
        );
        Ok(())
    }

    fn kms_is_back(&mut self) -> Step {
        self.kms.set_silent(false);
        let bound = recovery_bound();
        let fresh = || matches!(self.account.status(), Status::Fresh { .. });
        let took = wait_until(bound + SLACK, fresh);
        let held = took.is_some_and(|took| took <= bound) && self.read_one().is_ok();
        let (took, bound, state) = (shown(took), secs(bound), self.state());
        self.show.step(held, &format!("KMS back: renewed after {took} (bound {bound}); {state}"));
        Ok(())
    }

    /// The customer takes the key away.
    fn revocation(&mut self) -> Step {
        let cached = Arc::new(Cached::fill(&self.account, self.read_one()?)?);
        let readable_before = cached.is_readable();
        let purger = purge_when_told(self.cache.events(), cached.clone());
        self.search_memory_before()?;
        let needles = self.kms.seen.needles(self.account.id())?;

        customer::does("disable", &self.kms_file)?;
        let disabled = Instant::now();
        let bound = self.cache.staleness_bound();
        let took = wait_until(bound + SLACK, || self.read_one().is_err());
        let (shown_took, shown_bound) = (shown(took), secs(bound));
        self.show.step(
            took.is_some_and(|took| took <= bound + MEASURING),
            &format!(
                "KEK disabled by the customer: first refused read after {shown_took} (bound {shown_bound})"
            ),
        );

        // Reads are closed at once; the reason follows when the newest record has been compared.
        let revoked = || self.read_one().is_err_and(|error| error.kind() == ErrorKind::Revoked);
        let named = wait_until(CALL_DEADLINE, revoked).is_some();
        let seen = outcome(self.read_one());
        self.show.step(named, &format!("the reader sees: {seen}"));

        let written = self.account.seal(BlockId::new(ObjectId::random(), 0), AAD, b"new data");
        let refused = matches!(&written, Err(error) if error.kind() == ErrorKind::Revoked);
        let seen = outcome(written);
        self.show.step(refused, &format!("a write: {seen}"));

        let unreadable = !cached.is_readable();
        purger.join().map_err(|_| "the purging thread failed")?;
        let purged = cached.purged_at().map(|at| at.saturating_duration_since(disabled));
        let shown_purged = shown(purged);
        self.show.step(
            readable_before && unreadable && purged.is_some(),
            &format!("cached plaintext: unreadable, and wiped {shown_purged} after the KEK was disabled"),
        );
        self.search_memory_after(&needles)
    }

    /// Nobody restarts anything.
    fn recovery(&mut self) -> Step {
        customer::does("enable", &self.kms_file)?;
        let bound = recovery_bound();
        let took = wait_until(bound + SLACK, || self.read_one().is_ok());
        let held = took.is_some_and(|took| took <= bound);
        let (took, bound) = (shown(took), secs(bound));
        self.show
            .step(held, &format!("KEK enabled: reads resume in this process after {took} (bound {bound})"));
        Ok(())
    }

    /// A new KEK version wraps the same AEK: the data is not touched.
    fn rotation(&mut self) -> Step {
        let (data, modified) = (fs::read(&self.sealed)?, fs::metadata(&self.sealed)?.modified()?);
        let old = self.account.record().kek_version().clone();
        customer::does("rotate", &self.kms_file)?;
        let begun = Instant::now();
        let retire = self.account.rotate_kek(RotateTo::Latest)?;
        let took = begun.elapsed().as_secs_f64() * 1e3;
        let new = self.account.record().kek_version().clone();
        let rewritten = changed_bytes(&data, &fs::read(&self.sealed)?);
        let untouched = rewritten == 0 && fs::metadata(&self.sealed)?.modified()? == modified;
        self.show.step(
            untouched && new != old,
            &format!(
                "KEK rotated from version {old} to {new} (in {took:.1} ms): {rewritten} data bytes rewritten"
            ),
        );
        let wait = match retire {
            Retire::SafeAfter(at) => at.duration_since(SystemTime::now()).ok(),
            _ => None,
        };
        let shown_wait = shown(wait);
        self.show.step(wait.is_some(), &format!("the old version is safe to disable in {shown_wait}"));
        Ok(())
    }

    fn compare_everything(&mut self) -> Step {
        let same = self.read_back()? == self.plain;
        self.show.step(same, &format!("the whole file at the end: {} bytes, identical", self.plain.len()));
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn search_memory_before(&mut self) -> Step {
        let hits = crate::memory::search(&self.kms.seen.needles(self.account.id())?)?;
        // The positive control: a search that finds nothing now would prove nothing later.
        self.show.step(
            hits.hmac_states > 0,
            &format!(
                "in this process's memory under the lease: AEK {} times, the states derived from it {} times",
                hits.aek, hits.hmac_states
            ),
        );
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn search_memory_after(&mut self, needles: &[crate::memory::Needle; 3]) -> Step {
        let hits = crate::memory::search(needles)?;
        self.show.step(
            hits.aek == 0 && hits.hmac_states == 0,
            &format!(
                "in this process's memory after the revocation: AEK {} times, the states derived from it {} times",
                hits.aek, hits.hmac_states
            ),
        );
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    fn search_memory_before(&mut self) -> Step {
        self.show.skip("the search of memory for the key, before the revocation, runs on Linux only");
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    fn search_memory_after(&mut self, _: &[crate::memory::Needle; 3]) -> Step {
        self.show.skip("the search of memory for the key, after the revocation, runs on Linux only");
        Ok(())
    }

    /// Opens the object anew and reads its first bytes.
    fn read_one(&self) -> Result<Zeroizing<Vec<u8>>, strongroom::Error> {
        let file = File::open(&self.sealed).expect("the sealed file is there");
        let reader = SealedObject::reader(self.account.clone(), context(), file)?;
        let mut bytes = Zeroizing::new(vec![0; self.plain.len().min(100)]);
        reader.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    fn read_back(&self) -> Result<Vec<u8>, Box<dyn Error>> {
        let mut reader = SealedObject::reader(self.account.clone(), context(), File::open(&self.sealed)?)?;
        let mut plain = Vec::with_capacity(self.plain.len());
        reader.read_to_end(&mut plain)?;
        Ok(plain)
    }

    /// The account's state and what is left of its lease.
    fn state(&self) -> String {
        let left = self.account.valid_until().and_then(|end| end.duration_since(SystemTime::now()).ok());
        let name = match self.account.status() {
            Status::Fresh { .. } => "fresh",
            Status::Grace { .. } => "in grace",
            _ => "closed",
        };
        format!("{name}, {} left", shown(left))
    }
}

/// A page of plaintext, as a storage engine's cache holds it.
struct Cached {
    page: Mutex<Option<Guarded<Zeroizing<Vec<u8>>>>>,
    purged: Mutex<Option<Instant>>,
}

impl Cached {
    fn fill(account: &Account, plain: Zeroizing<Vec<u8>>) -> Result<Self, strongroom::Error> {
        Ok(Self { page: Mutex::new(Some(account.guard(plain)?)), purged: Mutex::new(None) })
    }

    fn is_readable(&self) -> bool {
        let page = self.page.lock().unwrap_or_else(PoisonError::into_inner);
        page.as_ref().is_some_and(|page| page.get().is_ok())
    }

    /// Dropping the page wipes it.
    fn purge(&self) {
        *self.page.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.purged.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn purged_at(&self) -> Option<Instant> {
        *self.purged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The library runs no code of its embedder's: the embedder listens, on a thread of its own.
fn purge_when_told(events: Events, cached: Arc<Cached>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for event in events {
            if !matches!(event.status, Status::Fresh { .. } | Status::Grace { .. }) {
                return cached.purge();
            }
        }
    })
}

/// Polls until `done`, and tells how long that took; `None` when it took longer than `limit`.
fn wait_until(limit: Duration, done: impl Fn() -> bool) -> Option<Duration> {
    let begun = Instant::now();
    while begun.elapsed() <= limit {
        if done() {
            return Some(begun.elapsed());
        }
        thread::sleep(Duration::from_millis(1));
    }
    None
}

/// A KMS that answers again is asked within r, and has answered within c.
fn recovery_bound() -> Duration {
    REFRESH + Duration::from_secs(1) + CALL_DEADLINE
}

/// What the object is; part of what its blocks are bound to.
fn context() -> Context {
    Context::new(&[b"quickstart", b"sealed"])
}

fn changed_bytes(before: &[u8], after: &[u8]) -> usize {
    let changed = before.iter().zip(after).filter(|(before, after)| before != after).count();
    changed + before.len().abs_diff(after.len())
}

fn outcome<T>(result: Result<T, strongroom::Error>) -> String {
    match result {
        Ok(_) => "succeeded".to_owned(),
        Err(error) => format!("refused: {error}"),
    }
}

fn shown(time: Option<Duration>) -> String {
    time.map_or_else(|| "(never)".to_owned(), secs)
}

#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
fn rate(bytes: u64, took: Duration) -> String {
    format!("{:.2} GB/s", bytes as f64 / took.as_secs_f64() / 1e9)
}

/// r: the shortest that is allowed.
const REFRESH: Duration = Duration::from_secs(6);
/// c: the shortest that is allowed.
const CALL_DEADLINE: Duration = Duration::from_secs(1);
/// How much longer than a bound a step waits before it gives up.
const SLACK: Duration = Duration::from_secs(5);
/// What a measurement may add to a bound: the poll's interval, and a busy machine.
const MEASURING: Duration = Duration::from_millis(100);
/// Below this a file is sealed in blocks of 4 KiB, so that it has some.
const SMALL: usize = 1 << 20;
const AAD: Aad<'static> = Aad::new(b"quickstart");
