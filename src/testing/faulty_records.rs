//! A record store that fails as it is told to, over any other (contract H5).
//!
//! Imports: `record_store`, `error`, `id`, `testing::virtual_time`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::virtual_time::{self, Latency};
use crate::error::Error;
use crate::format::record::Sequence;
use crate::id::AccountId;
use crate::record_store::{Loaded, RecordStore, RecordTag};

/// What goes wrong with one operation of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreFault {
    /// It fails, and nothing was done.
    Fails,
    /// It is done, and fails all the same: the answer was lost.
    DoneAndFails,
    /// Somebody else was first: a replacement meets a conflict that is not there. What is no replacement fails.
    Conflicts,
    /// Only so many bytes arrive. A record that is read is cut there; one that is written is cut there, and the write fails,
    /// as a store does that replaces in place and loses its power.
    Torn(usize),
    /// It is done this much later. On virtual time, the answer to the refresh that asked is.
    Late(Duration),
}

/// A [`RecordStore`] between an account and the real one: passes every operation on, but for those that are told to fail.
///
/// Operations are counted from zero, at each setting: loads, replacements and destructions together, which is how a cut cable counts
/// them.
///
/// ```
/// use std::sync::Arc;
/// use strongroom::testing::{FaultyRecordStore, StoreFault};
/// use strongroom::{AccountId, ErrorKind, Loaded, MemoryRecordStore, RecordStore};
///
/// let store = FaultyRecordStore::over(Arc::new(MemoryRecordStore::new()));
/// let id = AccountId::random();
/// store.fail_nth(1, StoreFault::DoneAndFails);
/// assert_eq!(store.load(id, None).unwrap(), Loaded::Absent);
/// assert_eq!(store.compare_and_swap(id, None, b"a record").unwrap_err().kind(), ErrorKind::Io);
/// assert!(store.calm(), "it was struck");
/// assert!(matches!(store.load(id, None).unwrap(), Loaded::Found { .. }), "and yet it is there");
/// ```
#[derive(Debug)]
pub struct FaultyRecordStore {
    inner: Arc<dyn RecordStore>,
    virtual_time: bool,
    plan: Mutex<Plan>,
}

#[derive(Debug, Default)]
struct Plan {
    begun: u64,
    faults: BTreeMap<u64, StoreFault>,
    every: Option<StoreFault>,
}

impl FaultyRecordStore {
    /// Passes everything on to `inner` until told otherwise. What is late is waited for.
    #[must_use]
    pub fn over(inner: Arc<dyn RecordStore>) -> Self {
        Self { inner, virtual_time: false, plan: Mutex::default() }
    }

    /// The same for a cache on virtual time: nothing waits, and what is late leaves in [`virtual_time`] how late it is.
    #[must_use]
    pub fn on_virtual_time(inner: Arc<dyn RecordStore>) -> Self {
        Self { virtual_time: true, ..Self::over(inner) }
    }

    /// Has the `n`th operation from now go wrong, counted from zero, beside those that were told to before.
    pub fn fail_nth(&self, n: u64, fault: StoreFault) {
        let mut plan = self.plan();
        let at = plan.begun + n;
        plan.faults.insert(at, fault);
    }

    /// Has every operation go wrong from now on, where it is not told another way to.
    pub fn fail_every(&self, fault: StoreFault) {
        self.plan().every = Some(fault);
    }

    /// Passes everything on again. True when everything that was told to go wrong has.
    pub fn calm(&self) -> bool {
        let mut plan = self.plan();
        plan.every = None;
        std::mem::take(&mut plan.faults).is_empty()
    }

    /// How many operations have begun.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.plan().begun
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to go wrong with the operation that begins now.
    fn begin(&self) -> Option<StoreFault> {
        let fault = {
            let mut plan = self.plan();
            let at = plan.begun;
            plan.begun += 1;
            plan.faults.remove(&at).or(plan.every)
        };
        if let Some(StoreFault::Late(by)) = fault {
            if self.virtual_time {
                virtual_time::set(Some(Latency::For(by)));
            } else {
                #[expect(clippy::disallowed_methods, reason = "a store that is late in real time")]
                std::thread::sleep(by);
            }
        }
        fault
    }
}

impl FaultyRecordStore {
    fn swap(
        &self,
        account: AccountId,
        bytes: &[u8],
        swap: impl Fn(&[u8]) -> Result<RecordTag, Error>,
    ) -> Result<RecordTag, Error> {
        match self.begin() {
            Some(StoreFault::Fails) => Err(planted(account)),
            Some(StoreFault::DoneAndFails) => swap(bytes).and(Err(planted(account))),
            Some(StoreFault::Conflicts) => Err(Error::record_conflict(account)),
            Some(StoreFault::Torn(len)) => swap(&bytes[..len.min(bytes.len())]).and(Err(planted(account))),
            Some(StoreFault::Late(_)) | None => swap(bytes),
        }
    }
}

impl RecordStore for FaultyRecordStore {
    fn load(&self, account: AccountId, known: Option<&RecordTag>) -> Result<Loaded, Error> {
        match self.begin() {
            Some(StoreFault::Fails | StoreFault::DoneAndFails | StoreFault::Conflicts) => {
                Err(planted(account))
            }
            Some(StoreFault::Torn(len)) => Ok(match self.inner.load(account, None)? {
                Loaded::Found { mut bytes, .. } => {
                    bytes.truncate(len);
                    let tag = RecordTag::sha256_of(&bytes);
                    Loaded::Found { bytes, tag }
                }
                other => other,
            }),
            Some(StoreFault::Late(_)) | None => self.inner.load(account, known),
        }
    }

    fn compare_and_swap(
        &self,
        account: AccountId,
        expected: Option<&RecordTag>,
        bytes: &[u8],
    ) -> Result<RecordTag, Error> {
        self.swap(account, bytes, |bytes| self.inner.compare_and_swap(account, expected, bytes))
    }

    fn swap_unauthenticated(
        &self,
        account: AccountId,
        expected: Option<&RecordTag>,
        bytes: &[u8],
    ) -> Result<RecordTag, Error> {
        self.swap(account, bytes, |bytes| self.inner.swap_unauthenticated(account, expected, bytes))
    }

    fn authenticated(&self, account: AccountId, sequence: Sequence) -> Result<(), Error> {
        self.inner.authenticated(account, sequence)
    }

    fn destroy_kept(&self, account: AccountId) -> Result<(), Error> {
        match self.begin() {
            Some(StoreFault::Fails | StoreFault::Conflicts | StoreFault::Torn(_)) => Err(planted(account)),
            Some(StoreFault::DoneAndFails) => self.inner.destroy_kept(account).and(Err(planted(account))),
            Some(StoreFault::Late(_)) | None => self.inner.destroy_kept(account),
        }
    }

    fn is_anchored(&self) -> bool {
        self.inner.is_anchored()
    }
}

fn planted(account: AccountId) -> Error {
    Error::record_store(account, std::io::Error::other("the test fails this operation"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::record_store::MemoryRecordStore;
    use crate::testing::record_stores;

    fn store() -> FaultyRecordStore {
        FaultyRecordStore::over(Arc::new(MemoryRecordStore::new()))
    }

    #[test]
    fn h5_a_store_that_is_not_told_to_fail_passes_the_suite() {
        record_stores::replaces_only_what_was_seen(&store());
        record_stores::loses_no_update_of_8_threads(&store());
    }

    #[test]
    fn h5_each_fault_of_a_record_store_does_what_it_says() {
        let (store, id) = (store(), AccountId::random());
        let kind = |result: Result<RecordTag, Error>| result.unwrap_err().kind();
        let bytes = |store: &FaultyRecordStore| match store.load(id, None).unwrap() {
            Loaded::Found { bytes, tag } => Some((bytes, tag)),
            _ => None,
        };
        for (n, fault) in
            [StoreFault::Fails, StoreFault::Conflicts, StoreFault::Torn(3)].into_iter().enumerate()
        {
            store.fail_nth(n as u64, fault);
        }
        assert!(!store.calm(), "nothing was struck yet");
        store.fail_nth(0, StoreFault::Fails);
        assert_eq!(kind(store.compare_and_swap(id, None, b"one")), ErrorKind::Io);
        assert_eq!(bytes(&store), None);
        store.fail_nth(0, StoreFault::Conflicts);
        assert_eq!(kind(store.compare_and_swap(id, None, b"one")), ErrorKind::Conflict);
        assert_eq!(bytes(&store), None);
        store.fail_nth(0, StoreFault::Torn(2));
        assert_eq!(kind(store.compare_and_swap(id, None, b"one")), ErrorKind::Io);
        let (torn, tag) = bytes(&store).unwrap();
        assert_eq!(torn, b"on");
        store.fail_nth(1, StoreFault::Torn(1));
        store.compare_and_swap(id, Some(&tag), b"two").unwrap();
        let (cut, _) = bytes(&store).unwrap();
        assert_eq!(cut, b"t");
        store.fail_every(StoreFault::Fails);
        assert!(store.load(id, None).is_err() && store.load(id, None).is_err());
        assert!(store.calm());
        assert_eq!(bytes(&store).unwrap().0, b"two");
        let begun = crate::clock::Clock::System.now();
        store.fail_nth(0, StoreFault::Late(Duration::from_millis(20)));
        assert!(bytes(&store).is_some());
        assert!(crate::clock::Clock::System.now().age_since(begun) >= Duration::from_millis(20));
    }
}
