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

use crate::account::unwrap::{Asked, Unwrapped};
use crate::account::{Account, AccountInner, Known, Refreshed};
use crate::clock::{Clock, Moment};
use crate::error::{Error, ErrorKind};
use crate::format::policy::VersionPolicy;
use crate::format::record::{AccountRecord, Held, Slot};
use crate::keeper::{ControlCall, Met, Pending};
use crate::lease::Event;
use crate::provider::{Caller, Kek, KekVersion, KeyProvider, ProviderError, WrapInput, Wrapped};

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
        begin_rotation(self.inner(), Which::First, to)
    }

    /// Under double encryption, wraps the second AEK under another version of its KEK. Each KEK is rotated by itself: they may be
    /// at providers that have nothing to do with each other.
    ///
    /// # Errors
    /// As [`Self::rotate_kek`]; [`ErrorKind::Misuse`] for an account that has no second AEK.
    pub fn rotate_outer_kek(&self, to: RotateTo) -> Result<Retire, Error> {
        self.begin_rotate_outer_kek(to).wait()
    }

    /// The same, as a future.
    pub fn begin_rotate_outer_kek(&self, to: RotateTo) -> Pending<Retire> {
        begin_rotation(self.inner(), Which::Outer, to)
    }

    /// Under failover or joint custody, wraps what the second KEK holds under another version of it.
    ///
    /// # Errors
    /// As [`Self::rotate_kek`]; [`ErrorKind::Misuse`] for an account of another custody.
    pub fn rotate_second_kek(&self, to: RotateTo) -> Result<Retire, Error> {
        self.begin_rotate_second_kek(to).wait()
    }

    /// The same, as a future.
    pub fn begin_rotate_second_kek(&self, to: RotateTo) -> Pending<Retire> {
        begin_rotation(self.inner(), Which::Second, to)
    }
}

/// The same, of an account that may be in use nowhere here.
pub(crate) fn begin_rotation(inner: &Arc<AccountInner>, which: Which, to: RotateTo) -> Pending<Retire> {
    let (pending, completer) = Pending::new();
    let abandon = completer.abandoner();
    let inner = Arc::clone(inner);
    let keeper = inner.keeper().clone();
    let destination = inner.destination_of_all().clone();
    let deadline = deadline_of(&inner);
    let run = Box::pin(async move {
        let result = match which.among(&inner.known().record) {
            Some(at) => rotate(&inner, inner.clock(), at, &to).await,
            None => Err(which.missing().with_account(inner.id())),
        };
        let met = met(&result);
        completer.complete(result);
        met
    });
    keeper.control(pending, ControlCall { destination, patience: deadline, deadline, run, abandon })
}

/// Which of an account's KEKs.
#[derive(Clone, Copy)]
pub(crate) enum Which {
    First,
    Second,
    Outer,
}

impl Which {
    /// All that `record` names.
    pub(crate) fn of(record: &AccountRecord) -> impl Iterator<Item = Self> {
        let all = [Self::First, Self::Second, Self::Outer];
        all.map(|which| which.among(record).map(|_| which)).into_iter().flatten()
    }

    /// Its number among [`AccountRecord::slots`].
    fn among(self, record: &AccountRecord) -> Option<usize> {
        let second = record.second_kek().is_some();
        match self {
            Self::First => Some(0),
            Self::Second => second.then_some(1),
            Self::Outer => record.outer_kek().map(|_| 1 + usize::from(second)),
        }
    }

    const fn missing(self) -> Error {
        let message = match self {
            Self::First => "the account has no KEK",
            Self::Second => "the account has no second KEK: it is under neither failover nor joint custody",
            Self::Outer => "the account has no second AEK: it is not under double encryption",
        };
        Error::new(ErrorKind::Misuse, message)
    }
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
        let deadline = deadline_of(self);
        let destination = self.destination_of_all().clone();
        let call = ControlCall { destination, patience: deadline, deadline, run, abandon: Box::new(drop) };
        self.keeper().send(crate::keeper::Message::VersionCheck(call));
    }
}

async fn follow(inner: &AccountInner, clock: &Clock) -> Result<(), Error> {
    let known = inner.known();
    let Some(verified) = &known.verified else { return Ok(()) };
    let providers = inner.admit(&known, &known.record)?;
    let mut newer = false;
    for (at, (slot, provider)) in known.record.slots().into_iter().zip(&providers).enumerate() {
        let Slot { wrapped, standby } = slot;
        let caller = Caller::awaiting(provider.as_ref(), clock);
        let latest =
            caller.describe(&latest_of(provider, wrapped)?).await.map_err(ProviderError::into_error)?.version;
        if latest == *wrapped.version()
            || standby.as_ref().is_some_and(|standby| *standby.version() == latest)
        {
            continue;
        }
        // Without a store nobody here can persist a new record: tell those who can.
        if inner.store().is_none() {
            newer = true;
            continue;
        }
        match verified.policy().version_policy() {
            VersionPolicy::Latest => rotate(inner, clock, at, &RotateTo::Latest).await.map(drop)?,
            VersionPolicy::Pinned => add_standby(inner, clock, at, &latest).await?,
        }
    }
    inner.announce_newer_version(newer);
    Ok(())
}

async fn rotate(inner: &AccountInner, clock: &Clock, at: usize, to: &RotateTo) -> Result<Retire, Error> {
    let work = Rewrap::begin(inner, clock, at)?;
    let target = match to {
        RotateTo::Version(version) => version.clone(),
        RotateTo::Latest => work.latest().await?,
    };
    let Slot { wrapped: current, standby } = work.slot()?.clone();
    if target == *current.version() {
        // What nobody has authenticated yet may claim any version.
        if work.newest.verified.is_none() {
            work.unwrap(&current).await.map_err(|failed| work.heed(failed))?;
        }
        return Ok(Retire::AlreadyCurrent);
    }
    let standby = standby.filter(|wrap| *wrap.version() == target);
    let unwrapped =
        work.unwrap_somehow(&current, standby.as_ref()).await.map_err(|failed| work.heed(failed))?;
    let wrapped = match standby {
        Some(standby) => standby,
        None => work.wrap(&target, &unwrapped).await?,
    };
    work.compare(&wrapped, &unwrapped).await?;
    work.persist(&unwrapped, Slot { wrapped, standby: None })?;
    inner.announce_newer_version(false);
    Ok(if inner.store().is_some() {
        Retire::SafeAfter(wall(clock.now()) + SEEN_BY_ALL)
    } else {
        Retire::AfterPersisting(SEEN_BY_ALL)
    })
}

/// While the pinned version still works, wraps the AEK under the newer one too.
async fn add_standby(
    inner: &AccountInner,
    clock: &Clock,
    at: usize,
    version: &KekVersion,
) -> Result<(), Error> {
    let work = Rewrap::begin(inner, clock, at)?;
    let wrapped = work.slot()?.wrapped.clone();
    let unwrapped = work.unwrap(&wrapped).await.map_err(|failed| work.heed(failed))?;
    let standby = work.wrap(version, &unwrapped).await?;
    work.compare(&standby, &unwrapped).await?;
    work.persist(&unwrapped, Slot { wrapped, standby: Some(standby) })
}

/// One change of the wraps of one of a record's secrets, under way.
struct Rewrap<'a> {
    inner: &'a AccountInner,
    clock: &'a Clock,
    /// Of all the record's slots.
    providers: Vec<Arc<dyn KeyProvider>>,
    /// Which slot it is about.
    at: usize,
    /// What this process went by.
    known: Known,
    /// What the store has now.
    newest: Known,
}

impl<'a> Rewrap<'a> {
    fn begin(inner: &'a AccountInner, clock: &'a Clock, at: usize) -> Result<Self, Error> {
        let known = inner.known();
        let newest = inner.newest(&known).map_err(Refreshed::into_failure)?;
        let providers = inner.admit(&known, &newest.record)?;
        Ok(Self { inner, clock, providers, at, known, newest })
    }

    /// The slot, and what its wraps are bound to.
    fn held(&self) -> Result<Held<'_>, Error> {
        let held = self.newest.record.held_by_all().into_iter().find(|held| held.at == self.at);
        held.ok_or_else(|| self.wrong("the record has no such KEK any more"))
    }

    fn slot(&self) -> Result<&Slot, Error> {
        self.held().map(|held| held.slot)
    }

    fn provider(&self) -> Result<&Arc<dyn KeyProvider>, Error> {
        self.providers.get(self.at).ok_or_else(|| self.wrong("nobody is expected to hold this"))
    }

    fn caller(&self) -> Result<Caller<'_>, Error> {
        self.provider().map(|provider| Caller::awaiting(provider.as_ref(), self.clock))
    }

    async fn latest(&self) -> Result<KekVersion, Error> {
        let kek = latest_of(self.provider()?, &self.slot()?.wrapped)?;
        Ok(self.caller()?.describe(&kek).await.map_err(ProviderError::into_error)?.version)
    }

    /// Where the pinned version of a KEK is disabled, what was wrapped under the newer one while it worked is what saves the account
    /// (E2).
    async fn unwrap_somehow(
        &self,
        current: &Wrapped,
        standby: Option<&Wrapped>,
    ) -> Result<Unwrapped, Refreshed> {
        let (record, mut first) = (&self.newest.record, None);
        // The second slot of a failover custody is filled with what the first one gives.
        let standby = standby.filter(|_| self.is_unwrapped());
        for others in [record.wraps(), record.standbys()] {
            for wrap in std::iter::once(current).chain(standby) {
                match self.unwrap_among(wrap, others.clone()).await {
                    Err(refused @ Refreshed::Refused(..)) => drop(first.get_or_insert(refused)),
                    // What one wrap was refused for, the silence about another does not unsay.
                    Err(failed) => return Err(first.unwrap_or(failed)),
                    Ok(unwrapped) => return Ok(unwrapped),
                }
            }
            // Of one secret alone all has been tried.
            if (self.is_unwrapped() && record.wraps().len() == 1) || record.standbys() == record.wraps() {
                break;
            }
        }
        Err(first.expect("at least one was tried"))
    }

    /// Unwraps all secrets, and this one by `wrap`: only all of them together make the record believable.
    async fn unwrap(&self, wrap: &Wrapped) -> Result<Unwrapped, Refreshed> {
        self.unwrap_among(wrap, self.newest.record.wraps()).await
    }

    async fn unwrap_among<'b>(
        &'b self,
        wrap: &'b Wrapped,
        mut wraps: Vec<&'b Wrapped>,
    ) -> Result<Unwrapped, Refreshed> {
        let held = self.newest.record.held();
        if let Some(at) = held.iter().position(|held| held.at == self.at)
            && let Some(replaced) = wraps.get_mut(at)
        {
            *replaced = wrap;
        }
        let asked = Asked { providers: &self.providers, held: &held, wraps: &wraps, first: self.at };
        self.inner.unwrap_wraps(asked, &self.known, &self.newest, None).await
    }

    /// What the caller is told of it; a refusal is for others to know as well.
    fn heed(&self, failed: Refreshed) -> Error {
        self.inner.heed_refusal(&failed, &self.newest);
        failed.into_failure()
    }

    async fn wrap(&self, version: &KekVersion, unwrapped: &Unwrapped) -> Result<Wrapped, Error> {
        let Held { context, slot, at: _ } = self.held()?;
        let kek = Kek::pinned(latest_of(self.provider()?, &slot.wrapped)?.name(), version.clone());
        let wrapped = self
            .caller()?
            .wrap(&kek, &context, self.input(unwrapped)?)
            .await
            .map_err(ProviderError::into_error)?;
        if wrapped.kek() != slot.wrapped.kek() || wrapped.version() != version {
            return Err(self.wrong("the KMS wrapped under another key or version than it was asked to"));
        }
        Ok(wrapped)
    }

    /// Nothing is persisted that was not unwrapped again and found to be the same AEK.
    async fn compare(&self, wrapped: &Wrapped, unwrapped: &Unwrapped) -> Result<(), Error> {
        let context = self.held()?.context;
        let again = self.caller()?.unwrap(wrapped, &context).await.map_err(ProviderError::into_error)?;
        if bool::from(again.expose().ct_eq(self.input(unwrapped)?.expose())) {
            Ok(())
        } else {
            Err(self.wrong("the KMS did not give back what it wrapped"))
        }
    }

    fn input<'b>(&self, unwrapped: &'b Unwrapped) -> Result<&'b WrapInput, Error> {
        let context = self.held()?.context;
        let held = self.newest.record.held();
        let at = held.iter().position(|held| held.context == context);
        let input = at.and_then(|at| unwrapped.inputs.get(at));
        input.ok_or_else(|| self.wrong("not all of the account's secrets were unwrapped"))
    }

    /// Whether the slot's own wrap is among those that are unwrapped.
    fn is_unwrapped(&self) -> bool {
        self.newest.record.held().iter().any(|held| held.at == self.at)
    }

    fn persist(&self, unwrapped: &Unwrapped, slot: Slot) -> Result<(), Error> {
        let mut draft = unwrapped.verified.successor()?;
        draft.replace_slot(self.at, slot);
        let record = draft.seal(unwrapped.keys.prks())?;
        let tag = match self.inner.store() {
            Some(store) => Some(
                store
                    .compare_and_swap(self.inner.id(), self.newest.tag.as_ref(), &record.record().to_bytes())
                    .inspect_err(|error| self.look_again(error))?,
            ),
            None => None,
        };
        self.inner.replace_known(Known { record: record.share(), tag, verified: Some(record) })?;
        // A refresh by the new record: it may be what brings a revoked account back.
        self.inner.feed(self.clock.now(), Event::RecordChanged);
        self.inner.poke();
        Ok(())
    }

    /// After an answer that was lost the new record may be in the store all the same.
    fn look_again(&self, swap: &Error) {
        if swap.kind() != ErrorKind::Conflict {
            self.inner.feed(self.clock.now(), Event::RecordChanged);
            self.inner.poke();
        }
    }

    fn wrong(&self, message: &'static str) -> Error {
        Error::new(ErrorKind::Untrusted, message).with_account(self.inner.id())
    }
}

/// The KEK that made a wrap, whichever version of it is the latest.
fn latest_of(provider: &Arc<dyn KeyProvider>, wrapped: &Wrapped) -> Result<Kek, Error> {
    let authority = provider.authority();
    Ok(Kek::latest(authority.name_of(wrapped.kek()).map_err(ProviderError::into_error)?))
}

fn deadline_of(inner: &AccountInner) -> Duration {
    inner.settings().policy.call_deadline() * CALLS * inner.slots()
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

/// Describe, unwrap twice, wrap, unwrap again, and one to spare; for each slot, because each unwrapping may be of all secrets, by either
/// wrap of each.
const CALLS: u32 = 6;
/// By when every machine has seen a record that is persisted now, whatever its refresh interval and call
/// deadline: F of the slowest, 60 + 6 + 5 s. Each refresh reads the record before it asks the KMS; a machine that
/// could not refresh since then reads the new record first when it can.
pub(crate) const SEEN_BY_ALL: Duration = Duration::from_secs(71);
