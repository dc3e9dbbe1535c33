//! What this machine knows of a scope's state, and how it is confirmed: one load at a time, ahead of need, shared by all who wait.
//!
//! A state is *confirmed* as of the moment at which the load, or the swap, that showed it began. Nobody else's code runs under the
//! mutex: states are loaded on a worker of the keeper, and waits are ended once it is free. Imports: `store::scope`, `keeper`,
//! `record_store`, `format::{record, scope}`, `clock`, `id`, `error`.

use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::Inner;
use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::format::record::Sequence;
use crate::format::scope::ScopeState;
use crate::id::AccountId;
use crate::keeper::{Completer, ControlCall, Destination, Met, Pending};
use crate::record_store::{Loaded, RecordTag};

type Waiters = Vec<Completer<Arc<ScopeState>>>;

#[derive(Default)]
pub(super) struct Knowledge {
    known: Option<Known>,
    flight: Option<Flight>,
    /// Those whom the load under way would tell something too old.
    next: Waiters,
    flights: u64,
    /// A change is in process.
    pub(super) changing: bool,
}

/// A state that was verified.
struct Known {
    state: Arc<ScopeState>,
    bytes: Box<[u8]>,
    tag: RecordTag,
    /// `None` where it may have been replaced since, by a swap whose outcome is not known, or where the store has shown something else.
    confirmed: Option<Moment>,
}

/// The load under way.
struct Flight {
    number: u64,
    begun: Moment,
    /// Nobody waits for it any more, though it has not returned: another would cost another worker.
    late: bool,
    waiters: Waiters,
}

/// A load that is to begin, or has. However it ends, by a panic or unstarted, it leaves its place.
struct Departure {
    scope: Weak<Inner>,
    number: u64,
    begun: Moment,
    /// What was known when it began: less than this sequence would be a state put back.
    base: Option<(Sequence, RecordTag)>,
}

impl Inner {
    /// The newest state that was verified, however long ago.
    pub(super) fn known(&self) -> Option<Arc<ScopeState>> {
        self.knowledge().known.as_ref().map(|known| Arc::clone(&known.state))
    }

    /// The state, confirmed within its bound.
    pub(super) fn confirm(self: &Arc<Self>) -> Pending<Arc<ScopeState>> {
        let now = self.now();
        let mut knowledge = self.knowledge();
        if let Some(state) = knowledge.confirmed(now) {
            // Ahead of need, so that those who come later do not wait.
            let early = state.confirmed_within() / 2;
            let due = knowledge.known.as_ref().is_some_and(|known| !known.is_confirmed(now, early));
            let departure = if due { self.take_off(&mut knowledge, now, Vec::new()) } else { None };
            drop(knowledge);
            self.begin(departure);
            return Pending::ready(Ok(state));
        }
        let bound = knowledge.bound();
        self.wait_for_load(knowledge, now, |flight| !now.reached(flight.begun.plus(bound)))
    }

    /// Whether new data goes under `account`, by what is known at this moment: a load that took long may be too old by now. With a bound of zero
    /// every load is; there it has to have begun after the question.
    pub(super) fn check_writes_to(&self, account: AccountId) -> Result<(), Error> {
        let knowledge = self.knowledge();
        let now = self.now();
        let known = knowledge.known.as_ref().ok_or_else(silent)?;
        if known.state.writes_to() != account {
            let message = "the scope was moved to another account while this was written: write it again";
            return Err(Error::new(ErrorKind::Conflict, message).with_account(known.state.writes_to()));
        }
        let bound = known.state.confirmed_within();
        if bound.is_zero() || known.is_confirmed(now, bound) { Ok(()) } else { Err(silent()) }
    }

    /// The state as a load that begins now shows it.
    pub(super) fn load_anew(self: &Arc<Self>) -> Pending<Arc<ScopeState>> {
        let now = self.now();
        let knowledge = self.knowledge();
        self.wait_for_load(knowledge, now, |_| false)
    }

    /// Joins the load under way if it will `do`, or else the next.
    fn wait_for_load(
        self: &Arc<Self>,
        mut knowledge: MutexGuard<'_, Knowledge>,
        now: Moment,
        will_do: impl FnOnce(&Flight) -> bool,
    ) -> Pending<Arc<ScopeState>> {
        let (pending, completer) = Pending::new();
        let departure = match &mut knowledge.flight {
            Some(flight) if flight.late => {
                drop(knowledge);
                return Pending::ready(Err(silent()));
            }
            Some(flight) if will_do(flight) => {
                flight.waiters.push(completer);
                None
            }
            Some(_) => {
                knowledge.next.push(completer);
                None
            }
            None => self.take_off(&mut knowledge, now, vec![completer]),
        };
        drop(knowledge);
        self.begin(departure);
        self.service.inner().keeper().waiting(pending)
    }

    fn take_off(
        self: &Arc<Self>,
        knowledge: &mut Knowledge,
        now: Moment,
        waiters: Waiters,
    ) -> Option<Departure> {
        if knowledge.flight.is_some() {
            return None;
        }
        let number = knowledge.flights;
        knowledge.flights += 1;
        knowledge.flight = Some(Flight { number, begun: now, late: false, waiters });
        let base = knowledge.known.as_ref().map(|known| (known.state.sequence(), known.tag.clone()));
        Some(Departure { scope: Arc::downgrade(self), number, begun: now, base })
    }

    /// Not under the lock: a keeper that has ended ends the waits at once.
    fn begin(self: &Arc<Self>, departure: Option<Departure>) {
        let Some(departure) = departure else { return };
        let number = departure.number;
        let (scope, states, key) = (Arc::downgrade(self), Arc::clone(&self.states), self.key());
        let account = self.service.inner();
        let call = ControlCall {
            destination: Destination::of_records(&self.states),
            patience: PATIENCE,
            deadline: account.settings().policy.call_deadline(),
            run: Box::pin(async move {
                let loaded = states.load(key, departure.base.as_ref().map(|(_, tag)| tag));
                let met = if loaded.is_ok() { Met::Answers } else { Met::Silence };
                departure.land(loaded);
                met
            }),
            abandon: Box::new(move |_| {
                if let Some(scope) = scope.upgrade() {
                    scope.give_up(number);
                }
            }),
        };
        // Those who wait hold waits of their own.
        drop(account.keeper().control(Pending::ready(Ok(())), call));
    }

    /// The load `number` has ended.
    fn settle(self: &Arc<Self>, number: u64, result: &Result<Arc<ScopeState>, Error>) {
        let now = self.now();
        let (waiters, departure) = {
            let mut knowledge = self.knowledge();
            let Some(flight) = knowledge.flight.take_if(|flight| flight.number == number) else { return };
            let next = std::mem::take(&mut knowledge.next);
            let departure = if next.is_empty() { None } else { self.take_off(&mut knowledge, now, next) };
            (flight.waiters, departure)
        };
        waiters.into_iter().for_each(|waiter| waiter.complete(result.clone()));
        self.begin(departure);
    }

    /// Nobody waits any longer for the load `number`.
    fn give_up(&self, number: u64) {
        let waiters = {
            let mut knowledge = self.knowledge();
            let Some(flight) = knowledge.flight.as_mut().filter(|flight| flight.number == number) else {
                return;
            };
            flight.late = true;
            let mut waiters = std::mem::take(&mut flight.waiters);
            waiters.append(&mut knowledge.next);
            waiters
        };
        waiters.into_iter().for_each(|waiter| waiter.complete(Err(silent())));
    }

    fn take_in(
        &self,
        departure: &Departure,
        loaded: Result<Loaded, Error>,
    ) -> Result<Arc<ScopeState>, Error> {
        let base = departure.base.as_ref().map(|(sequence, _)| *sequence);
        match loaded? {
            Loaded::Unchanged => self.unchanged(base, departure.begun),
            Loaded::Absent => self.distrust("the record store has no state of the scope"),
            Loaded::Found { bytes, tag } => {
                let state = self.verify(&bytes)?;
                self.adopt(Found { state, bytes, tag }, base, departure.begun)
            }
        }
    }

    fn unchanged(&self, base: Option<Sequence>, begun: Moment) -> Result<Arc<ScopeState>, Error> {
        if let (Some(known), Some(base)) = (&mut self.knowledge().known, base) {
            // Where a change of this machine's came in between, that has confirmed itself.
            if known.state.sequence() == base {
                known.confirm(begun);
            }
            return Ok(Arc::clone(&known.state));
        }
        self.distrust("the record store calls a state unchanged that it never gave")
    }

    /// What is believed of stored bytes: a state of this scope, authenticated, and not older than it may be. Bytes that were verified before
    /// need no key.
    pub(super) fn verify(&self, bytes: &[u8]) -> Result<ScopeState, Error> {
        if let Some(known) = self.knowledge().known.as_ref().filter(|known| *known.bytes == *bytes) {
            return Ok(ScopeState::clone(&known.state));
        }
        let Ok((state, content, mac)) = ScopeState::parse(bytes) else {
            return self.distrust("what the record store has is no scope's state");
        };
        if state.scope() != self.id || state.service() != self.service.id() {
            return self.distrust("the state of another scope, or of another service-managed account");
        }
        match self.service.permit()?.verify_scope_mac(state.generation(), content, mac) {
            Ok(()) if self.least.is_some_and(|least| state.sequence() < least) => {
                self.distrust("the scope's state is older than the least that is accepted")
            }
            Ok(()) => Ok(state),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::UnknownGeneration) => {
                self.distrust("the scope's state is not authentic")
            }
            Err(error) => Err(error),
        }
    }

    /// Takes a verified state for the newest, unless it was overtaken. `base` is what was known when the load of it began.
    pub(super) fn adopt(
        &self,
        found: Found,
        base: Option<Sequence>,
        begun: Moment,
    ) -> Result<Arc<ScopeState>, Error> {
        let Found { state, bytes, tag } = found;
        if base.is_some_and(|base| state.sequence() < base) {
            return self.distrust("an older state of the scope was put back");
        }
        let mut knowledge = self.knowledge();
        if let Some(known) = &mut knowledge.known {
            if known.state.sequence() > state.sequence() {
                return Ok(Arc::clone(&known.state));
            }
            if known.state.sequence() == state.sequence() {
                if *known.bytes != *bytes {
                    drop(knowledge);
                    return self.distrust("two states of the scope have one sequence");
                }
                known.tag = tag;
                known.confirm(begun);
                return Ok(Arc::clone(&known.state));
            }
        }
        let state = Arc::new(state);
        let known = Known { state: Arc::clone(&state), bytes: bytes.into(), tag, confirmed: Some(begun) };
        knowledge.known = Some(known);
        Ok(state)
    }

    /// Nothing is confirmed any more, until it is confirmed anew.
    pub(super) fn doubt(&self) {
        if let Some(known) = &mut self.knowledge().known {
            known.confirmed = None;
        }
    }

    /// The store shows something that cannot be: until it shows something better, nothing is confirmed.
    pub(super) fn distrust<T>(&self, message: &'static str) -> Result<T, Error> {
        self.doubt();
        Err(Error::new(ErrorKind::Untrusted, message).with_detail(format!("scope {}", self.id)))
    }

    pub(super) fn now(&self) -> Moment {
        self.service.inner().clock().now()
    }

    pub(super) fn knowledge(&self) -> MutexGuard<'_, Knowledge> {
        // OK because no code of others runs under it, and ours leaves it whole at each step.
        self.knowledge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A state that was verified, as it lies in its store.
pub(super) struct Found {
    pub(super) state: ScopeState,
    pub(super) bytes: Vec<u8>,
    pub(super) tag: RecordTag,
}

impl Knowledge {
    fn confirmed(&self, now: Moment) -> Option<Arc<ScopeState>> {
        let known = self.known.as_ref()?;
        known.is_confirmed(now, known.state.confirmed_within()).then(|| Arc::clone(&known.state))
    }

    /// Zero while it is not known.
    fn bound(&self) -> Duration {
        self.known.as_ref().map_or(Duration::ZERO, |known| known.state.confirmed_within())
    }
}

impl Known {
    fn is_confirmed(&self, now: Moment, within: Duration) -> bool {
        self.confirmed.is_some_and(|confirmed| !now.reached(confirmed.plus(within)))
    }

    /// Loads land in no particular order.
    fn confirm(&mut self, begun: Moment) {
        let later = self.confirmed.is_none_or(|confirmed| begun.boot_nanos() >= confirmed.boot_nanos());
        if later {
            self.confirmed = Some(begun);
        }
    }
}

impl Departure {
    fn land(self, loaded: Result<Loaded, Error>) {
        if let Some(scope) = self.scope.upgrade() {
            let result = scope.take_in(&self, loaded);
            scope.settle(self.number, &result);
        }
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        if let Some(scope) = self.scope.upgrade() {
            // Nothing after `land`, which has settled it.
            scope.settle(self.number, &Err(silent()));
        }
    }
}

const fn silent() -> Error {
    let message = "the scope's state was not confirmed in time: its record store does not answer, or the cache is shut down";
    Error::new(ErrorKind::Unavailable, message)
}

/// Where all scopes of a store are asked for at once, the last of them waits for the others.
const PATIENCE: Duration = Duration::from_secs(30);
