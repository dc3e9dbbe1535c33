//! Who waits for an account by name: for `ready`, for `unlock`, and when such a wait is over (contract C6).
//!
//! A wait is a place in a list behind the account's mutex; every event that is taken in settles the list. Imports: `control`,
//! `state`, `keeper`, `lease`, `error`.

use std::sync::MutexGuard;

use super::control::{AccountInner, Control};
use super::state::{Status, UnavailableCause};
use crate::error::{Error, ErrorKind};
use crate::keeper::{Completer, Pending};
use crate::lease::Event;

pub(super) struct Waiter {
    pub(super) completer: Completer<()>,
    /// Waits for `unlock`, not for readiness.
    pub(super) unlock: bool,
    /// How many attempts had ended when the wait began: a refusal counts once one more has.
    pub(super) since: u64,
}

/// Waits that are over. Told of it only once the account's mutex is free: a waker is somebody else's code.
#[must_use]
pub(super) struct EndedWaits(Vec<(Completer<()>, Result<(), Error>)>);

impl EndedWaits {
    pub(super) fn tell(self) {
        self.0.into_iter().for_each(|(completer, result)| completer.complete(result));
    }
}

impl AccountInner {
    /// Takes out the waits that the present state ends. `unlocked` is how an attempt for `unlock` ended.
    pub(super) fn settle(&self, control: &mut Control, unlocked: Option<Option<Error>>) -> EndedWaits {
        let mut ended = EndedWaits(Vec::new());
        if control.waiters.is_empty() {
            return ended;
        }
        let status = self.state.status();
        let refusal = self.refusal_to_wait(control, status);
        for waiter in std::mem::take(&mut control.waiters) {
            let result = if waiter.unlock {
                match &unlocked {
                    // Unwrapped; and yet not open when the record says deleted, or when it took too long.
                    Some(None) => Some(refusal.clone().map_or(Ok(()), Err)),
                    Some(Some(failure)) => Some(Err(failure.clone())),
                    // Locked again meanwhile: the attempt was overtaken.
                    None if !control.lease.unlock_under_way() => refusal.clone().map(Err),
                    None => None,
                }
            } else if matches!(status, Status::Fresh { .. } | Status::Grace { .. }) {
                Some(Ok(()))
            } else if is_hopeless(status) || control.ended > waiter.since {
                refusal.clone().map(Err)
            } else {
                None
            };
            match result {
                Some(result) => ended.0.push((waiter.completer, result)),
                None => control.waiters.push(waiter),
            }
        }
        ended
    }

    /// The error of a state that waiting does not mend.
    fn refusal_to_wait(&self, control: &Control, status: Status) -> Option<Error> {
        match status {
            Status::Fresh { .. } | Status::Grace { .. } | Status::NotReady => None,
            Status::Unavailable(UnavailableCause::Silent) => None,
            Status::Unavailable(UnavailableCause::Integrity) => {
                control.last_failure.as_deref().cloned().or_else(|| self.state.enter(None).err())
            }
            Status::Revoked(_) | Status::Locked | Status::Deleted => self.state.enter(None).err(),
        }
    }

    pub(super) fn begin_ready(&self) -> Pending<()> {
        let now = self.state.clock().now();
        let mut control = self.lock_control();
        let effects = control.lease.on(now, Event::Wake);
        self.apply(&mut control, effects, None);
        let status = self.state.status();
        if matches!(status, Status::Fresh { .. } | Status::Grace { .. }) {
            return Pending::ready(Ok(()));
        }
        // Where asking can change nothing, or the budget for asking is spent, what is known is the answer.
        self.state.note_use(now);
        if (is_hopeless(status) || !control.lease.ask(now))
            && let Some(refusal) = self.refusal_to_wait(&control, status)
        {
            return Pending::ready(Err(refusal));
        }
        self.wait_for(control, false)
    }

    pub(super) fn begin_unlock(&self) -> Pending<()> {
        let now = self.state.clock().now();
        let mut control = self.lock_control();
        if !control.lease.is_locked() {
            let deleted = self.state.status() == Status::Deleted;
            return Pending::ready(if deleted { self.state.enter(None).map(drop) } else { Ok(()) });
        }
        let effects = control.lease.on(now, Event::Unlock);
        self.apply(&mut control, effects, None);
        self.wait_for(control, true)
    }

    fn wait_for(&self, mut control: MutexGuard<'_, Control>, unlock: bool) -> Pending<()> {
        // A loop that has ended answers nobody. It says so before it retires the accounts that it knows, so every
        // wait is either seen by that or refused here.
        if control.retired || self.keeper().is_closed() {
            let error = Error::new(ErrorKind::Unavailable, "the cache is shut down").with_account(self.id());
            return Pending::ready(Err(error));
        }
        let (pending, completer) = Pending::new();
        let since = control.ended;
        // Swept whenever the list would have to grow: an outage is long, and whoever polls with a timeout leaves
        // a wait behind each time. Dropped outside of the lock, because a waker may be left in it.
        let mut given_up = Vec::new();
        if control.waiters.len() == control.waiters.capacity() {
            let waiters = std::mem::take(&mut control.waiters);
            (given_up, control.waiters) = waiters.into_iter().partition(|w| w.completer.is_given_up());
        }
        control.waiters.push(Waiter { completer, unlock, since });
        drop(control);
        drop(given_up);
        self.poke();
        self.keeper().waiting(pending)
    }
}

/// Whether no attempt will be made before somebody says so.
const fn is_hopeless(status: Status) -> bool {
    matches!(status, Status::Locked | Status::Deleted)
}
