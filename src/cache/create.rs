//! Creating an account: preflight, a random AEK, wrapped and compared, a record, persisted, in use.
//! Runs on a worker. Imports: `cache`, `account`, `provider`, `format`, `block`, `derive`, `keeper`, `rotate`, `random`.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{AekCache, Shared};
use crate::account::{Account, Adopt, Known};
use crate::block::{GenerationKeys, KeyRing};
use crate::clock::{Clock, Moment};
use crate::derive::Secrets;
use crate::error::{Error, ErrorKind};
use crate::expect::Expect;
use crate::format::policy::{RecordPolicy, VersionPolicy};
use crate::format::record::{
    AccountRecord, Custody, GenerationEntry, Limit, OlderGenerations, RecordDraft, RecordState, Sequence,
    Slot, Standing, Terms, Timestamp, VerifiedRecord,
};
use crate::id::{AccountId, Generation, Suite};
use crate::keeper::{ControlCall, Destination, Message, Met, Pending};
use crate::provider::{
    Caller, Kek, KekUri, KeyProvider, PreflightReport, ProviderError, Recoverability, Verdict, WrapContext,
    WrapRole, preflight_at,
};
use crate::random;
use crate::record_store::RecordStore;
use crate::rotate::met;

/// What an account is created from.
#[derive(Clone)]
#[must_use]
pub struct AccountSpec {
    id: AccountId,
    under: Under,
    second: Option<Second>,
    outer: Option<Under>,
    store: Option<Arc<dyn RecordStore>>,
    policy: RecordPolicy,
    recoverability: Recoverability,
}

/// The second KEK of an AEK.
#[derive(Clone)]
enum Second {
    Failover { under: Under, limit: Duration },
    Joint(Under),
}

/// What an AEK is to be wrapped by.
#[derive(Clone)]
struct Under {
    provider: Arc<dyn KeyProvider>,
    kek: Kek,
}

impl AccountSpec {
    /// Account `id`, under `kek` at `provider`.
    pub fn new(id: AccountId, provider: Arc<dyn KeyProvider>, kek: Kek) -> Self {
        Self {
            id,
            under: Under { provider, kek },
            second: None,
            outer: None,
            store: None,
            policy: RecordPolicy::default(),
            recoverability: Recoverability::Required,
        }
    }

    /// Failover custody (contract A7): `kek` at `provider` wraps the AEK too, and stands in while the first provider is silent, for at
    /// most `limit` since that one has last answered: a whole number of seconds up to a week;
    /// [`Self::FAILOVER_LIMIT`] is the usual one. For good, as what it is; each KEK is rotated by itself.
    ///
    /// The second provider is not asked while the first one answers, and never after it refused: a refusal is written to the
    /// record, and bars the second one on every machine until the first one unwraps again. While it stands in, the status is
    /// [`Status::Grace`](crate::Status::Grace). When it refuses, the account is revoked. A lock is opened by the first one only. Attach with
    /// [`Expect::failover_kek`].
    ///
    /// Keep the record in a [`RecordStore`]. It says when the first provider has last answered, which is written anew several times
    /// within `limit`; where nobody writes it, a process that starts after `limit` gets nothing of the second one.
    pub fn failover(mut self, provider: Arc<dyn KeyProvider>, kek: Kek, limit: Duration) -> Self {
        self.second = Some(Second::Failover { under: Under { provider, kek }, limit });
        self
    }

    /// Joint custody (contract A7): `kek` at `provider` wraps one share of the AEK, and the first KEK another. Both are needed for every
    /// refresh: a refusal by either revokes, and the silence of either is silence. For good. Attach with [`Expect::joint_kek`].
    pub fn joint_with(mut self, provider: Arc<dyn KeyProvider>, kek: Kek) -> Self {
        self.second = Some(Second::Joint(Under { provider, kek }));
        self
    }

    /// 24 hours: a night, and a day to mend what it brought.
    pub const FAILOVER_LIMIT: Duration = Duration::from_secs(24 * 3600);

    /// Double encryption (contract A6): everything is sealed by AES-256-GCM and then by ChaCha20-Poly1305, under two independent AEKs,
    /// of which the second one is under `kek` at `provider`: another KEK at the same provider, or one at another. For good: it cannot be
    /// added later, nor taken away.
    ///
    /// Both KEKs are needed from then on: a refusal by either revokes, and the silence of either is silence. What it costs is in the
    /// speed of ChaCha20-Poly1305, 16 bytes more for each block, and a second call of a KMS for each refresh. Attach with
    /// [`Expect::outer_kek`].
    ///
    /// ```
    /// # use std::sync::Arc;
    /// use strongroom::provider::{Kek, KeyOptions, LocalKms};
    /// use strongroom::{Aad, AccountId, AccountSpec, AekCache, BlockId, ObjectId, Suite, sealed_len};
    /// # let folder = tempfile::tempdir()?;
    /// # let open = |name: &str| -> Result<_, Box<dyn std::error::Error>> {
    /// #     let kms = LocalKms::create(folder.path().join(name))?;
    /// #     kms.create_key("orders", KeyOptions::default())?;
    /// #     Ok(Arc::new(kms))
    /// # };
    /// # let (ours, theirs) = (open("ours")?, open("theirs")?);
    /// let cache = AekCache::builder().build()?;
    /// let spec = AccountSpec::new(AccountId::random(), ours, Kek::latest("orders"))
    ///     .double_encryption(theirs, Kek::latest("orders"));
    /// let account = cache.create(spec)?;
    /// let id = BlockId::new(ObjectId::random(), 0);
    /// let sealed = account.seal(id, Aad::EMPTY, b"twice")?;
    /// assert_eq!(sealed.len(), sealed_len(5, Suite::Double));
    /// assert_eq!(account.open(id, Aad::EMPTY, &sealed)?, b"twice");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn double_encryption(mut self, provider: Arc<dyn KeyProvider>, kek: Kek) -> Self {
        self.outer = Some(Under { provider, kek });
        self
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
        let Self { id, under, second, outer, store, policy, recoverability } = self;
        f.debug_struct("AccountSpec")
            .field("id", id)
            .field("kek", &under.kek)
            .field("second_kek", &second.as_ref().map(|second| &second.under().kek))
            .field("outer_kek", &outer.as_ref().map(|outer| &outer.kek))
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
    /// [`ErrorKind::Misuse`] for a KEK that could not be recovered after a deletion, for an account that is attached
    /// already, and for two KEKs of which one is pinned to a version and the other is not, or that are one. [`ErrorKind::Revoked`] for a missing permission or a disabled key, [`ErrorKind::Unavailable`] for a silent KMS,
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
        let providers: Vec<_> = spec.unders().map(|under| Arc::clone(&under.provider)).collect();
        let destination = Destination::of_all(&providers);
        let deadline = self.shared.settings.policy.call_deadline()
            * CALLS
            * u32::try_from(spec.unders().count()).unwrap_or(1);
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

impl AccountSpec {
    /// What the AEKs are to be wrapped by, in the order in which a record names them.
    fn unders(&self) -> impl Iterator<Item = &Under> {
        let second = self.second.as_ref().map(Second::under);
        std::iter::once(&self.under).chain(second).chain(&self.outer)
    }

    const fn suite(&self) -> Suite {
        match self.outer {
            None => Suite::Aes256Gcm,
            Some(_) => Suite::Double,
        }
    }

    fn check(&self) -> Result<(), Error> {
        let misuse = |message| Err(Error::new(ErrorKind::Misuse, message).with_account(self.id));
        let pinned = self.under.kek.version().is_some();
        if self.unders().any(|under| under.kek.version().is_some() != pinned) {
            return misuse("of two KEKs either both are pinned to a version or none is");
        }
        let mut uris = self.unders().map(Under::uri).collect::<Result<Vec<_>, _>>()?;
        uris.sort_unstable();
        if uris.windows(2).any(|two| two[0] == two[1]) {
            return misuse("the second KEK is the first one: they have to be two");
        }
        if matches!(&self.second, Some(Second::Failover { limit, .. }) if Limit::new(*limit).is_none()) {
            return misuse("a failover custody is limited to at least a second and at most a week");
        }
        Ok(())
    }
}

impl Second {
    const fn under(&self) -> &Under {
        match self {
            Self::Failover { under, .. } | Self::Joint(under) => under,
        }
    }
}

impl Under {
    fn uri(&self) -> Result<KekUri, Error> {
        self.provider.authority().uri_of(self.kek.name()).map_err(ProviderError::into_error)
    }

    fn caller<'a>(&'a self, clock: &'a Clock) -> Caller<'a> {
        Caller::awaiting(self.provider.as_ref(), clock)
    }

    /// Wraps a secret. Nothing is persisted that does not come back as it went.
    async fn wrap(
        &self,
        clock: &Clock,
        context: &WrapContext,
        secret: &[u8; 32],
    ) -> Result<(Slot, Moment), Error> {
        let input = context.input(secret);
        let wrapped =
            self.caller(clock).wrap(&self.kek, context, &input).await.map_err(ProviderError::into_error)?;
        let started = clock.now();
        let again = self.caller(clock).unwrap(&wrapped, context).await.map_err(ProviderError::into_error)?;
        let same = bool::from(again.expose().ct_eq(input.expose()));
        let pinned = self.kek.version();
        if !same
            || *wrapped.kek() != self.uri()?
            || pinned.is_some_and(|version| version != wrapped.version())
        {
            let error = Error::new(ErrorKind::Untrusted, "the KMS did not wrap what and as it was asked to");
            return Err(error.with_account(context.account()));
        }
        Ok((Slot { wrapped, standby: None }, started))
    }
}

async fn create(shared: &Weak<Shared>, spec: AccountSpec) -> Result<Account, Error> {
    let gone = || Error::new(ErrorKind::Unavailable, "the cache is shut down");
    let shared = shared.upgrade().ok_or_else(gone)?;
    let clock = &shared.clock;
    spec.check()?;
    for under in spec.unders() {
        let report = preflight_at(under.caller(clock), &under.kek, clock.now()).await;
        report.require(spec.recoverability).map_err(|error| error.with_account(spec.id))?;
    }

    let context = |role| WrapContext::new(spec.id, Generation::FIRST, spec.suite(), role);
    let Fresh { custody, secret, started } = wrap_fresh(&spec, clock, context(WrapRole::Inner)).await?;
    let outer = match &spec.outer {
        None => None,
        Some(under) => {
            let secret = fresh_secret();
            let (slot, _) = under.wrap(clock, &context(WrapRole::Outer), &secret).await?;
            Some((slot, secret))
        }
    };

    let settings = &shared.settings;
    let secrets = Secrets { inner: &secret, outer: outer.as_ref().map(|(_, secret)| &***secret) };
    let keys = GenerationKeys::new(spec.id, Generation::FIRST, secrets, settings.memory_lock)?
        .with_engine(settings.engine);
    let created = Timestamp::from_wall_nanos(started.wall_nanos());
    let verified = first_record(&spec, custody, outer.map(|(slot, _)| slot), &keys, created)?;

    let record = verified.share();
    let draft = Known { record: Arc::clone(&record), tag: None, verified: None };
    let inner = shared.inner(draft, expected(&spec, verified.record()), spec.store.clone(), None)?;
    shared.register(&inner)?;
    let tag = match &spec.store {
        Some(store) => Some(store.compare_and_swap(spec.id, None, &record.to_bytes())?),
        None => None,
    };
    let grace = settings.grace.allowed_by(verified.policy());
    let known = Known { record, tag, verified: Some(verified) };
    inner.adopt_first(
        clock.now(),
        Adopt { started, ring: Arc::new(KeyRing::new(keys)), known, grace, renewal: None },
    );
    shared.keeper.handle().send(Message::Attach(Arc::clone(&inner)));
    Ok(Account::new(inner, Arc::clone(&shared.keeper)))
}

/// A new AEK, and who holds it.
struct Fresh {
    custody: Custody,
    secret: Zeroizing<Vec<u8>>,
    /// Before the first unwrap that it rests on.
    started: Moment,
}

async fn wrap_fresh(spec: &AccountSpec, clock: &Clock, context: WrapContext) -> Result<Fresh, Error> {
    let share = fresh_secret();
    let first = if matches!(spec.second, Some(Second::Joint(_))) { context.with_share(1) } else { context };
    let (first, started) = spec.under.wrap(clock, &first, &share).await?;
    let mut secret = Zeroizing::new(Vec::with_capacity(2 * 32));
    secret.extend_from_slice(share.as_slice());
    let custody = match &spec.second {
        None => Custody::Single(first),
        Some(Second::Failover { under, limit }) => {
            let (second, _) = under.wrap(clock, &context, &share).await?;
            let limit = Limit::new(*limit).ok_or_else(Error::corrupt)?;
            let confirmed = Timestamp::from_wall_nanos(started.wall_nanos());
            let terms = Terms { limit, confirmed, standing: Standing::UNSEALED };
            Custody::Failover { first, second, terms }
        }
        Some(Second::Joint(under)) => {
            let share = fresh_secret();
            let (second, _) = under.wrap(clock, &context.with_share(2), &share).await?;
            secret.extend_from_slice(share.as_slice());
            Custody::Joint { first, second }
        }
    };
    Ok(Fresh { custody, secret, started })
}

/// 32 random bytes, where they are wiped: on the heap, because a move would leave a copy on the stack.
fn fresh_secret() -> Box<Zeroizing<[u8; 32]>> {
    let mut secret = Box::new(Zeroizing::new([0; 32]));
    random::fill(&mut **secret);
    secret
}

fn expected(spec: &AccountSpec, record: &AccountRecord) -> Expect {
    let expect = Expect::account(spec.id)
        .kek(Arc::clone(&spec.under.provider), spec.under.kek.name())
        // What this process wraps and unwraps itself needs no further proof.
        .fingerprint(record.fingerprint());
    let expect = match &spec.second {
        None => expect,
        Some(Second::Failover { under, .. }) => {
            expect.failover_kek(Arc::clone(&under.provider), under.kek.name())
        }
        Some(Second::Joint(under)) => expect.joint_kek(Arc::clone(&under.provider), under.kek.name()),
    };
    match &spec.outer {
        None => expect,
        Some(outer) => expect.outer_kek(Arc::clone(&outer.provider), outer.kek.name()),
    }
}

fn first_record(
    spec: &AccountSpec,
    custody: Custody,
    outer: Option<Slot>,
    keys: &GenerationKeys,
    created: Timestamp,
) -> Result<VerifiedRecord, Error> {
    let version_policy =
        if spec.under.kek.version().is_some() { VersionPolicy::Pinned } else { VersionPolicy::Latest };
    let draft = RecordDraft {
        account: spec.id,
        sequence: Sequence::FIRST,
        created,
        state: RecordState::Active,
        policy: spec.policy.with_version_policy(version_policy),
        custody,
        newest: GenerationEntry::first(keys.prks(), created),
        outer: outer.map(Custody::Single),
        older: OlderGenerations::default(),
    };
    draft.seal(keys.prks())
}

/// Of each KEK: preflight's three, wrap, unwrap, and the store's share.
const CALLS: u32 = 6;
