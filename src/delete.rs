//! Deleting an account so that it can be recovered, recovering it, and destroying its wrapped key (contract E7).
//!
//! ```text
//! active ── delete ─► deleted ── recover, within the retention ─► active
//!                        └── purge, after it ─► tombstone; nothing kept is left
//! ```
//! Deletion and recovery are changes of the authenticated record, by compare-and-swap. A purge first puts the tombstone in the record's
//! place, so that no rival can write the record again, and then destroys what the store keeps of it. Whatever crashes on the way, the same call
//! made again goes on. Runs on workers. Imports: `account`, `change`, `rotate`, `keeper`, `lease`, `format`, `record_store`, `clock`, `error`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::account::{Account, AccountInner};
use crate::change::{InForce, Newest, begin_change};
use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::format::record::{RecordDraft, RecordState, Sequence, Timestamp};
use crate::format::tombstone::{Purged, Tombstone};
use crate::id::AccountId;
use crate::keeper::{ControlCall, Pending};
use crate::lease::Event;
use crate::record_store::{RecordStore, RecordTag};
use crate::rotate::{SEEN_BY_ALL, met};

/// For how long a deleted account can be recovered: 1 to 365 days, 14 unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Retention {
    days: u16,
}

impl Retention {
    /// 14 days.
    pub const DEFAULT: Self = Self { days: 14 };
    /// The shortest, in days.
    pub const MIN_DAYS: u16 = 1;
    /// The longest, in days.
    pub const MAX_DAYS: u16 = 365;

    /// # Errors
    /// [`ErrorKind::Misuse`] for less than a day and more than a year. Who wants none says [`AekCache::shred`](crate::AekCache::shred).
    pub fn days(days: u16) -> Result<Self, Error> {
        if (Self::MIN_DAYS..=Self::MAX_DAYS).contains(&days) {
            Ok(Self { days })
        } else {
            Err(Error::new(ErrorKind::Misuse, "a deleted account is retained for 1 to 365 days"))
        }
    }

    /// As a length of time.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(86_400) * u32::from(self.days)
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What a deletion has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deletion {
    /// Until when [`Account::recover`] brings the account back, by the wall clock of whoever asks; from then on it may be purged.
    pub recoverable_until: SystemTime,
    /// From when no machine uses the account any more that could read the record store: each reads it at every attempt to refresh. One that could
    /// not is bound by its grace. `None` without a record store: then the caller persists [`Account::record`], and counts 71 s from there.
    pub refused_everywhere_after: Option<SystemTime>,
}

impl Account {
    /// Deletes the account, recoverably. When this returns it is closed here, its keys are wiped, and all that it is asked for is
    /// [`ErrorKind::Deleted`]; other machines follow with their next refresh. No data is touched, and the record keeps the wrapped AEK.
    ///
    /// With a lease the KMS is not asked, so this works in an outage. Without one the KMS has to unwrap: an account that is revoked or unavailable cannot be
    /// deleted this way. It is closed already; [`AekCache::shred`](crate::AekCache::shred) destroys it without asking anybody.
    /// An account that is deleted already keeps its retention. A lock outlives deletion and recovery.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use std::time::Duration;
    /// # use strongroom::provider::{Kek, KeyOptions, LocalKms};
    /// use strongroom::{Aad, AccountId, AccountSpec, AekCache, BlockId, ErrorKind, MemoryRecordStore, ObjectId, Retention};
    /// # let folder = tempfile::tempdir()?;
    /// # let kms = Arc::new(LocalKms::create(folder.path().join("kms.json"))?);
    /// # kms.create_key("orders", KeyOptions::default())?;
    /// # let cache = AekCache::builder().build()?;
    /// let store = Arc::new(MemoryRecordStore::new());
    /// let account = cache.create(AccountSpec::new(AccountId::random(), kms, Kek::latest("orders")).store(store))?;
    /// let (id, aad) = (BlockId::new(ObjectId::random(), 0), Aad::EMPTY);
    /// let sealed = account.seal(id, aad, b"a row")?;
    ///
    /// account.delete(Retention::DEFAULT)?;
    /// assert_eq!(account.open(id, aad, &sealed).unwrap_err().kind(), ErrorKind::Deleted);
    /// assert_eq!(account.purge().unwrap_err().kind(), ErrorKind::Misuse); // not before its 14 days are over
    ///
    /// account.recover()?;
    /// account.wait_ready(Duration::from_secs(10))?;
    /// assert_eq!(account.open(id, aad, &sealed)?, b"a row");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::set_policy`], but for an account that is deleted already; [`ErrorKind::Deleted`] for one that was purged.
    /// After [`ErrorKind::Io`] the account may be deleted: retry.
    pub fn delete(&self, retention: Retention) -> Result<Deletion, Error> {
        self.begin_delete(retention).wait()
    }

    /// The same, as a future.
    pub fn begin_delete(&self, retention: Retention) -> Pending<Deletion> {
        begin_delete(self.inner(), retention, |deletion, _| deletion)
    }

    /// Brings a deleted account back, with its data: on any machine, within the retention. It becomes ready by itself, with an unwrap that
    /// starts now: [`Self::ready`] waits for it. Other machines that have it attached look again when they are told
    /// [`Self::record_changed`], or when they attach it anew.
    ///
    /// An account that was recovered already by another machine is taken back into use here.
    ///
    /// # Errors
    /// [`ErrorKind::Deleted`] once the retention is over, and for a purged account. Otherwise as [`Self::rotate_kek`]: the KMS has to
    /// unwrap.
    pub fn recover(&self) -> Result<(), Error> {
        self.begin_recover().wait()
    }

    /// The same, as a future.
    pub fn begin_recover(&self) -> Pending<()> {
        let clock = self.inner().clock().clone();
        begin_change(
            self.inner(),
            move |current| match current.state() {
                RecordState::Active => Ok(None),
                RecordState::Deleted { recoverable_until, .. }
                    if Timestamp::from_wall_nanos(clock.now().wall_nanos()) >= recoverable_until =>
                {
                    Err(Error::new(ErrorKind::Deleted, "the retention of the deleted account is over"))
                }
                RecordState::Deleted { .. } => {
                    Ok(Some(RecordDraft { state: RecordState::Active, ..current.successor()? }))
                }
            },
            |inner, _| inner.feed(inner.clock().now(), Event::Recover),
        )
    }

    /// Destroys the wrapped AEK of a deleted account whose retention is over, **for good**: a tombstone takes the place of its record, and
    /// every record that the store keeps of it is destroyed. No data is touched; without the key it is noise (crypto-shredding).
    ///
    /// As far as no copy of a record survives elsewhere: in a backup, a mirror, a version of a bucket, a block of a disk, in the memory of a process
    /// that has not dropped its handle. Such a copy, together with the customer's KEK, opens the data again. `SECURITY.md` has the list. The KEK is not
    /// touched: what a KMS calls a purge destroys a KEK, which is the customer's to do, and every account under it.
    ///
    /// The record is believed first: by what this process has verified, or by an unwrap. [`AekCache::shred`](crate::AekCache::shred) asks
    /// nobody. Of an account that is purged already, what its store may still keep is destroyed; made once more a day later it removes what a
    /// rival was just writing. The id is not used again: creating an account of it is [`ErrorKind::Conflict`].
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] for an account that is not deleted, before the retention is over, without a record store, and for one that cannot destroy what
    /// it keeps ([`RecordStore::destroy_kept`]); then the tombstone is in place. [`ErrorKind::Conflict`], when somebody changed the record meanwhile.
    /// [`ErrorKind::Io`] for the record store: something may be left, retry. As [`Self::rotate_kek`] where the KMS has to unwrap.
    pub fn purge(&self) -> Result<(), Error> {
        self.begin_purge().wait()
    }

    /// The same, as a future.
    pub fn begin_purge(&self) -> Pending<()> {
        begin_purge(self.inner())
    }
}

/// The same as [`Account::begin_delete`], of an account that may be in use nowhere here. `told` makes what is given of the record that is in force.
pub(crate) fn begin_delete<T: Send + 'static>(
    inner: &Arc<AccountInner>,
    retention: Retention,
    told: impl FnOnce(Deletion, &InForce) -> T + Send + 'static,
) -> Pending<T> {
    let clock = inner.clock().clone();
    begin_change(
        inner,
        move |current| {
            if current.state() != RecordState::Active {
                return Ok(None);
            }
            let at = Timestamp::from_wall_nanos(clock.now().wall_nanos());
            let state = RecordState::Deleted { at, recoverable_until: at.plus(retention.duration()) };
            Ok(Some(RecordDraft { state, ..current.successor()? }))
        },
        move |inner, in_force| {
            let (now, record) = (inner.clock().now(), &in_force.known.record);
            inner.heed_deletion(now, record.sequence());
            let deletion = Deletion {
                recoverable_until: record.recoverable_until().unwrap_or(UNIX_EPOCH),
                refused_everywhere_after: inner.store().is_some().then(|| wall(now) + SEEN_BY_ALL),
            };
            told(deletion, in_force)
        },
    )
}

/// The same as [`Account::begin_purge`], of such an account.
pub(crate) fn begin_purge(inner: &Arc<AccountInner>) -> Pending<()> {
    let (pending, completer) = Pending::new();
    let abandon = completer.abandoner();
    let inner = Arc::clone(inner);
    let (keeper, destination) = (inner.keeper().clone(), inner.destination().clone());
    let deadline = inner.settings().policy.call_deadline() * CALLS;
    let run = Box::pin(async move {
        let result = purge(&inner).await;
        let met = met(&result);
        completer.complete(result);
        met
    });
    keeper.control(pending, ControlCall { destination, patience: deadline, deadline, run, abandon })
}

/// Purges an account that is deleted, if its retention is over.
async fn purge(inner: &AccountInner) -> Result<(), Error> {
    let id = inner.id();
    let misuse = |message| Error::new(ErrorKind::Misuse, message).with_account(id);
    let store =
        inner.store().ok_or_else(|| misuse("without a record store: destroy the records that you keep"))?;
    let work = match Newest::load(inner) {
        // There is a tombstone, and perhaps something that it should have gone with.
        Err(error) if error.kind() == ErrorKind::Deleted => return store.destroy_kept(id),
        work => work?,
    };
    let verified = match work.newest.verified.clone() {
        Some(verified) => verified,
        None => work.unwrapped().await?.verified,
    };
    let now = inner.clock().now();
    match verified.state() {
        RecordState::Active => return Err(misuse("only a deleted account is purged: delete it first")),
        RecordState::Deleted { recoverable_until, .. }
            if Timestamp::from_wall_nanos(now.wall_nanos()) < recoverable_until =>
        {
            return Err(misuse("the retention of the deleted account is not over"));
        }
        RecordState::Deleted { .. } => {}
    }
    let sequence = verified.record().sequence_after(verified.record().sequence())?;
    bury(store, id, work.newest.tag.as_ref(), sequence, now, Purged::AfterRetention)?;
    inner.feed(now, Event::Delete);
    store.destroy_kept(id)
}

/// Puts a tombstone in the place of the record tagged `expected`.
pub(crate) fn bury(
    store: &dyn RecordStore,
    account: AccountId,
    expected: Option<&RecordTag>,
    sequence: Sequence,
    now: Moment,
    reason: Purged,
) -> Result<(), Error> {
    let purged_at = Timestamp::from_wall_nanos(now.wall_nanos());
    let tombstone = Tombstone { account, sequence, purged_at, reason };
    store.compare_and_swap(account, expected, &tombstone.to_bytes()).map(drop)
}

fn wall(now: Moment) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(now.wall_nanos())
}

/// A load, an unwrap, a swap, a listing and what it lists, and some to spare: a history may be long.
const CALLS: u32 = 10;
