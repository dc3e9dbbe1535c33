//! The AEK cache: where accounts are created and attached, and what keeps them.
//!
//! Imports: `cache::{builder, create, directory, mirror, restore, rewrap, shred, verify}`, `account`, `keeper`, `format`, `lease`, `expect`, `record_store`, `clock`, `id`,
//! `error`.

mod builder;
mod bulk;
mod bulk_delete;
mod create;
mod directory;
#[cfg(feature = "metrics")]
mod gauges;
mod left;
mod limits;
mod mirror;
mod records;
#[cfg(any(feature = "tracing", feature = "metrics"))]
mod reports;
mod restore;
mod rewrap;
mod shred;
mod verify;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::account::events::{Bus, Events};
use crate::account::seats::Seats;
use crate::account::settings::Settings;
use crate::account::{Account, AccountInner, AccountKey, Common, Known, Legacy, Parts};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::expect::Expect;
use crate::format::record::AccountRecord;
use crate::format::tombstone::{Tombstone, purged};
use crate::id::AccountId;
use crate::keeper::{Counters, Keeper, Message};
use crate::random;
use crate::record_store::{Loaded, RecordStore};

pub use builder::AekCacheBuilder;
pub use bulk_delete::DeleteReport;
pub use create::AccountSpec;
pub use directory::{Directory, DirectoryBuilder};
pub use mirror::MirrorReport;
pub use restore::{RestoreSpec, Restored};
pub use rewrap::{PurgeReport, RewrapReport};
pub use shred::DestroyForGood;
pub use verify::report::{KekNeed, Retirement, VerifyReport};
pub use verify::{CheckedRecord, RecordCheck, VerifyAll, WhichRecord};

/// Holds the AEKs of accounts in memory, each for as long as its customer's KMS agrees.
///
/// One per process is the usual number; clones are the same cache. It has one thread of its own, and a bounded
/// pool for calls to the KMSs. Accounts keep it alive; [`Self::shutdown`] ends it for them too.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use strongroom::provider::{Kek, KeyOptions, KeyProvider, LocalKms};
/// use strongroom::{AccountId, AccountRecord, AccountSpec, AekCache, Expect, OutageGrace};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("kms.json");
/// # LocalKms::create(&path)?.create_key("orders", KeyOptions::default())?;
///
/// let kms: Arc<dyn KeyProvider> = Arc::new(LocalKms::open(&path)?);
/// let cache = AekCache::builder()
///     .refresh_every(Duration::from_secs(30))
///     .outage_grace(OutageGrace::For(Duration::from_secs(30 * 60)))
///     .build()?;
///
/// // Once: create the account, and persist its record.
/// let id = AccountId::random();
/// let account = cache.create(AccountSpec::new(id, Arc::clone(&kms), Kek::latest("orders")))?;
/// let record = account.record().to_bytes();
/// drop(account);
///
/// // At every start: attach it. No call to the KMS; it becomes ready by itself.
/// let record = AccountRecord::parse(&record)?;
/// let account = cache.attach(record, Expect::account(id).kek(kms, "orders"))?;
/// account.wait_ready(Duration::from_secs(10))?;
///
/// assert_eq!(cache.staleness_bound(), Duration::from_secs(35)); // J + c = 33 s + 2 s
/// assert!(cache.shutdown(Duration::from_secs(5)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct AekCache {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Clock,
    settings: Settings,
    keeper: Arc<Keeper>,
    bus: Arc<Bus>,
    /// What each account has of these.
    common: Arc<Common>,
    counters: Arc<Counters>,
    seats: Arc<Seats>,
    accounts: Arc<Mutex<Registry>>,
    next_key: AtomicU64,
    /// What operators see the cache called.
    #[cfg(any(feature = "tracing", feature = "metrics"))]
    name: String,
    #[cfg(feature = "metrics")]
    departed: Arc<crate::account::tally::Tally>,
}

#[derive(Default)]
struct Registry {
    by_id: HashMap<AccountId, Weak<AccountInner>>,
    closed: bool,
}

/// What has happened in a cache so far, and what it holds now. All counts start at zero with the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Accounts attached now.
    pub accounts: usize,
    /// Refreshes begun.
    pub refreshes: u64,
    /// Refreshes that renewed a lease, or could have.
    pub verified: u64,
    /// Refreshes that met silence before their deadline.
    pub transient: u64,
    /// Refreshes that were refused.
    pub refused: u64,
    /// Refreshes with an answer that cannot be right. Each is worth an alarm.
    pub integrity: u64,
    /// Calls given up at their deadline.
    pub late: u64,
    /// Workers that hang in such a call now.
    pub hanging_workers: u64,
    /// Authorities that do not answer, or have not yet, whose next probe is due and waits for a worker now: others that are silent hold
    /// as many as they may. While there are any, accounts behind them recover later than one refresh interval after
    /// access returns, and more [`AekCacheBuilder::kms_threads`] would help.
    pub probes_waiting: u64,
    /// Calls to KMSs begun for refreshes: one for each refresh, and one more where a record changed while its
    /// KMS refused.
    pub refresh_calls: u64,
    /// Calls to KMSs begun for what somebody asked: creating accounts, preflights, rotations, verifying records.
    pub control_calls: u64,
    /// Calls to KMSs begun by the watch for newer versions of KEKs.
    pub version_check_calls: u64,
    /// Refreshes that were due and had to wait for the cap on calls ([`AekCacheBuilder::kms_calls_per_second`]).
    pub deferred: u64,
    /// Accounts that a [`Directory`] has dropped because nobody used them.
    pub idle_dropped: u64,
    /// How many accounts the cap on calls can serve, one under double encryption counting twice; `None` without one.
    pub most_accounts: Option<u64>,
}

impl CacheStats {
    /// All calls to KMSs begun: what customers are billed for.
    #[must_use]
    pub const fn kms_calls(&self) -> u64 {
        self.refresh_calls + self.control_calls + self.version_check_calls
    }

    /// What the calls of this cache cost in a month of 30 days, at `price` for 10,000 calls, if they go on as they did in `elapsed`,
    /// the time between `earlier` and these statistics. In the unit of `price`; zero where no time has passed.
    ///
    /// Price lists name 10,000 calls (AWS KMS, Google Cloud KMS, Azure Key Vault). Measured, not estimated: it counts what was
    /// begun, retries included.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use strongroom::AekCache;
    /// # let cache = AekCache::builder().build()?;
    /// let before = cache.stats();
    /// // ... an hour later:
    /// let price_per_10_000 = 0.03;
    /// let per_month = cache.stats().cost_per_month(&before, Duration::from_secs(3600), price_per_10_000);
    /// assert_eq!(per_month, 0.0);
    /// # Ok::<(), strongroom::Error>(())
    /// ```
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a price needs no more digits")]
    pub fn cost_per_month(&self, earlier: &Self, elapsed: Duration, price: f64) -> f64 {
        if elapsed.is_zero() {
            return 0.0;
        }
        let calls = self.kms_calls().saturating_sub(earlier.kms_calls()) as f64;
        calls * (MONTH.as_secs_f64() / elapsed.as_secs_f64()) / 10_000.0 * price
    }
}

impl AekCache {
    /// A cache to be configured. Every setting has a default.
    pub fn builder() -> AekCacheBuilder {
        AekCacheBuilder::new()
    }

    /// Brings an account into use, by a record that the caller keeps. Makes no call to the KMS, and works while it is
    /// silent (contract C9): the account becomes ready by itself; [`Account::ready`] waits for it.
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] when the record is not what `expect` says, before anything of it is used.
    /// [`ErrorKind::Misuse`] when the account is attached already, or the provider cannot prove a record without a pin
    /// (see [`Expect`]). [`ErrorKind::Unavailable`] after a shutdown.
    pub fn attach(&self, record: AccountRecord, expect: Expect) -> Result<Account, Error> {
        let known = Known { record: Arc::new(record), tag: None, verified: None };
        self.admit(known, expect, None, None).inspect_err(|error| self.tell_of_attach_failure(error))
    }

    /// Brings an account into use, by the record in `store`. The store is read here, on the caller's thread; the KMS
    /// is not called. Every refresh reads the store again, so that a change by one machine reaches the others.
    ///
    /// # Errors
    /// As [`Self::attach`], and [`ErrorKind::Io`] when the store fails, [`ErrorKind::Untrusted`] when it has no such record,
    /// [`ErrorKind::Deleted`] when the account was purged, [`ErrorKind::Format`] when that is not a record.
    pub fn attach_stored(&self, store: Arc<dyn RecordStore>, expect: Expect) -> Result<Account, Error> {
        let id = expect.expected_account();
        let attach =
            || self.admit(first_known(id, store.load(id, None)?)?, expect, Some(store.clone()), None);
        attach().inspect_err(|error| self.tell_of_attach_failure(error))
    }

    /// Every transition of every account from now on (contract D6).
    #[must_use]
    pub fn events(&self) -> Events {
        self.shared.bus.subscribe()
    }

    /// What has happened so far.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let accounts = self.shared.registry().by_id.values().filter(|account| is_attached(account)).count();
        CacheStats {
            accounts,
            refreshes: read(&counters.refreshes),
            verified: read(&counters.verified),
            transient: read(&counters.transient),
            refused: read(&counters.refused),
            integrity: read(&counters.integrity),
            late: read(&counters.late),
            hanging_workers: read(&counters.hanging),
            probes_waiting: read(&counters.probes_waiting),
            refresh_calls: read(&counters.refresh_calls),
            control_calls: read(&counters.control_calls),
            version_check_calls: read(&counters.version_check_calls),
            deferred: read(&counters.deferred),
            idle_dropped: read(&counters.idle_dropped),
            most_accounts: self.shared.seats.most(),
        }
    }

    /// The longest time between a refusal at the KMS and the first refused read: J + c while the KMS answers on schedule,
    /// without the KMS's own propagation (contract D10).
    #[must_use]
    pub fn staleness_bound(&self) -> Duration {
        self.shared.settings.policy.longest_interval() + self.shared.settings.policy.call_deadline()
    }

    /// F: the longest that a lease lives without grace, whatever happens.
    #[must_use]
    pub fn fresh_for(&self) -> Duration {
        self.shared.settings.policy.fresh_for()
    }

    /// F + G: the longest that any lease of this cache lives while the KMS is silent. A record can shorten it.
    #[must_use]
    pub fn usable_for(&self) -> Duration {
        self.shared.settings.policy.usable_for()
    }

    /// Closes every account, wipes their keys, ends the threads. Waits for calls under way at most `deadline`; true
    /// when no worker was left behind in a call that hangs.
    pub fn shutdown(&self, deadline: Duration) -> bool {
        let accounts: Vec<_> = {
            let mut registry = self.shared.registry();
            registry.closed = true;
            registry.by_id.values().filter_map(Weak::upgrade).collect()
        };
        accounts.into_iter().for_each(|account| account.retire());
        let all_gone = self.shared.keeper.shutdown(deadline);
        // Not before: what they have counted is told when the keeper ends.
        self.shared.registry().by_id.clear();
        self.shared.bus.close();
        all_gone
    }

    /// To be called first in a forked child: it has the keys and none of the threads. Closes every account of
    /// this copy for good; build a new cache in the child.
    ///
    /// Must not race with other threads of the parent that use the cache's control calls at the time of the fork.
    pub fn after_fork(&self) {
        let accounts = std::mem::take(&mut self.shared.registry().by_id);
        for account in accounts.into_values().filter_map(|account| account.upgrade()) {
            account.retire();
        }
        self.shared.registry().closed = true;
        self.shared.keeper.forget_threads();
    }

    /// Does all that is due at the manual clock's present time. Nothing with a cache that has threads.
    #[cfg(any(test, feature = "testing"))]
    pub fn drive(&self) {
        if let Some(manual) = self.shared.keeper.as_manual() {
            manual.drive();
        }
    }

    /// Moves the manual clock by `duration`, doing on the way what becomes due.
    #[cfg(any(test, feature = "testing"))]
    pub fn run_for(&self, duration: Duration) {
        if let Some(manual) = self.shared.keeper.as_manual() {
            manual.run_for(duration);
        }
    }

    #[cfg(any(feature = "tracing", feature = "metrics"))]
    fn tell_of_attach_failure(&self, error: &Error) {
        reports::of_attach_failure(&self.shared.name, error);
    }

    #[cfg(not(any(feature = "tracing", feature = "metrics")))]
    #[expect(clippy::unused_self, reason = "nobody is told")]
    const fn tell_of_attach_failure(&self, _: &Error) {}

    fn admit(
        &self,
        known: Known,
        expect: Expect,
        store: Option<Arc<dyn RecordStore>>,
        legacy: Option<Legacy>,
    ) -> Result<Account, Error> {
        self.seat(self.shared.inner(known, expect, store, legacy)?)
    }

    /// Attaches what was made before. Runs nobody else's code.
    fn seat(&self, inner: Arc<AccountInner>) -> Result<Account, Error> {
        self.shared.register(&inner)?;
        self.shared.keeper.handle().send(Message::Attach(Arc::clone(&inner)));
        Ok(Account::new(inner, Arc::clone(&self.shared.keeper)))
    }
}

impl Shared {
    fn inner(
        &self,
        known: Known,
        expect: Expect,
        store: Option<Arc<dyn RecordStore>>,
        legacy: Option<Legacy>,
    ) -> Result<Arc<AccountInner>, Error> {
        let mut seed = [0; 8];
        random::fill(&mut seed);
        let key = self.next_key();
        let parts = Parts { expect, store, common: Arc::clone(&self.common) };
        let seed = u64::from_ne_bytes(seed);
        AccountInner::new(key, self.clock.clone(), known, parts, seed, legacy).map(Arc::new)
    }

    fn next_key(&self) -> AccountKey {
        AccountKey::new(self.next_key.fetch_add(1, Ordering::Relaxed))
    }

    fn register(&self, account: &Arc<AccountInner>) -> Result<(), Error> {
        let mut registry = self.registry();
        if registry.closed {
            return Err(Error::new(ErrorKind::Unavailable, "the cache is shut down"));
        }
        let id = account.id();
        if registry.by_id.get(&id).is_some_and(is_attached) {
            let error = Error::new(ErrorKind::Misuse, "the account is attached already: clone its handle");
            return Err(error.with_account(id));
        }
        // Swept whenever the table would have to grow, so that accounts that come and go leave nothing.
        if registry.by_id.len() == registry.by_id.capacity() {
            registry.by_id.retain(|_, account| is_attached(account));
        }
        let calls = u64::from(account.slots());
        account.sit(self.seats.take(calls).map_err(|error| error.with_account(id))?);
        registry.by_id.insert(id, Arc::downgrade(account));
        Ok(())
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The record that an account begins with, by what its store has.
fn first_known(id: AccountId, loaded: Loaded) -> Result<Known, Error> {
    let Loaded::Found { bytes, tag } = loaded else {
        let error = Error::new(ErrorKind::Untrusted, "the record store has no record of this account");
        return Err(error.with_account(id));
    };
    if Tombstone::is_of(id, &bytes) {
        return Err(purged(id));
    }
    let record = AccountRecord::parse(&bytes).map_err(|error| error.with_account(id))?;
    Ok(Known { record: Arc::new(record), tag: Some(tag), verified: None })
}

fn is_attached(account: &Weak<AccountInner>) -> bool {
    account.upgrade().is_some_and(|account| !account.is_retired())
}

const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

impl fmt::Debug for AekCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AekCache").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
