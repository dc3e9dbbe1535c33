//! Verification of all records of a store (contracts E10, E5): every record authentic, every KEK reachable.
//!
//! Imports: `cache`, `account`, `expect`, `record_store`, `format::record`, `provider`, `id`, `error`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;
use std::vec::IntoIter;

use super::AekCache;
use super::records::{Pace, expected, load};
use crate::account::unwrap::Unwrapped;
use crate::error::{Error, ErrorKind};
use crate::expect::Expect;
use crate::format::record::{AccountRecord, Sequence};
use crate::id::AccountId;
use crate::provider::{KekUri, KekVersion};
use crate::record_store::archive::RecordArchive;

/// The verification of all records of a store, one account for each `next`. [`Self::report`] runs what is left of it.
///
/// Each account costs one load and one unwrap, at the pace that was asked for, and one at a time. The keys are wiped at once:
/// no account becomes ready by it, no lease is renewed, and no KMS that hangs holds up more than its deadline.
#[must_use = "nothing is verified until it is iterated, or asked for its report"]
pub struct VerifyAll {
    cache: AekCache,
    store: Arc<dyn RecordArchive>,
    expect: Box<dyn Fn(AccountId) -> Option<Expect> + Send + Sync>,
    page: IntoIter<AccountId>,
    /// The last account that was listed; where the listing goes on.
    at: Option<AccountId>,
    ended: bool,
    pace: Pace,
}

/// One account, verified.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecordCheck {
    /// Whose record it is, by its name in the store.
    pub account: AccountId,
    /// What is known of a record that is authentic and whose KEK answered, or why it is not:
    ///
    /// | [`Error::kind`] | what |
    /// |---|---|
    /// | [`ErrorKind::Untrusted`] | forged, changed, rolled back behind what is expected, of another account or KEK; or nobody expects it |
    /// | [`ErrorKind::Format`] | no record |
    /// | [`ErrorKind::Deleted`] | purged: there is a tombstone in its place |
    /// | [`ErrorKind::Revoked`] | the KMS refuses: whether it is authentic is not known |
    /// | [`ErrorKind::Unavailable`] | the KMS is silent: the same |
    /// | [`ErrorKind::Io`], [`ErrorKind::Limit`] | the record cannot be read |
    /// | [`ErrorKind::Misuse`] | the expectation or the provider is configured wrongly |
    pub result: Result<CheckedRecord, Error>,
}

/// What an authentic record says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckedRecord {
    /// How often it was changed. Note it: [`Expect::least_sequence`].
    pub sequence: Sequence,
    /// The KEK that wraps the AEK.
    pub kek: KekUri,
    /// The versions of it that the record needs: the one in use, and that of the standby wrap.
    pub versions: Vec<KekVersion>,
    /// When the account was created.
    pub account_created: SystemTime,
    /// When its AEK was made.
    pub aek_created: SystemTime,
}

/// What the verification of a whole store came to.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Accounts that were verified, whatever came of it.
    pub accounts: u64,
    /// Those whose record is authentic, and whose KEK answered.
    pub authentic: u64,
    /// Purged accounts: those with a tombstone. Whether somebody else than you put one there cannot be told.
    pub purged: u64,
    /// The others.
    pub failures: Vec<RecordCheck>,
    /// When the oldest AEK was made, of the authentic records.
    pub oldest_aek: Option<SystemTime>,
    /// How many authentic records need each version of each KEK: what is not here, and not needed by a failure, by a kept record or
    /// by a copy elsewhere, can be retired (contract E5).
    pub needed: BTreeMap<(KekUri, KekVersion), u64>,
}

impl AekCache {
    /// Verifies every record of `store`: that it is a record, of its account, as `expect` says, authentic, and that its KEK
    /// answers. At most `per_second` accounts in each second, and one at a time.
    ///
    /// It runs on the thread that iterates, which it blocks; calls to KMSs are made on the cache's threads.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// use strongroom::provider::{Kek, KeyOptions, KeyProvider, LocalKms};
    /// use strongroom::{AccountId, AccountSpec, AekCache, Expect, MemoryRecordStore, RecordStore};
    /// # let folder = tempfile::tempdir()?;
    /// # let kms: Arc<dyn KeyProvider> = {
    /// #     let kms = LocalKms::create(folder.path().join("kms.json"))?;
    /// #     kms.create_key("orders", KeyOptions::default())?;
    /// #     Arc::new(kms)
    /// # };
    /// # let cache = AekCache::builder().build()?;
    ///
    /// let store = Arc::new(MemoryRecordStore::new());
    /// let spec = AccountSpec::new(AccountId::random(), Arc::clone(&kms), Kek::latest("orders"));
    /// let account = cache.create(spec.store(store.clone()))?;
    ///
    /// let expect = move |id| Some(Expect::account(id).kek(Arc::clone(&kms), "orders"));
    /// let report = cache.verify_all(store, expect, 50)?.report()?;
    /// assert_eq!((report.accounts, report.authentic), (1, 1));
    /// assert!(report.failures.is_empty());
    /// # drop(account);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] when `per_second` is zero.
    pub fn verify_all(
        &self,
        store: Arc<dyn RecordArchive>,
        expect: impl Fn(AccountId) -> Option<Expect> + Send + Sync + 'static,
        per_second: u32,
    ) -> Result<VerifyAll, Error> {
        let pace = Pace::of(per_second)?;
        Ok(VerifyAll {
            cache: self.clone(),
            store,
            expect: Box::new(expect),
            page: Vec::new().into_iter(),
            at: None,
            ended: false,
            pace,
        })
    }
}

impl VerifyAll {
    /// Verifies what is left.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the store cannot be listed. What is wrong with a record is in the report.
    pub fn report(self) -> Result<VerifyReport, Error> {
        let mut report = VerifyReport::default();
        for check in self {
            report.add(check?);
        }
        Ok(report)
    }

    fn next_account(&mut self) -> Result<Option<AccountId>, Error> {
        if let Some(account) = self.page.next() {
            return Ok(Some(account));
        }
        let page: Vec<AccountId> =
            self.store.list(self.at)?.into_iter().map(|listed| listed.account).collect();
        let Some(last) = page.iter().max().copied() else { return Ok(None) };
        // A store whose listing does not go on would be listed for ever.
        if self.at.is_some_and(|at| last <= at) {
            return Err(Error::new(ErrorKind::Io, "the record store does not list its accounts in order"));
        }
        self.at = Some(last);
        self.page = page.into_iter();
        Ok(self.page.next())
    }

    fn check(&self, account: AccountId) -> Result<CheckedRecord, Error> {
        let expect = expected(self.expect.as_ref(), account)?;
        let gone = || Error::new(ErrorKind::Untrusted, "the record is listed, and is not there");
        let (record, _tag) =
            load(self.store.as_ref(), account)?.ok_or_else(|| gone().with_account(account))?;
        let check = |unwrapped: &Unwrapped| Ok(CheckedRecord::of(unwrapped.verified.record()));
        self.cache
            .begin_with_record(record, &expect, check)
            .wait()
            .map_err(|error| error.with_account(account))
    }
}

impl Iterator for VerifyAll {
    type Item = Result<RecordCheck, Error>;

    /// Verifies one account. An error of the iterator itself is one of listing, and ends it.
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match self.next_account() {
            Ok(Some(account)) => {
                self.pace.keep(&self.cache);
                Some(Ok(RecordCheck { account, result: self.check(account) }))
            }
            Ok(None) => {
                self.ended = true;
                None
            }
            Err(error) => {
                self.ended = true;
                Some(Err(error))
            }
        }
    }
}

impl CheckedRecord {
    fn of(record: &AccountRecord) -> Self {
        let mut versions = vec![record.kek_version().clone()];
        versions.extend(record.standby_version().cloned());
        Self {
            sequence: record.sequence(),
            kek: record.kek().clone(),
            versions,
            account_created: record.created(),
            aek_created: record.generation_created(),
        }
    }
}

impl VerifyReport {
    fn add(&mut self, check: RecordCheck) {
        self.accounts += 1;
        match &check.result {
            Err(error) if error.kind() == ErrorKind::Deleted => self.purged += 1,
            Err(_) => self.failures.push(check),
            Ok(CheckedRecord { sequence: _, kek, versions, account_created: _, aek_created }) => {
                self.authentic += 1;
                self.oldest_aek =
                    Some(self.oldest_aek.map_or(*aek_created, |oldest| oldest.min(*aek_created)));
                for version in versions {
                    *self.needed.entry((kek.clone(), version.clone())).or_default() += 1;
                }
            }
        }
    }
}

impl fmt::Debug for VerifyAll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyAll").field("at", &self.at).finish_non_exhaustive()
    }
}
