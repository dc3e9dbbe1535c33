//! AEK rotation: a generation is added, and in the end one is destroyed (contract E4).
//!
//! ```text
//! rotate   load newest ─► unwrap ─► new AEK ─► wrap, unwrap, compare ─► older AEKs sealed under it ─► compare-and-swap
//!          published: every machine that reads the record opens under it ─► active: new data is sealed under it
//! destroy  nothing refers to the generation, nobody can still seal under it ─► record without it ─► what was kept of its records
//! ```
//! Whatever fails or crashes on the way, the record in the store is the old one or the new one, and either opens all data. Runs on
//! workers. Imports: `account`, `change`, `rotate`, `block`, `derive`, `keeper`, `lease`, `provider`, `format`, `random`, `clock`, `error`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::account::unwrap::{Gathered, Unwrapped};
use crate::account::{Account, AccountInner};
use crate::block::GenerationKeys;
use crate::change::Newest;
use crate::error::{Error, ErrorKind};
use crate::format::policy::VersionPolicy;
use crate::format::record::{
    AccountRecord, GenerationEntry, MAX_OLDER, OlderGeneration, OlderGenerations, RecordDraft, RecordState,
    Slot, Timestamp,
};
use crate::id::Generation;
use crate::keeper::{ControlCall, Destination, Pending};
use crate::lease::Event;
use crate::provider::{Caller, Kek, KekVersion, KeyProvider, ProviderError, WrapContext, WrapInput, Wrapped};
use crate::random;
use crate::rotate::{SEEN_BY_ALL, met};

/// A generation that an AEK rotation has added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AekRotation {
    /// Its number.
    pub generation: Generation,
    /// From when new data is sealed under it, on every machine by its own wall clock. Until then all machines have read the record and can
    /// open what is sealed under it.
    pub active_from: SystemTime,
}

/// The word of an engine that nothing which is still wanted was sealed under a generation: no block, object or temporary file, no state of a
/// scope, no manifest of a takeover, no cursor of an operation, and no copy or backup of those.
#[derive(Clone, Copy, Debug)]
pub struct NothingRefersToIt(());

impl NothingRefersToIt {
    /// Says so. What was forgotten can never be read again.
    #[must_use]
    pub const fn as_the_engine_states() -> Self {
        Self(())
    }
}

impl Account {
    /// Adds a generation: a new AEK, for what is written from [`AekRotation::active_from`] on. Everything stays readable; the data that is there is
    /// not touched.
    ///
    /// It is published first and used later: 131 s after it was made, when every machine has read the record and a minute has passed in which
    /// wall clocks may differ. Older AEKs are sealed under the new one, so a refresh asks the KMS once however many there are, 256 beside the newest
    /// at most. Without a record store persist [`Self::record`], and have all processes attach it, before then.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use std::time::Duration;
    /// # use strongroom::provider::{Kek, KeyOptions, LocalKms};
    /// use strongroom::{Aad, AccountId, AccountSpec, AekCache, BlockId, MemoryRecordStore, ObjectId};
    /// # let folder = tempfile::tempdir()?;
    /// # let kms = Arc::new(LocalKms::create(folder.path().join("kms.json"))?);
    /// # kms.create_key("orders", KeyOptions::default())?;
    /// # let cache = AekCache::builder().build()?;
    /// # let spec = AccountSpec::new(AccountId::random(), kms, Kek::latest("orders"));
    /// let account = cache.create(spec.store(Arc::new(MemoryRecordStore::new())))?;
    /// let id = BlockId::new(ObjectId::random(), 0);
    /// let sealed = account.seal(id, Aad::EMPTY, b"sealed before")?;
    ///
    /// let rotation = account.rotate_aek()?;
    /// assert_eq!(rotation.generation.number(), 2);
    /// assert_eq!(account.open(id, Aad::EMPTY, &sealed)?, b"sealed before");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when another process changed the record meanwhile: retry. [`ErrorKind::Misuse`] while the newest generation is not
    /// active yet, and [`ErrorKind::Limit`] when there are 256 older ones: [destroy](Self::destroy_generation) some. [`ErrorKind::Deleted`] for a
    /// deleted account. [`ErrorKind::Untrusted`] where what this account was attached with would not admit the new record, such as a pinned
    /// generation. Under failover and joint custody both KMSs have to answer: each holds the new AEK, or a share of it. Otherwise as [`Self::rotate_kek`].
    pub fn rotate_aek(&self) -> Result<AekRotation, Error> {
        self.begin_rotate_aek().wait()
    }

    /// The same, as a future.
    pub fn begin_rotate_aek(&self) -> Pending<AekRotation> {
        let everyone = self.inner().destination_of_all().clone();
        begin(self.inner(), everyone, |inner| async move { rotate(&inner).await })
    }

    /// From when a generation can be destroyed, as far as machines may still seal under it: once the one after it is active, and the lease of
    /// every machine has ended that has not read the record since that one was made. `None` for the newest, and for one that the record does
    /// not have.
    ///
    /// A machine that the KMS is silent to seals on under the generation it knows, for as long as its grace lasts. That is counted here as this cache and the
    /// record allow it: where caches are set to different grace, bound it in the record ([`RecordPolicy::with_max_grace`](crate::RecordPolicy::with_max_grace)).
    #[must_use]
    pub fn generation_destroyable_from(&self, generation: Generation) -> Option<SystemTime> {
        let inner = self.inner();
        destroyable_from(inner, &inner.known().record, generation).map(SystemTime::from)
    }

    /// Destroys the AEK of a generation **for good**: the record is written without it, and the records that its store keeps from before are
    /// destroyed, which have it too. What was sealed under it can then be read by nobody who has no copy of such a record; machines
    /// forget the key at their next refresh. Oldest first. Without a record store the caller persists [`Self::record`], and destroys the ones before.
    ///
    /// Calling it again goes on where a crash left it.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] for the newest generation, for one that an older one stands behind, and before
    /// [`Self::generation_destroyable_from`]. Otherwise as [`Self::rotate_aek`].
    pub fn destroy_generation(&self, generation: Generation, _: NothingRefersToIt) -> Result<(), Error> {
        self.begin_destroy_generation(generation, NothingRefersToIt(())).wait()
    }

    /// The same, as a future.
    pub fn begin_destroy_generation(&self, generation: Generation, _: NothingRefersToIt) -> Pending<()> {
        let destination = self.inner().destination().clone();
        begin(self.inner(), destination, move |inner| async move { destroy(&inner, generation).await })
    }
}

fn begin<T, F>(
    inner: &Arc<AccountInner>,
    destination: Destination,
    work: impl FnOnce(Arc<AccountInner>) -> F + Send + 'static,
) -> Pending<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let (pending, completer) = Pending::new();
    let abandon = completer.abandoner();
    let keeper = inner.keeper().clone();
    let deadline = inner.settings().policy.call_deadline() * CALLS * inner.slots();
    let work = work(Arc::clone(inner));
    let run = Box::pin(async move {
        let result = work.await;
        let met = met(&result);
        completer.complete(result);
        met
    });
    keeper.control(pending, ControlCall { destination, patience: deadline, deadline, run, abandon })
}

async fn rotate(inner: &AccountInner) -> Result<AekRotation, Error> {
    let work = Newest::load(inner)?;
    let unwrapped = work.unwrapped().await?;
    let record = unwrapped.verified.record();
    let misuse = |message| Error::new(ErrorKind::Misuse, message).with_account(inner.id());
    require_active(&unwrapped)?;
    if inner.clock().now().wall_nanos() < record.newest().active_from.wall_nanos() {
        return Err(misuse("the newest generation is not active yet: one rotation at a time"));
    }
    if record.older().list.len() >= MAX_OLDER {
        let message = "an account has at most 256 older generations: destroy those that nothing refers to";
        return Err(Error::new(ErrorKind::Limit, message).with_account(inner.id()));
    }
    let number = record.generation().number().checked_add(1).and_then(Generation::new);
    let number = number.ok_or_else(|| misuse("an account has no more than 2^32 - 1 generations"))?;

    let fresh = Fresh::drawn(record, number);
    let slots = fresh.wrapped(inner, &unwrapped).await?;
    let gathered = fresh.gathered()?;
    let keys = GenerationKeys::new(inner.id(), number, gathered.secrets(), inner.settings().memory_lock)?
        .with_engine(inner.settings().engine);

    // Only now: until the record is there a machine can read the one before, and the KMSs may have taken their time.
    let now = inner.clock().now();
    let created = Timestamp::from_wall_nanos(now.wall_nanos());
    let active_from = Timestamp::from_wall_nanos(now.plus(ACTIVE_AFTER).wall_nanos());
    let newest = GenerationEntry { number, active_from, ..GenerationEntry::first(keys.prks(), created) };
    let list = sealed_under(&keys, &unwrapped)?;
    let older = OlderGenerations::linked(inner.id(), &newest, list, unwrapped.keys.prks());
    let mut draft = RecordDraft { newest, older, ..unwrapped.verified.successor()? };
    for (at, slot) in slots.into_iter().enumerate() {
        draft.replace_slot(at, slot);
    }
    put_into_force(inner, &work, draft, &keys)?;
    Ok(AekRotation { generation: number, active_from: newest.active_from.into() })
}

async fn destroy(inner: &AccountInner, generation: Generation) -> Result<(), Error> {
    let work = Newest::load(inner)?;
    let unwrapped = work.unwrapped().await?;
    let record = unwrapped.verified.record();
    let misuse = |message| Error::new(ErrorKind::Misuse, message).with_account(inner.id());
    require_active(&unwrapped)?;
    if generation >= record.generation() {
        return Err(misuse("the newest generation is not destroyed: delete the account"));
    }
    let mut older = record.older().clone();
    match older.list.last().map(|last| last.entry.number) {
        // Destroyed already, and perhaps not yet what the store keeps.
        Some(last) if generation < last => {}
        None => {}
        Some(last) if generation > last => return Err(misuse("generations are destroyed oldest first")),
        Some(_) => {
            let from = destroyable_from(inner, record, generation);
            let now = Timestamp::from_wall_nanos(inner.clock().now().wall_nanos());
            if from.is_none_or(|from| now < from) {
                return Err(misuse("a machine may still seal under the generation: wait"));
            }
            older.list.pop();
            if older.list.is_empty() {
                older.link = None;
            }
            let draft = RecordDraft { older, ..unwrapped.verified.successor()? };
            put_into_force(inner, &work, draft, &unwrapped.keys)?;
        }
    }
    inner.record_store().map_or(Ok(()), |store| store.destroy_kept(inner.id()))
}

fn require_active(unwrapped: &Unwrapped) -> Result<(), Error> {
    match unwrapped.verified.state() {
        RecordState::Active => Ok(()),
        RecordState::Deleted { .. } => {
            let error = Error::new(ErrorKind::Deleted, "the account is deleted: recover it first");
            Err(error.with_account(unwrapped.verified.record().account()))
        }
    }
}

/// The secrets of a new generation, as a KMS wraps them, in the order of [`AccountRecord::held`].
struct Fresh(Vec<(WrapContext, WrapInput)>);

impl Fresh {
    fn drawn(record: &AccountRecord, number: Generation) -> Self {
        let contexts = record.held().into_iter().map(|held| held.context.of_generation(number));
        let draw = |context: WrapContext| {
            // On the heap, where it is wiped: a move would leave a copy on the stack.
            let mut secret = Box::new(Zeroizing::new([0; 32]));
            random::fill(&mut **secret);
            (context, context.input(&secret))
        };
        Self(contexts.map(draw).collect())
    }

    fn gathered(&self) -> Result<Gathered<'_>, Error> {
        let inputs = self.0.iter().map(|(context, input)| (*context, input));
        Gathered::from(inputs).ok_or_else(Error::corrupt)
    }

    /// What every slot of the record holds from now on: each secret wrapped by each KEK that holds it, under the version that the policy
    /// says, and where there is a standby under that one too. Under failover custody both KMSs have to answer.
    async fn wrapped(&self, inner: &AccountInner, unwrapped: &Unwrapped) -> Result<Vec<Slot>, Error> {
        let record = unwrapped.verified.record();
        let providers = inner.expect().admit_next(record)?;
        let held = record.held_by_all();
        let mut slots = Vec::with_capacity(held.len());
        for (held, provider) in held.into_iter().zip(&providers) {
            // The two slots of a failover custody hold one secret.
            let fresh =
                self.0.iter().find(|(context, _)| context.of_generation(record.generation()) == held.context);
            let (context, input) = fresh.ok_or_else(Error::corrupt)?;
            let Slot { wrapped: current, standby } = held.slot;
            let wrapping = Wrapping { inner, provider: provider.as_ref(), current, context, input };
            let pinned = unwrapped.verified.policy().version_policy() == VersionPolicy::Pinned;
            let wrapped = wrapping.under(pinned.then(|| current.version())).await?;
            let version = standby.as_ref().map(Wrapped::version);
            let standby = match version.filter(|version| *version != wrapped.version()) {
                Some(version) => Some(wrapping.under(Some(version)).await?),
                None => None,
            };
            slots.push(Slot { wrapped, standby });
        }
        Ok(slots)
    }
}

/// One new secret at one KMS.
struct Wrapping<'a> {
    inner: &'a AccountInner,
    provider: &'a dyn KeyProvider,
    /// The wrap of the secret before, which tells the KEK.
    current: &'a Wrapped,
    context: &'a WrapContext,
    input: &'a WrapInput,
}

impl Wrapping<'_> {
    /// Wraps under `version`, or under the latest. Nothing is persisted that does not come back as it went.
    async fn under(&self, version: Option<&KekVersion>) -> Result<Wrapped, Error> {
        let authority = self.provider.authority();
        let name = authority.name_of(self.current.kek()).map_err(ProviderError::into_error)?;
        let kek = match version {
            Some(version) => Kek::pinned(name, version.clone()),
            None => Kek::latest(name),
        };
        let caller = Caller::awaiting(self.provider, self.inner.clock());
        let wrapped = caller.wrap(&kek, self.context, self.input).await.map_err(ProviderError::into_error)?;
        let again = caller.unwrap(&wrapped, self.context).await.map_err(ProviderError::into_error)?;
        let same = bool::from(again.expose().ct_eq(self.input.expose()));
        let other_version = version.is_some_and(|version| version != wrapped.version());
        if !same || other_version || wrapped.kek() != self.current.kek() {
            let error = Error::new(ErrorKind::Untrusted, "the KMS did not wrap what and as it was asked to");
            return Err(error.with_account(self.inner.id()));
        }
        Ok(wrapped)
    }
}

/// Every generation that `unwrapped` opens, sealed under `keys`.
fn sealed_under(keys: &GenerationKeys, unwrapped: &Unwrapped) -> Result<Vec<OlderGeneration>, Error> {
    let record = unwrapped.verified.record();
    let contexts = record.held().into_iter().map(|held| held.context);
    let current = Gathered::from(contexts.zip(&unwrapped.inputs)).ok_or_else(Error::corrupt)?;
    let mut list = Vec::with_capacity(record.older().list.len() + 1);
    let sealed = keys.seal_older(record.generation(), current.secrets())?;
    list.push(OlderGeneration { entry: *record.newest(), sealed });
    for OlderGeneration { entry, sealed } in &record.older().list {
        let secrets = unwrapped.keys.open_older(entry.number, sealed)?;
        let sealed = keys.seal_older(entry.number, secrets.secrets()?)?;
        list.push(OlderGeneration { entry: *entry, sealed });
    }
    Ok(list)
}

fn put_into_force(
    inner: &AccountInner,
    work: &Newest<'_>,
    draft: RecordDraft,
    keys: &GenerationKeys,
) -> Result<(), Error> {
    let next = draft.seal(keys.prks())?;
    // What this process would not believe of another it does not persist.
    inner.expect().admit_next(next.record())?;
    let known = work.persist(next)?;
    inner.replace_known(known)?;
    inner.feed(inner.clock().now(), Event::RecordChanged);
    inner.poke();
    Ok(())
}

fn destroyable_from(
    inner: &AccountInner,
    record: &AccountRecord,
    generation: Generation,
) -> Option<Timestamp> {
    let mut entries =
        record.older().list.iter().map(|older| older.entry).rev().chain(std::iter::once(*record.newest()));
    entries.find(|entry| entry.number == generation)?;
    let next = entries.next()?;
    let grace = inner.settings().grace.allowed_by(record.policy());
    // Whoever destroys may have another wall clock than who made it.
    let leases_end = next.created.plus(SEEN_BY_ALL.saturating_add(grace)).plus(CLOCKS_DIFFER);
    Some(leases_end.max(next.active_from.plus(CLOCKS_DIFFER)))
}

/// By how much the wall clocks of two machines may differ.
const CLOCKS_DIFFER: Duration = Duration::from_secs(60);
/// How long after it was made a generation is used.
const ACTIVE_AFTER: Duration = Duration::from_secs(SEEN_BY_ALL.as_secs() + CLOCKS_DIFFER.as_secs());
/// For each slot: a load, an unwrap, two wraps and two unwraps, a swap, what is kept, and one to spare.
const CALLS: u32 = 9;

#[cfg(test)]
mod tests;
