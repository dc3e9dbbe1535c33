//! The story that every provider has to live through, in real time, at the shortest interval that is allowed.
//!
//! ```text
//! seal, revoke at the server, refused within J + c, stays refused, restore, back within r + 1 s     twice, six accounts
//! silence, grace within F, unusable by F + G and not before, back within r + c + 1 s                beside it
//! ```
//! It takes less than a minute, all of it waiting, and prints what was measured beside its bound.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use strongroom::provider::{Kek, KeyProvider};
use strongroom::{
    Aad, Account, AccountId, AccountSpec, AekCache, BlockId, Error, ErrorKind, FileRecordStore, ObjectId,
    OutageGrace, Refusal, Status, UnavailableCause,
};

use crate::wait::wait_until;

/// What is particular to a provider.
#[derive(Clone, Copy)]
pub struct Story<'a> {
    /// What the table calls it.
    pub name: &'a str,
    /// The connection, to the real server.
    pub provider: &'a Arc<dyn KeyProvider>,
    /// A key that is in order.
    pub kek: &'a Kek,
    /// Takes the key, or the right to it, away: at the server, by an administrator. Returns once the server has done so.
    pub revoke: &'a (dyn Fn() + Sync),
    /// Undoes that.
    pub restore: &'a (dyn Fn() + Sync),
    /// What an account then says.
    pub refusal: Refusal,
    /// Ways in which the server falls silent. None of them touches `provider`'s connection, `revoke` none of theirs.
    pub silences: &'a [Silence<'a>],
}

/// A way for a server to fall silent.
#[derive(Clone, Copy)]
pub struct Silence<'a> {
    /// What the table calls it.
    pub name: &'a str,
    /// A connection, for example through a proxy.
    pub provider: &'a Arc<dyn KeyProvider>,
    /// A key that is in order, and stays so.
    pub kek: &'a Kek,
    /// From now on the server does not answer.
    pub on: &'a (dyn Fn() + Sync),
    /// It answers again.
    pub off: &'a (dyn Fn() + Sync),
}

/// What was measured. Its `Display` is the table.
#[derive(Clone, Debug)]
pub struct Report {
    name: String,
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
struct Row {
    /// R8, how stale; R9, how long in silence; R10, how soon back.
    number: &'static str,
    what: String,
    measured: Vec<Duration>,
    bound: Duration,
}

impl Story<'_> {
    /// Runs it and prints the table.
    ///
    /// # Panics
    /// When anything does not hold.
    pub fn run(&self) -> Report {
        let folder = tempfile::tempdir().expect("a folder");
        let rows = thread::scope(|scope| {
            let silences: Vec<_> = self
                .silences
                .iter()
                .enumerate()
                .map(|(at, silence)| {
                    let folder = folder.path().join(format!("silence-{at}"));
                    scope.spawn(move || silence.run(&folder))
                })
                .collect();
            let mut rows = self.revocations(folder.path());
            for silence in silences {
                // Its own words were printed where it failed.
                rows.extend(silence.join().unwrap_or_else(|why| std::panic::resume_unwind(why)));
            }
            rows
        });
        let report = Report { name: self.name.to_owned(), rows };
        print!("{report}");
        report
    }

    fn revocations(&self, folder: &Path) -> Vec<Row> {
        // A cache each, so that no account learns anything from another, begun at different times of the interval.
        let subjects: Vec<Subject> = (0..ACCOUNTS)
            .map(|number| {
                thread::sleep(if number == 0 { Duration::ZERO } else { REFRESH / ACCOUNTS });
                let folder = folder.join(number.to_string());
                Subject::new(self.provider, self.kek, OutageGrace::DEFAULT, &folder)
            })
            .collect();
        let bound = subjects[0].cache.staleness_bound();
        assert_eq!(bound, INTERVAL + CALL_DEADLINE, "J + c");
        let (mut stale, mut recovered) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            thread::sleep(random(REFRESH / 2));
            let closing: Vec<Closing> = subjects.iter().map(Subject::begin).collect();
            (self.revoke)();
            let revoked = Instant::now();
            stale.extend(each(&closing, |closing| closing.closes(revoked, bound, self.refusal)));
            (self.restore)();
            let restored = Instant::now();
            recovered.extend(each(&closing, |closing| closing.reopens(restored)));
        }
        vec![
            Row::new("R8", "refused after the revocation", stale, bound),
            Row::new("R10", "reads resumed after access returned", recovered, RECOVERY),
        ]
    }
}

impl Silence<'_> {
    fn run(&self, folder: &Path) -> Vec<Row> {
        let subject = Subject::new(self.provider, self.kek, OutageGrace::For(GRACE), folder);
        let (fresh_for, usable_for) = (subject.cache.fresh_for(), subject.cache.usable_for());
        assert_eq!(usable_for, fresh_for + GRACE, "F + G");
        // Past the first refresh or before it: the lease has some age when silence begins.
        thread::sleep(random(REFRESH));
        (self.on)();
        let silent = Instant::now();
        let in_grace = || {
            subject.read().expect("silence alone ends no lease before its time");
            matches!(subject.account.status(), Status::Grace { .. })
        };
        wait_until(fresh_for + MEASURING, in_grace).expect("grace begins by F");
        let grace = silent.elapsed();

        let left = (usable_for + MEASURING).saturating_sub(grace);
        wait_until(left, || subject.read().is_err()).expect("no read is served beyond F + G");
        let usable = silent.elapsed();
        // The lease was at most J and a call old when silence began.
        let least = usable_for.saturating_sub(INTERVAL + CALL_DEADLINE + MEASURING);
        assert!(usable >= least, "grace was cut short: {usable:?}");

        let unavailable = || subject.account.status() == Status::Unavailable(UnavailableCause::Silent);
        wait_until(Duration::from_secs(1), unavailable).expect("silence is never called a refusal");
        assert_eq!(subject.read().expect_err("no lease").kind(), ErrorKind::Unavailable);

        (self.off)();
        let back = RECOVERY + CALL_DEADLINE;
        let recovered = wait_until(back, || subject.read().is_ok()).expect("reads come back in time");
        let what = |what: &str| format!("{what} ({})", self.name);
        vec![
            Row::new("R9", what("in grace after silence began"), vec![grace], fresh_for),
            Row::new("R9", what("unusable after silence began"), vec![usable], usable_for),
            Row::new("R10", what("reads resumed after silence ended"), vec![recovered], back),
        ]
    }
}

/// An account in a cache of its own, with a sealed block.
struct Subject {
    cache: AekCache,
    account: Account,
    id: BlockId,
    sealed: Vec<u8>,
}

impl Subject {
    fn new(provider: &Arc<dyn KeyProvider>, kek: &Kek, grace: OutageGrace, folder: &Path) -> Self {
        std::fs::create_dir_all(folder).expect("a folder");
        let builder = AekCache::builder().refresh_every(REFRESH).call_deadline(CALL_DEADLINE);
        let cache = builder.outage_grace(grace).build().expect("the settings are in range");
        let store = FileRecordStore::open(folder.join("records")).expect("opens");
        let spec = AccountSpec::new(AccountId::random(), Arc::clone(provider), kek.clone());
        let account = cache.create(spec.store(Arc::new(store))).expect("the KEK is fit");
        let id = BlockId::new(ObjectId::random(), 0);
        let sealed = account.seal(id, Aad::EMPTY, BLOCK).expect("a lease");
        Self { cache, account, id, sealed }
    }

    fn read(&self) -> Result<(), Error> {
        let plain = self.account.open(self.id, Aad::EMPTY, &self.sealed)?;
        assert_eq!(plain, BLOCK);
        Ok(())
    }

    /// Just before the revocation: everything works.
    fn begin(&self) -> Closing<'_> {
        self.read().expect("a lease");
        let cached = self.account.guard("plaintext").expect("a lease");
        let fence = self.account.fence().expect("a lease");
        Closing { subject: self, cached, fence }
    }
}

/// An account that is about to be closed, and what was taken from it before.
struct Closing<'a> {
    subject: &'a Subject,
    cached: strongroom::Guarded<&'static str>,
    fence: strongroom::Fence,
}

impl Closing<'_> {
    /// How long reads went on.
    fn closes(&self, revoked: Instant, bound: Duration, refusal: Refusal) -> Duration {
        let Self { subject, cached, fence } = self;
        let limit = (bound + MEASURING).saturating_sub(revoked.elapsed());
        wait_until(limit, || subject.read().is_err()).expect("no read is served beyond the bound");
        let stale = revoked.elapsed();

        // Closed stays closed, for every form of use.
        let closed = Instant::now();
        while closed.elapsed() < Duration::from_secs(2) {
            let error = subject.read().expect_err("nothing is read after the first refusal");
            assert!(matches!(error.kind(), ErrorKind::Revoked | ErrorKind::NotReady), "{error}");
            thread::sleep(Duration::from_millis(1));
        }
        let account = &subject.account;
        assert_eq!(account.status(), Status::Revoked(refusal), "{:?}", account.last_failure());
        let error = account.seal(subject.id, Aad::EMPTY, b"new").expect_err("a write is refused");
        assert_eq!((error.kind(), error.refusal()), (ErrorKind::Revoked, Some(refusal)));
        cached.get().expect_err("cached plaintext is unreadable");
        fence.check().expect_err("what was sealed before is not acknowledged");
        stale
    }

    /// How long reads took to come back.
    fn reopens(&self, restored: Instant) -> Duration {
        let limit = RECOVERY.saturating_sub(restored.elapsed());
        let account = &self.subject.account;
        wait_until(limit, || self.subject.read().is_ok()).unwrap_or_else(|| {
            panic!("reads come back in time: {:?}, {:?}", account.status(), account.last_failure())
        });
        let recovered = restored.elapsed();
        self.cached.get().expect_err("an old epoch's plaintext stays unreadable");
        recovered
    }
}

impl Report {
    /// The longest that was measured of what a number names, for example `R8`.
    #[must_use]
    pub fn most(&self, number: &str) -> Option<Duration> {
        self.rows.iter().filter(|row| row.number == number).flat_map(|row| row.measured.iter().copied()).max()
    }
}

impl Row {
    fn new(number: &'static str, what: impl Into<String>, measured: Vec<Duration>, bound: Duration) -> Self {
        Self { number, what: what.into(), measured, bound }
    }
}

impl fmt::Display for Report {
    /// Each line stands by itself, so that it can be picked from a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: Option<&Duration>| time.copied().unwrap_or_default().as_secs_f64();
        for Row { number, what, measured, bound } in &self.rows {
            let (least, most) = (seconds(measured.iter().min()), seconds(measured.iter().max()));
            let (count, bound, name) = (measured.len(), bound.as_secs_f64(), &self.name);
            writeln!(
                f,
                "measured | {name:<16} | {number:<3} | {what:<52} | {least:6.2} to {most:6.2} s of {count:>2} | bound {bound:5.2} s"
            )?;
        }
        Ok(())
    }
}

/// The same in a thread each: their measurements do not wait for each other.
fn each<S: Sync>(subjects: &[S], run: impl Fn(&S) -> Duration + Sync) -> Vec<Duration> {
    thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = subjects.iter().map(|subject| scope.spawn(move || run(subject))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|why| std::panic::resume_unwind(why))
        };
        threads.into_iter().map(join).collect()
    })
}

/// Somewhere below `most`: a revocation falls at any time of the interval.
fn random(most: Duration) -> Duration {
    most * u32::from(AccountId::random().as_bytes()[0]) / 256
}

/// r and c. The interval is the shortest that is allowed.
const REFRESH: Duration = Duration::from_secs(6);
const CALL_DEADLINE: Duration = Duration::from_secs(2);
/// J: the longest time between two refreshes.
const INTERVAL: Duration = Duration::from_millis(6600);
const GRACE: Duration = Duration::from_secs(10);
/// By when access that returned is noticed: the next probe, and a second for its answer.
const RECOVERY: Duration = Duration::from_secs(6 + 1);
/// What measuring adds: the poll's interval, and a busy machine.
const MEASURING: Duration = Duration::from_millis(100);
/// Access that is lost three times in ten minutes is asked for less often: that is another story.
const ROUNDS: u32 = 2;
const ACCOUNTS: u32 = 6;
const BLOCK: &[u8] = b"a block";

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::PathBuf;
    use std::sync::Mutex;

    use strongroom::provider::{
        Authority, ErrorClass, KekInfo, KeyOptions, LocalKms, ProviderError, WrapContext, WrapInput, Wrapped,
    };

    use super::*;

    /// A LocalKms, and the same in the customer's hands.
    struct World {
        folder: tempfile::TempDir,
        file: PathBuf,
        customer: LocalKms,
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("kms.json");
            let customer = LocalKms::create(&file).unwrap();
            customer.create_key("orders", KeyOptions::default()).unwrap();
            Self { folder, file, customer }
        }

        fn open(&self) -> LocalKms {
            LocalKms::open(&self.file).unwrap()
        }

        fn aside(&self) -> PathBuf {
            self.folder.path().join("aside")
        }
    }

    /// Tells with what message a story failed; `None` if it held.
    fn run(
        revoked: Arc<dyn KeyProvider>,
        silent: Option<Arc<dyn KeyProvider>>,
        worlds: &[World; 2],
    ) -> Option<String> {
        let kek = Kek::latest("orders");
        let revoke = || worlds[0].customer.disable_key("orders").unwrap();
        let restore = || worlds[0].customer.enable_key("orders").unwrap();
        let on = || std::fs::rename(&worlds[1].file, worlds[1].aside()).unwrap();
        let off = || std::fs::rename(worlds[1].aside(), &worlds[1].file).unwrap();
        let silences: Vec<_> = silent
            .iter()
            .map(|provider| Silence { name: "the file is gone", provider, kek: &kek, on: &on, off: &off })
            .collect();
        let story = Story {
            name: "LocalKms",
            provider: &revoked,
            kek: &kek,
            revoke: &revoke,
            restore: &restore,
            refusal: Refusal::KeyDisabled,
            silences: &silences,
        };
        let why = catch_unwind(AssertUnwindSafe(|| story.run())).err()?;
        let text = why.downcast_ref::<String>().cloned();
        Some(text.or_else(|| why.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default())
    }

    #[test]
    fn a_provider_in_order_lives_through_the_story() {
        let worlds = [World::new(), World::new()];
        let [revoked, silent] = [0, 1].map(|at| Arc::new(worlds[at].open()) as Arc<dyn KeyProvider>);
        assert_eq!(run(revoked, Some(silent), &worlds), None);
    }

    #[test]
    fn a_provider_that_remembers_what_it_unwrapped_fails_the_story() {
        let worlds = [World::new(), World::new()];
        let forgetful = Wrong { kms: worlds[0].open(), fault: Fault::Remembers(Mutex::default()) };
        let why = run(Arc::new(forgetful), None, &worlds).expect("fails");
        assert!(why.contains("no read is served beyond the bound"), "{why}");
    }

    #[test]
    fn a_provider_that_calls_silence_a_refusal_or_the_other_way_round_fails_the_story() {
        let worlds = [World::new(), World::new()];
        thread::scope(|scope| {
            scope.spawn(|| {
                let worlds = [World::new(), World::new()];
                let mild = Wrong { kms: worlds[0].open(), fault: Fault::CallsRefusalSilence };
                let why = run(Arc::new(mild), None, &worlds).expect("fails");
                assert!(why.contains("no read is served beyond the bound"), "{why}");
            });
            let good = Arc::new(worlds[0].open());
            let strict = Wrong { kms: worlds[1].open(), fault: Fault::CallsSilenceRefusal };
            let why = run(good, Some(Arc::new(strict)), &worlds).expect("fails");
            assert!(why.contains("silence alone ends no lease before its time"), "{why}");
        });
    }

    #[derive(Debug)]
    struct Wrong {
        kms: LocalKms,
        fault: Fault,
    }

    enum Fault {
        Remembers(Mutex<Vec<(Vec<u8>, Vec<u8>)>>),
        CallsRefusalSilence,
        CallsSilenceRefusal,
    }

    impl fmt::Debug for Fault {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Fault")
        }
    }

    impl KeyProvider for Wrong {
        fn wrap(
            &self,
            kek: &Kek,
            context: &WrapContext,
            secret: &WrapInput,
        ) -> Result<Wrapped, ProviderError> {
            self.kms.wrap(kek, context, secret)
        }

        fn unwrap(&self, wrapped: &Wrapped, context: &WrapContext) -> Result<WrapInput, ProviderError> {
            if let Fault::Remembers(known) = &self.fault
                && let Some((_, secret)) =
                    known.lock().unwrap().iter().find(|(key, _)| key == wrapped.bytes())
            {
                return WrapInput::from_slice(secret);
            }
            let result = self.kms.unwrap(wrapped, context);
            match (&self.fault, result) {
                (Fault::Remembers(known), Ok(secret)) => {
                    known.lock().unwrap().push((wrapped.bytes().to_vec(), secret.expose().to_vec()));
                    Ok(secret)
                }
                (Fault::CallsRefusalSilence, Err(_)) => Err(ProviderError::transient("busy")),
                (Fault::CallsSilenceRefusal, Err(error)) if error.class() == ErrorClass::Transient => {
                    Err(ProviderError::refused(Refusal::Unrecognised, "no"))
                }
                (_, result) => result,
            }
        }

        fn describe(&self, kek: &Kek) -> Result<KekInfo, ProviderError> {
            self.kms.describe(kek)
        }

        fn authority(&self) -> Authority {
            self.kms.authority()
        }
    }
}
