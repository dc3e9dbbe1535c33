//! Work on all accounts of a store, as an operation: one after the other, at a pace, from where it was left (contract E8).
//!
//! An account that cannot be done is counted and left; what is done twice after a crash has to bear it. Imports: `cache`, `account`,
//! `keeper`, `operation`, `expect`, `record_store`, `format`, `id`, `error`.

use std::sync::Arc;

use super::AekCache;
use super::records::{Pace, expected};
use crate::account::{AccountInner, Bell, Common, Parts};
use crate::error::{Error, ErrorKind};
use crate::expect::Expect;
use crate::format::operation::OperationKind;
use crate::id::AccountId;
use crate::lease::Event;
use crate::operation::{Operation, OperationRun};
use crate::record_store::RecordStore;
use crate::record_store::archive::{LISTED_AT_ONCE, RecordArchive};

/// What became of one account.
pub(super) struct Done {
    /// Calls that it may have cost at its KMS.
    pub(super) calls: u32,
    /// Why it was left.
    pub(super) failed: Option<Error>,
}

/// One pass over a store, under way.
pub(super) struct Bulk<'a> {
    pub(super) cache: &'a AekCache,
    pub(super) store: Arc<dyn RecordArchive>,
    pub(super) expect: &'a dyn Fn(AccountId) -> Option<Expect>,
    run: OperationRun,
    pace: Pace,
}

impl<'a> Bulk<'a> {
    pub(super) fn new(
        cache: &'a AekCache,
        store: Arc<dyn RecordArchive>,
        expect: &'a dyn Fn(AccountId) -> Option<Expect>,
        (run, kind): (OperationRun, OperationKind),
        calls_per_second: u32,
    ) -> Result<Self, Error> {
        let pace = Pace::of(calls_per_second)?;
        if run.operation().kind() != kind {
            return Err(Error::new(ErrorKind::Misuse, "an operation of another kind of work"));
        }
        Ok(Self { cache, store, expect, run, pace })
    }

    /// Does `one` for each account that is left, and ends the operation: as failed, where an account was left because of an error. After an error of this
    /// it is still under way.
    pub(super) fn each(mut self, mut one: impl FnMut(&Self, AccountId) -> Done) -> Result<Operation, Error> {
        let mut at = last_done(self.run.cursor())?;
        let mut first = None;
        loop {
            let page = self.store.list(at)?;
            if at.is_none() && page.len() < LISTED_AT_ONCE {
                self.run.progress_mut().total = u64::try_from(page.len()).ok();
            }
            let Some(last) = page.last().map(|listed| listed.account) else { return self.end(first) };
            // A store whose listing does not go on would be listed for ever.
            if at.is_some_and(|at| last <= at) {
                return Err(Error::new(
                    ErrorKind::Io,
                    "the record store does not list its accounts in order",
                ));
            }
            for part in page.chunks(CHECKPOINT_EVERY) {
                for listed in part {
                    if self.run.is_cancelled() {
                        return self.run.cancelled();
                    }
                    self.pace.keep(self.cache);
                    let done = one(&self, listed.account);
                    self.pace.spend(self.cache, done.calls);
                    let progress = self.run.progress_mut();
                    let failed = done.failed.is_some();
                    let counted = if failed { &mut progress.failed } else { &mut progress.done };
                    *counted = counted.saturating_add(1);
                    first = first.or(done.failed);
                    at = Some(listed.account);
                }
                let cursor = at.as_ref().map_or(&[][..], |at| at.as_bytes());
                self.run.checkpoint(cursor)?;
            }
        }
    }

    /// All accounts were met. What earlier runs of the operation have left counts as well.
    fn end(self, first: Option<Error>) -> Result<Operation, Error> {
        if self.run.operation().progress().failed == 0 {
            return self.run.succeed();
        }
        let message = "accounts were left because of errors";
        self.run.fail(&match first {
            Some(first) => Error::new(first.kind(), message).with_detail(format!("the first one: {first}")),
            None => Error::new(ErrorKind::Conflict, message).with_detail("in an earlier run"),
        })
    }

    pub(super) fn expected(&self, account: AccountId) -> Result<Expect, Error> {
        expected(self.expect, account)
    }

    /// The account for one change of its record: in use nowhere here, it asks for nothing by itself and tells nobody.
    pub(super) fn unattached(&self, account: AccountId) -> Result<Arc<AccountInner>, Error> {
        self.unattached_as(account, self.expected(account)?)
    }

    /// The same, of which this is expected.
    pub(super) fn unattached_as(
        &self,
        account: AccountId,
        expect: Expect,
    ) -> Result<Arc<AccountInner>, Error> {
        let store: Arc<dyn RecordStore> = self.store.clone();
        let known = super::first_known(account, store.load(account, None)?)?;
        let shared = &self.cache.shared;
        let parts = Parts {
            expect,
            store: Some(store),
            common: Arc::new(Common {
                settings: shared.settings,
                keeper: shared.keeper.handle().clone(),
                bus: Arc::default(),
                limits_bell: Bell::default(),
                #[cfg(feature = "metrics")]
                departed: Arc::clone(&shared.departed),
            }),
        };
        AccountInner::new(shared.next_key(), shared.clock.clone(), known, parts, 0, None).map(Arc::new)
    }

    /// Whoever uses the account here looks at its record soon.
    pub(super) fn tell_changed(&self, account: AccountId) {
        let attached = self.cache.shared.registry().by_id.get(&account).and_then(std::sync::Weak::upgrade);
        if let Some(attached) = attached {
            attached.feed(self.cache.shared.clock.now(), Event::RecordChanged);
            attached.poke();
        }
    }
}

/// The account up to which all is done.
fn last_done(cursor: &[u8]) -> Result<Option<AccountId>, Error> {
    if cursor.is_empty() {
        return Ok(None);
    }
    let id = cursor.try_into().map(AccountId::from_bytes);
    id.map(Some).map_err(|_| Error::new(ErrorKind::Misuse, "the operation's cursor is of other work"))
}

/// After a crash no more accounts than these are done twice.
const CHECKPOINT_EVERY: usize = 16;
