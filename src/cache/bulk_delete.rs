//! Accounts of a store deleted recoverably, as an operation (contracts E7, E8). Imports: `cache::bulk`, `delete`, `operation`, `expect`,
//! `record_store`, `format`, `rotate`, `id`, `error`.

use std::sync::{Arc, Weak};
use std::time::SystemTime;

use super::AekCache;
use super::bulk::{Bulk, Done};
use crate::delete::{Retention, begin_delete};
use crate::error::{Error, ErrorKind};
use crate::expect::Expect;
use crate::format::operation::{OperationKind, OperationStatus};
use crate::id::AccountId;
use crate::operation::{Operation, OperationRun};
use crate::record_store::archive::RecordArchive;
use crate::rotate::SEEN_BY_ALL;

/// What a bulk deletion has done since it was begun or resumed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeleteReport {
    /// The operation as it ended.
    pub operation: Operation,
    /// Accounts that are deleted now and were not before.
    pub deleted: u64,
    /// Accounts that were deleted before: they keep the retention that they have.
    pub before: u64,
    /// Accounts with a tombstone, whoever put it there.
    pub purged: u64,
    /// Accounts of which nothing was expected.
    pub left: u64,
    /// Accounts that could not be deleted.
    pub failures: Vec<(AccountId, Error)>,
    /// From when no machine uses a deleted account any more that could read the record store. `None` unless all succeeded, those of earlier runs of
    /// the operation too.
    pub refused_everywhere_after: Option<SystemTime>,
}

impl AekCache {
    /// Deletes every account in `store` of which `expect` knows what to expect, recoverably, as `operation`, which it ends: see
    /// [`Account::delete`](crate::Account::delete). The others are left. An account that fails is left too, and told in the report; the operation
    /// goes on, and ends as failed.
    ///
    /// No record is believed without an unwrap, so each account costs one, deleted ones too; one that is revoked or unavailable fails, and
    /// [`Self::shred`] destroys it without asking anybody. Accounts in use here close at once, elsewhere with their next refresh. Data is not touched.
    ///
    /// Pace, cancellation and resumption as of [`Self::rewrap_all`]. [`Account::recover`](crate::Account::recover) takes an account back, also while this
    /// goes on: it is not deleted again, unless it was among the last 16 before a crash.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use strongroom::provider::{Kek, KeyOptions, KeyProvider, LocalKms};
    /// use strongroom::{
    ///     AccountId, AccountSpec, AekCache, Expect, MemoryRecordStore, OperationKind, OperationTarget, Operations, Retention, Status,
    /// };
    /// # let folder = tempfile::tempdir()?;
    /// # let local = LocalKms::create(folder.path().join("kms.json"))?;
    /// # local.create_key("ada", KeyOptions::default())?;
    /// # local.create_key("service", KeyOptions::default())?;
    /// # let kms: Arc<dyn KeyProvider> = Arc::new(local);
    /// # let cache = AekCache::builder().build()?;
    /// # let service = cache.create(AccountSpec::new(AccountId::random(), kms.clone(), Kek::latest("service")))?;
    /// let records = Arc::new(MemoryRecordStore::new());
    /// let spec = AccountSpec::new(AccountId::random(), Arc::clone(&kms), Kek::latest("ada"));
    /// let account = cache.create(spec.store(records.clone()))?;
    ///
    /// // Ada leaves: all accounts that are hers.
    /// let hers = |id| (id == account.id()).then(|| Expect::account(id).kek(Arc::clone(&kms), "ada"));
    /// let operations = Operations::new(Arc::new(MemoryRecordStore::new()), service);
    /// let run = operations.begin(OperationKind::Delete, OperationTarget::from_bytes(*b"all of Ada's    "))?;
    /// let report = cache.delete_all(records, &hers, run, Retention::DEFAULT, 50)?;
    /// assert_eq!((report.deleted, report.failures.len()), (1, 0));
    /// assert_eq!(account.status(), Status::Deleted);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::rewrap_all`].
    pub fn delete_all(
        &self,
        store: Arc<dyn RecordArchive>,
        expect: &dyn Fn(AccountId) -> Option<Expect>,
        operation: OperationRun,
        retention: Retention,
        calls_per_second: u32,
    ) -> Result<DeleteReport, Error> {
        let bulk = Bulk::new(self, store, expect, (operation, OperationKind::Delete), calls_per_second)?;
        let (mut deleted, mut before, mut purged, mut left) = (0, 0, 0, 0);
        let mut failures = Vec::new();
        let operation = bulk.each(|bulk, account| {
            let Some(expected) = (bulk.expect)(account) else {
                left += 1;
                return Done { calls: 0, failed: None };
            };
            let (outcome, calls) = delete(bulk, account, expected, retention);
            match outcome {
                Ok(Outcome::Now) => deleted += 1,
                Ok(Outcome::Before) => before += 1,
                Err(error) if error.kind() == ErrorKind::Deleted => purged += 1,
                Err(error) => {
                    let error = error.with_account(account);
                    failures.push((account, error.clone()));
                    return Done { calls, failed: Some(error) };
                }
            }
            Done { calls, failed: None }
        })?;
        let all = *operation.status() == OperationStatus::Succeeded;
        let refused_everywhere_after = all.then(|| self.wall_now() + SEEN_BY_ALL);
        Ok(DeleteReport { operation, deleted, before, purged, left, failures, refused_everywhere_after })
    }
}

enum Outcome {
    Now,
    Before,
}

/// What became of it, and how many calls that may have cost.
fn delete(
    bulk: &Bulk<'_>,
    account: AccountId,
    expected: Expect,
    retention: Retention,
) -> (Result<Outcome, Error>, u32) {
    let inner = match bulk.unattached_as(account, expected) {
        Ok(inner) => inner,
        Err(error) => return (Err(error), 0),
    };
    let begin = || {
        // What the record only claimed is authentic by now.
        begin_delete(&inner, retention, |_, in_force| (in_force.changed, in_force.known.record.sequence()))
    };
    let mut calls = inner.slots();
    let deletion = match begin().wait() {
        // Whoever came first may have changed anything: the record as it is now tells.
        Err(error) if error.kind() == ErrorKind::Conflict => {
            calls *= 2;
            begin().wait()
        }
        deletion => deletion,
    };
    let outcome = deletion.map(|(by_this, sequence)| {
        let attached = bulk.cache.shared.registry().by_id.get(&account).and_then(Weak::upgrade);
        if let Some(attached) = attached {
            attached.heed_deletion(bulk.cache.shared.clock.now(), sequence);
        }
        if by_this { Outcome::Now } else { Outcome::Before }
    });
    (outcome, calls)
}
