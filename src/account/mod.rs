//! An account in use: the handle that an engine holds.
//!
//! The data plane reads `state` and nothing else; `control` is what changes it. Imports: `account::*`,
//! `keeper`, `lease`, `format`, `id`, `error`.

pub(crate) mod batch;
mod budget;
mod control;
pub(crate) mod events;
pub(crate) mod failover;
pub(crate) mod guard;
mod look;
pub(crate) mod permit;
pub(crate) mod refresh;
pub(crate) mod seats;
pub(crate) mod settings;
mod shares;
pub(crate) mod state;
mod sync;
pub(crate) mod tally;
pub(crate) mod unwrap;
pub(crate) mod usage;
mod waits;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error::Error;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::format::record::AccountRecord;
use crate::id::{Aad, AccountId, BlockId, Epoch};
use crate::keeper::{Keeper, Pending};
use crate::lease::Event;
use crate::record_store::RecordStore;

pub(crate) use budget::Bell;
#[cfg(feature = "metrics")]
pub(crate) use control::glance;
pub(crate) use control::{AccountInner, AccountKey, Common, Legacy, Parts, Schedule};
use guard::{Fence, Guarded};
use permit::Permit;
pub(crate) use refresh::{Adopt, Known, Refreshed};
use state::Status;
use usage::GenerationUse;

/// An account in use. Cheap to clone; all clones are one account.
///
/// Sealing and opening never wait (contract C6): without a valid lease they fail at once. Waiting is done by name,
/// with [`Self::ready`] or [`Self::wait_ready`]. When the last clone is dropped, the account's key is wiped.
/// [`AekCache`](crate::AekCache) shows how to come by one.
///
/// ```
/// # use std::sync::Arc;
/// # use strongroom::provider::{Kek, KeyOptions, LocalKms};
/// use strongroom::{Aad, AccountId, AccountSpec, AekCache, BlockId, ErrorKind, ObjectId, Status};
/// # let folder = tempfile::tempdir()?;
/// # let kms = LocalKms::create(folder.path().join("kms.json"))?;
/// # kms.create_key("orders", KeyOptions::default())?;
/// # let cache = AekCache::builder().build()?;
/// # let account = cache.create(AccountSpec::new(AccountId::random(), Arc::new(kms), Kek::latest("orders")))?;
/// let (id, aad) = (BlockId::new(ObjectId::random(), 7), Aad::new(b"tenant-42"));
/// let sealed = account.seal(id, aad, b"hello")?;
/// assert!(matches!(account.status(), Status::Fresh { .. }));
///
/// account.lock();
/// assert_eq!(account.open(id, aad, &sealed).unwrap_err().kind(), ErrorKind::Locked);
/// account.unlock()?; // asks the KMS, and waits for it
/// assert_eq!(account.open(id, aad, &sealed)?, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Account {
    handle: Arc<Handle>,
}

/// Closes the account when the engine lets go of it, and keeps the keeper alive until then.
struct Handle {
    inner: Arc<AccountInner>,
    _keeper: Arc<Keeper>,
}

impl Account {
    pub(crate) fn new(inner: Arc<AccountInner>, keeper: Arc<Keeper>) -> Self {
        Self { handle: Arc::new(Handle { inner, _keeper: keeper }) }
    }

    pub(crate) fn inner(&self) -> &Arc<AccountInner> {
        &self.handle.inner
    }

    /// Whether this is its only handle, and no fence, guarded value or call holds it either.
    pub(crate) fn is_sole(&self) -> bool {
        Arc::strong_count(&self.handle) == 1 && Arc::strong_count(&self.handle.inner) == 1
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

    /// What this process has sealed under the generation in use, beside its limits (contract E6); `None` before the first key. No I/O.
    #[must_use]
    pub fn generation_use(&self) -> Option<GenerationUse> {
        self.inner().generation_use()
    }

    /// The newest record that this process knows. Persist it where no [`RecordStore`] does.
    #[must_use]
    pub fn record(&self) -> AccountRecord {
        AccountRecord::clone(&self.inner().known().record)
    }

    /// Whether a record of this account that was taken back, an older one or none, is noticed, also by a process that has just
    /// started (contract F6): [`RecordStore::is_anchored`]. Without a store the caller keeps the record, and knows.
    #[must_use]
    pub fn is_anchored(&self) -> bool {
        self.inner().store().is_some_and(RecordStore::is_anchored)
    }

    /// What the KMS last answered, where that was not a key.
    #[must_use]
    pub fn last_failure(&self) -> Option<Error> {
        self.inner().last_failure()
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
    /// An endpoint that takes no calls at all keeps this waiting; [`Self::begin_unlock`] can be waited for with a bound.
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
        self.inner.detach();
    }
}
