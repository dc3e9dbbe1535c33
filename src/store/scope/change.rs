//! What moves a scope: link, unlink, forget. Each is one compare-and-swap of the state, and on this machine in force once it is done.
//! Imports: `store::scope`, `account`, `keeper`, `record_store`, `format::{record, scope}`, `error`.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::knowledge::Found;
use super::{Inner, Scope};
use crate::account::Account;
use crate::account::state::Status;
use crate::error::{Error, ErrorKind};
use crate::format::record::Sequence;
use crate::format::scope::ScopeState;
use crate::id::AccountId;
use crate::keeper::{ControlCall, Destination, Met, Pending};
use crate::record_store::Loaded;

/// What a change of a [`Scope`] has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Moved {
    /// The state's sequence now.
    pub sequence: Sequence,
    /// From this time on no machine acknowledges a write under the account before, whenever that began. This machine does not since the change has returned. Where the
    /// scope's [bound](ScopeState::confirmed_within) is zero this is now, and true of writes that begin from now on.
    pub everywhere_after: SystemTime,
}

enum Change {
    Link(Account),
    Unlink,
    Forget(AccountId),
}

impl Scope {
    /// Has new data go under the customer's account. Old data stays under the account that it is under, and readable.
    ///
    /// The account has to be in use, with a KMS that answers: a scope is not linked to a dead key.
    ///
    /// # Errors
    /// - [`ErrorKind::Conflict`]: linked already (the error names [to whom](Error::account)), moved by another machine first, or another change is in process here. Nothing was changed.
    /// - Before anything is changed: why the customer's account has no lease, [`ErrorKind::Unavailable`] while its KMS is silent, [`ErrorKind::Misuse`] for the service-managed
    ///   account itself and for an account that the scope's [`Accounts`](super::Accounts) does not find, [`ErrorKind::Limit`] for one customer too many, why the service-managed account has no lease, and
    ///   [`ErrorKind::Untrusted`] for a state that is not to be trusted.
    /// - [`ErrorKind::Io`] or [`ErrorKind::Unavailable`] for the record store, which then has the old state or the new one: [`Scope::state`] tells.
    pub fn link(&self, customer: &Account) -> Result<Moved, Error> {
        self.begin_link(customer).wait()
    }

    /// The same, as a future.
    pub fn begin_link(&self, customer: &Account) -> Pending<Moved> {
        let id = customer.id();
        if id == self.inner.service.id() {
            return Pending::ready(Err(misuse("a scope is not linked to its service-managed account", id)));
        }
        // Whether it is found here. One that is still being attached will be.
        match self.inner.accounts.account(id).wait_timeout(Duration::ZERO) {
            Err(error) if error.kind() != ErrorKind::NotReady => Pending::ready(Err(error)),
            _ => self.inner.begin_change(Change::Link(customer.clone())),
        }
    }

    /// Has new data go under the service-managed account again. Works also when the customer's key is dead.
    ///
    /// # Errors
    /// As [`Self::link`]; [`ErrorKind::Conflict`] when the scope is linked to nobody.
    pub fn unlink(&self) -> Result<Moved, Error> {
        self.begin_unlink().wait()
    }

    /// The same, as a future.
    pub fn begin_unlink(&self) -> Pending<Moved> {
        self.inner.begin_change(Change::Unlink)
    }

    /// Strikes a former customer's account off: for when nothing of the scope is under it any more. What is after all is foreign from then on.
    ///
    /// # Errors
    /// As [`Self::link`]; [`ErrorKind::Conflict`] while the scope is linked to it; [`ErrorKind::Misuse`] for one that is none of the scope's.
    pub fn forget(&self, former: AccountId) -> Result<Moved, Error> {
        self.begin_forget(former).wait()
    }

    /// The same, as a future.
    pub fn begin_forget(&self, former: AccountId) -> Pending<Moved> {
        self.inner.begin_change(Change::Forget(former))
    }
}

/// While it lives, no other change begins.
struct InProcess(Weak<Inner>);

impl Drop for InProcess {
    fn drop(&mut self) {
        if let Some(scope) = self.0.upgrade() {
            scope.knowledge().changing = false;
        }
    }
}

impl Inner {
    /// Writes the first state.
    pub(super) fn create(&self, confirmed_within: Duration) -> Result<(), Error> {
        let (generation, _) = self.service.permit()?.sealing()?;
        let state = ScopeState::first(self.id, self.service.id(), generation, confirmed_within)?;
        let created = self.swap(None, state).map(drop);
        created.map_err(|error| match error.kind() {
            ErrorKind::Conflict => conflict("there is a scope of this id already"),
            _ => error,
        })
    }

    fn begin_change(self: &Arc<Self>, change: Change) -> Pending<Moved> {
        if std::mem::replace(&mut self.knowledge().changing, true) {
            let error = Error::new(ErrorKind::Conflict, "another change of the scope is in process");
            return Pending::ready(Err(error));
        }
        let in_process = InProcess(Arc::downgrade(self));
        let (pending, completer) = Pending::new();
        let abandon = completer.abandoner();
        let account = self.service.inner();
        let deadline = account.settings().policy.call_deadline() * CALLS;
        let run = Box::pin(async move {
            let Some(scope) = in_process.0.upgrade() else { return Met::Answers };
            let result = scope.change(&change);
            let silent = result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Io);
            drop(in_process);
            completer.complete(result);
            if silent { Met::Silence } else { Met::Answers }
        });
        let destination = Destination::of_records(&self.states);
        account
            .keeper()
            .control(pending, ControlCall { destination, patience: PATIENCE, deadline, run, abandon })
    }

    fn change(&self, change: &Change) -> Result<Moved, Error> {
        let newest = self.newest()?;
        let (generation, _) = self.service.permit()?.sealing()?;
        let next = match change {
            Change::Link(customer) => {
                if let Some(linked) = newest.state.linked() {
                    return Err(conflict("the scope is linked already").with_account(linked));
                }
                let next = newest.state.moved(Some(customer.id()), generation)?;
                is_alive(customer)?;
                next
            }
            Change::Unlink if newest.state.linked().is_none() => {
                return Err(conflict("the scope is linked to nobody"));
            }
            Change::Unlink => newest.state.moved(None, generation)?,
            Change::Forget(former) if newest.state.linked() == Some(*former) => {
                return Err(
                    conflict("the scope is linked to this account: unlink it first").with_account(*former)
                );
            }
            Change::Forget(former) if !newest.state.customers().contains(former) => {
                return Err(misuse("no former account of the scope", *former));
            }
            Change::Forget(former) => newest.state.without(*former, generation)?,
        };
        self.swap(Some(&newest), next)
    }

    /// The state in the store, verified, and no older than what was known before it was asked for.
    fn newest(&self) -> Result<Found, Error> {
        let (begun, known) = (self.now(), self.known());
        let Loaded::Found { bytes, tag } = self.states.load(self.key(), None)? else {
            return self.distrust("the record store has no state of the scope");
        };
        let state = self.verify(&bytes)?;
        let found = Found { state: state.clone(), bytes: bytes.clone(), tag: tag.clone() };
        self.adopt(found, known.map(|known| known.sequence()), begun)?;
        Ok(Found { state, bytes, tag })
    }

    fn swap(&self, from: Option<&Found>, to: ScopeState) -> Result<Moved, Error> {
        let content = to.content();
        let mac = self.service.permit()?.scope_mac(to.generation(), &content)?;
        let bytes = [content.as_slice(), &mac].concat();
        let begun = self.now();
        let tag = self.states.compare_and_swap(self.key(), from.map(|found| &found.tag), &bytes).map_err(
            |error| {
                // Also without a conflict it may be there.
                self.doubt();
                match error.kind() {
                    ErrorKind::Conflict => conflict("another machine changed the scope first"),
                    _ => error,
                }
            },
        )?;
        let (sequence, bound) = (to.sequence(), to.confirmed_within());
        self.adopt(Found { state: to, bytes, tag }, None, begun)?;
        let everywhere_after = UNIX_EPOCH + Duration::from_nanos(self.now().wall_nanos()) + bound;
        Ok(Moved { sequence, everywhere_after })
    }
}

/// Nobody is linked to a key that the KMS does not vouch for now.
fn is_alive(customer: &Account) -> Result<(), Error> {
    customer.permit().map(drop)?;
    match customer.status() {
        Status::Fresh { .. } => Ok(()),
        _ => {
            let message = "the customer's KMS is silent: a scope is linked while it answers";
            Err(Error::new(ErrorKind::Unavailable, message).with_account(customer.id()))
        }
    }
}

const fn conflict(message: &'static str) -> Error {
    Error::new(ErrorKind::Conflict, message)
}

const fn misuse(message: &'static str, account: AccountId) -> Error {
    Error::new(ErrorKind::Misuse, message).with_account(account)
}

/// A load, a swap, and one to spare.
const CALLS: u32 = 3;
/// How long a change may wait for a worker.
const PATIENCE: Duration = Duration::from_secs(30);
