//! What the accounts at one authority learn from each other: that it is silent, or that it refuses (invariant 3). Imports: `clock`,
//! `lease`, `account`, `authority`, `lanes`.

use super::EventLoop;
use crate::account::AccountKey;
use crate::clock::Moment;
use crate::keeper::authority::Bulkhead;
use crate::keeper::lanes::LaneId;
use crate::lease::Event;

impl EventLoop {
    pub(super) fn share_silence(&mut self, now: Moment, lane: LaneId, begun: Moment, asked: bool) {
        let Some(lane) = self.lanes.get(lane) else { return };
        let keys = lane.accounts.as_slice().to_vec();
        for key in keys {
            self.feed(now, key, Event::AuthoritySilent { begun, asked });
            // Its own attempt would have read the record.
            if let Some(account) = self.account(key) {
                account.begin_look();
            }
        }
    }

    /// Where no probe can be made while calls hang, none tells of the silence any more; the hanging calls do. Without this an
    /// outage in which calls hang for long would end the grace that it earns.
    pub(super) fn share_lasting_silence(&mut self, now: Moment) {
        let (caps, mut load) = (self.caps, self.load());
        let working: Vec<_> = self.lanes.ready().map(|(id, lane)| (id, lane.held())).collect();
        for (lane, held) in working {
            load.held = held;
            let silent = |bulkhead: &mut Bulkhead| {
                bulkhead.is_silent_still(now, caps, load).then(|| bulkhead.was_asked())
            };
            if let Some(asked) = self.lanes.change(lane, silent).flatten() {
                self.share_silence(now, lane, now, asked);
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
