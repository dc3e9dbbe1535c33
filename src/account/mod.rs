//! An account in use: the handle that an engine holds, and the control plane's side of it.
//!
//! The data plane reads [`state`] and nothing else. All that changes it passes through one mutex per account,
//! [`AccountInner::feed`] and [`AccountInner::take_refreshed`]: an event goes into the lease machine, its effects are
//! published, then everybody who waits or listens is told. Imports: `lease`, `keeper`, `expect`, `record_store`,
//! `provider`, `format`, `clock`, `id`, `error`.

pub(crate) mod batch;
pub(crate) mod events;
pub(crate) mod guard;
pub(crate) mod permit;
pub(crate) mod refresh;
pub(crate) mod settings;
pub(crate) mod state;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::clock::Moment;
use crate::error::Error;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::expect::Expect;
use crate::format::record::AccountRecord;
use crate::id::{Aad, AccountId, BlockId, Epoch};
use crate::keeper::{Completer, Keeper, KeeperHandle, Message, Pending};
use crate::lease::{Answer, AttemptId, Closed, Effects, Event, Lease, Publish};
use crate::provider::Authority;
use crate::record_store::RecordStore;

use events::{Bus, Transition};
use guard::{Fence, Guarded};
use permit::Permit;
pub(crate) use refresh::{Adopt, Known, Refreshed};
use settings::Settings;
use state::{AccountState, Keyless, Status, UnavailableCause};

/// An account in use. Cheap to clone; all clones are one account.
///
/// Sealing and opening never wait (contract C6): without a valid lease they fail at once. Waiting is done by name,
/// with [`Self::ready`] or [`Self::wait_ready`]. When the last clone is dropped, the account's key is wiped.
/// [`AekCache`](crate::AekCache) shows how to come by one.
#[derive(Clone)]
pub struct Account {
    handle: Arc<Handle>,
}

/// Closes the account when the engine lets go of it, and keeps the keeper alive until then.
struct Handle {
    inner: Arc<AccountInner>,
    _keeper: Arc<Keeper>,
}

/// Names an account within its cache's life: an id can be attached, dropped and attached again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AccountKey(u64);

/// The account, as the control plane holds it.
pub(crate) struct AccountInner {
    state: AccountState,
    key: AccountKey,
    parts: Parts,
    authority: Authority,
    control: Mutex<Control>,
    /// The engine has let go of it; a worker may still hold it for the length of a call.
    detached: AtomicBool,
}

/// What an account is made of, besides its record.
pub(crate) struct Parts {
    pub(crate) expect: Expect,
    pub(crate) store: Option<Arc<dyn RecordStore>>,
    pub(crate) settings: Settings,
    pub(crate) keeper: KeeperHandle,
    pub(crate) bus: Arc<Bus>,
}

struct Control {
    lease: Lease,
    known: Known,
    waiters: Vec<Waiter>,
    /// Attempts that have ended, to tell what a waiter has waited for.
    ended: u64,
    last_failure: Option<Error>,
    newer_kek_version: bool,
    next_version_check: Option<Moment>,
}

struct Waiter {
    completer: Completer<()>,
    /// Waits for `unlock`, not for readiness.
    unlock: bool,
    /// How many attempts had ended when the wait began: a refusal counts once one more has.
    since: u64,
}

/// Waits that are over. Told of it only once the account's mutex is free: a waker is somebody else's code.
#[must_use]
struct EndedWaits(Vec<(Completer<()>, Result<(), Error>)>);

/// What the event loop asks of an account.
pub(crate) struct Schedule {
    pub(crate) wants_attempt: bool,
    pub(crate) wake_at: Option<Moment>,
}

impl Account {
    pub(crate) fn new(inner: Arc<AccountInner>, keeper: Arc<Keeper>) -> Self {
        Self { handle: Arc::new(Handle { inner, _keeper: keeper }) }
    }

    pub(crate) fn inner(&self) -> &Arc<AccountInner> {
        &self.handle.inner
    }

    /// Seals one block: 64 bytes longer than `plain`, in a fresh buffer. See [`Permit`] for forms without one.
    ///
    /// # Errors
    /// As [`Permit`] says.
    pub fn seal(&self, id: BlockId, aad: Aad<'_>, plain: &[u8]) -> Result<Vec<u8>, Error> {
        Permit::unchecked(&self.inner().state)?.seal(id, aad, plain)
    }

    /// Opens one block that [`Self::seal`] made, for the same id and additional data.
    ///
    /// # Errors
    /// As [`Permit`] says.
    pub fn open(&self, id: BlockId, aad: Aad<'_>, frame: &[u8]) -> Result<Vec<u8>, Error> {
        Permit::unchecked(&self.inner().state)?.open(id, aad, frame)
    }

    /// A permit for the present epoch, if a lease is valid now.
    ///
    /// # Errors
    /// Without a valid lease, why: [`ErrorKind::Revoked`], [`ErrorKind::Unavailable`], [`ErrorKind::NotReady`],
    /// [`ErrorKind::Locked`] or [`ErrorKind::Deleted`].
    pub fn permit(&self) -> Result<Permit<'_>, Error> {
        Permit::new(&self.inner().state)
    }

    /// Which account this is.
    #[must_use]
    pub fn id(&self) -> AccountId {
        self.inner().id()
    }

    /// Whether it can be used now. No I/O.
    #[must_use]
    pub fn status(&self) -> Status {
        self.inner().state.status()
    }

    /// When the lease ends unless it is renewed, by the wall clock as it stands now; `None` without one.
    #[must_use]
    pub fn valid_until(&self) -> Option<SystemTime> {
        self.inner().state.valid_until()
    }

    /// The epoch: it grows whenever the key is taken out of service.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.inner().state.epoch()
    }

    /// The newest record that this process knows. Persist it where no [`RecordStore`] does.
    #[must_use]
    pub fn record(&self) -> AccountRecord {
        AccountRecord::clone(&self.inner().known().record)
    }

    /// What the KMS last answered, where that was not a key.
    #[must_use]
    pub fn last_failure(&self) -> Option<Error> {
        self.inner().lock_control().last_failure.clone()
    }

    /// Ends when the account can be used, or when the KMS has refused, or it is locked or deleted. While the KMS is silent
    /// it goes on waiting. Asks the KMS at once, as far as a small budget of such calls allows.
    ///
    /// # Errors
    /// [`ErrorKind::Revoked`], [`ErrorKind::Locked`], [`ErrorKind::Deleted`], or [`ErrorKind::Unavailable`] for answers that cannot
    /// be right.
    pub fn ready(&self) -> Pending<()> {
        self.inner().begin_ready()
    }

    /// Blocks this thread like [`Self::ready`], at most `timeout`.
    ///
    /// # Errors
    /// As [`Self::ready`]; when `timeout` has passed, why there is no lease: [`ErrorKind::NotReady`] or
    /// [`ErrorKind::Unavailable`].
    pub fn wait_ready(&self, timeout: Duration) -> Result<(), Error> {
        match self.ready().wait_timeout(timeout) {
            Err(error) if error.account().is_none() => self.permit().map(|_| ()),
            other => other,
        }
    }

    /// Closes the account here and now, and keeps it closed until [`Self::unlock`]: a panic button, or the engine's
    /// answer to an event from the KMS (contract D5). An open whose final check starts after this has returned
    /// releases nothing.
    pub fn lock(&self) {
        self.inner().feed(self.inner().state.clock().now(), Event::Lock);
        self.inner().poke();
    }

    /// Opens what [`Self::lock`] closed, with an unwrap that starts now.
    ///
    /// # Errors
    /// What that unwrap met: [`ErrorKind::Revoked`] or [`ErrorKind::Unavailable`]; the account then stays locked.
    /// After three calls in a row the next one waits for its unwrap, one in 6 s.
    pub fn unlock(&self) -> Result<(), Error> {
        self.begin_unlock().wait()
    }

    /// The same, as a future.
    pub fn begin_unlock(&self) -> Pending<()> {
        self.inner().begin_unlock()
    }

    /// Says that the account's record was changed in its store, so that it is looked at soon and not only at
    /// the next refresh. At most one look in 6 s. A deleted account is looked at only when this says so.
    pub fn record_changed(&self) {
        let event = match self.status() {
            Status::Deleted => Event::Recover,
            _ => Event::RecordChanged,
        };
        self.inner().feed(self.inner().state.clock().now(), event);
        self.inner().poke();
    }

    /// A plaintext value that cannot be read once the present lease has gone.
    ///
    /// # Errors
    /// Without a valid lease, as [`Self::permit`].
    pub fn guard<T>(&self, value: T) -> Result<Guarded<T>, Error> {
        Ok(Guarded::new(value, self.fence()?))
    }

    /// A fence in the present epoch: take it before sealing, check it before acknowledging.
    ///
    /// # Errors
    /// Without a valid lease, as [`Self::permit`].
    pub fn fence(&self) -> Result<Fence, Error> {
        Fence::new(Arc::clone(self.inner()))
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("id", &self.id()).field("status", &self.status()).finish()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inner.detached.store(true, Ordering::SeqCst);
        self.inner.feed(self.inner.state.clock().now(), Event::Lock);
        self.inner.parts.keeper.send(Message::Detach(self.inner.key));
    }
}

impl EndedWaits {
    fn tell(self) {
        self.0.into_iter().for_each(|(completer, result)| completer.complete(result));
    }
}

impl AccountKey {
    pub(crate) const fn new(number: u64) -> Self {
        Self(number)
    }
}

impl AccountInner {
    /// An account without a key. `seed` spreads its refreshes among those of others.
    ///
    /// # Errors
    /// As [`Expect::admit`]: the record is not the expected one.
    pub(crate) fn new(
        key: AccountKey,
        clock: crate::clock::Clock,
        known: Known,
        parts: Parts,
        seed: u64,
    ) -> Result<Self, Error> {
        let provider = parts.expect.admit(&known.record)?;
        let now = clock.now();
        let control = Control {
            lease: Lease::new(parts.settings.policy, now, seed),
            known,
            waiters: Vec::new(),
            ended: 0,
            last_failure: None,
            newer_kek_version: false,
            next_version_check: None,
        };
        Ok(Self {
            state: AccountState::new(control.known.record.account(), clock),
            key,
            parts,
            authority: provider.authority(),
            control: Mutex::new(control),
            detached: AtomicBool::new(false),
        })
    }

    pub(crate) const fn id(&self) -> AccountId {
        self.state.id()
    }

    pub(crate) const fn key(&self) -> AccountKey {
        self.key
    }

    pub(crate) fn is_detached(&self) -> bool {
        self.detached.load(Ordering::SeqCst)
    }

    pub(crate) const fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(crate) const fn expect(&self) -> &Expect {
        &self.parts.expect
    }

    pub(crate) fn store(&self) -> Option<&dyn RecordStore> {
        self.parts.store.as_deref()
    }

    pub(crate) const fn settings(&self) -> &Settings {
        &self.parts.settings
    }

    pub(crate) const fn keeper(&self) -> &KeeperHandle {
        &self.parts.keeper
    }

    pub(crate) fn clock(&self) -> &crate::clock::Clock {
        self.state.clock()
    }

    pub(crate) fn known(&self) -> Known {
        self.lock_control().known.clone()
    }

    /// Goes by `known` from now on: a record that this process has just persisted.
    pub(crate) fn replace_known(&self, known: Known) {
        let mut control = self.lock_control();
        // A refresh may have brought a newer one meanwhile.
        if known.record.sequence() > control.known.record.sequence() {
            control.known = known;
        }
    }

    /// Tells the engine that a newer KEK version waits for somebody to persist a record.
    pub(crate) fn announce_newer_version(&self, newer: bool) {
        let mut control = self.lock_control();
        if control.newer_kek_version != newer {
            control.newer_kek_version = newer;
            self.post(&control);
        }
    }

    pub(crate) fn schedule(&self, now: Moment) -> Schedule {
        let control = self.lock_control();
        let wants_attempt = control.lease.wants_attempt(now);
        // What wants to start waits for its turn, not for a timer.
        let wake_at = if wants_attempt { control.lease.expires_at() } else { control.lease.wake_at() };
        Schedule { wants_attempt, wake_at }
    }

    /// Begins the attempt that is due, if one still is.
    pub(crate) fn begin_attempt(&self, now: Moment) -> Option<AttemptId> {
        let mut control = self.lock_control();
        control.lease.wants_attempt(now).then(|| control.lease.begin(now))
    }

    /// Takes in an event that brings no key.
    pub(crate) fn feed(&self, now: Moment, event: Event) {
        let mut control = self.lock_control();
        let effects = control.lease.on(now, event);
        self.apply(&mut control, effects, None);
        let ended = self.settle(&mut control, None);
        drop(control);
        ended.tell();
    }

    /// Takes in the end of an attempt. True when the account has just become revoked by it.
    pub(crate) fn take_refreshed(
        self: &Arc<Self>,
        now: Moment,
        attempt: AttemptId,
        refreshed: Refreshed,
    ) -> bool {
        let mut control = self.lock_control();
        let current = control.lease.is_current(attempt);
        let unlock = control.lease.is_unlock(attempt);
        let failure = refreshed.failure().cloned();
        let (event, adopt) = match refreshed {
            Refreshed::Verified(adopt) => {
                let answer = Answer::Verified { started: adopt.started, max_grace: Some(adopt.grace) };
                (Event::Answered(attempt, answer), Some(*adopt))
            }
            Refreshed::Silent(_) => (Event::Answered(attempt, Answer::Transient), None),
            Refreshed::Wrong(_) => (Event::Answered(attempt, Answer::Integrity), None),
            Refreshed::Refused(refusal, _) => (Event::Answered(attempt, Answer::Refused(refusal)), None),
            Refreshed::Deleted(known) => {
                control.known = known;
                (Event::Delete, None)
            }
        };
        if current {
            control.ended += 1;
            control.last_failure.clone_from(&failure);
        }
        let effects = control.lease.on(now, event);
        self.apply(&mut control, effects, adopt);
        let ended = self.settle(&mut control, (current && unlock).then_some(failure));
        self.follow_versions(now, &mut control);
        drop(control);
        ended.tell();
        matches!(effects.publish, Some(Publish::Close { why: Closed::Revoked(_), .. }))
    }

    /// Looks for a newer KEK version when it is time to: first soon after attaching, because a look that is put off at
    /// every restart is never taken.
    fn follow_versions(self: &Arc<Self>, now: Moment, control: &mut Control) {
        if !matches!(self.state.status(), Status::Fresh { .. }) {
            return;
        }
        match control.next_version_check {
            Some(at) if !now.reached(at) => {}
            // With the first key there is better to do: the second refresh looks.
            None => control.next_version_check = Some(now),
            Some(_) => {
                control.next_version_check = Some(now.plus(self.settings().version_check));
                self.begin_follow_versions();
            }
        }
    }

    /// Brings the first key into use, of an account that was just created.
    pub(crate) fn adopt_first(&self, now: Moment, adopt: Adopt) {
        let mut control = self.lock_control();
        let attempt = control.lease.begin(now);
        let answer = Answer::Verified { started: adopt.started, max_grace: Some(adopt.grace) };
        let effects = control.lease.on(now, Event::Answered(attempt, answer));
        self.apply(&mut control, effects, Some(adopt));
    }

    /// Publishes, then tells (invariant 5).
    fn apply(&self, control: &mut Control, effects: Effects, adopt: Option<Adopt>) {
        match effects.publish {
            Some(Publish::Keys { fresh_until, valid_until }) => {
                let adopt = adopt.expect("the machine publishes keys only in answer to a verified unwrap");
                control.known = adopt.known;
                let epoch = control.lease.epoch();
                self.state.publish_keys(epoch, adopt.ring, fresh_until, valid_until);
            }
            Some(Publish::Extend { fresh_until, valid_until }) => self.state.extend(fresh_until, valid_until),
            Some(Publish::Close { epoch, why }) => self.state.close(epoch, keyless(why)),
            None => {}
        }
        if effects.notify || effects.alarm {
            self.post(control);
        }
    }

    fn post(&self, control: &Control) {
        self.parts.bus.post(&Transition {
            account: self.id(),
            epoch: control.lease.epoch(),
            status: self.state.status(),
            cause: control.last_failure.clone(),
            newer_kek_version: control.newer_kek_version,
        });
    }

    /// Takes out the waits that the present state ends. `unlocked` is how an attempt for `unlock` ended.
    fn settle(&self, control: &mut Control, unlocked: Option<Option<Error>>) -> EndedWaits {
        let mut ended = EndedWaits(Vec::new());
        if control.waiters.is_empty() {
            return ended;
        }
        let status = self.state.status();
        let refusal = self.refusal_to_wait(control, status);
        for waiter in std::mem::take(&mut control.waiters) {
            let result = if waiter.unlock {
                match &unlocked {
                    Some(None) => Some(Ok(())),
                    Some(Some(failure)) => Some(Err(failure.clone())),
                    // Locked again meanwhile: the attempt was overtaken.
                    None if !control.lease.unlock_under_way() => refusal.clone().map(Err),
                    None => None,
                }
            } else if matches!(status, Status::Fresh { .. } | Status::Grace { .. }) {
                Some(Ok(()))
            } else if control.lease.is_locked() || control.ended > waiter.since {
                refusal.clone().map(Err)
            } else {
                None
            };
            match result {
                Some(result) => ended.0.push((waiter.completer, result)),
                None => control.waiters.push(waiter),
            }
        }
        ended
    }

    /// The error of a state that waiting does not mend.
    fn refusal_to_wait(&self, control: &Control, status: Status) -> Option<Error> {
        match status {
            Status::Fresh { .. } | Status::Grace { .. } | Status::NotReady => None,
            Status::Unavailable(UnavailableCause::Silent) => None,
            Status::Unavailable(UnavailableCause::Integrity) => {
                control.last_failure.clone().or_else(|| self.state.enter(None).err())
            }
            Status::Revoked(_) | Status::Locked | Status::Deleted => self.state.enter(None).err(),
        }
    }

    fn begin_ready(&self) -> Pending<()> {
        let now = self.state.clock().now();
        let mut control = self.lock_control();
        let effects = control.lease.on(now, Event::Wake);
        self.apply(&mut control, effects, None);
        let status = self.state.status();
        if matches!(status, Status::Fresh { .. } | Status::Grace { .. }) {
            return Pending::ready(Ok(()));
        }
        // Where asking can change nothing, or the budget for asking is spent, what is known is the answer.
        let hopeless = matches!(status, Status::Locked | Status::Deleted);
        if (hopeless || !control.lease.ask(now))
            && let Some(refusal) = self.refusal_to_wait(&control, status)
        {
            return Pending::ready(Err(refusal));
        }
        self.wait_for(control, false)
    }

    fn begin_unlock(&self) -> Pending<()> {
        let now = self.state.clock().now();
        let mut control = self.lock_control();
        if !control.lease.is_locked() {
            return Pending::ready(Ok(()));
        }
        let effects = control.lease.on(now, Event::Unlock);
        self.apply(&mut control, effects, None);
        self.wait_for(control, true)
    }

    fn wait_for(&self, mut control: MutexGuard<'_, Control>, unlock: bool) -> Pending<()> {
        let (pending, completer) = Pending::new();
        let since = control.ended;
        control.waiters.push(Waiter { completer, unlock, since });
        // Looked at after the waiter stands there: a loop that closes ends every wait that it finds.
        let abandoned = self.parts.keeper.is_closed().then(|| std::mem::take(&mut control.waiters));
        drop(control);
        drop(abandoned);
        self.poke();
        self.parts.keeper.waiting(pending)
    }

    /// Has the event loop look at the account's timers.
    pub(crate) fn poke(&self) {
        self.parts.keeper.send(Message::Poke(self.key));
    }

    fn lock_control(&self) -> MutexGuard<'_, Control> {
        // A panic under this lock would be our own; the data plane is bound by its deadline all the same.
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for AccountInner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)
    }
}

const fn keyless(why: Closed) -> Keyless {
    match why {
        Closed::NotReady => Keyless::NotReady,
        Closed::Silent => Keyless::Unavailable(UnavailableCause::Silent),
        Closed::Integrity => Keyless::Unavailable(UnavailableCause::Integrity),
        Closed::Revoked(refusal) => Keyless::Revoked(refusal),
        Closed::Locked => Keyless::Locked,
        Closed::Deleted => Keyless::Deleted,
    }
}
