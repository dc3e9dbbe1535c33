//! Destruction of an account's wrapped key without asking anybody: not the KMS, not the record (contract E7).
//!
//! Imports: `cache`, `delete`, `lease`, `record_store`, `format`, `id`, `error`.

use std::sync::Arc;

use super::AekCache;
use crate::delete::bury;
use crate::error::{Error, ErrorKind};
use crate::format::record::{AccountRecord, Sequence};
use crate::format::tombstone::{Purged, Tombstone, sequence_of};
use crate::id::AccountId;
use crate::lease::Event;
use crate::record_store::{Loaded, RecordStore};

/// The word that [`AekCache::shred`] wants to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a word that is said in one way")]
pub struct DestroyForGood;

impl AekCache {
    /// Destroys the wrapped AEK of `account` in `store`, **now and for good**, whatever state it is in: for a customer who demands it while their KMS is
    /// silent or has refused, and for the copies in a mirror. No retention, no lease, no unwrap; nothing is verified, so it works for a damaged record as
    /// well. All data under the account is lost, as far as no copy of a record survives: see [`Account::purge`](crate::Account::purge).
    ///
    /// If this cache uses the account, it is closed first. Other machines close it when they next read the record. Blocks on the store, on the
    /// calling thread. Of an account that is purged already, what the store may still keep is destroyed.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use strongroom::provider::{Kek, KeyOptions, LocalKms};
    /// use strongroom::{AccountId, AccountSpec, AekCache, DestroyForGood, ErrorKind, MemoryRecordStore, RecordStore};
    /// # let folder = tempfile::tempdir()?;
    /// # let kms = Arc::new(LocalKms::create(folder.path().join("kms.json"))?);
    /// # kms.create_key("orders", KeyOptions::default())?;
    /// # let cache = AekCache::builder().build()?;
    /// let store: Arc<dyn RecordStore> = Arc::new(MemoryRecordStore::new());
    /// let spec = AccountSpec::new(AccountId::random(), kms, Kek::latest("orders"));
    /// let account = cache.create(spec.store(Arc::clone(&store)))?;
    ///
    /// cache.shred(&store, account.id(), DestroyForGood)?;
    /// assert_eq!(account.permit().unwrap_err().kind(), ErrorKind::Deleted);
    /// assert_eq!(account.recover().unwrap_err().kind(), ErrorKind::Deleted);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Io`] for the store: something may be left, retry; an account that was closed here by it stays so until
    /// [`record_changed`](crate::Account::record_changed). [`ErrorKind::Misuse`] for a store that cannot destroy what it keeps; then the tombstone is in
    /// place. [`ErrorKind::Conflict`] when others change the record all the time. [`ErrorKind::Untrusted`] for a store under an anchor that was rolled back,
    /// and [`ErrorKind::Format`] or `Conflict` for one whose record is damaged or forged: shred in the store itself, without its anchor.
    pub fn shred(
        &self,
        store: &Arc<dyn RecordStore>,
        account: AccountId,
        word: DestroyForGood,
    ) -> Result<(), Error> {
        let DestroyForGood = word;
        let now = self.shared.clock.now();
        let attached = self.shared.registry().by_id.get(&account).and_then(std::sync::Weak::upgrade);
        if let Some(attached) = attached {
            attached.feed(now, Event::Delete);
        }
        for _ in 0..RETRIES {
            let (sequence, tag) = match store.load(account, None)? {
                Loaded::Absent => (Sequence::FIRST, None),
                Loaded::Found { bytes, .. } if Tombstone::is_of(account, &bytes) => {
                    return store.destroy_kept(account);
                }
                // Of what is no record nobody can say how far it had come.
                Loaded::Found { bytes, tag } => {
                    let claimed = AccountRecord::parse(&bytes)
                        .and_then(|record| record.sequence_after(record.sequence()))
                        .or_else(|_| sequence_of(&bytes).and_then(Sequence::next));
                    (claimed.unwrap_or(Sequence::FIRST), Some(tag))
                }
                Loaded::Unchanged => return Err(super::records::unchanged(account)),
            };
            match bury(store.as_ref(), account, tag.as_ref(), sequence, now, Purged::Shredded) {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                buried => return buried.and_then(|()| store.destroy_kept(account)),
            }
        }
        Err(Error::record_conflict(account))
    }
}

/// How often others may come first.
const RETRIES: usize = 16;
