//! How a cache is configured. Every default has its reason beside it. Imports: `cache`, `account::settings`,
//! `keeper`, `lease`, `clock`, `engine`, `secret`, `error`.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[cfg(feature = "metrics")]
use super::gauges;
use super::limits;
#[cfg(any(feature = "tracing", feature = "metrics"))]
use super::reports;
use super::{AekCache, Registry, Shared};
use crate::account::seats::Seats;
use crate::account::settings::{OutageGrace, RefreshWindow, Settings};
use crate::account::{Bell, Common};
use crate::clock::Clock;
#[cfg(any(test, feature = "testing"))]
use crate::clock::{ManualClock, SteppedWall};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::keeper::{Counters, Keeper, Message, Setup};
use crate::lease::Policy;
use crate::secret::MemoryLock;

/// Configures an [`AekCache`].
#[derive(Clone, Debug)]
#[must_use]
pub struct AekCacheBuilder {
    window: RefreshWindow,
    refresh: Duration,
    grace: OutageGrace,
    call_deadline: Duration,
    threads: usize,
    memory_lock: MemoryLock,
    engine: Engine,
    version_check: Duration,
    cap: Option<u32>,
    clock: Clock,
    #[cfg(any(feature = "tracing", feature = "metrics"))]
    name: std::borrow::Cow<'static, str>,
    #[cfg(feature = "metrics")]
    label_accounts: bool,
}

impl AekCacheBuilder {
    pub(super) const fn new() -> Self {
        Self {
            window: RefreshWindow::FULL,
            // Half a minute: a refusal bites within 35 s, at under 90,000 calls per account and month.
            refresh: Duration::from_secs(30),
            // The documented point at which the original service becomes unavailable.
            grace: OutageGrace::DEFAULT,
            // KMSs answer within 100 ms; a call ten times slower than their slowest percentile is lost.
            call_deadline: Duration::from_secs(2),
            // At 15 ms a call that is 2,000 calls a second: more than most KMSs allow.
            threads: 32,
            // Containers often allow 64 KiB of locked memory: 500 accounts. Say `Require` where it matters.
            memory_lock: MemoryLock::BestEffort,
            engine: Engine::Fastest,
            // New KEK versions are rare, and the old one stays valid meanwhile.
            version_check: Duration::from_secs(600),
            // What a KMS allows is between it and its customer; refreshes are spread over the window all the same.
            cap: None,
            clock: Clock::System,
            #[cfg(any(feature = "tracing", feature = "metrics"))]
            name: std::borrow::Cow::Borrowed(crate::telemetry::DEFAULT_CACHE),
            #[cfg(feature = "metrics")]
            label_accounts: false,
        }
    }

    /// The window that [`Self::refresh_every`] has to lie in. Default: 6 s to 60 s, the whole of it.
    pub const fn refresh_window(mut self, window: RefreshWindow) -> Self {
        self.window = window;
        self
    }

    /// r: how often the KMS is asked about each account. Default 30 s.
    pub const fn refresh_every(mut self, interval: Duration) -> Self {
        self.refresh = interval;
        self
    }

    /// For how long service goes on while the KMS is silent. Default 30 minutes. Each record can allow less.
    pub const fn outage_grace(mut self, grace: OutageGrace) -> Self {
        self.grace = grace;
        self
    }

    /// c: after how long a call to the KMS counts as unanswered, 1 to 5 s. Default 2 s.
    pub const fn call_deadline(mut self, deadline: Duration) -> Self {
        self.call_deadline = deadline;
        self
    }

    /// How many threads may call KMSs at once, those that hang in a call included. Default 32; at least 2, at
    /// most 1024. They start as they are needed; asynchronous clients hold none while they wait.
    ///
    /// Where many synchronous clients talk to a KMS each, this bounds how many of these may fall silent together without delaying
    /// others: about twice as many as there are threads where clients give up within 4 s, fewer than there are threads where they never do.
    /// Two and a half times as many as may fall silent together suffice in either case.
    pub const fn kms_threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Whether keys may live in memory that could not be locked. Default: they may.
    pub const fn memory_lock(mut self, lock: MemoryLock) -> Self {
        self.memory_lock = lock;
        self
    }

    /// Which implementation of AES-GCM does the work. Default: the fastest one compiled in.
    pub const fn engine(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }

    /// How often to look for a newer version of each KEK. Default 10 minutes, at least 1 minute.
    pub const fn version_check_every(mut self, interval: Duration) -> Self {
        self.version_check = interval;
        self
    }

    /// What metrics, spans and events call the cache (features `metrics` and `tracing`), 1 to 64 bytes. Default `default`: give
    /// each cache of a process a name of its own where there are several, or their gauges overwrite each other.
    #[cfg(any(feature = "tracing", feature = "metrics"))]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = std::borrow::Cow::Owned(name.into());
        self
    }

    /// Gauges for each account beside those for all (feature `metrics`). Off by default: each account is a time series more, and
    /// whoever reads metrics learns which customers there are. For the first
    /// [`MOST_ACCOUNTS`](crate::telemetry::MOST_ACCOUNTS) accounts at most.
    #[cfg(feature = "metrics")]
    pub const fn label_accounts(mut self) -> Self {
        self.label_accounts = true;
        self
    }

    /// The most calls to KMSs that begin in any one second, whatever they are for: refreshes, watching for new versions, and what
    /// somebody asks. 1 to 1,000,000. Default: no cap.
    ///
    /// Where calls are scarce, what somebody asks for goes first, but each call that it makes is followed by 19 refreshes if so many
    /// wait: no lease ends for it, and what finds no room in time is [`ErrorKind::Unavailable`]. Of the refreshes those of accounts
    /// that were used more recently go first. A cap that cannot serve the accounts attached would starve the others, so one account more is an
    /// error when it is attached or created: [`ErrorKind::Limit`]. They may be
    ///
    /// ```text
    /// 0.9 * cap / (1 / shortest refresh interval + 1 / version_check_every)    intervals in seconds
    /// ```
    ///
    /// where the shortest interval is 0.9 times [`Self::refresh_every`], at least 6 s: a cap of 1,000 serves 23,000 accounts at 30 s.
    /// An account under double encryption makes two calls at each refresh, and counts twice.
    /// An account that is dropped, as a [`Directory`](crate::Directory) does with idle ones, gives its place back.
    pub const fn kms_calls_per_second(mut self, most: u32) -> Self {
        self.cap = Some(most);
        self
    }

    /// Runs the cache without threads, on a test's clock: [`AekCache::drive`] and [`AekCache::run_for`] move it.
    #[cfg(any(test, feature = "testing"))]
    pub fn manual(mut self, clock: &ManualClock) -> Self {
        self.clock = Clock::Manual(clock.clone());
        self
    }

    /// Lets a test step the wall clock of a cache that runs on threads and in real time.
    #[cfg(any(test, feature = "testing"))]
    pub fn stepped_wall(mut self, wall: &SteppedWall) -> Self {
        self.clock = Clock::Stepped(wall.clone());
        self
    }

    /// Starts the cache.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] for a setting out of its range, before anything is started.
    /// [`ErrorKind::Limit`] when the operating system gives no thread.
    pub fn build(self) -> Result<AekCache, Error> {
        let misuse = |message| Err(Error::new(ErrorKind::Misuse, message));
        if !self.window.contains(self.refresh) {
            return misuse("`refresh_every` lies outside of the refresh window");
        }
        if !(MIN_CALL_DEADLINE..=MAX_CALL_DEADLINE).contains(&self.call_deadline) {
            return misuse("`call_deadline` lies within 1 s to 5 s");
        }
        if !(2..=MAX_THREADS).contains(&self.threads) {
            return misuse("`kms_threads` lies within 2 to 1024");
        }
        if self.version_check < MIN_VERSION_CHECK {
            return misuse("`version_check_every` is at least 1 minute");
        }
        #[cfg(any(feature = "tracing", feature = "metrics"))]
        if self.name.is_empty() || self.name.len() > MAX_NAME || self.name.chars().any(char::is_control) {
            return misuse("`name` has 1 to 64 bytes, and no control characters");
        }
        if self.cap.is_some_and(|cap| !(1..=MAX_CAP).contains(&cap)) {
            return misuse("`kms_calls_per_second` lies within 1 to 1,000,000");
        }
        let settings = Settings {
            policy: Policy::new(self.refresh, self.call_deadline, self.grace.most()),
            grace: self.grace,
            memory_lock: self.memory_lock,
            engine: self.engine,
            version_check: self.version_check,
        };
        let counters = Arc::new(Counters::default());
        let keeper = self.keeper(Arc::clone(&counters))?;
        let common = Arc::new(Common {
            settings,
            keeper: keeper.handle().clone(),
            bus: Arc::default(),
            limits_bell: Bell::default(),
            #[cfg(feature = "metrics")]
            departed: Arc::default(),
        });
        let cache = AekCache {
            shared: Arc::new(Shared {
                clock: self.clock,
                settings,
                keeper: Arc::new(keeper),
                common: Arc::clone(&common),
                bus: Arc::clone(&common.bus),
                counters,
                seats: Arc::new(Seats::new(self.cap, &settings.policy, settings.version_check)),
                accounts: Arc::new(Mutex::new(Registry::default())),
                next_key: AtomicU64::new(0),
                #[cfg(any(feature = "tracing", feature = "metrics"))]
                name: self.name.into_owned(),
                #[cfg(feature = "metrics")]
                departed: Arc::clone(&common.departed),
            }),
        };
        let shared = &cache.shared;
        let limits = limits::chore(common.limits_bell.clone(), Arc::clone(&shared.accounts));
        shared.keeper.handle().send(Message::Chore(limits));
        #[cfg(any(feature = "tracing", feature = "metrics"))]
        cache.tell_operators(
            #[cfg(feature = "metrics")]
            self.label_accounts,
        );
        Ok(cache)
    }

    fn keeper(&self, counters: Arc<Counters>) -> Result<Keeper, Error> {
        let setup = Setup {
            call_deadline: self.call_deadline,
            threads: self.threads,
            cap: self.cap,
            version_check: self.version_check,
            counters,
        };
        match &self.clock {
            Clock::System => Keeper::start(Clock::System, setup),
            #[cfg(any(test, feature = "testing"))]
            Clock::Manual(clock) => Ok(Keeper::manual(clock, setup)),
            #[cfg(any(test, feature = "testing"))]
            Clock::Stepped(wall) => Keeper::start(Clock::Stepped(wall.clone()), setup),
        }
    }
}

#[cfg(any(feature = "tracing", feature = "metrics"))]
impl AekCache {
    /// Has the event loop tell of the cache's accounts.
    fn tell_operators(&self, #[cfg(feature = "metrics")] label_accounts: bool) {
        let shared = &self.shared;
        let handle = shared.keeper.handle();
        handle.send(Message::Chore(reports::chore(shared.name.clone(), shared.bus.subscribe())));
        #[cfg(feature = "metrics")]
        handle.send(Message::Chore(gauges::chore(gauges::Subject {
            cache: shared.name.clone(),
            registry: Arc::clone(&shared.accounts),
            counters: Arc::clone(&shared.counters),
            seats: Arc::clone(&shared.seats),
            departed: Arc::clone(&shared.departed),
            bounds: [
                ("staleness", self.staleness_bound()),
                ("fresh", self.fresh_for()),
                ("usable", self.usable_for()),
            ],
            label_accounts,
        })));
    }
}

/// It is a label's value.
#[cfg(any(feature = "tracing", feature = "metrics"))]
const MAX_NAME: usize = 64;
const MIN_CALL_DEADLINE: Duration = Duration::from_secs(1);
const MAX_CALL_DEADLINE: Duration = Duration::from_secs(5);
const MAX_THREADS: usize = 1024;
const MAX_CAP: u32 = 1_000_000;
const MIN_VERSION_CHECK: Duration = Duration::from_secs(60);
