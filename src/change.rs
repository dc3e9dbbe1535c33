//! A change of what a record says that touches no key: its state, its policy (contracts C5, E7).
//!
//! ```text
//! load newest ─► verified by the keys that a lease holds, or by an unwrap ─► successor, sealed ─► compare-and-swap
//! ```
//! A lease is enough: whoever holds one holds the key that authenticates the record, and what a customer takes away must not wait
//! for a KMS that is silent. Whatever fails or crashes on the way, the store has the old record or the new one. Runs on workers. Imports:
//! `account`, `rotate`, `keeper`, `lease`, `format`, `record_store`, `error`.

use std::sync::Arc;

use crate::account::refresh::believe;
use crate::account::unwrap::Unwrapped;
use crate::account::{Account, AccountInner, Known, Refreshed};
use crate::block::GenerationKeys;
use crate::error::{Error, ErrorKind};
use crate::format::policy::RecordPolicy;
use crate::format::record::{RecordDraft, VerifiedRecord};
use crate::keeper::{ControlCall, Destination, Met, Pending};
use crate::lease::Event;
use crate::record_store::RecordStore;
use crate::rotate::met;

impl Account {
    /// Changes the customer's terms in the record: the most grace, the consent to grace for a whole outage, the limits of a generation.
    /// Whether versions are pinned stays as it is, whatever `policy` says of it.
    ///
    /// Here grace that is shorter is in force when this returns, also in the middle of an outage: a lease that has outlived it ends. Longer
    /// grace counts from the next refresh. Other machines follow when they next read the record, at their next attempt to refresh.
    /// With a lease the KMS is not asked. Without a record store the caller persists [`Self::record`].
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use std::time::Duration;
    /// # use strongroom::provider::{Kek, KeyOptions, LocalKms};
    /// # use strongroom::{AccountId, AccountSpec, AekCache, RecordPolicy};
    /// # let folder = tempfile::tempdir()?;
    /// # let kms = Arc::new(LocalKms::create(folder.path().join("kms.json"))?);
    /// # kms.create_key("orders", KeyOptions::default())?;
    /// # let cache = AekCache::builder().build()?;
    /// # let account = cache.create(AccountSpec::new(AccountId::random(), kms, Kek::latest("orders")))?;
    /// let policy = *account.record().policy();
    /// account.set_policy(policy.with_max_grace(Duration::from_secs(60)))?;
    /// assert_eq!(account.record().policy().max_grace(), Some(Duration::from_secs(60)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when another process changed the record meanwhile: retry. [`ErrorKind::Deleted`] for a deleted account.
    /// [`ErrorKind::Untrusted`] for a record that is not to be believed. [`ErrorKind::Io`] for the record store, which then has the old
    /// record or the new one: retry. Without a lease what the KMS answered, as of [`Self::rotate_kek`]; [`ErrorKind::NotReady`] when the lease ended
    /// meanwhile: retry.
    pub fn set_policy(&self, policy: RecordPolicy) -> Result<(), Error> {
        self.begin_set_policy(policy).wait()
    }

    /// The same, as a future.
    pub fn begin_set_policy(&self, policy: RecordPolicy) -> Pending<()> {
        begin_change(
            self.inner(),
            move |current| {
                if current.record().recoverable_until().is_some() {
                    return Err(Error::new(ErrorKind::Deleted, "the account is deleted: recover it first"));
                }
                let policy = policy.with_version_policy(current.policy().version_policy());
                if *current.policy() == policy {
                    return Ok(None);
                }
                Ok(Some(RecordDraft { policy, ..current.successor()? }))
            },
            |inner, in_force| {
                let policy = in_force.known.record.policy();
                let now = inner.clock().now();
                inner.feed(now, Event::Grace(inner.settings().grace.allowed_by(policy)));
                inner.feed(now, Event::RecordChanged);
            },
        )
    }
}

/// The record that is in force after a change.
pub(crate) struct InForce {
    pub(crate) known: Known,
    /// Whether it is of this change: not where nothing was to be changed.
    pub(crate) changed: bool,
}

/// Changes the record by `edit`, which says `None` where nothing is to be changed; then does `then` with the record that is in force, before
/// anybody is told.
pub(crate) fn begin_change<T: Send + 'static>(
    inner: &Arc<AccountInner>,
    edit: impl FnOnce(&VerifiedRecord) -> Result<Option<RecordDraft>, Error> + Send + 'static,
    then: impl FnOnce(&AccountInner, &InForce) -> T + Send + 'static,
) -> Pending<T> {
    let done = move |inner: &AccountInner, in_force: InForce| {
        inner.replace_known(in_force.known.clone())?;
        let done = then(inner, &in_force);
        inner.poke();
        Ok(done)
    };
    // With a lease the KMS is not asked, and it must not matter that it hangs.
    let held = inner.with_keys(inner.known().record.generation(), |_| ()).is_some();
    let destination = match inner.record_store() {
        // No I/O at all.
        None if held => {
            return Pending::ready(by_lease(inner, edit).and_then(|in_force| done(inner, in_force)));
        }
        Some(store) if held => Destination::of_records(store),
        _ => inner.destination().clone(),
    };
    let (pending, completer) = Pending::new();
    let abandon = completer.abandoner();
    let keeper = inner.keeper().clone();
    let deadline = inner.settings().policy.call_deadline() * CALLS;
    let inner = Arc::clone(inner);
    let run = Box::pin(async move {
        let result = if held { by_lease(&inner, edit) } else { by_unwrap(&inner, edit).await };
        let met = match &result {
            Err(error) if held && error.kind() == ErrorKind::Io => Met::Silence,
            _ if held => Met::Answers,
            result => met(result),
        };
        completer.complete(result.and_then(|in_force| done(&inner, in_force)));
        met
    });
    keeper.control(pending, ControlCall { destination, patience: deadline, deadline, run, abandon })
}

fn by_lease(
    inner: &AccountInner,
    edit: impl FnOnce(&VerifiedRecord) -> Result<Option<RecordDraft>, Error>,
) -> Result<InForce, Error> {
    let work = Newest::load(inner)?;
    // CPU only: the keys are held no longer than that.
    let changed = inner
        .with_keys(work.newest.record.generation(), |keys| work.successor(keys, edit))
        .ok_or_else(|| {
            let message = "the lease ended while the record was changed: nothing was changed, retry";
            Error::new(ErrorKind::NotReady, message).with_account(inner.id())
        })?;
    work.finish(changed?)
}

async fn by_unwrap(
    inner: &AccountInner,
    edit: impl FnOnce(&VerifiedRecord) -> Result<Option<RecordDraft>, Error>,
) -> Result<InForce, Error> {
    let work = Newest::load(inner)?;
    let unwrapped = work.unwrapped().await?;
    work.finish(work.successor(&unwrapped.keys, edit)?)
}

/// The newest record, which is about to be changed.
pub(crate) struct Newest<'a> {
    inner: &'a AccountInner,
    known: Known,
    pub(crate) newest: Known,
}

struct Changed {
    current: VerifiedRecord,
    next: Option<VerifiedRecord>,
}

impl<'a> Newest<'a> {
    pub(crate) fn load(inner: &'a AccountInner) -> Result<Self, Error> {
        let known = inner.known();
        let newest = inner.newest(&known).map_err(|failed| failed.into_failure().with_account(inner.id()))?;
        inner.admit(&known, &newest.record)?;
        Ok(Self { inner, known, newest })
    }

    /// Has the KMS unwrap it, and believes it by what comes out.
    pub(crate) async fn unwrapped(&self) -> Result<Unwrapped, Error> {
        let unwrapped = self.inner.unwrap_newest(&self.known, &self.newest, None).await;
        unwrapped
            .inspect_err(|failed| self.inner.heed_refusal(failed, &self.newest))
            .map_err(Refreshed::into_failure)
    }

    fn successor(
        &self,
        keys: &GenerationKeys,
        edit: impl FnOnce(&VerifiedRecord) -> Result<Option<RecordDraft>, Error>,
    ) -> Result<Changed, Error> {
        let current = believe(&self.known, &self.newest, keys)?;
        let draft = edit(&current).map_err(|error| error.with_account(self.inner.id()))?;
        let next = draft.map(|draft| draft.seal(keys.prks())).transpose()?;
        Ok(Changed { current, next })
    }

    fn finish(&self, Changed { current, next }: Changed) -> Result<InForce, Error> {
        if let Some(store) = self.inner.store() {
            store.authenticated(self.inner.id(), current.record().sequence())?;
        }
        let changed = next.is_some();
        let known = match next {
            None => Known { verified: Some(current), ..self.newest.clone() },
            Some(next) => self.persist(next)?,
        };
        Ok(InForce { known, changed })
    }

    /// Puts `next` into the store. Nobody here goes by it yet.
    pub(crate) fn persist(&self, next: VerifiedRecord) -> Result<Known, Error> {
        let bytes = next.record().to_bytes();
        let swap = |store: &dyn RecordStore| {
            store.compare_and_swap(self.inner.id(), self.newest.tag.as_ref(), &bytes)
        };
        let tag = self.inner.store().map(swap).transpose().inspect_err(|error| {
            if error.kind() != ErrorKind::Conflict {
                // It may be there all the same: look soon.
                self.inner.feed(self.inner.clock().now(), Event::RecordChanged);
                self.inner.poke();
            }
        })?;
        Ok(Known { record: next.share(), tag, verified: Some(next) })
    }
}

/// A load, an unwrap, a swap, an anchor's share, and one to spare.
const CALLS: u32 = 5;
