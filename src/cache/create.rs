//! Creating an account: preflight, a random AEK, wrapped and compared, a record, persisted, in use.
//! Runs on a worker. Imports: `cache`, `account`, `provider`, `format`, `block`, `derive`, `keeper`, `rotate`, `random`.

use std::fmt;
use std::sync::{Arc, Weak};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{AekCache, Shared};
use crate::account::{Account, Adopt, Known};
use crate::block::{GenerationKeys, KeyRing};
use crate::clock::Clock;
use crate::derive::Secrets;
use crate::error::{Error, ErrorKind};
use crate::expect::Expect;
use crate::format::policy::{RecordPolicy, VersionPolicy};
use crate::format::record::{
    Custody, GenerationEntry, KeyFingerprint, OlderGenerations, RecordDraft, RecordState, Sequence, Slot,
    Timestamp, VerifiedRecord,
};
use crate::id::{AccountId, Generation, Suite};
use crate::keeper::{ControlCall, Destination, Message, Met, Pending};
use crate::provider::{
    Caller, Kek, KeyProvider, PreflightReport, ProviderError, Recoverability, Verdict, WrapContext,
    WrapInput, WrapRole, Wrapped, preflight_at,
};
use crate::random;
use crate::record_store::RecordStore;
use crate::rotate::met;

/// What an account is created from.
#[derive(Clone)]
#[must_use]
pub struct AccountSpec {
    id: AccountId,
    provider: Arc<dyn KeyProvider>,
    kek: Kek,
    store: Option<Arc<dyn RecordStore>>,
    policy: RecordPolicy,
    recoverability: Recoverability,
}

impl AccountSpec {
    /// Account `id`, under `kek` at `provider`.
    pub fn new(id: AccountId, provider: Arc<dyn KeyProvider>, kek: Kek) -> Self {
        Self {
            id,
            provider,
            kek,
            store: None,
            policy: RecordPolicy::default(),
            recoverability: Recoverability::Required,
        }
    }

    /// Keeps the record in `store`, so that many machines share the account, and the library itself persists what it
    /// changes. Without one the caller persists [`Account::record`].
    pub fn store(mut self, store: Arc<dyn RecordStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// The customer's terms. Whether versions are pinned follows from the [`Kek`], whatever `policy` says of it.
    pub const fn policy(mut self, policy: RecordPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Creates the account even on a KEK that could be deleted for good, by accident or by an attacker. All data
    /// under it would be lost with it.
    pub const fn allow_unrecoverable_kek(mut self) -> Self {
        self.recoverability = Recoverability::AcceptLoss;
        self
    }
}

impl fmt::Debug for AccountSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, provider: _, kek, store, policy, recoverability } = self;
        f.debug_struct("AccountSpec")
            .field("id", id)
            .field("kek", kek)
            .field("stored", &store.is_some())
            .field("policy", policy)
            .field("recoverability", recoverability)
            .finish_non_exhaustive()
    }
}

impl AekCache {
    /// Creates an account: checks that the KEK is fit to hold it (contract B9), draws an AEK, wraps it, and brings it into
    /// use. Where the spec names no store, persist [`Account::record`] before the first block is kept.
    ///
    /// # Errors
    /// [`ErrorKind::Misuse`] for a KEK that could not be recovered after a deletion, and for an account that is attached
    /// already. [`ErrorKind::Revoked`] for a missing permission or a disabled key, [`ErrorKind::Unavailable`] for a silent KMS,
    /// [`ErrorKind::Untrusted`] for an answer of it that cannot be right. [`ErrorKind::Conflict`] when the
    /// store has a record of this account.
    ///
    /// After [`ErrorKind::Io`] and [`ErrorKind::Unavailable`] the record may have been persisted all the same, by a call
    /// that ended too late: a retry then meets [`ErrorKind::Conflict`], and [`Self::attach_stored`] brings the account
    /// into use. After any other error nothing was persisted.
    pub fn create(&self, spec: AccountSpec) -> Result<Account, Error> {
        self.begin_create(spec).wait()
    }

    /// The same, as a future.
    pub fn begin_create(&self, spec: AccountSpec) -> Pending<Account> {
        let (pending, completer) = Pending::new();
        let abandon = completer.abandoner();
        let destination = Destination::of(spec.provider.as_ref());
        let deadline = self.shared.settings.policy.call_deadline() * CALLS;
        let shared = Arc::downgrade(&self.shared);
        let run = Box::pin(async move {
            let result = create(&shared, spec).await;
            let met = met(&result);
            completer.complete(result);
            met
        });
        self.shared
            .keeper
            .handle()
            .control(pending, ControlCall { destination, patience: deadline, deadline, run, abandon })
    }
}

impl AekCache {
    /// [`preflight`](crate::provider::preflight()) as a future: on the cache's own threads, or on the provider's runtime,
    /// behind the same bulkheads as every call, and with a bound on its time.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when not all of it was answered in time, or the cache is shut down. What the KMS
    /// answered is in the report.
    pub fn begin_preflight(&self, provider: Arc<dyn KeyProvider>, kek: Kek) -> Pending<PreflightReport> {
        let (pending, completer) = Pending::new();
        let abandon = completer.abandoner();
        let destination = Destination::of(provider.as_ref());
        let deadline = self.shared.settings.policy.call_deadline() * CALLS;
        let clock = self.shared.clock.clone();
        let run = Box::pin(async move {
            let report = preflight_at(Caller::awaiting(provider.as_ref(), &clock), &kek, clock.now()).await;
            let met =
                if matches!(report.verdict(), Verdict::Silent(_)) { Met::Silence } else { Met::Answers };
            completer.complete(Ok(report));
            met
        });
        self.shared
            .keeper
            .handle()
            .control(pending, ControlCall { destination, patience: deadline, deadline, run, abandon })
    }
}

async fn create(shared: &Weak<Shared>, spec: AccountSpec) -> Result<Account, Error> {
    let gone = || Error::new(ErrorKind::Unavailable, "the cache is shut down");
    let shared = shared.upgrade().ok_or_else(gone)?;
    let clock = &shared.clock;
    let provider = Caller::awaiting(spec.provider.as_ref(), clock);
    let report = preflight_at(provider, &spec.kek, clock.now()).await;
    report.require(spec.recoverability).map_err(|error| error.with_account(spec.id))?;

    let context = WrapContext::new(spec.id, Generation::FIRST, Suite::Aes256Gcm, WrapRole::Inner);
    let mut secret = Zeroizing::new([0; 32]);
    random::fill(&mut *secret);
    let input = context.input(&secret);
    let wrapped = provider.wrap(&spec.kek, &context, &input).await.map_err(ProviderError::into_error)?;
    let started = clock.now();
    unwrap_again(clock, &spec, &context, &wrapped, &input).await?;

    let settings = &shared.settings;
    let keys =
        GenerationKeys::new(spec.id, Generation::FIRST, Secrets::single(&secret), settings.memory_lock)?
            .with_engine(settings.engine);
    let created = Timestamp::from_wall_nanos(started.wall_nanos());
    let verified = first_record(&spec, wrapped, &keys, created)?;

    let expect = Expect::account(spec.id)
        .kek(Arc::clone(&spec.provider), spec.kek.name())
        // What this process wraps and unwraps itself needs no further proof.
        .fingerprint(verified.record().fingerprint());
    let record = Arc::new(verified.record().clone());
    let draft = Known { record: Arc::clone(&record), tag: None, verified: None };
    let inner = shared.inner(draft, expect, spec.store.clone(), None)?;
    shared.register(&inner)?;
    let tag = match &spec.store {
        Some(store) => Some(store.compare_and_swap(spec.id, None, &record.to_bytes())?),
        None => None,
    };
    let grace = settings.grace.allowed_by(verified.policy());
    let known = Known { record, tag, verified: Some(Arc::new(verified)) };
    inner.adopt_first(clock.now(), Adopt { started, ring: Arc::new(KeyRing::new(keys)), known, grace });
    shared.keeper.handle().send(Message::Attach(Arc::clone(&inner)));
    Ok(Account::new(inner, Arc::clone(&shared.keeper)))
}

/// Nothing is persisted that does not come back as it went.
async fn unwrap_again(
    clock: &Clock,
    spec: &AccountSpec,
    context: &WrapContext,
    wrapped: &Wrapped,
    input: &WrapInput,
) -> Result<(), Error> {
    let uri = spec.provider.authority().uri_of(spec.kek.name()).map_err(ProviderError::into_error)?;
    let pinned = spec.kek.version();
    let provider = Caller::awaiting(spec.provider.as_ref(), clock);
    let again = provider.unwrap(wrapped, context).await.map_err(ProviderError::into_error)?;
    let same = bool::from(again.expose().ct_eq(input.expose()));
    if !same || *wrapped.kek() != uri || pinned.is_some_and(|version| version != wrapped.version()) {
        let error = Error::new(ErrorKind::Untrusted, "the KMS did not wrap what and as it was asked to");
        return Err(error.with_account(spec.id));
    }
    Ok(())
}

fn first_record(
    spec: &AccountSpec,
    wrapped: Wrapped,
    keys: &GenerationKeys,
    created: Timestamp,
) -> Result<VerifiedRecord, Error> {
    let version_policy =
        if spec.kek.version().is_some() { VersionPolicy::Pinned } else { VersionPolicy::Latest };
    let draft = RecordDraft {
        account: spec.id,
        sequence: Sequence::FIRST,
        created,
        state: RecordState::Active,
        policy: spec.policy.with_version_policy(version_policy),
        custody: Custody::Single(Slot { wrapped, standby: None }),
        newest: GenerationEntry {
            number: Generation::FIRST,
            suite: Suite::Aes256Gcm,
            created,
            active_from: created,
            fingerprint: KeyFingerprint::of(keys.kcv()),
        },
        older: OlderGenerations::default(),
    };
    draft.seal(keys.prks())
}

/// Preflight's three, wrap, unwrap, and the store's share.
const CALLS: u32 = 6;
