//! An anchor: how far each account's record has come, kept where who can write to the record store cannot (contract F6).
//!
//! ```text
//! load:  anchor ─► store ─► not older than that, and not gone
//! swap:  store ─► anchor ─► acknowledged        an authenticated record: anchor ─► its keys come into use
//! ```
//! A record by itself tells nobody that a newer one existed. Imports: `record_store`, `format::{record, tombstone}`, `id`,
//! `error`.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind};
use crate::format::record::Sequence;
use crate::format::tombstone::sequence_of;
use crate::id::AccountId;
use crate::record_store::{Loaded, RecordStore, RecordTag};

/// Remembers the highest sequence that the record of each account has had.
///
/// Its worth is that whoever can change records cannot change it: another bucket with other credentials, a disk that is not in
/// the backups of the first, a consensus service. [`StoredAnchor`] keeps it in any [`RecordStore`].
///
/// Called like a record store, on the library's own threads, at every refresh: an anchor that cannot be asked is a record store that
/// cannot be asked, and earns the account its grace, no more.
pub trait Anchor: fmt::Debug + Send + Sync + 'static {
    /// The highest sequence that was ever raised to, `None` for an account that never had a record.
    ///
    /// # Errors
    /// [`Error::record_store`] when it cannot be asked.
    fn least(&self, account: AccountId) -> Result<Option<Sequence>, Error>;

    /// Sets it to `sequence`, unless it is higher already. It is durable when this returns.
    ///
    /// # Errors
    /// [`Error::record_store`] when it may not have been raised.
    fn raise(&self, account: AccountId, sequence: Sequence) -> Result<(), Error>;
}

/// An [`Anchor`] in a record store of its own, beside which nothing else is kept: in memory, in files, on an object store.
#[derive(Debug)]
pub struct StoredAnchor {
    store: Arc<dyn RecordStore>,
}

impl StoredAnchor {
    /// The anchor in `store`, which holds no records.
    #[must_use]
    pub const fn new(store: Arc<dyn RecordStore>) -> Self {
        Self { store }
    }

    fn read(&self, account: AccountId) -> Result<Option<(Sequence, RecordTag)>, Error> {
        match self.store.load(account, None)? {
            Loaded::Found { bytes, tag } => Ok(Some((parse(account, &bytes)?, tag))),
            Loaded::Absent => Ok(None),
            // Taken for no anchor, it would let any record pass.
            Loaded::Unchanged => {
                let message = "the anchor's store says that something is unchanged which nobody knows";
                Err(Error::new(ErrorKind::Io, message).with_account(account))
            }
        }
    }
}

impl Anchor for StoredAnchor {
    fn least(&self, account: AccountId) -> Result<Option<Sequence>, Error> {
        Ok(self.read(account)?.map(|(sequence, _)| sequence))
    }

    fn raise(&self, account: AccountId, sequence: Sequence) -> Result<(), Error> {
        // Each conflict is somebody else's raise, so it is higher now. A store that says so without end keeps no worker.
        for _ in 0..ATTEMPTS {
            let now = self.read(account)?;
            if now.as_ref().is_some_and(|(now, _)| *now >= sequence) {
                return Ok(());
            }
            let tag = now.map(|(_, tag)| tag);
            match self.store.compare_and_swap(account, tag.as_ref(), &to_bytes(sequence)) {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                swapped => return swapped.map(drop),
            }
        }
        // Not a conflict of the record, after which one would read that again.
        let message = "the anchor could not be raised: its store had a conflict each time";
        Err(Error::new(ErrorKind::Io, message).with_account(account))
    }
}

/// A [`RecordStore`] whose records cannot be taken back: an older record than the anchor has seen, or none where there was one, is
/// [`ErrorKind::Untrusted`] and keeps no account in service.
///
/// So a record, a whole store or a deleted account that is put back is noticed, also by a process that has just started. What is not:
/// whoever can take back the anchor *and* the store. Neither is an older block or object noticed; these want a version in their
/// additional data or context.
///
/// An operator who puts a record back on purpose ([`AekCache::restore`](crate::AekCache::restore)) gives the store *within* this one, and
/// [`Expect::least_sequence`](crate::Expect::least_sequence) of what [`Anchor::least`] says: the anchor is never taken back.
///
/// ```
/// use std::sync::Arc;
/// use strongroom::{AnchoredRecordStore, FileRecordStore, RecordStore, StoredAnchor};
///
/// # let folder = tempfile::tempdir()?;
/// # let (shared, own_disk) = (folder.path().join("shared"), folder.path().join("own"));
/// let records = Arc::new(FileRecordStore::open(shared)?);
/// let anchor = Arc::new(StoredAnchor::new(Arc::new(FileRecordStore::open(own_disk)?)));
/// let store: Arc<dyn RecordStore> = Arc::new(AnchoredRecordStore::new(records, anchor));
/// assert!(store.is_anchored());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AnchoredRecordStore {
    store: Arc<dyn RecordStore>,
    anchor: Arc<dyn Anchor>,
    /// What this process has seen of each account.
    seen: Mutex<HashMap<AccountId, Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The last record that was loaded or written.
    record: Option<(RecordTag, Sequence)>,
    /// The anchor is at least here.
    anchored: Option<Sequence>,
}

impl AnchoredRecordStore {
    /// The records of `store`, held to `anchor`. Records that are there already are anchored when they are authenticated next.
    #[must_use]
    pub fn new(store: Arc<dyn RecordStore>, anchor: Arc<dyn Anchor>) -> Self {
        Self { store, anchor, seen: Mutex::default() }
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<AccountId, Seen>> {
        // OK because no code that can panic runs between the two halves of a change.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sequence of the record tagged `known`, where this process has seen it.
    fn sequence_of(&self, account: AccountId, known: &RecordTag) -> Option<Sequence> {
        let seen = self.seen();
        let (tag, sequence) = seen.get(&account)?.record.as_ref()?;
        (tag == known).then_some(*sequence)
    }

    /// The sequence of `bytes`, which are to be written.
    fn sequence_of_newer(&self, account: AccountId, bytes: &[u8]) -> Result<Sequence, Error> {
        let sequence = sequence_of(bytes).map_err(|error| error.with_account(account))?;
        // Somebody has written this sequence already, so what was expected is not the newest, whatever the store says.
        if self.anchor.least(account)?.is_some_and(|least| sequence <= least) {
            return Err(Error::record_conflict(account));
        }
        Ok(sequence)
    }

    fn raise(&self, account: AccountId, sequence: Sequence) -> Result<(), Error> {
        let anchored = self.seen().get(&account).and_then(|seen| seen.anchored);
        if anchored.is_some_and(|anchored| anchored >= sequence) {
            return Ok(());
        }
        self.anchor.raise(account, sequence)?;
        let mut seen = self.seen();
        let seen = seen.entry(account).or_default();
        seen.anchored = seen.anchored.max(Some(sequence));
        Ok(())
    }
}

impl RecordStore for AnchoredRecordStore {
    fn load(&self, account: AccountId, known: Option<&RecordTag>) -> Result<Loaded, Error> {
        // The anchor first: read after the store, it could have been raised by a record that was written in between.
        let least = self.anchor.least(account)?;
        let sequence_of_known = known.and_then(|known| self.sequence_of(account, known));
        // Of a record that this process has not seen it could not be said how old it is.
        let asked = known.filter(|_| sequence_of_known.is_some());
        let loaded = self.store.load(account, asked)?;
        let found = match &loaded {
            Loaded::Absent if least.is_none() => return Ok(loaded),
            Loaded::Absent => return Err(rolled_back(account)),
            Loaded::Unchanged => sequence_of_known,
            Loaded::Found { bytes, tag } => {
                let sequence = sequence_of(bytes).map_err(|error| error.with_account(account))?;
                self.seen().entry(account).or_default().record = Some((tag.clone(), sequence));
                Some(sequence)
            }
        };
        if found < least {
            return Err(rolled_back(account));
        }
        match loaded {
            Loaded::Found { tag, .. } if known == Some(&tag) => Ok(Loaded::Unchanged),
            loaded => Ok(loaded),
        }
    }

    fn compare_and_swap(
        &self,
        account: AccountId,
        expected: Option<&RecordTag>,
        bytes: &[u8],
    ) -> Result<RecordTag, Error> {
        let sequence = self.sequence_of_newer(account, bytes)?;
        let tag = self.store.compare_and_swap(account, expected, bytes)?;
        self.raise(account, sequence)?;
        self.seen().entry(account).or_default().record = Some((tag.clone(), sequence));
        Ok(tag)
    }

    fn swap_unauthenticated(
        &self,
        account: AccountId,
        expected: Option<&RecordTag>,
        bytes: &[u8],
    ) -> Result<RecordTag, Error> {
        let sequence = self.sequence_of_newer(account, bytes)?;
        let tag = self.store.swap_unauthenticated(account, expected, bytes)?;
        // The anchor stays: what this follows may be a forgery, of any sequence.
        self.seen().entry(account).or_default().record = Some((tag.clone(), sequence));
        Ok(tag)
    }

    fn authenticated(&self, account: AccountId, sequence: Sequence) -> Result<(), Error> {
        self.raise(account, sequence)
    }

    fn destroy_kept(&self, account: AccountId) -> Result<(), Error> {
        self.store.destroy_kept(account)
    }

    fn is_anchored(&self) -> bool {
        true
    }
}

const fn rolled_back(account: AccountId) -> Error {
    Error::new(
        ErrorKind::Untrusted,
        "the record store was rolled back: it has an older record than the anchor, or none any more",
    )
    .with_account(account)
}

/// How often an anchor is tried to be raised: far more often than machines raise that of one account at once.
const ATTEMPTS: u32 = 32;

const MAGIC: [u8; 8] = *b"\x89SRN\r\n\x1a\n";

fn to_bytes(sequence: Sequence) -> [u8; 16] {
    let mut bytes = [0; 16];
    let (magic, number) = bytes.split_at_mut(MAGIC.len());
    magic.copy_from_slice(&MAGIC);
    number.copy_from_slice(&sequence.number().to_be_bytes());
    bytes
}

fn parse(account: AccountId, bytes: &[u8]) -> Result<Sequence, Error> {
    let number = bytes.strip_prefix(&MAGIC).and_then(|number| number.try_into().ok()).map(u64::from_be_bytes);
    number.and_then(Sequence::new).ok_or_else(|| {
        Error::new(ErrorKind::Format, "what the anchor's store holds is no anchor").with_account(account)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::record_store::MemoryRecordStore;

    const ACCOUNT: AccountId = AccountId::from_bytes([1; 16]);

    fn sequence(number: u64) -> Sequence {
        Sequence::new(number).unwrap()
    }

    #[test]
    fn f6_an_anchor_is_raised_and_never_lowered() {
        let anchor = StoredAnchor::new(Arc::new(MemoryRecordStore::new()));
        assert_eq!(anchor.least(ACCOUNT).unwrap(), None);
        for (to, then) in [(3, 3), (2, 3), (3, 3), (u64::MAX, u64::MAX), (1, u64::MAX)] {
            anchor.raise(ACCOUNT, sequence(to)).unwrap();
            assert_eq!(anchor.least(ACCOUNT).unwrap(), Some(sequence(then)));
        }
        assert_eq!(anchor.least(AccountId::from_bytes([2; 16])).unwrap(), None);
    }

    #[test]
    fn f6_threads_that_raise_an_anchor_at_once_leave_the_highest() {
        let anchor = StoredAnchor::new(Arc::new(MemoryRecordStore::new()));
        std::thread::scope(|scope| {
            for offset in 0..8 {
                let anchor = &anchor;
                scope.spawn(move || {
                    for step in 1..=50 {
                        anchor.raise(ACCOUNT, sequence(step * 8 + offset)).unwrap();
                        assert!(anchor.least(ACCOUNT).unwrap() >= Some(sequence(step * 8 + offset)));
                    }
                });
            }
        });
        assert_eq!(anchor.least(ACCOUNT).unwrap(), Some(sequence(50 * 8 + 7)));
    }

    /// Finds a conflict in every swap, and knows how many there were.
    #[derive(Debug, Default)]
    struct Contended(AtomicU32);

    impl RecordStore for Contended {
        fn load(&self, _: AccountId, _: Option<&RecordTag>) -> Result<Loaded, Error> {
            Ok(Loaded::Absent)
        }

        fn compare_and_swap(
            &self,
            account: AccountId,
            _: Option<&RecordTag>,
            _: &[u8],
        ) -> Result<RecordTag, Error> {
            // A panic, where this would otherwise have no end.
            assert!(self.0.fetch_add(1, Ordering::SeqCst) < 1_000, "it tries without end");
            Err(Error::record_conflict(account))
        }

        fn destroy_kept(&self, _: AccountId) -> Result<(), Error> {
            Ok(())
        }
    }

    #[test]
    fn f6_an_anchor_whose_store_always_conflicts_is_an_error() {
        let contended = Arc::new(Contended::default());
        let anchor = StoredAnchor::new(contended.clone());
        let error = anchor.raise(ACCOUNT, sequence(3)).unwrap_err();
        assert_eq!((error.kind(), error.account()), (ErrorKind::Io, Some(ACCOUNT)));
        assert_eq!(contended.0.load(Ordering::SeqCst), ATTEMPTS);
        assert_eq!(anchor.least(ACCOUNT).unwrap(), None);
    }

    #[test]
    fn f1_what_is_no_anchor_is_an_error() {
        let whole = to_bytes(sequence(7));
        assert_eq!(parse(ACCOUNT, &whole).unwrap(), sequence(7));
        let mut other = whole;
        other[3] ^= 1;
        for bytes in
            [&[][..], &whole[..15], &[&whole[..], &[0]].concat(), &other, &[&MAGIC[..], &[0; 8]].concat()]
        {
            assert_eq!(parse(ACCOUNT, bytes).unwrap_err().kind(), ErrorKind::Format);
        }
    }
}
