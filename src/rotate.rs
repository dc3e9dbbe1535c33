//! KEK rotation: the AEK is wrapped anew, no data is touched (contracts E1 to E3).
//!
//! ```text
//! load newest ─► unwrap (old version) ─► wrap (new) ─► unwrap (new), compare ─► compare-and-swap ─► safe after
//! ```
//! Whatever fails or crashes on the way, the record in the store is the old one or the new one, and
//! either opens the account. Runs on workers. Imports: `account`, `provider`, `format`, `record_store`, `clock`, `error`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use subtle::ConstantTimeEq;

use crate::account::unwrap::Unwrapped;
use crate::account::{Account, AccountInner, Known, Refreshed};
use crate::clock::{Clock, Moment};
use crate::error::{Error, ErrorKind};
use crate::format::policy::VersionPolicy;
use crate::format::record::{AccountRecord, Custody, Slot, VerifiedRecord};
use crate::keeper::{ControlCall, Met, Pending};
use crate::lease::Event;
use crate::provider::{Caller, Kek, KekVersion, KeyProvider, ProviderError, Wrapped};

/// Where a rotation leads. [`Retire`] has an example.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RotateTo {
    /// The KEK's current version. An account that is pinned is then pinned to it.
    Latest,
    /// Exactly this version. An account that follows the latest version stays with that policy, and
    /// moves on when it next looks.
    Version(KekVersion),
}

/// What a rotation has done, and from when the old KEK version is not needed any more.
///
/// ```
/// # use std::sync::Arc;
/// use strongroom::provider::{Kek, KeyOptions, LocalKms};
/// use strongroom::{Aad, AccountId, AccountSpec, AekCache, BlockId, FileRecordStore, ObjectId, Retire, RotateTo};
/// # let folder = tempfile::tempdir()?;
/// # let kms = Arc::new(LocalKms::create(folder.path().join("kms.json"))?);
/// # let store = Arc::new(FileRecordStore::open(folder.path().join("records"))?);
/// # let first = kms.create_key("orders", KeyOptions::default())?;
/// # let cache = AekCache::builder().build()?;
/// let pinned = Kek::pinned("orders", first);
/// let account = cache.create(AccountSpec::new(AccountId::random(), kms.clone(), pinned).store(store))?;
/// let id = BlockId::new(ObjectId::random(), 0);
/// let sealed = account.seal(id, Aad::EMPTY, b"sealed before")?;
///
/// kms.rotate_key("orders")?; // the customer makes a new version
/// match account.rotate_kek(RotateTo::Latest)? {
///     Retire::SafeAfter(when) => println!("the old version can be disabled after {when:?}"),
///     other => panic!("{other:?}"),
/// }
/// assert_eq!(account.open(id, Aad::EMPTY, &sealed)?, b"sealed before"); // no data was touched
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retire {
    /// The record was under that version already; nothing was changed. Who changed it may have done so just now,
    /// this process before a crash among them: unless you know better, disable the old version no earlier than
    /// 71 s from now.
    AlreadyCurrent,
    /// Persisted. After this time every machine has seen the new record, or will see it before it asks the KMS
    /// again: the old version can be disabled then.
    SafeAfter(SystemTime),
    /// No record store: [`Account::record`] is the new record now. Persist it everywhere, then wait this long,
    /// then the old version can be disabled. Until it is persisted, do not.
    AfterPersisting(Duration),
}

impl Account {
    /// Wraps the AEK under another version of its KEK. Data stays as it is, and readable.
    ///
    /// An account that is pinned to a version which is disabled by now can still be moved to the version that its record
    /// holds a standby wrap for.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when another process changed the record meanwhile: retry.
    /// [`ErrorKind::Revoked`], [`ErrorKind::Unavailable`], [`ErrorKind::Untrusted`] or [`ErrorKind::Misuse`] for what the KMS
    /// answered, and [`ErrorKind::Io`] for the record store, which then has the old record or the new one:
    /// either opens the account. After any other error the old record stays the one to go by.
    pub fn rotate_kek(&self, to: RotateTo) -> Result<Retire, Error> {
        self.begin_rotate_kek(to).wait()
    }

    /// The same, as a future.
    pub fn begin_rotate_kek(&self, to: RotateTo) -> Pending<Retire> {
        begin_rotation(self.inner(), to)
    }
}

/// The same, of an account that may be in use nowhere here.
pub(crate) fn begin_rotation(inner: &Arc<AccountInner>, to: RotateTo) -> Pending<Retire> {
    let (pending, completer) = Pending::new();
    let abandon = completer.abandoner();
    let inner = Arc::clone(inner);
    let keeper = inner.keeper().clone();
    let destination = inner.destination().clone();
    let deadline = inner.settings().policy.call_deadline() * CALLS;
    let run = Box::pin(async move {
        let result = rotate(&inner, inner.clock(), &to).await;
        let met = met(&result);
        completer.complete(result);
        met
    });
    keeper.control(pending, ControlCall { destination, patience: deadline, deadline, run, abandon })
}

impl AccountInner {
    /// Looks whether the KEK has a newer version, and does what the account's policy says (contract E2). In the
    /// background: what fails is tried again at the next look.
    pub(crate) fn begin_follow_versions(self: &Arc<Self>) {
        let inner = Arc::downgrade(self);
        let run = Box::pin(async move {
            match inner.upgrade() {
                Some(inner) => met(&follow(&inner, inner.clock()).await),
                None => Met::Answers,
            }
        });
        let deadline = self.settings().policy.call_deadline() * CALLS;
        let destination = self.destination().clone();
        let call = ControlCall { destination, patience: deadline, deadline, run, abandon: Box::new(drop) };
        self.keeper().send(crate::keeper::Message::VersionCheck(call));
    }
}

async fn follow(inner: &AccountInner, clock: &Clock) -> Result<(), Error> {
    let known = inner.known();
    let Some(verified) = &known.verified else { return Ok(()) };
    let (provider, kek) = provider_and_kek(inner, &known, &known.record)?;
    let caller = Caller::awaiting(provider.as_ref(), clock);
    let latest = caller.describe(&kek).await.map_err(ProviderError::into_error)?.version;
    let record = &known.record;
    if latest == *record.kek_version() || record.standby_version() == Some(&latest) {
        inner.announce_newer_version(false);
        return Ok(());
    }
    // Without a store nobody here can persist a new record: tell those who can.
    if inner.store().is_none() {
        inner.announce_newer_version(true);
        return Ok(());
    }
    match verified.policy().version_policy() {
        VersionPolicy::Latest => rotate(inner, clock, &RotateTo::Latest).await.map(drop),
        VersionPolicy::Pinned => add_standby(inner, clock, &latest).await,
    }
}

async fn rotate(inner: &AccountInner, clock: &Clock, to: &RotateTo) -> Result<Retire, Error> {
    let work = Rewrap::begin(inner, clock)?;
    let target = match to {
        RotateTo::Version(version) => version.clone(),
        RotateTo::Latest => work.latest().await?,
    };
    if target == *work.newest.record.kek_version() {
        // What nobody has authenticated yet may claim any version.
        if work.newest.verified.is_none() {
            work.unwrap(work.newest.record.wrapped()).await.map_err(Refreshed::into_failure)?;
        }
        return Ok(Retire::AlreadyCurrent);
    }
    let standby = work.newest.record.standby().filter(|wrap| *wrap.version() == target).cloned();
    let current = work.newest.record.wrapped().clone();
    let unwrapped = match (work.unwrap(&current).await, &standby) {
        // The pinned version is disabled: what was wrapped under the newer one while it worked is what saves the
        // account (E2).
        (Err(Refreshed::Refused(..)), Some(standby)) => work.unwrap(standby).await,
        (unwrapped, _) => unwrapped,
    }
    .map_err(Refreshed::into_failure)?;
    let wrapped = match standby {
        Some(standby) => standby,
        None => work.wrap(&target, &unwrapped).await?,
    };
    work.compare(&wrapped, &unwrapped).await?;
    let mut draft = unwrapped.verified.successor()?;
    draft.custody = Custody::Single(Slot { wrapped, standby: None });
    let record = draft.seal(unwrapped.keys.prks())?;
    work.persist(record)?;
    inner.announce_newer_version(false);
    Ok(if inner.store().is_some() {
        Retire::SafeAfter(wall(clock.now()) + SEEN_BY_ALL)
    } else {
        Retire::AfterPersisting(SEEN_BY_ALL)
    })
}

/// While the pinned version still works, wraps the AEK under the newer one too.
async fn add_standby(inner: &AccountInner, clock: &Clock, version: &KekVersion) -> Result<(), Error> {
    let work = Rewrap::begin(inner, clock)?;
    let current = work.newest.record.wrapped().clone();
    let unwrapped = work.unwrap(&current).await.map_err(Refreshed::into_failure)?;
    let standby = work.wrap(version, &unwrapped).await?;
    work.compare(&standby, &unwrapped).await?;
    let mut draft = unwrapped.verified.successor()?;
    draft.custody = Custody::Single(Slot { wrapped: current, standby: Some(standby) });
    let record = draft.seal(unwrapped.keys.prks())?;
    work.persist(record)
}

/// One change of a record's wraps, under way.
struct Rewrap<'a> {
    inner: &'a AccountInner,
    clock: &'a Clock,
    provider: Arc<dyn KeyProvider>,
    kek: Kek,
    /// What this process went by.
    known: Known,
    /// What the store has now.
    newest: Known,
}

impl<'a> Rewrap<'a> {
    fn begin(inner: &'a AccountInner, clock: &'a Clock) -> Result<Self, Error> {
        let known = inner.known();
        let newest = inner.newest(&known).map_err(Refreshed::into_failure)?;
        let (provider, kek) = provider_and_kek(inner, &known, &newest.record)?;
        Ok(Self { inner, clock, provider, kek, known, newest })
    }

    fn caller(&self) -> Caller<'_> {
        Caller::awaiting(self.provider.as_ref(), self.clock)
    }

    async fn latest(&self) -> Result<KekVersion, Error> {
        Ok(self.caller().describe(&self.kek).await.map_err(ProviderError::into_error)?.version)
    }

    async fn unwrap(&self, wrap: &Wrapped) -> Result<Unwrapped, Refreshed> {
        self.inner.unwrap_wrap(self.clock, self.caller(), wrap, &self.known, &self.newest).await
    }

    async fn wrap(&self, version: &KekVersion, unwrapped: &Unwrapped) -> Result<Wrapped, Error> {
        let kek = Kek::pinned(self.kek.name(), version.clone());
        let context = self.newest.record.wrap_context();
        let wrapped =
            self.caller().wrap(&kek, &context, &unwrapped.input).await.map_err(ProviderError::into_error)?;
        if wrapped.kek() != self.newest.record.kek() || wrapped.version() != version {
            return Err(self.wrong("the KMS wrapped under another key or version than it was asked to"));
        }
        Ok(wrapped)
    }

    /// Nothing is persisted that was not unwrapped again and found to be the same AEK.
    async fn compare(&self, wrapped: &Wrapped, unwrapped: &Unwrapped) -> Result<(), Error> {
        let context = self.newest.record.wrap_context();
        let again = self.caller().unwrap(wrapped, &context).await.map_err(ProviderError::into_error)?;
        if bool::from(again.expose().ct_eq(unwrapped.input.expose())) {
            Ok(())
        } else {
            Err(self.wrong("the KMS did not give back what it wrapped"))
        }
    }

    fn persist(&self, record: VerifiedRecord) -> Result<(), Error> {
        let tag = match self.inner.store() {
            Some(store) => Some(store.compare_and_swap(
                self.inner.id(),
                self.newest.tag.as_ref(),
                &record.record().to_bytes(),
            )?),
            None => None,
        };
        let parsed = Arc::new(record.record().clone());
        self.inner.replace_known(Known { record: parsed, tag, verified: Some(Arc::new(record)) });
        // A refresh by the new record: it may be what brings a revoked account back.
        self.inner.feed(self.clock.now(), Event::RecordChanged);
        self.inner.poke();
        Ok(())
    }

    fn wrong(&self, message: &'static str) -> Error {
        Error::new(ErrorKind::Untrusted, message).with_account(self.inner.id())
    }
}

fn provider_and_kek(
    inner: &AccountInner,
    known: &Known,
    record: &AccountRecord,
) -> Result<(Arc<dyn KeyProvider>, Kek), Error> {
    let provider = inner.admit(known, record)?;
    let name = provider.authority().name_of(record.kek()).map_err(ProviderError::into_error)?.to_owned();
    Ok((provider, Kek::latest(name)))
}

/// Whether a piece of control work found its authority silent.
pub(crate) fn met<T>(result: &Result<T, Error>) -> Met {
    match result {
        Err(error) if error.kind() == ErrorKind::Unavailable => Met::Silence,
        _ => Met::Answers,
    }
}

fn wall(now: Moment) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(now.wall_nanos())
}

/// Describe, unwrap twice, wrap, unwrap again, and one to spare.
const CALLS: u32 = 6;
/// By when every machine has seen a record that is persisted now, whatever its refresh interval and call
/// deadline: F of the slowest, 60 + 6 + 5 s. Each refresh reads the record before it asks the KMS; a machine that
/// could not refresh since then reads the new record first when it can.
pub(crate) const SEEN_BY_ALL: Duration = Duration::from_secs(71);
