//! What the accounts at one authority learn from each other: that it is silent, or that it refuses (invariant 3). Imports: `clock`,
//! `lease`, `account`, `authority`, `lanes`.

use std::collections::BTreeMap;

use super::EventLoop;
use crate::account::AccountKey;
use crate::clock::Moment;
use crate::keeper::authority::Bulkhead;
use crate::keeper::lanes::LaneId;
use crate::lease::Event;

/// The silence that calls have met, until the accounts of their authority have learned of it.
///
/// A thousand calls under way that meet it one after the other, at an authority of a hundred thousand accounts, would be a hundred million events,
/// and other authorities would wait for them. So the first is told at once and what follows is gathered: the latest says all that the others do.
#[derive(Default)]
pub(super) struct Silences(BTreeMap<(LaneId, Whose), News>);

/// Whose silence it is. The KMS's own says more, so it is told first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    Kms,
    /// Of what comes before the KMS is asked.
    NotKms,
}

#[derive(Default)]
struct News {
    /// When the latest call began of which nobody was told.
    begun: Option<Moment>,
    /// When somebody was last told, on the boot-time clock.
    told: Option<u64>,
}

impl News {
    fn tells_from(&self) -> u64 {
        self.told.map_or(0, |told| told.saturating_add(APART))
    }
}

impl Silences {
    /// A call at `lane`, begun at `begun`, met silence: the KMS's own where it was `asked`.
    pub(super) fn note(&mut self, lane: LaneId, begun: Moment, asked: bool) {
        let whose = if asked { Whose::Kms } else { Whose::NotKms };
        let news = self.0.entry((lane, whose)).or_default();
        if news.begun.is_none_or(|latest| latest.boot_nanos() < begun.boot_nanos()) {
            news.begun = Some(begun);
        }
    }

    /// What is to be told now.
    fn take(&mut self, now: Moment) -> Vec<(LaneId, Moment, bool)> {
        let mut due = Vec::new();
        self.0.retain(|(lane, whose), news| {
            if now.boot_nanos() < news.tells_from() {
                return true;
            }
            if let Some(begun) = news.begun.take() {
                due.push((*lane, begun, *whose == Whose::Kms));
                news.told = Some(now.boot_nanos());
                return true;
            }
            false
        });
        due
    }

    /// When there is something to be told, on the boot-time clock.
    pub(super) fn due(&self) -> Option<u64> {
        self.0.values().filter(|news| news.begun.is_some()).map(News::tells_from).min()
    }
}

impl EventLoop {
    /// Silence is the answer to every account that was due when the call began which met it.
    pub(super) fn share_silences(&mut self, now: Moment) {
        for (lane, begun, asked) in self.silences.take(now) {
            // Whoever is new there, also where the place of an authority was used again, was not due then.
            let Some(lane) = self.lanes.get(lane) else { continue };
            let keys = lane.accounts.as_slice().to_vec();
            for key in keys {
                self.feed(now, key, Event::AuthoritySilent { begun, asked });
                // Its own attempt would have read the record.
                if let Some(account) = self.account(key) {
                    account.begin_look();
                }
            }
        }
    }

    /// Where no probe can be made while calls hang, none tells of the silence any more; the hanging calls do. Without this an
    /// outage in which calls hang for long would end the grace that it earns.
    pub(super) fn note_lasting_silence(&mut self, now: Moment) {
        let (caps, mut load) = (self.caps, self.load());
        let working: Vec<_> = self.lanes.ready().map(|(id, lane)| (id, lane.held())).collect();
        for (lane, held) in working {
            load.held = held;
            let silent = |bulkhead: &mut Bulkhead| {
                bulkhead.is_silent_still(now, caps, load).then(|| bulkhead.was_asked())
            };
            if let Some(asked) = self.lanes.change(lane, silent).flatten() {
                self.silences.note(lane, now, asked);
            }
        }
    }

    pub(super) fn tell_neighbours(&mut self, now: Moment, lane: LaneId, but: AccountKey, event: Event) {
        let Some(lane) = self.lanes.get(lane) else { return };
        let keys: Vec<_> = lane.accounts.as_slice().iter().copied().filter(|key| *key != but).collect();
        for key in keys {
            self.feed(now, key, event);
        }
    }
}

/// Much less than F leaves for a second attempt, in nanoseconds.
const APART: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;
    use crate::keeper::authority::Destination;
    use crate::keeper::lanes::Lanes;
    use crate::provider::Authority;

    #[test]
    fn b12_silence_is_told_at_once_and_then_gathered() {
        let mut lanes = Lanes::default();
        let mut lane = |name| {
            let authority = Authority::new("scripted", name);
            lanes.id(&Destination::Kms { authority, holds_threads: true })
        };
        let (a, b) = (lane("a"), lane("b"));
        let clock = ManualClock::new();
        let later = |by: u64| {
            clock.advance(Duration::from_nanos(by));
            clock.moment()
        };
        let mut silences = Silences::default();
        let first = clock.moment();
        silences.note(a, first, false);
        silences.note(a, first, true);
        let told = later(1);
        // What says more comes first: who had learned of the other would not be due any more.
        assert_eq!(silences.take(told), [(a, first, true), (a, first, false)]);
        let last = later(1);
        for begun in [first, last, first] {
            silences.note(a, begun, true);
        }
        silences.note(b, first, true);
        assert_eq!(silences.take(last), [(b, first, true)], "another authority waits for nothing");
        let again = told.boot_nanos() + APART;
        assert_eq!(silences.due(), Some(again));
        assert_eq!(silences.take(later(APART - 2)), []);
        assert_eq!(silences.take(later(1)), [(a, last, true)]);
        assert_eq!(silences.due(), None);
        assert_eq!(silences.take(later(APART)), []);
        assert!(silences.0.is_empty(), "nothing is kept of what is over");
    }
}
