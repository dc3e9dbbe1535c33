//! What concerns the second provider of a failover custody (contract A7): its refresh, and what the record says of the first one.
//!
//! ```text
//! first one silent    ─► the second one unwraps, within the limit since the first one last answered
//! first one refuses   ─► the record says so, on every machine; it takes no key to write that
//! first one unwraps   ─► the record says when, and that the second one is barred no longer
//! ```
//! Imports: `account::{refresh, unwrap}`, `block`, `format`, `keeper`, `clock`, `error`.

use std::sync::Arc;
use std::time::Duration;

use super::AccountInner;
use super::refresh::{Known, Refreshed};
use super::unwrap::{Asked, Unwrapped};
use crate::block::GenerationKeys;
use crate::clock::{Clock, Moment};
use crate::error::{Error, ErrorKind, Refusal};
use crate::format::record::{Standing, Terms, Timestamp, VerifiedRecord};
use crate::id::Epoch;
use crate::keeper::{ControlCall, Destination, Message, Met};
use crate::lease::Event;
use crate::provider::Wrapped;

/// What the success of a second provider rests on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StandIn {
    /// When the first one has last answered, as far as the record says.
    pub(crate) confirmed: Moment,
    pub(crate) limit: Duration,
}

impl AccountInner {
    /// Begins the call of the second provider that is due, if one still is.
    pub(crate) fn begin_second(&self, now: Moment) -> Option<Epoch> {
        let mut control = self.lock_control();
        (!control.retired && control.lease.wants_second(now)).then(|| control.lease.begin_second(now))
    }

    /// Takes in what the second provider said in a call begun in `epoch`.
    pub(crate) fn take_stood_in(&self, now: Moment, epoch: Epoch, refreshed: Refreshed) {
        let mut control = self.lock_control();
        let (event, adopt) = match refreshed {
            Refreshed::Verified(adopt) => {
                let Some(StandIn { confirmed, limit }) = adopt.stand_in else { return };
                let (started, max_grace) = (adopt.started, Some(adopt.grace));
                (Event::StoodIn { epoch, started, confirmed, limit, max_grace }, Some(*adopt))
            }
            Refreshed::Refused(refusal, error) => {
                control.last_failure = Some(error);
                (Event::SecondRefused { epoch, refusal }, None)
            }
            Refreshed::Deleted(known) if control.known.yields_to(&known) => {
                control.known = known;
                (Event::Delete, None)
            }
            Refreshed::Purged => (Event::Delete, None),
            Refreshed::Deleted(_) => return,
            // What the first one's silence earns is not lost by that.
            Refreshed::Silent(error) | Refreshed::NoRecord(error) | Refreshed::Wrong(error) => {
                control.last_failure = Some(error);
                return;
            }
        };
        let effects = control.lease.on(now, event);
        self.apply(&mut control, effects, adopt);
        let ended = self.settle(&mut control, None);
        drop(control);
        ended.tell();
    }

    /// Asks the second provider. Like [`Self::refresh`], with as few calls.
    pub(crate) async fn stand_in(&self, clock: &Clock, pending: &(dyn Fn(Refusal) + Sync)) -> Refreshed {
        self.try_stand_in(clock, pending).await.unwrap_or_else(|failed| failed)
    }

    async fn try_stand_in(
        &self,
        clock: &Clock,
        pending: &(dyn Fn(Refusal) + Sync),
    ) -> Result<Refreshed, Refreshed> {
        let known = self.known();
        let mut newest = self.newest(&known)?;
        let unwrapped = match self.unwrap_by_second(clock, &known, &newest).await {
            Err(Refreshed::Refused(refusal, error)) if self.store().is_some() => {
                pending(refusal);
                let again = self.newest(&newest)?;
                if wraps_of_second(&again) == wraps_of_second(&newest) {
                    return Err(Refreshed::Refused(refusal, error));
                }
                newest = again;
                self.unwrap_by_second(clock, &known, &newest).await?
            }
            other => other?,
        };
        let terms = self.open_terms(unwrapped.verified.record().custody().terms())?;
        let now = clock.now();
        let confirmed = moment_of(now, terms.confirmed).ok_or_else(|| {
            self.barred("the first KMS has last answered in the future: the clock is behind")
        })?;
        match self.adopt(unwrapped, newest.tag) {
            Refreshed::Verified(mut adopt) => {
                adopt.stand_in = Some(StandIn { confirmed, limit: terms.limit.duration() });
                adopt.renewal = None;
                Ok(Refreshed::Verified(adopt))
            }
            other => Ok(other),
        }
    }

    async fn unwrap_by_second(
        &self,
        clock: &Clock,
        known: &Known,
        newest: &Known,
    ) -> Result<Unwrapped, Refreshed> {
        let record = &newest.record;
        let providers = self.expect().admit(record).map_err(Refreshed::Wrong)?;
        // Whatever the record claims: nobody asks the second one where it says that the first has refused.
        self.open_terms(record.custody().terms())?;
        let held = record.held_by_second().unwrap_or_default();
        let wraps = wraps_of_second(newest);
        let asked = Asked { providers: &providers, held: &held, wraps: &wraps, first: 0 };
        self.unwrap_wraps(clock, asked, known, newest).await
    }

    fn open_terms(&self, terms: Option<&Terms>) -> Result<Terms, Refreshed> {
        match terms {
            Some(terms) if matches!(terms.standing, Standing::Open { .. }) => Ok(*terms),
            _ => {
                Err(self.barred("the first KMS has refused: the second one is barred until it unwraps again"))
            }
        }
    }

    /// No answer: the second one was not asked, or not in time.
    const fn barred(&self, message: &'static str) -> Refreshed {
        Refreshed::NoRecord(Error::new(ErrorKind::Unavailable, message).with_account(self.id()))
    }

    /// The first provider has refused: has the record say so. Tried again at the next probe where it cannot be written now.
    pub(super) fn record_refusal(&self, newest: Known) {
        let mut newest = newest;
        for _ in 0..MOST_TRIES {
            let Some(barred) = newest.record.barred() else { return };
            let barred = Arc::new(barred);
            let Some(store) = self.store() else {
                return self.replace_known(Known { record: barred, tag: None, verified: None });
            };
            let written = store.compare_and_swap(self.id(), newest.tag.as_ref(), &barred.to_bytes());
            match written {
                Err(error) if error.kind() == ErrorKind::Conflict => match self.newest(&newest) {
                    Ok(again) => newest = again,
                    Err(_) => return,
                },
                // The next refresh reads it, and believes it by the key that the first provider then gives.
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// The first provider has unwrapped: has the record say so, in the background, because no refresh waits for that.
    pub(crate) fn begin_renewal(self: &Arc<Self>, renewal: VerifiedRecord, known: &Known) {
        let record = Arc::new(renewal.record().clone());
        let next = Known { record, tag: None, verified: Some(Arc::new(renewal)) };
        let Some(store) = self.record_store().cloned() else { return self.replace_known(next) };
        let (inner, tag) = (Arc::downgrade(self), known.tag.clone());
        let destination = Destination::of_records(&store);
        let run = Box::pin(async move {
            if let Some(inner) = inner.upgrade()
                // Another machine may have been first; what fails is tried again at the next refresh.
                && let Ok(tag) = store.compare_and_swap(inner.id(), tag.as_ref(), &next.record.to_bytes())
            {
                inner.replace_known(Known { tag: Some(tag), ..next });
            }
            Met::Answers
        });
        let deadline = self.settings().policy.call_deadline();
        let call = ControlCall { destination, patience: deadline, deadline, run, abandon: Box::new(drop) };
        self.keeper().send(Message::Control(call));
    }
}

/// The record that says that the first provider has unwrapped, where it does not say so already, or not lately.
pub(super) fn renewal_of(
    verified: &VerifiedRecord,
    keys: &GenerationKeys,
    started: Moment,
) -> Option<VerifiedRecord> {
    let terms = verified.record().custody().terms()?;
    let at = Timestamp::from_wall_nanos(started.wall_nanos());
    let lately =
        (at.seconds_since(terms.confirmed)).is_some_and(|age| age < terms.limit.duration() / RENEWALS);
    if lately && matches!(terms.standing, Standing::Open { .. }) {
        return None;
    }
    verified.confirmed(at).ok()??.seal(keys.prks()).ok()
}

fn wraps_of_second(known: &Known) -> Vec<&Wrapped> {
    let held = known.record.held_by_second().unwrap_or_default();
    held.into_iter().map(|held| &held.slot.wrapped).collect()
}

/// When `recorded` was, on both clocks. `None` where it has not been yet: then nobody knows how long ago it was.
fn moment_of(now: Moment, recorded: Timestamp) -> Option<Moment> {
    let ago = now.wall_nanos().checked_sub(recorded.exact_wall_nanos()?)?;
    Some(Moment::from_nanos(now.boot_nanos().saturating_sub(ago), now.wall_nanos().saturating_sub(ago)))
}

/// So many times within its limit, the record says when the first provider has answered.
const RENEWALS: u32 = 4;
/// Machines that hear of one refusal together each write it.
const MOST_TRIES: usize = 4;
