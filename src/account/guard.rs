//! What outlives a call: a cached plaintext value that its lease guards, and the fence before a commit.
//! Imports: `state`, `account`, `error`, `id`.

use std::fmt;
use std::sync::Arc;

use super::AccountInner;
use crate::error::Error;
use crate::id::{AccountId, Epoch};

/// A value derived from plaintext that cannot be read once its lease has gone (contract D6).
///
/// It reads as long as the account stays in the epoch that it was made in, with a valid lease. After that it never reads
/// again: drop it, and make it anew from sealed data. The value itself is dropped with the `Guarded`, not
/// before: [`Events`](crate::Events) tells when to.
///
/// ```
/// # use std::sync::Arc;
/// # use strongroom::provider::{Kek, KeyOptions, LocalKms};
/// # use strongroom::{AccountId, AccountSpec, AekCache, ErrorKind};
/// # let folder = tempfile::tempdir()?;
/// # let kms = LocalKms::create(folder.path().join("kms.json"))?;
/// # kms.create_key("orders", KeyOptions::default())?;
/// # let cache = AekCache::builder().build()?;
/// # let account = cache.create(AccountSpec::new(AccountId::random(), Arc::new(kms), Kek::latest("orders")))?;
/// let index = account.guard(vec!["smith", "jones"])?;
/// assert_eq!(index.get()?.len(), 2);
/// account.lock();
/// assert_eq!(index.get().unwrap_err().kind(), ErrorKind::Locked);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Guarded<T> {
    value: T,
    fence: Fence,
}

impl<T> Guarded<T> {
    pub(crate) const fn new(value: T, fence: Fence) -> Self {
        Self { value, fence }
    }

    /// The value, while its lease is valid. No lock and no system call.
    ///
    /// # Errors
    /// Why it is not: [`ErrorKind::Revoked`](crate::ErrorKind::Revoked), `Unavailable`, `Locked`, `Deleted` or `NotReady`.
    pub fn get(&self) -> Result<&T, Error> {
        self.fence.check()?;
        Ok(&self.value)
    }

    /// The epoch that it was made in.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.fence.epoch
    }
}

/// Shows nothing of the value: it is plaintext.
impl<T> fmt::Debug for Guarded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("fence", &self.fence).finish_non_exhaustive()
    }
}

/// Taken when a write is sealed, checked immediately before it is acknowledged (contract D11): a write that was
/// sealed under a lease that has gone meanwhile is not acknowledged.
///
/// ```
/// # use std::sync::Arc;
/// # use strongroom::provider::{Kek, KeyOptions, LocalKms};
/// # use strongroom::{Aad, AccountId, AccountSpec, AekCache, BlockId, ObjectId};
/// # let folder = tempfile::tempdir()?;
/// # let kms = LocalKms::create(folder.path().join("kms.json"))?;
/// # kms.create_key("orders", KeyOptions::default())?;
/// # let cache = AekCache::builder().build()?;
/// # let account = cache.create(AccountSpec::new(AccountId::random(), Arc::new(kms), Kek::latest("orders")))?;
/// let fence = account.fence()?;
/// let sealed = account.seal(BlockId::new(ObjectId::random(), 0), Aad::EMPTY, b"a row")?;
/// // ... append `sealed` to the log, sync it ...
/// fence.check()?; // immediately before the write is acknowledged
/// # assert!(!sealed.is_empty());
/// # account.lock();
/// # assert!(fence.check().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Fence {
    account: Arc<AccountInner>,
    epoch: Epoch,
}

impl Fence {
    pub(crate) fn new(account: Arc<AccountInner>) -> Result<Self, Error> {
        let epoch = {
            let guard = account.state.enter(None)?;
            guard.check_lease()?;
            guard.epoch()
        };
        Ok(Self { account, epoch })
    }

    /// Passes while the account is in the fence's epoch and a lease is valid. Renewals pass.
    ///
    /// # Errors
    /// Why not: then the write is not to be acknowledged.
    pub fn check(&self) -> Result<(), Error> {
        self.account.state.enter(Some(self.epoch))?.release()
    }

    /// The epoch that the fence was taken in.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The account that it fences.
    #[must_use]
    pub fn account(&self) -> AccountId {
        self.account.state.id()
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fence").field("account", &self.account()).field("epoch", &self.epoch).finish()
    }
}
