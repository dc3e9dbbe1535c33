//! What a store can tell besides the one newest record: which accounts it has, what has changed, and what was replaced
//! (contracts G2, E10).
//!
//! Nothing here is believed either: a listing is a hint of what to load, and a kept record is opaque bytes until it
//! verifies. Imports: `record_store`, `format::{record, tombstone}`, `random`, `id`, `error`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use super::{RecordStore, RecordTag};
use crate::error::{Error, ErrorKind};
#[cfg(doc)]
use crate::format::record::AccountRecord;
use crate::format::record::Sequence;
use crate::format::tombstone::sequence_of;
use crate::id::AccountId;
use crate::random;

/// A [`RecordStore`] that lists its accounts and keeps the records that were replaced.
///
/// [`AekCache::verify_all`](crate::AekCache::verify_all), [`AekCache::mirror`](crate::AekCache::mirror) and
/// [`RecordCursor`] work on any of them; what refreshes and rotates accounts needs a [`RecordStore`] only.
///
/// ```
/// use strongroom::{AccountId, MemoryRecordStore, RecordArchive, RecordCursor, RecordStore};
///
/// let store = MemoryRecordStore::new();
/// let account = AccountId::random();
/// let tag = store.compare_and_swap(account, None, b"one")?;
/// store.compare_and_swap(account, Some(&tag), b"two")?;
///
/// // Every record that was written is kept, the newest one too: 32 unless told otherwise.
/// let kept = store.history(account)?;
/// assert_eq!(kept.len(), 2);
/// assert!(kept.iter().any(|kept| store.load_kept(account, *kept).is_ok_and(|bytes| bytes == b"one")));
///
/// // What has changed since the cursor was here last: from the beginning, everything.
/// let mut cursor = RecordCursor::new();
/// assert_eq!(cursor.changes(&store)?, [account]);
/// assert_eq!(cursor.changes(&store)?, []);
/// # Ok::<(), strongroom::Error>(())
/// ```
pub trait RecordArchive: RecordStore {
    /// The accounts with ids above `after`, the lowest ids first; all of them with `None`. At most
    /// [`LISTED_AT_ONCE`] of them: ask again after the last one. Empty when there are no more.
    ///
    /// Not a snapshot: a record that is written meanwhile may be seen or not. One that was there before the call is seen.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the store cannot be asked.
    fn list(&self, after: Option<AccountId>) -> Result<Vec<Listed>, Error>;

    /// The records of `account` that are kept, the lowest sequence first, as far as it could be read. A record is kept
    /// *before* it becomes the newest one, so one that lost against a rival, or whose writer died, may be among them.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the store cannot be asked. An account without any is no error.
    fn history(&self, account: AccountId) -> Result<Vec<KeptRecord>, Error>;

    /// The bytes of one of them, at most 1 MiB. They may be anything: [`AccountRecord::parse`] them.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the store cannot be asked, [`ErrorKind::Misuse`] when it is not there any more.
    fn load_kept(&self, account: AccountId, kept: KeptRecord) -> Result<Vec<u8>, Error>;
}

/// How many accounts [`RecordArchive::list`] gives at a time, at most.
pub const LISTED_AT_ONCE: usize = 10_000;

/// How many records of each account are kept unless told otherwise. Each is some 500 bytes, and they come with rotations.
pub const DEFAULT_HISTORY: usize = 32;

/// An account in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// Whose record it is, by its name.
    pub account: AccountId,
    /// Differs whenever the record does. Compare it with those of other listings of the same store, and not with the tags
    /// that [`RecordStore::load`] gives.
    pub stamp: RecordTag,
}

impl Listed {
    /// `account`, whose record is stamped `stamp`.
    #[must_use]
    pub const fn new(account: AccountId, stamp: RecordTag) -> Self {
        Self { account, stamp }
    }
}

/// Names a record that is kept, among those of its account: by its sequence, and by 128 random bits, since two writers
/// that compete write the same sequence.
///
/// `Display` writes it as a file name, 53 characters, and `FromStr` reads that, for stores of your own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeptRecord {
    /// Zero where it could not be read.
    sequence: u64,
    unique: [u8; 16],
}

impl KeptRecord {
    /// A new name for `record`.
    #[must_use]
    pub fn naming(record: &[u8]) -> Self {
        let sequence = sequence_of(record).map_or(0, Sequence::number);
        let mut unique = [0; 16];
        random::fill(&mut unique);
        Self { sequence, unique }
    }

    /// The record's sequence, as its writer could read it; `None` for what was no record. A hint, like every name.
    #[must_use]
    pub const fn sequence(self) -> Option<Sequence> {
        Sequence::new(self.sequence)
    }

    /// Of the names in `kept`, those that have to go so that the `most` highest sequences stay. For stores of your own.
    #[must_use]
    pub fn surplus(kept: &[Self], most: usize) -> Vec<Self> {
        let mut newest_first = kept.to_vec();
        newest_first.sort_unstable_by(|a, b| b.cmp(a));
        let (mut sequences, mut last) = (0, None);
        newest_first.retain(|kept| {
            // What is no record has no order, and counts for itself, so that it is bounded too.
            if kept.sequence == 0 || last.replace(kept.sequence) != Some(kept.sequence) {
                sequences += 1;
            }
            sequences > most
        });
        newest_first
    }
}

impl fmt::Display for KeptRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}-", self.sequence)?;
        self.unique.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeptRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeptRecord({self})")
    }
}

impl FromStr for KeptRecord {
    type Err = Error;

    /// Reads exactly what `Display` writes.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::new(ErrorKind::Misuse, "a kept record is named by 20 digits, - and 32 digits");
        let (sequence, unique) = text.split_once('-').ok_or_else(wrong)?;
        // An account's id is written the same way: 32 lower-case digits.
        let unique: AccountId = unique.parse().map_err(|_| wrong())?;
        let name = Self { sequence: sequence.parse().map_err(|_| wrong())?, unique: *unique.as_bytes() };
        if name.to_string() == text { Ok(name) } else { Err(wrong()) }
    }
}

/// Where somebody stands who follows a store's changes: for a mirror, or for a machine that wants to know what others
/// have changed.
///
/// It holds the stamp of each account's record as it was seen last, some 64 bytes for each, and so depends on no clock and on
/// no memory of the store. No change is missed; one that comes while the cursor passes may be given twice. Used with
/// another store, or anew after a restart, it gives everything. Not to be persisted: copying all again costs reads and harms
/// nothing.
#[derive(Clone, Default)]
pub struct RecordCursor {
    seen: BTreeMap<AccountId, RecordTag>,
    /// Where the pass under way stands; `None` between two.
    at: Option<AccountId>,
}

impl RecordCursor {
    /// Before everything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Accounts whose record has changed since this cursor was there: of the next [`LISTED_AT_ONCE`] accounts that have
    /// changed, or of all the rest of the store. Empty when it has been passed through: the next call begins anew.
    ///
    /// # Errors
    /// As [`RecordArchive::list`]; the cursor stays where it is.
    pub fn changes(&mut self, store: &dyn RecordArchive) -> Result<Vec<AccountId>, Error> {
        loop {
            let page = store.list(self.at)?;
            let Some(last) = page.last() else {
                self.end_pass();
                return Ok(Vec::new());
            };
            // A store whose listing does not go on would be listed for ever.
            if self.at.is_some_and(|at| last.account <= at)
                || !page.is_sorted_by(|a, b| a.account < b.account)
            {
                return Err(Error::new(
                    ErrorKind::Io,
                    "the record store does not list its accounts in order",
                ));
            }
            let last = last.account;
            let changed = self.take(&page);
            self.at = Some(last);
            if !changed.is_empty() {
                return Ok(changed);
            }
        }
    }

    /// Gives `account` again at the next pass, because what was to be done with it failed.
    pub fn forget(&mut self, account: AccountId) {
        self.seen.remove(&account);
    }

    fn take(&mut self, page: &[Listed]) -> Vec<AccountId> {
        let Some(last) = page.last() else { return Vec::new() };
        let listed: BTreeSet<AccountId> = page.iter().map(|listed| listed.account).collect();
        let (first, last) = (self.at, last.account);
        self.seen.retain(|account, _| {
            let covered = *account <= last && first.is_none_or(|first| *account > first);
            !covered || listed.contains(account)
        });
        let news = page.iter().filter(|listed| self.seen.get(&listed.account) != Some(&listed.stamp));
        let news: Vec<Listed> = news.cloned().collect();
        let changed = news.iter().map(|listed| listed.account).collect();
        self.seen.extend(news.into_iter().map(|Listed { account, stamp }| (account, stamp)));
        changed
    }

    fn end_pass(&mut self) {
        // Accounts above the last one that is listed are gone.
        match self.at.take() {
            Some(last) => self.seen.retain(|account, _| *account <= last),
            None => self.seen.clear(),
        }
    }
}

/// Of `all`, in whatever order, the first ones after `after`: what a store's listing gives. Holds no more than that.
pub(crate) fn first_after(all: impl IntoIterator<Item = Listed>, after: Option<AccountId>) -> Vec<Listed> {
    let mut first = BTreeMap::new();
    for Listed { account, stamp } in all {
        if after.is_none_or(|after| account > after) {
            first.insert(account, stamp);
            if first.len() > LISTED_AT_ONCE {
                first.pop_last();
            }
        }
    }
    first.into_iter().map(|(account, stamp)| Listed { account, stamp }).collect()
}

/// For those who implement [`RecordArchive`].
impl Error {
    /// No such record is kept.
    #[must_use]
    pub const fn record_not_kept(account: AccountId) -> Self {
        Self::new(ErrorKind::Misuse, "this record is not kept any more").with_account(account)
    }
}

impl fmt::Debug for RecordCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordCursor").field("seen", &self.seen.len()).field("at", &self.at).finish()
    }
}
