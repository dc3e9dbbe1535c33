//! Verification of all records of a store (contracts E10, E5): every record authentic, every KEK reachable.
//!
//! What is kept of an account is proven by the AEK that its newest record carries, where it is the same one: no KMS is asked, and a KEK
//! version that is gone does not matter. Only what that AEK does not prove is unwrapped by itself. What it all comes to is in
//! `cache::verify::report`.
//!
//! Imports: `cache`, `account`, `expect`, `record_store`, `format::{record, tombstone}`, `provider`, `id`, `error`.

pub(super) mod report;

use std::collections::VecDeque;
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
use crate::format::tombstone::Tombstone;
use crate::id::AccountId;
use crate::provider::{KekUri, KekVersion};
use crate::record_store::archive::{KeptRecord, RecordArchive};
use report::VerifyReport;

/// The verification of all records of a store, one record for each `next`. [`Self::report`] runs what is left of it.
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
    with_history: bool,
    /// Of the account that is under way.
    to_do: VecDeque<ToDo>,
}

enum ToDo {
    Tell(RecordCheck),
    /// Kept records that were not read yet.
    Read(AccountId, Vec<KeptRecord>),
    /// What the newest record's AEK did not prove.
    Unwrap(AccountId, KeptRecord, Box<AccountRecord>),
}

/// One record, verified.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecordCheck {
    /// Whose record it is, by its name in the store.
    pub account: AccountId,
    /// Which of its records.
    pub which: WhichRecord,
    /// What is known of a record that is authentic, and, of the newest one, whose KEK answered; or why it is not:
    ///
    /// | [`Error::kind`] | what |
    /// |---|---|
    /// | [`ErrorKind::Untrusted`] | forged, changed, rolled back behind what is expected, of another account or KEK; or nobody expects it |
    /// | [`ErrorKind::Format`] | no record |
    /// | [`ErrorKind::Deleted`] | purged: there is a tombstone in its place |
    /// | [`ErrorKind::Revoked`] | the KMS refuses: whether it is authentic is not known |
    /// | [`ErrorKind::Unavailable`] | the KMS is silent: the same |
    /// | [`ErrorKind::Io`], [`ErrorKind::Limit`] | the record cannot be read |
    /// | [`ErrorKind::Misuse`] | the expectation or the provider is configured wrongly; or a kept record was dropped meanwhile |
    pub result: Result<CheckedRecord, Error>,
}

/// Which of an account's records was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhichRecord {
    /// The one in use.
    Newest,
    /// One that is kept in the history. The one in use is kept too, and is not told of twice.
    Kept(KeptRecord),
    /// All that are kept: they could not be listed.
    History,
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
    /// The second KEK, under failover or joint custody, and the versions of it that the record needs.
    pub second: Option<(KekUri, Vec<KekVersion>)>,
    /// The KEK that wraps the second AEK, under double encryption, and the versions of it that the record needs.
    pub outer: Option<(KekUri, Vec<KekVersion>)>,
    /// When the account was created.
    pub account_created: SystemTime,
    /// When its AEK was made.
    pub aek_created: SystemTime,
}

impl AekCache {
    /// Verifies every record of `store`: that it is a record, of its account, as `expect` says, authentic, and that its KEK
    /// answers. At most `per_second` accounts in each second, and one at a time. The second KEK of a failover custody is not asked:
    /// that one is for silence. A [`preflight`](crate::provider::preflight()) shows whether it works.
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
            with_history: false,
            to_do: VecDeque::new(),
        })
    }
}

impl VerifyAll {
    /// Verifies what is kept of each account too, after its newest record. Say it before anything is iterated.
    ///
    /// A kept record costs a load, and no unwrap if it carries the AEK of the newest one: every rotation of the KEK leaves such records.
    /// Another one costs an unwrap, at the same pace. [`Expect::least_sequence`] is of the newest record only. For each 64 kept records
    /// the newest one is unwrapped once.
    pub const fn with_history(mut self) -> Self {
        self.with_history = true;
        self
    }

    /// Verifies what is left.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the store cannot be listed. What is wrong with a record is in the report.
    pub fn report(self) -> Result<VerifyReport, Error> {
        let mut report = VerifyReport::new(self.with_history);
        for check in self {
            report.add(check?);
        }
        Ok(report)
    }

    fn next_check(&mut self) -> Result<Option<RecordCheck>, Error> {
        loop {
            match self.to_do.pop_front() {
                Some(ToDo::Tell(check)) => return Ok(Some(check)),
                Some(ToDo::Unwrap(account, kept, record)) => {
                    self.pace.keep(&self.cache);
                    let result = self.unwrap_kept(account, *record);
                    return Ok(Some(RecordCheck::kept(account, kept, result)));
                }
                // Of the newest record it was told before.
                Some(ToDo::Read(account, names)) => drop(self.check(account, names)),
                None => {
                    let Some(account) = self.next_account()? else { return Ok(None) };
                    let names = self.names(account);
                    let result = self.check(account, names);
                    return Ok(Some(RecordCheck { account, which: WhichRecord::Newest, result }));
                }
            }
        }
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

    /// What is kept of `account`, if it was asked for.
    fn names(&mut self, account: AccountId) -> Vec<KeptRecord> {
        if !self.with_history {
            return Vec::new();
        }
        self.store.history(account).unwrap_or_else(|error| {
            let result = Err(error.with_account(account));
            self.to_do.push_back(ToDo::Tell(RecordCheck { account, which: WhichRecord::History, result }));
            Vec::new()
        })
    }

    /// Verifies the newest record, and by its AEK the first of `names`.
    fn check(&mut self, account: AccountId, mut names: Vec<KeptRecord>) -> Result<CheckedRecord, Error> {
        self.pace.keep(&self.cache);
        let rest = names.split_off(names.len().min(READ_AT_ONCE));
        let newest = self.newest(account);
        let mut kept = self.read(account, names);
        if let Ok((newest, _)) = &newest {
            let bytes = newest.to_bytes();
            kept.retain(|(_, record)| record.to_bytes() != bytes);
        }
        let kept: Arc<[(KeptRecord, AccountRecord)]> = kept.into();
        let (result, proven) = match newest.and_then(|newest| self.unwrap(account, newest, &kept)) {
            Ok((checked, proven)) => (Ok(checked), proven),
            Err(error) => (Err(error), Vec::new()),
        };
        for (at, (name, record)) in kept.iter().enumerate() {
            self.to_do.push_back(match proven.get(at) {
                Some(true) => ToDo::Tell(RecordCheck::kept(account, *name, Ok(CheckedRecord::of(record)))),
                _ => ToDo::Unwrap(account, *name, Box::new(record.clone())),
            });
        }
        if !rest.is_empty() {
            self.to_do.push_back(ToDo::Read(account, rest));
        }
        result
    }

    fn newest(&self, account: AccountId) -> Result<(AccountRecord, Expect), Error> {
        let expect = expected(self.expect.as_ref(), account)?;
        let gone = || Error::new(ErrorKind::Untrusted, "the record is listed, and is not there");
        let (record, _tag) =
            load(self.store.as_ref(), account)?.ok_or_else(|| gone().with_account(account))?;
        Ok((record, expect))
    }

    /// The records called `names`. Of those that are none it is told, but of tombstones: they need nothing.
    fn read(&mut self, account: AccountId, names: Vec<KeptRecord>) -> Vec<(KeptRecord, AccountRecord)> {
        let mut records = Vec::new();
        for name in names {
            let bytes = self.store.load_kept(account, name);
            if bytes.as_ref().is_ok_and(|bytes| Tombstone::is_one(bytes)) {
                continue;
            }
            match bytes.and_then(|bytes| AccountRecord::parse(&bytes)) {
                Ok(record) => records.push((name, record)),
                Err(error) => {
                    let result = Err(error.with_account(account));
                    self.to_do.push_back(ToDo::Tell(RecordCheck::kept(account, name, result)));
                }
            }
        }
        records
    }

    /// What the newest record says, and which of `kept` its AEK proves.
    fn unwrap(
        &self,
        account: AccountId,
        (record, expect): (AccountRecord, Expect),
        kept: &Arc<[(KeptRecord, AccountRecord)]>,
    ) -> Result<(CheckedRecord, Vec<bool>), Error> {
        let kept = Arc::clone(kept);
        let check = move |unwrapped: &Unwrapped| {
            // What is of another account has another AEK.
            let proves = |record: &AccountRecord| record.clone().verify(unwrapped.keys.prks()).is_ok();
            let proven = kept.iter().map(|(_, record)| proves(record)).collect();
            Ok((CheckedRecord::of(unwrapped.verified.record()), proven))
        };
        let pending = self.cache.begin_with_record(record, &expect, check);
        pending.wait().map_err(|error| error.with_account(account))
    }

    /// A kept record of another AEK than the newest one's; or nobody knows what the newest one is.
    fn unwrap_kept(&self, account: AccountId, record: AccountRecord) -> Result<CheckedRecord, Error> {
        // Kept records are older than the newest one, which is no reason to doubt them.
        let (expect, _) = expected(self.expect.as_ref(), account)?.split_least_sequence();
        self.unwrap(account, (record, expect), &Arc::from([])).map(|(checked, _)| checked)
    }
}

impl Iterator for VerifyAll {
    type Item = Result<RecordCheck, Error>;

    /// Verifies one record. An error of the iterator itself is one of listing, and ends it.
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.next_check();
        self.ended = !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}

impl RecordCheck {
    const fn kept(account: AccountId, name: KeptRecord, result: Result<CheckedRecord, Error>) -> Self {
        Self { account, which: WhichRecord::Kept(name), result }
    }
}

impl CheckedRecord {
    fn of(record: &AccountRecord) -> Self {
        let mut needed = record.slots().into_iter().map(|slot| {
            let mut versions = vec![slot.wrapped.version().clone()];
            versions.extend(slot.standby.as_ref().map(|standby| standby.version().clone()));
            (slot.wrapped.kek().clone(), versions)
        });
        let (kek, versions) = needed.next().expect("a record has an AEK");
        let second = if record.second_kek().is_some() { needed.next() } else { None };
        let outer = needed.next();
        Self {
            sequence: record.sequence(),
            kek,
            versions,
            second,
            outer,
            account_created: record.created(),
            aek_created: record.generation_created(),
        }
    }
}

impl fmt::Debug for VerifyAll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyAll").field("at", &self.at).finish_non_exhaustive()
    }
}

/// How many kept records are read, and proven by one unwrap: of what a hostile store keeps, so much at most is in memory.
const READ_AT_ONCE: usize = 64;
