//! The story in real time, against LocalKms at r = 6 s: what the library publishes as bounds is measured.
//!
//! Takes about 35 s, all of it waiting. `-- --nocapture` shows each measurement beside its bound.
#![cfg(unix)]
#![expect(clippy::disallowed_methods, reason = "the ban is for the library; this test measures and waits")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use strongroom::provider::{Kek, KeyOptions, KeyProvider, LocalKms};
use strongroom::{
    Aad, Account, AccountId, AccountSpec, AekCache, BlockId, Error, ErrorKind, Expect, FileRecordStore,
    Loaded, MemoryRecordStore, ObjectId, OutageGrace, RecordStore, RecordTag, Refusal, Sequence, Status,
    UnavailableCause,
};

/// r and c, the shortest that are allowed.
const REFRESH: Duration = Duration::from_secs(6);
const CALL_DEADLINE: Duration = Duration::from_secs(1);
/// J: the longest time between two refreshes.
const INTERVAL: Duration = Duration::from_millis(6600);
const GRACE: Duration = Duration::from_secs(10);
/// By when a KMS that answers again is noticed: the next probe, which may itself take c.
const RECOVERY: Duration = Duration::from_secs(6 + 1 + 1);
/// What measuring adds: the poll's interval, and a busy machine.
const MEASURING: Duration = Duration::from_millis(100);

#[test]
fn d10_a_disabled_kek_ends_reads_within_the_bound_and_an_enabled_one_resumes_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = cache(OutageGrace::DEFAULT);
    assert_eq!(cache.staleness_bound(), INTERVAL + CALL_DEADLINE);
    // A KMS each, so that no account learns from another's refusal; the keys go at different times of the interval.
    let run = |number: u32| {
        let subject = Subject::new(&cache, &folder.path().join(number.to_string()));
        thread::sleep(REFRESH / 6 * number);
        revoke_and_restore(&cache, &subject)
    };
    let took: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|number| scope.spawn(move || run(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("the story holds")).collect()
    });
    for (stale, recovered) in took {
        println!("refused after {stale:?} (bound {:?})", cache.staleness_bound());
        println!("resumed after {recovered:?} (bound {RECOVERY:?})");
    }
}

/// How long reads went on, and how long they took to come back.
fn revoke_and_restore(cache: &AekCache, subject: &Subject) -> (Duration, Duration) {
    let account = &subject.account;
    let cached = account.guard("plaintext").expect("a lease");
    let fence = account.fence().expect("a lease");

    // Another handle: it shares nothing with the one in use but the file.
    let customer = LocalKms::open(&subject.kms_file).expect("opens");
    customer.disable_key("orders").expect("disables");
    let disabled = Instant::now();
    let stale = wait_until(cache.staleness_bound() + MEASURING, || subject.read().is_err());
    let stale = stale.expect("no read is served beyond the bound");

    // Closed stays closed, for every form of use.
    let closed = Instant::now();
    while closed.elapsed() < Duration::from_secs(2) {
        let error = subject.read().expect_err("nothing is read after the first refusal");
        assert!(matches!(error.kind(), ErrorKind::Revoked | ErrorKind::NotReady), "{error}");
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(account.status(), Status::Revoked(Refusal::KeyDisabled));
    let error = account.seal(subject.id, Aad::EMPTY, b"new").expect_err("a write is refused");
    assert_eq!((error.kind(), error.refusal()), (ErrorKind::Revoked, Some(Refusal::KeyDisabled)));
    cached.get().expect_err("cached plaintext is unreadable");
    fence.check().expect_err("what was sealed before is not acknowledged");
    assert!(disabled.elapsed() >= stale);

    customer.enable_key("orders").expect("enables");
    let recovered = wait_until(RECOVERY, || subject.read().is_ok()).expect("reads come back in time");
    cached.get().expect_err("an old epoch's plaintext stays unreadable");
    (stale, recovered)
}

#[test]
fn c5_silence_is_survived_for_the_grace_and_not_longer() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = cache(OutageGrace::For(GRACE));
    assert_eq!(cache.usable_for(), cache.fresh_for() + GRACE);
    let subject = Subject::new(&cache, folder.path());
    // Past the first refresh, so that the lease has some age when silence begins.
    thread::sleep(Duration::from_secs(3));

    // A file that is not there is a KMS that does not answer.
    let aside = folder.path().join("aside");
    std::fs::rename(&subject.kms_file, &aside).expect("moves");
    let silent = Instant::now();
    let in_grace = || {
        subject.read().expect("silence alone ends no lease before its time");
        matches!(subject.account.status(), Status::Grace { .. })
    };
    let fresh = wait_until(cache.fresh_for() + MEASURING, in_grace).expect("grace begins by F");
    println!("in grace after {fresh:?} (bound {:?})", cache.fresh_for());

    let left = (cache.usable_for() + MEASURING).saturating_sub(silent.elapsed());
    wait_until(left, || subject.read().is_err()).expect("no read is served beyond F + G");
    let usable = silent.elapsed();
    println!("unusable after {usable:?} (bound {:?})", cache.usable_for());
    // The lease was at most J old when silence began.
    assert!(usable + MEASURING >= cache.usable_for() - INTERVAL, "grace was cut short: {usable:?}");
    assert!(usable >= fresh + GRACE.saturating_sub(MEASURING), "grace was cut short: {usable:?}");

    let unavailable = || subject.account.status() == Status::Unavailable(UnavailableCause::Silent);
    wait_until(Duration::from_secs(1), unavailable).expect("silence is never called a refusal");
    assert_eq!(subject.read().expect_err("no lease").kind(), ErrorKind::Unavailable);

    std::fs::rename(&aside, &subject.kms_file).expect("moves back");
    let recovered = wait_until(RECOVERY, || subject.read().is_ok()).expect("reads come back in time");
    println!("resumed after {recovered:?} (bound {RECOVERY:?})");
}

/// What hangs here is a thread, so virtual time cannot show it.
#[test]
fn a7_a_load_of_the_record_that_hangs_does_not_bring_the_second_in() {
    let two = TwoKms::new();
    let block = BlockId::new(ObjectId::random(), 0);
    let sealed = {
        let account = cache(OutageGrace::DEFAULT).create(two.spec()).expect("the KEKs are fit");
        account.seal(block, Aad::EMPTY, b"a block").expect("a lease")
    };
    // Nobody has heard of it, so the record does not say it.
    two.first.disable_key("orders").expect("disables");

    let cache = cache(OutageGrace::DEFAULT);
    let expect = Expect::account(two.id).kek(two.first.clone(), "orders");
    let expect = expect.failover_kek(two.second.clone(), "orders");
    // The first is made by whoever attaches.
    two.store.loads.hang_at(2);
    let account = cache.attach_stored(two.store.clone(), expect).expect("attaches");
    let revoked = wait_until(RECOVERY, || {
        let opened = account.open(block, Aad::EMPTY, &sealed);
        assert!(opened.is_err(), "served by the second one, though the first was never asked");
        account.status() == Status::Revoked(Refusal::KeyDisabled)
    });
    println!("refused after {:?} (bound {RECOVERY:?})", revoked.expect("the next attempt asks the first"));
    assert!(two.store.loads.has_hung(), "a load has hung");
}

#[test]
fn a7_a_record_store_that_hangs_once_the_first_has_unwrapped_does_not_bring_the_second_in() {
    let two = TwoKms::new();
    let account = cache(OutageGrace::DEFAULT).create(two.spec()).expect("the KEKs are fit");
    // So that the account tells whether it is asked.
    two.second.disable_key("orders").expect("disables");
    two.store.authenticated.hang_at(1);
    let bound = INTERVAL + HANGS + MEASURING;
    let hung = wait_until(bound, || {
        let status = account.status();
        assert!(
            !matches!(status, Status::Revoked(_)),
            "the second one was asked, though the first had unwrapped"
        );
        two.store.authenticated.has_hung()
    });
    println!("hung until {:?} (bound {bound:?})", hung.expect("the next refresh tells the store of it"));
    wait_until(RECOVERY, || matches!(account.status(), Status::Fresh { .. }))
        .expect("the attempt after it succeeds");
}

/// What a failover custody needs: two KMSs, and records in a store that hangs when it is told to.
struct TwoKms {
    _folder: tempfile::TempDir,
    first: Arc<LocalKms>,
    second: Arc<LocalKms>,
    store: Arc<HangsOnce>,
    id: AccountId,
}

impl TwoKms {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let kms = |name: &str| {
            let kms = LocalKms::create(folder.path().join(name)).expect("creates");
            kms.create_key("orders", KeyOptions::default()).expect("creates");
            Arc::new(kms)
        };
        let (first, second) = (kms("first"), kms("second"));
        Self { _folder: folder, first, second, store: Arc::default(), id: AccountId::random() }
    }

    fn spec(&self) -> AccountSpec {
        AccountSpec::new(self.id, self.first.clone(), Kek::latest("orders"))
            .failover(self.second.clone(), Kek::latest("orders"), Duration::from_secs(3600))
            .store(self.store.clone())
    }
}

/// Records in memory, of which one call hangs for longer than a call may take.
#[derive(Debug, Default)]
struct HangsOnce {
    records: MemoryRecordStore,
    loads: Hang,
    authenticated: Hang,
}

#[derive(Debug, Default)]
struct Hang {
    /// At the so manieth call from now; 0 is at none.
    left: AtomicUsize,
    hung: AtomicBool,
}

const HANGS: Duration = Duration::from_secs(4);

impl Hang {
    fn hang_at(&self, call: usize) {
        self.left.store(call, Ordering::SeqCst);
    }

    fn has_hung(&self) -> bool {
        self.hung.load(Ordering::SeqCst)
    }

    fn called(&self) {
        let less = |left: usize| left.checked_sub(1);
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) == Ok(1) {
            thread::sleep(HANGS);
            self.hung.store(true, Ordering::SeqCst);
        }
    }
}

impl RecordStore for HangsOnce {
    fn load(&self, account: AccountId, known: Option<&RecordTag>) -> Result<Loaded, Error> {
        self.loads.called();
        self.records.load(account, known)
    }

    fn compare_and_swap(
        &self,
        account: AccountId,
        expected: Option<&RecordTag>,
        bytes: &[u8],
    ) -> Result<RecordTag, Error> {
        self.records.compare_and_swap(account, expected, bytes)
    }

    fn authenticated(&self, account: AccountId, sequence: Sequence) -> Result<(), Error> {
        self.authenticated.called();
        self.records.authenticated(account, sequence)
    }
}

#[cfg(feature = "testing")]
#[test]
fn h5_a_drill_in_real_time_passes_an_engine_that_does_it_right() {
    use std::collections::HashMap;
    use std::error::Error;
    use strongroom::testing::{DrillEngine, RevocationDrill};

    struct Rows {
        account: Account,
        rows: HashMap<String, (BlockId, Vec<u8>)>,
    }

    impl DrillEngine for Rows {
        fn write(
            &mut self,
            key: &str,
            value: &[u8],
            stored: &mut dyn FnMut(),
        ) -> Result<(), Box<dyn Error + Send + Sync>> {
            let fence = self.account.fence()?;
            let id = BlockId::new(ObjectId::random(), 0);
            self.rows.insert(key.to_owned(), (id, self.account.seal(id, Aad::EMPTY, value)?));
            stored();
            Ok(fence.check()?)
        }

        fn read(&mut self, key: &str) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
            let (id, sealed) = self.rows.get(key).ok_or("no such row")?;
            Ok(self.account.open(*id, Aad::EMPTY, sealed)?)
        }
    }

    let start = |account: &Account| Ok(Rows { account: account.clone(), rows: HashMap::new() });
    let drill = RevocationDrill::in_real_time().outage_grace(Duration::from_secs(1));
    let report = drill.run(start).unwrap_or_else(|failure| panic!("{failure}"));
    print!("{report}");
}

/// An account under a KMS of its own, with a sealed block.
struct Subject {
    account: Account,
    kms_file: PathBuf,
    id: BlockId,
    sealed: Vec<u8>,
}

impl Subject {
    fn new(cache: &AekCache, folder: &Path) -> Self {
        std::fs::create_dir_all(folder).expect("a folder");
        let kms_file = folder.join("kms.json");
        let kms = LocalKms::create(&kms_file).expect("creates");
        kms.create_key("orders", KeyOptions::default()).expect("creates");
        let kms: Arc<dyn KeyProvider> = Arc::new(kms);
        let store = FileRecordStore::open(folder.join("records")).expect("opens");
        let spec = AccountSpec::new(AccountId::random(), kms, Kek::latest("orders")).store(Arc::new(store));
        let account = cache.create(spec).expect("the KEK is fit");
        let id = BlockId::new(ObjectId::random(), 0);
        let sealed = account.seal(id, Aad::EMPTY, b"a block").expect("a lease");
        Self { account, kms_file, id, sealed }
    }

    fn read(&self) -> Result<(), Error> {
        let plain = self.account.open(self.id, Aad::EMPTY, &self.sealed)?;
        assert_eq!(plain, b"a block");
        Ok(())
    }
}

fn cache(grace: OutageGrace) -> AekCache {
    let builder = AekCache::builder().refresh_every(REFRESH).call_deadline(CALL_DEADLINE);
    builder.outage_grace(grace).build().expect("the settings are in range")
}

/// Polls until `done`, and tells how long that took; `None` when `limit` passed first.
fn wait_until(limit: Duration, done: impl Fn() -> bool) -> Option<Duration> {
    let begun = Instant::now();
    loop {
        let elapsed = begun.elapsed();
        if done() {
            return (elapsed <= limit).then_some(elapsed);
        }
        if elapsed > limit {
            return None;
        }
        thread::sleep(Duration::from_millis(1));
    }
}
