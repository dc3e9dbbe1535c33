//! Every account of a store wrapped under the latest version of its KEK (contracts E1, E8), and every deleted one purged whose
//! retention is over (E7, E8).
//!
//! Imports: `cache::bulk`, `delete`, `rotate`, `operation`, `expect`, `record_store`, `format`, `id`, `error`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::AekCache;
use super::bulk::{Bulk, Done};
use super::records::load;
use crate::delete::begin_purge;
use crate::error::{Error, ErrorKind};
use crate::expect::Expect;
use crate::format::operation::{OperationKind, OperationStatus};
use crate::format::policy::VersionPolicy;
use crate::id::AccountId;
use crate::operation::{Operation, OperationRun};
use crate::record_store::archive::RecordArchive;
use crate::rotate::{Retire, RotateTo, SEEN_BY_ALL, Which, begin_rotation};

/// What a bulk re-wrap has done since it was begun or resumed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RewrapReport {
    /// The operation as it ended.
    pub operation: Operation,
    /// Accounts whose AEK is under another version of its KEK now.
    pub rewrapped: u64,
    /// Accounts that were under the latest version.
    pub current: u64,
    /// Accounts that are pinned to a version, and were left: [`Account::rotate_kek`](crate::Account::rotate_kek) moves a pin.
    pub pinned: u64,
    /// Accounts with a tombstone, whoever put it there.
    pub purged: u64,
    /// Accounts that were left because of an error.
    pub failures: Vec<(AccountId, Error)>,
    /// From when no machine needs older versions for the accounts of this store any more, pinned ones and copies elsewhere apart. `None` unless all
    /// succeeded, those of earlier runs of the operation too.
    pub safe_after: Option<SystemTime>,
}

/// What a bulk purge has done since it was begun or resumed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PurgeReport {
    /// The operation as it ended.
    pub operation: Operation,
    /// Accounts whose wrapped AEK this operation destroyed, with what the store kept of it.
    pub purged: u64,
    /// Deleted accounts whose retention is not over.
    pub retained: u64,
    /// Accounts that could not be purged.
    pub failures: Vec<(AccountId, Error)>,
}

impl AekCache {
    /// Wraps the AEK of every account in `store` under the latest version of its KEK, deleted ones too, as `operation`, which it ends. Pinned ones are left.
    /// Data is not touched. An account that fails is left, and told in the report; the operation goes on, and ends as failed, with the code and message of the first.
    ///
    /// At most `calls_per_second` calls of KMSs in each second, on average: those of one account, five at most, come right after another. Blocks the
    /// calling thread. Cancelled by [`Operation::cancel`] after the account that is under way. After a crash it is resumed, and repeats up to
    /// 16 accounts.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use strongroom::provider::{Kek, KeyOptions, KeyProvider, LocalKms};
    /// use strongroom::{AccountId, AccountSpec, AekCache, Expect, MemoryRecordStore, OperationKind, OperationTarget, Operations};
    /// # let folder = tempfile::tempdir()?;
    /// # let local = LocalKms::create(folder.path().join("kms.json"))?;
    /// # local.create_key("orders", KeyOptions::default())?;
    /// # local.create_key("service", KeyOptions::default())?;
    /// # let local = Arc::new(local);
    /// # let kms: Arc<dyn KeyProvider> = local.clone();
    /// # let cache = AekCache::builder().build()?;
    /// # let service = cache.create(AccountSpec::new(AccountId::random(), kms.clone(), Kek::latest("service")))?;
    /// let records = Arc::new(MemoryRecordStore::new());
    /// let spec = AccountSpec::new(AccountId::random(), Arc::clone(&kms), Kek::latest("orders"));
    /// let account = cache.create(spec.store(records.clone()))?;
    /// local.rotate_key("orders")?; // the customer makes a new version
    ///
    /// // Noted in a store of its own, under an account of the service's.
    /// let operations = Operations::new(Arc::new(MemoryRecordStore::new()), service);
    /// let target = OperationTarget::from_bytes(*b"all of europe ..");
    /// let run = match operations.resume(target)? {
    ///     Some(run) => run, // the process ended in the middle
    ///     None => operations.begin(OperationKind::Rewrap, target)?,
    /// };
    /// let expect = |id| Some(Expect::account(id).kek(Arc::clone(&kms), "orders"));
    /// let report = cache.rewrap_all(records, &expect, run, 50)?;
    /// assert_eq!((report.rewrapped, report.failures.len()), (1, 0));
    /// assert!(report.safe_after.is_some());
    /// # drop(account);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] when `calls_per_second` is zero, or the operation is of another kind. [`ErrorKind::Io`] when the store cannot be listed. As
    /// [`OperationRun::checkpoint`]: [`ErrorKind::Conflict`] when somebody took the operation over. After an error the operation is still under way: resume it.
    pub fn rewrap_all(
        &self,
        store: Arc<dyn RecordArchive>,
        expect: &dyn Fn(AccountId) -> Option<Expect>,
        operation: OperationRun,
        calls_per_second: u32,
    ) -> Result<RewrapReport, Error> {
        let bulk = Bulk::new(self, store, expect, (operation, OperationKind::Rewrap), calls_per_second)?;
        let (mut rewrapped, mut current, mut pinned, mut purged) = (0, 0, 0, 0);
        let mut failures = Vec::new();
        let operation = bulk.each(|bulk, account| {
            let (count, calls) = match rewrap(bulk, account) {
                Ok(Rewrapped::Now) => (&mut rewrapped, 5),
                Ok(Rewrapped::Before) => (&mut current, 2),
                Ok(Rewrapped::Pinned) => (&mut pinned, 0),
                Err(error) if error.kind() == ErrorKind::Deleted => (&mut purged, 0),
                Err(error) => {
                    let error = error.with_account(account);
                    failures.push((account, error.clone()));
                    return Done { calls: 5, failed: Some(error) };
                }
            };
            *count += 1;
            Done { calls, failed: None }
        })?;
        let all = *operation.status() == OperationStatus::Succeeded;
        let safe_after = all.then(|| self.wall_now() + SEEN_BY_ALL);
        Ok(RewrapReport { operation, rewrapped, current, pinned, purged, failures, safe_after })
    }

    /// Purges every account in `store` that is deleted and whose retention is over, as `operation`, which it ends: see
    /// [`Account::purge`](crate::Account::purge). Whether an account is due is looked up in its record; each that is costs an unwrap, which
    /// authenticates the deletion.
    ///
    /// An account with a tombstone is left: whoever writes the store can have put it there, and that must not destroy a history from which the account could
    /// be restored. So what a purge has left that failed behind its tombstone, which the report tells as a failure, or that was cut off there, is destroyed by
    /// [`Self::shred`], at an explicit word.
    ///
    /// Pace, cancellation and resumption as of [`Self::rewrap_all`].
    ///
    /// # Errors
    /// As [`Self::rewrap_all`].
    pub fn purge_all(
        &self,
        store: Arc<dyn RecordArchive>,
        expect: &dyn Fn(AccountId) -> Option<Expect>,
        operation: OperationRun,
        calls_per_second: u32,
    ) -> Result<PurgeReport, Error> {
        let bulk = Bulk::new(self, store, expect, (operation, OperationKind::Purge), calls_per_second)?;
        let (mut purged, mut retained) = (0, 0);
        let mut failures = Vec::new();
        let operation = bulk.each(|bulk, account| match purge(bulk, account) {
            Ok(Due::Purged) => {
                purged += 1;
                Done { calls: 1, failed: None }
            }
            Ok(due) => {
                retained += u64::from(due == Due::Later);
                Done { calls: 0, failed: None }
            }
            Err(error) => {
                let error = error.with_account(account);
                failures.push((account, error.clone()));
                Done { calls: 1, failed: Some(error) }
            }
        })?;
        Ok(PurgeReport { operation, purged, retained, failures })
    }

    pub(super) fn wall_now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.shared.clock.now().wall_nanos())
    }
}

enum Rewrapped {
    Now,
    Before,
    Pinned,
}

fn rewrap(bulk: &Bulk<'_>, account: AccountId) -> Result<Rewrapped, Error> {
    let inner = bulk.unattached(account)?;
    if inner.known().record.policy().version_policy() == VersionPolicy::Pinned {
        return Ok(Rewrapped::Pinned);
    }
    let mut rewrapped = Rewrapped::Before;
    // Under failover and joint custody the second KEK too, and under double encryption that of the second AEK.
    for which in Which::of(&inner.known().record) {
        let rotation = match begin_rotation(&inner, which, RotateTo::Latest).wait() {
            // Whoever came first may have done the same: the record as it is now tells.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                begin_rotation(&inner, which, RotateTo::Latest).wait()
            }
            rotation => rotation,
        };
        match rotation? {
            Retire::AlreadyCurrent => {}
            Retire::SafeAfter(_) | Retire::AfterPersisting(_) => {
                bulk.tell_changed(account);
                rewrapped = Rewrapped::Now;
            }
        }
    }
    Ok(rewrapped)
}

#[derive(PartialEq, Eq)]
enum Due {
    Purged,
    Later,
    /// In use, or purged before.
    Not,
}

fn purge(bulk: &Bulk<'_>, account: AccountId) -> Result<Due, Error> {
    let record = match load(bulk.store.as_ref(), account) {
        Ok(found) => found.map(|(record, _tag)| record),
        Err(error) if error.kind() == ErrorKind::Deleted => None,
        Err(error) => return Err(error),
    };
    match record.and_then(|record| record.recoverable_until()) {
        None => Ok(Due::Not),
        Some(until) if bulk.cache.wall_now() < until => Ok(Due::Later),
        Some(_) => begin_purge(&bulk.unattached(account)?).wait().map(|()| Due::Purged),
    }
}
