//! Many accounts over one record store: each attached when it is used, and dropped once it is idle (contract C8).
//!
//! Two tables under one mutex: what is registered, and what is attached or about to be. Nobody else's code runs under it:
//! records are loaded on a worker of the keeper, and waits are ended and accounts dropped once it is free.
//! Imports: `cache`, `account`, `keeper`, `lease`, `expect`, `record_store`, `clock`, `id`, `error`.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::left::Left;
use super::{AekCache, first_known};
use crate::account::{Account, AccountInner, Legacy};
use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::expect::Expect;
use crate::id::AccountId;
use crate::keeper::{Completer, ControlCall, Destination, Message, Met, Pending};
use crate::record_store::{Loaded, RecordStore};

/// Many accounts over one [`RecordStore`], each attached when it is first used and dropped once it is idle.
///
/// An attached account asks its customer's KMS twice a minute, whether anybody uses it or not. A directory attaches only
/// those that are used:
///
/// - **Registering** an account is an entry in a table. It makes no call to a KMS, and reads no record.
/// - **Looking it up** attaches it: one load from the record store, whoever else asks meanwhile, and no call to
///   the KMS (contract C9). The account then becomes ready by itself, like any other; [`Account::ready`] waits for it.
/// - **Idle** is an account that was not looked up for [`DirectoryBuilder::idle_after`] and is held by nobody else: no
///   clone, no [`Fence`](crate::Fence), no [`Guarded`](crate::Guarded), no wait for it. It is dropped, its key wiped and
///   its refreshes ended, until it is looked up again. Sealing and opening do not count, so that they cost nothing:
///   what counts is the handle that they need. One that is [locked](Account::lock) stays, and makes no calls.
///
/// So look an account up for each piece of work and let go of it afterwards; an account that is held is never idle.
/// A lookup of an attached one takes a mutex and reads the clock.
///
/// Dropping and attaching again buys nothing: unwraps keep their distance of 6 s from those before (contract
/// C1), and a record older than the one last authenticated is refused. An account whose KMS refuses is without a key
/// when it is attached again, until an unwrap has succeeded.
///
/// Clones are one directory. When the last is dropped, so are its accounts, but for those that somebody holds.
///
/// ```
/// # use std::sync::Arc;
/// # use std::time::Duration;
/// # use strongroom::provider::{Kek, KeyOptions, KeyProvider, LocalKms};
/// use strongroom::{AccountId, AccountSpec, AekCache, Directory, ErrorKind, Expect, MemoryRecordStore, RecordStore};
/// # let folder = tempfile::tempdir()?;
/// # let kms = LocalKms::create(folder.path().join("kms.json"))?;
/// # kms.create_key("ada", KeyOptions::default())?;
/// # let kms: Arc<dyn KeyProvider> = Arc::new(kms);
/// # let cache = AekCache::builder().build()?;
/// # let (ada, nobody) = (AccountId::random(), AccountId::random());
///
/// let records: Arc<dyn RecordStore> = Arc::new(MemoryRecordStore::new());
/// let spec = AccountSpec::new(ada, Arc::clone(&kms), Kek::latest("ada")).store(Arc::clone(&records));
/// cache.create(spec)?; // once
///
/// let directory = Directory::builder(cache, records).build()?;
/// directory.register(Expect::account(ada).kek(kms, "ada"))?; // at every start, for every tenant
///
/// let account = directory.account(ada)?; // in a task: `directory.begin_account(ada).await?`
/// account.wait_ready(Duration::from_secs(10))?;
/// assert_eq!(directory.account(nobody).unwrap_err().kind(), ErrorKind::Misuse);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

/// Configures a [`Directory`].
#[must_use]
pub struct DirectoryBuilder {
    cache: AekCache,
    records: Arc<dyn RecordStore>,
    idle_after: Option<Duration>,
    most_attached: usize,
}

struct Inner {
    cache: AekCache,
    records: Arc<dyn RecordStore>,
    limits: Limits,
    book: Mutex<Book>,
}

#[derive(Clone, Copy)]
struct Limits {
    idle_after: Option<Duration>,
    most_attached: usize,
    /// J: what was used since then is not dropped for another's sake, or the two would take turns at the KMS's cost.
    least_idle: Duration,
}

struct Book {
    registered: HashMap<AccountId, Registered>,
    seats: HashMap<AccountId, Seat>,
    flights: u64,
    /// What accounts have left that are not registered any more.
    left: Left<Legacy>,
}

struct Registered {
    expect: Expect,
    /// What the account left when it was last dropped.
    legacy: Option<Legacy>,
}

enum Seat {
    Attached { account: Account, used: Moment },
    Attaching(Attaching),
}

struct Attaching {
    flight: u64,
    /// Nobody waits for it any more, though the load has not returned: another would cost another worker.
    late: bool,
    waiters: Vec<Completer<Account>>,
}

/// What a lookup came to.
enum Found {
    Now(Result<Account, Error>),
    Joined,
    /// The load of this number is to begin, once what had to make room is dropped.
    Begun(u64, Option<Account>),
}

/// One load under way. However it ends, by a panic or unstarted, it leaves its account's seat.
struct Flight {
    directory: Weak<Inner>,
    id: AccountId,
    number: u64,
}

impl Directory {
    /// A directory to be configured: of accounts in `cache`, whose records are in `records`.
    pub const fn builder(cache: AekCache, records: Arc<dyn RecordStore>) -> DirectoryBuilder {
        DirectoryBuilder { cache, records, idle_after: Some(IDLE_AFTER), most_attached: usize::MAX }
    }

    /// Says that there is an account, and what its record has to be. Makes no call to anybody.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] when it is registered already: [`Self::unregister`] it first, so that nothing is attached by what
    /// was expected before.
    pub fn register(&self, expect: Expect) -> Result<(), Error> {
        let id = expect.expected_account();
        let mut book = self.inner.book();
        if book.registered.contains_key(&id) {
            return Err(Error::new(ErrorKind::Misuse, "the account is registered already").with_account(id));
        }
        let legacy = book.left.take(id);
        book.registered.insert(id, Registered { expect, legacy });
        Ok(())
    }

    /// Forgets what is expected of an account, and drops it where it is attached; whoever holds it keeps it. False when it is not
    /// registered.
    ///
    /// Registering it again buys nothing either, unless 10,000 others were unregistered in between: the pace of its calls, its count of seals and
    /// what is known of a first KEK that was refused are as they were then. What an account goes on to do that somebody holds is not in that. The
    /// newest record that was seen and a [lock](Account::lock) are forgotten.
    pub fn unregister(&self, id: AccountId) -> bool {
        // What is dropped runs the provider's code, so not before the book is let go.
        let (registered, seat) = {
            let mut book = self.inner.book();
            let (mut registered, seat) = (book.registered.remove(&id), book.seats.remove(&id));
            let legacy = match &seat {
                Some(Seat::Attached { account, .. }) => Some(account.inner().leave(account.is_sole())),
                _ => registered.as_mut().and_then(|registered| registered.legacy.take()),
            };
            if let Some(legacy) = legacy {
                book.left.keep(id, legacy);
            }
            (registered, seat)
        };
        if let Some(Seat::Attaching(Attaching { waiters, .. })) = seat {
            end(waiters, Err(unknown(id)));
        }
        registered.is_some()
    }

    /// The account `id`, attached first if it is not. Waits for the record store then, and never for a KMS: the account
    /// may not be ready yet.
    ///
    /// # Errors
    /// - [`ErrorKind::Misuse`] for an account that is not registered, and for one that was attached past this directory.
    /// - [`ErrorKind::Untrusted`] when the store has no record of it, or one that is not what was expected;
    ///   [`ErrorKind::Format`] when that is not a record.
    /// - [`ErrorKind::Io`] when the store fails. [`ErrorKind::Unavailable`] when it does not answer within the cache's call
    ///   deadline, or in 30 s is too busy to be asked; and after a shutdown.
    /// - [`ErrorKind::Limit`] when as many accounts as may be are attached and in use.
    ///
    /// The next lookup tries again. But a load that hangs costs one worker only: until it returns, lookups of that
    /// account fail at once.
    pub fn account(&self, id: AccountId) -> Result<Account, Error> {
        self.begin_account(id).wait()
    }

    /// The same, as a future. Never waits itself: the record is loaded on the cache's own threads, once for all who ask
    /// meanwhile.
    ///
    /// At most a quarter of these threads load records at once, those that hang included, and only one until the store has
    /// answered: a load that hangs may delay others by the call deadline. Refreshes have bulkheads of their own.
    pub fn begin_account(&self, id: AccountId) -> Pending<Account> {
        let keeper = self.inner.cache.shared.keeper.handle();
        let (pending, completer) = Pending::new();
        let now = self.inner.now();
        let found = self.inner.book().look_up(now, self.inner.limits, id, completer);
        match found {
            Found::Now(result) => Pending::ready(result),
            Found::Joined => keeper.waiting(pending),
            Found::Begun(number, made_room) => {
                self.inner.note_dropped(usize::from(made_room.is_some()));
                drop(made_room);
                keeper.control(pending, Inner::load(&self.inner, id, number))
            }
        }
    }
}

impl DirectoryBuilder {
    /// After how long an account that nobody uses is dropped, give or take a tenth; `None` for never. Default: 10
    /// minutes. At least the cache's longest refresh interval, J.
    pub const fn idle_after(mut self, idle: Option<Duration>) -> Self {
        self.idle_after = idle;
        self
    }

    /// How many accounts may be attached at once, those about to be included. The one that was used least recently makes room, if
    /// nobody holds it and it was not used for the cache's longest refresh interval; where there is none, the lookup is
    /// an error. Default: no bound.
    ///
    /// With as many attached, a lookup that attaches looks at each of them.
    pub const fn most_attached(mut self, most: usize) -> Self {
        self.most_attached = most;
        self
    }

    /// A directory in which nothing is registered.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] for a setting out of its range.
    pub fn build(self) -> Result<Directory, Error> {
        let Self { cache, records, idle_after, most_attached } = self;
        let least_idle = cache.shared.settings.policy.longest_interval();
        if idle_after.is_some_and(|idle| idle < least_idle) {
            return Err(Error::new(
                ErrorKind::Misuse,
                "`idle_after` is at least 1.1 times `refresh_every`, or 1 minute",
            ));
        }
        if most_attached == 0 {
            return Err(Error::new(ErrorKind::Misuse, "`most_attached` is at least 1"));
        }
        let limits = Limits { idle_after, most_attached, least_idle };
        let inner = Arc::new(Inner { cache, records, limits, book: Mutex::new(Book::new()) });
        inner.begin_sweeping();
        Ok(Directory { inner })
    }
}

impl Inner {
    /// Also without an idle time: then to see who is held.
    fn begin_sweeping(self: &Arc<Self>) {
        let every = (self.limits.idle_after.unwrap_or(IDLE_AFTER) / 10).min(LONGEST_SWEEP);
        let mut next = self.now().plus(every);
        let directory = Arc::downgrade(self);
        let sweep = move |now: Moment| {
            let Some(directory) = directory.upgrade() else { return false };
            if now.reached(next) {
                next = now.plus(every);
                directory.sweep(now);
            }
            true
        };
        self.cache.shared.keeper.handle().send(Message::Chore(Box::new(sweep)));
    }

    fn sweep(&self, now: Moment) {
        let idle = self.book().take_idle(now, self.limits.idle_after);
        self.note_dropped(idle.len());
        // Only now: this wipes keys, and may end waits.
        drop(idle);
    }

    fn note_dropped(&self, accounts: usize) {
        let dropped = &self.cache.shared.counters.idle_dropped;
        dropped.fetch_add(u64::try_from(accounts).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn load(self: &Arc<Self>, id: AccountId, number: u64) -> ControlCall {
        let flight = Flight { directory: Arc::downgrade(self), id, number };
        let (directory, records) = (Arc::downgrade(self), Arc::clone(&self.records));
        ControlCall {
            destination: Destination::of_records(&self.records),
            patience: PATIENCE,
            deadline: self.cache.shared.settings.policy.call_deadline(),
            run: Box::pin(async move {
                let loaded = records.load(id, None);
                let met = if loaded.is_ok() { Met::Answers } else { Met::Silence };
                flight.land(loaded);
                met
            }),
            abandon: Box::new(move |error| {
                if let Some(directory) = directory.upgrade() {
                    directory.give_up(id, number, error);
                }
            }),
        }
    }

    /// What is attached if it is still wanted. Runs the providers' code.
    fn prepare(&self, id: AccountId, loaded: Result<Loaded, Error>) -> Result<Arc<AccountInner>, Error> {
        let (expect, legacy) = {
            let book = self.book();
            let registered = book.registered.get(&id).ok_or_else(|| unknown(id))?;
            (registered.expect.clone(), registered.legacy.clone())
        };
        let known = first_known(id, loaded?)?;
        self.cache.shared.inner(known, expect, Some(Arc::clone(&self.records)), legacy)
    }

    /// The load `number` has ended. One that was overtaken by `unregister` is for nobody: it attaches nothing, not even until it is
    /// noticed, or it would be in the way of the next one.
    fn settle(&self, id: AccountId, number: u64, prepared: Result<Arc<AccountInner>, Error>) {
        let now = self.now();
        let (waiters, result) = {
            let mut book = self.book();
            let Some(attaching) = book.attaching(id, number) else { return };
            let waiters = std::mem::take(&mut attaching.waiters);
            let result = prepared.and_then(|inner| self.cache.seat(inner));
            match &result {
                Ok(account) => {
                    book.seats.insert(id, Seat::Attached { account: account.clone(), used: now });
                }
                Err(_) => drop(book.seats.remove(&id)),
            }
            (waiters, result)
        };
        end(waiters, result);
    }

    /// Nobody waits any longer for the load `number`.
    fn give_up(&self, id: AccountId, number: u64, error: Error) {
        let waiters = {
            let mut book = self.book();
            let Some(attaching) = book.attaching(id, number) else { return };
            attaching.late = true;
            std::mem::take(&mut attaching.waiters)
        };
        end(waiters, Err(not_loaded(id).with_source(error)));
    }

    fn now(&self) -> Moment {
        self.cache.shared.clock.now()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // OK because no code of others runs under it, and ours leaves it whole at each step.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn new() -> Self {
        let left = Left::at_most(MOST_LEFT);
        Self { registered: HashMap::new(), seats: HashMap::new(), flights: 0, left }
    }

    fn look_up(
        &mut self,
        now: Moment,
        limits: Limits,
        id: AccountId,
        completer: Completer<Account>,
    ) -> Found {
        match self.seats.get_mut(&id) {
            Some(Seat::Attached { account, used }) => {
                *used = now;
                return Found::Now(Ok(account.clone()));
            }
            Some(Seat::Attaching(attaching)) if attaching.late => return Found::Now(Err(not_loaded(id))),
            Some(Seat::Attaching(attaching)) => {
                attaching.waiters.push(completer);
                return Found::Joined;
            }
            None => {}
        }
        if !self.registered.contains_key(&id) {
            return Found::Now(Err(unknown(id)));
        }
        let mut made_room = None;
        if self.seats.len() >= limits.most_attached {
            made_room = self.take_least_recent(now, limits.least_idle);
            if made_room.is_none() {
                let error = Error::new(ErrorKind::Limit, "`most_attached` accounts are attached and in use");
                return Found::Now(Err(error.with_account(id)));
            }
        }
        let flight = self.flights;
        self.flights += 1;
        let attaching = Attaching { flight, late: false, waiters: vec![completer] };
        self.seats.insert(id, Seat::Attaching(attaching));
        Found::Begun(flight, made_room)
    }

    fn attaching(&mut self, id: AccountId, number: u64) -> Option<&mut Attaching> {
        match self.seats.get_mut(&id) {
            Some(Seat::Attaching(attaching)) if attaching.flight == number => Some(attaching),
            _ => None,
        }
    }

    /// Takes out what nobody has used for so long. What somebody holds is in use now.
    fn take_idle(&mut self, now: Moment, idle_after: Option<Duration>) -> Vec<Account> {
        for seat in self.seats.values_mut() {
            if let Seat::Attached { account, used } = seat
                && !account.is_sole()
            {
                *used = now;
            }
        }
        let Some(idle_after) = idle_after else { return Vec::new() };
        self.idle(now, idle_after).into_iter().filter_map(|(_, id)| self.take(id)).collect()
    }

    fn take_least_recent(&mut self, now: Moment, least_idle: Duration) -> Option<Account> {
        let mut idle = self.idle(now, least_idle);
        idle.sort_unstable();
        idle.into_iter().find_map(|(_, id)| self.take(id))
    }

    /// What was looked up longer ago than that, with the time when.
    fn idle(&self, now: Moment, least: Duration) -> Vec<(u64, AccountId)> {
        let used = self.seats.iter().filter_map(|(id, seat)| match seat {
            // By the boot-time clock alone: setting the wall clock makes nobody idle.
            Seat::Attached { used, .. } => Some((used.boot_nanos(), *id)),
            Seat::Attaching(_) => None,
        });
        used.filter(|(at, _)| Duration::from_nanos(now.boot_nanos().saturating_sub(*at)) >= least).collect()
    }

    /// Takes `id` out, unless it is in use: no other handle can come from anywhere while this table is locked. Its
    /// keys go when what is returned is dropped.
    fn take(&mut self, id: AccountId) -> Option<Account> {
        let Some(Seat::Attached { account, .. }) = self.seats.get(&id) else { return None };
        if !account.is_sole() {
            return None;
        }
        let departed = account.inner().depart()?;
        if let Some(registered) = self.registered.get_mut(&id) {
            registered.legacy = Some(departed.legacy);
            if let Some(sequence) = departed.sequence {
                registered.expect.raise_least_sequence(sequence);
            }
        }
        match self.seats.remove(&id) {
            Some(Seat::Attached { account, .. }) => Some(account),
            _ => None,
        }
    }
}

impl Flight {
    fn land(self, loaded: Result<Loaded, Error>) {
        if let Some(directory) = self.directory.upgrade() {
            let prepared = directory.prepare(self.id, loaded);
            directory.settle(self.id, self.number, prepared);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(directory) = self.directory.upgrade() {
            // Nothing after `land`, which has settled it.
            directory.settle(self.id, self.number, Err(not_loaded(self.id)));
        }
    }
}

/// Never under the lock: a waker is somebody else's code. The last one is given `result` itself: whoever is told has to be able to drop
/// the account and attach it again, with no handle left here.
fn end(mut waiters: Vec<Completer<Account>>, result: Result<Account, Error>) {
    let last = waiters.pop();
    waiters.into_iter().for_each(|waiter| waiter.complete(result.clone()));
    if let Some(last) = last {
        last.complete(result);
    }
}

const fn unknown(id: AccountId) -> Error {
    Error::new(ErrorKind::Misuse, "no account of this id is registered in the directory").with_account(id)
}

const fn not_loaded(id: AccountId) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the account's record was not loaded: the record store does not answer, or the cache is shut down",
    )
    .with_account(id)
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let book = self.inner.book();
        f.debug_struct("Directory")
            .field("registered", &book.registered.len())
            .field("attached", &book.seats.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for DirectoryBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryBuilder")
            .field("idle_after", &self.idle_after)
            .field("most_attached", &self.most_attached)
            .finish_non_exhaustive()
    }
}

/// 20 calls: a customer who comes back within it pays for these in the place of a new start.
const IDLE_AFTER: Duration = Duration::from_secs(600);
const LONGEST_SWEEP: Duration = Duration::from_secs(60);
/// Where all tenants come at once, the last of them waits for the loads of the others.
const PATIENCE: Duration = Duration::from_secs(30);
/// About 300 bytes each.
const MOST_LEFT: usize = 10_000;
