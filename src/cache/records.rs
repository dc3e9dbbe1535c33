//! One record, away from any account: loaded, believed, and then put somewhere (contract E10).
//!
//! Verification of all records, mirroring and restoring have this in common: a record is nothing before the AEK
//! that it carries has authenticated it, and nobody's lease is touched for that. Runs on workers, behind the same
//! bulkheads as every call. Imports: `cache`, `account`, `keeper`, `clock`, `provider`, `rotate`, `expect`, `record_store`,
//! `format::{record, tombstone}`, `error`.

use std::time::Duration;

use super::AekCache;
use crate::account::Refreshed;
use crate::account::unwrap::{Unwrapped, authenticate};
use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::expect::Expect;
use crate::format::record::AccountRecord;
use crate::format::tombstone::{Tombstone, purged};
use crate::id::AccountId;
use crate::keeper::{ControlCall, Destination, Pending};
use crate::record_store::{Loaded, RecordStore, RecordTag};
use crate::rotate::met;

impl AekCache {
    /// Has the KMS unwrap `record`, which has to be as `expect` says, and then does `then` with it, where that may block. The keys
    /// are wiped right after.
    pub(super) fn begin_with_record<T: Send + 'static>(
        &self,
        record: AccountRecord,
        expect: &Expect,
        then: impl FnOnce(&Unwrapped) -> Result<T, Error> + Send + 'static,
    ) -> Pending<T> {
        let providers = match expect.admit(&record) {
            Ok(providers) => providers,
            Err(error) => return Pending::ready(Err(error)),
        };
        let (pending, completer) = Pending::new();
        let abandon = completer.abandoner();
        let destination = Destination::of_all(&providers);
        let deadline = self.shared.settings.policy.call_deadline() * CALLS;
        let (clock, settings) = (self.shared.clock.clone(), self.shared.settings);
        let run = Box::pin(async move {
            let unwrapped = authenticate(&clock, &settings, &providers, &record).await;
            let result = unwrapped.map_err(Refreshed::into_failure);
            let met = met(&result);
            completer.complete(result.and_then(|unwrapped| then(&unwrapped)));
            met
        });
        let call = ControlCall { destination, patience: deadline, deadline, run, abandon };
        self.shared.keeper.handle().control(pending, call)
    }
}

/// The record of `account` in `store`, parsed, and its tag; `None` where there is none. A purged account is an error of its own.
pub(super) fn load(
    store: &dyn RecordStore,
    account: AccountId,
) -> Result<Option<(AccountRecord, RecordTag)>, Error> {
    match store.load(account, None)? {
        Loaded::Absent => Ok(None),
        Loaded::Found { bytes, tag } => {
            if Tombstone::is_of(account, &bytes) {
                return Err(purged(account));
            }
            let record = AccountRecord::parse(&bytes).map_err(|error| error.with_account(account))?;
            Ok(Some((record, tag)))
        }
        Loaded::Unchanged => Err(unchanged(account)),
    }
}

/// Nobody said that they knew any.
pub(super) const fn unchanged(account: AccountId) -> Error {
    Error::new(ErrorKind::Io, "the record store says that a record is unchanged which nobody knows")
        .with_account(account)
}

/// What is expected of the record that is called `account`, whatever account the record says it is of.
pub(super) fn expected(
    expect: &dyn Fn(AccountId) -> Option<Expect>,
    account: AccountId,
) -> Result<Expect, Error> {
    let error = |kind, message| Err(Error::new(kind, message).with_account(account));
    match expect(account) {
        None => error(ErrorKind::Untrusted, "nobody expects a record of this account"),
        Some(expect) if expect.expected_account() != account => {
            error(ErrorKind::Misuse, "what is expected is of another account")
        }
        Some(expect) => Ok(expect),
    }
}

/// So many a second, and no more, on the thread of somebody who waits for all of them.
pub(super) struct Pace {
    pause: Duration,
    next: Option<Moment>,
}

impl Pace {
    pub(super) fn of(per_second: u32) -> Result<Self, Error> {
        let pause = Duration::from_secs(1).checked_div(per_second);
        let pause = pause.ok_or_else(|| Error::new(ErrorKind::Misuse, "`per_second` is at least 1"))?;
        Ok(Self { pause, next: None })
    }

    /// The turn that was just had cost so many: the next one is that much later.
    pub(super) fn spend(&mut self, cache: &AekCache, cost: u32) {
        let begun = self.next.unwrap_or_else(|| cache.shared.clock.now());
        // The first of them was counted when the turn was given.
        self.next = match cost.checked_sub(1) {
            Some(more) => Some(begun.plus(self.pause * more)),
            None => None,
        };
    }

    /// Waits for the next turn.
    pub(super) fn keep(&mut self, cache: &AekCache) {
        let clock = &cache.shared.clock;
        let wait = self.next.map_or(Duration::ZERO, |next| clock.now().until(next));
        if !wait.is_zero() {
            cache.pass(wait);
        }
        self.next = Some(clock.now().plus(self.pause));
    }
}

impl AekCache {
    /// Lets time pass: on a manual clock by moving it.
    #[expect(clippy::disallowed_methods, reason = "a blocking call whose caller asked for this very pace")]
    fn pass(&self, wait: Duration) {
        #[cfg(any(test, feature = "testing"))]
        if self.shared.keeper.as_manual().is_some() {
            return self.run_for(wait);
        }
        std::thread::sleep(wait);
    }
}

/// One unwrap, and the store's share.
const CALLS: u32 = 4;
