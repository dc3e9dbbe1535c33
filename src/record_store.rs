//! Where records are kept: load, and replace only what one has seen (contract G2).
//!
//! A store moves opaque bytes. It is trusted with nothing: what it returns is parsed within bounds, compared
//! with what the embedder expects, and believed only once its MAC verifies. What else a store can tell is in
//! `record_store::archive`. Imports: `record_store::archive`, `format::{record, tombstone}`, `id`, `error`.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind};
use crate::format::record::Sequence;
use crate::id::AccountId;

pub(crate) mod archive;

use archive::{DEFAULT_HISTORY, KeptRecord, Listed, RecordArchive, first_after};

/// Keeps one record per account, shared by any number of processes and machines.
///
/// Called on the library's own threads, and by [`AekCache::attach_stored`](crate::AekCache::attach_stored) on its
/// caller's; it may block. Every refresh of an account loads with the tag that it knows, so make
/// [`Loaded::Unchanged`] cheap.
///
/// A store over anything that replaces a value only if it is unchanged:
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::{Mutex, PoisonError};
/// use strongroom::{AccountId, Error, Loaded, RecordStore, RecordTag};
///
/// #[derive(Debug, Default)]
/// struct Table(Mutex<HashMap<AccountId, Vec<u8>>>); // your database
///
/// impl RecordStore for Table {
///     fn load(&self, account: AccountId, known: Option<&RecordTag>) -> Result<Loaded, Error> {
///         let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
///         let Some(bytes) = rows.get(&account) else { return Ok(Loaded::Absent) };
///         let tag = RecordTag::sha256_of(bytes);
///         if known == Some(&tag) { Ok(Loaded::Unchanged) } else { Ok(Loaded::Found { bytes: bytes.clone(), tag }) }
///     }
///
///     fn compare_and_swap(
///         &self,
///         account: AccountId,
///         expected: Option<&RecordTag>,
///         bytes: &[u8],
///     ) -> Result<RecordTag, Error> {
///         let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
///         let current = rows.get(&account).map(|bytes| RecordTag::sha256_of(bytes));
///         if current.as_ref() != expected {
///             return Err(Error::record_conflict(account));
///         }
///         rows.insert(account, bytes.to_vec());
///         Ok(RecordTag::sha256_of(bytes))
///     }
/// }
/// # let (table, id) = (Table::default(), AccountId::random());
/// # let tag = table.compare_and_swap(id, None, b"a record").unwrap();
/// # assert_eq!(table.load(id, Some(&tag)).unwrap(), Loaded::Unchanged);
/// # assert!(table.compare_and_swap(id, None, b"a record").is_err());
/// ```
pub trait RecordStore: fmt::Debug + Send + Sync + 'static {
    /// The record of `account`, unless it still is the one tagged `known`.
    ///
    /// What was found must be as durable as the store can make it: what is read here is acted upon.
    ///
    /// # Errors
    /// [`Error::record_store`] when the store cannot be asked. An absent record is no error.
    fn load(&self, account: AccountId, known: Option<&RecordTag>) -> Result<Loaded, Error>;

    /// Replaces the record tagged `expected` by `bytes`, or creates it where `expected` is `None`, in one step
    /// that no other writer can come between. Returns the new record's tag once it is durable.
    ///
    /// # Errors
    /// [`Error::record_conflict`] when the record is another one, or is absent, or (with `None`) exists: then nothing
    /// was written. After any other error either record may be there: load again to know.
    fn compare_and_swap(
        &self,
        account: AccountId,
        expected: Option<&RecordTag>,
        bytes: &[u8],
    ) -> Result<RecordTag, Error>;

    /// The same, for a record that nobody has authenticated: it says that a KMS has refused, which needs no key, and follows what is in the store,
    /// whatever that claims. Is as [`Self::compare_and_swap`] unless it is implemented: a store that keeps an anchor does not raise it to that.
    ///
    /// # Errors
    /// As [`Self::compare_and_swap`].
    fn swap_unauthenticated(
        &self,
        account: AccountId,
        expected: Option<&RecordTag>,
        bytes: &[u8],
    ) -> Result<RecordTag, Error> {
        self.compare_and_swap(account, expected, bytes)
    }

    /// Is told of each record of this store that was proven authentic, before its keys come into use, at every refresh.
    /// Does nothing unless it is implemented: it is for stores that keep an anchor, such as
    /// [`AnchoredRecordStore`](crate::AnchoredRecordStore).
    ///
    /// # Errors
    /// As [`Self::load`]: the refresh counts as one without a record.
    fn authenticated(&self, account: AccountId, sequence: Sequence) -> Result<(), Error> {
        let _ = (account, sequence);
        Ok(())
    }

    /// Destroys every record of `account` that is kept beside the newest one, and what else there may be of them, so that nothing is left
    /// of a wrapped key that was purged, or of a generation that was destroyed. Called once a tombstone, or a record without that generation, is
    /// in the place of the record, which it leaves alone; again where it failed. A store that keeps nothing says `Ok`.
    ///
    /// What a store promises is that *it* gives these bytes to nobody any more. Blocks of a disk, backups, versions of a bucket and
    /// replicas are out of its reach.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] unless it is implemented: what is not destroyed must not be said to be. [`Error::record_store`] when
    /// something may be left; what was destroyed stays so.
    fn destroy_kept(&self, account: AccountId) -> Result<(), Error> {
        let message = "this record store cannot destroy what it keeps: purge it by its own means";
        Err(Error::new(ErrorKind::Misuse, message).with_account(account))
    }

    /// Whether a record that was taken back is noticed, also by a process that has just started (contract F6). Not unless
    /// it is implemented.
    fn is_anchored(&self) -> bool {
        false
    }
}

/// What [`RecordStore::load`] found.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loaded {
    /// No record of that account.
    Absent,
    /// The record is the one that the caller knows.
    Unchanged,
    /// Another record than the caller knows.
    Found {
        /// The record, unparsed: at most 1 MiB is accepted.
        bytes: Vec<u8>,
        /// Names exactly these bytes in this store.
        tag: RecordTag,
    },
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("Absent"),
            Self::Unchanged => f.write_str("Unchanged"),
            Self::Found { bytes, tag } => {
                f.debug_struct("Found").field("len", &bytes.len()).field("tag", tag).finish()
            }
        }
    }
}

/// A store's name for one exact state of one record: an ETag, a hash, a counter. Opaque to the library.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RecordTag(Box<[u8]>);

impl RecordTag {
    /// The longest tag, in bytes.
    pub const MAX_LEN: usize = 1024;

    /// The tag that is written `bytes`.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] when it is longer than [`Self::MAX_LEN`].
    pub fn new(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > Self::MAX_LEN {
            return Err(Error::new(ErrorKind::Limit, "a record's tag is longer than 1024 bytes"));
        }
        Ok(Self(bytes.into()))
    }

    /// The SHA-256 of a record, for stores that have no tags of their own.
    #[must_use]
    pub fn sha256_of(record: &[u8]) -> Self {
        Self(Sha256::digest(record).as_slice().into())
    }

    /// The tag's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for RecordTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordTag(")?;
        self.0.iter().take(SHOWN_OF_TAG).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(if self.0.len() > SHOWN_OF_TAG { "..)" } else { ")" })
    }
}

/// For those who implement [`RecordStore`].
impl Error {
    /// Somebody else changed the record first. Nothing was written.
    #[must_use]
    pub const fn record_conflict(account: AccountId) -> Self {
        Self::new(ErrorKind::Conflict, "the record was changed by somebody else: load it again, then retry")
            .with_account(account)
    }

    /// The store failed, or could not be reached.
    #[must_use]
    pub fn record_store(account: AccountId, source: impl StdError + Send + Sync + 'static) -> Self {
        let detail = source.to_string();
        Self::new(ErrorKind::Io, "the record store failed")
            .with_account(account)
            .with_detail(detail)
            .with_source(source)
    }
}

/// Records in memory, for tests and for embedders that keep the bytes themselves. Gone with the process.
pub struct MemoryRecordStore {
    records: Mutex<HashMap<AccountId, Row>>,
    most_kept: usize,
}

struct Row {
    bytes: Vec<u8>,
    kept: Vec<(KeptRecord, Vec<u8>)>,
}

impl MemoryRecordStore {
    /// A store without records.
    #[must_use]
    pub fn new() -> Self {
        Self { records: Mutex::default(), most_kept: DEFAULT_HISTORY }
    }

    /// Keeps the last `most` records of each account, the newest one included; none with zero. Default: 32.
    #[must_use]
    pub const fn keep_history(mut self, most: usize) -> Self {
        self.most_kept = most;
        self
    }

    fn records(&self) -> MutexGuard<'_, HashMap<AccountId, Row>> {
        // OK because no code that can panic runs between the two halves of a change.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryRecordStore {
    fn default() -> Self {
        Self::new()
    }
}

impl RecordStore for MemoryRecordStore {
    fn load(&self, account: AccountId, known: Option<&RecordTag>) -> Result<Loaded, Error> {
        let records = self.records();
        let Some(Row { bytes, .. }) = records.get(&account) else { return Ok(Loaded::Absent) };
        let tag = RecordTag::sha256_of(bytes);
        if known == Some(&tag) {
            return Ok(Loaded::Unchanged);
        }
        Ok(Loaded::Found { bytes: bytes.clone(), tag })
    }

    fn compare_and_swap(
        &self,
        account: AccountId,
        expected: Option<&RecordTag>,
        bytes: &[u8],
    ) -> Result<RecordTag, Error> {
        let mut records = self.records();
        let current = records.get(&account).map(|row| RecordTag::sha256_of(&row.bytes));
        if current.as_ref() != expected {
            return Err(Error::record_conflict(account));
        }
        let mut kept = records.remove(&account).map(|row| row.kept).unwrap_or_default();
        kept.push((KeptRecord::naming(bytes), bytes.to_vec()));
        let names: Vec<KeptRecord> = kept.iter().map(|(name, _)| *name).collect();
        let surplus = KeptRecord::surplus(&names, self.most_kept);
        kept.retain(|(name, _)| !surplus.contains(name));
        records.insert(account, Row { bytes: bytes.to_vec(), kept });
        Ok(RecordTag::sha256_of(bytes))
    }

    fn destroy_kept(&self, account: AccountId) -> Result<(), Error> {
        if let Some(row) = self.records().get_mut(&account) {
            row.kept.clear();
        }
        Ok(())
    }
}

impl RecordArchive for MemoryRecordStore {
    fn list(&self, after: Option<AccountId>) -> Result<Vec<Listed>, Error> {
        let records = self.records();
        let listed = records.iter().map(|(id, row)| Listed::new(*id, RecordTag::sha256_of(&row.bytes)));
        Ok(first_after(listed, after))
    }

    fn history(&self, account: AccountId) -> Result<Vec<KeptRecord>, Error> {
        let records = self.records();
        let kept = records.get(&account).map(|row| row.kept.as_slice()).unwrap_or_default();
        let mut names: Vec<KeptRecord> = kept.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn load_kept(&self, account: AccountId, kept: KeptRecord) -> Result<Vec<u8>, Error> {
        let records = self.records();
        let mut all = records.get(&account).into_iter().flat_map(|row| &row.kept);
        let found = all.find(|(name, _)| *name == kept);
        found.map(|(_, bytes)| bytes.clone()).ok_or_else(|| Error::record_not_kept(account))
    }
}

impl fmt::Debug for MemoryRecordStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRecordStore").field("records", &self.records().len()).finish()
    }
}

const SHOWN_OF_TAG: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::record_stores;

    #[test]
    fn g2_memory_store_replaces_only_what_was_seen() {
        record_stores::replaces_only_what_was_seen(&MemoryRecordStore::new());
    }

    #[test]
    fn g2_memory_store_loses_no_update_of_8_threads() {
        record_stores::loses_no_update_of_8_threads(&MemoryRecordStore::new());
    }

    #[test]
    fn e10_memory_store_lists_and_keeps_history() {
        record_stores::lists_its_accounts(&MemoryRecordStore::new());
        record_stores::keeps_what_was_replaced(&MemoryRecordStore::new().keep_history(3), 3);
    }

    #[test]
    fn e7_memory_store_destroys_what_it_keeps_once_it_is_purged() {
        record_stores::destroys_what_it_keeps(&MemoryRecordStore::new());
    }

    #[test]
    fn f2_a_tag_is_bounded() {
        assert!(RecordTag::new(&[0; RecordTag::MAX_LEN]).is_ok());
        let error = RecordTag::new(&[0; RecordTag::MAX_LEN + 1]).expect_err("too long");
        assert_eq!(error.kind(), ErrorKind::Limit);
    }
}
