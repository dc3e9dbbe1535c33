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
use super::refresh::{Adopt, Known, Refreshed};
use super::unwrap::{Asked, Unwrapped};
use crate::block::GenerationKeys;
use crate::clock::Moment;
use crate::error::{Error, ErrorKind};
use crate::format::record::{AccountRecord, Standing, Terms, Timestamp, VerifiedRecord};
use crate::id::Epoch;
use crate::keeper::{ControlCall, Destination, Message, Met, Report};
use crate::lease::Event;
use crate::provider::Wrapped;

/// For how long the second provider may stand in: `limit` from an answer of the first one on.
#[derive(Clone, Copy, Debug)]
struct StandIn {
    since: Moment,
    limit: Duration,
}

impl StandIn {
    /// What the record allows. `None` where the first one is recorded to have answered in the future: then nobody knows how long ago that
    /// was.
    fn by(terms: &Terms, now: Moment) -> Option<Self> {
        let ago = now.wall_nanos().checked_sub(terms.confirmed.exact_wall_nanos()?)?;
        // What passed before the machine was booted its boot-time clock cannot tell, so it is taken from the limit.
        let since_boot = ago.min(now.boot_nanos());
        let before_boot = Duration::from_nanos(ago.saturating_sub(since_boot));
        let since = Moment::from_nanos(
            now.boot_nanos().saturating_sub(since_boot),
            now.wall_nanos().saturating_sub(since_boot),
        );
        Some(Self { since, limit: terms.limit.duration().saturating_sub(before_boot) })
    }

    fn end(&self) -> Moment {
        self.since.plus(self.limit)
    }

    fn outlasts(&self, other: &Self) -> bool {
        self.end().boot_nanos() > other.end().boot_nanos()
    }
}

/// What the record allows, as it was first read: a wall clock that is set back has the first provider answer no later than that.
#[derive(Clone, Debug, Default)]
pub(super) struct Recorded(Option<Box<(Timestamp, StandIn)>>);

impl Recorded {
    /// The later of what the record allows and what an answer to this process does, as a whole: each is true, and a mix of the two would
    /// outlast both.
    fn stand_in(&mut self, terms: &Terms, now: Moment, verified: Option<Moment>) -> Option<StandIn> {
        let read = StandIn::by(terms, now)?;
        let recorded = match self.0.as_deref().copied() {
            Some((of, before)) if of == terms.confirmed && read.outlasts(&before) => before,
            _ => read,
        };
        self.0 = Some(Box::new((terms.confirmed, recorded)));
        let seen = verified.map(|since| StandIn { since, limit: terms.limit.duration() });
        Some(seen.filter(|seen| seen.outlasts(&recorded)).unwrap_or(recorded))
    }
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
                let verified = control.lease.first_verified();
                let record = &adopt.known.record;
                let stand_in = self.stand_in_by(&mut control.recorded, verified, now, record);
                let StandIn { since: confirmed, limit } = match stand_in {
                    Ok(stand_in) => stand_in,
                    Err(error) => {
                        control.last_failure = Some(Box::new(error));
                        return;
                    }
                };
                let (started, max_grace) = (adopt.started, Some(adopt.grace));
                (Event::StoodIn { epoch, started, confirmed, limit, max_grace }, Some(*adopt))
            }
            Refreshed::Refused(refusal, error) => {
                control.last_failure = Some(Box::new(error));
                (Event::SecondRefused { epoch, refusal }, None)
            }
            Refreshed::Deleted(known) => {
                if !control.known.yield_to(known) {
                    return;
                }
                (Event::Delete, None)
            }
            Refreshed::Purged => (Event::Delete, None),
            // Of one that was refused before, which another machine has wrapped anew: an attempt is to find out, soon.
            Refreshed::OneShare => (Event::RecordChanged, None),
            // What the first one's silence earns is not lost by that.
            Refreshed::Silent(error) | Refreshed::NoRecord(error) | Refreshed::Wrong(error) => {
                control.last_failure = Some(Box::new(error));
                return;
            }
        };
        let effects = control.lease.on(now, event);
        self.apply(&mut control, effects, adopt);
        let ended = self.settle(&mut control, None);
        drop(control);
        ended.tell();
    }

    /// The second provider has refused in a call begun in `epoch`, and the newest record is being compared. The epoch of what the call then
    /// brings: it unwraps after the refusal, so it counts in the epoch that the refusal began; but not where another closing came first.
    pub(crate) fn take_second_pending(&self, now: Moment, epoch: Epoch) -> Epoch {
        let mut control = self.lock_control();
        // Whether it is heard is decided by what time has left.
        let expired = control.lease.on(now, Event::Wake);
        self.apply(&mut control, expired, None);
        let heard = control.lease.hears_second(epoch);
        let effects = control.lease.on(now, Event::SecondRefusedPending { epoch });
        self.apply(&mut control, effects, None);
        let counts = if heard { control.lease.epoch() } else { epoch };
        let ended = self.settle(&mut control, None);
        drop(control);
        ended.tell();
        counts
    }

    /// Asks the second provider. Like [`Self::refresh`], with as few calls.
    pub(crate) async fn stand_in(&self, report: &Report) -> Result<Refreshed, Refreshed> {
        let known = self.known();
        let mut newest = self.newest(&known)?;
        let unwrapped = match self.unwrap_by_second(&known, &newest, report).await {
            Err(Refreshed::Refused(refusal, error)) if self.store().is_some() => {
                report.refused(refusal);
                let again = self.newest(&newest)?;
                if wraps_of_second(&again) == wraps_of_second(&newest) {
                    return Err(Refreshed::Refused(refusal, error));
                }
                newest = again;
                self.unwrap_by_second(&known, &newest, report).await?
            }
            other => other?,
        };
        Ok(match self.adopt(unwrapped, newest.tag) {
            // It is the second one that has unwrapped.
            Refreshed::Verified(adopt) => Refreshed::Verified(Box::new(Adopt { renewal: None, ..*adopt })),
            other => other,
        })
    }

    async fn unwrap_by_second(
        &self,
        known: &Known,
        newest: &Known,
        report: &Report,
    ) -> Result<Unwrapped, Refreshed> {
        let record = &newest.record;
        let providers = self.admit(known, record).map_err(Refreshed::Wrong)?;
        self.require_time_left(self.clock().now(), record)?;
        let held = record.held_by_second().unwrap_or_default();
        let wraps = wraps_of_second(newest);
        let asked = Asked { providers: &providers, held: &held, wraps: &wraps, first: 0 };
        self.unwrap_wraps(asked, known, newest, Some(report)).await
    }

    /// Nobody asks the second one where the record says that the first has refused, or past the limit, whatever else it claims.
    fn require_time_left(&self, now: Moment, record: &AccountRecord) -> Result<(), Refreshed> {
        let (mut recorded, verified) = {
            let control = self.lock_control();
            // A copy: nobody has authenticated the record yet.
            (control.recorded.clone(), control.lease.first_verified())
        };
        // As if no record was read: of the KMS it says nothing.
        let stand_in = self.stand_in_by(&mut recorded, verified, now, record).map_err(Refreshed::NoRecord)?;
        if now.reached(stand_in.end()) {
            let message = "the limit is over for which the second KMS may stand in for the first";
            return Err(Refreshed::NoRecord(self.not_asked(message)));
        }
        Ok(())
    }

    fn stand_in_by(
        &self,
        recorded: &mut Recorded,
        verified: Option<Moment>,
        now: Moment,
        record: &AccountRecord,
    ) -> Result<StandIn, Error> {
        let open = |terms: &&Terms| matches!(terms.standing, Standing::Open { .. });
        let terms = record.custody().terms().filter(open).ok_or_else(|| {
            self.not_asked("the first KMS has refused: the second one is barred until it unwraps again")
        })?;
        let future = || self.not_asked("the first KMS has last answered in the future: the clock is behind");
        recorded.stand_in(terms, now, verified).ok_or_else(future)
    }

    const fn not_asked(&self, message: &'static str) -> Error {
        Error::new(ErrorKind::Unavailable, message).with_account(self.id())
    }

    /// Something else than a refresh has met what `failed` says of `newest`. Where that is a refusal, it is as good as one that a refresh meets:
    /// it is recorded, and this account asks, soon.
    pub(crate) fn heed_refusal(&self, failed: &Refreshed, newest: &Known) {
        if matches!(failed, Refreshed::Refused(..)) {
            self.record_refusal(newest.clone());
            self.feed(self.clock().now(), Event::AuthorityRefused);
            self.poke();
        }
    }

    /// The first provider has refused: has the record say so. Tried again at the next probe where it cannot be written now.
    pub(super) fn record_refusal(&self, newest: Known) {
        let mut newest = newest;
        for _ in 0..MOST_TRIES {
            let Some(store) = self.store() else { return self.bar_what_is_known(&newest) };
            let Some(barred) = newest.record.barred() else { return };
            let (id, expected, bytes) = (self.id(), newest.tag.as_ref(), barred.to_bytes());
            let written = match newest.verified {
                // It is as authentic as the one that it follows.
                Some(_) => store.compare_and_swap(id, expected, &bytes),
                None => store.swap_unauthenticated(id, expected, &bytes),
            };
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

    /// The same without a store, where a change may have been acknowledged since `refused` was read: it is that which is followed. New wraps
    /// are asked for by the next attempt.
    fn bar_what_is_known(&self, refused: &Known) {
        let mut control = self.lock_control();
        let known = control.known.wake();
        if known.record.wraps() == refused.record.wraps()
            && let Some(barred) = known.record.barred()
        {
            let record = Arc::new(barred);
            let verified = known.verified.and_then(|verified| verified.barred());
            control.known.yield_to(Known { record, tag: None, verified });
        }
    }

    /// The first provider has unwrapped: has the record say so, in the background, because no refresh waits for that.
    pub(crate) fn begin_renewal(self: &Arc<Self>, renewal: VerifiedRecord, known: &Known) {
        let next = Known { record: renewal.share(), tag: None, verified: Some(renewal) };
        let Some(store) = self.record_store().cloned() else {
            // Where a change came first, the next refresh says it.
            let _ = self.replace_known(next);
            return;
        };
        let (inner, tag) = (Arc::downgrade(self), known.tag.clone());
        let destination = Destination::of_records(&store);
        let run = Box::pin(async move {
            if let Some(inner) = inner.upgrade()
                // Another machine may have been first; what fails is tried again at the next refresh.
                && let Ok(tag) = store.compare_and_swap(inner.id(), tag.as_ref(), &next.record.to_bytes())
            {
                let _ = inner.replace_known(Known { tag: Some(tag), ..next });
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

/// So many times within its limit, the record says when the first provider has answered.
const RENEWALS: u32 = 4;
/// Machines that hear of one refusal together each write it.
const MOST_TRIES: usize = 4;
