//! Records copied to a second store, so that the loss of the first one costs nothing (contract E10).
//!
//! Imports: `cache`, `account`, `expect`, `record_store`, `format::{record, tombstone}`, `id`, `error`.

use std::sync::Arc;

use super::AekCache;
use super::records::{Pace, expected, load, unchanged};
use crate::account::unwrap::Unwrapped;
use crate::error::{Error, ErrorKind};
use crate::expect::Expect;
use crate::format::record::AccountRecord;
use crate::format::tombstone::{Tombstone, purged};
use crate::id::AccountId;
use crate::record_store::archive::{RecordArchive, RecordCursor};
use crate::record_store::{Loaded, RecordStore};

/// What a pass of a mirror has done.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MirrorReport {
    /// Records that were copied: new ones, and newer ones.
    pub copied: u64,
    /// Records that the second store had already.
    pub same: u64,
    /// Accounts that were left as they are in the second store, each with the reason. The next pass tries them again.
    ///
    /// The errors are those of [`RecordCheck::result`](crate::RecordCheck::result), for a record in the first store that does not verify;
    /// [`ErrorKind::Conflict`] when somebody else wrote to the second store meanwhile; and [`ErrorKind::Untrusted`] when
    /// the second store has a newer record, another one of the same sequence, or one that is not authentic. Each
    /// [`ErrorKind::Untrusted`] is worth an alarm.
    pub failures: Vec<(AccountId, Error)>,
}

impl AekCache {
    /// Copies to `to` what has changed in `from` since `cursor` was there: one pass, at most `per_second` records in each second.
    /// Blocks the calling thread. Repeat it as often as you can bear to lose changes; with a new cursor it compares
    /// everything.
    ///
    /// A record is copied only once it is authentic, which costs an unwrap of the KMS: whoever can write to the first store can
    /// put nothing into the second one. A newer record is never replaced by an older one, nor by another one of the
    /// same sequence. Nothing is deleted: a purge of the first store is a failure of kind [`ErrorKind::Deleted`] here, because a tombstone proves
    /// nothing, and whoever can write to the first store must not be able to destroy the second. [Shred](Self::shred) it there too.
    ///
    /// While the first KEK of a failover refuses, the record that says so is copied without an unwrap, where it follows the one in the second
    /// store: it is authentic by that one, and takes rights away only.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// use strongroom::provider::{Kek, KeyOptions, KeyProvider, LocalKms};
    /// use strongroom::{AccountId, AccountSpec, AekCache, Expect, MemoryRecordStore, RecordCursor};
    /// # let folder = tempfile::tempdir()?;
    /// # let kms: Arc<dyn KeyProvider> = {
    /// #     let kms = LocalKms::create(folder.path().join("kms.json"))?;
    /// #     kms.create_key("orders", KeyOptions::default())?;
    /// #     Arc::new(kms)
    /// # };
    /// # let cache = AekCache::builder().build()?;
    ///
    /// let (first, second) = (Arc::new(MemoryRecordStore::new()), Arc::new(MemoryRecordStore::new()));
    /// let spec = AccountSpec::new(AccountId::random(), Arc::clone(&kms), Kek::latest("orders"));
    /// let account = cache.create(spec.store(first.clone()))?;
    ///
    /// let expect = |id| Some(Expect::account(id).kek(Arc::clone(&kms), "orders"));
    /// let mut cursor = RecordCursor::new();
    /// let report = cache.mirror(first.as_ref(), second, &mut cursor, &expect, 50)?;
    /// assert_eq!((report.copied, report.failures.len()), (1, 0));
    /// # drop(account);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] when `per_second` is zero. [`ErrorKind::Io`] when `from` cannot be listed; the cursor stays where it
    /// was. What concerns one account is in the report.
    pub fn mirror(
        &self,
        from: &dyn RecordArchive,
        to: Arc<dyn RecordStore>,
        cursor: &mut RecordCursor,
        expect: &dyn Fn(AccountId) -> Option<Expect>,
        per_second: u32,
    ) -> Result<MirrorReport, Error> {
        let mut pace = Pace::of(per_second)?;
        let mut report = MirrorReport::default();
        loop {
            let changed = cursor.changes(from)?;
            if changed.is_empty() {
                return Ok(report);
            }
            for account in changed {
                pace.keep(self);
                match self.mirror_one(from, &to, expect, account) {
                    Ok(true) => report.copied += 1,
                    Ok(false) => report.same += 1,
                    Err(error) => {
                        cursor.forget(account);
                        report.failures.push((account, error.with_account(account)));
                    }
                }
            }
        }
    }

    /// Whether it was copied.
    fn mirror_one(
        &self,
        from: &dyn RecordArchive,
        to: &Arc<dyn RecordStore>,
        expect: &dyn Fn(AccountId) -> Option<Expect>,
        account: AccountId,
    ) -> Result<bool, Error> {
        let expect = expected(expect, account)?;
        // What is gone from the first store stays in the second one: that is what it is for.
        let Some((record, _tag)) = load(from, account)? else { return Ok(false) };
        let (source, target) = (record.clone(), Arc::clone(to));
        let copied =
            self.begin_with_record(record, &expect, move |unwrapped| copy(target.as_ref(), unwrapped)).wait();
        match copied {
            Err(error) if error.kind() == ErrorKind::Revoked && bar(to.as_ref(), &source)? => Ok(true),
            copied => copied,
        }
    }
}

/// The KMS has refused: where `source` is the record that says so, and no more, of the one that `to` has, puts it there. It takes no key,
/// and whoever goes by the copy alone would have the second KEK stand in after the refusal (contract A7).
fn bar(to: &dyn RecordStore, source: &AccountRecord) -> Result<bool, Error> {
    let Ok(Some((target, tag))) = load(to, source.account()) else { return Ok(false) };
    if target.barred().as_ref() != Some(source) {
        return Ok(false);
    }
    to.compare_and_swap(source.account(), Some(&tag), &source.to_bytes()).map(|_| true)
}

fn copy(to: &dyn RecordStore, unwrapped: &Unwrapped) -> Result<bool, Error> {
    let source = unwrapped.verified.record();
    let account = source.account();
    let untrusted = |message| Err(Error::new(ErrorKind::Untrusted, message).with_account(account));
    let tag = match to.load(account, None)? {
        Loaded::Absent => None,
        Loaded::Unchanged => return Err(unchanged(account)),
        Loaded::Found { bytes, .. } if bytes == source.to_bytes() => return Ok(false),
        // Purged here, and not there. Destroying is not undone by copying.
        Loaded::Found { bytes, .. } if Tombstone::is_of(account, &bytes) => return Err(purged(account)),
        Loaded::Found { bytes, tag } => {
            // Both carry the same AEK, so one unwrap tells of both.
            let target = AccountRecord::parse(&bytes).and_then(|target| unwrapped.verify_other(target));
            let Ok(target) = target else {
                return untrusted("the second store's record is damaged or forged: restore it there");
            };
            let (ours, theirs) = (source.sequence(), target.record().sequence());
            if theirs > ours {
                return untrusted("the second store's record is newer: the first store was rolled back");
            }
            if theirs == ours || target.verify_successor(source.clone(), unwrapped.keys.prks()).is_err() {
                return untrusted("the two stores have different records of one history: a fork");
            }
            Some(tag)
        }
    };
    to.compare_and_swap(account, tag.as_ref(), &source.to_bytes()).map(|_| true)
}
