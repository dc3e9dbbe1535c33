//! A record put back: from a history, a mirror or a backup, and an older one only at an explicit word (contract E10).
//!
//! ```text
//! what the store has                        without the word       with it
//! nothing, and no newer one is known        put back as it was     put back as it was
//! the same record, and no newer is known    nothing to do          nothing to do
//! an authentic one of a lower sequence      put back as it was     put back as it was
//! a tombstone                               Deleted                its content, under the next sequence
//! any other                                 Untrusted              its content, under the next sequence
//! ```
//! A process that uses the account adopts a record only if its sequence has grown. So an older one is not put back as it
//! was, which every such process would refuse, but sealed anew to follow what it replaces. Imports: `cache`, `account`,
//! `expect`, `keeper`, `record_store`, `format::{record, tombstone}`, `error`.

use std::fmt;
use std::sync::Arc;

use super::AekCache;
use super::records::unchanged;
use crate::account::unwrap::Unwrapped;
use crate::error::{Error, ErrorKind};
use crate::expect::Expect;
use crate::format::record::{AccountRecord, Sequence, VerifiedRecord};
use crate::format::tombstone::{Tombstone, sequence_of};
use crate::id::AccountId;
use crate::keeper::Pending;
use crate::record_store::{Loaded, RecordStore, RecordTag};

/// Which record to put back, and where.
#[derive(Clone)]
#[must_use]
pub struct RestoreSpec {
    store: Arc<dyn RecordStore>,
    record: AccountRecord,
    expect: Expect,
    accept_older: bool,
}

/// What a restoration has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Restored {
    /// The store has this very record.
    Unchanged,
    /// The record is in the store as it was: there was none, or an older one.
    AsItWas,
    /// The record's content is in the store, under this sequence.
    Again(Sequence),
}

impl RestoreSpec {
    /// Puts `record` into `store`, if it is as `expect` says and newer than what is there.
    pub fn new(store: Arc<dyn RecordStore>, record: AccountRecord, expect: Expect) -> Self {
        Self { store, record, expect, accept_older: false }
    }

    /// Puts it back also where the store's record is newer, or is no authentic record of the account. What the newer record had
    /// changed is undone: the customer's policy, the KEK version, a deletion, a purge.
    ///
    /// [`Expect::least_sequence`] is then no condition. It is the sequence that the record is put back after: say the highest one that any
    /// process may know, where the store's own record is lost or forged. Processes that know a higher one refuse what was put
    /// back, with an alarm, until it is done again.
    pub const fn accept_an_older_record(mut self) -> Self {
        self.accept_older = true;
        self
    }
}

impl fmt::Debug for RestoreSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store: _, record, expect, accept_older } = self;
        f.debug_struct("RestoreSpec")
            .field("record", record)
            .field("expect", expect)
            .field("accept_older", accept_older)
            .finish_non_exhaustive()
    }
}

impl AekCache {
    /// Puts a record back, once the KMS has unwrapped it and it is authentic. Processes that use the account go by it within
    /// one refresh, this one too; nothing has to be restarted.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// use strongroom::provider::{Kek, KeyOptions, KeyProvider, LocalKms};
    /// use strongroom::{
    ///     AccountId, AccountRecord, AccountSpec, AekCache, ErrorKind, Expect, MemoryRecordStore, RecordArchive, Restored,
    ///     RestoreSpec, RotateTo,
    /// };
    /// # let folder = tempfile::tempdir()?;
    /// # let kms = Arc::new(LocalKms::create(folder.path().join("kms.json"))?);
    /// # kms.create_key("orders", KeyOptions::default())?;
    /// # let cache = AekCache::builder().build()?;
    ///
    /// let (id, store) = (AccountId::random(), Arc::new(MemoryRecordStore::new()));
    /// let account = cache.create(AccountSpec::new(id, kms.clone(), Kek::latest("orders")).store(store.clone()))?;
    /// kms.rotate_key("orders")?;
    /// account.rotate_kek(RotateTo::Latest)?;
    ///
    /// // The first record, which the rotation has replaced.
    /// let kept = store.history(id)?[0];
    /// let first = AccountRecord::parse(&store.load_kept(id, kept)?)?;
    /// let spec = RestoreSpec::new(store, first, Expect::account(id).kek(kms, "orders"));
    /// assert_eq!(cache.restore(spec.clone()).unwrap_err().kind(), ErrorKind::Untrusted);
    /// assert!(matches!(cache.restore(spec.accept_an_older_record())?, Restored::Again(sequence) if sequence.number() == 3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Untrusted`] when the record is not as expected, not authentic, or not newer than what is there and
    /// [`RestoreSpec::accept_an_older_record`] was not said. [`ErrorKind::Deleted`] when it was not said and the account was purged. [`ErrorKind::Conflict`] when somebody else changed the store's record
    /// meanwhile: retry. [`ErrorKind::Revoked`], [`ErrorKind::Unavailable`] and [`ErrorKind::Misuse`] for what the KMS answered.
    /// After [`ErrorKind::Io`] and [`ErrorKind::Unavailable`] it may have been put back all the same: retry.
    pub fn restore(&self, spec: RestoreSpec) -> Result<Restored, Error> {
        self.begin_restore(spec).wait()
    }

    /// The same, as a future.
    pub fn begin_restore(&self, spec: RestoreSpec) -> Pending<Restored> {
        let RestoreSpec { store, record, expect, accept_older } = spec;
        let (expect, least) = if accept_older { expect.split_least_sequence() } else { (expect, None) };
        let floor = least.max(self.known_sequence(record.account()));
        self.begin_with_record(record, &expect, move |unwrapped| {
            put_back(store.as_ref(), unwrapped, floor, accept_older)
        })
    }

    /// Of the record that this process goes by, where it uses the account.
    fn known_sequence(&self, id: AccountId) -> Option<Sequence> {
        let account = self.shared.registry().by_id.get(&id)?.upgrade()?;
        account.known().verified.map(|verified| verified.record().sequence())
    }
}

fn put_back(
    store: &dyn RecordStore,
    unwrapped: &Unwrapped,
    floor: Option<Sequence>,
    accept_older: bool,
) -> Result<Restored, Error> {
    let (verified, account) = (&unwrapped.verified, unwrapped.verified.record().account());
    let ours = verified.record().sequence();
    let found = current(store, unwrapped)?;
    let known = match &found {
        Found::Nothing => floor,
        // Unless this process goes by a newer one: then the store was rolled back.
        Found::Same(_) if floor.is_none_or(|floor| floor <= ours) => return Ok(Restored::Unchanged),
        Found::Same(_) => floor,
        Found::Authentic(theirs, _) => floor.max(Some(theirs.record().sequence())),
        Found::Purged(theirs, _) => floor.max(Some(*theirs)).max(Some(ours)),
        // Nobody knows how new it is.
        Found::Damaged(_) => floor.max(Some(ours)),
    };
    let follows = match (&found, known) {
        (Found::Nothing, None) => true,
        // This process may go by this very record.
        (Found::Nothing, Some(known)) => ours >= known,
        (Found::Authentic(theirs, _), Some(known)) => {
            ours > known && theirs.verify_successor(verified.record().clone(), unwrapped.keys.prks()).is_ok()
        }
        _ => false,
    };
    if follows {
        store.compare_and_swap(account, found.tag(), &verified.record().to_bytes())?;
        return Ok(Restored::AsItWas);
    }
    if !accept_older {
        let kind = match found {
            Found::Purged(..) => ErrorKind::Deleted,
            _ => ErrorKind::Untrusted,
        };
        return Err(Error::new(kind, found.why_not()).with_account(account));
    }
    let again = verified.again_after(known.unwrap_or(ours))?.seal(unwrapped.keys.prks())?;
    store.compare_and_swap(account, found.tag(), &again.record().to_bytes())?;
    Ok(Restored::Again(again.record().sequence()))
}

/// What the store has now.
enum Found {
    Nothing,
    Same(RecordTag),
    Authentic(Box<VerifiedRecord>, RecordTag),
    Damaged(RecordTag),
    /// A tombstone, and its sequence.
    Purged(Sequence, RecordTag),
}

impl Found {
    const fn tag(&self) -> Option<&RecordTag> {
        match self {
            Self::Nothing => None,
            Self::Same(tag) | Self::Authentic(_, tag) | Self::Damaged(tag) | Self::Purged(_, tag) => {
                Some(tag)
            }
        }
    }

    const fn why_not(&self) -> &'static str {
        match self {
            Self::Nothing | Self::Same(_) => "a newer record than this one is in use: accept_an_older_record",
            Self::Authentic(..) => "the store's record is not older than this one: accept_an_older_record",
            Self::Purged(..) => {
                "the account was purged: accept_an_older_record, if its destruction shall be undone"
            }
            Self::Damaged(_) => {
                "the store's record is not authentic, so it is not known to be older: accept_an_older_record"
            }
        }
    }
}

fn current(store: &dyn RecordStore, unwrapped: &Unwrapped) -> Result<Found, Error> {
    let ours = unwrapped.verified.record();
    Ok(match store.load(ours.account(), None)? {
        Loaded::Absent => Found::Nothing,
        Loaded::Unchanged => return Err(unchanged(ours.account())),
        Loaded::Found { bytes, tag } if bytes == ours.to_bytes() => Found::Same(tag),
        Loaded::Found { bytes, tag } if Tombstone::is_of(ours.account(), &bytes) => {
            Found::Purged(sequence_of(&bytes)?, tag)
        }
        // Both carry the same AEK, so one unwrap tells of both, also where the KEK version of the newer one is gone.
        Loaded::Found { bytes, tag } => {
            match AccountRecord::parse(&bytes).and_then(|theirs| unwrapped.verify_other(theirs)) {
                Ok(theirs) if theirs.record().account() == ours.account() => {
                    Found::Authentic(Box::new(theirs), tag)
                }
                _ => Found::Damaged(tag),
            }
        }
    })
}
